//go:build amd64 && !purego

package sha256x

import "encoding/binary"

// state are the working variables as the instructions want them: f, e, b, a, h, g, d, c.
type state [8]uint32

// H(0), FIPS 180-4, 5.3.3.
var initial = state{0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667, 0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372}

// order says where a to h are in a state.
var order = [8]uint8{3, 2, 7, 6, 1, 0, 5, 4}

// put writes the digest: a to h, big-endian.
func (s *state) put(out *[Size]byte) {
	binary.BigEndian.PutUint32(out[0:], s[3])
	binary.BigEndian.PutUint32(out[4:], s[2])
	binary.BigEndian.PutUint32(out[8:], s[7])
	binary.BigEndian.PutUint32(out[12:], s[6])
	binary.BigEndian.PutUint32(out[16:], s[1])
	binary.BigEndian.PutUint32(out[20:], s[0])
	binary.BigEndian.PutUint32(out[24:], s[5])
	binary.BigEndian.PutUint32(out[28:], s[4])
}

// lane is a message on its way: the whole blocks that lie in it, and then those of tail, which hold its end and the padding.
// The message itself goes beside it, as an argument, so that it needn't be on the heap.
type lane struct {
	state state
	next  int // block to be hashed
	whole int // blocks in the message
	all   int // with those of tail
	tail  [2 * blockSize]byte
	trail []state // nil, or the states before each block of the message, and after the last one
}

func (l *lane) start(msg []byte) {
	l.state = initial
	l.next, l.whole = 0, len(msg)/blockSize
	rest := msg[l.whole*blockSize:]
	end := l.tail[:blockSize]
	if len(rest) > blockSize-9 { // no room for the mark and the length
		end = l.tail[:]
	}
	l.all = l.whole + len(end)/blockSize
	// The mark behind the message, zeros, and the length in bits.
	clear(end[copy(end, rest):])
	end[len(rest)] = 0x80
	binary.BigEndian.PutUint64(end[len(end)-8:], uint64(len(msg))*8)
}

// row returns how many blocks lie in a row, and the first one. It must not be called when the lane is done.
func (l *lane) row(msg []byte) (int, *byte) {
	if l.next < l.whole {
		return l.whole - l.next, &msg[l.next*blockSize]
	}
	return l.all - l.next, &l.tail[(l.next-l.whole)*blockSize]
}

// at returns where the state before the next block is, and how far behind it that after the block has to go, in bytes.
func (l *lane) at() (*state, int) {
	if l.trail != nil && l.next < l.whole {
		return &l.trail[l.next], Size
	}
	return &l.state, 0
}

// step goes on by n blocks of a row, which have been hashed.
func (l *lane) step(n int) {
	if l.next += n; l.trail != nil && l.next == l.whole {
		l.state = l.trail[l.whole]
	}
}

// pass goes to the end of a row.
func (l *lane) pass() {
	if l.next < l.whole {
		l.next = l.whole
	} else {
		l.next = l.all
	}
}

func (l *lane) done() bool { return l.next == l.all }

// together hashes two lanes until one of them is done.
func together(s, t *lane, a, b []byte) {
	for !s.done() && !t.done() {
		n, p := s.row(a)
		m, q := t.row(b)
		n = min(n, m)
		x, xs := s.at()
		y, ys := t.at()
		blocks2(x, y, xs, ys, p, q, n)
		s.step(n)
		t.step(n)
	}
}

// finish hashes what is left of a lane alone.
func (l *lane) finish(msg []byte) {
	for !l.done() {
		n, p := l.row(msg)
		x, xs := l.at()
		blocks1(x, xs, p, n)
		l.step(n)
	}
}

// blocks1 hashes n > 0 blocks from p on into s. The state after each block goes stride bytes behind the one before it.
//
//go:noescape
func blocks1(s *state, stride int, p *byte, n int)

// blocks2 hashes n > 0 blocks from p on into s, and as many from q on into t.
//
//go:noescape
func blocks2(s, t *state, sstride, tstride int, p, q *byte, n int)

// wide is sixteen messages side by side: their states, a word of all of them in each row, a to h, and what is to be hashed of
// each next, left blocks from off bytes behind base on.
type wide struct {
	state [8][16]uint32
	base  [16]*byte
	off   [16]int64
	left  [16]int32
}

// blocks16 hashes as many blocks of all sixteen messages as the one with the fewest has left, which has to be one at least. It
// moves off and left on, and returns which of them have nothing left, a bit for each.
//
//go:noescape
func blocks16(w *wide) (over uint32)

func cpuid(leaf, sub uint32) (a, b, c, d uint32)

func xgetbv() uint32

// accelerated: the processor has SSSE3 (PSHUFB, PALIGNR) and the SHA instructions. Any system saves the registers.
// sixteen: it has AVX-512 (F and BW) too, and the system saves those registers.
var accelerated, sixteen = func() (bool, bool) {
	top, _, _, _ := cpuid(0, 0)
	if top < 7 {
		return false, false
	}
	_, _, one, _ := cpuid(1, 0)
	_, seven, _, _ := cpuid(7, 0)
	const ssse3, osxsave = 1 << 9, 1 << 27
	const f, sha, bw = 1 << 16, 1 << 29, 1 << 30
	if one&ssse3 == 0 || seven&sha == 0 {
		return false, false
	}
	const xmm, ymm, masks, zmm, more = 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7
	const all = xmm | ymm | masks | zmm | more
	return true, one&osxsave != 0 && seven&f != 0 && seven&bw != 0 && xgetbv()&all == all
}()
