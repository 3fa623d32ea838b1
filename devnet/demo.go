package devnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// MaxDemo is the largest number of accounts of a demo world.
const MaxDemo = 10_000

// demoPassword is that of every demo account: they are there to be signed in to, on this machine.
const demoPassword = "barometer"

// DemoOptions say how large a demo world is.
type DemoOptions struct {
	Accounts int    // 0: 8
	Seed     uint64 // of everything that is drawn by lot
	Force    bool   // plant even if the PDS has accounts already
	Workers  int    // accounts that write at the same time; 0: 4
	// Progress is told how much is done, from one goroutine at a time.
	Progress func(done, total int)
}

// Demo is what a demo world holds and how to get in.
type Demo struct {
	Accounts int    `json:"accounts"`
	Posts    int    `json:"posts"`
	Likes    int    `json:"likes"`
	Follows  int    `json:"follows"`
	Reposts  int    `json:"reposts"`
	Handle   string `json:"handle"` // of one account; all have the same password
	Password string `json:"password"`
	DID      string `json:"did"`
	Post     string `json:"post"` // at-uri of a post that others answered and liked

	Planted bool          `json:"planted"` // by this call
	Took    time.Duration `json:"-"`
}

// demoState is what the data directory remembers of its demo world. It is written before the first account is made, so that a crash
// in the middle is followed by the rest.
type demoState struct {
	Version int       `json:"version"`
	Seed    uint64    `json:"seed"`
	N       int       `json:"accounts"`
	End     time.Time `json:"end"` // the moment of planting, from which all times count back
	Done    *Demo     `json:"done,omitempty"`
}

const (
	demoVersion = 1
	demoName    = "demo.json"
	demoWindow  = 12 * time.Hour // what an account does in it is one commit
	wideWindow  = 84 * time.Hour // the same in a world of more than manyPeople, so that it is planted sooner
	manyPeople  = 50
	maxWrites   = 100 // of a commit
)

