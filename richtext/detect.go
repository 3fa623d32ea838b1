package richtext

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
	"golang.org/x/net/publicsuffix"

	"github.com/barograph/baro/syntax"
)

// Kind says what a span is.
type Kind uint8

// The kinds of spans. A cashtag such as $ABC is a tag whose value keeps the "$".
const (
	Mention Kind = iota + 1
	Link
	Tag
)

func (k Kind) String() string {
	switch k {
	case Mention:
		return "mention"
	case Link:
		return "link"
	case Tag:
		return "tag"
	}
	return "unknown"
}

// Span is something found in a text: the bytes from Start up to End. Value is the handle of a mention, in lower case and
// without "@"; the address of a link, with a scheme also where the text has none; or the tag without "#".
type Span struct {
	Start, End int
	Kind       Kind
	Value      string
}

// Detect finds mentions, links, tags and cashtags by the rules that readers know from Bluesky's own apps, except that a
// domain without scheme may have hyphens and an e-mail address is no link. Spans are sorted and don't overlap. Time is
// linear in the text.
//
//   - mention: after a space or "(": "@" and a handle that ends in a top-level domain or in .test
//   - link: after a space or "(": http:// or https:// and what follows, or a domain with a known top-level domain and what
//     follows; of the punctuation that closes a sentence one character is left out, then a ")" that was not opened
//   - tag: after a space: "#" or "＃" and text with at least one character that is neither digit nor punctuation; at most
//     [MaxTagGraphemes]; punctuation at its end is left out
//   - cashtag: after a space or "(": "$", a letter and up to four letters or digits, then a space, punctuation or the end
func Detect(text string) []Span {
	var spans []Span
	open := true // whether the character before lets something start here
	paren := false
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if open {
			var s Span
			var ok bool
			switch {
			case r == '@':
				s, ok = mentionAt(text, i)
			case r == '#' || r == '＃':
				if !paren {
					s, ok = tagAt(text, i, size)
				}
			case r == '$':
				s, ok = cashtagAt(text, i)
			default:
				s, ok = linkAt(text, i)
			}
			if ok {
				spans = append(spans, s)
				i = s.End
				open = false
				continue
			}
		}
		paren = r == '('
		open = paren || space(r)
		i += size
	}
	return spans
}

// Resolve finds what [Detect] finds and makes facets of it. Mentions are looked up by resolve, each handle once; a handle
// that it has no DID for stays plain text. The only error is that of a context which is done.
func Resolve(ctx context.Context, text string, resolve func(context.Context, syntax.Handle) (syntax.DID, error)) (Text, error) {
	t := Text{Text: text}
	return t, t.Detect(ctx, resolve)
}

// Detect adds facets for what is found in the text, as [Resolve] does, beside those that are there.
func (t *Text) Detect(ctx context.Context, resolve func(context.Context, syntax.Handle) (syntax.DID, error)) error {
	spans := Detect(t.Text)
	dids := map[string]string{}
	for _, s := range spans {
		if s.Kind != Mention || resolve == nil {
			continue
		}
		if _, asked := dids[s.Value]; asked {
			continue
		}
		did, err := resolve(ctx, syntax.Handle(s.Value))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			did = ""
		}
		dids[s.Value] = string(did)
	}
	t.Add(spans, func(handle string) string { return dids[handle] })
	return nil
}

func mentionAt(text string, at int) (Span, bool) {
	end := at + 1
	for end < len(text) && (alnum(text[end]) || text[end] == '.' || text[end] == '-') {
		end++
	}
	if end < len(text) && text[end] == '_' {
		return Span{}, false
	}
	for end > at+1 && !alnum(text[end-1]) {
		end--
	}
	handle, err := syntax.ParseHandle(text[at+1 : end])
	if err != nil {
		return Span{}, false
	}
	name := string(handle.Normalize())
	if !strings.HasSuffix(name, ".test") && !knownDomain(name) {
		return Span{}, false
	}
	return Span{Start: at, End: end, Kind: Mention, Value: name}, true
}

