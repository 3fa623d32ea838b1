package mst

import (
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/barograph/baro/cid"
)

// Source gives a tree its nodes. Load returns the block with the given CID, which the tree doesn't keep, or an error that
// wraps [ErrNotFound].
//
// A source that finds blocks by CID can ignore the position. One that keeps nodes in tree order needs nothing else.
type Source interface {
	Load(c cid.CID, at Pos) ([]byte, error)
}

// FirstSource is a [Source] that knows the smallest key below each node, as a store in tree order does. It spares the tree
// from loading the left edge of a subtree only to fill in First in a [Change]. An empty first means unknown.
type FirstSource interface {
	Source
	LoadFirst(c cid.CID, at Pos) (data []byte, first string, err error)
}

// Pos says where in the tree a node lies: its layer, and what is known of the smallest key of its subtree.
//
// (smallest key, layer) is unique within a tree and a function of the node's content, so that it can be the key of a
// store. Ordered by smallest key and then by falling layer, with every record after the nodes that begin at its key, such
// a store is in the order of a streamable CAR file.
type Pos struct {
	// After and Exclusive bound the smallest key of the node's subtree. If Exclusive, it is the first key of the tree that is
	// greater than After; for a top node After is empty. Otherwise it is After itself.
	After     string
	Exclusive bool
	// Layer is the node's layer, or [Top] for the top node, which is the highest of all nodes at the smallest key.
	Layer int
}

// MapSource is a [Source] in memory.
type MapSource map[cid.CID][]byte

// Load returns the block with the given CID.
func (m MapSource) Load(c cid.CID, _ Pos) ([]byte, error) {
	if b, ok := m[c]; ok {
		return b, nil
	}
	return nil, ErrNotFound
}

// SourceFunc is a function as a [Source].
type SourceFunc func(c cid.CID, at Pos) ([]byte, error)

// Load calls f.
func (f SourceFunc) Load(c cid.CID, at Pos) ([]byte, error) { return f(c, at) }

// Options says what a tree may take for granted about its source, which is nothing by default.
type Options struct {
	// HashChecked: the source only returns blocks that it has checked against their CIDs.
	HashChecked bool
	// ShapeChecked: the nodes were made by this package or passed its checks before, as in one's own store. Encoding and
	// order within a node are still checked, layers and bounds are not.
	ShapeChecked bool
	// CheckKey is an additional check on each key that is loaded, such as the syntax of record paths.
	CheckKey func(key []byte) error
}

// Tree is a Merkle search tree, wholly or partly in memory. See the package documentation for its use.
type Tree struct {
	root *node
	src  Source
	opts Options

	// removed holds the nodes of the last flushed tree that edits have replaced. They are never changed afterwards, so that
	// their smallest keys can be found when the change is flushed.
	removed []*node

	scratch      Node
	buf          []byte
	lobuf, hibuf []byte
}

// node is a node in memory. A saved node is part of the last flushed (or opened) tree; it never changes, apart from being
// loaded and unloaded, and may be shared by clones. All other nodes belong to one tree alone, and all nodes above them are
// unsaved too.
type node struct {
	cid    cid.CID // undefined if the node has changed since it was hashed
	layer  int16   // Top if unknown
	saved  bool
	loaded bool
	first  string // smallest key of the subtree, empty if not known
	// lo is the key of the tree just before the subtree, empty if there is none: where to look for the node in a store in
	// tree order, if first isn't known. It is kept right on the nodes beside an inserted or deleted key, because the bounds
	// on the way down are those of the edited tree, not of the stored one.
	lo   string
	left *node
	ents []entry
}

type entry struct {
	key   string
	val   cid.CID
	right *node
}

// Entry is a key and the CID of its record.
type Entry struct {
	Key   string
	Value cid.CID
}

// New returns an empty tree.
func New() *Tree { return &Tree{root: &node{loaded: true}} }

// Open returns the tree with the given root. Nothing is loaded before it is needed; every node is checked when it is.
func Open(root cid.CID, src Source) *Tree { return OpenOptions(root, src, Options{}) }

// OpenOptions is [Open] with options.
func OpenOptions(root cid.CID, src Source, o Options) *Tree {
	return &Tree{root: &node{cid: root, layer: Top, saved: true}, src: src, opts: o}
}

// SetSource gives a tree another source, such as the store that now holds what a flush of a new tree added.
func (t *Tree) SetSource(src Source, o Options) { t.src, t.opts = src, o }

// load makes sure that n is in memory. Lo and hi are the keys of the tree around n's subtree, empty at the edges.
func (t *Tree) load(n *node, lo, hi string) error {
	if n.loaded {
		return nil
	}
	return t.loadSlow(n, lo, hi)
}

func (t *Tree) loadSlow(n *node, lo, hi string) error {
	if t.src == nil {
		return &MissingError{CID: n.cid, Layer: int(n.layer)}
	}
	at := Pos{After: n.lo, Exclusive: true, Layer: int(n.layer)}
	if n.first != "" {
		at.After, at.Exclusive = n.first, false
	}
	var data []byte
	var first string
	var err error
	if fs, ok := t.src.(FirstSource); ok {
		data, first, err = fs.LoadFirst(n.cid, at)
	} else {
		data, err = t.src.Load(n.cid, at)
	}
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return &MissingError{CID: n.cid, Layer: int(n.layer)}
		}
		return fmt.Errorf("loading tree node %s: %w", n.cid, err)
	}
	if n.cid.Codec() != cid.DagCBOR {
		return &Error{Rule: RuleLink, CID: n.cid, Detail: fmt.Sprintf("link to a node has codec 0x%02x", byte(n.cid.Codec()))}
	}
	if !t.opts.HashChecked && !n.cid.Verify(data) {
		return &Error{Rule: RuleHash, CID: n.cid, Detail: "the block doesn't hash to its CID"}
	}
	if n.first == "" {
		n.first = first
	}
	if err := t.fill(n, data, lo, hi); err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			e.CID = n.cid
		}
		return err
	}
	return nil
}

