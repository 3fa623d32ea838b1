package identity_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

const (
	alice = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	bob   = syntax.DID("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")
	key   = "zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"
)

// world is a fake network: DNS by a map, and every HTTPS host and the PLC directory by one server.
type world struct {
	mu       sync.Mutex
	txt      map[string][]string
	dnsErr   error
	pages    map[string]http.HandlerFunc // "host/path"
	requests map[string]int
	dns      atomic.Int64
	now      time.Time

	dir *identity.Directory
	url string
}

func newWorld(t testing.TB, change func(*identity.Options)) *world {
	w := &world{txt: map[string][]string{}, pages: map[string]http.HandlerFunc{}, requests: map[string]int{}, now: time.Unix(1e9, 0)}
	s := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		host, _, _ := strings.Cut(r.Host, ":")
		page := w.pages[host+r.URL.Path]
		w.requests[host+r.URL.Path]++
		w.mu.Unlock()
		if page == nil {
			http.NotFound(rw, r)
			return
		}
		page(rw, r)
	}))
	t.Cleanup(s.Close)
	o := identity.Options{
		HTTP: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
			},
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}},
		Resolver: w, Now: w.Now, PLC: "https://plc.test/",
	}
	if change != nil {
		change(&o)
	}
	w.dir = identity.New(o)
	return w
}

func (w *world) Now() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

func (w *world) advance(d time.Duration) { w.mu.Lock(); defer w.mu.Unlock(); w.now = w.now.Add(d) }

func (w *world) LookupTXT(ctx context.Context, name string) ([]string, error) {
	w.dns.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dnsErr != nil {
		return nil, w.dnsErr
	}
	if v, ok := w.txt[name]; ok {
		return v, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (w *world) page(where string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pages[where] = h
}

func (w *world) text(where, body string) {
	w.page(where, func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, body) })
}

func (w *world) count(where string) int { w.mu.Lock(); defer w.mu.Unlock(); return w.requests[where] }

