//go:build !purego

package data

import (
	"encoding/binary"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// This file executes plans at speed, and codec_fast_decode.go with it. They are the only ones of the package that go around
// Go's type system: a plan was made from the type of the value that it is applied to, so that the kind and offset of each
// field are known.
//
// They only ever say yes or no. No means that something is wrong or merely rare, and that codec_reflect.go has to look at it;
// so there is nothing here about errors. What is said yes to must be exactly what that file makes of it, which
// FuzzFastCodec holds them to. With the build tag purego both are left out.

// sliceHeader is how every slice begins.
type sliceHeader struct {
	data     unsafe.Pointer
	len, cap int
}

// unionLayout is the layout of every Union, its first field also in parts: an interface is a pointer to what says which
// type it holds and, since members are pointers, the member itself.
type unionLayout struct {
	Value Typed
	Raw   Raw
}

type interfaceLayout struct {
	typ, data unsafe.Pointer
}

// nullableLayout is the layout of every Nullable.
type nullableLayout struct {
	value unsafe.Pointer
	null  bool
}

// fastPlan is what a node has for this file.
type fastPlan struct {
	tab     unsafe.Pointer // opStruct with a name: the first word of a Typed that holds a pointer to one
	name    string         // the same: the name in CBOR
	fields  []fastField    // opStruct
	typed   []fastField    // the same with `$type`
	presets []preset       // opSlice: what its items get at once
	kits    *[len(kitSizes)]atomic.Pointer[kit]
}

// fastField is what is needed of a field, close together. The head is there as numbers that are in the order of keys, since
// in them the earlier byte counts more.
type fastField struct {
	want uint64 // the first eight bytes of the head, zeros behind a shorter one
	mask uint64 // of the bytes of want that are part of the head
	last uint64 // the last eight bytes of a head of more than eight
	head string
	node *node
	off  uintptr
	op   op
	opt  bool
	odd  bool // optional, but without empty
	null bool // null stands for a nil pointer
	kit  bool // a kit may have put something there

	empty [2]uintptr // of an optional field: the words of the struct that are zero if it is absent
}

// A kit is the memory of a list, of n items, allocated together with what its items are expected to point at: one T for
// each *T in an item, and for each list that an item must have room for one item. Each is stored in the item's field before
// the item is read, and is used from there or, if it is absent or larger, taken out again.
type kit struct {
	typ    reflect.Type // struct of arrays: of the items, and of each preset
	starts []uintptr    // where the arrays of the presets are
}

type preset struct {
	off  uintptr // of the field in the item
	size uintptr // of what it points at
	typ  reflect.Type
	list bool
}

// kitSizes are the numbers of items that there are kits for. Longer lists are allocated in the usual way.
var kitSizes = [...]int{1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32}

// prepare makes what this file wants in a plan, which is complete otherwise.
func (n *node) prepare() {
	n.fast.fields, n.fast.typed = fastFields(n.fields), fastFields(n.typed)
	if n.name != "" && n.op == opStruct {
		v := reflect.Zero(reflect.PointerTo(n.typ)).Interface().(Typed)
		n.fast.tab = (*interfaceLayout)(unsafe.Pointer(&v)).typ
		n.fast.name = string(cbor.AppendText(nil, n.name))
	}
	if n.op == opSlice && n.elem.op == opStruct {
		room := n.elem.typ.Size() // so that what is in vain never costs more than the list itself
		for _, f := range n.elem.fields {
			t := f.node.presettable(f.opt)
			if t == nil || t.Size() > room {
				continue
			}
			room -= t.Size()
			n.fast.presets = append(n.fast.presets, preset{off: f.off, size: t.Size(), typ: t, list: f.node.op == opSlice})
		}
		n.fast.kits = new([len(kitSizes)]atomic.Pointer[kit])
	}
}

func fastFields(fields []field) []fastField {
	var out []fastField
	for _, f := range fields {
		var b [8]byte
		size := copy(b[:], f.head)
		g := fastField{want: binary.BigEndian.Uint64(b[:]), mask: ^uint64(0) << (64 - 8*size), head: f.head, node: f.node, off: f.off,
			op: f.node.op, opt: f.opt, null: f.null, kit: f.node.presettable(f.opt) != nil}
		if first, second, ok := emptiness(f.node.op); ok {
			g.empty = [2]uintptr{f.off + first, f.off + second}
		} else {
			g.odd = f.opt
		}
		if len(f.head) > 8 {
			g.last = binary.BigEndian.Uint64([]byte(f.head[len(f.head)-8:]))
		}
		out = append(out, g)
	}
	return out
}

// fieldsFor is node.fieldsFor.
func (f *fastPlan) fieldsFor(typed bool) []fastField {
	if typed {
		return f.typed
	}
	return f.fields
}

// presettable returns the type of what a field of type n points at if it may be a part of a kit.
func (n *node) presettable(optional bool) reflect.Type {
	switch {
	case n.op == opPointer && n.elem.op != opPointer, n.op == opSlice && !optional:
		return n.elem.typ
	}
	return nil
}

// kitFor returns the kit for lists of count items of type n, nil if there is none.
func (n *node) kitFor(count int) *kit {
	if len(n.fast.presets) == 0 || count > kitSizes[len(kitSizes)-1] {
		return nil
	}
	i := count - 1
	if i >= 8 {
		for i = 8; kitSizes[i] < count; i++ {
		}
	}
	slot := &n.fast.kits[i]
	k := slot.Load()
	if k == nil {
		parts := []reflect.StructField{{Name: "Items", Type: reflect.ArrayOf(kitSizes[i], n.elem.typ)}}
		for j, p := range n.fast.presets {
			parts = append(parts, reflect.StructField{Name: "P" + strconv.Itoa(j), Type: reflect.ArrayOf(kitSizes[i], p.typ)})
		}
		k = &kit{typ: reflect.StructOf(parts)}
		for j := range n.fast.presets {
			k.starts = append(k.starts, k.typ.Field(j+1).Offset)
		}
		slot.Store(k)
	}
	return k
}

// quick remembers the plans of pointer types, because looking them up in a map would take a tenth of the time of a record.
var quick [256]atomic.Pointer[quickPlan]

type quickPlan struct {
	typ  unsafe.Pointer
	node *node
}

// addressOf returns the plan of what v points to, and the pointer; nil if there is none.
func addressOf(v any) (*node, unsafe.Pointer) {
	e := (*interfaceLayout)(unsafe.Pointer(&v))
	slot := &quick[uintptr(e.typ)>>5%uintptr(len(quick))]
	if q := slot.Load(); q != nil && q.typ == e.typ {
		return q.node, e.data
	}
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer {
		return nil, nil
	}
	n, err := planOf(t.Elem())
	if err != nil {
		return nil, nil
	}
	slot.Store(&quickPlan{e.typ, n})
	return n, e.data
}

// Encoding. The functions return nil for no.

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
	b := encodeFast(slices.Grow(dst, 64), n, p, depth) // not nil
	return b, b != nil
}

