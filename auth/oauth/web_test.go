package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/oauth"
	"github.com/barograph/baro/auth/oauth/oauthtest"
	"github.com/barograph/baro/syntax"
)

func get(h http.Handler, method string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "https://app.example.com/", nil))
	return w
}

func TestLoopback(t *testing.T) {
	srv := oauthtest.New(t)
	c := newClient(t, options(srv))
	fetch := func(address, host string) (int, string) {
		req, err := http.NewRequest(http.MethodGet, address, nil)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
			t.Errorf("the page allows %q", csp)
		}
		return resp.StatusCode, string(b)
	}
	var pages sync.WaitGroup
	s, err := c.LoginLoopback(t.Context(), string(oauthtest.Handle), oauth.Loopback{Open: func(address string) error {
		pages.Go(func() {
			back, err := srv.Browse(address)
			if err != nil {
				t.Error(err)
				return
			}
			if back.Hostname() != "127.0.0.1" || back.Port() == "" || back.Path != "/callback" {
				t.Errorf("the browser goes to %s", back)
			}
			// What others send changes nothing.
			wrong := *back
			q := wrong.Query()
			q.Set("state", "guess")
			wrong.RawQuery = q.Encode()
			for what, got := range map[string]func() (int, string){
				"state": func() (int, string) { return fetch(wrong.String(), back.Host) },
				"host":  func() (int, string) { return fetch(back.String(), "evil.example") },
				"path":  func() (int, string) { return fetch("http://"+back.Host+"/favicon.ico", back.Host) },
			} {
				if status, body := got(); status < 400 || strings.Contains(body, "guess") {
					t.Errorf("another %s: %d %s", what, status, body)
				}
			}
			if status, body := fetch(back.String(), back.Host); status != 200 || !strings.Contains(body, "logged in as alice.test") {
				t.Errorf("%d %s", status, body)
			}
		})
		return nil
	}})
	pages.Wait()
	if err != nil || s.DID != oauthtest.DID {
		t.Fatal(s, err)
	}
	noProblems(t, srv)
}

