package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client/migrate"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

type migrateFlags struct {
	accountFlags
	to, handle, email, password, invite, token string
	rotationKey, keyFile                       string
	dropKeys                                   []string
	allowMissing, dryRun, abandon, wait        bool
}

func newAccountMigrate(e *env) *cobra.Command {
	var f migrateFlags
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Move your account to another PDS",
		Long: "Moves the account that you are logged in to, with its repository, blobs and preferences, to another PDS, and makes its\n" +
			"identity name that one. Log in with the password of the account itself before: an app password can't do this.\n\n" +
			"The move may be interrupted at any point; the same command, or 'baro account migrate' alone, goes on where it was. With\n" +
			"--dry-run nothing is changed anywhere, and everything that stands against the move is told. Until the identity is changed,\n" +
			"--abandon undoes the move.\n\n" +
			"The change of a did:plc is signed by the old host, which mails a code for it: it is asked for on a terminal, and else the\n" +
			"command ends and is run again with --plc-token. Who holds a rotation key signs with it instead, by --plc-signing-key. For a\n" +
			"did:web the document that you have to publish is printed; --wait waits until it is there.\n\n" +
			"The password of the new account is asked for on a terminal, or taken from the variable NEW_ACCOUNT_PASSWORD or the first line of\n" +
			"standard input.",
		Example: "  baro account migrate --pds-host https://pds.example --new-handle alice.pds.example --dry-run\n" +
			"  baro account migrate --pds-host https://pds.example --new-handle alice.pds.example --invite-code CODE\n" +
			"  baro account migrate --plc-token ABCDE-12345\n" +
			"  baro account migrate --abandon",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.dryRun && f.abandon {
				return usagef("--dry-run and --abandon are opposites: choose one")
			}
			return adviseMigration(e.accountMigrate(cmd.Context(), f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.to, "pds-host", "", "URL of the PDS to move to")
	fl.StringVar(&f.handle, "new-handle", "", "handle there (default: the present one, if it is of your own domain)")
	fl.StringVar(&f.email, "new-email", "", "e-mail address there (default: the present one)")
	fl.StringVar(&f.password, "new-password", "", "password there")
	neverOnCommandLine(fl, "new-password")
	alsoVariable(fl, "new-password", "NEW_ACCOUNT_PASSWORD")
	fl.StringVar(&f.invite, "invite-code", "", "invite code, which some servers want")
	fl.StringVar(&f.token, "plc-token", "", "code that the old host has mailed")
	alsoVariable(fl, "plc-token", "PLC_SIGN_TOKEN")
	fl.StringVar(&f.rotationKey, "rotation-key", "", "did:key of a key of your own that becomes the strongest rotation key of the identity")
	fl.StringArrayVar(&f.dropKeys, "drop-rotation-key", nil, "did:key of a rotation key that goes away; may be repeated")
	addSigningKey(fl, &f.keyFile)
	fl.BoolVar(&f.allowMissing, "allow-missing-blobs", false, "go on without the blobs that can't be copied")
	fl.BoolVar(&f.dryRun, "dry-run", false, "look at everything and change nothing")
	fl.BoolVar(&f.abandon, "abandon", false, "give the move up, as long as the identity has not changed")
	fl.BoolVar(&f.wait, "wait", false, "wait until the document of a did:web has been published")
	fl.StringVar(&f.as, "as", "", "account to move, a handle or DID (default: the one used last)")
	f.addDirectory(fl)
	return cmd
}

// migration is a job and what it is given.
type migration struct {
	e    *env
	f    migrateFlags
	s    *sessions
	did  syntax.DID
	x    auth.Session
	net  *network
	dir  string
	root *os.Root
	job  *migrate.Job
	in   migrate.Input
	bar  *progress
}

func (e *env) accountMigrate(ctx context.Context, f migrateFlags) error {
	s, err := e.sessions(ctx, f.networkFlags)
	if err != nil {
		return err
	}
	defer s.close()
	m := &migration{e: e, f: f, s: s}
	state, err := stateDir()
	if err != nil {
		return err
	}
	folder := filepath.Join(state, "migrations")
	if m.x, err = s.find(ctx, f.as); errors.Is(err, auth.ErrLoginRequired) {
		// The old session goes shortly before the new one is kept: a move may be interrupted in between.
		p, ok := lastSteps(folder, f.as)
		if !ok {
			return err
		}
		m.x = auth.Session{DID: p.DID, Handle: p.Handle, PDS: p.From}
	} else if err != nil {
		return err
	} else if m.in.Old, err = s.account(ctx, string(m.x.DID)); err != nil {
		return err
	}
	m.did = m.x.DID
	m.dir = filepath.Join(folder, strings.ReplaceAll(string(m.did), ":", "-"))
	if f.to != "" {
		if m.f.to, err = serviceURL(f.to); err != nil {
			return usagef("--pds-host: %w", err)
		}
	}
	if m.in.SigningKey, err = e.signingKey(f.keyFile, false); err != nil {
		return err
	}
	m.in.Password, m.in.InviteCode, m.in.Token = f.password, f.invite, f.token
	m.net = s.networkOf(m.x.PDS)
	if isLoopback(m.x.PDS) {
		if err := m.net.guard.Allow(hostPort(m.x.PDS)); err != nil { // the user has logged in there
			return err
		}
	}
	if err := m.open(); err != nil {
		return err
	}
	defer m.close()
	if m.job.Finished() {
		return m.finished(ctx)
	}
	if f.abandon {
		return m.abandon(ctx)
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	if f.dryRun {
		return m.check(ctx)
	}
	return m.run(ctx)
}

// lastSteps looks for the one move that has begun, or the one of the account that as names, and returns its plan.
func lastSteps(folder, as string) (p migrate.Plan, ok bool) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return p, false
	}
	for _, x := range entries {
		b, err := os.ReadFile(filepath.Join(folder, x.Name(), migrate.JournalName))
		if err != nil || bytes.Contains(b, []byte(`"kind":"finish"`)) {
			continue
		}
		first, _, _ := bytes.Cut(b, []byte("\n"))
		var l struct{ Plan migrate.Plan }
		if json.Unmarshal(first, &l) != nil || l.Plan.DID == "" || as != "" && as != string(l.Plan.DID) && as != string(l.Plan.Handle) {
			continue
		}
		if ok {
			return migrate.Plan{}, false // which one is for the user to say
		}
		p, ok = l.Plan, true
	}
	return p, ok
}

