package pds

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

func (n *network) appPassword(token, name string, privileged bool) string {
	n.t.Helper()
	a := n.call("com.atproto.server.createAppPassword", token, map[string]any{"name": name, "privileged": privileged})
	want(n.t, a, 200, "")
	if a.str("name") != name || a.JSON["privileged"] != privileged || a.str("createdAt") == "" {
		n.t.Fatalf("%s", a.Body)
	}
	return a.str("password")
}

func (n *network) signIn(identifier, password string) answerOf {
	n.t.Helper()
	return n.call("com.atproto.server.createSession", "", map[string]any{"identifier": identifier, "password": password})
}

func TestAppPasswords(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	tok, did := a.str("accessJwt"), a.str("did")
	plain, chat := n.appPassword(tok, "bot", false), n.appPassword(tok, "chat client", true)
	form := regexp.MustCompile(`^[a-z2-7]{4}(-[a-z2-7]{4}){3}$`)
	if !form.MatchString(plain) || !form.MatchString(chat) || plain == chat {
		t.Fatalf("passwords %q, %q", plain, chat)
	}
	for _, name := range []string{"bot", "", "a\nb", strings.Repeat("x", 129)} {
		want(t, n.call("com.atproto.server.createAppPassword", tok, map[string]any{"name": name}), 400, "InvalidRequest")
	}
	n.restart() // they are on disk
	list := n.query("com.atproto.server.listAppPasswords", tok)
	want(t, list, 200, "")
	entries, _ := list.JSON["passwords"].([]any)
	if len(entries) != 2 || strings.Contains(string(list.Body), plain) || strings.Contains(string(list.Body), "digest") ||
		fmt.Sprintf("%v %v %v %v", entries[0].(map[string]any)["name"], entries[0].(map[string]any)["privileged"], entries[1].(map[string]any)["name"], entries[1].(map[string]any)["privileged"]) != "bot false chat client true" {
		t.Fatalf("list: %s", list.Body)
	}
	it := n.store.Iter([]byte(rowAppPassword), kv.PrefixEnd([]byte(rowAppPassword)))
	rows := 0
	for ok := it.First(); ok; ok = it.Next() {
		rows++
		if strings.Contains(string(it.Value()), plain) || strings.Contains(string(it.Value()), chat) {
			t.Error("a password is in the store")
		}
	}
	it.Close()
	if rows != 2 {
		t.Errorf("%d rows", rows)
	}

	// They sign in by every name of this account, and of no other.
	n.signedUp("bob")
	for _, id := range []string{"alice.test", did, "alice@example.com"} {
		s := n.signIn(id, plain)
		want(t, s, 200, "")
		_, c, _, _, err := splitToken(s.str("accessJwt"))
		if err != nil || c.Scope != string(scopeAppPass) || s.JSON["email"] != nil {
			t.Errorf("%+v, %v, %s", c, err, s.Body)
		}
	}
	for _, wrong := range []string{plain[:18] + "!", strings.ToUpper(plain), strings.ReplaceAll(plain, "-", ""), "aaaa-aaaa-aaaa-aaaa"} {
		want(t, n.signIn("alice.test", wrong), 401, "AuthenticationRequired")
	}
	want(t, n.signIn("bob.test", plain), 401, "AuthenticationRequired")
	want(t, n.signIn("nobody.test", plain), 401, "AuthenticationRequired")
}

