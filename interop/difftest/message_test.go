package difftest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	peerapi "github.com/bluesky-social/indigo/api/atproto"
	peerrepo "github.com/bluesky-social/indigo/atproto/repo"
	peer "github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // indigo tells of every odd message
	os.Exit(m.Run())
}

// FuzzMessage compares the verdict on #commit messages, from the payload of the frame on: decoding, blocks, signature,
// records and inversion. What a receiver remembers of earlier messages isn't part of it, because indigo has nothing of the
// kind.
func FuzzMessage(f *testing.F) {
	for _, b := range messageSeeds(f) {
		f.Add(b, uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if seed != 0 {
			b = mutateMessage(b, seed)
		}
		compareMessage(t, b)
	})
}

func TestMessageMutations(t *testing.T) {
	for i, b := range messageSeeds(t) {
		if mine := oursMessage(b); mine.err != nil {
			t.Fatalf("message %d: %v", i, mine)
		}
		for seed := range rounds(60) {
			if compareMessage(t, mutateMessage(b, uint64(seed)+1)); t.Failed() {
				return
			}
		}
	}
}

// messageSeeds are the messages of accounts that create, update and delete records.
func messageSeeds(t testing.TB) [][]byte {
	t.Helper()
	var list [][]byte
	for account := range uint64(6) {
		r := seeded(account)
		tree, have := mst.New(), map[string]bool{}
		since := syntax.TID("")
		for n := range 8 {
			var writes []repo.Write
			size := pick(r, 1, 1, 2, 5)
			if n == 0 {
				size = pick(r, 1, 3, 40)
			}
			for len(writes) < size {
				p := repotest.Path("com.example."+string(rune('a'+r.IntN(3))), pick(r, 0, 0, 1, 1, 2, 3), r.IntN(6))
				if slices.ContainsFunc(writes, func(w repo.Write) bool { return w.Path == p }) {
					continue
				}
				w := repo.Write{Path: p, Record: repotest.Record(fmt.Sprint(p, " ", n))}
				if have[p] && r.IntN(2) == 0 || !have[p] && n > 0 && r.IntN(4) == 0 {
					w.Record = nil
				}
				have[p] = w.Record != nil
				writes = append(writes, w)
			}
			u, next, err := repo.Apply(tree, writes, repotest.DID, syntax.NewTID(1_700_000_000_000_000+int64(n), 1), repotest.Key())
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, payloadOf(u.Message(since, "2026-11-20T12:00:00.000Z")))
			tree, since = next, u.Commit.Rev
		}
	}
	return list
}

func payloadOf(m repo.CommitMessage) []byte {
	c := stream.Commit{Seq: 1, Repo: m.Repo, Rev: m.Rev, Since: m.Since, Time: m.Time, Commit: m.Commit, Blocks: m.Blocks, PrevData: m.PrevData}
	for _, op := range m.Ops {
		c.Ops = append(c.Ops, stream.Op{Action: op.Action, Path: op.Path, CID: op.CID, Prev: op.Prev})
	}
	return c.AppendPayload(nil)
}

// outcome is the state after a message.
type outcome struct{ rev, data string }

func oursMessage(b []byte) answer {
	return ask(func() (any, error) {
		f, err := stream.ParseFrame(append(stream.AppendHeader(nil, stream.TypeCommit), b...))
		if err != nil {
			return nil, err
		}
		msg, err := f.Message()
		if err != nil {
			return nil, err
		}
		c := msg.(*stream.Commit)
		m := repo.CommitMessage{Repo: c.Repo, Rev: c.Rev, Since: c.Since, Time: c.Time, Commit: c.Commit, PrevData: c.PrevData, Blocks: c.Blocks}
		for _, op := range c.Ops {
			m.Ops = append(m.Ops, repo.Op(op))
		}
		state, err := repo.VerifyCommit(m, repotest.Key().Public(), nil, repo.VerifyOptions{Records: repo.RecordsStrict})
		return outcome{string(state.Rev), string(state.Data[:])}, err
	})
}

