package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/auth/internal/jws"
	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/syntax"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

type assertionHeader struct {
	Typ string `json:"typ"`
	Alg string `json:"alg"`
	Kid string `json:"kid"`
}

type assertionClaims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	ID       string `json:"jti"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

// authenticate adds the client's ID to a form and, for a confidential one, an assertion made with one of its keys.
func (c *Client) authenticate(form url.Values, issuer, clientID, keyID string) error {
	form.Set("client_id", clientID)
	if keyID == "" {
		return nil
	}
	i := slices.IndexFunc(c.o.Keys, func(k Key) bool { return k.ID == keyID })
	if i < 0 {
		return fmt.Errorf("the key %.64q that the session was opened with is not there any more", keyID)
	}
	id, err := c.token(16)
	if err != nil {
		return err
	}
	key, now := c.o.Keys[i], c.o.Now()
	header, err := jws.Encode(assertionHeader{"JWT", key.Private.Alg(), key.ID})
	if err != nil {
		return err
	}
	text, err := jws.Sign(key.Private, header, assertionClaims{clientID, clientID, issuer, id, now.Unix(), now.Add(assertionLife).Unix()})
	if err != nil {
		return err
	}
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", text)
	return nil
}

// party is whose request one to an authorization server is.
type party struct {
	clientID, keyID string
	signer          *signer
}

// post sends a form to an endpoint of a server, again if the server wants another nonce, and returns the answer of a success.
func (c *Client) post(ctx context.Context, op string, m *ServerMetadata, endpoint string, p party, form url.Values) (*answer, error) {
	for retried := false; ; retried = true {
		fail := func(k Kind, err error) (*answer, error) {
			return nil, &Error{Op: op, Server: m.Issuer, Kind: k, Err: err}
		}
		form := maps.Clone(form)
		if err := c.authenticate(form, m.Issuer, p.clientID, p.keyID); err != nil {
			return fail(KindClient, err)
		}
		req, err := http.NewRequest(http.MethodPost, endpoint, strings.NewReader(form.Encode()))
		if err != nil {
			return fail(KindMetadata, err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		id, err := c.token(16)
		if err == nil {
			err = p.signer.prove(req, id, "", c.o.Now())
		}
		if err != nil {
			return fail(KindClient, err)
		}
		a, err := c.do(ctx, op, m.Issuer, req)
		if err != nil {
			return nil, err
		}
		noted := p.signer.note(req, a.header, c.o.Now())
		if a.status == http.StatusOK || a.status == http.StatusCreated {
			if !noted {
				return fail(KindAnswer, errors.New("the answer has no DPoP-Nonce"))
			}
			return a, nil
		}
		e := refusal(op, m.Issuer, a)
		if e.Code != codeUseNonce || !noted || retried {
			return nil, e
		}
	}
}

// refusal reads an answer that is no success.
func refusal(op, server string, a *answer) *Error {
	e := &Error{Op: op, Server: server, Kind: KindRefused, Status: a.status}
	var text struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	switch {
	case a.json && json.Unmarshal(a.body, &text) == nil && text.Code != "":
		e.Code, e.Description = clip(text.Code), text.Description[:min(len(text.Description), 1024)]
	case a.status < 400: // such as a redirect
		e.Kind = KindAnswer
	}
	if a.status >= 500 || a.status == http.StatusTooManyRequests {
		e.Kind = KindUnreachable
	}
	return e
}

// parsePushed reads the answer to a pushed request, and returns what stands for it in the address that the person goes to.
func parsePushed(body []byte) (uri string, err error) {
	var a struct {
		URI  string  `json:"request_uri"`
		Life float64 `json:"expires_in"`
	}
	if json.Unmarshal(body, &a) != nil || a.URI == "" || len(a.URI) > maxURL || a.Life <= 0 {
		return "", errors.New("the answer has no request_uri with a time to live")
	}
	return a.URI, nil
}

// tokens are what an authorization server gives.
type tokens struct {
	access, refresh string // refresh may be empty
	subject         syntax.DID
	scope           string
	life            time.Duration // of the access token; 0 if the server doesn't say
}

const (
	maxToken = 16 << 10
	maxLife  = 10 * 365 * 24 * time.Hour
)

// parseTokens reads an answer with tokens. What it is about is not checked.
func parseTokens(body []byte) (t tokens, kind Kind, err error) {
	var a struct {
		Access  string  `json:"access_token"`
		Type    string  `json:"token_type"`
		Refresh string  `json:"refresh_token"`
		Life    float64 `json:"expires_in"`
		Scope   string  `json:"scope"`
		Subject string  `json:"sub"`
	}
	if json.Unmarshal(body, &a) != nil { // the error itself may quote a token
		return t, KindAnswer, errors.New("the answer is no JSON object of the right form")
	}
	// Filled in before the checks, so that tokens that can't be used can be revoked.
	t = tokens{access: a.Access, refresh: a.Refresh, subject: syntax.DID(a.Subject), scope: a.Scope}
	if a.Life > 0 {
		t.life = time.Duration(min(a.Life, maxLife.Seconds()) * float64(time.Second))
	}
	for _, token := range []string{a.Access, a.Refresh} {
		if len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return tokens{}, KindAnswer, errors.New("the tokens are none that go into a header")
		}
	}
	switch {
	case a.Access == "":
		return t, KindAnswer, errors.New("the answer has no access token")
	case !strings.EqualFold(a.Type, "DPoP"):
		return t, KindAnswer, fmt.Errorf("the tokens are of the type %.32q, not DPoP", a.Type)
	case !syntax.ValidDID(a.Subject):
		return t, KindSubject, fmt.Errorf("the tokens are for %.128q, which is no DID", a.Subject)
	case !slices.Contains(strings.Fields(a.Scope), scope.Atproto):
		return t, KindScope, fmt.Errorf("the server granted %.256q, without atproto", a.Scope)
	}
	return t, "", nil
}

// revoke tells a server that tokens are not wanted.
func (c *Client) revoke(ctx context.Context, m *ServerMetadata, p party, access, refresh string) error {
	const op = "revoking tokens"
	if m.RevocationEndpoint == "" {
		return &Error{Op: op, Server: m.Issuer, Kind: KindMetadata, Err: errors.New("the server doesn't say where")}
	}
	form := url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}}
	if refresh == "" {
		form = url.Values{"token": {access}, "token_type_hint": {"access_token"}}
	}
	_, err := c.post(ctx, op, m, m.RevocationEndpoint, p, form)
	e, ok := errors.AsType[*Error](err)
	if ok && e.Kind == KindAnswer && e.Status == 0 { // a success without a nonce, which nobody needs any more
		return nil
	}
	if ok && e.Code == "invalid_token" || ok && e.Code == "invalid_grant" {
		return nil // over already
	}
	return err
}
