package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth/internal/jws"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Lives of tokens between services.
const (
	DefaultServiceLife    = time.Minute     // of one that is made
	DefaultMaxServiceLife = 5 * time.Minute // of one that is accepted
	DefaultSkew           = 30 * time.Second

	maxServiceToken = 4 << 10
	maxJTI          = 256
)

// ServiceToken is a token with which one service asks another in the name of an account or of itself.
// https://atproto.com/specs/xrpc#inter-service-authentication-jwt
type ServiceToken struct {
	Issuer   syntax.DID  // who asks
	Service  string      // fragment of the issuer's service that asks, such as "#atproto_labeler"; "" for the account
	Audience string      // who is asked, a service's DID with its fragment, such as "did:web:api.bsky.app#bsky_appview"
	Method   syntax.NSID // what for; "" for anything, which few servers accept
	Issued   time.Time
	Expires  time.Time
	ID       string // in no other token
	KeyID    string // fragment of the key in the issuer's document; "" for "#atproto"
}

// Sign makes the text of the token with the issuer's key.
func (t *ServiceToken) Sign(key *keys.PrivateKey) (string, error) {
	if !syntax.ValidDID(t.Issuer) || t.Audience == "" || t.ID == "" || t.Expires.IsZero() {
		return "", errors.New("a token between services needs an issuer, an audience, an ID and an expiry")
	}
	aud, err := json.Marshal(t.Audience)
	if err != nil {
		return "", fmt.Errorf("encoding an audience: %w", err)
	}
	c := jwtClaims{Iss: string(t.Issuer) + t.Service, Aud: aud, Lxm: string(t.Method), Exp: number(t.Expires), Jti: t.ID}
	if !t.Issued.IsZero() {
		c.Iat = number(t.Issued)
	}
	header, err := jws.Encode(jwtHeader{Typ: "JWT", Alg: key.Alg(), Kid: t.KeyID})
	if err != nil {
		return "", err
	}
	return jws.Sign(key, header, c)
}

func number(t time.Time) json.Number { return json.Number(strconv.FormatInt(t.Unix(), 10)) }

// ServiceAuth is the [xrpc.Auth] of one who has the key: it makes a token for each request, for the method that is called.
type ServiceAuth struct {
	Key      *keys.PrivateKey
	Issuer   syntax.DID
	Service  string // see [ServiceToken]
	KeyID    string
	Audience string
	Now      func() time.Time
	Rand     io.Reader     // for the tokens' IDs
	Life     time.Duration // 0: [DefaultServiceLife]
}

var _ xrpc.Auth = (*ServiceAuth)(nil)

// Authorize adds a new token.
func (a *ServiceAuth) Authorize(_ context.Context, req *http.Request) error {
	var id [16]byte
	if _, err := io.ReadFull(a.Rand, id[:]); err != nil {
		return fmt.Errorf("making the ID of a token: %w", err)
	}
	life := a.Life
	if life == 0 {
		life = DefaultServiceLife
	}
	now := a.Now()
	t := &ServiceToken{
		Issuer: a.Issuer, Service: a.Service, KeyID: a.KeyID, Audience: a.Audience, Method: methodOf(req),
		Issued: now, Expires: now.Add(life), ID: base64.RawURLEncoding.EncodeToString(id[:]),
	}
	text, err := t.Sign(a.Key)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+text)
	return nil
}

func methodOf(req *http.Request) syntax.NSID {
	return syntax.NSID(strings.TrimPrefix(req.URL.Path, xrpc.Path("")))
}

// ServiceToken asks the account's PDS for a token that lets another service see that the account asks for a method.
func (a *Account) ServiceToken(ctx context.Context, audience string, method syntax.NSID) (string, error) {
	return serviceToken(ctx, a.Client(), audience, method)
}

func serviceToken(ctx context.Context, pds *xrpc.Client, audience string, method syntax.NSID) (string, error) {
	p := &comatproto.ServerGetServiceAuth_Params{Aud: audience}
	if method != "" {
		p.Lxm = new(string(method))
	}
	out, err := comatproto.ServerGetServiceAuth.Call(ctx, pds, p)
	if err != nil {
		return "", fmt.Errorf("getting a token for %s: %w", audience, err)
	}
	return out.Token, nil
}

