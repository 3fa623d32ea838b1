package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/internal/lexsite"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicon/lexlint"
	"github.com/barograph/baro/syntax"
)

// siteMarker is a file in the folder of a site that lists the files of it, so that no others are touched.
const siteMarker = ".baro-lex-site"

const siteMarkerHead = "# Files of a site made by 'baro lex site', which replaces and removes no others.\n"

type siteFlags struct {
	lexFlags
	out     string
	title   string
	summary string
	level   string
	noLint  bool
	noDeps  bool
	force   bool
	check   bool
	offline bool
}

func newLexSite(e *env) *cobra.Command {
	var f siteFlags
	cmd := &cobra.Command{
		Use:   "site [FILE|FOLDER|NSID…]",
		Short: "Write a documentation site of schemas",
		Long: "Writes static pages about schemas: an index, and for each schema its fields, types, constraints, errors, examples that are\n" +
			"valid by it, who refers to whom, what lint says, and the source; the same in Markdown, with llms.txt as the index. Links are\n" +
			"relative, so the folder can be opened as it is or served below any path.\n\n" +
			"Files and folders are shown as they are; an NSID is resolved, verified, with all that it refers to. Without arguments it is\n" +
			"the folder of the schemas. The same schemas give the same bytes. A folder that holds something else is left alone, unless\n" +
			"--force is given; files of an earlier run that are no longer needed are removed. With --check nothing is written, and the\n" +
			"exit code is 1 if something differs.",
		Example: "  baro lex site --out site\n" +
			"  baro lex site --out site --title 'Example lexicons' lexicons/com/example\n" +
			"  baro lex site --out site app.bsky.feed.post",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexSite(cmd.Context(), args, f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.out, "out", "lexicon-site", "folder to write to")
	fl.StringVar(&f.title, "title", "Lexicons", "title of the site")
	fl.StringVar(&f.summary, "summary", "", "one sentence about the site")
	fl.StringVar(&f.level, "lint-level", string(lexlint.Warn), "least level of what lint says that is shown: error, warn or info")
	fl.BoolVar(&f.noLint, "no-lint", false, "leave out what lint says")
	fl.BoolVar(&f.noDeps, "no-deps", false, "leave out what the NSIDs refer to")
	fl.BoolVar(&f.force, "force", false, "write into a folder that holds other files, and replace those of the same name")
	fl.BoolVar(&f.check, "check", false, "write nothing; exit code 1 if the site is not up to date")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody for schemas")
	f.addDir(fl)
	f.addNetwork(fl)
	return cmd
}

func (e *env) lexSite(ctx context.Context, args []string, f siteFlags) error {
	if !slices.Contains([]lexlint.Level{lexlint.Error, lexlint.Warn, lexlint.Info}, lexlint.Level(f.level)) {
		return usagef("--lint-level %q: want error, warn or info", f.level)
	}
	files, cat, err := e.siteSchemas(ctx, args, f)
	if err != nil {
		return err
	}
	entries := make([]lexsite.Entry, len(files))
	for i, file := range files {
		entries[i] = lexsite.Entry{Schema: file.Schema, JSON: file.JSON}
	}
	if !f.noLint {
		at := map[syntax.NSID]int{}
		for i, file := range files {
			at[file.Schema.ID.Normalize()] = i
		}
		for _, x := range lexlint.Lint(lintTexts(files), lexlint.Options{Source: cat, Level: lexlint.Level(f.level)}) {
			if i, ok := at[x.NSID.Normalize()]; ok {
				entries[i].Findings = append(entries[i].Findings, lexsite.Finding{Level: string(x.Level), Rule: x.Rule, Path: x.Path, Message: x.Message})
			}
		}
	}
	site, err := lexsite.Site(entries, lexsite.SiteOptions{Title: f.title, Summary: f.summary, Catalog: cat})
	if err != nil {
		return err
	}
	w := siteWriter{dir: f.out, force: f.force, files: site}
	if err := w.look(); err != nil {
		return err
	}
	if f.check {
		if len(w.changed)+len(w.stale) == 0 {
			return nil
		}
		for _, p := range slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Keys(w.changed)), w.stale))) {
			if err := e.siteLine(filepath.Join(f.out, filepath.FromSlash(p)), markDiffers); err != nil {
				return err
			}
		}
		return withHint(fmt.Errorf("%d files in %s are not up to date", len(w.changed)+len(w.stale), f.out), "'baro lex site --out %s' writes them", f.out)
	}
	if err := w.write(); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"dir": f.out, "schemas": len(entries), "files": len(site), "written": len(w.changed), "removed": len(w.stale)})
	}
	_, err = fmt.Fprintf(e.stdout, "%s %s: %d schemas, %d files, %d of them new or changed, %d removed\n", e.show(markWrote), filepath.Join(f.out, "index.html"), len(entries), len(site), len(w.changed), len(w.stale))
	return err
}

