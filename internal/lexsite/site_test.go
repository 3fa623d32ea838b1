package lexsite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
)

// reference are the schemas that the module embeds.
func reference(t testing.TB) (*lexicon.Catalog, []Entry) {
	t.Helper()
	cat := lexicon.NewCatalog()
	if err := cat.AddFS(lexicons.FS); err != nil {
		t.Fatal(err)
	}
	var out []Entry
	for _, id := range cat.NSIDs() {
		out = append(out, Entry{Schema: cat.Schema(id)})
	}
	return cat, out
}

func parse(t testing.TB, docs ...string) []Entry {
	t.Helper()
	var out []Entry
	for _, doc := range docs {
		s, err := lexicon.ParseSchema([]byte(doc))
		if err != nil {
			t.Fatalf("%v in %.300s", err, doc)
		}
		out = append(out, Entry{Schema: s, JSON: []byte(doc)})
	}
	return out
}

func site(t testing.TB, entries []Entry, o SiteOptions) map[string]string {
	t.Helper()
	files, err := Site(entries, o)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, f := range files {
		if !filepath.IsLocal(f.Path) || m[f.Path] != "" {
			t.Errorf("the path %q", f.Path)
		}
		m[f.Path] = string(f.Content)
	}
	return m
}

// TestExamples makes an example of everything in the reference set that has one, and validates them once more from their JSON.
func TestExamples(t *testing.T) {
	cat, entries := reference(t)
	made := 0
	for _, e := range entries {
		for _, n := range e.Schema.Defs {
			ref := e.Schema.Reference(n.Name)
			text := Example(cat, e.Schema, n.Name)
			switch n.Def.Type {
			case lexicon.TypeRecord, lexicon.TypeObject, lexicon.TypeArray, lexicon.TypeString:
				if text == nil {
					t.Errorf("%s has no example", ref)
					continue
				}
			}
			if text == nil {
				continue
			}
			made++
			raw := cborOf(t, text)
			var err error
			if n.Def.Type == lexicon.TypeRecord {
				err = cat.ValidateRecord(e.Schema.ID, raw)
			} else {
				err = cat.ValidateType(ref, raw)
			}
			if err != nil {
				t.Errorf("%s: %v: %s", ref, err, text)
			}
		}
		d := e.Schema.Main()
		if d == nil {
			continue
		}
		for name, b := range map[string]*lexicon.Body{"input": d.Input, "output": d.Output} {
			if b == nil || b.Schema == nil {
				continue
			}
			valid := map[string]func([]byte) error{
				"input":  func(raw []byte) error { return cat.ValidateInput(e.Schema.ID, raw) },
				"output": func(raw []byte) error { return cat.ValidateOutput(e.Schema.ID, raw) },
			}[name]
			text := exampleBody(cat, b, valid)
			if text == nil {
				t.Errorf("the %s of %s has no example", name, e.Schema.ID)
			} else if err := valid(cborOf(t, text)); err != nil {
				t.Errorf("the %s of %s: %v", name, e.Schema.ID, err)
			}
			made++
		}
		if p := d.Parameters; p != nil && len(p.Properties) > 0 {
			values := map[string][]string{}
			for _, x := range exampleQuery(cat, e.Schema.ID, p) {
				values[x[0]] = append(values[x[0]], x[1])
			}
			if err := cat.ValidateParams(e.Schema.ID, values); err != nil || len(values) == 0 {
				t.Errorf("the parameters of %s: %v %v", e.Schema.ID, values, err)
			}
			made++
		}
	}
	if made < 900 {
		t.Errorf("only %d examples", made)
	}
}

