package bsky

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// List is a list at a server, read page by page. It is a value: nothing is asked until it is read, and it may be read
// again.
type List[T any] struct {
	page func(ctx context.Context, cursor string, limit int) (items []T, next string, err error)
	size int
	from string
}

// PageSize returns the list with another number of items in a page, from 1 to 100. Servers have their own default.
func (l List[T]) PageSize(n int) List[T] { l.size = n; return l }

// From returns the list from a cursor on, which [List.Page] returned.
func (l List[T]) From(cursor string) List[T] { l.from = cursor; return l }

// Page reads one page, and the cursor of the one after it: "" at the end.
func (l List[T]) Page(ctx context.Context) (items []T, next string, err error) {
	return l.page(ctx, l.from, l.size)
}

// All reads the list to its end, a page when the loop gets there. An error ends the loop. A list whose cursors go in circles
// or whose pages stay empty ends with [client.ErrPaging].
func (l List[T]) All(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		cursor := l.from
		var guard xrpc.PageGuard
		for {
			items, next, err := l.page(ctx, cursor, l.size)
			if err != nil {
				yield(zero, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			more, err := guard.Next(len(items), next)
			if err != nil {
				yield(zero, err)
			}
			if !more {
				return
			}
			cursor = next
		}
	}
}

// First reads at most n items. Items that came before an error are returned with it.
func (l List[T]) First(ctx context.Context, n int) ([]T, error) {
	var items []T
	if n <= 0 {
		return nil, nil
	}
	if l.size == 0 {
		l.size = min(n, xrpc.DefaultPageSize)
	}
	for item, err := range l.All(ctx) {
		if err != nil {
			return items, err
		}
		if items = append(items, item); len(items) == n {
			break
		}
	}
	return items, nil
}

// listOf makes a list of a query. page gives the query its cursor and limit and takes the items and the next cursor out of
// the answer.
func listOf[P, O, T any](x *xrpc.Client, q xrpc.Query[P, O], p P, page func(*P) (cursor **string, limit **int64), items func(*O) ([]T, *string)) List[T] {
	return List[T]{page: func(ctx context.Context, cursor string, limit int) ([]T, string, error) {
		p := p
		at, size := page(&p)
		if *at = nil; cursor != "" {
			*at = &cursor
		}
		if limit > 0 {
			*size = new(int64(limit))
		}
		out, err := q.Call(ctx, x, &p)
		if err != nil {
			return nil, "", err
		}
		got, next := items(out)
		if next == nil {
			return got, "", nil
		}
		return got, *next, nil
	}}
}

// failed is a list that can't be read.
func failed[T any](err error) List[T] {
	return List[T]{page: func(context.Context, string, int) ([]T, string, error) { return nil, "", err }}
}

// Views that lists hold.
type (
	FeedItem     = appbsky.FeedDefs_FeedViewPost
	PostView     = appbsky.FeedDefs_PostView
	ProfileView  = appbsky.ActorDefs_ProfileView
	ProfileFull  = appbsky.ActorDefs_ProfileViewDetailed
	Notification = appbsky.NotificationListNotifications_Notification
)

// Timeline is what the accounts that this one follows posted, newest first.
func (c *Client) Timeline() List[FeedItem] {
	type (
		P = appbsky.FeedGetTimeline_Params
		O = appbsky.FeedGetTimeline_Output
	)
	return listOf(c.appview, appbsky.FeedGetTimeline, P{}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]FeedItem, *string) { return o.Feed, o.Cursor })
}

// AuthorFeed is what an account posted and reposted, newest first.
func (c *Client) AuthorFeed(account string) List[FeedItem] {
	type (
		P = appbsky.FeedGetAuthorFeed_Params
		O = appbsky.FeedGetAuthorFeed_Output
	)
	at, err := ParseAccount(account)
	if err != nil {
		return failed[FeedItem](err)
	}
	return listOf(c.appview, appbsky.FeedGetAuthorFeed, P{Actor: string(at)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]FeedItem, *string) { return o.Feed, o.Cursor })
}

