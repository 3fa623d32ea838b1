package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

func newBlob(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "blob",
		Short: "List, save, upload and hash the files of records",
		Long: "Blobs are pictures, films and other files that records refer to by the hash of their bytes. The PDS of an account keeps\n" +
			"them beside its repository, so that a whole backup is 'baro repo export' and 'baro blob export'.",
		Example: "  baro blob ls alice.test\n  baro blob export alice.test\n  baro blob upload picture.jpg",
	}
	cmd.AddCommand(newBlobLs(e), newBlobDownload(e), newBlobExport(e), newBlobUpload(e), newBlobCompute(e))
	return cmd
}

// blobSource finds the account whose blobs an argument means.
func (e *env) blobSource(ctx context.Context, arg string, f networkFlags) (*account, error) {
	id, err := parseAccount(arg)
	if err != nil {
		return nil, err
	}
	return e.lookup(ctx, id, f)
}

// eachBlob lists the blobs of an account.
func (e *env) eachBlob(ctx context.Context, a *account, visit func(cid.CID) error) error {
	p := comatproto.SyncListBlobs_Params{Did: string(a.DID)}
	for page, err := range comatproto.SyncListBlobs.Pages(ctx, a.client(e).XRPC(), p) {
		if err != nil {
			return err
		}
		for _, s := range page.Cids {
			id, err := cid.Parse(s)
			if err != nil {
				return fmt.Errorf("the server lists a blob %q: %w", s, err)
			}
			if err := visit(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func newBlobLs(e *env) *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:     "ls ACCOUNT",
		Aliases: []string{"list"},
		Short:   "List the blobs of an account",
		Long:    "Lists the CIDs of all blobs that records of the account refer to, as far as its PDS has them.",
		Example: "  baro blob ls alice.test",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.blobSource(cmd.Context(), args[0], f)
			if err != nil {
				return advise(err)
			}
			return advise(e.eachBlob(cmd.Context(), a, func(id cid.CID) error {
				if e.json {
					return e.printJSON(map[string]any{"cid": id})
				}
				_, err := fmt.Fprintln(e.stdout, id)
				return err
			}))
		},
	}
	f.add(cmd.Flags(), false)
	return cmd
}

func newBlobDownload(e *env) *cobra.Command {
	var f networkFlags
	var output string
	var verify bool
	cmd := &cobra.Command{
		Use:   "download ACCOUNT CID",
		Short: "Save one blob",
		Long: "Fetches a blob and writes it to a file named by its CID, or to --output; - is standard output. The bytes are held\n" +
			"against the CID: others than it says end with the exit code 3 and leave no file.\n\n" +
			"With --verify the account's repository is fetched and checked first, and has to hold a record that refers to the blob.",
		Example: "  baro blob download alice.test bafkreih… --output picture.jpg\n  baro blob download alice.test bafkreih… --verify",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			id, err := cid.Parse(args[1])
			if err != nil {
				return usagef("%q is not a CID: %w", args[1], err)
			}
			a, err := e.blobSource(ctx, args[0], f)
			if err == nil && verify {
				err = e.findBlob(ctx, a, id, f)
			}
			if err != nil {
				return advise(err)
			}
			if output == "-" {
				t := e.transfer("fetching "+id.String(), 0)
				defer t.done()
				w := bufio.NewWriter(e.stdout)
				_, err := e.copyBlob(ctx, a, id, w, t)
				return advise(errors.Join(err, w.Flush()))
			}
			name := output
			if name == "" {
				name = id.String()
			}
			t := e.transfer("fetching "+id.String(), 0)
			n, err := e.saveBlob(ctx, a, id, name, t)
			t.done()
			if err != nil {
				return advise(err)
			}
			return e.savedBlob(id, name, n)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write, - for standard output (default: the CID)")
	cmd.Flags().BoolVar(&verify, "verify", false, "have the account's signed repository say that the blob is its")
	f.add(cmd.Flags(), false)
	return cmd
}

func (e *env) savedBlob(id cid.CID, name string, n int64) error {
	if e.json {
		return e.printJSON(map[string]any{"cid": id, "file": name, "bytes": n})
	}
	_, err := fmt.Fprintf(e.stdout, "%s  %s\n", name, bytesOf(n))
	return err
}

// findBlob looks in an account's verified repository for a record that refers to a blob.
func (e *env) findBlob(ctx context.Context, a *account, id cid.CID, f networkFlags) error {
	src := &repoSource{e: e, f: f, name: a.who(), acc: a}
	var at syntax.ATURI
	c, err := src.verifyWhole(ctx, repoCheck{records: repo.RecordsReadable, now: true}, func(rec repo.Record) error {
		for b, err := range data.Blobs(rec.Data) {
			if err != nil {
				break // a record that can't be read refers to nothing
			}
			if b.Ref == id && at == "" {
				at = syntax.ATURI("at://" + string(a.DID) + "/" + string(rec.Path))
			}
		}
		return nil
	})
	if err == nil && at == "" {
		err = notVerified(fmt.Errorf("no record of %s refers to %s", a.who(), id))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "%s refers to it, at revision %s\n", at, c.Rev)
	return nil
}

// copyBlob writes a blob to w. Only when it returns no error are the bytes known to be right.
func (e *env) copyBlob(ctx context.Context, a *account, id cid.CID, w io.Writer, t *transfer) (int64, error) {
	b, err := a.client(e).Blob(ctx, a.DID, id, 0)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	return io.Copy(io.MultiWriter(w, t), b)
}

// saveBlob writes a blob to a file, which is there only when its hash was right.
func (e *env) saveBlob(ctx context.Context, a *account, id cid.CID, name string, t *transfer) (int64, error) {
	to, err := createFile(name, true)
	if err != nil {
		return 0, err
	}
	defer to.drop()
	n, err := e.copyBlob(ctx, a, id, to, t)
	if err != nil {
		return n, err
	}
	return n, to.keep()
}

type blobExportFlags struct {
	networkFlags
	output string
	jobs   int
}

func newBlobExport(e *env) *cobra.Command {
	var f blobExportFlags
	cmd := &cobra.Command{
		Use:   "export ACCOUNT",
		Short: "Save all blobs of an account",
		Long: "Saves every blob in a folder, each in a file named by its CID, several at a time. Files that are there already are read,\n" +
			"and fetched again only if they aren't what their name says: what was broken off goes on where it ended. A blob that\n" +
			"can't be had is named on standard error, and the exit code is then 1.",
		Example: "  baro blob export alice.test\n  baro blob export alice.test --output backup/blobs --jobs 8",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.blobExport(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "folder to write to (default: the handle, or the DID, and -blobs)")
	fl.IntVar(&f.jobs, "jobs", 4, "blobs to fetch at a time, 1 to 64")
	f.add(fl, false)
	return cmd
}

func (e *env) blobExport(ctx context.Context, arg string, f blobExportFlags) error {
	if f.jobs < 1 || f.jobs > 64 {
		return usagef("--jobs %d: want 1 to 64", f.jobs)
	}
	a, err := e.blobSource(ctx, arg, f.networkFlags)
	if err != nil {
		return err
	}
	dir := f.output
	if dir == "" {
		dir = a.fileName() + "-blobs"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	t := e.transfer("fetching the blobs of "+a.who(), 0)
	defer t.done()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ids := make(chan cid.CID)
	var mu sync.Mutex // over what follows, and the output
	fetched, there, wrong, failed := 0, 0, 0, 0
	one := func(id cid.CID) error {
		name := filepath.Join(dir, id.String())
		same, err := fileHas(name, id)
		var n int64
		if err == nil && !same {
			n, err = e.saveBlob(ctx, a, id, name, t)
		}
		mu.Lock()
		defer mu.Unlock()
		_, disk := errors.AsType[*fs.PathError](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case disk: // of which the next one will say the same
			return err
		case err != nil:
			failed++
			if _, ok := errors.AsType[*client.HashError](err); ok {
				wrong++
			}
			fmt.Fprintf(e.stderr, "baro: %s: %s\n", id, inert(err.Error()))
			return nil
		case same:
			there++
			return nil
		}
		fetched++
		return e.savedBlob(id, name, n)
	}
	var workers sync.WaitGroup
	for range f.jobs {
		workers.Go(func() {
			for id := range ids {
				if err := one(id); err != nil {
					stop(err)
				}
			}
		})
	}
	err = e.eachBlob(ctx, a, func(id cid.CID) error {
		select {
		case ids <- id:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(ids)
	workers.Wait()
	t.done()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	fmt.Fprintf(e.stderr, "%s: %s fetched, %d were there\n", a.who(), count(fetched, "blob", "blobs"), there)
	if err != nil {
		return err
	}
	if failed > 0 {
		err = withHint(fmt.Errorf("%s could not be had", count(failed, "blob", "blobs")), "run the command again to try once more")
		if wrong > 0 {
			err = notVerified(fmt.Errorf("%w; of %d the server sent other bytes than their CIDs say", err, wrong))
		}
	}
	return err
}

// fileHas reports whether a file is there and holds what a CID says.
func fileHas(name string, id cid.CID) (bool, error) {
	got, _, _, err := hashFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return got == id, err
}

// hashFile returns the CID, MIME type and size of a file as a blob.
func hashFile(name string) (id cid.CID, typ string, size int64, err error) {
	file, err := os.Open(name)
	if err != nil {
		return id, "", 0, err
	}
	defer file.Close()
	r := bufio.NewReader(file)
	head, err := r.Peek(512)
	if err != nil && err != io.EOF {
		return id, "", 0, fmt.Errorf("reading %s: %w", name, err)
	}
	typ, _, _ = strings.Cut(http.DetectContentType(head), ";") // servers leave the character set out
	h := sha256.New()
	if size, err = io.Copy(h, r); err != nil {
		return id, "", 0, fmt.Errorf("reading %s: %w", name, err)
	}
	return cid.FromDigest(cid.Raw, [32]byte(h.Sum(nil))), typ, size, nil
}

func (e *env) printBlob(b *data.Blob) error {
	text, err := b.MarshalJSON()
	if err != nil {
		return err
	}
	return e.printDocument(text)
}

func newBlobCompute(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "compute FILE",
		Short:   "Print the blob object of a file, without uploading it",
		Long:    "Hashes a file on this machine, and prints the JSON with which a record refers to it: CID, MIME type and size.",
		Example: "  baro blob compute picture.jpg",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			id, typ, size, err := hashFile(args[0])
			if err != nil {
				return err
			}
			return e.printBlob(&data.Blob{Ref: id, MimeType: typ, Size: size})
		},
	}
}

func newBlobUpload(e *env) *cobra.Command {
	var f accountFlags
	var missing string
	cmd := &cobra.Command{
		Use:   "upload FILE",
		Short: "Upload a file and print its blob object",
		Long: "Uploads a file to the PDS of the account that you are logged in to, which keeps it for some hours until a record refers\n" +
			"to it. What the server answers is held against the hash of the file.\n\n" +
			"With --missing DIR, a folder that 'baro blob export' has made, all blobs are uploaded that records of the account refer\n" +
			"to and the server doesn't have, as after an import or a move. What was broken off goes on where it ended.",
		Example: "  baro blob upload picture.jpg\n  baro blob upload --missing alice.test-blobs",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if (missing == "") == (len(args) == 0) {
				return usagef("want a FILE, or --missing DIR")
			}
			if missing != "" {
				return e.asAccount(ctx, f, func(_ *sessions, a *auth.Account) error { return e.uploadMissing(ctx, a, missing) })
			}
			file, id, typ, size, err := openBlob(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			return e.asAccount(ctx, f, func(_ *sessions, a *auth.Account) error {
				b, err := e.uploadFile(ctx, a, file, id, typ, size)
				if err != nil {
					return err
				}
				return e.printBlob(b)
			})
		},
	}
	cmd.Flags().StringVar(&missing, "missing", "", "upload from this folder what the server doesn't have, by the CID in the name")
	f.add(cmd.Flags())
	return cmd
}

// openBlob opens a file that is to be uploaded, and hashes it.
func openBlob(name string) (file *os.File, id cid.CID, typ string, size int64, err error) {
	if id, typ, size, err = hashFile(name); err != nil {
		return nil, id, "", 0, err
	}
	if size == 0 {
		return nil, id, "", 0, fmt.Errorf("%s is empty, and a blob has at least one byte", name)
	}
	file, err = os.Open(name)
	return file, id, typ, size, err
}

// uploadFile sends a file as it is read, and sees that it is still the one that was hashed.
func (e *env) uploadFile(ctx context.Context, a *auth.Account, file *os.File, id cid.CID, typ string, size int64) (*data.Blob, error) {
	t := e.transfer("sending "+file.Name(), size)
	defer t.done()
	b, err := e.clientOf(a).UploadBlob(ctx, countingReader{file, t}, typ, size)
	if err == nil && b.Ref != id {
		err = fmt.Errorf("%s was changed while it was sent: try again", file.Name())
	}
	return b, err
}

// uploadMissing uploads the blobs that the account's records refer to and its server doesn't have.
func (e *env) uploadMissing(ctx context.Context, a *auth.Account, dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return usagef("%q is no folder", dir)
	}
	sent, lacking := 0, 0
	done := map[cid.CID]bool{}
	for b, err := range e.clientOf(a).MissingBlobs(ctx) {
		if err != nil {
			return err
		}
		if done[b.CID] {
			continue
		}
		done[b.CID] = true
		file, id, typ, size, err := openBlob(filepath.Join(dir, b.CID.String()))
		if err == nil && id != b.CID {
			err = fmt.Errorf("the file holds something else: %s", id)
			file.Close()
		}
		if err != nil {
			lacking++
			fmt.Fprintf(e.stderr, "baro: %s of %s: %s\n", b.CID, inert(string(b.Record)), inert(err.Error()))
			continue
		}
		_, err = e.uploadFile(ctx, a, file, id, typ, size)
		file.Close()
		if err != nil {
			return err
		}
		sent++
		if err := e.savedBlob(id, file.Name(), size); err != nil {
			return err
		}
	}
	fmt.Fprintf(e.stderr, "%s: %s sent\n", a.Session().Handle, count(sent, "blob", "blobs"))
	if lacking > 0 {
		return withHint(fmt.Errorf("%s the server lacks could not be sent", count(lacking, "blob that", "blobs that")), "'baro blob export' fetches them from the old server, with --pds")
	}
	return nil
}