// TestExampleLimits makes examples where the constraints are narrow, and none where there can't be one.
func TestExampleLimits(t *testing.T) {
	for prop, want := range map[string]string{
		`{"type":"string","minLength":12}`:                            `"an example of v"`,
		`{"type":"string","maxLength":3}`:                             `"an "`,
		`{"type":"string","minLength":20,"maxLength":20}`:             `"an example of vxxxxx"`,
		`{"type":"string","minGraphemes":17,"maxLength":300}`:         `"an example of vxx"`,
		`{"type":"string","enum":["b","a"]}`:                          `"b"`,
		`{"type":"string","const":"c"}`:                               `"c"`,
		`{"type":"string","format":"did"}`:                            `"` + exampleDID + `"`,
		`{"type":"string","format":"did","maxLength":3}`:              ``,
		`{"type":"integer","minimum":-9,"maximum":-5}`:                `-5`,
		`{"type":"integer","minimum":7}`:                              `7`,
		`{"type":"integer","enum":[4,5]}`:                             `4`,
		`{"type":"boolean","const":false}`:                            `false`,
		`{"type":"bytes","minLength":3,"maxLength":3}`:                `{"$bytes":"AAAA"}`,
		`{"type":"array","minLength":2,"items":{"type":"integer"}}`:   `[1,1]`,
		`{"type":"array","minLength":200,"items":{"type":"integer"}}`: ``,
		`{"type":"array","maxLength":0,"items":{"type":"integer"}}`:   `[]`,
		`{"type":"union","refs":[]}`:                                  `{"$type":"com.example.anything"}`,
		`{"type":"union","refs":["#tree"],"closed":true}`:             `{"$type":"com.example.x#tree"}`,
		`{"type":"ref","ref":"#endless"}`:                             ``,
		`{"type":"ref","ref":"com.example.gone"}`:                     ``,
		`{"type":"string","maxLength":99999,"minLength":90000}`:       ``,
		`{"type":"blob","accept":["image/*"],"maxSize":10}`:           `"image/png"`,
	} {
		e := parse(t, `{"lexicon":1,"id":"com.example.x","defs":{
			"o":{"type":"object","required":["v"],"properties":{"v":`+prop+`}},
			"tree":{"type":"object","properties":{"left":{"type":"ref","ref":"#tree"},"kids":{"type":"array","items":{"type":"ref","ref":"#tree"}}}},
			"endless":{"type":"object","required":["next"],"properties":{"next":{"type":"ref","ref":"#endless"}}}}}`)[0]
		cat := lexicon.NewCatalog()
		cat.Add(e.Schema)
		text := Example(cat, e.Schema, "o")
		if (text == nil) != (want == "") {
			t.Errorf("%s: %s, want %q", prop, text, want)
			continue
		}
		if text == nil {
			continue
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil || !strings.Contains(compact.String(), want) {
			t.Errorf("%s: %s, want %s", prop, compact.String(), want)
		}
	}
}

var (
	hrefRE = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	idRE   = regexp.MustCompile(` id="([^"]*)"`)
	codeRE = regexp.MustCompile("(?s)```.*?\n```|`[^`\n]*`")
	headRE = regexp.MustCompile(`<h([1-6])[ >]`)
)

// checkPage checks a page's own rules: ids once, headings without a gap, one main element, every link to something that is there.
func checkPage(t *testing.T, files map[string]string, path string) {
	t.Helper()
	page := files[path]
	ids := map[string]bool{}
	for _, m := range idRE.FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("%s: the id %.100q is there twice", path, m[1])
		}
		ids[m[1]] = true
	}
	level := byte('0')
	for _, m := range headRE.FindAllStringSubmatch(page, -1) {
		if m[1][0] > level+1 || m[1] == "1" && level != '0' {
			t.Errorf("%s: a heading of level %s after one of %c", path, m[1], level)
		}
		level = m[1][0]
	}
	for what, n := range map[string]int{"<main": 1, "<h1": 1, `class="skip" href="#main"`: 1, "<style": 0, " style=": 0, "<script>": 0} {
		if got := strings.Count(page, what); got != n {
			t.Errorf("%s: %s is there %d times", path, what, got)
		}
	}
	if strings.Count(page, "<table") != strings.Count(page, "<caption") {
		t.Errorf("%s: a table without a caption", path)
	}
	base := &url.URL{Path: path}
	for _, m := range hrefRE.FindAllStringSubmatch(page, -1) {
		u, err := url.Parse(html.UnescapeString(m[1]))
		if err != nil || u.IsAbs() || u.Host != "" || strings.HasPrefix(u.Path, "/") {
			t.Errorf("%s: the address %.200q", path, m[1])
			continue
		}
		to := base.ResolveReference(u)
		target, ok := files[strings.TrimPrefix(to.Path, "/")]
		if !ok {
			t.Errorf("%s: %.200q leads nowhere", path, m[1])
		} else if u.Fragment != "" && !strings.Contains(target, ` id="`+html.EscapeString(u.Fragment)+`"`) {
			t.Errorf("%s: %.200q leads to a page without that place", path, m[1])
		}
	}
	var prev rune
	for i, r := range page {
		if foreign.Unseen(r) && !foreign.Joins(r, prev, page[i+len(string(r)):]) {
			t.Errorf("%s: the character %U as itself", path, r)
			break
		}
		prev = r
	}
}

