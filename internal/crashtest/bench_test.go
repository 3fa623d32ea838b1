//go:build unix

package crashtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"
)

// BenchmarkNetwork measures a whole network in a process of its own, as people run it:
//
//	go test -run '^$' -bench Network ./internal/crashtest
//
// The client is this process, so CPU per write is what all services together take for it, the kernel's work included: the PDS, and
// relay, link index and explorer, which follow. It prints a table; next to writes per second stands how often the same disk can do
// nothing but append and wait, in the same run. BARO_BENCH_WRITES is how many writes each case does.
func BenchmarkNetwork(b *testing.B) {
	writes := number(b, "BARO_BENCH_WRITES", 4000)
	if testing.Short() {
		writes = min(writes, 200)
	}
	for b.Loop() { // one round takes longer than a benchmark wants, so there is one
		m := &measurement{b: b, writes: writes, dir: b.TempDir()}
		m.run()
		// A benchmark's log is cut after ten lines.
		fmt.Printf("\n%d processors, %s, %d writes in each case\n\n%s\n", runtime.NumCPU(), runtime.Version(), writes, m.table())
	}
}

// measurement is a table in the making.
type measurement struct {
	b      *testing.B
	writes int
	dir    string
	rows   [][3]string
}

func (m *measurement) row(what, figure, aim string) {
	m.rows = append(m.rows, [3]string{what, figure, aim})
}

func (m *measurement) table() string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 4, 3, ' ', 0)
	for _, r := range m.rows {
		if r[2] != "" {
			r[2] = "aim: " + r[2]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r[0], r[1], r[2])
	}
	w.Flush()
	return s.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func (m *measurement) run() {
	b := m.b
	syncs := m.disk()
	m.row("disk: append 2 kB and fdatasync", fmt.Sprintf("%.0f/s", syncs), "")

	dir := filepath.Join(m.dir, "empty")
	p := start(b, dir, "", "--empty")
	m.row("first start, until all services answer", ms(p.took), "")
	m.row("memory, idle and empty", m.memory(p), "< 120 MB")
	c := newClient()
	accounts := m.accounts(c, p, 8)
	for _, w := range []struct {
		what         string
		writers, all int
		aim          string
	}{
		{"createRecord, sequential", 1, 1, "2000/s at 5000 syncs/s; 0.3 ms in the PDS"},
		{"createRecord, 8 writers, 1 repository", 8, 1, "as fast as one writer"},
		{"createRecord, 8 writers, 8 repositories", 8, 8, ""},
	} {
		cpu := m.cpu(p)
		rate := m.write(p, accounts[:w.all], w.writers)
		lag := m.caughtUp(c, p)
		took := per(m.cpu(p)-cpu, m.writes)
		m.row(w.what, fmt.Sprintf("%.0f/s, %.2f of the disk's; %.2f ms CPU a write, all services; relay %s behind", rate, rate/syncs, took, ms(lag)), w.aim)
		name := strings.NewReplacer("createRecord, ", "", ",", "", " ", "-").Replace(w.what)
		b.ReportMetric(rate, name+"-writes/s")
		b.ReportMetric(took, name+"-cpu-ms")
	}
	m.row("memory after that", m.memory(p), "")
	seq := m.last(c, p)
	c.close()
	m.row("stop", ms(p.interrupt(b)), "< 2 s")

	// Without what they had, relay and index read everything from the start: nothing else limits them then.
	for _, name := range []string{"relay", "links", "explorer"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			b.Fatal(err)
		}
	}
	p = start(b, dir, "", "--empty")
	began := time.Now()
	c = newClient()
	cpu := m.cpu(p)
	for m.last(c, p) < seq {
		time.Sleep(2 * time.Millisecond)
	}
	took := time.Since(began)
	m.row("relay, from the start of the PDS's log", fmt.Sprintf("%.0f events/s verified; %.2f ms CPU an event, with what follows the relay", float64(seq)/took.Seconds(), per(m.cpu(p)-cpu, int(seq))), "")
	b.ReportMetric(float64(seq)/took.Seconds(), "relay-events/s")
	m.caughtUp(c, p)
	c.close()
	p.kill()

	p = start(b, dir, "", "--empty")
	m.row("start after kill -9", ms(p.took), "< 2 s")
	m.row("memory then", m.memory(p), "< 120 MB")
	m.row("stop", ms(p.interrupt(b)), "< 2 s")

	dir = filepath.Join(m.dir, "demo")
	began = time.Now()
	p = start(b, dir, "")
	line, err := p.lines.ReadBytes('\n')
	if err != nil {
		b.Fatalf("no word of the demo world: %v\n%s", err, p.stderr)
	}
	m.row("demo world, from nothing to planted", ms(time.Since(began)), "< 5 s")
	var planted struct {
		Demo struct{ Accounts, Posts int }
	}
	if err := json.Unmarshal(line, &planted); err != nil || planted.Demo.Accounts == 0 {
		b.Fatalf("the demo world: %v: %s", err, line)
	}
	m.row("memory with the demo world", m.memory(p), "< 120 MB")
	m.row("stop", ms(p.interrupt(b)), "< 2 s")
	p = start(b, dir, "")
	m.row("start with the demo world", ms(p.took), "< 2 s")
	m.row("memory then", m.memory(p), "< 120 MB")
	p.interrupt(b)
}

