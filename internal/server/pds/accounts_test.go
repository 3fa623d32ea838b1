package pds

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// fakePLC is a directory in memory that applies the real rules.
type fakePLC struct {
	*httptest.Server
	clock world.Clock
	mu    sync.Mutex
	logs  map[syntax.DID][]plc.Entry
	fail  int // status to answer every POST with, or 0
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

func TestCreateAccount(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did := syntax.DID(a.str("did"))
	if a.str("handle") != "alice.test" || !did.IsPLC() {
		t.Fatalf("answer: %s", a.Body)
	}
	// The identity says what the account needs.
	d := n.plc.state(t, did)
	if d.Handle() != "alice.test" || d.PDS() != "http://localhost:2583" || !slices.Equal(d.RotationKeys, []string{n.accounts.secrets.rotation.Public().DIDKey()}) {
		t.Errorf("identity: %+v", d)
	}
	row, err := n.Service.account(did)
	if err != nil {
		t.Fatal(err)
	}
	if d.SigningKey() != row.PublicKey {
		t.Error("the identity has another signing key than the account")
	}
	if strings.Contains(string(row.Key), row.Password) || strings.Contains(row.Password, goodPassword) {
		t.Error("a secret in clear in the account row")
	}
	if doc, _ := a.JSON["didDoc"].(map[string]any); doc["id"] != string(did) {
		t.Errorf("didDoc: %v", a.JSON["didDoc"])
	}
	// The events come in the recommended order and the repository verifies with the identity's key.
	var kinds []string
	for _, m := range n.frames() {
		switch m := m.(type) {
		case *stream.Identity:
			kinds = append(kinds, "identity "+m.Handle)
		case *stream.Account:
			kinds = append(kinds, fmt.Sprint("account ", m.Active))
		case *stream.Sync:
			kinds = append(kinds, "sync")
		default:
			kinds = append(kinds, fmt.Sprintf("%T", m))
		}
	}
	if got := strings.Join(kinds, ", "); got != "identity alice.test, account true, sync" {
		t.Errorf("events: %s", got)
	}
	key, err := keys.ParseDIDKey(d.SigningKey())
	if err != nil {
		t.Fatal(err)
	}
	n.checkRepo(did, key)

	s := n.query("com.atproto.server.getSession", a.str("accessJwt"))
	want(t, s, 200, "")
	if s.str("did") != string(did) || s.str("email") != "alice@example.com" || s.JSON["active"] != true || s.JSON["emailConfirmed"] != false {
		t.Errorf("session: %s", s.Body)
	}
	r := n.query("com.atproto.identity.resolveHandle?handle=ALICE.test", "")
	want(t, r, 200, "")
	if r.str("did") != string(did) {
		t.Errorf("resolveHandle: %s", r.Body)
	}
}

func TestCreateAccountErrors(t *testing.T) {
	n := newNetwork(t, Config{})
	n.signedUp("alice")
	with := func(kv ...any) map[string]any {
		m := signUpInput("bob")
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	without := func(k string) map[string]any { m := signUpInput("bob"); delete(m, k); return m }
	key, _ := keys.Generate(keys.K256, randomReader{n.Service})
	for name, c := range map[string]struct {
		in     map[string]any
		status int
		error  string
	}{
		"taken":               {with("handle", "alice.test"), 400, "HandleNotAvailable"},
		"taken, other case":   {with("handle", "Alice.TEST"), 400, "HandleNotAvailable"},
		"reserved":            {with("handle", "admin.test"), 400, "HandleNotAvailable"},
		"too short":           {with("handle", "al.test"), 400, "InvalidHandle"},
		"too long":            {with("handle", strings.Repeat("a", 41)+".test"), 400, "InvalidHandle"},
		"two names":           {with("handle", "bob.evil.test"), 400, "InvalidHandle"},
		"closed domain":       {with("handle", "bob.onion"), 400, "InvalidHandle"},
		"other domain":        {with("handle", "bob.example.com"), 400, "UnsupportedDomain"},
		"e-mail taken":        {with("email", "Alice@Example.com"), 400, "InvalidRequest"},
		"e-mail odd":          {with("email", "bob@localhost@x.y"), 400, "InvalidRequest"},
		"no password":         {without("password"), 400, "InvalidPassword"},
		"short password":      {with("password", "short"), 400, "InvalidPassword"},
		"long password":       {with("password", strings.Repeat("x", 257)), 400, "InvalidPassword"},
		"bad recovery key":    {with("recoveryKey", "did:key:zzz"), 400, "InvalidRequest"},
		"did without token":   {with("did", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"), 401, "AuthMissing"},
		"nonsense plcOp":      {with("plcOp", map[string]any{"type": "nonsense"}), 400, "IncompatibleDidDoc"},
		"handle not a handle": {with("handle", "bob"), 400, ""},
		"handle missing":      {without("handle"), 400, "InvalidRequest"},
		"handle a number":     {with("handle", 7), 400, "InvalidRequest"},
	} {
		t.Run(name, func(t *testing.T) {
			posts := n.plc.posts
			a := n.call("com.atproto.server.createAccount", "", c.in)
			if c.error == "" {
				c.error = a.Name
			}
			want(t, a, c.status, c.error)
			if n.plc.posts != posts {
				t.Error("a refused sign-up reached the PLC directory")
			}
		})
	}
	// Nothing of it is left behind, and a recovery key comes first.
	a := n.call("com.atproto.server.createAccount", "", with("recoveryKey", key.Public().DIDKey()))
	want(t, a, 200, "")
	if got := n.plc.state(t, syntax.DID(a.str("did"))).RotationKeys; len(got) != 2 || got[0] != key.Public().DIDKey() {
		t.Errorf("rotation keys %v", got)
	}
}

func TestCreateAccountWithoutPLC(t *testing.T) {
	n := newNetwork(t, Config{})
	n.plc.fail = 503
	want(t, n.call("com.atproto.server.createAccount", "", signUpInput("alice")), 502, "UpstreamFailure")
	n.plc.fail = 400
	want(t, n.call("com.atproto.server.createAccount", "", signUpInput("alice")), 400, "InvalidRequest")
	n.plc.fail = 0
	n.signedUp("alice") // the name was not lost
}

func TestRacingSignUps(t *testing.T) {
	n := newNetwork(t, Config{InviteRequired: true})
	want(t, n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 3}, "", ""), 401, "AuthenticationRequired")
	want(t, n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 3}, "admin", "wrong"), 401, "AuthenticationRequired")
	want(t, n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 0}, "admin", "operator"), 400, "InvalidRequest")
	made := n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 3}, "admin", "operator")
	want(t, made, 200, "")

	const racers = 50
	var wg sync.WaitGroup
	answers := make([]answerOf, racers)
	for i := range racers {
		wg.Go(func() {
			in := signUpInput(fmt.Sprint("user", i))
			in["inviteCode"] = made.str("code")
			answers[i] = n.call("com.atproto.server.createAccount", "", in)
		})
	}
	wg.Wait()
	got := map[string]int{}
	for _, a := range answers {
		got[fmt.Sprint(a.Status, a.Name)]++
	}
	if !maps.Equal(got, map[string]int{"200": 3, "400InvalidInviteCode": racers - 3}) {
		t.Fatalf("outcomes: %v", got)
	}
	// Used up, unknown and missing look the same, also after a restart.
	n.restart()
	for _, code := range []any{made.str("code"), "no-such-code", ""} {
		in := signUpInput("late")
		in["inviteCode"] = code
		want(t, n.call("com.atproto.server.createAccount", "", in), 400, "InvalidInviteCode")
	}
	// A sign-up that fails gives its use back.
	made = n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 1}, "admin", "operator")
	in := signUpInput("late")
	in["inviteCode"] = made.str("code")
	n.plc.fail = 500
	want(t, n.call("com.atproto.server.createAccount", "", in), 502, "UpstreamFailure")
	n.plc.fail = 0
	want(t, n.call("com.atproto.server.createAccount", "", in), 200, "")
}

