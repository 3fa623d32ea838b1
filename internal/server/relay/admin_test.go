package relay_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/internal/server/relay"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/stream"
)

const (
	adminPassword = "correct horse"
	adminToken    = "battery staple"
)

// ask calls a path of a relay as its operator, and wants a status. The answer is decoded into out unless that is nil.
func ask(t *testing.T, relay, method, path, body string, want int, out any) {
	t.Helper()
	req, err := http.NewRequest(method, relay+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(path, "/admin/") {
		req.SetBasicAuth("admin", adminPassword)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, b, want)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	}
}

func did(a *fakeAccount) string { return fmt.Sprintf(`{"did":%q}`, a.did) }

func TestAdminDoor(t *testing.T) {
	n := newNetwork(t)
	clock := world.NewManual(time.Now())
	n.w.Clock = clock
	open := func(cfg relay.Config) http.Handler {
		cfg.Memory, cfg.Directory = true, n.directory()
		svc, err := relay.New(cfg, n.w)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { svc.Close() })
		return svc.Handler()
	}
	call := func(h http.Handler, edit func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/admin/pds/list", nil)
		r.RemoteAddr = "127.0.0.1:5"
		edit(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	right := func(r *http.Request) { r.SetBasicAuth("admin", adminPassword) }
	wrong := func(r *http.Request) { r.SetBasicAuth("admin", "wrong") }

	// Off unless configured; an empty password is none.
	closed := open(relay.Config{})
	for _, edit := range []func(*http.Request){right, func(r *http.Request) {}, func(r *http.Request) { r.SetBasicAuth("admin", "") },
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }} {
		if w := call(closed, edit); w.Code != 404 || !strings.Contains(w.Body.String(), "AdminDisabled") {
			t.Errorf("without credentials in the configuration: %d %s", w.Code, w.Body)
		}
	}
	h := open(relay.Config{AdminPassword: adminPassword, AdminToken: adminToken, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for name, c := range map[string]struct {
		edit func(*http.Request)
		want int
	}{
		"password":       {right, 200},
		"token":          {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+adminToken) }, 200},
		"another user":   {func(r *http.Request) { r.SetBasicAuth("root", adminPassword) }, 401},
		"token as other": {func(r *http.Request) { r.SetBasicAuth("admin", adminToken) }, 401},
		"other as token": {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+adminPassword) }, 401},
		"nothing":        {func(r *http.Request) {}, 401},
		"in the clear":   {func(r *http.Request) { right(r); r.RemoteAddr = "192.0.2.1:5" }, 403},
		"behind a proxy": {func(r *http.Request) {
			right(r)
			r.RemoteAddr = "10.0.0.1:5"
			r.Header.Set("X-Forwarded-For", "192.0.2.1")
			r.Header.Set("X-Forwarded-Proto", "https")
		}, 200},
		"unknown path": {func(r *http.Request) { right(r); r.URL.Path = "/admin/pds/eat" }, 404},
		"page of another origin": {func(r *http.Request) {
			right(r)
			r.Method, r.URL.Path, r.URL.RawQuery = "POST", "/admin/subs/setEnabled", "enabled=false"
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}, 403},
		"page of another origin, older browser": {func(r *http.Request) {
			right(r)
			r.Method, r.URL.Path, r.URL.RawQuery = "POST", "/admin/subs/setEnabled", "enabled=false"
			r.Header.Set("Origin", "https://evil.example.com")
		}, 403},
		"no page": {func(r *http.Request) {
			right(r)
			r.Method, r.URL.Path, r.URL.RawQuery = "POST", "/admin/subs/setEnabled", "enabled=true"
		}, 200},
	} {
		w := call(h, c.edit)
		if w.Code != c.want {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.want)
		}
		if w.Code == 401 && !strings.HasPrefix(w.Header().Get("Www-Authenticate"), "Basic") {
			t.Errorf("%s: no challenge", name)
		}
	}
	// Whoever fails too often is not heard, right or wrong, until the time has passed; others are.
	for i := 0; call(h, wrong).Code == 401; i++ {
		if i > 20 {
			t.Fatal("failures are not limited")
		}
	}
	w := call(h, right)
	if w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("after many failures: %d %v", w.Code, w.Header())
	}
	if w := call(h, func(r *http.Request) { right(r); r.RemoteAddr = "[::1]:5" }); w.Code != 200 {
		t.Errorf("another address: %d", w.Code)
	}
	clock.Advance(11 * time.Second)
	if w := call(h, right); w.Code != 200 {
		t.Errorf("after waiting: %d", w.Code)
	}
}

