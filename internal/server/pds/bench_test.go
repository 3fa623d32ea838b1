//go:build unix

package pds

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/keys"
)

// cpuTime is the CPU time of this process, in user and system mode. Child processes do not count.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchPDS(b *testing.B, repos int) []*testAccount {
	b.Helper()
	w := testWorld(1)
	w.FS = vfs.Default
	p := startPDS(b, w, Config{Dir: b.TempDir(), Accounts: AccountConfig{RelaxLoopback: true}})
	var out []*testAccount
	for i := range repos {
		out = append(out, p.account(fmt.Sprint("user", i)))
	}
	return out
}

// benchMeter measures writes per second and CPU time per write of this process.
type benchMeter struct {
	b   *testing.B
	cpu time.Duration
}

func startMeter(b *testing.B) benchMeter {
	m := benchMeter{b, cpuTime()}
	b.ReportAllocs()
	b.ResetTimer()
	return m
}

func (m benchMeter) stop() {
	m.b.StopTimer()
	m.b.ReportMetric(float64(m.b.N)/m.b.Elapsed().Seconds(), "writes/s")
	m.b.ReportMetric(float64((cpuTime()-m.cpu).Microseconds())/1000/float64(m.b.N), "cpu-ms/op")
}

// writeSide runs writers side by side until n writes are done.
func writeSide(writers, n int, write func(writer, i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1))
				if i > n {
					return
				}
				if err := write(w, i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

var benchCases = []struct {
	name           string
	writers, repos int
}{{"sequential", 1, 1}, {"8 writers, 1 repository", 8, 1}, {"8 writers, 8 repositories", 8, 8}}

// benchJob is what a client process does: it connects, says so, and starts to write when it is told to.
type benchJob struct {
	Host        string
	Writers, N  int
	DIDs, Token []string
	Health      bool // ask for the health page instead of writing
}

const benchClientEnv = "BARO_BENCH_CLIENT"

// TestBenchClient is the client process of BenchmarkCreateRecord.
func TestBenchClient(t *testing.T) {
	if os.Getenv(benchClientEnv) == "" {
		t.Skip("it is the other side of a benchmark")
	}
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var job benchJob
	if err := json.Unmarshal(line, &job); err != nil {
		t.Fatal(err)
	}
	conns := make([]*bufio.ReadWriter, job.Writers)
	for i := range conns {
		conn, err := net.Dial("tcp", job.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	fmt.Println("ready")
	if _, err := in.ReadByte(); err != nil {
		t.Fatal(err)
	}
	err = writeSide(job.Writers, job.N, func(w, n int) error {
		conn, a := conns[w], w%len(job.DIDs)
		body := fmt.Sprintf(`{"repo":%q,"collection":"app.bsky.feed.post","record":{"$type":"app.bsky.feed.post",`+
			`"text":"post number %d, of about the usual length of a post","createdAt":"2026-01-02T03:04:05.678Z","langs":["en"]}}`, job.DIDs[a], n)
		if job.Health {
			body = ""
			fmt.Fprintf(conn, "GET /xrpc/_health HTTP/1.1\r\nHost: localhost\r\n\r\n")
		} else {
			fmt.Fprintf(conn, "POST /xrpc/com.atproto.repo.createRecord HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
				"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", job.Token[a], len(body), body)
		}
		if err := conn.Flush(); err != nil {
			return err
		}
		resp, err := http.ReadResponse(conn.Reader, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != 200 {
			err = fmt.Errorf("%s: %s", resp.Status, text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("done")
}

// BenchmarkCreateRecord measures durable com.atproto.repo.createRecord over HTTP:
//
//	go test -run '^$' -bench CreateRecord -benchtime 3000x ./internal/server/pds
//
// The client is a process of its own, so cpu-ms/op is what the server takes, the kernel's work for it included. The floor of the same
// disk is in the same output: a write cannot be faster than one fsync, nor cheaper than that, one signature and one HTTP request.
func BenchmarkCreateRecord(b *testing.B) {
	b.Run("floor: append and fdatasync 2 kB", benchSync)
	b.Run("floor: sign", benchSign)
	b.Run("floor: request", func(b *testing.B) {
		benchClient(b, benchPDS(b, 1), benchJob{Writers: 1, Health: true})
	})
	for _, c := range benchCases {
		b.Run(c.name, func(b *testing.B) {
			benchClient(b, benchPDS(b, c.repos), benchJob{Writers: c.writers})
		})
	}
}

// benchClient has a client process do b.N requests.
func benchClient(b *testing.B, accounts []*testAccount, job benchJob) {
	job.Host, job.N = strings.TrimPrefix(accounts[0].p.URL, "http://"), b.N
	for _, a := range accounts {
		job.DIDs, job.Token = append(job.DIDs, string(a.did)), append(job.Token, a.token)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBenchClient$", "-test.v")
	cmd.Env = append(os.Environ(), benchClientEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	await := func(want string) {
		var said []string
		for lines.Scan() {
			if lines.Text() == want {
				return
			}
			said = append(said, lines.Text())
		}
		b.Errorf("the client ended without saying %q: %q", want, said)
	}
	if err := json.NewEncoder(in).Encode(job); err != nil {
		b.Fatal(err)
	}
	await("ready")
	m := startMeter(b)
	in.Write([]byte("\n"))
	await("done")
	m.stop()
	if err := cmd.Wait(); err != nil {
		b.Error(err)
	}
}

// benchSync appends to a file that has its space, as a store's log does, and waits for the disk each time.
func benchSync(b *testing.B) {
	f, err := vfs.Default.Create(b.TempDir()+"/log", vfs.WriteCategoryUnspecified)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 2<<10)
	const size = 16 << 20
	for range size / len(page) {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	m := startMeter(b)
	for i := range b.N {
		if _, err := f.WriteAt(page, int64(i*len(page)%size)); err != nil {
			b.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			b.Fatal(err)
		}
	}
	m.stop()
}

func benchSign(b *testing.B) {
	key, err := keys.Generate(keys.K256, mrand.NewChaCha8([32]byte{1}))
	if err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 200)
	m := startMeter(b)
	for range b.N {
		if _, err := key.Sign(msg); err != nil {
			b.Fatal(err)
		}
	}
	m.stop()
}

// BenchmarkCommit measures the engine alone: durable commits of one record without HTTP.
func BenchmarkCommit(b *testing.B) {
	for _, c := range benchCases {
		b.Run(c.name, func(b *testing.B) {
			accounts := benchPDS(b, c.repos)
			m := startMeter(b)
			err := writeSide(c.writers, b.N, func(w, n int) error {
				a := accounts[w%c.repos]
				key := a.p.tids.Next(a.p.world.Clock.Now())
				_, err := a.p.commit(a.did, []write{testWrite(actCreate, "app.bsky.feed.post/"+string(key), fmt.Sprint("post number ", n))}, nil)
				return err
			})
			m.stop()
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkGetRepo measures the export of a repository of 10,000 records.
func BenchmarkGetRepo(b *testing.B) {
	a := benchPDS(b, 1)[0]
	for i := range 50 {
		var writes []write
		for j := range 200 {
			writes = append(writes, testWrite(actCreate, fmt.Sprintf("app.bsky.feed.post/%06d", i*200+j), "a post of some length, as posts are"))
		}
		if _, err := a.p.commit(a.did, writes, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	var size int64
	for b.Loop() {
		resp, err := http.Get(a.p.URL + "/xrpc/com.atproto.sync.getRepo?did=" + string(a.did))
		if err != nil {
			b.Fatal(err)
		}
		size, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			b.Fatal(resp.Status, err)
		}
	}
	b.SetBytes(size)
}
