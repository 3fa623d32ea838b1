package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/data"
)

func newBsky(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bsky",
		Short: "Post to Bluesky, and read it",
		Long: "Writes go to your own PDS. What is read comes from an AppView, which your PDS passes the questions on to: the one that it\n" +
			"knows, or that of --appview. A local network has none of its own; 'baro up --allow' lets it reach yours.\n\n" +
			"Accounts are named by handle, DID or the address of their page, posts by AT-URI or the address of theirs.",
		Example: "  baro bsky post 'hello @bob.test' --image cat.jpg --alt 'a cat'\n  baro bsky timeline --limit 20",
	}
	prefs := &cobra.Command{
		Use: "prefs", Short: "Save and restore preferences",
		Long:    "Preferences are what apps keep for your account: muted words, saved feeds, the labelers that you subscribe to.",
		Example: "  baro bsky prefs export > prefs.json\n  baro bsky prefs import prefs.json",
	}
	prefs.AddCommand(newBskyPrefsExport(e), newBskyPrefsImport(e))
	cmd.AddCommand(newBskyPost(e))
	cmd.AddCommand(newBskyReads(e)...)
	cmd.AddCommand(newBskyDeeds(e)...)
	cmd.AddCommand(prefs)
	return cmd
}

// bskyFlags are those of commands that act for an account at an AppView.
type bskyFlags struct {
	accountFlags
	appview string
}

func (f *bskyFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.appview, "appview", "", "AppView to ask, as DID#service such as did:web:api.bsky.app#bsky_appview (default: the one that your PDS knows)")
	f.accountFlags.add(cmd.Flags())
}

// asBsky calls do with a client of Bluesky for an account that is logged in.
func (e *env) asBsky(ctx context.Context, f bskyFlags, do func(*bsky.Client) error) error {
	if did, id, ok := strings.Cut(f.appview, "#"); f.appview != "" && (!ok || id == "" || !strings.HasPrefix(did, "did:")) {
		return usagef("--appview %q: want a DID, # and the name of its service, such as %s", f.appview, bsky.AppViewService)
	}
	return e.asAccount(ctx, f.accountFlags, func(s *sessions, a *auth.Account) error {
		n := s.networkOf(a.Session().PDS)
		o := bsky.Options{HTTP: n.http, Identity: n.dir, Now: e.world.Clock.Now, AppView: f.appview}
		if n.local {
			o.VideoService = "none" // the public one knows nothing of accounts here
		}
		return do(bsky.ForAccount(a, o))
	})
}

// recordName turns what names a record into its AT-URI.
func recordName(arg string) (string, error) {
	uri, err := parseRecord(arg)
	return string(uri), err
}

// accountName turns what names an account into its handle or DID.
func accountName(arg string) (string, error) {
	at, err := parseAccount(arg)
	return string(at), err
}

