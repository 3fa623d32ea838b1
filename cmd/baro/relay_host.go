package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/xrpc"
)

func newRelayHost(e *env, f *networkFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "host",
		Short:   "The hosts that a relay follows",
		Long:    "Lists the hosts of a relay, compares those of two, and asks one to follow another host. Nobody needs to be logged in.",
		Example: "  baro relay host list\n  baro relay host status pds.example.com\n  baro relay host request-crawl pds.example.com",
	}
	crawl := &cobra.Command{
		Use:     "request-crawl HOST",
		Aliases: []string{"add"},
		Short:   "Ask a relay to follow a host",
		Long: "Asks a relay to follow a host, such as a PDS, https://atproto.com/specs/sync. A relay that says yes may still not do it: 'baro doctor HOST'\n" +
			"finds out whether it does, and what is in the way.",
		Example: "  baro relay host request-crawl pds.example.com\n  baro relay host add pds.example.com --relay https://relay.example.net",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := hostArgument(args[0])
			if err != nil {
				return err
			}
			_, c, err := e.relay(cmd.Context(), f)
			if err != nil {
				return advise(err)
			}
			if _, err := comatproto.SyncRequestCrawl.Call(cmd.Context(), c, &comatproto.SyncRequestCrawl_Input{Hostname: host}); err != nil {
				return advise(err)
			}
			if e.json {
				return e.printJSON(map[string]string{"hostname": host, "relay": c.Host})
			}
			return e.printRow("success")
		},
	}
	list := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the hosts of a relay",
		Long:    "Lists the hosts that a relay knows: name, status, number of accounts, and the last event that it took from the host.",
		Example: "  baro relay host list\n  baro relay host list --json | jq -r 'select(.status != \"active\") | .hostname'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, c, err := e.relay(cmd.Context(), f)
			if err != nil {
				return advise(err)
			}
			for h, err := range relayHosts(cmd.Context(), c) {
				if err == nil {
					err = e.printHost(h.Hostname, h.Status, h.AccountCount, h.Seq, h)
				}
				if err != nil {
					return advise(err)
				}
			}
			return nil
		},
	}
	status := &cobra.Command{
		Use:     "status HOST",
		Short:   "Show what a relay knows of a host",
		Long:    "Prints the status of a host at the relay, how many accounts it has there, and how far the relay has followed it.",
		Example: "  baro relay host status pds.example.com\n  baro relay host status pds.example.com --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := hostArgument(args[0])
			if err != nil {
				return err
			}
			_, c, err := e.relay(cmd.Context(), f)
			if err != nil {
				return advise(err)
			}
			h, err := comatproto.SyncGetHostStatus.Call(cmd.Context(), c, &comatproto.SyncGetHostStatus_Params{Hostname: host})
			if err != nil {
				return advise(err)
			}
			return e.printHost(h.Hostname, h.Status, h.AccountCount, h.Seq, h)
		},
	}
	cmd.AddCommand(crawl, list, status, newRelayDiff(e))
	return cmd
}

// hostArgument reads the name of a host, or its URL, as the methods for hosts want it: without a scheme if that is https.
func hostArgument(s string) (string, error) {
	origin, err := serviceURL(s)
	if err != nil {
		return "", usagef("%q is not the name of a host, such as pds.example.com", s)
	}
	return strings.TrimPrefix(strings.TrimPrefix(origin, "https://"), "http://"), nil
}

// relayHosts lists the hosts of a relay.
func relayHosts(ctx context.Context, c *xrpc.Client) func(func(*comatproto.SyncListHosts_Host, error) bool) {
	pages := comatproto.SyncListHosts.Pages(ctx, c, comatproto.SyncListHosts_Params{Limit: new(int64(relayPage))})
	return xrpc.Items(pages, func(o *comatproto.SyncListHosts_Output) []comatproto.SyncListHosts_Host { return o.Hosts })
}

func (e *env) printHost(name string, status *string, accounts, seq *int64, whole any) error {
	if e.json {
		return e.printStruct(whole)
	}
	return e.printRow(name, deref(status), number(accounts), number(seq))
}

