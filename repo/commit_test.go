package repo_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
)

const testDID = "did:plc:7hptvnhdyeu53xp6rz7e42iy"

func newKey(t testing.TB, c keys.Curve) *keys.PrivateKey {
	t.Helper()
	k, err := keys.Generate(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func reasonOf(err error) repo.Reason {
	if v := (*repo.VerifyError)(nil); errors.As(err, &v) {
		return v.Reason
	}
	return ""
}

func TestCommitRoundTrip(t *testing.T) {
	prev := cid.Sum(cid.DagCBOR, []byte("prev"))
	for _, curve := range []keys.Curve{keys.K256, keys.P256} {
		key := newKey(t, curve)
		for _, p := range []*cid.CID{nil, &prev} {
			c := repo.Commit{DID: testDID, Rev: "3lscuqc52or2x", Data: cid.Sum(cid.DagCBOR, []byte("data")), Prev: p}
			if err := c.Sign(key); err != nil {
				t.Fatal(err)
			}
			b := c.Encode()
			got, err := repo.DecodeCommit(b)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Encode(), b) || got.CID() != cid.Sum(cid.DagCBOR, b) {
				t.Fatal("changed by decoding and encoding")
			}
			if err := got.Verify(key.Public()); err != nil {
				t.Fatal(err)
			}
			if err := got.Verify(newKey(t, curve).Public()); reasonOf(err) != repo.ReasonSignature {
				t.Fatalf("verified with another key: %v", err)
			}
			got.Rev = "3lscuqc52or3x"
			if err := got.Verify(key.Public()); reasonOf(err) != repo.ReasonSignature {
				t.Fatalf("verified after a change: %v", err)
			}
		}
	}
}

func FuzzCommit(f *testing.F) {
	c := repo.Commit{DID: testDID, Rev: "3lscuqc52or2x", Data: cid.Sum(cid.DagCBOR, nil), Version: 3, Sig: make([]byte, 64)}
	f.Add(c.Encode())
	c.Prev = &c.Data
	f.Add(c.Encode())
	c.Version, c.Rev = 2, ""
	f.Add(c.Encode())
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := repo.DecodeLegacyCommit(b)
		if err != nil {
			if reasonOf(err) == "" {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		if got := c.Encode(); !bytes.Equal(got, b) {
			t.Fatalf("decoded %x, encoded %x", b, got)
		}
	})
}
