package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

type exportFlags struct {
	networkFlags
	output    string
	overwrite bool
}

func newRepoExport(e *env) *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export ACCOUNT",
		Short: "Save a repository as a CAR file",
		Long: "Downloads the repository of an account and verifies it while it comes: hashes, signature, tree. The file gets its name\n" +
			"only when all of it has been verified and is on the disk; until then it is called NAME.partial. A repository that\n" +
			"doesn't hold ends with exit code 3 and no file. Blobs are not in a repository.\n\n" +
			"With --output - the file goes to standard output as it comes; only the exit code then tells whether it is good.",
		Example: "  baro repo export alice.test\n" +
			"  baro repo export did:plc:ewvi7nxzyoun6zhxrhs64oiz --output backup.car --overwrite\n" +
			"  baro repo export alice.test --output - > alice.car",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.repoExport(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "file to write, - for standard output (default: the handle, or the DID, and .car)")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace a file that is there")
	f.add(fl, false)
	return cmd
}

func (e *env) repoExport(ctx context.Context, arg string, f exportFlags) (err error) {
	id, err := parseAccount(arg)
	if err != nil {
		return err
	}
	ns, err := e.networks(ctx, f.networkFlags)
	if err != nil {
		return err
	}
	a, err := ns.lookup(ctx, id)
	if err != nil {
		return err
	}
	src := &repoSource{e: e, f: f.networkFlags, name: arg, acc: a}
	if f.output == "-" {
		w := bufio.NewWriterSize(e.stdout, 256<<10)
		_, err := e.download(ctx, src, w)
		return errors.Join(err, w.Flush())
	}
	name := f.output
	if name == "" {
		name = strings.ReplaceAll(string(a.DID), ":", "-") + ".car"
		if a.Handle != syntax.InvalidHandle {
			name = string(a.Handle) + ".car"
		}
	}
	if _, err := os.Lstat(name); err == nil && !f.overwrite {
		return withHint(fmt.Errorf("%s is there already", name), "--overwrite replaces it, --output names another one")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := name + ".partial"
	h, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("writing the file: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	w := bufio.NewWriterSize(h, 256<<10)
	rep, err := e.download(ctx, src, w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = h.Sync()
	}
	if cerr := h.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	syncFolder(filepath.Dir(name))
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"file": name, "bytes": info.Size(), "did": rep.DID, "rev": rep.Rev, "commit": rep.Commit, "records": rep.Records})
	}
	_, err = fmt.Fprintln(e.stdout, name)
	fmt.Fprintf(e.stderr, "%s at revision %s: %d records, %s, verified\n", a.who(), rep.Rev, rep.Records, bytesOf(info.Size()))
	return err
}

// download copies a repository to w while it is verified.
func (e *env) download(ctx context.Context, src *repoSource, w io.Writer) (*repo.Report, error) {
	t := e.transfer("fetching "+src.name, 0)
	defer t.done()
	r, err := src.read(ctx, repoCheck{records: repo.RecordsReadable, now: true, tee: io.MultiWriter(w, t)})
	if r != nil {
		defer r.close()
	}
	if err != nil {
		return nil, err
	}
	if err := r.verifyAll(nil); err != nil {
		return nil, err
	}
	return r.Report(), nil
}

// syncFolder makes a rename last, where the system can.
func syncFolder(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}
