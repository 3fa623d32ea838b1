package relay_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/server/relay"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

func TestPassesOnWhatVerifies(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a, b := n.account(h, 0), n.account(h, 1)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}})
	f := follow(t, svc, url, 0)

	h.say(&stream.Identity{DID: string(a.did), Time: a.now(), Handle: a.handle})
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Active: true})
	if m := f.next().(*stream.Identity); m.Handle != a.handle || m.Seq != 1 {
		t.Errorf("identity: %+v", m)
	}
	if m := f.next().(*stream.Account); !m.Active || m.Seq != 2 {
		t.Errorf("account: %+v", m)
	}
	for range 20 {
		for _, acc := range []*fakeAccount{a, b} {
			c := acc.commit()
			h.say(c)
			got := f.next().(*stream.Commit)
			if got.Commit != c.Commit || !bytes.Equal(got.Blocks, c.Blocks) {
				t.Fatalf("commit %v came as %v", c.Commit, got.Commit)
			}
		}
	}
	// A handle that leads elsewhere is not passed on.
	h.say(&stream.Identity{DID: string(a.did), Time: a.now(), Handle: b.handle})
	if m := f.next().(*stream.Identity); m.Handle != stream.HandleInvalid {
		t.Errorf("a foreign handle was passed on: %+v", m)
	}
	if st := svc.Status(); len(st.Drops) != 0 || st.Accepted != 43 || st.Hosts[0].Accounts != 2 {
		t.Errorf("status: %+v", st)
	}
}

// Each lie is told, counted with its reason and not passed on; the honest commit after it is.
// edited is a lie by which an account's right next commit is changed on its way.
func edited(edit func(c *stream.Commit)) func(*network, *fakeHost, *fakeAccount) stream.Message {
	return func(_ *network, _ *fakeHost, a *fakeAccount) stream.Message {
		c := a.fork()
		edit(c)
		return c
	}
}

