package data

import (
	"errors"
	"math"
	"reflect"
	"strconv"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// This file executes plans by reflection. It is the authority: what codec_fast.go doesn't want to deal with comes here, all
// errors are named here, and lenient readings are only done here.

// The indexes of the fields of a Union and of a Nullable.
const (
	unionValue = 0
	unionRaw   = 1

	nullableValue = 0
	nullableNull  = 1
)

// planFor returns the plan of a value and the value, which is addressable.
func planFor(v any) (*node, reflect.Value, error) {
	if v == nil {
		return nil, reflect.Value{}, valueError(RuleValue, "nil")
	}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer {
		c := reflect.New(p.Type())
		c.Elem().Set(p)
		p = c
	}
	n, err := planOf(p.Type().Elem())
	if err != nil {
		return nil, reflect.Value{}, err
	}
	if p.IsNil() {
		return nil, reflect.Value{}, valueError(RuleValue, "nil "+p.Type().String())
	}
	return n, p.Elem(), nil
}

func appendAny(dst []byte, v any, depth int) ([]byte, error) {
	if b, ok := appendFast(dst, v, depth); ok {
		return b, nil
	}
	n, rv, err := planFor(v)
	if err != nil {
		return dst, err
	}
	b, err := n.append(dst, rv, depth)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// append appends a value of type n, in which left containers may nest.
func (n *node) append(dst []byte, v reflect.Value, left int) ([]byte, error) {
	switch n.op {
	case opString:
		s := v.String()
		if !utf8.ValidString(s) {
			return dst, valueError(RuleUTF8, strconv.QuoteToASCII(s[:min(len(s), 64)]))
		}
		return cbor.AppendText(dst, s), nil
	case opInt64, opInt:
		return cbor.AppendInt(dst, v.Int()), nil
	case opBool:
		return cbor.AppendBool(dst, v.Bool()), nil
	case opBytes:
		return cbor.AppendBytes(dst, v.Bytes()), nil
	case opLink:
		c := v.Addr().Interface().(*cid.CID)
		if !c.Defined() {
			return dst, valueError(RuleMissing, "a link to an undefined CID")
		}
		return cbor.AppendLink(dst, *c), nil
	case opRaw:
		return appendRaw(dst, v.Bytes(), left)
	case opBlob, opCustom:
		return appendCustom(dst, v.Addr().Interface().(fieldCodec), left)
	case opType:
		return cbor.AppendText(dst, n.name), nil
	case opStruct:
		return n.appendStruct(dst, v, n.record, left)
	case opPointer:
		if v.IsNil() {
			return dst, valueError(RuleMissing, "nil "+n.typ.String())
		}
		return n.elem.append(dst, v.Elem(), left)
	case opNullable:
		switch value := v.Field(nullableValue); {
		case !value.IsNil():
			return n.elem.append(dst, value.Elem(), left)
		case v.Field(nullableNull).Bool():
			return cbor.AppendNull(dst), nil
		}
		return dst, valueError(RuleMissing, "neither null nor a value")
	case opSlice:
		return n.appendSlice(dst, v, left)
	case opUnion:
		return n.appendUnion(dst, v, left)
	}
	return dst, unsupported(n.typ, "")
}

// depthOf is how many containers are open where left may still be opened. Beyond the depth of records nothing is counted.
func depthOf(left int) int { return max(0, cbor.MaxDepth-left) }

// appendCustom appends what writes itself, and so doesn't know how deep it is.
func appendCustom(dst []byte, v fieldCodec, left int) ([]byte, error) {
	out, err := v.AppendCBOR(dst)
	if err != nil {
		return dst, err
	}
	if _, err := cbor.ScanWithin(out[len(dst):], depthOf(left)); err != nil {
		return dst, err
	}
	return out, nil
}

func appendRaw(dst []byte, raw Raw, left int) ([]byte, error) {
	if len(raw) == 0 {
		return dst, valueError(RuleMissing, "an empty Raw")
	}
	switch n, err := cbor.ScanWithin(raw, depthOf(left)); {
	case err != nil:
		return dst, err
	case n != len(raw):
		return dst, valueError(RuleTrailing, "in a Raw")
	}
	return append(dst, raw...), nil
}

func (n *node) appendSlice(dst []byte, v reflect.Value, left int) (_ []byte, err error) {
	switch {
	case left <= 0:
		return dst, valueError(RuleDepth, "")
	case v.Len() > cbor.MaxElements:
		return dst, valueError(RuleElements, strconv.Itoa(v.Len()))
	}
	dst = cbor.AppendArray(dst, v.Len())
	for i := range v.Len() {
		if dst, err = n.elem.append(dst, v.Index(i), left-1); err != nil {
			return dst, inItem(err, i)
		}
	}
	return dst, nil
}

func (n *node) appendUnion(dst []byte, v reflect.Value, left int) ([]byte, error) {
	value := v.Field(unionValue)
	if value.IsNil() {
		raw := Raw(v.Field(unionRaw).Bytes())
		t := TypeOf(raw)
		switch {
		case len(raw) == 0:
			return dst, valueError(RuleUnion, "empty")
		case t == "":
			return dst, valueError(RuleType, "a union needs a $type")
		case n.closed:
			return dst, valueError(RuleUnion, "closed, "+t+" is no member")
		}
		return appendRaw(dst, raw, left)
	}
	p := value.Elem()
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return dst, valueError(RuleUnion, "the value must be a pointer that isn't nil, not a "+p.Type().String())
	}
	m := n.member(p.Type().Elem())
	if m == nil {
		if n.closed {
			return dst, valueError(RuleUnion, "closed, "+value.Interface().(Typed).LexType()+" is no member")
		}
		var err error
		if m, err = planOf(p.Type().Elem()); err != nil {
			return dst, err
		}
		if m.op != opStruct {
			return dst, unsupported(p.Type(), " in a union")
		}
	}
	return m.appendStruct(dst, p.Elem(), true, left)
}

// member returns the member of a union that is of type t, nil if there is none.
func (n *node) member(t reflect.Type) *node {
	for _, m := range n.members {
		if m.typ == t {
			return m
		}
	}
	return nil
}

// present reports whether an optional field has a value.
func (n *node) present(v reflect.Value) bool {
	switch n.op {
	case opRaw:
		return v.Len() != 0
	case opUnion:
		return !v.Field(unionValue).IsNil() || v.Field(unionRaw).Len() != 0
	}
	return !v.IsZero()
}

// fieldsFor returns the fields of the map that a struct is: typed says that it must have its `$type`.
func (n *node) fieldsFor(typed bool) []field {
	if typed {
		return n.typed
	}
	return n.fields
}

func (n *node) appendStruct(dst []byte, v reflect.Value, typed bool, left int) (_ []byte, err error) {
	if left <= 0 {
		return dst, valueError(RuleDepth, "")
	}
	fields := n.fieldsFor(typed)
	var extra extraList
	if n.extra != noExtra {
		extra = v.Field(n.extra).Interface().(Extra).entries()
	}
	absent := func(f *field) bool { return f.opt && !f.node.present(v.Field(f.index)) }
	count := len(fields)
	for i := range fields {
		if absent(&fields[i]) {
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
		if absent(f) {
			continue
		}
		if dst, extra, err = extra.appendBefore(dst, f.key, left-1); err != nil {
			return dst, err
		}
		dst = append(dst, f.head...)
		var fv reflect.Value
		if f.index >= 0 {
			fv = v.Field(f.index)
		}
		if f.null && f.node.op == opPointer && fv.IsNil() {
			dst = cbor.AppendNull(dst)
		} else if dst, err = f.node.append(dst, fv, left-1); err != nil {
			return dst, inKey(err, f.key)
		}
	}
	dst, _, err = extra.appendBefore(dst, "", left-1)
	return dst, err
}

// decoder reads one input into a value.
type decoder struct {
	r      cbor.Reader
	shared bool  // the input belongs to the value: views of it may be kept
	dirty  *dirt // nil in a strict reading
}

// decodeInto reads b into the value that v points to. With shared, b belongs to the value.
func decodeInto(b []byte, shared bool, v any, depth int) error {
	if decodeFast(b, shared, v, depth) {
		return nil
	}
	d := decoder{r: cbor.NewReader(b), shared: shared}
	return d.decode(v, depth)
}

func (d *decoder) decode(v any, depth int) error {
	if t := reflect.TypeOf(v); t == nil || t.Kind() != reflect.Pointer {
		return valueError(RuleValue, "the target must be a pointer")
	}
	n, rv, err := planFor(v)
	if err != nil {
		return err
	}
	rv.SetZero()
	if err := d.item(n, rv, depth); err != nil {
		return err
	}
	if d.dirty != nil {
		return nil // it is known already
	}
	return d.r.End()
}

// bytes returns a view of the input as bytes that may be kept. They are never nil.
func (d *decoder) bytes(b []byte) []byte {
	if d.shared {
		return b
	}
	return append(make([]byte, 0, len(b)), b...)
}

// item reads a value of type n into v, which is zero, and in which left containers may nest. In a lenient reading a value
// that doesn't fit is reported and passed over, and v stays zero.
func (d *decoder) item(n *node, v reflect.Value, left int) error {
	if d.dirty == nil {
		return d.value(n, v, left)
	}
	start := d.r
	err := d.value(n, v, left)
	if err == nil {
		return nil
	}
	d.r = start
	if _, hard := d.r.RawWithin(depthOf(left)); hard != nil {
		return hard
	}
	d.dirty.found(start.Offset(), err)
	if v.IsValid() {
		v.SetZero()
	}
	return nil
}

// items reads what an array or map of n entries holds, where n is -1 if only its end tells.
func (d *decoder) items(n int, one func(i int) error) error {
	for i := 0; n < 0 || i < n; i++ {
		if n < 0 && d.r.Break() {
			return nil
		}
		if err := one(i); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) value(n *node, v reflect.Value, left int) error {
	switch n.op {
	case opString:
		b, err := d.r.TextBytes()
		if err != nil {
			return err
		}
		v.SetString(string(b))
	case opInt64, opInt:
		at := d.r.Offset()
		i, err := d.r.Int()
		if err != nil {
			return err
		}
		if n.op == opInt && (i < math.MinInt || i > math.MaxInt) {
			return &Error{Offset: at, Rule: RuleIntRange}
		}
		v.SetInt(i)
	case opBool:
		b, err := d.r.Bool()
		if err != nil {
			return err
		}
		v.SetBool(b)
	case opBytes:
		b, err := d.r.Bytes()
		if err != nil {
			return err
		}
		v.SetBytes(d.bytes(b))
	case opLink:
		c, err := d.r.Link()
		if err != nil {
			return err
		}
		*v.Addr().Interface().(*cid.CID) = c
	case opRaw:
		if d.r.IsNull() {
			return &Error{Offset: d.r.Offset(), Rule: RuleValue, Detail: "null where a value is wanted"}
		}
		b, err := d.r.RawWithin(depthOf(left))
		if err != nil {
			return err
		}
		v.SetBytes(d.bytes(b))
	case opBlob, opCustom:
		if whole := d.r; d.dirty == nil { // what reads itself doesn't know how deep it is
			if _, err := whole.RawWithin(depthOf(left)); err != nil {
				return err
			}
		}
		return v.Addr().Interface().(fieldCodec).ReadCBOR(&d.r)
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
		return d.structure(n, v, n.record, left)
	case opPointer:
		p := reflect.New(n.elem.typ)
		v.Set(p)
		return d.value(n.elem, p.Elem(), left)
	case opNullable:
		if d.r.IsNull() {
			v.Field(nullableNull).SetBool(true)
			return d.r.Null()
		}
		p := reflect.New(n.elem.typ)
		v.Field(nullableValue).Set(p)
		return d.value(n.elem, p.Elem(), left)
	case opSlice:
		return d.slice(n, v, left)
	case opUnion:
		return d.union(n, v, left)
	default:
		return unsupported(n.typ, "")
	}
	return nil
}

// firstItems is for how many items of an array there is room at first, however many it announces: an item of one byte may
// take hundreds in Go.
const firstItems = 64

func (d *decoder) slice(n *node, v reflect.Value, left int) error {
	if left <= 0 {
		return depthError(&d.r)
	}
	count, err := d.r.Array()
	if err != nil {
		return err
	}
	v.Set(reflect.MakeSlice(n.typ, 0, min(max(count, 0), firstItems)))
	return d.items(count, func(i int) error {
		if i == v.Cap() {
			v.Grow(max(1, i)) // at most doubled
		}
		v.SetLen(i + 1)
		d.dirty.into(Step{Index: i})
		defer d.dirty.out()
		if err := d.item(n.elem, v.Index(i), left-1); err != nil {
			return inItem(err, i)
		}
		return nil
	})
}

func (d *decoder) union(n *node, v reflect.Value, left int) error {
	at := d.r.Offset()
	name := typeOf(d.r)
	if d.dirty != nil {
		name = typeAnywhere(d.r)
	}
	if len(name) == 0 {
		if err := d.r.Skip(); err != nil {
			return err
		}
		return &Error{Offset: at, Rule: RuleType, Detail: "a union needs a map with a $type"}
	}
	for _, m := range n.members {
		if m.name == string(name) {
			p := reflect.New(m.typ)
			v.Field(unionValue).Set(p)
			return d.structure(m, p.Elem(), true, left)
		}
	}
	if n.closed {
		return &Error{Offset: at, Rule: RuleUnion, Detail: "closed, " + strconv.QuoteToASCII(string(name[:min(len(name), 64)])) + " is no member"}
	}
	b, err := d.r.RawWithin(depthOf(left))
	if err != nil {
		return err
	}
	v.Field(unionRaw).SetBytes(d.bytes(b))
	return nil
}

func (d *decoder) structure(n *node, v reflect.Value, typed bool, left int) error {
	if left <= 0 {
		return depthError(&d.r)
	}
	at := d.r.Offset()
	count, err := d.r.Map()
	if err != nil {
		return err
	}
	fields := n.fieldsFor(typed)
	var extra *Extra
	if n.extra != noExtra {
		extra = v.Field(n.extra).Addr().Interface().(*Extra)
	}
	missing := func(f *field) error {
		if f.opt {
			return nil
		}
		return &Error{Offset: at, Rule: RuleMissing, Detail: f.key}
	}
	if d.dirty != nil {
		return d.anyOrder(count, fields, v, extra, left, func(f *field) {
			if err := missing(f); err != nil {
				d.dirty.found(at, err)
			}
		})
	}
	// Both the entries and the fields are in canonical order.
	i := 0
	var key []byte
	for range count {
		if key, err = d.r.MapKey(key); err != nil {
			return err
		}
		for ; i < len(fields) && before(fields[i].key, key); i++ {
			if err := missing(&fields[i]); err != nil {
				return err
			}
		}
		if i == len(fields) || fields[i].key != string(key) {
			err = d.unknown(key, extra, left-1)
		} else {
			err = d.entry(&fields[i], v, left-1)
			i++
		}
		if err != nil {
			return err
		}
	}
	for ; i < len(fields); i++ {
		if err := missing(&fields[i]); err != nil {
			return err
		}
	}
	return nil
}

// anyOrder reads the entries of a map in a lenient reading: in any order, with keys that come twice (the last one counts)
// and keys that aren't text, which have no place in a struct. It tells of the fields that aren't there.
func (d *decoder) anyOrder(count int, fields []field, v reflect.Value, extra *Extra, left int, absent func(*field)) error {
	seen := make([]bool, len(fields))
	err := d.items(count, func(int) error {
		key, err := d.dirty.key(&d.r, depthOf(left-1))
		if err != nil {
			return err
		}
		if key == nil {
			_, err := d.r.RawWithin(depthOf(left - 1))
			return err
		}
		i := 0
		for i < len(fields) && fields[i].key != string(key) {
			i++
		}
		if i == len(fields) {
			return d.unknown(key, extra, left-1)
		}
		seen[i] = true
		if fields[i].index >= 0 {
			v.Field(fields[i].index).SetZero()
		}
		d.dirty.into(Step{Key: key})
		defer d.dirty.out()
		return d.entry(&fields[i], v, left-1)
	})
	if err != nil {
		return err
	}
	for i := range fields {
		if !seen[i] {
			absent(&fields[i])
		}
	}
	if extra != nil {
		extra.tidy()
	}
	return nil
}

// entry reads the value of a field of v.
func (d *decoder) entry(f *field, v reflect.Value, left int) error {
	var fv reflect.Value
	if f.index >= 0 {
		fv = v.Field(f.index)
	}
	if f.null && d.r.IsNull() {
		return d.r.Null()
	}
	return inKey(d.item(f.node, fv, left), f.key)
}

// unknown reads the value of a key that isn't that of a field.
func (d *decoder) unknown(key []byte, extra *Extra, left int) error {
	b, err := d.r.RawWithin(depthOf(left))
	if err == nil && extra != nil {
		extra.add(ExtraField{string(key), d.bytes(b)})
	}
	return err
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
