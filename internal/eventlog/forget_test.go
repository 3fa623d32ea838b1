package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
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

// about is the subject of the frames that text makes: "number:subject …".
func about(frame []byte) string {
	_, rest, _ := bytes.Cut(frame, []byte(":"))
	who, _, _ := bytes.Cut(rest, []byte(" "))
	return string(who)
}

func say(who, what string) []func([]byte, int64) []byte {
	return []func([]byte, int64) []byte{text(who + " " + what)}
}

// readAll gives the frames from a number to the head. The newest event must not be hidden.
func readAll(t testing.TB, l *Log, from int64, max int) string {
	t.Helper()
	var out []string
	for next := from; next <= l.Head(); {
		evs, err := l.Read(context.Background(), next, max)
		if err != nil {
			t.Fatal(err)
		}
		if len(evs) == 0 || max > 0 && len(evs) > max {
			t.Fatalf("read %d events", len(evs))
		}
		for _, ev := range evs {
			if ev.Seq < next || !strings.HasPrefix(string(ev.Frame), fmt.Sprint(ev.Seq, ":")) {
				t.Fatalf("at %d came %d with %q", next, ev.Seq, ev.Frame)
			}
			next = ev.Seq + 1
			out = append(out, string(ev.Frame))
		}
	}
	return strings.Join(out, ",")
}

