package main

import (
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/syntax"
	peer "github.com/bluesky-social/indigo/atproto/syntax"
	gocid "github.com/ipfs/go-cid"
)

func syntaxRows() []bench {
	g := newGenerator(3)
	var uris, dids, webs, nsids, tids, cids []string
	names := []string{"app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow", "com.atproto.repo.strongRef", "com.example.note", "chat.bsky.convo.defs",
		"place.stream.livestream", "sh.tangled.repo.pull"}
	for i := range 64 {
		did, name, tid := g.did(), names[i%len(names)], string(g.tid())
		dids, nsids, tids = append(dids, did), append(nsids, name), append(tids, tid)
		webs = append(webs, "did:web:host"+tid+".example.com")
		uris = append(uris, "at://"+did+"/"+name+"/"+tid)
		cids = append(cids, g.cid(cid.DagCBOR).String())
	}
	parse := func(name, what string, list []string, target float64, by string, ours, theirs func(string)) bench {
		return bench{name: "parse-" + name, what: what, peer: by, floor: "byte scan", of: peerOverOurs, target: target, allocs: 0, setup: func() (work, work, work) {
			rep := make([]string, 0, 16*len(list))
			for range 16 {
				rep = append(rep, list...)
			}
			return each(rep, ours), each(rep, theirs), each(rep, func(s string) { sink = touch(s) })
		}}
	}
	return []bench{
		parse("at-uri", "AT-URIs with DID, collection and record key", uris, 80, indigo,
			func(s string) { must(syntax.ParseATURI(s)) }, func(s string) { must(peer.ParseATURI(s)) }),
		parse("did", "did:plc identifiers", dids, 20, indigo,
			func(s string) { must(syntax.ParseDID(s)) }, func(s string) { must(peer.ParseDID(s)) }),
		parse("did-web", "did:web identifiers", webs, 20, indigo,
			func(s string) { must(syntax.ParseDID(s)) }, func(s string) { must(peer.ParseDID(s)) }),
		parse("nsid", "collection names", nsids, 20, indigo,
			func(s string) { must(syntax.ParseNSID(s)) }, func(s string) { must(peer.ParseNSID(s)) }),
		parse("tid", "TIDs", tids, 20, indigo,
			func(s string) { must(syntax.ParseTID(s)) }, func(s string) { must(peer.ParseTID(s)) }),
		parse("cid", "CIDs: ours decodes, the peer checks the syntax by a regular expression", cids, 20, indigo,
			func(s string) { must(cid.Parse(s)) }, func(s string) { must(peer.ParseCID(s)) }),
		parse("cid/go-cid", "CIDs: both decode", cids, 0, "go-cid",
			func(s string) { must(cid.Parse(s)) }, func(s string) { must(gocid.Decode(s)) }),
	}
}
