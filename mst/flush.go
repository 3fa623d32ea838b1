package mst

import (
	"slices"
	"strings"

	"github.com/barograph/baro/cid"
)

// NodeBlock is a node with its block and its position.
type NodeBlock struct {
	CID   cid.CID
	Bytes []byte
	First string // smallest key of the subtree, empty in an empty tree
	Layer int
}

// NodeRef is a node's CID and position.
type NodeRef struct {
	CID   cid.CID
	First string
	Layer int
}

// Change is what edits since the last flush have done to the set of nodes.
//
// Both lists are exact: a node is in one of them if and only if it is in one of the two trees only. They are in the order
// of a streamable CAR file. A new node can have the position of a removed one: a store that is keyed by position applies
// Removed first.
type Change struct {
	Root    cid.CID
	Added   []NodeBlock
	Removed []NodeRef
}

// Root returns the CID of the top node.
func (t *Tree) Root() (cid.CID, error) {
	t.hash(t.root)
	return t.root.cid, nil
}

// hash computes the CIDs of n and all nodes below that have changed.
func (t *Tree) hash(n *node) {
	if n.cid.Defined() {
		return
	}
	if n.left != nil {
		t.hash(n.left)
	}
	for i := range n.ents {
		if c := n.ents[i].right; c != nil {
			t.hash(c)
		}
	}
	if t.buf == nil {
		t.buf = make([]byte, 0, 1<<10)
	}
	t.buf = n.append(t.buf[:0])
	n.cid = cid.Sum(cid.DagCBOR, t.buf)
}

// append encodes a loaded node whose children have CIDs.
func (n *node) append(b []byte) []byte {
	var none cid.CID
	b = append(b, nodeHead...)
	b = appendHead(b, majorArray, len(n.ents))
	prev := ""
	for i := range n.ents {
		e := &n.ents[i]
		p := commonPrefix(prev, e.key)
		right := &none
		if e.right != nil {
			right = &e.right.cid
		}
		b = appendEntry(b, p, e.key[p:], right, &e.val)
		prev = e.key
	}
	b = append(b, nodeLeft...)
	if n.left != nil {
		return appendSubtree(b, &n.left.cid)
	}
	return appendSubtree(b, &none)
}

// sizeBound returns a number of bytes that the encoding of n doesn't exceed.
func (n *node) sizeBound() int {
	size := 64
	for i := range n.ents {
		size += len(n.ents[i].key) + 104 // two links, field names and heads
	}
	return size
}

// unsavedBound is the sum of sizeBound and the number of the unsaved nodes from n on.
func (n *node) unsavedBound() (size, nodes int) {
	if n == nil || n.saved {
		return 0, 0
	}
	size, nodes = n.sizeBound(), 1
	for i := range len(n.ents) + 1 {
		s, k := (*n.slot(i)).unsavedBound()
		size, nodes = size+s, nodes+k
	}
	return size, nodes
}

// firstOf returns the smallest key below n, loading the left edge of the subtree if nothing nearer tells it. Lo and hi are
// the bounds of the subtree.
func (t *Tree) firstOf(n *node, lo, hi string) (string, error) {
	if n.first != "" {
		return n.first, nil
	}
	if err := t.load(n, lo, hi); err != nil {
		return "", err
	}
	if n.first != "" { // the source knew
		return n.first, nil
	}
	if n.left == nil {
		if len(n.ents) > 0 {
			n.first = n.ents[0].key
		}
		return n.first, nil
	}
	if len(n.ents) > 0 {
		hi = n.ents[0].key
	}
	first, err := t.firstOf(n.left, lo, hi)
	if err == nil {
		n.first = first
	}
	return first, err
}

