package relay

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const (
	maxSmallBody = 16 << 10
	statusActive = "active"
	statusIdle   = "idle"
	statusGone   = "offline"
	statusBanned = "banned"
)

func (s *Service) routes() http.Handler {
	x := xrpc.NewServer(xrpc.ServerOptions{Log: s.w.Log, MaxBody: maxSmallBody})
	xrpc.HandleRaw(x, stream.SubscribeRepos, http.MethodGet, func(w http.ResponseWriter, r *xrpc.Request) error {
		s.streams.ServeHTTP(w, r.Request)
		return nil
	})
	xrpc.HandleQuery(x, comatproto.SyncListReposByCollection, s.listReposByCollection)
	xrpc.HandleProcedure(x, comatproto.SyncRequestCrawl, s.requestCrawl)
	xrpc.HandleQuery(x, comatproto.SyncListHosts, s.listHosts)
	xrpc.HandleQuery(x, comatproto.SyncGetHostStatus, s.getHostStatus)
	xrpc.HandleQuery(x, comatproto.SyncListRepos, s.listRepos)
	xrpc.HandleQuery(x, comatproto.SyncGetRepoStatus, s.getRepoStatus)
	xrpc.HandleQuery(x, comatproto.SyncGetLatestCommit, s.getLatestCommit)
	for _, nsid := range []string{comatproto.SyncGetRepo.NSID, comatproto.SyncGetRecord.NSID, comatproto.SyncGetBlob.NSID} {
		xrpc.HandleRaw(x, nsid, http.MethodGet, s.redirect)
	}
	x.Handle("GET /xrpc/_health", http.HandlerFunc(s.health))
	x.Handle("GET /_health", http.HandlerFunc(s.health))
	x.Handle("GET /_status", http.HandlerFunc(s.serveStatus))
	x.Handle("GET /{$}", http.HandlerFunc(s.index))
	s.adminRoutes(x)
	return x
}

func (s *Service) requestCrawl(ctx context.Context, _ *xrpc.Request, in *comatproto.SyncRequestCrawl_Input) (*xrpc.None, error) {
	name, _, err := parseHost(in.Hostname, true)
	if err != nil {
		return nil, xrpc.ErrInvalidRequest.With("%v", err)
	}
	s.mu.Lock()
	h, closed := s.hosts[name], s.settings.Closed
	s.mu.Unlock()
	if h != nil { // known hosts are followed; the wish is granted already
		h.mu.Lock()
		allowed, stopped := h.row.Configured || h.row.Admitted, h.stopped
		h.mu.Unlock()
		if stopped {
			return nil, xrpc.ErrInvalidRequest.With("%v: %v: %s", ErrHost, ErrBlocked, name)
		}
		if allowed {
			return nil, nil
		}
	} else if closed {
		return nil, xrpc.ErrInvalidRequest.With("this relay adds no hosts at present; its operator can")
	}
	_, origin, err := parseHost(in.Hostname, false)
	if err != nil {
		return nil, xrpc.ErrInvalidRequest.With("%v", err)
	}
	// A host that isn't there or isn't a PDS is refused at once, so that its operator learns why nothing happens.
	if err := s.greet(ctx, name, origin); err != nil {
		return nil, err
	}
	if _, err := s.addHost(in.Hostname, byStranger); err != nil {
		if errors.Is(err, ErrHost) {
			return nil, xrpc.ErrInvalidRequest.With("%v", err)
		}
		return nil, err
	}
	return nil, nil
}

func (h *host) status() *comatproto.SyncListHosts_Host {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := &comatproto.SyncListHosts_Host{Hostname: h.name, AccountCount: new(h.row.Accounts), Status: new(statusActive)}
	if h.done > 0 {
		out.Seq = new(h.done)
	}
	if !h.connected {
		out.Status = new(statusGone)
		if h.row.Problem == "" {
			out.Status = new(statusIdle)
		}
	}
	if h.stopped {
		out.Status = new(statusBanned)
	}
	return out
}

func (s *Service) listHosts(_ context.Context, _ *xrpc.Request, p *comatproto.SyncListHosts_Params) (*comatproto.SyncListHosts_Output, error) {
	after := deref(p.Cursor)
	out := &comatproto.SyncListHosts_Output{Hosts: []comatproto.SyncListHosts_Host{}}
	for _, h := range s.hostList() {
		if h.name <= after {
			continue
		}
		if int64(len(out.Hosts)) == *p.Limit {
			out.Cursor = new(out.Hosts[len(out.Hosts)-1].Hostname)
			break
		}
		out.Hosts = append(out.Hosts, *h.status())
	}
	return out, nil
}

