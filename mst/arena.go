package mst

import (
	"strings"

	"github.com/barograph/baro/cid"
)

// Arena is memory for trees that are opened for one short task after the other, such as to verify commit messages: from
// the second task on they hardly allocate. The zero value is ready. It belongs to one goroutine.
type Arena struct {
	tree  Tree
	slab  []node
	ents  []entry
	chars strings.Builder // only ever appended to, so that strings cut from it stay what they are
}

const (
	arenaChars = 16 << 10
	arenaMax   = 1 << 12 // nodes and entries to keep for the next tree
)

// Open is [OpenOptions] for a tree that lies in the arena and is gone with the next Open. It can't be flushed.
func (a *Arena) Open(root cid.CID, src Source, o Options) *Tree {
	if cap(a.slab) > arenaMax {
		a.slab = nil
	}
	if cap(a.ents) > arenaMax {
		a.ents = nil
	}
	a.slab, a.ents = a.slab[:0], a.ents[:0]
	t := &a.tree
	*t = Tree{src: src, opts: o, arena: a, scratch: t.scratch, buf: t.buf, lobuf: t.lobuf, hibuf: t.hibuf}
	t.root = a.node(node{cid: root, layer: Top, saved: true})
	return t
}

// Close lets go of the source. It may be called when the arena is put aside.
func (a *Arena) Close() { a.tree.src, a.tree.root = nil, nil }

// The methods below serve trees with and without an arena.

func (a *Arena) node(n node) *node {
	var p *node
	if a == nil {
		p = new(node)
	} else {
		p = &a.nodes(1)[0]
	}
	*p = n
	return p
}

// nodes returns n zero nodes.
func (a *Arena) nodes(n int) []node {
	if a == nil {
		return make([]node, n)
	}
	if cap(a.slab)-len(a.slab) < n {
		a.slab = make([]node, 0, max(64, 2*cap(a.slab), n))
	}
	k := len(a.slab)
	a.slab = a.slab[:k+n]
	clear(a.slab[k:])
	return a.slab[k:]
}

// entries returns an empty list with room for n entries.
func (a *Arena) entries(n int) []entry {
	if a == nil {
		return make([]entry, 0, n)
	}
	if cap(a.ents)-len(a.ents) < n {
		a.ents = make([]entry, 0, max(128, 2*cap(a.ents), n))
	}
	k := len(a.ents)
	a.ents = a.ents[:k+n]
	return a.ents[k : k : k+n]
}

func (a *Arena) text(b []byte) string {
	if a == nil {
		return string(b)
	}
	if a.chars.Cap()-a.chars.Len() < len(b) {
		a.chars = strings.Builder{}
		a.chars.Grow(max(arenaChars, len(b)))
	}
	k := a.chars.Len()
	a.chars.Write(b)
	return a.chars.String()[k:]
}
