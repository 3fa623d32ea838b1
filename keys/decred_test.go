package keys

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// verdict is what another implementation of K-256 says to a signature, by this protocol's rules.
func verdict(key *secp256k1.PublicKey, digest [32]byte, sig []byte) error {
	if len(sig) != SignatureSize {
		return ErrSignatureSize
	}
	var r, s secp256k1.ModNScalar
	overR, overS := r.SetByteSlice(sig[:32]), s.SetByteSlice(sig[32:])
	switch {
	case overR || overS || r.IsZero() || s.IsZero():
		return ErrBadSignature
	case s.IsOverHalfOrder():
		return ErrHighS
	case !ecdsa.NewSignature(&r, &s).Verify(digest[:], key):
		return ErrBadSignature
	}
	return nil
}

// compact is their signature in our form, and what they recover the key from.
func compact(key *secp256k1.PrivateKey, digest [32]byte) (sig, recoverable []byte) {
	recoverable = ecdsa.SignCompact(key, digest[:], true)
	return recoverable[1:], recoverable
}

// agree signs and verifies with both implementations and compares everything.
func agree(k *PrivateKey, digest [32]byte) error {
	other := secp256k1.PrivKeyFromBytes(k.Bytes())
	pub := k.Public()
	if !bytes.Equal(other.PubKey().SerializeCompressed(), pub.Bytes()) || !bytes.Equal(other.PubKey().SerializeUncompressed(), pub.Uncompressed()) {
		return errors.New("public keys differ")
	}
	sig, err := k.SignDigest(digest)
	if err != nil {
		return err
	}
	theirs, recoverable := compact(other, digest)
	if !bytes.Equal(sig, theirs) {
		return fmt.Errorf("signatures differ: %x, theirs is %x", sig, theirs)
	}
	if err := verdict(other.PubKey(), digest, sig); err != nil {
		return fmt.Errorf("our signature: %w", err)
	}
	if err := pub.VerifyDigest(digest, theirs); err != nil {
		return fmt.Errorf("their signature: %w", err)
	}
	recovered, _, err := ecdsa.RecoverCompact(recoverable, digest[:])
	if err != nil {
		return err
	}
	if back, err := ParsePublic(K256, recovered.SerializeUncompressed()); err != nil || !back.Equal(pub) {
		return fmt.Errorf("the key recovered from the signature is %v, %w", back, err)
	}
	return nil
}

// TestAgainstDecred compares with an independent implementation of K-256, on random keys and on those at the ends of the range.
func TestAgainstDecred(t *testing.T) {
	check := func(k *PrivateKey) {
		t.Helper()
		for msg := range byte(4) {
			if err := agree(k, sha256.Sum256([]byte{msg})); err != nil {
				t.Errorf("%x: %v", k.Bytes(), err)
			}
		}
		// Digests at the ends of their range: reduced modulo the order or not.
		for _, digest := range [][32]byte{{}, {31: 1}, groups[K256].order, groups[K256].half} {
			sig, err := k.SignDigest(digest)
			if err != nil {
				t.Fatal(err)
			}
			if err := verdict(secp256k1.PrivKeyFromBytes(k.Bytes()).PubKey(), digest, sig); err != nil {
				t.Errorf("%x: digest %x: %v", k.Bytes(), digest, err)
			}
			if err := k.Public().VerifyDigest(digest, sig); err != nil {
				t.Errorf("%x: digest %x: %v", k.Bytes(), digest, err)
			}
		}
	}
	for seed := range byte(40) {
		check(generate(t, K256, seed))
	}
	last := groups[K256].order
	last[31]--
	for _, d := range [][32]byte{{31: 1}, {31: 2}, {31: 3}, {15: 1}, groups[K256].half, last} {
		k, err := NewPrivate(K256, d[:])
		if err != nil {
			t.Fatal(err)
		}
		check(k)
	}
	for _, d := range [][32]byte{{}, groups[K256].order, {0: 0xff, 1: 0xff, 2: 0xff, 3: 0xff, 4: 0xff, 5: 0xff, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff, 16: 0xff}} {
		if _, err := NewPrivate(K256, d[:]); !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%x: %v", d, err)
		}
	}
}

// TestForgeries are signatures that only an implementation with a fault takes.
func TestForgeries(t *testing.T) {
	for _, c := range []Curve{P256, K256} {
		k := generate(t, c, 3)
		digest := sha256.Sum256([]byte("forged"))
		sig, err := k.SignDigest(digest)
		if err != nil {
			t.Fatal(err)
		}
		n, half := groups[c].order, groups[c].half
		above := half
		for i := 31; ; i-- {
			if above[i]++; above[i] != 0 {
				break
			}
		}
		ones := bytes.Repeat([]byte{0xff}, 32)
		zeros := make([]byte, 32)
		r, s := sig[:32], sig[32:]
		for _, f := range []struct {
			name string
			sig  []byte
			want error
		}{
			{"empty", nil, ErrSignatureSize},
			{"short", sig[:63], ErrSignatureSize},
			{"long", append(bytes.Clone(sig), 0), ErrSignatureSize},
			{"DER", appendDER(nil, sig), ErrSignatureSize},
			{"all zero", make([]byte, 64), ErrBadSignature},
			{"r is zero", join(zeros, s), ErrBadSignature},
			{"s is zero", join(r, zeros), ErrBadSignature},
			{"r is the order", join(n[:], s), ErrBadSignature},
			{"s is the order", join(r, n[:]), ErrBadSignature},
			{"r is all ones", join(ones, s), ErrBadSignature},
			{"s is all ones", join(r, ones), ErrBadSignature},
			{"s is half the order", join(r, half[:]), ErrBadSignature},
			{"s is just above half the order", join(r, above[:]), ErrHighS},
			{"r and s changed places", join(s, r), ErrBadSignature},
			{"s is r", join(r, r), ErrBadSignature},
		} {
			err := k.Public().VerifyDigest(digest, f.sig)
			if f.name == "r and s changed places" || f.name == "s is r" {
				if err == nil {
					t.Errorf("%v: %s was accepted", c, f.name)
				}
				continue
			}
			if !errors.Is(err, f.want) {
				t.Errorf("%v: %s: %v, want %v", c, f.name, err, f.want)
			}
		}
		// A DER encoding of 64 bytes is not taken for r and s.
		der := append([]byte{0x30, 62, 2, 29}, bytes.Repeat([]byte{1}, 29)...)
		der = append(append(der, 2, 29), bytes.Repeat([]byte{1}, 29)...)
		if err := k.Public().VerifyDigest(digest, der); !errors.Is(err, ErrBadSignature) || len(der) != 64 {
			t.Errorf("%v: DER of %d bytes: %v", c, len(der), err)
		}
	}
}

