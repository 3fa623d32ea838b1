package data_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
)

func ExampleUnmarshalLenient() {
	// A record by a client that wrote its keys in the order of its source code, and a number as a float.
	b := []byte("\xa3\x65$type\x70com.example.note\x64text\x62hi\x65likes\xfb\x40\x08\x00\x00\x00\x00\x00\x00")
	var n struct {
		Text  string     `json:"text"`
		Likes *int64     `json:"likes,omitzero"`
		Extra data.Extra `json:"-"`
	}
	l, err := data.UnmarshalLenient(b, &n)
	fmt.Println(n.Text, n.Likes, err)
	for _, v := range l.Violations {
		fmt.Println(v)
	}
	// Output:
	// hi <nil> <nil>
	// data: key-order: key "text" (byte 24)
	// data: float in likes (byte 38)
}

func ExampleAppendJSONLenient() {
	j, l, err := data.AppendJSONLenient(nil, []byte("\xa2\x61b\xfb\x40\x09\x21\xfb\x54\x44\x2d\x18\x61a\xc1\x1a\x65\x5c\x5e\x00"))
	fmt.Println(string(j), len(l.Violations), err)
	_, err = l.Raw()
	fmt.Println(err)
	// Output:
	// {"b":3.141592653589793,"a":{"$cbor":"wRplXF4A"}} 3 <nil>
	// data: float in b (byte 3)
}

const badLink = "d82a5823 00 1220 0000000000000000000000000000000000000000000000000000000000000000" // CIDv0, a digest without more

