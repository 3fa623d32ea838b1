package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/oauth"
	"github.com/barograph/baro/auth/scope"
)

// defaultScope is what an app password may do, which is what most commands need.
const defaultScope = scope.Atproto + " " + scope.TransitionGeneric

// scopeMissing is what the reference PDS calls the error of a call beyond what a session was granted.
const scopeMissing = "ScopeMissingError"

// loginWait is how long a person has in the browser.
const loginWait = 10 * time.Minute

// oauthFlags are those of a login in the browser.
type oauthFlags struct {
	oauth, noBrowser bool
	scope            string
	port             uint16
}

func (f *oauthFlags) add(fl *pflag.FlagSet) {
	fl.BoolVar(&f.oauth, "oauth", false, "log in in the browser, at the account's own server, without a password here")
	fl.BoolVar(&f.noBrowser, "no-browser", false, "with --oauth: only print the address")
	fl.Uint16Var(&f.port, "callback-port", 0, "with --oauth: port of this machine that the browser comes back to (default: a free one); for a browser elsewhere, with 'ssh -L PORT:127.0.0.1:PORT'")
	fl.StringVar(&f.scope, "scope", defaultScope, "with --oauth: what the session may do, scopes separated by spaces")
}

// check refuses flags that only --oauth gives a meaning to.
func (f *oauthFlags) check() error {
	if !f.oauth && (f.noBrowser || f.port != 0 || f.scope != defaultScope) {
		return usagef("--no-browser, --callback-port and --scope go with --oauth")
	}
	return nil
}

// oauthClient is this program as servers of OAuth see it, in a network. Plain HTTP to this machine is for local networks: the guard
// of the network decides which.
func (e *env) oauthClient(n *network, want scope.Set) (*oauth.Client, error) {
	return oauth.New(oauth.Options{
		ClientID: oauth.LocalhostID(want, oauth.LoopbackRedirect), Scope: want, HTTP: n.http, Directory: n.dir,
		Now: e.world.Clock.Now, Rand: e.world.Rand, AllowLocalhost: true,
	})
}

// accountLoginOAuth logs in to an account, or at a server, in the browser.
func (e *env) accountLoginOAuth(ctx context.Context, arg string, f networkFlags, o oauthFlags) error {
	want, err := scope.Parse(o.scope)
	if err == nil && !want.Has(scope.Atproto) {
		want = want.With(scope.Atproto) // nothing works without it
	}
	if err != nil {
		return usagef("--scope: %w", err)
	}
	s, err := e.sessions(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	var n *network
	account := arg
	if strings.Contains(arg, "://") && !strings.HasPrefix(arg, "at://") {
		if account, err = serviceURL(arg); err != nil {
			return usagef("%w", err)
		}
		n = s.networkOf(account)
		if err := n.guard.Allow(hostPort(account)); err != nil { // the user has named it
			return err
		}
	} else {
		id, err := parseAccount(arg)
		if err != nil {
			return err
		}
		who, err := s.ns.lookup(ctx, id)
		if err != nil {
			return err
		}
		n, account = who.net, string(id)
	}
	c, err := e.oauthClient(n, want)
	if err != nil {
		return err
	}
	session, err := c.LoginLoopback(ctx, account, oauth.Loopback{Wait: loginWait, Port: o.port, Open: func(address string) error {
		where := "on this machine"
		if o.port != 0 {
			where = fmt.Sprintf("that reaches port %d of this machine as its own", o.port)
		}
		fmt.Fprintf(e.stderr, "to log in, open this address in a browser %s:\n\n  %s\n\n", where, inert(address))
		if o.noBrowser {
			return nil
		}
		if err := openBrowser(ctx, address); err != nil {
			e.log.Debug("no browser was opened", "err", err)
		}
		return nil
	}})
	if err != nil {
		return adviseOAuth(err)
	}
	a, err := s.manager(n).Add(ctx, session)
	if err != nil {
		return err
	}
	for p := range strings.FieldsSeq(want.String()) {
		if granted, _ := scope.Read(session.Grant.Scope); !granted.Has(p) {
			fmt.Fprintf(e.stderr, "not granted: %s\n", inert(p))
		}
	}
	return e.loggedIn(s, a, "logged in to")
}

// adviseOAuth adds a hint to what can go wrong at a login.
func adviseOAuth(err error) error {
	switch oauth.KindOf(err) {
	case oauth.KindDenied:
		return withHint(err, "the login was refused in the browser")
	case oauth.KindState:
		return withHint(err, "start the login again")
	case oauth.KindMetadata:
		return withHint(err, "the account's server may not know OAuth: log in with an app password, without --oauth")
	case oauth.KindScope:
		return withHint(err, "the server has to grant atproto at least")
	}
	if e, ok := errors.AsType[*oauth.Error](err); ok && e.Code == "invalid_scope" {
		return withHint(err, "the account's server doesn't know one of the scopes: choose others with --scope")
	}
	return err
}

// browsers are the commands that show an address in the person's own browser, by operating system.
var browsers = map[string][]string{
	"darwin":  {"open"},
	"windows": {"rundll32", "url.dll,FileProtocolHandler"},
}

// openBrowser shows an address, which has to be one of a page, in a browser.
func openBrowser(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q is not the address of a page", address)
	}
	command := browsers[runtime.GOOS]
	if command == nil {
		// Without a desktop this would be a browser in the terminal, in the middle of other output.
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return errors.New("there is no desktop")
		}
		command = []string{"xdg-open"}
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], address)...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // it ends with this program at the latest; that it failed shows in nobody coming back
	return nil
}

// granted is what a session may do; false if it is one of a password, or if the server has not spelled out what a set of
// permissions stands for.
func granted(s auth.Session) (scope.Set, bool) {
	if s.Grant == nil {
		return scope.Set{}, false
	}
	set, _ := scope.Read(s.Grant.Scope) // what isn't known allows nothing
	for _, p := range set.Permissions() {
		if p.Resource == scope.ResourceInclude {
			return scope.Set{}, false
		}
	}
	return set, true
}