// TestReference makes a site of all schemas of the reference set.
func TestReference(t *testing.T) {
	_, entries := reference(t)
	o := SiteOptions{Title: "AT Protocol", Summary: "All of it."}
	files := site(t, entries, o)
	for path, content := range files {
		if strings.HasSuffix(path, ".html") {
			checkPage(t, files, path)
			if len(content) > 2<<20 {
				t.Errorf("%s has %d bytes", path, len(content))
			}
		}
	}
	for path, content := range site(t, entries, o) {
		if files[path] != content {
			t.Errorf("%s is another the second time", path)
		}
	}
	if len(files) != 3*len(entries)+4 {
		t.Errorf("%d files of %d schemas", len(files), len(entries))
	}
	post := files["app/bsky/feed/post.html"]
	for _, want := range []string{
		`href="../../../com/atproto/repo/strongRef.html"`, `id="def-main.text"`, "at most 3000 bytes", "at most 300 graphemes", `<span class="format"><bdi>datetime</bdi></span>`,
		`a TID, made from the time of writing`, `<span class="tag need">required</span>`, "open union", `href="../../../index.html"`, `href="post.json"`,
	} {
		if !strings.Contains(post, want) {
			t.Errorf("the page of a post lacks %q", want)
		}
	}
	ref := files["com/atproto/repo/strongRef.html"]
	for _, want := range []string{`href="../../../app/bsky/feed/like.html"`, "Refer to this (", "#main subject", " more</li>"} {
		if !strings.Contains(ref, want) {
			t.Errorf("the page of strongRef lacks %q", want)
		}
	}
	if !strings.Contains(files["llms.txt"], "\n## app.bsky.feed\n\n- [app.bsky.feed.defs](app/bsky/feed/defs.md): definitions\n") {
		t.Errorf("llms.txt: %.600s", files["llms.txt"])
	}
	if md := files["app/bsky/feed/post.md"]; !strings.Contains(md, "| `text` | string; at most 3000 bytes; at most 300 graphemes; required |") || !strings.Contains(md, "(../../../app/bsky/embed/images.md)") {
		t.Errorf("the page in Markdown: %.1500s", md)
	}
}

func TestCollision(t *testing.T) {
	doc := `{"lexicon":1,"id":"com.example.%s","defs":{"x":{"type":"token"}}}`
	_, err := Site(parse(t, fmt.Sprintf(doc, "foobar"), fmt.Sprintf(doc, "fooBar")), SiteOptions{})
	var c *CollisionError
	if !errors.As(err, &c) || c.A != "com.example.fooBar" {
		t.Errorf("%v", err)
	}
}

// hostile is what a schema says to make a page do something.
var hostile = []string{
	`<script>alert(1)</script>`, `"><svg/onload=alert(1)>`, `' onfocus='alert(1)`, `javascript:alert(1)`, "\u202eevil\u202c", "a\u200bb", "nul\u0000byte",
	"z" + strings.Repeat("\u0301", 50), `</details></section><h1>x`, `{{.}}`, "](javascript:alert(1))", "`code`|cell|", "<!--", "\n\n# heading\n", "&lt;b&gt;", "```\n<b>",
	strings.Repeat("long ", 4000), `..`, `a b"c#d?e/f`, "\x1b[31m",
}

