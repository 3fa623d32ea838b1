package auth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const did = syntax.DID("did:plc:ewvi7nxzyoun6zhxrhs64oiz")

// server is a PDS that knows sessions and one method.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	now     time.Time
	n       int             // tokens made
	access  map[string]bool // valid tokens
	refresh map[string]bool
	log     []string // methods called
	fail    func(nsid string) (status int, body string)
	writes  int
	hold    chan struct{} // refreshSession waits for it
}

func newServer(t *testing.T) *server {
	s := &server{access: map[string]bool{}, refresh: map[string]bool{}, now: time.Unix(1_800_000_000, 0)}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func token(typ string, n int, exp time.Time) string {
	enc := func(v any) string { b, _ := json.Marshal(v); return base64.RawURLEncoding.EncodeToString(b) }
	return enc(map[string]any{"typ": typ, "alg": "HS256"}) + "." + enc(map[string]any{"exp": exp.Unix(), "jti": n}) + ".c2ln"
}

// session makes new tokens; the caller holds the lock.
func (s *server) session() map[string]any {
	s.n++
	a, r := token("at+jwt", s.n, s.now.Add(2*time.Hour)), token("refresh+jwt", s.n, s.now.Add(90*24*time.Hour))
	s.access[a], s.refresh[r] = true, true
	return map[string]any{"did": did, "handle": "alice.test", "accessJwt": a, "refreshJwt": r}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nsid := strings.TrimPrefix(r.URL.Path, "/xrpc/")
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	_, _ = io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	hold := s.hold
	s.log = append(s.log, nsid)
	s.mu.Unlock()
	if hold != nil && nsid == "com.atproto.server.refreshSession" {
		<-hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	refuse := func(status int, name string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":%q,"message":"no"}`, name)
	}
	if s.fail != nil {
		if status, body := s.fail(nsid); status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return
		}
	}
	switch nsid {
	case "com.atproto.server.createSession":
		_ = json.NewEncoder(w).Encode(s.session())
	case "com.atproto.server.refreshSession":
		if !s.refresh[bearer] {
			refuse(400, "ExpiredToken")
			return
		}
		delete(s.refresh, bearer)
		clear(s.access)
		_ = json.NewEncoder(w).Encode(s.session())
	case "com.atproto.server.deleteSession":
		if !s.refresh[bearer] {
			refuse(400, "InvalidToken")
			return
		}
		delete(s.refresh, bearer)
	case "com.atproto.repo.createRecord":
		if !s.access[bearer] {
			refuse(400, "ExpiredToken")
			return
		}
		s.writes++
		_, _ = io.WriteString(w, `{"uri":"at://x.test/a.b.c/d","cid":"bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"}`)
	default:
		refuse(501, "MethodNotImplemented")
	}
}

func (s *server) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
}

func (s *server) calls(nsid string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.log {
		if strings.HasSuffix(m, nsid) {
			n++
		}
	}
	return n
}

func (s *server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func write(ctx context.Context, a *auth.Account) error {
	raw, _ := data.ParseRecord([]byte(`{"$type":"a.b.c"}`))
	_, err := comatproto.RepoCreateRecord.Call(ctx, a.Client(), &comatproto.RepoCreateRecord_Input{Repo: string(did), Collection: "a.b.c", Record: raw})
	return err
}

type events struct {
	mu   sync.Mutex
	list []auth.Event
}

func (e *events) on(ev auth.Event, _ auth.Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

func (e *events) is(t *testing.T, want ...auth.Event) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.list, want) {
		t.Errorf("events %v, want %v", e.list, want)
	}
}

func login(t *testing.T, s *server, o auth.Options) (*auth.Manager, *auth.Account) {
	t.Helper()
	m := auth.New(o)
	a, err := m.Login(t.Context(), s.URL, auth.Credentials{Identifier: "alice.test", Password: "hunter2", DID: did})
	if err != nil {
		t.Fatal(err)
	}
	return m, a
}

