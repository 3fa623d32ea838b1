package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/server/directory"
	"github.com/barograph/baro/internal/server/pds"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// hosts are a PLC directory and two PDSes.
type hosts struct {
	t        testing.TB
	plc      string
	old, new string
	mail     *mailbox
	txt      *names
	http     *http.Client
	guard    *netguard.Dialer
	n        int // accounts made
}

// mailbox catches the codes that a host would mail.
type mailbox struct {
	slog.Handler
	mu   sync.Mutex
	code map[string]string // by DID
	sent map[string]int
}

func (m *mailbox) Enabled(context.Context, slog.Level) bool { return true }
func (m *mailbox) WithAttrs([]slog.Attr) slog.Handler       { return m }
func (m *mailbox) WithGroup(string) slog.Handler            { return m }

func (m *mailbox) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "confirmation token" {
		return nil
	}
	var did, token string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "did":
			did = a.Value.String()
		case "token":
			token = a.Value.String()
		}
		return true
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.code[did] = token
	m.sent[did]++
	return nil
}

func (m *mailbox) of(did syntax.DID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.code[string(did)]
}

// names is the DNS: the handles of both hosts, and what a test adds.
type names struct {
	mu    sync.Mutex
	extra map[string]string
	hosts map[string]string // by the domain of their handles
}

func (n *names) LookupTXT(ctx context.Context, name string) ([]string, error) {
	h := strings.TrimPrefix(strings.TrimSuffix(strings.ToLower(name), "."), "_atproto.")
	n.mu.Lock()
	did := n.extra[h]
	n.mu.Unlock()
	for domain, u := range n.hosts {
		if did != "" || !strings.HasSuffix(h, domain) {
			continue
		}
		out, err := comatproto.IdentityResolveHandle.Call(ctx, &xrpc.Client{Host: u, HTTP: &http.Client{}}, &comatproto.IdentityResolveHandle_Params{Handle: h})
		if err == nil {
			did = out.Did
		}
	}
	if did == "" {
		return nil, &net.DNSError{Err: "no such name", Name: name, IsNotFound: true}
	}
	return []string{"did=" + did}, nil
}

func (n *names) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if host != "localhost" || network == "ip6" {
		return nil, &net.DNSError{Err: "no such name", Name: host, IsNotFound: true}
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
}

func newHosts(t testing.TB) *hosts {
	t.Helper()
	h := &hosts{t: t, mail: &mailbox{code: map[string]string{}, sent: map[string]int{}}, txt: &names{extra: map[string]string{}}}
	guard := netguard.NewDialer(netguard.Options{Resolver: h.txt})
	w := func(seed byte) world.World {
		w := world.Real(slog.New(h.mail))
		w.FS = vfs.NewMem()
		w.Resolver, w.Dialer = h.txt, guard
		w.Rand = &lockedRand{r: mrand.NewChaCha8([32]byte{seed})}
		return w
	}
	serve := func(make func(origin string) (http.Handler, io.Closer)) string {
		web := httptest.NewUnstartedServer(nil)
		port := web.Listener.Addr().(*net.TCPAddr).Port
		host := fmt.Sprintf("localhost:%d", port)
		if err := guard.Allow(host); err != nil {
			t.Fatal(err)
		}
		handler, c := make("http://" + host)
		web.Config.Handler = handler
		web.Start()
		t.Cleanup(func() {
			web.CloseClientConnections()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			web.Close()
		})
		return "http://" + host
	}
	h.plc = serve(func(string) (http.Handler, io.Closer) {
		s, err := directory.New(directory.Config{Memory: true, NoLimits: true}, w(1))
		if err != nil {
			t.Fatal(err)
		}
		return s.Handler(), s
	})
	host := func(seed byte, domain string) string {
		return serve(func(origin string) (http.Handler, io.Closer) {
			s, err := pds.New(pds.Config{
				Memory: true, PublicURL: origin, HandleDomains: []string{domain}, PLCURL: h.plc, MaxBlobBytes: 1 << 20,
				Accounts: pds.AccountConfig{RelaxLoopback: true, LogTokens: true, PasswordMemory: 64},
			}, w(seed))
			if err != nil {
				t.Fatal(err)
			}
			return s.Handler(), s
		})
	}
	h.old, h.new = host(2, ".old.test"), host(3, ".new.test")
	h.txt.hosts = map[string]string{".old.test": h.old, ".new.test": h.new}
	h.guard = guard
	h.http = netguard.Client(guard, netguard.ClientOptions{Timeout: -1, MaxBody: -1})
	return h
}

type lockedRand struct {
	mu sync.Mutex
	r  *mrand.ChaCha8
}

func (l *lockedRand) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(b)
}

