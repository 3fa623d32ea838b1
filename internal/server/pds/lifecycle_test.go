package pds

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

func TestUpdateHandle(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	n.signedUp("bob")
	did, tok := syntax.DID(a.str("did")), a.str("accessJwt")
	update := func(h string) answerOf {
		return n.call("com.atproto.identity.updateHandle", tok, map[string]any{"handle": h})
	}
	want(t, update("bob.test"), 400, "HandleNotAvailable")
	want(t, update("x.y.test"), 400, "InvalidHandle")
	want(t, update("alice.example.com"), 400, "InvalidHandle") // does not resolve
	want(t, n.call("com.atproto.identity.updateHandle", "", map[string]any{"handle": "alicia.test"}), 401, "AuthMissing")

	before := n.log.Head()
	want(t, update("Alicia.test"), 200, "")
	if got := n.plc.state(t, did).Handle(); got != "alicia.test" {
		t.Errorf("identity has %s", got)
	}
	frames := n.frames()
	if id, ok := frames[len(frames)-1].(*stream.Identity); !ok || id.Handle != "alicia.test" || n.log.Head() != before+1 {
		t.Errorf("last event: %+v", frames[len(frames)-1])
	}
	if r := n.query("com.atproto.identity.resolveHandle?handle=alicia.test", ""); r.str("did") != string(did) {
		t.Errorf("new name: %s", r.Body)
	}
	want(t, n.query("com.atproto.identity.resolveHandle?handle=alice.test", ""), 400, "HandleNotFound")
	if s := n.query("com.atproto.server.getSession", tok); s.str("handle") != "alicia.test" {
		t.Errorf("session: %s", s.Body)
	}
	if d := n.query("com.atproto.repo.describeRepo?repo=alicia.test", ""); d.str("handle") != "alicia.test" || d.JSON["handleIsCorrect"] != true {
		t.Errorf("describeRepo: %s", d.Body)
	}
	if i := n.query("com.atproto.identity.resolveIdentity?identifier=alicia.test", ""); i.str("handle") != "alicia.test" || i.str("did") != string(did) {
		t.Errorf("resolveIdentity: %s", i.Body)
	}
	// A name of one's own works once it resolves; the old one is free for others.
	n.clock.Advance(10 * time.Minute)
	n.dns.set("alice.example.com", did)
	want(t, update("alice.example.com"), 200, "")
	n.signedUp2("alicia")
	n.restart()
	if r := n.query("com.atproto.identity.resolveHandle?handle=alice.example.com", ""); r.str("did") != string(did) {
		t.Errorf("after a restart: %s", r.Body)
	}
	// When the directory doesn't answer, nothing changes here.
	n.plc.fail = 500
	want(t, update("alice.test"), 502, "UpstreamFailure")
	want(t, n.query("com.atproto.identity.resolveHandle?handle=alice.test", ""), 400, "HandleNotFound")
	n.plc.fail = 0
	for range 20 {
		if u := update("alice.test"); u.Status == 429 {
			return
		}
	}
	t.Error("updateHandle is not limited")
}

// signedUp2 makes an account without an e-mail address.
func (n *network) signedUp2(name string) answerOf {
	n.t.Helper()
	in := signUpInput(name)
	delete(in, "email")
	a := n.call("com.atproto.server.createAccount", "", in)
	want(n.t, a, 200, "")
	return a
}

