package mst

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/sha256x"
)

// flatNode is a node as it lies in its block. Its entries are first to first+count of an [entryList].
type flatNode struct {
	block        []byte
	first, count int32
	left         int32 // where in the block the CID of the left subtree is, 0 if there is none
}

// link returns the CID at an offset, nil for 0.
func (n *flatNode) link(at int32) *cid.CID {
	if at == 0 {
		return nil
	}
	return (*cid.CID)(n.block[at:])
}

// entryList holds the entries of nodes, one behind the other, without a pointer for each. Only the keys are copied, into the
// form in which they can be hashed together.
type entryList struct {
	ents  []partEntry
	short []sha256x.Short // keys, padded as their hashing wants it
	long  []byte          // keys that are too long for that
	heads []uint32        // of the hashes of the short ones
}

type partEntry struct {
	key   int32 // index in short, or offset in long
	size  int32 // of the key
	same  int32 // bytes that it has in common with the one before it in its node
	value int32 // where in the block the record's CID is
	right int32 // where that of the right subtree is, 0 if there is none
	child int32 // its node, -1 if it isn't there; of a Partial
}

func (p *entryList) reset() {
	p.ents, p.short, p.long = p.ents[:0], p.short[:0], p.long[:0]
}

// trim lets go of memory for more entries, or more bytes of long keys, than are said to be usual.
func (p *entryList) trim(entries, long int) {
	if cap(p.ents) > 2*entries || cap(p.long) > 2*long {
		*p = entryList{}
	}
}

func (p *entryList) key(e *partEntry) []byte {
	if e.size <= sha256x.MaxShort {
		return p.short[e.key][:e.size:e.size]
	}
	return p.long[e.key : e.key+e.size : e.key+e.size]
}

// What stands before the CID in a link, after the name of its field.
var (
	linkWord = binary.LittleEndian.Uint64([]byte(linkHead + "\x01\x71\x12")) // a node, or a record in CBOR
	rawWord  = binary.LittleEndian.Uint64([]byte(linkHead + "\x01\x55\x12"))
)

const linkSize = len(linkHead) + cid.Size

// isLink reports whether the first linkSize bytes of b, which it has, are a link.
func isLink(b []byte, raw bool) bool {
	w := binary.LittleEndian.Uint64(b)
	return (w == linkWord || raw && w == rawWord) && b[8] == 0x20
}

// partHead reads a length or number below 65,536 and returns how many bytes it takes, 0 if it isn't one in its shortest form.
func partHead(b []byte, major byte) (v, size int) {
	if len(b) < 3 {
		return 0, 0
	}
	switch c := b[0] - major; {
	case c < 24:
		return int(c), 1
	case c == 24 && b[1] >= 24:
		return int(b[1]), 2
	case c == 25 && b[1] > 0:
		return int(b[1])<<8 | int(b[2]), 3
	}
	return 0, 0
}

