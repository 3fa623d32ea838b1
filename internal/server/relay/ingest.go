package relay

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// Bounds of a worker.
const (
	workerQueue = 256
	cachedMax   = 50_000 // accounts in memory, for each worker
	retryEvery  = 30 * time.Second
)

// Reasons for drops besides those of package repo.
const (
	dropUnresolved   = "identity-unresolved"
	dropNoKey        = string(repo.ReasonNoKey)
	dropWrongHost    = "wrong-host"
	dropInactive     = "account-inactive"
	dropDesync       = "desynchronized"
	dropAccountLimit = "account-limit"
	dropNoChange     = "no-change"
	dropQueue        = "key-queue"
	dropTakendown    = "takendown-here"
	dropBlocked      = "host-blocked"
)

// task is an event for a worker, or the newest commit of an account that was fetched to mend its chain.
type task struct {
	host   *host
	frame  stream.Frame
	msg    stream.Message
	did    syntax.DID
	mend   bool    // msg is a *stream.Sync that we made, or nil if that failed; frame is empty
	retry  bool    // nothing but a wish to mend the account's chain
	asked  bool    // the host's answer about an account that it had called inactive; no message
	alive  bool    // of asked: the account is active
	said   int     // of asked: cached.said when the question went out
	ruling *ruling // a decision of the operator; no message
	fresh  bool    // doc was fetched again since the account's events wait; without a frame: they need not wait any more

	// What lookUp found out; not for retry.
	doc    *identity.Document
	docErr error
	id     *identity.Identity // for an #identity with a handle, from the account's host
	idErr  error
	ready  chan struct{} // closed when all of it is there
}

// worker verifies the events of its share of the accounts, one after another, so that each account's events stay in
// order.
type worker struct {
	s        *Service
	in       chan task
	accounts map[syntax.DID]*cached
}

// cached is an account in memory. It is newer than the store until its last transaction is on disk.
type cached struct {
	account
	known     bool // there is, or will be, a row
	last      *eventlog.Pending
	rechecked time.Time
	asking    bool // its host is being asked whether it is active
	said      int  // how often its host has spoken about its status
	mending   bool
	mendAfter time.Time
	hasty     bool       // the last attempt to mend came at once after another
	missed    syntax.TID // newest revision that was dropped while the chain was being mended
	overflow  bool       // events were dropped that waiting had no room for
	waiting   []task     // events, in order, of which the first may be signed with a key that is being fetched

	collections []collectionName // some of those that have a row
}

func newWorker(s *Service) *worker {
	return &worker{s: s, in: make(chan task, workerQueue), accounts: map[syntax.DID]*cached{}}
}

var workerSeed = maphash.MakeSeed()

func (s *Service) worker(did string) *worker {
	return s.workers[maphash.String(workerSeed, did)%uint64(len(s.workers))]
}

func (w *worker) run() {
	tick := w.s.w.Clock.After(retryEvery)
	for {
		select {
		case t := <-w.in:
			w.handle(t)
		case <-tick:
			w.retry()
			tick = w.s.w.Clock.After(retryEvery)
		case <-w.s.ctx.Done():
			return
		}
	}
}

// handle deals with one event: it is passed on or dropped, and in both cases the host's cursor may move past it, unless
// the relay is stopping.
func (w *worker) handle(t task) {
	a, err := w.account(t.did)
	if err != nil {
		w.s.fatal(err) // our own disk
		return
	}
	if t.ruling != nil {
		w.rule(t, a)
		return
	}
	if t.retry {
		if a.desync && !a.takedown {
			w.mend(t, a)
		}
		return
	}
	if t.asked {
		w.answered(t, a)
		return
	}
	if t.fresh && t.msg == nil && !t.mend {
		w.goOn(t, a)
		return
	}
	if len(a.waiting) > 0 {
		if !w.wait(t, a) {
			w.s.drop(t.host, t.frame.Seq, dropQueue, string(t.did), nil)
			a.overflow = true
		}
		return
	}
	var reason string
	switch m := t.msg.(type) {
	case *stream.Commit:
		reason, err = w.commit(t, a, m)
	case *stream.Sync:
		reason, err = w.sync(t, a, m)
	case *stream.Identity:
		reason, err = w.identity(t, a, m)
	case *stream.Account:
		reason, err = w.status(t, a, m)
	}
	if len(a.waiting) > 0 || w.s.ctx.Err() != nil && reason != "" || reason == dropBlocked && !t.mend {
		return // it is not decided, or interrupted, or the host was shut out meanwhile: then it comes again, if ever
	}
	if t.mend {
		a.mending = false
		if reason != "" && reason != dropNoChange {
			w.s.stats.drop("mend-" + reason)
		}
		if reason == "" && a.desync && !a.hasty {
			a.hasty, a.mendAfter = true, time.Time{}
			w.mend(task{host: t.host, did: t.did}, a)
		}
		return
	}
	if reason != "" {
		w.s.drop(t.host, t.frame.Seq, reason, string(t.did), err)
	}
}