func TestDeactivate(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	want(t, n.call("com.atproto.server.deactivateAccount", tok, map[string]any{"deleteAfter": "soon"}), 400, "InvalidRequest")
	want(t, n.call("com.atproto.server.deactivateAccount", tok, map[string]any{"deleteAfter": "2026-05-01T00:00:00Z"}), 200, "")
	frames := n.frames()
	if e, ok := frames[len(frames)-1].(*stream.Account); !ok || e.Active || e.Status != "deactivated" {
		t.Errorf("event: %+v", frames[len(frames)-1])
	}
	n.restart()
	row, err := n.Service.account(syntax.DID(did))
	if err != nil || row.DeleteAfter != "2026-05-01T00:00:00Z" || row.Status != hostingDeactivated {
		t.Errorf("row %+v, %v", row, err)
	}
	s := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword})
	want(t, s, 200, "")
	if s.JSON["active"] != false || s.str("status") != "deactivated" {
		t.Errorf("session: %s", s.Body)
	}
	w := n.call("com.atproto.repo.createRecord", tok, map[string]any{"repo": did, "collection": "app.bsky.feed.post", "record": map[string]any{"$type": "app.bsky.feed.post", "text": "x", "createdAt": "2026-01-02T03:04:05.678Z"}})
	if w.Name != "AccountDeactivated" {
		t.Errorf("writing: %d %s", w.Status, w.Body)
	}
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 200, "")
	frames = n.frames()
	if _, ok := frames[len(frames)-1].(*stream.Sync); !ok {
		t.Errorf("event: %+v", frames[len(frames)-1])
	}
	if row, _ := n.Service.account(syntax.DID(did)); row.DeleteAfter != "" || !row.active() {
		t.Errorf("row %+v", row)
	}
}

func TestTakedown(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := syntax.DID(a.str("did")), a.str("accessJwt")
	if err := n.submitAccountEvents(context.Background(), did, accountChange{Account: true, Status: hostingTakendown}); err != nil {
		t.Fatal(err)
	}
	want(t, n.query("com.atproto.server.getSession", tok), 401, "AccountTakedown")
	want(t, n.call("com.atproto.server.refreshSession", a.str("refreshJwt"), nil), 401, "AccountTakedown")
	in := map[string]any{"identifier": "alice.test", "password": goodPassword}
	want(t, n.call("com.atproto.server.createSession", "", in), 401, "AccountTakedown")
	in["allowTakendown"] = true
	s := n.call("com.atproto.server.createSession", "", in)
	want(t, s, 200, "")
	// It may look at itself and move out, and nothing else.
	tok = s.str("accessJwt")
	want(t, n.query("com.atproto.server.getSession", tok), 200, "")
	want(t, n.query("com.atproto.server.getServiceAuth?aud=did:web:x.example&lxm=com.atproto.server.createAccount", tok), 200, "")
	want(t, n.query("com.atproto.server.getServiceAuth?aud=did:web:x.example&lxm=com.atproto.repo.uploadBlob", tok), 400, "InvalidToken")
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 400, "InvalidToken")
	want(t, n.call("com.atproto.server.refreshSession", s.str("refreshJwt"), nil), 200, "")
}

func TestDeleteAccount(t *testing.T) {
	var log syncBuffer
	n := newNetwork(t, Config{Accounts: AccountConfig{LogTokens: true}})
	n.Service.world.Log = log.logger()
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	want(t, n.call("com.atproto.server.requestAccountDelete", tok, nil), 200, "")
	token := log.token(t)
	in := map[string]any{"did": did, "password": goodPassword, "token": "WRONG"}
	want(t, n.call("com.atproto.server.deleteAccount", "", in), 400, "InvalidToken")
	in["token"], in["password"] = token, "not the password"
	want(t, n.call("com.atproto.server.deleteAccount", "", in), 401, "AuthenticationRequired")
	in["password"] = goodPassword
	n.clock.Advance(16 * time.Minute)
	want(t, n.call("com.atproto.server.deleteAccount", "", in), 400, "ExpiredToken")
	want(t, n.call("com.atproto.server.requestAccountDelete", tok, nil), 200, "")
	in["token"] = log.token(t)
	want(t, n.call("com.atproto.server.deleteAccount", "", in), 200, "")
	frames := n.frames()
	if e, ok := frames[len(frames)-1].(*stream.Account); !ok || e.Active || e.Status != "deleted" {
		t.Errorf("event: %+v", frames[len(frames)-1])
	}
	n.restart()
	want(t, n.query("com.atproto.server.getSession", tok), 403, "AccountNotFound")
	want(t, n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword}), 401, "AuthenticationRequired")
	want(t, n.query("com.atproto.identity.resolveHandle?handle=alice.test", ""), 400, "HandleNotFound")
	if st := n.query("com.atproto.sync.getRepoStatus?did="+did, ""); st.JSON["active"] != false || st.str("status") != "deleted" {
		t.Errorf("repo status: %d %s", st.Status, st.Body)
	}
	n.signedUp("alice") // name and address are free again
}

