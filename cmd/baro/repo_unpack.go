package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/repo"
)

type unpackFlags struct {
	networkFlags
	output    string
	overwrite bool
	lenient   bool
	key       string
	offline   bool
}

func newRepoUnpack(e *env) *cobra.Command {
	var f unpackFlags
	cmd := &cobra.Command{
		Use:   "unpack FILE|ACCOUNT [DIR]",
		Short: "Write the records of a repository as files of JSON",
		Long: "Writes each record to DIR/COLLECTION/RECORD-KEY.json, and what the commit says to DIR/repo.json; without DIR, in\n" +
			"a folder named after the account. Nothing is written\n" +
			"unless the whole repository has passed its checks; the signature of a file is checked if --key is given.\n\n" +
			"Names that a file system would trip over are escaped with percent signs: upper case where two names differ in nothing\n" +
			"else, colons, leading dots, names of devices on Windows. Very long ones are cut and end in a hash. Nothing is ever\n" +
			"written outside DIR, no symbolic link is followed, and no file is replaced without --overwrite.",
		Example: "  baro repo unpack backup.car alice\n  baro repo unpack alice.test alice --overwrite",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				if f.output != "" && f.output != args[1] {
					return usagef("two folders are given, %s and %s", args[1], f.output)
				}
				f.output = args[1]
			}
			return advise(e.repoUnpack(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.output, "output", "o", "", "folder to write to, in place of the second argument")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace files that are there")
	fl.BoolVar(&f.lenient, "lenient", false, "accept records that are outside the data model, and write those as CBOR")
	fl.StringVar(&f.key, "key", "", "the account's signing key, a did:key")
	f.add(fl, false)
	return cmd
}

func (e *env) repoUnpack(ctx context.Context, arg string, f unpackFlags) error {
	key, err := parseKey(f.key)
	if err != nil {
		return err
	}
	src, err := e.openSource(ctx, arg, f.networkFlags)
	if err != nil {
		return err
	}
	defer src.close()
	check := repoCheck{key: key, offline: src.file != nil, records: repo.RecordsStrict}
	if f.lenient {
		check.records = repo.RecordsReadable
	}
	file, done, err := src.spool(ctx, check)
	if err != nil {
		if _, ok := errors.AsType[*repo.VerifyError](err); ok {
			err = notVerified(err)
		}
		return fmt.Errorf("nothing was written: %w", err)
	}
	defer done()

	r, err := repo.Open(contextReader{ctx, file}, repo.ReadOptions{Records: check.records, Legacy: true})
	if err != nil {
		return err
	}
	dir := cmp.Or(f.output, strings.ReplaceAll(string(r.Commit().DID), ":", "-"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the folder: %w", err)
	}
	defer root.Close()
	u := &unpacker{root: root, overwrite: f.overwrite, taken: map[string]bool{}, folders: map[string]bool{}}
	n, cbor := 0, 0
	for rec, err := range r.Records() {
		if err != nil {
			return err
		}
		asCBOR, err := u.write(rec)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		if n++; asCBOR {
			cbor++
		}
	}
	if err := u.writeCommit(r); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"did": r.Commit().DID, "rev": r.Commit().Rev, "records": n, "cbor": cbor, "dir": dir})
	}
	fmt.Fprintf(e.stderr, "wrote %d records of %s to %s\n", n, r.Commit().DID, inert(dir))
	if cbor > 0 {
		fmt.Fprintf(e.stderr, "%d of them are outside the data model and were written as CBOR\n", cbor)
	}
	return nil
}

// unpacker writes records below a folder that nothing gets out of.
type unpacker struct {
	root      *os.Root
	overwrite bool

	collection string          // the one whose records come now
	folder     string          // its folder
	folders    map[string]bool // names of folders, in lower case
	taken      map[string]bool // names of files in folder, in lower case
}

// safeName makes a name that all file systems take, and that differs from every other in more than case. Names are made of
// letters, digits and ".-_~:" (https://atproto.com/specs/record-key), so that a percent sign can mark what was changed.
func safeName(s string, taken map[string]bool) string {
	escape := func(must func(i int, c byte) bool) string {
		var b strings.Builder
		for i := range len(s) {
			if c := s[i]; must(i, c) {
				fmt.Fprintf(&b, "%%%02X", c)
			} else {
				b.WriteByte(c)
			}
		}
		return b.String()
	}
	device := isDevice(s)
	bad := func(i int, c byte) bool {
		if i == 0 && (device || c == '.' || c == '-') {
			return true
		}
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~'
		return !plain || c == '.' && i == len(s)-1
	}
	name := escape(bad)
	if taken[strings.ToLower(name)] {
		name = escape(func(i int, c byte) bool { return bad(i, c) || c >= 'A' && c <= 'Z' })
	}
	if len(name) > maxName {
		h := sha256.Sum256([]byte(s))
		name = name[:maxName-40] + "%-" + hex.EncodeToString(h[:16]) // "%-" is no escape, so that no other name is the same
	}
	taken[strings.ToLower(name)] = true
	return name
}

// maxName is the length of a name in bytes without its extension. File systems take 255.
const maxName = 200

// isDevice reports whether Windows takes a name for a device, whatever its extension.
func isDevice(s string) bool {
	base, _, _ := strings.Cut(strings.ToLower(s), ".")
	switch base {
	case "con", "prn", "aux", "nul", "conin$", "conout$":
		return true
	}
	return len(base) == 4 && (strings.HasPrefix(base, "com") || strings.HasPrefix(base, "lpt")) && base[3] >= '0' && base[3] <= '9'
}

// write writes a record, as CBOR if JSON can't say it.
func (u *unpacker) write(rec repo.Record) (asCBOR bool, err error) {
	collection, rkey := splitPath(rec.Path)
	if collection != u.collection {
		u.folder = safeName(collection, u.folders)
		if err := u.mkdir(u.folder); err != nil {
			return false, err
		}
		u.collection = collection
		clear(u.taken)
	}
	name := u.folder + "/" + safeName(rkey, u.taken)
	b, err := indentRecord(rec.Data)
	if err != nil {
		return true, u.replace(name+".cbor", rec.Data)
	}
	return false, u.replace(name+".json", b)
}

// mkdir makes a folder, or takes one that is there, but no symbolic link to one.
func (u *unpacker) mkdir(name string) error {
	err := u.root.Mkdir(name, 0o755)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := u.root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is there and is no folder", name)
	}
	return nil
}

// replace writes a file as a whole: under a name that can't be a record's, then moved. A link that is in the way is
// replaced, not followed.
func (u *unpacker) replace(name string, b []byte) error {
	tmp := "%tmp"
	if info, err := u.root.Lstat(name); err == nil {
		switch {
		case info.IsDir():
			return fmt.Errorf("%s is there and is a folder", name)
		case !u.overwrite:
			return withHint(fmt.Errorf("%s is there already", name), "--overwrite replaces files")
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := u.root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h, err := u.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(h, bytes.NewReader(b))
	if cerr := h.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = u.root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", name, err), u.root.Remove(tmp))
	}
	return nil
}

// writeCommit writes what the commit says. The name has too few dots for a collection.
func (u *unpacker) writeCommit(r *repo.Reader) error {
	c := r.Commit()
	b, err := json.MarshalIndent(map[string]any{
		"did": c.DID, "rev": c.Rev, "version": c.Version, "commit": r.CommitCID(), "data": c.Data, "sig": map[string]string{"$bytes": base64.RawStdEncoding.EncodeToString(c.Sig)},
		"records": r.Report().Records,
	}, "", "  ")
	if err != nil {
		return err
	}
	return u.replace("repo.json", append(b, '\n'))
}
