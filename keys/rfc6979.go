package keys

import "crypto/sha256"

// nonces yields the nonces of RFC 6979, section 3.2, with SHA-256 and for a group order of 256 bits. HMAC is written out on
// fixed buffers: nothing is allocated, and nothing depends on the secret but the bytes that are hashed.
type nonces struct{ k, v [sha256.Size]byte }

// newNonces takes the private key and the digest, which is reduced modulo the group order, both big-endian (steps a to g).
func newNonces(key, digest *[32]byte) (n nonces) {
	for i := range n.v {
		n.v[i] = 1
	}
	var seed [1 + 64]byte
	copy(seed[1:], key[:])
	copy(seed[33:], digest[:])
	n.update(seed[:])
	seed[0] = 1
	n.update(seed[:])
	return n
}

// update mixes data into the state: the next key is HMAC(k, v ‖ data).
func (n *nonces) update(data []byte) {
	n.k = n.hmac(data)
	n.v = n.hmac(nil)
}

// next returns 256 bits (step h). Whoever calls it again, as the value before was not in range, gets another one.
func (n *nonces) next() [32]byte {
	n.v = n.hmac(nil)
	return n.v
}

// reject prepares for another value.
func (n *nonces) reject() { n.update([]byte{0}) }

// hmac returns HMAC-SHA-256 of v ‖ data with the key k. Data has at most 65 bytes.
func (n *nonces) hmac(data []byte) [sha256.Size]byte {
	var inner [sha256.BlockSize + sha256.Size + 65]byte
	var outer [sha256.BlockSize + sha256.Size]byte
	for i := range sha256.BlockSize {
		var k byte
		if i < len(n.k) {
			k = n.k[i]
		}
		inner[i], outer[i] = k^0x36, k^0x5c
	}
	end := sha256.BlockSize + copy(inner[sha256.BlockSize:], n.v[:])
	end += copy(inner[end:], data)
	sum := sha256.Sum256(inner[:end])
	copy(outer[sha256.BlockSize:], sum[:])
	return sha256.Sum256(outer[:])
}
