package pds

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/syntax"
)

// at calls a procedure as if from an address.
func (n *network) at(addr, nsid string, in map[string]any) answerOf {
	n.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		n.t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/xrpc/"+nsid, strings.NewReader(string(b)))
	r.RemoteAddr = addr
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, r)
	out := answerOf{Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()}
	_ = json.Unmarshal(out.Body, &out.JSON)
	if out.Status != 200 {
		out.Name = out.str("error")
	}
	return out
}

// atOnce makes calls that all are on their way before the first password is looked at, and counts their answers and the passwords.
func (n *network) atOnce(times int, call func(i int) answerOf) (answers map[string]int, looks int) {
	n.t.Helper()
	p := n.accounts.passwords
	derive := p.derive
	defer func() { p.derive = derive }()
	gate := make(chan struct{})
	var waiting, answered, hashed atomic.Int64
	p.derive = func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte {
		hashed.Add(1)
		<-gate
		return derive(password, salt, time, memory, threads, keyLen)
	}
	answers = map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range times {
		wg.Go(func() {
			waiting.Add(1)
			a := call(i)
			answered.Add(1)
			mu.Lock()
			defer mu.Unlock()
			answers[fmt.Sprint(a.Status, a.Name)]++
		})
	}
	sharing := func() (n1 int) { // those that wait for somebody else's answer show nowhere
		n.accounts.mu.Lock()
		defer n.accounts.mu.Unlock()
		return len(n.accounts.knocks)
	}
	until(n.t, "calls in flight", func() bool {
		if int(waiting.Load()) < times {
			return false
		}
		if k := sharing(); k == 1 && len(p.turn) == 1 {
			return true
		}
		return len(p.queue)+len(p.turn)+int(answered.Load()) == times
	})
	close(gate)
	wg.Wait()
	return answers, int(hashed.Load())
}

