package secp256k1

import "sync"

// affine is a point of the curve y² = x³ + 7 other than that at infinity.
type affine struct{ x, y element }

// jacobian is the point (x/z², y/z³), or that at infinity.
type jacobian struct {
	x, y, z  element
	infinity bool
}

var one = element{1}

// set makes p the point q.
func (p *jacobian) set(q *affine) { *p = jacobian{x: q.x, y: q.y, z: one} }

// double sets p = 2p. No point of the curve has y = 0, as its order is odd.
func (p *jacobian) double() {
	if p.infinity {
		return
	}
	var s, l, t, u element
	p.z.mul(&p.z, &p.y)
	s.square(&p.y)
	l.square(&p.x)
	t.add(&l, &l)
	l.add(&t, &l)
	l.half(&l) // 3x²/2
	t.mul(&p.x, &s)
	u.square(&l)
	p.x.subTwice(&u, &t) // l² − 2xy²
	t.sub(&t, &p.x)
	t.mul(&t, &l)
	s.square(&s)
	p.y.sub(&t, &s) // l·(xy² − x') − y⁴
}

// add sets p = p + q and returns what it multiplied z by, for [oddMultiples].
func (p *jacobian) add(q *affine) (h element) {
	if p.infinity {
		p.set(q)
		return one
	}
	var z2, z3 element
	z2.square(&p.z)
	z3.mul(&z2, &p.z)
	return p.addAt(q, &z2, &z3)
}

// addScaled is add for p in coordinates that are scaled: p stands for (x/(z·scale)², y/(z·scale)³), and q for itself.
func (p *jacobian) addScaled(q *affine, scale *element) {
	var z, z2, z3 element
	if p.infinity {
		z2.square(scale)
		z3.mul(&z2, scale)
		*p = jacobian{z: one}
		p.x.mul(&q.x, &z2)
		p.y.mul(&q.y, &z3)
		return
	}
	z.mul(&p.z, scale)
	z2.square(&z)
	z3.mul(&z2, &z)
	p.addAt(q, &z2, &z3)
}

// addAt adds q, whose coordinates times z2 and z3 are those on p's plane.
func (p *jacobian) addAt(q *affine, z2, z3 *element) (h element) {
	var r, h2, h3, v element
	h.mul(&q.x, z2)
	h.sub(&h, &p.x)
	r.mul(&q.y, z3)
	r.sub(&r, &p.y)
	if h.isZero() {
		if r.isZero() {
			// p and q are the same point: then z becomes z·y.
			h = p.y
			p.double()
			return h
		}
		*p = jacobian{infinity: true}
		return h
	}
	p.z.mul(&p.z, &h)
	h2.square(&h)
	h3.mul(&h2, &h)
	v.mul(&p.x, &h2)
	p.x.square(&r)
	p.x.sub(&p.x, &h3)
	p.x.subTwice(&p.x, &v)
	v.sub(&v, &p.x)
	v.mul(&v, &r)
	h3.mul(&h3, &p.y)
	p.y.sub(&v, &h3)
	return h
}

const (
	windowQ = 5  // of a key: 8 odd multiples, made for each verification
	windowG = 11 // of the generator: 2 × 512 odd multiples, 64 KiB
)

// multiples are Q, 3Q, … 15Q, on a plane that is scaled: entry (x, y) stands for (x/scale², y/scale³). bx is β·x: with the
// same y these are the multiples of λQ.
type multiples struct {
	points [1 << (windowQ - 2)]affine
	bx     [1 << (windowQ - 2)]element
	scale  element
}

