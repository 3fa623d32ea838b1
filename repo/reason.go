package repo

import (
	"errors"
	"fmt"
	"strings"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
)

// Reason names the rule that a repository, a message or a proof breaks. The names are stable: errors, reports, metrics and
// the page docs/wire.md all use them.
type Reason string

// The reasons. [Reason.Text] says what each rule demands.
const (
	// Sizes.
	ReasonFrameTooBig  Reason = "frame-too-big"
	ReasonBlocksTooBig Reason = "blocks-too-big"
	ReasonTooManyOps   Reason = "too-many-ops"
	ReasonRecordTooBig Reason = "record-too-big"

	// Deprecated flags, under a strict option.
	ReasonTooBigFlag Reason = "too-big-flag"
	ReasonRebaseFlag Reason = "rebase-flag"

	// Syntax of fields.
	ReasonFrame       Reason = "frame" // for those who decode frames; this package sees messages only
	ReasonDIDSyntax   Reason = "did-syntax"
	ReasonRevSyntax   Reason = "rev-syntax"
	ReasonTimeSyntax  Reason = "time-syntax"
	ReasonSinceSyntax Reason = "since-syntax"
	ReasonPathSyntax  Reason = "path-syntax"

	// Order in time.
	ReasonFutureRev Reason = "future-rev"
	ReasonStaleRev  Reason = "stale-rev"

	// The shape of operations.
	ReasonDuplicatePath Reason = "duplicate-path"
	ReasonOpShape       Reason = "op-shape"
	ReasonOpCodec       Reason = "op-codec"
	ReasonNoOpPrev      Reason = "no-op-prev"
	ReasonNoPrevData    Reason = "no-prev-data"

	// Blocks. The error in VerifyError.Err tells which of the rules of package car it was.
	ReasonCAR           Reason = "car"
	ReasonBlockHash     Reason = "block-hash"
	ReasonCARRoot       Reason = "car-root"
	ReasonMissingCommit Reason = "missing-commit"
	ReasonExtraBlocks   Reason = "extra-blocks"

	// The commit.
	ReasonCommitShape   Reason = "commit-shape"
	ReasonCommitVersion Reason = "commit-version"
	ReasonCommitDID     Reason = "commit-did"
	ReasonCommitRev     Reason = "commit-rev"

	// Its signature.
	ReasonNoKey         Reason = "no-signing-key"
	ReasonSignatureSize Reason = "signature-size"
	ReasonHighS         Reason = "signature-high-s"
	ReasonSignature     Reason = "signature"

	// The tree: the rules of package mst, and that all of it is there.
	ReasonTreeEncoding Reason = treePrefix + Reason(mst.RuleEncoding)
	ReasonTreeLink     Reason = treePrefix + Reason(mst.RuleLink)
	ReasonTreePrefix   Reason = treePrefix + Reason(mst.RulePrefix)
	ReasonTreeOrder    Reason = treePrefix + Reason(mst.RuleOrder)
	ReasonTreeKey      Reason = treePrefix + Reason(mst.RuleKey)
	ReasonTreeEntries  Reason = treePrefix + Reason(mst.RuleEntries)
	ReasonTreeLayer    Reason = treePrefix + Reason(mst.RuleLayer)
	ReasonTreeDepth    Reason = treePrefix + Reason(mst.RuleDepth)
	ReasonTreeBounds   Reason = treePrefix + Reason(mst.RuleBounds)
	ReasonTreeEmpty    Reason = treePrefix + Reason(mst.RuleEmpty)
	ReasonTreeTop      Reason = treePrefix + Reason(mst.RuleTop)
	ReasonTreeHeight   Reason = treePrefix + Reason(mst.RuleHeight)
	ReasonMissingNode  Reason = "missing-node"

	// Records.
	ReasonMissingRecord  Reason = "missing-record"
	ReasonRecordEncoding Reason = "record-encoding"

	// Operations against the tree.
	ReasonOpMismatch Reason = "op-mismatch"
	ReasonInversion  Reason = "inversion"

	// The chain.
	ReasonPrevData Reason = "prev-data"
	ReasonSince    Reason = "since"

	// Limits of those who read files.
	ReasonBuffer     Reason = "buffer-exceeded"
	ReasonFileTooBig Reason = "file-too-big"
)

const treePrefix Reason = "tree-"

// subject is a set of what rules are about.
type subject uint8

