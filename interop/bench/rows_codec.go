package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
	"github.com/bluesky-social/indigo/api/bsky"
	"github.com/bluesky-social/indigo/atproto/atdata"
	fx "github.com/fxamacker/cbor/v2"
)

// strictMode makes fxamacker/cbor as strict as it can be made: it knows no order of keys.
var strictMode = must(fx.DecOptions{DupMapKey: fx.DupMapKeyEnforcedAPF, IndefLength: fx.IndefLengthForbidden, UTF8: fx.UTF8RejectInvalid,
	MaxNestedLevels: 32, DefaultMapType: nil}.DecMode())

// records are the inputs of the codec: a seeded mix, or those of a real repository.
type records struct {
	name string
	list [][]byte
}

func codecInputs() []records {
	g := newGenerator(1)
	mix := records{name: "mixed records"}
	for range 256 {
		_, b := g.record()
		mix.list = append(mix.list, b)
	}
	out := []records{mix}
	if b := fixture("cars/little.car"); b != nil {
		out = append(out, records{name: "records of a real repository", list: fixtureRecords(b)})
	}
	return out
}

func codecRows() []bench {
	var rows []bench
	for i, in := range codecInputs() {
		suffix := ""
		if i > 0 {
			suffix = " (fixture)"
		}
		size := 0
		for _, b := range in.list {
			check(cbor.Valid(b))
			check(validate(b))
			size += len(b)
		}
		in.name += fmt.Sprintf(", %d B on average", size/len(in.list))
		js := make([][]byte, len(in.list))
		for i, b := range in.list {
			js[i] = must(data.AppendJSON(nil, b))
			sameTranscoding(b, js[i])
		}
		rows = append(rows,
			bench{name: "validate" + suffix, what: "strict validation of " + in.name, peer: fxamacker, floor: "scan",
				of: oursOverFloor, target: 1.3, allocs: 0, setup: func() (work, work, work) {
					return each(in.list, func(b []byte) { check(cbor.Valid(b)) }),
						each(in.list, func(b []byte) { check(strictMode.Wellformed(b)) }),
						each(in.list, func(b []byte) { check(validate(b)) })
				}},
			bench{name: "cbor-to-json" + suffix, what: "CBOR to JSON without a schema, " + in.name, peer: indigo, floor: "scan and memcpy",
				of: peerOverOurs, target: 15, allocs: 0, setup: func() (work, work, work) {
					buf := make([]byte, 0, 1<<16)
					return each(in.list, func(b []byte) { buf = must(data.AppendJSON(buf[:0], b)) }),
						each(in.list, func(b []byte) { must(json.Marshal(must(atdata.UnmarshalCBOR(b)))) }),
						work{len(in.list), func() {
							for i := range in.list {
								check(validate(in.list[i]))
								copy(buf[:1<<16], js[i])
							}
						}}
				}},
			bench{name: "json-to-cbor" + suffix, what: "JSON to CBOR without a schema, " + in.name, peer: indigo, floor: "memcpy",
				of: peerOverOurs, target: 8, allocs: 0, setup: func() (work, work, work) {
					buf := make([]byte, 0, 1<<16)
					return each(js, func(b []byte) { buf = must(data.AppendCBOR(buf[:0], b)) }),
						each(js, func(b []byte) { must(atdata.MarshalCBOR(must(atdata.UnmarshalJSON(b)))) }),
						each(in.list, func(b []byte) { copy(buf[:1<<16], b) })
				}},
		)
	}
	mix := codecInputs()[0].list
	rows = append(rows,
		bench{name: "decode-generic", what: "mixed records into a tree of maps", peer: indigo, floor: "scan", of: peerOverOurs, allocs: -1, setup: func() (work, work, work) {
			return each(mix, func(b []byte) { must(data.Decode(b)) }), each(mix, func(b []byte) { must(atdata.UnmarshalCBOR(b)) }), each(mix, func(b []byte) { check(validate(b)) })
		}},
		bench{name: "decode-generic/fxamacker", what: "mixed records into a tree of maps", peer: fxamacker, floor: "scan", of: peerOverOurs, allocs: -1, setup: func() (work, work, work) {
			return each(mix, func(b []byte) { must(data.Decode(b)) }),
				each(mix, func(b []byte) {
					var v map[string]any
					check(strictMode.Unmarshal(b, &v))
				}), each(mix, func(b []byte) { check(validate(b)) })
		}},
	)
	rows = append(rows, postRows("", func(*appbsky.FeedPost) bool { return true })...)
	return append(rows, postRows("-rich", func(p *appbsky.FeedPost) bool {
		_, images := p.Embed.Value.(*appbsky.EmbedImages)
		return p.Reply != nil && len(p.Facets) > 0 && images
	})...)
}

// sameTranscoding makes sure that the peer does the same work.
func sameTranscoding(b, js []byte) {
	obj := must(atdata.UnmarshalCBOR(b))
	theirs := must(atdata.MarshalCBOR(must(atdata.UnmarshalJSON(must(json.Marshal(obj))))))
	ours := must(data.AppendCBOR(nil, js))
	if !bytes.Equal(ours, b) {
		check(fmt.Errorf("transcoding there and back changed %x", b))
	}
	if !bytes.Equal(theirs, b) {
		check(fmt.Errorf("transcoding there and back with indigo changed %x", b))
	}
}

func postRows(suffix string, want func(*appbsky.FeedPost) bool) []bench {
	g := newGenerator(2)
	const n = 128
	raw := make([][]byte, n)
	ours := make([]*appbsky.FeedPost, n)
	theirs := make([]*bsky.FeedPost, n)
	size := 0
	for i := range n {
		g.tid()
		p := g.post()
		for !want(p) {
			p = g.post()
		}
		raw[i] = encode(p)
		size += len(raw[i])
		ours[i], theirs[i] = new(appbsky.FeedPost), new(bsky.FeedPost)
		check(data.Unmarshal(raw[i], ours[i]))
		check(theirs[i].UnmarshalCBOR(bytes.NewReader(raw[i])))
		var b bytes.Buffer
		check(theirs[i].MarshalCBOR(&b))
		if !bytes.Equal(encode(ours[i]), raw[i]) || !bytes.Equal(b.Bytes(), raw[i]) {
			check(fmt.Errorf("post %d is not the same after decoding and encoding", i))
		}
	}
	what := fmt.Sprintf("posts of %d B on average", size/n)
	if suffix != "" {
		what = "replies with facets and images, " + what
	}
	return []bench{
		{name: "post-decode" + suffix, what: what + " into the generated struct", peer: indigo, floor: "scan", of: peerOverOurs, target: 7, allocs: 10, setup: func() (work, work, work) {
			return each(raw, func(b []byte) { check(data.Unmarshal(b, new(appbsky.FeedPost))) }),
				each(raw, func(b []byte) { check(new(bsky.FeedPost).UnmarshalCBOR(bytes.NewReader(b))) }),
				each(raw, func(b []byte) { check(validate(b)) })
		}},
		{name: "post-encode" + suffix, what: what + " from the generated struct", peer: indigo, floor: "memcpy", of: peerOverOurs, target: 2, allocs: 1, setup: func() (work, work, work) {
			buf := make([]byte, 1<<16)
			return each(ours, func(p *appbsky.FeedPost) { must(data.Marshal(p)) }),
				each(theirs, func(p *bsky.FeedPost) {
					b := bytes.NewBuffer(make([]byte, 0, 1024)) // so that it needn't grow
					check(p.MarshalCBOR(b))
				}),
				each(raw, func(b []byte) { copy(buf, b) })
		}},
	}
}