func TestRacingHandles(t *testing.T) {
	n := newNetwork(t, Config{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	ok := 0
	for range 20 {
		wg.Go(func() {
			in := signUpInput("alice")
			delete(in, "email")
			a := n.call("com.atproto.server.createAccount", "", in)
			mu.Lock()
			defer mu.Unlock()
			if a.Status == 200 {
				ok++
			} else if a.Name != "HandleNotAvailable" {
				t.Errorf("%d %s", a.Status, a.Body)
			}
		})
	}
	wg.Wait()
	if ok != 1 {
		t.Errorf("%d accounts got the handle", ok)
	}
}

func TestInviteCodesOfAccount(t *testing.T) {
	n := newNetwork(t, Config{})
	alice, bob := n.signedUp("alice"), n.signedUp("bob")
	made := n.admin("com.atproto.server.createInviteCodes", map[string]any{"codeCount": 2, "useCount": 1, "forAccounts": []string{alice.str("did"), bob.str("did")}}, "admin", "operator")
	want(t, made, 200, "")
	if codes, _ := made.JSON["codes"].([]any); len(codes) != 2 {
		t.Fatalf("codes: %s", made.Body)
	}
	a := n.query("com.atproto.server.getAccountInviteCodes", alice.str("accessJwt"))
	want(t, a, 200, "")
	codes, _ := a.JSON["codes"].([]any)
	if len(codes) != 2 || strings.Contains(string(a.Body), bob.str("did")) {
		t.Errorf("alice's codes: %s", a.Body)
	}
}

func TestCreateSession(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	for _, id := range []string{"alice.test", "ALICE.test", "@alice.test", a.str("did"), "alice@example.com", "Alice@Example.COM"} {
		s := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": id, "password": goodPassword})
		want(t, s, 200, "")
		if s.str("did") != a.str("did") || s.str("handle") != "alice.test" || s.JSON["active"] != true || s.JSON["emailConfirmed"] != false ||
			s.JSON["didDoc"] == nil || strings.Count(s.str("accessJwt"), ".") != 2 || strings.Count(s.str("refreshJwt"), ".") != 2 {
			t.Fatalf("%s: %s", id, s.Body)
		}
		// Clients read the expiry without checking the signature.
		_, c, _, _, err := splitToken(s.str("accessJwt"))
		if err != nil || c.Exp != n.clock.Now().Add(2*time.Hour).Unix() || c.Sub != a.str("did") || c.Scope != "com.atproto.access" || c.Aud != "did:web:localhost%3A2583" {
			t.Errorf("claims %+v, %v", c, err)
		}
	}
	wrong := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": "not the password"})
	unknown := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "nobody.test", "password": "not the password"})
	want(t, wrong, 401, "AuthenticationRequired")
	if string(wrong.Body) != string(unknown.Body) {
		t.Errorf("wrong password: %s\nunknown name: %s", wrong.Body, unknown.Body)
	}
	want(t, n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test"}), 400, "InvalidRequest")
	want(t, n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": strings.Repeat("x", 100_000)}), 401, "AuthenticationRequired")
}

// TestSignInWork checks that a name that isn't there costs as much work as one that is: the same number of hashes with the same parameters.
func TestSignInWork(t *testing.T) {
	p, err := newPasswords(strings.NewReader(strings.Repeat("r", 48)), 8<<10)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	hash, err := p.hash(ctx, goodPassword, []byte("sixteen byte slt"))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := hash[:strings.LastIndexByte(hash, '$')], p.dummy[:strings.LastIndexByte(p.dummy, '$')]; len(a) != len(b) || a[:30] != b[:30] {
		t.Errorf("the dummy hash %s does not cost what %s costs", b, a)
	}
	took := func(encoded, password string, expect bool) time.Duration {
		best := time.Hour
		for range 7 {
			start := time.Now()
			if ok, err := p.verify(ctx, encoded, password); err != nil || ok != expect {
				t.Fatalf("verify: %v, %v", ok, err)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	right, unknown, long := took(hash, goodPassword, true), took("", goodPassword, false), took(hash, strings.Repeat("x", 1<<20), false)
	t.Logf("right %v, unknown %v, too long %v", right, unknown, long)
	for _, d := range []time.Duration{unknown, long} {
		if d < right/2 || d > right*2 {
			t.Errorf("takes %v, a known name takes %v", d, right)
		}
	}
	if ok, _ := p.verify(ctx, "", "nobody's password"); ok {
		t.Error("the dummy hash let somebody in")
	}
}

func TestPasswordQueue(t *testing.T) {
	p, err := newPasswords(strings.NewReader(strings.Repeat("r", 48)), 64)
	if err != nil {
		t.Fatal(err)
	}
	for range maxHashing {
		p.turn <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.verify(ctx, "", "x"); err != context.Canceled {
		t.Errorf("waiting with a dead context: %v", err)
	}
	for range maxHashQueue {
		p.queue <- struct{}{}
	}
	if _, err := p.verify(context.Background(), "", "x"); err != errBusy {
		t.Errorf("past the queue: %v", err)
	}
}

func TestSignInLimit(t *testing.T) {
	n := newNetwork(t, Config{})
	n.signedUp("alice")
	in := map[string]any{"identifier": "alice.test", "password": "not the password"}
	var last answerOf
	for i := range 30 {
		if last = n.call("com.atproto.server.createSession", "", in); last.Status != 401 {
			t.Fatalf("try %d: %d", i, last.Status)
		}
	}
	if last.Header.Get("RateLimit-Remaining") != "0" || last.Header.Get("RateLimit-Limit") != "30" {
		t.Errorf("headers %v", last.Header)
	}
	in["password"] = goodPassword // the limit doesn't depend on the password, or it would tell which is right
	a := n.call("com.atproto.server.createSession", "", in)
	want(t, a, 429, "RateLimitExceeded")
	if a.Header.Get("Retry-After") == "" || a.Header.Get("RateLimit-Reset") == "" {
		t.Errorf("headers %v", a.Header)
	}
	in["identifier"] = "Alice@Example.com" // another name of the same account
	want(t, n.call("com.atproto.server.createSession", "", in), 429, "RateLimitExceeded")
	n.clock.Advance(5 * time.Minute)
	want(t, n.call("com.atproto.server.createSession", "", in), 200, "")
}

func TestClientAddress(t *testing.T) {
	s := &Service{cfg: Config{Accounts: AccountConfig{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}}
	for _, c := range []struct{ remote, forwarded, want string }{
		{"1.2.3.4:5", "", "1.2.3.4"},
		{"1.2.3.4:5", "9.9.9.9", "1.2.3.4"},                     // not from a proxy
		{"10.0.0.1:5", "9.9.9.9", "9.9.9.9"},                    // from one
		{"10.0.0.1:5", "6.6.6.6, 9.9.9.9", "9.9.9.9"},           // the client wrote the first
		{"10.0.0.1:5", "6.6.6.6, 9.9.9.9, 10.2.2.2", "9.9.9.9"}, // two proxies
		{"10.0.0.1:5", "nonsense", "10.0.0.1"},
		{"[2001:db8:1:2:3::4]:5", "", "2001:db8:1:2::/64"},
		{"[::ffff:1.2.3.4]:5", "", "1.2.3.4"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{}}
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := addressKey(s.clientAddr(r)); got != c.want {
			t.Errorf("%v: got %s", c, got)
		}
	}
}

func TestRefreshRotation(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	refresh := func(token string) answerOf { return n.call("com.atproto.server.refreshSession", token, nil) }
	first := a.str("refreshJwt")

	// Many requests with one token at once all get the same successor.
	var wg sync.WaitGroup
	got := make([]answerOf, 20)
	for i := range got {
		wg.Go(func() { got[i] = refresh(first) })
	}
	wg.Wait()
	jti := func(token string) string {
		_, c, _, _, err := splitToken(token)
		if err != nil {
			t.Fatal(err)
		}
		return c.Jti
	}
	for _, g := range got {
		want(t, g, 200, "")
		if jti(g.str("refreshJwt")) != jti(got[0].str("refreshJwt")) {
			t.Fatal("racing refreshes got different successors")
		}
		if g.JSON["didDoc"] == nil || g.JSON["active"] != true || g.str("handle") != "alice.test" {
			t.Errorf("answer: %s", g.Body)
		}
	}
	second := got[0].str("refreshJwt")
	n.restart() // sessions are durable
	want(t, n.query("com.atproto.server.getSession", a.str("accessJwt")), 200, "")
	s3 := refresh(second)
	want(t, s3, 200, "")

	// A token used after its grace ends the whole session: somebody copied it.
	n.clock.Advance(3 * time.Minute)
	want(t, refresh(second), 400, "ExpiredToken")
	want(t, refresh(s3.str("refreshJwt")), 400, "ExpiredToken")

	// Other sessions of the account are not touched, and end by themselves.
	s := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword})
	want(t, n.call("com.atproto.server.deleteSession", s.str("accessJwt"), nil), 400, "InvalidToken")
	want(t, n.call("com.atproto.server.deleteSession", s.str("refreshJwt"), nil), 200, "")
	want(t, refresh(s.str("refreshJwt")), 400, "ExpiredToken")
	want(t, n.call("com.atproto.server.deleteSession", s.str("refreshJwt"), nil), 200, "")

	s = n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword})
	n.clock.Advance(accessLife)
	want(t, n.query("com.atproto.server.getSession", s.str("accessJwt")), 400, "ExpiredToken")
	n.clock.Advance(refreshLife)
	want(t, refresh(s.str("refreshJwt")), 400, "ExpiredToken")
}

// forge makes a token with any header, claims and signature.
func forge(h, c any, sign func(signed string) []byte) string {
	hb, _ := json.Marshal(h)
	cb, _ := json.Marshal(c)
	signed := base64url.EncodeToString(hb) + "." + base64url.EncodeToString(cb)
	return signed + "." + base64url.EncodeToString(sign(signed))
}

func TestForgedSessionTokens(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did := a.str("did")
	now := n.clock.Now().Unix()
	good := map[string]any{"scope": "com.atproto.access", "sub": did, "aud": "did:web:localhost%3A2583", "iat": now, "exp": now + 60}
	with := func(k string, v any) map[string]any { m := maps.Clone(good); m[k] = v; return m }
	own := func(signed string) []byte { return hs256(n.accounts.secrets.session, signed) }
	none := func(string) []byte { return nil }
	other := func(signed string) []byte { return hs256([]byte("guess"), signed) }
	row, err := n.Service.account(syntax.DID(did))
	if err != nil {
		t.Fatal(err)
	}
	key, err := n.openKey(row)
	if err != nil {
		t.Fatal(err)
	}
	es := func(signed string) []byte { sig, _ := key.Sign([]byte(signed)); return sig }
	public := func(signed string) []byte {
		m := hmac.New(sha256.New, []byte(key.Public().Multikey()))
		m.Write([]byte(signed))
		return m.Sum(nil)
	}
	hdr := func(typ, alg string) map[string]any { return map[string]any{"typ": typ, "alg": alg} }
	if s := n.query("com.atproto.server.getSession", forge(hdr("at+jwt", "HS256"), good, own)); s.Status != 200 {
		t.Fatalf("the forger does not work: %s", s.Body)
	}
	valid := a.str("accessJwt")
	parts := strings.Split(valid, ".")
	for name, token := range map[string]string{
		"alg none":               forge(hdr("at+jwt", "none"), good, none),
		"alg none, own mac":      forge(hdr("at+jwt", "none"), good, own),
		"other secret":           forge(hdr("at+jwt", "HS256"), good, other),
		"public key as secret":   forge(hdr("at+jwt", "HS256"), good, public),
		"ES256K":                 forge(hdr("at+jwt", "ES256K"), good, es),
		"ES256K header, own mac": forge(hdr("at+jwt", "ES256K"), good, own),
		"no type":                forge(hdr("", "HS256"), good, own),
		"type JWT":               forge(hdr("JWT", "HS256"), good, own),
		"refresh type":           forge(hdr("refresh+jwt", "HS256"), good, own),
		"refresh scope":          forge(hdr("at+jwt", "HS256"), with("scope", "com.atproto.refresh"), own),
		"unknown scope":          forge(hdr("at+jwt", "HS256"), with("scope", "root"), own),
		"other audience":         forge(hdr("at+jwt", "HS256"), with("aud", "did:web:evil.example"), own),
		"no expiry":              forge(hdr("at+jwt", "HS256"), with("exp", 0), own),
		"no subject":             forge(hdr("at+jwt", "HS256"), with("sub", ""), own),
		"critical extension":     forge(map[string]any{"typ": "at+jwt", "alg": "HS256", "crit": []string{"b64"}}, good, own),
		"refresh token":          a.str("refreshJwt"),
		"two parts":              parts[0] + "." + parts[1],
		"four parts":             valid + ".AAAA",
		"no signature":           parts[0] + "." + parts[1] + ".",
		"swapped claims":         parts[0] + "." + strings.Split(a.str("refreshJwt"), ".")[1] + "." + parts[2],
		"padding":                valid + "=",
		"long":                   strings.Repeat("a", 10_000),
		"dots":                   "..",
		"nonsense":               "nonsense",
	} {
		t.Run(name, func(t *testing.T) {
			want(t, n.query("com.atproto.server.getSession", token), 400, "InvalidToken")
		})
	}
	want(t, n.query("com.atproto.server.getSession", forge(hdr("at+jwt", "HS256"), with("exp", now-1), own)), 400, "ExpiredToken")
	want(t, n.query("com.atproto.server.getSession", forge(hdr("at+jwt", "HS256"), with("sub", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"), own)), 403, "AccountNotFound")
	want(t, n.query("com.atproto.server.getSession", ""), 401, "AuthMissing")
	want(t, n.call("com.atproto.server.refreshSession", valid, nil), 400, "InvalidToken")
	want(t, n.call("com.atproto.server.refreshSession", forge(hdr("refresh+jwt", "HS256"), with("scope", "com.atproto.refresh"), own), nil), 400, "InvalidToken")

	// An expired token with a forged signature is forged, not expired.
	want(t, n.query("com.atproto.server.getSession", forge(hdr("at+jwt", "HS256"), with("exp", now-1), other)), 400, "InvalidToken")
	// A token of this server doesn't work at another one.
	if _, err := verifySession([]byte("another secret"), typAccess, "did:web:localhost%3A2583", valid, now); err == nil {
		t.Error("verified with another secret")
	}
}

func FuzzSplitToken(f *testing.F) {
	t1, _ := signSession([]byte("secret"), typAccess, jwtClaims{Sub: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Aud: "did:web:x", Exp: 10})
	for _, s := range []string{t1, "..", "a.b.c", "e30.e30.", "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _, signed, sig, err := splitToken(s)
		if err == nil && signed+"."+base64url.EncodeToString(sig) != s {
			t.Fatalf("%q is not what it was made of", s)
		}
		if c, err := verifySession([]byte("secret"), typAccess, "did:web:x", s, 5); err == nil && s != t1 {
			t.Fatalf("%q verified: %+v", s, c)
		}
	})
}

func TestServiceAuth(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	tok := a.str("accessJwt")
	now := n.clock.Now().Unix()
	get := func(q string) answerOf { return n.query("com.atproto.server.getServiceAuth?"+q, tok) }
	ok := get("aud=did:web:video.example%23svc&lxm=app.bsky.video.uploadVideo")
	want(t, ok, 200, "")
	h, c, signed, sig, err := splitToken(ok.str("token"))
	if err != nil {
		t.Fatal(err)
	}
	if h.Alg != "ES256K" || h.Typ != "JWT" || c.Iss != a.str("did") || c.Aud != "did:web:video.example#svc" || c.Lxm != "app.bsky.video.uploadVideo" ||
		c.Exp != now+60 || c.Iat != now || c.Jti == "" {
		t.Errorf("token %+v %+v", h, c)
	}
	key, err := keys.ParseDIDKey(n.plc.state(t, syntax.DID(a.str("did"))).SigningKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Verify([]byte(signed), sig); err != nil {
		t.Errorf("signature: %v", err)
	}
	aud := "aud=did:web:video.example"
	want(t, get(aud+fmt.Sprint("&lxm=com.atproto.repo.uploadBlob&exp=", now+3600)), 200, "")
	want(t, get(aud+fmt.Sprint("&lxm=com.atproto.repo.uploadBlob&exp=", now+3601)), 400, "BadExpiration")
	want(t, get(aud+fmt.Sprint("&lxm=com.atproto.repo.uploadBlob&exp=", now-1)), 400, "BadExpiration")
	want(t, get(aud+fmt.Sprint("&exp=", now+60)), 200, "")
	want(t, get(aud+fmt.Sprint("&exp=", now+61)), 400, "BadExpiration")
	want(t, get(aud+"&lxm=com.atproto.server.deactivateAccount"), 400, "InvalidRequest")
	want(t, get("aud=nonsense"), 400, "InvalidRequest")
	want(t, get("aud=did:web:x.example%23"), 400, "InvalidRequest")
	want(t, n.query("com.atproto.server.getServiceAuth?"+aud, ""), 401, "AuthMissing")
	// A service token is no session token.
	want(t, n.query("com.atproto.server.getSession", ok.str("token")), 400, "InvalidToken")
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

func TestMigrationIn(t *testing.T) {
	n := newNetwork(t, Config{})
	f := n.foreign("carol.example.com")
	in := map[string]any{"handle": "carol.example.com", "did": f.did, "email": "carol@example.com", "password": goodPassword}
	create := func(token string) answerOf { return n.call("com.atproto.server.createAccount", token, in) }
	now := n.clock.Now().Unix()
	other := n.foreign("dave.example.com")
	for name, c := range map[string]struct{ token, error string }{
		"other account":  {other.token(n, nil), "AuthenticationRequired"},
		"other service":  {f.token(n, func(_, c map[string]any) { c["aud"] = "did:web:evil.example" }), "BadJwtAudience"},
		"other fragment": {f.token(n, func(_, c map[string]any) { c["aud"] = "did:web:localhost%3A2583#bsky_appview" }), "BadJwtAudience"},
		"other method":   {f.token(n, func(_, c map[string]any) { c["lxm"] = "com.atproto.repo.uploadBlob" }), "BadJwtLexiconMethod"},
		"no method":      {f.token(n, func(_, c map[string]any) { delete(c, "lxm") }), "BadJwtLexiconMethod"},
		"expired":        {f.token(n, func(_, c map[string]any) { c["exp"] = now - 120 }), "JwtExpired"},
		"no expiry":      {f.token(n, func(_, c map[string]any) { delete(c, "exp") }), "JwtExpired"},
		"lives long":     {f.token(n, func(_, c map[string]any) { c["exp"] = now + 86400 }), "BadJwt"},
		"no jti":         {f.token(n, func(_, c map[string]any) { delete(c, "jti") }), "BadJwt"},
		"session type":   {f.token(n, func(h, _ map[string]any) { h["typ"] = "at+jwt" }), "BadJwtType"},
		"alg none":       {f.token(n, func(h, _ map[string]any) { h["alg"] = "none" }), "BadJwtAlgorithm"},
		"alg HS256":      {f.token(n, func(h, _ map[string]any) { h["alg"] = "HS256" }), "BadJwtAlgorithm"},
		"other curve":    {f.token(n, func(h, _ map[string]any) { h["alg"] = "ES256" }), "BadJwtSignature"},
		"other key id":   {f.token(n, func(h, _ map[string]any) { h["kid"] = "#atproto_label" }), "BadJwtKey"},
		"other issuer":   {f.token(n, func(_, c map[string]any) { c["iss"] = other.did }), "BadJwtSignature"},
		"issuer no DID":  {f.token(n, func(_, c map[string]any) { c["iss"] = "carol" }), "BadJwtIss"},
		"nonsense":       {"nonsense", "BadJwt"},
	} {
		t.Run(name, func(t *testing.T) { want(t, create(c.token), 401, c.error) })
	}
	unknown := f.token(n, func(_, c map[string]any) { c["iss"] = "did:plc:ewvi7nxzyoun6zhxrhs64oiz" })
	want(t, create(unknown), 400, "UnresolvableDid")

	in["handle"] = "dave.example.com" // somebody else's
	want(t, create(f.token(n, nil)), 400, "InvalidHandle")
	in["handle"] = "carol.example.com"
	token := f.token(n, func(_, c map[string]any) { c["aud"] = "did:web:localhost%3A2583#atproto_pds" })
	before := n.log.Head()
	a := create(token)
	want(t, a, 200, "")
	if n.log.Head() != before {
		t.Error("an account that isn't active yet emitted events")
	}
	want(t, create(token), 401, "BadJwt") // used before
	want(t, create(f.token(n, nil)), 400, "AlreadyExists")
	tok := a.str("accessJwt")
	s := n.query("com.atproto.server.getSession", tok)
	want(t, s, 200, "")
	if s.JSON["active"] != false || s.str("status") != "deactivated" {
		t.Errorf("session: %s", s.Body)
	}
	st := n.query("com.atproto.server.checkAccountStatus", tok)
	want(t, st, 200, "")
	if st.JSON["activated"] != false || st.JSON["validDid"] != false || st.JSON["repoBlocks"] != float64(2) {
		t.Errorf("status: %s", st.Body)
	}
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 400, "InvalidRequest")

	// The identity moves: with what this server recommends, signed by the owner's rotation key.
	rec := n.query("com.atproto.identity.getRecommendedDidCredentials", tok)
	want(t, rec, 200, "")
	row, err := n.Service.account(f.did)
	if err != nil {
		t.Fatal(err)
	}
	last := n.plc.logs[f.did][0].Operation
	d := plc.AtprotoData(row.PublicKey, "carol.example.com", "http://localhost:2583", f.rotation.Public().DIDKey(), n.accounts.secrets.rotation.Public().DIDKey())
	if !strings.Contains(string(rec.Body), row.PublicKey) || !strings.Contains(string(rec.Body), "at://carol.example.com") || !strings.Contains(string(rec.Body), n.accounts.secrets.rotation.Public().DIDKey()) {
		t.Errorf("recommended: %s", rec.Body)
	}
	submit := func(d plc.Data) answerOf {
		op := plc.NewOperation(d, last.CID())
		if err := op.Sign(f.rotation); err != nil {
			t.Fatal(err)
		}
		var raw any
		if err := json.Unmarshal(op.AppendJSON(nil), &raw); err != nil {
			t.Fatal(err)
		}
		return n.call("com.atproto.identity.submitPlcOperation", tok, map[string]any{"operation": raw})
	}
	for name, spoil := range map[string]func(*plc.Data){
		"rotation key": func(d *plc.Data) { d.RotationKeys = d.RotationKeys[:1] },
		"endpoint":     func(d *plc.Data) { d.SetPDS("https://evil.example.com") },
		"type": func(d *plc.Data) {
			d.Services["atproto_pds"] = plc.Service{Type: "Other", Endpoint: "http://localhost:2583"}
		},
		"key":    func(d *plc.Data) { d.SetSigningKey(f.key.Public().DIDKey()) },
		"handle": func(d *plc.Data) { d.SetHandle("dave.example.com") },
	} {
		bad := d.Clone()
		spoil(&bad)
		if a := submit(bad); a.Status != 400 || a.Name != "InvalidRequest" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	want(t, submit(d), 200, "")
	before = n.log.Head()
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 200, "")
	if got := n.log.Head() - before; got != 3 {
		t.Errorf("activation made %d events, want #identity, #account and #sync", got)
	}
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 200, "")
	key, _ := keys.ParseDIDKey(row.PublicKey)
	n.checkRepo(f.did, key)
	st = n.query("com.atproto.server.checkAccountStatus", tok)
	if st.JSON["activated"] != true || st.JSON["validDid"] != true {
		t.Errorf("status: %s", st.Body)
	}
}

func TestCallerSignsGenesis(t *testing.T) {
	n := newNetwork(t, Config{})
	k := n.call("com.atproto.server.reserveSigningKey", "", map[string]any{})
	want(t, k, 200, "")
	mine, err := keys.Generate(keys.P256, randomReader{n.Service})
	if err != nil {
		t.Fatal(err)
	}
	genesis := func(d plc.Data) any {
		op := plc.NewOperation(d, cid.CID{})
		if err := op.Sign(mine); err != nil {
			t.Fatal(err)
		}
		var raw any
		if err := json.Unmarshal(op.AppendJSON(nil), &raw); err != nil {
			t.Fatal(err)
		}
		return raw
	}
	server := n.accounts.secrets.rotation.Public().DIDKey()
	good := plc.AtprotoData(k.str("signingKey"), "erin.test", "http://localhost:2583", mine.Public().DIDKey(), server)
	for name, spoil := range map[string]func(*plc.Data){
		"server key missing": func(d *plc.Data) { d.RotationKeys = d.RotationKeys[:1] },
		"key not reserved":   func(d *plc.Data) { d.SetSigningKey(mine.Public().DIDKey()) },
		"other endpoint":     func(d *plc.Data) { d.SetPDS("https://evil.example.com") },
		"other handle":       func(d *plc.Data) { d.SetHandle("mallory.test") },
		"not its own signer": func(d *plc.Data) { d.RotationKeys = d.RotationKeys[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			d := good.Clone()
			spoil(&d)
			in := signUpInput("erin")
			in["plcOp"] = genesis(d)
			want(t, n.call("com.atproto.server.createAccount", "", in), 400, "IncompatibleDidDoc")
		})
	}
	in := signUpInput("erin")
	in["plcOp"] = genesis(good)
	a := n.call("com.atproto.server.createAccount", "", in)
	want(t, a, 200, "")
	key, _ := keys.ParseDIDKey(k.str("signingKey"))
	n.checkRepo(syntax.DID(a.str("did")), key)
}

func TestUpdateHandle(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	n.signedUp("bob")
	did, tok := syntax.DID(a.str("did")), a.str("accessJwt")
	update := func(h string) answerOf {
		return n.call("com.atproto.identity.updateHandle", tok, map[string]any{"handle": h})
	}
	want(t, update("bob.test"), 400, "HandleNotAvailable")
	want(t, update("x.y.test"), 400, "InvalidHandle")
	want(t, update("alice.example.com"), 400, "InvalidHandle") // does not resolve
	want(t, n.call("com.atproto.identity.updateHandle", "", map[string]any{"handle": "alicia.test"}), 401, "AuthMissing")

	before := n.log.Head()
	want(t, update("Alicia.test"), 200, "")
	if got := n.plc.state(t, did).Handle(); got != "alicia.test" {
		t.Errorf("identity has %s", got)
	}
	frames := n.frames()
	if id, ok := frames[len(frames)-1].(*stream.Identity); !ok || id.Handle != "alicia.test" || n.log.Head() != before+1 {
		t.Errorf("last event: %+v", frames[len(frames)-1])
	}
	if r := n.query("com.atproto.identity.resolveHandle?handle=alicia.test", ""); r.str("did") != string(did) {
		t.Errorf("new name: %s", r.Body)
	}
	want(t, n.query("com.atproto.identity.resolveHandle?handle=alice.test", ""), 400, "HandleNotFound")
	if s := n.query("com.atproto.server.getSession", tok); s.str("handle") != "alicia.test" {
		t.Errorf("session: %s", s.Body)
	}
	if d := n.query("com.atproto.repo.describeRepo?repo=alicia.test", ""); d.str("handle") != "alicia.test" || d.JSON["handleIsCorrect"] != true {
		t.Errorf("describeRepo: %s", d.Body)
	}
	if i := n.query("com.atproto.identity.resolveIdentity?identifier=alicia.test", ""); i.str("handle") != "alicia.test" || i.str("did") != string(did) {
		t.Errorf("resolveIdentity: %s", i.Body)
	}
	// A name of one's own works once it resolves; the old one is free for others.
	n.clock.Advance(10 * time.Minute)
	n.dns.set("alice.example.com", did)
	want(t, update("alice.example.com"), 200, "")
	n.signedUp2("alicia")
	n.restart()
	if r := n.query("com.atproto.identity.resolveHandle?handle=alice.example.com", ""); r.str("did") != string(did) {
		t.Errorf("after a restart: %s", r.Body)
	}
	// When the directory doesn't answer, nothing changes here.
	n.plc.fail = 500
	want(t, update("alice.test"), 502, "UpstreamFailure")
	want(t, n.query("com.atproto.identity.resolveHandle?handle=alice.test", ""), 400, "HandleNotFound")
	n.plc.fail = 0
	for range 20 {
		if u := update("alice.test"); u.Status == 429 {
			return
		}
	}
	t.Error("updateHandle is not limited")
}

// signedUp2 makes an account without an e-mail address.
func (n *network) signedUp2(name string) answerOf {
	n.t.Helper()
	in := signUpInput(name)
	delete(in, "email")
	a := n.call("com.atproto.server.createAccount", "", in)
	want(n.t, a, 200, "")
	return a
}

func TestDeactivate(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	want(t, n.call("com.atproto.server.deactivateAccount", tok, map[string]any{"deleteAfter": "soon"}), 400, "InvalidRequest")
	want(t, n.call("com.atproto.server.deactivateAccount", tok, map[string]any{"deleteAfter": "2026-05-01T00:00:00Z"}), 200, "")
	frames := n.frames()
	if e, ok := frames[len(frames)-1].(*stream.Account); !ok || e.Active || e.Status != "deactivated" {
		t.Errorf("event: %+v", frames[len(frames)-1])
	}
	n.restart()
	row, err := n.Service.account(syntax.DID(did))
	if err != nil || row.DeleteAfter != "2026-05-01T00:00:00Z" || row.Status != hostingDeactivated {
		t.Errorf("row %+v, %v", row, err)
	}
	s := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword})
	want(t, s, 200, "")
	if s.JSON["active"] != false || s.str("status") != "deactivated" {
		t.Errorf("session: %s", s.Body)
	}
	w := n.call("com.atproto.repo.createRecord", tok, map[string]any{"repo": did, "collection": "app.bsky.feed.post", "record": map[string]any{"$type": "app.bsky.feed.post", "text": "x", "createdAt": "2026-01-02T03:04:05.678Z"}})
	if w.Name != "AccountDeactivated" {
		t.Errorf("writing: %d %s", w.Status, w.Body)
	}
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 200, "")
	frames = n.frames()
	if _, ok := frames[len(frames)-1].(*stream.Sync); !ok {
		t.Errorf("event: %+v", frames[len(frames)-1])
	}
	if row, _ := n.Service.account(syntax.DID(did)); row.DeleteAfter != "" || !row.active() {
		t.Errorf("row %+v", row)
	}
}

func TestTakedown(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := syntax.DID(a.str("did")), a.str("accessJwt")
	if err := n.submitAccountEvents(context.Background(), did, accountChange{Account: true, Status: hostingTakendown}); err != nil {
		t.Fatal(err)
	}
	want(t, n.query("com.atproto.server.getSession", tok), 401, "AccountTakedown")
	want(t, n.call("com.atproto.server.refreshSession", a.str("refreshJwt"), nil), 401, "AccountTakedown")
	in := map[string]any{"identifier": "alice.test", "password": goodPassword}
	want(t, n.call("com.atproto.server.createSession", "", in), 401, "AccountTakedown")
	in["allowTakendown"] = true
	s := n.call("com.atproto.server.createSession", "", in)
	want(t, s, 200, "")
	// It may look at itself and move out, and nothing else.
	tok = s.str("accessJwt")
	want(t, n.query("com.atproto.server.getSession", tok), 200, "")
	want(t, n.query("com.atproto.server.getServiceAuth?aud=did:web:x.example&lxm=com.atproto.server.createAccount", tok), 200, "")
	want(t, n.query("com.atproto.server.getServiceAuth?aud=did:web:x.example&lxm=com.atproto.repo.uploadBlob", tok), 400, "InvalidToken")
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 400, "InvalidToken")
	want(t, n.call("com.atproto.server.refreshSession", s.str("refreshJwt"), nil), 200, "")
}

func TestDeleteAccount(t *testing.T) {
	var log syncBuffer
	n := newNetwork(t, Config{Accounts: AccountConfig{LogTokens: true}})
	n.Service.world.Log = log.logger()
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	want(t, n.call("com.atproto.server.requestAccountDelete", tok, nil), 200, "")
	token := log.token(t)
	in := map[string]any{"did": did, "password": goodPassword, "token": "WRONG"}
	want(t, n.call("com.atproto.server.deleteAccount", "", in), 400, "InvalidToken")
	in["token"], in["password"] = token, "not the password"
	want(t, n.call("com.atproto.server.deleteAccount", "", in), 401, "AuthenticationRequired")
	in["password"] = goodPassword
	n.clock.Advance(16 * time.Minute)
	want(t, n.call("com.atproto.server.deleteAccount", "", in), 400, "ExpiredToken")
	want(t, n.call("com.atproto.server.requestAccountDelete", tok, nil), 200, "")
	in["token"] = log.token(t)
	want(t, n.call("com.atproto.server.deleteAccount", "", in), 200, "")
	frames := n.frames()
	if e, ok := frames[len(frames)-1].(*stream.Account); !ok || e.Active || e.Status != "deleted" {
		t.Errorf("event: %+v", frames[len(frames)-1])
	}
	n.restart()
	want(t, n.query("com.atproto.server.getSession", tok), 403, "AccountNotFound")
	want(t, n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword}), 401, "AuthenticationRequired")
	want(t, n.query("com.atproto.identity.resolveHandle?handle=alice.test", ""), 400, "HandleNotFound")
	if st := n.query("com.atproto.sync.getRepoStatus?did="+did, ""); st.JSON["active"] != false || st.str("status") != "deleted" {
		t.Errorf("repo status: %d %s", st.Status, st.Body)
	}
	n.signedUp("alice") // name and address are free again
}