// room makes sure that n bytes can be appended to b.
func room(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		return slices.Grow(b, n)
	}
	return b
}

func encodeFast(b []byte, n *node, p unsafe.Pointer, left int) []byte {
	switch n.op {
	case opString:
		return encodeTextFast(b, *(*string)(p))
	case opInt64:
		return cbor.AppendInt(b, *(*int64)(p))
	case opInt:
		return cbor.AppendInt(b, int64(*(*int)(p)))
	case opBool:
		return cbor.AppendBool(b, *(*bool)(p))
	case opBytes:
		return cbor.AppendBytes(b, *(*[]byte)(p))
	case opLink:
		if c := (*cid.CID)(p); c.Defined() {
			return cbor.AppendLink(b, *c)
		}
	case opRaw:
		return encodeRawFast(b, *(*Raw)(p), left)
	case opBlob:
		if left > 0 {
			return encodeBlobFast(b, (*Blob)(p))
		}
	case opStruct:
		return encodeStructFast(b, n, p, n.record, left)
	case opPointer:
		if p = *(*unsafe.Pointer)(p); p != nil {
			return encodeFast(b, n.elem, p, left)
		}
	case opNullable:
		switch v := (*nullableLayout)(p); {
		case v.value != nil:
			return encodeFast(b, n.elem, v.value, left)
		case v.null:
			return cbor.AppendNull(b)
		}
	case opSlice:
		return encodeSliceFast(b, n, p, left)
	case opUnion:
		return encodeUnionFast(b, n, p, left)
	}
	return nil
}

