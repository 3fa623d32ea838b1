package explorer

import (
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/syntax"
)

// Segment is a stretch of text, or one character that must be made visible.
type Segment struct {
	Text string `json:"t,omitempty"`
	Mark string `json:"m,omitempty"` // name of a character that isn't shown itself, such as "U+202E"
}

// maxMarks bounds the combining characters on one letter: more would paint over the lines around it.
const maxMarks = 4

// segments cuts a text where characters are that can't be seen, turn the direction of writing, or drive a terminal.
func segments(s string) []Segment {
	var out []Segment
	start, marks := 0, 0
	var prev rune
	for i, r := range s {
		size := utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, size = utf8.DecodeRuneInString(s[i:])
		}
		if unicode.In(r, unicode.Mn, unicode.Me) && !emojiPart(r) {
			marks++
		} else {
			marks = 0
		}
		if marks <= maxMarks && (!unseen(r) || joins(r, prev, s[i+size:])) {
			prev = r
			continue
		}
		if start < i {
			out = append(out, Segment{Text: s[start:i]})
		}
		out = append(out, Segment{Mark: fmt.Sprintf("U+%04X", r)})
		start, prev = i+size, r
	}
	if start < len(s) {
		out = append(out, Segment{Text: s[start:]})
	}
	return out
}

// unseen reports whether a character shows nothing, or changes how others are shown.
func unseen(r rune) bool {
	switch {
	case r == '\n' || r == '\t' || r >= ' ' && r < 0x7f:
		return false
	case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xad:
		return true
	case r == 0x034f || r == 0x115f || r == 0x1160 || r == 0x17b4 || r == 0x17b5 || r == 0x3164 || r == 0xffa0 || r == 0x2800:
		return true
	case r == 0x2028 || r == 0x2029 || r == utf8.RuneError:
		return true
	case r >= 0xfe00 && r <= 0xfe0f || r >= 0xe0100 && r <= 0xe01ef: // variation selectors
		return true
	}
	// Format characters: bidirectional controls, zero-width ones, tags, and what else may come in later versions of Unicode.
	return unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs) || r > 0xe0000 && r < 0xe1000
}

// joins reports whether an unseen character has its proper place: it joins the parts of an emoji, or letters of a script
// that needs it.
func joins(r, prev rune, rest string) bool {
	next, _ := utf8.DecodeRuneInString(rest)
	switch {
	case r == 0x200d: // zero width joiner
		return pictograph(prev) && pictograph(next) || joining(prev) && joining(next)
	case r == 0x200c: // zero width non-joiner
		return joining(prev) && joining(next)
	case r == 0xfe0f || r == 0xfe0e: // how an emoji is shown
		return pictograph(prev) || prev == '#' || prev == '*' || prev >= '0' && prev <= '9' && (next == 0x20e3 || next == utf8.RuneError)
	case r >= 0xe0020 && r <= 0xe007f: // the tags of a flag
		return prev == 0x1f3f4 || prev >= 0xe0020 && prev <= 0xe007f
	}
	return false
}

func emojiPart(r rune) bool { return r == 0xfe0f || r == 0x200d || r == 0x20e3 }

func pictograph(r rune) bool {
	return r >= 0x1f000 && r < 0x20000 || r >= 0x2190 && r < 0x2c00 || r == 0xfe0f || r == 0xa9 || r == 0xae || r == 0x203c || r == 0x2049 || r == 0x2122 ||
		r == 0x2139 || r == 0x3030 || r == 0x303d || r == 0x3297 || r == 0x3299
}

func joining(r rune) bool {
	return unicode.In(r, unicode.Arabic, unicode.Devanagari, unicode.Bengali, unicode.Gurmukhi, unicode.Gujarati, unicode.Oriya, unicode.Tamil,
		unicode.Telugu, unicode.Kannada, unicode.Malayalam, unicode.Sinhala, unicode.Khmer, unicode.Mongolian, unicode.Syriac, unicode.Nko, unicode.Myanmar)
}

// hostile returns a text that came from others as HTML: escaped, isolated in its direction, with unseen characters shown by
// their number.
func hostile(s string) template.HTML {
	var b strings.Builder
	b.WriteString("<bdi>")
	for _, g := range segments(s) {
		if g.Mark != "" {
			b.WriteString(`<span class="ctl" title="a character that can’t be seen">` + g.Mark + `</span>`) // hexadecimal digits
			continue
		}
		template.HTMLEscape(&b, []byte(g.Text))
	}
	b.WriteString("</bdi>")
	return template.HTML(b.String())
}

// plain is the same as text without markup, for attributes and titles. Such text can't be isolated by an element, but after
// this nothing in it turns its direction by force.
func plain(s string) string {
	var b strings.Builder
	for _, g := range segments(s) {
		if g.Mark != "" {
			b.WriteString("⟨" + g.Mark + "⟩")
			continue
		}
		b.WriteString(g.Text)
	}
	return b.String()
}

// clip cuts a text after max characters and returns how many were cut.
func clip(s string, max int) (string, int) {
	if len(s) <= max {
		return s, 0
	}
	n := 0
	for i := range s {
		if n == max {
			return s[:i], utf8.RuneCountInString(s[i:])
		}
		n++
	}
	return s, 0
}

// line makes one line of at most max characters.
func line(s string, max int) string {
	if len(s) > 8*max {
		s = s[:8*max]
		for len(s) > 0 { // don't leave half a character
			if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	out, cut := clip(strings.Join(strings.Fields(s), " "), max)
	if cut > 0 {
		out += "…"
	}
	return out
}

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
		if unseen(r) {
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
