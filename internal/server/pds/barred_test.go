package pds

import (
	"fmt"
	"strings"
	"testing"

	"github.com/barograph/baro/internal/kv"
)

// deleted lets the owner of a taken-down account delete it, with a mailed code.
func (n *mailNetwork) deletedByOwner(did, handle, email string) {
	n.t.Helper()
	in := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": handle, "password": goodPassword, "allowTakendown": true})
	want(n.t, in, 200, "")
	want(n.t, n.call("com.atproto.server.requestAccountDelete", in.str("accessJwt"), nil), 200, "")
	want(n.t, n.call("com.atproto.server.deleteAccount", "", map[string]any{"did": did, "password": goodPassword, "token": n.code(tokenDelete, email)}), 200, "")
}

// Deleting an account doesn't undo its takedown.
func TestDeletedTakedownHolds(t *testing.T) {
	n := newMailNetwork(t, Config{})
	f := n.foreign("carol.example.com")
	move := func() answerOf {
		return n.call("com.atproto.server.createAccount", f.token(n.network, nil),
			map[string]any{"handle": "carol.example.com", "did": f.did, "email": "Carol@example.com", "password": goodPassword})
	}
	carol := move()
	want(t, carol, 200, "")
	alice := n.signedUp("alice")
	bob := n.signedUp("bob")
	did := alice.str("did")
	n.takedown(repoRef(did), true)
	n.takedown(repoRef(string(f.did)), true)
	n.deletedByOwner(did, "alice.test", "alice@example.com")
	want(t, n.order("admin.deleteAccount", map[string]any{"did": f.did}), 200, "")

	held := func() {
		t.Helper()
		in := signUpInput("alice")
		in["email"] = "new@example.com"
		want(t, n.call("com.atproto.server.createAccount", "", in), 400, "HandleNotAvailable")
		in = signUpInput("alicia")
		in["email"] = "ALICE@example.com"
		want(t, n.call("com.atproto.server.createAccount", "", in), 400, "InvalidRequest")
		want(t, n.call("com.atproto.server.updateEmail", bob.str("accessJwt"), map[string]any{"email": "alice@example.com"}), 400, "InvalidRequest")
		want(t, n.call("com.atproto.identity.updateHandle", bob.str("accessJwt"), map[string]any{"handle": "alice.test"}), 400, "HandleNotAvailable")
		want(t, move(), 400, "AccountTakedown")
		st := n.ask("admin.getSubjectStatus?did=" + did)
		if want(t, st, 200, ""); fmt.Sprint(st.JSON["takedown"]) != "map[applied:true ref:case 7]" {
			t.Errorf("status: %s", st.Body)
		}
	}
	held()
	n.restart()
	held()
	if st := n.query("com.atproto.sync.getRepoStatus?did="+did, ""); st.str("status") != "deleted" {
		t.Errorf("repo status: %s", st.Body)
	}
	it := n.store.Iter([]byte("a/"), []byte("a0"))
	for ok := it.First(); ok; ok = it.Next() { // the address itself is nobody's business any more
		if strings.Contains(strings.ToLower(string(it.Key())+string(it.Value())), "alice@example.com") {
			t.Errorf("row %q still has the address", it.Key())
		}
	}
	it.Close()
	// The operator ends it.
	n.takedown(repoRef(did), false)
	n.takedown(repoRef(did), false)
	n.takedown(repoRef(string(f.did)), false)
	want(t, n.ask("admin.getSubjectStatus?did="+did), 400, "AccountNotFound")
	n.signedUp("alice")
	want(t, move(), 200, "")
	if left := n.rows(rowBarred) + n.rows(rowBarredHandle) + n.rows(rowBarredEmail); left != 0 {
		t.Errorf("%d rows are left", left)
	}

	// An account that its owner deleted in time can be taken down still, but none that was never here.
	want(t, n.order("admin.deleteAccount", map[string]any{"did": f.did}), 200, "")
	n.takedown(repoRef(string(f.did)), true)
	want(t, move(), 400, "AccountTakedown")
	want(t, n.order("admin.updateSubjectStatus", map[string]any{"subject": repoRef(string(f.did)), "deactivated": map[string]any{"applied": true}}), 400, "AccountNotFound")
	want(t, n.order("admin.updateSubjectStatus", map[string]any{"subject": repoRef("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), "takedown": map[string]any{"applied": true}}), 400, "AccountNotFound")
	// What is deleted without a takedown is free again.
	want(t, n.order("admin.deleteAccount", map[string]any{"did": bob.str("did")}), 200, "")
	n.signedUp("bob")
}

func (n *network) rows(prefix string) (count int) {
	it := n.store.Iter([]byte(prefix), kv.PrefixEnd([]byte(prefix)))
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		count++
	}
	return count
}

// A record and a blob that are taken down stay so when their account is deleted and comes back.
func TestDeletedSubjectsStayDown(t *testing.T) {
	n := newNetwork(t, Config{})
	f := n.foreign("carol.example.com")
	move := func() *testAccount {
		t.Helper()
		a := n.call("com.atproto.server.createAccount", f.token(n, nil), map[string]any{"handle": "carol.example.com", "did": f.did, "password": goodPassword})
		want(t, a, 200, "")
		return &testAccount{p: n.testPDS, did: f.did, token: a.str("accessJwt")}
	}
	a := move()
	if err := n.submitAccountEvents(t.Context(), a.did, accountChange{Account: true}); err != nil {
		t.Fatal(err)
	}
	w := a.create("com.example.thing", "a", map[string]any{})
	want(t, w, 200, "")
	record := map[string]any{"$type": "com.atproto.repo.strongRef", "uri": w.str("uri"), "cid": w.str("cid")}
	n.takedown(record, true)
	want(t, n.order("admin.deleteAccount", map[string]any{"did": f.did}), 200, "")
	n.restart()
	a = move()
	if err := n.submitAccountEvents(t.Context(), a.did, accountChange{Account: true}); err != nil {
		t.Fatal(err)
	}
	want(t, a.create("com.example.thing", "a", map[string]any{}), 200, "")
	read := "com.atproto.repo.getRecord?repo=" + string(f.did) + "&collection=com.example.thing&rkey=a"
	want(t, n.query(read, ""), 400, "RecordNotFound")
	// It can be ended while the account is away as well.
	want(t, n.order("admin.deleteAccount", map[string]any{"did": f.did}), 200, "")
	if st := n.ask("admin.getSubjectStatus?uri=" + w.str("uri")); st.Status != 200 || fmt.Sprint(st.JSON["takedown"]) != "map[applied:true ref:case 7]" {
		t.Errorf("status: %s", st.Body)
	}
	n.takedown(record, false)
	want(t, n.order("admin.updateSubjectStatus", map[string]any{"subject": record, "takedown": map[string]any{"applied": true}}), 400, "AccountNotFound")
	if n.taken.any(f.did) || n.rows(rowTakedown) != 0 {
		t.Error("the takedown is left")
	}
}

// Codes of accounts that are taken down or deleted let nobody in.
func TestInvitesOfGoneAccounts(t *testing.T) {
	n := newNetwork(t, Config{InviteRequired: true})
	code := func(owner string) string {
		t.Helper()
		in := map[string]any{"useCount": 10}
		if owner != "" {
			in["forAccount"] = owner
		}
		a := n.order("server.createInviteCode", in)
		want(t, a, 200, "")
		return a.str("code")
	}
	join := func(name, code string) answerOf {
		in := signUpInput(name)
		in["inviteCode"] = code
		return n.call("com.atproto.server.createAccount", "", in)
	}
	first := code("")
	alice := join("alice", first)
	want(t, alice, 200, "")
	did := alice.str("did")
	hers, later := code(did), code("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa") // of one who may come yet
	want(t, join("anna", hers), 200, "")
	want(t, join("berta", later), 200, "")
	disabled := func() any {
		t.Helper()
		r := n.ask("admin.getInviteCodes")
		want(t, r, 200, "")
		for _, c := range r.JSON["codes"].([]any) {
			if c := c.(map[string]any); c["code"] == hers {
				return c["disabled"]
			}
		}
		return nil
	}
	n.takedown(repoRef(did), true)
	want(t, join("clara", hers), 400, "InvalidInviteCode")
	want(t, n.order("server.createInviteCode", map[string]any{"useCount": 1, "forAccount": did}), 400, "InvalidRequest")
	if disabled() != true {
		t.Errorf("shown as disabled: %v", disabled())
	}
	n.takedown(repoRef(did), false)
	want(t, join("clara", hers), 200, "")
	if disabled() != false {
		t.Errorf("shown as disabled: %v", disabled())
	}
	want(t, n.order("admin.deleteAccount", map[string]any{"did": did}), 200, "")
	n.restart()
	want(t, join("dora", hers), 400, "InvalidInviteCode")
	if disabled() != true {
		t.Errorf("shown as disabled: %v", disabled())
	}
	want(t, n.order("server.createInviteCode", map[string]any{"useCount": 1, "forAccount": did}), 400, "InvalidRequest")
	want(t, join("dora", first), 200, "")
	if i, err := n.loadInvite(hers); err != nil || !i.Disabled { // and the account's return doesn't change that
		t.Errorf("%+v, %v", i, err)
	}
}
