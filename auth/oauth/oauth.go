// Package oauth is a client of OAuth in the AT Protocol: people log a program in at their own server, in the browser, and the
// program never sees a password.
//
// Specification: https://atproto.com/specs/oauth.
//
// A [Client] stands for one program. [Client.Start] finds the authorization server of an account and registers a request there;
// the person goes to the address that it returns and comes back to the program's redirect URI, with parameters that
// [Client.Finish] exchanges for a session. An [auth.Manager] keeps that and makes requests with it, as it does with a session of a
// password: packages client and bsky don't notice the difference.
//
//	app, err := oauth.New(oauth.Options{ClientID: oauth.LocalhostID(want), Scope: want, HTTP: guarded, Directory: dir, Now: now, Rand: random})
//	accounts := auth.New(auth.Options{HTTP: guarded, Store: store, Now: now, OAuth: app})
//	session, err := app.LoginLoopback(ctx, "alice.example.com", oauth.Loopback{Open: openBrowser}) // a command line
//	account, err := accounts.Add(ctx, session)
//
// For a program on the web there are the handlers of [Web]. What is checked: all that the specification asks of metadata, of
// identities in both directions, of issuer, state and subject, every request with a proof of the session's own key (DPoP) and the
// server's nonce; every answer is bounded in size and time, and no redirect is followed.
//
// Tokens that come with the wrong account are revoked and not returned. A session's tokens are bound to a key that is kept with
// it; see [auth.Grant].
//
// Not here: the authorization server, and the check that a call is within the granted scopes, which is the server's (package
// auth/scope tells beforehand). The HTTP client is given, and has to refuse private addresses, since accounts name the hosts.
//
// Limits: 64 KiB an answer, 10 s a request, 10 minutes a login, 10 minutes a server's metadata.
package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// Defaults and limits.
const (
	DefaultTimeout = 10 * time.Second // of one request
	DefaultLife    = 10 * time.Minute // of a login that was started
	maxAnswer      = 64 << 10
	maxURL         = 4 << 10
	metadataTTL    = 10 * time.Minute
	identityTTL    = 10 * time.Minute // how old what is known of an account may be at a login
	assertionLife  = time.Minute
)

// Kind says why something failed.
type Kind string

// Kinds of [Error].
const (
	KindClient      Kind = "client"      // this program's options or request make no sense
	KindIdentity    Kind = "identity"    // the account can't be found, or its handle and its DID don't agree
	KindUnreachable Kind = "unreachable" // no answer, or one that says nothing: may work later
	KindMetadata    Kind = "metadata"    // a server's metadata is missing or breaks the specification
	KindAnswer      Kind = "answer"      // another answer of a server breaks the specification
	KindRefused     Kind = "refused"     // the server says no: Code tells why
	KindDenied      Kind = "denied"      // the person says no
	KindState       Kind = "state"       // the login is unknown, over, or was finished before
	KindIssuer      Kind = "issuer"      // an answer of another server than the one that was asked
	KindSubject     Kind = "subject"     // tokens for another account, or from a server that doesn't speak for the account
	KindScope       Kind = "scope"       // the server didn't grant atproto
)

// Error is the one error type of this package. What it quotes of servers is clipped and quoted.
type Error struct {
	Op          string // such as "asking for tokens"
	Server      string // origin; may be empty
	Kind        Kind
	Code        string // of OAuth, such as "invalid_grant"; only if the server said one
	Description string // what the server said about it
	Status      int    // of HTTP; 0 if there is none
	Err         error  // cause; may be nil
}

