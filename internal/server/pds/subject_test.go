package pds

import (
	"fmt"
	"sync"
	"testing"
)

// TestOnePerSubject checks that a second like of the same post takes the place of the first, also when both come at once.
func TestOnePerSubject(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{})
	a := p.account("alice")
	like := func(n int) map[string]any {
		return map[string]any{"$type": "app.bsky.feed.like", "createdAt": fmt.Sprintf("2026-01-02T03:04:%02dZ", n), "subject": map[string]any{
			"uri": "at://" + string(a.did) + "/app.bsky.feed.post/3l4wmt26aaa2a", "cid": "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"}}
	}
	follow := func(n int) map[string]any {
		return map[string]any{"$type": "app.bsky.graph.follow", "createdAt": fmt.Sprintf("2026-01-02T03:04:%02dZ", n), "subject": "did:plc:ewvi7nxzyoun6zhxrhs64oiz"}
	}
	want(t, a.create("app.bsky.feed.like", "", like(0)), 200, "")
	want(t, a.create("app.bsky.feed.like", "", like(1)), 200, "")
	if n := len(a.checkChain().records); n != 1 {
		t.Fatalf("%d likes of one post", n)
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			a := *a
			if got := a.create("app.bsky.graph.follow", "", follow(n)); got.Status != 200 {
				t.Errorf("%d %s", got.Status, got.Body)
			}
		})
	}
	wg.Wait()
	if n := len(a.checkChain().records); n != 2 {
		t.Fatalf("%d records, want a like and a follow", n)
	}
}