// ActorLikes is what an account liked. Servers tell it only to the account itself.
func (c *Client) ActorLikes(account string) List[FeedItem] {
	type (
		P = appbsky.FeedGetActorLikes_Params
		O = appbsky.FeedGetActorLikes_Output
	)
	at, err := ParseAccount(account)
	if err != nil {
		return failed[FeedItem](err)
	}
	return listOf(c.appview, appbsky.FeedGetActorLikes, P{Actor: string(at)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]FeedItem, *string) { return o.Feed, o.Cursor })
}

// Feed is what a feed generator has chosen.
func (c *Client) Feed(feed string) List[FeedItem] {
	type (
		P = appbsky.FeedGetFeed_Params
		O = appbsky.FeedGetFeed_Output
	)
	uri, err := ParseURI(feed)
	if err != nil {
		return failed[FeedItem](err)
	}
	return listOf(c.appview, appbsky.FeedGetFeed, P{Feed: string(uri)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]FeedItem, *string) { return o.Feed, o.Cursor })
}

// ListFeed is what the members of a list posted.
func (c *Client) ListFeed(list string) List[FeedItem] {
	type (
		P = appbsky.FeedGetListFeed_Params
		O = appbsky.FeedGetListFeed_Output
	)
	uri, err := ParseURI(list)
	if err != nil {
		return failed[FeedItem](err)
	}
	return listOf(c.appview, appbsky.FeedGetListFeed, P{List: string(uri)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]FeedItem, *string) { return o.Feed, o.Cursor })
}

// Likes are the likes of a post.
func (c *Client) Likes(post string) List[appbsky.FeedGetLikes_Like] {
	type (
		P = appbsky.FeedGetLikes_Params
		O = appbsky.FeedGetLikes_Output
	)
	uri, err := ParseURI(post)
	if err != nil {
		return failed[appbsky.FeedGetLikes_Like](err)
	}
	return listOf(c.appview, appbsky.FeedGetLikes, P{Uri: string(uri)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]appbsky.FeedGetLikes_Like, *string) { return o.Likes, o.Cursor })
}

// RepostedBy are the accounts that reposted a post.
func (c *Client) RepostedBy(post string) List[ProfileView] {
	type (
		P = appbsky.FeedGetRepostedBy_Params
		O = appbsky.FeedGetRepostedBy_Output
	)
	uri, err := ParseURI(post)
	if err != nil {
		return failed[ProfileView](err)
	}
	return listOf(c.appview, appbsky.FeedGetRepostedBy, P{Uri: string(uri)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]ProfileView, *string) { return o.RepostedBy, o.Cursor })
}

// Quotes are the posts that quote a post.
func (c *Client) Quotes(post string) List[PostView] {
	type (
		P = appbsky.FeedGetQuotes_Params
		O = appbsky.FeedGetQuotes_Output
	)
	uri, err := ParseURI(post)
	if err != nil {
		return failed[PostView](err)
	}
	return listOf(c.appview, appbsky.FeedGetQuotes, P{Uri: string(uri)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]PostView, *string) { return o.Posts, o.Cursor })
}

// Follows are the accounts that an account follows.
func (c *Client) Follows(account string) List[ProfileView] {
	type (
		P = appbsky.GraphGetFollows_Params
		O = appbsky.GraphGetFollows_Output
	)
	at, err := ParseAccount(account)
	if err != nil {
		return failed[ProfileView](err)
	}
	return listOf(c.appview, appbsky.GraphGetFollows, P{Actor: string(at)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]ProfileView, *string) { return o.Follows, o.Cursor })
}

// Followers are the accounts that follow an account.
func (c *Client) Followers(account string) List[ProfileView] {
	type (
		P = appbsky.GraphGetFollowers_Params
		O = appbsky.GraphGetFollowers_Output
	)
	at, err := ParseAccount(account)
	if err != nil {
		return failed[ProfileView](err)
	}
	return listOf(c.appview, appbsky.GraphGetFollowers, P{Actor: string(at)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]ProfileView, *string) { return o.Followers, o.Cursor })
}

// Mutes are the accounts that this one muted.
func (c *Client) Mutes() List[ProfileView] {
	type (
		P = appbsky.GraphGetMutes_Params
		O = appbsky.GraphGetMutes_Output
	)
	return listOf(c.appview, appbsky.GraphGetMutes, P{}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]ProfileView, *string) { return o.Mutes, o.Cursor })
}