func theirMessage(b []byte) answer {
	return ask(func() (any, error) {
		ctx := context.Background()
		var m peerapi.SyncSubscribeRepos_Commit
		if err := m.UnmarshalCBOR(bytes.NewReader(b)); err != nil {
			return nil, err
		}
		r, err := peerrepo.VerifyCommitMessage(ctx, &m)
		if err != nil {
			return nil, err
		}
		commit, _, err := peerrepo.LoadCommitFromCAR(ctx, bytes.NewReader(m.Blocks))
		if err != nil {
			return nil, err
		}
		if err := commit.VerifySignature(peerKey); err != nil {
			return nil, err
		}
		root := commit.Data
		if r.MST.Root == nil {
			return nil, errors.New("no tree")
		}
		return outcome{commit.Rev, string(root.Bytes())}, nil
	})
}

const (
	mPayload   fault = "payload of another form"
	mSeq       fault = "sequence number out of range"
	mRoot      fault = "commit that isn't the root"
	mDID       fault = "commit of another account"
	mRev       fault = "commit of another revision"
	mRepo      fault = "repo that isn't a DID"
	mTime      fault = "time"
	mSince     fault = "since that isn't a TID"
	mOps       fault = "operation of another form"
	mPath      fault = "path of an operation"
	mTwice     fault = "path twice"
	mCodec     fault = "operation with a CID of another codec"
	mRecord    fault = "record missing"
	mEncoding  fault = "record that isn't a map in DAG-CBOR"
	mLegacy    fault = "message from before sync 1.1"
	mFirst     fault = "first commit with more than it says"
	mUnchanged fault = "update that changes nothing" // which is no fault
)