// What an account said before it was deleted or taken down is not replayed; what others said is.
func TestDeletedAccountIsNotReplayed(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{Memory: true})
	a, b, c := p.account("alice"), p.account("bob"), p.account("carol")
	for range 3 {
		for _, x := range []*testAccount{a, b, c} {
			want(t, x.create("com.example.thing", "", map[string]any{}), 200, "")
		}
	}
	others := 0
	for _, m := range p.frames() {
		if m.Subject() == string(c.did) {
			others++
		}
	}
	if err := p.submitAccountEvents(context.Background(), b.did, accountChange{Account: true, Status: hostingTakendown}); err != nil {
		t.Fatal(err)
	}
	row, err := p.Service.account(a.did)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.removeAccount(context.Background(), row); err != nil {
		t.Fatal(err)
	}
	last := map[string]string{string(a.did): stream.StatusDeleted, string(b.did): stream.StatusTakendown}
	for _, erased := range []bool{false, true} {
		frames := p.frames()
		if len(frames) != others+len(last) || others < 4 {
			t.Errorf("%d events, want %d", len(frames), others+len(last))
		}
		for _, m := range frames {
			if gone, ok := m.(*stream.Account); last[m.Subject()] != "" && (!ok || gone.Status != last[m.Subject()]) {
				t.Errorf("replayed: %+v", m)
			}
		}
		if !erased {
			if more, err := p.log.Erase(); more || err != nil {
				t.Errorf("erasing: %v, %v", more, err)
			}
		}
	}
}

func TestSignPlcOperation(t *testing.T) {
	var log syncBuffer
	n := newNetwork(t, Config{Accounts: AccountConfig{LogTokens: true}})
	n.Service.world.Log = log.logger()
	a := n.signedUp("alice")
	tok := a.str("accessJwt")
	mine, _ := keys.Generate(keys.K256, randomReader{n.Service})
	server := n.accounts.secrets.rotation.Public().DIDKey()
	in := map[string]any{"token": "WRONG", "rotationKeys": []string{mine.Public().DIDKey(), server}}
	want(t, n.call("com.atproto.identity.signPlcOperation", tok, in), 400, "InvalidToken")
	want(t, n.call("com.atproto.identity.requestPlcOperationSignature", tok, nil), 200, "")
	in["token"] = log.token(t)
	s := n.call("com.atproto.identity.signPlcOperation", tok, in)
	want(t, s, 200, "")
	want(t, n.call("com.atproto.identity.signPlcOperation", tok, in), 400, "InvalidToken") // once
	before := n.log.Head()
	want(t, n.call("com.atproto.identity.submitPlcOperation", tok, map[string]any{"operation": s.JSON["operation"]}), 200, "")
	if got := n.plc.state(t, syntax.DID(a.str("did"))).RotationKeys; len(got) != 2 || got[0] != mine.Public().DIDKey() {
		t.Errorf("rotation keys %v", got)
	}
	if n.log.Head() != before+1 {
		t.Error("no #identity event")
	}
}

