// Package auth logs accounts in with a password and keeps their sessions alive.
//
// Specification: https://atproto.com/specs/xrpc#authentication.
//
// A [Manager] logs in at an account's PDS and keeps what came back in a [Store]. An [Account] is the [xrpc.Auth] of one
// session: it renews the tokens before they expire and when a server says that they have, once for all requests that wait
// for it, and never sends them to another host than the account's PDS.
//
//	m := auth.New(auth.Options{HTTP: guarded, Store: store, Now: clock.Now})
//	a, err := m.Login(ctx, "https://pds.example", auth.Credentials{Identifier: "alice.test", Password: password})
//	out, err := comatproto.RepoCreateRecord.Call(ctx, a.Client(), &input)
//
//	a, err = m.Account(ctx, did) // in another process, later
//
// For other code than that of this module, [Account.HTTPClient] adds the tokens to any request, by a [Transport].
//
// Requests between services carry tokens of another kind, signed with an account's or a service's own key:
// [ServiceToken.Sign] makes one, a [ServiceValidator] checks it, and a [ServiceAuth] sends them.
//
// Sessions of OAuth are kept and renewed in the same way: package auth/oauth makes them, and is the [Scheme] by which they
// are used.
//
// The package doesn't find out which PDS an account is on (package identity does), and never keeps a password. The tokens of a session are opaque to it but for what they say of themselves, which is read and not verified.
//
// Limits: a token of at most 16 KiB in a session, of 4 KiB between services.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// DefaultEarly is how long before its expiry an access token is renewed.
const DefaultEarly = 5 * time.Minute

var (
	// ErrLoginRequired says that there is no session, or that the server ended it: only the password helps.
	ErrLoginRequired = errors.New("login required")
	// ErrFactorTokenRequired says that the server has mailed a code, with which to log in again as [Credentials.Token].
	ErrFactorTokenRequired = comatproto.ErrAuthFactorTokenRequired
	// ErrOtherHost says that credentials were not sent because the request went to another host than the account's PDS.
	ErrOtherHost = errors.New("credentials are for another host")
)

// RenewalError says that a session could not be renewed. It wraps [ErrLoginRequired] if it never will be.
type RenewalError struct {
	DID syntax.DID
	Err error
}

// Error names the account and the cause.
func (e *RenewalError) Error() string {
	return fmt.Sprintf("renewing the session of %s: %v", e.DID, e.Err)
}

// Unwrap returns the cause.
func (e *RenewalError) Unwrap() error { return e.Err }

// Event is what happened to a session.
type Event string

// The events.
const (
	EventCreated   Event = "created"   // by login or by creating an account
	EventImported  Event = "imported"  // brought from elsewhere
	EventRefreshed Event = "refreshed" // new tokens
	EventExpired   Event = "expired"   // the server ended it
	EventLogout    Event = "logout"
)

// Options of a [Manager].
type Options struct {
	HTTP  *http.Client     // nil: the standard transport
	Store Store            // nil: sessions are kept in memory
	Now   func() time.Time // nil: tokens are renewed only when the server refuses them
	Early time.Duration    // renew so long before expiry; 0: [DefaultEarly]; negative: only when the server refuses
	OAuth Scheme           // uses the sessions that have a [Grant], a client of package auth/oauth; nil: they can't be used
	// OnEvent is told of every change, in order for each account, before the change is acted on. It must not call the
	// account.
	OnEvent func(Event, Session)
}

// Manager keeps the sessions of any number of accounts. It is safe for concurrent use.
type Manager struct {
	o  Options
	mu sync.Mutex
	// accounts makes sure that an account has one Account, so that there is one renewal at a time.
	accounts map[syntax.DID]*Account
}

// New returns a manager.
func New(o Options) *Manager {
	if o.Store == nil {
		o.Store = NewMemoryStore()
	}
	if o.Early == 0 {
		o.Early = DefaultEarly
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event, Session) {}
	}
	return &Manager{o: o, accounts: map[syntax.DID]*Account{}}
}

// Credentials log an account in.
type Credentials struct {
	Identifier string // handle, DID or, at many servers, e-mail address
	Password   string // an app password is better than the account's own
	Token      string // the code that some servers mail as a second factor; may be empty
	// DID is whose session it has to be; empty for whatever the server says.
	DID syntax.DID
}

// String leaves the secrets out.
func (c Credentials) String() string { return "credentials of " + c.Identifier }

// GoString leaves the secrets out of dumps.
func (c Credentials) GoString() string { return c.String() }

