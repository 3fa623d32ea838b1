package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

func newLex(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lex",
		Short: "Write, check, publish and fetch lexicon schemas",
		Long: "Lexicons are the schemas of records and methods. Their source is a folder of JSON files, one for each, whose path is the\n" +
			"NSID with slashes for dots: lexicons/com/example/note.json. They are published as records in the repository of the\n" +
			"account that DNS names for the group: _lexicon.example.com for com.example.note.\n\n" +
			"Whatever comes from the network is verified: the signature of the repository, the way through its tree, the hash of the\n" +
			"record. With 'baro up' the account alice.test has the authority over test.alice.*, and nothing needs to be set up.",
		Example: "  baro lex new record test.alice.note\n" +
			"  baro lex lint\n" +
			"  baro lex publish --dry-run\n" +
			"  baro lex pull app.bsky.feed.post\n" +
			"  baro lex resolve app.bsky.feed.post",
	}
	cmd.AddCommand(
		newLexNew(e), newLexLint(e), newLexBreaking(e), newLexStatus(e), newLexDiff(e), newLexCheckDNS(e), newLexPublish(e), newLexUnpublish(e),
		newLexPull(e), newLexInstall(e), newLexResolve(e), newLexLs(e), newLexValidate(e), newLexGen(e), newLexSite(e), newLexParse(e),
	)
	return cmd
}

// lexFlags are the flags of commands about local schemas and published ones.
type lexFlags struct {
	networkFlags
	dir string
}

const lexDirVariable = "LEXICONS_DIR"

// addDir adds the flag that says where the schemas are.
func (f *lexFlags) addDir(fl *pflag.FlagSet) {
	fl.StringVar(&f.dir, "lexicons-dir", "lexicons", "folder of the schemas")
	alsoVariable(fl, "lexicons-dir", lexDirVariable)
}

// addNetwork adds the flags that say where published schemas are.
func (f *lexFlags) addNetwork(fl *pflag.FlagSet) {
	f.networkFlags.add(fl, false)
	fl.StringVar(&f.zone, "zone", "", "file of TXT records of a local network (default: zone.txt in its data directory)")
}

// lexNetwork resolves published schemas: those of local names in the local network, others in the public one.
type lexNetwork struct {
	e  *env
	ns *networks

	mu        sync.Mutex
	resolvers map[*network]*lexres.Resolver
}

func (e *env) lexNetwork(ctx context.Context, f lexFlags) (*lexNetwork, error) {
	ns, err := e.networks(ctx, f.networkFlags)
	if err != nil {
		return nil, err
	}
	return e.lexNetworkOf(ns), nil
}

func (e *env) lexNetworkOf(ns *networks) *lexNetwork {
	return &lexNetwork{e: e, ns: ns, resolvers: map[*network]*lexres.Resolver{}}
}

// of returns the network that a name belongs to: the local one for names below test and those that its zone has, else the public one.
func (l *lexNetwork) of(id syntax.NSID) (*network, error) {
	name := lexres.DNSName(id)
	last := l.ns.list[len(l.ns.list)-1]
	test := strings.HasSuffix(name, "."+testDomain)
	for _, n := range l.ns.list {
		if !n.local {
			continue
		}
		zone, err := n.readZone()
		if err != nil {
			return nil, err
		}
		if _, ok := zone[name]; ok || test {
			return n, nil
		}
	}
	if test {
		return nil, withHint(fmt.Errorf("%s is a name of a local network, and none runs", id), "start one with 'baro up', or say where it is with --network DIR")
	}
	return last, nil
}

// resolver returns the resolver of a network.
func (l *lexNetwork) resolver(n *network) *lexres.Resolver {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.resolvers[n]
	if r == nil {
		r = lexres.New(lexres.Options{Resolver: n.txt, Directory: askAt{n.dir, l.ns.f.pds}, HTTP: n.http, Now: l.e.world.Clock.Now})
		l.resolvers[n] = r
	}
	return r
}

// askAt is a directory that has all accounts at one PDS, if the user names one.
type askAt struct {
	*identity.Directory
	pds string
}

func (a askAt) at(doc *identity.Document, err error) (*identity.Document, error) {
	if err != nil || a.pds == "" {
		return doc, err
	}
	c := *doc
	c.PDS = a.pds
	return &c, nil
}

func (a askAt) ResolveDID(ctx context.Context, did syntax.DID) (*identity.Document, error) {
	return a.at(a.Directory.ResolveDID(ctx, did))
}

func (a askAt) Refresh(ctx context.Context, did syntax.DID) (*identity.Document, bool, error) {
	doc, fresh, err := a.Directory.Refresh(ctx, did)
	doc, err = a.at(doc, err)
	return doc, fresh, err
}

// authority asks DNS about the group of a name.
func (l *lexNetwork) authority(ctx context.Context, id syntax.NSID) (*lexres.Authority, *network, error) {
	n, err := l.of(id)
	if err != nil {
		return nil, nil, err
	}
	a, err := l.resolver(n).Authority(ctx, id)
	return a, n, err
}

// resolve finds a published schema.
func (l *lexNetwork) resolve(ctx context.Context, id syntax.NSID) (*lexres.Resolution, error) {
	n, err := l.of(id)
	if err != nil {
		return nil, err
	}
	return l.resolver(n).Resolve(ctx, id)
}

