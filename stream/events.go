package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/label"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// Keys finds the keys of accounts. An *identity.Directory is one.
type Keys interface {
	// Key returns the key of a fragment such as "#atproto" in the document of a DID, nil if there is no valid one. If fresh is
	// set, a signature was wrong for the key it returned before: the document is to be fetched again, as often as its host
	// may be bothered. An error with a method Temporary that returns true says that asking later may help.
	//
	// What also has a method Purge(syntax.DID) is told of accounts whose documents may have changed.
	Key(ctx context.Context, did syntax.DID, fragment string, fresh bool) (*keys.PublicKey, error)
}

// FragmentKey and FragmentLabel are where documents have the keys that repositories and labels are signed with.
const (
	FragmentKey   = "#atproto"
	FragmentLabel = label.Fragment
)

// ErrNoKeys says that events can't be verified because the options name nobody to ask for keys.
var ErrNoKeys = errors.New("verifying events takes Options.Keys, such as an *identity.Directory; Options.Unverified goes without")

// GapPolicy says what becomes of the commits of an account after a gap in its chain.
type GapPolicy uint8

// The policies. In both cases a [ProblemGap] tells of the gap.
const (
	GapContinue GapPolicy = iota // they are handed out: each is the account's and consistent in itself
	GapDrop                      // they are left out until a #sync tells the state of the repository
)

// Options of [Repos] and [Records]. Either Keys or one of Unverified and SkipSignature must be set.
type Options struct {
	// Keys finds the keys of the accounts.
	Keys Keys
	// Unverified leaves out all checks but those of the framing, and that records have the hashes that operations say. It is
	// for hosts that are trusted as much as oneself.
	Unverified bool
	// SkipSignature leaves out the signatures, and with them all that ties events to accounts.
	SkipSignature bool

	// After is the sequence number of the last event that was processed: the stream goes on after it. 0 asks for everything
	// that the server keeps, nil for what happens from now on.
	After *int64

	// Collections are patterns for [NewFilter]: only commits with a change in one of them are handed out, and of these
	// changes only those. Commits without any are not verified, but for VerifyAll; see the package comment. Events that are
	// no commits pass.
	Collections []string
	// DIDs are the accounts whose events are wanted; nil is all. Nothing is looked at of the others.
	DIDs []syntax.DID
	// VerifyAll also verifies the commits that Collections leave out. A host that hides a change in a commit that it says
	// doesn't have one then shows.
	VerifyAll bool

	Gaps    GapPolicy
	Legacy  repo.LegacyPolicy // for commits from before sync 1.1; the default rejects them
	Content repo.RecordPolicy // how records are looked at

	// Strict ends the loop with the first [Problem] of an event.
	Strict bool
	// OnProblem is told of all problems by [Records], which has no other place for them, between records and in order. nil
	// ignores them, as far as they don't end the loop.
	OnProblem func(*Problem)
	// OnCursor is told, between events and at the end, every CursorEvery at the most, up to which event everything was handed
	// out and the loop has come back: the place to go on after. It moves also when filters leave everything out.
	OnCursor    func(seq int64)
	CursorEvery time.Duration // default 1 s

	// Connect says how to connect. Its NSID, Query and After are not used.
	Connect SubscribeOptions

	Workers     int           // that verify; default GOMAXPROCS
	Lookups     int           // keys looked up at once; default 64
	KeyPatience time.Duration // how long a key is looked up that can't be had at the moment; default 30 s
	MaxQueue    int           // events that are read and not handed out; default 8,192
	MaxBytes    int           // and their bytes; default 64 MiB. A larger event goes alone
	MaxAccounts int           // accounts whose chains are remembered, 1 KB each at the most; default 100,000

	Now func() time.Time // nil: the system's clock
}