func TestSignPlcOperation(t *testing.T) {
	var log syncBuffer
	n := newNetwork(t, Config{Accounts: AccountConfig{LogTokens: true}})
	n.Service.world.Log = log.logger()
	a := n.signedUp("alice")
	tok := a.str("accessJwt")
	mine, _ := keys.Generate(keys.K256, randomReader{n.Service})
	server := n.accounts.secrets.rotation.Public().DIDKey()
	in := map[string]any{"token": "WRONG", "rotationKeys": []string{mine.Public().DIDKey(), server}}
	want(t, n.call("com.atproto.identity.signPlcOperation", tok, in), 400, "InvalidToken")
	want(t, n.call("com.atproto.identity.requestPlcOperationSignature", tok, nil), 200, "")
	in["token"] = log.token(t)
	s := n.call("com.atproto.identity.signPlcOperation", tok, in)
	want(t, s, 200, "")
	want(t, n.call("com.atproto.identity.signPlcOperation", tok, in), 400, "InvalidToken") // once
	before := n.log.Head()
	want(t, n.call("com.atproto.identity.submitPlcOperation", tok, map[string]any{"operation": s.JSON["operation"]}), 200, "")
	if got := n.plc.state(t, syntax.DID(a.str("did"))).RotationKeys; len(got) != 2 || got[0] != mine.Public().DIDKey() {
		t.Errorf("rotation keys %v", got)
	}
	if n.log.Head() != before+1 {
		t.Error("no #identity event")
	}
}

