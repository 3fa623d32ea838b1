package oauth

import (
	"encoding/json"
	"net/http"

	"github.com/barograph/baro/keys"
)

// ClientMetadata is the document that a client publishes at its ID.
// https://atproto.com/specs/oauth#client-id-metadata-document
type ClientMetadata struct {
	ClientID        string   `json:"client_id"`
	ApplicationType string   `json:"application_type"` // web or native
	Name            string   `json:"client_name,omitempty"`
	URI             string   `json:"client_uri,omitempty"`
	Logo            string   `json:"logo_uri,omitempty"`
	Terms           string   `json:"tos_uri,omitempty"`
	Policy          string   `json:"policy_uri,omitempty"`
	RedirectURIs    []string `json:"redirect_uris"`
	GrantTypes      []string `json:"grant_types"`
	ResponseTypes   []string `json:"response_types"`
	Scope           string   `json:"scope"`
	AuthMethod      string   `json:"token_endpoint_auth_method"`
	AuthAlg         string   `json:"token_endpoint_auth_signing_alg,omitempty"`
	DPoPBound       bool     `json:"dpop_bound_access_tokens"`
	JWKS            *JWKS    `json:"jwks,omitempty"`
	JWKSURI         string   `json:"jwks_uri,omitempty"`
}

// JWKS is a set of public keys.
type JWKS struct {
	Keys []keys.JWK `json:"keys"`
}

// Metadata returns the client's document.
func (c *Client) Metadata() ClientMetadata {
	o := &c.o
	m := ClientMetadata{
		ClientID: o.ClientID, ApplicationType: "web", Name: o.Name, URI: o.URI, Logo: o.Logo, Terms: o.Terms, Policy: o.Policy,
		RedirectURIs: o.RedirectURIs, GrantTypes: []string{"authorization_code", "refresh_token"}, ResponseTypes: []string{"code"},
		Scope: o.Scope.String(), AuthMethod: "none", DPoPBound: true,
	}
	if o.Native {
		m.ApplicationType = "native"
	}
	if len(o.Keys) > 0 {
		m.AuthMethod, m.AuthAlg = "private_key_jwt", "ES256"
		if m.JWKSURI = o.JWKSURI; o.JWKSURI == "" {
			set := c.JWKS()
			m.JWKS = &set
		}
	}
	return m
}

// JWKS returns the client's public keys.
func (c *Client) JWKS() JWKS {
	set := JWKS{Keys: []keys.JWK{}}
	for _, k := range c.o.Keys {
		j := k.Private.Public().JWK()
		j.Kid, j.Alg, j.Use = k.ID, "ES256", "sig"
		set.Keys = append(set.Keys, j)
	}
	return set
}

// MetadataHandler serves the client's document, at the path of its ID.
func (c *Client) MetadataHandler() http.Handler { return serveJSON(func() any { return c.Metadata() }) }

// JWKSHandler serves the client's public keys, for a client that has a JWKSURI.
func (c *Client) JWKSHandler() http.Handler { return serveJSON(func() any { return c.JWKS() }) }

func serveJSON(v func() any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "this document is only read", http.StatusMethodNotAllowed)
			return
		}
		b, err := json.MarshalIndent(v(), "", "  ")
		if err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "max-age=300")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = w.Write(append(b, '\n')) // nobody is left to tell
	})
}
