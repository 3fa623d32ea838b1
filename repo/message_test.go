package repo_test

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/syntax"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const at syntax.Datetime = "2026-11-20T12:00:00.000Z"

// account is a repository that goes on by commits.
type account struct {
	t      testing.TB
	key    *keys.PrivateKey
	tree   *mst.Tree
	state  *repo.State
	micros int64
}

func newAccount(t testing.TB, c keys.Curve) *account {
	return &account{t: t, key: newKey(t, c), tree: mst.New(), micros: now.Add(-time.Hour).UnixMicro()}
}

func (a *account) update(writes ...repo.Write) *repo.Update {
	a.t.Helper()
	a.micros += 1000
	u, tree, err := repo.Apply(a.tree, writes, repotest.DID, syntax.NewTID(a.micros, 0), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.tree = tree
	return u
}

// commit makes a commit and its message, and verifies it.
func (a *account) commit(writes ...repo.Write) repo.CommitMessage {
	a.t.Helper()
	u := a.update(writes...)
	since := syntax.TID("")
	if a.state != nil {
		since = a.state.Rev
	}
	m := u.Message(since, at)
	st, err := repo.VerifyCommit(m, a.key.Public(), a.state, repo.VerifyOptions{Now: now, Records: repo.RecordsStrict})
	if err != nil {
		a.t.Fatal(err)
	}
	if st != (repo.State{Rev: u.Commit.Rev, Data: u.Commit.Data}) {
		a.t.Fatalf("state %v", st)
	}
	// First sight of the repository demands no less.
	if _, err := repo.VerifyCommit(m, a.key.Public(), nil, repo.VerifyOptions{Now: now}); err != nil {
		a.t.Fatal(err)
	}
	a.state = &st
	return m
}

func put(p, text string) repo.Write { return repo.Write{Path: p, Record: repotest.Record(text)} }

func TestCommitsOfAnAccount(t *testing.T) {
	for _, curve := range []keys.Curve{keys.K256, keys.P256} {
		a := newAccount(t, curve)
		r := rand.New(rand.NewPCG(1, uint64(curve)))
		a.commit()
		model := map[string]string{}
		for n := range 150 {
			var writes []repo.Write
			for range r.IntN(6) {
				p := fmt.Sprintf("com.example.note/%d", r.IntN(200))
				if slices.ContainsFunc(writes, func(w repo.Write) bool { return w.Path == p }) {
					continue
				}
				if _, ok := model[p]; ok && r.IntN(2) == 0 {
					writes = append(writes, repo.Write{Path: p})
					delete(model, p)
					continue
				}
				model[p] = fmt.Sprint(n)
				writes = append(writes, put(p, model[p]))
			}
			a.commit(writes...)
		}
		got := map[string]bool{}
		for e, err := range a.tree.Walk() {
			if err != nil {
				t.Fatal(err)
			}
			got[e.Key] = true
			if e.Value != cid.Sum(cid.DagCBOR, repotest.Record(model[e.Key])) {
				t.Fatalf("wrong value at %s", e.Key)
			}
		}
		if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(model))) {
			t.Fatal("wrong keys")
		}
	}
}

// A message that names no commit can't come in a frame, where the field is required; but a caller may have made it.
func TestNoCommitNamed(t *testing.T) {
	a := newAccount(t, keys.K256)
	m := a.commit(put("com.example.note/1", "x"))
	m.Commit = cid.CID{}
	if _, err := repo.VerifyCommit(m, a.key.Public(), nil, repo.VerifyOptions{}); reasonOf(err) != repo.ReasonCARRoot {
		t.Errorf("%v, want %s", err, repo.ReasonCARRoot)
	}
	if c := repo.ReportCommit(m, a.key.Public(), nil, repo.VerifyOptions{}).Failed(); c == nil || c.Name != repo.ReasonCARRoot {
		t.Errorf("report: %+v", c)
	}
}