// Login makes a session at a PDS, given as an http or https URL, and keeps it. A server that wants a second factor answers
// with [ErrFactorTokenRequired].
func (m *Manager) Login(ctx context.Context, pds string, c Credentials) (*Account, error) {
	origin, err := originOf(pds)
	if err != nil {
		return nil, err
	}
	in := &comatproto.ServerCreateSession_Input{Identifier: c.Identifier, Password: c.Password}
	if c.Token != "" {
		in.AuthFactorToken = &c.Token
	}
	out, err := comatproto.ServerCreateSession.Call(ctx, &xrpc.Client{Host: origin, HTTP: m.o.HTTP}, in)
	if err != nil {
		return nil, fmt.Errorf("logging in at %s: %w", origin, err)
	}
	s := Session{DID: syntax.DID(out.Did), Handle: syntax.Handle(out.Handle), PDS: origin, Access: out.AccessJwt, Refresh: out.RefreshJwt}
	if c.DID != "" && s.DID != c.DID {
		return nil, fmt.Errorf("logging in at %s: the server opened a session of %s, not of %s", origin, s.DID, c.DID)
	}
	a, err := m.add(ctx, s, EventCreated)
	if err != nil {
		return nil, fmt.Errorf("logging in at %s: %w", origin, err)
	}
	return a, nil
}

// Create makes an account at a PDS, given as an http or https URL, and keeps the session that comes with it.
func (m *Manager) Create(ctx context.Context, pds string, in *comatproto.ServerCreateAccount_Input) (*Account, error) {
	origin, err := originOf(pds)
	if err != nil {
		return nil, err
	}
	out, err := comatproto.ServerCreateAccount.Call(ctx, &xrpc.Client{Host: origin, HTTP: m.o.HTTP}, in)
	if err != nil {
		return nil, fmt.Errorf("creating an account at %s: %w", origin, err)
	}
	a, err := m.add(ctx, Session{DID: syntax.DID(out.Did), Handle: syntax.Handle(out.Handle), PDS: origin, Access: out.AccessJwt, Refresh: out.RefreshJwt}, EventCreated)
	if err != nil {
		return nil, fmt.Errorf("the account %s was created at %s, but: %w", out.Did, origin, err)
	}
	return a, nil
}

// Import keeps a session that was made elsewhere. It isn't tried out.
func (m *Manager) Import(ctx context.Context, s Session) (*Account, error) {
	origin, err := originOf(s.PDS)
	if err != nil {
		return nil, err
	}
	s.PDS = origin
	if c, ok := s.AccessClaims(); ok && strings.HasPrefix(c.Subject, "did:") && c.Subject != string(s.DID) {
		return nil, fmt.Errorf("a session of %s with a token of %s", s.DID, c.Subject)
	}
	return m.add(ctx, s, EventImported)
}

// Add keeps a session that was just made by a login of another kind than [Manager.Login], in place of the one that the account
// had.
func (m *Manager) Add(ctx context.Context, s Session) (*Account, error) {
	return m.add(ctx, s, EventCreated)
}

// addWait is how long add waits for a renewal of the session that it replaces.
const addWait = time.Minute

func (m *Manager) add(ctx context.Context, s Session, e Event) (*Account, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	a := m.account(s)
	// The tokens are there and can't be had again: they are kept even if the caller has gone.
	kept := context.WithoutCancel(ctx)
	waiting, cancel := context.WithTimeout(kept, addWait)
	defer cancel()
	if unlock, err := a.lock(waiting); err == nil { // else a renewal hangs, which is no reason to lose them
		defer unlock()
	}
	old, oldErr := m.o.Store.Load(kept, s.DID)
	if err := m.o.Store.Save(kept, s); err != nil {
		return nil, fmt.Errorf("keeping the session: %w", err)
	}
	a.set(s)
	m.o.OnEvent(e, s)
	if oldErr == nil && old.Grant != nil && m.o.OAuth != nil && (s.Grant == nil || s.Grant.Key != old.Grant.Key) {
		_ = m.o.OAuth.Revoke(ctx, old) // nobody has it any more; it ends by itself if the server can't be told now
	}
	return a, nil
}

// account returns the one Account of a DID.
func (m *Manager) account(s Session) *Account {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[s.DID]
	if a == nil {
		a = &Account{m: m, turn: make(chan struct{}, 1), session: s}
		m.accounts[s.DID] = a
	}
	return a
}

