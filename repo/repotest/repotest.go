// Package repotest makes repositories and messages for tests, good ones and hostile ones: signed, consistent by hash, and
// wrong in one way.
//
// Specification: https://atproto.com/specs/repository. The package makes no use of the tree's editing code, so that it can
// build what that code never would. Only tests import it.
//
//	for _, c := range repotest.Hostile() {
//		r, err := repo.Open(bytes.NewReader(c.CAR), repo.ReadOptions{Key: repotest.Key().Public()})
//		// … fails with c.Reason
//	}
//	for _, c := range repotest.HostileMessages() {
//		_, err := c.Bad.Verify()  // fails with c.Reason
//		_, err = c.Good.Verify()  // differs in nothing but what the rule is about, and passes
//	}
package repotest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// DID is the account of all repositories of this package.
const DID syntax.DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"

// Rev is the revision of all repositories of this package.
const Rev syntax.TID = "3lscuqc52or2x"

// Key returns the signing key of all repositories of this package.
func Key() *keys.PrivateKey {
	k, err := keys.NewPrivate(keys.K256, bytes.Repeat([]byte{7}, 32))
	if err != nil {
		panic(err)
	}
	return k
}

// Path returns the nth record path of a collection that lies on the given layer of the tree.
func Path(collection string, layer, nth int) string {
	for i := 0; ; i++ {
		if p := fmt.Sprintf("%s/%05d", collection, i); mst.Layer(p) == layer {
			if nth--; nth < 0 {
				return p
			}
		}
	}
}

// Record returns a valid record with the given text.
func Record(text string) []byte {
	b := cbor.AppendMap(nil, 2)
	b = cbor.AppendText(b, "text")
	b = cbor.AppendText(b, text)
	b = cbor.AppendText(b, "$type")
	return cbor.AppendText(b, "com.example.note")
}

// Builder puts a repository together block by block, without any check.
type Builder struct {
	Commit repo.Commit // what to sign, apart from Data
	Sign   repo.Signer

	blocks []blockData
}

type blockData struct {
	cid  cid.CID
	data []byte
}

// NewBuilder returns a builder of a repository with the DID, revision and key of this package.
func NewBuilder() *Builder {
	return &Builder{Commit: repo.Commit{DID: DID, Rev: Rev, Version: repo.Version}, Sign: Key()}
}

// Add adds a block and returns its CID.
func (b *Builder) Add(data []byte) cid.CID {
	c := cid.Sum(cid.DagCBOR, data)
	b.blocks = append(b.blocks, blockData{c, data})
	return c
}

// Lie adds a block under a CID that isn't its own.
func (b *Builder) Lie(c cid.CID, data []byte) { b.blocks = append(b.blocks, blockData{c, data}) }

// Drop takes out all blocks with the CID.
func (b *Builder) Drop(c cid.CID) {
	kept := b.blocks[:0]
	for _, k := range b.blocks {
		if k.cid != c {
			kept = append(kept, k)
		}
	}
	b.blocks = kept
}

// Entry returns an entry with a record of its own, which it adds, and with at most one subtree to its right.
func (b *Builder) Entry(path string, right ...cid.CID) mst.NodeEntry {
	e := mst.NodeEntry{Key: []byte(path), Value: b.Add(Record(path))}
	if len(right) > 0 {
		e.Right = right[0]
	}
	return e
}

// Node adds a node. Left may be the zero CID.
func (b *Builder) Node(left cid.CID, entries ...mst.NodeEntry) cid.CID {
	return b.Add((&mst.Node{Left: left, Entries: entries}).Append(nil))
}

// CAR signs a commit over the tree with the given root and returns the file: the commit, then the other blocks in the
// order in which they were added.
func (b *Builder) CAR(root cid.CID) []byte {
	b.Commit.Data = root
	if err := b.Commit.Sign(b.Sign); err != nil {
		panic(err)
	}
	return b.File(b.Commit.Encode())
}

// File returns the file with any block for a commit.
func (b *Builder) File(commit []byte) []byte {
	top := cid.Sum(cid.DagCBOR, commit)
	out := car.AppendHeader(nil, top)
	out = car.AppendBlock(out, top, commit)
	for _, k := range b.blocks {
		out = car.AppendBlock(out, k.cid, k.data)
	}
	return out
}

// Case is a repository that must not pass.
type Case struct {
	Name   string
	Reason repo.Reason
	CAR    []byte
	// Record says that only a record is wrong: the rest of the repository stays usable, and reading reports the fault at its
	// end instead of stopping.
	Record bool
}

