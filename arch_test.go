package baro

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write deps.txt")

const module = "github.com/barograph/baro"

// hashing is the one package of internal that the core imports: SHA-256 of many short messages.
const hashing = "internal/sha256x"

// locking is the one package of internal that the SDK imports: locks between processes.
const locking = "internal/filelock"

// guarding is the package of internal that keeps what identity asks for, at names from the network, off private addresses.
const guarding = "internal/netguard"

// core are the packages of the protocol core, with what of this module and of others they import. "core" stands for all
// of them.
var core = map[string]struct {
	own   []string
	other []string
}{
	"syntax":   {},
	"cid":      {own: []string{hashing}},
	"cbor":     {own: []string{"cid"}},
	"data":     {own: []string{"cid", "cbor", "syntax"}},
	"keys":     {other: []string{"gitlab.com/yawning/secp256k1-voi"}},
	"car":      {own: []string{"cid", "cbor", hashing}},
	"mst":      {own: []string{"cid", "cbor", "syntax", hashing}},
	"repo":     {own: []string{"core", hashing}},
	"lexicon":  {own: []string{"syntax", "cid", "cbor", "data"}, other: []string{"github.com/rivo/uniseg"}},
	"plc":      {own: []string{"syntax", "cid", "cbor", "keys"}},
	"label":    {own: []string{"syntax", "cid", "cbor", "keys"}},
	"lexicons": {}, // the schemas themselves, embedded
}

// sdk are the packages that talk to the network. They import the core, api and each other, and nothing of internal;
// those with an entry in sdkOnly import less.
var sdk = []string{"xrpc", "identity", "auth", "client", "richtext", "bsky", "stream", "reposync", "graph", "workflow"}

var sdkOnly = map[string][]string{
	"xrpc":            {"syntax", "data", "cid", "cbor"},
	"identity":        {"core"},
	"identity/lexres": {"core", "identity", "client", "xrpc", "api"},
	"stream":          {"core", "xrpc"},
	"reposync":        {"core", "identity", "stream", "xrpc", "api"},
	"auth":            {"core", "xrpc", "identity", "api"},
	"auth/scope":      {"syntax", "lexicon"},
	"richtext":        {"core", "api"},
	"graph":           {"core"},
}

// pureOfAuth is as pure as the core, beside the packages that it serves.
const pureOfAuth = "auth/scope"

type pkg struct {
	Dir, ImportPath, Name, Doc string
	GoFiles, IgnoredGoFiles    []string
	Error                      *struct{ Err string }

	rel     string              // path below the module
	files   []string            // of all systems and tags, without tests
	imports map[string][]string // path → files
}

// goList runs the go command as on one fixed system, so that every machine gets the same answer.
func goList(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e"}, args...)...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	return out
}

var listed []*pkg

// packages are those of the module that hold more than tests.
func packages(t *testing.T) []*pkg {
	t.Helper()
	if listed != nil {
		return listed
	}
	// The go command's reads are not this test's, and a cached pass would outlive a new file: looking at the folders here
	// makes their contents part of what the cache goes by.
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(goList(t, "-find", "-json=Dir,ImportPath,Name,Doc,GoFiles,IgnoredGoFiles,Error", "./...")))
	for {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		p.rel = strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if len(p.GoFiles) == 0 {
			continue
		}
		listed = append(listed, p)
		// The go command lists imports only together with all that they import in turn, which takes seconds.
		p.imports = map[string][]string{}
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			p.files = append(p.files, name)
			_, f := parse(t, p, name, parser.ImportsOnly)
			for _, spec := range f.Imports {
				imp, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				p.imports[imp] = append(p.imports[imp], name)
			}
		}
	}
	if len(listed) < 5 {
		t.Fatalf("only %d packages found", len(listed))
	}
	return listed
}

func top(rel string) string { first, _, _ := strings.Cut(rel, "/"); return first }

// matches says whether an import of this module is among those that the names stand for.
func matches(rel string, names []string) bool {
	for _, n := range names {
		if n == top(rel) || n == rel {
			return true
		}
		if _, isCore := core[top(rel)]; n == "core" && isCore {
			return true
		}
	}
	return false
}

