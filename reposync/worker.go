package reposync

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// A worker serves a share of the accounts, one task after the other, and is the only one that changes their state.
type worker struct {
	s       *Syncer
	in      chan task
	entries map[syntax.DID]*entry
}

type task interface {
	run(ctx context.Context, w *worker) error
}

// entry is the state of a repository as of the last task, which the sink may not have yet.
type entry struct {
	repo    Repo
	stored  bool         // the sink knows it, or will
	flying  atomic.Int32 // results that aren't applied yet
	job     int          // number of the present fetch; what others deliver is refused
	cancel  context.CancelFunc
	held    []*verified
	bytes   int
	total   *atomic.Int64 // bytes held of all repositories
	asked   time.Time     // when the status of an inactive account was last asked for
	counted string        // bucket
}

func (w *worker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-w.in:
			if err := t.run(ctx, w); err != nil {
				if ctx.Err() == nil { // the sink can't be read
					w.s.fail(ctx, err)
				}
				return
			}
		}
	}
}

// entry returns the state of an account, or makes one.
func (w *worker) entry(did syntax.DID) (*entry, error) {
	if e := w.entries[did]; e != nil {
		return e, nil
	}
	r, ok, err := w.s.sink.Repo(did)
	if err != nil {
		return nil, err
	}
	if len(w.entries) >= w.s.o.MaxCached {
		n := 0
		for did, e := range w.entries {
			if e.flying.Load() == 0 && e.repo.State != Resyncing && len(e.held) == 0 {
				delete(w.entries, did)
			}
			if n++; n >= 64 {
				break
			}
		}
	}
	e := &entry{repo: r, stored: ok, total: &w.s.held}
	if ok {
		e.counted = r.bucket()
	} else {
		e.repo = NewRepo(did)
		e.repo.Due = w.s.o.Now().Add(w.s.o.Settle) // what a new account has may come by itself
	}
	w.entries[did] = e
	return e, nil
}

// emit sends the state of e, with what comes along with it, to the sink. A fetch is scheduled once that is stored.
func (w *worker) emit(ctx context.Context, e *entry, c Change, p *stream.Tracked, then func()) error {
	c.Repo = e.repo
	e.stored = true
	w.s.stats.unstored.Add(1) // before it is counted as what it will be
	if b := e.repo.bucket(); b != e.counted {
		if e.counted != "" {
			w.s.stats.count(e.counted, -1)
		}
		w.s.stats.count(b, 1)
		e.counted = b
	}
	e.flying.Add(1)
	r := result{change: &c, pending: p, then: func() {
		e.flying.Add(-1)
		w.s.stats.unstored.Add(-1)
		if then != nil {
			then()
		}
	}}
	if e.repo.wantsFetch() {
		did, due, inner := e.repo.DID, e.repo.Due, r.then
		r.then = func() { inner(); w.s.sched.add(did, due) }
	}
	return w.s.send(ctx, r)
}

// event is one message of the stream.
type event struct {
	did       syntax.DID
	msg       stream.Message
	frameSize int
	pending   *stream.Tracked
}

func (t *event) run(ctx context.Context, w *worker) error {
	e, err := w.entry(t.did)
	if err != nil {
		return err
	}
	// Stored with the next change, which is enough: it only guards against older answers to questions.
	e.repo.Seq = max(e.repo.Seq, t.msg.Sequence())
	before := e.repo
	switch m := t.msg.(type) {
	case *stream.Commit:
		return w.commit(ctx, e, t, m)
	case *stream.Sync:
		return w.sync(ctx, e, t, m)
	case *stream.Account:
		purge := e.repo.account(m.Active, m.Status, w.s.o.Now(), w.s.o.Settle)
		if !m.Active {
			e.abandon()
		}
		if e.stored && !purge && before.Active == e.repo.Active && before.Status == e.repo.Status {
			return w.s.send(ctx, result{pending: t.pending})
		}
		return w.emit(ctx, e, Change{Purge: purge, Live: true}, t.pending, nil)
	case *stream.Identity:
		w.s.o.Directory.Purge(t.did)
		if !e.stored {
			return w.emit(ctx, e, Change{}, t.pending, nil)
		}
	}
	return w.s.send(ctx, result{pending: t.pending})
}

// abandon ends the present fetch and forgets what was held for its end.
func (e *entry) abandon() {
	e.job++
	if e.cancel != nil {
		e.cancel()
		e.cancel = nil
	}
	e.release()
}

