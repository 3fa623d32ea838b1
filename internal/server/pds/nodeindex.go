package pds

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// Tree nodes have no index by CID in the store: each write replaces a handful of them, and hardly anybody asks for one by its CID. But
// whoever resumes an export asks for thousands, a few at a time. So the first such request reads the repository through, like an export,
// and what it learns is kept in memory: for each node a number made of its CID, and behind which row to look for it, 8 bytes together.
//
// A node's row stays where it is for as long as the node is part of the tree, so that an index of an earlier revision still finds all
// nodes that are older. What is found is compared with the CID, so an index can't lead to anything wrong.

const (
	// maxNodeIndexBytes bounds all indexes together. A repository whose index alone is larger (some 12 million records) is read through
	// for each request.
	maxNodeIndexBytes = 32 << 20
	// markEvery is how many nodes lie between two marks: what is read for one node, with the records in between.
	markEvery = 16
	// maxNodeScans is how many repositories are read through at once.
	maxNodeScans = 2
)

// nodeIndex is the index of one repository. It doesn't change once it is there.
type nodeIndex struct {
	gen   uint64
	rev   syntax.TID
	nodes []uint64 // sorted; the upper half is made of the CID, the lower is the number of a mark
	marks []byte   // keys of rows
	ends  []uint32 // where each of them ends
}

func (x *nodeIndex) size() int64 {
	return int64(8*len(x.nodes) + len(x.marks) + 4*len(x.ends) + 256)
}

func (x *nodeIndex) mark(i uint32) []byte {
	from := uint32(0)
	if i > 0 {
		from = x.ends[i-1]
	}
	return x.marks[from:x.ends[i]]
}

// nodeIndexes keeps the indexes that were used last.
type nodeIndexes struct {
	seed  maphash.Seed // so that nobody can make nodes that look the same
	max   int64
	turns chan struct{}

	mu    sync.Mutex
	kept  []*nodeIndex // the one used last comes last
	bytes int64
}

func newNodeIndexes(max int64) *nodeIndexes {
	return &nodeIndexes{seed: maphash.MakeSeed(), max: max, turns: make(chan struct{}, maxNodeScans)}
}

func (n *nodeIndexes) fingerprint(c cid.CID) uint64 {
	return maphash.Bytes(n.seed, c[:]) &^ (1<<32 - 1)
}

func (n *nodeIndexes) get(gen uint64) *nodeIndex {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.kept, func(x *nodeIndex) bool { return x.gen == gen })
	if i < 0 {
		return nil
	}
	x := n.kept[i]
	n.kept = append(slices.Delete(n.kept, i, i+1), x)
	return x
}

// keep takes the place of an older index of the same repository.
func (n *nodeIndexes) keep(x *nodeIndex) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept = slices.DeleteFunc(n.kept, func(old *nodeIndex) bool {
		if old.gen == x.gen {
			n.bytes -= old.size()
		}
		return old.gen == x.gen
	})
	n.kept = append(n.kept, x)
	n.bytes += x.size()
	for n.bytes > n.max {
		n.bytes -= n.kept[0].size()
		n.kept = slices.Delete(n.kept, 0, 1)
	}
}

// find finds tree nodes of a repository; those that are not there are missing in the answer.
func (n *nodeIndexes) find(ctx context.Context, from kv.Reader, head *headRow, want map[cid.CID]bool) (map[cid.CID][]byte, error) {
	found := make(map[cid.CID][]byte, len(want))
	if len(want) == 0 {
		return found, nil
	}
	// known asks the index; true when it has said all that there is to say.
	known := func() (bool, error) {
		x := n.get(head.Gen)
		if x == nil {
			return false, nil
		}
		if err := n.look(from, x, want, found); err != nil {
			return false, err
		}
		return len(found) == len(want) || x.rev == head.Rev, nil
	}
	if done, err := known(); done || err != nil {
		return found, err
	}
	select {
	case n.turns <- struct{}{}:
		defer func() { <-n.turns }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if done, err := known(); done || err != nil { // meanwhile
		return found, err
	}
	return found, n.scan(ctx, from, head, want, found)
}

// look finds nodes by an index.
func (n *nodeIndexes) look(from kv.Reader, x *nodeIndex, want map[cid.CID]bool, found map[cid.CID][]byte) error {
	var marks []uint32
	for c := range want {
		if found[c] != nil {
			continue
		}
		print := n.fingerprint(c)
		i, _ := slices.BinarySearch(x.nodes, print)
		for ; i < len(x.nodes) && x.nodes[i]&^(1<<32-1) == print; i++ {
			marks = append(marks, uint32(x.nodes[i]))
		}
	}
	slices.Sort(marks)
	it := from.Iter(genRange(tableBlock, x.gen))
	defer it.Close()
	for _, m := range slices.Compact(marks) {
		var end []byte
		if int(m)+1 < len(x.ends) {
			end = x.mark(m + 1)
		}
		for ok := it.SeekGE(x.mark(m)); ok && len(found) < len(want); ok = it.Next() {
			if end != nil && string(it.Key()) >= string(end) {
				break
			}
			if _, err := nodeAt(it, want, found); err != nil {
				return err
			}
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("looking for tree nodes: %w", err)
	}
	return nil
}

// nodeAt takes a row to what is found if it is a wanted node, and returns the CID of a node.
func nodeAt(it kv.Iterator, want map[cid.CID]bool, found map[cid.CID][]byte) (c cid.CID, err error) {
	if k := it.Key(); k[len(k)-1] == 1 && k[len(k)-2] == 0 {
		return cid.CID{}, nil // a record
	}
	_, c, data, err := splitBlock(it.Value())
	if err == nil && want[c] {
		found[c] = append([]byte(nil), data...)
	}
	return c, err
}

// scan reads a repository through for the nodes, and makes its index on the way.
func (n *nodeIndexes) scan(ctx context.Context, from kv.Reader, head *headRow, want map[cid.CID]bool, found map[cid.CID][]byte) error {
	x := &nodeIndex{gen: head.Gen, rev: head.Rev}
	it := from.Iter(genRange(tableBlock, head.Gen))
	defer it.Close()
	rows, nodes := 0, 0
	for ok := it.First(); ok; ok = it.Next() {
		if rows++; rows%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		c, err := nodeAt(it, want, found)
		if err != nil {
			return err
		}
		if !c.Defined() {
			continue
		}
		if x == nil {
			if len(found) == len(want) {
				break
			}
			continue
		}
		if nodes%markEvery == 0 {
			x.marks = append(x.marks, it.Key()...)
			x.ends = append(x.ends, uint32(len(x.marks)))
		}
		nodes++
		x.nodes = append(x.nodes, n.fingerprint(c)|uint64(len(x.ends)-1))
		if x.size() > n.max {
			x = nil
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("looking for tree nodes: %w", err)
	}
	if x == nil {
		return nil
	}
	slices.Sort(x.nodes)
	x.nodes, x.marks, x.ends = slices.Clone(x.nodes), slices.Clone(x.marks), slices.Clone(x.ends) // without room to grow
	if newer := n.get(x.gen); newer == nil || newer.rev < x.rev {                                 // else this is an older snapshot
		n.keep(x)
	}
	return nil
}
