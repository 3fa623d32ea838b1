package data_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
)

// forbidden is the CBOR that atproto has no place for, each with the rule that refuses it; off is where in it the rule is
// broken, and path where in the value.
var forbidden = []struct {
	name, in string
	rule     cbor.Rule
	off      int
	path     string
}{
	{"half float", "f93e00", cbor.RuleFloat, 0, ""},
	{"single float", "fa47c35000", cbor.RuleFloat, 0, ""},
	{"double float", "fb3ff8000000000000", cbor.RuleFloat, 0, ""},
	{"integral float", "fb3ff0000000000000", cbor.RuleFloat, 0, ""},
	{"NaN", "f97e00", cbor.RuleFloat, 0, ""},
	{"infinity", "fb7ff0000000000000", cbor.RuleFloat, 0, ""},
	{"negative zero", "fb8000000000000000", cbor.RuleFloat, 0, ""},
	{"undefined", "f7", cbor.RuleSimple, 0, ""},
	{"simple value", "f0", cbor.RuleSimple, 0, ""},
	{"long simple value", "f8ff", cbor.RuleSimple, 0, ""},
	{"2^63", "1b8000000000000000", cbor.RuleIntRange, 0, ""},
	{"-2^63-1", "3b8000000000000000", cbor.RuleIntRange, 0, ""},
	{"bignum", "c24101", cbor.RuleTag, 0, ""},
	{"time", "c11a655c5e00", cbor.RuleTag, 0, ""},
	{"self-described", "d9d9f700", cbor.RuleTag, 0, ""},
	{"link without a CID", "d82a40", cbor.RuleCID, 0, ""},
	{"link to CIDv0", "d82a58230012" + "20" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"link to dag-pb", "d82a58250001701220" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"link by SHA-512", "d82a58250001711320" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"link by BLAKE3", "d82a58250001711e20" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"link without the zero byte", "d82a582401711220" + strings.Repeat("00", 32), cbor.RuleCID, 0, ""},
	{"link with a byte more", "d82a58260001711220" + strings.Repeat("00", 33), cbor.RuleCID, 0, ""},
	{"link to text", "d82a6161", cbor.RuleCID, 0, ""},
	{"long tag 42", "d9002a58250001711220" + strings.Repeat("00", 32), cbor.RuleMinimal, 0, ""},
	{"long integer", "1800", cbor.RuleMinimal, 0, ""},
	{"long negative integer", "3b00000000ffffffff", cbor.RuleMinimal, 0, ""},
	{"long text", "790001" + "61", cbor.RuleMinimal, 0, ""},
	{"long bytes", "5800", cbor.RuleMinimal, 0, ""},
	{"long array", "990000", cbor.RuleMinimal, 0, ""},
	{"long map", "b800", cbor.RuleMinimal, 0, ""},
	{"long key", "a1780161" + "00", cbor.RuleMinimal, 1, ""},
	{"indefinite text", "7f6161ff", cbor.RuleIndefinite, 0, ""},
	{"indefinite bytes", "5f4161ff", cbor.RuleIndefinite, 0, ""},
	{"indefinite array", "9f00ff", cbor.RuleIndefinite, 0, ""},
	{"indefinite map", "bf616100ff", cbor.RuleIndefinite, 0, ""},
	{"break", "ff", cbor.RuleReserved, 0, ""},
	{"reserved", "1c", cbor.RuleReserved, 0, ""},
	{"invalid UTF-8", "62c328", cbor.RuleUTF8, 0, ""},
	{"overlong UTF-8", "62c080", cbor.RuleUTF8, 0, ""},
	{"surrogate", "63eda080", cbor.RuleUTF8, 0, ""},
	{"invalid UTF-8 in a key", "a161ff00", cbor.RuleUTF8, 1, ""},
	{"duplicate key", "a2616100616101", cbor.RuleKeyDuplicate, 4, ""},
	{"unsorted keys", "a2616200616101", cbor.RuleKeyOrder, 4, ""},
	{"keys in order of bytes", "a262616100616201", cbor.RuleKeyOrder, 5, ""},
	{"integer key", "a10000", cbor.RuleKeyType, 1, ""},
	{"bytes key", "a1416100", cbor.RuleKeyType, 1, ""},
	{"empty key", "a16000", cbor.RuleKeyEmpty, 1, ""},
	{"huge key", "a1792001" + strings.Repeat("61", cbor.MaxKey+1) + "00", cbor.RuleKeySize, 1, ""},
	{"too many items", "9a00020001", cbor.RuleElements, 0, ""},
	{"too many entries", "ba00020001", cbor.RuleElements, 0, ""},
	{"too deep", strings.Repeat("81", 32) + "80", cbor.RuleDepth, 32, strings.Repeat("[0]", 32)},
	{"within a list", "8200f7", cbor.RuleSimple, 2, "[1]"},
	{"within a map", "a1616bf7", cbor.RuleSimple, 3, "k"},
}

