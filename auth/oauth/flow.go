package oauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
)

// Request says what a login is to be. Only Account is required.
type Request struct {
	// Account is a handle, a DID, or the URL of a PDS or an authorization server, for people who don't know their handle.
	Account string
	// RedirectURI is one of [Options.RedirectURIs], the first one if empty. The port of one of a localhost client may differ.
	RedirectURI string
	// Scope is what is asked for, all of [Options.Scope] if empty.
	Scope scope.Set
	// Prompt asks the server for something other than it would do by itself: "login", "consent", "select_account", "create" or
	// "none".
	Prompt string
	// Data is what [Client.Finish] gives back. It is kept with the login and sent to nobody.
	Data string
}

// Login is a login that was started.
type Login struct {
	URL     string // where the person has to go
	State   string // by which the answer is recognised
	Expires time.Time
	Server  string     // the authorization server
	DID     syntax.DID // whose login it is; "" if only the server was named
}

// Start registers a login at the authorization server of an account.
func (c *Client) Start(ctx context.Context, r Request) (*Login, error) {
	const op = "starting a login"
	bad := func(format string, args ...any) (*Login, error) {
		return nil, &Error{Op: op, Kind: KindClient, Err: fmt.Errorf(format, args...)}
	}
	if r.RedirectURI == "" {
		r.RedirectURI = c.o.RedirectURIs[0]
	}
	if !c.redirectAllowed(r.RedirectURI) {
		return bad("the redirect URI %.128q is not one of the client's", r.RedirectURI)
	}
	if r.Scope.String() == "" {
		r.Scope = c.o.Scope
	}
	if !r.Scope.Has(scope.Atproto) || !within(r.Scope, c.o.Scope) {
		return bad("the scope %.256q doesn't have atproto, or is more than the client's", r.Scope)
	}
	p := Pending{ClientID: c.o.ClientID, RedirectURI: r.RedirectURI, Data: r.Data}
	if len(c.o.Keys) > 0 {
		p.KeyID = c.o.Keys[0].ID
	}
	hint := strings.TrimPrefix(strings.TrimSpace(r.Account), "@")
	var m *ServerMetadata
	if strings.Contains(hint, "://") {
		origin := strings.TrimSuffix(hint, "/")
		var err error
		if m, err = c.fromHost(ctx, origin); err != nil {
			return nil, err
		}
		hint = ""
	} else {
		id, err := syntax.ParseAtIdentifier(strings.TrimPrefix(hint, "at://"))
		if err != nil {
			return bad("%.128q is neither a handle nor a DID", r.Account)
		}
		found, err := c.account(ctx, id)
		if err != nil {
			return nil, err
		}
		p.DID, p.Handle, p.PDS = found.DID, handleOf(found), found.PDS
		if m, err = c.Discover(ctx, found.PDS); err != nil {
			return nil, err
		}
	}
	p.Issuer = m.Issuer

	key, err := c.newKey()
	if err == nil {
		p.Key = key.Multikey()
		p.State, err = c.token(32)
	}
	if err == nil {
		p.Verifier, err = c.token(32)
	}
	if err != nil {
		return bad("%w", err)
	}
	s, err := c.signer(p.Key)
	if err != nil {
		return bad("%w", err)
	}
	challenge := sha256.Sum256([]byte(p.Verifier))
	form := url.Values{
		"response_type": {"code"}, "redirect_uri": {p.RedirectURI}, "scope": {r.Scope.String()}, "state": {p.State},
		"code_challenge": {base64url.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}
	if hint != "" {
		form.Set("login_hint", hint)
	}
	if r.Prompt != "" {
		form.Set("prompt", r.Prompt)
	}
	a, err := c.post(ctx, op, m, m.PAREndpoint, party{p.ClientID, p.KeyID, s}, form)
	if err != nil {
		return nil, err
	}
	uri, err := parsePushed(a.body)
	if err == nil && !a.json {
		err = errors.New("the answer is not of the type application/json")
	}
	if err != nil {
		return nil, &Error{Op: op, Server: m.Issuer, Kind: KindAnswer, Err: err}
	}
	p.Expires = c.o.Now().Add(c.o.Life)
	if err := c.o.States.Put(ctx, p); err != nil {
		return bad("%w", err)
	}
	to, err := url.Parse(m.AuthorizationEndpoint)
	if err != nil {
		return nil, &Error{Op: op, Server: m.Issuer, Kind: KindMetadata, Err: err}
	}
	q := to.Query()
	q.Set("client_id", p.ClientID)
	q.Set("request_uri", uri)
	to.RawQuery = q.Encode()
	return &Login{URL: to.String(), State: p.State, Expires: p.Expires, Server: m.Issuer, DID: p.DID}, nil
}

// fromHost finds the authorization server that a person has named, or the one of the PDS.
func (c *Client) fromHost(ctx context.Context, origin string) (*ServerMetadata, error) {
	m, err := c.Discover(ctx, origin)
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == KindMetadata && e.Status >= 400 && e.Server == origin {
		return c.server(ctx, origin, true) // it is no PDS
	}
	return m, err
}

func handleOf(id *identity.Identity) syntax.Handle {
	if id.Handle == syntax.InvalidHandle {
		return ""
	}
	return id.Handle
}

// redirectAllowed reports whether a redirect URI is one of the client's.
func (c *Client) redirectAllowed(text string) bool {
	if slices.Contains(c.o.RedirectURIs, text) {
		return true
	}
	u, err := url.Parse(text)
	if err != nil || !c.o.Native || !isLoopbackURL(u) {
		return false
	}
	return slices.ContainsFunc(c.o.RedirectURIs, func(declared string) bool {
		d, err := url.Parse(declared)
		return err == nil && isLoopbackURL(d) && d.Hostname() == u.Hostname() && d.EscapedPath() == u.EscapedPath() && d.RawQuery == u.RawQuery
	})
}

// Finish exchanges the parameters that a person came back with, the query of the redirect URI, for a session, and returns the
// [Request.Data] of the login too. The session has to be given to [auth.Manager.Add]. Each login is finished once, also if that
// fails.
func (c *Client) Finish(ctx context.Context, query url.Values) (auth.Session, string, error) {
	const op = "finishing a login"
	p, err := c.take(ctx, query)
	if err != nil {
		return auth.Session{}, "", err
	}
	fail := func(k Kind, err error) (auth.Session, string, error) {
		return auth.Session{}, p.Data, &Error{Op: op, Server: p.Issuer, Kind: k, Err: err}
	}
	// Before anything else is believed: https://www.rfc-editor.org/rfc/rfc9207
	if iss := query["iss"]; len(iss) != 1 || iss[0] != p.Issuer {
		return fail(KindIssuer, fmt.Errorf("the answer is that of %.256q", iss))
	}
	if code := query.Get("error"); code != "" {
		e := &Error{Op: op, Server: p.Issuer, Kind: KindRefused, Code: clip(code), Description: query.Get("error_description")}
		e.Description = e.Description[:min(len(e.Description), 1024)]
		if code == "access_denied" {
			e.Kind = KindDenied
		}
		return auth.Session{}, p.Data, e
	}
	code := query["code"]
	if len(code) != 1 || code[0] == "" || len(code[0]) > maxToken {
		return fail(KindAnswer, errors.New("there is no code in the answer"))
	}
	m, err := c.server(ctx, p.Issuer, false)
	if err != nil {
		return auth.Session{}, p.Data, err
	}
	s, err := c.signer(p.Key)
	if err != nil {
		return fail(KindState, err)
	}
	who := party{p.ClientID, p.KeyID, s}
	a, err := c.post(ctx, op, m, m.TokenEndpoint, who, url.Values{
		"grant_type": {"authorization_code"}, "code": code, "redirect_uri": {p.RedirectURI}, "code_verifier": {p.Verifier},
	})
	if err != nil {
		return auth.Session{}, p.Data, err
	}
	now := c.o.Now()
	t, session, err := c.accept(ctx, op, m, a, auth.Session{DID: p.DID, Handle: p.Handle, PDS: p.PDS, Grant: &auth.Grant{
		Issuer: p.Issuer, ClientID: p.ClientID, KeyID: p.KeyID, Key: p.Key,
	}}, now)
	if err != nil {
		c.discard(ctx, m, who, t)
		return auth.Session{}, p.Data, err
	}
	return session, p.Data, nil
}

// take returns the login that an answer belongs to.
func (c *Client) take(ctx context.Context, query url.Values) (Pending, error) {
	const op = "finishing a login"
	fail := func(err error) (Pending, error) { return Pending{}, &Error{Op: op, Kind: KindState, Err: err} }
	state := query["state"]
	if len(state) != 1 || state[0] == "" || len(state[0]) > 256 {
		return fail(errors.New("there is no state in the answer"))
	}
	p, err := c.o.States.Take(ctx, state[0])
	switch {
	case err != nil:
		return fail(err)
	case p.State != state[0]:
		return fail(ErrUnknownState)
	case !c.o.Now().Before(p.Expires):
		return fail(errors.New("the login took too long"))
	}
	return p, nil
}

// accept makes a session of an answer with tokens. The session it is given has what was known before: the DID, if that was named
// or logged in, and everything of the grant that stays the same. Tokens are returned with the error too, if there are any, to be
// revoked.
func (c *Client) accept(ctx context.Context, op string, m *ServerMetadata, a *answer, s auth.Session, now time.Time) (tokens, auth.Session, error) {
	if !a.json {
		return tokens{}, s, &Error{Op: op, Server: m.Issuer, Kind: KindAnswer, Status: a.status, Err: errors.New("the answer is not of the type application/json")}
	}
	t, k, err := parseTokens(a.body)
	if err != nil {
		return t, s, &Error{Op: op, Server: m.Issuer, Kind: k, Err: err}
	}
	if s.DID == "" {
		// Only the server was named: it has to be the one that the account's own document leads to.
		found, err := c.authority(ctx, t.subject, m.Issuer)
		if err != nil {
			return t, s, err
		}
		s.DID, s.Handle, s.PDS = t.subject, handleOf(found), found.PDS
	}
	if t.subject != s.DID {
		return t, s, &Error{Op: op, Server: m.Issuer, Kind: KindSubject, Err: fmt.Errorf("the tokens are for %s, not for %s", t.subject, s.DID)}
	}
	g := *s.Grant
	g.Scope, g.Issued, g.Expires = t.scope, now, time.Time{}
	if t.life > 0 {
		g.Expires = now.Add(t.life)
	}
	s.Access, s.Grant = t.access, &g
	if t.refresh != "" {
		s.Refresh = t.refresh
	}
	if err := s.Check(); err != nil {
		return t, s, &Error{Op: op, Server: m.Issuer, Kind: KindAnswer, Err: err}
	}
	return t, s, nil
}

// authority finds an account, and makes sure that an authorization server is the one that speaks for it.
func (c *Client) authority(ctx context.Context, did syntax.DID, issuer string) (*identity.Identity, error) {
	found, err := c.account(ctx, syntax.AtIdentifier(did))
	if err != nil {
		return nil, err
	}
	speaks, err := c.resource(ctx, found.PDS)
	if err == nil && speaks != issuer && c.o.Now().Sub(found.Fetched) > 0 {
		// It may have moved since it was looked up.
		c.o.Directory.Purge(did)
		if found, err = c.account(ctx, syntax.AtIdentifier(did)); err == nil {
			speaks, err = c.resource(ctx, found.PDS)
		}
	}
	if err != nil {
		return nil, err
	}
	if speaks != issuer {
		return nil, &Error{Op: "finding who speaks for the account", Server: issuer, Kind: KindSubject, Err: fmt.Errorf("%s is on %s, for which %s speaks", did, found.PDS, speaks)}
	}
	return found, nil
}

// discard revokes tokens that came but are not kept, as far as the server can be reached.
func (c *Client) discard(ctx context.Context, m *ServerMetadata, p party, t tokens) {
	if t.access == "" && t.refresh == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.o.Timeout)
	defer cancel()
	_ = c.revoke(ctx, m, p, t.access, t.refresh) // whoever calls has a better error
}
