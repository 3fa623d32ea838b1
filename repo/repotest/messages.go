package repotest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// HostileMessages returns messages that each break one rule: signed, and right in all else as far as one can be without the
// other.
func HostileMessages() []MessageCase {
	var out []MessageCase
	add := func(name string, reason repo.Reason, bad, good Message, rules ...int) {
		out = append(out, MessageCase{Name: name, Rules: rules, Reason: reason, Bad: bad, Good: good})
	}
	also := func(r ...repo.Reason) { out[len(out)-1].Also = r }
	// The three kinds of cases: one that differs in the message alone, one in the blocks, and one in the records.
	message := func(name string, reason repo.Reason, bad, good func(m *Message), rules ...int) {
		add(name, reason, edits{message: bad}.build(), edits{message: good}.build(), rules...)
	}
	blocks := func(name string, reason repo.Reason, bad, good func(d *draft), rules ...int) {
		add(name, reason, edits{blocks: bad}.build(), edits{blocks: good}.build(), rules...)
	}
	records := func(name string, reason repo.Reason, bad, good func(d *draft), rules ...int) {
		add(name, reason, edits{records: bad}.build(), edits{records: good}.build(), rules...)
	}

	// 1: sizes.
	message("frame", repo.ReasonFrameTooBig,
		func(m *Message) { m.Commit.FrameSize = repo.MaxFrame + 1 },
		func(m *Message) { m.Commit.FrameSize = repo.MaxFrame }, 1)
	add("blocks", repo.ReasonBlocksTooBig, full(repo.MaxBlocks+1), full(repo.MaxBlocks), 1)
	creates := func(n int) func(d *draft) {
		return func(d *draft) {
			d.after = map[string][]byte{}
			for p, b := range d.before {
				d.after[p] = b
			}
			for i := range n {
				d.after[note(1000+i)] = Record("new")
			}
		}
	}
	records("operations", repo.ReasonTooManyOps, creates(repo.MaxOps+1), creates(repo.MaxOps), 1)
	size := func(n int) func(d *draft) { return func(d *draft) { d.after[note(100)] = sized(n) } }
	records("record", repo.ReasonRecordTooBig, size(repo.MaxRecord+1), size(repo.MaxRecord), 1)

	// 2: syntax.
	for _, did := range []string{"", "alice.test", "did:plc:", "DID:plc:aaaaaaaaaaaaaaaaaaaaaaaa", string(DID) + "%"} {
		add("account "+did, repo.ReasonDIDSyntax, edits{blocks: func(d *draft) { d.Commit.DID = syntax.DID(did) },
			message: func(m *Message) { m.Commit.Repo = did }}.build(), edits{}.build(), 2)
	}
	message("account of the message alone", repo.ReasonDIDSyntax, func(m *Message) { m.Commit.Repo = "alice.test" }, nil, 2)
	also(repo.ReasonCommitDID)
	for _, rev := range []string{"", "1", "3lscuqc52or2", "zlscuqc52or2x", "3LSCUQC52OR2X"} {
		add("revision "+rev, repo.ReasonRevSyntax, edits{blocks: func(d *draft) { d.Commit.Rev = syntax.TID(rev) },
			message: func(m *Message) { m.Commit.Rev = rev }}.build(), edits{}.build(), 2)
	}
	message("revision of the message alone", repo.ReasonRevSyntax, func(m *Message) { m.Commit.Rev = "now" }, nil, 2)
	also(repo.ReasonCommitRev)
	message("revision before", repo.ReasonSinceSyntax,
		func(m *Message) { m.Commit.Since, m.Prev = "3lscuqc52or2", nil },
		func(m *Message) { m.Commit.Since, m.Prev = "", nil }, 2)
	for _, at := range []string{"", "now", "2026-11-20 12:00:00Z", "2026-11-20T12:00:00", "2026-02-30T12:00:00Z"} {
		message("time "+at, repo.ReasonTimeSyntax, func(m *Message) { m.Commit.Time = at }, nil, 2)
	}
	for _, p := range []string{"", "com.example.note", "/com.example.note/1", "com.example.note/", "com.example.note/..", "com.example.note/a/b",
		"com.EXAMPLE.note/1", "com.example.note/é", "example/1"} {
		message("path "+p, repo.ReasonPathSyntax, func(m *Message) { m.Commit.Ops[0].Path = p }, nil, 2)
	}

	// 3, 4: order in time.
	limit := Rev.Time().Add(-repo.DefaultMaxFuture)
	message("future", repo.ReasonFutureRev,
		func(m *Message) { m.Options.Now = limit.Add(-time.Microsecond) },
		func(m *Message) { m.Options.Now = limit }, 3)
	message("future, with another tolerance", repo.ReasonFutureRev,
		func(m *Message) { m.Options.Now, m.Options.MaxFuture = Rev.Time().Add(-time.Minute), time.Second },
		func(m *Message) { m.Options.Now, m.Options.MaxFuture = Rev.Time().Add(-time.Minute), time.Hour }, 3)
	before := syntax.NewTID(Rev.Time().UnixMicro()-1, 0)
	message("the same revision again", repo.ReasonStaleRev,
		func(m *Message) { m.Prev.Rev, m.Commit.Since = Rev, string(Rev) },
		func(m *Message) { m.Prev.Rev, m.Commit.Since = before, string(before) }, 4)
	message("an older revision", repo.ReasonStaleRev,
		func(m *Message) { m.Prev.Rev, m.Commit.Since = "3lscuqc52or3x", "3lscuqc52or3x" }, nil, 4)

	// 5, 6: blocks.
	cut := func(n int) func(m *Message) {
		return func(m *Message) { m.Commit.Blocks = m.Commit.Blocks[:len(m.Commit.Blocks)-n] }
	}
	message("archive cut short", repo.ReasonCAR, cut(1), cut(0), 5)
	message("no archive", repo.ReasonCAR, func(m *Message) { m.Commit.Blocks = []byte("hello") }, nil, 5)
	message("nothing", repo.ReasonCAR, func(m *Message) { m.Commit.Blocks = nil }, nil, 5)
	message("archive of version 2", repo.ReasonCAR, func(m *Message) {
		m.Commit.Blocks = bytes.Replace(m.Commit.Blocks, []byte("gversion\x01"), []byte("gversion\x02"), 1)
	}, nil, 5)
	blocks("no root", repo.ReasonCARRoot,
		func(d *draft) { d.roots = []cid.CID{} },
		nil, 5)
	stranger := cid.Sum(cid.DagCBOR, []byte("stranger"))
	message("commit named with the codec of blobs", repo.ReasonCARRoot,
		func(m *Message) { m.Commit.Blocks, m.Commit.Commit = rawRoot(m.Commit.Blocks) }, nil, 5)
	message("another root", repo.ReasonCARRoot, func(m *Message) { m.Commit.Commit = stranger }, nil, 5)
	blocks("the commit is not the first root", repo.ReasonCARRoot,
		func(d *draft) { d.roots = []cid.CID{d.prevData, d.root} },
		nil, 5)
	add("commit not there", repo.ReasonMissingCommit, edits{blocks: func(d *draft) { d.roots = []cid.CID{stranger} },
		message: func(m *Message) { m.Commit.Commit = stranger }}.build(), edits{}.build(), 5)
	blocks("record of another hash", repo.ReasonBlockHash, func(d *draft) {
		d.Drop(d.ops[0].CID)
		d.Lie(d.ops[0].CID, Record("lie"))
	}, nil, 6)
	blocks("node of another hash", repo.ReasonBlockHash, func(d *draft) {
		d.Drop(d.root)
		d.Lie(d.root, (&mst.Node{}).Append(nil))
	}, nil, 6)
	blocks("record that is there twice, once of another hash", repo.ReasonBlockHash, func(d *draft) { d.Lie(d.ops[0].CID, Record("lie")) }, nil, 6)
	blocks("block that nothing needs of another hash", repo.ReasonBlockHash,
		func(d *draft) { d.Lie(stranger, []byte("lie")) },
		func(d *draft) { d.Lie(stranger, []byte("stranger")) }, 6)

	// 7: the commit.
	encoded := func(edit func(b []byte) []byte) func(d *draft) {
		return func(d *draft) {
			d.Commit.Data = d.root
			if err := d.Commit.Sign(d.Sign); err != nil {
				panic(err)
			}
			d.block = edit(d.Commit.Encode())
		}
	}
	less := func(b []byte) []byte { b[0]--; return b }
	blocks("commit without prev", repo.ReasonCommitShape,
		encoded(func(b []byte) []byte { return bytes.Replace(less(b), []byte("\x64prev\xf6"), nil, 1) }),
		func(d *draft) { d.Commit.Prev = &stranger }, 7)
	blocks("commit with another field", repo.ReasonCommitShape,
		encoded(func(b []byte) []byte { return append([]byte("\xa7\x61a\x00"), b[1:]...) }), nil, 7)
	blocks("commit with bytes behind it", repo.ReasonCommitShape,
		encoded(func(b []byte) []byte { return append(b, 0) }), nil, 7)
	blocks("commit with a longer head than needed", repo.ReasonCommitShape,
		encoded(func(b []byte) []byte { return append([]byte("\xb8\x06"), b[1:]...) }), nil, 7)
	blocks("commit with fields out of order", repo.ReasonCommitShape, encoded(func(b []byte) []byte {
		const prev = "\x64prev\xf6"
		return append(bytes.Replace(b, []byte(prev), nil, 1), prev...)
	}), nil, 7)
	blocks("commit that is a record", repo.ReasonCommitShape, encoded(func([]byte) []byte { return Record("x") }), nil, 7)
	blocks("commit over raw data", repo.ReasonCommitShape, func(d *draft) { d.root[1] = byte(cid.Raw) }, nil, 7)
	blocks("commit of version 2", repo.ReasonCommitVersion,
		func(d *draft) { d.Commit.Version = repo.LegacyVersion },
		func(d *draft) { d.Commit.Version = repo.Version }, 7)
	blocks("commit of version 4", repo.ReasonCommitVersion, func(d *draft) { d.Commit.Version = 4 }, nil, 7)
	blocks("commit of another account", repo.ReasonCommitDID,
		func(d *draft) { d.Commit.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb" },
		func(d *draft) { d.Commit.DID = DID }, 7)
	blocks("commit of another revision", repo.ReasonCommitRev,
		func(d *draft) { d.Commit.Rev = "3lscuqc52or3x" },
		func(d *draft) { d.Commit.Rev = Rev }, 7)

	// 8, 9, 10: the signature.
	for _, c := range []keys.Curve{keys.K256, keys.P256} {
		as := func(f func(sig []byte) []byte) Message {
			return edits{blocks: func(d *draft) {
				d.Sign = otherKey(c)
				respell(f)(d)
			}, message: func(m *Message) { m.Key = otherKey(c).Public() }}.build()
		}
		good := as(bytes.Clone)
		on := fmt.Sprintf(", %v", c)
		add("signature in high-S form"+on, repo.ReasonHighS, as(highS(c)), good, 8)
		add("signature in DER"+on, repo.ReasonSignatureSize, as(der), good, 8)
		add("signature of 63 bytes"+on, repo.ReasonSignatureSize, as(func(sig []byte) []byte { return sig[:63] }), good, 8)
		add("signature of nothing"+on, repo.ReasonSignatureSize, as(func([]byte) []byte { return []byte{} }), good, 8)
		add("signature of zeros"+on, repo.ReasonSignature, as(func([]byte) []byte { return make([]byte, 64) }), good, 8)
		add("signature of something else"+on, repo.ReasonSignature, as(func(sig []byte) []byte {
			other, err := otherKey(c).Sign([]byte("something else"))
			if err != nil {
				panic(err)
			}
			return other
		}), good, 8)
		add("signed with another key"+on, repo.ReasonSignature, edits{blocks: func(d *draft) { d.Sign = otherKey(c) }}.build(), good, 8, 9)
	}
	unverified := func(m *Message) { m.Options.SkipSignature = true }
	add("signature of 63 bytes, not verified", repo.ReasonSignatureSize,
		edits{blocks: respell(func(sig []byte) []byte { return sig[:63] }), message: unverified}.build(), edits{message: unverified}.build(), 8)
	message("no key", repo.ReasonNoKey, func(m *Message) { m.Key = nil }, func(m *Message) { m.Key, m.Options.SkipSignature = nil, true }, 10)

	// 13: the shape of operations. The draft has an update, a creation and a deletion, in this order.
	op := func(name string, reason repo.Reason, edit func(ops []repo.Op)) {
		message(name, reason, func(m *Message) { edit(m.Commit.Ops) }, nil, 13)
	}
	op("unknown action", repo.ReasonOpShape, func(ops []repo.Op) { ops[1].Action = "upsert" })
	op("no action", repo.ReasonOpShape, func(ops []repo.Op) { ops[1].Action = "" })
	op("creation with a value before", repo.ReasonOpShape, func(ops []repo.Op) { ops[1].Prev = ops[0].Prev })
	op("creation of nothing", repo.ReasonOpShape, func(ops []repo.Op) { ops[1].CID = cid.CID{} })
	op("update to nothing", repo.ReasonOpShape, func(ops []repo.Op) { ops[0].CID = cid.CID{} })
	op("deletion with a value", repo.ReasonOpShape, func(ops []repo.Op) { ops[2].CID = ops[0].CID })
	op("raw record", repo.ReasonOpCodec, func(ops []repo.Op) { ops[1].CID[1] = byte(cid.Raw) })
	message("path twice", repo.ReasonDuplicatePath, func(m *Message) { m.Commit.Ops = append(m.Commit.Ops, m.Commit.Ops[0]) }, nil, 13)
	add("path twice among many", repo.ReasonDuplicatePath, edits{records: creates(20), message: func(m *Message) {
		m.Commit.Ops = append(m.Commit.Ops, m.Commit.Ops[3])
	}}.build(), edits{records: creates(20)}.build(), 13)

	// 14: operations and the tree.
	blocks("record that the tree doesn't have", repo.ReasonOpMismatch, func(d *draft) { d.ops[1].CID = d.Add(Record("other")) }, nil, 14)
	message("creation at another path", repo.ReasonOpMismatch, func(m *Message) { m.Commit.Ops[1].Path = note(101) }, nil, 14)
	message("deletion of what is there", repo.ReasonOpMismatch, func(m *Message) { m.Commit.Ops[2].Path = note(8) }, nil, 14)
	blocks("record not there", repo.ReasonMissingRecord, func(d *draft) { d.Drop(d.ops[1].CID) }, nil, 14)

	// 15: the tree, where the operations don't lead to.
	var none cid.CID
	const z = "com.example.z"
	right := func(b *Builder) cid.CID { return b.Node(none, b.Entry(Path(z, 1, 0)), b.Entry(Path(z, 1, 1))) }
	tree := func(name string, reason repo.Reason, bad func(b *Builder) cid.CID, rules ...int) {
		add(name, reason, beside(bad), beside(right), append(rules, 15)...)
	}
	tree("node that is a record", repo.ReasonTreeEncoding, func(b *Builder) cid.CID { return b.Add(Record("x")) })
	tree("node that is no CBOR", repo.ReasonTreeEncoding, func(b *Builder) cid.CID { return b.Add([]byte("hello")) })
	tree("raw link to a node", repo.ReasonTreeLink, func(b *Builder) cid.CID {
		leaf := b.Node(none, b.Entry(Path("com.example.y", 0, 0)))
		leaf[1] = byte(cid.Raw)
		return b.Node(leaf, b.Entry(Path(z, 1, 0)))
	})
	tree("prefix not the longest", repo.ReasonTreePrefix, func(b *Builder) cid.CID { return b.Add(shorterPrefix(b, Path(z, 1, 0), Path(z, 1, 1))) })
	tree("keys out of order", repo.ReasonTreeOrder, func(b *Builder) cid.CID { return b.Node(none, b.Entry(Path(z, 1, 1)), b.Entry(Path(z, 1, 0))) })
	tree("key that is no path", repo.ReasonTreeKey, func(b *Builder) cid.CID {
		key := z
		for mst.Layer(key) != 1 {
			key += "z"
		}
		return b.Node(none, b.Entry(key))
	})
	crowd := func(n int) func(b *Builder) cid.CID {
		return func(b *Builder) cid.CID {
			var entries []mst.NodeEntry
			for i := 0; len(entries) < n; i++ {
				if p := fmt.Sprintf("%s/%05d", z, i); mst.Layer(p) == 1 {
					entries = append(entries, mst.NodeEntry{Key: []byte(p), Value: stranger})
				}
			}
			return b.Node(none, entries...)
		}
	}
	add("too many entries", repo.ReasonTreeEntries, beside(crowd(mst.MaxEntries+1)), beside(crowd(mst.MaxEntries)), 15, 27)
	tree("key on the wrong layer", repo.ReasonTreeLayer, func(b *Builder) cid.CID {
		entries := []mst.NodeEntry{b.Entry(Path(z, 1, 0)), b.Entry(Path(z, 0, 0))}
		slices.SortFunc(entries, func(a, b mst.NodeEntry) int { return bytes.Compare(a.Key, b.Key) })
		return b.Node(none, entries...)
	})
	tree("layer skipped", repo.ReasonTreeDepth, func(b *Builder) cid.CID { return b.Node(none, b.Entry(Path(z, 0, 0))) })
	tree("subtree out of bounds", repo.ReasonTreeBounds, func(b *Builder) cid.CID { return b.Node(none, b.Entry(Path("com.example.a", 1, 0))) })
	tree("empty leaf", repo.ReasonTreeEmpty, func(b *Builder) cid.CID { return b.Node(none) })
	add("empty top", repo.ReasonTreeTop, emptyTop(true), emptyTop(false), 15)
	add("a node without entries in two places", repo.ReasonTreeBounds, twice(stranger, stranger), twice(stranger, cid.Sum(cid.DagCBOR, []byte("another"))), 15, 27)

	// 16: inversion.
	blocks("node not there", repo.ReasonMissingNode, func(d *draft) { d.Drop(d.root) }, nil, 16)
	message("operation left out", repo.ReasonInversion, func(m *Message) { m.Commit.Ops = m.Commit.Ops[1:] }, nil, 16)
	message("all operations left out", repo.ReasonInversion, func(m *Message) { m.Commit.Ops = nil }, nil, 16)
	message("another value before", repo.ReasonInversion, func(m *Message) { m.Commit.Ops[0].Prev = stranger }, nil, 16)
	message("update told as a creation", repo.ReasonInversion, func(m *Message) {
		m.Commit.Ops[0].Action, m.Commit.Ops[0].Prev = repo.ActionCreate, cid.CID{}
	}, nil, 16)
	message("another tree before", repo.ReasonInversion, func(m *Message) { m.Commit.PrevData, m.Prev.Data = stranger, stranger }, nil, 16)
	add("nothing happened, but the tree is another", repo.ReasonInversion,
		edits{records: func(d *draft) { d.after = d.before }, message: func(m *Message) { m.Commit.PrevData, m.Prev.Data = stranger, stranger }}.build(),
		edits{records: func(d *draft) { d.after = d.before }}.build(), 16)

	// 17: the chain.
	message("the tree before isn't the known one", repo.ReasonPrevData, func(m *Message) { m.Prev.Data = stranger }, nil, 17)
	message("the revision before isn't the known one", repo.ReasonSince, func(m *Message) { m.Prev.Rev = before }, nil, 17)
	message("no revision before", repo.ReasonSince, func(m *Message) { m.Commit.Since = "" }, nil, 17)

	// 18: messages from before sync 1.1.
	legacy := func(m *Message) { m.Options.Legacy = repo.LegacyAccept }
	message("no tree before", repo.ReasonNoPrevData,
		func(m *Message) { m.Commit.PrevData = cid.CID{} },
		func(m *Message) { legacy(m); m.Commit.PrevData = cid.CID{} }, 18)
	message("update without the value before", repo.ReasonNoOpPrev,
		func(m *Message) { m.Commit.Ops[0].Prev = cid.CID{} },
		func(m *Message) { legacy(m); m.Commit.Ops[0].Prev = cid.CID{} }, 18)
	message("deletion without the value before", repo.ReasonNoOpPrev, func(m *Message) { m.Commit.Ops[2].Prev = cid.CID{} }, nil, 18)
	message("accepted, but the tree has another value", repo.ReasonOpMismatch,
		func(m *Message) { legacy(m); m.Commit.PrevData, m.Commit.Ops[1].CID = cid.CID{}, m.Commit.Ops[0].CID },
		func(m *Message) { legacy(m); m.Commit.PrevData = cid.CID{} }, 14)

	// 19: deprecated flags.
	strict := func(m *Message) { m.Options.RefuseFlags = true }
	message("tooBig", repo.ReasonTooBigFlag, func(m *Message) { strict(m); m.Commit.TooBig = true }, func(m *Message) { m.Commit.TooBig = true }, 19)
	message("rebase", repo.ReasonRebaseFlag, func(m *Message) { strict(m); m.Commit.Rebase = true }, func(m *Message) { m.Commit.Rebase = true }, 19)

	// 20: #sync.
	sync := func(name string, reason repo.Reason, bad, good func(m *Message), rules ...int) {
		add("#sync: "+name, reason, edits{}.sync(bad), edits{}.sync(good), rules...)
	}
	blown := func(over bool) func(m *Message) {
		return func(m *Message) {
			commit := firstBlock(m.Sync.Blocks)
			for over && len(m.Sync.Blocks) <= repo.MaxSyncBlocks || len(m.Sync.Blocks)+car.BlockSize(len(commit.Data)) <= repo.MaxSyncBlocks {
				m.Sync.Blocks = car.AppendBlock(m.Sync.Blocks, commit.CID, commit.Data)
			}
		}
	}
	sync("blocks", repo.ReasonBlocksTooBig, blown(true), blown(false), 1, 20)
	sync("more than the commit", repo.ReasonExtraBlocks, func(m *Message) {
		m.Sync.Blocks = car.AppendBlock(m.Sync.Blocks, stranger, []byte("stranger"))
	}, nil, 20, 27)
	sync("an older revision", repo.ReasonStaleRev, func(m *Message) { m.Prev.Rev = "3lscuqc52or3x" }, nil, 4, 20)
	sync("the same revision, another tree", repo.ReasonStaleRev,
		func(m *Message) { m.Prev.Rev = Rev },
		func(m *Message) {
			st, err := m.Verify()
			if err != nil {
				panic(err)
			}
			m.Prev = &st
		}, 4, 20)
	sync("another revision than the commit's", repo.ReasonCommitRev, func(m *Message) { m.Sync.Rev = "3lscuqc52or3x" }, nil, 7, 20)
	sync("another account than the commit's", repo.ReasonCommitDID, func(m *Message) { m.Sync.DID = "did:web:example.com" }, nil, 7, 20)
	sync("signed with another key", repo.ReasonSignature, func(m *Message) { m.Key = otherKey(keys.P256).Public() }, nil, 8, 9, 20)
	sync("frame", repo.ReasonFrameTooBig, func(m *Message) { m.Sync.FrameSize = repo.MaxFrame + 1 }, func(m *Message) { m.Sync.FrameSize = repo.MaxFrame }, 1)
	sync("time", repo.ReasonTimeSyntax, func(m *Message) { m.Sync.Time = "now" }, nil, 2)
	sync("account", repo.ReasonDIDSyntax, func(m *Message) { m.Sync.DID = "alice.test" }, nil, 2)
	also(repo.ReasonCommitDID)
	sync("revision", repo.ReasonRevSyntax, func(m *Message) { m.Sync.Rev = "now" }, nil, 2)
	also(repo.ReasonCommitRev)
	sync("future", repo.ReasonFutureRev,
		func(m *Message) { m.Options.Now = limit.Add(-time.Microsecond) },
		func(m *Message) { m.Options.Now = limit }, 3)
	sync("an older revision of the same tree", repo.ReasonStaleRev, func(m *Message) {
		st, err := m.Verify()
		if err != nil {
			panic(err)
		}
		st.Rev = "3lscuqc52or3x"
		m.Prev = &st
	}, nil, 4, 20)
	sync("archive cut short", repo.ReasonCAR, func(m *Message) { m.Sync.Blocks = m.Sync.Blocks[:len(m.Sync.Blocks)-1] }, nil, 5)
	sync("block of another hash", repo.ReasonBlockHash, func(m *Message) { m.Sync.Blocks[len(m.Sync.Blocks)-1] ^= 1 }, nil, 6)
	rooted := func(roots ...cid.CID) func(m *Message) {
		return func(m *Message) {
			commit := firstBlock(m.Sync.Blocks)
			m.Sync.Blocks = car.AppendBlock(car.AppendHeader(nil, roots...), commit.CID, commit.Data)
		}
	}
	sync("no root", repo.ReasonCARRoot, rooted(), nil, 5)
	sync("commit not there", repo.ReasonMissingCommit, rooted(stranger), nil, 5)
	sync("commit named with the codec of blobs", repo.ReasonCARRoot, func(m *Message) { m.Sync.Blocks, _ = rawRoot(m.Sync.Blocks) }, nil, 5)
	add("#sync: commit of version 2", repo.ReasonCommitVersion,
		edits{blocks: func(d *draft) { d.Commit.Version = repo.LegacyVersion }}.sync(nil), edits{}.sync(nil), 7)
	sync("no key", repo.ReasonNoKey, func(m *Message) { m.Key = nil }, nil, 10)

	// 25: first sight of an account.
	message("first sight, an operation left out", repo.ReasonInversion,
		func(m *Message) { m.Prev = nil; m.Commit.Ops = m.Commit.Ops[1:] },
		func(m *Message) { m.Prev = nil }, 25)
	first := func(since string) Message {
		return edits{records: (*draft).empty, message: func(m *Message) {
			m.Prev, m.Commit.PrevData, m.Commit.Since = nil, cid.CID{}, since
		}}.build()
	}
	add("first commit with a revision before", repo.ReasonNoPrevData, first(string(PrevRev)), first(""), 25)
	add("first commit that has more than it says", repo.ReasonNoPrevData, edits{message: func(m *Message) {
		m.Prev, m.Commit.PrevData, m.Commit.Since, m.Commit.Ops = nil, cid.CID{}, "", m.Commit.Ops[1:2]
	}}.build(), first(""), 25)

	// 27: data that costs.
	data := func(b []byte) func(d *draft) { return func(d *draft) { d.after[note(100)] = b } }
	deep := func(n int) []byte { return append(bytes.Repeat([]byte("\xa1\x61a"), n), 0xf6) }
	records("record nested too deeply", repo.ReasonRecordEncoding, data(deep(33)), data(deep(32)), 27)
	records("record that isn't CBOR", repo.ReasonRecordEncoding, data([]byte("hello")), nil, 27)
	records("record that is no map", repo.ReasonRecordEncoding, data([]byte{0x80}), data([]byte{0xa0}), 27)
	float := data([]byte("\xa1\x61a\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"))
	add("record with a float, to a strict reader", repo.ReasonRecordEncoding,
		edits{records: float, message: func(m *Message) { m.Options.Records = repo.RecordsStrict }}.build(),
		edits{records: float}.build(), 27)
	spare := func(n, size int) func(d *draft) { return func(d *draft) { junk(d, n, size) } }
	blocks("too many blocks that nothing needs", repo.ReasonExtraBlocks, spare(repo.MaxExtraBlocks+1, 8), spare(repo.MaxExtraBlocks, 8), 27)
	blocks("too many bytes that nothing needs", repo.ReasonExtraBlocks, spare(2, repo.MaxExtraBytes/2+1), spare(2, repo.MaxExtraBytes/2), 27)
	again := func(n int) func(d *draft) {
		return func(d *draft) {
			for range n {
				d.Lie(d.ops[0].CID, d.after[d.ops[0].Path])
			}
		}
	}
	blocks("a block too many times", repo.ReasonExtraBlocks, again(repo.MaxExtraBlocks+1), again(repo.MaxExtraBlocks), 27)
	return out
}

// emptyTop is a message of one update in a tree of one leaf, with or without a node above it that has no entries.
func emptyTop(above bool) Message {
	var none cid.CID
	d := &draft{Builder: NewBuilder()}
	p := Path("com.example.l", 0, 0)
	was, now := cid.Sum(cid.DagCBOR, Record("before")), d.Add(Record("after"))
	leaf := func(v cid.CID) *mst.Node { return &mst.Node{Entries: []mst.NodeEntry{{Key: []byte(p), Value: v}}} }
	d.prevData = cid.Sum(cid.DagCBOR, leaf(was).Append(nil))
	d.root = d.Node(none, leaf(now).Entries...)
	if above {
		d.prevData = cid.Sum(cid.DagCBOR, (&mst.Node{Left: d.prevData}).Append(nil))
		d.root = d.Node(d.root)
	}
	d.ops = []repo.Op{{Action: repo.ActionUpdate, Path: p, CID: now, Prev: was}}
	d.sign()
	return d.out
}

// twice is a message of one update in a tree with two nodes that have no entries: what is below them isn't there, and they
// are one and the same if it is.
func twice(below, other cid.CID) Message {
	var none cid.CID
	d := &draft{Builder: NewBuilder()}
	paths := []string{Path("com.example.l", 2, 0), Path("com.example.m", 2, 0), Path("com.example.n", 2, 0)}
	was, now := cid.Sum(cid.DagCBOR, Record("before")), d.Add(Record("after"))
	a, b := d.Node(below), d.Node(other)
	if a == b {
		d.Drop(a)
		d.Node(below)
	}
	top := func(v cid.CID) *mst.Node {
		return &mst.Node{Entries: []mst.NodeEntry{{Key: []byte(paths[0]), Value: v}, {Key: []byte(paths[1]), Value: was, Right: a}, {Key: []byte(paths[2]), Value: was, Right: b}}}
	}
	d.prevData = cid.Sum(cid.DagCBOR, top(was).Append(nil))
	d.root = d.Node(none, top(now).Entries...)
	d.ops = []repo.Op{{Action: repo.ActionUpdate, Path: paths[0], CID: now, Prev: was}}
	d.sign()
	return d.out
}

// rawRoot returns an archive in which the root, and the block that it names, have the codec of blobs.
func rawRoot(archive []byte) ([]byte, cid.CID) {
	roots, blocks, err := car.Parse(archive, car.Options{})
	if err != nil {
		panic(err)
	}
	root := cid.FromDigest(cid.Raw, roots[0].Digest())
	b := car.AppendHeader(nil, root)
	for k, err := range blocks {
		if err != nil {
			panic(err)
		}
		if k.CID == roots[0] {
			k.CID = root
		}
		b = car.AppendBlock(b, k.CID, k.Data)
	}
	return b, root
}
