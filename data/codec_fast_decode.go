//go:build !purego

package data

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"reflect"
	"strings"
	"unsafe"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// Decoding. The functions take the position in the input and return the one behind what they have read; -1 is no.

type fastDecoder struct {
	b      []byte
	shared bool   // b belongs to the value: views of it may be kept
	arena  []byte // else short strings are copied here, one after the other
}

const (
	arenaSize = 4096
	arenaMax  = 512 // longer strings get memory of their own
)

// decodeFast is decodeInto. It may leave anything in v if it says no.
func decodeFast(b []byte, shared bool, v any, depth int) bool {
	n, p := addressOf(v)
	if p == nil || len(b) == 0 {
		return false
	}
	if !n.isZero(p) {
		reflect.ValueOf(v).Elem().SetZero()
	}
	d := fastDecoder{b: b, shared: shared}
	return d.value(n, p, 0, depth) == len(b)
}

// isZero reports whether the value of type n at p is known to be zero, as a new one is: overwriting takes longer.
func (n *node) isZero(p unsafe.Pointer) bool {
	if n.typ.Align()%8 != 0 {
		return false
	}
	var or uint64
	for _, w := range unsafe.Slice((*uint64)(p), n.typ.Size()/8) {
		or |= w
	}
	return or == 0
}

// text returns the text at b[from:to] as a string that may be kept.
func (d *fastDecoder) text(from, to int) string {
	if d.shared {
		return unsafe.String(unsafe.SliceData(d.b[from:to]), to-from)
	}
	return d.copied(from, to)
}

func (d *fastDecoder) copied(from, to int) string {
	b := d.b[from:to]
	if len(b) > arenaMax {
		return string(b)
	}
	if cap(d.arena)-len(d.arena) < len(b) {
		d.arena = make([]byte, 0, arenaSize)
	}
	i := len(d.arena)
	d.arena = append(d.arena, b...)
	return unsafe.String(unsafe.SliceData(d.arena[i:]), len(b))
}

// bytes returns b[from:to] as bytes that may be kept. They are never nil.
func (d *fastDecoder) bytes(from, to int) []byte {
	if d.shared {
		return d.b[from:to:to]
	}
	return append(make([]byte, 0, to-from), d.b[from:to]...)
}

// head reads a head of the major type whose bits are given, and returns its argument, which is at most math.MaxInt64.
func (d *fastDecoder) head(major byte, pos int) (arg, next int) {
	b := d.b
	if pos >= len(b) {
		return 0, -1
	}
	c := b[pos] - major // wraps for a smaller one
	if c < 24 {
		return int(c), pos + 1
	}
	if c == 24 && pos+1 < len(b) && b[pos+1] >= 24 {
		return int(b[pos+1]), pos + 2
	}
	return d.longHead(c, pos+1)
}

func (d *fastDecoder) longHead(c byte, pos int) (arg, next int) {
	rest := d.b[pos:]
	var v, least uint64
	switch {
	case c == 25 && len(rest) >= 2:
		v, least, next = uint64(binary.BigEndian.Uint16(rest)), 1<<8, pos+2
	case c == 26 && len(rest) >= 4:
		v, least, next = uint64(binary.BigEndian.Uint32(rest)), 1<<16, pos+4
	case c == 27 && len(rest) >= 8:
		v, least, next = binary.BigEndian.Uint64(rest), 1<<32, pos+8
	default:
		return 0, -1
	}
	if v < least || v > math.MaxInt {
		return 0, -1
	}
	return int(v), next
}

// str reads the head of a string of the major type and returns where its content begins and ends.
func (d *fastDecoder) str(major byte, pos int) (from, to int) {
	size, pos := d.head(major, pos)
	if pos < 0 || size > len(d.b)-pos {
		return 0, -1
	}
	return pos, pos + size
}

func (d *fastDecoder) int(pos int) (v int64, next int) {
	if pos < len(d.b) {
		switch d.b[pos] >> 5 {
		case 0:
			arg, next := d.head(0, pos)
			return int64(arg), next
		case 1:
			arg, next := d.head(1<<5, pos)
			return ^int64(arg), next
		}
	}
	return 0, -1
}