func erase(t testing.TB, l *Log) {
	t.Helper()
	for range 1000 {
		more, err := l.Erase()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
	t.Fatal("erasing doesn't come to an end")
}

func TestForget(t *testing.T) {
	stores(t, func(t *testing.T, store kv.Store) {
		for _, ringBytes := range []int{0, -1, 30} {
			o := Options{Prefix: []byte(fmt.Sprintf("log%d/", ringBytes)), RingBytes: ringBytes, Subject: about}
			l := open(t, store, o)
			reopen := func() {
				t.Helper()
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = open(t, store, o)
			}
			check := func(when, want string) {
				t.Helper()
				for _, max := range []int{0, 1, 3} {
					if got := readAll(t, l, 1, max); got != want {
						t.Fatalf("%s: %s, want %s", when, got, want)
					}
				}
				if l.Floor() != 1 || l.Stats().Bytes != uint64(6*l.Head()+l.Head()/10) {
					t.Fatalf("%s: %+v", when, l.Stats())
				}
			}
			for _, who := range []string{"a", "b", "a", "a", "b", "a"} {
				commit(t, l, Tx{Events: say(who, "ab")})
			}
			commit(t, l, Tx{Events: say("a", "go"), Forget: []string{"a"}})
			check("hidden", "2:b ab,5:b ab,7:a go")
			commit(t, l, Tx{Events: say("a", "re")})
			check("and back", "2:b ab,5:b ab,7:a go,8:a re")
			reopen()
			check("hidden on disk", "2:b ab,5:b ab,7:a go,8:a re")
			commit(t, l, Tx{Events: say("b", "so")}) // in the ring again
			if n := l.Stats().Forgetting; n != 1 {
				t.Fatalf("%d subjects are being forgotten", n)
			}
			erase(t, l)
			const left = "2:b ab,5:b ab,7:a go,8:a re,9:b so"
			check("erased", left)
			if n := l.Stats().Forgetting; n != 0 {
				t.Fatalf("%d subjects are being forgotten", n)
			}
			it := store.Iter(o.Prefix, kv.PrefixEnd(o.Prefix))
			for it.Next() {
				if bytes.Contains(it.Value(), []byte(":a ab")) || bytes.HasPrefix(it.Key(), l.forgetKey("")) {
					t.Errorf("still there: %q %q", it.Key(), it.Value())
				}
			}
			it.Close()
			reopen()
			check("erased on disk", left)
			// All of somebody at once, and nothing that stays at the end but one's own goodbye.
			commit(t, l, Tx{Events: say("b", "go"), Forget: []string{"b", "a", "nobody"}})
			check("all", "10:b go")
			reopen()
			check("all on disk", "10:b go")
			erase(t, l)
			check("all erased", "10:b go")
			l.Close()
		}
	})
}

// A reader that stands on what is forgotten goes on with what comes next, also when there is nothing yet.
func TestForgetUnderReader(t *testing.T) {
	for _, ringBytes := range []int{0, -1} {
		synctest.Test(t, func(t *testing.T) {
			l := open(t, kv.NewMem(), Options{RingBytes: ringBytes, Subject: about})
			defer l.Close()
			for range 5 {
				commit(t, l, Tx{Events: say("a", "x")})
			}
			for _, erased := range []bool{false, true} {
				commit(t, l, Tx{Forget: []string{"a"}}) // without a word
				if erased {
					erase(t, l)
				}
				got := make(chan []Event, 1)
				go func() {
					evs, err := l.Read(context.Background(), 2, 0)
					if err != nil {
						t.Error(err)
					}
					got <- evs
				}()
				synctest.Wait()
				if len(got) != 0 {
					t.Fatalf("read %v", <-got)
				}
				seq := commit(t, l, Tx{Events: say("a", "new")})
				if evs := <-got; len(evs) != 1 || evs[0].Seq != seq {
					t.Fatalf("read %v", evs)
				}
			}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err := l.Read(ctx, 8, 0); !errors.Is(err, context.Canceled) {
				t.Fatalf("read: %v", err)
			}
		})
	}
}

// KeepTrimmed erases by itself, and goes on after a restart.
func TestKeepTrimmedErases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := kv.NewMem()
		o := Options{Subject: about}
		l := open(t, store, o)
		big := strings.Repeat("x", 1<<20)
		for range 20 { // of several steps
			commit(t, l, Tx{Events: say("a", big)})
		}
		commit(t, l, Tx{Events: say("a", "go"), Forget: []string{"a"}})
		if more, err := l.Erase(); !more || err != nil {
			t.Fatalf("one step: %v, %v", more, err)
		}
		l.Close()
		l = open(t, store, o)
		if from := l.jobs["a"].from; from < 4 || from > 8 {
			t.Fatalf("the next step begins at %d", from)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- l.KeepTrimmed(ctx, time.Hour) }()
		time.Sleep(time.Second)
		if l.Stats().Forgetting != 0 {
			t.Fatal("nothing was erased")
		}
		commit(t, l, Tx{Events: say("a", "back")})
		commit(t, l, Tx{Events: say("a", "go"), Forget: []string{"a"}})
		time.Sleep(time.Second)
		if l.Stats().Forgetting != 0 || readAll(t, l, 1, 0) != "23:a go" {
			t.Fatal("nothing was erased")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
}

// TestForgetModel compares a log in which subjects are forgotten with a list.
func TestForgetModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := world.NewManual(time.Unix(0, 0))
		store := kv.NewMem()
		o := Options{
			Clock: clock, Subject: about, MaxBytes: int64(rapid.SampledFrom([]int{0, 60, 200}).Draw(t, "bytes")),
			RingBytes: rapid.SampledFrom([]int{-1, 40, 1000}).Draw(t, "ring"), ReadBytes: rapid.SampledFrom([]int{1, 20, 1000}).Draw(t, "read"),
		}
		l, err := Open(store, o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { l.Close() }()
		type event struct {
			who, frame string
			gone       bool
		}
		var all []event
		whose := rapid.SampledFrom([]string{"a", "b", "c"})
		add := func(t *rapid.T, forgets []string) {
			who := whose.Draw(t, "who")
			seq, err := l.Commit(context.Background(), Tx{Events: say(who, strings.Repeat("x", rapid.IntRange(0, 12).Draw(t, "size"))), Forget: forgets})
			if err != nil || seq != int64(len(all)+1) {
				t.Fatalf("commit: %d, %v", seq, err)
			}
			for _, f := range forgets {
				for i := range all {
					all[i].gone = all[i].gone || all[i].who == f
				}
			}
			evs, err := l.Read(context.Background(), seq, 1)
			if err != nil || len(evs) != 1 || evs[0].Seq != seq {
				t.Fatalf("read %d: %v, %v", seq, evs, err)
			}
			all = append(all, event{who: who, frame: string(evs[0].Frame)})
		}
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) { add(t, nil) },
			"forget": func(t *rapid.T) { add(t, rapid.SliceOfN(whose, 1, 2).Draw(t, "whom")) },
			"erase": func(t *rapid.T) {
				if _, err := l.Erase(); err != nil {
					t.Fatal(err)
				}
			},
			"trim": func(t *rapid.T) {
				if _, err := l.Trim(clock.Now()); err != nil {
					t.Fatal(err)
				}
				bytes, floor := 0, len(all)
				for floor > 0 && (o.MaxBytes == 0 || bytes+len(all[floor-1].frame) <= int(o.MaxBytes)) {
					floor--
					bytes += len(all[floor].frame)
				}
				if floor = max(floor, 0); l.Floor() < int64(floor+1) || l.Stats().Bytes > uint64(bytes) {
					t.Fatalf("trimmed: %+v, want floor %d, %d bytes", l.Stats(), floor+1, bytes)
				}
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
				var want []string
				bytes := 0
				for i := l.Floor(); i <= l.Head(); i++ {
					bytes += len(all[i-1].frame)
					if !all[i-1].gone {
						want = append(want, all[i-1].frame)
					}
				}
				if st := l.Stats(); st.Head != int64(len(all)) || st.Bytes != uint64(bytes) {
					t.Fatalf("%+v, want head %d, %d bytes", st, len(all), bytes)
				}
				for next := l.Floor(); len(want) > 0; {
					evs, err := l.Read(context.Background(), next, rapid.IntRange(0, 4).Draw(t, "max"))
					if err != nil {
						t.Fatal(err)
					}
					for _, ev := range evs {
						if len(want) == 0 || string(ev.Frame) != want[0] {
							t.Fatalf("got %q, want %q", ev.Frame, want)
						}
						want, next = want[1:], ev.Seq+1
					}
				}
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if evs, err := l.Read(ctx, l.Head()+1, 0); !errors.Is(err, context.Canceled) {
					t.Fatalf("after the end: %v, %v", evs, err)
				}
			},
		})
	})
}