func (e *env) siteLine(path string, m mark) error {
	if e.json {
		return e.printJSON(map[string]string{"file": path, "status": m.word})
	}
	_, err := fmt.Fprintf(e.stdout, "%s %s\n", e.show(m), path)
	return err
}

// siteSchemas are the schemas that a site is of, and a catalog that has what they refer to, as far as it is at hand.
func (e *env) siteSchemas(ctx context.Context, args []string, f siteFlags) ([]*lexFile, *lexicon.Catalog, error) {
	var paths []string
	var ids []syntax.NSID
	for _, arg := range args {
		_, err := os.Stat(arg)
		id, idErr := syntax.ParseNSID(arg)
		switch {
		case err == nil || idErr != nil || strings.ContainsAny(arg, `/\`):
			paths = append(paths, arg)
		default:
			ids = append(ids, id.Normalize())
		}
	}
	var files []*lexFile
	if len(paths) > 0 || len(ids) == 0 {
		var err error
		if files, err = lexSchemas(paths, f.dir); err != nil {
			return nil, nil, err
		}
		if len(files) == 0 {
			return nil, nil, fmt.Errorf("there is no schema in %s", cmp.Or(strings.Join(paths, ", "), f.dir))
		}
	}
	known, err := e.newLexCatalog(ctx, f.dir, false, f.offline, f.lexFlags)
	if err != nil {
		return nil, nil, err
	}
	have := map[syntax.NSID]bool{}
	for _, file := range files {
		have[file.Schema.ID.Normalize()] = true
		known.own[file.Schema.ID.Normalize()] = file.Schema
	}
	cat := lexicon.NewCatalog()
	var roots []syntax.NSID
	for id := range have {
		roots = append(roots, id)
	}
	ask := len(ids) > 0
	// What files refer to is for examples and lint, so it may be missing; what was asked for by name must be there.
	found, failed, err := lexres.Closure(ctx, append(roots, ids...), 0, func(_ context.Context, id syntax.NSID) (*lexicon.Schema, []syntax.NSID, error) {
		if s := known.asPublished(id, &ask); s != nil {
			return s, s.Dependencies(), nil
		}
		s, err := known.Lookup(id)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Dependencies(), nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, s := range found {
		cat.Add(s)
	}
	if len(ids) == 0 {
		return files, cat, nil
	}
	wanted := map[syntax.NSID]bool{}
	for todo := ids; len(todo) > 0; {
		id := todo[0].Normalize()
		todo = todo[1:]
		if wanted[id] {
			continue
		}
		wanted[id] = true
		if s := found[id]; s != nil && !f.noDeps {
			todo = append(todo, s.Dependencies()...)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		s := found[id]
		switch {
		case have[id]:
			continue
		case s == nil && slices.Contains(ids, id):
			return nil, nil, fmt.Errorf("%s: %w", id, failed[id])
		case s == nil:
			fmt.Fprintf(e.stderr, "%s is left out: %s\n", id, inert(failed[id].Error()))
			continue
		}
		text, err := prettySchema(s.Raw)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", id, err)
		}
		files = append(files, &lexFile{Path: lexPath("", id), JSON: text, Schema: s})
	}
	return files, cat, nil
}

// asPublished is the schema of a name as its author published it: those that are part of this program lack the texts for people.
// It is nil if there is a file of it, if nobody may be asked, or if it can't be had; after the network failed once, ask is false.
func (c *lexCatalog) asPublished(id syntax.NSID, ask *bool) *lexicon.Schema {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !*ask || c.offline || c.own[id.Normalize()] != nil || c.bad[id.Normalize()] != nil {
		return nil
	}
	s, err := c.resolve(id)
	if err != nil {
		*ask = lexres.KindOf(err) != lexres.KindUnreachable
		return nil
	}
	c.own[id.Normalize()] = s
	return s
}

// siteWriter brings a folder into step with the files of a site.
type siteWriter struct {
	dir   string
	force bool
	files []lexsite.File

	own     map[string]bool   // of the run before
	changed map[string][]byte // to be written
	stale   []string          // to be removed
}

// look compares the folder with the site.
func (w *siteWriter) look() error {
	w.own, w.changed = map[string]bool{}, map[string][]byte{}
	entries, err := os.ReadDir(w.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the folder of the site: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(w.dir, siteMarker))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if len(entries) > 0 && !w.force {
			return withHint(fmt.Errorf("%s holds files that are not those of a site", w.dir), "name another folder with --out, or write into this one with --force")
		}
	case err != nil:
		return fmt.Errorf("reading the list of the site's files: %w", err)
	}
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" && line[0] != '#' && filepath.IsLocal(filepath.FromSlash(line)) && path.Clean(line) == line {
			w.own[line] = true
		}
	}
	now := map[string]bool{}
	for _, f := range w.files {
		now[f.Path] = true
		there, err := os.ReadFile(filepath.Join(w.dir, filepath.FromSlash(f.Path)))
		if err == nil && bytes.Equal(there, f.Content) {
			continue
		}
		if err == nil && !w.own[f.Path] && !w.force {
			return withHint(fmt.Errorf("%s is there and was not made by 'baro lex site'", filepath.Join(w.dir, filepath.FromSlash(f.Path))), "move it away, or replace it with --force")
		}
		w.changed[f.Path] = f.Content
	}
	for p := range w.own {
		if _, err := os.Lstat(filepath.Join(w.dir, filepath.FromSlash(p))); !now[p] && err == nil {
			w.stale = append(w.stale, p)
		}
	}
	slices.Sort(w.stale)
	return nil
}

// write does it: the list of all files first, old and new, so that whatever happens it is known whose they are; each file as a
// whole, the indexes last; then what is no longer needed goes.
func (w *siteWriter) write() error {
	all := maps.Clone(w.own)
	now := map[string]bool{}
	for _, f := range w.files {
		all[f.Path], now[f.Path] = true, true
	}
	if err := w.mark(all); err != nil {
		return err
	}
	order := slices.Sorted(maps.Keys(w.changed))
	slices.SortStableFunc(order, func(a, b string) int { // what has folders above it first
		return cmp.Compare(map[bool]int{false: 1}[strings.Contains(a, "/")], map[bool]int{false: 1}[strings.Contains(b, "/")])
	})
	for _, p := range order {
		if err := writeFile(filepath.Join(w.dir, filepath.FromSlash(p)), w.changed[p]); err != nil {
			return err
		}
	}
	if len(w.stale) > 0 {
		root, err := os.OpenRoot(w.dir) // nothing is removed elsewhere, whatever links there are
		if err != nil {
			return fmt.Errorf("removing old pages: %w", err)
		}
		defer root.Close()
		for _, p := range w.stale {
			if err := root.Remove(filepath.FromSlash(p)); err != nil {
				return fmt.Errorf("removing an old page: %w", err)
			}
			for dir := path.Dir(p); dir != "." && root.Remove(filepath.FromSlash(dir)) == nil; dir = path.Dir(dir) { // fails where something is left
			}
		}
	}
	return w.mark(now)
}

func (w *siteWriter) mark(paths map[string]bool) error {
	list := []byte(siteMarkerHead + strings.Join(slices.Sorted(maps.Keys(paths)), "\n") + "\n")
	name := filepath.Join(w.dir, siteMarker)
	if there, err := os.ReadFile(name); err == nil && bytes.Equal(there, list) {
		return nil
	}
	return writeFile(name, list)
}
