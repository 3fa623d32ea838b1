package difftest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	fxcbor "github.com/fxamacker/cbor/v2"
	gocid "github.com/ipfs/go-cid"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
)

// FuzzCBOR compares what is valid CBOR, and what it means: with the slow model, in everything; with fxamacker/cbor in its
// strictest mode; and, for maps, with indigo's atdata.
func FuzzCBOR(f *testing.F) {
	for _, b := range cborSeeds(f) {
		f.Add(b, uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if seed != 0 {
			b = mutateCBOR(b, seed)
		}
		compareCBOR(t, b)
	})
}

func compareCBOR(t testing.TB, b []byte) {
	t.Helper()
	it, f := examine(b)
	mine := ask(func() (any, error) { return data.Decode(b) })
	model := answer{err: errors.New("faults")}
	if len(f) == 0 {
		model = answer{value: it.tree()}
	}
	if !same(mine, model) || (cbor.Valid(b) == nil) != (len(f) == 0) {
		t.Fatalf("%s\nours  %v\nmodel %v %v", show(b), mine, model, f)
	}
	fxTable.judge(t, b, mine, askFxamacker(b))
	if it != nil && it.major == mMap {
		if atdataCBOR.judge(t, b, oursModel(b), askAtdataCBOR(b)) == "" && len(f) == 0 {
			compareWays(t, b)
		}
	}
}

// compareWays goes from CBOR to JSON on one side and back on the other, both ways round, for what both sides understand
// alike.
func compareWays(t testing.TB, b []byte) {
	t.Helper()
	v, err := atdata.UnmarshalCBOR(b)
	if err != nil {
		return
	}
	j, err := json.Marshal(v)
	if err != nil {
		t.Errorf("%s: indigo's JSON: %v", show(b), err)
		return
	}
	if back, err := data.AppendCBOR(nil, j); err != nil || !bytes.Equal(back, b) {
		t.Errorf("%s: indigo's JSON %s comes back as %x, %v", show(b), j, back, err)
	}
	if j, err = data.AppendJSON(nil, b); err != nil {
		t.Errorf("%s: %v", show(b), err)
		return
	}
	atdataJSON.judge(t, j, answer{value: string(b)}, askAtdataJSON(j))
}

func TestCBORMutations(t *testing.T) {
	for _, b := range cborSeeds(t) {
		if len(b) > 4096 {
			continue
		}
		for seed := range rounds(80) {
			compareCBOR(t, mutateCBOR(b, uint64(seed)+1))
		}
	}
}

// unhex reads hexadecimal digits with spaces between them.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func cborSeeds(t testing.TB) [][]byte {
	var list [][]byte
	for _, name := range []string{"cid", "concat", "floats", "indefinite", "integer_range", "map_keys", "numeric_reduction", "short_form", "simple", "tags", "utf8"} {
		var cases []struct{ Data string }
		load(t, "dasl/"+name+".json", &cases)
		for _, c := range cases {
			b := unhex(c.Data)
			list = append(list, b, append([]byte("\xa1\x61a"), b...)) // indigo reads maps only
		}
	}
	var models []struct {
		CBOR string `json:"cbor_base64"`
	}
	load(t, "atproto-interop/data-model/data-model-fixtures.json", &models)
	for _, m := range models {
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(m.CBOR, "="))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b)
	}
	for _, name := range []string{"cars/tiny.car", "cars/empty.car"} {
		_, blocks, err := car.Parse(fixtures.Read(t, name), car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for b, err := range blocks {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, bytes.Clone(b.Data))
		}
	}
	for _, j := range jsonSeeds(t) {
		if b, err := data.AppendCBOR(nil, []byte(j)); err == nil {
			list = append(list, b)
		}
	}
	link := cid.Sum(cid.Raw, nil)
	for _, it := range []*item{
		object(text("a"), linkTo(link[:])),
		object(text("a"), byteString(nil), text("b"), array(), text("c"), object(), text("dd"), text("")),
		object(text("a"), number(math.MaxInt64, mUint), text("b"), number(math.MaxInt64, mNegative)),
	} {
		list = append(list, it.append(nil))
	}
	return list
}

func load(t testing.TB, name string, v any) {
	t.Helper()
	if err := json.Unmarshal(fixtures.Read(t, name), v); err != nil {
		t.Fatal(name, err)
	}
}

// fxDecode and fxEncode are fxamacker/cbor as strict as its options make it. It doesn't hold decoding to the shortest heads
// and to the order of keys: that is done by encoding again.
var fxDecode, fxEncode = func() (fxcbor.DecMode, fxcbor.EncMode) {
	var kept []func(*fxcbor.SimpleValueRegistry) error
	for v := range 256 {
		if v < 20 || v == 23 || v > 31 {
			kept = append(kept, fxcbor.WithRejectedSimpleValue(fxcbor.SimpleValue(v)))
		}
	}
	simple, err := fxcbor.NewSimpleValueRegistryFromDefaults(kept...)
	if err != nil {
		panic(err)
	}
	dec, err := fxcbor.DecOptions{
		DupMapKey: fxcbor.DupMapKeyEnforcedAPF, IndefLength: fxcbor.IndefLengthForbidden, UTF8: fxcbor.UTF8RejectInvalid,
		IntDec: fxcbor.IntDecConvertSignedOrFail, NaN: fxcbor.NaNDecodeForbidden, Inf: fxcbor.InfDecodeForbidden,
		BignumTag: fxcbor.BignumTagForbidden, TimeTagToAny: fxcbor.TimeTagToRFC3339Nano, SimpleValues: simple,
		MaxNestedLevels:  cbor.MaxDepth + 1, // a tag is a level too, and the deepest value may be a link
		MaxArrayElements: cbor.MaxElements, MaxMapPairs: cbor.MaxElements,
		DefaultMapType: reflect.TypeFor[map[string]any](),
	}.DecMode()
	if err != nil {
		panic(err)
	}
	enc, err := fxcbor.EncOptions{Sort: fxcbor.SortLengthFirst, IndefLength: fxcbor.IndefLengthForbidden}.EncMode()
	if err != nil {
		panic(err)
	}
	return dec, enc
}()

