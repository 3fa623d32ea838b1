package data_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
)

// FuzzJSON: what the parser accepts is JSON by the standard library too, becomes valid CBOR, and survives the way back.
func FuzzJSON(f *testing.F) {
	for _, c := range refusedJSON {
		if len(c.in) < 500 {
			f.Add([]byte(c.in))
		}
	}
	for _, s := range []string{
		postJSON, `{"b":[1,2,{"$bytes":"AQ=="}],"a":{"$link":"` + linkStr + `"}}`, `[1e2,-0.0,"\ud83d\ude00\n",true,false,null]`,
		`{"$type":"blob","ref":{"$link":"` + rawStr + `"},"mimeType":"a/b","size":1}`, `{"aa":1,"b":2,"a":3}`,
	} {
		f.Add([]byte(s))
	}
	for _, in := range interopJSON(f) {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		raw, err := data.AppendCBOR(nil, in)
		if err != nil {
			return
		}
		if !json.Valid(in) {
			t.Fatalf("%q isn't JSON", in)
		}
		if err := cbor.Valid(raw); err != nil {
			t.Fatalf("%q -> %x: %v", in, raw, err)
		}
		// Long exponents and other spellings of numbers are compared by value, through the library's map.
		var want any
		d := json.NewDecoder(bytes.NewReader(in))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		j, err := data.AppendJSON(nil, raw)
		if err != nil {
			t.Fatalf("%q -> %x: %v", in, raw, err)
		}
		var got any
		if err := json.Unmarshal(j, &got); err != nil {
			t.Fatalf("%q -> %q: %v", in, j, err)
		}
		again, err := data.AppendCBOR(nil, j)
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%q -> %x -> %q -> %x, %v", in, raw, j, again, err)
		}
		if s := string(in); !strings.ContainsAny(s, ".eE$") {
			var plain any
			if err := json.Unmarshal(in, &plain); err == nil && !reflect.DeepEqual(plain, got) {
				t.Fatalf("%q -> %q", in, j)
			}
		}
	})
}

// FuzzCBOR: whatever is strict CBOR can be decoded, walked over and, but for the reserved keys, written as JSON and back.
func FuzzCBOR(f *testing.F) {
	f.Add(mustCBOR(f, postJSON))
	f.Add([]byte("\xa1\x65$link\x61a"))
	f.Add([]byte("\xa1\x65$type\x64blob"))
	f.Add([]byte("\x82\xf7\xf9\x00\x00"))
	f.Add(mustCBOR(f, `{"cid":"`+rawStr+`","mimeType":"a/b"}`))
	f.Add(mustCBOR(f, `{"ref":{"$link":"`+rawStr+`"},"mimeType":"a/b","size":1,"$type":"blob","zz":1}`))
	for _, in := range interopJSON(f) {
		if b, err := data.AppendCBOR(nil, in); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		valid := cbor.Valid(b)
		j, jerr := data.AppendJSON(nil, b)
		tree, terr := data.Decode(b)
		werr := data.Walk(b, func([]data.Step, *data.Leaf) error { return nil })
		var berr error
		for blob, err := range data.Blobs(b) {
			if err != nil {
				berr = err
				break
			}
			raw, err := blob.AppendCBOR(nil)
			if err == nil && !bytes.Contains(b, raw) {
				t.Fatalf("blob %+v isn't in %x", blob, b)
			}
		}
		_ = data.CheckRecord(b)
		data.TypeOf(b)
		if (valid == nil) != (terr == nil) || (valid == nil) != (werr == nil) || (valid == nil) != (berr == nil) || valid != nil && jerr == nil {
			t.Fatalf("%x: valid %v, JSON %v, tree %v, walk %v, blobs %v", b, valid, jerr, terr, werr, berr)
		}
		if valid != nil {
			return
		}
		if again, err := data.Encode(tree); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x -> %x, %v", b, again, err)
		}
		if jerr != nil {
			if e, ok := jerr.(*data.Error); !ok || e.Rule != data.RuleLink && e.Rule != data.RuleBytes {
				t.Fatalf("%x: %v", b, jerr)
			}
			return
		}
		again, err := data.AppendCBOR(nil, j)
		if err != nil {
			if e := err.(*data.Error); e.Rule != data.RuleType && e.Rule != data.RuleBlob {
				t.Fatalf("%x -> %s: %v", b, j, err)
			}
			return
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x -> %s -> %x", b, j, again)
		}
	})
}

// interopJSON are the values of the interop tests, valid and not.
func interopJSON(t testing.TB) (list [][]byte) {
	for _, name := range []string{"data-model-fixtures", "data-model-valid", "data-model-invalid"} {
		var cases []noted
		load(t, name, &cases)
		for _, c := range cases {
			list = append(list, c.JSON)
		}
	}
	return list
}
