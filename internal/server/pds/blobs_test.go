package pds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
)

var png = append([]byte("\x89PNG\r\n\x1a\n"), bytes.Repeat([]byte("pixels"), 100)...)

func (a *testAccount) upload(kind string, body []byte) answerOf {
	a.p.t.Helper()
	return a.p.do(http.MethodPost, "com.atproto.repo.uploadBlob", a.token, kind, bytes.NewReader(body))
}

func (a *testAccount) blob(c cid.CID) answerOf {
	a.p.t.Helper()
	return a.p.get("com.atproto.sync.getBlob?did=" + string(a.did) + "&cid=" + c.String())
}

func (a *testAccount) blobs() string {
	a.p.t.Helper()
	r := a.p.get("com.atproto.sync.listBlobs?did=" + string(a.did))
	want(a.p.t, r, 200, "")
	return fmt.Sprint(r.JSON["cids"])
}

func withBlob(b any) map[string]any {
	return map[string]any{"$type": "com.example.thing", "file": b}
}

func TestBlobLife(t *testing.T) {
	clock := world.NewManual(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	w := testWorld(1)
	w.Clock = clock
	p := startPDS(t, w, Config{})
	a, b := p.account("alice"), p.account("bob")

	// Upload: typed by its bytes, not downloadable, not listed.
	up := a.upload("text/plain", png)
	want(t, up, 200, "")
	ref := up.JSON["blob"].(map[string]any)
	c := cid.Sum(cid.Raw, png)
	if ref["$type"] != "blob" || ref["mimeType"] != "image/png" || ref["size"] != float64(len(png)) || ref["ref"].(map[string]any)["$link"] != c.String() {
		t.Fatalf("blob %s", up.Body)
	}
	want(t, a.blob(c), 400, "BlobNotFound")
	if got := a.blobs(); got != "[]" {
		t.Errorf("temporary blob listed: %s", got)
	}

	// References have to tell the truth, and to be one's own.
	lie := func(key string, v any) map[string]any {
		m := map[string]any{}
		for k, v := range ref {
			m[k] = v
		}
		m[key] = v
		return withBlob(m)
	}
	want(t, a.create("com.example.thing", "lie", lie("mimeType", "image/jpeg")), 400, "InvalidMimeType")
	want(t, a.create("com.example.thing", "lie", lie("size", 1)), 400, "InvalidSize")
	want(t, b.create("com.example.thing", "lie", withBlob(ref)), 400, "BlobNotFound")
	want(t, a.blob(c), 400, "BlobNotFound")

	// Two records reference it; it stays until the second one goes.
	want(t, a.create("com.example.thing", "one", withBlob(ref)), 200, "")
	want(t, a.create("com.example.thing", "two", withBlob(ref)), 200, "")
	got := a.blob(c)
	want(t, got, 200, "")
	if !bytes.Equal(got.Body, png) {
		t.Error("other bytes")
	}
	for name, value := range map[string]string{
		"Content-Type": "image/png", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox",
		"Content-Length": fmt.Sprint(len(png)),
	} {
		if v := got.Header.Get(name); v != value {
			t.Errorf("%s: %q", name, v)
		}
	}
	if !strings.HasPrefix(got.Header.Get("Content-Disposition"), "attachment") {
		t.Error("not an attachment")
	}
	if got := a.blobs(); got != "["+c.String()+"]" {
		t.Errorf("listed: %s", got)
	}
	want(t, a.upload("image/png", png), 200, "") // again: nothing changes
	want(t, a.blob(c), 200, "")
	del := func(rkey string) {
		t.Helper()
		want(t, a.post("com.atproto.repo.deleteRecord", map[string]any{"repo": a.did, "collection": "com.example.thing", "rkey": rkey}), 200, "")
	}
	del("one")
	want(t, a.blob(c), 200, "")
	want(t, a.post("com.atproto.repo.putRecord", map[string]any{"repo": a.did, "collection": "com.example.thing", "rkey": "two",
		"record": map[string]any{}}), 200, "")
	want(t, a.blob(c), 400, "BlobNotFound")
	if got := a.blobs(); got != "[]" {
		t.Errorf("listed: %s", got)
	}
	if f, err := p.files.Open(string(a.did), c); err == nil {
		f.Close()
		t.Error("the file outlived its last reference")
	}

	// Uploaded again it is temporary again, and after its time it is gone, file and all; one in use stays.
	want(t, a.upload("image/png", png), 200, "")
	kept := append(bytes.Clone(png), "kept"...)
	keptRef := a.upload("", kept).JSON["blob"]
	want(t, a.create("com.example.thing", "kept", withBlob(keptRef)), 200, "")
	clock.Advance(p.cfg.TempBlobAge - time.Minute)
	if err := p.collectTemporary(context.Background()); err != nil {
		t.Fatal(err)
	}
	if f, err := p.files.Open(string(a.did), c); err != nil {
		t.Error("a temporary blob went before its time")
	} else {
		f.Close()
	}
	clock.Advance(2 * time.Minute)
	if err := p.collectTemporary(context.Background()); err != nil {
		t.Fatal(err)
	}
	if f, err := p.files.Open(string(a.did), c); err == nil {
		f.Close()
		t.Error("a temporary blob was not collected")
	}
	a = p.login(a.did, a.key)
	want(t, a.create("com.example.thing", "late", withBlob(ref)), 400, "BlobNotFound")
	want(t, a.blob(cid.Sum(cid.Raw, kept)), 200, "")

	// Blobs of an inactive account are not served.
	if err := p.submitAccountEvents(context.Background(), a.did, accountChange{Account: true, Status: hostingTakendown}); err != nil {
		t.Fatal(err)
	}
	want(t, a.blob(cid.Sum(cid.Raw, kept)), 400, "RepoTakendown")
}

func TestBlobRefusals(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{MaxBlobBytes: 1000})
	a := p.account("alice")
	if got := a.upload("image/png", make([]byte, 1001)); got.Status != 413 && got.Status != 400 {
		t.Errorf("too large: %d %s", got.Status, got.Body)
	}
	// The same without a declared length.
	req, _ := http.NewRequest(http.MethodPost, p.URL+"/xrpc/com.atproto.repo.uploadBlob", struct{ *bytes.Reader }{bytes.NewReader(make([]byte, 5000))})
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.ContentLength = -1
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != 413 && resp.StatusCode != 400 {
			t.Errorf("too large in chunks: %d", resp.StatusCode)
		}
	}
	want(t, p.get("com.atproto.sync.getBlob?did="+string(a.did)+"&cid=../../etc/passwd"), 400, "InvalidRequest")
	want(t, p.get("com.atproto.sync.getBlob?did=did:web:..%2F..&cid="+cid.Sum(cid.Raw, png).String()), 400, "InvalidRequest")
	if got := p.do(http.MethodPost, "com.atproto.repo.uploadBlob", "", "image/png", bytes.NewReader(png)); got.Status != 401 {
		t.Errorf("without a token: %d", got.Status)
	}
	if got := a.upload("image/png", nil); got.Status != 400 {
		t.Errorf("empty blob: %d %s", got.Status, got.Body)
	}
}

