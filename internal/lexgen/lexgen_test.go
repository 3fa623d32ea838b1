package lexgen

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
)

// all is the configuration that the packages under api come from.
func all(t *testing.T) Config {
	t.Helper()
	cat := lexicon.NewCatalog()
	if err := cat.AddFS(lexicons.FS); err != nil {
		t.Fatal(err)
	}
	return Config{Catalog: cat, Module: "github.com/barograph/baro/api"}
}

// TestReproducible tells that the committed packages are what the committed schemas give, byte for byte.
func TestReproducible(t *testing.T) {
	c := all(t)
	if n := len(c.Catalog.NSIDs()); n < 402 {
		t.Errorf("%d schemas, want at least 402", n)
	}
	files, err := Generate(c)
	if err != nil {
		t.Fatal(err)
	}
	api := os.DirFS(filepath.Join(fixtures.Root(), "api"))
	if err := Check(api, files); err != nil {
		var diff *DiffError
		errors.As(err, &diff)
		t.Errorf("%v: run go generate ./api\n%.4000s", err, diff.Diff)
	}
	size := 0
	known := map[string]bool{}
	for _, f := range files {
		size += len(f.Data)
		known[f.Path] = true
		if n := bytes.Count(f.Data, []byte("\n")); n > 1000 {
			t.Errorf("api/%s has %d lines", f.Path, n)
		}
	}
	found, err := fs.Glob(api, "*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if !known[f] {
			t.Errorf("api/%s isn't written by the generator", f)
		}
	}
	t.Logf("%d schemas, %d files, %d bytes", len(c.Catalog.NSIDs()), len(files), size)
	again, err := Generate(all(t))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(files, again, func(a, b File) bool { return a.Path == b.Path && bytes.Equal(a.Data, b.Data) }) {
		t.Error("the output differs from one run to the next")
	}
}

