package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// writerFlags say which account writes.
type writerFlags struct {
	lexFlags
	as                 string
	username, password string
}

func (f *writerFlags) addWriter(fl *pflag.FlagSet, shorthand string) {
	fl.StringVar(&f.as, "as", "", "account that is logged in, by handle or DID (default: the one used last)")
	fl.StringVarP(&f.username, "username", shorthand, "", "account to log in for this command, whose password is in a variable or asked for")
	alsoVariable(fl, "username", usernameVariables...)
	fl.StringVarP(&f.password, "password", "p", "", "its password")
	neverOnCommandLine(fl, "password")
	alsoVariable(fl, "password", passwordVariables...)
	fl.StringVar(&f.password, "app-password", "", "the same as --password")
	neverOnCommandLine(fl, "app-password")
	_ = fl.MarkHidden("app-password") // it is there: it was just made
}

// writer is the account that a command writes with.
func (e *env) writer(ctx context.Context, f writerFlags) (*lexNetwork, *auth.Account, func(), error) {
	s, err := e.sessions(ctx, f.networkFlags)
	if err != nil {
		return nil, nil, nil, err
	}
	l := e.lexNetworkOf(s.ns)
	if f.username == "" || f.as != "" {
		a, err := s.account(ctx, f.as)
		if err != nil {
			s.close()
			return nil, nil, nil, err
		}
		return l, a, s.close, nil
	}
	s.close()
	id, err := parseAccount(f.username)
	if err != nil {
		return nil, nil, nil, err
	}
	who, err := s.ns.lookup(ctx, id)
	if err != nil {
		return nil, nil, nil, err
	}
	password := f.password
	if password == "" {
		if password, err = e.secretFrom(ctx, passwordVariable, "Password", false); err != nil {
			return nil, nil, nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m := auth.New(auth.Options{HTTP: who.net.http, Now: e.world.Clock.Now}) // kept in memory only
	a, err := m.Login(ctx, who.pds, auth.Credentials{Identifier: string(who.DID), Password: password, DID: who.DID, Token: os.Getenv(tokenVariable)})
	if errors.Is(err, comatproto.ErrAuthFactorTokenRequired) {
		return nil, nil, nil, withHint(err, "set %s, or log in with 'baro account login'", tokenVariable)
	}
	return l, a, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = a.Logout(ctx) // it lived for one command
	}, err
}

type publishFlags struct {
	writerFlags
	update       bool
	dryRun       bool
	skipDNS      bool
	skipLint     bool
	skipBreaking bool
	wait         time.Duration
}

func newLexPublish(e *env) *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish [FILE|FOLDER…]",
		Short: "Publish schemas in the repository of an account",
		Long: "Publishes local schemas as records of an account, all in one commit that nobody else's can come in between. Before that\n" +
			"each must pass the errors of 'baro lex lint', a new version those of 'baro lex breaking', and DNS must name the account as\n" +
			"the authority of its group; --wait waits for DNS. After it every schema is resolved as others would, proof included.\n\n" +
			"Schemas that are published as they are stay alone; those that differ are replaced only with --update. --dry-run says\n" +
			"what would be done.",
		Example: "  baro lex publish --dry-run\n" +
			"  baro lex publish lexicons/test/alice/note.json\n" +
			"  baro lex publish --update --wait 10m --as alice.example.com\n" +
			"  GOAT_USERNAME=alice.test GOAT_PASSWORD=… baro lex publish",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexPublish(cmd.Context(), args, f))
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&f.update, "update", "u", false, "replace what is published in another version")
	fl.BoolVar(&f.dryRun, "dry-run", false, "write nothing, and say what would be written")
	fl.DurationVar(&f.wait, "wait", 0, "wait so long for DNS to name the account")
	fl.BoolVar(&f.skipDNS, "skip-dns-check", false, "publish even if DNS names another account, or none")
	fl.BoolVar(&f.skipLint, "skip-lint", false, "publish even if lint finds errors")
	fl.BoolVar(&f.skipBreaking, "skip-breaking", false, "publish even if the new version breaks the old one")
	f.addWriter(fl, "")
	f.addDir(fl)
	f.addNetwork(fl)
	return cmd
}

