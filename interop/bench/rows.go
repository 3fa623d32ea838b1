package main

import "time"

// measureOf says which costs a row's ratio compares.
type measureOf string

const (
	peerOverOurs  measureOf = "peer/ours"  // how many times faster than the peer: more is better
	floorOverOurs measureOf = "floor/ours" // the share of the floor's speed: more is better
	oursOverFloor measureOf = "ours/floor" // how far above the floor: less is better
	oursOverLimit measureOf = "ours/limit" // of a time that is set: less is better
)

func (m measureOf) lessIsBetter() bool { return m == oursOverFloor || m == oursOverLimit }

// bench is a row before it is measured.
type bench struct {
	name   string
	what   string // in words
	peer   string
	floor  string
	of     measureOf
	target float64 // 0: the row is for information
	limit  time.Duration
	allocs float64 // most allocations allowed per operation, negative for any number
	long   bool    // left out with -short
	setup  func() (ours, peer, floor work)
}

// row is a measured one.
type row struct {
	Name       string    `json:"name"`
	What       string    `json:"what"`
	OursNS     float64   `json:"ours_ns"`
	Peer       string    `json:"peer"`
	PeerNS     *float64  `json:"peer_ns"`
	Floor      string    `json:"floor"`
	FloorNS    *float64  `json:"floor_ns"`
	Allocs     float64   `json:"allocs"`
	PeerAllocs *float64  `json:"peer_allocs"`
	Of         measureOf `json:"ratio_of"`
	Ratio      float64   `json:"ratio"`
	Target     *float64  `json:"target"`
	MaxAllocs  *float64  `json:"max_allocs"`
	OK         bool      `json:"ok"`
	Known      bool      `json:"known,omitempty"` // the shortfall is in known.json
	Why        string    `json:"why,omitempty"`   // … with this reason
}

const (
	indigo    = "indigo"
	fxamacker = "fxamacker/cbor"
)

func run(b bench, rounds int, fill time.Duration) row {
	ours, peer, floor := b.setup()
	c := measure(rounds, fill, ours, peer, floor)
	m := medianOf(c[0])
	r := row{Name: b.name, What: b.what, OursNS: m.ns, Allocs: round(m.allocs), Peer: b.peer, Floor: b.floor, Of: b.of}
	if peer.f != nil {
		p := medianOf(c[1])
		p.allocs = round(p.allocs)
		r.PeerNS, r.PeerAllocs = &p.ns, &p.allocs
	}
	if floor.f != nil {
		r.FloorNS = new(medianOf(c[2]).ns)
	}
	switch b.of {
	case peerOverOurs:
		r.Ratio = ratioOf(c[1], c[0])
	case floorOverOurs:
		r.Ratio = ratioOf(c[2], c[0])
	case oursOverFloor:
		r.Ratio = ratioOf(c[0], c[2])
	case oursOverLimit:
		r.Ratio = m.ns / float64(b.limit)
	}
	r.OK = true
	if b.target > 0 {
		r.Target = &b.target
		r.OK = r.Ratio >= b.target
		if b.of.lessIsBetter() {
			r.OK = r.Ratio <= b.target
		}
	}
	if b.allocs >= 0 {
		r.MaxAllocs = &b.allocs
		r.OK = r.OK && r.Allocs <= b.allocs
	}
	return r
}

// round rounds allocations to hundredths, so that one of the runtime's own among thousands of operations is none of ours.
func round(v float64) float64 { return float64(int64(v*100+0.5)) / 100 }

// each makes work of a function over a list.
func each[T any](list []T, f func(T)) work {
	return work{ops: len(list), f: func() {
		for i := range list {
			f(list[i])
		}
	}}
}
