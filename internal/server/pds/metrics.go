package pds

import "github.com/barograph/baro/internal/figures"

// Metrics writes the server's figures down.
func (s *Service) Metrics(w *figures.Writer) {
	w.Gauge("stream_consumers", "Connections to the stream.", float64(s.streams.Subscribers()))
	s.engine.mu.Lock()
	open := len(s.engine.open)
	s.engine.mu.Unlock()
	w.Gauge("open_repos", "Repositories in memory.", float64(open))
	w.Gauge("exports", "Repositories that are being downloaded.", float64(len(s.exports)))
	w.Gauge("imports", "Repositories that are being uploaded.", float64(len(s.imports)))
	s.accounts.outbox.metrics(w)
	s.log.Metrics(w)
}
