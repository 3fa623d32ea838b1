package stream_test

import (
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/stream"
)

func TestSubjectOf(t *testing.T) {
	const did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	c := cid.Sum(cid.DagCBOR, nil)
	for _, m := range []stream.Message{
		&stream.Commit{Repo: did, Rev: "3jzfcijpj2z2a", Commit: c, Blocks: []byte("x"), Ops: []stream.Op{{Action: "create", Path: "a.b.c/d", CID: c}}},
		&stream.Sync{DID: did, Rev: "3jzfcijpj2z2a", Blocks: []byte("x")},
		&stream.Identity{DID: did, Handle: "a.test"},
		&stream.Account{DID: did, Active: true},
		&stream.Info{Name: stream.InfoOutdatedCursor},
	} {
		m.SetSequence(7)
		frame := stream.AppendFrame(nil, m)
		if got := stream.SubjectOf(frame); got != m.Subject() {
			t.Errorf("%T: %q, want %q", m, got, m.Subject())
		}
		for i := range frame { // and no panic
			if got := stream.SubjectOf(frame[:i]); got != "" && got != did {
				t.Errorf("%T, cut at %d: %q", m, i, got)
			}
		}
	}
}

func BenchmarkSubjectOf(b *testing.B) {
	c := cid.Sum(cid.DagCBOR, nil)
	frame := stream.AppendFrame(nil, &stream.Commit{Repo: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Commit: c, Blocks: make([]byte, 4000), Ops: []stream.Op{{Action: "create", Path: "a.b.c/d", CID: c}}})
	b.ReportAllocs()
	for b.Loop() {
		stream.SubjectOf(frame)
	}
}
