// Package reposync keeps a verified copy of repositories up to date: it discovers accounts, fetches their repositories,
// follows the event stream of a relay or PDS, and hands every change to a store, in order for each account.
//
// Specification: https://atproto.com/specs/sync.
//
//	s, err := reposync.New(sink, reposync.Options{
//		Upstream: "https://relay.example", Directory: ids, HTTP: guarded, NetDialContext: dial, Now: clock.Now,
//	})
//	err = s.Run(ctx) // until ctx ends
//
// A [Sink] stores what arrives. It gets record changes, the state of their repositories and the position in the stream in
// one [Batch], which it applies as one, so that after a crash the three agree: delivery is at least once, the effect
// exactly once. Every commit is verified (signature by the account's present key, inversion of its operations, chain);
// what doesn't follow from the state before leads to a fetch of the whole repository, whose difference to the stored
// records, deletions included, is delivered. While an account isn't active, nothing of it is processed.
//
// The package does not keep records, blocks or trees, does not look at lexicons, and is not the relay's way of verifying:
// a relay has no records to compare with.
//
// Limits: repositories of Options.MaxRepo bytes; commits that arrive during a fetch are held up to Options.MaxHeld, and
// beyond that the repository is fetched once more; a difference of more than Options.MaxChange bytes is delivered in
// parts, the last of which brings the new revision. Stability: settling.
package reposync

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// Op is one change of a record. Applying it twice must be the same as once.
type Op struct {
	Action string // repo.ActionCreate, ActionUpdate or ActionDelete
	Path   string
	CID    cid.CID // undefined in a deletion
	Data   []byte  // the record as signed, which may be dirty CBOR; nil in a deletion
}

// Change is what happened to one repository.
type Change struct {
	Repo  Repo // the state after the change
	Purge bool // all records are to be removed before Ops are applied
	Ops   []Op // each path at most once for each Commit; to be applied in order
	Live  bool // Ops come from the stream and not from a fetch
}

// Batch is a row of changes to be applied as one, together with the cursor.
type Batch struct {
	Changes []Change
	Cursor  int64 // of the stream: every event up to this one is dealt with. 0: unchanged
}

// Entry is a stored record.
type Entry struct {
	Path string
	CID  cid.CID
}

// Sink stores what a [Syncer] delivers. Apply is called by one goroutine at a time, the other methods by several.
type Sink interface {
	// Load returns the stored cursor, 0 if there is none, and all stored repositories.
	Load() (cursor int64, repos iter.Seq2[Repo, error], err error)
	// Repo returns the stored state of a repository, and whether there is one.
	Repo(did syntax.DID) (Repo, bool, error)
	// Records yields the stored records of a repository in the order of their paths, byte by byte, as they are at the moment
	// of the call.
	Records(did syntax.DID) iter.Seq2[Entry, error]
	// Apply applies b as a whole or fails. An error ends the Syncer: nothing is delivered after it.
	Apply(ctx context.Context, b Batch) error
}

// Options of a Syncer. Upstream, Directory, HTTP and Now must be set.
type Options struct {
	// Upstream is the relay or PDS whose stream is followed, such as "https://relay.example".
	Upstream  string
	Directory *identity.Directory
	// HTTP makes all requests, and should refuse private addresses: where it goes is said by DID documents. Its timeout and
	// its cap on bodies must be fit for whole repositories. Redirects are followed by the Syncer.
	HTTP *http.Client
	// NetDialContext opens the connections of the stream; nil is the plain dialer.
	NetDialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	Now            func() time.Time
	Log            *slog.Logger   // nil discards
	Rand           func() float64 // of [0,1), for jitter; nil is a generator of its own
	UserAgent      string

	// FromNow starts a Syncer that has no cursor at the present end of the stream instead of its oldest event.
	FromNow bool
	// Legacy is the policy for commits from before sync 1.1. The default fetches the repository instead.
	Legacy repo.LegacyPolicy

	Workers      int           // that verify; each account is served by one of them; default 4
	Fetches      int           // repositories fetched at once; default 8
	HostFetches  int           // of them from one host; default 4
	FetchTimeout time.Duration // of one repository; default 5 min
	MaxRepo      int64         // bytes of a repository; default 1 GiB
	MaxChange    int           // bytes of records that are delivered as one; default 4 MiB
	MaxHeld      int           // commits held for one repository during a fetch; default 500
	MaxHeldBytes int           // and their bytes; default 8 MiB
	MaxCached    int           // repository states kept in memory by each worker; default 20,000

	RetryMin   time.Duration // wait after the first failed fetch, doubled with each further one; default 5 s
	RetryMax   time.Duration // longest such wait; default 1 h
	Settle     time.Duration // wait for a #sync after a reactivation before fetching; default 1 s
	FetchRate  int           // fetches of one repository a minute; default 5
	SweepEvery time.Duration // listing of all repositories; default 6 h, negative: never
}

