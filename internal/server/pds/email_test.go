package pds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/internal/mailer"
)

// mailNetwork is a network whose mails a test reads.
type mailNetwork struct {
	*network
	mails *mailer.Memory
	read  int
}

func newMailNetwork(t testing.TB, cfg Config) *mailNetwork {
	m := &mailer.Memory{}
	cfg.Mail = m
	return &mailNetwork{network: newNetwork(t, cfg), mails: m}
}

// next is the next mail, which may still be on its way.
func (n *mailNetwork) next() mailer.Message {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	n.read++
	m, err := n.mails.Await(ctx, n.read)
	if err != nil {
		n.t.Fatalf("mail %d: %v", n.read, err)
	}
	return m
}

// none makes sure that no mail has come since the last one read.
func (n *mailNetwork) none() {
	n.t.Helper()
	n.testPDS.errands.wait()
	n.testPDS.errands.ended = false
	if all := n.mails.Mails(); len(all) != n.read {
		n.t.Errorf("an unexpected mail: %+v", all[n.read:])
	}
}

func (n *mailNetwork) code(purpose, to string) string {
	n.t.Helper()
	m := n.next()
	if m.Purpose != purpose || m.To != to || !strings.Contains(m.Text, "    "+m.Code+"\n") {
		n.t.Fatalf("want a mail to %s about %s: %+v", to, purpose, m)
	}
	return m.Code
}

func (n *mailNetwork) confirmed(tok, email string) {
	n.t.Helper()
	want(n.t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	want(n.t, n.call("com.atproto.server.confirmEmail", tok, map[string]any{"email": email, "token": n.code(tokenConfirm, email)}), 200, "")
}

func TestConfirmEmail(t *testing.T) {
	n := newMailNetwork(t, Config{})
	a, b := n.signedUp("alice"), n.signedUp("bob")
	tok := a.str("accessJwt")
	confirm := func(tok, email, token string) answerOf {
		return n.call("com.atproto.server.confirmEmail", tok, map[string]any{"email": email, "token": token})
	}
	if s := n.query("com.atproto.server.getSession", tok); s.JSON["emailConfirmed"] != false {
		t.Errorf("session: %s", s.Body)
	}
	want(t, n.call("com.atproto.server.requestEmailConfirmation", "", nil), 401, "AuthMissing")
	want(t, confirm(tok, "alice@example.com", "ABC"), 400, "InvalidToken")
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	first := n.code(tokenConfirm, "alice@example.com")
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	code := n.code(tokenConfirm, "alice@example.com")
	want(t, confirm(tok, "alice@example.com", first), 400, "InvalidToken") // a newer one was sent
	want(t, confirm(tok, "mallory@example.com", code), 400, "InvalidEmail")
	want(t, confirm(b.str("accessJwt"), "bob@example.com", code), 400, "InvalidToken") // another account's
	// Another purpose's.
	want(t, n.call("com.atproto.server.deleteAccount", "", map[string]any{"did": a.str("did"), "password": goodPassword, "token": code}), 400, "InvalidToken")
	if v, err := n.store.Get(tokenKey(n.didOfName("alice.test"), tokenConfirm)); err != nil || strings.Contains(string(v), code) || strings.Contains(string(v), code[:8]) {
		t.Errorf("the token is kept as it is: %s, %v", v, err)
	}
	n.clock.Advance(confirmationLife)
	n.restart()
	want(t, confirm(tok, "alice@example.com", code), 400, "ExpiredToken")
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	code = n.code(tokenConfirm, "alice@example.com")
	n.clock.Advance(confirmationLife - time.Second)
	want(t, confirm(tok, "ALICE@example.com", strings.ToLower(code)), 200, "")
	want(t, confirm(tok, "alice@example.com", code), 400, "InvalidToken") // once
	n.restart()
	if s := n.query("com.atproto.server.getSession", tok); s.JSON["emailConfirmed"] != true || s.JSON["emailAuthFactor"] != false {
		t.Errorf("session: %s", s.Body)
	}
	n.none()
}

func TestTokensAreGuessedInVain(t *testing.T) {
	n := newMailNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	code := n.code(tokenConfirm, "alice@example.com")
	for i := range confirmationTries {
		in := map[string]any{"email": "alice@example.com", "token": fmt.Sprintf("GUESS-%d", i)}
		want(t, n.call("com.atproto.server.confirmEmail", tok, in), 400, "InvalidToken")
	}
	want(t, n.call("com.atproto.server.confirmEmail", tok, map[string]any{"email": "alice@example.com", "token": code}), 400, "InvalidToken")
	// And mails are not sent without end.
	for range 4 {
		want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	}
	r := n.call("com.atproto.server.requestEmailConfirmation", tok, nil)
	want(t, r, 429, "RateLimitExceeded")
	if r.Header.Get("Retry-After") == "" || r.Header.Get("RateLimit-Policy") != "5;w=3600" {
		t.Errorf("headers: %v", r.Header)
	}
	for hour := range 3 { // 15 a day
		n.clock.Advance(time.Hour + time.Second)
		tok = n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword}).str("accessJwt")
		sent := 0
		for range 6 {
			if n.call("com.atproto.server.requestEmailConfirmation", tok, nil).Status == 200 {
				sent++
			}
		}
		if want := []int{5, 5, 0}[hour]; sent != want {
			t.Errorf("hour %d: %d mails, want %d", hour, sent, want)
		}
	}
}

