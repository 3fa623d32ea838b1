package mst

import (
	"bytes"
	"strings"

	"github.com/barograph/baro/cid"
)

// Partial is the part of a tree that comes with a commit message: the nodes that lead from the root to one another, in the
// encoding in which they came. It answers what a [Tree] over the same nodes would, in a fraction of the time, as nothing is
// copied but the keys: links are found in the blocks, and a node of which only a link changes is hashed from there on. What it
// doesn't say is what is wrong with nodes or operations that it refuses: that is for a Tree to tell.
//
// The zero value is ready. It keeps its memory for the next message, and belongs to one goroutine.
type Partial struct {
	src   PartialSource
	some  *[4]uint64 // of src
	root  cid.CID
	nodes []partNode // parents before their children
	entryList

	undo undo
}

// PartialSource gives a [Partial] its nodes.
type PartialSource interface {
	// Node returns a block that was checked against its CID, and a number for it; nil if it isn't there. Again says that it was
	// asked for before: in a tree that is whole no node is in two places, and one without entries that was would let the work
	// grow beyond the size of the message.
	Node(c *cid.CID) (block []byte, id int, again bool)
	// Some has a bit for the last byte of each block's CID, and perhaps for others. It spares most questions for nodes: the
	// greater part of the links in a message lead to where nothing has changed.
	Some() *[4]uint64
	// Rehash returns the SHA-256 of a block of which the first same bytes are those of the block with the number id.
	Rehash(id int, block []byte, same int) [32]byte
}

// partNode is a node. Its entries are ents[first:first+count].
type partNode struct {
	flatNode
	id     int
	child  int32 // the left subtree's node, -1 if it isn't there
	parent int32
	lo, hi int32 // the entries between which its keys have to be, -1 for none
	layer  int32
}

// Load takes in the root and all nodes below it that the source has, and checks them by the rules of a [Tree]: encoding,
// order, bounds, layers, and that of check, which may be nil. Check is told how many bytes a key has in common with the last
// one it was given and found good. Load reports whether the root is there and nothing is wrong.
//
// No key is hashed before all nodes are there, as many of them together take much less time than one by one.
func (p *Partial) Load(root cid.CID, src PartialSource, check func(key []byte, same int) error) bool {
	p.src, p.some, p.root = src, src.Some(), root
	p.nodes = p.nodes[:0]
	p.entryList.reset()
	if p.load(check) {
		return true
	}
	clear(p.nodes)
	p.nodes = p.nodes[:0]
	return false
}

func (p *Partial) load(check func(key []byte, same int) error) bool {
	block, id, again := p.src.Node(&p.root)
	if block == nil || again || p.root.Codec() != cid.DagCBOR {
		return false
	}
	p.nodes = append(p.nodes, partNode{flatNode: flatNode{block: block}, id: id, parent: -1, lo: -1, hi: -1})
	for i := 0; i < len(p.nodes); i++ {
		if !p.decode(int32(i), check) || !p.children(int32(i)) {
			return false
		}
	}
	return p.layers()
}

// Reset lets go of the source and the blocks. It keeps the memory that most messages need.
func (p *Partial) Reset() {
	const most = 1 << 12 // nodes, entries and operations
	if cap(p.ents) > most || cap(p.nodes) > most || cap(p.undo.ops) > most || cap(p.long) > 64*most {
		*p = Partial{}
		return
	}
	clear(p.nodes)
	p.undo.reset()
	p.src, p.some, p.nodes = nil, nil, p.nodes[:0]
}

// decode reads node i, and checks all that can be told from it and its bounds, but the layers.
func (p *Partial) decode(i int32, check func(key []byte, same int) error) bool {
	n := &p.nodes[i]
	if !p.entryList.decode(&n.flatNode, check) {
		return false
	}
	if n.count == 0 {
		return true
	}
	return (n.lo < 0 || bytes.Compare(p.key(&p.ents[n.lo]), p.key(&p.ents[n.first])) < 0) &&
		(n.hi < 0 || bytes.Compare(p.key(&p.ents[n.first+n.count-1]), p.key(&p.ents[n.hi])) < 0)
}