// TestHostileTreesInMessages gives each hostile tree to the verification of messages, as the first commit of a repository
// that says nothing of its records.
func TestHostileTreesInMessages(t *testing.T) {
	for _, c := range repotest.Hostile() {
		if !c.Reason.Tree() {
			continue
		}
		roots, blocks := readCAR(t, c.CAR)
		commit, err := repo.DecodeCommit(blocks[roots[0]])
		if err != nil {
			t.Fatal(err)
		}
		m := repo.CommitMessage{Repo: string(commit.DID), Rev: string(commit.Rev), Time: string(at), Commit: roots[0], Blocks: c.CAR, PrevData: repo.EmptyRoot, Since: "3lscuqc52or22"}
		// Ops for all keys that the tree has lead the inversion to every node.
		for _, p := range []string{"com.example.a", "com.example.b", "com.example.c", "com.example.z"} {
			for layer := range 3 {
				k := repotest.Path(p, layer, 0)
				if v := cid.Sum(cid.DagCBOR, repotest.Record(k)); blocks[v] != nil {
					m.Ops = append(m.Ops, repo.Op{Action: "create", Path: k, CID: v})
				}
			}
		}
		_, err = repo.VerifyCommit(m, repotest.Key().Public(), nil, repo.VerifyOptions{})
		if reasonOf(err) != c.Reason {
			t.Errorf("%s: %v, want %s", c.Name, err, c.Reason)
		}
	}
}

func TestSync(t *testing.T) {
	a := newAccount(t, keys.P256)
	a.commit(put("com.example.note/a", "a"))
	old := *a.state
	u := a.update(put("com.example.note/b", "b"))
	m := repo.SyncMessage{DID: string(repotest.DID), Rev: string(u.Commit.Rev), Time: string(at),
		Blocks: car.AppendBlock(car.AppendHeader(nil, u.CommitCID), u.CommitCID, u.Block)}
	st, err := repo.VerifySync(m, a.key.Public(), &old, repo.VerifyOptions{Now: now})
	if err != nil || st.Rev != u.Commit.Rev || st.Data != u.Commit.Data {
		t.Fatal(st, err)
	}
	if _, err := repo.VerifySync(m, a.key.Public(), &st, repo.VerifyOptions{}); err != nil {
		t.Errorf("again: %v", err)
	}
}

// realMessage reads one of the real messages.
func realMessage(t testing.TB, name string) repo.CommitMessage {
	var j struct {
		Repo, Rev, Time string
		Since           *string
		Commit          link
		PrevData        *link
		TooBig, Rebase  bool
		Blocks          struct {
			Bytes string `json:"$bytes"`
		}
		Ops []struct {
			Action, Path string
			CID, Prev    *link
		}
	}
	if err := json.Unmarshal(fixtures.Read(t, name), &j); err != nil {
		t.Fatal(err)
	}
	m := repo.CommitMessage{Repo: j.Repo, Rev: j.Rev, Time: j.Time, Commit: j.Commit.Link, TooBig: j.TooBig, Rebase: j.Rebase}
	if j.Since != nil {
		m.Since = *j.Since
	}
	if j.PrevData != nil {
		m.PrevData = j.PrevData.Link
	}
	for _, o := range j.Ops {
		op := repo.Op{Action: o.Action, Path: o.Path}
		if o.CID != nil {
			op.CID = o.CID.Link
		}
		if o.Prev != nil {
			op.Prev = o.Prev.Link
		}
		m.Ops = append(m.Ops, op)
	}
	var err error
	if m.Blocks, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(j.Blocks.Bytes, "=")); err != nil {
		t.Fatal(err)
	}
	return m
}

type link struct {
	Link cid.CID `json:"$link"`
}

