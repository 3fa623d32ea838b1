// Package links is the link index: it walks every record of the network for at-uris, DIDs and URLs, and answers what links
// to something, from where and how often.
//
// Specification: https://atproto.com/specs/sync for what it reads. What it answers is wire-compatible with the public link
// index of the community, blue.microcosm.links, and its older paths under /links.
//
//	s, err := links.New(links.Config{Dir: dir, RelayURL: "https://relay.example", Directory: ids}, world)
//	go s.Run(ctx)
//	http.Serve(listener, s.Handler())
//	err = s.Close()
//
// Counts and pages are exact: of every repository at the revision that was last delivered, without accounts that aren't
// active. They don't depend on the order in which things arrived, so an index that is rebuilt gives the same answers. Counts
// are one read, pages are as long as they are, and cursors stay good when links come and go. A page of links is in the order
// of the TIDs in the record keys, newest first; links of one moment in the order of DIDs; records whose keys are no TIDs come
// last. A page of accounts is in the order of DIDs. The same link twice in one record counts once.
//
// It does not validate records, and does not resolve handles: an at-uri with a handle is another target than one with a DID.
//
// Limits: MaxLinks links of one record and paths of MaxPath bytes; the change of the status of an account with very many
// records holds up the indexing of others while it lasts. Stability: internal.
package links

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/reposync"
)

// Config says what is followed and where the index is kept.
type Config struct {
	Dir    string
	Memory bool // keep everything in memory; Dir is not used

	RelayURL string // or a PDS: what is followed, such as "https://relay.example"
	// Directory resolves identities; if it is nil, one is made that asks PLCURL.
	Directory *identity.Directory
	PLCURL    string // default: that of package identity
	PublicURL string // where this service is reached; needed for its did:web document
	Version   string

	CacheBytes int64            // block cache of the database
	Sync       reposync.Options // further options of the synchronization; what New knows better is overwritten
}

// Service is a running index.
type Service struct {
	cfg     Config
	w       world.World
	dir     *identity.Directory
	http    *http.Client
	store   kv.Store
	handler http.Handler
	ix      *index

	ctx  context.Context // of the service; its cause says whether the disk failed
	stop context.CancelCauseFunc
	wg   sync.WaitGroup // running

	requests sync.RWMutex // held for reading while the store is used; for writing when it is cleared or closed
	closed   bool

	mu     sync.Mutex
	syncer *reposync.Syncer // of the present Run

	once sync.Once
	err  error
}

var errClosing = errors.New("the link index is shutting down")

const userAgent = "baro-links"

// New opens the index.
func New(cfg Config, w world.World) (*Service, error) {
	s := &Service{cfg: cfg, w: w, dir: cfg.Directory}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	store, err := kv.Open(w.FS, cfg.Dir, cfg.Memory, kv.PebbleOptions{CacheBytes: cfg.CacheBytes, Log: w.Log, OnFatal: s.fatal})
	if err != nil {
		return nil, fmt.Errorf("opening the link index: %w", err)
	}
	s.store = store
	if s.ix, err = openIndex(store, uint64(w.Clock.Now().UnixMicro())); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the link index: %w", err), store.Close())
	}
	// Repositories are long streams: their caps are those of package reposync.
	s.http = w.HTTPClient(netguard.ClientOptions{Timeout: -1, MaxBody: -1, HeaderTimeout: time.Minute, UserAgent: userAgent})
	if s.dir == nil {
		s.dir = identity.New(identity.Options{
			HTTP: w.HTTPClient(netguard.ClientOptions{UserAgent: userAgent}), Resolver: w.Resolver, Now: w.Clock.Now, PLC: cfg.PLCURL,
		})
	}
	s.handler = s.routes()
	return s, nil
}

// fatal ends the service before anything unsafe is answered, and the process if the world says so.
func (s *Service) fatal(err error) {
	s.stop(err)
	if s.w.Fatal != nil {
		s.w.Fatal(err)
	}
}

// hold keeps the store open until release. It reports whether it is.
func (s *Service) hold() bool {
	s.requests.RLock()
	if s.closed {
		s.requests.RUnlock()
		return false
	}
	return true
}

func (s *Service) release() { s.requests.RUnlock() }