// open opens the folder of the job; that of a dry run goes away again, unless the move has begun.
func (m *migration) open() (err error) {
	if info, err := os.Stat(filepath.Join(m.dir, migrate.JournalName)); (err != nil || info.Size() == 0) && (m.f.dryRun || m.f.abandon) {
		if m.f.abandon {
			return errors.New("no move of this account has begun")
		}
		if m.dir, err = os.MkdirTemp("", "baro-dry-run-"); err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("making the folder of the move: %w", err)
	}
	if m.root, err = os.OpenRoot(m.dir); err != nil {
		return fmt.Errorf("opening the folder of the move: %w", err)
	}
	m.job, err = migrate.Open(migrate.Options{
		Dir: m.root, HTTP: m.net.http, Identity: m.net.dir, PLC: &plcdir.Client{URL: m.net.plc, HTTP: m.net.http},
		Sessions: m.s.store, Now: m.e.world.Clock.Now, Report: m.report, Retry: &xrpc.Retry{},
	})
	if err != nil {
		m.root.Close()
	}
	return err
}

func (m *migration) close() {
	m.job.Close()
	m.root.Close()
	if strings.HasPrefix(filepath.Base(m.dir), "baro-dry-run-") {
		_ = os.RemoveAll(m.dir) // in the folder for temporary things
	}
}

// start gives the job its plan, from the flags or as it was begun.
func (m *migration) start(ctx context.Context) error {
	p, begun := m.job.Plan()
	if !begun && m.f.to == "" {
		return usagef("--pds-host says where to: no move of %s has begun", m.x.Handle)
	}
	if !begun {
		p = migrate.Plan{DID: m.did, From: m.x.PDS, To: m.f.to}
	}
	p.To = cmp.Or(m.f.to, p.To)
	p.Email = cmp.Or(m.f.email, p.Email)
	p.RotationKey = cmp.Or(m.f.rotationKey, p.RotationKey)
	p.AllowMissingBlobs = p.AllowMissingBlobs || m.f.allowMissing
	if len(m.f.dropKeys) > 0 {
		p.DropKeys = slices.Clone(m.f.dropKeys)
	}
	if isLoopback(p.To) || m.f.to != "" {
		if err := m.net.guard.Allow(hostPort(p.To)); err != nil { // the user has named it
			return err
		}
	}
	if m.f.handle != "" {
		h, err := syntax.ParseHandle(m.f.handle)
		if err != nil {
			return usagef("--new-handle %q is not a handle", m.f.handle)
		}
		p.Handle = h.Normalize()
	}
	if p.Handle == "" {
		h, err := m.keepHandle(ctx, p.To)
		if err != nil {
			return err
		}
		p.Handle = h
	}
	if p.Email == "" && m.in.Old != nil {
		out, err := comatproto.ServerGetSession.Call(ctx, m.in.Old.Client(), nil)
		if err != nil {
			return fmt.Errorf("asking the old host for your e-mail address: %w", err)
		}
		if out.Email != nil {
			p.Email = *out.Email
		}
	}
	err := m.job.Start(p)
	if errors.Is(err, migrate.ErrOtherPlan) {
		return withHint(err, "finish it with 'baro account migrate', or undo it with --abandon")
	}
	return err
}

