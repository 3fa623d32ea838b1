package eventlog

import "github.com/barograph/baro/internal/figures"

// Metrics writes the figures of a log down, in the name of the service that it belongs to.
func (l *Log) Metrics(w *figures.Writer) {
	st := l.Stats()
	w.Gauge("log_head", "Number of the newest event.", float64(st.Head))
	w.Gauge("log_floor", "Number of the oldest event that is kept.", float64(st.Floor))
	w.Gauge("log_bytes", "Bytes of the events that are kept.", float64(st.Bytes))
	w.Counter("log_transactions_total", "Transactions since the start: commits and other changes.", float64(st.Txs))
	w.Counter("log_syncs_total", "Writes to the disk that those have shared.", float64(st.Groups))
}
