package richtext

import "strings"

// Markdown reads links written as [label](https://address): the label stays, with a link over it. Only http and https
// addresses count; brackets and parentheses inside of an address must be in pairs, and a label has no brackets in it. A
// backslash before "[", "]", "(", ")" or itself takes their meaning away and is dropped. Everything else stays as it is;
// use [Text.Detect] for what is in it.
func Markdown(s string) Text {
	var b Builder
	plain := 0 // from where on the text is not yet in b
	for i := 0; i < len(s); {
		switch s[i] {
		case '\\':
			if i+1 < len(s) && strings.IndexByte(`[]()\`, s[i+1]) >= 0 {
				b.Text(s[plain:i])
				plain = i + 1
				i++
			}
			i++
		case '[':
			label, uri, end := linkOf(s[i:])
			if end == 0 {
				i++
				continue
			}
			b.Text(s[plain:i]).Link(label, uri)
			i += end
			plain = i
		default:
			i++
		}
	}
	return b.Text(s[plain:]).Build()
}

// maxMarkdownLink bounds how far a link is looked for, so that a text of brackets costs no square of its length.
const maxMarkdownLink = MaxPostBytes

// linkOf reads a link at the start of s and returns where it ends, or 0.
func linkOf(s string) (label, uri string, end int) {
	s = s[:min(len(s), maxMarkdownLink)]
	closing := strings.IndexAny(s[1:], "[]")
	if closing <= 0 || s[1+closing] != ']' || !strings.HasPrefix(s[closing+2:], "(") {
		return "", "", 0
	}
	label = s[1 : 1+closing]
	start := closing + 3
	scheme := schemeOf(s[start:])
	if scheme == 0 || strings.TrimSpace(label) == "" {
		return "", "", 0
	}
	depth := 0
	for i := start; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ' || c == 0x7f:
			return "", "", 0
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == ')':
			if i == start+scheme {
				return "", "", 0
			}
			return label, s[start:i], i + 1
		}
	}
	return "", "", 0
}
