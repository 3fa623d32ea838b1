package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
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

// Generator makes records of the kinds, in the proportions and of the sizes that accounts have.
type Generator struct {
	r   *rand.Rand
	now int64 // microseconds
}

// NewGenerator returns a generator: the same seed gives the same records.
func NewGenerator(seed uint64) *Generator {
	return &Generator{r: rand.New(rand.NewPCG(seed, 0x6261726f)), now: start.UnixMicro()}
}

// TID returns the key of the next record, and lets time go by.
func (g *Generator) TID() syntax.TID {
	g.now += 1 + g.r.Int64N(2*int64(10*time.Minute/time.Microsecond))
	return syntax.NewTID(g.now, uint(g.r.IntN(32)))
}

// CID returns one of nothing.
func (g *Generator) CID(codec cid.Codec) cid.CID {
	var d [32]byte
	for i := range d {
		d[i] = byte(g.r.Uint32())
	}
	return cid.FromDigest(codec, d)
}

// DID returns somebody's did:plc.
func (g *Generator) DID() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	b := []byte("did:plc:")
	for range 24 {
		b = append(b, alphabet[g.r.IntN(32)])
	}
	return string(b)
}

func (g *Generator) ref() comatproto.RepoStrongRef {
	rkey := syntax.NewTID(g.now-g.r.Int64N(int64(48*time.Hour/time.Microsecond)), uint(g.r.IntN(1024)))
	return comatproto.RepoStrongRef{Uri: "at://" + g.DID() + "/app.bsky.feed.post/" + string(rkey), Cid: g.CID(cid.DagCBOR).String()}
}

func (g *Generator) at() string {
	return time.UnixMicro(g.now).UTC().Format("2006-01-02T15:04:05.000Z")
}

var words = [3][]string{
	strings.Fields("the pressure fell over coast and a slow front came in from west tonight with rain we read every chart twice keep log of it ship harbour said nothing new but ink on drum went down again since noon"),
	strings.Fields("a pressão caiu à tarde não há vento amanhã será tão bom então já está São João früh über Küste größer naïve été"),
	strings.Fields("気圧が 下がった 今日は 雨 海岸 記録 針 風が 強い 明日 晴れ 🌧️ 📉 ⛵"),
}

func (g *Generator) text() (string, string) {
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

// Post returns a post: every second one is a reply, some have facets and embeds.
func (g *Generator) Post() *appbsky.FeedPost {
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
		facet("@alice.test", appbsky.RichtextFacet_Features_Elem{Value: &appbsky.RichtextFacet_Mention{Did: g.DID()}})
	}
	if g.r.IntN(5) == 0 {
		facet("example.com/chart", appbsky.RichtextFacet_Features_Elem{Value: &appbsky.RichtextFacet_Link{Uri: "https://example.com/chart/of/" + string(g.TID())}})
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
			Uri: "https://example.com/articles/" + string(g.TID()), Title: title, Description: title + ".", Thumb: new(g.blob())}}
	case 3:
		p.Embed.Value = &appbsky.EmbedRecord{Record: g.ref()}
	}
	return p
}

func (g *Generator) blob() data.Blob {
	return data.Blob{Ref: g.CID(cid.Raw), MimeType: "image/jpeg", Size: 20_000 + g.r.Int64N(900_000)}
}

// Record returns a record and its collection: mostly likes, then posts, reposts and follows.
func (g *Generator) Record() (string, []byte) {
	switch n := g.r.IntN(100); {
	case n < 55:
		return "app.bsky.feed.like", Encode(&appbsky.FeedLike{CreatedAt: g.at(), Subject: g.ref()})
	case n < 80:
		return "app.bsky.feed.post", Encode(g.Post())
	case n < 90:
		return "app.bsky.feed.repost", Encode(&appbsky.FeedRepost{CreatedAt: g.at(), Subject: g.ref()})
	default:
		return "app.bsky.graph.follow", Encode(&appbsky.GraphFollow{CreatedAt: g.at(), Subject: g.DID()})
	}
}

// Encode returns the DAG-CBOR of a record.
func Encode(v any) []byte { return Must(data.Marshal(v)) }

// entry is a record with its path.
type entry struct {
	path string
	cid  cid.CID
	data []byte
}

