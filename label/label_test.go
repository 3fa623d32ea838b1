package label_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/label"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
)

func key(t testing.TB, c keys.Curve, seed string) *keys.PrivateKey {
	k, err := keys.Generate(c, rand.NewChaCha8(sha256.Sum256([]byte(seed))))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const (
	labeler = "did:web:labels.example.com"
	subject = "at://did:web:alice.example.com/com.example.note/1"
	aCID    = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
)

func sample() label.Label {
	return label.Label{Src: labeler, URI: subject, Val: "spam", Cts: "2026-11-21T08:00:00.000Z"}
}

func full() label.Label {
	l := sample()
	l.CID, l.Exp, l.Neg = aCID, "2027-01-01T00:00:00Z", true
	return l
}

func reason(err error) label.Reason {
	if e, ok := errors.AsType[*label.Error](err); ok {
		return e.Reason
	}
	return ""
}

func TestSignAndVerify(t *testing.T) {
	for _, c := range []keys.Curve{keys.K256, keys.P256} {
		k, stranger := key(t, c, "a"), key(t, c, "b")
		for _, l := range []label.Label{sample(), full()} {
			if err := l.Sign(k); err != nil {
				t.Fatal(err)
			}
			back, err := label.Decode(l.Append(nil))
			if err != nil || !cmp.Equal(back, l) {
				t.Errorf("decoded %+v, %v", back, err)
			}
			j, err := json.Marshal(l)
			var fromJSON label.Label
			if err := errors.Join(err, json.Unmarshal(j, &fromJSON)); err != nil || !cmp.Equal(fromJSON, l) {
				t.Errorf("from JSON %+v, %v", fromJSON, err)
			}
			if err := back.Verify(k.Public()); err != nil {
				t.Error(err)
			}
			if err := back.Verify(stranger.Public()); reason(err) != label.ReasonSignature || !errors.Is(err, keys.ErrBadSignature) {
				t.Errorf("a stranger's: %v", err)
			}
			if err := back.Verify(nil); reason(err) != label.ReasonNoKey {
				t.Errorf("no key: %v", err)
			}
			// Each field is signed.
			for name, change := range map[string]func(*label.Label){
				"src": func(l *label.Label) { l.Src = "did:web:other.example.com" }, "uri": func(l *label.Label) { l.URI += "2" },
				"val": func(l *label.Label) { l.Val = "ham" }, "cts": func(l *label.Label) { l.Cts = "2026-11-21T08:00:00Z" },
				"neg": func(l *label.Label) { l.Neg = !l.Neg }, "neg false": func(l *label.Label) { l.Neg, l.NegFalse = false, !l.NegFalse },
				"exp":  func(l *label.Label) { l.Exp = "2028-01-01T00:00:00Z" },
				"cid":  func(l *label.Label) { l.CID = strings.Replace(aCID, "dfay", "dfaz", 1) },
				"sig":  func(l *label.Label) { l.Sig = bytes.Clone(l.Sig); l.Sig[9] ^= 1 },
				"size": func(l *label.Label) { l.Sig = l.Sig[:63] },
			} {
				bad := l
				if change(&bad); reason(bad.Verify(k.Public())) != label.ReasonSignature {
					t.Errorf("%s: %v", name, bad.Verify(k.Public()))
				}
			}
			l.Sig = nil
			if err := l.Verify(k.Public()); reason(err) != label.ReasonUnsigned {
				t.Errorf("unsigned: %v", err)
			}
		}
	}
}

// Some labelers write "neg": false, and sign it.
func TestNegFalse(t *testing.T) {
	k := key(t, keys.K256, "a")
	l := sample()
	l.Ver, l.NegFalse = label.Version, true
	sig, err := k.Sign(l.AppendSigned(nil))
	if err != nil {
		t.Fatal(err)
	}
	l.Sig = sig
	back, err := label.Decode(l.Append(nil))
	if err != nil || back.Verify(k.Public()) != nil || !back.Active(time.Time{}) {
		t.Errorf("%+v: %v, %v", back, err, back.Verify(k.Public()))
	}
	if err := back.Sign(k); err != nil || bytes.Contains(back.Append(nil), []byte("neg")) {
		t.Errorf("signed anew: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		want   label.Reason
		change func(*label.Label)
	}{
		{"", func(l *label.Label) {}},
		{"", func(l *label.Label) { l.URI = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa" }},
		{"", func(l *label.Label) { l.URI = "https://example.com/x" }},
		{"", func(l *label.Label) { l.Val = strings.Repeat("x", 128) }},
		{label.ReasonVersion, func(l *label.Label) { l.Ver = 0 }},
		{label.ReasonVersion, func(l *label.Label) { l.Ver = 2 }},
		{label.ReasonSource, func(l *label.Label) { l.Src = "labels.example.com" }},
		{label.ReasonSubject, func(l *label.Label) { l.URI = "" }},
		{label.ReasonSubject, func(l *label.Label) { l.URI = "at://nobody" }},
		{label.ReasonSubject, func(l *label.Label) { l.URI = "did:plc" }},
		{label.ReasonCID, func(l *label.Label) { l.CID = "bafy" }},
		{label.ReasonValue, func(l *label.Label) { l.Val = "" }},
		{label.ReasonValue, func(l *label.Label) { l.Val = strings.Repeat("x", 129) }},
		{label.ReasonCreated, func(l *label.Label) { l.Cts = "today" }},
		{label.ReasonExpires, func(l *label.Label) { l.Exp = "never" }},
	} {
		l := sample()
		l.Ver = label.Version
		tt.change(&l)
		if err := l.Check(); reason(err) != tt.want || (err == nil) != (tt.want == "") {
			t.Errorf("%+v: %v, want %q", l, err, tt.want)
		}
		if err := l.Sign(key(t, keys.K256, "a")); tt.want != label.ReasonVersion && reason(err) != tt.want {
			t.Errorf("signing %+v: %v, want %q", l, err, tt.want)
		}
	}
	for v, want := range map[string]bool{"spam": true, "not-safe": true, "!warn": true, "": false, "!": false, "Spam": false, "-a": false, "a-": false, "a b": false, "a1": false, "é": false} {
		if label.Recommended(v) != want {
			t.Errorf("%q: %v", v, !want)
		}
	}
}

func TestDecode(t *testing.T) {
	l := full()
	if err := l.Sign(key(t, keys.K256, "a")); err != nil {
		t.Fatal(err)
	}
	good := l.Append(nil)
	// A field that nobody knows is not signed.
	tree, err := data.Decode(good)
	if err != nil {
		t.Fatal(err)
	}
	m := tree.(map[string]any)
	m["$type"], m["later"] = "com.atproto.label.defs#label", int64(3)
	extra, err := data.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := label.Decode(extra); err != nil || !cmp.Equal(back, l) {
		t.Errorf("with unknown fields: %+v, %v", back, err)
	}
	delete(m, "val")
	missing, err := data.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	long := sample()
	long.URI = strings.Repeat("x", label.MaxSize)
	for name, b := range map[string][]byte{"nothing": nil, "a text": cbor.AppendText(nil, "x"), "without a value": missing, "more after it": append(bytes.Clone(good), 0xa0),
		"cut": good[:len(good)-1], "too long": long.Append(nil), "a number for a text": append(cbor.AppendText(cbor.AppendMap(nil, 1), "src"), 1)} {
		if l, err := label.Decode(b); reason(err) != label.ReasonEncoding || err.Error() == "" {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	for _, j := range []string{`{"sig":{"$bytes":"*"}}`, `{"src":1}`} {
		if err := json.Unmarshal([]byte(j), new(label.Label)); reason(err) != label.ReasonEncoding {
			t.Errorf("%s: %v", j, err)
		}
	}
}

// TestAgainstLexicon holds the encoding against the schema.
func TestAgainstLexicon(t *testing.T) {
	cat := lexicon.NewCatalog()
	if err := cat.AddFS(lexicons.FS); err != nil {
		t.Fatal(err)
	}
	message := func(l label.Label) []byte {
		b := cbor.AppendMap(nil, 2)
		b = cbor.AppendInt(cbor.AppendText(b, "seq"), 1)
		return l.Append(cbor.AppendArray(cbor.AppendText(b, "labels"), 1))
	}
	for _, l := range []label.Label{sample(), full()} {
		if err := l.Sign(key(t, keys.P256, "a")); err != nil {
			t.Fatal(err)
		}
		if err := cat.ValidateMessage("com.atproto.label.subscribeLabels", "#labels", message(l)); err != nil {
			t.Error(err)
		}
	}
	bad := sample()
	bad.Src = "nobody"
	if cat.ValidateMessage("com.atproto.label.subscribeLabels", "#labels", message(bad)) == nil {
		t.Error("a bad source was accepted: the test doesn't test")
	}
}

// A set holds what a look through everything that was said would find.
func TestSetAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	at := func(i int) string { return start.Add(time.Duration(i) * time.Hour).Format(time.RFC3339) }
	for range 200 {
		var set label.Set
		var said []label.Label
		for range rnd.IntN(30) {
			l := label.Label{Src: fmt.Sprint("did:web:l", rnd.IntN(2)), URI: fmt.Sprint("did:web:a", rnd.IntN(2)), Val: string(rune('a' + rnd.IntN(2))), Cts: at(rnd.IntN(6)), Neg: rnd.IntN(3) == 0}
			if rnd.IntN(3) == 0 {
				l.Exp = at(6 + rnd.IntN(4))
			}
			if rnd.IntN(20) == 0 {
				l.Cts = "?"
			}
			said = append(said, l)
			set.Add(l)
		}
		now := start.Add(time.Duration(6+rnd.IntN(5)) * time.Hour)
		var want []label.Label
		for i, l := range said {
			newest := true
			for k, m := range said {
				same := l.Src == m.Src && l.URI == m.URI && l.Val == m.Val
				lt, _ := time.Parse(time.RFC3339, l.Cts)
				mt, _ := time.Parse(time.RFC3339, m.Cts)
				if same && (mt.After(lt) || mt.Equal(lt) && k > i) {
					newest = false
				}
			}
			exp, err := time.Parse(time.RFC3339, l.Exp)
			if newest && !l.Neg && (err != nil || now.Before(exp)) {
				want = append(want, l)
			}
		}
		slices.SortFunc(want, func(a, b label.Label) int { return strings.Compare(a.URI+a.Src+a.Val, b.URI+b.Src+b.Val) })
		if got := set.Active(now); !cmp.Equal(got, want) {
			t.Fatalf("%s", cmp.Diff(want, got))
		}
		for _, l := range want {
			if got, ok := set.Get(l.Key()); !ok || !cmp.Equal(got, l) {
				t.Fatalf("%v, %v of the key of %v", got, ok, l)
			}
		}
	}
	l := sample()
	l.Exp = "whenever"
	if l.Active(start) {
		t.Error("an expiry that can't be read lets a label hold")
	}
}

// What is decoded encodes to the same label, and only labels that verify have a signature of the key.
func FuzzDecode(f *testing.F) {
	k := key(f, keys.K256, "a")
	for _, l := range []label.Label{sample(), full()} {
		f.Add(l.Append(nil))
		if err := l.Sign(k); err != nil {
			f.Fatal(err)
		}
		f.Add(l.Append(nil))
	}
	f.Add(append(cbor.AppendText(cbor.AppendMap(nil, 1), "neg"), 0xf4))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := label.Decode(b)
		if err != nil {
			return
		}
		again, err := label.Decode(l.Append(nil))
		if err != nil || !cmp.Equal(again, l) {
			t.Fatalf("%+v became %+v, %v", l, again, err)
		}
		if l.Verify(k.Public()) == nil && (l.Check() != nil || l.Sig == nil) {
			t.Errorf("%+v verifies", l)
		}
	})
}

func ExampleLabel_Verify() {
	k, err := keys.Generate(keys.K256, rand.NewChaCha8([32]byte{1})) // use crypto/rand
	if err != nil {
		panic(err)
	}
	l := label.Label{Src: "did:web:labels.example.com", URI: "did:web:alice.example.com", Val: "spam", Cts: "2026-11-21T08:00:00Z"}
	if err := l.Sign(k); err != nil {
		panic(err)
	}
	fmt.Println(l.Verify(k.Public()))
	var set label.Set
	set.Add(l)
	l.Neg, l.Cts = true, "2026-11-21T09:00:00Z"
	fmt.Println(l.Verify(k.Public()))
	fmt.Println(len(set.Active(time.Now())), set.Add(l), len(set.Active(time.Now())))
	// Output:
	// <nil>
	// label: signature: signature does not verify
	// 1 true 0
}
