package oauth_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/oauth"
	"github.com/barograph/baro/auth/oauth/oauthtest"
	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// cleanup is the part of a test that the server of the examples needs.
type cleanup []func()

func (c *cleanup) Cleanup(f func()) { *c = append(*c, f) }

func (c *cleanup) run() {
	for _, f := range *c {
		f()
	}
}

// A program for the command line: the browser comes back to a port of this machine, and the session works like any other.
func Example_commandLine() {
	var c cleanup
	defer c.run()
	srv := oauthtest.NewOneHost(&c) // stands for the servers of the account
	ctx := context.Background()

	want := scope.Of(scope.Repo("app.bsky.feed.post").On(scope.Create))
	app, err := oauth.New(oauth.Options{
		ClientID: oauth.LocalhostID(want, oauth.LoopbackRedirect), Scope: want,
		HTTP: new(http.Client), Directory: srv.Directory(), Now: time.Now, Rand: rand.Reader, AllowLocalhost: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	accounts := auth.New(auth.Options{OAuth: app, Store: auth.NewMemoryStore(), Now: time.Now}) // or auth.OpenFileStore
	var browser sync.WaitGroup
	session, err := app.LoginLoopback(ctx, "alice.test", oauth.Loopback{Open: func(address string) error {
		browser.Go(func() { _, _ = http.Get(address) }) // a program prints the address, and opens a browser
		return nil
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	account, err := accounts.Add(ctx, session)
	if err != nil {
		fmt.Println(err)
		return
	}
	browser.Wait()
	out, err := comatproto.ServerGetSession.Call(ctx, account.Client(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(out.Handle, "granted", session.Grant.Scope)
	// Output: alice.test granted atproto repo:app.bsky.feed.post?action=create
}

// A program on the web: a confidential client with metadata, handlers, and a cookie of its own.
func Example_web() {
	var c cleanup
	defer c.run()
	srv := oauthtest.NewOneHost(&c) // stands for the servers of the account
	key, err := keys.Generate(keys.P256, rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	app, err := oauth.New(oauth.Options{
		ClientID:     "https://app.example.com/client-metadata.json",
		RedirectURIs: []string{"https://app.example.com/callback"},
		Scope:        scope.Of(scope.Repo("com.example.note")), Name: "Notes", Keys: []oauth.Key{{ID: "2026", Private: key}},
		HTTP: new(http.Client), Directory: srv.Directory(), Now: time.Now, Rand: rand.Reader, AllowLocalhost: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	web := &oauth.Web{
		Client: app, Accounts: auth.New(auth.Options{OAuth: app, Now: time.Now}),
		Done: func(w http.ResponseWriter, r *http.Request, a *auth.Account, next string) {
			fmt.Println("logged in:", a.Session().Handle) // here a program sets its own cookie
			http.Redirect(w, r, next, http.StatusSeeOther)
		},
		Who: func(*http.Request) syntax.DID { return "" }, // and here it reads it
		Out: func(w http.ResponseWriter, r *http.Request, _ error) { http.Redirect(w, r, "/", http.StatusSeeOther) },
	}
	mux := http.NewServeMux()
	mux.Handle("GET /client-metadata.json", app.MetadataHandler())
	mux.Handle("POST /login", web.Start())
	mux.Handle("GET /callback", web.Callback())
	mux.Handle("POST /logout", web.Logout())

	// What a browser does with it.
	srv.Clients["https://app.example.com/client-metadata.json"] = app.Metadata() // which the server would fetch
	form := httptest.NewRequest(http.MethodPost, "https://app.example.com/login", strings.NewReader("account=alice.test&next=/notes"))
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	started := httptest.NewRecorder()
	mux.ServeHTTP(started, form)
	back, err := srv.Browse(started.Header().Get("Location"))
	if err != nil {
		fmt.Println(err)
		return
	}
	callback := httptest.NewRequest(http.MethodGet, back.String(), nil)
	for _, k := range started.Result().Cookies() {
		callback.AddCookie(k)
	}
	done := httptest.NewRecorder()
	mux.ServeHTTP(done, callback)
	fmt.Println("goes on to", done.Header().Get("Location"))
	// Output:
	// logged in: alice.test
	// goes on to /notes
}
