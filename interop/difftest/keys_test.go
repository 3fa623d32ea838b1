package difftest

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"github.com/barograph/baro/keys"
)

var orders = map[keys.Curve]*big.Int{
	keys.P256: elliptic.P256().Params().N,
	keys.K256: func() *big.Int {
		n, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
		return n
	}(),
}

// otherS gives the other signature of K-256 that is as good in mathematics: s in the other half.
func otherS(sig []byte) []byte { return otherSOf(keys.K256, sig) }

func otherSOf(c keys.Curve, sig []byte) []byte {
	out := bytes.Clone(sig)
	s := new(big.Int).SetBytes(sig[32:])
	s.Mod(s.Sub(orders[c], s), orders[c]).FillBytes(out[32:])
	return out
}

// FuzzSignature compares the verdict on a signature of a message by a key, which is made from the seed.
func FuzzSignature(f *testing.F) {
	f.Add([]byte("hello"), uint64(1), []byte{})
	for kind := range uint64(16) {
		f.Add([]byte("hello"), kind<<8, []byte{})
		f.Add([]byte{}, kind<<8|1, bytes.Repeat([]byte{0xff}, 64))
	}
	f.Fuzz(compareSignature)
}

// fixture keys are few, since making one takes long.
var signers = func() (list []*keys.PrivateKey) {
	for i := range 4 {
		k, err := keys.NewPrivate([]keys.Curve{keys.P256, keys.K256}[i%2], bytes.Repeat([]byte{byte(i + 1)}, 32))
		if err != nil {
			panic(err)
		}
		list = append(list, k)
	}
	return list
}()

func compareSignature(t *testing.T, msg []byte, seed uint64, sig []byte) {
	key := signers[seed%4]
	r := seeded(seed)
	good, err := key.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	n := orders[key.Curve()]
	switch seed >> 8 % 16 {
	case 0:
		sig = good
	case 1:
		sig = otherSOf(key.Curve(), good)
	case 2:
		sig = scramble(good, r)
	case 3:
		sig = good[:r.IntN(len(good))]
	case 4:
		sig = append(good, byte(r.Uint32()))
	case 5: // r or s zero, the order, or beyond it
		for _, at := range pick(r, []int{0}, []int{32}, []int{0, 32}) {
			v := pick(r, big.NewInt(0), n, new(big.Int).Sub(n, big.NewInt(1)), new(big.Int).Add(n, big.NewInt(1)), new(big.Int).Rsh(n, 1), new(big.Int).Add(new(big.Int).Rsh(n, 1), big.NewInt(1)))
			v.FillBytes(good[at : at+32])
		}
		sig = good
	case 6: // of another message
		if sig, err = key.Sign(append(msg, 0)); err != nil {
			t.Fatal(err)
		}
	case 7: // of another key
		if sig, err = signers[(seed+2)%4].Sign(msg); err != nil {
			t.Fatal(err)
		}
	case 8: // r reduced by, or raised by, the order
		v := new(big.Int).SetBytes(good[:32])
		if v.Add(v, n); v.BitLen() <= 256 {
			v.FillBytes(good[:32])
		}
		sig = good
	}
	peer, err := atcrypto.ParsePublicDIDKey(key.Public().DIDKey())
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := key.Public().Verify(msg, sig), peer.HashAndVerify(msg, sig)
	if (mine == nil) != (theirs == nil) {
		t.Errorf("%s, %x, signature %x: ours %v, theirs %v", key.Public(), msg, sig, mine, theirs)
	}
	// And what they sign, we verify.
	var private atcrypto.PrivateKey
	if key.Curve() == keys.P256 {
		private, err = atcrypto.ParsePrivateBytesP256(key.Bytes())
	} else {
		private, err = atcrypto.ParsePrivateBytesK256(key.Bytes())
	}
	if err != nil {
		t.Fatal(err)
	}
	if sig, err = private.HashAndSign(msg); err != nil || key.Public().Verify(msg, sig) != nil {
		t.Errorf("indigo's signature %x of %x: %v, %v", sig, msg, err, key.Public().Verify(msg, sig))
	}
}

func TestSignatures(t *testing.T) {
	for seed := range uint64(rounds(20)) {
		for kind := range uint64(9) {
			compareSignature(t, []byte{byte(seed)}, seed|kind<<8, nil)
		}
	}
}

