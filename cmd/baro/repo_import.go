package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/xrpc"
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
			"are missing is said at the end.\n\n" +
			"If the account has the very records of the file already nothing is sent. A file whose sending is cut off, or that the\n" +
			"server had no time for, is sent again up to three times: to import a repository twice does no harm.",
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
	c := client.ForAccount(acc, client.Options{Now: e.world.Clock.Now})
	there := hasRepo(ctx, c, r.Commit())
	if !there {
		if err := e.sendRepo(ctx, c, file, info.Size(), r.Commit()); err != nil {
			return err
		}
	}
	missing := 0
	var first client.MissingBlob
	for b, err := range c.MissingBlobs(ctx) {
		if err != nil {
			fmt.Fprintf(e.stderr, "baro: the repository is there, but which blobs are missing could not be found out: %s\n", inert(err.Error()))
			break
		}
		if missing++; missing == 1 {
			first = b
		}
	}
	if e.json {
		return e.printJSON(map[string]any{"did": acc.DID(), "records": r.Report().Records, "bytes": info.Size(), "sent": !there, "missingBlobs": missing})
	}
	if there {
		fmt.Fprintf(e.stdout, "%s (%s) has these %d records already: nothing was sent\n", acc.Session().Handle, acc.DID(), r.Report().Records)
	} else {
		fmt.Fprintf(e.stdout, "imported %d records into %s (%s)\n", r.Report().Records, acc.Session().Handle, acc.DID())
	}
	if missing > 0 {
		fmt.Fprintf(e.stderr, "%s missing, such as %s in %s: 'baro blob upload --missing DIR' sends them from a folder of 'baro blob export'\n", count(missing, "blob is", "blobs are"), first.CID, inert(string(first.Record)))
	}
	return nil
}

// hasRepo says whether an account has the records of a commit. What can't be found out counts as no.
func hasRepo(ctx context.Context, c *client.Client, want *repo.Commit) bool {
	head, _, err := c.LatestCommit(ctx, want.DID)
	if err != nil {
		return false
	}
	has := false
	for b, err := range c.Blocks(ctx, want.DID, []cid.CID{head}) {
		if err != nil {
			return false
		}
		now, err := repo.DecodeLegacyCommit(b.Data)
		has = err == nil && now.DID == want.DID && now.Data == want.Data
	}
	return has
}

// sendRepo imports a file, and sends it again if the connection or the server failed. That does no harm, as
// https://atproto.com/guides/account-migration says: a server keeps what is new to it, and ours makes no commit if nothing is. It may
// also have imported the file although its answer got lost.
func (e *env) sendRepo(ctx context.Context, c *client.Client, file *os.File, size int64, want *repo.Commit) error {
	pause := downloadPause
	for n := 1; ; n++ {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		t := e.transfer("sending "+file.Name(), size)
		err := c.ImportRepo(ctx, countingReader{file, t}, size)
		t.done()
		if err == nil || ctx.Err() != nil {
			return err
		}
		wait := pause
		x, refused := errors.AsType[*xrpc.Error](err)
		switch {
		case n == maxUploads:
			return err
		case refused && (x.Status == http.StatusTooManyRequests || x.Status >= 500 && x.Status != http.StatusNotImplemented):
			if d, ok := x.RetryAfter(); ok && d > longestWait {
				return err
			} else if ok {
				wait = max(wait, d)
			}
		case n > 1 && refused && hasRepo(ctx, c, want):
			return nil // a try that was given up has come to its end at the server, and in the way of this one
		case refused || !cutOff(err):
			return err
		}
		fmt.Fprintf(e.stderr, "sending %s failed, and is tried again: %s\n", inert(file.Name()), inert(err.Error()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.world.Clock.After(wait):
		}
		pause *= 2
		if hasRepo(ctx, c, want) {
			return nil
		}
	}
}

const (
	maxUploads  = 4
	longestWait = time.Minute // that a server may ask for before a file is sent again
)