// TestAppPasswordScope calls every method with the tokens of app passwords: what manages the account is closed to both kinds.
func TestAppPasswordScope(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	tok := a.str("accessJwt")
	f := n.service(jsonReply(200, `{}`))
	for _, privileged := range []bool{false, true} {
		s := n.signIn("alice.test", n.appPassword(tok, fmt.Sprint("app ", privileged), privileged))
		want(t, s, 200, "")
		app := s.str("accessJwt")
		for _, m := range []string{
			"createAppPassword", "revokeAppPassword", "deactivateAccount", "activateAccount", "requestAccountDelete",
		} {
			want(t, n.call("com.atproto.server."+m, app, map[string]any{"name": "x"}), 400, "InvalidToken")
		}
		for _, m := range []string{"listAppPasswords", "getAccountInviteCodes", "checkAccountStatus"} {
			want(t, n.query("com.atproto.server."+m, app), 400, "InvalidToken")
		}
		for m, in := range map[string]map[string]any{
			"updateHandle": {"handle": "mallory.test"}, "requestPlcOperationSignature": nil, "signPlcOperation": {"token": "x"}, "submitPlcOperation": {"operation": map[string]any{}},
		} {
			want(t, n.call("com.atproto.identity."+m, app, in), 400, "InvalidToken")
		}
		want(t, n.do(http.MethodPost, "com.atproto.repo.importRepo", app, "application/vnd.ipld.car", strings.NewReader("x")), 400, "InvalidToken")

		// What it is for works.
		want(t, n.call("com.atproto.repo.createRecord", app, map[string]any{
			"repo": a.str("did"), "collection": "com.example.thing", "record": map[string]any{"$type": "com.example.thing"},
		}), 200, "")
		got := n.query("com.atproto.server.getSession", app)
		want(t, got, 200, "")
		if got.JSON["email"] != nil {
			t.Errorf("an app password reads the e-mail address: %s", got.Body)
		}
		r := n.call("com.atproto.server.refreshSession", s.str("refreshJwt"), nil)
		want(t, r, 200, "")
		if _, c, _, _, _ := splitToken(r.str("accessJwt")); c.Scope != map[bool]string{false: "com.atproto.appPass", true: "com.atproto.appPassPrivileged"}[privileged] || r.JSON["email"] != nil {
			t.Errorf("refreshed: %+v %s", c, r.Body)
		}

		// Tokens for other services, and requests that are passed on.
		mint := func(lxm string) answerOf {
			return n.query("com.atproto.server.getServiceAuth?aud=did:web:x.example"+lxm, app)
		}
		status, name := 400, "InvalidToken"
		if privileged {
			status, name = 200, ""
		}
		want(t, mint("&lxm=app.bsky.feed.getTimeline"), 200, "")
		for _, lxm := range []string{"", "&lxm=chat.bsky.convo.listConvos", "&lxm=CHAT.bsky.convo.listConvos", "&lxm=com.atproto.server.createAccount"} {
			want(t, mint(lxm), status, name)
		}
		want(t, mint("&lxm=com.atproto.server.createAppPassword"), 400, "InvalidRequest")
		want(t, n.mustVia(http.MethodGet, "com.example.getThing", app, nil, "atproto-proxy", f.aud), 200, "")
		want(t, n.mustVia(http.MethodGet, "chat.bsky.convo.listConvos", app, nil, "atproto-proxy", f.aud), status, name)
		want(t, n.mustVia(http.MethodPost, "com.atproto.server.confirmEmail", app, nil, "atproto-proxy", f.aud), 400, "InvalidRequest")

		// Personal details are only the owner's to see and to change.
		want(t, n.call("app.bsky.actor.putPreferences", tok, map[string]any{"preferences": []any{map[string]any{"$type": fullAccessPreference, "birthDate": "2000-01-01"}}}), 200, "")
		want(t, n.call("app.bsky.actor.putPreferences", app, map[string]any{"preferences": []any{map[string]any{"$type": fullAccessPreference}}}), 400, "InvalidRequest")
		want(t, n.call("app.bsky.actor.putPreferences", app, map[string]any{"preferences": []any{map[string]any{"$type": "app.bsky.actor.defs#x"}}}), 200, "")
		if p := n.query("app.bsky.actor.getPreferences", app); strings.Contains(string(p.Body), "birthDate") {
			t.Errorf("an app password reads %s", p.Body)
		}
		if p := n.query("app.bsky.actor.getPreferences", tok); !strings.Contains(string(p.Body), "birthDate") || !strings.Contains(string(p.Body), "#x") {
			t.Errorf("preferences %s", p.Body)
		}
	}
}

