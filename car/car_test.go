package car_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
)

func Example() {
	note := cbor.AppendText(nil, "hello")
	c := cid.Sum(cid.DagCBOR, note)
	var b bytes.Buffer
	w, err := car.NewWriter(&b, c)
	if err == nil {
		err = w.Write(c, note)
	}
	fmt.Println(err)

	r, err := car.NewReader(&b, car.Options{})
	fmt.Println(r.Root() == c, err)
	for block, err := range r.Blocks() {
		fmt.Println(block.CID == c, len(block.Data), err)
	}
	// Output:
	// <nil>
	// true <nil>
	// true 6 <nil>
}

func ExampleParse() {
	note := cbor.AppendText(nil, "hello")
	c := cid.Sum(cid.DagCBOR, note)
	archive := car.AppendBlock(car.AppendHeader(nil, c), c, note)
	archive[len(archive)-1]++ // "hellp"
	_, blocks, err := car.Parse(archive, car.Options{})
	fmt.Println(err)
	for _, err := range blocks {
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// car: hash in block 0: bafyreiglqnkzhzh2gyz4zfy7zpi6wcamumrclarakshlocd35l4o63l76q (byte 59)
}

func ExampleReader_Kept() {
	var archive []byte
	archive = car.AppendHeader(archive)
	for _, word := range []string{"one", "two", "three"} {
		archive = car.AppendBlock(archive, cid.Sum(cid.Raw, []byte(word)), []byte(word))
	}
	r, err := car.NewReader(bytes.NewReader(archive), car.Options{Keep: 1 << 20, MaxBlocks: 3})
	if err != nil {
		panic(err)
	}
	defer r.Release()
	var two int64
	for {
		_, data, err := r.Next()
		if err == io.EOF {
			break
		}
		if string(data) == "two" {
			two = r.Offset() - int64(len(data))
		}
	}
	fmt.Printf("%s\n", r.Kept(two, 3))
	// Output: two
}

// all reads an archive in all ways and returns what they agree on.
func all(t testing.TB, b []byte, o car.Options) (roots []cid.CID, blocks []car.Block, err error) {
	roots, seq, err := car.Parse(b, o)
	if err == nil {
		for block, e := range seq {
			if e != nil {
				err = e
				break
			}
			blocks = append(blocks, block)
		}
	}
	for name, r := range map[string]io.Reader{
		"bytes": nil, "whole": bytes.NewReader(b), "one byte": iotest.OneByteReader(bytes.NewReader(b)), "data with error": iotest.DataErrReader(bytes.NewReader(b)),
	} {
		var roots2 []cid.CID
		n := 0
		var cr *car.Reader
		var err2 error
		if r == nil {
			cr, err2 = car.NewBytesReader(b, o)
		} else {
			cr, err2 = car.NewReader(r, o)
		}
		if err2 == nil {
			roots2 = cr.Roots()
			for block, e := range cr.Blocks() {
				if e != nil {
					err2 = e
					break
				}
				if n >= len(blocks) || block.CID != blocks[n].CID || !bytes.Equal(block.Data, blocks[n].Data) {
					t.Fatalf("%s: block %d differs", name, n)
				}
				if !bytes.Equal(cr.Ahead(0), block.Data) {
					t.Fatalf("%s: block %d isn't the last one", name, n)
				}
				for i, want := range blocks[n:] {
					ahead := cr.Ahead(i)
					if ahead == nil {
						break
					}
					if !bytes.Equal(ahead, want.Data) {
						t.Fatalf("%s: block %d behind block %d differs", name, i, n)
					}
				}
				n++
			}
		}
		if n != len(blocks) || len(roots) != len(roots2) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("%s: %d blocks, %d roots, %v; of the slice: %d, %d, %v", name, n, len(roots2), err2, len(blocks), len(roots), err)
		}
	}
	return roots, blocks, err
}