// ServiceClient returns a client of another service that asks in the account's name, with a token of the PDS for each request.
func (a *Account) ServiceClient(host, audience string) *xrpc.Client {
	return &xrpc.Client{Host: host, HTTP: a.m.o.HTTP, Auth: ServiceTokens(a.Client(), audience)}
}

// ServiceTokens returns the [xrpc.Auth] of requests to another service in the name of the account whose credentials pds has, a
// client of its PDS: that makes a token for each request, for the method that is called.
func ServiceTokens(pds *xrpc.Client, audience string) xrpc.Auth {
	return &borrowed{pds, audience}
}

// borrowed sends the tokens that a PDS makes.
type borrowed struct {
	pds      *xrpc.Client
	audience string
}

func (b *borrowed) Authorize(ctx context.Context, req *http.Request) error {
	token, err := serviceToken(ctx, b.pds, b.audience, methodOf(req))
	if err != nil {
		return err
	}
	return xrpc.Bearer(token).Authorize(ctx, req)
}

// Names of refusals of a [ServiceValidator].
const (
	ErrBadToken          xrpc.ErrorName = "BadJwt"
	ErrBadTokenType      xrpc.ErrorName = "BadJwtType"
	ErrBadTokenAlgorithm xrpc.ErrorName = "BadJwtAlgorithm"
	ErrBadTokenKey       xrpc.ErrorName = "BadJwtKey"
	ErrBadTokenIssuer    xrpc.ErrorName = "BadJwtIss"
	ErrBadTokenAudience  xrpc.ErrorName = "BadJwtAudience"
	ErrBadTokenMethod    xrpc.ErrorName = "BadJwtLexiconMethod"
	ErrBadTokenSignature xrpc.ErrorName = "BadJwtSignature"
	ErrTokenExpired      xrpc.ErrorName = "JwtExpired"
)

// KeySource finds the key of a fragment such as "#atproto" in a DID's document, nil if there is none; fresh if the one known
// before doesn't fit. The method Key of a directory of package identity is one.
type KeySource func(ctx context.Context, did syntax.DID, fragment string, fresh bool) (*keys.PublicKey, error)

// OneKey is the KeySource that knows one DID's key, and needs no network.
func OneKey(did syntax.DID, key *keys.PublicKey) KeySource {
	return func(_ context.Context, of syntax.DID, _ string, _ bool) (*keys.PublicKey, error) {
		if of != did {
			return nil, fmt.Errorf("no key of %s is known", of)
		}
		return key, nil
	}
}

// ServiceValidator checks tokens of other services. Its fields are set once; it is safe for concurrent use.
type ServiceValidator struct {
	Audiences []string  // what this service is called: its DID with its fragment, and without if old clients matter
	Keys      KeySource // where issuers' keys come from
	Now       func() time.Time
	MaxLife   time.Duration // 0: [DefaultMaxServiceLife]
	Skew      time.Duration // how far another's clock may be off; 0: [DefaultSkew]
	// AnyMethod accepts tokens that aren't bound to a method.
	AnyMethod bool

	mu    sync.Mutex
	seen  map[string]time.Time // issuer and ID of tokens, until they expire
	swept time.Time
}

// Fragments of a DID document.
const (
	fragmentKey    = "#atproto"
	fragmentLabel  = "#atproto_label"
	serviceLabeler = "#atproto_labeler"
)

// maxSeen bounds the memory for tokens that were used. They live minutes; beyond it new ones are refused.
const maxSeen = 1 << 20

