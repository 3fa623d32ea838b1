//go:build !purego

package data

import (
	"encoding/binary"
	"reflect"
	"strconv"
	"sync/atomic"
	"unsafe"

	"github.com/barograph/baro/cbor"
)

// This file prepares plans for speed; codec_fast_encode.go and codec_fast_decode.go execute them. They are the only ones of the
// package that go around Go's type system: a plan was made from the type of the value that it is applied to, so that the kind
// and offset of each field are known.
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
	fields  fastFields     // opStruct
	typed   fastFields     // the same with `$type`
	presets []preset       // opSlice: what its items get at once
	kits    *[len(kitSizes)]atomic.Pointer[kit]
}

// fastFields are the fields of a struct. Which of them are there is a number with a bit for each.
type fastFields struct {
	list     []fastField
	always   uint64
	optional []optional
	odd      bool // there are more than 64, or some of which it takes more to see whether they are there
}

// optional tells of a field that may be absent: the words of the struct that are zero if it is, and which field it is.
type optional struct {
	first, second uintptr
	bit           uint8
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
	null bool // null stands for a nil pointer
	kit  bool // a kit may have put something there
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
	n.fast.fields, n.fast.typed = fastFieldsOf(n.fields), fastFieldsOf(n.typed)
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

func fastFieldsOf(fields []field) (out fastFields) {
	out.odd = len(fields) > 64
	for i, f := range fields {
		if f.node.op == opType {
			f.node.fast.name = string(cbor.AppendText(nil, f.node.name))
		}
		var b [8]byte
		size := copy(b[:], f.head)
		g := fastField{want: binary.BigEndian.Uint64(b[:]), mask: ^uint64(0) << (64 - 8*size), head: f.head, node: f.node, off: f.off,
			op: f.node.op, opt: f.opt, null: f.null, kit: f.node.presettable(f.opt) != nil}
		if first, second, ok := emptiness(f.node.op); !f.opt {
			out.always |= 1 << i
		} else if ok {
			out.optional = append(out.optional, optional{f.off + first, f.off + second, uint8(i)})
		} else {
			out.odd = true
		}
		if len(f.head) > 8 {
			g.last = binary.BigEndian.Uint64([]byte(f.head[len(f.head)-8:]))
		}
		out.list = append(out.list, g)
	}
	return out
}

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

// fieldsFor is node.fieldsFor.
func (f *fastPlan) fieldsFor(typed bool) *fastFields {
	if typed {
		return &f.typed
	}
	return &f.fields
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
