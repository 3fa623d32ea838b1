// Package sha256x hashes many short messages with SHA-256, several at a time where the processor can.
//
// Specification: https://csrc.nist.gov/pubs/fips/180-4/upd1/final. A repository is hashed block by block and key by key, and
// none of them depends on another. SHA-256 of one message is a chain of instructions in which each waits for the one
// before. With two messages in turn some of the waiting is put to use; with sixteen side by side nothing waits.
//
//	c := sha256x.Sum(one)
//	a, b := sha256x.Sum2(first, second)
//
//	spans := []sha256x.Span{{Start: 0, End: 300}, {Start: 336, End: 700}}
//	var h sha256x.Hasher
//	h.Spans(buf, spans) // spans[i].Sum
//
// [Trails] and [Short] are for the nodes and keys of a tree: for messages that begin like one hashed before, and for many of
// one block, of whose digests a few bits matter.
//
// On amd64 with the SHA instructions that is assembly, in blocks_amd64.s for one and two messages and, with AVX-512, in
// wide_amd64.s for sixteen, which is what a hasher of many uses. Everywhere else, and with the build tag purego, it is
// crypto/sha256, one message after the other. The results are the same. It is not a general hash: there is no hash.Hash, and
// messages have to be in memory.
package sha256x

import "crypto/sha256"

// Size is that of a digest, in bytes.
const Size = sha256.Size

const blockSize = sha256.BlockSize

// Accelerated reports whether two messages at a time take less than twice as long as one.
func Accelerated() bool { return accelerated }

// Sum returns the digest of one message. For a short one it takes less time than [sha256.Sum256].
func Sum(b []byte) (x [Size]byte) {
	if !accelerated {
		return sha256.Sum256(b)
	}
	var s lane
	s.start(b)
	s.finish(b)
	s.state.put(&x)
	return x
}

// Sum2 returns the digests of two messages.
func Sum2(a, b []byte) (x, y [Size]byte) {
	if !accelerated {
		return sha256.Sum256(a), sha256.Sum256(b)
	}
	var s, t lane
	s.start(a)
	t.start(b)
	together(&s, &t, a, b)
	s.finish(a)
	t.finish(b)
	s.state.put(&x)
	t.state.put(&y)
	return x, y
}

// Span is a message that lies in a slice, and its digest.
type Span struct {
	Start, End int
	Sum        [Size]byte
}

// Hasher hashes messages, as many at a time as the processor can. The zero value is ready, and can be used again.
type Hasher struct{ lanes lanes }

// Spans writes the digests of messages that lie in b. Their order doesn't matter: the long ones are taken first.
func (h *Hasher) Spans(b []byte, spans []Span) {
	if accelerated && len(spans) > 1 {
		h.lanes.spans(b, spans)
		return
	}
	for i := range spans {
		s := &spans[i]
		s.Sum = Sum(b[s.Start:s.End])
	}
}