func TestRenewsBeforeExpiry(t *testing.T) {
	s := newServer(t)
	var ev events
	_, a := login(t, s, auth.Options{Now: s.Now, OnEvent: ev.on})
	if err := write(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if n := s.calls("refreshSession"); n != 0 {
		t.Errorf("%d renewals of a fresh token", n)
	}
	s.set(func() { s.now = s.now.Add(2*time.Hour - auth.DefaultEarly) })
	if err := write(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if s.calls("refreshSession") != 1 || s.calls("createRecord") != 2 {
		t.Errorf("calls: %v", s.log)
	}
	ev.is(t, auth.EventCreated, auth.EventRefreshed)

	// While the token is still good, a renewal that fails for the moment does no harm; later it does.
	s.set(func() {
		s.now = s.now.Add(2*time.Hour - time.Minute)
		s.fail = func(nsid string) (int, string) {
			if strings.HasSuffix(nsid, "refreshSession") {
				return 503, "down"
			}
			return 0, ""
		}
	})
	if err := write(t.Context(), a); err != nil {
		t.Errorf("the token had a minute left: %v", err)
	}
	s.set(func() { s.now = s.now.Add(time.Minute) })
	var re *auth.RenewalError
	if err := write(t.Context(), a); !errors.As(err, &re) || errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("want a renewal error that may pass, got %v", err)
	}
	if s.writes != 3 {
		t.Errorf("%d writes, want 3", s.writes)
	}
}

func TestRenewsWhenRefused(t *testing.T) {
	s := newServer(t)
	_, a := login(t, s, auth.Options{})
	s.revoke()
	if err := write(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if s.calls("createRecord") != 2 || s.writes != 1 || s.calls("refreshSession") != 1 {
		t.Errorf("calls: %v", s.log)
	}
}

func TestSingleFlight(t *testing.T) {
	s := newServer(t)
	_, a := login(t, s, auth.Options{})
	s.revoke()
	s.set(func() { s.hold = make(chan struct{}) })
	const n = 20
	errs := make(chan error, n)
	for range n {
		go func() { errs <- write(t.Context(), a) }()
	}
	for s.calls("createRecord") < n || s.calls("refreshSession") < 1 {
		runtime.Gosched()
	}
	close(s.hold)
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := s.calls("refreshSession"); got != 1 {
		t.Errorf("%d renewals, want 1", got)
	}
	if s.writes != n {
		t.Errorf("%d writes, want %d", s.writes, n)
	}
}

// A caller that gives up while another one renews isn't held back.
func TestWaitEndsWithContext(t *testing.T) {
	s := newServer(t)
	_, a := login(t, s, auth.Options{})
	s.revoke()
	s.set(func() { s.hold = make(chan struct{}) })
	first := make(chan error, 1)
	go func() { first <- write(t.Context(), a) }()
	for s.calls("refreshSession") < 1 {
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() { second <- write(ctx, a) }()
	for s.calls("createRecord") < 2 {
		runtime.Gosched()
	}
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(s.hold)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// A session that the server ended is forgotten, and the write isn't sent again.
func TestEnded(t *testing.T) {
	for _, answer := range []struct {
		status int
		body   string
	}{{400, `{"error":"ExpiredToken"}`}, {400, `{"error":"InvalidToken"}`}, {401, ``}, {400, `{"error":"AccountTakedown"}`}} {
		s := newServer(t)
		var ev events
		m, a := login(t, s, auth.Options{OnEvent: ev.on})
		s.revoke()
		s.set(func() {
			s.fail = func(nsid string) (int, string) {
				if strings.HasSuffix(nsid, "refreshSession") {
					return answer.status, answer.body
				}
				return 0, ""
			}
		})
		err := write(t.Context(), a)
		if _, ok := errors.AsType[*auth.RenewalError](err); !ok || !errors.Is(err, auth.ErrLoginRequired) {
			t.Errorf("%v: got %v", answer, err)
		}
		if err := write(t.Context(), a); !errors.Is(err, auth.ErrLoginRequired) {
			t.Errorf("%v: then %v", answer, err)
		}
		if _, err := m.Account(t.Context(), did); !errors.Is(err, auth.ErrLoginRequired) {
			t.Errorf("%v: the session was kept: %v", answer, err)
		}
		if n := s.calls("createRecord"); n != 1 {
			t.Errorf("%v: %d attempts to write", answer, n)
		}
		ev.is(t, auth.EventCreated, auth.EventExpired)
	}
}

// 429 and server errors while renewing end the request once, and leave the session as it was.
func TestRenewalMayPass(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503} {
		s := newServer(t)
		m, a := login(t, s, auth.Options{})
		s.revoke()
		s.set(func() {
			s.fail = func(nsid string) (int, string) {
				if strings.HasSuffix(nsid, "refreshSession") {
					return status, `{"error":"RateLimitExceeded","message":"later"}`
				}
				return 0, ""
			}
		})
		err := write(t.Context(), a)
		if x, ok := errors.AsType[*xrpc.Error](err); !ok || x.Status != status || errors.Is(err, auth.ErrLoginRequired) {
			t.Errorf("%d: got %v", status, err)
		}
		if n := s.calls("createRecord"); n != 1 {
			t.Errorf("%d: %d attempts to write", status, n)
		}
		s.set(func() { s.fail = nil })
		if err := write(t.Context(), a); err != nil {
			t.Errorf("%d: afterwards: %v", status, err)
		}
		if _, err := m.Account(t.Context(), did); err != nil {
			t.Error(err)
		}
	}
}

// A refusal that isn't about the token's age changes nothing.
func TestOtherRefusals(t *testing.T) {
	for _, answer := range []struct {
		status int
		name   string
	}{{400, "InvalidRequest"}, {400, "InvalidToken"}, {403, "Forbidden"}, {429, "RateLimitExceeded"}} {
		s := newServer(t)
		_, a := login(t, s, auth.Options{})
		s.set(func() {
			s.fail = func(string) (int, string) { return answer.status, fmt.Sprintf(`{"error":%q}`, answer.name) }
		})
		if err := write(t.Context(), a); !errors.Is(err, xrpc.ErrorName(answer.name)) {
			t.Errorf("%v: got %v", answer, err)
		}
		if s.calls("refreshSession") != 0 || s.calls("createRecord") != 1 {
			t.Errorf("%v: calls %v", answer, s.log)
		}
	}
}

func TestCredentialsStayWithTheirHost(t *testing.T) {
	s, other := newServer(t), newServer(t)
	_, a := login(t, s, auth.Options{})
	_, err := comatproto.ServerGetSession.Call(t.Context(), a.Client().WithHost(other.URL), nil)
	if !errors.Is(err, auth.ErrOtherHost) {
		t.Errorf("got %v", err)
	}
	if len(other.log) != 0 {
		t.Errorf("the other host was asked: %v", other.log)
	}
}

func TestLogout(t *testing.T) {
	s := newServer(t)
	var ev events
	m, a := login(t, s, auth.Options{OnEvent: ev.on})
	if err := a.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.refresh) != 0 {
		t.Error("the server still has the session")
	}
	if err := write(t.Context(), a); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("got %v", err)
	}
	if err := a.Logout(t.Context()); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("twice: %v", err)
	}
	ev.is(t, auth.EventCreated, auth.EventLogout)

	// Gone here even if the server is.
	if a, err := m.Login(t.Context(), s.URL, auth.Credentials{Identifier: "alice.test"}); err != nil {
		t.Fatal(err)
	} else {
		s.Close()
		if err := a.Logout(t.Context()); err == nil {
			t.Error("no word that the server wasn't told")
		}
		if l, err := m.Sessions(t.Context()); err != nil || len(l) != 0 {
			t.Errorf("%v, %v", l, err)
		}
	}
}