func TestActor(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	b := n.signedUp("bob")
	tok, did := a.str("accessJwt"), a.str("did")
	put := func(collection, rkey string, record map[string]any) {
		t.Helper()
		want(t, n.call("com.atproto.repo.putRecord", tok, map[string]any{"repo": did, "collection": collection, "rkey": rkey, "record": record}), 200, "")
	}
	put("app.bsky.actor.profile", "self", map[string]any{"$type": "app.bsky.actor.profile", "displayName": "Alice", "description": "hello"})
	for i := range 3 {
		put("app.bsky.feed.post", fmt.Sprintf("3jzfcijpj2z2%c", 'a'+i), map[string]any{"$type": "app.bsky.feed.post", "text": "x", "createdAt": "2026-01-02T03:04:05.678Z"})
	}
	put("app.bsky.graph.follow", "3jzfcijpj2z2a", map[string]any{"$type": "app.bsky.graph.follow", "subject": b.str("did"), "createdAt": "2026-01-02T03:04:05.678Z"})
	p := n.query("app.bsky.actor.getProfile?actor=alice.test", tok)
	want(t, p, 200, "")
	if p.str("displayName") != "Alice" || p.str("description") != "hello" || p.JSON["postsCount"] != float64(3) || p.JSON["followsCount"] != float64(1) || p.str("handle") != "alice.test" {
		t.Errorf("profile: %s", p.Body)
	}
	want(t, n.query("app.bsky.actor.getProfile?actor=nobody.test", tok), 400, "InvalidRequest")
	ps := n.query("app.bsky.actor.getProfiles?actors=alice.test&actors="+b.str("did")+"&actors=nobody.test", tok)
	want(t, ps, 200, "")
	if list, _ := ps.JSON["profiles"].([]any); len(list) != 2 {
		t.Errorf("profiles: %s", ps.Body)
	}

	prefs := n.query("app.bsky.actor.getPreferences", tok)
	want(t, prefs, 200, "")
	if string(prefs.Body) != `{"preferences":[]}` {
		t.Errorf("no preferences: %s", prefs.Body)
	}
	list := []any{
		map[string]any{"$type": "app.bsky.actor.defs#adultContentPref", "enabled": true},
		map[string]any{"$type": "app.bsky.actor.defs#somethingNew", "deep": map[string]any{"er": []any{1, "two", nil}}},
	}
	want(t, n.call("app.bsky.actor.putPreferences", tok, map[string]any{"preferences": list}), 200, "")
	n.restart()
	prefs = n.query("app.bsky.actor.getPreferences", tok)
	if got, _ := json.Marshal(prefs.JSON["preferences"]); string(got) != `[{"$type":"app.bsky.actor.defs#adultContentPref","enabled":true},{"$type":"app.bsky.actor.defs#somethingNew","deep":{"er":[1,"two",null]}}]` {
		t.Errorf("preferences: %s", got)
	}
	for _, bad := range []any{nil, "x", []any{map[string]any{"enabled": true}}, []any{map[string]any{"$type": "com.example.pref"}}} {
		want(t, n.call("app.bsky.actor.putPreferences", tok, map[string]any{"preferences": bad}), 400, "InvalidRequest")
	}
	want(t, n.query("app.bsky.actor.getPreferences", ""), 401, "AuthMissing")

	// What this server doesn't know stays as it is to the byte: order, spaces, numbers and spellings.
	exact := `{"z":1.50, "$type":"app.bsky.actor.defs#new","a":"<\u0026>", "big":12345678901234567890,"e":1e2,"n":null}`
	putRaw := func(list string) answerOf {
		return n.do(http.MethodPost, "app.bsky.actor.putPreferences", tok, "application/json", strings.NewReader(`{"preferences":[`+list+`]}`))
	}
	want(t, putRaw(exact+" , "+exact), 200, "")
	n.restart()
	if got := n.query("app.bsky.actor.getPreferences", tok); string(got.Body) != `{"preferences":[`+exact+`,`+exact+`]}` {
		t.Errorf("preferences: %s", got.Body)
	}
	for _, bad := range []string{`{"$Type":"app.bsky.x"}`, `{"$type":"com.example.x","$TYPE":"app.bsky.x"}`, `{"$type":7}`, `null`, `[]`, "{\"$type\":\"app.bsky.x\",\"a\":\"\xff\"}"} {
		want(t, putRaw(bad), 400, "InvalidRequest")
	}
	want(t, putRaw(`{"$type":"app.bsky.x","a":"`+strings.Repeat("x", maxPreferenceBytes)+`"}`), 413, "PayloadTooLarge")
	want(t, putRaw(strings.Repeat(`{"$type":"app.bsky.x"},`, maxPreferences)+`{"$type":"app.bsky.x"}`), 400, "InvalidRequest")
}

