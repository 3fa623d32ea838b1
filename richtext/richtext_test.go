package richtext

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/syntax"
)

func TestDetect(t *testing.T) {
	// Each span is written as kind:text=value.
	for text, want := range map[string]string{
		"":                               "",
		"nothing here":                   "",
		"hi @alice.test!":                "mention:@alice.test=alice.test",
		"@Alice.Example.COM":             "mention:@Alice.Example.COM=alice.example.com",
		"(@bob.com)":                     "mention:@bob.com=bob.com",
		"@bob.com. And":                  "mention:@bob.com=bob.com",
		"@bob.com-":                      "mention:@bob.com=bob.com",
		"@bob.com's":                     "mention:@bob.com=bob.com",
		"@bob.comé":                      "mention:@bob.com=bob.com",
		"@bob.com_x":                     "",
		"@bob":                           "",
		"@bob.":                          "",
		"@bob.notatld":                   "",
		"@bob..com":                      "",
		"a@bob.com":                      "",
		"@":                              "",
		"@@bob.com":                      "",
		"@a.com @b.com":                  "mention:@a.com=a.com mention:@b.com=b.com",
		"日本 @a.com 日本":                   "mention:@a.com=a.com",
		"👨‍👩‍👧 @a.com":                   "mention:@a.com=a.com",
		"https://a.test/x":               "link:https://a.test/x=https://a.test/x",
		"HTTP://A.test":                  "link:HTTP://A.test=HTTP://A.test",
		"see https://a.com.":             "link:https://a.com=https://a.com",
		"https://a.com/x?y=1#z, and":     "link:https://a.com/x?y=1#z=https://a.com/x?y=1#z",
		"(https://a.com)":                "link:https://a.com=https://a.com",
		"(https://a.com/b).":             "link:https://a.com/b=https://a.com/b",
		"https://en.example.org/w/A_(b)": "link:https://en.example.org/w/A_(b)=https://en.example.org/w/A_(b)",
		"https://":                       "",
		"https://.":                      "",
		"xhttps://a.com":                 "",
		"a.com":                          "link:a.com=https://a.com",
		"my-site.co.uk/path":             "link:my-site.co.uk/path=https://my-site.co.uk/path",
		"a.com:8080/x":                   "link:a.com:8080/x=https://a.com:8080/x",
		"end.Start of":                   "",
		"4.com":                          "",
		"e.g. this":                      "",
		"first.last@mail.com":            "",
		"a.com\nb.org":                   "link:a.com=https://a.com link:b.org=https://b.org",
		"a.com\u3000b.org":               "link:a.com=https://a.com link:b.org=https://b.org",
		"foo.js and main.go":             "",
		"a.test":                         "",
		"#tag":                           "tag:#tag=tag",
		"＃tag":                           "tag:＃tag=tag",
		"a #tag, b":                      "tag:#tag=tag",
		"#a#b":                           "tag:#a#b=a#b",
		"x#tag":                          "",
		"(#tag":                          "",
		"#1":                             "",
		"#1a":                            "tag:#1a=1a",
		"#12.3":                          "",
		"#!":                             "",
		"#":                              "",
		"#️⃣":                            "",
		"#ta\u200bg":                     "tag:#ta=ta",
		"#日本語。":                          "tag:#日本語=日本語",
		"#🦋":                             "tag:#🦋=🦋",
		"#" + strings.Repeat("é", 64):    "tag:#" + strings.Repeat("é", 64) + "=" + strings.Repeat("é", 64),
		"#" + strings.Repeat("e", 65):    "",
		"buy $abc now":                   "tag:$abc=$ABC",
		"($ABCDE)":                       "tag:$ABCDE=$ABCDE",
		"$ABCDEF":                        "",
		"$5":                             "",
		"$A":                             "tag:$A=$A",
		"$A-B":                           "",
		"$A’s":                           "tag:$A=$A",
		"$":                              "",
		"#foo(@bar.com":                  "tag:#foo(@bar.com=foo(@bar.com",
		"@a.com/https://b.com":           "mention:@a.com=a.com",
		"\xff @a.com":                    "mention:@a.com=a.com",
		"#a\xff":                         "tag:#a\xff=a\xff",
		"a.com/\u00a0#t":                 "link:a.com/=https://a.com/ tag:#t=t",
		"https://a.com/(https://b.com)":  "link:https://a.com/(https://b.com)=https://a.com/(https://b.com)",
		"@a.test https://b.test #c $D":   "mention:@a.test=a.test link:https://b.test=https://b.test tag:#c=c tag:$D=$D",
		"#👨‍👩":                           "tag:#👨=👨", // what has no width ends a tag
	} {
		var got []string
		for _, s := range Detect(text) {
			got = append(got, fmt.Sprintf("%s:%s=%s", s.Kind, text[s.Start:s.End], s.Value))
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%q: got %q, want %q", text, g, want)
		}
	}
}

