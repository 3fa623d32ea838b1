package repotest

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"fmt"
	"maps"
	"math/big"
	"slices"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// PrevRev is the revision before [Rev] in messages.
const PrevRev syntax.TID = "3lscuqc52or22"

// Message is a message with all that verifying it takes.
type Message struct {
	Commit  repo.CommitMessage
	Sync    *repo.SyncMessage // then Commit is empty
	Key     *keys.PublicKey
	Prev    *repo.State // nil if nothing is known of the repository
	Options repo.VerifyOptions
}

// Verify verifies it.
func (m *Message) Verify() (repo.State, error) {
	if m.Sync != nil {
		return repo.VerifySync(*m.Sync, m.Key, m.Prev, m.Options)
	}
	return repo.VerifyCommit(m.Commit, m.Key, m.Prev, m.Options)
}

// Report reports on it.
func (m *Message) Report() *repo.Report {
	if m.Sync != nil {
		return repo.ReportSync(*m.Sync, m.Key, m.Prev, m.Options)
	}
	return repo.ReportCommit(m.Commit, m.Key, m.Prev, m.Options)
}

// MessageCase is a message that must not pass, and one beside it that must: the same but for what the rule is about, as
// close to the limit as can be.
type MessageCase struct {
	Name      string
	Rules     []int // of repo.Checklist
	Reason    repo.Reason
	Also      []repo.Reason // other rules that it can't help breaking, which are checked later
	Bad, Good Message
}

// draft is a commit message in the making: a repository before and after, the blocks that tell of it, and the message. The
// trees are made by the bulk builder, so that they owe nothing to the code that edits and inverts.
type draft struct {
	*Builder
	before, after map[string][]byte
	prevData      cid.CID
	ops           []repo.Op
	root          cid.CID // of the tree after
	roots         []cid.CID
	block         []byte // the commit, if it isn't to be made from Builder.Commit
	out           Message
}

// newDraft returns a draft with forty notes, of which one is new, one changed and one gone.
func newDraft() *draft {
	d := &draft{Builder: NewBuilder(), before: map[string][]byte{}}
	for i := range 40 {
		d.before[note(i)] = Record(fmt.Sprint(i))
	}
	d.after = maps.Clone(d.before)
	d.after[note(100)] = Record("new")
	d.after[note(5)] = Record("changed")
	delete(d.after, note(7))
	return d
}

func note(i int) string { return fmt.Sprintf("com.example.note/%05d", i) }

// empty makes it the first commit of a repository.
func (d *draft) empty() {
	d.before = map[string][]byte{}
	d.after = map[string][]byte{note(1): Record("first")}
}

// plant builds both trees, adds the nodes of the second and the records that are new in it, and lists the operations.
func (d *draft) plant() {
	tree := func(records map[string][]byte, emit func(mst.NodeBlock) error) cid.CID {
		b := mst.Builder{Emit: emit}
		for _, p := range slices.Sorted(maps.Keys(records)) {
			if err := b.Add(p, cid.Sum(cid.DagCBOR, records[p])); err != nil {
				panic(err)
			}
		}
		root, err := b.Finish()
		if err != nil {
			panic(err)
		}
		return root
	}
	d.prevData = tree(d.before, nil)
	d.root = tree(d.after, func(n mst.NodeBlock) error { d.Add(bytes.Clone(n.Bytes)); return nil })
	for _, p := range slices.Sorted(maps.Keys(d.after)) {
		was, now := d.before[p], d.after[p]
		if bytes.Equal(was, now) {
			continue
		}
		op := repo.Op{Action: repo.ActionCreate, Path: p, CID: d.Add(now)}
		if was != nil {
			op.Action, op.Prev = repo.ActionUpdate, cid.Sum(cid.DagCBOR, was)
		}
		d.ops = append(d.ops, op)
	}
	for _, p := range slices.Sorted(maps.Keys(d.before)) {
		if d.after[p] == nil {
			d.ops = append(d.ops, repo.Op{Action: repo.ActionDelete, Path: p, Prev: cid.Sum(cid.DagCBOR, d.before[p])})
		}
	}
}

// sign makes the commit, if none was put in, and the message.
func (d *draft) sign() {
	d.Commit.Data = d.root
	if d.block == nil {
		if d.Commit.Sig == nil {
			if err := d.Commit.Sign(d.Sign); err != nil {
				panic(err)
			}
		}
		d.block = d.Commit.Encode()
	}
	top := cid.Sum(cid.DagCBOR, d.block)
	if d.roots == nil {
		d.roots = []cid.CID{top}
	}
	out := car.AppendHeader(nil, d.roots...)
	out = car.AppendBlock(out, top, d.block)
	for _, k := range d.blocks {
		out = car.AppendBlock(out, k.cid, k.data)
	}
	d.out = Message{
		Commit: repo.CommitMessage{Repo: string(DID), Rev: string(Rev), Since: string(PrevRev), Time: "2026-11-20T12:00:00.000Z",
			Commit: top, PrevData: d.prevData, Ops: d.ops, Blocks: out, FrameSize: len(out) + 1000},
		Key:  Key().Public(),
		Prev: &repo.State{Rev: PrevRev, Data: d.prevData},
	}
}

