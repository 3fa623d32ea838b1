package data_test

import (
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
)

// postJSON is a made-up post of usual size, with its keys in the order in which clients write them.
const postJSON = `{"$type":"app.bsky.feed.post","text":"Pressure fell four hectopascals since noon over the northern coast, @alice.test sends a chart of it: example.com/chart\nand says hello to everyone who keeps a log.","createdAt":"2026-11-21T01:02:03.456Z","langs":["en"],"facets":[{"index":{"byteStart":80,"byteEnd":90},"features":[{"$type":"app.bsky.richtext.facet#mention","did":"did:plc:ewvi7nxzyoun6zhxrhs64oiz"}]},{"index":{"byteStart":100,"byteEnd":110},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"https://example.com/chart"}]}],"reply":{"root":{"cid":"` + linkStr + `","uri":"at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3k5rgfiifs42u"},"parent":{"cid":"` + linkStr + `","uri":"at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3k5rgfiifs42u"}},"embed":{"$type":"app.bsky.embed.images","images":[{"alt":"a chart of the pressure","image":{"$type":"blob","ref":{"$link":"` + rawStr + `"},"mimeType":"image/jpeg","size":412345},"aspectRatio":{"width":1200,"height":800}}]}}`

func BenchmarkAppendJSON(b *testing.B) {
	raw := mustCBOR(b, postJSON)
	buf := make([]byte, 0, 2*len(raw))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = data.AppendJSON(buf[:0], raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendCBOR(b *testing.B) {
	in := []byte(postJSON)
	buf := make([]byte, 0, 2*len(in))
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = data.AppendCBOR(buf[:0], in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValid(b *testing.B) {
	raw := mustCBOR(b, postJSON)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if cbor.Valid(raw) != nil {
			b.Fatal()
		}
	}
}

func BenchmarkCheckRecord(b *testing.B) {
	raw := mustCBOR(b, postJSON)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if err := data.CheckRecord(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	raw := mustCBOR(b, postJSON)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := data.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	raw := mustCBOR(b, postJSON)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := data.Walk(raw, func([]data.Step, *data.Leaf) error { n++; return nil }); err != nil || n == 0 {
			b.Fatal(err)
		}
	}
}

// underRace is set in a build with the race detector.
var underRace bool

func TestNoAllocs(t *testing.T) {
	raw := mustCBOR(t, postJSON)
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { _, _ = data.AppendJSON(buf, raw) }); n != 0 {
		t.Errorf("AppendJSON: %v allocations", n)
	}
	if underRace {
		return // the race detector empties pools at random
	}
	in := []byte(postJSON)
	if n := testing.AllocsPerRun(100, func() { _, _ = data.AppendCBOR(buf, in) }); n != 0 {
		t.Errorf("AppendCBOR: %v allocations", n)
	}
}