func number(n *int64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10)
}

func newRelayDiff(e *env) *cobra.Command {
	var verbose bool
	var slop int64
	cmd := &cobra.Command{
		Use:   "diff RELAY RELAY",
		Short: "Compare the hosts of two relays",
		Long: "Compares which hosts two relays follow, in what status, and how far: name, what each of them says, and the difference, which is\n" +
			"A-missing or B-missing, diff-status, or delta=N for positions that are further apart than --seq-slop. Hosts that are alike are left\n" +
			"out, and so are those that only one of them knows and doesn't follow either; --verbose shows them.",
		Example: "  baro relay host diff https://relay.example.net https://bsky.network\n  baro relay host diff relay.example.net bsky.network --seq-slop 10000 --json",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if slop < 0 {
				return usagef("--seq-slop %d: want 0 or more", slop)
			}
			return advise(e.relayDiff(cmd.Context(), args, verbose, slop))
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&verbose, "verbose", false, "show all hosts")
	fl.Int64Var(&slop, "seq-slop", 100, "events that positions may be apart and still count as close")
	return cmd
}

// position is how it stands with a host at one of two relays.
type position struct {
	Status string `json:"status"`
	Seq    int64  `json:"seq"`
}

func (p *position) String() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%s/%d", p.Status, p.Seq)
}

// hostDifference is a line of 'baro relay host diff'.
type hostDifference struct {
	Host   string    `json:"host"`
	A      *position `json:"a,omitempty"`
	B      *position `json:"b,omitempty"`
	Result string    `json:"result"` // sync, nearly, delta, diff-status, A-missing or B-missing
	Delta  int64     `json:"delta,omitempty"`
}

// compareHosts says how two relays differ about a host, and whether that is worth a line.
func compareHosts(name string, a, b *position, slop int64) (d hostDifference, notable bool) {
	d = hostDifference{Host: name, A: a, B: b}
	switch {
	case a == nil:
		d.Result = "A-missing"
		return d, b.Status == comatproto.SyncDefs_Active
	case b == nil:
		d.Result = "B-missing"
		return d, a.Status == comatproto.SyncDefs_Active
	case a.Status != b.Status:
		d.Result = "diff-status"
		return d, true
	}
	switch d.Delta = max(a.Seq, b.Seq) - min(a.Seq, b.Seq); {
	case d.Delta == 0:
		d.Result = "sync"
	case d.Delta < slop:
		d.Result = "nearly"
	default:
		d.Result = "delta"
		return d, true
	}
	return d, false
}

func (e *env) relayDiff(ctx context.Context, relays []string, verbose bool, slop int64) error {
	var sides [2]map[string]*position
	eg, ctx := errgroup.WithContext(ctx)
	for i, r := range relays {
		origin, err := serviceURL(r)
		if err != nil {
			return usagef("%w", err)
		}
		guard := netguard.NewDialer(netguard.Options{})
		if err := guard.Allow(hostPort(origin)); err != nil { // the user has named it
			return usagef("%w", err)
		}
		c := &xrpc.Client{Host: origin, HTTP: netguard.Client(guard, netguard.ClientOptions{UserAgent: userAgent, MaxBody: 16 << 20})}
		eg.Go(func() error {
			all := map[string]*position{}
			sides[i] = all
			for h, err := range relayHosts(ctx, c) {
				if err != nil {
					return fmt.Errorf("listing the hosts of %s: %w", r, err)
				}
				if h.Status != nil && h.Seq != nil && *h.Seq > 0 { // the others were never reached
					all[h.Hostname] = &position{*h.Status, *h.Seq}
				}
			}
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	names := map[string]bool{}
	for _, side := range sides {
		for name := range side {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d, notable := compareHosts(name, sides[0][name], sides[1][name], slop)
		if !notable && !verbose {
			continue
		}
		var err error
		if e.json {
			err = e.printJSON(d)
		} else {
			word := d.Result
			if word == "delta" {
				word = fmt.Sprintf("delta=%d", d.Delta)
			}
			err = e.printRow(name, d.A.String(), d.B.String(), word)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
