package reposync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// fetcher gets repositories: from the upstream, which may send it on to a host, and else from the account's PDS.
type fetcher struct {
	o      *Options
	client *http.Client
	slots  chan struct{} // of all hosts together

	mu    sync.Mutex
	hosts map[string]*host
}

// host bounds what is asked of one host.
type host struct {
	slots   chan struct{}
	waiting int
	notYet  time.Time // after a 429
}

const (
	maxWaiting   = 64 // fetches that wait for one host; more are tried again later
	maxRedirects = 3
	maxPause     = 10 * time.Minute // longest Retry-After that is believed
)

// errBusy says that too many fetches wait for a host already.
type errBusy struct{ after time.Duration }

func (e errBusy) Error() string { return "the host is busy, or asked for patience" }

func newFetcher(o *Options) *fetcher {
	f := &fetcher{o: o, hosts: map[string]*host{}, slots: make(chan struct{}, o.Fetches)}
	c := *o.HTTP
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	f.client = &c
	return f
}

// enter waits for a slot of a host.
func (f *fetcher) enter(ctx context.Context, origin string) (leave func(), err error) {
	f.mu.Lock()
	h := f.hosts[origin]
	if h == nil {
		if len(f.hosts) > 10_000 {
			for k, old := range f.hosts {
				if len(old.slots) == 0 && old.waiting == 0 && f.o.Now().After(old.notYet) {
					delete(f.hosts, k)
				}
			}
		}
		h = &host{slots: make(chan struct{}, f.o.HostFetches)}
		f.hosts[origin] = h
	}
	if wait := h.notYet.Sub(f.o.Now()); wait > 0 {
		f.mu.Unlock()
		return nil, errBusy{wait}
	}
	if h.waiting >= maxWaiting {
		f.mu.Unlock()
		return nil, errBusy{5 * time.Second}
	}
	h.waiting++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		h.waiting--
		f.mu.Unlock()
	}()
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pause notes that a host wants to be left alone. It returns for how long, 0 if err doesn't say so.
func (f *fetcher) pause(origin string, err error) time.Duration {
	var e *xrpc.Error
	if !errors.As(err, &e) || e.Status != http.StatusTooManyRequests && e.Status != http.StatusServiceUnavailable {
		return 0
	}
	wait := retryAfter(e.Header.Get("Retry-After"), f.o.Now())
	if wait == 0 && e.Status != http.StatusTooManyRequests {
		return 0
	}
	wait = min(max(wait, time.Second), maxPause)
	f.mu.Lock()
	if h := f.hosts[origin]; h != nil {
		h.notYet = f.o.Now().Add(wait)
	}
	f.mu.Unlock()
	return wait
}

func retryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(v); err == nil && n >= 0 {
		return time.Duration(min(n, 1<<20)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

func (f *fetcher) at(origin string) *xrpc.Client {
	c := &xrpc.Client{Host: origin, HTTP: f.client}
	if f.o.UserAgent != "" {
		c.Header = http.Header{"User-Agent": {f.o.UserAgent}}
	}
	return c
}

// get asks a host for a repository and follows redirects to others, each with a slot of its own while it answers.
func (f *fetcher) get(ctx context.Context, origin string, did syntax.DID, read func(io.Reader) error) error {
	for range maxRedirects + 1 {
		next, err := f.hop(ctx, origin, did, read)
		if err != nil || next == "" {
			return err
		}
		origin = next
	}
	return errors.New("too many redirects")
}

func (f *fetcher) hop(ctx context.Context, origin string, did syntax.DID, read func(io.Reader) error) (next string, err error) {
	leave, err := f.enter(ctx, origin)
	if err != nil {
		return "", err
	}
	defer leave()
	select { // after the host's own: those who wait for a slow host take no room from others
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, f.o.FetchTimeout)
	defer cancel()
	out, err := comatproto.SyncGetRepo.Call(ctx, f.at(origin), &comatproto.SyncGetRepo_Params{Did: string(did)})
	if err != nil {
		if next, ok := redirected(origin, did, err); ok {
			return next, nil
		}
		if wait := f.pause(origin, err); wait > 0 {
			return "", errors.Join(err, errBusy{wait})
		}
		return "", fmt.Errorf("getting the repository from %s: %w", origin, err)
	}
	defer out.Body.Close()
	if err := read(&capped{r: out.Body, left: f.o.MaxRepo}); err != nil {
		return "", fmt.Errorf("reading the repository from %s: %w", origin, err)
	}
	return "", nil
}

// redirected returns the host that a redirect leads to, if it leads to the same method for the same account.
func redirected(origin string, did syntax.DID, err error) (string, bool) {
	var e *xrpc.Error
	if !errors.As(err, &e) || e.Status < 300 || e.Status > 399 {
		return "", false
	}
	u, uerr := url.Parse(e.Header.Get("Location"))
	if uerr != nil || u.Host == "" || u.User != nil || u.Path != xrpc.Path(comatproto.SyncGetRepo.NSID) ||
		u.Query().Get("did") != string(did) || u.Scheme != "https" && (u.Scheme != "http" || len(origin) > 5 && origin[:5] == "https") {
		return "", false
	}
	next := u.Scheme + "://" + u.Host
	return next, next != origin
}

// capped fails where it has given out all it may.
type capped struct {
	r    io.Reader
	left int64
}

var errTooLarge = errors.New("the repository is too large")

func (c *capped) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLarge
	}
	n, err := c.r.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// hosting returns the status that an error of a host stands for, if it is one of hosting.
func hosting(err error) (string, bool) {
	switch {
	case errors.Is(err, comatproto.ErrRepoDeactivated):
		return stream.StatusDeactivated, true
	case errors.Is(err, comatproto.ErrRepoTakendown):
		return stream.StatusTakendown, true
	case errors.Is(err, comatproto.ErrRepoSuspended):
		return stream.StatusSuspended, true
	}
	return "", false
}

// fetch reads a whole repository, verified, from the upstream or the account's PDS. Read is called for each attempt that got
// as far as a verified commit.
func (f *fetcher) fetch(ctx context.Context, did syntax.DID, direct bool, read func(*repo.Reader) error) error {
	doc, err := f.o.Directory.ResolveDID(ctx, did)
	if err != nil {
		return err
	}
	if doc.SigningKey == nil || doc.PDS == "" {
		if doc, _, err = f.o.Directory.Refresh(ctx, did); err != nil {
			return err
		}
	}
	open := func(body io.Reader) error {
		switch {
		case doc.SigningKey == nil:
			return errNoKey
		case doc.PDS == "":
			return errNoPDS
		}
		r, err := repo.Open(body, repo.ReadOptions{Key: doc.SigningKey, DID: did, Now: f.o.Now(), MaxBuffer: 64 << 20})
		if err != nil {
			return err
		}
		return read(r)
	}
	attempt := func(origin string) error {
		err := f.get(ctx, origin, did, open)
		if reason(err) != repo.ReasonSignature {
			return err
		}
		fresh, _, rerr := f.o.Directory.Refresh(ctx, did)
		if rerr != nil || fresh.SigningKey == nil || fresh.SigningKey.DIDKey() == doc.SigningKey.DIDKey() {
			return err
		}
		doc = fresh
		return f.get(ctx, origin, did, open)
	}
	if !direct && f.o.Upstream != doc.PDS {
		err = attempt(f.o.Upstream)
		var busy errBusy
		var gone *stoppedError
		if err == nil || errors.As(err, &gone) || errors.As(err, &busy) || ctx.Err() != nil {
			return err
		}
		if _, ok := hosting(err); ok {
			return err // hosting is for the upstream to say
		}
	}
	if doc.PDS == "" {
		return errors.Join(err, errNoPDS)
	}
	return attempt(doc.PDS)
}

// permanent says that trying again soon is of no use.
func permanent(err error) bool { return identity.KindOf(err) == identity.KindNotFound }
