package oauth_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/oauth"
	"github.com/barograph/baro/auth/oauth/oauthtest"
	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

var postOnly = scope.Of(scope.Repo("app.bsky.feed.post").On(scope.Create))

func options(srv *oauthtest.Server) oauth.Options {
	return oauth.Options{
		ClientID: oauth.LocalhostID(postOnly, oauth.LoopbackRedirect), Scope: postOnly, HTTP: new(http.Client), Directory: srv.Directory(),
		Now: time.Now, Rand: rand.Reader, AllowLocalhost: true,
	}
}

func newClient(t testing.TB, o oauth.Options) *oauth.Client {
	t.Helper()
	c, err := oauth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// confidential makes a client with metadata that the server knows.
func confidential(t testing.TB, srv *oauthtest.Server, o oauth.Options, k ...oauth.Key) *oauth.Client {
	t.Helper()
	o.ClientID, o.RedirectURIs, o.Keys = "https://app.example.com/client-metadata.json", []string{"https://app.example.com/callback"}, k
	c := newClient(t, o)
	srv.Clients[o.ClientID] = c.Metadata()
	return c
}

func newKey(t testing.TB) *keys.PrivateKey {
	t.Helper()
	k, err := keys.Generate(keys.P256, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func login(ctx context.Context, srv *oauthtest.Server, c *oauth.Client, r oauth.Request) (auth.Session, error) {
	l, err := c.Start(ctx, r)
	if err != nil {
		return auth.Session{}, err
	}
	back, err := srv.Browse(l.URL)
	if err != nil {
		return auth.Session{}, err
	}
	s, _, err := c.Finish(ctx, back.Query())
	return s, err
}

func mustLogin(t testing.TB, srv *oauthtest.Server, c *oauth.Client, account string) auth.Session {
	t.Helper()
	s, err := login(t.Context(), srv, c, oauth.Request{Account: account})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func manager(t testing.TB, c *oauth.Client, s auth.Session) (*auth.Manager, *auth.Account) {
	t.Helper()
	m := auth.New(auth.Options{OAuth: c, Now: time.Now})
	a, err := m.Add(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return m, a
}

func whoami(ctx context.Context, a *auth.Account) error {
	out, err := comatproto.ServerGetSession.Call(ctx, a.Client(), nil)
	if err == nil && out.Did != string(oauthtest.DID) {
		err = fmt.Errorf("the session is of %s", out.Did)
	}
	return err
}

func write(ctx context.Context, a *auth.Account, collection string) error {
	record, err := data.AppendCBOR(nil, []byte(`{"$type":"`+collection+`","text":"hello"}`))
	if err != nil {
		return err
	}
	_, err = comatproto.RepoCreateRecord.Call(ctx, a.Client(), &comatproto.RepoCreateRecord_Input{Repo: string(a.DID()), Collection: collection, Record: record})
	return err
}

// noProblems fails if the client did what none may do.
func noProblems(t testing.TB, srv *oauthtest.Server) {
	t.Helper()
	for _, p := range srv.Problems() {
		t.Error(p)
	}
}

// A whole life of a session: login, read, write, refusal, renewal, logout.
func TestSession(t *testing.T) {
	for name, account := range map[string]func(*oauthtest.Server) string{
		"handle": func(*oauthtest.Server) string { return "@" + string(oauthtest.Handle) },
		"did":    func(*oauthtest.Server) string { return string(oauthtest.DID) },
		"pds":    func(s *oauthtest.Server) string { return s.PDS + "/" },
		"issuer": func(s *oauthtest.Server) string { return s.Issuer },
	} {
		for _, kind := range []string{"public", "confidential"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				ctx := t.Context()
				srv := oauthtest.New(t)
				c := newClient(t, options(srv))
				if kind == "confidential" {
					c = confidential(t, srv, options(srv), oauth.Key{Private: newKey(t)})
				}
				s := mustLogin(t, srv, c, account(srv))
				if s.DID != oauthtest.DID || s.Handle != oauthtest.Handle || s.PDS != srv.PDS || s.Grant.Issuer != srv.Issuer || s.Grant.Scope != postOnly.String() {
					t.Fatalf("%v, %v", s, s.Grant)
				}
				if life := s.Grant.Expires.Sub(s.Grant.Issued); life != 15*time.Minute {
					t.Errorf("the token lives %s", life)
				}
				m, a := manager(t, c, s)
				if err := whoami(ctx, a); err != nil {
					t.Fatal(err)
				}
				if err := write(ctx, a, "app.bsky.feed.post"); err != nil {
					t.Fatal(err)
				}
				var refused *xrpc.Error
				if err := write(ctx, a, "app.bsky.feed.like"); !errors.As(err, &refused) || refused.Status != 403 || refused.Name != "ScopeMissingError" {
					t.Fatalf("a write beyond the scope: %v", err)
				}
				// The first request of all has no nonce yet; those after it have.
				if n := srv.Count("POST /xrpc/com.atproto.repo.createRecord"); n != 2 {
					t.Errorf("two writes took %d requests", n)
				}
				before := a.Session()
				srv.Expire()
				srv.Rotate() // the first attempt lacks the nonce, the second a good token
				if err := write(ctx, a, "app.bsky.feed.post"); err != nil {
					t.Fatal(err)
				}
				if srv.Count("written") != 2 || a.Session().Refresh == before.Refresh || a.Session().Grant.Key != before.Grant.Key {
					t.Errorf("%d written, %v", srv.Count("written"), a.Session().Grant)
				}
				srv.Expire()
				srv.Rotate()
				resp, err := a.HTTPClient().Get(srv.PDS + xrpc.Path("com.atproto.server.getSession")) // any code of HTTP
				if err != nil || resp.StatusCode != 200 {
					t.Fatal(resp, err)
				}
				resp.Body.Close()
				if err := a.Logout(ctx); err != nil {
					t.Fatal(err)
				}
				if srv.Active() != 0 {
					t.Error("the session is not revoked")
				}
				if _, err := m.Account(ctx, oauthtest.DID); !errors.Is(err, auth.ErrLoginRequired) {
					t.Errorf("after the logout: %v", err)
				}
				noProblems(t, srv)
			})
		}
	}
}

// A token is renewed in good time, and one of five minutes not all the time.
func TestRenewsEarly(t *testing.T) {
	srv := oauthtest.New(t)
	srv.Life = 5 * time.Minute
	now := time.Now()
	clock := func() time.Time { return now }
	srv.Now = clock
	o := options(srv)
	o.Now = clock
	c := newClient(t, o)
	m := auth.New(auth.Options{OAuth: c, Now: clock})
	a, err := m.Add(t.Context(), mustLogin(t, srv, c, string(oauthtest.Handle)))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		asked int // requests for tokens until then
	}{{0, 1}, {3 * time.Minute, 1}, {time.Minute, 2}, {3 * time.Minute, 2}, {time.Hour, 3}} {
		now = now.Add(step.after)
		if err := whoami(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if n := srv.Count("POST /oauth/token"); n > step.asked+1 || n < step.asked { // one more for the first nonce
			t.Errorf("at %s: %d requests for tokens", now, n)
		}
	}
	noProblems(t, srv)
}

// Many requests at once, in two managers that share a folder as two processes would, renew once.
func TestSingleFlight(t *testing.T) {
	srv := oauthtest.New(t)
	c := newClient(t, options(srv))
	folder := t.TempDir()
	var accounts []*auth.Account
	s := mustLogin(t, srv, c, string(oauthtest.Handle))
	for range 2 {
		store, err := auth.OpenFileStore(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		m := auth.New(auth.Options{OAuth: newClient(t, options(srv)), Store: store, Now: time.Now})
		a, err := m.Add(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, a)
	}
	srv.Expire()
	asked := srv.Count("POST /oauth/token")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if err := whoami(t.Context(), accounts[i%2]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// A renewal and its nonce.
	if n := srv.Count("POST /oauth/token") - asked; n > 2 {
		t.Errorf("%d requests for tokens", n)
	}
	noProblems(t, srv)
}

// A stream can be sent once: it isn't wasted on a request whose proof lacks the nonce.
func TestStream(t *testing.T) {
	srv := oauthtest.New(t)
	now := time.Now()
	o := options(srv)
	o.Now = func() time.Time { return now }
	srv.Now = o.Now
	o.Scope = scope.Of(scope.Blob("text/*"))
	o.ClientID = oauth.LocalhostID(o.Scope, oauth.LoopbackRedirect)
	c := newClient(t, o)
	_, a := manager(t, c, mustLogin(t, srv, c, string(oauthtest.Handle)))
	upload := func() error {
		body := io.MultiReader(strings.NewReader("once "), strings.NewReader("only"))
		out, err := comatproto.RepoUploadBlob.Call(t.Context(), a.Client(), &xrpc.Body{Reader: body, Type: "text/plain"})
		if err == nil && out.Blob.Size != int64(len("once only")) {
			err = fmt.Errorf("%d bytes arrived", out.Blob.Size)
		}
		return err
	}
	const path = "POST /xrpc/com.atproto.repo.uploadBlob"
	for i, before := range []func(){func() {}, func() {}, func() { srv.Rotate(); now = now.Add(2 * time.Minute) }} {
		before()
		if err := upload(); err != nil || srv.Count(path) != i+1 {
			t.Fatalf("%d: %v, %d uploads", i, err, srv.Count(path))
		}
	}
	if n := srv.Count("GET /xrpc/com.atproto.server.getSession"); n != 2 {
		t.Errorf("a nonce was asked for %d times", n)
	}
	noProblems(t, srv)
}

// A new login ends the session before it at the server.
func TestLoginAgain(t *testing.T) {
	srv := oauthtest.New(t)
	c := newClient(t, options(srv))
	m, _ := manager(t, c, mustLogin(t, srv, c, string(oauthtest.Handle)))
	a, err := m.Add(t.Context(), mustLogin(t, srv, c, string(oauthtest.Handle)))
	if err != nil {
		t.Fatal(err)
	}
	if srv.Active() != 1 {
		t.Errorf("%d sessions at the server", srv.Active())
	}
	if err := whoami(t.Context(), a); err != nil {
		t.Error(err)
	}
}

// Keys of a confidential client are replaced without ending the sessions that were opened with the old one.
func TestKeyRotation(t *testing.T) {
	srv := oauthtest.New(t)
	old, fresh := oauth.Key{ID: "2025", Private: newKey(t)}, oauth.Key{ID: "2026", Private: newKey(t)}
	s := mustLogin(t, srv, confidential(t, srv, options(srv), old), string(oauthtest.Handle))
	c := confidential(t, srv, options(srv), fresh, old)
	_, a := manager(t, c, s)
	if err := a.Renew(t.Context()); err != nil || a.Session().Grant.KeyID != "2025" {
		t.Fatalf("%v, %q", err, a.Session().Grant.KeyID)
	}
	if s := mustLogin(t, srv, c, string(oauthtest.Handle)); s.Grant.KeyID != "2026" {
		t.Errorf("a new session has the key %q", s.Grant.KeyID)
	}
	_, a = manager(t, confidential(t, srv, options(srv), fresh), s)
	if err := a.Renew(t.Context()); oauth.KindOf(err) != oauth.KindClient || errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("without the key: %v", err)
	}
	noProblems(t, srv)
}

func set(key string, v any) func(map[string]any) { return func(m map[string]any) { m[key] = v } }
func drop(key string) func(map[string]any)       { return func(m map[string]any) { delete(m, key) } }

// answer answers one path in place of the server.
func answer(path string, f func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		f(w, r)
		return true
	}
}

const (
	resourcePath = "/.well-known/oauth-protected-resource"
	serverPath   = "/.well-known/oauth-authorization-server"
)

// Every lie ends the login with the right error, and leaves no session behind at the server.
func TestLies(t *testing.T) {
	html := func(status int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			fmt.Fprint(w, "<h1>Bad gateway</h1>")
		}
	}
	huge := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for range 100 {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
				return
			}
		}
	}
	slow := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for {
			if _, err := fmt.Fprint(w, " "); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	for name, c := range map[string]struct {
		lies    oauthtest.Lies
		account string // "": the handle
		want    oauth.Kind
		code    string
	}{
		"the PDS is another":           {lies: oauthtest.Lies{Resource: set("resource", "https://else.example")}, want: oauth.KindMetadata},
		"no authorization server":      {lies: oauthtest.Lies{Resource: set("authorization_servers", []any{})}, want: oauth.KindMetadata},
		"two authorization servers":    {lies: oauthtest.Lies{Resource: set("authorization_servers", []any{"https://a.example", "https://b.example"})}, want: oauth.KindMetadata},
		"servers of another type":      {lies: oauthtest.Lies{Resource: set("authorization_servers", "https://a.example")}, want: oauth.KindMetadata},
		"a server with a path":         {lies: oauthtest.Lies{Resource: set("authorization_servers", []any{"https://a.example/x"})}, want: oauth.KindMetadata},
		"a server with a slash":        {lies: oauthtest.Lies{Resource: set("authorization_servers", []any{"https://a.example/"})}, want: oauth.KindMetadata},
		"a server with the usual port": {lies: oauthtest.Lies{Resource: set("authorization_servers", []any{"https://a.example:443"})}, want: oauth.KindMetadata},
		"a server with a user":         {lies: oauthtest.Lies{Resource: set("authorization_servers", []any{"https://u@a.example"})}, want: oauth.KindMetadata},
		"a server of plain HTTP":       {lies: oauthtest.Lies{Resource: set("authorization_servers", []any{"http://a.example"})}, want: oauth.KindMetadata},
		"a server of a file":           {lies: oauthtest.Lies{Resource: set("authorization_servers", []any{"file:///etc/passwd"})}, want: oauth.KindMetadata},
		"resource: HTML":               {lies: oauthtest.Lies{Answer: answer(resourcePath, html(200))}, want: oauth.KindMetadata},
		"resource: gone":               {lies: oauthtest.Lies{Answer: answer(resourcePath, html(404))}, want: oauth.KindMetadata},
		"resource: down":               {lies: oauthtest.Lies{Answer: answer(resourcePath, html(502))}, want: oauth.KindUnreachable},
		"resource: huge":               {lies: oauthtest.Lies{Answer: answer(resourcePath, huge)}, want: oauth.KindAnswer},
		"resource: slow":               {lies: oauthtest.Lies{Answer: answer(resourcePath, slow)}, want: oauth.KindUnreachable},
		"metadata: slow":               {lies: oauthtest.Lies{Answer: answer(serverPath, slow)}, want: oauth.KindUnreachable},
		"metadata: created":            {lies: oauthtest.Lies{Answer: answer(serverPath, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) })}, want: oauth.KindMetadata},
		"another issuer":               {lies: oauthtest.Lies{Metadata: set("issuer", "https://else.example")}, want: oauth.KindMetadata},
		"an issuer with a slash":       {lies: oauthtest.Lies{Metadata: func(m map[string]any) { m["issuer"] = m["issuer"].(string) + "/" }}, want: oauth.KindMetadata},
		"no issuer":                    {lies: oauthtest.Lies{Metadata: drop("issuer")}, want: oauth.KindMetadata},
		"only implicit":                {lies: oauthtest.Lies{Metadata: set("response_types_supported", []any{"token"})}, want: oauth.KindMetadata},
		"no refresh":                   {lies: oauthtest.Lies{Metadata: set("grant_types_supported", []any{"authorization_code"})}, want: oauth.KindMetadata},
		"plain challenges":             {lies: oauthtest.Lies{Metadata: set("code_challenge_methods_supported", []any{"plain"})}, want: oauth.KindMetadata},
		"no challenges":                {lies: oauthtest.Lies{Metadata: drop("code_challenge_methods_supported")}, want: oauth.KindMetadata},
		"only secrets":                 {lies: oauthtest.Lies{Metadata: set("token_endpoint_auth_methods_supported", []any{"client_secret_basic"})}, want: oauth.KindMetadata},
		"signatures of none":           {lies: oauthtest.Lies{Metadata: set("token_endpoint_auth_signing_alg_values_supported", []any{"ES256", "none"})}, want: oauth.KindMetadata},
		"no scope atproto":             {lies: oauthtest.Lies{Metadata: set("scopes_supported", []any{"openid"})}, want: oauth.KindMetadata},
		"no iss":                       {lies: oauthtest.Lies{Metadata: set("authorization_response_iss_parameter_supported", false)}, want: oauth.KindMetadata},
		"no PAR":                       {lies: oauthtest.Lies{Metadata: drop("require_pushed_authorization_requests")}, want: oauth.KindMetadata},
		"any request URI":              {lies: oauthtest.Lies{Metadata: set("require_request_uri_registration", false)}, want: oauth.KindMetadata},
		"no client documents":          {lies: oauthtest.Lies{Metadata: drop("client_id_metadata_document_supported")}, want: oauth.KindMetadata},
		"no DPoP":                      {lies: oauthtest.Lies{Metadata: drop("dpop_signing_alg_values_supported")}, want: oauth.KindMetadata},
		"another DPoP":                 {lies: oauthtest.Lies{Metadata: set("dpop_signing_alg_values_supported", []any{"RS256"})}, want: oauth.KindMetadata},
		"a PAR endpoint of plain HTTP": {lies: oauthtest.Lies{Metadata: set("pushed_authorization_request_endpoint", "http://else.example/par")}, want: oauth.KindMetadata},
		"a token endpoint of script":   {lies: oauthtest.Lies{Metadata: set("token_endpoint", "javascript:alert(1)")}, want: oauth.KindMetadata},
		"a page of script":             {lies: oauthtest.Lies{Metadata: set("authorization_endpoint", "javascript:alert(1)")}, want: oauth.KindMetadata},
		"a page with a user":           {lies: oauthtest.Lies{Metadata: set("authorization_endpoint", "https://bank.example@evil.example/")}, want: oauth.KindMetadata},
		"the PDS is not the server's":  {lies: oauthtest.Lies{Metadata: set("protected_resources", []any{"https://else.example"})}, want: oauth.KindMetadata},
		"PAR: no nonce":                {lies: oauthtest.Lies{NoNonce: true}, want: oauth.KindRefused, code: "use_dpop_nonce"},
		"PAR: nonces forever": {lies: oauthtest.Lies{Answer: answer("/oauth/par", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("DPoP-Nonce", rand.Text())
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			fmt.Fprint(w, `{"error":"use_dpop_nonce"}`)
		})}, want: oauth.KindRefused, code: "use_dpop_nonce"},
		"PAR: a nonce that is none": {lies: oauthtest.Lies{Answer: answer("/oauth/par", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("DPoP-Nonce", `a"b`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			fmt.Fprint(w, `{"error":"use_dpop_nonce"}`)
		})}, want: oauth.KindRefused, code: "use_dpop_nonce"},
		"PAR: no proof wanted": {lies: oauthtest.Lies{Answer: answer("/oauth/par", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			fmt.Fprint(w, `{"request_uri":"urn:x","expires_in":60}`)
		})}, want: oauth.KindAnswer},
		"PAR: no request URI":            {lies: oauthtest.Lies{PAR: drop("request_uri")}, want: oauth.KindAnswer},
		"PAR: no life":                   {lies: oauthtest.Lies{PAR: set("expires_in", 0)}, want: oauth.KindAnswer},
		"PAR: HTML":                      {lies: oauthtest.Lies{Answer: answer("/oauth/par", html(403))}, want: oauth.KindRefused},
		"PAR: down":                      {lies: oauthtest.Lies{Answer: answer("/oauth/par", html(503))}, want: oauth.KindUnreachable},
		"PAR: huge":                      {lies: oauthtest.Lies{Answer: answer("/oauth/par", huge)}, want: oauth.KindAnswer},
		"PAR: away":                      {lies: oauthtest.Lies{Answer: answer("/oauth/par", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/oauth/token", 307) })}, want: oauth.KindAnswer},
		"back: another issuer":           {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Set("iss", "https://else.example") }}, want: oauth.KindIssuer},
		"back: no issuer":                {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Del("iss") }}, want: oauth.KindIssuer},
		"back: two issuers":              {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Add("iss", "https://else.example") }}, want: oauth.KindIssuer},
		"back: another state":            {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Set("state", "else") }}, want: oauth.KindState},
		"back: no state":                 {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Del("state") }}, want: oauth.KindState},
		"back: two states":               {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Add("state", "else") }}, want: oauth.KindState},
		"back: no code":                  {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Del("code") }}, want: oauth.KindAnswer},
		"back: two codes":                {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Add("code", "else") }}, want: oauth.KindAnswer},
		"back: another code":             {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Set("code", "else") }}, want: oauth.KindRefused, code: "invalid_grant"},
		"back: denied":                   {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }}, want: oauth.KindDenied, code: "access_denied"},
		"back: refused":                  {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Set("error", "server_error") }}, want: oauth.KindRefused, code: "server_error"},
		"back: denied by another server": {lies: oauthtest.Lies{Redirect: func(q url.Values) { q.Set("error", "access_denied"); q.Set("iss", "https://else.example") }}, want: oauth.KindIssuer},
		"tokens: another account":        {lies: oauthtest.Lies{Tokens: set("sub", "did:plc:z72i7hdynmk6r22z27h6tvur")}, want: oauth.KindSubject},
		"tokens: no account":             {lies: oauthtest.Lies{Tokens: drop("sub")}, want: oauth.KindSubject},
		"tokens: a handle":               {lies: oauthtest.Lies{Tokens: set("sub", "alice.test")}, want: oauth.KindSubject},
		"tokens: no type":                {lies: oauthtest.Lies{Tokens: drop("token_type")}, want: oauth.KindAnswer},
		"tokens: bearer":                 {lies: oauthtest.Lies{Tokens: set("token_type", "Bearer")}, want: oauth.KindAnswer},
		"tokens: no scope":               {lies: oauthtest.Lies{Tokens: drop("scope")}, want: oauth.KindScope},
		"tokens: without atproto":        {lies: oauthtest.Lies{Scope: "repo:* atprotos"}, want: oauth.KindScope},
		"tokens: none":                   {lies: oauthtest.Lies{Tokens: drop("access_token")}, want: oauth.KindAnswer},
		"tokens: a header": {lies: oauthtest.Lies{Answer: answer("/oauth/token", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("DPoP-Nonce", "n")
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"a\r\nX: y","token_type":"DPoP","scope":"atproto","sub":"`+oauthtest.DID+`"}`)
		})}, want: oauth.KindAnswer},
		"tokens: HTML":              {lies: oauthtest.Lies{Answer: answer("/oauth/token", html(400))}, want: oauth.KindRefused},
		"tokens: huge":              {lies: oauthtest.Lies{Answer: answer("/oauth/token", huge)}, want: oauth.KindAnswer},
		"tokens: slow":              {lies: oauthtest.Lies{Answer: answer("/oauth/token", slow)}, want: oauth.KindUnreachable},
		"any account of the issuer": {account: "issuer", lies: oauthtest.Lies{Tokens: set("sub", "did:plc:z72i7hdynmk6r22z27h6tvur")}, want: oauth.KindIdentity},
		"nobody":                    {account: "bob.test", want: oauth.KindIdentity},
		"nonsense":                  {account: "not an account", want: oauth.KindClient},
		"a host with a path":        {account: "https://pds.example/login", want: oauth.KindMetadata},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := oauthtest.New(t)
			srv.Lies = c.lies
			o := options(srv)
			o.Timeout = 2 * time.Second
			if strings.Contains(name, "slow") {
				o.Timeout = 200 * time.Millisecond
			}
			account := c.account
			switch account {
			case "":
				account = string(oauthtest.Handle)
			case "issuer":
				account = srv.Issuer
			}
			began := time.Now()
			s, err := login(t.Context(), srv, newClient(t, o), oauth.Request{Account: account})
			e, ok := errors.AsType[*oauth.Error](err)
			if !ok || e.Kind != c.want || e.Code != c.code || s.Access != "" {
				t.Fatalf("got %v, want %s %s", err, c.want, c.code)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			if n := srv.Active(); n != 0 {
				t.Errorf("%d sessions were left at the server", n)
			}
			noProblems(t, srv)
		})
	}
}

// A PDS of an attacker that names a server in a private network reaches nothing there.
func TestPrivateServer(t *testing.T) {
	pds, inside := oauthtest.New(t), oauthtest.New(t)
	pds.Lies.Resource = set("authorization_servers", []any{inside.Issuer})
	o := options(pds)
	guard := netguard.NewDialer(netguard.Options{Allow: []string{strings.TrimPrefix(pds.PDS, "http://")}})
	o.HTTP = netguard.Client(guard, netguard.ClientOptions{Redirects: 3})
	_, err := newClient(t, o).Start(t.Context(), oauth.Request{Account: string(oauthtest.Handle)})
	var blocked *netguard.BlockedError
	if !errors.As(err, &blocked) || inside.Count("GET "+serverPath) != 0 {
		t.Fatalf("%v, %d requests", err, inside.Count("GET "+serverPath))
	}
	// Nor does a redirect, which a client with its own ideas would follow.
	pds.Lies.Answer = answer(resourcePath, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inside.PDS+resourcePath, 302) })
	o.HTTP = new(http.Client)
	_, err = newClient(t, o).Start(t.Context(), oauth.Request{Account: string(oauthtest.Handle)})
	if oauth.KindOf(err) != oauth.KindMetadata || inside.Count("GET "+resourcePath) != 0 {
		t.Fatalf("%v, %d requests", err, inside.Count("GET "+resourcePath))
	}
	// And without AllowLocalhost there is no plain HTTP.
	o.AllowLocalhost = false
	if _, err = newClient(t, o).Start(t.Context(), oauth.Request{Account: string(oauthtest.Handle)}); oauth.KindOf(err) != oauth.KindMetadata {
		t.Fatal(err)
	}
}

// A login is finished once, in time, by whoever has its state.
func TestStateOnce(t *testing.T) {
	srv := oauthtest.New(t)
	now := time.Now()
	o := options(srv)
	o.Now = func() time.Time { return now }
	srv.Now = o.Now
	c := newClient(t, o)
	start := func() url.Values {
		l, err := c.Start(t.Context(), oauth.Request{Account: string(oauthtest.Handle), Data: "next"})
		if err != nil {
			t.Fatal(err)
		}
		back, err := srv.Browse(l.URL)
		if err != nil {
			t.Fatal(err)
		}
		return back.Query()
	}
	q := start()
	if _, d, err := c.Finish(t.Context(), q); err != nil || d != "next" {
		t.Fatal(d, err)
	}
	if _, _, err := c.Finish(t.Context(), q); oauth.KindOf(err) != oauth.KindState || !errors.Is(err, oauth.ErrUnknownState) {
		t.Errorf("a second time: %v", err)
	}
	if srv.Active() != 1 {
		t.Error("the replay reached the server")
	}
	q = start()
	now = now.Add(oauth.DefaultLife)
	if _, _, err := c.Finish(t.Context(), q); oauth.KindOf(err) != oauth.KindState {
		t.Errorf("too late: %v", err)
	}
	noProblems(t, srv)
}

// When the server says no to a renewal the session is over; when it says nothing it isn't.
func TestRenewalFails(t *testing.T) {
	unavailable := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "later", http.StatusServiceUnavailable) }
	portal := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("DPoP-Nonce", "n")
		fmt.Fprint(w, "<h1>Welcome to the hotel</h1>")
	}
	for name, c := range map[string]struct {
		lies  oauthtest.Lies
		setup func(*oauthtest.Server, *oauthtest.Directory, *auth.Session)
		over  bool
		kind  oauth.Kind
	}{
		"down":             {lies: oauthtest.Lies{Answer: answer("/oauth/token", unavailable)}, kind: oauth.KindUnreachable},
		"a hotel":          {lies: oauthtest.Lies{Answer: answer("/oauth/token", portal)}, kind: oauth.KindAnswer},
		"another account":  {lies: oauthtest.Lies{Tokens: set("sub", "did:plc:z72i7hdynmk6r22z27h6tvur")}, over: true, kind: oauth.KindSubject},
		"without atproto":  {lies: oauthtest.Lies{Tokens: set("scope", "openid")}, over: true, kind: oauth.KindScope},
		"unknown token":    {setup: func(_ *oauthtest.Server, _ *oauthtest.Directory, s *auth.Session) { s.Refresh = "refresh-0" }, over: true, kind: oauth.KindRefused},
		"no refresh token": {setup: func(_ *oauthtest.Server, _ *oauthtest.Directory, s *auth.Session) { s.Refresh = "" }, over: true, kind: oauth.KindRefused},
		"no identity": {setup: func(_ *oauthtest.Server, d *oauthtest.Directory, _ *auth.Session) {
			d.Err = &identity.Error{Op: "looking up", Kind: identity.KindUnreachable}
		}, kind: oauth.KindUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			srv := oauthtest.New(t)
			dir := srv.Directory()
			o := options(srv)
			o.Directory = dir
			client := newClient(t, o)
			s := mustLogin(t, srv, client, string(oauthtest.Handle))
			srv.Lies = c.lies
			if c.setup != nil {
				c.setup(srv, dir, &s)
			}
			m, a := manager(t, client, s)
			err := a.Renew(t.Context())
			if errors.Is(err, auth.ErrLoginRequired) != c.over || oauth.KindOf(err) != c.kind {
				t.Fatalf("%v", err)
			}
			if _, err := m.Account(t.Context(), oauthtest.DID); errors.Is(err, auth.ErrLoginRequired) != c.over {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// An account that has moved to a PDS of another authorization server is asked to log in there; its refresh token isn't sent.
func TestMoved(t *testing.T) {
	srv, other := oauthtest.New(t), oauthtest.New(t)
	dir := srv.Directory()
	o := options(srv)
	o.Directory = dir
	c := newClient(t, o)
	_, a := manager(t, c, mustLogin(t, srv, c, string(oauthtest.Handle)))
	asked := srv.Count("POST /oauth/token")
	dir.PDS = other.PDS
	if err := a.Renew(t.Context()); !errors.Is(err, auth.ErrLoginRequired) || oauth.KindOf(err) != oauth.KindSubject {
		t.Fatal(err)
	}
	if srv.Count("POST /oauth/token") != asked || other.Count("POST /oauth/token") != 0 {
		t.Error("the refresh token was sent")
	}
	// A PDS behind the same server is just another address.
	_, a = manager(t, c, mustLogin(t, srv, newClient(t, options(srv)), string(oauthtest.Handle)))
	other.Lies.Resource = set("authorization_servers", []any{srv.Issuer})
	if err := a.Renew(t.Context()); err != nil || a.Session().PDS != other.PDS {
		t.Fatalf("%v, %s", err, a.Session().PDS)
	}
	// Whoever still has a client of the old address gets an error, and the old PDS no token.
	old := a.Client().WithHost(srv.PDS)
	asked = srv.Count("GET /xrpc/com.atproto.server.getSession")
	if _, err := comatproto.ServerGetSession.Call(t.Context(), old, nil); !errors.Is(err, auth.ErrOtherHost) {
		t.Error(err)
	}
	if srv.Count("GET /xrpc/com.atproto.server.getSession") != asked {
		t.Error("the old PDS was asked")
	}
}

// Nothing that is printed or logged has a secret in it.
func TestSecretsAreNotShown(t *testing.T) {
	srv := oauthtest.New(t)
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	states := &spyStates{StateStore: oauth.NewMemoryStates()}
	o := options(srv)
	o.States = states
	c := newClient(t, o)
	s := mustLogin(t, srv, c, string(oauthtest.Handle))
	p := states.last
	for _, v := range []any{s, *s.Grant, s.Grant, p, &p} {
		fmt.Fprintf(&log, "%v %+v %#v %s\n", v, v, v, v)
		logger.Info("it", "v", v)
	}
	srv.Lies.Error = func(m map[string]any) { m["error_description"] = "secret? " + s.Refresh + strings.Repeat("x", 5000) }
	_, err := c.Renew(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{
		"access": s.Access, "refresh": s.Refresh, "key": s.Grant.Key, "verifier": p.Verifier, "state": p.State,
	} {
		if secret == "" || strings.Contains(log.String(), secret) {
			t.Errorf("the %s is shown: %s", name, log.String())
		}
	}
	if !strings.Contains(log.String(), srv.Issuer) {
		t.Error("nothing is shown")
	}
	// In a store it all has to be.
	b, err := json.Marshal(s)
	if err != nil || !bytes.Contains(b, []byte(s.Grant.Key)) {
		t.Errorf("%s, %v", b, err)
	}
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := auth.ParseSession(text); err != nil || again.Grant.Key != s.Grant.Key || !again.Grant.Expires.Equal(s.Grant.Expires) {
		t.Errorf("%v, %v", again, err)
	}
}

type spyStates struct {
	oauth.StateStore
	last oauth.Pending
}

func (s *spyStates) Put(ctx context.Context, p oauth.Pending) error {
	s.last = p
	return s.StateStore.Put(ctx, p)
}

// A session of OAuth is no use to a program that doesn't know of it, and isn't taken for one of a password.
func TestWithoutScheme(t *testing.T) {
	srv := oauthtest.New(t)
	s := mustLogin(t, srv, newClient(t, options(srv)), string(oauthtest.Handle))
	a, err := auth.New(auth.Options{}).Add(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	asked := srv.Count("GET /xrpc/com.atproto.server.getSession")
	if err := whoami(t.Context(), a); err == nil || srv.Count("GET /xrpc/com.atproto.server.getSession") != asked {
		t.Fatalf("%v", err)
	}
	s.Grant = &auth.Grant{Issuer: srv.Issuer, ClientID: "http://localhost", Key: "z"}
	if err := s.Check(); err == nil {
		t.Error("a grant without a key is taken")
	}
}

func TestOptions(t *testing.T) {
	srv := oauthtest.New(t)
	web := func(change func(*oauth.Options)) oauth.Options {
		o := options(srv)
		o.ClientID, o.RedirectURIs = "https://app.example.com/oauth/client-metadata.json", []string{"https://app.example.com/callback"}
		change(&o)
		return o
	}
	k256, err := keys.Generate(keys.K256, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]oauth.Options{
		"web":       web(func(*oauth.Options) {}),
		"with keys": web(func(o *oauth.Options) { o.Keys = []oauth.Key{{Private: newKey(t)}} }),
		"native":    web(func(o *oauth.Options) { o.Native, o.RedirectURIs = true, []string{"com.example.app:/callback"} }),
		"loopback":  web(func(o *oauth.Options) { o.Native, o.RedirectURIs = true, []string{oauth.LoopbackRedirect} }),
		"elsewhere": web(func(o *oauth.Options) { o.RedirectURIs = []string{"https://other.example:8443/callback"} }),
	} {
		if _, err := oauth.New(o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, o := range map[string]oauth.Options{
		"nothing":                {},
		"no scope":               web(func(o *oauth.Options) { o.Scope = scope.Set{} }),
		"plain HTTP":             web(func(o *oauth.Options) { o.ClientID = "http://app.example.com/client-metadata.json" }),
		"a port":                 web(func(o *oauth.Options) { o.ClientID = "https://app.example.com:8443/client-metadata.json" }),
		"no path":                web(func(o *oauth.Options) { o.ClientID = "https://app.example.com" }),
		"a fragment":             web(func(o *oauth.Options) { o.ClientID += "#x" }),
		"an address":             web(func(o *oauth.Options) { o.ClientID = "https://192.0.2.1/client-metadata.json" }),
		"no redirect":            web(func(o *oauth.Options) { o.RedirectURIs = nil }),
		"plain redirect":         web(func(o *oauth.Options) { o.RedirectURIs = []string{"http://app.example.com/callback"} }),
		"loopback of a web app":  web(func(o *oauth.Options) { o.RedirectURIs = []string{oauth.LoopbackRedirect} }),
		"the usual port":         web(func(o *oauth.Options) { o.RedirectURIs = []string{"https://app.example.com:443/callback"} }),
		"a redirect of script":   web(func(o *oauth.Options) { o.RedirectURIs = []string{"javascript:alert(1)"} }),
		"another scheme":         web(func(o *oauth.Options) { o.Native, o.RedirectURIs = true, []string{"com.example.other:/callback"} }),
		"two slashes":            web(func(o *oauth.Options) { o.Native, o.RedirectURIs = true, []string{"com.example.app://callback"} }),
		"native elsewhere":       web(func(o *oauth.Options) { o.Native, o.RedirectURIs = true, []string{"https://other.example/callback"} }),
		"a key of another curve": web(func(o *oauth.Options) { o.Keys = []oauth.Key{{Private: k256}} }),
		"a key set without keys": web(func(o *oauth.Options) { o.JWKSURI = "https://app.example.com/jwks.json" }),
		"a home page elsewhere":  web(func(o *oauth.Options) { o.URI = "https://other.example" }),
		"a plain logo":           web(func(o *oauth.Options) { o.Logo = "http://app.example.com/logo.png" }),
		"localhost with a port":  web(func(o *oauth.Options) { o.ClientID = "http://localhost:8080" }),
		"localhost with a path":  web(func(o *oauth.Options) { o.ClientID = "http://localhost/x" }),
		"localhost by address":   web(func(o *oauth.Options) { o.ClientID = "http://127.0.0.1" }),
		"localhost with keys": web(func(o *oauth.Options) {
			o.ClientID = oauth.LocalhostID(postOnly)
			o.Keys = []oauth.Key{{Private: newKey(t)}}
		}),
		"localhost, less scope": web(func(o *oauth.Options) { o.ClientID = "http://localhost" }),
		"localhost, elsewhere":  web(func(o *oauth.Options) { o.ClientID = oauth.LocalhostID(postOnly, "https://app.example.com/") }),
		"localhost, by name":    web(func(o *oauth.Options) { o.ClientID = oauth.LocalhostID(postOnly, "http://localhost/callback") }),
		"localhost, more":       web(func(o *oauth.Options) { o.ClientID = "http://localhost?client_name=x" }),
	} {
		if _, err := oauth.New(o); oauth.KindOf(err) != oauth.KindClient {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := newClient(t, options(srv))
	for name, r := range map[string]oauth.Request{
		"redirect": {Account: string(oauthtest.Handle), RedirectURI: "http://127.0.0.1/other"},
		"scope":    {Account: string(oauthtest.Handle), Scope: scope.Of(scope.Repo("*"))},
		"atproto":  {Account: string(oauthtest.Handle), Scope: scope.Set{}.With(scope.TransitionEmail)},
	} {
		if _, err := c.Start(t.Context(), r); oauth.KindOf(err) != oauth.KindClient {
			t.Errorf("%s: %v", name, err)
		}
	}
	if id := oauth.LocalhostID(scope.Of()); id != "http://localhost" {
		t.Error(id)
	}
	if id, want := oauth.LocalhostID(postOnly, oauth.LoopbackRedirect), "http://localhost?redirect_uri=http%3A%2F%2F127.0.0.1%2Fcallback&scope=atproto%20repo%3Aapp.bsky.feed.post%3Faction%3Dcreate"; id != want {
		t.Errorf("%s, want %s", id, want)
	}
}

// The documents that a program publishes are those that the specification wants.
func TestMetadata(t *testing.T) {
	srv := oauthtest.New(t)
	o := options(srv)
	o.Name, o.URI, o.Logo = "An app", "https://app.example.com", "https://app.example.com/logo.png"
	c := confidential(t, srv, o, oauth.Key{ID: "one", Private: newKey(t)}, oauth.Key{Private: newKey(t)})
	w := get(c.MetadataHandler(), http.MethodGet)
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d, %v", w.Code, w.Header())
	}
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		"client_id": `"https://app.example.com/client-metadata.json"`, "application_type": `"web"`, "dpop_bound_access_tokens": `true`,
		"grant_types": `["authorization_code","refresh_token"]`, "response_types": `["code"]`, "token_endpoint_auth_method": `"private_key_jwt"`,
		"token_endpoint_auth_signing_alg": `"ES256"`, "scope": `"atproto repo:app.bsky.feed.post?action=create"`, "client_name": `"An app"`,
	} {
		if got, _ := json.Marshal(m[k]); string(got) != want {
			t.Errorf("%s is %s, want %s", k, got, want)
		}
	}
	if n := len(m["jwks"].(map[string]any)["keys"].([]any)); n != 2 || bytes.Contains(w.Body.Bytes(), []byte(`"d"`)) {
		t.Errorf("%d keys: %s", n, w.Body)
	}
	if w := get(c.JWKSHandler(), http.MethodGet); !bytes.Contains(w.Body.Bytes(), []byte(`"kid": "one"`)) {
		t.Error(w.Body)
	}
	if w := get(c.MetadataHandler(), http.MethodPost); w.Code != http.StatusMethodNotAllowed {
		t.Error(w.Code)
	}
	if _, err := c.Discover(t.Context(), srv.PDS); err != nil {
		t.Error(err)
	}
	var _ syntax.DID = oauthtest.DID
}
