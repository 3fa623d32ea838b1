package main

import (
	"fmt"

	"github.com/barograph/baro/internal/bench"
	peer "github.com/bluesky-social/indigo/atproto/repo/mst"
	gocid "github.com/ipfs/go-cid"
)

// values are a list's, in the peer's type.
func values(l *bench.List) []gocid.Cid {
	var out []gocid.Cid
	for _, c := range l.Values {
		out = append(out, bench.Must(gocid.Cast(c.Bytes())))
	}
	return out
}

func insertPeer(l *bench.List, values []gocid.Cid) *peer.Tree {
	t := peer.NewEmptyTree()
	for i, k := range l.Keys {
		bench.Must(t.Insert([]byte(k), values[i]))
	}
	bench.Must(t.RootCID())
	return &t
}

func treeRows() []bench.Bench {
	build := func() bench.Work {
		l := bench.NewList(bench.TreeSize)
		v := values(l)
		if t, _ := l.Tree(); bench.Must(t.Root()).String() != bench.Must(insertPeer(l, v).RootCID()).String() {
			bench.Check(fmt.Errorf("the roots of the trees differ"))
		}
		return bench.Work{Ops: 1, Do: func() { insertPeer(l, v) }}
	}
	var rows []bench.Bench
	for _, b := range bench.Tree() {
		switch b.Name {
		case "tree-insert":
			b = b.Against(indigo, 5, build)
		case "tree-bulk":
			b = b.Against(indigo, 8, build)
		case "tree-one-op":
			b = b.Against(indigo, 3, func() bench.Work {
				l := bench.NewList(bench.TreeSize)
				v := values(l)
				t := insertPeer(l, v)
				i := 0
				return bench.Work{Ops: 1, Do: func() {
					i++
					k, _ := l.OneMore(i)
					bench.Must(t.Insert([]byte(k), v[i%len(v)]))
					bench.Must(t.RootCID())
				}}
			})
		}
		rows = append(rows, b)
	}
	return rows
}
