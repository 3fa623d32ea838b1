package oauth

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/auth/internal/jws"
	"github.com/barograph/baro/keys"
)

var base64url = base64.RawURLEncoding

// Names of headers and codes.
const (
	headerDPoP   = "DPoP"
	headerNonce  = "Dpop-Nonce"
	codeUseNonce = "use_dpop_nonce"
	maxNonce     = 512
	maxOrigins   = 8
)

// signer makes the proofs of one session: that whoever sends a request has the key that its tokens are bound to.
// https://www.rfc-editor.org/rfc/rfc9449
type signer struct {
	key    *keys.PrivateKey
	header string // encoded

	mu     sync.Mutex
	nonces map[string]nonce // by origin
	// The hash of the access token used last.
	token, hash string
}

// nonce is what a server wants to see in the next proof.
type nonce struct {
	text string
	at   time.Time // when it came
}

type proofHeader struct {
	Typ string   `json:"typ"`
	Alg string   `json:"alg"`
	JWK keys.JWK `json:"jwk"`
}

type proofClaims struct {
	ID     string `json:"jti"`
	Method string `json:"htm"`
	URL    string `json:"htu"`
	Issued int64  `json:"iat"`
	Nonce  string `json:"nonce,omitempty"`
	Hash   string `json:"ath,omitempty"`
}

func newSigner(key *keys.PrivateKey) (*signer, error) {
	j := key.Public().JWK()
	header, err := jws.Encode(proofHeader{Typ: "dpop+jwt", Alg: key.Alg(), JWK: keys.JWK{Kty: j.Kty, Crv: j.Crv, X: j.X, Y: j.Y}})
	if err != nil {
		return nil, err
	}
	return &signer{key: key, header: header, nonces: map[string]nonce{}}, nil
}

// signer returns the one of a session's key, so that the nonces of its servers are remembered.
func (c *Client) signer(multikey string) (*signer, error) {
	c.mu.Lock()
	s := c.signers[multikey]
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	key, err := keys.ParsePrivate(multikey)
	if err != nil {
		return nil, fmt.Errorf("reading the key of a session: %w", err)
	}
	if s, err = newSigner(key); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.signers[multikey]; other != nil {
		return other, nil
	}
	evict(c.signers, maxSigners)
	c.signers[multikey] = s
	return s, nil
}

// prove adds a proof to a request; token is the access token that is sent with it, or "".
func (s *signer) prove(req *http.Request, id, token string, now time.Time) error {
	claims := proofClaims{ID: id, Method: req.Method, URL: origin(req) + req.URL.EscapedPath(), Issued: now.Unix()}
	s.mu.Lock()
	claims.Nonce = s.nonces[origin(req)].text
	if token != "" {
		if s.token != token {
			h := sha256.Sum256([]byte(token))
			s.token, s.hash = token, base64url.EncodeToString(h[:])
		}
		claims.Hash = s.hash
	}
	s.mu.Unlock()
	proof, err := jws.Sign(s.key, s.header, claims)
	if err != nil {
		return err
	}
	req.Header.Set(headerDPoP, proof)
	return nil
}

func origin(req *http.Request) string { return req.URL.Scheme + "://" + strings.ToLower(req.URL.Host) }

// note remembers the nonce of an answer. It is false if the answer has none, or nothing that can be one.
func (s *signer) note(req *http.Request, h http.Header, now time.Time) bool {
	v := h.Values(headerNonce)
	if len(v) != 1 || v[0] == "" || len(v[0]) > maxNonce || strings.ContainsFunc(v[0], func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.nonces[origin(req)]; !ok {
		evict(s.nonces, maxOrigins)
	}
	s.nonces[origin(req)] = nonce{v[0], now}
	return true
}

// freshNonce is how old a nonce may be for a request that can't be repeated at will. Servers replace them after minutes.
const freshNonce = time.Minute

// wantsNonce reports whether a request should wait for a nonce: a server that wants another one has the whole request by then, and
// its body may not be there a second time.
func (s *signer) wantsNonce(req *http.Request, now time.Time) bool {
	if req.Body == nil || req.Body == http.NoBody || req.ContentLength > 0 && req.ContentLength <= smallBody {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nonces[origin(req)]
	return !ok || now.Sub(n.at) > freshNonce
}

// smallBody is what costs no more to send twice than to ask first.
const smallBody = 16 << 10
