package lexicon_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/lexicon"
)

// FuzzOptions validates records of the interop tests' schema, which has a bit of everything, under all options. They may
// make validation stricter or more lenient, but each only in its own direction, and the number of findings changes nothing.
func FuzzOptions(f *testing.F) {
	const id = "example.lexicon.record"
	cat := interop(f)
	for _, name := range []string{"valid", "invalid"} {
		var cases []struct{ Data json.RawMessage }
		if err := json.Unmarshal(fixtures.Read(f, "atproto-interop/lexicon/record-data-"+name+".json"), &cases); err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			if raw, err := data.AppendCBOR(nil, []byte(amend.Replace(string(c.Data)))); err == nil {
				f.Add(raw)
			}
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		check := func(o lexicon.Options) error {
			err := cat.With(o).ValidateRecord(id, raw)
			o.Findings = 10
			many := cat.With(o).ValidateRecord(id, raw)
			var list lexicon.Errors
			if (err == nil) != (many == nil) || many != nil && (!errors.As(many, &list) || len(list) == 0 || len(list) > 10) {
				t.Fatalf("%x under %+v: %v, all findings: %v", raw, o, err, many)
			}
			var first *lexicon.Error
			if err != nil && (!errors.As(err, &first) || first.Rule == "" || first.Error() != list[0].Error()) {
				t.Fatalf("%x under %+v: %#v, all findings: %v", raw, o, err, many)
			}
			return err
		}
		plain := check(lexicon.Options{})
		for _, o := range []lexicon.Options{{AllowLegacyBlobs: true}, {LenientDatetimes: true}, {AllowLegacyBlobs: true, LenientDatetimes: true}} {
			if err := check(o); plain == nil && err != nil {
				t.Fatalf("%x: valid, but with %+v: %v", raw, o, err)
			}
		}
		if err := check(lexicon.Options{StrictUnions: true}); plain != nil && err == nil {
			t.Fatalf("%x: %v, but valid with strict unions", raw, plain)
		}
		if plain == nil && data.TypeOf(raw) != id {
			t.Fatalf("%x is accepted", raw)
		}
	})
}