// publication is what is to be done with a schema.
type publication struct {
	*lexState
	Record []byte
	Write  bool
	Live   bool // was resolved afterwards
}

func (e *env) lexPublish(ctx context.Context, args []string, f publishFlags) error {
	files, err := lexSchemas(args, f.dir)
	if err != nil {
		return err
	}
	l, a, done, err := e.writer(ctx, f.writerFlags)
	if err != nil {
		return err
	}
	defer done()
	did := a.DID()

	dns, err := l.checkDNS(ctx, groupsOf(files), did, f.wait)
	if err != nil {
		return err
	}
	wrong := map[string]*dnsState{}
	for _, s := range dns {
		if !s.right(did) {
			wrong[s.Group] = s
		}
	}
	todo, err := l.publications(ctx, did, files, wrong, f)
	if err != nil {
		return err
	}
	var gates []error
	if !f.skipLint {
		gates = append(gates, e.lintGate(ctx, l, todo, f.dir))
	}
	if !f.skipBreaking {
		gates = append(gates, e.breakingGate(ctx, l, todo, f.dir))
	}
	if err := errors.Join(gates...); err != nil {
		return err
	}
	if len(wrong) > 0 && !f.skipDNS {
		for _, s := range dns {
			if !s.right(did) {
				if err := e.printDNS(s, did, string(did)); err != nil {
					return err
				}
			}
		}
	}
	var writes []*publication
	for _, p := range todo {
		if p.Write {
			writes = append(writes, p)
		}
	}
	if !f.dryRun && len(writes) > 0 {
		rev, err := e.writeSchemas(ctx, a, writes)
		if err != nil {
			return err
		}
		if err := l.confirm(ctx, did, rev, writes, wrong); err != nil {
			return err
		}
	}
	held := 0
	for _, p := range todo {
		if p.Mark == markMismatch || p.Mark == markExists {
			held++
		}
		if err := e.printPublication(p, did, f.dryRun); err != nil {
			return err
		}
	}
	if n := len(wrong); n > 0 && !f.skipDNS {
		return withHint(fmt.Errorf("DNS does not name %s for %d of %d groups", did, n, len(dns)), "add the records above; --wait waits for them, and --skip-dns-check publishes without")
	}
	if held > 0 {
		return withHint(fmt.Errorf("%d schemas are published in another version", held), "--update replaces them; 'baro lex diff' shows how they differ")
	}
	return nil
}

// publications decides what is to be done with each schema. What counts is what is in the account's own repository.
func (l *lexNetwork) publications(ctx context.Context, did syntax.DID, files []*lexFile, wrong map[string]*dnsState, f publishFlags) ([]*publication, error) {
	var out []*publication
	for _, file := range files {
		id := file.Schema.ID
		record, err := recordOf(file.Schema)
		if err != nil {
			return nil, err
		}
		p := &publication{lexState: &lexState{ID: id, File: file, Mark: markCreated}, Record: record}
		out = append(out, p)
		if len(record) > repo.MaxRecord {
			return nil, fmt.Errorf("%s has %d bytes as a record, at most %d are possible", file.Path, len(record), repo.MaxRecord)
		}
		n, err := l.of(id)
		if err != nil {
			return nil, err
		}
		p.Found, err = l.resolver(n).ResolveAt(ctx, did, id)
		switch kind := lexres.KindOf(err); {
		case kind == lexres.KindNotFound:
		case kind == lexres.KindSchema: // nonsense is there, which is to be replaced like another version
			p.Mark = markUpdated
		case err != nil:
			return nil, err
		case p.Found.CID == cidOf(record):
			p.Mark = markSame
		default:
			p.Mark = markUpdated
		}
		switch {
		case p.Mark == markSame:
		case wrong[id.Normalize().Prefix()] != nil && !f.skipDNS:
			p.Mark = markMismatch
		case p.Mark == markUpdated && !f.update:
			p.Mark = markExists
		default:
			p.Write = true
		}
	}
	return out, nil
}

