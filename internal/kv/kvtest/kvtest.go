// Package kvtest is the suite of tests that every kv.Store passes, so that a service can be tested on the twin in memory
// and run on disk.
//
// It has no specification page. It tests what a store promises while it is open; what survives a crash is tested where
// the filesystem of a store is known.
//
//	func TestMem(t *testing.T) { kvtest.Run(t, func(testing.TB) kv.Store { return kv.NewMem() }) }
package kvtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/barograph/baro/internal/kv"
)

// Run runs the suite. Each call of open gives an empty store, which the suite closes.
func Run(t *testing.T, open func(testing.TB) kv.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, kv.Store)
	}{
		{"GetSetDelete", testGetSetDelete},
		{"Ownership", testOwnership},
		{"BatchOrder", testBatchOrder},
		{"BatchReuse", testBatchReuse},
		{"BatchAppend", testBatchAppend},
		{"DeleteRange", testDeleteRange},
		{"Iterate", testIterate},
		{"IterateBounds", testIterateBounds},
		{"IterateFixedView", testIterateFixedView},
		{"Snapshot", testSnapshot},
		{"LargeValues", testLargeValues},
		{"Concurrent", testConcurrent},
		{"Closed", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer closeStore(t, s)
			c.test(t, s)
		})
	}
	t.Run("Model", func(t *testing.T) { testModel(t, open) })
}

func closeStore(t testing.TB, s kv.Store) {
	if err := s.Close(); err != nil {
		t.Errorf("closing the store: %v", err)
	}
}

func apply(t testing.TB, s kv.Store, fill func(b kv.Batch)) {
	t.Helper()
	b := s.NewBatch()
	defer b.Close()
	fill(b)
	if err := s.Apply(b, true); err != nil {
		t.Fatal(err)
	}
}

func set(t testing.TB, s kv.Store, pairs ...string) {
	t.Helper()
	apply(t, s, func(b kv.Batch) {
		for i := 0; i < len(pairs); i += 2 {
			b.Set([]byte(pairs[i]), []byte(pairs[i+1]))
		}
	})
}

func want(t testing.TB, r kv.Reader, key, value string) {
	t.Helper()
	if v, err := r.Get([]byte(key)); err != nil || string(v) != value {
		t.Errorf("%q is %q, %v; want %q", key, v, err, value)
	}
}

func wantNone(t testing.TB, r kv.Reader, key string) {
	t.Helper()
	if v, err := r.Get([]byte(key)); !errors.Is(err, kv.ErrNotFound) || v != nil {
		t.Errorf("%q is %q, %v; want none", key, v, err)
	}
}