func TestDropsWithReason(t *testing.T) {
	lies := map[string]func(n *network, h *fakeHost, a *fakeAccount) stream.Message{
		string(repo.ReasonSignature): func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			good := a.key
			a.key, _ = keys.Generate(keys.K256, n.w.Rand)
			c := a.fork()
			a.key = good
			return c
		},
		string(repo.ReasonStaleRev): func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			m := message(a.last.Message("", "2026-01-01T00:00:00Z"))
			m.PrevData = a.last.PrevData
			return m
		},
		string(repo.ReasonOpMismatch): func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			c := a.fork()
			c.Ops[0].Path += "x"
			return c
		},
		string(repo.ReasonFutureRev): func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			u, _, err := repo.Apply(a.tree, []repo.Write{{Path: "com.example.thing/x", Record: []byte{0xa0}}}, a.did, syntax.NewTID(time.Now().Add(time.Hour).UnixMicro(), 1), a.key)
			if err != nil {
				panic(err)
			}
			return message(u.Message(a.last.Commit.Rev, "2026-01-01T00:00:00Z"))
		},
		"wrong-host": func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			other := n.account(n.host(), 20)
			return other.commit()
		},
		"identity-unresolved": func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			ghost := n.account(h, 21)
			n.mu.Lock()
			delete(n.docs, ghost.did)
			n.mu.Unlock()
			return ghost.commit()
		},
		"did-syntax": func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			return &stream.Account{DID: "did:PLC:x", Time: a.now(), Active: true}
		},
		string(repo.ReasonExtraBlocks): func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			c := a.last.Message("", "2026-01-01T00:00:00Z")
			return &stream.Sync{DID: c.Repo, Rev: c.Rev, Time: c.Time, Blocks: c.Blocks}
		},
		// Rules about the message itself, one by one: each is enforced here, and each is counted under its own name.
		string(repo.ReasonOpShape):       edited(func(c *stream.Commit) { c.Ops[0].Action = "upsert" }),
		string(repo.ReasonDuplicatePath): edited(func(c *stream.Commit) { c.Ops = append(c.Ops, c.Ops[0]) }),
		string(repo.ReasonPathSyntax):    edited(func(c *stream.Commit) { c.Ops[0].Path = "com.example.thing/.." }),
		string(repo.ReasonRevSyntax):     edited(func(c *stream.Commit) { c.Rev = "now" }),
		string(repo.ReasonSinceSyntax):   edited(func(c *stream.Commit) { c.Since = "then" }),
		string(repo.ReasonTimeSyntax):    edited(func(c *stream.Commit) { c.Time = "yesterday" }),
		string(repo.ReasonNoPrevData):    edited(func(c *stream.Commit) { c.PrevData = cid.CID{} }),
		string(repo.ReasonSince):         edited(func(c *stream.Commit) { c.Since = "2222222222222" }),
		string(repo.ReasonInversion):     edited(func(c *stream.Commit) { c.PrevData = cid.Sum(cid.DagCBOR, []byte("x")) }),
		string(repo.ReasonPrevData): func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			told := string(a.last.Commit.Rev)
			a.commit() // which nobody hears of
			c := a.fork()
			c.Since = told
			return c
		},
		string(repo.ReasonCommitRev):    edited(func(c *stream.Commit) { c.Rev = string(clock.Next(time.Now())) }),
		string(repo.ReasonCARRoot):      edited(func(c *stream.Commit) { c.Commit = cid.Sum(cid.DagCBOR, []byte("x")) }),
		string(repo.ReasonCAR):          edited(func(c *stream.Commit) { c.Blocks = c.Blocks[:len(c.Blocks)-1] }),
		string(repo.ReasonBlockHash):    edited(func(c *stream.Commit) { c.Blocks[len(c.Blocks)-1] ^= 1 }),
		string(repo.ReasonBlocksTooBig): edited(func(c *stream.Commit) { c.Blocks = append(c.Blocks, make([]byte, 2_000_001)...) }),
		string(repo.ReasonTooManyOps): edited(func(c *stream.Commit) {
			for i := range 201 {
				op := c.Ops[0]
				op.Path += fmt.Sprint(i)
				c.Ops = append(c.Ops, op)
			}
		}),
		string(repo.ReasonCommitDID): func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			c := n.account(h, 22).commit()
			c.Repo, c.Since, c.PrevData = string(a.did), string(a.last.Commit.Rev), a.last.Commit.Data
			return c
		},
		"no-signing-key": func(n *network, h *fakeHost, a *fakeAccount) stream.Message {
			other := n.account(h, 23)
			n.mu.Lock()
			n.docs[other.did] = strings.Replace(n.docs[other.did], "#atproto\"", "#other\"", 1)
			n.mu.Unlock()
			return other.commit()
		},
	}
	for reason, lie := range lies {
		t.Run(reason, func(t *testing.T) {
			n := newNetwork(t)
			h := n.host()
			a := n.account(h, 0)
			svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}})
			f := follow(t, svc, url, 0)
			h.say(a.commit())
			f.next()
			h.say(lie(n, h, a))
			eventually(t, "the drop is counted", func() bool { return svc.Status().Drops[reason] == 1 })
			honest := a.commit()
			h.say(honest)
			for {
				switch m := f.next().(type) {
				case *stream.Commit:
					if m.Commit != honest.Commit {
						t.Fatalf("the lie was passed on: %+v", m)
					}
					return
				case *stream.Sync: // a lie about the tree makes the relay ask for the newest commit
					if m.Rev == honest.Rev {
						return
					}
				}
			}
		})
	}
}

// A gap in an account's chain ends its commits until the relay has fetched the newest one, which it passes on as #sync.
func TestMendsBrokenChain(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a := n.account(h, 0)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}})
	f := follow(t, svc, url, 0)
	h.say(a.commit())
	f.next()
	a.commit() // lost
	h.say(a.commit())
	m, ok := f.next().(*stream.Sync)
	if !ok || m.Rev != string(a.last.Commit.Rev) {
		t.Fatalf("after a gap came %+v", m)
	}
	c := a.commit()
	h.say(c)
	if m := f.next().(*stream.Commit); m.Commit != c.Commit {
		t.Errorf("after the repair came %+v", m)
	}
	if st := svc.Status(); st.Resynced != 1 || st.Drops["since"]+st.Drops["prev-data"] != 1 {
		t.Errorf("status: %+v", st)
	}
}

// A commit that comes between the host's answer and its arrival here is mended as well, without the next one.
func TestMendsWhatCameMeanwhile(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a := n.account(h, 0)
	h.blocked = make(chan struct{})
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}})
	f := follow(t, svc, url, 0)
	h.say(a.commit())
	f.next()
	a.commit()              // lost
	h.say(a.commit())       // breaks the chain
	h.blocked <- struct{}{} // the newest commit is known
	h.say(a.commit())
	eventually(t, "it is dropped", func() bool { return svc.Status().Drops["desynchronized"] == 1 })
	close(h.blocked)
	for {
		if m, ok := f.next().(*stream.Sync); !ok {
			t.Fatalf("got %+v", m)
		} else if m.Rev == string(a.last.Commit.Rev) {
			break
		}
	}
	c := a.commit()
	h.say(c)
	if m, ok := f.next().(*stream.Commit); !ok || m.Commit != c.Commit {
		t.Errorf("at last came %+v", m)
	}
}

