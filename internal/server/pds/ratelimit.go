package pds

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// limitRule allows a number of calls, or of points that calls cost, in a window that begins with the first of them.
type limitRule struct {
	calls  int
	window time.Duration
}

// Limits per name; the defaults of the network. Callers are counted under an address, an account, or both.
var limitRules = map[string][]limitRule{
	"passwords":       {{30, 5 * time.Minute}, {300, 24 * time.Hour}}, // wrong ones, for one account from one address
	"signIns":         {{600, 5 * time.Minute}},                       // of one address, whoever it tries to be
	"createAccount":   {{100, 5 * time.Minute}},
	"updateHandle":    {{10, 5 * time.Minute}, {50, 24 * time.Hour}},
	"refreshIdentity": {{60, 5 * time.Minute}},
	"resolveLexicon":  {{300, 5 * time.Minute}},
	"mail":            {{5, time.Hour}, {15, 24 * time.Hour}},  // of one kind, to one account
	"resetMails":      {{20, time.Hour}, {60, 24 * time.Hour}}, // to one account, whoever asks
	"forgotten":       {{15, time.Hour}, {50, 24 * time.Hour}},
	"resetPassword":   {{50, 5 * time.Minute}},
	"tokens":          {{50, 5 * time.Minute}}, // tries to use one
	"appPasswords":    {{60, time.Hour}},
	"admin":           {{600, 5 * time.Minute}},
	"adminGuesses":    {{20, 5 * time.Minute}, {200, 24 * time.Hour}}, // wrong ones, from one address

	"requests": {{3000, 5 * time.Minute}}, // of one address, of any kind but for
	"exports":  {{6000, 5 * time.Minute}}, // getRepo
	"writes":   {{5000, time.Hour}, {35000, 24 * time.Hour}},
	"uploads":  {{1000, 24 * time.Hour}},
}

// What a write costs, of an account's points for writes.
const (
	createPoints = 3
	putPoints    = 2
	deletePoints = 1
)

// relaxed is how many times more a caller on this machine may do with RelaxLoopback.
const relaxed = 100

// maxLimitKeys bounds the counters kept. When there are more, the ones that ended are swept, and then some of the others go.
const maxLimitKeys = 1 << 16

// maxLimitName is how much of a name that a caller gives makes a counter's name.
const maxLimitName = 256

type limitKey struct {
	name string
	rule int
	who  string
}

type limitCount struct {
	calls int
	ends  time.Time
}

// limits counts calls. Counters are in memory: a restart forgives.
type limits struct {
	mu     sync.Mutex
	counts map[limitKey]*limitCount
}

func (s *Service) openLimits() {
	s.accounts.limits.counts = map[limitKey]*limitCount{}
	s.accounts.traffic.counts = map[limitKey]*limitCount{}
}

// throttle counts a request of any kind by its address, and answers it when there were too many.
func (s *Service) throttle(w http.ResponseWriter, r *http.Request, nsid string) bool {
	addr := s.clientAddr(r)
	if nsid == "_health" || s.unlimited(addr) {
		return false
	}
	name := "requests"
	if nsid == "com.atproto.sync.getRepo" {
		name = "exports"
	}
	err := s.accounts.traffic.count(s.world.Clock.Now(), w.Header(), name, httpd.ClientKey(addr), 1, 1)
	if err == nil {
		return false
	}
	if (addr.IsLoopback() || addr.IsPrivate()) && r.Header.Get("X-Forwarded-For") != "" {
		s.world.Log.Warn("a proxy's requests are limited as if they were one caller's: make it a trusted proxy", "address", addr.String())
	}
	xrpc.WriteError(w, r, err)
	return true
}

// limitAccount counts what an account does, by points.
func (s *Service) limitAccount(r *http.Request, h http.Header, name string, did syntax.DID, points int) error {
	if s.unlimited(s.clientAddr(r)) {
		return nil
	}
	return s.accounts.traffic.count(s.world.Clock.Now(), h, name, string(did), points, 1)
}

// unlimited says whether a caller is on this machine and may do as much as it likes, but for guessing passwords.
func (s *Service) unlimited(addr netip.Addr) bool {
	return s.cfg.Accounts.RelaxLoopback && addr.IsLoopback()
}

// limit counts one call of r under a name, an account (or whatever else the rule counts by; may be empty) and the caller's address. It
// refuses the call with RateLimitExceeded when there were too many. The answer's RateLimit-* headers tell in any case.
func (s *Service) limit(r *xrpc.Request, name, account string) error {
	return s.count(r.Request, r.Out, name, account+" "+httpd.ClientKey(s.clientAddr(r.Request)))
}