// aboutMessage says what is wrong with a message, but for the inversion. What the model can't take apart is of another form,
// and no more is said of it.
func aboutMessage(b []byte) faults {
	f := faults{}
	it, g := examine(b)
	if len(g) > 0 || it.major != mMap {
		return faults{mPayload: true}
	}
	m := map[string]*item{}
	for i := 0; i < len(it.kids); i += 2 {
		m[string(it.kids[i].body)] = it.kids[i+1]
	}
	for k, major := range map[string]byte{"rev": mText, "repo": mText, "time": mText, "seq": mUint, "blocks": mBytes, "commit": mTag, "ops": mArray} {
		if m[k] == nil || m[k].major != major {
			return faults{mPayload: true}
		}
	}
	for k, major := range map[string]byte{"rebase": mSimple, "tooBig": mSimple, "since": mText, "prevData": mTag, "blobs": mArray} {
		if v := m[k]; v != nil && (v.major != major && !((k == "since" || k == "prevData") && v.null()) || major == mSimple && v.null()) {
			return faults{mPayload: true}
		}
	}
	if m["blobs"] != nil {
		for _, k := range m["blobs"].kids {
			if k.link() == nil {
				f[mPayload] = true
			}
		}
	}
	if n := m["seq"].arg; n < 1 || n > 1<<53-1 {
		f[mSeq] = true
	}
	rev, did := string(m["rev"].body), string(m["repo"].body)
	if _, err := peer.ParseTID(rev); err != nil {
		f[fCommitRev] = true
	}
	if _, err := peer.ParseDID(did); err != nil {
		f[mRepo] = true
	}
	if _, err := peer.ParseDatetime(string(m["time"].body)); err != nil {
		f[mTime] = true
	}
	since := ""
	if s := m["since"]; s != nil && !s.null() {
		since = string(s.body)
		if _, err := peer.ParseTID(since); err != nil && since != "" {
			f[mSince] = true
		}
	}

	a := split(m["blocks"].body, f)
	root := a.root(f)
	if root != nil && !bytes.Equal(root, m["commit"].link()) {
		f[mRoot] = true
	}
	var tree map[string]string
	complete := false
	if c, ok := a.readCommit(peerKey, f); ok {
		if c.DID != did {
			f[mDID] = true
		}
		if c.Rev != rev {
			f[mRev] = true
		}
		tree = a.readTree([]byte(c.Data), f)
		complete = !f[fNoNode]
		delete(f, fNoNode) // the tree may be partial; whether enough of it is there, the inversion finds out
	}

	onlyCreates, prevs := true, true
	paths := map[string]bool{}
	for _, k := range m["ops"].kids {
		op := map[string]*item{}
		if k.major != mMap {
			return faults{mPayload: true}
		}
		for i := 0; i < len(k.kids); i += 2 {
			op[string(k.kids[i].body)] = k.kids[i+1]
		}
		action, path := op["action"], op["path"]
		if action == nil || path == nil || action.major != mText || path.major != mText {
			return faults{mPayload: true}
		}
		var c, prev []byte
		for name, to := range map[string]*[]byte{"cid": &c, "prev": &prev} {
			if v := op[name]; v != nil && !v.null() {
				if *to = v.link(); *to == nil {
					return faults{mPayload: true}
				}
			}
		}
		onlyCreates = onlyCreates && string(action.body) == "create"
		switch string(action.body) {
		case "create":
			if c == nil || prev != nil {
				f[mOps] = true
			}
		case "update":
			if c == nil {
				f[mOps] = true
			}
			prevs = prevs && prev != nil
			if c != nil && bytes.Equal(c, prev) {
				f[mUnchanged] = true
			}
		case "delete":
			if c != nil {
				f[mOps] = true
			}
			prevs = prevs && prev != nil
		default:
			f[mOps] = true
		}
		collection, _, err := peer.ParseRepoPath(string(path.body))
		if err != nil || collection != collection.Normalize() {
			f[mPath] = true
		}
		if paths[string(path.body)] {
			f[mTwice] = true
		}
		paths[string(path.body)] = true
		if c == nil {
			continue
		}
		if c[1] != 0x71 {
			f[mCodec] = true
		}
		record, ok := a.find(c)
		if !ok {
			f[mRecord] = true
		} else if it, g := examine(record); len(g) > 0 || it.major != mMap {
			f[mEncoding] = true
		}
	}
	prevData := m["prevData"] != nil && !m["prevData"].null()
	switch {
	case !prevs:
		f[mLegacy] = true
	case !prevData && (since != "" || !onlyCreates):
		f[mLegacy] = true
	case !prevData && (!complete || len(tree) != len(paths)):
		f[mFirst] = true
	}
	return f
}

func compareMessage(t testing.TB, b []byte) string {
	t.Helper()
	mine, f := oursMessage(b), aboutMessage(b)
	delete(f, mUnchanged)
	if mine.err == nil && len(f) > 0 {
		t.Errorf("%s\naccepted, model: %v", show(b), f)
	}
	return messageTable.judge(t, b, mine, theirMessage(b))
}

// mutateMessage changes a message in a way that knows its parts.
func mutateMessage(b []byte, seed uint64) []byte {
	r := seeded(seed)
	it, rest, err := parseItem(b, 0)
	if err != nil || it.major != mMap || it.info == 31 {
		return scramble(b, r)
	}
	for range 1 + r.IntN(2) {
		it.mutateMessage(r)
	}
	it.fit()
	out := append(it.append(nil), rest...)
	if r.IntN(40) == 0 {
		out = scramble(out, r)
	}
	return out
}

func (it *item) get(key string) *item {
	for i := 0; i+1 < len(it.kids); i += 2 {
		if string(it.kids[i].body) == key {
			return it.kids[i+1]
		}
	}
	return &item{}
}

