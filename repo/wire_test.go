package repo_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// declared returns the names that a package gives to rules: the values of its constants of type Rule, or its errors.
func declared(t *testing.T, pkg string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("package %s: %d files, %v", pkg, len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for i, id := range v.Names {
					switch typ, _ := v.Type.(*ast.Ident); {
					case g.Tok == token.CONST && typ != nil && typ.Name == "Rule":
						value, err := strconv.Unquote(v.Values[i].(*ast.BasicLit).Value)
						if err != nil {
							t.Fatalf("%s.%s: %v", pkg, id.Name, err)
						}
						names = append(names, pkg+":"+value)
					case g.Tok == token.CONST && pkg == "repo" && strings.HasPrefix(id.Name, "Reason"):
						names = append(names, id.Name) // the value may be an expression
					case g.Tok == token.VAR && pkg == "keys" && strings.HasPrefix(id.Name, "Err"):
						names = append(names, pkg+"."+id.Name)
					}
				}
			}
		}
	}
	return names
}

// The page on the wire format names every rule that the code has, no other, and the limits and the checklist as they are.
func TestWirePage(t *testing.T) {
	b, err := os.ReadFile("../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	want := map[string]bool{}
	for _, pkg := range []string{"cbor", "data", "car", "mst", "keys"} {
		names := declared(t, pkg)
		if len(names) == 0 {
			t.Errorf("package %s has no names", pkg)
		}
		for _, n := range names {
			want[n] = true
		}
	}
	for _, r := range repo.Reasons {
		want["repo:"+string(r)] = true
	}
	if n := len(declared(t, "repo")); n != len(repo.Reasons) {
		t.Errorf("%d reasons are declared, %d are listed", n, len(repo.Reasons))
	}
	got := map[string]bool{}
	for _, m := range regexp.MustCompile("`((?:cbor|data|car|mst|repo|keys):[a-z0-9-]+|keys\\.Err[A-Za-z]+)`").FindAllStringSubmatch(page, -1) {
		got[m[1]] = true
	}
	for n := range want {
		if !got[n] {
			t.Errorf("%s is not in the page", n)
		}
	}
	for n := range got {
		if !want[n] {
			t.Errorf("%s is in the page, but not in the code", n)
		}
	}

	rows := strings.Split(page, "\n")
	for name, limit := range map[string]int{
		"cbor.MaxDepth": cbor.MaxDepth, "cbor.MaxElements": cbor.MaxElements, "cbor.MaxKey": cbor.MaxKey, "cbor.MaxRecord": cbor.MaxRecord,
		"data.MaxRecordJSON": data.MaxRecordJSON, "car.MaxHeader": car.MaxHeader,
		"mst.MaxEntries": mst.MaxEntries, "mst.MaxLayer": mst.MaxLayer, "mst.MaxKey": mst.MaxKey,
		"repo.MaxRecord": repo.MaxRecord, "repo.MaxFrame": repo.MaxFrame, "repo.MaxBlocks": repo.MaxBlocks, "repo.MaxSyncBlocks": repo.MaxSyncBlocks,
		"repo.MaxOps": repo.MaxOps, "repo.MaxExtraBlocks": repo.MaxExtraBlocks, "repo.MaxExtraBytes": repo.MaxExtraBytes,
		"syntax.MaxDID": syntax.MaxDID, "syntax.MaxDatetime": syntax.MaxDatetime,
	} {
		if row := fmt.Sprintf("| %s | `%s` |", grouped(limit), name); !strings.Contains(page, row) {
			t.Errorf("no limit %q", row)
		}
	}
	if data.MaxRecord != repo.MaxRecord {
		t.Errorf("records of %d and %d bytes", data.MaxRecord, repo.MaxRecord)
	}
	for _, r := range repo.Checklist {
		i := slices.IndexFunc(rows, func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("| %d | ", r.Number)) })
		if i < 0 {
			t.Errorf("rule %d is not in the page", r.Number)
			continue
		}
		for _, reason := range r.Reasons {
			if !strings.Contains(rows[i], "`repo:"+string(reason)+"`") {
				t.Errorf("rule %d: %s is not in the page", r.Number, reason)
			}
		}
		if n := strings.Count(rows[i], "`repo:"); n != len(r.Reasons) {
			t.Errorf("rule %d has %d reasons, in the page %d", r.Number, len(r.Reasons), n)
		}
	}
	for _, r := range repo.Reasons {
		call := regexp.MustCompile("(?s)What the faults call for: .*?\n\n").FindString(page)
		if r.Desynchronizes() != (strings.Contains(call, "`repo:"+string(r)+"`") && r != repo.ReasonStaleRev && r != repo.ReasonSignature) {
			t.Errorf("%s: calls for a fetch: %v, in the page the opposite", r, r.Desynchronizes())
		}
	}
}

// grouped writes a number with commas.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
