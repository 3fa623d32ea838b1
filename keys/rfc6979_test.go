package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// TestNonces holds the generator against appendix A.2.5 of RFC 6979 (P-256 with SHA-256), and against known answers for K-256.
func TestNonces(t *testing.T) {
	const key = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
	for _, c := range []struct{ key, msg, nonce string }{
		{key, "sample", "a6e3c57dd01abe90086538398355dd4c3b17aa873382b0f24d6129493d8aad60"},
		{key, "test", "d16b6ae827f17175e040871a1c7ec3500192c4c92677336ec2537acaee0008e0"},
		{"01", "Satoshi Nakamoto", "8f8a276c19f4149656b280621e358cce24f5f52542772691ee69063b74f15d15"},
		{"01", "All those moments will be lost in time, like tears in rain. Time to die...", "38aa22d72376b4dbc472e06c3ba403ee0a394da63fc58d88686c611aba98d6b3"},
		{"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140", "Satoshi Nakamoto", "33a19b60e25fb6f4435af53a3d42d493644827367e6453928554f43e49aa6f90"},
	} {
		k, digest := number(c.key), sha256.Sum256([]byte(c.msg))
		n := newNonces(&k, &digest)
		if got := n.next(); got != number(c.nonce) {
			t.Errorf("%s: %x, want %s", c.msg, got, c.nonce)
		}
	}
}

// number reads hexadecimal digits, of which leading zeros may be left out.
func number(s string) (b [32]byte) {
	v, err := hex.DecodeString("0000000000000000000000000000000000000000000000000000000000000000"[len(s):] + s)
	if err != nil {
		panic(err)
	}
	return [32]byte(v)
}

func TestKnownSignatures(t *testing.T) {
	for _, c := range []struct {
		curve          Curve
		key, msg, r, s string
	}{
		// RFC 6979, A.2.5; there s of the first one is high: n minus this.
		{P256, "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721", "sample",
			"efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716", "834e36ad29a83bf2bc9385e491d6099c8fdf9d1ed67aa7ea5f51f93782857a9"},
		{P256, "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721", "test",
			"f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367", "19f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083"},
		{K256, "01", "Satoshi Nakamoto",
			"934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8", "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"},
	} {
		d := number(c.key)
		k, err := NewPrivate(c.curve, d[:])
		if err != nil {
			t.Fatal(err)
		}
		sig, err := k.Sign([]byte(c.msg))
		if err != nil {
			t.Fatal(err)
		}
		if [32]byte(sig[:32]) != number(c.r) || [32]byte(sig[32:]) != number(c.s) {
			t.Errorf("%v, %s: %x, want %s %s", c.curve, c.msg, sig, c.r, c.s)
		}
	}
}
