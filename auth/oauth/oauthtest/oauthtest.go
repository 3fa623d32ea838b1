// Package oauthtest is an authorization server and a PDS for tests of programs that log in by OAuth: it checks all that a strict
// server checks, and lies where a test tells it to.
//
// Specification: https://atproto.com/specs/oauth.
//
//	srv := oauthtest.New(t)
//	srv.Lies.Tokens = func(m map[string]any) { m["sub"] = "did:plc:somebodyelse" }
//	app, err := oauth.New(oauth.Options{
//		ClientID: oauth.LocalhostID(want), Scope: want, Directory: srv.Directory(), AllowLocalhost: true,
//		HTTP: new(http.Client), Now: time.Now, Rand: rand.Reader,
//	})
//	_, err = app.LoginLoopback(ctx, "alice.test", oauth.Loopback{Open: func(address string) error { … }}) // must refuse
//	if n := srv.Active(); n != 0 { … }
//	if p := srv.Problems(); len(p) > 0 { … } // what no client may do
//
// What the browser does is an http.Get of the address, or [Server.Browse]. There is one account, [DID], and every login is agreed
// to without asking. The PDS answers getSession, createRecord and uploadBlob, as far as the scope allows, and keeps nothing of what
// it is sent: it has no repository, no labels and no other accounts. Nonces are for one server each and are replaced by
// [Server.Rotate].
//
// Limits: those of memory; a server is for one test.
package oauthtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// The account of every server.
const (
	DID    syntax.DID    = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	Handle syntax.Handle = "alice.test"
)

// Server is an authorization server, a PDS for which it speaks, and a PLC directory.
type Server struct {
	Issuer, PDS, PLC string // origins
	Lies             Lies
	// Clients are those that have metadata, by client ID.
	Clients map[string]any
	// Life of access tokens; 0: 15 minutes.
	Life time.Duration
	Now  func() time.Time

	as, rs, plc *httptest.Server

	mu       sync.Mutex
	n        int
	nonces   map[string][]string // by origin, the current one last
	jtis     map[string]bool
	states   map[string]bool
	pushed   map[string]*request
	codes    map[string]*request
	grants   map[string]*grant // by token of either kind
	counts   map[string]int
	problems []string
}

// Lies are the ways in which a server can be wrong. Functions that are not nil change what is about to be sent.
type Lies struct {
	Resource, Metadata, PAR, Tokens, Error func(m map[string]any)
	Redirect                               func(q url.Values)
	// Answer answers a request in place of the server if it returns true.
	Answer func(w http.ResponseWriter, r *http.Request) bool
	// NoNonce leaves nonces out of the answers of the authorization server.
	NoNonce bool
	// Scope is what is granted; "": what was asked for.
	Scope string
}

type request struct {
	form url.Values
	jkt  string
	kid  string
	used *grant
}

type grant struct {
	client, jkt, kid, scope string
	access, refresh         string
	old                     []string
	expires                 time.Time
	revoked                 bool
}

// T is what a server needs of a test: a [testing.T] is one.
type T interface{ Cleanup(func()) }

// New starts a server that ends with the test.
func New(t T) *Server { return start(t, false) }

// NewOneHost starts a server whose PDS and authorization server have the same origin, as those of a PDS by itself have.
func NewOneHost(t T) *Server { return start(t, true) }

