package pds

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// Tokens between services, https://atproto.com/specs/xrpc#inter-service-authentication-jwt.

const (
	serviceAuthDefault   = time.Minute
	serviceAuthMax       = time.Hour   // with a method
	serviceAuthMaxMethod = time.Minute // without one
	// inboundMax is the longest life of a token that we accept, and clockSkew how far another's clock may be off.
	inboundMax = 5 * time.Minute
	clockSkew  = 30 * time.Second
)

const methodCreateAccount = "com.atproto.server.createAccount"

// protectedMethods manage the account itself. Another service has no business calling them in the account's name, so no token is made for
// them.
var protectedMethods = map[string]bool{
	"com.atproto.admin.sendEmail":                       true,
	"com.atproto.identity.requestPlcOperationSignature": true,
	"com.atproto.identity.signPlcOperation":             true,
	"com.atproto.identity.updateHandle":                 true,
	"com.atproto.server.activateAccount":                true,
	"com.atproto.server.confirmEmail":                   true,
	"com.atproto.server.createAppPassword":              true,
	"com.atproto.server.deactivateAccount":              true,
	"com.atproto.server.getAccountInviteCodes":          true,
	"com.atproto.server.getSession":                     true,
	"com.atproto.server.listAppPasswords":               true,
	"com.atproto.server.requestAccountDelete":           true,
	"com.atproto.server.requestEmailConfirmation":       true,
	"com.atproto.server.requestEmailUpdate":             true,
	"com.atproto.server.revokeAppPassword":              true,
	"com.atproto.server.updateEmail":                    true,
}

// privilegedMethod reports whether an app password needs the privileged flag for a method.
func privilegedMethod(lxm string) bool {
	return strings.HasPrefix(lxm, "chat.bsky.") || lxm == methodCreateAccount
}

// mintServiceAuth makes a token with which another service sees that the account asks it for the method lxm ("" for any).
func (s *Service) mintServiceAuth(a *account, aud, lxm string, exp time.Time) (string, error) {
	key, err := s.openKey(a)
	if err != nil {
		return "", err
	}
	signed, err := signedPart(jwtHeader{Typ: "JWT", Alg: key.Alg()}, jwtClaims{
		Iss: string(a.DID), Aud: aud, Lxm: lxm, Iat: s.world.Clock.Now().Unix(), Exp: exp.Unix(), Jti: s.randomName(16),
	})
	if err != nil {
		return "", err
	}
	sig, err := key.Sign([]byte(signed))
	if err != nil {
		return "", fmt.Errorf("signing a service token: %w", err)
	}
	return signed + "." + base64url.EncodeToString(sig), nil
}

// requireServiceAuth checks a token of another service that speaks for an account hosted elsewhere, and gives that account's DID. Each
// token is good once.
func (s *Service) requireServiceAuth(r *http.Request, method string) (syntax.DID, error) {
	token, err := bearer(r)
	if err != nil {
		return "", err
	}
	bad := func(name, why string) (syntax.DID, error) {
		return "", refuse(http.StatusUnauthorized, name, "service token: %s", why)
	}
	h, c, signed, sig, err := splitToken(token)
	if err != nil {
		return bad("BadJwt", "malformed")
	}
	switch strings.ToLower(h.Typ) {
	case typAccess, typRefresh, "dpop+jwt":
		return bad("BadJwtType", "a token of this type is no service token")
	}
	if h.Kid != "" && h.Kid != "#atproto" {
		return bad("BadJwtKey", "only the key #atproto is accepted")
	}
	if h.Alg != "ES256" && h.Alg != "ES256K" {
		return bad("BadJwtAlgorithm", "only ES256 and ES256K are accepted")
	}
	now := s.world.Clock.Now()
	exp := time.Unix(c.Exp, 0)
	switch {
	case c.Exp <= 0 || !now.Before(exp.Add(clockSkew)):
		return bad("JwtExpired", "expired")
	case exp.Sub(now) > inboundMax+clockSkew:
		return bad("BadJwt", "lives too long")
	case c.Iat > 0 && time.Unix(c.Iat, 0).Sub(now) > clockSkew:
		return bad("BadJwt", "made in the future")
	case c.Aud != string(s.cfg.DID) && c.Aud != string(s.cfg.DID)+"#atproto_pds":
		return bad("BadJwtAudience", "meant for another service")
	case c.Lxm != method:
		return bad("BadJwtLexiconMethod", "meant for another method")
	case c.Jti == "" || len(c.Jti) > 256:
		return bad("BadJwt", "no usable jti")
	}
	did, err := syntax.ParseDID(c.Iss)
	if err != nil {
		return bad("BadJwtIss", "the issuer is no DID")
	}
	// A key may have been replaced since it was cached: a signature that fails is tried once more with a fresh document.
	for _, fresh := range []bool{false, true} {
		var key *keys.PublicKey
		if key, err = s.accountKey(r.Context(), did, fresh); err != nil {
			if fresh {
				break
			}
			continue // a document without a usable key may be an old one
		}
		if key.Alg() != h.Alg {
			err = errors.New("algorithm does not match the key")
		} else {
			err = key.Verify([]byte(signed), sig)
		}
		if err == nil {
			break
		}
	}
	if identity.KindOf(err) != "" {
		return "", refuse(http.StatusBadRequest, "UnresolvableDid", "%s can't be resolved", did)
	}
	if err != nil {
		return bad("BadJwtSignature", "the signature does not verify")
	}
	if !s.accounts.replay.first(string(did)+" "+c.Jti, now, exp.Add(clockSkew)) {
		return bad("BadJwt", "used before")
	}
	return did, nil
}

// replayCache remembers the names of one-time tokens until they expire.
type replayCache struct {
	mu    sync.Mutex
	until map[string]time.Time
	swept time.Time
}

// first reports whether name is seen for the first time.
func (c *replayCache) first(name string, now, expires time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until == nil {
		c.until = map[string]time.Time{}
	}
	if now.Sub(c.swept) > time.Minute {
		for n, end := range c.until {
			if end.Before(now) {
				delete(c.until, n)
			}
		}
		c.swept = now
	}
	if end, seen := c.until[name]; seen && !end.Before(now) {
		return false
	}
	c.until[name] = expires
	return true
}