func join(r, s []byte) []byte { return append(bytes.Clone(r), s...) }

// TestShared uses one key from many goroutines; it is for the race detector.
func TestShared(t *testing.T) {
	for _, c := range []Curve{P256, K256} {
		k := generate(t, c, 9)
		var wg sync.WaitGroup
		for i := range byte(8) {
			wg.Go(func() {
				for j := range byte(8) {
					sig, err := k.Sign([]byte{i, j})
					if err != nil || k.Public().Verify([]byte{i, j}, sig) != nil {
						t.Errorf("%v: %v", c, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

// TestAllocations keeps the hot paths as cheap as they are.
func TestAllocations(t *testing.T) {
	k := generate(t, K256, 1)
	pub, digest := k.Public(), sha256.Sum256([]byte("x"))
	sig, err := k.SignDigest(digest)
	if err != nil {
		t.Fatal(err)
	}
	point := pub.Bytes()
	for name, c := range map[string]struct {
		most float64
		f    func()
	}{
		"sign":   {5, func() { _, _ = k.SignDigest(digest) }},
		"verify": {0, func() { _ = pub.VerifyDigest(digest, sig) }},
		"parse":  {1, func() { _, _ = ParsePublic(K256, point) }},
	} {
		if n := testing.AllocsPerRun(20, c.f); n > c.most {
			t.Errorf("%s allocates %v times, at most %v are allowed", name, n, c.most)
		}
	}
}

// FuzzAgainstDecred signs with a key and compares what both implementations say to that signature, changed in places.
func FuzzAgainstDecred(f *testing.F) {
	f.Add([]byte("key"), []byte("message"), []byte{})
	f.Add([]byte{1}, []byte{}, []byte{0, 1, 63, 0x80})
	f.Add([]byte{2}, []byte{3}, bytes.Repeat([]byte{32, 0xff}, 32))
	f.Fuzz(func(t *testing.T, seed, msg, flips []byte) {
		d, digest := sha256.Sum256(seed), sha256.Sum256(msg)
		k, err := NewPrivate(K256, d[:])
		if err != nil {
			t.Skip()
		}
		if err := agree(k, digest); err != nil {
			t.Fatalf("key %x, digest %x: %v", d, digest, err)
		}
		sig, _ := k.SignDigest(digest)
		for i := 0; i+1 < len(flips); i += 2 {
			sig[flips[i]%64] ^= flips[i+1]
		}
		compare(t, k, digest, sig)
	})
}

// FuzzSignature compares what both implementations say to any bytes.
func FuzzSignature(f *testing.F) {
	order := groups[K256].order
	f.Add([]byte{}, []byte("x"))
	f.Add(make([]byte, 64), []byte("x"))
	f.Add(join(order[:], order[:]), []byte("x"))
	f.Add(bytes.Repeat([]byte{0x7f}, 64), []byte("x"))
	f.Fuzz(func(t *testing.T, sig, msg []byte) {
		compare(t, generate(t, K256, 1), sha256.Sum256(msg), sig)
	})
}

func compare(t *testing.T, k *PrivateKey, digest [32]byte, sig []byte) {
	got, want := k.Public().VerifyDigest(digest, sig), verdict(secp256k1.PrivKeyFromBytes(k.Bytes()).PubKey(), digest, sig)
	if !errors.Is(got, want) || (got == nil) != (want == nil) {
		t.Fatalf("key %x, digest %x, signature %x: %v, they say %v", k.Bytes(), digest, sig, got, want)
	}
}

// FuzzPublic compares which bytes are points.
func FuzzPublic(f *testing.F) {
	k := generate(f, K256, 1).Public()
	f.Add(k.Bytes())
	f.Add(k.Uncompressed())
	f.Add(append([]byte{6}, k.Uncompressed()[1:]...)) // the hybrid form, which we don't take
	f.Add(append([]byte{2}, bytes.Repeat([]byte{0xff}, 32)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParsePublic(K256, b)
		want, theirs := secp256k1.ParsePubKey(b)
		if theirs == nil && (b[0] == 6 || b[0] == 7) {
			theirs = errors.New("hybrid form")
		}
		if (err == nil) != (theirs == nil) {
			t.Fatalf("%x: %v, they say %v", b, err, theirs)
		}
		if err == nil && !bytes.Equal(got.Uncompressed(), want.SerializeUncompressed()) {
			t.Fatalf("%x is %x, they say %x", b, got.Uncompressed(), want.SerializeUncompressed())
		}
	})
}
