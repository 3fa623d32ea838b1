// Command lexgen imports lexicon schemas and generates Go from them. It is run by `go generate ./...`.
//
//	lexgen import -from DIR -to lexicons -commit ID         strip upstream schemas and write lock.json
//	lexgen generate -lexicons DIR -out DIR -module PATH […]  write packages, see package lexgen
//
// The flags of generate: -manifest FILE takes the NSIDs from a lexicons.json, further arguments are NSIDs too; -package
// PREFIX=DIR and -import PREFIX=PATH may be repeated; -api imports the packages of this module; -comments writes the
// descriptions; -check writes nothing, and fails with a diff if the files aren't what it would write.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/barograph/baro/internal/lexgen"
	"github.com/barograph/baro/lexicon"
)

func main() {
	err := run(os.Args[1:])
	var diff *lexgen.DiffError
	if errors.As(err, &diff) {
		fmt.Print(diff.Diff)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lexgen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "import":
			return importSchemas(args[1:])
		case "generate":
			return generate(args[1:])
		}
	}
	return errors.New("want import or generate")
}

func importSchemas(args []string) error {
	f := flag.NewFlagSet("import", flag.ContinueOnError)
	from := f.String("from", "", "folder of the upstream schemas")
	to := f.String("to", "lexicons", "folder to write")
	repo := f.String("upstream", "https://github.com/bluesky-social/atproto", "where the schemas come from")
	commit := f.String("commit", "", "commit of the upstream repository")
	if err := f.Parse(args); err != nil {
		return err
	}
	files, err := lexgen.Upstream(os.DirFS(*from), *repo, *commit)
	if err != nil {
		return err
	}
	return lexgen.Write(*to, files)
}

func generate(args []string) error {
	f := flag.NewFlagSet("generate", flag.ContinueOnError)
	c := lexgen.Config{Catalog: lexicon.NewCatalog()}
	lex := f.String("lexicons", "lexicons", "folder of the schemas")
	out := f.String("out", ".", "folder to write")
	manifest := f.String("manifest", "", "lexicons.json with the NSIDs to generate")
	own := f.Bool("api", false, "import the packages of "+"github.com/barograph/baro/api")
	check := f.Bool("check", false, "write nothing, and fail if the files differ")
	f.StringVar(&c.Module, "module", "", "import path of the folder to write")
	f.BoolVar(&c.Comments, "comments", false, "write the descriptions of the schemas as comments")
	f.Func("package", "PREFIX=DIR: where schemas go", func(v string) error {
		prefix, dir, ok := strings.Cut(v, "=")
		c.Packages = append(c.Packages, lexgen.Package{Prefix: prefix, Dir: dir})
		return pair(ok)
	})
	f.Func("import", "PREFIX=PATH: a package that exists", func(v string) error {
		prefix, path, ok := strings.Cut(v, "=")
		c.Imports = append(c.Imports, lexgen.Import{Prefix: prefix, Path: path})
		return pair(ok)
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	c.NSIDs = f.Args()
	if *manifest != "" {
		b, err := os.ReadFile(*manifest)
		if err != nil {
			return err
		}
		ids, err := lexgen.Manifest(b)
		if err != nil {
			return fmt.Errorf("%s: %w", *manifest, err)
		}
		c.NSIDs = append(c.NSIDs, ids...)
	}
	if *own {
		imports, err := lexgen.API()
		if err != nil {
			return err
		}
		c.Imports = append(c.Imports, imports...)
	}
	if err := c.Catalog.AddFS(os.DirFS(*lex)); err != nil {
		return err
	}
	files, err := lexgen.Generate(c)
	if err != nil {
		return err
	}
	if *check {
		return lexgen.Check(os.DirFS(*out), files)
	}
	return lexgen.Write(*out, files)
}

func pair(ok bool) error {
	if !ok {
		return errors.New("want two sides of a =")
	}
	return nil
}
