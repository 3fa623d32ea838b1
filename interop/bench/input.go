package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

const account syntax.DID = "did:plc:7iza6de2dwap2sbkpav7c6c6"

// start is when the generated accounts begin to write.
var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// generator makes records of the kinds, in the proportions and of the sizes that accounts have.
type generator struct {
	r   *rand.Rand
	now int64 // microseconds
}

func newGenerator(seed uint64) *generator {
	return &generator{r: rand.New(rand.NewPCG(seed, 0x6261726f)), now: start.UnixMicro()}
}

func (g *generator) tid() syntax.TID {
	g.now += 1 + g.r.Int64N(2*int64(10*time.Minute/time.Microsecond))
	return syntax.NewTID(g.now, uint(g.r.IntN(32)))
}

func (g *generator) cid(codec cid.Codec) cid.CID {
	var d [32]byte
	for i := range d {
		d[i] = byte(g.r.Uint32())
	}
	return cid.FromDigest(codec, d)
}

func (g *generator) did() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	b := []byte("did:plc:")
	for range 24 {
		b = append(b, alphabet[g.r.IntN(32)])
	}
	return string(b)
}

func (g *generator) ref() comatproto.RepoStrongRef {
	rkey := syntax.NewTID(g.now-g.r.Int64N(int64(48*time.Hour/time.Microsecond)), uint(g.r.IntN(1024)))
	return comatproto.RepoStrongRef{Uri: "at://" + g.did() + "/app.bsky.feed.post/" + string(rkey), Cid: g.cid(cid.DagCBOR).String()}
}

func (g *generator) at() string {
	return time.UnixMicro(g.now).UTC().Format("2006-01-02T15:04:05.000Z")
}

var words = [3][]string{
	strings.Fields("the pressure fell over coast and a slow front came in from west tonight with rain we read every chart twice keep log of it ship harbour said nothing new but ink on drum went down again since noon"),
	strings.Fields("a pressão caiu à tarde não há vento amanhã será tão bom então já está São João früh über Küste größer naïve été"),
	strings.Fields("気圧が 下がった 今日は 雨 海岸 記録 針 風が 強い 明日 晴れ 🌧️ 📉 ⛵"),
}

func (g *generator) text() (string, string) {
	lang := 0
	if n := g.r.IntN(10); n >= 8 {
		lang = n - 7
	}
	w := words[lang]
	var b strings.Builder
	for limit := 10 + g.r.IntN(240); b.Len() < limit; {
		if b.Len() > 0 {
			b.WriteByte(" \n"[max(0, g.r.IntN(20)-18)])
		}
		b.WriteString(w[g.r.IntN(len(w))])
	}
	return b.String(), []string{"en", "pt", "ja"}[lang]
}

func (g *generator) post() *appbsky.FeedPost {
	p := &appbsky.FeedPost{CreatedAt: g.at()}
	text, lang := g.text()
	p.Langs = []string{lang}
	facet := func(s string, f appbsky.RichtextFacet_Features_Elem) {
		text += " " + s
		p.Facets = append(p.Facets, appbsky.RichtextFacet{
			Index:    appbsky.RichtextFacet_ByteSlice{ByteStart: int64(len(text) - len(s)), ByteEnd: int64(len(text))},
			Features: []appbsky.RichtextFacet_Features_Elem{f},
		})
	}
	if g.r.IntN(6) == 0 {
		facet("@alice.test", appbsky.RichtextFacet_Features_Elem{Value: &appbsky.RichtextFacet_Mention{Did: g.did()}})
	}
	if g.r.IntN(5) == 0 {
		facet("example.com/chart", appbsky.RichtextFacet_Features_Elem{Value: &appbsky.RichtextFacet_Link{Uri: "https://example.com/chart/of/" + string(g.tid())}})
	}
	if g.r.IntN(10) == 0 {
		facet("#weather", appbsky.RichtextFacet_Features_Elem{Value: &appbsky.RichtextFacet_Tag{Tag: "weather"}})
	}
	p.Text = text
	if g.r.IntN(2) == 0 {
		p.Reply = &appbsky.FeedPost_ReplyRef{Root: g.ref(), Parent: g.ref()}
	}
	switch g.r.IntN(10) {
	case 0, 1:
		e := &appbsky.EmbedImages{}
		for range 1 + g.r.IntN(3) {
			alt, _ := g.text()
			e.Images = append(e.Images, appbsky.EmbedImages_Image{Alt: alt, Image: g.blob(), AspectRatio: &appbsky.EmbedDefs_AspectRatio{Width: 1200, Height: int64(400 + g.r.IntN(1200))}})
		}
		p.Embed.Value = e
	case 2:
		title, _ := g.text()
		p.Embed.Value = &appbsky.EmbedExternal{External: appbsky.EmbedExternal_External{
			Uri: "https://example.com/articles/" + string(g.tid()), Title: title, Description: title + ".", Thumb: new(g.blob())}}
	case 3:
		p.Embed.Value = &appbsky.EmbedRecord{Record: g.ref()}
	}
	return p
}

