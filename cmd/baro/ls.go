package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

type lsFlags struct {
	networkFlags
	collection string
	limit      int
	reverse    bool
}

func newLs(e *env) *cobra.Command {
	var f lsFlags
	cmd := &cobra.Command{
		Use:     "ls ACCOUNT|AT-URI [COLLECTION]",
		Aliases: []string{"list"},
		Short:   "List the collections of an account, or the records of a collection",
		Long: "Without a collection, lists those that the account has records in. With one, lists its records, newest first: the\n" +
			"record's URI and its CID. Pages are fetched as they are printed, so that 'head' ends the work.\n\n" +
			"The account is a handle or a DID. With --json each record is one line, with its value. A record that can't be read\n" +
			"is named on standard error and left out; the exit code is then 1.",
		Example: "  baro ls alice.test\n" +
			"  baro ls alice.test app.bsky.feed.post --limit 10\n" +
			"  baro ls --json at://alice.test/app.bsky.graph.follow | jq -r .value.subject",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				if f.collection != "" && f.collection != args[1] {
					return usagef("two collections are given, %s and %s", f.collection, args[1])
				}
				f.collection = args[1]
			}
			return advise(e.ls(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.collection, "collection", "", "collection whose records to list, in place of the second argument")
	fl.IntVar(&f.limit, "limit", 0, "stop after so many records; 0: list all")
	fl.BoolVar(&f.reverse, "reverse", false, "oldest first")
	f.add(fl, false)
	return cmd
}

func (e *env) ls(ctx context.Context, arg string, f lsFlags) error {
	uri, err := syntax.ReadATURI(arg)
	if err != nil {
		return usagef("%q is neither a handle, nor a DID, nor an AT-URI: %w", arg, err)
	}
	collection := uri.Collection()
	switch {
	case uri.RecordKey() != "":
		return usagef("%s is one record: 'baro get %s' fetches it", uri, arg)
	case f.limit < 0:
		return usagef("--limit %d: want 0 or more", f.limit)
	case f.collection != "":
		c, err := syntax.ParseNSID(f.collection)
		if err != nil {
			return usagef("%q is not a collection, such as app.bsky.feed.post: %w", f.collection, err)
		}
		if collection != "" && collection != c {
			return usagef("two collections are given, %s and %s", collection, c)
		}
		collection = c
	}
	ns, err := e.networks(ctx, f.networkFlags)
	if err != nil {
		return err
	}
	a, err := ns.lookup(ctx, uri.Authority())
	if err != nil {
		return err
	}
	c := a.client(e)
	if collection == "" {
		return e.lsCollections(ctx, a, c)
	}
	n, bad := 0, 0
	o := client.ListOptions{Collection: collection, Reverse: f.reverse, OnBad: func(d *client.DecodeError) {
		bad++
		fmt.Fprintf(e.stderr, "baro: %s\n", inert(d.Error()))
	}}
	if f.limit > 0 && f.limit < 100 {
		o.Limit = f.limit
	}
	for r, err := range client.List[data.Raw](ctx, c, syntax.AtIdentifier(a.DID), o) {
		if err != nil {
			return err
		}
		if e.json {
			err = e.printJSON(recordLine{URI: string(r.URI), CID: r.CID.String(), Value: r.Value})
		} else {
			_, err = fmt.Fprintf(e.stdout, "%s  %s\n", r.URI, r.CID)
		}
		if err != nil {
			return err
		}
		if n++; n == f.limit {
			break
		}
	}
	if n+bad == 0 && !e.json {
		fmt.Fprintf(e.stderr, "%s has no records in %s\n", a.who(), collection)
	}
	if bad > 0 {
		return fmt.Errorf("%d records could not be read", bad)
	}
	return nil
}

func (e *env) lsCollections(ctx context.Context, a *account, c *client.Client) error {
	d, err := c.DescribeRepo(ctx, syntax.AtIdentifier(a.DID))
	if err != nil {
		return err
	}
	for _, n := range d.Collections {
		if e.json {
			err = e.printJSON(map[string]syntax.NSID{"collection": n})
		} else {
			_, err = fmt.Fprintln(e.stdout, n)
		}
		if err != nil {
			return err
		}
	}
	if len(d.Collections) == 0 && !e.json {
		fmt.Fprintf(e.stderr, "%s has no records\n", a.who())
	}
	return nil
}
