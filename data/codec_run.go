package data

import (
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"strconv"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// This file executes plans. It is the only one of the package that goes around Go's type system: a plan was made from the
// type of the value that it is applied to, so that the kind and offset of each field are known.

// sliceHeader is how every slice begins.
type sliceHeader struct {
	data     unsafe.Pointer
	len, cap int
}

// unionValue is the layout of every Union.
type unionValue struct {
	Value Typed
	Raw   Raw
}

// nullable is the layout of every Nullable.
type nullable struct {
	value unsafe.Pointer
	null  bool
}

// emptyInterface is the layout of any: a pointer, such as the codec is given as a rule, is the second word itself.
type emptyInterface struct {
	typ, data unsafe.Pointer
}

// quick remembers plans of pointer types, because looking them up in a map would take a tenth of the time of a record.
var quick [256]atomic.Pointer[quickPlan]

type quickPlan struct {
	typ  unsafe.Pointer
	node *node
}

// addressOf returns the plan of a value and a pointer to it.
func addressOf(v any) (*node, unsafe.Pointer, error) {
	e := (*emptyInterface)(unsafe.Pointer(&v))
	slot := &quick[uintptr(e.typ)>>5%uintptr(len(quick))]
	if q := slot.Load(); q != nil && q.typ == e.typ && e.data != nil {
		return q.node, e.data, nil
	}
	n, p, err := addressOfSlow(v)
	if err == nil && reflect.TypeOf(v).Kind() == reflect.Pointer {
		slot.Store(&quickPlan{e.typ, n})
	}
	return n, p, err
}

func addressOfSlow(v any) (*node, unsafe.Pointer, error) {
	if v == nil {
		return nil, nil, valueError(RuleValue, "nil")
	}
	t := reflect.TypeOf(v)
	if t.Kind() != reflect.Pointer {
		n, err := planOf(t)
		if err != nil {
			return nil, nil, err
		}
		c := reflect.New(t)
		c.Elem().Set(reflect.ValueOf(v))
		return n, c.UnsafePointer(), nil
	}
	n, err := planOf(t.Elem())
	if err != nil {
		return nil, nil, err
	}
	p := reflect.ValueOf(v).UnsafePointer()
	if p == nil {
		return nil, nil, valueError(RuleValue, "nil "+t.String())
	}
	return n, p, nil
}

func appendAny(dst []byte, v any, depth int) ([]byte, error) {
	n, p, err := addressOf(v)
	if err != nil {
		return dst, err
	}
	b, err := n.append(dst, p, depth)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// append appends the value of type n at p, in which left containers may nest.
func (n *node) append(dst []byte, p unsafe.Pointer, left int) ([]byte, error) {
	switch n.op {
	case opString:
		s := *(*string)(p)
		if !validText(s) {
			return dst, valueError(RuleUTF8, strconv.QuoteToASCII(s[:min(len(s), 64)]))
		}
		return cbor.AppendText(dst, s), nil
	case opInt64:
		return cbor.AppendInt(dst, *(*int64)(p)), nil
	case opInt:
		return cbor.AppendInt(dst, int64(*(*int)(p))), nil
	case opBool:
		return cbor.AppendBool(dst, *(*bool)(p)), nil
	case opBytes:
		return cbor.AppendBytes(dst, *(*[]byte)(p)), nil
	case opLink:
		c := (*cid.CID)(p)
		if !c.Defined() {
			return dst, valueError(RuleMissing, "a link to an undefined CID")
		}
		return cbor.AppendLink(dst, *c), nil
	case opRaw:
		return appendRaw(dst, *(*Raw)(p))
	case opBlob:
		return (*Blob)(p).AppendCBOR(dst)
	case opCustom:
		return reflect.NewAt(n.typ, p).Interface().(fieldCodec).AppendCBOR(dst)
	case opType:
		return cbor.AppendText(dst, n.name), nil
	case opStruct:
		return n.appendStruct(dst, p, n.record, left)
	case opPointer:
		p = *(*unsafe.Pointer)(p)
		if p == nil {
			return dst, valueError(RuleMissing, "nil "+n.typ.String())
		}
		return n.elem.append(dst, p, left)
	case opNullable:
		v := (*nullable)(p)
		switch {
		case v.value != nil:
			return n.elem.append(dst, v.value, left)
		case v.null:
			return cbor.AppendNull(dst), nil
		}
		return dst, valueError(RuleMissing, "neither null nor a value")
	case opSlice:
		return n.appendSlice(dst, (*sliceHeader)(p), left)
	case opUnion:
		return n.appendUnion(dst, (*unionValue)(p), left)
	}
	return dst, unsupported(n.typ, "")
}

// validText is utf8.ValidString, faster for ASCII.
func validText(s string) bool {
	if len(s) < 8 {
		return utf8.ValidString(s)
	}
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	all := binary.LittleEndian.Uint64(b[len(b)-8:])
	for ; len(b) > 8; b = b[8:] {
		all |= binary.LittleEndian.Uint64(b)
	}
	return all&0x8080808080808080 == 0 || utf8.ValidString(s)
}

func appendRaw(dst []byte, raw Raw) ([]byte, error) {
	if len(raw) == 0 {
		return dst, valueError(RuleMissing, "an empty Raw")
	}
	if err := cbor.Valid(raw); err != nil {
		return dst, err
	}
	return append(dst, raw...), nil
}

func (n *node) appendSlice(dst []byte, s *sliceHeader, left int) (_ []byte, err error) {
	switch {
	case left <= 0:
		return dst, valueError(RuleDepth, "")
	case s.len > cbor.MaxElements:
		return dst, valueError(RuleElements, strconv.Itoa(s.len))
	}
	dst = cbor.AppendArray(dst, s.len)
	size := n.elem.typ.Size()
	for i := range s.len {
		if dst, err = n.elem.append(dst, unsafe.Add(s.data, uintptr(i)*size), left-1); err != nil {
			return dst, inItem(err, i)
		}
	}
	return dst, nil
}

func (n *node) appendUnion(dst []byte, u *unionValue, left int) ([]byte, error) {
	if u.Value == nil {
		t := TypeOf(u.Raw)
		switch {
		case len(u.Raw) == 0:
			return dst, valueError(RuleUnion, "empty")
		case t == "":
			return dst, valueError(RuleType, "a union needs a $type")
		case n.closed:
			return dst, valueError(RuleUnion, "closed, "+t+" is no member")
		}
		return appendRaw(dst, u.Raw)
	}
	t := reflect.TypeOf(u.Value)
	p := reflect.ValueOf(u.Value)
	if t.Kind() != reflect.Pointer || p.IsNil() {
		return dst, valueError(RuleUnion, "the value must be a pointer that isn't nil, not a "+t.String())
	}
	var m *node
	for _, c := range n.members {
		if c.typ == t.Elem() {
			m = c
			break
		}
	}
	if m == nil {
		if n.closed {
			return dst, valueError(RuleUnion, "closed, "+u.Value.LexType()+" is no member")
		}
		var err error
		if m, err = planOf(t.Elem()); err != nil {
			return dst, err
		}
		if m.op != opStruct {
			return dst, unsupported(t, " in a union")
		}
	}
	return m.appendStruct(dst, p.UnsafePointer(), true, left)
}

// present reports whether an optional field has a value.
func (f *field) present(p unsafe.Pointer) bool {
	switch f.node.op {
	case opPointer:
		return *(*unsafe.Pointer)(p) != nil
	case opSlice, opBytes:
		return (*sliceHeader)(p).data != nil
	case opRaw:
		return (*sliceHeader)(p).len != 0
	case opUnion:
		u := (*unionValue)(p)
		return u.Value != nil || len(u.Raw) != 0
	case opNullable:
		v := (*nullable)(p)
		return v.value != nil || v.null
	case opString:
		return *(*string)(p) != ""
	case opInt64:
		return *(*int64)(p) != 0
	case opInt:
		return *(*int)(p) != 0
	case opBool:
		return *(*bool)(p)
	}
	return !reflect.NewAt(f.node.typ, p).Elem().IsZero()
}

func (n *node) appendStruct(dst []byte, p unsafe.Pointer, typed bool, left int) (_ []byte, err error) {
	if left <= 0 {
		return dst, valueError(RuleDepth, "")
	}
	fields := n.fields
	if typed {
		fields = n.typed
	}
	var extra Extra
	if n.extra != noExtra {
		extra = *(*Extra)(unsafe.Add(p, n.extra))
	}
	count := len(fields)
	for i := range fields {
		if f := &fields[i]; f.opt && !f.present(unsafe.Add(p, f.off)) {
			count--
		}
	}
	if len(extra) > 0 {
		if extra, err = extra.without(fields); err != nil {
			return dst, err
		}
	}
	dst = cbor.AppendMap(dst, count+len(extra))
	for i := range fields {
		f := &fields[i]
		fp := unsafe.Add(p, f.off)
		if f.opt && !f.present(fp) {
			continue
		}
		for len(extra) > 0 && cbor.CompareKeys(extra[0].Key, f.key) < 0 {
			if dst, err = extra[0].append(dst); err != nil {
				return dst, err
			}
			extra = extra[1:]
		}
		dst = append(dst, f.head...)
		switch {
		case f.node.op == opString && validText(*(*string)(fp)):
			dst = cbor.AppendText(dst, *(*string)(fp))
		case f.null && f.node.op == opPointer && *(*unsafe.Pointer)(fp) == nil:
			dst = cbor.AppendNull(dst)
		default:
			if dst, err = f.node.append(dst, fp, left-1); err != nil {
				return dst, inKey(err, f.key)
			}
		}
	}
	for i := range extra {
		if dst, err = extra[i].append(dst); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (x *ExtraField) append(dst []byte) ([]byte, error) {
	dst, err := appendRaw(cbor.AppendText(dst, x.Key), x.Value)
	if err != nil {
		return dst, inKey(err, x.Key)
	}
	return dst, nil
}

// without checks the keys of x and returns those that aren't fields: a field that a struct has is no extra.
func (x Extra) without(fields []field) (Extra, error) {
	shadowed := false
	j := 0
	for i := range x {
		k := x[i].Key
		if k == "" || len(k) > cbor.MaxKey || !utf8.ValidString(k) || i > 0 && cbor.CompareKeys(x[i-1].Key, k) >= 0 {
			return nil, valueError(RuleValue, "keys of Extra must be text, sorted and unique: "+strconv.QuoteToASCII(k[:min(len(k), 64)]))
		}
		for j < len(fields) && cbor.CompareKeys(fields[j].key, k) < 0 {
			j++
		}
		shadowed = shadowed || j < len(fields) && fields[j].key == k
	}
	if !shadowed {
		return x, nil
	}
	var out Extra
	for i := range x {
		known := false
		for j := range fields {
			known = known || fields[j].key == x[i].Key
		}
		if !known {
			out = append(out, x[i])
		}
	}
	return out, nil
}

// decoder reads one input.
type decoder struct {
	r      cbor.Reader
	shared bool   // the input belongs to the value: views of it may be kept
	arena  []byte // else short strings are copied here, one after the other
}

const (
	arenaSize = 4096
	arenaMax  = 512 // longer strings get memory of their own
)

func (d *decoder) decode(b []byte, v any, depth int) error {
	if t := reflect.TypeOf(v); t == nil || t.Kind() != reflect.Pointer {
		return valueError(RuleValue, "the target must be a pointer")
	}
	n, p, err := addressOf(v)
	if err != nil {
		return err
	}
	reflect.NewAt(n.typ, p).Elem().SetZero()
	d.r = cbor.NewReader(b)
	if err := d.value(n, p, depth); err != nil {
		return err
	}
	return d.r.End()
}

// text returns a view of the input as a string that may be kept.
func (d *decoder) text(b []byte) string {
	switch {
	case len(b) == 0:
		return ""
	case d.shared:
		return unsafe.String(&b[0], len(b))
	case len(b) > arenaMax:
		return string(b)
	}
	if cap(d.arena)-len(d.arena) < len(b) {
		d.arena = make([]byte, 0, arenaSize)
	}
	i := len(d.arena)
	d.arena = append(d.arena, b...)
	return unsafe.String(&d.arena[i], len(b))
}

// bytes returns a view of the input as bytes that may be kept. They are never nil.
func (d *decoder) bytes(b []byte) []byte {
	if d.shared {
		return b
	}
	return append(make([]byte, 0, len(b)), b...)
}

// value reads a value of type n into p, which points to a zero value. left containers may nest.
func (d *decoder) value(n *node, p unsafe.Pointer, left int) error {
	switch n.op {
	case opString:
		b, err := d.r.TextBytes()
		if err != nil {
			return err
		}
		*(*string)(p) = d.text(b)
	case opInt64:
		v, err := d.r.Int()
		if err != nil {
			return err
		}
		*(*int64)(p) = v
	case opInt:
		at := d.r.Offset()
		v, err := d.r.Int()
		if err != nil {
			return err
		}
		if v < math.MinInt || v > math.MaxInt {
			return &Error{Offset: at, Rule: RuleIntRange}
		}
		*(*int)(p) = int(v)
	case opBool:
		v, err := d.r.Bool()
		if err != nil {
			return err
		}
		*(*bool)(p) = v
	case opBytes:
		b, err := d.r.Bytes()
		if err != nil {
			return err
		}
		*(*[]byte)(p) = d.bytes(b)
	case opLink:
		c, err := d.r.Link()
		if err != nil {
			return err
		}
		*(*cid.CID)(p) = c
	case opRaw:
		if d.r.IsNull() {
			return &Error{Offset: d.r.Offset(), Rule: RuleValue, Detail: "null where a value is wanted"}
		}
		b, err := d.r.Raw()
		if err != nil {
			return err
		}
		*(*Raw)(p) = d.bytes(b)
	case opBlob:
		return (*Blob)(p).ReadCBOR(&d.r)
	case opCustom:
		r := d.r // escapes
		err := reflect.NewAt(n.typ, p).Interface().(fieldCodec).ReadCBOR(&r)
		d.r = r
		return err
	case opType:
		at := d.r.Offset()
		b, err := d.r.TextBytes()
		if err != nil {
			return err
		}
		if string(b) != n.name {
			return &Error{Offset: at, Rule: RuleType, Detail: strconv.QuoteToASCII(string(b[:min(len(b), 64)])) + " where " + n.name + " is wanted"}
		}
	case opStruct:
		return d.structure(n, p, n.record, left)
	case opPointer:
		v := reflect.New(n.elem.typ).UnsafePointer()
		*(*unsafe.Pointer)(p) = v
		return d.value(n.elem, v, left)
	case opNullable:
		if d.r.IsNull() {
			(*nullable)(p).null = true
			return d.r.Null()
		}
		v := reflect.New(n.elem.typ).UnsafePointer()
		(*nullable)(p).value = v
		return d.value(n.elem, v, left)
	case opSlice:
		return d.slice(n, p, left)
	case opUnion:
		return d.union(n, (*unionValue)(p), left)
	default:
		return unsupported(n.typ, "")
	}
	return nil
}

// firstItems is for how many items of an array there is room at first, however many it announces: an item of one byte may
// take hundreds in Go.
const firstItems = 64

func (d *decoder) slice(n *node, p unsafe.Pointer, left int) error {
	if left <= 0 {
		return depthError(&d.r)
	}
	count, err := d.r.Array()
	if err != nil {
		return err
	}
	if count == 0 {
		*(*[]struct{})(p) = []struct{}{}
		return nil
	}
	if n.elem.op == opString {
		list := make([]string, 0, min(count, firstItems))
		for range count {
			b, err := d.r.TextBytes()
			if err != nil {
				return err
			}
			list = append(list, d.text(b))
		}
		*(*[]string)(p) = list
		return nil
	}
	s := reflect.NewAt(n.typ, p).Elem()
	h := (*sliceHeader)(p)
	size := n.elem.typ.Size()
	for i := range count {
		if i == h.cap {
			s.Grow(min(count-i, max(i, firstItems)))
		}
		h.len = i + 1
		if err := d.value(n.elem, unsafe.Add(h.data, uintptr(i)*size), left-1); err != nil {
			return inItem(err, i)
		}
	}
	return nil
}

func (d *decoder) union(n *node, u *unionValue, left int) error {
	at := d.r.Offset()
	name := typeOf(d.r)
	if len(name) == 0 {
		if err := d.r.Skip(); err != nil {
			return err
		}
		return &Error{Offset: at, Rule: RuleType, Detail: "a union needs a map with a $type"}
	}
	for _, m := range n.members {
		if m.name == string(name) {
			v := reflect.New(m.typ)
			u.Value = v.Interface().(Typed)
			return d.structure(m, v.UnsafePointer(), true, left)
		}
	}
	if n.closed {
		return &Error{Offset: at, Rule: RuleUnion, Detail: "closed, " + strconv.QuoteToASCII(string(name[:min(len(name), 64)])) + " is no member"}
	}
	b, err := d.r.Raw()
	if err != nil {
		return err
	}
	u.Raw = d.bytes(b)
	return nil
}

func (d *decoder) structure(n *node, p unsafe.Pointer, typed bool, left int) error {
	if left <= 0 {
		return depthError(&d.r)
	}
	at := d.r.Offset()
	count, err := d.r.Map()
	if err != nil {
		return err
	}
	fields := n.fields
	if typed {
		fields = n.typed
	}
	// Both the entries and the fields are in canonical order.
	i := 0
	var key []byte
	for range count {
		if j := d.next(fields, i); j >= 0 {
			i = j
			key = unsafe.Slice(unsafe.StringData(fields[i].key), len(fields[i].key))
		} else if key, err = d.r.MapKey(key); err != nil {
			return err
		}
		for i < len(fields) && before(fields[i].key, key) { // at once after next
			if !fields[i].opt {
				return &Error{Offset: at, Rule: RuleMissing, Detail: fields[i].key}
			}
			i++
		}
		if i == len(fields) || fields[i].key != string(key) {
			b, err := d.r.Raw()
			if err != nil {
				return err
			}
			if n.extra != noExtra {
				x := (*Extra)(unsafe.Add(p, n.extra))
				*x = append(*x, ExtraField{d.text(key), d.bytes(b)})
			}
			continue
		}
		f := &fields[i]
		i++
		fp := unsafe.Add(p, f.off)
		if f.node.op == opString {
			b, err := d.r.TextBytes()
			if err != nil {
				return err
			}
			*(*string)(fp) = d.text(b)
			continue
		}
		if f.null && d.r.IsNull() {
			if err := d.r.Null(); err != nil {
				return err
			}
			continue
		}
		if err := d.value(f.node, fp, left-1); err != nil {
			return inKey(err, f.key)
		}
	}
	for ; i < len(fields); i++ {
		if !fields[i].opt {
			return &Error{Offset: at, Rule: RuleMissing, Detail: fields[i].key}
		}
	}
	return nil
}

// next reads the key of one of fields[i:], as long as only optional ones are passed over, and returns which. All of them
// come after the key before, so their order needs no check. It returns -1 and reads nothing if the key is another one.
func (d *decoder) next(fields []field, i int) int {
	rest := d.r.Rest()
	if len(rest) == 0 {
		return -1
	}
	for ; i < len(fields); i++ {
		f := &fields[i]
		if f.head[0] == rest[0] && d.r.Expect(f.head) {
			return i
		}
		if f.head[0] > rest[0] || !f.opt { // shorter keys come first
			return -1
		}
	}
	return -1
}

// before is whether the field a comes before the key b.
func before(a string, b []byte) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < string(b)
}

// inKey and inItem put a step before the path of an error of this package; that of package cbor knows its path.
func inKey(err error, key string) error {
	var e *Error
	if errors.As(err, &e) {
		e.inKey([]byte(key))
	}
	return err
}

func inItem(err error, i int) error {
	var e *Error
	if errors.As(err, &e) {
		e.inItem(i)
	}
	return err
}
