package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

type verifyFlags struct {
	networkFlags
	key      string
	did      string
	offline  bool
	lenient  bool
	frame    bool
	legacy   bool
	prevRev  string
	prevData string
}

func newRepoVerify(e *env) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify FILE|ACCOUNT|-",
		Short: "Check everything there is to check about a repository",
		Long: "Checks that every block has the hash it is named by, that the commit is signed by the account's key, that the tree is\n" +
			"the one tree that its records can have, and that records are valid in the data model. Each rule is named. The file is\n" +
			"read once, as a stream; - is standard input.\n\n" +
			"The key is that of the account's DID document. --key gives another one, without asking anybody; --offline leaves the\n" +
			"signature out, and the report says so. A signature that doesn't match the present key may have been made with an\n" +
			"earlier one.\n\n" +
			"With --frame the file is not a repository but one message of a firehose, a #commit or a #sync: the bytes of its frame,\n" +
			"or the message in JSON. It is checked by itself, and with --prev-rev and --prev-data as the successor of a state.\n\n" +
			"--json prints one object: source, kind (file, commit or sync), ok, signature (ok, failed or skipped), reason (the name\n" +
			"of the first rule that failed) and error, key, did, rev, version, commit, data, numbers of ops, records, nodes, blocks\n" +
			"and bytes, and checks: a list with every rule that there is, each with its name, its status (ok, failed, skipped or\n" +
			"not-applicable), a detail, and the path, cid and offset of the fault where it has them. Names are stable; docs/wire.md\n" +
			"lists them.\n\n" +
			"A failed check ends with exit code 3.",
		Example: "  baro repo verify alice.test\n" +
			"  baro repo verify backup.car --offline\n" +
			"  baro repo verify backup.car --key did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme --json | jq .checks\n" +
			"  curl -s $PDS/xrpc/com.atproto.sync.getRepo?did=$DID | baro repo verify -\n" +
			"  baro repo verify --frame commit.bin --offline",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.frame {
				return advise(e.repoVerifyFrame(cmd.Context(), args[0], f))
			}
			return advise(e.repoVerify(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.key, "key", "", "the account's signing key, a did:key")
	fl.StringVar(&f.did, "did", "", "the account that a file has to be of (default: whichever it says)")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody for the key: check everything but the signature")
	fl.BoolVar(&f.lenient, "lenient", false, "accept records that are outside the data model, as some old ones are")
	fl.BoolVar(&f.frame, "frame", false, "check a message of a firehose")
	fl.BoolVar(&f.legacy, "legacy", false, "with --frame: accept messages from before sync 1.1, which can't be inverted")
	fl.StringVar(&f.prevRev, "prev-rev", "", "with --frame: the revision that is known of the repository")
	fl.StringVar(&f.prevData, "prev-data", "", "with --frame: the CID of the tree that is known of the repository")
	f.add(fl, false)
	return cmd
}

// The kinds of what is verified.
const (
	verifiedFile   = "file"
	verifiedCommit = "commit"
	verifiedSync   = "sync"
)

// verifyOutput is the report for programs.
type verifyOutput struct {
	Source    string      `json:"source"`
	Kind      string      `json:"kind,omitempty"` // of the above; empty for a frame that can't be read
	OK        bool        `json:"ok"`
	Signature repo.Status `json:"signature"` // ok, failed or skipped
	Key       string      `json:"key,omitempty"`
	Reason    repo.Reason `json:"reason,omitempty"` // the first rule that failed
	Error     string      `json:"error,omitempty"`
	*repo.Report
}

// common checks what all kinds have in common of the command line.
func (f *verifyFlags) common() (*keys.PublicKey, error) {
	key, err := parseKey(f.key)
	switch {
	case err != nil:
		return nil, err
	case key != nil && f.offline:
		return nil, usagef("--key and --offline are opposites: choose one")
	case f.did != "" && !syntax.ValidDID(f.did):
		return nil, usagef("--did %q: want a DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz", f.did)
	case (f.prevRev == "") != (f.prevData == ""):
		return nil, usagef("--prev-rev and --prev-data go together: they are what is known of the repository")
	case !f.frame && (f.legacy || f.prevRev != ""):
		return nil, usagef("--legacy, --prev-rev and --prev-data go with --frame")
	}
	return key, nil
}

