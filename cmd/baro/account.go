package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

func newAccount(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "Create an account, log in and out",
		Long: "Sessions are kept below the user's state folder, in files that only you can read; passwords are not kept. Several\n" +
			"accounts may be logged in: the one of the last login is used unless --as names another.",
		Example: "  baro account create carol.test\n  baro account login alice.test\n  baro account ls",
	}
	cmd.AddCommand(newAccountCreate(e), newAccountLogin(e), newAccountLogout(e), newAccountLs(e), newAccountUse(e),
		newAccountStatus(e), newAccountCheckAuth(e), newAccountMissingBlobs(e), newAccountServiceAuth(e),
		newAccountUpdateHandle(e), newAccountActivate(e), newAccountDeactivate(e), newAccountMigrate(e), newAccountPLC(e),
		newAccountSession(e), newAccountServiceAuthOffline(e))
	return cmd
}

// aboutPasswords ends the help of commands that take one.
const aboutPasswords = "\n\nThe password is asked for on a terminal, or taken from the variable BARO_PASSWORD or the first line of standard input.\n" +
	"It is never an argument, which others on this machine could see."

type createFlags struct {
	networkFlags
	handle, email, invite         string
	did, recoveryKey, serviceAuth string
}

func newAccountCreate(e *env) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create [HANDLE]",
		Short: "Create an account",
		Long: "Creates an account on a PDS: that of the local network if one runs, or the one that --pds names. The new account is\n" +
			"logged in.\n\n" +
			"An account that moves keeps its DID: --existing-did names it, and the variable BARO_SERVICE_AUTH holds the proof that it wants to come\n" +
			"here, a token that 'baro account service-auth' has made at the old server. 'baro account migrate' does all steps of a move." + aboutPasswords,
		Example: "  baro account create carol.test\n" +
			"  BARO_PASSWORD=… baro account create carol.pds.example --pds https://pds.example --email carol@example.com",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			handle, err := oneOf("the handle", "--handle", f.handle, args)
			if err != nil {
				return err
			}
			return advise(e.accountCreate(cmd.Context(), handle, f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.handle, "handle", "", "handle of the account, in place of the argument")
	alsoVariable(fl, "handle", "NEW_ACCOUNT_HANDLE")
	fl.StringVar(&f.email, "email", "", "e-mail address, which many servers want")
	alsoVariable(fl, "email", "NEW_ACCOUNT_EMAIL")
	fl.StringVar(&f.invite, "invite-code", "", "invite code, which some servers want")
	fl.StringVar(&f.did, "existing-did", "", "DID that the account has already, if it moves")
	fl.StringVar(&f.recoveryKey, "recovery-key", "", "public key (did:key) of yours that may change the identity, beside the server's own")
	fl.StringVar(&f.serviceAuth, "service-auth", "", "token of the account's old server")
	neverOnCommandLine(fl, "service-auth")
	f.add(fl, false)
	alsoVariable(fl, "pds", "ATP_PDS_HOST")
	return cmd
}

// oneOf is what an argument or a flag in its place says.
func oneOf(what, flag, value string, args []string) (string, error) {
	switch {
	case len(args) == 0 && value == "":
		return "", usagef("%s is missing: give it as an argument, or with %s", what, flag)
	case len(args) == 0 || value == "" || value == args[0]:
		return cmp.Or(value, append(args, "")[0]), nil
	}
	return args[0], nil // a variable may be set for good, and the command line wins
}

