package repo_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
)

// junk returns a block of n bytes that nothing links to.
func junk(i, n int) []byte { return append(bytes.Repeat([]byte{'x'}, n-8), fmt.Sprintf("%08d", i)...) }

func appendJunk(file []byte, count, size int) []byte {
	for i := range count {
		b := junk(i, size)
		file = car.AppendBlock(file, cid.Sum(cid.DagCBOR, b), b)
	}
	return file
}

// between puts blocks between a file's header and its other blocks.
func between(t *testing.T, file, blocks []byte) []byte {
	s, err := car.NewScanner(file, car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return append(append(append([]byte(nil), file[:s.Offset()]...), blocks...), file[s.Offset():]...)
}

func TestUnlinkedQuota(t *testing.T) {
	file, _, _ := whole(t, 1000)
	_, blocks := readCAR(t, file)
	_, _, r, err := read(file, repo.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	records, linked := r.Report().Records, r.Report().Bytes
	var again []byte // every block once more
	for c, b := range blocks {
		again = car.AppendBlock(again, c, b)
	}
	const mib = 1 << 20
	for _, c := range []struct {
		name   string
		extra  []byte
		o      repo.ReadOptions
		reason repo.Reason
	}{
		{"nothing, none allowed", nil, repo.ReadOptions{MaxUnlinked: -1}, ""},
		{"one byte, none allowed", appendJunk(nil, 1, 8), repo.ReadOptions{MaxUnlinked: -1}, repo.ReasonExtraBlocks},
		{"a mebibyte", appendJunk(nil, 128, mib/128), repo.ReadOptions{}, ""},
		{"a mebibyte and a little", appendJunk(nil, 129, mib/128), repo.ReadOptions{}, repo.ReasonExtraBlocks},
		{"a tenth", appendJunk(nil, 1, int(linked/10)), repo.ReadOptions{MaxUnlinked: 1}, ""},
		{"more than a tenth", appendJunk(nil, 1, int(linked/10)+1), repo.ReadOptions{MaxUnlinked: 1}, repo.ReasonExtraBlocks},
		{"as much as allowed", appendJunk(nil, 4, 50_000), repo.ReadOptions{MaxUnlinked: 200_000}, ""},
		{"all once more", again, repo.ReadOptions{}, ""},
		{"all once more, little allowed", again, repo.ReadOptions{MaxUnlinked: 1000}, repo.ReasonExtraBlocks},
		{"all many times", bytes.Repeat(again, 20), repo.ReadOptions{}, repo.ReasonExtraBlocks},
		{"more than is held", appendJunk(nil, 10, 500_000), repo.ReadOptions{MaxBuffer: mib, MaxUnlinked: 100 * mib}, repo.ReasonBuffer},
	} {
		for _, at := range []string{"behind", "before"} {
			b := append(append([]byte(nil), file...), c.extra...)
			want := c.reason
			if at == "before" {
				b = between(t, file, c.extra)
			} else if want == repo.ReasonBuffer {
				want = "" // nothing is held at the end of a streamable file
			}
			_, _, r, err := read(b, c.o)
			if reasonOf(err) != want || (err == nil) != (want == "") {
				t.Errorf("%s, %s: %v, want %q", c.name, at, err, want)
				continue
			}
			rep := r.Report()
			if want == "" && (rep.Records != records || !rep.OK()) || want != "" && (rep.Failed() == nil || rep.Failed().Name != want) {
				t.Errorf("%s, %s: %+v", c.name, at, rep)
			}
		}
	}
}

// A reader that is sent blocks without end gives up, wherever they come.
func TestEndlessFiles(t *testing.T) {
	r := repotest.NewBuilder()
	file := r.CAR(r.Node(cid.CID{}, r.Entry(repotest.Path("com.example.a", 0, 0))))
	s, err := car.NewScanner(file, car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() io.Reader { return &endless{size: 10_000} }
	same := func() io.Reader { return &endless{size: 10_000, same: true} }
	tiny := func() io.Reader { return &endless{size: 8} }
	empty := func() io.Reader { return &endless{} }
	for _, c := range []struct {
		name   string
		r      io.Reader
		reason repo.Reason
	}{
		{"unlinked at the end", io.MultiReader(bytes.NewReader(file), fresh()), repo.ReasonExtraBlocks},
		{"unlinked at the start", io.MultiReader(bytes.NewReader(file[:s.Offset()]), fresh()), repo.ReasonBuffer},
		{"the same at the end", io.MultiReader(bytes.NewReader(file), same()), repo.ReasonExtraBlocks},
		{"the same at the start", io.MultiReader(bytes.NewReader(file[:s.Offset()]), same()), repo.ReasonBuffer},
		{"tiny ones at the end", io.MultiReader(bytes.NewReader(file), tiny()), repo.ReasonExtraBlocks},
		{"tiny ones at the start", io.MultiReader(bytes.NewReader(file[:s.Offset()]), tiny()), repo.ReasonBuffer},
		{"empty ones at the end", io.MultiReader(bytes.NewReader(file), empty()), repo.ReasonExtraBlocks},
		{"empty ones at the start", io.MultiReader(bytes.NewReader(file[:s.Offset()]), empty()), repo.ReasonBuffer},
	} {
		in := &io.LimitedReader{R: c.r, N: 16 << 20} // no more is read than this, the overhead of tiny blocks included
		rd, err := repo.Open(in, repo.ReadOptions{MaxBuffer: 4 << 20})
		if err == nil {
			for _, e := range rd.Records() {
				err = e
			}
		}
		if reasonOf(err) != c.reason {
			t.Errorf("%s: %v, want %s", c.name, err, c.reason)
		}
	}
}

// endless is a stream of blocks.
type endless struct {
	n    int
	size int // of each block; 0 stands for the empty block
	same bool
	rest []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		if !e.same {
			e.n++
		}
		var b []byte
		if e.size > 0 {
			b = junk(e.n, e.size)
		}
		e.rest = car.AppendBlock(nil, cid.Sum(cid.DagCBOR, b), b)
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}
