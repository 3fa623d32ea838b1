package explorer

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/syntax"
)

// SearchPage is the box with examples.
type SearchPage struct {
	Query    string    `json:"query"`
	Message  string    `json:"message,omitempty"`
	Examples []Example `json:"examples"`
}

// Example is something that can be searched for.
type Example struct {
	What string `json:"what"`
	Text string `json:"text"`
}

var examples = []Example{
	{"A handle", "alice.test"},
	{"A DID", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"},
	{"An at-uri", "at://alice.test/app.bsky.feed.post/3kxyz…"},
	{"A link to bsky.app", "https://bsky.app/profile/alice.test/post/3kxyz…"},
	{"A collection or lexicon", "app.bsky.feed.post"},
	{"The CID of a recent record or a blob", "bafyrei…"},
}

// bskyPaths are the parts of addresses at bsky.app and what they stand for.
var bskyPaths = map[string]string{
	"post": "app.bsky.feed.post", "feed": "app.bsky.feed.generator", "lists": "app.bsky.graph.list", "labeler": "app.bsky.labeler.service",
}

func (s *Service) search(_ context.Context, r *http.Request) (*View, error) {
	raw := strings.TrimSpace(r.URL.Query().Get("q"))
	if to := s.target(raw); to != "" {
		return nil, &redirect{to}
	}
	p := &SearchPage{Query: foreign.Line(raw, 300), Examples: examples}
	v := &View{Title: "Search", Name: "search", Data: p, Query: p.Query}
	if raw != "" {
		v.Status = http.StatusNotFound
		p.Message = "That is nothing that can be looked up directly. The explorer finds things by their address; it doesn’t search in texts."
		if _, err := cid.Parse(raw); err == nil {
			p.Message = "A CID says what something is, not where it is. None of the newest events tells of this one."
		}
	}
	return v, nil
}

// target is the page that a query leads to, "" if there is none.
func (s *Service) target(q string) string {
	if q == "" || len(q) > 4096 {
		return ""
	}
	// Characters that can't be seen come along when addresses are copied from texts.
	q = strings.Map(func(r rune) rune {
		if foreign.Unseen(r) {
			return -1
		}
		return r
	}, q)
	q = strings.Trim(q, " \t\r\n<>\"'“”‘’,;")
	q = strings.TrimPrefix(q, "@")
	if i := strings.Index(q, "at://"); i >= 0 {
		uri, _, _ := strings.Cut(q[i:], "#")
		uri, _, _ = strings.Cut(uri, "?")
		return atHref(strings.TrimRight(uri, "/"))
	}
	if strings.HasPrefix(q, "https://") || strings.HasPrefix(q, "http://") {
		return urlTarget(q)
	}
	if syntax.ValidDID(q) {
		return accountHref(q)
	}
	if c, err := cid.Parse(q); err == nil {
		if did, collection, rkey, ok := s.tail.find(c.String()); ok {
			return recordHref(did, collection, rkey)
		}
		return ""
	}
	// A name of three parts can be both a handle and a collection. Schemas that are known, and names with capitals, which
	// handles don't keep, are collections.
	nsid := syntax.ValidNSID(q)
	if nsid {
		if s.catalog().Schema(syntax.NSID(q)) != nil || strings.ToLower(q) != q {
			return lexiconHref(q)
		}
	}
	if h := strings.ToLower(q); syntax.ValidHandle(h) {
		if nsid {
			for _, first := range []string{"app.", "com.", "chat.", "tools.", "blue.", "social.", "org.", "dev.", "net.", "io.", "fyi.", "place.", "site.", "sh.", "community."} {
				if strings.HasPrefix(h, first) {
					return lexiconHref(q)
				}
			}
		}
		return accountHref(h)
	}
	if id, rest, ok := strings.Cut(q, "/"); ok { // an at-uri without its scheme
		if _, err := syntax.ParseAtIdentifier(id); err == nil {
			return atHref("at://" + id + "/" + strings.TrimRight(rest, "/"))
		}
	}
	return ""
}

// urlTarget knows the addresses of bsky.app and of pages that are made like it.
func urlTarget(q string) string {
	u, err := url.Parse(q)
	if err != nil {
		return ""
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	for i, part := range parts {
		switch {
		case part == "profile" && i+1 < len(parts):
			id := parts[i+1]
			if _, err := syntax.ParseAtIdentifier(id); err != nil {
				return ""
			}
			if i+3 < len(parts) {
				if collection := bskyPaths[parts[i+2]]; collection != "" && syntax.ValidRecordKey(parts[i+3]) {
					return recordHref(id, collection, parts[i+3])
				}
			}
			return accountHref(id)
		case part == "starter-pack" && i+2 < len(parts), part == "start" && i+2 < len(parts):
			if _, err := syntax.ParseAtIdentifier(parts[i+1]); err == nil && syntax.ValidRecordKey(parts[i+2]) {
				return recordHref(parts[i+1], "app.bsky.graph.starterpack", parts[i+2])
			}
		case strings.HasPrefix(part, "did:") && syntax.ValidDID(part):
			return accountHref(part)
		}
	}
	return ""
}
