// Package keys signs and verifies with the two curves of the AT Protocol and reads and writes their public keys.
//
// Specification: https://atproto.com/specs/cryptography.
//
// A signature is 64 bytes, r then s, over the SHA-256 of the message, with s in the lower half of the group order (low-S)
// for both curves; anything else is refused on verification, DER encoding included. Signing is deterministic (RFC 6979).
// Keys are immutable and may be used from several goroutines. There is no encryption and no key agreement here, and no
// storage: whoever holds a [PrivateKey] keeps it safe.
//
//	key, err := keys.Generate(keys.K256, rand)
//	sig, err := key.Sign(message)
//	pub, err := keys.ParseDIDKey(key.Public().DIDKey())
//	err = pub.Verify(message, sig) // nil, ErrBadSignature, ErrHighS or ErrSignatureSize
//
// Parsing a public key costs 5 to 10 µs: keep parsed keys. The API is stable.
package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"

	"gitlab.com/yawning/secp256k1-voi/secec"
)

// Curve is an elliptic curve of the protocol.
type Curve uint8

// The two curves.
const (
	P256 Curve = iota + 1 // NIST P-256, secp256r1, ES256
	K256                  // secp256k1, ES256K
)

// String returns "p256" or "k256", the names that the protocol's documents use.
func (c Curve) String() string {
	switch c {
	case P256:
		return "p256"
	case K256:
		return "k256"
	}
	return fmt.Sprintf("curve(%d)", uint8(c))
}

// Errors of the package; those of the Parse functions wrap ErrInvalidKey.
var (
	ErrBadSignature  = errors.New("signature does not verify")
	ErrHighS         = errors.New("signature is not in low-S form")
	ErrSignatureSize = errors.New("signature is not 64 bytes")
	ErrInvalidKey    = errors.New("invalid key")
)

const (
	// SignatureSize is the length of a signature: two 32-byte big-endian integers, r and s.
	SignatureSize  = 64
	scalarSize     = 32
	compressedSize = 33
	fullSize       = 65
)

// Group orders and their halves, big-endian.
var (
	orders = map[Curve][scalarSize]byte{
		P256: mustHex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
		K256: mustHex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
	}
	halfP256 = mustHex("7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8")
	nP256    = elliptic.P256().Params().N
)

func mustHex(s string) (b [scalarSize]byte) {
	if n, err := hex.Decode(b[:], []byte(s)); err != nil || n != scalarSize {
		panic("keys: bad constant " + s)
	}
	return b
}

// PublicKey is a point on one of the curves.
type PublicKey struct {
	curve Curve
	point [compressedSize]byte
	p256  *ecdsa.PublicKey
	k256  *secec.PublicKey
}

// ParsePublic reads a point: 33 bytes compressed or 65 bytes uncompressed.
func ParsePublic(curve Curve, point []byte) (*PublicKey, error) {
	switch {
	case len(point) == compressedSize && (point[0] == 2 || point[0] == 3):
	case len(point) == fullSize && point[0] == 4:
	default:
		return nil, fmt.Errorf("%w: not a point in compressed or uncompressed form", ErrInvalidKey)
	}
	p := &PublicKey{curve: curve}
	switch curve {
	case P256:
		full := point
		if len(point) == compressedSize {
			x, y := elliptic.UnmarshalCompressed(elliptic.P256(), point)
			if x == nil {
				return nil, fmt.Errorf("%w: not a point on the p256 curve", ErrInvalidKey)
			}
			full = make([]byte, fullSize)
			full[0] = 4
			x.FillBytes(full[1 : 1+scalarSize])
			y.FillBytes(full[1+scalarSize:])
		}
		k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), full)
		if err != nil {
			return nil, fmt.Errorf("%w: not a point on the p256 curve", ErrInvalidKey)
		}
		p.p256 = k
		p.point[0] = 2 + full[fullSize-1]&1
		copy(p.point[1:], full[1:1+scalarSize])
	case K256:
		k, err := secec.NewPublicKey(point)
		if err != nil {
			return nil, fmt.Errorf("%w: not a point on the k256 curve", ErrInvalidKey)
		}
		p.k256 = k
		copy(p.point[:], k.CompressedBytes())
	default:
		return nil, fmt.Errorf("%w: unknown %v", ErrInvalidKey, curve)
	}
	return p, nil
}

// Curve returns the curve of the key.
func (p *PublicKey) Curve() Curve { return p.curve }

// Alg returns the JWT algorithm name of the curve: "ES256" or "ES256K".
func (p *PublicKey) Alg() string { return alg(p.curve) }

func alg(c Curve) string {
	if c == P256 {
		return "ES256"
	}
	return "ES256K"
}

// Bytes returns the compressed point, 33 bytes.
func (p *PublicKey) Bytes() []byte { return bytes.Clone(p.point[:]) }

// Uncompressed returns the uncompressed point, 65 bytes.
func (p *PublicKey) Uncompressed() []byte {
	if p.curve == K256 {
		return bytes.Clone(p.k256.Bytes())
	}
	b, err := p.p256.Bytes()
	if err != nil {
		panic("keys: " + err.Error()) // the point was checked when it was parsed
	}
	return b
}

// Equal reports whether two keys are the same point on the same curve.
func (p *PublicKey) Equal(q *PublicKey) bool {
	return p != nil && q != nil && p.curve == q.curve && p.point == q.point
}

// Verify checks a signature over the SHA-256 of msg.
func (p *PublicKey) Verify(msg, sig []byte) error {
	return p.VerifyDigest(sha256.Sum256(msg), sig)
}

