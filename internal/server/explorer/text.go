package explorer

import (
	"net/url"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/syntax"
)

// short abbreviates a CID or DID in the middle.
func short(s string) string {
	if len(s) <= 24 {
		return s
	}
	return s[:12] + "…" + s[len(s)-6:]
}

// The addresses of pages. They hold nothing but identifiers whose syntax was checked, or are escaped.

func accountHref(id string) string { return "/at/" + segment(id) }

func collectionHref(id, collection string) string {
	return accountHref(id) + "/" + segment(collection)
}

func recordHref(id, collection, rkey string) string {
	h := collectionHref(id, collection) + "/" + segment(rkey)
	if strings.HasSuffix(rkey, ".json") {
		h += "?format=html" // the end of the path would ask for the JSON twin
	}
	return h
}

func blobHref(did, c string) string { return "/blob/" + segment(did) + "/" + segment(c) }

func lexiconHref(nsid string) string { return "/lexicon/" + segment(nsid) }

// segment escapes one segment of a path.
func segment(s string) string { return url.PathEscape(s) }

// atHref is where an at-uri leads, "" if it is none.
func atHref(uri string) string {
	u, err := syntax.ReadATURI(uri)
	if err != nil {
		return ""
	}
	return atURIHref(u)
}

func atURIHref(u syntax.ATURI) string {
	switch {
	case u.RecordKey() != "":
		return recordHref(string(u.Authority()), string(u.Collection()), string(u.RecordKey()))
	case u.Collection() != "":
		return collectionHref(string(u.Authority()), string(u.Collection()))
	}
	return accountHref(string(u.Authority()))
}

// textHref decides whether a text in a record is a link, and where it leads: to an at-uri, a DID, or outside over http(s). did
// is whose record it is, for links to blobs.
func textHref(s string) (href string, outside bool) {
	if len(s) > 2048 {
		return "", false
	}
	switch {
	case strings.HasPrefix(s, "at://"):
		return atHref(s), false
	case strings.HasPrefix(s, "did:"):
		if syntax.ValidDID(s) {
			return accountHref(s), false
		}
	case strings.HasPrefix(s, "https://"), strings.HasPrefix(s, "http://"):
		return outsideHref(s), true
	}
	return "", false
}

// outsideHref returns the address in the form that a browser is given, "" if it shouldn't be one. Addresses with a user part
// are left out because they look like another host, and so are those with characters that can't be seen.
func outsideHref(s string) string {
	if strings.ContainsAny(s, " \t\r\n\"'<>\\`") {
		return ""
	}
	for _, r := range s {
		if foreign.Unseen(r) {
			return ""
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Opaque != "" {
		return ""
	}
	return u.String()
}

// isBlobCID reports whether c can be a blob's.
func isBlobCID(c cid.CID) bool { return c.Defined() && c.Codec() == cid.Raw }
