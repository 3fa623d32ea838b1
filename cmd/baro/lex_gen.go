package main

import (
	"bufio"
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
	"github.com/barograph/baro/internal/lexgen"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

type genFlags struct {
	lexFlags
	out       string
	module    string
	packages  []string
	importMap []string
	manifest  string
	noAPI     bool
	docs      bool
	check     bool
	offline   bool
}

func newLexGen(e *env) *cobra.Command {
	var f genFlags
	cmd := &cobra.Command{
		Use:   "gen [NSID|GROUP.*…]",
		Short: "Generate Go from schemas",
		Long: "Writes Go packages for schemas and for all that they refer to: types that keep what they don't know, unions, parameters,\n" +
			"errors, constants, and a descriptor for each method, which clients call and servers route. Without arguments it is for all\n" +
			"schemas of the folder, or, with a manifest lexicons.json, for those that it was asked for and those that aren't in it.\n\n" +
			"What the packages of this module have (app.bsky, com.atproto and others) is referred to and not generated again;\n" +
			"--import-map names other packages of that kind, and --no-api leaves ours out. Packages are named after the first two\n" +
			"segments of NSIDs, unless --package says otherwise.\n\n" +
			"The same schemas give the same bytes. With --check nothing is written, and the exit code is 1 if something differs.",
		Example: "  baro lex gen --out internal/lex\n" +
			"  baro lex gen com.example.* --package com.example.notes=notes --docs\n" +
			"  baro lex gen --import-map com.example.shared=example.com/shared/lex --check",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexGen(cmd.Context(), args, f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.out, "out", "lex", "folder to write to")
	fl.StringVar(&f.module, "module", "", "import path of that folder (default: by the go.mod above it)")
	fl.StringSliceVar(&f.packages, "package", nil, "PREFIX=FOLDER: where the schemas below a prefix go, below --out (repeat for more)")
	fl.StringSliceVar(&f.importMap, "import-map", nil, "PREFIX=PATH: package that has the schemas below a prefix already (repeat for more)")
	fl.BoolVar(&f.noAPI, "no-api", false, "generate also what the packages of this module have")
	fl.BoolVar(&f.docs, "docs", false, "write the descriptions of the schemas as comments")
	fl.BoolVar(&f.check, "check", false, "write nothing; exit code 1 if the code is not up to date")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody for schemas that are referred to")
	fl.StringVar(&f.manifest, "manifest", manifestName, "manifest of what is installed")
	f.addDir(fl)
	f.addNetwork(fl)
	return cmd
}

func (e *env) lexGen(ctx context.Context, args []string, f genFlags) error {
	c := lexgen.Config{Module: f.module, Comments: f.docs}
	for _, p := range f.packages {
		prefix, dir, ok := strings.Cut(p, "=")
		if !ok || prefix == "" || dir == "" {
			return usagef("--package %q: want PREFIX=FOLDER, such as com.example.notes=notes", p)
		}
		c.Packages = append(c.Packages, lexgen.Package{Prefix: prefix, Dir: dir})
	}
	for _, p := range f.importMap {
		prefix, at, ok := strings.Cut(p, "=")
		if !ok || prefix == "" || at == "" {
			return usagef("--import-map %q: want PREFIX=PATH, such as com.example.shared=example.com/shared/lex", p)
		}
		c.Imports = append(c.Imports, lexgen.Import{Prefix: prefix, Path: at})
	}
	if !f.noAPI {
		own, err := lexgen.API()
		if err != nil {
			return err
		}
		for _, i := range own {
			if !slices.ContainsFunc(c.Imports, func(x lexgen.Import) bool { return x.Prefix == i.Prefix }) {
				c.Imports = append(c.Imports, i)
			}
		}
	}
	if c.Module == "" {
		var err error
		if c.Module, err = moduleOf(f.out); err != nil {
			return withHint(err, "name the import path of %s with --module", f.out)
		}
	}
	var err error
	if c.Catalog, c.NSIDs, err = e.genCatalog(ctx, args, f); err != nil {
		return err
	}
	files, err := lexgen.Generate(c)
	if err != nil {
		return err
	}
	if f.check {
		err := lexgen.Check(os.DirFS(f.out), files)
		if d, ok := errors.AsType[*lexgen.DiffError](err); ok {
			return e.printStale(f.out, d)
		}
		if err != nil {
			return err
		}
	} else if err := lexgen.Write(f.out, files); err != nil {
		return err
	}
	for _, file := range files {
		p := filepath.Join(f.out, filepath.FromSlash(file.Path))
		if e.json {
			err = e.printJSON(map[string]any{"path": p, "bytes": len(file.Data), "written": !f.check})
		} else if !f.check {
			_, err = fmt.Fprintln(e.stdout, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// printStale tells how generated files differ from what they should be.
func (e *env) printStale(out string, d *lexgen.DiffError) error {
	var err error
	if e.json {
		err = e.printJSON(map[string]any{"out": out, "differ": d.Paths})
	} else {
		err = e.printDiff([]byte(d.Diff))
	}
	if err != nil {
		return err
	}
	return withHint(fmt.Errorf("%d files in %s are not up to date", len(d.Paths), out), "'baro lex gen' brings them up to date")
}

// genCatalog reads the schemas to generate from, and what they refer to.
func (e *env) genCatalog(ctx context.Context, args []string, f genFlags) (*lexicon.Catalog, []string, error) {
	schemas, err := e.newLexCatalog(ctx, f.dir, true, f.offline, f.lexFlags)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(schemas.bad)) {
		return nil, nil, withHint(schemas.bad[id], "'baro lex lint' tells more")
	}
	local := slices.Sorted(maps.Keys(schemas.own))
	wanted := args
	if len(args) == 0 {
		m, err := readManifest(f.manifest)
		if err != nil {
			return nil, nil, err
		}
		for _, id := range local {
			if m != nil {
				if _, installed := m.Resolutions[id]; installed && !slices.Contains(m.Lexicons, id) {
					continue // it comes if something refers to it
				}
			}
			wanted = append(wanted, string(id))
		}
		if len(wanted) == 0 {
			return nil, nil, fmt.Errorf("there is no schema in %s", f.dir)
		}
	}
	roots := local
	for _, w := range wanted {
		if strings.HasSuffix(w, ".*") {
			continue // stands for those that are there
		}
		id, err := parseNSID(w)
		if err != nil {
			return nil, nil, err
		}
		roots = append(roots, id)
	}
	found, failed, err := lexres.Closure(ctx, roots, 0, func(_ context.Context, id syntax.NSID) (*lexicon.Schema, []syntax.NSID, error) {
		s, err := schemas.Lookup(id)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Dependencies(), nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(failed)) {
		return nil, nil, fmt.Errorf("%s is needed: %w", id, failed[id])
	}
	cat := lexicon.NewCatalog()
	for _, s := range found {
		cat.Add(s)
	}
	return cat, wanted, nil
}

// moduleOf is the import path of a folder, by the go.mod at or above it.
func moduleOf(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at, below := abs, ""; ; {
		f, err := os.Open(filepath.Join(at, "go.mod"))
		if err == nil {
			defer f.Close()
			for sc := bufio.NewScanner(f); sc.Scan(); {
				if name, ok := strings.CutPrefix(strings.TrimSpace(sc.Text()), "module "); ok {
					return path.Join(strings.Trim(strings.TrimSpace(name), `"`), filepath.ToSlash(below)), nil
				}
			}
			return "", fmt.Errorf("%s names no module", f.Name())
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		up := filepath.Dir(at)
		if up == at {
			return "", fmt.Errorf("there is no go.mod above %s", abs)
		}
		below, at = filepath.Join(filepath.Base(at), below), up
	}
}