func TestLoginRefusesNonsense(t *testing.T) {
	s := newServer(t)
	m := auth.New(auth.Options{})
	for _, pds := range []string{"", "pds.example", "ftp://x", "https://", "https://u:p@x", "https://x/path", "https://x?q"} {
		if _, err := m.Login(t.Context(), pds, auth.Credentials{}); err == nil {
			t.Errorf("%q taken", pds)
		}
	}
	if _, err := m.Login(t.Context(), s.URL, auth.Credentials{DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}); err == nil {
		t.Error("session of another account taken")
	}
	for _, body := range []string{
		``, `{`, `{"did":"x","handle":"alice.test","accessJwt":"a","refreshJwt":"b"}`,
		`{"did":"` + string(did) + `","handle":"alice.test","accessJwt":"","refreshJwt":"b"}`,
		`{"did":"` + string(did) + `","handle":"alice.test","accessJwt":"a\nb: c","refreshJwt":"b"}`,
		`{"did":"` + string(did) + `","handle":"no handle","accessJwt":"a","refreshJwt":"b"}`,
		`{"did":"` + string(did) + `","handle":"alice.test","accessJwt":"` + strings.Repeat("a", 20<<10) + `","refreshJwt":"b"}`,
	} {
		s.set(func() { s.fail = func(string) (int, string) { return 200, body } })
		if _, err := m.Login(t.Context(), s.URL, auth.Credentials{Identifier: "alice.test"}); err == nil {
			t.Errorf("taken: %.80s", body)
		}
	}
	if l, _ := m.Sessions(t.Context()); len(l) != 0 {
		t.Errorf("kept: %v", l)
	}
}