func TestRotatedKey(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a := n.account(h, 0)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}})
	f := follow(t, svc, url, 0)
	h.say(a.commit())
	f.next()
	a.key, _ = keys.Generate(keys.P256, n.w.Rand)
	a.publish() // and no #identity is sent
	c := a.commit()
	h.say(c)
	if m := f.next().(*stream.Commit); m.Commit != c.Commit {
		t.Errorf("with a new key came %+v", m)
	}
}

func TestInactiveAccounts(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a := n.account(h, 0)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}})
	f := follow(t, svc, url, 0)
	h.say(a.commit())
	f.next()
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Status: stream.StatusDeactivated})
	if m := f.next().(*stream.Account); m.Active || m.Status != stream.StatusDeactivated {
		t.Fatalf("account: %+v", m)
	}
	if code, body := get(t, url+"/xrpc/com.atproto.sync.getLatestCommit?did="+string(a.did)); code != 400 || !strings.Contains(body, "RepoDeactivated") {
		t.Errorf("getLatestCommit: %d %s", code, body)
	}
	h.say(a.fork())
	eventually(t, "the commit is dropped", func() bool { return svc.Status().Drops["account-inactive"] == 1 })
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Active: true})
	c := a.commit()
	h.say(c)
	if m := f.next().(*stream.Account); !m.Active {
		t.Fatalf("account: %+v", m)
	}
	if m := f.next().(*stream.Commit); m.Commit != c.Commit {
		t.Errorf("after the return came %+v", m)
	}
}

// A lost #account does not silence an account for ever, and asking its host about it delays nobody else.
func TestRecheckDelaysNobody(t *testing.T) {
	n := newNetwork(t)
	slow, honest := n.host(), n.host()
	slow.asked = make(chan struct{}, 10)
	a, b := n.account(slow, 0), n.account(honest, 1)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Workers: 1, Hosts: []string{slow.srv.URL, honest.srv.URL}})
	f := follow(t, svc, url, 0)
	slow.say(a.commit())
	f.next()
	slow.say(&stream.Account{DID: string(a.did), Time: a.now(), Status: stream.StatusDeactivated})
	f.next()
	slow.hmu.Lock()
	slow.active[a.did] = true
	slow.hmu.Unlock()
	slow.say(a.commit()) // and the #account before it got lost
	<-slow.asked
	for range 3 {
		c := b.commit()
		honest.say(c)
		if m, ok := f.next().(*stream.Commit); !ok || m.Commit != c.Commit {
			t.Fatalf("got %+v", m)
		}
	}
	slow.say(a.commit()) // while the question is open
	eventually(t, "both are dropped", func() bool { return svc.Status().Drops["account-inactive"] == 2 })
	close(n.hold)
	if m, ok := f.next().(*stream.Account); !ok || !m.Active || m.DID != string(a.did) {
		t.Fatalf("after the answer came %+v", m)
	}
	if m, ok := f.next().(*stream.Sync); !ok || m.Rev != string(a.last.Commit.Rev) {
		t.Fatalf("after the return came %+v", m)
	}
	c := a.commit()
	slow.say(c)
	if m, ok := f.next().(*stream.Commit); !ok || m.Commit != c.Commit {
		t.Errorf("at last came %+v", m)
	}
}

// Fetching a key again, for a signature that is bad, delays nobody but the account, whose events stay in order.
func TestRefreshDelaysNobody(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a, b := n.account(h, 0), n.account(h, 1)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Workers: 1, Hosts: []string{h.srv.URL}})
	f := follow(t, svc, url, 0)
	h.say(a.commit())
	f.next()
	n.mu.Lock()
	n.held[a.did] = true
	n.mu.Unlock()
	good := a.key
	a.key, _ = keys.Generate(keys.K256, n.w.Rand)
	lie := a.fork()
	a.key = good
	h.say(lie)
	var later []*stream.Commit
	for range 5 {
		later = append(later, a.commit())
		h.say(later[len(later)-1])
		c := b.commit()
		h.say(c)
		if m, ok := f.next().(*stream.Commit); !ok || m.Commit != c.Commit {
			t.Fatalf("got %+v", m)
		}
	}
	close(n.hold)
	for _, c := range later {
		if m, ok := f.next().(*stream.Commit); !ok || m.Commit != c.Commit {
			t.Fatalf("got %+v", m)
		}
	}
	if st := svc.Status(); len(st.Drops) != 1 || st.Drops["signature"] != 1 {
		t.Errorf("status: %+v", st)
	}
	// More than can wait is mended.
	n.mu.Lock()
	n.hold = make(chan struct{})
	n.mu.Unlock()
	a.key, _ = keys.Generate(keys.K256, n.w.Rand)
	lie = a.fork()
	a.key = good
	h.say(lie)
	for range 100 {
		h.say(a.commit())
	}
	eventually(t, "the queue is full", func() bool { return svc.Status().Drops["key-queue"] > 0 })
	close(n.hold)
	c := a.last.CommitCID
	for {
		switch m := f.next().(type) {
		case *stream.Sync:
			if m.Rev == string(a.last.Commit.Rev) {
				return
			}
		case *stream.Commit:
			if m.Commit == c {
				return
			}
		}
	}
}

