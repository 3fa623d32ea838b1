package repo

import (
	"bytes"
	"errors"
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

	// Blocks of a commit message that neither its tree nor its operations need are ignored, up to these numbers, which are
	// ours: the specification calls more than a reasonable quantity an abuse.
	MaxExtraBlocks = 1000
	MaxExtraBytes  = 1_000_000
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
// for null or absent, which only Since, PrevData and some CIDs of operations may be.
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
// The rules are those of https://atproto.com/specs/sync that concern one message: see [Checklist]. An error is a
// [*VerifyError]. Of its reasons, [ReasonStaleRev] says to ignore the message, [ReasonSignature] to refresh the account's
// identity and to try once more, and those of [Reason.Desynchronizes] to fetch the repository. [ReportCommit] goes on
// where this stops.
//
// A message without prevData is that of a repository's first commit if it also has no since and nothing but creations that
// invert to the empty tree; otherwise the legacy policy applies.
func VerifyCommit(m CommitMessage, key *keys.PublicKey, prev *State, o VerifyOptions) (State, error) {
	v := newVerifier(m, key, prev, o)
	defer v.free()
	return v.verify(commitSteps)
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
	v := newVerifier(m.asCommit(), key, prev, o)
	defer v.free()
	return v.verify(syncSteps)
}

// asCommit returns the message in the form that the steps of both read.
func (m *SyncMessage) asCommit() CommitMessage {
	return CommitMessage{Repo: m.DID, Rev: m.Rev, Time: m.Time, Blocks: m.Blocks, FrameSize: m.FrameSize}
}

// ReportCommit checks all that can be checked of a message, and says of every rule whether it was kept. It fails exactly
// those messages that [VerifyCommit] refuses, and is for people who want to know what else is wrong with one.
func ReportCommit(m CommitMessage, key *keys.PublicKey, prev *State, o VerifyOptions) *Report {
	v := newVerifier(m, key, prev, o)
	defer v.free()
	return v.report(commitSteps, aCommit)
}

// ReportSync is [ReportCommit] for a sync message.
func ReportSync(m SyncMessage, key *keys.PublicKey, prev *State, o VerifyOptions) *Report {
	v := newVerifier(m.asCommit(), key, prev, o)
	defer v.free()
	return v.report(syncSteps, aSync)
}

// CheckPath checks a record path: a collection in normal form (the authority in lower case), a slash and a record key.
// It is meant for [mst.Options.CheckKey] and [mst.NewWalker].
func CheckPath(path []byte) error { return checkPath(path) }

// pathChecker is [CheckPath] for many paths. Most of them are in a collection that it has seen.
type pathChecker struct {
	good [16][]byte // collections with the slash, by their length and last letter
	last int        // length of the last good path's collection, with the slash
}

// check checks a path whose first same bytes are those of the last good one.
func (p *pathChecker) check(path []byte, same int) error {
	if n := p.last; n > 0 && same >= n && len(path)-n <= syntax.MaxRecordKey && syntax.ValidRecordKey(path[same:]) {
		return nil // what goes for a record key may follow the beginning of one
	}
	n := bytes.IndexByte(path, '/') + 1
	if n < 2 {
		return checkPath(path)
	}
	known := &p.good[(n+5*int(path[n-2]))%len(p.good)]
	if !bytes.Equal(*known, path[:n]) || !syntax.ValidRecordKey(path[n:]) {
		if err := checkPath(path); err != nil {
			return err
		}
		*known = append((*known)[:0], path[:n]...)
	}
	p.last = n
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