func (g *generator) blob() data.Blob {
	return data.Blob{Ref: g.cid(cid.Raw), MimeType: "image/jpeg", Size: 20_000 + g.r.Int64N(900_000)}
}

// record returns a record and its collection: mostly likes, then posts, reposts and follows.
func (g *generator) record() (string, []byte) {
	switch n := g.r.IntN(100); {
	case n < 55:
		return "app.bsky.feed.like", encode(&appbsky.FeedLike{CreatedAt: g.at(), Subject: g.ref()})
	case n < 80:
		return "app.bsky.feed.post", encode(g.post())
	case n < 90:
		return "app.bsky.feed.repost", encode(&appbsky.FeedRepost{CreatedAt: g.at(), Subject: g.ref()})
	default:
		return "app.bsky.graph.follow", encode(&appbsky.GraphFollow{CreatedAt: g.at(), Subject: g.did()})
	}
}

func encode(v any) []byte { return must(data.Marshal(v)) }

// entry is a record with its path.
type entry struct {
	path string
	cid  cid.CID
	data []byte
}

func (g *generator) entries(n int) []entry {
	out := make([]entry, 0, n)
	for range n {
		rkey := g.tid()
		collection, b := g.record()
		out = append(out, entry{path: collection + "/" + string(rkey), cid: cid.Sum(cid.DagCBOR, b), data: b})
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	return out
}

func signingKey(c keys.Curve) *keys.PrivateKey {
	return must(keys.NewPrivate(c, bytes.Repeat([]byte{7}, 32)))
}

// repository is a whole repository, as a CAR file in streamable order.
type repository struct {
	file    []byte
	blocks  [][2]int // where the content of each block lies in file
	records int
}

func generateRepository(seed uint64, n int) *repository {
	g := newGenerator(seed)
	entries := g.entries(n)
	nodes := mst.MapSource{}
	size := 256
	b := mst.Builder{Emit: func(n mst.NodeBlock) error {
		nodes[n.CID] = bytes.Clone(n.Bytes)
		size += car.BlockSize(len(n.Bytes))
		return nil
	}}
	for i := range entries {
		check(b.Add(entries[i].path, entries[i].cid))
		size += car.BlockSize(len(entries[i].data))
	}
	root := must(b.Finish())
	commit := repo.Commit{DID: account, Version: repo.Version, Rev: g.tid(), Data: root}
	check(commit.Sign(signingKey(keys.K256)))
	buf := bytes.NewBuffer(make([]byte, 0, size+1024))
	i := 0
	check(repo.WriteCAR(buf, commit.Encode(), mst.OpenOptions(root, nodes, mst.Options{HashChecked: true, ShapeChecked: true}), func(path string, _ cid.CID) ([]byte, error) {
		if entries[i].path != path {
			return nil, fmt.Errorf("the walk is at %s, not at %s", path, entries[i].path)
		}
		i++
		return entries[i-1].data, nil
	}))
	return loadRepository(buf.Bytes())
}

// loadRepository finds the blocks of a file.
func loadRepository(file []byte) *repository {
	r := &repository{file: file}
	sc := must(car.NewScanner(file, car.Options{}))
	for {
		b, err := sc.Next()
		if err != nil {
			break
		}
		r.blocks = append(r.blocks, [2]int{sc.Offset() - len(b.Data), sc.Offset()})
	}
	return r
}

// shuffled returns the file with its blocks in random order, the commit not excepted.
func (r *repository) shuffled() []byte {
	sc := must(car.NewScanner(r.file, car.Options{}))
	out := append(make([]byte, 0, len(r.file)), r.file[:sc.Offset()]...)
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(r.blocks))
	for _, i := range order {
		at := sc.Offset()
		if i > 0 {
			at = r.blocks[i-1][1]
		}
		out = append(out, r.file[at:r.blocks[i][1]]...)
	}
	return out
}

