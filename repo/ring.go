package repo

import (
	"encoding/binary"
	"sync"

	"github.com/barograph/baro/cid"
)

// ring keeps copies of the blocks that were added last, up to a number of bytes: new ones overwrite the oldest. It finds
// them as a [blockSet] does.
type ring struct {
	max   int64
	buf   []byte
	at    int        // where in buf the next block goes
	items []ringItem // in the order in which they came; those before head are gone
	head  int
	base  uint32   // number of items[0]
	table []uint64 // upper half: of the digest; lower half: number of the item plus one; 0 if free
}

type ringItem struct {
	cid        cid.CID
	start, end int32
}

const (
	ringStart = 64 << 10 // bytes of the first buffer
	ringShare = 192      // bytes of buffer for each block, at least
)

// rings are those of the usual size that nobody uses: their memory costs more than a small repository takes to verify.
var rings = sync.Pool{New: func() any { return &ring{max: DefaultRetain} }}

func newRing(max int64) *ring {
	if max == DefaultRetain {
		return rings.Get().(*ring)
	}
	return &ring{max: max}
}

// free gives the ring back, which must not be used any more.
func (g *ring) free() {
	if g.max != DefaultRetain {
		return
	}
	clear(g.table)
	g.items, g.at, g.head, g.base = g.items[:0], 0, 0, 0
	rings.Put(g)
}

func ringHash(c *cid.CID) uint64 { return binary.LittleEndian.Uint64(c[cid.Size-8:]) }

// slot returns the index in the table of c, or of the free slot where it would be.
func (g *ring) slot(c *cid.CID) uint64 {
	h := ringHash(c)
	mask := uint64(len(g.table) - 1)
	tag := h >> 32
	for i := h & mask; ; i = (i + 1) & mask {
		v := g.table[i]
		if v == 0 || v>>32 == tag && g.items[uint32(v)-1-g.base].cid == *c {
			return i
		}
	}
}

func (g *ring) get(c *cid.CID) []byte {
	if len(g.table) == 0 {
		return nil
	}
	v := g.table[g.slot(c)]
	if v == 0 {
		return nil
	}
	it := &g.items[uint32(v)-1-g.base]
	return g.buf[it.start:it.end:it.end]
}

// add puts in a copy of a block, unless it is there or too large.
func (g *ring) add(c *cid.CID, b []byte) {
	if int64(len(b)) > g.max/16 {
		return
	}
	if len(g.table) == 0 {
		g.table = make([]uint64, 256)
	}
	i := g.slot(c)
	if g.table[i] != 0 {
		return
	}
	moved := false
	if need := g.at + len(b); need > len(g.buf) && int64(len(g.buf)) < g.max {
		buf := make([]byte, min(g.max, max(ringStart, 2*int64(len(g.buf)), int64(need))))
		copy(buf, g.buf[:g.at])
		g.buf = buf
	}
	if g.at+len(b) > len(g.buf) {
		// Back to the start. What lies between here and the end is the oldest.
		for g.head < len(g.items) && int(g.items[g.head].start) >= g.at {
			g.evict()
		}
		g.at = 0
		moved = true
	}
	// Many tiny blocks must not take more memory than the buffer does.
	for int64(len(g.items)-g.head) > g.max/ringShare {
		g.evict()
		moved = true
	}
	// In the first lap there is nothing to overwrite: items begin at 0 and end at g.at.
	for g.head < len(g.items) && int(g.items[g.head].start) >= g.at && int(g.items[g.head].start) < g.at+len(b) {
		g.evict()
		moved = true
	}
	if g.head > 256 && g.head > len(g.items)/2 {
		g.items = append(g.items[:0], g.items[g.head:]...)
		g.base += uint32(g.head)
		g.head = 0
	}
	if live := len(g.items) - g.head; 2*live >= len(g.table) {
		g.table = make([]uint64, 2*len(g.table))
		for i := g.head; i < len(g.items); i++ {
			g.enter(i, g.slot(&g.items[i].cid))
		}
		moved = true
	}
	if moved {
		i = g.slot(c)
	}
	copy(g.buf[g.at:], b)
	g.items = append(g.items, ringItem{*c, int32(g.at), int32(g.at + len(b))})
	g.enter(len(g.items)-1, i)
	g.at += len(b)
}

func (g *ring) enter(item int, slot uint64) {
	g.table[slot] = ringHash(&g.items[item].cid)&^(1<<32-1) | uint64(g.base+uint32(item)+1)
}

// evict takes out the oldest item, and moves those behind it in the table up into the gap.
func (g *ring) evict() {
	mask := uint64(len(g.table) - 1)
	gap := g.slot(&g.items[g.head].cid)
	g.head++
	for i := (gap + 1) & mask; g.table[i] != 0; i = (i + 1) & mask {
		home := ringHash(&g.items[uint32(g.table[i])-1-g.base].cid) & mask
		if (i-home)&mask >= (i-gap)&mask {
			g.table[gap] = g.table[i]
			gap = i
		}
	}
	g.table[gap] = 0
}
