package mst

import (
	"math/bits"
	"slices"

	"github.com/barograph/baro/internal/sha256x"
)

// ahead are nodes that have been decoded before a [Walker] wants them, so that their keys could be hashed together. Those that
// are never wanted do no harm: a record may look like a node.
type ahead struct {
	nodes []aheadNode
	next  int             // of those that have not been taken
	short []sha256x.Short // keys, padded as their hashing wants it
	heads []uint32        // of the hashes of short
}

type aheadNode struct {
	node Node
	data []byte // which it is of
}

// Bounds of what is decoded ahead. Nodes beyond them are decoded when they are wanted.
const (
	maxAheadNodes = 128
	maxAheadKeys  = 2048
	maxAheadBytes = 128 << 10 // of keys
)

// maxScan is how many nodes are looked at to find one that is wanted: those before it weren't.
const maxScan = 4

// decode fills a with the nodes among blocks, and returns how many of these it has looked at. Wrong ones are left out: they
// are told when they are wanted.
func (a *ahead) decode(block func(i int) []byte) (seen int) {
	a.reset()
	keys, size := 0, 0
	for len(a.nodes) < maxAheadNodes && keys < maxAheadKeys && size < maxAheadBytes {
		data := block(seen)
		if data == nil {
			break
		}
		seen++
		if len(data) < len(nodeHead) || string(data[:len(nodeHead)]) != nodeHead {
			continue
		}
		if len(a.nodes) < cap(a.nodes) {
			a.nodes = a.nodes[:len(a.nodes)+1] // as it was left
		} else {
			a.grow()
		}
		n := &a.nodes[len(a.nodes)-1]
		if n.node.Decode(data) != nil {
			a.nodes = a.nodes[:len(a.nodes)-1]
			continue
		}
		n.data = data
		keys += len(n.node.Entries)
		size += len(n.node.keys)
		a.pad(&n.node)
	}
	a.layers()
	return seen
}

// grow adds a node. It gets memory for many at a time, with room for what most nodes hold.
func (a *ahead) grow() {
	const nodes, entries, size = maxAheadNodes / 4, 6, 256
	first := len(a.nodes)
	a.nodes = slices.Grow(a.nodes, nodes)
	ents, keys := make([]NodeEntry, nodes*entries), make([]byte, nodes*size)
	for i := range nodes {
		a.nodes = append(a.nodes, aheadNode{node: Node{
			Entries: ents[i*entries : i*entries : (i+1)*entries],
			keys:    keys[i*size : i*size : (i+1)*size],
		}})
	}
	a.nodes = a.nodes[:first+1]
}

// reset lets go of the blocks, and of memory that few nodes need.
func (a *ahead) reset() {
	for i := range a.nodes {
		a.nodes[i].data = nil
		a.nodes[i].node.trim()
	}
	a.nodes, a.next, a.short = a.nodes[:0], 0, a.short[:0]
}

// trim lets go of the memory of a large node.
func (n *Node) trim() {
	if cap(n.Entries) > 64 || cap(n.keys) > 4096 {
		*n = Node{}
	}
}

// pad adds the short keys of a node to those that are hashed.
func (a *ahead) pad(n *Node) {
	for i := range n.Entries {
		key := n.Entries[i].Key
		if len(key) > sha256x.MaxShort {
			continue
		}
		k := len(a.short)
		if k == cap(a.short) {
			a.short = slices.Grow(a.short, max(64, k))
		}
		a.short = a.short[:k+1]
		s := &a.short[k]
		copy(s[:], key)
		s.Pad(len(key))
	}
}

// layers finds the layer of each node. If its keys aren't all on the same it is left out.
func (a *ahead) layers() {
	a.heads = slices.Grow(a.heads[:0], len(a.short))[:len(a.short)]
	sha256x.Heads(a.heads, a.short)
	heads := a.heads
	for i := range a.nodes {
		n := &a.nodes[i].node
		same, layer := true, Top
		for k := range n.Entries {
			key, l := n.Entries[k].Key, 0
			if len(key) <= sha256x.MaxShort {
				if heads[0] != 0 {
					l = bits.LeadingZeros32(heads[0]) / 2
				} else {
					l = layerOf(key)
				}
				heads = heads[1:]
			} else {
				l = layerOf(key)
			}
			same = same && (k == 0 || l == layer)
			layer = l
		}
		if same && layer != Top {
			n.known, n.top = true, layer
		}
	}
}

// take returns the node that has been decoded from data, nil if it hasn't. It is the caller's until the next call of decode.
func (a *ahead) take(data []byte) *Node {
	for i := a.next; i < min(len(a.nodes), a.next+maxScan); i++ {
		n := &a.nodes[i]
		if len(n.data) == len(data) && &n.data[0] == &data[0] {
			n.data = nil
			a.next = i + 1
			return &n.node
		}
	}
	return nil
}