// TestHostile puts it everywhere that a schema has room for texts of its author.
func TestHostile(t *testing.T) {
	for _, h := range hostile {
		q, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := json.Marshal(h[:min(len(h), 300)])
		entries := parse(t, strings.NewReplacer("H", string(q), "N", string(name)).Replace(`{"lexicon":1,"id":"com.example.x","description":H,"defs":{
			"main":{"type":"record","key":"tid","description":H,"record":{"type":"object","required":[N],"properties":{
				N:{"type":"string","description":H,"default":H,"knownValues":[H,"com.example.y#z","com.example.x#o"]},
				"e":{"type":"array","description":H,"items":{"type":"string","enum":[H]}},
				"b":{"type":"blob","accept":["image/*"],"description":H},
				"o":{"type":"object","description":H,"properties":{N:{"type":"ref","ref":"com.example.gone#x","description":H}}}}}},
			"o":{"type":"object","properties":{"self":{"type":"ref","ref":"#o"},"u":{"type":"union","refs":["#o","com.example.gone"]}}},
			"t":{"type":"token","description":H}}}`),
			strings.NewReplacer("H", string(q)).Replace(`{"lexicon":1,"id":"com.example.q","defs":{"main":{"type":"query","description":H,
			"parameters":{"type":"params","properties":{"p":{"type":"string","description":H,"const":H}}},
			"output":{"encoding":"application/json","description":H,"schema":{"type":"ref","ref":"com.example.x#o"}},"errors":[{"name":"Gone","description":H}]}}}`))
		entries[0].Findings = []Finding{{Level: h, Rule: h, Path: "defs.main." + h, Message: h}, {Level: "warn", Rule: "x", Path: "defs.main.record.properties.e.items", Message: h}}
		files := site(t, entries, SiteOptions{Title: h, Summary: h})
		for path := range files {
			if strings.HasSuffix(path, ".html") {
				checkPage(t, files, path)
			}
		}
		page := files["com/example/x.html"]
		if len(page) > 1<<20 {
			t.Errorf("%.20q: a page of %d bytes", h, len(page))
		}
		for _, bad := range []string{"<script>alert", "<svg/onload", `href="javascript`, "<h1>x", "<b>"} {
			if strings.Contains(page, bad) || strings.Contains(files["index.html"], bad) {
				t.Errorf("%.20q: the page holds %q", h, bad)
			}
			if md := files["com/example/x.md"]; strings.Contains(codeRE.ReplaceAllString(strings.ReplaceAll(md, "\\`", ""), ""), bad) {
				t.Errorf("%.20q: the Markdown holds %q: %s", h, bad, md)
			}
		}
		if !strings.Contains(page, `href="#def-main.e"`) {
			t.Errorf("%.20q: a finding doesn't lead to its field", h)
		}
	}
}

// TestBounds makes pages of schemas that are as large as they may be.
func TestBounds(t *testing.T) {
	var enum, fields, defs, deep strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&enum, `,"value%d"`, i)
	}
	for i := range 4000 {
		fmt.Fprintf(&fields, `,"%s%d":{"type":"ref","ref":"#d%d"}`, strings.Repeat("n", 100), i, i)
		fmt.Fprintf(&defs, `,"d%d":{"type":"object","required":["a","b"],"properties":{"a":{"type":"ref","ref":"#d%d"},"b":{"type":"ref","ref":"#d%d"}}}`, i, i+1, i+1)
	}
	for range 12 {
		deep.WriteString(`{"type":"object","properties":{"` + strings.Repeat("p", 3000) + `":`)
	}
	deep.WriteString(`{"type":"integer"}` + strings.Repeat("}}", 12))
	for what, doc := range map[string]string{
		"values": `{"x":{"type":"string","enum":["a"` + enum.String() + `]},"y":{"type":"string","knownValues":["a"` + enum.String() + `]}}`,
		"fields": `{"x":{"type":"object","properties":{"a":{"type":"integer"}` + fields.String() + `}}}`,
		"defs":   `{"x":{"type":"token"}` + defs.String() + `}`,
		"deep":   `{"x":` + deep.String() + `}`,
	} {
		files := site(t, parse(t, `{"lexicon":1,"id":"com.example.x","defs":`+doc+`}`), SiteOptions{})
		checkPage(t, files, "com/example/x.html")
		if n := len(files["com/example/x.html"]); n > 2<<20 {
			t.Errorf("%s: a page of %d bytes", what, n)
		}
		if what != "deep" && !strings.Contains(files["com/example/x.html"], " more") {
			t.Errorf("%s: nothing says that something is left out", what)
		}
	}
}

func FuzzPage(f *testing.F) {
	_ = fs.WalkDir(lexicons.FS, "app/bsky/embed", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := lexicons.FS.ReadFile(p)
			f.Add(b)
		}
		return nil
	})
	for _, h := range hostile {
		q, _ := json.Marshal(h)
		f.Add([]byte(`{"lexicon":1,"id":"com.example.x","description":` + string(q) + `,"defs":{"o":{"type":"object","properties":{` + string(q) + `:{"type":"string","enum":[` + string(q) + `]}}}}}`))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		s, err := lexicon.ParseSchema(doc)
		if err != nil {
			return
		}
		files := site(t, []Entry{{Schema: s, JSON: doc}}, SiteOptions{})
		for path := range files {
			if strings.HasSuffix(path, ".html") {
				checkPage(t, files, path)
			}
		}
	})
}

func cborOf(t *testing.T, text []byte) []byte {
	t.Helper()
	raw, err := data.AppendCBOR(nil, text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
