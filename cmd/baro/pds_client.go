package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// pdsFlags say which PDS a command asks.
type pdsFlags struct{ networkFlags }

func (f *pdsFlags) add(fl *pflag.FlagSet) {
	f.networkFlags.add(fl, false)
	alsoVariable(fl, "pds", "PDS_HOST")
}

// pdsHost is the network whose PDS a command asks, and a client of the PDS. host, if not empty, is the PDS as an argument named it.
func (e *env) pdsHost(ctx context.Context, f *pdsFlags, host string) (*network, *xrpc.Client, error) {
	nf := f.networkFlags
	if host != "" {
		if _, err := serviceURL(host); err != nil {
			return nil, nil, usagef("%w", err)
		}
		nf.pds = host
	}
	ns, err := e.networks(ctx, nf)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range ns.list {
		if n.pds != "" {
			return n, n.xrpc(), nil
		}
	}
	return nil, nil, withHint(errors.New("no PDS to ask"), "name one with --pds, or start a local network with 'baro up'")
}

// hostedDID is the DID of an account that a PDS hosts. A DID is not looked up: the PDS may know what nobody else does any more.
func hostedDID(ctx context.Context, x *xrpc.Client, arg string) (syntax.DID, error) {
	id, err := parseAccount(arg)
	if err != nil {
		return "", err
	}
	if id.IsDID() {
		return id.DID(), nil
	}
	out, err := comatproto.IdentityResolveHandle.Call(ctx, x, &comatproto.IdentityResolveHandle_Params{Handle: string(id.Handle())})
	if err != nil {
		return "", err
	}
	return syntax.ParseDID(out.Did)
}

func newPDSDescribe(e *env) *cobra.Command {
	var f pdsFlags
	cmd := &cobra.Command{
		Use:     "describe [HOST]",
		Short:   "Tell what a PDS says of itself",
		Long:    "Asks a PDS for its DID, the domains of its handles, whether it wants an invite code, and whom to turn to.",
		Example: "  baro pds describe https://bsky.social\n  baro pds describe --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.pdsDescribe(cmd.Context(), &f, append(args, "")[0]))
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func (e *env) pdsDescribe(ctx context.Context, f *pdsFlags, host string) error {
	n, x, err := e.pdsHost(ctx, f, host)
	if err != nil {
		return err
	}
	out, err := comatproto.ServerDescribeServer.Call(ctx, x, nil)
	if err != nil {
		return err
	}
	if e.json {
		return e.printStruct(out)
	}
	invite := "not needed"
	if out.InviteCodeRequired != nil && *out.InviteCodeRequired {
		invite = "needed"
	}
	rows := [][2]string{{"host", n.pds}, {"did", out.Did}, {"handles", strings.Join(out.AvailableUserDomains, " ")}, {"invite", invite}}
	if out.BlobUploadLimit != nil {
		rows = append(rows, [2]string{"blobs", "up to " + bytesOf(*out.BlobUploadLimit)})
	}
	add := func(name string, v *string) {
		if v != nil && *v != "" {
			rows = append(rows, [2]string{name, *v})
		}
	}
	if out.Contact != nil {
		add("contact", out.Contact.Email)
	}
	if out.Links != nil {
		add("privacy", out.Links.PrivacyPolicy)
		add("terms", out.Links.TermsOfService)
	}
	return e.printRows(rows)
}

// printRows prints names and values below each other.
func (e *env) printRows(rows [][2]string) error {
	for _, r := range rows {
		if _, err := fmt.Fprintf(e.stdout, "%-9s %s\n", r[0], inert(r[1])); err != nil {
			return err
		}
	}
	return nil
}

func newPDSAccount(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "account",
		Short:   "The accounts that a PDS hosts",
		Long:    "Lists the accounts that a PDS hosts, and shows the status of one.",
		Example: "  baro pds account list\n  baro pds account status alice.test",
	}
	var lf, sf pdsFlags
	var handles bool
	list := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the accounts of a PDS",
		Long: "Lists the accounts that a PDS hosts: DID, status and revision. With --handles, each identity is looked up, and its handle is printed\n" +
			"as well if it leads back to the DID. Nobody needs to be logged in.",
		Example: "  baro pds account list --pds https://pds.example.com\n  baro pds account list --handles\n  baro pds account ls --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return advise(e.pdsAccountList(cmd.Context(), &lf, handles))
		},
	}
	list.Flags().BoolVar(&handles, "handles", false, "look up the handles")
	lf.add(list.Flags())
	status := &cobra.Command{
		Use:     "status ACCOUNT",
		Short:   "Show how a PDS hosts an account",
		Long:    "Shows status and revision of an account at a PDS. 'baro account status' finds the PDS of the account by itself.",
		Example: "  baro pds account status did:plc:ewvi7nxzyoun6zhxrhs64oiz --pds https://pds.example.com\n  baro pds account status alice.test --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.pdsAccountStatus(cmd.Context(), &sf, args[0]))
		},
	}
	sf.add(status.Flags())
	cmd.AddCommand(list, status)
	return cmd
}

const pdsPage = 500

func (e *env) pdsAccountList(ctx context.Context, f *pdsFlags, handles bool) error {
	n, x, err := e.pdsHost(ctx, f, "")
	if err != nil {
		return err
	}
	for r, err := range hostedRepos(ctx, x, pdsPage) {
		if err != nil {
			return err
		}
		handle := ""
		if handles {
			handle = string(syntax.InvalidHandle)
			if id, err := n.dir.LookupDID(ctx, syntax.DID(r.Did)); err == nil {
				handle = string(id.Handle)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		switch {
		case e.json && handles:
			err = e.printJSON(map[string]any{"did": r.Did, "handle": handle, "active": r.Active, "status": hostingStatus(r.Active, r.Status), "rev": r.Rev, "head": r.Head})
		case e.json:
			err = e.printStruct(r)
		case handles:
			err = e.printRow(r.Did, hostingStatus(r.Active, r.Status), r.Rev, handle)
		default:
			err = e.printRow(r.Did, hostingStatus(r.Active, r.Status), r.Rev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func hostedRepos(ctx context.Context, x *xrpc.Client, page int64) iter.Seq2[*comatproto.SyncListRepos_Repo, error] {
	pages := comatproto.SyncListRepos.Pages(ctx, x, comatproto.SyncListRepos_Params{Limit: &page})
	return xrpc.Items(pages, func(o *comatproto.SyncListRepos_Output) []comatproto.SyncListRepos_Repo { return o.Repos })
}

func (e *env) pdsAccountStatus(ctx context.Context, f *pdsFlags, arg string) error {
	_, x, err := e.pdsHost(ctx, f, "")
	if err != nil {
		return err
	}
	did, err := hostedDID(ctx, x, arg)
	if err != nil {
		return err
	}
	return e.printRepoStatus(ctx, x, did)
}

// yes is a word for a flag of an answer.
func yes(v *bool) string { return strconv.FormatBool(v != nil && *v) }
