package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

func newKey(t testing.TB, c keys.Curve, n byte) *keys.PrivateKey {
	t.Helper()
	k, err := keys.NewPrivate(c, append(make([]byte, 31), n))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const (
	service = "did:web:feed.test#bsky_fg"
	skel    = syntax.NSID("app.bsky.feed.getFeedSkeleton")
)

func TestServiceTokens(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	key, old, other := newKey(t, keys.K256, 1), newKey(t, keys.K256, 2), newKey(t, keys.P256, 3)
	var asked []bool
	source := func(_ context.Context, of syntax.DID, fragment string, fresh bool) (*keys.PublicKey, error) {
		asked = append(asked, fresh)
		switch {
		case of != did:
			return nil, &identity.Error{Op: "resolving DID", Subject: string(of), Kind: identity.KindNotFound}
		case fragment == identity.FragmentLabel:
			return other.Public(), nil
		case fresh:
			return key.Public(), nil
		}
		return old.Public(), nil // the key before the last rotation
	}
	good := func() *auth.ServiceToken {
		return &auth.ServiceToken{Issuer: did, Audience: service, Method: skel, Issued: now, Expires: now.Add(time.Minute), ID: "1"}
	}
	sign := func(key *keys.PrivateKey, change func(*auth.ServiceToken)) string {
		x := good()
		change(x)
		s, err := x.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	same := func(*auth.ServiceToken) {}
	raw := func(header, claims string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".AAAA"
	}
	claims := `{"iss":"` + string(did) + `","aud":"` + service + `","lxm":"` + string(skel) + `","exp":1800000060,"jti":"9"}`
	for _, x := range []struct {
		name, token string
		want        error
	}{
		{"good", sign(key, same), nil},
		{"of a labeler", sign(other, func(x *auth.ServiceToken) { x.Service = "#atproto_labeler" }), nil},
		{"key named", sign(key, func(x *auth.ServiceToken) { x.KeyID = "#atproto" }), nil},
		{"a second behind", sign(key, func(x *auth.ServiceToken) { x.Expires = now.Add(-time.Second) }), nil},
		{"another key", sign(newKey(t, keys.K256, 9), same), auth.ErrBadTokenSignature},
		{"another curve", sign(other, same), auth.ErrBadTokenSignature},
		{"another key named", sign(key, func(x *auth.ServiceToken) { x.KeyID = "#other" }), auth.ErrBadTokenKey},
		{"expired", sign(key, func(x *auth.ServiceToken) { x.Expires = now.Add(-time.Minute) }), auth.ErrTokenExpired},
		{"lives too long", sign(key, func(x *auth.ServiceToken) { x.Expires = now.Add(time.Hour) }), auth.ErrBadToken},
		{"from the future", sign(key, func(x *auth.ServiceToken) { x.Issued = now.Add(time.Minute) }), auth.ErrBadToken},
		{"another audience", sign(key, func(x *auth.ServiceToken) { x.Audience = "did:web:other.test#bsky_fg" }), auth.ErrBadTokenAudience},
		{"another fragment", sign(key, func(x *auth.ServiceToken) { x.Audience = "did:web:feed.test#other" }), auth.ErrBadTokenAudience},
		{"another method", sign(key, func(x *auth.ServiceToken) { x.Method = "com.example.other" }), auth.ErrBadTokenMethod},
		{"any method", sign(key, func(x *auth.ServiceToken) { x.Method = "" }), auth.ErrBadTokenMethod},
		{"long ID", sign(key, func(x *auth.ServiceToken) { x.ID = strings.Repeat("x", 300) }), auth.ErrBadToken},
		{"session token", token("at+jwt", 1, now.Add(time.Minute)), auth.ErrBadTokenType},
		{"not signed", raw(`{"alg":"none"}`, claims), auth.ErrBadTokenAlgorithm},
		{"HMAC", raw(`{"alg":"HS256"}`, claims), auth.ErrBadTokenAlgorithm},
		{"critical", raw(`{"alg":"ES256K","crit":["x"]}`, claims), auth.ErrBadToken},
		{"signature of 3 bytes", raw(`{"alg":"ES256K"}`, claims), auth.ErrBadTokenSignature},
		{"no DID", raw(`{"alg":"ES256K"}`, strings.Replace(claims, string(did), "alice.test", 1)), auth.ErrBadTokenIssuer},
		{"no ID", raw(`{"alg":"ES256K"}`, strings.Replace(claims, `"9"`, `9`, 1)), auth.ErrBadToken},
		{"garbage", "a.b.c", auth.ErrBadToken},
		{"nothing", "", auth.ErrBadToken},
		{"long", strings.Repeat("a", 5000), auth.ErrBadToken},
	} {
		v := &auth.ServiceValidator{Audiences: []string{service}, Keys: source, Now: func() time.Time { return now }}
		asked = nil
		got, err := v.Validate(t.Context(), x.token, skel)
		if e, ok := errors.AsType[*xrpc.Error](err); !errors.Is(err, x.want) || (err != nil) != ok || ok && e.Status != 401 {
			t.Errorf("%s: %v, want %v", x.name, err, x.want)
		}
		if len(asked) > 2 {
			t.Errorf("%s: asked for keys %v", x.name, asked)
		}
		if x.want != nil {
			continue
		}
		if got.Issuer != did || got.Audience != service || got.Method != skel || got.ID != "1" {
			t.Errorf("%s: %+v", x.name, got)
		}
		if _, err := v.Validate(t.Context(), x.token, skel); !errors.Is(err, auth.ErrBadToken) {
			t.Errorf("%s, once more: %v", x.name, err)
		}
	}
	var _ auth.KeySource = (*identity.Directory)(nil).Key
	v := &auth.ServiceValidator{Audiences: []string{service}, Keys: source, Now: func() time.Time { return now }}
	stranger := sign(key, func(x *auth.ServiceToken) { x.Issuer = "did:web:stranger.test" })
	if _, err := v.Validate(t.Context(), stranger, skel); identity.KindOf(err) != identity.KindNotFound {
		t.Errorf("an issuer that can't be resolved: %v", err)
	}
	for i := range []byte(sign(key, same)) { // whatever byte is changed, it is refused
		b := []byte(sign(key, same))
		b[i] ^= 1
		v := &auth.ServiceValidator{Audiences: []string{service}, Keys: auth.OneKey(did, key.Public()), Now: func() time.Time { return now }}
		if _, err := v.Validate(t.Context(), string(b), skel); err == nil {
			t.Errorf("byte %d changed, and accepted: %s", i, b)
		}
	}
}

// TestServiceAuth sends tokens for each call, which the other side accepts once.
func TestServiceAuth(t *testing.T) {
	key, now := newKey(t, keys.P256, 4), time.Unix(1_800_000_000, 0)
	v := &auth.ServiceValidator{Audiences: []string{service}, Keys: auth.OneKey(did, key.Public()), Now: func() time.Time { return now }}
	var last *auth.ServiceToken
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if last, err = v.Validate(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), syntax.NSID(strings.TrimPrefix(r.URL.Path, "/xrpc/"))); err != nil {
			xrpc.WriteError(w, r, err)
			return
		}
		fmt.Fprint(w)
	}))
	defer h.Close()
	a := &auth.ServiceAuth{Key: key, Issuer: did, Audience: service, Now: func() time.Time { return now }, Rand: bytes.NewReader(make([]byte, 16+15))}
	c := &xrpc.Client{Host: h.URL, Auth: a}
	if _, err := comatproto.ServerActivateAccount.Call(t.Context(), c, nil); err != nil || last.Method != "com.atproto.server.activateAccount" {
		t.Errorf("%v, %+v", err, last)
	}
	if _, err := comatproto.ServerActivateAccount.Call(t.Context(), c, nil); err == nil || !strings.Contains(err.Error(), "making the ID") {
		t.Errorf("without randomness: %v", err)
	}
	a.Rand = bytes.NewReader(make([]byte, 16))
	if _, err := comatproto.ServerActivateAccount.Call(t.Context(), c, nil); !errors.Is(err, auth.ErrBadToken) {
		t.Errorf("the same ID again: %v", err)
	}
}

