package pds

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// fakePLC is a directory in memory that applies the real rules.
type fakePLC struct {
	*httptest.Server
	clock world.Clock
	mu    sync.Mutex
	logs  map[syntax.DID][]plc.Entry
	fail  int  // status to answer every POST with, or 0
	down  bool // answers nothing of use
	posts int
}

func newFakePLC(t testing.TB, clock world.Clock) *fakePLC {
	f := &fakePLC{clock: clock, logs: map[syntax.DID][]plc.Entry{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakePLC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	did := syntax.DID(parts[0])
	fail := func(status int, why string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"message":%q}`, why)
	}
	if f.down {
		fail(503, "told to be down")
		return
	}
	log := f.logs[did]
	if r.Method == http.MethodPost {
		f.posts++
		if f.fail != 0 {
			fail(f.fail, "told to fail")
			return
		}
		b, _ := io.ReadAll(r.Body)
		op, err := plc.ParseJSON(b)
		if err == nil {
			err = op.Check()
		}
		if err != nil {
			fail(400, err.Error())
			return
		}
		now := f.clock.Now().Add(time.Duration(f.posts) * time.Millisecond)
		void, err := plc.Next(did, log, op, now)
		if err != nil {
			fail(400, err.Error())
			return
		}
		for _, i := range void {
			log[i].Nullified = true
		}
		f.logs[did] = append(log, plc.Entry{DID: did, Operation: op, CID: op.CID(), CreatedAt: now})
		return
	}
	if len(log) == 0 {
		fail(404, "not registered")
		return
	}
	last := log[len(log)-1].Operation
	if len(parts) == 3 && parts[2] == "last" {
		w.Write(last.AppendJSON(nil))
		return
	}
	state, ok := last.State()
	if !ok {
		fail(404, "ended")
		return
	}
	w.Write(state.AppendDocument(nil, did))
}

func (f *fakePLC) state(t testing.TB, did syntax.DID) plc.Data {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	log := f.logs[did]
	if len(log) == 0 {
		t.Fatalf("%s is not registered", did)
	}
	d, ok := log[len(log)-1].Operation.State()
	if !ok {
		t.Fatalf("%s has ended", did)
	}
	return d
}

// register adds an identity made elsewhere.
func (f *fakePLC) register(t testing.TB, op *plc.Operation) syntax.DID {
	t.Helper()
	did := op.DID()
	resp, err := http.Post(f.URL+"/"+string(did), "application/json", strings.NewReader(string(op.AppendJSON(nil))))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("registering: %d", resp.StatusCode)
	}
	return did
}

// fakeDNS answers TXT questions from a map, and knows no host.
type fakeDNS struct {
	mu  sync.Mutex
	txt map[string][]string
}

func (f *fakeDNS) set(handle string, did syntax.DID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.txt["_atproto."+handle] = []string{"did=" + string(did)}
}

func (f *fakeDNS) setTXT(name string, values ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.txt[name] = values
}

func (f *fakeDNS) LookupTXT(_ context.Context, name string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v, ok := f.txt[name]; ok {
		return v, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (f *fakeDNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// network is a PDS with what it stands on.
type network struct {
	*testPDS
	plc   *fakePLC
	dns   *fakeDNS
	clock *world.Manual
	world world.World
	cfg   Config
}

func newNetwork(t testing.TB, cfg Config) *network {
	t.Helper()
	n := &network{clock: world.NewManual(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)), dns: &fakeDNS{txt: map[string][]string{}}}
	n.plc = newFakePLC(t, n.clock)
	u, err := url.Parse(n.plc.URL)
	if err != nil {
		t.Fatal(err)
	}
	d := netguard.NewDialer(netguard.Options{Resolver: n.dns})
	if err := d.Allow(u.Host); err != nil {
		t.Fatal(err)
	}
	n.world = testWorld(7)
	n.world.Clock, n.world.Dialer, n.world.Resolver = n.clock, d, n.dns
	cfg.PLCURL = n.plc.URL
	if cfg.Accounts.PasswordMemory == 0 {
		cfg.Accounts.PasswordMemory = 64
	}
	cfg.AdminPassword = "operator"
	n.cfg = cfg
	n.testPDS = openPDS(t, n.world, cfg)
	t.Cleanup(func() { n.testPDS.stop() })
	return n
}

// restart closes the service and opens it again on the same data.
func (n *network) restart() {
	n.t.Helper()
	t := n.t
	n.testPDS.stop()
	n.testPDS = openPDS(t, n.world, n.cfg)
}

func (n *network) call(nsid, token string, in map[string]any) answerOf {
	n.t.Helper()
	var body io.Reader
	ct := ""
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			n.t.Fatal(err)
		}
		body, ct = strings.NewReader(string(b)), "application/json"
	}
	return n.do(http.MethodPost, nsid, token, ct, body)
}

func (n *network) query(path, token string) answerOf {
	n.t.Helper()
	return n.do(http.MethodGet, path, token, "", nil)
}

func (n *network) admin(nsid string, in map[string]any, user, password string) answerOf {
	n.t.Helper()
	b, _ := json.Marshal(in)
	req, err := http.NewRequest(http.MethodPost, n.URL+"/xrpc/"+nsid, strings.NewReader(string(b)))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := answerOf{Status: resp.StatusCode, Header: resp.Header}
	out.Body, _ = io.ReadAll(resp.Body)
	_ = json.Unmarshal(out.Body, &out.JSON)
	if out.Status != 200 {
		out.Name = out.str("error")
	}
	return out
}

const goodPassword = "correct horse battery"

func signUpInput(name string) map[string]any {
	return map[string]any{"handle": name + ".test", "email": name + "@example.com", "password": goodPassword}
}

// signedUp makes an account over HTTP and gives what the server said.
func (n *network) signedUp(name string) answerOf {
	n.t.Helper()
	a := n.call("com.atproto.server.createAccount", "", signUpInput(name))
	want(n.t, a, 200, "")
	return a
}

// foreign is an identity that lives on another PDS.
type foreign struct {
	did           syntax.DID
	key, rotation *keys.PrivateKey
}

func (n *network) foreign(handle syntax.Handle) foreign {
	n.t.Helper()
	f := foreign{}
	var err error
	if f.key, err = keys.Generate(keys.K256, randomReader{n.Service}); err != nil {
		n.t.Fatal(err)
	}
	if f.rotation, err = keys.Generate(keys.P256, randomReader{n.Service}); err != nil {
		n.t.Fatal(err)
	}
	op := plc.NewOperation(plc.AtprotoData(f.key.Public().DIDKey(), handle, "https://old.example.com", f.rotation.Public().DIDKey()), cid.CID{})
	if err := op.Sign(f.rotation); err != nil {
		n.t.Fatal(err)
	}
	f.did = n.plc.register(n.t, op)
	n.dns.set(string(handle), f.did)
	return f
}

func (f foreign) token(n *network, edit func(h, c map[string]any)) string {
	now := n.clock.Now().Unix()
	h := map[string]any{"typ": "JWT", "alg": "ES256K"}
	c := map[string]any{"iss": f.did, "aud": "did:web:localhost%3A2583", "lxm": "com.atproto.server.createAccount", "iat": now, "exp": now + 60, "jti": n.randomName(8)}
	if edit != nil {
		edit(h, c)
	}
	return forge(h, c, func(signed string) []byte { sig, _ := f.key.Sign([]byte(signed)); return sig })
}

// syncBuffer is a log that a test reads tokens from.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// token is the last confirmation token in the log.
func (s *syncBuffer) token(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.b.String()
	i := strings.LastIndex(text, " token=")
	if i < 0 {
		t.Fatalf("no token in %q", text)
	}
	token, _, _ := strings.Cut(text[i+len(" token="):], "\n")
	return strings.TrimSpace(token)
}

// didOfName is the DID of an account here.
func (n *network) didOfName(handle string) syntax.DID {
	n.t.Helper()
	a, err := n.accountByHandle(syntax.Handle(handle))
	if err != nil {
		n.t.Fatal(err)
	}
	return a.DID
}
