package mst

import (
	"encoding/binary"
	"math/bits"

	"github.com/barograph/baro/internal/sha256x"
)

// Limits on trees. The first two are ours: the specification asks for some limit and gives no number. With keys that
// were not chosen to hurt, a node of n entries has a probability of about (3/4)^n, and a million keys give ten layers.
const (
	MaxEntries = 256  // entries in one node
	MaxLayer   = 64   // layer of the top node
	MaxKey     = 1024 // bytes in one key
)

// Layer returns the layer of the tree on which a key lies: half the number of leading zero bits of its SHA-256 hash,
// which gives every node four children on average.
func Layer[S string | []byte](key S) int {
	// The copy keeps the conversion off the heap, whatever the key's type.
	var buf [128]byte
	if len(key) <= len(buf) {
		return layerOf(buf[:copy(buf[:], key)])
	}
	return layerOf([]byte(key))
}

// layerOf is Layer without the copy.
func layerOf(key []byte) int {
	sum := sha256x.Sum(key)
	return zeros(&sum) / 2
}

// layersOf returns the layers of two keys, in hardly more time than that of one.
func layersOf(a, b []byte) (int, int) {
	x, y := sha256x.Sum2(a, b)
	return zeros(&x) / 2, zeros(&y) / 2
}

// zeros returns the number of leading zero bits.
func zeros(sum *[sha256x.Size]byte) (n int) {
	for i := 0; i < len(sum); i += 8 {
		z := bits.LeadingZeros64(binary.BigEndian.Uint64(sum[i:]))
		n += z
		if z < 64 {
			break
		}
	}
	return n
}

// commonPrefix returns the number of leading bytes that a and b share.
func commonPrefix[A, B string | []byte](a A, b B) int {
	n := min(len(a), len(b))
	i := 0
	for ; n-i >= 8; i += 8 {
		if x := word(a, i) ^ word(b, i); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// word returns the eight bytes at s[i], the first one lowest.
func word[S string | []byte](s S, i int) uint64 {
	_ = s[i+7]
	return uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
		uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
}
