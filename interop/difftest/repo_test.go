package difftest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocid "github.com/ipfs/go-cid"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	peerrepo "github.com/bluesky-social/indigo/atproto/repo"
	peermst "github.com/bluesky-social/indigo/atproto/repo/mst"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
)

// peerKey is the key of repotest, for indigo.
var peerKey = func() atcrypto.PublicKey {
	k, err := atcrypto.ParsePublicDIDKey(repotest.Key().Public().DIDKey())
	if err != nil {
		panic(err)
	}
	return k
}()

// contents is what a repository holds.
type contents struct {
	commit
	records map[string]string // path → CID
}

func oursRepo(b []byte) answer {
	return ask(func() (any, error) {
		r, err := repo.Open(bytes.NewReader(b), repo.ReadOptions{Key: repotest.Key().Public(), Records: repo.RecordsAny})
		if err != nil {
			return nil, err
		}
		data := r.Commit().Data
		c := contents{commit{string(r.Commit().DID), string(r.Commit().Rev), string(data[:])}, map[string]string{}}
		for rec, err := range r.Records() {
			if err != nil {
				return nil, err
			}
			if !rec.CID.Verify(rec.Data) {
				return nil, fmt.Errorf("record %s isn't what its CID names", rec.Path)
			}
			c.records[string(rec.Path)] = string(rec.CID[:])
		}
		return c, nil
	})
}

