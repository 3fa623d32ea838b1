//go:build !purego

package data

import (
	"encoding/binary"
	"math/bits"
	"reflect"
	"unsafe"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// Encoding. The functions take the position to write at and return the one behind what they have written; -1 is no.

// fastEncoder writes into a buffer of which it uses all the capacity. Whoever writes makes room first.
type fastEncoder struct{ buf []byte }

// spare is the room that is there behind what was asked for, so that words can be written whose end is overwritten later.
const spare = 16

func appendFast(dst []byte, v any, depth int) ([]byte, bool) {
	n, p := addressOf(v)
	if p == nil {
		t := reflect.TypeOf(v)
		if t == nil || t.Kind() == reflect.Pointer {
			return nil, false
		}
		c := reflect.New(t)
		c.Elem().Set(reflect.ValueOf(v))
		if n, p = addressOf(c.Interface()); p == nil {
			return nil, false
		}
	}
	e := fastEncoder{dst[:cap(dst)]}
	pos := e.value(n, p, len(dst), depth)
	if pos < 0 {
		return nil, false
	}
	return e.buf[:pos], true
}

// room makes sure that n bytes and the spare ones can be written at pos.
func (e *fastEncoder) room(pos, n int) {
	if len(e.buf)-pos < n+spare {
		e.grow(pos, n+spare)
	}
}

//go:noinline
func (e *fastEncoder) grow(pos, n int) {
	b := make([]byte, max(pos+n, 2*len(e.buf), 128))
	copy(b, e.buf[:pos])
	e.buf = b
}

// at is where pos is.
func (e *fastEncoder) at(pos int) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(e.buf)), pos)
}

// appended is the position behind b, which something was appended to that began as the buffer.
func (e *fastEncoder) appended(b []byte) int {
	e.buf = b[:cap(b)]
	return len(b)
}

func (e *fastEncoder) value(n *node, p unsafe.Pointer, pos, left int) int {
	switch n.op {
	case opString:
		return e.text(pos, *(*string)(p))
	case opInt64:
		return e.int(pos, *(*int64)(p))
	case opInt:
		return e.int(pos, int64(*(*int)(p)))
	case opBool:
		return e.appended(cbor.AppendBool(e.buf[:pos], *(*bool)(p)))
	case opBytes:
		return e.appended(cbor.AppendBytes(e.buf[:pos], *(*[]byte)(p)))
	case opLink:
		if c := (*cid.CID)(p); c.Defined() {
			return e.appended(cbor.AppendLink(e.buf[:pos], *c))
		}
	case opRaw:
		return e.raw(pos, *(*Raw)(p), left)
	case opBlob:
		if left > 0 {
			return e.blob(pos, (*Blob)(p))
		}
	case opStruct:
		return e.structure(n, p, n.record, pos, left)
	case opPointer:
		if p = *(*unsafe.Pointer)(p); p != nil {
			return e.value(n.elem, p, pos, left)
		}
	case opNullable:
		switch v := (*nullableLayout)(p); {
		case v.value != nil:
			return e.value(n.elem, v.value, pos, left)
		case v.null:
			return e.appended(cbor.AppendNull(e.buf[:pos]))
		}
	case opSlice:
		return e.slice(n, p, pos, left)
	case opUnion:
		return e.union(n, p, pos, left)
	}
	return -1
}

func (e *fastEncoder) int(pos int, v int64) int {
	if uint64(v) < 24 {
		e.room(pos, 1)
		*(*byte)(e.at(pos)) = byte(v)
		return pos + 1
	}
	return e.appended(cbor.AppendInt(e.buf[:pos], v))
}