// keyForms are the ways in which keys are written. What each side makes of one is the public key.
var keyForms = []struct {
	name         string
	ours, theirs func(s string) (any, error)
	table        table[string]
}{
	{
		name: "did:key",
		ours: func(s string) (any, error) {
			k, err := keys.ParseDIDKey(s)
			if err != nil {
				return nil, err
			}
			return []string{k.DIDKey(), k.Multikey(), string(k.Uncompressed())}, nil
		},
		theirs: func(s string) (any, error) {
			k, err := atcrypto.ParsePublicDIDKey(s)
			if err != nil {
				return nil, err
			}
			return []string{k.DIDKey(), k.Multibase(), string(k.UncompressedBytes())}, nil
		},
	},
	{
		name: "multikey",
		ours: func(s string) (any, error) {
			k, err := keys.ParseMultikey(s)
			if err != nil {
				return nil, err
			}
			return k.Multikey(), nil
		},
		theirs: func(s string) (any, error) {
			k, err := atcrypto.ParsePublicMultibase(s)
			if err != nil {
				return nil, err
			}
			return k.Multibase(), nil
		},
	},
	{
		name: "private multikey",
		ours: func(s string) (any, error) {
			if !strings.HasPrefix(s, "z") { // we read other forms as well
				return nil, keys.ErrInvalidKey
			}
			k, err := keys.ParsePrivate(s)
			if err != nil {
				return nil, err
			}
			return []string{k.Multikey(), k.Public().DIDKey()}, nil
		},
		theirs: func(s string) (any, error) {
			k, err := atcrypto.ParsePrivateMultibase(s)
			if err != nil {
				return nil, err
			}
			p, err := k.PublicKey()
			if err != nil {
				return nil, err
			}
			return []string{k.Multibase(), p.DIDKey()}, nil
		},
	},
	{
		name: "JWK",
		ours: func(s string) (any, error) {
			k, err := keys.ParseJWK([]byte(s))
			if err != nil {
				return nil, err
			}
			return k.DIDKey(), nil
		},
		theirs: func(s string) (any, error) {
			k, err := atcrypto.ParsePublicJWKBytes([]byte(s))
			if err != nil {
				return nil, err
			}
			return k.DIDKey(), nil
		},
		table: table[string]{list: []difference[string]{
			{
				name: "unused bits or line breaks in base64url", right: open, rule: "one spelling for each number, RFC 4648 sections 3.3 and 3.5; whether to insist is left open",
				holds: jwkHas(func(_, part string, b []byte) bool { return base64.RawURLEncoding.EncodeToString(b) != part }),
				shown: []string{strings.Replace(jwkOf(0), `","y"`, `\n","y"`, 1), jwkOf(1)[:len(jwkOf(1))-3] + string(jwkOf(1)[len(jwkOf(1))-3]+1) + `"}`},
			},
			{
				name: "numbers of P-256 that aren't of 32 bytes", right: ours, rule: "the full size of a coordinate, with leading zeros, RFC 7518 section 6.2.1.2",
				holds: jwkHas(func(crv, _ string, b []byte) bool { return crv == "P-256" && len(b) != 32 }),
				shown: []string{strings.Replace(jwkOf(0), `"x":"`, `"x":"AAAA`, 1)},
			},
			{
				name: "members that aren't of the form of a JWK", right: ours, rule: "alg and d are texts where they are there, RFC 7517 section 4.4, RFC 7518 section 6.2.2.1",
				holds: func(s string, mine, peer answer) bool {
					v, _ := examineJSON([]byte(s))
					if mine.err == nil || peer.err != nil || v == nil {
						return false
					}
					for i, k := range v.keys {
						if k = unquote(k, faults{}); (k == "alg" || k == "d" || k == "kid" || k == "use") && v.kids[i].kind != '"' && v.kids[i].kind != 'n' {
							return true
						}
					}
					return false
				},
				shown: []string{strings.Replace(jwkOf(0), `{`, `{"alg":1,`, 1)},
			},
			{
				name: "members in another case", right: ours, rule: "names are compared with regard to case, RFC 7517 section 4",
				holds: func(s string, mine, peer answer) bool {
					v, _ := examineJSON([]byte(s))
					return v != nil && slices.ContainsFunc(v.keys, func(k string) bool {
						k = unquote(k, faults{})
						return k != strings.ToLower(k) && slices.Contains([]string{"kty", "crv", "x", "y", "d", "alg", "kid", "use"}, strings.ToLower(k))
					})
				},
				shown: []string{strings.Replace(jwkOf(0), `"y":`, `"Y":`, 1), strings.Replace(jwkOf(1), `{`, `{"KTY":1,`, 1)},
			},
			{
				name: "a member twice", right: ours, rule: "refused, which is one of two ways that RFC 7517 section 4 allows",
				holds: func(s string, mine, peer answer) bool {
					v, _ := examineJSON([]byte(s))
					if mine.err == nil || peer.err != nil || v == nil {
						return false
					}
					seen := map[string]bool{}
					for _, k := range v.keys {
						if k = unquote(k, faults{}); seen[k] {
							return true
						}
						seen[k] = true
					}
					return false
				},
				shown: []string{strings.Replace(jwkOf(0), `{`, `{"kty":"EC",`, 1), strings.Replace(jwkOf(1), `}`, `,"b":1,"b":2}`, 1)},
			},
		}},
	},
}

