package mst

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/barograph/baro/cid"
)

// Walker verifies a whole tree whose blocks come from elsewhere, with no memory but a stack. It says which block it wants
// next, in the order of a streamable CAR file: each node before what it links to, records between the subtrees.
//
//	w := mst.NewWalker(root, nil)
//	for {
//		step := w.Next()
//		switch step.Kind {
//		case mst.StepNode:
//			err = w.Node(block(step.CID)) // checked for everything but its hash
//		case mst.StepRecord:
//			use(step.Key, step.CID)
//		case mst.StepDone:
//			return
//		}
//	}
type Walker struct {
	check  func(key []byte, same int) error
	frames []walkFrame
	depth  int
	root   cid.CID
	wanted bool // the block of the present item, a node, has not come yet
	stats  WalkStats
	ahead  ahead
}

// WalkStats counts what a [Walker] has seen.
type WalkStats struct {
	Nodes, Records int
	Layer          int // of the top node
	MaxEntries     int // in one node
}

// walkFrame is a node on the way from the root to the present place, in memory of its own: neither the caller's block nor the
// nodes ahead stay where they are.
type walkFrame struct {
	entryList
	node   flatNode
	layer  int
	pos    int // even: the child before entry pos/2; odd: entry pos/2
	lo, hi []byte
}

// StepKind says what a [Step] is.
type StepKind uint8

// The kinds of steps.
const (
	StepDone   StepKind = iota // the whole tree has been seen
	StepNode                   // the walker wants the block of a node
	StepRecord                 // an entry
)

// Step is what comes next on a walk.
type Step struct {
	Kind StepKind
	CID  cid.CID // of the node or the record
	Key  []byte  // of the record, valid until the next call
}

// NewWalker returns a walker over the tree with the given root. CheckKey, which may be nil, is asked about each key.
func NewWalker(root cid.CID, checkKey func(key []byte) error) *Walker {
	w := &Walker{frames: make([]walkFrame, 0, 12)}
	if checkKey == nil {
		w.Reset(root, nil)
	} else {
		w.Reset(root, func(key []byte, _ int) error { return checkKey(key) })
	}
	return w
}

// Reset makes a walker what NewWalker would return, but for check, which is also told how many bytes a key has in common with
// the last one it was given, or 0. It keeps the memory that most trees need.
func (w *Walker) Reset(root cid.CID, check func(key []byte, same int) error) {
	const entries, size = 64, 4096 // of one node
	for i := range w.frames {
		f := &w.frames[i]
		f.trim(entries, size)
		if cap(f.node.block) > 2*size {
			f.node.block = nil
		}
		f.lo, f.hi = nil, nil
	}
	w.ahead.reset()
	*w = Walker{root: root, check: check, frames: w.frames, ahead: w.ahead, wanted: true}
}

// Stats returns what the walker has seen so far.
func (w *Walker) Stats() WalkStats { return w.stats }

// Next returns the next step. After a step that wants a node it returns the same until [Walker.Node] has been called.
func (w *Walker) Next() Step {
	if w.wanted {
		return Step{Kind: StepNode, CID: *w.child()}
	}
	for w.depth > 0 {
		f := &w.frames[w.depth-1]
		for f.pos <= 2*len(f.ents) {
			if f.pos%2 == 1 {
				e := &f.ents[f.pos/2]
				f.pos++
				w.stats.Records++
				return Step{Kind: StepRecord, CID: *f.node.link(e.value), Key: f.key(e)}
			}
			if c := w.child(); c != nil {
				w.wanted = true
				return Step{Kind: StepNode, CID: *c}
			}
			f.pos++
		}
		w.depth--
		if w.depth > 0 {
			w.frames[w.depth-1].pos++
		}
	}
	return Step{Kind: StepDone}
}

// child returns the link at the present place, nil if there is none.
func (w *Walker) child() *cid.CID {
	if w.depth == 0 {
		return &w.root
	}
	f := &w.frames[w.depth-1]
	if f.pos == 0 {
		return f.node.link(f.node.left)
	}
	return f.node.link(f.ents[f.pos/2-1].right)
}

// Prepare looks at blocks that lie ahead, block(0), block(1) and so on up to nil, decodes those among them that may be nodes,
// and hashes their keys, which takes less time for many than for one. It returns how many blocks it has looked at, and forgets
// what it was told before. It takes nothing for granted: only [Walker.NodeAhead] tells what is wrong with one.
func (w *Walker) Prepare(block func(i int) []byte) int { return w.ahead.decode(block) }

// NodeAhead is [Walker.Node] for a block that was among those that Prepare has looked at last, in the order of these. Since
// then all of them have to have stayed where and what they are: a block is told by its place in memory.
func (w *Walker) NodeAhead(data []byte) error { return w.give(data, w.ahead.take(data)) }

// Node takes the block of the wanted node, which has been hashed by the caller and isn't kept, and checks it.
func (w *Walker) Node(data []byte) error { return w.give(data, -1) }

