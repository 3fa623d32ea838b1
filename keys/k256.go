//go:build !libsecp256k1

package keys

import (
	"errors"

	"github.com/barograph/baro/keys/internal/secp256k1"
	voi "gitlab.com/yawning/secp256k1-voi"
)

// K256Library names what computes on the curve K256 in this build: "go", or with the build tag libsecp256k1 "libsecp256k1".
const K256Library = "go"

// k256Public is a public key: public values only, where what is fast counts.
type k256Public struct{ point secp256k1.Point }

func (p *k256Public) setBytes(point []byte) bool       { return p.point.SetBytes(point) }
func (p *k256Public) compressed() [compressedSize]byte { return p.point.Compressed() }
func (p *k256Public) uncompressed() [fullSize]byte     { return p.point.Uncompressed() }
func (p *k256Public) verify(digest *[32]byte, sig *[64]byte) bool {
	return p.point.Verify(digest, (*[32]byte)(sig[:32]), (*[32]byte)(sig[32:]))
}

// k256Private is a private key. All that is done with it is done in constant time, by a module made for that.
type k256Private struct {
	d     voi.Scalar
	bytes [scalarSize]byte
}

// setBytes reports whether the scalar is in range, and returns the public key.
func (k *k256Private) setBytes(scalar *[scalarSize]byte) (point [fullSize]byte, ok bool) {
	if _, err := k.d.SetCanonicalBytes(scalar); err != nil || k.d.IsZero() == 1 {
		return point, false
	}
	k.bytes = *scalar
	copy(point[:], voi.NewIdentityPoint().ScalarBaseMult(&k.d).UncompressedBytes())
	return point, true
}

// sign makes a signature as SEC 1, 4.1.3 tells, with s in the lower half.
func (k *k256Private) sign(digest *[32]byte, sig *[SignatureSize]byte) error {
	var e, nonce, r, s voi.Scalar
	e.SetBytes(digest)
	source := newNonces(&k.bytes, (*[32]byte)(e.Bytes()))
	for range 64 {
		b := source.next()
		if _, over := nonce.SetBytes(&b); over|nonce.IsZero() == 0 {
			point := voi.NewIdentityPoint().ScalarBaseMult(&nonce).UncompressedBytes()
			r.SetBytes((*[32]byte)(point[1:]))
			s.Multiply(&r, &k.d)
			s.Add(&s, &e)
			nonce.Invert(&nonce)
			s.Multiply(&s, &nonce)
			if r.IsZero()|s.IsZero() == 0 {
				s.ConditionalNegate(&s, s.IsGreaterThanHalfN())
				copy(sig[:scalarSize], r.Bytes())
				copy(sig[scalarSize:], s.Bytes())
				return nil
			}
		}
		source.reject()
	}
	return errors.New("no nonce is in range")
}
