//go:build amd64 && !purego

package sha256x

import (
	"encoding/binary"
	"math/bits"
)

// lanes are the messages of a [Queue] that are on their way: two of them, or sixteen.
type lanes struct {
	lane [16]lane
	jobs [16]job
	busy uint16 // lanes that have a job

	wide wide // their states and places, with sixteen lanes
}

// maxShort is the longest message that waits for others.
const maxShort = 1 << 30

type job struct {
	msg []byte
	out *[Size]byte
}

func (q *lanes) add(msg []byte, out *[Size]byte) {
	if len(msg) > maxShort {
		*out = Sum(msg)
		return
	}
	i := bits.TrailingZeros16(^q.busy)
	l := &q.lane[i]
	l.start(msg)
	q.jobs[i] = job{msg, out}
	q.busy |= 1 << i
	if sixteen {
		for word, from := range order {
			q.wide.state[word][i] = initial[from]
		}
		q.row(i)
		for q.busy == 1<<16-1 {
			q.together16()
		}
	} else if q.busy == 1<<2-1 {
		q.together2(0, 1)
	}
}

func (q *lanes) flush() {
	if sixteen {
		// Sixteen lanes take as long as eight would two by two.
		for bits.OnesCount16(q.busy) > 8 {
			q.together16()
		}
		for busy := q.busy; busy != 0; busy &= busy - 1 {
			q.narrow(bits.TrailingZeros16(busy))
		}
	}
	for bits.OnesCount16(q.busy) > 1 {
		q.together2(bits.TrailingZeros16(q.busy), bits.Len16(q.busy)-1)
	}
	if q.busy != 0 {
		i := bits.TrailingZeros16(q.busy)
		q.lane[i].finish(q.jobs[i].msg)
		q.end2(i)
	}
}

// together2 hashes two lanes until one of them is done.
func (q *lanes) together2(i, j int) {
	together(&q.lane[i], &q.lane[j], q.jobs[i].msg, q.jobs[j].msg)
	if q.lane[i].done() {
		q.end2(i)
	}
	if q.lane[j].done() {
		q.end2(j)
	}
}

func (q *lanes) end2(i int) {
	q.lane[i].state.put(q.jobs[i].out)
	q.free(i)
}

func (q *lanes) free(i int) {
	q.jobs[i] = job{}
	q.busy &^= 1 << i
}

// row says what lane i has to hash next.
func (q *lanes) row(i int) {
	n, p := q.lane[i].row(q.jobs[i].msg)
	q.wide.base[i], q.wide.off[i], q.wide.left[i] = p, 0, int32(n)
}

// together16 hashes as many blocks of all lanes as lie in a row in each. Lanes without a job take part with their tail, to
// no effect.
func (q *lanes) together16() {
	for idle := ^q.busy; idle != 0; idle &= idle - 1 {
		i := bits.TrailingZeros16(idle)
		tail := &q.lane[i].tail
		q.wide.base[i], q.wide.off[i], q.wide.left[i] = &tail[0], 0, int32(len(tail)/blockSize)
	}
	over := uint16(blocks16(&q.wide))
	for over &= q.busy; over != 0; over &= over - 1 {
		i := bits.TrailingZeros16(over)
		if q.lane[i].pass(); !q.lane[i].done() {
			q.row(i)
			continue
		}
		out := q.jobs[i].out
		for word := range q.wide.state {
			binary.BigEndian.PutUint32(out[4*word:], q.wide.state[word][i])
		}
		q.wide.base[i] = nil
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
