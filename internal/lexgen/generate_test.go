package lexgen

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/lexicons"
)

// TestReproducible tells that the committed packages are what the committed schemas give, byte for byte.
func TestReproducible(t *testing.T) {
	cat, err := Load(lexicons.FS)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(cat.Docs); n < 402 {
		t.Errorf("%d schemas, want at least 402", n)
	}
	files, err := Generate(cat, Options{Module: "github.com/barograph/baro/api"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(fixtures.Root(), "api")
	size := 0
	for name, want := range files {
		size += len(want)
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("api/%s isn't what the generator writes (%v): run go generate ./api", name, err)
		}
		if n := bytes.Count(want, []byte("\n")); n > 1000 {
			t.Errorf("api/%s has %d lines", name, n)
		}
	}
	t.Logf("%d schemas, %d files, %d bytes", len(cat.Docs), len(files), size)
	found, err := filepath.Glob(filepath.Join(dir, "*", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		rel, _ := filepath.Rel(dir, path)
		if !strings.HasSuffix(rel, "_test.go") && files[filepath.ToSlash(rel)] == nil {
			t.Errorf("api/%s isn't written by the generator", rel)
		}
	}
	again, err := Generate(cat, Options{Module: "github.com/barograph/baro/api"})
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if !bytes.Equal(files[name], again[name]) {
			t.Errorf("%s differs from one run to the next", name)
		}
	}
}

// TestImport tells that the schemas in lexicons are what the import of the upstream gives, where that is at hand.
func TestImport(t *testing.T) {
	upstream := filepath.Join(fixtures.Root(), "..", "shared", "lexicons")
	if _, err := os.Stat(upstream); err != nil {
		t.Skip("the upstream schemas aren't here")
	}
	files, err := Import(os.DirFS(upstream), "https://github.com/bluesky-social/atproto", "d6296a1")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := lexicons.FS.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("lexicons/%s isn't what the import writes (%v)", name, err)
		}
	}
}

func TestStrip(t *testing.T) {
	in := `{"lexicon":1,"id":"a.b.c","description":"text","defs":{"main":{"type":"object","description":"text","required":["title"],
		"properties":{"title":{"type":"string","description":"text","maxLength":9007199254740993},"description":{"type":"string"},"detail":{"description":"x","type":"ref","ref":"#y"}}},
		"y":{"type":"permission-set","title":"T","title:lang":{"de":"T"},"detail":"D","detail:lang":{},"permissions":[]}}}`
	want := `{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"object","required":["title"],` +
		`"properties":{"title":{"type":"string","maxLength":9007199254740993},"description":{"type":"string"},"detail":{"type":"ref","ref":"#y"}}},` +
		`"y":{"type":"permission-set","permissions":[]}}}`
	got, err := strip([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	flat := strings.NewReplacer("\n", "", "\t", "", `": `, `":`).Replace(string(got))
	if flat != want {
		t.Errorf("got  %s\nwant %s", flat, want)
	}
	for _, bad := range []string{``, `{`, `{"a":}`, `[1,`, `{"a":1`} {
		if _, err := strip([]byte(bad)); err == nil {
			t.Errorf("%q was stripped", bad)
		}
	}
}

func TestNames(t *testing.T) {
	for ref, want := range map[Ref]string{
		{"com.atproto.repo.getRecord", "main"}:   "RepoGetRecord",
		{"app.bsky.feed.defs", "postView"}:       "FeedDefs_PostView",
		{"com.germnetwork.declaration", "main"}:  "Declaration",
		{"com.example.two-words.a", "some-name"}: "TwoWordsA_SomeName",
	} {
		if got := typeName(ref); got != want {
			t.Errorf("%v: %s, want %s", ref, got, want)
		}
	}
	if got := packageOf("com.atproto.repo.getRecord"); got != "comatproto" {
		t.Error(got)
	}
}

// TestAwkward generates from schemas that are made to be difficult, and looks at what comes out.
func TestAwkward(t *testing.T) {
	doc := func(id string, defs map[string]*Schema) *Document { return &Document{ID: id, Defs: defs} }
	str := &Schema{Type: "string"}
	cat := &Catalog{Docs: map[string]*Document{
		"com.example.node": doc("com.example.node", map[string]*Schema{
			// A required reference to itself, and names that Go or the codec has.
			"main": {Type: "object", Required: []string{"next", "extra"}, Properties: map[string]*Schema{
				"next": {Type: "ref", Ref: "#other"}, "extra": str, "lexType": str, "type": str, "a-b": str, "aB": str,
			}},
			"other": {Type: "object", Required: []string{"back"}, Properties: map[string]*Schema{"back": {Type: "ref", Ref: "com.example.node"}}},
			"empty": {Type: "object"},
		}),
		"com.example.nodeOther": doc("com.example.nodeOther", map[string]*Schema{"main": {Type: "record", Record: &Schema{Type: "object", Properties: map[string]*Schema{
			"inline": {Type: "array", Items: &Schema{Type: "object", Properties: map[string]*Schema{"u": {Type: "union", Refs: []string{"com.example.node"}}}}},
		}}}}),
	}}
	files, err := Generate(cat, Options{Module: "example.com/api"})
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, b := range files {
		all += string(b)
	}
	flat := strings.Join(strings.Fields(all), " ")
	for _, want := range []string{
		"Next *Node_Other `json:\"next\"`", "Back *Node `json:\"back\"`", "Extra_ string `json:\"extra\"`", "LexType_ *string",
		"AB *string `json:\"a-b,omitzero\"`", "AB_ *string `json:\"aB,omitzero\"`", "type NodeOther_Inline_Elem struct", "type NodeOther_Inline_Elem_U = data.Union[func(*Node)]",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("the output lacks %s", want)
		}
	}
	for name, defs := range map[string]map[string]*Schema{
		"no ref":    {"main": {Type: "object", Properties: map[string]*Schema{"a": {Type: "ref", Ref: "#gone"}}}},
		"token":     {"main": {Type: "object", Properties: map[string]*Schema{"a": {Type: "ref", Ref: "#t"}}}, "t": {Type: "token"}},
		"union":     {"main": {Type: "object", Properties: map[string]*Schema{"a": {Type: "union", Refs: []string{"#t"}}}}, "t": {Type: "string"}},
		"type":      {"main": {Type: "banana"}},
		"no type":   {"main": {Type: "object", Properties: map[string]*Schema{"a": {}}}},
		"no record": {"main": {Type: "record"}},
		"no items":  {"main": {Type: "object", Properties: map[string]*Schema{"a": {Type: "array"}}}},
		"null def":  {"main": nil},
		"null prop": {"main": {Type: "object", Properties: map[string]*Schema{"a": nil}}},
		"params":    {"main": {Type: "query", Parameters: &Schema{Type: "params", Properties: map[string]*Schema{"a": {Type: "blob"}}}}},
	} {
		if _, err := Generate(&Catalog{Docs: map[string]*Document{"com.example.bad": doc("com.example.bad", defs)}}, Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
