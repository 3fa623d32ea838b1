package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// fetchFlags are those of pull and install.
type fetchFlags struct {
	lexFlags
	manifest string
	update   bool
	offline  bool
	noDeps   bool
	noSave   bool
	check    bool // write nothing, and fail if there were something to write
	ci       bool // fail if the manifest is out of date

	npm bool // install: files as the npm tool lex writes them
}

const aboutOffline = "With --offline nobody is asked: what is missing is taken from the cache of schemas that were fetched before, by the CID of the\n" +
	"manifest, and it is an error if it isn't there."

func newLexPull(e *env) *cobra.Command {
	var f fetchFlags
	var output string
	cmd := &cobra.Command{
		Use:   "pull NSID|GROUP.*…",
		Short: "Fetch schemas into the folder",
		Long: "Fetches published schemas, verified, and all that they refer to, and writes each to its place in the folder. A group such\n" +
			"as app.bsky.feed.* stands for the schemas of that level. Files that are there stay as they are unless --update is given.\n" +
			"A manifest lexicons.json that is there is kept up to date.\n\n" +
			"With --check nothing is written, and the exit code is 1 if something would have been.\n\n" + aboutOffline,
		Example: "  baro lex pull app.bsky.feed.post\n" +
			"  baro lex pull test.alice.* --update\n" +
			"  baro lex pull com.atproto.repo. --no-deps --output-dir /tmp/lexicons",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" {
				f.dir = output
			}
			return e.lexPull(cmd.Context(), args, f, e.config.given(cmd, "manifest"))
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&f.update, "update", "u", false, "replace files that are there")
	fl.StringVarP(&output, "output-dir", "o", "", "folder to write to (default: that of --lexicons-dir)")
	fl.BoolVar(&f.noDeps, "no-deps", false, "leave out what the schemas refer to")
	f.addFetch(cmd)
	return cmd
}

func newLexInstall(e *env) *cobra.Command {
	f := fetchFlags{npm: true}
	cmd := &cobra.Command{
		Use:     "install [NSID|AT-URI…]",
		Aliases: []string{"i"},
		Short:   "Fetch the schemas of the manifest lexicons.json, and add to it",
		Long: "Does what the npm tool lex does, with the same files: adds schemas, given by NSID or AT-URI, to the manifest, and fetches\n" +
			"those of the manifest with all that they refer to, verified. A file that is there wins, and its CID is what the manifest\n" +
			"says; with --update everything is resolved and fetched anew. Either all is written or nothing.\n\n" +
			"With --ci a manifest that isn't what came out is an error, and with --check a missing file is one too, and nothing is\n" +
			"written.\n\n" + aboutOffline,
		Example: "  baro lex install app.bsky.feed.post\n" +
			"  baro lex install at://alice.test/com.atproto.lexicon.schema/test.alice.note\n" +
			"  baro lex install --ci\n" +
			"  baro lex install --offline",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.lexInstall(cmd.Context(), args, f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.update, "update", false, "resolve and fetch everything anew")
	fl.BoolVar(&f.noSave, "no-save", false, "leave the manifest alone")
	fl.BoolVar(&f.ci, "ci", false, "fail if the manifest is out of date")
	f.addFetch(cmd)
	fl.StringVar(&f.dir, "lexicons", "lexicons", "the same as --lexicons-dir, as the npm tool calls it")
	return cmd
}

func (f *fetchFlags) addFetch(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.check, "check", false, "write nothing; exit code 1 if there is something to write")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody: use files and the cache only")
	fl.StringVar(&f.manifest, "manifest", manifestName, "manifest of what is installed")
	f.addDir(fl)
	f.addNetwork(fl)
}

// lexItem is a schema that was fetched, or was there.
type lexItem struct {
	ID      syntax.NSID
	URI     syntax.ATURI // "" if nobody needed to know
	Schema  *lexicon.Schema
	Doc     []byte // what the file is to hold, in DAG-CBOR
	Path    string
	Mark    mark
	Content []byte // to be written; nil: the file stays
	Proven  bool   // by a proof of now
}