func document(did syntax.DID, aka ...string) string {
	b, err := json.Marshal(map[string]any{
		"id": did, "alsoKnownAs": aka,
		"verificationMethod": []any{map[string]any{"id": did + "#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": key}},
		"service":            []any{map[string]any{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.test"}},
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (w *world) account(did syntax.DID, handle string) {
	w.text("plc.test/"+string(did), document(did, "at://"+handle))
	w.mu.Lock()
	w.txt["_atproto."+handle] = []string{"v=spf1", "did=" + string(did)}
	w.mu.Unlock()
}

func TestLookup(t *testing.T) {
	w := newWorld(t, nil)
	w.account(alice, "alice.test")
	for _, who := range []syntax.AtIdentifier{"alice.test", "Alice.TEST", syntax.AtIdentifier(alice)} {
		id, err := w.dir.Lookup(t.Context(), who)
		if err != nil {
			t.Fatal(err)
		}
		if id.DID != alice || id.Handle != "alice.test" || id.PDS != "https://pds.test" || id.SigningKey.Multikey() != key || id.HandleErr != nil || id.Stale {
			t.Errorf("%s: %+v", who, id)
		}
	}
	if n := w.count("plc.test/" + string(alice)); n != 1 {
		t.Errorf("%d requests for three lookups", n)
	}
	if n := w.dns.Load(); n != 1 {
		t.Errorf("%d DNS lookups", n)
	}
}

func TestResolveHandle(t *testing.T) {
	long := syntax.Handle(strings.Repeat("a.", 124) + "test") // 252 bytes: no room for _atproto.
	for name, tc := range map[string]struct {
		handle syntax.Handle
		txt    []string
		dnsErr error
		web    string
		status int
		want   syntax.DID
		kind   identity.Kind
	}{
		"dns":                {txt: []string{"did=" + string(alice)}, want: alice},
		"dns twice the same": {txt: []string{"did=" + string(alice), "did=" + string(alice)}, want: alice},
		"dns among others":   {txt: []string{"x", "did=junk", "did=" + string(alice)}, want: alice},
		"dns two":            {txt: []string{"did=" + string(alice), "did=" + string(bob)}, web: string(alice), kind: identity.KindAmbiguous},
		"web":                {web: " \r\n" + string(alice) + "\n\n", want: alice},
		"conflict":           {txt: []string{"did=" + string(alice)}, web: string(bob), want: alice},
		"dns down, web up":   {dnsErr: errors.New("SERVFAIL"), web: string(bob), want: bob},
		"dns down":           {dnsErr: errors.New("SERVFAIL"), kind: identity.KindUnreachable},
		"dns junk, web":      {txt: []string{"did=junk"}, web: string(bob), want: bob},
		"nothing":            {kind: identity.KindNotFound},
		"web junk":           {web: "<html>", kind: identity.KindMalformed},
		"web prefix":         {web: "did=" + string(alice), kind: identity.KindMalformed},
		"web huge":           {web: string(alice) + strings.Repeat(" ", 1<<20), kind: identity.KindMalformed},
		"web 500":            {web: string(alice), status: 500, kind: identity.KindUnreachable},
		"web 429":            {web: string(alice), status: 429, kind: identity.KindUnreachable},
		"web 404":            {web: string(alice), status: 404, kind: identity.KindNotFound},
		"long name":          {handle: long, web: string(alice), want: alice},
		"reserved":           {handle: "a.local", web: string(alice), kind: identity.KindNotFound},
		"invalid":            {handle: "handle.invalid", web: string(alice), kind: identity.KindNotFound},
		"not a handle":       {handle: "alice", kind: identity.KindMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			h := tc.handle
			if h == "" {
				h = "a.test"
			}
			if tc.txt != nil {
				w.txt["_atproto."+string(h)] = tc.txt
			}
			w.dnsErr = tc.dnsErr
			if tc.web != "" {
				w.page(string(h)+"/.well-known/atproto-did", func(rw http.ResponseWriter, _ *http.Request) {
					if tc.status != 0 {
						rw.WriteHeader(tc.status)
					}
					fmt.Fprint(rw, tc.web)
				})
			}
			did, err := w.dir.ResolveHandle(t.Context(), h)
			if did != tc.want || identity.KindOf(err) != tc.kind {
				t.Errorf("%s, %v; want %s, %s", did, err, tc.want, tc.kind)
			}
		})
	}
}

func TestRedirects(t *testing.T) {
	w := newWorld(t, func(o *identity.Options) {
		o.HTTP.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
			if r.URL.Hostname() == "forbidden.test" {
				return errors.New("guarded")
			}
			return nil
		}
	})
	to := func(url string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, url, http.StatusFound) }
	}
	const path = "/.well-known/atproto-did"
	w.page("one.test"+path, to("https://two.test"+path))
	w.text("two.test"+path, string(alice))
	w.page("loop.test"+path, to("https://loop.test"+path))
	w.page("down.test"+path, to("http://two.test"+path))
	w.page("guard.test"+path, to("https://forbidden.test"+path))
	w.text("forbidden.test"+path, string(alice))
	if did, err := w.dir.ResolveHandle(t.Context(), "one.test"); did != alice {
		t.Error(err)
	}
	for _, h := range []syntax.Handle{"loop.test", "down.test", "guard.test"} {
		if did, err := w.dir.ResolveHandle(t.Context(), h); err == nil {
			t.Errorf("%s: %s", h, did)
		}
	}
	if n := w.count("loop.test" + path); n > 5 {
		t.Errorf("%d requests in a loop", n)
	}
	if n := w.count("forbidden.test" + path); n != 0 {
		t.Errorf("%d requests where the client's own rule forbids it", n)
	}
}

func TestResolveDID(t *testing.T) {
	for name, tc := range map[string]struct {
		did    syntax.DID
		where  string
		body   string
		status int
		kind   identity.Kind
	}{
		"plc":           {did: alice, where: "plc.test/" + string(alice), body: document(alice)},
		"web":           {did: "did:web:a.test", where: "a.test/.well-known/did.json", body: document("did:web:a.test")},
		"web upper":     {did: "did:web:A.test", where: "a.test/.well-known/did.json", body: document("did:web:A.test")},
		"unknown":       {did: bob, kind: identity.KindNotFound},
		"tombstone":     {did: alice, where: "plc.test/" + string(alice), body: "{}", status: 410, kind: identity.KindNotFound},
		"server error":  {did: alice, where: "plc.test/" + string(alice), body: "{}", status: 502, kind: identity.KindUnreachable},
		"another's":     {did: alice, where: "plc.test/" + string(alice), body: document(bob), kind: identity.KindMalformed},
		"no id":         {did: alice, where: "plc.test/" + string(alice), body: "{}", kind: identity.KindMalformed},
		"no JSON":       {did: alice, where: "plc.test/" + string(alice), body: "<html>", kind: identity.KindMalformed},
		"huge":          {did: alice, where: "plc.test/" + string(alice), body: document(alice, strings.Repeat("x", 65<<10)), kind: identity.KindMalformed},
		"short plc":     {did: "did:plc:abc", kind: identity.KindMalformed},
		"method":        {did: "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF", kind: identity.KindUnsupported},
		"web path":      {did: "did:web:a.test:user", kind: identity.KindUnsupported},
		"web port":      {did: "did:web:a.test%3A8443", kind: identity.KindUnsupported},
		"web localhost": {did: "did:web:localhost%3A2583", kind: identity.KindUnsupported},
		"web IP":        {did: "did:web:127.0.0.1", kind: identity.KindUnsupported},
		"web reserved":  {did: "did:web:a.internal", kind: identity.KindNotFound},
		"web escape":    {did: "did:web:a.test%2Fx", kind: identity.KindUnsupported},
		"not a DID":     {did: "alice", kind: identity.KindMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			if tc.where != "" {
				w.page(tc.where, func(rw http.ResponseWriter, _ *http.Request) {
					if tc.status != 0 {
						rw.WriteHeader(tc.status)
					}
					fmt.Fprint(rw, tc.body)
				})
			}
			doc, err := w.dir.ResolveDID(t.Context(), tc.did)
			if identity.KindOf(err) != tc.kind || tc.kind == "" && (err != nil || doc.DID != tc.did || doc.SigningKey == nil) {
				t.Errorf("%+v, %v", doc, err)
			}
			var e *identity.Error
			if tc.kind != "" && (!errors.As(err, &e) || e.Subject != string(tc.did)) {
				t.Errorf("error %#v", err)
			}
		})
	}
}

