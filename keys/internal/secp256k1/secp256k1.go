// Package secp256k1 verifies ECDSA signatures on the curve secp256k1, and reads and writes its public keys.
//
// Specification: https://www.secg.org/sec2-v2.pdf (the curve), https://www.secg.org/sec1-v2.pdf (ECDSA, encodings). It
// handles nothing secret: how long things take depends on their values, which makes them fast. Signing is elsewhere.
//
//	var p secp256k1.Point
//	if p.SetBytes(b) {
//		ok := p.Verify(&digest, &r, &s)
//	}
//
// A verification costs one scalar inversion (by division steps) and one sum a·G + b·Q: b is split in two halves by the
// curve's endomorphism, a in two by a table of multiples of 2¹²⁸·G, so that 128 doublings are enough; the sum's coordinates
// are never divided by z, as r is brought to z instead. Nothing is allocated. It is all Go: assembly with MULX, ADCX
// and ADOX makes the 1,900 multiplications modulo p a tenth faster, which isn't worth it.
package secp256k1

// Point is a point of the curve other than that at infinity: a public key. It is immutable after it was set.
type Point struct{ p affine }

// SetBytes reads a point, 33 bytes compressed or 65 bytes uncompressed, and reports whether it is one of the curve.
func (p *Point) SetBytes(b []byte) bool {
	var x, y, t element
	switch {
	case len(b) == 33 && (b[0] == 2 || b[0] == 3):
		if !x.setBytes((*[32]byte)(b[1:])) || !y.root(t.cubic(&x)) {
			return false
		}
		if y.isOdd() != (b[0] == 3) {
			y.negate(&y)
		}
	case len(b) == 65 && b[0] == 4:
		if !x.setBytes((*[32]byte)(b[1:])) || !y.setBytes((*[32]byte)(b[33:])) {
			return false
		}
		var y2 element
		y2.square(&y)
		if !y2.equal(t.cubic(&x)) {
			return false
		}
	default:
		return false
	}
	p.p = affine{x, y}
	return true
}

// cubic sets z = x³ + 7 and returns it.
func (z *element) cubic(x *element) *element {
	var t element
	t.square(x)
	t.mul(&t, x)
	z.add(&t, &element{7})
	return z
}

// Compressed returns the 33 bytes of the compressed form.
func (p *Point) Compressed() (b [33]byte) {
	b[0] = 2
	if p.p.y.isOdd() {
		b[0] = 3
	}
	x := p.p.x.bytes()
	copy(b[1:], x[:])
	return b
}

// Uncompressed returns the 65 bytes of the uncompressed form.
func (p *Point) Uncompressed() (b [65]byte) {
	x, y := p.p.x.bytes(), p.p.y.bytes()
	b[0] = 4
	copy(b[1:], x[:])
	copy(b[33:], y[:])
	return b
}

// Verify reports whether (r, s) is a signature over digest by this key. It takes any s below the group order, high or low.
func (p *Point) Verify(digest, r, s *[32]byte) bool {
	var rs, ss, e scalar
	if !rs.setBytes(r) || !ss.setBytes(s) || rs.isZero() || ss.isZero() {
		return false
	}
	e.setBytes(digest)
	ss.invert(&ss)
	var a, b scalar
	a.mul(&e, &ss)
	b.mul(&rs, &ss)
	sum, scale := sum(&a, &b, &p.p)
	if sum.infinity {
		return false
	}
	// The x of the sum must be r modulo n: r itself, or r + n where that is below p. Both are compared as x = r·z².
	var z2, x element
	z2.mul(&sum.z, &scale)
	z2.square(&z2)
	x.mul((*element)(&rs), &z2)
	if x.equal(&sum.x) {
		return true
	}
	wrapped, ok := rs.plusOrder()
	if !ok {
		return false
	}
	x.mul(&wrapped, &z2)
	return x.equal(&sum.x)
}

// plusOrder returns x + n if it is less than p.
func (x *scalar) plusOrder() (element, bool) {
	limit := sub256([4]uint64(prime), [4]uint64(order))
	if !less((*[4]uint64)(x), &limit) {
		return element{}, false
	}
	z := sub256([4]uint64(*x), sub256([4]uint64{}, [4]uint64(order)))
	return element(z), true
}
