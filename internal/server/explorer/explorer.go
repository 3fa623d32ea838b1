// Package explorer is the web page of the network: accounts, a live tail, repositories by collection, records with what links
// to them, and for each record a mark that stands for a proof which was checked before the page was made.
//
// It shows what https://atproto.com/specs/repository and https://atproto.com/specs/sync describe. Everything comes over HTTP
// from others: a relay, a link index, a PLC directory, and the PDS that an account's DID document names. The explorer stores
// nothing and takes no input but addresses. Pages are made on the server and work without JavaScript; each has a twin in
// JSON (?format=json, the header Accept, or .json at the end of its path), made from the same struct.
//
//	svc, err := explorer.New(explorer.Config{RelayURL: relay, LinksURL: links, PLCURL: plc}, w)
//	go svc.Run(ctx)
//	http.Handle("/", svc.Handler())
//
// What a record says is hostile: it is shown as text, in which characters that can't be seen or that turn the direction of
// writing are made visible, links lead to at-uris, DIDs, blobs and http(s) addresses only, and a strict content security
// policy stands behind that.
//
// Limits: see the constants; a page has [Config.Timeout] for all that it asks others, and shows what it got by then.
package explorer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/lexicon"
)

// Bounds of what a page asks for, holds and shows.
const (
	maxAnswer     = 4 << 20  // bytes of a JSON answer
	maxProof      = 4 << 20  // bytes of a proof
	maxAudit      = 1 << 20  // bytes of an audit log
	maxBlob       = 8 << 20  // bytes of a blob that is passed on
	maxBlobs      = 8        // blobs in memory at the same time
	maxNodes      = 2000     // lines of a record's tree
	maxText       = 4000     // characters of one text in it
	maxRaw        = 64 << 10 // bytes of the JSON shown under it
	maxPages      = 64       // pages being made at the same time
	maxStreams    = 256      // browsers that follow the tail
	maxHosts      = 100      // on the overview
	pageAccounts  = 50       // accounts on a page
	homeAccounts  = 12       // accounts on the overview
	pageRecords   = 50       // records on a page
	countPages    = 3        // pages of a hundred records that are counted through
	maxCounted    = 24       // collections that are counted
	pageLinks     = 6        // linking records shown for each source
	maxSources    = 24       // sources of links that are shown
	ringEvents    = 400      // events kept for the tail
	rowsPerEvent  = 10       // operations shown of one commit
	cacheEntries  = 2048     // of each small cache
	maxSchemas    = 64       // that a schema may refer to
	maxFindings   = 30       // of one record
	maxConcurrent = 8        // requests that one page has out at the same time
	statusTTL     = time.Minute
)

const userAgent = "barograph-explorer"

// Config says where the explorer looks.
type Config struct {
	RelayURL string // required
	LinksURL string // link index; without one there are no backlinks
	PLCURL   string // PLC directory; default [identity.DefaultPLC]

	// Directory resolves identities; nil: one of its own.
	Directory *identity.Directory
	// AllowLocalhost permits did:web:localhost, for local networks. It has no effect on a given Directory.
	AllowLocalhost bool
	// Catalog holds the schemas that records are held against; nil: one made of the embedded schemas when first needed.
	Catalog *lexicon.Catalog

	Version string        // told in the footer and by /_health
	Timeout time.Duration // for all that a page asks others; default 8 s
	// SchemaTimeout is how long a page waits for a published schema, which takes DNS and a proof; default 2 s.
	SchemaTimeout time.Duration
	// Backlog is how many past events are read from the relay at the start, for the tail and the trace; default 2,000,
	// negative: none.
	Backlog int64
}