func TestNoSecretIsPrinted(t *testing.T) {
	s := auth.Session{DID: did, Handle: "alice.test", PDS: "https://pds.example", Access: "SECRET", Refresh: "SECRET"}
	c := auth.Credentials{Identifier: "alice.test", Password: "SECRET", Token: "SECRET"}
	var b strings.Builder
	l := slog.New(slog.NewTextHandler(&b, nil))
	l.Info("x", "s", s, "c", c)
	fmt.Fprintf(&b, "%v %+v %#v %s %v %+v %#v %v", s, s, s, s, c, c, c, &c)
	if strings.Contains(b.String(), "SECRET") {
		t.Error(b.String())
	}
}

func TestCompatString(t *testing.T) {
	for _, tt := range []struct{ in, out, pds string }{
		{in: "alice.test:::" + string(did) + ":::acc:::ref:::https://pds.example", pds: "https://pds.example"},
		{in: "alice.test:::" + string(did) + ":::acc:::ref:::https://pds.example/xrpc", pds: "https://pds.example"},
		{in: "alice.test:::" + string(did) + ":::acc:::ref", out: "alice.test:::" + string(did) + ":::acc:::ref:::https://bsky.social", pds: "https://bsky.social"},
	} {
		s, err := auth.ParseCompatString(tt.in + "\n")
		if err != nil || s.PDS != tt.pds || s.DID != did || s.Access != "acc" || s.Refresh != "ref" {
			t.Errorf("%s: %#v, %v", tt.in, s, err)
		}
		if want := cmpOr(tt.out, tt.in); s.CompatString() != want {
			t.Errorf("%s, want %s", s.CompatString(), want)
		}
	}
	for _, bad := range []string{"", "a:::b", "alice.test:::x:::a:::b:::https://p", "alice.test:::" + string(did) + ":::a b:::c:::https://p", "alice.test:::" + string(did) + ":::a:::c:::file:///x"} {
		if s, err := auth.ParseCompatString(bad); err == nil {
			t.Errorf("%q: %v", bad, s)
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func FuzzParseCompatString(f *testing.F) {
	f.Add("alice.test:::" + string(did) + ":::acc:::ref:::https://pds.example")
	f.Add("a:::b:::c:::d")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := auth.ParseCompatString(in)
		if err != nil {
			return
		}
		s.AccessExpires()
		again, err := auth.ParseCompatString(s.CompatString())
		if err != nil || again != s {
			t.Errorf("%#v, %v", again, err)
		}
	})
}

// The suite that every store runs.
func testStore(t *testing.T, s auth.Store) {
	ctx := t.Context()
	if _, err := s.Load(ctx, did); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("empty: %v", err)
	}
	if err := s.Delete(ctx, did); err != nil {
		t.Error(err)
	}
	a := auth.Session{DID: did, Handle: "alice.test", PDS: "https://pds.example", Access: "a1", Refresh: "r1"}
	b := auth.Session{DID: "did:web:localhost%3A2583", Handle: "bob.test", PDS: "http://localhost:2583", Access: "a2", Refresh: "r2"}
	for _, x := range []auth.Session{b, a} {
		if err := s.Save(ctx, x); err != nil {
			t.Fatal(err)
		}
	}
	if l, err := s.List(ctx); err != nil || !slices.Equal(l, []auth.Session{a, b}) {
		t.Errorf("%v, %v", l, err)
	}
	a.Access = "a3"
	if err := s.Save(ctx, a); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(ctx, did); err != nil || got != a {
		t.Errorf("%v, %v", got, err)
	}
	if err := s.Delete(ctx, did); err != nil {
		t.Error(err)
	}
	if l, err := s.List(ctx); err != nil || !slices.Equal(l, []auth.Session{b}) {
		t.Errorf("%v, %v", l, err)
	}
}