// TestForgetConcurrent forgets while others write, and read live and from the start: nobody who begins to read after
// something was forgotten sees it, everybody sees the rest in order, and each goodbye.
func TestForgetConcurrent(t *testing.T) {
	for _, ringBytes := range []int{0, 500} {
		l := open(t, kv.NewMem(), Options{RingBytes: ringBytes, Subject: about, ReadBytes: 400})
		var mu sync.Mutex
		below := map[string]int64{} // acked
		const writers, rounds = 4, 60
		var writing, reading sync.WaitGroup
		for w := range writers {
			who := fmt.Sprint("w", w)
			writing.Go(func() {
				for i := range rounds {
					for range 5 {
						commit(t, l, Tx{Events: say(who, "x")})
					}
					if i%3 == 0 {
						seq := commit(t, l, Tx{Events: say(who, "bye"), Forget: []string{who}})
						mu.Lock()
						below[who] = seq
						mu.Unlock()
					}
				}
			})
		}
		ctx, cancel := context.WithCancel(context.Background())
		reading.Go(func() {
			for ctx.Err() == nil {
				if _, err := l.Erase(); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-l.erase:
				case <-ctx.Done():
				}
			}
		})
		var live atomic.Int64 // the number that the live reader wants next
		follow := func(on bool) {
			seen := map[string]int64{}
			for next := int64(1); on || next <= l.Head(); {
				if on {
					live.Store(next)
				}
				mu.Lock()
				then := make(map[string]int64, len(below))
				for who, seq := range below {
					then[who] = seq
				}
				mu.Unlock()
				evs, err := l.Read(ctx, next, 0)
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					break
				}
				for _, ev := range evs {
					who := about(ev.Frame)
					if ev.Seq < next || ev.Seq < then[who] {
						t.Errorf("at %d: read %q, which was forgotten at %d", next, ev.Frame, then[who])
						return
					}
					next, seen[who] = ev.Seq+1, ev.Seq
				}
			}
			if !on {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for who, seq := range below {
				if seen[who] < seq {
					t.Errorf("the live reader never saw %s at %d", who, seq)
				}
			}
		}
		reading.Go(func() { follow(true) })
		reading.Go(func() {
			for ctx.Err() == nil {
				follow(false)
			}
		})
		writing.Wait()
		for live.Load() <= l.Head() {
			runtime.Gosched()
		}
		cancel()
		reading.Wait()
		erase(t, l)
		if l.Stats().Forgetting != 0 {
			t.Errorf("%+v", l.Stats())
		}
		l.Close()
	}
}

// TestForgetPowerLoss cuts the power around forgetting and erasing: what was acked as forgotten stays so, and nothing else
// is lost.
func TestForgetPowerLoss(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(uint64(round), 7))
		fs := vfs.NewCrashableMem()
		store, err := kv.OpenPebble("db", kv.PebbleOptions{FS: fs, MemTableBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Subject: about}
		l := open(t, store, o)
		whose := make([]string, 1, 300) // by number
		below := map[string]int64{}
		for range 20 + rng.IntN(200) {
			who := string(rune('a' + rng.IntN(5)))
			tx := Tx{Events: say(who, "x")}
			if rng.IntN(20) == 0 {
				tx.Forget = []string{who}
			}
			seq := commit(t, l, tx)
			whose = append(whose, who)
			if tx.Forget != nil {
				below[who] = seq
			}
			if rng.IntN(30) == 0 {
				erase(t, l)
			}
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		l.Close()
		store.Close()
		if store, err = kv.OpenPebble("db", kv.PebbleOptions{FS: crashed}); err != nil {
			t.Fatal(err)
		}
		l = open(t, store, o)
		for pass := range 2 {
			var want []string
			for seq := int64(1); seq < int64(len(whose)); seq++ {
				if seq >= below[whose[seq]] {
					want = append(want, fmt.Sprintf("%d:%s x", seq, whose[seq]))
				}
			}
			if got := readAll(t, l, 1, 0); got != strings.Join(want, ",") {
				t.Fatalf("round %d, pass %d:\ngot  %s\nwant %s", round, pass, got, want)
			}
			erase(t, l)
		}
		l.Close()
		store.Close()
	}
}