// The real messages are all from before sync 1.1. One of them could be inverted all the same.
func TestRealMessages(t *testing.T) {
	for _, name := range []string{"4621317030", "4621317332", "4621332152", "4623075231"} {
		m := realMessage(t, "firehose/firehose_commit_"+name+".json")
		if _, err := repo.VerifyCommit(m, nil, nil, repo.VerifyOptions{Now: now, SkipSignature: true}); !reasonOf(err).Legacy() {
			t.Errorf("%s: %v, want a legacy reason", name, err)
		}
		st, err := repo.VerifyCommit(m, nil, nil, repo.VerifyOptions{Now: now, SkipSignature: true, Legacy: repo.LegacyAccept, Records: repo.RecordsStrict})
		if err != nil || string(st.Rev) != m.Rev {
			t.Errorf("%s: %v with the legacy policy accept", name, err)
		}
		if name == "4621332152" {
			m.PrevData, _ = cid.Parse("bafyreid4lxi7jmskjiigk6lfsmm55qmyy5zepfqlus5csbo37i4uc7drs4")
			if _, err := repo.VerifyCommit(m, nil, nil, repo.VerifyOptions{Now: now, SkipSignature: true}); err != nil {
				t.Errorf("%s: %v with prevData", name, err)
			}
			m.PrevData = repo.EmptyRoot
			if _, err := repo.VerifyCommit(m, nil, nil, repo.VerifyOptions{SkipSignature: true}); reasonOf(err) != repo.ReasonInversion {
				t.Errorf("%s: %v with other prevData", name, err)
			}
			continue
		}
		m.PrevData = repo.EmptyRoot
		if _, err := repo.VerifyCommit(m, nil, nil, repo.VerifyOptions{SkipSignature: true}); reasonOf(err) != repo.ReasonMissingNode {
			t.Errorf("%s: %v with prevData, though the proof is incomplete", name, err)
		}
	}
}

// readCAR and writeCAR take a file apart and put it together again without any check.
func readCAR(t testing.TB, b []byte) ([]cid.CID, map[cid.CID][]byte) {
	t.Helper()
	out := map[cid.CID][]byte{}
	uvarint := func() (v int) {
		for s := 0; ; s += 7 {
			c := b[0]
			b = b[1:]
			v |= int(c&0x7f) << s
			if c < 0x80 {
				return v
			}
		}
	}
	n := uvarint()
	root, err := cid.FromBytes(b[n-9-cid.Size : n-9]) // before "gversion" and 1
	if err != nil {
		t.Fatal(err)
	}
	for b = b[n:]; len(b) > 0; {
		n := uvarint()
		out[cid.CID(b[:cid.Size])] = b[cid.Size:n]
		b = b[n:]
	}
	return []cid.CID{root}, out
}

func writeCAR(roots []cid.CID, blocks map[cid.CID][]byte) []byte {
	b := car.AppendHeader(nil, roots...)
	for c, data := range blocks {
		b = car.AppendBlock(b, c, data)
	}
	return b
}

// FuzzMessage holds reports against verification, whatever the blocks and the operation are.
// sameByTree holds a verdict on a commit message against that of the slow way, which knows nodes as objects.
func sameByTree(t *testing.T, m *repotest.Message, err error) {
	t.Helper()
	_, slow := repo.VerifyByTree(m.Commit, m.Key, m.Prev, m.Options)
	if fmt.Sprint(err) != fmt.Sprint(slow) {
		t.Fatalf("verified: %v, by a tree: %v", err, slow)
	}
}

