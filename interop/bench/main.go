// Command bench compares the protocol core with other libraries and with floors, in one run and on the same inputs.
//
//	cd interop && go run ./bench            # the whole table, also written to results/
//	cd interop && go run ./bench -short     # without the repository of a million records, under a minute
//	cd interop && go run ./bench -check     # for CI: fails when something has become slower or allocates more
//
// The peers are github.com/bluesky-social/indigo, which most Go programs of the network are made with, and
// github.com/fxamacker/cbor/v2. The floors are what nobody can do without: a plain validating scan of the same bytes, their
// SHA-256, a copy of them, one signature verification. Costs are CPU time of the whole process, garbage collection
// included, on one core (GOMAXPROCS=1). What a row compares is measured in turns, round by round; a ratio is the median of
// the rounds' ratios, so that it hardly depends on the machine or on what else it does.
//
// Inputs are made by a seeded generator, or are fixtures ($BARO_FIXTURES, or ../../shared/fixtures); rows whose fixture is
// missing are left out, with CI=true they are an error.
//
// -check holds every ratio against its target, or for a row that results/known.json names, against the ratio accepted
// there; it fails when one is worse by more than a quarter, or when a row allocates more than results/allocs.json says.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

func main() {
	var (
		asJSON  = flag.Bool("json", false, "print one JSON object per row")
		brief   = flag.Bool("short", false, "leave out the long rows and measure for a shorter time")
		gate    = flag.Bool("check", false, "fail if a ratio or the allocations have become worse; implies -short, writes nothing")
		accept  = flag.Bool("accept", false, "also write what falls short now, and the allocations, into the files that -check reads")
		only    = flag.String("run", "", "measure only the rows whose name matches the regular expression; writes nothing")
		results = flag.String("o", "results", "folder for the results")
	)
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	check(err)
	*brief = *brief || *gate
	rounds, fill := 9, 60*time.Millisecond
	if *brief {
		rounds, fill = 5, 20*time.Millisecond
	}
	debug.SetGCPercent(100) // whatever the environment says

	old := readAccepted(*results)
	var rows []row
	for _, group := range []func() []bench{codecRows, syntaxRows, treeRows, repoRows, commitRows} {
		for _, b := range group() {
			if !pattern.MatchString(b.name) || *brief && b.long {
				continue
			}
			if !*asJSON {
				fmt.Fprintf(os.Stderr, "\r\x1b[K%s", b.name)
			}
			n := rounds
			if b.long {
				n = 3
			}
			r := run(b, n, fill)
			old.explain(&r)
			rows = append(rows, r)
			if *asJSON {
				check(json.NewEncoder(os.Stdout).Encode(r))
			}
		}
	}
	if !*asJSON {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		writeTable(os.Stdout, rows)
	}
	if *gate {
		if bad := old.check(rows); len(bad) > 0 {
			fmt.Fprintf(os.Stderr, "\nworse than accepted:\n  %s\n", strings.Join(bad, "\n  "))
			os.Exit(1)
		}
		return
	}
	if *accept {
		old.write(*results, rows)
	}
	if *only == "" && !*brief {
		check(os.MkdirAll(*results, 0o755))
		f := must(os.Create(*results + "/bench.md"))
		writeHead(f)
		writeTable(f, rows)
		writeShortfalls(f, rows)
		check(f.Close())
		check(os.WriteFile(*results+"/bench.json", must(json.MarshalIndent(struct {
			Machine machine `json:"machine"`
			Rows    []row   `json:"rows"`
		}{thisMachine(), rows}, "", "\t")), 0o644))
	}
}

type machine struct {
	Date   string            `json:"date"`
	CPU    string            `json:"cpu"`
	Go     string            `json:"go"`
	System string            `json:"system"`
	Peers  map[string]string `json:"peers"`
}

func thisMachine() machine {
	m := machine{Date: time.Now().UTC().Format(time.DateOnly), Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Peers: map[string]string{}}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			m.CPU = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			switch d.Path {
			case "github.com/bluesky-social/indigo", "github.com/fxamacker/cbor/v2", "github.com/ipfs/go-cid", "gitlab.com/yawning/secp256k1-voi":
				m.Peers[d.Path] = d.Version
			}
		}
	}
	return m
}

func writeHead(w io.Writer) {
	m := thisMachine()
	fmt.Fprintf(w, "# Speed of the core, beside others\n\nMade by `cd interop && go run ./bench` on %s: %s, %s, %s.\n\n", m.Date, m.CPU, m.System, m.Go)
	for _, p := range []string{"github.com/bluesky-social/indigo", "github.com/fxamacker/cbor/v2", "github.com/ipfs/go-cid", "gitlab.com/yawning/secp256k1-voi"} {
		fmt.Fprintf(w, "- %s %s\n", p, m.Peers[p])
	}
	fmt.Fprint(w, `
CPU time of one core per operation, garbage collection included; median of the rounds. The ratio is that of the column
"of", measured in turns; ≥ means more is better, ≤ less. Rows without a target are for information.

`)
}

func writeTable(w io.Writer, rows []row) {
	fmt.Fprintln(w, "| row | ours | allocs | peer | its time | its allocs | floor | its time | of | ratio | target | ok |")
	fmt.Fprintln(w, "|---|---:|---:|---|---:|---:|---|---:|---|---:|---:|---|")
	for _, r := range rows {
		sign := "≥"
		if r.Of.lessIsBetter() {
			sign = "≤"
		}
		target, ok := "", ""
		if r.Target != nil {
			target = fmt.Sprintf("%s %.4g", sign, *r.Target)
			ok = "yes"
		}
		if r.MaxAllocs != nil {
			target += fmt.Sprintf(", ≤ %.4g allocs", *r.MaxAllocs)
			ok = "yes"
		}
		if !r.OK {
			ok = "**no**"
			if r.Known {
				ok = "no, known"
			}
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %.2f | %s | %s |\n", r.Name, duration(&r.OursNS), count(&r.Allocs), r.Peer, duration(r.PeerNS), count(r.PeerAllocs),
			r.Floor, duration(r.FloorNS), r.Of, r.Ratio, strings.TrimPrefix(target, ", "), ok)
	}
}

func writeShortfalls(w io.Writer, rows []row) {
	fmt.Fprint(w, "\n## What the rows measure\n\n")
	for _, r := range rows {
		fmt.Fprintf(w, "- **%s**: %s.\n", r.Name, r.What)
	}
	head := "\n## Below target\n\n"
	for _, r := range rows {
		if !r.OK {
			fmt.Fprintf(w, "%s- **%s**: %s\n", head, r.Name, r.Why)
			head = ""
		}
	}
}

func duration(ns *float64) string {
	switch {
	case ns == nil:
		return ""
	case *ns < 1e3:
		return fmt.Sprintf("%.3g ns", *ns)
	case *ns < 1e6:
		return fmt.Sprintf("%.3g µs", *ns/1e3)
	}
	return fmt.Sprintf("%.3g ms", *ns/1e6)
}

func count(n *float64) string {
	switch {
	case n == nil:
		return ""
	case *n >= 1e4:
		return fmt.Sprintf("%.0f", *n)
	}
	return fmt.Sprintf("%.4g", *n)
}

// check ends the program on an error. A benchmark whose work fails has nothing to tell.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}