// Service is an explorer.
type Service struct {
	cfg Config
	w   world.World
	log *slog.Logger

	dir      *identity.Directory
	http     *http.Client // small answers
	files    *http.Client // proofs and blobs, whose readers bound them
	pages    *pages
	tail     *tail
	catalog  func() *lexicon.Catalog
	graph    func() *lexicon.Graph // of the catalog
	resolver *lexres.Resolver      // of schemas that it doesn't hold

	names    *cache[string, Actor]    // by DID
	profiles *cache[string, *Profile] // by DID
	audits   *cache[string, *Audit]   // by DID
	wanted   chan string              // DIDs of the tail whose names nobody knows yet

	busy  chan struct{} // a place per page being made
	blobs chan struct{} // a place per blob in memory

	started time.Time
	served  atomic.Int64
	closed  chan struct{}
	close   sync.Once
}

// New returns an explorer. Nothing is asked before Run or the first page.
func New(cfg Config, w world.World) (*Service, error) {
	if cfg.PLCURL == "" {
		cfg.PLCURL = identity.DefaultPLC
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 8 * time.Second
	}
	if cfg.SchemaTimeout == 0 {
		cfg.SchemaTimeout = min(2*time.Second, cfg.Timeout)
	}
	if cfg.Backlog == 0 {
		cfg.Backlog = 2000
	}
	for name, v := range map[string]*string{"relay": &cfg.RelayURL, "links": &cfg.LinksURL, "PLC directory": &cfg.PLCURL} {
		if *v == "" && name == "links" {
			continue
		}
		u, err := url.Parse(*v)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("configuring the explorer: the URL of the %s is %.200q, not one such as https://example.com", name, *v)
		}
		*v = u.Scheme + "://" + u.Host
	}
	if w.Log == nil {
		w.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg: cfg, w: w, log: w.Log.With("service", "explorer"), dir: cfg.Directory,
		names:    newCache[string, Actor](cacheEntries, 10*statusTTL, w.Clock.Now),
		profiles: newCache[string, *Profile](cacheEntries, statusTTL, w.Clock.Now),
		audits:   newCache[string, *Audit](cacheEntries/16, statusTTL, w.Clock.Now),
		wanted:   make(chan string, 64),
		busy:     make(chan struct{}, maxPages),
		blobs:    make(chan struct{}, maxBlobs),
		started:  w.Clock.Now(),
		closed:   make(chan struct{}),
	}
	s.http = w.HTTPClient(netguard.ClientOptions{Timeout: cfg.Timeout, MaxBody: maxAnswer, UserAgent: userAgent, IdleConns: maxConcurrent})
	s.files = w.HTTPClient(netguard.ClientOptions{Timeout: 2 * cfg.Timeout, MaxBody: maxBlob + 1, UserAgent: userAgent, Redirects: 2})
	if s.dir == nil {
		s.dir = identity.New(identity.Options{
			HTTP: w.HTTPClient(netguard.ClientOptions{MaxBody: identity.MaxDocument + 1, Redirects: 3, UserAgent: userAgent}), Resolver: w.Resolver, Now: w.Clock.Now,
			PLC: cfg.PLCURL, AllowLocalhost: cfg.AllowLocalhost,
		})
	}
	s.resolver = newResolver(s, w)
	s.catalog = sync.OnceValue(func() *lexicon.Catalog {
		if cfg.Catalog != nil {
			return cfg.Catalog
		}
		return s.embedded()
	})
	s.graph = sync.OnceValue(func() *lexicon.Graph { return s.catalog().Graph() })
	s.tail = newTail(w.Clock.Now)
	var err error
	if s.pages, err = newPages(s); err != nil {
		return nil, err
	}
	return s, nil
}

// Run follows the relay until ctx ends. Pages can be made before and without it, but then nothing is live.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	var wg sync.WaitGroup
	wg.Go(func() { s.follow(ctx) })
	wg.Go(func() { s.nameWanted(ctx) })
	wg.Wait()
	s.tail.end()
	return nil
}

// Close ends Run and the streams of browsers.
func (s *Service) Close() error {
	s.close.Do(func() { close(s.closed) })
	s.tail.end()
	s.http.CloseIdleConnections()
	s.files.CloseIdleConnections()
	return nil
}

// errBusy says that too many pages are being made.
var errBusy = errors.New("too many requests at the same time")