// RepoEvent is one event of a repository stream.
type RepoEvent struct {
	Seq int64 // 0 for what has no number
	// Cursor is the place to go on after, once this event has been processed: everything up to it has been handed out.
	// Accounts are verified independently of each other, so that it may be below Seq.
	Cursor  int64
	DID     syntax.DID
	Message Message // *Commit, *Sync, *Identity, *Account or *Info; nil if it isn't one, or a Problem of the connection
	Size    int     // bytes of the frame

	// Verified says that the event's signature was checked, and all else there is to check. Commits and syncs only.
	Verified bool
	// Records are the changes of a commit that the filter wants, as far as they are to be believed: none if the commit was
	// rejected.
	Records []RecordEvent
	// Problem tells what is wrong with the event, or what happened to the connection; nil if all is well.
	Problem *Problem
}

// RecordEvent is one change of a record.
type RecordEvent struct {
	Seq int64 // of its commit
	// Cursor is the place to go on after, once this record has been processed; see [RepoEvent]. All records of a commit have the
	// same Seq: only the Cursor of the last one passes it.
	Cursor     int64
	DID        syntax.DID
	Rev        syntax.TID
	Time       string // datetime at which the host says it saw the commit: not signed
	Collection syntax.NSID
	RecordKey  syntax.RecordKey
	Action     string   // ActionCreate, ActionUpdate or ActionDelete
	CID        cid.CID  // of the record; undefined in a deletion
	Prev       cid.CID  // of the record before; undefined in a creation
	Record     data.Raw // DAG-CBOR, a view of the frame; nil in a deletion
	Verified   bool
}

// URI returns the at:// URI of the record.
func (e *RecordEvent) URI() syntax.ATURI {
	return syntax.NewATURI(syntax.AtIdentifier(e.DID), e.Collection, e.RecordKey)
}

// Decode reads the record into v, a pointer to a generated type or a struct of one's own, as [data.Unmarshal] does.
func (e *RecordEvent) Decode(v any) error {
	if e.Record == nil {
		return fmt.Errorf("decoding %s: a deletion has no record", e.URI())
	}
	if err := data.Unmarshal(e.Record, v); err != nil {
		return fmt.Errorf("decoding %s: %w", e.URI(), err)
	}
	return nil
}

// Decode reads the record of an event as a T.
func Decode[T any](e *RecordEvent) (T, error) {
	var v T
	err := e.Decode(&v)
	return v, err
}

// ProblemKind says what a [Problem] is about. The names are stable.
type ProblemKind string

// Kinds of problems.
const (
	// Of the connection: they have no Seq.
	ProblemDisconnected ProblemKind = "disconnected"    // and a new connection will be tried
	ProblemTooSlow      ProblemKind = "too-slow"        // the server ended the connection because too much was left unread
	ProblemOutdated     ProblemKind = "outdated-cursor" // the server no longer has all events since the cursor

	// Of an event.
	ProblemMalformed ProblemKind = "malformed" // the message can't be read
	ProblemRejected  ProblemKind = "rejected"  // it breaks a rule; Err has a *repo.VerifyError
	ProblemStale     ProblemKind = "stale"     // it isn't newer than the last one of its account
	ProblemInactive  ProblemKind = "inactive"  // its account is not active, the host has said before
	ProblemIdentity  ProblemKind = "identity"  // the account's key could not be found out
	ProblemGap       ProblemKind = "gap"       // events of the account are missing before it, or its repository was replaced
)

// Problem is what is wrong with an event, or what happened to the connection. It ends the loop only with Options.Strict.
type Problem struct {
	Kind ProblemKind
	Seq  int64      // of the event; 0 for the connection
	DID  syntax.DID // as the event says
	Err  error
}

