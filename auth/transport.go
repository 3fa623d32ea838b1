package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/barograph/baro/xrpc"
)

// Transport adds credentials to the requests of any [http.Client], for code that knows nothing of package xrpc: those of an
// [Account], of an [xrpc.Bearer], or of any other [xrpc.Auth]. If the credentials can be renewed, a request that is refused
// because of them is sent a second time with new ones, as far as its body can be had again (see [http.Request.GetBody]); when
// the renewal fails, its error is that of the request, which was then sent once. An Account's tokens go to its PDS only: a
// request elsewhere, by a redirect too, is an [ErrOtherHost].
type Transport struct {
	Auth xrpc.Auth
	Base http.RoundTripper // nil: the standard transport
}

var _ http.RoundTripper = (*Transport)(nil)

// maxRefusal is how much of a refusal is looked at.
const maxRefusal = 64 << 10

// plain is the standard transport.
var plain = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	sent, resp, err := t.send(req, req.Body)
	if err != nil {
		return nil, err
	}
	refresher, ok := t.Auth.(xrpc.Refresher)
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
	default:
		ok = false
	}
	bodyless := req.Body == nil || req.Body == http.NoBody
	if !ok || !bodyless && req.GetBody == nil {
		return resp, nil
	}
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading a refusal: %w", err), resp.Body.Close())
	}
	again, err := refresher.Refresh(req.Context(), sent, xrpc.ParseError(resp.StatusCode, resp.Header, head))
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if !again {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
		return resp, nil
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	body := req.Body
	if !bodyless {
		if body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	_, resp, err = t.send(req, body)
	return resp, err
}

// send sends a copy of the request with credentials, and closes the body.
func (t *Transport) send(req *http.Request, body io.ReadCloser) (*http.Request, *http.Response, error) {
	r := req.Clone(req.Context())
	r.Body = body
	if err := t.Auth.Authorize(r.Context(), r); err != nil {
		if body != nil {
			err = errors.Join(err, body.Close())
		}
		return r, nil, err
	}
	if t.Base != nil {
		resp, err := t.Base.RoundTrip(r)
		return r, resp, err
	}
	r.RequestURI = ""
	resp, err := plain.Do(r)
	return r, resp, err
}

// HTTPClient returns an [http.Client] that adds the account's credentials, see [Transport]. [Account.Client] is the better one
// for methods of the protocol.
func (a *Account) HTTPClient() *http.Client {
	var c http.Client
	if a.m.o.HTTP != nil {
		c = *a.m.o.HTTP
	}
	c.Transport = &Transport{Auth: a, Base: c.Transport}
	return &c
}