// resolveAt finds a published schema in the repository of an account, whatever DNS says.
func (l *lexNetwork) resolveAt(ctx context.Context, did syntax.DID, id syntax.NSID) (*lexres.Resolution, error) {
	var last error
	for _, n := range l.ns.list {
		found, err := l.resolver(n).ResolveAt(ctx, did, id)
		if err == nil {
			return found, nil
		}
		last = err
		if lexres.KindOf(err) != lexres.KindIdentity { // a network that doesn't know the DID has no say
			break
		}
	}
	return nil, last
}

// published finds a schema that may not be there: nil without an error if it isn't, which is proven, or if nobody has the authority.
func (l *lexNetwork) published(ctx context.Context, id syntax.NSID) (*lexres.Resolution, error) {
	found, err := l.resolve(ctx, id)
	switch lexres.KindOf(err) {
	case lexres.KindNotFound, lexres.KindNoAuthority:
		return nil, nil
	}
	return found, err
}

// lexError words errors of resolution for people and gives them their exit code.
func lexError(err error) error {
	if err == nil {
		return nil
	}
	if hinted := (*hintError)(nil); errors.As(err, &hinted) {
		return err
	}
	e, ok := errors.AsType[*lexres.Error](err)
	if !ok {
		return advise(err)
	}
	switch e.Kind {
	case lexres.KindNoAuthority:
		found := ""
		if len(e.Values) > 0 {
			found = fmt.Sprintf("; it has %s", inert(strings.Join(quoted(e.Values), ", ")))
		}
		return withHint(err, "TXT record %s decides%s; 'baro lex check-dns' prints what to add", lexres.DNSName(e.NSID), found)
	case lexres.KindAmbiguous:
		return withHint(err, "leave one TXT record with a DID at %s", lexres.DNSName(e.NSID))
	case lexres.KindNotFound:
		return withHint(err, "'baro lex ls %s' lists what is there", e.NSID)
	case lexres.KindUnproven, lexres.KindProof, lexres.KindRollback:
		return notVerified(err)
	case lexres.KindSchema:
		return withHint(err, "its author has to publish it again")
	}
	return advise(err)
}

func quoted(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprintf("%q", v)
	}
	return out
}

// parseNSID reads an argument.
func parseNSID(s string) (syntax.NSID, error) {
	id, err := syntax.ParseNSID(s)
	if err != nil {
		return "", usagef("%q is not an NSID, such as com.example.note: %w", s, err)
	}
	return id.Normalize(), nil
}

// mark is the state of a schema: a sign on a terminal, a word elsewhere.
type mark struct{ sign, word string }

var (
	markSame        = mark{"🟢", "same"}
	markWrote       = mark{"🟢", "wrote"}
	markCreated     = mark{"🟢", "created"}
	markDeleted     = mark{"🟢", "deleted"}
	markOK          = mark{"🟢", "ok"}
	markUpdated     = mark{"🟣", "updated"}
	markDiffers     = mark{"🟣", "differs"}
	markExists      = mark{"🟣", "exists"}
	markUnpublished = mark{"🟠", "unpublished"}
	markRemoteOnly  = mark{"⭕", "remote-only"}
	markMismatch    = mark{"⭕", "dns-mismatch"}
	markError       = mark{"❌", "error"}
)

// show is how a mark is printed: on a terminal the sign, and the word beside it.
func (e *env) show(m mark) string {
	if isTerminal(e.stdout) && os.Getenv("TERM") != "dumb" {
		return fmt.Sprintf("%s %-12s", m.sign, m.word)
	}
	return fmt.Sprintf("%-12s", m.word)
}

// recordOf is a schema as it is published: with its $type.
func recordOf(s *lexicon.Schema) ([]byte, error) {
	return withField(s.Raw, "$type", string(lexres.Collection))
}

// documentOf is a schema as goat keeps it in a file: without its $type.
func documentOf(s *lexicon.Schema) ([]byte, error) { return withField(s.Raw, "$type", nil) }

// limitedClient is a client for files and lists of strangers.
func limitedClient(n *network) *http.Client {
	return netguard.Client(n.guard, netguard.ClientOptions{Redirects: 3, MaxBody: 16 << 20, UserAgent: userAgent})
}

// stepsOf prints the steps of a proof on standard error, as get --verify does.
func (e *env) printLexSteps(r *lexres.Resolution, p []repo.Step) {
	c := colorsOf(e.stderr)
	line := func(what, detail string) {
		fmt.Fprintf(e.stderr, "%s\t%-10s %s\n", c.good("ok"), what, inert(detail))
	}
	if r.Authority != nil {
		line("dns", fmt.Sprintf("%s names %s", lexres.DNSName(r.NSID), r.DID))
	} else {
		fmt.Fprintf(e.stderr, "%s\t%-10s %s\n", c.dim("-"), "dns", "was not asked")
	}
	line("document", fmt.Sprintf("of %s: PDS %s, key %s", r.DID, r.PDS, r.Key.DIDKey()))
	e.printProofSteps(p)
	line("schema", fmt.Sprintf("%s, as its record key and id say", r.NSID))
	if r.Stale {
		fmt.Fprintf(e.stderr, "%s\t%-10s of %s: asking again failed\n", c.bad("stale"), "age", r.Fetched.UTC().Format("15:04:05 MST"))
	}
}

func asLexError(err error, to **lexres.Error) bool { return errors.As(err, to) }