func (s *Service) getHostStatus(_ context.Context, _ *xrpc.Request, p *comatproto.SyncGetHostStatus_Params) (*comatproto.SyncGetHostStatus_Output, error) {
	s.mu.Lock()
	h := s.hosts[strings.ToLower(p.Hostname)]
	s.mu.Unlock()
	if h == nil {
		return nil, comatproto.ErrHostNotFound.With("no host %.100q is followed here", p.Hostname)
	}
	st := h.status()
	return &comatproto.SyncGetHostStatus_Output{Hostname: st.Hostname, AccountCount: st.AccountCount, Seq: st.Seq, Status: st.Status}, nil
}

func (s *Service) listRepos(_ context.Context, _ *xrpc.Request, p *comatproto.SyncListRepos_Params) (*comatproto.SyncListRepos_Output, error) {
	out := &comatproto.SyncListRepos_Output{Repos: []comatproto.SyncListRepos_Repo{}}
	err := s.listAccounts(deref(p.Cursor), func(did string, a *account) bool {
		if a.rev == "" {
			return true // nothing was committed yet
		}
		if int64(len(out.Repos)) == *p.Limit {
			out.Cursor = new(out.Repos[len(out.Repos)-1].Did)
			return false
		}
		r := comatproto.SyncListRepos_Repo{Did: did, Head: a.commit.String(), Rev: string(a.rev), Active: new(a.shown() == "")}
		r.Status = a.publicStatus()
		out.Repos = append(out.Repos, r)
		return true
	})
	return out, err
}

// publicStatus is why an account's repository may not be up to date, nil if it is.
func (a *account) publicStatus() *string {
	switch {
	case a.shown() != "":
		return new(a.shown())
	case a.desync:
		return new(stream.StatusDesynchronized)
	}
	return nil
}

func (s *Service) find(did string) (*account, error) {
	a, err := s.stored(did)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, comatproto.ErrRepoNotFound.With("no account %s is known here", did)
	}
	return a, nil
}

func (s *Service) getRepoStatus(_ context.Context, _ *xrpc.Request, p *comatproto.SyncGetRepoStatus_Params) (*comatproto.SyncGetRepoStatus_Output, error) {
	a, err := s.find(p.Did)
	if err != nil {
		return nil, err
	}
	out := &comatproto.SyncGetRepoStatus_Output{Did: p.Did, Active: a.shown() == "", Status: a.publicStatus()}
	if a.rev != "" {
		out.Rev = new(string(a.rev))
	}
	return out, nil
}

func (s *Service) getLatestCommit(_ context.Context, _ *xrpc.Request, p *comatproto.SyncGetLatestCommit_Params) (*comatproto.SyncGetLatestCommit_Output, error) {
	a, err := s.find(p.Did)
	if err != nil {
		return nil, err
	}
	switch a.shown() {
	case "":
	case stream.StatusTakendown:
		return nil, comatproto.ErrRepoTakendown.With("account %s was taken down", p.Did)
	case stream.StatusSuspended:
		return nil, comatproto.ErrRepoSuspended.With("account %s is suspended", p.Did)
	default:
		return nil, comatproto.ErrRepoDeactivated.With("account %s is %s", p.Did, a.shown())
	}
	if a.rev == "" {
		return nil, comatproto.ErrRepoNotFound.With("no commit of account %s was seen", p.Did)
	}
	return &comatproto.SyncGetLatestCommit_Output{Cid: a.commit.String(), Rev: string(a.rev)}, nil
}

// redirect sends a caller who wants content to the account's host. The target is built from the DID document and the
// caller's own query, nothing else.
func (s *Service) redirect(w http.ResponseWriter, r *xrpc.Request) error {
	did, err := syntax.ParseDID(r.URL.Query().Get("did"))
	if err != nil {
		return xrpc.ErrInvalidRequest.With("parameter did: %v", err)
	}
	if a, err := s.find(string(did)); err != nil {
		return err
	} else if a.shown() == stream.StatusTakendown {
		return comatproto.ErrRepoTakendown.With("account %s was taken down", did)
	}
	doc, err := s.dir.ResolveDID(r.Context(), did)
	if err != nil || doc.PDS == "" {
		if identity.KindOf(err) == identity.KindUnreachable {
			return xrpc.ErrUpstreamFailure.With("who hosts %s can't be found out now", did)
		}
		return comatproto.ErrRepoNotFound.With("nobody hosts %s", did)
	}
	target, err := url.Parse(doc.PDS)
	if err != nil {
		return err
	}
	target.Path = xrpc.Path(r.NSID)
	target.RawQuery = r.URL.RawQuery
	http.Redirect(w, r.Request, target.String(), http.StatusFound)
	return nil
}

func (s *Service) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"status": "ok"})
}

func (s *Service) serveStatus(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Status()) }

func (s *Service) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("This is a relay of the AT Protocol, run by Barograph.\n\n" +
		"Stream:  /xrpc/com.atproto.sync.subscribeRepos (WebSocket)\n" +
		"Hosts:   /xrpc/com.atproto.sync.listHosts\n" +
		"Status:  /_status\n"))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return // the client has gone
	}
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