// release forgets the held commits.
func (e *entry) release() {
	e.total.Add(int64(-e.bytes))
	e.held, e.bytes = nil, 0
}

// dropped counts an event that wasn't processed.
func (w *worker) dropped(ctx context.Context, t *event, reason string, err error) error {
	w.s.stats.drop(reason)
	w.s.o.Log.Debug("event dropped", "did", t.did, "seq", t.msg.Sequence(), "reason", reason, "error", err)
	return w.s.send(ctx, result{pending: t.pending})
}

// maxHeld bounds the bytes of commits that are held for all repositories together.
const maxHeld = 64 << 20

// lookupPatience is how long a worker waits for an identity. What takes longer is left to a fetch, so that one slow host
// doesn't hold up the other accounts of the worker.
const lookupPatience = 3 * time.Second

var (
	errNoKey = errors.New("the DID document has no signing key")
	errNoPDS = errors.New("the DID document names no PDS")
	errMaybe = errors.New("the signature is wrong for a key that may have changed a moment ago")
)

// withKey calls verify with the account's key, and once more with a fresh one if the signature is wrong.
func (w *worker) withKey(ctx context.Context, did syntax.DID, verify func(*keys.PublicKey) error) error {
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	doc, err := w.s.o.Directory.ResolveDID(ctx, did)
	if err != nil {
		return err
	}
	err = errNoKey
	if doc.SigningKey != nil {
		err = verify(doc.SigningKey)
	}
	if err != errNoKey && reason(err) != repo.ReasonSignature {
		return err
	}
	fresh, asked, rerr := w.s.o.Directory.Refresh(ctx, did)
	switch {
	case rerr != nil:
		return rerr
	case fresh.SigningKey == nil:
		return errNoKey
	case !asked:
		return errMaybe
	case doc.SigningKey != nil && fresh.SigningKey.DIDKey() == doc.SigningKey.DIDKey():
		return err
	}
	return verify(fresh.SigningKey)
}

func reason(err error) repo.Reason {
	var v *repo.VerifyError
	if errors.As(err, &v) {
		return v.Reason
	}
	return ""
}

