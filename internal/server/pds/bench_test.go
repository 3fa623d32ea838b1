//go:build unix

package pds

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// cpuTime is the CPU time of this process, in user and system mode.
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
	p := startPDS(b, w, Config{Dir: b.TempDir()})
	var out []*testAccount
	for i := range repos {
		out = append(out, p.account(fmt.Sprint("user", i)))
	}
	return out
}

// benchWriters runs writers side by side until b.N writes are done, and reports writes per second and CPU time per write, which
// includes the client's share.
func benchWriters(b *testing.B, writers int, write func(writer, n int) error) {
	var next, failed atomic.Int64
	cpu := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for {
				n := int(next.Add(1))
				if n > b.N {
					return
				}
				if err := write(w, n); err != nil {
					if failed.Add(1) == 1 {
						b.Error(err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

var benchCases = []struct {
	name           string
	writers, repos int
}{{"sequential", 1, 1}, {"8 writers, 1 repository", 8, 1}, {"8 writers, 8 repositories", 8, 8}}

// BenchmarkCreateRecord measures durable com.atproto.repo.createRecord over HTTP.
func BenchmarkCreateRecord(b *testing.B) {
	for _, c := range benchCases {
		b.Run(c.name, func(b *testing.B) {
			accounts := benchPDS(b, c.repos)
			// A bare client: the CPU time measured is the server's, as far as that goes in one process.
			conns := make([]*bufio.ReadWriter, c.writers)
			for i := range conns {
				conn, err := net.Dial("tcp", strings.TrimPrefix(accounts[0].p.URL, "http://"))
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				conns[i] = bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
			}
			benchWriters(b, c.writers, func(w, n int) error {
				a, conn := accounts[w%c.repos], conns[w]
				body := fmt.Sprintf(`{"repo":%q,"collection":"app.bsky.feed.post","record":{"$type":"app.bsky.feed.post",`+
					`"text":"post number %d, of about the usual length of a post","createdAt":"2026-01-02T03:04:05.678Z","langs":["en"]}}`, a.did, n)
				fmt.Fprintf(conn, "POST /xrpc/com.atproto.repo.createRecord HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
					"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", a.token, len(body), body)
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
		})
	}
}

// BenchmarkCommit measures the engine alone: durable commits of one record without HTTP.
func BenchmarkCommit(b *testing.B) {
	for _, c := range benchCases {
		b.Run(c.name, func(b *testing.B) {
			accounts := benchPDS(b, c.repos)
			benchWriters(b, c.writers, func(w, n int) error {
				a := accounts[w%c.repos]
				key := a.p.tids.Next(a.p.world.Clock.Now())
				_, err := a.p.commit(a.did, []write{testWrite(actCreate, "app.bsky.feed.post/"+string(key), fmt.Sprint("post number ", n))}, nil)
				return err
			})
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