func TestLoopbackEnds(t *testing.T) {
	srv := oauthtest.New(t)
	c := newClient(t, options(srv))
	var address string
	_, err := c.LoginLoopback(t.Context(), string(oauthtest.Handle), oauth.Loopback{Wait: 10 * time.Millisecond, Open: func(a string) error { address = a; return nil }})
	if oauth.KindOf(err) != oauth.KindState {
		t.Fatalf("nobody came: %v", err)
	}
	back, err := srv.Browse(address)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Finish(t.Context(), back.Query()); !errors.Is(err, oauth.ErrUnknownState) {
		t.Errorf("a login that was given up is finished: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = c.LoginLoopback(ctx, string(oauthtest.Handle), oauth.Loopback{Open: func(string) error { cancel(); return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = c.LoginLoopback(t.Context(), string(oauthtest.Handle), oauth.Loopback{Port: uint16(taken.Addr().(*net.TCPAddr).Port), Open: func(string) error { return nil }})
	if oauth.KindOf(err) != oauth.KindClient {
		t.Errorf("a port that is taken: %v", err)
	}
	gone := errors.New("no browser")
	if _, err = c.LoginLoopback(t.Context(), string(oauthtest.Handle), oauth.Loopback{Open: func(string) error { return gone }}); !errors.Is(err, gone) {
		t.Error(err)
	}
	srv.Lies.Redirect = func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }
	var browser sync.WaitGroup
	_, err = c.LoginLoopback(t.Context(), string(oauthtest.Handle), oauth.Loopback{Open: func(a string) error {
		browser.Go(func() {
			if back, err := srv.Browse(a); err == nil {
				if resp, err := http.Get(back.String()); err == nil {
					resp.Body.Close()
				}
			}
		})
		return nil
	}})
	browser.Wait()
	if oauth.KindOf(err) != oauth.KindDenied {
		t.Error(err)
	}
}

// browser is one with cookies that follows nothing by itself.
type browser struct {
	t   *testing.T
	h   http.Handler
	jar map[string]string
}

func (b *browser) send(method, target string, form url.Values, header ...string) *http.Response {
	b.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for k, v := range b.jar {
		r.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	resp := w.Result()
	for _, k := range resp.Cookies() {
		if k.MaxAge < 0 {
			delete(b.jar, k.Name)
		} else {
			b.jar[k.Name] = k.Value
		}
		if !k.HttpOnly || !k.Secure || k.SameSite != http.SameSiteLaxMode {
			b.t.Errorf("the cookie %s may be read or sent by others", k)
		}
	}
	return resp
}

func TestWeb(t *testing.T) {
	srv := oauthtest.New(t)
	c := confidential(t, srv, options(srv), oauth.Key{Private: newKey(t)})
	var logged, out atomic.Int32
	var next string
	web := &oauth.Web{
		Client: c, Accounts: auth.New(auth.Options{OAuth: c, Now: time.Now}),
		Done: func(w http.ResponseWriter, r *http.Request, a *auth.Account, to string) {
			logged.Add(1)
			next = to
			http.SetCookie(w, &http.Cookie{Name: "app", Value: string(a.DID()), HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
			http.Redirect(w, r, to, http.StatusSeeOther)
		},
		Who: func(r *http.Request) syntax.DID {
			k, err := r.Cookie("app")
			if err != nil {
				return ""
			}
			return syntax.DID(k.Value)
		},
		Out: func(w http.ResponseWriter, _ *http.Request, err error) {
			out.Add(1)
			if err != nil {
				t.Error(err)
			}
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/login", web.Start())
	mux.Handle("/callback", web.Callback())
	mux.Handle("/logout", web.Logout())
	const app = "https://app.example.com"
	alice, mallory := &browser{t, mux, map[string]string{}}, &browser{t, mux, map[string]string{}}
	start := func(b *browser, to string) string {
		t.Helper()
		resp := b.send(http.MethodPost, app+"/login", url.Values{"account": {string(oauthtest.Handle)}, "next": {to}})
		if resp.StatusCode != http.StatusSeeOther {
			t.Fatal(resp.Status)
		}
		back, err := srv.Browse(resp.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		return back.String()
	}
	for to, want := range map[string]string{"/settings?tab=2": "/settings?tab=2", "": "/", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/", "javascript:alert(1)": "/"} {
		if resp := alice.send(http.MethodGet, start(alice, to), nil); resp.StatusCode != http.StatusSeeOther || next != want {
			t.Errorf("%q ends at %q: %s", to, next, resp.Status)
		}
	}
	for k := range alice.jar {
		if k != "app" {
			t.Errorf("the cookie %s stays", k)
		}
	}

	// Mallory begins a login and has Alice finish it, so that she works in the account of Mallory.
	count := logged.Load()
	bait := start(mallory, "/")
	if resp := alice.send(http.MethodGet, bait, nil); resp.StatusCode != http.StatusBadRequest || logged.Load() != count {
		t.Errorf("somebody else's login: %s", resp.Status)
	}
	for what, resp := range map[string]*http.Response{
		"login by another site":  alice.send(http.MethodPost, app+"/login", url.Values{"account": {string(oauthtest.Handle)}}, "Sec-Fetch-Site", "cross-site"),
		"logout by another site": alice.send(http.MethodPost, app+"/logout", url.Values{}, "Origin", "https://evil.example"),
	} {
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", what, resp.Status)
		}
	}
	for what, resp := range map[string]*http.Response{
		"a link to a login":  alice.send(http.MethodGet, app+"/login?account=alice.test", nil),
		"a link to a logout": alice.send(http.MethodGet, app+"/logout", nil),
	} {
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %s", what, resp.Status)
		}
	}
	resp := alice.send(http.MethodPost, app+"/login", url.Values{"account": {"<b>nobody</b>"}})
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || strings.Contains(string(b), "<b>") {
		t.Errorf("%s %s", resp.Status, b)
	}
	active := srv.Active()
	for range 2 { // the second time there is nobody to log out
		alice.send(http.MethodPost, app+"/logout", url.Values{})
	}
	if out.Load() != 2 || srv.Active() != active-1 {
		t.Errorf("%d logouts, %d of %d sessions are left", out.Load(), srv.Active(), active)
	}
	noProblems(t, srv)
}

func TestFileStates(t *testing.T) {
	folder := t.TempDir()
	root, err := os.OpenRoot(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	now := time.Now()
	open := func() oauth.StateStore { return oauth.NewFileStates(root, func() time.Time { return now }) }
	p := oauth.Pending{State: "s1", Issuer: "https://as.example", Verifier: "v", Key: "k", Data: "d", Expires: now.Add(time.Minute).UTC().Truncate(0)}
	if err := open().Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if i, err := os.Stat(files[0]); err != nil || i.Mode().Perm() != 0o600 || strings.Contains(filepath.Base(files[0]), "s1") {
		t.Errorf("%v, %v", i, err)
	}
	// Of many that want it, one gets it.
	var got, unknown atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			q, err := open().Take(t.Context(), "s1")
			switch {
			case err == nil && q == p:
				got.Add(1)
			case errors.Is(err, oauth.ErrUnknownState):
				unknown.Add(1)
			default:
				t.Error(q, err)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 || unknown.Load() != 49 {
		t.Errorf("%d got it", got.Load())
	}
	for _, state := range []string{"../s1", "", strings.Repeat("x", 1000)} {
		if _, err := open().Take(t.Context(), state); !errors.Is(err, oauth.ErrUnknownState) {
			t.Errorf("%q: %v", state, err)
		}
	}
	if err := open().Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open().Take(t.Context(), "s1"); !errors.Is(err, oauth.ErrUnknownState) {
		t.Errorf("damaged: %v", err)
	}
	// What nobody finishes is swept.
	for i := range 3 {
		p.State = fmt.Sprint("old", i)
		if err := open().Put(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(24 * time.Hour)
	p.State = "new"
	if err := open().Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	files, err = filepath.Glob(filepath.Join(folder, "login-*"))
	if err != nil || len(files) > 1 {
		t.Errorf("%d files are left, %v", len(files), err)
	}
	// What is not over isn't, however long it takes.
	p.State, p.Expires = "long", now.Add(5*time.Hour)
	if err := open().Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	now = now.Add(4 * time.Hour)
	p.State = "another"
	if err := open().Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := open().Take(t.Context(), "long"); err != nil {
		t.Errorf("a login of five hours after four: %v", err)
	}
}

func TestMemoryStatesAreBounded(t *testing.T) {
	s := oauth.NewMemoryStates()
	base := time.Now()
	for i := range 10_050 {
		if err := s.Put(t.Context(), oauth.Pending{State: fmt.Sprint(i), Expires: base.Add(time.Duration(i) * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Take(t.Context(), "0"); !errors.Is(err, oauth.ErrUnknownState) {
		t.Errorf("the oldest is still there: %v", err)
	}
	if _, err := s.Take(t.Context(), "10049"); err != nil {
		t.Error(err)
	}
}