// Account returns the account whose session is kept. The error is [ErrLoginRequired] if there is none.
func (m *Manager) Account(ctx context.Context, did syntax.DID) (*Account, error) {
	s, err := m.o.Store.Load(ctx, did)
	if err != nil {
		return nil, fmt.Errorf("the session of %s: %w", did, err)
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("reading the session of %s: %w", did, err)
	}
	a := m.account(s)
	a.set(s)
	return a, nil
}

// Sessions returns all sessions that are kept, in the order of their DIDs.
func (m *Manager) Sessions(ctx context.Context) ([]Session, error) { return m.o.Store.List(ctx) }

// Account is an account with a session. It is the [xrpc.Auth] of its requests, and safe for concurrent use.
type Account struct {
	m    *Manager
	turn chan struct{} // holds one token while the session is being renewed or ended

	mu      sync.Mutex
	session Session
	ended   bool
}

var (
	_ xrpc.Auth      = (*Account)(nil)
	_ xrpc.Refresher = (*Account)(nil)
	_ xrpc.Observer  = (*Account)(nil)
)

// DID returns the account's DID.
func (a *Account) DID() syntax.DID { return a.Session().DID }

// Session returns a copy of the session as it is now.
func (a *Account) Session() Session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session
}

func (a *Account) set(s Session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.session, a.ended = s, false
}

func (a *Account) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.session.Access, a.session.Refresh, a.ended = "", "", true
}

func (a *Account) current() (Session, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return a.session, ErrLoginRequired
	}
	return a.session, nil
}

// Client returns a client of the account's PDS with its credentials.
func (a *Account) Client() *xrpc.Client {
	return &xrpc.Client{Host: a.Session().PDS, HTTP: a.m.o.HTTP, Auth: a}
}

// Authorize adds the access token, which it renews first if it is about to expire. A renewal that fails for the moment is
// no error as long as the token may still be good.
func (a *Account) Authorize(ctx context.Context, req *http.Request) error {
	s, err := a.current()
	if err != nil {
		return err
	}
	if err := s.isFor(req); err != nil {
		return err
	}
	scheme, err := a.m.scheme(s)
	if err != nil {
		return err
	}
	if now := a.m.o.Now; now != nil && a.m.o.Early > 0 {
		if exp, ok := s.AccessExpires(); ok && !now().Add(a.m.early(s, exp)).Before(exp) {
			renewed, err := a.renew(ctx, s.Access)
			switch {
			case err == nil:
				if s = renewed; s.isFor(req) != nil { // the account has moved
					return s.isFor(req)
				}
			case errors.Is(err, ErrLoginRequired) || ctx.Err() != nil || !now().Before(exp):
				return err
			}
		}
	}
	return scheme.Authorize(req, s)
}

// isFor tells whether a request goes to where the session's tokens may go.
func (s Session) isFor(req *http.Request) error {
	if origin := req.URL.Scheme + "://" + strings.ToLower(req.URL.Host); origin != s.PDS {
		return fmt.Errorf("%w: %s is on %s, the request goes to %s", ErrOtherHost, s.DID, s.PDS, origin)
	}
	return nil
}

// early is how long before its expiry the access token of a session is renewed: no more than a quarter of its life, as some live
// five minutes.
func (m *Manager) early(s Session, exp time.Time) time.Duration {
	if s.Grant == nil {
		return m.o.Early
	}
	return min(m.o.Early, exp.Sub(s.Grant.Issued)/4)
}

// Observe implements [xrpc.Observer].
func (a *Account) Observe(req *http.Request, h http.Header) {
	s := a.Session()
	if scheme, err := a.m.scheme(s); err == nil {
		scheme.Observe(req, h, s)
	}
}

// Refresh renews the session if the server refused a request because of its token.
func (a *Account) Refresh(ctx context.Context, req *http.Request, refusal *xrpc.Error) (bool, error) {
	s := a.Session()
	scheme, err := a.m.scheme(s)
	if err != nil {
		return false, err
	}
	switch scheme.Remedy(refusal, s) {
	case RemedyRepeat:
		return true, nil
	case RemedyRenew:
	default:
		return false, nil
	}
	_, used, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if _, err := a.renew(ctx, used); err != nil {
		return false, err
	}
	return true, nil
}

// Renew gets new tokens now, whatever the age of those that are there.
func (a *Account) Renew(ctx context.Context) error {
	s, err := a.current()
	if err != nil {
		return err
	}
	_, err = a.renew(ctx, s.Access)
	return err
}

