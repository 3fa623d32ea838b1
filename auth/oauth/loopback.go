package oauth

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/scope"
)

// LoopbackRedirect is the redirect URI of programs that use [Client.LoginLoopback], for [LocalhostID] and for metadata. The port is
// another one each time.
const LoopbackRedirect = "http://127.0.0.1/callback"

const loopbackPath = "/callback"

// Loopback says how a program on a person's own machine sends them to the browser and gets the answer.
type Loopback struct {
	// Open shows the person an address: by opening a browser, by printing it, or both. An error ends the login.
	Open func(address string) error
	// Wait is how long the person has; 0: the client's [Options.Life].
	Wait time.Duration
	// Port of 127.0.0.1 that the browser comes back to; 0: a free one. One that is known can be led here from the machine that
	// the browser is on: ssh -L PORT:127.0.0.1:PORT.
	Port   uint16
	Scope  scope.Set // see [Request]
	Prompt string    // see [Request]
}

// LoginLoopback logs in to an account, see [Request], and waits for the person. The browser comes back to a server on 127.0.0.1,
// which listens for this one answer: what isn't the answer to this login is turned away and changes nothing. The page that the
// person sees in the end says whether it worked.
func (c *Client) LoginLoopback(ctx context.Context, account string, l Loopback) (auth.Session, error) {
	const op = "logging in"
	fail := func(err error) (auth.Session, error) {
		return auth.Session{}, &Error{Op: op, Kind: KindClient, Err: err}
	}
	if l.Open == nil {
		return fail(errors.New("there is no way to show the address"))
	}
	if l.Wait == 0 {
		l.Wait = c.o.Life
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(l.Port))))
	if err != nil {
		return fail(fmt.Errorf("listening for the browser: %w", err))
	}
	defer ln.Close()
	host := ln.Addr().String()
	login, err := c.Start(ctx, Request{Account: account, RedirectURI: "http://" + host + loopbackPath, Scope: l.Scope, Prompt: l.Prompt})
	if err != nil {
		return auth.Session{}, err
	}

	took := fmt.Errorf("nobody came back from the browser in %s", l.Wait)
	waiting, cancel := context.WithTimeoutCause(ctx, l.Wait, took)
	defer cancel()
	type outcome struct {
		session auth.Session
		err     error
	}
	done := make(chan outcome, 1)
	turn := make(chan struct{}, 1)
	turn <- struct{}{}
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    64 << 10,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			state := r.URL.Query().Get("state")
			switch {
			case r.Host != host: // a name that was made to lead here
				page(w, http.StatusMisdirectedRequest, "This is not the address of this program.", "")
				return
			case r.URL.Path != loopbackPath:
				page(w, http.StatusNotFound, "There is nothing here.", "")
				return
			case r.Method != http.MethodGet:
				page(w, http.StatusMethodNotAllowed, "This page is only read.", "")
				return
			case subtle.ConstantTimeCompare([]byte(state), []byte(login.State)) != 1:
				page(w, http.StatusBadRequest, "This is not the answer to the login that is under way.", "Go back to the program and use the address that it shows.")
				return
			}
			select {
			case <-turn:
			default:
				page(w, http.StatusConflict, "This login is finished.", "You can close this window.")
				return
			}
			s, _, err := c.Finish(waiting, r.URL.Query())
			switch {
			case err == nil:
				name := string(s.Handle)
				if name == "" {
					name = string(s.DID)
				}
				page(w, http.StatusOK, "You are logged in as "+name+".", "You can close this window and go back to the program.")
			case KindOf(err) == KindDenied:
				page(w, http.StatusOK, "You did not log in.", "You can close this window.")
			default:
				page(w, http.StatusBadGateway, "The login did not work.", "The program says why.")
			}
			done <- outcome{s, err}
		}),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() {
		// The page has to get to the browser.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
		<-served
	}()
	if err := l.Open(login.URL); err != nil {
		return fail(fmt.Errorf("showing the address: %w", err))
	}
	select {
	case o := <-done:
		return o.session, o.err
	case <-waiting.Done():
		_, _ = c.o.States.Take(context.WithoutCancel(ctx), login.State) // nobody may finish it any more
		return auth.Session{}, &Error{Op: op, Server: login.Server, Kind: KindState, Err: context.Cause(waiting)}
	}
}

// The style is allowed by its hash.
var pages = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>` + pageStyle + `</style></head>
<body><h1>{{.Title}}</h1>{{with .Text}}<p>{{.}}</p>{{end}}</body></html>
`))

const (
	pageStyle     = `body{font:18px/1.5 system-ui,sans-serif;max-width:36em;margin:20vh auto;padding:0 1em;color-scheme:light dark}`
	pageStyleHash = "sha256-51p2e6kBqApfIWHvg+EREBmtvyPO6LSkBt5uSt0n8Z8="
)

// page writes a small page that can do nothing.
func page(w http.ResponseWriter, status int, title, text string) {
	var b strings.Builder
	if err := pages.Execute(&b, struct{ Title, Text string }{title, text}); err != nil {
		http.Error(w, title, status)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Set("Content-Security-Policy", "default-src 'none'; style-src '"+pageStyleHash+"'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer") // the address has the code in it
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Connection", "close")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(b.String())) // nobody is left to tell
}

// isHTTPS reports whether a URL is one of https.
func isHTTPS(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https"
}
