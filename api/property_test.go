package api_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"sync"
	"testing"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/syntax"
)

// catalog has all schemas that the packages are generated from.
var catalog = sync.OnceValue(func() *lexicon.Catalog {
	cat := lexicon.NewCatalog()
	if err := cat.AddFS(lexicons.FS); err != nil {
		panic(err)
	}
	return cat
})

func rounds(t *testing.T, short, long int) int {
	t.Helper()
	if testing.Short() {
		return short
	}
	return long
}

// roundTrip decodes a value into a Go type and encodes it again, directly and by way of JSON, and wants the same bytes.
func roundTrip(t *testing.T, in []byte, typ reflect.Type) {
	t.Helper()
	v := reflect.New(typ).Interface()
	if err := data.Unmarshal(in, v); err != nil {
		t.Fatalf("%v: %v\n%s", typ, err, asJSON(in))
	}
	out, err := data.Marshal(v)
	if err != nil {
		t.Fatalf("%v: %v", typ, err)
	}
	if string(out) != string(in) {
		t.Fatalf("%v:\n%s\n%s", typ, asJSON(in), asJSON(out))
	}
	js, err := data.MarshalJSON(v)
	if err != nil {
		t.Fatal(err)
	}
	w := reflect.New(typ).Interface()
	if err := data.UnmarshalJSON(js, w); err != nil {
		t.Fatalf("%v: %v\n%s", typ, err, js)
	}
	if out, err = data.Marshal(w); err != nil || string(out) != string(in) {
		t.Fatalf("%v, through JSON: %v\n%s", typ, err, js)
	}
}

func asJSON(b []byte) []byte {
	js, err := data.AppendJSON(nil, b)
	if err != nil {
		return []byte(err.Error())
	}
	return js
}

// agree decodes what may be invalid, and wants that the schema says the same of the struct as of the bytes.
func agree(t *testing.T, in []byte, typ reflect.Type, validate func([]byte) error) (valid bool) {
	t.Helper()
	want := validate(in)
	v := reflect.New(typ).Interface()
	if err := data.Unmarshal(in, v); err != nil {
		if want == nil {
			t.Fatalf("%v: the schema allows what can't be read: %v\n%s", typ, err, asJSON(in))
		}
		return false
	}
	out, err := data.Marshal(v)
	if err != nil {
		if want == nil {
			t.Fatalf("%v: the schema allows what can't be written: %v\n%s", typ, err, asJSON(in))
		}
		return false
	}
	got := validate(out)
	if (got == nil) != (want == nil) || got != nil && got.Error() != want.Error() {
		t.Fatalf("%v: of the bytes %v, of the struct %v\n%s", typ, want, got, asJSON(in))
	}
	var e *lexicon.Error
	if got != nil && !errors.As(got, &e) {
		t.Fatalf("%v: %v", typ, got)
	}
	return want == nil
}

// TestRecords makes random records of every record type from its schema: what is read and written is the same, and the
// schema says the same of a struct as of the bytes that it was read from, also when something was spoiled.
func TestRecords(t *testing.T) {
	types := map[string]reflect.Type{}
	for _, r := range records {
		types[r.LexType()] = reflect.TypeOf(r).Elem()
	}
	cat := catalog()
	seen := 0
	for _, nsid := range cat.NSIDs() {
		id := string(nsid)
		d := cat.Resolve(id)
		if d == nil || d.Type != lexicon.TypeRecord {
			continue
		}
		seen++
		typ := types[id]
		if typ == nil {
			t.Errorf("%s has no Go type in Records", id)
			continue
		}
		validate := func(b []byte) error { return cat.ValidateRecord(syntax.NSID(id), b) }
		planted, invalid := 0, 0
		for seed := range rounds(t, 30, 300) {
			g := newMaker(cat, uint64(seed))
			m := g.record(id, d)
			in, err := data.Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(in); err != nil {
				t.Fatalf("%s, seed %d: not valid as made: %v\n%s", id, seed, err, asJSON(in))
			}
			roundTrip(t, in, typ)
			v := reflect.New(typ).Interface()
			if err := json.Unmarshal(asJSON(in), v); err != nil {
				t.Fatal(err)
			}
			js, err := json.Marshal(v)
			if err != nil || string(js) != string(asJSON(in)) {
				t.Fatalf("%s through encoding/json: %v\n%s\n%s", id, err, asJSON(in), js)
			}
			planted += g.planted
			if in, err = data.Encode(g.spoil(m)); err != nil {
				t.Fatal(err)
			}
			if !agree(t, in, typ, validate) {
				invalid++
			}
		}
		if planted == 0 || invalid == 0 {
			t.Errorf("%s: %d planted, %d invalid", id, planted, invalid)
		}
	}
	if seen != len(records) {
		t.Errorf("%d record schemas, %d types", seen, len(records))
	}
	t.Logf("%d record types", seen)
}
