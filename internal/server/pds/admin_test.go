package pds

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// as sends a request with the operator's credentials.
func (n *network) operator(method, path string, in map[string]any) answerOf {
	n.t.Helper()
	var body *strings.Reader = strings.NewReader("")
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			n.t.Fatal(err)
		}
		body = strings.NewReader(string(b))
	}
	req := httptest.NewRequest(method, n.cfg.PublicURL+"/xrpc/"+path, body)
	req.RemoteAddr = "127.0.0.1:1000"
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.SetBasicAuth("admin", "operator")
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, req)
	out := answerOf{Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()}
	_ = json.Unmarshal(out.Body, &out.JSON)
	if out.Status/100 != 2 {
		out.Name = out.str("error")
	}
	return out
}

func (n *network) ask(path string) answerOf {
	return n.operator(http.MethodGet, "com.atproto."+path, nil)
}
func (n *network) order(nsid string, in map[string]any) answerOf {
	return n.operator(http.MethodPost, "com.atproto."+nsid, in)
}

func (n *network) takedown(subject map[string]any, applied bool) {
	n.t.Helper()
	r := n.order("admin.updateSubjectStatus", map[string]any{"subject": subject, "takedown": map[string]any{"applied": applied, "ref": "case 7"}})
	want(n.t, r, 200, "")
}

func repoRef(did string) map[string]any {
	return map[string]any{"$type": "com.atproto.admin.defs#repoRef", "did": did}
}

