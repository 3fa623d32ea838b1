// Package lexlint looks for mistakes and poor style in lexicon schemas, and for changes that break those who know an older
// version.
//
// Specification: https://atproto.com/specs/lexicon; the style is that of
// https://atproto.com/guides/lexicon-style-guide. The rules are listed in docs/lexicons.md and by [Rules].
//
// [Lint] checks the texts of schemas, each by itself and how they go together; references to schemas that aren't among them
// are looked up in a [lexicon.Source]. A finding has a rule, a level and a place, and where the remedy is beyond doubt a
// [Fix]. [Breaking] compares two versions of a schema, and [CheckRecords] tries the new one on real records.
//
//	files := []lexlint.File{{Path: "com/example/note.json", JSON: text}}
//	for _, f := range lexlint.Lint(files, lexlint.Options{Source: catalog}) {
//		fmt.Println(f) // com/example/note.json:12: warn unlimited-string: defs.main…: no maxLength
//	}
//	changes := lexlint.Breaking(published, local, lexlint.BreakingOptions{Old: catalog, New: catalog})
//
// The package decides nothing: who publishes with which findings is up to its caller. It reads no files and asks no
// network.
//
// Limits: those of package lexicon. The work is linear in the size of the schemas, and findings are sorted, so that the same
// input gives the same output.
package lexlint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// Level says how much a finding matters.
type Level string

// The levels.
const (
	Error Level = "error" // must not be published
	Warn  Level = "warn"  // will be regretted
	Info  Level = "info"  // could be better
)

// rank orders levels, the worst first.
func (l Level) rank() int { return slices.Index([]Level{Error, Warn, Info}, l) }

// AtLeast reports whether l matters at least as much as least.
func (l Level) AtLeast(least Level) bool { return l.rank() <= least.rank() }

// File is the text of a schema.
type File struct {
	Path string // with slashes, for findings; it should end in the NSID with slashes for dots, and .json. "" if there is none
	JSON []byte
}

// Options say what [Lint] goes by.
type Options struct {
	// Source has the schemas that are referred to but aren't among those given. With nil there are none.
	Source lexicon.Source
	// Published returns the published version of a schema, nil if there is none. What is wrong with that already, and can't be
	// mended any more, is no more than Info; what is new is held to all rules.
	Published func(syntax.NSID) *lexicon.Schema
	Ignore    []string // ids of rules to leave out
	Level     Level    // the least that is told; "" is Info: everything
}

// Finding is one thing that is wrong with a schema.
type Finding struct {
	Rule      string      `json:"rule"`
	Level     Level       `json:"level"`
	NSID      syntax.NSID `json:"nsid,omitempty"` // "" if the schema has none
	Def       string      `json:"def,omitempty"`  // the named definition
	Path      string      `json:"path,omitempty"` // such as "defs.main.record.properties.text"
	File      string      `json:"file,omitempty"`
	Line      int         `json:"line"`                // from 1
	Column    int         `json:"column"`              // bytes, from 1
	Message   string      `json:"message"`             // one sentence without a full stop
	Published bool        `json:"published,omitempty"` // the published version has it too
	Fix       *Fix        `json:"fix,omitempty"`

	file int // index
}

// String returns one line.
func (f Finding) String() string {
	s := fmt.Sprintf("%s:%d: %s %s: ", cmp.Or(f.File, string(f.NSID)), f.Line, f.Level, f.Rule)
	if f.Path != "" {
		s += f.Path + ": "
	}
	return s + f.Message
}

// Lint checks schemas. Findings are in the order of the files, and of the lines in each.
func Lint(files []File, o Options) []Finding {
	l := newLinter(files, o)
	for _, d := range l.docs {
		l.lint(d)
	}
	if o.Published != nil {
		l.demote()
	}
	least := cmp.Or(o.Level, Info)
	out := slices.DeleteFunc(l.findings, func(f Finding) bool { return !f.Level.AtLeast(least) || slices.Contains(o.Ignore, f.Rule) })
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return out
}

// Schemas makes files of schemas that have no text of their own, such as published ones.
func Schemas(schemas ...*lexicon.Schema) []File {
	files := make([]File, 0, len(schemas))
	for _, s := range schemas {
		text, err := textOf(s)
		if err != nil {
			continue // a schema has been read from CBOR or JSON, so it can be written
		}
		files = append(files, File{JSON: text})
	}
	return files
}

// linter holds a set of schemas.
type linter struct {
	o        Options
	docs     []*doc
	byID     map[syntax.NSID]*doc
	asked    map[syntax.NSID]answer // of the source
	roles    map[string]role        // of named definitions, by reference
	users    map[string]syntax.NSID // another schema that refers to a definition
	findings []Finding

	twinsOf   map[syntax.NSID]syntax.NSID // see twins
	skeletons map[string]syntax.NSID      // see similar
}

type answer struct {
	schema *lexicon.Schema
	err    error
}

// doc is one schema with its text.
type doc struct {
	index  int
	file   File
	tree   *value
	lines  []int // where they begin
	id     syntax.NSID
	schema *lexicon.Schema // nil if it is none
}