func (e *env) repoVerify(ctx context.Context, arg string, f verifyFlags) error {
	key, err := f.common()
	if err != nil {
		return err
	}
	src, err := e.openSource(ctx, arg, f.networkFlags)
	if err != nil {
		return err
	}
	defer src.close()
	check := repoCheck{key: key, did: syntax.DID(f.did), offline: f.offline, records: repo.RecordsStrict, now: true}
	if f.lenient {
		check.records = repo.RecordsReadable
	}
	t := e.transfer("checking "+arg, 0)
	check.tee = t
	defer t.done()
	r, err := src.read(ctx, check)
	if r == nil {
		return err
	}
	defer r.close()
	if err == nil {
		err = r.verifyAll(nil)
	}
	rep := r.Report()
	// A fault of the head ends the reading, but the rest of a file can be told all the same.
	for next := err; src.file != nil && rep.Failed() != nil && ctx.Err() == nil; {
		v, ok := errors.AsType[*repo.VerifyError](next)
		if !ok || !check.without(v.Reason) {
			break
		}
		again, rerr := src.read(ctx, check)
		if again == nil {
			break
		}
		if next = rerr; rerr == nil {
			next = again.verifyAll(nil)
		}
		before := rep
		rep = again.Report()
		for i, c := range before.Checks {
			if c.Status == repo.StatusFailed {
				rep.Checks[i] = c
			}
		}
	}
	t.done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	out := verifyOutput{Source: src.name, Kind: verifiedFile, Report: rep}
	if r.key != nil {
		out.Key = r.key.DIDKey()
	}
	return e.verified(out, err)
}

// without takes out a check of the head that has failed, if the others don't hang on it.
func (c *repoCheck) without(r repo.Reason) bool {
	switch r {
	case repo.ReasonCommitDID:
		c.did = ""
	case repo.ReasonFutureRev:
		c.now = false
	case repo.ReasonHighS, repo.ReasonSignature:
		c.offline, c.key = true, nil
	default:
		return false
	}
	return true
}

// verified prints a report and gives the error of the command its exit code.
func (e *env) verified(out verifyOutput, err error) error {
	failed := out.Report.Failed()
	out.OK = err == nil && failed == nil
	out.Signature = statusOf(out.Report, repo.ReasonSignature)
	for _, r := range []repo.Reason{repo.ReasonHighS, repo.ReasonSignatureSize, repo.ReasonNoKey} {
		if statusOf(out.Report, r) == repo.StatusFailed {
			out.Signature = repo.StatusFailed
		}
	}
	if failed != nil {
		out.Reason = failed.Name
	}
	if err != nil {
		out.Error = err.Error()
	}
	if e.json {
		if perr := e.printJSON(out); perr != nil {
			return perr
		}
	} else if perr := e.printReport(out); perr != nil {
		return perr
	}
	switch {
	case err != nil && statusOf(out.Report, repo.ReasonSignature) == repo.StatusFailed:
		return withHint(notVerified(err), "the key may have changed since the commit was signed: --key takes an earlier one")
	case err != nil && failed != nil:
		return notVerified(err)
	}
	return err
}

// statusOf returns the outcome of a check, skipped if it was never reached.
func statusOf(r *repo.Report, name repo.Reason) repo.Status {
	for _, c := range r.Checks {
		if c.Name == name {
			return c.Status
		}
	}
	return repo.StatusSkipped
}

func (e *env) printReport(o verifyOutput) error {
	c := colorsOf(e.stdout)
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	for _, k := range o.Checks {
		if k.Status == repo.StatusNotApplicable {
			continue
		}
		status := c.good(fmt.Sprintf("%-7s", k.Status))
		switch k.Status {
		case repo.StatusFailed:
			status = c.bad(fmt.Sprintf("%-7s", "FAILED"))
		case repo.StatusSkipped:
			status = c.dim(fmt.Sprintf("%-7s", k.Status))
		}
		text := k.Name.Text()
		if k.Detail != "" {
			text += ": " + inert(k.Detail)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", status, k.Name, text)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	verdict := c.good("verified")
	switch {
	case !o.OK:
		verdict = c.bad("NOT VERIFIED")
	case o.Signature != repo.StatusOK:
		verdict = "consistent; the signature was NOT checked"
	}
	_, err := fmt.Fprintf(e.stdout, "\n%s: %s", inert(o.Source), verdict)
	switch {
	case err != nil || o.DID == "":
	case o.Kind == verifiedFile:
		_, err = fmt.Fprintf(e.stdout, "\n%s at revision %s, %d records in %s", inert(string(o.DID)), o.Rev, o.Records, bytesOf(o.Bytes))
	default:
		_, err = fmt.Fprintf(e.stdout, "\n#%s of %s at revision %s, %d operations in %s", o.Kind, inert(string(o.DID)), o.Rev, o.Ops, bytesOf(o.Bytes))
	}
	if err == nil {
		_, err = fmt.Fprintln(e.stdout)
	}
	return err
}
