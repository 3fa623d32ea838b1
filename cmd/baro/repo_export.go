package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

type exportFlags struct {
	networkFlags
	output    string
	since     string
	overwrite bool
	verify    bool
}

func newRepoExport(e *env) *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export ACCOUNT",
		Short: "Save a repository as a CAR file",
		Long: "Downloads the repository of an account and verifies it while it comes: hashes, signature, tree. The file gets its name\n" +
			"only when all of it has been verified and is on the disk; until then it is called NAME.partial. A repository that\n" +
			"doesn't hold ends with exit code 3 and no file. Blobs are not in a repository: 'baro blob export' saves those.\n\n" +
			"A download that is cut off goes on where it was, up to three times, and NAME.partial stays when that doesn't help or the\n" +
			"command was ended: the same command goes on from it another day, even if the repository has changed. What is right in\n" +
			"that file is kept, and only the blocks that are missing are fetched. Since servers give single blocks more slowly than\n" +
			"whole repositories, all is fetched anew if more than about half is missing, and also from a server that gives no single\n" +
			"blocks. What goes on needs room for the file twice, for a moment.\n\n" +
			"With --since FILE.car, an export of earlier, only what is new since then is fetched and put together with the old file;\n" +
			"the result is verified as if it had come whole. With --since REVISION what is new is saved as it is: a part of a\n" +
			"repository, of which only the signature and the hashes can be checked.\n\n" +
			"With --output - the file goes to standard output as it comes; only the exit code then tells whether it is good.",
		Example: "  baro repo export alice.test\n" +
			"  baro repo export alice.test --since alice.test.car\n" +
			"  baro repo export did:plc:ewvi7nxzyoun6zhxrhs64oiz --output backup.car --overwrite\n" +
			"  baro repo export alice.test --output - > alice.car",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.repoExport(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "file to write, - for standard output (default: the handle, or the DID, and .car)")
	fl.StringVar(&f.since, "since", "", "fetch only what is newer than this: a CAR file of the account, or a revision")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace a file that is there")
	fl.BoolVar(&f.verify, "verify", true, "check everything; with --verify=false the server's word is taken")
	f.add(fl, false)
	return cmd
}

// exported is what is known of a repository that was saved.
type exported struct {
	did      syntax.DID
	rev      syntax.TID
	commit   cid.CID
	records  int    // -1 if nobody has counted them
	verified string // how, for people
}

func (e *env) repoExport(ctx context.Context, arg string, f exportFlags) error {
	id, err := parseAccount(arg)
	if err != nil {
		return err
	}
	a, err := e.lookup(ctx, id, f.networkFlags)
	if err != nil {
		return err
	}
	src := &repoSource{e: e, f: f.networkFlags, name: arg, acc: a}
	rev, err := syntax.ParseTID(f.since)
	part := err == nil
	if !part {
		rev = ""
	}
	if !part && f.since != "" && !f.verify {
		return usagef("what is put together with %s is always verified: leave --verify=false out", f.since)
	}
	if f.output == "-" {
		if f.since != "" && !part {
			return usagef("--since %s needs a file to write to", f.since)
		}
		w := bufio.NewWriterSize(e.stdout, 256<<10)
		if part || !f.verify {
			_, err = e.fetchPart(ctx, a, rev, f.verify, w, nil)
		} else {
			_, err = e.fetchWhole(ctx, src, w, nil)
		}
		return errors.Join(err, w.Flush())
	}
	name := f.output
	if name == "" {
		name = a.fileName() + ".car"
	}
	to, out, err := e.exportTo(ctx, src, name, rev, f)
	if to != nil {
		defer to.drop()
	}
	if err != nil {
		return err
	}
	info, err := to.Stat()
	if err == nil {
		err = to.keep()
	}
	if err != nil {
		return err
	}
	line := map[string]any{"file": name, "bytes": info.Size(), "did": out.did, "rev": out.rev, "commit": out.commit, "verified": f.verify}
	records := ""
	if out.records >= 0 {
		line["records"], records = out.records, count(out.records, "record", "records")+", "
	}
	if e.json {
		return e.printJSON(line)
	}
	_, err = fmt.Fprintln(e.stdout, name)
	fmt.Fprintf(e.stderr, "%s at revision %s: %s%s, %s\n", a.who(), out.rev, records, bytesOf(info.Size()), out.verified)
	return err
}

