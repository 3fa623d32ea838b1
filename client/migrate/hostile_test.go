package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// reply puts another body in the place of an answer's.
func reply(resp *http.Response, status int, body []byte) *http.Response {
	resp.Body.Close()
	resp.StatusCode, resp.Status = status, http.StatusText(status)
	resp.ContentLength = int64(len(body))
	resp.Header.Set("Content-Length", fmt.Sprint(len(body)))
	resp.Header.Del("Content-Encoding")
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp
}

// answering has a host answer a method otherwise: edit gets the body and returns another one.
func answering(host, method string, edit func([]byte) []byte) func(*http.Request, *http.Response) *http.Response {
	return func(r *http.Request, resp *http.Response) *http.Response {
		if "http://"+r.URL.Host != host || !strings.HasSuffix(r.URL.Path, method) || resp.StatusCode/100 != 2 {
			return resp
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			panic(err)
		}
		return reply(resp, resp.StatusCode, edit(b))
	}
}

func (m *mover) log() []plc.Entry {
	m.t.Helper()
	log, err := (&plcdir.Client{URL: m.h.plc, HTTP: m.h.http}).Log(context.Background(), m.did)
	if err != nil {
		m.t.Fatal(err)
	}
	return log
}

// stayed checks that nothing has happened to the account that its owner would not want undone: the identity is as it was, and the old
// account active.
func (m *mover) stayed() {
	m.t.Helper()
	if n := len(m.log()); n != 1 {
		m.t.Errorf("the log has %d entries", n)
	}
	st, err := comatproto.SyncGetRepoStatus.Call(context.Background(), &xrpc.Client{Host: m.h.old, HTTP: m.h.http}, &comatproto.SyncGetRepoStatus_Params{Did: string(m.did)})
	if err != nil || !st.Active {
		m.t.Errorf("the old account: %+v, %v", st, err)
	}
}

// swap replaces text in JSON.
func swap(old, with string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(with)) }
}

// field sets a field of a JSON object.
func field(name string, value any) func([]byte) []byte {
	return func(b []byte) []byte {
		var v map[string]any
		if err := json.Unmarshal(b, &v); err != nil {
			panic(err)
		}
		v[name] = value
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return b
	}
}

