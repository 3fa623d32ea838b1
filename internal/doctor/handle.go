package doctor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
)

// answer is what one way of resolving a handle gave.
type answer struct {
	did  syntax.DID
	none bool // certainly nothing, as opposed to an error
}

// handleOrHost examines a name that may be either.
func (x *exam) handleOrHost(ctx context.Context, h syntax.Handle) {
	quiet := &exam{o: x.o, target: x.target, http: x.http, dir: x.dir, report: func(Finding) {}}
	var dns, web answer
	together(func() { dns = quiet.handleDNS(ctx, h) }, func() { web = quiet.handleHTTP(ctx, h) })
	if dns.did == "" && web.did == "" && quiet.serves(ctx, "https://"+string(h)) {
		x.host(ctx, "https://"+string(h))
		return
	}
	x.handle(ctx, h)
}

// handle examines a handle and the account that it leads to.
func (x *exam) handle(ctx context.Context, h syntax.Handle) {
	if did := x.resolve(ctx, h); did != "" {
		x.did(ctx, did, h)
	}
}

// resolve finds the DID of a handle in both ways, and says how they agree.
func (x *exam) resolve(ctx context.Context, h syntax.Handle) syntax.DID {
	if h.Reserved() && !x.o.AllowLocalhost {
		x.find(handleReserved, string(h), "%s is below .%s", h, h.TLD())
		return ""
	}
	var dns, web answer
	together(func() { dns = x.handleDNS(ctx, h) }, func() { web = x.handleHTTP(ctx, h) })
	switch {
	case dns.did == "" && web.did == "":
		how := "there is neither a TXT record at _atproto.%s nor a file https://%s/.well-known/atproto-did"
		if !dns.none || !web.none {
			how = "neither the TXT record at _atproto.%s nor https://%s/.well-known/atproto-did gives a DID"
		}
		x.find(handleUnresolved, string(h), how, h, h)
		return ""
	case dns.did != "" && web.did != "" && dns.did != web.did:
		x.find(handleConflict, string(h), "DNS says %s, HTTPS says %s", dns.did, web.did)
	}
	if dns.did != "" {
		return dns.did
	}
	return web.did
}

func (x *exam) handleDNS(ctx context.Context, h syntax.Handle) answer {
	ctx, cancel := context.WithTimeout(ctx, x.o.Call)
	defer cancel()
	start := x.o.Now()
	records, err := x.o.Resolver.LookupTXT(ctx, "_atproto."+string(h))
	took := x.o.Now().Sub(start)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return answer{none: true}
	}
	if err != nil {
		x.find(handleDNSError, string(h), "asking for _atproto.%s: %v", h, err)
		return answer{}
	}
	var dids []syntax.DID
	bad := ""
	for _, r := range records {
		v, ok := strings.CutPrefix(r, "did=")
		if !ok {
			continue
		}
		did, err := syntax.ParseDID(v)
		if err != nil {
			bad = r
		} else if !slices.Contains(dids, did) {
			dids = append(dids, did)
		}
	}
	switch {
	case len(dids) > 1:
		x.find(handleDNSSeveral, string(h), "_atproto.%s holds %d different DIDs: %s", h, len(dids), join(dids))
		return answer{}
	case len(dids) == 1:
		x.find(handleDNS, string(h), "_atproto.%s leads to %s", h, dids[0])
		if took > x.o.Slow {
			x.find(handleDNSSlow, string(h), "the TXT record took %.1f s", took.Seconds())
		}
		return answer{did: dids[0]}
	case bad != "":
		x.find(handleDNSOther, string(h), "the TXT record at _atproto.%s is %.200q", h, bad)
		return answer{}
	case len(records) > 0:
		x.find(handleDNSOther, string(h), "the TXT record at _atproto.%s is %.200q", h, records[0])
		return answer{}
	}
	return answer{none: true}
}

func join[S ~string](list []S) string {
	words := make([]string, 0, len(list))
	for _, s := range list {
		words = append(words, string(s))
	}
	return strings.Join(words, ", ")
}

func (x *exam) handleHTTP(ctx context.Context, h syntax.Handle) answer {
	ctx, cancel := context.WithTimeout(ctx, x.o.Call)
	defer cancel()
	const path = "/.well-known/atproto-did"
	start := x.o.Now()
	resp, err := x.get(ctx, "https://"+string(h)+path)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return answer{none: true} // a handle needs no host
	}
	if err != nil {
		x.find(handleHTTPError, string(h), "https://%s%s: %v", h, path, plain(err))
		return answer{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, identity.MaxHandleBody+1))
	took := x.o.Now().Sub(start)
	text := strings.TrimSpace(string(body))
	did, perr := syntax.ParseDID(text)
	switch {
	case err != nil:
		x.find(handleHTTPError, string(h), "reading https://%s%s: %v", h, path, plain(err))
		return answer{}
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return answer{none: true}
	case resp.StatusCode != http.StatusOK:
		x.find(handleHTTPError, string(h), "https://%s%s answers %s", h, path, resp.Status)
		return answer{}
	case len(body) > identity.MaxHandleBody:
		x.find(handleHTTPContent, string(h), "https://%s%s is longer than %d bytes, and begins with %.40q", h, path, identity.MaxHandleBody, text)
		return answer{}
	case perr != nil:
		x.find(handleHTTPContent, string(h), "https://%s%s holds %.80q", h, path, text)
		return answer{}
	}
	x.find(handleHTTP, string(h), "https://%s%s leads to %s", h, path, did)
	if at := resp.Request.URL; at.Host != string(h) || at.Path != path {
		x.find(handleHTTPJump, string(h), "https://%s%s redirects to %s", h, path, at)
	}
	if took > x.o.Slow {
		x.find(handleHTTPSlow, string(h), "the file took %.1f s", took.Seconds())
	}
	return answer{did: did}
}

// get asks for a URL as a browser page of another origin would.
func (x *exam) get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Origin", pageOrigin)
	return x.http.Do(req)
}

// pageOrigin is where the pages are from that are played.
const pageOrigin = "https://app.example.com"