// server is the name of the service that a package belongs to, or "".
func server(rel string) string {
	rest, ok := strings.CutPrefix(rel, "internal/server/")
	if !ok {
		return ""
	}
	return top(rest)
}

// forbidden says why one package must not import another of this module, or "".
func forbidden(from, to string) string {
	switch {
	case top(to) == "cmd":
		return "nothing imports cmd"
	case to == "":
		return "nothing imports the map"
	}
	if c, ok := core[top(from)]; ok {
		if top(from) == top(to) || matches(to, c.own) {
			return ""
		}
		return fmt.Sprintf("of the core, %s imports only %v", top(from), c.own)
	}
	switch {
	case top(from) == "api":
		if matches(to, []string{"core", "xrpc", "api"}) {
			return ""
		}
		return "generated types import only the core and xrpc"
	case slices.Contains(sdk, top(from)) && to == locking, top(from) == "identity" && to == guarding:
		return ""
	case slices.Contains(sdk, top(from)):
		only, ok := sdkOnly[from]
		if !ok {
			only, ok = sdkOnly[top(from)]
		}
		if ok {
			if top(from) == top(to) && from != pureOfAuth || matches(to, only) {
				return ""
			}
			return fmt.Sprintf("%s imports only %v", from, only)
		}
		if matches(to, append([]string{"core", "api"}, sdk...)) {
			return ""
		}
		return "the SDK imports only the core, api and itself"
	case top(from) == "devnet", top(from) == "cmd":
		return ""
	case top(from) == "examples":
		if matches(to, append([]string{"core", "api", "examples"}, sdk...)) || testSupport(from) && to == "devnet" {
			return ""
		}
		return "an example imports what an app could"
	case server(from) != "":
		if server(to) != "" && server(to) != server(from) {
			return "a server never imports another"
		}
		if top(to) == "devnet" {
			return "servers don't import devnet"
		}
		return ""
	case from == "internal/bench" && matches(to, []string{"api", "stream"}): // which it measures
		return ""
	case from == "internal/doctor" && matches(to, []string{"api", "identity", "stream", "xrpc"}): // it is a client
		return ""
	case top(from) == "internal":
		if server(to) != "" || top(to) != "internal" && !matches(to, []string{"core"}) {
			return "the machinery of internal imports only the core and itself"
		}
		return ""
	}
	return "this package has no place in the house: give it one in arch_test.go"
}

