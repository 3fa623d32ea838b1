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

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

func newBlob(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "blob",
		Short:   "List, save, upload and hash the files of records",
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
	ns, err := e.networks(ctx, f)
	if err != nil {
		return nil, err
	}
	return ns.lookup(ctx, id)
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
	cmd := &cobra.Command{
		Use:   "download ACCOUNT CID",
		Short: "Save one blob",
		Long: "Fetches a blob and writes it to a file named by its CID, or to --output; - is standard output. The bytes are held\n" +
			"against the CID: others than it says end with the exit code 3 and leave no file.",
		Example: "  baro blob download alice.test bafkreih… --output picture.jpg",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			id, err := cid.Parse(args[1])
			if err != nil {
				return usagef("%q is not a CID: %w", args[1], err)
			}
			a, err := e.blobSource(ctx, args[0], f)
			if err != nil {
				return advise(err)
			}
			if output == "-" {
				w := bufio.NewWriter(e.stdout)
				_, err := e.copyBlob(ctx, a, id, w)
				return advise(errors.Join(err, w.Flush()))
			}
			name := output
			if name == "" {
				name = id.String()
			}
			n, err := e.saveBlob(ctx, a, id, name)
			if err != nil {
				return advise(err)
			}
			return e.savedBlob(id, name, n)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write, - for standard output (default: the CID)")
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

// copyBlob writes a blob to w. Only when it returns no error are the bytes known to be right.
func (e *env) copyBlob(ctx context.Context, a *account, id cid.CID, w io.Writer) (int64, error) {
	b, err := a.client(e).Blob(ctx, a.DID, id, 0)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	t := e.transfer("fetching "+id.String(), b.Size)
	defer t.done()
	return io.Copy(io.MultiWriter(w, t), b)
}

// saveBlob writes a blob to a file, which is there only when its hash was right.
func (e *env) saveBlob(ctx context.Context, a *account, id cid.CID, name string) (n int64, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".blob-*.partial")
	if err != nil {
		return 0, fmt.Errorf("writing the blob: %w", err)
	}
	defer func() {
		if err != nil {
			tmp.Close() // the error is known already
			os.Remove(tmp.Name())
		}
	}()
	if n, err = e.copyBlob(ctx, a, id, tmp); err != nil {
		return n, err
	}
	if err = errors.Join(tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return n, err
	}
	return n, os.Rename(tmp.Name(), name)
}

func newBlobExport(e *env) *cobra.Command {
	var f networkFlags
	var output string
	cmd := &cobra.Command{
		Use:   "export ACCOUNT",
		Short: "Save all blobs of an account",
		Long: "Saves every blob in a folder, each in a file named by its CID. Files that are there already are read, and fetched again\n" +
			"only if they aren't what their name says: what was broken off goes on where it ended. A blob that can't be had is\n" +
			"named on standard error, and the exit code is then 1.",
		Example: "  baro blob export alice.test\n  baro blob export alice.test --output backup/blobs",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.blobExport(cmd.Context(), args[0], output, f))
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "folder to write to (default: the handle, or the DID, and -blobs)")
	f.add(cmd.Flags(), false)
	return cmd
}

func (e *env) blobExport(ctx context.Context, arg, dir string, f networkFlags) error {
	a, err := e.blobSource(ctx, arg, f)
	if err != nil {
		return err
	}
	if dir == "" {
		dir = strings.ReplaceAll(string(a.DID), ":", "-") + "-blobs"
		if a.Handle != syntax.InvalidHandle {
			dir = string(a.Handle) + "-blobs"
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	fetched, there, failed := 0, 0, 0
	err = e.eachBlob(ctx, a, func(id cid.CID) error {
		name := filepath.Join(dir, id.String())
		same, err := fileHas(name, id)
		if err != nil {
			return err
		}
		if same {
			there++
			return nil
		}
		n, err := e.saveBlob(ctx, a, id, name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			fmt.Fprintf(e.stderr, "baro: %s: %s\n", id, inert(err.Error()))
			return nil
		}
		fetched++
		return e.savedBlob(id, name, n)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "%s: %d blobs fetched, %d were there\n", a.who(), fetched, there)
	if failed > 0 {
		return withHint(fmt.Errorf("%d blobs could not be had", failed), "run the command again to try them once more")
	}
	return nil
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
	cmd := &cobra.Command{
		Use:   "upload FILE",
		Short: "Upload a file and print its blob object",
		Long: "Uploads a file to the PDS of the account that you are logged in to, which keeps it for some hours until a record refers\n" +
			"to it. What the server answers is held against the hash of the file.",
		Example: "  baro blob upload picture.jpg",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			_, typ, size, err := hashFile(args[0])
			if err != nil {
				return err
			}
			if size == 0 {
				return fmt.Errorf("%s is empty, and a blob has at least one byte", args[0])
			}
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			return e.asAccount(ctx, f, func(_ *sessions, a *auth.Account) error {
				t := e.transfer("sending "+args[0], size)
				b, err := e.clientOf(a).UploadBlob(ctx, countingReader{file, t}, typ, size)
				t.done()
				if err != nil {
					return err
				}
				return e.printBlob(b)
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}