func per(d time.Duration, n int) float64 { return float64(d.Microseconds()) / 1000 / float64(n) }

// accounts signs up.
func (m *measurement) accounts(c *client, p *process, n int) []*account {
	r := &round{&load{o: newOracle()}, c, p.urls}
	var out []*account
	for i := range n {
		a := &account{handle: fmt.Sprintf("writer%d.test", i), password: "benchmark"}
		if err := signUp(context.Background(), r, a); err != nil {
			m.b.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

// write makes records and returns how many per second. Writers are bare connections, which take little of the machine themselves.
func (m *measurement) write(p *process, accounts []*account, writers int) float64 {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	for w := range writers {
		wg.Go(func() {
			if err := m.writer(p, accounts[w%len(accounts)], &next); err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		m.b.Fatal(*err)
	}
	return float64(m.writes) / time.Since(began).Seconds()
}

func (m *measurement) writer(p *process, a *account, next *atomic.Int64) error {
	host := strings.TrimPrefix(p.urls.PDS, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
	for {
		n := next.Add(1)
		if n > int64(m.writes) {
			return nil
		}
		body := fmt.Sprintf(`{"repo":%q,"collection":"app.bsky.feed.post","record":{"$type":"app.bsky.feed.post",`+
			`"text":"post number %d, of about the usual length of a post","createdAt":"2026-01-02T03:04:05.678Z","langs":["en"]}}`, a.did, n)
		fmt.Fprintf(out, "POST /xrpc/com.atproto.repo.createRecord HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", host, a.access, len(body), body)
		if err := out.Flush(); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return errors.Join(err, fmt.Errorf("createRecord: %s %.300s", resp.Status, text))
		}
	}
}

// last is the number of the PDS's newest event that the relay has dealt with.
func (m *measurement) last(c *client, p *process) int64 {
	host := strings.TrimPrefix(p.urls.PDS, "http://")
	got, err := c.get(context.Background(), p.urls.Relay, "com.atproto.sync.getHostStatus", "hostname", host)
	if err != nil {
		m.b.Fatal(err)
	}
	seq, _ := got.json()["seq"].(float64)
	return int64(seq)
}

// caughtUp waits until the process is idle: relay, index and explorer have followed.
func (m *measurement) caughtUp(c *client, p *process) time.Duration {
	began := time.Now()
	repos, err := c.pages(context.Background(), p.urls.PDS, "com.atproto.sync.listRepos", "repos")
	if err != nil {
		m.b.Fatal(err)
	}
	for _, r := range repos {
		r, _ := r.(object)
		for {
			got, err := c.get(context.Background(), p.urls.Relay, "com.atproto.sync.getLatestCommit", "did", r["did"].(string))
			if err != nil {
				m.b.Fatal(err)
			}
			if got.json()["rev"] == r["rev"] {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	took := time.Since(began)
	for was := m.cpu(p); ; { // the index has nothing to ask for here, so stillness has to do
		time.Sleep(100 * time.Millisecond)
		now := m.cpu(p)
		if now-was <= 10*time.Millisecond {
			return took
		}
		was = now
	}
}

// disk measures appending to a file that has its space and waiting for the disk, as a store's log does.
func (m *measurement) disk() float64 {
	f, err := os.Create(filepath.Join(m.dir, "floor"))
	if err != nil {
		m.b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 2<<10)
	const size = 16 << 20
	for range size / len(page) {
		if _, err := f.Write(page); err != nil {
			m.b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		m.b.Fatal(err)
	}
	began, n := time.Now(), 0
	for ; time.Since(began) < 2*time.Second; n++ {
		if _, err := f.WriteAt(page, int64(n*len(page)%size)); err != nil {
			m.b.Fatal(err)
		}
		if err := dataSync(f); err != nil {
			m.b.Fatal(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// cpu is the CPU time of a process so far, 0 where /proc doesn't tell.
func (m *measurement) cpu(p *process) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ") // behind the name, which may hold anything
	f := strings.Fields(rest)
	var ticks int64
	for _, s := range f[11:13] { // user and system
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			m.b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // the kernel's clock of 100 Hz for these figures
}

// memory is what an idle process takes, a few seconds after it did something.
func (m *measurement) memory(p *process) string {
	wait := 5 * time.Second
	if testing.Short() {
		wait = 0
	}
	time.Sleep(wait)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return "unknown here"
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			if err != nil {
				m.b.Fatal(err)
			}
			return fmt.Sprintf("%.0f MB resident after %v", kb*1024/1e6, wait)
		}
	}
	return "unknown here"
}