// The old form of a blob reference is read and imported, and never written, whatever is known about the record's schema.
func TestLegacyBlobs(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{Memory: true})
	a := p.account("alice")
	c := cid.Sum(cid.Raw, png)
	legacy := map[string]any{"cid": c.String(), "mimeType": "image/png"}
	put := func(collection string, record map[string]any, validate any) answerOf {
		in := map[string]any{"repo": a.did, "collection": collection, "rkey": "self", "record": record}
		if validate != nil {
			in["validate"] = validate
		}
		return a.post("com.atproto.repo.putRecord", in)
	}
	for _, validate := range []any{nil, false} {
		for _, where := range []any{legacy, []any{1, map[string]any{"deep": legacy}}, map[string]any{"cid": cid.Sum(cid.DagCBOR, png).String(), "mimeType": "image/png"}} {
			want(t, put("com.example.thing", withBlob(where), validate), 400, "InvalidRequest")
		}
		want(t, put("app.bsky.actor.profile", map[string]any{"avatar": legacy}, validate), 400, "InvalidRequest")
	}
	want(t, a.post("com.atproto.repo.applyWrites", map[string]any{"repo": a.did, "writes": []any{
		map[string]any{"$type": "com.atproto.repo.applyWrites#create", "collection": "com.example.thing", "value": withBlob(legacy)},
	}}), 400, "InvalidRequest")
	// What only looks like it is data like any other.
	for _, v := range []any{
		map[string]any{"cid": "x", "mimeType": "image/png"},
		map[string]any{"cid": c.String(), "mimeType": "image/png", "name": "x"},
		map[string]any{"cid": c.String(), "mimeType": 1},
		map[string]any{"cid": c.String()},
	} {
		want(t, put("com.example.thing", withBlob(v), false), 200, "")
	}

	src := startPDS(t, testWorld(9), Config{Memory: true})
	old := src.account("carol")
	rec, err := data.Encode(withBlob(legacy))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := src.commit(old.did, []write{{Action: actCreate, Path: "com.example.thing/old", Record: rec, CID: cid.Sum(cid.DagCBOR, rec)}}, nil); err != nil {
		t.Fatal(err)
	}
	b := p.accountWith(old.did, "carol.test", keysOf(t, 5), true)
	want(t, b.importCAR(src.get("com.atproto.sync.getRepo?did="+string(old.did)).Body), 200, "")
	got := p.get("com.atproto.repo.getRecord?repo=" + string(old.did) + "&collection=com.example.thing&rkey=old")
	want(t, got, 200, "")
	want(t, b.post("com.atproto.repo.putRecord", map[string]any{"repo": b.did, "collection": "com.example.thing", "rkey": "old", "record": got.JSON["value"]}), 400, "InvalidRequest")
	want(t, b.post("com.atproto.repo.deleteRecord", map[string]any{"repo": b.did, "collection": "com.example.thing", "rkey": "old"}), 200, "")
	b.p.checkStore(b.did)
}

