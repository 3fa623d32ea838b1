package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Scheme is how the sessions of one kind are used. A [Manager] has one of its own for those of a password, and is given that
// for OAuth. It is asked concurrently, but to renew or revoke a session only once at a time.
type Scheme interface {
	// Authorize adds the credentials to a request to the session's PDS.
	Authorize(req *http.Request, s Session) error
	// Observe sees the header of every answer.
	Observe(req *http.Request, h http.Header, s Session)
	// Remedy says what helps against a refusal, after Observe has seen it.
	Remedy(refusal *xrpc.Error, s Session) Remedy
	// Renew exchanges the tokens for new ones. The error wraps [ErrLoginRequired] if that will never work again.
	Renew(ctx context.Context, s Session) (Session, error)
	// Revoke tells the server that the session has ended. That it had ended already is no error.
	Revoke(ctx context.Context, s Session) error
}

// Remedy is what helps against a refusal.
type Remedy int

// The remedies.
const (
	RemedyNone   Remedy = iota // the refusal is the answer
	RemedyRepeat               // the same tokens, once more: what was lacking came with the refusal
	RemedyRenew                // new tokens
)

// Grant is what a session of OAuth has beside its tokens. Printing and logging it shows no secret; its JSON form does.
type Grant struct {
	Issuer   string    `json:"issuer"`          // origin of the authorization server
	ClientID string    `json:"clientId"`        // of the program that the tokens were given to
	KeyID    string    `json:"keyId,omitempty"` // of the key by which the program showed who it is; "" for public clients
	Scope    string    `json:"scope"`           // what was granted: see package auth/scope
	Key      string    `json:"key"`             // the private key that the tokens are bound to, as a multikey: a secret
	Issued   time.Time `json:"issued"`          // when the access token came
	Expires  time.Time `json:"expires,omitzero"`
}

// String shows no secret.
func (g Grant) String() string { return fmt.Sprintf("grant of %s by %s", g.Scope, g.Issuer) }

// GoString shows no secret.
func (g Grant) GoString() string { return g.String() }

// LogValue shows no secret.
func (g Grant) LogValue() slog.Value {
	return slog.GroupValue(slog.String("issuer", g.Issuer), slog.String("client", g.ClientID), slog.String("scope", g.Scope), slog.String("key", "[redacted]"))
}

// check tells whether the grant may be used.
func (g *Grant) check() error {
	if _, err := originOf(g.Issuer); err != nil {
		return fmt.Errorf("a grant whose issuer is no origin: %w", err)
	}
	if g.ClientID == "" || len(g.ClientID)+len(g.Scope) > maxToken {
		return errors.New("a grant without a valid client")
	}
	if k, err := keys.ParsePrivate(g.Key); err != nil || k.Curve() != keys.P256 {
		return errors.New("a grant without a valid key")
	}
	return nil
}

// scheme returns the one that a session is of.
func (m *Manager) scheme(s Session) (Scheme, error) {
	switch {
	case s.Grant == nil:
		return password{m.o.HTTP}, nil
	case m.o.OAuth == nil:
		return nil, fmt.Errorf("the session of %s is one of OAuth, which this program doesn't use", s.DID)
	}
	return m.o.OAuth, nil
}

// password is the scheme of sessions that a password has opened.
type password struct{ http *http.Client }

func (password) Authorize(req *http.Request, s Session) error {
	req.Header.Set("Authorization", "Bearer "+s.Access)
	return nil
}

func (password) Observe(*http.Request, http.Header, Session) {}

func (password) Remedy(refusal *xrpc.Error, _ Session) Remedy {
	if errors.Is(refusal, xrpc.ErrExpiredToken) || refusal.Status == http.StatusUnauthorized {
		return RemedyRenew
	}
	return RemedyNone
}

func (p password) Renew(ctx context.Context, s Session) (Session, error) {
	c := &xrpc.Client{Host: s.PDS, HTTP: p.http, Auth: xrpc.Bearer(s.Refresh)}
	out, err := comatproto.ServerRefreshSession.Call(ctx, c, nil)
	if refusal, ok := errors.AsType[*xrpc.Error](err); ok && final(refusal) {
		return Session{}, fmt.Errorf("%w: the server ended the session: %w", ErrLoginRequired, err)
	}
	if err != nil {
		return Session{}, err
	}
	s.DID, s.Access, s.Refresh, s.Handle = syntax.DID(out.Did), out.AccessJwt, out.RefreshJwt, syntax.Handle(out.Handle)
	return s, nil
}

func (p password) Revoke(ctx context.Context, s Session) error {
	c := &xrpc.Client{Host: s.PDS, HTTP: p.http, Auth: xrpc.Bearer(s.Refresh)}
	_, err := comatproto.ServerDeleteSession.Call(ctx, c, nil)
	if refusal, ok := errors.AsType[*xrpc.Error](err); ok && final(refusal) {
		return nil // it was over already
	}
	return err
}

// final reports whether a refusal to renew means that the session is over.
func final(e *xrpc.Error) bool {
	switch {
	case errors.Is(e, xrpc.ErrExpiredToken), errors.Is(e, xrpc.ErrInvalidToken), errors.Is(e, comatproto.ErrAccountTakedown):
		return true
	}
	return e.Status == http.StatusUnauthorized
}