const (
	aCommit  subject = 1 << iota // a #commit message
	aSync                        // a #sync message
	aFile                        // a whole repository
	aProof                       // of a record
	aMessage = aCommit | aSync
	aTree    = aCommit | aFile | aProof
	any4     = aMessage | aFile | aProof
)

// rules lists all reasons, roughly in the order in which they are checked, with what each demands and of what.
var rules = [...]struct {
	reason Reason
	of     subject
	text   string
}{
	{ReasonFrameTooBig, aMessage, "a frame has at most 5,000,000 bytes"},
	{ReasonFrame, aMessage, "a frame is a header and a message of its type, both in strict CBOR"},
	{ReasonBlocksTooBig, aMessage, "blocks have at most 2,000,000 bytes in a #commit, 10,000 in a #sync"},
	{ReasonTooManyOps, aCommit, "a commit has at most 200 operations"},
	{ReasonTooBigFlag, aCommit, "the deprecated field tooBig is false (under a strict option)"},
	{ReasonRebaseFlag, aCommit, "the deprecated field rebase is false (under a strict option)"},
	{ReasonDIDSyntax, any4, "the account is a DID, in the message and in the commit"},
	{ReasonRevSyntax, any4, "the revision is a TID, in the message and in the commit"},
	{ReasonTimeSyntax, aMessage, "the time is a datetime"},
	{ReasonFutureRev, aMessage | aFile, "the revision is not from the future"},
	{ReasonSinceSyntax, aCommit, "the revision before is a TID or null"},
	{ReasonStaleRev, aMessage, "the revision is newer than the last one"},
	{ReasonPathSyntax, aCommit | aProof, "paths are a collection in normal form and a record key"},
	{ReasonDuplicatePath, aCommit, "no path has two operations"},
	{ReasonOpShape, aCommit, "each operation has the action and the links that belong together"},
	{ReasonOpCodec, aCommit, "operations link to records in DAG-CBOR"},
	{ReasonNoOpPrev, aCommit, "updates and deletions say what was there before"},
	{ReasonNoPrevData, aCommit, "the tree before is named, unless there was none"},
	{ReasonCAR, any4, "the blocks are a CAR archive, version 1"},
	{ReasonBlockHash, any4, "every block has the hash it is named by"},
	{ReasonFileTooBig, aFile, "the file is within the reader's limit"},
	{ReasonBuffer, aFile, "few enough blocks come before they are wanted"},
	{ReasonCARRoot, any4, "the first root is the commit"},
	{ReasonMissingCommit, any4, "the commit is among the blocks"},
	{ReasonCommitShape, any4, "the commit has the fields of one, in strict CBOR"},
	{ReasonSignatureSize, any4, "the signature has 64 bytes"},
	{ReasonCommitVersion, any4, "the commit is of version 3"},
	{ReasonCommitDID, any4, "the commit is the account's own"},
	{ReasonCommitRev, aMessage, "the commit has the revision that the message says"},
	{ReasonNoKey, aMessage, "the account has a signing key"},
	{ReasonHighS, any4, "the signature is in low-S form"},
	{ReasonSignature, any4, "the commit is signed with the account's key"},
	{ReasonTreeEncoding, aTree, "nodes of the tree are canonical"},
	{ReasonTreeLink, aTree, "links between nodes have the codec of nodes"},
	{ReasonTreePrefix, aTree, "keys in a node share as much with the one before as they can"},
	{ReasonTreeOrder, aTree, "keys in a node rise"},
	{ReasonTreeKey, aTree, "keys are record paths"},
	{ReasonTreeEntries, aTree, "no node has more than 256 entries"},
	{ReasonTreeLayer, aTree, "every key is on the layer of its hash"},
	{ReasonTreeDepth, aTree, "a child is one layer below its parent"},
	{ReasonTreeBounds, aTree, "keys of a subtree are between those around its link"},
	{ReasonTreeEmpty, aTree, "a node without entries has a child"},
	{ReasonTreeTop, aTree, "the top node has entries, unless there are no records"},
	{ReasonTreeHeight, aTree, "the tree has at most 64 layers"},
	{ReasonMissingNode, aTree, "all nodes that are needed are there"},
	{ReasonMissingRecord, aTree, "all records that are needed are there"},
	{ReasonRecordTooBig, aCommit | aFile, "a record has at most 1,000,000 bytes, in a whole repository 1,048,576"},
	{ReasonRecordEncoding, aCommit | aFile, "records are valid in the data model, as far as the policy asks"},
	{ReasonExtraBlocks, aMessage | aFile, "there are few blocks that nothing needs, in a #sync none"},
	{ReasonOpMismatch, aCommit, "the tree has what the operations say"},
	{ReasonInversion, aCommit, "without the operations the tree is the one before"},
	{ReasonPrevData, aCommit, "the tree before is the one that is known"},
	{ReasonSince, aCommit, "the revision before is the one that is known"},
}