// lexFetch gets schemas from files, the cache and the network.
type lexFetch struct {
	e     *env
	f     fetchFlags
	net   *lexNetwork // nil: offline
	old   *manifest   // may be nil
	cache *lexCache
	at    map[syntax.NSID]syntax.ATURI // roots that were given by where they are
	uris  bool                         // a manifest is to be written: all URIs are wanted
}

func (e *env) newLexFetch(ctx context.Context, f fetchFlags) (*lexFetch, error) {
	x := &lexFetch{e: e, f: f, cache: newLexCache(), at: map[syntax.NSID]syntax.ATURI{}}
	var err error
	if x.old, err = readManifest(f.manifest); err != nil {
		return nil, err
	}
	if !f.offline {
		x.net, err = e.lexNetwork(ctx, f.lexFlags)
	}
	return x, err
}

func (e *env) lexPull(ctx context.Context, args []string, f fetchFlags, manifestGiven bool) error {
	x, err := e.newLexFetch(ctx, f)
	if err != nil {
		return err
	}
	x.uris = x.old != nil || manifestGiven
	var roots []syntax.NSID
	for _, arg := range args {
		group, isGroup := strings.CutSuffix(strings.TrimSuffix(arg, "*"), ".")
		if !isGroup {
			id, err := parseNSID(arg)
			if err != nil {
				return err
			}
			roots = append(roots, id)
			continue
		}
		ids, err := x.group(ctx, group)
		if err != nil {
			return err
		}
		roots = append(roots, ids...)
	}
	items, failed, err := x.all(ctx, roots)
	if err != nil {
		return err
	}
	m := x.old
	if x.uris {
		if m == nil {
			m = &manifest{Resolutions: map[syntax.NSID]resolution{}}
		}
		c := *m
		c.Lexicons = slices.Clone(m.Lexicons)
		c.Resolutions = maps.Clone(m.Resolutions)
		for _, id := range roots {
			if failed[id] == nil {
				c.Lexicons = append(c.Lexicons, id)
			}
		}
		for _, it := range items {
			c.Resolutions[it.ID] = resolution{it.URI, cidOf(it.Doc).String()}
		}
		m = &c
	}
	if err := x.finish(items, m); err != nil {
		return errors.Join(err, x.tell(failed))
	}
	return x.tell(failed)
}

// tell prints what could not be had, one line for each but the last, which is the error.
func (x *lexFetch) tell(failed map[syntax.NSID]error) error {
	ids := slices.Sorted(maps.Keys(failed))
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids[:len(ids)-1] {
		fmt.Fprintf(x.e.stderr, "baro: %s\n", inert(lexError(failed[id]).Error()))
	}
	return lexError(failed[ids[len(ids)-1]])
}

func (e *env) lexInstall(ctx context.Context, args []string, f fetchFlags) error {
	if len(args) > 0 && (f.ci || f.check) {
		return usagef("--ci and --check look at what the manifest has: leave out %s", args[0])
	}
	x, err := e.newLexFetch(ctx, f)
	if err != nil {
		return err
	}
	x.uris = true
	if x.old == nil && len(args) == 0 {
		return withHint(fmt.Errorf("there is no manifest %s", f.manifest), "name the schemas to install, and it will be made")
	}
	roots := map[syntax.NSID]bool{}
	for _, arg := range args {
		id, err := x.root(ctx, arg)
		if err != nil {
			return err
		}
		if roots[id] {
			return usagef("%s is given twice", id)
		}
		roots[id] = true
	}
	added := maps.Clone(roots)
	if x.old != nil {
		for _, id := range x.old.Lexicons {
			roots[id.Normalize()] = true
		}
		// What is known of where schemas are serves again, unless the schema was asked for anew.
		if !f.update {
			for id, r := range x.old.Resolutions {
				if _, given := x.at[id]; !given && !added[id] {
					x.at[id] = r.URI
				}
			}
		}
	}
	items, failed, err := x.all(ctx, slices.Sorted(maps.Keys(roots)))
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		return x.tell(failed)
	}
	m := &manifest{Lexicons: slices.Sorted(maps.Keys(roots)), Resolutions: map[syntax.NSID]resolution{}}
	if x.old != nil {
		m.extra = x.old.extra
	}
	for _, it := range items {
		m.Resolutions[it.ID] = resolution{it.URI, cidOf(it.Doc).String()}
	}
	return x.finish(items, m)
}

