package syntax

import "strings"

// Language is a BCP 47 language tag, such as "ja" or "pt-BR".
type Language string

// ParseLanguage reads a valid tag: well-formed (RFC 5646), the primary language in lower case with two or three
// letters, and no variant or extension repeated, nor more than eight variants. Whether the subtags are registered is not looked
// up.
func ParseLanguage(s string) (Language, error) {
	return parse[Language](KindLanguage, s, checkLanguage(s, true))
}

// WellFormedLanguage reports whether s has the form of a language tag, which is what the lexicon format asks for.
func WellFormedLanguage(s string) bool { return checkLanguage(s, false) == "" }

// irregular lists the old registrations that do not follow the grammar. The regular ones need no list.
var irregular = []string{
	"en-GB-oed", "i-ami", "i-bnn", "i-default", "i-enochian", "i-hak", "i-klingon", "i-lux", "i-mingo", "i-navajo", "i-pwn",
	"i-tao", "i-tay", "i-tsu", "sgn-BE-FR", "sgn-BE-NL", "sgn-CH-DE",
}

// subtags walks the parts of a tag without allocating.
type subtags struct {
	rest string
	cur  string // the current subtag, "" past the end
	done bool
}

func (t *subtags) next() {
	if t.done {
		t.cur = ""
		return
	}
	if i := strings.IndexByte(t.rest, '-'); i >= 0 {
		t.cur, t.rest = t.rest[:i], t.rest[i+1:]
		return
	}
	t.cur, t.rest, t.done = t.rest, "", true
}

func all(s string, set uint8) bool {
	for i := range len(s) {
		if class[s[i]]&set == 0 {
			return false
		}
	}
	return true
}

func isVariant(s string) bool {
	return len(s) >= 5 || len(s) == 4 && class[s[0]]&cDigit != 0
}

func checkLanguage(s string, strict bool) string {
	// Length and alphabet of every subtag, once for all.
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '-' {
			if class[s[i]]&cAlnum == 0 {
				return "character not allowed"
			}
			continue
		}
		if i == start || i-start > 8 {
			return "subtag must have 1 to 8 characters"
		}
		start = i + 1
	}
	for _, g := range irregular {
		if len(g) == len(s) && strings.EqualFold(g, s) {
			return ""
		}
	}
	t := subtags{rest: s}
	t.next()
	if strings.EqualFold(t.cur, "x") {
		if t.done {
			return "nothing after x"
		}
		return ""
	}
	switch n := len(t.cur); {
	case n < 2 || !all(t.cur, cLetter):
		return "primary language must be letters"
	case strict && (n > 3 || !all(t.cur, cLower)):
		return "primary language must be two or three lower-case letters"
	case n <= 3:
		t.next()
		for range 3 { // extended language
			if len(t.cur) != 3 || !all(t.cur, cLetter) {
				break
			}
			t.next()
		}
	default:
		t.next()
	}
	if len(t.cur) == 4 && all(t.cur, cLetter) { // script
		t.next()
	}
	if len(t.cur) == 2 && all(t.cur, cLetter) || len(t.cur) == 3 && all(t.cur, cDigit) { // region
		t.next()
	}
	var variants [8]string
	n := 0
	for isVariant(t.cur) {
		if strict {
			for _, v := range variants[:n] {
				if strings.EqualFold(v, t.cur) {
					return "variant is repeated"
				}
			}
			if n == len(variants) {
				return "more than eight variants"
			}
			variants[n] = t.cur
			n++
		}
		t.next()
	}
	var singletons [128]bool
	for len(t.cur) == 1 && !strings.EqualFold(t.cur, "x") {
		c := t.cur[0] | 0x20 // lower case; digits already have the bit
		if strict && singletons[c] {
			return "extension is repeated"
		}
		singletons[c] = true
		t.next()
		if len(t.cur) < 2 {
			return "extension without content"
		}
		for len(t.cur) >= 2 {
			t.next()
		}
	}
	switch {
	case strings.EqualFold(t.cur, "x"):
		if t.done {
			return "nothing after x"
		}
		return ""
	case t.cur != "":
		return "subtag out of place"
	}
	return ""
}
