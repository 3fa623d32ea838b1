package data

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// op is what a node does.
type op uint8

const (
	opInvalid op = iota
	opString
	opInt64
	opInt
	opBool
	opBytes
	opLink
	opRaw
	opBlob
	opCustom
	opStruct
	opPointer
	opSlice
	opUnion
	opNullable
	opType // the `$type` of a struct, which has no Go field
)

// node is the plan of one Go type. Nothing in it changes once it is in use.
type node struct {
	op   op
	typ  reflect.Type
	elem *node // opPointer, opSlice, opNullable

	// opStruct
	name     string  // its `$type`, "" if it has none
	record   bool    // it always has its `$type`
	fields   []field // in canonical order
	typed    []field // the same with `$type`
	extra    int     // the index of the field Extra, noExtra if there is none
	extraOff uintptr // where it is
	least    int     // bytes that a map with the required fields alone takes

	// opUnion
	members []*node // structs
	closed  bool

	fast fastPlan
}

const noExtra = -1

// field is an entry of a struct's map.
type field struct {
	key   string
	head  string // the key in CBOR
	index int    // of the field in Go
	off   uintptr
	node  *node
	opt   bool // may be absent
	null  bool // a nil pointer is null

	fast fastField
}

// plans maps a reflect.Type to its *node or, if it has none, to an error.
var plans sync.Map

func planOf(t reflect.Type) (*node, error) {
	if p, ok := plans.Load(t); ok {
		if n, ok := p.(*node); ok {
			return n, nil
		}
		return nil, p.(error)
	}
	b := builder{nodes: map[reflect.Type]*node{}}
	n, err := b.node(t)
	if err != nil {
		plans.Store(t, err)
		return nil, err
	}
	// The nodes of other types that were built on the way are complete too.
	for _, n := range b.nodes {
		n.prepare()
	}
	for t, n := range b.nodes {
		plans.LoadOrStore(t, n)
	}
	return n, nil
}

// builder builds the plans of a type and of those it contains, which may contain it in turn.
type builder struct {
	nodes map[reflect.Type]*node
}

var (
	typeRaw   = reflect.TypeFor[Raw]()
	typeCID   = reflect.TypeFor[cid.CID]()
	typeBlob  = reflect.TypeFor[Blob]()
	typeExtra = reflect.TypeFor[Extra]()
	typeTyped = reflect.TypeFor[Typed]()
	typeCodec = reflect.TypeFor[fieldCodec]()
)

func (b *builder) node(t reflect.Type) (*node, error) {
	if n := b.nodes[t]; n != nil {
		return n, nil
	}
	if p, ok := plans.Load(t); ok {
		if n, ok := p.(*node); ok {
			return n, nil
		}
		return nil, p.(error)
	}
	n := &node{typ: t, extra: noExtra}
	b.nodes[t] = n
	return n, b.fill(n, t)
}

func (b *builder) fill(n *node, t reflect.Type) (err error) {
	switch t {
	case typeRaw:
		n.op = opRaw
		return nil
	case typeCID:
		n.op = opLink
		return nil
	case typeBlob:
		n.op = opBlob
		return nil
	}
	zero := reflect.Zero(t).Interface()
	if u, ok := zero.(interface{ lexUnion() reflect.Type }); ok {
		n.op = opUnion
		return b.union(n, u.lexUnion())
	}
	if u, ok := zero.(interface{ lexNullable() reflect.Type }); ok {
		n.op = opNullable
		n.elem, err = b.node(u.lexNullable())
		return err
	}
	if t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(typeCodec) {
		n.op = opCustom
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		n.op = opString
	case reflect.Int64:
		n.op = opInt64
	case reflect.Int:
		n.op = opInt
	case reflect.Bool:
		n.op = opBool
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			n.op = opBytes
			return nil
		}
		n.op = opSlice
		n.elem, err = b.node(t.Elem())
	case reflect.Pointer:
		n.op = opPointer
		n.elem, err = b.node(t.Elem())
	case reflect.Struct:
		n.op = opStruct
		err = b.structure(n, t)
	default:
		err = unsupported(t, "")
	}
	return err
}

func unsupported(t reflect.Type, why string) error {
	return &Error{Offset: -1, Rule: RuleValue, Detail: fmt.Sprintf("Go type %v%s has no place in the data model", t, why)}
}

func (b *builder) structure(n *node, t reflect.Type) error {
	if reflect.PointerTo(t).Implements(typeTyped) {
		n.name = reflect.New(t).Interface().(Typed).LexType()
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Type == typeExtra && f.Name == "Extra" {
			n.extra, n.extraOff = i, f.Offset
			n.record = f.Tag.Get("lex") == "record"
			continue
		}
		if f.Type == typeExtra { // or else what it should hold would be dropped without a word
			return unsupported(t, " with the field "+f.Name+" of type Extra, which has to have that name too,")
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" && options == "" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if f.Anonymous {
			return unsupported(t, " with the embedded field "+f.Name)
		}
		elem, err := b.node(f.Type)
		if err != nil {
			return err
		}
		n.fields = append(n.fields, field{
			key: name, head: string(cbor.AppendText(nil, name)), index: i, off: f.Offset, node: elem,
			opt: options == "omitzero", null: f.Tag.Get("lex") == "nullable",
		})
	}
	if n.record && n.name == "" {
		return unsupported(t, ", a record without a LexType,")
	}
	order := func(a, b field) int { return cbor.CompareKeys(a.key, b.key) }
	slices.SortFunc(n.fields, order)
	for i := 1; i < len(n.fields); i++ {
		if n.fields[i].key == n.fields[i-1].key {
			return unsupported(t, " with two fields "+n.fields[i].key)
		}
	}
	if n.name != "" {
		n.typed = append(slices.Clone(n.fields), field{
			key: typeKey, head: string(cbor.AppendText(nil, typeKey)), index: -1, node: &node{op: opType, name: n.name},
		})
		slices.SortFunc(n.typed, order)
	}
	n.least = 1
	for _, f := range n.fields {
		if !f.opt {
			n.least += len(f.head) + 1
		}
	}
	return nil
}

func (b *builder) union(n *node, f reflect.Type) error {
	if f.Kind() != reflect.Func {
		return unsupported(n.typ, " of no function type")
	}
	n.closed = f.NumOut() == 1 && f.Out(0) == reflect.TypeFor[Closed]()
	for i := range f.NumIn() {
		t := f.In(i)
		if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct || !t.Implements(typeTyped) {
			return unsupported(t, " as the member of a union")
		}
		m, err := b.node(t.Elem())
		if err != nil {
			return err
		}
		n.members = append(n.members, m)
	}
	return nil
}