// Blocks are the accounts that this one blocks.
func (c *Client) Blocks() List[ProfileView] {
	type (
		P = appbsky.GraphGetBlocks_Params
		O = appbsky.GraphGetBlocks_Output
	)
	return listOf(c.appview, appbsky.GraphGetBlocks, P{}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]ProfileView, *string) { return o.Blocks, o.Cursor })
}

// Lists are the lists that an account made.
func (c *Client) Lists(account string) List[appbsky.GraphDefs_ListView] {
	type (
		P = appbsky.GraphGetLists_Params
		O = appbsky.GraphGetLists_Output
	)
	at, err := ParseAccount(account)
	if err != nil {
		return failed[appbsky.GraphDefs_ListView](err)
	}
	return listOf(c.appview, appbsky.GraphGetLists, P{Actor: string(at)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]appbsky.GraphDefs_ListView, *string) { return o.Lists, o.Cursor })
}

// ListMembers are the members of a list.
func (c *Client) ListMembers(list string) List[appbsky.GraphDefs_ListItemView] {
	type (
		P = appbsky.GraphGetList_Params
		O = appbsky.GraphGetList_Output
	)
	uri, err := ParseURI(list)
	if err != nil {
		return failed[appbsky.GraphDefs_ListItemView](err)
	}
	return listOf(c.appview, appbsky.GraphGetList, P{List: string(uri)}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]appbsky.GraphDefs_ListItemView, *string) { return o.Items, o.Cursor })
}

// SearchPosts finds posts. The query may hold what the search of the AppView knows, such as from:alice.test.
func (c *Client) SearchPosts(query string) List[PostView] {
	type (
		P = appbsky.FeedSearchPosts_Params
		O = appbsky.FeedSearchPosts_Output
	)
	return listOf(c.appview, appbsky.FeedSearchPosts, P{Q: query}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]PostView, *string) { return o.Posts, o.Cursor })
}

// SearchAccounts finds accounts by name, handle and description.
func (c *Client) SearchAccounts(query string) List[ProfileView] {
	type (
		P = appbsky.ActorSearchActors_Params
		O = appbsky.ActorSearchActors_Output
	)
	return listOf(c.appview, appbsky.ActorSearchActors, P{Q: &query}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]ProfileView, *string) { return o.Actors, o.Cursor })
}

// Notifications are what happened to the account, newest first.
func (c *Client) Notifications() List[Notification] {
	type (
		P = appbsky.NotificationListNotifications_Params
		O = appbsky.NotificationListNotifications_Output
	)
	return listOf(c.appview, appbsky.NotificationListNotifications, P{}, func(p *P) (**string, **int64) { return &p.Cursor, &p.Limit }, func(o *O) ([]Notification, *string) { return o.Notifications, o.Cursor })
}

// UnreadCount is the number of notifications since the account last looked.
func (c *Client) UnreadCount(ctx context.Context) (int64, error) {
	out, err := appbsky.NotificationGetUnreadCount.Call(ctx, c.appview, &appbsky.NotificationGetUnreadCount_Params{})
	if err != nil {
		return 0, err
	}
	return out.Count, nil
}

// MarkSeen says that the account has looked at its notifications.
func (c *Client) MarkSeen(ctx context.Context) error {
	_, err := appbsky.NotificationUpdateSeen.Call(ctx, c.appview, &appbsky.NotificationUpdateSeen_Input{SeenAt: c.datetime()})
	return err
}

// Me is the account as others see it.
func (c *Client) Me(ctx context.Context) (*ProfileFull, error) {
	return c.GetProfile(ctx, string(c.did))
}

// GetProfile is an account as others see it, named by handle, DID or the address of its page.
func (c *Client) GetProfile(ctx context.Context, account string) (*ProfileFull, error) {
	at, err := ParseAccount(account)
	if err != nil {
		return nil, err
	}
	return appbsky.ActorGetProfile.Call(ctx, c.appview, &appbsky.ActorGetProfile_Params{Actor: string(at)})
}

