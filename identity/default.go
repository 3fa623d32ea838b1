package identity

import (
	"context"
	"net/http"
	"net/url"
	"sync"

	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/syntax"
)

// Default returns the directory that the functions of this package ask: one of the public network with the zero [Options],
// made when it is first called for and shared by the whole program.
var Default = sync.OnceValue(func() *Directory { return New(Options{}) })

// Lookup is [Directory.Lookup] of [Default].
func Lookup(ctx context.Context, id syntax.AtIdentifier) (*Identity, error) {
	return Default().Lookup(ctx, id)
}

// ResolveHandle is [Directory.ResolveHandle] of [Default].
func ResolveHandle(ctx context.Context, h syntax.Handle) (syntax.DID, error) {
	return Default().ResolveHandle(ctx, h)
}

// ResolveDID is [Directory.ResolveDID] of [Default].
func ResolveDID(ctx context.Context, did syntax.DID) (*Document, error) {
	return Default().ResolveDID(ctx, did)
}

// ResolvePDS is [Directory.ResolvePDS] of [Default].
func ResolvePDS(ctx context.Context, did syntax.DID) (string, error) {
	return Default().ResolvePDS(ctx, did)
}

// Guarded returns an HTTP client for URLs that the network gave, such as that of the PDS in a DID document: it connects to
// public addresses only, decided after the name is resolved and for each redirect anew, of which it follows a few, and takes
// no proxy from the environment. Allow lists host:port pairs that it connects to nevertheless. It puts no limit on time and
// sizes: those are its user's, as the packages of this module set them. Clients that are allowed nothing share connections.
func Guarded(allow ...string) *http.Client {
	if len(allow) == 0 {
		c := *guarded()
		return &c
	}
	return newGuarded(allow)
}

var guarded = sync.OnceValue(func() *http.Client { return newGuarded(nil) })

func newGuarded(allow []string) *http.Client {
	d := netguard.NewDialer(netguard.Options{})
	for _, pair := range allow {
		_ = d.Allow(pair) // one that is none allows nothing: connecting to it fails then, and says why
	}
	return netguard.Client(d, netguard.ClientOptions{Timeout: -1, MaxBody: -1, Redirects: maxRedirects})
}

// hostPort is the pair that a URL leads to.
func hostPort(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return ""
	case u.Port() != "":
		return u.Host
	case u.Scheme == "http":
		return u.Host + ":80"
	}
	return u.Host + ":443"
}
