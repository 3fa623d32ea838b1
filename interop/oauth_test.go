package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/oauth"
	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/interop/refpds"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// person is somebody in front of a browser: it does what the pages of the reference PDS do when somebody signs in and agrees, or
// doesn't.
type person struct {
	pds     *refpds.PDS
	account refpds.Account
	reject  bool
	only    string // scopes to agree to; "": all that are asked for
	cookies map[string]string
}

func (p *person) send(req *http.Request, header map[string]string) (*http.Response, []byte, error) {
	for k, v := range header {
		req.Header.Set(k, v)
	}
	for k, v := range p.cookies {
		req.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	for _, k := range resp.Cookies() {
		p.cookies[k.Name] = k.Value
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp, b, err
}

// navigate goes to an address as a browser does.
func (p *person) navigate(address, referer, site string) (*http.Response, []byte, error) {
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	header := map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": site, "Accept": "text/html"}
	if referer != "" {
		header["Referer"] = referer
	}
	return p.send(req, header)
}

// call does what the script of a page does.
func (p *person) call(page, endpoint, bearer string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, p.pds.URL+"/@atproto/oauth-provider/~api"+endpoint, bytes.NewReader(b))
	if err != nil {
		return err
	}
	header := map[string]string{
		"Content-Type": "application/json", "Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin",
		"Origin": p.pds.URL, "Referer": page, "X-Csrf-Token": p.cookies["csrf-token"],
	}
	if bearer != "" {
		header["Authorization"] = "Bearer " + bearer
	}
	resp, b, err := p.send(req, header)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %.1000s", endpoint, resp.Status, b)
	}
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	return err
}

// visit goes through a login, and returns where the browser is sent in the end.
func (p *person) visit(address string) (*url.URL, error) {
	p.cookies = map[string]string{}
	resp, b, err := p.navigate(address, "", "cross-site")
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the page answers %s: %.1000s", resp.Status, b)
	}
	var end struct{ URL string }
	if p.reject {
		err = p.call(address, "/reject", "", struct{}{}, &end)
	} else {
		var in struct{ EphemeralToken string }
		err = p.call(address, "/sign-in", "", map[string]any{"locale": "en", "username": p.account.Handle, "password": p.account.Password, "remember": false}, &in)
		if err == nil {
			agree := map[string]any{"did": p.account.DID}
			if p.only != "" {
				agree["scope"] = p.only
			}
			err = p.call(address, "/consent", in.EphemeralToken, agree, &end)
		}
	}
	if err != nil {
		return nil, err
	}
	resp, b, err = p.navigate(end.URL, address, "same-origin")
	if err == nil && resp.StatusCode != http.StatusSeeOther {
		err = fmt.Errorf("the redirect answers %s: %.1000s", resp.Status, b)
	}
	if err != nil {
		return nil, err
	}
	return resp.Location()
}

