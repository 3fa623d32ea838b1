// Package figures tells the figures of a service to Prometheus, read when they are asked for.
//
// It has no specification page; the exposition format is https://prometheus.io/docs/instrumenting/exposition_formats/. A service that
// keeps figures anyway needs no second set of counters: it writes down those that it has. The package keeps nothing and serves nothing:
// internal/httpd has the debug port.
//
//	reg.MustRegister(figures.New("relay", svc.Metrics))
//
//	func (s *Service) Metrics(w *figures.Writer) {
//		w.Counter("events_received_total", "Events that hosts have sent.", float64(s.received.Load()))
//		w.Gauge("hosts", "Hosts by status.", float64(n), "status", "active")
//	}
//
// Limits: figures of one name have the same labels, in the same order.
package figures

import "github.com/prometheus/client_golang/prometheus"

// Writer takes figures down. Their names get "baro_" and the name of the service in front.
type Writer struct {
	prefix string
	ch     chan<- prometheus.Metric
}

// Counter writes a figure that only grows while the process runs; labels are names and values in turn.
func (w *Writer) Counter(name, help string, value float64, labels ...string) {
	w.write(prometheus.CounterValue, name, help, value, labels)
}

// Gauge writes a figure that goes up and down.
func (w *Writer) Gauge(name, help string, value float64, labels ...string) {
	w.write(prometheus.GaugeValue, name, help, value, labels)
}

func (w *Writer) write(typ prometheus.ValueType, name, help string, value float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	m, err := prometheus.NewConstMetric(prometheus.NewDesc(w.prefix+name, help, names, nil), typ, value, values...)
	if err != nil {
		m = prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
	}
	w.ch <- m
}

// New returns a collector of the figures that write knows, for one service of a process.
func New(service string, write func(*Writer)) prometheus.Collector {
	return collector{"baro_" + service + "_", write}
}

type collector struct {
	prefix string
	write  func(*Writer)
}

// Describe tells nothing: which figures there are, such as those by reason, is known only when they are read.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the figures.
func (c collector) Collect(ch chan<- prometheus.Metric) { c.write(&Writer{c.prefix, ch}) }
