package api_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/chatbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/api/comgermnetwork"
	"github.com/barograph/baro/api/sitestandard"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
)

var records = slices.Concat(comatproto.Records(), appbsky.Records(), chatbsky.Records(), sitestandard.Records(), comgermnetwork.Records())

// TestDeepThread reads and writes an answer that nests deeper than a record may.
func TestDeepThread(t *testing.T) {
	author := `"author":{"did":"did:web:a.b","handle":"a.b"},"cid":"bafy","indexedAt":"2026-01-02T03:04:05Z","record":{"$type":"app.bsky.feed.post"},"uri":"at://a.b"`
	level := `{"$type":"app.bsky.feed.defs#threadViewPost","post":{` + author + `},"parent":`
	end := `{"$type":"app.bsky.feed.defs#notFoundPost","notFound":true,"uri":"at://a.b"}`
	for depth, ok := range map[int]bool{1: true, 100: true, 1000: true, 5000: false} {
		in := `{"thread":` + strings.Repeat(level, depth) + end + strings.Repeat("}", depth) + `}`
		var out appbsky.FeedGetPostThread_Output
		err := data.UnmarshalJSON([]byte(in), &out)
		if (err == nil) != ok {
			t.Errorf("%d levels: %v", depth, err)
		}
		if err != nil {
			continue
		}
		n := 0
		for u := out.Thread.Value; n < depth; n++ {
			u = u.(*appbsky.FeedDefs_ThreadViewPost).Parent.Value
		}
		js, err := data.MarshalJSON(&out)
		if err != nil {
			t.Fatal(err)
		}
		var again appbsky.FeedGetPostThread_Output
		if err := data.UnmarshalJSON(js, &again); err != nil || !reflect.DeepEqual(out, again) {
			t.Errorf("%d levels: %v", depth, err)
		}
	}
}

// post is what an app writes every day: a reply with a link, a mention and an image.
var post = appbsky.FeedPost{
	Text: "Good morning @alice.test, have a look at https://example.com/some/page — the pressure is falling, and the barograph shows it clearly.",
	Facets: []appbsky.RichtextFacet{
		{Index: appbsky.RichtextFacet_ByteSlice{ByteStart: 13, ByteEnd: 24}, Features: []appbsky.RichtextFacet_Features_Elem{{Value: &appbsky.RichtextFacet_Mention{Did: "did:plc:ewvi7nxzyoun6zhxrhs64oiz"}}}},
		{Index: appbsky.RichtextFacet_ByteSlice{ByteStart: 41, ByteEnd: 70}, Features: []appbsky.RichtextFacet_Features_Elem{{Value: &appbsky.RichtextFacet_Link{Uri: "https://example.com/some/page"}}}},
	},
	Langs: []string{"en"},
	Reply: &appbsky.FeedPost_ReplyRef{
		Root:   comatproto.RepoStrongRef{Uri: "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3jui7kd54zh2y", Cid: "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"},
		Parent: comatproto.RepoStrongRef{Uri: "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3jui7kd54zh2z", Cid: "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"},
	},
	Embed: appbsky.FeedPost_Embed{Value: &appbsky.EmbedImages{Images: []appbsky.EmbedImages_Image{
		{Alt: "a barograph", Image: data.Blob{Ref: cid.Sum(cid.Raw, nil), MimeType: "image/jpeg", Size: 123456}},
	}}},
	CreatedAt: "2026-01-02T03:04:05.678Z",
}

func Example() {
	raw, err := data.Marshal(&appbsky.FeedPost{
		Text: "hello", CreatedAt: "2026-01-02T03:04:05.678Z",
		Embed: appbsky.FeedPost_Embed{Value: &appbsky.EmbedRecord{Record: comatproto.RepoStrongRef{Uri: "at://did:web:example.com/app.bsky.feed.post/1", Cid: "bafy…"}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var post appbsky.FeedPost
	if err := data.Unmarshal(raw, &post); err != nil {
		fmt.Println(err)
		return
	}
	switch e := post.Embed.Value.(type) {
	case *appbsky.EmbedRecord:
		fmt.Println(post.Text, e.Record.Uri)
	case nil:
		fmt.Println("an embed that isn't known here:", post.Embed.Type())
	}
	js, _ := json.Marshal(post)
	fmt.Println(string(js))
	// Output:
	// hello at://did:web:example.com/app.bsky.feed.post/1
	// {"text":"hello","$type":"app.bsky.feed.post","embed":{"$type":"app.bsky.embed.record","record":{"cid":"bafy…","uri":"at://did:web:example.com/app.bsky.feed.post/1"}},"createdAt":"2026-01-02T03:04:05.678Z"}
}

// TestAllocs holds the allocations that the speed table asks for.
func TestAllocs(t *testing.T) {
	raw, err := data.Marshal(&post)
	if err != nil {
		t.Fatal(err)
	}
	var v appbsky.FeedPost
	if n := testing.AllocsPerRun(100, func() { _ = data.Unmarshal(raw, &v) }); n > 10 {
		t.Errorf("decoding a post takes %v allocations, want at most 10", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = data.Marshal(&v) }); n > 1 && !raceEnabled {
		t.Errorf("encoding a post takes %v allocations, want at most 1", n)
	}
}

func BenchmarkPost(b *testing.B) {
	raw, err := data.Marshal(&post)
	if err != nil {
		b.Fatal(err)
	}
	js, err := data.MarshalJSON(&post)
	if err != nil {
		b.Fatal(err)
	}
	var v appbsky.FeedPost
	run := func(name string, size int, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("decode", len(raw), func() error { return data.Unmarshal(raw, &v) })
	run("encode", len(raw), func() error { _, err := data.Marshal(&post); return err })
	run("decode-json", len(js), func() error { return data.UnmarshalJSON(js, &v) })
	run("encode-json", len(js), func() error { _, err := data.MarshalJSON(&post); return err })
	run("valid", len(raw), func() error { return cbor.Valid(raw) })
}
