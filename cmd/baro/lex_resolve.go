package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

func newLexResolve(e *env) *cobra.Command {
	var f lexFlags
	var didOnly bool
	var via string
	cmd := &cobra.Command{
		Use:   "resolve NSID",
		Short: "Show a published schema, and how it is proven",
		Long: "Finds a published schema and prints it as JSON: DNS names the account that has the authority, its DID document the PDS\n" +
			"and the key, and the PDS gives the record with its proof, which is checked. The steps are printed to standard error. A\n" +
			"proof that doesn't hold ends with exit code 3.\n\n" +
			"With --did only DNS is asked, and the account printed. With --via another server resolves, by\n" +
			"com.atproto.lexicon.resolveLexicon, and its word is taken.",
		Example: "  baro lex resolve app.bsky.feed.post\n" +
			"  baro lex resolve test.alice.note --json | jq -r .cid\n" +
			"  baro lex resolve com.atproto.repo.getRecord --did",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseNSID(args[0])
			if err != nil {
				return err
			}
			if via != "" {
				if didOnly {
					return usagef("--did and --via are opposites: choose one")
				}
				return lexError(e.lexResolveVia(cmd.Context(), id, via, f))
			}
			return lexError(e.lexResolve(cmd.Context(), id, didOnly, f))
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&didOnly, "did", "d", false, "print only the account that has the authority")
	fl.StringVar(&via, "via", "", "URL of a server that resolves, such as a PDS")
	f.addNetwork(fl)
	return cmd
}

func (e *env) lexResolve(ctx context.Context, id syntax.NSID, didOnly bool, f lexFlags) error {
	l, err := e.lexNetwork(ctx, f)
	if err != nil {
		return err
	}
	if didOnly {
		a, _, err := l.authority(ctx, id)
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(map[string]any{"nsid": id, "domain": a.Domain, "did": a.DID})
		}
		_, err = fmt.Fprintln(e.stdout, a.DID)
		return err
	}
	r, err := l.resolve(ctx, id)
	if err != nil {
		return err
	}
	e.printLexSteps(r, r.Steps)
	if e.json {
		return e.printJSON(map[string]any{
			"nsid": r.NSID, "uri": r.URI, "cid": r.CID.String(), "did": r.DID, "pds": r.PDS, "key": r.Key.DIDKey(), "rev": r.Rev, "commit": r.Commit.String(),
			"verified": true, "stale": r.Stale, "schema": data.Raw(r.Schema.Raw),
		})
	}
	return e.printSchema(r.Schema.Raw)
}

func (e *env) lexResolveVia(ctx context.Context, id syntax.NSID, via string, f lexFlags) error {
	host, err := serviceURL(via)
	if err != nil {
		return usagef("--via: %w", err)
	}
	ns, err := e.networks(ctx, f.networkFlags)
	if err != nil {
		return err
	}
	n := ns.list[0]
	if isLoopback(host) {
		if err := n.guard.Allow(hostPort(host)); err != nil { // the user has named it
			return err
		}
	}
	s, uri, c, err := lexres.Ask(ctx, &xrpc.Client{Host: host, HTTP: limitedClient(n)}, id)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "-\t%-10s %s says so: its proof was not asked for\n", "proof", host)
	if e.json {
		return e.printJSON(map[string]any{"nsid": id, "uri": uri, "cid": c.String(), "verified": false, "schema": data.Raw(s.Raw)})
	}
	return e.printSchema(s.Raw)
}

func (e *env) printSchema(raw []byte) error {
	b, err := prettySchema(raw)
	if err != nil {
		return err
	}
	_, err = e.stdout.Write(inertJSON(b))
	return err
}

func newLexLs(e *env) *cobra.Command {
	var f lexFlags
	var all bool
	cmd := &cobra.Command{
		Use:     "ls NSID|GROUP",
		Aliases: []string{"list"},
		Short:   "List the published schemas of a group",
		Long: "Lists the schemas that are published at the same level as an NSID, or at that of a group, such as app.bsky.feed, as the\n" +
			"PDS of the authority tells. With --all those of all groups in its repository.",
		Example: "  baro lex ls app.bsky.feed.post\n  baro lex ls test.alice. --all",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexLs(cmd.Context(), args[0], all, f))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "list all groups of the repository")
	f.addNetwork(cmd.Flags())
	return cmd
}

func (e *env) lexLs(ctx context.Context, arg string, all bool, f lexFlags) error {
	// A name without a dot or a star at its end may be that of a schema or of a group: the group of the schema comes first.
	group, isGroup := strings.CutSuffix(strings.TrimSuffix(arg, "*"), ".")
	groups := []string{group}
	if !isGroup {
		if id, err := syntax.ParseNSID(arg); err == nil {
			groups = []string{id.Prefix(), arg}
		}
	}
	l, err := e.lexNetwork(ctx, f)
	if err != nil {
		return err
	}
	var ids []syntax.NSID
	var first error
	for _, g := range groups {
		list := l.list
		if all {
			list = l.listAll
		}
		if ids, err = list(ctx, g); len(ids) > 0 {
			break
		}
		if first == nil {
			first = err
		}
	}
	if len(ids) == 0 {
		if first != nil {
			return first
		}
		return fmt.Errorf("there are no schemas %s.*", groups[0])
	}
	for _, id := range ids {
		if e.json {
			err = e.printJSON(map[string]syntax.NSID{"nsid": id})
		} else {
			_, err = fmt.Fprintln(e.stdout, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
