package kv

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLogAhead cuts the power after synced writes, in logs with zeros ahead, new and used again: what was synced is there, and the log
// seldom grows.
func TestLogAhead(t *testing.T) {
	fs := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(1, 2))
	grown, size, last, written := 0, map[string]int64{}, 0, 0
	open := func(fs vfs.FS) Store {
		s, err := OpenPebble("db", PebbleOptions{FS: fs, MemTableBytes: 512 << 10})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(fs)
	for range 6 {
		for range 120 {
			b := s.NewBatch()
			value := strings.Repeat("x", rng.IntN(16<<10))
			written += len(value)
			b.Set(fmt.Append(nil, "key", last), []byte(value))
			b.Set([]byte("last"), fmt.Append(nil, last))
			if err := s.Apply(b, true); err != nil {
				t.Fatal(err)
			}
			b.Close()
			last++
			names, err := fs.List("db")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if info, err := fs.Stat("db/" + name); isWAL(name) && err == nil && info.Size() > size[name] {
					size[name] = info.Size()
					grown++
				}
			}
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		s.Close()
		fs, size = crashed, map[string]int64{}
		s = open(fs)
		if v, err := s.Get([]byte("last")); err != nil || string(v) != fmt.Sprint(last-1) {
			t.Fatalf("after a power loss the last write is %s, want %d: %v", v, last-1, err)
		}
		for i := range last {
			if _, err := s.Get(fmt.Append(nil, "key", i)); err != nil {
				t.Fatalf("write %d is lost: %v", i, err)
			}
		}
	}
	s.Close()
	if limit := 2*written/walAhead + 60; grown > limit {
		t.Errorf("logs grew %d times in %d writes of %d bytes, want at most %d", grown, last, written, limit)
	}
}
