package difftest

import (
	"testing"

	gocid "github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
)

// FuzzCID compares CIDs, as strings and as bytes, with go-cid, which reads the whole general format.
func FuzzCID(f *testing.F) {
	for _, s := range cidSeeds(f) {
		f.Add(s, uint64(0))
	}
	f.Fuzz(func(t *testing.T, s string, seed uint64) {
		if seed != 0 {
			s = mutateCID(s, seed)
		}
		compareCID(t, s)
	})
}

func TestCIDMutations(t *testing.T) {
	for _, s := range cidSeeds(t) {
		for seed := range rounds(300) {
			compareCID(t, mutateCID(s, uint64(seed)+1))
		}
	}
}

// compareCID compares s as a string and as bytes.
func compareCID(t testing.TB, s string) {
	t.Helper()
	mine, peer := askCID(s)
	cidTable.judge(t, s, mine, peer)
	mine, peer = askCIDBytes(s)
	cidBytesTable.judge(t, s, mine, peer)
	if mine.err == nil && peer.err == nil {
		c, _ := cid.FromBytes([]byte(s))
		if d, _ := gocid.Cast([]byte(s)); c.String() != d.String() {
			t.Errorf("%q is written as %q, by go-cid as %q", s, c, d)
		}
	}
}

// askCID and askCIDBytes ask both sides for the bytes of a CID.
func askCID(s string) (mine, peer answer) {
	mine = ask(func() (any, error) {
		c, err := cid.Parse(s)
		return string(c[:]), err
	})
	peer = ask(func() (any, error) {
		c, err := gocid.Decode(s)
		return string(c.Bytes()), err
	})
	return mine, peer
}

func askCIDBytes(s string) (mine, peer answer) {
	mine = ask(func() (any, error) {
		c, err := cid.FromBytes([]byte(s))
		return string(c[:]), err
	})
	peer = ask(func() (any, error) {
		c, err := gocid.Cast([]byte(s))
		return string(c.Bytes()), err
	})
	return mine, peer
}

func cidSeeds(t testing.TB) []string {
	list := oddCIDStrings()
	for _, name := range []string{"valid", "invalid"} {
		list = append(list, lines(fixtures.Read(t, "atproto-interop/syntax/cid_syntax_"+name+".txt"))...)
	}
	for _, c := range []cid.CID{cid.Sum(cid.Raw, nil), cid.Sum(cid.DagCBOR, []byte("x"))} {
		list = append(list, c.String(), string(c[:]))
		for _, base := range []multibase.Encoding{multibase.Base58BTC, multibase.Base64, multibase.Base16, multibase.Base32Upper, multibase.Base32pad, multibase.Base36, multibase.Base32hex} {
			s, err := multibase.Encode(base, c[:])
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, s)
		}
	}
	for _, b := range oddCIDs {
		list = append(list, string(b))
	}
	return list
}

// oddCIDStrings gives the odd CIDs in base32.
func oddCIDStrings() []string {
	var list []string
	for _, b := range oddCIDs {
		s, err := multibase.Encode(multibase.Base32, b)
		if err != nil {
			panic(err)
		}
		list = append(list, s)
	}
	return append(list, "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG")
}

func mutateCID(s string, seed uint64) string {
	r := seeded(seed)
	if r.IntN(3) > 0 {
		return string(scramble([]byte(s), r))
	}
	if _, b, err := multibase.Decode(s); err == nil { // the same or a slightly different CID in another base
		if r.IntN(2) == 0 {
			b = scramble(b, r)
		}
		if s, err := multibase.Encode(pick[multibase.Encoding](r, multibase.Base32, multibase.Base32, multibase.Base58BTC, multibase.Base64pad, multibase.Base32Upper), b); err == nil {
			return s
		}
	}
	// Another last character: the same bytes, but for bits that no byte has.
	if s == "" {
		return s
	}
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	return s[:len(s)-1] + alphabet[r.IntN(32):][:1]
}

// goCIDAccepts is the predicate of what go-cid accepts and we don't, if the CID is of the described kind.
func goCIDAccepts(kind func(s string, c gocid.Cid) bool) func(s string, mine, peer answer) bool {
	return func(s string, mine, peer answer) bool {
		if mine.err == nil || peer.err != nil {
			return false
		}
		c, err := gocid.Cast([]byte(peer.value.(string)))
		return err == nil && kind(s, c)
	}
}

// ofProtocol reports whether a CID is of the only kind that the protocol uses.
func ofProtocol(c gocid.Cid) bool {
	p := c.Prefix()
	return p.Version == 1 && (p.Codec == 0x71 || p.Codec == 0x55) && p.MhType == 0x12 && p.MhLength == 32
}

var cidKinds = []difference[string]{
	{
		name: "version 0", right: ours, rule: "version 1 only, " + specCID,
		holds: goCIDAccepts(func(_ string, c gocid.Cid) bool { return c.Version() == 0 }),
	},
	{
		name: "other codecs", right: ours, rule: "codec 0x71 or 0x55, " + specCID,
		holds: goCIDAccepts(func(_ string, c gocid.Cid) bool { return c.Version() == 1 && c.Type() != 0x71 && c.Type() != 0x55 }),
	},
	{
		name: "other hashes and lengths", right: ours, rule: "SHA-256 of 32 bytes, " + specCID + "; atproto has no BLAKE3",
		holds: goCIDAccepts(func(_ string, c gocid.Cid) bool {
			p := c.Prefix()
			return p.Version == 1 && (p.Codec == 0x71 || p.Codec == 0x55) && (p.MhType != 0x12 || p.MhLength != 32)
		}),
	},
}

var cidBytesTable = table[string]{name: "go-cid bytes", list: func() []difference[string] {
	list := append([]difference[string]{}, cidKinds...)
	list[0].shown = []string{string(oddCIDs[0])}
	list[1].shown = []string{string(oddCIDs[1]), string(oddCIDs[8])}
	list[2].shown = []string{string(oddCIDs[2]), string(oddCIDs[3]), string(oddCIDs[5]), string(oddCIDs[6])}
	return list
}()}

var cidTable = table[string]{name: "go-cid", list: func() []difference[string] {
	list := append([]difference[string]{}, cidKinds...)
	odd := oddCIDStrings()
	list[0].shown = []string{odd[len(odd)-1]}
	list[1].shown = []string{odd[1], odd[8]}
	list[2].shown = []string{odd[2], odd[3], odd[5], odd[6]}
	upper, _ := multibase.Encode(multibase.Base32Upper, cid.Sum(cid.Raw, nil).Bytes())
	btc, _ := multibase.Encode(multibase.Base58BTC, cid.Sum(cid.Raw, nil).Bytes())
	return append(list, difference[string]{
		name: "other bases", right: ours, rule: "lower-case base32 without padding, " + specCID,
		holds: goCIDAccepts(func(s string, c gocid.Cid) bool { return ofProtocol(c) && s[0] != 'b' }),
		shown: []string{upper, btc},
	}, difference[string]{
		name: "other spellings in base32", right: ours, rule: "one spelling for each CID, " + specCID + ": lower case, unused bits zero",
		holds: goCIDAccepts(func(s string, c gocid.Cid) bool { return ofProtocol(c) && s[0] == 'b' && c.String() != s }),
		shown: []string{cid.Sum(cid.Raw, nil).String()[:58] + "v"},
	})
}()}
