package pds

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/internal/world"
)

// limited starts a server with a clock that stands still.
func limited(t *testing.T, cfg Config) (*testAccount, *world.Manual) {
	t.Helper()
	w := testWorld(1)
	clock := world.NewManual(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	w.Clock = clock
	cfg.Memory = true
	return startPDS(t, w, cfg).account("alice"), clock
}

// from makes a request of a path as if it came from an address.
func (p *testPDS) from(addr, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr = addr
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, r)
	return w
}

func TestRequestLimit(t *testing.T) {
	a, clock := limited(t, Config{})
	const path, addr = "/xrpc/com.atproto.server.describeServer", "192.0.2.1:1"
	for i := range 3000 {
		p := path
		switch i % 3 { // whatever it is for
		case 1:
			p = "/.well-known/atproto-did"
		case 2:
			p = "/xrpc/com.example.unknown"
		}
		w := a.p.from(addr, p)
		if w.Code == 429 || w.Header().Get("RateLimit-Remaining") != strconv.Itoa(3000-1-i) || w.Header().Get("RateLimit-Limit") != "3000" {
			t.Fatalf("request %d: %d %v", i, w.Code, w.Header())
		}
	}
	for _, p := range []string{path, "/xrpc/com.atproto.sync.listRepos", "/.well-known/did.json"} {
		w := a.p.from(addr, p)
		if w.Code != 429 || !strings.Contains(w.Body.String(), "RateLimitExceeded") || w.Header().Get("Retry-After") != "301" ||
			w.Header().Get("RateLimit-Policy") != "3000;w=300" || w.Header().Get("RateLimit-Remaining") != "0" {
			t.Errorf("%s: %d %s %v", p, w.Code, w.Body, w.Header())
		}
	}
	if w := a.p.from(addr, path); w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("a page can't read the refusal: %v", w.Header())
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"export":  a.p.from(addr, "/xrpc/com.atproto.sync.getRepo?did="+string(a.did)),
		"health":  a.p.from(addr, "/xrpc/_health"),
		"another": a.p.from("192.0.2.2:1", path),
	} {
		if w.Code != 200 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	clock.Advance(5*time.Minute + time.Second)
	if w := a.p.from(addr, path); w.Code != 200 {
		t.Errorf("later: %d %s", w.Code, w.Body)
	}
}

func TestWriteLimit(t *testing.T) {
	a, clock := limited(t, Config{})
	batch := func(n int, op map[string]any) answerOf {
		writes := make([]any, n)
		for i := range writes {
			writes[i] = op
		}
		return a.post("com.atproto.repo.applyWrites", map[string]any{"repo": a.did, "writes": writes})
	}
	create := map[string]any{"$type": "com.atproto.repo.applyWrites#create", "collection": "com.example.thing", "value": map[string]any{"n": 1}}
	for i := range 8 { // of 600 points
		got := batch(200, create)
		want(t, got, 200, "")
		if left := got.Header.Get("RateLimit-Remaining"); left != strconv.Itoa(5000-600*(i+1)) {
			t.Errorf("after batch %d %s points are left", i, left)
		}
	}
	got := batch(200, create) // 200 are left, and stay
	want(t, got, 429, "RateLimitExceeded")
	if got.Header.Get("Retry-After") != "3601" || got.Header.Get("RateLimit-Remaining") != "200" || got.Header.Get("RateLimit-Limit") != "5000" {
		t.Errorf("headers: %v", got.Header)
	}
	want(t, batch(65, create), 200, "") // 195
	want(t, a.post("com.atproto.repo.putRecord", map[string]any{"repo": a.did, "collection": "com.example.thing", "rkey": "x", "record": map[string]any{}}), 200, "")
	want(t, a.create("com.example.thing", "", map[string]any{}), 200, "") // the last 3
	want(t, a.post("com.atproto.repo.deleteRecord", map[string]any{"repo": a.did, "collection": "com.example.thing", "rkey": "x"}), 429, "RateLimitExceeded")
	b := a.p.account("bob")
	want(t, b.create("com.example.thing", "", map[string]any{}), 200, "")
	// The day's points are told when they are what is short.
	for range 6 {
		clock.Advance(time.Hour + time.Second)
		a = a.p.login(a.did, a.key)
		for range 8 {
			if got = batch(200, create); got.Status != 200 {
				break
			}
		}
	}
	clock.Advance(time.Hour + time.Second)
	a = a.p.login(a.did, a.key)
	for range 8 {
		got = batch(200, create)
	}
	want(t, got, 429, "RateLimitExceeded")
	if got.Header.Get("RateLimit-Limit") != "35000" {
		t.Errorf("headers: %v", got.Header)
	}
}

func TestUploadLimit(t *testing.T) {
	a, _ := limited(t, Config{})
	for i := range 1000 {
		if err := a.p.limitAccount(httptest.NewRequest("POST", "/", nil), http.Header{}, "uploads", a.did, 1); err != nil {
			t.Fatalf("upload %d: %v", i, err)
		}
	}
	got := a.upload("image/png", png)
	want(t, got, 429, "RateLimitExceeded")
	if got.Header.Get("Retry-After") == "" {
		t.Errorf("headers: %v", got.Header)
	}
}

// On a local network nothing but guessing passwords is limited.
func TestLoopbackIsNotLimited(t *testing.T) {
	a, _ := limited(t, Config{Accounts: AccountConfig{RelaxLoopback: true}})
	for range 4000 {
		if w := a.p.from("127.0.0.1:1", "/xrpc/com.atproto.server.describeServer"); w.Code != 200 || w.Header().Get("RateLimit-Limit") != "" {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.RemoteAddr = "[::1]:1"
	for range 100 {
		if err := a.p.limitAccount(r, http.Header{}, "writes", a.did, 600); err != nil {
			t.Fatal(err)
		}
	}
	if w := a.p.from("192.0.2.1:1", "/xrpc/com.atproto.server.describeServer"); w.Header().Get("RateLimit-Limit") != "3000" {
		t.Errorf("from elsewhere: %v", w.Header())
	}
}

// The memory of the counters is bounded, and a name more doesn't cost a look at all of them each time.
func TestLimitKeys(t *testing.T) {
	l := &limits{counts: map[limitKey]*limitCount{}}
	now, sweeps, last := time.Now(), 0, 0
	for i := range 2 * maxLimitKeys {
		if err := l.count(now, http.Header{}, "requests", strconv.Itoa(i), 1, 1); err != nil {
			t.Fatal(err)
		}
		if n := len(l.counts); n > maxLimitKeys {
			t.Fatalf("%d counters", n)
		} else if n <= last {
			sweeps++
		}
		last = len(l.counts)
	}
	if sweeps == 0 || sweeps > 20 {
		t.Errorf("swept %d times", sweeps)
	}
}