// TestDetectLinear: a text made to be looked at again and again takes no more than its length.
func TestDetectLinear(t *testing.T) {
	for _, unit := range []string{"(", "(a.", "(@a", "(http:", "@", "#", "$a", "[", "[a](", "[a](http://b", "[(", `\`} {
		long := strings.Repeat(unit, 1<<18/len(unit))
		began := time.Now()
		Detect(long)
		Markdown(long)
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("%q: %v for 256 KiB", unit, d)
		}
	}
}

func TestResolve(t *testing.T) {
	asked := map[syntax.Handle]int{}
	resolve := func(_ context.Context, h syntax.Handle) (syntax.DID, error) {
		asked[h]++
		if h == "alice.test" {
			return "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", nil
		}
		return "", errors.New("unknown")
	}
	got, err := Resolve(t.Context(), "@alice.test and @Alice.test and @bob.test #x", resolve)
	if err != nil {
		t.Fatal(err)
	}
	if asked["alice.test"] != 1 || asked["bob.test"] != 1 {
		t.Errorf("asked %v", asked)
	}
	if err := got.Check(); err != nil || len(got.Facets) != 3 {
		t.Fatalf("%v: %d facets", err, len(got.Facets))
	}
	segments := []string{}
	for s := range got.Segments() {
		segments = append(segments, s.Text+"|"+s.Mention()+s.Tag()+s.Link())
	}
	want := []string{"@alice.test|did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", " and |", "@Alice.test|did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", " and @bob.test |", "#x|x"}
	if d := cmp.Diff(want, segments); d != "" {
		t.Error(d)
	}

	ctx, cancel := context.WithCancel(t.Context())
	_, err = Resolve(ctx, "@a.test @b.test", func(context.Context, syntax.Handle) (syntax.DID, error) { cancel(); return "", ctx.Err() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestMarkdown(t *testing.T) {
	for in, want := range map[string]string{
		"see [the site](https://a.test/)!": "see |the site<https://a.test/>|!",
		"[a](https://x/(y))z":              "a<https://x/(y)>|z",
		"[a](ftp://x)":                     "[a](ftp://x)",
		"[a](javascript:alert(1))":         "[a](javascript:alert(1))",
		"[a](https://)":                    "[a](https://)",
		"[a](https://x y)":                 "[a](https://x y)",
		"[](https://x)":                    "[](https://x)",
		"[ ](https://x)":                   "[ ](https://x)",
		"[a [b](https://x)":                "[a |b<https://x>",
		`\[a](https://x)`:                  "[a](https://x)",
		`a\\b\c`:                           `a\b\c`,
		"[a](https://x":                    "[a](https://x",
		"[é](https://x)[b](http://y)":      "é<https://x>|b<http://y>",
		"":                                 "",
	} {
		text := Markdown(in)
		if err := text.Check(); err != nil {
			t.Errorf("%q: %v", in, err)
		}
		var got []string
		for s := range text.Segments() {
			if s.Link() != "" {
				s.Text += "<" + s.Link() + ">"
			}
			got = append(got, s.Text)
		}
		if g := strings.Join(got, "|"); g != want {
			t.Errorf("%q: got %q, want %q", in, g, want)
		}
	}
}

// marked builds a text from a string in which [ and ] are the edges of facets.
func marked(s string) Text {
	var t Text
	start := 0
	for _, r := range s {
		switch r {
		case '[':
			start = len(t.Text)
		case ']':
			t.Facets = append(t.Facets, facet(start, len(t.Text), appbsky.RichtextFacet_Features_Elem{Value: &appbsky.RichtextFacet_Tag{Tag: "x"}}))
		default:
			t.Text += string(r)
		}
	}
	return t
}

func (t Text) marked() string {
	var b strings.Builder
	for s := range t.Segments() {
		if s.Features != nil {
			b.WriteString("[" + s.Text + "]")
		} else {
			b.WriteString(s.Text)
		}
	}
	return b.String()
}

func TestEdit(t *testing.T) {
	type edit func(*Text) error
	insert := func(at int, s string) edit { return func(t *Text) error { return t.Insert(at, s) } }
	cut := func(start, end int) edit { return func(t *Text) error { return t.Delete(start, end) } }
	clean := func(t *Text) error { t.Clean(); return nil }
	for i, c := range []struct {
		in   string
		do   edit
		want string
	}{
		{"ab[cd]ef", insert(0, "x"), "xab[cd]ef"},
		{"ab[cd]ef", insert(2, "x"), "abx[cd]ef"},
		{"ab[cd]ef", insert(3, "x"), "ab[cxd]ef"},
		{"ab[cd]ef", insert(4, "x"), "ab[cd]xef"},
		{"ab[cd]ef", insert(6, "x"), "ab[cd]efx"},
		{"ab[cd]ef", cut(0, 1), "b[cd]ef"},
		{"ab[cd]ef", cut(1, 3), "a[d]ef"},
		{"ab[cd]ef", cut(2, 4), "abef"},
		{"ab[cd]ef", cut(1, 5), "af"},
		{"ab[cd]ef", cut(3, 5), "ab[c]f"},
		{"ab[cde]f", cut(3, 4), "ab[ce]f"},
		{"ab[cd]ef", cut(4, 6), "ab[cd]"},
		{"[a][b][c]", cut(1, 2), "[a][c]"},
		{"ab", cut(1, 1), "ab"},
		{"a\n\n\n\n[b]", clean, "a\n\n[b]"},
		{"a\n \u200b\n\t\n[b]", clean, "a\n \u200b\n[b]"},
		{"a\r\n\r\n\r\n[b]", clean, "a\r\n\r\n[b]"},
		{"a\n\n[b]", clean, "a\n\n[b]"},
		{"  a\n\n\n\nb\n\n\n[c] \n", clean, "a\n\nb\n\n[c]"},
		{"\n\n\n[a]", clean, "[a]"},
		{" \n\n\n ", clean, ""},
	} {
		text := marked(c.in)
		before := text.Clone()
		edited := text.Clone()
		if err := c.do(&edited); err != nil {
			t.Errorf("%d: %v", i, err)
		}
		if got := edited.marked(); got != c.want {
			t.Errorf("%d: %q: got %q, want %q", i, c.in, got, c.want)
		}
		if d := cmp.Diff(before, text); d != "" {
			t.Errorf("%d: an edit of a copy changed the original: %s", i, d)
		}
	}
	text := Text{Text: "aé"}
	for _, err := range []error{text.Insert(2, "x"), text.Insert(-1, "x"), text.Insert(4, "x"), text.Delete(0, 2), text.Delete(2, 1), text.Delete(0, 4), text.Delete(-1, 1)} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("got %v", err)
		}
	}
}