func bytesOf(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dirtyCases are values with one broken rule each: what is named, and what is read of them.
var dirtyCases = []struct {
	name, in string
	rule     cbor.Rule
	off      int
	path     string
	json     string
	tree     any
}{
	{"double", "a1 6161 fb3ff8000000000000", cbor.RuleFloat, 3, "a", `{"a":1.5}`, map[string]any{"a": 1.5}},
	{"integral double", "81 fb4000000000000000", cbor.RuleFloat, 1, "[0]", `[2.0]`, []any{2.0}},
	{"single", "81 fa47c35000", cbor.RuleFloat, 1, "[0]", `[100000.0]`, []any{100000.0}},
	{"half", "81 f93e00", cbor.RuleFloat, 1, "[0]", `[1.5]`, []any{1.5}},
	{"subnormal half", "81 f90001", cbor.RuleFloat, 1, "[0]", `[5.960464477539063e-08]`, []any{math.Ldexp(1, -24)}},
	{"negative zero", "81 f98000", cbor.RuleFloat, 1, "[0]", `[-0.0]`, []any{math.Copysign(0, -1)}},
	{"large double", "81 fb7e37e43c8800759c", cbor.RuleFloat, 1, "[0]", `[1e+300]`, []any{1e300}},
	{"infinity", "81 f97c00", cbor.RuleFloat, 1, "[0]", `[{"$cbor":"+XwA"}]`, []any{math.Inf(1)}},
	{"unsorted", "a2 6162 01 6161 02", cbor.RuleKeyOrder, 4, "", `{"b":1,"a":2}`, map[string]any{"a": int64(2), "b": int64(1)}},
	{"longer key first", "a2 626161 01 6162 02", cbor.RuleKeyOrder, 5, "", `{"aa":1,"b":2}`, map[string]any{"aa": int64(1), "b": int64(2)}},
	{"duplicate", "a2 6161 01 6161 02", cbor.RuleKeyDuplicate, 4, "", `{"a":1,"a":2}`, map[string]any{"a": int64(2)}},
	{"empty key", "a1 60 01", cbor.RuleKeyEmpty, 1, "", `{"":1}`, map[string]any{"": int64(1)}},
	{"integer key", "a1 20 01", cbor.RuleKeyType, 1, "", `{"-1":1}`, map[string]any{"-1": int64(1)}},
	{"bytes key", "a1 4161 01", cbor.RuleKeyType, 1, "", `{"QWE":1}`, map[string]any{"QWE": int64(1)}},
	{"indefinite array", "9f 01 02 ff", cbor.RuleIndefinite, 0, "", `[1,2]`, []any{int64(1), int64(2)}},
	{"indefinite map", "a1 6161 bf 6162 01 ff", cbor.RuleIndefinite, 3, "a", `{"a":{"b":1}}`, map[string]any{"a": map[string]any{"b": int64(1)}}},
	{"indefinite text", "81 7f 6161 6162 ff", cbor.RuleIndefinite, 1, "[0]", `["ab"]`, []any{"ab"}},
	{"indefinite bytes", "81 5f 4101 4102 ff", cbor.RuleIndefinite, 1, "[0]", `[{"$bytes":"AQI"}]`, []any{[]byte{1, 2}}},
	{"long integer", "81 1805", cbor.RuleMinimal, 1, "[0]", `[5]`, []any{int64(5)}},
	{"long negative", "81 3900ff", cbor.RuleMinimal, 1, "[0]", `[-256]`, []any{int64(-256)}},
	{"long text head", "81 790001 61", cbor.RuleMinimal, 1, "[0]", `["a"]`, []any{"a"}},
	{"long key head", "a1 780161 01", cbor.RuleMinimal, 1, "", `{"a":1}`, map[string]any{"a": int64(1)}},
	{"long array head", "9801 01", cbor.RuleMinimal, 0, "", `[1]`, []any{int64(1)}},
	{"bad UTF-8", "81 63 61ff62", cbor.RuleUTF8, 1, "[0]", "[\"a\uFFFDb\"]", []any{"a\xffb"}},
	{"surrogate", "81 63 eda080", cbor.RuleUTF8, 1, "[0]", "[\"\uFFFD\"]", []any{"\xed\xa0\x80"}},
	{"bad UTF-8 in a key", "a1 62 61ff 01", cbor.RuleUTF8, 1, "", "{\"a\uFFFD\":1}", map[string]any{"a\uFFFD": int64(1)}},
	{"beyond int64", "81 1bffffffffffffffff", cbor.RuleIntRange, 1, "[0]", `[18446744073709551615]`, []any{uint64(math.MaxUint64)}},
	{"below int64", "81 3b8000000000000000", cbor.RuleIntRange, 1, "[0]", `[-9223372036854775809]`, []any{data.Dirty("\x3b\x80\x00\x00\x00\x00\x00\x00\x00")}},
	{"lowest", "81 3bffffffffffffffff", cbor.RuleIntRange, 1, "[0]", `[-18446744073709551616]`, []any{data.Dirty("\x3b\xff\xff\xff\xff\xff\xff\xff\xff")}},
	{"undefined", "81 f7", cbor.RuleSimple, 1, "[0]", `[{"$cbor":"9w"}]`, []any{data.Dirty{0xf7}}},
	{"simple value", "81 f8ff", cbor.RuleSimple, 1, "[0]", `[{"$cbor":"+P8"}]`, []any{data.Dirty{0xf8, 0xff}}},
	{"tag", "81 c0 6161", cbor.RuleTag, 1, "[0]", `[{"$cbor":"wGFh"}]`, []any{data.Dirty("\xc0\x61a")}},
	{"CIDv0", "81" + badLink, cbor.RuleCID, 1, "[0]", `[{"$cbor":"2CpYIwASIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]`, nil},
	{"empty link", "81 d82a 40", cbor.RuleCID, 1, "[0]", `[{"$cbor":"2CpA"}]`, []any{data.Dirty("\xd8\x2a\x40")}},
	{"link around text", "81 d82a 6161", cbor.RuleCID, 1, "[0]", `[{"$cbor":"2CphYQ"}]`, []any{data.Dirty("\xd8\x2a\x61a")}},
	{"trailing", "01 02", cbor.RuleTrailing, 1, "", `1`, int64(1)},
}

func TestLenient(t *testing.T) {
	for _, c := range dirtyCases {
		in := bytesOf(t, c.in)
		j, l, err := data.AppendJSONLenient([]byte("x"), in)
		if err != nil || string(j) != "x"+c.json {
			t.Errorf("%s: %s, %v, want %s", c.name, j, err, c.json)
		}
		named := func(l *data.Lenient) {
			t.Helper()
			if len(l.Violations) != 1 || !bytes.Equal(l.Bytes, in) || l.More {
				t.Errorf("%s: %v", c.name, l.Violations)
				return
			}
			if v := l.Violations[0]; v.Rule != data.Rule(c.rule) || v.Offset != c.off || v.Path != c.path {
				t.Errorf("%s: %s at %d in %q, want %s at %d in %q", c.name, v.Rule, v.Offset, v.Path, c.rule, c.off, c.path)
			}
			if raw, err := l.Raw(); raw != nil || err == nil {
				t.Errorf("%s: taken for valid", c.name)
			}
		}
		named(l)
		tree, l, err := data.DecodeLenient(in)
		if c.tree != nil && !reflect.DeepEqual(tree, c.tree) || err != nil {
			t.Errorf("%s: %#v, %v, want %#v", c.name, tree, err, c.tree)
		}
		named(l)
		// As a field of any kind, and as one that a struct doesn't know, it stays what it is and can't be written.
		if c.rule == cbor.RuleTrailing {
			continue
		}
		whole := append([]byte("\xa1\x61r"), in...)
		var v struct {
			R     data.Raw   `json:"r"`
			Extra data.Extra `json:"-"`
		}
		var w struct {
			Extra data.Extra `json:"-"`
		}
		for _, p := range []any{&v, &w} {
			l, err := data.UnmarshalLenient(whole, p)
			if err != nil || len(l.Violations) != 1 || l.Violations[0].Offset != c.off+3 || !strings.HasPrefix(l.Violations[0].Path, "r") {
				t.Errorf("%s: struct: %v, %v", c.name, l.Violations, err)
			}
			if b, err := data.Marshal(p); err == nil {
				t.Errorf("%s: written as %x", c.name, b)
			}
		}
		if !bytes.Equal(v.R, in) || w.Extra.Len() != 1 || !bytes.Equal(value(w.Extra, "r"), in) {
			t.Errorf("%s: kept as %x and %+v", c.name, v.R, w.Extra)
		}
		if data.Unmarshal(whole, &v) == nil {
			t.Errorf("%s: the strict function reads it", c.name)
		}
	}
}

// What a lenient tree has in it that no other has can't be written.
func TestLenientTreeRefused(t *testing.T) {
	for _, c := range dirtyCases {
		switch c.rule {
		case cbor.RuleFloat, cbor.RuleSimple, cbor.RuleTag, cbor.RuleCID, cbor.RuleIntRange:
			tree, _, err := data.DecodeLenient(bytesOf(t, c.in))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := data.Encode(tree); err == nil {
				t.Errorf("%s: written as %x", c.name, b)
			}
		}
	}
	if b, err := data.Encode([]any{"\xff"}); err == nil {
		t.Errorf("bad UTF-8 written as %x", b)
	}
}

func TestLenientHard(t *testing.T) {
	deep := strings.Repeat("81", 33) + "00"
	for in, want := range map[string]cbor.Rule{
		"":                   cbor.RuleTruncated,
		"a1 6161":            cbor.RuleTruncated,
		"82 f7":              cbor.RuleTruncated,
		"81 9f 01":           cbor.RuleTruncated,
		"5f 6161 ff":         cbor.RuleTruncated,
		"81 1c":              cbor.RuleReserved,
		"ff":                 cbor.RuleReserved,
		"9affffffff":         cbor.RuleElements,
		"bb7fffffffffffffff": cbor.RuleElements,
		"7affffffff":         cbor.RuleTruncated,
		"82 f7" + deep:       cbor.RuleDepth,
		"9f" + strings.Repeat("00", cbor.MaxElements+1) + "ff":     cbor.RuleElements,
		"bf" + strings.Repeat("616100", cbor.MaxElements+1) + "ff": cbor.RuleElements,
	} {
		b := bytesOf(t, in)
		var v note
		_, l1, err1 := data.DecodeLenient(b)
		j, l2, err2 := data.AppendJSONLenient([]byte("x"), b)
		l3, err3 := data.UnmarshalLenient(b, &v)
		for i, err := range []error{err1, err2, err3} {
			l := []*data.Lenient{l1, l2, l3}[i]
			var e *data.Error
			if !errors.As(err, &e) || e.Rule != data.Rule(want) {
				t.Errorf("%.40s: %v, want %s", in, err, want)
				continue
			}
			if len(l.Violations) == 0 || l.Violations[len(l.Violations)-1] != e {
				t.Errorf("%.40s: the error isn't the last of %v", in, l.Violations)
			}
		}
		if string(j) != "x" {
			t.Errorf("%.40s: dst is %s", in, j)
		}
	}
}

// The limit of elements is that of definite arrays.
func TestLenientIndefiniteLimit(t *testing.T) {
	b := bytesOf(t, "9f"+strings.Repeat("00", cbor.MaxElements)+"ff")
	v, l, err := data.DecodeLenient(b)
	if a, ok := v.([]any); err != nil || !ok || len(a) != cbor.MaxElements || len(l.Violations) != 1 {
		t.Errorf("%v, %v", l.Violations, err)
	}
}

func TestLenientStruct(t *testing.T) {
	cases := []struct {
		name  string
		build func() []byte
		want  string
		check func(n *note) bool
	}{
		{"keys in source order", func() []byte {
			b := cbor.AppendMap(nil, 4)
			b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.note")
			b = cbor.AppendText(cbor.AppendText(b, "text"), "hi")
			b = cbor.AppendNull(cbor.AppendText(b, "since"))
			return cbor.AppendArray(cbor.AppendText(b, "tags"), 0)
		}, "key-order@24 key-order@39", func(n *note) bool { return n.Text == "hi" && n.Tags != nil && n.Since == nil }},
		{"the last one counts", func() []byte {
			b := cbor.AppendMap(nil, 5)
			b = cbor.AppendArray(cbor.AppendText(b, "tags"), 0)
			b = cbor.AppendText(cbor.AppendText(b, "text"), "first")
			b = cbor.AppendText(cbor.AppendText(b, "text"), "last")
			b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.note")
			return cbor.AppendNull(cbor.AppendText(b, "since"))
		}, "key-duplicate@18", func(n *note) bool { return n.Text == "last" }},
		{"missing fields", func() []byte {
			b := cbor.AppendMap(nil, 1)
			return cbor.AppendText(cbor.AppendText(b, "text"), "hi")
		}, "missing@0 missing@0 missing@0", func(n *note) bool { return n.Text == "hi" }},
		{"another type", func() []byte {
			b := cbor.AppendMap(nil, 4)
			b = cbor.AppendArray(cbor.AppendText(b, "tags"), 0)
			b = cbor.AppendText(cbor.AppendText(b, "text"), "hi")
			b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.other")
			return cbor.AppendNull(cbor.AppendText(b, "since"))
		}, "type@21 $type", func(n *note) bool { return n.Text == "hi" }},
		{"fields of other kinds", func() []byte {
			b := cbor.AppendMap(nil, 6)
			b = cbor.AppendText(cbor.AppendArray(cbor.AppendText(b, "tags"), 2), "a")
			b = cbor.AppendInt(b, 1)                                 // not text
			b = append(cbor.AppendText(b, "text"), 0xf9, 0x3e, 0x00) // a float
			b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.note")
			b = cbor.AppendText(cbor.AppendText(b, "embed"), "no union") // not a map
			b = cbor.AppendText(cbor.AppendText(b, "likes"), "many")     // not an integer
			return cbor.AppendNull(cbor.AppendText(b, "since"))
		}, "value@9 tags[1] float@15 text type@47 embed value@62 likes", func(n *note) bool {
			return n.Text == "" && reflect.DeepEqual(n.Tags, []string{"a", ""}) && n.Embed.IsZero() && n.Likes == nil
		}},
		{"an unsorted union", func() []byte {
			b := cbor.AppendMap(nil, 5)
			b = cbor.AppendArray(cbor.AppendText(b, "tags"), 0)
			b = cbor.AppendText(cbor.AppendText(b, "text"), "")
			b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.note")
			b = cbor.AppendMap(cbor.AppendText(b, "embed"), 4)
			b = cbor.AppendInt(cbor.AppendText(b, "longest"), 3)
			b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.defs#point")
			b = cbor.AppendInt(cbor.AppendText(b, "y"), 2)
			b = cbor.AppendInt(cbor.AppendText(b, "x"), 1)
			return cbor.AppendNull(cbor.AppendText(b, "since"))
		}, "key-order@52 embed key-order@81 embed key-order@84 embed", func(n *note) bool {
			p, ok := n.Embed.Value.(*point)
			return ok && p.X == 1 && p.Y == 2 && p.Extra.Len() == 1 && value(p.Extra, "longest") != nil
		}},
		{"indefinite lengths", func() []byte {
			b := append(cbor.AppendText([]byte{0xbf}, "tags"), 0x9f)
			b = append(cbor.AppendText(b, "a"), 0x7f, 0x61, 'b', 0x61, 'c', 0xff, 0xff)
			b = cbor.AppendText(cbor.AppendText(b, "text"), "hi")
			b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.note")
			return append(cbor.AppendNull(cbor.AppendText(b, "since")), 0xff)
		}, "indefinite@0 indefinite@6 tags indefinite@9 tags[1]", func(n *note) bool {
			return reflect.DeepEqual(n.Tags, []string{"a", "bc"}) && n.Text == "hi"
		}},
		{"a key that isn't text, unsorted extras", func() []byte {
			b := cbor.AppendMap(nil, 8)
			b = cbor.AppendInt(cbor.AppendInt(b, 7), 7)
			b = cbor.AppendArray(cbor.AppendText(b, "tags"), 0)
			b = cbor.AppendText(cbor.AppendText(b, "text"), "")
			b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.note")
			b = cbor.AppendNull(cbor.AppendText(b, "since"))
			b = cbor.AppendInt(cbor.AppendText(b, "zz"), 1)
			b = cbor.AppendInt(cbor.AppendText(b, "b"), 2)
			return cbor.AppendInt(cbor.AppendText(b, "zz"), 3)
		}, "key-type@1 key-order@45 key-order@49", func(n *note) bool {
			return keysOf(n.Extra) == "b zz" && value(n.Extra, "zz")[0] == 3
		}},
	}
	for _, c := range cases {
		b := c.build()
		var n note
		l, err := data.UnmarshalLenient(b, &n)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for _, v := range l.Violations {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s@%d %s", v.Rule, v.Offset, v.Path)))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, s, c.want)
		}
		if !c.check(&n) {
			t.Errorf("%s: read as %+v", c.name, n)
		}
		if err := data.Unmarshal(b, new(note)); err == nil {
			t.Errorf("%s: the strict function reads it", c.name)
		}
	}
	if _, err := data.UnmarshalLenient([]byte{0xa0}, 3); err == nil {
		t.Error("3 is no pointer")
	}
}

// However much is wrong, the list has an end, and what ended the reading is on it.
func TestLenientMany(t *testing.T) {
	many := append(cbor.AppendArray(nil, cbor.MaxElements), bytes.Repeat([]byte{0xf7}, cbor.MaxElements)...)
	_, l, err := data.DecodeLenient(many)
	if err != nil || len(l.Violations) != data.MaxViolations || !l.More {
		t.Errorf("%d violations, more %v, %v", len(l.Violations), l.More, err)
	}
	many = append(append(cbor.AppendArray(nil, 1000), bytes.Repeat([]byte{0xf7}, 999)...), 0x62, 0x61)
	_, l, err = data.DecodeLenient(many)
	if err == nil || len(l.Violations) != data.MaxViolations || l.Violations[data.MaxViolations-1] != err {
		t.Errorf("%v, %v", l.Violations[data.MaxViolations-1], err)
	}
	// Types that don't fit are found while reading, and there are as many.
	var v struct {
		Tags []string `json:"tags"`
	}
	b := cbor.AppendArray(cbor.AppendText(cbor.AppendMap(nil, 1), "tags"), 5000)
	b = append(b, make([]byte, 5000)...)
	l, err = data.UnmarshalLenient(b, &v)
	if err != nil || len(l.Violations) != data.MaxViolations || !l.More || len(v.Tags) != 5000 || l.Violations[70].Path != "tags[70]" {
		t.Errorf("%d violations, more %v, %d items, %v", len(l.Violations), l.More, len(v.Tags), err)
	}
}

// Records of whole repositories have no violations, and read leniently they are what they are read strictly.
func TestLenientFixtures(t *testing.T) {
	n := 0
	records(t, func(b []byte) {
		n++
		sameAsStrict(t, b)
	})
	if n < 300 {
		t.Errorf("%d records", n)
	}
	for _, name := range []string{"cid", "concat", "floats", "indefinite", "integer_range", "map_keys", "numeric_reduction", "short_form", "simple", "tags", "utf8"} {
		var cases []struct{ Data, Name string }
		if err := json.Unmarshal(fixtures.Read(t, "dasl/"+name+".json"), &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			b := bytesOf(t, c.Data)
			sameAsStrict(t, b)
			_, l, err := data.DecodeLenient(b)
			if (cbor.Valid(b) == nil) != (len(l.Violations) == 0) {
				t.Errorf("%s: %v, %v", c.Name, l.Violations, err)
			}
		}
	}
}

// records calls f with the records and other CBOR blocks of the repositories among the fixtures.
func records(t testing.TB, f func([]byte)) {
	for _, name := range []string{"cars/tiny.car", "cars/little.car", "cars/greenground.repo.car", "cars/empty.car"} {
		s, err := car.NewScanner(fixtures.Read(t, name), car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for {
			block, err := s.Next()
			if err != nil {
				break
			}
			if block.CID.Codec() == cid.DagCBOR {
				f(block.Data)
			}
		}
	}
}

func sameAsStrict(t testing.TB, b []byte) {
	t.Helper()
	tree, err := data.Decode(b)
	ltree, l, lerr := data.DecodeLenient(b)
	if (err == nil) != (lerr == nil && len(l.Violations) == 0) {
		t.Fatalf("%x: tree: strict %v, lenient %v, %v", b, err, lerr, l.Violations)
	}
	if err == nil && !reflect.DeepEqual(tree, ltree) {
		t.Fatalf("%x: %#v, leniently %#v", b, tree, ltree)
	}
	j, err := data.AppendJSON(nil, b)
	lj, l, lerr := data.AppendJSONLenient(nil, b)
	if (err == nil) != (lerr == nil && len(l.Violations) == 0) {
		t.Fatalf("%x: JSON: strict %v, lenient %v, %v", b, err, lerr, l.Violations)
	}
	if err == nil && !bytes.Equal(j, lj) {
		t.Fatalf("%s, leniently %s", j, lj)
	}
	if lerr == nil && !json.Valid(lj) {
		t.Fatalf("%x: not JSON: %s", b, lj)
	}
	var n, ln note
	err = data.Unmarshal(b, &n)
	l, lerr = data.UnmarshalLenient(b, &ln)
	if (err == nil) != (lerr == nil && len(l.Violations) == 0) {
		t.Fatalf("%x: struct: strict %v, lenient %v, %v", b, err, lerr, l.Violations)
	}
	if err == nil && !reflect.DeepEqual(n, ln) {
		t.Fatalf("%x: %+v, leniently %+v", b, n, ln)
	}
}

// FuzzLenient: a lenient reading ends, agrees with the strict one on what is valid, and never turns the rest into it.
func FuzzLenient(f *testing.F) {
	for _, c := range dirtyCases {
		f.Add(bytesOf(f, c.in))
	}
	f.Add(fromJSON(f, strings.Replace(full, `,"":0`, `,"w":0`, 1)))
	f.Add(bytesOf(f, "bf61629f18017f6161ffff61611b800000000000000000d82a4100ff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		sameAsStrict(t, b)
		if !bytes.Equal(in, b) {
			t.Fatal("the input was changed")
		}
		_, l, err := data.DecodeLenient(b)
		if raw, rerr := l.Raw(); rerr == nil && (err != nil || cbor.Valid(raw) != nil) {
			t.Fatalf("%x is taken for valid", raw)
		}
		for i, v := range l.Violations {
			if v.Offset < 0 || v.Offset > len(b) || i > 0 && v.Offset < l.Violations[i-1].Offset {
				t.Fatalf("%x: %v", b, l.Violations)
			}
		}
		// What is written of a struct that was read leniently is valid, or nothing.
		var n note
		if _, err := data.UnmarshalLenient(b, &n); err == nil {
			if out, err := data.Marshal(&n); err == nil && cbor.Valid(out) != nil {
				t.Fatalf("%x written as %x: %v", b, out, cbor.Valid(out))
			}
		}
	})
}

// An answer in JSON that doesn't fit its struct or the data model is read as far as it does; one that isn't JSON, or nothing of
// which can be read, is not.
func TestUnmarshalJSONLenient(t *testing.T) {
	type item struct {
		Name string `json:"name"`
		Size *int64 `json:"size,omitzero"`
	}
	type answer struct {
		Items []item `json:"items"`
	}
	for _, x := range []struct {
		in, want   string // want: the names
		violations int
	}{
		{`{"items":[{"name":"a"},{"name":"b","size":1}]}`, "a,b", 0},
		{`{"items":[{"name":"a"},{"size":1},{"name":"c","size":"x"}]}`, "a,,c", 2},
		{`{"items":[{"name":"a"}`, "", -1},
		{`{"items":[{"name":"a","size":1.5},{"name":"b"}]}`, "a,b", 1},
		{`{"items":[{"name":"a","x":{"$link":"x"}},{"name":"b","name":"b"},{"name":"c"}]}`, "a,,c", 2},
		{`{"items":[{"name":"a"},7.5]}`, "a,", 1},
		{`{"items":[{"name":"a"},{"name":01}]}`, "", -1},
		{`{"items":[{"name":"a"},{}],"items":[]}`, "", -1},
	} {
		var v answer
		l, err := data.UnmarshalJSONLenient([]byte(x.in), &v)
		if x.violations < 0 {
			if e, ok := errors.AsType[*data.Error](err); !ok || e.Rule == "" {
				t.Errorf("%s: %v", x.in, err)
			}
			continue
		}
		var names []string
		for _, it := range v.Items {
			names = append(names, it.Name)
		}
		if got := strings.Join(names, ","); err != nil || got != x.want || len(l.Violations) != x.violations {
			t.Errorf("%s: %q %v %+v", x.in, got, err, l)
		}
	}
	if _, err := data.UnmarshalJSONLenient([]byte(`{}`), answer{}); err == nil {
		t.Error("no pointer, no error")
	}
}
