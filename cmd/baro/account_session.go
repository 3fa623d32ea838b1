package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
)

// sessionVariable holds a session for session import.
const sessionVariable = "BARO_SESSION"

// maxSessionText is how long the text of a session may be, in bytes.
const maxSessionText = 64 << 10

func newAccountSession(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "session",
		Short:   "Take sessions to other programs and back",
		Long:    "A session is what a login leaves: who has it acts for the account until it ends. Treat its text as a password.",
		Example: "  baro account session export --reveal > session.txt\n  baro account session import < session.txt",
	}
	cmd.AddCommand(newAccountSessionExport(e), newAccountSessionImport(e))
	return cmd
}

func newAccountSessionExport(e *env) *cobra.Command {
	var format, as string
	var reveal, move bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the session of an account, with its secret tokens",
		Long: "Prints a session so that another program can use it: in the form of the Python client atproto, whose Client.login takes it as\n" +
			"session_string, or as JSON. Whoever has it acts for the account, so it is printed only with --reveal.\n\n" +
			"Two programs with one session disturb each other: a server gives new tokens for old ones once, and to whoever comes first. --move\n" +
			"forgets the session here.",
		Example: "  (umask 077; baro account session export --reveal > session.txt)\n  baro account session export --reveal --move --format json > session.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "python" && format != "json" {
				return usagef("--format %q: want python or json", format)
			}
			if !reveal {
				return usagef("this prints tokens with which anybody acts for the account: say --reveal, and send the output to a file that only you can read")
			}
			return advise(e.sessionExport(cmd.Context(), as, format, move))
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&reveal, "reveal", false, "print the tokens")
	fl.BoolVar(&move, "move", false, "forget the session here; it is not ended at the server")
	fl.StringVar(&format, "format", "python", "python for the session string of the Python client, json for one line of JSON")
	fl.StringVar(&as, "as", "", "account to use, a handle or DID (default: the one used last)")
	return cmd
}

func (e *env) sessionExport(ctx context.Context, as, format string, move bool) error {
	s, err := e.sessions(ctx, networkFlags{network: networkPublic}) // nobody is asked
	if err != nil {
		return err
	}
	defer s.close()
	x, err := s.find(ctx, as)
	if err != nil {
		return err
	}
	if x.Grant != nil {
		return withHint(errors.New("a session of OAuth is bound to a key of this machine, and can't go elsewhere"), "log in with an app password to get one that can")
	}
	text := x.CompatString()
	if format == "json" || e.json {
		if text, err = x.Text(); err != nil {
			return err
		}
	}
	if isTerminal(e.stdout) {
		fmt.Fprintln(e.stderr, "baro: what follows is secret, and is on your screen now: whoever has it acts for the account")
	}
	if _, err := fmt.Fprintln(e.stdout, text); err != nil {
		return err
	}
	if move {
		if err := s.store.Delete(ctx, x.DID); err != nil {
			return err
		}
		fmt.Fprintf(e.stderr, "the session of %s is no longer kept here\n", x.DID)
	}
	return nil
}

func newAccountSessionImport(e *env) *cobra.Command {
	var f networkFlags
	var unchecked bool
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Keep a session that another program has made",
		Long: "Reads a session from the variable " + sessionVariable + " or from standard input, in the form of the Python client atproto or as JSON of\n" +
			"'baro account session export', tries it at its server, and keeps it. Arguments can be seen by others, and so there is none.",
		Example: "  baro account session import < session.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return advise(e.sessionImport(cmd.Context(), f, unchecked))
		},
	}
	cmd.Flags().BoolVar(&unchecked, "unchecked", false, "keep it without asking its server")
	f.addDirectory(cmd.Flags())
	return cmd
}

func (e *env) sessionImport(ctx context.Context, f networkFlags, unchecked bool) error {
	text := os.Getenv(sessionVariable)
	switch {
	case text != "":
	case isTerminal(e.stdin):
		var err error
		if text, err = e.secretFrom(ctx, sessionVariable, "Session", false); err != nil {
			return err
		}
	default:
		b, err := io.ReadAll(io.LimitReader(contextReader{ctx, e.stdin}, maxSessionText+1))
		if err != nil {
			return fmt.Errorf("reading the session: %w", err)
		}
		if len(b) > maxSessionText {
			return fmt.Errorf("the session has more than %d bytes", maxSessionText)
		}
		text = string(b)
	}
	if strings.TrimSpace(text) == "" {
		return usagef("no session was given: set %s, or give it on standard input", sessionVariable)
	}
	x, err := auth.ParseSession(text)
	if err != nil {
		return fmt.Errorf("this is no session: %w", err)
	}
	s, err := e.sessions(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	n := s.networkOf(x.PDS)
	if isLoopback(x.PDS) {
		if err := n.guard.Allow(hostPort(x.PDS)); err != nil { // whoever brings the session has named it
			return err
		}
	}
	if !unchecked {
		// It is tried out where nothing is kept yet, so that a bad one doesn't take the place of a good one.
		a, err := auth.New(auth.Options{HTTP: n.http, Now: e.world.Clock.Now}).Import(ctx, x)
		if err != nil {
			return err
		}
		out, err := comatproto.ServerGetSession.Call(ctx, a.Client(), nil)
		if err != nil {
			return fmt.Errorf("the session is not good: %w", err)
		}
		if out.Did != string(x.DID) {
			return fmt.Errorf("the session says that it is of %s, and its server that it is of %s", x.DID, inert(out.Did))
		}
		suffix := x.Suffix
		x = a.Session() // the tokens may have been renewed
		x.Suffix = suffix
	}
	a, err := s.manager(n).Import(ctx, x)
	if err != nil {
		return err
	}
	return e.loggedIn(s, a, "logged in to")
}