func (e *fastEncoder) slice(n *node, p unsafe.Pointer, pos, left int) int {
	s := (*sliceHeader)(p)
	if left <= 0 || s.len > cbor.MaxElements {
		return -1
	}
	if s.len < 24 {
		e.room(pos, 1)
		*(*byte)(e.at(pos)) = 0x80 | byte(s.len)
		pos++
	} else {
		pos = e.appended(cbor.AppendArray(e.buf[:pos], s.len))
	}
	elem := n.elem
	size := elem.typ.Size()
	for i := range s.len {
		item := unsafe.Add(s.data, uintptr(i)*size)
		switch elem.op {
		case opStruct:
			pos = e.structure(elem, item, elem.record, pos, left-1)
		case opUnion:
			pos = e.union(elem, item, pos, left-1)
		case opString:
			pos = e.text(pos, *(*string)(item))
		default:
			pos = e.value(elem, item, pos, left-1)
		}
		if pos < 0 {
			return -1
		}
	}
	return pos
}

func (e *fastEncoder) union(n *node, p unsafe.Pointer, pos, left int) int {
	u := (*unionLayout)(p)
	if u.Value == nil {
		if n.closed || len(typeOf(cbor.NewReader(u.Raw))) == 0 {
			return -1
		}
		return e.raw(pos, u.Raw, left)
	}
	v := (*interfaceLayout)(p)
	for _, m := range n.members {
		if m.fast.tab == v.typ && v.data != nil {
			return e.structure(m, v.data, true, pos, left)
		}
	}
	return -1
}

func (e *fastEncoder) raw(pos int, raw Raw, left int) int {
	if n, err := cbor.ScanWithin(raw, depthOf(left)); err != nil || n != len(raw) {
		return -1
	}
	return e.appended(append(e.buf[:pos], raw...))
}

// text copies a text and looks at it in one go, unless it is so long that two take less time.
func (e *fastEncoder) text(pos int, s string) int {
	n := len(s)
	e.room(pos, 9+n)
	w, t := e.at(pos), unsafe.Pointer(unsafe.StringData(s))
	switch {
	case n < 24:
		*(*byte)(w) = 0x60 | byte(n)
		pos++
	case n < 256:
		*(*[2]byte)(w) = [2]byte{0x78, byte(n)}
		pos += 2
	default:
		pos = len(cbor.AppendTextHead(e.buf[:pos], n))
		if copy(e.buf[pos:], s); !cbor.ValidUTF8(e.buf[pos : pos+n]) {
			return -1
		}
		return pos + n
	}
	w = e.at(pos)
	var or uint64
	switch {
	case n >= 8:
		// The last word overlaps.
		or = *(*uint64)(unsafe.Add(t, n-8))
		*(*uint64)(unsafe.Add(w, n-8)) = or
		for i := 0; i < n-8; i += 8 {
			x := *(*uint64)(unsafe.Add(t, i))
			*(*uint64)(unsafe.Add(w, i)) = x
			or |= x
		}
	case n >= 4:
		x, y := *(*uint32)(t), *(*uint32)(unsafe.Add(t, n-4))
		*(*uint32)(w), *(*uint32)(unsafe.Add(w, n-4)) = x, y
		or = uint64(x | y)
	default:
		for i := range n {
			x := *(*byte)(unsafe.Add(t, i))
			*(*byte)(unsafe.Add(w, i)) = x
			or |= uint64(x)
		}
	}
	if or&highs != 0 && !cbor.ValidUTF8(e.buf[pos:pos+n]) {
		return -1
	}
	return pos + n
}

// What is between the values of a blob of the usual form: all but the CID, the size and the MIME type.
const (
	blobStart = "\xa4\x63ref\xd8\x2a\x58\x25\x00"
	blobSize  = "\x64size"
	blobEnd   = "\x65$type\x64blob\x68mimeType"
)

// blob writes a blob of the usual form.
func (e *fastEncoder) blob(pos int, v *Blob) int {
	if v.Legacy || v.Extra.list != nil || v.Check() != nil {
		return -1
	}
	e.room(pos, len(blobStart)+cid.Size+len(blobSize)+9+len(blobEnd))
	b := append(e.buf[:pos], blobStart...)
	b = append(b, v.Ref[:]...)
	b = append(b, blobSize...)
	b = cbor.AppendInt(b, v.Size)
	b = append(b, blobEnd...)
	return e.text(len(b), v.MimeType)
}