// decode reads the node in n.block, and checks all that [Node.Decode] does. It doesn't say what is wrong. Check, which may be
// nil, is asked about each key, and is told how many bytes that has in common with the last one it was given and found good.
func (p *entryList) decode(n *flatNode, check func(key []byte, same int) error) bool {
	b := n.block
	n.left = 0
	n.first = int32(len(p.ents))
	if len(b) < len(nodeHead) || string(b[:len(nodeHead)]) != nodeHead {
		return false
	}
	b = b[len(nodeHead):]
	count, size := partHead(b, majorArray)
	if size == 0 || count > MaxEntries {
		return false
	}
	b = b[size:]
	// The bytes of an entry besides heads, key and left subtree, up to those of its record.
	const rest = len(entryT) + 1 + len(entryV) + linkSize
	var prev []byte
	for k := range count {
		if len(b) < len(entryHead) || string(b[:len(entryHead)]) != entryHead {
			return false
		}
		b = b[len(entryHead):]
		size, head := partHead(b, majorBytes)
		if head == 0 || len(b) < head+size+len(entryP) {
			return false
		}
		suffix := b[head : head+size]
		b = b[head+size:]
		if string(b[:len(entryP)]) != entryP {
			return false
		}
		b = b[len(entryP):]
		same, head := partHead(b, majorUint)
		if head == 0 || len(b) < head+rest {
			return false
		}
		b = b[head:]
		// The suffix decides both the order and whether the prefix is the longest.
		if same > len(prev) || same+size > MaxKey || size == 0 || k > 0 && same < len(prev) && suffix[0] <= prev[same] {
			return false
		}
		e := partEntry{size: int32(same + size), same: int32(same)}
		prev = p.add(&e, prev[:same], suffix)
		if check != nil && check(prev, same) != nil {
			return false
		}
		if string(b[:len(entryT)]) != entryT {
			return false
		}
		if b = b[len(entryT):]; b[0] == cborNull {
			b = b[1:]
		} else {
			if len(b) < linkSize+len(entryV)+linkSize || !isLink(b, false) {
				return false
			}
			e.right = int32(len(n.block) - len(b) + len(linkHead))
			b = b[linkSize:]
		}
		if string(b[:len(entryV)]) != entryV || !isLink(b[len(entryV):], true) {
			return false
		}
		e.value = int32(len(n.block) - len(b) + len(entryV) + len(linkHead))
		b = b[len(entryV)+linkSize:]
		p.ents = append(p.ents, e)
	}
	n.count = int32(count)
	if len(b) < len(nodeLeft)+1 || string(b[:len(nodeLeft)]) != nodeLeft {
		return false
	}
	if b = b[len(nodeLeft):]; b[0] == cborNull {
		b = b[1:]
	} else {
		if len(b) < linkSize || !isLink(b, false) {
			return false
		}
		n.left = int32(len(n.block) - len(b) + len(linkHead))
		b = b[linkSize:]
	}
	return len(b) == 0
}

// add stores the key of an entry, whose size is set, and returns it.
func (p *entryList) add(e *partEntry, prefix, suffix []byte) []byte {
	if e.size > sha256x.MaxShort {
		e.key = int32(len(p.long))
		p.long = append(append(p.long, prefix...), suffix...)
		return p.long[e.key:]
	}
	k := len(p.short)
	if k == cap(p.short) {
		p.short = slices.Grow(p.short, max(64, k))
	}
	p.short = p.short[:k+1]
	e.key = int32(k)
	s := &p.short[k]
	copy(s[copy(s[:], prefix):], suffix)
	s.Pad(int(e.size))
	return s[:e.size]
}

// hash hashes all short keys.
func (p *entryList) hash() {
	p.heads = slices.Grow(p.heads[:0], len(p.short))[:len(p.short)]
	sha256x.Heads(p.heads, p.short)
}

// layer returns the layer of an entry's key. Short ones have been hashed.
func (p *entryList) layer(e *partEntry) int32 {
	if e.size <= sha256x.MaxShort {
		if h := p.heads[e.key]; h != 0 {
			return int32(bits.LeadingZeros32(h) / 2)
		}
	}
	return int32(layerOf(p.key(e)))
}

// layerOf returns the layer of the keys of a node, which have been hashed: Top if there is none, mixedLayers if they are on
// several.
func (p *entryList) layerOf(n *flatNode) int32 {
	layer := int32(Top)
	ents := p.ents[n.first : n.first+n.count]
	for k := range ents {
		l := p.layer(&ents[k])
		if k > 0 && l != layer {
			return mixedLayers
		}
		layer = l
	}
	return layer
}

// copyOf makes p the list of the entries of one node of another list, and returns the node, with a copy of its block in the
// memory of old.
func (p *entryList) copyOf(from *entryList, n *flatNode, old []byte) flatNode {
	p.reset()
	ents := from.ents[n.first : n.first+n.count]
	p.ents = append(p.ents, ents...)
	for k := range ents {
		e := &p.ents[k]
		if e.size <= sha256x.MaxShort {
			p.short = append(p.short, from.short[e.key])
			e.key = int32(len(p.short) - 1)
		} else {
			key := from.key(e)
			e.key = int32(len(p.long))
			p.long = append(p.long, key...)
		}
	}
	return flatNode{block: append(old[:0], n.block...), count: n.count, left: n.left}
}
