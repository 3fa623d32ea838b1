package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/bsky"
)

// newBskyReads are the commands that ask an AppView.
func newBskyReads(e *env) []*cobra.Command {
	return []*cobra.Command{newBskyTimeline(e), newBskyFeed(e), newBskySearch(e), newBskyThread(e), newBskyProfile(e), newBskyNotifications(e)}
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
	c := colorsOf(e.stdout)
	_, err := fmt.Fprintf(e.stdout, "%s%s  %s\n%s\n", indent, c.good(inert(v.Author.Handle)), c.dim(inert(v.Uri)), inertLines(text, indent+"  "))
	return err
}

// inertLines is a text of several lines that a terminal shows and doesn't obey.
func inertLines(text, indent string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = indent + inert(strings.TrimSuffix(lines[i], "\r"))
	}
	return strings.Join(lines, "\n")
}

// listCommand makes a command that prints the first items of a list, and then does what comes after. What came before an error is printed
// too.
func listCommand[T any](e *env, cmd *cobra.Command, limit int, list func(*bsky.Client, []string) (bsky.List[T], error), print func(*T) error, after ...func(context.Context, *bsky.Client) error) *cobra.Command {
	var f bskyFlags
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 1 {
			return usagef("--limit %d: want 1 or more", limit)
		}
		return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error {
			l, err := list(c, args)
			if err != nil {
				return err
			}
			n := 0
			for item, err := range l.PageSize(min(limit, 100)).All(cmd.Context()) {
				if err != nil {
					return err
				}
				if err := print(&item); err != nil {
					return err
				}
				if n++; n == limit {
					break
				}
			}
			if n == 0 && !e.json {
				fmt.Fprintln(e.stderr, "there is nothing")
			}
			for _, do := range after {
				if err := do(cmd.Context(), c); err != nil {
					return err
				}
			}
			return nil
		})
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "stop after so many")
	f.addTo(cmd)
	return cmd
}

func newBskyTimeline(e *env) *cobra.Command {
	return listCommand(e, &cobra.Command{
		Use:     "timeline",
		Short:   "Read what those whom you follow post",
		Long:    "Prints the posts and reposts of the accounts that you follow, newest first.",
		Example: "  baro bsky timeline --limit 20\n  baro bsky timeline --json | jq -r .record.text",
	}, 50, func(c *bsky.Client, _ []string) (bsky.List[bsky.FeedItem], error) { return c.Timeline(), nil },
		func(i *bsky.FeedItem) error { return e.printPost(&i.Post, "") })
}

func newBskyFeed(e *env) *cobra.Command {
	return listCommand(e, &cobra.Command{
		Use:   "feed ACCOUNT|FEED|LIST",
		Short: "Read what an account posts, or what a feed or list holds",
		Long: "Prints the posts and reposts of an account, what a feed generator has chosen, or what the members of a list post, newest\n" +
			"first.",
		Example: "  baro bsky feed bob.test\n  baro bsky feed https://bsky.app/profile/bob.test/feed/weather --limit 10",
		Args:    cobra.ExactArgs(1),
	}, 50, func(c *bsky.Client, args []string) (bsky.List[bsky.FeedItem], error) {
		uri, err := readURI(args[0])
		switch {
		case err != nil:
			return bsky.List[bsky.FeedItem]{}, usagef("%q names no account, feed or list: %w", args[0], err)
		case uri.Collection() == "":
			return c.AuthorFeed(string(uri.Authority())), nil
		case uri.Collection() == "app.bsky.graph.list":
			return c.ListFeed(string(uri)), nil
		}
		return c.Feed(string(uri)), nil
	}, func(i *bsky.FeedItem) error { return e.printPost(&i.Post, "") })
}

func newBskySearch(e *env) *cobra.Command {
	return listCommand(e, &cobra.Command{
		Use:     "search QUERY",
		Short:   "Find posts",
		Long:    "Finds posts by their words. Most AppViews know from:HANDLE, #tag, since:DAY and the like too.",
		Example: "  baro bsky search 'from:alice.test weather' --json",
		Args:    cobra.ExactArgs(1),
	}, 25, func(c *bsky.Client, args []string) (bsky.List[bsky.PostView], error) {
		return c.SearchPosts(args[0]), nil
	}, func(v *bsky.PostView) error { return e.printPost(v, "") })
}

