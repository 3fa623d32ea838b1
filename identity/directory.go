package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/barograph/baro/identity/internal/cache"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// Resolver asks DNS for TXT records. *net.Resolver is one. A name without records is a *net.DNSError with IsNotFound.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

var _ Resolver = (*net.Resolver)(nil)

// Options tune a [Directory]. The zero value is one for the public network.
type Options struct {
	// HTTP makes the requests; its CheckRedirect is asked too. nil: a client of [Guarded], which connects to no private
	// address but those of Allow and the PLC directory's.
	HTTP     *http.Client
	Allow    []string         // host:port pairs for the client that stands in for a nil HTTP
	Resolver Resolver         // nil: the system's
	Now      func() time.Time // nil: the system's clock

	PLC string // base URL of the PLC directory; default DefaultPLC
	// AllowLocalhost permits did:web:localhost, with or without a port, over plain HTTP: for local networks.
	AllowLocalhost bool

	TTL          time.Duration // an answer is good for this long, give or take a tenth; default 1 h
	NegativeTTL  time.Duration // an error is remembered for this long; default 1 min
	StaleIfError time.Duration // an old answer serves so much longer when asking fails; default 24 h; < 0: never
	MinRefresh   time.Duration // least time between two fetches for one DID by Refresh; default 1 min
	Timeout      time.Duration // of one lookup, slow bodies included; default 10 s
	CacheBytes   int           // bound of the cache; default 64 MiB

	PLCRate  rate.Limit // lookups per second at the PLC directory, with a burst of twice that; default 200
	HostRate rate.Limit // lookups per second at one domain (last two labels), burst four times that; default 20
}

// Directory resolves and caches. It is safe for concurrent use.
type Directory struct {
	o       Options
	http    *http.Client
	docs    *cache.Cache[*Document]
	handles *cache.Cache[syntax.DID]
	plc     *rate.Limiter
	hosts   limiters
}