func TestMemoryStore(t *testing.T) { testStore(t, auth.NewMemoryStore()) }

func TestFileStore(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := auth.NewFileStore(root)
	testStore(t, s)

	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Fatalf("%v left", entries)
	}
	name := filepath.Join(dir, entries[0].Name())
	if info, _ := os.Stat(name); runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	for _, content := range []string{"", "{", `{"version":2,"did":"x"}`, `{"version":1,"access":"SECRET"`, strings.Repeat(" ", 1<<20)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Load(t.Context(), "did:web:localhost%3A2583")
		if err == nil || errors.Is(err, auth.ErrLoginRequired) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%.30q: %v", content, err)
		}
		if _, err := s.List(t.Context()); err == nil {
			t.Errorf("%.30q: listed", content)
		}
	}
}

// lockedStore is a store that several processes share.
type lockedStore struct {
	*auth.MemoryStore
	mu sync.Mutex
	n  int
}

func (l *lockedStore) Lock(context.Context, syntax.DID) (func(), error) {
	l.mu.Lock()
	l.n++
	return l.mu.Unlock, nil
}

// Two processes share a store: the second one takes over the tokens that the first one got.
func TestTwoProcesses(t *testing.T) {
	s := newServer(t)
	store := &lockedStore{MemoryStore: auth.NewMemoryStore()}
	_, a := login(t, s, auth.Options{Store: store})
	b, err := auth.New(auth.Options{Store: store}).Account(t.Context(), did)
	if err != nil {
		t.Fatal(err)
	}
	s.revoke()
	for _, x := range []*auth.Account{a, b} {
		if err := write(t.Context(), x); err != nil {
			t.Error(err)
		}
	}
	if n := s.calls("refreshSession"); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
	if err := a.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.revoke()
	if err := write(t.Context(), b); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("after a logout elsewhere: %v", err)
	}
	if store.n != 5 { // a login, a renewal and one that finds it done, a logout and a renewal that finds that
		t.Errorf("locked %d times, want 5", store.n)
	}
}

// A renewal that has begun goes on when the one who wanted it leaves, and what came of it is there for the next one.
func TestRenewalOutlivesItsCaller(t *testing.T) {
	s := newServer(t)
	store := auth.NewMemoryStore()
	_, a := login(t, s, auth.Options{Store: store})
	old := a.Session()
	s.revoke()
	s.set(func() { s.hold = make(chan struct{}) })
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- write(ctx, a) }()
	for s.calls("refreshSession") < 1 {
		runtime.Gosched()
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(s.hold)
	if err := write(t.Context(), a); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if n := s.calls("refreshSession"); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
	if kept, err := store.Load(t.Context(), did); err != nil || kept.Refresh == old.Refresh {
		t.Errorf("kept: %v, %v", kept, err)
	}
}

