package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/internal/kv"
)

type upFlags struct {
	empty     bool
	demo      int
	data      string
	memory    bool
	portBase  int
	bind      string
	allow     []string
	debugAddr string
	zone      string
}

const defaultDemo = 8

func newUp(e *env) *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring up a whole local network",
		Long: "Brings up a PLC directory, a PDS, a relay, a link index and an explorer in this process, and prints where they are.\n" +
			"On an empty data directory it plants a small demo world. No account, no configuration and no network are needed.\n\n" +
			"Handles end in .test, and whoever has the handle alice.test is the authority of the lexicons test.alice.*: the network's\n" +
			"own DNS says so. A zone file adds TXT records for other names, a line each, and is read again when it changes:\n\n" +
			"  _lexicon.notes.alice.test  TXT  \"did=did:plc:…\"\n\n" +
			"Mails, such as those with a code that confirms something, are not sent: each is a line on standard error and a file in\n" +
			"the folder mail of the data directory.\n\n" +
			"Ctrl-C stops it; the next start goes on where it was. With --json, the first line on standard output is one object\n" +
			"with the URLs, printed when all services answer; a second one tells of the demo world when that is planted.",
		Example: "  baro up\n  baro up --memory --empty --json\n  baro up --data /tmp/world --port-base 0 --demo 200",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.up(cmd, f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.empty, "empty", false, "plant no demo world")
	fl.IntVar(&f.demo, "demo", defaultDemo, "accounts of the demo world, 2 to 10000")
	fl.StringVar(&f.data, "data", "", "data directory (default: baro in the user's data folder)")
	fl.BoolVar(&f.memory, "memory", false, "keep everything in memory, and nothing afterwards")
	fl.IntVar(&f.portBase, "port-base", 0, "first of five ports in a row; 0: free ones (default: 2500, 2582, 2583, 2470, 6789, or those of last time)")
	fl.StringVar(&f.bind, "bind", "127.0.0.1", "address to listen on")
	fl.StringSliceVar(&f.allow, "allow", nil, "host:port of a service of yours that the network may reach, such as an AppView on localhost:3000 (repeat for more)")
	fl.StringVar(&f.zone, "zone", "", "file of TXT records of the network's DNS (default: zone.txt in the data directory)")
	fl.StringVar(&f.debugAddr, "debug-addr", "", "host:port for profiles and metrics (default: none)")
	return cmd
}

func (e *env) up(cmd *cobra.Command, f upFlags) error {
	ctx := cmd.Context()
	demoGiven := e.config.given(cmd, "demo")
	started := e.world.Clock.Now()
	switch {
	case f.empty && demoGiven:
		return usagef("--empty and --demo are opposites: choose one")
	case f.demo < 2 || f.demo > devnet.MaxDemo:
		return usagef("--demo %d: want a number from 2 to %d", f.demo, devnet.MaxDemo)
	case f.portBase < 0 || f.portBase > 65531:
		return usagef("--port-base %d: want 0 or a number up to 65531", f.portBase)
	case f.memory && f.data != "":
		return usagef("--memory and --data are opposites: choose one")
	}
	if err := devnet.CheckBind(f.bind); err != nil {
		return usagef("--bind: %w", err)
	}
	if !f.memory && f.data == "" {
		var err error
		if f.data, err = dataDir(); err != nil {
			return err
		}
	}
	ports, err := upPorts(f, e.config.given(cmd, "port-base"))
	if err != nil {
		return err
	}
	tuneRuntime()
	reg := processFigures()
	stopDebug, err := e.debugServer(ctx, f.debugAddr, reg)
	if err != nil {
		return err
	}
	defer stopDebug()

	n, err := devnet.Start(ctx, devnet.Options{
		Dir: f.data, Memory: f.memory, Ports: ports, Bind: f.bind, Allow: f.allow, Zone: f.zone, Log: e.log, Version: version().Version, OnMail: e.showMail, Metrics: reg,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return upError(err, f)
	}
	if e.json {
		err = json.NewEncoder(e.stdout).Encode(n.URLs())
	} else {
		err = e.printTable(n, f, e.world.Clock.Now().Sub(started))
	}
	var demo *devnet.Demo
	if err == nil && !f.empty {
		demo, err = e.plant(ctx, n, f, demoGiven)
	}
	if err == nil && !e.json {
		err = e.printNext(n.URLs(), demo, f)
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case <-n.Failed():
		}
	}
	if ctx.Err() != nil {
		err = nil // what was going on was to end
		if !e.json {
			fmt.Fprintln(e.stderr, "stopping …")
		}
	}
	closed := n.Close()
	return first(n.Err(), err, closed)
}

// showMail tells of a mail that the network's PDS has sent.
func (e *env) showMail(m devnet.Mail, file string) {
	if file != "" {
		file = " (" + file + ")"
	}
	what := inert(m.Subject)
	if m.Code != "" {
		what += ": " + inert(m.Code)
	}
	fmt.Fprintf(e.stderr, "mail to %s: %s%s\n", inert(m.To), what, file)
}