// Hostile messages, and honest ones with a fault in a node, are judged as on a tree of objects, down to the text.
func TestSameByTree(t *testing.T) {
	for _, c := range repotest.HostileMessages() {
		for _, m := range []repotest.Message{c.Bad, c.Good} {
			if m.Sync == nil {
				_, err := m.Verify()
				sameByTree(t, &m, err)
			}
		}
	}
	a := newAccount(t, keys.K256)
	r := rand.New(rand.NewPCG(4, 4))
	a.commit()
	accepted, reasons := 0, map[repo.Reason]int{}
	for n := range 400 {
		var writes []repo.Write
		for range 1 + r.IntN(4)*r.IntN(2) {
			if p := fmt.Sprintf("com.example.note/%d", r.IntN(300)); !slices.ContainsFunc(writes, func(w repo.Write) bool { return w.Path == p }) {
				if _, had, _ := a.tree.Get(p); had && r.IntN(2) == 0 {
					writes = append(writes, repo.Write{Path: p})
				} else {
					writes = append(writes, put(p, fmt.Sprint(n)))
				}
			}
		}
		prev := *a.state
		honest := a.commit(writes...)
		for range 8 {
			m := repotest.Message{Commit: honest, Key: a.key.Public(), Prev: &prev, Options: repo.VerifyOptions{SkipSignature: true, Legacy: repo.LegacyPolicy(r.IntN(2))}}
			spoil(t, r, &m)
			_, err := m.Verify()
			sameByTree(t, &m, err)
			if err == nil {
				accepted++
			} else {
				reasons[reasonOf(err)]++
			}
		}
	}
	if accepted < 100 || len(reasons) < 8 {
		t.Errorf("%d messages accepted, others refused for %v", accepted, reasons)
	}
}

// spoil changes a message, of which the commit's own block says nothing then, or nothing that isn't checked by hashes.
func spoil(t *testing.T, r *rand.Rand, m *repotest.Message) {
	c := &m.Commit
	c.Ops = slices.Clone(c.Ops)
	op := &c.Ops[r.IntN(len(c.Ops))]
	switch r.IntN(9) {
	case 0:
		op.CID, op.Prev = op.Prev, op.CID
	case 1:
		op.Action = []string{repo.ActionCreate, repo.ActionUpdate, repo.ActionDelete}[r.IntN(3)]
	case 2:
		op.Path += "0"
	case 3:
		if c.PrevData = (cid.CID{}); r.IntN(2) == 0 { // perhaps like a first commit
			c.Since, m.Prev = "", nil
		}
	case 4:
		op.Prev = cid.CID{}
	case 5:
		c.Ops = c.Ops[1:]
	default: // other blocks, under their right names
		roots, blocks, err := car.Parse(c.Blocks, car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var list []car.Block
		for b, err := range blocks {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, b)
		}
		i := 1 + r.IntN(len(list)-1)
		b := list[i]
		switch r.IntN(3) {
		case 0:
			list = slices.Delete(list, i, i+1)
		case 1:
			list = append(list, b)
		default:
			data := slices.Clone(b.Data)
			data[r.IntN(len(data))]++
			fresh := cid.Sum(b.CID.Codec(), data)
			list[i] = car.Block{CID: fresh, Data: data}
			// All that linked to it, up to the commit, whose signature is not looked at.
			for old := b.CID; ; {
				k := slices.IndexFunc(list, func(b car.Block) bool { return strings.Contains(string(b.Data), string(old[:])) })
				if k < 0 {
					break
				}
				data := []byte(strings.ReplaceAll(string(list[k].Data), string(old[:]), string(fresh[:])))
				old, fresh = list[k].CID, cid.Sum(cid.DagCBOR, data)
				list[k] = car.Block{CID: fresh, Data: data}
				if old == roots[0] {
					roots[0], c.Commit = fresh, fresh
					break
				}
			}
		}
		c.Blocks = car.AppendHeader(nil, roots...)
		for _, b := range list {
			c.Blocks = car.AppendBlock(c.Blocks, b.CID, b.Data)
		}
	}
}

