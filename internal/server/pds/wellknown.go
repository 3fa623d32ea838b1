package pds

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// atprotoDID serves /.well-known/atproto-did: the DID of the account whose handle is the host that was asked,
// https://atproto.com/specs/handle#https-well-known-method.
func (s *Service) atprotoDID(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	h, err := syntax.ParseHandle(strings.TrimSuffix(host, "."))
	if err != nil {
		http.Error(w, "no account has this handle here", http.StatusNotFound)
		return
	}
	a, err := s.accountByHandle(h)
	if err != nil {
		if !errors.Is(err, errNoAccount) {
			s.world.Log.Error("looking up a handle", "err", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		http.Error(w, "no account has this handle here", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	_, _ = w.Write([]byte(a.DID))
}

// didJSON serves /.well-known/did.json: the document of the service's own did:web.
func (s *Service) didJSON(w http.ResponseWriter, _ *http.Request) {
	type service struct {
		ID       string `json:"id"`
		Type     string `json:"type"`
		Endpoint string `json:"serviceEndpoint"`
	}
	if s.cfg.DID.Method() != "web" {
		http.NotFound(w, nil)
		return
	}
	b, err := json.Marshal(struct {
		Context []string  `json:"@context"`
		ID      string    `json:"id"`
		Service []service `json:"service"`
	}{
		[]string{"https://www.w3.org/ns/did/v1"}, string(s.cfg.DID),
		[]service{{"#atproto_pds", "AtprotoPersonalDataServer", s.cfg.PublicURL}},
	})
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	_, _ = w.Write(b)
}

// describeIdentity gives what describeRepo says about an account's identity: the DID document, the handle, and whether each leads to the other.
func (s *Service) describeIdentity(ctx context.Context, a *account) (doc data.Raw, handle syntax.Handle, correct bool, err error) {
	d, err := s.resolveDocument(ctx, a.DID, false)
	if err != nil {
		return nil, "", false, identityFailure(err)
	}
	if d.Claimed == a.Handle {
		did, err := s.didOfHandle(ctx, a.Handle)
		correct = err == nil && did == a.DID
	}
	if correct && !s.ownHandle(a.Handle) {
		// That the account has it here is not enough for a name that others hand out.
		did, err := s.resolveForeign(ctx, a.Handle, false)
		correct = err == nil && did == a.DID
	}
	return rawDocument(d.Raw), a.Handle, correct, nil
}