func (o *Options) defaults() error {
	if o.Upstream == "" || o.Directory == nil || o.HTTP == nil || o.Now == nil {
		return errors.New("reposync: Upstream, Directory, HTTP and Now must be set")
	}
	if !strings.Contains(o.Upstream, "://") {
		o.Upstream = "https://" + o.Upstream
	}
	o.Upstream = strings.TrimRight(o.Upstream, "/")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Rand == nil {
		var mu sync.Mutex
		seed := maphash.Bytes(maphash.MakeSeed(), nil)
		r := rand.New(rand.NewPCG(seed, seed>>7))
		o.Rand = func() float64 { mu.Lock(); defer mu.Unlock(); return r.Float64() }
	}
	def(&o.Workers, 4)
	def(&o.Fetches, 8)
	def(&o.HostFetches, 4)
	def(&o.FetchTimeout, 5*time.Minute)
	def(&o.MaxRepo, 1<<30)
	def(&o.MaxChange, 4<<20)
	def(&o.MaxHeld, 500)
	def(&o.MaxHeldBytes, 8<<20)
	def(&o.MaxCached, 20_000)
	def(&o.RetryMin, 5*time.Second)
	def(&o.RetryMax, time.Hour)
	def(&o.Settle, time.Second)
	def(&o.FetchRate, 5)
	def(&o.SweepEvery, 6*time.Hour)
	return nil
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Syncer follows one upstream into one sink.
type Syncer struct {
	o        Options
	sink     Sink
	workers  []*worker
	results  chan result
	track    *stream.Tracker
	sched    *scheduler
	stats    stats
	held     atomic.Int64 // bytes of commits that wait for fetches
	sweeping chan bool    // asks for a listing; true: one that also compares revisions
	seed     maphash.Seed
	ctx      context.Context         // of Run
	cancel   context.CancelCauseFunc // ends Run
}

// New prepares a Syncer. Nothing happens before Run.
func New(sink Sink, o Options) (*Syncer, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	s := &Syncer{o: o, sink: sink, results: make(chan result, 1024), sweeping: make(chan bool, 1), seed: maphash.MakeSeed()}
	s.stats.init()
	s.sched = newScheduler(s)
	for range o.Workers {
		s.workers = append(s.workers, &worker{s: s, in: make(chan task, 256), entries: map[syntax.DID]*entry{}})
	}
	return s, nil
}

// Run follows the stream until ctx ends, and returns its error then. Any other error is one of the sink, or says that the
// upstream's numbers went back (stream.ErrorFutureCursor), which is for an operator to decide. It is called once.
func (s *Syncer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.ctx, s.cancel = ctx, cancel
	cursor, repos, err := s.sink.Load()
	if err != nil {
		return fmt.Errorf("loading the cursor: %w", err)
	}
	s.track = stream.NewTracker(cursor, math.MaxInt, maxUndone)
	s.stats.cursor.Store(cursor)
	s.stats.lastSeq.Store(cursor)
	for r, err := range repos {
		if err != nil {
			return fmt.Errorf("loading the repositories: %w", err)
		}
		s.stats.count(r.bucket(), 1)
		if r.wantsFetch() {
			s.sched.add(r.DID, r.Due)
		}
	}

	var wg sync.WaitGroup
	for _, w := range s.workers {
		wg.Go(func() { w.run(ctx) })
	}
	wg.Go(func() {
		if err := s.apply(ctx); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() { s.sched.run(ctx) })
	wg.Go(func() { s.sweeps(ctx) })
	wg.Go(func() { cancel(s.follow(ctx, cursor)) })
	<-ctx.Done()
	wg.Wait()
	s.sched.wait()
	return context.Cause(ctx)
}

// follow reads the stream.
func (s *Syncer) follow(ctx context.Context, cursor int64) error {
	o := stream.SubscribeOptions{
		DialOptions: stream.DialOptions{NetDialContext: s.o.NetDialContext},
		After:       &cursor,
		Rand:        s.o.Rand,
		OnConnect:   func() { s.stats.connected.Store(true) },
		OnDisconnect: func(err error, wait time.Duration) {
			s.stats.connected.Store(false)
			s.o.Log.Debug("stream ended", "upstream", s.o.Upstream, "error", err, "wait", wait)
		},
	}
	if s.o.UserAgent != "" {
		o.Header = http.Header{"User-Agent": {s.o.UserAgent}}
	}
	if cursor == 0 && s.o.FromNow {
		o.After = nil
	}
	s.sweep(false)
	for f, err := range stream.Subscribe(ctx, s.o.Upstream, o) {
		if err != nil {
			s.stats.connected.Store(false)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("following %s: %w", s.o.Upstream, err)
		}
		if err := s.read(ctx, f); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// read gives one frame to the worker of its account.
func (s *Syncer) read(ctx context.Context, f stream.Frame) error {
	m, err := f.Message()
	if info, ok := m.(*stream.Info); ok && err == nil {
		s.o.Log.Warn("the upstream says", "name", info.Name, "message", info.Text)
		if info.Name == stream.InfoOutdatedCursor {
			s.stats.drop("outdated-cursor")
			s.sweep(true) // some events are gone for good: compare
		}
		return nil
	}
	if f.Seq == 0 {
		return nil
	}
	s.stats.lastSeq.Store(f.Seq)
	p, err2 := s.track.Add(ctx, f.Seq, len(f.Raw))
	if err2 != nil {
		return err2
	}
	var did syntax.DID
	switch {
	case err != nil:
		s.stats.drop("message-shape")
	case m == nil: // of a later version of the protocol
	default:
		if did, err = syntax.ParseDID(m.Subject()); err != nil {
			s.stats.drop(string(repo.ReasonDIDSyntax))
		}
	}
	if did == "" {
		return s.send(ctx, result{pending: p})
	}
	s.stats.events.Add(1)
	return s.give(ctx, did, &event{did: did, frameSize: len(f.Raw), msg: m, pending: p})
}

// give hands a task to the worker of an account.
func (s *Syncer) give(ctx context.Context, did syntax.DID, t task) error {
	w := s.workers[maphash.String(s.seed, string(did))%uint64(len(s.workers))]
	select {
	case w.in <- t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send hands a result to the applier.
func (s *Syncer) send(ctx context.Context, r result) error {
	select {
	case s.results <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
