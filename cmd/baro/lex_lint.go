package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

type lintFlags struct {
	lexFlags
	ignore  []string
	level   string
	sarif   bool
	offline bool
}

// lexFinding is something that is wrong with a schema, or could be better.
type lexFinding struct {
	Level   string `json:"level"` // error, warn, info
	Rule    string `json:"rule"`
	NSID    string `json:"nsid,omitempty"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Path    string `json:"path,omitempty"` // such as defs.main.record.properties.text
	Message string `json:"message"`
}

const (
	levelError = "error"
	levelWarn  = "warn"
	levelInfo  = "info"
)

// lintLevels are the levels, the worst first.
var lintLevels = []string{levelError, levelWarn, levelInfo}

// Rules of files that are no schemas, by the names of goat.
const (
	ruleParse  = "schema-json-parse"
	ruleSchema = "lexicon-schema"
)

func (f *lintFlags) add(fl *pflag.FlagSet) {
	fl.StringSliceVarP(&f.ignore, "ignore-lint", "I", nil, "rule to leave out (repeat, or separate with commas)")
	alsoVariable(fl, "ignore-lint", "IGNORE_LINTS")
	fl.StringVar(&f.level, "lint-level", levelWarn, "least level to tell of: error, warn or info")
	alsoVariable(fl, "lint-level", "LINT_LEVEL")
	fl.BoolVar(&f.sarif, "sarif", false, "print one SARIF log, for forges")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody for schemas that are referred to")
	f.addDir(fl)
	f.addNetwork(fl)
}

// worthTelling says whether a finding is asked for.
func (f *lintFlags) worthTelling(x lexFinding) bool {
	return slices.Index(lintLevels, x.Level) <= slices.Index(lintLevels, f.level) && !slices.Contains(f.ignore, x.Rule)
}

func (f *lintFlags) check() error {
	if !slices.Contains(lintLevels, f.level) {
		return usagef("--lint-level %q: want %s", f.level, strings.Join(lintLevels, ", "))
	}
	return nil
}

// printFindings prints what was found, by file, and says whether there is an error among it.
func (e *env) printFindings(findings []lexFinding, sarif bool) error {
	slices.SortStableFunc(findings, func(a, b lexFinding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	if sarif {
		return e.printSARIF(findings)
	}
	c := colorsOf(e.stdout)
	for _, x := range findings {
		var err error
		if e.json {
			err = e.printJSON(x)
		} else {
			level := fmt.Sprintf("%-5s", x.Level)
			switch x.Level {
			case levelError:
				level = c.bad(level)
			case levelInfo:
				level = c.dim(level)
			}
			at := ""
			if x.Path != "" {
				at = x.Path + ": "
			}
			_, err = fmt.Fprintf(e.stdout, "%s:%d: %s %s: %s%s\n", inert(x.File), x.Line, level, x.Rule, inert(at), inert(x.Message))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// brokenFile is the finding about a file that is no schema.
func brokenFile(f *lexFile) lexFinding {
	x := lexFinding{Level: levelError, Rule: ruleParse, File: f.Path, Line: 1, Message: f.Err.Error()}
	if s, ok := errors.AsType[*lexicon.SchemaError](f.Err); ok {
		x.NSID, x.Path, x.Message = s.ID, s.Path, s.Reason
		if s.ID != "" || s.Path != "" {
			x.Rule = ruleSchema
		}
		if s.Path != "" {
			x.Line = lineOf(f.JSON, s.Path)
		}
	}
	return x
}

func newLexParse(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "parse FILE|FOLDER…",
		Short: "Check only that files are schemas",
		Long:  "Reads files as schemas and says which are none. 'baro lex lint' does that and more; this command is for scripts that know it.",
		Example: "  baro lex parse lexicons/test/alice/note.json\n" +
			"  baro lex parse lexicons --json",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return e.lexParse(args)
		},
	}
	return cmd
}

func (e *env) lexParse(args []string) error {
	files, err := lexFiles(args, "")
	if err != nil {
		return err
	}
	var broken []lexFinding
	for _, f := range files {
		if f.Err != nil {
			broken = append(broken, brokenFile(f))
			continue
		}
		if e.json {
			err = e.printJSON(map[string]string{"nsid": string(f.Schema.ID), "file": f.Path, "cid": cidOf(f.Schema.Raw).String()})
		} else {
			_, err = fmt.Fprintf(e.stdout, "%s %s\n", e.show(markOK), f.Schema.ID)
		}
		if err != nil {
			return err
		}
	}
	if err := e.printFindings(broken, false); err != nil {
		return err
	}
	if len(broken) > 0 {
		return fmt.Errorf("%d of %d files are no schemas", len(broken), len(files))
	}
	return nil
}

func newLexLint(e *env) *cobra.Command {
	var f lintFlags
	cmd := &cobra.Command{
		Use:   "lint [FILE|FOLDER…]",
		Short: "Check schemas for errors and style",
		Long:  "Checks local schemas.",
		Example: "  baro lex lint\n" +
			"  baro lex lint lexicons/test/alice --lint-level info\n" +
			"  baro lex lint --sarif > lint.sarif",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return lexError(e.lexLint(cmd.Context(), args, f))
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func (e *env) lexLint(ctx context.Context, args []string, f lintFlags) error {
	files, err := lexFiles(args, f.dir)
	if err != nil {
		return err
	}
	all, err := e.lint(ctx, files, f)
	if err != nil {
		return err
	}
	told := slices.DeleteFunc(all, func(x lexFinding) bool { return !f.worthTelling(x) })
	if err := e.printFindings(told, f.sarif); err != nil {
		return err
	}
	if len(told) > 0 {
		return fmt.Errorf("%d findings in %d schemas", len(told), len(files))
	}
	return nil
}

// lint returns all findings about files.
func (e *env) lint(ctx context.Context, files []*lexFile, f lintFlags) ([]lexFinding, error) {
	schemas, err := e.newLexCatalog(ctx, f.dir, false, f.offline, f.lexFlags)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if file.Schema != nil {
			schemas.own[file.Schema.ID.Normalize()] = file.Schema
		}
	}
	catalog := lexicon.NewCatalog()
	var ids []syntax.NSID
	for _, file := range files {
		if file.Schema != nil {
			ids = append(ids, file.Schema.ID)
		}
	}
	_, _, err = lexres.Closure(ctx, ids, 0, func(_ context.Context, id syntax.NSID) (struct{}, []syntax.NSID, error) {
		s, err := schemas.lookup(id)
		if err != nil {
			return struct{}{}, nil, err
		}
		catalog.Add(s)
		if slices.Contains(ids, id) {
			return struct{}{}, s.Dependencies(), nil
		}
		return struct{}{}, nil, nil // what others refer to is their business
	})
	if err != nil {
		return nil, err
	}
	var all []lexFinding
	for _, file := range files {
		if file.Err != nil {
			all = append(all, brokenFile(file))
			continue
		}
		for _, x := range catalog.Check() {
			if x.ID == string(file.Schema.ID) {
				all = append(all, lexFinding{Level: levelError, Rule: "unresolved-ref", NSID: x.ID, File: file.Path, Line: lineOf(file.JSON, x.Path), Path: x.Path, Message: x.Reason})
			}
		}
	}
	return all, nil
}

// lintGate refuses to publish what has errors.
func (e *env) lintGate(ctx context.Context, l *lexNetwork, todo []*publication, dir string) error {
	var files []*lexFile
	for _, p := range todo {
		if p.Write {
			files = append(files, p.File)
		}
	}
	if len(files) == 0 {
		return nil
	}
	all, err := e.lint(ctx, files, lintFlags{lexFlags: lexFlags{networkFlags: l.ns.f, dir: dir}})
	if err != nil {
		return err
	}
	bad := slices.DeleteFunc(all, func(x lexFinding) bool { return x.Level != levelError })
	if len(bad) == 0 {
		return nil
	}
	out := *e
	out.stdout, out.json = e.stderr, false
	if err := out.printFindings(bad, false); err != nil {
		return err
	}
	return withHint(fmt.Errorf("%d errors in %d schemas: nothing was published", len(bad), len(files)), "mend them, or publish anyway with --skip-lint")
}