// The archive of greenground is of an early format. Nothing is wrong with it as an archive; its commit has no rev and an
// old link to a previous commit, which is for package repo to refuse.
func TestFixtures(t *testing.T) {
	for name, want := range map[string]int{"empty": 2, "tiny": 12, "little": 375, "greenground": 4} {
		file := name
		if name == "greenground" {
			file += ".repo"
		}
		b := fixtures.Read(t, "cars/"+file+".car")
		roots, blocks, err := all(t, b, car.Options{})
		if err != nil || len(roots) != 1 || len(blocks) != want {
			t.Errorf("%s: %d roots, %d blocks, %v, want %d", name, len(roots), len(blocks), err, want)
		}
		out := car.AppendHeader(nil, roots...)
		found := false
		for _, block := range blocks {
			if err := cbor.Valid(block.Data); err != nil {
				t.Errorf("%s: %s: %v", name, block.CID, err)
			}
			out = car.AppendBlock(out, block.CID, block.Data)
			found = found || block.CID == roots[0]
		}
		if !bytes.Equal(out, b) || !found {
			t.Errorf("%s: written anew it differs, or has no root block", name)
		}
	}
}

// TestTruncated cuts a real repository at every byte: a cut between blocks is an end, every other one an error.
func TestTruncated(t *testing.T) {
	b := fixtures.Read(t, "cars/tiny.car")
	ends := map[int]bool{len(b): true}
	s, err := car.NewScanner(b, car.Options{})
	if len(s.Roots()) != 1 || s.Roots()[0] != s.Root() {
		t.Errorf("roots %v", s.Roots())
	}
	for err == nil {
		ends[s.Offset()] = true
		_, err = s.Next()
	}
	for n := range b {
		_, _, err := all(t, b[:n], car.Options{})
		if ends[n] {
			if err != nil {
				t.Errorf("cut at %d: %v", n, err)
			}
			continue
		}
		var e *car.Error
		if !errors.As(err, &e) || e.Rule != car.RuleTruncated || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func archive(header string, blocks ...string) []byte {
	b := append([]byte{byte(len(header))}, header...)
	for _, s := range blocks {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

var hello = cid.Sum(cid.Raw, []byte("hello"))

const emptyHeader = "\xa2\x65roots\x80\x67version\x01"

var refused = []struct {
	name  string
	in    []byte
	o     car.Options
	rule  car.Rule
	block int
	off   int64
}{
	{"nothing", nil, car.Options{}, car.RuleTruncated, -1, 0},
	{"header of no bytes", []byte{0}, car.Options{}, car.RuleHeaderSize, -1, 0},
	{"header over 4 KiB", []byte{0x81, 0x20}, car.Options{}, car.RuleHeaderSize, -1, 0},
	{"header that isn't there", []byte{0x80, 0x20}, car.Options{}, car.RuleTruncated, -1, 0},
	{"overlong length", append([]byte{0x91, 0x00}, emptyHeader...), car.Options{}, car.RuleVarint, -1, 0},
	{"length of ten bytes", append(bytes.Repeat([]byte{0x80}, 9), 1), car.Options{}, car.RuleVarint, -1, 0},
	{"length without end", bytes.Repeat([]byte{0xff}, 100), car.Options{}, car.RuleVarint, -1, 0},
	{"header not CBOR", archive("\xff"), car.Options{}, car.RuleHeader, -1, 0},
	{"header not a map", archive("\x80"), car.Options{}, car.RuleHeader, -1, 0},
	{"header with bytes behind", archive(emptyHeader + "\x00"), car.Options{}, car.RuleHeader, -1, 0},
	{"no roots", archive("\xa1\x67version\x01"), car.Options{}, car.RuleHeader, -1, 0},
	{"no version", archive("\xa1\x65roots\x80"), car.Options{}, car.RuleHeader, -1, 0},
	{"version 2", archive("\xa2\x65roots\x80\x67version\x02"), car.Options{}, car.RuleVersion, -1, 0},
	{"version as text", archive("\xa2\x65roots\x80\x67version\x611"), car.Options{}, car.RuleHeader, -1, 0},
	{"roots null", archive("\xa2\x65roots\xf6\x67version\x01"), car.Options{}, car.RuleHeader, -1, 0},
	{"root as text", archive("\xa2\x65roots\x81\x61x\x67version\x01"), car.Options{}, car.RuleHeader, -1, 0},
	{"keys unsorted", archive("\xa2\x67version\x01\x65roots\x80"), car.Options{}, car.RuleHeader, -1, 0},
	{"another field", archive("\xa3\x65roots\x80\x67version\x01\x69charlatan\x01"), car.Options{}, car.RuleHeader, -1, 0},
	{"section of no bytes", archive(emptyHeader, ""), car.Options{}, car.RuleCID, 0, 18},
	{"section too short for a CID", archive(emptyHeader, string(hello[:35])), car.Options{}, car.RuleCID, 0, 18},
	{"CIDv0", archive(emptyHeader, "\x12\x20"+strings.Repeat("x", 40)), car.Options{}, car.RuleCID, 0, 18},
	{"identity hash", archive(emptyHeader, "\x01\x71\x00\x05"+strings.Repeat("x", 40)), car.Options{}, car.RuleCID, 0, 18},
	{"other codec", archive(emptyHeader, "\x01\x70"+string(hello[2:])+"hello"), car.Options{}, car.RuleCID, 0, 18},
	{"wrong content", archive(emptyHeader, string(hello[:])+"hello", string(hello[:])+"hallo"), car.Options{}, car.RuleHash, 1, 60},
	{"no content", archive(emptyHeader, string(hello[:])), car.Options{}, car.RuleHash, 0, 18},
	{"block over 1 MiB", append(archive(emptyHeader), 0xa5, 0x80, 0x40), car.Options{}, car.RuleBlockSize, 0, 18},
	{"huge block", append(archive(emptyHeader), bytes.Repeat([]byte{0xff}, 8)...), car.Options{}, car.RuleTruncated, 0, 18},
	{"largest length", append(append(archive(emptyHeader), bytes.Repeat([]byte{0xff}, 8)...), 0x7f), car.Options{}, car.RuleBlockSize, 0, 18},
	{"largest length, any allowed", append(append(archive(emptyHeader), bytes.Repeat([]byte{0xff}, 8)...), 0x7f), car.Options{MaxBlock: math.MaxInt}, car.RuleBlockSize, 0, 18},
	{"largest length, no bound", append(append(archive(emptyHeader), bytes.Repeat([]byte{0xff}, 8)...), 0x7f), car.Options{MaxBlock: -1}, car.RuleBlockSize, 0, 18},
	{"block of 256 PiB, no bound", append(append(archive(emptyHeader), bytes.Repeat([]byte{0xff}, 8)...), 0x03), car.Options{MaxBlock: -1}, car.RuleTruncated, 0, 18},
	{"block that isn't there", append(archive(emptyHeader), 0xa4, 0x80, 0x40), car.Options{}, car.RuleTruncated, 0, 18},
	{"block over the limit", archive(emptyHeader, string(hello[:])+"hello"), car.Options{MaxBlock: 4}, car.RuleBlockSize, 0, 18},
	{"too many blocks", archive(emptyHeader, string(hello[:])+"hello", string(hello[:])+"hello"), car.Options{MaxBlocks: 1}, car.RuleBlocks, 1, 60},
	{"too many bytes", archive(emptyHeader, string(hello[:])+"hello", string(hello[:])+"hello"), car.Options{MaxBytes: 101}, car.RuleBytes, 1, 60},
	{"header over all bytes", archive(emptyHeader), car.Options{MaxBytes: 17}, car.RuleBytes, -1, 0},
}

func TestRefused(t *testing.T) {
	for _, c := range refused {
		_, _, err := all(t, c.in, c.o)
		var e *car.Error
		if !errors.As(err, &e) || e.Rule != c.rule || e.Block != c.block || e.Offset != c.off {
			t.Errorf("%s: %v, want %s in block %d at %d", c.name, err, c.rule, c.block, c.off)
		}
	}
}

func TestAccepted(t *testing.T) {
	section := string(hello[:]) + "hello"
	nothing := cid.Sum(cid.Raw, nil)
	for name, c := range map[string]struct {
		in            []byte
		o             car.Options
		roots, blocks int
	}{
		"no roots, no blocks": {archive(emptyHeader), car.Options{}, 0, 0},
		"two roots":           {car.AppendHeader(nil, hello, nothing), car.Options{}, 2, 0},
		"the same twice":      {archive(emptyHeader, section, section), car.Options{MaxBlocks: 2, MaxBytes: 102, MaxBlock: 5}, 0, 2},
		"an empty block":      {archive(emptyHeader, string(nothing[:])), car.Options{}, 0, 1},
		"unverified":          {archive(emptyHeader, string(hello[:])+"hallo"), car.Options{Unverified: true}, 0, 1},
	} {
		roots, blocks, err := all(t, c.in, c.o)
		if err != nil || len(roots) != c.roots || len(blocks) != c.blocks {
			t.Errorf("%s: %d roots, %d blocks, %v", name, len(roots), len(blocks), err)
		}
	}
	big := bytes.Repeat([]byte("x"), cbor.MaxRecord)
	c := cid.Sum(cid.Raw, big)
	in := car.AppendBlock(car.AppendHeader(nil, c), c, big)
	r, err := car.NewReader(iotest.HalfReader(bytes.NewReader(in)), car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, data, err := r.Next(); err != nil || got != c || !bytes.Equal(data, big) {
		t.Error("block of exactly 1 MiB: ", err)
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []car.Block
		for _, b := range rapid.SliceOf(rapid.SliceOf(rapid.Byte())).Draw(t, "blocks") {
			want = append(want, car.Block{CID: cid.Sum(cid.DagCBOR, b), Data: b})
		}
		var buf bytes.Buffer
		w, err := car.NewWriter(&buf, hello)
		if err != nil {
			t.Fatal(err)
		}
		size := buf.Len()
		for _, b := range want {
			if err := w.Write(b.CID, b.Data); err != nil {
				t.Fatal(err)
			}
			if size += car.BlockSize(len(b.Data)); size != buf.Len() {
				t.Fatalf("BlockSize is wrong for %d bytes", len(b.Data))
			}
		}
		r, err := car.NewReader(&buf, car.Options{})
		if err != nil || r.Root() != hello {
			t.Fatal(err)
		}
		n := 0
		for b, err := range r.Blocks() {
			if err != nil || b.CID != want[n].CID || !bytes.Equal(b.Data, want[n].Data) {
				t.Fatalf("block %d: %v", n, err)
			}
			n++
		}
		if n != len(want) {
			t.Fatalf("%d blocks of %d", n, len(want))
		}
	})
}

func TestReaderErrors(t *testing.T) {
	boom := errors.New("boom")
	b := fixtures.Read(t, "cars/tiny.car")
	for _, n := range []int{0, 1, 30, 59, 100, 1000} {
		r, err := car.NewReader(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(boom)), car.Options{})
		for err == nil {
			_, _, err = r.Next()
		}
		if !errors.Is(err, boom) {
			t.Errorf("%d: %v", n, err)
		}
		if r != nil {
			if _, _, again := r.Next(); again != err {
				t.Errorf("%d: %v, then %v", n, err, again)
			}
		}
	}
}

func TestWriterErrors(t *testing.T) {
	if _, err := car.NewWriter(iotest.TruncateWriter(failing{}, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := car.NewWriter(failing{}); err == nil {
		t.Error("no error from the header")
	}
	w, err := car.NewWriter(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(cid.CID{}, nil); !errors.Is(err, cid.ErrInvalid) {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A declared length costs nothing before its bytes have come.
func TestNoAllocationAhead(t *testing.T) {
	in := append(archive(emptyHeader), 0xa4, 0x80, 0x40) // 1 MiB, it says
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		r, err := car.NewReader(bytes.NewReader(in), car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r.Next()
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > 100_000 {
		t.Errorf("%d bytes allocated for each", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range refused {
		if len(c.in) < 1000 {
			f.Add(c.in)
		}
	}
	f.Add(car.AppendBlock(car.AppendHeader(nil, hello), hello, []byte("hello")))
	f.Add(archive(emptyHeader, string(hello[:])+"hello", string(hello[:])+"hello"))
	f.Add(fixtures.Read(f, "cars/tiny.car"))
	f.Add(fixtures.Read(f, "cars/empty.car"))
	f.Fuzz(func(t *testing.T, b []byte) {
		roots, blocks, err := all(t, b, car.Options{MaxBlock: 4096})
		if err != nil {
			var e *car.Error
			if !errors.As(err, &e) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		out := car.AppendHeader(nil, roots...)
		for _, block := range blocks {
			if !block.CID.Verify(block.Data) {
				t.Fatalf("%s isn't verified", block.CID)
			}
			out = car.AppendBlock(out, block.CID, block.Data)
		}
		if !bytes.Equal(out, b) {
			t.Fatalf("%x written as %x", b, out)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	in := fixtures.Read(b, "cars/little.car")
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := car.NewReader(bytes.NewReader(in), car.Options{})
		for err == nil {
			_, _, err = r.Next()
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
}

// Skip goes the same way as Next, and the two can be mixed.
func TestSkip(t *testing.T) {
	archive := car.AppendHeader(nil, cid.Sum(cid.DagCBOR, nil))
	var datas [][]byte
	for i := range 7 {
		datas = append(datas, bytes.Repeat([]byte{byte(i)}, 40*i))
		archive = car.AppendBlock(archive, cid.Sum(cid.DagCBOR, datas[i]), datas[i])
	}
	for turns := range 1 << len(datas) {
		s, err := car.NewScanner(archive, car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, data := range datas {
			var c cid.CID
			var got []byte
			if turns>>i&1 == 0 {
				var b car.Block
				b, err = s.Next()
				c, got = b.CID, b.Data
			} else {
				var at int
				at, err = s.Skip()
				c, got = cid.CID(archive[at:]), archive[at+cid.Size:s.Offset()]
			}
			if err != nil || c != cid.Sum(cid.DagCBOR, data) || !bytes.Equal(got, data) {
				t.Fatalf("%b: block %d is %s, %x, %v", turns, i, c, got, err)
			}
		}
		if _, err := s.Skip(); err != io.EOF {
			t.Fatal(err)
		}
	}
	// Faults are told alike, but for hashes.
	for i := range archive {
		bad := bytes.Clone(archive)
		bad[i] ^= 0x81
		next, err := car.NewScanner(bad[:len(bad)-i%3], car.Options{Unverified: true})
		skip := next
		for err == nil {
			var serr error
			_, err = next.Next()
			if _, serr = skip.Skip(); fmt.Sprint(err) != fmt.Sprint(serr) {
				t.Fatalf("byte %d: next %v, skip %v", i, err, serr)
			}
		}
	}
}

func BenchmarkScanner(b *testing.B) {
	in := fixtures.Read(b, "cars/little.car")
	for name, o := range map[string]car.Options{"verified": {}, "unverified": {Unverified: true}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				s, err := car.NewScanner(in, o)
				for err == nil {
					_, err = s.Next()
				}
				if err != io.EOF {
					b.Fatal(err)
				}
			}
		})
	}
}
