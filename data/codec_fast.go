//go:build !purego

package data

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// This file executes plans at speed. It is the only one of the package that goes around Go's type system: a plan was made
// from the type of the value that it is applied to, so that the kind and offset of each field are known.
//
// It only ever says yes or no. No means that something is wrong or merely rare, and that codec_reflect.go has to look at it;
// so there is nothing here about errors. What is said yes to must be exactly what that file makes of it, which
// FuzzFastCodec holds them to. With the build tag purego this file is left out.

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
			parts = append(parts, reflect.StructField{Name: "P" + string(rune('A'+j)), Type: reflect.ArrayOf(kitSizes[i], p.typ)})
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
		return encodeBlobFast(b, (*Blob)(p))
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
		return d.blob((*Blob)(p), pos)
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
func (d *fastDecoder) blob(p *Blob, pos int) int {
	b := d.b[pos:]
	const (
		ref  = len(blobStart)
		size = ref + cid.Size
		val  = size + len(blobSize)
	)
	if len(b) < val || string(b[:ref]) != blobStart || string(b[size:val]) != blobSize {
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
	fields := n.fast.fieldsFor(typed)
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
			pos = d.blob((*Blob)(fp), pos)
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
		x := (*Extra)(unsafe.Add(p, n.extraOff))
		*x = append(*x, ExtraField{d.text(from, to), d.bytes(to, to+size)})
	}
	return to + size
}

// wordAt is the number of which b[pos:] is the beginning.
func wordAt(b []byte, pos int) uint64 {
	var w [8]byte
	copy(w[:], b[min(pos, len(b)):])
	return binary.BigEndian.Uint64(w[:])
}
