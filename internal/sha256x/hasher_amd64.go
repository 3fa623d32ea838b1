//go:build amd64 && !purego

package sha256x

import (
	"encoding/binary"
	"math/bits"
)

// lanes are the messages of a [Hasher] that are on their way: two of them, or sixteen.
type lanes struct {
	lane [16]lane
	span [16]*Span
	busy uint16 // lanes that have a message

	wide  wide          // their states and places, with sixteen lanes
	order [batch]uint16 // of spans: the longest first
	ends  [256]uint16   // of each class in order
}

// batch is how many messages are put in order together.
const batch = 1024

// maxMessage is the longest message that is hashed beside others.
const maxMessage = 1 << 30

func (q *lanes) spans(b []byte, spans []Span) {
	for len(spans) > 0 {
		n := min(len(spans), batch)
		q.some(b, spans[:n])
		spans = spans[n:]
	}
}

// some hashes at most as many messages as there is room for in order.
func (q *lanes) some(b []byte, spans []Span) {
	all := uint16(1<<2 - 1)
	if sixteen {
		all = 1<<16 - 1
	}
	q.sort(spans)
	for _, k := range q.groups(b, spans) {
		s := &spans[k]
		msg := b[s.Start:s.End]
		if len(msg) > maxMessage {
			s.Sum = Sum(msg)
			continue
		}
		i := bits.TrailingZeros16(^q.busy)
		q.lane[i].start(msg)
		q.span[i] = s
		q.busy |= 1 << i
		if sixteen {
			for word, from := range order {
				q.wide.state[word][i] = initial[from]
			}
			q.row(b, i)
		}
		for q.busy == all {
			q.together(b)
		}
	}
	q.finish(b)
}

// sort puts the messages in order, about: long ones first, so that those which are left over in the end are short, and those
// side by side are of a length. That is by blocks up to 31, then by steps of an eighth.
func (q *lanes) sort(spans []Span) {
	at := &q.ends
	clear(at[:])
	for i := range spans {
		at[class(&spans[i])]++
	}
	var sum uint16
	for c := len(at) - 1; c >= 0; c-- {
		at[c], sum = sum, sum+at[c]
	}
	for i := range spans {
		p := &at[class(&spans[i])]
		q.order[*p] = uint16(i)
		*p++
	}
}

// groups hashes those messages of which there are sixteen with the same number of blocks: they can begin and end together. It
// returns the others, in order.
func (q *lanes) groups(b []byte, spans []Span) []uint16 {
	if !sixteen {
		return q.order[:len(spans)]
	}
	first, rest := 0, 0
	for c := len(q.ends) - 1; c > 0; c-- {
		end := int(q.ends[c])
		for c < exact && end-first >= 16 {
			q.group(b, spans, (*[16]uint16)(q.order[first:]), c)
			first += 16
		}
		rest += copy(q.order[rest:], q.order[first:end])
		first = end
	}
	return q.order[:rest]
}

// group hashes sixteen messages of n blocks.
func (q *lanes) group(b []byte, spans []Span, which *[16]uint16, n int) {
	w := &q.wide
	w.state = start16
	// The last two blocks, with the padding, are hashed in a copy.
	whole := max(n-2, 0)
	for i, k := range which {
		s := &spans[k]
		w.base[i], w.off[i], w.left[i] = nil, 0, int32(whole)
		if whole > 0 {
			w.base[i] = &b[s.Start]
		}
		tail := q.lane[i].tail[:(n-whole)*blockSize]
		m := copy(tail, b[s.Start+whole*blockSize:s.End])
		clear(tail[m:])
		tail[m] = 0x80
		binary.BigEndian.PutUint64(tail[len(tail)-8:], uint64(s.End-s.Start)*8)
	}
	if whole > 0 {
		blocks16(w)
	}
	for i := range which {
		w.base[i], w.off[i], w.left[i] = &q.lane[i].tail[0], 0, int32(n-whole)
	}
	blocks16(w)
	for i, k := range which {
		q.digest(i, &spans[k].Sum)
	}
}

// digest writes the digest of lane i of the sixteen.
func (q *lanes) digest(i int, out *[Size]byte) {
	for word := range q.wide.state {
		binary.BigEndian.PutUint32(out[4*word:], q.wide.state[word][i])
	}
	q.wide.base[i] = nil
}

// exact is the first class of several numbers of blocks.
const exact = 32

func class(s *Span) uint8 {
	n := uint32(min(s.End-s.Start, maxMessage)+8)/blockSize + 1
	if n < exact {
		return uint8(n)
	}
	k := bits.Len32(n)
	return uint8((k-5)<<3 | int(n>>(k-4)&7) + 24)
}

func (q *lanes) together(b []byte) {
	if sixteen {
		q.together16(b)
	} else {
		q.together2(b, 0, 1)
	}
}

// finish hashes what is left in the lanes when no more messages come.
func (q *lanes) finish(b []byte) {
	if sixteen {
		// Sixteen lanes take as long as seven would two by two.
		for bits.OnesCount16(q.busy) > 7 {
			q.together16(b)
		}
		for busy := q.busy; busy != 0; busy &= busy - 1 {
			q.narrow(bits.TrailingZeros16(busy))
		}
	}
	for bits.OnesCount16(q.busy) > 1 {
		q.together2(b, bits.TrailingZeros16(q.busy), bits.Len16(q.busy)-1)
	}
	if q.busy != 0 {
		i := bits.TrailingZeros16(q.busy)
		q.lane[i].finish(q.message(b, i))
		q.end2(i)
	}
}

// message returns the message of a lane.
func (q *lanes) message(b []byte, i int) []byte { return b[q.span[i].Start:q.span[i].End] }

// together2 hashes two lanes until one of them is done.
func (q *lanes) together2(b []byte, i, j int) {
	together(&q.lane[i], &q.lane[j], q.message(b, i), q.message(b, j))
	if q.lane[i].done() {
		q.end2(i)
	}
	if q.lane[j].done() {
		q.end2(j)
	}
}

func (q *lanes) end2(i int) {
	q.lane[i].state.put(&q.span[i].Sum)
	q.free(i)
}

func (q *lanes) free(i int) {
	q.span[i] = nil
	q.busy &^= 1 << i
}

// row says what lane i has to hash next.
func (q *lanes) row(b []byte, i int) {
	n, p := q.lane[i].row(q.message(b, i))
	q.wide.base[i], q.wide.off[i], q.wide.left[i] = p, 0, int32(n)
}

// together16 hashes as many blocks of all lanes as lie in a row in each. Lanes without a message take part with their tail, to
// no effect.
func (q *lanes) together16(b []byte) {
	for idle := ^q.busy; idle != 0; idle &= idle - 1 {
		i := bits.TrailingZeros16(idle)
		tail := &q.lane[i].tail
		q.wide.base[i], q.wide.off[i], q.wide.left[i] = &tail[0], 0, int32(len(tail)/blockSize)
	}
	over := uint16(blocks16(&q.wide))
	for over &= q.busy; over != 0; over &= over - 1 {
		i := bits.TrailingZeros16(over)
		if q.lane[i].pass(); !q.lane[i].done() {
			q.row(b, i)
			continue
		}
		q.digest(i, &q.span[i].Sum)
		q.free(i)
	}
}

// narrow takes a lane out of the sixteen.
func (q *lanes) narrow(i int) {
	l := &q.lane[i]
	for word, to := range order {
		l.state[to] = q.wide.state[word][i]
	}
	l.pass()
	l.next -= int(q.wide.left[i])
	q.wide.base[i] = nil
}