func bound(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// keys are those in [lo, hi), "" being open, as one string.
func keys(t testing.TB, r kv.Reader, lo, hi string) string {
	t.Helper()
	it := r.Iter(bound(lo), bound(hi))
	var out []string
	for it.Next() {
		out = append(out, string(it.Key()))
	}
	var back []string
	for ok := it.Last(); ok; ok = it.Prev() {
		back = append(back, string(it.Key()))
	}
	if err := it.Close(); err != nil {
		t.Errorf("iterating: %v", err)
	}
	slices.Reverse(back)
	if !slices.Equal(out, back) {
		t.Errorf("forwards %q, backwards %q", out, back)
	}
	return fmt.Sprint(out)
}

func testGetSetDelete(t *testing.T, s kv.Store) {
	wantNone(t, s, "a")
	set(t, s, "a", "1", "b", "", "\x00\xff", "odd")
	want(t, s, "a", "1")
	want(t, s, "b", "")
	want(t, s, "\x00\xff", "odd")
	set(t, s, "a", "2")
	want(t, s, "a", "2")
	apply(t, s, func(b kv.Batch) { b.Delete([]byte("a")); b.Delete([]byte("never there")) })
	wantNone(t, s, "a")
	want(t, s, "b", "")
	if v, err := s.Get([]byte("b")); v == nil || err != nil {
		t.Errorf("an empty value is %v, %v", v, err)
	}
}

// testOwnership changes what was passed in and what was handed out: neither changes the store.
func testOwnership(t *testing.T, s kv.Store) {
	k, v := []byte("key"), []byte("value")
	b := s.NewBatch()
	defer b.Close()
	b.Set(k, v)
	k[0], v[0] = 'X', 'X'
	if err := s.Apply(b, false); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	b.Set([]byte("zzz"), []byte("zzzzz"))
	want(t, s, "key", "value")
	got, err := s.Get([]byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	got[0] = 'X'
	_ = append(got, "more"...)
	want(t, s, "key", "value")
}

func testBatchOrder(t *testing.T, s kv.Store) {
	set(t, s, "b", "old")
	apply(t, s, func(b kv.Batch) {
		b.Set([]byte("a"), []byte("1"))
		b.Set([]byte("a"), []byte("2"))
		b.Delete([]byte("b"))
		b.Set([]byte("b"), []byte("new"))
		b.Set([]byte("c"), []byte("gone"))
		b.DeleteRange([]byte("c"), []byte("e"))
		b.Set([]byte("d"), []byte("after"))
	})
	want(t, s, "a", "2")
	want(t, s, "b", "new")
	wantNone(t, s, "c")
	want(t, s, "d", "after")
}

func testBatchReuse(t *testing.T, s kv.Store) {
	b := s.NewBatch()
	defer b.Close()
	if b.Len() != 0 {
		t.Errorf("a new batch has %d changes", b.Len())
	}
	for _, sync := range []bool{false, true} { // empty batches are fine
		if err := s.Apply(b, sync); err != nil {
			t.Fatal(err)
		}
		b.Reset()
	}
	b.Set([]byte("a"), []byte("1"))
	b.Delete([]byte("x"))
	if b.Len() != 2 || b.Size() < 2 {
		t.Errorf("%d changes, %d bytes", b.Len(), b.Size())
	}
	if err := s.Apply(b, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(b, true); !errors.Is(err, kv.ErrBatchApplied) {
		t.Errorf("applied twice: %v", err)
	}
	b.Reset()
	if b.Len() != 0 {
		t.Errorf("%d changes after Reset", b.Len())
	}
	b.Set([]byte("b"), []byte("2"))
	if err := s.Apply(b, true); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s, "", ""); got != "[a b]" {
		t.Error(got)
	}
	// A batch that is dropped leaves nothing.
	d := s.NewBatch()
	d.Set([]byte("c"), nil)
	d.Close()
	wantNone(t, s, "c")
}

func testBatchAppend(t *testing.T, s kv.Store) {
	a, b := s.NewBatch(), s.NewBatch()
	defer a.Close()
	defer b.Close()
	a.Append(b) // nothing
	a.Set([]byte("k"), []byte("a"))
	b.Set([]byte("k"), []byte("b"))
	b.Set([]byte("x"), []byte("x"))
	b.DeleteRange([]byte("x"), []byte("y"))
	a.Append(b)
	a.Set([]byte("z"), []byte("z"))
	if a.Len() != 5 || b.Len() != 3 {
		t.Errorf("lengths %d and %d", a.Len(), b.Len())
	}
	if err := s.Apply(a, true); err != nil {
		t.Fatal(err)
	}
	want(t, s, "k", "b")
	want(t, s, "z", "z")
	wantNone(t, s, "x")
	if err := s.Apply(b, true); err != nil { // b is as it was
		t.Fatal(err)
	}
}

func testDeleteRange(t *testing.T, s kv.Store) {
	set(t, s, "a", "", "aa", "", "b", "", "c", "", "d", "")
	apply(t, s, func(b kv.Batch) {
		b.DeleteRange([]byte("aa"), []byte("c"))
		b.DeleteRange([]byte("d"), []byte("d")) // empty
		b.DeleteRange([]byte("d"), []byte("a")) // upside down
	})
	if got := keys(t, s, "", ""); got != "[a c d]" {
		t.Error(got)
	}
	set(t, s, "b", "again")
	if got := keys(t, s, "", ""); got != "[a b c d]" {
		t.Error(got)
	}
}

func testIterate(t *testing.T, s kv.Store) {
	var all []string
	for i := range 1000 {
		k := fmt.Sprintf("k%04d", i)
		all = append(all, k)
		set(t, s, k, "v"+k)
	}
	it := s.Iter(nil, nil)
	defer it.Close()
	for i, k := range all {
		if !it.Next() || string(it.Key()) != k || string(it.Value()) != "v"+k {
			t.Fatalf("%d: %q %q, want %q", i, it.Key(), it.Value(), k)
		}
	}
	if it.Next() || it.Next() {
		t.Error("it goes on after the end")
	}
	if !it.Prev() || string(it.Key()) != "k0999" {
		t.Errorf("back from the end: %q", it.Key())
	}
	for i := 998; i >= 0; i-- {
		if !it.Prev() || string(it.Key()) != all[i] {
			t.Fatalf("%d: %q", i, it.Key())
		}
	}
	if it.Prev() || it.Prev() {
		t.Error("it goes on before the start")
	}
	if !it.Next() || string(it.Key()) != "k0000" {
		t.Errorf("back from the start: %q", it.Key())
	}
	for _, c := range []struct{ seek, ge, lt string }{
		{"", "k0000", ""}, {"k0000", "k0000", ""}, {"k0500", "k0500", "k0499"}, {"k0500x", "k0501", "k0500"}, {"z", "", "k0999"},
	} {
		if ok := it.SeekGE([]byte(c.seek)); ok != (c.ge != "") || ok && string(it.Key()) != c.ge {
			t.Errorf("SeekGE(%q): %v %q", c.seek, ok, it.Key())
		}
		if ok := it.SeekLT([]byte(c.seek)); ok != (c.lt != "") || ok && string(it.Key()) != c.lt {
			t.Errorf("SeekLT(%q): %v %q", c.seek, ok, it.Key())
		}
	}
	// Turning around in the middle.
	it.SeekGE([]byte("k0100"))
	for i, step := range []struct {
		next bool
		key  string
	}{{true, "k0101"}, {false, "k0100"}, {false, "k0099"}, {true, "k0100"}, {true, "k0101"}, {true, "k0102"}, {false, "k0101"}} {
		ok := false
		if step.next {
			ok = it.Next()
		} else {
			ok = it.Prev()
		}
		if !ok || string(it.Key()) != step.key {
			t.Errorf("step %d: %q, want %q", i, it.Key(), step.key)
		}
	}
	last := s.Iter(nil, nil)
	defer last.Close()
	if !last.Prev() || string(last.Key()) != "k0999" {
		t.Errorf("Prev of a fresh iterator: %q", last.Key())
	}
}

func testIterateBounds(t *testing.T, s kv.Store) {
	set(t, s, "a", "", "b", "", "ba", "", "c", "", "\xff\xff", "")
	for _, c := range []struct{ lo, hi, want string }{
		{"", "", "[a b ba c \xff\xff]"}, {"b", "", "[b ba c \xff\xff]"}, {"", "b", "[a]"}, {"b", "c", "[b ba]"},
		{"b", "b", "[]"}, {"c", "a", "[]"}, {"aa", "b", "[]"}, {"d", "e", "[]"},
	} {
		if got := keys(t, s, c.lo, c.hi); got != c.want {
			t.Errorf("[%s, %s): %s, want %s", c.lo, c.hi, got, c.want)
		}
	}
	it := s.Iter([]byte("b"), []byte("c"))
	if it.SeekLT([]byte("b")) || it.SeekGE([]byte("c")) {
		t.Error("a seek left the bounds")
	}
	if !it.SeekGE([]byte("a")) || string(it.Key()) != "b" || !it.SeekLT([]byte("z")) || string(it.Key()) != "ba" {
		t.Error("a seek from outside the bounds missed them")
	}
	if err := it.Close(); err != nil {
		t.Error(err)
	}
	// Bounds that look empty and are not nil.
	it = s.Iter([]byte{}, []byte{})
	if it.Next() {
		t.Error("something below the empty key")
	}
	it.Close()
	if got := keys(t, s, "\xff", string(kv.PrefixEnd([]byte{0xff}))); got != "[\xff\xff]" {
		t.Error(got)
	}
}

func testIterateFixedView(t *testing.T, s kv.Store) {
	set(t, s, "a", "1", "b", "1", "c", "1")
	it := s.Iter(nil, nil)
	set(t, s, "b", "2", "d", "2")
	apply(t, s, func(b kv.Batch) { b.Delete([]byte("c")) })
	got := ""
	for it.Next() {
		got += string(it.Key()) + string(it.Value())
	}
	if err := it.Close(); err != nil || got != "a1b1c1" {
		t.Errorf("an open iterator saw %q, %v", got, err)
	}
	if got := keys(t, s, "", ""); got != "[a b d]" {
		t.Error(got)
	}
}

func testSnapshot(t *testing.T, s kv.Store) {
	set(t, s, "a", "1", "b", "1")
	snap := s.Snapshot()
	apply(t, s, func(b kv.Batch) { b.Set([]byte("a"), []byte("2")); b.DeleteRange([]byte("b"), []byte("z")) })
	later := s.Snapshot()
	set(t, s, "c", "3")
	want(t, snap, "a", "1")
	want(t, snap, "b", "1")
	wantNone(t, snap, "c")
	if got := keys(t, snap, "", ""); got != "[a b]" {
		t.Error(got)
	}
	want(t, later, "a", "2")
	if got := keys(t, later, "", ""); got != "[a]" {
		t.Error(got)
	}
	want(t, s, "c", "3")
	for _, x := range []kv.Snapshot{snap, later, snap} { // closing twice is fine
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := snap.Get([]byte("a")); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("a closed snapshot: %v", err)
	}
}

// testLargeValues has batches larger than what a store keeps in memory at once.
func testLargeValues(t *testing.T, s kv.Store) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	b := s.NewBatch()
	defer b.Close()
	for round := range 2 {
		for i := range 6 {
			b.Set(fmt.Appendf(nil, "%d-%d", round, i), big)
		}
		if err := s.Apply(b, true); err != nil {
			t.Fatal(err)
		}
		b.Reset()
	}
	for round := range 2 {
		for i := range 6 {
			if v, err := s.Get(fmt.Appendf(nil, "%d-%d", round, i)); err != nil || !bytes.Equal(v, big) {
				t.Fatalf("%d-%d: %d bytes, %v", round, i, len(v), err)
			}
		}
	}
}

// testConcurrent has writers that keep pairs equal, and readers that check that they are.
func testConcurrent(t *testing.T, s kv.Store) {
	const writers, rounds = 4, 100
	var wg sync.WaitGroup
	for w := range writers {
		set(t, s, fmt.Sprint("x", w), "-", fmt.Sprint("y", w), "-")
		wg.Go(func() {
			b := s.NewBatch()
			defer b.Close()
			for i := range rounds {
				v := fmt.Append(nil, i)
				b.Set(fmt.Append(nil, "x", w), v)
				b.Set(fmt.Append(nil, "y", w), v)
				b.Set(fmt.Append(nil, "z", w, "/", i), v)
				if err := s.Apply(b, i%2 == 0); err != nil {
					t.Error(err)
				}
				b.Reset()
				if got, err := s.Get(fmt.Append(nil, "x", w)); err != nil || string(got) != string(v) {
					t.Errorf("own write: %q, %v", got, err)
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				snap := s.Snapshot()
				x, err := snap.Get(fmt.Append(nil, "x", w))
				y, err2 := snap.Get(fmt.Append(nil, "y", w))
				if err != nil || err2 != nil || string(x) != string(y) {
					t.Errorf("half a batch: %q %q %v %v", x, y, err, err2)
				}
				n := 0
				it := snap.Iter(fmt.Append(nil, "z", w, "/"), kv.PrefixEnd(fmt.Append(nil, "z", w, "/")))
				for it.Next() {
					n++
				}
				it.Close()
				if string(x) != "-" && fmt.Sprint(n-1) != string(x) {
					t.Errorf("%d rows at %q", n, x)
				}
				snap.Close()
			}
		})
	}
	wg.Wait()
}

func testClosed(t *testing.T, s kv.Store) {
	set(t, s, "a", "1")
	b := s.NewBatch()
	b.Set([]byte("b"), nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get([]byte("a")); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("get: %v", err)
	}
	if err := s.Apply(b, true); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("apply: %v", err)
	}
	it := s.Iter(nil, nil)
	if it.Next() || !errors.Is(it.Err(), kv.ErrClosed) || !errors.Is(it.Close(), kv.ErrClosed) {
		t.Error("iterating a closed store")
	}
	if _, err := s.Snapshot().Get([]byte("a")); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("snapshot: %v", err)
	}
}