func encodeSliceFast(b []byte, n *node, p unsafe.Pointer, left int) []byte {
	s := (*sliceHeader)(p)
	if left <= 0 || s.len > cbor.MaxElements {
		return nil
	}
	b = cbor.AppendArray(b, s.len)
	elem := n.elem
	size := elem.typ.Size()
	for i := range s.len {
		at := unsafe.Add(s.data, uintptr(i)*size)
		switch elem.op {
		case opStruct:
			b = encodeStructFast(b, elem, at, elem.record, left-1)
		case opUnion:
			b = encodeUnionFast(b, elem, at, left-1)
		default:
			b = encodeFast(b, elem, at, left-1)
		}
		if b == nil {
			return nil
		}
	}
	return b
}

func encodeUnionFast(b []byte, n *node, p unsafe.Pointer, left int) []byte {
	u := (*unionLayout)(p)
	if u.Value == nil {
		if n.closed || len(typeOf(cbor.NewReader(u.Raw))) == 0 {
			return nil
		}
		return encodeRawFast(b, u.Raw, left)
	}
	v := (*interfaceLayout)(p)
	for _, m := range n.members {
		if m.fast.tab == v.typ && v.data != nil {
			return encodeStructFast(b, m, v.data, true, left)
		}
	}
	return nil
}

func encodeRawFast(b []byte, raw Raw, left int) []byte {
	if n, err := cbor.ScanWithin(raw, depthOf(left)); err != nil || n != len(raw) {
		return nil
	}
	return append(b, raw...)
}

func encodeTextFast(b []byte, s string) []byte {
	n := len(s)
	b = room(b, n+9)
	at := len(b)
	switch w := b[at : at+2]; {
	case n < 24:
		w[0] = 0x60 | byte(n)
		at++
	case n < 256:
		w[0], w[1] = 0x78, byte(n)
		at += 2
	default:
		b = cbor.AppendTextHead(b, n)
		at = len(b)
	}
	b = b[:at+n]
	// Text is copied and looked at in one go, in words of which the last one overlaps, if that is the shorter way.
	w, t := b[at:], unsafe.Slice(unsafe.StringData(s), n)
	if n < 8 || n > 96 {
		if copy(w, t); !cbor.ValidUTF8(t) {
			return nil
		}
		return b
	}
	or := binary.LittleEndian.Uint64(t[n-8:])
	binary.LittleEndian.PutUint64(w[n-8:], or)
	for len(t) > 8 && len(w) >= 8 {
		x := binary.LittleEndian.Uint64(t)
		binary.LittleEndian.PutUint64(w, x)
		or |= x
		t, w = t[8:], w[8:]
	}
	if or&highs != 0 && !utf8.ValidString(s) {
		return nil
	}
	return b
}

// encodeBlobFast writes a blob of the usual form.
func encodeBlobFast(b []byte, v *Blob) []byte {
	if v.Legacy || len(v.Extra) > 0 || v.Check() != nil {
		return nil
	}
	b = append(b, blobStart...)
	b = append(b, v.Ref[:]...)
	b = append(b, blobSize...)
	b = cbor.AppendInt(b, v.Size)
	b = append(b, blobEnd...)
	return cbor.AppendText(b, v.MimeType)
}

// What is between the values of a blob of the usual form: all but the CID, the size and the MIME type.
const (
	blobStart = "\xa4\x63ref\xd8\x2a\x58\x25\x00"
	blobSize  = "\x64size"
	blobEnd   = "\x65$type\x64blob\x68mimeType"
)

