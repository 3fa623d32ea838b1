package data

import (
	"bytes"
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

func nested(n int, inner []byte) []byte { return append(bytes.Repeat([]byte{0x81}, n), inner...) }

type deep struct {
	Sub   *deep    `json:"sub,omitzero"`
	Blob  *Blob    `json:"blob,omitzero"`
	Blobs []Blob   `json:"blobs,omitzero"`
	Texts []string `json:"texts,omitzero"`
	Raw   Raw      `json:"raw,omitzero"`
	Extra Extra    `json:"-"`
}

// All that reads a value, or writes one, agrees with the validator on how deep it may be, also where a blob with fields of its
// own is at the bottom.
func TestDepthEverywhere(t *testing.T) {
	plain := Blob{Ref: cid.Sum(cid.Raw, nil), MimeType: "image/png", Size: 1}
	inner := [][]byte{{0x80}, {0xa0}}
	for _, depth := range []int{0, 5, 27, 30} {
		b := plain
		if depth > 0 {
			b.Extra.Set("x", nested(depth, []byte{0x80}))
		}
		raw, err := b.AppendCBOR(nil)
		if err != nil {
			t.Fatal(err)
		}
		inner = append(inner, raw)
	}
	for depth := range 34 {
		for k, in := range inner {
			raw := nested(depth, in)
			b := append(cbor.AppendText(cbor.AppendMap(nil, 1), "a"), raw...)
			want := cbor.Valid(b) == nil
			got := map[string]error{}
			_, got["Decode"] = Decode(b)
			_, got["AppendJSON"] = AppendJSON(nil, b)
			got["Walk"] = Walk(b, func([]Step, *Leaf) error { return nil })
			got["Blobs"] = nil
			for _, err := range Blobs(b) {
				if err != nil {
					got["Blobs"] = err
				}
			}
			got["Unmarshal"] = Unmarshal(b, new(deep))
			if l := cbor.Violations(b, 1); len(l) > 0 {
				got["Violations"] = l[0]
			}
			if cbor.Valid(raw) == nil {
				_, got["Encode"] = Encode(map[string]any{"a": Raw(raw)})
				_, got["Append"] = Append(nil, &deep{Extra: NewExtra(ExtraField{"a", raw})})
			}
			for name, err := range got {
				if (err == nil) != want {
					t.Errorf("%d arrays around value %d: %s says %v, want ok %t", depth, k, name, err, want)
				}
			}
		}
	}

	extra := plain
	extra.Extra.Set("x", nested(25, []byte{0x80}))
	for name, v := range map[string]deep{"blob": {Blob: &plain}, "blobs": {Blobs: []Blob{plain}}, "extra": {Blob: &extra},
		"texts": {Texts: []string{"a"}}, "no texts": {Texts: []string{}}, "raw": {Raw: Raw{0x80}}, "nothing": {}} {
		for depth := 1; depth < 36; depth++ {
			js, err := AppendStructJSON(nil, &v) // under other limits
			if err != nil {
				t.Fatal(err)
			}
			b, err := Transcoder{MaxDepth: maxDepthJSON}.AppendCBOR(nil, js)
			if err != nil {
				t.Fatal(err)
			}
			want := cbor.Valid(b) == nil
			out, err := Append(nil, &v)
			if (err == nil) != want || want && !bytes.Equal(out, b) {
				t.Errorf("%s in %d structs: Append says %v, want ok %t", name, depth, err, want)
			}
			if err := Unmarshal(b, new(deep)); (err == nil) != want {
				t.Errorf("%s in %d structs: Unmarshal says %v, want ok %t", name, depth, err, want)
			}
			c := v
			v = deep{Sub: &c}
		}
	}

	for name, tree := range map[string]any{"blob": plain, "pointer": &plain, "extra": extra, "raw": Raw(nested(20, []byte{0x80}))} {
		for depth := range 34 {
			if b, err := Encode(tree); err == nil && cbor.Valid(b) != nil || err != nil && depth < 5 {
				t.Errorf("%s in %d arrays: Encode gives %x, %v", name, depth, b, err)
			}
			tree = []any{tree}
		}
	}
}

// An Extra by another name would lose what it is there to keep.
func TestExtraName(t *testing.T) {
	type named struct {
		A    string `json:"a"`
		More Extra  `json:"-"`
	}
	var v named
	for name, err := range map[string]error{
		"Unmarshal":     Unmarshal([]byte("\xa2\x61a\x60\x61b\x01"), &v),
		"UnmarshalJSON": UnmarshalJSON([]byte(`{"a":"","b":1}`), &v),
	} {
		if e, ok := err.(*Error); !ok || e.Rule != RuleValue {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := Append(nil, &v); err == nil {
		t.Errorf("Append gives %x", b)
	}
}
