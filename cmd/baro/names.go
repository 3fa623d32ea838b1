package main

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/syntax"
)

// readURI reads what a person types or pastes for an account, a collection or a record: a handle, a DID, an AT-URI in whatever spelling, or
// the address of a web page that shows it.
func readURI(s string) (syntax.ATURI, error) {
	s = strings.TrimSpace(s)
	if scheme, _, ok := strings.Cut(s, "://"); ok && (strings.EqualFold(scheme, "https") || strings.EqualFold(scheme, "http")) {
		return readPage(s)
	}
	uri, err := syntax.ReadATURI(s) // a DID may have a percent sign of its own
	if err != nil && strings.Contains(s, "%") {
		if t, terr := url.PathUnescape(s); terr == nil {
			return syntax.ReadATURI(t)
		}
	}
	return uri, err
}

// inPage finds an AT-URI in the address of a page, where a browser may have made one slash of two.
var inPage = regexp.MustCompile(`(?i)\bat:/{1,2}(did:[^?#&\s]+|[^/?#&\s]+\.[^?#&\s]+)`)

// readPage reads the address of a page: one that has an AT-URI in it, the explorer's, or one with the paths of bsky.app, which other apps have
// too.
func readPage(s string) (syntax.ATURI, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", err
	}
	for _, part := range []string{u.Path, u.RawQuery, u.Fragment} {
		if t, err := url.QueryUnescape(part); err == nil {
			part = t
		}
		if m := inPage.FindStringSubmatch(part); m != nil {
			return syntax.ReadATURI(m[1])
		}
	}
	if rest, ok := strings.CutPrefix(u.Path, "/at/"); ok {
		return syntax.ReadATURI(rest)
	}
	page := "https://bsky.app" + u.EscapedPath()
	if uri, err := bsky.ParseURI(page); err == nil {
		return uri, nil
	}
	at, err := bsky.ParseAccount(page)
	if err != nil || strings.Count(strings.Trim(u.Path, "/"), "/") > 2 {
		return "", fmt.Errorf("%q is the address of no account and no record that is known here", s)
	}
	return syntax.NewATURI(at, "", ""), nil
}

// parseRecord reads the name of a record.
func parseRecord(s string) (syntax.ATURI, error) {
	uri, err := readURI(s)
	switch {
	case err != nil:
		return "", usagef("%q is not an AT-URI, such as at://alice.test/app.bsky.feed.post/3l6oveex3ii2l, nor the address of a page that shows a record: %w", s, err)
	case uri.RecordKey() == "":
		return "", usagef("%s is not the URI of a record: 'baro ls %s' shows what is there", uri, strings.TrimPrefix(string(uri), "at://"))
	}
	return uri, nil
}

// parseAccount reads the name of an account: a handle, a DID, the AT-URI of either, or the address of its page.
func parseAccount(s string) (syntax.AtIdentifier, error) {
	u, err := readURI(s)
	if err != nil || u.Collection() != "" {
		return "", usagef("%q is neither a handle, such as alice.test, nor a DID, such as did:plc:ewvi7nxzyoun6zhxrhs64oiz", s)
	}
	return u.Authority(), nil
}
