package relay

import (
	"maps"
	"sync"
	"sync/atomic"
)

// stats counts what happens to events.
type stats struct {
	received atomic.Uint64
	accepted atomic.Uint64
	resynced atomic.Uint64

	mu    sync.Mutex
	drops map[string]uint64
}

func (s *stats) init() { s.drops = map[string]uint64{} }

func (s *stats) drop(reason string) {
	s.mu.Lock()
	s.drops[reason]++
	s.mu.Unlock()
}

// Status is what the relay has done since it was started.
type Status struct {
	Head        int64             `json:"head"`
	Floor       int64             `json:"floor"`
	Received    uint64            `json:"received"`
	Accepted    uint64            `json:"accepted"`
	Resynced    uint64            `json:"resynced"`
	Drops       map[string]uint64 `json:"drops"`
	Subscribers int               `json:"subscribers"`
	Hosts       []HostStatus      `json:"hosts"`
}

// HostStatus is how it stands with a host.
type HostStatus struct {
	Host      string `json:"host"`
	Cursor    int64  `json:"cursor"` // every event up to it was dealt with
	Accounts  int64  `json:"accounts"`
	Events    uint64 `json:"events"` // since the start
	Connected bool   `json:"connected"`
	Problem   string `json:"problem,omitempty"`
}

// Status reports on the relay.
func (s *Service) Status() Status {
	st := Status{
		Head: s.log.Head(), Floor: s.log.Floor(), Subscribers: s.streams.Subscribers(),
		Received: s.stats.received.Load(), Accepted: s.stats.accepted.Load(), Resynced: s.stats.resynced.Load(),
	}
	s.stats.mu.Lock()
	st.Drops = maps.Clone(s.stats.drops)
	s.stats.mu.Unlock()
	for _, h := range s.hostList() {
		h.mu.Lock()
		st.Hosts = append(st.Hosts, HostStatus{h.name, h.done, h.row.Accounts, h.events, h.connected, h.row.Problem})
		h.mu.Unlock()
	}
	return st
}