// TestAdminDoor makes sure that nobody but the operator gets in, by any method.
func TestAdminDoor(t *testing.T) {
	n := newNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	queries := []string{"getAccountInfo", "getAccountInfos", "searchAccounts", "getSubjectStatus", "getInviteCodes"}
	procedures := []string{"updateSubjectStatus", "deleteAccount", "disableAccountInvites", "enableAccountInvites", "disableInviteCodes", "sendEmail",
		"updateAccountEmail", "updateAccountHandle", "updateAccountPassword", "updateAccountSigningKey"}
	if got := len(queries) + len(procedures); got != 15 {
		t.Fatalf("%d methods", got)
	}
	for _, m := range queries {
		want(t, n.query("com.atproto.admin."+m, ""), 401, "AuthenticationRequired")
		want(t, n.query("com.atproto.admin."+m, tok), 401, "AuthenticationRequired")
	}
	for _, m := range procedures {
		want(t, n.call("com.atproto.admin."+m, "", map[string]any{}), 401, "AuthenticationRequired")
		want(t, n.call("com.atproto.admin."+m, tok, map[string]any{}), 401, "AuthenticationRequired")
		r := n.order("admin."+m, map[string]any{"did": 7, "subject": []any{}, "account": nil})
		if r.Status != 400 && r.Status != 200 {
			t.Errorf("%s: %d %s", m, r.Status, r.Body)
		}
	}
	// Guessing ends soon, also for who guesses right then, and starts again later.
	guess := func(user, password string) answerOf {
		return n.admin("com.atproto.admin.deleteAccount", map[string]any{"did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}, user, password)
	}
	for i := range limitRules["adminGuesses"][0].calls {
		want(t, guess([]string{"admin", "root", ""}[i%3]+"x", fmt.Sprint(i)), 401, "AuthenticationRequired")
	}
	want(t, guess("admin", "operator"), 429, "RateLimitExceeded")
	n.clock.Advance(5*time.Minute + time.Second)
	want(t, guess("admin", "operator"), 400, "AccountNotFound")
	// In the clear only from this machine.
	req := httptest.NewRequest(http.MethodGet, "http://localhost:2583/xrpc/com.atproto.admin.searchAccounts", nil)
	req.SetBasicAuth("admin", "operator")
	req.RemoteAddr = "192.0.2.1:1000"
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, req)
	if w.Code != 403 {
		t.Errorf("over plain HTTP from elsewhere: %d %s", w.Code, w.Body)
	}
}

func TestAdminPasswordFile(t *testing.T) {
	n := newNetwork(t, Config{})
	n.testPDS.stop()
	cfg := n.cfg
	cfg.AdminPassword = ""
	p := openPDS(t, n.world, cfg)
	path := p.MadeAdminPassword()
	f, err := n.world.FS.Open(path)
	if err != nil || path != "data/secrets/admin.password" {
		t.Fatalf("file %q: %v", path, err)
	}
	b := make([]byte, 100)
	k, _ := f.Read(b)
	f.Close()
	password := strings.TrimSpace(string(b[:k]))
	if len(password) < 26 {
		t.Fatalf("password of %d letters", len(password))
	}
	n.testPDS = p
	in := map[string]any{"did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}
	want(t, n.admin("com.atproto.admin.deleteAccount", in, "admin", password), 400, "AccountNotFound")
	want(t, n.admin("com.atproto.admin.deleteAccount", in, "admin", ""), 401, "AuthenticationRequired")
	p.stop()
	n.testPDS = openPDS(t, n.world, cfg) // the same one again
	if n.MadeAdminPassword() != "" {
		t.Error("made again")
	}
	want(t, n.admin("com.atproto.admin.deleteAccount", in, "admin", password), 400, "AccountNotFound")
	// A hash in the configuration.
	hash, err := n.accounts.passwords.hash(t.Context(), "a long password", []byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	n.testPDS.stop()
	cfg.AdminPassword = hash
	n.testPDS = openPDS(t, n.world, cfg)
	for range 2 {
		want(t, n.admin("com.atproto.admin.deleteAccount", in, "admin", "a long password"), 400, "AccountNotFound")
		want(t, n.admin("com.atproto.admin.deleteAccount", in, "root", "a long password"), 401, "AuthenticationRequired")
		want(t, n.admin("com.atproto.admin.deleteAccount", in, "admin", hash), 401, "AuthenticationRequired")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("written to the real disk")
	}
}

func TestAdminAccounts(t *testing.T) {
	n := newMailNetwork(t, Config{InviteRequired: true})
	code := n.order("server.createInviteCode", map[string]any{"useCount": 5}).str("code")
	var dids []string
	signUp := func(name string) answerOf {
		in := signUpInput(name)
		in["inviteCode"] = code
		a := n.call("com.atproto.server.createAccount", "", in)
		want(t, a, 200, "")
		dids = append(dids, a.str("did"))
		return a
	}
	alice := signUp("alice")
	signUp("bob")
	signUp("carol")
	did, tok := alice.str("did"), alice.str("accessJwt")
	want(t, n.order("server.createInviteCode", map[string]any{"useCount": 2, "forAccount": did}), 200, "")
	n.confirmed(tok, "alice@example.com")

	info := n.ask("admin.getAccountInfo?did=" + did)
	want(t, info, 200, "")
	by, _ := info.JSON["invitedBy"].(map[string]any)
	if info.str("handle") != "alice.test" || info.str("email") != "alice@example.com" || info.str("emailConfirmedAt") == "" || by["code"] != code ||
		len(info.JSON["invites"].([]any)) != 1 || info.JSON["invitesDisabled"] != false || info.str("indexedAt") == "" || info.JSON["deactivatedAt"] != nil {
		t.Errorf("info: %s", info.Body)
	}
	want(t, n.ask("admin.getAccountInfo?did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), 400, "AccountNotFound")
	want(t, n.ask("admin.getAccountInfo?did=alice"), 400, "InvalidRequest")
	infos := n.ask("admin.getAccountInfos?dids=" + dids[1] + "&dids=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa&dids=" + dids[0])
	if list, _ := infos.JSON["infos"].([]any); len(list) != 2 {
		t.Errorf("infos: %s", infos.Body)
	}
	want(t, n.ask("admin.getAccountInfos?"+strings.Repeat("dids="+did+"&", maxAccountInfos+1)), 400, "InvalidRequest")
	var found []string
	for cursor := ""; ; {
		r := n.ask("admin.searchAccounts?limit=1&cursor=" + url.QueryEscape(cursor))
		want(t, r, 200, "")
		for _, a := range r.JSON["accounts"].([]any) {
			found = append(found, a.(map[string]any)["did"].(string))
		}
		if cursor = r.str("cursor"); cursor == "" {
			break
		}
	}
	slices.Sort(dids)
	if !slices.Equal(found, dids) {
		t.Errorf("found %v, want %v", found, dids)
	}
	for q, want := range map[string]int{"BOB@": 1, "example.com": 3, "nobody": 0} {
		if r := n.ask("admin.searchAccounts?email=" + url.QueryEscape(q)); len(r.JSON["accounts"].([]any)) != want {
			t.Errorf("%s: %s", q, r.Body)
		}
	}
	want(t, n.ask("admin.searchAccounts?cursor=x"), 400, "InvalidRequest")

	// Changing what an account has.
	want(t, n.order("admin.updateAccountEmail", map[string]any{"account": "alice.test", "email": "bob@example.com"}), 400, "InvalidRequest")
	want(t, n.order("admin.updateAccountEmail", map[string]any{"account": "alice.test", "email": "nonsense"}), 400, "InvalidRequest")
	want(t, n.order("admin.updateAccountEmail", map[string]any{"account": "alice.test", "email": "alice@example.org"}), 200, "")
	if i := n.ask("admin.getAccountInfo?did=" + did); i.str("email") != "alice@example.org" || i.JSON["emailConfirmedAt"] != nil {
		t.Errorf("info: %s", i.Body)
	}
	want(t, n.order("admin.updateAccountHandle", map[string]any{"did": did, "handle": "bob.test"}), 400, "HandleNotAvailable")
	want(t, n.order("admin.updateAccountHandle", map[string]any{"did": did, "handle": "support.test"}), 200, "") // reserved: the operator's to give
	if got := n.plc.state(t, syntax.DID(did)).Handle(); got != "support.test" {
		t.Errorf("identity has %s", got)
	}
	want(t, n.order("admin.updateAccountPassword", map[string]any{"did": did, "password": "short"}), 400, "InvalidPassword")
	want(t, n.order("admin.updateAccountPassword", map[string]any{"did": did, "password": "chosen by the operator"}), 200, "")
	want(t, n.query("com.atproto.server.getSession", tok), 400, "ExpiredToken")
	s := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "support.test", "password": "chosen by the operator"})
	want(t, s, 200, "")

	// Invite codes.
	want(t, n.order("admin.disableAccountInvites", map[string]any{"account": did, "note": "too many"}), 200, "")
	want(t, n.order("server.createInviteCode", map[string]any{"useCount": 1, "forAccount": did}), 400, "InvalidRequest")
	if i := n.ask("admin.getAccountInfo?did=" + did); i.JSON["invitesDisabled"] != true || i.str("inviteNote") != "too many" {
		t.Errorf("info: %s", i.Body)
	}
	want(t, n.order("admin.enableAccountInvites", map[string]any{"account": did}), 200, "")
	want(t, n.order("server.createInviteCode", map[string]any{"useCount": 1, "forAccount": did}), 200, "")
	for sort, first := range map[string]string{"recent": "", "usage": code} {
		var all []string
		for cursor := ""; ; {
			r := n.ask("admin.getInviteCodes?limit=1&sort=" + sort + "&cursor=" + url.QueryEscape(cursor))
			want(t, r, 200, "")
			for _, c := range r.JSON["codes"].([]any) {
				all = append(all, c.(map[string]any)["code"].(string))
			}
			if cursor = r.str("cursor"); cursor == "" {
				break
			}
		}
		if len(all) != 3 || first != "" && all[0] != first || len(slices.Compact(slices.Sorted(slices.Values(all)))) != 3 {
			t.Errorf("%s: %v", sort, all)
		}
	}
	want(t, n.ask("admin.getInviteCodes?sort=x"), 400, "InvalidRequest")
	want(t, n.ask("admin.getInviteCodes?cursor=x"), 400, "InvalidRequest")
	want(t, n.order("admin.disableInviteCodes", map[string]any{"codes": []string{"unknown"}}), 400, "InvalidRequest")
	want(t, n.order("admin.disableInviteCodes", map[string]any{"accounts": []string{"admin"}}), 400, "InvalidRequest")
	want(t, n.order("admin.disableInviteCodes", map[string]any{"codes": []string{code}, "accounts": []string{did}}), 200, "")
	in := signUpInput("dave")
	in["inviteCode"] = code
	want(t, n.call("com.atproto.server.createAccount", "", in), 400, "InvalidInviteCode")
	if r := n.ask("admin.getAccountInfo?did=" + did); strings.Count(string(r.Body), `"disabled":true`) != 3 {
		t.Errorf("codes: %s", r.Body)
	}

	// Mail.
	mail := map[string]any{"recipientDid": did, "senderDid": did, "content": "Hello", "subject": "From the operator"}
	want(t, n.order("admin.sendEmail", mail), 200, "")
	if m := n.next(); m.To != "alice@example.org" || m.Text != "Hello" || m.Subject != "From the operator" || m.HTML {
		t.Errorf("mail %+v", m)
	}
	mail["content"] = "<p>Hello</p>"
	delete(mail, "subject")
	want(t, n.order("admin.sendEmail", mail), 200, "")
	if m := n.next(); !m.HTML || m.Subject != "Message from localhost" {
		t.Errorf("mail %+v", m)
	}
	mail["subject"] = "a\nBcc: x@example.com"
	want(t, n.order("admin.sendEmail", mail), 400, "InvalidRequest")

	// The end.
	want(t, n.order("admin.deleteAccount", map[string]any{"did": did}), 200, "")
	want(t, n.ask("admin.getAccountInfo?did="+did), 400, "AccountNotFound")
	want(t, n.order("admin.deleteAccount", map[string]any{"did": did}), 400, "AccountNotFound")
	if st := n.query("com.atproto.sync.getRepoStatus?did="+did, ""); st.str("status") != "deleted" {
		t.Errorf("status: %s", st.Body)
	}
}

func TestAdminTakedownOfAccount(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	w := n.call("com.atproto.repo.createRecord", tok, map[string]any{"repo": did, "collection": "com.example.thing", "rkey": "a", "record": map[string]any{}})
	want(t, w, 200, "")
	reads := []string{
		"com.atproto.repo.getRecord?repo=" + did + "&collection=com.example.thing&rkey=a", "com.atproto.repo.listRecords?repo=" + did + "&collection=com.example.thing",
		"com.atproto.sync.getRepo?did=" + did, "com.atproto.sync.getRecord?did=" + did + "&collection=com.example.thing&rkey=a",
		"com.atproto.sync.getLatestCommit?did=" + did, "com.atproto.sync.listBlobs?did=" + did, "com.atproto.repo.describeRepo?repo=" + did,
		"com.atproto.sync.getBlocks?did=" + did + "&cids=" + w.str("cid"),
	}
	last := func() *stream.Account {
		t.Helper()
		frames := n.frames()
		for i := len(frames) - 1; i >= 0; i-- {
			if e, ok := frames[i].(*stream.Account); ok {
				return e
			}
		}
		t.Fatal("no #account event")
		return nil
	}
	n.takedown(repoRef(did), true)
	n.takedown(repoRef(did), true) // no second event
	if e := last(); e.Active || e.Status != "takendown" {
		t.Errorf("event %+v", e)
	}
	for _, e := range n.frames() {
		if _, ok := e.(*stream.Commit); ok {
			t.Errorf("the stream still gives out %+v", e)
		}
	}
	head := n.log.Head()
	n.restart()
	for _, r := range reads {
		want(t, n.query(r, ""), 400, "RepoTakendown")
		if got := n.operator(http.MethodGet, r, nil); got.Status != 200 {
			t.Errorf("the operator can't see %s: %d %s", r, got.Status, got.Body)
		}
	}
	if r := n.query("com.atproto.sync.listRepos", ""); !strings.Contains(string(r.Body), `"status":"takendown"`) || strings.Contains(string(r.Body), `"active":true`) {
		t.Errorf("listRepos: %s", r.Body)
	}
	want(t, n.call("com.atproto.repo.createRecord", tok, map[string]any{"repo": did, "collection": "com.example.thing", "record": map[string]any{}}), 401, "AccountTakedown")
	want(t, n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword}), 401, "AccountTakedown")
	want(t, n.call("com.atproto.server.deactivateAccount", tok, map[string]any{}), 401, "AccountTakedown")
	if st := n.ask("admin.getSubjectStatus?did=" + did); fmt.Sprint(st.JSON["takedown"]) != "map[applied:true ref:case 7]" || fmt.Sprint(st.JSON["deactivated"]) != "map[applied:false]" {
		t.Errorf("status: %s", st.Body)
	}
	n.takedown(repoRef(did), false)
	n.takedown(repoRef(did), false)
	if e := last(); !e.Active || n.log.Head() != head+3 { // #identity, #account and #sync
		t.Errorf("event %+v, %d events", e, n.log.Head()-head)
	}
	for _, r := range reads {
		want(t, n.query(r, ""), 200, "")
	}
	want(t, n.query("com.atproto.server.getSession", tok), 200, "")

	// An account that was deactivated is so again afterwards, and only its owner's word or the operator's changes that.
	want(t, n.call("com.atproto.server.deactivateAccount", tok, map[string]any{}), 200, "")
	n.takedown(repoRef(did), true)
	n.takedown(repoRef(did), false)
	if e := last(); e.Active || e.Status != "deactivated" {
		t.Errorf("event %+v", e)
	}
	both := map[string]any{"subject": repoRef(did), "deactivated": map[string]any{"applied": false}}
	want(t, n.order("admin.updateSubjectStatus", both), 200, "")
	if e := last(); !e.Active {
		t.Errorf("event %+v", e)
	}
	both["deactivated"] = map[string]any{"applied": true}
	want(t, n.order("admin.updateSubjectStatus", both), 200, "")
	if st := n.ask("admin.getSubjectStatus?did=" + did); fmt.Sprint(st.JSON["deactivated"]) != "map[applied:true]" {
		t.Errorf("status: %s", st.Body)
	}
	// The operator's deactivation takes nothing from what the owner has wished, and holds after a takedown as well.
	both["deactivated"] = map[string]any{"applied": false}
	want(t, n.order("admin.updateSubjectStatus", both), 200, "")
	after := datetime(n.clock.Now().Add(time.Hour))
	want(t, n.call("com.atproto.server.deactivateAccount", tok, map[string]any{"deleteAfter": after}), 200, "")
	both["deactivated"] = map[string]any{"applied": true}
	want(t, n.order("admin.updateSubjectStatus", both), 200, "")
	if acc, err := n.Service.account(syntax.DID(did)); err != nil || acc.DeleteAfter != after {
		t.Errorf("%+v, %v", acc, err)
	}
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 200, "")
	n.takedown(repoRef(did), true)
	want(t, n.order("admin.updateSubjectStatus", both), 200, "")
	if e := last(); e.Status != "takendown" {
		t.Errorf("event %+v", e)
	}
	n.takedown(repoRef(did), false)
	if e := last(); e.Active || e.Status != "deactivated" {
		t.Errorf("event %+v", e)
	}
	want(t, n.order("admin.updateSubjectStatus", map[string]any{"subject": repoRef("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), "takedown": map[string]any{"applied": true}}), 400, "AccountNotFound")
	for _, bad := range []any{map[string]any{"$type": "com.example.x"}, map[string]any{"$type": "com.atproto.repo.strongRef", "uri": "at://" + did, "cid": w.str("cid")},
		map[string]any{"$type": "com.atproto.admin.defs#repoBlobRef", "did": did, "cid": "x"}, repoRef("x")} {
		want(t, n.order("admin.updateSubjectStatus", map[string]any{"subject": bad, "takedown": map[string]any{"applied": true}}), 400, "InvalidRequest")
	}
}

func TestAdminTakedownOfRecord(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	var refs []answerOf
	for _, rkey := range []string{"a", "b", "c"} {
		w := n.call("com.atproto.repo.createRecord", tok, map[string]any{"repo": did, "collection": "com.example.thing", "rkey": rkey, "record": map[string]any{"is": rkey}})
		want(t, w, 200, "")
		refs = append(refs, w)
	}
	ref := map[string]any{"$type": "com.atproto.repo.strongRef", "uri": refs[1].str("uri"), "cid": refs[1].str("cid")}
	get := "com.atproto.repo.getRecord?repo=alice.test&collection=com.example.thing&rkey=b"
	proof := "com.atproto.sync.getRecord?did=" + did + "&collection=com.example.thing&rkey=b"
	list := "com.atproto.repo.listRecords?repo=alice.test&collection=com.example.thing"
	count := func(r answerOf) int { l, _ := r.JSON["records"].([]any); return len(l) }
	before := n.log.Head()
	n.takedown(ref, true)
	for range 2 {
		want(t, n.query(get, ""), 400, "RecordNotFound")
		want(t, n.query(proof, ""), 400, "RecordNotFound")
		if r := n.query(list, ""); count(r) != 2 {
			t.Errorf("list: %s", r.Body)
		}
		if r := n.query(list+"&limit=1", ""); r.str("cursor") == "" { // a page may be short, and goes on
			t.Errorf("list: %s", r.Body)
		}
		// Owner and operator see it; the repository stays whole.
		want(t, n.query(get, tok), 200, "")
		want(t, n.operator(http.MethodGet, get, nil), 200, "")
		want(t, n.query(proof, tok), 200, "")
		if r := n.query(list, tok); count(r) != 3 {
			t.Errorf("list: %s", r.Body)
		}
		key, err := keys.ParseDIDKey(n.plc.state(t, syntax.DID(did)).SigningKey())
		if err != nil {
			t.Fatal(err)
		}
		if records, _ := n.checkRepo(syntax.DID(did), key); len(records) != 3 {
			t.Errorf("%d records in the export", len(records))
		}
		st := n.ask("admin.getSubjectStatus?uri=" + url.QueryEscape(refs[1].str("uri")))
		if fmt.Sprint(st.JSON["takedown"]) != "map[applied:true ref:case 7]" || fmt.Sprint(st.JSON["subject"].(map[string]any)["cid"]) != refs[1].str("cid") {
			t.Errorf("status: %s", st.Body)
		}
		n.restart()
	}
	if n.log.Head() != before {
		t.Error("a takedown of a record has no event")
	}
	if st := n.ask("admin.getSubjectStatus?uri=" + url.QueryEscape(refs[0].str("uri"))); fmt.Sprint(st.JSON["takedown"]) != "map[applied:false]" {
		t.Errorf("status: %s", st.Body)
	}
	want(t, n.ask("admin.getSubjectStatus?uri=at://"+did+"/com.example.thing/zzz"), 400, "RecordNotFound")
	want(t, n.ask("admin.getSubjectStatus"), 400, "InvalidRequest")
	n.takedown(ref, false)
	n.restart()
	want(t, n.query(get, ""), 200, "")
	// It outlives its account, which may come back: see TestDeletedSubjectsStayDown.
	n.takedown(ref, true)
	want(t, n.order("admin.deleteAccount", map[string]any{"did": did}), 200, "")
	if !n.taken.any(syntax.DID(did)) {
		t.Error("the takedown went with the account")
	}
	n.restart()
	if !n.taken.any(syntax.DID(did)) {
		t.Error("the takedown went with the account")
	}
}

func TestAdminTakedownOfBlob(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	upload := func() answerOf {
		return n.do(http.MethodPost, "com.atproto.repo.uploadBlob", tok, "text/plain", strings.NewReader("what a blob"))
	}
	up := upload()
	want(t, up, 200, "")
	blob := up.JSON["blob"].(map[string]any)
	cid := blob["ref"].(map[string]any)["$link"].(string)
	write := func(rkey string) answerOf {
		return n.call("com.atproto.repo.putRecord", tok, map[string]any{"repo": did, "collection": "com.example.thing", "rkey": rkey, "record": map[string]any{"blob": blob, "at": fmt.Sprint(n.log.Head())}})
	}
	want(t, write("a"), 200, "")
	get := "com.atproto.sync.getBlob?did=" + did + "&cid=" + cid
	want(t, n.query(get, ""), 200, "")
	ref := map[string]any{"$type": "com.atproto.admin.defs#repoBlobRef", "did": did, "cid": cid}
	n.takedown(ref, true)
	for range 2 {
		want(t, n.query(get, ""), 400, "BlobNotFound")
		want(t, n.query(get, tok), 200, "")
		want(t, n.operator(http.MethodGet, get, nil), 200, "")
		if r := n.query("com.atproto.sync.listBlobs?did="+did, ""); strings.Contains(string(r.Body), cid) {
			t.Errorf("listBlobs: %s", r.Body)
		}
		want(t, upload(), 400, "InvalidRequest")
		want(t, write("b"), 400, "BlobNotFound")
		want(t, write("a"), 200, "") // where it was before, it may stay
		if st := n.ask("admin.getSubjectStatus?did=" + did + "&blob=" + cid); fmt.Sprint(st.JSON["takedown"]) != "map[applied:true ref:case 7]" {
			t.Errorf("status: %s", st.Body)
		}
		n.restart()
	}
	n.takedown(ref, false)
	want(t, n.query(get, ""), 200, "")
	want(t, write("b"), 200, "")
	want(t, n.ask("admin.getSubjectStatus?blob="+cid), 400, "InvalidRequest")
}

func TestAdminSigningKey(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did, tok := a.str("did"), a.str("accessJwt")
	other, err := keys.Generate(keys.K256, randomReader{n.Service})
	if err != nil {
		t.Fatal(err)
	}
	want(t, n.order("admin.updateAccountSigningKey", map[string]any{"did": did, "signingKey": other.Public().DIDKey()}), 400, "IncompatibleDidDoc")
	r := n.call("com.atproto.server.reserveSigningKey", "", map[string]any{"did": did})
	want(t, r, 200, "")
	n.plc.fail = 400
	want(t, n.order("admin.updateAccountSigningKey", map[string]any{"did": did, "signingKey": r.str("signingKey")}), 400, "InvalidRequest")
	n.plc.fail = 0
	before := n.log.Head()
	want(t, n.order("admin.updateAccountSigningKey", map[string]any{"did": did, "signingKey": r.str("signingKey")}), 200, "")
	want(t, n.order("admin.updateAccountSigningKey", map[string]any{"did": did, "signingKey": r.str("signingKey")}), 200, "")
	if n.log.Head() != before+2 {
		t.Errorf("%d events, want #identity and #sync", n.log.Head()-before)
	}
	n.restart()
	want(t, n.call("com.atproto.repo.createRecord", tok, map[string]any{"repo": did, "collection": "com.example.thing", "record": map[string]any{}}), 200, "")
	key, err := keys.ParseDIDKey(r.str("signingKey"))
	if err != nil {
		t.Fatal(err)
	}
	n.checkRepo(syntax.DID(did), key)
	if got := n.plc.state(t, syntax.DID(did)).SigningKey(); got != r.str("signingKey") {
		t.Errorf("identity has %s", got)
	}
	if st := n.query("com.atproto.server.checkAccountStatus", tok); st.JSON["validDid"] != true {
		t.Errorf("status: %s", st.Body)
	}
}

// A stolen header is no password.
func TestAdminHeader(t *testing.T) {
	n := newNetwork(t, Config{})
	for _, h := range []string{"Basic", "Basic x", "Basic " + base64.StdEncoding.EncodeToString([]byte("admin")), "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:")),
		"Basic " + base64.StdEncoding.EncodeToString([]byte(":operator")), "basic " + strings.Repeat("A", 20000), "Bearer operator"} {
		req, err := http.NewRequest(http.MethodGet, n.URL+"/xrpc/com.atproto.admin.searchAccounts", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", h)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 401 || !strings.HasPrefix(resp.Header.Get("Www-Authenticate"), "Basic") {
			t.Errorf("%.30q: %d %v", h, resp.StatusCode, resp.Header)
		}
	}
}
