package baro

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// declared is what a folder declares: names, and methods and fields behind their type and a point.
type declared struct{ exported, tests map[string]bool }

func declarations(t *testing.T, folder string, cache map[string]*declared) *declared {
	t.Helper()
	if d := cache[folder]; d != nil {
		return d
	}
	d := &declared{map[string]bool{}, map[string]bool{}}
	cache[folder] = d
	files, err := filepath.Glob(filepath.Join(filepath.FromSlash(folder), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		into := d.exported
		if strings.HasSuffix(name, "_test.go") {
			into = d.tests
		}
		for _, decl := range f.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				into[receiver(decl)+decl.Name.Name] = true
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							into[n.Name] = true
						}
					case *ast.TypeSpec:
						into[spec.Name.Name] = true
						if s, ok := spec.Type.(*ast.StructType); ok {
							for _, field := range s.Fields.List {
								for _, n := range field.Names {
									into[spec.Name.Name+"."+n.Name] = true
								}
							}
						}
					}
				}
			}
		}
	}
	return d
}

// receiver is the type of a method and a point, "" for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	e := f.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name + "."
		default:
			return ""
		}
	}
}

var (
	codeSpan  = regexp.MustCompile("`([^`]+)`")
	qualified = regexp.MustCompile(`^([a-z0-9/]+)\.([A-Z]\w*(?:\.[A-Z]\w*)?)$`)
	testName  = regexp.MustCompile(`^(Test|Example|Fuzz)`)
)

// TestParity holds docs/parity.md to the module: each row has three cells, names of what is exported, and tests that are there.
func TestParity(t *testing.T) {
	page, err := os.ReadFile("docs/parity.md")
	if err != nil {
		t.Fatal(err)
	}
	cache := map[string]*declared{}
	var section string
	rows := map[string]int{}
	for n, line := range strings.Split(string(page), "\n") {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = name
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.TrimSpace(cells[len(cells)-1]) == "shown by" {
			continue
		}
		rows[section]++
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf("docs/parity.md:%d: "+format, append([]any{n + 1}, args...)...)
		}
		if len(cells) != 3 || strings.TrimSpace(cells[0]) == "" {
			fail("a row has three cells, and none is empty: %s", line)
			continue
		}
		names, tests := 0, 0
		for _, span := range codeSpan.FindAllStringSubmatch(cells[1], -1) {
			if m := qualified.FindStringSubmatch(span[1]); m != nil {
				names++
				if !declarations(t, m[1], cache).exported[m[2]] {
					fail("there is no %s", span[1])
				}
			}
		}
		for _, span := range codeSpan.FindAllStringSubmatch(cells[2], -1) {
			tests++
			m := qualified.FindStringSubmatch(span[1])
			switch {
			case path.Ext(span[1]) == ".txtar":
				if _, err := os.Stat(span[1]); err != nil {
					fail("%v", err)
				}
			case m == nil || !testName.MatchString(m[2]):
				fail("%s is no name of a test", span[1])
			case !declarations(t, m[1], cache).tests[m[2]]:
				fail("there is no test %s", span[1])
			}
		}
		if names == 0 || tests == 0 {
			fail("no name, or no test: %s", line)
		}
	}
	for section, least := range map[string]int{"lairs.atproto": 40, "MarshalX atproto": 30, "What others have besides": 10} {
		if rows[section] < least {
			t.Errorf("%d rows under %q, want at least %d", rows[section], section, least)
		}
	}
}