func TestLocalhost(t *testing.T) {
	var did syntax.DID
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, document(did)) }))
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	did = syntax.DID("did:web:localhost%3A" + port)
	d := identity.New(identity.Options{
		HTTP: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
		}}},
		Resolver: &world{}, Now: time.Now, AllowLocalhost: true,
	})
	if doc, err := d.ResolveDID(t.Context(), did); err != nil || doc.PDS != "https://pds.test" {
		t.Error(err)
	}
}

func TestBidirectional(t *testing.T) {
	w := newWorld(t, nil)
	w.account(alice, "alice.test")
	// The handle mallory.test leads to alice, who doesn't know it.
	w.txt["_atproto.mallory.test"] = []string{"did=" + string(alice)}
	if _, err := w.dir.Lookup(t.Context(), "mallory.test"); identity.KindOf(err) != identity.KindHandleMismatch {
		t.Error(err)
	}
	// bob claims alice's handle.
	w.text("plc.test/"+string(bob), document(bob, "at://alice.test"))
	id, err := w.dir.LookupDID(t.Context(), bob)
	if err != nil || id.Handle != syntax.InvalidHandle || id.Claimed != "alice.test" || identity.KindOf(id.HandleErr) != identity.KindHandleMismatch {
		t.Errorf("%+v, %v", id, err)
	}
	// A handle that leads nowhere, and none at all.
	carol := syntax.DID("did:web:carol.test")
	for body, kind := range map[string]identity.Kind{document(carol, "at://gone.test"): identity.KindNotFound, document(carol): identity.KindNotFound} {
		w.text("carol.test/.well-known/did.json", body)
		w.dir.Purge(carol)
		id, err := w.dir.LookupDID(t.Context(), carol)
		if err != nil || id.Handle != syntax.InvalidHandle || identity.KindOf(id.HandleErr) != kind {
			t.Errorf("%+v, %v", id, err)
		}
	}
	// The second alias doesn't count, even if it is true.
	w.text("plc.test/"+string(bob), document(bob, "at://first.test", "at://bob.test"))
	w.txt["_atproto.bob.test"] = []string{"did=" + string(bob)}
	w.dir.Purge(bob)
	if _, err := w.dir.Lookup(t.Context(), "bob.test"); identity.KindOf(err) != identity.KindHandleMismatch {
		t.Error(err)
	}
}

