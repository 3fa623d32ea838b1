package bsky

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// EntryPDS is where a login by e-mail address goes unless Options.PDS says otherwise: an address leads to no server.
const EntryPDS = "https://bsky.social"

// Services that a PDS passes questions on to.
const (
	ChatService    = "did:web:api.bsky.chat#bsky_chat"
	AppViewService = "did:web:api.bsky.app#bsky_appview"
)

// Options of a Client. The zero value is one for the public network.
type Options struct {
	// PDS is the server to log in at, such as "https://pds.example". Empty: where the account's identity says.
	PDS string
	// Token is the code that some servers mail as a second factor. A login without it fails with
	// [comatproto.ErrAuthFactorTokenRequired], and has the code sent.
	Token string
	// Store keeps the session. nil: it is gone with the process.
	Store auth.Store
	// OAuth is the program's client of package auth/oauth, by which [Resume] and [Import] go on with sessions that OAuth has
	// made. nil: they go on with those of passwords.
	OAuth auth.Scheme
	// OnEvent is told of what happens to the session.
	OnEvent func(auth.Event, auth.Session)
	// AppView is the service that questions go to, as DID#service, such as [AppViewService]. Empty: the one that the PDS
	// knows.
	AppView string
	// Langs are the languages of posts that name none, such as "en" or "pt-BR".
	Langs []string
	// VideoService is the URL of the service that prepares videos. Empty: [DefaultVideoService]; "none": videos are
	// uploaded as they are.
	VideoService string

	// Retry says how reads are repeated that fail for the moment, or because the server's budget is spent. nil: as the zero
	// [xrpc.Retry] says. Writes are sent again only when they surely weren't done.
	Retry *xrpc.Retry

	// HTTP makes the requests. nil: the standard transport for servers that the program or a kept session names, and that of
	// [identity.Guarded] for those that a lookup leads to: the PDS of a login without Options.PDS, and of other accounts.
	HTTP     *http.Client
	Identity *identity.Directory // nil: the public network's, asked through HTTP if that is given
	Now      func() time.Time    // nil: the system's clock

	found *http.Client // for servers that a lookup leads to
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	switch {
	case o.Identity != nil:
	case o.HTTP == nil:
		o.Identity = identity.Default()
	default:
		o.Identity = identity.New(identity.Options{HTTP: o.HTTP, Now: o.Now})
	}
	if o.found == nil {
		if o.found = o.HTTP; o.found == nil {
			o.found = identity.Guarded()
		}
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{}
	}
	if o.VideoService == "" {
		o.VideoService = DefaultVideoService
	}
	if o.Retry == nil {
		o.Retry = new(xrpc.Retry)
	}
	return o
}

// Client acts for one account. It is safe for concurrent use.
type Client struct {
	o       Options
	did     syntax.DID
	pds     *client.Client
	appview *xrpc.Client
	account *auth.Account // nil for other kinds of credentials
	tids    *syntax.TIDClock
}

// New returns a client that acts for an account with any kind of credentials: x is a client of its PDS that has them. All
// calls are made as x makes them, with its headers and its pacer; a service that x has the PDS pass calls on to is asked, but
// what is written goes to the PDS itself. For an account of package auth, logged in by OAuth or a password, see [ForAccount].
func New(x *xrpc.Client, did syntax.DID, o Options) *Client {
	if o.HTTP == nil {
		o.HTTP = x.HTTP
	}
	o = o.withDefaults()
	o.Token = "" // it has served
	if x.Retry == nil {
		x = x.WithRetry(o.Retry)
	}
	appview := x
	if o.AppView != "" {
		appview = x.WithProxy(o.AppView)
	}
	return &Client{
		o: o, did: did, appview: appview, tids: new(syntax.TIDClock),
		pds: client.FromXRPC(x.WithHeader("Atproto-Proxy", ""), client.Options{DID: did, Now: o.Now}),
	}
}

// String names the account and its server.
func (c *Client) String() string { return fmt.Sprintf("client of %s at %s", c.did, c.pds.Host()) }

// ForAccount returns a client for an account of package auth, whether a password or OAuth has logged it in.
func ForAccount(a *auth.Account, o Options) *Client {
	c := New(a.Client(), a.DID(), o)
	c.account = a
	return c
}

// Login logs an account in with its handle, DID or e-mail address and a password; an app password, which every server makes,
// is better than the account's own. The password is not kept. The AppView isn't asked, so that it may be down.
func Login(ctx context.Context, identifier, password string, o Options) (*Client, error) {
	o = o.withDefaults()
	identifier = strings.TrimPrefix(strings.TrimSpace(identifier), "@")
	pds, did := hostURL(o.PDS), syntax.DID("")
	if pds == "" {
		pds = EntryPDS
		if !strings.Contains(identifier, "@") {
			at, err := syntax.ParseAtIdentifier(identifier)
			if err != nil {
				return nil, fmt.Errorf("logging in: %w", err)
			}
			id, err := o.Identity.Lookup(ctx, at)
			if err != nil {
				return nil, fmt.Errorf("logging in: %w", err)
			}
			if id.PDS == "" {
				return nil, fmt.Errorf("logging in: the identity of %s names no PDS", identifier)
			}
			pds, did, o.HTTP = id.PDS, id.DID, o.found
		}
	}
	a, err := o.manager().Login(ctx, pds, auth.Credentials{Identifier: identifier, Password: password, Token: o.Token, DID: did})
	if err != nil {
		return nil, err
	}
	return ForAccount(a, o), nil
}