// Error names the kind and the cause.
func (p *Problem) Error() string {
	if p.Seq == 0 {
		return fmt.Sprintf("%s: %v", p.Kind, p.Err)
	}
	return fmt.Sprintf("event %d of %s: %s: %v", p.Seq, p.DID, p.Kind, p.Err)
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Reason returns the rule that the event breaks, "" if it is none of package repo.
func (p *Problem) Reason() repo.Reason { return reasonOf(p.Err) }

// Lost reports whether changes of the account may not have been handed out, or, for ProblemOutdated, of any account: who keeps a copy
// has to fetch it again, as package reposync does.
func (p *Problem) Lost() bool {
	switch p.Kind {
	case ProblemGap, ProblemIdentity, ProblemOutdated:
		return true
	case ProblemRejected:
		return p.Reason().Desynchronizes() || p.Reason().Legacy()
	}
	return false
}

func reasonOf(err error) repo.Reason {
	if v, ok := errors.AsType[*repo.VerifyError](err); ok {
		return v.Reason
	}
	return ""
}

// Records follows the repositories of host, a relay or PDS (see [URL]), and yields the changes of records, verified unless the
// options say otherwise. Those of one account come in the order in which they happened.
//
// The loop goes on until ctx ends, the stream can't go on (see [Subscribe]), or a break; the error comes last. Problems with
// single events go to Options.OnProblem. Every event is handed out at least once to who saves the Cursor of a record when
// it has been processed, or the number of OnCursor, and starts After it.
func Records(ctx context.Context, host string, o *Options) iter.Seq2[RecordEvent, error] {
	return records(ctx, o, func(o *Options) source { return repoSource(host, o) })
}

func records(ctx context.Context, o *Options, open func(*Options) source) iter.Seq2[RecordEvent, error] {
	return func(yield func(RecordEvent, error) bool) {
		p, err := newPipeline(o, open)
		if err != nil {
			yield(RecordEvent{}, err)
			return
		}
		p.recordsOnly = true
		safe := p.tracker.Cursor()
		for j, err := range p.events(ctx) {
			if safe == 0 {
				safe = p.began
			}
			ev := &j.ev
			if ev.Problem != nil && p.o.OnProblem != nil {
				p.o.OnProblem(ev.Problem)
			}
			for i := range ev.Records {
				r := &ev.Records[i]
				if r.Cursor = safe; i == len(ev.Records)-1 {
					r.Cursor = ev.Cursor
				}
				if !yield(*r, nil) {
					return
				}
			}
			if err != nil {
				yield(RecordEvent{}, err)
				return
			}
			safe = ev.Cursor
		}
	}
}

// Repos follows the repositories of host as [Records] does, and yields all events: commits with their records, and what is
// said of identities, accounts, repositories and the stream. Problems are in the events.
func Repos(ctx context.Context, host string, o *Options) iter.Seq2[RepoEvent, error] {
	return repos(ctx, o, func(o *Options) source { return repoSource(host, o) })
}

func repos(ctx context.Context, o *Options, open func(*Options) source) iter.Seq2[RepoEvent, error] {
	return func(yield func(RepoEvent, error) bool) {
		p, err := newPipeline(o, open)
		if err != nil {
			yield(RepoEvent{}, err)
			return
		}
		for j, err := range p.events(ctx) {
			if !yield(j.ev, err) || err != nil {
				return
			}
		}
	}
}

// source is where frames come from: it calls back when a connection ends.
type source func(ctx context.Context, ended func(error)) iter.Seq2[Frame, error]

// repoSource is the source that follows the repositories of a host, follow any of its streams.
func repoSource(host string, o *Options) source { return follow(host, SubscribeRepos, o) }

func follow(host, nsid string, o *Options) source {
	return func(ctx context.Context, ended func(error)) iter.Seq2[Frame, error] {
		s := o.Connect
		s.NSID, s.Query, s.After, s.ReuseBuffer = nsid, nil, o.After, false
		s.OnDisconnect = func(err error, wait time.Duration) {
			if o.Connect.OnDisconnect != nil {
				o.Connect.OnDisconnect(err, wait)
			}
			ended(err)
		}
		return Subscribe(ctx, host, s)
	}
}
