package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/repo"
)

func newRepoImport(e *env) *cobra.Command {
	var f networkFlags
	var as string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Load a CAR file into your account",
		Long: "Replaces the repository of the account that you are logged in to by the one in a file, which must be of the same\n" +
			"account. The file is checked first, but for its signature: after a move it is signed with another key than yours.\n" +
			"The PDS signs a new commit over what is imported. Blobs that the records refer to have to be uploaded too; how many\n" +
			"are missing is said at the end.",
		Example: "  baro account login alice.test\n  baro repo import alice.test.car\n  baro repo import backup.car --as alice.test",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.repoImport(cmd.Context(), args[0], as, f))
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "account to use, a handle or DID (default: the one used last)")
	f.add(cmd.Flags(), false)
	return cmd
}

func (e *env) repoImport(ctx context.Context, name, as string, f networkFlags) error {
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("opening the repository: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return usagef("%s is no ordinary file", name)
	}
	s, err := e.sessions(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	acc, err := s.account(ctx, as)
	if err != nil {
		return err
	}
	r, err := repo.Open(contextReader{ctx, file}, repo.ReadOptions{Records: repo.RecordsReadable})
	if err == nil {
		if did := r.Commit().DID; did != acc.DID() {
			return withHint(fmt.Errorf("%s is the repository of %s, and you are %s", name, did, acc.DID()), "--as chooses another of your accounts")
		}
		in := &repository{Reader: r, from: name}
		err = in.verifyAll(nil)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("nothing was sent: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	c := client.ForAccount(acc, client.Options{Now: e.world.Clock.Now})
	t := e.transfer("sending "+name, info.Size())
	err = c.ImportRepo(ctx, countingReader{file, t}, info.Size())
	t.done()
	if err != nil {
		return err
	}
	missing := 0
	var first client.MissingBlob
	for b, err := range c.MissingBlobs(ctx) {
		if err != nil {
			fmt.Fprintf(e.stderr, "baro: the repository was imported, but which blobs are missing could not be found out: %s\n", inert(err.Error()))
			break
		}
		if missing++; missing == 1 {
			first = b
		}
	}
	if e.json {
		return e.printJSON(map[string]any{"did": acc.DID(), "records": r.Report().Records, "bytes": info.Size(), "missingBlobs": missing})
	}
	fmt.Fprintf(e.stdout, "imported %d records into %s (%s)\n", r.Report().Records, acc.Session().Handle, acc.DID())
	if missing > 0 {
		fmt.Fprintf(e.stderr, "%s missing, such as %s in %s: 'baro blob upload --missing DIR' sends them from a folder of 'baro blob export'\n", count(missing, "blob is", "blobs are"), first.CID, inert(string(first.Record)))
	}
	return nil
}