// Flush encodes what has changed since the last flush, or since the tree was made or opened, and takes the present tree as
// the base of the next change. The tree stays usable and in memory; see [Tree.Trim]. On an error nothing has happened.
//
// Nodes that were there before can be loaded from the source whether or not the change has been stored yet; but it has to
// be before [Tree.Trim] forgets any.
func (t *Tree) Flush() (Change, error) {
	var ch Change
	size, nodes := t.root.unsavedBound()
	fresh := make([]*node, 0, nodes)
	buf := make([]byte, 0, size)
	ch.Added = make([]NodeBlock, 0, nodes)
	var encode func(n *node, lo, hi string) error
	encode = func(n *node, lo, hi string) error {
		if n.saved {
			return nil
		}
		at := len(ch.Added)
		ch.Added = append(ch.Added, NodeBlock{})
		fresh = append(fresh, n)
		for i := range len(n.ents) + 1 {
			if c := *n.slot(i); c != nil && !c.saved {
				clo, chi := n.bounds(i, lo, hi)
				if err := encode(c, clo, chi); err != nil {
					return err
				}
			}
		}
		first, err := t.firstOf(n, lo, hi)
		if err != nil {
			return err
		}
		start := len(buf)
		buf = n.append(buf)
		b := buf[start:len(buf):len(buf)]
		if !n.cid.Defined() {
			n.cid = cid.Sum(cid.DagCBOR, b)
		}
		ch.Added[at] = NodeBlock{CID: n.cid, Bytes: b, First: first, Layer: int(n.layer)}
		return nil
	}
	if err := encode(t.root, "", ""); err != nil {
		return Change{}, err
	}
	ch.Root = t.root.cid

	// A node that was replaced and came back, by edits that undo each other, is in neither list.
	if len(t.removed) > 0 {
		var added, back cidSet
		for i := range ch.Added {
			added.add(&ch.Added[i].CID)
		}
		ch.Removed = make([]NodeRef, 0, len(t.removed))
		for _, n := range t.removed {
			if added.has(&n.cid) {
				back.add(&n.cid)
				continue
			}
			first, err := t.firstOf(n, "", "")
			if err != nil {
				return Change{}, err
			}
			ch.Removed = append(ch.Removed, NodeRef{CID: n.cid, First: first, Layer: int(n.layer)})
		}
		if back.n > 0 {
			ch.Added = slices.DeleteFunc(ch.Added, func(b NodeBlock) bool { return back.has(&b.CID) })
		}
		slices.SortFunc(ch.Removed, func(a, b NodeRef) int {
			if c := strings.Compare(a.First, b.First); c != 0 {
				return c
			}
			return b.Layer - a.Layer
		})
	}
	for _, n := range fresh {
		n.saved = true
	}
	t.removed = nil
	return ch, nil
}

// Clone returns an independent copy of the tree in time proportional to its unflushed changes. The two share what is saved,
// so that both belong to the same goroutine.
func (t *Tree) Clone() *Tree {
	return &Tree{root: cloneUnsaved(t.root), src: t.src, opts: t.opts, removed: slices.Clone(t.removed)}
}

func cloneUnsaved(n *node) *node {
	if n == nil || n.saved {
		return n
	}
	c := *n
	c.left = cloneUnsaved(n.left)
	c.ents = slices.Clone(n.ents)
	for i := range c.ents {
		c.ents[i].right = cloneUnsaved(c.ents[i].right)
	}
	return &c
}

// Trim forgets saved nodes, lowest layers first, until no more than about maxNodes are in memory; the source gives them
// back when they are needed. It returns how many are left. A tree without a source keeps everything.
func (t *Tree) Trim(maxNodes int) int {
	var perLayer [MaxLayer + 2]int
	total := 0
	var count func(n *node)
	count = func(n *node) {
		if n == nil || !n.loaded {
			return
		}
		total++
		perLayer[min(int(n.layer), MaxLayer)]++
		count(n.left)
		for i := range n.ents {
			count(n.ents[i].right)
		}
	}
	count(t.root)
	if total <= maxNodes || t.src == nil {
		return total
	}
	cut := -1
	for left := total; left > maxNodes && cut < MaxLayer; {
		cut++
		left -= perLayer[cut]
	}
	dropped := 0
	var trim func(n *node)
	trim = func(n *node) {
		if n == nil || !n.loaded {
			return
		}
		if n.saved && int(n.layer) <= cut {
			dropped += n.unload()
			return
		}
		trim(n.left)
		for i := range n.ents {
			trim(n.ents[i].right)
		}
	}
	trim(t.root)
	return total - dropped
}

// unload turns a saved node into a stub again, and returns how many nodes went.
func (n *node) unload() int {
	if n == nil || !n.loaded {
		return 0
	}
	k := 1 + n.left.unload()
	for i := range n.ents {
		k += n.ents[i].right.unload()
	}
	n.loaded, n.left, n.ents = false, nil, nil
	return k
}
