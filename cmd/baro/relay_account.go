package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// relay is the network whose relay a command asks, and a client of the relay.
func (e *env) relay(ctx context.Context, f *networkFlags) (*network, *xrpc.Client, error) {
	ns, err := e.networks(ctx, *f)
	if err != nil {
		return nil, nil, err
	}
	n := ns.list[0]
	return n, &xrpc.Client{Host: n.relay, HTTP: n.http}, nil
}

// relayPage is how many rows are asked for at once.
const relayPage = 500

// printStruct prints a value of a generated type as one line of JSON, fields that it doesn't know included.
func (e *env) printStruct(v any) error {
	b, err := data.AppendStructJSON(nil, v)
	if err != nil {
		return fmt.Errorf("encoding the output: %w", err)
	}
	_, err = e.stdout.Write(inertJSON(append(b, '\n')))
	return err
}

// printRow prints words of strangers, with tabs between them.
func (e *env) printRow(words ...string) error {
	for i, w := range words {
		words[i] = inert(w)
	}
	_, err := fmt.Fprintln(e.stdout, strings.Join(words, "\t"))
	return err
}

func newRelayAccount(e *env, f *networkFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "account",
		Short:   "The accounts that a relay knows",
		Long:    "Lists the accounts that a relay has seen events of, and shows what it thinks of one. Nobody needs to be logged in.",
		Example: "  baro relay account list\n  baro relay account status alice.test",
	}
	var collection string
	list := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the accounts of a relay",
		Long: "Lists all accounts that a relay knows: DID, status and revision. With --collection, those that have records of a collection, as far as\n" +
			"the relay knows: DIDs only. A relay may know millions: they are printed as they come, and Ctrl-C ends it.",
		Example: "  baro relay account list | head\n  baro relay account list --collection app.bsky.feed.generator --json\n  baro relay account ls --relay https://relay.example.net",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return advise(e.relayAccountList(cmd.Context(), f, collection))
		},
	}
	list.Flags().StringVarP(&collection, "collection", "c", "", "only accounts with records of this collection, an NSID")
	status := &cobra.Command{
		Use:     "status ACCOUNT",
		Short:   "Show what a relay knows of an account",
		Long:    "Shows the DID, status and revision of an account at a relay. 'baro doctor' compares them with the account's own host.",
		Example: "  baro relay account status did:plc:ewvi7nxzyoun6zhxrhs64oiz\n  baro relay account status alice.test --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.relayAccountStatus(cmd.Context(), f, args[0]))
		},
	}
	cmd.AddCommand(list, status)
	return cmd
}

func (e *env) relayAccountList(ctx context.Context, f *networkFlags, collection string) error {
	if collection != "" {
		nsid, err := parseNSID(collection)
		if err != nil {
			return err
		}
		_, c, err := e.relay(ctx, f)
		if err != nil {
			return err
		}
		pages := comatproto.SyncListReposByCollection.Pages(ctx, c, comatproto.SyncListReposByCollection_Params{Collection: string(nsid), Limit: new(int64(relayPage))})
		for r, err := range xrpc.Items(pages, func(o *comatproto.SyncListReposByCollection_Output) []comatproto.SyncListReposByCollection_Repo {
			return o.Repos
		}) {
			if err != nil {
				return err
			}
			if e.json {
				err = e.printStruct(r)
			} else {
				err = e.printRow(r.Did)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	_, c, err := e.relay(ctx, f)
	if err != nil {
		return err
	}
	for r, err := range hostedRepos(ctx, c, relayPage) {
		if err != nil {
			return err
		}
		if e.json {
			err = e.printStruct(r)
		} else {
			err = e.printRow(r.Did, hostingStatus(r.Active, r.Status), r.Rev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hostingStatus is a word for whether an account is active.
func hostingStatus(active *bool, status *string) string {
	switch {
	case active != nil && *active:
		if status != nil && *status == stream.StatusDesynchronized {
			return *status // active, but not up to date
		}
		return "active"
	case status != nil:
		return cmp.Or(*status, "unknown")
	}
	return "unknown"
}

func (e *env) relayAccountStatus(ctx context.Context, f *networkFlags, arg string) error {
	id, err := parseAccount(arg)
	if err != nil {
		return err
	}
	_, c, err := e.relay(ctx, f)
	if err != nil {
		return err
	}
	did, err := e.relaySubject(ctx, f, id)
	if err != nil {
		return err
	}
	return e.printRepoStatus(ctx, c, did)
}

// printRepoStatus prints what a host knows of an account.
func (e *env) printRepoStatus(ctx context.Context, c *xrpc.Client, did syntax.DID) error {
	st, err := comatproto.SyncGetRepoStatus.Call(ctx, c, &comatproto.SyncGetRepoStatus_Params{Did: string(did)})
	if err != nil {
		return err
	}
	if e.json {
		return e.printStruct(st)
	}
	return e.printRow(st.Did, hostingStatus(&st.Active, st.Status), deref(st.Rev))
}

// relaySubject is the DID of an account. One that is given is not looked up: a relay may know what nobody else does any more.
func (e *env) relaySubject(ctx context.Context, f *networkFlags, id syntax.AtIdentifier) (syntax.DID, error) {
	if id.IsDID() {
		return id.DID(), nil
	}
	ns, err := e.networks(ctx, *f)
	if err != nil {
		return "", err
	}
	a, err := ns.identify(ctx, id)
	if err != nil {
		return "", err
	}
	return a.DID, nil
}
