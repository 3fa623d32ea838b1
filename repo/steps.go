package repo

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/syntax"
)

// step is a part of verifying a message: rules that are checked together. Verification runs the steps in order up to the
// first error; a report runs all whose needs are met. What is skipped under the options is returned with the reason why.
type step struct {
	run   func(v *verifier) (skipped string, err error)
	rules []Reason
	needs part
	gives part
}

// part is a set of what steps find out for others.
type part uint8

const (
	gotRev    part = 1 << iota // a valid revision
	gotOps                     // valid operations
	gotBlocks                  // blocks that hash to their CIDs
	gotRoot                    // the CID of the commit
	gotCommit                  // a commit of the right form
	gotTree                    // the nodes of the tree that are there
	gotUndone                  // the tree before
)

var treeRules = func() (out []Reason) {
	for i := range rules {
		if r := rules[i].reason; r.Tree() {
			out = append(out, r)
		}
	}
	return out
}()

var commitSteps = []step{
	{(*verifier).frameSize, []Reason{ReasonFrameTooBig, ReasonFrame}, 0, 0},
	{(*verifier).blocksSize, []Reason{ReasonBlocksTooBig}, 0, 0},
	{(*verifier).opsCount, []Reason{ReasonTooManyOps}, 0, 0},
	{(*verifier).flags, []Reason{ReasonTooBigFlag, ReasonRebaseFlag}, 0, 0},
	{(*verifier).did, []Reason{ReasonDIDSyntax}, 0, 0},
	{(*verifier).rev, []Reason{ReasonRevSyntax}, 0, gotRev},
	{(*verifier).time, []Reason{ReasonTimeSyntax}, 0, 0},
	{(*verifier).future, []Reason{ReasonFutureRev}, gotRev, 0},
	{(*verifier).since, []Reason{ReasonSinceSyntax}, 0, 0},
	{(*verifier).newer, []Reason{ReasonStaleRev}, gotRev, 0},
	{(*verifier).ops, []Reason{ReasonPathSyntax, ReasonDuplicatePath, ReasonOpShape, ReasonOpCodec}, 0, gotOps},
	{(*verifier).legacyOps, []Reason{ReasonNoOpPrev}, gotOps, 0},
	{(*verifier).legacy, []Reason{ReasonNoPrevData}, gotOps, 0},
	{(*verifier).parse, []Reason{ReasonCAR, ReasonBlockHash}, 0, gotBlocks},
	{(*verifier).namedRoot, []Reason{ReasonCARRoot}, gotBlocks, gotRoot},
	{(*verifier).decode, []Reason{ReasonMissingCommit, ReasonCommitShape, ReasonSignatureSize, ReasonDIDSyntax, ReasonRevSyntax, ReasonCommitVersion}, gotRoot, gotCommit},
	{(*verifier).commitDID, []Reason{ReasonCommitDID}, gotCommit, 0},
	{(*verifier).commitRev, []Reason{ReasonCommitRev}, gotCommit, 0},
	{(*verifier).hasKey, []Reason{ReasonNoKey}, 0, 0},
	{(*verifier).signature, []Reason{ReasonHighS, ReasonSignature}, gotCommit, 0},
	{(*verifier).records, []Reason{ReasonMissingRecord}, gotOps | gotBlocks, 0},
	{(*verifier).recordSizes, []Reason{ReasonRecordTooBig}, gotOps | gotBlocks, 0},
	{(*verifier).recordEncodings, []Reason{ReasonRecordEncoding}, gotOps | gotBlocks, 0},
	{(*verifier).nodes, treeRules, gotCommit, gotTree},
	{(*verifier).fewExtras, []Reason{ReasonExtraBlocks}, gotTree | gotOps, 0},
	{(*verifier).undoOps, []Reason{ReasonOpMismatch, ReasonMissingNode}, gotTree | gotOps, gotUndone},
	{(*verifier).inversion, []Reason{ReasonInversion}, gotUndone, 0},
	{(*verifier).sameData, []Reason{ReasonPrevData}, 0, 0},
	{(*verifier).sameRev, []Reason{ReasonSince}, 0, 0},
}