func start(t T, oneHost bool) *Server {
	s := &Server{
		Clients: map[string]any{}, Now: time.Now, nonces: map[string][]string{}, jtis: map[string]bool{}, states: map[string]bool{},
		pushed: map[string]*request{}, codes: map[string]*request{}, grants: map[string]*grant{}, counts: map[string]int{},
	}
	start := func(mux *http.ServeMux) *httptest.Server {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			s.counts[r.Method+" "+r.URL.Path]++
			lie := s.Lies.Answer
			s.mu.Unlock()
			if lie != nil && lie(w, r) {
				return
			}
			mux.ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	as, rs, plc := http.NewServeMux(), http.NewServeMux(), http.NewServeMux()
	as.HandleFunc("GET /.well-known/oauth-authorization-server", s.metadata)
	as.HandleFunc("POST /oauth/par", s.par)
	as.HandleFunc("GET /oauth/authorize", s.authorize)
	as.HandleFunc("POST /oauth/token", s.token)
	as.HandleFunc("POST /oauth/revoke", s.revoke)
	rs.HandleFunc("GET /.well-known/oauth-protected-resource", s.resource)
	rs.HandleFunc("GET /xrpc/com.atproto.identity.resolveHandle", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("handle") != string(Handle) {
			send(w, 400, map[string]any{"error": "HandleNotFound", "message": "no such handle"}, nil)
			return
		}
		send(w, 200, map[string]any{"did": DID}, nil)
	})
	rs.HandleFunc("/xrpc/", s.xrpc)
	plc.HandleFunc("GET /{did}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("did") != string(DID) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/did+ld+json")
		_, _ = w.Write(s.document())
	})
	if oneHost {
		rs.Handle("/oauth/", as)
		rs.Handle("/.well-known/oauth-authorization-server", as)
		s.rs, s.plc = start(rs), start(plc)
		s.as = s.rs
	} else {
		s.as, s.rs, s.plc = start(as), start(rs), start(plc)
	}
	s.Issuer, s.PDS, s.PLC = s.as.URL, s.rs.URL, s.plc.URL
	s.Rotate()
	return s
}

func (s *Server) document() []byte {
	b, _ := json.Marshal(map[string]any{
		"id": DID, "alsoKnownAs": []string{"at://" + string(Handle)},
		"service": []any{map[string]any{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": s.PDS}},
	})
	return b
}

// Directory finds the one account, without a network.
func (s *Server) Directory() *Directory { return &Directory{s: s} }

// Directory is an oauth.Directory of one account.
type Directory struct {
	s *Server
	// PDS, if set, is another one than the server's.
	PDS string
	// Err, if set, is the answer.
	Err error
}

// Lookup finds the account.
func (d *Directory) Lookup(_ context.Context, id syntax.AtIdentifier) (*identity.Identity, error) {
	if d.Err != nil {
		return nil, d.Err
	}
	if string(id) != string(DID) && string(id) != string(Handle) {
		return nil, &identity.Error{Op: "looking up", Subject: string(id), Kind: identity.KindNotFound}
	}
	doc, err := identity.ParseDocument(DID, d.s.document())
	if err != nil {
		return nil, err
	}
	if d.PDS != "" {
		doc.PDS = d.PDS
	}
	return &identity.Identity{Document: doc, Handle: Handle, Fetched: d.s.Now()}, nil
}

// Purge does nothing.
func (d *Directory) Purge(syntax.DID) {}

// Rotate replaces the nonces; those before are not taken any more.
func (s *Server) Rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, origin := range []string{s.Issuer, s.PDS} {
		s.nonces[origin] = []string{"nonce-" + s.serial()}
	}
}

// Expire makes all access tokens of now useless.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.grants {
		g.expires = time.Time{}
	}
}

// Count returns how often a path was asked, such as "POST /oauth/token".
func (s *Server) Count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[what]
}

// Problems returns what clients did that none may do, however the server answered it.
func (s *Server) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

// Active returns the number of sessions that are not revoked.
func (s *Server) Active() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[*grant]bool{}
	for _, g := range s.grants {
		if !g.revoked {
			seen[g] = true
		}
	}
	return len(seen)
}

func (s *Server) serial() string { s.n++; return fmt.Sprint(s.n) }

