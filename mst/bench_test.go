package mst_test

import (
	"fmt"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// benchKeys are n keys in order, as a client that posts makes them.
func benchKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("app.bsky.feed.post/3l%011d", i*1000)
	}
	return keys
}

func benchTree(n int) (*mst.Tree, []string) {
	keys := benchKeys(n)
	t := mst.New()
	for i, k := range keys {
		t.Put(k, value(i))
	}
	return t, keys
}

func BenchmarkInsertSequential100k(b *testing.B) {
	keys := benchKeys(100_000)
	v := value(1)
	b.ReportAllocs()
	for b.Loop() {
		t := mst.New()
		for _, k := range keys {
			t.Put(k, v)
		}
		t.Root()
	}
}

func BenchmarkBuild100k(b *testing.B) {
	keys := benchKeys(100_000)
	v := value(1)
	b.ReportAllocs()
	for b.Loop() {
		var t mst.Builder
		for _, k := range keys {
			t.Add(k, v)
		}
		t.Finish()
	}
}

func BenchmarkPutFlush100k(b *testing.B) {
	t, keys := benchTree(100_000)
	t.Flush()
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		t.Put(keys[i*7919%len(keys)]+"a", value(1))
		if _, err := t.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiffOneOf100k(b *testing.B) {
	t, keys := benchTree(100_000)
	t.Flush()
	u := t.Clone()
	u.Put(keys[50_000]+"a", value(1))
	u.Flush()
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for range mst.Diff(t, u) {
			n++
		}
		if n != 1 {
			b.Fatal(n)
		}
	}
}

func BenchmarkInvertOneOf100k(b *testing.B) {
	t, keys := benchTree(100_000)
	before, _ := t.Flush()
	key := keys[50_000] + "a"
	t.Put(key, value(1))
	after, _ := t.Flush()
	src := mst.MapSource{}
	nodes, _ := t.Cover(key)
	for _, n := range nodes {
		src[n.CID] = n.Bytes
	}
	ops := []mst.Op{{Key: key, Value: value(1)}}
	b.ReportAllocs()
	for b.Loop() {
		p := mst.OpenOptions(after.Root, src, mst.Options{HashChecked: true})
		if err := p.Invert(ops); err != nil {
			b.Fatal(err)
		}
		if c, _ := p.Root(); c != before.Root {
			b.Fatal("wrong root")
		}
	}
}

func BenchmarkWalker100k(b *testing.B) {
	blocks := map[cid.CID][]byte{}
	size := 0
	bld := mst.Builder{Emit: func(n mst.NodeBlock) error {
		blocks[n.CID] = append([]byte(nil), n.Bytes...)
		size += len(n.Bytes)
		return nil
	}}
	for _, k := range benchKeys(100_000) {
		bld.Add(k, value(1))
	}
	root, _ := bld.Finish()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := walk(root, blocks); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeNode(b *testing.B) {
	n := node(value(1))
	for i := 0; len(n.Entries) < 6; i++ {
		if k := fmt.Sprintf("app.bsky.feed.post/3l%011d", i*1000); mst.Layer(k) == 0 {
			n.Entries = append(n.Entries, ent(k))
		}
	}
	buf := n.Append(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if err := n.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}
