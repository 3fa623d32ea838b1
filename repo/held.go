package repo

import (
	"sync"

	"github.com/barograph/baro/cid"
)

// heldSet holds blocks by their CIDs: copies, or where they lie if the file is in memory. In a file whose blocks come in no order
// every look-up goes to another place in memory, and to wait for that is most of the work; so there is nothing between the
// table and a block's own bytes.
type heldSet struct {
	file   []byte   // if it is in memory
	chunks [][]byte // else copies of blocks: CID, data
	table  []heldSlot
	count  int    // blocks in the table
	bytes  int64  // of the data of all
	small  []byte // the first chunk, to use again
	warmed byte   // keeps loads that are for nothing else

	wanted      int // blocks
	wantedBytes int64

	again      int // blocks that were there already
	againBytes int64

	// Blocks that aren't in the table yet. To put in some at a time means to wait for memory once for all of them.
	pending [64]heldSlot
	n       int
}

// heldSlot is a place in the table. A block is told by, from the lowest bit up, the size of its data, whether it was wanted, and
// one more than where its CID begins: in the file, or in a chunk and which.
type heldSlot struct {
	hash uint64
	at   uint64 // 0 if free
}

const (
	sizeBits = 21 // cbor.MaxRecord is 1 << 20
	heldUsed = 1 << sizeBits
	heldAt   = sizeBits + 1

	smallChunk  = 64 << 10
	chunkBits   = 23
	largeChunk  = 1 << chunkBits // with room for any block
	maxHeldKept = 1 << 14        // slots of a table to use again
)

func (k *heldSlot) size() int { return int(k.at & (1<<sizeBits - 1)) }

// largeChunks are those that nobody uses: memory costs more to get than to fill.
var largeChunks = sync.Pool{New: func() any { return new([largeChunk]byte) }}

// slot returns the slot of c, or the free one where it would be.
func (s *heldSet) slot(c *cid.CID, h uint64) *heldSlot {
	mask := uint64(len(s.table) - 1)
	for i := h; ; i++ {
		p := &s.table[i&mask]
		if p.at == 0 || p.hash == h && *(*cid.CID)(s.entry(p.at)) == *c {
			return p
		}
	}
}

// entry returns what begins at a place of the table: a CID, and the data.
func (s *heldSet) entry(at uint64) []byte {
	at = at>>heldAt - 1
	if s.file != nil {
		return s.file[at:]
	}
	return s.chunks[at>>chunkBits][at&(largeChunk-1):]
}

// grow makes room for all that is pending.
func (s *heldSet) grow() {
	old := s.table
	size := max(256, 2*len(old))
	if len(old) < 1<<18 { // every time again all blocks have to be entered
		size = max(256, 4*len(old))
	}
	s.table = make([]heldSlot, size)
	mask := uint64(size - 1)
	for _, p := range old {
		if p.at == 0 {
			continue
		}
		i := p.hash & mask
		for s.table[i].at != 0 {
			i = (i + 1) & mask
		}
		s.table[i] = p
	}
}

// keep puts in a block, or a copy of it. It ends at an offset of the file. If it is there already, that is found later, and counted.
func (s *heldSet) keep(c *cid.CID, data []byte, end int64) {
	size := cid.Size + len(data)
	at := uint64(end) - uint64(size)
	if s.file == nil {
		last := len(s.chunks) - 1
		if last < 0 || cap(s.chunks[last])-len(s.chunks[last]) < size {
			s.chunk(size)
			last++
		}
		b := s.chunks[last]
		at = uint64(last)<<chunkBits | uint64(len(b))
		b = append(b, c[:]...)
		s.chunks[last] = append(b, data...)
	}
	s.pending[s.n] = heldSlot{hashCID(c), (at+1)<<heldAt | uint64(len(data))}
	s.n++
	s.bytes += int64(len(data))
	if s.n == len(s.pending) {
		s.settle()
	}
}

// memory returns about how many bytes the blocks take that are there: with an entry's head and its slots in the table, which
// for tiny blocks are most of it.
func (s *heldSet) memory() int64 {
	const each = cid.Size + 28
	return s.bytes + s.againBytes + int64(s.count+s.n+s.again)*each
}

// settle enters what is pending into the table.
func (s *heldSet) settle() {
	if 4*(s.count+s.n) > 3*len(s.table) {
		s.grow()
	}
	mask := uint64(len(s.table) - 1)
	for _, k := range s.pending[:s.n] {
		s.warmed += byte(s.table[k.hash&mask].at)
	}
	for _, k := range s.pending[:s.n] {
		p := s.slot((*cid.CID)(s.entry(k.at)), k.hash)
		if p.at == 0 {
			*p = k
			s.count++
			continue
		}
		// Its copy stays where it is, for nothing.
		size := int64(k.size())
		s.again++
		s.againBytes += size
		s.bytes -= size
	}
	s.n = 0
}

// chunk begins a chunk with room for an entry of n bytes.
func (s *heldSet) chunk(n int) {
	if len(s.chunks) == 0 && n <= smallChunk {
		if s.small == nil {
			s.small = make([]byte, 0, smallChunk)
		}
		s.chunks = append(s.chunks, s.small)
		return
	}
	s.chunks = append(s.chunks, largeChunks.Get().(*[largeChunk]byte)[:0])
}

// get returns the slot of a block, nil if it isn't there.
func (s *heldSet) get(c *cid.CID) *heldSlot {
	if s.n > 0 {
		s.settle()
	}
	if s.count == 0 {
		return nil
	}
	if p := s.slot(c, hashCID(c)); p.at != 0 {
		return p
	}
	return nil
}

// has reports whether a block is there.
func (s *heldSet) has(c *cid.CID) bool { return s.get(c) != nil }

// find returns the content of a block and notes that it was wanted.
func (s *heldSet) find(c *cid.CID) ([]byte, bool) {
	p := s.get(c)
	if p == nil {
		return nil, false
	}
	if p.at&heldUsed == 0 {
		p.at |= heldUsed
		s.wanted++
		s.wantedBytes += int64(p.size())
	}
	end := cid.Size + p.size()
	return s.entry(p.at)[cid.Size:end:end], true
}

// warm touches the memory that looking up links will. Look-ups one by one wait for memory twice each, for the table and for the
// block; these wait together.
func (s *heldSet) warm(links []*cid.CID) {
	var at [32]uint64
	mask := uint64(len(s.table) - 1)
	for len(links) > 0 {
		some := links[:min(len(links), len(at))]
		links = links[len(some):]
		for k, c := range some {
			at[k] = s.table[hashCID(c)&mask].at
		}
		for _, i := range at[:len(some)] {
			if i != 0 {
				e := s.entry(i)
				s.warmed += e[0] + e[cid.Size-1] + e[min(64, len(e)-1)]
			}
		}
	}
}

// recycle empties a set for another file.
func (s *heldSet) recycle() {
	for _, c := range s.chunks {
		if cap(c) == largeChunk {
			largeChunks.Put((*[largeChunk]byte)(c[:largeChunk]))
		}
	}
	clear(s.chunks)
	table := s.table
	if len(table) > maxHeldKept {
		table = nil
	}
	clear(table)
	*s = heldSet{chunks: s.chunks[:0], table: table, small: s.small}
}
