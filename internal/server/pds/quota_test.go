package pds

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/barograph/baro/syntax"
)

func TestQuota(t *testing.T) {
	n := newNetwork(t, Config{AccountBytes: 10_000})
	a := n.signedUp("alice")
	b := n.signedUp("bob")
	did, tok := a.str("did"), a.str("accessJwt")
	write := func(method, rkey string, size int) answerOf {
		return n.call("com.atproto.repo."+method, tok, map[string]any{"repo": did, "collection": "com.example.thing", "rkey": rkey, "record": map[string]any{"text": strings.Repeat("x", size)}})
	}
	remove := func(rkey string) answerOf {
		return n.call("com.atproto.repo.deleteRecord", tok, map[string]any{"repo": did, "collection": "com.example.thing", "rkey": rkey})
	}
	upload := func(tok string, text string) answerOf {
		return n.do(http.MethodPost, "com.atproto.repo.uploadBlob", tok, "text/plain", strings.NewReader(text))
	}
	// exact compares what is counted with what is there.
	exact := func() int64 {
		t.Helper()
		r, err := n.acquire(syntax.DID(did))
		if err != nil {
			t.Fatal(err)
		}
		defer n.release(r)
		got, err := n.recordBytes(r)
		if err != nil || got != r.head.Bytes {
			t.Errorf("%d bytes are counted, %d are there, %v", r.head.Bytes, got, err)
		}
		return got
	}
	want(t, write("createRecord", "a", 4000), 200, "")
	want(t, upload(tok, strings.Repeat("b", 5000)), 200, "")
	want(t, upload(tok, strings.Repeat("b", 5000)), 200, "") // the same one takes nothing more
	for range 2 {
		want(t, write("createRecord", "b", 1000), 403, "QuotaExceeded")
		want(t, upload(tok, strings.Repeat("c", 1000)), 403, "QuotaExceeded")
		want(t, write("putRecord", "a", 5000), 403, "QuotaExceeded")
		want(t, upload(b.str("accessJwt"), strings.Repeat("c", 1000)), 200, "") // each account has its own
		if got := exact(); got < 4000 || got > 4100 {
			t.Errorf("%d bytes", got)
		}
		n.restart()
	}
	want(t, write("putRecord", "a", 3000), 200, "")
	want(t, write("createRecord", "b", 1000), 200, "")
	want(t, remove("a"), 200, "")
	exact()
	want(t, upload(tok, strings.Repeat("d", 3000)), 200, "")
	want(t, upload(tok, strings.Repeat("e", 3000)), 403, "QuotaExceeded")
	// Blobs that nobody refers to go, and leave room.
	n.clock.Advance(n.Service.cfg.TempBlobAge * 2)
	if err := n.collectTemporary(t.Context()); err != nil {
		t.Fatal(err)
	}
	tok = n.signIn("alice.test", goodPassword).str("accessJwt")
	want(t, upload(tok, strings.Repeat("e", 8000)), 200, "")
	want(t, write("createRecord", "c", 2000), 403, "QuotaExceeded")

	// A row of a version that didn't count is read, and counts from its next write on.
	head, err := loadHead(n.store, syntax.DID(did))
	if err != nil {
		t.Fatal(err)
	}
	row := head.encode()
	old := append([]byte{headVersionOld}, row[1:9]...)
	old = append(old, row[17:]...)
	if h, err := decodeHead(head.account, old); err != nil || h.Bytes != -1 || h.Commit != head.Commit || h.DID != head.DID || !bytes.Equal(h.Block, head.Block) {
		t.Fatalf("%+v, %v", h, err)
	}
	batch := n.store.NewBatch()
	batch.Set(idKey(tableHead, head.account), old)
	if err := n.store.Apply(batch, true); err != nil {
		t.Fatal(err)
	}
	n.restart()
	want(t, upload(tok, strings.Repeat("f", 1500)), 403, "QuotaExceeded")
	want(t, write("createRecord", "c", 10), 200, "")
	exact()
}

func TestQuotaOfImport(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	for _, rkey := range []string{"a", "b", "c"} {
		in := map[string]any{"repo": did, "collection": "com.example.thing", "rkey": rkey, "record": map[string]any{"text": strings.Repeat(rkey, 1000)}}
		want(t, n.call("com.atproto.repo.createRecord", tok, in), 200, "")
	}
	car := n.query("com.atproto.sync.getRepo?did="+did, "")
	want(t, n.call("com.atproto.repo.deleteRecord", tok, map[string]any{"repo": did, "collection": "com.example.thing", "rkey": "a"}), 200, "")
	bring := func() answerOf {
		return n.do(http.MethodPost, "com.atproto.repo.importRepo", tok, "application/vnd.ipld.car", bytes.NewReader(car.Body))
	}
	n.cfg.AccountBytes = 2500
	n.restart()
	want(t, bring(), 403, "QuotaExceeded")
	n.cfg.AccountBytes = 3500
	n.restart()
	want(t, bring(), 200, "")
	head, err := loadHead(n.store, syntax.DID(did))
	if err != nil || head.Bytes < 3000 || head.Bytes > 3100 {
		t.Errorf("%d bytes, %v", head.Bytes, err)
	}
	want(t, n.do(http.MethodPost, "com.atproto.repo.uploadBlob", tok, "text/plain", strings.NewReader(strings.Repeat("x", 1000))), 403, "QuotaExceeded")
}
