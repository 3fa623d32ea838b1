package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
)

// text makes an event whose frame tells its number.
func text(s string) func([]byte, int64) []byte {
	return func(dst []byte, seq int64) []byte { return fmt.Appendf(dst, "%d:%s", seq, s) }
}

func set(k, v string) func(kv.Batch) { return func(b kv.Batch) { b.Set([]byte(k), []byte(v)) } }

func commit(t testing.TB, l *Log, tx Tx) int64 {
	t.Helper()
	seq, err := l.Commit(context.Background(), tx)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func open(t testing.TB, store kv.Store, o Options) *Log {
	t.Helper()
	l, err := Open(store, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// stores runs a test on both stores.
func stores(t *testing.T, test func(t *testing.T, store kv.Store)) {
	t.Run("mem", func(t *testing.T) { test(t, kv.NewMem()) })
	t.Run("pebble", func(t *testing.T) {
		s, err := kv.OpenPebble("db", kv.PebbleOptions{FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		test(t, s)
	})
}

func TestCommitAndRead(t *testing.T) {
	stores(t, func(t *testing.T, store kv.Store) {
		for _, ringBytes := range []int{0, -1, 20} {
			prefix := []byte(fmt.Sprintf("log%d/", ringBytes))
			l := open(t, store, Options{Prefix: prefix, RingBytes: ringBytes})
			if l.Head() != 0 || l.Floor() != 1 {
				t.Fatalf("a new log has head %d, floor %d", l.Head(), l.Floor())
			}
			for i := range 10 {
				tx := Tx{Ops: set("state", fmt.Sprint(i)), Events: []func([]byte, int64) []byte{text("a"), text("b")}}
				if seq := commit(t, l, tx); seq != int64(2*i+2) {
					t.Fatalf("commit %d got %d", i, seq)
				}
			}
			if seq := commit(t, l, Tx{Ops: set("quiet", "x")}); seq != 20 {
				t.Fatalf("a change without events got %d", seq)
			}
			if v, err := store.Get([]byte("state")); err != nil || string(v) != "9" {
				t.Fatalf("state is %q, %v", v, err)
			}
			var got []string
			for next := int64(1); next <= l.Head(); {
				evs, err := l.Read(context.Background(), next, 3)
				if err != nil || len(evs) == 0 || len(evs) > 3 {
					t.Fatalf("read from %d: %d events, %v", next, len(evs), err)
				}
				for _, ev := range evs {
					if ev.Seq != next {
						t.Fatalf("got %d, want %d", ev.Seq, next)
					}
					next++
					got = append(got, string(ev.Frame))
				}
			}
			if len(got) != 20 || got[0] != "1:a" || got[19] != "20:b" {
				t.Fatalf("events: %q", got)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			// A new start goes on where the old one ended.
			l = open(t, store, Options{Prefix: prefix, RingBytes: ringBytes})
			if l.Head() != 20 || l.Floor() != 1 {
				t.Fatalf("reopened: head %d, floor %d", l.Head(), l.Floor())
			}
			if seq := commit(t, l, Tx{Events: []func([]byte, int64) []byte{text("c")}}); seq != 21 {
				t.Fatalf("after reopening got %d", seq)
			}
			l.Close()
		}
	})
}

func TestFirstSeqAndBatch(t *testing.T) {
	store := kv.NewMem()
	l := open(t, store, Options{FirstSeq: 1000})
	defer l.Close()
	b := store.NewBatch()
	b.Set([]byte("k"), []byte("from batch"))
	var seen []int64
	tx := Tx{
		Batch:  b,
		Events: []func([]byte, int64) []byte{func(dst []byte, seq int64) []byte { seen = append(seen, seq); return dst }},
		Ops:    func(b kv.Batch) { b.Set([]byte("k"), fmt.Append(nil, seen)) },
	}
	if seq := commit(t, l, tx); seq != 1000 {
		t.Fatalf("first number %d", seq)
	}
	if v, _ := store.Get([]byte("k")); string(v) != "[1000]" {
		t.Fatalf("Ops is not the last word, or runs before Events: %q", v)
	}
}

func TestOutdated(t *testing.T) {
	clock := world.NewManual(time.Unix(1_000_000, 0))
	stores(t, func(t *testing.T, store kv.Store) {
		o := Options{Clock: clock, Retention: time.Hour}
		l := open(t, store, o)
		for range 6 {
			commit(t, l, Tx{Events: []func([]byte, int64) []byte{text("x")}})
			clock.Advance(20 * time.Minute)
		}
		if at, err := l.SeqAt(clock.Now().Add(-time.Hour)); err != nil || at != 4 {
			t.Fatalf("SeqAt: %d, %v", at, err)
		}
		if n, err := l.Trim(clock.Now()); err != nil || n != 3 {
			t.Fatalf("trimmed %d, %v", n, err)
		}
		if n, err := l.Trim(clock.Now()); err != nil || n != 0 {
			t.Fatalf("trimmed %d more, %v", n, err)
		}
		_, err := l.Read(context.Background(), 3, 0)
		var oe *OutdatedError
		if !errors.Is(err, ErrOutdated) || !errors.As(err, &oe) || oe.Floor != 4 {
			t.Fatalf("read below the floor: %v", err)
		}
		if evs, err := l.Read(context.Background(), 4, 0); err != nil || len(evs) != 3 {
			t.Fatalf("read from the floor: %d, %v", len(evs), err)
		}
		l.Close()
		l = open(t, store, o)
		if l.Floor() != 4 || l.Stats().Bytes != 9 {
			t.Fatalf("reopened: floor %d, %d bytes", l.Floor(), l.Stats().Bytes)
		}
		// Everything goes, and the numbers still go on.
		clock.Advance(24 * time.Hour)
		if n, err := l.Trim(clock.Now()); err != nil || n != 3 || l.Floor() != 7 || l.Stats().Bytes != 0 {
			t.Fatalf("trimmed %d, %v, floor %d", n, err, l.Floor())
		}
		l.Close()
		l = open(t, store, o)
		defer l.Close()
		if l.Floor() != 7 || l.Head() != 6 {
			t.Fatalf("reopened empty: floor %d, head %d", l.Floor(), l.Head())
		}
		if seq := commit(t, l, Tx{Events: []func([]byte, int64) []byte{text("x")}}); seq != 7 {
			t.Fatalf("number after trimming all: %d", seq)
		}
	})
}

func TestTrimByBytes(t *testing.T) {
	store := kv.NewMem()
	l := open(t, store, Options{MaxBytes: 10})
	defer l.Close()
	frame := func(n int) func([]byte, int64) []byte {
		return func(dst []byte, _ int64) []byte { return append(dst, make([]byte, n)...) }
	}
	for _, c := range []struct {
		size  int
		floor int64
	}{{4, 1}, {4, 1}, {2, 1}, {1, 2}, {10, 5}, {11, 7}, {3, 7}} {
		commit(t, l, Tx{Events: []func([]byte, int64) []byte{frame(c.size)}})
		if _, err := l.Trim(time.Time{}); err != nil || l.Floor() != c.floor {
			t.Fatalf("after %d bytes: floor %d, want %d; %v", c.size, l.Floor(), c.floor, err)
		}
	}
}

func TestReadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, kv.NewMem(), Options{})
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan string, 3)
		read := func(ctx context.Context, from int64) {
			evs, err := l.Read(ctx, from, 0)
			if err != nil {
				got <- err.Error()
				return
			}
			got <- string(evs[0].Frame)
		}
		go read(context.Background(), 2)
		synctest.Wait()
		commit(t, l, Tx{Events: []func([]byte, int64) []byte{text("one")}})
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("a reader of 2 woke at 1")
		}
		commit(t, l, Tx{Events: []func([]byte, int64) []byte{text("two")}})
		if s := <-got; s != "2:two" {
			t.Fatal(s)
		}
		go read(ctx, 3)
		synctest.Wait()
		cancel()
		if s := <-got; s != context.Canceled.Error() {
			t.Fatal(s)
		}
		go read(context.Background(), 3)
		synctest.Wait()
		l.Close()
		if s := <-got; s != ErrClosed.Error() {
			t.Fatal(s)
		}
		if _, err := l.Commit(context.Background(), Tx{}); !errors.Is(err, ErrClosed) {
			t.Fatalf("commit after close: %v", err)
		}
	})
}