// mover is an account that is about to move, and the machine of its owner.
type mover struct {
	h        *hosts
	t        testing.TB
	name     string
	did      syntax.DID
	store    *auth.MemoryStore
	dir      *os.Root
	wire     *wire
	http     *http.Client
	password string
	records  int
	blobs    int
	events   []Event
	fault    func(l *line, written bool) error
	token    string
	edit     func(*Plan)
	in       Input
}

const oldPassword, newPassword = "the old password", "the new password"

// account makes an account at the old host, with records, blobs and preferences.
func (h *hosts) account(t testing.TB, records, blobs int) *mover {
	t.Helper()
	h.n++
	m := &mover{h: h, t: t, name: fmt.Sprintf("user%d", h.n), store: auth.NewMemoryStore(), records: records, blobs: blobs, password: newPassword}
	m.wire = &wire{next: h.http.Transport}
	m.http = &http.Client{Transport: m.wire}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	m.dir = root

	ctx := context.Background()
	a, err := auth.New(auth.Options{HTTP: h.http, Store: m.store, Now: time.Now}).Create(ctx, h.old, &comatproto.ServerCreateAccount_Input{
		Handle: m.name + ".old.test", Password: new(oldPassword), Email: new(m.name + "@example.com"),
	})
	if err != nil {
		t.Fatal(err)
	}
	m.did = a.DID()
	c := client.ForAccount(a, client.Options{})
	for i := range records {
		p := &appbsky.FeedPost{Text: fmt.Sprintf("post %d", i), CreatedAt: "2026-01-01T00:00:00Z"}
		if i < blobs {
			p.Embed = *m.picture(c, i)
		}
		if _, err := client.Create(ctx, c, p, client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	in := &xrpc.Body{Reader: strings.NewReader(preferencesText), Type: "application/json"}
	s, err := c.XRPC().Do(ctx, http.MethodPost, putPreferences, "", in, "*/*")
	if err != nil {
		t.Fatal(err)
	}
	s.Body.Close()
	return m
}

const preferencesText = `{"preferences":[{"$type":"app.bsky.actor.defs#adultContentPref","enabled":true}]}`

func (m *mover) picture(c *client.Client, i int) *appbsky.FeedPost_Embed {
	m.t.Helper()
	b, err := c.UploadBlob(context.Background(), bytes.NewReader(fmt.Appendf(nil, "GIF89a picture %d of %s", i, m.did)), "image/gif", 0)
	if err != nil {
		m.t.Fatal(err)
	}
	return &appbsky.FeedPost_Embed{Value: &appbsky.EmbedImages{Images: []appbsky.EmbedImages_Image{{Alt: "x", Image: *b}}}}
}

func (m *mover) plan() Plan {
	p := Plan{DID: m.did, From: m.h.old, To: m.h.new, Handle: syntax.Handle(m.name + ".new.test"), Email: m.name + "@example.com"}
	if m.edit != nil {
		m.edit(&p)
	}
	return p
}

func (m *mover) directory() *identity.Directory {
	return identity.New(identity.Options{HTTP: m.http, Resolver: m.h.txt, Now: time.Now, PLC: m.h.plc, AllowLocalhost: true, PLCRate: 1e6, HostRate: 1e6})
}

func (m *mover) options() Options {
	return Options{
		Dir: m.dir, HTTP: m.http, Identity: m.directory(), PLC: &plcdir.Client{URL: m.h.plc, HTTP: m.http}, Sessions: m.store, Now: time.Now,
		Report: func(e Event) { m.events = append(m.events, e) },
		Retry:  &xrpc.Retry{Attempts: 1},
	}
}

// open begins or continues the job as a new process would: nothing is left in memory.
func (m *mover) open() *Job {
	m.t.Helper()
	j, err := Open(m.options())
	if err != nil {
		m.t.Fatal(err)
	}
	j.journal.fault = m.fault
	return j
}

func (m *mover) tryOpen() error {
	j, err := Open(m.options())
	if err == nil {
		j.Close()
	}
	return err
}

func (m *mover) oldAccount() *auth.Account {
	a, err := auth.New(auth.Options{HTTP: m.http, Store: m.store, Now: time.Now}).Account(context.Background(), m.did)
	if err != nil {
		return nil
	}
	return a
}

// try runs the job once, as one process.
func (m *mover) try() error {
	j := m.open()
	defer j.Close()
	if err := j.Start(m.plan()); err != nil {
		return err
	}
	in := m.in
	in.Old, in.Password, in.Token = m.oldAccount(), m.password, m.token
	return j.Run(context.Background(), in)
}

// run runs the job as a user would: with the code when it is asked for.
func (m *mover) run() error {
	for range 4 {
		err := m.try()
		need, ok := errors.AsType[*NeedError](err)
		if !ok || need.What != NeedToken {
			return err
		}
		m.token = m.h.mail.of(m.did)
	}
	return errors.New("the code was asked for again and again")
}

// arrived checks that the move is complete, by asking the servers and not the job.
func (m *mover) arrived() {
	m.t.Helper()
	ctx := context.Background()
	t := m.t
	log, err := (&plcdir.Client{URL: m.h.plc, HTTP: m.h.http}).Log(ctx, m.did)
	if err != nil || len(log) != 2 {
		t.Errorf("the log has %d entries, want 2: %v", len(log), err)
	}
	doc, err := m.directory().LookupDID(ctx, m.did)
	if err != nil || doc.PDS != m.h.new || string(doc.Handle) != string(m.plan().Handle) {
		t.Fatalf("the identity: %+v, %v", doc, err)
	}
	for _, host := range []string{m.h.old, m.h.new} {
		st, err := comatproto.SyncGetRepoStatus.Call(ctx, &xrpc.Client{Host: host, HTTP: m.h.http}, &comatproto.SyncGetRepoStatus_Params{Did: string(m.did)})
		if err != nil || st.Active != (host == m.h.new) {
			t.Errorf("%s: %+v, %v", host, st, err)
		}
	}
	s, err := m.store.Load(ctx, m.did)
	if err != nil || s.PDS != m.h.new {
		t.Fatalf("the session: %v, %v", s, err)
	}
	a, err := auth.New(auth.Options{HTTP: m.h.http, Store: m.store, Now: time.Now}).Account(ctx, m.did)
	if err != nil {
		t.Fatal(err)
	}
	c := client.ForAccount(a, client.Options{})
	st, err := comatproto.ServerCheckAccountStatus.Call(ctx, c.XRPC(), nil)
	if err != nil || !st.Activated || !st.ValidDid || st.IndexedRecords != int64(m.records) || st.ExpectedBlobs != int64(m.blobs) || st.ImportedBlobs != int64(m.blobs) {
		t.Errorf("the account: %+v, %v", st, err)
	}
	n := 0
	for r, err := range client.List[appbsky.FeedPost](ctx, c, syntax.AtIdentifier(m.did), client.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if r.Value.Embed.Value != nil {
			img := r.Value.Embed.Value.(*appbsky.EmbedImages).Images[0].Image
			b, err := client.New(m.h.new, client.Options{HTTP: m.h.http}).Blob(ctx, m.did, img.Ref, 0)
			if err != nil {
				t.Fatalf("blob %s: %v", img.Ref, err)
			}
			if n, err := io.Copy(io.Discard, b); err != nil || n != img.Size {
				t.Errorf("blob %s: %d bytes, %v", img.Ref, n, err)
			}
			b.Close()
		}
	}
	if n != m.records {
		t.Errorf("%d records, want %d", n, m.records)
	}
	rr, err := c.Repo(ctx, m.did, client.RepoOptions{Key: doc.SigningKey})
	if err != nil {
		t.Fatalf("the repository: %v", err)
	}
	rr.Close()
	prefs, err := preferences(ctx, c.XRPC())
	if err != nil || !strings.Contains(string(prefs), "adultContentPref") {
		t.Errorf("preferences: %s, %v", prefs, err)
	}
	left, err := m.dir.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	names, err := left.Readdirnames(-1)
	for _, name := range names {
		if name != JournalName && !strings.HasSuffix(name, "lock") {
			t.Errorf("the file %s is left (%v)", name, err)
		}
	}
	if _, err := client.Create(ctx, c, &appbsky.FeedPost{Text: "here I am", CreatedAt: "2026-01-02T00:00:00Z"}, client.WriteOptions{}); err != nil {
		t.Errorf("writing at the new host: %v", err)
	}
}

// wire is the network of one machine, which may break.
type wire struct {
	next http.RoundTripper
	mu   sync.Mutex
	n    int
	// before and after may fail the n-th request, counted from 1, before it is sent or when it has been answered.
	before, after func(n int, r *http.Request) error
	// answer may change what came.
	answer func(r *http.Request, resp *http.Response) *http.Response
	seen   []string
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.n++
	n := w.n
	w.seen = append(w.seen, r.Method+" "+r.URL.Host+r.URL.Path)
	before, after, answer := w.before, w.after, w.answer
	w.mu.Unlock()
	if before != nil {
		if err := before(n, r); err != nil {
			if r.Body != nil {
				r.Body.Close()
			}
			return nil, err
		}
	}
	resp, err := w.next.RoundTrip(r)
	if err == nil && after != nil {
		if err := after(n, r); err != nil {
			_, _ = io.Copy(io.Discard, resp.Body) // the server has done what it does
			resp.Body.Close()
			return nil, err
		}
	}
	if err == nil && answer != nil {
		resp = answer(r, resp)
	}
	return resp, err
}

func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}