func newBskyNotifications(e *env) *cobra.Command {
	var seen bool
	cmd := listCommand(e, &cobra.Command{
		Use:     "notifications",
		Short:   "Read what happened to you",
		Long:    "Prints likes, follows, replies, mentions and the like, newest first. A star marks what is new since you looked last.",
		Example: "  baro bsky notifications --limit 10\n  baro bsky notifications --seen",
	}, 50, func(c *bsky.Client, _ []string) (bsky.List[bsky.Notification], error) { return c.Notifications(), nil },
		func(n *bsky.Notification) error {
			if e.json {
				return e.printJSON(map[string]any{"uri": n.Uri, "cid": n.Cid, "reason": n.Reason, "subject": n.ReasonSubject, "author": n.Author.Handle, "did": n.Author.Did,
					"indexedAt": n.IndexedAt, "isRead": n.IsRead, "record": n.Record})
			}
			mark, subject := "*", ""
			if n.IsRead {
				mark = " "
			}
			if n.ReasonSubject != nil {
				subject = "  " + *n.ReasonSubject
			}
			_, err := fmt.Fprintf(e.stdout, "%s %s  %s  %s%s\n", mark, inert(n.Reason), inert(n.Author.Handle), inert(n.Uri), inert(subject))
			return err
		}, func(ctx context.Context, c *bsky.Client) error {
			if !seen {
				return nil
			}
			return c.MarkSeen(ctx)
		})
	cmd.Flags().BoolVar(&seen, "seen", false, "say that you have looked at them")
	return cmd
}

func newBskyProfile(e *env) *cobra.Command {
	var f bskyFlags
	cmd := &cobra.Command{
		Use:     "profile [ACCOUNT]",
		Short:   "Show an account as others see it",
		Long:    "Shows name, description and counts of an account, your own if none is named.",
		Example: "  baro bsky profile bob.test\n  baro bsky profile --json | jq .followersCount",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			who := ""
			if len(args) == 1 {
				var err error
				if who, err = accountName(args[0]); err != nil {
					return err
				}
			}
			return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error {
				if who == "" {
					who = string(c.DID())
				}
				p, err := c.GetProfile(cmd.Context(), who)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]any{"did": p.Did, "handle": p.Handle, "displayName": p.DisplayName, "description": p.Description,
						"followersCount": p.FollowersCount, "followsCount": p.FollowsCount, "postsCount": p.PostsCount, "createdAt": p.CreatedAt})
				}
				_, err = fmt.Fprintf(e.stdout, "%s (%s)\n%s\n%s, %s, %s\n", inert(p.Handle), inert(p.Did),
					inertLines(strings.TrimSpace(deref(p.DisplayName)+"\n"+deref(p.Description)), "  "), howMany(p.FollowersCount, "followers"), howMany(p.FollowsCount, "follows"), howMany(p.PostsCount, "posts"))
				return err
			})
		},
	}
	f.addTo(cmd)
	return cmd
}

// deref is what a pointer points at, zero for nil.
func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func newBskyThread(e *env) *cobra.Command {
	var f bskyFlags
	var depth int
	cmd := &cobra.Command{
		Use:     "thread POST",
		Short:   "Read a post, those that it answers and the answers to it",
		Long:    "Prints the posts above a post, the post, and the answers below it, further in the deeper they are.",
		Example: "  baro bsky thread https://bsky.app/profile/bob.test/post/3l6oveex3ii2l",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			uri, err := recordName(args[0])
			if err != nil {
				return err
			}
			return e.asBsky(cmd.Context(), f, func(c *bsky.Client) error { return e.printThread(cmd.Context(), c, uri, depth) })
		},
	}
	cmd.Flags().IntVar(&depth, "depth", 0, "answers to answers to show; 0: as many as the AppView likes")
	f.addTo(cmd)
	return cmd
}

func (e *env) printThread(ctx context.Context, c *bsky.Client, uri string, depth int) error {
	t, err := c.GetThread(ctx, uri, depth)
	if err != nil {
		return err
	}
	var above []*bsky.ThreadView
	for at := t; ; {
		parent, ok := at.Parent.Value.(*bsky.ThreadView)
		if !ok {
			break
		}
		above = append(above, parent)
		at = parent
	}
	for i := len(above) - 1; i >= 0; i-- {
		err = errors.Join(err, e.printPost(&above[i].Post, ""))
	}
	err = errors.Join(err, e.printPost(&t.Post, ""))
	deep := map[string]int{t.Post.Uri: 0}
	for r := range bsky.Replies(t) {
		d := 1
		if p, ok := bsky.PostOf(&r.Post); ok && p.Reply != nil {
			d = deep[p.Reply.Parent.Uri] + 1
		}
		deep[r.Post.Uri] = d
		err = errors.Join(err, e.printPost(&r.Post, strings.Repeat("  ", d)))
	}
	return err
}

// howMany is a number of something. Who has no AppView may not know it, which is not the same as none.
func howMany(n *int64, what string) string {
	if n == nil {
		return what + " unknown"
	}
	return fmt.Sprintf("%d %s", *n, what)
}