// children finds the children of node i.
func (p *Partial) children(i int32) bool {
	n := p.nodes[i]
	ents := p.ents[n.first : n.first+n.count]
	p.nodes[i].child = -1
	for s := range len(ents) + 1 {
		at, child := n.left, &p.nodes[i].child
		if s > 0 {
			at, child = ents[s-1].right, &ents[s-1].child
			*child = -1
		}
		if at == 0 {
			continue
		}
		if last := n.block[at+cid.Size-1]; p.some[last>>6]>>(last&63)&1 == 0 {
			continue
		}
		block, id, again := p.src.Node(n.link(at))
		if again {
			return false
		}
		if block == nil {
			continue
		}
		*child = int32(len(p.nodes))
		below := partNode{flatNode: flatNode{block: block}, id: id, parent: i, lo: n.lo, hi: n.hi}
		if s > 0 {
			below.lo = n.first + int32(s-1)
		}
		if s < len(ents) {
			below.hi = n.first + int32(s)
		}
		p.nodes = append(p.nodes, below)
	}
	return true
}

// layers finds the layer of each node, and checks that all its keys belong there and that it is where its parent wants it.
func (p *Partial) layers() bool {
	p.hash()
	for i := range p.nodes {
		n := &p.nodes[i]
		want := int32(Top)
		if n.parent >= 0 {
			want = p.nodes[n.parent].layer - 1 // 0 at least: a parent on layer 0 has been refused for its links
		}
		n.layer = want
		links := n.left
		ents := p.ents[n.first : n.first+n.count]
		for k := range ents {
			e := &ents[k]
			links |= e.right
			layer := p.layer(e)
			if k == 0 && want == Top {
				n.layer = layer
			}
			if layer != n.layer {
				return false
			}
		}
		switch {
		case len(ents) == 0 && want == Top:
			n.layer = 0 // the tree is empty, or else its top is
		case len(ents) == 0 && n.left == 0:
			return false
		}
		if n.layer > MaxLayer || n.layer == 0 && links != 0 {
			return false
		}
	}
	return true
}

// find returns the slot of a key among the children of a node: the index of the first entry that isn't less, and whether it
// is equal.
func (p *Partial) find(n *partNode, key []byte) (int, bool) {
	lo, hi := 0, int(n.count)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		switch bytes.Compare(p.key(&p.ents[n.first+int32(m)]), key) {
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

// slot returns the link of a child, nil if there is none, and its node, -1 if that isn't there.
func (p *Partial) slot(n *partNode, i int) (*cid.CID, int32) {
	if i == 0 {
		return n.link(n.left), n.child
	}
	e := &p.ents[n.first+int32(i-1)]
	return n.link(e.right), e.child
}

// Get returns the value of a key, undefined if the tree doesn't have it. Known is false if a node is missing on the way, and
// always if nothing is loaded.
func (p *Partial) Get(key string) (value cid.CID, known bool) {
	if len(p.nodes) == 0 {
		return cid.CID{}, false
	}
	p.undo.text = append(p.undo.text[:0], key...)
	for node := int32(0); ; {
		n := &p.nodes[node]
		i, eq := p.find(n, p.undo.text)
		if eq {
			return *n.link(p.ents[n.first+int32(i)].value), true
		}
		c, child := p.slot(n, i)
		if c == nil || child < 0 {
			return cid.CID{}, c == nil
		}
		node = child
	}
}

// compareOps orders operations by their keys.
func compareOps(a, b Op) int { return strings.Compare(a.Key, b.Key) }

// LoadPresent loads and checks every node of a partial tree: those that lead from the root to one another and that the
// source has. Has says which these are, without the cost of an error; the others are left for the operation that needs
// them. It returns the number of nodes loaded. What it has seen isn't loaded again, so that an edit of the tree
// meets no node that wasn't checked in the place where it came.
//
// Nothing here keeps an untrusted source from linking many times to one node without entries. A source that minds returns
// an error from the second Load on: in a tree that is whole no node is in two places.
func (t *Tree) LoadPresent(has func(c *cid.CID) bool) (nodes int, err error) {
	return t.loadPresent(t.root, "", "", has)
}

// loadPresent goes at most MaxLayer calls deep: each child is checked to lie below its parent.
func (t *Tree) loadPresent(n *node, lo, hi string, has func(c *cid.CID) bool) (nodes int, err error) {
	if !n.loaded {
		if !has(&n.cid) {
			return 0, nil
		}
		if err := t.loadSlow(n, lo, hi); err != nil {
			return 0, err
		}
	}
	nodes = 1
	for i := range len(n.ents) + 1 {
		c := *n.slot(i)
		if c == nil {
			continue
		}
		clo, chi := n.bounds(i, lo, hi)
		k, err := t.loadPresent(c, clo, chi, has)
		if err != nil {
			return 0, err
		}
		nodes += k
	}
	return nodes, nil
}
