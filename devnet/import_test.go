package devnet_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// realRepository reads the records of a repository from the public network and signs them anew as the account's, as an
// account does that moves here with its data.
func realRepository(t *testing.T, name string, did syntax.DID) (file []byte, records map[string][]byte) {
	t.Helper()
	r, err := repo.Open(bytes.NewReader(fixtures.Read(t, name)), repo.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	records = map[string][]byte{}
	tree := mst.New()
	for rec, err := range r.Records() {
		if err != nil {
			t.Fatal(err)
		}
		records[string(rec.Path)] = bytes.Clone(rec.Data)
		if _, _, err := tree.Put(string(rec.Path), rec.CID); err != nil {
			t.Fatal(err)
		}
	}
	key, err := keys.Generate(keys.K256, rand.NewChaCha8([32]byte{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Flush(); err != nil {
		t.Fatal(err)
	}
	root, err := tree.Root()
	if err != nil {
		t.Fatal(err)
	}
	commit := &repo.Commit{DID: did, Version: repo.Version, Rev: syntax.NewTID(time.Now().UnixMicro(), 1), Data: root}
	if err := commit.Sign(key); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	err = repo.WriteCAR(&b, commit.Encode(), tree, func(path string, _ cid.CID) ([]byte, error) { return records[path], nil })
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), records
}

// TestImport takes a real repository in and looks for its content at every service.
func TestImport(t *testing.T) {
	n := start(t, devnet.Options{Memory: true})
	p := signUp(t, n, "moving")
	file, records := realRepository(t, "cars/little.car", syntax.DID(p.did))
	if len(records) < 100 {
		t.Fatalf("the file has only %d records", len(records))
	}
	if _, err := comatproto.RepoImportRepo.Call(t.Context(), p.Client, &xrpc.Body{Reader: bytes.NewReader(file), Type: car.MediaType, Length: int64(len(file))}); err != nil {
		t.Fatal(err)
	}

	// The export has every record and nothing else, under the account's own signature.
	doc, err := n.Directory().ResolveDID(t.Context(), syntax.DID(p.did))
	if err != nil {
		t.Fatal(err)
	}
	out, err := comatproto.SyncGetRepo.Call(t.Context(), n.PDS(), &comatproto.SyncGetRepo_Params{Did: p.did})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	r, err := repo.Open(out.Body, repo.ReadOptions{DID: syntax.DID(p.did), Key: doc.SigningKey})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for rec, err := range r.Records() {
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(records[string(rec.Path)], rec.Data) {
			t.Errorf("%s came out changed", rec.Path)
		}
		seen++
	}
	if seen != len(records) || !r.Report().OK() {
		t.Errorf("%d records came out of %d: %+v", seen, len(records), r.Report().Failed())
	}

	// The relay knows the new commit, through #sync.
	eventually(t, func() error {
		c := n.PDS().WithHost(n.URLs().Relay)
		got, err := comatproto.SyncGetLatestCommit.Call(t.Context(), c, &comatproto.SyncGetLatestCommit_Params{Did: p.did})
		if err == nil && got.Rev != string(r.Commit().Rev) {
			err = fmt.Errorf("the relay has revision %s, want %s", got.Rev, r.Commit().Rev)
		}
		return err
	})

	// The link index counts the likes, which it has to fetch, and the explorer shows a post.
	likes, post, text := map[string]int{}, "", ""
	for path, rec := range records {
		switch data.TypeOf(rec) {
		case "app.bsky.feed.like":
			var like appbsky.FeedLike
			if err := data.Unmarshal(rec, &like); err != nil {
				t.Fatal(err)
			}
			likes[like.Subject.Uri]++
		case "app.bsky.feed.post":
			var f appbsky.FeedPost
			if err := data.Unmarshal(rec, &f); err != nil {
				t.Fatal(err)
			}
			if words := strings.Fields(f.Text); len(words) > 2 && (post == "" || path < post) {
				post, text = path, words[0]
			}
		}
	}
	if len(likes) == 0 || post == "" {
		t.Fatalf("the file has %d likes and the post %q", len(likes), post)
	}
	for uri, count := range likes {
		eventually(t, likesAre(t, n, uri, count))
	}
	shows(t, n, "at://"+p.did+"/"+post, text)
}
