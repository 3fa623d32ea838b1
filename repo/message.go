package repo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/syntax"
)

// Limits on messages and records, from https://atproto.com/specs/sync. A whole repository may hold records of up to
// [cbor.MaxRecord] bytes, a little more than may be written.
const (
	MaxBlocks     = 2_000_000 // bytes of the CAR slice in a #commit
	MaxSyncBlocks = 10_000    // bytes of the CAR slice in a #sync
	MaxOps        = 200       // operations in a commit
	MaxRecord     = 1_000_000 // bytes of a record in a commit
	MaxFrame      = 5_000_000 // bytes of a frame of the event stream, all included
)

// DefaultMaxFuture is how far ahead of the clock a revision may be.
const DefaultMaxFuture = 5 * time.Minute

// EmptyRoot is the root of the tree without records.
var EmptyRoot = cid.Sum(cid.DagCBOR, (&mst.Node{}).Append(nil))

// The actions of an [Op].
const (
	ActionCreate = "create"
	ActionUpdate = "update"
	ActionDelete = "delete"
)

// Op is one change of a record, as a commit message lists it. An undefined CID stands for null or absent.
type Op struct {
	Action string
	Path   string
	CID    cid.CID // the record, undefined in a deletion
	Prev   cid.CID // the record before, undefined in a creation
}

// CommitMessage is what a #commit event says. Fields are as they came, unchecked; an undefined CID and an empty string stand
// for null or absent.
type CommitMessage struct {
	Repo     string
	Rev      string
	Since    string
	Time     string
	Commit   cid.CID
	PrevData cid.CID
	Ops      []Op
	Blocks   []byte // CAR
	TooBig   bool
	Rebase   bool

	FrameSize int // bytes of the frame, 0 if it was no frame
}

// State is what a receiver remembers of a repository: enough to verify the next message.
type State struct {
	Rev  syntax.TID
	Data cid.CID
}

// LegacyPolicy says what to do with commit messages from before sync 1.1, which lack prevData or an op's prev and so can't
// be verified by inversion.
type LegacyPolicy uint8

// The policies.
const (
	LegacyReject LegacyPolicy = iota
	LegacyAccept              // check that the tree has what the ops say, as far as the blocks show it
)

// RecordPolicy says how records are looked at.
type RecordPolicy uint8

// The policies. A relay has no business with the finer points of the data model; real data is dirty.
const (
	RecordsReadable RecordPolicy = iota // a map in CBOR that a lenient reader gets through
	RecordsStrict                       // valid in the data model
	RecordsAny                          // not looked at
)

// VerifyOptions adjusts [VerifyCommit] and [VerifySync].
type VerifyOptions struct {
	// Now is the present time, against which revisions are held; if it is zero, that rule is left out.
	Now time.Time
	// MaxFuture is how far ahead of Now a revision may be, 0 for DefaultMaxFuture.
	MaxFuture time.Duration
	// Legacy is the policy for messages from before sync 1.1.
	Legacy LegacyPolicy
	// Records is the policy for records.
	Records RecordPolicy
	// SkipSignature leaves out the signature, and with it all that ties the message to the account.
	SkipSignature bool
	// RefuseFlags rejects messages that set the deprecated fields tooBig and rebase, which are ignored otherwise.
	RefuseFlags bool
}