// keepHandle is the present handle, if it isn't one of the old host's.
func (m *migration) keepHandle(ctx context.Context, to string) (syntax.Handle, error) {
	under := func(domains []string, h syntax.Handle) bool {
		return slices.ContainsFunc(domains, func(d string) bool { return strings.HasSuffix(string(h.Normalize()), strings.ToLower(d)) })
	}
	here, err := comatproto.ServerDescribeServer.Call(ctx, &xrpc.Client{Host: m.x.PDS, HTTP: m.net.http}, nil)
	if err != nil {
		return "", err
	}
	if !under(here.AvailableUserDomains, m.x.Handle) {
		return m.x.Handle.Normalize(), nil
	}
	there, err := comatproto.ServerDescribeServer.Call(ctx, &xrpc.Client{Host: to, HTTP: m.net.http}, nil)
	if err != nil {
		return "", err
	}
	if under(there.AvailableUserDomains, m.x.Handle) {
		return m.x.Handle.Normalize(), nil
	}
	return "", usagef("%s is a handle of %s: say with --new-handle what you will be called at %s, whose handles end in %s",
		m.x.Handle, m.x.PDS, to, inert(strings.Join(there.AvailableUserDomains, ", ")))
}

// report shows what the job does.
func (m *migration) report(ev migrate.Event) {
	switch ev.Kind {
	case migrate.EventBegin:
		m.e.log.Info("migration", "step", ev.Step)
	case migrate.EventProgress:
		if ev.Total > 0 && isTerminal(m.e.stderr) {
			if m.bar == nil {
				m.bar = m.e.progress(string(ev.Step))
			}
			m.bar.set(int(ev.Done), int(ev.Total))
		}
	default:
		m.endBar()
		if ev.Kind == migrate.EventNote {
			fmt.Fprintf(m.e.stderr, "%-11s  %s\n", ev.Step, inert(ev.Text))
		} else if !m.e.json {
			fmt.Fprintf(m.e.stderr, "%-11s  done\n", ev.Step)
		}
	}
}

func (m *migration) endBar() {
	if m.bar != nil {
		m.bar.done()
		m.bar = nil
	}
}

// findings prints what a check has found, and returns how many problems there are.
func (m *migration) findings(list []migrate.Finding) (problems int, err error) {
	c := colorsOf(m.e.stdout)
	for _, f := range list {
		if f.Level == migrate.LevelProblem {
			problems++
		}
		if m.e.json {
			err = m.e.printJSON(f)
		} else {
			level := fmt.Sprintf("%-7s", f.Level)
			switch f.Level {
			case migrate.LevelProblem:
				level = c.bad(level)
			case migrate.LevelNote:
				level = c.dim(level)
			}
			text := inert(f.Text)
			if f.Hint != "" {
				text += " (" + inert(f.Hint) + ")"
			}
			_, err = fmt.Fprintf(m.e.stdout, "%s  %-10s  %s\n", level, f.About, text)
		}
		if err != nil {
			return problems, err
		}
	}
	return problems, nil
}

func (m *migration) check(ctx context.Context) error {
	p, _ := m.job.Plan()
	fmt.Fprintf(m.e.stderr, "%s (%s) would move from %s to %s and be called %s there\n", m.x.Handle, m.did, p.From, p.To, p.Handle)
	list, err := m.job.Check(ctx, m.in)
	m.endBar()
	if err != nil {
		return err
	}
	n, err := m.findings(list)
	if err == nil && n > 0 {
		return fmt.Errorf("the account can't be moved like this: problems found: %d", n)
	}
	return err
}

func (m *migration) run(ctx context.Context) error {
	for {
		err := m.job.Run(ctx, m.in)
		m.endBar()
		if err == nil {
			return m.finished(ctx)
		}
		if problems, ok := errors.AsType[*migrate.ProblemsError](err); ok {
			n, perr := m.findings(slices.DeleteFunc(problems.Findings, func(f migrate.Finding) bool { return f.Level != migrate.LevelProblem }))
			return errors.Join(perr, fmt.Errorf("the account can't be moved like this: problems found: %d", n))
		}
		need, ok := errors.AsType[*migrate.NeedError](err)
		if !ok {
			return err
		}
		if err := m.give(ctx, need); err != nil {
			return err
		}
	}
}

// waitFor is how long a document of a did:web is waited for between two looks.
const waitFor = 10 * time.Second

