package pds

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Methods that this server doesn't have are passed on to the service that the caller names in a header, or to the AppView of the
// configuration, https://atproto.com/specs/xrpc#service-proxying. The caller's own token stays here: the service gets one that is signed
// with the account's key and good for that one method, for a minute.

const (
	headerProxy = "Atproto-Proxy"
	// maxProxyFailure is how much is read of an answer that says what went wrong at a service.
	maxProxyFailure = 64 << 10
	maxServiceID    = 256
)

// Headers that pass; all others stay on their side.
var (
	proxyRequestHeaders = []string{
		"Accept-Encoding", "Accept-Language", "Atproto-Accept-Labelers", "X-Bsky-Topics",
		"Content-Type", "Content-Encoding", "Content-Language",
	}
	proxyResponseHeaders = []string{
		"Content-Type", "Content-Encoding", "Content-Language", "Content-Length",
		"Atproto-Repo-Rev", "Atproto-Content-Labelers", "Retry-After",
	}
)

// standIns are methods of an AppView that this server answers from what it has itself, for as long as there is no other.
var standIns = map[string]bool{"app.bsky.actor.getProfile": true, "app.bsky.actor.getProfiles": true}

// serviceRef names a service of an identity.
type serviceRef struct {
	did syntax.DID
	id  string // without its "#"
}

func (t serviceRef) String() string { return string(t.did) + "#" + t.id }

// parseServiceRef reads did#service.
func parseServiceRef(text string) (serviceRef, error) {
	did, id, _ := strings.Cut(text, "#")
	if id == "" || len(id) > maxServiceID || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) {
		return serviceRef{}, errors.New("want a DID and a service, did#service")
	}
	d, err := syntax.ParseDID(did)
	if err != nil {
		return serviceRef{}, err
	}
	return serviceRef{d, id}, nil
}

// appViewMethod reports whether a method is one of the AppView's, where its callers needn't say so.
func appViewMethod(nsid string) bool {
	return strings.HasPrefix(nsid, "app.bsky.") || nsid == "com.atproto.label.queryLabels"
}

// openProxy gets the client ready that asks other services.
func (s *Service) openProxy() error {
	if s.cfg.AppView != "" {
		t, err := parseServiceRef(s.cfg.AppView)
		if err != nil {
			return fmt.Errorf("pds: AppView %q: %w", s.cfg.AppView, err)
		}
		s.appView = t
	}
	s.proxyClient = s.world.HTTPClient(netguard.ClientOptions{
		Timeout: s.cfg.ProxyTimeout, HeaderTimeout: s.cfg.ProxyTimeout, MaxBody: s.cfg.MaxProxyBytes, IdleConns: 32, UserAgent: "barograph-pds",
	})
	return nil
}

// before sees every request of a method first.
func (s *Service) before(w http.ResponseWriter, r *http.Request, nsid string) bool {
	if s.throttle(w, r, nsid) {
		return true
	}
	if !standIns[nsid] || r.Header.Get("Authorization") == "" || (r.Header.Get(headerProxy) == "" && s.cfg.AppView == "") {
		return false
	}
	s.proxyHTTP(w, r)
	return true
}

// proxyHTTP answers a request of a method that this server doesn't have.
func (s *Service) proxyHTTP(w http.ResponseWriter, r *http.Request) {
	nsid := syntax.NSID(strings.TrimPrefix(r.URL.Path, "/xrpc/")).Normalize()
	resp, err := s.proxy(r, nsid)
	if err != nil {
		if x := (*xrpc.Error)(nil); !errors.As(err, &x) && r.Context().Err() == nil {
			s.world.Log.Error("passing a method on failed", "method", string(nsid), "err", err)
		}
		xrpc.WriteError(w, r, err)
		return
	}
	defer resp.Body.Close()
	h := w.Header()
	for _, name := range proxyResponseHeaders {
		if v := resp.Header.Values(name); len(v) > 0 {
			h[name] = v
		}
	}
	// What a stranger sends is no page of this origin.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	w.WriteHeader(resp.StatusCode)
	if r.Method == http.MethodHead {
		return
	}
	if err := relayBody(w, resp.Body); err != nil {
		if r.Context().Err() == nil {
			s.world.Log.Info("an answer that was passed on broke off", "method", string(nsid), "err", err)
		}
		panic(http.ErrAbortHandler) // nobody must take half an answer for a whole one
	}
}

