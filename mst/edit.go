package mst

import (
	"fmt"
	"slices"

	"github.com/barograph/baro/cid"
)

// Edits work in two passes. The first loads every node that the second will look at, so that the second can't fail: an
// edit happens as a whole or not at all.

// Put sets the value of a key. It returns the previous value, and whether there was one.
func (t *Tree) Put(key string, value cid.CID) (prev cid.CID, had bool, err error) {
	if key == "" || len(key) > MaxKey {
		return prev, false, &OpError{Key: key, Detail: fmt.Sprintf("a key has 1 to %d bytes", MaxKey)}
	}
	if !value.Valid() {
		return prev, false, &OpError{Key: key, Detail: "the value is no CID"}
	}
	// What lies on the way to the key is all that can change: nodes above the key's layer lead there, those below are split.
	n, lo, hi := t.root, "", ""
	for n != nil {
		if err := t.load(n, lo, hi); err != nil {
			return prev, false, err
		}
		i, eq := n.find(key)
		if eq {
			prev = n.ents[i].val
			if prev != value {
				t.replace(key, value)
			}
			return prev, true, nil
		}
		lo, hi = n.bounds(i, lo, hi)
		n = *n.slot(i)
	}
	t.insert(key, value, Layer(key))
	return prev, false, nil
}

// replace sets the value of a key that the tree has.
func (t *Tree) replace(key string, value cid.CID) {
	for p := &t.root; ; {
		n := t.edit(p)
		i, eq := n.find(key)
		if eq {
			n.ents[i].val = value
			return
		}
		p = n.slot(i)
	}
}

func (t *Tree) insert(key string, value cid.CID, layer int) {
	leaf := func() *node {
		return &node{layer: int16(layer), loaded: true, ents: []entry{{key: key, val: value}}}
	}
	switch {
	case t.root.empty():
		t.drop(t.root)
		t.root = leaf()
		return
	case layer > int(t.root.layer):
		l, r := t.split(t.root, key)
		r.setLo(key)
		t.root = leaf()
		t.root.left = t.raise(l, layer-1)
		t.root.ents[0].right = t.raise(r, layer-1)
		return
	}
	for p := &t.root; ; {
		n := t.edit(p)
		i, _ := n.find(key)
		p = n.slot(i)
		if int(n.layer) == layer {
			l, r := t.split(*p, key)
			r.setLo(key)
			*p = l
			n.ents = slices.Insert(n.ents, i, entry{key: key, val: value, right: r})
			return
		}
		if *p == nil {
			*p = t.raise(leaf(), int(n.layer)-1)
			return
		}
	}
}

// raise puts nodes without entries above n until it reaches the given layer: links never skip one.
func (t *Tree) raise(n *node, layer int) *node {
	for n != nil && int(n.layer) < layer {
		n = &node{layer: n.layer + 1, loaded: true, left: n}
	}
	return n
}

// edit makes the node in a slot ready for a change.
func (t *Tree) edit(p **node) *node {
	n := *p
	if !n.saved {
		n.cid = cid.CID{}
		n.first = ""
		return n
	}
	t.drop(n)
	c := &node{layer: n.layer, loaded: true, left: n.left, ents: append(make([]entry, 0, len(n.ents)+1), n.ents...)}
	*p = c
	return c
}

// drop notes that a node is no longer part of the tree.
func (t *Tree) drop(n *node) {
	if n.saved {
		t.removed = append(t.removed, n)
	}
}

// split divides a subtree into the keys before and after key, which it doesn't have. Nodes that fall wholly on one side are
// left alone.
func (t *Tree) split(n *node, key string) (l, r *node) {
	if n == nil {
		return nil, nil
	}
	i, _ := n.find(key)
	cl, cr := t.split(*n.slot(i), key)
	switch {
	case i == 0 && cl == nil:
		return nil, n
	case i == len(n.ents) && cr == nil:
		return n, nil
	}
	t.drop(n)
	if i > 0 || cl != nil {
		l = &node{layer: n.layer, loaded: true, left: n.left, ents: append(make([]entry, 0, i), n.ents[:i]...)}
		*l.slot(i) = cl
	}
	if i < len(n.ents) || cr != nil {
		r = &node{layer: n.layer, loaded: true, left: cr, ents: append(make([]entry, 0, len(n.ents)-i), n.ents[i:]...)}
	}
	return l, r
}

