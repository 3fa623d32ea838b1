package mst

import (
	"fmt"

	"github.com/barograph/baro/cid"
)

// Builder makes a tree from entries in the order of their keys, in memory proportional to the height of the tree. Nodes
// are handed out as soon as they are complete, children before parents.
type Builder struct {
	// Emit takes a finished node; it may be nil if only the root is wanted. Bytes are valid during the call.
	Emit func(NodeBlock) error

	open  []openNode // by layer
	last  string
	any   bool
	top   int
	buf   []byte
	done  bool
	nodes int
}

// openNode is the rightmost node of a layer, still growing.
type openNode struct {
	node  Node
	first string
	used  bool
}

// Add adds an entry whose key is greater than all before.
func (b *Builder) Add(key string, value cid.CID) error {
	switch {
	case b.done:
		return &OpError{Key: key, Detail: "the tree is finished"}
	case key == "" || len(key) > MaxKey:
		return &OpError{Key: key, Detail: fmt.Sprintf("a key has 1 to %d bytes", MaxKey)}
	case !value.Valid():
		return &OpError{Key: key, Detail: "the value is no CID"}
	case b.any && key <= b.last:
		return &OpError{Key: key, Detail: fmt.Sprintf("not greater than the key before, %q", b.last)}
	}
	layer := Layer(key)
	for len(b.open) <= layer {
		b.open = append(b.open, openNode{})
	}
	if err := b.close(layer); err != nil {
		return err
	}
	o := &b.open[layer]
	if !o.used {
		o.used, o.first = true, key
	}
	start := len(o.node.keys)
	o.node.keys = append(o.node.keys, key...)
	o.node.Entries = append(o.node.Entries, NodeEntry{Key: o.node.keys[start:len(o.node.keys):len(o.node.keys)], Value: value})
	b.last, b.any, b.top = key, true, max(b.top, layer)
	return nil
}

// close finishes the nodes below a layer and links what they come to from that layer.
func (b *Builder) close(layer int) error {
	var child cid.CID
	var first string
	for l := 0; l <= layer; l++ {
		o := &b.open[l]
		if child.Defined() {
			if k := len(o.node.Entries); k > 0 {
				o.node.Entries[k-1].Right = child
			} else {
				o.node.Left = child
			}
			if !o.used {
				o.used, o.first = true, first
			}
		}
		if l == layer {
			return nil
		}
		child = cid.CID{}
		if !o.used {
			continue
		}
		var err error
		if child, err = b.emit(&o.node, o.first, l); err != nil {
			return err
		}
		first = o.first
		o.used, o.first = false, ""
		o.node.Left, o.node.Entries, o.node.keys = cid.CID{}, o.node.Entries[:0], o.node.keys[:0]
	}
	return nil
}

func (b *Builder) emit(n *Node, first string, layer int) (cid.CID, error) {
	b.buf = n.Append(b.buf[:0])
	c := cid.Sum(cid.DagCBOR, b.buf)
	b.nodes++
	if b.Emit == nil {
		return c, nil
	}
	return c, b.Emit(NodeBlock{CID: c, Bytes: b.buf, First: first, Layer: layer})
}

// Finish hands out the remaining nodes, the top node last, and returns the root. A tree without entries is one empty node.
func (b *Builder) Finish() (cid.CID, error) {
	if b.done {
		return cid.CID{}, &OpError{Detail: "the tree is finished"}
	}
	b.done = true
	if !b.any {
		return b.emit(&Node{}, "", 0)
	}
	if err := b.close(b.top); err != nil {
		return cid.CID{}, err
	}
	o := &b.open[b.top]
	return b.emit(&o.node, o.first, b.top)
}

// Nodes returns how many nodes have been handed out.
func (b *Builder) Nodes() int { return b.nodes }