// Hostile returns the cases.
func Hostile() []Case {
	const a, b, c, z = "com.example.a", "com.example.b", "com.example.c", "com.example.z"
	var none cid.CID
	var out []Case
	tree := func(name string, reason repo.Reason, build func(r *Builder) cid.CID) {
		r := NewBuilder()
		out = append(out, Case{Name: name, Reason: reason, CAR: r.CAR(build(r))})
	}
	tree("key on the wrong layer", repo.ReasonTreeLayer, func(r *Builder) cid.CID {
		return r.Node(none, r.Entry(Path(a, 1, 0)), r.Entry(Path(b, 0, 0)))
	})
	tree("layer skipped", repo.ReasonTreeDepth, func(r *Builder) cid.CID {
		return r.Node(r.Node(none, r.Entry(Path(a, 0, 0))), r.Entry(Path(b, 2, 0)))
	})
	tree("child as high as its parent", repo.ReasonTreeDepth, func(r *Builder) cid.CID {
		return r.Node(r.Node(none, r.Entry(Path(a, 1, 0))), r.Entry(Path(b, 1, 0)))
	})
	tree("siblings on different layers", repo.ReasonTreeDepth, func(r *Builder) cid.CID {
		left, right := r.Node(none, r.Entry(Path(a, 1, 0))), r.Node(none, r.Entry(Path(c, 0, 0)))
		return r.Node(left, r.Entry(Path(b, 2, 0), right))
	})
	tree("child of a leaf", repo.ReasonTreeDepth, func(r *Builder) cid.CID {
		return r.Node(r.Node(none, r.Entry(Path(a, 0, 0))), r.Entry(Path(b, 0, 0)))
	})
	tree("a thousand nodes without entries", repo.ReasonTreeDepth, func(r *Builder) cid.CID {
		n := r.Node(none, r.Entry(Path(a, 0, 0)))
		for range 1000 {
			n = r.Node(n)
		}
		return r.Node(n, r.Entry(Path(b, 3, 0)))
	})
	tree("subtree above its upper bound", repo.ReasonTreeBounds, func(r *Builder) cid.CID {
		return r.Node(r.Node(none, r.Entry(Path(a, 0, 0)), r.Entry(Path(c, 0, 0))), r.Entry(Path(b, 1, 0)))
	})
	tree("subtree below its lower bound", repo.ReasonTreeBounds, func(r *Builder) cid.CID {
		return r.Node(none, r.Entry(Path(b, 1, 0), r.Node(none, r.Entry(Path(a, 0, 0)), r.Entry(Path(c, 0, 0)))))
	})
	tree("bounds of a grandparent", repo.ReasonTreeBounds, func(r *Builder) cid.CID {
		return r.Node(r.Node(none, r.Entry(Path(a, 1, 0), r.Node(none, r.Entry(Path(z, 0, 0))))), r.Entry(Path(b, 2, 0)))
	})
	tree("the same subtree twice", repo.ReasonTreeBounds, func(r *Builder) cid.CID {
		leaf := r.Node(none, r.Entry(Path(a, 0, 0)))
		return r.Node(leaf, r.Entry(Path(b, 1, 0), leaf))
	})
	tree("node with the codec of a blob", repo.ReasonTreeLink, func(r *Builder) cid.CID {
		leaf := r.Node(none, r.Entry(Path(a, 0, 0)))
		leaf[1] = byte(cid.Raw)
		return r.Node(leaf, r.Entry(Path(b, 1, 0)))
	})
	tree("empty leaf", repo.ReasonTreeEmpty, func(r *Builder) cid.CID {
		return r.Node(r.Node(none), r.Entry(Path(b, 1, 0)))
	})
	tree("empty top", repo.ReasonTreeTop, func(r *Builder) cid.CID {
		return r.Node(r.Node(none, r.Entry(Path(a, 0, 0))))
	})
	tree("keys out of order", repo.ReasonTreeOrder, func(r *Builder) cid.CID {
		return r.Node(none, r.Entry(Path(b, 0, 0)), r.Entry(Path(a, 0, 0)))
	})
	tree("key twice", repo.ReasonTreeOrder, func(r *Builder) cid.CID {
		return r.Node(none, r.Entry(Path(b, 0, 0)), r.Entry(Path(b, 0, 0)))
	})
	tree("too many entries", repo.ReasonTreeEntries, func(r *Builder) cid.CID {
		var entries []mst.NodeEntry
		for i := 0; len(entries) <= mst.MaxEntries; i++ {
			if p := fmt.Sprintf("%s/%05d", a, i); mst.Layer(p) == 0 {
				entries = append(entries, r.Entry(p))
			}
		}
		return r.Node(none, entries...)
	})
	tree("prefix not the longest", repo.ReasonTreePrefix, func(r *Builder) cid.CID {
		return r.Add(shorterPrefix(r, Path(a, 0, 0), Path(a, 0, 1)))
	})
	tree("node with another field", repo.ReasonTreeEncoding, func(r *Builder) cid.CID {
		n := (&mst.Node{Entries: []mst.NodeEntry{r.Entry(Path(a, 0, 0))}}).Append(nil)
		return r.Add(append([]byte("\xa3\x61d\x00"), n[1:]...))
	})
	tree("node with bytes behind it", repo.ReasonTreeEncoding, func(r *Builder) cid.CID {
		return r.Add(append((&mst.Node{Entries: []mst.NodeEntry{r.Entry(Path(a, 0, 0))}}).Append(nil), 0xf6))
	})
	tree("commit links to a record", repo.ReasonTreeEncoding, func(r *Builder) cid.CID {
		return r.Add(Record("not a node"))
	})
	for _, k := range []struct{ name, prefix string }{
		{"path without a record key", "com.example.note"},
		{"path with a leading slash", "/com.example.note/"},
		{"path with three segments", "com.example.note/a/"},
		{"path not in normal form", "com.EXAMPLE.note/"},
		{"path with a bad collection", "example/"},
		{"path outside ASCII", "com.example.note/é"},
		{"path with a space", "com.example.note/ "},
		{"long path", "com.example.note/" + strings.Repeat("x", 600)},
	} {
		tree(k.name, repo.ReasonTreeKey, func(r *Builder) cid.CID {
			key := k.prefix
			for i := 0; mst.Layer(key) != 0 || i == 0; i++ {
				if key = k.prefix; strings.Contains(key, "/") {
					key += fmt.Sprint(i)
				} else {
					key += strings.Repeat("a", i)
				}
			}
			return r.Node(none, r.Entry(key))
		})
	}

	good := func(r *Builder) cid.CID {
		return r.Node(r.Node(none, r.Entry(Path(a, 0, 0))), r.Entry(Path(b, 1, 0), r.Node(none, r.Entry(Path(c, 0, 0)))))
	}
	other := func(name string, reason repo.Reason, build func(r *Builder) []byte) {
		out = append(out, Case{Name: name, Reason: reason, CAR: build(NewBuilder())})
	}
	other("node missing", repo.ReasonMissingNode, func(r *Builder) []byte {
		root := good(r)
		r.Drop(cid.Sum(cid.DagCBOR, (&mst.Node{Entries: []mst.NodeEntry{r.Entry(Path(c, 0, 0))}}).Append(nil)))
		return r.CAR(root)
	})
	other("record missing", repo.ReasonMissingRecord, func(r *Builder) []byte {
		root := good(r)
		r.Drop(cid.Sum(cid.DagCBOR, Record(Path(b, 1, 0))))
		return r.CAR(root)
	})
	other("block of another hash", repo.ReasonBlockHash, func(r *Builder) []byte {
		root := good(r)
		c := cid.Sum(cid.DagCBOR, Record(Path(b, 1, 0)))
		r.Drop(c)
		r.Lie(c, Record("something else"))
		return r.CAR(root)
	})
	other("unlinked block of another hash", repo.ReasonBlockHash, func(r *Builder) []byte {
		root := good(r)
		r.Lie(cid.Sum(cid.DagCBOR, []byte("this")), []byte("that"))
		return r.CAR(root)
	})
	other("file cut short", repo.ReasonCAR, func(r *Builder) []byte {
		b := r.CAR(good(r))
		return b[:len(b)-3]
	})
	other("commit missing", repo.ReasonMissingCommit, func(r *Builder) []byte {
		good(r)
		b := car.AppendHeader(nil, cid.Sum(cid.DagCBOR, []byte("commit")))
		for _, k := range r.blocks {
			b = car.AppendBlock(b, k.cid, k.data)
		}
		return b
	})
	other("no root", repo.ReasonCARRoot, func(r *Builder) []byte {
		file := r.CAR(good(r))
		header := car.AppendHeader(nil, cid.Sum(cid.DagCBOR, nil))
		return append(car.AppendHeader(nil), file[len(header):]...)
	})
	other("commit of version 1", repo.ReasonCommitVersion, func(r *Builder) []byte {
		r.Commit.Version = 1
		return r.CAR(good(r))
	})
	other("commit with a bad DID", repo.ReasonDIDSyntax, func(r *Builder) []byte {
		r.Commit.DID = "did:plc:"
		return r.CAR(good(r))
	})
	other("commit with a bad revision", repo.ReasonRevSyntax, func(r *Builder) []byte {
		r.Commit.Rev = "yesterday"
		return r.CAR(good(r))
	})
	other("commit without prev", repo.ReasonCommitShape, func(r *Builder) []byte {
		r.Commit.Data = good(r)
		if err := r.Commit.Sign(r.Sign); err != nil {
			panic(err)
		}
		b := r.Commit.Encode()
		b[0]--
		return r.File(bytes.Replace(b, []byte("\x64prev\xf6"), nil, 1))
	})
	other("commit with another field", repo.ReasonCommitShape, func(r *Builder) []byte {
		r.Commit.Data = good(r)
		if err := r.Commit.Sign(r.Sign); err != nil {
			panic(err)
		}
		b := r.Commit.Encode()
		return r.File(append([]byte("\xa7\x61a\x00"), b[1:]...))
	})
	other("commit of another account", repo.ReasonCommitDID, func(r *Builder) []byte {
		r.Commit.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
		return r.CAR(good(r))
	})
	other("commit from the future", repo.ReasonFutureRev, func(r *Builder) []byte {
		r.Commit.Rev = "7zzzzzzzzzzzz"
		return r.CAR(good(r))
	})
	other("signed by another key", repo.ReasonSignature, func(r *Builder) []byte {
		k, err := keys.NewPrivate(keys.K256, bytes.Repeat([]byte{9}, 32))
		if err != nil {
			panic(err)
		}
		r.Sign = k
		return r.CAR(good(r))
	})
	for _, k := range []struct {
		name   string
		reason repo.Reason
		spell  func(sig []byte) []byte
	}{
		{"signature in DER", repo.ReasonSignatureSize, der},
		{"signature in high-S form", repo.ReasonHighS, highS(keys.K256)},
	} {
		other(k.name, k.reason, func(r *Builder) []byte {
			r.Commit.Data = good(r)
			if err := r.Commit.Sign(r.Sign); err != nil {
				panic(err)
			}
			r.Commit.Sig = k.spell(r.Commit.Sig)
			return r.File(r.Commit.Encode())
		})
	}
	other("record over a mebibyte", repo.ReasonRecordTooBig, func(r *Builder) []byte {
		return r.CAR(r.Node(none, mst.NodeEntry{Key: []byte(Path(a, 0, 0)), Value: r.Add(sized(cbor.MaxRecord + 1))}))
	})
	other("more that nothing links to than the repository has", repo.ReasonExtraBlocks, func(r *Builder) []byte {
		root := good(r)
		for i := range 3 {
			r.Add(sized(cbor.MaxRecord/2 + i))
		}
		return r.CAR(root)
	})
	other("changed after signing", repo.ReasonSignature, func(r *Builder) []byte {
		r.CAR(good(r))
		r.Commit.Rev = "3lscuqc52or3x"
		return r.File(r.Commit.Encode())
	})

	record := func(name string, data []byte) {
		r := NewBuilder()
		root := r.Node(none, mst.NodeEntry{Key: []byte(Path(a, 0, 0)), Value: r.Add(data)})
		out = append(out, Case{Name: name, Reason: repo.ReasonRecordEncoding, CAR: r.CAR(root), Record: true})
	}
	raw := NewBuilder()
	blob := cid.Sum(cid.Raw, Record("x"))
	raw.Lie(blob, Record("x")) // only the codec is wrong
	out = append(out, Case{Name: "record with the codec of a blob", Reason: repo.ReasonRecordEncoding, Record: true,
		CAR: raw.CAR(raw.Node(none, mst.NodeEntry{Key: []byte(Path(a, 0, 0)), Value: blob}))})
	record("record that isn't CBOR", []byte("hello"))
	record("record that is no map", []byte{0x80})
	record("record with a float", []byte("\xa1\x61a\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"))
	record("record with bytes behind it", append(Record("x"), 0))
	record("record with keys out of order", []byte("\xa2\x61b\x01\x61a\x01"))
	record("record nested too deeply", append(bytes.Repeat([]byte("\xa1\x61a"), 100), 0xf6))
	return out
}

// shorterPrefix returns a node with two keys, of which the second could share one byte more with the first.
func shorterPrefix(b *Builder, first, second string) []byte {
	n := (&mst.Node{Entries: []mst.NodeEntry{b.Entry(first), b.Entry(second)}}).Append(nil)
	p := 0
	for p < len(second) && second[p] == first[p] {
		p++
	}
	entry := func(p int) []byte {
		b := cbor.AppendBytes([]byte("\x61k"), []byte(second[p:]))
		return cbor.AppendInt(append(b, "\x61p"...), int64(p))
	}
	return bytes.Replace(n, entry(p), entry(p-1), 1)
}
