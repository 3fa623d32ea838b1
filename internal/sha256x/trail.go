package sha256x

import "crypto/sha256"

// Trails hashes messages and remembers how far each had come after every block. Of a message that begins like one of them
// only the rest has to be hashed then: a node of a tree differs from the one before an edit in a link near its end. The zero
// value is ready. Its memory is used again, and is half of what the messages take.
type Trails struct {
	states []state
	first  []int32 // of each message its first state, and behind the last message the number of all
}

// Sum writes the digests of messages to sums, and remembers them as message 0, 1 and so on. What was remembered before is
// forgotten. All messages together are less than 2 GiB.
func (t *Trails) Sum(sums [][Size]byte, messages [][]byte) {
	if accelerated {
		t.sum(sums, messages)
		return
	}
	for i, m := range messages {
		sums[i] = sha256.Sum256(m)
	}
}

// Resume returns the digest of a message that has its first same bytes in common with message i.
func (t *Trails) Resume(i int, message []byte, same int) (x [Size]byte) {
	if !accelerated {
		return sha256.Sum256(message)
	}
	t.resume(i, message, same, &x)
	return x
}

// Short is a message of at most [MaxShort] bytes with the padding that the hash wants behind it. A message that lies in this
// form is not copied when it is hashed.
type Short [blockSize]byte

// MaxShort is the length of the longest message with room for its padding in one block.
const MaxShort = blockSize - 9

// Pad makes a message of what is in the first n bytes.
func (s *Short) Pad(n int) {
	_ = s[:MaxShort+1][n]
	clear(s[n:])
	s[n] = 0x80
	s[blockSize-2], s[blockSize-1] = byte(n>>5), byte(n<<3) // its bits
}

// Message returns the message.
func (s *Short) Message() []byte {
	return s[:(int(s[blockSize-2])<<8|int(s[blockSize-1]))>>3]
}

// Heads writes the first four bytes of each message's digest to heads, as a big-endian number. A key's place in a tree asks
// for no more of it, but for one in four thousand million.
func Heads(heads []uint32, messages []Short) {
	if accelerated {
		shorts(heads, messages)
		return
	}
	for i := range messages {
		sum := sha256.Sum256(messages[i].Message())
		heads[i] = uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	}
}
