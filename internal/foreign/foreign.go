// Package foreign shows text that came from others: in HTML, in attributes and on one line.
//
// It has no specification page. Such text is hostile: it may hold markup, characters that can't be seen, and ones that turn the
// direction of writing so that something else is read than is there. What this package returns is escaped where it is HTML,
// isolated in its direction, and has such characters shown by their number. It decides nothing about addresses.
//
//	foreign.HTML("a\u202eb <b>") // <bdi>a<span class="ctl" …>U+202E</span>b &lt;b&gt;</bdi>
//	foreign.Plain("a\u202eb")    // a⟨U+202E⟩b
//	foreign.Line(description, 200)
//
// Limits: at most four combining characters on a letter are shown as themselves.
package foreign

import (
	"fmt"
	"html/template"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Segment is a stretch of text, or one character that must be made visible.
type Segment struct {
	Text string `json:"t,omitempty"`
	Mark string `json:"m,omitempty"` // name of a character that isn't shown itself, such as "U+202E"
}

// MaxMarks bounds the combining characters on one letter: more would paint over the lines around it.
const MaxMarks = 4

// Segments cuts a text where characters are that can't be seen, turn the direction of writing, or drive a terminal.
func Segments(s string) []Segment {
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
		if marks <= MaxMarks && (!Unseen(r) || Joins(r, prev, s[i+size:])) {
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

// Unseen reports whether a character shows nothing, or changes how others are shown.
func Unseen(r rune) bool {
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

// Joins reports whether an unseen character has its proper place: it joins the parts of an emoji, or letters of a script
// that needs it.
func Joins(r, prev rune, rest string) bool {
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

// HTML returns a text that came from others as HTML: escaped, isolated in its direction, with unseen characters shown by
// their number.
func HTML(s string) template.HTML { return SegmentsHTML(Segments(s)) }

// SegmentsHTML is [HTML] for text that was cut already.
func SegmentsHTML(g []Segment) template.HTML {
	var b strings.Builder
	b.WriteString("<bdi>")
	for _, g := range g {
		if g.Mark != "" {
			b.WriteString(`<span class="ctl" title="a character that can’t be seen">`)
			template.HTMLEscape(&b, []byte(g.Mark))
			b.WriteString("</span>")
			continue
		}
		template.HTMLEscape(&b, []byte(g.Text))
	}
	b.WriteString("</bdi>")
	return template.HTML(b.String())
}

// Plain is the same as text without markup, for attributes and titles. Such text can't be isolated by an element, but after
// this nothing in it turns its direction by force.
func Plain(s string) string {
	var b strings.Builder
	for _, g := range Segments(s) {
		if g.Mark != "" {
			b.WriteString("⟨" + g.Mark + "⟩")
			continue
		}
		b.WriteString(g.Text)
	}
	return b.String()
}

// Clip cuts a text after max characters and returns how many were cut.
func Clip(s string, max int) (string, int) {
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

// Line makes one line of at most max characters.
func Line(s string, max int) string {
	if len(s) > 8*max {
		s = s[:8*max]
		for len(s) > 0 { // don't leave half a character
			if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	out, cut := Clip(strings.Join(strings.Fields(s), " "), max)
	if cut > 0 {
		out += "…"
	}
	return out
}