func TestTakedown(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a, b := n.account(h, 0), n.account(h, 1)
	cfg := relay.Config{Dir: t.TempDir(), Hosts: []string{h.srv.URL}, AdminPassword: adminPassword}
	svc, url, stop := startRelay(t, n, cfg)
	f := follow(t, svc, url, 0)
	h.say(a.commit())
	h.say(b.commit())
	f.next()
	f.next()

	ask(t, url, "POST", "/admin/repo/takeDown", `{"did":"did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"}`, 404, nil)
	ask(t, url, "POST", "/admin/repo/takeDown", `{"did":"x"}`, 400, nil)
	ask(t, url, "POST", "/admin/repo/takeDown", `[]`, 400, nil)
	ask(t, url, "POST", "/admin/repo/takeDown", did(a), 200, nil)
	ask(t, url, "POST", "/admin/repo/takeDown", did(a), 200, nil) // once more changes nothing
	if m := f.next().(*stream.Account); m.Active || m.Status != stream.StatusTakendown || m.DID != string(a.did) {
		t.Errorf("takedown: %+v", m)
	}
	silent := func(url string) {
		t.Helper()
		var st struct {
			Active bool
			Status string
		}
		ask(t, url, "GET", "/xrpc/com.atproto.sync.getRepoStatus?did="+string(a.did), "", 200, &st)
		if st.Active || st.Status != stream.StatusTakendown {
			t.Errorf("status: %+v", st)
		}
		for _, method := range []string{"getLatestCommit", "getRepo"} {
			ask(t, url, "GET", "/xrpc/com.atproto.sync."+method+"?did="+string(a.did), "", 400, nil)
		}
		var list struct {
			DIDs   []string
			Cursor string
		}
		ask(t, url, "GET", "/admin/repo/takedowns?cursor=&size=500", "", 200, &list)
		if !slices.Equal(list.DIDs, []string{string(a.did)}) || list.Cursor != "" {
			t.Errorf("list: %+v", list)
		}
	}
	silent(url)
	// Neither what it says nor what its host says about it is passed on.
	h.say(a.commit())
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Active: true})
	h.say(&stream.Identity{DID: string(a.did), Time: a.now()})
	h.say(b.commit())
	if m, ok := f.next().(*stream.Commit); !ok || m.Repo != string(b.did) {
		t.Errorf("after a takedown: %+v", m)
	}
	if st := svc.Status(); st.Drops["takendown-here"] != 3 {
		t.Errorf("drops: %v", st.Drops)
	}
	stop()

	svc, url, _ = startRelay(t, n, cfg)
	silent(url)
	f = follow(t, svc, url, 0) // from the beginning: nothing of what it said is left
	var got []string
	for range 3 {
		m := f.next()
		got = append(got, fmt.Sprintf("%T %s", m, m.Subject()))
	}
	want := []string{"*stream.Commit " + string(b.did), "*stream.Account " + string(a.did), "*stream.Commit " + string(b.did)}
	if !slices.Equal(got, want) {
		t.Errorf("replay: %v, want %v", got, want)
	}

	// The end of it: subscribers are told to look again, and the account goes on.
	ask(t, url, "POST", "/admin/repo/reverseTakedown", did(a), 200, nil)
	if m := f.next().(*stream.Identity); m.DID != string(a.did) {
		t.Errorf("identity: %+v", m)
	}
	if m := f.next().(*stream.Account); !m.Active || m.DID != string(a.did) {
		t.Errorf("reversal: %+v", m)
	}
	if m := f.next().(*stream.Sync); m.Rev != string(a.last.Commit.Rev) {
		t.Errorf("sync: %+v, want %s", m, a.last.Commit.Rev)
	}
	c := a.commit()
	h.say(c)
	if m := f.next().(*stream.Commit); m.Commit != c.Commit {
		t.Errorf("commit: %+v", m)
	}
	ask(t, url, "GET", "/xrpc/com.atproto.sync.getLatestCommit?did="+string(a.did), "", 200, nil)
}