// newSyncer prepares to follow the upstream.
func (s *Service) newSyncer() (*reposync.Syncer, error) {
	o := s.cfg.Sync
	o.Upstream, o.Directory, o.HTTP, o.Now, o.Log, o.UserAgent = s.cfg.RelayURL, s.dir, s.http, s.w.Clock.Now, s.w.Log, userAgent
	o.NetDialContext = s.w.Dialer.DialContext
	return reposync.New(s.ix, o)
}

// Run follows the upstream until ctx ends or the service is closed, and returns nil then. It is called once at a time.
func (s *Service) Run(ctx context.Context) error {
	y, err := s.newSyncer()
	if err != nil {
		return err
	}
	return s.run(ctx, y)
}

func (s *Service) run(ctx context.Context, y *reposync.Syncer) error {
	s.mu.Lock()
	if s.ctx.Err() != nil || s.syncer != nil {
		s.mu.Unlock()
		return errors.Join(context.Cause(s.ctx), errors.New("the link index is closed, or runs already"))
	}
	s.syncer = y
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	defer release()
	err := y.Run(ctx)
	s.mu.Lock()
	s.syncer = nil
	s.mu.Unlock()
	if ctx.Err() == nil {
		return fmt.Errorf("the link index stopped following %s: %w", s.cfg.RelayURL, err)
	}
	if cause := context.Cause(s.ctx); cause != nil && !errors.Is(cause, errClosing) {
		return fmt.Errorf("the database of the link index failed: %w", cause)
	}
	return nil
}

// Rebuild drops the whole index, fetches every repository anew and returns when all that the upstream lists are there. Run
// must not be running. Requests are answered meanwhile, from what is there.
func (s *Service) Rebuild(ctx context.Context) error {
	s.mu.Lock()
	running := s.syncer != nil
	s.mu.Unlock()
	if running {
		return errors.New("the link index is running: it can't be rebuilt")
	}
	if err := s.clear(); err != nil {
		return fmt.Errorf("dropping the link index: %w", err)
	}
	y, err := s.newSyncer()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan error, 1)
	s.wg.Go(func() { done <- s.run(ctx, y) })
	err = y.WaitSettled(ctx)
	if n := y.Status().Repos[reposync.Failed.String()]; err == nil && n > 0 {
		s.w.Log.Warn("some repositories could not be fetched; that is tried again while the index runs", "repositories", n)
	}
	cancel(nil)
	return errors.Join(err, <-done)
}

// clear makes the index empty. The figures of the new one begin now.
func (s *Service) clear() error {
	s.requests.Lock()
	defer s.requests.Unlock()
	if s.closed {
		return errClosing
	}
	b := s.store.NewBatch()
	defer b.Close()
	// The format goes with the rest, in one batch: an index is there as a whole or not at all.
	b.DeleteRange([]byte{0}, []byte{0xff})
	if err := s.store.Apply(b, true); err != nil {
		return err
	}
	ix, err := openIndex(s.store, uint64(s.w.Clock.Now().UnixMicro()))
	if err == nil {
		s.ix = ix
	}
	return err
}

// Status is a look at the index: at /_status as JSON.
type Status struct {
	Upstream string           `json:"upstream"`
	Running  bool             `json:"running"`
	LagMS    int64            `json:"lagMs"`
	Sync     *reposync.Status `json:"sync,omitempty"`
	Records  uint64           `json:"records"` // that link to something
	Links    uint64           `json:"links"`
	Targets  uint64           `json:"targets"` // pairs of target and source
	DIDs     uint64           `json:"dids"`    // accounts with such records
}

// Status returns the present figures.
func (s *Service) Status() (Status, error) {
	if !s.hold() {
		return Status{}, errClosing
	}
	defer s.release()
	return s.status()
}

func (s *Service) status() (Status, error) {
	out := Status{Upstream: s.cfg.RelayURL}
	s.mu.Lock()
	y := s.syncer
	s.mu.Unlock()
	if y != nil {
		st := y.Status()
		out.Running, out.Sync, out.LagMS = true, &st, st.Lag.Milliseconds()
	}
	f, err := readFigures(s.ix.store)
	out.Records, out.Links, out.Targets, out.DIDs = f.Records, f.Links, f.Targets, f.DIDs
	return out, err
}

// Close ends Run and closes the database.
func (s *Service) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.stop(errClosing)
		s.mu.Unlock()
		s.wg.Wait()
		s.requests.Lock()
		s.closed = true
		s.requests.Unlock()
		s.err = s.store.Close()
	})
	return s.err
}