// commits are frames of the event stream, each the successor of the same state of a repository, and what it takes to
// verify them.
type commits struct {
	frames  [][]byte
	commits []*repo.Commit // of each frame
	key     *keys.PrivateKey
	prev    repo.State
	now     time.Time
}

// generateCommits makes commits as a stream carries them: nine of ten create a record, the others delete or replace one.
func generateCommits(curve keys.Curve, records, n int) *commits {
	g := newGenerator(7)
	entries := g.entries(records)
	tree := mst.New()
	for i := range entries {
		_, _, err := tree.Put(entries[i].path, entries[i].cid)
		check(err)
	}
	change := must(tree.Flush())
	out := &commits{key: signingKey(curve), prev: repo.State{Rev: g.tid(), Data: change.Root}}
	for i := range n {
		rev := g.tid()
		var w repo.Write
		switch i % 20 {
		case 19:
			w.Path = entries[g.r.IntN(len(entries))].path
		case 9:
			w.Path = entries[g.r.IntN(len(entries))].path
			_, w.Record = g.record()
		default:
			var collection string
			collection, w.Record = g.record()
			w.Path = collection + "/" + string(rev)
		}
		u, _, err := repo.Apply(tree, []repo.Write{w}, account, rev, out.key)
		check(err)
		m := u.Message(out.prev.Rev, syntax.Datetime(g.at()))
		ev := &stream.Commit{Seq: 4_000_000_000 + int64(i), Repo: m.Repo, Rev: m.Rev, Since: m.Since, Time: m.Time, Commit: m.Commit, Blocks: m.Blocks, PrevData: m.PrevData}
		for _, o := range m.Ops {
			ev.Ops = append(ev.Ops, stream.Op(o))
		}
		out.frames = append(out.frames, stream.AppendFrame(nil, ev))
		out.commits = append(out.commits, u.Commit)
		out.now = rev.Time()
	}
	return out
}

// fixture returns a file of test data, or nil after saying so. With CI=true a missing file ends the program.
func fixture(name string) []byte {
	dir := os.Getenv("BARO_FIXTURES")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "fixtures")
	}
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err == nil {
		return b
	}
	if os.Getenv("CI") == "true" {
		check(fmt.Errorf("fixture %s is missing (set BARO_FIXTURES): %w", name, err))
	}
	fmt.Fprintf(os.Stderr, "fixture %s is missing (set BARO_FIXTURES): its rows are left out\n", name)
	return nil
}

// fixtureRecords returns the records of a repository.
func fixtureRecords(file []byte) [][]byte {
	r := must(repo.Open(bytes.NewReader(file), repo.ReadOptions{Records: repo.RecordsStrict}))
	var out [][]byte
	for rec, err := range r.Records() {
		check(err)
		check(rec.Err)
		out = append(out, bytes.Clone(rec.Data))
	}
	return out
}

// fixtureFrame makes a frame of a commit message in JSON.
func fixtureFrame(js []byte) []byte {
	var m map[string]any
	check(json.Unmarshal(js, &m))
	if m["blobs"] == nil {
		m["blobs"] = []any{} // as it is on the wire
	}
	js = must(json.Marshal(m))
	return must(data.AppendCBOR(stream.AppendHeader(nil, stream.TypeCommit), js))
}
