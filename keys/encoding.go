package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// didKey is the prefix of a key written as a DID.
const didKey = "did:key:"

// Multicodec prefixes, as varints.
const (
	codecP256Public  = "\x80\x24"
	codecK256Public  = "\xe7\x01"
	codecP256Private = "\x86\x26"
	codecK256Private = "\x81\x26"
)

// ParseDIDKey reads a public key in the form "did:key:z…".
func ParseDIDKey(s string) (*PublicKey, error) {
	m, ok := strings.CutPrefix(s, didKey)
	if !ok {
		return nil, fmt.Errorf("%w: does not start with %q", ErrInvalidKey, didKey)
	}
	return ParseMultikey(m)
}

// ParseMultikey reads a public key in the form "z…", which names its curve. The point must be in compressed form.
func ParseMultikey(s string) (*PublicKey, error) {
	b, err := multibase(s)
	if err != nil {
		return nil, err
	}
	if len(b) != 2+compressedSize {
		return nil, fmt.Errorf("%w: multikey of %d bytes, want %d", ErrInvalidKey, len(b), 2+compressedSize)
	}
	switch string(b[:2]) {
	case codecP256Public:
		return ParsePublic(P256, b[2:])
	case codecK256Public:
		return ParsePublic(K256, b[2:])
	}
	return nil, fmt.Errorf("%w: multikey of an unknown type %x", ErrInvalidKey, b[:2])
}

// ParseLegacyMultibase reads the old form of a DID document's key, which has no codec: the verification method's type
// names the curve (EcdsaSecp256r1VerificationKey2019 is P256, EcdsaSecp256k1VerificationKey2019 is K256).
func ParseLegacyMultibase(curve Curve, s string) (*PublicKey, error) {
	b, err := multibase(s)
	if err != nil {
		return nil, err
	}
	return ParsePublic(curve, b)
}

// IsDIDKey reports whether s has the form of a did:key of any key type: base58btc, and not longer than 256 bytes. The
// PLC directory accepts such keys as verification methods without knowing their curve.
func IsDIDKey(s string) bool {
	m, ok := strings.CutPrefix(s, didKey)
	if !ok || len(s) > 256 {
		return false
	}
	b, err := multibase(m)
	return err == nil && len(b) > 2
}

func multibase(s string) ([]byte, error) {
	if s == "" || s[0] != 'z' {
		return nil, fmt.Errorf("%w: multibase prefix is not \"z\" (base58btc)", ErrInvalidKey)
	}
	b, ok := decodeBase58(s[1:])
	if !ok {
		return nil, fmt.Errorf("%w: not base58btc", ErrInvalidKey)
	}
	return b, nil
}

// DIDKey returns the key as "did:key:z…".
func (p *PublicKey) DIDKey() string { return didKey + p.Multikey() }

// Multikey returns the key as "z…".
func (p *PublicKey) Multikey() string {
	codec := codecK256Public
	if p.curve == P256 {
		codec = codecP256Public
	}
	return "z" + encodeBase58(append([]byte(codec), p.point[:]...))
}

// String returns the did:key form.
func (p *PublicKey) String() string { return p.DIDKey() }

// MarshalText returns the did:key form. It fails for the zero value, which is no key.
func (p *PublicKey) MarshalText() ([]byte, error) {
	if !p.curve.known() {
		return nil, fmt.Errorf("%w: there is none", ErrInvalidKey)
	}
	return []byte(p.DIDKey()), nil
}

// UnmarshalText is [ParseDIDKey], for a new key.
func (p *PublicKey) UnmarshalText(b []byte) error {
	k, err := ParseDIDKey(string(b))
	if err == nil {
		*p = *k
	}
	return err
}

// Multikey returns the private key as "z…" with the multicodec of private keys. It is a secret.
func (k *PrivateKey) Multikey() string {
	codec := codecK256Private
	if k.pub.curve == P256 {
		codec = codecP256Private
	}
	return "z" + encodeBase58(append([]byte(codec), k.d[:]...))
}

// ParsePrivate reads a private key: multikey ("z…"), JWK ("{…}"), or 64 hexadecimal digits, which are taken for a K-256 key.
// Errors do not repeat the input.
func ParsePrivate(s string) (*PrivateKey, error) {
	switch {
	case strings.HasPrefix(s, "{"):
		return ParsePrivateJWK([]byte(s))
	case len(s) == 2*scalarSize:
		b, err := hex.DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("%w: private key is not hexadecimal", ErrInvalidKey)
		}
		return NewPrivate(K256, b)
	}
	b, err := multibase(s)
	if err != nil {
		return nil, err
	}
	if len(b) != 2+scalarSize {
		return nil, fmt.Errorf("%w: private multikey of %d bytes, want %d", ErrInvalidKey, len(b), 2+scalarSize)
	}
	switch string(b[:2]) {
	case codecP256Private:
		return NewPrivate(P256, b[2:])
	case codecK256Private:
		return NewPrivate(K256, b[2:])
	}
	return nil, fmt.Errorf("%w: multikey is not a private key of a known type", ErrInvalidKey)
}

