// Package pds is a personal data server: the host of accounts, their repositories and their blobs, https://atproto.com/specs/atp.
//
// One ordered key-value store holds everything: account rows, tree nodes and records in export order, blob references, and the event
// log, so that a commit, its blocks, its blob references and its event are one batch and one grouped fsync. A 2xx answer means that the
// batch is on disk. Blob bytes are files beside the store. Methods that it does not have go to the service that
// the caller names. Mails go out through a sender that it is given. It does not do OAuth.
//
//	s, err := pds.New(pds.Config{Dir: dir, PublicURL: "http://localhost:2583", PLCURL: plc}, w)
//	if err != nil { … }
//	defer s.Close()
//	go s.Run(ctx)
//	http.Serve(listener, s.Handler())
//
// Limits: 200 operations and 2,000,000 bytes of blocks per commit, 1,000,000 bytes per record; the rest is in [Config].
package pds

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/internal/blob"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Config is what an operator decides. The zero value of a limit means its default.
type Config struct {
	// Dir is the folder of the store and the blobs. Not used when Memory is set.
	Dir string
	// Memory keeps everything in memory and nothing after Close.
	Memory bool

	// PublicURL is the base URL under which others reach this server, such as https://pds.example.com or http://localhost:2583.
	PublicURL string
	// DID is the service's own DID; derived from PublicURL (did:web) when empty.
	DID syntax.DID
	// Version is what _health tells; "baro" when empty.
	Version string
	// HandleDomains are the suffixes under which accounts get handles, each with its leading dot, such as ".test".
	HandleDomains []string
	// PLCURL is the base URL of the PLC directory that new identities are registered with.
	PLCURL string
	// InviteRequired makes createAccount ask for an invite code.
	InviteRequired bool
	// AdminPassword is the password of the user "admin" (Basic auth), or its hash in the form $argon2id$v=19$m=…,t=…,p=…$salt$hash. When empty,
	// the file admin.password among the secrets has it, which is made if need be; in memory there is no administration then.
	AdminPassword string
	// ContactEmail, PrivacyPolicyURL and TermsURL are shown by describeServer when set.
	ContactEmail, PrivacyPolicyURL, TermsURL string

	// AppView is the service, as did#service, that methods of app.bsky go to when their caller names none. Without it they are refused.
	AppView string
	// AppViewURL is where the AppView can be reached; looked up in its DID document when empty.
	AppViewURL string
	// BareAudience makes the tokens for services that requests are passed on to name the DID alone, without #service, as services before
	// 2026 want it.
	BareAudience bool
	// ProxyTimeout is how long another service may take for a whole answer; 30 seconds by default.
	ProxyTimeout time.Duration
	// MaxProxyBytes is the largest body that is passed on, in either direction; 10 MiB by default.
	MaxProxyBytes int64

	// Relays are the base URLs of the relays that are asked to crawl this server.
	Relays []string
	// CrawlInterval is the least time between two successful requests to one relay; 20 minutes by default.
	CrawlInterval time.Duration

	// Accounts is what concerns sign-in.
	Accounts AccountConfig
	// Mail sends the mails; without one, what needs a mail is refused.
	Mail mailer.Sender

	// MaxBlobBytes is the largest blob; 100 MiB by default.
	MaxBlobBytes int64
	// MaxImportBytes is the largest repository that importRepo takes; 2 GiB by default.
	MaxImportBytes int64
	// MaxImportParkedBytes is how much of an imported file may wait at one time for the place where the tree needs it: blocks in an
	// unusual order, and blocks that the tree doesn't need at all. 256 MiB by default.
	MaxImportParkedBytes int64
	// AccountBytes is how much the records and blobs of one account may take; 50 GiB by default.
	AccountBytes int64
	// MaxExports is the number of repositories that are sent at once; 64 by default.
	MaxExports int
	// TempBlobAge is how long an uploaded blob may stay unreferenced; 6 hours by default, never less than one.
	TempBlobAge time.Duration
	// EventRetention is how long events can be replayed; 72 hours by default.
	EventRetention time.Duration
	// EventBytes is the most that retained events take on disk; 4 GiB by default.
	EventBytes int64
	// OpenRepos is the number of repositories whose tree is kept in memory; 256 by default.
	OpenRepos int
	// CacheBytes is the size of the store's block cache; 16 MiB by default.
	CacheBytes int64
}

