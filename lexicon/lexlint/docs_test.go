package lexlint_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/barograph/baro/lexicon/lexlint"
)

var update = flag.Bool("update", false, "write the tables of rules in docs/lexicons.md")

const page = "../../docs/lexicons.md"

// ruleTable writes rules as a table.
func ruleTable(rules []lexlint.Rule, fixes bool) string {
	var s strings.Builder
	s.WriteString("| rule | level |")
	if fixes {
		s.WriteString(" fix |")
	}
	s.WriteString(" what it holds to |\n|---|---|---|")
	if fixes {
		s.WriteString("---|")
	}
	for _, r := range rules {
		fmt.Fprintf(&s, "\n| `%s` | %s |", r.ID, r.Level)
		if fixes {
			s.WriteString(map[bool]string{true: " yes |", false: " |"}[r.Fix])
		}
		fmt.Fprintf(&s, " %s |", r.Summary)
	}
	return s.String() + "\n"
}

// TestDocs holds the page about lexicons to the code.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for name, want := range map[string]string{"lint rules": ruleTable(lexlint.Rules(), true), "change rules": strings.Replace(ruleTable(lexlint.ChangeRules(), false), "what it holds to", "what has changed", 1)} {
		_, rest, ok := strings.Cut(text, "<!-- "+name+": written by the tests of lexicon/lexlint with -update -->\n")
		got, _, ended := strings.Cut(rest, "<!-- end -->\n")
		switch {
		case !ok || !ended:
			t.Errorf("the page has no place for the %s", name)
		case got != want && *update:
			text = strings.Replace(text, "-update -->\n"+got+"<!-- end -->\n", "-update -->\n"+want+"<!-- end -->\n", 1)
		case got != want:
			t.Errorf("the %s are out of date: run go test ./lexicon/lexlint -run TestDocs -update", name)
		}
	}
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	// The rules of validation are constants of package lexicon.
	for _, name := range constants(t, "../lexicon.go", "Rule") {
		if !strings.Contains(text, "\n| `"+name+"` |") {
			t.Errorf("the rule %s of validation isn't on the page", name)
		}
	}
	for _, name := range constants(t, "../lexicon.go", "Problem") {
		if !slices.ContainsFunc(lexlint.Rules(), func(r lexlint.Rule) bool {
			return r.ID == name && r.Level == lexlint.Error || r.ID == name && name == "subscription-no-messages"
		}) {
			t.Errorf("the problem %s is no rule of lint", name)
		}
	}

	counts := map[string]int{}
	for _, f := range lexlint.Lint(reference(t), lexlint.Options{}) {
		counts[f.Rule]++
		if f.Level == lexlint.Error {
			t.Error(f)
		}
	}
	_, section, _ := strings.Cut(text, "### What the reference schemas say")
	section, _, _ = strings.Cut(section, "\n## ")
	told := map[string]int{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (\\d+) \\| .+ \\|$").FindAllStringSubmatch(section, -1) {
		told[m[1]], _ = strconv.Atoi(m[2])
	}
	if !maps.Equal(told, counts) {
		for _, id := range slices.Sorted(maps.Keys(counts)) {
			if told[id] != counts[id] {
				t.Errorf("%s: the page tells of %d findings, there are %d", id, told[id], counts[id])
			}
		}
		for id := range told {
			if counts[id] == 0 {
				t.Errorf("%s: there are no findings", id)
			}
		}
	}
}

// constants returns the values of the constants of a type of strings.
func constants(t *testing.T, file, typ string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); ok && id.Name == typ {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		return true
	})
	if len(out) < 5 {
		t.Fatalf("only %d constants of type %s", len(out), typ)
	}
	return out
}
