package secp256k1

import "math/bits"

// Modular inversion after Bernstein and Yang, "Fast constant-time gcd computation and modular inversion", in the variant of
// libsecp256k1's safegcd documentation that isn't constant-time: 62 division steps at a time are done on single words, and
// their effect, a matrix, is then applied to the whole numbers.

// wide is a signed integer in limbs of 62 bits, the least significant first; only the last one has a sign.
type wide [5]int64

const mask62 = 1<<62 - 1

func toWide(x *[4]uint64) wide {
	return wide{
		int64(x[0] & mask62),
		int64((x[0]>>62 | x[1]<<2) & mask62),
		int64((x[1]>>60 | x[2]<<4) & mask62),
		int64((x[2]>>58 | x[3]<<6) & mask62),
		int64(x[3] >> 56),
	}
}

func (w *wide) limbs() [4]uint64 {
	v := [5]uint64{uint64(w[0]), uint64(w[1]), uint64(w[2]), uint64(w[3]), uint64(w[4])}
	return [4]uint64{v[0] | v[1]<<62, v[1]>>2 | v[2]<<60, v[2]>>4 | v[3]<<58, v[3]>>6 | v[4]<<56}
}

var (
	orderWide = toWide((*[4]uint64)(&order))
	// orderInverse is 1/n modulo 2⁶², by Newton's iteration.
	orderInverse = func() uint64 {
		x := order[0] // right to three bits
		for range 5 {
			x *= 2 - order[0]*x
		}
		return x & mask62
	}()
)

// int128 is a signed integer of 128 bits.
type int128 struct {
	hi int64
	lo uint64
}

// addMul adds a·b.
func (s *int128) addMul(a, b int64) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	hi -= uint64(a>>63&b) + uint64(b>>63&a)
	var c uint64
	s.lo, c = bits.Add64(s.lo, lo, 0)
	s.hi += int64(hi + c)
}

func (s *int128) shift62() {
	s.lo = s.lo>>62 | uint64(s.hi)<<2
	s.hi >>= 62
}

// steps is the effect of 62 division steps: 2⁶²·(f, g) becomes (u·f + v·g, q·f + r·g).
type steps struct{ u, v, q, r int64 }

// divide does 62 division steps on the lowest bits of f and g.
func divide(eta int64, f, g uint64) (int64, steps) {
	u, v, q, r := uint64(1), uint64(0), uint64(0), uint64(1)
	for left := 62; ; {
		// All the steps on an even g at once.
		n := bits.TrailingZeros64(g | ^uint64(0)<<left)
		g >>= n
		u <<= n
		v <<= n
		eta -= int64(n)
		if left -= n; left == 0 {
			return eta, steps{int64(u), int64(v), int64(q), int64(r)}
		}
		// g is odd: add the multiple w of f that makes as many of its low bits zero as may be done before f and g change
		// places again.
		var w uint64
		if eta < 0 {
			eta = -eta
			f, g = g, -f
			u, q = q, -u
			v, r = r, -v
			w = f * g * (f*f - 2) & 63 // −g/f modulo 64
		} else {
			w = f + (f+1)&4<<1 // 1/f modulo 16
			w = -w * g & 15
		}
		w &= 1<<min(uint64(eta)+1, uint64(left)) - 1
		g += f * w
		q += u * w
		r += v * w
	}
}

// apply replaces (f, g) by (u·f + v·g, q·f + r·g)/2⁶².
func (t *steps) apply(f, g *wide) {
	var cf, cg int128
	for i := range f {
		fi, gi := f[i], g[i]
		cf.addMul(t.u, fi)
		cf.addMul(t.v, gi)
		cg.addMul(t.q, fi)
		cg.addMul(t.r, gi)
		if i > 0 {
			f[i-1], g[i-1] = int64(cf.lo&mask62), int64(cg.lo&mask62)
		}
		cf.shift62()
		cg.shift62()
	}
	f[4], g[4] = int64(cf.lo), int64(cg.lo)
}

// applyModulo does the same modulo the order, for d and e between −2n and n: it adds multiples of n that make the results
// divisible by 2⁶² and keep them in that range.
func (t *steps) applyModulo(d, e *wide) {
	sd, se := d[4]>>63, e[4]>>63
	md, me := t.u&sd+t.v&se, t.q&sd+t.r&se
	var cd, ce int128
	for i := range d {
		di, ei := d[i], e[i]
		cd.addMul(t.u, di)
		cd.addMul(t.v, ei)
		ce.addMul(t.q, di)
		ce.addMul(t.r, ei)
		if i == 0 {
			md -= int64((orderInverse*cd.lo + uint64(md)) & mask62)
			me -= int64((orderInverse*ce.lo + uint64(me)) & mask62)
		}
		cd.addMul(orderWide[i], md)
		ce.addMul(orderWide[i], me)
		if i > 0 {
			d[i-1], e[i-1] = int64(cd.lo&mask62), int64(ce.lo&mask62)
		}
		cd.shift62()
		ce.shift62()
	}
	d[4], e[4] = int64(cd.lo), int64(ce.lo)
}

// addOrder adds n if the value is negative.
func (w *wide) addOrder() {
	if w[4] < 0 {
		for i := range w {
			w[i] += orderWide[i]
		}
	}
}

func (w *wide) carry() {
	for i := range 4 {
		w[i+1] += w[i] >> 62
		w[i] &= mask62
	}
}

// invert sets z = 1/x, and 0 if x is 0.
func (z *scalar) invert(x *scalar) {
	f, g := orderWide, toWide((*[4]uint64)(x))
	d, e := wide{}, wide{1}
	eta := int64(-1)
	for g != (wide{}) {
		var t steps
		eta, t = divide(eta, uint64(f[0])|uint64(f[1])<<62, uint64(g[0])|uint64(g[1])<<62)
		t.applyModulo(&d, &e)
		t.apply(&f, &g)
	}
	// f is 1 or −1, and d is the inverse with that sign, between −2n and n.
	d.addOrder()
	if f[4] < 0 {
		for i := range d {
			d[i] = -d[i]
		}
	}
	d.carry()
	d.addOrder()
	d.carry()
	*z = d.limbs()
}
