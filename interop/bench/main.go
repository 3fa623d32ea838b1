// Command bench compares the protocol core, and the client, with other libraries and with floors, in one run and on the same inputs.
//
//	cd interop && go run ./bench            # the whole table, also written to results/
//	cd interop && go run ./bench -short     # without the repository of a million records, about a minute
//	cd interop && go run ./bench -check     # for CI: fails when something has become slower or allocates more
//
// The peers are github.com/bluesky-social/indigo, which most Go programs of the network are made with,
// github.com/fxamacker/cbor/v2, and for signatures the modules secp256k1-voi and decred's secp256k1. The floors are what nobody can
// do without: a plain validating scan of the same bytes, their SHA-256, a copy of them, one signature verification. How costs
// are measured tells package internal/bench, which has the rows without the peers; the command baro bench shows those.
//
// Inputs are made by a seeded generator, or are fixtures ($BARO_FIXTURES, or ../../shared/fixtures); rows whose fixture is
// missing are left out, with CI=true they are an error.
//
// With the build tag libsecp256k1 only the rows with signatures are measured, and held against that library's bare
// verification; their table has a name of its own:
//
//	cd interop && go run -tags libsecp256k1 ./bench
//
// -check holds every ratio against its target, or for a row that results/known.json names, against the ratio accepted
// there; it fails when one is worse by more than a quarter, or when a row allocates more than results/allocs.json says. What
// fails is measured again, longer, twice: a machine that is busy with something else disturbs a row now and then, but not the
// same one three times.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/barograph/baro/internal/bench"
	"github.com/barograph/baro/keys"
)

func main() {
	if os.Getenv(serveVariable) != "" {
		servePages()
		return
	}
	if err := bench.Guard(measure); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure() {
	var (
		asJSON  = flag.Bool("json", false, "print one JSON object per row")
		brief   = flag.Bool("short", false, "leave out the long rows and measure for a shorter time")
		gate    = flag.Bool("check", false, "fail if a ratio or the allocations have become worse; implies -short, writes nothing")
		accept  = flag.Bool("accept", false, "also write what falls short now, and the allocations, into the files that -check reads")
		only    = flag.String("run", "", "measure only the rows whose name matches the regular expression; writes nothing")
		results = flag.String("o", "results", "folder for the results")
	)
	explain := flag.Bool("explain", false, "measure nothing: write the table anew, from its figures and the reasons in known.json")
	flag.Parse()
	if *explain {
		explainResults(*results)
		return
	}
	pattern, err := regexp.Compile(*only)
	bench.Check(err)
	*brief = *brief || *gate
	effort := bench.Thorough
	if *brief {
		effort = bench.Brief
	}
	debug.SetGCPercent(100) // whatever the environment says

	old := readAccepted(*results)
	var rows []bench.Row
	info, err := os.Stderr.Stat()
	watched := !*asJSON && err == nil && info.Mode()&os.ModeCharDevice != 0
	for _, group := range groups() {
		for _, b := range group() {
			if !pattern.MatchString(b.Name) || *brief && b.Long {
				continue
			}
			progress := func(what string) {
				if watched {
					fmt.Fprintf(os.Stderr, "\r\x1b[K%s", what)
				}
			}
			progress(b.Name)
			e := effort
			if b.Long {
				e.Rounds = 3
			}
			r := bench.Must(bench.Run(b, e))
			for try := 0; *gate && try < 2 && len(old.check(r)) > 0; try++ {
				progress(b.Name + ", once more")
				r = better(r, bench.Must(bench.Run(b, bench.Effort{Rounds: 7, Fill: 40 * time.Millisecond})))
			}
			old.explain(&r)
			rows = append(rows, r)
			if *asJSON {
				bench.Check(json.NewEncoder(os.Stdout).Encode(r))
			}
		}
	}
	if watched {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	if !*asJSON {
		writeTable(os.Stdout, rows)
	}
	if *gate {
		if bad := old.check(rows...); len(bad) > 0 {
			fmt.Fprintf(os.Stderr, "\nworse than accepted:\n  %s\n", strings.Join(bad, "\n  "))
			os.Exit(1)
		}
		return
	}
	if *accept {
		old.write(*results, rows)
	}
	if *only == "" && !*brief {
		writeResults(*results, run{thisMachine(), rows})
	}
}

// run is what a results file in JSON holds.
type run struct {
	Machine machine     `json:"machine"`
	Rows    []bench.Row `json:"rows"`
}

// resultsName is the name of the results files, without what tells their form.
func resultsName(dir string) string {
	if tagged {
		return filepath.Join(dir, "bench-"+keys.K256Library)
	}
	return filepath.Join(dir, "bench")
}

func writeResults(dir string, r run) {
	name := resultsName(dir)
	bench.Check(os.MkdirAll(dir, 0o755))
	f := bench.Must(os.Create(name + ".md"))
	writeHead(f, r.Machine)
	writeTable(f, r.Rows)
	writeShortfalls(f, r.Rows)
	bench.Check(f.Close())
	bench.Check(os.WriteFile(name+".json", append(bench.Must(json.MarshalIndent(r, "", "\t")), '\n'), 0o644))
}

// explainResults writes the results anew, after the reasons have been written by hand.
func explainResults(dir string) {
	var r run
	bench.Check(json.Unmarshal(bench.Must(os.ReadFile(resultsName(dir)+".json")), &r))
	old := readAccepted(dir)
	for i := range r.Rows {
		old.explain(&r.Rows[i])
	}
	writeResults(dir, r)
}

// tagged says that K-256 is the C library's.
const tagged = keys.K256Library != "go"

func groups() []func() []bench.Bench {
	if tagged {
		return []func() []bench.Bench{libraryRows}
	}
	return []func() []bench.Bench{codecRows, syntaxRows, treeRows, repoRows, keyRows, commitRows, clientRows}
}

// libraryRows are what the build tag libsecp256k1 changes. The target says which share of the library's bare verifications is left
// when all the rest of a commit is verified too.
func libraryRows() []bench.Bench {
	var rows []bench.Bench
	for _, b := range keyRows() {
		if strings.Contains(b.Name, "k256") {
			rows = append(rows, b)
		}
	}
	for _, b := range bench.CommitRows() {
		if b.Name == "commit-k256" {
			b.Name, b.Of, b.Target = "commit-libsecp256k1", bench.FloorOverOurs, 0.8
			b.Floor = "one signature verification, libsecp256k1"
			rows = append(rows, b)
		}
	}
	return rows
}

// better returns of two measurements of a row the better ratio with the fewer allocations.
func better(a, b bench.Row) bench.Row {
	if worse(b.Of, b.Ratio, a.Ratio) {
		a, b = b, a
	}
	b.Allocs = min(a.Allocs, b.Allocs)
	return b
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
			case "github.com/bluesky-social/indigo", "github.com/fxamacker/cbor/v2", "github.com/ipfs/go-cid", "gitlab.com/yawning/secp256k1-voi", "github.com/decred/dcrd/dcrec/secp256k1/v4":
				m.Peers[d.Path] = d.Version
			}
		}
	}
	return m
}

