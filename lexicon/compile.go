package lexicon

import (
	"math"
	"slices"
	"strings"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/syntax"
)

// node is a definition made ready for validation: references are pointers, properties are in the order of keys in
// DAG-CBOR, absent bounds are ones that nothing exceeds.
type node struct {
	kind kind

	min, max                   int64 // integer value; length of string, bytes, array; size of a blob (max only)
	minGraphemes, maxGraphemes int64
	ints                       []int64  // enum and const, sorted; nil for any
	strings                    []string // likewise
	constBool, hasConst        bool
	format                     syntax.Kind
	valid                      func([]byte) bool // checks the format; nil for none and for unknown ones
	accept                     []string
	acceptSet                  map[string]bool // of accept, if that is long

	items *node

	props    []property // in the order of encoded keys
	required int        // how many of them are
	typeID   string     // what $type must be; "" for any or none

	variants []variant
	byID     map[string]*node // of variants, if they are many
	closed   bool

	why  string      // of an unresolved reference
	need syntax.NSID // the schema it is in, if that isn't there
}

type property struct {
	name               string
	encoded            string // the key as it stands in a map
	head, mask         uint64 // its first eight bytes as a number, and which of them there are
	prefix             int    // its bytes before the name
	node               *node
	required, nullable bool
}

type variant struct {
	id   string
	node *node
}

// few is up to how many entries a list is searched from front to back.
const few = 8

// variant returns the variant with that $type, nil if there is none.
func (n *node) variant(t []byte) *node {
	if n.byID != nil {
		return n.byID[string(t)]
	}
	for i := range n.variants {
		if n.variants[i].id == string(t) {
			return n.variants[i].node
		}
	}
	return nil
}

// kind is what validation switches on.
type kind uint8

const (
	kindUnresolved kind = iota // a reference that can't be followed
	kindAny                    // any value fits
	kindBoolean
	kindInteger
	kindString
	kindBytes
	kindCIDLink
	kindBlob
	kindArray
	kindObject
	kindUnion
	kindUnknown
	kindTypeID // the $type of a record
)

var kinds = map[Type]kind{
	TypeBoolean: kindBoolean, TypeInteger: kindInteger, TypeString: kindString, TypeBytes: kindBytes, TypeCIDLink: kindCIDLink,
	TypeBlob: kindBlob, TypeArray: kindArray, TypeObject: kindObject, TypeParams: kindObject, TypeRecord: kindObject,
	TypeUnion: kindUnion, TypeUnknown: kindUnknown,
}

