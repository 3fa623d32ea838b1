package pds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// neighbour is another PDS on the same network.
func (n *network) neighbour(dir, public string, cfg Config) *network {
	n.t.Helper()
	o := &network{plc: n.plc, dns: n.dns, clock: n.clock, world: n.world}
	w := testWorld(9)
	w.FS, w.Clock, w.Dialer, w.Resolver = n.world.FS, n.world.Clock, n.world.Dialer, n.world.Resolver
	o.world = w
	cfg.Dir, cfg.PublicURL, cfg.PLCURL, cfg.AdminPassword, cfg.Accounts.PasswordMemory = dir, public, n.plc.URL, "operator", 64
	o.cfg = cfg
	o.testPDS = openPDS(n.t, w, cfg)
	n.t.Cleanup(func() { o.testPDS.stop() })
	return o
}

// move is an account on its way from one PDS to another, as a client sees it: it knows names and passwords, and nothing of how far it came.
type move struct {
	t          testing.TB
	from, to   *network
	mails      *mailer.Memory
	did        string
	handle     string
	password   string
	old, fresh string // access tokens
	cut        bool   // a server has died
	steps      []func()
}

const movedPassword = "another battery staple"

func newMove(from, to *network, mails *mailer.Memory, did string) *move {
	m := &move{t: from.t, from: from, to: to, mails: mails, did: did, handle: "alice.test", password: goodPassword}
	m.steps = []func(){m.create, m.repo, m.repo, m.blobs, m.preferences, m.identity, m.identity, m.activate, m.activate, m.deactivate, m.deactivate}
	return m
}

func (m *move) login() {
	m.t.Helper()
	in := map[string]any{"identifier": m.did, "password": m.password}
	a := m.from.call("com.atproto.server.createSession", "", in)
	want(m.t, a, 200, "")
	m.old = a.str("accessJwt")
	in["password"] = movedPassword
	if a = m.to.call("com.atproto.server.createSession", "", in); a.Status == 200 {
		m.fresh = a.str("accessJwt")
	}
}

func (m *move) create() {
	m.t.Helper()
	if m.fresh != "" {
		return // there is an account already that takes the password; once the identity has moved, the old host's word counts for nothing
	}
	aud := string(m.to.Service.cfg.DID)
	tok := m.from.query("com.atproto.server.getServiceAuth?aud="+url.QueryEscape(aud)+"&lxm=com.atproto.server.createAccount", m.old)
	want(m.t, tok, 200, "")
	in := map[string]any{"handle": m.handle, "email": "alice@example.com", "password": movedPassword, "did": m.did}
	head := m.to.log.Head()
	a := m.to.call("com.atproto.server.createAccount", tok.str("token"), in)
	want(m.t, a, 200, "")
	want(m.t, m.to.call("com.atproto.server.createAccount", tok.str("token"), in), 401, "BadJwt") // a token is good once
	if m.to.log.Head() != head {
		m.t.Error("the new host has told of an account that isn't there yet")
	}
}

func (m *move) repo() {
	m.t.Helper()
	car := m.from.query("com.atproto.sync.getRepo?did="+m.did, m.old)
	want(m.t, car, 200, "")
	want(m.t, m.to.do(http.MethodPost, "com.atproto.repo.importRepo", m.fresh, "application/vnd.ipld.car", bytes.NewReader(car.Body)), 200, "")
}

func (m *move) blobs() {
	m.t.Helper()
	for cursor := ""; ; {
		page := m.to.query("com.atproto.repo.listMissingBlobs?limit=1&cursor="+cursor, m.fresh)
		want(m.t, page, 200, "")
		for _, b := range page.JSON["blobs"].([]any) {
			c := b.(map[string]any)["cid"].(string)
			blob := m.from.query("com.atproto.sync.getBlob?did="+m.did+"&cid="+c, m.old)
			want(m.t, blob, 200, "")
			up := m.to.do(http.MethodPost, "com.atproto.repo.uploadBlob", m.fresh, blob.Header.Get("Content-Type"), bytes.NewReader(blob.Body))
			want(m.t, up, 200, "")
			if got := up.JSON["blob"].(map[string]any)["ref"].(map[string]any)["$link"]; got != c {
				m.t.Errorf("blob %s became %s", c, got)
			}
		}
		if cursor = page.str("cursor"); cursor == "" {
			return
		}
	}
}