func TestCheck(t *testing.T) {
	for i, c := range []struct {
		facets []appbsky.RichtextFacet
		ok     bool
	}{
		{nil, true},
		{marked("[ab]c[d]").Facets, true},
		{[]appbsky.RichtextFacet{facet(0, 2)}, false},
		{append(marked("ab[c]").Facets, marked("[a]").Facets...), false},
		{append(marked("[ab]").Facets, marked("a[b]").Facets...), false},
		{marked("abcd[e]").Facets, false}, // outside of aébc
		{marked("a[b]").Facets, false},    // cuts the é
		{marked("[ab]").Facets, false},
		{[]appbsky.RichtextFacet{facet(1, 1, marked("[a]").Facets[0].Features...)}, false},
		{[]appbsky.RichtextFacet{facet(2, 1, marked("[a]").Facets[0].Features...)}, false},
		{[]appbsky.RichtextFacet{facet(-1, 1, marked("[a]").Facets[0].Features...)}, false},
	} {
		text := Text{Text: "abcd", Facets: c.facets}
		if i >= 5 && i < 8 {
			text.Text = "aé"
		}
		if err := text.Check(); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrFacet) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestFitsPost(t *testing.T) {
	family := "👨‍👩‍👧" // one grapheme of 18 bytes
	for s, want := range map[string]bool{
		strings.Repeat("a", 300):    true,
		strings.Repeat("a", 301):    false,
		strings.Repeat("é", 300):    true,
		strings.Repeat(family, 166): true,
		strings.Repeat(family, 167): false,
	} {
		if got := (Text{Text: s}).FitsPost(); got != want {
			t.Errorf("%d bytes: %v", len(s), got)
		}
	}
}

// TestProperty: whatever is built, found and edited stays well placed, and segments are the text.
func TestProperty(t *testing.T) {
	piece := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"@a.test ", " #tag", "https://b.com/", "(", "\n\n\n", "é", "👨‍👩‍👧", " $ABC"}))
	rapid.Check(t, func(t *rapid.T) {
		var b Builder
		for _, s := range rapid.SliceOfN(piece, 0, 6).Draw(t, "pieces") {
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				b.Text(s)
			case 1:
				b.Mention(s, "did:web:a.test")
			case 2:
				b.Link(s, "https://a.test")
			case 3:
				b.Tag(s, "x")
			}
		}
		text := b.Build()
		if b.Len() != len(text.Text) {
			t.Fatalf("%d bytes are said to be in %q", b.Len(), text.Text)
		}
		for range rapid.IntRange(0, 5).Draw(t, "edits") {
			edges := []int{0}
			for i := range text.Text {
				edges = append(edges, i)
			}
			edges = append(edges, len(text.Text))
			at, to := rapid.SampledFrom(edges).Draw(t, "at"), rapid.SampledFrom(edges).Draw(t, "to")
			var err error
			switch rapid.IntRange(0, 3).Draw(t, "edit") {
			case 0:
				err = text.Insert(at, piece.Draw(t, "s"))
			case 1:
				err = text.Delete(min(at, to), max(at, to))
			case 2:
				text.Clean()
			case 3:
				err = text.Detect(context.Background(), func(context.Context, syntax.Handle) (syntax.DID, error) { return "did:web:b.test", nil })
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		check(t, text)
	})
}

type fataler interface{ Fatalf(string, ...any) }

func check(t fataler, text Text) {
	if err := text.Check(); err != nil {
		t.Fatalf("%q: %v", text.Text, err)
	}
	var joined strings.Builder
	for s := range text.Segments() {
		if s.Text == "" {
			t.Fatalf("%q: an empty segment", text.Text)
		}
		joined.WriteString(s.Text)
	}
	if joined.String() != text.Text {
		t.Fatalf("%q: segments are %q", text.Text, joined.String())
	}
}

func FuzzDetect(f *testing.F) {
	for _, s := range []string{"@a.test (https://b.com/x) #c $D", "[a](https://b)", "\\[x", "＃a #️⃣", "a.com\r\n\r\n\r\n@b.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := Resolve(t.Context(), s, func(_ context.Context, h syntax.Handle) (syntax.DID, error) {
			if _, err := syntax.ParseHandle(string(h)); err != nil {
				t.Errorf("asked for %q", h)
			}
			return "did:web:a.test", nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(s) {
			check(t, text)
			check(t, Markdown(s))
		}
		text.Clean()
		if utf8.ValidString(s) {
			check(t, text)
		}
	})
}
