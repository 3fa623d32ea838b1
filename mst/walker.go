package mst

import (
	"errors"
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
	checkKey func(key []byte) error
	frames   []walkFrame
	depth    int
	root     cid.CID
	wanted   bool // the block of the present item, a node, has not come yet
	stats    WalkStats
	ahead    ahead
}

// WalkStats counts what a [Walker] has seen.
type WalkStats struct {
	Nodes, Records int
	Layer          int // of the top node
	MaxEntries     int // in one node
}

type walkFrame struct {
	node   Node
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
	w.Reset(root, checkKey)
	return w
}

// Reset makes a walker what NewWalker would return. It keeps the memory that most trees need.
func (w *Walker) Reset(root cid.CID, checkKey func(key []byte) error) {
	for i := range w.frames {
		w.frames[i].node.trim()
		w.frames[i].lo, w.frames[i].hi = nil, nil
	}
	w.ahead.reset()
	*w = Walker{root: root, checkKey: checkKey, frames: w.frames, ahead: w.ahead, wanted: true}
}

// Stats returns what the walker has seen so far.
func (w *Walker) Stats() WalkStats { return w.stats }

// Next returns the next step. After a step that wants a node it returns the same until [Walker.Node] has been called.
func (w *Walker) Next() Step {
	if w.wanted {
		return Step{Kind: StepNode, CID: w.child()}
	}
	for w.depth > 0 {
		f := &w.frames[w.depth-1]
		for f.pos <= 2*len(f.node.Entries) {
			i := f.pos / 2
			if f.pos%2 == 1 {
				f.pos++
				w.stats.Records++
				e := &f.node.Entries[i]
				return Step{Kind: StepRecord, CID: e.Value, Key: e.Key}
			}
			if c := w.child(); c.Defined() {
				w.wanted = true
				return Step{Kind: StepNode, CID: c}
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

// child returns the link at the present place.
func (w *Walker) child() cid.CID {
	if w.depth == 0 {
		return w.root
	}
	f := &w.frames[w.depth-1]
	if f.pos == 0 {
		return f.node.Left
	}
	return f.node.Entries[f.pos/2-1].Right
}

// Prepare looks at blocks that lie ahead, block(0), block(1) and so on up to nil, decodes those among them that may be nodes,
// and hashes their keys, which takes less time for many than for one. It returns how many blocks it has looked at, and forgets
// what it was told before. The blocks have to stay where and what they are as long as Node may be called with them. Nothing is
// taken for granted: only Node tells what is wrong with one.
func (w *Walker) Prepare(block func(i int) []byte) int { return w.ahead.decode(block) }

// Node takes the block of the wanted node, which has been hashed by the caller and isn't kept, and checks it.
func (w *Walker) Node(data []byte) error {
	if !w.wanted {
		return errors.New("mst: no node is wanted")
	}
	c := w.child()
	layer := Top
	var lo, hi []byte
	if w.depth > 0 {
		p := &w.frames[w.depth-1]
		layer, lo, hi = p.layer-1, p.lo, p.hi
		i := p.pos / 2
		if i > 0 {
			lo = p.node.Entries[i-1].Key
		}
		if i < len(p.node.Entries) {
			hi = p.node.Entries[i].Key
		}
	}
	if w.depth == len(w.frames) {
		w.frames = append(w.frames, walkFrame{})
	}
	f := &w.frames[w.depth]
	var err error
	if n := w.ahead.take(data); n != nil {
		f.node, *n = *n, f.node
	} else {
		err = f.node.Decode(data)
	}
	if err == nil {
		f.layer, err = f.node.Check(layer, lo, hi, w.checkKey)
	}
	if err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			e.CID = c
		}
		return err
	}
	if w.depth == 0 {
		w.stats.Layer = f.layer
	}
	f.pos, f.lo, f.hi = 0, lo, hi
	w.depth++
	w.wanted = false
	w.stats.Nodes++
	w.stats.MaxEntries = max(w.stats.MaxEntries, len(f.node.Entries))
	return nil
}

// Last returns the node that was given last, whose links are wanted next. It is valid until the next call of another
// method, and not to be changed.
func (w *Walker) Last() *Node {
	if w.depth == 0 {
		return nil
	}
	return &w.frames[w.depth-1].node
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