// node returns the compiled definition of an absolute reference, nil if there is none.
func (t *store) node(ref string) *node {
	t.mu.RLock()
	n := t.nodes[ref]
	t.mu.RUnlock()
	if n != nil {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.def(ref)
	if d == nil {
		return nil
	}
	return t.compileAll(ref, d)
}

// part returns the compiled form of a definition within a method, under a name of its own.
func (t *store) part(name string, d *Def) *node {
	t.mu.RLock()
	n := t.nodes[name]
	t.mu.RUnlock()
	if n != nil {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n = t.inline(d)
	t.compileTodo()
	t.nodes[name] = n
	return n
}

// again returns the node with a name that node or part was asked for, after schemas have been added.
func (t *store) again(name string) *node {
	if ref, part, ok := strings.Cut(name, " "); ok {
		if d := t.bodyDef(ref, part); d != nil {
			return t.part(name, d)
		}
		return nil
	}
	return t.node(name)
}

// bodyDef is the schema of a method's input or output.
func (t *store) bodyDef(id, part string) *Def {
	d, _ := t.find(id)
	if d == nil {
		return nil
	}
	b := d.Output
	if part == "input" {
		b = d.Input
	}
	if b == nil {
		return nil
	}
	return b.Schema
}

// find returns the definition that a reference leads to, nil if there is none, and whether its schema is there.
func (t *store) find(ref string) (d *Def, held bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.def(ref), t.schemas[refNSID(ref)] != nil
}

// compileAll compiles a definition and all that it refers to, one after the other: chains of references may be longer
// than a stack is deep. The catalog is locked, so nobody else sees a node before it is whole.
func (t *store) compileAll(name string, d *Def) *node {
	n := t.named(name, d)
	t.compileTodo()
	return n
}

func (t *store) compileTodo() {
	for len(t.todo) > 0 {
		next := t.todo[len(t.todo)-1]
		t.todo = t.todo[:len(t.todo)-1]
		t.compile(next.node, next.name, next.def)
	}
}

// named returns the node of a definition and sees to it that it will be compiled, once.
func (t *store) named(name string, d *Def) *node {
	if n := t.nodes[name]; n != nil {
		return n
	}
	n := new(node)
	t.nodes[name] = n
	t.todo = append(t.todo, pending{n, name, d})
	return n
}

type pending struct {
	node *node
	name string
	def  *Def
}

// target compiles what a reference leads to, or says in the node why it can't.
func (t *store) target(ref string, problem func(*Def) string) *node {
	d := t.def(ref)
	why := problem(d)
	if why == "" {
		return t.named(ref, d)
	}
	n := &node{why: ref + " " + why}
	if id := refNSID(ref); t.schemas[id] == nil {
		n.need = id
	}
	return n
}

func (t *store) inline(d *Def) *node {
	if d.Type == TypeRef {
		return t.target(d.Ref, RefProblem)
	}
	n := new(node)
	t.compile(n, "", d)
	return n
}

func (t *store) compile(n *node, name string, d *Def) {
	n.kind = kinds[d.Type]
	n.min, n.max = or(d.MinLength, 0), or(d.MaxLength, math.MaxInt64)
	switch d.Type {
	case TypeBoolean:
		n.constBool, n.hasConst = d.Const.(bool)
	case TypeInteger:
		n.min, n.max = or(d.Minimum, math.MinInt64), or(d.Maximum, math.MaxInt64)
		if n.ints = d.IntEnum; len(n.ints) > few {
			n.ints = slices.Sorted(slices.Values(n.ints))
		}
		if v, ok := d.Const.(int64); ok {
			n.ints, n.hasConst = []int64{v}, true
		}
	case TypeString:
		n.minGraphemes, n.maxGraphemes = or(d.MinGraphemes, 0), or(d.MaxGraphemes, math.MaxInt64)
		n.format, n.valid, n.strings = d.Format, formats[d.Format], d.Enum
		if len(n.strings) > few {
			n.strings = slices.Sorted(slices.Values(n.strings))
		}
		if v, ok := d.Const.(string); ok {
			n.strings, n.hasConst = []string{v}, true
		}
	case TypeBlob:
		n.max, n.accept = or(d.MaxSize, math.MaxInt64), d.Accept
		if len(n.accept) > few {
			n.acceptSet = make(map[string]bool, len(n.accept))
			for _, a := range n.accept {
				n.acceptSet[a] = true
			}
		}
	case TypeArray:
		n.items = t.inline(d.Items)
	case TypeObject, TypeParams:
		t.compileObject(n, d)
	case TypeRecord:
		n.typeID = name
		t.compileObject(n, d.Record)
	case TypeUnion:
		n.closed = d.Closed
		for _, r := range d.Refs {
			n.variants = append(n.variants, variant{r, t.target(r, VariantProblem)})
		}
		if len(n.variants) > few {
			n.byID = make(map[string]*node, len(n.variants))
			for _, v := range n.variants {
				n.byID[v.id] = v.node
			}
		}
	}
}

func (t *store) compileObject(n *node, d *Def) {
	n.props = make([]property, 0, len(d.Properties)+1)
	required, nullable := set(d.Required), set(d.Nullable)
	add := func(name string, p *node) {
		x := property{name: name, node: p, required: required[name], nullable: nullable[name]}
		x.key()
		n.props = append(n.props, x)
		if required[name] {
			n.required++
		}
		delete(required, name)
	}
	switch {
	case n.typeID != "": // what a record's $type must be is known
		required[typeKey] = true
		add(typeKey, &node{kind: kindTypeID, typeID: n.typeID})
	case d.Type == TypeObject && d.Property(typeKey) == nil && !required[typeKey]: // that of a variant; known, so that it is found fast
		add(typeKey, &node{kind: kindAny})
	}
	for _, p := range d.Properties {
		if p.Name != typeKey || n.typeID == "" {
			add(p.Name, t.inline(p.Def))
		}
	}
	for _, name := range d.Required {
		if required[name] { // required, but of no particular type
			add(name, &node{kind: kindAny})
		}
	}
	slices.SortFunc(n.props, func(a, b property) int { return cbor.CompareKeys(a.name, b.name) })
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

func or(p *int64, v int64) int64 {
	if p != nil {
		return *p
	}
	return v
}