func TestUpdateEmail(t *testing.T) {
	n := newMailNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	n.signedUp("bob")
	update := func(in map[string]any) answerOf { return n.call("com.atproto.server.updateEmail", tok, in) }
	ask := func(required bool) {
		t.Helper()
		r := n.call("com.atproto.server.requestEmailUpdate", tok, nil)
		want(t, r, 200, "")
		if r.JSON["tokenRequired"] != required {
			t.Errorf("%s, want %v", r.Body, required)
		}
	}
	// Not confirmed: the password of the session is all there is.
	ask(false)
	for _, bad := range []string{"", "alice", "a@b", "alice@example.com\r\nBcc: x@example.com", "a b@example.com", "Alice <alice@example.com>"} {
		want(t, update(map[string]any{"email": bad}), 400, "InvalidRequest")
	}
	want(t, update(map[string]any{"email": "BOB@example.com"}), 400, "InvalidRequest")
	want(t, update(map[string]any{"email": "alice@example.com", "emailAuthFactor": true}), 400, "InvalidRequest")
	want(t, update(map[string]any{"email": "alice@example.org"}), 200, "")
	n.none()
	n.confirmed(tok, "alice@example.org")
	// Confirmed: a token from there.
	want(t, update(map[string]any{"email": "alice@example.net"}), 400, "TokenRequired")
	want(t, update(map[string]any{"email": "alice@example.net", "token": "WRONG"}), 400, "InvalidToken")
	ask(true)
	code := n.code(tokenUpdate, "alice@example.org")
	want(t, update(map[string]any{"email": "bob@example.com", "token": code}), 400, "InvalidRequest") // leaves the token
	want(t, update(map[string]any{"email": "alice@example.net", "token": code}), 200, "")
	want(t, update(map[string]any{"email": "alice@example.com", "token": code}), 200, "") // the new address is not confirmed
	n.restart()
	s := n.query("com.atproto.server.getSession", tok)
	if s.str("email") != "alice@example.com" || s.JSON["emailConfirmed"] != false {
		t.Errorf("session: %s", s.Body)
	}
	in := map[string]any{"identifier": "alice@example.com", "password": goodPassword}
	want(t, n.call("com.atproto.server.createSession", "", in), 200, "")
	for _, old := range []string{"alice@example.org", "alice@example.net"} {
		in["identifier"] = old
		want(t, n.call("com.atproto.server.createSession", "", in), 401, "AuthenticationRequired")
	}
	if got := n.racing(8, "com.atproto.server.updateEmail", tok, map[string]any{"email": "carol@example.com"}); got["200"] == 0 || got["200"]+got["400InvalidRequest"]+got["409InvalidRequest"] != 8 {
		t.Errorf("racing: %v", got)
	}
}