func TestRevokeAppPassword(t *testing.T) {
	n := newNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	one, two := n.appPassword(tok, "one", false), n.appPassword(tok, "two", true)
	s1, again, s2 := n.signIn("alice.test", one), n.signIn("alice.test", one), n.signIn("alice.test", two)
	ended := n.signIn("alice.test", two)
	want(t, n.call("com.atproto.server.deleteSession", ended.str("refreshJwt"), nil), 200, "")
	want(t, n.query("com.atproto.server.getSession", ended.str("accessJwt")), 400, "ExpiredToken")
	rotated := n.call("com.atproto.server.refreshSession", again.str("refreshJwt"), nil)
	want(t, rotated, 200, "")

	want(t, n.call("com.atproto.server.revokeAppPassword", tok, map[string]any{"name": "one"}), 200, "")
	for restarted := range 2 {
		for _, s := range []answerOf{s1, again, rotated} {
			want(t, n.query("com.atproto.server.getSession", s.str("accessJwt")), 400, "ExpiredToken")
			want(t, n.call("com.atproto.server.refreshSession", s.str("refreshJwt"), nil), 400, "ExpiredToken")
		}
		want(t, n.signIn("alice.test", one), 401, "AuthenticationRequired")
		want(t, n.query("com.atproto.server.getSession", s2.str("accessJwt")), 200, "")
		want(t, n.query("com.atproto.server.getSession", tok), 200, "")
		if restarted == 0 {
			n.restart()
		}
	}
	want(t, n.call("com.atproto.server.revokeAppPassword", tok, map[string]any{"name": "one"}), 200, "") // it is
	want(t, n.call("com.atproto.server.revokeAppPassword", tok, map[string]any{"name": strings.Repeat("x", 500)}), 200, "")
	if again := n.appPassword(tok, "one", false); again == one {
		t.Error("the same password")
	}
	want(t, n.query("com.atproto.server.getSession", s1.str("accessJwt")), 400, "ExpiredToken") // a new password of the name isn't the old one

	// One account's names are not another's.
	bob := n.signedUp("bob").str("accessJwt")
	want(t, n.call("com.atproto.server.revokeAppPassword", bob, map[string]any{"name": "two"}), 200, "")
	want(t, n.signIn("alice.test", two), 200, "")
}

// TestRevokeRaces revokes a password while sessions are made with it and refreshed: none of them survives.
func TestRevokeRaces(t *testing.T) {
	n := newNetwork(t, Config{Accounts: AccountConfig{RelaxLoopback: true}})
	a := n.signedUp("alice")
	tok := a.str("accessJwt")
	for round := range 5 {
		name := fmt.Sprint("app ", round)
		password := n.appPassword(tok, name, false)
		first := n.signIn("alice.test", password)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var made []answerOf
		keep := func(s answerOf) {
			if s.Status == 200 {
				mu.Lock()
				made = append(made, s)
				mu.Unlock()
			}
		}
		for range 4 {
			wg.Go(func() { keep(n.signIn("alice.test", password)) })
		}
		wg.Go(func() { keep(n.call("com.atproto.server.refreshSession", first.str("refreshJwt"), nil)) })
		wg.Go(func() { n.call("com.atproto.server.revokeAppPassword", tok, map[string]any{"name": name}) })
		wg.Wait()
		for _, s := range append(made, first) {
			want(t, n.query("com.atproto.server.getSession", s.str("accessJwt")), 400, "ExpiredToken")
		}
		lo := sessionKey(syntax.DID(a.str("did")), "")
		it := n.store.Iter(lo, kv.PrefixEnd(lo))
		for ok := it.First(); ok; ok = it.Next() {
			if strings.Contains(string(it.Value()), name) {
				t.Errorf("a session outlived its password: %s", it.Value())
			}
		}
		it.Close()
	}
}

func TestAppPasswordLimits(t *testing.T) {
	n := newNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	for i := range maxAppPasswords {
		if i == limitRules["appPasswords"][0].calls {
			want(t, n.call("com.atproto.server.createAppPassword", tok, map[string]any{"name": "more"}), 429, "RateLimitExceeded")
			n.clock.Advance(time.Hour)
		}
		n.appPassword(tok, fmt.Sprint(i), false)
	}
	want(t, n.call("com.atproto.server.createAppPassword", tok, map[string]any{"name": "more"}), 400, "InvalidRequest")
	want(t, n.call("com.atproto.server.revokeAppPassword", tok, map[string]any{"name": "7"}), 200, "")
	n.appPassword(tok, "more", false)
}