// give asks the user for what the job needs.
func (m *migration) give(ctx context.Context, need *migrate.NeedError) (err error) {
	asks := isTerminal(m.e.stdin)
	switch need.What {
	case migrate.NeedPassword:
		if need.Because != nil {
			return withHint(need, "set NEW_ACCOUNT_PASSWORD to the one that it has")
		}
		m.in.Password, err = m.e.secretFrom(ctx, "NEW_ACCOUNT_PASSWORD", "New password", true)
		return err
	case migrate.NeedToken:
		if !asks {
			return withHint(need, "look at your mail, and run 'baro account migrate --plc-token CODE'")
		}
		if need.Because != nil {
			fmt.Fprintf(m.e.stderr, "baro: %s\n", inert(need.Because.Error()))
		}
		m.in.Token, err = m.e.secretFrom(ctx, "PLC_SIGN_TOKEN", "Code from the mail of the old host", false)
		return err
	case migrate.NeedDocument:
		if err := m.e.printDocument(need.Document); err != nil {
			return err
		}
		if !m.f.wait {
			return withHint(need, "publish the document that was printed at your domain, below /.well-known/did.json, and run 'baro account migrate' again; or use --wait")
		}
		fmt.Fprintln(m.e.stderr, "waiting until this document is published")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.e.world.Clock.After(waitFor):
			return nil
		}
	}
	return withHint(need, "log in there with 'baro account login %s --pds %s' and the password of the account", m.did, m.plan().From)
}

func (m *migration) plan() migrate.Plan { p, _ := m.job.Plan(); return p }

// finished keeps the journal as a record, out of the way of another move.
func (m *migration) finished(ctx context.Context) error {
	p, facts := m.plan(), m.job.Facts()
	if err := m.s.use(m.did); err != nil {
		return err
	}
	record := fmt.Sprintf("%s-%s", m.dir, m.e.world.Clock.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(m.dir, record); err != nil {
		return fmt.Errorf("putting the record of the move away: %w", err)
	}
	if m.e.json {
		return m.e.printJSON(map[string]any{"did": p.DID, "handle": p.Handle, "from": p.From, "to": p.To, "records": facts.Records, "rev": facts.Rev,
			"blobs": facts.BlobRefs - len(facts.Lost), "lostBlobs": facts.Lost, "preferences": facts.Preferences, "warnings": facts.Warnings, "record": record})
	}
	fmt.Fprintf(m.e.stderr, "what was done is recorded in %s\n", record)
	_, err := fmt.Fprintf(m.e.stdout, "moved %s (%s) from %s to %s: %d records, %d blobs\n", p.Handle, p.DID, p.From, p.To, facts.Records, facts.BlobRefs-len(facts.Lost))
	return err
}

func (m *migration) abandon(ctx context.Context) error {
	p, begun := m.job.Plan()
	if !begun {
		return errors.New("no move of this account has begun")
	}
	if isLoopback(p.To) {
		if err := m.net.guard.Allow(hostPort(p.To)); err != nil {
			return err
		}
	}
	if err := m.job.Abandon(ctx, m.in); err != nil {
		if errors.Is(err, migrate.ErrNoReturn) {
			return withHint(err, "complete it with 'baro account migrate'; then you may move back, or within 72 hours look at 'baro plc recover --help'")
		}
		return err
	}
	if err := os.RemoveAll(m.dir); err != nil {
		return fmt.Errorf("removing the folder of the move: %w", err)
	}
	if m.e.json {
		return m.e.printJSON(map[string]any{"did": p.DID, "abandoned": true})
	}
	_, err := fmt.Fprintf(m.e.stdout, "abandoned the move of %s to %s; the account at %s is as it was\n", p.DID, p.To, p.From)
	return err
}

// adviseMigration adds hints to what can go wrong with a move.
func adviseMigration(err error) error {
	if _, ok := errors.AsType[*hintError](err); ok {
		return err
	}
	_, rehearsal := errors.AsType[*migrate.RehearsalError](err)
	_, verify := errors.AsType[*migrate.VerifyError](err)
	_, blobs := errors.AsType[*migrate.MissingBlobsError](err)
	switch {
	case err == nil:
		return nil
	case rehearsal:
		return notVerified(withHint(err, "nothing was submitted: don't trust this host with your identity"))
	case verify:
		return notVerified(err)
	case blobs:
		return withHint(err, "run it again to try again, or with --allow-missing-blobs to go on without them")
	case errors.Is(err, comatproto.ErrInvalidInviteCode):
		return withHint(err, "ask the operator of the new host for an invite code, and run it again with --invite-code")
	case errors.Is(err, migrate.ErrOtherHandle):
		return withHint(err, "undo the move with --abandon, and begin it with that handle as --new-handle")
	case errors.Is(err, comatproto.ErrHandleNotAvailable):
		return withHint(err, "undo the move with --abandon and begin it with another --new-handle")
	}
	return advise(err)
}
