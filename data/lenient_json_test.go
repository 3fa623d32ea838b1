package data_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
)

// A record with a number that the data model doesn't have is shown as it is, and can't be written.
func ExampleAppendCBORLenient() {
	raw, l, err := data.AppendCBORLenient(nil, []byte(`{"$type":"com.example.place","name":"Oslo","lat":59.910}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range l.Violations {
		fmt.Println(v)
	}
	text, _, _ := data.AppendJSONLenient(nil, raw)
	fmt.Println(string(text))
	_, err = data.Marshal((*data.Raw)(&raw))
	fmt.Println(err != nil)
	// Output:
	// data: float: 59.910 in lat (byte 5)
	// {"lat":59.910,"name":"Oslo","$type":"com.example.place"}
	// true
}

// faults are values that JSON can say and the data model can't, each with its rule.
var faults = []struct {
	in   string
	rule data.Rule
	kept string // what goes as a whole, if not all of it
}{
	{`1.5`, data.RuleFloat, ""},
	{`-0.25e-1`, data.RuleFloat, ""},
	{`9223372036854775808`, data.RuleIntRange, ""},
	{`-99999999999999999999999`, data.RuleIntRange, ""},
	{`1e400`, data.RuleIntRange, ""},
	{`{"$link":"x"}`, data.RuleLink, ""},
	{`{"$link":1}`, data.RuleLink, ""},
	{`{"$link":"` + linkStr + `","a":[1.5]}`, data.RuleLink, ""},
	{`{"a":{"b":[1,"}"]},"$link":"` + linkStr + `"}`, data.RuleLink, ""},
	{`{"$bytes":"!"}`, data.RuleBytes, ""},
	{`{"$bytes":{}}`, data.RuleBytes, ""},
	{`{"$type":1}`, data.RuleType, ""},
	{`{"$type":""}`, data.RuleType, ""},
	{`{"$type":"blob","ref":5}`, data.RuleBlob, ""},
	{`{"a":1,"a":2}`, data.RuleKeyDuplicate, ""},
	{`{"":1}`, data.RuleKeyEmpty, ""},
	{`{"` + strings.Repeat("k", cbor.MaxKey+1) + `":1}`, data.RuleKeySize, ""},
	{`"\ud800"`, data.RuleSurrogate, ""},
	{"\"\xff\"", data.RuleUTF8, ""},
	{"{\"\xff\":1}", data.RuleUTF8, ""},
	{`{"b":"\udc00","a":[0]}`, data.RuleSurrogate, `"\udc00"`},
	{`[1,[2,[ 3.25 ]]]`, data.RuleFloat, `3.25`},
}

// TestAppendCBORLenient puts each fault at several places, and finds it there by its rule and path, with its bytes as they
// were; strict readers refuse what comes out.
func TestAppendCBORLenient(t *testing.T) {
	for _, x := range faults {
		if _, err := data.AppendCBOR(nil, []byte(x.in)); err == nil {
			t.Fatalf("%s is no fault", x.in)
		}
		kept := x.kept
		if kept == "" {
			kept = x.in
		}
		for _, frame := range []struct{ form, path string }{
			{"%s", ""}, {" %s ", ""}, {"[0, %s ,{}]", "[1]"}, {`{"zz":1,"a":{"b": %s,"c":true},"b":[]}`, "a.b"}, {`[[{"b":1,"a":[%s]}]]`, "[0][0].a[0]"},
		} {
			in := fmt.Sprintf(frame.form, x.in)
			raw, l, err := data.AppendCBORLenient([]byte("head"), []byte(in))
			if err != nil {
				t.Errorf("%s: %v", in, err)
				continue
			}
			raw, ok := bytes.CutPrefix(raw, []byte("head"))
			if !ok || len(l.Violations) != 1 || l.Violations[0].Rule != x.rule || !strings.HasPrefix(l.Violations[0].Path, frame.path) || !bytes.Equal(l.Bytes, raw) {
				t.Errorf("%s: %+v", in, l)
				continue
			}
			if !bytes.Contains(raw, []byte(kept)) {
				t.Errorf("%s: %q is not in %q", in, kept, raw)
			}
			if _, err := l.Raw(); err == nil || cbor.Valid(raw) == nil || data.CheckRecord(raw) == nil {
				t.Errorf("%s is taken for valid", in)
			}
			if e, ok := errors.AsType[*data.Error](data.Check(raw)); !ok || e.Rule != x.rule || e.Path != l.Violations[0].Path {
				t.Errorf("%s: checked: %v", in, e)
			}
			// As JSON it is what it was, but for what can't be in JSON.
			out, again, err := data.AppendJSONLenient(nil, raw)
			if err != nil || len(again.Violations) != 1 || again.Violations[0].Rule != x.rule || !json.Valid(out) || !bytes.Contains(out, []byte(strings.ToValidUTF8(kept, "\uFFFD"))) {
				t.Errorf("%s: shown as %s, %v, %+v", in, out, err, again)
			}
		}
	}
	for _, in := range []string{``, `{`, `[1.5`, `[1.5,]`, `{"a":1.5,}`, `{"$link":"x"`, `{"$type":1 "a":2}`, `1.`, `01.5`, `"\ud800`, `{"a":1,"a":2`, `[1.5]x`, `{"":tru}`, strings.Repeat("[", 100) + "1.5" + strings.Repeat("]", 100)} {
		if raw, l, err := data.AppendCBORLenient(nil, []byte(in)); err == nil {
			t.Errorf("%s: %x, %+v", in, raw, l)
		}
	}
}

// TestDirtyTree reads kept values as Go values, as far as there are any.
func TestDirtyTree(t *testing.T) {
	raw, _, err := data.AppendCBORLenient(nil, []byte(`[1.5,18446744073709551615,1e300,{"$link":"x"}]`))
	if err != nil {
		t.Fatal(err)
	}
	v, l, err := data.DecodeLenient(raw)
	list, ok := v.([]any)
	if err != nil || !ok || len(list) != 4 || len(l.Violations) != 4 {
		t.Fatalf("%v, %+v, %v", v, l, err)
	}
	if list[0] != 1.5 || list[1] != uint64(18446744073709551615) || list[2] != 1e300 {
		t.Errorf("%v", list)
	}
	if _, ok := list[3].(data.Dirty); !ok {
		t.Errorf("%T", list[3])
	}
	if _, err := data.Encode(v); err == nil {
		t.Error("it was written")
	}
}

// TestKeptTooOften has objects within each other that are all at fault: the work stays within bounds, and so does the memory.
func TestKeptTooOften(t *testing.T) {
	pad := `"` + strings.Repeat("x", 1<<20) + `"`
	in := strings.Repeat(`{"a":`, 30) + pad + strings.Repeat(`,"a":1}`, 30)
	if _, _, err := data.AppendCBORLenient(nil, []byte(in)); err == nil {
		t.Error("the input was read again for each of its levels")
	}
	if raw, l, err := data.AppendCBORLenient(nil, []byte(`[`+strings.Repeat("1.5,", 5000)+`1]`)); err != nil || len(l.Violations) != data.MaxViolations || !l.More || len(raw) > 50_000 {
		t.Errorf("many: %d bytes, %v", len(raw), err)
	}
}

// TestDirtyPage reads an answer of 100 records of which one is at fault: it is one, and the others are as ever.
func TestDirtyPage(t *testing.T) {
	var in strings.Builder
	in.WriteString(`{"records":[`)
	for i := range 100 {
		lat := fmt.Sprint(i)
		if i == 42 {
			lat = "59.910"
		}
		fmt.Fprintf(&in, `{"uri":"at://a/b/%d","value":{"$type":"com.example.place","lat":%s}},`, i, lat)
	}
	page := strings.TrimSuffix(in.String(), ",") + `],"cursor":"next"}`
	var out struct {
		Cursor  *string `json:"cursor,omitzero"`
		Records []struct {
			URI   string   `json:"uri"`
			Value data.Raw `json:"value"`
		} `json:"records"`
	}
	if err := data.UnmarshalJSON([]byte(page), &out); err == nil {
		t.Fatal("strictly read")
	}
	l, err := data.UnmarshalJSONLenient([]byte(page), &out)
	if err != nil || len(out.Records) != 100 || *out.Cursor != "next" || len(l.Violations) != 1 || l.Violations[0].Path != "records[42].value.lat" || l.Violations[0].Rule != data.RuleFloat {
		t.Fatalf("%d records, %+v, %v", len(out.Records), l, err)
	}
	for i, r := range out.Records {
		if err := data.Check(r.Value); (err == nil) != (i != 42) || i != 42 && data.TypeOf(r.Value) != "com.example.place" {
			t.Errorf("record %d: %v, type %q", i, err, data.TypeOf(r.Value))
		}
	}
	if _, err := data.Marshal(&out); err == nil {
		t.Error("an answer with a record at fault was written")
	}
}

// FuzzLenientJSON: what the strict reading accepts the lenient one reads the same; what only the lenient one accepts is JSON,
// comes with a violation, is not valid, and is shown as JSON that reads the same again.
func FuzzLenientJSON(f *testing.F) {
	for _, x := range faults {
		f.Add([]byte(x.in))
		f.Add([]byte(`{"a":[` + x.in + `,1],"b":` + x.in + `}`))
	}
	for _, c := range refusedJSON {
		if len(c.in) < 500 {
			f.Add([]byte(c.in))
		}
	}
	f.Add([]byte(postJSON))
	f.Fuzz(func(t *testing.T, in []byte) {
		strict, serr := data.AppendCBOR(nil, in)
		raw, l, err := data.AppendCBORLenient(nil, in)
		if serr == nil {
			if err != nil || !bytes.Equal(raw, strict) || len(l.Violations) != 0 {
				t.Fatalf("%q: strictly %x, leniently %x, %+v, %v", in, strict, raw, l, err)
			}
			return
		}
		var n note
		if sl, err := data.UnmarshalJSONLenient(in, &n); err == nil {
			if len(sl.Violations) == 0 {
				t.Fatalf("%q fits", in)
			}
			if out, err := data.Marshal(&n); err == nil && cbor.Valid(out) != nil {
				t.Fatalf("%q written as %x", in, out)
			}
		}
		if err != nil {
			return
		}
		if !json.Valid(in) || len(l.Violations) == 0 || cbor.Valid(raw) == nil || data.Check(raw) == nil {
			t.Fatalf("%q: %x, %+v", in, raw, l)
		}
		if _, err := data.Marshal((*data.Raw)(&raw)); err == nil {
			t.Fatalf("%q was written", in)
		}
		for _, v := range l.Violations {
			if !v.Rule.Soft() {
				t.Fatalf("%q: %v", in, v)
			}
		}
		shown, _, err := data.AppendJSONLenient(nil, raw)
		if err != nil || !json.Valid(shown) {
			t.Fatalf("%q: shown as %q, %v", in, shown, err)
		}
		if again, _, err := data.AppendCBORLenient(nil, shown); bytes.ContainsRune(shown, '\uFFFD') {
			return // not all of it can be shown
		} else if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%q: shown as %q, which is %x (%v) and not %x", in, shown, again, err, raw)
		}
	})
}