// give takes the block of the wanted node, which may be one of those ahead.
func (w *Walker) give(data []byte, ahead int) error {
	if !w.wanted {
		return errors.New("mst: no node is wanted")
	}
	layer := Top
	var lo, hi []byte
	if w.depth > 0 {
		p := &w.frames[w.depth-1]
		layer, lo, hi = p.layer-1, p.lo, p.hi
		i := p.pos / 2
		if i > 0 {
			lo = p.key(&p.ents[i-1])
		}
		if i < len(p.ents) {
			hi = p.key(&p.ents[i])
		}
	}
	if w.depth == len(w.frames) {
		w.frames = append(w.frames, walkFrame{})
	}
	f := &w.frames[w.depth]
	f.lo, f.hi = lo, hi
	if !w.take(f, data, ahead, layer) || w.root.Codec() != cid.DagCBOR {
		return w.explain(data, layer, lo, hi)
	}
	if w.depth == 0 {
		w.stats.Layer = f.layer
	}
	f.pos = 0
	w.depth++
	w.wanted = false
	w.stats.Nodes++
	w.stats.MaxEntries = max(w.stats.MaxEntries, len(f.ents))
	return nil
}

// take decodes and checks a node, which may be one of those ahead. It reports whether nothing is wrong with it.
func (w *Walker) take(f *walkFrame, data []byte, i, layer int) bool {
	top := int32(mixedLayers)
	if i >= 0 {
		f.node = f.copyOf(&w.ahead.entryList, &w.ahead.nodes[i], f.node.block)
		top = w.ahead.layer[i]
	} else {
		f.reset()
		f.node = flatNode{block: append(f.node.block[:0], data...)}
		if !f.decode(&f.node, nil) {
			return false
		}
		f.hash()
		top = f.layerOf(&f.node)
	}
	return f.place(layer, int(top), w.check)
}

// place is [Node.Check] of a node whose keys are on layer top. It doesn't say what is wrong.
func (f *walkFrame) place(layer, top int, check func(key []byte, same int) error) bool {
	below := f.node.left != 0
	if len(f.ents) == 0 {
		f.layer = max(layer, 0)
		return layer == Top && !below || layer > 0 && below
	}
	if top == mixedLayers || top > MaxLayer || layer != Top && layer != top {
		return false
	}
	first, last := &f.ents[0], &f.ents[len(f.ents)-1]
	if len(f.lo) > 0 && bytes.Compare(f.key(first), f.lo) <= 0 || len(f.hi) > 0 && bytes.Compare(f.key(last), f.hi) >= 0 {
		return false
	}
	for i := range f.ents {
		e := &f.ents[i]
		below = below || e.right != 0
		if check != nil && check(f.key(e), int(e.same)) != nil {
			return false
		}
	}
	f.layer = top
	return top > 0 || !below
}

// explain says what is wrong with a node.
func (w *Walker) explain(data []byte, layer int, lo, hi []byte) error {
	var check func(key []byte) error
	if w.check != nil {
		check = func(key []byte) error { return w.check(key, 0) }
	}
	var n Node
	err := n.Decode(data)
	if err == nil {
		_, err = n.Check(layer, lo, hi, check)
	}
	e := &Error{Rule: RuleEncoding, Detail: "not a node"}
	if !errors.As(err, &e) && w.root.Codec() != cid.DagCBOR {
		e.Rule, e.Detail = RuleLink, fmt.Sprintf("link to a node has codec 0x%02x", byte(w.root.Codec()))
	}
	e.CID = *w.child()
	return e
}

// AppendLinks appends the links of the node that was given last: those that are wanted next, unless there are nodes between
// them, but for the first child, which is wanted at once. They are valid until the next call of another method.
func (w *Walker) AppendLinks(links []*cid.CID) []*cid.CID {
	if w.depth == 0 {
		return links
	}
	f := &w.frames[w.depth-1]
	for i := range f.ents {
		e := &f.ents[i]
		links = append(links, f.node.link(e.value))
		if e.right != 0 {
			links = append(links, f.node.link(e.right))
		}
	}
	return links
}

// Item is a node or a record of a tree, as [Tree.Items] yields them.
type Item struct {
	CID   cid.CID
	Node  []byte // a node's block, valid until the next item; nil for a record
	Key   string // a record's key
	Layer int    // a node's layer
}

// Items yields all nodes and records in the order of a streamable CAR file.
func (t *Tree) Items() iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		t.hash(t.root)
		var buf []byte
		var visit func(n *node, lo, hi string) bool
		visit = func(n *node, lo, hi string) bool {
			if err := t.load(n, lo, hi); err != nil {
				yield(Item{}, err)
				return false
			}
			buf = n.append(buf[:0])
			if !yield(Item{CID: n.cid, Node: buf, Layer: int(n.layer)}, nil) {
				return false
			}
			for i := range len(n.ents) + 1 {
				if c := *n.slot(i); c != nil {
					clo, chi := n.bounds(i, lo, hi)
					if !visit(c, clo, chi) {
						return false
					}
				}
				if i < len(n.ents) && !yield(Item{CID: n.ents[i].val, Key: n.ents[i].key}, nil) {
					return false
				}
			}
			return true
		}
		visit(t.root, "", "")
	}
}
