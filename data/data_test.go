package data_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
)

const (
	linkStr = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
	rawStr  = "bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"
)

func ExampleParseRecord() {
	raw, err := data.ParseRecord([]byte(`{"$type": "com.example.note", "text": "1 \u00e9", "n": 2.0}`))
	fmt.Println(err, cid.Sum(cid.DagCBOR, raw))
	json, err := data.AppendJSON(nil, raw)
	fmt.Println(string(json), err)
	// Output:
	// <nil> bafyreigvxmoxfxw4jowjymccbfriaiirjmh236ld6xev3wlxxhtleer55a
	// {"n":2,"text":"1 é","$type":"com.example.note"} <nil>
}

func ExampleAppendCBOR() {
	_, err := data.AppendCBOR(nil, []byte(`{"list": [{"a": 1, "a": 2}]}`))
	fmt.Println(err)
	// Output:
	// data: key-duplicate: "a" in list[0] (byte 19)
}

func ExampleWalk() {
	raw, _ := data.AppendCBOR(nil, []byte(`{"facets": [{"features": [{"$type": "x.y#link", "uri": "https://example.com"}]}]}`))
	_ = data.Walk(raw, func(path []data.Step, v *data.Leaf) error {
		for _, s := range path {
			if s.Key != nil {
				fmt.Printf(".%s", s.Key)
			} else {
				fmt.Printf("[%s]", s.Type)
			}
		}
		fmt.Printf(" = %s\n", v.Text)
		return nil
	})
	// Output:
	// .facets[].features[x.y#link].uri = https://example.com
	// .facets[].features[x.y#link].$type = x.y#link
}

func ExampleBlobs() {
	raw, _ := data.AppendCBOR(nil, []byte(`{"pic": {"$type": "blob", "mimeType": "image/png", "size": 9, "ref": {"$link": "`+rawStr+`"}}}`))
	for b, err := range data.Blobs(raw) {
		fmt.Println(b.Ref, b.MimeType, b.Size, err)
	}
	// Output:
	// bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity image/png 9 <nil>
}

