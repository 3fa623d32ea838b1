package bsky

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/richtext"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const password = "a quiet barometer"

// network is a local network with accounts alice.test, bob.test and so on, each logged in.
func network(t *testing.T, names ...string) (*devnet.Network, []*Client) {
	t.Helper()
	net, err := devnet.Start(t.Context(), devnet.Options{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { net.Close() })
	var clients []*Client
	for _, name := range names {
		_, err := comatproto.ServerCreateAccount.Call(t.Context(), net.PDS(), &comatproto.ServerCreateAccount_Input{
			Handle: name, Email: new(name + "@example.com"), Password: new(password),
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Login(t.Context(), name, password, options(net))
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	return net, clients
}

func options(net *devnet.Network) Options {
	return Options{HTTP: net.HTTP(), Identity: net.Directory(), VideoService: "none", Langs: []string{"en"}}
}

func get[T any](t *testing.T, c *Client, uri syntax.ATURI) *client.Record[T] {
	t.Helper()
	r, err := client.Get[T](t.Context(), c.PDS(), uri, client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// valid fails the test if a record is not what its schema says.
func valid(t *testing.T, c *Client, uri syntax.ATURI) {
	t.Helper()
	r := get[data.Raw](t, c, uri)
	cat := catalog(t)
	if err := cat.ValidateRecord(uri.Collection(), r.Value); err != nil {
		t.Errorf("%s: %v", uri, err)
	}
}

func TestPost(t *testing.T) {
	_, c := network(t, "alice.test", "bob.test")
	alice, bob := c[0], c[1]

	ref, err := alice.Post(t.Context(), Post{Text: "hello @bob.test and @nobody.test, see a.com #x", Labels: []string{"nudity"}, Tags: []string{"hidden"}})
	if err != nil {
		t.Fatal(err)
	}
	valid(t, alice, ref.URI)
	post := get[appbsky.FeedPost](t, alice, ref.URI)
	if post.CID != ref.CID {
		t.Errorf("CID %s, told %s", post.CID, ref.CID)
	}
	var found []string
	for s := range (richtext.Text{Text: post.Value.Text, Facets: post.Value.Facets}).Segments() {
		if s.Features != nil {
			found = append(found, s.Mention()+s.Link()+s.Tag())
		}
	}
	if want := []string{string(bob.DID()), "https://a.com", "x"}; !slices.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
	if !slices.Equal(post.Value.Langs, []string{"en"}) || !slices.Equal(post.Value.Tags, []string{"hidden"}) {
		t.Errorf("languages %v, tags %v", post.Value.Langs, post.Value.Tags)
	}

	plain, err := alice.Post(t.Context(), Post{Text: "see a.com", Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	if f := get[appbsky.FeedPost](t, alice, plain.URI).Value.Facets; f != nil {
		t.Errorf("facets %v", f)
	}

	// Answers know their thread, however deep they are and whoever wrote it.
	answer, err := bob.Post(t.Context(), Post{Text: "yes", ReplyTo: string(ref.URI)})
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := alice.Post(t.Context(), Post{Text: "no", ReplyTo: "https://bsky.app/profile/bob.test/post/" + string(answer.URI.RecordKey())})
	if err != nil {
		t.Fatal(err)
	}
	valid(t, alice, deeper.URI)
	reply := get[appbsky.FeedPost](t, alice, deeper.URI).Value.Reply
	if reply.Root.Uri != string(ref.URI) || reply.Root.Cid != ref.CID.String() || reply.Parent.Uri != string(answer.URI) {
		t.Errorf("reply %+v", reply)
	}

	quote, err := bob.Post(t.Context(), Post{Text: "look", Quote: string(ref.URI), Images: []Image{{Data: pngWith(), Alt: "noise"}}})
	if err != nil {
		t.Fatal(err)
	}
	valid(t, bob, quote.URI)
	e, ok := get[appbsky.FeedPost](t, bob, quote.URI).Value.Embed.Value.(*appbsky.EmbedRecordWithMedia)
	if !ok || e.Record.Record.Uri != string(ref.URI) {
		t.Fatalf("embed %+v", e)
	}
	img := e.Media.Value.(*appbsky.EmbedImages).Images[0]
	if img.AspectRatio.Width != 40 || img.AspectRatio.Height != 30 || img.Alt != "noise" {
		t.Errorf("image %+v", img)
	}
	blob, err := alice.PDS().Blob(t.Context(), bob.DID(), img.Image.Ref, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if got, err := io.ReadAll(blob); err != nil || !bytes.Equal(got, pngWith()) {
		t.Errorf("blob: %d bytes, %v", len(got), err)
	}

	card, err := alice.Post(t.Context(), Post{Link: &Card{URI: "https://a.test/", Title: "A", Description: "B", Thumb: jpegWith()}})
	if err != nil {
		t.Fatal(err)
	}
	valid(t, alice, card.URI)

	film := []byte("a film")
	video, err := alice.Post(t.Context(), Post{Text: "film", Video: &Video{Data: bytes.NewReader(film), Size: int64(len(film)), Alt: "x", Width: 16, Height: 9}})
	if err != nil {
		t.Fatal(err)
	}
	valid(t, alice, video.URI)

	gated, err := alice.Post(t.Context(), Post{Text: "quiet", Replies: Audience{Mentioned: true, Lists: []string{"at://bob.test/app.bsky.graph.list/a"}}, NoQuotes: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"app.bsky.feed.threadgate", "app.bsky.feed.postgate"} {
		valid(t, alice, syntax.ATURI(strings.Replace(string(gated.URI), "app.bsky.feed.post", kind, 1)))
	}

	if err := alice.Delete(t.Context(), "https://bsky.app/profile/alice.test/post/"+string(gated.URI.RecordKey())); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get[data.Raw](t.Context(), alice.PDS(), gated.URI, client.GetOptions{}); !errors.Is(err, client.ErrRecordNotFound) {
		t.Errorf("after deletion: %v", err)
	}
	if err := alice.Delete(t.Context(), string(answer.URI)); !errors.Is(err, ErrNotYours) {
		t.Errorf("deleting another's post: %v", err)
	}
}

func catalog(t *testing.T) *lexicon.Catalog {
	t.Helper()
	cat := lexicon.NewCatalog()
	if err := cat.AddFS(lexicons.FS); err != nil {
		t.Fatal(err)
	}
	return cat
}

func TestThread(t *testing.T) {
	_, c := network(t, "alice.test")
	long := strings.Repeat("One sentence of some length follows another. ", 30)
	var posts []Post
	for _, s := range Split(long) {
		posts = append(posts, Post{Text: s})
	}
	if len(posts) < 4 {
		t.Fatalf("%d posts", len(posts))
	}
	posts[0].Replies.Nobody = true
	refs, err := c[0].Thread(t.Context(), posts...)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for i, ref := range refs {
		valid(t, c[0], ref.URI)
		p := get[appbsky.FeedPost](t, c[0], ref.URI)
		if p.CID != ref.CID {
			t.Errorf("post %d: CID %s, told %s", i, p.CID, ref.CID)
		}
		texts = append(texts, p.Value.Text)
		if i == 0 {
			if p.Value.Reply != nil {
				t.Error("the first post answers")
			}
			continue
		}
		if p.Value.Reply.Parent.Uri != string(refs[i-1].URI) || p.Value.Reply.Parent.Cid != refs[i-1].CID.String() || p.Value.Reply.Root.Uri != string(refs[0].URI) {
			t.Errorf("post %d answers %+v", i, p.Value.Reply)
		}
	}
	if got := strings.Join(texts, " "); got != strings.TrimSpace(long) {
		t.Errorf("the thread says %q", got)
	}
	if !slices.IsSortedFunc(refs, func(a, b Ref) int { return strings.Compare(string(a.URI), string(b.URI)) }) {
		t.Error("record keys don't rise")
	}
}

func TestActs(t *testing.T) {
	net, c := network(t, "alice.test", "bob.test")
	alice, bob := c[0], c[1]
	post, err := bob.Post(t.Context(), Post{Text: "like me"})
	if err != nil {
		t.Fatal(err)
	}
	link := "https://bsky.app/profile/bob.test/post/" + string(post.URI.RecordKey())
	like, err := alice.Like(t.Context(), link)
	if err != nil {
		t.Fatal(err)
	}
	valid(t, alice, like.URI)
	if got := get[appbsky.FeedLike](t, alice, like.URI).Value.Subject; got.Uri != string(post.URI) || got.Cid != post.CID.String() {
		t.Errorf("liked %+v", got)
	}
	repost, err := alice.Repost(t.Context(), string(post.URI))
	if err != nil {
		t.Fatal(err)
	}
	valid(t, alice, repost.URI)
	follow, err := alice.Follow(t.Context(), "@bob.test")
	if err != nil {
		t.Fatal(err)
	}
	valid(t, alice, follow.URI)
	block, err := alice.Block(t.Context(), string(bob.DID()))
	if err != nil {
		t.Fatal(err)
	}
	valid(t, alice, block.URI)

	for name, undo := range map[string]func() error{
		"unlike":   func() error { return alice.Unlike(t.Context(), link) },
		"unrepost": func() error { return alice.Unrepost(t.Context(), link) },
		"unfollow": func() error { return alice.Unfollow(t.Context(), "bob.test") },
		"unblock":  func() error { return alice.Unblock(t.Context(), "https://bsky.app/profile/bob.test") },
	} {
		if err := undo(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := undo(); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s twice: %v", name, err)
		}
	}
	for r, err := range client.List[data.Raw](t.Context(), alice.PDS(), syntax.AtIdentifier(alice.DID()), client.ListOptions{Collection: "app.bsky.feed.like"}) {
		t.Errorf("still there: %v, %v", r.URI, err)
	}

	// Profile: a change by somebody else meanwhile is not lost.
	rounds := 0
	_, err = alice.UpdateProfile(t.Context(), func(p *appbsky.ActorProfile) error {
		if rounds++; rounds == 1 {
			_, err := alice.UpdateProfile(t.Context(), func(p *appbsky.ActorProfile) error { p.Description = new("from elsewhere"); return nil })
			if err != nil {
				return err
			}
		}
		p.DisplayName = new("Alice")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := alice.Profile(t.Context())
	if err != nil || *p.DisplayName != "Alice" || *p.Description != "from elsewhere" || rounds != 2 {
		t.Errorf("after %d rounds: %+v, %v", rounds, p, err)
	}
	boom := errors.New("no")
	if _, err := alice.UpdateProfile(t.Context(), func(*appbsky.ActorProfile) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}

	// Sessions move.
	s, err := alice.SessionString()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Import(t.Context(), s, options(net))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Post(t.Context(), Post{Text: "from a string"}); err != nil {
		t.Error(err)
	}
	if err := alice.UpdateHandle(t.Context(), "carol.test"); err != nil {
		t.Error(err)
	}
	if did, err := bob.ResolveHandle(t.Context(), "carol.test"); err != nil || did != alice.DID() {
		t.Errorf("%s, %v", did, err)
	}
	if err := alice.Logout(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := Resume(t.Context(), bob.DID(), options(net)); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("got %v", err)
	}
}

func TestRefused(t *testing.T) {
	net, c := network(t, "alice.test")
	alice := c[0]
	var long *TooLongError
	var size *ImageSizeError
	for name, check := range map[string]struct {
		p  Post
		ok func(error) bool
	}{
		"empty":        {Post{Text: " \n"}, func(err error) bool { return errors.Is(err, ErrEmptyPost) }},
		"long":         {Post{Text: strings.Repeat("é", 301)}, func(err error) bool { return errors.As(err, &long) && long.Graphemes == 301 && long.Bytes == 602 }},
		"no image":     {Post{Images: []Image{{Data: []byte("x")}}}, func(err error) bool { return errors.Is(err, ErrImage) }},
		"large image":  {Post{Images: []Image{{Data: pngWith(appendPNGChunk(nil, "IDAT", make([]byte, MaxImage)))}}}, func(err error) bool { return errors.As(err, &size) }},
		"five images":  {Post{Images: make([]Image, 5)}, func(err error) bool { return err != nil }},
		"two kinds":    {Post{Images: make([]Image, 1), Link: &Card{URI: "https://a.test"}}, func(err error) bool { return err != nil }},
		"bad link":     {Post{Link: &Card{URI: "not a link"}}, func(err error) bool { return err != nil }},
		"bad facet":    {Post{Text: "a", Facets: []appbsky.RichtextFacet{{}}}, func(err error) bool { return errors.Is(err, richtext.ErrFacet) }},
		"gone parent":  {Post{Text: "a", ReplyTo: "at://alice.test/app.bsky.feed.post/3kaaaaaaaaa2a"}, func(err error) bool { return errors.Is(err, client.ErrRecordNotFound) }},
		"no parent":    {Post{Text: "a", ReplyTo: "https://bsky.app/profile/alice.test"}, func(err error) bool { return err != nil }},
		"empty video":  {Post{Video: &Video{}}, func(err error) bool { return err != nil }},
		"other parent": {Post{Text: "a", ReplyTo: "at://nobody.test/app.bsky.feed.post/3kaaaaaaaaa2a"}, func(err error) bool { return err != nil }},
	} {
		if _, err := alice.Post(t.Context(), check.p); !check.ok(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for r, err := range client.List[data.Raw](t.Context(), alice.PDS(), syntax.AtIdentifier(alice.DID()), client.ListOptions{Collection: "app.bsky.feed.post"}) {
		t.Errorf("posted: %v, %v", r.URI, err)
	}
	if _, err := Login(t.Context(), "alice.test", "wrong", options(net)); err == nil {
		t.Error("logged in with a wrong password")
	}
	if _, err := Login(t.Context(), "not a handle", "x", options(net)); err == nil {
		t.Error("logged in as nobody")
	}
}

// lossy loses answers: those of every request whose number is in lost, after or before the server saw it.
type lossy struct {
	next   http.RoundTripper
	count  atomic.Int32
	after  func(n int, r *http.Request) bool
	before func(n int, r *http.Request) bool
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost || !strings.Contains(r.URL.Path, "Record") && !strings.Contains(r.URL.Path, "applyWrites") {
		return l.next.RoundTrip(r)
	}
	n := int(l.count.Add(1))
	if l.before != nil && l.before(n, r) {
		return nil, errors.New("the connection broke")
	}
	resp, err := l.next.RoundTrip(r)
	if err == nil && l.after != nil && l.after(n, r) {
		resp.Body.Close()
		return nil, errors.New("the connection broke")
	}
	return resp, err
}

// TestLostAnswers: whatever is lost on the way, a post is there once, and never said to be there when it isn't.
func TestLostAnswers(t *testing.T) {
	net, c := network(t, "alice.test")
	for name, l := range map[string]*lossy{
		"after the first":  {after: func(n int, _ *http.Request) bool { return n == 1 }},
		"before the first": {before: func(n int, _ *http.Request) bool { return n == 1 }},
		"before two":       {before: func(n int, _ *http.Request) bool { return n <= 2 }},
		"always after":     {after: func(int, *http.Request) bool { return true }},
		"always before":    {before: func(int, *http.Request) bool { return true }},
	} {
		for _, thread := range []int{1, 3} {
			t.Run(fmt.Sprint(name, " ", thread), func(t *testing.T) {
				l := &lossy{next: net.HTTP().Transport, after: l.after, before: l.before}
				if l.next == nil {
					t.Fatal("the network's client has no transport of its own")
				}
				x := *c[0].PDS().XRPC()
				x.HTTP = &http.Client{Transport: l}
				o := options(net)
				o.HTTP = nil
				alice := New(&x, c[0].DID(), o)
				text := fmt.Sprintf("%s %d %d", name, thread, time.Now().UnixNano())
				_, err := alice.Thread(t.Context(), slices.Repeat([]Post{{Text: text}}, thread)...)
				there := 0
				for r, err := range client.List[appbsky.FeedPost](t.Context(), c[0].PDS(), syntax.AtIdentifier(alice.DID()), client.ListOptions{}) {
					if err != nil {
						t.Fatal(err)
					}
					if r.Value.Text == text {
						there++
					}
				}
				want := thread
				if name == "always before" {
					want = 0
				}
				if there != want || (err == nil) != (want > 0) {
					t.Errorf("%d posts are there, want %d; error: %v", there, want, err)
				}
			})
		}
	}
}

// appview is a fake that knows some of the methods. Lists have pages of two and end after five, with an empty page within.
func appview(t *testing.T, c *Client) *xrpc.Server {
	t.Helper()
	s := xrpc.NewServer(xrpc.ServerOptions{})
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	c.appview = &xrpc.Client{Host: srv.URL}
	return s
}

func profile(i int) ProfileView {
	return ProfileView{Did: "did:web:p" + strconv.Itoa(i) + ".test", Handle: "p" + strconv.Itoa(i) + ".test"}
}

func TestLists(t *testing.T) {
	_, clients := network(t, "alice.test")
	c := clients[0]
	s := appview(t, c)
	calls := 0
	var limits []int64
	type P = appbsky.GraphGetFollows_Params
	xrpc.HandleQuery(s, appbsky.GraphGetFollows, func(_ context.Context, _ *xrpc.Request, p *P) (*appbsky.GraphGetFollows_Output, error) {
		calls++
		if p.Limit != nil {
			limits = append(limits, *p.Limit)
		}
		at := 0
		if p.Cursor != nil {
			at, _ = strconv.Atoi(*p.Cursor)
		}
		out := &appbsky.GraphGetFollows_Output{Subject: profile(0), Follows: []ProfileView{}}
		switch p.Actor {
		case "loop.test":
			out.Cursor = new("1")
			return out, nil
		case "empty.test":
			out.Cursor = new(strconv.Itoa(at + 1))
			return out, nil
		case "fails.test":
			if at > 0 {
				return nil, &xrpc.Error{Status: 400, Name: "InvalidRequest", Message: "enough"}
			}
		}
		if at != 2 { // an empty page within
			out.Follows = append(out.Follows, profile(at), profile(at+1))
		}
		if at < 4 {
			out.Cursor = new(strconv.Itoa(at + 2))
		}
		return out, nil
	})
	names := func(l List[ProfileView]) (names []string, err error) {
		for p, e := range l.All(t.Context()) {
			if e != nil {
				return names, e
			}
			names = append(names, p.Handle)
		}
		return names, nil
	}
	want := []string{"p0.test", "p1.test", "p4.test", "p5.test"}
	if got, err := names(c.Follows("@alice.test")); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := names(c.Follows("alice.test").From("4")); err != nil || !slices.Equal(got, want[2:]) {
		t.Errorf("from 4: %v, %v", got, err)
	}
	calls, limits = 0, nil
	if got, err := c.Follows("alice.test").First(t.Context(), 1); err != nil || len(got) != 1 || calls != 1 {
		t.Errorf("first: %v, %v after %d calls", got, err, calls)
	}
	if !slices.Equal(limits, []int64{1}) {
		t.Errorf("limits %v", limits)
	}
	items, next, err := c.Follows("alice.test").PageSize(2).Page(t.Context())
	if err != nil || len(items) != 2 || next != "2" {
		t.Errorf("page: %v, %q, %v", items, next, err)
	}
	for _, who := range []string{"loop.test", "empty.test"} {
		calls = 0
		if _, err := names(c.Follows(who)); !errors.Is(err, client.ErrPaging) || calls > 110 {
			t.Errorf("%s: %v after %d calls", who, err, calls)
		}
	}
	var refusal *xrpc.Error
	if got, err := names(c.Follows("fails.test")); !errors.As(err, &refusal) || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := names(c.Follows("no account")); err == nil {
		t.Error("listed the follows of nobody")
	}
}

// TestReading calls every reading method once against a fake that checks what it is asked.
func TestReading(t *testing.T) {
	_, clients := network(t, "alice.test")
	c := clients[0]
	s := appview(t, c)
	var asked string
	record, err := data.Marshal(&appbsky.FeedPost{Text: "hi", CreatedAt: "2026-01-01T00:00:00.000Z"})
	if err != nil {
		t.Fatal(err)
	}
	uri := "at://" + string(c.DID()) + "/app.bsky.feed.post/3kaaaaaaaaa2a"
	view := PostView{Uri: uri, Cid: cid.Sum(cid.DagCBOR, record).String(), Record: record, IndexedAt: "2026-01-01T00:00:00.000Z",
		Author: appbsky.ActorDefs_ProfileViewBasic{Did: string(c.DID()), Handle: "alice.test"}}
	feed := []FeedItem{{Post: view}}
	handle(s, appbsky.FeedGetTimeline, &asked, func(p *appbsky.FeedGetTimeline_Params) (string, *appbsky.FeedGetTimeline_Output) {
		return "", &appbsky.FeedGetTimeline_Output{Feed: feed}
	})
	handle(s, appbsky.FeedGetAuthorFeed, &asked, func(p *appbsky.FeedGetAuthorFeed_Params) (string, *appbsky.FeedGetAuthorFeed_Output) {
		return p.Actor, &appbsky.FeedGetAuthorFeed_Output{Feed: feed}
	})
	handle(s, appbsky.FeedGetActorLikes, &asked, func(p *appbsky.FeedGetActorLikes_Params) (string, *appbsky.FeedGetActorLikes_Output) {
		return p.Actor, &appbsky.FeedGetActorLikes_Output{Feed: feed}
	})
	handle(s, appbsky.FeedGetFeed, &asked, func(p *appbsky.FeedGetFeed_Params) (string, *appbsky.FeedGetFeed_Output) {
		return p.Feed, &appbsky.FeedGetFeed_Output{Feed: feed}
	})
	handle(s, appbsky.FeedGetListFeed, &asked, func(p *appbsky.FeedGetListFeed_Params) (string, *appbsky.FeedGetListFeed_Output) {
		return p.List, &appbsky.FeedGetListFeed_Output{Feed: feed}
	})
	handle(s, appbsky.FeedGetLikes, &asked, func(p *appbsky.FeedGetLikes_Params) (string, *appbsky.FeedGetLikes_Output) {
		return p.Uri, &appbsky.FeedGetLikes_Output{Uri: p.Uri, Likes: []appbsky.FeedGetLikes_Like{{Actor: profile(1), CreatedAt: view.IndexedAt, IndexedAt: view.IndexedAt}}}
	})
	handle(s, appbsky.FeedGetRepostedBy, &asked, func(p *appbsky.FeedGetRepostedBy_Params) (string, *appbsky.FeedGetRepostedBy_Output) {
		return p.Uri, &appbsky.FeedGetRepostedBy_Output{Uri: p.Uri, RepostedBy: []ProfileView{profile(1)}}
	})
	handle(s, appbsky.FeedGetQuotes, &asked, func(p *appbsky.FeedGetQuotes_Params) (string, *appbsky.FeedGetQuotes_Output) {
		return p.Uri, &appbsky.FeedGetQuotes_Output{Uri: p.Uri, Posts: []PostView{view}}
	})
	handle(s, appbsky.GraphGetFollowers, &asked, func(p *appbsky.GraphGetFollowers_Params) (string, *appbsky.GraphGetFollowers_Output) {
		return p.Actor, &appbsky.GraphGetFollowers_Output{Subject: profile(0), Followers: []ProfileView{profile(1)}}
	})
	handle(s, appbsky.GraphGetMutes, &asked, func(p *appbsky.GraphGetMutes_Params) (string, *appbsky.GraphGetMutes_Output) {
		return "", &appbsky.GraphGetMutes_Output{Mutes: []ProfileView{profile(1)}}
	})
	handle(s, appbsky.GraphGetBlocks, &asked, func(p *appbsky.GraphGetBlocks_Params) (string, *appbsky.GraphGetBlocks_Output) {
		return "", &appbsky.GraphGetBlocks_Output{Blocks: []ProfileView{profile(1)}}
	})
	list := appbsky.GraphDefs_ListView{Uri: "at://alice.test/app.bsky.graph.list/a", Cid: view.Cid, Creator: profile(0), Name: "l", Purpose: "app.bsky.graph.defs#curatelist", IndexedAt: view.IndexedAt}
	handle(s, appbsky.GraphGetLists, &asked, func(p *appbsky.GraphGetLists_Params) (string, *appbsky.GraphGetLists_Output) {
		return p.Actor, &appbsky.GraphGetLists_Output{Lists: []appbsky.GraphDefs_ListView{list}}
	})
	handle(s, appbsky.GraphGetList, &asked, func(p *appbsky.GraphGetList_Params) (string, *appbsky.GraphGetList_Output) {
		return p.List, &appbsky.GraphGetList_Output{List: list, Items: []appbsky.GraphDefs_ListItemView{{Uri: list.Uri, Subject: profile(1)}}}
	})
	handle(s, appbsky.FeedSearchPosts, &asked, func(p *appbsky.FeedSearchPosts_Params) (string, *appbsky.FeedSearchPosts_Output) {
		return p.Q, &appbsky.FeedSearchPosts_Output{Posts: []PostView{view}}
	})
	handle(s, appbsky.ActorSearchActors, &asked, func(p *appbsky.ActorSearchActors_Params) (string, *appbsky.ActorSearchActors_Output) {
		return *p.Q, &appbsky.ActorSearchActors_Output{Actors: []ProfileView{profile(1)}}
	})
	handle(s, appbsky.NotificationListNotifications, &asked, func(p *appbsky.NotificationListNotifications_Params) (string, *appbsky.NotificationListNotifications_Output) {
		return "", &appbsky.NotificationListNotifications_Output{Notifications: []Notification{{Author: profile(1), Cid: view.Cid, Uri: uri, Reason: "like", Record: record, IndexedAt: view.IndexedAt}}}
	})
	handle(s, appbsky.NotificationGetUnreadCount, &asked, func(*appbsky.NotificationGetUnreadCount_Params) (string, *appbsky.NotificationGetUnreadCount_Output) {
		return "", &appbsky.NotificationGetUnreadCount_Output{Count: 7}
	})
	handle(s, appbsky.ActorGetProfile, &asked, func(p *appbsky.ActorGetProfile_Params) (string, *ProfileFull) {
		return p.Actor, &ProfileFull{Did: "did:web:a.test", Handle: "a.test"}
	})
	handle(s, appbsky.ActorGetProfiles, &asked, func(p *appbsky.ActorGetProfiles_Params) (string, *appbsky.ActorGetProfiles_Output) {
		out := &appbsky.ActorGetProfiles_Output{}
		for range p.Actors {
			out.Profiles = append(out.Profiles, ProfileFull{Did: "did:web:a.test", Handle: "a.test"})
		}
		return strconv.Itoa(len(p.Actors)), out
	})
	handle(s, appbsky.FeedGetPosts, &asked, func(p *appbsky.FeedGetPosts_Params) (string, *appbsky.FeedGetPosts_Output) {
		return strings.Join(p.Uris, " "), &appbsky.FeedGetPosts_Output{Posts: []PostView{view}}
	})
	handle(s, appbsky.FeedGetPostThread, &asked, func(p *appbsky.FeedGetPostThread_Params) (string, *appbsky.FeedGetPostThread_Output) {
		out := new(appbsky.FeedGetPostThread_Output)
		switch {
		case strings.HasSuffix(p.Uri, "gone"):
			out.Thread.Value = &appbsky.FeedDefs_NotFoundPost{NotFound: true, Uri: p.Uri}
		case strings.HasSuffix(p.Uri, "blocked"):
			out.Thread.Value = &appbsky.FeedDefs_BlockedPost{Blocked: true, Uri: p.Uri, Author: appbsky.FeedDefs_BlockedAuthor{Did: "did:web:b.test"}}
		default:
			leaf := func(replies ...appbsky.FeedDefs_ThreadViewPost_Replies_Elem) appbsky.FeedDefs_ThreadViewPost_Replies_Elem {
				return appbsky.FeedDefs_ThreadViewPost_Replies_Elem{Value: &ThreadView{Post: view, Replies: replies}}
			}
			out.Thread.Value = &ThreadView{Post: view, Replies: []appbsky.FeedDefs_ThreadViewPost_Replies_Elem{leaf(leaf(), leaf()), leaf()}}
		}
		return p.Uri, out
	})
	var muted []string
	xrpc.HandleProcedure(s, appbsky.GraphMuteActor, func(_ context.Context, _ *xrpc.Request, in *appbsky.GraphMuteActor_Input) (*xrpc.None, error) {
		muted = append(muted, "+"+in.Actor)
		return nil, nil
	})
	xrpc.HandleProcedure(s, appbsky.GraphUnmuteActor, func(_ context.Context, _ *xrpc.Request, in *appbsky.GraphUnmuteActor_Input) (*xrpc.None, error) {
		muted = append(muted, "-"+in.Actor)
		return nil, nil
	})
	seen := ""
	xrpc.HandleProcedure(s, appbsky.NotificationUpdateSeen, func(_ context.Context, _ *xrpc.Request, in *appbsky.NotificationUpdateSeen_Input) (*xrpc.None, error) {
		seen = in.SeenAt
		return nil, nil
	})
	prefs := appbsky.ActorDefs_Preferences{{Raw: raw(t, `{"$type":"com.example.pref","x":1}`)}}
	xrpc.HandleQuery(s, appbsky.ActorGetPreferences, func(context.Context, *xrpc.Request, *xrpc.None) (*appbsky.ActorGetPreferences_Output, error) {
		return &appbsky.ActorGetPreferences_Output{Preferences: prefs}, nil
	})
	xrpc.HandleProcedure(s, appbsky.ActorPutPreferences, func(_ context.Context, _ *xrpc.Request, in *appbsky.ActorPutPreferences_Input) (*xrpc.None, error) {
		prefs = in.Preferences
		return nil, nil
	})

	one(t, &asked, "", c.Timeline())
	one(t, &asked, "bob.test", c.AuthorFeed("@bob.test"))
	one(t, &asked, "bob.test", c.ActorLikes("https://bsky.app/profile/bob.test"))
	one(t, &asked, "at://bob.test/app.bsky.feed.generator/x", c.Feed("https://bsky.app/profile/bob.test/feed/x"))
	one(t, &asked, "at://bob.test/app.bsky.graph.list/x", c.ListFeed("https://bsky.app/profile/bob.test/lists/x"))
	one(t, &asked, uri, c.Likes(uri))
	one(t, &asked, uri, c.RepostedBy(uri))
	one(t, &asked, uri, c.Quotes(uri))
	one(t, &asked, "bob.test", c.Followers("bob.test"))
	one(t, &asked, "", c.Mutes())
	one(t, &asked, "", c.Blocks())
	one(t, &asked, "bob.test", c.Lists("bob.test"))
	one(t, &asked, "at://bob.test/app.bsky.graph.list/x", c.ListMembers("at://bob.test/app.bsky.graph.list/x"))
	one(t, &asked, "cats from:bob.test", c.SearchPosts("cats from:bob.test"))
	one(t, &asked, "cats", c.SearchAccounts("cats"))
	one(t, &asked, "", c.Notifications())
	if n, err := c.UnreadCount(t.Context()); n != 7 || err != nil {
		t.Errorf("%d unread, %v", n, err)
	}
	if err := c.MarkSeen(t.Context()); err != nil || parseTime(seen).IsZero() {
		t.Errorf("seen %q, %v", seen, err)
	}
	if p, err := c.Me(t.Context()); err != nil || p.Handle != "a.test" || asked != string(c.DID()) {
		t.Errorf("%+v, %v, asked %q", p, err, asked)
	}
	if p, err := c.GetProfiles(t.Context(), slices.Repeat([]string{"a.test"}, 60)...); err != nil || len(p) != 60 || asked != "10" {
		t.Errorf("%d profiles, %v, asked %q", len(p), err, asked)
	}
	p, err := c.GetPost(t.Context(), "https://bsky.app/profile/alice.test/post/3kaaaaaaaaa2a")
	if err != nil || asked != uri {
		t.Fatalf("%v, asked %q", err, asked)
	}
	if post, ok := PostOf(p); !ok || post.Text != "hi" {
		t.Errorf("%+v, %v", post, ok)
	}
	thread, err := c.GetThread(t.Context(), uri, 3)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(slices.Collect(Replies(thread))); n != 4 {
		t.Errorf("%d replies", n)
	}
	if _, err := c.GetThread(t.Context(), "at://a.test/app.bsky.feed.post/gone", 0); !errors.Is(err, client.ErrRecordNotFound) {
		t.Errorf("gone: %v", err)
	}
	if _, err := c.GetThread(t.Context(), "at://a.test/app.bsky.feed.post/blocked", 0); !errors.Is(err, ErrBlocked) {
		t.Errorf("blocked: %v", err)
	}
	if err := errors.Join(c.Mute(t.Context(), "@bob.test"), c.Unmute(t.Context(), "bob.test")); err != nil || !slices.Equal(muted, []string{"+bob.test", "-bob.test"}) {
		t.Errorf("%v, %v", muted, err)
	}
	err = c.UpdatePreferences(t.Context(), func(p appbsky.ActorDefs_Preferences) (appbsky.ActorDefs_Preferences, error) {
		return append(p, appbsky.ActorDefs_Preferences_Elem{Value: &appbsky.ActorDefs_AdultContentPref{Enabled: true}}), nil
	})
	if err != nil || len(prefs) != 2 || prefs[0].Type() != "com.example.pref" || prefs[1].Type() != "app.bsky.actor.defs#adultContentPref" {
		t.Errorf("%v, %v", prefs, err)
	}
}

func raw(t *testing.T, json string) data.Raw {
	t.Helper()
	b, err := data.AppendCBOR(nil, []byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// handle adds a method to a fake, which notes what it was asked about.
func handle[P, O any](s *xrpc.Server, q xrpc.Query[P, O], asked *string, answer func(*P) (string, *O)) {
	xrpc.HandleQuery(s, q, func(_ context.Context, _ *xrpc.Request, p *P) (*O, error) {
		about, out := answer(p)
		*asked = about
		return out, nil
	})
}

// one checks that a list has one item and asks about what it should.
func one[T any](t *testing.T, asked *string, about string, l List[T]) {
	t.Helper()
	*asked = "nothing"
	items, err := l.First(t.Context(), 10)
	if err != nil || len(items) != 1 || *asked != about {
		t.Errorf("%d items, %v, asked about %q", len(items), err, *asked)
	}
}

func TestVideoService(t *testing.T) {
	defer func(d time.Duration) { firstPoll = d }(firstPoll)
	firstPoll = time.Millisecond
	net, clients := network(t, "alice.test")
	film := []byte("a film")
	blob := data.Blob{Ref: cid.Sum(cid.Raw, film), MimeType: "video/mp4", Size: int64(len(film))}
	for name, wrapped := range map[string]bool{"wrapped": true, "bare": false} {
		for _, state := range []string{"JOB_STATE_COMPLETED", "JOB_STATE_FAILED"} {
			t.Run(name+" "+state, func(t *testing.T) {
				var polls atomic.Int32
				status := func(state string) appbsky.VideoDefs_JobStatus {
					s := appbsky.VideoDefs_JobStatus{JobId: "j1", Did: string(clients[0].DID()), State: state}
					if state == "JOB_STATE_COMPLETED" {
						s.Blob = &blob
					}
					if state == "JOB_STATE_FAILED" {
						s.Error = new("too dark")
					}
					return s
				}
				mux := http.NewServeMux()
				mux.HandleFunc("POST /xrpc/app.bsky.video.uploadVideo", func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					if !bytes.Equal(body, film) || r.URL.Query().Get("did") != string(clients[0].DID()) || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
						t.Errorf("got %q, %s, %s", body, r.URL.RawQuery, r.Header.Get("Authorization"))
					}
					if wrapped {
						xrpc.WriteJSON(w, 200, &appbsky.VideoUploadVideo_Output{JobStatus: status("JOB_STATE_CREATED")})
					} else {
						xrpc.WriteJSON(w, 200, new(status("JOB_STATE_CREATED")))
					}
				})
				mux.HandleFunc("GET /xrpc/app.bsky.video.getJobStatus", func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Authorization") != "" || r.URL.Query().Get("jobId") != "j1" {
						t.Errorf("asked with %s, %s", r.Header.Get("Authorization"), r.URL.RawQuery)
					}
					switch polls.Add(1) {
					case 1:
						http.Error(w, "busy", http.StatusServiceUnavailable)
					case 2:
						xrpc.WriteJSON(w, 200, &appbsky.VideoGetJobStatus_Output{JobStatus: status("JOB_STATE_ENCODING")})
					default:
						xrpc.WriteJSON(w, 200, &appbsky.VideoGetJobStatus_Output{JobStatus: status(state)})
					}
				})
				srv := httptest.NewServer(mux)
				defer srv.Close()
				o := options(net)
				o.VideoService = srv.URL
				o.HTTP = &http.Client{Transport: split{srv.URL, net.HTTP().Transport}}
				x := *clients[0].PDS().XRPC()
				alice := New(&x, clients[0].DID(), o)
				// The PDS only takes a post whose blob it has: the fake service doesn't upload it.
				if _, err := alice.PDS().UploadBlob(t.Context(), bytes.NewReader(film), "video/mp4", blob.Size); err != nil {
					t.Fatal(err)
				}
				ref, err := alice.Post(t.Context(), Post{Text: "film", Video: &Video{Data: bytes.NewReader(film), Size: blob.Size}})
				var failed *VideoError
				switch {
				case state == "JOB_STATE_FAILED":
					if !errors.As(err, &failed) || failed.JobID != "j1" || !strings.Contains(failed.Message, "too dark") {
						t.Errorf("got %v", err)
					}
				case err != nil:
					t.Error(err)
				default:
					valid(t, alice, ref.URI)
				}
			})
		}
	}
}

// split sends requests to a test's own server by the standard transport and all others by another.
type split struct {
	own   string
	other http.RoundTripper
}

func (s split) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.String(), s.own) {
		return http.DefaultTransport.RoundTrip(r)
	}
	return s.other.RoundTrip(r)
}

// TestServerNames takes servers as people name them, and shows no secret when a client is printed.
func TestServerNames(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "bsky.social": "https://bsky.social", " https://pds.test/xrpc/ ": "https://pds.test", "http://localhost:2583": "http://localhost:2583", "https://pds.test/": "https://pds.test",
	} {
		if got := hostURL(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	net, _ := network(t, "alice.test")
	o := options(net)
	o.PDS, o.Token = net.URLs().PDS+"/xrpc", "SECRET-CODE"
	c, err := Login(t.Context(), "@alice.test", password, o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.SessionString()
	if err != nil {
		t.Fatal(err)
	}
	token := strings.Split(s, ":::")[2]
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if out := fmt.Sprintf(form, c); strings.Contains(out, "SECRET-CODE") || strings.Contains(out, token) || len(out) == 0 {
			t.Errorf("%s: %s", form, out)
		}
	}
	if got := c.String(); got != "client of "+string(c.DID())+" at "+net.URLs().PDS {
		t.Error(got)
	}
	text := strings.TrimSpace(s)
	if again, err := Import(t.Context(), text, o); err != nil || again.DID() != c.DID() {
		t.Errorf("%v, %v", again, err)
	}
}

// TestGuardedServers has identities name servers on private addresses: a client that was given no HTTP client goes to none of
// them, with a password least of all.
func TestGuardedServers(t *testing.T) {
	private := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a private address was asked") }))
	defer private.Close()
	plc := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"id":%q,"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":%q}]}`, strings.TrimPrefix(r.URL.Path, "/"), private.URL)
	}))
	defer plc.Close()
	o := Options{Identity: identity.New(identity.Options{PLC: plc.URL})}
	const did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	if _, err := Login(t.Context(), did, "p", o); err == nil {
		t.Error("logged in")
	}
	o.Retry = &xrpc.Retry{Attempts: 1}
	c := New(&xrpc.Client{Host: "https://pds.test"}, "did:web:a.test", o)
	if _, err := c.Ref(t.Context(), "at://"+did+"/app.bsky.feed.post/3kaaaaaaaaa2a"); err == nil {
		t.Error("read a record")
	}
}

// TestReadsAreRepeated has an AppView that fails once in a while: a client of this package gets over it, and posts nothing
// twice meanwhile.
func TestReadsAreRepeated(t *testing.T) {
	n := 0
	x := &xrpc.Client{Host: "https://pds.test", HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		n++
		status, body := 200, `{"did":"did:web:a.test","handle":"a.test"}`
		if n%2 == 1 {
			status, body = 503, ""
		}
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}, "Retry-After": {"0"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1}, nil
	})}}
	if p, err := New(x, "did:web:a.test", Options{}).Me(t.Context()); err != nil || p.Handle != "a.test" || n != 2 {
		t.Errorf("%v, %v after %d requests", p, err, n)
	}
	if _, err := New(x, "did:web:a.test", Options{Retry: &xrpc.Retry{Attempts: 1}}).Me(t.Context()); err == nil || n != 3 {
		t.Errorf("%v after %d requests", err, n)
	}
	if err := New(x, "did:web:a.test", Options{}).Mute(t.Context(), "b.test"); err != nil || n != 4 {
		t.Errorf("%v after %d requests", err, n)
	}
	if err := New(x, "did:web:a.test", Options{}).Mute(t.Context(), "b.test"); err == nil || n != 5 {
		t.Errorf("a write was sent again: %v after %d requests", err, n)
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"at://alice.test/app.bsky.feed.post/3k":              "at://alice.test/app.bsky.feed.post/3k",
		"https://bsky.app/profile/alice.test/post/3k":        "at://alice.test/app.bsky.feed.post/3k",
		" https://bsky.app/profile/did:web:a.test/post/3k/ ": "at://did:web:a.test/app.bsky.feed.post/3k",
		"https://bsky.app/profile/a.test/feed/x":             "at://a.test/app.bsky.feed.generator/x",
		"https://bsky.app/profile/a.test/lists/x":            "at://a.test/app.bsky.graph.list/x",
		"https://bsky.app/starter-pack/a.test/x":             "at://a.test/app.bsky.graph.starterpack/x",
		"https://bsky.app/profile/a.test":                    "",
		"https://example.com/profile/a.test/post/x":          "",
		"https://notbsky.app/profile/a.test/post/x":          "",
		"https://bsky.app/profile/a.test/post/..":            "",
		"https://bsky.app/profile/a.test/post/a%2Fb":         "",
		"at://a.test/app.bsky.feed.post":                     "",
		"at://a.test":                                        "",
		"":                                                   "",
	} {
		if got, err := ParseURI(in); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"alice.test": "alice.test", "@alice.test": "alice.test", "did:web:a.test": "did:web:a.test", "at://alice.test/x.y.z": "alice.test",
		"https://bsky.app/profile/alice.test/post/3k": "alice.test", "https://bsky.app/": "", "alice": "", "": "", "https://example.com/profile/a.test": "",
	} {
		if got, err := ParseAccount(in); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestSplit(t *testing.T) {
	for name, s := range map[string]string{
		"short": "hello", "words": strings.Repeat("word ", 500), "no spaces": strings.Repeat("x", 1000), "paragraphs": strings.Repeat(strings.Repeat("a b. ", 40)+"\n\n", 9),
		"emoji": strings.Repeat("👨‍👩‍👧", 700), "marks": "a" + strings.Repeat("\u0301", 5000), "empty": " \n ", "japanese": strings.Repeat("これは文です。", 200), "broken": strings.Repeat("\xff", 4000),
	} {
		pieces := Split(s)
		for i, p := range pieces {
			if p == "" || !(richtext.Text{Text: p}).FitsPost() {
				t.Errorf("%s: piece %d has %d bytes", name, i, len(p))
			}
		}
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if squeeze(strings.Join(pieces, "")) != squeeze(s) {
			t.Errorf("%s: the pieces are not the text", name)
		}
	}
	if got := Split(strings.Repeat("a", 200) + "\n\n" + strings.Repeat("b", 200)); len(got) != 2 || got[0] != strings.Repeat("a", 200) {
		t.Errorf("paragraphs: %q", got)
	}
	if got := Split(strings.Repeat("This is one. ", 40)); !strings.HasSuffix(got[0], "one.") {
		t.Errorf("sentences: %q", got[0])
	}
}
