package lexicon

import (
	"math"
	"slices"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/syntax"
)

// node is a definition made ready for validation: references are pointers, properties are in the order of keys in
// DAG-CBOR, absent bounds are ones that nothing exceeds.
type node struct {
	kind kind

	min, max                   int64 // integer value; length of string, bytes, array; size of a blob (max only)
	minGraphemes, maxGraphemes int64
	ints                       []int64 // enum and const; nil for any
	strings                    []string
	constBool, hasConst        bool
	format                     syntax.Kind
	valid                      func([]byte) bool // checks the format; nil for none and for unknown ones
	accept                     []string

	items *node

	props  []property
	typeID string // what $type must be; "" for any or none

	variants []variant
	closed   bool

	why string // of an unresolved reference
}

type property struct {
	name               string
	node               *node
	required, nullable bool
}

type variant struct {
	id   string
	node *node
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
)

var kinds = map[Type]kind{
	TypeBoolean: kindBoolean, TypeInteger: kindInteger, TypeString: kindString, TypeBytes: kindBytes, TypeCIDLink: kindCIDLink,
	TypeBlob: kindBlob, TypeArray: kindArray, TypeObject: kindObject, TypeParams: kindObject, TypeRecord: kindObject,
	TypeUnion: kindUnion, TypeUnknown: kindUnknown,
}

// node returns the compiled definition of an absolute reference, nil if there is none.
func (c *Catalog) node(ref string) *node {
	c.mu.RLock()
	n := c.nodes[ref]
	c.mu.RUnlock()
	if n != nil {
		return n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.resolve(ref)
	if d == nil {
		return nil
	}
	return c.compileNamed(ref, d)
}

// part returns the compiled form of a definition within a method, under a name of its own.
func (c *Catalog) part(name string, d *Def) *node {
	c.mu.RLock()
	n := c.nodes[name]
	c.mu.RUnlock()
	if n != nil {
		return n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.compileNamed(name, d)
}

// compileNamed compiles once for each name. A definition that refers to itself finds the node that is being filled. The
// catalog is locked, so nobody else sees a node before it is whole.
func (c *Catalog) compileNamed(name string, d *Def) *node {
	if n := c.nodes[name]; n != nil {
		return n
	}
	n := new(node)
	c.nodes[name] = n
	c.compile(n, name, d)
	return n
}

func (c *Catalog) inline(d *Def) *node {
	if d.Type == TypeRef {
		t := c.resolve(d.Ref)
		if why := refProblem(t); why != "" {
			return &node{why: d.Ref + " " + why}
		}
		return c.compileNamed(d.Ref, t)
	}
	n := new(node)
	c.compile(n, "", d)
	return n
}

func (c *Catalog) compile(n *node, name string, d *Def) {
	n.kind = kinds[d.Type]
	n.min, n.max = or(d.MinLength, 0), or(d.MaxLength, math.MaxInt64)
	switch d.Type {
	case TypeBoolean:
		n.constBool, n.hasConst = d.Const.(bool)
	case TypeInteger:
		n.min, n.max = or(d.Minimum, math.MinInt64), or(d.Maximum, math.MaxInt64)
		n.ints = d.IntEnum
		if v, ok := d.Const.(int64); ok {
			n.ints, n.hasConst = []int64{v}, true
		}
	case TypeString:
		n.minGraphemes, n.maxGraphemes = or(d.MinGraphemes, 0), or(d.MaxGraphemes, math.MaxInt64)
		n.format, n.valid, n.strings = d.Format, formats[d.Format], d.Enum
		if v, ok := d.Const.(string); ok {
			n.strings, n.hasConst = []string{v}, true
		}
	case TypeBlob:
		n.max, n.accept = or(d.MaxSize, math.MaxInt64), d.Accept
	case TypeArray:
		n.items = c.inline(d.Items)
	case TypeObject, TypeParams:
		c.compileObject(n, d)
	case TypeRecord:
		n.typeID = name
		c.compileObject(n, d.Record)
	case TypeUnion:
		n.closed = d.Closed
		for _, r := range d.Refs {
			t := c.resolve(r)
			if why := variantProblem(t); why != "" {
				n.variants = append(n.variants, variant{r, &node{why: r + " " + why}})
				continue
			}
			n.variants = append(n.variants, variant{r, c.compileNamed(r, t)})
		}
	}
}

func (c *Catalog) compileObject(n *node, d *Def) {
	n.props = make([]property, 0, len(d.Properties))
	for _, p := range d.Properties {
		if p.Name == typeKey && n.typeID != "" {
			continue // what a record's $type must be is known
		}
		n.props = append(n.props, property{p.Name, c.inline(p.Def), d.IsRequired(p.Name), d.IsNullable(p.Name)})
	}
	for _, name := range d.Required {
		if d.Property(name) == nil && name != typeKey { // required, but of no particular type
			n.props = append(n.props, property{name, &node{kind: kindAny}, true, d.IsNullable(name)})
		}
	}
	slices.SortFunc(n.props, func(a, b property) int { return cbor.CompareKeys(a.name, b.name) })
}

func or(p *int64, v int64) int64 {
	if p != nil {
		return *p
	}
	return v
}