// value reads a value of type n into p, where there is nothing but what a kit may have put there.
func (d *fastDecoder) value(n *node, p unsafe.Pointer, pos, left int) int {
	switch n.op {
	case opString:
		from, to := d.str(3<<5, pos)
		if to < 0 || !cbor.ValidUTF8(d.b[from:to]) {
			return -1
		}
		*(*string)(p) = d.text(from, to)
		return to
	case opInt64:
		v, next := d.int(pos)
		*(*int64)(p) = v
		return next
	case opInt:
		v, next := d.int(pos)
		*(*int)(p) = int(v) // head has seen to it that it fits
		return next
	case opBool:
		if pos >= len(d.b) || d.b[pos]&^1 != 0xf4 {
			return -1
		}
		*(*bool)(p) = d.b[pos] == 0xf5
		return pos + 1
	case opBytes:
		from, to := d.str(2<<5, pos)
		if to < 0 {
			return -1
		}
		*(*[]byte)(p) = d.bytes(from, to)
		return to
	case opLink:
		r := cbor.NewReader(d.b[pos:])
		c, err := r.Link()
		if err != nil {
			return -1
		}
		*(*cid.CID)(p) = c
		return pos + r.Offset()
	case opRaw:
		if pos >= len(d.b) || d.b[pos] == 0xf6 {
			return -1
		}
		return d.raw((*Raw)(p), pos, left)
	case opBlob:
		return d.blob((*Blob)(p), pos, left)
	case opStruct:
		return d.structure(n, p, n.record, pos, left)
	case opPointer:
		v := *(*unsafe.Pointer)(p)
		if v == nil {
			v = reflect.New(n.elem.typ).UnsafePointer()
			*(*unsafe.Pointer)(p) = v
		}
		return d.value(n.elem, v, pos, left)
	case opNullable:
		if pos < len(d.b) && d.b[pos] == 0xf6 {
			(*nullableLayout)(p).null = true
			return pos + 1
		}
		v := reflect.New(n.elem.typ).UnsafePointer()
		(*nullableLayout)(p).value = v
		return d.value(n.elem, v, pos, left)
	case opSlice:
		return d.slice(n, p, pos, left)
	case opUnion:
		return d.union(n, p, pos, left)
	}
	return -1
}

func (d *fastDecoder) raw(p *Raw, pos, left int) int {
	n, err := cbor.ScanWithin(d.b[pos:], depthOf(left))
	if err != nil {
		return -1
	}
	*p = d.bytes(pos, pos+n)
	return pos + n
}

// blob reads a blob of the usual form.
func (d *fastDecoder) blob(p *Blob, pos, left int) int {
	b := d.b[pos:]
	const (
		ref  = len(blobStart)
		size = ref + cid.Size
		val  = size + len(blobSize)
	)
	if left <= 0 || len(b) < val || string(b[:ref]) != blobStart || string(b[size:val]) != blobSize {
		return -1
	}
	c, err := cid.FromBytes(b[ref:size])
	if err != nil {
		return -1
	}
	p.Ref = c
	if p.Size, pos = d.int(pos + val); pos < 0 {
		return -1
	}
	if b = d.b[pos:]; len(b) < len(blobEnd) || string(b[:len(blobEnd)]) != blobEnd {
		return -1
	}
	from, to := d.str(3<<5, pos+len(blobEnd))
	if to < 0 || !cbor.ValidUTF8(d.b[from:to]) {
		return -1
	}
	p.MimeType = d.text(from, to)
	return to
}

