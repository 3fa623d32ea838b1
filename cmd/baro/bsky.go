package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/data"
)

func newBsky(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bsky",
		Short:   "Post to Bluesky, and read it",
		Example: "  baro bsky post 'hello @bob.test' --image cat.jpg --alt 'a cat'\n  baro bsky timeline --limit 20",
	}
	prefs := &cobra.Command{Use: "prefs", Short: "Save and restore preferences", Example: "  baro bsky prefs export > prefs.json"}
	prefs.AddCommand(newBskyPrefsExport(e), newBskyPrefsImport(e))
	cmd.AddCommand(newBskyPost(e), newBskyTimeline(e), newBskySearch(e), newBskyThread(e), prefs)
	return cmd
}

// asBsky calls do with a client of Bluesky for an account that is logged in.
func (e *env) asBsky(ctx context.Context, f accountFlags, do func(*bsky.Client) error) error {
	return e.asAccount(ctx, f, func(s *sessions, a *auth.Account) error {
		n := s.networkOf(a.Session().PDS)
		return do(bsky.ForAccount(a, bsky.Options{HTTP: n.http, Identity: n.dir, Now: e.world.Clock.Now}))
	})
}

type postFlags struct {
	accountFlags
	images, alts []string
	langs        []string
	reply, quote string
	plain, dry   bool
}

func newBskyPost(e *env) *cobra.Command {
	var f postFlags
	cmd := &cobra.Command{
		Use:   "post TEXT",
		Short: "Write a post",
		Long: "Writes a post; - takes the text from standard input. Mentions, links and tags are found in the text. Each --image goes\n" +
			"with the --alt of the same place, and what the file tells of its author is taken out. Posts are named by at-uri or by\n" +
			"web address.",
		Example: "  baro bsky post 'hello @bob.test, see example.com #atproto' --lang en\n" +
			"  baro bsky post 'look' --image cat.jpg --alt 'a cat asleep'\n" +
			"  baro bsky post 'yes' --reply-to https://bsky.app/profile/bob.test/post/3l6oveex3ii2l --dry-run",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.bskyPost(cmd.Context(), args[0], f)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.images, "image", nil, "picture to show, a JPEG, PNG, WebP or GIF file (repeat for up to four)")
	fl.StringArrayVar(&f.alts, "alt", nil, "what the picture shows, for those who don't see it (repeat as --image)")
	fl.StringSliceVar(&f.langs, "lang", nil, "language of the text, such as en (repeat for more)")
	fl.StringVar(&f.reply, "reply-to", "", "post that this one answers")
	fl.StringVar(&f.quote, "quote", "", "record that is shown below the text")
	fl.BoolVar(&f.plain, "plain", false, "leave mentions, links and tags as mere text")
	fl.BoolVar(&f.dry, "dry-run", false, "print the record and write nothing")
	f.add(fl)
	return cmd
}

func (e *env) bskyPost(ctx context.Context, text string, f postFlags) error {
	if len(f.alts) > len(f.images) || len(f.images) > bsky.MaxImages {
		return usagef("there are %d --image and %d --alt: want at most %d pictures, and no more texts than pictures", len(f.images), len(f.alts), bsky.MaxImages)
	}
	if text == "-" {
		b, err := e.readInput(ctx, text, 64<<10)
		if err != nil {
			return err
		}
		text = string(b)
	}
	p := bsky.Post{Text: text, Plain: f.plain, Langs: f.langs, ReplyTo: f.reply, Quote: f.quote}
	for i, name := range f.images {
		b, err := e.readInput(ctx, name, 4*bsky.MaxImage)
		if err != nil {
			return err
		}
		im := bsky.Image{Data: b}
		if i < len(f.alts) {
			im.Alt = f.alts[i]
		}
		p.Images = append(p.Images, im)
	}
	return e.asBsky(ctx, f.accountFlags, func(c *bsky.Client) error {
		if f.dry {
			made, err := c.Prepare(ctx, p)
			if err != nil {
				return err
			}
			b, err := data.MarshalJSON(made.Record)
			if err != nil {
				return err
			}
			return e.printDocument(b)
		}
		ref, err := c.Post(ctx, p)
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

// printPost prints a post as an AppView shows it.
func (e *env) printPost(v *bsky.PostView, indent string) error {
	text := ""
	if p, ok := bsky.PostOf(v); ok {
		text = p.Text
	}
	if e.json {
		return e.printJSON(map[string]any{"uri": v.Uri, "cid": v.Cid, "author": v.Author.Handle, "did": v.Author.Did, "indexedAt": v.IndexedAt, "record": v.Record})
	}
	_, err := fmt.Fprintf(e.stdout, "%s%s  %s\n%s  %s\n", indent, inert(v.Author.Handle), inert(v.Uri), indent, inert(text))
	return err
}

func newBskyTimeline(e *env) *cobra.Command {
	var f accountFlags
	var limit int
	cmd := &cobra.Command{
		Use:     "timeline",
		Short:   "Read what those whom you follow post",
		Example: "  baro bsky timeline --limit 20",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error {
				list, err := c.Timeline().First(cmd.Context(), limit)
				for i := range list {
					err = errors.Join(err, e.printPost(&list[i].Post, ""))
				}
				return err
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "posts to read at most")
	f.add(cmd.Flags())
	return cmd
}

func newBskySearch(e *env) *cobra.Command {
	var f accountFlags
	var limit int
	cmd := &cobra.Command{
		Use:     "search QUERY",
		Short:   "Find posts",
		Example: "  baro bsky search 'from:alice.test weather' --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error {
				list, err := c.SearchPosts(args[0]).First(cmd.Context(), limit)
				for i := range list {
					err = errors.Join(err, e.printPost(&list[i], ""))
				}
				return err
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 25, "posts to find at most")
	f.add(cmd.Flags())
	return cmd
}

func newBskyThread(e *env) *cobra.Command {
	var f accountFlags
	cmd := &cobra.Command{
		Use:     "thread POST",
		Short:   "Read a post and the answers to it",
		Example: "  baro bsky thread https://bsky.app/profile/bob.test/post/3l6oveex3ii2l",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error {
				t, err := c.GetThread(cmd.Context(), args[0], 0)
				if err != nil {
					return err
				}
				if err := e.printPost(&t.Post, ""); err != nil {
					return err
				}
				for r := range bsky.Replies(t) {
					if err := e.printPost(&r.Post, "  "); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func newBskyPrefsExport(e *env) *cobra.Command {
	var f accountFlags
	cmd := &cobra.Command{
		Use:     "export",
		Short:   "Print your preferences",
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
	f.add(cmd.Flags())
	return cmd
}

func newBskyPrefsImport(e *env) *cobra.Command {
	var f accountFlags
	cmd := &cobra.Command{
		Use:     "import FILE",
		Short:   "Replace your preferences by those of a file that export has made",
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
				fmt.Fprintf(e.stderr, "%d preferences were written\n", len(in.Preferences))
				return nil
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}
