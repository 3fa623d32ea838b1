package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// newAccountStatus tells how a PDS hosts any account.
func newAccountStatus(e *env) *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:     "status ACCOUNT",
		Short:   "Tell whether an account is active, and at which revision",
		Long:    "Asks the PDS of any account how it hosts it. Nobody needs to be logged in.",
		Example: "  baro account status alice.test\n  baro account status alice.test --json | jq .active",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := e.blobSource(cmd.Context(), args[0], f)
			if err != nil {
				return advise(err)
			}
			out, err := comatproto.SyncGetRepoStatus.Call(cmd.Context(), a.client(e).XRPC(), &comatproto.SyncGetRepoStatus_Params{Did: string(a.DID)})
			if err != nil {
				return advise(err)
			}
			state, rev := "active", ""
			if !out.Active {
				state = "not active"
				if out.Status != nil {
					state = *out.Status
				}
			}
			if out.Rev != nil {
				rev = *out.Rev
			}
			if e.json {
				return e.printJSON(map[string]any{"did": a.DID, "pds": a.pds, "active": out.Active, "status": state, "rev": rev})
			}
			_, err = fmt.Fprintf(e.stdout, "did     %s\npds     %s\nstatus  %s\nrev     %s\n", a.DID, a.pds, inert(state), inert(rev))
			return err
		},
	}
	f.add(cmd.Flags(), false)
	return cmd
}

// accountAction makes a command that calls something at the PDS of an account that is logged in.
func (e *env) accountAction(cmd *cobra.Command, do func(ctx context.Context, a *auth.Account, x *xrpc.Client, args []string) error) *cobra.Command {
	var f accountFlags
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return e.asAccount(cmd.Context(), f, func(_ *sessions, a *auth.Account) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			return do(ctx, a, a.Client(), args)
		})
	}
	f.add(cmd.Flags())
	return cmd
}

// did says what was done to an account.
func (e *env) did(a *auth.Account, what string) error {
	if e.json {
		return e.printJSON(map[string]any{"did": a.DID(), "done": what})
	}
	_, err := fmt.Fprintf(e.stdout, "%s %s (%s)\n", what, a.Session().Handle, a.DID())
	return err
}

func newAccountActivate(e *env) *cobra.Command {
	return e.accountAction(&cobra.Command{
		Use:     "activate",
		Short:   "Activate your account, after a deactivation or a move",
		Long:    "Has your PDS serve the account, and tell the network so. After a move, the DID document must name this PDS already.",
		Example: "  baro account activate",
	}, func(ctx context.Context, a *auth.Account, x *xrpc.Client, _ []string) error {
		if _, err := comatproto.ServerActivateAccount.Call(ctx, x, nil); err != nil {
			return err
		}
		return e.did(a, "activated")
	})
}

func newAccountDeactivate(e *env) *cobra.Command {
	return e.accountAction(&cobra.Command{
		Use:     "deactivate",
		Short:   "Hide your account until it is activated again",
		Long:    "Has your PDS serve nothing of the account, and tell the network so. Nothing is deleted; 'baro account activate' undoes it.",
		Example: "  baro account deactivate",
	}, func(ctx context.Context, a *auth.Account, x *xrpc.Client, _ []string) error {
		if _, err := comatproto.ServerDeactivateAccount.Call(ctx, x, &comatproto.ServerDeactivateAccount_Input{}); err != nil {
			return err
		}
		return e.did(a, "deactivated")
	})
}

func newAccountUpdateHandle(e *env) *cobra.Command {
	return e.accountAction(&cobra.Command{
		Use:   "update-handle HANDLE",
		Short: "Give your account another handle",
		Long: "Changes the handle. One of your own domain has to lead to your DID before: by the TXT record _atproto of the domain, or\n" +
			"by the file /.well-known/atproto-did.",
		Example: "  baro account update-handle alice.example.com",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, a *auth.Account, x *xrpc.Client, args []string) error {
		h, err := syntax.ParseHandle(args[0])
		if err != nil {
			return usagef("%q is not a handle: %w", args[0], err)
		}
		if _, err := comatproto.IdentityUpdateHandle.Call(ctx, x, &comatproto.IdentityUpdateHandle_Input{Handle: string(h.Normalize())}); err != nil {
			return err
		}
		return e.did(a, "the handle is now "+string(h.Normalize())+", it was that of")
	})
}

