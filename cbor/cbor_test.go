package cbor_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

func Example() {
	b := cbor.AppendMap(nil, 2)
	b = cbor.AppendText(b, "text")
	b = cbor.AppendText(b, "hello")
	b = cbor.AppendText(b, "langs")
	b = cbor.AppendArray(b, 1)
	b = cbor.AppendText(b, "en")

	r := cbor.NewReader(b)
	n, err := r.Map()
	var key []byte
	for i := 0; i < n && err == nil; i++ {
		if key, err = r.MapKey(key); err != nil {
			break
		}
		switch string(key) {
		case "text":
			var s string
			s, err = r.Text()
			fmt.Println(s)
		default:
			err = r.Skip()
		}
	}
	fmt.Println(err, r.End())
	// Output:
	// hello
	// <nil> <nil>
}

func ExampleValid() {
	err := cbor.Valid([]byte("\xa1\x61a\x82\x01\xf9\x3e\x00"))
	var e *cbor.Error
	fmt.Println(errors.As(err, &e), e.Rule, e.Path, e.Offset)
	fmt.Println(err)
	// Output:
	// true float a[1] 5
	// cbor: float in a[1] (byte 5)
}

func ExampleViolations() {
	for _, e := range cbor.Violations([]byte("\xa2\x61b\x18\x01\x61a\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"), 10) {
		fmt.Println(e)
	}
	// Output:
	// cbor: not-minimal in b (byte 3)
	// cbor: key-order: key "a" (byte 5)
	// cbor: float in a (byte 7)
}

