package difftest

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	peer "github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/syntax"
)

// syntaxTypes are the identifiers and formats that both sides read: what each makes of a string is its parts and its normal
// form, as far as both have them.
var syntaxTypes = []struct {
	name         string
	fixture      string // of the files in atproto-interop/syntax
	ours, theirs func(s string) (any, error)
	seeds        []string
	table        table[string]
}{
	{
		name: "DID", fixture: "did",
		ours: func(s string) (any, error) {
			d, err := syntax.ParseDID(s)
			return []string{string(d), d.Method(), d.Identifier()}, err
		},
		theirs: func(s string) (any, error) {
			d, err := peer.ParseDID(s)
			return []string{d.String(), d.Method(), d.Identifier()}, err
		},
	},
	{
		name: "handle", fixture: "handle",
		ours: func(s string) (any, error) {
			h, err := syntax.ParseHandle(s)
			return []any{string(h), h.Normalize().TLD(), string(h.Normalize()), !h.Reserved()}, err
		},
		theirs: func(s string) (any, error) {
			h, err := peer.ParseHandle(s)
			return []any{h.String(), h.TLD(), h.Normalize().String(), h.AllowedTLD()}, err
		},
		seeds: []string{"a.example", "a.LOCAL", "a.alt", "a.arpa", "a.onion", "a.internal", "a.invalid", "a.localhost", "a.test", "xn--ls8h.test"},
	},
	{
		name: "at-identifier", fixture: "atidentifier",
		ours: func(s string) (any, error) {
			i, err := syntax.ParseAtIdentifier(s)
			return []string{string(i), string(i.Normalize())}, err
		},
		theirs: func(s string) (any, error) {
			i, err := peer.ParseAtIdentifier(s)
			return []string{i.String(), i.Normalize().String()}, err
		},
	},
	{
		name: "NSID", fixture: "nsid",
		ours: func(s string) (any, error) {
			n, err := syntax.ParseNSID(s)
			if err != nil {
				return nil, err
			}
			return []string{string(n), strings.ToLower(n.Authority()), n.Name(), string(n.Normalize())}, nil
		},
		theirs: func(s string) (any, error) {
			n, err := peer.ParseNSID(s)
			if err != nil {
				return nil, err
			}
			return []string{n.String(), n.Authority(), n.Name(), n.Normalize().String()}, nil
		},
	},
	{
		name: "record key", fixture: "recordkey",
		ours:   func(s string) (any, error) { k, err := syntax.ParseRecordKey(s); return string(k), err },
		theirs: func(s string) (any, error) { k, err := peer.ParseRecordKey(s); return k.String(), err },
	},
	{
		name: "TID", fixture: "tid",
		ours: func(s string) (any, error) {
			t, err := syntax.ParseTID(s)
			if err != nil {
				return nil, err
			}
			return []any{string(t), t.Integer(), t.Time().UnixMicro(), t.ClockID(), string(syntax.TIDFromInteger(t.Integer()))}, nil
		},
		theirs: func(s string) (any, error) {
			t, err := peer.ParseTID(s)
			if err != nil {
				return nil, err
			}
			return []any{t.String(), t.Integer(), t.Time().UnixMicro(), t.ClockID(), peer.NewTIDFromInteger(t.Integer()).String()}, nil
		},
		table: table[string]{list: []difference[string]{{
			name: "top bit counted as time", right: ours, rule: "53 bits of microseconds below a bit that should be 0, https://atproto.com/specs/tid",
			holds: func(s string, mine, theirs answer) bool {
				return mine.err == nil && theirs.err == nil && s[0] >= 'c' &&
					theirs.value.([]any)[2].(int64)-mine.value.([]any)[2].(int64) == 1<<53
			},
			shown: []string{"czzzzzzzzzzzz", "j222222222222"},
		}}},
	},
	{
		name: "AT-URI", fixture: "aturi",
		ours: func(s string) (any, error) {
			u, err := syntax.ParseATURI(s)
			if err != nil {
				return nil, err
			}
			return []string{string(u), string(u.Authority()), string(u.Collection()), string(u.RecordKey()), u.Path(), string(u.Normalize())}, nil
		},
		theirs: func(s string) (any, error) {
			u, err := peer.ParseATURI(s)
			if err != nil {
				return nil, err
			}
			return []string{u.String(), u.Authority().String(), u.Collection().String(), u.RecordKey().String(), u.Path(), u.Normalize().String()}, nil
		},
		seeds: []string{"at://ALICE.test/com.EXAMPLE.fooBar/self", "at://ALICE.test/com.EXAMPLE.fooBar"},
		table: table[string]{list: []difference[string]{{
			name: "collection without a record key not normalised", right: ours, rule: "the authority of an NSID in lower case, https://atproto.com/specs/at-uri-scheme",
			holds: func(s string, mine, theirs answer) bool {
				u, err := syntax.ParseATURI(s)
				return err == nil && theirs.err == nil && u.RecordKey() == "" && u.Collection() != u.Collection().Normalize()
			},
			shown: []string{"at://alice.test/com.EXAMPLE.fooBar"},
		}}},
	},
	{
		name: "path", fixture: "aturi", // without its first part, see paths
		ours: func(s string) (any, error) {
			c, k, err := syntax.ParsePath(s)
			return []string{string(c), string(k)}, err
		},
		theirs: func(s string) (any, error) {
			c, k, err := peer.ParseRepoPath(s)
			return []string{c.String(), k.String()}, err
		},
		seeds: []string{"app.bsky.feed.post/3jzfcijpj2z2a", "a.b.c/self", "a.b.c/", "/a.b.c/x", "a.b.c/x/y", "a.b.c", "a.b.c/.."},
	},
	{
		name: "datetime", fixture: "datetime",
		ours: func(s string) (any, error) {
			d, err := syntax.ParseDatetime(s)
			return []any{string(d), d.Time().UnixNano()}, err
		},
		theirs: func(s string) (any, error) {
			d, err := peer.ParseDatetime(s)
			return []any{d.String(), d.Time().UnixNano()}, err
		},
		seeds: []string{"1985-04-12T23:20:50.1234567891234567890123Z", "9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00+00:01", "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z",
			"1985-04-12T23:20:60Z", "1985-04-12T24:00:00Z", "1985-04-12T23:20:50,123Z", "1985-04-12T23:20:50x123Z", "1985-04-12T23:20:50+24:00"},
		table: table[string]{list: []difference[string]{
			{
				name: "more than 20 digits of a fraction", right: ours, rule: "any number of digits, " + specSyntax,
				holds: func(s string, mine, theirs answer) bool {
					return mine.err == nil && theirs.err != nil && regexp.MustCompile(`\.[0-9]{21,}[Z+-]`).MatchString(s)
				},
				shown: []string{"1985-04-12T23:20:50.123456789012345678901Z"},
			},
			{
				name: "year beyond 9999 in UTC", right: ours, rule: "the year is 0 to 9999 after conversion to UTC, " + specSyntax,
				holds: func(s string, mine, theirs answer) bool {
					t, err := time.Parse(time.RFC3339Nano, s)
					return mine.err != nil && theirs.err == nil && err == nil && t.UTC().Year() > 9999
				},
				shown: []string{"9999-12-31T23:59:59-00:01"},
			},
			{
				name: "comma before the fraction", right: ours, rule: "a point, " + specSyntax,
				holds: func(s string, mine, theirs answer) bool {
					return mine.err != nil && theirs.err == nil && len(s) > 19 && s[19] == ','
				},
				shown: []string{"1985-04-12T23:20:50,123Z"},
			},
			{
				name: "offset of 24 hours", right: ours, rule: "hours of an offset are 00 to 23, RFC 3339 section 5.6",
				holds: func(s string, mine, theirs answer) bool {
					return mine.err != nil && theirs.err == nil && regexp.MustCompile(`[+-]24:[0-5][0-9]$`).MatchString(s)
				},
				shown: []string{"1985-04-12T23:20:50+24:00"},
			},
		}},
	},
	{
		name: "language", fixture: "language",
		ours:   func(s string) (any, error) { l, err := syntax.ParseLanguage(s); return string(l), err },
		theirs: func(s string) (any, error) { l, err := peer.ParseLanguage(s); return l.String(), err },
		seeds: []string{"ja", "pt-BR", "zh-Hant-TW", "sl-rozaj-biske", "de-CH-1901", "x-private", "X-fr-CH", "i-klingon", "en-GB-oed", "sgn-BE-FR", "de-419-DE", "de-DE-1901-1901", "a-DE", "ar-a-aaa-b-bbb-a-ccc",
			"en-a", "en-a-x", "en-toolongsubtag", "i", "i-x", "en-x-" + strings.Repeat("abcdefgh-", 16) + "a"},
		table: table[string]{list: []difference[string]{
			{
				name: "only the primary language is looked at", right: ours, rule: "RFC 5646 section 2.1, " + specSyntax,
				holds: func(s string, mine, theirs answer) bool {
					return mine.err != nil && theirs.err == nil && !languageTag.MatchString(s) || mine.err != nil && theirs.err == nil && repeatedSubtag(s)
				},
				shown: []string{"de-419-DE", "de-DE-1901-1901", "en-a", "ar-a-aaa-b-bbb-a-ccc", "i-x", "en-toolongsubtag"},
			},
			{
				name: "private use and old tags refused", right: ours, rule: "x-… and the irregular tags, in any case, are well-formed, RFC 5646 section 2.1, " + fixturesSuite,
				holds: func(s string, mine, theirs answer) bool {
					return mine.err == nil && theirs.err != nil && (strings.EqualFold(s[:2], "x-") || irregularTag.MatchString(s))
				},
				shown: []string{"X-fr-CH", "x-private", "I-KLINGON", "SGN-BE-fr"},
			},
			{
				name: "more than 128 bytes", right: open, rule: "no limit is given, " + specSyntax,
				holds: func(s string, mine, theirs answer) bool { return mine.err == nil && theirs.err != nil && len(s) > 128 },
				shown: []string{"en-x-" + strings.Repeat("abcdefgh-", 16) + "a"},
			},
		}},
	},
	{
		name: "URI", fixture: "uri",
		ours:   func(s string) (any, error) { u, err := syntax.ParseURI(s); return string(u), err },
		theirs: func(s string) (any, error) { u, err := peer.ParseURI(s); return u.String(), err },
		seeds:  []string{"https://example.com", "HTTPS://example.com", "web+ap:x", "h323:x", "a:b", "a:", "x" + strings.Repeat("y", 81) + ":z", "a:é", "a: b"},
		table: table[string]{list: []difference[string]{{
			name: "scheme of RFC 3986", right: ours, rule: "a letter, then letters, digits, plus, minus and point, in any case and of any length, RFC 3986 section 3.1",
			holds: func(s string, mine, theirs answer) bool {
				scheme, _, _ := strings.Cut(s, ":")
				return mine.err == nil && theirs.err != nil && regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*$`).MatchString(scheme) &&
					!regexp.MustCompile(`^[a-z][a-z.-]{0,80}$`).MatchString(scheme)
			},
			shown: []string{"HTTPS://example.com", "web+ap:x", "h323:x", "x" + strings.Repeat("y", 81) + ":z"},
		}}},
	},
	{
		name: "CID format", fixture: "cid",
		ours: func(s string) (any, error) {
			if !syntax.ValidCID(s) {
				return nil, fmt.Errorf("no CID")
			}
			return s, nil
		},
		theirs: func(s string) (any, error) { c, err := peer.ParseCID(s); return c.String(), err },
		seeds:  []string{"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR"},
		table: table[string]{list: []difference[string]{{
			name: "version 0 beyond Qmb", right: ours, rule: "version 0 is not allowed; every one of its strings begins with Qm, " + specSyntax,
			holds: func(s string, mine, theirs answer) bool {
				return mine.err != nil && theirs.err == nil && strings.HasPrefix(s, "Qm") && !strings.HasPrefix(s, "Qmb")
			},
			shown: []string{"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"},
		}}},
	},
}

func init() {
	for i := range syntaxTypes {
		syntaxTypes[i].table.name = "indigo " + syntaxTypes[i].name
	}
}

var irregularTag = regexp.MustCompile(`(?i)^(en-GB-oed|i-(ami|bnn|default|enochian|hak|klingon|lux|mingo|navajo|pwn|tao|tay|tsu)|sgn-(BE-FR|BE-NL|CH-DE))$`)

// languageTag is the grammar of RFC 5646 with a primary language as the protocol's list of cases wants it: two or three
// letters in lower case.
var languageTag = regexp.MustCompile(`^[a-z]{2,3}(-[A-Za-z]{3}){0,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(-([A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}))*` +
	`(-[0-9A-WY-Za-wy-z](-[A-Za-z0-9]{2,8})+)*(-[xX](-[A-Za-z0-9]{1,8})+)?$`)

// repeatedSubtag reports whether a tag has a variant or the letter of an extension twice.
func repeatedSubtag(s string) bool {
	parts := strings.Split(strings.ToLower(s), "-")
	seen := map[string]bool{}
	extension := false
	for i, p := range parts {
		if p == "x" {
			break
		}
		variant := !extension && i > 0 && (len(p) >= 5 || len(p) == 4 && p[0] <= '9')
		extension = extension || len(p) == 1
		if variant || len(p) == 1 {
			if seen[p] {
				return true
			}
			seen[p] = true
		}
	}
	return false
}

// FuzzSyntax compares every type on the same string.
func FuzzSyntax(f *testing.F) {
	for i := range syntaxTypes {
		for _, s := range syntaxSeeds(f, i) {
			f.Add(s, uint64(0))
		}
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		if seed != 0 {
			s = mutateText(s, seed)
		}
		for i := range syntaxTypes {
			compareSyntax(t, i, s)
		}
	})
}

func compareSyntax(t testing.TB, i int, s string) string {
	t.Helper()
	k := &syntaxTypes[i]
	return k.table.judge(t, s, ask(func() (any, error) { return k.ours(s) }), ask(func() (any, error) { return k.theirs(s) }))
}

func TestSyntaxMutations(t *testing.T) {
	for i := range syntaxTypes {
		k := &syntaxTypes[i]
		t.Run(k.name, func(t *testing.T) {
			for _, s := range syntaxSeeds(t, i) {
				compareSyntax(t, i, s)
				for seed := range rounds(150) {
					compareSyntax(t, i, mutateText(s, uint64(seed)+1))
				}
			}
		})
	}
}

func syntaxSeeds(t testing.TB, i int) []string {
	k := &syntaxTypes[i]
	list := k.seeds
	for _, kind := range []string{"valid", "invalid"} {
		for _, s := range lines(fixtures.Read(t, "atproto-interop/syntax/"+k.fixture+"_syntax_"+kind+".txt")) {
			if k.name == "path" {
				_, s, _ = strings.Cut(strings.TrimPrefix(s, "at://"), "/")
			}
			list = append(list, s)
		}
	}
	return list
}

func mutateText(s string, seed uint64) string {
	r := seeded(seed)
	b := []byte(s)
	for range 1 + r.IntN(2) {
		n := r.IntN(len(b) + 1)
		switch r.IntN(8) {
		case 0: // a character that matters somewhere
			b = append(b[:n:n], append([]byte{".:/-_~%+#?@=ZTxiA0 79"[r.IntN(21)]}, b[n:]...)...)
		case 1:
			b = scramble(b, r)
		case 2: // a part again
			m := n + r.IntN(len(b)-n+1)
			b = append(b[:m:m], append([]byte(s)[min(n, len(s)):min(m, len(s))], b[m:]...)...)
		case 3: // long
			if len(b) > 0 {
				n = min(n, len(b)-1)
				b = append(b[:n:n], append([]byte(strings.Repeat(string(b[n:n+1]), pick(r, 2, 61, 62, 63, 64, 200, 500, 2048))), b[n:]...)...)
			}
		case 4: // digits of dates, offsets and versions
			if n < len(b) && b[n] >= '0' && b[n] <= '9' {
				b[n] = byte('0' + r.IntN(10))
			}
		case 5: // the other case
			if n < len(b) && (b[n]|0x20) >= 'a' && (b[n]|0x20) <= 'z' {
				b[n] ^= 0x20
			}
		case 6: // cut
			b = b[:n:n]
		default: // another letter
			if n < len(b) {
				b[n] = "abcxyz0123456789-.:"[r.IntN(19)]
			}
		}
	}
	return string(b)
}
