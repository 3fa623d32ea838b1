package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/internal/doctor"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/syntax"
)

type doctorFlags struct {
	networkFlags
	relays  []string
	timeout time.Duration
	quiet   bool
}

// doctorAtOnce is how many targets are examined at the same time.
const doctorAtOnce = 4

func newDoctor(e *env) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor TARGET…",
		Short: "Find out what is wrong with a handle, a DID or a host",
		Long: "Examines a handle, a DID or a host (a PDS, a relay or a labeler) from the outside: DNS, certificates, documents, keys, logs of operations,\n" +
			"streams, clocks, commits with their signatures, and what relays see of it. Each finding is ok, a warning or a failure, with a hint what\n" +
			"helps. A mail server is examined as smtp://HOST:587 or smtps://HOST:465. It changes nothing and logs in nowhere.\n\n" +
			"A name that could be both a handle and a host is taken for a handle if it resolves; a URL is always a host. docs/doctor.md tells\n" +
			"what each finding means. The exit code is 1 if something failed; warnings alone give 0.",
		Example: "  baro doctor alice.example.com\n  baro doctor https://pds.example.com --relay bsky.network --relay relay.example.net\n" +
			"  baro doctor did:plc:ewvi7nxzyoun6zhxrhs64oiz --json | jq 'select(.state != \"ok\")'\n  baro doctor smtps://smtp.example.com:465",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return e.doctor(cmd.Context(), args, f) },
	}
	fl := cmd.Flags()
	f.networkFlags.add(fl, false)
	fl.StringSliceVar(&f.relays, "relay", nil, "URL of a relay to ask what it sees (repeat for more; default: that of the network)")
	alsoNamed(fl, "relay", "relay-host")
	alsoVariable(fl, "relay", "ATP_RELAY_HOST", "RELAY_HOST")
	fl.DurationVar(&f.timeout, "timeout", 45*time.Second, "time for each target")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "leave out what is ok")
	return cmd
}

func (e *env) doctor(ctx context.Context, targets []string, f doctorFlags) error {
	if f.timeout <= 0 {
		return usagef("--timeout %s: want more than nothing", f.timeout)
	}
	for i := range f.relays {
		if err := serviceURLs("relay", &f.relays[i]); err != nil {
			return err
		}
	}
	if len(f.relays) > 0 {
		f.networkFlags.relay = f.relays[0]
	}
	ns, err := e.networks(ctx, f.networkFlags)
	if err != nil {
		return advise(err)
	}
	r := &doctorReport{e: e, quiet: f.quiet, live: isTerminal(e.stdout) || e.json, many: len(targets) > 1, paint: colorsOf(e.stdout)}
	eg := errgroup.Group{}
	eg.SetLimit(doctorAtOnce)
	for _, target := range targets {
		eg.Go(func() error {
			n, guard := ns.patient(ctx, target)
			o := doctor.Options{Dialer: guard, Resolver: n.txt, Now: e.world.Clock.Now, PLC: n.plc, Relays: f.relays, AllowLocalhost: n.local, Timeout: f.timeout}
			if len(o.Relays) == 0 {
				o.Relays = []string{n.relay}
			}
			for _, relay := range o.Relays {
				if err := guard.Allow(hostPort(relay)); err != nil {
					return err
				}
			}
			_, err := doctor.Run(ctx, target, o, r.add)
			if errors.Is(err, doctor.ErrTarget) {
				return usagef("%w", err)
			}
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	return r.finish(ctx)
}

// patient is the network that a target is in, and a dialer that reaches the target itself, wherever it is.
func (ns *networks) patient(ctx context.Context, target string) (*network, *netguard.Dialer) {
	n := ns.list[len(ns.list)-1]
	id := syntax.AtIdentifier(strings.TrimPrefix(strings.TrimPrefix(target, "at://"), "@"))
	named := ""
	if u, err := url.Parse(target); err == nil && u.Host != "" && u.Scheme != "at" {
		named = hostPort(target)
		if u.Scheme == "smtp" || u.Scheme == "smtps" {
			port := u.Port()
			if port == "" {
				port = map[string]string{"smtp": "587", "smtps": "465"}[u.Scheme]
			}
			named = net.JoinHostPort(u.Hostname(), port)
		}
	} else if origin, err := serviceURL(target); err == nil && isLoopback(origin) {
		named = hostPort(origin)
	}
	host, _, _ := net.SplitHostPort(named)
	for _, candidate := range ns.list {
		if !candidate.local {
			continue
		}
		if id.Handle().TLD() == testDomain || named != "" && isLoopback("http://"+net.JoinHostPort(host, "1")) {
			n = candidate
		} else if did, err := syntax.ParseDID(string(id)); err == nil {
			if _, err := candidate.dir.ResolveDID(ctx, did); err == nil {
				n = candidate
			}
		}
	}
	if named != "" {
		_ = n.guard.Allow(named) // the user has named it
	}
	return n, n.guard
}

// doctorReport prints findings as they come where somebody watches or a program reads, and in an order of their own elsewhere.
type doctorReport struct {
	e     *env
	quiet bool
	live  bool
	many  bool // targets
	paint colors

	mu     sync.Mutex
	all    []doctor.Finding
	counts map[doctor.State]int
	err    error // of writing
}

func (r *doctorReport) add(f doctor.Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[doctor.State]int{}
	}
	r.counts[f.State]++
	switch {
	case r.quiet && f.State == doctor.OK:
	case r.live:
		r.print(f)
	default:
		r.all = append(r.all, f)
	}
}

func (r *doctorReport) print(f doctor.Finding) {
	if r.err != nil {
		return
	}
	if r.e.json {
		r.err = r.e.printJSON(f)
		return
	}
	word := map[doctor.State]string{doctor.OK: r.paint.good("ok  "), doctor.Warn: r.paint.paint("33", "warn"), doctor.Fail: r.paint.bad("FAIL")}[f.State]
	subject := inert(f.Subject)
	if r.many && f.Target != f.Subject {
		subject = inert(f.Target) + ": " + subject
	}
	_, r.err = fmt.Fprintf(r.e.stdout, "%s  %s: %s %s\n", word, subject, inert(f.Text), r.paint.dim("["+f.Code+"]"))
	if r.err == nil && f.Hint != "" {
		_, r.err = fmt.Fprintf(r.e.stdout, "      %s\n", r.paint.paint("1", inert(f.Hint)))
	}
}

// finish prints what is left, and a summary.
func (r *doctorReport) finish(ctx context.Context) error {
	order := map[string]int{}
	for i, k := range doctor.Kinds() {
		order[k.Code] = i
	}
	slices.SortStableFunc(r.all, func(a, b doctor.Finding) int {
		if c := strings.Compare(a.Target, b.Target); c != 0 {
			return c
		}
		if c := order[a.Code] - order[b.Code]; c != 0 {
			return c
		}
		return strings.Compare(a.Subject+a.Relay+a.Text, b.Subject+b.Relay+b.Text)
	})
	for _, f := range r.all {
		r.print(f)
	}
	if r.err != nil {
		return fmt.Errorf("writing the findings: %w", r.err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	summary := fmt.Sprintf("%s, %s, %d ok", count(r.counts[doctor.Fail], "failure", "failures"), count(r.counts[doctor.Warn], "warning", "warnings"), r.counts[doctor.OK])
	if r.counts[doctor.Fail] > 0 {
		return errors.New(summary)
	}
	if !r.e.json {
		fmt.Fprintln(r.e.stderr, summary)
	}
	return nil
}