func theirRepo(b []byte) answer {
	return ask(func() (any, error) {
		commit2, r, err := peerrepo.LoadRepoFromCAR(context.Background(), bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		if err := commit2.VerifySignature(peerKey); err != nil {
			return nil, err
		}
		c := contents{commit{commit2.DID, commit2.Rev, string(commit2.Data.Bytes())}, map[string]string{}}
		m := map[string]gocid.Cid{}
		if err := r.MST.WriteToMap(m); err != nil {
			return nil, err
		}
		for k, v := range m {
			c.records[k] = string(v.Bytes())
		}
		return c, nil
	})
}

// modelRepo says by the slow model whether a repository keeps all rules.
func modelRepo(b []byte) (answer, faults) {
	f := faults{}
	a := split(b, f)
	commit, ok := a.readCommit(peerKey, f)
	var records map[string]string
	if ok {
		records = a.readTree([]byte(commit.Data), f)
		for _, c := range records {
			if _, ok := a.find([]byte(c)); !ok {
				f[fNoRecord] = true
			}
		}
	}
	if len(f) > 0 {
		return answer{err: fmt.Errorf("%v", f)}, f
	}
	return answer{value: contents{commit, records}}, f
}

// FuzzRepo compares whole repositories: with the slow model in everything, and with indigo.
func FuzzRepo(f *testing.F) {
	for _, b := range repoSeeds(f) {
		f.Add(b, uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if seed != 0 {
			b = mutateArchive(b, seed)
		}
		compareRepo(t, b)
	})
}

func compareRepo(t testing.TB, b []byte) string {
	t.Helper()
	mine := oursRepo(b)
	model, _ := modelRepo(b)
	if !same(mine, model) {
		t.Errorf("%s\nours  %v\nmodel %v", show(b), mine, model)
	}
	return repoTable.judge(t, b, mine, theirRepo(b))
}

func TestRepoMutations(t *testing.T) {
	for _, b := range repoSeeds(t) {
		if len(b) > 20_000 {
			continue
		}
		for seed := range rounds(60) {
			if compareRepo(t, mutateArchive(b, uint64(seed)+1)); t.Failed() {
				return
			}
		}
	}
}

// repoSeeds are the repositories that are wrong in one way each, and good ones.
func repoSeeds(t testing.TB) [][]byte {
	var list [][]byte
	for _, c := range repotest.Hostile() {
		if len(c.CAR) < 10_000 {
			list = append(list, c.CAR)
		}
	}
	for _, n := range []int{0, 1, 2, 8, 40} {
		list = append(list, goodRepo(n))
	}
	list = append(list, small(func(a *archive) { // a record that is a node, too
		for i, k := range a.blocks {
			if n := readNode(k.data, faults{}); n != nil && n.left != nil {
				n.entries[0].value = n.left
				a.set(i, n.encode(longest))
				a.blocks[1], a.blocks[i] = a.blocks[i], a.blocks[1] // in streamable order
				return
			}
		}
	}))
	return append(list, fixtures.Read(t, "cars/tiny.car"), fixtures.Read(t, "cars/empty.car"))
}

// goodRepo makes a repository of n records, on several layers.
func goodRepo(n int) []byte {
	records := map[string][]byte{}
	var writes []repo.Write
	for i := range n {
		p := repotest.Path("com.example.b", i%4, i/4)
		records[p] = repotest.Record(p)
		writes = append(writes, repo.Write{Path: p, Record: records[p]})
	}
	u, tree, err := repo.Apply(mst.New(), writes, repotest.DID, repotest.Rev, repotest.Key())
	if err != nil {
		panic(err)
	}
	var out bytes.Buffer
	if err := repo.WriteCAR(&out, u.Block, tree, func(path string, _ cid.CID) ([]byte, error) { return records[path], nil }); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func aboutRepo(b []byte) faults { _, f := modelRepo(b); return f }

// What indigo forgives in a repository. It builds the tree as the nodes say and never asks whether it is a tree.
var repoLax = []fault{fVarint, fHeader, fRootCodec, fBlockCID, fCommit, fNode, fNodeCodec, fPrefix, fOrder, fKeyLength, fPath, fEntries, fLayer, fChildLayer, fBounds, fEmpty, fTop,
	fNoNode, fNoRecord, fTruncated}

var repoForgives = laxity(aboutRepo, repoLax)

// hostile gives a repository of repotest.
func hostile(names ...string) (list [][]byte) {
	for _, c := range repotest.Hostile() {
		if slices.Contains(names, c.Name) {
			list = append(list, c.CAR)
		}
	}
	if len(list) != len(names) {
		panic(fmt.Sprint("no such repositories: ", names))
	}
	return list
}

// small is a repository of three nodes, for changes.
func small(change func(a *archive)) []byte {
	b := repotest.NewBuilder()
	leaf := func(c string) cid.CID { return b.Node(cid.CID{}, b.Entry(repotest.Path("com.example."+c, 0, 0))) }
	a := split(b.CAR(b.Node(leaf("a"), b.Entry(repotest.Path("com.example.b", 1, 0), leaf("c")))), faults{})
	change(a)
	return a.join()
}

var repoTable = table[[]byte]{name: "indigo repo", list: []difference[[]byte]{
	{
		name: "panics", right: ours, rule: "a prefix is no longer than the key before, and a node has entries or a subtree, " + specRepo,
		holds: func(b []byte, mine, peer answer) bool {
			return mine.err != nil && hasPanicked(peer)
		},
		shown: [][]byte{small(func(a *archive) {
			for i, k := range a.blocks {
				if bytes.Contains(k.data, []byte("ap\x00")) {
					a.set(i, bytes.Replace(k.data, []byte("ap\x00"), []byte("ap\x01"), 1))
					return
				}
			}
		})},
	},
	{
		name: "file cut behind a length", right: ours, rule: "a block is as long as is said before it, " + specCAR,
		holds: repoForgives(fTruncated), shown: [][]byte{append(goodRepo(1), 0x50), append(goodRepo(1), 0x80, 0x01)},
	},
	{
		name: "length not in its shortest form", right: ours, rule: "shortest varints, " + specCAR,
		holds: repoForgives(fVarint), shown: [][]byte{append([]byte{goodRepo(1)[0] | 0x80, 0}, goodRepo(1)[1:]...)},
	},
	{
		name: "header of another form", right: ours, rule: "roots and version in DAG-CBOR and nothing else, " + specCAR,
		holds: repoForgives(fHeader), shown: [][]byte{
			small(func(a *archive) {
				a.header = bytes.Replace(a.header, []byte("version\x01"), []byte("version\x18\x01"), 1)
			}),
			small(func(a *archive) { a.header = append(a.header, 0) }),
		},
	},
	{
		name: "root of codec raw", right: ours, rule: "a commit is DAG-CBOR, " + specRepo,
		holds: repoForgives(fRootCodec), shown: [][]byte{small(func(a *archive) {
			old := a.blocks[0].cid
			c := bytes.Clone(old)
			c[1] = 0x55
			a.header, a.blocks[0].cid = bytes.Replace(a.header, old, c, 1), c
		})},
	},
	{
		name: "block under a CID of another kind", right: ours, rule: "CIDs of the protocol, " + specCAR,
		holds: repoForgives(fBlockCID), shown: [][]byte{small(func(a *archive) {
			a.blocks = append(a.blocks, block{append([]byte{1, 0x70, 0x12, 32}, linkedTo([]byte("x"))[4:]...), []byte("x")})
		})},
	},
	{
		name: "commit of another form", right: ours, rule: "exactly the fields of version 3, encoded canonically, " + specRepo,
		holds: repoForgives(fCommit), shown: hostile("commit without prev"),
	},
	{
		name: "node missing", right: ours, rule: "the file of a repository has all of it, " + specSync + "; a partial tree is meant for messages only",
		holds: repoForgives(fNoNode), shown: hostile("node missing"),
	},
	{
		name: "record missing", right: ours, rule: "the file of a repository has all of it, " + specSync,
		holds: repoForgives(fNoRecord), shown: hostile("record missing"),
	},
	{
		name: "node of another form", right: ours, rule: "canonical encoding of exactly the fields, " + specRepo,
		holds: repoForgives(fNode), shown: hostile("node with another field", "node with bytes behind it", "commit links to a record"),
	},
	{
		name: "subtree of codec raw", right: ours, rule: "nodes are DAG-CBOR, " + specRepo,
		holds: repoForgives(fNodeCodec), shown: [][]byte{small(func(a *archive) {
			for i, k := range a.blocks {
				if n := readNode(k.data, faults{}); n != nil && n.left != nil {
					for j := range a.blocks {
						if bytes.Equal(a.blocks[j].cid, n.left) {
							a.blocks[j].cid = bytes.Clone(n.left)
							a.blocks[j].cid[1] = 0x55
							n.left = a.blocks[j].cid
						}
					}
					a.set(i, n.encode(longest))
					return
				}
			}
		})},
	},
	{
		name: "prefix not the longest", right: ours, rule: "prefix compression is mandatory, " + specRepo,
		holds: repoForgives(fPrefix), shown: hostile("prefix not the longest"),
	},
	{
		name: "keys out of order", right: ours, rule: "keys sorted, " + specRepo,
		holds: repoForgives(fOrder), shown: hostile("keys out of order", "key twice"),
	},
	{
		name: "too many entries", right: open, rule: "a limit of ours: the specification wants one and gives no number, " + specRepo,
		holds: repoForgives(fEntries), shown: hostile("too many entries"),
	},
	{
		name: "key on the wrong layer", right: ours, rule: "the layer is in the hash of the key, " + specRepo,
		holds: repoForgives(fLayer), shown: hostile("key on the wrong layer"),
	},
	{
		name: "child on the wrong layer", right: ours, rule: "a child is one layer down, " + specRepo,
		holds: repoForgives(fChildLayer), shown: hostile("layer skipped", "child as high as its parent", "siblings on different layers", "child of a leaf", "a thousand nodes without entries"),
	},
	{
		name: "key outside its parent's bounds", right: ours, rule: "a subtree lies between the keys around it, " + specRepo,
		holds: repoForgives(fBounds), shown: hostile("subtree above its upper bound", "subtree below its lower bound", "bounds of a grandparent", "the same subtree twice"),
	},
	{
		name: "node without entries or subtree", right: ours, rule: "no empty leaves, " + specRepo,
		holds: repoForgives(fEmpty), shown: hostile("empty leaf"),
	},
	{
		name: "top node without entries", right: ours, rule: "the top node is on the layer of its highest key, " + specRepo,
		holds: repoForgives(fTop), shown: hostile("empty top"),
	},
	{
		name: "key empty or over 1024 bytes", right: ours, rule: "keys are paths, " + specRepo,
		holds: repoForgives(fKeyLength), shown: [][]byte{func() []byte {
			b := repotest.NewBuilder()
			return b.CAR(b.Node(cid.CID{}, b.Entry("")))
		}()},
	},
	{
		name: "key that is no path in normal form", right: ours, rule: "a normalised NSID, a slash and a record key, " + specRepo,
		holds: repoForgives(fPath), shown: hostile("path without a record key", "path with a leading slash", "path with three segments", "path not in normal form", "path with a bad collection", "path outside ASCII",
			"path with a space", "long path"),
	},
}}

// FuzzTree compares trees under changes: after each round the root has to be indigo's, and the entries those of a map.
func FuzzTree(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint16(50))
	}
	f.Add(uint64(92), uint16(20)) // is empty for a while
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) { compareTrees(t, seed, int(steps%500)) })
}