func send(w http.ResponseWriter, status int, m map[string]any, lie func(map[string]any)) {
	if lie != nil {
		lie(m)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(m)
}

func (s *Server) resource(w http.ResponseWriter, _ *http.Request) {
	send(w, 200, map[string]any{"resource": s.PDS, "authorization_servers": []any{s.Issuer}, "scopes_supported": []any{}}, s.Lies.Resource)
}

func (s *Server) metadata(w http.ResponseWriter, _ *http.Request) {
	send(w, 200, map[string]any{
		"issuer": s.Issuer, "authorization_endpoint": s.Issuer + "/oauth/authorize", "token_endpoint": s.Issuer + "/oauth/token",
		"pushed_authorization_request_endpoint": s.Issuer + "/oauth/par", "revocation_endpoint": s.Issuer + "/oauth/revoke",
		"response_types_supported": []any{"code"}, "grant_types_supported": []any{"authorization_code", "refresh_token"},
		"code_challenge_methods_supported":                 []any{"S256"},
		"token_endpoint_auth_methods_supported":            []any{"none", "private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": []any{"ES256"},
		"scopes_supported":                                 []any{"atproto", "transition:generic"},
		"authorization_response_iss_parameter_supported":   true,
		"require_pushed_authorization_requests":            true,
		"dpop_signing_alg_values_supported":                []any{"ES256"},
		"client_id_metadata_document_supported":            true,
		"protected_resources":                              []any{s.PDS},
	}, s.Lies.Metadata)
}

// fault is an error of OAuth.
type fault struct {
	status      int
	code, about string
}

func (f *fault) Error() string { return f.code + ": " + f.about }

func no(code, about string, args ...any) error { return &fault{400, code, fmt.Sprintf(about, args...)} }

func (s *Server) fail(w http.ResponseWriter, err error) {
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = &fault{500, "server_error", err.Error()}
	}
	send(w, f.status, map[string]any{"error": f.code, "error_description": f.about}, s.Lies.Error)
}

type proof struct {
	Typ, Alg string
	JWK      json.RawMessage `json:"jwk"`
}

type claims struct {
	Jti, Htm, Htu, Nonce, Ath, Iss, Sub, Aud string
	Iat, Exp                                 int64
}

func split(token string, header, payload any) (signed, sig []byte, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("no token of three parts")
	}
	for i, v := range []any{header, payload} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	sig, err = base64.RawURLEncoding.Strict().DecodeString(parts[2])
	return []byte(parts[0] + "." + parts[1]), sig, err
}

// dpop checks the proof of a request and returns the thumbprint of its key.
func (s *Server) dpop(w http.ResponseWriter, r *http.Request, origin, access string) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", no("invalid_dpop_proof", format, args...)
	}
	if w != nil && !(s.Lies.NoNonce && origin == s.Issuer) {
		w.Header().Set("DPoP-Nonce", s.nonces[origin][len(s.nonces[origin])-1])
	}
	all := r.Header.Values("DPoP")
	if len(all) != 1 {
		return bad("%d proofs", len(all))
	}
	var h proof
	var c claims
	signed, sig, err := split(all[0], &h, &c)
	if err != nil || h.Typ != "dpop+jwt" || h.Alg != "ES256" || bytes.Contains(h.JWK, []byte(`"d"`)) {
		return bad("malformed: %v", err)
	}
	key, err := keys.ParseJWK(h.JWK)
	if err == nil {
		err = key.Verify(signed, sig)
	}
	if err != nil {
		return bad("signature: %v", err)
	}
	if c.Htm != r.Method || c.Htu != origin+r.URL.Path {
		return bad("it is for %s %s", c.Htm, c.Htu)
	}
	if d := s.Now().Unix() - c.Iat; d < -10 || d > 10 {
		return bad("it is %d s old", d)
	}
	if !slices.Contains(s.nonces[origin], c.Nonce) {
		return "", no("use_dpop_nonce", "another nonce is wanted")
	}
	if len(c.Jti) < 16 || s.jtis[c.Jti] {
		return bad("its ID was used before, or is short")
	}
	s.jtis[c.Jti] = true
	ath := ""
	if access != "" {
		h := sha256.Sum256([]byte(access))
		ath = base64.RawURLEncoding.EncodeToString(h[:])
	}
	if c.Ath != ath {
		return bad("it is for another access token")
	}
	return key.Thumbprint(), nil
}