// Another process has moved the account while this one was running: the session at the new host is neither replaced by one at the old
// host, nor forgotten when the old host has ended the old one.
func TestMovedElsewhere(t *testing.T) {
	for _, ended := range []bool{false, true} {
		s, other := newServer(t), newServer(t)
		store := auth.NewMemoryStore()
		_, a := login(t, s, auth.Options{Store: store})
		moved, err := auth.New(auth.Options{Store: store}).Login(t.Context(), other.URL, auth.Credentials{Identifier: "alice.test", DID: did})
		if err != nil {
			t.Fatal(err)
		}
		s.revoke()
		if ended {
			s.set(func() { clear(s.refresh) })
		}
		if err := write(t.Context(), a); !errors.Is(err, auth.ErrOtherHost) {
			t.Errorf("ended %t: got %v", ended, err)
		}
		if kept, err := store.Load(t.Context(), did); err != nil || kept != moved.Session() {
			t.Errorf("ended %t: kept %v, %v", ended, kept, err)
		}
		if err := write(t.Context(), a); err != nil {
			t.Errorf("ended %t: then at the new host: %v", ended, err)
		}
		if s.calls("refreshSession") != 0 || other.writes != 1 {
			t.Errorf("ended %t: %v and %v", ended, s.log, other.log)
		}
	}
}

// The new session comes while the old host is being asked, from somebody who waits for no lock.
func TestMovedInBetween(t *testing.T) {
	s := newServer(t)
	store := auth.NewMemoryStore()
	_, a := login(t, s, auth.Options{Store: store})
	moved := auth.Session{DID: did, Handle: "alice.test", PDS: "https://new.example", Access: "a", Refresh: "r"}
	s.revoke()
	s.set(func() {
		s.fail = func(nsid string) (int, string) {
			if !strings.HasSuffix(nsid, "refreshSession") {
				return 0, ""
			}
			if err := store.Save(t.Context(), moved); err != nil {
				t.Error(err)
			}
			return 400, `{"error":"ExpiredToken"}`
		}
	})
	if err := write(t.Context(), a); !errors.Is(err, auth.ErrOtherHost) {
		t.Errorf("got %v", err)
	}
	if kept, err := store.Load(t.Context(), did); err != nil || kept != moved {
		t.Errorf("kept %v, %v", kept, err)
	}
}

// What a caller adds to one call is not for the renewal that it takes.
func TestRenewalIsItsOwnCall(t *testing.T) {
	s := newServer(t)
	_, a := login(t, s, auth.Options{})
	s.revoke()
	proxied := make(chan string, 8)
	inner := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.Header.Get("Atproto-Proxy"); p != "" {
			proxied <- r.URL.Path
		}
		inner.ServeHTTP(w, r)
	})
	var m xrpc.Meta
	ctx := xrpc.WithMeta(xrpc.WithCallHeader(t.Context(), http.Header{"Atproto-Proxy": {"did:web:api.example#x"}}), &m)
	if err := write(ctx, a); err != nil {
		t.Fatal(err)
	}
	close(proxied)
	for p := range proxied {
		if strings.HasSuffix(p, "refreshSession") {
			t.Errorf("%s was sent with the header of the call", p)
		}
	}
	if m.Attempts != 2 || m.Status != 200 {
		t.Errorf("%d attempts, status %d", m.Attempts, m.Status)
	}
}

// A server that doesn't answer holds up the renewals of its own accounts, not those of others in the same folder.
func TestLocksAreOfOneAccount(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	one, two := auth.NewFileStore(root), auth.NewFileStore(root)
	unlock, err := one.Lock(t.Context(), did)
	if err != nil {
		t.Fatal(err)
	}
	other, err := two.Lock(t.Context(), "did:web:other.example")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := two.Lock(ctx, did); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if again, err := two.Lock(t.Context(), did); err != nil {
		t.Error(err)
	} else {
		again()
	}
	if l, err := one.List(t.Context()); err != nil || len(l) != 0 {
		t.Errorf("the locks are listed: %v, %v", l, err)
	}
}
