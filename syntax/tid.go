package syntax

import (
	"sync/atomic"
	"time"
)

// TID is a timestamp identifier: 13 characters that sort by time, from microseconds and a clock id.
type TID string

const tidAlphabet = "234567abcdefghijklmnopqrstuvwxyz"

const (
	tidSize     = 13
	tidClockLen = 10 // bits
	maxMicros   = 1<<53 - 1
)

var tidTable = func() (t [256]uint8) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(tidAlphabet) {
		t[tidAlphabet[i]] = uint8(i)
	}
	return t
}()

// ParseTID reads a TID.
func ParseTID(s string) (TID, error) { return parse[TID](KindTID, s, checkTID(s)) }

// ValidTID reports whether s is a TID.
func ValidTID[S ~string | ~[]byte](s S) bool { return checkTID(s) == "" }

func checkTID[S text](s S) string {
	if len(s) != tidSize {
		return "must be 13 characters"
	}
	s = s[:tidSize]
	t := &tidTable
	all := t[s[0]] | t[s[1]] | t[s[2]] | t[s[3]] | t[s[4]] | t[s[5]] | t[s[6]] | t[s[7]] | t[s[8]] | t[s[9]] | t[s[10]] | t[s[11]] | t[s[12]]
	if all > 31 {
		return "character outside the sortable base32 alphabet"
	}
	if tidTable[s[0]] > 15 {
		return "first character must be one of 234567abcdefghij"
	}
	return ""
}

// NewTID makes a TID from microseconds since 1970 (53 bits are used; less than 0 counts as 0) and a clock id (10 bits).
func NewTID(micros int64, clockID uint) TID {
	return tidFromInteger(uint64(min(max(micros, 0), maxMicros))<<tidClockLen | uint64(clockID&(1<<tidClockLen-1)))
}

// TIDFromInteger makes a TID from its 64-bit integer, of which the top bit is dropped.
func TIDFromInteger(v uint64) TID { return tidFromInteger(v &^ (1 << 63)) }

func tidFromInteger(v uint64) TID {
	var b [tidSize]byte
	for i := tidSize - 1; i >= 0; i-- {
		b[i] = tidAlphabet[v&31]
		v >>= 5
	}
	return TID(b[:])
}

// Integer returns the 64-bit integer that t encodes; 0 if t is not a TID.
func (t TID) Integer() uint64 {
	if len(t) != tidSize {
		return 0
	}
	var v uint64
	for i := range tidSize {
		v = v<<5 | uint64(tidTable[t[i]]&31)
	}
	return v
}

// Micros returns the microseconds since 1970.
func (t TID) Micros() int64 { return int64(t.Integer() >> tidClockLen & maxMicros) }

// ClockID returns the clock id, 0 to 1023.
func (t TID) ClockID() uint { return uint(t.Integer() & (1<<tidClockLen - 1)) }

// Time returns the timestamp in UTC. It is what the author claims, not when the record was made.
func (t TID) Time() time.Time { return time.UnixMicro(t.Micros()).UTC() }

// TIDClock gives TIDs that strictly increase, also when the clock that feeds it stands still or steps back, up to the last that
// there is, of the year 2255, which it gives again and again. Whoever calls [TIDClock.Observe] with TIDs from outside sees to it
// that they are not from the future. It may be used from several goroutines. The zero value works and has clock id 0.
type TIDClock struct {
	id   uint
	last atomic.Int64 // microseconds of the latest TID, plus one, so that the zero value allows 0
}

// NewTIDClock returns a clock whose TIDs carry clockID (10 bits), which should differ between processes.
func NewTIDClock(clockID uint) *TIDClock { return &TIDClock{id: clockID & (1<<tidClockLen - 1)} }

// Next returns a TID for now, or for the microsecond after the latest TID if that is later.
func (c *TIDClock) Next(now time.Time) TID {
	micros := max(now.UnixMicro(), 0)
	for {
		last := c.last.Load()
		m := max(micros, last)
		if c.last.CompareAndSwap(last, m+1) {
			return NewTID(m, c.id)
		}
	}
}

// Observe makes every later TID of the clock greater than t: for a restart, or for a repository written elsewhere.
func (c *TIDClock) Observe(t TID) {
	m := t.Micros() + 1
	for {
		last := c.last.Load()
		if last >= m || c.last.CompareAndSwap(last, m) {
			return
		}
	}
}