// VerifyDigest checks a signature over a SHA-256 digest.
func (p *PublicKey) VerifyDigest(digest [32]byte, sig []byte) error {
	if len(sig) != SignatureSize {
		return ErrSignatureSize
	}
	switch p.curve {
	case K256:
		r, s, err := secec.ParseCompactSignature(sig)
		if err != nil {
			return ErrBadSignature
		}
		if s.IsGreaterThanHalfN() != 0 {
			return ErrHighS
		}
		if !p.k256.VerifyRaw(digest[:], r, s) {
			return ErrBadSignature
		}
	case P256:
		if bytes.Compare(sig[scalarSize:], halfP256[:]) > 0 {
			return ErrHighS
		}
		var buf [72]byte
		if !ecdsa.VerifyASN1(p.p256, digest[:], appendDER(buf[:0], sig)) {
			return ErrBadSignature
		}
	default:
		return ErrBadSignature
	}
	return nil
}

// appendDER encodes r and s the way that package ecdsa wants them.
func appendDER(dst, sig []byte) []byte {
	r, s := trim(sig[:scalarSize]), trim(sig[scalarSize:])
	size := func(v []byte) int { return len(v) + int(v[0]>>7) }
	dst = append(dst, 0x30, byte(4+size(r)+size(s)))
	for _, v := range [2][]byte{r, s} {
		dst = append(dst, 0x02, byte(size(v)))
		if v[0]&0x80 != 0 {
			dst = append(dst, 0)
		}
		dst = append(dst, v...)
	}
	return dst
}

func trim(v []byte) []byte {
	for len(v) > 1 && v[0] == 0 {
		v = v[1:]
	}
	return v
}

// PrivateKey signs. Printing one by accident shows only its public half.
type PrivateKey struct {
	pub  *PublicKey
	d    [scalarSize]byte
	p256 *ecdsa.PrivateKey
	k256 *secec.PrivateKey
}

// Generate makes a key from 32 random bytes of rand (more with negligible probability). The same bytes give the same key.
func Generate(c Curve, rand io.Reader) (*PrivateKey, error) {
	order, ok := orders[c]
	if !ok {
		return nil, fmt.Errorf("%w: unknown %v", ErrInvalidKey, c)
	}
	var d [scalarSize]byte
	for range 64 {
		if _, err := io.ReadFull(rand, d[:]); err != nil {
			return nil, fmt.Errorf("reading randomness for a key: %w", err)
		}
		if d != [scalarSize]byte{} && bytes.Compare(d[:], order[:]) < 0 {
			return NewPrivate(c, d[:])
		}
	}
	return nil, errors.New("generating a key: the random source is broken")
}

// NewPrivate makes a key from its scalar, 32 bytes big-endian.
func NewPrivate(c Curve, scalar []byte) (*PrivateKey, error) {
	if len(scalar) != scalarSize {
		return nil, fmt.Errorf("%w: private key of %d bytes, want 32", ErrInvalidKey, len(scalar))
	}
	k := &PrivateKey{d: [scalarSize]byte(scalar)}
	var point []byte
	switch c {
	case P256:
		p, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
		if err != nil {
			return nil, fmt.Errorf("%w: private key out of range", ErrInvalidKey)
		}
		if point, err = p.PublicKey.Bytes(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidKey, err)
		}
		k.p256 = p
	case K256:
		p, err := secec.NewPrivateKey(scalar)
		if err != nil {
			return nil, fmt.Errorf("%w: private key out of range", ErrInvalidKey)
		}
		k.k256, point = p, p.PublicKey().CompressedBytes()
	default:
		return nil, fmt.Errorf("%w: unknown %v", ErrInvalidKey, c)
	}
	pub, err := ParsePublic(c, point)
	k.pub = pub
	return k, err
}

// String names the key by its public half and shows nothing secret.
func (k *PrivateKey) String() string { return "private key of " + k.pub.DIDKey() }

// GoString does the same for the verb %#v.
func (k *PrivateKey) GoString() string { return k.String() }

// Public returns the public half.
func (k *PrivateKey) Public() *PublicKey { return k.pub }

// Curve returns the curve of the key.
func (k *PrivateKey) Curve() Curve { return k.pub.curve }

// Alg returns the JWT algorithm name of the curve: "ES256" or "ES256K".
func (k *PrivateKey) Alg() string { return alg(k.pub.curve) }

// Bytes returns the scalar, 32 bytes big-endian.
func (k *PrivateKey) Bytes() []byte { return bytes.Clone(k.d[:]) }

// Sign signs the SHA-256 of msg.
func (k *PrivateKey) Sign(msg []byte) ([]byte, error) { return k.SignDigest(sha256.Sum256(msg)) }

// SignDigest signs a SHA-256 digest: 64 bytes, r then s, low-S. The same digest gives the same signature.
func (k *PrivateKey) SignDigest(digest [32]byte) ([]byte, error) {
	if k.k256 != nil {
		r, s, _, err := k.k256.SignRaw(secec.RFC6979SHA256(), digest[:])
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		s.ConditionalNegate(s, s.IsGreaterThanHalfN())
		return secec.BuildCompactSignature(r, s), nil
	}
	der, err := k.p256.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	var v struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &v); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	sig := make([]byte, SignatureSize)
	v.R.FillBytes(sig[:scalarSize])
	v.S.FillBytes(sig[scalarSize:])
	if bytes.Compare(sig[scalarSize:], halfP256[:]) > 0 {
		v.S.Sub(nP256, v.S).FillBytes(sig[scalarSize:])
	}
	return sig, nil
}
