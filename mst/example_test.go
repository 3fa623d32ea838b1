package mst_test

import (
	"bytes"
	"fmt"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

func Example() {
	store := mst.MapSource{}
	flush := func(t *mst.Tree) cid.CID {
		change, err := t.Flush()
		if err != nil {
			panic(err)
		}
		for _, n := range change.Removed {
			delete(store, n.CID)
		}
		for _, n := range change.Added {
			store[n.CID] = n.Bytes
		}
		fmt.Printf("%d nodes added, %d removed\n", len(change.Added), len(change.Removed))
		return change.Root
	}

	t := mst.New()
	for i := range 10 {
		t.Put(fmt.Sprintf("com.example.note/%d", i), cid.Sum(cid.DagCBOR, []byte{byte(i)}))
	}
	root := flush(t)

	t = mst.Open(root, store)
	t.Delete("com.example.note/3")
	flush(t)
	for e, err := range t.WalkFrom("com.example.note/2") {
		if err != nil {
			panic(err)
		}
		fmt.Println(e.Key)
		if e.Key > "com.example.note/4" {
			break
		}
	}
	// Output:
	// 7 nodes added, 0 removed
	// 2 nodes added, 2 removed
	// com.example.note/2
	// com.example.note/4
	// com.example.note/5
}

func ExampleTree_Prove() {
	t := mst.New()
	t.Put("com.example.note/1", cid.Sum(cid.DagCBOR, []byte("1")))
	root, _ := t.Root()
	proof, _ := t.Prove("com.example.note/2")

	// Somebody else has the root, from a signed commit, and gets the nodes.
	blocks := mst.MapSource{}
	for _, n := range proof.Nodes {
		blocks[n.CID] = n.Bytes
	}
	checked, err := mst.Open(root, blocks).Prove("com.example.note/2")
	fmt.Println(checked.Found(), err)
	// Output: false <nil>
}

func ExampleBuilder() {
	store := mst.MapSource{}
	b := mst.Builder{Emit: func(n mst.NodeBlock) error {
		store[n.CID] = bytes.Clone(n.Bytes)
		return nil
	}}
	for i := range 1000 { // in the order of the keys
		if err := b.Add(fmt.Sprintf("com.example.note/%03d", i), cid.Sum(cid.DagCBOR, []byte{byte(i)})); err != nil {
			panic(err)
		}
	}
	root, err := b.Finish()
	_, found, _ := mst.Open(root, store).Get("com.example.note/500")
	fmt.Println(b.Nodes(), len(store), found, err)
	// Output: 285 285 true <nil>
}

func ExampleWalker() {
	// Blocks come from somewhere, such as a CAR file, and have been hashed.
	t := mst.New()
	for i := range 100 {
		t.Put(fmt.Sprintf("com.example.note/%02d", i), cid.Sum(cid.DagCBOR, []byte{byte(i)}))
	}
	root, _ := t.Root()
	blocks := map[cid.CID][]byte{}
	for item := range t.Items() {
		if item.Node != nil {
			blocks[item.CID] = bytes.Clone(item.Node)
		}
	}
	w := mst.NewWalker(root, nil)
	for step := w.Next(); step.Kind != mst.StepDone; step = w.Next() {
		if step.Kind == mst.StepNode {
			if err := w.Node(blocks[step.CID]); err != nil {
				fmt.Println(err)
				return
			}
		}
	}
	fmt.Println(w.Stats().Records, "records in", w.Stats().Nodes, "nodes, all of them as they have to be")
	// Output: 100 records in 33 nodes, all of them as they have to be
}

func ExampleDiff() {
	a := mst.New()
	for i := range 5 {
		a.Put(fmt.Sprintf("com.example.note/%d", i), cid.Sum(cid.DagCBOR, []byte{byte(i)}))
	}
	b := a.Clone()
	b.Delete("com.example.note/1")
	b.Put("com.example.note/9", cid.Sum(cid.DagCBOR, []byte("new")))
	for d := range mst.Diff(a, b) {
		fmt.Println(d.Key, d.Old.Defined(), d.New.Defined())
	}
	// Output:
	// com.example.note/1 true false
	// com.example.note/9 false true
}
