package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/repo"
)

func newRepoLs(e *env) *cobra.Command {
	var f networkFlags
	var collection string
	var values bool
	cmd := &cobra.Command{
		Use:     "ls FILE|ACCOUNT",
		Aliases: []string{"list"},
		Short:   "List the records of a repository",
		Long: "Lists path and CID of every record, in the order of the tree. The repository is checked on the way, but for the\n" +
			"signature of a file. It is a stream: if a check fails in the middle, what was printed before is in the repository, and\n" +
			"the exit code is 3.",
		Example: "  baro repo ls backup.car\n" +
			"  baro repo ls backup.car --collection app.bsky.feed.post --json --values | jq -r .value.text",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if values && !e.json {
				return usagef("--values takes --json")
			}
			return advise(e.repoLs(cmd.Context(), args[0], f, collection, values))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&collection, "collection", "", "list the records of this collection only")
	fl.BoolVar(&values, "values", false, "with --json, print the records too")
	f.add(fl, false)
	return cmd
}

func (e *env) repoLs(ctx context.Context, arg string, f networkFlags, collection string, values bool) error {
	src, err := e.openSource(ctx, arg, f)
	if err != nil {
		return err
	}
	defer src.close()
	r, err := src.read(ctx, repoCheck{offline: src.file != nil, records: repo.RecordsReadable})
	if r != nil {
		defer r.close()
	}
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(e.stdout, 64<<10)
	out := *e
	out.stdout = w
	err = r.verifyAll(func(rec repo.Record) error {
		if c, _ := splitPath(rec.Path); collection != "" && c != collection {
			return nil
		}
		if !e.json {
			_, err := fmt.Fprintf(w, "%s  %s\n", rec.Path, rec.CID)
			return err
		}
		line := struct {
			Path  string   `json:"path"`
			CID   string   `json:"cid"`
			Bytes int      `json:"bytes"`
			Value data.Raw `json:"value,omitempty"`
			Error string   `json:"error,omitempty"`
		}{Path: string(rec.Path), CID: rec.CID.String(), Bytes: len(rec.Data)}
		if values {
			if _, err := data.AppendJSON(nil, rec.Data); err != nil {
				line.Error = strings.ToValidUTF8(err.Error(), "\ufffd")
			} else {
				line.Value = rec.Data
			}
		}
		return out.printJSON(line)
	})
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	return err
}
