package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/syntax"
)

// stateDir is where sessions are, by the XDG base directory rules.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "baro"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", withHint(fmt.Errorf("looking for the user's state folder: %w", err), "set XDG_STATE_HOME")
	}
	return filepath.Join(home, ".local", "state", "baro"), nil
}

// currentName is the file that names the account used last.
const currentName = "current"

// sessions are the accounts that are logged in, and those who make requests for them.
type sessions struct {
	ns   *networks
	dir  string
	root *os.Root
	// managers has one manager for each network, since each has its own guard.
	managers map[*network]*auth.Manager
	store    *auth.FileStore
}

// sessions opens the folder of sessions.
func (e *env) sessions(ctx context.Context, f networkFlags) (*sessions, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, "sessions")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of sessions: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the folder of sessions: %w", err)
	}
	ns, err := e.networks(ctx, f)
	if err != nil {
		root.Close()
		return nil, err
	}
	return &sessions{
		ns: ns, dir: dir, root: root, managers: map[*network]*auth.Manager{},
		store: auth.NewFileStore(root),
	}, nil
}

func (s *sessions) close() { s.root.Close() }

// manager returns the manager for requests in a network.
func (s *sessions) manager(n *network) *auth.Manager {
	m := s.managers[n]
	if m == nil {
		o := auth.Options{HTTP: n.http, Store: s.store, Now: s.ns.e.world.Clock.Now, OnEvent: func(ev auth.Event, x auth.Session) {
			s.ns.e.log.Info("session", "event", ev, "session", x)
		}}
		if c, err := s.ns.e.oauthClient(n, scope.Of()); err == nil { // sessions say themselves by which client they are
			o.OAuth = c
		}
		m = auth.New(o)
		s.managers[n] = m
	}
	return m
}

// networkOf is the network that a PDS is in: a local one if it is its PDS, the last one otherwise.
func (s *sessions) networkOf(pds string) *network {
	for _, n := range s.ns.list {
		if n.pds == pds {
			return n
		}
	}
	return s.ns.list[len(s.ns.list)-1]
}

func (s *sessions) current() syntax.DID {
	b, err := s.root.ReadFile(currentName)
	if err != nil {
		return ""
	}
	return syntax.DID(strings.TrimSpace(string(b)))
}

// use makes an account the one that commands use.
func (s *sessions) use(did syntax.DID) error {
	tmp := currentName + ".new"
	if err := s.root.WriteFile(tmp, []byte(did+"\n"), 0o600); err != nil {
		return fmt.Errorf("remembering the account: %w", err)
	}
	return s.root.Rename(tmp, currentName)
}

// find returns a session by handle or DID, the current one for "".
func (s *sessions) find(ctx context.Context, as string) (auth.Session, error) {
	list, err := s.store.List(ctx)
	if len(list) == 0 {
		return auth.Session{}, errors.Join(err, auth.ErrLoginRequired)
	}
	if as == "" {
		if len(list) == 1 {
			return list[0], nil
		}
		cur := s.current()
		for _, x := range list {
			if x.DID == cur {
				return x, nil
			}
		}
		return auth.Session{}, withHint(auth.ErrLoginRequired, "several accounts are logged in: choose one with --as, or with 'baro account use'")
	}
	id, err := parseAccount(as)
	if err != nil {
		return auth.Session{}, err
	}
	var found []auth.Session
	for _, x := range list {
		if x.DID == id.DID() || !id.IsDID() && x.Handle.Normalize() == id.Handle().Normalize() {
			found = append(found, x)
		}
	}
	switch len(found) {
	case 0:
		return auth.Session{}, withHint(fmt.Errorf("%s: %w", as, auth.ErrLoginRequired), "log in with 'baro account login %s'; 'baro account ls' shows who is", as)
	case 1:
		return found[0], nil
	}
	return auth.Session{}, usagef("several accounts were called %s when they logged in: use the DID", as)
}