// VerifyCommit verifies a commit message, by itself and as the successor of the state prev, and returns the state after
// it. Prev is nil if nothing is known of the repository: the message then still has to be consistent in itself.
//
// The rules are those of https://atproto.com/specs/sync that concern one message. An error is a [*VerifyError]. Of its
// reasons, [ReasonStaleRev] says to ignore the message, [ReasonSignature] to refresh the account's identity and to try
// once more, and those of [Reason.Desynchronizes] to fetch the repository.
//
// A message without prevData is that of a repository's first commit if it also has no since and nothing but creations that
// invert to the empty tree; otherwise the legacy policy applies.
func VerifyCommit(m CommitMessage, key *keys.PublicKey, prev *State, o VerifyOptions) (State, error) {
	if err := checkCommitFields(&m, prev, &o); err != nil {
		return State{}, err
	}
	legacy, err := checkOps(m.Ops, !m.PrevData.Defined())
	if err != nil {
		return State{}, err
	}
	first := !m.PrevData.Defined() && m.Since == "" && prev == nil && onlyCreates(m.Ops)
	if legacy && !first && o.Legacy == LegacyReject {
		if m.PrevData.Defined() {
			return State{}, failf(ReasonNoOpPrev, "an update or a deletion without prev")
		}
		return State{}, failf(ReasonNoPrevData, "and it isn't a first commit")
	}

	v := verifiers.Get().(*verifier)
	defer v.free()
	c, blocks := &v.commit, &v.blocks
	if err := v.readSlice(m.Blocks, m.Commit, m.Repo, m.Rev); err != nil {
		return State{}, err
	}
	if !o.SkipSignature {
		if key == nil {
			return State{}, failf(ReasonNoKey, "no key to verify the signature with")
		}
		if err := c.Verify(key); err != nil {
			return State{}, err
		}
	}
	for i := range m.Ops {
		op := &m.Ops[i]
		if !op.CID.Defined() {
			continue
		}
		b, ok := blocks.find(&op.CID)
		if !ok {
			return State{}, failf(ReasonMissingRecord, "%s of %s", op.CID, op.Path)
		}
		if len(b) > MaxRecord {
			return State{}, failf(ReasonRecordTooBig, "%s has %d bytes, more than %d", op.Path, len(b), MaxRecord)
		}
		if err := checkRecord(b, o.Records); err != nil {
			return State{}, &VerifyError{Reason: ReasonRecordEncoding, Detail: op.Path, Err: err}
		}
	}

	open := func() *mst.Tree {
		return v.arena.Open(c.Data, blocks, mst.Options{HashChecked: true, CheckKey: v.check})
	}
	switch {
	case first:
		if err = v.invert(open(), m.Ops, EmptyRoot); err == nil {
			break
		}
		if e := (*VerifyError)(nil); errors.As(err, &e) && e.Reason.Tree() {
			return State{}, err
		}
		if o.Legacy == LegacyReject {
			return State{}, &VerifyError{Reason: ReasonNoPrevData, Detail: "and it isn't a first commit", Err: err}
		}
		err = checkOutcome(open(), m.Ops)
	case legacy:
		err = checkOutcome(open(), m.Ops)
	default:
		err = v.invert(open(), m.Ops, m.PrevData)
	}
	if err != nil {
		return State{}, err
	}
	if prev != nil {
		if m.PrevData.Defined() && m.PrevData != prev.Data {
			return State{}, failf(ReasonPrevData, "builds on tree %s, but the repository has %s", m.PrevData, prev.Data)
		}
		if m.Since != string(prev.Rev) {
			return State{}, failf(ReasonSince, "builds on revision %q, but the repository is at %q", m.Since, prev.Rev)
		}
	}
	return State{Rev: c.Rev, Data: c.Data}, nil
}

// SyncMessage is what a #sync event says. Fields are as they came, unchecked.
type SyncMessage struct {
	DID    string
	Rev    string
	Time   string
	Blocks []byte // CAR with nothing but the commit

	FrameSize int // bytes of the frame, 0 if it was no frame
}

// VerifySync verifies a sync message and returns the state that it claims. If its Data is that of prev, nothing has to be
// done; otherwise the repository has to be fetched. A revision that isn't newer than prev's is stale, unless the data is
// the same. An error is a [*VerifyError], as with [VerifyCommit].
func VerifySync(m SyncMessage, key *keys.PublicKey, prev *State, o VerifyOptions) (State, error) {
	if m.FrameSize > MaxFrame {
		return State{}, failf(ReasonFrameTooBig, "%d bytes, more than %d", m.FrameSize, MaxFrame)
	}
	if len(m.Blocks) > MaxSyncBlocks {
		return State{}, failf(ReasonBlocksTooBig, "%d bytes, more than %d", len(m.Blocks), MaxSyncBlocks)
	}
	if err := checkHead(m.DID, m.Rev, m.Time, &o); err != nil {
		return State{}, err
	}
	if prev != nil && m.Rev < string(prev.Rev) {
		return State{}, failf(ReasonStaleRev, "%s is older than %s", m.Rev, prev.Rev)
	}
	v := verifiers.Get().(*verifier)
	defer v.free()
	c := &v.commit
	if err := v.readSlice(m.Blocks, cid.CID{}, m.DID, m.Rev); err != nil {
		return State{}, err
	}
	if n := len(v.blocks.list); n != 1 {
		return State{}, failf(ReasonExtraBlocks, "%d blocks, want the commit alone", n)
	}
	if !o.SkipSignature {
		if key == nil {
			return State{}, failf(ReasonNoKey, "no key to verify the signature with")
		}
		if err := c.Verify(key); err != nil {
			return State{}, err
		}
	}
	if prev != nil && c.Rev <= prev.Rev && c.Data != prev.Data {
		return State{}, failf(ReasonStaleRev, "%s is not newer than %s", c.Rev, prev.Rev)
	}
	return State{Rev: c.Rev, Data: c.Data}, nil
}

