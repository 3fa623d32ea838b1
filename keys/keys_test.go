package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	mrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/barograph/baro/internal/fixtures"
)

func random(seed byte) *mrand.ChaCha8 { return mrand.NewChaCha8([32]byte{seed}) }

func generate(t testing.TB, c Curve, seed byte) *PrivateKey {
	k, err := Generate(c, random(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignatureFixtures(t *testing.T) {
	var cases []struct {
		Comment, MessageBase64, Algorithm, PublicKeyDid, PublicKeyMultibase, SignatureBase64 string
		ValidSignature                                                                       bool
		Tags                                                                                 []string
	}
	if err := json.Unmarshal(fixtures.Read(t, "atproto-interop/crypto/signature-fixtures.json"), &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		msg, err := base64.RawStdEncoding.DecodeString(c.MessageBase64)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := base64.RawStdEncoding.DecodeString(c.SignatureBase64)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := ParseDIDKey(c.PublicKeyDid)
		if err != nil {
			t.Fatal(err)
		}
		if pub.Alg() != c.Algorithm || pub.DIDKey() != c.PublicKeyDid {
			t.Errorf("%s: came back as %s %s", c.Comment, pub.Alg(), pub)
		}
		legacy, err := ParseLegacyMultibase(pub.Curve(), c.PublicKeyMultibase)
		if err != nil {
			t.Fatal(err)
		}
		if !legacy.Equal(pub) {
			t.Errorf("%s: the two forms of the key differ", c.Comment)
		}
		var want error
		switch {
		case len(c.Tags) > 0 && c.Tags[0] == "high-s":
			want = ErrHighS
		case len(c.Tags) > 0:
			want = ErrSignatureSize
		}
		if (want == nil) != c.ValidSignature {
			t.Fatalf("%s: unknown tags %v", c.Comment, c.Tags)
		}
		for _, p := range []*PublicKey{pub, legacy} {
			if err := p.Verify(msg, sig); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", c.Comment, err, want)
			}
		}
	}
}

func TestDIDKeyFixtures(t *testing.T) {
	var k256 []struct{ PrivateKeyBytesHex, PublicDidKey string }
	if err := json.Unmarshal(fixtures.Read(t, "atproto-interop/crypto/w3c_didkey_K256.json"), &k256); err != nil {
		t.Fatal(err)
	}
	for _, c := range k256 {
		k, err := ParsePrivate(c.PrivateKeyBytesHex)
		if err != nil || k.Public().DIDKey() != c.PublicDidKey {
			t.Errorf("%s: %v %v", c.PublicDidKey, k, err)
		}
	}
	var p256 []struct{ PrivateKeyBytesBase58, PublicDidKey string }
	if err := json.Unmarshal(fixtures.Read(t, "atproto-interop/crypto/w3c_didkey_P256.json"), &p256); err != nil {
		t.Fatal(err)
	}
	for _, c := range p256 {
		b, ok := decodeBase58(c.PrivateKeyBytesBase58)
		if !ok {
			t.Fatal(c)
		}
		k, err := NewPrivate(P256, b)
		if err != nil || k.Public().DIDKey() != c.PublicDidKey {
			t.Errorf("%s: %v %v", c.PublicDidKey, k, err)
		}
	}
}

func TestSignAndVerify(t *testing.T) {
	for _, c := range []Curve{P256, K256} {
		for seed := range byte(20) {
			k := generate(t, c, seed)
			msg := []byte{seed, 1, 2}
			sig, err := k.Sign(msg)
			if err != nil {
				t.Fatal(err)
			}
			pub := k.Public()
			if err := pub.Verify(msg, sig); err != nil {
				t.Fatalf("%v: %v", c, err)
			}
			again, _ := k.Sign(msg)
			if !bytes.Equal(sig, again) {
				t.Errorf("%v: signing is not deterministic", c)
			}
			order := groups[c].order
			high := bytes.Clone(sig)
			new(big.Int).Sub(new(big.Int).SetBytes(order[:]), new(big.Int).SetBytes(sig[32:])).FillBytes(high[32:])
			if err := pub.Verify(msg, high); !errors.Is(err, ErrHighS) {
				t.Errorf("%v: high S gave %v", c, err)
			}
			for i := range sig {
				bad := bytes.Clone(sig)
				bad[i] ^= 1
				if pub.Verify(msg, bad) == nil {
					t.Errorf("%v: byte %d does not matter", c, i)
				}
			}
			if pub.Verify([]byte("other"), sig) == nil || pub.Verify(msg, sig[:63]) == nil || pub.Verify(msg, append(sig, 0)) == nil {
				t.Errorf("%v: accepted what is wrong", c)
			}
			for _, zero := range [][]byte{make([]byte, 64), append(make([]byte, 32), sig[32:]...), append(bytes.Clone(sig[:32]), make([]byte, 32)...)} {
				if err := pub.Verify(msg, zero); !errors.Is(err, ErrBadSignature) {
					t.Errorf("%v: zero signature gave %v", c, err)
				}
			}
			if generate(t, c, seed+100).Public().Verify(msg, sig) == nil {
				t.Errorf("%v: another key verifies", c)
			}
		}
	}
}

func TestEncodings(t *testing.T) {
	for _, c := range []Curve{P256, K256} {
		k := generate(t, c, 7)
		jwk, err := json.Marshal(k.JWK())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{k.Multikey(), string(jwk)} {
			back, err := ParsePrivate(s)
			if err != nil || back.d != k.d || back.Curve() != c || !back.Public().Equal(k.Public()) {
				t.Errorf("%v: %v %v", c, back, err)
			}
		}
		pub := k.Public()
		pj, err := json.Marshal(pub.JWK())
		if err != nil || bytes.Contains(pj, []byte(`"d"`)) {
			t.Fatal(string(pj), err)
		}
		for name, f := range map[string]func() (*PublicKey, error){
			"did":          func() (*PublicKey, error) { return ParseDIDKey(pub.DIDKey()) },
			"multikey":     func() (*PublicKey, error) { return ParseMultikey(pub.Multikey()) },
			"jwk":          func() (*PublicKey, error) { return ParseJWK(pj) },
			"compressed":   func() (*PublicKey, error) { return ParsePublic(c, pub.Bytes()) },
			"uncompressed": func() (*PublicKey, error) { return ParsePublic(c, pub.Uncompressed()) },
			"legacy": func() (*PublicKey, error) {
				return ParseLegacyMultibase(c, "z"+encodeBase58(pub.Uncompressed()))
			},
		} {
			if back, err := f(); err != nil || !back.Equal(pub) {
				t.Errorf("%v %s: %v %v", c, name, back, err)
			}
		}
		if len(pub.Thumbprint()) != 43 {
			t.Error(pub.Thumbprint())
		}
		if !IsDIDKey(pub.DIDKey()) || IsDIDKey(pub.Multikey()) || IsDIDKey("did:key:z0") || IsDIDKey("did:key:"+strings.Repeat("z", 300)) {
			t.Error("IsDIDKey")
		}
	}
	for _, bad := range []string{
		"", "z", "did:key:", "did:key:zzz", "did:key:uAAAA", "did:web:example.com", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
		" did:key:zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo", "did:key:zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo ",
		"did:key:z" + strings.Repeat("1", 1000),
	} {
		if _, err := ParseDIDKey(bad); !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	order := groups[K256].order
	for _, bad := range []string{"", strings.Repeat("0", 64), hex.EncodeToString(order[:]), strings.Repeat("g", 64), "{}", `{"kty":"EC"}`, generate(t, K256, 1).Public().Multikey()} {
		if _, err := ParsePrivate(bad); !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	a, b := generate(t, P256, 1).JWK(), generate(t, P256, 2).JWK()
	a.D = b.D
	j, _ := json.Marshal(a)
	if _, err := ParsePrivateJWK(j); err == nil {
		t.Error("a private part that does not fit was accepted")
	}
	if _, err := Generate(K256, strings.NewReader("short")); err == nil {
		t.Error("short randomness was accepted")
	}
	if _, err := Generate(K256, bytes.NewReader(make([]byte, 10000))); err == nil {
		t.Error("zero randomness was accepted")
	}
	if _, err := Generate(0, random(1)); err == nil {
		t.Error("unknown curve was accepted")
	}
}

// TestThumbprint pins the example of RFC 7638's method on a P-256 key with a value computed by hand from the fields.
func TestThumbprint(t *testing.T) {
	p := generate(t, P256, 3).Public()
	j := p.JWK()
	m, _ := json.Marshal(map[string]string{"kty": j.Kty, "crv": j.Crv, "x": j.X, "y": j.Y}) // sorted by key
	sum := sha256.Sum256(m)
	if want := base64.RawURLEncoding.EncodeToString(sum[:]); p.Thumbprint() != want {
		t.Error(p.Thumbprint(), want)
	}
}

// A coordinate has one spelling: base64url without unused bits, and without the line breaks that the decoder passes over.
func TestJWKSpelling(t *testing.T) {
	k := generate(t, K256, 1)
	for name, change := range map[string]func(j *JWK){
		"line break":  func(j *JWK) { j.X = j.X[:9] + "\n" + j.X[9:] },
		"return":      func(j *JWK) { j.Y += "\r" },
		"private":     func(j *JWK) { j.D = "\n" + j.D },
		"padding":     func(j *JWK) { j.X += "=" },
		"unused bits": func(j *JWK) { j.Y = j.Y[:42] + string(j.Y[42]+1) },
	} {
		j := k.JWK()
		change(&j)
		b, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePrivateJWK(b); !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzBase58(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 1, 255})
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 150 {
			return
		}
		back, ok := decodeBase58(encodeBase58(b))
		if !ok || !bytes.Equal(b, back) {
			t.Errorf("%x came back as %x", b, back)
		}
		if d, ok := decodeBase58(string(b)); ok && encodeBase58(d) != string(b) {
			t.Errorf("%q is not canonical", b)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("did:key:zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo")
	f.Add("did:key:zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc")
	f.Add(`{"kty":"EC","crv":"P-256","x":"","y":""}`)
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParseDIDKey(s); err == nil && (p.DIDKey() != s || !IsDIDKey(s)) {
			t.Errorf("%q came back as %q", s, p.DIDKey())
		}
		_, _ = ParseJWK([]byte(s))
		_, _ = ParsePrivate(s)
		_, _ = ParseLegacyMultibase(P256, s)
	})
}

func BenchmarkKeys(b *testing.B) {
	for _, c := range []Curve{P256, K256} {
		k := generate(b, c, 1)
		digest := sha256.Sum256([]byte("x"))
		sig, err := k.SignDigest(digest)
		if err != nil {
			b.Fatal(err)
		}
		did := k.Public().DIDKey()
		b.Run(c.String()+"/verify", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if k.Public().VerifyDigest(digest, sig) != nil {
					b.Fatal()
				}
			}
		})
		b.Run(c.String()+"/sign", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.SignDigest(digest); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.String()+"/parse", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseDIDKey(did); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Whatever a private key is printed with, its scalar isn't in what comes out.
func TestPrintedKey(t *testing.T) {
	scalar := bytes.Repeat([]byte{0xab}, 32)
	for _, curve := range []Curve{P256, K256} {
		k, err := NewPrivate(curve, scalar)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		for _, v := range []any{k, *k, struct{ Key *PrivateKey }{k}, struct{ Key PrivateKey }{*k}, []*PrivateKey{k}, map[string]any{"k": *k}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%T"} {
				fmt.Fprintf(&log, verb+"\n", v)
			}
			slog.New(slog.NewTextHandler(&log, nil)).Info("", "key", v)
			slog.New(slog.NewJSONHandler(&log, nil)).Info("", "key", v)
		}
		for _, secret := range []string{"abab", "ABAB", "171 171", "171,171", "253 253", "10101011 10101011", "q6ur", k.Multikey()} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("%v: the output has %q", curve, secret)
			}
		}
		if !strings.Contains(log.String(), k.Public().DIDKey()) {
			t.Errorf("%v: the output doesn't name the public key", curve)
		}
	}
}

func TestPublicKeyText(t *testing.T) {
	k, err := NewPrivate(P256, bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	type config struct{ Key *PublicKey }
	b, err := json.Marshal(config{k.Public()})
	if err != nil || string(b) != `{"Key":"`+k.Public().DIDKey()+`"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var back config
	if err := json.Unmarshal(b, &back); err != nil || !back.Key.Equal(k.Public()) {
		t.Errorf("%v, %v", back.Key, err)
	}
	if err := json.Unmarshal([]byte(`{"Key":"did:key:zDna"}`), &back); !errors.Is(err, ErrInvalidKey) {
		t.Errorf("a bad one: %v", err)
	}
	if _, err := new(PublicKey).MarshalText(); !errors.Is(err, ErrInvalidKey) {
		t.Errorf("no key: %v", err)
	}
}

// Member names of a JWK are compared as they are: one in capitals is another one, which means nothing.
func TestJWKNames(t *testing.T) {
	k, err := NewPrivate(P256, bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewPrivate(P256, bytes.Repeat([]byte{2}, 32))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(k.Public().JWK())
	if err != nil {
		t.Fatal(err)
	}
	shadow := strings.Replace(string(b), "}", `,"X":"`+other.Public().JWK().X+`","KTY":"oct","key_ops":["verify"]}`, 1)
	if p, err := ParseJWK([]byte(shadow)); err != nil || !p.Equal(k.Public()) {
		t.Errorf("with others in capitals: %v, %v", p, err)
	}
	for _, s := range []string{strings.Replace(string(b), `"x"`, `"X"`, 1), strings.Replace(string(b), `"kty"`, `"Kty"`, 1), strings.Replace(string(b), `"x":`, `"x":1,"x":`, 1),
		strings.Replace(string(b), "}", `,"b":1,"b":2}`, 1), `null`, `[]`, `{"kty":1}`} {
		if _, err := ParseJWK([]byte(s)); !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%s: %v", s, err)
		}
	}
}