// first is the error that the others follow from: one line is enough.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// upError adds what a person can do about it.
func upError(err error, f upFlags) error {
	var locked *kv.LockedError
	if errors.As(err, &locked) {
		return withHint(err, "the network that runs there can be used as it is; --memory brings up another one beside it with --port-base 0")
	}
	return err
}

// upPorts are the ports to ask for. Without --port-base a data directory keeps those it has.
func upPorts(f upFlags, given bool) (devnet.Ports, error) {
	if given {
		if f.portBase == 0 {
			return devnet.Ports{}, nil
		}
		return devnet.PortsFrom(f.portBase), nil
	}
	if !f.memory {
		if _, ok, err := devnet.Remembered(f.data); ok || err != nil {
			return devnet.Ports{}, err
		}
	}
	return devnet.DefaultPorts, nil
}

func (e *env) printTable(n *devnet.Network, f upFlags, took time.Duration) error {
	u := n.URLs()
	w := tabwriter.NewWriter(e.stdout, 0, 4, 3, ' ', 0)
	fmt.Fprintf(w, "Your network is up (%d ms).\n\n", took.Milliseconds())
	for _, r := range [][3]string{
		{"explorer", u.Explorer, "look at everything in a browser"},
		{"pds", u.PDS, "accounts and their repositories"},
		{"relay", u.Relay, "one verified stream of all changes"},
		{"links", u.Links, "who links to what"},
		{"plc", u.PLC, "identities (did:plc)"},
	} {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", r[0], r[1], r[2])
	}
	where := "in memory only: nothing is kept"
	if !f.memory {
		where = absolute(f.data)
	}
	fmt.Fprintf(w, "  data\t%s\t\n\n", where)
	return w.Flush()
}

// plant plants the demo world where there is nothing yet. The result is nil if there is none.
func (e *env) plant(ctx context.Context, n *devnet.Network, f upFlags, asked bool) (*devnet.Demo, error) {
	bar := e.progress("planting the demo world")
	d, err := n.PlantDemo(ctx, devnet.DemoOptions{Accounts: f.demo, Force: asked, Progress: bar.set})
	bar.done()
	if err != nil {
		return nil, fmt.Errorf("planting the demo world: %w", err)
	}
	if d == nil {
		return nil, nil
	}
	if asked && d.Accounts != f.demo {
		fmt.Fprintf(e.stderr, "baro: this data directory has a demo world of %d accounts already; choose another --data for %d\n", d.Accounts, f.demo)
	}
	if e.json {
		return d, json.NewEncoder(e.stdout).Encode(map[string]any{"demo": d})
	}
	if d.Planted {
		_, err = fmt.Fprintf(e.stdout, "Planted %d accounts, %d posts, %d likes, %d follows and %d reposts in %.1f s.\n", d.Accounts, d.Posts, d.Likes, d.Follows, d.Reposts, d.Took.Seconds())
	}
	return d, err
}

// printNext tells what to do with a network that is up; d is its demo world, if it has one.
func (e *env) printNext(u devnet.URLs, d *devnet.Demo, f upFlags) error {
	w := tabwriter.NewWriter(e.stdout, 0, 4, 3, ' ', 0)
	if d != nil {
		fmt.Fprintf(w, "Sign in as %s with the password %s\n\n", d.Handle, d.Password)
	}
	baro, where := invocation()
	fmt.Fprintf(w, "What next, in another terminal%s:\n", where)
	for _, t := range nextSteps(u, d, f) {
		fmt.Fprintf(w, "  %s\t%s %s\n", t[0], baro, t[1])
	}
	fmt.Fprintf(w, "\nPress Ctrl-C to stop.\n")
	return w.Flush()
}

// nextSteps are commands to try, each after what it is for.
func nextSteps(u devnet.URLs, d *devnet.Demo, f upFlags) [][2]string {
	where, relay := "", ""
	if standard, err := dataDir(); f.memory {
		where = " --plc " + u.PLC + " --pds " + u.PDS
		relay = " --relay " + u.Relay
	} else if err != nil || absolute(f.data) != absolute(standard) {
		where = " --network " + shellQuote(absolute(f.data))
	}
	if d == nil {
		return [][2]string{
			{"make an account", "account create alice.test" + where},
			{"see what happens", "firehose --verify" + where + relay},
		}
	}
	rkey := d.Post[strings.LastIndexByte(d.Post, '/')+1:]
	return [][2]string{
		{"a post, with its proof", "get --verify at://" + d.Handle + "/app.bsky.feed.post/" + rkey + where},
		{"check a whole repository", "repo verify " + d.Handle + where},
		{"see what happens", "firehose --verify --cursor 0" + where + relay},
		{"sign in", "account login " + d.Handle + where},
	}
}

// absolute is a path that means the same in another folder.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