const (
	maxRecordBody  = 2<<20 + 64<<10 // JSON of one record write
	maxBatchBody   = 5 << 20        // JSON of applyWrites
	minTempBlobAge = time.Hour
)

func (c Config) withDefaults() (Config, error) {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxBlobBytes, 100<<20)
	def(&c.MaxImportBytes, 2<<30)
	def(&c.AccountBytes, 50<<30)
	def(&c.MaxImportParkedBytes, 256<<20)
	def(&c.EventBytes, 4<<30)
	def(&c.MaxProxyBytes, 10<<20)
	def(&c.CacheBytes, 16<<20)
	dur(&c.TempBlobAge, 6*time.Hour)
	dur(&c.EventRetention, 72*time.Hour)
	dur(&c.CrawlInterval, 20*time.Minute)
	dur(&c.ProxyTimeout, 30*time.Second)
	if c.OpenRepos <= 0 {
		c.OpenRepos = 256
	}
	if c.MaxExports <= 0 {
		c.MaxExports = 64
	}
	c.TempBlobAge = max(c.TempBlobAge, minTempBlobAge)
	if c.PublicURL == "" {
		return c, errors.New("pds: the public URL is missing")
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return c, fmt.Errorf("pds: public URL %q: want http(s)://host[:port]", c.PublicURL)
	}
	c.PublicURL = u.Scheme + "://" + u.Host
	if c.DID == "" {
		c.DID = syntax.DID("did:web:" + strings.ReplaceAll(u.Host, ":", "%3A"))
	}
	if _, err := syntax.ParseDID(string(c.DID)); err != nil {
		return c, fmt.Errorf("pds: service DID: %w", err)
	}
	if c.AppViewURL != "" {
		u, err := url.Parse(c.AppViewURL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "" {
			return c, fmt.Errorf("pds: AppView URL %q: want http(s)://host[:port]", c.AppViewURL)
		}
		if c.AppView == "" {
			return c, errors.New("pds: the AppView has a URL but no DID")
		}
		c.AppViewURL = u.Scheme + "://" + u.Host
	}
	c.HandleDomains = slices.Clone(c.HandleDomains)
	for i, d := range c.HandleDomains {
		if !strings.HasPrefix(d, ".") {
			c.HandleDomains[i] = "." + d
		}
	}
	return c, nil
}

// Service is a running personal data server. Make it with [New].
type Service struct {
	cfg   Config
	world world.World
	http  *http.Client

	store   kv.Store
	log     *eventlog.Log
	files   *blob.Store
	schemas *schemas
	nodes   *nodeIndexes

	appView     serviceRef
	proxyClient *http.Client

	lexicons  *lexres.Resolver // of schemas that this server doesn't know by itself
	published published

	tids syntax.TIDClock

	engine    engine
	uploads   uploads
	imports   chan struct{}
	exports   chan struct{}
	exporters exporters
	crawl     *crawler
	streams   *stream.Handler
	mux       *xrpc.Server

	stop    context.CancelCauseFunc // ends Run: a failed disk, or Close
	running context.Context
	close   sync.Once
	runMu   sync.Mutex // over the start of Run, against the end of the service
	runs    sync.WaitGroup
	errands errands // mails that nobody waits for
	chores  chan struct{}

	accounts  accountState // account.go
	taken     takedowns
	madeAdmin string // file of an admin password that was made
}

