package cbor_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/internal/fixtures"
)

type daslCase struct {
	Type string   `json:"type"`
	Data string   `json:"data"`
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

var daslFiles = []string{"cid", "concat", "floats", "indefinite", "integer_range", "map_keys", "numeric_reduction", "short_form", "simple", "tags", "utf8"}

func daslCases(t testing.TB, f func(file string, c daslCase)) {
	for _, file := range daslFiles {
		var cases []daslCase
		if err := json.Unmarshal(fixtures.Read(t, "dasl/"+file+".json"), &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			f(file, c)
		}
	}
}

// forbidden are the values that DASL (or another profile of CBOR that its suite covers) lets round-trip and that atproto
// forbids, with the rule that refuses each. The first six are cases of the DASL core; the rest belong to other profiles.
var forbidden = map[string]cbor.Rule{
	"cid/Big DASL CID":                             cbor.RuleCID,      // BLAKE3: SHA-256 is the only hash of the protocol
	"floats/64-bit floats only":                    cbor.RuleFloat,    // 1.5: the data model has no floating point
	"floats/zero float64":                          cbor.RuleFloat,    // 0.0
	"floats/64-bit subnormal number":               cbor.RuleFloat,    // 5e-324
	"integer_range/largest CBOR integer, 2^64-1":   cbor.RuleIntRange, // integers are signed, 64 bits
	"integer_range/smallest CBOR integer, -(2^64)": cbor.RuleIntRange,

	"floats/float reduction":                                  cbor.RuleFloat,   // RFC 8949: 1.5 as a half float
	"floats/short NaN":                                        cbor.RuleFloat,   // RFC 8949
	"floats/zero float16":                                     cbor.RuleFloat,   // RFC 8949
	"integer_range/smallest unsigned bigint":                  cbor.RuleTag,     // CBOR-Core: bignums
	"integer_range/highest negative bigint":                   cbor.RuleTag,     // CBOR-Core
	"numeric_reduction/map with equal int and float keys":     cbor.RuleKeyType, // dCBOR: keys are text here
	"numeric_reduction/too small for int reduction, <-(2^63)": cbor.RuleFloat,   // dCBOR
}

// allowed are the values that only another profile forbids, and that have one encoding here like all others.
var allowed = map[string]string{
	"utf8/text not in Unicode Normalization Form C": "dCBOR wants normalised text; the data model leaves text alone",
}

func TestDASL(t *testing.T) {
	used := map[string]bool{}
	counts := map[string]int{}
	daslCases(t, func(file string, c daslCase) {
		name := file + "/" + c.Name
		err := cbor.Valid(unhex(c.Data))
		counts[c.Type]++
		switch c.Type {
		case "roundtrip":
			if rule, ok := forbidden[name]; ok {
				used[name] = true
				if e, ok := err.(*cbor.Error); !ok || e.Rule != rule {
					t.Errorf("%s: %v, want rule %s", name, err, rule)
				}
				return
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if again := rewrite(t, unhex(c.Data)); string(again) != string(unhex(c.Data)) {
				t.Errorf("%s: written as %x", name, again)
			}
		case "invalid_in":
			if _, ok := allowed[name]; ok {
				used[name] = true
				if err != nil || !slices.Equal(c.Tags, []string{"dCBOR"}) {
					t.Errorf("%s: %v", name, err)
				}
				return
			}
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
		case "invalid_out":
			// No Append function writes these. What remains is that bytes kept from a lenient reading pass for valid.
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
			r := cbor.NewLenientReader(unhex(c.Data), nil)
			raw, lerr := r.Raw()
			if lerr != nil || cbor.Valid(raw) == nil {
				t.Errorf("%s: lenient reading gives %x, %v", name, raw, lerr)
			}
		default:
			t.Errorf("%s: unknown type %s", name, c.Type)
		}
	})
	for name := range forbidden {
		if !used[name] {
			t.Errorf("%s: no such case", name)
		}
	}
	for name := range allowed {
		if !used[name] {
			t.Errorf("%s: no such case", name)
		}
	}
	t.Log(counts)
}

// rewrite reads a value and writes it anew.
func rewrite(t testing.TB, b []byte) []byte {
	r := cbor.NewReader(b)
	var out []byte
	var value func()
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	value = func() {
		k, err := r.Kind()
		fail(err)
		switch k {
		case cbor.KindInt:
			v, err := r.Int()
			fail(err)
			out = cbor.AppendInt(out, v)
		case cbor.KindBytes:
			v, err := r.Bytes()
			fail(err)
			out = cbor.AppendBytes(out, v)
		case cbor.KindText:
			v, err := r.Text()
			fail(err)
			out = cbor.AppendText(out, v)
		case cbor.KindBool:
			v, err := r.Bool()
			fail(err)
			out = cbor.AppendBool(out, v)
		case cbor.KindNull:
			fail(r.Null())
			out = cbor.AppendNull(out)
		case cbor.KindLink:
			v, err := r.Link()
			fail(err)
			out = cbor.AppendLink(out, v)
		case cbor.KindArray:
			n, err := r.Array()
			fail(err)
			out = cbor.AppendArray(out, n)
			for range n {
				value()
			}
		case cbor.KindMap:
			n, err := r.Map()
			fail(err)
			out = cbor.AppendMap(out, n)
			var key []byte
			for range n {
				key, err = r.MapKey(key)
				fail(err)
				out = cbor.AppendTextBytes(out, key)
				value()
			}
		default:
			t.Fatalf("strict reader says %v", k)
		}
	}
	value()
	fail(r.End())
	return out
}
