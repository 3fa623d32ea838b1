package pds

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// run runs the service until the test or the result ends it.
func (n *network) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.testPDS.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("Run: %v", err)
		}
	}
	n.t.Cleanup(stop)
	return stop
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("%s: not yet", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (n *network) statusOf(did string) string {
	return n.query("com.atproto.sync.getRepoStatus?did="+did, "").str("status")
}

func TestDeleteAfter(t *testing.T) {
	n := newNetwork(t, Config{})
	a, b, c := n.signedUp("alice"), n.signedUp("bob"), n.signedUp("carol")
	at := func(d time.Duration) map[string]any {
		return map[string]any{"deleteAfter": datetime(n.clock.Now().Add(d))}
	}
	deactivate := func(a answerOf, in map[string]any, status int, name string) {
		t.Helper()
		want(t, n.call("com.atproto.server.deactivateAccount", a.str("accessJwt"), in), status, name)
	}
	deactivate(a, at(-time.Second), 400, "InvalidRequest")
	deactivate(a, map[string]any{"deleteAfter": "soon"}, 400, "InvalidRequest")
	stop := n.run()
	deactivate(a, at(48*time.Hour), 200, "")
	deactivate(b, at(time.Hour), 200, "")
	deactivate(b, at(72*time.Hour), 200, "") // changed his mind
	deactivate(c, at(time.Hour), 200, "")
	want(t, n.call("com.atproto.server.activateAccount", c.str("accessJwt"), nil), 200, "") // so has she
	n.clock.Advance(49 * time.Hour)
	until(t, "deleting alice", func() bool { return n.statusOf(a.str("did")) == "deleted" })
	if got := n.statusOf(b.str("did")); got != "deactivated" {
		t.Errorf("bob is %s", got)
	}
	if got := n.statusOf(c.str("did")); got != "" {
		t.Errorf("carol is %s", got)
	}
	// The time comes while the server doesn't run.
	stop()
	n.clock.Advance(24 * time.Hour)
	n.restart()
	if got := n.statusOf(b.str("did")); got != "deactivated" {
		t.Errorf("bob is %s", got)
	}
	n.takedown(repoRef(b.str("did")), true) // but now the operator keeps it
	stop = n.run()
	c.JSON["accessJwt"] = n.signIn("carol.test", goodPassword).str("accessJwt")
	deactivate(c, map[string]any{"deleteAfter": datetime(n.clock.Now().Add(time.Minute))}, 200, "")
	n.clock.Advance(2 * time.Minute)
	until(t, "deleting carol", func() bool { return n.statusOf(c.str("did")) == "deleted" })
	if got := n.statusOf(b.str("did")); got != "takendown" {
		t.Errorf("bob is %s", got)
	}
	n.takedown(repoRef(b.str("did")), false)
	until(t, "deleting bob", func() bool { return n.statusOf(b.str("did")) == "deleted" })
	stop()
	lo := []byte(rowDeadline)
	it := n.store.Iter(lo, append([]byte("a/z0"), 0))
	defer it.Close()
	if it.First() {
		t.Errorf("left: %q", it.Key())
	}
}

// A rename that was cut between directory and account is finished by the next start, and one that never reached the directory is not.
func TestPendingRename(t *testing.T) {
	n := newNetwork(t, Config{})
	a, b := n.signedUp("alice"), n.signedUp("bob")
	did, bobs := syntax.DID(a.str("did")), syntax.DID(b.str("did"))
	cut := func(did syntax.DID, h syntax.Handle, registered bool) {
		t.Helper()
		if err := n.intend(t.Context(), did, pendingChange{Handle: h}); err != nil {
			t.Fatal(err)
		}
		if registered {
			if err := n.changePLC(t.Context(), did, func(d *plc.Data) error { d.SetHandle(h); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut(did, "alicia.test", true)
	cut(bobs, "robert.test", false)
	n.restart()
	// Until it is clear whose a name is, nobody else gets it.
	for _, name := range []string{"alicia", "robert"} {
		want(t, n.call("com.atproto.server.createAccount", "", signUpInput(name)), 400, "HandleNotAvailable")
	}
	before := n.log.Head()
	n.run()
	until(t, "finishing", func() bool { n.accounts.mu.Lock(); defer n.accounts.mu.Unlock(); return len(n.accounts.pending) == 0 })
	if r := n.query("com.atproto.identity.resolveHandle?handle=alicia.test", ""); r.str("did") != string(did) {
		t.Errorf("alicia: %s", r.Body)
	}
	want(t, n.query("com.atproto.identity.resolveHandle?handle=alice.test", ""), 400, "HandleNotFound")
	if r := n.query("com.atproto.identity.resolveHandle?handle=bob.test", ""); r.str("did") != string(bobs) {
		t.Errorf("bob: %s", r.Body)
	}
	if n.log.Head() != before+1 {
		t.Errorf("%d events, want one #identity", n.log.Head()-before)
	}
	want(t, n.call("com.atproto.server.createAccount", "", signUpInput("robert")), 200, "")

	// Without an answer from the directory nobody knows, and it is looked at again.
	n.plc.mu.Lock()
	n.plc.fail = 500
	n.plc.mu.Unlock()
	want(t, n.call("com.atproto.identity.updateHandle", b.str("accessJwt"), map[string]any{"handle": "bobby.test"}), 502, "UpstreamFailure")
	want(t, n.call("com.atproto.server.createAccount", "", signUpInput("bobby")), 400, "HandleNotAvailable")
	n.plc.mu.Lock()
	n.plc.fail = 0
	n.plc.mu.Unlock()
	until(t, "dropping", func() bool {
		n.clock.Advance(pendingEvery)
		n.accounts.mu.Lock()
		defer n.accounts.mu.Unlock()
		return len(n.accounts.pending) == 0
	})
	want(t, n.call("com.atproto.server.createAccount", "", signUpInput("bobby")), 200, "")
	// A refusal is clear at once.
	n.plc.mu.Lock()
	n.plc.fail = 400
	n.plc.mu.Unlock()
	want(t, n.call("com.atproto.identity.updateHandle", b.str("accessJwt"), map[string]any{"handle": "rob.test"}), 400, "InvalidRequest")
	n.plc.mu.Lock()
	n.plc.fail = 0
	n.plc.mu.Unlock()
	want(t, n.call("com.atproto.server.createAccount", "", signUpInput("rob")), 200, "")
}

// The same for a new signing key, and for an operation that the owner submitted.
func TestPendingKeyAndOperation(t *testing.T) {
	n := newNetwork(t, Config{})
	a, b := n.signedUp("alice"), n.signedUp("bob")
	did, bobs := syntax.DID(a.str("did")), syntax.DID(b.str("did"))
	r := n.call("com.atproto.server.reserveSigningKey", "", map[string]any{"did": did})
	want(t, r, 200, "")
	name := r.str("signingKey")
	if err := n.intend(t.Context(), did, pendingChange{Key: name}); err != nil {
		t.Fatal(err)
	}
	if err := n.changePLC(t.Context(), did, func(d *plc.Data) error { d.VerificationMethods[plc.AtprotoKey] = name; return nil }); err != nil {
		t.Fatal(err)
	}
	op, err := n.nextOperation(t.Context(), bobs, func(d *plc.Data) error {
		d.AlsoKnownAs = append(d.AlsoKnownAs, "https://bob.example.com")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.intend(t.Context(), bobs, pendingChange{Op: op.CID().String()}); err != nil {
		t.Fatal(err)
	}
	if err := n.accounts.plc.Submit(t.Context(), bobs, op); err != nil {
		t.Fatal(err)
	}
	n.restart()
	before := n.log.Head()
	n.run()
	until(t, "finishing", func() bool { n.accounts.mu.Lock(); defer n.accounts.mu.Unlock(); return len(n.accounts.pending) == 0 })
	if n.log.Head() != before+3 {
		t.Errorf("%d events, want #identity and #sync of one, #identity of the other", n.log.Head()-before)
	}
	if st := n.query("com.atproto.server.checkAccountStatus", a.str("accessJwt")); st.JSON["validDid"] != true {
		t.Errorf("status: %s", st.Body)
	}
	want(t, n.call("com.atproto.repo.createRecord", a.str("accessJwt"), map[string]any{"repo": did, "collection": "com.example.thing", "record": map[string]any{}}), 200, "")
	if up := n.do(http.MethodPost, "com.atproto.repo.uploadBlob", a.str("accessJwt"), "text/plain", strings.NewReader("x")); up.Status != 200 {
		t.Errorf("upload: %s", up.Body)
	}
}
