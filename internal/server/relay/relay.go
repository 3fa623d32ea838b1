// Package relay is the server that follows many hosts, verifies what they send and offers it as one stream.
//
// Specification: https://atproto.com/specs/sync and https://atproto.com/specs/event-stream.
//
// For each host there is one resilient subscription. Every event is checked by the rules of sync 1.1 before it gets a
// number in the relay's own durable log: host, account status, signature, tree inversion and chain. What breaks a rule is
// dropped and counted with its reason, never passed on. The relay keeps no repositories: it remembers the newest commit
// of each account and the collections it wrote to, and answers getRepo with a redirect to the account's host. It doesn't
// look at lexicons.
//
//	svc, err := relay.New(relay.Config{Dir: dir, Hosts: []string{"pds.example"}, Directory: ids}, w)
//	go svc.Run(ctx)
//	http.Handle("/", svc.Handler())
//
// Guarantees: an event that subscribers see is on disk; its number is never given twice; a host's cursor on disk never
// passes an event that was not dealt with. Delivery is at least once.
//
// The operator can take accounts down, shut hosts and domains out and change limits at /admin/, with the paths that the tools
// of relay operators know. What is decided holds at once, and is on disk before the answer says so.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
)

// Config of a relay.
type Config struct {
	Dir    string
	Memory bool

	// Hosts are followed from the start: host names, or origins such as "http://localhost:2583". Only these may be private
	// or plain http.
	Hosts []string
	// Directory resolves identities. Required.
	Directory *identity.Directory

	Retention time.Duration // of the log; default 72 h
	MaxBytes  int64         // of the log's frames; default no limit
	Workers   int           // that verify, each account by one of them; default 4

	// NewHostsPerDay bounds what requestCrawl adds; default 50, negative: none at all.
	NewHostsPerDay int
	// AccountLimit bounds the accounts of a host that was not configured; default 100.
	AccountLimit int64
	// Legacy is the policy for commits from before sync 1.1; the default rejects them.
	Legacy repo.LegacyPolicy

	MaxSubscribers int
	CacheBytes     int64

	// AdminPassword, of the user admin, and AdminToken let the operator in at /admin/. Without both nobody is let in.
	AdminPassword string
	AdminToken    string
	// TrustedProxies are the networks whose X-Forwarded-For header is believed.
	TrustedProxies []netip.Prefix
}

// Service is a relay.
type Service struct {
	cfg   Config
	w     world.World
	store kv.Store
	log   *eventlog.Log
	http  *http.Client
	dir   *identity.Directory

	streams *stream.Handler
	handler http.Handler
	workers []*worker
	stats   stats

	door      *doorkeeper
	consumers *consumers
	deciding  sync.Mutex // held by the operator's decisions, one after another

	ctx  context.Context // ends subscriptions and streams
	stop context.CancelCauseFunc
	wg   sync.WaitGroup // subscriptions, workers, resynchronizations

	mu        sync.Mutex
	hosts     map[string]*host
	bans      map[string]bool // domains
	settings  settings
	running   bool
	newHosts  int
	newSince  time.Time
	resyncing atomic.Int32

	once     sync.Once
	closeErr error
}

var errClosing = errors.New("the relay is shutting down")