// exportTo writes the file that is wanted. It may be returned along with an error.
func (e *env) exportTo(ctx context.Context, src *repoSource, name string, rev syntax.TID, f exportFlags) (*newFile, *exported, error) {
	overwrite := f.overwrite || sameFile(name, f.since)
	if f.since == "" && f.verify {
		return e.download(ctx, src, name, overwrite)
	}
	to, err := createFile(name, overwrite)
	if err != nil {
		return nil, nil, err
	}
	if f.since != "" && rev == "" {
		out, err := e.fetchNew(ctx, src, f.since, to)
		return to, out, err
	}
	w := bufio.NewWriterSize(to, 256<<10)
	out, err := e.fetchPart(ctx, src.acc, rev, f.verify, w, func() error {
		w.Reset(to)
		return to.empty()
	})
	return to, out, errors.Join(err, w.Flush())
}

// fileName is what files about an account are called.
func (a *account) fileName() string {
	if a.Handle != "" && a.Handle != syntax.InvalidHandle {
		return string(a.Handle)
	}
	return strings.ReplaceAll(string(a.DID), ":", "-")
}

// A download that is cut off is tried again. Servers give no repository from the middle: see download for what can be had instead.
const maxDownloads = 4

// downloadPause is how long the first wait for another try is; each is twice the one before.
var downloadPause = time.Second

// again makes a download until it isn't cut off, as long as something came and restart, which may be nil, takes back what was written.
func (e *env) again(ctx context.Context, w io.Writer, restart func() error, try func(w io.Writer) error) error {
	pause := downloadPause
	for n := 1; ; n++ {
		c := &counter{w: w, t: &transfer{}}
		err := try(c)
		if err == nil || n == maxDownloads || restart == nil || c.n == 0 || !cutOff(err) || ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(e.stderr, "the download was cut off after %s, and is begun again: %s\n", bytesOf(c.n), inert(err.Error()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.world.Clock.After(pause):
		}
		pause *= 2
		if err := restart(); err != nil {
			return err
		}
	}
}

// cutOff says whether an error is one of the connection, and none of what came over it.
func cutOff(err error) bool {
	if _, ok := errors.AsType[*repo.VerifyError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return false
	}
	_, sent := errors.AsType[*xrpc.TransportError](err)
	_, broken := errors.AsType[net.Error](err)
	return sent || broken || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, client.ErrStalled)
}

// fetchWhole copies a repository to w while it is verified.
func (e *env) fetchWhole(ctx context.Context, src *repoSource, w io.Writer, restart func() error) (*exported, error) {
	var out *exported
	err := e.again(ctx, w, restart, func(w io.Writer) (err error) {
		out, err = e.fetchOnce(ctx, src, w)
		return err
	})
	return out, err
}

// fetchOnce is a single try of fetchWhole.
func (e *env) fetchOnce(ctx context.Context, src *repoSource, w io.Writer) (*exported, error) {
	t := e.transfer("fetching "+src.name, 0)
	defer t.done()
	r, err := src.read(ctx, repoCheck{records: repo.RecordsReadable, now: true, tee: io.MultiWriter(w, t)})
	if r != nil {
		defer r.close()
	}
	if err == nil {
		err = r.verifyAll(nil)
	}
	if err != nil {
		return nil, err
	}
	rep := r.Report()
	return &exported{rep.DID, rep.Rev, rep.Commit, rep.Records, "verified"}, nil
}

// fetchPart copies what a server gives of a repository to w: all if since is empty, else what is newer. Unless it is to be verified nothing
// about it needs to be right; the commit's signature and the hashes of blocks are all that can be wrong of a part.
func (e *env) fetchPart(ctx context.Context, a *account, since syntax.TID, verify bool, w io.Writer, restart func() error) (*exported, error) {
	out := &exported{did: a.DID, records: -1}
	err := e.again(ctx, w, restart, func(w io.Writer) error {
		s, err := a.client(e).RepoCAR(ctx, a.DID, since)
		if err != nil {
			return err
		}
		defer s.Body.Close()
		t := e.transfer("fetching "+a.who(), s.Length)
		defer t.done()
		in := io.TeeReader(s.Body, io.MultiWriter(w, t))
		err = out.readPart(in, a, verify)
		if err != nil && !verify && !cutOff(err) && ctx.Err() == nil {
			_, err = io.Copy(io.Discard, in)
		}
		return err
	})
	return out, err
}

