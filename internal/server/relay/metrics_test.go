package relay_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/barograph/baro/internal/figures"
	"github.com/barograph/baro/internal/server/relay"
	"github.com/barograph/baro/stream"
)

func TestMetrics(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a := n.account(h, 0)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL, "pds.example.com"}})
	f := follow(t, svc, url, 0)
	for range 2 {
		h.say(a.commit())
		f.next()
	}
	h.say(&stream.Account{DID: "did:PLC:x", Time: a.now()})
	eventually(t, "the lie is dropped", func() bool { return svc.Status().Drops["did-syntax"] == 1 })
	reg := prometheus.NewRegistry()
	reg.MustRegister(figures.New("relay", svc.Metrics))
	var w *httptest.ResponseRecorder
	eventually(t, "all that was received counts as sent", func() bool { // a moment after it was written
		w = httptest.NewRecorder()
		promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return strings.Contains(w.Body.String(), "\nbaro_relay_consumer_lag_max 0\n")
	})
	for _, want := range []string{
		"baro_relay_events_received_total 3", "baro_relay_events_accepted_total 2", `baro_relay_events_dropped_total{reason="did-syntax"} 1`,
		`baro_relay_hosts{status="active"} 1`, `baro_relay_hosts{status="banned"} 0`, "baro_relay_accounts 1", "baro_relay_consumers 1", "baro_relay_consumer_lag_max 0", "baro_relay_log_head 2",
	} {
		if !strings.Contains(w.Body.String(), "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, w.Body)
		}
	}
}
