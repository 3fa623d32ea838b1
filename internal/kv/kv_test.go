package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/kv/kvtest"
)

func TestMem(t *testing.T) {
	kvtest.Run(t, func(testing.TB) kv.Store { return kv.NewMem() })
}

func TestPebble(t *testing.T) {
	kvtest.Run(t, func(t testing.TB) kv.Store {
		s, err := kv.OpenPebble("db", kv.PebbleOptions{FS: vfs.NewMem(), MemTableBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func mustOpen(t testing.TB, dir string, o kv.PebbleOptions) kv.Store {
	t.Helper()
	s, err := kv.OpenPebble(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustSet(t testing.TB, s kv.Store, sync bool, pairs ...string) {
	t.Helper()
	b := s.NewBatch()
	defer b.Close()
	for i := 0; i < len(pairs); i += 2 {
		b.Set([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	if err := s.Apply(b, sync); err != nil {
		t.Fatal(err)
	}
}

func TestReopenOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "store")
	cache := kv.NewCache(1 << 20)
	defer cache.Close()
	for i := range 3 {
		s := mustOpen(t, dir, kv.PebbleOptions{Cache: cache})
		for j := range i {
			if v, err := s.Get(fmt.Append(nil, "k", j)); err != nil || string(v) != "v" {
				t.Errorf("start %d: %q, %v", i, v, err)
			}
		}
		mustSet(t, s, i%2 == 0, fmt.Sprint("k", i), "v")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestLocked(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"disk": vfs.Default, "mem": vfs.NewMem()} {
		dir := filepath.Join(t.TempDir(), "store")
		a := mustOpen(t, dir, kv.PebbleOptions{FS: fs})
		_, err := kv.OpenPebble(dir, kv.PebbleOptions{FS: fs})
		var le *kv.LockedError
		if !errors.As(err, &le) || le.Lock != filepath.Join(dir, "LOCK") || !strings.Contains(err.Error(), le.Lock) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		mustSet(t, a, true, "still", "works")
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := mustOpen(t, dir, kv.PebbleOptions{FS: fs}).Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := kv.OpenPebble(filepath.Join(file, "store"), kv.PebbleOptions{})
	var le *kv.LockedError
	if err == nil || errors.As(err, &le) || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if os.Getuid() != 0 && runtime.GOOS != "windows" { // root may write anywhere
		dir := t.TempDir()
		os.Chmod(dir, 0o500)
		if _, err := kv.OpenPebble(dir, kv.PebbleOptions{}); err == nil || errors.As(err, &le) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v", err)
		}
	}
}

func TestOpenMemory(t *testing.T) {
	s, err := kv.Open(nil, "must not be made", true, kv.PebbleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mustSet(t, s, true, "a", "b")
	s.Close()
	if _, err := os.Stat("must not be made"); err == nil {
		t.Error("a memory store made a folder")
	}
}

// TestPowerLoss cuts the power at a random moment. What was applied with sync is there, what was not may be missing but
// only from the end, and each batch is whole.
func TestPowerLoss(t *testing.T) {
	rounds := uint64(40)
	if testing.Short() {
		rounds = 10
	}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(seed, 7))
		fs := vfs.NewCrashableMem()
		s := mustOpen(t, "a/db", kv.PebbleOptions{FS: fs, MemTableBytes: 32 << 10}) // small: flushes happen meanwhile
		const writers, each, width = 3, 120, 5
		crashAt := rng.Int64N(writers * each)
		unsynced := rng.IntN(101)
		var steps atomic.Int64
		var synced [writers]atomic.Int64
		var syncedThen [writers]int64
		var crashed *vfs.MemFS
		var once sync.Once
		crash := func() {
			for w := range synced {
				syncedThen[w] = synced[w].Load()
			}
			crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
		}
		var wg sync.WaitGroup
		for w := range writers {
			wrng := rand.New(rand.NewPCG(seed, uint64(100+w)))
			wg.Go(func() {
				b := s.NewBatch()
				defer b.Close()
				for i := int64(1); i <= each; i++ {
					// Each batch writes its number everywhere and one key of its own.
					for k := range width {
						b.Set(fmt.Appendf(nil, "w%d/%d", w, k), fmt.Appendf(nil, "%d%s", i, strings.Repeat(" ", wrng.IntN(400))))
					}
					b.Set(fmt.Appendf(nil, "w%d/n/%04d", w, i), nil)
					sync := wrng.IntN(2) == 0
					if err := s.Apply(b, sync); err != nil {
						t.Error(err)
						return
					}
					b.Reset()
					if sync {
						synced[w].Store(i)
					}
					if steps.Add(1) > crashAt {
						once.Do(crash)
					}
				}
			})
		}
		wg.Wait()
		once.Do(crash)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		s = mustOpen(t, "a/db", kv.PebbleOptions{FS: crashed})
		for w := range writers {
			last := int64(0)
			for k := range width {
				v, err := s.Get(fmt.Appendf(nil, "w%d/%d", w, k))
				if err != nil && !errors.Is(err, kv.ErrNotFound) {
					t.Fatal(err)
				}
				var n int64
				fmt.Sscan(string(v), &n)
				if k == 0 {
					last = n
				} else if n != last {
					t.Fatalf("seed %d: half a batch: %d and %d", seed, last, n)
				}
			}
			if last < syncedThen[w] {
				t.Fatalf("seed %d: writer %d ends at %d, but %d was synced", seed, w, last, syncedThen[w])
			}
			it := s.Iter(fmt.Appendf(nil, "w%d/n/", w), kv.PrefixEnd(fmt.Appendf(nil, "w%d/n/", w)))
			n := int64(0)
			for it.Next() {
				n++
				if want := fmt.Sprintf("w%d/n/%04d", w, n); string(it.Key()) != want {
					t.Fatalf("seed %d: a batch in the middle is missing: %s, want %s", seed, it.Key(), want)
				}
			}
			if err := it.Close(); err != nil || n != last {
				t.Fatalf("seed %d: %d of %d batches, %v", seed, n, last, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSyncErrorIsFatal fails one write or fsync of the log after the other. From then on nothing is acked, and the
// error is told once.
func TestSyncErrorIsFatal(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileWrite} {
		for n := range int64(4) {
			mem := vfs.NewCrashableMem()
			var armed atomic.Bool
			var left atomic.Int64
			left.Store(n)
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				isSync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
				if !armed.Load() || !strings.HasSuffix(op.Path, ".log") || isSync != (kind == errorfs.OpFileSync) || !isSync && op.Kind != kind {
					return nil
				}
				if left.Add(-1) < 0 {
					return errorfs.ErrInjected
				}
				return nil
			}))
			var fatal []error
			s := mustOpen(t, "db", kv.PebbleOptions{FS: fs, OnFatal: func(err error) { fatal = append(fatal, err) }})
			armed.Store(true)
			acked := -1
			var err error
			for i := 0; err == nil && i < 100; i++ {
				b := s.NewBatch()
				b.Set(fmt.Append(nil, "k", i), nil)
				if err = s.Apply(b, true); err == nil {
					acked = i
				}
			}
			var fe *kv.FatalError
			if !errors.As(err, &fe) || !errors.Is(err, errorfs.ErrInjected) || len(fatal) != 1 {
				t.Fatalf("kind %v, ordinal %d: %v; told: %v", kind, n, err, fatal)
			}
			left.Store(1 << 40) // the disk is well again, and the store still refuses
			if err := s.Apply(s.NewBatch(), true); !errors.As(err, &fe) {
				t.Fatalf("after the failure: %v", err)
			}
			if err := s.Close(); !errors.As(err, &fe) {
				t.Fatalf("close: %v", err)
			}
			s = mustOpen(t, "db", kv.PebbleOptions{FS: mem.CrashClone(vfs.CrashCloneCfg{})}) // only what was synced
			for i := 0; i <= acked; i++ {
				if _, err := s.Get(fmt.Append(nil, "k", i)); err != nil {
					t.Fatalf("k%d was acked: %v", i, err)
				}
			}
			s.Close()
		}
	}
}

// TestDiskFull lets the disk fill up while tables are written behind the writers' backs: one fatal error that names it.
func TestDiskFull(t *testing.T) {
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpFileWrite {
			return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
		}
		return nil
	}))
	fatal := make(chan error, 2)
	s := mustOpen(t, "db", kv.PebbleOptions{FS: fs, MemTableBytes: 64 << 10, OnFatal: func(err error) { fatal <- err }})
	full.Store(true)
	var err error
	for i := 0; err == nil; i++ {
		b := s.NewBatch()
		b.Set(fmt.Append(nil, "k", i), make([]byte, 1000))
		err = s.Apply(b, false)
	}
	var fe *kv.FatalError
	if !errors.As(err, &fe) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := <-fatal; !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "db/") {
		t.Errorf("%v", err)
	}
	full.Store(false) // lets Pebble's retries end
	if len(fatal) != 0 {
		t.Error("told twice")
	}
}

// TestDiskFullAtOpen opens a store whose log cannot be written out: an error, and not the hope that the disk gets larger.
func TestDiskFullAtOpen(t *testing.T) {
	var full atomic.Bool
	mem := vfs.NewMem()
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpFileWrite {
			return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
		}
		return nil
	}))
	s := mustOpen(t, "db", kv.PebbleOptions{FS: fs})
	mustSet(t, s, true, "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	defer full.Store(false) // lets Pebble's retries end
	told := false
	_, err := kv.OpenPebble("db", kv.PebbleOptions{FS: fs, OnFatal: func(error) { told = true }})
	if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") || told {
		t.Errorf("%v; told as fatal: %v", err, told)
	}
}

// TestGroupCommit has many writers share an fsync.
func TestGroupCommit(t *testing.T) {
	var syncs atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			syncs.Add(1)
			runtime.Gosched()
		}
		return nil
	}))
	s := mustOpen(t, "db", kv.PebbleOptions{FS: fs})
	defer s.Close()
	before := syncs.Load()
	const writers, each = 32, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				mustSet(t, s, true, fmt.Sprint(w, "/", i), "")
			}
		})
	}
	wg.Wait()
	if n := syncs.Load() - before; n == 0 || n >= writers*each {
		t.Errorf("%d syncs for %d commits", n, writers*each)
	}
}

