package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

func newRepo(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repo",
		Short: "Check, look into, save and load whole repositories",
		Long: "A repository is all the public records of an account, under one signed commit. These commands take it from a CAR file,\n" +
			"or from the network when they are given a handle or a DID. A file wins where a name could be both; - is a CAR file on\n" +
			"standard input.",
		Example: "  baro repo verify alice.test\n  baro repo export alice.test && baro repo inspect alice.test.car",
	}
	cmd.AddCommand(newRepoVerify(e), newRepoInspect(e), newRepoLs(e), newRepoMST(e), newRepoDiff(e),
		newRepoUnpack(e), newRepoExport(e), newRepoImport(e), newRepoOrder(e))
	return cmd
}

// repoSource is where a repository comes from.
type repoSource struct {
	e    *env
	f    networkFlags
	name string
	file *os.File // nil if it comes from the network
	temp bool     // the file is ours to remove
	acc  *account // nil if it comes from a file
}

// openSource finds out what an argument of a repo command means.
func (e *env) openSource(ctx context.Context, arg string, f networkFlags) (*repoSource, error) {
	if arg == "-" {
		return e.spoolStdin(ctx, f)
	}
	page := strings.HasPrefix(arg, "https://") || strings.HasPrefix(arg, "http://")
	h, err := os.Open(arg)
	if err == nil {
		info, err := h.Stat()
		if err == nil && info.Mode().IsRegular() {
			return &repoSource{e: e, f: f, name: arg, file: h}, nil
		}
		h.Close()
		if err == nil {
			err = fmt.Errorf("%s is no ordinary file", arg)
		}
		return nil, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening the repository: %w", err)
	}
	if strings.ContainsAny(arg, "/\\") && !strings.HasPrefix(arg, "at://") && !page || strings.HasSuffix(arg, ".car") {
		return nil, fmt.Errorf("opening the repository: %w", err)
	}
	u, uerr := readURI(arg)
	if uerr != nil || u.Collection() != "" {
		return nil, usagef("there is no file %q, and it is neither a handle nor a DID", arg)
	}
	ns, err := e.networks(ctx, f)
	if err != nil {
		return nil, err
	}
	a, err := ns.lookup(ctx, u.Authority())
	if errors.Is(err, context.Canceled) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("there is no file %q, and as an account: %w", arg, advise(err))
	}
	return &repoSource{e: e, f: f, name: arg, acc: a}, nil
}

func tempCAR() (*os.File, error) {
	tmp, err := os.CreateTemp("", "baro-*.car")
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", err)
	}
	return tmp, nil
}

