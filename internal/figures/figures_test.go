package figures_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/barograph/baro/internal/figures"
)

func text(t *testing.T, write func(*figures.Writer)) string {
	t.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(figures.New("relay", write)); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestWriter(t *testing.T) {
	n := 0.0
	got := text(t, func(w *figures.Writer) {
		n++
		w.Counter("events_total", "Events.", n)
		w.Gauge("hosts", "Hosts.", 2, "status", "active")
		w.Gauge("hosts", "Hosts.", 1, "status", "idle \"\n")
	})
	want := `# HELP baro_relay_events_total Events.
# TYPE baro_relay_events_total counter
baro_relay_events_total 1
# HELP baro_relay_hosts Hosts.
# TYPE baro_relay_hosts gauge
baro_relay_hosts{status="active"} 2
baro_relay_hosts{status="idle \"\n"} 1
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A figure that can't be told is an error of the one who asks, and no panic.
func TestBadName(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(figures.New("relay", func(w *figures.Writer) { w.Gauge("\xff", "Broken.", 1) }))
	if _, err := reg.Gather(); err == nil || !strings.Contains(err.Error(), "valid") {
		t.Errorf("gathering: %v", err)
	}
}
