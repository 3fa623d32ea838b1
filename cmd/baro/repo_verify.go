package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

type verifyFlags struct {
	networkFlags
	key     string
	did     string
	offline bool
	lenient bool
}

func newRepoVerify(e *env) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify FILE|ACCOUNT",
		Short: "Check everything there is to check about a repository",
		Long: "Checks that every block has the hash it is named by, that the commit is signed by the account's key, that the tree is\n" +
			"the one tree that its records can have, and that records are valid in the data model. Each check is named. The file is\n" +
			"read once, as a stream.\n\n" +
			"The key is that of the account's DID document. --key gives another one, without asking anybody; --offline leaves the\n" +
			"signature out, and the report says so. A signature that doesn't match the present key may have been made with an\n" +
			"earlier one.\n\n" +
			"A failed check ends with exit code 3.",
		Example: "  baro repo verify alice.test\n" +
			"  baro repo verify backup.car --offline\n" +
			"  baro repo verify backup.car --key did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme --json | jq .checks",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.repoVerify(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.key, "key", "", "the account's signing key, a did:key")
	fl.StringVar(&f.did, "did", "", "the account that a file has to be of (default: whichever it says)")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody for the key: check everything but the signature")
	fl.BoolVar(&f.lenient, "lenient", false, "accept records that are outside the data model, as some old ones are")
	f.add(fl, false)
	return cmd
}

// verifyOutput is the report for programs.
type verifyOutput struct {
	Source    string `json:"source"`
	OK        bool   `json:"ok"`
	Signature string `json:"signature"` // ok, failed or skipped
	Key       string `json:"key,omitempty"`
	Error     string `json:"error,omitempty"`
	*repo.Report
}

func (e *env) repoVerify(ctx context.Context, arg string, f verifyFlags) error {
	key, err := parseKey(f.key)
	if err != nil {
		return err
	}
	if key != nil && f.offline {
		return usagef("--key and --offline are opposites: choose one")
	}
	if f.did != "" && !syntax.ValidDID(f.did) {
		return usagef("--did %q: want a DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz", f.did)
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
	if v, ok := errors.AsType[*repo.VerifyError](err); ok && v.Reason == repo.ReasonSignature && src.file != nil {
		// The rest can be told all the same.
		check.offline, check.key = true, nil
		again, rerr := src.read(ctx, check)
		if rerr == nil {
			_ = again.verifyAll(nil) // what is wrong is in its report
			failed := *rep.Failed()
			rep = again.Report()
			for i := range rep.Checks {
				if rep.Checks[i].Name == repo.ReasonSignature {
					rep.Checks[i] = failed
				}
			}
		}
	}
	t.done()
	if ctx.Err() != nil {
		return ctx.Err()
	}

	out := verifyOutput{Source: arg, OK: err == nil, Signature: string(statusOf(rep, repo.ReasonSignature)), Report: rep}
	if r.key != nil {
		out.Key = r.key.DIDKey()
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
	case err != nil && out.Signature == string(repo.StatusFailed):
		return withHint(notVerified(err), "the key may have changed since the commit was signed: --key takes an earlier one")
	case err != nil && rep.Failed() != nil:
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
		status := c.good(fmt.Sprintf("%-7s", k.Status))
		switch k.Status {
		case repo.StatusFailed:
			status = c.bad(fmt.Sprintf("%-7s", "FAILED"))
		case repo.StatusSkipped:
			status = c.dim(fmt.Sprintf("%-7s", k.Status))
		}
		if k.Status == repo.StatusNotApplicable {
			continue
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
	case o.Signature != string(repo.StatusOK):
		verdict = "consistent; the signature was NOT checked"
	}
	_, err := fmt.Fprintf(e.stdout, "\n%s: %s", inert(o.Source), verdict)
	if err == nil && o.DID != "" {
		_, err = fmt.Fprintf(e.stdout, "\n%s at revision %s, %d records in %s", o.DID, o.Rev, o.Records, bytesOf(o.Bytes))
	}
	if err == nil {
		_, err = fmt.Fprintln(e.stdout)
	}
	return err
}
