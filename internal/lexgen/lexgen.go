// Package lexgen turns lexicon schemas into Go: the packages under api are its output, and those of apps.
//
// Schema language: https://atproto.com/specs/lexicon. Package lexicon parses and checks schemas; this one has no templates
// and no second stage. What it writes is types with struct tags and one descriptor per method; package data encodes and
// decodes all of them with one codec, package xrpc calls and serves them.
//
//	cat := lexicon.NewCatalog()
//	err := cat.AddFS(os.DirFS("lexicons"))
//	own, err := lexgen.API()
//	files, err := lexgen.Generate(lexgen.Config{
//		Catalog: cat, NSIDs: []string{"com.example.*"},
//		Module: "example.com/app/lex", Imports: own,
//	})
//	err = lexgen.Check(os.DirFS("lex"), files)  // what differs, with a diff
//	err = lexgen.Write("lex", files)
//
// Output depends on the [Config] alone: the same schemas give the same bytes. An error is a [*lexicon.SchemaError] where a
// schema is at fault. The command internal/lexgen/cmd is for `go generate`.
//
// # Packages
//
// The definitions below a prefix of NSIDs make a package: by default the first two segments, so that com.example.note goes
// to comexample. Packages that would import each other in a circle become one, that of the first of them by name; the names
// of what comes from the others begin with their whole NSID.
//
// # Names
//
// A definition is named after its NSID without the prefix, in camel case; another one than main adds its own name behind an
// underscore: app.bsky.feed.defs#postView is appbsky.FeedDefs_PostView. What is defined in place adds the name of its
// field, and Elem for the items of an array: FeedPost_Embed, RepoApplyWrites_Input_Writes_Elem. What can't be in an
// identifier is left out, and one that would begin with a digit, or be empty, gets an X before it.
//
// A name that is taken gets an underscore at its end. First come, first served: the definitions in the order of their NSIDs,
// in each main before the others by name, whether they are generated or not; then the errors; then what is defined in place
// and the constants, in the order of the output. Within a struct the fields go by the names of their properties.
//
// A property whose name can't be in a struct tag (with a comma, a quote, a backslash, a control character or beyond ASCII)
// has no field; its values are kept in Extra.
package lexgen

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/syntax"
)

// Config says what to generate and where to.
type Config struct {
	Catalog *lexicon.Catalog // the schemas, with all that they refer to but what imports have

	// NSIDs are generated with what they reach. One that ends in ".*" stands for all below it that the catalog has. Empty:
	// all of the catalog that isn't below the prefix of an import.
	NSIDs []string

	Module   string    // import path of the folder of the output, such as "example.com/app/lex"
	Packages []Package // where the schemas below a prefix go, other than to the package of their first two segments
	Imports  []Import  // packages that exist already, and are referred to
	Comments bool      // write the descriptions of the schemas as comments
}

// Package is a package of the output.
type Package struct {
	Prefix string // of NSIDs, such as "com.example.notes"; it is left out of names
	Dir    string // below Config.Module, such as "notes"; its last element is the name of the package
}

// Import is a package that was generated before, from the schemas below a prefix.
type Import struct {
	Prefix string // as it was then, such as "com.atproto"
	Path   string // import path
	// Catalog has the schemas that it was generated from: a definition that isn't there is generated anew, and so is one that
	// is in a union and isn't made for it there. Nil: all are there, with the names and unions that follow from
	// Config.Catalog.
	Catalog *lexicon.Catalog
}

// File is a file of the output.
type File struct {
	Path string // below the folder of the output, with slashes
	Data []byte
}

// API returns the packages of this module, which hold what the folder lexicons has.
func API() ([]Import, error) {
	cat := lexicon.NewCatalog()
	if err := cat.AddFS(lexicons.FS); err != nil {
		return nil, err
	}
	var imports []Import
	for _, id := range cat.NSIDs() {
		prefix := firstTwo(string(id))
		if n := len(imports); n == 0 || imports[n-1].Prefix != prefix {
			imports = append(imports, Import{Prefix: prefix, Path: module + "api/" + exportable(prefix), Catalog: cat})
		}
	}
	return imports, nil
}

const module = "github.com/barograph/baro/"

