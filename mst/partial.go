package mst

import "github.com/barograph/baro/cid"

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
