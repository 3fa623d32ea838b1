package foreign_test

import (
	"fmt"
	"html"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/barograph/baro/internal/foreign"
)

func Example() {
	fmt.Println(foreign.HTML("<b>gpj.exe"))
	fmt.Println(foreign.Plain("a\u202eb"))
	fmt.Println(foreign.Line("two\nlines, and more", 9))
	// Output:
	// <bdi>&lt;b&gt;gpj.exe</bdi>
	// a⟨U+202E⟩b
	// two lines…
}

func TestSegments(t *testing.T) {
	for in, want := range map[string]string{
		"plain":    "plain",
		"a\u202eb": "a⟨U+202E⟩b",
		"a\u200bb": "a⟨U+200B⟩b",
		"👨\u200d👩\u200d👧 ❤\ufe0f 1\ufe0f\u20e3": "👨\u200d👩\u200d👧 ❤\ufe0f 1\ufe0f\u20e3",
		"نمی\u200cخواهم":                        "نمی\u200cخواهم",
		"क्\u200dष":                             "क्\u200dष",
		"a\u200db":                              "a⟨U+200D⟩b",
		"🏴\U000e0067\U000e0062\U000e007f":       "🏴\U000e0067\U000e0062\U000e007f",
		"x\U000e0067":                           "x⟨U+E0067⟩",
		"tab\tnew\nline":                        "tab\tnew\nline",
		"\x00\x1b\x7f\u0085":                    "⟨U+0000⟩⟨U+001B⟩⟨U+007F⟩⟨U+0085⟩",
		"bad\xff":                               "bad⟨U+FFFD⟩",
		"עברית العربية":                         "עברית العربية",
		"é e\u0301 ẹ\u0302":                     "é e\u0301 ẹ\u0302",
		"\u2028\u2029\u2060\ufeff\u3164":        "⟨U+2028⟩⟨U+2029⟩⟨U+2060⟩⟨U+FEFF⟩⟨U+3164⟩",
	} {
		if got := foreign.Plain(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := foreign.Plain("z" + strings.Repeat("\u0301", 50)); strings.Count(got, "\u0301") != foreign.MaxMarks {
		t.Errorf("%q", got)
	}
}

// FuzzText holds whatever text against what is promised of it: nothing of it is markup, nothing unseen is left as itself, and
// without unseen characters nothing is lost.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a", "<script>", "\u202eevil", "👨\u200d👩", "z" + strings.Repeat("\u0301", 9), "\xff\xfe", "a\x00b", "&amp;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g := foreign.Segments(s)
		var text, whole strings.Builder
		marks := 0
		for _, x := range g {
			text.WriteString(x.Text)
			if x.Mark != "" {
				marks++
			}
		}
		if marks == 0 && utf8.ValidString(s) && text.String() != s {
			t.Errorf("%q became %q", s, text.String())
		}
		h := string(foreign.SegmentsHTML(g))
		inner := strings.TrimSuffix(strings.TrimPrefix(h, "<bdi>"), "</bdi>")
		inner = strings.ReplaceAll(strings.ReplaceAll(inner, `<span class="ctl" title="a character that can’t be seen">`, "⟨"), "</span>", "⟩")
		if strings.ContainsAny(inner, "<>\"'") {
			t.Errorf("%q is shown as %q", s, h)
		}
		whole.WriteString(html.UnescapeString(inner))
		if utf8.ValidString(s) && whole.String() != foreign.Plain(s) {
			t.Errorf("%q is %q in HTML and %q in an attribute", s, whole.String(), foreign.Plain(s))
		}
		if l := foreign.Line(s, 20); utf8.RuneCountInString(l) > 21 || strings.ContainsAny(l, "\n\t") {
			t.Errorf("%q has the line %q", s, l)
		}
	})
}
