package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/xrpc"
)

var _ auth.Scheme = (*Client)(nil)

// Authorize implements [auth.Scheme]: it adds the access token, and a proof for this one request. Before a request with a large
// body, or one of unknown size, it asks the server for a nonce if it has none or an old one.
func (c *Client) Authorize(req *http.Request, s auth.Session) error {
	if s.Grant == nil {
		return errors.New("the session is not one of OAuth")
	}
	signer, err := c.signer(s.Grant.Key)
	if err != nil {
		return err
	}
	if signer.wantsNonce(req, c.o.Now()) {
		ask, err := http.NewRequest(http.MethodGet, origin(req)+xrpc.Path("com.atproto.server.getSession"), nil)
		if err == nil {
			err = c.authorize(ask, signer, s.Access)
		}
		if err != nil {
			return err
		}
		// Whatever the answer is, it has a nonce; if there is none the request itself shows what is wrong.
		if a, err := c.do(req.Context(), "asking for a nonce", origin(req), ask); err == nil {
			signer.note(ask, a.header, c.o.Now())
		}
	}
	return c.authorize(req, signer, s.Access)
}

func (c *Client) authorize(req *http.Request, signer *signer, access string) error {
	id, err := c.token(16)
	if err != nil {
		return err
	}
	if err := signer.prove(req, id, access, c.o.Now()); err != nil {
		return err
	}
	req.Header.Set("Authorization", "DPoP "+access)
	return nil
}

// Observe implements [auth.Scheme]: it remembers the nonce for the next request. A PDS whose answer has none is not refused,
// unlike an authorization server, because what was asked for is done already.
func (c *Client) Observe(req *http.Request, h http.Header, s auth.Session) {
	if s.Grant == nil {
		return
	}
	if signer, err := c.signer(s.Grant.Key); err == nil {
		signer.note(req, h, c.o.Now())
	}
}

// Remedy implements [auth.Scheme].
func (c *Client) Remedy(refusal *xrpc.Error, _ auth.Session) auth.Remedy {
	challenge := strings.ToLower(strings.Join(refusal.Header.Values("Www-Authenticate"), ","))
	says := func(code string) bool {
		return refusal.Name == code || strings.Contains(challenge, `error="`+code+`"`)
	}
	switch {
	case says(codeUseNonce) && refusal.Header.Get(headerNonce) != "":
		return auth.RemedyRepeat
	case says("invalid_token"), errors.Is(refusal, xrpc.ErrExpiredToken), errors.Is(refusal, xrpc.ErrInvalidToken):
		return auth.RemedyRenew
	}
	return auth.RemedyNone
}

// Renew implements [auth.Scheme]. Before the refresh token is sent, the account's document is asked whether the server still
// speaks for it; a PDS that has changed behind the same server is taken over.
func (c *Client) Renew(ctx context.Context, s auth.Session) (auth.Session, error) {
	const op = "renewing tokens"
	over := func(err error) (auth.Session, error) {
		return auth.Session{}, fmt.Errorf("%w: %w", auth.ErrLoginRequired, err)
	}
	if s.Grant == nil {
		return auth.Session{}, errors.New("the session is not one of OAuth")
	}
	if s.Refresh == "" {
		return over(&Error{Op: op, Server: s.Grant.Issuer, Kind: KindRefused, Err: errors.New("the server gave no refresh token")})
	}
	found, err := c.authority(ctx, s.DID, s.Grant.Issuer)
	if KindOf(err) == KindSubject {
		return over(err)
	}
	if err != nil {
		return auth.Session{}, err
	}
	m, err := c.server(ctx, s.Grant.Issuer, false)
	if err != nil {
		return auth.Session{}, err
	}
	signer, err := c.signer(s.Grant.Key)
	if err != nil {
		return over(err)
	}
	who := party{s.Grant.ClientID, s.Grant.KeyID, signer}
	a, err := c.post(ctx, op, m, m.TokenEndpoint, who, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.Refresh}})
	if e, ok := errors.AsType[*Error](err); ok && e.Code == "invalid_grant" {
		return over(err)
	}
	if err != nil {
		return auth.Session{}, err
	}
	s.PDS = found.PDS
	if h := handleOf(found); h != "" {
		s.Handle = h
	}
	t, renewed, err := c.accept(ctx, op, m, a, s, c.o.Now())
	if err == nil {
		return renewed, nil
	}
	if t.access == "" && t.refresh == "" {
		return auth.Session{}, err // nothing that a server of tokens says: the ones that are there may still be good
	}
	// The old refresh token is used up, and the new one is not to be trusted.
	c.discard(ctx, m, who, t)
	return over(err)
}

// Revoke implements [auth.Scheme].
func (c *Client) Revoke(ctx context.Context, s auth.Session) error {
	if s.Grant == nil {
		return errors.New("the session is not one of OAuth")
	}
	m, err := c.server(ctx, s.Grant.Issuer, false)
	if err != nil {
		return err
	}
	signer, err := c.signer(s.Grant.Key)
	if err != nil {
		return err
	}
	return c.revoke(ctx, m, party{s.Grant.ClientID, s.Grant.KeyID, signer}, s.Access, s.Refresh)
}