func (it *item) mutateMessage(r *rand.Rand) {
	null := &item{major: mSimple, info: 22}
	anyCID := func() *item {
		list := []*item{}
		for _, i := range it.all() {
			if i.major == mTag {
				list = append(list, i)
			}
		}
		c := cid.Sum(pick(r, cid.DagCBOR, cid.DagCBOR, cid.Raw), []byte{byte(r.IntN(3))})
		return pick(r, append(list, linkTo(c[:]))...)
	}
	ops := it.get("ops")
	switch r.IntN(12) {
	case 0, 1, 2, 3: // the blocks, and the commit with them
		a := split(it.get("blocks").body, faults{})
		if len(a.blocks) == 0 {
			return
		}
		a.mutate(r)
		it.put("blocks", byteString(a.join()))
		if root := a.root(faults{}); root != nil && r.IntN(8) > 0 {
			it.put("commit", linkTo(root))
		}
	case 4, 5, 6, 7: // an operation
		if len(ops.kids) == 0 {
			return
		}
		i := r.IntN(len(ops.kids))
		op := ops.kids[i]
		switch r.IntN(9) {
		case 0:
			ops.kids = slices.Delete(ops.kids, i, i+1)
		case 1:
			ops.kids = append(ops.kids, op)
		case 2:
			r.Shuffle(len(ops.kids), func(i, j int) { ops.kids[i], ops.kids[j] = ops.kids[j], ops.kids[i] })
		case 3:
			op.put("action", text(pick(r, "create", "update", "delete", "move", "")))
		case 4:
			path := string(op.get("path").body)
			op.put("path", text(pick(r, repotest.Path("com.example.a", r.IntN(3), r.IntN(4)), path+"x", "/"+path, strings.ToUpper(path), "", "com.example.b", strings.Replace(path, "example", "Example", 1))))
		case 5:
			op.put("prev", pick(r, null, anyCID(), op.get("cid")))
		case 6:
			op.put("cid", pick(r, null, anyCID(), op.get("prev")))
		case 7:
			op.put(pick(r, "a", "extra"), randomLeaf(r))
		default:
			op.mutate(r)
		}
		op.fit()
		ops.fit()
	case 8:
		it.put("prevData", pick(r, null, anyCID()))
	case 9:
		it.put("since", pick(r, null, text(pick(r, "", "3lscuqc52or2x", "x"))))
	case 10:
		it.put(pick(r, "rev", "repo", "time"), text(pick(r, "", "3lscuqc52or2x", "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb", "2026-11-20T12:00:00Z", "2026-11-20")))
	default:
		switch r.IntN(3) {
		case 0:
			it.put(pick(r, "rebase", "tooBig"), &item{major: mSimple, info: byte(20 + r.IntN(3))})
		case 1:
			it.put("seq", number(pick(r, uint64(0), 1, 1<<53-1, 1<<53), mUint))
		default:
			it.mutate(r)
		}
	}
	it.fit()
}