func TestCloseWritesWhatWasSubmitted(t *testing.T) {
	store := kv.NewMem()
	l := open(t, store, Options{})
	var ps []*Pending
	for range 100 {
		ps = append(ps, l.Submit(Tx{Events: []func([]byte, int64) []byte{text("x")}}))
		ps = append(ps, l.Submit(Tx{Events: []func([]byte, int64) []byte{text("x")}, Waited: true}))
	}
	l.Close()
	for i, p := range ps {
		if seq, err := p.Wait(context.Background()); err != nil || seq != int64(i+1) {
			t.Fatalf("%d: %d, %v", i, seq, err)
		}
	}
}

// TestWaited looks at who writes a transaction whose submitter said that it would wait.
func TestWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, kv.NewMem(), Options{})
		defer l.Close()
		waited := Tx{Events: []func([]byte, int64) []byte{text("x")}, Waited: true}
		head := func(want int64) {
			t.Helper()
			synctest.Wait()
			if l.Head() != want {
				t.Fatalf("head %d, want %d", l.Head(), want)
			}
		}
		wait := func(ctx context.Context, p *Pending, want int64) {
			t.Helper()
			if seq, err := p.Wait(ctx); err != nil || seq != want {
				t.Fatalf("waited: %d, %v; want %d", seq, err, want)
			}
		}
		p1, p2 := l.Submit(waited), l.Submit(waited)
		head(0) // it is for those who wait
		wait(context.Background(), p2, 2)
		head(2)
		wait(context.Background(), p1, 1)

		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		wait(ctx, l.Submit(waited), 3) // by the log's goroutine
		<-l.Submit(waited).Done()
		head(4)
		l.Submit(waited)
		l.Submit(Tx{Events: waited.Events})
		head(6)
		if st := l.Stats(); st.Groups != 4 || st.Txs != 6 {
			t.Fatalf("stats: %+v", st)
		}
	})
}

