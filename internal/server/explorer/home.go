package explorer

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/syntax"
)

// HomePage is the overview.
type HomePage struct {
	Notices  []Notice     `json:"notices,omitempty"`
	Tail     TailStatus   `json:"tail"`
	Fast     Chart        `json:"fiveMinutes"`
	Slow     Chart        `json:"threeDays"`
	Relay    *RelayStatus `json:"relay,omitempty"`
	Dropped  int64        `json:"dropped"` // events that the relay refused
	Drops    []Drop       `json:"drops,omitempty"`
	Hosts    []Host       `json:"hosts"`
	Accounts int64        `json:"accounts"`
	More     bool         `json:"more"` // there are more accounts than were counted
	Sample   []Actor      `json:"sample"`
	Links    *LinkStats   `json:"links,omitempty"`
	Live     LiveList     `json:"live"`
	RelayURL string       `json:"relayURL"`
}

// Drop is a reason for which the relay refused events.
type Drop struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// Host is a PDS that the relay follows.
type Host struct {
	Name     string `json:"host"`
	Status   string `json:"status"`
	Accounts int64  `json:"accounts"`
	Seq      int64  `json:"seq"`
}

// LinkStats is what the link index tells of itself.
type LinkStats struct {
	DIDs    int64 `json:"dids"`
	Targets int64 `json:"targetables"`
	Records int64 `json:"linking_records"`
}

// LiveList is a stretch of the tail, and what it was filtered by.
type LiveList struct {
	Collection string   `json:"collection,omitempty"`
	DID        string   `json:"did,omitempty"`
	Events     []*Event `json:"events"`
	Max        int      `json:"-"` // rows that the page keeps
	Href       string   `json:"-"` // of the events
	Paused     bool     `json:"-"`
}

// notices collects what is missing while parts of a page are fetched side by side.
type notices struct {
	mu   sync.Mutex
	list []Notice
}

func (n *notices) add(about, text string) {
	n.mu.Lock()
	n.list = append(n.list, Notice{about, text})
	n.mu.Unlock()
}

func (n *notices) sorted() []Notice {
	slices.SortFunc(n.list, func(a, b Notice) int {
		if a.About < b.About {
			return -1
		}
		return 1
	})
	return n.list
}

// notLive says what to think of a tail that is not connected.
func (s *Service) notLive(n *notices) {
	st := s.tail.status()
	if !st.Connected && st.Problem != "" {
		n.add("Live tail", "The stream of the relay is interrupted: "+st.Problem+". It is tried again.")
	}
}