func FuzzMessage(f *testing.F) {
	const big = 20_000
	cases := repotest.HostileMessages()
	for _, c := range cases {
		for _, m := range []repotest.Message{c.Bad, c.Good} {
			if m.Sync == nil && len(m.Commit.Blocks) < big && len(m.Commit.Ops) > 0 {
				op := m.Commit.Ops[0]
				f.Add(m.Commit.Blocks, op.Path, op.Action, m.Commit.Rev, m.Prev == nil, false)
			} else if m.Sync != nil && len(m.Sync.Blocks) < big {
				f.Add(m.Sync.Blocks, "", "", m.Sync.Rev, m.Prev == nil, true)
			}
		}
	}
	first := cases[0].Good
	f.Fuzz(func(t *testing.T, blocks []byte, path, action, rev string, unknown, sync bool) {
		m := first
		m.Commit.Ops = slices.Clone(m.Commit.Ops)
		m.Commit.Ops[0].Path, m.Commit.Ops[0].Action = path, action
		m.Commit.Blocks, m.Commit.Rev, m.Commit.FrameSize = blocks, rev, 0
		if sync {
			m.Sync = &repo.SyncMessage{DID: m.Commit.Repo, Rev: rev, Time: m.Commit.Time, Blocks: blocks}
		}
		if unknown {
			m.Prev = nil
		}
		for _, m.Options = range []repo.VerifyOptions{{Now: now}, {SkipSignature: true, Legacy: repo.LegacyAccept, Records: repo.RecordsStrict}} {
			// Without the message's own word on it the root is the commit, so that more than the seeds get beyond it.
			for _, m.Commit.Commit = range []cid.CID{first.Commit.Commit, {}} {
				_, err := m.Verify()
				reason := reasonOf(err)
				report := m.Report()
				if m.Sync == nil {
					sameByTree(t, &m, err)
				}
				if (err == nil) != report.OK() || err != nil && reason == "" {
					t.Fatalf("verified: %v, reported: %+v", err, report.Failed())
				}
				if err != nil && !slices.ContainsFunc(report.Checks, func(c repo.Check) bool { return c.Name == reason && c.Status == repo.StatusFailed }) {
					t.Fatalf("verified: %v, reported: %+v", err, report.Failed())
				}
			}
		}
	})
}