func (d *fastDecoder) slice(n *node, p unsafe.Pointer, pos, left int) int {
	count, pos := d.head(4<<5, pos)
	elem := n.elem
	if pos < 0 || left <= 0 || count > cbor.MaxElements || count*max(1, elem.least) > len(d.b)-pos {
		return -1
	}
	h := (*sliceHeader)(p)
	if count == 0 {
		*(*[]struct{})(p) = []struct{}{}
		return pos
	}
	if elem.op == opString {
		list := *(*[]string)(p)
		if cap(list) < count {
			list = make([]string, 0, min(count, firstItems))
		}
		for range count {
			from, to := d.str(3<<5, pos)
			if to < 0 || !cbor.ValidUTF8(d.b[from:to]) {
				return -1
			}
			list = append(list, d.text(from, to))
			pos = to
		}
		*(*[]string)(p) = list
		return pos
	}
	size := elem.typ.Size()
	if h.cap < count {
		*h = sliceHeader{}
		if k := n.kitFor(count); k != nil {
			base := reflect.New(k.typ).UnsafePointer()
			h.data, h.cap = base, count
			for j := range n.fast.presets {
				s := &n.fast.presets[j]
				at := unsafe.Add(base, k.starts[j])
				field := unsafe.Add(base, s.off)
				for i := range uintptr(count) {
					f := unsafe.Add(field, i*size)
					*(*unsafe.Pointer)(f) = unsafe.Add(at, i*s.size)
					if s.list {
						(*sliceHeader)(f).cap = 1
					}
				}
			}
		}
	}
	for i := range count {
		if i == h.cap {
			reflect.NewAt(n.typ, p).Elem().Grow(min(count-i, max(i, firstItems)))
		}
		h.len = i + 1
		at := unsafe.Add(h.data, uintptr(i)*size)
		switch elem.op {
		case opStruct:
			pos = d.structure(elem, at, elem.record, pos, left-1)
		case opUnion:
			pos = d.union(elem, at, pos, left-1)
		default:
			pos = d.value(elem, at, pos, left-1)
		}
		if pos < 0 {
			return -1
		}
	}
	return pos
}

const typeHead = "\x65" + typeKey

// typeAt returns the `$type` of the map at pos, which has a short head; nil if it isn't found in the usual place.
func (d *fastDecoder) typeAt(pos int) []byte {
	b := d.b
	if pos >= len(b) || b[pos]-0xa0 >= 24 {
		return nil
	}
	count := b[pos] - 0xa0
	pos++
	for ; count > 0 && pos < len(b) && b[pos] <= typeHead[0]; count-- {
		if b[pos] == typeHead[0] && len(b)-pos >= len(typeHead) && string(b[pos:pos+len(typeHead)]) == typeHead {
			from, to := d.str(3<<5, pos+len(typeHead))
			if to < 0 {
				return nil
			}
			return b[from:to]
		}
		// Another key, short enough to come before. Its value is looked at later.
		if _, pos = d.str(3<<5, pos); pos < 0 || pos >= len(b) {
			return nil
		}
		if b[pos]>>5 == 3 {
			if _, pos = d.str(3<<5, pos); pos < 0 {
				return nil
			}
			continue
		}
		n, err := cbor.Scan(b[pos:])
		if err != nil {
			return nil
		}
		pos += n
	}
	return nil
}

func (d *fastDecoder) union(n *node, p unsafe.Pointer, pos, left int) int {
	name := d.typeAt(pos)
	if len(name) == 0 {
		return -1
	}
	for _, m := range n.members {
		if m.name == string(name) {
			v := interfaceLayout{m.fast.tab, reflect.New(m.typ).UnsafePointer()}
			(*unionLayout)(p).Value = *(*Typed)(unsafe.Pointer(&v))
			return d.structure(m, v.data, true, pos, left)
		}
	}
	if n.closed {
		return -1
	}
	return d.raw(&(*unionLayout)(p).Raw, pos, left)
}

