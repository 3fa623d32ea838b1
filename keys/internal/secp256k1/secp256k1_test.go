package secp256k1

import (
	"bytes"
	"crypto/sha256"
	"math/big"
	"math/rand/v2"
	"testing"

	voi "gitlab.com/yawning/secp256k1-voi"
	"gitlab.com/yawning/secp256k1-voi/secec"
)

var (
	bigP = toBig([4]uint64(prime))
	bigN = toBig([4]uint64(order))
)

func toBig(v [4]uint64) *big.Int {
	var b [32]byte
	store(&b, &v)
	return new(big.Int).SetBytes(b[:])
}

func fromBig(v *big.Int) (w [4]uint64) {
	var b [32]byte
	v.FillBytes(b[:])
	return load(&b)
}

// edges are values near those where something is carried or reduced.
func edges() (out [][4]uint64) {
	for _, base := range []*big.Int{new(big.Int), bigP, bigN, new(big.Int).Rsh(bigN, 1), new(big.Int).Lsh(big.NewInt(1), 256), new(big.Int).Lsh(big.NewInt(1), 128),
		new(big.Int).Sub(bigP, bigN), toBig(latInv2), toBig(latA2)} {
		for d := int64(-3); d <= 3; d++ {
			v := new(big.Int).Add(base, big.NewInt(d))
			if v.Sign() >= 0 && v.BitLen() <= 256 {
				out = append(out, fromBig(v))
			}
		}
	}
	return out
}

// values are the edges, and random limbs of which some are 0 or all ones.
func values(n int) [][4]uint64 {
	r := rand.New(rand.NewPCG(1, 2))
	out := edges()
	for range n {
		var v [4]uint64
		for i := range v {
			switch r.IntN(5) {
			case 0:
			case 1:
				v[i] = 1<<64 - 1
			default:
				v[i] = r.Uint64() >> r.IntN(64)
			}
		}
		out = append(out, v)
	}
	return out
}

func TestElement(t *testing.T) {
	mod := func(v *big.Int) *big.Int { return v.Mod(v, bigP) }
	list := values(60)
	for _, a := range list {
		x, bx := element(a), toBig(a)
		var z element
		is := func(op string, want *big.Int) {
			t.Helper()
			b := z.bytes()
			if got := new(big.Int).SetBytes(b[:]); got.Cmp(mod(want)) != 0 {
				t.Fatalf("%s of %x is %x, want %x", op, a, got, want)
			}
		}
		z.square(&x)
		is("square", new(big.Int).Mul(bx, bx))
		z.negate(&x)
		is("negation", new(big.Int).Neg(bx))
		z.half(&x)
		is("half", new(big.Int).Mul(bx, new(big.Int).ModInverse(big.NewInt(2), bigP)))
		z.invert(&x)
		if inv := new(big.Int).ModInverse(bx, bigP); inv != nil {
			is("inverse", inv)
		} else {
			is("inverse", new(big.Int))
		}
		root := new(big.Int).ModSqrt(mod(toBig(a)), bigP)
		if ok := z.root(&x); ok != (root != nil) {
			t.Fatalf("root of %x: %v", a, ok)
		} else if ok {
			z.square(&z)
			is("square of the root", bx)
		}
		for _, b := range list {
			y, by := element(b), toBig(b)
			z.mul(&x, &y)
			is("product", new(big.Int).Mul(bx, by))
			z.add(&x, &y)
			is("sum", new(big.Int).Add(bx, by))
			z.sub(&x, &y)
			is("difference", new(big.Int).Sub(bx, by))
			z.subTwice(&x, &y)
			is("difference with twice", new(big.Int).Sub(bx, new(big.Int).Lsh(by, 1)))
			z = y
			z.subTwice(&x, &z)
			is("difference with twice, in place", new(big.Int).Sub(bx, new(big.Int).Lsh(by, 1)))
			if x.equal(&y) != (mod(toBig(a)).Cmp(mod(toBig(b))) == 0) {
				t.Fatalf("equal of %x and %x", a, b)
			}
		}
	}
}