// client checks who sends a form, and returns the metadata and the key that it showed.
func (s *Server) client(form url.Values) (meta map[string]any, kid string, err error) {
	id := form.Get("client_id")
	u, err := url.Parse(id)
	if err != nil {
		return nil, "", no("invalid_client", "%v", err)
	}
	if u.Scheme == "http" && u.Host == "localhost" && (u.Path == "" || u.Path == "/") {
		if form.Has("client_assertion") {
			return nil, "", no("invalid_client", "a localhost client has no keys")
		}
		q := u.Query()
		want := q.Get("scope")
		if want == "" {
			want = "atproto"
		}
		redirects := q["redirect_uri"]
		if redirects == nil {
			redirects = []string{"http://127.0.0.1/", "http://[::1]/"}
		}
		return map[string]any{"scope": want, "redirect_uris": redirects, "local": true}, "", nil
	}
	b, err := json.Marshal(s.Clients[id])
	if err == nil {
		err = json.Unmarshal(b, &meta)
	}
	if err != nil || meta == nil || meta["client_id"] != id || meta["dpop_bound_access_tokens"] != true {
		return nil, "", no("invalid_client_metadata", "there is none at %s: %v", id, err)
	}
	if meta["token_endpoint_auth_method"] != "private_key_jwt" {
		return meta, "", nil
	}
	var h struct{ Typ, Alg, Kid string }
	var c claims
	signed, sig, err := split(form.Get("client_assertion"), &h, &c)
	switch {
	case err != nil:
		return nil, "", no("invalid_client", "assertion: %v", err)
	case form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
		return nil, "", no("invalid_client", "the type of assertion is another")
	case c.Iss != id || c.Sub != id || c.Aud != s.Issuer || s.jtis[c.Jti] || len(c.Jti) < 16 || h.Alg != "ES256":
		return nil, "", no("invalid_client", "the assertion is another's, or was used: %+v", c)
	case s.Now().Unix()-c.Iat > 60 || s.Now().Unix()-c.Iat < -10 || c.Exp <= s.Now().Unix():
		return nil, "", no("invalid_client", "the assertion is old")
	}
	s.jtis[c.Jti] = true
	for _, k := range meta["jwks"].(map[string]any)["keys"].([]any) {
		jwk := k.(map[string]any)
		if jwk["d"] != nil {
			s.problems = append(s.problems, "a private key is published")
		}
		if jwk["kid"] != h.Kid {
			continue
		}
		text, _ := json.Marshal(jwk)
		pub, err := keys.ParseJWK(text)
		if err == nil {
			err = pub.Verify(signed, sig)
		}
		if err != nil {
			return nil, "", no("invalid_client", "%v", err)
		}
		return meta, h.Kid, nil
	}
	return nil, "", no("invalid_client", "there is no key %q", h.Kid)
}

// form reads and checks what all requests to the authorization server have.
func (s *Server) form(w http.ResponseWriter, r *http.Request) (form url.Values, meta map[string]any, jkt, kid string, err error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err == nil {
		form, err = url.ParseQuery(string(b))
	}
	if err != nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.URL.RawQuery != "" {
		return nil, nil, "", "", no("invalid_request", "no form: %v", err)
	}
	for k, v := range form {
		if len(v) != 1 {
			return nil, nil, "", "", no("invalid_request", "%s is there %d times", k, len(v))
		}
	}
	if form.Has("client_secret") || r.Header.Get("Authorization") != "" {
		return nil, nil, "", "", no("invalid_request", "there are no secrets of clients")
	}
	if jkt, err = s.dpop(w, r, s.Issuer, ""); err != nil {
		return nil, nil, "", "", err
	}
	meta, kid, err = s.client(form)
	return form, meta, jkt, kid, err
}

func texts(v any) (out []string) {
	switch v := v.(type) {
	case []string:
		return v
	case []any:
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
	}
	return out
}