// Delete removes a key. It returns the value that the key had, and whether the tree had it.
func (t *Tree) Delete(key string) (prev cid.CID, had bool, err error) {
	n, lo, hi := t.root, "", ""
	i, eq := 0, false
	for n != nil {
		if err := t.load(n, lo, hi); err != nil {
			return prev, false, err
		}
		if i, eq = n.find(key); eq {
			break
		}
		lo, hi = n.bounds(i, lo, hi)
		n = *n.slot(i)
	}
	if n == nil {
		return prev, false, nil
	}
	prev = n.ents[i].val
	if err := t.loadSeam(n, i, lo, hi); err != nil {
		return prev, true, err
	}
	t.remove(key)
	return prev, true, nil
}

// loadSeam loads the nodes to the left and right of entry i of n that come together when it goes, and, if n is the top
// node and would be left without entries, those that make the new top.
func (t *Tree) loadSeam(n *node, i int, lo, hi string) error {
	key := n.ents[i].key
	top := n == t.root && len(n.ents) == 1
	if i > 0 {
		lo = n.ents[i-1].key
	}
	if i+1 < len(n.ents) {
		hi = n.ents[i+1].key
	}
	l, r := *n.slot(i), n.ents[i].right
	for l != nil && r != nil {
		if err := t.load(l, lo, key); err != nil {
			return err
		}
		if err := t.load(r, key, hi); err != nil {
			return err
		}
		if len(l.ents) > 0 || len(r.ents) > 0 {
			top = false // a node to be the new top
		}
		if k := len(l.ents); k > 0 {
			lo = l.ents[k-1].key
		}
		if len(r.ents) > 0 {
			hi = r.ents[0].key
		}
		l, r = *l.slot(len(l.ents)), r.left
	}
	if !top {
		return nil
	}
	for c := l; c != nil; c = c.left {
		if err := t.load(c, lo, key); err != nil {
			return err
		}
		if len(c.ents) > 0 {
			return nil
		}
	}
	for c := r; c != nil; c = c.left {
		if err := t.load(c, key, hi); err != nil {
			return err
		}
		if len(c.ents) > 0 {
			return nil
		}
	}
	return nil
}

// setLo notes the key just before a subtree for all nodes that begin with it.
func (n *node) setLo(key string) {
	for ; n != nil; n = n.left {
		n.lo = key
	}
}

// remove takes away a key that the tree has.
func (t *Tree) remove(key string) {
	var path [MaxLayer + 2]**node
	depth := 0
	for p := &t.root; ; {
		n := t.edit(p)
		path[depth] = p
		depth++
		i, eq := n.find(key)
		if eq {
			n.ents[i].right.setLo(key)
			c := t.merge(*n.slot(i), n.ents[i].right)
			n.ents = slices.Delete(n.ents, i, i+1)
			*n.slot(i) = c
			break
		}
		p = n.slot(i)
	}
	for depth > 0 && (*path[depth-1]).empty() {
		depth--
		*path[depth] = nil
	}
	if t.root == nil {
		t.root = &node{loaded: true}
		return
	}
	for len(t.root.ents) == 0 && t.root.left != nil {
		t.drop(t.root)
		t.root = t.root.left
	}
}

// merge joins two neighbouring subtrees of the same layer.
func (t *Tree) merge(l, r *node) *node {
	if l == nil {
		return r
	}
	if r == nil {
		return l
	}
	k := len(l.ents)
	c := t.merge(*l.slot(k), r.left)
	t.drop(l)
	t.drop(r)
	n := &node{layer: l.layer, loaded: true, left: l.left, ents: append(append(make([]entry, 0, k+len(r.ents)), l.ents...), r.ents...)}
	*n.slot(k) = c
	return n
}
