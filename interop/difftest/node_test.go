package difftest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	peermst "github.com/bluesky-social/indigo/atproto/repo/mst"
	gocid "github.com/ipfs/go-cid"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// peerTree builds indigo's tree from a map.
func peerTree(t testing.TB, m map[string]cid.CID) *peermst.Tree {
	t.Helper()
	tree, err := peermst.LoadTreeFromMap(toGo(m))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func toGo(m map[string]cid.CID) map[string]gocid.Cid {
	out := map[string]gocid.Cid{}
	for k, v := range m {
		out[k] = goCID(v)
	}
	return out
}

// FuzzNode compares nodes of the tree on their own: with the slow model in everything, and with indigo.
func FuzzNode(f *testing.F) {
	for _, b := range nodeSeeds(f) {
		f.Add(b, uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if seed != 0 {
			b = mutateNodeBlock(b, seed)
		}
		compareNode(t, b)
	})
}

func TestNodeMutations(t *testing.T) {
	for _, b := range nodeSeeds(t) {
		for seed := range rounds(40) {
			if compareNode(t, mutateNodeBlock(b, uint64(seed)+1)); t.Failed() {
				return
			}
		}
	}
}

func mutateNodeBlock(b []byte, seed uint64) []byte {
	r := seeded(seed)
	if r.IntN(2) == 0 || readNode(b, faults{}) == nil {
		return mutateCBOR(b, seed)
	}
	a := &archive{blocks: []block{{linkedTo(b), b}}}
	a.mutateNode(r)
	return a.blocks[0].data
}

func linkedTo(b []byte) []byte {
	c := cid.Sum(cid.DagCBOR, b)
	return c[:]
}

func nodeSeeds(t testing.TB) [][]byte {
	var list [][]byte
	for _, b := range repoSeeds(t) {
		for _, k := range split(b, faults{}).blocks {
			if len(k.data) < 3000 && bytes.HasPrefix(k.data, []byte("\xa2\x61e")) {
				list = append(list, k.data)
			}
		}
	}
	return list
}

func compareNode(t testing.TB, b []byte) string {
	t.Helper()
	f := faults{}
	n := readNode(b, f)
	model := answer{err: errFaults}
	if len(f) == 0 {
		model = answer{value: fmt.Sprintf("%+v", n)}
	}
	mine := oursNode(b)
	if !same(mine, model) {
		t.Errorf("%s\nours  %v\nmodel %v %v", show(b), mine, model, f)
	}
	return nodeTable.judge(t, b, mine, theirNode(b))
}

func oursNode(b []byte) answer {
	return ask(func() (any, error) {
		var n mst.Node
		if err := n.Decode(b); err != nil {
			return nil, err
		}
		link := func(c cid.CID) []byte {
			if c.Defined() {
				return c.Bytes()
			}
			return nil
		}
		out := &node{left: link(n.Left)}
		for _, e := range n.Entries {
			out.entries = append(out.entries, entry{string(e.Key), link(e.Value), link(e.Right)})
		}
		return fmt.Sprintf("%+v", out), nil
	})
}

func theirNode(b []byte) answer {
	return ask(func() (any, error) {
		data, err := peermst.NodeDataFromCBOR(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		n := data.Node(nil)
		link := func(c *gocid.Cid) []byte {
			if c == nil {
				return nil
			}
			return c.Bytes()
		}
		out := &node{}
		for i, e := range n.Entries {
			switch {
			case e.IsValue():
				out.entries = append(out.entries, entry{key: string(e.Key), value: link(e.Value)})
			case i == 0:
				out.left = link(e.ChildCID)
			default:
				out.entries[len(out.entries)-1].right = link(e.ChildCID)
			}
		}
		return fmt.Sprintf("%+v", out), nil
	})
}

func aboutNode(b []byte) faults {
	f := faults{}
	if readNode(b, f); f[fNode] {
		if _, g := examine(b); len(g) > 0 {
			f[fEncoding] = true
		}
	}
	return f
}

const fEncoding fault = "not DAG-CBOR"

var nodeForgives = laxity(aboutNode, []fault{fEncoding, fNode, fPrefix, fOrder, fKeyLength, fNodeCodec, fEntries})

var nodeTable = table[[]byte]{name: "indigo node", list: []difference[[]byte]{
	{
		name: "panics", right: ours, rule: "a prefix is no longer than the key before, " + specRepo,
		holds: func(b []byte, mine, peer answer) bool {
			return mine.err != nil && hasPanicked(peer)
		},
		shown: [][]byte{
			unhex("a2 6165 81 a4 616b 4161 6170 01 6174f6 6176 d82a5825000171122000000000000000000000000000000000000000000000000000000000000000 00 616cf6"),
			unhex("a2 6165 81 a4 616b 4161 6170 1b7fffffffffffffff 6174f6 6176 d82a5825000171122000000000000000000000000000000000000000000000000000000000000000 00 616cf6"),
		},
	},
	{
		name: "not DAG-CBOR", right: ours, rule: "canonical encoding, " + specDRISL + ": what is read in another encoding is written with another hash",
		holds: nodeForgives(fEncoding), shown: [][]byte{unhex("a2 616cf6 616580"), unhex("a2 616580 616cf6 00"), unhex("a3 616580 616cf6 616cf6")},
	},
	{
		name: "fields missing or unknown", right: ours, rule: "e and l, and k, p, t and v, " + specRepo,
		holds: nodeForgives(fNode), shown: [][]byte{unhex("a0"), unhex("a1 616580"), unhex("a3 616400 616580 616cf6")},
	},
	{
		name: "keys out of order", right: ours, rule: "keys sorted, " + specRepo,
		holds: nodeForgives(fOrder), shown: [][]byte{keysNode("b", "a"), keysNode("a", "a")},
	},
	{
		name: "prefix not the longest", right: ours, rule: "prefix compression is mandatory, " + specRepo,
		holds: nodeForgives(fPrefix), shown: [][]byte{(&node{entries: keysOf("aa", "ab")}).encode(func(int, int) int { return 0 })},
	},
	{
		name: "key empty or over 1024 bytes", right: ours, rule: "keys are paths, " + specRepo,
		holds: nodeForgives(fKeyLength), shown: [][]byte{keysNode(""), keysNode(strings.Repeat("a", 1025))},
	},
	{
		name: "subtree of codec raw", right: ours, rule: "nodes are DAG-CBOR, " + specRepo,
		holds: nodeForgives(fNodeCodec), shown: [][]byte{bytes.Replace((&node{left: linkedTo(nil), entries: keysOf("a")}).encode(longest), []byte("al\xd8\x2a\x58\x25\x00\x01\x71"), []byte("al\xd8\x2a\x58\x25\x00\x01\x55"), 1)},
	},
	{
		name: "more than 256 entries", right: open, rule: "a limit of ours: the specification wants one and gives no number, " + specRepo,
		holds: nodeForgives(fEntries), shown: [][]byte{func() []byte {
			var list []string
			for i := range 257 {
				list = append(list, fmt.Sprintf("%03d", i))
			}
			return keysNode(list...)
		}()},
	},
}}

func longest(p, _ int) int { return p }

func keysOf(keys ...string) (list []entry) {
	for _, k := range keys {
		list = append(list, entry{key: k, value: linkedTo([]byte(k))})
	}
	return list
}

func keysNode(keys ...string) []byte { return (&node{entries: keysOf(keys...)}).encode(longest) }
