package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
)

type diffFlags struct {
	networkFlags
	collection string
	values     bool
}

func newRepoDiff(e *env) *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "List what has changed between two repositories",
		Long: "Lists the records that were created (+), updated (~) and deleted (-) between two CAR files, or between a file and an\n" +
			"account as it is now. Parts of the tree that both have are passed over without a look, so that the work is that of the\n" +
			"change. The nodes and records that are looked at are checked against their hashes; signatures of files are not, which\n" +
			"'baro repo verify' does.",
		Example: "  baro repo diff yesterday.car today.car\n" +
			"  baro repo diff backup.car alice.test --collection app.bsky.graph.follow\n" +
			"  baro repo diff yesterday.car today.car --json --values | jq 'select(.action == \"delete\") | .old'",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.values && !e.json {
				return usagef("--values takes --json")
			}
			return advise(e.repoDiff(cmd.Context(), args, f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.collection, "collection", "", "list the changes of this collection only")
	fl.BoolVar(&f.values, "values", false, "with --json, print the records too, as they were and as they are")
	f.add(fl, false)
	return cmd
}

// changeLine is a change in the output for programs. A record that isn't there has no CID.
type changeLine struct {
	Action string   `json:"action"` // create, update or delete
	Path   string   `json:"path"`
	CID    string   `json:"cid,omitempty"`
	Prev   string   `json:"prev,omitempty"`
	Value  data.Raw `json:"value,omitempty"`
	Old    data.Raw `json:"old,omitempty"`
}

func (e *env) repoDiff(ctx context.Context, args []string, f diffFlags) error {
	var sides [2]*partial.File
	var commits [2]*repo.Commit
	var trees [2]*mst.Tree
	var errs [2]error
	var files [2]*os.File
	var size int64
	for i, arg := range args {
		if arg == "-" && args[1-i] == arg {
			return usagef("only one of the two can be standard input")
		}
		file, done, err := e.openFile(ctx, arg, f.networkFlags)
		if err != nil {
			return err
		}
		defer done()
		files[i] = file
		if info, err := file.Stat(); err == nil {
			size += info.Size()
		}
	}
	t := e.transfer("reading "+args[0]+" and "+args[1], size)
	defer t.done()
	var indexing sync.WaitGroup
	for i, arg := range args {
		indexing.Go(func() { sides[i], errs[i] = partial.Index(ctx, files[i], arg, t) })
	}
	indexing.Wait()
	t.done()
	for i, arg := range args {
		err := errs[i]
		if err == nil {
			commits[i], _, err = partial.Commit(arg, sides[i].Root(), sides[i])
		}
		if err != nil {
			return err
		}
		path := func(key []byte) error { return repo.CheckPath(key) }
		trees[i] = mst.OpenOptions(commits[i].Data, sides[i], mst.Options{HashChecked: true, CheckKey: path})
	}
	if commits[0].DID != commits[1].DID {
		fmt.Fprintf(e.stderr, "these are two accounts: %s and %s\n", commits[0].DID, commits[1].DID)
	}
	w := bufio.NewWriterSize(e.stdout, 64<<10)
	out := *e
	out.stdout = w
	c := colorsOf(e.stdout)
	var created, updated, deleted int
	err := func() error {
		for d, err := range mst.Diff(trees[0], trees[1]) {
			if err != nil {
				return inTree(err)
			}
			if collection, _ := splitPath([]byte(d.Key)); f.collection != "" && collection != f.collection {
				continue
			}
			line := changeLine{Path: d.Key}
			var text string
			switch {
			case !d.Old.Defined():
				created++
				line.Action, line.CID, text = "create", d.New.String(), c.good("+ "+d.Key)+"  "+d.New.String()
			case !d.New.Defined():
				deleted++
				line.Action, line.Prev, text = "delete", d.Old.String(), c.bad("- "+d.Key)+"  "+d.Old.String()
			default:
				updated++
				line.Action, line.CID, line.Prev, text = "update", d.New.String(), d.Old.String(), "~ "+d.Key+"  "+d.Old.String()+" → "+d.New.String()
			}
			if !e.json {
				if _, err := w.WriteString(text + "\n"); err != nil {
					return err
				}
				continue
			}
			if f.values {
				if line.Old, err = recordIn(sides[0], d.Key, d.Old); err != nil {
					return err
				}
				if line.Value, err = recordIn(sides[1], d.Key, d.New); err != nil {
					return err
				}
			}
			if err := out.printJSON(line); err != nil {
				return err
			}
		}
		return nil
	}()
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "from revision %s to %s: %d created, %d updated, %d deleted\n", commits[0].Rev, commits[1].Rev, created, updated, deleted)
	return nil
}

// inTree marks an error of a tree as one of its file.
func inTree(err error) error {
	if _, ok := errors.AsType[*mst.Error](err); ok || errors.Is(err, mst.ErrNotFound) {
		return notVerified(err)
	}
	return err
}

// recordIn is a record of a file, nil if there is none under that CID.
func recordIn(f *partial.File, path string, c cid.CID) (data.Raw, error) {
	if !c.Defined() {
		return nil, nil
	}
	b, err := f.Block(c)
	if err != nil {
		return nil, inTree(fmt.Errorf("the record %s of %s: %w", path, f.Name(), err))
	}
	if _, err := data.AppendJSON(nil, b); err != nil {
		return nil, nil // outside the data model: its CID is all that can be shown
	}
	return append(data.Raw(nil), b...), nil
}