var syncSteps = []step{
	{(*verifier).frameSize, []Reason{ReasonFrameTooBig, ReasonFrame}, 0, 0},
	{(*verifier).syncBlocksSize, []Reason{ReasonBlocksTooBig}, 0, 0},
	{(*verifier).did, []Reason{ReasonDIDSyntax}, 0, 0},
	{(*verifier).rev, []Reason{ReasonRevSyntax}, 0, gotRev},
	{(*verifier).time, []Reason{ReasonTimeSyntax}, 0, 0},
	{(*verifier).future, []Reason{ReasonFutureRev}, gotRev, 0},
	{(*verifier).notOlder, []Reason{ReasonStaleRev}, gotRev, 0},
	{(*verifier).parse, []Reason{ReasonCAR, ReasonBlockHash}, 0, gotBlocks},
	{(*verifier).root, []Reason{ReasonCARRoot}, gotBlocks, gotRoot},
	{(*verifier).decode, []Reason{ReasonMissingCommit, ReasonCommitShape, ReasonSignatureSize, ReasonDIDSyntax, ReasonRevSyntax, ReasonCommitVersion}, gotRoot, gotCommit},
	{(*verifier).commitDID, []Reason{ReasonCommitDID}, gotCommit, 0},
	{(*verifier).commitRev, []Reason{ReasonCommitRev}, gotCommit, 0},
	{(*verifier).commitAlone, []Reason{ReasonExtraBlocks}, gotBlocks, 0},
	{(*verifier).hasKey, []Reason{ReasonNoKey}, 0, 0},
	{(*verifier).signature, []Reason{ReasonHighS, ReasonSignature}, gotCommit, 0},
	{(*verifier).newerOrSame, []Reason{ReasonStaleRev}, gotCommit, 0},
}

// verifier is a message that is being verified, and the memory that it takes. Messages come by the thousands per second, so
// the memory is used again.
type verifier struct {
	m     CommitMessage
	key   *keys.PublicKey
	prev  State
	known bool // there is a prev
	o     VerifyOptions

	tid      syntax.TID // of the message
	noOpPrev bool       // an update or a deletion lacks prev
	first    bool       // what looks like the first commit of a repository
	old      bool       // a message that can't be inverted, and is accepted all the same
	top      cid.CID    // of the commit
	commit   Commit     // its signature is a view of the message
	before   cid.CID    // the tree without the operations

	// The nodes of the tree: in part, as long as nothing is wrong with them, else in tree, which is nil before.
	part    mst.Partial
	tree    *mst.Tree
	byTree  bool // for tests: always in tree
	loading bool // each node may be asked for once

	blocks blockSet
	undo   []mst.Op
	seen   map[string]struct{}
	paths  pathChecker
	check  func(path []byte, same int) error // paths.check
}

var verifiers = sync.Pool{New: func() any {
	v := new(verifier)
	v.check = v.paths.check
	return v
}}

func newVerifier(m CommitMessage, key *keys.PublicKey, prev *State, o VerifyOptions) *verifier {
	v := verifiers.Get().(*verifier)
	v.m, v.key, v.o = m, key, o
	if v.known = prev != nil; v.known {
		v.prev = *prev
	}
	return v
}

// free gives the memory back, without anything of the message.
func (v *verifier) free() {
	v.reset()
	verifiers.Put(v)
}

