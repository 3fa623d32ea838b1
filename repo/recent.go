package repo

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
)

// recent finds the blocks that a [car.Reader] has returned last, as long as it keeps them. Until somebody asks for one it
// costs no more than a note of each: in a file in streamable order nobody does, unless a record has two paths.
type recent struct {
	car   *car.Reader
	list  []recentBlock // in the order in which they came
	table []uint64      // upper half: of the hash; lower half: index in list plus one; 0 if free. Empty until somebody asks
	used  int           // slots of the table that aren't free
}

type recentBlock struct {
	off  int64 // of the CID and the data, in the stream
	size int32
}

// secret makes it impossible to choose digests so that they come together in a table.
var secret = maphash.Bytes(maphash.MakeSeed(), nil) | 1

// hashCID returns a hash for tables of blocks that have been hashed: eight bytes of a digest are as good as all then. Who could give
// blocks any names that he likes would find enough that come together.
func hashCID(c *cid.CID) uint64 {
	h := binary.LittleEndian.Uint64(c[cid.Size-8:]) * secret
	return h ^ h>>32
}

func (r *recent) reset(c *car.Reader) {
	clear(r.table)
	r.car, r.list, r.table, r.used = c, r.list[:0], r.table[:0], 0
}

// add notes the block that the reader has returned last.
func (r *recent) add(size int) {
	if len(r.list) == cap(r.list) {
		r.forget()
	}
	r.list = append(r.list, recentBlock{r.car.Offset() - int64(size) - cid.Size, int32(size)})
	if len(r.table) > 0 {
		r.enter(len(r.list) - 1)
	}
}

// at returns the CID and the data of a block, nil if it is gone.
func (r *recent) at(i int) (*cid.CID, []byte) {
	b := &r.list[i]
	kept := r.car.Kept(b.off, cid.Size+int(b.size))
	if kept == nil {
		return nil, nil
	}
	return (*cid.CID)(kept), kept[cid.Size:]
}

// forget takes out the blocks that are gone, which are the oldest, to make room in the list.
func (r *recent) forget() {
	n := 0
	for n < len(r.list) {
		if c, _ := r.at(n); c != nil {
			break
		}
		n++
	}
	if 2*n < len(r.list) { // not worth it: let the list grow
		return
	}
	r.list = append(r.list[:0], r.list[n:]...)
	if len(r.table) > 0 {
		r.index()
	}
}

// index fills the table.
func (r *recent) index() {
	size := 256
	for size < 4*len(r.list) {
		size *= 2
	}
	if cap(r.table) < size {
		r.table = make([]uint64, size)
	}
	r.table = r.table[:size]
	clear(r.table)
	r.used = 0
	for i := range r.list {
		r.enter(i)
	}
}

// enter puts a block of the list into the table, in the place of the same block before it, if there is one.
func (r *recent) enter(i int) {
	if 2*r.used >= len(r.table) {
		// Many of them are gone, or else the table is too small.
		r.index()
		return
	}
	c, _ := r.at(i)
	if c == nil {
		return
	}
	p, tag, _ := r.slot(c)
	if *p == 0 {
		r.used++
	}
	*p = tag | uint64(i+1)
}

// slot returns the slot of a block with its data, or the free one where it would be.
func (r *recent) slot(c *cid.CID) (p *uint64, tag uint64, data []byte) {
	h := hashCID(c)
	mask := uint64(len(r.table) - 1)
	tag = h &^ (1<<32 - 1)
	for ; ; h++ {
		p = &r.table[h&mask]
		if *p == 0 {
			return p, tag, nil
		}
		if *p&^(1<<32-1) == tag {
			if k, data := r.at(int(uint32(*p)) - 1); k != nil && *k == *c {
				return p, tag, data
			}
		}
	}
}

// get returns a block, nil if it isn't there.
func (r *recent) get(c *cid.CID) []byte {
	if len(r.list) == 0 {
		return nil
	}
	if len(r.table) == 0 {
		r.index()
	}
	_, _, data := r.slot(c)
	return data
}
