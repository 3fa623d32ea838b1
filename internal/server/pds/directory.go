package pds

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/syntax"
)

// openIdentity makes the clients with which names and documents of others are looked up. Every connection goes through the guarded dialer.
func (s *Service) openIdentity() error {
	host := s.hostname()
	addr, err := netip.ParseAddr(host)
	local := host == "localhost" || strings.HasSuffix(host, ".localhost") || (err == nil && addr.IsLoopback())
	s.accounts.plc = &plcdir.Client{
		URL:  trimURL(s.cfg.PLCURL),
		HTTP: s.world.HTTPClient(netguard.ClientOptions{Timeout: plcTimeout, MaxBody: maxPLCBody, UserAgent: "barograph-pds"}),
	}
	s.accounts.directory = identity.New(identity.Options{
		HTTP:           s.world.HTTPClient(netguard.ClientOptions{Redirects: 3, MaxBody: identity.MaxDocument, UserAgent: "barograph-pds"}),
		Resolver:       s.world.Resolver,
		Now:            s.world.Clock.Now,
		PLC:            s.cfg.PLCURL,
		AllowLocalhost: local,
		CacheBytes:     4 << 20,
	})
	return nil
}

// hostname is the host of this server's public URL without its port.
func (s *Service) hostname() string {
	u, err := url.Parse(s.cfg.PublicURL)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// resolveDocument gives the DID document of anyone. fresh asks again even if there is an answer that is still good, though not too often.
func (s *Service) resolveDocument(ctx context.Context, did syntax.DID, fresh bool) (*identity.Document, error) {
	if fresh {
		doc, _, err := s.accounts.directory.Refresh(ctx, did)
		return doc, err
	}
	return s.accounts.directory.ResolveDID(ctx, did)
}

// resolveForeign resolves a handle that no account here has.
func (s *Service) resolveForeign(ctx context.Context, h syntax.Handle, fresh bool) (syntax.DID, error) {
	if fresh {
		s.accounts.directory.PurgeHandle(h)
	}
	return s.accounts.directory.ResolveHandle(ctx, h)
}

// forgetIdentity drops what is cached of an identity that changed.
func (s *Service) forgetIdentity(did syntax.DID, handles ...syntax.Handle) {
	s.accounts.directory.Purge(did)
	for _, h := range handles {
		s.accounts.directory.PurgeHandle(h)
	}
}

// ownHandle reports whether a handle lies below one of this server's domains.
func (s *Service) ownHandle(h syntax.Handle) bool {
	for _, d := range s.cfg.HandleDomains {
		if strings.HasSuffix(string(h), strings.ToLower(d)) {
			return true
		}
	}
	return false
}

// identityFailure turns an error of the directory into an answer.
func identityFailure(err error) error {
	switch identity.KindOf(err) {
	case "":
		return err
	case identity.KindUnreachable, identity.KindLimited:
		return refuse(http.StatusBadGateway, "UpstreamFailure", "the identity can't be resolved now")
	}
	return refuse(http.StatusBadRequest, "DidNotFound", "the DID does not resolve")
}
