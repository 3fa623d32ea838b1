package relay

import (
	"github.com/barograph/baro/internal/figures"
)

// Metrics writes the relay's figures down.
func (s *Service) Metrics(w *figures.Writer) {
	st := s.Status()
	w.Counter("events_received_total", "Events that hosts have sent.", float64(st.Received))
	w.Counter("events_accepted_total", "Events that were verified and passed on.", float64(st.Accepted))
	w.Counter("resyncs_total", "Accounts whose broken chain was taken up again.", float64(st.Resynced))
	for reason, n := range st.Drops {
		w.Counter("events_dropped_total", "Events that were not passed on, by the rule that they break.", float64(n), "reason", reason)
	}
	status := map[string]int{statusActive: 0, statusIdle: 0, statusGone: 0, statusBanned: 0}
	var accounts int64
	for _, h := range s.hostList() {
		h := h.status()
		status[*h.Status]++
		accounts += *h.AccountCount
	}
	for name, n := range status {
		w.Gauge("hosts", "Hosts by status.", float64(n), "status", name)
	}
	w.Gauge("accounts", "Accounts of all hosts.", float64(accounts))
	lag := int64(0)
	list := s.consumers.list()
	for _, c := range list {
		if c.LastSeq > 0 {
			lag = max(lag, st.Head-c.LastSeq)
		}
	}
	w.Gauge("consumers", "Connections to the stream.", float64(len(list)))
	w.Gauge("consumer_lag_max", "Events that the slowest consumer has still to get.", float64(lag))
	w.Gauge("resyncing", "Accounts whose newest commit is being fetched.", float64(max(0, s.resyncing.Load())))
	s.log.Metrics(w)
}