func (s *Server) par(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	form, meta, jkt, kid, err := s.form(w, r)
	if err != nil {
		s.fail(w, err)
		return
	}
	redirect := slices.ContainsFunc(texts(meta["redirect_uris"]), func(declared string) bool {
		d, _ := url.Parse(declared)
		u, err := url.Parse(form.Get("redirect_uri"))
		if err == nil && meta["local"] == true {
			return u.Scheme == "http" && u.Hostname() == d.Hostname() && u.Path == d.Path
		}
		return declared == form.Get("redirect_uri")
	})
	declared := strings.Fields(fmt.Sprint(meta["scope"]))
	wanted := strings.Fields(form.Get("scope"))
	within := !slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(declared, w) })
	switch {
	case form.Get("response_type") != "code":
		err = no("unsupported_response_type", "code")
	case !redirect:
		err = no("invalid_request", "the redirect URI %q is not declared", form.Get("redirect_uri"))
	case !slices.Contains(wanted, "atproto") || !within:
		err = no("invalid_scope", "the scope %q is not within %q", form.Get("scope"), meta["scope"])
	case form.Get("code_challenge_method") != "S256" || len(form.Get("code_challenge")) != 43 || s.states[form.Get("code_challenge")]:
		err = no("invalid_request", "the challenge is missing, malformed or was used")
	case len(form.Get("state")) < 22 || s.states[form.Get("state")]:
		err = no("invalid_request", "the state is missing, short or was used")
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	s.states[form.Get("state")], s.states[form.Get("code_challenge")] = true, true
	uri := "urn:ietf:params:oauth:request_uri:req-" + s.serial()
	s.pushed[uri] = &request{form: form, jkt: jkt, kid: kid}
	send(w, 201, map[string]any{"request_uri": uri, "expires_in": 300}, s.Lies.PAR)
}

func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.URL.Query()
	req := s.pushed[q.Get("request_uri")]
	if req == nil || len(q) != 2 || q.Get("client_id") != req.form.Get("client_id") {
		http.Error(w, "no such request", http.StatusBadRequest)
		return
	}
	delete(s.pushed, q.Get("request_uri"))
	if hint := req.form.Get("login_hint"); hint != "" && hint != string(DID) && hint != string(Handle) {
		http.Error(w, "no such account", http.StatusBadRequest)
		return
	}
	code := "code-" + s.serial()
	s.codes[code] = req
	to, _ := url.Parse(req.form.Get("redirect_uri"))
	back := to.Query()
	back.Set("state", req.form.Get("state"))
	back.Set("iss", s.Issuer)
	back.Set("code", code)
	if s.Lies.Redirect != nil {
		s.Lies.Redirect(back)
	}
	to.RawQuery = back.Encode()
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	form, _, jkt, kid, err := s.form(w, r)
	if err != nil {
		s.fail(w, err)
		return
	}
	var g *grant
	switch form.Get("grant_type") {
	case "authorization_code":
		req := s.codes[form.Get("code")]
		verifier := sha256.Sum256([]byte(form.Get("code_verifier")))
		switch {
		case req == nil:
			err = no("invalid_grant", "there is no such code")
		case req.used != nil:
			req.used.revoked = true
			s.problems = append(s.problems, "a code was used twice")
			err = no("invalid_grant", "the code was used before")
		case req.jkt != jkt || req.kid != kid || req.form.Get("client_id") != form.Get("client_id") || req.form.Get("redirect_uri") != form.Get("redirect_uri"):
			err = no("invalid_grant", "the code is for another key, client or redirect URI")
		case len(form.Get("code_verifier")) < 43 || base64.RawURLEncoding.EncodeToString(verifier[:]) != req.form.Get("code_challenge"):
			err = no("invalid_grant", "the verifier is another")
		default:
			g = &grant{client: form.Get("client_id"), jkt: jkt, kid: kid, scope: req.form.Get("scope")}
			if s.Lies.Scope != "" {
				g.scope = s.Lies.Scope
			}
			req.used = g
		}
	case "refresh_token":
		old := form.Get("refresh_token")
		g = s.grants[old]
		switch {
		case g == nil || g.revoked:
			err = no("invalid_grant", "there is no such token")
		case g.refresh != old:
			g.revoked = true
			s.problems = append(s.problems, "a refresh token was used twice")
			err = no("invalid_grant", "the token was used before")
		case g.jkt != jkt || g.kid != kid || g.client != form.Get("client_id"):
			err = no("invalid_grant", "the token is another's")
		}
	default:
		err = no("unsupported_grant_type", "%q", form.Get("grant_type"))
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	life := s.Life
	if life == 0 {
		life = 15 * time.Minute
	}
	g.access, g.refresh, g.expires = "access-"+s.serial(), "refresh-"+s.serial(), s.Now().Add(life)
	s.grants[g.access], s.grants[g.refresh] = g, g
	send(w, 200, map[string]any{
		"access_token": g.access, "refresh_token": g.refresh, "token_type": "DPoP", "expires_in": int(life.Seconds()), "scope": g.scope, "sub": DID,
	}, s.Lies.Tokens)
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	form, _, _, _, err := s.form(w, r)
	if err != nil {
		s.fail(w, err)
		return
	}
	if g := s.grants[form.Get("token")]; g != nil {
		g.revoked = true
	}
	w.WriteHeader(http.StatusOK)
}