// What the stream says while a host is asked is newer than the answer.
func TestRecheckLosesToStream(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	h.asked = make(chan struct{}, 10)
	a, b := n.account(h, 0), n.account(h, 1)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Workers: 1, Hosts: []string{h.srv.URL}})
	f := follow(t, svc, url, 0)
	h.say(a.commit())
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Status: stream.StatusDeactivated})
	h.active[a.did] = true // nobody asks yet
	h.say(a.commit())
	<-h.asked
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Status: stream.StatusTakendown})
	eventually(t, "three events", func() bool { return svc.Head() == 3 })
	close(n.hold)
	for range 3 {
		f.next()
	}
	for range 20 { // give the answer time to come
		c := b.commit()
		h.say(c)
		if m, ok := f.next().(*stream.Commit); !ok || m.Commit != c.Commit {
			t.Fatalf("got %+v", m)
		}
	}
	if code, body := get(t, url+"/xrpc/com.atproto.sync.getLatestCommit?did="+string(a.did)); code != 400 || !strings.Contains(body, "RepoTakendown") {
		t.Errorf("getLatestCommit: %d %s", code, body)
	}
}

// Everything is in place after a restart: numbers, accounts, the chain, the place in the host's stream.
func TestRestart(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a := n.account(h, 0)
	cfg := relay.Config{Dir: t.TempDir(), Hosts: []string{h.srv.URL}}
	svc, url, stop := startRelay(t, n, cfg)
	for range 10 {
		h.say(a.commit())
	}
	eventually(t, "ten events", func() bool { return svc.Head() == 10 })
	_, before := get(t, url+"/xrpc/com.atproto.sync.listRepos")
	stop()

	last := a.commit()
	h.say(last)
	svc, url, _ = startRelay(t, n, cfg)
	f := follow(t, svc, url, 9)
	if m := f.next().(*stream.Commit); m.Seq != 10 {
		t.Errorf("event 10 came as %d", m.Seq)
	}
	if m := f.next().(*stream.Commit); m.Seq != 11 || m.Commit != last.Commit {
		t.Errorf("event 11: %+v", m)
	}
	if st := svc.Status(); st.Received > 2 || len(st.Drops) > 0 { // the cursor is inclusive, nothing more is read twice
		t.Errorf("status after the restart: %+v", st)
	}
	if _, after := get(t, url+"/xrpc/com.atproto.sync.listRepos"); after == before || !strings.Contains(after, last.Rev) {
		t.Errorf("listRepos: %s", after)
	}
}