// spoolStdin copies standard input to a temporary file: whose repository it is has to be known before it can be checked.
func (e *env) spoolStdin(ctx context.Context, f networkFlags) (*repoSource, error) {
	tmp, err := tempCAR()
	if err != nil {
		return nil, err
	}
	s := &repoSource{e: e, f: f, name: "standard input", file: tmp, temp: true}
	if _, err := io.Copy(tmp, contextReader{ctx, e.stdin}); err != nil {
		s.close()
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return s, nil
}

func (s *repoSource) close() {
	if s.file != nil {
		s.file.Close()
		if s.temp {
			os.Remove(s.file.Name())
		}
	}
}

// repoCheck says how a repository is to be read.
type repoCheck struct {
	key     *keys.PublicKey // nil: from the DID document
	did     syntax.DID      // whose a file has to be; may be empty
	offline bool            // leave the signature out
	records repo.RecordPolicy
	now     bool      // hold the revision against the clock
	tee     io.Writer // gets the file as it comes
}

// repository is a repository that is being read.
type repository struct {
	*repo.Reader
	total int64 // bytes of the file, ≤ 0 if not known
	from  string
	key   *keys.PublicKey // what the signature is checked with; nil if it isn't
	close func()
}

// read begins to read the repository. When its head is wrong the repository is returned along with the error, for its
// report.
func (s *repoSource) read(ctx context.Context, c repoCheck) (*repository, error) {
	o := repo.ReadOptions{Key: c.key, DID: c.did, Records: c.records, Legacy: true}
	if c.now {
		o.Now = s.e.world.Clock.Now()
	}
	if s.file == nil {
		if c.did != "" && c.did != s.acc.DID {
			return nil, notVerified(fmt.Errorf("%s is the account %s, not %s", s.name, s.acc.DID, c.did))
		}
		key := c.key
		if key == nil && !c.offline {
			if key = s.acc.SigningKey; key == nil {
				return nil, notVerified(fmt.Errorf("the DID document of %s has no signing key", s.acc.DID))
			}
		}
		r, err := s.acc.client(s.e).Repo(ctx, s.acc.DID, client.RepoOptions{Key: key, SkipSignature: key == nil, Now: o.Now, Records: c.records, Tee: c.tee})
		if r == nil {
			return nil, err
		}
		return &repository{Reader: r.Reader, total: r.Size, from: s.acc.pds, key: key, close: func() { r.Close() }}, err
	}
	out := &repository{from: s.name, close: func() {}}
	if info, err := s.file.Stat(); err == nil {
		out.total = info.Size()
	}
	if c.key == nil && !c.offline {
		// The file says whose it is, and the account's document has the key. A head that can't be read needs none.
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		if head, err := repo.Open(s.file, o); err == nil {
			if o.Key, err = s.keyOf(ctx, head.Commit()); err != nil {
				return nil, err
			}
		}
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var in io.Reader = s.file
	if c.tee != nil {
		in = io.TeeReader(in, c.tee)
	}
	r, err := repo.Open(contextReader{ctx, in}, o)
	out.Reader, out.key = r, o.Key
	return out, err
}

// offlineHint says what helps those who can't have a key.
const offlineHint = "--offline checks everything but the signature, --key DID-KEY checks it with a key that you know"

// keyOf finds the key of a commit's account.
func (s *repoSource) keyOf(ctx context.Context, c *repo.Commit) (*keys.PublicKey, error) {
	k, err := s.e.keyOf(ctx, c.DID, s.f, func(k *keys.PublicKey) bool { return c.Verify(k) == nil })
	if err == nil && k == nil {
		return nil, withHint(notVerified(fmt.Errorf("the DID document of %s has no signing key", c.DID)), offlineHint)
	}
	return k, err
}

// keyOf finds the key of an account, anew if the one at hand doesn't fit. It is nil if the account has none.
func (e *env) keyOf(ctx context.Context, did syntax.DID, f networkFlags, fits func(*keys.PublicKey) bool) (*keys.PublicKey, error) {
	ns, err := e.networks(ctx, f)
	if err != nil {
		return nil, err
	}
	a, err := ns.lookup(ctx, syntax.AtIdentifier(did))
	if err != nil {
		return nil, withHint(fmt.Errorf("looking for the key of %s: %w", did, err), offlineHint)
	}
	if a.SigningKey != nil && !fits(a.SigningKey) {
		if fresh, _, err := a.net.dir.Refresh(ctx, did); err == nil {
			return fresh.SigningKey, nil
		}
	}
	return a.SigningKey, nil
}

// contextReader stops when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// verifyAll reads a repository to its end, and gives each record to visit, which may be nil. The error is nil only if
// everything held.
func (r *repository) verifyAll(visit func(repo.Record) error) error {
	for rec, err := range r.Records() {
		if err != nil {
			return err
		}
		if visit != nil {
			if err := visit(rec); err != nil {
				return err
			}
		}
	}
	return r.failure()
}

// failure is what the report says, as an error.
func (r *repository) failure() error {
	f := r.Report().Failed()
	if f == nil {
		return nil
	}
	detail := ""
	if f.Detail != "" {
		detail = ": " + f.Detail
	}
	return notVerified(fmt.Errorf("%s: the check %s failed%s", r.from, f.Name, detail))
}

// parseKey reads the flag --key.
func parseKey(s string) (*keys.PublicKey, error) {
	if s == "" {
		return nil, nil
	}
	k, err := keys.ParseDIDKey(s)
	if err != nil {
		return nil, usagef("--key: %w: want a public key such as did:key:zQ3sh…", err)
	}
	return k, nil
}

// spool reads a repository from the network into a temporary file, verified on the way, so that it can be read again. A
// file is verified where it is.
func (s *repoSource) spool(ctx context.Context, c repoCheck) (*os.File, func(), error) {
	file, done := s.file, func() {}
	if file == nil {
		tmp, err := tempCAR()
		if err != nil {
			return nil, nil, err
		}
		done = func() {
			tmp.Close()
			os.Remove(tmp.Name())
		}
		file, c.tee = tmp, tmp
	}
	_, err := s.verifyWhole(ctx, c, nil)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return file, done, nil
}

// verifyWhole reads the repository to its end and checks it, and returns its commit. Visit, which may be nil, is given the records on
// the way: nothing is known of them before the end.
func (s *repoSource) verifyWhole(ctx context.Context, c repoCheck, visit func(repo.Record) error) (*repo.Commit, error) {
	r, err := s.read(ctx, c)
	if r != nil {
		defer r.close()
	}
	if err != nil {
		return nil, err
	}
	t := s.e.transfer("reading "+s.name, r.total)
	defer t.done()
	return r.Commit(), r.verifyAll(func(rec repo.Record) error {
		t.add(int64(len(rec.Data)))
		if visit == nil {
			return nil
		}
		return visit(rec)
	})
}

// splitPath parts a record path, whose syntax has been checked.
func splitPath(p []byte) (collection, rkey string) {
	c, k, _ := bytes.Cut(p, []byte("/"))
	return string(c), string(k)
}