// fill decodes and checks a node, and makes stubs of its children.
func (t *Tree) fill(n *node, data []byte, lo, hi string) error {
	s := &t.scratch
	if err := s.Decode(data); err != nil {
		return err
	}
	layer := int(n.layer)
	if n == t.root {
		layer = Top // known if the node was unloaded, but a top node has rules of its own
	}
	switch {
	case !t.opts.ShapeChecked:
		t.lobuf, t.hibuf = append(t.lobuf[:0], lo...), append(t.hibuf[:0], hi...)
		l, err := s.Check(layer, t.lobuf, t.hibuf, t.opts.CheckKey)
		if err != nil {
			return err
		}
		layer = l
	case layer == Top && len(s.Entries) > 0:
		layer = Layer(s.Entries[0].Key)
	case layer == Top:
		layer = 0
	}
	children := 0
	if s.Left.Defined() {
		children++
	}
	for i := range s.Entries {
		if s.Entries[i].Right.Defined() {
			children++
		}
	}
	// Even in a trusted store a walk has to end.
	if layer > MaxLayer || layer == 0 && children > 0 {
		return &Error{Rule: RuleDepth, Detail: fmt.Sprintf("node with %d children on layer %d", children, layer)}
	}
	stubs := make([]node, children)
	stub := func(c *cid.CID, lo string) *node {
		if !c.Defined() {
			return nil
		}
		k := &stubs[0]
		stubs = stubs[1:]
		k.cid, k.layer, k.saved, k.lo = *c, int16(layer-1), true, lo
		return k
	}
	if n.left = stub(&s.Left, n.lo); n.left != nil {
		n.left.first = n.first
	}
	n.ents = make([]entry, len(s.Entries))
	keys := string(s.keys) // one allocation for all keys of the node
	for i := range s.Entries {
		e := &s.Entries[i]
		key := keys[:len(e.Key)]
		n.ents[i] = entry{key: key, val: e.Value, right: stub(&e.Right, key)}
		keys = keys[len(e.Key):]
	}
	if n.left == nil && len(n.ents) > 0 {
		n.first = n.ents[0].key
	}
	n.layer = int16(layer)
	n.loaded = true
	return nil
}

// find returns the index of the first entry whose key is not less than key, and whether it is equal.
func (n *node) find(key string) (int, bool) {
	hi := len(n.ents)
	if hi == 0 || n.ents[hi-1].key < key { // appending is the common case
		return hi, false
	}
	lo := 0
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		switch strings.Compare(n.ents[m].key, key) {
		case 0:
			return m, true
		case -1:
			lo = m + 1
		default:
			hi = m
		}
	}
	return lo, false
}

// slot returns the place of the child before entry i, or after the last one.
func (n *node) slot(i int) **node {
	if i == 0 {
		return &n.left
	}
	return &n.ents[i-1].right
}

// bounds narrows the bounds of n's subtree to those of its child i.
func (n *node) bounds(i int, lo, hi string) (string, string) {
	if i > 0 {
		lo = n.ents[i-1].key
	}
	if i < len(n.ents) {
		hi = n.ents[i].key
	}
	return lo, hi
}

func (n *node) empty() bool { return len(n.ents) == 0 && n.left == nil }

// Get returns the value of a key, and whether the tree has it.
func (t *Tree) Get(key string) (value cid.CID, found bool, err error) {
	n, lo, hi := t.root, "", ""
	for n != nil {
		if err := t.load(n, lo, hi); err != nil {
			return cid.CID{}, false, err
		}
		i, eq := n.find(key)
		if eq {
			return n.ents[i].val, true, nil
		}
		lo, hi = n.bounds(i, lo, hi)
		n = *n.slot(i)
	}
	return cid.CID{}, false, nil
}

// Empty reports whether the tree has no keys.
func (t *Tree) Empty() (bool, error) {
	if err := t.load(t.root, "", ""); err != nil {
		return false, err
	}
	return t.root.empty(), nil
}

// Layer returns the layer of the top node.
func (t *Tree) Layer() (int, error) {
	if err := t.load(t.root, "", ""); err != nil {
		return 0, err
	}
	return int(t.root.layer), nil
}

// Walk yields all entries in the order of their keys. An error ends it.
func (t *Tree) Walk() iter.Seq2[Entry, error] { return t.WalkFrom("") }

// WalkFrom yields the entries from the given key on, which needn't be in the tree. The tree must not change meanwhile.
func (t *Tree) WalkFrom(key string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := t.load(t.root, "", ""); err != nil {
			yield(Entry{}, err)
			return
		}
		t.walk(t.root, "", "", key, yield)
	}
}

func (t *Tree) walk(n *node, lo, hi, from string, yield func(Entry, error) bool) bool {
	start, eq := 0, false
	if from != "" {
		start, eq = n.find(from)
	}
	for i := start; i <= len(n.ents); i++ {
		// The subtree before an entry that is itself the start holds smaller keys only.
		if c := *n.slot(i); c != nil && !(eq && i == start) {
			clo, chi := n.bounds(i, lo, hi)
			if err := t.load(c, clo, chi); err != nil {
				yield(Entry{}, err)
				return false
			}
			f := from
			if i > start {
				f = ""
			}
			if !t.walk(c, clo, chi, f, yield) {
				return false
			}
		}
		if i < len(n.ents) && !yield(Entry{n.ents[i].key, n.ents[i].val}, nil) {
			return false
		}
	}
	return true
}