// Manifest returns the NSIDs that a lexicons.json lists: what its author asked for, without what that refers to.
func Manifest(b []byte) ([]string, error) {
	var m struct {
		Version  int      `json:"version"`
		Lexicons []string `json:"lexicons"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", err)
	}
	if m.Version != 1 {
		return nil, fmt.Errorf("reading a manifest: version %d where 1 is wanted", m.Version)
	}
	for _, id := range m.Lexicons {
		if !syntax.ValidNSID(id) {
			return nil, fmt.Errorf("reading a manifest: %.320q is no NSID", id)
		}
	}
	return m.Lexicons, nil
}

// Generate returns the Go files, sorted by path.
func Generate(c Config) ([]File, error) {
	g, err := newGenerator(c)
	if err != nil {
		return nil, err
	}
	if err := g.selectAll(); err != nil {
		return nil, err
	}
	g.mergeCycles()
	for _, p := range g.sorted() {
		if err := g.nameAll(p); err != nil {
			return nil, err
		}
	}
	var files []File
	for _, p := range g.sorted() {
		out, err := g.write(p)
		if err != nil {
			return nil, err
		}
		files = append(files, out...)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// ref is an absolute reference as package lexicon writes it: an NSID, with "#name" for another definition than main.
type ref string

func (r ref) nsid() string { id, _, _ := strings.Cut(string(r), "#"); return id }

func (r ref) name() string {
	if _, name, ok := strings.Cut(string(r), "#"); ok {
		return name
	}
	return "main"
}

func refTo(nsid, name string) ref {
	if name == "main" {
		return ref(nsid)
	}
	return ref(nsid + "#" + name)
}

// pkg is a package: one of the output, or one that exists.
type pkg struct {
	path    string // import path
	name    string
	names   map[ref]string   // of all definitions
	members map[ref]bool     // definitions that are in a union, or may be in somebody else's
	cat     *lexicon.Catalog // of an import

	// of the output
	dir     string
	taken   map[string]bool
	errors  map[string]string // identifiers by name
	imports map[string]string // names of imported packages by path
	first   map[string]string // the first type of each content
	same    map[string]string // the first type that is the same
	defs    []ref             // what is generated, in order
	hosted  map[string]bool   // prefixes whose names are whole, because they came from another package
}

type generator struct {
	Config
	cat      *lexicon.Catalog
	imported map[string]*pkg // by path
	pkgs     map[string]*pkg // of the output, by dir
	moved    map[string]*pkg // where the definitions of a dir went
	chosen   map[ref]bool
	member   map[ref]bool // chosen definitions that are in a union
}

func newGenerator(c Config) (*generator, error) {
	g := &generator{Config: c, cat: c.Catalog, imported: map[string]*pkg{}, pkgs: map[string]*pkg{}, moved: map[string]*pkg{}, chosen: map[ref]bool{}, member: map[ref]bool{}}
	if c.Catalog == nil {
		return nil, fmt.Errorf("generating: no catalog")
	}
	if c.Module == "" || strings.HasPrefix(c.Module, "/") || path.Clean(c.Module) != c.Module || strings.ContainsAny(c.Module, "\"\\ \n") {
		return nil, fmt.Errorf("generating: %q is no import path of a folder", c.Module)
	}
	seen := map[string]bool{}
	for _, p := range c.Packages {
		if !goName(path.Base(p.Dir)) || path.Clean(p.Dir) != p.Dir || strings.HasPrefix(p.Dir, "../") || strings.HasPrefix(p.Dir, "/") {
			return nil, fmt.Errorf("generating: %q can't be the folder of a package", p.Dir)
		}
		if p.Prefix == "" || seen[p.Prefix] {
			return nil, fmt.Errorf("generating: the prefix %q is empty or given twice", p.Prefix)
		}
		seen[p.Prefix] = true
	}
	for _, i := range c.Imports {
		if i.Prefix == "" || seen[i.Prefix] {
			return nil, fmt.Errorf("generating: the prefix %q is empty or given twice", i.Prefix)
		}
		seen[i.Prefix] = true
		if i.Path == "" || strings.ContainsAny(i.Path, "\"\\ \n") {
			return nil, fmt.Errorf("generating: %q is no import path", i.Path)
		}
	}
	return g, nil
}

// sorted returns the packages of the output.
func (g *generator) sorted() []*pkg {
	var list []*pkg
	for _, dir := range sortedKeys(g.pkgs) {
		list = append(list, g.pkgs[dir])
	}
	return list
}
