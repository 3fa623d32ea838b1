package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicon/lexlint"
	"github.com/barograph/baro/syntax"
)

type lintFlags struct {
	lexFlags
	ignore  []string
	level   string
	only    []string
	sarif   bool
	fix     bool
	check   bool
	strict  bool
	rules   bool
	offline bool
}

func newLexLint(e *env) *cobra.Command {
	var f lintFlags
	cmd := &cobra.Command{
		Use:   "lint [FILE|FOLDER…]",
		Short: "Check schemas for errors and style",
		Long: "Checks local schemas: that they are schemas, that what they refer to exists, and that they keep to the style guide. What\n" +
			"they refer to is looked for in the folder of schemas, among those that come with this program, and among the published\n" +
			"ones, verified. What a published version has already, and can't be mended any more, is told with --lint-level info only;\n" +
			"--strict tells it as if it were new. 'baro lex lint --rules' lists the rules.\n\n" +
			"With --fix, what has a sure remedy is mended in the files; with --fix --check only the differences are shown. The exit\n" +
			"code is 1 if anything is found.",
		Example: "  baro lex lint\n" +
			"  baro lex lint lexicons/test/alice --lint-level info --ignore-lint record-name\n" +
			"  baro lex lint --fix\n" +
			"  baro lex lint --offline --sarif > lint.sarif",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.rules {
				return e.lexRules(lexlint.Rules())
			}
			if err := f.verify(); err != nil {
				return err
			}
			return lexError(e.lexLint(cmd.Context(), args, f))
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func (f *lintFlags) add(fl *pflag.FlagSet) {
	fl.StringSliceVarP(&f.ignore, "ignore-lint", "I", nil, "rule to leave out (repeat, or separate with commas)")
	alsoVariable(fl, "ignore-lint", "IGNORE_LINTS")
	fl.StringVar(&f.level, "lint-level", string(lexlint.Warn), "least level to tell of: error, warn or info")
	alsoVariable(fl, "lint-level", "LINT_LEVEL")
	fl.StringSliceVar(&f.only, "only", nil, "rule to look at, and no other; schema stands for those of files that are no schemas")
	fl.BoolVar(&f.strict, "strict", false, "hold what is published already to all rules")
	fl.BoolVar(&f.fix, "fix", false, "mend in the files what has a sure remedy")
	fl.BoolVar(&f.check, "check", false, "with --fix, write nothing and show the differences")
	fl.BoolVar(&f.sarif, "sarif", false, "print one SARIF log, for forges")
	fl.BoolVar(&f.rules, "rules", false, "list the rules")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody for schemas")
	f.addDir(fl)
	f.addNetwork(fl)
}

// schemaRules are the rules of files that are no schemas, which --only schema stands for.
var schemaRules = []string{"schema-json-parse", "lexicon-version", "invalid-nsid", "lexicon-schema", "non-main-primary"}

// verify reads the names of levels and rules.
func (f *lintFlags) verify() error {
	if f.check && !f.fix {
		return usagef("--check goes with --fix")
	}
	if f.fix && f.sarif {
		return usagef("--fix and --sarif are opposites: choose one")
	}
	if i := slices.Index(f.only, "schema"); i >= 0 {
		f.only = slices.Concat(f.only[:i], schemaRules, f.only[i+1:])
	}
	if err := checkRules("--lint-level", f.level, "--ignore-lint", f.ignore, lexlint.Rules()); err != nil {
		return err
	}
	return checkRules("--lint-level", f.level, "--only", f.only, lexlint.Rules())
}

// checkRules reads a level and the names of rules.
func checkRules(levelFlag, level, flag string, ids []string, rules []lexlint.Rule) error {
	if !slices.Contains([]lexlint.Level{lexlint.Error, lexlint.Warn, lexlint.Info}, lexlint.Level(level)) {
		return usagef("%s %q: want error, warn or info", levelFlag, level)
	}
	known := map[string]bool{}
	for _, r := range rules {
		known[r.ID] = true
	}
	for _, id := range ids {
		if !known[id] {
			return usagef("%s: there is no rule %q%s", flag, id, didYouMean(id, known))
		}
	}
	return nil
}

// wants says whether a finding is asked for.
func (f *lintFlags) wants(x lexlint.Finding) bool {
	return len(f.only) == 0 || slices.Contains(f.only, x.Rule)
}

// lexRules lists rules of lint, or of breaking.
func (e *env) lexRules(rules []lexlint.Rule) error {
	for _, r := range rules {
		var err error
		if e.json {
			err = e.printJSON(r)
		} else {
			fix := ""
			if r.Fix {
				fix = "  (--fix)"
			}
			_, err = fmt.Fprintf(e.stdout, "%-5s %-28s %s%s\n", r.Level, r.ID, r.Summary, fix)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *env) lexLint(ctx context.Context, args []string, f lintFlags) error {
	files, err := lexFiles(args, f.dir)
	if err != nil {
		return err
	}
	texts, o, err := e.lintOptions(ctx, files, f)
	if err != nil {
		return err
	}
	if f.fix {
		return e.lexFix(files, texts, o, f)
	}
	found := slices.DeleteFunc(lexlint.Lint(texts, o), func(x lexlint.Finding) bool { return !f.wants(x) })
	if f.sarif {
		err = lexlint.WriteSARIF(e.stdout, lexlint.Tool{Name: "baro", Version: version().Version, URI: "https://github.com/barograph/baro"}, found)
	} else {
		err = e.printFindings(found)
	}
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%d findings in %d schemas", len(found), len(files))
	}
	return nil
}

// lintOptions says what files are linted against.
func (e *env) lintOptions(ctx context.Context, files []*lexFile, f lintFlags) ([]lexlint.File, lexlint.Options, error) {
	schemas, err := e.newLexCatalog(ctx, f.dir, false, f.offline, f.lexFlags)
	if err != nil {
		return nil, lexlint.Options{}, err
	}
	o := lexlint.Options{Source: schemas, Ignore: f.ignore, Level: lexlint.Level(f.level)}
	if !f.strict && !f.offline {
		if o.Published, err = schemas.publishedBy(files); err != nil {
			return nil, o, err
		}
	}
	return lintTexts(files), o, nil
}

func lintTexts(files []*lexFile) []lexlint.File {
	texts := make([]lexlint.File, len(files))
	for i, f := range files {
		texts[i] = lexlint.File{Path: filepath.ToSlash(f.Path), JSON: f.JSON}
	}
	return texts
}

// publishedBy fetches the published versions of files, to be quiet about what they have. One that can't be had makes lint strict, which is
// said once.
func (c *lexCatalog) publishedBy(files []*lexFile) (func(syntax.NSID) *lexicon.Schema, error) {
	l, err := c.network()
	if err != nil {
		return nil, err
	}
	var schemas []*lexFile
	for _, f := range files {
		if f.Schema != nil {
			schemas = append(schemas, f)
		}
	}
	had := map[syntax.NSID]*lexicon.Schema{}
	failed := 0
	var why error
	for _, s := range l.states(c.ctx, schemas) {
		if s.Found != nil {
			had[s.ID] = s.Found.Schema
		}
		if s.Err != nil && (lexres.KindOf(s.Err) != "" || c.ctx.Err() == nil) {
			failed, why = failed+1, s.Err
		}
	}
	if failed > 0 {
		c.e.log.Info("schemas are linted as if they were new, because it could not be found out whether they are published", "schemas", failed, "err", why)
	}
	return func(id syntax.NSID) *lexicon.Schema { return had[id] }, c.ctx.Err()
}

// lexFix mends files, and tells what is left.
func (e *env) lexFix(files []*lexFile, texts []lexlint.File, o lexlint.Options, f lintFlags) error {
	all := o
	all.Level = lexlint.Info // what has a sure remedy is mended whether or not it would be told
	if len(f.only) > 0 {
		for _, r := range lexlint.Rules() {
			if !slices.Contains(f.only, r.ID) {
				all.Ignore = append(slices.Clip(all.Ignore), r.ID)
			}
		}
	}
	mended := 0
	for i, file := range files {
		text, fixed := lexlint.FixAll(texts, i, all)
		if bytes.Equal(text, file.JSON) {
			continue
		}
		mended += len(fixed)
		if _, err := lexicon.ParseSchema(text); err != nil && file.Err == nil {
			return fmt.Errorf("mending %s would break it: %w", file.Path, err) // never: but what is there is not risked
		}
		switch {
		case e.json:
			for _, x := range fixed {
				if err := e.printJSON(map[string]any{"file": x.File, "rule": x.Rule, "path": x.Path, "fixed": !f.check, "fix": x.Fix.Description}); err != nil {
					return err
				}
			}
		case f.check:
			if err := e.printDiff(diff.Diff(file.Path, file.JSON, file.Path+" (mended)", text)); err != nil {
				return err
			}
		default:
			for _, x := range fixed {
				if _, err := fmt.Fprintf(e.stdout, "%s %s: %s: %s\n", e.show(mark{"🟢", "mended"}), inert(x.File), x.Rule, inert(x.Path)); err != nil {
					return err
				}
			}
		}
		texts[i].JSON = text
		if !f.check {
			if err := writeFile(file.Path, text); err != nil {
				return err
			}
		}
	}
	if f.check {
		if mended > 0 {
			return withHint(fmt.Errorf("%d findings have a sure remedy", mended), "'baro lex lint --fix' applies it")
		}
		return nil
	}
	left := slices.DeleteFunc(lexlint.Lint(texts, o), func(x lexlint.Finding) bool { return !f.wants(x) })
	if err := e.printFindings(left); err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%d findings are left for you to mend", len(left))
	}
	return nil
}

// printFindings prints findings, a line each.
func (e *env) printFindings(findings []lexlint.Finding) error {
	c := colorsOf(e.stdout)
	for _, x := range findings {
		var err error
		if e.json {
			err = e.printJSON(x)
		} else {
			level := fmt.Sprintf("%-5s", x.Level)
			switch x.Level {
			case lexlint.Error:
				level = c.bad(level)
			case lexlint.Info:
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
	schemas, err := e.newLexCatalog(ctx, dir, false, false, lexFlags{networkFlags: l.ns.f})
	if err != nil {
		return err
	}
	schemas.net = l
	bad := lexlint.Lint(lintTexts(files), lexlint.Options{Source: schemas, Level: lexlint.Error})
	if len(bad) == 0 {
		return nil
	}
	out := *e
	out.stdout, out.json = e.stderr, false
	if err := out.printFindings(bad); err != nil {
		return err
	}
	return withHint(fmt.Errorf("%d errors in %d schemas: nothing was published", len(bad), len(files)), "mend them, or publish anyway with --skip-lint")
}

func newLexParse(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "parse FILE|FOLDER…",
		Short: "Check only that files are schemas",
		Long: "Reads files as schemas and says which are none, and why. It is 'baro lex lint --only schema' for scripts that know it\n" +
			"under this name.",
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
	broken := 0
	for i, f := range files {
		switch {
		case f.Err != nil:
			broken++
			if _, ok := errors.AsType[*lexicon.SchemaError](f.Err); !ok {
				return f.Err // it can't be read
			}
			err = e.printFindings(lexlint.Lint(lintTexts(files[i:i+1]), lexlint.Options{Level: lexlint.Error}))
		case e.json:
			err = e.printJSON(map[string]string{"nsid": string(f.Schema.ID), "file": f.Path, "cid": cidOf(f.Schema.Raw).String()})
		default:
			_, err = fmt.Fprintf(e.stdout, "%s %s\n", e.show(markOK), f.Schema.ID)
		}
		if err != nil {
			return err
		}
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d files are no schemas", broken, len(files))
	}
	return nil
}