// ruleOf returns what is the same of the errors of both packages.
func ruleOf(err error) (rule string, off int, path string) {
	var c *cbor.Error
	var d *data.Error
	switch {
	case errors.As(err, &c):
		return string(c.Rule), c.Offset, c.Path
	case errors.As(err, &d):
		return string(d.Rule), d.Offset, d.Path
	}
	return "", 0, ""
}

type onlyExtra struct {
	Extra data.Extra `json:"-"`
}

type onlyRaw struct {
	R     data.Raw   `json:"r"`
	Extra data.Extra `json:"-"`
}

// TestForbidden wants every way of reading to refuse all of them, by the same rule at the same place, and every way of
// writing not to let them through.
func TestForbidden(t *testing.T) {
	reading := map[string]func([]byte) error{
		"cbor.Valid":  cbor.Valid,
		"Decode":      func(b []byte) error { _, err := data.Decode(b); return err },
		"AppendJSON":  func(b []byte) error { _, err := data.AppendJSON(nil, b); return err },
		"Walk":        func(b []byte) error { return data.Walk(b, func([]data.Step, *data.Leaf) error { return nil }) },
		"CheckRecord": data.CheckRecord,
		"Unmarshal/extra": func(b []byte) error {
			return data.Unmarshal(b, new(onlyExtra))
		},
		"Unmarshal/raw": func(b []byte) error { return data.Unmarshal(b, new(onlyRaw)) },
		"Blobs": func(b []byte) error {
			for _, err := range data.Blobs(b) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	for _, c := range forbidden {
		in := bytesOf(t, c.in)
		// In a record, behind a $type, at a place that has a name.
		head := cbor.AppendMap(nil, 2)
		head = cbor.AppendText(head, "r")
		rest := cbor.AppendText(cbor.AppendText(nil, "$type"), "com.example.note")
		record := append(append(bytes.Clone(head), in...), rest...)
		off, path := len(head)+c.off, "r"
		if strings.HasPrefix(c.path, "[") {
			path += c.path
		} else if c.path != "" {
			path += "." + c.path
		}
		if c.rule == cbor.RuleDepth { // one level less is left
			off, path = off-1, strings.TrimSuffix(path, "[0]")
		}
		for name, read := range reading {
			rule, gotOff, gotPath := ruleOf(read(record))
			if rule != string(c.rule) || gotOff != off || gotPath != path {
				t.Errorf("%s: %s: %q at %d in %q, want %q at %d in %q", c.name, name, rule, gotOff, gotPath, c.rule, off, path)
			}
		}
		if rule, gotOff, gotPath := ruleOf(cbor.Valid(in)); rule != string(c.rule) || gotOff != c.off || gotPath != c.path {
			t.Errorf("%s: alone: %q at %d in %q", c.name, rule, gotOff, gotPath)
		}
		for name, v := range map[string]any{
			"a Raw":               &onlyRaw{R: in},
			"an Extra":            &onlyExtra{Extra: data.NewExtra(data.ExtraField{Key: "x", Value: in})},
			"a union":             &struct{ U noteEmbed }{noteEmbed{Raw: record}},
			"the Extra of a blob": &struct{ B data.Blob }{data.Blob{Ref: rawCID(t), MimeType: "a/b", Size: 1, Extra: data.NewExtra(data.ExtraField{Key: "x", Value: in})}},
		} {
			if b, err := data.Marshal(v); err == nil {
				t.Errorf("%s: written in %s as %x", c.name, name, b)
			}
			if b, err := data.MarshalReflect(v); err == nil {
				t.Errorf("%s: written by reflection in %s as %x", c.name, name, b)
			}
		}
		if b, err := data.Encode(data.Raw(in)); err == nil {
			t.Errorf("%s: encoded as %x", c.name, b)
		}
	}
}

// The depth is counted from the top, wherever in a struct a value is.
func TestDepthWithin(t *testing.T) {
	at := func(levels int) []byte { // levels containers, the outermost a map
		b := cbor.AppendText(cbor.AppendMap(nil, 1), "r")
		return append(append(b, bytes.Repeat([]byte{0x81}, levels-2)...), 0x80)
	}
	for levels, ok := range map[int]bool{cbor.MaxDepth: true, cbor.MaxDepth + 1: false} {
		b := at(levels)
		for _, v := range []any{new(onlyRaw), new(onlyExtra)} {
			if err := data.Unmarshal(b, v); (err == nil) != ok {
				t.Errorf("%d levels into %T: %v", levels, v, err)
			}
			if err := data.UnmarshalReflect(b, v); (err == nil) != ok {
				t.Errorf("%d levels into %T by reflection: %v", levels, v, err)
			}
		}
		raw := data.Raw(b[3:])
		for _, v := range []any{&onlyRaw{R: raw}, &onlyExtra{Extra: data.NewExtra(data.ExtraField{Key: "r", Value: raw})}} {
			if _, err := data.Marshal(v); (err == nil) != ok {
				t.Errorf("%d levels out of %T: %v", levels, v, err)
			}
			if _, err := data.MarshalReflect(v); (err == nil) != ok {
				t.Errorf("%d levels out of %T by reflection: %v", levels, v, err)
			}
		}
	}
}

// What an input announces is not believed: five bytes that promise four billion of something cost an error and no more.
func TestAnnouncedLengths(t *testing.T) {
	reading := map[string]func(b []byte){
		"cbor.Valid":        func(b []byte) { _ = cbor.Valid(b) },
		"cbor.Violations":   func(b []byte) { cbor.Violations(b, 10) },
		"cbor.Reader":       func(b []byte) { r := cbor.NewReader(b); _, _ = r.Raw() },
		"Decode":            func(b []byte) { _, _ = data.Decode(b) },
		"AppendJSON":        func(b []byte) { _, _ = data.AppendJSON(nil, b) },
		"Walk":              func(b []byte) { _ = data.Walk(b, func([]data.Step, *data.Leaf) error { return nil }) },
		"CheckRecord":       func(b []byte) { _ = data.CheckRecord(b) },
		"Unmarshal":         func(b []byte) { _ = data.Unmarshal(b, new([]note)) },
		"Unmarshal/raw":     func(b []byte) { _ = data.Unmarshal(b, new(data.Raw)) },
		"Unmarshal/strings": func(b []byte) { _ = data.Unmarshal(b, new([]string)) },
		"Unmarshal/struct":  func(b []byte) { _ = data.Unmarshal(b, new(point)) },
		"DecodeLenient":     func(b []byte) { _, _, _ = data.DecodeLenient(b) },
		"AppendJSONLenient": func(b []byte) { _, _, _ = data.AppendJSONLenient(nil, b) },
		"UnmarshalLenient":  func(b []byte) { _, _ = data.UnmarshalLenient(b, new([]note)) },
	}
	for _, in := range []string{"9affffffff", "baffffffff", "5affffffff", "7affffffff", "9bffffffffffffffff", "bbffffffffffffffff",
		"5bffffffffffffffff", "7b7fffffffffffffff", "9a00020000", "ba00020000", "a17affffffff"} {
		b := bytesOf(t, in)
		for name, read := range reading {
			read(b) // plans and the like are made once
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			read(b)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 4096 && !underRace {
				t.Errorf("%s: %s allocates %d bytes", in, name, n)
			}
		}
	}
}

// The size of a record has a limit, and the value at it is allowed.
func TestRecordSize(t *testing.T) {
	sized := func(n int) []byte {
		empty, err := data.Encode(map[string]any{"$type": "x.y.z", "t": strings.Repeat("x", 1<<16)})
		if err != nil {
			t.Fatal(err)
		}
		b, err := data.Encode(map[string]any{"$type": "x.y.z", "t": strings.Repeat("x", 1<<16+n-len(empty))})
		if err != nil || len(b) != n {
			t.Fatal(len(b), err)
		}
		return b
	}
	if err := data.CheckRecord(sized(data.MaxRecord)); err != nil {
		t.Error(err)
	}
	if rule, _, _ := ruleOf(data.CheckRecord(sized(data.MaxRecord + 1))); rule != string(data.RuleSize) {
		t.Errorf("a byte too many: %q", rule)
	}
	j, err := data.AppendJSON(nil, sized(data.MaxRecord))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := data.ParseRecord(j); err != nil {
		t.Error(err)
	}
	j, err = data.AppendJSON(nil, sized(data.MaxRecord+1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := data.ParseRecord(j); err == nil {
		t.Error("a byte too many accepted in JSON")
	}
}

// TestDASL takes the vectors through trees, JSON and structs; package cbor has the list of decisions.
func TestDASL(t *testing.T) {
	n := 0
	for _, name := range []string{"cid", "concat", "floats", "indefinite", "integer_range", "map_keys", "numeric_reduction", "short_form", "simple", "tags", "utf8"} {
		var cases []struct{ Data, Name string }
		if err := json.Unmarshal(fixtures.Read(t, "dasl/"+name+".json"), &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			n++
			b := bytesOf(t, c.Data)
			tree, terr := data.Decode(b)
			j, jerr := data.AppendJSON(nil, b)
			var raw data.Raw
			rerr := data.Unmarshal(b, &raw)
			null := len(b) == 1 && b[0] == 0xf6 // which a Raw isn't
			if valid := cbor.Valid(b) == nil; valid != (terr == nil) || valid != (jerr == nil) || valid != (rerr == nil || null) {
				t.Errorf("%s: valid %v, tree %v, JSON %v, Raw %v", c.Name, valid, terr, jerr, rerr)
				continue
			} else if !valid {
				continue
			}
			if again, err := data.Encode(tree); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%s: encoded as %x, %v", c.Name, again, err)
			}
			if again, err := data.AppendCBOR(nil, j); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%s: %s, and back %x, %v", c.Name, j, again, err)
			}
			if again, err := data.Marshal(raw); !null && (err != nil || !bytes.Equal(again, b)) {
				t.Errorf("%s: Raw written as %x, %v", c.Name, again, err)
			}
		}
	}
	if n != 105 {
		t.Errorf("%d cases", n)
	}
}

// TestRealRoundTrip wants identity for every CBOR block of whole repositories, on every way there and back.
func TestRealRoundTrip(t *testing.T) {
	records(t, func(b []byte) { identity(t, b) })
}

type fataler interface{ Fatalf(string, ...any) }

func identity(t fataler, b []byte) {
	j, err := data.AppendJSON(nil, b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if again, err := data.AppendCBOR(nil, j); err != nil || !bytes.Equal(again, b) {
		t.Fatalf("%x\nby JSON %s\nto      %x, %v", b, j, again, err)
	}
	tree, err := data.Decode(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if again, err := data.Encode(tree); err != nil || !bytes.Equal(again, b) {
		t.Fatalf("%x\nby a tree to %x, %v", b, again, err)
	}
	// A struct that knows nothing, and one that knows the most frequent names.
	for _, v := range []any{new(onlyExtra), new(struct {
		Text      *data.Raw  `json:"text,omitzero"`
		CreatedAt *data.Raw  `json:"createdAt,omitzero"`
		Subject   data.Raw   `json:"subject,omitzero"`
		Embed     data.Raw   `json:"embed,omitzero"`
		Extra     data.Extra `json:"-"`
	})} {
		if b[0]>>5 != 5 {
			continue
		}
		if err := data.Unmarshal(b, v); err != nil {
			if rule, _, _ := ruleOf(err); rule == string(data.RuleValue) {
				continue // a null where Raw wants a value
			}
			t.Fatalf("%x: %v", b, err)
		}
		if again, err := data.Marshal(v); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x\nby a struct to %x, %v", b, again, err)
		}
		j, err := data.MarshalJSON(v)
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if err := data.UnmarshalJSON(j, v); err != nil {
			t.Fatalf("%s: %v", j, err)
		}
		if again, err := data.Marshal(v); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x\nby the JSON of a struct to %x, %v", b, again, err)
		}
	}
}

func TestRandomRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, err := data.Encode(map[string]any{"text": tree(t, 2), "subject": tree(t, 2), "x": tree(t, 1)})
		if err != nil {
			t.Fatal(err)
		}
		identity(t, b)
	})
}

// Keys are matched exactly, and what differs in case alone is another field.
func TestExactCase(t *testing.T) {
	var p point
	if err := data.UnmarshalJSON([]byte(`{"x":1,"y":2,"X":3,"Y":4}`), &p); err != nil {
		t.Fatal(err)
	}
	if p.X != 1 || p.Y != 2 || p.Extra.Len() != 2 {
		t.Errorf("%+v", p)
	}
	if err := data.UnmarshalJSON([]byte(`{"X":3,"Y":4}`), &p); err == nil {
		t.Error("X was taken for x")
	}
	j, err := data.MarshalJSON(&point{X: math.MaxInt64, Y: -1})
	if err != nil || string(j) != `{"x":9223372036854775807,"y":-1}` {
		t.Errorf("%s, %v", j, err)
	}
	if err := data.UnmarshalJSON(j, &p); err != nil || p.X != math.MaxInt64 {
		t.Errorf("%+v, %v", p, err)
	}
}
