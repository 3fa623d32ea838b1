package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

type jwtHeader struct {
	Typ string `json:"typ,omitempty"`
	Alg string `json:"alg"`
	Kid string `json:"kid,omitempty"`
	// Crit names extensions that must be understood. None is, so none may be there.
	Crit json.RawMessage `json:"crit,omitempty"`
}

type jwtClaims struct {
	Iss   string          `json:"iss,omitempty"`
	Sub   string          `json:"sub,omitempty"`
	Aud   json.RawMessage `json:"aud,omitempty"` // a text, or a list with a text
	Scope string          `json:"scope,omitempty"`
	Lxm   string          `json:"lxm,omitempty"`
	Iat   json.Number     `json:"iat,omitempty"`
	Exp   json.Number     `json:"exp,omitempty"`
	Jti   string          `json:"jti,omitempty"`
}

// audience is whom the token is for, "" if it is for nobody or several.
func (c *jwtClaims) audience() string {
	var one string
	if json.Unmarshal(c.Aud, &one) == nil {
		return one
	}
	var list []string
	if json.Unmarshal(c.Aud, &list) == nil && len(list) == 1 {
		return list[0]
	}
	return ""
}

// moment reads a time of a claim, zero if it is none.
func moment(n json.Number) time.Time {
	s, err := n.Int64()
	if err != nil || s <= 0 || s > 1<<40 {
		return time.Time{}
	}
	return time.Unix(s, 0)
}

type jwt struct {
	header jwtHeader
	claims jwtClaims
	signed string // what the signature is over
	sig    []byte
}

var base64url = base64.RawURLEncoding.Strict()

// splitJWT takes a token apart, and believes nothing of it.
func splitJWT(token string) (*jwt, error) {
	if len(token) > maxToken {
		return nil, errors.New("the token is too long")
	}
	parts := strings.SplitN(token, ".", 4)
	if len(parts) != 3 {
		return nil, errors.New("the token doesn't have three parts")
	}
	j := &jwt{signed: token[:len(parts[0])+1+len(parts[1])]}
	for i, v := range []any{&j.header, &j.claims} {
		b, err := base64url.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		// A claim of another type than ours is as good as none; errors may quote the token.
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); err != nil && (!ok || t.Field == "") {
			return nil, errors.New("a part of the token isn't JSON in base64")
		}
	}
	var err error
	if j.sig, err = base64url.DecodeString(parts[2]); err != nil {
		return nil, errors.New("the token's signature isn't base64")
	}
	return j, nil
}
