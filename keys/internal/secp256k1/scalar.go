package secp256k1

import "math/bits"

// scalar is an integer modulo the group order, reduced, the least significant limb first.
type scalar [4]uint64

var (
	order = scalar{0xbfd25e8cd0364141, 0xbaaedce6af48a03b, 0xfffffffffffffffe, 0xffffffffffffffff}
	// orderFold is what 2²⁵⁶ is congruent to modulo the order.
	orderFold = [4]uint64{0x402da1732fc9bebf, 0x4551231950b75fc4, 1, 0}
)

// setBytes reads 32 bytes, big-endian, and reports whether they were below the order; if not, they are reduced.
func (z *scalar) setBytes(b *[32]byte) bool {
	*z = load(b)
	return !z.reduce()
}

// reduce subtracts the order once if it can.
func (z *scalar) reduce() bool {
	if less((*[4]uint64)(z), (*[4]uint64)(&order)) {
		return false
	}
	var c uint64
	for i := range z {
		z[i], c = bits.Sub64(z[i], order[i], c)
	}
	return true
}

func (z *scalar) isZero() bool { return *z == scalar{} }

// mul sets z = x·y.
func (z *scalar) mul(x, y *scalar) {
	t := product((*[4]uint64)(x), (*[4]uint64)(y))
	for t[4]|t[5]|t[6]|t[7] != 0 { // three times at most
		lower := [4]uint64(t[:4])
		t = product((*[4]uint64)(t[4:]), &orderFold)
		var c uint64
		for i := range t {
			var l uint64
			if i < len(lower) {
				l = lower[i]
			}
			t[i], c = bits.Add64(t[i], l, c)
		}
	}
	copy(z[:], t[:4])
	z.reduce()
}

// product returns the eight limbs of x·y.
func product(x, y *[4]uint64) (t [8]uint64) {
	for i := range x {
		var carry uint64
		for j := range y {
			h, l := bits.Mul64(x[i], y[j])
			l, c := bits.Add64(l, t[i+j], 0)
			h += c
			t[i+j], c = bits.Add64(l, carry, 0)
			carry = h + c
		}
		t[i+4] = carry
	}
	return t
}

// Numbers of the endomorphism (x, y) → (βx, y), which multiplies a point by λ, a cube root of 1 modulo the order: the short
// vectors (a1, b1) and (a2, b2) with a + bλ = 0, and 2³⁸⁴·b2/n and −2³⁸⁴·b1/n, rounded. See Gallant, Lambert, Vanstone,
// "Faster Point Multiplication on Elliptic Curves with Efficient Endomorphisms".
var (
	beta    = element{0xc1396c28719501ee, 0x9cf0497512f58995, 0x6e64479eac3434e9, 0x7ae96a2b657c0710}
	latA1   = [4]uint64{0xe86c90e49284eb15, 0x3086d221a7d46bcd} // = b2
	latA2   = [4]uint64{0x57c1108d9d44cfd8, 0x14ca50f7a8e2f3f6, 1}
	latB1   = [4]uint64{0x6f547fa90abfe4c3, 0xe4437ed6010e8828} // = −b1
	latInv2 = [4]uint64{0xe893209a45dbb031, 0x3daa8a1471e8ca7f, 0xe86c90e49284eb15, 0x3086d221a7d46bcd}
	latInv1 = [4]uint64{0x1571b4ae8ac47f71, 0x221208ac9df506c6, 0x6f547fa90abfe4c4, 0xe4437ed6010e8828}
)

// short is an integer of 128 bits and a sign.
type short struct {
	lo, hi   uint64
	negative bool
}

// split returns a and b with k = a + bλ modulo the order, both of 128 bits at most.
func (k *scalar) split() (a, b short) {
	c1, c2 := shifted(k, &latInv2), shifted(k, &latInv1)
	// The results are so short that all can be done modulo 2²⁵⁶.
	x := sub256([4]uint64(*k), mul256(&c1, &latA1))
	x = sub256(x, mul256(&c2, &latA2))
	y := sub256(mul256(&c1, &latB1), mul256(&c2, &latA1))
	return toShort(x), toShort(y)
}

// shifted returns k·g/2³⁸⁴, rounded.
func shifted(k *scalar, g *[4]uint64) [4]uint64 {
	t := product((*[4]uint64)(k), g)
	lo, c := bits.Add64(t[6], t[5]>>63, 0)
	return [4]uint64{lo, t[7] + c}
}

func mul256(x, y *[4]uint64) [4]uint64 {
	t := product(x, y)
	return [4]uint64(t[:4])
}

func sub256(x, y [4]uint64) (z [4]uint64) {
	var c uint64
	for i := range z {
		z[i], c = bits.Sub64(x[i], y[i], c)
	}
	return z
}

func toShort(x [4]uint64) short {
	if x[3]>>63 == 0 {
		return short{lo: x[0], hi: x[1]}
	}
	x = sub256([4]uint64{}, x)
	return short{lo: x[0], hi: x[1], negative: true}
}

// digits is a number as a sum of digits·2ⁱ, with digits that are odd or 0.
type digits [129]int16

// set writes s with digits less than 2^(window−1), of which one in window+1 is not 0, and returns how many places it took.
func (d *digits) set(s short, window uint) int {
	*d = digits{}
	places, carry := 0, uint64(0)
	for i := uint(0); i < 129; {
		rest := s.lo>>i | s.hi<<(64-i) // a shift by 64 and more gives 0 …
		if i >= 64 {
			rest = s.hi >> (i - 64) // … and one by less than 0 gives nothing to rely on
		}
		if rest&1 == carry {
			// Skip what is like the carry.
			if n := uint(bits.TrailingZeros64(rest ^ -carry)); n > 0 {
				i += min(n, 64)
				continue
			}
		}
		word := rest&(1<<window-1) + carry
		carry = word >> (window - 1) & 1
		v := int16(word) - int16(carry<<window)
		if s.negative {
			v = -v
		}
		d[i] = v
		places = int(i) + 1
		i += window
	}
	return places
}