func TestActor(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	b := n.signedUp("bob")
	tok, did := a.str("accessJwt"), a.str("did")
	put := func(collection, rkey string, record map[string]any) {
		t.Helper()
		want(t, n.call("com.atproto.repo.putRecord", tok, map[string]any{"repo": did, "collection": collection, "rkey": rkey, "record": record}), 200, "")
	}
	put("app.bsky.actor.profile", "self", map[string]any{"$type": "app.bsky.actor.profile", "displayName": "Alice", "description": "hello"})
	for i := range 3 {
		put("app.bsky.feed.post", fmt.Sprintf("3jzfcijpj2z2%c", 'a'+i), map[string]any{"$type": "app.bsky.feed.post", "text": "x", "createdAt": "2026-01-02T03:04:05.678Z"})
	}
	put("app.bsky.graph.follow", "3jzfcijpj2z2a", map[string]any{"$type": "app.bsky.graph.follow", "subject": b.str("did"), "createdAt": "2026-01-02T03:04:05.678Z"})
	p := n.query("app.bsky.actor.getProfile?actor=alice.test", tok)
	want(t, p, 200, "")
	if p.str("displayName") != "Alice" || p.str("description") != "hello" || p.JSON["postsCount"] != float64(3) || p.JSON["followsCount"] != float64(1) || p.str("handle") != "alice.test" {
		t.Errorf("profile: %s", p.Body)
	}
	want(t, n.query("app.bsky.actor.getProfile?actor=nobody.test", tok), 400, "InvalidRequest")
	ps := n.query("app.bsky.actor.getProfiles?actors=alice.test&actors="+b.str("did")+"&actors=nobody.test", tok)
	want(t, ps, 200, "")
	if list, _ := ps.JSON["profiles"].([]any); len(list) != 2 {
		t.Errorf("profiles: %s", ps.Body)
	}

	prefs := n.query("app.bsky.actor.getPreferences", tok)
	want(t, prefs, 200, "")
	if string(prefs.Body) != `{"preferences":[]}` {
		t.Errorf("no preferences: %s", prefs.Body)
	}
	list := []any{
		map[string]any{"$type": "app.bsky.actor.defs#adultContentPref", "enabled": true},
		map[string]any{"$type": "app.bsky.actor.defs#somethingNew", "deep": map[string]any{"er": []any{1, "two", nil}}},
	}
	want(t, n.call("app.bsky.actor.putPreferences", tok, map[string]any{"preferences": list}), 200, "")
	n.restart()
	prefs = n.query("app.bsky.actor.getPreferences", tok)
	if got, _ := json.Marshal(prefs.JSON["preferences"]); string(got) != `[{"$type":"app.bsky.actor.defs#adultContentPref","enabled":true},{"$type":"app.bsky.actor.defs#somethingNew","deep":{"er":[1,"two",null]}}]` {
		t.Errorf("preferences: %s", got)
	}
	for _, bad := range []any{nil, "x", []any{map[string]any{"enabled": true}}, []any{map[string]any{"$type": "com.example.pref"}}} {
		want(t, n.call("app.bsky.actor.putPreferences", tok, map[string]any{"preferences": bad}), 400, "InvalidRequest")
	}
	want(t, n.query("app.bsky.actor.getPreferences", ""), 401, "AuthMissing")
}

