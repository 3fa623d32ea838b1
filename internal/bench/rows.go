package bench

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// Core returns the rows that need no input but generated ones.
func Core() []Bench {
	rows := Codec(Mixed())
	rows = append(rows, DecodeGeneric())
	rows = append(rows, NewPosts(false).Rows()...)
	rows = append(rows, NewNames().Rows()...)
	rows = append(rows, Tree()...)
	for _, n := range []int{1000, 100_000} {
		rows = append(rows, Repositories(Short(n), fmt.Sprintf("%d records", n), SigningKey(k256).Public(), Generated(n))...)
	}
	rows = append(rows, Signatures()...)
	return append(rows, CommitRows()...)
}

// Records are the input of the codec. The suffix is that of the rows' names.
type Records struct {
	Name, Suffix string
	List         [][]byte
}

// Mixed returns 256 generated records.
func Mixed() Records {
	g := NewGenerator(1)
	in := Records{Name: "mixed records"}
	for range 256 {
		_, b := g.Record()
		in.List = append(in.List, b)
	}
	return in
}

// JSON returns the records in JSON.
func (in Records) JSON() [][]byte {
	var js [][]byte
	for _, b := range in.List {
		js = append(js, Must(data.AppendJSON(nil, b)))
	}
	return js
}

func (in Records) describe(what string) string {
	size := 0
	for _, b := range in.List {
		size += len(b)
	}
	return fmt.Sprintf("%s, %s, %d B on average", what, in.Name, size/len(in.List))
}

func (in Records) scan() Work { return Each(in.List, func(b []byte) { Check(Scan(b)) }) }

// Codec returns the rows validate, cbor-to-json and json-to-cbor.
func Codec(in Records) []Bench {
	return []Bench{
		{Name: "validate" + in.Suffix, What: in.describe("strict validation"), Floor: "plain scan", Of: OursOverFloor, Target: 1.3,
			Bound: "every head, key and character is looked at once", Setup: func() (Work, Work) {
				return Each(in.List, func(b []byte) { Check(cbor.Valid(b)) }), in.scan()
			}},
		{Name: "cbor-to-json" + in.Suffix, What: in.describe("CBOR to JSON without a schema"), Floor: "plain scan and memcpy", Of: OursOverFloor,
			Bound: "validation, then escaping and base32 of what is written", Setup: func() (Work, Work) {
				buf, js := make([]byte, 0, 1<<16), in.JSON()
				return Each(in.List, func(b []byte) { buf = Must(data.AppendJSON(buf[:0], b)) }), Work{len(in.List), func() {
					for i := range in.List {
						Check(Scan(in.List[i]))
						copy(buf[:1<<16], js[i])
					}
				}}
			}},
		{Name: "json-to-cbor" + in.Suffix, What: in.describe("JSON to CBOR without a schema"), Floor: "plain scan of the CBOR", Of: OursOverFloor,
			Bound: "reading strings and numbers of the JSON, and the canonical order of keys", Setup: func() (Work, Work) {
				buf := make([]byte, 0, 1<<16)
				return Each(in.JSON(), func(b []byte) { buf = Must(data.AppendCBOR(buf[:0], b)) }), in.scan()
			}},
	}
}

// DecodeGeneric is the row of decoding without a schema.
func DecodeGeneric() Bench {
	in := Mixed()
	return Bench{Name: "decode-generic", What: in.describe("decode into a tree of maps"), Floor: "plain scan", Of: OursOverFloor, Allocs: -1,
		Bound: "allocating the maps and strings", Setup: func() (Work, Work) {
			return Each(in.List, func(b []byte) { Must(data.Decode(b)) }), in.scan()
		}}
}

// Posts are generated posts: mixed, or all of them replies with facets and images.
type Posts struct {
	Raw    [][]byte
	posts  []*appbsky.FeedPost
	suffix string
	what   string
}

// NewPosts makes 128 of them.
func NewPosts(rich bool) *Posts {
	p := &Posts{what: "posts"}
	if rich {
		p.suffix, p.what = "-rich", "replies with facets and images"
	}
	g := NewGenerator(2)
	for len(p.Raw) < 128 {
		g.TID()
		post := g.Post()
		for rich {
			if _, images := post.Embed.Value.(*appbsky.EmbedImages); images && post.Reply != nil && len(post.Facets) > 0 {
				break
			}
			post = g.Post()
		}
		raw := Encode(post)
		back := new(appbsky.FeedPost)
		Check(data.Unmarshal(raw, back))
		if string(Encode(back)) != string(raw) {
			Check(fmt.Errorf("post %d is not the same after decoding and encoding", len(p.Raw)))
		}
		p.Raw, p.posts = append(p.Raw, raw), append(p.posts, back)
	}
	return p
}