func checkCommitFields(m *CommitMessage, prev *State, o *VerifyOptions) error {
	switch {
	case m.FrameSize > MaxFrame:
		return failf(ReasonFrameTooBig, "%d bytes, more than %d", m.FrameSize, MaxFrame)
	case len(m.Blocks) > MaxBlocks:
		return failf(ReasonBlocksTooBig, "%d bytes, more than %d", len(m.Blocks), MaxBlocks)
	case len(m.Ops) > MaxOps:
		return failf(ReasonTooManyOps, "%d, more than %d", len(m.Ops), MaxOps)
	case o.RefuseFlags && m.TooBig:
		return failf(ReasonTooBigFlag, "the deprecated field tooBig is true")
	case o.RefuseFlags && m.Rebase:
		return failf(ReasonRebaseFlag, "the deprecated field rebase is true")
	}
	if err := checkHead(m.Repo, m.Rev, m.Time, o); err != nil {
		return err
	}
	if m.Since != "" {
		if _, err := syntax.ParseTID(m.Since); err != nil {
			return &VerifyError{Reason: ReasonSinceSyntax, Err: err}
		}
	}
	if prev != nil && m.Rev <= string(prev.Rev) {
		return failf(ReasonStaleRev, "%s is not newer than %s", m.Rev, prev.Rev)
	}
	return nil
}

// checkHead checks what both messages have: syntax, and that the revision isn't in the future.
func checkHead(did, rev, at string, o *VerifyOptions) error {
	if _, err := syntax.ParseDID(did); err != nil {
		return &VerifyError{Reason: ReasonDIDSyntax, Err: err}
	}
	tid, err := syntax.ParseTID(rev)
	if err != nil {
		return &VerifyError{Reason: ReasonRevSyntax, Err: err}
	}
	if _, err := syntax.ParseDatetime(at); err != nil {
		return &VerifyError{Reason: ReasonTimeSyntax, Err: err}
	}
	return checkFuture(tid, o.Now, o.MaxFuture)
}

func checkFuture(rev syntax.TID, now time.Time, ahead time.Duration) error {
	if now.IsZero() {
		return nil
	}
	if ahead == 0 {
		ahead = DefaultMaxFuture
	}
	if t := rev.Time(); t.After(now.Add(ahead)) {
		return failf(ReasonFutureRev, "%s is of %s, %s ahead", rev, t.UTC().Format(time.RFC3339), t.Sub(now).Round(time.Second))
	}
	return nil
}

// checkOps checks the shape of ops. With legacy set, prev may be missing; it reports whether the message is a legacy one.
func checkOps(ops []Op, legacy bool) (bool, error) {
	var seen map[string]struct{}
	if len(ops) > 8 {
		seen = make(map[string]struct{}, len(ops))
	}
	for i := range ops {
		op := &ops[i]
		if err := checkPath(op.Path); err != nil {
			return false, &VerifyError{Reason: ReasonPathSyntax, Detail: fmt.Sprintf("op %d", i), Err: err}
		}
		dup := false
		if seen != nil {
			_, dup = seen[op.Path]
			seen[op.Path] = struct{}{}
		} else {
			dup = slices.ContainsFunc(ops[:i], func(o Op) bool { return o.Path == op.Path })
		}
		if dup {
			return false, failf(ReasonDuplicatePath, "%s", op.Path)
		}
		var want string
		switch op.Action {
		case ActionCreate:
			if !op.CID.Defined() || op.Prev.Defined() {
				want = "cid and no prev"
			}
		case ActionUpdate:
			if !op.CID.Defined() {
				want = "cid and prev"
			}
			legacy = legacy || !op.Prev.Defined()
		case ActionDelete:
			if op.CID.Defined() {
				want = "prev and no cid"
			}
			legacy = legacy || !op.Prev.Defined()
		default:
			return false, failf(ReasonOpShape, "action %q of %s", op.Action, op.Path)
		}
		if want != "" {
			return false, failf(ReasonOpShape, "%s of %s needs %s", op.Action, op.Path, want)
		}
		if op.CID.Defined() && op.CID.Codec() != cid.DagCBOR {
			return false, &VerifyError{Reason: ReasonOpCodec, Path: op.Path, CID: op.CID, Detail: fmt.Sprintf("codec 0x%02x", byte(op.CID.Codec()))}
		}
	}
	return legacy, nil
}

func onlyCreates(ops []Op) bool {
	for i := range ops {
		if ops[i].Action != ActionCreate {
			return false
		}
	}
	return true
}

// verifier is the memory that verifying a message takes. Messages come by the thousands per second, so it is used again.
type verifier struct {
	blocks blockSet
	commit Commit // its signature is a view of the message
	arena  mst.Arena
	undo   []mst.Op
	paths  pathChecker
	check  func(path []byte) error // paths.check
}