// xrpc is the resource server: every method wants a token, and writes want a scope.
func (s *Server) xrpc(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	challenge := func(status int, code, about string) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`DPoP algs="ES256", error=%q, error_description=%q`, code, about))
		send(w, status, map[string]any{"error": code, "message": about}, nil)
	}
	access, ok := strings.CutPrefix(r.Header.Get("Authorization"), "DPoP ")
	if !ok {
		w.Header().Set("WWW-Authenticate", "DPoP")
		send(w, 401, map[string]any{"error": "AuthMissing", "message": "no token"}, nil)
		return
	}
	jkt, err := s.dpop(w, r, s.PDS, access)
	if f, ok := errors.AsType[*fault](err); ok {
		challenge(401, f.code, f.about)
		return
	}
	g := s.grants[access]
	if g == nil || g.access != access || g.revoked || g.jkt != jkt || !s.Now().Before(g.expires) {
		challenge(401, "invalid_token", "the token is not good")
		return
	}
	granted, _ := scope.Read(g.scope)
	switch method := strings.TrimPrefix(r.URL.Path, "/xrpc/"); method {
	case "com.atproto.server.getSession":
		send(w, 200, map[string]any{"did": DID, "handle": Handle, "active": true}, nil)
	case "com.atproto.repo.uploadBlob":
		b, err := io.ReadAll(r.Body)
		if err != nil || !granted.AllowsBlob(r.Header.Get("Content-Type")) {
			challenge(403, "ScopeMissingError", "the scope blob:"+r.Header.Get("Content-Type")+" is missing")
			return
		}
		send(w, 200, map[string]any{"blob": map[string]any{
			"$type": "blob", "ref": map[string]any{"$link": cid.Sum(cid.Raw, b).String()}, "mimeType": r.Header.Get("Content-Type"), "size": len(b),
		}}, nil)
	case "com.atproto.repo.createRecord":
		var in struct {
			Repo, Collection, Rkey string
			Record                 json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Repo != string(DID) {
			send(w, 400, map[string]any{"error": "InvalidRequest", "message": "no record"}, nil)
			return
		}
		if !granted.AllowsRepo(scope.Create, syntax.NSID(in.Collection)) {
			challenge(403, "ScopeMissingError", "the scope repo:"+in.Collection+"?action=create is missing")
			return
		}
		record, err := data.AppendCBOR(nil, in.Record)
		if err != nil {
			send(w, 400, map[string]any{"error": "InvalidRequest", "message": err.Error()}, nil)
			return
		}
		s.counts["written"]++
		if in.Rkey == "" {
			in.Rkey = "3jzfcijpj2z2a"
		}
		send(w, 200, map[string]any{
			"uri": fmt.Sprintf("at://%s/%s/%s", DID, in.Collection, in.Rkey), "cid": cid.Sum(cid.DagCBOR, record).String(),
		}, nil)
	default:
		send(w, 501, map[string]any{"error": "MethodNotImplemented", "message": method}, nil)
	}
}

// Browse does what a browser does with the address of a login: it goes there, and returns where it is sent back to.
func (s *Server) Browse(address string) (*url.URL, error) {
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Get(address)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return nil, fmt.Errorf("the login page answers %s: %s", resp.Status, b)
	}
	return resp.Location()
}