func TestWellKnown(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	get := func(path, host string) (int, string) {
		req, _ := http.NewRequest(http.MethodGet, n.URL+path, nil)
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, host := range []string{"alice.test", "ALICE.test:2583"} {
		if code, body := get("/.well-known/atproto-did", host); code != 200 || body != a.str("did") {
			t.Errorf("%s: %d %q", host, code, body)
		}
	}
	for _, host := range []string{"bob.test", "localhost", "127.0.0.1:80"} {
		if code, _ := get("/.well-known/atproto-did", host); code != 404 {
			t.Errorf("%s: %d", host, code)
		}
	}
	code, body := get("/.well-known/did.json", "localhost:2583")
	if code != 200 || !strings.Contains(body, `"id":"did:web:localhost%3A2583"`) || !strings.Contains(body, `"serviceEndpoint":"http://localhost:2583"`) {
		t.Errorf("%d %s", code, body)
	}
	d := n.query("com.atproto.server.describeServer", "")
	want(t, d, 200, "")
	if d.str("did") != "did:web:localhost%3A2583" || fmt.Sprint(d.JSON["availableUserDomains"]) != "[.test]" {
		t.Errorf("describeServer: %s", d.Body)
	}
}

func TestSecretsMustNotGetLost(t *testing.T) {
	n := newNetwork(t, Config{})
	n.signedUp("alice")
	for _, name := range []string{"sealing.key", "plc-rotation.key"} {
		path := "data/secrets/" + name
		if err := n.world.FS.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		n.testPDS.stop()
		if s, err := New(n.Service.cfg, n.world); err == nil {
			s.Close()
			t.Errorf("started without %s", name)
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("the error doesn't name the file: %v", err)
		}
		if err := n.world.FS.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		n.testPDS = openPDS(t, n.world, n.cfg)
	}
}

// racing makes the same call n times at once and says how often it was answered how.
func (n *network) racing(times int, nsid, token string, in map[string]any) map[string]int {
	got := make(chan answerOf)
	for range times {
		go func() { got <- n.call(nsid, token, in) }()
	}
	count := map[string]int{}
	for range times {
		a := <-got
		count[fmt.Sprint(a.Status, a.Name)]++
	}
	return count
}

// A confirmation token confirms one thing once, however many ask at the same time.
func TestTokensRace(t *testing.T) {
	var log syncBuffer
	n := newNetwork(t, Config{Accounts: AccountConfig{LogTokens: true}})
	n.Service.world.Log = log.logger()
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	mine, err := keys.Generate(keys.K256, randomReader{n.Service})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		want(t, n.call("com.atproto.identity.requestPlcOperationSignature", tok, nil), 200, "")
		in := map[string]any{"token": log.token(t), "rotationKeys": []string{mine.Public().DIDKey(), n.accounts.secrets.rotation.Public().DIDKey()}}
		if got := n.racing(16, "com.atproto.identity.signPlcOperation", tok, in); got["200"] != 1 || got["400InvalidToken"] != 15 {
			t.Errorf("signPlcOperation: %v", got)
		}
	}
	// What fails does not use the token up.
	want(t, n.call("com.atproto.identity.requestPlcOperationSignature", tok, nil), 200, "")
	in := map[string]any{"token": log.token(t), "rotationKeys": []string{"nonsense"}}
	if r := n.call("com.atproto.identity.signPlcOperation", tok, in); r.Status == 200 {
		t.Errorf("nonsense was signed: %s", r.Body)
	}
	in["rotationKeys"] = []string{mine.Public().DIDKey()}
	want(t, n.call("com.atproto.identity.signPlcOperation", tok, in), 200, "")

	want(t, n.call("com.atproto.server.requestAccountDelete", tok, nil), 200, "")
	got := n.racing(8, "com.atproto.server.deleteAccount", "", map[string]any{"did": did, "password": goodPassword, "token": log.token(t)})
	if got["200"] != 1 || got["200"]+got["400InvalidToken"]+got["401AuthenticationRequired"] != 8 {
		t.Errorf("deleteAccount: %v", got)
	}
}