func (e *fastEncoder) structure(n *node, p unsafe.Pointer, typed bool, pos, left int) int {
	fields := n.fast.fieldsFor(typed)
	if left <= 0 {
		return -1
	}
	if fields.odd || n.extra != noExtra && (*Extra)(unsafe.Add(p, n.extraOff)).list != nil {
		return e.oddStructure(n, p, typed, pos, left)
	}
	there := fields.always
	for i := range fields.optional {
		o := &fields.optional[i]
		x := uint64(*(*uintptr)(unsafe.Add(p, o.first)) | *(*uintptr)(unsafe.Add(p, o.second)))
		there |= (x | -x) >> 63 << (o.bit & 63)
	}
	if count := bits.OnesCount64(there); count < 24 {
		e.room(pos, 1)
		*(*byte)(e.at(pos)) = 0xa0 | byte(count)
		pos++
	} else {
		pos = e.appended(cbor.AppendMap(e.buf[:pos], count))
	}
	list := unsafe.Pointer(unsafe.SliceData(fields.list))
	for ; there != 0; there &= there - 1 {
		f := (*fastField)(unsafe.Add(list, uintptr(bits.TrailingZeros64(there))*unsafe.Sizeof(fastField{})))
		if pos = e.field(f, unsafe.Add(p, f.off), pos, left-1); pos < 0 {
			return -1
		}
	}
	return pos
}

// field writes an entry of a map, whose value is at p.
func (e *fastEncoder) field(f *fastField, p unsafe.Pointer, pos, left int) int {
	e.room(pos, len(f.head))
	w := e.at(pos)
	binary.BigEndian.PutUint64((*[8]byte)(w)[:], f.want) // perhaps too much, to be overwritten
	if n := len(f.head); n > 16 {
		copy(e.buf[pos:], f.head)
	} else if n > 8 {
		binary.BigEndian.PutUint64((*[8]byte)(unsafe.Add(w, n-8))[:], f.last)
	}
	pos += len(f.head)
	switch f.op {
	case opString:
		return e.text(pos, *(*string)(p))
	case opType:
		return e.appended(append(e.buf[:pos], f.node.fast.name...))
	case opInt64:
		return e.int(pos, *(*int64)(p))
	case opStruct:
		return e.structure(f.node, p, f.node.record, pos, left)
	case opPointer:
		v := *(*unsafe.Pointer)(p)
		switch elem := f.node.elem; {
		case v == nil && f.null:
			return e.appended(cbor.AppendNull(e.buf[:pos]))
		case v == nil:
			return -1
		case elem.op == opStruct:
			return e.structure(elem, v, elem.record, pos, left)
		default:
			return e.value(elem, v, pos, left)
		}
	case opSlice:
		return e.slice(f.node, p, pos, left)
	case opUnion:
		return e.union(f.node, p, pos, left)
	}
	return e.value(f.node, p, pos, left)
}

// oddStructure is structure for the rare ones: with entries that have no field, or with fields of other kinds that may be
// absent.
func (e *fastEncoder) oddStructure(n *node, p unsafe.Pointer, typed bool, pos, left int) int {
	fields := n.fieldsFor(typed)
	var extra extraList
	if n.extra != noExtra {
		var err error
		if extra, err = (*Extra)(unsafe.Add(p, n.extraOff)).entries().without(fields); err != nil {
			return -1
		}
	}
	count := len(extra)
	for i := range fields {
		if f := &fields[i]; !f.opt || f.presentAt(unsafe.Add(p, f.off)) {
			count++
		}
	}
	b := cbor.AppendMap(e.buf[:pos], count)
	var err error
	for i := range fields {
		f := &fields[i]
		at := unsafe.Add(p, f.off)
		if f.opt && !f.presentAt(at) {
			continue
		}
		if b, extra, err = extra.appendBefore(b, f.key, left-1); err != nil {
			return -1
		}
		pos = e.field(&n.fast.fieldsFor(typed).list[i], at, e.appended(b), left-1)
		if pos < 0 {
			return -1
		}
		b = e.buf[:pos]
	}
	if b, _, err = extra.appendBefore(b, "", left-1); err != nil {
		return -1
	}
	return e.appended(b)
}