// retry tries again to mend the accounts in memory whose chain is broken: they may have nothing more to say for long.
func (w *worker) retry() {
	for did, a := range w.accounts {
		if !a.desync || a.mending || a.takedown {
			continue
		}
		w.s.mu.Lock()
		h := w.s.hosts[a.host]
		w.s.mu.Unlock()
		if h != nil {
			w.mend(task{host: h, did: did}, a)
		}
	}
}

// retryBroken hands the accounts whose chain was broken in an earlier run to their workers.
func (s *Service) retryBroken() error {
	type broken struct{ did, host string }
	var list []broken
	err := s.listAccounts("", func(did string, a *account) bool {
		if a.desync {
			list = append(list, broken{did, a.host})
		}
		return s.ctx.Err() == nil
	})
	for _, b := range list {
		s.mu.Lock()
		h := s.hosts[b.host]
		s.mu.Unlock()
		if h == nil {
			continue
		}
		select {
		case s.worker(b.did).in <- task{host: h, did: syntax.DID(b.did), retry: true}:
		case <-s.ctx.Done():
			return err
		}
	}
	return err
}

// account returns an account from memory or the store.
func (w *worker) account(did syntax.DID) (*cached, error) {
	if a := w.accounts[did]; a != nil {
		return a, nil
	}
	if len(w.accounts) >= cachedMax {
		w.evict()
	}
	a := &cached{}
	stored, err := w.s.stored(string(did))
	if err != nil {
		return nil, err
	}
	if stored != nil {
		a.account, a.known = *stored, true
	}
	w.accounts[did] = a
	return a, nil
}

// evict forgets half of the accounts whose state is on disk.
func (w *worker) evict() {
	for did, a := range w.accounts {
		if len(w.accounts) <= cachedMax/2 {
			return
		}
		if a.mending || a.asking || len(a.waiting) > 0 {
			continue
		}
		if a.last != nil {
			select {
			case <-a.last.Done():
			default:
				continue
			}
		}
		delete(w.accounts, did)
	}
}

// pass gives the frames numbers in the log and stores the account with them. The host's cursor goes into the same batch.
func (w *worker) pass(t task, a *cached, next account, frames ...func(dst []byte, seq int64) []byte) {
	w.passAlso(t, a, next, also{}, frames...)
}

// also is what goes into the same transaction.
type also struct {
	ops    func(kv.Batch)
	forget []string // whose events are not replayed any more
}

// passAlso is pass for more than an account and its events. The task has no host if that of the account isn't known any more.
func (w *worker) passAlso(t task, a *cached, next account, o also, frames ...func(dst []byte, seq int64) []byte) {
	s, h := w.s, t.host
	moved := h != nil && (!a.known || next.host != a.host)
	var old *host
	if moved && a.known {
		s.mu.Lock()
		old = s.hosts[a.host]
		s.mu.Unlock()
	}
	a.account, a.known = next, true
	if len(frames) > 0 {
		s.stats.accepted.Add(1)
	}
	a.last = s.log.Submit(eventlog.Tx{Events: frames, Forget: o.forget, Ops: func(b kv.Batch) {
		b.Set(key(prefixAccount, string(t.did)), a.append(nil))
		if o.ops != nil {
			o.ops(b)
		}
		if old != nil {
			old.mu.Lock()
			old.row.Accounts--
			old.put(b)
			old.mu.Unlock()
		}
		if h == nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if moved {
			h.row.Accounts++
			h.put(b)
		}
		if t.frame.Seq > 0 && len(frames) > 0 {
			h.finish(t.frame.Seq)
			h.putCursor(b)
		}
	}})
}

// forward encodes the frame as it came, under our number.
func (t *task) forward(dst []byte, seq int64) []byte { return t.frame.AppendResequenced(dst, seq) }

func encode(m stream.Message) func(dst []byte, seq int64) []byte {
	return func(dst []byte, seq int64) []byte {
		m.SetSequence(seq)
		return stream.AppendFrame(dst, m)
	}
}

