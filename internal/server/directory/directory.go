// Package directory is the PLC directory server: it accepts the signed operations of did:plc identities, orders them, and serves
// documents, logs and the export.
//
// Specification: https://web.plc.directory/spec/v0.1/did-plc, used by https://atproto.com/specs/did.
//
// Every operation is checked against the whole log of its identity by package plc; operations on one identity are serial,
// different identities share one group commit. An operation is answered with 200 when it, the entries it makes void and its
// line of the export are on disk, in one batch. There is no authentication, no admin interface and no mirroring of another
// directory.
//
//	s, err := directory.New(directory.Config{Dir: dir}, world)
//	go s.Run(ctx)
//	http.Serve(listener, s.Handler())
//	err = s.Close()
//
// Limits: bodies of 64 KiB, export pages of 1,000 lines, per identity 10 operations an hour, 30 a day and 100 a week (a recovery
// is never limited). Stability: internal.
package directory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// Config says where the directory keeps its data and how patient it is. The zero value of every field but Dir is a good default.
type Config struct {
	Dir     string // folder of the database
	Memory  bool   // keep everything in memory; Dir is not used
	Version string // told by /_health

	CacheBytes int64 // block cache of the database; 0 is kv's default

	NoLimits   bool          // accept any number of operations per identity
	CatchUp    time.Duration // how old the next event of a stream's cursor may be; 7 days by default
	MaxLag     int64         // events that a stream which had caught up may fall behind; 10,000 by default
	MaxStreams int           // 1,000 by default
}

const (
	defaultCatchUp    = 7 * 24 * time.Hour
	defaultMaxLag     = 10_000
	defaultMaxStreams = 1000
	ringBytes         = 1 << 20 // streams that keep up read from memory: some thousand operations
)

// Service is a running directory.
type Service struct {
	cfg   Config
	w     world.World
	store kv.Store
	log   *eventlog.Log

	locks [256]sync.Mutex // by identity: one operation at a time

	ctx     context.Context // ends the streams
	stop    context.CancelCauseFunc
	streams sync.WaitGroup
	mu      sync.Mutex
	open    int  // streams
	closed  bool // no more streams
	once    sync.Once
	err     error // of Close
}

// New opens the database and returns a directory that is ready to serve.
func New(cfg Config, w world.World) (*Service, error) {
	if cfg.CatchUp <= 0 {
		cfg.CatchUp = defaultCatchUp
	}
	if cfg.MaxLag <= 0 {
		cfg.MaxLag = defaultMaxLag
	}
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = defaultMaxStreams
	}
	s := &Service{cfg: cfg, w: w}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	store, err := kv.Open(w.FS, cfg.Dir, cfg.Memory, kv.PebbleOptions{CacheBytes: cfg.CacheBytes, Log: w.Log, OnFatal: s.fatal})
	if err != nil {
		return nil, fmt.Errorf("opening the directory's database: %w", err)
	}
	s.store = store
	s.log, err = eventlog.Open(store, eventlog.Options{
		Prefix: []byte{prefixLog}, RingBytes: ringBytes, Clock: w.Clock, OnFatal: s.fatal,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the directory's log: %w", err), store.Close())
	}
	return s, nil
}

// fatal ends the service before anything unsafe is answered, and the process if the world says so.
func (s *Service) fatal(err error) {
	s.stop(err)
	if s.w.Fatal != nil {
		s.w.Fatal(err)
	}
}

// errClosing is the cause of an orderly end.
var errClosing = errors.New("the directory is shutting down")

// Run waits until ctx ends or the disk fails, and then ends the streams. It returns nil in the first case.
func (s *Service) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		s.stop(errClosing)
	case <-s.ctx.Done():
	}
	s.endStreams()
	if err := context.Cause(s.ctx); !errors.Is(err, errClosing) {
		return fmt.Errorf("the directory's log failed: %w", err)
	}
	return nil
}

func (s *Service) endStreams() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.streams.Wait()
}

// Close ends the streams and closes the database. Requests must have ended.
func (s *Service) Close() error {
	s.once.Do(func() {
		s.stop(errClosing)
		s.endStreams()
		s.err = errors.Join(s.log.Close(), s.store.Close())
	})
	return s.err
}

// refusal is an error with an HTTP status.
type refusal struct {
	status  int
	name    string
	message string
	after   time.Duration // Retry-After
}

func (r *refusal) Error() string { return r.message }

// Submit checks op against the log of did and accepts it. The error is a *[plc.Error], a refusal with a status, or a failure of the disk.
func (s *Service) Submit(did syntax.DID, op *plc.Operation) error {
	if !did.IsPLC() {
		return &refusal{status: 400, name: "InvalidRequest", message: "not a did:plc identifier"}
	}
	if err := op.Check(); err != nil {
		return err
	}
	before, err := s.head(did)
	if err != nil {
		return err
	}
	return s.submit(did, op, before)
}

// submit is Submit for a request that came when before was the identity's present operation. Whoever was overtaken since then
// raced with another operation, and is told so instead of being judged against a log that its author has never seen.
func (s *Service) submit(did syntax.DID, op *plc.Operation, before cid.CID) error {
	lock := &s.locks[did[len(did)-1]^did[len(did)-2]<<3]
	lock.Lock()
	defer lock.Unlock()

	log, err := s.entries(s.store, did)
	if err != nil {
		return err
	}
	var head cid.CID
	now := s.w.Clock.Now().UTC().Truncate(time.Millisecond)
	if n := len(log); n > 0 {
		head = log[n-1].CID
		if last := log[n-1].CreatedAt; !now.After(last) {
			now = last.Add(time.Millisecond) // one identity's timestamps strictly increase, whatever the clock does
		}
	}
	if head != before {
		return &refusal{status: 409, name: "Conflict", message: "another operation on this DID was accepted at the same time"}
	}
	void, err := plc.Next(did, log, op, now)
	if err != nil {
		return err
	}
	if len(void) == 0 && !s.cfg.NoLimits {
		if err := checkRate(log, now); err != nil {
			return err
		}
	}
	return s.accept(log, void, plc.Entry{DID: did, Operation: op, CID: op.CID(), CreatedAt: now})
}

// rates limit how often an identity may change, so that nobody can fill the directory. Void entries do not count.
var rates = []struct {
	window time.Duration
	name   string
	max    int
}{
	{time.Hour, "hour", 10},
	{24 * time.Hour, "day", 30},
	{7 * 24 * time.Hour, "week", 100},
}

func checkRate(log []plc.Entry, now time.Time) error {
	for _, r := range rates {
		n := 0
		var oldest time.Time
		for i := range log {
			if e := &log[i]; !e.Nullified && e.CreatedAt.After(now.Add(-r.window)) {
				if n == 0 {
					oldest = e.CreatedAt
				}
				n++
			}
		}
		if n >= r.max {
			return &refusal{
				status: 429, name: "RateLimitExceeded", after: oldest.Add(r.window).Sub(now),
				message: fmt.Sprintf("too many operations on this DID within the last %s, at most %d are allowed", r.name, r.max),
			}
		}
	}
	return nil
}
