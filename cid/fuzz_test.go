package cid_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
)

// FuzzParse holds strings against bytes: what one form accepts, the other writes.
func FuzzParse(f *testing.F) {
	f.Add(cid.Sum(cid.DagCBOR, nil).String())
	f.Add("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
	f.Add("")
	for _, name := range []string{"valid", "invalid"} {
		for line := range strings.Lines(string(fixtures.Read(f, "atproto-interop/syntax/cid_syntax_"+name+".txt"))) {
			f.Add(strings.TrimSuffix(line, "\n"))
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := cid.Parse(s)
		other, berr := cid.Parse([]byte(s))
		var text cid.CID
		terr := text.UnmarshalText([]byte(s))
		if (err == nil) != (berr == nil) || (err == nil) != (terr == nil) || other != c || text != c {
			t.Fatalf("Parse(%q) = %v, %v; of bytes %v, %v; as text %v, %v", s, c, err, other, berr, text, terr)
		}
		if err != nil {
			if c.Defined() {
				t.Fatalf("Parse(%q) = %v, %v", s, c, err)
			}
			return
		}
		if c.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, c)
		}
		if back, err := cid.FromBytes(c.Bytes()); err != nil || back != c {
			t.Errorf("%s came back as %v, %v", c, back, err)
		}
	})
}

// FuzzFromBytes holds the binary form against the little that it may be.
func FuzzFromBytes(f *testing.F) {
	good := cid.Sum(cid.Raw, nil)
	f.Add(good[:])
	f.Add(good[:35])
	f.Add(append(good.Bytes(), 0))
	for i := range 4 {
		b := good.Bytes()
		b[i] ^= 0x24 // raw becomes DAG-CBOR
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := cid.FromBytes(b)
		want := len(b) == 36 && (bytes.HasPrefix(b, []byte("\x01\x71\x12\x20")) || bytes.HasPrefix(b, []byte("\x01\x55\x12\x20")))
		if (err == nil) != want {
			t.Fatalf("FromBytes(%x): %v", b, err)
		}
		if err != nil {
			return
		}
		if back, err := cid.Parse(c.String()); err != nil || back != c || !bytes.Equal(c.Bytes(), b) || cid.FromDigest(c.Codec(), c.Digest()) != c {
			t.Errorf("%x came back as %v, %v", b, back, err)
		}
	})
}