func TestBlobUploadCutShort(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{})
	a := p.account("alice")
	req, _ := http.NewRequest(http.MethodPost, p.URL+"/xrpc/com.atproto.repo.uploadBlob", bytes.NewReader(png[:50]))
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.ContentLength = 100
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode == 200 {
			t.Error("half an upload was taken for a whole one")
		}
	}
	if _, err := p.store.Get(blobKey(1, cid.Sum(cid.Raw, png[:50]))); err == nil {
		t.Error("half an upload left a row")
	}
}

func TestSniff(t *testing.T) {
	for _, c := range []struct{ head, declared, want string }{
		{string(png), "text/html", "image/png"},
		{string(png), "", "image/png"},
		{"\xff\xd8\xff\xe0", "image/png", "image/jpeg"},
		{"hello", "image/png", "text/plain"},
		{"hello", "text/vtt; charset=utf-8", "text/vtt"},
		{"hello", "", "text/plain"},
		{"hello", "*/*", "text/plain"},
		{"<html><script>", "image/png", "text/html"},
		{"<?xml version='1.0'?><svg/>", "image/svg+xml", "image/svg+xml"},
		{"\x00\x00\x00\x20ftypisom\x00\x00", "video/mp4", "video/mp4"},
		{"\x00\x00\x00\x20ftypqt  \x00\x00", "", "video/quicktime"},
		{"\x00\x00\x00\x20ftypavif\x00\x00", "image/jpeg", "image/avif"},
		{"PK\x03\x04", "application/epub+zip", "application/epub+zip"},
		{"PK\x03\x04", "image/png", "application/zip"},
		{"", "image/png", "image/png"},
		{"", "", "application/octet-stream"},
		{"\x01\x02\x03\x04", "nonsense", "application/octet-stream"},
		{"\x01\x02\x03\x04", "image/jxl", "image/jxl"},
	} {
		if got := sniff([]byte(c.head), c.declared); got != c.want {
			t.Errorf("%q declared %q: %s, want %s", c.head, c.declared, got, c.want)
		}
	}
}