func TestKeyOrder(t *testing.T) {
	type parts struct {
		s string
		n uint64
		t string
	}
	str := rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 'a', 'b', 0xfe, 0xff}), 0, 5).Draw(t, "s"))
	})
	rapid.Check(t, func(t *rapid.T) {
		draw := func() (parts, []byte) {
			p := parts{str.Draw(t, "s"), rapid.Uint64().Draw(t, "n"), str.Draw(t, "t")}
			return p, kv.AppendString(kv.AppendUint64(kv.AppendString([]byte("p"), p.s), p.n), p.t)
		}
		a, ka := draw()
		b, kb := draw()
		want := strings.Compare(a.s, b.s)
		if want == 0 {
			want = slices.Compare([]uint64{a.n}, []uint64{b.n})
		}
		if want == 0 {
			want = strings.Compare(a.t, b.t)
		}
		if got := bytes.Compare(ka, kb); got != want {
			t.Fatalf("%+v %+v: %d, want %d", a, b, got, want)
		}
		s, rest, ok := kv.CutString(ka[1:])
		n, rest, ok2 := kv.CutUint64(rest)
		s2, rest, ok3 := kv.CutString(rest)
		if !ok || !ok2 || !ok3 || len(rest) != 0 || (parts{s, n, s2}) != a {
			t.Fatalf("%+v came back as %+v", a, parts{s, n, s2})
		}
		da, db := kv.AppendUint64Desc(nil, a.n), kv.AppendUint64Desc(nil, b.n)
		if v, _, ok := kv.CutUint64Desc(da); !ok || v != a.n || bytes.Compare(da, db) != slices.Compare([]uint64{b.n}, []uint64{a.n}) {
			t.Fatal("descending order")
		}
		if v, rest, ok := kv.CutUint32(kv.AppendUint32(nil, uint32(a.n))); !ok || v != uint32(a.n) || len(rest) != 0 {
			t.Fatal("32 bits")
		}
	})
}