// writeSchemas writes schemas in one commit on top of the one that the repository is at.
func (e *env) writeSchemas(ctx context.Context, a *auth.Account, todo []*publication) (syntax.TID, error) {
	in := &comatproto.RepoApplyWrites_Input{}
	for _, p := range todo {
		var w comatproto.RepoApplyWrites_Input_Writes_Elem
		if p.Mark == markCreated {
			rkey := string(p.ID)
			w.Value = &comatproto.RepoApplyWrites_Create{Collection: string(lexres.Collection), Rkey: &rkey, Value: data.Raw(p.Record)}
		} else {
			w.Value = &comatproto.RepoApplyWrites_Update{Collection: string(lexres.Collection), Rkey: string(p.ID), Value: data.Raw(p.Record)}
		}
		in.Writes = append(in.Writes, w)
	}
	return e.applyWrites(ctx, a, in)
}

// applyWrites makes one commit, which fails if another one came in between.
func (e *env) applyWrites(ctx context.Context, a *auth.Account, in *comatproto.RepoApplyWrites_Input) (syntax.TID, error) {
	if len(in.Writes) > repo.MaxOps {
		return "", withHint(fmt.Errorf("%d schemas are more than one commit can have: %d", len(in.Writes), repo.MaxOps), "name fewer files or folders")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := a.Client()
	head, err := comatproto.SyncGetLatestCommit.Call(ctx, c, &comatproto.SyncGetLatestCommit_Params{Did: string(a.DID())})
	if err != nil {
		return "", fmt.Errorf("asking for the last commit of %s: %w", a.DID(), err)
	}
	in.Repo, in.SwapCommit = string(a.DID()), &head.Cid
	out, err := comatproto.RepoApplyWrites.Call(ctx, c, in)
	if errors.Is(err, comatproto.ErrInvalidSwap) {
		return "", withHint(fmt.Errorf("somebody else wrote to the repository just now: %w", err), "nothing was written: try again")
	}
	if err != nil {
		return "", fmt.Errorf("writing to the repository of %s: %w", a.DID(), err)
	}
	if out.Commit == nil {
		return "", nil // a server that doesn't tell
	}
	rev, err := syntax.ParseTID(out.Commit.Rev)
	if err != nil {
		return "", fmt.Errorf("the PDS made a commit with a bad revision: %w", err)
	}
	return rev, nil
}

// confirmTime is how long a PDS may take to show what was written. Tests are less patient.
var confirmTime = 15 * time.Second

// confirm resolves what was written as others would, until it is there.
func (l *lexNetwork) confirm(ctx context.Context, did syntax.DID, rev syntax.TID, todo []*publication, wrong map[string]*dnsState) error {
	end := l.e.world.Clock.Now().Add(confirmTime)
	for _, p := range todo {
		n, err := l.of(p.ID)
		if err != nil {
			return err
		}
		r := l.resolver(n)
		if rev != "" {
			r.Saw(did, rev)
		}
		for {
			r.PurgeAt(did, p.ID)
			var found *lexres.Resolution
			if wrong[p.ID.Normalize().Prefix()] != nil {
				found, err = r.ResolveAt(ctx, did, p.ID)
			} else {
				found, err = r.Resolve(ctx, p.ID)
				if err == nil && found.DID != did {
					err = fmt.Errorf("%s resolves to the repository of %s", p.ID, found.DID)
				}
			}
			if err == nil && found.CID == cidOf(p.Record) {
				p.Found, p.Live = found, true
				break
			}
			if err == nil {
				err = fmt.Errorf("%s resolves to another version, %s", p.ID, found.CID)
			}
			if l.e.world.Clock.Now().After(end) {
				return fmt.Errorf("it was written, but is not what others see: %w", err)
			}
			if err := world.Sleep(ctx, l.e.world.Clock, 200*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *env) printPublication(p *publication, did syntax.DID, dry bool) error {
	uri := lexres.URI(did, p.ID)
	if e.json {
		return e.printJSON(map[string]any{
			"nsid": p.ID, "status": p.Mark.word, "path": p.File.Path, "uri": uri, "cid": cidOf(p.Record).String(), "written": p.Write && !dry, "verified": p.Live,
		})
	}
	note := ""
	switch {
	case dry && p.Write:
		note = "  (dry run: not written)"
	case p.Live:
		note = "  verified live at " + string(uri)
	}
	_, err := fmt.Fprintf(e.stdout, "%s %s%s\n", e.show(p.Mark), p.ID, note)
	return err
}

func newLexUnpublish(e *env) *cobra.Command {
	var f writerFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "unpublish NSID…",
		Short: "Delete published schemas",
		Long: "Deletes the records of schemas from the repository of an account, all in one commit, and checks that their absence is\n" +
			"proven. It is an error if one is not there: then none is deleted. Whoever has a copy keeps it.",
		Example: "  baro lex unpublish test.alice.note\n  baro lex unpublish com.example.old com.example.older --as alice.example.com --dry-run",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexUnpublish(cmd.Context(), args, f, dryRun))
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&dryRun, "dry-run", false, "delete nothing, and say what would be deleted")
	f.addWriter(fl, "u")
	f.addNetwork(fl)
	return cmd
}

func (e *env) lexUnpublish(ctx context.Context, args []string, f writerFlags, dryRun bool) error {
	var ids []syntax.NSID
	for _, arg := range args {
		id, err := parseNSID(arg)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	l, a, done, err := e.writer(ctx, f)
	if err != nil {
		return err
	}
	defer done()
	did := a.DID()
	in := &comatproto.RepoApplyWrites_Input{}
	var missing []string
	for _, id := range ids {
		_, err := l.resolveAt(ctx, did, id)
		switch kind := lexres.KindOf(err); {
		case kind == lexres.KindNotFound:
			missing = append(missing, string(id))
		case err != nil && kind != lexres.KindSchema: // nonsense can be deleted too
			return err
		}
		in.Writes = append(in.Writes, comatproto.RepoApplyWrites_Input_Writes_Elem{
			Value: &comatproto.RepoApplyWrites_Delete{Collection: string(lexres.Collection), Rkey: string(id)},
		})
	}
	if len(missing) > 0 {
		return withHint(fmt.Errorf("%s has no schema %s", did, strings.Join(missing, ", ")), "nothing was deleted; --as names another account")
	}
	if !dryRun {
		rev, err := e.applyWrites(ctx, a, in)
		if err != nil {
			return err
		}
		if err := l.confirmGone(ctx, did, rev, ids); err != nil {
			return err
		}
	}
	for _, id := range ids {
		var err error
		switch {
		case e.json:
			err = e.printJSON(map[string]any{"nsid": id, "status": markDeleted.word, "uri": lexres.URI(did, id), "written": !dryRun, "verified": !dryRun})
		case dryRun:
			_, err = fmt.Fprintf(e.stdout, "%s %s  (dry run: not deleted)\n", e.show(markDeleted), id)
		default:
			_, err = fmt.Fprintf(e.stdout, "%s %s  its absence is proven\n", e.show(markDeleted), id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// confirmGone makes sure that schemas are gone for others.
func (l *lexNetwork) confirmGone(ctx context.Context, did syntax.DID, rev syntax.TID, ids []syntax.NSID) error {
	for _, n := range l.ns.list {
		if rev != "" {
			l.resolver(n).Saw(did, rev)
		}
		for _, id := range ids {
			l.resolver(n).PurgeAt(did, id)
		}
	}
	for _, id := range ids {
		_, err := l.resolveAt(ctx, did, id)
		switch {
		case err == nil:
			return fmt.Errorf("%s was deleted, but others still see it", id)
		case lexres.KindOf(err) != lexres.KindNotFound:
			return fmt.Errorf("%s was deleted, but that can't be checked: %w", id, err)
		}
	}
	return nil
}
