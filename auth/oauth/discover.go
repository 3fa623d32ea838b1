package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
)

// ServerMetadata is what an authorization server says of itself, as far as it matters, checked.
// https://atproto.com/specs/oauth#server-metadata
type ServerMetadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	PAREndpoint           string   `json:"pushed_authorization_request_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"` // "" if there is none
	Scopes                []string `json:"scopes_supported"`
	Prompts               []string `json:"prompt_values_supported"`
	ProtectedResources    []string `json:"protected_resources"` // the PDSes it speaks for; empty if it doesn't say
}

const (
	resourcePath = "/.well-known/oauth-protected-resource"
	serverPath   = "/.well-known/oauth-authorization-server"
)

// parseServer reads an authorization server's metadata, which has to be that of an issuer.
func parseServer(issuer string, body []byte, local bool) (*ServerMetadata, error) {
	var m struct {
		ServerMetadata
		ResponseTypes  []string `json:"response_types_supported"`
		GrantTypes     []string `json:"grant_types_supported"`
		Challenges     []string `json:"code_challenge_methods_supported"`
		AuthMethods    []string `json:"token_endpoint_auth_methods_supported"`
		AuthAlgs       []string `json:"token_endpoint_auth_signing_alg_values_supported"`
		DPoPAlgs       []string `json:"dpop_signing_alg_values_supported"`
		IssParameter   bool     `json:"authorization_response_iss_parameter_supported"`
		RequirePAR     bool     `json:"require_pushed_authorization_requests"`
		RequireURI     *bool    `json:"require_request_uri_registration"`
		ClientDocument bool     `json:"client_id_metadata_document_supported"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, errors.New("it is no JSON object of the right form")
	}
	if m.Issuer != issuer {
		return nil, fmt.Errorf("it is that of %.128q", m.Issuer)
	}
	if err := checkOrigin(issuer, local); err != nil {
		return nil, err
	}
	for _, need := range []struct {
		name   string
		have   []string
		values []string
	}{
		{"response_types_supported", m.ResponseTypes, []string{"code"}},
		{"grant_types_supported", m.GrantTypes, []string{"authorization_code", "refresh_token"}},
		{"code_challenge_methods_supported", m.Challenges, []string{"S256"}},
		{"token_endpoint_auth_methods_supported", m.AuthMethods, []string{"none", "private_key_jwt"}},
		{"token_endpoint_auth_signing_alg_values_supported", m.AuthAlgs, []string{"ES256"}},
		{"dpop_signing_alg_values_supported", m.DPoPAlgs, []string{"ES256"}},
		{"scopes_supported", m.Scopes, []string{"atproto"}},
	} {
		for _, v := range need.values {
			if !slices.Contains(need.have, v) {
				return nil, fmt.Errorf("%s doesn't have %s", need.name, v)
			}
		}
	}
	switch {
	case slices.Contains(m.AuthAlgs, "none") || slices.Contains(m.DPoPAlgs, "none"):
		return nil, errors.New("it takes tokens without a signature")
	case !m.IssParameter:
		return nil, errors.New("authorization_response_iss_parameter_supported isn't true")
	case !m.RequirePAR:
		return nil, errors.New("require_pushed_authorization_requests isn't true")
	case m.RequireURI != nil && !*m.RequireURI:
		return nil, errors.New("require_request_uri_registration is false")
	case !m.ClientDocument:
		return nil, errors.New("client_id_metadata_document_supported isn't true")
	}
	for name, endpoint := range map[string]string{
		"authorization_endpoint": m.AuthorizationEndpoint, "token_endpoint": m.TokenEndpoint,
		"pushed_authorization_request_endpoint": m.PAREndpoint, "revocation_endpoint": m.RevocationEndpoint,
	} {
		if endpoint == "" && name == "revocation_endpoint" {
			continue
		}
		u, err := url.Parse(endpoint)
		if err != nil || len(endpoint) > maxURL || u.User != nil || u.Fragment != "" || strings.HasSuffix(endpoint, "#") || !schemeAllowed(u, local) {
			return nil, fmt.Errorf("%s is %.128q, which is no URL for that", name, endpoint)
		}
	}
	return &m.ServerMetadata, nil
}

// parseResource reads a PDS's metadata and returns the issuer of its tokens.
func parseResource(pds string, body []byte, local bool) (issuer string, err error) {
	var m struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return "", errors.New("it is no JSON object of the right form")
	}
	if m.Resource != "" && strings.TrimSuffix(m.Resource, "/") != pds {
		return "", fmt.Errorf("it is that of %.128q", m.Resource)
	}
	if len(m.Servers) != 1 {
		return "", fmt.Errorf("it names %d authorization servers, not one", len(m.Servers))
	}
	return m.Servers[0], checkOrigin(m.Servers[0], local)
}

// schemeAllowed reports whether a server may be at a URL.
func schemeAllowed(u *url.URL, local bool) bool {
	if u.Scheme == "https" {
		return u.Hostname() != ""
	}
	return local && u.Scheme == "http" && (strings.EqualFold(u.Hostname(), "localhost") || isIP(u.Hostname()) && isLoopbackURL(u))
}

// checkOrigin tells whether s is an origin in its one form.
func checkOrigin(s string, local bool) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxURL || !schemeAllowed(u, local) || s != u.Scheme+"://"+strings.ToLower(u.Host) || strings.HasSuffix(u.Host, ":") ||
		u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
		return fmt.Errorf("%.128q is not an origin of https in its shortest form", s)
	}
	return nil
}

// get fetches a document.
func (c *Client) get(ctx context.Context, op, origin, path string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, origin+path, nil)
	if err != nil {
		return nil, &Error{Op: op, Server: origin, Kind: KindMetadata, Err: err}
	}
	a, err := c.do(ctx, op, origin, req)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK || !a.json {
		k := KindMetadata
		if a.status >= 500 || a.status == http.StatusTooManyRequests {
			k = KindUnreachable
		}
		e := &Error{Op: op, Server: origin, Kind: k, Status: a.status}
		if a.status == http.StatusOK {
			e.Err = errors.New("the answer is not of the type application/json")
		}
		return nil, e
	}
	return a.body, nil
}

type answer struct {
	status int
	header http.Header
	json   bool
	body   []byte
}

// do sends a request, and reads the answer within the limits.
func (c *Client) do(ctx context.Context, op, origin string, req *http.Request) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	req = req.WithContext(ctx)
	req.Header.Set("Accept", "application/json")
	fail := func(k Kind, err error) (*answer, error) {
		return nil, &Error{Op: op, Server: origin, Kind: k, Err: err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The client's own text has the URL, which may hold secrets.
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return fail(KindUnreachable, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fail(KindUnreachable, fmt.Errorf("reading the answer: %w", err))
	}
	if len(b) > maxAnswer {
		return fail(KindAnswer, fmt.Errorf("the answer has more than %d bytes", maxAnswer))
	}
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return &answer{resp.StatusCode, resp.Header, err == nil && t == "application/json", b}, nil
}

// resource asks a PDS which authorization server speaks for it.
func (c *Client) resource(ctx context.Context, pds string) (issuer string, err error) {
	const op = "asking for the authorization server"
	if err := checkOrigin(pds, c.o.AllowLocalhost); err != nil {
		return "", &Error{Op: op, Server: clip(pds), Kind: KindMetadata, Err: err}
	}
	b, err := c.get(ctx, op, pds, resourcePath)
	if err != nil {
		return "", err
	}
	if issuer, err = parseResource(pds, b, c.o.AllowLocalhost); err != nil {
		return "", &Error{Op: op, Server: pds, Kind: KindMetadata, Err: err}
	}
	return issuer, nil
}

// server returns an authorization server's metadata, from the cache unless fresh.
func (c *Client) server(ctx context.Context, issuer string, fresh bool) (*ServerMetadata, error) {
	c.mu.Lock()
	known, ok := c.servers[issuer]
	c.mu.Unlock()
	if ok && !fresh && c.o.Now().Sub(known.at) < metadataTTL {
		return known.metadata, nil
	}
	const op = "asking for metadata"
	if err := checkOrigin(issuer, c.o.AllowLocalhost); err != nil {
		return nil, &Error{Op: op, Server: clip(issuer), Kind: KindMetadata, Err: err}
	}
	b, err := c.get(ctx, op, issuer, serverPath)
	if err != nil {
		return nil, err
	}
	m, err := parseServer(issuer, b, c.o.AllowLocalhost)
	if err != nil {
		return nil, &Error{Op: op, Server: issuer, Kind: KindMetadata, Err: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	evict(c.servers, maxServers)
	c.servers[issuer] = cached{m, c.o.Now()}
	return m, nil
}

// evict makes room for one more.
func evict[V any](m map[string]V, most int) {
	for k := range m {
		if len(m) < most {
			return
		}
		delete(m, k)
	}
}

func clip(s string) string { return s[:min(len(s), 128)] }

// Discover returns the metadata of the authorization server that speaks for a PDS, given by its origin.
func (c *Client) Discover(ctx context.Context, pds string) (*ServerMetadata, error) {
	issuer, err := c.resource(ctx, pds)
	if err != nil {
		return nil, err
	}
	m, err := c.server(ctx, issuer, true)
	if err != nil {
		return nil, err
	}
	if len(m.ProtectedResources) > 0 && !slices.Contains(m.ProtectedResources, pds) {
		return nil, &Error{Op: "asking for metadata", Server: issuer, Kind: KindMetadata, Err: fmt.Errorf("it doesn't speak for %s", pds)}
	}
	return m, nil
}

// account finds an account by handle or DID, and not from a cache that is older than a login may trust.
func (c *Client) account(ctx context.Context, id syntax.AtIdentifier) (*identity.Identity, error) {
	const op = "finding the account"
	found, err := c.o.Directory.Lookup(ctx, id)
	if err == nil && c.o.Now().Sub(found.Fetched) > identityTTL {
		c.o.Directory.Purge(found.DID)
		found, err = c.o.Directory.Lookup(ctx, id)
	}
	if err != nil {
		k := KindIdentity
		if identity.KindOf(err) == identity.KindUnreachable || identity.KindOf(err) == identity.KindLimited {
			k = KindUnreachable
		}
		return nil, &Error{Op: op, Kind: k, Err: err}
	}
	if found.PDS == "" {
		return nil, &Error{Op: op, Kind: KindIdentity, Err: fmt.Errorf("%s has no PDS", found.DID)}
	}
	return found, nil
}
