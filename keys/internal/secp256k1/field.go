package secp256k1

import (
	"encoding/binary"
	"math/bits"
)

// element is an integer modulo p = 2²⁵⁶ − fold, in four limbs, the least significant first. Any value below 2²⁵⁶ will do,
// p and above too: it is reduced only where it is written or compared. All operations allow their arguments to be the
// same.
type element [4]uint64

// fold is what 2²⁵⁶ is congruent to modulo p.
const fold = 1<<32 + 977

var prime = element{1<<64 - fold, 1<<64 - 1, 1<<64 - 1, 1<<64 - 1}

// setBytes reads 32 bytes, big-endian, and reports whether they are below p.
func (z *element) setBytes(b *[32]byte) bool {
	*z = element(load(b))
	return less((*[4]uint64)(z), (*[4]uint64)(&prime))
}

// bytes writes the reduced value.
func (z *element) bytes() (b [32]byte) {
	v := *z
	v.reduce()
	store(&b, (*[4]uint64)(&v))
	return b
}

func load(b *[32]byte) [4]uint64 {
	return [4]uint64{binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[0:])}
}

func store(b *[32]byte, v *[4]uint64) {
	for i, w := range v {
		binary.BigEndian.PutUint64(b[24-8*i:], w)
	}
}

func less(x, y *[4]uint64) bool {
	_, c := bits.Sub64(x[0], y[0], 0)
	_, c = bits.Sub64(x[1], y[1], c)
	_, c = bits.Sub64(x[2], y[2], c)
	_, c = bits.Sub64(x[3], y[3], c)
	return c != 0
}

// reduce makes the value less than p.
func (z *element) reduce() {
	if z[1]&z[2]&z[3] == 1<<64-1 && z[0] >= prime[0] {
		*z = element{z[0] - prime[0]}
	}
}

func (z *element) isZero() bool {
	v := *z
	v.reduce()
	return v == element{}
}

func (z *element) isOdd() bool {
	v := *z
	v.reduce()
	return v[0]&1 == 1
}

func (z *element) equal(x *element) bool {
	var d element
	d.sub(z, x)
	return d.isZero()
}

func (z *element) add(x, y *element) {
	z0, c := bits.Add64(x[0], y[0], 0)
	z1, c := bits.Add64(x[1], y[1], c)
	z2, c := bits.Add64(x[2], y[2], c)
	z3, c := bits.Add64(x[3], y[3], c)
	z0, c = bits.Add64(z0, -c&fold, 0)
	z1, c = bits.Add64(z1, 0, c)
	z2, c = bits.Add64(z2, 0, c)
	z3, c = bits.Add64(z3, 0, c)
	// A second carry leaves a value less than fold behind, so that nothing is carried a third time.
	z[0], z[1], z[2], z[3] = z0+-c&fold, z1, z2, z3
}

func (z *element) sub(x, y *element) {
	z0, c := bits.Sub64(x[0], y[0], 0)
	z1, c := bits.Sub64(x[1], y[1], c)
	z2, c := bits.Sub64(x[2], y[2], c)
	z3, c := bits.Sub64(x[3], y[3], c)
	z0, c = bits.Sub64(z0, -c&fold, 0)
	z1, c = bits.Sub64(z1, 0, c)
	z2, c = bits.Sub64(z2, 0, c)
	z3, c = bits.Sub64(z3, 0, c)
	z[0], z[1], z[2], z[3] = z0-(-c&fold), z1, z2, z3
}

// subTwice sets z = x − 2y, in less time than two subtractions.
func (z *element) subTwice(x, y *element) {
	z0, c := bits.Sub64(x[0], y[0], 0)
	z1, c := bits.Sub64(x[1], y[1], c)
	z2, c := bits.Sub64(x[2], y[2], c)
	z3, c := bits.Sub64(x[3], y[3], c)
	n := c
	z0, c = bits.Sub64(z0, y[0], 0)
	z1, c = bits.Sub64(z1, y[1], c)
	z2, c = bits.Sub64(z2, y[2], c)
	z3, c = bits.Sub64(z3, y[3], c)
	n += c
	z0, c = bits.Sub64(z0, n*fold, 0)
	z1, c = bits.Sub64(z1, 0, c)
	z2, c = bits.Sub64(z2, 0, c)
	z3, c = bits.Sub64(z3, 0, c)
	z[0], z[1], z[2], z[3] = z0-(-c&fold), z1, z2, z3
}

func (z *element) negate(x *element) { z.sub(&element{}, x) }

// half sets z = x/2: of an odd value, (x+p)/2.
func (z *element) half(x *element) {
	odd := -(x[0] & 1)
	z0, c := bits.Add64(x[0], odd&prime[0], 0)
	z1, c := bits.Add64(x[1], odd, c)
	z2, c := bits.Add64(x[2], odd, c)
	z3, c := bits.Add64(x[3], odd, c)
	z[0], z[1], z[2], z[3] = z0>>1|z1<<63, z1>>1|z2<<63, z2>>1|z3<<63, z3>>1|c<<63
}