// reset makes v what a new one would be, but for memory that most messages need.
func (v *verifier) reset() {
	v.blocks.reset()
	v.part.Reset()
	if len(v.m.Ops) > MaxOps { // which only a report goes on with
		v.undo, v.seen = nil, nil
	}
	clear(v.undo)
	clear(v.seen)
	v.undo = v.undo[:0]
	v.m, v.key, v.prev, v.o = CommitMessage{}, nil, State{}, VerifyOptions{}
	v.tid, v.noOpPrev, v.first, v.old, v.byTree, v.loading = "", false, false, false, false, false
	v.top, v.commit, v.before, v.tree = cid.CID{}, Commit{}, cid.CID{}, nil
}

func (v *verifier) verify(steps []step) (State, error) {
	for i := range steps {
		if _, err := steps[i].run(v); err != nil {
			return State{}, err
		}
	}
	return State{Rev: v.commit.Rev, Data: v.commit.Data}, nil
}

func (v *verifier) report(steps []step, of subject) *Report {
	r := new(Report)
	var have part
	for i := range steps {
		s := &steps[i]
		if s.needs&^have != 0 {
			continue
		}
		skipped, err := s.run(v)
		switch e, ok := errors.AsType[*VerifyError](err); {
		case ok:
			r.fail(e)
			continue
		case err != nil: // can't be: all that a message needs is in memory
			panic(fmt.Sprintf("verifying a message: %v", err))
		}
		have |= s.gives
		for _, rule := range s.rules {
			if skipped != "" {
				r.skip(rule, skipped)
			} else {
				r.pass(rule, "")
			}
		}
	}
	if have&gotCommit != 0 {
		c := &v.commit
		r.DID, r.Rev, r.Version, r.Commit, r.Data = c.DID, c.Rev, c.Version, v.top, c.Data
	}
	r.Ops = len(v.m.Ops)
	if have&gotBlocks != 0 {
		r.Blocks, r.Bytes, r.Duplicates = len(v.blocks.list), v.blocks.bytes, v.blocks.duplicates
		r.Unlinked, r.UnlinkedBytes = v.blocks.unused()
	}
	for i := range v.blocks.list {
		if v.blocks.list[i].node {
			r.Nodes++
		}
	}
	for i := range v.m.Ops {
		if b := v.blocks.get(&v.m.Ops[i].CID); b != nil {
			r.Records++
			r.RecordBytes += int64(b.end - b.start)
		}
	}
	r.finish(of)
	return r
}

// Sizes and flags.

func (v *verifier) frameSize() (string, error) {
	if v.m.FrameSize > MaxFrame {
		return "", failf(ReasonFrameTooBig, "%d bytes, more than %d", v.m.FrameSize, MaxFrame)
	}
	if v.m.FrameSize == 0 {
		return "it did not come in a frame", nil
	}
	return "", nil
}

func (v *verifier) blocksSize() (string, error)     { return v.blocksUpTo(MaxBlocks) }
func (v *verifier) syncBlocksSize() (string, error) { return v.blocksUpTo(MaxSyncBlocks) }

func (v *verifier) blocksUpTo(limit int) (string, error) {
	if len(v.m.Blocks) > limit {
		return "", failf(ReasonBlocksTooBig, "%d bytes, more than %d", len(v.m.Blocks), limit)
	}
	return "", nil
}

func (v *verifier) opsCount() (string, error) {
	if len(v.m.Ops) > MaxOps {
		return "", failf(ReasonTooManyOps, "%d, more than %d", len(v.m.Ops), MaxOps)
	}
	return "", nil
}

func (v *verifier) flags() (string, error) {
	switch {
	case !v.o.RefuseFlags:
		return "ignored, as the specification wants it", nil
	case v.m.TooBig:
		return "", failf(ReasonTooBigFlag, "the deprecated field tooBig is true")
	case v.m.Rebase:
		return "", failf(ReasonRebaseFlag, "the deprecated field rebase is true")
	}
	return "", nil
}

// Syntax and order in time.

func (v *verifier) did() (string, error) {
	if _, err := syntax.ParseDID(v.m.Repo); err != nil {
		return "", &VerifyError{Reason: ReasonDIDSyntax, Err: err}
	}
	return "", nil
}