// limitBy is limit by an account alone, from wherever it calls.
func (s *Service) limitBy(r *xrpc.Request, name, who string) error {
	return s.count(r.Request, r.Out, name, who)
}

func (s *Service) count(r *http.Request, h http.Header, name, who string) error {
	_, err := s.take(r, h, name, who)
	return err
}

func (s *Service) take(r *http.Request, h http.Header, name, who string) (giveBack func(), err error) {
	generosity := 1
	if s.unlimited(s.clientAddr(r)) {
		generosity = relaxed
	}
	return s.accounts.limits.take(s.world.Clock.Now(), h, name, who, 1, generosity)
}

// count takes points from the rules of a name, or refuses and takes none.
func (l *limits) count(now time.Time, h http.Header, name, who string, points, generosity int) error {
	_, err := l.take(now, h, name, who, points, generosity)
	return err
}

// take is count for what only costs points when it fails: giveBack returns them, and tells so in h. The points are taken before it is
// known how the call ends, so that calls at the same time never are more than the rules allow.
func (l *limits) take(now time.Time, h http.Header, name, who string, points, generosity int) (giveBack func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The rule that leaves the least is the one that is told.
	var tightest *limitCount
	var told limitRule
	left := 0
	rules := limitRules[name]
	var counters [2]*limitCount
	for i, rule := range rules {
		rule.calls *= generosity
		k := limitKey{name, i, who}
		c := l.counts[k]
		if c == nil || !now.Before(c.ends) {
			l.makeRoom(now)
			c = &limitCount{ends: now.Add(rule.window)}
			l.counts[k] = c
		}
		counters[i] = c
		if rest := rule.calls - c.calls - points; tightest == nil || rest < left {
			tightest, told, left = c, rule, rest
		}
	}
	if tightest == nil {
		return func() {}, nil
	}
	refused := left < 0
	if refused {
		left += points
	} else {
		for _, c := range counters[:len(rules)] {
			c.calls += points
		}
	}
	h.Set("RateLimit-Limit", strconv.Itoa(told.calls))
	h.Set("RateLimit-Remaining", strconv.Itoa(max(left, 0)))
	h.Set("RateLimit-Reset", strconv.FormatInt(tightest.ends.Unix(), 10))
	h.Set("RateLimit-Policy", strconv.Itoa(told.calls)+";w="+strconv.Itoa(int(told.window/time.Second)))
	if !refused {
		return sync.OnceFunc(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, c := range counters[:len(rules)] { // of the window in which the points were taken, which may have ended
				c.calls -= points
			}
			h.Set("RateLimit-Remaining", strconv.Itoa(max(left+points, 0)))
		}), nil
	}
	wait := max(int64(tightest.ends.Sub(now)/time.Second)+1, 1)
	e := refuse(http.StatusTooManyRequests, "RateLimitExceeded", "too many requests: try again in %d seconds", wait)
	e.Header = h.Clone()
	e.Header.Set("Retry-After", strconv.FormatInt(wait, 10))
	return nil, e
}

// guess counts a try to enter the password of an account (its DID, or whatever name was given for one that isn't here) before the password
// is looked at, and together with all other tries from the same address; of an account's three names each counts for all. The caller gives
// the try back when it was none: the password was right, or was never looked at.
//
// Counting by account and address means that a stranger elsewhere can't keep the owner out by guessing.
func (s *Service) guess(r *xrpc.Request, who string) (giveBack func(), err error) {
	if err := s.limit(r, "signIns", ""); err != nil {
		return nil, err
	}
	if len(who) > maxLimitName {
		who = who[:maxLimitName]
	}
	return s.take(r.Request, r.Out, "passwords", who+" "+httpd.ClientKey(s.clientAddr(r.Request)))
}

func (l *limits) makeRoom(now time.Time) {
	if len(l.counts) < maxLimitKeys {
		return
	}
	for k, c := range l.counts {
		if !now.Before(c.ends) {
			delete(l.counts, k)
		}
	}
	for k := range l.counts { // many at once, so that a flood of names doesn't make each call go through them all
		if len(l.counts) <= maxLimitKeys*15/16 {
			break
		}
		delete(l.counts, k)
	}
}

// clientAddr is the address a request comes from.
func (s *Service) clientAddr(r *http.Request) netip.Addr {
	return httpd.ClientAddr(r, s.cfg.Accounts.TrustedProxies)
}
