package repo

import (
	"fmt"
	"strings"

	"github.com/barograph/baro/mst"
)

// Reason is the rule that a repository or a message breaks, stable enough for metrics and tests. The rules are the
// validation checklist of https://atproto.com/specs/sync and those of https://atproto.com/specs/repository.
type Reason string

// The reasons.
const (
	// Sizes.
	ReasonFrameTooBig  Reason = "frame-too-big"
	ReasonBlocksTooBig Reason = "blocks-too-big"
	ReasonTooManyOps   Reason = "too-many-ops"
	ReasonRecordTooBig Reason = "record-too-big"

	// Syntax of fields.
	ReasonDIDSyntax   Reason = "did-syntax"
	ReasonRevSyntax   Reason = "rev-syntax"
	ReasonSinceSyntax Reason = "since-syntax"
	ReasonTimeSyntax  Reason = "time-syntax"
	ReasonPathSyntax  Reason = "path-syntax"

	// Order in time.
	ReasonFutureRev Reason = "future-rev"
	ReasonStaleRev  Reason = "stale-rev"

	// Blocks.
	ReasonCAR           Reason = "car"
	ReasonCARRoot       Reason = "car-root"
	ReasonBlockHash     Reason = "block-hash"
	ReasonMissingCommit Reason = "missing-commit"
	ReasonExtraBlocks   Reason = "extra-blocks"

	// The commit.
	ReasonCommitShape   Reason = "commit-shape"
	ReasonCommitVersion Reason = "commit-version"
	ReasonCommitDID     Reason = "commit-did"
	ReasonCommitRev     Reason = "commit-rev"
	ReasonSignature     Reason = "signature"

	// Operations.
	ReasonOpShape        Reason = "op-shape"
	ReasonDuplicatePath  Reason = "duplicate-path"
	ReasonOpMismatch     Reason = "op-mismatch" // the tree doesn't have what the op says
	ReasonMissingRecord  Reason = "missing-record"
	ReasonRecordEncoding Reason = "record-encoding"

	// The tree. The error in VerifyError.Err tells which of the tree's rules it was.
	ReasonTree        Reason = "tree"
	ReasonMissingNode Reason = "missing-node"
	ReasonInversion   Reason = "inversion"

	// The chain.
	ReasonPrevData Reason = "prev-data"
	ReasonSince    Reason = "since"
	ReasonLegacy   Reason = "legacy"

	// Deprecated flags, under a strict option.
	ReasonTooBigFlag Reason = "too-big-flag"
	ReasonRebaseFlag Reason = "rebase-flag"

	// Reading files.
	ReasonBuffer     Reason = "buffer-exceeded"
	ReasonFileTooBig Reason = "file-too-big"
)

// Reasons lists all of them.
var Reasons = []Reason{ReasonFrameTooBig, ReasonBlocksTooBig, ReasonTooManyOps, ReasonRecordTooBig, ReasonDIDSyntax,
	ReasonRevSyntax, ReasonSinceSyntax, ReasonTimeSyntax, ReasonPathSyntax, ReasonFutureRev, ReasonStaleRev, ReasonCAR,
	ReasonCARRoot, ReasonBlockHash, ReasonMissingCommit, ReasonExtraBlocks, ReasonCommitShape, ReasonCommitVersion,
	ReasonCommitDID, ReasonCommitRev, ReasonSignature, ReasonOpShape, ReasonDuplicatePath, ReasonOpMismatch,
	ReasonMissingRecord, ReasonRecordEncoding, ReasonTree, ReasonMissingNode, ReasonInversion, ReasonPrevData, ReasonSince,
	ReasonLegacy, ReasonTooBigFlag, ReasonRebaseFlag, ReasonBuffer,
	ReasonFileTooBig}

// Desynchronizes reports whether a message with this fault says that the receiver's copy of the repository can no longer
// be brought up to date by messages: its account has moved on in a way that the message doesn't tell.
func (r Reason) Desynchronizes() bool {
	switch r {
	case ReasonPrevData, ReasonSince, ReasonInversion, ReasonMissingNode, ReasonOpMismatch:
		return true
	}
	return false
}

// VerifyError says which rule was broken.
type VerifyError struct {
	Reason Reason
	Detail string
	Err    error // an underlying error, may be nil
}

func (e *VerifyError) Error() string {
	s := string(e.Reason)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + strings.TrimPrefix(e.Err.Error(), s+": ") // a broken CAR file says so itself
	}
	return s
}

// Unwrap returns the underlying error.
func (e *VerifyError) Unwrap() error { return e.Err }

// Rule returns the rule of the tree that was broken, if it was one.
func (e *VerifyError) Rule() mst.Rule {
	if t, ok := e.Err.(*mst.Error); ok {
		return t.Rule
	}
	return ""
}

func failf(r Reason, format string, args ...any) error {
	return &VerifyError{Reason: r, Detail: fmt.Sprintf(format, args...)}
}