var errNotCanonical = errors.New("encodes to other bytes")

func askFxamacker(b []byte) answer {
	return ask(func() (any, error) {
		var v any
		if err := fxDecode.Unmarshal(b, &v); err != nil {
			return nil, err
		}
		again, err := fxEncode.Marshal(v)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(again, b) {
			return nil, errNotCanonical
		}
		return fromFxamacker(v), nil
	})
}

// fromFxamacker turns a tag 42 into a CID where it is one.
func fromFxamacker(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = fromFxamacker(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = fromFxamacker(v[k])
		}
	case fxcbor.Tag:
		if b, ok := v.Content.([]byte); ok && v.Number == 42 && len(b) == 37 {
			return cid.CID(b[1:])
		}
	}
	return v
}

// maxDepth returns how deep the containers of an item are nested.
func (it *item) maxDepth() int {
	n := 0
	for _, k := range it.kids {
		n = max(n, k.maxDepth())
	}
	if it.major == mArray || it.major == mMap {
		n++
	}
	return n
}

// What fxamacker/cbor accepts beside what a case is about.
var fxLax = []fault{fFloat, fTag, fCID, fKeyEmpty, fKeySize, fDepth}

var fxForgives = laxity(func(b []byte) faults { _, f := examine(b); return f }, fxLax)

var fxTable = table[[]byte]{name: "fxamacker", list: []difference[[]byte]{
	{
		name: "float of 64 bits", right: ours, rule: "no floating point, " + specModel,
		holds: fxForgives(fFloat), shown: [][]byte{unhex("fb3ff8000000000000"), unhex("fb8000000000000000")},
	},
	{
		name: "content of tag 42 not looked at", right: ours, rule: "0x00 and a CID, " + specDRISL + ", " + specCID,
		holds: fxForgives(fCID), shown: [][]byte{unhex("d82a40"), unhex("d82a01"), linkTo(oddCIDs[0]).append(nil), linkTo(oddCIDs[4]).append(nil)},
	},
	{
		name: "other tags", right: ours, rule: "no tag but 42, " + specDRISL,
		holds: fxForgives(fTag), shown: [][]byte{unhex("d8206161")},
	},
	{
		name: "empty key", right: ours, rule: "keys are not empty, " + specModel,
		holds: fxForgives(fKeyEmpty), shown: [][]byte{unhex("a16000")},
	},
	{
		name: "key over 8 KiB", right: ours, rule: "limit of keys, " + guideLimits,
		holds: fxForgives(fKeySize), shown: [][]byte{object(text(strings.Repeat("k", 8193)), number(0, mUint)).append(nil)},
	},
	{
		name: "depth counts tags", right: open, rule: "32 containers within each other, " + guideLimits + "; its limit is one more, because it counts tags",
		holds: func(b []byte, mine, peer answer) bool {
			it, f := examine(b)
			return mine.err != nil && peer.err == nil && f.only(fDepth, fxLax) && it.maxDepth() == cbor.MaxDepth+1
		},
		shown: [][]byte{append(bytes.Repeat([]byte{0x81}, 32), 0x80)},
	},
}}

// oursModel is what we make of a CBOR map in the data model: the value, and the bytes that it is written as after a way
// through JSON, which knows `$type` and blobs.
func oursModel(b []byte) answer {
	return ask(func() (any, error) {
		v, err := data.Decode(b)
		if err != nil {
			return nil, err
		}
		j, err := data.AppendJSON(nil, b)
		if err != nil {
			return nil, err
		}
		again, err := data.AppendCBOR(nil, j)
		if err != nil {
			return nil, err
		}
		return rewritten{v, string(again)}, nil
	})
}

// rewritten is a value, and its encoding by whoever read it.
type rewritten struct {
	value any
	cbor  string
}

func askAtdataCBOR(b []byte) answer {
	return ask(func() (any, error) {
		v, err := atdata.UnmarshalCBOR(b)
		if err != nil {
			return nil, err
		}
		again, err := atdata.MarshalCBOR(v)
		if err != nil {
			return nil, err
		}
		return rewritten{fromAtdata(v), string(again)}, nil
	})
}

// fromAtdata turns a value of atdata into one of ours; CIDs that aren't of the protocol stay.
func fromAtdata(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = fromAtdata(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = fromAtdata(v[k])
		}
		return out
	case atdata.Bytes:
		return append([]byte{}, v...)
	case atdata.CIDLink:
		return fromGoCID(gocid.Cid(v))
	case atdata.Blob:
		if v.Size < 0 {
			return map[string]any{"cid": v.Ref.String(), "mimeType": v.MimeType}
		}
		return map[string]any{"$type": "blob", "ref": fromAtdata(v.Ref), "mimeType": v.MimeType, "size": v.Size}
	}
	return v
}

func fromGoCID(c gocid.Cid) any {
	if ours, err := cid.FromBytes(c.Bytes()); err == nil {
		return ours
	}
	return c
}