// testModel compares a store with a map over random batches, reads, iterations and snapshots.
func testModel(t *testing.T, open func(testing.TB) kv.Store) {
	key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 'b', 0xff}), 1, 4)
	value := rapid.SliceOfN(rapid.Byte(), 0, 5)
	type view struct {
		kv.Snapshot
		rows map[string]string
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t)
		rows := map[string]string{}
		var views []view
		defer func() {
			for _, v := range views {
				v.Close()
			}
			closeStore(t, s)
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"batch": func(t *rapid.T) {
				b := s.NewBatch()
				defer b.Close()
				for range rapid.IntRange(0, 8).Draw(t, "ops") {
					switch k := key.Draw(t, "key"); rapid.IntRange(0, 5).Draw(t, "op") {
					case 0:
						b.Delete(k)
						delete(rows, string(k))
					case 1:
						hi := key.Draw(t, "hi")
						b.DeleteRange(k, hi)
						for r := range rows {
							if r >= string(k) && r < string(hi) {
								delete(rows, r)
							}
						}
					default:
						v := value.Draw(t, "value")
						b.Set(k, v)
						rows[string(k)] = string(v)
					}
				}
				if err := s.Apply(b, rapid.Bool().Draw(t, "sync")); err != nil {
					t.Fatal(err)
				}
			},
			"snapshot": func(t *rapid.T) {
				copied := map[string]string{}
				for k, v := range rows {
					copied[k] = v
				}
				views = append(views, view{s.Snapshot(), copied})
			},
			"drop": func(t *rapid.T) {
				if len(views) == 0 {
					t.Skip("no snapshot")
				}
				views[0].Close()
				views = views[1:]
			},
			"walk": func(t *rapid.T) {
				r, rows := kv.Reader(s), rows
				if n := rapid.IntRange(0, len(views)).Draw(t, "view"); n > 0 {
					r, rows = views[n-1], views[n-1].rows
				}
				var lo, hi []byte
				if rapid.Bool().Draw(t, "bounded") {
					lo, hi = key.Draw(t, "lo"), key.Draw(t, "hi")
				}
				checkWalk(t, r, rows, lo, hi, key)
			},
			"": func(t *rapid.T) {
				k := key.Draw(t, "key")
				v, err := s.Get(k)
				if want, ok := rows[string(k)]; ok && (err != nil || string(v) != want) || !ok && !errors.Is(err, kv.ErrNotFound) {
					t.Fatalf("%q is %q, %v; want %q, %v", k, v, err, want, ok)
				}
			},
		})
	})
}

