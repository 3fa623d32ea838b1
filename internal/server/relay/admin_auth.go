package relay

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/xrpc"
)

// Failed attempts that one address has at the administration: a burst, and one more for each interval. An address that has
// used them up is not listened to until there is one again, whatever it sends: otherwise it could go on guessing.
const (
	adminBurst   = 10
	adminEvery   = 10 * time.Second
	adminClients = 4096 // addresses that are counted at once
)

// doorkeeper checks the credentials of the operator.
type doorkeeper struct {
	password, token [32]byte // digests; the zero value lets nobody in
	clock           world.Clock
	origins         http.CrossOriginProtection

	mu       sync.Mutex
	attempts map[string]*rate.Limiter
}

func newDoorkeeper(cfg Config, clock world.Clock) *doorkeeper {
	d := &doorkeeper{clock: clock, attempts: map[string]*rate.Limiter{}}
	// Compared as digests, so that neither content nor length shows in the time it takes.
	if cfg.AdminPassword != "" {
		d.password = sha256.Sum256([]byte("admin:" + cfg.AdminPassword))
	}
	if cfg.AdminToken != "" {
		d.token = sha256.Sum256([]byte(cfg.AdminToken))
	}
	return d
}

// open says whether anybody can be let in.
func (d *doorkeeper) open() bool { return d.password != [32]byte{} || d.token != [32]byte{} }

func (d *doorkeeper) right(r *http.Request) bool {
	got, want := [32]byte{}, [32]byte{}
	if user, password, ok := r.BasicAuth(); ok {
		got, want = sha256.Sum256([]byte(user+":"+password)), d.password
	} else if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		got, want = sha256.Sum256([]byte(token)), d.token
	}
	return want != [32]byte{} && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// limiter counts the failures of an address.
func (d *doorkeeper) limiter(client string) *rate.Limiter {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.attempts[client]
	if l == nil {
		if len(d.attempts) >= adminClients {
			d.forget()
		}
		l = rate.NewLimiter(rate.Every(adminEvery), adminBurst)
		d.attempts[client] = l
	}
	return l
}

// forget makes room: those who have all their attempts again need not be remembered. The others are forgotten only when an attacker
// has so many addresses that counting them is no use anyway.
func (d *doorkeeper) forget() {
	now := d.clock.Now()
	for client, l := range d.attempts {
		if l.TokensAt(now) >= adminBurst {
			delete(d.attempts, client)
		}
	}
	if len(d.attempts) >= adminClients {
		clear(d.attempts)
	}
}

// check returns nil for the operator, and for everybody else the answer.
func (d *doorkeeper) check(s *Service, r *http.Request) error {
	if !d.open() {
		return (&xrpc.Error{Status: http.StatusNotFound, Name: "AdminDisabled", Message: "this relay has no administration over HTTP: its operator has set no credentials"})
	}
	// A browser that knows the password would send it along with what the page of a stranger makes it do.
	if err := d.origins.Check(r); err != nil {
		return &xrpc.Error{Status: http.StatusForbidden, Name: "Forbidden", Message: "admin requests don't come from pages of other origins"}
	}
	addr := httpd.ClientAddr(r, s.cfg.TrustedProxies)
	// In the clear the password is anybody's on the way, unless there is no way.
	if r.TLS == nil && !addr.IsLoopback() && !strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		return &xrpc.Error{Status: http.StatusForbidden, Name: "Forbidden", Message: "admin requests need HTTPS, or come from the relay's own machine"}
	}
	now, client := d.clock.Now(), httpd.ClientKey(addr)
	limit := d.limiter(client)
	if have := limit.TokensAt(now); have < 1 {
		wait := time.Duration((1 - have) * float64(adminEvery))
		return &xrpc.Error{Status: http.StatusTooManyRequests, Name: "RateLimitExceeded", Message: "too many failed attempts",
			Header: http.Header{"Retry-After": {strconv.Itoa(int(wait/time.Second) + 1)}}}
	}
	if d.right(r) {
		return nil
	}
	limit.AllowN(now, 1)
	s.w.Log.Warn("admin credentials refused", "path", r.URL.Path, "client", addr)
	return &xrpc.Error{Status: http.StatusUnauthorized, Name: "AuthenticationRequired", Message: "admin credentials are needed",
		Header: http.Header{"Www-Authenticate": {`Basic realm="admin", Bearer`}}}
}
