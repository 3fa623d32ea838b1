package cbor_test

import (
	"crypto/sha256"
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// postHex is a made-up post with facets, an image and a reply, of the size of real ones.
var postHex = func() string {
	const hexDigits = "0123456789abcdef"
	var s []byte
	for _, c := range makePost() {
		s = append(s, hexDigits[c>>4], hexDigits[c&15])
	}
	return string(s)
}()

func makePost() []byte {
	c := cid.Sum(cid.DagCBOR, []byte("parent"))
	img := cid.Sum(cid.Raw, []byte("image"))
	text := func(b []byte, kv ...string) []byte {
		for _, s := range kv {
			b = cbor.AppendText(b, s)
		}
		return b
	}
	ref := func(b []byte) []byte {
		b = cbor.AppendMap(b, 2)
		b = text(b, "cid", c.String(), "uri", "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3k5rgfiifs42u")
		return b
	}
	b := cbor.AppendMap(nil, 7)
	b = text(b, "text", "Pressure fell four hectopascals since noon over the northern coast, @alice.test sends a chart of it: example.com/chart and says hello to everyone who keeps a log.")
	b = text(b, "$type", "app.bsky.feed.post", "embed")
	b = cbor.AppendMap(b, 2)
	b = text(b, "$type", "app.bsky.embed.images", "images")
	b = cbor.AppendArray(b, 1)
	b = cbor.AppendMap(b, 3)
	b = text(b, "alt", "a chart of the pressure", "image")
	b = cbor.AppendMap(b, 4)
	b = cbor.AppendLink(text(b, "ref"), img)
	b = cbor.AppendInt(text(b, "size"), 412345)
	b = text(b, "$type", "blob", "mimeType", "image/jpeg", "aspectRatio")
	b = cbor.AppendMap(b, 2)
	b = cbor.AppendInt(text(b, "width"), 1200)
	b = cbor.AppendInt(text(b, "height"), 800)
	b = text(b, "langs")
	b = cbor.AppendArray(b, 1)
	b = text(b, "en", "reply")
	b = cbor.AppendMap(b, 2)
	b = ref(text(b, "root"))
	b = ref(text(b, "parent"))
	b = text(b, "facets")
	b = cbor.AppendArray(b, 2)
	for i, kv := range [][2]string{{"mention", "did"}, {"link", "uri"}} {
		b = cbor.AppendMap(b, 2)
		b = text(b, "index")
		b = cbor.AppendMap(b, 2)
		b = cbor.AppendInt(text(b, "byteEnd"), int64(90+20*i))
		b = cbor.AppendInt(text(b, "byteStart"), int64(80+20*i))
		b = text(b, "features")
		b = cbor.AppendArray(b, 1)
		b = cbor.AppendMap(b, 2)
		b = text(b, kv[1], []string{"did:plc:ewvi7nxzyoun6zhxrhs64oiz", "https://example.com/chart"}[i], "$type", "app.bsky.richtext.facet#"+kv[0])
	}
	return text(b, "createdAt", "2026-11-21T01:02:03.456Z")
}

func BenchmarkValid(b *testing.B) {
	post := makePost()
	b.SetBytes(int64(len(post)))
	b.ReportAllocs()
	for b.Loop() {
		if err := cbor.Valid(post); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	post := makePost()
	b.SetBytes(int64(len(post)))
	b.ReportAllocs()
	for b.Loop() {
		r := cbor.NewReader(post)
		if err := pull(&r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSHA256(b *testing.B) {
	post := makePost()
	b.SetBytes(int64(len(post)))
	for b.Loop() {
		sha256.Sum256(post)
	}
}

func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = cbor.AppendMap(buf[:0], 2)
		buf = cbor.AppendText(buf, "text")
		buf = cbor.AppendText(buf, "hello world, this is a short text")
		buf = cbor.AppendText(buf, "createdAt")
		buf = cbor.AppendText(buf, "2026-11-21T01:02:03.456Z")
	}
}