func TestImportDirections(t *testing.T) {
	for _, p := range packages(t) {
		if p.Error != nil {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		if p.rel == "" {
			if len(p.imports) > 0 {
				t.Errorf("the map imports %v", p.imports)
			}
			continue
		}
		if !matches(p.rel, append([]string{"core", "api", "devnet", "cmd", "examples", "internal"}, sdk...)) {
			t.Errorf("%s has no place in the house: give it one in arch_test.go", p.rel)
			continue
		}
		for imp := range p.imports {
			if to, ok := strings.CutPrefix(imp, module+"/"); ok {
				if why := forbidden(p.rel, to); why != "" {
					t.Errorf("%s imports %s: %s", p.rel, to, why)
				}
				continue
			}
			if !strings.Contains(top(imp), ".") {
				continue // std
			}
			if c, ok := core[top(p.rel)]; ok && !slices.ContainsFunc(c.other, func(m string) bool { return imp == m || strings.HasPrefix(imp, m+"/") }) &&
				!testSupport(p.rel) {
				t.Errorf("%s imports %s: of other modules, it may import only %v", p.rel, imp, c.other)
			}
			if top(p.rel) == "api" {
				t.Errorf("%s imports %s: generated types stand on the standard library", p.rel, imp)
			}
		}
	}
}

// testSupport says whether a package only serves tests: kv/kvtest, repo/repotest.
func testSupport(rel string) bool {
	return strings.HasSuffix(path.Base(rel), "test") || rel == "internal/fixtures"
}

// TestCoreIsPure keeps network, disk, logs and goroutines out of the core.
func TestCoreIsPure(t *testing.T) {
	impure := []string{"net", "net/http", "os", "os/exec", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "syscall"}
	for _, p := range packages(t) {
		if _, ok := core[top(p.rel)]; !ok && p.rel != pureOfAuth || testSupport(p.rel) {
			continue
		}
		for imp := range p.imports {
			if slices.Contains(impure, imp) {
				t.Errorf("%s imports %s, but the core is pure", p.rel, imp)
			}
		}
		for _, name := range p.GoFiles {
			fset, f := parse(t, p, name, parser.SkipObjectResolution)
			ast.Inspect(f, func(n ast.Node) bool {
				if g, ok := n.(*ast.GoStmt); ok {
					t.Errorf("%s starts a goroutine, but the core is pure", fset.Position(g.Pos()))
				}
				return true
			})
		}
	}
}

// banned are the names that only the machinery may use: whoever needs them is given a world, a clock or a client.
var banned = map[string]struct {
	names   []string
	instead string
}{
	"time": {[]string{"Now", "Since", "Until"}, "a clock, a Now option or a value"},
	"net":  {[]string{"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer", "DefaultResolver", "LookupHost", "LookupIP", "LookupTXT", "LookupAddr", "LookupCNAME", "LookupSRV"}, "the world's Dialer or Resolver"},
	"os":   {[]string{"Create", "CreateTemp", "OpenFile", "WriteFile", "Mkdir", "MkdirAll", "MkdirTemp", "Rename", "Remove", "RemoveAll"}, "the world's FS"},
	"log":  {[]string{"Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln", "Default", "SetOutput", "SetFlags"}, "the world's Log"},

	"net/http":     {[]string{"DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm", "ListenAndServe", "ListenAndServeTLS", "Handle", "HandleFunc", "DefaultServeMux"}, "a guarded client, or internal/httpd"},
	"log/slog":     {[]string{"Default", "SetDefault", "Debug", "Info", "Warn", "Error", "Log", "LogAttrs", "With", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"}, "the world's Log"},
	"crypto/rand":  {[]string{"Reader", "Read", "Int", "Prime", "Text"}, "the world's Rand"},
	"math/rand":    {globalRand, "a seeded rand.New"},
	"math/rand/v2": {globalRand, "a seeded rand.New"},
}

var globalRand = []string{"Int", "IntN", "Intn", "Int32", "Int32N", "Int31", "Int31n", "Int64", "Int64N", "Int63", "Int63n", "Uint32", "Uint32N", "Uint64", "Uint64N", "UintN", "N",
	"Float32", "Float64", "NormFloat64", "ExpFloat64", "Perm", "Shuffle", "Seed", "Read"}

// machinery may use what is banned elsewhere.
func machinery(rel, imp string) bool {
	switch {
	case top(rel) == "cmd", top(rel) == "examples", rel == "internal/world", rel == "internal/netguard", rel == "internal/kv", rel == "internal/blob", testSupport(rel):
		return true
	case rel == "stream" && (imp == "net" || imp == "time"): // what an application without a guard dials with, and its clock; servers pass their own
		return true
	case rel == "bsky" && imp == "time", rel == "identity" && (imp == "time" || imp == "net"): // what people type first works without being given a clock and a resolver
		return true
	case imp == "os": // tools for developers, which write source files
		return strings.HasPrefix(rel, "internal/lexgen")
	}
	return false
}

func TestBannedCalls(t *testing.T) {
	for _, p := range packages(t) {
		look := map[string]bool{} // files that import something with banned names
		for imp, files := range p.imports {
			if imp == "testing" && !testSupport(p.rel) {
				t.Errorf("%s imports testing outside of tests: %v", p.rel, files)
			}
			if _, ok := banned[imp]; ok && !machinery(p.rel, imp) {
				for _, name := range files {
					look[name] = true
				}
			}
		}
		for name := range look {
			fset, f := parse(t, p, name, 0)
			used := map[string]string{} // name in the file → import path
			for _, spec := range f.Imports {
				imp, _ := strconv.Unquote(spec.Path.Value)
				if _, ok := banned[imp]; !ok || machinery(p.rel, imp) {
					continue
				}
				as := path.Base(strings.TrimSuffix(imp, "/v2"))
				if spec.Name != nil {
					as = spec.Name.Name
				}
				used[as] = imp
			}
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, ok := sel.X.(*ast.Ident)
				if !ok || x.Obj != nil { // a variable of that name
					return true
				}
				if b := banned[used[x.Name]]; slices.Contains(b.names, sel.Sel.Name) {
					t.Errorf("%s uses %s.%s: take %s", fset.Position(n.Pos()), x.Name, sel.Sel.Name, b.instead)
				}
				return true
			})
		}
	}
}

func parse(t *testing.T, p *pkg, name string, mode parser.Mode) (*token.FileSet, *ast.File) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, mode)
	if err != nil {
		t.Fatal(err)
	}
	return fset, f
}