func ExampleNewLenientReader() {
	// An array of indefinite length, with a float in it.
	r := cbor.NewLenientReader([]byte("\x9f\x01\xf9\x3e\x00\xff"), func(e *cbor.Error) { fmt.Println(e) })
	n, _ := r.Array()
	one, _ := r.Int()
	half, _ := r.Float()
	fmt.Println(n, one, half, r.Break(), r.End())
	// Output:
	// cbor: indefinite (byte 0)
	// cbor: float in [1] (byte 2)
	// -1 1 1.5 true <nil>
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

const goodLink = "d82a5825 0001711220 0000000000000000000000000000000000000000000000000000000000000000"

// Each line of this table is a broken rule: the input, the rule, and where.
var refused = []struct {
	in   string
	rule cbor.Rule
	off  int
	path string
}{
	{"", cbor.RuleTruncated, 0, ""},
	{"18", cbor.RuleTruncated, 0, ""},
	{"1901", cbor.RuleTruncated, 0, ""},
	{"1a010203", cbor.RuleTruncated, 0, ""},
	{"1b01020304050607", cbor.RuleTruncated, 0, ""},
	{"6161 00", cbor.RuleTrailing, 2, ""},
	{"62 61", cbor.RuleTruncated, 0, ""},
	{"42 61", cbor.RuleTruncated, 0, ""},
	{"7bffffffffffffffff", cbor.RuleTruncated, 0, ""},
	{"5bffffffffffffffff", cbor.RuleTruncated, 0, ""},
	{"82 01", cbor.RuleTruncated, 0, ""},
	{"a1 6161", cbor.RuleTruncated, 3, "a"},
	{"a2 6161 01", cbor.RuleTruncated, 0, ""},
	{"a2 6161 01 6162", cbor.RuleTruncated, 6, "b"},
	{"9a00020001", cbor.RuleElements, 0, ""},
	{"ba00020001", cbor.RuleElements, 0, ""},
	{"9bffffffffffffffff", cbor.RuleElements, 0, ""},
	{"9affffffff", cbor.RuleElements, 0, ""},
	{"1817", cbor.RuleMinimal, 0, ""},
	{"1900ff", cbor.RuleMinimal, 0, ""},
	{"1a0000ffff", cbor.RuleMinimal, 0, ""},
	{"1b00000000ffffffff", cbor.RuleMinimal, 0, ""},
	{"3817", cbor.RuleMinimal, 0, ""},
	{"5801 00", cbor.RuleMinimal, 0, ""},
	{"7801 61", cbor.RuleMinimal, 0, ""},
	{"9801 00", cbor.RuleMinimal, 0, ""},
	{"b801 6161 00", cbor.RuleMinimal, 0, ""},
	{"a1 780161 00", cbor.RuleMinimal, 1, ""},
	{"d9002a 5825 0001711220" + strings.Repeat("00", 32), cbor.RuleMinimal, 0, ""},
	{"9fff", cbor.RuleIndefinite, 0, ""},
	{"bfff", cbor.RuleIndefinite, 0, ""},
	{"5fff", cbor.RuleIndefinite, 0, ""},
	{"7fff", cbor.RuleIndefinite, 0, ""},
	{"a1 7f6161ff 00", cbor.RuleIndefinite, 1, ""},
	{"1c", cbor.RuleReserved, 0, ""},
	{"1f", cbor.RuleReserved, 0, ""},
	{"7e", cbor.RuleReserved, 0, ""},
	{"ff", cbor.RuleReserved, 0, ""},
	{"81 ff", cbor.RuleReserved, 1, "[0]"},
	{"fc", cbor.RuleReserved, 0, ""},
	{"1b8000000000000000", cbor.RuleIntRange, 0, ""},
	{"3b8000000000000000", cbor.RuleIntRange, 0, ""},
	{"f90000", cbor.RuleFloat, 0, ""},
	{"fa00000000", cbor.RuleFloat, 0, ""},
	{"81 81 fb3ff8000000000000", cbor.RuleFloat, 2, "[0][0]"},
	{"f9", cbor.RuleTruncated, 0, ""},
	{"f7", cbor.RuleSimple, 0, ""},
	{"e0", cbor.RuleSimple, 0, ""},
	{"f820", cbor.RuleSimple, 0, ""},
	{"c0 6161", cbor.RuleTag, 0, ""},
	{"d9d9f700", cbor.RuleTag, 0, ""},
	{"d82a 6161", cbor.RuleCID, 0, ""},
	{"d82a 40", cbor.RuleCID, 0, ""},
	{"d82a", cbor.RuleTruncated, 0, ""},
	{"d82a 5825 0001711220", cbor.RuleTruncated, 0, ""},
	{"d82a 5824 01711220" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"d82a 5825 01 01711220" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"d82a 5825 00 01701220" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"d82a 5825 00 01711320" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"61 ff", cbor.RuleUTF8, 0, ""},
	{"63 eda080", cbor.RuleUTF8, 0, ""},
	{"62 c080", cbor.RuleUTF8, 0, ""},
	{"69 6161616161616161ff", cbor.RuleUTF8, 0, ""},
	{"a1 61ff 00", cbor.RuleUTF8, 1, ""},
	{"a1 00 00", cbor.RuleKeyType, 1, ""},
	{"a1 4161 00", cbor.RuleKeyType, 1, ""},
	{"a1 60 00", cbor.RuleKeyEmpty, 1, ""},
	{"a2 6162 00 6161 00", cbor.RuleKeyOrder, 4, ""},
	{"a2 626161 00 6161 00", cbor.RuleKeyOrder, 5, ""},
	{"a2 6161 00 6161 00", cbor.RuleKeyDuplicate, 4, ""},
	{"a1 6162 a2 6162 00 6161 00", cbor.RuleKeyOrder, 7, "b"},
	{"a1 792001" + strings.Repeat("61", 8193) + "00", cbor.RuleKeySize, 1, ""},
	{strings.Repeat("81", 33) + "00", cbor.RuleDepth, 32, strings.Repeat("[0]", 32)},
	{strings.Repeat("a16161", 32) + "80", cbor.RuleDepth, 96, strings.TrimPrefix(strings.Repeat(".a", 32), ".")},
	{"a1 6461206263 82 00 f7", cbor.RuleSimple, 8, `["a bc"][1]`},
}

func TestRefused(t *testing.T) {
	for _, c := range refused {
		in := unhex(c.in)
		err := cbor.Valid(in)
		var e *cbor.Error
		if !errors.As(err, &e) {
			t.Errorf("%.40s: Valid says %v, want %s", c.in, err, c.rule)
			continue
		}
		if e.Rule != c.rule || e.Offset != c.off || e.Path != c.path {
			t.Errorf("%.40s: %s at %d in %q, want %s at %d in %q", c.in, e.Rule, e.Offset, e.Path, c.rule, c.off, c.path)
		}
		// A Reader finds the same, whichever way it goes through.
		r := cbor.NewReader(in)
		err = pull(&r)
		if err == nil {
			err = r.End()
		}
		if !errors.As(err, &e) {
			if c.rule != cbor.RuleDepth {
				t.Errorf("%.40s: Reader says %v, want %s", c.in, err, c.rule)
			}
			continue
		}
		if e.Rule != c.rule || e.Offset != c.off || e.Path != c.path {
			t.Errorf("%.40s: Reader: %s at %d in %q, want %s at %d in %q", c.in, e.Rule, e.Offset, e.Path, c.rule, c.off, c.path)
		}
		// And so does the lenient mode, which goes on unless the rule is hard.
		list := cbor.Violations(in, 100)
		if len(list) == 0 {
			t.Errorf("%.40s: no violations", c.in)
			continue
		}
		if v := list[0]; v.Rule != c.rule || v.Offset != c.off || v.Path != c.path {
			t.Errorf("%.40s: violation %s at %d in %q, want %s at %d in %q", c.in, v.Rule, v.Offset, v.Path, c.rule, c.off, c.path)
		}
	}
}

// pull reads one value by the methods of its kind.
func pull(r *cbor.Reader) error {
	k, err := r.Kind()
	if err != nil {
		return err
	}
	switch k {
	case cbor.KindInt:
		_, err = r.Int()
	case cbor.KindBytes:
		_, err = r.Bytes()
	case cbor.KindText:
		_, err = r.TextBytes()
	case cbor.KindBool:
		_, err = r.Bool()
	case cbor.KindNull:
		err = r.Null()
	case cbor.KindLink:
		_, err = r.Link()
	case cbor.KindArray:
		var n int
		n, err = r.Array()
		for i := 0; i < n && err == nil; i++ {
			err = pull(r)
		}
	case cbor.KindMap:
		var n int
		n, err = r.Map()
		var key []byte
		for i := 0; i < n && err == nil; i++ {
			if key, err = r.MapKey(key); err == nil {
				err = pull(r)
			}
		}
	default:
		err = r.Skip()
	}
	return err
}

func TestAccepted(t *testing.T) {
	for _, s := range []string{
		"00", "17", "1818", "18ff", "190100", "1affffffff", "1b0000000100000000", "1b7fffffffffffffff",
		"20", "3b7fffffffffffffff", "40", "4100", "60", "6161", "63e28ca8", "80", "8100", "a0", "a1616100",
		"f4", "f5", "f6", goodLink, "a2 6162 00 626161 00", strings.Repeat("81", 32) + "00",
		"a1 792000" + strings.Repeat("61", 8192) + "00", "f6",
	} {
		in := unhex(s)
		if err := cbor.Valid(in); err != nil {
			t.Errorf("%.40s: %v", s, err)
		}
		r := cbor.NewReader(in)
		if err := pull(&r); err != nil || r.End() != nil {
			t.Errorf("%.40s: Reader: %v, %v", s, err, r.End())
		}
		if v := cbor.Violations(in, 1); len(v) != 0 {
			t.Errorf("%.40s: %v", s, v)
		}
		if n, err := cbor.Scan(append(in, 0xff)); err != nil || n != len(in) {
			t.Errorf("%.40s: Scan = %d, %v", s, n, err)
		}
	}
}

func TestReaderMismatch(t *testing.T) {
	b := unhex("a1 6161 82 00 6162")
	r := cbor.NewReader(b)
	r.Map()
	r.MapKey(nil)
	r.Array()
	r.Skip()
	_, err := r.Int()
	if want := "cbor: type: text where an integer is wanted in a[1] (byte 5)"; err == nil || err.Error() != want {
		t.Fatalf("%v, want %s", err, want)
	}
	if s, err := r.Text(); err != nil || s != "b" {
		t.Fatalf("%q, %v after a failed read", s, err)
	}
}

func TestLenient(t *testing.T) {
	in := unhex("bf 6162 9f 1801 7f6161ff ff 6161 1b8000000000000000 00 d82a4100 ff")
	var got []string
	r := cbor.NewLenientReader(in, func(e *cbor.Error) { got = append(got, string(e.Rule)+"@"+e.Path) })
	raw, err := r.Raw()
	if err != nil || !bytes.Equal(raw, in) {
		t.Fatalf("%x, %v", raw, err)
	}
	want := "indefinite@ indefinite@b not-minimal@b[0] indefinite@b[1] key-order@ int-range@a key-type@ cid@"
	if s := strings.Join(got, " "); !strings.HasPrefix(s, strings.TrimSuffix(want, " cid@")) || !strings.Contains(s, "cid@") {
		t.Fatalf("got  %s\nwant %s", s, want)
	}

	got = nil
	r = cbor.NewLenientReader(in, func(e *cbor.Error) { got = append(got, string(e.Rule)+"@"+e.Path) })
	if n, err := r.Map(); n != -1 || err != nil {
		t.Fatal(n, err)
	}
	if k, err := r.MapKey(nil); string(k) != "b" || err != nil {
		t.Fatal(k, err)
	}
	if n, err := r.Array(); n != -1 || err != nil {
		t.Fatal(n, err)
	}
	if r.Break() {
		t.Fatal("break too early")
	}
	if v, err := r.Int(); v != 1 || err != nil {
		t.Fatal(v, err)
	}
	if s, err := r.Text(); s != "a" || err != nil {
		t.Fatal(s, err)
	}
	if !r.Break() {
		t.Fatal("no break")
	}
	if s := strings.Join(got, " "); s != "indefinite@ indefinite@b not-minimal@b[0] indefinite@b[1]" {
		t.Fatal(s)
	}
}

func TestInts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Int64().Draw(t, "v")
		b := cbor.AppendInt(nil, v)
		r := cbor.NewReader(b)
		if got, err := r.Int(); err != nil || got != v || r.End() != nil {
			t.Fatalf("%d -> %x -> %d, %v", v, b, got, err)
		}
	})
	for _, v := range []int64{0, 23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64, -1, -24, -25, -256, -257, math.MinInt64} {
		r := cbor.NewReader(cbor.AppendInt(nil, v))
		if got, err := r.Int(); err != nil || got != v {
			t.Errorf("%d -> %d, %v", v, got, err)
		}
	}
}

