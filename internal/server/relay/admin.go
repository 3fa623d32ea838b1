package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// The administration has paths, parameters and answers that the tools of relay operators know. There is no specification of it.

const takedownsPage = 500

func (s *Service) adminRoutes(x *xrpc.Server) {
	get := func(path string, f func(r *http.Request) (any, error)) {
		x.Handle("GET /admin/"+path, s.admin(func(r *http.Request) (any, string, error) {
			out, err := f(r)
			return out, "", err
		}))
	}
	// What changes something returns what it was about, for the log.
	post := func(path string, f func(r *http.Request) (subject string, err error)) {
		x.Handle("POST /admin/"+path, s.admin(func(r *http.Request) (any, string, error) {
			subject, err := f(r)
			return map[string]string{"success": "true"}, subject, err
		}))
	}
	get("subs/getUpstreamConns", func(*http.Request) (any, error) { return s.connectedHosts(), nil })
	post("subs/killUpstream", s.adminKill)
	get("subs/getEnabled", func(*http.Request) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return map[string]bool{"enabled": !s.settings.Closed}, nil
	})
	post("subs/setEnabled", s.adminSetEnabled)
	get("subs/perDayLimit", func(*http.Request) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return map[string]int{"limit": max(0, s.newHostsPerDay())}, nil
	})
	post("subs/setPerDayLimit", s.adminSetPerDay)
	get("subs/listDomainBans", func(*http.Request) (any, error) {
		return map[string][]string{"banned_domains": s.bannedDomains()}, nil
	})
	post("subs/banDomain", func(r *http.Request) (string, error) { return s.adminBan(r, true) })
	post("subs/unbanDomain", func(r *http.Request) (string, error) { return s.adminBan(r, false) })
	get("repo/takedowns", s.adminTakedowns)
	post("repo/takeDown", func(r *http.Request) (string, error) { return s.adminTakeDown(r, true) })
	post("repo/reverseTakedown", func(r *http.Request) (string, error) { return s.adminTakeDown(r, false) })
	get("pds/list", func(*http.Request) (any, error) { return s.adminHosts(), nil })
	post("pds/requestCrawl", s.adminCrawl)
	post("pds/changeLimits", s.adminLimits)
	post("pds/block", func(r *http.Request) (string, error) { return s.adminBlock(r, true) })
	post("pds/unblock", func(r *http.Request) (string, error) { return s.adminBlock(r, false) })
	get("consumers/list", func(*http.Request) (any, error) { return s.consumers.list(), nil })
	x.Handle("/admin/", s.admin(func(r *http.Request) (any, string, error) {
		return nil, "", &xrpc.Error{Status: http.StatusNotFound, Name: "NotFound", Message: fmt.Sprintf("there is no %s %.100s", r.Method, r.URL.Path)}
	}))
}

// admin serves one path of the administration, to the operator only. Each change leaves a line in the log.
func (s *Service) admin(f func(r *http.Request) (out any, subject string, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := s.door.check(s, r); err != nil {
			xrpc.WriteError(w, r, err)
			return
		}
		out, subject, err := f(r)
		if r.Method != http.MethodGet {
			s.w.Log.Info("admin request", "path", r.URL.Path, "subject", subject, "client", r.RemoteAddr, "err", err)
		}
		if err != nil {
			xrpc.WriteError(w, r, adminError(err))
			return
		}
		writeJSON(w, out)
	})
}

func adminError(err error) error {
	switch {
	case errors.Is(err, errNoAccount), errors.Is(err, errNoHost):
		return &xrpc.Error{Status: http.StatusNotFound, Name: "NotFound", Message: err.Error()}
	case errors.Is(err, ErrHost):
		return xrpc.ErrInvalidRequest.With("%v", err)
	}
	return err
}

// adminInput reads a small JSON body. Fields it doesn't know are of newer tools, and passed over.
func adminInput(r *http.Request, into any) error {
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxSmallBody)).Decode(into); err != nil {
		return xrpc.ErrInvalidRequest.With("the body is not the JSON that is wanted here: %v", err)
	}
	return nil
}

func (s *Service) adminTakeDown(r *http.Request, takedown bool) (string, error) {
	var in struct {
		DID string `json:"did"`
	}
	if err := adminInput(r, &in); err != nil {
		return "", err
	}
	did, err := syntax.ParseDID(in.DID)
	if err != nil {
		return "", xrpc.ErrInvalidRequest.With("did: %v", err)
	}
	return string(did), s.takeDown(r.Context(), did, takedown)
}

func (s *Service) adminTakedowns(r *http.Request) (any, error) {
	var out struct {
		DIDs   []string `json:"dids"`
		Cursor string   `json:"cursor,omitempty"`
	}
	dids, err := s.takedowns(r.URL.Query().Get("cursor"), takedownsPage)
	if out.DIDs = dids; dids == nil {
		out.DIDs = []string{}
	}
	if len(dids) == takedownsPage {
		out.Cursor = dids[len(dids)-1]
	}
	return out, err
}

func (s *Service) adminBan(r *http.Request, banned bool) (string, error) {
	var in struct {
		Domain string `json:"domain"`
	}
	if err := adminInput(r, &in); err != nil {
		return "", err
	}
	return in.Domain, s.ban(r.Context(), in.Domain, banned)
}