// TestBlobRaces lets uploads, references, deletions and the collector race for a handful of blobs, and then compares rows, references and
// files: a blob in use is there, one that nobody uses is temporary or gone, and no file is without a row.
func TestBlobRaces(t *testing.T) {
	clock := world.NewManual(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	w := testWorld(1)
	w.Clock = clock
	p := startPDS(t, w, Config{OpenRepos: 1})
	a, b := p.account("alice"), p.account("bob")
	ctx := context.Background()
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	var wg sync.WaitGroup
	var collected atomic.Int64
	for n := range 6 {
		wg.Go(func() {
			rnd := mrand.New(mrand.NewPCG(uint64(n), 3))
			for range rounds {
				acc := []*testAccount{a, b}[rnd.IntN(2)]
				path := fmt.Sprintf("com.example.thing/%d", rnd.IntN(5))
				switch rnd.IntN(6) {
				case 0:
					clock.Advance(3 * time.Hour)
					if err := p.collectTemporary(ctx); err != nil {
						t.Error(err)
					}
					collected.Add(1)
				case 1, 2:
					if _, err := p.commit(acc.did, []write{{Action: actEnsureGone, Path: path}}, nil); err != nil {
						t.Error(err)
					}
				default:
					blob, err := p.upload(ctx, acc.did, strings.NewReader(fmt.Sprint("blob ", rnd.IntN(3))), "text/plain", -1)
					if err != nil {
						t.Error(err)
						return
					}
					if rnd.IntN(3) == 0 {
						continue // never referenced
					}
					rec, err := data.Encode(map[string]any{"$type": "com.example.thing", "file": *blob})
					if err != nil {
						t.Error(err)
						return
					}
					_, err = p.commit(acc.did, []write{{Action: actPut, Path: path, Record: rec, CID: cid.Sum(cid.DagCBOR, rec), Blobs: []data.Blob{*blob}}}, nil)
					var gone *blobError // the collector was faster, or another's deletion
					if err != nil && !errors.As(err, &gone) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if collected.Load() == 0 {
		t.Fatal("the collector never ran")
	}
	if err := p.sweepGarbage(ctx); err != nil {
		t.Fatal(err)
	}
	for _, acc := range []*testAccount{a, b} {
		h := mustHead(t, acc)
		refs := map[cid.CID]bool{}
		if err := eachBlob(p.store, h.Gen, cid.CID{}, func(c cid.CID, _ kv.Iterator) (bool, error) { refs[c] = true; return true, nil }); err != nil {
			t.Fatal(err)
		}
		rows := map[cid.CID]bool{}
		lo, hi := genRange(tableBlob, h.account)
		it := p.store.Iter(lo, hi)
		for ok := it.First(); ok; ok = it.Next() {
			c := cid.CID(it.Key()[9:])
			row, err := decodeBlobRow(it.Value())
			if err != nil {
				t.Fatal(err)
			}
			rows[c] = true
			if (row.State == blobPermanent) != refs[c] {
				t.Errorf("blob %s is %c, referenced %v", c, row.State, refs[c])
			}
			if _, err := p.files.ReadAll(string(acc.did), c); err != nil {
				t.Errorf("blob %s: %v", c, err)
			}
		}
		it.Close()
		for c := range refs {
			if !rows[c] {
				t.Errorf("referenced blob %s has no row", c)
			}
		}
		files, err := p.files.List(string(acc.did))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range files {
			if !rows[c] {
				t.Errorf("file %s has no row", c)
			}
		}
	}
}
