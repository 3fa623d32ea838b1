package repo

import (
	"fmt"
	"io"
	"math"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// blockSet holds the blocks of a message by CID, without a pointer per block: a list of where they lie, and a table of open
// addressing over it. Half of a block's hash lies in the table, so that a look-up seldom has to look at a block that isn't
// meant.
type blockSet struct {
	chunks [][]byte // what the blocks lie in
	list   []block
	table  []uint64 // upper half: of the digest; lower half: index in list plus one; 0 if free
	bytes  int64

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