// account returns an account to make requests for, by handle or DID, or the current one for "".
func (s *sessions) account(ctx context.Context, as string) (*auth.Account, error) {
	x, err := s.find(ctx, as)
	if err != nil {
		return nil, err
	}
	n := s.networkOf(x.PDS)
	if isLoopback(x.PDS) {
		// The user logged in there, and so has named it.
		if err := n.guard.Allow(hostPort(x.PDS)); err != nil {
			return nil, err
		}
	}
	return s.manager(n).Account(ctx, x.DID)
}

// Secrets never come as arguments, which other users of a machine can see: they come from these variables, from a
// terminal without echo, or from the first line of standard input.
const (
	passwordVariable = "BARO_PASSWORD"
	tokenVariable    = "BARO_AUTH_FACTOR_TOKEN"
)

// Variables that goat takes the same from come after those of this program.
var (
	usernameVariables = []string{"GOAT_USERNAME", "ATP_USERNAME", "ATP_AUTH_USERNAME"}
	passwordVariables = []string{"GOAT_PASSWORD", "ATP_PASSWORD", "ATP_AUTH_PASSWORD"}
)

// secretFrom reads a secret, from the variable or the first of the others that is set. Twice asks a second time on a terminal.
func (e *env) secretFrom(ctx context.Context, variable, prompt string, twice bool, others ...string) (string, error) {
	for _, name := range append([]string{variable}, others...) {
		if v := os.Getenv(name); v != "" {
			return v, nil
		}
	}
	if f, ok := e.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		ask := func(prompt string) (string, error) {
			fmt.Fprintf(e.stderr, "%s: ", prompt)
			b, err := readPassword(ctx, int(f.Fd()))
			fmt.Fprintln(e.stderr)
			return string(b), err
		}
		v, err := ask(prompt)
		if err != nil {
			return "", fmt.Errorf("reading the %s: %w", strings.ToLower(prompt), err)
		}
		if twice {
			again, err := ask("Once more")
			if err != nil {
				return "", fmt.Errorf("reading the %s: %w", strings.ToLower(prompt), err)
			}
			if again != v {
				return "", errors.New("the two are not the same")
			}
		}
		if v == "" {
			return "", usagef("no %s was given", strings.ToLower(prompt))
		}
		return v, nil
	}
	line, err := bufio.NewReader(io.LimitReader(e.stdin, 4096)).ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("reading the %s: %w", strings.ToLower(prompt), err)
		}
		return "", usagef("no %s was given: set %s, or give it in the first line of standard input", strings.ToLower(prompt), variable)
	}
	return line, nil
}

// answer reads a line that somebody types; it is empty at the end of what is typed.
func (e *env) answer(ctx context.Context, from *bufio.Reader) (string, error) {
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() { // a read of a terminal can't be called off: after a signal it ends with the process
		text, err := from.ReadString('\n')
		read <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(e.stderr)
		return "", ctx.Err()
	case l := <-read:
		if l.err != nil && l.err != io.EOF {
			return "", l.err
		}
		return strings.TrimSpace(l.text), nil
	}
}

// agree has the user type one of the names of what is about to be changed for good.
func (e *env) agree(ctx context.Context, what string, names ...string) error {
	fmt.Fprintf(e.stderr, "%s\nType %s to agree: ", what, strings.Join(names, " or "))
	said, err := e.answer(ctx, bufio.NewReader(io.LimitReader(e.stdin, 4096)))
	if err != nil {
		return err
	}
	for _, n := range names {
		if said != "" && strings.EqualFold(strings.TrimPrefix(said, "@"), n) {
			return nil
		}
	}
	return errors.New("that was another name: nothing was done")
}

// readPassword reads without echo, and gives the terminal back as it was when it is interrupted.
func readPassword(ctx context.Context, fd int) ([]byte, error) {
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = term.Restore(fd, state) // the process is about to end
		os.Exit(exitFailure)
	})
	defer stop()
	return term.ReadPassword(fd)
}
