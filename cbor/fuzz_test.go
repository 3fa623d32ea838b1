package cbor_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
)

// FuzzValid holds the ways of reading against each other: what Valid accepts, the Reader reads, writes back as it was,
// and the lenient mode finds nothing wrong with; what Valid refuses, they refuse.
func FuzzValid(f *testing.F) {
	for _, c := range refused {
		f.Add(unhex(c.in))
	}
	f.Add(unhex(postHex))
	f.Add(unhex(goodLink))
	daslSeeds(f)
	daslCases(f, func(_ string, c daslCase) { f.Add(unhex(c.Data)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		err := cbor.Valid(b)
		list := cbor.Violations(b, 1<<20)
		if (err == nil) != (len(list) == 0) {
			t.Fatalf("Valid: %v, violations: %v", err, list)
		}
		r := cbor.NewReader(b)
		raw, rerr := r.Raw()
		if rerr == nil {
			rerr = r.End()
		}
		if (err == nil) != (rerr == nil) {
			t.Fatalf("Valid: %v, Raw: %v", err, rerr)
		}
		if err == nil {
			if !bytes.Equal(raw, b) {
				t.Fatalf("Raw returns %x", raw)
			}
			if again := rewrite(t, b); !bytes.Equal(again, b) {
				t.Fatalf("%x written as %x", b, again)
			}
			return
		}
		v := list[0]
		if e := err.(*cbor.Error); e.Rule != v.Rule || e.Offset != v.Offset || e.Path != v.Path {
			t.Fatalf("Valid: %v, first violation: %v", e, v)
		}
		r = cbor.NewReader(b)
		if err := pull(&r); err == nil && r.End() == nil {
			if e := cbor.Valid(b).(*cbor.Error); e.Rule != cbor.RuleDepth {
				t.Fatalf("the Reader accepts what Valid refuses: %v", e)
			}
		}
		r = cbor.NewLenientReader(b, func(*cbor.Error) {})
		_ = pull(&r)
	})
}

func daslSeeds(f *testing.F) {
	for _, s := range []string{
		"d9002a582500015512205891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
		"d82a582300122022ad631c69ee983095b5b8acd029ff94aff1dc6c48837878589a92b90dfea317",
		"a361610161620262616103", "a20a00f9490000", "bfff", "c249010000000000000000", "62c328",
		"bf61629f18017f6161ffff61611b800000000000000000d82a4100ff", "5f4101420203ff", "7f7f6161ffff",
	} {
		f.Add(unhex(s))
	}
}

func FuzzValidUTF8(f *testing.F) {
	for _, s := range []string{"", "a", "é", "日本語", "気圧が下がった 12 hPa ⛵🌧️ naïve", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaé", "\xc0\x80aaaaaaaa", "\xe0\x9f\xbfaaaaaaaa",
		"\xed\xa0\x80aaaaaaaa", "\xed\x9f\xbfaaaaaaaa", "\xee\x80\x80aaaaaaaa", "\xf0\x8f\xbf\xbfaaaaaaaa", "\xf4\x90\x80\x80aaaaaaaa", "\xc1\xbfaaaaaaaa", "\xdf\xbfaaaaaaaa", "aaaaaaaa\xe3\x81"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := cbor.ValidUTF8(b), utf8.Valid(b); got != want {
			t.Fatalf("%q: %v, not %v", b, got, want)
		}
	})
}

// All sequences of one to three bytes, and those of four that matter, at every place in a word.
func TestValidUTF8(t *testing.T) {
	check := func(seq []byte) {
		for _, pad := range []int{0, 5, 33} {
			b := append(append(bytes.Repeat([]byte("a"), pad), seq...), "aaaaaaaa"...)
			if got, want := cbor.ValidUTF8(b), utf8.Valid(b); got != want {
				t.Fatalf("%q: %v, not %v", b, got, want)
			}
			b = b[:pad+len(seq)]
			if got, want := cbor.ValidUTF8(b), utf8.Valid(b); got != want {
				t.Fatalf("%q: %v, not %v", b, got, want)
			}
		}
	}
	edges := []byte{0, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff}
	for i := range 256 {
		check([]byte{byte(i)})
		for j := range 256 {
			check([]byte{byte(i), byte(j)})
			for _, k := range edges {
				check([]byte{byte(i), byte(j), k})
				if i >= 0xf0 {
					check([]byte{byte(i), byte(j), k, 0x80})
					check([]byte{byte(i), byte(j), k, 0x41})
				}
			}
		}
	}
}
