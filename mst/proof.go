package mst

import (
	"fmt"
	"slices"

	"github.com/barograph/baro/cid"
)

// PathNode is a node that takes part in a proof.
type PathNode struct {
	CID     cid.CID
	Bytes   []byte
	Layer   int
	Entries int
}

// Proof tells what a tree has at a key. Nodes leads from the root to the entry, or to where it would be; together with the
// root it lets anybody check the answer.
type Proof struct {
	Key   string
	Value cid.CID // undefined if the tree doesn't have the key
	Nodes []PathNode
}

// Found reports whether the proof is one of presence.
func (p *Proof) Found() bool { return p.Value.Defined() }

// Prove returns the proof of presence or absence of a key. It needs no more than the nodes that it returns, and checks
// each one as it loads it: so to verify a proof is to call Prove on a tree opened over the proof's own blocks. A proof that
// lacks a node gives a [*MissingError].
func (t *Tree) Prove(key string) (Proof, error) {
	t.hash(t.root)
	p := Proof{Key: key}
	n, lo, hi := t.root, "", ""
	for n != nil {
		if err := t.load(n, lo, hi); err != nil {
			return Proof{}, err
		}
		p.Nodes = append(p.Nodes, n.pathNode())
		i, eq := n.find(key)
		if eq {
			p.Value = n.ents[i].val
			break
		}
		lo, hi = n.bounds(i, lo, hi)
		n = *n.slot(i)
	}
	return p, nil
}

func (n *node) pathNode() PathNode {
	return PathNode{CID: n.cid, Bytes: n.append(make([]byte, 0, n.sizeBound())), Layer: int(n.layer), Entries: len(n.ents)}
}

// Cover returns the nodes of t that are needed to undo the creation or deletion of keys: for each key the way to it and the
// edges of the subtrees to its left and right, or the way to where it would be. A commit message carries them beside the
// nodes that are new. Nodes come in no particular order, each once.
func (t *Tree) Cover(keys ...string) ([]PathNode, error) { return t.CoverBeside(nil, keys...) }

// CoverBeside is [Tree.Cover] without the nodes that are at hand already.
func (t *Tree) CoverBeside(added []NodeBlock, keys ...string) ([]PathNode, error) {
	t.hash(t.root)
	var out []PathNode
	var seen cidSet
	for i := range added {
		seen.add(&added[i].CID)
	}
	visit := func(n *node, lo, hi string) error {
		if err := t.load(n, lo, hi); err != nil {
			return err
		}
		if seen.add(&n.cid) {
			out = append(out, n.pathNode())
		}
		return nil
	}
	for _, key := range keys {
		n, lo, hi := t.root, "", ""
		for n != nil {
			if err := visit(n, lo, hi); err != nil {
				return nil, err
			}
			i, eq := n.find(key)
			if !eq {
				lo, hi = n.bounds(i, lo, hi)
				n = *n.slot(i)
				continue
			}
			llo, lhi := n.bounds(i, lo, hi)
			for c := *n.slot(i); c != nil; c = *c.slot(len(c.ents)) {
				if err := visit(c, llo, lhi); err != nil {
					return nil, err
				}
				llo, lhi = c.bounds(len(c.ents), llo, lhi)
			}
			rlo, rhi := n.bounds(i+1, lo, hi)
			for c := *n.slot(i + 1); c != nil; c = c.left {
				if err := visit(c, rlo, rhi); err != nil {
					return nil, err
				}
				rlo, rhi = c.bounds(0, rlo, rhi)
			}
			break
		}
	}
	return out, nil
}

// cidSet is a set that is small as a rule: the nodes that one record changes.
type cidSet struct {
	few  [16]cid.CID
	n    int // in few
	many map[cid.CID]struct{}
}

func (s *cidSet) has(c *cid.CID) bool {
	if s.many != nil {
		_, ok := s.many[*c]
		return ok
	}
	return slices.Contains(s.few[:s.n], *c)
}

// add puts in c, and reports whether it is new.
func (s *cidSet) add(c *cid.CID) bool {
	switch {
	case s.has(c):
		return false
	case s.many != nil:
		s.many[*c] = struct{}{}
	case s.n < len(s.few):
		s.few[s.n] = *c
		s.n++
	default:
		s.many = map[cid.CID]struct{}{*c: {}}
		for _, f := range s.few {
			s.many[f] = struct{}{}
		}
	}
	return true
}

// Op is a change of one key, as a commit message lists it: a creation without Prev, a deletion without Value, else an
// update.
type Op struct {
	Key   string
	Value cid.CID
	Prev  cid.CID
}

// Apply does ops in order, each of which has to find the tree as it says.
func (t *Tree) Apply(ops []Op) error {
	for i := range ops {
		o := &ops[i]
		if err := t.apply(o.Key, o.Prev, o.Value); err != nil {
			return err
		}
	}
	return nil
}

// Invert undoes ops, last one first, so that the tree is again what it was before them. If it is a partial tree that lacks
// a needed node, the error is a [*MissingError]; if it isn't the outcome of the ops, an [*OpError]. Both leave the tree
// between the two states.
func (t *Tree) Invert(ops []Op) error {
	for i := len(ops) - 1; i >= 0; i-- {
		o := &ops[i]
		if err := t.apply(o.Key, o.Value, o.Prev); err != nil {
			return err
		}
	}
	return nil
}

// apply takes a key from one value to another.
func (t *Tree) apply(key string, from, to cid.CID) error {
	var had cid.CID
	var err error
	switch {
	case to.Defined():
		had, _, err = t.Put(key, to)
	case from.Defined():
		had, _, err = t.Delete(key)
	default:
		return &OpError{Key: key, Detail: "neither a value nor a previous value"}
	}
	switch {
	case err != nil:
		return err
	case had == from:
		return nil
	case !had.Defined():
		return &OpError{Key: key, Detail: fmt.Sprintf("the tree doesn't have it, expected %s", from)}
	case !from.Defined():
		return &OpError{Key: key, Detail: fmt.Sprintf("the tree has %s, expected nothing", had)}
	}
	return &OpError{Key: key, Detail: fmt.Sprintf("the tree has %s, expected %s", had, from)}
}
