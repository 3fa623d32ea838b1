package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/bench"
	"github.com/bluesky-social/indigo/api/bsky"
	"github.com/bluesky-social/indigo/atproto/atdata"
	peer "github.com/bluesky-social/indigo/atproto/syntax"
	fx "github.com/fxamacker/cbor/v2"
	gocid "github.com/ipfs/go-cid"
)

const (
	indigo    = "indigo"
	fxamacker = "fxamacker/cbor"
)

// strictMode makes fxamacker/cbor as strict as it can be made: it knows no order of keys.
var strictMode = bench.Must(fx.DecOptions{DupMapKey: fx.DupMapKeyEnforcedAPF, IndefLength: fx.IndefLengthForbidden, UTF8: fx.UTF8RejectInvalid,
	MaxNestedLevels: 32, DefaultMapType: nil}.DecMode())

func codecRows() []bench.Bench {
	inputs := []bench.Records{bench.Mixed()}
	if b := fixture("cars/little.car"); b != nil {
		inputs = append(inputs, bench.Records{Name: "records of a real repository", Suffix: " (fixture)", List: fixtureRecords(b)})
	}
	var rows []bench.Bench
	for _, in := range inputs {
		js := in.JSON()
		for i, b := range in.List {
			sameTranscoding(b, js[i])
		}
		for _, b := range bench.Codec(in) {
			switch strings.TrimSuffix(b.Name, in.Suffix) {
			case "validate":
				b.Peer, b.PeerWork = fxamacker, func() bench.Work {
					return bench.Each(in.List, func(b []byte) { bench.Check(strictMode.Wellformed(b)) })
				}
			case "cbor-to-json":
				b = b.Against(indigo, 15, func() bench.Work {
					return bench.Each(in.List, func(b []byte) { bench.Must(json.Marshal(bench.Must(atdata.UnmarshalCBOR(b)))) })
				})
			case "json-to-cbor":
				b = b.Against(indigo, 8, func() bench.Work {
					return bench.Each(js, func(b []byte) { bench.Must(atdata.MarshalCBOR(bench.Must(atdata.UnmarshalJSON(b)))) })
				})
			}
			rows = append(rows, b)
		}
	}
	mix := inputs[0].List
	generic := bench.DecodeGeneric()
	rows = append(rows, generic.Against(indigo, 0, func() bench.Work {
		return bench.Each(mix, func(b []byte) { bench.Must(atdata.UnmarshalCBOR(b)) })
	}))
	generic.Name += "/fxamacker"
	rows = append(rows, generic.Against(fxamacker, 0, func() bench.Work {
		return bench.Each(mix, func(b []byte) {
			var v map[string]any
			bench.Check(strictMode.Unmarshal(b, &v))
		})
	}))
	return append(rows, append(postRows(false), postRows(true)...)...)
}

// sameTranscoding makes sure that the peer does the same work.
func sameTranscoding(b, js []byte) {
	obj := bench.Must(atdata.UnmarshalCBOR(b))
	theirs := bench.Must(atdata.MarshalCBOR(bench.Must(atdata.UnmarshalJSON(bench.Must(json.Marshal(obj))))))
	if ours := bench.Must(data.AppendCBOR(nil, js)); !bytes.Equal(ours, b) {
		bench.Check(fmt.Errorf("transcoding there and back changed %x", b))
	}
	if !bytes.Equal(theirs, b) {
		bench.Check(fmt.Errorf("transcoding there and back with indigo changed %x", b))
	}
}

func postRows(rich bool) []bench.Bench {
	p := bench.NewPosts(rich)
	theirs := make([]*bsky.FeedPost, len(p.Raw))
	for i, raw := range p.Raw {
		theirs[i] = new(bsky.FeedPost)
		bench.Check(theirs[i].UnmarshalCBOR(bytes.NewReader(raw)))
		var b bytes.Buffer
		bench.Check(theirs[i].MarshalCBOR(&b))
		if !bytes.Equal(b.Bytes(), raw) {
			bench.Check(fmt.Errorf("post %d is not the same after decoding and encoding with indigo", i))
		}
	}
	rows := p.Rows()
	decode := func() bench.Work {
		return bench.Each(p.Raw, func(b []byte) { bench.Check(new(bsky.FeedPost).UnmarshalCBOR(bytes.NewReader(b))) })
	}
	rows[0], rows[1] = rows[0].Against(indigo, 7, decode), rows[1].Against(indigo, 7, decode)
	rows[2] = rows[2].Against(indigo, 2, func() bench.Work {
		return bench.Each(theirs, func(p *bsky.FeedPost) {
			b := bytes.NewBuffer(make([]byte, 0, 1024)) // so that it needn't grow
			bench.Check(p.MarshalCBOR(b))
		})
	})
	rows[3] = rows[3].Against(indigo, 2, func() bench.Work {
		var b bytes.Buffer
		return bench.Each(theirs, func(p *bsky.FeedPost) {
			b.Reset()
			bench.Check(p.MarshalCBOR(&b))
		})
	})
	return rows
}

func syntaxRows() []bench.Bench {
	n := bench.NewNames()
	rows := n.Rows()
	for i, p := range []struct {
		target float64
		list   []string
		parse  func(string)
	}{
		{80, n.URIs, func(s string) { bench.Must(peer.ParseATURI(s)) }},
		{20, n.DIDs, func(s string) { bench.Must(peer.ParseDID(s)) }},
		{20, n.Webs, func(s string) { bench.Must(peer.ParseDID(s)) }},
		{20, n.NSIDs, func(s string) { bench.Must(peer.ParseNSID(s)) }},
		{20, n.TIDs, func(s string) { bench.Must(peer.ParseTID(s)) }},
		{20, n.CIDs, func(s string) { bench.Must(peer.ParseCID(s)) }},
	} {
		rows[i] = rows[i].Against(indigo, p.target, func() bench.Work { return bench.Often(p.list, p.parse) })
	}
	cids := rows[len(rows)-1]
	rows[len(rows)-1].What += ": ours decodes, the peer checks the syntax by a regular expression"
	cids.Name, cids.What = cids.Name+"/go-cid", cids.What+": both decode"
	return append(rows, cids.Against("go-cid", 0, func() bench.Work {
		return bench.Often(n.CIDs, func(s string) { bench.Must(gocid.Decode(s)) })
	}))
}
