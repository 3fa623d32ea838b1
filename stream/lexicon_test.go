package stream_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/stream"
)

// TestAgainstLexicon holds the hand-written messages against the schema that they are written from.
func TestAgainstLexicon(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(fixtures.Root(), "..", "shared", "lexicons", "com", "atproto", "sync", "subscribeRepos.json"))
	if err != nil {
		t.Skip("the reference schemas are missing")
	}
	cat := lexicon.NewCatalog()
	schema, err := cat.AddJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	validate := func(m stream.Message) error {
		f, err := stream.ParseFrame(stream.AppendFrame(nil, m))
		if err != nil {
			t.Fatal(err)
		}
		return cat.ValidateMessage(stream.SubscribeRepos, m.FrameType(), f.Payload)
	}
	head := stream.Commit{
		Seq: 1, Repo: "did:web:a.test", Rev: "3jzfcijpj2z2b", Since: "3jzfcijpj2z2a", Time: "2026-11-21T00:00:01.000Z",
		Commit: cidA, PrevData: cidB, Blocks: []byte("car"), Blobs: nil,
		Ops: []stream.Op{{Action: stream.ActionCreate, Path: "a.b.c/d", CID: cidA}, {Action: stream.ActionDelete, Path: "a.b.c/e", Prev: cidB}},
	}
	first := head
	first.Since, first.PrevData, first.Ops = "", cid.CID{}, nil
	messages := []stream.Message{
		&head, &first,
		&stream.Sync{Seq: 3, DID: "did:web:a.test", Rev: "3jzfcijpj2z2b", Time: "2026-11-21T00:00:01.000Z", Blocks: []byte("car")},
		&stream.Identity{Seq: 4, DID: "did:web:a.test", Time: "2026-11-21T00:00:01.000Z", Handle: "a.test"},
		&stream.Account{Seq: 6, DID: "did:web:a.test", Time: "2026-11-21T00:00:01.000Z", Status: stream.StatusDeactivated},
		&stream.Info{Name: stream.InfoOutdatedCursor, Text: "old"},
	}
	seen := map[string]bool{}
	for _, m := range messages {
		seen[stream.SubscribeRepos+m.FrameType()] = true
		if err := validate(m); err != nil {
			t.Errorf("%s: %v", m.FrameType(), err)
		}
	}
	for _, ref := range schema.Main().Message.Refs {
		if !seen[ref] {
			t.Errorf("no message for %s", ref)
		}
	}
	if err := validate(&stream.Account{Seq: 6, DID: "nobody", Time: "2026-11-21T00:00:01.000Z"}); err == nil {
		t.Error("a bad DID was accepted: the test doesn't test")
	}
}