// New opens the relay's database.
func New(cfg Config, w world.World) (*Service, error) {
	if cfg.Directory == nil {
		return nil, errors.New("a relay needs an identity directory")
	}
	if cfg.Retention <= 0 {
		cfg.Retention = 72 * time.Hour
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	if cfg.NewHostsPerDay == 0 {
		cfg.NewHostsPerDay = 50
	}
	if cfg.AccountLimit <= 0 {
		cfg.AccountLimit = 100
	}
	s := &Service{cfg: cfg, w: w, dir: cfg.Directory, hosts: map[string]*host{}, bans: map[string]bool{}}
	s.door = newDoorkeeper(cfg, w.Clock)
	s.consumers = &consumers{clock: w.Clock, proxies: cfg.TrustedProxies, all: map[*http.Request]listener{}}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	store, err := kv.Open(w.FS, cfg.Dir, cfg.Memory, kv.PebbleOptions{CacheBytes: cfg.CacheBytes, Log: w.Log, OnFatal: s.fatal})
	if err != nil {
		return nil, fmt.Errorf("opening the relay's database: %w", err)
	}
	s.store = store
	s.log, err = eventlog.Open(store, eventlog.Options{
		Prefix: []byte{prefixLog}, Retention: cfg.Retention, MaxBytes: cfg.MaxBytes, Clock: w.Clock, OnFatal: s.fatal,
		Subject: stream.SubjectOf,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the relay's log: %w", err), store.Close())
	}
	s.http = w.HTTPClient(netguard.ClientOptions{Timeout: 10 * time.Second, MaxBody: 1 << 20, UserAgent: userAgent})
	s.streams = stream.NewHandler(s.ctx, source{s.log}, s.streamOptions())
	for range cfg.Workers {
		s.workers = append(s.workers, newWorker(s))
	}
	s.stats.init()
	if err := s.loadDecisions(); err != nil {
		return nil, errors.Join(fmt.Errorf("reading the decisions of the relay's operator: %w", err), s.Close())
	}
	if err := s.loadHosts(); err != nil {
		return nil, errors.Join(fmt.Errorf("reading the relay's hosts: %w", err), s.Close())
	}
	for _, name := range cfg.Hosts {
		h, err := s.addHost(name, byConfig)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("host %q: %w", name, err), s.Close())
		}
		if h.stopped {
			w.Log.Warn("a host of the configuration is not followed: the relay's operator has shut it out", "host", h.name)
		}
	}
	s.handler = s.routes()
	return s, nil
}

const userAgent = "baro-relay"

// Handler serves the relay's methods.
func (s *Service) Handler() http.Handler { return s.handler }

// Head is the number of the newest event.
func (s *Service) Head() int64 { return s.log.Head() }

// Run follows the hosts until ctx ends or the disk fails. It returns nil in the first case.
func (s *Service) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return errors.New("the relay is running already")
	}
	s.running = true
	for _, w := range s.workers {
		s.wg.Go(w.run)
	}
	for _, h := range s.hosts {
		s.follow(h)
	}
	s.mu.Unlock()
	s.wg.Go(func() {
		if err := s.log.KeepTrimmed(s.ctx, time.Minute); err != nil {
			s.w.Log.Error("trimming the relay's log", "err", err)
		}
	})
	s.wg.Go(func() {
		if err := s.retryBroken(); err != nil {
			s.w.Log.Error("looking for accounts with a broken chain", "err", err)
		}
	})
	select {
	case <-ctx.Done():
		s.stop(errClosing)
	case <-s.ctx.Done():
	}
	s.mu.Lock() // whoever follows a host does it under this lock, and not any more
	s.mu.Unlock()
	s.wg.Wait()
	s.streams.Wait()
	s.saveCursors()
	if err := context.Cause(s.ctx); !errors.Is(err, errClosing) {
		return fmt.Errorf("the relay's log failed: %w", err)
	}
	return nil
}

// fatal ends the service before anything unsafe is passed on, and the process if the world says so.
func (s *Service) fatal(err error) {
	s.stop(err)
	if s.w.Fatal != nil {
		s.w.Fatal(err)
	}
}

// Close closes the database. Run must have returned, or never been called.
func (s *Service) Close() error {
	s.once.Do(func() {
		s.stop(errClosing)
		s.wg.Wait()
		s.streams.Wait()
		s.closeErr = errors.Join(s.log.Close(), s.store.Close())
	})
	return s.closeErr
}

// source is the log as package stream reads it.
type source struct{ log *eventlog.Log }

func (s source) Head() int64  { return s.log.Head() }
func (s source) Floor() int64 { return s.log.Floor() }

func (s source) Read(ctx context.Context, from int64, max int, dst []stream.Event) ([]stream.Event, error) {
	events, err := s.log.Read(ctx, from, max)
	for _, ev := range events {
		dst = append(dst, stream.Event{Seq: ev.Seq, Frame: ev.Frame})
	}
	return dst, err
}