func (s *Service) home(ctx context.Context, r *http.Request) (*View, error) {
	p := &HomePage{Tail: s.tail.status(), Hosts: []Host{}, Sample: []Actor{}, RelayURL: s.cfg.RelayURL}
	now := s.w.Clock.Now()
	p.Fast = s.fastChart()
	p.Slow = s.tail.slow.draw(now, "events an hour", 3600).grid(12)
	var n notices
	s.notLive(&n)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		out, err := comatproto.SyncListHosts.Call(gctx, s.relay(), &comatproto.SyncListHosts_Params{Limit: new(int64(maxHosts))})
		if err != nil {
			n.add("Relay", "Its hosts can’t be listed: "+s.upstream(err)+".")
			return nil
		}
		for _, h := range out.Hosts[:min(len(out.Hosts), maxHosts)] {
			p.Hosts = append(p.Hosts, Host{foreign.Line(h.Hostname, 253), foreign.Line(deref(h.Status), 40), asInt(h.AccountCount), asInt(h.Seq)})
		}
		return nil
	})
	g.Go(func() error {
		st, err := s.relayStatus(gctx)
		if err != nil {
			return nil // only relays of Barograph have this
		}
		for reason, c := range st.Drops {
			p.Drops = append(p.Drops, Drop{foreign.Line(reason, 60), c})
			p.Dropped += int64(c)
		}
		slices.SortFunc(p.Drops, func(a, b Drop) int { return int(int64(b.Count) - int64(a.Count)) })
		p.Drops = p.Drops[:min(len(p.Drops), 8)]
		st.Drops = nil
		p.Relay = st
		return nil
	})
	g.Go(func() error {
		out, err := comatproto.SyncListRepos.Call(gctx, s.relay(), &comatproto.SyncListRepos_Params{Limit: new(int64(1000))})
		if err != nil {
			n.add("Relay", "Its accounts can’t be listed: "+s.upstream(err)+".")
			return nil
		}
		p.Accounts, p.More = int64(len(out.Repos)), out.Cursor != nil
		p.Sample = s.actors(gctx, out.Repos[:min(len(out.Repos), homeAccounts)], true)
		return nil
	})
	if s.cfg.LinksURL != "" {
		g.Go(func() error {
			var out struct {
				Stats LinkStats `json:"stats"`
			}
			if err := s.getJSON(gctx, s.cfg.LinksURL+"/", 64<<10, &out); err != nil {
				n.add("Link index", "It gives no figures: "+s.upstream(err)+".")
				return nil
			}
			p.Links = &out.Stats
			return nil
		})
	}
	_ = g.Wait()                                                                                         // no function returns an error
	p.Live = LiveList{Events: s.named(s.tail.recent(14, filter("", ""))), Max: 14, Href: "/live/events"} // by now more names are known
	if p.More {
		p.Accounts = 0
		for _, h := range p.Hosts {
			p.Accounts += h.Accounts
		}
	}
	p.Notices = n.sorted()
	return &View{Title: "Overview", Nav: "home", Name: "home", Data: p, Refresh: 15}, nil
}

func (s *Service) fastChart() Chart {
	c := s.tail.fast.draw(s.w.Clock.Now(), "events a second", 1).grid(10)
	return c
}

// actors names the accounts of a list, with their profiles if asked for.
func (s *Service) actors(ctx context.Context, repos []comatproto.SyncListRepos_Repo, profiles bool) []Actor {
	out := make([]Actor, 0, len(repos))
	for _, r := range repos {
		if !syntax.ValidDID(r.Did) {
			continue
		}
		a := Actor{DID: r.Did, Active: r.Active == nil || *r.Active, Status: foreign.Line(deref(r.Status), 40)}
		if syntax.ValidTID(r.Rev) {
			a.Rev = r.Rev
		}
		out = append(out, a)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrent)
	for i := range out {
		g.Go(func() error {
			listed := out[i]
			a := s.actor(gctx, listed.DID)
			a.Active, a.Status, a.Rev = listed.Active, listed.Status, listed.Rev
			if profiles && a.Active {
				s.dress(gctx, &a)
			}
			out[i] = a
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return out
}

// AccountsPage lists the accounts that the relay knows.
type AccountsPage struct {
	Notices  []Notice `json:"notices,omitempty"`
	Accounts []Actor  `json:"accounts"`
	Cursor   string   `json:"cursor,omitempty"`
	First    bool     `json:"-"`
	Next     string   `json:"-"`
}

func (s *Service) accounts(ctx context.Context, r *http.Request) (*View, error) {
	cursor := r.URL.Query().Get("cursor")
	p := &AccountsPage{Accounts: []Actor{}, First: cursor == ""}
	params := &comatproto.SyncListRepos_Params{Limit: new(int64(pageAccounts))}
	if cursor != "" {
		params.Cursor = &cursor
	}
	out, err := comatproto.SyncListRepos.Call(ctx, s.relay(), params)
	if err != nil {
		p.Notices = []Notice{{"Relay", "Its accounts can’t be listed: " + s.upstream(err) + "."}}
	} else {
		p.Accounts = s.actors(ctx, out.Repos[:min(len(out.Repos), pageAccounts)], true)
		if p.Cursor = deref(out.Cursor); p.Cursor != "" {
			p.Next = "/accounts?cursor=" + queryEscape(p.Cursor)
		}
	}
	return &View{Title: "Accounts", Nav: "accounts", Name: "accounts", Data: p}, nil
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
