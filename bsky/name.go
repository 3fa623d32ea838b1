package bsky

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// pages are the collections of the records that pages of bsky.app show.
var pages = map[string]syntax.NSID{
	"post":         "app.bsky.feed.post",
	"feed":         "app.bsky.feed.generator",
	"lists":        "app.bsky.graph.list",
	"starter-pack": "app.bsky.graph.starterpack",
}

// ParseURI reads the name of a record: an at-uri, or the address of a page of bsky.app that shows a post, a feed, a list or a
// starter pack.
func ParseURI(s string) (syntax.ATURI, error) {
	s = strings.TrimSpace(s)
	if parts, ok := webPath(s); ok {
		if len(parts) == 2 && (parts[0] == "starter-pack" || parts[0] == "start") {
			parts = nil
		}
		if len(parts) == 3 && (parts[0] == "starter-pack" || parts[0] == "start") {
			parts = []string{"profile", parts[1], "starter-pack", parts[2]}
		}
		if len(parts) == 4 && parts[0] == "profile" && pages[parts[2]] != "" {
			return syntax.ParseATURI("at://" + parts[1] + "/" + string(pages[parts[2]]) + "/" + parts[3])
		}
		return "", fmt.Errorf("%q is not the address of a post, feed, list or starter pack", s)
	}
	uri, err := syntax.ParseATURI(s)
	if err != nil {
		return "", err
	}
	if uri.RecordKey() == "" {
		return "", fmt.Errorf("%q names no record", s)
	}
	return uri, nil
}

// ParseAccount reads the name of an account: a handle with or without "@", a DID, an at-uri, or the address of its page.
func ParseAccount(s string) (syntax.AtIdentifier, error) {
	s = strings.TrimSpace(s)
	if parts, ok := webPath(s); ok {
		if len(parts) < 2 || parts[0] != "profile" {
			return "", fmt.Errorf("%q is not the address of a profile", s)
		}
		return syntax.ParseAtIdentifier(parts[1])
	}
	if strings.HasPrefix(s, "at://") {
		uri, err := syntax.ParseATURI(s)
		return uri.Authority(), err
	}
	return syntax.ParseAtIdentifier(strings.TrimPrefix(s, "@"))
}

// webPath returns the parts of the path of an address on bsky.app.
func webPath(s string) ([]string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, false
	}
	if u.Hostname() != "bsky.app" && !strings.HasSuffix(u.Hostname(), ".bsky.app") {
		return nil, false
	}
	return strings.Split(strings.Trim(u.Path, "/"), "/"), true
}

// Ref names one version of a record: what [Client.Post] and the other writing methods return, and what a like, a repost, a
// reply or a quote points at.
type Ref = client.Ref

func strong(r Ref) comatproto.RepoStrongRef {
	return comatproto.RepoStrongRef{Uri: string(r.URI), Cid: r.CID.String()}
}

// Ref finds out the present version of a record, and turns a handle in its name into the DID.
func (c *Client) Ref(ctx context.Context, record string) (Ref, error) {
	r, err := c.read(ctx, record)
	if err != nil {
		return Ref{}, err
	}
	return Ref{URI: r.URI, CID: r.CID}, nil
}

// read fetches a record from the PDS of whoever it is of.
func (c *Client) read(ctx context.Context, record string) (*client.Record[data.Raw], error) {
	uri, err := ParseURI(record)
	if err != nil {
		return nil, err
	}
	did, err := c.resolve(ctx, string(uri.Authority()))
	if err != nil {
		return nil, err
	}
	uri = uri.WithAuthority(syntax.AtIdentifier(did))
	from := c.pds
	if did != c.did {
		doc, err := c.o.Identity.ResolveDID(ctx, did)
		if err != nil {
			return nil, err
		}
		if doc.PDS == "" {
			return nil, fmt.Errorf("the identity of %s names no PDS", did)
		}
		if doc.PDS != c.pds.Host() {
			from = client.New(doc.PDS, client.Options{HTTP: c.o.found, Now: c.o.Now, Retry: c.o.Retry})
		}
	}
	return client.Get[data.Raw](ctx, from, uri, client.GetOptions{})
}
