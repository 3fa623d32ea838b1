package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/mst"
)

func newRepoOrder(e *env) *cobra.Command {
	var f networkFlags
	var overwrite bool
	cmd := &cobra.Command{
		Use:   "order IN OUT",
		Short: "Rewrite a CAR file in the order of its tree",
		Long: "Writes the repository anew with its blocks in the order of the tree: the commit, then each node before what is below it,\n" +
			"and the records where their keys are. Such a file can be read and verified as a stream, in memory that doesn't grow with\n" +
			"it, and it is the same for everybody. Blocks that nothing leads to are left out. Hashes and the shape of the tree are\n" +
			"checked on the way; the signature stays as it is, and 'baro repo verify' checks it.\n\n" +
			"The new file gets its name when it is whole; - is standard input or output.",
		Example: "  baro repo order backup.car ordered.car\n  baro repo order backup.car - | baro repo verify -",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.repoOrder(cmd.Context(), args[0], args[1], overwrite, f))
		},
	}
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace a file that is there")
	f.add(cmd.Flags(), false)
	return cmd
}

func (e *env) repoOrder(ctx context.Context, in, out string, overwrite bool, f networkFlags) error {
	file, done, err := e.openFile(ctx, in, f)
	if err != nil {
		return err
	}
	defer done()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(out); err == nil && os.SameFile(info, there) && overwrite {
		return usagef("%s and %s are one file: write another one, and rename it", in, out)
	}
	from := &blockStream{ctx: ctx, file: file, name: in}
	root, err := from.open()
	if err != nil {
		return err
	}
	c, block, err := partial.Commit(in, root, from)
	if err != nil {
		return err
	}
	var to *newFile
	dest := e.stdout
	if out != "-" {
		if to, err = createFile(out, overwrite); err != nil {
			return err
		}
		defer to.drop()
		dest = to
	}
	t := e.transfer("writing "+out, info.Size())
	defer t.done()
	w := bufio.NewWriterSize(dest, 256<<10)
	counted := &counter{w: w, t: t}
	stats, err := partial.WriteInOrder(ctx, counted, c, block, from)
	if errors.Is(err, mst.ErrNotFound) {
		err = withHint(notVerified(err), "the file holds a part of a repository")
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	blocks, err := from.total()
	if err != nil {
		return err
	}
	if to != nil {
		if err := to.keep(); err != nil {
			return err
		}
	}
	t.done()
	left := max(0, blocks-stats.Nodes-stats.Records-1)
	switch {
	case e.json && out != "-":
		return e.printJSON(map[string]any{"file": out, "bytes": counted.n, "did": c.DID, "rev": c.Rev, "records": stats.Records, "nodes": stats.Nodes, "dropped": left})
	case out != "-":
		fmt.Fprintln(e.stdout, out)
	}
	_, err = fmt.Fprintf(e.stderr, "%s at revision %s: %s under %s, %s; %s left out\n", c.DID, c.Rev, count(stats.Records, "record", "records"), count(stats.Nodes, "node", "nodes"), bytesOf(counted.n), count(left, "block", "blocks"))
	return err
}