// oddMultiples fills m without inverting anything: on the plane where 2Q has z = 1 it can be added cheaply, and then all
// multiples are brought to the z of the last one.
func (m *multiples) oddMultiples(q *affine) {
	const last = len(m.points) - 1
	var p jacobian
	p.set(q)
	p.double()
	two, scale := affine{p.x, p.y}, p.z
	var z2, z3 element
	z2.square(&scale)
	z3.mul(&z2, &scale)
	p = jacobian{z: one}
	p.x.mul(&q.x, &z2)
	p.y.mul(&q.y, &z3)
	var ratio [len(m.points)]element
	m.points[0] = affine{p.x, p.y}
	for i := 1; i <= last; i++ {
		ratio[i] = p.add(&two)
		m.points[i] = affine{p.x, p.y}
	}
	m.scale.mul(&p.z, &scale)
	z := one
	for i := last - 1; i >= 0; i-- {
		z.mul(&z, &ratio[i+1])
		z2.square(&z)
		z3.mul(&z2, &z)
		m.points[i].x.mul(&m.points[i].x, &z2)
		m.points[i].y.mul(&m.points[i].y, &z3)
	}
	for i := range m.points {
		m.bx[i].mul(&m.points[i].x, &beta)
	}
}

// generator is G, SEC 2, 2.4.1.
var generator = affine{
	x: element{0x59f2815b16f81798, 0x029bfcdb2dce28d9, 0x55a06295ce870b07, 0x79be667ef9dcbbac},
	y: element{0x9c47d08ffb10d4b8, 0xfd17b448a6855419, 0x5da4fbfc0e1108a8, 0x483ada7726a3c465},
}

// generators are the odd multiples of G and of 2¹²⁸·G. They are made when they are first needed, in about a millisecond.
var generators = sync.OnceValue(makeGenerators)

func makeGenerators() *[2][1 << (windowG - 2)]affine {
	t := new([2][1 << (windowG - 2)]affine)
	base := generator
	for i := range t {
		if i > 0 {
			var p jacobian
			p.set(&base)
			for range 128 {
				p.double()
			}
			base = p.affine()
		}
		var p jacobian
		p.set(&base)
		p.double()
		two := p.affine()
		p.set(&base)
		// All z are inverted at once: before[j] is the product of those before the j-th point's.
		points := make([]jacobian, len(t[i]))
		before := make([]element, len(t[i]))
		all := one
		for j := range points {
			if j > 0 {
				p.add(&two)
			}
			points[j], before[j] = p, all
			all.mul(&all, &p.z)
		}
		all.invert(&all)
		for j := len(points) - 1; j >= 0; j-- {
			var z element
			z.mul(&all, &before[j])
			all.mul(&all, &points[j].z)
			t[i][j] = points[j].over(&z)
		}
	}
	return t
}

// affine returns a point that is not at infinity.
func (p *jacobian) affine() affine {
	var z element
	z.invert(&p.z)
	return p.over(&z)
}

// over returns the point, given 1/z.
func (p *jacobian) over(z *element) (q affine) {
	var z2 element
	z2.square(z)
	q.x.mul(&p.x, &z2)
	z2.mul(&z2, z)
	q.y.mul(&p.y, &z2)
	return q
}

// sum returns a·G + b·Q: (x/(z·scale)², y/(z·scale)³). The time it takes tells a, b and Q.
func sum(a, b *scalar, q *affine) (p jacobian, scale element) {
	g := generators()
	var m multiples
	m.oddMultiples(q)
	var d [4]digits
	k1, k2 := b.split()
	n := max(
		d[0].set(k1, windowQ),
		d[1].set(k2, windowQ),
		d[2].set(short{lo: a[0], hi: a[1]}, windowG),
		d[3].set(short{lo: a[2], hi: a[3]}, windowG),
	)
	p.infinity = true
	var t affine
	for i := n - 1; i >= 0; i-- {
		p.double()
		if v := d[0][i]; v != 0 {
			t = m.points[index(v)]
			t.flip(v)
			p.add(&t)
		}
		if v := d[1][i]; v != 0 {
			t = affine{m.bx[index(v)], m.points[index(v)].y}
			t.flip(v)
			p.add(&t)
		}
		for j := range g {
			if v := d[2+j][i]; v != 0 {
				t = g[j][index(v)]
				t.flip(v)
				p.addScaled(&t, &m.scale)
			}
		}
	}
	return p, m.scale
}

// index returns where the multiple by an odd digit or its opposite lies.
func index(v int16) int {
	if v < 0 {
		v = -v
	}
	return int(v >> 1)
}

// flip makes the point its opposite for a negative digit.
func (p *affine) flip(v int16) {
	if v < 0 {
		p.y.negate(&p.y)
	}
}
