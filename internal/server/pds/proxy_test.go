package pds

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// fakeService is another service of the network: it checks the token of each request as one that trusts nobody, and answers what it is told.
type fakeService struct {
	*httptest.Server
	n   *network
	did syntax.DID
	aud string // what tokens have to name

	mu     sync.Mutex
	seen   []*http.Request
	bodies []string
	jtis   map[string]bool
	reply  http.HandlerFunc
}

// service starts a service and registers it under the id svc.
func (n *network) service(reply http.HandlerFunc) *fakeService {
	n.t.Helper()
	f := &fakeService{n: n, reply: reply, jtis: map[string]bool{}}
	f.Server = httptest.NewServer(f)
	n.t.Cleanup(f.Close)
	n.allow(f.URL)
	f.did = n.serviceAt(f.URL)
	f.aud = string(f.did) + "#svc"
	return f
}

func (n *network) allow(origin string) {
	n.t.Helper()
	u, err := url.Parse(origin)
	if err == nil {
		err = n.world.Dialer.(*netguard.Dialer).Allow(u.Host)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// serviceAt registers an identity with a service svc.
func (n *network) serviceAt(endpoint string) syntax.DID {
	n.t.Helper()
	key, err := keys.Generate(keys.K256, randomReader{n.Service})
	if err != nil {
		n.t.Fatal(err)
	}
	d := plc.AtprotoData(key.Public().DIDKey(), "service.example", "https://pds.example.com", key.Public().DIDKey())
	d.Services["svc"] = plc.Service{Type: "BskyAppView", Endpoint: endpoint}
	op := plc.NewOperation(d, cid.CID{})
	if err := op.Sign(key); err != nil {
		n.t.Fatal(err)
	}
	return n.plc.register(n.t, op)
}

func (f *fakeService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // half a body
	}
	if err := f.check(r); err != nil {
		http.Error(w, "token: "+err.Error(), http.StatusTeapot)
		return
	}
	f.mu.Lock()
	f.seen, f.bodies = append(f.seen, r), append(f.bodies, string(body))
	reply := f.reply
	f.mu.Unlock()
	reply(w, r)
}

func (f *fakeService) check(r *http.Request) error {
	h, c, signed, sig, err := splitToken(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if err != nil {
		return err
	}
	now := f.n.clock.Now().Unix()
	if h.Typ != "JWT" || h.Alg != "ES256K" || c.Aud != f.aud || c.Lxm != strings.TrimPrefix(r.URL.Path, "/xrpc/") || c.Exp != now+60 || c.Iat != now || c.Scope != "" || c.Sub != "" {
		return fmt.Errorf("%+v %+v", h, c)
	}
	key, err := keys.ParseDIDKey(f.n.plc.state(f.n.t, syntax.DID(c.Iss)).SigningKey())
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.Jti == "" || f.jtis[c.Jti] {
		return fmt.Errorf("jti %q again", c.Jti)
	}
	f.jtis[c.Jti] = true
	return key.Verify([]byte(signed), sig)
}

func (f *fakeService) last() (*http.Request, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seen) == 0 {
		f.n.t.Fatal("the service was not asked")
	}
	return f.seen[len(f.seen)-1], f.bodies[len(f.bodies)-1]
}

func (f *fakeService) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

func (f *fakeService) answer(h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reply = h
}

// via calls a method through the PDS; the header map may hold more.
func (n *network) via(verb, path, token string, body io.Reader, header ...string) (answerOf, error) {
	n.t.Helper()
	req, err := http.NewRequest(verb, n.URL+"/xrpc/"+path, body)
	if err != nil {
		n.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answerOf{}, err
	}
	defer resp.Body.Close()
	out := answerOf{Status: resp.StatusCode, Header: resp.Header}
	if out.Body, err = io.ReadAll(resp.Body); err != nil {
		return out, err
	}
	if resp.StatusCode >= 400 {
		out.Name = errorName(out.Body)
	}
	return out, nil
}

func errorName(body []byte) string {
	_, rest, _ := strings.Cut(string(body), `"error":"`)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

func (n *network) mustVia(verb, path, token string, body io.Reader, header ...string) answerOf {
	n.t.Helper()
	a, err := n.via(verb, path, token, body, header...)
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

func jsonReply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestProxy(t *testing.T) {
	n := newNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	f := n.service(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"Atproto-Repo-Rev", "Atproto-Content-Labelers", "Retry-After", "Content-Language"} {
			w.Header().Set(name, "7")
		}
		for _, name := range []string{"Set-Cookie", "Location", "Www-Authenticate", "Access-Control-Allow-Origin", "Dpop-Nonce", "Content-Security-Policy", "Server", "RateLimit-Limit"} {
			w.Header().Set(name, "upstream")
		}
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<b>yes</b>")
	})
	ref := f.aud
	a := n.mustVia(http.MethodGet, "com.example.feed.getThing?a=1&a=%20%26&b=", tok, nil, "atproto-proxy", ref,
		"Accept-Language", "de", "Accept-Encoding", "zstd", "Atproto-Accept-Labelers", "did:web:l.example", "X-Bsky-Topics", "x",
		"Cookie", "secret=1", "X-Forwarded-For", "8.8.8.8", "DPoP", "proof", "Referer", "https://x.example", "X-Other", "y")
	want(t, a, 200, "")
	if string(a.Body) != "<b>yes</b>" {
		t.Errorf("body %q", a.Body)
	}
	for name, value := range map[string]string{
		"Atproto-Repo-Rev": "7", "Atproto-Content-Labelers": "7", "Retry-After": "7", "Content-Language": "7", "Content-Type": "text/html",
		"Set-Cookie": "", "Location": "", "Www-Authenticate": "", "Dpop-Nonce": "", "Server": "", "Access-Control-Allow-Origin": "*",
		"Content-Security-Policy": "default-src 'none'; sandbox", "X-Content-Type-Options": "nosniff",
	} {
		if got := a.Header.Get(name); got != value {
			t.Errorf("answer: %s: %q, want %q", name, got, value)
		}
	}
	if a.Header.Get("RateLimit-Limit") == "upstream" {
		t.Error("the service told of limits that aren't this server's")
	}
	r, _ := f.last()
	if r.URL.RawQuery != "a=1&a=%20%26&b=" || r.Method != http.MethodGet {
		t.Errorf("asked for %s %s", r.Method, r.URL)
	}
	for name, value := range map[string]string{
		"Accept-Language": "de", "Accept-Encoding": "zstd", "Atproto-Accept-Labelers": "did:web:l.example", "X-Bsky-Topics": "x",
		"Cookie": "", "X-Forwarded-For": "", "Dpop": "", "Referer": "", "X-Other": "", "Atproto-Proxy": "", "User-Agent": "barograph-pds",
	} {
		if got := r.Header.Get(name); got != value {
			t.Errorf("request: %s: %q, want %q", name, got, value)
		}
	}

	// Bodies go both ways as they are, of known and of unknown length.
	f.answer(jsonReply(200, `{"ok":true}`))
	for _, body := range []io.Reader{strings.NewReader("\x1f\x8bnot even gzip"), io.MultiReader(strings.NewReader("\x1f\x8bnot even gzip"))} {
		want(t, n.mustVia(http.MethodPost, "com.example.feed.putThing", tok, body, "atproto-proxy", ref, "Content-Type", "image/x-y", "Content-Encoding", "gzip"), 200, "")
		r, sent := f.last()
		if sent != "\x1f\x8bnot even gzip" || r.Header.Get("Content-Type") != "image/x-y" || r.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("sent %q, %v", sent, r.Header)
		}
	}
	want(t, n.mustVia(http.MethodPost, "com.example.feed.putThing", tok, nil, "atproto-proxy", ref), 200, "")
	if a := n.mustVia(http.MethodHead, "com.example.feed.getThing", tok, nil, "atproto-proxy", ref); a.Status != 200 || len(a.Body) != 0 {
		t.Errorf("HEAD: %d %q", a.Status, a.Body)
	}

	// A method of this server stays here, whatever the header says.
	asked := f.requests()
	want(t, n.mustVia(http.MethodGet, "com.atproto.server.getSession", tok, nil, "atproto-proxy", ref), 200, "")
	want(t, n.mustVia(http.MethodGet, "app.bsky.actor.getPreferences", tok, nil, "atproto-proxy", ref), 200, "")
	if f.requests() != asked {
		t.Error("a method of this server was passed on")
	}
	// Profiles are only in place of an AppView's.
	want(t, n.mustVia(http.MethodGet, "app.bsky.actor.getProfile?actor=alice.test", tok, nil), 200, "")
	if f.requests() != asked {
		t.Error("a profile was asked for elsewhere")
	}
	if a := n.mustVia(http.MethodGet, "app.bsky.actor.getProfile?actor=alice.test", tok, nil, "atproto-proxy", ref); string(a.Body) != `{"ok":true}` {
		t.Errorf("profile of the service named: %s", a.Body)
	}
}