func (s *Service) adminBlock(r *http.Request, blocked bool) (string, error) {
	name := r.URL.Query().Get("host")
	return name, s.block(r.Context(), name, blocked)
}

func (s *Service) adminKill(r *http.Request) (string, error) {
	if r.URL.Query().Get("block") == "true" {
		return s.adminBlock(r, true)
	}
	name := r.URL.Query().Get("host")
	return name, s.reconnect(r.Context(), name)
}

func (s *Service) adminCrawl(r *http.Request) (string, error) {
	var in comatproto.SyncRequestCrawl_Input
	if err := adminInput(r, &in); err != nil {
		return "", err
	}
	name, origin, err := parseHost(in.Hostname, true)
	if err != nil {
		return in.Hostname, err
	}
	if err := s.greet(r.Context(), name, origin); err != nil {
		return name, err
	}
	return name, s.admit(origin)
}

func (s *Service) adminLimits(r *http.Request) (string, error) {
	var in struct {
		Host  string `json:"host"`
		Limit *int64 `json:"repo_limit"`
	}
	if err := adminInput(r, &in); err != nil {
		return "", err
	}
	if in.Limit == nil || *in.Limit < 0 {
		return in.Host, xrpc.ErrInvalidRequest.With("repo_limit is missing or negative")
	}
	return fmt.Sprintf("%s %d", in.Host, *in.Limit), s.limit(in.Host, *in.Limit)
}

func (s *Service) adminSetEnabled(r *http.Request) (string, error) {
	enabled, err := strconv.ParseBool(r.URL.Query().Get("enabled"))
	if err != nil {
		return "", xrpc.ErrInvalidRequest.With("enabled: want true or false")
	}
	return strconv.FormatBool(enabled), s.changeSettings(func(c *settings) { c.Closed = !enabled })
}

func (s *Service) adminSetPerDay(r *http.Request) (string, error) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit < 0 {
		return "", xrpc.ErrInvalidRequest.With("limit: want a number from 0 up")
	}
	return strconv.Itoa(limit), s.changeSettings(func(c *settings) { c.NewHostsPerDay = &limit })
}

func (s *Service) connectedHosts() []string {
	names := []string{}
	for _, h := range s.hostList() {
		h.mu.Lock()
		if h.connected {
			names = append(names, h.name)
		}
		h.mu.Unlock()
	}
	return names
}

// adminHost is a host as the operator's tools know it.
type adminHost struct {
	ID                     int
	CreatedAt              time.Time
	Host                   string
	SSL                    bool
	Cursor                 int64
	Registered             bool // is followed
	Blocked                bool
	RepoCount              int64
	RepoLimit              int64 // -1: none
	HasActiveConnection    bool
	EventsSeenSinceStartup uint64
	PerSecondEventRate     adminRate
	UserCount              int64

	Trusted   bool   `json:"trusted"`             // named in the configuration
	BannedBy  string `json:"banned_by,omitempty"` // the domain that shuts it out
	Problem   string `json:"problem,omitempty"`   // why it is not connected
	LastEvent string `json:"last_event,omitempty"`
}

type adminRate struct {
	Max    float64
	Window float64 // seconds
}

func (s *Service) adminHosts() []adminHost {
	list := []adminHost{}
	for i, h := range s.hostList() {
		s.mu.Lock()
		banned := s.bannedBy(h.name)
		s.mu.Unlock()
		h.mu.Lock()
		out := adminHost{
			ID: i + 1, CreatedAt: h.row.Since, Host: h.name, SSL: h.row.Origin[:5] == "https", Cursor: h.done, Registered: !h.stopped, Blocked: h.row.Blocked,
			RepoCount: h.row.Accounts, RepoLimit: -1, HasActiveConnection: h.connected, EventsSeenSinceStartup: h.events, UserCount: h.row.Accounts,
			PerSecondEventRate: adminRate{h.rate(), 1}, Trusted: h.row.Configured, BannedBy: banned, Problem: h.row.Problem,
		}
		if limit, ok := h.accountLimit(s.cfg.AccountLimit); ok {
			out.RepoLimit = limit
		}
		if !h.lastEvent.IsZero() {
			out.LastEvent = string(syntax.NewDatetime(h.lastEvent))
		}
		h.mu.Unlock()
		list = append(list, out)
	}
	return list
}

// greet makes sure that a host is there and is one of the network's.
func (s *Service) greet(ctx context.Context, name, origin string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := &xrpc.Client{Host: origin, HTTP: s.http}
	if _, err := comatproto.ServerDescribeServer.Call(ctx, c, nil); err != nil {
		return xrpc.ErrInvalidRequest.With("the host %s does not answer com.atproto.server.describeServer: %v", name, err)
	}
	return nil
}

func (s *Service) streamOptions() stream.ServeOptions {
	return stream.ServeOptions{
		MaxSubscribers: s.cfg.MaxSubscribers,
		OnOpen:         s.consumers.open,
		OnClose:        func(r *http.Request, _ int64, _ error) { s.consumers.close(r) },
	}
}