// root reads an argument of install.
func (x *lexFetch) root(ctx context.Context, arg string) (syntax.NSID, error) {
	if !strings.HasPrefix(arg, "at://") {
		return parseNSID(arg)
	}
	uri, err := syntax.ParseATURI(arg)
	if err != nil || uri.Collection() != lexres.Collection {
		return "", usagef("%q is not the URI of a schema, such as at://alice.test/com.atproto.lexicon.schema/test.alice.note", arg)
	}
	id, err := parseNSID(string(uri.RecordKey()))
	if err != nil {
		return "", err
	}
	did := uri.Authority().DID()
	if did == "" {
		if x.net == nil {
			return "", usagef("%s has a handle, which can't be resolved with --offline: use the DID", arg)
		}
		a, err := x.net.ns.lookup(ctx, uri.Authority())
		if err != nil {
			return "", advise(err)
		}
		did = a.DID
	}
	x.at[id] = lexres.URI(did, id)
	return id, nil
}

// group lists the schemas of a level.
func (x *lexFetch) group(ctx context.Context, group string) ([]syntax.NSID, error) {
	if x.net == nil {
		return nil, usagef("%s.* can't be listed with --offline: name the schemas", group)
	}
	ids, err := x.net.list(ctx, group)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, withHint(fmt.Errorf("there is no schema %s.*", group), "'baro lex ls %s --all' lists all of that repository", group)
	}
	return ids, nil
}

// maxListed is how many schemas of a repository are listed.
const maxListed = 20_000

// list lists the schemas of a group as the PDS tells; each is to be verified when it is fetched.
func (l *lexNetwork) list(ctx context.Context, group string) ([]syntax.NSID, error) {
	all, err := l.listAll(ctx, group)
	return slices.DeleteFunc(all, func(id syntax.NSID) bool { return id.Prefix() != strings.ToLower(group) }), err
}

// listAll lists all schemas of the repository that has the authority over a group.
func (l *lexNetwork) listAll(ctx context.Context, group string) ([]syntax.NSID, error) {
	id, err := syntax.ParseNSID(group + ".x")
	if err != nil {
		return nil, usagef("%q is not a group of NSIDs, such as app.bsky.feed: %w", group, err)
	}
	a, n, err := l.authority(ctx, id)
	if err != nil {
		return nil, lexError(err)
	}
	return l.listOf(ctx, n, a.DID)
}