// resolve asks who an account is. What may be a passing fault is tried again for a while, because dropping an event
// breaks the account's chain.
func (s *Service) resolve(ctx context.Context, did syntax.DID) (doc *identity.Document, err error) {
	for wait := 250 * time.Millisecond; ; wait *= 2 {
		doc, err = s.dir.ResolveDID(ctx, did)
		switch identity.KindOf(err) {
		case identity.KindUnreachable, identity.KindLimited:
		default:
			return doc, err
		}
		if wait > 2*time.Second || world.Sleep(ctx, s.w.Clock, wait) != nil {
			return nil, err
		}
	}
}

// lookUp finds out who the account of a task is. The document is fetched again once if it doesn't name the task's host: the
// account may have just moved.
func (s *Service) lookUp(ctx context.Context, t *task) {
	if t.doc, t.docErr = s.resolve(ctx, t.did); t.docErr != nil {
		return
	}
	if !sameHost(t.doc.PDS, t.host) {
		if d, fresh, err := s.dir.Refresh(ctx, t.did); err == nil && fresh {
			t.doc = d
		}
	}
	if m, ok := t.msg.(*stream.Identity); ok && claimsHandle(m) && sameHost(t.doc.PDS, t.host) {
		t.id, t.idErr = s.dir.LookupDID(ctx, t.did)
	}
}

func claimsHandle(m *stream.Identity) bool { return m.Handle != "" && m.Handle != stream.HandleInvalid }

// authorize checks that the host is the one that the account's DID document names.
func (w *worker) authorize(t task, a *cached) (doc *identity.Document, reason string, err error) {
	switch {
	case t.docErr != nil:
		return nil, dropUnresolved, t.docErr
	case !sameHost(t.doc.PDS, t.host):
		return nil, dropWrongHost, nil
	}
	t.host.mu.Lock()
	stopped := t.host.stopped
	t.host.mu.Unlock()
	if stopped {
		return nil, dropBlocked, nil
	}
	if !a.known || a.host != t.host.name { // a new one for this host, also when it comes from another
		t.host.mu.Lock()
		limit, limited := t.host.accountLimit(w.s.cfg.AccountLimit)
		full := limited && t.host.row.Accounts >= limit
		t.host.mu.Unlock()
		if full {
			return nil, dropAccountLimit, nil
		}
	}
	return t.doc, "", nil
}