// readPart reads the blocks of a part of a repository.
func (x *exported) readPart(in io.Reader, a *account, verify bool) error {
	r, err := car.NewReader(in, car.Options{Unverified: !verify})
	if err != nil {
		return notCAR(a.pds, err)
	}
	x.commit, x.verified = r.Root(), "NOT verified"
	var top *repo.Commit
	blocks := 0
	for {
		c, b, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return notCAR(a.pds, err)
		}
		blocks++
		if c == x.commit && top == nil {
			if top, err = repo.DecodeLegacyCommit(b); err != nil {
				return err
			}
			x.rev = top.Rev
		}
	}
	if !verify {
		return nil
	}
	switch {
	case top == nil:
		return notVerified(fmt.Errorf("%s sent no commit", a.pds))
	case top.DID != a.DID:
		return notVerified(fmt.Errorf("%s sent a commit of %s", a.pds, top.DID))
	case a.SigningKey == nil:
		return notVerified(fmt.Errorf("the DID document of %s has no signing key", a.DID))
	}
	x.verified = fmt.Sprintf("a part of %s, whose signature and hashes are right", count(blocks, "block", "blocks"))
	return top.Verify(a.SigningKey)
}

// fetchNew puts what is new since a file was made together with that file, and verifies the whole.
func (e *env) fetchNew(ctx context.Context, src *repoSource, base string, to *newFile) (*exported, error) {
	old, err := os.Open(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("--since %q is neither a file nor a revision", base)
	} else if err != nil {
		return nil, fmt.Errorf("opening the old file: %w", err)
	}
	defer old.Close()
	was, err := partial.Index(ctx, old, base, nil)
	if err != nil {
		return nil, err
	}
	c, _, err := partial.Commit(base, was.Root(), was)
	if err != nil {
		return nil, err
	}
	if c.DID != src.acc.DID {
		return nil, fmt.Errorf("%s is the repository of %s, not of %s", base, c.DID, src.acc.DID)
	}
	tmp, err := tempCAR()
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	part, err := e.fetchPart(ctx, src.acc, c.Rev, true, tmp, func() error {
		_, err := tmp.Seek(0, io.SeekStart)
		return errors.Join(err, tmp.Truncate(0))
	})
	if err != nil {
		return nil, err
	}
	if part.rev < c.Rev {
		return nil, notVerified(fmt.Errorf("%s sent revision %s, which is older than that of %s", src.acc.pds, part.rev, base))
	}
	isNew, err := partial.Index(ctx, tmp, "what is new", nil)
	if err != nil {
		return nil, err
	}
	now, block, err := partial.Commit("what is new", isNew.Root(), isNew)
	if err != nil {
		return nil, err
	}
	out, err := e.assemble(ctx, src, to, now, block, isNew, was)
	if errors.Is(err, mst.ErrNotFound) {
		fmt.Fprintf(e.stderr, "%s has left out what %s doesn't have (%s): all of it is fetched\n", src.acc.pds, base, inert(err.Error()))
		if err := to.empty(); err != nil {
			return nil, err
		}
		return e.fetchWhole(ctx, src, to, to.empty)
	}
	if err != nil {
		return nil, err
	}
	fetched, err := tmp.Stat()
	if err != nil {
		return nil, err
	}
	out.verified += fmt.Sprintf(", %s of it new", bytesOf(fetched.Size()))
	return out, nil
}

// assemble writes a repository whose blocks are in several files, and verifies what it has written. The error is [mst.ErrNotFound] if a
// block is missing.
func (e *env) assemble(ctx context.Context, src *repoSource, to *newFile, c *repo.Commit, block []byte, from ...partial.Source) (*exported, error) {
	w := bufio.NewWriterSize(to, 256<<10)
	_, err := partial.WriteInOrder(ctx, w, c, block, from...)
	if err = errors.Join(err, w.Flush()); err != nil {
		return nil, err
	}
	if _, err := to.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r, err := repo.Open(contextReader{ctx, to}, repo.ReadOptions{Key: src.acc.SigningKey, DID: src.acc.DID, Now: e.world.Clock.Now(), Records: repo.RecordsReadable, Legacy: true})
	if err != nil {
		return nil, err
	}
	whole := &repository{Reader: r, from: to.name}
	if err := whole.verifyAll(nil); err != nil {
		return nil, err
	}
	rep := r.Report()
	return &exported{rep.DID, rep.Rev, rep.Commit, rep.Records, "verified"}, nil
}

// syncFolder makes a rename last, where the system can.
func syncFolder(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}