func (m *move) preferences() {
	m.t.Helper()
	p := m.from.query("app.bsky.actor.getPreferences", m.old)
	want(m.t, p, 200, "")
	want(m.t, m.to.do(http.MethodPost, "app.bsky.actor.putPreferences", m.fresh, "application/json", bytes.NewReader(p.Body)), 200, "")
}

// identity asks for the token, signs and submits, unless the identity is as it should be.
func (m *move) identity() {
	m.t.Helper()
	st := m.to.query("com.atproto.server.checkAccountStatus", m.fresh)
	want(m.t, st, 200, "")
	if st.JSON["validDid"] == true {
		return
	}
	rec := m.to.query("com.atproto.identity.getRecommendedDidCredentials", m.fresh)
	want(m.t, rec, 200, "")
	want(m.t, m.to.call("com.atproto.server.activateAccount", m.fresh, nil), 400, "InvalidRequest") // the identity is the old host's
	want(m.t, m.from.call("com.atproto.identity.requestPlcOperationSignature", m.old, nil), 200, "")
	mails := m.mails.Mails()
	in := map[string]any{"token": mails[len(mails)-1].Code}
	for k, v := range rec.JSON {
		in[k] = v
	}
	signed := m.from.call("com.atproto.identity.signPlcOperation", m.old, in)
	want(m.t, signed, 200, "")
	// The new host refuses what would leave the account unable to live there.
	var bad map[string]any
	text, _ := json.Marshal(signed.JSON["operation"])
	_ = json.Unmarshal(text, &bad)
	bad["services"] = map[string]any{"atproto_pds": map[string]any{"type": "AtprotoPersonalDataServer", "endpoint": "https://elsewhere.example.com"}}
	want(m.t, m.to.call("com.atproto.identity.submitPlcOperation", m.fresh, map[string]any{"operation": bad}), 400, "InvalidRequest")
	want(m.t, m.to.call("com.atproto.identity.submitPlcOperation", m.fresh, map[string]any{"operation": signed.JSON["operation"]}), 200, "")
}

func (m *move) activate() {
	m.t.Helper()
	want(m.t, m.to.call("com.atproto.server.activateAccount", m.fresh, nil), 200, "")
}

func (m *move) deactivate() {
	m.t.Helper()
	in := map[string]any{"deleteAfter": datetime(m.from.world.Clock.Now().Add(30 * 24 * time.Hour))}
	want(m.t, m.from.call("com.atproto.server.deactivateAccount", m.old, in), 200, "")
}

// check makes sure that all of the account is at the new host, and that one host is active.
func (m *move) check(records, blobs int) {
	m.t.Helper()
	st := m.to.query("com.atproto.server.checkAccountStatus", m.fresh)
	want(m.t, st, 200, "")
	if st.JSON["activated"] != true || st.JSON["validDid"] != true || st.JSON["indexedRecords"] != float64(records) ||
		st.JSON["expectedBlobs"] != float64(blobs) || st.JSON["importedBlobs"] != float64(blobs) || st.JSON["privateStateValues"] != float64(1) {
		m.t.Errorf("status: %s", st.Body)
	}
	if got := m.from.statusOf(m.did); got != "deactivated" {
		m.t.Errorf("the old host says %q", got)
	}
	if got := m.to.statusOf(m.did); got != "" {
		m.t.Errorf("the new host says %q", got)
	}
	key, err := keys.ParseDIDKey(m.to.plc.state(m.t, syntax.DID(m.did)).SigningKey())
	if err != nil {
		m.t.Fatal(err)
	}
	now, commit := m.to.checkRepo(syntax.DID(m.did), key)
	if len(now) != records {
		m.t.Errorf("%d records, want %d", len(now), records)
	}
	m.to.checkStore(syntax.DID(m.did))
	was := m.from.query("com.atproto.sync.getRepo?did="+m.did, m.old)
	want(m.t, was, 200, "")
	oldKey, err := keys.ParseDIDKey(m.oldKey())
	if err != nil {
		m.t.Fatal(err)
	}
	before, oldCommit := readRepo(m.t, was.Body, oldKey)
	for path, c := range before {
		if now[path] != c {
			m.t.Errorf("record %s is %s, was %s", path, now[path], c)
		}
	}
	if commit.Rev <= oldCommit.Rev {
		m.t.Errorf("revision %s does not follow %s", commit.Rev, oldCommit.Rev)
	}
	// What the new host has said, in this order, once each: who, that it is active, and what the repository is.
	var said []string
	for _, f := range m.to.frames() {
		if f.Subject() != m.did {
			continue
		}
		switch e := f.(type) {
		case *stream.Identity:
			said = append(said, "identity")
		case *stream.Account:
			said = append(said, fmt.Sprint("account ", e.Active))
		case *stream.Sync:
			said = append(said, "sync")
			if e.Rev != string(commit.Rev) {
				m.t.Errorf("#sync of %s, the repository is at %s", e.Rev, commit.Rev)
			}
		case *stream.Commit:
			said = append(said, "commit")
		}
	}
	// Of a change of the identity that was cut off the second telling may have been enough, or a third one was needed.
	if got := strings.Join(said, ", "); got != "identity, identity, account true, sync" && (!m.cut || strings.TrimLeft(got, "identy, ") != "account true, sync") {
		m.t.Errorf("events: %s", got)
	}
	// It writes there, and no longer here.
	in := map[string]any{"repo": m.did, "collection": "com.example.thing", "record": map[string]any{"after": "the move"}}
	want(m.t, m.to.call("com.atproto.repo.createRecord", m.fresh, in), 200, "")
	want(m.t, m.from.call("com.atproto.repo.createRecord", m.old, in), 401, "AccountDeactivated")
	if s := m.to.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": movedPassword}); s.JSON["active"] != true {
		m.t.Errorf("session: %s", s.Body)
	}
}