// jwkOf gives the JWK of a signer, its y last.
func jwkOf(i int) string {
	j := signers[i].Public().JWK()
	return `{"kty":"EC","crv":"` + j.Crv + `","x":"` + j.X + `","y":"` + j.Y + `"}`
}

// jwkHas makes the predicate that a coordinate of a JWK that indigo accepts, and we don't, is of some kind.
func jwkHas(kind func(crv, part string, b []byte) bool) func(s string, mine, peer answer) bool {
	return func(s string, mine, peer answer) bool {
		var j struct{ Crv, X, Y string }
		if mine.err == nil || peer.err != nil || json.Unmarshal([]byte(s), &j) != nil {
			return false
		}
		for _, part := range []string{j.X, j.Y} {
			if b, err := base64.RawURLEncoding.DecodeString(part); err == nil && kind(j.Crv, part, b) {
				return true
			}
		}
		return false
	}
}

func init() {
	for i := range keyForms {
		keyForms[i].table.name = "indigo " + keyForms[i].name
	}
}

func compareKey(t testing.TB, i int, s string) string {
	t.Helper()
	k := &keyForms[i]
	return k.table.judge(t, s, ask(func() (any, error) { return k.ours(s) }), ask(func() (any, error) { return k.theirs(s) }))
}

func keySeeds(t testing.TB) []string {
	var list []string
	for _, k := range signers {
		j, err := json.Marshal(k.Public().JWK())
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, k.Public().DIDKey(), k.Public().Multikey(), k.Multikey(), string(j))
	}
	var known []map[string]string
	for _, name := range []string{"w3c_didkey_K256", "w3c_didkey_P256"} {
		load(t, "atproto-interop/crypto/"+name+".json", &known)
		for _, k := range known {
			list = append(list, k["publicDidKey"])
		}
	}
	return list
}

// FuzzKey compares what both sides make of keys in their written forms.
func FuzzKey(f *testing.F) {
	for _, s := range keySeeds(f) {
		f.Add(s, uint64(0))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		if seed != 0 {
			s = mutateKey(s, seed)
		}
		for i := range keyForms {
			compareKey(t, i, s)
		}
	})
}

func TestKeyMutations(t *testing.T) {
	for _, s := range keySeeds(t) {
		for i := range keyForms {
			for seed := range rounds(100) {
				compareKey(t, i, mutateKey(s, uint64(seed)+1))
			}
		}
	}
}

// mutateKey changes a key's characters or, within its base58, its bytes.
func mutateKey(s string, seed uint64) string {
	r := seeded(seed)
	if i := strings.IndexByte(s, 'z'); i >= 0 && s[0] != '{' && r.IntN(2) == 0 {
		if b, ok := base58Decode(s[i+1:]); ok {
			return s[:i+1] + base58Encode(scramble(b, r))
		}
	}
	if s != "" && s[0] == '{' {
		return string(mutateJSON([]byte(s), seed))
	}
	return string(scramble([]byte(s), r))
}

const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

func base58Decode(s string) ([]byte, bool) {
	v := new(big.Int)
	for i := range len(s) {
		d := strings.IndexByte(base58, s[i])
		if d < 0 {
			return nil, false
		}
		v.Add(v.Mul(v, big.NewInt(58)), big.NewInt(int64(d)))
	}
	zeros := len(s) - len(strings.TrimLeft(s, "1"))
	return append(make([]byte, zeros), v.Bytes()...), true
}

func base58Encode(b []byte) string {
	v := new(big.Int).SetBytes(b)
	var out []byte
	for m := new(big.Int); v.Sign() > 0; {
		v.DivMod(v, big.NewInt(58), m)
		out = append([]byte{base58[m.Int64()]}, out...)
	}
	zeros := len(b) - len(bytes.TrimLeft(b, "\x00"))
	return strings.Repeat("1", zeros) + string(out)
}