func TestScalar(t *testing.T) {
	lambda, _ := new(big.Int).SetString("5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72", 16)
	list := values(200)
	for _, a := range list {
		var b [32]byte
		store(&b, &a)
		var x, z scalar
		if ok := x.setBytes(&b); ok != (toBig(a).Cmp(bigN) < 0) {
			t.Fatalf("%x is below the order: %v", a, ok)
		}
		bx := toBig([4]uint64(x))
		if want := new(big.Int).Mod(toBig(a), bigN); bx.Cmp(want) != 0 {
			t.Fatalf("%x is read as %x", a, x)
		}
		z.invert(&x)
		want := new(big.Int).ModInverse(bx, bigN)
		if want == nil {
			want = new(big.Int)
		}
		if toBig([4]uint64(z)).Cmp(want) != 0 {
			t.Fatalf("inverse of %x is %x, want %x", x, z, want)
		}
		k1, k2 := x.split()
		sum := new(big.Int).Mul(k2.big(), lambda)
		if sum.Add(sum, k1.big()).Mod(sum, bigN).Cmp(bx) != 0 {
			t.Fatalf("%x is split into %v and %v", x, k1, k2)
		}
		for _, s := range []short{k1, k2, {lo: a[0], hi: a[1]}, {lo: a[2], hi: a[3], negative: true}} {
			for _, window := range []uint{2, windowQ, windowG} {
				var d digits
				n := d.set(s, window)
				sum := new(big.Int)
				for i, v := range d {
					if v != 0 && (v&1 == 0 || v >= 1<<(window-1) || v <= -1<<(window-1) || i >= n) {
						t.Fatalf("digit %d of %v is %d, in %d places", i, s, v, n)
					}
					sum.Add(sum, new(big.Int).Lsh(big.NewInt(int64(v)), uint(i)))
				}
				if sum.Cmp(s.big()) != 0 {
					t.Fatalf("the digits of %v make %x", s, sum)
				}
			}
		}
		for _, b := range list[:80] {
			y := scalar(b)
			y.reduce()
			z.mul(&x, &y)
			want := new(big.Int).Mul(bx, toBig([4]uint64(y)))
			if toBig([4]uint64(z)).Cmp(want.Mod(want, bigN)) != 0 {
				t.Fatalf("%x·%x is %x", x, y, z)
			}
		}
	}
}

func (s short) big() *big.Int {
	v := toBig([4]uint64{s.lo, s.hi})
	if s.negative {
		v.Neg(v)
	}
	return v
}

func voiScalar(v [4]uint64) *voi.Scalar {
	var b [32]byte
	store(&b, &v)
	s, _ := voi.NewScalarFromBytes(&b)
	return s
}

// TestSum compares with another implementation, above all where the sum meets itself: multiples of G as Q, sums at
// infinity, equal and opposite halves.
func TestSum(t *testing.T) {
	list := values(24)
	lambda := fromBig(new(big.Int).Sub(bigN, toBig(fromHex("ac9c52b33fa3cf1f5ad9e3fd77ed9ba4a880b9fc8ec739c2e0cfc810b51283cf"))))
	for _, q := range append([][4]uint64{{1}, {2}, {3}, lambda, {0, 0, 1}, {15}, {1023}, [4]uint64(sub256([4]uint64(order), [4]uint64{1}))}, list[len(list)-4:]...) {
		vq := voi.NewIdentityPoint().ScalarBaseMult(voiScalar(q))
		if vq.IsIdentity() == 1 {
			continue
		}
		var p Point
		if !p.SetBytes(vq.UncompressedBytes()) {
			t.Fatal(q)
		}
		for i, a := range list {
			more := [][4]uint64{list[i*7%len(list)], list[i*11%len(list)], list[i*13%len(list)]}
			// b with a·G = ±b·Q.
			if inv := new(big.Int).ModInverse(toBig(q), bigN); inv != nil {
				b := inv.Mod(inv.Mul(inv, toBig(a)), bigN)
				more = append([][4]uint64{fromBig(b), fromBig(new(big.Int).Mod(new(big.Int).Neg(b), bigN))}, more...)
			}
			for _, b := range more {
				x, y := scalar(a), scalar(b)
				x.reduce()
				y.reduce()
				got, scale := sum(&x, &y, &p.p)
				want := voi.NewIdentityPoint().DoubleScalarMultBasepointVartime(voiScalar(a), voiScalar(b), vq)
				if got.infinity || want.IsIdentity() == 1 {
					if !got.infinity || want.IsIdentity() != 1 {
						t.Fatalf("%x·G + %x·Q with Q = %x·G: at infinity %v, want %v", a, b, q, got.infinity, want.IsIdentity())
					}
					continue
				}
				got.z.mul(&got.z, &scale)
				g := (&Point{got.affine()}).Uncompressed()
				if !bytes.Equal(g[:], want.UncompressedBytes()) {
					t.Fatalf("%x·G + %x·Q with Q = %x·G is %x, want %x", a, b, q, g, want.UncompressedBytes())
				}
			}
		}
	}
}

func fromHex(s string) [4]uint64 {
	v, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic(s)
	}
	return fromBig(v)
}