// TestImport tells that the schemas in lexicons are what the import of the upstream gives, where that is at hand.
func TestImport(t *testing.T) {
	upstream := filepath.Join(fixtures.Root(), "..", "shared", "lexicons")
	if _, err := os.Stat(upstream); err != nil {
		t.Skip("the upstream schemas aren't here")
	}
	files, err := Upstream(os.DirFS(upstream), "https://github.com/bluesky-social/atproto", "d6296a1")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		got, err := lexicons.FS.ReadFile(f.Path)
		if err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("lexicons/%s isn't what the import writes (%v)", f.Path, err)
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

func TestManifest(t *testing.T) {
	ids, err := Manifest([]byte(`{"version":1,"lexicons":["com.example.a","com.example.b"],"resolutions":{"com.example.a":{"uri":"at://x","cid":"y"}}}`))
	if err != nil || !slices.Equal(ids, []string{"com.example.a", "com.example.b"}) {
		t.Errorf("%v %v", ids, err)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"version":2,"lexicons":[]}`, `{"version":1,"lexicons":["nonsense"]}`, `{"version":1,"lexicons":[1]}`} {
		if _, err := Manifest([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ nsid, def, prefix, want, group string }{
		{"com.atproto.repo.getRecord", "main", "com.atproto", "RepoGetRecord", "repo"},
		{"app.bsky.feed.defs", "postView", "app.bsky", "FeedDefs_PostView", "feed"},
		{"com.germnetwork.declaration", "main", "com.germnetwork", "Declaration", "germnetwork"},
		{"com.example.two-words.a", "some", "com.example", "TwoWordsA_Some", "twowords"},
		{"com.example.notes.note", "main", "com.example.notes", "Note", "notes"},
		{"com.example.note", "main", "com.example.note", "Note", "note"},
		{"com.example.note", "x", "", "ComExampleNote_X", "com"},
		{"com.example.4you.a", "main", "com.example", "X4youA", "4you"},
		{"com.example.doc.a", "main", "com.example", "DocA", "doc_"},
	} {
		if got := typeName(c.nsid, c.def, c.prefix); got != c.want {
			t.Errorf("%v: %s", c, got)
		}
		if got := groupOf(c.nsid, c.prefix); got != c.group {
			t.Errorf("%v: %s", c, got)
		}
	}
}

// schemas makes a catalog of documents, each the NSID, a space and its definitions.
func schemas(t *testing.T, docs ...string) *lexicon.Catalog {
	t.Helper()
	cat := lexicon.NewCatalog()
	for _, d := range docs {
		id, defs, _ := strings.Cut(d, " ")
		if _, err := cat.AddJSON(fmt.Appendf(nil, `{"lexicon":1,"id":%q,"defs":%s}`, id, defs)); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
	return cat
}

// compile type-checks the packages of an output, and returns its code without runs of white space, by path.
func compile(t *testing.T, module string, files []File) map[string]string {
	t.Helper()
	im := newImporter(module, files)
	flat := map[string]string{}
	for _, f := range files {
		flat[f.Path] = strings.Join(strings.Fields(string(f.Data)), " ")
		if _, err := im.Import(module + "/" + path.Dir(f.Path)); err != nil {
			t.Fatalf("%s: %v\n%s", f.Path, err, f.Data)
		}
	}
	return flat
}

// exports has what the compiler tells of the packages that an output may import, by import path.
var exports = sync.OnceValue(func() map[string]string {
	cmd := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", module+"xrpc", module+"api/...")
	cmd.Dir = fixtures.Root()
	out, err := cmd.Output()
	if err != nil {
		panic(err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		at, f, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[at] = f
	}
	return files
})

var compiled = sync.OnceValue(func() types.Importer {
	return importer.ForCompiler(token.NewFileSet(), "gc", func(at string) (io.ReadCloser, error) {
		f, ok := exports()[at]
		if !ok {
			return nil, fmt.Errorf("no package %s", at)
		}
		return os.Open(f)
	})
})

func newImporter(module string, files []File) *outputImporter {
	return &outputImporter{module: module, files: files, fset: token.NewFileSet(), done: map[string]*types.Package{}, rest: compiled()}
}

// outputImporter finds the packages of an output, and leaves others to the standard one.
type outputImporter struct {
	module string
	files  []File
	fset   *token.FileSet
	done   map[string]*types.Package
	rest   types.Importer
}

func (im *outputImporter) Import(at string) (*types.Package, error) {
	if p, ok := im.done[at]; ok {
		if p == nil {
			return nil, fmt.Errorf("%s imports itself", at)
		}
		return p, nil
	}
	dir, own := strings.CutPrefix(at, im.module+"/")
	if !own {
		return im.rest.Import(at)
	}
	im.done[at] = nil
	var parsed []*ast.File
	for _, f := range im.files {
		if path.Dir(f.Path) == dir {
			p, err := parser.ParseFile(im.fset, f.Path, f.Data, 0)
			if err != nil {
				return nil, err
			}
			parsed = append(parsed, p)
		}
	}
	p, err := (&types.Config{Importer: im}).Check(at, im.fset, parsed, nil)
	im.done[at] = p
	return p, err
}

const module2 = "example.com/app/lex"

func mustGenerate(t *testing.T, c Config) map[string]string {
	t.Helper()
	c.Module = module2
	files, err := Generate(c)
	if err != nil {
		t.Fatal(err)
	}
	return compile(t, module2, files)
}

func wantAll(t *testing.T, out map[string]string, want ...string) {
	t.Helper()
	all := ""
	for _, f := range sortedKeys(out) {
		all += out[f] + " "
	}
	for _, w := range want {
		if !strings.Contains(all, w) {
			t.Errorf("the output lacks %s\n%.20000s", w, all)
		}
	}
}

func object(props string, required ...string) string {
	return fmt.Sprintf(`{"type":"object","required":[%s],"properties":{%s}}`, strings.Join(required, ","), props)
}

// TestAwkward generates from schemas that are made to be difficult, and looks at what comes out.
func TestAwkward(t *testing.T) {
	str := `{"type":"string"}`
	var enum []string
	for i := range 5000 {
		enum = append(enum, fmt.Sprintf(`"v%d"`, i))
	}
	out := mustGenerate(t, Config{Catalog: schemas(t,
		// Required references to itself, and names that Go or the codec has.
		`com.example.node {"main":`+object(`"next":{"type":"ref","ref":"#other"},"extra":`+str+`,"lexType":`+str+`,"type":`+str+`,"func":`+str+`,"aB":`+str+`,"AB":`+str+`,"get":`+str+`,"1st":`+str+`,"é":`+str+`,"a,b":`+str, `"next"`, `"extra"`)+
			`,"other":`+object(`"back":{"type":"ref","ref":"com.example.node"},"in":`+object(`"deep":{"type":"ref","ref":"#other"}`, `"deep"`), `"back"`, `"in"`)+`,"empty":`+object(``)+`,"type":`+object(``)+`}`,
		// The same Go name twice, and once more for a definition in place.
		`com.example.fooBar {"main":`+object(`"x":`+object(`"y":`+str))+`,"x":`+object(``)+`}`,
		`com.example.foo.bar {"main":`+object(``)+`}`,
		`com.example.records {"main":`+object(``)+`}`,
		`com.example.extra {"main":`+object(``)+`}`,
		`com.example.huge {"main":`+object(`"e":{"type":"string","enum":[`+strings.Join(enum, ",")+`]}`)+`}`,
		`com.example.list {"main":{"type":"array","items":{"type":"ref","ref":"#main"}},"other":{"type":"array","items":{"type":"ref","ref":"#third"}},"third":{"type":"array","items":{"type":"array","items":{"type":"ref","ref":"#other"}}},`+
			`"objects":{"type":"array","items":`+object(`"u":{"type":"union","refs":["com.example.node"],"closed":true}`)+`}}`,
		`com.example.call {"main":{"type":"procedure","parameters":{"type":"params","properties":{"go":{"type":"string","format":"a,b","enum":["x|y","a"]},"list":{"type":"array","items":{"type":"integer"},"minLength":1}},"required":["list"]},`+
			`"input":{"encoding":"application/json","schema":{"type":"union","refs":["com.example.node"]}},"output":{"encoding":"application/json","schema":{"type":"ref","ref":"com.example.list"}},"errors":[{"name":"Foo-bar"},{"name":"FooBar"},{"name":"?"}]}}`,
		`com.example.feed {"main":{"type":"subscription","message":{"schema":{"type":"union","refs":["com.example.node"]}}}}`,
		`com.example.data.cid {"main":{"type":"record","key":"any","record":`+object(`"cid":{"type":"cid-link"},"data":{"type":"bytes"},"xrpc":{"type":"blob"}`, `"cid"`)+`}}`,
	)})
	wantAll(t, out,
		"Next *Node_Other `json:\"next\"`", "Back *Node `json:\"back\"`", "Deep *Node_Other `json:\"deep\"`", "Extra_ string `json:\"extra\"`", "LexType_ *string",
		"AB *string `json:\"AB,omitzero\"`", "AB_ *string `json:\"aB,omitzero\"`", "X1st *string", "Func *string",
		"FooBar_ struct", "FooBar__X struct", "FooBar_X struct", "type Records_ struct", "type Extra_ struct",
		"List []List", "List_Objects_Elem_U = data.Union[func(*Node) data.Closed]", "ErrFooBar_ xrpc.ErrorName", "Err xrpc.ErrorName = ", `Huge_V4999 = "v4999"`,
		"Go *string ", "List []int64 `lex:\"minItems=1,required\"`", "Call_Input = data.Union[func(*Node)]", "type Call_Output = List", "xrpc.Subscription[xrpc.None, Feed_Message]",
	)
	for f, src := range out {
		if strings.Contains(src, "a,b") {
			t.Errorf("%s has a field or rule that can't be", f)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		defs, path string
	}{
		"no ref":       {`{"main":` + object(`"a":{"type":"ref","ref":"#gone"}`) + `}`, "defs.main.properties.a"},
		"no schema":    {`{"main":` + object(`"a":{"type":"array","items":{"type":"ref","ref":"org.elsewhere.thing"}}`) + `}`, "defs.main.properties.a.items"},
		"ref to token": {`{"main":` + object(`"a":{"type":"ref","ref":"#t"}`) + `,"t":{"type":"token"}}`, "defs.main.properties.a"},
		"member":       {`{"main":{"type":"record","key":"any","record":` + object(`"a":{"type":"union","refs":["#t"]}`) + `},"t":{"type":"string"}}`, "defs.main.record.properties.a"},
		"no member":    {`{"main":{"type":"query","output":{"encoding":"application/json","schema":` + object(`"a":{"type":"union","refs":["#t"]}`) + `}}}`, "defs.main.output.schema.properties.a"},
	} {
		_, err := Generate(Config{Catalog: schemas(t, "com.example.bad "+c.defs), Module: module2})
		var e *lexicon.SchemaError
		if !errors.As(err, &e) || e.ID != "com.example.bad" || e.Path != c.path {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := schemas(t, `com.example.good {"main":`+object(``)+`}`)
	for name, c := range map[string]Config{
		"no catalog":   {Module: module2},
		"no module":    {Catalog: good},
		"bad module":   {Catalog: good, Module: `a"b`},
		"unknown NSID": {Catalog: good, Module: module2, NSIDs: []string{"com.example.gone"}},
		"unknown all":  {Catalog: good, Module: module2, NSIDs: []string{"com.gone.*"}},
		"keyword":      {Catalog: good, Module: module2, Packages: []Package{{"com.example", "func"}}},
		"outside":      {Catalog: good, Module: module2, Packages: []Package{{"com.example", "../x"}}},
		"twice":        {Catalog: good, Module: module2, Packages: []Package{{"com.example", "x"}, {"com.example", "y"}}},
		"no path":      {Catalog: good, Module: module2, Imports: []Import{{Prefix: "org.other"}}},
		"itself":       {Catalog: good, Module: module2, NSIDs: []string{"com.example.good"}, Imports: []Import{{Prefix: "com.other", Path: module2 + "/comexample"}}},
	} {
		if _, err := Generate(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestPackages covers what reaches over packages: an import map, a choice of NSIDs, and a circle.
func TestPackages(t *testing.T) {
	own, err := API()
	if err != nil {
		t.Fatal(err)
	}
	cat := schemas(t,
		`com.example.notes.note {"main":{"type":"record","key":"tid","record":`+object(`"subject":{"type":"ref","ref":"com.atproto.repo.strongRef"},"embed":{"type":"union","refs":["app.bsky.embed.images","app.bsky.embed.record#view","app.bsky.feed.defs#viewerState","#own"]},"author":{"type":"ref","ref":"com.example.people.defs#view"},"kind":{"type":"string","knownValues":["com.atproto.moderation.defs#reasonSpam","plain"]}`)+`},"own":`+object(``)+`}`,
		`com.example.people.defs {"view":`+object(`"pinned":{"type":"ref","ref":"com.example.notes.note"}`)+`,"unused":`+object(``)+`}`,
		`com.example.other {"main":`+object(``)+`}`,
		`org.self.thing {"main":`+object(``)+`}`,
	)
	if err := cat.AddFS(lexicons.FS); err != nil {
		t.Fatal(err)
	}
	c := Config{Catalog: cat, NSIDs: []string{"com.example.notes.*"}, Imports: own, Packages: []Package{{"com.example.notes", "notes"}}}
	out := mustGenerate(t, c)
	// people refers to notes, which refers to people: one package, named by the first.
	if _, ok := out["notes/notes.go"]; ok || len(out) == 0 {
		t.Errorf("notes is a package of its own: %v", sortedKeys(out))
	}
	wantAll(t, out, "package comexample", "Subject *comatproto.RepoStrongRef", "ComExampleNotesNote struct",
		"data.Union[func(*appbsky.EmbedImages, *appbsky.EmbedRecord_View, *appbsky_.FeedDefs_ViewerState, *ComExampleNotesNote_Own)]",
		`appbsky_ "example.com/app/lex/appbsky"`, "package appbsky ", `ComExampleNotesNote_Plain = "plain"`)
	for f, src := range out {
		if strings.Contains(src, "Unused") || strings.Contains(src, "Other struct") || strings.Contains(src, "ReasonSpam") {
			t.Errorf("%s has what wasn't asked for", f)
		}
	}
	// Without the circle, each has its own.
	c.Packages = append(c.Packages, Package{"com.example.people", "notes"})
	out = mustGenerate(t, c)
	wantAll(t, out, "package notes", "Note struct", "Defs_View struct", "func (*Note) LexType() string { return \"com.example.notes.note\" }")
	// Everything that no import has.
	c.NSIDs = nil
	wantAll(t, mustGenerate(t, c), "package orgself", "Thing struct")
	// Packages of one name, and no schemas given with the import.
	out = mustGenerate(t, Config{Catalog: cat, NSIDs: []string{"com.example.people.defs", "org.self.thing"}, Imports: []Import{
		{Prefix: "com.atproto", Path: module + "api/comatproto"}, {Prefix: "app.bsky", Path: module + "api/appbsky"},
	}})
	wantAll(t, out, "*appbsky.FeedDefs_ViewerState")
}

// TestWhole generates the whole set with comments, as one package and as several, and compiles it.
func TestWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c := all(t)
	c.Module, c.Comments = module2, true
	for _, prefix := range []string{"app.bsky", "chat.bsky", "com.atproto", "com.germnetwork", "internal.bsky", "site.standard", "tools.ozone"} {
		c.Packages = append(c.Packages, Package{prefix, "one"})
	}
	mustGenerate(t, c)
}

func TestComments(t *testing.T) {
	out := mustGenerate(t, Config{Comments: true, Catalog: schemas(t,
		`com.example.note {"main":{"type":"record","description":"A note\n*/ package evil; //go:embed x","key":"tid","record":{"type":"object","properties":{"text":{"type":"string","description":"What it says."}}}},"tok":{"type":"token","description":"A token."}}`,
		`com.example.get {"main":{"type":"query","description":"Gets it.","parameters":{"type":"params","properties":{"id":{"type":"string","description":"Which."}}},"output":{"encoding":"application/json","schema":{"type":"object","description":"An answer.","properties":{}}},"errors":[{"name":"Gone"}]}}`,
	)})
	wantAll(t, out, "// Note is com.example.note: A note */ package evil; //go:embed x type Note struct", "// What it says. Text *string", "// A token. Note_Tok",
		"// Get is the query com.example.get: Gets it. // // Errors: Gone. var Get", "// Which. Id *string", "// An answer. type Get_Output struct")
}

func TestCheck(t *testing.T) {
	c := Config{Catalog: schemas(t, `com.example.a {"main":`+object(`"x":{"type":"string"}`)+`}`, `com.example.b.c {"main":`+object(``)+`}`), Module: module2}
	files, err := Generate(c)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var diff *DiffError
	if err := Check(os.DirFS(dir), files); !errors.As(err, &diff) || len(diff.Paths) != len(files) || !strings.Contains(diff.Diff, "+package comexample") {
		t.Errorf("of nothing: %v", err)
	}
	if err := Write(dir, files); err != nil {
		t.Fatal(err)
	}
	if err := Check(os.DirFS(dir), files); err != nil {
		t.Errorf("what was written: %v", err)
	}
	was := fstest.MapFS{"comexample/own.go": {Data: []byte("package comexample\n")}, "comexample/old.go": {Data: []byte(header + "package comexample\n")}}
	for _, f := range files {
		was[f.Path] = &fstest.MapFile{Data: bytes.Replace(f.Data, []byte("json:\"x,"), []byte("json:\"y,"), 1)}
	}
	err = Check(was, files)
	if !errors.As(err, &diff) || !slices.Equal(diff.Paths, []string{"comexample/b-example.go", "comexample/old.go"}) ||
		!strings.Contains(strings.Join(strings.Fields(diff.Diff), " "), "- X *string `json:\"y,omitzero\"` + X *string `json:\"x,omitzero\"`") || !strings.Contains(diff.Diff, "+++ /dev/null") {
		t.Errorf("%v\n%s", err, diff.Diff)
	}
	// Writing removes what it wrote before, and nothing else.
	for _, name := range []string{"own.go", "old.go"} {
		if err := os.WriteFile(filepath.Join(dir, "comexample", name), was["comexample/"+name].Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(dir, files); err != nil {
		t.Fatal(err)
	}
	if err := Check(os.DirFS(dir), files); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "comexample", "own.go")); err != nil {
		t.Error(err)
	}
}

func TestDiff(t *testing.T) {
	var b strings.Builder
	writeDiff(&b, "f", []byte("1\n2\n3\n4\n5\n6\n7\n8\n9\n"), []byte("1\n2\n3\n4\nx\n6\n8\n9\n"))
	if want := "--- a/f\n+++ b/f\n@@ -2,8 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n-7\n 8\n 9\n"; b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	b.Reset()
	long := bytes.Repeat([]byte("a\n"), maxDiff+1)
	writeDiff(&b, "f", long, []byte("b\n"))
	if n := strings.Count(b.String(), "\n-a"); n != maxDiff+1 || !strings.HasSuffix(b.String(), "\n+b\n") {
		t.Errorf("%d lines", n)
	}
}

// FuzzGenerate wants an error or Go that compiles, of any schema.
func FuzzGenerate(f *testing.F) {
	for _, name := range []string{"app/bsky/feed/post.json", "com/atproto/repo/applyWrites.json", "com/atproto/sync/subscribeRepos.json", "app/bsky/authFullApp.json"} {
		b, err := lexicons.FS.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
	}
	f.Add([]byte(`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"object","required":["a"],"properties":{"a":{"type":"ref","ref":"#main"},"A":{"type":"union","refs":["#x"]}}},"x":{"type":"object","properties":{}},"mainA":{"type":"array","items":{"type":"ref","ref":"#mainA"}}}}`), false)
	whole := lexicon.NewCatalog()
	if err := whole.AddFS(lexicons.FS); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, comments bool) {
		cat := lexicon.NewCatalog()
		for _, id := range whole.NSIDs() {
			cat.Add(whole.Schema(id))
		}
		s, err := cat.AddJSON(b)
		if err != nil {
			return
		}
		files, err := Generate(Config{Catalog: cat, NSIDs: []string{string(s.ID)}, Module: module2, Comments: comments})
		var e *lexicon.SchemaError
		if errors.As(err, &e) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		im := newImporter(module2, files)
		for _, f := range files {
			if _, err := im.Import(module2 + "/" + path.Dir(f.Path)); err != nil {
				t.Fatalf("%v\n%s", err, f.Data)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"lexicons":["com.example.a"]}`))
	f.Add([]byte(`{"lexicon":1,"description":"x","defs":{"title":{"type":"string"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ids, err := Manifest(b); err != nil && ids != nil {
			t.Errorf("%v with %v", ids, err)
		}
		if out, err := strip(b); err == nil {
			if again, err := strip(out); err != nil || !bytes.Equal(again, out) {
				t.Errorf("%s became %s (%v)", out, again, err)
			}
		}
	})
}
