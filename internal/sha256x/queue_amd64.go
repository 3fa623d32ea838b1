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

	// With sixteen lanes their states are here, a word of all lanes in each row, and what each lane is to hash next: left
	// blocks, from off bytes behind base on.
	wide [8][16]uint32
	base [16]*byte
	off  [16]int
	left [16]int
}

type job struct {
	msg []byte
	out *[Size]byte
}

func (q *lanes) add(msg []byte, out *[Size]byte) {
	i := bits.TrailingZeros16(^q.busy)
	l := &q.lane[i]
	l.start(msg)
	q.jobs[i] = job{msg, out}
	q.busy |= 1 << i
	if sixteen {
		for word, from := range order {
			q.wide[word][i] = initial[from]
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
	q.left[i], q.base[i] = q.lane[i].row(q.jobs[i].msg)
	q.off[i] = 0
}

// together16 hashes as many blocks of all lanes as lie in a row in each. Lanes without a job take part with their tail, to
// no effect.
func (q *lanes) together16() {
	n := q.left[0]
	if q.busy == 1<<16-1 {
		for _, k := range q.left[1:] {
			n = min(n, k)
		}
	} else {
		n = len(q.lane[0].tail) / blockSize
		for i := range q.left {
			if q.busy&(1<<i) == 0 {
				q.base[i], q.off[i] = &q.lane[i].tail[0], 0
			} else {
				n = min(n, q.left[i])
			}
		}
	}
	blocks16(&q.wide, &q.base, &q.off, n)
	var over uint16
	for i := range q.left {
		q.off[i] += n * blockSize
		q.left[i] -= n
		if q.left[i] == 0 {
			over |= 1 << i
		}
	}
	for over &= q.busy; over != 0; over &= over - 1 {
		i := bits.TrailingZeros16(over)
		if q.lane[i].pass(); !q.lane[i].done() {
			q.row(i)
			continue
		}
		out := q.jobs[i].out
		for word := range q.wide {
			binary.BigEndian.PutUint32(out[4*word:], q.wide[word][i])
		}
		q.base[i] = nil
		q.free(i)
	}
}

// narrow takes a lane out of the sixteen.
func (q *lanes) narrow(i int) {
	l := &q.lane[i]
	for word, to := range order {
		l.state[to] = q.wide[word][i]
	}
	l.pass()
	l.next -= q.left[i]
	q.base[i] = nil
}
