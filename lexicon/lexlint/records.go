package lexlint

import (
	"cmp"
	"errors"
	"iter"
	"regexp"
	"slices"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// Record is a record to try a schema on.
type Record struct {
	Name string // for examples, such as an AT-URI
	Key  syntax.RecordKey
	Raw  []byte // DAG-CBOR
}

// Refusals say what a new schema makes of real records.
type Refusals struct {
	Records int      `json:"records"` // how many were tried
	Refused int      `json:"refused"` // by the new schema
	Newly   int      `json:"newly"`   // of those, accepted by the old one
	Reasons []Reason `json:"reasons"` // the most frequent first; a record counts in each of its own
}

// Reason is why records are refused.
type Reason struct {
	Rule    lexicon.Rule `json:"rule"`
	Path    string       `json:"path"` // with [] for every index
	Records int          `json:"records"`
	Newly   int          `json:"newly"`
	Example string       `json:"example"` // the name of the first one
	Message string       `json:"message"` // what is wrong with it
}

// maxReasons bounds the findings of one record.
const maxReasons = 20

var index = regexp.MustCompile(`\[\d+\]`)

// CheckRecords tries the record schema of that NSID in a catalog on real records, and tells how many it refuses and why.
// Before has the old version; with nil no refusal is new. An error of the sequence, or that the schema is unknown, ends it:
// what has been counted so far is returned with it.
func CheckRecords(id syntax.NSID, before, after *lexicon.Catalog, records iter.Seq2[Record, error]) (Refusals, error) {
	all := after.With(lexicon.Options{AllowLegacyBlobs: true, Findings: maxReasons})
	if before != nil {
		before = before.With(lexicon.Options{AllowLegacyBlobs: true})
	}
	var out Refusals
	type key struct {
		rule lexicon.Rule
		path string
	}
	byKey := map[key]*Reason{}
	for r, err := range records {
		if err != nil {
			return out.sorted(byKeyValues(byKey)), err
		}
		out.Records++
		findings, err := refuse(all, id, r)
		if err != nil {
			return out.sorted(byKeyValues(byKey)), err
		}
		if len(findings) == 0 {
			continue
		}
		out.Refused++
		newly := 0
		if before != nil {
			old, err := refuse(before, id, r)
			if err == nil && len(old) == 0 {
				newly = 1
			}
		}
		out.Newly += newly
		told := map[key]bool{}
		for _, f := range findings {
			k := key{f.Rule, index.ReplaceAllString(f.Path, "[]")}
			if told[k] {
				continue
			}
			told[k] = true
			x := byKey[k]
			if x == nil {
				x = &Reason{Rule: k.rule, Path: k.path, Example: r.Name, Message: f.Error()}
				byKey[k] = x
			}
			x.Records++
			x.Newly += newly
		}
	}
	return out.sorted(byKeyValues(byKey)), nil
}

func byKeyValues[K comparable](m map[K]*Reason) []Reason {
	out := make([]Reason, 0, len(m))
	for _, x := range m {
		out = append(out, *x)
	}
	return out
}

func (r Refusals) sorted(reasons []Reason) Refusals {
	slices.SortFunc(reasons, func(a, b Reason) int {
		return cmp.Or(-cmp.Compare(a.Records, b.Records), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Rule, b.Rule))
	})
	r.Reasons = reasons
	return r
}

// refuse returns what is wrong with a record and its key. An error means that the schema can't be used.
func refuse(c *lexicon.Catalog, id syntax.NSID, r Record) ([]*lexicon.Error, error) {
	var out []*lexicon.Error
	for _, err := range []error{c.ValidateRecord(id, r.Raw), keyError(c, id, r.Key)} {
		if errors.Is(err, lexicon.ErrUnknownSchema) && len(lexicon.Findings(err)) == 0 {
			return nil, err
		}
		out = append(out, lexicon.Findings(err)...)
	}
	return out, nil
}

func keyError(c *lexicon.Catalog, id syntax.NSID, key syntax.RecordKey) error {
	if key == "" {
		return nil
	}
	return c.ValidateRecordKey(id, key)
}
