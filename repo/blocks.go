package repo

import (
	"fmt"
	"io"
	"math"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// blockSet holds blocks by CID, without a pointer per block: a list of where they lie, and a table of open addressing over
// it. Half of a block's hash lies in the table, so that a look-up seldom has to look at a block that isn't meant.
type blockSet struct {
	chunks [][]byte // what the blocks lie in
	spare  [][]byte // chunks of copied blocks to use again
	list   []block
	table  []uint64 // upper half: of the digest; lower half: index in list plus one; 0 if free
	bytes  int64
	warmed byte // keeps the loads of warm

	duplicates int // blocks that parse has found more than once
}

type block struct {
	cid        cid.CID
	used       bool // it was wanted
	node       bool // as a node of the tree
	chunk      int32
	start, end int32    // in the chunk
	_          [12]byte // to 64 bytes: a look-up in a large set waits for one line of memory, not for two
}

const minChunk, maxChunk = 64 << 10, 8 << 20 // of copied blocks

var _ mst.Source = (*blockSet)(nil)

func (s *blockSet) data(b *block) []byte { return s.chunks[b.chunk][b.start:b.end:b.end] }

// slot returns the slot of c, or the free one where it would be, and what to put there above the index.
func (s *blockSet) slot(c *cid.CID) (*uint64, uint64) {
	h := hashCID(c)
	mask := uint64(len(s.table) - 1)
	tag := h &^ (1<<32 - 1)
	for ; ; h++ {
		p := &s.table[h&mask]
		if *p == 0 || *p&^(1<<32-1) == tag && s.list[uint32(*p)-1].cid == *c {
			return p, tag
		}
	}
}

// add puts in a block that lies in a chunk, unless it is there already.
func (s *blockSet) add(c *cid.CID, chunk, start, end int) bool {
	if 2*len(s.list) >= len(s.table) {
		s.grow()
	}
	p, tag := s.slot(c)
	if *p != 0 {
		return false
	}
	s.list = append(s.list, block{cid: *c, chunk: int32(chunk), start: int32(start), end: int32(end)})
	*p = tag | uint64(len(s.list))
	s.bytes += int64(end - start)
	return true
}

func (s *blockSet) grow() {
	s.table = make([]uint64, max(32, 2*len(s.table)))
	for i := range s.list {
		p, tag := s.slot(&s.list[i].cid)
		*p = tag | uint64(i+1)
	}
}

// keep puts in a copy of a block, unless it is there already.
func (s *blockSet) keep(c *cid.CID, data []byte) bool {
	last := len(s.chunks) - 1
	if last < 0 || cap(s.chunks[last])-len(s.chunks[last]) < len(data) {
		s.chunk(len(data))
		last++
	}
	start := len(s.chunks[last])
	if !s.add(c, last, start, start+len(data)) {
		return false
	}
	s.chunks[last] = append(s.chunks[last], data...)
	return true
}

// chunk begins a chunk with room for n bytes at least.
func (s *blockSet) chunk(n int) {
	if k := len(s.spare) - 1; k >= 0 {
		c := s.spare[k]
		s.spare = s.spare[:k]
		if cap(c) >= n {
			s.chunks = append(s.chunks, c[:0])
			return
		}
	}
	size := minChunk
	if last := len(s.chunks) - 1; last >= 0 {
		size = min(maxChunk, 2*cap(s.chunks[last]))
	}
	s.chunks = append(s.chunks, make([]byte, 0, max(size, n)))
}

func (s *blockSet) get(c *cid.CID) *block {
	if len(s.table) == 0 {
		return nil
	}
	if p, _ := s.slot(c); *p != 0 {
		return &s.list[uint32(*p)-1]
	}
	return nil
}

// find returns the content of a block and notes that it was wanted.
func (s *blockSet) find(c *cid.CID) ([]byte, bool) {
	b := s.get(c)
	if b == nil {
		return nil, false
	}
	b.used = true
	return s.data(b), true
}

// warm touches the memory that looking up the links of a node will. Look-ups one by one wait for memory twice each; these
// wait together.
func (s *blockSet) warm(n *mst.Node) {
	var at [2 * 32]uint32
	k := 0
	mask := uint64(len(s.table) - 1)
	for i := range n.Entries[:min(len(n.Entries), len(at)/2)] {
		e := &n.Entries[i]
		at[k] = uint32(s.table[hashCID(&e.Value)&mask])
		at[k+1] = uint32(s.table[hashCID(&e.Right)&mask])
		k += 2
	}
	for _, i := range at[:k] {
		if i != 0 {
			s.warmed += s.list[i-1].cid[cid.Size-1]
		}
	}
}

// Load implements [mst.Source].
func (s *blockSet) Load(c cid.CID, _ mst.Pos) ([]byte, error) {
	if b, ok := s.find(&c); ok {
		return b, nil
	}
	return nil, fmt.Errorf("block %s: %w", c, mst.ErrNotFound)
}

// parse puts in the blocks of a CAR file, as views of it, and returns its first root, undefined if there is
// none. Every block is hashed.
func (s *blockSet) parse(b []byte) (cid.CID, error) {
	if len(b) > math.MaxInt32 {
		return cid.CID{}, failf(ReasonBlocksTooBig, "%d bytes", len(b))
	}
	sc, err := car.NewScanner(b, car.Options{})
	if err != nil {
		return cid.CID{}, carError(err)
	}
	s.chunks = append(s.chunks[:0], b)
	for {
		k, err := sc.Next()
		if err == io.EOF {
			return sc.Root(), nil
		}
		if err != nil {
			return cid.CID{}, carError(err)
		}
		end := sc.Offset()
		if !s.add(&k.CID, 0, end-len(k.Data), end) {
			s.duplicates++
		}
	}
}

// unused counts the blocks that nobody has wanted.
func (s *blockSet) unused() (n int, bytes int64) {
	for i := range s.list {
		if b := &s.list[i]; !b.used {
			n++
			bytes += int64(b.end - b.start)
		}
	}
	return n, bytes
}

// reset empties the set for another message. It keeps the memory that most messages need, and nothing of the message.
func (s *blockSet) reset() {
	if len(s.table) > 1024 {
		*s = blockSet{}
		return
	}
	clear(s.chunks)
	clear(s.table)
	s.chunks, s.list, s.bytes, s.duplicates = s.chunks[:0], s.list[:0], 0, 0
}

// recycle empties a set of copied blocks for another file. It keeps the memory that most files need.
func (s *blockSet) recycle() {
	const most = 1 << 20
	if cap(s.list)*64 > most || cap(s.table)*8 > most {
		*s = blockSet{}
		return
	}
	clear(s.table)
	size := 0
	for _, c := range s.spare {
		size += cap(c)
	}
	for _, c := range s.chunks {
		if size += cap(c); size <= most {
			s.spare = append(s.spare, c)
		}
	}
	clear(s.chunks)
	s.chunks, s.list, s.bytes, s.duplicates = s.chunks[:0], s.list[:0], 0, 0
}
