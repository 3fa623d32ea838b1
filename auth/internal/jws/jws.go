// Package jws signs JSON Web Tokens, https://www.rfc-editor.org/rfc/rfc7519, for the proofs and assertions of
// https://atproto.com/specs/oauth and the tokens between services. It doesn't read any.
//
//	token, err := jws.Sign(key, jws.Encode(header), claims)
package jws

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/barograph/baro/keys"
)

// Encode returns the JSON of a part of a token, in base64url.
func Encode(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encoding a part of a token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// Sign returns the token of an encoded header and of claims.
func Sign(key *keys.PrivateKey, header string, claims any) (string, error) {
	payload, err := Encode(claims)
	if err != nil {
		return "", err
	}
	signed := header + "." + payload
	sig, err := key.Sign([]byte(signed))
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}