// Validate checks a token that came with a call of a method. Each token is good once. An error is an [*xrpc.Error] of the
// status 401, which a handler may return as it is, or what the KeySource returned.
func (v *ServiceValidator) Validate(ctx context.Context, token string, method syntax.NSID) (*ServiceToken, error) {
	refuse := func(name xrpc.ErrorName, why string) (*ServiceToken, error) {
		return nil, name.WithStatus(http.StatusUnauthorized, "service token: %s", why)
	}
	if len(token) > maxServiceToken {
		return refuse(ErrBadToken, "too long")
	}
	j, err := splitJWT(token)
	if err != nil {
		return refuse(ErrBadToken, err.Error())
	}
	if j.header.Crit != nil {
		return refuse(ErrBadToken, "critical extension")
	}
	switch strings.ToLower(j.header.Typ) {
	case typeAccess, typeRefresh, "dpop+jwt":
		return refuse(ErrBadTokenType, "a token of this type is no service token")
	}
	if j.header.Alg != "ES256" && j.header.Alg != "ES256K" {
		return refuse(ErrBadTokenAlgorithm, "only ES256 and ES256K are accepted")
	}
	now, skew, life := v.Now(), orDefault(v.Skew, DefaultSkew), orDefault(v.MaxLife, DefaultMaxServiceLife)
	did, service, _ := strings.Cut(j.claims.Iss, "#")
	t := &ServiceToken{
		Issuer: syntax.DID(did), Audience: j.claims.audience(), Method: syntax.NSID(j.claims.Lxm),
		Issued: moment(j.claims.Iat), Expires: moment(j.claims.Exp), ID: j.claims.Jti, KeyID: j.header.Kid,
	}
	// Labelers have a key of their own, all others sign with the account's.
	fragment := fragmentKey
	if service != "" {
		if t.Service = "#" + service; t.Service == serviceLabeler {
			fragment = fragmentLabel
		}
	}
	switch {
	case t.Expires.IsZero() || !now.Before(t.Expires.Add(skew)):
		return refuse(ErrTokenExpired, "expired")
	case t.Expires.Sub(now) > life+skew:
		return refuse(ErrBadToken, "lives too long")
	case t.Issued.Sub(now) > skew:
		return refuse(ErrBadToken, "made in the future")
	case t.Audience == "" || !slices.Contains(v.Audiences, t.Audience):
		return refuse(ErrBadTokenAudience, "meant for another service")
	case t.Method != method && (t.Method != "" || !v.AnyMethod):
		return refuse(ErrBadTokenMethod, "meant for another method")
	case t.ID == "" || len(t.ID) > maxJTI:
		return refuse(ErrBadToken, "no usable jti")
	case !syntax.ValidDID(t.Issuer):
		return refuse(ErrBadTokenIssuer, "the issuer is no DID")
	case t.KeyID != "" && t.KeyID != fragment:
		return refuse(ErrBadTokenKey, "signed with another key than the issuer's")
	}
	// A key may have been replaced since it was cached: one that doesn't fit is asked for once more.
	for _, fresh := range []bool{false, true} {
		var key *keys.PublicKey
		if key, err = v.Keys(ctx, t.Issuer, fragment, fresh); err != nil {
			continue
		}
		switch {
		case key == nil:
			err = ErrBadTokenKey.WithStatus(http.StatusUnauthorized, "service token: the issuer has no key %s", fragment)
		case key.Alg() != j.header.Alg || key.Verify([]byte(j.signed), j.sig) != nil:
			err = ErrBadTokenSignature.WithStatus(http.StatusUnauthorized, "service token: the signature doesn't verify")
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if !v.first(string(t.Issuer)+" "+t.ID, now, t.Expires.Add(skew)) {
		return refuse(ErrBadToken, "used before")
	}
	return t, nil
}

// first reports whether a token is seen for the first time.
func (v *ServiceValidator) first(name string, now, until time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seen == nil {
		v.seen = map[string]time.Time{}
	}
	if now.Sub(v.swept) > time.Minute || len(v.seen) >= maxSeen && now.Sub(v.swept) > time.Second {
		for n, end := range v.seen {
			if end.Before(now) {
				delete(v.seen, n)
			}
		}
		v.swept = now
	}
	if end, ok := v.seen[name]; ok && !end.Before(now) || len(v.seen) >= maxSeen {
		return false
	}
	v.seen[name] = until
	return true
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
