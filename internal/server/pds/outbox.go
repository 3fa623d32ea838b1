package pds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/figures"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/syntax"
)

// A mail is written down, sealed, in the batch of the code that it carries, and goes out at once. When it doesn't get off, for a reason that may
// pass, it is tried again until its code is worth nothing any more. A mail that a crash leaves undecided goes out once more after the next
// start: twice is better than never.

const (
	maxOutbox    = 1000
	outboxPause  = 15 * time.Second // before the second try; doubled for each further one
	outboxLonger = 5 * time.Minute  // no pause is longer
	// noticeLife is how long a mail without a code is tried.
	noticeLife = 24 * time.Hour
)

// outboxRow is a mail on its way.
type outboxRow struct {
	mailer.Message
	Expires time.Time `json:"expires"`
}

// waiting is a mail on its way, without its text.
type waiting struct {
	expires, next time.Time
	tries         int
	busy          bool // somebody is sending it
}

// outbox is what waits, by the account and the purpose. A newer mail of the same purpose takes the place of an older one.
type outbox struct {
	mu   sync.Mutex
	of   map[string]*waiting
	wake chan struct{}

	sent, delayed, refused, expired int // since the start
}

func outboxName(did syntax.DID, purpose string) string { return string(did) + "/" + purpose }

func (s *Service) openOutbox() error {
	o := &s.accounts.outbox
	o.of, o.wake = map[string]*waiting{}, make(chan struct{}, 1)
	lo := []byte(rowOutbox)
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	for ok := it.First(); ok; ok = it.Next() {
		name := string(it.Key()[len(lo):])
		row, err := s.openMail(name, it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		o.of[name] = &waiting{expires: row.Expires, next: s.world.Clock.Now()}
	}
	return errors.Join(it.Err(), it.Close())
}

func (s *Service) openMail(name string, sealed []byte) (*outboxRow, error) {
	text, err := s.accounts.secrets.open(sealed, "mail "+name)
	if err != nil {
		return nil, fmt.Errorf("mail %s: %w", name, err)
	}
	row := new(outboxRow)
	if err := json.Unmarshal(text, row); err != nil {
		return nil, fmt.Errorf("mail %s: %w", name, errCorrupt)
	}
	return row, nil
}

// add makes room for a mail that its maker is about to send; false when there is none.
func (o *outbox) add(name string, expires time.Time) (*waiting, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := &waiting{expires: expires, busy: true}
	if o.of[name] == nil && len(o.of) >= maxOutbox {
		return w, false
	}
	o.of[name] = w
	return w, true
}

// addressOf is where mails to an account go.
func addressOf(a *account) string {
	if a.Email == "" {
		return string(a.Handle)
	}
	return a.Email
}

// send writes a mail down, in one batch with the rows that belong to it, and tries to send it. sent is false without an error when it will be
// tried again. Purposes that have a code are those of tokens.
func (s *Service) send(ctx context.Context, a *account, purpose string, m *mailer.Message, life time.Duration, rows func(kv.Batch)) (sent bool, err error) {
	name := outboxName(a.DID, purpose)
	m.To = addressOf(a)
	row := outboxRow{*m, s.world.Clock.Now().Add(life)}
	text, err := json.Marshal(row)
	if err != nil {
		return false, err
	}
	sealed := s.accounts.secrets.seal(text, "mail "+name)
	o := &s.accounts.outbox
	unlock := s.accounts.confirming.lock(name)
	w, kept := o.add(name, row.Expires)
	err = s.write(ctx, func(b kv.Batch) {
		if kept {
			b.Set([]byte(rowOutbox+name), sealed)
		}
		if rows != nil {
			rows(b)
		}
	})
	unlock()
	if err != nil {
		return false, err
	}
	crashpoint.Hit("pds/mail/written")
	err = s.cfg.Mail.Send(ctx, m)
	crashpoint.Hit("pds/mail/sent")
	refused := (*mailer.Error)(nil)
	switch {
	case err == nil:
		return true, s.leaveOutbox(name, w, kept, &o.sent)
	case errors.As(err, &refused) && refused.Permanent:
		s.world.Log.Error("a mail could not be sent", "did", string(a.DID), "purpose", m.Purpose, "err", err)
		if err := s.leaveOutbox(name, w, kept, &o.refused); err != nil {
			return false, err
		}
		return false, refuse(http.StatusBadRequest, "InvalidRequest", "the mail server does not take mails to this address")
	case !kept:
		s.world.Log.Error("a mail could not be sent, and too many are waiting already", "did", string(a.DID), "purpose", m.Purpose, "err", err)
		return false, refuse(http.StatusBadGateway, "UpstreamFailure", "the mail can't be sent now: try again later")
	}
	s.delay(name, w, err)
	return false, nil
}

// leaveOutbox takes a mail out that was sent or never will be, and counts it.
func (s *Service) leaveOutbox(name string, w *waiting, kept bool, count *int) error {
	o := &s.accounts.outbox
	defer s.accounts.confirming.lock(name)()
	o.mu.Lock()
	*count++
	mine := kept && o.of[name] == w
	if mine {
		delete(o.of, name)
	}
	o.mu.Unlock()
	if !mine {
		return nil // a newer one is there, or it has gone with its account
	}
	return s.write(s.running, func(b kv.Batch) { b.Delete([]byte(rowOutbox + name)) })
}

// delay lets a mail wait for its next try.
func (s *Service) delay(name string, w *waiting, err error) {
	o := &s.accounts.outbox
	o.mu.Lock()
	pause := min(outboxPause<<min(w.tries, 10), outboxLonger)
	w.tries++
	w.next, w.busy = s.world.Clock.Now().Add(pause), false
	if w.tries == 1 {
		o.delayed++
	}
	tries := w.tries
	o.mu.Unlock()
	did, purpose, _ := strings.Cut(name, "/")
	s.world.Log.Warn("a mail could not be sent, and is tried again", "did", did, "purpose", purpose, "tries", tries, "again", pause.String(), "err", err)
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// runOutbox sends what waits, until ctx is done.
func (s *Service) runOutbox(ctx context.Context) {
	o := &s.accounts.outbox
	for ctx.Err() == nil {
		name, w, next := o.due(s.world.Clock.Now())
		if w != nil {
			if err := s.sendWaiting(ctx, name, w); err != nil && ctx.Err() == nil {
				s.world.Log.Error("sending a mail that waits", "err", err)
			}
			continue
		}
		if next.IsZero() {
			select {
			case <-ctx.Done():
			case <-o.wake:
			}
			continue
		}
		t := s.world.Clock.NewTimer(min(max(next.Sub(s.world.Clock.Now()), 0), chorePause))
		select {
		case <-ctx.Done():
		case <-o.wake:
		case <-t.C():
		}
		t.Stop()
	}
}

// due takes the mail that has waited longest for its turn; without one, next is when there will be one, or zero.
func (o *outbox) due(now time.Time) (name string, w *waiting, next time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, x := range o.of {
		if !x.busy && (next.IsZero() || x.next.Before(next)) {
			name, w, next = n, x, x.next
		}
	}
	if w == nil || next.After(now) {
		return "", nil, next
	}
	w.busy = true
	return name, w, next
}

// sendWaiting tries a mail again, unless nobody has use for it any more.
func (s *Service) sendWaiting(ctx context.Context, name string, w *waiting) error {
	o := &s.accounts.outbox
	row, err := s.waitingMail(name)
	if err != nil {
		s.delay(name, w, err)
		return err
	}
	if row == nil || !s.world.Clock.Now().Before(w.expires) {
		s.world.Log.Error("a mail was never sent, and is dropped: its code has expired, was used, or went to another address", "mail", name, "tries", w.tries)
		return s.leaveOutbox(name, w, true, &o.expired)
	}
	err = s.cfg.Mail.Send(ctx, &row.Message)
	refused := (*mailer.Error)(nil)
	switch {
	case err == nil:
		return s.leaveOutbox(name, w, true, &o.sent)
	case errors.As(err, &refused) && refused.Permanent:
		s.world.Log.Error("a mail could not be sent", "mail", name, "err", err)
		return s.leaveOutbox(name, w, true, &o.refused)
	}
	s.delay(name, w, err)
	return nil
}

// waitingMail reads a mail that waits; nil when it is about what is no longer so.
func (s *Service) waitingMail(name string) (*outboxRow, error) {
	sealed, err := s.store.Get([]byte(rowOutbox + name))
	if errors.Is(err, kv.ErrNotFound) || s.cfg.Mail == nil && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	row, err := s.openMail(name, sealed)
	if err != nil {
		return nil, err
	}
	did, purpose, _ := strings.Cut(name, "/")
	a, err := s.account(syntax.DID(did))
	if errors.Is(err, errNoAccount) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if addressOf(a) != row.To {
		return nil, nil
	}
	if row.Code != "" {
		if there, err := exists(s.store, string(tokenKey(a.DID, purpose))); err != nil || !there {
			return nil, err
		}
	}
	return row, nil
}

// metrics writes the figures of the outbox down.
func (o *outbox) metrics(w *figures.Writer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w.Gauge("mails_waiting", "Mails that are written down and not sent yet.", float64(len(o.of)))
	const total, help = "mails_total", "What became of mails since the start."
	w.Counter(total, help, float64(o.sent), "outcome", "sent")
	w.Counter(total, help, float64(o.refused), "outcome", "refused")
	w.Counter(total, help, float64(o.expired), "outcome", "expired")
	w.Counter("mails_delayed_total", "Mails that did not get off at the first try.", float64(o.delayed))
}