func BenchmarkVerifyCommit(b *testing.B) {
	for _, curve := range []keys.Curve{keys.K256, keys.P256} {
		for _, skip := range []bool{false, true} {
			b.Run(fmt.Sprintf("%v/skip=%v", curve, skip), func(b *testing.B) {
				a := newAccount(b, curve)
				var writes []repo.Write
				for i := range 5000 {
					writes = append(writes, put(fmt.Sprintf("com.example.note/%05d", i), "x"))
					if len(writes) == 200 {
						a.update(writes...)
						writes = nil
					}
				}
				root, _ := a.tree.Root()
				a.state = &repo.State{Rev: syntax.NewTID(a.micros, 0), Data: root}
				prev := *a.state
				m := a.commit(put("com.example.note/02500a", strings.Repeat("x", 200)))
				pub := a.key.Public()
				b.SetBytes(int64(len(m.Blocks)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := repo.VerifyCommit(m, pub, &prev, repo.VerifyOptions{Now: now, SkipSignature: skip}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// A report goes on with a message of too many operations, but what these take isn't kept for later ones.
func TestReportKeepsNothing(t *testing.T) {
	a := newAccount(t, keys.P256)
	a.commit()
	m := a.commit(put("com.example.note/1", "x"))
	for i := range 20_000 {
		m.Ops = append(m.Ops, repo.Op{Action: repo.ActionDelete, Path: fmt.Sprintf("com.example.other/%d", i), Prev: repo.EmptyRoot})
	}
	if ops, paths := repo.KeptOf(m, repo.VerifyOptions{SkipSignature: true}); ops > repo.MaxOps || paths {
		t.Errorf("memory for %d operations is kept; for paths: %v", ops, paths)
	}
	m.Ops = m.Ops[:100]
	if ops, paths := repo.KeptOf(m, repo.VerifyOptions{SkipSignature: true}); ops < len(m.Ops) || !paths {
		t.Error("none is kept for messages as they are")
	}
}

// Messages are verified by many at once, good and hostile ones in turn, and each as if there were no others: memory goes from one to
// the next.
func TestVerifyTogether(t *testing.T) {
	type judged struct {
		repotest.Message
		want string
	}
	var all []judged
	text := func(m *repotest.Message) string {
		st, err := m.Verify()
		return fmt.Sprint(st, err)
	}
	r := rand.New(rand.NewPCG(9, 9))
	for _, c := range repotest.HostileMessages() {
		for _, m := range []repotest.Message{c.Bad, c.Good} {
			all = append(all, judged{m, text(&m)})
			if m.Sync != nil || len(m.Commit.Blocks) > 100_000 {
				continue
			}
			for range 3 { // and with a bit that is wrong
				m.Commit.Blocks = slices.Clone(m.Commit.Blocks)
				if n := len(m.Commit.Blocks); n > 0 {
					m.Commit.Blocks[r.IntN(n)] ^= 1 << r.IntN(8)
				}
				all = append(all, judged{m, text(&m)})
			}
		}
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			for _, i := range r.Perm(len(all)) {
				if m := &all[i]; text(&m.Message) != m.want {
					t.Errorf("message %d: %s; among others: %s", i, m.want, text(&m.Message))
				}
			}
		})
	}
	wg.Wait()
}

// Blocks can be named so that no hash of a part of the CID tells them from one another, as long as nobody has hashed them. That has to
// cost no more than any other message that is refused.
func TestChosenCIDs(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	message := func(digest func(i int, d []byte)) (m repo.CommitMessage) {
		m = repotest.HostileMessages()[0].Good.Commit
		m.FrameSize = 0
		m.Blocks = car.AppendHeader(nil, m.Commit)
		for i := range 20_000 {
			c := cid.Sum(cid.DagCBOR, nil)
			digest(i, c[cid.Size-32:])
			m.Blocks = car.AppendBlock(m.Blocks, c, nil)
		}
		return m
	}
	cost := func(m repo.CommitMessage) time.Duration {
		best := time.Hour
		for range 3 {
			start := time.Now()
			if _, err := repo.VerifyCommit(m, nil, nil, repo.VerifyOptions{}); reasonOf(err) != repo.ReasonBlockHash {
				t.Fatal(err)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	any := cost(message(func(_ int, d []byte) {
		for i := range d {
			d[i] = byte(r.Uint32())
		}
	}))
	for name, digest := range map[string]func(i int, d []byte){
		"the last eight bytes are the same": func(i int, d []byte) { copy(d, binary.BigEndian.AppendUint32(nil, uint32(i))) },
		"all but the last two bytes are":    func(i int, d []byte) { copy(d[30:], binary.BigEndian.AppendUint16(nil, uint16(i))) },
	} {
		if got := cost(message(digest)); got > 10*any {
			t.Errorf("%s: %v, others take %v", name, got, any)
		}
	}
}

// Whatever paths have come before, and however much is known to be as in the last good one, a path is judged as by CheckPath.
func TestPathChecker(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	check := repo.NewPathChecker()
	collections := []string{"com.example.note", "com.example.vote", "com.example.notes", "con.example.note", "com.EXAMPLE.note", "com.example.nOte", "com.examp-.note", "com..xample.note", "com.example", "a.b.c", ""}
	long := strings.Repeat("k", 512)
	keys := []string{"1", "2", "12", "a", ".", "..", "...", ".a", "a.", "a/b", "é", "a b", "", long[:511], long, long + "k", "self", "-", "~", ":"}
	pick := func(s []string) string { return s[r.IntN(len(s))] }
	last := ""
	accepted, refused := 0, 0
	for range 50_000 {
		path := pick(collections) + "/" + pick(keys)
		switch r.IntN(6) {
		case 0:
			path = pick(collections) + pick(keys)
		case 1: // more of the same
			path = last + pick(keys)
		case 2:
			path = last[:r.IntN(len(last)+1)] + pick(keys)
		}
		same := 0
		for same < min(len(path), len(last)) && path[same] == last[same] {
			same++
		}
		if r.IntN(2) == 0 {
			same = r.IntN(same + 1)
		}
		got, want := check([]byte(path), same), repo.CheckPath([]byte(path))
		if (got == nil) != (want == nil) {
			t.Fatalf("%q, %d bytes as in %q: %v; alone: %v", path, same, last, got, want)
		}
		if want == nil {
			last = path
			accepted++
		} else {
			refused++
		}
	}
	if min(accepted, refused) < 5000 {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
}