// A status that the host tells during a takedown counts when it ends.
func TestTakedownKeepsHostStatus(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a := n.account(h, 0)
	svc, url, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}, AdminPassword: adminPassword})
	f := follow(t, svc, url, 0)
	h.say(a.commit())
	f.next()
	ask(t, url, "POST", "/admin/repo/takeDown", did(a), 200, nil)
	f.next()
	h.say(&stream.Account{DID: string(a.did), Time: a.now(), Status: stream.StatusDeactivated})
	eventually(t, "the host's word is dropped", func() bool { return svc.Status().Drops["takendown-here"] == 1 })
	ask(t, url, "POST", "/admin/repo/reverseTakedown", did(a), 200, nil)
	f.next()
	if m := f.next().(*stream.Account); m.Active || m.Status != stream.StatusDeactivated {
		t.Errorf("reversal: %+v", m)
	}
}

func TestShutsHostsOut(t *testing.T) {
	for name, c := range map[string]struct {
		out, in     string
		body        string
		listsDomain bool
	}{
		"host":   {"/admin/pds/block?host=%s", "/admin/pds/unblock?host=%s", "", false},
		"kill":   {"/admin/subs/killUpstream?host=%s&block=true", "/admin/pds/unblock?host=%s", "", false},
		"domain": {"/admin/subs/banDomain", "/admin/subs/unbanDomain", `{"domain":"127.0.0.1"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			h := n.host()
			a := n.account(h, 0)
			cfg := relay.Config{Dir: t.TempDir(), Hosts: []string{h.srv.URL}, AdminPassword: adminPassword}
			svc, at, stop := startRelay(t, n, cfg)
			f := follow(t, svc, at, 0)
			h.say(a.commit())
			f.next()
			host := strings.TrimPrefix(h.srv.URL, "http://")
			path := func(p string) string {
				if strings.Contains(p, "%") {
					return fmt.Sprintf(p, url.QueryEscape(host))
				}
				return p
			}
			ask(t, at, "POST", path(c.out), c.body, 200, nil)
			eventually(t, "the host's stream is left", func() bool { return h.streams.Subscribers() == 0 })
			out := func(at string) {
				t.Helper()
				var st struct{ Status string }
				ask(t, at, "GET", "/xrpc/com.atproto.sync.getHostStatus?hostname="+url.QueryEscape(host), "", 200, &st)
				if st.Status != "banned" {
					t.Errorf("status %q", st.Status)
				}
				ask(t, at, "POST", "/xrpc/com.atproto.sync.requestCrawl", fmt.Sprintf(`{"hostname":%q}`, host), 400, nil)
				ask(t, at, "POST", "/admin/pds/requestCrawl", fmt.Sprintf(`{"hostname":%q}`, h.srv.URL), 400, nil)
				var bans struct {
					BannedDomains []string `json:"banned_domains"`
				}
				ask(t, at, "GET", "/admin/subs/listDomainBans", "", 200, &bans)
				if c.listsDomain != (len(bans.BannedDomains) == 1) {
					t.Errorf("domains: %v", bans)
				}
			}
			out(at)
			stop()
			missed := a.commit()
			h.say(missed)
			svc, at, _ = startRelay(t, n, cfg)
			out(at)
			if h.streams.Subscribers() != 0 || svc.Head() != 1 {
				t.Errorf("%d subscribers, head %d", h.streams.Subscribers(), svc.Head())
			}
			f = follow(t, svc, at, 1)
			ask(t, at, "POST", path(c.in), c.body, 200, nil)
			if m := f.next().(*stream.Commit); m.Commit != missed.Commit { // the stream goes on where it was left
				t.Errorf("commit %v", m.Commit)
			}
		})
	}
}

func TestAdminHosts(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a, b := n.account(h, 0), n.account(h, 1)
	cfg := relay.Config{Dir: t.TempDir(), AdminPassword: adminPassword}
	svc, at, stop := startRelay(t, n, cfg)
	host := strings.TrimPrefix(h.srv.URL, "http://")
	crawl := fmt.Sprintf(`{"hostname":%q}`, h.srv.URL)

	ask(t, at, "POST", "/xrpc/com.atproto.sync.requestCrawl", crawl, 400, nil) // a stranger can't name such a host
	ask(t, at, "POST", "/admin/pds/requestCrawl", `{"hostname":"http://127.0.0.1:1"}`, 400, nil)
	ask(t, at, "POST", "/admin/pds/requestCrawl", crawl, 200, nil)
	limit := func(k int) {
		t.Helper()
		ask(t, at, "POST", "/admin/pds/changeLimits", fmt.Sprintf(`{"host":%q,"repo_limit":%d}`, host, k), 200, nil)
	}
	limit(1)
	ask(t, at, "POST", "/admin/pds/changeLimits", fmt.Sprintf(`{"host":%q}`, host), 400, nil)
	ask(t, at, "POST", "/admin/pds/changeLimits", `{"host":"other.example.com","repo_limit":3}`, 404, nil)
	f := follow(t, svc, at, 0)
	h.say(a.commit())
	f.next()
	h.say(b.commit())
	eventually(t, "the second account is refused", func() bool { return svc.Status().Drops["account-limit"] == 1 })
	stop()

	svc, at, _ = startRelay(t, n, cfg) // which remembers the host and its limit
	f = follow(t, svc, at, 1)
	h.say(b.commit())
	eventually(t, "the second account is still refused", func() bool { return svc.Status().Drops["account-limit"] == 1 })
	limit(5)
	c := b.commit()
	h.say(c)
	if m := f.next().(*stream.Commit); m.Commit != c.Commit {
		t.Errorf("commit %v", m.Commit)
	}
	var hosts []struct {
		Host                         string
		SSL, Registered, Blocked     bool
		HasActiveConnection, Trusted bool
		RepoCount, RepoLimit, Cursor int64
		EventsSeenSinceStartup       int64
		CreatedAt                    time.Time
		PerSecondEventRate           struct{ Max float64 }
	}
	ask(t, at, "GET", "/admin/pds/list", "", 200, &hosts)
	if len(hosts) != 1 {
		t.Fatalf("hosts: %+v", hosts)
	}
	got := hosts[0]
	if got.Host != host || got.SSL || !got.Registered || got.Blocked || !got.HasActiveConnection || got.Trusted || got.RepoCount != 2 || got.RepoLimit != 5 ||
		got.Cursor < 3 || got.EventsSeenSinceStartup < 2 || time.Since(got.CreatedAt) > time.Hour || got.PerSecondEventRate.Max != 50 {
		t.Errorf("host: %+v", got)
	}
	var names []string
	ask(t, at, "GET", "/admin/subs/getUpstreamConns", "", 200, &names)
	if !slices.Equal(names, []string{host}) {
		t.Errorf("connected: %v", names)
	}

	// A connection that is killed is made again.
	ask(t, at, "POST", "/admin/subs/killUpstream?host="+url.QueryEscape(host), "", 200, nil)
	c = b.commit()
	h.say(c)
	if m := f.next().(*stream.Commit); m.Commit != c.Commit {
		t.Errorf("commit %v", m.Commit)
	}
}

func TestAdminConsumers(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	a := n.account(h, 0)
	svc, at, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}, AdminPassword: adminPassword})
	f, g := follow(t, svc, at, 0), follow(t, svc, at, 0)
	for range 3 {
		h.say(a.commit())
		f.next()
		g.next()
	}
	var list []relay.Consumer
	eventually(t, "all that was received counts as sent", func() bool { // a moment after it was written
		ask(t, at, "GET", "/admin/consumers/list", "", 200, &list)
		return len(list) == 2 && list[0].LastSeq+list[1].LastSeq == 6
	})
	if len(list) != 2 || list[0].ID >= list[1].ID {
		t.Fatalf("consumers: %+v", list)
	}
	for _, c := range list {
		if c.EventsConsumed != 3 || c.LastSeq != 3 || !strings.HasPrefix(c.RemoteAddr, "127.0.0.1:") || time.Since(c.ConnectedAt) > time.Minute {
			t.Errorf("consumer: %+v", c)
		}
	}
	resp, err := http.Get(at + "/xrpc/" + stream.SubscribeRepos) // refused before the upgrade: no consumer
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	ask(t, at, "GET", "/admin/consumers/list", "", 200, &list)
	if len(list) != 2 {
		t.Errorf("consumers: %+v", list)
	}
}

func TestAdminSettings(t *testing.T) {
	n := newNetwork(t)
	cfg := relay.Config{Dir: t.TempDir(), AdminPassword: adminPassword}
	_, at, stop := startRelay(t, n, cfg)
	ask(t, at, "POST", "/admin/subs/setEnabled?enabled=perhaps", "", 400, nil)
	ask(t, at, "POST", "/admin/subs/setEnabled?enabled=false", "", 200, nil)
	ask(t, at, "POST", "/admin/subs/setPerDayLimit?limit=-1", "", 400, nil)
	ask(t, at, "POST", "/admin/subs/setPerDayLimit?limit=7", "", 200, nil)
	stop()
	_, at, _ = startRelay(t, n, cfg)
	var got struct {
		Enabled bool
		Limit   int
	}
	got.Enabled = true
	ask(t, at, "GET", "/admin/subs/getEnabled", "", 200, &got)
	ask(t, at, "GET", "/admin/subs/perDayLimit", "", 200, &got)
	if got.Enabled || got.Limit != 7 {
		t.Errorf("after a restart: %+v", got)
	}
	var refusal struct{ Message string }
	ask(t, at, "POST", "/xrpc/com.atproto.sync.requestCrawl", `{"hostname":"pds.example.com"}`, 400, &refusal)
	if !strings.Contains(refusal.Message, "adds no hosts") {
		t.Errorf("refusal %q", refusal.Message)
	}
}

func TestListReposByCollection(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	svc, at, _ := startRelay(t, n, relay.Config{Memory: true, Hosts: []string{h.srv.URL}, AdminPassword: adminPassword})
	f := follow(t, svc, at, 0)
	var all []*fakeAccount
	for i := range 5 {
		a := n.account(h, i)
		all = append(all, a)
		h.say(a.commit())
		f.next()
	}
	list := func(query string) (dids []string, cursor string) {
		t.Helper()
		var out struct {
			Cursor string
			Repos  []struct{ DID string }
		}
		ask(t, at, "GET", "/xrpc/com.atproto.sync.listReposByCollection?"+query, "", 200, &out)
		for _, r := range out.Repos {
			dids = append(dids, r.DID)
		}
		return dids, out.Cursor
	}
	const thing = "collection=com.example.thing"
	first, cursor := list(thing + "&limit=3")
	second, end := list(thing + "&limit=3&cursor=" + cursor)
	if len(first) != 3 || len(second) != 2 || end != "" || first[0] != string(all[0].did) || second[1] != string(all[4].did) {
		t.Errorf("pages %v %q, %v %q", first, cursor, second, end)
	}
	if dids, _ := list("collection=com.example.thin"); len(dids) != 0 {
		t.Errorf("another collection: %v", dids)
	}
	ask(t, at, "GET", "/xrpc/com.atproto.sync.listReposByCollection?collection=x", "", 400, nil)
	// Who isn't shown isn't listed, and a deleted account has left for good.
	ask(t, at, "POST", "/admin/repo/takeDown", did(all[1]), 200, nil)
	f.next()
	h.say(&stream.Account{DID: string(all[2].did), Time: all[2].now(), Status: stream.StatusDeleted})
	f.next()
	h.say(&stream.Account{DID: string(all[2].did), Time: all[2].now(), Active: true})
	f.next()
	dids, _ := list(thing)
	if want := []string{string(all[0].did), string(all[3].did), string(all[4].did)}; !slices.Equal(dids, want) {
		t.Errorf("accounts %v, want %v", dids, want)
	}
}