// hostURL is the URL of a server as people name it: without a scheme, or with the path that its methods have.
func hostURL(s string) string {
	s = strings.TrimSuffix(strings.TrimRight(strings.TrimSpace(s), "/"), "/xrpc")
	if s != "" && !strings.Contains(s, "://") {
		s = "https://" + s
	}
	return s
}

// Resume goes on with a session that was kept before, by Options.Store. It makes no request. The error is
// [auth.ErrLoginRequired] if there is none.
func Resume(ctx context.Context, did syntax.DID, o Options) (*Client, error) {
	o = o.withDefaults()
	a, err := o.manager().Account(ctx, did)
	if err != nil {
		return nil, err
	}
	return ForAccount(a, o), nil
}

// Import goes on with a session string: that of [Client.SessionString], which is the Python client's too, or of
// [auth.Session.Text]. It makes no request. Whoever has the string acts for the account.
func Import(ctx context.Context, session string, o Options) (*Client, error) {
	s, err := auth.ParseSession(session)
	if err != nil {
		return nil, fmt.Errorf("importing a session: %w", err)
	}
	o = o.withDefaults()
	a, err := o.manager().Import(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("importing a session: %w", err)
	}
	return ForAccount(a, o), nil
}

func (o Options) manager() *auth.Manager {
	return auth.New(auth.Options{HTTP: o.HTTP, Store: o.Store, Now: o.Now, OAuth: o.OAuth, OnEvent: o.OnEvent})
}

// ErrNoSession says that a client has no session to give out or to end: it was given other credentials, or the session is one of
// OAuth.
var ErrNoSession = errors.New("the client has no session of a password")

// SessionString returns the session of a password in one line, for [Import] and for the Python client. One of OAuth isn't
// complete without its key, for which the line has no place: [auth.Session.Text] has.
func (c *Client) SessionString() (string, error) {
	if c.account == nil {
		return "", ErrNoSession
	}
	s := c.account.Session()
	if s.Grant != nil {
		return "", ErrNoSession
	}
	return s.CompatString(), nil
}

// Logout ends the session, here and at the server.
func (c *Client) Logout(ctx context.Context) error {
	if c.account == nil {
		return ErrNoSession
	}
	return c.account.Logout(ctx)
}

// DID is the account that the client acts for.
func (c *Client) DID() syntax.DID { return c.did }

// PDS is the client of the account's server, for records of any kind.
func (c *Client) PDS() *client.Client { return c.pds }

// AppView is the client that questions go through, for methods of api/appbsky that have no function here.
func (c *Client) AppView() *xrpc.Client { return c.appview }

// Chat is the client of the chat service, for the methods of api/chatbsky. An app password must allow it.
func (c *Client) Chat() *xrpc.Client { return c.pds.XRPC().WithProxy(ChatService) }

// WithAppView returns a client that asks another AppView, given as DID#service.
func (c *Client) WithAppView(service string) *Client {
	d := *c
	d.appview = c.appview.WithProxy(service)
	return &d
}

// WithLabelers returns a client whose answers carry the labels of these labelers. Append ";redact" to a DID for one whose
// takedowns hide what they are about.
func (c *Client) WithLabelers(dids ...string) *Client {
	d := *c
	d.appview = c.appview.WithLabelers(dids...)
	return &d
}

// ResolveHandle asks the PDS which account a handle leads to.
func (c *Client) ResolveHandle(ctx context.Context, h syntax.Handle) (syntax.DID, error) {
	out, err := comatproto.IdentityResolveHandle.Call(ctx, c.pds.XRPC(), &comatproto.IdentityResolveHandle_Params{Handle: string(h)})
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w", h, err)
	}
	did, err := syntax.ParseDID(out.Did)
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w", h, err)
	}
	return did, nil
}

// UpdateHandle gives the account another handle. The DNS record or file that the handle needs, unless the PDS gives it out,
// must be there already.
func (c *Client) UpdateHandle(ctx context.Context, h syntax.Handle) error {
	_, err := comatproto.IdentityUpdateHandle.Call(ctx, c.pds.XRPC(), &comatproto.IdentityUpdateHandle_Input{Handle: string(h)})
	if err != nil {
		return fmt.Errorf("changing the handle to %s: %w", h, err)
	}
	return nil
}

// resolve returns the DID of an account that is named by handle, DID or the address of its page.
func (c *Client) resolve(ctx context.Context, who string) (syntax.DID, error) {
	at, err := ParseAccount(who)
	if err != nil {
		return "", err
	}
	if did, err := syntax.ParseDID(string(at)); err == nil {
		return did, nil
	}
	return c.ResolveHandle(ctx, syntax.Handle(at))
}