// mul sets z = x·y: the rows of the product, then the upper half folded onto the lower one. That is written out in mul and in
// square: as a function of its own, which the compiler doesn't inline, it takes a fifteenth of a verification.
func (z *element) mul(x, y *element) {
	var c uint64
	y0, y1, y2, y3 := y[0], y[1], y[2], y[3]

	h0, t0 := bits.Mul64(x[0], y0)
	h1, l1 := bits.Mul64(x[0], y1)
	h2, l2 := bits.Mul64(x[0], y2)
	h3, l3 := bits.Mul64(x[0], y3)
	t1, c := bits.Add64(l1, h0, 0)
	t2, c := bits.Add64(l2, h1, c)
	t3, c := bits.Add64(l3, h2, c)
	t4, _ := bits.Add64(h3, 0, c)

	h0, l0 := bits.Mul64(x[1], y0)
	h1, l1 = bits.Mul64(x[1], y1)
	h2, l2 = bits.Mul64(x[1], y2)
	h3, l3 = bits.Mul64(x[1], y3)
	t1, c = bits.Add64(t1, l0, 0)
	t2, c = bits.Add64(t2, l1, c)
	t3, c = bits.Add64(t3, l2, c)
	t4, c = bits.Add64(t4, l3, c)
	t5, _ := bits.Add64(h3, 0, c)
	t2, c = bits.Add64(t2, h0, 0)
	t3, c = bits.Add64(t3, h1, c)
	t4, c = bits.Add64(t4, h2, c)
	t5, _ = bits.Add64(t5, 0, c)

	h0, l0 = bits.Mul64(x[2], y0)
	h1, l1 = bits.Mul64(x[2], y1)
	h2, l2 = bits.Mul64(x[2], y2)
	h3, l3 = bits.Mul64(x[2], y3)
	t2, c = bits.Add64(t2, l0, 0)
	t3, c = bits.Add64(t3, l1, c)
	t4, c = bits.Add64(t4, l2, c)
	t5, c = bits.Add64(t5, l3, c)
	t6, _ := bits.Add64(h3, 0, c)
	t3, c = bits.Add64(t3, h0, 0)
	t4, c = bits.Add64(t4, h1, c)
	t5, c = bits.Add64(t5, h2, c)
	t6, _ = bits.Add64(t6, 0, c)

	h0, l0 = bits.Mul64(x[3], y0)
	h1, l1 = bits.Mul64(x[3], y1)
	h2, l2 = bits.Mul64(x[3], y2)
	h3, l3 = bits.Mul64(x[3], y3)
	t3, c = bits.Add64(t3, l0, 0)
	t4, c = bits.Add64(t4, l1, c)
	t5, c = bits.Add64(t5, l2, c)
	t6, c = bits.Add64(t6, l3, c)
	t7, _ := bits.Add64(h3, 0, c)
	t4, c = bits.Add64(t4, h0, 0)
	t5, c = bits.Add64(t5, h1, c)
	t6, c = bits.Add64(t6, h2, c)
	t7, _ = bits.Add64(t7, 0, c)

	// The upper half, times 2²⁵⁶, comes down times fold; then what still is above, of 34 bits at most.
	h0, l0 = bits.Mul64(t4, fold)
	h1, l1 = bits.Mul64(t5, fold)
	h2, l2 = bits.Mul64(t6, fold)
	h3, l3 = bits.Mul64(t7, fold)
	t0, c = bits.Add64(t0, l0, 0)
	t1, c = bits.Add64(t1, l1, c)
	t2, c = bits.Add64(t2, l2, c)
	t3, c = bits.Add64(t3, l3, c)
	t4, _ = bits.Add64(h3, 0, c)
	t1, c = bits.Add64(t1, h0, 0)
	t2, c = bits.Add64(t2, h1, c)
	t3, c = bits.Add64(t3, h2, c)
	t4, _ = bits.Add64(t4, 0, c)
	h0, l0 = bits.Mul64(t4, fold)
	t0, c = bits.Add64(t0, l0, 0)
	t1, c = bits.Add64(t1, h0, c)
	t2, c = bits.Add64(t2, 0, c)
	t3, c = bits.Add64(t3, 0, c)
	// A carry leaves a value less than 2⁶⁷ behind.
	t0, c = bits.Add64(t0, -c&fold, 0)
	t1, _ = bits.Add64(t1, 0, c)
	z[0], z[1], z[2], z[3] = t0, t1, t2, t3
}