func oauthApp(t *testing.T, pds *refpds.PDS, want scope.Set) *oauth.Client {
	t.Helper()
	c, err := oauth.New(oauth.Options{
		ClientID: oauth.LocalhostID(want, oauth.LoopbackRedirect), Scope: want, HTTP: new(http.Client), Directory: pds.Directory(),
		Now: time.Now, Rand: rand.Reader, AllowLocalhost: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// logIn logs a person in by way of a port of this machine, as a program for the command line does.
func logIn(t *testing.T, c *oauth.Client, p *person, account string) (auth.Session, error) {
	t.Helper()
	var browser sync.WaitGroup
	defer browser.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return c.LoginLoopback(ctx, account, oauth.Loopback{Open: func(address string) error {
		back, err := p.visit(address)
		if err != nil {
			return err
		}
		browser.Go(func() {
			if resp, err := http.Get(back.String()); err == nil {
				resp.Body.Close()
			}
		})
		return nil
	}})
}

// The OAuth client against the authorization server of the reference PDS: login, scopes, proofs, renewal, revocation.
func TestOAuth(t *testing.T) {
	pds := refpds.Start(t, refpds.Options{})
	alice := &person{pds: pds, account: pds.CreateAccount(t, "alice")}
	bob := &person{pds: pds, account: pds.CreateAccount(t, "bob")}
	want := scope.Of(scope.Repo("app.bsky.feed.post").On(scope.Create), scope.Blob("image/*"))
	app := oauthApp(t, pds, want)
	ctx := t.Context()

	post := func(a *auth.Account, text string) error {
		_, err := client.Create(ctx, client.ForAccount(a, client.Options{}), &appbsky.FeedPost{Text: text, CreatedAt: string(syntax.NewDatetime(time.Now()))}, client.WriteOptions{})
		return err
	}
	kept := func(s auth.Session) (*auth.Manager, *auth.Account) {
		m := auth.New(auth.Options{OAuth: app, Now: time.Now})
		a, err := m.Add(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		return m, a
	}
	refused := func(err error, status int, names ...string) {
		t.Helper()
		e, ok := errors.AsType[*xrpc.Error](err)
		if !ok || e.Status != status {
			t.Errorf("got %v, want the status %d", err, status)
			return
		}
		for _, n := range names {
			if e.Name == n {
				return
			}
		}
		if len(names) > 0 {
			t.Errorf("got %v, want %s", err, names)
		}
	}

	s, err := logIn(t, app, alice, alice.account.Handle)
	if err != nil {
		t.Fatal(err)
	}
	if s.DID != alice.account.DID || string(s.Handle) != alice.account.Handle || s.PDS != pds.URL || s.Grant.Issuer != pds.URL {
		t.Fatalf("%v, %v", s, s.Grant)
	}
	if granted, err := scope.Read(s.Grant.Scope); err != nil || granted.String() != want.String() {
		t.Errorf("granted %q, %v, want %q", granted, err, want)
	}
	if life := s.Grant.Expires.Sub(s.Grant.Issued); life < time.Minute || life > 24*time.Hour {
		t.Errorf("the access token lives %s", life)
	}
	_, a := kept(s)

	t.Run("scopes", func(t *testing.T) {
		if err := post(a, "hello from OAuth"); err != nil {
			t.Fatal(err)
		}
		n := 0
		for r, err := range client.List[appbsky.FeedPost](ctx, client.ForAccount(a, client.Options{}), syntax.AtIdentifier(a.DID()), client.ListOptions{}) {
			if err != nil || r.Value.Text != "hello from OAuth" {
				t.Fatal(r, err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("%d posts", n)
		}
		out, err := comatproto.ServerGetSession.Call(ctx, a.Client(), nil)
		if err != nil || out.Did != string(a.DID()) || out.Email != nil {
			t.Errorf("%+v, %v", out, err)
		}
		_, err = client.Create(ctx, client.ForAccount(a, client.Options{}), &appbsky.FeedLike{
			Subject: comatproto.RepoStrongRef{}, CreatedAt: string(syntax.NewDatetime(time.Now())),
		}, client.WriteOptions{})
		if err == nil {
			t.Error("a like was written")
		}
		_, err = comatproto.RepoDeleteRecord.Call(ctx, a.Client(), &comatproto.RepoDeleteRecord_Input{Repo: string(a.DID()), Collection: "app.bsky.feed.post", Rkey: "3jzfcijpj2z2a"})
		refused(err, 403, "ScopeMissingError")
		upload := func(mime, body string) error {
			_, err := comatproto.RepoUploadBlob.Call(ctx, a.Client(), &xrpc.Body{Reader: strings.NewReader(body), Type: mime, Length: int64(len(body))})
			return err
		}
		if err := upload("image/gif", "GIF89a\x01\x00\x01\x00\x00\x00\x00;"); err != nil {
			t.Error(err)
		}
		refused(upload("text/plain", "hello"), 403, "ScopeMissingError")
		_, err = comatproto.IdentityUpdateHandle.Call(ctx, a.Client(), &comatproto.IdentityUpdateHandle_Input{Handle: "mallory.test"})
		refused(err, 403, "ScopeMissingError")
		_, err = a.ServiceToken(ctx, "did:web:api.example.com#appview", "app.bsky.feed.getTimeline")
		refused(err, 403, "ScopeMissingError")
	})

	t.Run("proofs", func(t *testing.T) {
		stolen := func(change func(*auth.Session)) error {
			x := a.Session()
			g := *x.Grant
			x.Grant = &g
			change(&x)
			_, err := comatproto.ServerGetSession.Call(ctx, (&xrpc.Client{Host: pds.URL, Auth: &fixed{app, x}}), nil)
			return err
		}
		if err := stolen(func(*auth.Session) {}); err != nil {
			t.Fatal(err)
		}
		other, err := keys.Generate(keys.P256, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		refused(stolen(func(x *auth.Session) { x.Grant.Key = other.Multikey() }), 401)
		_, err = comatproto.ServerGetSession.Call(ctx, &xrpc.Client{Host: pds.URL, Auth: xrpc.Bearer(a.Session().Access)}, nil)
		if e, ok := errors.AsType[*xrpc.Error](err); !ok || e.Status != 400 && e.Status != 401 {
			t.Errorf("as a bearer: %v", err)
		}
	})

	t.Run("renewal", func(t *testing.T) {
		before := a.Session()
		if err := a.Renew(ctx); err != nil {
			t.Fatal(err)
		}
		after := a.Session()
		if after.Refresh == before.Refresh || after.Access == before.Access || after.Grant.Scope != before.Grant.Scope || after.Grant.Key != before.Grant.Key {
			t.Errorf("%v, %v", after, after.Grant)
		}
		if err := post(a, "renewed"); err != nil {
			t.Error(err)
		}
	})

	t.Run("revocation", func(t *testing.T) {
		s, err := logIn(t, app, alice, string(alice.account.DID))
		if err != nil {
			t.Fatal(err)
		}
		m, a := kept(s)
		if err := post(a, "not for long"); err != nil {
			t.Fatal(err)
		}
		if err := a.Logout(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Account(ctx, s.DID); !errors.Is(err, auth.ErrLoginRequired) {
			t.Errorf("afterwards: %v", err)
		}
		if _, err := app.Renew(ctx, s); !errors.Is(err, auth.ErrLoginRequired) {
			t.Errorf("a refresh token that was revoked: %v", err)
		}
	})

	t.Run("reuse", func(t *testing.T) {
		s, err := logIn(t, app, alice, alice.account.Handle)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := app.Renew(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := app.Renew(ctx, s); !errors.Is(err, auth.ErrLoginRequired) {
			t.Errorf("a refresh token that was used: %v", err)
		}
		if _, err := app.Renew(ctx, fresh); !errors.Is(err, auth.ErrLoginRequired) {
			t.Errorf("a session whose token was used twice: %v", err)
		}
	})

	t.Run("less than was asked for", func(t *testing.T) {
		alice := &person{pds: pds, account: alice.account, only: "atproto blob:image/*"}
		s, err := logIn(t, app, alice, alice.account.Handle)
		if err != nil {
			t.Fatal(err)
		}
		granted, err := scope.Read(s.Grant.Scope)
		if err != nil || granted.AllowsRepo(scope.Create, "app.bsky.feed.post") || !granted.AllowsBlob("image/png") {
			t.Fatalf("granted %q, %v", granted, err)
		}
		_, a := kept(s)
		refused(post(a, "no"), 403, "ScopeMissingError")
	})

	t.Run("no", func(t *testing.T) {
		_, err := logIn(t, app, &person{pds: pds, account: alice.account, reject: true}, alice.account.Handle)
		if oauth.KindOf(err) != oauth.KindDenied {
			t.Errorf("the person says no: %v", err)
		}
	})

	t.Run("somebody else", func(t *testing.T) {
		_, err := logIn(t, app, bob, alice.account.Handle)
		if err == nil {
			t.Error("bob's login is one of alice")
		}
		s, err := logIn(t, app, bob, pds.URL) // where nobody was named
		if err != nil || s.DID != bob.account.DID {
			t.Errorf("%v, %v", s, err)
		}
	})

	t.Run("transition", func(t *testing.T) {
		want := scope.Set{}.With(scope.Atproto, scope.TransitionGeneric, scope.TransitionEmail)
		app := oauthApp(t, pds, want)
		s, err := logIn(t, app, bob, bob.account.Handle)
		if err != nil {
			t.Fatal(err)
		}
		a, err := auth.New(auth.Options{OAuth: app, Now: time.Now}).Add(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := post(a, "as with an app password"); err != nil {
			t.Error(err)
		}
		out, err := comatproto.ServerGetSession.Call(ctx, a.Client(), nil)
		if err != nil || out.Email == nil || *out.Email != bob.account.Email {
			t.Errorf("%+v, %v", out, err)
		}
		if token, err := a.ServiceToken(ctx, "did:web:api.example.com", "app.bsky.feed.getTimeline"); err != nil || token == "" {
			t.Error(err)
		}
	})
}

// fixed uses a session as it is, without a manager that renews it.
type fixed struct {
	scheme auth.Scheme
	s      auth.Session
}

func (f *fixed) Authorize(_ context.Context, req *http.Request) error {
	return f.scheme.Authorize(req, f.s)
}

func (f *fixed) Observe(req *http.Request, h http.Header) { f.scheme.Observe(req, h, f.s) }

func (f *fixed) Refresh(_ context.Context, _ *http.Request, refusal *xrpc.Error) (bool, error) {
	return f.scheme.Remedy(refusal, f.s) == auth.RemedyRepeat, nil
}
