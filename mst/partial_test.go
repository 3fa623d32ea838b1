package mst_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

func TestLoadPresent(t *testing.T) {
	m := map[string]cid.CID{}
	for i := range 500 {
		m[fmt.Sprintf("a/%03d", i)] = value(i)
	}
	top, blocks, _ := naive(m)
	// Without one node, all of those that don't hang on it are loaded, once each.
	for gone := range blocks {
		src := mst.MapSource{}
		for c, b := range blocks {
			if c != gone {
				src[c] = b
			}
		}
		loads := map[cid.CID]int{}
		tree := mst.Open(top, mst.SourceFunc(func(c cid.CID, at mst.Pos) ([]byte, error) {
			if c != gone {
				loads[c]++
			}
			return src.Load(c, at)
		}))
		has := func(c *cid.CID) bool { _, ok := src[*c]; return ok }
		n, err := tree.LoadPresent(has)
		if err != nil || n != len(loads) || n > len(src) || gone == top && n != 0 {
			t.Fatalf("%d nodes of %d, %d loaded: %v", n, len(src), len(loads), err)
		}
		again, err := tree.LoadPresent(has)
		for c, k := range loads {
			if err != nil || again != n || k != 1 {
				t.Fatalf("%s was loaded %d times, %d nodes and then %d: %v", c, k, n, again, err)
			}
		}
		seen := 0
		for k, v := range m {
			got, found, err := tree.Get(k)
			if missing := (*mst.MissingError)(nil); errors.As(err, &missing) && missing.CID == gone {
				continue
			}
			if err != nil || !found || got != v {
				t.Fatalf("%s: %s %v %v", k, got, found, err)
			}
			seen++
		}
		if seen == len(m) || len(loads) != n {
			t.Fatalf("%d keys and %d nodes without %s, %d loaded before", seen, len(loads), gone, n)
		}
	}
}

func TestLoadPresentHostile(t *testing.T) {
	all := func(*cid.CID) bool { return true }
	for _, c := range hostileTrees {
		src := mst.MapSource{}
		root := c.root(func(n *mst.Node) cid.CID {
			b := n.Append(nil)
			src[cid.Sum(cid.DagCBOR, b)] = b
			return cid.Sum(cid.DagCBOR, b)
		})
		_, err := mst.Open(root, src).LoadPresent(all)
		if e := (*mst.Error)(nil); !errors.As(err, &e) || e.Rule != c.rule || !e.CID.Defined() {
			t.Errorf("%s: %v, want rule %s", c.name, err, c.rule)
		}
	}
	broken := errors.New("broken")
	_, err := mst.Open(value(1), mst.SourceFunc(func(cid.CID, mst.Pos) ([]byte, error) { return nil, broken })).LoadPresent(all)
	if !errors.Is(err, broken) {
		t.Errorf("broken source: %v", err)
	}
}