// New opens the data of a service, or starts with none, and gets it ready to serve. Close it when done.
func New(cfg Config, w world.World) (*Service, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, world: w, imports: make(chan struct{}, 2), exports: make(chan struct{}, cfg.MaxExports), chores: make(chan struct{}, 1)}
	s.running, s.stop = context.WithCancelCause(context.Background())
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Service) open() error {
	var err error
	s.schemas = newSchemas()
	s.nodes = newNodeIndexes(maxNodeIndexBytes)
	s.store, err = kv.Open(s.world.FS, s.world.FS.PathJoin(s.cfg.Dir, "store"), s.cfg.Memory, kv.PebbleOptions{
		CacheBytes:    s.cfg.CacheBytes,
		MemTableBytes: 16 << 20, // replaced tree nodes and the index entries of them go before they reach a table

		Log:     s.world.Log,
		OnFatal: s.fatal,
	})
	if err != nil {
		return err
	}
	blobFS := s.world.FS
	if s.cfg.Memory {
		blobFS = vfs.NewMem()
	}
	if s.files, err = blob.Open(blobFS, blobFS.PathJoin(s.cfg.Dir, "blobs")); err != nil {
		return err
	}
	s.log, err = eventlog.Open(s.store, eventlog.Options{
		Prefix:    eventPrefix,
		Retention: s.cfg.EventRetention,
		MaxBytes:  s.cfg.EventBytes,
		Clock:     s.world.Clock,
		FirstSeq:  1,
		OnFatal:   s.fatal,
		Subject:   stream.SubjectOf,
	})
	if err != nil {
		return fmt.Errorf("opening the event log: %w", err)
	}
	s.http = s.world.HTTPClient(netguard.ClientOptions{})
	s.engine.open = map[syntax.DID]*openRepo{}
	s.engine.max = s.cfg.OpenRepos
	if err := s.dropUnfinished(); err != nil {
		return err
	}
	if err := s.recoverIDs(); err != nil {
		return err
	}
	if err := s.openAccounts(); err != nil {
		return err
	}
	if err := s.openTakedowns(); err != nil {
		return err
	}
	if err := s.openProxy(); err != nil {
		return err
	}
	s.openLexicons()
	s.streams = stream.NewHandler(s.running, logSource{s.log}, stream.ServeOptions{})
	s.crawl = newCrawler(s)
	s.mux = s.routes()
	return nil
}

// fatal is called when the log cannot make its data durable: nothing may be acknowledged any more, so the service stops.
func (s *Service) fatal(err error) {
	s.stop(fmt.Errorf("the store failed: %w", err))
	if s.world.Fatal != nil {
		s.world.Fatal(err)
	}
}

// Handler serves the XRPC methods, the stream and the well-known documents.
func (s *Service) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Requests of methods are counted behind the headers that let a page read a refusal.
		if !strings.HasPrefix(r.URL.Path, "/xrpc/") && s.throttle(w, r, "") {
			return
		}
		s.mux.ServeHTTP(w, r)
	})
}

// Run does the background work (garbage, retention, mails that wait, asking to be crawled) until ctx is done, the service is closed or the store fails. It
// returns the failure.
func (s *Service) Run(ctx context.Context) error {
	s.runMu.Lock()
	if s.running.Err() != nil {
		s.runMu.Unlock()
		return s.failure()
	}
	s.runs.Add(1)
	s.runMu.Unlock()
	defer s.runs.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := context.AfterFunc(s.running, cancel)
	defer stopped()
	var wg sync.WaitGroup
	wg.Go(func() { s.crawl.run(ctx) })
	wg.Go(func() { s.runCollector(ctx) })
	wg.Go(func() { s.checkMail(ctx) })
	wg.Go(func() { s.runChores(ctx) })
	wg.Go(func() { s.runOutbox(ctx) })
	wg.Go(func() {
		if err := s.log.KeepTrimmed(ctx, 5*time.Minute); err != nil && ctx.Err() == nil {
			s.world.Log.Error("trimming the event log", "err", err)
		}
	})
	<-ctx.Done()
	wg.Wait()
	return s.failure()
}

// failure is why the service ended by itself; nil when it runs or was closed.
func (s *Service) failure() error {
	if err := context.Cause(s.running); err != nil && !errors.Is(err, errClosed) {
		return err
	}
	return nil
}

var errClosed = errors.New("the service is closed")

// Close ends Run and all streams, waits for them and closes the store. Stop serving requests first.
func (s *Service) Close() error {
	var err error
	s.close.Do(func() {
		s.runMu.Lock()
		s.stop(errClosed)
		s.runMu.Unlock()
		s.runs.Wait()
		s.errands.wait()
		if s.streams != nil {
			s.streams.Wait()
		}
		if s.log != nil {
			err = errors.Join(err, s.log.Close())
		}
		if s.store != nil {
			err = errors.Join(err, s.store.Close())
		}
	})
	return err
}
