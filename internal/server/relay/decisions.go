package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// What the operator decides takes effect at once and is on disk before the answer says so. Decisions are made one after another.

// ErrBlocked is wrapped, with [ErrHost], by the errors about hosts that the operator has shut out.
var ErrBlocked = errors.New("the operator of this relay has shut it out")

var (
	errNoAccount = errors.New("no such account is known here")
	errNoHost    = errors.New("no such host is followed here")
)

// settings are what the operator can change while the relay runs, beyond single hosts and accounts.
type settings struct {
	Closed         bool `json:"closed,omitempty"`         // requestCrawl adds no hosts
	NewHostsPerDay *int `json:"newHostsPerDay,omitempty"` // in place of that of the configuration
}

// save makes changes that have no event.
func (s *Service) save(ops func(kv.Batch)) error {
	_, err := s.log.Commit(s.ctx, eventlog.Tx{Ops: ops})
	return err
}

// loadDecisions reads the settings and the domains that are shut out.
func (s *Service) loadDecisions() (err error) {
	switch v, err := s.store.Get([]byte{prefixSettings}); {
	case errors.Is(err, kv.ErrNotFound):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(v, &s.settings); err != nil {
			return fmt.Errorf("the stored settings are damaged: %w", err)
		}
	}
	it := s.store.Iter([]byte{prefixBan}, []byte{prefixBan + 1})
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		s.bans[string(it.Key()[1:])] = true
	}
	return it.Err()
}

// changeSettings stores what change makes of the settings.
func (s *Service) changeSettings(change func(*settings)) error {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	s.mu.Lock()
	change(&s.settings)
	b, err := json.Marshal(s.settings)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.save(func(batch kv.Batch) { batch.Set([]byte{prefixSettings}, b) })
}

// newHostsPerDay is how many hosts may ask to be added in a day. The caller holds s.mu.
func (s *Service) newHostsPerDay() int {
	if s.settings.NewHostsPerDay != nil {
		return *s.settings.NewHostsPerDay
	}
	return s.cfg.NewHostsPerDay
}

// bannedBy is the domain that shuts a host out, the host's own name or one above it, or "". The caller holds s.mu.
func (s *Service) bannedBy(name string) string {
	name, _, _ = strings.Cut(name, ":")
	for d := name; d != ""; _, d, _ = strings.Cut(d, ".") {
		if s.bans[d] {
			return d
		}
	}
	return ""
}

// judge brings the subscription of a host into line with what was decided about it: a host that is shut out is left, and its
// stream has ended when judge returns; another is followed. The decisions themselves are stored by the caller.
func (s *Service) judge(ctx context.Context, h *host) error {
	s.mu.Lock()
	h.mu.Lock()
	h.stopped = h.row.Blocked || s.bannedBy(h.name) != ""
	stopped, cancel, ended := h.stopped, h.cancel, h.ended
	h.mu.Unlock()
	if !stopped {
		if s.running {
			s.follow(h)
		}
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	return leave(ctx, cancel, ended)
}

// leave ends a subscription and waits for that.
func leave(ctx context.Context, cancel context.CancelFunc, ended <-chan struct{}) error {
	if cancel == nil {
		return nil
	}
	cancel()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hostByName finds a host by its name or origin.
func (s *Service) hostByName(spec string) (*host, error) {
	name, _, err := parseHost(strings.TrimSpace(spec), true)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[name]; h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("%w: %s", errNoHost, name)
}

// block shuts a host out, or lets it in again.
func (s *Service) block(ctx context.Context, spec string, blocked bool) error {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	h, err := s.hostByName(spec)
	if err != nil {
		return err
	}
	if err := s.change(h, func(r *hostRow) { r.Blocked = blocked }); err != nil {
		return err
	}
	return s.judge(ctx, h)
}

// limit bounds the accounts of a host.
func (s *Service) limit(spec string, accounts int64) error {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	h, err := s.hostByName(spec)
	if err != nil {
		return err
	}
	return s.change(h, func(r *hostRow) { r.Limit = &accounts })
}

// change changes the row of a host and stores it.
func (s *Service) change(h *host, f func(*hostRow)) error {
	h.mu.Lock()
	f(&h.row)
	h.mu.Unlock()
	return s.save(func(b kv.Batch) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.put(b)
	})
}

// drop ends the connection to a host, which is made anew.
func (s *Service) reconnect(ctx context.Context, spec string) error {
	h, err := s.hostByName(spec)
	if err != nil {
		return err
	}
	h.mu.Lock()
	cancel, ended := h.cancel, h.ended
	h.mu.Unlock()
	if err := leave(ctx, cancel, ended); err != nil {
		return err
	}
	return s.judge(ctx, h)
}

// admit adds a host in the name of the operator: the rules for names and the number of new hosts don't bind it.
func (s *Service) admit(spec string) error {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	_, err := s.addHost(spec, byOperator)
	return err
}

// ban shuts out all hosts of a domain, itself included, or lets them in again.
func (s *Service) ban(ctx context.Context, domain string, banned bool) error {
	domain = strings.ToLower(strings.Trim(strings.TrimSpace(domain), "."))
	if name, _, err := parseHost(domain, true); err != nil || name != domain || strings.Contains(name, ":") {
		return fmt.Errorf("%w: %.100q is no domain", ErrHost, domain)
	}
	s.deciding.Lock()
	defer s.deciding.Unlock()
	s.mu.Lock()
	if banned {
		s.bans[domain] = true
	} else {
		delete(s.bans, domain)
	}
	var touched []*host
	for name, h := range s.hosts {
		name, _, _ = strings.Cut(name, ":")
		if name == domain || strings.HasSuffix(name, "."+domain) {
			touched = append(touched, h)
		}
	}
	s.mu.Unlock()
	if err := s.save(func(b kv.Batch) {
		if banned {
			b.Set(key(prefixBan, domain), nil)
		} else {
			b.Delete(key(prefixBan, domain))
		}
	}); err != nil {
		return err
	}
	var errs []error
	for _, h := range touched {
		errs = append(errs, s.judge(ctx, h))
	}
	return errors.Join(errs...)
}

func (s *Service) bannedDomains() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]string, 0, len(s.bans))
	for d := range s.bans {
		list = append(list, d)
	}
	slices.Sort(list)
	return list
}

