package mst

// ahead are nodes that have been decoded before a [Walker] wants them, so that their keys could be hashed together. Those that
// are never wanted do no harm: a record may look like a node.
type ahead struct {
	entryList
	nodes []flatNode
	layer []int32 // of each node, mixedLayers if its keys aren't all on the same, Top if it has none
	next  int     // of those that have not been taken
}

const mixedLayers = Top - 1

// Bounds of what is decoded ahead. Nodes beyond them are decoded when they are wanted.
const (
	maxAheadEntries = 2048
	maxAheadLong    = 64 << 10 // bytes of long keys
)

// maxScan is how many nodes are looked at to find one that is wanted: those before it weren't.
const maxScan = 4

// decode fills a with the nodes among blocks, and returns how many of these it has looked at. Wrong ones are left out: what is
// wrong is told when they are wanted.
func (a *ahead) decode(block func(i int) []byte) (seen int) {
	a.reset()
	for len(a.ents) < maxAheadEntries && len(a.long) < maxAheadLong {
		data := block(seen)
		if data == nil {
			break
		}
		seen++
		if len(data) < len(nodeHead) || string(data[:len(nodeHead)]) != nodeHead {
			continue
		}
		a.nodes = append(a.nodes, flatNode{block: data})
		ents, short, long := len(a.ents), len(a.short), len(a.long)
		if !a.entryList.decode(&a.nodes[len(a.nodes)-1], nil) {
			a.nodes = a.nodes[:len(a.nodes)-1]
			a.ents, a.short, a.long = a.ents[:ents], a.short[:short], a.long[:long]
		}
	}
	a.hash()
	for i := range a.nodes {
		a.layer = append(a.layer, a.layerOf(&a.nodes[i]))
	}
	return seen
}

// reset lets go of the blocks, and of memory that few trees need.
func (a *ahead) reset() {
	clear(a.nodes)
	a.nodes, a.layer, a.next = a.nodes[:0], a.layer[:0], 0
	a.entryList.reset()
	a.trim(maxAheadEntries+MaxEntries, maxAheadLong)
}

// take returns which node has been decoded from data, -1 if none has.
func (a *ahead) take(data []byte) int {
	for i := a.next; i < min(len(a.nodes), a.next+maxScan); i++ {
		if b := a.nodes[i].block; len(b) == len(data) && &b[0] == &data[0] {
			a.next = i + 1
			return i
		}
	}
	return -1
}
