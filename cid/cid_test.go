package cid_test

import (
	"bytes"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/barograph/baro/cid"
)

var std = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func Example() {
	c := cid.Sum(cid.DagCBOR, []byte{0xa0})
	fmt.Println(c)
	fmt.Println(c.Verify([]byte{0xa0}), c.Verify([]byte{0x80}))
	// Output:
	// bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua
	// true false
}

func ExampleParse() {
	c, err := cid.Parse("bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity")
	fmt.Println(c.Codec() == cid.Raw, err)
	_, err = cid.Parse("QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR") // version 0
	fmt.Println(errors.Is(err, cid.ErrInvalid), err)
	// Output:
	// true <nil>
	// true invalid CID: 46 characters, want 59
}

func TestRoundTrip(t *testing.T) {
	for i := range 256 {
		for _, codec := range []cid.Codec{cid.DagCBOR, cid.Raw} {
			c := cid.Sum(codec, []byte{byte(i)})
			s := c.String()
			if want := "b" + std.EncodeToString(c[:]); s != want {
				t.Fatalf("String() = %s, want %s", s, want)
			}
			back, err := cid.Parse(s)
			if err != nil || back != c {
				t.Fatalf("Parse(%s) = %v, %v", s, back, err)
			}
			back, err = cid.FromBytes(c.Bytes())
			if err != nil || back != c || back.Codec() != codec {
				t.Fatalf("FromBytes(%x) = %v, %v", c.Bytes(), back, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	good := cid.Sum(cid.DagCBOR, nil)
	s := good.String()
	for name, in := range map[string]string{
		"empty":         "",
		"short":         s[:58],
		"long":          s + "a",
		"v0":            "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR",
		"upper":         "B" + strings.ToUpper(s[1:]),
		"upper digits":  "b" + strings.ToUpper(s[1:]),
		"trailing bits": s[:58] + "b",
		"bad character": s[:20] + "1" + s[21:],
		"padding":       s[:58] + "=",
	} {
		if c, err := cid.Parse(in); err == nil {
			t.Errorf("%s: Parse(%q) = %v, want an error", name, in, c)
		}
	}
	for i, v := range map[int]byte{0: 2, 1: 0x70, 2: 0x1e, 3: 31} {
		b := bytes.Clone(good[:])
		b[i] = v
		if c, err := cid.FromBytes(b); err == nil || c.Defined() {
			t.Errorf("FromBytes with byte %d = %#x: %v, %v, want an error and no CID", i, v, c, err)
		}
		if _, err := cid.Parse("b" + std.EncodeToString(b)); err == nil {
			t.Errorf("Parse with byte %d = %#x: want an error", i, v)
		}
	}
	if (cid.CID{}).Defined() || (cid.CID{}).String() != "" || (cid.CID{}).Verify(nil) {
		t.Error("the zero CID must be undefined")
	}
}

func TestAllocs(t *testing.T) {
	c := cid.Sum(cid.Raw, []byte("x"))
	s := c.String()
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { c, _ = cid.Parse(s); buf = c.AppendString(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations per parse and append, want 0", n)
	}
}

func BenchmarkParse(b *testing.B) {
	s := cid.Sum(cid.Raw, []byte("x")).String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cid.Parse(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendString(b *testing.B) {
	c := cid.Sum(cid.Raw, []byte("x"))
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		buf = c.AppendString(buf[:0])
	}
}
