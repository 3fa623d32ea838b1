package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/internal/bench"
	"github.com/barograph/baro/keys"
)

type benchFlags struct {
	short bool
	run   string
	dir   string
}

func newBench(e *env) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: the core, the disk, and a small network",
		Long: "Measures what this program does with records, trees, repositories and commits, each beside a floor: what the same bytes\n" +
			"cost anybody on this machine, such as their SHA-256, a plain scan, or a bare signature verification. The ratio of the two hardly\n" +
			"depends on the machine; the times do. They are CPU time on one core, garbage collection included.\n\n" +
			"Then it measures how often the disk under --dir can be told to keep what was written, and with a network of its own in that folder how\n" +
			"many records a second a PDS acknowledges and how many events a second ten consumers get. These are wall-clock times with the\n" +
			"clients, a relay and an index on the same cores. The folder's content is removed in the end.\n\n" +
			"Rows with a target say whether it is met. Nothing is asked of the internet.",
		Example: "  baro bench --short\n" +
			"  baro bench --dir /var/lib/baro --run 'disk|network'\n" +
			"  baro bench --json | jq -r 'select(.ok | not) | .name'",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.bench(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.short, "short", false, "measure for a shorter time: less than a minute for all rows")
	fl.StringVar(&f.run, "run", "", "measure only the rows whose name matches this regular expression")
	fl.StringVar(&f.dir, "dir", "", "measure the disk that this folder is on (default: that of temporary files)")
	return cmd
}

// gauge is a row that is measured in its own way, with the disk or the network, together with others that share its setup.
type gauge struct {
	names []string
	run   func(ctx context.Context, dir string, d time.Duration) ([]bench.Row, error)
}

func (e *env) bench(ctx context.Context, f benchFlags) error {
	pattern, err := regexp.Compile(f.run)
	if err != nil {
		return usagef("--run: %v", err)
	}
	effort, span := bench.Thorough, 4*time.Second
	if f.short {
		effort, span = bench.Brief, time.Second
	}
	var rows []bench.Row
	emit := func(r bench.Row) error {
		rows = append(rows, r)
		if e.json {
			return json.NewEncoder(e.stdout).Encode(r)
		}
		return nil
	}

	var core []bench.Bench
	if err := bench.Guard(func() { core = bench.Core() }); err != nil {
		return err
	}
	var gauges []gauge
	for _, g := range []gauge{{[]string{"disk-sync"}, gaugeDisk}, {[]string{"network-create", "network-fanout"}, gaugeNetwork}} {
		for _, name := range g.names {
			if pattern.MatchString(name) {
				gauges = append(gauges, g)
				break
			}
		}
	}
	todo := core[:0]
	for _, b := range core {
		if pattern.MatchString(b.Name) && !(f.short && b.Long) {
			todo = append(todo, b)
		}
	}
	if len(todo)+len(gauges) == 0 {
		return usagef("--run %q matches no row", f.run)
	}
	p := e.progress("measuring")
	defer p.done()
	for i, b := range todo {
		p.set(i, len(todo)+len(gauges))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r, err := bench.Run(b, effort)
		if err != nil {
			return err
		}
		if err := emit(r); err != nil {
			return err
		}
	}
	for i, g := range gauges {
		p.set(len(todo)+i, len(todo)+len(gauges))
		dir, err := os.MkdirTemp(f.dir, "baro-bench-")
		if err != nil {
			return fmt.Errorf("making a folder to measure in: %w", err)
		}
		made, err := g.run(ctx, dir, span)
		if rmErr := os.RemoveAll(dir); err == nil && rmErr != nil {
			err = fmt.Errorf("removing the folder that was measured in: %w", rmErr)
		}
		if err != nil {
			return err
		}
		for _, r := range made {
			if !pattern.MatchString(r.Name) {
				continue
			}
			if err := emit(r); err != nil {
				return err
			}
		}
	}
	p.done()
	if e.json {
		return nil
	}
	return e.benchTable(rows)
}

func (e *env) benchTable(rows []bench.Row) error {
	library := "Go"
	if keys.K256Library != "go" {
		library = keys.K256Library
	}
	fmt.Fprintf(e.stdout, "baro %s, %d cores, K-256 in %s\n\n", version(), runtime.NumCPU(), library)
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ROW\tTIME\tPER SECOND\tALLOCS\tFLOOR\t\tRATIO\tTARGET\t")
	c := colorsOf(e.stdout)
	for _, r := range rows {
		floor, ratio, target, allocs := "", "", "", "–"
		if r.FloorNS != nil {
			floor = timeOf(*r.FloorNS)
		}
		if r.Of != "" {
			ratio = fmt.Sprintf("%.2f %s", r.Ratio, r.Of)
		}
		if r.Target != nil {
			sign := "≥"
			if r.Of.LessIsBetter() {
				sign = "≤"
			}
			target = fmt.Sprintf("%s %.4g", sign, *r.Target)
		}
		if r.Allocs >= 0 {
			allocs = fmt.Sprintf("%.4g", r.Allocs)
		}
		verdict := ""
		switch {
		case r.Target == nil && r.MaxAllocs == nil:
		case r.OK:
			verdict = c.good("ok")
		default:
			verdict = c.bad("missed")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, timeOf(r.OursNS), rateOf(r.OursNS), allocs, floor, r.Floor, ratio, target, verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, "\nWhat the rows measure, and what bounds them:")
	for _, r := range rows {
		bound := ""
		if r.Bound != "" {
			bound = ". Bounded by: " + r.Bound
		}
		fmt.Fprintf(e.stdout, "  %s: %s%s.\n", r.Name, r.What, bound)
	}
	_, err := fmt.Fprintln(e.stdout, "\nTimes are per operation. ours/floor: how far above the floor, less is better; floor/ours: the share of the floor's speed, more is better;\n"+
		"ours/limit: the share of a time that is set.")
	return err
}

// timeOf writes nanoseconds with three digits.
func timeOf(ns float64) string {
	switch {
	case ns < 1e3:
		return fmt.Sprintf("%.3g ns", ns)
	case ns < 1e6:
		return fmt.Sprintf("%.3g µs", ns/1e3)
	case ns < 1e9:
		return fmt.Sprintf("%.3g ms", ns/1e6)
	}
	return fmt.Sprintf("%.3g s", ns/1e9)
}

// rateOf writes how many operations fit into a second.
func rateOf(ns float64) string {
	n := 1e9 / ns
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.3g M", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.3g k", n/1e3)
	case n >= 100:
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.3g", n)
}
