package repo_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
)

// A tree that breaks a rule proves nothing about the paths that lead by the fault: neither that a record is there nor that
// it isn't.
func TestHostileTreesInProofs(t *testing.T) {
	for _, c := range repotest.Hostile() {
		if !c.Reason.Tree() {
			continue
		}
		var paths []string
		for _, collection := range []string{"com.example.a", "com.example.b", "com.example.c", "com.example.z"} {
			for layer := range 4 {
				paths = append(paths, repotest.Path(collection, layer, 0), repotest.Path(collection, layer, 1), repotest.Path(collection, layer, 2))
			}
		}
		found := false
		for _, p := range paths {
			proof, err := repo.VerifyProof(c.CAR, repotest.DID, p, repotest.Key().Public())
			found = found || reasonOf(err) == c.Reason
			if err == nil && proof.Found() && !bytes.Equal(proof.Record, repotest.Record(p)) {
				t.Errorf("%s: %s proves another record", c.Name, p)
			}
		}
		if !found {
			t.Errorf("%s: no path fails with %s", c.Name, c.Reason)
		}
	}
}

func TestHostileProofs(t *testing.T) {
	var none cid.CID
	a, b, c := repotest.Path("com.example.a", 0, 0), repotest.Path("com.example.b", 1, 0), repotest.Path("com.example.c", 0, 0)
	type blocks struct {
		*repotest.Builder
		left, right cid.CID // leaves with a and c; b is in the top
	}
	// build makes a tree of three records, and gives its proof as a file with all blocks in it.
	build := func(edit func(r *blocks)) []byte {
		r := &blocks{Builder: repotest.NewBuilder()}
		r.left, r.right = r.Node(none, r.Entry(a)), r.Node(none, r.Entry(c))
		root := r.Node(r.left, r.Entry(b, r.right))
		if edit != nil {
			edit(r)
		}
		return r.CAR(root)
	}
	record := func(p string) cid.CID { return cid.Sum(cid.DagCBOR, repotest.Record(p)) }
	p256 := newKey(t, keys.P256)
	for _, k := range []struct {
		name   string
		path   string
		reason repo.Reason
		edit   func(r *blocks)
	}{
		{"whole tree", a, "", nil},
		{"nothing but what leads there", b, "", func(r *blocks) { r.Drop(r.left); r.Drop(r.right); r.Drop(record(a)); r.Drop(record(c)) }},
		{"blocks of something else", a, "", func(r *blocks) { r.Add([]byte("junk")) }},
		{"absence left to belief", a, repo.ReasonMissingNode, func(r *blocks) { r.Drop(r.left); r.Drop(record(a)) }},
		{"absence by a node of another place", a, repo.ReasonBlockHash, func(r *blocks) {
			r.Drop(r.left)
			r.Lie(r.left, (&mst.Node{}).Append(nil))
		}},
		{"record left out", a, repo.ReasonMissingRecord, func(r *blocks) { r.Drop(record(a)) }},
		{"another record under its name", a, repo.ReasonBlockHash, func(r *blocks) { r.Drop(record(a)); r.Lie(record(a), repotest.Record(c)) }},
		{"another account", a, repo.ReasonCommitDID, func(r *blocks) { r.Commit.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb" }},
		{"another key", a, repo.ReasonSignature, func(r *blocks) { r.Sign = p256 }},
		{"commit of version 2", a, repo.ReasonCommitVersion, func(r *blocks) { r.Commit.Version = repo.LegacyVersion }},
		{"no path", "com.example.a", repo.ReasonPathSyntax, nil},
		{"path not in normal form", "com.EXAMPLE.a/1", repo.ReasonPathSyntax, nil},
	} {
		file := build(k.edit)
		p, err := repo.VerifyProof(file, repotest.DID, k.path, repotest.Key().Public())
		if reasonOf(err) != k.reason || (err == nil) != (k.reason == "") {
			t.Errorf("%s: %v, want %q", k.name, err, k.reason)
		}
		if err == nil && (p.CID != record(k.path) || !p.Signed) || err != nil && (p.Found() || p.Record != nil) {
			t.Errorf("%s: %+v", k.name, p)
		}
	}

	good := build(nil)
	roots, all := readCAR(t, good)
	for name, k := range map[string]struct {
		file   []byte
		reason repo.Reason
	}{
		"cut short":         {good[:len(good)-1], repo.ReasonCAR},
		"empty":             {nil, repo.ReasonCAR},
		"no root":           {writeCAR(nil, all), repo.ReasonCARRoot},
		"root of codec raw": {writeCAR([]cid.CID{cid.FromDigest(cid.Raw, roots[0].Digest())}, all), repo.ReasonCARRoot},
		"node as root":      {writeCAR([]cid.CID{firstNode(t, all)}, all), repo.ReasonCommitShape},
		"no commit": {writeCAR(roots, maps.Collect(func(yield func(cid.CID, []byte) bool) {
			for c, b := range all {
				if c != roots[0] && !yield(c, b) {
					return
				}
			}
		})), repo.ReasonMissingCommit},
		"the commit comes second": {writeCAR(append(slices.Clone(roots), firstNode(t, all)), all), ""},
	} {
		if _, err := repo.VerifyProof(k.file, repotest.DID, a, repotest.Key().Public()); reasonOf(err) != k.reason || (err == nil) != (k.reason == "") {
			t.Errorf("%s: %v, want %q", name, err, k.reason)
		}
	}

	// The proof of one record is none of another, nor of its absence.
	tree := mst.New()
	for _, p := range []string{a, b, c} {
		tree.Put(p, record(p))
	}
	u, tree, err := repo.Apply(tree, []repo.Write{put("com.example.note/x", "x")}, repotest.DID, repotest.Rev, repotest.Key())
	if err != nil {
		t.Fatal(err)
	}
	proof, err := repo.MakeProof(u.Block, tree, a, repotest.Record(a))
	if err != nil {
		t.Fatal(err)
	}
	for p, reason := range map[string]repo.Reason{b: repo.ReasonMissingRecord, c: repo.ReasonMissingNode, c + "1": repo.ReasonMissingNode} {
		if _, err := repo.VerifyProof(proof, repotest.DID, p, repotest.Key().Public()); reasonOf(err) != reason {
			t.Errorf("proof of %s, asked for %s: %v, want %s", a, p, err, reason)
		}
	}

	// None is made of what isn't so.
	stale := mst.New()
	stale.Put(a, record(a))
	for name, err := range map[string]error{
		"absence of what is there": second(repo.MakeProof(u.Block, tree, a, nil)),
		"another record":           second(repo.MakeProof(u.Block, tree, a, repotest.Record(b))),
		"record that isn't there":  second(repo.MakeProof(u.Block, tree, a+"1", repotest.Record(b))),
		"commit of another tree":   second(repo.MakeProof(u.Block, stale, a, repotest.Record(a))),
		"no commit":                second(repo.MakeProof(repotest.Record("x"), tree, a, repotest.Record(a))),
		"no path":                  second(repo.MakeProof(u.Block, tree, "x", nil)),
	} {
		if err == nil {
			t.Errorf("a proof was made: %s", name)
		}
	}
}

// firstNode returns a block that isn't the commit.
func firstNode(t *testing.T, blocks map[cid.CID][]byte) cid.CID {
	for c, b := range blocks {
		if new(mst.Node).Decode(b) == nil {
			return c
		}
	}
	t.Fatal("no node")
	return cid.CID{}
}

// FuzzProof holds what a proof says against the blocks that are in it.
func FuzzProof(f *testing.F) {
	p := repotest.Path("com.example.a", 0, 0)
	for _, c := range repotest.Hostile() {
		if len(c.CAR) < 5000 {
			f.Add(c.CAR, p)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		for _, key := range []*keys.PublicKey{nil, repotest.Key().Public()} {
			proof, err := repo.VerifyProof(b, repotest.DID, path, key)
			switch {
			case err != nil && (reasonOf(err) == "" || proof.Found()):
				t.Fatalf("%v: %+v", err, proof)
			case err == nil && (proof.Signed != (key != nil) || proof.Found() != proof.CID.Verify(proof.Record)):
				t.Fatalf("%+v", proof)
			}
		}
	})
}