// ruling is a decision about an account, on its way to the account's worker.
type ruling struct {
	takedown bool
	done     chan<- ruled
}

type ruled struct {
	last *eventlog.Pending // what has to be on disk; nil if everything is
	err  error
}

// takeDown silences an account, or lets it speak again. Every event about it from before is forgotten.
func (s *Service) takeDown(ctx context.Context, did syntax.DID, takedown bool) error {
	done := make(chan ruled, 1)
	select {
	case s.worker(string(did)).in <- task{did: did, ruling: &ruling{takedown, done}}:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return errClosing
	}
	select {
	case r := <-done:
		if r.err != nil || r.last == nil {
			return r.err
		}
		_, err := r.last.Wait(ctx)
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return errClosing
	}
}

// rule carries a ruling out.
func (w *worker) rule(t task, a *cached) {
	takedown := t.ruling.takedown
	switch {
	case !a.known:
		t.ruling.done <- ruled{err: errNoAccount}
		return
	case a.takedown == takedown: // perhaps by a ruling that is not on disk yet
		t.ruling.done <- ruled{last: a.last}
		return
	}
	w.s.mu.Lock()
	t.host = w.s.hosts[a.host]
	w.s.mu.Unlock()
	next := a.account
	next.takedown = takedown
	o := also{ops: func(b kv.Batch) {
		if takedown {
			b.Set(key(prefixTakedown, string(t.did)), nil)
		} else {
			b.Delete(key(prefixTakedown, string(t.did)))
		}
	}}
	frames := []func([]byte, int64) []byte{encode(&stream.Account{DID: string(t.did), Time: w.now(), Active: next.shown() == "", Status: next.shown()})}
	if takedown {
		o.forget = []string{string(t.did)}
	} else {
		// What the account did meanwhile was dropped, and subscribers may have forgotten it: they are told to look again.
		next.desync = a.rev != ""
		frames = append([]func([]byte, int64) []byte{encode(&stream.Identity{DID: string(t.did), Time: w.now()})}, frames...)
	}
	w.passAlso(t, a, next, o, frames...)
	if a.desync && a.status == "" && !takedown && t.host != nil {
		a.mendAfter = w.s.w.Clock.Now()
		w.mend(task{host: t.host, did: t.did}, a)
	}
	t.ruling.done <- ruled{last: a.last}
}

// takedowns lists the accounts that are taken down, after one of them.
func (s *Service) takedowns(after string, limit int) (dids []string, err error) {
	lo := []byte{prefixTakedown}
	if after != "" {
		lo = append(key(prefixTakedown, after), 0)
	}
	it := s.store.Iter(lo, []byte{prefixTakedown + 1})
	defer func() { err = errors.Join(err, it.Close()) }()
	for len(dids) < limit && it.Next() {
		dids = append(dids, string(it.Key()[1:]))
	}
	return dids, it.Err()
}