// JWK is a JSON Web Key of an elliptic curve (RFC 7518, RFC 8812). D is the private scalar: a secret.
type JWK struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Y   string `json:"y"`
	D   string `json:"d,omitempty"`
	Alg string `json:"alg,omitempty"`
	Kid string `json:"kid,omitempty"`
	Use string `json:"use,omitempty"`
}

// UnmarshalJSON reads the members by their exact names, which package encoding/json doesn't, and passes over others. It refuses a
// name that comes twice.
func (j *JWK) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%w: a JSON Web Key is an object", ErrInvalidKey)
	}
	var k JWK
	fields := map[string]*string{"kty": &k.Kty, "crv": &k.Crv, "x": &k.X, "y": &k.Y, "d": &k.D, "alg": &k.Alg, "kid": &k.Kid, "use": &k.Use}
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		s := name.(string) // nothing else comes here
		if seen[s] {
			return fmt.Errorf("%w: a member of the JSON Web Key comes twice", ErrInvalidKey)
		}
		seen[s] = true
		if to := fields[s]; to != nil {
			if err := json.Unmarshal(value, to); err != nil {
				return fmt.Errorf("member %s of a JSON Web Key: %w", s, err)
			}
		}
	}
	*j = k
	return nil
}

const coordinateSize = (scalarSize*8 + 5) / 6 // characters of base64url

// JWK returns the public key as a JSON Web Key.
func (p *PublicKey) JWK() JWK {
	full, crv := p.Uncompressed(), "secp256k1"
	if p.curve == P256 {
		crv = "P-256"
	}
	enc := base64.RawURLEncoding
	return JWK{Kty: "EC", Crv: crv, X: enc.EncodeToString(full[1 : 1+scalarSize]), Y: enc.EncodeToString(full[1+scalarSize:])}
}

// JWK returns the private key as a JSON Web Key. It is a secret.
func (k *PrivateKey) JWK() JWK {
	j := k.pub.JWK()
	j.D = base64.RawURLEncoding.EncodeToString(k.d[:])
	return j
}

// Thumbprint returns the SHA-256 thumbprint of the public key (RFC 7638) in base64url, as DPoP uses it.
func (p *PublicKey) Thumbprint() string {
	j := p.JWK()
	sum := sha256.Sum256([]byte(`{"crv":"` + j.Crv + `","kty":"EC","x":"` + j.X + `","y":"` + j.Y + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Public returns the public key that j holds.
func (j JWK) Public() (*PublicKey, error) {
	curve, err := j.curve()
	if err != nil {
		return nil, err
	}
	point := make([]byte, 1, fullSize)
	point[0] = 4
	for _, c := range [2]string{j.X, j.Y} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(c)
		if err != nil || len(b) != scalarSize || len(c) != coordinateSize { // the decoder passes over line breaks
			return nil, fmt.Errorf("%w: coordinate is not 32 bytes of base64url", ErrInvalidKey)
		}
		point = append(point, b...)
	}
	return ParsePublic(curve, point)
}

func (j JWK) curve() (Curve, error) {
	switch {
	case j.Kty != "EC":
		return 0, fmt.Errorf("%w: key type is not EC", ErrInvalidKey)
	case j.Crv == "P-256":
		return P256, nil
	case j.Crv == "secp256k1":
		return K256, nil
	}
	return 0, fmt.Errorf("%w: unknown curve", ErrInvalidKey)
}

// ParseJWK reads the public key of a JSON Web Key; a private part is ignored.
func ParseJWK(b []byte) (*PublicKey, error) {
	var j JWK
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("%w: not a JSON Web Key", ErrInvalidKey)
	}
	return j.Public()
}

// ParsePrivateJWK reads the private key of a JSON Web Key. The public part must be there and fit.
func ParsePrivateJWK(b []byte) (*PrivateKey, error) {
	var j JWK
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("%w: not a JSON Web Key", ErrInvalidKey)
	}
	pub, err := j.Public()
	if err != nil {
		return nil, err
	}
	d, err := base64.RawURLEncoding.Strict().DecodeString(j.D)
	if err != nil || len(j.D) != coordinateSize {
		return nil, fmt.Errorf("%w: private part is not base64url", ErrInvalidKey)
	}
	k, err := NewPrivate(pub.curve, d)
	if err != nil {
		return nil, err
	}
	if !k.pub.Equal(pub) {
		return nil, fmt.Errorf("%w: private and public part do not fit", ErrInvalidKey)
	}
	return k, nil
}