// craft makes the message that leads from one set of records to another, with all nodes of the tree. Edit changes it before
// it is encoded.
func craft(before, after map[string][]byte, edit func(m *repo.CommitMessage)) []byte {
	root := func(m map[string][]byte) (cid.CID, []mst.NodeBlock) {
		tree := mst.New()
		for k, v := range m {
			if _, _, err := tree.Put(k, cid.Sum(cid.DagCBOR, v)); err != nil {
				panic(err)
			}
		}
		c, err := tree.Flush()
		if err != nil {
			panic(err)
		}
		return c.Root, c.Added
	}
	b := repotest.NewBuilder()
	data, nodes := root(after)
	for _, n := range nodes {
		b.Add(n.Bytes)
	}
	m := repo.CommitMessage{Repo: string(repotest.DID), Rev: string(repotest.Rev), Since: "3lscuqc52or22", Time: "2026-11-20T12:00:00.000Z"}
	m.PrevData, _ = root(before)
	var keys []string
	for k := range before {
		keys = append(keys, k)
	}
	for k := range after {
		if before[k] == nil {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		op := repo.Op{Path: k}
		if v := before[k]; v != nil {
			op.Action, op.Prev = "delete", cid.Sum(cid.DagCBOR, v)
		}
		if v := after[k]; v != nil {
			op.CID = b.Add(v)
			if op.Action = "update"; before[k] == nil {
				op.Action = "create"
			}
		}
		if op.CID != op.Prev {
			m.Ops = append(m.Ops, op)
		}
	}
	m.Blocks = b.CAR(data)
	m.Commit = b.Commit.CID()
	edit(&m)
	return payloadOf(m)
}

// Two states of a repository of one node.
var stateA, stateB = map[string][]byte{pathA: repotest.Record("a"), pathB: repotest.Record("b")}, map[string][]byte{pathA: repotest.Record("a"), pathB: repotest.Record("c")}

var pathA, pathB = repotest.Path("com.example.a", 0, 0), repotest.Path("com.example.b", 0, 0)

func state(more string, record []byte) map[string][]byte {
	return map[string][]byte{pathA: repotest.Record("a"), more: record}
}

func unedited(*repo.CommitMessage) {}

// editPayload changes the item of a good message.
func editPayload(edit func(it *item)) []byte {
	it, _, err := parseItem(craft(stateA, stateB, unedited), 0)
	if err != nil {
		panic(err)
	}
	edit(it)
	it.fit()
	return it.append(nil)
}

// editBlocks changes the blocks of a good message.
func editBlocks(edit func(a *archive)) []byte {
	return editPayload(func(it *item) {
		a := split(it.get("blocks").body, faults{})
		edit(a)
		it.put("blocks", byteString(a.join()))
		it.put("commit", linkTo(a.root(faults{})))
	})
}

var messageLax = append(slices.Clone(repoLax), mPayload, mSeq, mRoot, mSince, mPath, mCodec, mEncoding, mLegacy, mFirst, mUnchanged)

var messageForgives = laxity(aboutMessage, messageLax)

var messageTable = table[[]byte]{name: "indigo message", list: []difference[[]byte]{
	{
		name: "panics", right: ours, rule: "a prefix is no longer than the key before, " + specRepo,
		holds: func(b []byte, mine, peer answer) bool { return mine.err != nil && hasPanicked(peer) },
		shown: [][]byte{editBlocks(func(a *archive) {
			i := a.nodes()[0]
			a.set(i, bytes.Replace(a.blocks[i].data, []byte("ap\x00"), []byte("ap\x01"), 1))
		})},
	},
	{
		name: "commit without operations and without nodes", right: ours, rule: "the blocks hold the nodes that are new, and there are none, " + specSync,
		holds: func(b []byte, mine, peer answer) bool {
			it, _ := examine(b)
			return mine.err == nil && peer.err != nil && len(it.get("ops").kids) == 0
		},
		shown: [][]byte{craft(stateA, stateA, func(m *repo.CommitMessage) {
			a := split(m.Blocks, faults{})
			a.blocks = a.blocks[:1]
			m.Blocks = a.join()
		})},
	},
	{
		name: "message from before sync 1.1", right: open, rule: "without prevData, or prev in an operation, nothing can be inverted: indigo lets it pass, we by option, " + specSync,
		holds: laxity(aboutMessage, append(messageLax, mOps, mTwice))(mLegacy), shown: [][]byte{
			craft(stateA, stateB, func(m *repo.CommitMessage) { m.PrevData = cid.CID{} }), craft(stateA, stateB, func(m *repo.CommitMessage) { m.Ops[0].Prev = cid.CID{} }),
		},
	},
	{
		name: "payload that isn't strict", right: ours, rule: "DAG-CBOR with all that the schema requires, " + specSync + ", " + specDRISL,
		holds: messageForgives(mPayload), shown: [][]byte{
			append(craft(stateA, stateB, unedited), 0),
			editPayload(func(it *item) {
				it.kids[0], it.kids[1], it.kids[2], it.kids[3] = it.kids[2], it.kids[3], it.kids[0], it.kids[1]
			}),
			editPayload(func(it *item) {
				it.kids = slices.Delete(it.kids, slices.Index(it.kids, it.get("seq"))-1, slices.Index(it.kids, it.get("seq"))+1)
			}),
		},
	},
	{
		name: "sequence number of zero or beyond 2^53", right: open, rule: "positive, and exact in JSON, which is why we want no more, https://atproto.com/specs/event-stream",
		holds: messageForgives(mSeq), shown: [][]byte{
			editPayload(func(it *item) { it.put("seq", number(0, mUint)) }), editPayload(func(it *item) { it.put("seq", number(1<<53, mUint)) }),
		},
	},
	{
		name: "commit that isn't the root", right: ours, rule: "the first root is the commit that the message names, " + specSync,
		holds: messageForgives(mRoot), shown: [][]byte{craft(stateA, stateB, func(m *repo.CommitMessage) { m.Commit = cid.Sum(cid.DagCBOR, nil) })},
	},
	{
		name: "since that isn't a TID", right: ours, rule: "a revision, " + specSync,
		holds: messageForgives(mSince), shown: [][]byte{craft(stateA, stateB, func(m *repo.CommitMessage) { m.Since = "x" })},
	},
	{
		name: "first commit with more than it says", right: ours, rule: "without a commit before it, what is there is what was created, " + specSync,
		holds: messageForgives(mFirst), shown: [][]byte{craft(stateA, state(pathB, repotest.Record("b")), func(m *repo.CommitMessage) {
			m.PrevData, m.Since = cid.CID{}, ""
		})},
	},
	{
		name: "path of an operation", right: ours, rule: "a normalised NSID, a slash and a record key; indigo doesn't look at that of a deletion, " + specRepo,
		holds: messageForgives(mPath), shown: [][]byte{craft(state("x", repotest.Record("b")), map[string][]byte{pathA: repotest.Record("a")}, unedited)},
	},
	{
		name: "operation with a CID of codec raw", right: ours, rule: "records are DAG-CBOR, " + specRepo,
		holds: messageForgives(mCodec), shown: [][]byte{func() []byte {
			// The same tree, but with a link of codec raw to the record, and so all the way up.
			return editPayload(func(it *item) {
				a := split(it.get("blocks").body, faults{})
				i := a.nodes()[0]
				n := readNode(a.blocks[i].data, faults{})
				for j := range a.blocks {
					if bytes.Equal(a.blocks[j].cid, n.entries[1].value) {
						c := bytes.Clone(a.blocks[j].cid)
						c[1] = 0x55
						a.blocks[j].cid, n.entries[1].value = c, c
						it.get("ops").kids[0].put("cid", linkTo(c))
						break
					}
				}
				a.set(i, n.encode(longest))
				it.put("blocks", byteString(a.join()))
				it.put("commit", linkTo(a.root(faults{})))
			})
		}()},
	},
	{
		name: "record that isn't a map in DAG-CBOR", right: ours, rule: "records are maps in DAG-CBOR, " + specModel,
		holds: messageForgives(mEncoding), shown: [][]byte{craft(stateA, state(pathB, []byte("hello")), unedited), craft(stateA, state(pathB, unhex("80")), unedited)},
	},
	{
		name: "file, commit or tree of another form", right: ours, rule: "as in whole repositories, " + specRepo + ", " + specCAR,
		holds: func(b []byte, mine, peer answer) bool {
			f := aboutMessage(b)
			return slices.ContainsFunc(repoLax, func(x fault) bool { return f[x] && messageForgives(x)(b, mine, peer) })
		},
		shown: [][]byte{
			editBlocks(func(a *archive) { // a prefix that isn't the longest
				i := a.nodes()[0]
				a.set(i, readNode(a.blocks[i].data, faults{}).encode(func(p, i int) int { return max(0, p-1) }))
			}),
		},
	},
}}