func TestEmailFactor(t *testing.T) {
	n := newMailNetwork(t, Config{})
	a := n.signedUp("alice")
	tok := a.str("accessJwt")
	n.confirmed(tok, "alice@example.com")
	app := n.call("com.atproto.server.createAppPassword", tok, map[string]any{"name": "bot"})
	want(t, app, 200, "")
	want(t, n.call("com.atproto.server.updateEmail", tok, map[string]any{"email": "alice@example.com", "emailAuthFactor": true}), 200, "")
	n.restart()
	if s := n.query("com.atproto.server.getSession", tok); s.JSON["emailAuthFactor"] != true {
		t.Errorf("session: %s", s.Body)
	}
	in := map[string]any{"identifier": "alice.test", "password": "wrong password"}
	want(t, n.call("com.atproto.server.createSession", "", in), 401, "AuthenticationRequired")
	n.none() // nobody learns from a wrong password
	in["password"] = goodPassword
	want(t, n.call("com.atproto.server.createSession", "", in), 401, "AuthFactorTokenRequired")
	code := n.code(tokenSignIn, "alice@example.com")
	in["authFactorToken"] = "WRONG"
	want(t, n.call("com.atproto.server.createSession", "", in), 400, "InvalidToken")
	in["authFactorToken"], in["password"] = code, "wrong password"
	want(t, n.call("com.atproto.server.createSession", "", in), 401, "AuthenticationRequired")
	in["password"] = goodPassword
	if got := n.racing(8, "com.atproto.server.createSession", "", in); got["200"] != 1 || got["400InvalidToken"] != 7 {
		t.Errorf("one code let in: %v", got)
	}
	want(t, n.call("com.atproto.server.createSession", "", in), 400, "InvalidToken")
	delete(in, "authFactorToken")
	in["password"] = app.str("password")
	want(t, n.call("com.atproto.server.createSession", "", in), 200, "") // an app password has no second factor
	// Doing without takes a token, and a changed address rests the factor until it is confirmed.
	off := map[string]any{"email": "alice@example.com", "emailAuthFactor": false}
	want(t, n.call("com.atproto.server.updateEmail", tok, off), 400, "TokenRequired")
	want(t, n.call("com.atproto.server.requestEmailUpdate", tok, nil), 200, "")
	off["token"] = n.code(tokenUpdate, "alice@example.com")
	want(t, n.call("com.atproto.server.updateEmail", tok, off), 200, "")
	in["password"] = goodPassword
	want(t, n.call("com.atproto.server.createSession", "", in), 200, "")
	// When the mail can't be sent yet, nobody comes in without it all the same.
	want(t, n.call("com.atproto.server.updateEmail", tok, map[string]any{"email": "alice@example.com", "emailAuthFactor": true}), 200, "")
	n.mails.Fail(errors.New("no route"))
	want(t, n.call("com.atproto.server.createSession", "", in), 401, "AuthFactorTokenRequired")
}

