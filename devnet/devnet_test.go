package devnet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func start(t *testing.T, o devnet.Options) *devnet.Network {
	t.Helper()
	o.Log = testLog(t)
	n, err := devnet.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// stop closes a network and holds it to its time.
func stop(t *testing.T, n *devnet.Network) {
	t.Helper()
	at := time.Now()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(at); took > 2*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if err := n.Err(); err != nil {
		t.Error(err)
	}
}

// eventually waits until f returns nil, and fails with its last error after a while.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it did not come about: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // between looks; what counts is the answer
	}
}

type person struct {
	did string
	*xrpc.Client
}

const password = "a quiet barometer"

func signUp(t *testing.T, n *devnet.Network, name string) person {
	t.Helper()
	out, err := comatproto.ServerCreateAccount.Call(t.Context(), n.PDS(), &comatproto.ServerCreateAccount_Input{
		Handle: name + ".test", Email: new(name + "@example.com"), Password: new(password),
	})
	if err != nil {
		t.Fatal(err)
	}
	return person{out.Did, n.PDS().WithAuth(xrpc.Bearer(out.AccessJwt))}
}

func signIn(t *testing.T, n *devnet.Network, name string) person {
	t.Helper()
	out, err := comatproto.ServerCreateSession.Call(t.Context(), n.PDS(), &comatproto.ServerCreateSession_Input{Identifier: name + ".test", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	return person{out.Did, n.PDS().WithAuth(xrpc.Bearer(out.AccessJwt))}
}

func (p person) create(t *testing.T, rec data.Typed) comatproto.RepoStrongRef {
	t.Helper()
	raw, err := data.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	out, err := comatproto.RepoCreateRecord.Call(t.Context(), p.Client, &comatproto.RepoCreateRecord_Input{Repo: p.did, Collection: rec.LexType(), Record: raw})
	if err != nil {
		t.Fatal(err)
	}
	return comatproto.RepoStrongRef{Uri: out.Uri, Cid: out.Cid}
}

func now() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z") }

func get(t *testing.T, n *devnet.Network, u string) (string, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
	if err != nil {
		return "", err
	}
	resp, err := n.HTTP().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", u, resp.Status, b)
	}
	return string(b), err
}

func likesAre(t *testing.T, n *devnet.Network, uri string, want int) func() error {
	return func() error {
		body, err := get(t, n, n.URLs().Links+"/xrpc/blue.microcosm.links.getBacklinksCount?source=app.bsky.feed.like:subject.uri&subject="+url.QueryEscape(uri))
		if err != nil {
			return err
		}
		var out struct{ Total int }
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			return err
		}
		if out.Total != want {
			return fmt.Errorf("%d likes of %s, want %d", out.Total, uri, want)
		}
		return nil
	}
}

// shows waits until a page of the explorer about a record holds some words.
func shows(t *testing.T, n *devnet.Network, uri, words string) {
	t.Helper()
	eventually(t, func() error {
		body, err := get(t, n, n.URLs().Explorer+"/at/"+strings.TrimPrefix(uri, "at://"))
		if err == nil && !strings.Contains(body, words) {
			err = fmt.Errorf("the page of %s does not show %q", uri, words)
		}
		return err
	})
}

// relayed reads the relay's stream after a cursor until the commit that made a record, and returns its number.
func relayed(t *testing.T, n *devnet.Network, after int64, uri string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	at, err := syntax.ParseATURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	dial := (&net.Dialer{}).DialContext
	for f, err := range stream.Subscribe(ctx, n.URLs().Relay, stream.SubscribeOptions{After: &after, DialOptions: stream.DialOptions{NetDialContext: dial}}) {
		if err != nil {
			t.Fatal(err)
		}
		m, err := f.Message()
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := m.(*stream.Commit); ok && string(c.Repo) == string(at.Authority()) {
			for _, op := range c.Ops {
				if op.Path == string(at.Collection())+"/"+string(at.RecordKey()) {
					return f.Seq
				}
			}
		}
	}
	t.Fatalf("the relay's stream ended before %s", uri)
	return 0
}

