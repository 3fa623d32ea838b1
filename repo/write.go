package repo

import (
	"fmt"
	"io"
	"slices"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/syntax"
)

// WriteCAR writes a whole repository as a CAR file in streamable order: the commit, then the tree from the top, each node
// before its children and records. A record that has several paths is written for each, so that a reader needn't remember
// it. Record returns the block of a record, which is valid until its next call.
func WriteCAR(w io.Writer, commit []byte, tree *mst.Tree, record func(path string, c cid.CID) ([]byte, error)) error {
	c, err := DecodeLegacyCommit(commit)
	if err != nil {
		return err
	}
	root, err := tree.Root()
	if err != nil {
		return err
	}
	if c.Data != root {
		return fmt.Errorf("writing a repository: the commit is of tree %s, not %s", c.Data, root)
	}
	top := cid.Sum(cid.DagCBOR, commit)
	out, err := car.NewWriter(w, top)
	if err != nil {
		return err
	}
	if err := out.Write(top, commit); err != nil {
		return err
	}
	for item, err := range tree.Items() {
		if err != nil {
			return err
		}
		b := item.Node
		if b == nil {
			if b, err = record(item.Key, item.CID); err != nil {
				return fmt.Errorf("record %s: %w", item.Key, err)
			}
		}
		if err := out.Write(item.CID, b); err != nil {
			return err
		}
	}
	return nil
}

// Write is one change to make: the record's new value, or nil to delete it.
type Write struct {
	Path   string
	Record []byte // DAG-CBOR
}

// Update is a commit and all that a store and a commit message need of it.
type Update struct {
	Commit    *Commit
	CommitCID cid.CID
	Block     []byte         // the commit's block
	Ops       []Op           // what changed; writes that change nothing are left out
	Change    mst.Change     // nodes that came and went
	Cover     []mst.PathNode // the nodes beside the added ones that inversion needs
	Records   [][]byte       // blocks of the created and updated records, in the order of Ops that have a CID
	PrevData  cid.CID

	blocks []byte
}

// Apply makes the next commit of a repository: it applies writes to the tree, which is flushed, and signs. On an error the
// tree is unchanged; it has to be flushed before. Only the shape of writes is checked: that records are valid is up to the
// caller. Writes that are too many or too large are a [*VerifyError].
func Apply(tree *mst.Tree, writes []Write, did syntax.DID, rev syntax.TID, key Signer) (*Update, *mst.Tree, error) {
	if len(writes) > MaxOps {
		return nil, nil, failf(ReasonTooManyOps, "%d, more than %d", len(writes), MaxOps)
	}
	before, err := tree.Root()
	if err != nil {
		return nil, nil, err
	}
	u := &Update{PrevData: before}
	next := tree.Clone()
	var keys []string
	for i := range writes {
		w := &writes[i]
		if err := checkPath(w.Path); err != nil {
			return nil, nil, &VerifyError{Reason: ReasonPathSyntax, Err: err}
		}
		if slices.ContainsFunc(writes[:i], func(o Write) bool { return o.Path == w.Path }) {
			return nil, nil, failf(ReasonDuplicatePath, "%s", w.Path)
		}
		op := Op{Path: w.Path}
		if w.Record == nil {
			op.Action = ActionDelete
			had := false
			if op.Prev, had, err = next.Delete(w.Path); err != nil {
				return nil, nil, err
			}
			if !had {
				continue
			}
			keys = append(keys, w.Path)
		} else {
			if len(w.Record) > MaxRecord {
				return nil, nil, failf(ReasonRecordTooBig, "%s has %d bytes, more than %d", w.Path, len(w.Record), MaxRecord)
			}
			op.CID = cid.Sum(cid.DagCBOR, w.Record)
			had := false
			if op.Prev, had, err = next.Put(w.Path, op.CID); err != nil {
				return nil, nil, err
			}
			switch {
			case !had:
				op.Action = ActionCreate
				keys = append(keys, w.Path)
			case op.Prev == op.CID:
				continue
			default:
				op.Action = ActionUpdate
			}
			u.Records = append(u.Records, w.Record)
		}
		u.Ops = append(u.Ops, op)
	}
	if u.Change, err = next.Flush(); err != nil {
		return nil, nil, err
	}
	if u.Cover, err = next.CoverBeside(u.Change.Added, keys...); err != nil {
		return nil, nil, err
	}
	u.Commit = &Commit{DID: did, Version: Version, Rev: rev, Data: u.Change.Root}
	if err := u.Commit.Sign(key); err != nil {
		return nil, nil, err
	}
	u.Block = u.Commit.Encode()
	u.CommitCID = cid.Sum(cid.DagCBOR, u.Block)
	u.blocks = u.slice()
	if n := len(u.blocks); n > MaxBlocks {
		return nil, nil, failf(ReasonBlocksTooBig, "%d bytes, more than %d", n, MaxBlocks)
	}
	return u, next, nil
}

// Blocks returns the CAR slice of a commit message: the commit, the new nodes, the nodes beside them that inversion needs,
// and the new records. It is made once; don't change it.
func (u *Update) Blocks() []byte { return u.blocks }

func (u *Update) slice() []byte {
	size := 128 + len(u.Block)
	for i := range u.Change.Added {
		size += len(u.Change.Added[i].Bytes) + 48
	}
	for i := range u.Cover {
		size += len(u.Cover[i].Bytes) + 48
	}
	for i := range u.Records {
		size += len(u.Records[i]) + 48
	}
	b := car.AppendHeader(make([]byte, 0, size), u.CommitCID)
	b = car.AppendBlock(b, u.CommitCID, u.Block)
	for i := range u.Change.Added {
		b = car.AppendBlock(b, u.Change.Added[i].CID, u.Change.Added[i].Bytes)
	}
	for i := range u.Cover {
		b = car.AppendBlock(b, u.Cover[i].CID, u.Cover[i].Bytes)
	}
	k := 0
	for i := range u.Ops {
		c := u.Ops[i].CID
		if !c.Defined() {
			continue
		}
		if !slices.ContainsFunc(u.Ops[:i], func(o Op) bool { return o.CID == c }) {
			b = car.AppendBlock(b, c, u.Records[k])
		}
		k++
	}
	return b
}

// Message returns the commit message that tells of u. Since is the revision before, empty for the first commit.
func (u *Update) Message(since syntax.TID, at syntax.Datetime) CommitMessage {
	m := CommitMessage{Repo: string(u.Commit.DID), Rev: string(u.Commit.Rev), Since: string(since), Time: string(at),
		Commit: u.CommitCID, PrevData: u.PrevData, Ops: u.Ops, Blocks: u.Blocks()}
	if since == "" {
		m.PrevData = cid.CID{}
	}
	return m
}
