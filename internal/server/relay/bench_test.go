package relay_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/server/relay"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
)

// BenchmarkRelay follows a host that has everything ready: each operation is one commit read from a WebSocket, verified
// (signature on K-256, inversion, chain) and on disk in the relay's log. The floor is the verification of the signature
// and the inversion alone, on one core, in the same run.
func BenchmarkRelay(b *testing.B) {
	n := newNetwork(b)
	h := n.host()
	const accounts = 20
	var as []*fakeAccount
	for i := range accounts {
		as = append(as, n.account(h, i))
	}
	var first []*stream.Commit
	tx := eventlog.Tx{}
	total := max(b.N, accounts)
	for i := range total {
		c := as[i%accounts].commit()
		if i < 200 {
			first = append(first, c)
		}
		tx.Events = append(tx.Events, func(dst []byte, seq int64) []byte {
			c.Seq = seq
			return stream.AppendFrame(dst, c)
		})
		if len(tx.Events) == 500 || i == total-1 {
			if _, err := h.log.Commit(context.Background(), tx); err != nil {
				b.Fatal(err)
			}
			tx = eventlog.Tx{}
		}
	}
	start := time.Now()
	for _, c := range first {
		m := repo.CommitMessage{Repo: c.Repo, Rev: c.Rev, Since: c.Since, Time: c.Time, Commit: c.Commit, PrevData: c.PrevData, Blocks: c.Blocks}
		for _, op := range c.Ops {
			m.Ops = append(m.Ops, repo.Op(op))
		}
		for _, a := range as {
			if string(a.did) == c.Repo {
				if _, err := repo.VerifyCommit(m, a.key.Public(), nil, repo.VerifyOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	verify := time.Since(start) / time.Duration(len(first))

	svc, err := relay.New(relay.Config{Dir: b.TempDir(), Hosts: []string{h.srv.URL}, Directory: n.directory()}, n.w)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	cpu := cpuTime(b)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { done <- svc.Run(ctx) }()
	for svc.Head() < int64(total) {
		time.Sleep(time.Millisecond)
		if st := svc.Status(); len(st.Drops) > 0 {
			b.Fatalf("%+v", st)
		}
	}
	b.StopTimer()
	used := cpuTime(b) - cpu
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(used.Microseconds())/float64(total), "cpu-µs/event")
	b.ReportMetric(float64(used)/float64(total)/float64(verify), "cpu/verify")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	if err := svc.Close(); err != nil {
		b.Fatal(err)
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
