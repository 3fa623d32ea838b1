package repo

import (
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// A record that looks like a node is looked at ahead, and never wanted as one. A node that was kept as a record, and lies later
// where that was, must not be taken for it: what a commit says doesn't depend on where in the file its blocks are.
func TestNodeInAnothersPlace(t *testing.T) {
	block := func(s string) []byte {
		n := mst.Node{Entries: []mst.NodeEntry{{Key: []byte("com.example.note/" + s), Value: cid.Sum(cid.DagCBOR, []byte(s))}}}
		return n.Append(nil)
	}
	for name, r := range map[string]*Reader{
		"kept":       {from: fromRecent, report: Report{Blocks: 1}},
		"held":       {from: fromHeld, report: Report{Blocks: 1}},
		"read later": {from: fromStream, report: Report{Blocks: 2}},
		"in order":   {from: fromStream, report: Report{Blocks: 2, Streamable: true}},
	} {
		memory := block("evil")
		r.fileMemory = new(fileMemory)
		r.car = new(car.Reader)
		r.walker.Reset(cid.Sum(cid.DagCBOR, block("good")), nil)
		r.prepared = r.walker.Prepare(func(i int) []byte { return [][]byte{memory, nil}[i] })
		copy(memory, block("good"))
		if err := r.node(memory); err != nil {
			t.Fatal(name, err)
		}
		step := r.walker.Next()
		if string(step.Key) != "com.example.note/good" || step.CID != cid.Sum(cid.DagCBOR, []byte("good")) {
			t.Errorf("%s: the walk goes on to %s %s, which the node doesn't have", name, step.Key, step.CID)
		}
	}
}
