// Package keys signs and verifies with the two curves of the AT Protocol and reads and writes their keys.
//
// Specification: https://atproto.com/specs/cryptography.
//
// A signature is 64 bytes, r then s, over the SHA-256 of the message, with s in the lower half of the group order (low-S)
// for both curves; anything else is refused on verification, DER encoding included. Signing is deterministic (RFC 6979) and
// takes the same time whatever the key; verification and the reading of public keys don't, as nothing in them is secret.
// There is no encryption, no key agreement and no recovery of keys from signatures here, and no storage: whoever holds a
// [PrivateKey] keeps it safe.
//
//	key, err := keys.Generate(keys.K256, rand)
//	sig, err := key.Sign(message)
//	pub, err := keys.ParseDIDKey(key.Public().DIDKey())
//	err = pub.Verify(message, sig) // nil, ErrBadSignature, ErrHighS or ErrSignatureSize
//
// Public keys are read as did:key, multikey, multibase without a codec, JWK and points; private ones as multikey, JWK,
// hexadecimal digits and scalars. All of them are written too. Keys are immutable and may be used by many goroutines at
// once. Reading a public key costs a tenth of a verification, mostly a square root: a program that sees the same accounts
// again keeps their parsed keys, say in a map from DID to *PublicKey with a bound; each takes about 250 bytes.
//
// # Build tag libsecp256k1
//
// K-256 is Go code (see [K256Library]), and P-256 the standard library's. With the build tag libsecp256k1 (and cgo, a C
// compiler, pkg-config and the library, on Debian the package libsecp256k1-dev) K-256 is Bitcoin Core's C library instead:
//
//	go build -tags libsecp256k1 ./cmd/baro
//
// Everything else stays the same: the same functions, errors and signatures, byte for byte.
//
// The API is stable.
package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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

// group is what there is to know about a curve's order: itself and its half, big-endian.
type group struct{ order, half [scalarSize]byte }

var groups = [...]group{
	P256: {
		order: mustHex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
		half:  mustHex("7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8"),
	},
	K256: {
		order: mustHex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
		half:  mustHex("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0"),
	},
}

// inRange reports whether a number is above 0 and below the order.
func (g *group) inRange(v []byte) bool {
	return [scalarSize]byte(v) != [scalarSize]byte{} && bytes.Compare(v, g.order[:]) < 0
}

// known reports whether c is one of the two curves.
func (c Curve) known() bool { return c == P256 || c == K256 }

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
	k256  k256Public
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
		if !p.k256.setBytes(point) {
			return nil, fmt.Errorf("%w: not a point on the k256 curve", ErrInvalidKey)
		}
		p.point = p.k256.compressed()
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
		b := p.k256.uncompressed()
		return b[:]
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
	if !p.curve.known() {
		return ErrBadSignature
	}
	g, s := &groups[p.curve], sig[scalarSize:]
	if !g.inRange(sig[:scalarSize]) || !g.inRange(s) {
		return ErrBadSignature
	}
	if bytes.Compare(s, g.half[:]) > 0 {
		return ErrHighS
	}
	if p.curve == K256 {
		if !p.k256.verify(&digest, (*[SignatureSize]byte)(sig)) {
			return ErrBadSignature
		}
		return nil
	}
	var buf [72]byte
	if !ecdsa.VerifyASN1(p.p256, digest[:], appendDER(buf[:0], sig)) {
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

// PrivateKey signs. Printing one by accident, with whatever verb, shows only its public half.
type PrivateKey struct {
	pub  *PublicKey
	d    [scalarSize]byte
	p256 *ecdsa.PrivateKey
	k256 k256Private
}

// Generate makes a key from 32 random bytes of rand (more with negligible probability). The same bytes give the same key.
func Generate(c Curve, rand io.Reader) (*PrivateKey, error) {
	if !c.known() {
		return nil, fmt.Errorf("%w: unknown %v", ErrInvalidKey, c)
	}
	var d [scalarSize]byte
	for range 64 {
		if _, err := io.ReadFull(rand, d[:]); err != nil {
			return nil, fmt.Errorf("reading randomness for a key: %w", err)
		}
		if groups[c].inRange(d[:]) {
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
		full, ok := k.k256.setBytes(&k.d)
		if !ok {
			return nil, fmt.Errorf("%w: private key out of range", ErrInvalidKey)
		}
		point = full[:]
	default:
		return nil, fmt.Errorf("%w: unknown %v", ErrInvalidKey, c)
	}
	pub, err := ParsePublic(c, point)
	k.pub = pub
	return k, err
}

// String names the key by its public half and shows nothing secret.
func (k PrivateKey) String() string {
	if k.pub == nil {
		return "no private key"
	}
	return "private key of " + k.pub.DIDKey()
}

// Format does the same for all verbs of package fmt, also those that would print the bytes.
func (k PrivateKey) Format(s fmt.State, _ rune) { io.WriteString(s, k.String()) }

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
	sig := make([]byte, SignatureSize)
	if k.pub.curve == K256 {
		if err := k.k256.sign(&digest, (*[SignatureSize]byte)(sig)); err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		return sig, nil
	}
	der, err := k.p256.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if !fromDER(sig, der) {
		return nil, errors.New("signing: package ecdsa made a signature of unknown form")
	}
	if g := &groups[P256]; bytes.Compare(sig[scalarSize:], g.half[:]) > 0 {
		var borrow uint
		for i := scalarSize - 1; i >= 0; i-- {
			d := uint(g.order[i]) - uint(sig[scalarSize+i]) - borrow
			sig[scalarSize+i], borrow = byte(d), d>>8&1
		}
	}
	return sig, nil
}

// fromDER reads what package ecdsa writes: a sequence of two integers of 32 bytes at most.
func fromDER(sig, der []byte) bool {
	if len(der) < 2 || der[0] != 0x30 || int(der[1]) != len(der)-2 {
		return false
	}
	der = der[2:]
	for part := range 2 {
		if len(der) < 2 || der[0] != 0x02 || int(der[1]) > len(der)-2 {
			return false
		}
		v := bytes.TrimLeft(der[2:2+der[1]], "\x00")
		if len(v) > scalarSize {
			return false
		}
		copy(sig[(part+1)*scalarSize-len(v):], v)
		der = der[2+der[1]:]
	}
	return len(der) == 0
}