func TestResetPassword(t *testing.T) {
	n := newMailNetwork(t, Config{})
	a := n.signedUp("alice")
	bob := n.signedUp("bob")
	tok, refresh := a.str("accessJwt"), a.str("refreshJwt")
	app := n.call("com.atproto.server.createAppPassword", tok, map[string]any{"name": "bot"})
	want(t, app, 200, "")
	appSession := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": app.str("password")})
	want(t, appSession, 200, "")
	ask := func(email string) answerOf {
		return n.call("com.atproto.server.requestPasswordReset", "", map[string]any{"email": email})
	}
	reset := func(token, password string) answerOf {
		return n.call("com.atproto.server.resetPassword", "", map[string]any{"token": token, "password": password})
	}
	known, unknown := ask("Alice@Example.com"), ask("nobody@example.com")
	want(t, known, 200, "")
	if unknown.Status != known.Status || string(unknown.Body) != string(known.Body) || fmt.Sprint(unknown.Header["Ratelimit-Policy"]) != fmt.Sprint(known.Header["Ratelimit-Policy"]) {
		t.Errorf("the answers differ: %d %s %v, %d %s %v", known.Status, known.Body, known.Header, unknown.Status, unknown.Body, unknown.Header)
	}
	code := n.code(tokenPassword, "alice@example.com")
	n.none()
	const other = "a new battery staple"
	for _, bad := range []string{"", "1", "1-", "-", "x-" + code, "99-ABCDEFGH-IJKLMNOP", "18446744073709551616-A", strings.Repeat("1", 5000), "0-A"} {
		want(t, reset(bad, other), 400, "InvalidToken")
	}
	number, rest, _ := strings.Cut(code, "-")
	if number == "1" {
		number = "2"
	} else {
		number = "1"
	}
	want(t, reset(number+"-"+rest, other), 400, "InvalidToken") // another account's
	for range confirmationTries + 1 {                           // which takes nothing from the owner
		want(t, reset(code[:len(code)-1]+"0", other), 400, "InvalidToken")
	}
	want(t, reset(code, "short"), 400, "InvalidPassword")
	if got := n.racing(4, "com.atproto.server.resetPassword", "", map[string]any{"token": code, "password": other}); got["200"] != 1 || got["400InvalidToken"] != 3 {
		t.Errorf("racing: %v", got)
	}
	// Everything that the old password had opened is closed, but not what others have.
	for _, restarted := range []bool{false, true} {
		if restarted {
			n.restart()
		}
		want(t, n.query("com.atproto.server.getSession", tok), 400, "ExpiredToken")
		want(t, n.call("com.atproto.server.refreshSession", refresh, nil), 400, "ExpiredToken")
		want(t, n.query("com.atproto.server.getSession", appSession.str("accessJwt")), 400, "ExpiredToken")
		record := map[string]any{"repo": a.str("did"), "collection": "com.example.thing", "rkey": "a", "record": map[string]any{}}
		for _, old := range []string{tok, appSession.str("accessJwt")} {
			for _, write := range []string{"createRecord", "putRecord", "deleteRecord"} {
				want(t, n.call("com.atproto.repo."+write, old, record), 400, "ExpiredToken")
			}
			want(t, n.call("com.atproto.repo.applyWrites", old, map[string]any{"repo": a.str("did"), "writes": []any{}}), 400, "ExpiredToken")
		}
		want(t, n.query("com.atproto.server.getSession", bob.str("accessJwt")), 200, "")
	}
	in := map[string]any{"identifier": "alice.test", "password": goodPassword}
	want(t, n.call("com.atproto.server.createSession", "", in), 401, "AuthenticationRequired")
	in["password"] = other
	s := n.call("com.atproto.server.createSession", "", in)
	want(t, s, 200, "")
	if s.JSON["emailConfirmed"] != true {
		t.Errorf("the mail was read, but the address isn't confirmed: %s", s.Body)
	}
	want(t, n.query("com.atproto.server.getSession", s.str("accessJwt")), 200, "")
	want(t, n.call("com.atproto.server.refreshSession", s.str("refreshJwt"), nil), 200, "")
	in["password"] = app.str("password")
	want(t, n.call("com.atproto.server.createSession", "", in), 200, "")

	// A token of an address that was left is good for nothing.
	want(t, ask("bob@example.com"), 200, "")
	code = n.code(tokenPassword, "bob@example.com")
	want(t, n.call("com.atproto.server.updateEmail", bob.str("accessJwt"), map[string]any{"email": "bob@example.org"}), 200, "")
	want(t, reset(code, other), 400, "InvalidToken")
	// Limits are the same for addresses that nobody has.
	for _, email := range []string{"bob@example.org", "nobody@example.org"} {
		n.clock.Advance(24 * time.Hour)
		for range 5 {
			want(t, ask(email), 200, "")
		}
		want(t, ask(email), 429, "RateLimitExceeded")
	}
}

func TestNoMail(t *testing.T) {
	n := newNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 400, "InvalidRequest")
	want(t, n.call("com.atproto.server.requestPasswordReset", "", map[string]any{"email": "alice@example.com"}), 400, "InvalidRequest")
	want(t, n.call("com.atproto.identity.requestPlcOperationSignature", tok, nil), 400, "InvalidRequest")
	m := newMailNetwork(t, Config{})
	in := signUpInput("carol")
	delete(in, "email")
	s := m.call("com.atproto.server.createAccount", "", in)
	want(t, s, 200, "")
	for _, method := range []string{"com.atproto.server.requestEmailConfirmation", "com.atproto.identity.requestPlcOperationSignature", "com.atproto.server.requestAccountDelete"} {
		want(t, m.call(method, s.str("accessJwt"), nil), 400, "InvalidRequest")
	}
	m.mails.Fail(errors.New("no route"))
	tok = m.signedUp("dave").str("accessJwt")
	want(t, m.call("com.atproto.identity.requestPlcOperationSignature", tok, nil), 200, "") // it waits: see TestOutbox
	m.mails.Fail(&mailer.Error{Permanent: true, Err: errors.New("no such user")})
	want(t, m.call("com.atproto.identity.requestPlcOperationSignature", tok, nil), 400, "InvalidRequest")
	m.mails.Fail(nil)
	want(t, m.call("com.atproto.identity.requestPlcOperationSignature", tok, nil), 200, "")
	if m.next().To != "dave@example.com" {
		t.Error("the mail went elsewhere")
	}
}
