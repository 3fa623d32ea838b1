package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/barograph/baro/cid"
)

const did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

func put(t testing.TB, s *Store, content string) *Temp {
	t.Helper()
	temp, err := s.Put(context.Background(), strings.NewReader(content), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return temp
}

func keep(t testing.TB, s *Store, did, content string) cid.CID {
	t.Helper()
	temp := put(t, s, content)
	if err := s.Commit(temp, did); err != nil {
		t.Fatal(err)
	}
	return temp.CID
}

// each runs a test on a real folder and on one in memory.
func each(t *testing.T, test func(t *testing.T, fs vfs.FS, dir string, s *Store)) {
	for name, fs := range map[string]vfs.FS{"disk": vfs.Default, "mem": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			dir := "blobs"
			if fs == vfs.Default {
				dir = filepath.Join(t.TempDir(), "a", "blobs")
			}
			s, err := Open(fs, dir)
			if err != nil {
				t.Fatal(err)
			}
			test(t, fs, dir, s)
		})
	}
}

func tempFiles(t *testing.T, s *Store) []string {
	t.Helper()
	names, err := s.fs.List(s.tmp)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestLifeCycle(t *testing.T) {
	each(t, func(t *testing.T, fs vfs.FS, dir string, s *Store) {
		for _, content := range []string{"", "x", "hello", strings.Repeat("0123456789", 20_000)} {
			temp := put(t, s, content)
			want := cid.Sum(cid.Raw, []byte(content))
			if temp.CID != want || temp.Size != int64(len(content)) || string(temp.Head) != content[:min(len(content), HeadSize)] {
				t.Fatalf("%d bytes: %v %d %q", len(content), temp.CID, temp.Size, temp.Head)
			}
			if _, ok, err := s.Has(did, want); ok || err != nil {
				t.Fatalf("there before it was committed: %v", err)
			}
			if err := s.Commit(temp, did); err != nil {
				t.Fatal(err)
			}
			temp.Discard()
			if err := s.Commit(temp, did); err == nil {
				t.Fatal("committed twice")
			}
			if n, ok, err := s.Has(did, want); n != int64(len(content)) || !ok || err != nil {
				t.Fatalf("has %d %v %v", n, ok, err)
			}
			f, err := s.Open(did, want)
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(f, []byte(content)); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if _, err := s.Open("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", want); !errors.Is(err, ErrNotFound) {
				t.Fatalf("another account has it: %v", err)
			}
		}
		if l, err := s.List(did); err != nil || len(l) != 4 {
			t.Fatalf("list: %d, %v", len(l), err)
		}
		c := cid.Sum(cid.Raw, []byte("x"))
		for range 2 {
			if err := s.Delete(did, c); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.ReadAll(did, c); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.DeleteAll(did); err != nil {
				t.Fatal(err)
			}
		}
		if l, err := s.List(did); err != nil || len(l) != 0 {
			t.Fatalf("list: %d, %v", len(l), err)
		}
		keep(t, s, did, "again")
		if names := tempFiles(t, s); len(names) != 0 {
			t.Fatalf("left over: %v", names)
		}
	})
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes on this system")
	}
	dir := t.TempDir()
	s, err := Open(vfs.Default, filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	keep(t, s, did, "secret")
	put(t, s, "temporary")
	files := 0
	filepath.Walk(filepath.Join(dir, "blobs"), func(path string, info os.FileInfo, err error) error {
		want := os.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if files != 2 {
		t.Errorf("%d files", files)
	}
}

func TestLimit(t *testing.T) {
	each(t, func(t *testing.T, fs vfs.FS, dir string, s *Store) {
		for size, ok := range map[int]bool{999: true, 1000: true, 1001: false, 300_000: false} {
			temp, err := s.Put(context.Background(), bytes.NewReader(make([]byte, size)), 1000)
			var mbe *http.MaxBytesError
			if ok != (err == nil) || !ok && (!errors.As(err, &mbe) || mbe.Limit != 1000) {
				t.Errorf("%d bytes: %v", size, err)
			}
			if ok {
				temp.Discard()
				temp.Discard()
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := s.Put(ctx, strings.NewReader("x"), 10); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := s.Put(context.Background(), iotest.ErrReader(io.ErrUnexpectedEOF), 10); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		if names := tempFiles(t, s); len(names) != 0 {
			t.Errorf("left over: %v", names)
		}
	})
}

// TestCorrupt reads files that were changed behind the store's back: the error comes before the last byte.
func TestCorrupt(t *testing.T) {
	each(t, func(t *testing.T, fs vfs.FS, dir string, s *Store) {
		content := strings.Repeat("abc", 50_000)
		c := keep(t, s, did, content)
		path, err := s.path(did, c)
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string]string{
			"flip":   "x" + content[1:],
			"cut":    content[:1000],
			"longer": content + "d",
			"empty":  "",
		} {
			f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			f.Write([]byte(bad))
			f.Close()
			b, err := s.Open(did, c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(b)
			b.Close()
			var ce *CorruptError
			if !errors.As(err, &ce) || ce.Want != c || len(bad) > 0 && len(got) >= len(bad) {
				t.Errorf("%s: read %d of %d bytes, %v", name, len(got), len(bad), err)
			}
		}
		keep(t, s, did, content) // uploading it again mends it
		if got, err := s.ReadAll(did, c); err != nil || string(got) != content {
			t.Error(err)
		}
	})
}

func TestSweep(t *testing.T) {
	each(t, func(t *testing.T, fs vfs.FS, dir string, s *Store) {
		keep(t, s, did, "kept")
		put(t, s, "left by a crash")
		s, err := Open(fs, dir) // a new process
		if err != nil {
			t.Fatal(err)
		}
		running := put(t, s, "upload that runs")
		if n, err := s.Sweep(time.Now().Add(-time.Hour)); n != 0 || err != nil {
			t.Fatalf("swept %d young ones, %v", n, err)
		}
		if n, err := s.Sweep(time.Now().Add(time.Hour)); n != 1 || err != nil {
			t.Fatalf("swept %d, %v", n, err)
		}
		if err := s.Commit(running, did); err != nil {
			t.Fatal(err)
		}
		if l, _ := s.List(did); len(l) != 2 {
			t.Fatalf("%d blobs", len(l))
		}
	})
}

var badDIDs = []string{
	"", "did:", "did:plc:", "..", "../..", "did:plc:../../etc", "did:web:a/b", "did:web:..", "did:web:a%2f..", "did:web:a\x00b",
	"did:plc:%2e%2e", "did:web:" + strings.Repeat("a", 3000), `did:web:a\b`, "did:web:COM1", "did:web:a:b", "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ",
}

// checkFolder says that whatever the DID is, its folder is a plain name two levels below the store.
func checkFolder(t *testing.T, s *Store, did string) {
	folder, err := s.folder(did)
	if err != nil {
		return
	}
	rel, ok := strings.CutPrefix(filepath.ToSlash(folder), "blobs/")
	parts := strings.Split(rel, "/")
	if !ok || len(parts) != 2 || len(parts[0]) != 2 || len(parts[1]) > 80 {
		t.Fatalf("%q lives in %q", did, folder)
	}
	for _, p := range parts {
		if strings.Trim(p, "abcdefghijklmnopqrstuvwxyz234567-") != "" {
			t.Fatalf("%q lives in %q", did, folder)
		}
	}
}

func TestBadNames(t *testing.T) {
	s, err := Open(vfs.NewMem(), "blobs")
	if err != nil {
		t.Fatal(err)
	}
	c := cid.Sum(cid.Raw, nil)
	for _, did := range badDIDs {
		checkFolder(t, s, did)
	}
	if a, b := folderName("did:web:example.com"), folderName("did:web:Example.com"); strings.EqualFold(a, b) {
		t.Errorf("two DIDs share %q", a)
	}
	if _, err := s.Open("not a did", c); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("bad DID: %v", err)
	}
	for _, c := range []cid.CID{{}, cid.Sum(cid.DagCBOR, nil)} {
		if _, err := s.Open(did, c); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func FuzzFolder(f *testing.F) {
	for _, d := range badDIDs {
		f.Add(d)
	}
	s, err := Open(vfs.NewMem(), "blobs")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, did string) { checkFolder(t, s, did) })
}

// TestPowerLoss cuts the power at each step: a committed blob is there whole, and nothing that is there is damaged.
func TestPowerLoss(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		s, err := Open(fs, "data/blobs")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var kept []cid.CID
		var crashed *vfs.MemFS
		var keptThen []cid.CID
		crashAt := rng.IntN(30)
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				for i := range 10 {
					temp := put(t, s, strings.Repeat(fmt.Sprint(w, i), 1000*i))
					if err := s.Commit(temp, did); err != nil {
						t.Error(err)
					}
					mu.Lock()
					kept = append(kept, temp.CID)
					if len(kept) == crashAt {
						keptThen = append(keptThen, kept...)
						crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if crashed == nil {
			continue
		}
		if s, err = Open(crashed, "data/blobs"); err != nil {
			t.Fatal(err)
		}
		for _, c := range keptThen {
			if _, err := s.ReadAll(did, c); err != nil {
				t.Fatalf("seed %d: %v was acked: %v", seed, c, err)
			}
		}
		all, err := s.List(did)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if _, err := s.ReadAll(did, c); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if _, err := s.Sweep(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskErrors fails each write operation in turn: Put or Commit tell, and the next try works.
func TestDiskErrors(t *testing.T) {
	fired := 0
	for n := range int32(60) {
		mem := vfs.NewMem()
		s, err := Open(mem, "blobs")
		if err != nil {
			t.Fatal(err)
		}
		inj := errorfs.OnIndex(n)
		s.fs = errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileClose || op.Kind == errorfs.OpRemove { // their errors change nothing that was promised
				return nil
			}
			return inj.MaybeError(op)
		}))
		do := func() error {
			temp, err := s.Put(context.Background(), strings.NewReader("content"), 100)
			if err != nil {
				return err
			}
			return s.Commit(temp, did)
		}
		if err := do(); err != nil {
			fired++
			if !errors.Is(err, errorfs.ErrInjected) {
				t.Errorf("operation %d: %v", n, err)
			}
		}
		s.fs = mem
		if err := do(); err != nil {
			t.Errorf("operation %d, second try: %v", n, err)
		}
		if got, err := s.ReadAll(did, cid.Sum(cid.Raw, []byte("content"))); err != nil || string(got) != "content" {
			t.Errorf("operation %d: %v", n, err)
		}
	}
	if fired < 8 {
		t.Errorf("only %d faults fired", fired)
	}
}

func ExampleStore() {
	s, err := Open(vfs.NewMem(), "blobs")
	if err != nil {
		fmt.Println(err)
		return
	}
	temp, err := s.Put(context.Background(), strings.NewReader("\x89PNG\r\n\x1a\n…"), 1<<20)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer temp.Discard()
	fmt.Println(http.DetectContentType(temp.Head), temp.Size)
	fmt.Println(s.Commit(temp, "did:plc:ewvi7nxzyoun6zhxrhs64oiz"))
	// Output:
	// image/png 11
	// <nil>
}
