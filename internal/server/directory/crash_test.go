package directory

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// TestCrash takes away everything that was not synced, at moments under load, and looks for operations that were answered with 200
// and are lost, for entries without a line of the export, and for numbers that are given twice.
func TestCrash(t *testing.T) {
	const writers, ops = 4, 25
	fs := vfs.NewCrashableMem()
	w := world.Real(slog.New(slog.DiscardHandler))
	w.FS = fs
	w.Fatal = nil
	clock := world.NewManual(epoch)
	w.Clock = clock
	d := open(t, Config{Dir: "data", NoLimits: true}, w, clock)

	var mu sync.Mutex
	acked := map[string]syntax.DID{} // CID to DID
	var done atomic.Int64
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			id := newIdentity(t, i)
			var prev, fork cid.CID
			var did syntax.DID
			for n := range ops {
				op := id.update(prev, syntax.Handle(fmt.Sprintf("n%d.test", n)), 2)
				if n%5 == 4 { // some recoveries
					op = id.update(fork, syntax.Handle(fmt.Sprintf("r%d.test", n)), 1)
				}
				if n == 0 {
					did = op.DID()
				}
				if err := d.s.Submit(did, op); err != nil {
					t.Error(err)
					return
				}
				fork, prev = prev, op.CID()
				mu.Lock()
				acked[prev.String()] = did
				mu.Unlock()
				done.Add(1)
			}
		})
	}
	type crash struct {
		fs    vfs.FS
		acked map[string]syntax.DID
	}
	var crashes []crash
	for _, at := range []int64{1, 20, 50, 80, writers * ops} {
		waitFor(t, func() bool { return done.Load() >= at || t.Failed() })
		mu.Lock()
		before := map[string]syntax.DID{}
		for k, v := range acked {
			before[k] = v
		}
		mu.Unlock()
		crashes = append(crashes, crash{fs.CrashClone(vfs.CrashCloneCfg{}), before})
	}
	wg.Wait()

	for _, c := range crashes {
		w.FS = c.fs
		d := open(t, Config{Dir: "data", NoLimits: true}, w, clock)
		bySeq := strings.Split(d.body("/export?after=0"), "\n")
		byTime := strings.Split(d.body("/export"), "\n")
		stored := map[string]bool{}
		for i, l := range bySeq {
			if !strings.HasSuffix(l, fmt.Sprintf(`"seq":%d}`, i+1)) {
				t.Fatalf("line %d is %s", i, l)
			}
		}
		for i := range writers {
			did := newIdentity(t, i).update(cid.CID{}, "n0.test", 2).DID()
			if status, _ := d.get("/" + string(did) + "/log"); status == 404 {
				continue
			}
			for _, e := range d.audit(did) { // verifies it
				stored[e.CID.String()] = true
			}
		}
		if len(bySeq) != len(stored) || len(byTime) != len(stored) {
			t.Errorf("%d lines by sequence, %d by time, %d entries", len(bySeq), len(byTime), len(stored))
		}
		for op := range c.acked {
			if !stored[op] {
				t.Errorf("%s was acked and is lost", op)
			}
		}
		t.Logf("%d acked, %d stored", len(c.acked), len(stored))
		d.close()
	}
}

func TestSecondInstance(t *testing.T) {
	d := start(t, Config{Dir: "data"})
	if _, err := New(Config{Dir: "data"}, d.world); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the second directory on one folder: %v", err)
	}
}

func BenchmarkSubmit(b *testing.B) {
	for _, memory := range []bool{true, false} {
		b.Run(fmt.Sprintf("memory=%v", memory), func(b *testing.B) {
			w := world.Real(nil)
			s, err := New(Config{Dir: b.TempDir(), Memory: memory}, w)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			ids := make([]*plc.Operation, 0, b.N)
			id := newIdentity(nil, 0)
			for i := range b.N {
				ids = append(ids, id.update(cid.CID{}, syntax.Handle(fmt.Sprintf("n%d.test", i)), 2))
			}
			var next atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(16)
			b.ResetTimer()
			start := time.Now()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					op := ids[next.Add(1)-1]
					if err := s.Submit(op.DID(), op); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "ops/s")
		})
	}
}