func TestTrees(t *testing.T) {
	for seed := range uint64(rounds(20)) {
		compareTrees(t, 1000+seed, 200)
	}
}

func compareTrees(t testing.TB, seed uint64, steps int) {
	t.Helper()
	r := seeded(seed)
	universe := 1 + r.IntN(300)
	tree, before := mst.New(), mst.New()
	peer := peerTree(t, nil)
	model, old := map[string]cid.CID{}, map[string]cid.CID{}
	var log []string // keys that came and went, for the table
	for step := range steps {
		key := fmt.Sprintf("com.example.%c/%04d", 'a'+byte(r.IntN(3)), r.IntN(universe))
		if r.IntN(50) == 0 {
			key = strings.Repeat(string(rune('a'+r.IntN(4))), 1+r.IntN(60))
		}
		if r.IntN(3) == 0 && len(model) > 0 && r.IntN(2) == 0 {
			key = someKey(r, model)
		}
		if r.IntN(3) == 0 {
			prev, had, err := tree.Delete(key)
			if err != nil || had != (model[key] != cid.CID{}) || prev != model[key] {
				t.Fatalf("deleting %q: %v, %v, %v", key, prev, had, err)
			}
			if _, err := peer.Remove([]byte(key)); err != nil {
				t.Fatalf("indigo: %v", err)
			}
			delete(model, key)
			log = append(log, "-"+key)
		} else {
			v := cid.Sum(cid.DagCBOR, fmt.Append(nil, r.IntN(1000)))
			prev, had, err := tree.Put(key, v)
			if err != nil || had != (model[key] != cid.CID{}) || prev != model[key] {
				t.Fatalf("putting %q: %v, %v, %v", key, prev, had, err)
			}
			if _, err := peer.Insert([]byte(key), goCID(v)); err != nil {
				t.Fatalf("indigo: %v", err)
			}
			model[key] = v
			log = append(log, "+"+key)
		}
		if r.IntN(20) > 0 && step+1 < steps {
			continue
		}
		root, err := tree.Root()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := peer.RootCID()
		if err != nil {
			t.Fatal(err)
		}
		if treeTable.judge(t, log, answer{value: string(root[:])}, answer{value: string(theirs.Bytes())}) != "" {
			if t.Failed() {
				return
			}
			peer = peerTree(t, model)
			if fresh, err := peer.RootCID(); err != nil || !bytes.Equal(root[:], fresh.Bytes()) {
				t.Fatalf("after %d steps of seed %d: root %s, that of a new tree is %s, %v", step+1, seed, root, fresh, err)
			}
		}
		var got, want []mst.Delta
		for d, err := range mst.Diff(before, tree) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, d)
		}
		for k := range union(old, model) {
			if old[k] != model[k] {
				want = append(want, mst.Delta{Key: k, Old: old[k], New: model[k]})
			}
		}
		slices.SortFunc(want, func(a, b mst.Delta) int { return strings.Compare(a.Key, b.Key) })
		if !slices.Equal(got, want) {
			t.Fatalf("after %d steps of seed %d: difference %v, want %v", step+1, seed, got, want)
		}
		if r.IntN(3) == 0 {
			before = tree.Clone()
			old = union(model, nil)
		}
	}
	theirs, err := peerTree(t, model).RootCID()
	if err != nil {
		t.Fatal(err)
	}
	var b mst.Builder
	for e, err := range tree.Walk() {
		if err != nil || model[e.Key] != e.Value {
			t.Fatalf("%q: %v, want %v, %v", e.Key, e.Value, model[e.Key], err)
		}
		if err := b.Add(e.Key, e.Value); err != nil {
			t.Fatal(err)
		}
	}
	if root, err := b.Finish(); err != nil || !bytes.Equal(root[:], theirs.Bytes()) {
		t.Fatalf("seed %d: built root %s, indigo's %s, %v", seed, root, theirs, err)
	}
}