func TestNetwork(t *testing.T) {
	dir := t.TempDir()
	n := start(t, devnet.Options{Dir: dir})
	alice, bob := signUp(t, n, "alice"), signUp(t, n, "bob")
	post := alice.create(t, &appbsky.FeedPost{Text: "the glass is falling", CreatedAt: now()})
	like := bob.create(t, &appbsky.FeedLike{Subject: post, CreatedAt: now()})
	eventually(t, likesAre(t, n, post.Uri, 1))
	relayed(t, n, 0, post.Uri)
	seq := relayed(t, n, 0, like.Uri)
	shows(t, n, post.Uri, "the glass is falling")
	shows(t, n, post.Uri, "alice.test")

	// Names of this network resolve, and others are not asked for anywhere.
	ids := n.Directory()
	id, err := ids.LookupHandle(t.Context(), "alice.test")
	if err != nil || string(id.DID) != alice.did || id.PDS != n.URLs().PDS {
		t.Errorf("alice.test: %+v, %v", id, err)
	}
	if _, err := ids.LookupHandle(t.Context(), "nobody.test"); err == nil {
		t.Error("nobody.test resolves")
	}
	if _, err := ids.LookupHandle(t.Context(), "example.com"); err == nil {
		t.Error("a name of the Internet resolves")
	}

	// A second network cannot have the same data.
	_, err = devnet.Start(t.Context(), devnet.Options{Dir: dir})
	var locked *kv.LockedError
	if !errors.As(err, &locked) || !strings.Contains(err.Error(), locked.Lock) {
		t.Errorf("a second network: %v", err)
	}

	// What was there stays there, under the same addresses, and goes on from there.
	urls := n.URLs()
	stop(t, n)
	at := time.Now()
	n = start(t, devnet.Options{Dir: dir})
	if took := time.Since(at); took > 2*time.Second {
		t.Errorf("resuming took %v", took)
	}
	if n.URLs() != urls {
		t.Errorf("it moved from %v to %v", urls, n.URLs())
	}
	if again := signIn(t, n, "alice"); again.did != alice.did {
		t.Errorf("alice is %s and was %s", again.did, alice.did)
	}
	if err := likesAre(t, n, post.Uri, 1)(); err != nil {
		t.Error(err)
	}
	if got := relayed(t, n, 0, like.Uri); got != seq {
		t.Errorf("the relay's number of an event was %d and is %d", seq, got)
	}
	carol := signUp(t, n, "carol")
	second := carol.create(t, &appbsky.FeedLike{Subject: post, CreatedAt: now()})
	eventually(t, likesAre(t, n, post.Uri, 2))
	if got := relayed(t, n, seq, second.Uri); got <= seq {
		t.Errorf("number %d after %d", got, seq)
	}

	// An index that is built anew gives the same answers.
	stop(t, n)
	if err := devnet.RebuildLinks(t.Context(), devnet.Options{Dir: dir, Log: testLog(t)}); err != nil {
		t.Fatal(err)
	}
	n = start(t, devnet.Options{Dir: dir})
	if err := likesAre(t, n, post.Uri, 2)(); err != nil {
		t.Error(err)
	}
}

func TestMemory(t *testing.T) {
	n := start(t, devnet.Options{Memory: true})
	d, err := n.PlantDemo(t.Context(), devnet.DemoOptions{Accounts: 3})
	if err != nil || !d.Planted {
		t.Fatal(d, err)
	}
	if again, err := n.PlantDemo(t.Context(), devnet.DemoOptions{}); err != nil || again.Planted || again.Accounts != 3 {
		t.Errorf("planted twice: %+v, %v", again, err)
	}
	if err := errors.Join(n.Close(), n.Close()); err != nil {
		t.Error(err)
	}
	if _, err := devnet.Start(t.Context(), devnet.Options{}); err == nil {
		t.Error("a network that lives nowhere")
	}
}