// New returns a directory.
func New(o Options) *Directory {
	if o.HTTP == nil {
		allow := o.Allow
		if o.PLC != "" && o.PLC != DefaultPLC {
			allow = append(slices.Clip(allow), hostPort(o.PLC)) // whoever chose it may run it
		}
		o.HTTP = Guarded(allow...)
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	def(&o.PLC, DefaultPLC)
	def(&o.TTL, time.Hour)
	def(&o.NegativeTTL, time.Minute)
	def(&o.StaleIfError, 24*time.Hour)
	def(&o.MinRefresh, time.Minute)
	def(&o.Timeout, 10*time.Second)
	def(&o.CacheBytes, 64<<20)
	def(&o.PLCRate, 200)
	def(&o.HostRate, 20)
	o.PLC = strings.TrimRight(o.PLC, "/")
	d := &Directory{o: o, plc: rate.NewLimiter(o.PLCRate, max(1, int(o.PLCRate*2)))}
	d.hosts = limiters{rate: o.HostRate, m: make(map[string]*rate.Limiter)}
	client := *o.HTTP
	client.CheckRedirect = d.redirect
	client.Jar = nil
	d.http = &client
	d.docs = newCache(o, func(d *Document) int { return 3 * len(d.Raw) })
	d.handles = newCache(o, func(d syntax.DID) int { return len(d) })
	return d
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func newCache[V any](o Options, cost func(V) int) *cache.Cache[V] {
	return cache.New(cache.Options[V]{
		Now: o.Now, TTL: o.TTL, Negative: o.NegativeTTL, Stale: o.StaleIfError, MaxCost: o.CacheBytes / 2, Cost: cost,
		Transient: func(err error) bool { return KindOf(err) == KindUnreachable },
		Forget:    func(err error) bool { return KindOf(err) == KindLimited },
	})
}

// Lookup resolves a handle or a DID: see [Directory.LookupHandle] and [Directory.LookupDID].
func (d *Directory) Lookup(ctx context.Context, id syntax.AtIdentifier) (*Identity, error) {
	if id.IsDID() {
		return d.LookupDID(ctx, syntax.DID(id))
	}
	return d.LookupHandle(ctx, syntax.Handle(id))
}

// LookupHandle resolves a handle to its DID and the DID to its document, which must claim the handle.
func (d *Directory) LookupHandle(ctx context.Context, h syntax.Handle) (*Identity, error) {
	led := d.handle(ctx, h)
	if led.Err != nil {
		return nil, led.Err
	}
	a := d.document(ctx, led.Value, -1)
	if a.Err != nil {
		return nil, a.Err
	}
	if a.Value.Claimed != h.Normalize() {
		err := fmt.Errorf("the document of %s claims %q", led.Value, a.Value.Claimed)
		return nil, &Error{"looking up", string(h), KindHandleMismatch, err}
	}
	id := d.identity(a)
	id.confirm(h, led)
	return id, nil
}

// identity is what a document alone gives.
func (d *Directory) identity(a cache.Answer[*Document]) *Identity {
	return &Identity{Document: a.Value, Handle: syntax.InvalidHandle, Fetched: a.At, Age: max(0, d.o.Now().Sub(a.At)), Stale: a.Stale}
}

// confirm notes that the handle leads back, and how old that knowledge is.
func (id *Identity) confirm(h syntax.Handle, led cache.Answer[syntax.DID]) {
	id.Handle = h.Normalize()
	id.Stale = id.Stale || led.Stale
	if older := id.Fetched.Sub(led.At); older > 0 {
		id.Fetched = led.At
		id.Age += older
	}
}

// LookupDID resolves a DID to its document and the document's handle back to the DID. If that fails, the identity has
// the handle [syntax.InvalidHandle], which is no error.
func (d *Directory) LookupDID(ctx context.Context, did syntax.DID) (*Identity, error) {
	a := d.document(ctx, did, -1)
	if a.Err != nil {
		return nil, a.Err
	}
	id := d.identity(a)
	h := a.Value.Claimed
	if h == "" {
		id.HandleErr = &Error{"looking up", string(did), KindNotFound, errors.New("the document claims no handle")}
		return id, nil
	}
	back := d.handle(ctx, h)
	switch {
	case back.Err == nil && back.Value == did:
		id.confirm(h, back)
	case back.Err == nil:
		id.HandleErr = &Error{"looking up", string(did), KindHandleMismatch, fmt.Errorf("its handle %s leads to %s", h, back.Value)}
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		id.HandleErr = back.Err
	}
	return id, nil
}

// ResolveHandle returns the DID that a handle leads to. Whether the DID's document claims the handle is not checked:
// [Directory.LookupHandle] does that.
func (d *Directory) ResolveHandle(ctx context.Context, h syntax.Handle) (syntax.DID, error) {
	a := d.handle(ctx, h)
	return a.Value, a.Err
}

func (d *Directory) handle(ctx context.Context, h syntax.Handle) cache.Answer[syntax.DID] {
	h = h.Normalize()
	if _, err := syntax.ParseHandle(string(h)); err != nil {
		return cache.Answer[syntax.DID]{Err: &Error{"resolving handle", string(h), KindMalformed, err}}
	}
	if h.Reserved() {
		err := errors.New("no name under this top-level domain resolves")
		return cache.Answer[syntax.DID]{Err: &Error{"resolving handle", string(h), KindNotFound, err}}
	}
	return d.handles.Get(ctx, string(h), -1, func(ctx context.Context) (syntax.DID, error) { return d.fetchHandle(ctx, h) })
}

// ResolveDID returns the document of a DID, and leaves handles alone.
func (d *Directory) ResolveDID(ctx context.Context, did syntax.DID) (*Document, error) {
	a := d.document(ctx, did, -1)
	return a.Value, a.Err
}

// ResolvePDS returns the origin of an account's PDS, such as "https://pds.example". A document that names none is a
// [KindNotFound].
func (d *Directory) ResolvePDS(ctx context.Context, did syntax.DID) (string, error) {
	a := d.document(ctx, did, -1)
	if a.Err != nil {
		return "", a.Err
	}
	if a.Value.PDS == "" {
		return "", &Error{"resolving DID", string(did), KindNotFound, errors.New("the document names no PDS")}
	}
	return a.Value.PDS, nil
}

// Refresh fetches the document of a DID again, unless that was done less than MinRefresh ago: then it returns what is
// known and fresh is false. It is for a signature that doesn't verify: the key may have changed since.
func (d *Directory) Refresh(ctx context.Context, did syntax.DID) (doc *Document, fresh bool, err error) {
	a := d.document(ctx, did, d.o.MinRefresh)
	return a.Value, a.Err == nil && a.Asked, a.Err
}

// Key returns the key of a fragment such as "#atproto" in the document of a DID, nil if there is no valid one. If fresh is
// set, the document is fetched again, as by Refresh. It is what package auth checks tokens between services with.
func (d *Directory) Key(ctx context.Context, did syntax.DID, fragment string, fresh bool) (*keys.PublicKey, error) {
	minAge := time.Duration(-1)
	if fresh {
		minAge = d.o.MinRefresh
	}
	a := d.document(ctx, did, minAge)
	if a.Err != nil {
		return nil, a.Err
	}
	switch doc := a.Value; fragment { // those two are parsed already
	case FragmentKey:
		return doc.SigningKey, nil
	case FragmentLabel:
		return doc.LabelKey, nil
	default:
		return doc.Key(fragment), nil
	}
}

// Purge forgets the document of a DID and the handle it claims. It is for #identity events.
func (d *Directory) Purge(did syntax.DID) {
	if doc, ok := d.docs.Purge(string(did)); ok && doc.Claimed != "" {
		d.handles.Purge(string(doc.Claimed))
	}
}

// Close gives back the connections that the directory keeps for later. It may still be used.
func (d *Directory) Close() { d.http.CloseIdleConnections() }

// PurgeHandle forgets where a handle leads.
func (d *Directory) PurgeHandle(h syntax.Handle) { d.handles.Purge(string(h.Normalize())) }

func (d *Directory) document(ctx context.Context, did syntax.DID, minAge time.Duration) cache.Answer[*Document] {
	// What needs no network needs no cache.
	url, host, err := d.documentURL(did)
	if err != nil {
		return cache.Answer[*Document]{Err: err}
	}
	return d.docs.Get(ctx, string(did), minAge, func(ctx context.Context) (*Document, error) {
		return d.fetchDocument(ctx, did, url, host)
	})
}

func (d *Directory) documentURL(did syntax.DID) (url, host string, err error) {
	fail := func(k Kind, why string) (string, string, error) {
		return "", "", &Error{"resolving DID", string(did), k, errors.New(why)}
	}
	if !syntax.ValidDID(did) {
		return fail(KindMalformed, "not a DID")
	}
	switch did.Method() {
	case "plc":
		if !did.IsPLC() {
			return fail(KindMalformed, "not a did:plc")
		}
		return d.o.PLC + "/" + string(did), "", nil
	case "web":
		host, ok := did.Host()
		if !ok {
			return fail(KindUnsupported, "did:web must be a host name, with a port only for localhost")
		}
		if host == "localhost" || strings.HasPrefix(host, "localhost:") {
			if !d.o.AllowLocalhost {
				return fail(KindUnsupported, "did:web on localhost is for development")
			}
			return "http://" + host + "/.well-known/did.json", host, nil
		}
		host = strings.ToLower(host)
		if syntax.Handle(host).Reserved() {
			return fail(KindNotFound, "no name under this top-level domain resolves")
		}
		return "https://" + host + "/.well-known/did.json", host, nil
	}
	return fail(KindUnsupported, "only plc and web are supported")
}

func (d *Directory) fetchDocument(ctx context.Context, did syntax.DID, url, host string) (*Document, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Timeout)
	defer cancel()
	fail := func(k Kind, err error) error { return &Error{"resolving DID", string(did), k, err} }
	limiter := d.plc
	if host != "" {
		limiter = d.hosts.get(zone(host))
	}
	if err := limiter.Wait(ctx); err != nil {
		return nil, fail(KindLimited, err)
	}
	body, kind, err := d.fetch(ctx, url, MaxDocument, "application/did+ld+json, application/json")
	if err != nil {
		return nil, fail(kind, err)
	}
	doc, err := ParseDocument(did, body)
	if err != nil {
		return nil, fail(KindMalformed, err)
	}
	return doc, nil
}

// fetch gets a small body. The context bounds the time for all of it.
func (d *Directory) fetch(ctx context.Context, url string, limit int64, accept string) ([]byte, Kind, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, KindMalformed, err
	}
	r.Header.Set("Accept", accept)
	resp, err := d.http.Do(r)
	if err != nil {
		return nil, KindUnreachable, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout || resp.StatusCode >= 500:
		return nil, KindUnreachable, fmt.Errorf("status %d", resp.StatusCode)
	default:
		return nil, KindNotFound, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil {
		err = ctx.Err() // a server that sees us leave may end the body as if that were all
	}
	if err != nil {
		return nil, KindUnreachable, fmt.Errorf("reading the answer: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, KindMalformed, fmt.Errorf("an answer of more than %d bytes", limit)
	}
	return body, "", nil
}

// redirect permits a few hops that don't leave HTTPS, and asks the given client's own rule.
func (d *Directory) redirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	if r.URL.Scheme != "https" && via[0].URL.Scheme == "https" {
		return errors.New("redirect away from https")
	}
	if d.o.HTTP.CheckRedirect != nil {
		return d.o.HTTP.CheckRedirect(r, via)
	}
	return nil
}

// fetchHandle asks DNS and HTTPS at once. A DID from DNS counts, whatever HTTPS says.
func (d *Directory) fetchHandle(ctx context.Context, h syntax.Handle) (syntax.DID, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Timeout)
	defer cancel()
	if err := d.hosts.get(zone(string(h))).Wait(ctx); err != nil {
		return "", &Error{"resolving handle", string(h), KindLimited, err}
	}
	type result struct {
		did  syntax.DID
		kind Kind
		err  error
	}
	var web result
	var wg sync.WaitGroup
	wctx, stop := context.WithCancel(ctx)
	wg.Go(func() { web.did, web.kind, web.err = d.handleHTTPS(wctx, h) })
	var dns result
	dns.did, dns.kind, dns.err = d.handleDNS(ctx, h)
	if dns.err == nil || dns.kind == KindAmbiguous {
		stop() // HTTPS can't change it any more
	}
	wg.Wait()
	stop()
	switch {
	case dns.err == nil:
		return dns.did, nil
	case dns.kind == KindAmbiguous:
		return "", &Error{"resolving handle", string(h), KindAmbiguous, dns.err}
	case web.err == nil:
		return web.did, nil
	}
	// Something that may pass weighs more than an absence: the other way may be the one that counts.
	kind := web.kind
	if dns.kind == KindUnreachable {
		kind = KindUnreachable
	}
	return "", &Error{"resolving handle", string(h), kind, fmt.Errorf("DNS: %w; HTTPS: %w", dns.err, web.err)}
}

