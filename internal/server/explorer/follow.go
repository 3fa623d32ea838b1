package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// RelayStatus is what a relay of Barograph tells of itself at /_status; others don't.
type RelayStatus struct {
	Head        int64             `json:"head"`
	Floor       int64             `json:"floor"`
	Received    int64             `json:"received"`
	Accepted    int64             `json:"accepted"`
	Drops       map[string]uint64 `json:"drops"`
	Subscribers int               `json:"subscribers"`
}

// getJSON fetches a small document that is no method of the protocol.
func (s *Service) getJSON(ctx context.Context, addr string, max int64, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &statusError{resp.StatusCode}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, max+1))
	if err != nil {
		return err
	}
	if int64(len(b)) > max {
		return fmt.Errorf("an answer of more than %d bytes", max)
	}
	return json.Unmarshal(b, v)
}

// statusError is an answer of HTTP that is no success.
type statusError struct{ Status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("status %d %s", e.Status, http.StatusText(e.Status))
}

func (s *Service) relayStatus(ctx context.Context) (*RelayStatus, error) {
	var st RelayStatus
	if err := s.getJSON(ctx, s.cfg.RelayURL+"/_status", 256<<10, &st); err != nil {
		return nil, err
	}
	return &st, nil
}

// follow keeps a subscription to the relay until ctx ends.
func (s *Service) follow(ctx context.Context) {
	wait := 250 * time.Millisecond
	for ctx.Err() == nil {
		err := s.followOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		// The numbers of the relay were reset, it refuses, or it isn't there yet: begin anew, with a new starting point.
		s.tail.setConnected(false, s.upstream(err))
		s.log.Warn("the stream of the relay ended", "err", err)
		if world.Sleep(ctx, s.w.Clock, wait) != nil {
			return
		}
		wait = min(2*wait, 15*time.Second)
	}
}

func (s *Service) followOnce(ctx context.Context) error {
	o := stream.SubscribeOptions{MaxBackoff: 5 * time.Second, OnConnect: func() { s.tail.setConnected(true, "") }}
	o.NetDialContext = s.w.Dialer.DialContext
	o.ReuseBuffer = true
	o.OnDisconnect = func(err error, _ time.Duration) { s.tail.setConnected(false, s.upstream(err)) }
	live := int64(0) // events up to it are of the past
	if s.cfg.Backlog > 0 {
		asked, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		st, err := s.relayStatus(asked)
		cancel()
		var se *statusError
		switch {
		case err == nil:
			o.After = new(max(0, st.Head-s.cfg.Backlog, st.Floor-1))
			live = st.Head
		case !errors.As(err, &se) || se.Status >= 500:
			return err // the relay isn't there, which is no reason to miss what it has
		}
	}
	if last := s.tail.status().Seq; last > 0 && o.After != nil && last <= live {
		o.After = new(max(*o.After, last))
	}
	for f, err := range stream.Subscribe(ctx, s.cfg.RelayURL, o) {
		if err != nil {
			return err
		}
		m, err := f.Message()
		if err != nil || m == nil {
			continue // a newer kind of message, or one that the relay shouldn't have let through
		}
		s.learn(m)
		e, at := eventOf(m)
		if e == nil {
			continue
		}
		if a, ok := s.names.get(e.DID); ok {
			e.Handle = a.Handle
		} else {
			select {
			case s.wanted <- e.DID:
			default: // there is more to do than names
			}
		}
		s.tail.publish(e, at, e.Seq > live)
	}
	return nil
}

// learn forgets what an event says is old.
func (s *Service) learn(m stream.Message) {
	switch m := m.(type) {
	case *stream.Identity, *stream.Account, *stream.Sync:
		did := m.Subject()
		if syntax.ValidDID(did) {
			s.dir.Purge(syntax.DID(did))
		}
		s.names.drop(did)
		s.profiles.drop(did)
		s.audits.drop(did)
	case *stream.Commit:
		for _, op := range m.Ops {
			if op.Path == profilePath {
				s.profiles.drop(m.Repo)
			}
		}
	}
}

// nameWanted looks up the handles of accounts in the tail, one at a time.
func (s *Service) nameWanted(ctx context.Context) {
	for {
		select {
		case did := <-s.wanted:
			if _, ok := s.names.get(did); ok {
				continue
			}
			asked, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
			s.actor(asked, did)
			cancel()
		case <-ctx.Done():
			return
		}
	}
}