func TestPoint(t *testing.T) {
	for _, a := range values(100) {
		k := voiScalar(a)
		if k.IsZero() == 1 {
			continue
		}
		want := voi.NewIdentityPoint().ScalarBaseMult(k)
		for _, form := range [][]byte{want.CompressedBytes(), want.UncompressedBytes()} {
			var p Point
			if !p.SetBytes(form) {
				t.Fatalf("%x was refused", form)
			}
			c, u := p.Compressed(), p.Uncompressed()
			if !bytes.Equal(c[:], want.CompressedBytes()) || !bytes.Equal(u[:], want.UncompressedBytes()) {
				t.Fatalf("%x came back as %x, %x", form, c, u)
			}
		}
	}
}

// FuzzSetBytes holds what is a point against another implementation.
func FuzzSetBytes(f *testing.F) {
	f.Add([]byte{0})
	f.Add((&Point{generator}).compressed())
	u := (&Point{generator}).Uncompressed()
	f.Add(u[:])
	var over [33]byte
	over[0] = 2
	p := prime
	p[0]++
	x := [4]uint64(p)
	store((*[32]byte)(over[1:]), &x) // x = p + 1, on the curve if it were reduced
	f.Add(over[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Point
		ok := p.SetBytes(b)
		want, err := secec.NewPublicKey(b)
		if ok != (err == nil) {
			t.Fatalf("%x: %v, want %v", b, ok, err)
		}
		if ok && !bytes.Equal(p.compressed(), want.CompressedBytes()) {
			t.Fatalf("%x came back as %x", b, p.compressed())
		}
	})
}

func (p *Point) compressed() []byte { b := p.Compressed(); return b[:] }

// FuzzVerify holds verification against another implementation, with signatures that are valid, or nearly.
func FuzzVerify(f *testing.F) {
	f.Add(make([]byte, 32), make([]byte, 32), []byte("message"), []byte{})
	f.Add([]byte{1}, []byte{2}, []byte{}, []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, d, nonce, msg, flip []byte) {
		key := sha256.Sum256(d)
		k, err := secec.NewPrivateKey(key[:])
		if err != nil {
			t.Skip()
		}
		digest := sha256.Sum256(msg)
		entropy := sha256.Sum256(nonce)
		r, s, _, err := k.SignRaw(bytes.NewReader(entropy[:]), digest[:])
		if err != nil {
			t.Fatal(err)
		}
		if len(flip) > 0 && flip[0]&1 == 0 {
			s.Negate(s)
		}
		sig := secec.BuildCompactSignature(r, s)
		var p Point
		if !p.SetBytes(k.PublicKey().Bytes()) {
			t.Fatal("refused")
		}
		if !p.Verify(&digest, (*[32]byte)(sig), (*[32]byte)(sig[32:])) {
			t.Fatalf("key %x, digest %x: signature %x is refused", key, digest, sig)
		}
		for i := 0; i+1 < len(flip); i += 2 {
			sig[flip[i]%64] ^= flip[i+1]
		}
		r, s, err = secec.ParseCompactSignature(sig)
		want := err == nil && k.PublicKey().VerifyRaw(digest[:], r, s)
		if got := p.Verify(&digest, (*[32]byte)(sig), (*[32]byte)(sig[32:])); got != want {
			t.Fatalf("key %x, digest %x: signature %x is taken %v, want %v", key, digest, sig, got, want)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	k, _ := secec.NewPrivateKey(bytes.Repeat([]byte{7}, 32))
	digest := sha256.Sum256([]byte("x"))
	r, s, _, _ := k.SignRaw(secec.RFC6979SHA256(), digest[:])
	sig := secec.BuildCompactSignature(r, s)
	var p Point
	p.SetBytes(k.PublicKey().Bytes())
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !p.Verify(&digest, (*[32]byte)(sig), (*[32]byte)(sig[32:])) {
				b.Fatal()
			}
		}
	})
	b.Run("voi", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !k.PublicKey().VerifyRaw(digest[:], r, s) {
				b.Fatal()
			}
		}
	})
	x, y := generator.x, generator.y
	b.Run("mul", func(b *testing.B) {
		for b.Loop() {
			x.mul(&x, &y)
		}
	})
	b.Run("square", func(b *testing.B) {
		for b.Loop() {
			x.square(&x)
		}
	})
	b.Run("sub", func(b *testing.B) {
		for b.Loop() {
			x.sub(&x, &y)
		}
	})
	b.Run("generators", func(b *testing.B) {
		for b.Loop() {
			makeGenerators()
		}
	})
	var sc scalar
	b.Run("invert", func(b *testing.B) {
		for b.Loop() {
			e := scalar(digestLimbs)
			sc.invert(&e)
		}
	})
	b.Run("table", func(b *testing.B) {
		var m multiples
		for b.Loop() {
			m.oddMultiples(&generator)
		}
	})
}

var digestLimbs = [4]uint64{1, 2, 3, 4}