func TestWellKnown(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	get := func(path, host string) (int, string) {
		req, _ := http.NewRequest(http.MethodGet, n.URL+path, nil)
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, host := range []string{"alice.test", "ALICE.test:2583"} {
		if code, body := get("/.well-known/atproto-did", host); code != 200 || body != a.str("did") {
			t.Errorf("%s: %d %q", host, code, body)
		}
	}
	for _, host := range []string{"bob.test", "localhost", "127.0.0.1:80"} {
		if code, _ := get("/.well-known/atproto-did", host); code != 404 {
			t.Errorf("%s: %d", host, code)
		}
	}
	code, body := get("/.well-known/did.json", "localhost:2583")
	if code != 200 || !strings.Contains(body, `"id":"did:web:localhost%3A2583"`) || !strings.Contains(body, `"serviceEndpoint":"http://localhost:2583"`) {
		t.Errorf("%d %s", code, body)
	}
	d := n.query("com.atproto.server.describeServer", "")
	want(t, d, 200, "")
	if d.str("did") != "did:web:localhost%3A2583" || fmt.Sprint(d.JSON["availableUserDomains"]) != "[.test]" {
		t.Errorf("describeServer: %s", d.Body)
	}
}

func TestSecretsMustNotGetLost(t *testing.T) {
	n := newNetwork(t, Config{})
	n.signedUp("alice")
	for _, name := range []string{"sealing.key", "plc-rotation.key"} {
		path := "data/secrets/" + name
		if err := n.world.FS.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		n.testPDS.stop()
		if s, err := New(n.Service.cfg, n.world); err == nil {
			s.Close()
			t.Errorf("started without %s", name)
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("the error doesn't name the file: %v", err)
		}
		if err := n.world.FS.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		n.testPDS = openPDS(t, n.world, n.cfg)
	}
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
