package pds

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/barograph/baro/cid"
)

// Exports beyond the limit wait for their turn, but not for ever, and one that ends makes room.
func TestExportsAreLimited(t *testing.T) {
	t.Parallel()
	p := startPDS(t, testWorld(3), Config{Memory: true, MaxExports: 2})
	a := p.account("alice")
	path := "com.atproto.sync.getRepo?did=" + string(a.did)
	for range 5 { // all turns are given back, also by refusals
		want(t, p.get(path), 200, "")
		want(t, p.get(path+"x"), 400, "RepoNotFound")
	}
	p.exports <- struct{}{}
	p.exports <- struct{}{}
	refused := p.get(path)
	want(t, refused, 503, "NotEnoughResources")
	if refused.Header.Get("Retry-After") == "" {
		t.Errorf("no Retry-After: %v", refused.Header)
	}
	want(t, p.do(http.MethodHead, path, "", "", nil), 200, "")
	got := make(chan answerOf)
	go func() { got <- p.get(path) }()
	<-p.exports
	want(t, <-got, 200, "")
}

// One address can't have all turns, and gets its own back.
func TestExportsAreShared(t *testing.T) {
	t.Parallel()
	p := startPDS(t, testWorld(3), Config{Memory: true, MaxExports: 4})
	from := func(addr string) (func(), error) {
		r, err := http.NewRequest(http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = addr
		return p.exportTurn(r)
	}
	var leave []func()
	for _, addr := range []string{"198.51.100.1:1", "198.51.100.1:2", "[2001:db8::1]:1", "[2001:db8::2]:1"} {
		done, err := from(addr)
		if err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		leave = append(leave, done)
		if addr == "198.51.100.1:2" {
			if _, err := from("198.51.100.1:3"); err == nil {
				t.Fatal("a third turn for one address")
			}
		}
	}
	if _, err := from("[2001:db8::3]:1"); err == nil {
		t.Fatal("a third turn for one network")
	}
	if _, err := from("203.0.113.1:1"); err == nil {
		t.Fatal("a fifth turn")
	}
	for _, done := range leave {
		done()
	}
	if n := len(p.exporters.of); n != 0 {
		t.Errorf("%d addresses are remembered", n)
	}
}

// What a file makes the import put aside is limited at any time, not in sum, and a refused file leaves nothing.
func TestImportParksLittle(t *testing.T) {
	a, body := exported(t, "alice", 2000)
	root, blocks := splitCAR(t, body)
	const most = 64 << 10
	home := func() *testAccount {
		p := startPDS(t, testWorld(10), Config{Memory: true, MaxImportParkedBytes: most})
		return p.accountWith(a.did, "moved.test", keysOf(t, 5), true)
	}

	swapped := append([]block(nil), blocks...)
	for i := 1; i+1 < len(swapped); i += 2 {
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
	}
	if len(body) < 4*most {
		t.Fatalf("the file of %d bytes is too small for this test", len(body))
	}
	b := home()
	want(t, b.importCAR(joinCAR(root, swapped)), 200, "")
	b.p.checkStore(b.did)

	junk := make([]block, 1000)
	for i := range junk {
		v := bytes.Repeat([]byte(fmt.Sprint(i)), 64)
		junk[i] = block{cid.Sum(cid.Raw, v), v}
	}
	shuffled := append([]block(nil), blocks...)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for what, file := range map[string][]block{
		"junk":     append(append(append([]block(nil), blocks[:1]...), junk...), blocks[1:]...),
		"shuffled": shuffled,
	} {
		b := home()
		head := mustHead(t, b)
		want(t, b.importCAR(joinCAR(root, file)), 400, "InvalidRequest")
		if h := mustHead(t, b); h.Commit != head.Commit || h.Gen != head.Gen || leftovers(t, b.p) != 0 {
			t.Errorf("%s: the account changed, or %d rows were left", what, leftovers(t, b.p))
		}
	}
	// Behind the tree nothing is kept, so it doesn't count.
	want(t, home().importCAR(joinCAR(root, append(append([]block(nil), blocks...), junk...))), 200, "")
}