// checkWalk moves an iterator around at random and compares it with a sorted list.
func checkWalk(t *rapid.T, r kv.Reader, rows map[string]string, lo, hi []byte, key *rapid.Generator[[]byte]) {
	var list []string
	for k := range rows {
		if (lo == nil || k >= string(lo)) && (hi == nil || k < string(hi)) {
			list = append(list, k)
		}
	}
	slices.Sort(list)
	it := r.Iter(lo, hi)
	at := -1 // -1 and len(list) are outside
	fresh := true
	for range rapid.IntRange(1, 12).Draw(t, "moves") {
		var ok bool
		switch rapid.IntRange(0, 7).Draw(t, "move") {
		case 0:
			ok, at = it.First(), 0
		case 1:
			ok, at = it.Last(), len(list)-1
		case 2:
			k := key.Draw(t, "seek")
			ok = it.SeekGE(k)
			at, _ = slices.BinarySearch(list, string(k))
		case 3:
			k := key.Draw(t, "seek")
			ok = it.SeekLT(k)
			at, _ = slices.BinarySearch(list, string(k))
			at--
		case 4, 5:
			ok, at = it.Next(), min(at+1, len(list))
		default:
			if fresh {
				at = len(list)
			}
			ok, at = it.Prev(), max(at-1, -1)
		}
		fresh = false
		if ok != (at >= 0 && at < len(list)) {
			t.Fatalf("stands on a key: %v; want place %d of %q", ok, at, list)
		}
		if ok && (string(it.Key()) != list[at] || string(it.Value()) != rows[list[at]]) {
			t.Fatalf("%q %q, want %q %q", it.Key(), it.Value(), list[at], rows[list[at]])
		}
		if !ok && len(list) == 0 {
			at, fresh = -1, true // an empty iteration has one place
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
}