// unresolved says that an identity couldn't be had for now, which is not the event's fault.
func unresolved(err error) bool {
	switch identity.KindOf(err) {
	case identity.KindUnreachable, identity.KindLimited:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// judge decides what an error of verification means for the repository. It reports whether the event is settled by that.
func (w *worker) judge(ctx context.Context, e *entry, t *event, rev string, err error) error {
	why := reason(err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case why == repo.ReasonStaleRev:
		w.s.stats.stale.Add(1)
		return w.s.send(ctx, result{pending: t.pending})
	case why.Desynchronizes():
		w.s.stats.drop(string(why))
		return w.desynchronized(ctx, e, t, syntax.TID(rev))
	case why.Legacy():
		w.s.stats.drop(string(why))
		return w.desynchronized(ctx, e, t, "") // its signature wasn't looked at: the revision is anyone's claim
	case err == errMaybe:
		w.s.stats.drop(string(repo.ReasonSignature))
		return w.desynchronized(ctx, e, t, "")
	case why != "":
		return w.dropped(ctx, t, string(why), err)
	case err == errNoKey:
		return w.dropped(ctx, t, string(repo.ReasonNoKey), err)
	case unresolved(err):
		w.s.stats.drop("identity-unreachable")
		return w.desynchronized(ctx, e, t, "")
	}
	return w.dropped(ctx, t, "identity", err)
}

// desynchronized notes that an event doesn't fit, and stores that if it changes anything.
func (w *worker) desynchronized(ctx context.Context, e *entry, t *event, rev syntax.TID) error {
	before := e.repo
	e.repo.desynchronize(rev)
	if e.repo.State == Resyncing {
		w.forget(e, rev)
	}
	if e.stored && before.State == e.repo.State && before.Want == e.repo.Want {
		return w.s.send(ctx, result{pending: t.pending})
	}
	return w.emit(ctx, e, Change{Live: true}, t.pending, nil)
}

// forget gives up the held commits: the fetch under way will not be enough.
func (w *worker) forget(e *entry, rev syntax.TID) {
	e.release()
	e.repo.want(rev)
}

func (w *worker) commit(ctx context.Context, e *entry, t *event, m *stream.Commit) error {
	r := &e.repo
	if !r.Active {
		w.recheck(e)
		return w.dropped(ctx, t, "inactive", nil)
	}
	msg := m.Verifiable(t.frameSize)
	var prev *repo.State
	if r.State == Synchronized {
		prev = &repo.State{Rev: r.Rev, Data: r.Data}
	} else if r.Rev != "" && !r.Torn && m.Rev <= string(r.Rev) {
		w.s.stats.stale.Add(1)
		return w.s.send(ctx, result{pending: t.pending})
	}
	var state repo.State
	err := w.withKey(ctx, t.did, func(key *keys.PublicKey) (err error) {
		state, err = repo.VerifyCommit(msg, key, prev, repo.VerifyOptions{Now: w.s.o.Now(), Legacy: w.s.o.Legacy})
		return err
	})
	if err != nil {
		return w.judge(ctx, e, t, m.Rev, err)
	}
	w.s.stats.verified.Add(1)
	v := &verified{
		rev: state.Rev, since: syntax.TID(m.Since), data: state.Data, prevData: m.PrevData, bytes: len(m.Blocks),
		whole: m.PrevData == repo.EmptyRoot || !m.PrevData.Defined() && m.Since == "" && w.s.o.Legacy == repo.LegacyReject,
	}
	if !v.prevData.Defined() && v.whole {
		v.prevData = repo.EmptyRoot
	}
	if v.ops, err = operations(m); err != nil {
		return w.dropped(ctx, t, string(repo.ReasonCAR), err) // can't be: it was read a moment ago
	}
	before := *r
	switch r.commit(v) {
	case take:
		w.note(m.Time)
		return w.emit(ctx, e, Change{Ops: v.ops, Live: true}, t.pending, nil)
	case hold:
		if len(e.held) >= w.s.o.MaxHeld || e.bytes+v.bytes > w.s.o.MaxHeldBytes || w.s.held.Load() > maxHeld {
			w.s.stats.drop("held-overflow")
			w.forget(e, v.rev)
		} else {
			e.held, e.bytes = append(e.held, v), e.bytes+v.bytes
			e.total.Add(int64(v.bytes))
		}
	}
	if e.stored && before.State == r.State && before.Want == r.Want {
		return w.s.send(ctx, result{pending: t.pending})
	}
	return w.emit(ctx, e, Change{}, t.pending, nil)
}

// note keeps how old the newest commit was.
func (w *worker) note(at string) {
	if d, err := syntax.ParseDatetime(at); err == nil {
		w.s.stats.lag.Store(int64(max(0, w.s.o.Now().Sub(d.Time()))))
	}
}

// operations returns the operations of a verified message with their records.
func operations(m *stream.Commit) ([]Op, error) {
	records, err := m.Records()
	if err != nil {
		return nil, err
	}
	ops := make([]Op, len(m.Ops))
	for i, op := range m.Ops {
		ops[i] = Op{Action: op.Action, Path: op.Path, CID: op.CID, Data: records[i]}
	}
	return ops, nil
}

func (w *worker) sync(ctx context.Context, e *entry, t *event, m *stream.Sync) error {
	r := &e.repo
	if !r.Active {
		w.recheck(e)
		return w.dropped(ctx, t, "inactive", nil)
	}
	var prev *repo.State
	if r.Rev != "" && !r.Torn {
		prev = &repo.State{Rev: r.Rev, Data: r.Data}
	}
	var state repo.State
	err := w.withKey(ctx, t.did, func(key *keys.PublicKey) (err error) {
		state, err = repo.VerifySync(m.Verifiable(t.frameSize), key, prev, repo.VerifyOptions{Now: w.s.o.Now()})
		return err
	})
	if err != nil {
		return w.judge(ctx, e, t, m.Rev, err)
	}
	w.s.stats.verified.Add(1)
	before := *r
	r.sync(state.Rev, state.Data)
	if r.State == Resyncing {
		w.forget(e, state.Rev) // the held commits lead to another state, or will be in the fetched one
	}
	if e.stored && before.State == r.State && before.Want == r.Want && before.Rev == r.Rev && before.Data == r.Data {
		return w.s.send(ctx, result{pending: t.pending})
	}
	return w.emit(ctx, e, Change{Live: true}, t.pending, nil)
}

// recheck asks the upstream for the status of an account that writes though it isn't active, but not too often: the message
// that told of its activation may have been lost at a hop before.
func (w *worker) recheck(e *entry) {
	if now := w.s.o.Now(); now.Sub(e.asked) >= time.Minute {
		e.asked = now
		w.s.sched.ask(e.repo.DID, e.repo.Seq)
	}
}

// status is what the upstream says of an account outside of the stream.
type status struct {
	did    syntax.DID
	seq    int64 // the newest event read when it was asked: what came after knows better
	active bool
	status string
	rev    syntax.TID // may be empty
	old    bool       // rev is too old for its commit to be still under way
}

func (t *status) run(ctx context.Context, w *worker) error {
	e, err := w.entry(t.did)
	if err != nil {
		return err
	}
	r := &e.repo
	if e.stored && r.Seq > t.seq {
		return nil
	}
	before, isNew := *r, !e.stored
	purge := r.account(t.active, t.status, w.s.o.Now(), 0)
	if !t.active {
		e.abandon()
	}
	if r.Active && r.State == Synchronized && t.old && t.rev > r.Rev {
		w.s.stats.drop("missed")
		r.desynchronize("")
	}
	if !isNew && !purge && before.Active == r.Active && before.Status == r.Status && before.State == r.State {
		return nil
	}
	return w.emit(ctx, e, Change{Purge: purge}, nil, nil)
}

// claim asks to begin a fetch. Started is called, if the fetch may begin, when the sink has all that was sent before.
type claim struct {
	did     syntax.DID
	cancel  context.CancelFunc
	started chan<- granted // one buffered
}

type granted struct {
	ok   bool
	job  int
	repo Repo
}

func (t *claim) run(ctx context.Context, w *worker) error {
	e, err := w.entry(t.did)
	if err != nil {
		return err
	}
	due := e.repo.Due
	if !e.stored || !e.repo.claim(w.s.o.Now(), w.s.o.FetchRate) {
		t.started <- granted{}
		if e.repo.wantsFetch() { // too early, or too often
			w.s.sched.add(t.did, e.repo.Due)
			if !due.Equal(e.repo.Due) {
				return w.emit(ctx, e, Change{}, nil, nil)
			}
		}
		return nil
	}
	e.abandon()
	e.cancel = t.cancel
	g := granted{ok: true, job: e.job, repo: e.repo}
	return w.emit(ctx, e, Change{}, nil, func() { t.started <- g })
}

// part is a part of a fetched repository's difference, or its end, or why there is none.
type part struct {
	did  syntax.DID
	job  int
	ops  []Op
	last bool

	applied chan<- bool // one buffered; told, if not last, whether the part was applied or refused

	state repo.State // with last
	err   error      // the fetch failed; with last
	after time.Duration
	gone  *status // the host says that the account isn't active; with last
}

func (t *part) run(ctx context.Context, w *worker) error {
	e, err := w.entry(t.did)
	if err != nil {
		return err
	}
	r := &e.repo
	if e.job != t.job || r.State != Resyncing {
		if !t.last {
			t.applied <- false
		}
		return nil // something happened that the fetch doesn't know of
	}
	switch {
	case !t.last:
		r.Torn = true
		return w.emit(ctx, e, Change{Ops: t.ops}, nil, func() { t.applied <- true })
	case t.gone != nil && e.repo.Seq <= t.gone.seq:
		purge := r.account(false, t.gone.status, w.s.o.Now(), 0)
		e.abandon()
		return w.emit(ctx, e, Change{Purge: purge}, nil, nil)
	case t.err != nil || t.gone != nil:
		if t.err == nil {
			t.err = errors.New("the host says that the account is not active")
		}
		e.abandon()
		r.fail(t.err, w.s.o.Now(), t.after, &w.s.o)
		w.s.stats.failed.Add(1)
		w.s.o.Log.Info("fetching a repository failed", "did", t.did, "retries", r.Retries, "due", r.Due, "error", t.err)
		return w.emit(ctx, e, Change{}, nil, nil)
	}
	w.s.stats.fetched.Add(1)
	held := e.held
	e.abandon()
	r.advance(t.state.Rev, t.state.Data)
	if err := w.emit(ctx, e, Change{Ops: t.ops}, nil, nil); err != nil {
		return err
	}
	for _, v := range held {
		if v.rev <= r.Rev {
			continue
		}
		if r.commit(v) != take {
			break
		}
		if err := w.emit(ctx, e, Change{Ops: v.ops, Live: true}, nil, nil); err != nil {
			return err
		}
	}
	if r.settle(); r.State != Synchronized {
		return w.emit(ctx, e, Change{}, nil, nil)
	}
	return nil
}