// Rows returns post-decode and post-encode.
func (p *Posts) Rows() []Bench {
	in := Records{Name: p.what, List: p.Raw}
	return []Bench{
		{Name: "post-decode" + p.suffix, What: in.describe("decode into the generated struct"), Floor: "plain scan", Of: OursOverFloor, Allocs: 10,
			Bound: "allocating what the struct holds", Setup: func() (Work, Work) {
				return Each(p.Raw, func(b []byte) { Check(data.Unmarshal(b, new(appbsky.FeedPost))) }), in.scan()
			}},
		{Name: "post-decode" + p.suffix + "/owned", What: in.describe("decode into the generated struct, with the bytes as its own"), Floor: "plain scan", Of: OursOverFloor, Allocs: 10,
			Bound: "allocating what the struct holds", Setup: func() (Work, Work) {
				return Each(p.Raw, func(b []byte) { Check(data.UnmarshalOwned(b, new(appbsky.FeedPost))) }), in.scan()
			}},
		{Name: "post-encode" + p.suffix, What: in.describe("encode from the generated struct"), Floor: "plain scan", Of: OursOverFloor, Allocs: 1,
			Bound: "one allocation, and checking that strings are UTF-8", Setup: func() (Work, Work) {
				return Each(p.posts, func(p *appbsky.FeedPost) { Must(data.Marshal(p)) }), in.scan()
			}},
		{Name: "post-encode" + p.suffix + "/append", What: in.describe("encode from the generated struct into a buffer that is there"), Floor: "plain scan", Of: OursOverFloor, Allocs: 0,
			Bound: "checking that strings are UTF-8", Setup: func() (Work, Work) {
				var buf []byte
				return Each(p.posts, func(p *appbsky.FeedPost) { buf = Must(data.Append(buf[:0], p)) }), in.scan()
			}},
	}
}

// Names are identifiers, 64 of each kind.
type Names struct{ URIs, DIDs, Webs, NSIDs, TIDs, CIDs []string }

// NewNames makes them.
func NewNames() *Names {
	g := NewGenerator(3)
	n := new(Names)
	collections := []string{"app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow", "com.atproto.repo.strongRef", "com.example.note", "chat.bsky.convo.defs",
		"place.stream.livestream", "sh.tangled.repo.pull"}
	for i := range 64 {
		did, name, tid := g.DID(), collections[i%len(collections)], string(g.TID())
		n.DIDs, n.NSIDs, n.TIDs = append(n.DIDs, did), append(n.NSIDs, name), append(n.TIDs, tid)
		n.Webs = append(n.Webs, "did:web:host"+tid+".example.com")
		n.URIs = append(n.URIs, "at://"+did+"/"+name+"/"+tid)
		n.CIDs = append(n.CIDs, g.CID(cid.DagCBOR).String())
	}
	return n
}

// Often returns a list long enough to be timed.
func Often(list []string, do func(string)) Work {
	rep := make([]string, 0, 16*len(list))
	for range 16 {
		rep = append(rep, list...)
	}
	return Each(rep, do)
}

// Rows returns parse-at-uri, -did, -did-web, -nsid, -tid and -cid.
func (n *Names) Rows() []Bench {
	row := func(name, what string, list []string, do func(string)) Bench {
		return Bench{Name: "parse-" + name, What: "parse " + what, Floor: "read each byte", Of: OursOverFloor, Bound: "each byte is looked at once, some in words of eight",
			Setup: func() (Work, Work) { return Often(list, do), Often(list, func(s string) { sink = Touch(s) }) }}
	}
	return []Bench{
		row("at-uri", "AT-URIs with DID, collection and record key", n.URIs, func(s string) { Must(syntax.ParseATURI(s)) }),
		row("did", "did:plc identifiers", n.DIDs, func(s string) { Must(syntax.ParseDID(s)) }),
		row("did-web", "did:web identifiers", n.Webs, func(s string) { Must(syntax.ParseDID(s)) }),
		row("nsid", "collection names", n.NSIDs, func(s string) { Must(syntax.ParseNSID(s)) }),
		row("tid", "TIDs", n.TIDs, func(s string) { Must(syntax.ParseTID(s)) }),
		row("cid", "CIDs", n.CIDs, func(s string) { Must(cid.Parse(s)) }),
	}
}

// Generated returns what makes a repository of n records, once, when it is needed.
func Generated(n int) func() *Repository {
	return sync.OnceValue(func() *Repository { return GenerateRepository(5, n) })
}

// Short writes a number of records: 1k, 1M.
func Short(n int) string {
	switch {
	case n >= 1_000_000:
		return strconv.Itoa(n/1_000_000) + "M"
	case n >= 1000:
		return strconv.Itoa(n/1000) + "k"
	}
	return strconv.Itoa(n)
}

// diffLimit is how long a diff of one change may take, whatever the size of the tree.
const diffLimit = 30 * time.Microsecond