func (e *env) accountCreate(ctx context.Context, arg string, f createFlags) error {
	handle, err := syntax.ParseHandle(arg)
	if err != nil {
		return usagef("%q is not a handle, such as carol.test: %w", arg, err)
	}
	s, err := e.sessions(ctx, f.networkFlags)
	if err != nil {
		return err
	}
	defer s.close()
	var n *network
	for _, c := range s.ns.list {
		if c.pds != "" {
			n = c
			break
		}
	}
	if n == nil {
		return withHint(errors.New("no PDS to create the account on"), "name one with --pds, or start a local network with 'baro up'")
	}
	in := &comatproto.ServerCreateAccount_Input{Handle: string(handle.Normalize())}
	if (f.did == "") != (f.serviceAuth == "") {
		return usagef("an account that moves needs both --existing-did and a token in BARO_SERVICE_AUTH")
	}
	if f.did != "" {
		if _, err := syntax.ParseDID(f.did); err != nil {
			return usagef("--existing-did %q: %w", f.did, err)
		}
		in.Did = &f.did
	}
	if f.recoveryKey != "" {
		if _, err := keys.ParseDIDKey(f.recoveryKey); err != nil {
			return usagef("--recovery-key: %w: want a public key such as did:key:zQ3sh…", err)
		}
		in.RecoveryKey = &f.recoveryKey
	}
	password, err := e.secretFrom(ctx, passwordVariable, "Password", true, "NEW_ACCOUNT_PASSWORD")
	if err != nil {
		return err
	}
	in.Password = &password
	if f.email != "" {
		in.Email = &f.email
	}
	if f.invite != "" {
		in.InviteCode = &f.invite
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var a *auth.Account
	if f.did == "" {
		a, err = s.manager(n).Create(ctx, n.pds, in)
	} else {
		a, err = s.moveIn(ctx, n, in, f.serviceAuth)
	}
	switch {
	case errors.Is(err, comatproto.ErrInvalidInviteCode):
		return withHint(err, "this server wants an invite code: --invite-code")
	case errors.Is(err, comatproto.ErrHandleNotAvailable):
		return withHint(err, "choose another handle")
	case errors.Is(err, comatproto.ErrUnsupportedDomain):
		return domainsHint(ctx, n, err)
	case err != nil:
		return err
	}
	return e.loggedIn(s, a, "created")
}

// moveIn makes an account for a DID that is hosted elsewhere until it is activated here.
func (s *sessions) moveIn(ctx context.Context, n *network, in *comatproto.ServerCreateAccount_Input, token string) (*auth.Account, error) {
	out, err := comatproto.ServerCreateAccount.Call(ctx, n.xrpc().WithAuth(xrpc.Bearer(token)), in)
	if err != nil {
		return nil, fmt.Errorf("creating the account at %s: %w", n.pds, err)
	}
	return s.manager(n).Import(ctx, auth.Session{DID: syntax.DID(out.Did), Handle: syntax.Handle(out.Handle), PDS: n.pds, Access: out.AccessJwt, Refresh: out.RefreshJwt})
}

// domainsHint tells which handles a PDS gives.
func domainsHint(ctx context.Context, n *network, refused error) error {
	out, err := comatproto.ServerDescribeServer.Call(ctx, n.xrpc(), nil)
	if err != nil || len(out.AvailableUserDomains) == 0 {
		return withHint(refused, "this server gives other handles")
	}
	domains := inert(strings.Join(out.AvailableUserDomains, ", "))
	if strings.Contains(refused.Error(), domains) {
		return refused // it says so itself
	}
	return withHint(refused, "handles of this server end in %s", domains)
}

func newAccountLogin(e *env) *cobra.Command {
	var f networkFlags
	var o oauthFlags
	var name string
	cmd := &cobra.Command{
		Use:   "login [ACCOUNT]",
		Short: "Log in",
		Long: "Logs in to an account, given by handle or DID, at the PDS that its DID document names, or at --pds. An app password is\n" +
			"better than the account's own. A server that mails a code as a second factor is answered from the terminal or from\n" +
			"the variable BARO_AUTH_FACTOR_TOKEN.\n\n" +
			"With --oauth the account's own server asks in the browser, and this program sees no password. ACCOUNT may then be the\n" +
			"URL of the server too. The session can do what --scope says, as far as you agree: by default what an app password can." + aboutPasswords,
		Example: "  baro account login alice.test\n  baro account login alice.example.com < password.txt\n" +
			"  baro account login --oauth alice.example.com\n  baro account login --oauth alice.example.com --scope 'repo:app.bsky.feed.post?action=create blob:image/*'",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			who, err := oneOf("the account", "--username", name, args)
			if err == nil {
				err = o.check()
			}
			if err != nil {
				return err
			}
			if o.oauth {
				return advise(e.accountLoginOAuth(cmd.Context(), who, f, o))
			}
			return advise(e.accountLogin(cmd.Context(), who, f))
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&name, "username", "u", "", "the account, in place of the argument")
	alsoVariable(fl, "username", usernameVariables...)
	o.add(fl)
	f.add(fl, false)
	alsoVariable(fl, "pds", "ATP_PDS_HOST")
	return cmd
}

func (e *env) accountLogin(ctx context.Context, arg string, f networkFlags) error {
	id, err := parseAccount(arg)
	if err != nil {
		return err
	}
	s, err := e.sessions(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	who, err := s.ns.lookup(ctx, id)
	if err != nil {
		return err
	}
	password, err := e.secretFrom(ctx, passwordVariable, "Password", false, passwordVariables...)
	if err != nil {
		return err
	}
	c := auth.Credentials{Identifier: string(who.DID), Password: password, DID: who.DID}
	login := func() (*auth.Account, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return s.manager(who.net).Login(ctx, who.pds, c)
	}
	a, err := login()
	if errors.Is(err, comatproto.ErrAuthFactorTokenRequired) {
		fmt.Fprintln(e.stderr, "the server has mailed a code")
		if c.Token, err = e.secretFrom(ctx, tokenVariable, "Code", false, "ATP_AUTH_FACTOR_TOKEN"); err != nil {
			return err
		}
		a, err = login()
	}
	if errors.Is(err, xrpc.ErrAuthRequired) {
		return withHint(err, "an app password is made in the settings of your account")
	}
	if err != nil {
		return err
	}
	return e.loggedIn(s, a, "logged in to")
}

// loggedIn makes an account the current one and says so.
func (e *env) loggedIn(s *sessions, a *auth.Account, did string) error {
	x := a.Session()
	if err := s.use(x.DID); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"did": x.DID, "handle": x.Handle, "pds": x.PDS})
	}
	_, err := fmt.Fprintf(e.stdout, "%s %s (%s) at %s\n", did, x.Handle, x.DID, x.PDS)
	fmt.Fprintf(e.stderr, "the session is kept in %s\n", s.dir)
	return err
}