// However many guesses come at once, no more of them are looked at than the limit says.
func TestParallelGuesses(t *testing.T) {
	n := newNetwork(t, Config{})
	did := n.signedUp("alice").str("did")
	const many = 100
	most := limitRules["passwords"][0].calls
	in := func(i int) map[string]any {
		return map[string]any{"identifier": []string{"alice.test", "Alice@example.com", did}[i%3], "password": fmt.Sprint("a wrong guess ", i)}
	}
	got, looks := n.atOnce(many, func(i int) answerOf {
		if i%2 == 0 { // the other place that asks for the password
			return n.at("192.0.2.1:1", "com.atproto.server.deleteAccount", map[string]any{"did": did, "password": fmt.Sprint("a wrong guess ", i), "token": "x"})
		}
		return n.at("192.0.2.1:1", "com.atproto.server.createSession", in(i))
	})
	if got["401AuthenticationRequired"] != most || got["429RateLimitExceeded"] != many-most || looks != most {
		t.Errorf("%d passwords were looked at: %v", looks, got)
	}
	right := map[string]any{"identifier": "alice.test", "password": goodPassword}
	want(t, n.at("192.0.2.1:1", "com.atproto.server.createSession", right), 429, "RateLimitExceeded")
	// Who guesses doesn't keep the owner out, who is elsewhere; and the owner is not counted at all.
	for range 2 * most {
		a := n.at("192.0.2.2:1", "com.atproto.server.createSession", right)
		want(t, a, 200, "")
		if left := a.Header.Get("RateLimit-Remaining"); left != fmt.Sprint(most) {
			t.Fatalf("a right password cost something: %s are left", left)
		}
	}
	n.clock.Advance(5*time.Minute + time.Second)
	want(t, n.at("192.0.2.1:1", "com.atproto.server.createSession", right), 200, "")
	// What is given back belongs to the window that it was taken in.
	l, now := &n.accounts.limits, n.clock.Now()
	giveBack, err := l.take(now, http.Header{}, "passwords", "x", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	for range most {
		if err := l.count(now, http.Header{}, "passwords", "x", 1, 1); err != nil {
			t.Fatal(err)
		}
	}
	giveBack()
	giveBack()
	if err := l.count(now, http.Header{}, "passwords", "x", 1, 1); err == nil {
		t.Error("a point of an earlier window counts in this one")
	}
}

func TestParallelAdminGuesses(t *testing.T) {
	n := newNetwork(t, Config{})
	hash, err := n.accounts.passwords.hash(t.Context(), "a long password", []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	n.testPDS.stop()
	n.cfg.AdminPassword = hash
	n.testPDS = openPDS(t, n.world, n.cfg)
	const many = 100
	most := limitRules["adminGuesses"][0].calls
	knock := func(user, password string) answerOf {
		return n.admin("com.atproto.admin.deleteAccount", map[string]any{"did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}, user, password)
	}
	// The operator's scripts come in all at once.
	got, looks := n.atOnce(many, func(int) answerOf { return knock("admin", "a long password") })
	if got["400AccountNotFound"] != many || looks != 1 {
		t.Errorf("the right password: %v after %d looks", got, looks)
	}
	got, looks = n.atOnce(many, func(i int) answerOf { return knock("admin", fmt.Sprint("guess ", i)) })
	if got["401AuthenticationRequired"] != most || got["429RateLimitExceeded"] != many-most || looks != most {
		t.Errorf("%d guesses were looked at: %v", looks, got)
	}
	want(t, knock("admin", "a long password"), 429, "RateLimitExceeded")
	if len(n.accounts.knocks) != 0 {
		t.Errorf("remembered: %v", n.accounts.knocks)
	}
	n.clock.Advance(5*time.Minute + time.Second)
	want(t, knock("admin", "a long password"), 400, "AccountNotFound")
}

// Codes from mails get their five tries, however many come at once.
func TestParallelCodes(t *testing.T) {
	n := newMailNetwork(t, Config{})
	a := n.signedUp("alice")
	tok := a.str("accessJwt")
	n.confirmed(tok, "alice@example.com")
	want(t, n.call("com.atproto.server.updateEmail", tok, map[string]any{"email": "alice@example.com", "emailAuthFactor": true}), 200, "")
	in := map[string]any{"identifier": "alice.test", "password": goodPassword}
	want(t, n.call("com.atproto.server.createSession", "", in), 401, "AuthFactorTokenRequired")
	code := n.code(tokenSignIn, "alice@example.com")
	for range confirmationTries {
		in["authFactorToken"] = "AAAAAAAA-AAAAAAAA"
		n.racing(4, "com.atproto.server.createSession", "", in)
	}
	in["authFactorToken"] = code
	want(t, n.call("com.atproto.server.createSession", "", in), 400, "InvalidToken")

	// A try that fails while a new code is made doesn't take the new one's place.
	al, err := n.Service.account(syntax.DID(a.str("did")))
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := n.useToken(t.Context(), al, tokenPLC, "AAAAAAAA-AAAAAAAA"); err == nil {
				t.Error("a wrong code is good")
			}
		})
		if err := n.sendToken(t.Context(), al, tokenPLC); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		release, err := n.useToken(t.Context(), al, tokenPLC, n.code(tokenPLC, "alice@example.com"))
		if err != nil {
			t.Fatalf("the new code: %v", err)
		}
		release()
	}
}

// A stranger who asks for mails to somebody doesn't keep the owner from asking.
func TestResetMailsOfAStranger(t *testing.T) {
	n := newMailNetwork(t, Config{})
	n.signedUp("alice")
	ask := func(addr string) answerOf {
		return n.at(addr, "com.atproto.server.requestPasswordReset", map[string]any{"email": "alice@example.com"})
	}
	for range limitRules["mail"][0].calls {
		want(t, ask("192.0.2.1:1"), 200, "")
		n.code(tokenPassword, "alice@example.com")
	}
	want(t, ask("192.0.2.1:1"), 429, "RateLimitExceeded")
	want(t, ask("192.0.2.2:1"), 200, "")
	code := n.code(tokenPassword, "alice@example.com")
	// Nor do strangers' guesses take the code away.
	for i := range 40 {
		got := n.at(fmt.Sprintf("192.0.2.%d:1", 10+i), "com.atproto.server.resetPassword", map[string]any{"token": "1-AAAAAAAA-AAAAAAAA", "password": "another password"})
		want(t, got, 400, "InvalidToken")
	}
	want(t, n.at("192.0.2.2:1", "com.atproto.server.resetPassword", map[string]any{"token": code, "password": "another password"}), 200, "")
	for i := range 30 { // mails to one owner have an end, too
		ask(fmt.Sprintf("198.51.100.%d:1", i))
	}
	want(t, ask("203.0.113.1:1"), 429, "RateLimitExceeded")
}