// follow does what a log says to both trees, with one value for all keys.
func follow(t testing.TB, log []string) (mine, theirs answer) {
	t.Helper()
	tree, peer := mst.New(), peerTree(t, nil)
	v := cid.Sum(cid.DagCBOR, nil)
	for _, step := range log {
		key := step[1:]
		var err, perr error
		if step[0] == '+' {
			_, _, err = tree.Put(key, v)
			_, perr = peer.Insert([]byte(key), goCID(v))
		} else {
			_, _, err = tree.Delete(key)
			_, perr = peer.Remove([]byte(key))
		}
		if err != nil || perr != nil {
			t.Fatal(step, err, perr)
		}
	}
	root, err := tree.Root()
	if err != nil {
		t.Fatal(err)
	}
	other, err := peer.RootCID()
	if err != nil {
		t.Fatal(err)
	}
	return answer{value: string(root[:])}, answer{value: string(other.Bytes())}
}

var treeTable = table[[]string]{name: "indigo tree", list: []difference[[]string]{{
	name: "tree that was emptied keeps its height", right: ours, rule: "the tree depends on nothing but its keys and values, " + specRepo + "; indigo's own tree of the same map agrees",
	holds: func(log []string, mine, peer answer) bool {
		have, emptied := map[string]cid.CID{}, false
		v := cid.Sum(cid.DagCBOR, nil)
		for _, step := range log {
			if step[0] == '+' {
				have[step[1:]] = v
			} else {
				delete(have, step[1:])
				emptied = emptied || len(have) == 0
			}
		}
		tree, err := peermst.LoadTreeFromMap(toGo(have))
		if err != nil {
			return false
		}
		fresh, err := tree.RootCID()
		if err != nil {
			return false
		}
		var b mst.Builder
		for _, k := range slices.Sorted(maps.Keys(have)) {
			if err := b.Add(k, v); err != nil {
				return false
			}
		}
		built, err := b.Finish()
		return emptied && err == nil && bytes.Equal(built[:], fresh.Bytes())
	},
	shown: [][]string{{"+" + repotest.Path("com.example.a", 2, 0), "-" + repotest.Path("com.example.a", 2, 0), "+" + repotest.Path("com.example.a", 1, 0)}},
}}}

func union(a, b map[string]cid.CID) map[string]cid.CID {
	m := map[string]cid.CID{}
	for k, v := range a {
		m[k] = v
	}
	for k, v := range b {
		m[k] = v
	}
	return m
}

func someKey(r *rand.Rand, m map[string]cid.CID) string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list[r.IntN(len(list))]
}

func goCID(c cid.CID) gocid.Cid {
	out, err := gocid.Cast(c[:])
	if err != nil {
		panic(err)
	}
	return out
}

var errFaults = errors.New("faults")