// emptiness returns where the words of an optional field are that are zero if it is absent, twice the same if it is one;
// ok is false for types whose fields are better looked at by reflection.
func emptiness(o op) (first, second uintptr, ok bool) {
	const word = unsafe.Sizeof(uintptr(0))
	switch o {
	case opPointer, opSlice, opBytes: // what they point at
		return 0, 0, true
	case opRaw, opString: // their length
		return word, word, true
	case opUnion: // the type of Value, the length of Raw
		return unsafe.Offsetof(unionLayout{}.Value), unsafe.Offsetof(unionLayout{}.Raw) + word, true
	}
	return 0, 0, false
}

// presentAt is present for the field at p.
func (f *field) presentAt(p unsafe.Pointer) bool {
	return f.node.present(reflect.NewAt(f.node.typ, p).Elem())
}

func (f *fastField) absent(p unsafe.Pointer) bool {
	return *(*uintptr)(unsafe.Add(p, f.empty[0]))|*(*uintptr)(unsafe.Add(p, f.empty[1])) == 0
}

func encodeStructFast(b []byte, n *node, p unsafe.Pointer, typed bool, left int) []byte {
	if left <= 0 {
		return nil
	}
	fields := n.fast.fieldsFor(typed)
	var extra Extra
	if n.extra != noExtra {
		if extra = *(*Extra)(unsafe.Add(p, n.extraOff)); len(extra) > 0 {
			var err error
			if extra, err = extra.without(n.fieldsFor(typed)); err != nil {
				return nil
			}
		}
	}
	// The head is written once it is known how many entries there are. Nearly all maps have a head of one byte.
	start := len(b)
	b = append(b, 0)
	count := 0
	for i := range fields {
		f := &fields[i]
		fp := unsafe.Add(p, f.off)
		if f.opt {
			if f.odd && !n.fieldsFor(typed)[i].presentAt(fp) || !f.odd && f.absent(p) {
				continue
			}
		}
		if len(extra) > 0 {
			var err error
			before := len(extra)
			if b, extra, err = extra.appendBefore(b, n.fieldsFor(typed)[i].key, left-1); err != nil {
				return nil
			}
			count += before - len(extra)
		}
		count++
		b = room(b, len(f.head)+8)
		at := len(b)
		w := b[at:cap(b)]
		binary.BigEndian.PutUint64(w, f.want) // perhaps too much, to be overwritten
		if n := len(f.head); n > 16 {
			copy(w, f.head)
		} else if n > 8 {
			binary.BigEndian.PutUint64(w[n-8:], f.last)
		}
		b = b[:at+len(f.head)]
		switch f.op {
		case opString:
			b = encodeTextFast(b, *(*string)(fp))
		case opType:
			b = append(b, n.fast.name...)
		case opInt64:
			b = cbor.AppendInt(b, *(*int64)(fp))
		case opStruct:
			b = encodeStructFast(b, f.node, fp, f.node.record, left-1)
		case opPointer:
			v := *(*unsafe.Pointer)(fp)
			switch elem := f.node.elem; {
			case v == nil && f.null:
				b = cbor.AppendNull(b)
			case v == nil:
				return nil
			case elem.op == opStruct:
				b = encodeStructFast(b, elem, v, elem.record, left-1)
			default:
				b = encodeFast(b, elem, v, left-1)
			}
		case opSlice:
			b = encodeSliceFast(b, f.node, fp, left-1)
		case opUnion:
			b = encodeUnionFast(b, f.node, fp, left-1)
		default:
			b = encodeFast(b, f.node, fp, left-1)
		}
		if b == nil {
			return nil
		}
	}
	if len(extra) > 0 {
		var err error
		count += len(extra)
		if b, _, err = extra.appendBefore(b, "", left-1); err != nil {
			return nil
		}
	}
	if count < 24 {
		b[start] = 0xa0 | byte(count)
		return b
	}
	var head [9]byte
	return slices.Replace(b, start, start+1, cbor.AppendMap(head[:0], count)...)
}