// edits change a draft on its way: the records before the trees are built, the blocks before the commit is signed, and the
// message at the end.
type edits struct {
	records func(d *draft)
	blocks  func(d *draft)
	message func(m *Message)
}

func (e edits) build() Message {
	d := newDraft()
	if e.records != nil {
		e.records(d)
	}
	d.plant()
	if e.blocks != nil {
		e.blocks(d)
	}
	d.sign()
	if e.message != nil {
		e.message(&d.out)
	}
	return d.out
}

// sync returns the #sync that tells of the same commit.
func (e edits) sync(edit func(m *Message)) Message {
	m := e.build()
	c := m.Commit
	top := firstBlock(c.Blocks)
	m.Sync = &repo.SyncMessage{DID: c.Repo, Rev: c.Rev, Time: c.Time, FrameSize: 1000,
		Blocks: car.AppendBlock(car.AppendHeader(nil, top.CID), top.CID, top.Data)}
	m.Commit = repo.CommitMessage{}
	if edit != nil {
		edit(&m)
	}
	return m
}

// firstBlock returns the first block of an archive, which is the commit.
func firstBlock(b []byte) car.Block {
	sc, err := car.NewScanner(b, car.Options{})
	if err != nil {
		panic(err)
	}
	k, err := sc.Next()
	if err != nil {
		panic(err)
	}
	return k
}

// beside returns a message of one update in a tree of three layers, whose subtree on the other side the update has
// nothing to do with. Build makes that one; it has to be on layer 1, with keys after com.example.n.
func beside(build func(b *Builder) (right cid.CID)) Message {
	var none cid.CID
	d := &draft{Builder: NewBuilder()}
	l, m := Path("com.example.l", 1, 0), Path("com.example.m", 2, 0)
	right := build(d.Builder)
	was := mst.NodeEntry{Key: []byte(l), Value: cid.Sum(cid.DagCBOR, Record("before"))}
	now := mst.NodeEntry{Key: []byte(l), Value: d.Add(Record("after"))}
	middle := mst.NodeEntry{Key: []byte(m), Value: cid.Sum(cid.DagCBOR, Record(m)), Right: right}
	sum := func(left cid.CID, e mst.NodeEntry) cid.CID {
		return cid.Sum(cid.DagCBOR, (&mst.Node{Left: left, Entries: []mst.NodeEntry{e}}).Append(nil))
	}
	d.prevData = sum(sum(none, was), middle)
	d.root = d.Node(d.Node(none, now), middle)
	d.ops = []repo.Op{{Action: repo.ActionUpdate, Path: l, CID: now.Value, Prev: was.Value}}
	d.sign()
	return d.out
}

var orders = map[keys.Curve]*big.Int{
	keys.P256: elliptic.P256().Params().N,
	keys.K256: func() *big.Int {
		n, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
		return n
	}(),
}

// respell signs the commit and writes the signature in another way.
func respell(f func(sig []byte) []byte) func(d *draft) {
	return func(d *draft) {
		d.Commit.Data = d.root
		if err := d.Commit.Sign(d.Sign); err != nil {
			panic(err)
		}
		d.Commit.Sig = f(d.Commit.Sig)
	}
}

func highS(c keys.Curve) func(sig []byte) []byte {
	return func(sig []byte) []byte {
		s := new(big.Int).SetBytes(sig[32:])
		return append(bytes.Clone(sig[:32]), s.Sub(orders[c], s).FillBytes(make([]byte, 32))...)
	}
}

func der(sig []byte) []byte {
	b, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
	if err != nil {
		panic(err)
	}
	return b
}

// sized returns a valid record of n bytes.
func sized(n int) []byte {
	fill := n - len(Record("")) - 4 // the length of a long text takes five bytes instead of one
	b := Record(string(bytes.Repeat([]byte("x"), fill)))
	if len(b) != n || fill <= 0xffff {
		panic(fmt.Sprintf("a record of %d bytes, not %d", len(b), n))
	}
	return b
}

// full returns a message whose blocks have n bytes, most of them records.
func full(n int) Message {
	fill := 100_000
	build := func() Message {
		return edits{records: func(d *draft) {
			d.after[note(200)], d.after[note(201)], d.after[note(202)] = sized(repo.MaxRecord), sized(700_000), sized(fill)
		}}.build()
	}
	m := build()
	fill += n - len(m.Commit.Blocks)
	return build()
}

func junk(d *draft, n, size int) {
	for i := range n {
		d.Add(append(fmt.Appendf(nil, "%8d", i), make([]byte, size-8)...))
	}
}

func otherKey(c keys.Curve) *keys.PrivateKey {
	k, err := keys.NewPrivate(c, bytes.Repeat([]byte{9}, 32))
	if err != nil {
		panic(err)
	}
	return k
}