func FuzzServiceToken(f *testing.F) {
	key, now := newKey(f, keys.K256, 1), time.Unix(1_800_000_000, 0)
	good, err := (&auth.ServiceToken{Issuer: did, Audience: service, Method: skel, Expires: now.Add(time.Minute), ID: "1"}).Sign(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(token("at+jwt", 1, now))
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		v := &auth.ServiceValidator{Audiences: []string{service}, Keys: auth.OneKey(did, key.Public()), Now: func() time.Time { return now }}
		got, err := v.Validate(t.Context(), text, skel)
		if err == nil && (got.Issuer != did || got.Audience != service || got.Method != skel) {
			t.Errorf("%q gives %+v", text, got)
		}
	})
}

func TestClaims(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	jwt := func(header, claims string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	access := jwt(`{"typ":"at+jwt","alg":"ES256K"}`, `{"scope":"com.atproto.appPass","sub":"`+string(did)+`","aud":"did:web:pds.example","iat":1800000000,"exp":1800007200}`)
	s := auth.Session{DID: did, PDS: "https://pds.example", Access: access, Refresh: token("refresh+jwt", 7, now.Add(time.Hour))}
	c, ok := s.AccessClaims()
	want := auth.Claims{Type: "at+jwt", Subject: string(did), Audience: "did:web:pds.example", Scope: "com.atproto.appPass", Issued: now, Expires: now.Add(2 * time.Hour)}
	if !ok || c != want || s.Check() != nil {
		t.Errorf("%+v, %v, %v", c, ok, s.Check())
	}
	if c, ok := s.RefreshClaims(); !ok || c.Type != "refresh+jwt" || !c.Expires.Equal(now.Add(time.Hour)) {
		t.Errorf("%+v", c)
	}
	s.Access, s.Refresh = s.Refresh, s.Access
	if s.Check() == nil {
		t.Error("tokens in each other's place are taken")
	}
	opaque := auth.Session{DID: did, PDS: "https://pds.example", Access: "opaque", Refresh: "too"}
	if c, ok := opaque.AccessClaims(); ok || opaque.Check() != nil {
		t.Errorf("%+v", c)
	}
	stolen := auth.Session{DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", PDS: "https://pds.example", Access: access, Refresh: "r"}
	if _, err := auth.New(auth.Options{}).Import(t.Context(), stolen); err == nil {
		t.Error("a session with another account's token is taken")
	}
}

func TestText(t *testing.T) {
	s := auth.Session{DID: did, Handle: "alice.test", PDS: "https://pds.example", Access: "a", Refresh: "r", Suffix: "/xrpc"}
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{text, " " + text + "\n", s.CompatString()} {
		if got, err := auth.ParseSession(in); err != nil || got != s {
			t.Errorf("%s: %#v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "{", `{"version":1}`, strings.Replace(text, `"version":1`, `"version":2`, 1), strings.Replace(text, "/xrpc", "/SECRET", 1), `{"version":1,"access":"SECRET"`} {
		if _, err := auth.ParseSession(bad); err == nil || strings.Contains(err.Error(), `SECRET"`) && !strings.Contains(bad, "/SECRET") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestFactorToken asks for the code that the server has mailed.
func TestFactorToken(t *testing.T) {
	s := newServer(t)
	s.set(func() {
		s.fail = func(nsid string) (int, string) { return 401, `{"error":"AuthFactorTokenRequired","message":"code"}` }
	})
	m := auth.New(auth.Options{})
	if _, err := m.Login(t.Context(), s.URL, auth.Credentials{Identifier: "alice.test", Password: "p"}); !errors.Is(err, auth.ErrFactorTokenRequired) {
		t.Error(err)
	}
	s.set(func() { s.fail = nil })
	if _, err := m.Login(t.Context(), s.URL, auth.Credentials{Identifier: "alice.test", Password: "p", Token: "AB-CD"}); err != nil {
		t.Error(err)
	}
}

// TestSharedFolder has two stores in one folder, as two processes do: they renew once, and one waits for the other.
func TestSharedFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state", "app", "sessions")
	open := func() *auth.FileStore {
		s, err := auth.OpenFileStore(folder)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	first, second := open(), open()
	if info, err := os.Stat(folder); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	s := newServer(t)
	_, a := login(t, s, auth.Options{Store: first})
	b, err := auth.New(auth.Options{Store: second}).Account(t.Context(), did)
	if err != nil {
		t.Fatal(err)
	}
	s.revoke()
	done := make(chan error, 2)
	for _, x := range []*auth.Account{a, b} {
		go func() { done <- write(t.Context(), x) }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := s.calls("refreshSession"); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
	if s.writes != 2 {
		t.Errorf("%d writes, want 2", s.writes)
	}
	unlock, err := first.Lock(t.Context(), did)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := second.Lock(ctx, did); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if unlock, err = second.Lock(t.Context(), did); err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestStateFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths of Unix")
	}
	for _, x := range []struct{ xdg, home, want string }{
		{"/x", "/home/a", "/x/app/sessions"}, {"", "/home/a", "/home/a/.local/state/app/sessions"}, {"relative", "/home/a", "/home/a/.local/state/app/sessions"}, {"", "", ""},
	} {
		got, err := auth.StateFolder(func(k string) string { return map[string]string{"XDG_STATE_HOME": x.xdg, "HOME": x.home}[k] }, "app")
		if got != x.want || (err == nil) != (x.want != "") {
			t.Errorf("%+v: %q, %v", x, got, err)
		}
	}
}