func TestCache(t *testing.T) {
	w := newWorld(t, nil)
	where := "plc.test/" + string(alice)
	resolve := func() (*identity.Document, error) { return w.dir.ResolveDID(t.Context(), alice) }
	expect := func(step string, n int, pds string, kind identity.Kind) {
		t.Helper()
		doc, err := resolve()
		if identity.KindOf(err) != kind || kind == "" && doc.PDS != pds {
			t.Errorf("%s: %v, %v", step, doc, err)
		}
		if got := w.count(where); got != n {
			t.Errorf("%s: %d requests, want %d", step, got, n)
		}
	}
	expect("unknown", 1, "", identity.KindNotFound)
	w.text(where, document(alice))
	expect("negative entry", 1, "", identity.KindNotFound)
	w.advance(2 * time.Minute)
	expect("negative entry over", 2, "https://pds.test", "")
	w.advance(30 * time.Minute)
	expect("in time", 2, "https://pds.test", "")
	w.page(where, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
	w.advance(time.Hour)
	expect("stale", 3, "https://pds.test", "")
	if id, err := w.dir.LookupDID(t.Context(), alice); err != nil || !id.Stale {
		t.Errorf("%+v %v", id, err)
	}
	expect("stale, not asked again at once", 3, "https://pds.test", "")
	w.advance(2 * time.Minute)
	expect("stale, asked again", 4, "https://pds.test", "")
	w.advance(48 * time.Hour)
	expect("too old", 5, "", identity.KindUnreachable)
	w.text(where, document(alice))
	w.advance(2 * time.Minute)
	expect("back", 6, "https://pds.test", "")

	// Gone is gone: a stale answer would be wrong.
	w.page(where, http.NotFound)
	w.advance(2 * time.Hour)
	expect("gone", 7, "", identity.KindNotFound)
	w.text(where, strings.Replace(document(alice), "pds.test", "new.test", 1))
	expect("gone, remembered", 7, "", identity.KindNotFound)
	w.dir.Purge(alice)
	expect("purged", 8, "https://new.test", "")

	// After a purge an old answer must not come back, even if the new one can't be had.
	w.page(where, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
	w.dir.Purge(alice)
	expect("purged and down", 9, "", identity.KindUnreachable)
}

func TestRefresh(t *testing.T) {
	w := newWorld(t, nil)
	where := "plc.test/" + string(alice)
	w.text(where, document(alice))
	step := func(name string, requests int, fresh bool) {
		t.Helper()
		doc, got, err := w.dir.Refresh(t.Context(), alice)
		if err != nil || doc == nil || got != fresh || w.count(where) != requests {
			t.Errorf("%s: fresh %v, %d requests, %v", name, got, w.count(where), err)
		}
	}
	step("first", 1, true)
	step("at once", 1, false)
	w.advance(2 * time.Minute)
	step("later", 2, true)
	step("and at once", 2, false)
	w.page(where, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
	w.advance(2 * time.Minute)
	step("down", 3, false)
	step("down, not asked again", 3, false)
}

func TestKey(t *testing.T) {
	w := newWorld(t, nil)
	where := "plc.test/" + string(alice)
	w.text(where, document(alice))
	for _, x := range []struct {
		fragment  string
		wait      time.Duration
		fresh     bool
		want      bool
		documents int
	}{{"#atproto", 0, false, true, 1}, {"#atproto", 0, false, true, 1}, {"#atproto", 0, true, true, 1}, {"#atproto", 2 * time.Minute, true, true, 2}, {"#atproto_label", 0, false, false, 2}} {
		w.advance(x.wait)
		k, err := w.dir.Key(t.Context(), alice, x.fragment, x.fresh)
		if err != nil || (k != nil) != x.want || w.count(where) != x.documents {
			t.Errorf("%+v: %v, %v after %d requests", x, k, err, w.count(where))
		}
	}
	if _, err := w.dir.Key(t.Context(), bob, "#atproto", false); identity.KindOf(err) != identity.KindNotFound {
		t.Error(err)
	}
}

func TestSingleFlight(t *testing.T) {
	w := newWorld(t, nil)
	where := "plc.test/" + string(alice)
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	w.page(where, func(rw http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		fmt.Fprint(rw, document(alice))
	})
	var wg sync.WaitGroup
	first, leave := context.WithCancel(t.Context())
	wg.Go(func() {
		if _, err := w.dir.ResolveDID(first, alice); !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
	})
	<-arrived
	for range 50 {
		wg.Go(func() {
			if _, err := w.dir.ResolveDID(t.Context(), alice); err != nil {
				t.Error(err)
			}
		})
	}
	// The first leaves; whoever has joined by then goes on. Those that come later are one flight or an entry.
	leave()
	close(release)
	wg.Wait()
	if n := w.count(where); n > 2 {
		t.Errorf("%d requests for 51 callers", n)
	}
	// A purge while a fetch is under way: its answer is not kept.
	w.dir.Purge(alice)
	release = make(chan struct{})
	n := w.count(where)
	for len(arrived) > 0 {
		<-arrived
	}
	wg.Go(func() { _, _ = w.dir.ResolveDID(t.Context(), alice) })
	<-arrived
	w.dir.Purge(alice)
	close(release)
	wg.Wait()
	if _, err := w.dir.ResolveDID(t.Context(), alice); err != nil || w.count(where) != n+2 {
		t.Errorf("%d requests, %v", w.count(where)-n, err)
	}
}

func TestSlowBody(t *testing.T) {
	w := newWorld(t, func(o *identity.Options) { o.Timeout = 50 * time.Millisecond })
	where := "plc.test/" + string(alice)
	w.page(where, func(rw http.ResponseWriter, r *http.Request) {
		for _, c := range document(alice) {
			fmt.Fprintf(rw, "%c", c)
			rw.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	if _, err := w.dir.ResolveDID(t.Context(), alice); identity.KindOf(err) != identity.KindUnreachable {
		t.Error(err)
	}
	if _, err := w.dir.ResolveDID(t.Context(), alice); identity.KindOf(err) != identity.KindUnreachable || w.count(where) != 1 {
		t.Errorf("%v after %d requests", err, w.count(where))
	}
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t, func(o *identity.Options) { o.HostRate, o.Timeout = 0.5, 100*time.Millisecond })
	limited := 0
	for i := range 10 {
		_, err := w.dir.ResolveHandle(t.Context(), syntax.Handle(fmt.Sprintf("h%d.flood.test", i)))
		if identity.KindOf(err) == identity.KindLimited {
			limited++
		}
	}
	if limited != 8 {
		t.Errorf("%d of 10 lookups at one domain were limited, want 8", limited)
	}
	if _, err := w.dir.ResolveHandle(t.Context(), "a.calm.test"); identity.KindOf(err) != identity.KindNotFound {
		t.Error(err)
	}
}

func TestCacheBound(t *testing.T) {
	w := newWorld(t, func(o *identity.Options) { o.CacheBytes, o.HostRate = 20_000, 1e6 })
	for i := range 200 {
		_, _ = w.dir.ResolveHandle(t.Context(), syntax.Handle(fmt.Sprintf("h%d.flood.test", i)))
	}
	if n := identity.CachedHandles(w.dir); n > 20 || n < 10 {
		t.Errorf("%d entries kept", n)
	}
}

func ExampleDirectory() {
	w := newWorld(&testing.B{}, nil) // a fake network with one account
	w.account(alice, "alice.test")
	id, err := w.dir.Lookup(context.Background(), "alice.test")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.DID, id.Handle, id.PDS, id.SigningKey.Curve() == keys.K256)
	_, err = w.dir.Lookup(context.Background(), "nobody.test")
	fmt.Println(identity.KindOf(err))
	// Output:
	// did:plc:aaaaaaaaaaaaaaaaaaaaaaaa alice.test https://pds.test true
	// not found
}

func ExampleLookup() {
	// "alice.local" can't be anybody's handle, so that this example asks nobody.
	_, err := identity.Lookup(context.Background(), "alice.local")
	fmt.Println(err)
	// Output: resolving handle "alice.local": not found: no name under this top-level domain resolves
}
