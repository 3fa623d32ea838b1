package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

type lsFlags struct {
	networkFlags
	collection  string
	collections bool
	limit       int
	reverse     bool
	verify      bool
}

func newLs(e *env) *cobra.Command {
	var f lsFlags
	cmd := &cobra.Command{
		Use:     "ls ACCOUNT|AT-URI [COLLECTION]",
		Aliases: []string{"list"},
		Short:   "List the collections of an account, or the records of a collection",
		Long: "Without a collection, lists those that the account has records in. With one, lists its records, newest first: the\n" +
			"record's URI and its CID. Pages are fetched as they are printed, so that 'head' ends the work.\n\n" +
			"The account is a handle, a DID or the address of its page. With --json each record is one line, with its value. A\n" +
			"record that can't be read is named on standard error and left out; the exit code is then 1.\n\n" +
			"With --verify the server's word isn't taken: the whole repository is fetched and its signature and tree are checked\n" +
			"before anything is printed, so that nothing is changed, made up or left out. What doesn't hold ends with exit code 3.",
		Example: "  baro ls alice.test\n" +
			"  baro ls alice.test app.bsky.feed.post --limit 10\n" +
			"  baro ls alice.test app.bsky.graph.follow --verify --json\n" +
			"  baro ls --json at://alice.test/app.bsky.graph.follow | jq -r .value.subject",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.collections && (len(args) == 2 || f.collection != "") {
				return usagef("--collections lists the collections, and a collection lists its records: choose one")
			}
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
	fl.BoolVarP(&f.collections, "collections", "c", false, "list the collections, as without a collection")
	fl.BoolVar(&f.verify, "verify", false, "check the whole repository, and list what is in it")
	fl.IntVar(&f.limit, "limit", 0, "stop after so many records; 0: list all")
	fl.BoolVar(&f.reverse, "reverse", false, "oldest first")
	f.add(fl, false)
	return cmd
}

func (e *env) ls(ctx context.Context, arg string, f lsFlags) error {
	uri, err := readURI(arg)
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
	a, err := e.lookup(ctx, uri.Authority(), f.networkFlags)
	if err != nil {
		return err
	}
	if f.collections && collection != "" {
		return usagef("%s is a collection, whose records are listed without --collections", uri)
	}
	if f.verify {
		return e.lsVerified(ctx, a, collection, f)
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
		if err := e.printRecord(recordLine{URI: string(r.URI), CID: r.CID.String(), Value: r.Value}); err != nil {
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
	return e.printCollections(a, d.Collections)
}

func (e *env) printCollections(a *account, list []syntax.NSID) error {
	for _, n := range list {
		var err error
		if e.json {
			err = e.printJSON(map[string]syntax.NSID{"collection": n})
		} else {
			_, err = fmt.Fprintln(e.stdout, n)
		}
		if err != nil {
			return err
		}
	}
	if len(list) == 0 && !e.json {
		fmt.Fprintf(e.stderr, "%s has no records\n", a.who())
	}
	return nil
}

// printRecord prints a line of a list of records.
func (e *env) printRecord(r recordLine) error {
	if e.json {
		return e.printJSON(r)
	}
	_, err := fmt.Fprintf(e.stdout, "%s  %s\n", r.URI, r.CID)
	return err
}

// lsVerified lists what a repository holds that has been verified whole.
func (e *env) lsVerified(ctx context.Context, a *account, collection syntax.NSID, f lsFlags) error {
	src := &repoSource{e: e, f: f.networkFlags, name: a.who(), acc: a}
	var records []recordLine // in the order of their keys, the oldest first
	var collections []syntax.NSID
	head, err := src.verifyWhole(ctx, repoCheck{records: repo.RecordsReadable, now: true}, func(rec repo.Record) error {
		c, key := splitPath(rec.Path)
		if n := syntax.NSID(c); collection == "" && (len(collections) == 0 || collections[len(collections)-1] != n) {
			collections = append(collections, n)
		}
		if syntax.NSID(c) != collection || f.reverse && f.limit > 0 && len(records) == f.limit {
			return nil
		}
		line := recordLine{URI: string(syntax.NewATURI(syntax.AtIdentifier(a.DID), collection, syntax.RecordKey(key))), CID: rec.CID.String(), Verified: true}
		if e.json {
			line.Value = bytes.Clone(rec.Data)
		}
		if records = append(records, line); !f.reverse && f.limit > 0 && len(records) == 2*f.limit {
			records = append(records[:0], records[f.limit:]...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if collection == "" {
		return e.printCollections(a, collections)
	}
	if !f.reverse {
		slices.Reverse(records)
	}
	if f.limit > 0 {
		records = records[:min(f.limit, len(records))]
	}
	for _, line := range records {
		if err := e.printRecord(line); err != nil {
			return err
		}
	}
	fmt.Fprintf(e.stderr, "%s at revision %s, verified: %d records of %s\n", a.who(), head.Rev, len(records), collection)
	return nil
}