func newAccountCheckAuth(e *env) *cobra.Command {
	return e.accountAction(&cobra.Command{
		Use:   "check-auth",
		Short: "Check that your session is good, and tell the state of the account",
		Long: "Asks your PDS about the account: whether it is active, whether its DID document names this PDS and its key, and how much\n" +
			"of its records and blobs is there, which is what to look at in a move.",
		Example: "  baro account check-auth --json",
	}, func(ctx context.Context, a *auth.Account, x *xrpc.Client, _ []string) error {
		out, err := comatproto.ServerCheckAccountStatus.Call(ctx, x, nil)
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(map[string]any{"did": a.DID(), "pds": a.Session().PDS, "activated": out.Activated, "validDid": out.ValidDid,
				"rev": out.RepoRev, "commit": out.RepoCommit, "records": out.IndexedRecords, "expectedBlobs": out.ExpectedBlobs, "importedBlobs": out.ImportedBlobs})
		}
		_, err = fmt.Fprintf(e.stdout, "account    %s (%s)\npds        %s\nactivated  %t\ndid valid  %t\nrev        %s\nrecords    %d\nblobs      %d of %d\n",
			a.Session().Handle, a.DID(), a.Session().PDS, out.Activated, out.ValidDid, inert(out.RepoRev), out.IndexedRecords, out.ImportedBlobs, out.ExpectedBlobs)
		return err
	})
}

func newAccountMissingBlobs(e *env) *cobra.Command {
	return e.accountAction(&cobra.Command{
		Use:     "missing-blobs",
		Short:   "List the blobs that your records refer to and your PDS doesn't have",
		Long:    "Lists CID and record of each. 'baro blob upload --missing DIR' sends them from a folder that 'baro blob export' has made.",
		Example: "  baro account missing-blobs",
	}, func(ctx context.Context, a *auth.Account, _ *xrpc.Client, _ []string) error {
		for b, err := range e.clientOf(a).MissingBlobs(ctx) {
			if err != nil {
				return err
			}
			if e.json {
				err = e.printJSON(map[string]any{"cid": b.CID, "record": b.Record})
			} else {
				_, err = fmt.Fprintf(e.stdout, "%s  %s\n", b.CID, inert(string(b.Record)))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func newAccountServiceAuth(e *env) *cobra.Command {
	var lxm, aud string
	var seconds int
	var cmd *cobra.Command
	cmd = e.accountAction(&cobra.Command{
		Use:   "service-auth",
		Short: "Print a token with which you are known to another service",
		Long: "Has your PDS make a token for one service, and one method if --endpoint names it. Whoever has it acts for you there until\n" +
			"it expires.",
		Example: "  baro account service-auth --audience did:web:video.bsky.app --endpoint com.atproto.repo.uploadBlob",
	}, func(ctx context.Context, _ *auth.Account, x *xrpc.Client, _ []string) error {
		p := &comatproto.ServerGetServiceAuth_Params{Aud: aud}
		if lxm != "" {
			id, err := parseNSID(lxm)
			if err != nil {
				return err
			}
			s := string(id)
			p.Lxm = &s
		}
		exp := e.world.Clock.Now().Unix() + int64(seconds)
		p.Exp = &exp
		out, err := comatproto.ServerGetServiceAuth.Call(ctx, x, p)
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(map[string]any{"token": out.Token, "aud": aud, "lxm": lxm, "exp": exp})
		}
		_, err = fmt.Fprintln(e.stdout, out.Token)
		return err
	})
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if aud == "" || seconds <= 0 {
			return usagef("--audience names the service by its DID, and --duration-sec is above 0")
		}
		return inner(cmd, args)
	}
	fl := cmd.Flags()
	fl.StringVar(&aud, "audience", "", "DID of the service that the token is for")
	alsoNamed(fl, "audience", "aud")
	fl.StringVar(&lxm, "endpoint", "", "method that the token is for (default: any)")
	alsoNamed(fl, "endpoint", "lxm")
	fl.IntVar(&seconds, "duration-sec", 60, "how long the token is good, in seconds")
	return cmd
}