func sameHost(pds string, h *host) bool {
	if pds == "" {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return pds == h.row.Origin
}

// verified calls verify with the account's key. If the signature is bad, the account's events wait until its key was fetched
// again, and then it is called once more.
func (w *worker) verified(t task, a *cached, verify func(key *keys.PublicKey) (repo.State, error)) (repo.State, string, error) {
	st, err := verify(t.doc.SigningKey)
	if err == nil {
		return st, "", nil
	}
	r := reasonOf(err)
	switch {
	case r == repo.ReasonSignature && !t.fresh:
		w.refresh(t, a)
	case r == "":
		r = "verification"
	}
	return st, string(r), err
}

func reasonOf(err error) repo.Reason {
	var ve *repo.VerifyError
	if errors.As(err, &ve) {
		return ve.Reason
	}
	return ""
}

func (a *cached) state() *repo.State {
	if a.rev == "" {
		return nil
	}
	return &repo.State{Rev: a.rev, Data: a.data}
}

func (s *Service) verifyOptions() repo.VerifyOptions {
	return repo.VerifyOptions{Now: s.w.Clock.Now(), Legacy: s.cfg.Legacy}
}

func (w *worker) commit(t task, a *cached, m *stream.Commit) (reason string, err error) {
	doc, reason, err := w.authorize(t, a)
	if reason != "" {
		if reason == dropUnresolved {
			w.broken(t, a)
		}
		return reason, err
	}
	if doc.SigningKey == nil {
		return dropNoKey, nil
	}
	if a.takedown {
		return dropTakendown, nil
	}
	if a.status != "" {
		w.recheck(t, a)
		return dropInactive, nil
	}
	if a.desync {
		if rev, err := syntax.ParseTID(m.Rev); err == nil {
			a.missed = max(a.missed, rev)
		}
		w.mend(t, a)
		return dropDesync, nil
	}
	msg := m.Verifiable(len(t.frame.Raw))
	prev := a.state()
	o := w.s.verifyOptions()
	st, reason, err := w.verified(t, a, func(key *keys.PublicKey) (repo.State, error) {
		return repo.VerifyCommit(msg, key, prev, o)
	})
	if reason != "" {
		if prev != nil && repo.Reason(reason).Desynchronizes() {
			w.broken(t, a)
		}
		return reason, err
	}
	var more also
	if names := a.fresh(m.Ops); len(names) > 0 {
		more.ops = func(b kv.Batch) { putCollections(b, m.Repo, names) }
	}
	w.passAlso(t, a, account{rev: st.Rev, data: st.Data, commit: m.Commit, host: t.host.name}, more, t.forward)
	return "", nil
}

func (w *worker) sync(t task, a *cached, m *stream.Sync) (reason string, err error) {
	doc, reason, err := w.authorize(t, a)
	if reason != "" {
		return reason, err
	}
	switch {
	case doc.SigningKey == nil:
		return dropNoKey, nil
	case a.takedown:
		return dropTakendown, nil
	case a.status != "":
		w.recheck(t, a)
		return dropInactive, nil
	}
	prev := a.state()
	msg := m.Verifiable(len(t.frame.Raw))
	o := w.s.verifyOptions()
	st, reason, err := w.verified(t, a, func(key *keys.PublicKey) (repo.State, error) {
		return repo.VerifySync(msg, key, prev, o)
	})
	if reason != "" {
		return reason, err
	}
	if prev != nil && *prev == st && !a.desync {
		return dropNoChange, nil
	}
	scan, err := car.NewScanner(m.Blocks, car.Options{})
	if err != nil {
		return string(repo.ReasonCAR), err
	}
	next := account{rev: st.Rev, data: st.Data, commit: scan.Root(), host: t.host.name}
	if t.mend {
		// A commit that came after the host gave its newest one is missing now. What it says of itself is not verified, so that
		// is believed once.
		next.desync, a.missed = a.missed > st.Rev, ""
		w.s.stats.resynced.Add(1)
		w.pass(t, a, next, encode(m))
	} else {
		w.pass(t, a, next, t.forward)
	}
	return "", nil
}

func (w *worker) identity(t task, a *cached, m *stream.Identity) (reason string, err error) {
	if _, reason, err = w.authorize(t, a); reason != "" {
		return reason, err
	}
	if a.takedown {
		return dropTakendown, nil
	}
	forward := t.forward
	if claimsHandle(m) {
		// A handle that doesn't lead back is not passed on as if it did; where nobody answers, subscribers have to ask for
		// themselves.
		h, herr := syntax.ParseHandle(m.Handle)
		switch {
		case t.idErr == nil && herr == nil && t.id.Handle == h.Normalize():
		case t.idErr == nil && (identity.KindOf(t.id.HandleErr) == identity.KindUnreachable || identity.KindOf(t.id.HandleErr) == identity.KindLimited):
			forward = encode(&stream.Identity{DID: m.DID, Time: m.Time})
		default:
			forward = encode(&stream.Identity{DID: m.DID, Time: m.Time, Handle: stream.HandleInvalid})
		}
	}
	next := a.account
	next.host = t.host.name
	w.pass(t, a, next, forward)
	return "", nil
}

func (w *worker) status(t task, a *cached, m *stream.Account) (reason string, err error) {
	if _, reason, err = w.authorize(t, a); reason != "" {
		// The document of a deleted account may be gone; its host may still say so.
		gone := reason == dropUnresolved && identity.KindOf(err) == identity.KindNotFound
		if !gone || m.Active || a.host != t.host.name {
			return reason, err
		}
	}
	a.said++
	next := a.account
	next.host, next.status = t.host.name, ""
	if !m.Active {
		if next.status = m.Status; next.status == "" {
			next.status = stream.StatusDeactivated
		}
	}
	if a.takedown { // what the host says is remembered, and told when the takedown ends
		w.pass(t, a, next)
		return dropTakendown, nil
	}
	if next.status != stream.StatusDeleted {
		w.pass(t, a, next, t.forward)
		return "", nil
	}
	a.collections = nil
	var failed error
	w.passAlso(t, a, next, also{
		forget: []string{m.DID}, // what is deleted is not replayed either
		ops:    func(b kv.Batch) { failed = w.s.dropCollections(b, m.DID) },
	}, t.forward)
	if failed != nil {
		w.s.fatal(failed) // our own disk
	}
	return "", nil
}

func (w *worker) now() string { return string(syntax.NewDatetime(w.s.w.Clock.Now())) }

// broken marks an account's chain as broken and starts to mend it.
func (w *worker) broken(t task, a *cached) {
	if !a.known || a.rev == "" || w.s.ctx.Err() != nil {
		return
	}
	if !a.desync {
		next := a.account
		next.desync = true
		w.pass(t, a, next)
	}
	w.mend(t, a)
}
