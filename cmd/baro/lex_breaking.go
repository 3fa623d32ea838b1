package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicon/lexlint"
	"github.com/barograph/baro/syntax"
)

type breakingFlags struct {
	lexFlags
	against  string
	manifest string
	records  []string
	ignore   []string
	level    string
	rules    bool
	offline  bool
}

// Values of --against that are no paths.
const (
	againstPublished = "published"
	againstLock      = "lock"
	againstGit       = "git:"
)

func newLexBreaking(e *env) *cobra.Command {
	var f breakingFlags
	cmd := &cobra.Command{
		Use:   "breaking [FILE|FOLDER…]",
		Short: "Find changes of schemas that break what there is",
		Long: "Compares local schemas with an earlier version: the one that is published, that of a git revision (--against git:REF),\n" +
			"that of the manifest lexicons.json (lock), or that in another file or folder. Each finding says who breaks: an old reader\n" +
			"that meets new data, or a new reader that meets old data. The exit code is 1 if one is an error. 'baro lex breaking\n" +
			"--rules' lists what is looked for.\n\n" +
			"With --records, real records are held against both versions: a collection of an account, its whole repository or a CAR\n" +
			"file. Records that only the new version refuses are errors.",
		Example: "  baro lex breaking\n" +
			"  baro lex breaking --against git:HEAD --offline\n" +
			"  baro lex breaking lexicons/test/alice/note.json --against old/note.json\n" +
			"  baro lex breaking --records at://alice.test/test.alice.note --json",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.rules {
				return e.lexRules(lexlint.ChangeRules())
			}
			if err := checkRules("--level", f.level, "--ignore", f.ignore, lexlint.ChangeRules()); err != nil {
				return err
			}
			return lexError(e.lexBreaking(cmd.Context(), args, f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.against, "against", againstPublished, "earlier version: published, git:REF, lock, or a file or folder")
	fl.StringArrayVar(&f.records, "records", nil, "records to hold against both versions: AT-URI, account or CAR file (repeat for more)")
	fl.StringSliceVarP(&f.ignore, "ignore", "I", nil, "rule to leave out (repeat, or separate with commas)")
	fl.StringVar(&f.level, "level", string(lexlint.Warn), "least level to tell of: error, warn or info")
	fl.BoolVar(&f.rules, "rules", false, "list the rules")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody")
	fl.StringVar(&f.manifest, "manifest", manifestName, "manifest of what is installed, for --against lock")
	f.addDir(fl)
	f.addNetwork(fl)
	return cmd
}

// baseline finds the earlier versions of schemas.
type baseline struct {
	// of returns what a local schema is compared with; nil if there was nothing.
	of func(f *lexFile) (*lexicon.Schema, error)
	// first returns the earlier version of a schema that is referred to; nil if the baseline has none, so that others are asked.
	first func(id syntax.NSID) (*lexicon.Schema, error)
	rest  *lexCatalog
}

// Lookup implements [lexicon.Source].
func (b *baseline) Lookup(id syntax.NSID) (*lexicon.Schema, error) {
	if b.first != nil {
		if s, err := b.first(id); s != nil || err != nil {
			return s, err
		}
	}
	return b.rest.Lookup(id)
}

// baseline says what --against stands for.
func (e *env) baseline(ctx context.Context, f breakingFlags) (*baseline, error) {
	// Beside the baseline itself there is what comes with this program, and what is published.
	b := &baseline{rest: e.emptyLexCatalog(ctx, f.offline, f.lexFlags)}
	switch ref, isGit := strings.CutPrefix(f.against, againstGit); {
	case f.against == againstPublished:
		if f.offline {
			return nil, usagef("--against published and --offline are opposites: choose git:REF, lock, or a file or folder")
		}
		l, err := b.rest.network()
		if err != nil {
			return nil, err
		}
		b.of = func(file *lexFile) (*lexicon.Schema, error) {
			found, err := l.published(ctx, file.Schema.ID)
			if err != nil || found == nil {
				return nil, err
			}
			return found.Schema, nil
		}
		return b, nil
	case isGit:
		if ref == "" || strings.HasPrefix(ref, "-") {
			return nil, usagef("--against %q: want a revision, such as git:HEAD or git:v1.0", f.against)
		}
		b.of = func(file *lexFile) (*lexicon.Schema, error) { return gitSchema(ctx, ref, file.Path) }
		b.first = func(id syntax.NSID) (*lexicon.Schema, error) {
			path := lexPath(f.dir, id)
			if _, err := os.Stat(filepath.Dir(path)); err != nil {
				return nil, nil
			}
			return gitSchema(ctx, ref, path)
		}
		return b, nil
	case f.against == againstLock:
		m, err := readManifest(f.manifest)
		if err != nil {
			return nil, err
		}
		if m == nil {
			return nil, fmt.Errorf("there is no manifest %s", f.manifest)
		}
		var l *lexNetwork
		if !f.offline {
			if l, err = b.rest.network(); err != nil {
				return nil, err
			}
		}
		b.first = func(id syntax.NSID) (*lexicon.Schema, error) { return lockedSchema(ctx, l, m, id) }
		b.of = func(file *lexFile) (*lexicon.Schema, error) { return b.first(file.Schema.ID) }
		return b, nil
	}
	old, err := lexSchemas([]string{f.against}, f.against)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("--against %q: want published, git:REF, lock, or a file or folder", f.against)
	}
	if err != nil {
		return nil, err
	}
	at := map[syntax.NSID]*lexicon.Schema{}
	for _, o := range old {
		at[o.Schema.ID] = o.Schema
	}
	b.first = func(id syntax.NSID) (*lexicon.Schema, error) { return at[id], nil }
	b.of = func(file *lexFile) (*lexicon.Schema, error) { return at[file.Schema.ID], nil }
	return b, nil
}

// brokenSchema is what a change of a schema breaks.
type brokenSchema struct {
	File    *lexFile
	Changes []lexlint.Change
	Data    map[string]lexlint.Refusals // by --records
}

func (e *env) lexBreaking(ctx context.Context, args []string, f breakingFlags) error {
	files, err := lexSchemas(args, f.dir)
	if err != nil {
		return err
	}
	base, err := e.baseline(ctx, f)
	if err != nil {
		return err
	}
	now, err := e.newLexCatalog(ctx, f.dir, false, f.offline, f.lexFlags)
	if err != nil {
		return err
	}
	now.add(files)
	errs, compared := 0, 0
	for _, file := range files {
		old, err := base.of(file)
		if err != nil {
			return err
		}
		if old == nil {
			continue // all of it is new
		}
		compared++
		b := &brokenSchema{File: file, Changes: lexlint.Breaking(old, file.Schema, lexlint.BreakingOptions{Old: base, New: now, Ignore: f.ignore, Level: lexlint.Level(f.level)})}
		for _, c := range b.Changes {
			if c.Level == lexlint.Error {
				errs++
			}
		}
		if len(f.records) > 0 {
			refused, err := e.tryRecords(ctx, b, old, base, now, f)
			if err != nil {
				return err
			}
			errs += refused
		}
		if err := e.printBroken(b); err != nil {
			return err
		}
	}
	if compared < len(files) && !e.json {
		fmt.Fprintf(e.stderr, "%d of %d schemas have no earlier version\n", len(files)-compared, len(files))
	}
	if errs > 0 {
		return withHint(fmt.Errorf("%d changes break what there is", errs), "a schema that has to break gets a new name")
	}
	return nil
}

// tryRecords holds real records against both versions of a schema, and returns how many reasons there are for which only the new one
// refuses some.
func (e *env) tryRecords(ctx context.Context, b *brokenSchema, old *lexicon.Schema, base *baseline, now *lexCatalog, f breakingFlags) (int, error) {
	id := b.File.Schema.ID
	if d := b.File.Schema.Main(); d == nil || d.Type != lexicon.TypeRecord {
		return 0, nil
	}
	before, after := lexicon.NewResolvingCatalog(base.Lookup), lexicon.NewResolvingCatalog(now.Lookup)
	before.Add(old)
	after.Add(b.File.Schema)
	b.Data = map[string]lexlint.Refusals{}
	bad := 0
	for _, arg := range f.records {
		if uri, err := syntax.ReadATURI(arg); err == nil && uri.Collection() != "" && uri.Collection() != id {
			if _, err := os.Stat(arg); err != nil {
				continue // of another schema
			}
		}
		records := func(yield func(lexlint.Record, error) bool) {
			for r, err := range e.lexRecords(ctx, arg, id, f.networkFlags, f.offline) {
				switch {
				case err != nil:
					yield(lexlint.Record{}, err)
					return
				case r.Err != nil:
					fmt.Fprintf(e.stderr, "baro: %s: %s\n", inert(r.Name), inert(r.Err.Error()))
				case r.Type == id && !yield(lexlint.Record{Name: r.Name, Key: r.Key, Raw: r.Value}, nil):
					return
				}
			}
		}
		got, err := lexlint.CheckRecords(id, before, after, records)
		if err != nil {
			return 0, err
		}
		b.Data[arg] = got
		for _, r := range got.Reasons {
			if r.Newly > 0 {
				bad++
			}
		}
	}
	return bad, nil
}

// directions are how people are told who breaks.
var directions = map[lexlint.Direction]string{
	lexlint.NewReader: "a new reader refuses old data", lexlint.OldReader: "an old reader refuses new data", lexlint.Both: "old and new readers refuse each other's data",
}

func (e *env) printBroken(b *brokenSchema) error {
	c := colorsOf(e.stdout)
	for _, x := range b.Changes {
		var err error
		if e.json {
			err = e.printJSON(struct {
				File string `json:"file"`
				lexlint.Change
			}{filepath.ToSlash(b.File.Path), x})
		} else {
			level := fmt.Sprintf("%-5s", x.Level)
			if x.Level == lexlint.Error {
				level = c.bad(level)
			}
			via := ""
			if x.Via != "" {
				via = ", in " + x.Via
			}
			_, err = fmt.Fprintf(e.stdout, "%s: %s %s: %s%s: %s (%s)\n", x.NSID, level, x.Rule, inert(x.Path), inert(via), inert(x.Message), directions[x.Direction])
		}
		if err != nil {
			return err
		}
	}
	for _, arg := range slices.Sorted(maps.Keys(b.Data)) {
		got := b.Data[arg]
		if e.json {
			if err := e.printJSON(map[string]any{"nsid": b.File.Schema.ID, "source": arg, "data": got}); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(e.stdout, "%s: %d records of %s: the new version refuses %d, of which the old one accepts %d\n", b.File.Schema.ID, got.Records, inert(arg), got.Refused, got.Newly); err != nil {
			return err
		}
		for _, r := range got.Reasons {
			at := r.Path
			if at == "" {
				at = "the record"
			}
			if _, err := fmt.Fprintf(e.stdout, "  %d (%d newly): %s: %s, as in %s: %s\n", r.Records, r.Newly, inert(at), r.Rule, inert(r.Example), inert(r.Message)); err != nil {
				return err
			}
		}
	}
	return nil
}

// breakingGate refuses new versions that break the old ones.
func (e *env) breakingGate(ctx context.Context, l *lexNetwork, todo []*publication, dir string) error {
	was := e.emptyLexCatalog(ctx, false, lexFlags{networkFlags: l.ns.f})
	now, err := e.newLexCatalog(ctx, dir, false, false, lexFlags{networkFlags: l.ns.f})
	if err != nil {
		return err
	}
	was.net, now.net = l, l
	var files []*lexFile
	for _, p := range todo {
		files = append(files, p.File)
	}
	now.add(files)
	out := *e
	out.stdout, out.json = e.stderr, false
	broken := 0
	for _, p := range todo {
		if !p.Write || p.Found == nil {
			continue
		}
		changes := lexlint.Breaking(p.Found.Schema, p.File.Schema, lexlint.BreakingOptions{Old: was, New: now, Level: lexlint.Error})
		if len(changes) == 0 {
			continue
		}
		broken++
		if err := out.printBroken(&brokenSchema{File: p.File, Changes: changes}); err != nil {
			return err
		}
	}
	if broken > 0 {
		return withHint(fmt.Errorf("%d schemas would break what there is: nothing was published", broken), "give the new version a name of its own; --skip-breaking publishes anyway")
	}
	return nil
}

// gitSchema reads a file as it was at a revision; nil if it wasn't there.
func gitSchema(ctx context.Context, ref, path string) (*lexicon.Schema, error) {
	git := func(args ...string) ([]byte, string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = filepath.Dir(path)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		return out.Bytes(), strings.TrimSpace(errs.String()), err
	}
	if _, why, err := git("rev-parse", "--verify", "--quiet", "--end-of-options", ref+"^{commit}"); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("--against git:%s takes git: %w", ref, err)
		}
		if why == "" {
			why = "no such revision"
		}
		return nil, fmt.Errorf("git:%s for %s: %s", ref, path, why)
	}
	object := ref + ":./" + filepath.Base(path)
	if _, _, err := git("cat-file", "-e", "--end-of-options", object); err != nil {
		if _, _, err := git("cat-file", "-e", object); err != nil { // git before 2.45 takes no --end-of-options here
			return nil, nil
		}
	}
	b, why, err := git("show", "--end-of-options", object)
	if err != nil {
		return nil, fmt.Errorf("reading %s at git:%s: %s", path, ref, why)
	}
	s, err := lexicon.ParseSchema(b)
	if err != nil {
		return nil, fmt.Errorf("%s at git:%s: %w", path, ref, err)
	}
	return s, nil
}

// lockedSchema finds the version of a schema that the manifest names: in the cache, or as it is published if that is the one.
func lockedSchema(ctx context.Context, l *lexNetwork, m *manifest, id syntax.NSID) (*lexicon.Schema, error) {
	r, ok := m.Resolutions[id.Normalize()]
	if !ok {
		return nil, nil
	}
	cache := newLexCache()
	if b, ok := cache.get(r.CID); ok {
		return lexicon.ParseRecord(b)
	}
	lost := withHint(fmt.Errorf("the version %s of %s, which the manifest names, can't be had", r.CID, id), "compare with git:REF, or with what is published")
	if l == nil {
		return nil, lost
	}
	found, err := l.resolveAt(ctx, r.URI.Authority().DID(), id)
	if err != nil {
		return nil, err
	}
	doc, err := documentOf(found.Schema)
	if err != nil {
		return nil, err
	}
	if want := r.CID; found.CID.String() != want && cidOf(doc).String() != want {
		return nil, lost
	}
	cache.put(found.Schema.Raw, doc)
	return found.Schema, nil
}