func writeHead(w io.Writer, m machine) {
	command := "go run ./bench"
	if tagged {
		command = "go run -tags " + keys.K256Library + " ./bench"
	}
	fmt.Fprintf(w, "# Speed of the core, beside others\n\nMade by `cd interop && %s` on %s: %s, %s, %s.\n\n", command, m.Date, m.CPU, m.System, m.Go)
	for _, p := range []string{"github.com/bluesky-social/indigo", "github.com/fxamacker/cbor/v2", "github.com/ipfs/go-cid", "gitlab.com/yawning/secp256k1-voi", "github.com/decred/dcrd/dcrec/secp256k1/v4"} {
		fmt.Fprintf(w, "- %s %s\n", p, m.Peers[p])
	}
	fmt.Fprint(w, `
CPU time of one core per operation, garbage collection included; median of the rounds. The ratio is that of the column
"of", measured in turns; ≥ means more is better, ≤ less. Rows without a target are for information.

`)
}

func writeTable(w io.Writer, rows []bench.Row) {
	fmt.Fprintln(w, "| row | ours | allocs | peer | its time | its allocs | floor | its time | of | ratio | target | ok |")
	fmt.Fprintln(w, "|---|---:|---:|---|---:|---:|---|---:|---|---:|---:|---|")
	for _, r := range rows {
		sign := "≥"
		if r.Of.LessIsBetter() {
			sign = "≤"
		}
		target, ok, ratio := "", "", ""
		if r.Of != "" {
			ratio = fmt.Sprintf("%.2f", r.Ratio)
		}
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
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.Name, duration(&r.OursNS), count(&r.Allocs), r.Peer, duration(r.PeerNS), count(r.PeerAllocs),
			r.Floor, duration(r.FloorNS), r.Of, ratio, strings.TrimPrefix(target, ", "), ok)
	}
}

func writeShortfalls(w io.Writer, rows []bench.Row) {
	fmt.Fprint(w, "\n## What the rows measure\n\n")
	for _, r := range rows {
		bound := ""
		if r.Bound != "" {
			bound = " Bounded by: " + r.Bound + "."
		}
		fmt.Fprintf(w, "- **%s**: %s.%s\n", r.Name, r.What, bound)
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
	return fmt.Sprintf("%.4g ms", *ns/1e6)
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
