package repo

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/sha256x"
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
	some   [4]uint64 // a bit for each last byte of a CID that there is

	duplicates int // blocks that parse has found more than once

	// Of parse: the contents of all blocks that came, and their hashes, by which the hash of a node with another link is quickly found.
	views  [][]byte
	starts []int32 // of each, where it lies in the file
	sums   [][sha256x.Size]byte
	trails sha256x.Trails
}

type block struct {
	cid        cid.CID
	used       bool // it was wanted
	node       bool // as a node of the tree
	chunk      int32
	start, end int32   // in the chunk
	view       int32   // index in views
	_          [8]byte // to 64 bytes: a look-up in a large set waits for one line of memory, not for two
}

var (
	_ mst.Source        = (*blockSet)(nil)
	_ mst.PartialSource = (*blockSet)(nil)
)

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
	s.some[c[cid.Size-1]>>6] |= 1 << (c[cid.Size-1] & 63)
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
// none. Every block is hashed, all of them together, before it is put in: CIDs that are nobody's hash could be chosen so that they
// come together in the table.
func (s *blockSet) parse(b []byte) (cid.CID, error) {
	if len(b) > math.MaxInt32 {
		return cid.CID{}, failf(ReasonBlocksTooBig, "%d bytes", len(b))
	}
	sc, err := car.NewScanner(b, car.Options{Unverified: true})
	if err != nil {
		return cid.CID{}, carError(err)
	}
	s.chunks = append(s.chunks[:0], b)
	for {
		at, err := sc.Skip()
		if err == io.EOF {
			break
		}
		if err != nil {
			return cid.CID{}, firstFault(b)
		}
		start, end := at+cid.Size, sc.Offset()
		s.views, s.starts = append(s.views, b[start:end:end]), append(s.starts, int32(start))
	}
	s.sums = slices.Grow(s.sums[:0], len(s.views))[:len(s.views)]
	s.trails.Sum(s.sums, s.views)
	for i, view := range s.views {
		start := int(s.starts[i])
		c := (*cid.CID)(b[start-cid.Size:])
		if [sha256x.Size]byte(c[cid.Size-sha256x.Size:]) != s.sums[i] {
			return cid.CID{}, firstFault(b)
		}
		if s.add(c, 0, start, start+len(view)) {
			s.list[len(s.list)-1].view = int32(i)
		} else {
			s.duplicates++
		}
	}
	return sc.Root(), nil
}

// firstFault says what is wrong with a CAR file. Of several faults it is the first one.
func firstFault(b []byte) error {
	sc, err := car.NewScanner(b, car.Options{})
	for err == nil {
		_, err = sc.Next()
	}
	return carError(err)
}

// Node implements [mst.PartialSource].
func (s *blockSet) Node(c *cid.CID) (data []byte, id int, again bool) {
	b := s.get(c)
	if b == nil {
		return nil, 0, false
	}
	again, b.node = b.node, true
	return s.data(b), int(b.view), again
}

// Some implements [mst.PartialSource].
func (s *blockSet) Some() *[4]uint64 { return &s.some }

// Rehash implements [mst.PartialSource].
func (s *blockSet) Rehash(id int, block []byte, same int) [sha256x.Size]byte {
	return s.trails.Resume(id, block, same)
}

// noNodes takes it back that blocks are nodes of the tree.
func (s *blockSet) noNodes() {
	for i := range s.list {
		s.list[i].node = false
	}
}

// unused counts the blocks that nobody has wanted.
func (s *blockSet) unused() (n int, bytes int64) {
	for i := range s.list {
		if b := &s.list[i]; !b.used && !b.node {
			n++
			bytes += int64(b.end - b.start)
		}
	}
	return n, bytes
}

// reset empties the set for another message. It keeps the memory that most messages need, and nothing of the message.
func (s *blockSet) reset() {
	if len(s.table) > 1024 || cap(s.views) > 1024 {
		*s = blockSet{}
		return
	}
	clear(s.chunks)
	clear(s.table)
	clear(s.views)
	s.chunks, s.list, s.views, s.starts, s.bytes, s.duplicates = s.chunks[:0], s.list[:0], s.views[:0], s.starts[:0], 0, 0
	s.some = [4]uint64{}
}