func (d *fastDecoder) structure(n *node, p unsafe.Pointer, typed bool, pos, left int) int {
	count, pos := d.head(5<<5, pos)
	b := d.b
	if pos < 0 || left <= 0 || count > cbor.MaxElements || count > len(b)-pos {
		return -1
	}
	fields := n.fast.fieldsFor(typed).list
	// Both the entries and the fields are in canonical order: the next key is that of the next field as a rule.
	i := 0
	last := pos // where the key before is
	for ; count > 0; count-- {
		var x uint64
		if pos+8 <= len(b) {
			x = binary.BigEndian.Uint64(b[pos:])
		} else {
			x = wordAt(b, pos)
		}
		var f *fastField
		for ; i < len(fields); i++ {
			g := &fields[i]
			y := x & g.mask
			if y == g.want {
				c := 0
				if len(g.head) > 8 {
					c = g.compareRest(b, pos)
				}
				if c == 0 {
					f = g
					break
				}
				if c < 0 {
					break
				}
			} else if y < g.want { // the key comes before the field
				break
			}
			// The key comes after the field, which is not there then.
			if !g.opt {
				return -1
			}
			if g.kit {
				*(*unsafe.Pointer)(unsafe.Add(p, g.off)) = nil
			}
		}
		if f == nil {
			at := pos
			if pos = d.unknown(n, p, last, at, left-1); pos < 0 {
				return -1
			}
			last = at
			continue
		}
		last = pos
		pos += len(f.head)
		i++
		if pos >= len(b) {
			return -1
		}
		fp := unsafe.Add(p, f.off)
		switch f.op {
		case opString:
			size := int(b[pos] - 3<<5)
			from := pos + 1
			if size >= 24 {
				if from, pos = d.str(3<<5, pos); pos < 0 {
					return -1
				}
			} else if pos = from + size; pos > len(b) {
				return -1
			}
			if !cbor.ValidUTF8(b[from:pos]) {
				return -1
			}
			*(*string)(fp) = d.text(from, pos)
		case opType:
			from := pos
			if pos += len(n.fast.name); pos > len(b) || string(b[from:pos]) != n.fast.name {
				return -1
			}
		case opInt64:
			*(*int64)(fp), pos = d.int(pos)
		case opStruct:
			pos = d.structure(f.node, fp, f.node.record, pos, left-1)
		case opSlice:
			pos = d.slice(f.node, fp, pos, left-1)
		case opUnion:
			pos = d.union(f.node, fp, pos, left-1)
		case opBlob:
			pos = d.blob((*Blob)(fp), pos, left-1)
		default:
			if f.null && b[pos] == 0xf6 {
				if f.kit {
					*(*unsafe.Pointer)(fp) = nil
				}
				pos++
				continue
			}
			pos = d.value(f.node, fp, pos, left-1)
		}
		if pos < 0 {
			return -1
		}
	}
	for ; i < len(fields); i++ {
		if !fields[i].opt {
			return -1
		}
		if fields[i].kit {
			*(*unsafe.Pointer)(unsafe.Add(p, fields[i].off)) = nil
		}
	}
	return pos
}

// compareRest compares the head at b[pos:], whose first eight bytes are those of f, with that of f.
func (f *fastField) compareRest(b []byte, pos int) int {
	end := pos + len(f.head)
	if end > len(b) {
		return -1 // and nothing will be made of it
	}
	if len(f.head) > 16 {
		return strings.Compare(string(b[pos+8:end]), f.head[8:])
	}
	return cmp.Compare(binary.BigEndian.Uint64(b[end-8:end]), f.last)
}

// unknown reads an entry whose key, at pos, isn't that of a field; last is where the key before it is, or pos.
func (d *fastDecoder) unknown(n *node, p unsafe.Pointer, last, pos, left int) int {
	from, to := d.str(3<<5, pos)
	if to < 0 || from == to || to-from > cbor.MaxKey || !cbor.ValidUTF8(d.b[from:to]) {
		return -1
	}
	if last != pos {
		// Keys with their heads are in the order of bytes.
		if _, end := d.str(3<<5, last); bytes.Compare(d.b[last:end], d.b[pos:to]) >= 0 {
			return -1
		}
	}
	size, err := cbor.ScanWithin(d.b[to:], depthOf(left))
	if err != nil {
		return -1
	}
	if n.extra != noExtra {
		(*Extra)(unsafe.Add(p, n.extraOff)).add(ExtraField{d.text(from, to), d.bytes(to, to+size)})
	}
	return to + size
}

// wordAt is the number of which b[pos:] is the beginning.
func wordAt(b []byte, pos int) uint64 {
	var w [8]byte
	copy(w[:], b[min(pos, len(b)):])
	return binary.BigEndian.Uint64(w[:])
}