// TestHostileHosts has one of the hosts lie, once for each lie. The move stops before the identity is touched, says what is wrong, and can
// be completed when the host tells the truth again.
func TestHostileHosts(t *testing.T) {
	h := newHosts(t)
	other := h.account(t, 3, 0)
	otherCAR := func() []byte {
		s, err := client.New(h.old, client.Options{HTTP: h.http}).RepoCAR(context.Background(), other.did, "")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Body.Close()
		b, err := io.ReadAll(s.Body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}()
	evil, err := keys.Generate(keys.K256, mrand.NewChaCha8([32]byte{9}))
	if err != nil {
		t.Fatal(err)
	}
	evilKey := evil.Public().DIDKey()
	const getRepo, getBlob = "com.atproto.sync.getRepo", "com.atproto.sync.getBlob"
	recommended := "com.atproto.identity.getRecommendedDidCredentials"
	// What the old host signs instead: an operation of its own liking.
	signs := func(edit func(*plc.Data)) func([]byte) []byte {
		return func(b []byte) []byte {
			var v struct{ Operation *plc.Operation }
			if err := json.Unmarshal(b, &v); err != nil {
				panic(err)
			}
			edit(&v.Operation.Data)
			return fmt.Appendf(nil, `{"operation":%s}`, v.Operation.AppendJSON(nil))
		}
	}
	for name, c := range map[string]struct {
		host   string
		method string
		edit   func([]byte) []byte
		want   func(error) bool
	}{
		"the repository is another account's": {h.old, getRepo, func([]byte) []byte { return otherCAR }, isVerify},
		"the repository is cut off":           {h.old, getRepo, func(b []byte) []byte { return b[:len(b)*2/3] }, isVerify},
		"the repository is cut at a block":    {h.old, getRepo, func(b []byte) []byte { return b[:blockEnd(b, 3)] }, isVerify},
		"the repository is empty":             {h.old, getRepo, func([]byte) []byte { return nil }, anError},
		"a byte of the repository is another": {h.old, getRepo, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, isVerify},
		"a blob is another one":               {h.old, getBlob, func(b []byte) []byte { return append(b, '!') }, isMissing},
		"a blob is empty":                     {h.old, getBlob, func([]byte) []byte { return nil }, isMissing},
		"the new host has fewer records":      {h.new, "checkAccountStatus", field("indexedRecords", 1), anError},
		"the new host has another repository": {h.new, getRepo, func([]byte) []byte { return otherCAR }, isVerify},
		"the new host says it misses nothing": {h.new, "listMissingBlobs", func([]byte) []byte { return []byte(`{"blobs":[]}`) }, anError},
		"the new host misses strange blobs": {h.new, "listMissingBlobs", func([]byte) []byte {
			return fmt.Appendf(nil, `{"blobs":[{"cid":%q,"recordUri":"at://did:plc:x/a.b.c/d"}]}`, cid.Sum(cid.Raw, []byte("x")))
		}, anError},
		"the new host recommends another PDS":   {h.new, recommended, swap(h.new, "https://evil.example"), anError},
		"the new host recommends another name":  {h.new, recommended, swap(".new.test", ".evil.test"), anError},
		"the new host recommends no key":        {h.new, recommended, field("verificationMethods", map[string]string{}), anError},
		"the old host adds a rotation key":      {h.old, "signPlcOperation", signs(func(d *plc.Data) { d.RotationKeys = append(d.RotationKeys, evilKey) }), isRehearsal},
		"the old host leaves its PDS in place":  {h.old, "signPlcOperation", signs(func(d *plc.Data) { d.SetPDS(h.old) }), isRehearsal},
		"the old host adds a service":           {h.old, "signPlcOperation", signs(func(d *plc.Data) { d.Services["x"] = plc.Service{Type: "X", Endpoint: "https://evil.example"} }), isRehearsal},
		"the old host changes the name":         {h.old, "signPlcOperation", signs(func(d *plc.Data) { d.SetHandle("evil.test") }), isRehearsal},
		"the old host does not sign":            {h.old, "signPlcOperation", func(b []byte) []byte { return swap(`"sig":"`, `"sig":"A`)(b) }, isPLC},
		"the old host signs a tombstone":        {h.old, "signPlcOperation", func([]byte) []byte { return tombstone(evil) }, isRehearsal},
		"the old host signs nothing":            {h.old, "signPlcOperation", func([]byte) []byte { return []byte(`{"operation":{}}`) }, isRehearsal},
		"the new host is of another DID":        {h.new, "describeServer", field("did", "did:web:evil.example"), anError},
		"the new host made another account":     {h.new, "createAccount", field("did", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), anError},
		"the directory tells of another log":    {h.plc, "/log/audit", swap("nullified\":false", "nullified\":true"), anError},
		"the old host's session is another one": {h.old, "getServiceAuth", field("token", "e30.e30.AAAA"), anError},
	} {
		t.Run(name, func(t *testing.T) {
			m := h.account(t, 4, 2)
			m.t = t
			var lied atomic.Int64
			edit := answering(c.host, c.method, c.edit)
			m.wire.answer = func(r *http.Request, resp *http.Response) *http.Response {
				if "http://"+r.URL.Host == c.host && strings.HasSuffix(r.URL.Path, c.method) {
					lied.Add(1)
				}
				return edit(r, resp)
			}
			err := m.run()
			if lied.Load() == 0 {
				t.Fatal("the host was not asked")
			}
			if err == nil || !c.want(err) {
				t.Errorf("the error is %v", err)
			}
			if len(fmt.Sprint(err)) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			m.stayed()
			m.wire.answer = nil
			if err := m.run(); err != nil {
				t.Fatalf("after the truth was told: %v", err)
			}
			m.arrived()
		})
	}
}

func anError(error) bool { return true }

func as[T error](err error) bool { _, ok := errors.AsType[T](err); return ok }

func isVerify(err error) bool    { return as[*repo.VerifyError](err) || as[*VerifyError](err) }
func isMissing(err error) bool   { return as[*MissingBlobsError](err) }
func isRehearsal(err error) bool { return as[*RehearsalError](err) }
func isPLC(err error) bool       { return as[*plc.Error](err) || isRehearsal(err) }

func tombstone(key *keys.PrivateKey) []byte {
	op := plc.NewTombstone(cid.Sum(cid.DagCBOR, []byte("x")))
	if err := op.Sign(key); err != nil {
		panic(err)
	}
	return fmt.Appendf(nil, `{"operation":%s}`, op.AppendJSON(nil))
}

// blockEnd is where the n-th section of a CAR file ends.
func blockEnd(b []byte, n int) int {
	at := 0
	for range n {
		size, shift := 0, 0
		for {
			c := b[at]
			at++
			size |= int(c&0x7f) << shift
			if shift += 7; c < 0x80 {
				break
			}
		}
		at += size
	}
	return at
}

// TestMissingBlobs goes on without blobs that can't be had, if that is wanted.
func TestMissingBlobs(t *testing.T) {
	m := newHosts(t).account(t, 4, 2)
	m.wire.answer = func(r *http.Request, resp *http.Response) *http.Response {
		if "http://"+r.URL.Host == m.h.old && strings.HasSuffix(r.URL.Path, "getBlob") {
			return reply(resp, 404, []byte(`{"error":"BlobNotFound","message":"gone`+strings.Repeat("!", 50<<10)+`"}`))
		}
		return resp
	}
	err := m.run()
	lost, ok := errors.AsType[*MissingBlobsError](err)
	if !ok || len(lost.Lost) != 2 || !strings.Contains(lost.Error(), "gone") || len(lost.Error()) > 2*maxReason {
		t.Fatal(err)
	}
	m.stayed()
	m.edit = func(p *Plan) { p.AllowMissingBlobs = true }
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	j := m.open()
	defer j.Close()
	if f := j.Facts(); len(f.Lost) != 2 || len(f.Warnings) == 0 {
		t.Errorf("the evidence: %+v", f)
	}
}

// TestSessionEnds has the old host end the session in the middle. That is no answer to what was asked: no blob is lost by it, no
// preferences are left behind, no rotation key of the host stays, and no other code is asked for.
func TestSessionEnds(t *testing.T) {
	h := newHosts(t)
	for _, x := range []struct {
		method string
		call   int64 // the one that is refused, from 1
	}{
		{"sync.getBlob", 1}, {"actor.getPreferences", 1}, {"identity.signPlcOperation", 1},
		{"identity.getRecommendedDidCredentials", 2}, {"sync.getRepo", 1}, {"server.getServiceAuth", 1},
	} {
		t.Run(x.method, func(t *testing.T) {
			m := h.account(t, 4, 2)
			m.t = t
			var calls atomic.Int64
			m.edit = func(p *Plan) { p.AllowMissingBlobs = true }
			m.wire.answer = func(r *http.Request, resp *http.Response) *http.Response {
				if "http://"+r.URL.Host != h.old {
					return resp
				}
				if strings.HasSuffix(r.URL.Path, x.method) {
					calls.Add(1)
				}
				if calls.Load() >= x.call && r.Header.Get("Authorization") != "" {
					return reply(resp, 400, []byte(`{"error":"ExpiredToken","message":"over"}`))
				}
				return resp
			}
			err := m.run()
			if need, ok := errors.AsType[*NeedError](err); !ok || need.What != NeedLogin || !errors.Is(err, auth.ErrLoginRequired) {
				t.Fatalf("the error is %v", err)
			}
			m.stayed()
			m.wire.answer = nil
			if _, err := auth.New(auth.Options{HTTP: h.http, Store: m.store}).Login(context.Background(), h.old, auth.Credentials{Identifier: string(m.did), Password: oldPassword, DID: m.did}); err != nil {
				t.Fatal(err)
			}
			if err := m.run(); err != nil {
				t.Fatalf("after another login: %v", err)
			}
			m.arrived()
			j := m.open()
			defer j.Close()
			if f := j.Facts(); len(f.Lost) > 0 || f.Preferences != "copied" {
				t.Errorf("lost: %v, preferences: %s", f.Lost, f.Preferences)
			}
		})
	}
}

// TestWrittenMeanwhile writes to the account while it is moved: what is written before the identity changes comes along.
func TestWrittenMeanwhile(t *testing.T) {
	m := newHosts(t).account(t, 2, 1)
	ctx := context.Background()
	write := func() {
		c := client.ForAccount(m.oldAccount(), client.Options{})
		p := &appbsky.FeedPost{Text: "one more", CreatedAt: "2026-01-01T00:00:00Z"}
		if m.blobs < 3 {
			p.Embed = *m.picture(c, 100+m.blobs)
			m.blobs++
		}
		if _, err := client.Create(ctx, c, p, client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		m.records++
	}
	written := 0
	run := func(j *Job) {
		j.o.observe = func(s Step) {
			if (s == StepSign || s == StepIdentity || s == StepPreferences) && written < 3 {
				written++
				write()
			}
		}
	}
	for range 6 {
		j := m.open()
		run(j)
		if err := j.Start(m.plan()); err != nil {
			t.Fatal(err)
		}
		err := j.Run(ctx, Input{Old: m.oldAccount(), Password: m.password, Token: m.token})
		j.Close()
		if need, ok := errors.AsType[*NeedError](err); ok && need.What == NeedToken {
			m.token = m.h.mail.of(m.did)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if written != 3 {
		t.Fatalf("written were %d", written)
	}
	m.arrived()
	if n := m.h.mail.sent[string(m.did)]; n != 1 {
		t.Errorf("%d codes were mailed", n)
	}
}

// TestBusyAccount gives up on an account that never rests.
func TestBusyAccount(t *testing.T) {
	m := newHosts(t).account(t, 2, 0)
	ctx := context.Background()
	j := m.open()
	defer j.Close()
	j.o.observe = func(s Step) {
		if s == StepSign {
			if _, err := client.Create(ctx, client.ForAccount(m.oldAccount(), client.Options{}), &appbsky.FeedPost{Text: "x", CreatedAt: "2026-01-01T00:00:00Z"}, client.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			m.records++
		}
	}
	if err := j.Start(m.plan()); err != nil {
		t.Fatal(err)
	}
	if err := j.Run(ctx, Input{Old: m.oldAccount(), Password: m.password}); !errors.Is(err, ErrBusyAccount) {
		t.Fatal(err)
	}
	m.stayed()
	j.Close()
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	m.arrived()
}

// TestOwnKey moves an account whose owner holds a rotation key: no code is mailed, and the key stays the strongest.
func TestOwnKey(t *testing.T) {
	h := newHosts(t)
	own, err := keys.Generate(keys.P256, mrand.NewChaCha8([32]byte{5}))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := keys.Generate(keys.P256, mrand.NewChaCha8([32]byte{6}))
	if err != nil {
		t.Fatal(err)
	}
	ownKey := own.Public().DIDKey()

	// First a move through the old host, which adds the key.
	m := h.account(t, 3, 1)
	m.edit = func(p *Plan) { p.RotationKey = ownKey }
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	m.arrived()
	log := m.log()
	if k := log[1].Operation.Data.RotationKeys; len(k) != 2 || k[0] != ownKey {
		t.Fatalf("the rotation keys are %v", k)
	}
	hosts := log[1].Operation.Data.RotationKeys[1]

	// Then back, signed with it. The folder is a new one.
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	m.dir = root
	m.password = oldPassword // the account is still there
	m.edit = func(p *Plan) { p.From, p.To, p.Handle = h.new, h.old, syntax.Handle(m.name+".old.test") }
	m.in.SigningKey = stranger
	if problems, ok := errors.AsType[*ProblemsError](m.run()); !ok || !strings.Contains(problems.Error(), "no rotation key") {
		t.Fatalf("with a stranger's key: %v", problems)
	}
	m.in.SigningKey = own
	m.wire.answer = answering(h.new, "getRecommendedDidCredentials", field("rotationKeys", []string{ownKey, hosts})) // which has it dropped
	mailed := h.mail.sent[string(m.did)]
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	log = m.log()
	k := log[len(log)-1].Operation.Data.RotationKeys
	if len(log) != 3 || len(k) != 2 || k[0] != ownKey || slices.Contains(k, hosts) || k[1] != log[0].Operation.Data.RotationKeys[0] {
		t.Errorf("%d operations, rotation keys %v", len(log), k)
	}
	if n := h.mail.sent[string(m.did)]; n != mailed {
		t.Errorf("%d codes were mailed", n-mailed)
	}

	// And away once more, dropping the key.
	m.wire.answer = nil
	root2, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root2.Close()
	m.dir, m.password = root2, newPassword
	m.edit = func(p *Plan) { p.DropKeys = []string{ownKey} }
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	log = m.log()
	if k := log[len(log)-1].Operation.Data.RotationKeys; len(k) != 1 || k[0] != hosts {
		t.Errorf("rotation keys %v", k)
	}
}

// TestChangedByAnother changes the identity after the operation was signed: another one is made.
func TestChangedByAnother(t *testing.T) {
	m := newHosts(t).account(t, 2, 0)
	ctx := context.Background()
	changed := false
	for range 6 {
		j := m.open()
		j.o.observe = func(s Step) {
			if s == StepIdentity && !changed {
				changed = true
				if _, err := comatproto.IdentityUpdateHandle.Call(ctx, m.oldAccount().Client(), &comatproto.IdentityUpdateHandle_Input{Handle: "between.old.test"}); err != nil {
					t.Fatal(err)
				}
				m.token = ""
			}
		}
		if err := j.Start(m.plan()); err != nil {
			t.Fatal(err)
		}
		err := j.Run(ctx, Input{Old: m.oldAccount(), Password: m.password, Token: m.token})
		j.Close()
		if err == nil {
			break
		}
		need, ok := errors.AsType[*NeedError](err)
		if !ok || need.What != NeedToken {
			t.Fatal(err)
		}
		m.token = m.h.mail.of(m.did)
	}
	log := m.log()
	if len(log) != 3 || log[2].Operation.Data.PDS() != m.h.new || log[2].Operation.Data.Handle() != m.plan().Handle {
		t.Errorf("%d operations", len(log))
	}
}

// TestWeb moves an account of a did:web, whose document its owner publishes.
func TestWeb(t *testing.T) {
	h := newHosts(t)
	ctx := context.Background()
	var mu sync.Mutex
	var document []byte
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != "/.well-known/did.json" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(document)
	}))
	defer web.Close()
	port := web.Listener.Addr().(*net.TCPAddr).Port
	if err := h.guard.Allow(fmt.Sprintf("localhost:%d", port)); err != nil {
		t.Fatal(err)
	}
	did := syntax.DID(fmt.Sprintf("did:web:localhost%%3A%d", port))
	key, err := keys.Generate(keys.K256, mrand.NewChaCha8([32]byte{8}))
	if err != nil {
		t.Fatal(err)
	}
	publish := func(b []byte) { mu.Lock(); defer mu.Unlock(); document = b }
	first := plc.AtprotoData(key.Public().DIDKey(), "weber.old.test", h.old)
	publish(first.AppendDocument(nil, did))

	// The account comes to be at the old host, as one that moved there from nowhere.
	m := &mover{h: h, t: t, name: "weber", did: did, store: auth.NewMemoryStore(), password: newPassword, wire: &wire{next: h.http.Transport}}
	m.http = &http.Client{Transport: m.wire}
	if m.dir, err = os.OpenRoot(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer m.dir.Close()
	d, err := comatproto.ServerDescribeServer.Call(ctx, &xrpc.Client{Host: h.old, HTTP: h.http}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token := &auth.ServiceToken{Issuer: did, Audience: d.Did, Method: "com.atproto.server.createAccount", Issued: time.Now(), Expires: time.Now().Add(time.Minute), ID: "1"}
	text, err := token.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := comatproto.ServerCreateAccount.Call(ctx, &xrpc.Client{Host: h.old, HTTP: h.http, Auth: xrpc.Bearer(text)},
		&comatproto.ServerCreateAccount_Input{Handle: "weber.old.test", Did: new(string(did)), Password: new(oldPassword)})
	if err != nil {
		t.Fatal(err)
	}
	a, err := auth.New(auth.Options{HTTP: h.http, Store: m.store}).Import(ctx, auth.Session{DID: did, Handle: "weber.old.test", PDS: h.old, Access: out.AccessJwt, Refresh: out.RefreshJwt})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := comatproto.IdentityGetRecommendedDidCredentials.Call(ctx, a.Client(), nil)
	if err != nil {
		t.Fatal(err)
	}
	state, err := Credentials(rec)
	if err != nil {
		t.Fatal(err)
	}
	publish(state.AppendDocument(nil, did))
	if _, err := comatproto.ServerActivateAccount.Call(ctx, a.Client(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(ctx, client.ForAccount(a, client.Options{}), &appbsky.FeedPost{Text: "x", CreatedAt: "2026-01-01T00:00:00Z"}, client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}

	for range 2 { // it waits, as often as it is asked
		err = m.run()
		need, ok := errors.AsType[*NeedError](err)
		if !ok || need.What != NeedDocument || !json.Valid(need.Document) || need.Because == nil {
			t.Fatalf("%v", err)
		}
	}
	need, _ := errors.AsType[*NeedError](err)
	publish(need.Document)
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	for host, active := range map[string]bool{h.old: false, h.new: true} {
		st, err := comatproto.SyncGetRepoStatus.Call(ctx, &xrpc.Client{Host: host, HTTP: h.http}, &comatproto.SyncGetRepoStatus_Params{Did: string(did)})
		if err != nil || st.Active != active {
			t.Errorf("%s: %+v, %v", host, st, err)
		}
	}
}

// TestCheck is a dry run: everything is told, and nothing changes.
func TestCheck(t *testing.T) {
	h := newHosts(t)
	m := h.account(t, 3, 2)
	ctx := context.Background()
	check := func(edit func(*Plan), in Input) string {
		t.Helper()
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		m.dir, m.edit = root, edit
		j := m.open()
		defer j.Close()
		if err := j.Start(m.plan()); err != nil {
			t.Fatal(err)
		}
		before := m.wire.count()
		found, err := j.Check(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range m.wire.seen[before:] {
			if strings.HasPrefix(s, "POST") {
				t.Errorf("a dry run has sent %s", s)
			}
		}
		if j.Done(StepCheck) || j.Next() != StepCheck {
			t.Error("a dry run is in the journal")
		}
		return (&ProblemsError{found}).Error()
	}
	if s := check(nil, Input{Old: m.oldAccount()}); s != "" {
		t.Errorf("problems: %s", s)
	}
	if s := check(nil, Input{}); !strings.Contains(s, "not logged in") {
		t.Errorf("without a session: %s", s)
	}
	if s := check(func(p *Plan) { p.To = h.plc }, Input{Old: m.oldAccount()}); !strings.Contains(s, "can't be asked") {
		t.Errorf("a host that is none: %s", s)
	}
	if s := check(func(p *Plan) { p.Handle = "x.example.com" }, Input{Old: m.oldAccount()}); !strings.Contains(s, "doesn't lead to") {
		t.Errorf("a handle that leads nowhere: %s", s)
	}
	h.txt.mu.Lock()
	h.txt.extra["x.example.com"] = string(m.did)
	h.txt.mu.Unlock()
	if s := check(func(p *Plan) { p.Handle = "x.example.com" }, Input{Old: m.oldAccount()}); s != "" {
		t.Errorf("a handle of one's own: %s", s)
	}
	old, err := comatproto.RepoDescribeRepo.Call(ctx, &xrpc.Client{Host: h.old, HTTP: h.http}, &comatproto.RepoDescribeRepo_Params{Repo: string(m.did)})
	if err != nil {
		t.Fatal(err)
	}
	if s := check(func(p *Plan) { p.Handle = syntax.Handle(old.Handle) }, Input{Old: m.oldAccount()}); !strings.Contains(s, "belongs to the old host") {
		t.Errorf("the handle %s of the old host, which leads to the account until it has moved: %s", old.Handle, s)
	}
	if _, err := comatproto.ServerCreateAccount.Call(ctx, &xrpc.Client{Host: h.new, HTTP: h.http}, &comatproto.ServerCreateAccount_Input{Handle: "taken.new.test", Password: new(oldPassword)}); err != nil {
		t.Fatal(err)
	}
	if s := check(func(p *Plan) { p.Handle = "taken.new.test" }, Input{Old: m.oldAccount()}); !strings.Contains(s, "is taken") {
		t.Errorf("a handle that is taken: %s", s)
	}
	out, err := comatproto.ServerCreateAppPassword.Call(ctx, m.oldAccount().Client(), &comatproto.ServerCreateAppPassword_Input{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	app, err := auth.New(auth.Options{HTTP: m.http}).Login(ctx, h.old, auth.Credentials{Identifier: string(m.did), Password: out.Password})
	if err != nil {
		t.Fatal(err)
	}
	if s := check(nil, Input{Old: app}); !strings.Contains(s, "app password") {
		t.Errorf("with an app password: %s", s)
	}
	m.wire.answer = answering(h.new, "describeServer", field("inviteCodeRequired", true))
	if s := check(nil, Input{Old: m.oldAccount()}); !strings.Contains(s, "invite code") {
		t.Errorf("without an invite: %s", s)
	}
	if s := check(nil, Input{Old: m.oldAccount(), InviteCode: "x"}); s != "" {
		t.Errorf("with an invite: %s", s)
	}
	m.wire.answer = answering(h.old, "getRecommendedDidCredentials", field("rotationKeys", []string{"did:key:other"}))
	if s := check(nil, Input{Old: m.oldAccount()}); !strings.Contains(s, "holds no rotation key") {
		t.Errorf("an old host without keys: %s", s)
	}
	m.stayed()
}

// TestAbandon gives up at every step before the identity changes; the account stays as it was, and may begin anew.
func TestAbandon(t *testing.T) {
	h := newHosts(t)
	for i, at := range Steps {
		t.Run(string(at), func(t *testing.T) {
			m := h.account(t, 2, 1)
			m.t = t
			for range 2 {
				j := m.open()
				if err := j.Start(m.plan()); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				j.o.observe = func(s Step) {
					if s == at {
						cancel()
					}
				}
				_ = j.Run(ctx, Input{Old: m.oldAccount(), Password: m.password, Token: m.token})
				cancel()
				j.Close()
				m.token = m.h.mail.of(m.did)
			}
			j := m.open()
			defer j.Close()
			err := j.Abandon(context.Background(), Input{Old: m.oldAccount(), Password: m.password})
			if i > slices.Index(Steps, StepIdentity) {
				if !errors.Is(err, ErrNoReturn) {
					t.Errorf("after the identity has changed: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Run(context.Background(), Input{}); !errors.Is(err, ErrGivenUp) {
				t.Errorf("going on after giving up: %v", err)
			}
			j.Close()
			m.stayed()
			root, err := os.OpenRoot(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			m.dir, m.token = root, ""
			if err := m.run(); err != nil {
				t.Fatal(err)
			}
			m.arrived()
		})
	}
}

// TestOneProcess has two at one job.
func TestOneProcess(t *testing.T) {
	m := newHosts(t).account(t, 1, 0)
	j := m.open()
	defer j.Close()
	if _, err := Open(Options{Dir: m.dir, Identity: m.directory(), Now: time.Now}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second process: %v", err)
	}
	if err := j.Run(context.Background(), Input{}); !errors.Is(err, ErrNoPlan) {
		t.Errorf("without a plan: %v", err)
	}
	if err := j.Start(m.plan()); err != nil {
		t.Fatal(err)
	}
	other := m.plan()
	other.Handle = "other.new.test"
	if err := j.Start(other); !errors.Is(err, ErrOtherPlan) {
		t.Errorf("with another plan: %v", err)
	}
	for _, bad := range []Plan{{}, {DID: m.did, From: m.h.old, To: m.h.old, Handle: "a.test"}, {DID: m.did, From: m.h.old, To: m.h.new + "/x", Handle: "a.test"},
		{DID: m.did, From: m.h.old, To: m.h.new}, {DID: m.did, From: m.h.old, To: m.h.new, Handle: "a.test", RotationKey: "x"}} {
		if err := j.Start(bad); err == nil || errors.Is(err, ErrOtherPlan) {
			t.Errorf("%+v was taken: %v", bad, err)
		}
	}
}