// listOf lists all schemas of a repository.
func (l *lexNetwork) listOf(ctx context.Context, n *network, did syntax.DID) ([]syntax.NSID, error) {
	doc, err := askAt{n.dir, l.ns.f.pds}.ResolveDID(ctx, did)
	if err != nil {
		return nil, advise(err)
	}
	if doc.PDS == "" {
		return nil, fmt.Errorf("the document of %s names no PDS", did)
	}
	c := client.New(doc.PDS, client.Options{HTTP: n.http, Now: l.e.world.Clock.Now})
	var ids []syntax.NSID
	o := client.ListOptions{Collection: lexres.Collection, SkipHash: true, OnBad: func(d *client.DecodeError) {
		fmt.Fprintf(l.e.stderr, "baro: %s\n", inert(d.Error()))
	}}
	for r, err := range client.List[data.Raw](ctx, c, syntax.AtIdentifier(did), o) {
		if err != nil {
			return nil, advise(err)
		}
		if id, err := syntax.ParseNSID(string(r.URI.RecordKey())); err == nil {
			ids = append(ids, id.Normalize())
		}
		if len(ids) > maxListed {
			return nil, fmt.Errorf("%s has more than %d schemas", did, maxListed)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// all gets schemas and what they depend on.
func (x *lexFetch) all(ctx context.Context, roots []syntax.NSID) ([]*lexItem, map[syntax.NSID]error, error) {
	found, failed, err := lexres.Closure(ctx, roots, 0, func(ctx context.Context, id syntax.NSID) (*lexItem, []syntax.NSID, error) {
		it, err := x.get(ctx, id)
		if err != nil || x.f.noDeps {
			return it, nil, err
		}
		// Names below internal are nobody's: they are never published.
		deps := slices.DeleteFunc(it.Schema.Dependencies(), func(d syntax.NSID) bool {
			_, err := os.Stat(lexPath(x.f.dir, d))
			return strings.HasPrefix(string(d), "internal.") && err != nil
		})
		return it, deps, nil
	})
	if err != nil {
		return nil, nil, err
	}
	items := slices.Collect(maps.Values(found))
	slices.SortFunc(items, func(a, b *lexItem) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return items, failed, nil
}

// get finds one schema: the file that is there, or what is published.
func (x *lexFetch) get(ctx context.Context, id syntax.NSID) (*lexItem, error) {
	it := &lexItem{ID: id, Path: lexPath(x.f.dir, id)}
	local := readLexFile(it.Path)
	there := !errors.Is(local.Err, fs.ErrNotExist)
	if there && !x.f.update {
		if local.Err != nil {
			return nil, fmt.Errorf("%s: %w", it.Path, local.Err)
		}
		if local.Schema.ID != id {
			return nil, fmt.Errorf("%s says that it is %s", it.Path, local.Schema.ID)
		}
		it.Schema, it.Doc, it.Mark = local.Schema, local.Schema.Raw, markExists
		var err error
		if x.uris {
			it.URI, err = x.where(ctx, id)
		}
		return it, err
	}
	record, uri, err := x.fetch(ctx, id)
	if err != nil {
		return nil, err
	}
	it.URI, it.Proven = uri, x.net != nil
	if it.Schema, err = lexicon.ParseRecord(record); err != nil {
		return nil, fmt.Errorf("reading %s: %w", id, err)
	}
	it.Doc = record
	if !x.f.npm {
		if it.Doc, err = documentOf(it.Schema); err != nil {
			return nil, err
		}
	}
	x.cache.put(record, it.Doc)
	it.Mark = markWrote
	if there {
		if local.Schema != nil && cidOf(local.Schema.Raw) == cidOf(it.Doc) {
			it.Mark = markSame
			return it, nil
		}
		it.Mark = markUpdated
	}
	write := prettySchema
	if x.f.npm {
		write = func(raw []byte) ([]byte, error) { return indentRecord(raw) } // fields in the order of DAG-CBOR
	}
	it.Content, err = write(it.Doc)
	return it, err
}

// where is the URI of a schema whose file is there.
func (x *lexFetch) where(ctx context.Context, id syntax.NSID) (syntax.ATURI, error) {
	if uri, ok := x.at[id]; ok {
		return uri, nil
	}
	if x.old != nil {
		if r, ok := x.old.Resolutions[id]; ok {
			return r.URI, nil
		}
	}
	if x.net == nil {
		return "", withHint(fmt.Errorf("%s is not in the manifest, so where it is published isn't known", id), "try again without --offline")
	}
	a, _, err := x.net.authority(ctx, id)
	if err != nil {
		return "", err
	}
	return lexres.URI(a.DID, id), nil
}

// fetch gets the record of a schema.
func (x *lexFetch) fetch(ctx context.Context, id syntax.NSID) ([]byte, syntax.ATURI, error) {
	if x.net == nil {
		if x.old == nil {
			return nil, "", withHint(fmt.Errorf("%s can't be had offline: there is no manifest that tells its CID", id), "try again without --offline")
		}
		r, ok := x.old.Resolutions[id]
		if !ok {
			return nil, "", withHint(fmt.Errorf("%s can't be had offline: it is not in the manifest", id), "try again without --offline")
		}
		doc, ok := x.cache.get(r.CID)
		if !ok {
			return nil, "", withHint(fmt.Errorf("%s can't be had offline: it is not in the cache %s", id, x.cache.dir), "try again without --offline")
		}
		return doc, r.URI, nil
	}
	var found *lexres.Resolution
	var err error
	if uri, ok := x.at[id]; ok {
		found, err = x.net.resolveAt(ctx, uri.Authority().DID(), id)
	} else {
		found, err = x.net.resolve(ctx, id)
	}
	if err != nil {
		return nil, "", err
	}
	return found.Schema.Raw, found.URI, nil
}

// finish writes the files and the manifest, or says what would have to be.
func (x *lexFetch) finish(items []*lexItem, m *manifest) error {
	stale := m != nil && !m.equal(x.old)
	if x.f.ci && stale {
		return withHint(fmt.Errorf("the manifest %s is out of date: %s", x.f.manifest, manifestDifference(x.old, m)), "'baro lex install' brings it up to date")
	}
	todo := 0
	for _, it := range items {
		if it.Content != nil {
			todo++
			if !x.f.check {
				if err := writeFile(it.Path, it.Content); err != nil {
					return err
				}
			}
		}
		if err := x.print(it); err != nil {
			return err
		}
	}
	save := stale && !x.f.noSave && !x.f.ci
	if x.f.check {
		switch {
		case todo > 0:
			return fmt.Errorf("%d of %d schemas are not up to date", todo, len(items))
		case save:
			return fmt.Errorf("the manifest %s is out of date: %s", x.f.manifest, manifestDifference(x.old, m))
		}
		return nil
	}
	if !save {
		return nil
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	return writeFile(x.f.manifest, b)
}

func (x *lexFetch) print(it *lexItem) error {
	m := it.Mark
	if x.e.json {
		return x.e.printJSON(map[string]any{
			"nsid": it.ID, "status": m.word, "path": it.Path, "uri": it.URI, "cid": cidOf(it.Doc).String(), "verified": it.Proven,
		})
	}
	_, err := fmt.Fprintf(x.e.stdout, "%s %s\n", x.e.show(m), it.ID)
	return err
}

// manifestDifference says in a few words where two manifests differ.
func manifestDifference(old, new *manifest) string {
	if old == nil {
		return "it isn't there"
	}
	var out []string
	for _, id := range slices.Sorted(maps.Keys(new.Resolutions)) {
		was, ok := old.Resolutions[id]
		switch is := new.Resolutions[id]; {
		case !ok:
			out = append(out, fmt.Sprintf("%s is missing", id))
		case was.CID != is.CID:
			out = append(out, fmt.Sprintf("%s is %s, not %s", id, is.CID, was.CID))
		case was.URI != is.URI:
			out = append(out, fmt.Sprintf("%s is at %s, not %s", id, is.URI, was.URI))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(old.Resolutions)) {
		if _, ok := new.Resolutions[id]; !ok {
			out = append(out, fmt.Sprintf("nothing needs %s", id))
		}
	}
	if len(out) == 0 {
		return "the list of lexicons differs"
	}
	const most = 5
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("and %d more", len(out)-most))
	}
	return strings.Join(out, "; ")
}

// lexCache keeps schemas by their CID, which never change, for work without a network.
type lexCache struct{ dir string }

func newLexCache() *lexCache {
	dir := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return &lexCache{}
		}
		dir = filepath.Join(home, ".cache")
	}
	return &lexCache{filepath.Join(dir, "baro", "lexicons")}
}

// get returns what has a CID, if it is there and has it.
func (c *lexCache) get(id string) ([]byte, bool) {
	want, err := cid.Parse(id)
	if err != nil || c.dir == "" {
		return nil, false
	}
	b, err := os.ReadFile(filepath.Join(c.dir, want.String()))
	return b, err == nil && cidOf(b) == want
}

// put keeps documents. A cache that can't be written to is none.
func (c *lexCache) put(docs ...[]byte) {
	if c.dir == "" {
		return
	}
	for _, b := range docs {
		path := filepath.Join(c.dir, cidOf(b).String())
		if _, err := os.Stat(path); err != nil {
			_ = writeFile(path, b)
		}
	}
}
