package pds

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/syntax"
)

func beUint64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// treeSource gives a tree its nodes from the block table. A child is the next row after its left neighbour, so that a load is one seek;
// when rows that commits on their way are going to remove lie between, it comes a little later.
type treeSource struct {
	from kv.Reader
	gen  uint64
}

var _ mst.FirstSource = treeSource{}

// Load implements [mst.Source].
func (t treeSource) Load(c cid.CID, at mst.Pos) ([]byte, error) {
	data, _, err := t.LoadFirst(c, at)
	return data, err
}

// LoadFirst implements [mst.FirstSource].
func (t treeSource) LoadFirst(c cid.CID, at mst.Pos) ([]byte, string, error) {
	lo, hi := genRange(tableBlock, t.gen)
	it := t.from.Iter(lo, hi)
	defer it.Close()
	var ok bool
	switch {
	case at.Exclusive && at.After == "":
		ok = it.First()
	case at.Exclusive:
		// The record of the entry before is the last row that is not the child's.
		ok = it.SeekGE(append(recordKey(t.gen, at.After), 0))
	default:
		ok = it.SeekGE(nodeKey(t.gen, at.After, max(at.Layer, 0)))
	}
	for ; ok; ok = it.Next() {
		_, got, data, err := splitBlock(it.Value())
		if err != nil {
			return nil, "", err
		}
		if got != c {
			continue
		}
		first, layer, err := splitBlockKey(it.Key())
		if err != nil {
			return nil, "", err
		}
		if layer >= 0 { // else a record that looks like a node
			return append([]byte(nil), data...), first, nil
		}
	}
	if err := it.Err(); err != nil {
		return nil, "", fmt.Errorf("reading tree node %s: %w", c, err)
	}
	return nil, "", fmt.Errorf("tree node %s: %w", c, mst.ErrNotFound)
}

// recordByCID finds a record's block through the index; nil when there is none.
func recordByCID(from kv.Reader, gen uint64, c cid.CID) ([]byte, error) {
	prefix := byCIDPrefix(gen, c)
	it := from.Iter(prefix, kv.PrefixEnd(prefix))
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := from.Get(blockKeyFromIndex(it.Key()))
		if errors.Is(err, kv.ErrNotFound) {
			continue // only seen outside of a snapshot, between two reads
		}
		if err != nil {
			return nil, fmt.Errorf("reading block %s: %w", c, err)
		}
		_, got, data, err := splitBlock(v)
		if err != nil {
			return nil, err
		}
		if got == c { // the index has half of the digest only
			return data, nil
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("looking up block %s: %w", c, err)
	}
	return nil, nil
}

// storedTree opens the tree of a durable head.
func storedTree(from kv.Reader, gen uint64, root cid.CID) *mst.Tree {
	return mst.OpenOptions(root, treeSource{from, gen}, mst.Options{ShapeChecked: true})
}

func putNodes(b kv.Batch, gen uint64, rev syntax.TID, change mst.Change) {
	var keys rowBuffer
	for i := range change.Added {
		keys.putNode(b, gen, rev, &change.Added[i])
	}
}

// rowBuffer is the memory in which rows are put together; a batch copies what it is given.
type rowBuffer struct{ key, value []byte }

func (r *rowBuffer) putNode(b kv.Batch, gen uint64, rev syntax.TID, n *mst.NodeBlock) {
	r.key = appendNodeKey(r.key[:0], gen, n.First, n.Layer)
	r.value = appendBlock(slices.Grow(r.value[:0], blockHeader+len(n.Bytes)), rev, n.CID, n.Bytes)
	b.Set(r.key, r.value)
}

// removeNodes comes before putNodes: a new node can have the position of an old one, whose row needs no deletion then.
func removeNodes(b kv.Batch, gen uint64, change mst.Change) {
	var keys rowBuffer
	at := 0 // both lists are in the order of position
	for i := range change.Removed {
		n := &change.Removed[i]
		order := -1
		for at < len(change.Added) {
			a := &change.Added[at]
			if order = cmp.Or(strings.Compare(a.First, n.First), n.Layer-a.Layer); order >= 0 {
				break
			}
			at++
		}
		if order != 0 {
			keys.key = appendNodeKey(keys.key[:0], gen, n.First, n.Layer)
			b.Delete(keys.key)
		}
	}
}

// exportChunk is how much of an export is read at once. The iterator is closed before a chunk is written, so that a slow client holds
// nothing but a snapshot.
const exportChunk = 512 << 10

// export writes a repository in streamable order: the commit, then the tree in pre-order with its records. With since it leaves out what
// an earlier revision has. write gets full chunks and must not keep them.
func export(from kv.Reader, h *headRow, since syntax.TID, write func([]byte) error) error {
	after := uint64(0)
	if since != "" {
		after = since.Integer()
	}
	buf := car.AppendHeader(make([]byte, 0, exportChunk+64<<10), h.Commit)
	if since == "" || h.Rev > since {
		buf = car.AppendBlock(buf, h.Commit, h.Block)
	}
	next, hi := genRange(tableBlock, h.Gen)
	for done := false; !done; {
		it := from.Iter(next, hi)
		ok := it.First()
		for ; ok && len(buf) < exportChunk; ok = it.Next() {
			rev, c, data, err := splitBlock(it.Value())
			if err != nil {
				it.Close()
				return err
			}
			if rev > after {
				buf = car.AppendBlock(buf, c, data)
			}
		}
		if ok {
			next = append(next[:0:0], it.Key()...)
		} else {
			done = true
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return fmt.Errorf("exporting %s: %w", h.DID, err)
		}
		if err := write(buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	return nil
}
