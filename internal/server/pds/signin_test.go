package pds

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

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
	// Work is counted, not timed: a busy machine says nothing about what a stranger can measure.
	var done []string
	p.derive = func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte {
		done = append(done, fmt.Sprint(time, memory, threads, keyLen, len(salt)))
		return argon2.IDKey(password, salt, time, memory, threads, keyLen)
	}
	work := func(encoded, password string, expect bool) string {
		done = nil
		if ok, err := p.verify(ctx, encoded, password); err != nil || ok != expect {
			t.Fatalf("verify: %v, %v", ok, err)
		}
		return strings.Join(done, ", ")
	}
	right := work(hash, goodPassword, true)
	if right == "" {
		t.Fatal("a right password is found without hashing")
	}
	for name, got := range map[string]string{
		"unknown name":      work("", goodPassword, false),
		"wrong password":    work(hash, "not the password", false),
		"too long password": work(hash, strings.Repeat("x", 1<<20), false),
	} {
		if got != right {
			t.Errorf("%s: work %s, a right password takes %s", name, got, right)
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
		if got := httpd.ClientKey(s.clientAddr(r)); got != c.want {
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

func BenchmarkRequireAuth(b *testing.B) {
	n := newNetwork(b, Config{})
	r, err := http.NewRequest(http.MethodGet, "/", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+n.signedUp("alice").str("accessJwt"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.requireAuth(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPassword(b *testing.B) {
	p, err := newPasswords(strings.NewReader(strings.Repeat("r", 48)), 0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.verify(context.Background(), "", goodPassword); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRelaxedLoopback(t *testing.T) {
	n := newNetwork(t, Config{Accounts: AccountConfig{RelaxLoopback: true}})
	n.signedUp("alice")
	for range 40 {
		want(t, n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": "not the password"}), 401, "AuthenticationRequired")
	}
}

// Signing out works with a refresh token that is too old for anything else.
func TestDeleteSessionExpired(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	refresh := a.str("refreshJwt")
	sid, _, _ := strings.Cut(jtiOf(t, refresh), ".")
	n.clock.Advance(refreshLife + time.Hour)
	want(t, n.call("com.atproto.server.refreshSession", refresh, nil), 400, "ExpiredToken")
	want(t, n.call("com.atproto.server.deleteSession", a.str("accessJwt"), nil), 400, "InvalidToken")
	want(t, n.call("com.atproto.server.deleteSession", refresh[:len(refresh)-2], nil), 400, "InvalidToken")
	if row, err := n.loadSession(syntax.DID(a.str("did")), sid); row == nil || err != nil {
		t.Fatalf("session: %v, %v", row, err)
	}
	want(t, n.call("com.atproto.server.deleteSession", refresh, nil), 200, "")
	if row, err := n.loadSession(syntax.DID(a.str("did")), sid); row != nil || err != nil {
		t.Errorf("session: %+v, %v", row, err)
	}
}

func jtiOf(t *testing.T, token string) string {
	t.Helper()
	_, c, _, _, err := splitToken(token)
	if err != nil {
		t.Fatal(err)
	}
	return c.Jti
}

// TestSessionCache compares the cache with what it stands for, call by call.
func TestSessionCache(t *testing.T) {
	secret, aud := []byte("secret"), "did:web:x"
	good, _ := signSession(secret, typAccess, jwtClaims{Sub: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Aud: aud, Exp: 10})
	other, _ := signSession(secret, typAccess, jwtClaims{Sub: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Aud: "did:web:y", Exp: 10})
	var cache sessionCache
	for _, now := range []int64{5, 9, 10, 5, 11} {
		for _, typ := range []string{typAccess, typRefresh} {
			for _, token := range []string{good, good[:len(good)-2], other, strings.Repeat("a", maxToken+1)} {
				c, err := cache.verify(secret, typ, aud, token, now)
				want, werr := verifySession(secret, typ, aud, token, now)
				if c != want || errors.Is(err, errExpiredToken) != errors.Is(werr, errExpiredToken) || (err == nil) != (werr == nil) {
					t.Fatalf("at %d: %+v, %v; want %+v, %v", now, c, err, want, werr)
				}
			}
		}
	}
	for i := range maxCachedSessions + 10 {
		token, _ := signSession(secret, typAccess, jwtClaims{Sub: fmt.Sprint("did:web:", i), Aud: aud, Exp: 10})
		if c, err := cache.verify(secret, typAccess, aud, token, 1); err != nil || c.Sub != fmt.Sprint("did:web:", i) {
			t.Fatalf("%d: %+v, %v", i, c, err)
		}
		if len(cache.claims) > maxCachedSessions {
			t.Fatalf("%d tokens are kept", len(cache.claims))
		}
	}
}