func newAccountLogout(e *env) *cobra.Command {
	var f networkFlags
	var all bool
	cmd := &cobra.Command{
		Use:     "logout [ACCOUNT]",
		Short:   "Log out",
		Long:    "Ends the session of an account, the one used last if none is named, at the server and here.",
		Example: "  baro account logout\n  baro account logout alice.test\n  baro account logout --all",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef("--all and an account are opposites: choose one")
			}
			return advise(e.accountLogout(cmd.Context(), args, all, f))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "log all accounts out")
	f.add(cmd.Flags(), false)
	return cmd
}

func (e *env) accountLogout(ctx context.Context, args []string, all bool, f networkFlags) error {
	s, err := e.sessions(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	var list []auth.Session
	if all {
		if list, err = s.store.List(ctx); err != nil {
			return err
		}
	} else {
		as := ""
		if len(args) == 1 {
			as = args[0]
		}
		x, err := s.find(ctx, as)
		if err != nil {
			return err
		}
		list = []auth.Session{x}
	}
	var errs []error
	for _, x := range list {
		a, err := s.account(ctx, string(x.DID))
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			err = a.Logout(ctx)
			cancel()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", x.DID, err))
			continue
		}
		if e.json {
			err = e.printJSON(map[string]any{"did": x.DID, "handle": x.Handle})
		} else {
			_, err = fmt.Fprintf(e.stdout, "logged out of %s (%s)\n", x.Handle, x.DID)
		}
		errs = append(errs, err)
	}
	if left, err := s.store.List(ctx); err == nil && s.current() != "" {
		there := false
		for _, x := range left {
			there = there || x.DID == s.current()
		}
		if !there {
			errs = append(errs, s.root.Remove(currentName))
		}
	}
	return errors.Join(errs...)
}

func newAccountLs(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the accounts that are logged in",
		Long:    "Lists the accounts that are logged in on this machine. A star marks the one that commands use.",
		Example: "  baro account ls\n  baro account ls --json | jq -r .handle",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return advise(e.accountLs(cmd.Context()))
		},
	}
}

func (e *env) accountLs(ctx context.Context) error {
	s, err := e.sessions(ctx, networkFlags{network: networkPublic}) // nobody is asked
	if err != nil {
		return err
	}
	defer s.close()
	list, err := s.store.List(ctx)
	cur := s.current()
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	for _, x := range list {
		current := x.DID == cur || len(list) == 1
		line := map[string]any{"did": x.DID, "handle": x.Handle, "pds": x.PDS, "current": current}
		until := ""
		if t, ok := x.RefreshExpires(); ok {
			line["expires"] = t.UTC().Format(time.RFC3339)
			until = "until " + t.Format(time.DateOnly)
			if t.Before(e.world.Clock.Now()) {
				until = "expired"
			}
		}
		if x.Grant != nil {
			line["oauth"], line["scope"] = true, x.Grant.Scope
			until = strings.TrimSpace("oauth " + until)
		}
		if e.json {
			if perr := e.printJSON(line); perr != nil {
				return perr
			}
			continue
		}
		mark := " "
		if current {
			mark = "*"
		}
		fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\n", mark, x.Handle, x.DID, x.PDS, until)
	}
	if len(list) == 0 && err == nil && !e.json {
		fmt.Fprintln(e.stderr, "nobody is logged in: 'baro account login HANDLE'")
	}
	return errors.Join(w.Flush(), err)
}

func newAccountUse(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "use ACCOUNT",
		Short:   "Choose the account that commands use",
		Long:    "Has commands without --as act for this account, which must be logged in.",
		Example: "  baro account use alice.test",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := e.sessions(cmd.Context(), networkFlags{network: networkPublic}) // nobody is asked
			if err != nil {
				return advise(err)
			}
			defer s.close()
			x, err := s.find(cmd.Context(), args[0])
			if err != nil {
				return advise(err)
			}
			if err := s.use(x.DID); err != nil {
				return advise(err)
			}
			fmt.Fprintf(e.stderr, "commands use %s (%s) from now on\n", x.Handle, x.DID)
			return nil
		},
	}
}