func TestMethods(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}})
	var accounts []*fakeAccount
	for i := range 5 {
		a := n.account(h, i)
		accounts = append(accounts, a)
		h.say(a.commit())
	}
	eventually(t, "five events", func() bool { return svc.Head() == 5 })

	var seen []string
	for cursor := ""; ; {
		_, body := get(t, url+"/xrpc/com.atproto.sync.listRepos?limit=2&cursor="+cursor)
		var page struct {
			Cursor string
			Repos  []struct{ Did, Head, Rev string }
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Repos {
			seen = append(seen, r.Did+" "+r.Head+" "+r.Rev)
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	if len(seen) != 5 {
		t.Errorf("listRepos gave %q", seen)
	}
	for i, a := range accounts {
		if want := string(a.did) + " " + a.last.CommitCID.String() + " " + string(a.last.Commit.Rev); seen[i] != want {
			t.Errorf("listRepos gave %q, want %q", seen[i], want)
		}
	}

	did := string(accounts[0].did)
	for path, want := range map[string]string{
		"com.atproto.sync.listHosts":                                            `"accountCount":5`,
		"com.atproto.sync.getHostStatus?hostname=nowhere.example":               `"HostNotFound"`,
		"com.atproto.sync.getRepoStatus?did=" + did:                             `"active":true`,
		"com.atproto.sync.getRepoStatus?did=did:plc:" + strings.Repeat("z", 24): `"RepoNotFound"`,
		"com.atproto.sync.getLatestCommit?did=" + did:                           accounts[0].last.CommitCID.String(),
		"com.atproto.sync.getLatestCommit":                                      `"InvalidRequest"`,
		"com.atproto.sync.getLatestCommit?did=nonsense":                         `"InvalidRequest"`,
		"com.example.unknown":                                                   `"MethodNotImplemented"`,
		"com.atproto.sync.subscribeRepos?cursor=-1":                             `"error"`,
		"_health": `"ok"`,
	} {
		if _, body := get(t, url+"/xrpc/"+path); !strings.Contains(body, want) {
			t.Errorf("%s: %s, want %s", path, body, want)
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(url + "/xrpc/com.atproto.sync.getRepo?did=" + did)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if loc := resp.Header.Get("Location"); resp.StatusCode != 302 || loc != h.srv.URL+"/xrpc/com.atproto.sync.getRepo?did="+did {
		t.Errorf("getRepo: %d to %q", resp.StatusCode, loc)
	}
	// Hosts that the operator did not name must be public; nothing is asked of the others.
	for _, host := range []string{"localhost:1", "127.0.0.1", "http://pds.example.com", "pds.example.com:8080", "a b", "", "printer.local"} {
		body, err := json.Marshal(map[string]string{"hostname": host})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(url+"/xrpc/com.atproto.sync.requestCrawl", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("requestCrawl %q: %d", host, resp.StatusCode)
		}
	}
	if resp, err := http.Post(url+"/xrpc/com.atproto.sync.requestCrawl", "application/json",
		strings.NewReader(`{"hostname":"`+strings.TrimPrefix(h.srv.URL, "http://")+`"}`)); err != nil || resp.StatusCode != 200 {
		t.Errorf("requestCrawl of the known host: %v %v", resp, err)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// A host whose accounts can't be looked up delays nobody's events but its own.
func TestSlowIdentities(t *testing.T) {
	n := newNetwork(t)
	honest, slow := n.host(), n.host()
	a := n.account(honest, 0)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{honest.srv.URL, slow.srv.URL}})
	f := follow(t, svc, url, 0)
	for i := range 25 { // more than there are workers and lookups
		b := n.account(slow, 1+i)
		n.mu.Lock()
		n.held[b.did] = true
		n.mu.Unlock()
		slow.say(b.commit())
	}
	eventually(t, "the slow host is being read", func() bool { return svc.Status().Received >= 10 })
	for range 20 {
		c := a.commit()
		honest.say(c)
		if m := f.next().(*stream.Commit); m.Commit != c.Commit {
			t.Fatalf("got %+v", m)
		}
	}
	close(n.hold)
	for range 25 {
		f.next()
	}
}

// What an account said before it was deleted is not replayed, neither at once nor after a restart, and the rest is.
func TestDeletedAccountIsNotReplayed(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a, b := n.account(h, 0), n.account(h, 1)
	cfg := relay.Config{Dir: t.TempDir(), Workers: 1, Hosts: []string{h.srv.URL}}
	svc, url, stop := startRelay(t, n, cfg)
	h.say(&stream.Identity{DID: string(a.did), Time: a.now(), Handle: a.handle})
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Active: true})
	for range 3 {
		h.say(a.commit())
		h.say(b.commit())
	}
	h.say(&stream.Account{DID: string(b.did), Time: b.now(), Status: stream.StatusTakendown})
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Status: stream.StatusDeleted})
	eventually(t, "ten events", func() bool { return svc.Head() == 10 })
	check := func(when string) {
		t.Helper()
		f := follow(t, svc, url, 0)
		for range 4 { // a takedown is another matter
			if m := f.next(); m.Subject() != string(b.did) {
				t.Fatalf("%s: %+v is replayed", when, m)
			}
		}
		if m, ok := f.next().(*stream.Account); !ok || m.Status != stream.StatusDeleted || m.Seq != 10 {
			t.Errorf("%s: at last came %+v", when, m)
		}
	}
	check("at once")
	stop()
	svc, url, _ = startRelay(t, n, cfg)
	check("after a restart")
}

// What breaks the framing ends the connection and is counted.
func TestBrokenFrames(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	svc, _, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}})
	if _, err := h.log.Commit(t.Context(), eventlog.Tx{Events: []func([]byte, int64) []byte{
		func(dst []byte, _ int64) []byte { return append(dst, "no frame"...) },
	}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the frame is counted", func() bool { return svc.Status().Drops["frame"] > 0 })
}