// TestWaitedBehindAnother has somebody wait while another one's transaction is on its way to the disk.
func TestWaitedBehindAnother(t *testing.T) {
	store := &failingStore{Store: kv.NewMem(), hold: make(chan struct{})}
	store.left.Store(1 << 30)
	l := open(t, store, Options{})
	var wg sync.WaitGroup
	for range 20 {
		for range 5 {
			p := l.Submit(Tx{Events: []func([]byte, int64) []byte{text("x")}, Waited: true})
			wg.Go(func() {
				if _, err := p.Wait(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		store.hold <- struct{}{}
	}
	close(store.hold)
	wg.Wait()
	if err := l.Close(); err != nil || l.Head() != 100 {
		t.Fatalf("head %d, %v", l.Head(), err)
	}
}

type panickingStore struct{ kv.Store }

func (panickingStore) Apply(kv.Batch, bool) error { panic("out of luck") }

func TestPanicWhileWritingIsFatal(t *testing.T) {
	var fe *FatalError
	l := open(t, panickingStore{kv.NewMem()}, Options{OnFatal: func(err error) { errors.As(err, &fe) }})
	if _, err := l.Commit(context.Background(), Tx{Ops: set("k", "v")}); !errors.As(err, &fe) || !strings.Contains(err.Error(), "out of luck") {
		t.Fatalf("commit: %v", err)
	}
	if err := l.Close(); err == nil || fe == nil {
		t.Fatalf("close: %v, fatal: %v", err, fe)
	}
}

func TestPanickingTransactionLeavesNothing(t *testing.T) {
	store := kv.NewMem()
	l := open(t, store, Options{})
	defer l.Close()
	boom := func(tx Tx) {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		l.Submit(tx)
	}
	boom(Tx{Ops: func(b kv.Batch) { b.Set([]byte("half"), nil); panic("ops") }, Events: []func([]byte, int64) []byte{text("x")}})
	boom(Tx{Ops: set("half", "x"), Events: []func([]byte, int64) []byte{text("x"), func([]byte, int64) []byte { panic("encode") }}})
	if seq := commit(t, l, Tx{Events: []func([]byte, int64) []byte{text("y")}}); seq != 1 {
		t.Fatalf("number %d", seq)
	}
	if _, err := store.Get([]byte("half")); !errors.Is(err, kv.ErrNotFound) {
		t.Fatalf("half a transaction is there: %v", err)
	}
}

// TestConcurrent has writers, readers from everywhere, and trimming at the same time: every reader that keeps up sees
// each number once, in order, and a reader that was overtaken is told so.
func TestConcurrent(t *testing.T) {
	const writers, each = 8, 200
	stores(t, func(t *testing.T, store kv.Store) {
		l := open(t, store, Options{RingBytes: 2000, MaxBytes: 4000})
		ctx, stop := context.WithCancel(context.Background())
		var wg, readers sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				last := int64(0)
				for i := range each {
					ctx := ctx
					if w%2 == 0 { // these write by themselves
						ctx = context.Background()
					}
					seq, err := l.Commit(ctx, Tx{Ops: set(fmt.Sprint("w", w), fmt.Sprint(i)), Events: []func([]byte, int64) []byte{text("x")}})
					if err != nil || seq <= last {
						t.Errorf("commit: %d after %d, %v", seq, last, err)
						return
					}
					if last = seq; l.Head() < seq {
						t.Errorf("acked %d while the head is %d", seq, l.Head())
					}
				}
			})
		}
		var outdated atomic.Int64
		for r := range 4 {
			readers.Go(func() {
				for next := int64(1); next <= writers*each; {
					evs, err := l.Read(ctx, next, 1+r*7)
					var oe *OutdatedError
					if errors.As(err, &oe) {
						outdated.Add(1)
						if oe.Floor <= next {
							t.Errorf("outdated at %d with floor %d", next, oe.Floor)
							return
						}
						next = oe.Floor
						continue
					}
					if err != nil {
						t.Errorf("read: %v", err)
						return
					}
					for _, ev := range evs {
						if ev.Seq != next || !strings.HasPrefix(string(ev.Frame), fmt.Sprint(next, ":")) {
							t.Errorf("got %d %q, want %d", ev.Seq, ev.Frame, next)
							return
						}
						next++
					}
				}
			})
		}
		trimmed := make(chan struct{})
		go func() {
			defer close(trimmed)
			for ctx.Err() == nil {
				if _, err := l.Trim(time.Time{}); err != nil {
					t.Errorf("trim: %v", err)
					return
				}
			}
		}()
		wg.Wait()
		readers.Wait()
		stop()
		<-trimmed
		if st := l.Stats(); st.Txs != writers*each || st.Groups > st.Txs {
			t.Errorf("stats: %+v", st)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// failingStore fails at the n-th synced Apply.
type failingStore struct {
	kv.Store
	left atomic.Int64
	hold chan struct{} // when set, Apply waits for it
}

var errDisk = errors.New("the disk is on fire")

func (s *failingStore) Apply(b kv.Batch, sync bool) error {
	if s.hold != nil {
		<-s.hold
	}
	if s.left.Add(-1) < 0 {
		return errDisk
	}
	return s.Store.Apply(b, sync)
}

func TestWriteErrorIsFatal(t *testing.T) {
	store := &failingStore{Store: kv.NewMem(), hold: make(chan struct{})}
	store.left.Store(1)
	var fatal []error
	l := open(t, store, Options{OnFatal: func(err error) { fatal = append(fatal, err) }})
	one := Tx{Events: []func([]byte, int64) []byte{text("x")}}
	p1 := l.Submit(one)
	store.hold <- struct{}{}
	if _, err := p1.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	p2 := l.Submit(one)
	reader := make(chan error)
	go func() {
		_, err := l.Read(context.Background(), 2, 0)
		reader <- err
	}()
	store.hold <- struct{}{} // the flusher is in Apply of p2, so the next ones wait behind it
	p3 := l.Submit(one)
	for i, p := range []*Pending{p2, p3, l.Submit(one)} {
		var fe *FatalError
		select {
		case store.hold <- struct{}{}:
			t.Fatal("something was written after a failed write")
		case <-p.Done():
		}
		if _, err := p.Wait(context.Background()); !errors.As(err, &fe) || !errors.Is(err, errDisk) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := <-reader; !errors.Is(err, errDisk) {
		t.Fatalf("reader: %v", err)
	}
	if l.Head() != 1 {
		t.Fatalf("head %d", l.Head())
	}
	if err := l.Close(); !errors.Is(err, errDisk) {
		t.Fatalf("close: %v", err)
	}
	if len(fatal) != 1 || !errors.Is(fatal[0], errDisk) {
		t.Fatalf("OnFatal: %v", fatal)
	}
}

// TestModel compares a log with a slice, over random commits, reads, trims and new starts.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := world.NewManual(time.Unix(0, 0))
		store := kv.NewMem()
		o := Options{
			Prefix:    []byte("p"),
			Clock:     clock,
			Retention: time.Duration(rapid.IntRange(0, 20).Draw(t, "retention")) * time.Second,
			MaxBytes:  int64(rapid.IntRange(0, 60).Draw(t, "bytes")),
			RingBytes: rapid.SampledFrom([]int{-1, 15, 1000}).Draw(t, "ring"),
			ReadBytes: rapid.SampledFrom([]int{1, 20, 1000}).Draw(t, "read"),
			FirstSeq:  rapid.SampledFrom([]int64{0, 1, 77}).Draw(t, "first"),
		}
		l, err := Open(store, o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { l.Close() }()
		first := max(o.FirstSeq, 1)
		var all []Event // of number first+i
		floor := first
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) {
				var tx Tx
				n := rapid.IntRange(0, 3).Draw(t, "n")
				for range n {
					tx.Events = append(tx.Events, text(strings.Repeat("x", rapid.IntRange(0, 12).Draw(t, "size"))))
				}
				seq, err := l.Commit(context.Background(), tx)
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					s := first + int64(len(all))
					all = append(all, Event{Seq: s, Time: clock.Now(), Frame: tx.Events[i](nil, s)})
				}
				if seq != first+int64(len(all))-1 {
					t.Fatalf("number %d", seq)
				}
			},
			"wait": func(t *rapid.T) {
				clock.Advance(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			},
			"trim": func(t *rapid.T) {
				if _, err := l.Trim(clock.Now()); err != nil {
					t.Fatal(err)
				}
				kept, bytes := int64(0), int64(0)
				for i := len(all) - 1; i >= int(floor-first); i-- {
					bytes += int64(len(all[i].Frame))
					if o.MaxBytes > 0 && bytes > o.MaxBytes || o.Retention > 0 && all[i].Time.Before(clock.Now().Add(-o.Retention)) {
						break
					}
					kept++
				}
				floor = first + int64(len(all)) - kept
			},
			"reopen": func(t *rapid.T) {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if l, err = Open(store, o); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				if l.Floor() != floor || l.Head() != first+int64(len(all))-1 {
					t.Fatalf("floor %d head %d, want %d %d", l.Floor(), l.Head(), floor, first+int64(len(all))-1)
				}
				if floor > first {
					if _, err := l.Read(context.Background(), floor-1, 0); !errors.Is(err, ErrOutdated) {
						t.Fatalf("below the floor: %v", err)
					}
				}
				for next := floor; next <= l.Head(); {
					evs, err := l.Read(context.Background(), next, rapid.IntRange(0, 4).Draw(t, "max"))
					if err != nil {
						t.Fatal(err)
					}
					for _, ev := range evs {
						want := all[next-first]
						if ev.Seq != next || string(ev.Frame) != string(want.Frame) || !ev.Time.Equal(want.Time) {
							t.Fatalf("event %d: %+v, want %+v", next, ev, want)
						}
						next++
					}
				}
				want := floor
				at := time.Unix(int64(rapid.IntRange(0, 30).Draw(t, "at")), 0)
				for want <= l.Head() && all[want-first].Time.Before(at) {
					want++
				}
				if got, err := l.SeqAt(at); err != nil || got != want {
					t.Fatalf("SeqAt(%v) is %d, want %d, %v", at, got, want, err)
				}
			},
		})
	})
}

// TestPowerLoss cuts the power at random moments under load. What was acked is there afterwards, each transaction is
// whole, and no number that a reader saw is given to another event.
func TestPowerLoss(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(uint64(round), 42))
		fs := vfs.NewCrashableMem()
		store, err := kv.OpenPebble("db", kv.PebbleOptions{FS: fs, MemTableBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		clock := world.NewManual(time.Unix(0, 0))
		o := Options{Clock: clock, MaxBytes: 20_000}
		l := open(t, store, o)
		crashAt := 1 + rng.Int64N(400)
		var crashed *vfs.MemFS
		var ackedThen [4]int64 // per writer, the newest i acked before the crash
		var floorThen, seenThen int64
		var acked [4]atomic.Int64
		var commits atomic.Int64
		var once sync.Once
		var wg sync.WaitGroup
		crash := func() {
			for w := range acked {
				ackedThen[w] = acked[w].Load()
			}
			seenThen = l.Head()
			crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			floorThen = l.Floor()
		}
		for w := range acked {
			pad := strings.Repeat("p", 1+w*100)
			wg.Go(func() {
				for i := int64(1); i <= 150; i++ {
					// The state holds the number of the event that tells of it.
					var seq int64
					_, err := l.Commit(context.Background(), Tx{
						Events: []func([]byte, int64) []byte{func(dst []byte, s int64) []byte { seq = s; return text(fmt.Sprintf("w%d i%d %s", w, i, pad))(dst, s) }},
						Ops:    func(b kv.Batch) { b.Set(fmt.Appendf(nil, "w%d", w), fmt.Appendf(nil, "%d %d", i, seq)) },
					})
					if err != nil {
						t.Error(err)
						return
					}
					acked[w].Store(i)
					n := commits.Add(1)
					if n%50 == 0 {
						if _, err := l.Trim(clock.Now()); err != nil {
							t.Error(err)
						}
					}
					if n >= crashAt {
						once.Do(crash)
					}
				}
			})
		}
		wg.Wait()
		once.Do(crash)
		l.Close()
		store.Close()

		store, err = kv.OpenPebble("db", kv.PebbleOptions{FS: crashed})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		l = open(t, store, o)
		if l.Head() < seenThen {
			t.Fatalf("round %d: head %d, but %d had been seen", round, l.Head(), seenThen)
		}
		if l.Floor() > max(floorThen, 1) {
			t.Fatalf("round %d: floor %d beyond %d", round, l.Floor(), floorThen)
		}
		newest := map[int]string{}
		for next := l.Floor(); next <= l.Head(); {
			evs, err := l.Read(context.Background(), next, 0)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			for _, ev := range evs {
				var seq, i int64
				var w int
				if n, err := fmt.Sscanf(string(ev.Frame), "%d:w%d i%d", &seq, &w, &i); n != 3 || seq != ev.Seq {
					t.Fatalf("round %d: event %d is %q, %v", round, ev.Seq, ev.Frame, err)
				}
				newest[w] = fmt.Sprintf("%d %d", i, seq)
				next++
			}
		}
		for w := range acked {
			v, err := store.Get(fmt.Appendf(nil, "w%d", w))
			if errors.Is(err, kv.ErrNotFound) && ackedThen[w] == 0 {
				continue
			}
			var i, seq int64
			if fmt.Sscanf(string(v), "%d %d", &i, &seq); err != nil || i < ackedThen[w] {
				t.Fatalf("round %d: writer %d has %q, %v; %d was acked", round, w, v, err, ackedThen[w])
			}
			if seq >= l.Floor() && newest[w] != string(v) {
				t.Fatalf("round %d: state %q, newest event %q", round, v, newest[w])
			}
		}
		if seq := commit(t, l, Tx{Events: []func([]byte, int64) []byte{text("x")}}); seq <= seenThen {
			t.Fatalf("round %d: number %d was used before", round, seq)
		}
		l.Close()
		store.Close()
	}
}

func ExampleLog() {
	store := kv.NewMem()
	log, err := Open(store, Options{Prefix: []byte("log/")})
	if err != nil {
		slog.Error("opening", "err", err)
		return
	}
	ctx := context.Background()
	_, _ = log.Commit(ctx, Tx{
		Ops:    func(b kv.Batch) { b.Set([]byte("greeting"), []byte("hello")) },
		Events: []func([]byte, int64) []byte{func(dst []byte, seq int64) []byte { return fmt.Appendf(dst, "greeting set (%d)", seq) }},
	})
	events, _ := log.Read(ctx, 1, 10)
	for _, ev := range events {
		fmt.Println(ev.Seq, string(ev.Frame))
	}
	_ = log.Close()
	// Output: 1 greeting set (1)
}

func benchmark(b *testing.B, store kv.Store, writers int) {
	l := open(b, store, Options{})
	frame := make([]byte, 3000)
	tx := Tx{
		Ops:    func(b kv.Batch) { b.Set([]byte("head"), frame[:100]); b.Set([]byte("record"), frame[:300]) },
		Events: []func([]byte, int64) []byte{func(dst []byte, _ int64) []byte { return append(dst, frame...) }},
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := l.Commit(context.Background(), tx); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	st := l.Stats()
	b.ReportMetric(float64(st.Txs)/b.Elapsed().Seconds(), "commits/s")
	b.ReportMetric(float64(st.Txs)/float64(st.Groups), "commits/fsync")
	l.Close()
	store.Close()
}

func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("disk/writers=%d", writers), func(b *testing.B) {
			store, err := kv.OpenPebble(b.TempDir(), kv.PebbleOptions{})
			if err != nil {
				b.Fatal(err)
			}
			benchmark(b, store, writers)
		})
		b.Run(fmt.Sprintf("mem/writers=%d", writers), func(b *testing.B) { benchmark(b, kv.NewMem(), writers) })
	}
}