func TestPorts(t *testing.T) {
	dir := t.TempDir()
	n := start(t, devnet.Options{Dir: dir})
	ports, ok, err := devnet.Remembered(dir)
	if err != nil || !ok || !strings.HasSuffix(n.URLs().PDS, ":"+strconv.Itoa(ports.PDS)) {
		t.Fatal(ports, ok, err)
	}
	stop(t, n)

	_, err = devnet.Start(t.Context(), devnet.Options{Dir: dir, Ports: devnet.Ports{PDS: ports.PDS ^ 1}})
	var changed *devnet.PortChangedError
	if !errors.As(err, &changed) || changed.Port != ports.PDS || !strings.Contains(err.Error(), dir) {
		t.Errorf("another port: %v", err)
	}

	// Somebody else has the port that the accounts live at.
	squat, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.PDS)))
	if err != nil {
		t.Skip("the port was taken in between: ", err)
	}
	_, err = devnet.Start(t.Context(), devnet.Options{Dir: dir})
	var listen *httpd.ListenError
	if !errors.As(err, &listen) || !listen.InUse || !strings.Contains(err.Error(), dir) {
		t.Errorf("a port in use: %v", err)
	}
	squat.Close()

	// And one that nothing durable names: another one does.
	squat, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.Links)))
	if err != nil {
		t.Skip("the port was taken in between: ", err)
	}
	defer squat.Close()
	n = start(t, devnet.Options{Dir: dir})
	if n.URLs().Links == "http://localhost:"+strconv.Itoa(ports.Links) {
		t.Error("two listeners at one port")
	}
	if _, ok, err := devnet.Remembered(t.TempDir()); ok || err != nil {
		t.Error(ok, err)
	}
}

func TestUnusableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devnet.Start(t.Context(), devnet.Options{Dir: filepath.Join(file, "data")}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a folder below a file: %v", err)
	}
	dir := t.TempDir()
	for _, service := range []string{"plc", "links"} { // the first one and a later one
		in := filepath.Join(dir, "of-"+service)
		if err := errors.Join(os.Mkdir(in, 0o700), os.WriteFile(filepath.Join(in, service), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := devnet.Start(t.Context(), devnet.Options{Dir: in}); err == nil || !strings.Contains(err.Error(), "starting "+service) {
			t.Errorf("a file in place of a service's folder: %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "network.json"), []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devnet.Start(t.Context(), devnet.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "network.json") {
		t.Errorf("a folder of another version: %v", err)
	}
}

// TestDemo plants the demo world, with interruptions, and looks whether all of it is there once.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	n := start(t, devnet.Options{Dir: dir})
	for _, share := range []int{10, 3, 2} { // stopped after a tenth, a third, a half
		ctx, cancel := context.WithCancel(t.Context())
		_, err := n.PlantDemo(ctx, devnet.DemoOptions{Progress: func(done, total int) {
			if done >= total/share {
				cancel()
			}
		}})
		cancel()
		if err == nil {
			t.Log("planting was faster than its interruption")
		}
		stop(t, n)
		n = start(t, devnet.Options{Dir: dir})
	}
	d, err := n.PlantDemo(t.Context(), devnet.DemoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	accounts := 0
	for page, err := range comatproto.SyncListRepos.Pages(t.Context(), n.PDS(), comatproto.SyncListRepos_Params{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Repos {
			accounts++
			for _, coll := range []string{"app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost", "app.bsky.graph.follow", "app.bsky.actor.profile"} {
				for page, err := range comatproto.RepoListRecords.Pages(t.Context(), n.PDS(), comatproto.RepoListRecords_Params{Repo: r.Did, Collection: coll, Limit: new(int64(100))}) {
					if err != nil {
						t.Fatal(err)
					}
					got[coll] += len(page.Records)
					for _, rec := range page.Records {
						for b, err := range data.Blobs(rec.Value) {
							if err != nil {
								t.Fatal(err)
							}
							checkBlob(t, n, r.Did, b)
						}
					}
				}
			}
		}
	}
	want := map[string]int{"app.bsky.feed.post": d.Posts, "app.bsky.feed.like": d.Likes, "app.bsky.feed.repost": d.Reposts, "app.bsky.graph.follow": d.Follows, "app.bsky.actor.profile": d.Accounts}
	for coll, w := range want {
		if got[coll] != w || w == 0 {
			t.Errorf("%s: %d records, want %d", coll, got[coll], w)
		}
	}
	if accounts != 8 || d.Accounts != 8 || d.Posts < 200 {
		t.Errorf("%d accounts; %+v", accounts, d)
	}
	in, err := comatproto.ServerCreateSession.Call(t.Context(), n.PDS(), &comatproto.ServerCreateSession_Input{Identifier: d.Handle, Password: d.Password})
	if err != nil || in.Did != d.DID {
		t.Errorf("signing in as %s: %v", d.Handle, err)
	}
	shows(t, n, d.Post, "There is soup")
	again, err := n.PlantDemo(t.Context(), devnet.DemoOptions{})
	if err != nil || again.Planted {
		t.Errorf("planted twice: %+v, %v", again, err)
	}
}

func checkBlob(t *testing.T, n *devnet.Network, did string, b data.Blob) {
	t.Helper()
	out, err := comatproto.SyncGetBlob.Call(t.Context(), n.PDS(), &comatproto.SyncGetBlob_Params{Did: did, Cid: b.Ref.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	content, err := io.ReadAll(out.Body)
	if err != nil || int64(len(content)) != b.Size || !bytes.HasPrefix(content, []byte("\x89PNG")) {
		t.Errorf("blob %s of %s: %d bytes, want %d, %v", b.Ref, did, len(content), b.Size, err)
	}
}

func TestOthersAreNotPlantedAmong(t *testing.T) {
	n := start(t, devnet.Options{Memory: true})
	signUp(t, n, "alice")
	if d, err := n.PlantDemo(t.Context(), devnet.DemoOptions{}); d != nil || err != nil {
		t.Errorf("planted among others: %+v, %v", d, err)
	}
	if d, err := n.PlantDemo(t.Context(), devnet.DemoOptions{Accounts: 2, Force: true}); err != nil || !d.Planted {
		t.Errorf("not planted when told to: %+v, %v", d, err)
	}
}

// TestBind starts networks at all addresses that localhost may lead to.
func TestBind(t *testing.T) {
	for _, bind := range []string{"localhost", "0.0.0.0", "::1", "::"} {
		if err := devnet.CheckBind(bind); err != nil {
			t.Errorf("%s: %v", bind, err)
		}
	}
	for _, bind := range []string{"192.0.2.1", "127.0.0.9", "nonsense", "2001:db8::1"} {
		if err := devnet.CheckBind(bind); err == nil {
			t.Errorf("%s: accepted", bind)
		}
		if _, err := devnet.Start(t.Context(), devnet.Options{Memory: true, Bind: bind}); err == nil {
			t.Errorf("%s: started", bind)
		}
	}
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	l.Close()
	n := start(t, devnet.Options{Memory: true, Bind: "::1"})
	if _, err := n.PlantDemo(t.Context(), devnet.DemoOptions{Accounts: 2}); err != nil {
		t.Fatal(err)
	}
	c := &xrpc.Client{Host: n.URLs().Relay, HTTP: n.HTTP()}
	for deadline := time.Now().Add(20 * time.Second); ; {
		out, err := comatproto.SyncListRepos.Call(t.Context(), c, nil)
		if err == nil && len(out.Repos) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the relay has not found the accounts: %v %v", out, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
