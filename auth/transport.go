package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/barograph/baro/xrpc"
)

// Transport adds credentials to the requests of any [http.Client], for code that knows nothing of package xrpc: those of an
// [Account], of an [xrpc.Bearer], or of any other [xrpc.Auth]. If the credentials can be renewed, a request that is refused
// because of them is sent again with new ones, as far as its body can be had again (see [http.Request.GetBody]); when
// the renewal fails, its error is that of the request, which was then sent once. An Account's tokens go to its PDS only: a
// request elsewhere is an [ErrOtherHost], and so is one that a redirect sends to another origin, whatever the credentials.
type Transport struct {
	Auth xrpc.Auth
	Base http.RoundTripper // nil: the standard transport
}

var _ http.RoundTripper = (*Transport)(nil)

// maxRefusal is how much of a refusal is looked at.
const maxRefusal = 64 << 10

// plain is the standard transport.
var plain = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// maxRefusals is how many refusals of one request are answered by credentials, as by a client of package xrpc.
const maxRefusals = 2

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := sentOn(req); err != nil {
		if req.Body != nil {
			err = errors.Join(err, req.Body.Close())
		}
		return nil, err
	}
	refresher, _ := t.Auth.(xrpc.Refresher)
	body := req.Body
	bodyless := body == nil || body == http.NoBody
	var refused []string
	for {
		sent, resp, err := t.send(req, body)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		default:
			return resp, nil
		}
		if refresher == nil || !bodyless && req.GetBody == nil || len(refused) == maxRefusals {
			return resp, nil
		}
		head, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("reading a refusal: %w", err), resp.Body.Close())
		}
		refusal := xrpc.ParseError(resp.StatusCode, resp.Header, head)
		again := false
		if !slices.Contains(refused, refusal.Name) {
			if again, err = refresher.Refresh(req.Context(), sent, refusal); err != nil {
				return nil, errors.Join(err, resp.Body.Close())
			}
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
		if !bodyless {
			if body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
		refused = append(refused, refusal.Name)
	}
}

// sentOn refuses a request that a redirect has sent on to another origin than where it began: the credentials are for that one.
func sentOn(req *http.Request) error {
	for from := req.Response; from != nil && from.Request != nil; from = from.Request.Response {
		if u := from.Request.URL; u.Scheme != req.URL.Scheme || !strings.EqualFold(u.Host, req.URL.Host) {
			return fmt.Errorf("%w: %s redirects to %s", ErrOtherHost, u.Host, req.URL.Host)
		}
	}
	return nil
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
	var resp *http.Response
	var err error
	if t.Base != nil {
		resp, err = t.Base.RoundTrip(r)
	} else {
		r.RequestURI = ""
		resp, err = plain.Do(r)
	}
	if o, ok := t.Auth.(xrpc.Observer); ok && err == nil {
		o.Observe(r, resp.Header)
	}
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