// Reasons lists all reasons, in the order of reports.
var Reasons = func() (out []Reason) {
	for i := range rules {
		out = append(out, rules[i].reason)
	}
	return out
}()

// Text returns the rule in a line: what a repository or message that doesn't break it is like. It is empty for what is not
// a reason of this package.
func (r Reason) Text() string {
	for i := range rules {
		if rules[i].reason == r {
			return rules[i].text
		}
	}
	return ""
}

// Tree reports whether the rule is one about the form of the tree.
func (r Reason) Tree() bool { return strings.HasPrefix(string(r), string(treePrefix)) }

// Legacy reports whether the reason is that a message is from before sync 1.1, and so under a [LegacyPolicy].
func (r Reason) Legacy() bool { return r == ReasonNoPrevData || r == ReasonNoOpPrev }

// Desynchronizes reports whether a message with this fault says that the receiver's copy of the repository can no longer
// be brought up to date by messages: its account has moved on in a way that the message doesn't tell.
func (r Reason) Desynchronizes() bool {
	switch r {
	case ReasonPrevData, ReasonSince, ReasonInversion, ReasonMissingNode, ReasonOpMismatch:
		return true
	}
	return false
}

// VerifyError says which rule was broken, and where.
type VerifyError struct {
	Reason Reason
	Detail string
	Path   string  // the record path at fault, if it is one
	CID    cid.CID // the block at fault, if it is one
	Err    error   // an underlying error, may be nil
}

func (e *VerifyError) Error() string {
	s := string(e.Reason)
	if e.Path != "" {
		s += ": " + e.Path
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		// A broken CAR file or tree says itself what it is.
		s += ": " + strings.TrimPrefix(e.Err.Error(), string(e.Reason)+": ")
	}
	return s
}

// Unwrap returns the underlying error.
func (e *VerifyError) Unwrap() error { return e.Err }

// Offset returns where the fault lies: in the archive if that is what is broken, else in the block. It is -1 if the fault
// has no place.
func (e *VerifyError) Offset() int64 {
	if c, ok := errors.AsType[*car.Error](e.Err); ok {
		return c.Offset
	}
	if c, ok := errors.AsType[*cbor.Error](e.Err); ok {
		return int64(c.Offset)
	}
	return -1
}

func failf(r Reason, format string, args ...any) error {
	return &VerifyError{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// carError gives an error of package car its reason. Errors of the input itself stay what they are.
func carError(err error) error {
	e, ok := errors.AsType[*car.Error](err)
	if !ok {
		return fmt.Errorf("reading the CAR file: %w", err)
	}
	r := ReasonCAR
	switch e.Rule {
	case car.RuleHash:
		r = ReasonBlockHash
	case car.RuleBlockSize:
		r = ReasonRecordTooBig
	case car.RuleBytes, car.RuleBlocks:
		r = ReasonFileTooBig
	}
	return &VerifyError{Reason: r, CID: e.CID, Err: err}
}

// treeError gives an error of package mst its reason.
func treeError(err error) error {
	if e, ok := errors.AsType[*mst.MissingError](err); ok {
		return &VerifyError{Reason: ReasonMissingNode, CID: e.CID, Err: err}
	}
	if e, ok := errors.AsType[*mst.OpError](err); ok {
		return &VerifyError{Reason: ReasonOpMismatch, Path: e.Key, Detail: e.Detail}
	}
	if e, ok := errors.AsType[*mst.Error](err); ok {
		return &VerifyError{Reason: treePrefix + Reason(e.Rule), CID: e.CID, Err: err}
	}
	return err
}

// signatureError gives an error of package keys its reason.
func signatureError(err error, key *keys.PublicKey) error {
	switch {
	case errors.Is(err, keys.ErrSignatureSize):
		return &VerifyError{Reason: ReasonSignatureSize, Err: err}
	case errors.Is(err, keys.ErrHighS):
		return &VerifyError{Reason: ReasonHighS, Err: err}
	}
	return &VerifyError{Reason: ReasonSignature, Detail: "not made by " + key.DIDKey(), Err: err}
}