func (v *verifier) rev() (_ string, err error) {
	if v.tid, err = syntax.ParseTID(v.m.Rev); err != nil {
		return "", &VerifyError{Reason: ReasonRevSyntax, Err: err}
	}
	return "", nil
}

func (v *verifier) time() (string, error) {
	if _, err := syntax.ParseDatetime(v.m.Time); err != nil {
		return "", &VerifyError{Reason: ReasonTimeSyntax, Err: err}
	}
	return "", nil
}

func (v *verifier) future() (string, error) {
	if v.o.Now.IsZero() {
		return "no time to compare with", nil
	}
	return "", checkFuture(v.tid, v.o.Now, v.o.MaxFuture)
}

func checkFuture(rev syntax.TID, now time.Time, ahead time.Duration) error {
	if ahead == 0 {
		ahead = DefaultMaxFuture
	}
	if t := rev.Time(); t.After(now.Add(ahead)) {
		return failf(ReasonFutureRev, "%s is of %s, %s ahead", rev, t.UTC().Format(time.RFC3339), t.Sub(now).Round(time.Second))
	}
	return nil
}

func (v *verifier) since() (string, error) {
	if v.m.Since != "" {
		if _, err := syntax.ParseTID(v.m.Since); err != nil {
			return "", &VerifyError{Reason: ReasonSinceSyntax, Err: err}
		}
	}
	return "", nil
}

const unknownState = "nothing is known of the repository"

func (v *verifier) newer() (string, error) {
	if !v.known {
		return unknownState, nil
	}
	if v.m.Rev <= string(v.prev.Rev) {
		return "", failf(ReasonStaleRev, "%s is not newer than %s", v.m.Rev, v.prev.Rev)
	}
	return "", nil
}

func (v *verifier) notOlder() (string, error) {
	if !v.known {
		return unknownState, nil
	}
	if v.m.Rev < string(v.prev.Rev) {
		return "", failf(ReasonStaleRev, "%s is older than %s", v.m.Rev, v.prev.Rev)
	}
	return "", nil
}

func (v *verifier) newerOrSame() (string, error) {
	if !v.known {
		return unknownState, nil
	}
	if v.commit.Rev <= v.prev.Rev && v.commit.Data != v.prev.Data {
		return "", failf(ReasonStaleRev, "%s is not newer than %s", v.commit.Rev, v.prev.Rev)
	}
	return "", nil
}

// Operations.

func (v *verifier) ops() (string, error) {
	many := len(v.m.Ops) > 8
	if many && v.seen == nil {
		v.seen = make(map[string]struct{}, MaxOps)
	}
	for i := range v.m.Ops {
		op := &v.m.Ops[i]
		if err := checkPath(op.Path); err != nil {
			return "", &VerifyError{Reason: ReasonPathSyntax, Path: op.Path, Err: err}
		}
		dup := false
		if many {
			_, dup = v.seen[op.Path]
			v.seen[op.Path] = struct{}{}
		} else {
			dup = slices.ContainsFunc(v.m.Ops[:i], func(o Op) bool { return o.Path == op.Path })
		}
		if dup {
			return "", &VerifyError{Reason: ReasonDuplicatePath, Path: op.Path}
		}
		want := ""
		switch op.Action {
		case ActionCreate:
			if !op.CID.Defined() || op.Prev.Defined() {
				want = "needs cid and no prev"
			}
		case ActionUpdate:
			if !op.CID.Defined() {
				want = "needs cid and prev"
			}
		case ActionDelete:
			if op.CID.Defined() {
				want = "needs prev and no cid"
			}
		default:
			want = "is no action"
		}
		if want != "" {
			return "", &VerifyError{Reason: ReasonOpShape, Path: op.Path, Detail: fmt.Sprintf("%q %s", op.Action, want)}
		}
		if op.CID.Defined() && op.CID.Codec() != cid.DagCBOR {
			return "", &VerifyError{Reason: ReasonOpCodec, Path: op.Path, CID: op.CID, Detail: fmt.Sprintf("codec 0x%02x", byte(op.CID.Codec()))}
		}
	}
	return "", nil
}