func TestPrefixEnd(t *testing.T) {
	for in, want := range map[string]string{"a": "b", "ab": "ac", "a\xff": "b", "\xff\xff": "", "": "", "\xfe\xff": "\xff"} {
		if got := string(kv.PrefixEnd([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzCutString(f *testing.F) {
	for _, s := range []string{"", "\x00", "\x00\x01", "a\x00\xff\x00\x01x", "\x00\x02", "a\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, k []byte) {
		s, rest, ok := kv.CutString(k)
		if !ok {
			if s != "" || !bytes.Equal(rest, k) {
				t.Fatal("a failed cut took something")
			}
			return
		}
		if again := append(kv.AppendString(nil, s), rest...); !bytes.Equal(again, k) {
			t.Fatalf("%x came back as %x", k, again)
		}
	})
}

func ExampleStore() {
	store := kv.NewMem()
	b := store.NewBatch()
	b.Set(kv.AppendUint64([]byte("post/"), 1), []byte("first"))
	b.Set(kv.AppendUint64([]byte("post/"), 2), []byte("second"))
	b.Set([]byte("cursor"), kv.AppendUint64(nil, 2)) // in the same batch as the data it stands for
	if err := store.Apply(b, true); err != nil {
		fmt.Println(err)
	}
	lo := []byte("post/")
	it := store.Iter(lo, kv.PrefixEnd(lo))
	defer it.Close()
	for it.Next() {
		n, _, _ := kv.CutUint64(it.Key()[len(lo):])
		fmt.Println(n, string(it.Value()))
	}
	// Output:
	// 1 first
	// 2 second
}

func BenchmarkGet(b *testing.B) {
	for name, s := range map[string]kv.Store{"mem": kv.NewMem(), "pebble": mustOpen(b, b.TempDir(), kv.PebbleOptions{})} {
		for i := range 10_000 {
			mustSet(b, s, false, fmt.Sprintf("key%08d", i), strings.Repeat("v", 300))
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			key := []byte("key00000000")
			for i := 0; b.Loop(); i++ {
				copy(key[3:], fmt.Sprintf("%08d", i%10_000))
				if _, err := s.Get(key); err != nil {
					b.Fatal(err)
				}
			}
		})
		s.Close()
	}
}

func BenchmarkScan(b *testing.B) {
	for name, s := range map[string]kv.Store{"mem": kv.NewMem(), "pebble": mustOpen(b, b.TempDir(), kv.PebbleOptions{})} {
		for i := range 10_000 {
			mustSet(b, s, false, fmt.Sprintf("key%08d", i), strings.Repeat("v", 300))
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := int64(0)
				it := s.Iter(nil, nil)
				for it.Next() {
					n += int64(len(it.Key()) + len(it.Value()))
				}
				if err := it.Close(); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
		})
		s.Close()
	}
}