var verifiers = sync.Pool{New: func() any {
	v := new(verifier)
	v.check = v.paths.check
	return v
}}

// free gives the memory back, without anything of the message.
func (v *verifier) free() {
	v.blocks.reset()
	v.arena.Close()
	v.commit = Commit{}
	clear(v.undo)
	verifiers.Put(v)
}

// readSlice reads a message's CAR slice and its commit, and holds the commit against the message's fields. An undefined
// commit stands for whatever the root names.
func (v *verifier) readSlice(b []byte, commit cid.CID, did, rev string) error {
	root, err := v.blocks.parse(b)
	if err != nil {
		return err
	}
	if !root.Defined() {
		return failf(ReasonCARRoot, "no root")
	}
	if commit.Defined() && root != commit {
		return failf(ReasonCARRoot, "first root is %s, but the commit is %s", root, commit)
	}
	block, ok := v.blocks.find(&root)
	if !ok {
		return failf(ReasonMissingCommit, "%s", root)
	}
	c := &v.commit
	err = c.decode(block, syntax.DID(did), syntax.TID(rev))
	switch {
	case err != nil:
		return err
	case c.Version != Version:
		return c.wrongVersion()
	case string(c.DID) != did:
		return failf(ReasonCommitDID, "the commit is of %s, the message of %s", c.DID, did)
	case string(c.Rev) != rev:
		return failf(ReasonCommitRev, "the commit has revision %s, the message %s", c.Rev, rev)
	}
	return nil
}

func (v *verifier) invert(tree *mst.Tree, ops []Op, want cid.CID) error {
	undo := v.undo[:0]
	for i := range ops {
		undo = append(undo, mst.Op{Key: ops[i].Path, Value: ops[i].CID, Prev: ops[i].Prev})
	}
	v.undo = undo
	if len(ops) == 0 {
		// Nothing to undo, but the top node of the tree still has to be one.
		if _, err := tree.Layer(); err != nil {
			var missing *mst.MissingError
			if !errors.As(err, &missing) {
				return treeError(err)
			}
		}
	}
	if err := tree.Invert(undo); err != nil {
		return treeError(err)
	}
	got, err := tree.Root()
	if err != nil {
		return treeError(err)
	}
	if got != want {
		return failf(ReasonInversion, "without the operations the tree is %s, not %s", got, want)
	}
	return nil
}

// checkOutcome is what remains for messages that can't be inverted: the tree has what the ops say.
func checkOutcome(tree *mst.Tree, ops []Op) error {
	for i := range ops {
		op := &ops[i]
		got, found, err := tree.Get(op.Path)
		if errors.Is(err, mst.ErrNotFound) && op.Action == ActionDelete {
			continue // old messages don't prove absence
		}
		if err != nil {
			return treeError(err)
		}
		if found != op.CID.Defined() || got != op.CID {
			return failf(ReasonOpMismatch, "%s of %s is not what the tree has", op.Action, op.Path)
		}
	}
	return nil
}

// CheckPath checks a record path: a collection in normal form (the authority in lower case), a slash and a record key.
// It is meant for [mst.Options.CheckKey] and [mst.NewWalker].
func CheckPath(path []byte) error { return checkPath(path) }

// pathChecker is [CheckPath] for many paths in order. Most of them are in the same collection as the one before.
type pathChecker struct {
	collection []byte // that of the last good path, with the slash
}

func (p *pathChecker) check(path []byte) error {
	if n := len(p.collection); n > 0 && bytes.HasPrefix(path, p.collection) && syntax.ValidRecordKey(path[n:]) {
		return nil
	}
	if err := checkPath(path); err != nil {
		return err
	}
	p.collection = append(p.collection[:0], path[:bytes.IndexByte(path, '/')+1]...)
	return nil
}

func checkPath[S string | []byte](path S) error {
	if !syntax.ValidPath(path) {
		_, _, err := syntax.ParsePath(string(path))
		return err
	}
	upper := false
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			return nil // what came after the last dot is the name, whose case is its own
		case 'A' <= c && c <= 'Z':
			upper = true
		case c == '.' && upper:
			return errors.New("the collection's authority is not in lower case")
		}
	}
	return nil
}

// checkRecord checks a record's block as the policy demands.
func checkRecord(b []byte, p RecordPolicy) error {
	if p == RecordsAny {
		return nil
	}
	err := cbor.Valid(b)
	if err != nil && p == RecordsReadable {
		r := cbor.NewLenientReader(b, func(*cbor.Error) {})
		if err = r.Skip(); err == nil {
			err = r.End()
		}
	}
	if err != nil {
		return err
	}
	if b[0]>>5 != 5 {
		return errors.New("a record has to be a map")
	}
	return nil
}
