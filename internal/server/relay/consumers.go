package relay

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/stream"
)

// consumers are those who listen to the stream now.
type consumers struct {
	clock   world.Clock
	proxies []netip.Prefix

	mu   sync.Mutex
	last uint64
	all  map[*http.Request]listener
}

type listener struct {
	id       uint64
	since    time.Time
	progress *stream.Progress
}

// Consumer is a connection to the relay's stream.
type Consumer struct {
	ID             uint64    `json:"id"`
	RemoteAddr     string    `json:"remote_addr"`
	UserAgent      string    `json:"user_agent"`
	EventsConsumed int64     `json:"events_consumed"` // since it connected
	ConnectedAt    time.Time `json:"connected_at"`
	LastSeq        int64     `json:"last_seq"` // number of the last event it was sent; 0: none yet
}

func (c *consumers) open(r *http.Request, p *stream.Progress) {
	now := c.clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.all[r] = listener{c.last, now, p}
}

func (c *consumers) close(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, r)
}

// list is in the order in which they came.
func (c *consumers) list() []Consumer {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Consumer, 0, len(c.all))
	for r, l := range c.all {
		addr := r.RemoteAddr
		if a := httpd.ClientAddr(r, c.proxies); a.IsValid() && len(c.proxies) > 0 {
			addr = a.String()
		}
		out = append(out, Consumer{l.id, addr, r.UserAgent(), l.progress.Sent(), l.since, l.progress.Last()})
	}
	slices.SortFunc(out, func(a, b Consumer) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