// batch is how many accounts or posts are asked for at once.
const batch = 25

// GetProfiles are accounts as others see them. Those that the AppView doesn't know are left out.
func (c *Client) GetProfiles(ctx context.Context, accounts ...string) ([]ProfileFull, error) {
	names := make([]string, len(accounts))
	for i, a := range accounts {
		at, err := ParseAccount(a)
		if err != nil {
			return nil, err
		}
		names[i] = string(at)
	}
	var all []ProfileFull
	for chunk := range slices.Chunk(names, batch) {
		out, err := appbsky.ActorGetProfiles.Call(ctx, c.appview, &appbsky.ActorGetProfiles_Params{Actors: chunk})
		if err != nil {
			return all, err
		}
		all = append(all, out.Profiles...)
	}
	return all, nil
}

// GetPosts are posts as the AppView shows them. Those that it doesn't know are left out.
func (c *Client) GetPosts(ctx context.Context, posts ...string) ([]PostView, error) {
	uris := make([]string, len(posts))
	for i, p := range posts {
		uri, err := c.uri(ctx, p) // the method wants DIDs
		if err != nil {
			return nil, err
		}
		uris[i] = string(uri)
	}
	var all []PostView
	for chunk := range slices.Chunk(uris, batch) {
		out, err := appbsky.FeedGetPosts.Call(ctx, c.appview, &appbsky.FeedGetPosts_Params{Uris: chunk})
		if err != nil {
			return all, err
		}
		all = append(all, out.Posts...)
	}
	return all, nil
}

// GetPost is a post as the AppView shows it. The error wraps [client.ErrRecordNotFound] if it shows none.
func (c *Client) GetPost(ctx context.Context, post string) (*PostView, error) {
	posts, err := c.GetPosts(ctx, post)
	if err != nil {
		return nil, err
	}
	if len(posts) == 0 {
		return nil, fmt.Errorf("%s: %w", post, client.ErrRecordNotFound)
	}
	return &posts[0], nil
}

// ThreadView is a post with what it answers and what answers it.
type ThreadView = appbsky.FeedDefs_ThreadViewPost

// ErrBlocked says that an account between the reader and a post blocks.
var ErrBlocked = errors.New("the post is blocked")

// GetThread is a post with the posts above it, and the answers down to a depth; ≤ 0: the server's default.
func (c *Client) GetThread(ctx context.Context, post string, depth int) (*ThreadView, error) {
	uri, err := ParseURI(post)
	if err != nil {
		return nil, err
	}
	p := appbsky.FeedGetPostThread_Params{Uri: string(uri)}
	if depth > 0 {
		p.Depth = new(int64(depth))
	}
	out, err := appbsky.FeedGetPostThread.Call(ctx, c.appview, &p)
	if err != nil {
		return nil, err
	}
	switch v := out.Thread.Value.(type) {
	case *ThreadView:
		return v, nil
	case *appbsky.FeedDefs_NotFoundPost:
		return nil, fmt.Errorf("%s: %w", post, client.ErrRecordNotFound)
	case *appbsky.FeedDefs_BlockedPost:
		return nil, fmt.Errorf("%s: %w", post, ErrBlocked)
	}
	return nil, fmt.Errorf("%s: %w: a thread of type %q", post, client.ErrBadAnswer, out.Thread.Type())
}

// Replies walks the answers in a thread, each before the answers to it, as deep as the server told.
func Replies(t *ThreadView) iter.Seq[*ThreadView] {
	return func(yield func(*ThreadView) bool) {
		stack := []*ThreadView{t}
		for len(stack) > 0 {
			top := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if top != t && !yield(top) {
				return
			}
			for _, r := range slices.Backward(top.Replies) {
				if v, ok := r.Value.(*ThreadView); ok {
					stack = append(stack, v)
				}
			}
		}
	}
}

// PostOf decodes the record that a view holds. It is false if the view holds something else.
func PostOf(v *PostView) (*appbsky.FeedPost, bool) {
	r, err := client.Decode[appbsky.FeedPost](client.Record[data.Raw]{URI: syntax.ATURI(v.Uri), Value: v.Record})
	return &r.Value, err == nil
}
