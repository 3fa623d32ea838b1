// Command lexgen imports lexicon schemas and generates Go from them. It is run by `go generate ./...`.
//
//	lexgen import -from DIR -to lexicons -commit ID   strip upstream schemas and write lock.json
//	lexgen generate -lexicons lexicons -out api       write the packages under api
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/barograph/baro/internal/lexgen"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lexgen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want import or generate")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "import":
		from := f.String("from", "", "folder of the upstream schemas")
		to := f.String("to", "lexicons", "folder to write")
		repo := f.String("upstream", "https://github.com/bluesky-social/atproto", "where the schemas come from")
		commit := f.String("commit", "", "commit of the upstream repository")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		files, err := lexgen.Import(os.DirFS(*from), *repo, *commit)
		if err != nil {
			return err
		}
		return write(*to, files)
	case "generate":
		lex := f.String("lexicons", "lexicons", "folder of the schemas")
		out := f.String("out", "api", "folder to write")
		module := f.String("module", "github.com/barograph/baro/api", "import path of the folder")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		cat, err := lexgen.Load(os.DirFS(*lex))
		if err != nil {
			return err
		}
		files, err := lexgen.Generate(cat, lexgen.Options{Module: *module})
		if err != nil {
			return err
		}
		return write(*out, files)
	}
	return fmt.Errorf("unknown command %q: want import or generate", args[0])
}

func write(dir string, files map[string][]byte) error {
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