func TestPackageNames(t *testing.T) {
	bad := map[string]string{}
	for _, n := range []string{"util", "utils", "common", "helper", "helpers", "base", "model", "models", "types", "misc", "shared"} {
		bad[n] = "says nothing"
	}
	for _, imp := range strings.Fields(string(goList(t, "-find", "std"))) {
		if n := path.Base(imp); n != "syntax" && !strings.Contains(imp, "internal") && !strings.HasPrefix(imp, "vendor/") {
			bad[n] = "is the name of " + imp
		}
	}
	for _, p := range packages(t) {
		if why := bad[p.Name]; why != "" {
			t.Errorf("%s: the name %s %s", p.rel, p.Name, why)
		}
		if p.Name != "main" && p.rel != "" && p.Name != path.Base(p.rel) {
			t.Errorf("%s holds package %s", p.rel, p.Name)
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + path.Base(p.rel) + " "
		}
		if !strings.HasPrefix(p.Doc, want) && !(p.Name == "main" && p.Doc != "") {
			t.Errorf("%s: the package comment is %q, want one that starts with %q", p.rel, p.Doc, want)
		}
	}
}

// TestMap: doc.go and ARCHITECTURE.md name every package that others may import.
func TestMap(t *testing.T) {
	hidden := regexp.MustCompile(`^$|^(internal|cmd|examples|interop|lexicons|api)(/|$)|/internal/`)
	for _, file := range []string{"doc.go", "ARCHITECTURE.md"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packages(t) {
			if !hidden.MatchString(p.rel) && !regexp.MustCompile(`\s`+regexp.QuoteMeta(p.rel)+`[\s:;,]`).Match(b) {
				t.Errorf("%s doesn't name %s", file, p.rel)
			}
		}
	}
}

// TestFileSizes keeps files readable; generated ones are not read.
func TestFileSizes(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b, []byte{'\n'}); n > 1000 && !bytes.Contains(b[:min(len(b), 400)], []byte("DO NOT EDIT")) {
				t.Errorf("%s/%s has %d lines: a thousand are enough", p.rel, name, n)
			}
		}
	}
}

// TestDeps compares deps.txt with the modules that the binary and the core packages depend on. Run it with -update to
// write the file.
func TestDeps(t *testing.T) {
	const file = "deps.txt"
	packages(t) // so that the cache of test results goes by their imports
	if _, err := os.ReadFile("go.mod"); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("# Modules that go into the binary, and into the core packages that others import.\n" +
		"# Written by: go test . -run TestDeps -update\n")
	for _, rel := range []string{"cmd/baro", "cbor", "mst", "repo", "client"} {
		if _, err := os.Stat(filepath.FromSlash(rel)); err != nil {
			continue
		}
		out := goList(t, "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./"+rel)
		mods := strings.Fields(string(out))
		slices.Sort(mods)
		mods = slices.DeleteFunc(slices.Compact(mods), func(m string) bool { return m == module })
		fmt.Fprintf(&want, "\n%s: %d\n", rel, len(mods))
		for _, m := range mods {
			fmt.Fprintf(&want, "\t%s\n", m)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want.String() {
		t.Errorf("deps.txt is out of date: see what came or went, and run go test . -run TestDeps -update\n%s", difference(string(got), want.String()))
	}
}

func difference(old, new string) string {
	var out strings.Builder
	a, b := strings.Split(old, "\n"), strings.Split(new, "\n")
	for _, l := range a {
		if l != "" && !slices.Contains(b, l) {
			fmt.Fprintf(&out, "- %s\n", l)
		}
	}
	for _, l := range b {
		if l != "" && !slices.Contains(a, l) {
			fmt.Fprintf(&out, "+ %s\n", l)
		}
	}
	return out.String()
}
