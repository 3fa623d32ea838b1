package mst

import (
	"iter"

	"github.com/barograph/baro/cid"
)

// Delta is a key whose value differs between two trees. Old is undefined if the first tree doesn't have the key, New if
// the second doesn't.
type Delta struct {
	Key      string
	Old, New cid.CID
}

// Diff yields what changed from tree a to tree b, in the order of the keys. Subtrees that both have are skipped without
// being loaded, so that the work is proportional to the change and not to the trees.
func Diff(a, b *Tree) iter.Seq2[Delta, error] {
	return func(yield func(Delta, error) bool) {
		ca, cb := newCursor(a), newCursor(b)
		fail := func(err error) { yield(Delta{}, err) }
		for {
			na, ea := ca.item()
			nb, eb := cb.item()
			switch {
			case na != nil && nb != nil && na.cid == nb.cid:
				ca.skip()
				cb.skip()
			case na != nil && (nb == nil || ca.layer() >= cb.layer()):
				// Where both are subtrees the higher one is opened, or both in turn.
				same := nb != nil && ca.layer() == cb.layer()
				if err := ca.enter(); err != nil {
					fail(err)
					return
				}
				if same {
					if err := cb.enter(); err != nil {
						fail(err)
						return
					}
				}
			case nb != nil:
				if err := cb.enter(); err != nil {
					fail(err)
					return
				}
			case ea == nil && eb == nil:
				return
			case eb == nil || ea != nil && ea.key < eb.key:
				if !yield(Delta{Key: ea.key, Old: ea.val}, nil) {
					return
				}
				ca.skip()
			case ea == nil || eb.key < ea.key:
				if !yield(Delta{Key: eb.key, New: eb.val}, nil) {
					return
				}
				cb.skip()
			default:
				if ea.val != eb.val && !yield(Delta{Key: ea.key, Old: ea.val, New: eb.val}, nil) {
					return
				}
				ca.skip()
				cb.skip()
			}
		}
	}
}

// cursor goes through a tree item by item, an item being an entry or a whole subtree.
type cursor struct {
	t     *Tree
	stack []cursorFrame
}

type cursorFrame struct {
	n      *node
	pos    int // even: the child before entry pos/2; odd: entry pos/2
	lo, hi string
}

func newCursor(t *Tree) *cursor {
	t.hash(t.root)
	// A node above the root makes the root an item like any other.
	above := &node{loaded: true, left: t.root, first: t.root.first}
	return &cursor{t: t, stack: append(make([]cursorFrame, 0, 16), cursorFrame{n: above})}
}

// item returns the present item: a subtree, or an entry, or neither at the end.
func (c *cursor) item() (*node, *entry) {
	for len(c.stack) > 0 {
		f := &c.stack[len(c.stack)-1]
		for ; f.pos <= 2*len(f.n.ents); f.pos++ {
			if f.pos%2 == 1 {
				return nil, &f.n.ents[f.pos/2]
			}
			if k := *f.n.slot(f.pos / 2); k != nil {
				return k, nil
			}
		}
		c.stack = c.stack[:len(c.stack)-1]
		c.skip()
	}
	return nil, nil
}

// layer returns the layer of the present subtree. An unloaded top node counts as higher than all else.
func (c *cursor) layer() int {
	f := &c.stack[len(c.stack)-1]
	if l := int((*f.n.slot(f.pos / 2)).layer); l != Top {
		return l
	}
	return MaxLayer + 1
}

func (c *cursor) skip() {
	if len(c.stack) > 0 {
		c.stack[len(c.stack)-1].pos++
	}
}

// enter goes into the present subtree.
func (c *cursor) enter() error {
	f := &c.stack[len(c.stack)-1]
	k := *f.n.slot(f.pos / 2)
	lo, hi := f.n.bounds(f.pos/2, f.lo, f.hi)
	if err := c.t.load(k, lo, hi); err != nil {
		return err
	}
	c.stack = append(c.stack, cursorFrame{n: k, lo: lo, hi: hi})
	return nil
}