// Error returns one line.
func (e *Error) Error() string {
	s := e.Op
	if e.Server != "" {
		s += " at " + e.Server
	}
	s += ": " + string(e.Kind)
	if e.Status != 0 {
		s += fmt.Sprintf(": status %d", e.Status)
	}
	if e.Code != "" {
		s += fmt.Sprintf(": %.64q", e.Code)
	}
	if e.Description != "" {
		s += fmt.Sprintf(": %.256q", e.Description)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the [*Error] in err, "" if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return ""
}

// Directory finds accounts. An [identity.Directory] is one.
type Directory interface {
	Lookup(ctx context.Context, id syntax.AtIdentifier) (*identity.Identity, error)
	Purge(did syntax.DID) // forgets what is cached of an account
}

var _ Directory = (*identity.Directory)(nil)

// Key is one by which a confidential client shows who it is.
type Key struct {
	ID      string           // in the key set; "" for the thumbprint of the key
	Private *keys.PrivateKey // on P-256
}

// Options of a [Client]. ClientID, HTTP, Directory, Now and Rand are required.
type Options struct {
	// ClientID is the URL of the program's metadata, or of [LocalhostID].
	ClientID string
	// RedirectURIs are where people come back to. A client of LocalhostID has those of its ID.
	RedirectURIs []string
	// Scope is what a login asks for unless it says otherwise, and the most that any asks for.
	Scope scope.Set
	// Keys make it a confidential client. The first one is that of new sessions; the others are there for sessions that were
	// opened with them.
	Keys []Key
	// JWKSURI is where the public keys are, if they aren't part of the metadata.
	JWKSURI string
	// Native says that the program runs on the devices of people.
	Native bool
	// Name, URI, Logo, Terms and Policy are for people: servers may show them. All but Name are URLs.
	Name, URI, Logo, Terms, Policy string

	HTTP      *http.Client // guarded against private addresses; redirects and cookies are switched off
	Directory Directory
	States    StateStore // nil: logins that were started are kept in memory
	Now       func() time.Time
	Rand      io.Reader

	Timeout time.Duration // of one request; 0: [DefaultTimeout]
	Life    time.Duration // of a login that was started; 0: [DefaultLife]
	// AllowLocalhost permits servers at http://localhost, 127.0.0.1 and [::1], for local networks.
	AllowLocalhost bool
}

// Client is a program that people log in to. It is safe for concurrent use, and the [auth.Scheme] of its sessions.
type Client struct {
	o    Options
	http *http.Client

	random  sync.Mutex
	mu      sync.Mutex
	servers map[string]cached  // by issuer
	signers map[string]*signer // by private key
}

type cached struct {
	metadata *ServerMetadata
	at       time.Time
}

const (
	maxServers = 1024
	maxSigners = 4096
)

// New returns a client, or an error of [KindClient] if a server would refuse it.
func New(o Options) (*Client, error) {
	if o.HTTP == nil || o.Directory == nil || o.Now == nil || o.Rand == nil {
		return nil, &Error{Op: "making a client", Kind: KindClient, Err: errors.New("HTTP, Directory, Now and Rand are required")}
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Life == 0 {
		o.Life = DefaultLife
	}
	if o.States == nil {
		o.States = NewMemoryStates()
	}
	o.Keys = slices.Clone(o.Keys)
	if err := o.check(); err != nil {
		return nil, &Error{Op: "making a client", Kind: KindClient, Err: err}
	}
	h := *o.HTTP
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	h.Jar = nil
	return &Client{o: o, http: &h, servers: map[string]cached{}, signers: map[string]*signer{}}, nil
}

func (o *Options) check() error {
	if !o.Scope.Has(scope.Atproto) {
		return errors.New("the scope doesn't have atproto")
	}
	id, err := url.Parse(o.ClientID)
	if err != nil || len(o.ClientID) > maxURL {
		return fmt.Errorf("%.128q is no URL", o.ClientID)
	}
	for i, k := range o.Keys {
		if k.Private == nil || k.Private.Curve() != keys.P256 {
			return errors.New("a client's key is one on P-256")
		}
		if k.ID == "" {
			o.Keys[i].ID = k.Private.Public().Thumbprint()
		}
	}
	if id.Scheme == "http" {
		return o.checkLocalhost(id)
	}
	switch {
	case id.Scheme != "https" || id.User != nil || id.Port() != "" || id.Fragment != "" || strings.HasSuffix(o.ClientID, "#") || strings.Trim(id.Path, "/") == "":
		return fmt.Errorf("the client ID %.128q is not an https URL of a document, without a port", o.ClientID)
	case isIP(id.Hostname()) || strings.HasSuffix(id.Host, ":") || !strings.Contains(id.Hostname(), "."):
		return fmt.Errorf("the client ID %.128q is not on a host of the web", o.ClientID)
	case len(o.RedirectURIs) == 0:
		return errors.New("no redirect URI")
	case o.JWKSURI != "" && (len(o.Keys) == 0 || !strings.HasPrefix(o.JWKSURI, "https://")):
		return errors.New("a key set's URL is one of https, and there have to be keys")
	}
	if u, err := url.Parse(o.URI); o.URI != "" && (err != nil || u.Hostname() != id.Hostname()) {
		return errors.New("the client's home page is on another host than its metadata")
	}
	for _, u := range []string{o.Logo, o.Terms, o.Policy} {
		if u != "" && !strings.HasPrefix(u, "https://") {
			return fmt.Errorf("%.128q is not a URL of https", u)
		}
	}
	for _, r := range o.RedirectURIs {
		if err := o.checkRedirect(id, r); err != nil {
			return err
		}
	}
	return nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// isLoopbackURL reports whether a URL is one of plain HTTP to an address of this machine.
func isLoopbackURL(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "http" && err == nil && ip.IsLoopback() && u.User == nil && u.Fragment == ""
}

// checkRedirect holds a redirect URI to https://atproto.com/specs/oauth#request-fields.
func (o *Options) checkRedirect(id *url.URL, text string) error {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || u.User != nil || u.Fragment != "" || strings.HasSuffix(text, "#") {
		return fmt.Errorf("the redirect URI %.128q is malformed", text)
	}
	switch u.Scheme {
	case "https":
		if u.Port() == "443" || u.Host == "" || isIP(u.Hostname()) || strings.EqualFold(u.Hostname(), "localhost") {
			return fmt.Errorf("the redirect URI %.128q is not on a host of the web, or has the usual port", text)
		}
		if o.Native && u.Host != id.Host {
			return fmt.Errorf("the redirect URI %.128q of a native program has another origin than its client ID", text)
		}
		return nil
	case "http":
		if !o.Native || !isLoopbackURL(u) {
			return fmt.Errorf("the redirect URI %.128q is one of plain HTTP", text)
		}
		return nil
	}
	labels := strings.Split(strings.ToLower(id.Hostname()), ".")
	slices.Reverse(labels)
	if !o.Native || u.Scheme != strings.Join(labels, ".") || !strings.HasPrefix(text, u.Scheme+":/") || strings.HasPrefix(text, u.Scheme+"://") {
		return fmt.Errorf("the redirect URI %.128q doesn't have the form %s:/path", text, strings.Join(labels, "."))
	}
	return nil
}

// defaultRedirects are those of a localhost client that names none.
var defaultRedirects = []string{"http://127.0.0.1/", "http://[::1]/"}

// LocalhostID returns the client ID of a program without metadata on the web: a command line, or one that is being written. Servers
// know what it is from the ID itself. Redirect URIs are loopback addresses, whose port doesn't matter; without any, people
// come back to http://127.0.0.1/ or http://[::1]/.
// https://atproto.com/specs/oauth#localhost-client-development
func LocalhostID(want scope.Set, redirectURIs ...string) string {
	q := url.Values{}
	if len(redirectURIs) > 0 {
		q["redirect_uri"] = redirectURIs
	}
	if text := want.String(); text != scope.Atproto && text != "" {
		q.Set("scope", text)
	}
	if len(q) == 0 {
		return "http://localhost"
	}
	// A plus would be a space to some, and itself to others.
	return "http://localhost?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

func (o *Options) checkLocalhost(id *url.URL) error {
	q, err := url.ParseQuery(id.RawQuery)
	switch {
	case err != nil || id.Host != "localhost" || id.User != nil || id.Path != "" && id.Path != "/" || id.Fragment != "" || strings.HasSuffix(o.ClientID, "#"):
		return fmt.Errorf("the client ID %.128q is neither one of https nor one of http://localhost", o.ClientID)
	case len(o.Keys) > 0:
		return errors.New("a localhost client has no keys")
	case len(q["scope"]) > 1:
		return errors.New("a localhost client has one scope parameter")
	}
	for k := range q {
		if k != "scope" && k != "redirect_uri" {
			return fmt.Errorf("a localhost client has no parameter %.64q", k)
		}
	}
	declared := scope.Of()
	if text := q.Get("scope"); text != "" {
		if declared, err = scope.Parse(text); err != nil {
			return err
		}
	}
	if !within(o.Scope, declared) {
		return errors.New("the client ID doesn't declare all of the scope")
	}
	redirects := q["redirect_uri"]
	if len(redirects) == 0 {
		redirects = defaultRedirects
	}
	for _, r := range redirects {
		if u, err := url.Parse(r); err != nil || !isLoopbackURL(u) {
			return fmt.Errorf("the redirect URI %.128q of a localhost client is not on 127.0.0.1 or [::1]", r)
		}
	}
	o.RedirectURIs, o.Native = redirects, true
	return nil
}

// within reports whether each scope of a set is one of another's.
func within(s, all scope.Set) bool {
	for text := range strings.FieldsSeq(s.String()) {
		if !all.Has(text) {
			return false
		}
	}
	return true
}

// token returns n random bytes in base64url.
func (c *Client) token(n int) (string, error) {
	b := make([]byte, n)
	c.random.Lock()
	defer c.random.Unlock()
	if _, err := io.ReadFull(c.o.Rand, b); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	return base64url.EncodeToString(b), nil
}

func (c *Client) newKey() (*keys.PrivateKey, error) {
	c.random.Lock()
	defer c.random.Unlock()
	return keys.Generate(keys.P256, c.o.Rand)
}