const maxName = 253

func (d *Directory) handleDNS(ctx context.Context, h syntax.Handle) (syntax.DID, Kind, error) {
	name := "_atproto." + string(h)
	if len(name) > maxName {
		return "", KindNotFound, errors.New("the name is too long")
	}
	txt, err := d.o.Resolver.LookupTXT(ctx, name)
	if err != nil {
		var e *net.DNSError
		if errors.As(err, &e) && e.IsNotFound {
			return "", KindNotFound, errors.New("no TXT record")
		}
		return "", KindUnreachable, err
	}
	var found syntax.DID
	for _, t := range txt {
		v, ok := strings.CutPrefix(t, "did=")
		if !ok {
			continue
		}
		did, err := syntax.ParseDID(v)
		if err != nil {
			continue
		}
		if found != "" && found != did {
			return "", KindAmbiguous, fmt.Errorf("TXT records for %s and %s", found, did)
		}
		found = did
	}
	if found == "" {
		return "", KindNotFound, errors.New("no TXT record with a DID")
	}
	return found, "", nil
}

func (d *Directory) handleHTTPS(ctx context.Context, h syntax.Handle) (syntax.DID, Kind, error) {
	body, kind, err := d.fetch(ctx, "https://"+string(h)+"/.well-known/atproto-did", MaxHandleBody, "text/plain")
	if err != nil {
		var e *net.DNSError
		if errors.As(err, &e) && e.IsNotFound {
			kind = KindNotFound // no such host
		}
		return "", kind, err
	}
	did, err := syntax.ParseDID(string(bytes.TrimSpace(body)))
	if err != nil {
		return "", KindMalformed, errors.New("the answer is not a DID") // its text is somebody else's: not repeated
	}
	return did, "", nil
}

// limiters holds a rate limiter for each domain that was asked lately.
type limiters struct {
	rate rate.Limit
	mu   sync.Mutex
	m    map[string]*rate.Limiter
}

const maxLimiters = 8192

func (l *limiters) get(zone string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.m[zone]
	if !ok {
		if len(l.m) >= maxLimiters {
			for k, r := range l.m { // those that are full again have nothing to remember
				if r.Tokens() >= float64(r.Burst()) || len(l.m) >= 2*maxLimiters {
					delete(l.m, k)
				}
			}
		}
		r = rate.NewLimiter(l.rate, max(1, int(l.rate*4)))
		l.m[zone] = r
	}
	return r
}

// zone returns the last two labels of a host name, without a port.
func zone(host string) string {
	host, _, _ = strings.Cut(host, ":")
	if i := strings.LastIndexByte(host, '.'); i > 0 {
		if j := strings.LastIndexByte(host[:i], '.'); j >= 0 {
			return host[j+1:]
		}
	}
	return host
}