// lock waits for the turn of this call among those of this process, and of others that share the store.
func (a *Account) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l, ok := a.m.o.Store.(Locker)
	if !ok {
		return func() { <-a.turn }, nil
	}
	release, err := l.Lock(ctx, a.DID())
	if err != nil {
		<-a.turn
		return nil, fmt.Errorf("locking the session: %w", err)
	}
	return func() { release(); <-a.turn }, nil
}

// renewLimit is how long a renewal may take once it has begun.
const renewLimit = time.Minute

// renew replaces the tokens unless somebody else has since the access token old was used. A renewal that has begun goes on when the
// caller leaves: the server has used the old refresh token up by then, and many take its coming again for a theft.
func (a *Account) renew(ctx context.Context, old string) (Session, error) {
	fail := func(err error) (Session, error) { return Session{}, &RenewalError{DID: a.DID(), Err: err} }
	unlock, err := a.lock(ctx)
	if err != nil {
		return fail(err)
	}
	type outcome struct {
		session Session
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewLimit)
		defer cancel()
		s, err := a.exchange(ctx, old)
		unlock()
		done <- outcome{s, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return fail(o.err)
		}
		return o.session, nil
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
}

// exchange is renew for whom has the lock.
func (a *Account) exchange(ctx context.Context, old string) (Session, error) {
	s, err := a.current()
	if err != nil {
		return Session{}, err
	}
	if s.Access != old {
		return s, nil
	}
	// Another process may have been here: the refresh token that this one knows is then worth nothing. It may have moved the account
	// too; what is kept is then a session at another host, and must neither be replaced by one at the old host nor go with it.
	did := s.DID
	kept, err := a.kept(ctx, s)
	if err == nil {
		return kept, nil
	} else if errors.Is(err, ErrLoginRequired) {
		a.end()
		return Session{}, fmt.Errorf("the session was ended elsewhere: %w", err)
	}

	scheme, err := a.m.scheme(s)
	if err != nil {
		return Session{}, err
	}
	renewed, err := scheme.Renew(ctx, s)
	if errors.Is(err, ErrLoginRequired) {
		if kept, err := a.kept(ctx, s); err == nil { // by somebody who doesn't wait for locks
			return kept, nil
		}
		a.end()
		a.m.o.OnEvent(EventExpired, s)
		if derr := a.m.o.Store.Delete(ctx, did); derr != nil {
			err = errors.Join(err, derr)
		}
	}
	if err != nil {
		return Session{}, err
	}
	if renewed.DID != did {
		return Session{}, fmt.Errorf("the server answered with a session of %q", renewed.DID)
	}
	if err := renewed.Check(); err != nil {
		return Session{}, err
	}
	a.set(renewed) // first: even if they can't be kept, these tokens are the only good ones
	a.m.o.OnEvent(EventRefreshed, renewed)
	if err := a.m.o.Store.Save(ctx, renewed); err != nil {
		return Session{}, fmt.Errorf("keeping the new tokens: %w", err)
	}
	return renewed, nil
}

var errNothingNew = errors.New("the store has no other session")

// kept takes over what the store has, if that isn't the session old.
func (a *Account) kept(ctx context.Context, old Session) (Session, error) {
	s, err := a.m.o.Store.Load(ctx, old.DID)
	if err == nil && s.Access == old.Access && s.PDS == old.PDS {
		err = errNothingNew
	}
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		return Session{}, err
	}
	a.set(s)
	return s, nil
}

// Logout ends the session here and at the server. It is gone here even if the server could not be reached, which is then
// the error.
func (a *Account) Logout(ctx context.Context) error {
	unlock, err := a.lock(ctx)
	if err != nil {
		return fmt.Errorf("logging out: %w", err)
	}
	defer unlock()
	s, err := a.current()
	if err != nil {
		return err
	}
	if kept, err := a.m.o.Store.Load(ctx, s.DID); err == nil && kept.Check() == nil {
		s = kept
	}
	if err := a.m.o.Store.Delete(context.WithoutCancel(ctx), s.DID); err != nil {
		return fmt.Errorf("logging out: %w", err)
	}
	a.end()
	a.m.o.OnEvent(EventLogout, s)
	scheme, err := a.m.scheme(s)
	if err == nil {
		err = scheme.Revoke(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("the session is removed here, but the server could not be told: %w", err)
	}
	return nil
}

// originOf returns scheme, host and port of a PDS, and refuses what isn't one.
func originOf(pds string) (string, error) {
	u, err := url.Parse(pds)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not the URL of a PDS, such as https://pds.example", pds)
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}
