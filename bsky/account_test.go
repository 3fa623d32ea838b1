package bsky

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/oauth"
	"github.com/barograph/baro/auth/oauth/oauthtest"
	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/xrpc"
)

// TestGivenClient: reads and writes go out as the client that was given sends them.
func TestGivenClient(t *testing.T) {
	asked := map[string]http.Header{}
	x := &xrpc.Client{Host: "https://pds.test", Pacer: new(xrpc.Pacer), HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		asked[strings.TrimPrefix(r.URL.Path, "/xrpc/")] = r.Header
		body := `{"did":"did:web:a.test","handle":"a.test","uri":"at://did:web:a.test/app.bsky.feed.post/3jzfcijpj2z2a","cid":"bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"}`
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1}, nil
	})}}
	given := x.WithHeader("X-Given", "1").WithProxy("did:web:view.test#view").WithHeaderSource(func(context.Context) (http.Header, error) {
		return http.Header{"X-Computed": {"2"}}, nil
	})
	c := New(given, "did:web:a.test", Options{}).WithLabelers("did:web:labels.test")
	if _, err := c.Me(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Post(t.Context(), Post{Text: "a", Plain: true}) // the answer is not that of the record; what was sent counts
	for method, proxy := range map[string]string{"app.bsky.actor.getProfile": "did:web:view.test#view", "com.atproto.repo.createRecord": ""} {
		h := asked[method]
		if h == nil || h.Get("X-Given") != "1" || h.Get("X-Computed") != "2" || h.Get("Atproto-Proxy") != proxy {
			t.Errorf("%s was called with %v", method, h)
		}
	}
	if c.PDS().XRPC().Pacer != x.Pacer {
		t.Error("writes have another pacer, or none")
	}

	if _, err := c.WithAppView("did:web:other.test#view").Me(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := asked["app.bsky.actor.getProfile"]; h.Get("Atproto-Proxy") != "did:web:other.test#view" || h.Get("Atproto-Accept-Labelers") != "did:web:labels.test" || h.Get("X-Given") != "1" {
		t.Errorf("another AppView was asked with %v", h)
	}
}

// TestOAuth: an account that OAuth has logged in is one like any other, in a later process too.
func TestOAuth(t *testing.T) {
	srv := oauthtest.NewOneHost(t)
	want := scope.Of(scope.Repo("app.bsky.feed.post").On(scope.Create))
	app, err := oauth.New(oauth.Options{
		ClientID: oauth.LocalhostID(want, oauth.LoopbackRedirect), Scope: want,
		HTTP: new(http.Client), Directory: srv.Directory(), Now: time.Now, Rand: rand.Reader, AllowLocalhost: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var browser sync.WaitGroup
	defer browser.Wait()
	s, err := app.LoginLoopback(t.Context(), "alice.test", oauth.Loopback{Open: func(address string) error {
		browser.Go(func() {
			if resp, err := http.Get(address); err == nil {
				resp.Body.Close()
			}
		})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	store := auth.NewMemoryStore()
	if _, err := auth.New(auth.Options{OAuth: app, Store: store, Now: time.Now}).Add(t.Context(), s); err != nil {
		t.Fatal(err)
	}

	o := Options{HTTP: new(http.Client), Store: store, OAuth: app}
	c, err := Resume(t.Context(), s.DID, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Post(t.Context(), Post{Text: "hello", Plain: true}); err != nil {
		t.Error(err)
	}
	if text, err := c.SessionString(); !errors.Is(err, ErrNoSession) || text != "" {
		t.Errorf("a session string without the key: %v", err)
	}
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	imported, err := Import(t.Context(), text, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := imported.Post(t.Context(), Post{Text: "hello again", Plain: true}); err != nil {
		t.Error(err)
	}
	if _, err := imported.LikeRef(t.Context(), Ref{}); !errors.Is(err, xrpc.ErrorName("ScopeMissingError")) {
		t.Errorf("a like is not granted: %v", err)
	}
	if n := srv.Count("written"); n != 2 || len(srv.Problems()) > 0 {
		t.Errorf("%d records were written; %q", n, srv.Problems())
	}
	if err := imported.Logout(t.Context()); err != nil || srv.Active() != 0 {
		t.Errorf("%d sessions are open after the logout: %v", srv.Active(), err)
	}
}