func TestProxyRefusals(t *testing.T) {
	n := newNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	f := n.service(jsonReply(200, `{}`))
	for name, c := range map[string]struct {
		verb, path, token string
		header            []string
		status            int
		err               string
	}{
		"no AppView":             {"GET", "app.bsky.feed.getTimeline", tok, nil, 501, "MethodNotImplemented"},
		"nobody named":           {"GET", "com.example.getThing", tok, nil, 501, "MethodNotImplemented"},
		"no token":               {"GET", "com.example.getThing", "", []string{"atproto-proxy", f.aud}, 401, "AuthMissing"},
		"bad token":              {"GET", "com.example.getThing", tok + "x", []string{"atproto-proxy", f.aud}, 400, "InvalidToken"},
		"two targets":            {"GET", "com.example.getThing", tok, []string{"atproto-proxy", f.aud, "atproto-proxy", f.aud}, 400, "InvalidRequest"},
		"no service":             {"GET", "com.example.getThing", tok, []string{"atproto-proxy", string(f.did)}, 400, "InvalidRequest"},
		"empty service":          {"GET", "com.example.getThing", tok, []string{"atproto-proxy", string(f.did) + "#"}, 400, "InvalidRequest"},
		"two signs":              {"GET", "com.example.getThing", tok, []string{"atproto-proxy", f.aud + "#svc"}, 400, "InvalidRequest"},
		"space":                  {"GET", "com.example.getThing", tok, []string{"atproto-proxy", f.aud + " x"}, 400, "InvalidRequest"},
		"no DID":                 {"GET", "com.example.getThing", tok, []string{"atproto-proxy", "alice.test#svc"}, 400, "InvalidRequest"},
		"unknown DID":            {"GET", "com.example.getThing", tok, []string{"atproto-proxy", "did:plc:ewvi7nxzyoun6zhxrhs64oiz#svc"}, 400, "DidNotFound"},
		"other service":          {"GET", "com.example.getThing", tok, []string{"atproto-proxy", string(f.did) + "#other"}, 400, "InvalidRequest"},
		"verb":                   {"DELETE", "com.example.getThing", tok, []string{"atproto-proxy", f.aud}, 405, "InvalidRequest"},
		"upgrade":                {"GET", "com.example.getThing", tok, []string{"atproto-proxy", f.aud, "Upgrade", "websocket"}, 400, "InvalidRequest"},
		"no method":              {"GET", "nonsense", tok, []string{"atproto-proxy", f.aud}, 404, "InvalidRequest"},
		"protected":              {"POST", "com.atproto.server.confirmEmail", tok, []string{"atproto-proxy", f.aud}, 400, "InvalidRequest"},
		"protected, other case":  {"GET", "COM.Atproto.Server.getSession", tok, []string{"atproto-proxy", f.aud}, 400, "InvalidRequest"},
		"protected, for service": {"POST", "com.atproto.admin.sendEmail", tok, []string{"atproto-proxy", f.aud}, 401, "AuthenticationRequired"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, n.mustVia(c.verb, c.path, c.token, nil, c.header...), c.status, c.err)
		})
	}
	for lxm := range protectedMethods {
		if a := n.mustVia(http.MethodPost, lxm, tok, nil, "atproto-proxy", f.aud); a.Status == 200 && a.Body != nil && string(a.Body) == `{}` {
			t.Errorf("%s went out", lxm)
		}
		want(t, n.query("com.atproto.server.getServiceAuth?aud=did:web:x.example&lxm="+strings.ToUpper(lxm[:4])+lxm[4:], tok), 400, "InvalidRequest")
	}
	if f.requests() != 0 {
		t.Errorf("%d requests reached the service", f.requests())
	}
	for _, cfg := range []Config{{AppView: "did:web:x.example"}, {AppView: "x#y"}, {AppViewURL: "https://x.example"}, {AppView: "did:web:x.example#y", AppViewURL: "https://x.example/path"}, {AppView: "did:web:x.example#y", AppViewURL: "ftp://x.example"}} {
		cfg.PublicURL, cfg.Memory = "http://localhost:2583", true
		if s, err := New(cfg, testWorld(1)); err == nil {
			s.Close()
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func TestProxyDefault(t *testing.T) {
	n := newNetwork(t, Config{})
	f := n.service(jsonReply(200, `{"from":"appview"}`))
	other := n.service(jsonReply(200, `{"from":"other"}`))
	n.cfg.AppView = f.aud
	n.restart()
	tok := n.signedUp("alice").str("accessJwt")
	ask := func(path string, header ...string) string {
		t.Helper()
		a := n.mustVia(http.MethodGet, path, tok, nil, header...)
		want(t, a, 200, "")
		return string(a.Body)
	}
	for _, path := range []string{"app.bsky.feed.getTimeline", "app.bsky.actor.getProfile?actor=alice.test", "com.atproto.label.queryLabels"} {
		if got := ask(path); got != `{"from":"appview"}` {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := ask("app.bsky.feed.getTimeline", "atproto-proxy", other.aud); got != `{"from":"other"}` {
		t.Errorf("the header doesn't win: %s", got)
	}
	want(t, n.mustVia(http.MethodGet, "chat.bsky.convo.listConvos", tok, nil), 501, "MethodNotImplemented")
	want(t, n.mustVia(http.MethodGet, "app.bsky.feed.getTimeline", "", nil), 401, "AuthMissing")
	want(t, n.mustVia(http.MethodGet, "app.bsky.actor.getProfile?actor=alice.test", "", nil), 200, "") // strangers get what is here

	// A configured address is used instead of the document's, and only for this service.
	moved := httptest.NewServer(f)
	defer moved.Close()
	n.allow(moved.URL)
	n.cfg.AppView, n.cfg.AppViewURL, n.cfg.BareAudience = "did:web:appview.invalid#svc", moved.URL+"/", true
	f.aud = "did:web:appview.invalid"
	n.restart()
	if got := ask("app.bsky.feed.getTimeline"); got != `{"from":"appview"}` {
		t.Errorf("configured address: %s", got)
	}
	if got := ask("app.bsky.feed.getTimeline", "atproto-proxy", n.cfg.AppView); got != `{"from":"appview"}` {
		t.Errorf("named by header: %s", got)
	}
}

func TestProxyStatus(t *testing.T) {
	n := newNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	f := n.service(nil)
	hops := atomic.Int32{}
	second := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hops.Add(1) }))
	defer second.Close()
	n.allow(second.URL)
	for name, c := range map[string]struct {
		reply  http.HandlerFunc
		status int
		err    string
	}{
		"refused":             {jsonReply(400, `{"error":"UnknownFeed","message":"m"}`), 400, "UnknownFeed"},
		"unauthorized":        {jsonReply(401, `{"error":"AuthenticationRequired"}`), 401, "AuthenticationRequired"},
		"limited":             {jsonReply(429, `{"error":"RateLimitExceeded"}`), 429, "RateLimitExceeded"},
		"unavailable":         {jsonReply(503, `{"error":"Busy"}`), 503, "Busy"},
		"failed":              {jsonReply(500, `{"error":"Broken","message":"m"}`), 502, "Broken"},
		"failed, not in JSON": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "stack trace", 500) }, 502, "UpstreamFailure"},
		"failed at length":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); w.Write(make([]byte, 1<<20)) }, 502, "UpstreamFailure"},
		"redirect":            {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, second.URL, 307) }, 502, "UpstreamFailure"},
		"not modified":        {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) }, 502, "UpstreamFailure"},
		"hangs up":            {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, "UpstreamFailure"},
	} {
		t.Run(name, func(t *testing.T) {
			f.answer(c.reply)
			// POST, because a GET that is hung up on is asked again.
			want(t, n.mustVia(http.MethodPost, "com.example.putThing", tok, nil, "atproto-proxy", f.aud), c.status, c.err)
		})
	}
	if hops.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestProxyHostile(t *testing.T) {
	n := newNetwork(t, Config{MaxProxyBytes: 100_000, ProxyTimeout: 500 * time.Millisecond})
	tok := n.signedUp("alice").str("accessJwt")
	f := n.service(nil)
	ask := func(body io.Reader) (answerOf, error) {
		return n.via(http.MethodPost, "com.example.putThing", tok, body, "atproto-proxy", f.aud)
	}
	mustAsk := func(body io.Reader) answerOf {
		t.Helper()
		a, err := ask(body)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	over := make([]byte, 100_001)

	f.answer(jsonReply(200, `{}`))
	want(t, mustAsk(bytes.NewReader(over[:100_000])), 200, "")
	asked := f.requests()
	want(t, mustAsk(bytes.NewReader(over)), 413, "PayloadTooLarge")
	want(t, mustAsk(io.MultiReader(bytes.NewReader(over))), 413, "PayloadTooLarge")
	if f.requests() != asked {
		t.Error("a body that is too large was taken for a whole one")
	}

	f.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(over)))
		w.Write(over)
	})
	want(t, mustAsk(nil), 502, "UpstreamFailure")
	f.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		w.Write(over)
	})
	if a, err := ask(nil); err == nil {
		t.Errorf("an endless answer looks whole: %d, %d bytes", a.Status, len(a.Body))
	} else if len(a.Body) > 100_000 {
		t.Errorf("%d bytes came through", len(a.Body))
	}
	f.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
	})
	if a, err := ask(nil); err == nil {
		t.Errorf("half an answer looks whole: %q", a.Body)
	}

	release := make(chan struct{})
	defer close(release)
	f.answer(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	want(t, mustAsk(nil), 504, "UpstreamTimeout")
	dripped := make(chan struct{})
	f.answer(func(w http.ResponseWriter, r *http.Request) {
		defer close(dripped)
		for r.Context().Err() == nil {
			io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	if a, err := ask(nil); err == nil {
		t.Errorf("a drip ended well: %d", a.Status)
	}
	<-dripped // the service notices that nobody listens

	// What is sent is there before the rest is: an answer isn't kept back until it is whole.
	next := make(chan struct{})
	f.answer(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first ")
		w.(http.Flusher).Flush()
		select {
		case <-next:
			io.WriteString(w, "second")
		case <-r.Context().Done():
		}
	})
	req, _ := http.NewRequest(http.MethodGet, n.URL+"/xrpc/com.example.getThing", nil)
	req.Header.Set("Authorization", "Bearer "+tok)
	req.Header.Set("atproto-proxy", f.aud)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "first " {
		t.Fatalf("%q, %v", buf, err)
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestProxyPrivate names services at addresses of this machine and its neighbours: none of them sees a connection.
func TestProxyPrivate(t *testing.T) {
	n := newNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			c.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	for _, host := range []string{"127.0.0.1", "localhost", "localhost.", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254", "10.0.0.1", "100.100.100.200", "[fe80::1]", "[64:ff9b::7f00:1]"} {
		did := n.serviceAt(fmt.Sprintf("http://%s:%d", host, port))
		a := n.mustVia(http.MethodGet, "com.example.getThing", tok, nil, "atproto-proxy", string(did)+"#svc")
		if a.Status != 400 || a.Name != "InvalidRequest" {
			t.Errorf("%s: %d %s", host, a.Status, a.Body)
		}
		if strings.Contains(string(a.Body), "refused") {
			t.Errorf("%s: the answer tells about the network: %s", host, a.Body)
		}
	}
	l.Close()
	<-done
	if connections.Load() != 0 {
		t.Errorf("%d connections", connections.Load())
	}
	self := n.serviceAt("http://localhost:2583")
	want(t, n.mustVia(http.MethodGet, "com.example.getThing", tok, nil, "atproto-proxy", string(self)+"#svc"), 400, "InvalidRequest")
	f := n.service(jsonReply(200, `{}`))
	n.Service.cfg.PublicURL = "https://pds.example.com" // nobody asks at the moment
	if origin, err := n.serviceOrigin(t.Context(), serviceRef{f.did, "svc"}); err == nil {
		t.Errorf("a server of the open network would send a token in the clear to %s", origin)
	}
}

func FuzzServiceRef(f *testing.F) {
	for _, s := range []string{"did:web:x.example#svc", "did:plc:ewvi7nxzyoun6zhxrhs64oiz#bsky_appview", "did:web:x#", "#", "did:web:x#a#b", "did:web:x# a", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := parseServiceRef(s)
		if err == nil && (ref.String() != s || strings.Count(s, "#") != 1 || strings.ContainsAny(s, " \t\r\n\x00")) {
			t.Fatalf("%q reads as %+v", s, ref)
		}
	})
}