// PlantDemo fills the network with a small world: accounts with profiles and pictures who talk, like, follow and repost, all through
// XRPC. It is a function of the seed but for the identities. It plants nothing twice, and completes what an earlier call began; it
// returns nil when the PDS has other accounts and Force is not set.
func (n *Network) PlantDemo(ctx context.Context, o DemoOptions) (*Demo, error) {
	started := n.world.Clock.Now()
	if o.Accounts == 0 {
		o.Accounts = len(villagers)
	}
	if o.Accounts < 2 || o.Accounts > MaxDemo {
		return nil, fmt.Errorf("a demo world of %d accounts: want 2 to %d", o.Accounts, MaxDemo)
	}
	if o.Workers <= 0 {
		o.Workers = 4
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	st, err := n.demoState()
	if err != nil {
		return nil, err
	}
	again := st != nil
	switch {
	case again && st.Done != nil:
		return new(*st.Done), nil
	case !again:
		if !o.Force {
			out, err := comatproto.SyncListRepos.Call(ctx, n.PDS(), &comatproto.SyncListRepos_Params{})
			if err != nil {
				return nil, fmt.Errorf("looking for accounts: %w", err)
			}
			if len(out.Repos) > 0 {
				return nil, nil
			}
		}
		st = &demoState{Version: demoVersion, Seed: o.Seed, N: o.Accounts, End: started.UTC().Truncate(time.Second)}
		if err := n.keepDemo(st); err != nil {
			return nil, err
		}
	}
	p, err := newPlan(st.Seed, st.N)
	if err != nil {
		return nil, err
	}
	g := &gardener{n: n, o: o, plan: p, again: again, begin: st.End.Add(-demoSpan), total: len(p.people) + len(p.deeds)}
	if err := g.plant(ctx); err != nil {
		return nil, err
	}
	d := g.summary()
	st.Done = new(d)
	if err := n.keepDemo(st); err != nil {
		return nil, err
	}
	d.Planted, d.Took = true, n.world.Clock.Now().Sub(started)
	return &d, nil
}

func (n *Network) demoState() (*demoState, error) {
	if n.o.Memory {
		return n.demo, nil
	}
	name := n.world.FS.PathJoin(n.o.Dir, demoName)
	b, err := readFile(n.world.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what the data directory remembers: %w", err)
	}
	var st demoState
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if st.Version != demoVersion {
		return nil, fmt.Errorf("reading %s: it was written by another version of this program (format %d, known is %d)", name, st.Version, demoVersion)
	}
	return &st, nil
}

func (n *Network) keepDemo(st *demoState) error {
	if n.o.Memory {
		n.demo = st
		return nil
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := writeFile(n.world.FS, n.o.Dir, demoName, append(b, '\n')); err != nil {
		return fmt.Errorf("remembering the demo world: %w", err)
	}
	return nil
}

// gardener plants a plan.
type gardener struct {
	n     *Network
	o     DemoOptions
	plan  *plan
	again bool // an earlier call may have done some of it
	begin time.Time
	total int
	done  atomic.Int64

	people []resident
	posts  []ref // by the index of the plan, when written
}

// resident is an account.
type resident struct {
	did    string
	client *xrpc.Client
	tid    int64 // the last one used, in microseconds: names of records must differ
}

type ref struct {
	uri string
	cid cid.CID
}

func (r ref) strong() comatproto.RepoStrongRef {
	return comatproto.RepoStrongRef{Uri: r.uri, Cid: r.cid.String()}
}

func (g *gardener) plant(ctx context.Context) error {
	stop := g.report(ctx)
	defer stop()
	g.people = make([]resident, len(g.plan.people))
	g.posts = make([]ref, len(g.plan.posts))
	eg, ectx := errgroup.WithContext(ctx)
	eg.SetLimit(g.o.Workers)
	for i := range g.people {
		eg.Go(func() error {
			g.done.Add(1)
			return g.settle(ectx, i)
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	wide := demoWindow
	if len(g.people) > manyPeople {
		wide = wideWindow
	}
	for from := 0; from < len(g.plan.deeds); {
		end := g.plan.deeds[from].at/wide*wide + wide
		to := from
		for to < len(g.plan.deeds) && g.plan.deeds[to].at < end {
			to++
		}
		if err := g.window(ctx, g.plan.deeds[from:to]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// report tells of the progress until stopped, a few times a second.
func (g *gardener) report(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			g.o.Progress(int(g.done.Load()), g.total)
			select {
			case <-ctx.Done():
			case <-g.n.world.Clock.After(100 * time.Millisecond):
			}
		}
		g.o.Progress(int(g.done.Load()), g.total)
	}()
	return func() { cancel(); <-ended }
}

// settle makes an account, or signs in to one that an earlier call made.
func (g *gardener) settle(ctx context.Context, i int) error {
	q := g.plan.people[i]
	handle := q.handle + HandleDomain
	c := g.n.PDS()
	made, err := comatproto.ServerCreateAccount.Call(ctx, c, &comatproto.ServerCreateAccount_Input{
		Handle: handle, Email: new(q.handle + "@example.com"), Password: new(demoPassword),
	})
	if err == nil {
		g.people[i] = resident{did: made.Did, client: c.WithAuth(xrpc.Bearer(made.AccessJwt))}
		return nil
	}
	if !g.again || !errors.Is(err, xrpc.ErrorName("HandleNotAvailable")) {
		return fmt.Errorf("making the account %s: %w", handle, err)
	}
	in, err := comatproto.ServerCreateSession.Call(ctx, c, &comatproto.ServerCreateSession_Input{Identifier: handle, Password: demoPassword})
	if err != nil {
		return fmt.Errorf("signing in as %s: %w", handle, err)
	}
	g.people[i] = resident{did: in.Did, client: c.WithAuth(xrpc.Bearer(in.AccessJwt))}
	return nil
}

// batch is what one account writes in one window.
type batch struct {
	who     int
	writes  []comatproto.RepoApplyWrites_Create
	uploads []upload
}

type upload struct {
	content []byte
	want    cid.CID
}

// window writes what happens in a stretch of time, each account's part as one commit. The records name each other by hashes that are
// known beforehand, so the accounts may write in any order.
func (g *gardener) window(ctx context.Context, deeds []deed) error {
	batches := map[int]*batch{}
	var order []*batch
	for _, d := range deeds {
		b := batches[d.who]
		if b == nil {
			b = &batch{who: d.who}
			batches[d.who] = b
			order = append(order, b)
		}
		w, err := g.write(d, b)
		if err != nil {
			return err
		}
		b.writes = append(b.writes, w)
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(g.o.Workers)
	for _, b := range order {
		eg.Go(func() error { return g.commit(ctx, b) })
	}
	return eg.Wait()
}

func (g *gardener) commit(ctx context.Context, b *batch) error {
	q := &g.people[b.who]
	uploaded := false
	for part := range slices.Chunk(b.writes, maxWrites) {
		if g.again {
			_, err := comatproto.RepoGetRecord.Call(ctx, q.client, &comatproto.RepoGetRecord_Params{Repo: q.did, Collection: part[0].Collection, Rkey: *part[0].Rkey})
			if err == nil { // the commit was made: it is there as a whole or not at all
				g.done.Add(int64(len(part)))
				continue
			}
			if !errors.Is(err, xrpc.ErrorName("RecordNotFound")) {
				return fmt.Errorf("looking for a record: %w", err)
			}
		}
		if !uploaded {
			if err := q.upload(ctx, b.uploads); err != nil {
				return fmt.Errorf("uploading a picture: %w", err)
			}
			uploaded = true
		}
		in := &comatproto.RepoApplyWrites_Input{Repo: q.did}
		for i := range part {
			in.Writes = append(in.Writes, comatproto.RepoApplyWrites_Input_Writes_Elem{Value: &part[i]})
		}
		if _, err := comatproto.RepoApplyWrites.Call(ctx, q.client, in); err != nil {
			return fmt.Errorf("writing as %s: %w", g.plan.people[b.who].handle, err)
		}
		g.done.Add(int64(len(part)))
	}
	return nil
}

func (q *resident) upload(ctx context.Context, pictures []upload) error {
	for _, u := range pictures {
		out, err := comatproto.RepoUploadBlob.Call(ctx, q.client, &xrpc.Body{Reader: bytes.NewReader(u.content), Type: "image/png", Length: int64(len(u.content))})
		if err != nil {
			return err
		}
		if out.Blob.Ref != u.want {
			return fmt.Errorf("it got the CID %s instead of %s", out.Blob.Ref, u.want)
		}
	}
	return nil
}

// write makes the record of a deed.
func (g *gardener) write(d deed, b *batch) (w comatproto.RepoApplyWrites_Create, err error) {
	me := &g.people[d.who]
	at := g.begin.Add(d.at)
	createdAt := at.UTC().Format("2006-01-02T15:04:05.000Z")
	me.tid = max(me.tid+1, at.UnixMicro())
	rkey := syntax.NewTID(me.tid, uint(d.who)&1023)
	w.Rkey = new(string(rkey))

	var rec data.Typed
	switch d.act {
	case actProfile:
		q := g.plan.people[d.who]
		size := 192
		if !q.posts {
			size = 64
		}
		*w.Rkey = "self"
		rec = &appbsky.ActorProfile{
			DisplayName: new(q.name), Description: new(q.description), CreatedAt: new(createdAt),
			Avatar: b.picture(avatar(size, q.hue, q.motif)),
		}
	case actPost:
		if rec, err = g.post(d.what, createdAt, b); err != nil {
			return w, err
		}
	case actLike, actRepost:
		post := g.posts[d.what]
		if post.uri == "" {
			return w, fmt.Errorf("demo world: post %d is not there yet", d.what)
		}
		rec = &appbsky.FeedLike{Subject: post.strong(), CreatedAt: createdAt}
		if d.act == actRepost {
			rec = &appbsky.FeedRepost{Subject: post.strong(), CreatedAt: createdAt}
		}
	case actFollow:
		rec = &appbsky.GraphFollow{Subject: g.people[d.what].did, CreatedAt: createdAt}
	}
	w.Collection = rec.LexType()
	if w.Value, err = data.Marshal(rec); err != nil {
		return w, fmt.Errorf("encoding a record: %w", err)
	}
	if d.act == actPost {
		g.posts[d.what] = ref{"at://" + me.did + "/" + w.Collection + "/" + *w.Rkey, cid.Sum(cid.DagCBOR, w.Value)}
	}
	return w, nil
}

// picture notes that a picture has to be uploaded first, and returns the blob that stands for it.
func (b *batch) picture(content []byte) *data.Blob {
	u := upload{content, cid.Sum(cid.Raw, content)}
	b.uploads = append(b.uploads, u)
	return &data.Blob{Ref: u.want, MimeType: "image/png", Size: int64(len(content))}
}

func (g *gardener) post(i int, createdAt string, b *batch) (data.Typed, error) {
	s := g.plan.posts[i]
	rec := &appbsky.FeedPost{Text: s.text, CreatedAt: createdAt, Langs: []string{"en"}, Facets: g.facets(s.text)}
	if s.parent >= 0 {
		root := s.parent
		for g.plan.posts[root].parent >= 0 {
			root = g.plan.posts[root].parent
		}
		if g.posts[s.parent].uri == "" || g.posts[root].uri == "" {
			return nil, fmt.Errorf("demo world: post %d answers one that is not there yet", i)
		}
		rec.Reply = &appbsky.FeedPost_ReplyRef{Root: g.posts[root].strong(), Parent: g.posts[s.parent].strong()}
	}
	switch {
	case s.scene != "":
		content, w, h := scene(s.scene)
		rec.Embed.Value = &appbsky.EmbedImages{Images: []appbsky.EmbedImages_Image{{
			Alt: s.alt, Image: *b.picture(content), AspectRatio: &appbsky.EmbedDefs_AspectRatio{Width: int64(w), Height: int64(h)},
		}}}
	case s.quote >= 0 && g.posts[s.quote].uri != "":
		rec.Embed.Value = &appbsky.EmbedRecord{Record: g.posts[s.quote].strong()}
	case s.link[0] != "":
		rec.Embed.Value = &appbsky.EmbedExternal{External: appbsky.EmbedExternal_External{Uri: s.link[0], Title: s.link[1], Description: s.link[2]}}
	}
	return rec, nil
}

var facetPattern = regexp.MustCompile(`@[a-z0-9-]+\.test\b|https://[^\s]*[^\s.,:;!?)]|#[a-z]+\b`)

// facets marks the mentions, links and tags of a text, by its bytes.
func (g *gardener) facets(text string) []appbsky.RichtextFacet {
	var out []appbsky.RichtextFacet
	for _, m := range facetPattern.FindAllStringIndex(text, -1) {
		var feature data.Typed
		switch word := text[m[0]:m[1]]; word[0] {
		case '@':
			who := slices.IndexFunc(g.plan.people, func(q person) bool { return "@"+q.handle+HandleDomain == word })
			if who < 0 {
				continue
			}
			feature = &appbsky.RichtextFacet_Mention{Did: g.people[who].did}
		case '#':
			feature = &appbsky.RichtextFacet_Tag{Tag: word[1:]}
		default:
			feature = &appbsky.RichtextFacet_Link{Uri: word}
		}
		out = append(out, appbsky.RichtextFacet{
			Index:    appbsky.RichtextFacet_ByteSlice{ByteStart: int64(m[0]), ByteEnd: int64(m[1])},
			Features: []appbsky.RichtextFacet_Features_Elem{{Value: feature}},
		})
	}
	return out
}

func (g *gardener) summary() Demo {
	d := Demo{
		Accounts: len(g.people), Posts: len(g.posts),
		Handle: g.plan.people[0].handle + HandleDomain, Password: demoPassword, DID: g.people[0].did, Post: g.posts[0].uri,
	}
	for _, e := range g.plan.deeds {
		switch e.act {
		case actLike:
			d.Likes++
		case actFollow:
			d.Follows++
		case actRepost:
			d.Reposts++
		}
	}
	for i, s := range g.plan.posts {
		if s.key == "welcome" {
			d.Post = g.posts[i].uri
		}
	}
	return d
}