func newLinter(files []File, o Options) *linter {
	l := &linter{o: o, byID: map[syntax.NSID]*doc{}, asked: map[syntax.NSID]answer{}, roles: map[string]role{}, users: map[string]syntax.NSID{}}
	for i, f := range files {
		d := &doc{index: i, file: f, lines: []int{0}}
		for k, c := range f.JSON {
			if c == '\n' {
				d.lines = append(d.lines, k+1)
			}
		}
		if s, err := lexicon.ParseSchema(f.JSON); err == nil {
			d.schema, d.id = s, s.ID
			if l.byID[s.ID] == nil {
				l.byID[s.ID] = d
			}
			d.tree = parseValue(f.JSON)
		}
		l.docs = append(l.docs, d)
	}
	l.findRoles()
	return l
}

// maxLookups bounds how many schemas the source is asked for.
const maxLookups = 2000

var errTooMany = fmt.Errorf("more than %d other schemas are referred to", maxLookups)

// lookup returns a schema by its NSID.
func (l *linter) lookup(id syntax.NSID) (*lexicon.Schema, error) {
	if d := l.byID[id]; d != nil {
		return d.schema, nil
	}
	a, ok := l.asked[id]
	if !ok {
		switch {
		case len(l.asked) >= maxLookups:
			return nil, errTooMany
		case l.o.Source == nil:
			a.err = fmt.Errorf("%w %.320s: it isn't among those given", lexicon.ErrUnknownSchema, id)
		default:
			a.schema, a.err = l.o.Source.Lookup(id)
		}
		l.asked[id] = a
	}
	return a.schema, a.err
}

// resolve returns what an absolute reference leads to.
func (l *linter) resolve(ref string) (*lexicon.Def, error) {
	id, name, ok := strings.Cut(ref, "#")
	if !ok {
		name = "main"
	}
	s, err := l.lookup(syntax.NSID(id))
	if err != nil {
		return nil, err
	}
	return s.Def(name), nil
}

// lint checks one schema.
func (l *linter) lint(d *doc) {
	if d.schema == nil {
		l.broken(d)
		return
	}
	l.checkFields(d)
	l.checkSchema(d)
	for _, n := range d.schema.Defs {
		l.visit(&site{doc: d, steps: []string{"defs", n.Name}, d: n.Def, node: d.tree.get("defs").get(n.Name), name: n.Name, role: l.roles[d.schema.Reference(n.Name)]})
	}
}

// broken tells why a text isn't a schema.
func (l *linter) broken(d *doc) {
	problems := lexicon.Problems(d.file.JSON)
	if len(problems) > 0 && problems[0].Rule != lexicon.ProblemJSON {
		d.tree = parseValue(d.file.JSON)
		if problems[0].ID != "" {
			d.id = syntax.NSID(problems[0].ID)
		}
	}
	for _, p := range problems {
		f := Finding{Rule: string(p.Rule), Level: Error, NSID: d.id, Path: p.Path, Message: p.Reason}
		s := steps(p.Path)
		if len(s) > 1 {
			f.Def = s[1]
		}
		var at *value
		if d.tree != nil {
			at = d.tree.at(s)
		}
		l.add(d, f, at)
	}
}

// add completes a finding.
func (l *linter) add(d *doc, f Finding, at *value) {
	f.file, f.File = d.index, d.file.Path
	offset := 0
	if at != nil {
		offset = at.start
	}
	line := sort.SearchInts(d.lines, offset+1)
	f.Line, f.Column = line, offset-d.lines[line-1]+1
	l.findings = append(l.findings, f)
}

// report tells of a finding about a whole schema.
func (l *linter) report(d *doc, rule string, at *value, path, format string, args ...any) {
	l.add(d, Finding{Rule: rule, Level: levels[rule], NSID: d.id, Path: path, Message: fmt.Sprintf(format, args...)}, at)
}

// demote marks what the published versions have too, and has no fix for it any more.
func (l *linter) demote() {
	type key struct{ id, rule, path string }
	had := map[key]bool{}
	var published []*lexicon.Schema
	for _, d := range l.docs {
		if d.schema != nil {
			if s := l.o.Published(d.id); s != nil {
				published = append(published, s)
			}
		}
	}
	before := Lint(Schemas(published...), Options{Source: sourceOf(l), Ignore: []string{"file-path"}})
	for _, f := range before {
		had[key{string(f.NSID), f.Rule, f.Path}] = true
	}
	for i := range l.findings {
		f := &l.findings[i]
		if f.Level != Error && had[key{string(f.NSID), f.Rule, f.Path}] {
			f.Level, f.Published, f.Fix = Info, true, nil
		}
	}
}

// sourceOf lets the published versions refer to what the linter knows.
type sourceFunc func(syntax.NSID) (*lexicon.Schema, error)

// Lookup calls f.
func (f sourceFunc) Lookup(id syntax.NSID) (*lexicon.Schema, error) { return f(id) }

func sourceOf(l *linter) lexicon.Source { return sourceFunc(l.lookup) }

// unknown reports whether err says that there is certainly no such schema.
func unknown(err error) bool { return errors.Is(err, lexicon.ErrUnknownSchema) }