func (m *move) oldKey() string {
	a, err := m.from.Service.account(syntax.DID(m.did))
	if err != nil {
		m.t.Fatal(err)
	}
	return a.PublicKey
}

// furnish gives an account records, blobs and preferences.
func furnish(n *network, did, tok string, count int) (records, blobs int) {
	n.t.Helper()
	for i := range count {
		rec := map[string]any{"n": i}
		if i%(count/3) == 0 {
			up := n.do(http.MethodPost, "com.atproto.repo.uploadBlob", tok, "text/plain", strings.NewReader(fmt.Sprint("blob ", i)))
			want(n.t, up, 200, "")
			rec["blob"] = up.JSON["blob"]
			blobs++
		}
		want(n.t, n.call("com.atproto.repo.createRecord", tok, map[string]any{"repo": did, "collection": "com.example.thing", "record": rec}), 200, "")
		records++
	}
	prefs := []any{map[string]any{"$type": "app.bsky.actor.defs#adultContentPref", "enabled": true}}
	want(n.t, n.call("app.bsky.actor.putPreferences", tok, map[string]any{"preferences": prefs}), 200, "")
	return records, blobs
}

// TestMigration moves an account from one server to another with nothing but methods, once in one go, and once with both servers ending
// between any two steps, steps that come twice, and the client forgetting everything but its passwords.
func TestMigration(t *testing.T) {
	for _, rough := range []bool{false, true} {
		t.Run(fmt.Sprintf("rough=%v", rough), func(t *testing.T) {
			mails := &mailer.Memory{}
			from := newNetwork(t, Config{Mail: mails})
			to := from.neighbour("other", "http://localhost:2584", Config{InviteRequired: false})
			a := from.signedUp("alice")
			records, blobs := furnish(from, a.str("did"), a.str("accessJwt"), 120)
			m := newMove(from, to, mails, a.str("did"))
			m.login()
			for i, step := range m.steps {
				step()
				if rough {
					from.restart()
					to.restart()
					from.clock.Advance(time.Duration(i) * time.Second)
				}
				if rough || i == 0 {
					m.login()
				}
			}
			m.check(records, blobs)

			// And back again, to where its old data are, before they are deleted. What was written meanwhile comes along.
			back := newMove(to, from, mails, m.did)
			back.t = t
			from.takeOverMail(to, mails)
			want(t, from.order("admin.deleteAccount", map[string]any{"did": m.did}), 200, "")
			back.password = movedPassword
			from.clock.Advance(time.Minute) // documents are not asked for again at once
			back.login()
			for i, step := range back.steps {
				step()
				if i == 0 {
					back.login()
				}
			}
			if got := to.statusOf(m.did); got != "deactivated" {
				t.Errorf("the host that was left says %q", got)
			}
			st := from.query("com.atproto.server.checkAccountStatus", back.fresh)
			if st.JSON["activated"] != true || st.JSON["validDid"] != true || st.JSON["indexedRecords"] != float64(records+1) || st.JSON["importedBlobs"] != float64(blobs) {
				t.Errorf("status: %s", st.Body)
			}
		})
	}
}

// takeOverMail makes the mails of another server come here as well.
func (n *network) takeOverMail(o *network, mails *mailer.Memory) {
	o.cfg.Mail = mails
	o.restart()
}