// newBskyDeeds are the commands that do one thing to one account or record.
func newBskyDeeds(e *env) []*cobra.Command {
	made := func(act func(*bsky.Client, context.Context, string) (bsky.Ref, error)) func(context.Context, *bsky.Client, string) error {
		return func(ctx context.Context, c *bsky.Client, arg string) error {
			ref, err := act(c, ctx, arg)
			if err != nil {
				return err
			}
			return e.printRecord(recordLine{URI: string(ref.URI), CID: ref.CID.String()})
		}
	}
	done := func(what string, act func(*bsky.Client, context.Context, string) error) func(context.Context, *bsky.Client, string) error {
		return func(ctx context.Context, c *bsky.Client, arg string) error {
			if err := act(c, ctx, arg); err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]string{"done": what, "subject": arg})
			}
			_, err := fmt.Fprintf(e.stdout, "%s %s\n", what, inert(arg))
			return err
		}
	}
	const post, account = "https://bsky.app/profile/bob.test/post/3l6oveex3ii2l", "bob.test"
	var all []*cobra.Command
	for _, d := range []struct {
		use, short, long, example string
		read                      func(string) (string, error)
		act                       func(context.Context, *bsky.Client, string) error
	}{
		{"like POST", "Like a post, a feed or another record", "Prints the like, which 'baro bsky delete' or 'unlike' takes back.", post, recordName, made((*bsky.Client).Like)},
		{"unlike POST", "Take a like back", "Deletes all your likes of a record.", post, recordName, done("unliked", (*bsky.Client).Unlike)},
		{"repost POST", "Repost a post", "Prints the repost, which 'baro bsky delete' or 'unrepost' takes back.", post, recordName, made((*bsky.Client).Repost)},
		{"unrepost POST", "Take a repost back", "Deletes all your reposts of a post.", post, recordName, done("no longer reposted", (*bsky.Client).Unrepost)},
		{"follow ACCOUNT", "Follow an account", "Prints the follow, which 'baro bsky delete' or 'unfollow' takes back.", account, accountName, made((*bsky.Client).Follow)},
		{"unfollow ACCOUNT", "Stop following an account", "Deletes all your follows of an account.", account, accountName, done("unfollowed", (*bsky.Client).Unfollow)},
		{"block ACCOUNT", "Block an account", "Blocks an account. Everybody can see whom you block.", account, accountName, made((*bsky.Client).Block)},
		{"unblock ACCOUNT", "Stop blocking an account", "Deletes all your blocks of an account.", account, accountName, done("unblocked", (*bsky.Client).Unblock)},
		{"mute ACCOUNT", "Hide an account from what you read", "Mutes an account. Only the AppView knows of it.", account, accountName, done("muted", (*bsky.Client).Mute)},
		{"unmute ACCOUNT", "Show a muted account again", "Ends a mute.", account, accountName, done("unmuted", (*bsky.Client).Unmute)},
		{"delete RECORD", "Delete a post, like, repost or follow of yours", "Deletes a record of the account that you are logged in to. It is no error if there is none.", post, recordName, done("deleted", (*bsky.Client).Delete)},
	} {
		var f bskyFlags
		name, _, _ := strings.Cut(d.use, " ")
		cmd := &cobra.Command{
			Use: d.use, Short: d.short, Long: d.long, Example: "  baro bsky " + name + " " + d.example,
			Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				arg, err := d.read(args[0])
				if err != nil {
					return err
				}
				return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error { return d.act(cmd.Context(), c, arg) })
			},
		}
		f.addTo(cmd)
		all = append(all, cmd)
	}
	return all
}

func newBskyPrefsExport(e *env) *cobra.Command {
	var f bskyFlags
	cmd := &cobra.Command{
		Use:     "export",
		Short:   "Print your preferences",
		Long:    "Prints all preferences as JSON, those of apps that are not known here too.",
		Example: "  baro bsky prefs export > prefs.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error {
				out, err := appbsky.ActorGetPreferences.Call(cmd.Context(), c.AppView(), nil)
				if err != nil {
					return err
				}
				b, err := data.MarshalJSON(out)
				if err != nil {
					return err
				}
				return e.printDocument(b)
			})
		},
	}
	f.addTo(cmd)
	return cmd
}

func newBskyPrefsImport(e *env) *cobra.Command {
	var f bskyFlags
	cmd := &cobra.Command{
		Use:     "import FILE",
		Short:   "Replace your preferences by those of a file that export has made",
		Long:    "Replaces all preferences; - is standard input. A file without preferences changes nothing.",
		Example: "  baro bsky prefs import prefs.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := e.readInput(cmd.Context(), args[0], data.MaxRecordJSON)
			if err != nil {
				return err
			}
			in := new(appbsky.ActorPutPreferences_Input)
			if err := data.UnmarshalJSON(b, in); err != nil {
				return fmt.Errorf("%s holds no preferences: %w", args[0], err)
			}
			if in.Preferences == nil {
				return fmt.Errorf("%s holds no preferences: nothing was changed", args[0])
			}
			return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error {
				if _, err := appbsky.ActorPutPreferences.Call(cmd.Context(), c.AppView(), in); err != nil {
					return err
				}
				fmt.Fprintf(e.stderr, "%s written\n", count(len(in.Preferences), "preference was", "preferences were"))
				return nil
			})
		},
	}
	f.addTo(cmd)
	return cmd
}