const legacyAccepted = "accepted as a message from before sync 1.1"

func (v *verifier) legacyOps() (string, error) {
	for i := range v.m.Ops {
		op := &v.m.Ops[i]
		if op.Action == ActionCreate || op.Prev.Defined() {
			continue
		}
		v.noOpPrev = true
		if v.o.Legacy == LegacyReject {
			return "", &VerifyError{Reason: ReasonNoOpPrev, Path: op.Path, Detail: op.Action + " without prev"}
		}
		return legacyAccepted, nil
	}
	return "", nil
}

func (v *verifier) legacy() (string, error) {
	if v.m.PrevData.Defined() {
		return "", nil
	}
	v.first = v.m.Since == "" && !v.known && !slices.ContainsFunc(v.m.Ops, func(o Op) bool { return o.Action != ActionCreate })
	switch {
	case v.first:
		return "", nil // the inversion will tell
	case v.o.Legacy == LegacyReject:
		return "", failf(ReasonNoPrevData, "and it isn't a first commit")
	}
	return legacyAccepted, nil
}

// Blocks and the commit.

func (v *verifier) parse() (_ string, err error) {
	v.top, err = v.blocks.parse(v.m.Blocks)
	return "", err
}

func (v *verifier) root() (string, error) { return "", checkRoot(v.top) }

// namedRoot is root for a #commit, which names the commit beside the archive too.
func (v *verifier) namedRoot() (string, error) {
	switch err := checkRoot(v.top); {
	case err != nil:
		return "", err
	case !v.m.Commit.Defined():
		return "", failf(ReasonCARRoot, "the message names no commit")
	case v.top != v.m.Commit:
		return "", &VerifyError{Reason: ReasonCARRoot, CID: v.top, Detail: fmt.Sprintf("the first root is %s, but the commit is %s", v.top, v.m.Commit)}
	}
	return "", nil
}

// checkRoot checks the first root of an archive, undefined if there is none.
func checkRoot(c cid.CID) error {
	switch {
	case !c.Defined():
		return failf(ReasonCARRoot, "no root")
	case c.Codec() != cid.DagCBOR:
		return failf(ReasonCARRoot, "root %s has codec 0x%02x", c, byte(c.Codec()))
	}
	return nil
}

func (v *verifier) decode() (string, error) {
	block, ok := v.blocks.find(&v.top)
	if !ok {
		return "", &VerifyError{Reason: ReasonMissingCommit, CID: v.top, Detail: v.top.String()}
	}
	c := &v.commit
	if err := c.decode(block, syntax.DID(v.m.Repo), syntax.TID(v.m.Rev)); err != nil {
		return "", err
	}
	if c.Version != Version {
		return "", c.wrongVersion()
	}
	return "", nil
}

func (v *verifier) commitDID() (string, error) {
	if string(v.commit.DID) != v.m.Repo {
		return "", failf(ReasonCommitDID, "the commit is of %s, the message of %s", v.commit.DID, v.m.Repo)
	}
	return "", nil
}

func (v *verifier) commitRev() (string, error) {
	if string(v.commit.Rev) != v.m.Rev {
		return "", failf(ReasonCommitRev, "the commit has revision %s, the message %s", v.commit.Rev, v.m.Rev)
	}
	return "", nil
}

const leftOut = "left out by option"

func (v *verifier) hasKey() (string, error) {
	switch {
	case v.o.SkipSignature:
		return leftOut, nil
	case v.key == nil:
		return "", failf(ReasonNoKey, "no key to verify the signature with")
	}
	return "", nil
}

