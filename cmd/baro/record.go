package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

func newRecord(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "record",
		Short: "Read, create, replace and delete records",
		Long: "Reads records of anybody, and writes those of the account that you are logged in to. 'get' and 'ls' are there without\n" +
			"'record' too.",
		Example: "  baro record create post.json\n  baro record delete --collection app.bsky.feed.post --rkey 3l6oveex3ii2l",
	}
	get, ls := newGet(e), newLs(e)
	get.Example = strings.ReplaceAll(get.Example, "baro get", "baro record get")
	ls.Example = strings.ReplaceAll(ls.Example, "baro ls", "baro record ls")
	cmd.AddCommand(get, ls, newRecordWrite(e, false), newRecordWrite(e, true), newRecordDelete(e))
	return cmd
}

type recordFlags struct {
	accountFlags
	rkey       string
	noValidate bool
}

func newRecordWrite(e *env, update bool) *cobra.Command {
	var f recordFlags
	cmd := &cobra.Command{
		Use:   "create FILE",
		Short: "Create a record from JSON",
		Long: "Writes a record to the account that you are logged in to. FILE holds its JSON, - is standard input; the collection is\n" +
			"its $type. Without --rkey the server chooses a key. A record that is there under that key is an error.",
		Example: "  baro record create post.json\n" +
			"  echo '{\"$type\":\"app.bsky.actor.profile\",\"displayName\":\"Alice\"}' | baro record create - --rkey self",
		Args: cobra.ExactArgs(1),
	}
	if update {
		cmd.Use, cmd.Short = "update FILE", "Replace a record"
		cmd.Long = "Replaces a record of the account that you are logged in to, or creates it. FILE holds its JSON, - is standard input; the\n" +
			"collection is its $type."
		cmd.Example = "  baro record update profile.json --rkey self"
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return e.recordWrite(cmd.Context(), args[0], update, f)
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.rkey, "rkey", "r", "", "key of the record")
	fl.BoolVarP(&f.noValidate, "no-validate", "n", false, "tell the server to hold the record against no schema")
	f.add(fl)
	return cmd
}

func (e *env) recordWrite(ctx context.Context, name string, update bool, f recordFlags) error {
	if update && f.rkey == "" {
		return usagef("--rkey is missing: which record is replaced?")
	}
	o := client.WriteOptions{}
	if f.rkey != "" {
		key, err := syntax.ParseRecordKey(f.rkey)
		if err != nil {
			return usagef("--rkey %q: %w", f.rkey, err)
		}
		o.RecordKey = key
	}
	if f.noValidate {
		no := false
		o.Validate = &no
	}
	text, err := e.readInput(ctx, name, data.MaxRecordJSON)
	if err != nil {
		return err
	}
	var raw data.Raw
	if err := raw.UnmarshalJSON(text); err != nil {
		return fmt.Errorf("%s is not the JSON of a record: %w", name, err)
	}
	if _, err := syntax.ParseNSID(raw.Type()); err != nil {
		return withHint(fmt.Errorf("%s has no collection in its $type: %w", name, err), "add \"$type\": \"app.bsky.feed.post\", or the like")
	}
	return e.asAccount(ctx, f.accountFlags, func(_ *sessions, a *auth.Account) error {
		c := e.clientOf(a)
		var ref *client.Ref
		if update {
			key := o.RecordKey
			o.RecordKey = ""
			ref, err = client.Put(ctx, c, key, &raw, o)
		} else {
			ref, err = client.Create(ctx, c, &raw, o)
		}
		if err != nil {
			return err
		}
		if e.json {
			return e.printJSON(recordLine{URI: string(ref.URI), CID: ref.CID.String()})
		}
		_, err = fmt.Fprintf(e.stdout, "%s  %s\n", ref.URI, ref.CID)
		return err
	})
}

func newRecordDelete(e *env) *cobra.Command {
	var f accountFlags
	var collection, rkey string
	cmd := &cobra.Command{
		Use:     "delete",
		Short:   "Delete a record",
		Long:    "Deletes a record of the account that you are logged in to. It is no error if there is none.",
		Example: "  baro record delete --collection app.bsky.feed.post --rkey 3l6oveex3ii2l",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if collection == "" || rkey == "" {
				return usagef("--collection and --rkey say which record is deleted: both are needed")
			}
			c, err := syntax.ParseNSID(collection)
			if err != nil {
				return usagef("--collection %q: %w", collection, err)
			}
			k, err := syntax.ParseRecordKey(rkey)
			if err != nil {
				return usagef("--rkey %q: %w", rkey, err)
			}
			return e.asAccount(ctx, f, func(_ *sessions, a *auth.Account) error {
				uri := syntax.NewATURI(syntax.AtIdentifier(a.DID()), c, k)
				if _, err := e.clientOf(a).Delete(ctx, uri, client.WriteOptions{}); err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]any{"uri": uri, "deleted": true})
				}
				_, err := fmt.Fprintf(e.stdout, "deleted %s\n", uri)
				return err
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&collection, "collection", "c", "", "collection of the record")
	fl.StringVarP(&rkey, "rkey", "r", "", "key of the record")
	f.add(fl)
	return cmd
}