func TestAppendRead(t *testing.T) {
	c := cid.Sum(cid.Raw, []byte("x"))
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		p := rapid.SliceOf(rapid.Byte()).Draw(t, "p")
		v := rapid.Bool().Draw(t, "v")
		b := cbor.AppendArray(nil, 5)
		b = cbor.AppendText(b, s)
		b = cbor.AppendBytes(b, p)
		b = cbor.AppendBool(b, v)
		b = cbor.AppendNull(b)
		b = cbor.AppendLink(b, c)
		if err := cbor.Valid(b); err != nil {
			t.Fatal(err)
		}
		r := cbor.NewReader(b)
		n, _ := r.Array()
		s2, err1 := r.Text()
		p2, err2 := r.Bytes()
		v2, err3 := r.Bool()
		err4 := r.Null()
		c2, err5 := r.Link()
		if err := errors.Join(err1, err2, err3, err4, err5, r.End()); err != nil {
			t.Fatal(err)
		}
		if n != 5 || s2 != s || !bytes.Equal(p2, p) || v2 != v || c2 != c {
			t.Fatal("values differ")
		}
	})
}

func TestNoAllocs(t *testing.T) {
	post := unhex(postHex)
	if n := testing.AllocsPerRun(100, func() { _ = cbor.Valid(post) }); n != 0 {
		t.Errorf("Valid: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		r := cbor.NewReader(post)
		if err := pull(&r); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("Reader: %v allocations", n)
	}
}

func TestFloat(t *testing.T) {
	for in, want := range map[string]float64{
		"f90000": 0, "f93c00": 1, "f9c400": -4, "f97bff": 65504, "f90001": 5.960464477539063e-8, "f90400": 0.00006103515625, "f97c00": math.Inf(1),
		"f9fc00": math.Inf(-1), "fa47c35000": 100000, "fb3ff199999999999a": 1.1, "fb7ff0000000000000": math.Inf(1),
	} {
		r := cbor.NewLenientReader(unhex(in), nil)
		if got, err := r.Float(); got != want || err != nil || r.End() != nil {
			t.Errorf("%s: %v, %v, want %v", in, got, err, want)
		}
		r = cbor.NewReader(unhex(in))
		var e *cbor.Error
		if _, err := r.Float(); !errors.As(err, &e) || e.Rule != cbor.RuleFloat || r.Offset() != 0 {
			t.Errorf("%s: the strict reader says %v", in, err)
		}
	}
	for _, in := range []string{"", "01", "f9", "f900", "fb00", "f4", "a0"} {
		r := cbor.NewLenientReader(unhex(in), nil)
		if v, err := r.Float(); err == nil || r.Offset() != 0 {
			t.Errorf("%s: read as %v", in, v)
		}
	}
	r := cbor.NewLenientReader(unhex("f97e00"), nil)
	if v, err := r.Float(); !math.IsNaN(v) || err != nil {
		t.Errorf("NaN: %v, %v", v, err)
	}
}

// A value is scanned as deep as what is around it leaves room for.
func TestWithin(t *testing.T) {
	b := unhex("8181 81 00")
	tooDeep := append(bytes.Repeat([]byte{0x81}, cbor.MaxDepth), 0x80)
	for _, depth := range []int{0, -1, math.MinInt} {
		if _, err := cbor.ScanWithin(tooDeep, depth); err == nil {
			t.Errorf("ScanWithin %d: 33 containers accepted", depth)
		}
		r := cbor.NewReader(tooDeep)
		if _, err := r.RawWithin(depth); err == nil {
			t.Errorf("RawWithin %d: 33 containers accepted", depth)
		}
	}
	for depth, ok := range map[int]bool{-1: true, 0: true, cbor.MaxDepth - 3: true, cbor.MaxDepth - 2: false, cbor.MaxDepth: false} {
		if n, err := cbor.ScanWithin(b, depth); (err == nil) != ok || ok && n != len(b) {
			t.Errorf("ScanWithin %d: %d, %v", depth, n, err)
		}
		r := cbor.NewReader(b)
		if raw, err := r.RawWithin(depth); (err == nil) != ok || ok && len(raw) != len(b) {
			t.Errorf("RawWithin %d: %x, %v", depth, raw, err)
		}
	}
}

// A list that is full still tells what ended the reading, and nobody hears of the rest.
func TestViolationsLimit(t *testing.T) {
	b := unhex("84 f7 f7 f7 62 61")
	for limit, want := range []string{"", "truncated", "simple truncated", "simple simple truncated", "simple simple simple truncated", "simple simple simple truncated"} {
		var got []string
		for _, e := range cbor.Violations(b, limit) {
			got = append(got, string(e.Rule))
			if e.Rule.Hard() != (e.Rule == cbor.RuleTruncated) {
				t.Errorf("%s is hard: %v", e.Rule, e.Rule.Hard())
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("at most %d: %s, want %s", limit, s, want)
		}
	}
}

// The limits themselves are allowed, and one more is not.
func TestLimits(t *testing.T) {
	list := append(cbor.AppendArray(nil, cbor.MaxElements), make([]byte, cbor.MaxElements)...)
	if err := cbor.Valid(list); err != nil {
		t.Error(err)
	}
	more := append(cbor.AppendArray(nil, cbor.MaxElements+1), make([]byte, cbor.MaxElements+1)...)
	entries := cbor.AppendMap(nil, cbor.MaxElements+1)
	for i := range cbor.MaxElements + 1 {
		entries = cbor.AppendInt(cbor.AppendText(entries, fmt.Sprintf("%06d", i)), 0)
	}
	open := append(append([]byte{0x9f}, make([]byte, cbor.MaxElements+1)...), 0xff)
	for name, b := range map[string][]byte{"items": more, "entries": entries, "items of no announced number": open} {
		list := cbor.Violations(b, 10)
		if len(list) == 0 || list[len(list)-1].Rule != cbor.RuleElements {
			t.Errorf("%s: %v", name, list)
		}
	}
	if list := cbor.Violations(append(open[:cbor.MaxElements+1], 0xff), 10); len(list) != 1 || list[0].Rule != cbor.RuleIndefinite {
		t.Errorf("%v", list)
	}
}