func (v *verifier) signature() (string, error) {
	switch {
	case v.o.SkipSignature:
		return leftOut, nil
	case v.key == nil:
		return "no key to verify it with", nil // which hasKey has refused
	}
	return "", v.commit.Verify(v.key)
}

// Records.

// eachRecord calls f with every operation that has a record, and with the record's block.
func (v *verifier) eachRecord(f func(v *verifier, op *Op, b []byte, found bool) error) error {
	for i := range v.m.Ops {
		op := &v.m.Ops[i]
		if !op.CID.Defined() {
			continue
		}
		b, ok := v.blocks.find(&op.CID)
		if err := f(v, op, b, ok); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) records() (string, error) {
	return "", v.eachRecord(func(_ *verifier, op *Op, _ []byte, found bool) error {
		if !found {
			return &VerifyError{Reason: ReasonMissingRecord, Path: op.Path, CID: op.CID, Detail: op.CID.String()}
		}
		return nil
	})
}

func (v *verifier) recordSizes() (string, error) {
	return "", v.eachRecord(func(_ *verifier, op *Op, b []byte, _ bool) error {
		if len(b) > MaxRecord {
			return &VerifyError{Reason: ReasonRecordTooBig, Path: op.Path, CID: op.CID, Detail: fmt.Sprintf("%d bytes, more than %d", len(b), MaxRecord)}
		}
		return nil
	})
}

func (v *verifier) recordEncodings() (string, error) {
	if v.o.Records == RecordsAny {
		return leftOut, nil
	}
	return "", v.eachRecord(func(v *verifier, op *Op, b []byte, found bool) error {
		if !found {
			return nil
		}
		if err := checkRecord(b, v.o.Records); err != nil {
			return &VerifyError{Reason: ReasonRecordEncoding, Path: op.Path, CID: op.CID, Err: err}
		}
		return nil
	})
}

// The tree.

// Load implements [mst.Source].
func (v *verifier) Load(c cid.CID, _ mst.Pos) ([]byte, error) {
	b, _, again := v.blocks.Node(&c)
	switch {
	case b == nil:
		return nil, fmt.Errorf("block %s: %w", c, mst.ErrNotFound)
	case v.loading && again:
		// Keys of a subtree can't be in two places. Nodes without entries could, as far as what is there tells, and could make
		// the work grow beyond the size of the message.
		return nil, &mst.Error{Rule: mst.RuleBounds, CID: c, Detail: "linked to from two places"}
	}
	return b, nil
}

// nodes checks all nodes that are there, whether the inversion will come by them or not.
func (v *verifier) nodes() (string, error) {
	if !v.byTree && v.part.Load(v.commit.Data, &v.blocks, v.check) {
		return "", nil
	}
	return "", v.explain()
}

// explain looks again at nodes with which something is wrong, or that aren't all there, and says what if that can be said
// without the operations. All that comes after goes by v.tree.
func (v *verifier) explain() error {
	v.tree = mst.OpenOptions(v.commit.Data, v, mst.Options{HashChecked: true, CheckKey: CheckPath})
	v.blocks.noNodes()
	v.loading = true
	_, err := v.tree.LoadPresent(func(c *cid.CID) bool { return v.blocks.get(c) != nil })
	v.loading = false
	if err != nil {
		return treeError(err)
	}
	return nil
}

func (v *verifier) fewExtras() (string, error) {
	n, size := v.blocks.unused()
	if n += v.blocks.duplicates; n > MaxExtraBlocks || size > MaxExtraBytes {
		return "", failf(ReasonExtraBlocks, "%d blocks of %d bytes that nothing needs, more than %d or %d bytes", n, size, MaxExtraBlocks, MaxExtraBytes)
	}
	return "", nil
}

func (v *verifier) commitAlone() (string, error) {
	if n := len(v.blocks.list); n != 1 {
		return "", failf(ReasonExtraBlocks, "%d blocks, want the commit alone", n)
	}
	return "", nil
}

// undoOps takes the operations back. Of messages that are too old for that, it is checked that the tree has what they say.
func (v *verifier) undoOps() (_ string, err error) {
	v.old = !v.first && (v.noOpPrev || !v.m.PrevData.Defined())
	if v.old {
		return "", v.outcome()
	}
	undo := v.undo[:0]
	for i := range v.m.Ops {
		op := &v.m.Ops[i]
		undo = append(undo, mst.Op{Key: op.Path, Value: op.CID, Prev: op.Prev})
	}
	v.undo = undo
	if v.tree == nil {
		var ok bool
		if v.before, ok = v.part.Invert(undo); ok {
			return "", nil
		}
		if v.first && v.o.Legacy != LegacyReject {
			return "", v.unlessOld(nil) // why it can't be inverted doesn't matter
		}
		if err := v.explain(); err != nil {
			return "", err
		}
	}
	if err = v.tree.Invert(undo); err == nil {
		v.before, err = v.tree.Root()
	}
	if err != nil {
		return "", v.unlessOld(treeError(err))
	}
	return "", nil
}

func (v *verifier) inversion() (string, error) {
	if v.old {
		return legacyAccepted, nil
	}
	want := v.m.PrevData
	if v.first {
		want = EmptyRoot
	}
	if v.before != want {
		return "", v.unlessOld(failf(ReasonInversion, "without the operations the tree is %s, not %s", v.before, want))
	}
	return "", nil
}

// unlessOld judges a message that can't be inverted, though it could be a first commit for want of a prevData: it is one
// from before sync 1.1, and accepted as such or not.
func (v *verifier) unlessOld(err error) error {
	switch {
	case !v.first:
		return err
	case v.o.Legacy == LegacyReject:
		return &VerifyError{Reason: ReasonNoPrevData, Detail: "and it isn't a first commit", Err: err}
	}
	v.old = true
	if v.tree != nil { // with some of the operations undone
		if err := v.explain(); err != nil {
			return err
		}
	}
	return v.outcome()
}

// outcome is what remains for messages that can't be inverted: the tree has what the ops say.
func (v *verifier) outcome() error {
	for i := range v.m.Ops {
		op := &v.m.Ops[i]
		got, err := v.record(op)
		if errors.Is(err, mst.ErrNotFound) && op.Action == ActionDelete {
			continue // old messages don't prove absence
		}
		if err != nil {
			return treeError(err)
		}
		if got != op.CID {
			return &VerifyError{Reason: ReasonOpMismatch, Path: op.Path, CID: op.CID, Detail: op.Action + " is not what the tree has"}
		}
	}
	return nil
}

// record returns what the tree has at the path of an operation, undefined if it has nothing. If that is not known, the error
// says more about it than that only where it matters.
func (v *verifier) record(op *Op) (cid.CID, error) {
	if v.tree == nil {
		if c, known := v.part.Get(op.Path); known {
			return c, nil
		}
		if op.Action == ActionDelete {
			return cid.CID{}, mst.ErrNotFound
		}
		if err := v.explain(); err != nil {
			return cid.CID{}, err
		}
	}
	c, _, err := v.tree.Get(op.Path)
	return c, err
}

// The chain.

func (v *verifier) sameData() (string, error) {
	switch {
	case !v.known:
		return unknownState, nil
	case !v.m.PrevData.Defined():
		return "there is no prevData", nil
	case v.m.PrevData != v.prev.Data:
		return "", failf(ReasonPrevData, "builds on tree %s, but the repository has %s", v.m.PrevData, v.prev.Data)
	}
	return "", nil
}

func (v *verifier) sameRev() (string, error) {
	switch {
	case !v.known:
		return unknownState, nil
	case v.m.Since != string(v.prev.Rev):
		return "", failf(ReasonSince, "builds on revision %q, but the repository is at %q", v.m.Since, v.prev.Rev)
	}
	return "", nil
}