func TestInteropFixtures(t *testing.T) {
	var cases []struct {
		JSON json.RawMessage `json:"json"`
		CBOR string          `json:"cbor_base64"`
		CID  string          `json:"cid"`
	}
	load(t, "data-model-fixtures", &cases)
	for i, c := range cases {
		want, err := base64.RawStdEncoding.DecodeString(c.CBOR)
		if err != nil {
			t.Fatal(err)
		}
		got, err := data.AppendCBOR(nil, c.JSON)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d: %x, %v, want %x", i, got, err, want)
		}
		if id := cid.Sum(cid.DagCBOR, got); id.String() != c.CID {
			t.Errorf("%d: %s, want %s", i, id, c.CID)
		}
		back, err := data.AppendJSON(nil, got)
		if err != nil || !sameJSON(back, c.JSON) {
			t.Errorf("%d: %s, %v", i, back, err)
		}
		tree, err := data.Decode(want)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := data.Encode(tree); err != nil || !bytes.Equal(again, want) {
			t.Errorf("%d: the tree encodes as %x, %v", i, again, err)
		}
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func load(t testing.TB, name string, v any) {
	if err := json.Unmarshal(fixtures.Read(t, "atproto-interop/data-model/"+name+".json"), v); err != nil {
		t.Fatal(err)
	}
}

type noted struct {
	Note string          `json:"note"`
	JSON json.RawMessage `json:"json"`
}

// The files hold values whose top must be an object; most have no $type there, so they are not whole records.
func topObject(j []byte) error {
	raw, err := data.AppendCBOR(nil, j)
	if err == nil {
		r := cbor.NewReader(raw)
		_, err = r.Map()
	}
	return err
}

func TestInteropValid(t *testing.T) {
	var cases []noted
	load(t, "data-model-valid", &cases)
	for _, c := range cases {
		if err := topObject(c.JSON); err != nil {
			t.Errorf("%s: %v", c.Note, err)
		}
	}
}

func TestInteropInvalid(t *testing.T) {
	var cases []noted
	load(t, "data-model-invalid", &cases)
	for _, c := range cases {
		err := topObject(c.JSON)
		if err == nil {
			t.Errorf("%s: accepted", c.Note)
		}
		t.Log(c.Note, "->", err)
	}
}

var refusedJSON = []struct {
	in   string
	rule data.Rule
	off  int
	path string
}{
	{``, data.RuleTruncated, 0, ""},
	{`  `, data.RuleTruncated, 2, ""},
	{`{`, data.RuleTruncated, 1, ""},
	{`{"a"`, data.RuleTruncated, 4, ""},
	{`{"a":`, data.RuleTruncated, 5, "a"},
	{`{"a":1`, data.RuleTruncated, 6, ""},
	{`[1`, data.RuleTruncated, 2, ""},
	{`"abc`, data.RuleTruncated, 0, ""},
	{`"abc\`, data.RuleTruncated, 0, ""},
	{`"abc\u12`, data.RuleSyntax, 4, ""},
	{`1 2`, data.RuleTrailing, 2, ""},
	{`{}x`, data.RuleTrailing, 2, ""},
	{`[1,]`, data.RuleSyntax, 3, "[1]"},
	{`[,1]`, data.RuleSyntax, 1, "[0]"},
	{`{"a":1,}`, data.RuleSyntax, 7, ""},
	{`{,}`, data.RuleSyntax, 1, ""},
	{`{a:1}`, data.RuleSyntax, 1, ""},
	{`{'a':1}`, data.RuleSyntax, 1, ""},
	{`{"a" 1}`, data.RuleSyntax, 5, ""},
	{`[1 2]`, data.RuleSyntax, 3, ""},
	{`tru`, data.RuleSyntax, 0, ""},
	{`True`, data.RuleSyntax, 0, ""},
	{`NaN`, data.RuleSyntax, 0, ""},
	{`Infinity`, data.RuleSyntax, 0, ""},
	{`+1`, data.RuleSyntax, 0, ""},
	{`-`, data.RuleTruncated, 1, ""},
	{`01`, data.RuleSyntax, 0, ""},
	{`-01`, data.RuleSyntax, 0, ""},
	{`1.`, data.RuleTruncated, 2, ""},
	{`1.x`, data.RuleSyntax, 2, ""},
	{`.5`, data.RuleSyntax, 0, ""},
	{`1e`, data.RuleTruncated, 2, ""},
	{`1e+`, data.RuleTruncated, 3, ""},
	{`0x10`, data.RuleTrailing, 1, ""},
	{"\xef\xbb\xbf1", data.RuleSyntax, 0, ""},
	{"/**/1", data.RuleSyntax, 0, ""},
	{"\"a\nb\"", data.RuleSyntax, 2, ""},
	{"\"a\x00\"", data.RuleSyntax, 2, ""},
	{`"\x"`, data.RuleSyntax, 1, ""},
	{`"\u00g0"`, data.RuleSyntax, 1, ""},
	{"\"\xff\"", data.RuleUTF8, 0, ""},
	{"\"\xed\xa0\x80\"", data.RuleUTF8, 0, ""},
	{"\"\\n\xff\"", data.RuleUTF8, 0, ""},
	{"\"\xc0\x80 long enough for a word\"", data.RuleUTF8, 0, ""},
	{`"\ud800"`, data.RuleSurrogate, 1, ""},
	{`"\udc00"`, data.RuleSurrogate, 1, ""},
	{`"\ud800\ud800"`, data.RuleSurrogate, 1, ""},
	{`"\ud800x"`, data.RuleSurrogate, 1, ""},
	{`"\ud800\n"`, data.RuleSurrogate, 1, ""},
	{`{"\ud800":1}`, data.RuleSurrogate, 2, ""},
	{`[0,1.5]`, data.RuleFloat, 3, "[1]"},
	{`1e-1`, data.RuleFloat, 0, ""},
	{`15e-1`, data.RuleFloat, 0, ""},
	{`1.05e1`, data.RuleFloat, 0, ""},
	{`1e-99999999999999999999`, data.RuleFloat, 0, ""},
	{`9223372036854775808`, data.RuleIntRange, 0, ""},
	{`-9223372036854775809`, data.RuleIntRange, 0, ""},
	{`18446744073709551616`, data.RuleIntRange, 0, ""},
	{`99999999999999999999999999`, data.RuleIntRange, 0, ""},
	{`1e19`, data.RuleIntRange, 0, ""},
	{`1e99999999999999999999`, data.RuleIntRange, 0, ""},
	{`9223372036854775808.0`, data.RuleIntRange, 0, ""},
	{`{"":1}`, data.RuleKeyEmpty, 1, ""},
	{`{"` + strings.Repeat("k", 8193) + `":1}`, data.RuleKeySize, 1, ""},
	{`{"a":1,"a":2}`, data.RuleKeyDuplicate, 7, ""},
	{`{"a":1,"b":2,"\u0061":2}`, data.RuleKeyDuplicate, 13, ""},
	{`{"x":{"b":1,"a":1,"b":2}}`, data.RuleKeyDuplicate, 18, "x"},
	{strings.Repeat("[", 33) + strings.Repeat("]", 33), data.RuleDepth, 32, strings.Repeat("[0]", 32)},
	{strings.Repeat(`{"a":`, 32) + `{}` + strings.Repeat("}", 32), data.RuleDepth, 160, strings.Repeat("a.", 31) + "a"},
	{strings.Repeat(`{"a":`, 32) + `{"b":1}` + strings.Repeat("}", 32), data.RuleDepth, 160, strings.Repeat("a.", 31) + "a"},
	{`{"$link":1}`, data.RuleLink, 0, ""},
	{`{"$link":"."}`, data.RuleLink, 0, ""},
	{`{"$link":"` + linkStr + `","x":1}`, data.RuleLink, 0, ""},
	{`{"x":1,"$link":"` + linkStr + `"}`, data.RuleLink, 0, ""},
	{`{"$link":"` + linkStr + `","$link":"` + linkStr + `"}`, data.RuleLink, 0, ""},
	{`{"$link":{"$link":"` + linkStr + `"}}`, data.RuleLink, 0, ""},
	{`{"$link":"QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR"}`, data.RuleLink, 0, ""},
	{`{"$bytes":[1,2]}`, data.RuleBytes, 0, ""},
	{`{"$bytes":"AQ","x":1}`, data.RuleBytes, 0, ""},
	{`{"$bytes":"A"}`, data.RuleBytes, 0, ""},
	{`{"$bytes":"AQ="}`, data.RuleBytes, 0, ""},
	{`{"$bytes":"AQ==="}`, data.RuleBytes, 0, ""},
	{`{"$bytes":"AR"}`, data.RuleBytes, 0, ""},
	{`{"$bytes":"_-__"}`, data.RuleBytes, 0, ""},
	{`{"$bytes":"AQ\nAQ"}`, data.RuleBytes, 0, ""},
	{`{"$bytes":"===="}`, data.RuleBytes, 0, ""},
	{`{"$type":null}`, data.RuleType, 1, ""},
	{`{"$type":1}`, data.RuleType, 1, ""},
	{`{"$type":""}`, data.RuleType, 1, ""},
	{`{"$type":["x"]}`, data.RuleType, 1, ""},
	{`{"a":{"$type":"blob"}}`, data.RuleBlob, 5, "a"},
	{`{"$type":"blob","mimeType":"a/b","size":1,"ref":{"$link":"` + linkStr + `"}}`, data.RuleBlob, 0, ""},
	{`{"$type":"blob","mimeType":"a/b","size":1,"ref":"` + rawStr + `"}`, data.RuleBlob, 0, ""},
	{`{"$type":"blob","mimeType":"","size":1,"ref":{"$link":"` + rawStr + `"}}`, data.RuleBlob, 0, ""},
	{`{"$type":"blob","mimeType":"a/b","size":0,"ref":{"$link":"` + rawStr + `"}}`, data.RuleBlob, 0, ""},
	{`{"$type":"blob","mimeType":"a/b","size":"1","ref":{"$link":"` + rawStr + `"}}`, data.RuleBlob, 0, ""},
	{`{"$type":"blob","mimeType":5,"size":1,"ref":{"$link":"` + rawStr + `"}}`, data.RuleBlob, 0, ""},
}

func TestRefusedJSON(t *testing.T) {
	for _, c := range refusedJSON {
		got, err := data.AppendCBOR([]byte("dst"), []byte(c.in))
		var e *data.Error
		if !errors.As(err, &e) {
			t.Errorf("%.60s: %x, %v, want %s", c.in, got, err, c.rule)
			continue
		}
		if string(got) != "dst" {
			t.Errorf("%.60s: dst is %x", c.in, got)
		}
		if e.Rule != c.rule || e.Offset != c.off || e.Path != c.path {
			t.Errorf("%.60s: %s at %d in %q, want %s at %d in %q", c.in, e.Rule, e.Offset, e.Path, c.rule, c.off, c.path)
		}
	}
}

func TestElementLimits(t *testing.T) {
	var big strings.Builder
	for i := range cbor.MaxElements {
		fmt.Fprintf(&big, `,"k%d":0`, i)
	}
	at := "{" + big.String()[1:] + "}"
	raw, err := data.AppendCBOR(nil, []byte(at))
	if err != nil || cbor.Valid(raw) != nil {
		t.Fatal(err, cbor.Valid(raw))
	}
	var e *data.Error
	if _, err = data.AppendCBOR(nil, []byte(`{"one":1`+big.String()+"}")); !errors.As(err, &e) || e.Rule != data.RuleElements {
		t.Errorf("object: %v", err)
	}
	zeros := "[" + strings.Repeat("0,", cbor.MaxElements-1) + "0]"
	if raw, err = data.AppendCBOR(nil, []byte(zeros)); err != nil || cbor.Valid(raw) != nil {
		t.Fatal(err, cbor.Valid(raw))
	}
	if _, err = data.AppendCBOR(nil, []byte("[0,"+zeros[1:])); !errors.As(err, &e) || e.Rule != data.RuleElements {
		t.Errorf("array: %v", err)
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "-0": 0, "0.0": 0, "-0.0": 0, "0e5": 0, "0.000e-5": 0, "123": 123, "123.0": 123, "1e3": 1000, "1E+3": 1000, "1.5e1": 15,
		"0.05e2": 5, "10e-1": 1, "1000.00e-3": 1, "9007199254740993": 9007199254740993, "9007199254740993.0": 9007199254740993,
		"9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64, "-9223372036854775808.000": math.MinInt64,
		"9.223372036854775807e18": math.MaxInt64, "0.00000000000000000000000000001e29": 1, "-1": -1, "-24": -24, "-25": -25,
	} {
		raw, err := data.AppendCBOR(nil, []byte(in))
		if err != nil || !bytes.Equal(raw, cbor.AppendInt(nil, want)) {
			t.Errorf("%s: %x, %v, want %d", in, raw, err, want)
		}
	}
}

func TestStrings(t *testing.T) {
	for in, want := range map[string]string{
		`""`: "", `"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t", `"\u0041\u00e9\u20AC"`: "Aé€", `"\ud83d\ude00"`: "😀", `"\u0000"`: "\x00",
		`"é😀"`: "é😀", `"0123456701234567\n"`: "0123456701234567\n", "\"\x7f\u2028\"": "\x7f\u2028", `"\uffff"`: "\uffff", `"\ufffd"`: "\ufffd",
		`"` + strings.Repeat(`\n`, 300) + `"`: strings.Repeat("\n", 300), `"` + strings.Repeat(`\u0001`, 23) + `"`: strings.Repeat("\x01", 23),
	} {
		raw, err := data.AppendCBOR(nil, []byte(in))
		if err != nil || !bytes.Equal(raw, cbor.AppendText(nil, want)) {
			t.Errorf("%s: %x, %v", in, raw, err)
			continue
		}
		out, err := data.AppendJSON(nil, raw)
		var back string
		if err != nil || json.Unmarshal(out, &back) != nil || back != want {
			t.Errorf("%s: written as %s, %v", in, out, err)
		}
	}
}

func TestBytesAndLinks(t *testing.T) {
	link, _ := cid.Parse(linkStr)
	for in, want := range map[string][]byte{
		`{"$bytes":""}`:               cbor.AppendBytes(nil, nil),
		`{"$bytes":"AQ"}`:             cbor.AppendBytes(nil, []byte{1}),
		`{"$bytes":"AQ=="}`:           cbor.AppendBytes(nil, []byte{1}),
		`{"$bytes":"AQI="}`:           cbor.AppendBytes(nil, []byte{1, 2}),
		`{ "$bytes" : "AQID" }`:       cbor.AppendBytes(nil, []byte{1, 2, 3}),
		`{"$bytes":"\/\/\/\/"}`:       cbor.AppendBytes(nil, []byte{255, 255, 255}),
		`{"\u0024bytes":"AQ"}`:        cbor.AppendBytes(nil, []byte{1}),
		`{"$link":"` + linkStr + `"}`: cbor.AppendLink(nil, link),
		strings.Repeat("[", 32) + `{"$link":"` + linkStr + `"}` + strings.Repeat("]", 32): append(bytes.Repeat([]byte{0x81}, 32), cbor.AppendLink(nil, link)...),
	} {
		raw, err := data.AppendCBOR(nil, []byte(in))
		if err != nil || !bytes.Equal(raw, want) {
			t.Errorf("%s: %x, %v", in, raw, err)
			continue
		}
		out, err := data.AppendJSON(nil, raw)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if again, err := data.AppendCBOR(nil, out); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s: %s, %x, %v", in, out, again, err)
		}
	}
}

func TestRefusedCBOR(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "cbor: truncated",
		"0000":                          "cbor: trailing",
		"f90000":                        "cbor: float",
		"a2616200616100":                "cbor: key-order",
		"a2616100616100":                "cbor: key-duplicate",
		strings.Repeat("81", 33) + "00": "data: depth",
		"a165" + hex.EncodeToString([]byte("$link")) + "6161":          "data: link",
		"a1616181a166" + hex.EncodeToString([]byte("$bytes")) + "6161": "data: bytes",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := data.AppendJSON([]byte("dst"), b); err == nil || !strings.HasPrefix(err.Error(), want) || string(out) != "dst" {
			t.Errorf("%.60s: %s, %v, want %s", in, out, err, want)
		}
	}
}

func TestTranscoderDepth(t *testing.T) {
	deep := strings.Repeat(`{"parent":`, 300) + "1" + strings.Repeat("}", 300)
	tr := data.Transcoder{MaxDepth: 300}
	raw, err := tr.AppendCBOR(nil, []byte(deep))
	if err != nil {
		t.Fatal(err)
	}
	out, err := tr.AppendJSON(nil, raw)
	if err != nil || string(out) != deep {
		t.Fatal(err)
	}
	tr.MaxDepth--
	if _, err := tr.AppendCBOR(nil, []byte(deep)); err == nil {
		t.Error("JSON over the limit accepted")
	}
	if _, err := tr.AppendJSON(nil, raw); err == nil {
		t.Error("CBOR over the limit accepted")
	}
}

// tree draws a value of the data model.
func tree(t *rapid.T, depth int) any {
	kinds := 7
	if depth < 5 {
		kinds = 10
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return rapid.Int64().Draw(t, "int")
	case 3:
		return rapid.String().Draw(t, "text")
	case 4:
		return rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
	case 5:
		return cid.Sum([]cid.Codec{cid.Raw, cid.DagCBOR}[rapid.IntRange(0, 1).Draw(t, "codec")], []byte{rapid.Byte().Draw(t, "link")})
	case 6:
		return rapid.StringMatching("[ -~\\n\\x01é€😀\"]{0,40}").Draw(t, "string")
	case 7:
		a := []any{}
		for range rapid.IntRange(0, 30).Draw(t, "items") {
			a = append(a, tree(t, depth+1))
		}
		return a
	default:
		m := map[string]any{}
		for range rapid.IntRange(0, 30).Draw(t, "entries") {
			k := rapid.StringMatching("[a-z]{1,3}|.{1,30}").Draw(t, "key")
			if k != "$link" && k != "$bytes" && k != "$type" {
				m[k] = tree(t, depth+1)
			}
		}
		if rapid.Bool().Draw(t, "typed") {
			m["$type"] = rapid.StringMatching("com\\.example\\.[a-z]{1,20}(#[a-z]+)?").Draw(t, "$type")
		}
		return m
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := tree(t, 0)
		raw, err := data.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := cbor.Valid(raw); err != nil {
			t.Fatalf("%x: %v", raw, err)
		}
		back, err := data.Decode(raw)
		if err != nil || !reflect.DeepEqual(back, v) {
			t.Fatalf("%#v decoded as %#v, %v", v, back, err)
		}
		j, err := data.AppendJSON(nil, raw)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(j) {
			t.Fatalf("not JSON: %s", j)
		}
		again, err := data.AppendCBOR(nil, j)
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%x -> %s -> %x, %v", raw, j, again, err)
		}
		j2, err := data.AppendJSON(nil, again)
		if err != nil || !bytes.Equal(j2, j) {
			t.Fatalf("%s -> %s, %v", j, j2, err)
		}
		// Another order and spelling of the same JSON gives the same CBOR. (The library sorts keys its way, and escapes.)
		var loose any
		d := json.NewDecoder(bytes.NewReader(j))
		d.UseNumber()
		if err := d.Decode(&loose); err != nil {
			t.Fatal(err)
		}
		other, err := json.MarshalIndent(loose, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if again, err = data.AppendCBOR(nil, other); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%s -> %x, %v, want %x", other, again, err, raw)
		}
	})
}

func TestEncodeRefuses(t *testing.T) {
	// Among them what the DASL vectors call invalid_out: floats, NaN, infinities, big numbers, times, maps with other keys.
	for _, v := range []any{
		1.5, 0.0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), float32(1), uint64(1), time.Now, struct{}{}, map[int]any{1: 2},
		"\xff", map[string]any{"": 1}, map[string]any{"\xff": 1}, map[string]any{strings.Repeat("k", 8193): 1}, cid.CID{},
		[]any{1, 1.5}, data.Raw("\xf7"), data.Raw{0, 0}, data.Blob{}, &data.Blob{MimeType: "a/b", Size: 1},
	} {
		if b, err := data.Encode(v); err == nil {
			t.Errorf("%T %v: %x", v, v, b)
		}
	}
	var deep any = int64(1)
	for range 33 {
		deep = []any{deep}
	}
	if _, err := data.Encode(deep); err == nil {
		t.Error("33 levels encoded")
	}
}

func TestRawJSON(t *testing.T) {
	var v struct{ A, B data.Raw }
	if err := json.Unmarshal([]byte(`{"A":{"b":1,"a":{"$bytes":"AQ=="}}}`), &v); err != nil {
		t.Fatal(err)
	}
	if out, err := json.Marshal(v); err != nil || string(out) != `{"A":{"a":{"$bytes":"AQ"},"b":1},"B":null}` {
		t.Fatal(string(out), err)
	}
}

func TestBlob(t *testing.T) {
	for _, in := range []string{
		`{"ref":{"$link":"` + rawStr + `"},"size":10,"$type":"blob","mimeType":"image/png"}`,
		`{"a":1,"ref":{"$link":"` + rawStr + `"},"alt":"x","cid":3,"size":10,"$type":"blob","extra":{"b":[]},"mimeType":"image/png","mimeTypeX":null}`,
		`{"cid":"` + rawStr + `","mimeType":"image/png"}`,
		`{"cid":"` + rawStr + `","note":1,"mimeType":"image/png"}`,
	} {
		want, err := data.AppendCBOR(nil, []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		var b data.Blob
		r := cbor.NewReader(want)
		if err := b.ReadCBOR(&r); err != nil || r.End() != nil {
			t.Fatalf("%s: %v", in, err)
		}
		if b.Legacy != !strings.Contains(in, "$type") || b.Ref.String() != rawStr || b.MimeType != "image/png" {
			t.Errorf("%s: %+v", in, b)
		}
		if got, err := b.AppendCBOR(nil); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %x, %v, want %x", in, got, err, want)
		}
		out, err := json.Marshal(b)
		var again data.Blob
		if err != nil || json.Unmarshal(out, &again) != nil || !reflect.DeepEqual(b, again) {
			t.Errorf("%s: %s, %v", in, out, err)
		}
	}
	for _, in := range []string{`1`, `{}`, `{"cid":"x","mimeType":"a/b"}`, `{"cid":1,"mimeType":"a/b"}`, `{"cid":"` + rawStr + `"}`, `{"ref":{"$link":"` + rawStr + `"},"mimeType":"a/b"}`} {
		var b data.Blob
		if err := json.Unmarshal([]byte(in), &b); err == nil {
			t.Errorf("%s: %+v", in, b)
		}
	}
}

func TestExtra(t *testing.T) {
	var x data.Extra
	for _, k := range []string{"bb", "a", "c", "bb", "aa"} {
		x.Set(k, data.Raw{0x01})
	}
	if got := keysOf(x); got != "a c aa bb" || x.Len() != 4 {
		t.Error(got, x.Len())
	}
	if _, ok := x.Get("aa"); !ok {
		t.Error("aa is lost")
	}
	if _, ok := x.Get("b"); ok {
		t.Error("b is there")
	}

	y := x
	y.Set("a", data.Raw{0x02})
	y.Set("b", data.Raw{0xf5})
	y.Delete("bb")
	y.Delete("nothing")
	if x.String() != `{"a":1,"c":1,"aa":1,"bb":1}` || y.String() != `{"a":2,"b":true,"c":1,"aa":1}` {
		t.Errorf("%v and its changed copy %v", x, y)
	}
	if z := data.NewExtra(data.ExtraField{"c", data.Raw{1}}, data.ExtraField{"a", data.Raw{7}}, data.ExtraField{"b", data.Raw{0xf5}},
		data.ExtraField{"aa", data.Raw{1}}, data.ExtraField{"a", data.Raw{2}}); !z.Equal(y) || z.Equal(x) || x.Equal(data.Extra{}) {
		t.Errorf("%v is not %v", z, y)
	}
	for _, k := range strings.Fields(keysOf(y)) {
		y.Delete(k)
	}
	if !y.Equal(data.Extra{}) || !reflect.DeepEqual(y, data.Extra{}) || y.String() != "{}" {
		t.Errorf("without entries: %v", y)
	}
}

func keysOf(x data.Extra) string {
	var keys []string
	for k := range x.All() {
		keys = append(keys, k)
	}
	return strings.Join(keys, " ")
}

func value(x data.Extra, key string) data.Raw {
	v, _ := x.Get(key)
	return v
}

func TestWalk(t *testing.T) {
	raw := mustCBOR(t, `{
		"text": "t", "n": 1, "ok": true, "none": null, "raw": {"$bytes": "AQI"}, "link": {"$link": "`+linkStr+`"},
		"embed": {"$type": "e.images", "images": [{"alt": "", "image": {"$type": "blob", "ref": {"$link": "`+rawStr+`"}, "mimeType": "a/b", "size": 7}}]},
		"list": [["x", ["y"]], {"$type": "l.i", "z": "z"}], "old": {"cid": "`+rawStr+`", "mimeType": "m/n"}}`)
	var got []string
	err := data.Walk(raw, func(path []data.Step, v *data.Leaf) error {
		var s strings.Builder
		for _, p := range path {
			if p.Key != nil {
				fmt.Fprintf(&s, ".%s", p.Key)
			} else {
				fmt.Fprintf(&s, "[%d]", p.Index)
			}
			if p.Type != nil {
				fmt.Fprintf(&s, "<%s>", p.Type)
			}
		}
		switch v.Kind {
		case cbor.KindText:
			fmt.Fprintf(&s, "=%s", v.Text)
		case cbor.KindBytes:
			fmt.Fprintf(&s, "=%x", v.Bytes)
		case cbor.KindLink:
			fmt.Fprintf(&s, "=%s", v.Link)
		case cbor.KindMap:
			fmt.Fprintf(&s, "=%s %s %d", v.Blob.Ref, v.Blob.MimeType, v.Blob.Size)
		}
		got = append(got, s.String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		".old.cid=" + rawStr, ".old.mimeType=m/n", ".raw=0102", ".link=" + linkStr, ".list[0][0]=x", ".list[0][1][0]=y", ".list[1]<l.i>.z=z",
		".list[1]<l.i>.$type=l.i", ".text=t", ".embed<e.images>.$type=e.images", ".embed<e.images>.images[0].alt=",
		".embed<e.images>.images[0].image<blob>=" + rawStr + " a/b 7",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	stop := errors.New("stop")
	if err := data.Walk(raw, func([]data.Step, *data.Leaf) error { return stop }); err != stop {
		t.Error(err)
	}
	if err := data.Walk([]byte{0x81, 0xf7}, func([]data.Step, *data.Leaf) error { return nil }); err == nil {
		t.Error("undefined accepted")
	}
}

func TestBlobs(t *testing.T) {
	blob := `{"$type": "blob", "ref": {"$link": "` + rawStr + `"}, "mimeType": "a/b", "size": 7}`
	raw := mustCBOR(t, `{"a": `+blob+`, "b": [{"c": `+blob+`}, {"cid": "`+rawStr+`", "mimeType": "m/n"}], "c": {"cid": "x", "uri": "y"},
		"d": {"a": 1, "b": 2, "c": 3, "d": 4}}`)
	var got []string
	for b, err := range data.Blobs(raw) {
		got = append(got, fmt.Sprintf("%s%d %v %v", b.MimeType, b.Size, b.Legacy, err))
	}
	if s := strings.Join(got, " "); s != "a/b7 false <nil> a/b7 false <nil> m/n0 true <nil>" {
		t.Error(s)
	}
	for range data.Blobs(raw) {
		break
	}
	n := 0
	for _, err := range data.Blobs(append(raw, 0xff)) {
		if n++; n == 4 && err == nil {
			t.Error("trailing byte accepted")
		}
	}
	if n != 4 {
		t.Error(n)
	}
}

func TestCheckRecord(t *testing.T) {
	for in, want := range map[string]string{
		"00":               "data: record",
		"a0":               "data: type",
		"a1616100":         "data: type",
		"a165247479706500": "data: type",
		"a165" + hex.EncodeToString([]byte("$type")) + "60":                                                        "data: type",
		"a165" + hex.EncodeToString([]byte("$type")) + "6161":                                                      "",
		"a265" + hex.EncodeToString([]byte("$type")) + "616100":                                                    "cbor: ",
		"a26161a165" + hex.EncodeToString([]byte("$type")) + "0065" + hex.EncodeToString([]byte("$type")) + "6161": "data: type",
		"a26161a165" + hex.EncodeToString([]byte("$link")) + "6065" + hex.EncodeToString([]byte("$type")) + "6161": "data: link",
		"a165" + hex.EncodeToString([]byte("$type")) + "64" + hex.EncodeToString([]byte("blob")):                   "data: blob",
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(in, err)
		}
		err = data.CheckRecord(b)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
	big := fmt.Sprintf(`{"$type":"x.y.z","t":"%s"}`, strings.Repeat("x", data.MaxRecord))
	if _, err := data.ParseRecord([]byte(big)); err == nil {
		t.Error("too large a record accepted")
	}
	if _, err := data.ParseRecord(bytes.Repeat([]byte(" "), data.MaxRecordJSON+1)); err == nil {
		t.Error("too much JSON accepted")
	}
}

func mustCBOR(t testing.TB, j string) []byte {
	raw, err := data.AppendCBOR(nil, []byte(j))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func rawCID(t testing.TB) cid.CID {
	c, err := cid.Parse(rawStr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