func linkAt(text string, at int) (Span, bool) {
	rest := text[at:]
	scheme := schemeOf(rest)
	if scheme == 0 && !startsWithDomain(rest) {
		return Span{}, false
	}
	if n := strings.IndexFunc(rest, space); n >= 0 {
		rest = rest[:n]
	}
	if strings.ContainsRune(".,;:!?", rune(rest[len(rest)-1])) {
		rest = rest[:len(rest)-1]
	}
	if strings.HasSuffix(rest, ")") && !strings.Contains(rest, "(") {
		rest = rest[:len(rest)-1]
	}
	if len(rest) <= scheme {
		return Span{}, false
	}
	uri := rest
	if scheme == 0 {
		uri = "https://" + rest
	}
	return Span{Start: at, End: at + len(rest), Kind: Link, Value: uri}, true
}

// schemeOf is the length of http:// or https:// at the start of s, in any case, or 0.
func schemeOf(s string) int {
	for _, scheme := range []string{"https://", "http://"} {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return len(scheme)
		}
	}
	return 0
}

// startsWithDomain says whether s starts with a domain of a known top-level domain, and what follows it may follow one.
func startsWithDomain(s string) bool {
	if !letter(s[0]) {
		return false
	}
	end := 0
	for end < len(s) && end <= 253 && (alnum(s[end]) || s[end] == '.' || s[end] == '-') {
		end++
	}
	if r, _ := utf8.DecodeRuneInString(s[end:]); end < len(s) && (r == '@' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r)) {
		return false
	}
	name := strings.ToLower(strings.TrimRight(s[:end], ".-"))
	_, err := syntax.ParseHandle(name) // the grammar of handles is that of host names
	return err == nil && knownDomain(name)
}

// knownDomain says whether a name in lower case ends in a top-level domain that exists.
func knownDomain(name string) bool {
	suffix, icann := publicsuffix.PublicSuffix(name)
	// What nobody manages gets its last label as suffix; what is managed privately has a dot in it.
	return strings.Contains(name, ".") && (icann || strings.Contains(suffix, "."))
}

func tagAt(text string, at, size int) (Span, bool) {
	start := at + size
	if strings.HasPrefix(text[start:], "\ufe0f") {
		return Span{}, false // the keycap emoji
	}
	end := start
	solid := false
	for end < len(text) {
		r, n := utf8.DecodeRuneInString(text[end:])
		if space(r) || strings.ContainsRune("\u00ad\u2060\u200a\u200b\u200c\u200d\u20e2", r) {
			break
		}
		if !unicode.IsPunct(r) && (r < '0' || r > '9') {
			solid = true
		}
		end += n
	}
	value := strings.TrimRightFunc(text[start:end], unicode.IsPunct)
	if !solid || value == "" || uniseg.GraphemeClusterCount(value) > MaxTagGraphemes {
		return Span{}, false
	}
	return Span{Start: at, End: start + len(value), Kind: Tag, Value: value}, true
}

func cashtagAt(text string, at int) (Span, bool) {
	end := at + 1
	if end == len(text) || !letter(text[end]) {
		return Span{}, false
	}
	for end < len(text) && end-at <= 5 && alnum(text[end]) {
		end++
	}
	if r, _ := utf8.DecodeRuneInString(text[end:]); end < len(text) && !space(r) && !strings.ContainsRune(".,;:!?)\"'’", r) {
		return Span{}, false
	}
	return Span{Start: at, End: end, Kind: Tag, Value: strings.ToUpper(text[at:end])}, true
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func alnum(c byte) bool  { return letter(c) || c >= '0' && c <= '9' }

// space is what separates words: Unicode's white space and the byte order mark.
func space(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' }

// blank is white space and what has no width.
func blank(r rune) bool {
	return space(r) || r == '\u00ad' || r == '\u2060' || r >= '\u200b' && r <= '\u200d'
}