func (g *Generator) entries(n int) []entry {
	out := make([]entry, 0, n)
	for range n {
		rkey := g.TID()
		collection, b := g.Record()
		out = append(out, entry{path: collection + "/" + string(rkey), cid: cid.Sum(cid.DagCBOR, b), data: b})
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	return out
}

// SigningKey returns the key of all that is generated.
func SigningKey(c keys.Curve) *keys.PrivateKey {
	return Must(keys.NewPrivate(c, bytes.Repeat([]byte{7}, 32)))
}

// Repository is a whole repository, as a CAR file in streamable order.
type Repository struct {
	File   []byte
	Blocks [][2]int // where the content of each block lies in File
}

// GenerateRepository returns a signed repository of n records.
func GenerateRepository(seed uint64, n int) *Repository {
	g := NewGenerator(seed)
	entries := g.entries(n)
	nodes := mst.MapSource{}
	size := 256
	b := mst.Builder{Emit: func(n mst.NodeBlock) error {
		nodes[n.CID] = bytes.Clone(n.Bytes)
		size += car.BlockSize(len(n.Bytes))
		return nil
	}}
	for i := range entries {
		Check(b.Add(entries[i].path, entries[i].cid))
		size += car.BlockSize(len(entries[i].data))
	}
	root := Must(b.Finish())
	commit := repo.Commit{DID: account, Version: repo.Version, Rev: g.TID(), Data: root}
	Check(commit.Sign(SigningKey(keys.K256)))
	buf := bytes.NewBuffer(make([]byte, 0, size+1024))
	i := 0
	Check(repo.WriteCAR(buf, commit.Encode(), mst.OpenOptions(root, nodes, mst.Options{HashChecked: true, ShapeChecked: true}), func(path string, _ cid.CID) ([]byte, error) {
		if entries[i].path != path {
			return nil, fmt.Errorf("the walk is at %s, not at %s", path, entries[i].path)
		}
		i++
		return entries[i-1].data, nil
	}))
	return LoadRepository(buf.Bytes())
}

// LoadRepository finds the blocks of a file.
func LoadRepository(file []byte) *Repository {
	r := &Repository{File: file}
	sc := Must(car.NewScanner(file, car.Options{}))
	for {
		b, err := sc.Next()
		if err != nil {
			break
		}
		r.Blocks = append(r.Blocks, [2]int{sc.Offset() - len(b.Data), sc.Offset()})
	}
	return r
}

// Shuffled returns the file with its blocks in random order, the commit not excepted.
func (r *Repository) Shuffled() []byte {
	sc := Must(car.NewScanner(r.File, car.Options{}))
	out := append(make([]byte, 0, len(r.File)), r.File[:sc.Offset()]...)
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(r.Blocks))
	for _, i := range order {
		at := sc.Offset()
		if i > 0 {
			at = r.Blocks[i-1][1]
		}
		out = append(out, r.File[at:r.Blocks[i][1]]...)
	}
	return out
}

// Commits are frames of the event stream, each the successor of the same state of a repository, and what it takes to
// verify them.
type Commits struct {
	Frames  [][]byte
	Commits []*repo.Commit // of each frame
	Key     *keys.PrivateKey
	Prev    repo.State
	Now     time.Time
}

// GenerateCommits makes commits as a stream carries them: nine of ten create a record, the others delete or replace one.
func GenerateCommits(curve keys.Curve, records, n int) *Commits {
	g := NewGenerator(7)
	entries := g.entries(records)
	tree := mst.New()
	for i := range entries {
		_, _, err := tree.Put(entries[i].path, entries[i].cid)
		Check(err)
	}
	change := Must(tree.Flush())
	out := &Commits{Key: SigningKey(curve), Prev: repo.State{Rev: g.TID(), Data: change.Root}}
	for i := range n {
		rev := g.TID()
		var w repo.Write
		switch i % 20 {
		case 19:
			w.Path = entries[g.r.IntN(len(entries))].path
		case 9:
			w.Path = entries[g.r.IntN(len(entries))].path
			_, w.Record = g.Record()
		default:
			var collection string
			collection, w.Record = g.Record()
			w.Path = collection + "/" + string(rev)
		}
		u, _, err := repo.Apply(tree, []repo.Write{w}, account, rev, out.Key)
		Check(err)
		m := u.Message(out.Prev.Rev, syntax.Datetime(g.at()))
		ev := &stream.Commit{Seq: 4_000_000_000 + int64(i), Repo: m.Repo, Rev: m.Rev, Since: m.Since, Time: m.Time, Commit: m.Commit, Blocks: m.Blocks, PrevData: m.PrevData}
		for _, o := range m.Ops {
			ev.Ops = append(ev.Ops, stream.Op(o))
		}
		out.Frames = append(out.Frames, stream.AppendFrame(nil, ev))
		out.Commits = append(out.Commits, u.Commit)
		out.Now = rev.Time()
	}
	return out
}
