package oauth

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/syntax"
)

const goodMetadata = `{"issuer":"https://as.example","authorization_endpoint":"https://as.example/a","token_endpoint":"https://as.example/t",
"pushed_authorization_request_endpoint":"https://as.example/p","revocation_endpoint":"https://as.example/r","response_types_supported":["code"],
"grant_types_supported":["authorization_code","refresh_token"],"code_challenge_methods_supported":["S256"],
"token_endpoint_auth_methods_supported":["none","private_key_jwt"],"token_endpoint_auth_signing_alg_values_supported":["ES256"],
"scopes_supported":["atproto"],"authorization_response_iss_parameter_supported":true,"require_pushed_authorization_requests":true,
"dpop_signing_alg_values_supported":["ES256"],"client_id_metadata_document_supported":true}`

// Whatever metadata says, endpoints that are taken are ones that a request may go to.
func FuzzServerMetadata(f *testing.F) {
	f.Add(goodMetadata, false)
	f.Add(strings.ReplaceAll(goodMetadata, "https://as.example", "http://127.0.0.1:8080"), true)
	f.Add(strings.ReplaceAll(goodMetadata, "https://as.example/t", "https://u:p@as.example/t#x"), false)
	f.Add(strings.ReplaceAll(goodMetadata, "https://as.example/a", "javascript:alert(1)"), false)
	f.Add(`{"issuer":["https://as.example"]}`, false)
	f.Add(`[]`, true)
	f.Fuzz(func(t *testing.T, body string, local bool) {
		issuer := "https://as.example"
		if local {
			issuer = "http://127.0.0.1:8080"
		}
		m, err := parseServer(issuer, []byte(body), local)
		if err != nil {
			return
		}
		for _, e := range []string{m.AuthorizationEndpoint, m.TokenEndpoint, m.PAREndpoint, m.RevocationEndpoint} {
			u, err := url.Parse(e)
			if e == "" && e == m.RevocationEndpoint {
				continue
			}
			if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && !(local && u.Scheme == "http") {
				t.Fatalf("%q", e)
			}
		}
		if m.Issuer != issuer || !slices.Contains(m.Scopes, "atproto") {
			t.Fatal(m)
		}
	})
}

// An issuer that is taken is an origin in the one form that it is compared in.
func FuzzResourceMetadata(f *testing.F) {
	f.Add(`{"resource":"https://pds.example","authorization_servers":["https://as.example"]}`)
	f.Add(`{"authorization_servers":["https://as.example:8443"]}`)
	f.Add(`{"authorization_servers":["https://AS.example/"]}`)
	f.Add(`{"authorization_servers":["https://[::1]:443", 1]}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, body string) {
		issuer, err := parseResource("https://pds.example", []byte(body), false)
		if err != nil {
			return
		}
		u, err := url.Parse(issuer)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || "https://"+u.Host != issuer || issuer != strings.ToLower(issuer) {
			t.Fatalf("%q", issuer)
		}
	})
}

// Tokens that are taken go into a header, are for an account, and are bound to a key.
func FuzzTokens(f *testing.F) {
	f.Add(`{"access_token":"a","refresh_token":"r","token_type":"DPoP","expires_in":900,"scope":"atproto repo:*","sub":"did:plc:ewvi7nxzyoun6zhxrhs64oiz"}`)
	f.Add(`{"access_token":"a","token_type":"dpop","expires_in":-1e300,"scope":"x atproto","sub":"did:web:a.example"}`)
	f.Add(`{"access_token":"a\r\nb","token_type":"DPoP","scope":"atproto","sub":"did:web:a.example"}`)
	f.Add(`{"access_token":{},"scope":[]}`)
	f.Add(`<html>`)
	f.Fuzz(func(t *testing.T, body string) {
		got, k, err := parseTokens([]byte(body))
		for _, token := range []string{got.access, got.refresh} { // also those that are only revoked
			if len(token) > maxToken || strings.ContainsAny(token, " \r\n\x00\x7f") {
				t.Fatalf("%q", token)
			}
		}
		if got.life < 0 || got.life > maxLife {
			t.Fatal(got.life)
		}
		if err != nil {
			if k == "" {
				t.Fatal("an error without a kind")
			}
			return
		}
		if got.access == "" || !syntax.ValidDID(got.subject) || !strings.Contains(got.scope, "atproto") {
			t.Fatalf("%+v", got)
		}
	})
}

// What a server calls an error is never an error of ours, and stays short.
func FuzzRefusal(f *testing.F) {
	f.Add(400, `{"error":"use_dpop_nonce","error_description":"again"}`)
	f.Add(302, ``)
	f.Add(500, `{"error":5}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		e := refusal("asking", "https://as.example", &answer{status: status, json: json.Valid([]byte(body)), body: []byte(body)})
		if e == nil || e.Kind == "" || len(e.Code) > 128 || len(e.Error()) > 4096 || strings.ContainsAny(e.Error(), "\n\r\x1b") {
			t.Fatalf("%q", e)
		}
		if uri, err := parsePushed([]byte(body)); err == nil && uri == "" {
			t.Fatal("an empty request URI")
		}
	})
}