// square sets z = x²: the products of different limbs count twice.
func (z *element) square(x *element) {
	h01, t1 := bits.Mul64(x[0], x[1])
	h02, l02 := bits.Mul64(x[0], x[2])
	h03, l03 := bits.Mul64(x[0], x[3])
	h12, l12 := bits.Mul64(x[1], x[2])
	h13, l13 := bits.Mul64(x[1], x[3])
	h23, l23 := bits.Mul64(x[2], x[3])
	t2, c := bits.Add64(l02, h01, 0)
	t3, c := bits.Add64(l03, h02, c)
	t4, c := bits.Add64(l13, h03, c)
	t5, c := bits.Add64(l23, h13, c)
	t6, _ := bits.Add64(h23, 0, c)
	t3, c = bits.Add64(t3, l12, 0)
	t4, c = bits.Add64(t4, h12, c)
	t5, c = bits.Add64(t5, 0, c)
	t6, _ = bits.Add64(t6, 0, c)

	t1, c = bits.Add64(t1, t1, 0)
	t2, c = bits.Add64(t2, t2, c)
	t3, c = bits.Add64(t3, t3, c)
	t4, c = bits.Add64(t4, t4, c)
	t5, c = bits.Add64(t5, t5, c)
	t6, c = bits.Add64(t6, t6, c)
	t7 := c

	h0, t0 := bits.Mul64(x[0], x[0])
	h1, l1 := bits.Mul64(x[1], x[1])
	h2, l2 := bits.Mul64(x[2], x[2])
	h3, l3 := bits.Mul64(x[3], x[3])
	t1, c = bits.Add64(t1, h0, 0)
	t2, c = bits.Add64(t2, l1, c)
	t3, c = bits.Add64(t3, h1, c)
	t4, c = bits.Add64(t4, l2, c)
	t5, c = bits.Add64(t5, h2, c)
	t6, c = bits.Add64(t6, l3, c)
	t7, _ = bits.Add64(t7, h3, c)
	// The upper half, times 2²⁵⁶, comes down times fold; then what still is above, of 34 bits at most.
	h0, l0 := bits.Mul64(t4, fold)
	h1, l1 = bits.Mul64(t5, fold)
	h2, l2 = bits.Mul64(t6, fold)
	h3, l3 = bits.Mul64(t7, fold)
	t0, c = bits.Add64(t0, l0, 0)
	t1, c = bits.Add64(t1, l1, c)
	t2, c = bits.Add64(t2, l2, c)
	t3, c = bits.Add64(t3, l3, c)
	t4, _ = bits.Add64(h3, 0, c)
	t1, c = bits.Add64(t1, h0, 0)
	t2, c = bits.Add64(t2, h1, c)
	t3, c = bits.Add64(t3, h2, c)
	t4, _ = bits.Add64(t4, 0, c)
	h0, l0 = bits.Mul64(t4, fold)
	t0, c = bits.Add64(t0, l0, 0)
	t1, c = bits.Add64(t1, h0, c)
	t2, c = bits.Add64(t2, 0, c)
	t3, c = bits.Add64(t3, 0, c)
	// A carry leaves a value less than 2⁶⁷ behind.
	t0, c = bits.Add64(t0, -c&fold, 0)
	t1, _ = bits.Add64(t1, 0, c)
	z[0], z[1], z[2], z[3] = t0, t1, t2, t3
}

// squares sets z = x^(2ⁿ).
func (z *element) squares(x *element, n int) {
	z.square(x)
	for range n - 1 {
		z.square(z)
	}
}

// ladder sets z = x^(2²²³−1) and y = x^(2²²−1), of which the exponents of root and inverse are made: p is all ones but for
// bits 32 and lower ones.
func (z *element) ladder(y, x *element) (x2 element) {
	var x3, x6, x11, x44, x88 element
	x2.square(x)
	x2.mul(&x2, x)
	x3.square(&x2)
	x3.mul(&x3, x)
	x6.squares(&x3, 3)
	x6.mul(&x6, &x3)
	x11.squares(&x6, 3) // 2⁹−1
	x11.mul(&x11, &x3)
	x11.squares(&x11, 2)
	x11.mul(&x11, &x2)
	y.squares(&x11, 11)
	y.mul(y, &x11)
	x44.squares(y, 22)
	x44.mul(&x44, y)
	x88.squares(&x44, 44)
	x88.mul(&x88, &x44)
	z.squares(&x88, 88) // 2¹⁷⁶−1
	z.mul(z, &x88)
	z.squares(z, 44)
	z.mul(z, &x44)
	z.squares(z, 3)
	z.mul(z, &x3)
	return x2
}

// root sets z to a square root of x and reports whether there is one: x^((p+1)/4), as p is 3 modulo 4.
func (z *element) root(x *element) bool {
	v := *x
	var x22 element
	x2 := z.ladder(&x22, &v)
	// (p+1)/4 is 223 ones, a zero, 22 ones, four zeros, two ones, two zeros.
	z.squares(z, 23)
	z.mul(z, &x22)
	z.squares(z, 6)
	z.mul(z, &x2)
	z.squares(z, 2)
	var check element
	check.square(z)
	return check.equal(&v)
}

// invert sets z = 1/x, and 0 if x is 0: x^(p−2).
func (z *element) invert(x *element) {
	v := *x
	var x22 element
	x2 := z.ladder(&x22, &v)
	// p−2 is 223 ones, a zero, 22 ones, four zeros, and 101101.
	z.squares(z, 23)
	z.mul(z, &x22)
	z.squares(z, 5)
	z.mul(z, &v)
	z.squares(z, 3)
	z.mul(z, &x2)
	z.squares(z, 2)
	z.mul(z, &v)
}
