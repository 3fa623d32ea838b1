// Package bench measures the protocol core against floors: what the same bytes cost anybody.
//
// The floors are a plain validating scan, SHA-256, a copy, a bare signature verification, each of the same input. What a row
// compares is measured in turns, round by round, on one core, in CPU time of the whole process; a ratio is the median of the
// rounds' ratios, so that it hardly depends on the machine or on what else it does.
//
//	for _, b := range bench.Core() {
//		row, err := bench.Run(b, bench.Brief)
//	}
//
// It stands behind the command baro bench, and behind interop/bench, which adds other libraries to the same rows. Inputs are made by a
// seeded generator, or given. It knows nothing of servers and disks.
package bench

import (
	"fmt"
	"time"
)

// Of says which costs a row's ratio compares.
type Of string

// What ratios are of.
const (
	PeerOverOurs  Of = "peer/ours"  // how many times faster than the peer: more is better
	FloorOverOurs Of = "floor/ours" // the share of the floor's speed: more is better
	OursOverFloor Of = "ours/floor" // how far above the floor: less is better
	OursOverLimit Of = "ours/limit" // of a time that is set: less is better
)

// LessIsBetter reports whether a row gets worse when its ratio grows.
func (o Of) LessIsBetter() bool { return o == OursOverFloor || o == OursOverLimit }

// Bench is a row before it is measured.
type Bench struct {
	Name   string
	What   string // in words
	Floor  string // its name
	Bound  string // what keeps ours from the floor, in words
	Of     Of
	Target float64       // 0: the row is for information
	Limit  time.Duration // of OursOverLimit
	Allocs float64       // most allocations allowed per operation, negative for any number
	Long   bool          // takes many seconds
	// Setup makes the input and returns our work and that of the floor.
	Setup func() (ours, floor Work)
	// Peer is another library, if there is one in the row, and PeerWork what it does. It is asked for after Setup.
	Peer     string
	PeerWork func() Work
}

// Against adds a peer to the row.
func (b Bench) Against(name string, target float64, work func() Work) Bench {
	b.Peer, b.PeerWork, b.Of, b.Target = name, work, PeerOverOurs, target
	return b
}

// Row is a measured one.
type Row struct {
	Name       string   `json:"name"`
	What       string   `json:"what"`
	OursNS     float64  `json:"ours_ns"`
	Peer       string   `json:"peer"`
	PeerNS     *float64 `json:"peer_ns"`
	Floor      string   `json:"floor"`
	FloorNS    *float64 `json:"floor_ns"`
	Allocs     float64  `json:"allocs"`
	PeerAllocs *float64 `json:"peer_allocs"`
	Of         Of       `json:"ratio_of"`
	Ratio      float64  `json:"ratio"`
	Target     *float64 `json:"target"`
	MaxAllocs  *float64 `json:"max_allocs"`
	OK         bool     `json:"ok"`
	Known      bool     `json:"known,omitempty"` // the shortfall is accepted
	Why        string   `json:"why,omitempty"`   // … for this reason
	Bound      string   `json:"bound,omitempty"` // what keeps ours from the floor
}

// Effort is how long to measure: so many rounds, each of so much time per piece of work.
type Effort struct {
	Rounds int
	Fill   time.Duration
}

// The efforts: for a glance, and for figures to keep.
var (
	Brief    = Effort{Rounds: 5, Fill: 20 * time.Millisecond}
	Thorough = Effort{Rounds: 9, Fill: 60 * time.Millisecond}
)

// Run measures a row. The error is that of the work: one that fails has nothing to tell.
func Run(b Bench, e Effort) (r Row, err error) {
	err = Guard(func() { r = run(b, e) })
	if err != nil {
		err = fmt.Errorf("%s: %w", b.Name, err)
	}
	return r, err
}

func run(b Bench, e Effort) Row {
	ours, floor := b.Setup()
	var peer Work
	if b.PeerWork != nil {
		peer = b.PeerWork()
	}
	c := measure(e.Rounds, e.Fill, ours, peer, floor)
	m := medianOf(c[0])
	r := Row{Name: b.Name, What: b.What, OursNS: m.NS, Allocs: round(m.Allocs), Peer: b.Peer, Floor: b.Floor, Of: b.Of, Bound: b.Bound}
	if peer.Do != nil {
		p := medianOf(c[1])
		r.PeerNS, r.PeerAllocs = &p.NS, new(round(p.Allocs))
	}
	if floor.Do != nil {
		r.FloorNS = new(medianOf(c[2]).NS)
	}
	switch b.Of {
	case PeerOverOurs:
		r.Ratio = ratioOf(c[1], c[0])
	case FloorOverOurs:
		r.Ratio = ratioOf(c[2], c[0])
	case OursOverFloor:
		r.Ratio = ratioOf(c[0], c[2])
	case OursOverLimit:
		r.Ratio = m.NS / float64(b.Limit)
	}
	r.OK = true
	if b.Target > 0 {
		r.Target = &b.Target
		r.OK = r.Ratio >= b.Target
		if b.Of.LessIsBetter() {
			r.OK = r.Ratio <= b.Target
		}
	}
	if b.Allocs >= 0 {
		r.MaxAllocs = &b.Allocs
		r.OK = r.OK && r.Allocs <= b.Allocs
	}
	return r
}

// round rounds allocations to hundredths, so that one of the runtime's own among thousands of operations is none of ours.
func round(v float64) float64 { return float64(int64(v*100+0.5)) / 100 }

// failure is how Check leaves a measured function, whose shape has no room for errors.
type failure struct{ err error }

// Check ends what Run or Guard runs, if there is an error.
func Check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// Must is Check for a function with a result.
func Must[T any](v T, err error) T {
	Check(err)
	return v
}

// Guard returns the error that Check ended f with.
func Guard(f func()) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case failure:
			err = v.err
		default:
			panic(v)
		}
	}()
	f()
	return nil
}
