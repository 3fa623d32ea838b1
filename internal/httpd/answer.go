package httpd

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// WriteError answers with an XRPC error (https://atproto.com/specs/xrpc#error-responses).
func WriteError(w http.ResponseWriter, status int, name, message string) {
	body, err := json.Marshal(struct {
		Error   string `json:"error"`
		Message string `json:"message,omitempty"`
	}{name, message})
	if err != nil { // two strings always marshal
		body = []byte(`{"error":"InternalServerError"}`)
	}
	h := w.Header()
	h.Del("Content-Length") // of the answer that did not come about
	h.Del("Content-Encoding")
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// Hijack implements [http.Hijacker].
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.begun, w.status = true, http.StatusSwitchingProtocols
	}
	return c, rw, err
}

// stack is the stack of a panic, as far as a log line should hold it.
func stack() string {
	s := debug.Stack()
	return string(s[:min(len(s), 8<<10)])
}

// Debug is the handler of a debug port: /metrics of the gatherer (nil: the default one) and /debug/pprof/. It tells much
// about the process, so it belongs on a loopback address.
func Debug(g prometheus.Gatherer) http.Handler {
	if g == nil {
		g = prometheus.DefaultGatherer
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

var (
	_ http.Hijacker = (*response)(nil)
	_ http.Flusher  = (*response)(nil)
)
