package links

import out "github.com/barograph/baro/internal/figures"

// Metrics writes the index's figures down.
func (s *Service) Metrics(w *out.Writer) {
	st, err := s.Status()
	if err != nil {
		return // it is closing
	}
	running := 0.0
	if st.Running {
		running = 1
	}
	w.Gauge("running", "1 if the index follows its relay.", running)
	w.Gauge("lag_seconds", "How far the index is behind its relay.", float64(st.LagMS)/1000)
	w.Gauge("records", "Records that link to something.", float64(st.Records))
	w.Gauge("links", "Links.", float64(st.Links))
	w.Gauge("targets", "Pairs of a target and a source.", float64(st.Targets))
	w.Gauge("accounts", "Accounts with such records.", float64(st.DIDs))
}
