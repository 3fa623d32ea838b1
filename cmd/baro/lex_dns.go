package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/syntax"
)

type dnsFlags struct {
	lexFlags
	example string
	did     string
	wait    time.Duration
}

// dnsPause is how long to wait between two questions.
const dnsPause = 2 * time.Second

func newLexCheckDNS(e *env) *cobra.Command {
	var f dnsFlags
	cmd := &cobra.Command{
		Use:   "check-dns [FILE|FOLDER…]",
		Short: "Check that DNS names the authority of each group",
		Long: "Asks DNS for the TXT record of each group of local schemas, and prints the lines to add for those that have none, or a\n" +
			"wrong one. With --did the record must name that account; otherwise any will do. With --wait it asks again until all are\n" +
			"right or the time is up. The exit code is 1 if something is missing.",
		Example: "  baro lex check-dns\n" +
			"  baro lex check-dns --did did:plc:ewvi7nxzyoun6zhxrhs64oiz --wait 10m\n" +
			"  baro lex check-dns lexicons/com/example --json",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexCheckDNS(cmd.Context(), args, f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.example, "example-did", "did:web:lex.example.com", "DID to print in the lines to add, if --did isn't given")
	fl.StringVar(&f.did, "did", "", "DID that the records must name")
	fl.DurationVar(&f.wait, "wait", 0, "ask again for so long")
	f.addDir(fl)
	f.addNetwork(fl)
	return cmd
}

// dnsState is what DNS says of a group.
type dnsState struct {
	Group     string // of NSIDs, such as com.example
	Name      string // of the TXT record
	Authority *lexres.Authority
	Err       error
}

// right says whether a group has the authority that it is to have; did is "" for any.
func (s *dnsState) right(did syntax.DID) bool {
	return s.Err == nil && (did == "" || s.Authority.DID == did)
}

// values are the TXT values that were found.
func (s *dnsState) values() []string {
	if s.Authority != nil {
		return s.Authority.Values
	}
	return valuesOf(s.Err)
}

func valuesOf(err error) []string {
	var e *lexres.Error
	if ok := asLexError(err, &e); ok {
		return e.Values
	}
	return nil
}

// checkDNS asks about groups, and again until all are right or the time is up. The network is made by the caller, so that a zone or DNS
// that changes meanwhile is noticed.
func (l *lexNetwork) checkDNS(ctx context.Context, groups []string, did syntax.DID, wait time.Duration) ([]*dnsState, error) {
	end := l.e.world.Clock.Now().Add(wait)
	for {
		states := make([]*dnsState, len(groups))
		wrong := 0
		for i, g := range groups {
			id := syntax.NSID(g + ".x")
			s := &dnsState{Group: g, Name: lexres.DNSName(id)}
			if n, err := l.of(id); err != nil {
				s.Err = err
			} else {
				l.resolver(n).Purge(id)
				s.Authority, s.Err = l.resolver(n).Authority(ctx, id)
			}
			if !s.right(did) {
				wrong++
			}
			states[i] = s
		}
		if wrong == 0 || l.e.world.Clock.Now().Add(dnsPause).After(end) {
			return states, nil
		}
		fmt.Fprintf(l.e.stderr, "waiting for %d of %d names …\n", wrong, len(groups))
		if err := world.Sleep(ctx, l.e.world.Clock, dnsPause); err != nil {
			return nil, err
		}
	}
}

// groupsOf are the groups of schemas.
func groupsOf(files []*lexFile) []string {
	groups := map[string]bool{}
	for _, f := range files {
		groups[f.Schema.ID.Normalize().Prefix()] = true
	}
	return slices.Sorted(maps.Keys(groups))
}

func (e *env) lexCheckDNS(ctx context.Context, args []string, f dnsFlags) error {
	var did syntax.DID
	example := f.example
	if f.did != "" {
		var err error
		if did, err = syntax.ParseDID(f.did); err != nil {
			return usagef("--did: %w", err)
		}
		example = f.did
	} else if _, err := syntax.ParseDID(example); err != nil {
		return usagef("--example-did: %w", err)
	}
	files, err := lexSchemas(args, f.dir)
	if err != nil {
		return err
	}
	l, err := e.lexNetwork(ctx, f.lexFlags)
	if err != nil {
		return err
	}
	states, err := l.checkDNS(ctx, groupsOf(files), did, f.wait)
	if err != nil {
		return err
	}
	wrong := 0
	for _, s := range states {
		if !s.right(did) {
			wrong++
		}
		if err := e.printDNS(s, did, example); err != nil {
			return err
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d names are not as they must be", wrong, len(states))
	}
	return nil
}

func (e *env) printDNS(s *dnsState, did syntax.DID, example string) error {
	add := fmt.Sprintf("%s\tTXT\t\"did=%s\"", s.Name, example)
	state := markOK
	why := ""
	switch {
	case s.right(did):
	case s.Err == nil:
		state, why = markMismatch, fmt.Sprintf("names %s, not %s", s.Authority.DID, did)
	default:
		switch lexres.KindOf(s.Err) {
		case lexres.KindNoAuthority:
			state, why = mark{"🟠", "missing"}, "has no TXT record"
			if len(s.values()) > 0 {
				why = "has no TXT record with a DID"
			}
		case lexres.KindAmbiguous:
			state, why = markMismatch, "has several TXT records with DIDs, which counts as none"
		default:
			state, why = markError, s.Err.Error()
		}
	}
	if e.json {
		line := map[string]any{"group": s.Group, "name": s.Name, "status": state.word, "values": s.values()}
		if s.Authority != nil {
			line["did"] = s.Authority.DID
		}
		if why != "" {
			line["why"], line["add"] = why, add
		}
		return e.printJSON(line)
	}
	if why == "" {
		_, err := fmt.Fprintf(e.stdout, "%s %s  %s\n", e.show(state), s.Name, s.Authority.DID)
		return err
	}
	if _, err := fmt.Fprintf(e.stdout, "%s %s  %s\n", e.show(state), s.Name, inert(why)); err != nil {
		return err
	}
	for _, v := range s.values() {
		if _, err := fmt.Fprintf(e.stdout, "  found  %s\tTXT\t%s\n", s.Name, inert(fmt.Sprintf("%q", v))); err != nil {
			return err
		}
	}
	if state == markError {
		return nil
	}
	_, err := fmt.Fprintf(e.stdout, "  add    %s\n", add)
	return err
}
