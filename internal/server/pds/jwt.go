package pds

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Session tokens are JWTs signed with HS256 and a secret of this server's own, https://atproto.com/specs/xrpc#authentication. Tokens
// between services are signed with an account's repository key and are those of package auth: the two never share a verification path, so
// that neither an algorithm nor a key can be confused with the other's.

// Types of session tokens in the JWT header.
const (
	typAccess  = "at+jwt"
	typRefresh = "refresh+jwt"
)

// maxToken is the longest token that is looked at.
const maxToken = 4 << 10

var (
	errBadToken     = errors.New("malformed or forged token")
	errExpiredToken = errors.New("expired token")
)

type jwtHeader struct {
	Typ string `json:"typ,omitempty"`
	Alg string `json:"alg"`
	Kid string `json:"kid,omitempty"`
	// Crit names extensions that must be understood. None is, so none may be there.
	Crit json.RawMessage `json:"crit,omitempty"`
}

// jwtClaims are all claims that any token of ours carries.
type jwtClaims struct {
	Scope string `json:"scope,omitempty"`
	Iss   string `json:"iss,omitempty"`
	Sub   string `json:"sub,omitempty"`
	Aud   string `json:"aud,omitempty"`
	Lxm   string `json:"lxm,omitempty"`
	Iat   int64  `json:"iat,omitempty"`
	Exp   int64  `json:"exp,omitempty"`
	Jti   string `json:"jti,omitempty"`
	Epoch int    `json:"baro_epoch,omitempty"`
}

var base64url = base64.RawURLEncoding.Strict()

// signedPart is the part of a token that its signature covers.
func signedPart(h jwtHeader, c jwtClaims) (string, error) {
	header, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encoding a token header: %w", err)
	}
	claims, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encoding token claims: %w", err)
	}
	return base64url.EncodeToString(header) + "." + base64url.EncodeToString(claims), nil
}

// splitToken takes a token apart without believing any of it.
func splitToken(token string) (h jwtHeader, c jwtClaims, signed string, sig []byte, err error) {
	bad := func(what string) (jwtHeader, jwtClaims, string, []byte, error) {
		return jwtHeader{}, jwtClaims{}, "", nil, fmt.Errorf("%w: %s", errBadToken, what)
	}
	if len(token) > maxToken {
		return bad("too long")
	}
	header, rest, ok := strings.Cut(token, ".")
	claims, signature, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(signature, ".") {
		return bad("not three parts")
	}
	raw, err := base64url.DecodeString(header)
	if err != nil || json.Unmarshal(raw, &h) != nil {
		return bad("header")
	}
	if h.Crit != nil {
		return bad("critical header extension")
	}
	if raw, err = base64url.DecodeString(claims); err != nil || json.Unmarshal(raw, &c) != nil {
		return bad("claims")
	}
	if sig, err = base64url.DecodeString(signature); err != nil {
		return bad("signature")
	}
	return h, c, token[:len(header)+1+len(claims)], sig, nil
}

func hs256(secret []byte, signed string) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(signed))
	return m.Sum(nil)
}

func signSession(secret []byte, typ string, c jwtClaims) (string, error) {
	signed, err := signedPart(jwtHeader{Typ: typ, Alg: "HS256"}, c)
	if err != nil {
		return "", err
	}
	return signed + "." + base64url.EncodeToString(hs256(secret, signed)), nil
}

// sessionCache remembers session tokens whose signature was good, by their digest. Clients send the same token with every request for
// hours. It holds nothing that the token doesn't say itself, and the clock is looked at each time.
type sessionCache struct {
	mu     sync.Mutex
	claims map[sessionCacheKey]jwtClaims
}

type sessionCacheKey struct {
	typ    string
	digest [sha256.Size]byte
}

// maxCachedSessions bounds the cache; it starts over when it is full.
const maxCachedSessions = 4096

// verify is verifySession with a memory. The secret and the audience must be the same in all calls.
func (s *sessionCache) verify(secret []byte, typ, audience, token string, now int64) (jwtClaims, error) {
	if len(token) > maxToken {
		return jwtClaims{}, fmt.Errorf("%w: too long", errBadToken)
	}
	key := sessionCacheKey{typ, sha256.Sum256([]byte(token))}
	s.mu.Lock()
	c, known := s.claims[key]
	s.mu.Unlock()
	if known {
		if c.Exp <= now {
			return c, errExpiredToken
		}
		return c, nil
	}
	c, err := verifySession(secret, typ, audience, token, now)
	if err != nil {
		return c, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claims == nil || len(s.claims) >= maxCachedSessions {
		s.claims = map[sessionCacheKey]jwtClaims{}
	}
	s.claims[key] = c
	return c, nil
}

// verifySession checks a session token of the given type. An expired token with a good signature gives its claims with errExpiredToken.
func verifySession(secret []byte, typ, audience, token string, now int64) (jwtClaims, error) {
	h, c, signed, sig, err := splitToken(token)
	if err != nil {
		return jwtClaims{}, err
	}
	// The algorithm isn't the token's choice: whatever the header says, this is the only computation.
	if !hmac.Equal(sig, hs256(secret, signed)) {
		return jwtClaims{}, fmt.Errorf("%w: signature", errBadToken)
	}
	if h.Alg != "HS256" || h.Typ != typ || h.Kid != "" || c.Aud != audience || c.Sub == "" || c.Exp == 0 {
		return jwtClaims{}, fmt.Errorf("%w: not a token for this", errBadToken)
	}
	if c.Exp <= now {
		return c, errExpiredToken
	}
	return c, nil
}