// relayBody sends what comes as it comes.
func relayBody(w http.ResponseWriter, body io.Reader) error {
	out := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err == nil {
				_ = out.Flush() // a writer that can't flush sends all of it at the end
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// proxy asks the service that a request is meant for. What it returns without an error is an answer to pass on.
func (s *Service) proxy(r *http.Request, nsid syntax.NSID) (*http.Response, error) {
	named := r.Header.Values(headerProxy)
	lxm := string(nsid)
	switch {
	case len(named) > 1:
		return nil, invalid("want one %s header", strings.ToLower(headerProxy))
	case len(named) == 0 && appViewMethod(lxm) && s.cfg.AppView == "":
		return nil, refuse(http.StatusNotImplemented, "MethodNotImplemented",
			"%s is a method of an AppView, and this server is configured without one: name one in the header atproto-proxy", lxm)
	case len(named) == 0 && !appViewMethod(lxm):
		return nil, refuse(http.StatusNotImplemented, "MethodNotImplemented",
			"the method %s isn't implemented here; the header atproto-proxy can name a service that does", lxm)
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost:
		return nil, refuse(http.StatusMethodNotAllowed, "InvalidRequest", "methods take GET or POST, not %.20s", r.Method)
	case r.Header.Get("Upgrade") != "":
		return nil, invalid("streams are not passed on: connect to the service itself")
	}
	info, err := s.requireAuth(r)
	if err != nil {
		return nil, err
	}
	switch {
	case protectedMethods[lxm]:
		return nil, invalid("%s manages the account here and is not passed on", lxm)
	case info.Scope == scopeAppPass && privilegedMethod(lxm):
		return nil, refuse(http.StatusBadRequest, "InvalidToken", "this app password does not allow %s", lxm)
	}
	target := s.appView
	if len(named) == 1 {
		if target, err = parseServiceRef(named[0]); err != nil {
			return nil, invalid("atproto-proxy: %v", err)
		}
	}
	origin, err := s.serviceOrigin(r.Context(), target)
	if err != nil {
		return nil, err
	}
	req, err := s.proxyRequest(r, origin, lxm)
	if err != nil {
		return nil, err
	}
	aud := target.String()
	if s.cfg.BareAudience {
		aud = string(target.did)
	}
	token, err := s.mintServiceAuth(info.Account, aud, lxm, s.world.Clock.Now().Add(serviceAuthDefault))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.proxyClient.Do(req)
	if err != nil {
		return nil, s.proxyFailure(r.Context(), target, err)
	}
	if err := upstreamFailure(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// serviceOrigin is where a service can be reached.
func (s *Service) serviceOrigin(ctx context.Context, t serviceRef) (string, error) {
	if t == s.appView && s.cfg.AppViewURL != "" {
		return s.cfg.AppViewURL, nil
	}
	doc, err := s.resolveDocument(ctx, t.did, false)
	if err != nil {
		if ctx.Err() != nil || identity.KindOf(err) == "" {
			return "", err
		}
		return "", identityFailure(err)
	}
	origin := doc.Service("#"+t.id, "")
	switch u, err := url.Parse(origin); {
	case origin == "" || err != nil:
		return "", invalid("the DID document of %s has no usable service #%s", t.did, t.id)
	case u.Scheme != "https" && strings.HasPrefix(s.cfg.PublicURL, "https://"):
		return "", invalid("the service %s is not reached by https", t)
	case origin == s.cfg.PublicURL:
		return "", invalid("the service %s is this server itself, which doesn't have the method", t)
	}
	return origin, nil
}

// proxyRequest makes the request to a service, without credentials.
func (s *Service) proxyRequest(r *http.Request, origin, lxm string) (*http.Request, error) {
	target := origin + "/xrpc/" + lxm
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	body, length := io.Reader(http.NoBody), int64(0)
	if r.Method == http.MethodPost && r.ContentLength != 0 {
		if r.ContentLength > s.cfg.MaxProxyBytes {
			return nil, answer(&http.MaxBytesError{Limit: s.cfg.MaxProxyBytes})
		}
		body, length = http.MaxBytesReader(nil, r.Body, s.cfg.MaxProxyBytes), r.ContentLength
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, target, body)
	if err != nil {
		return nil, invalid("the request can't be passed on")
	}
	req.ContentLength = length
	for _, name := range proxyRequestHeaders {
		if v := r.Header.Values(name); len(v) > 0 {
			req.Header[name] = v
		}
	}
	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "identity") // or the client would ask for something that the caller didn't
	}
	return req, nil
}

// proxyFailure is the answer when a service gave none.
func (s *Service) proxyFailure(ctx context.Context, t serviceRef, err error) error {
	var large *http.MaxBytesError
	var blocked *netguard.BlockedError
	var timeout net.Error
	if ctx.Err() == nil {
		s.world.Log.Info("a service gave no answer", "service", t.String(), "err", err)
	}
	switch {
	case errors.As(err, &large):
		return answer(large)
	case errors.As(err, &blocked):
		return invalid("the service %s is not at a public address", t)
	case errors.As(err, &timeout) && timeout.Timeout():
		return refuse(http.StatusGatewayTimeout, "UpstreamTimeout", "the service %s took too long", t)
	}
	return refuse(http.StatusBadGateway, "UpstreamFailure", "the service %s gave no answer that can be passed on", t)
}

// upstreamFailure says which answers aren't passed on as they are: one that is none, and the failure of a service, which isn't this server's.
func upstreamFailure(resp *http.Response) error {
	switch st := resp.StatusCode; {
	case st < 200 || st >= 300 && st < 400 || st >= 600:
		return refuse(http.StatusBadGateway, "UpstreamFailure", "the service answered with status %d", st)
	case st != http.StatusInternalServerError:
		return nil
	}
	var told struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProxyFailure))
	if err != nil || json.Unmarshal(b, &told) != nil || len(told.Error) > 256 {
		told.Error, told.Message = "", "" // not in a form that means anything
	}
	e := refuse(http.StatusBadGateway, cmp.Or(told.Error, "UpstreamFailure"), "%s", cmp.Or(told.Message, "the service failed"))
	if v := resp.Header.Get("Retry-After"); v != "" {
		e.Header = http.Header{"Retry-After": {v}}
	}
	return e
}
