package lexlint

import (
	"slices"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
)

// Rule describes a rule of [Lint].
type Rule struct {
	ID      string `json:"id"`
	Level   Level  `json:"level"`
	Fix     bool   `json:"fix"` // some of its findings have one
	Summary string `json:"summary"`
}

// Rules returns the rules, sorted by id. A warning about what is published already is told as Info.
func Rules() []Rule { return slices.Clone(rules) }

var rules = []Rule{
	{"accept-syntax", Error, false, "a blob's accept holds MIME types, major/* or */*"},
	{"account-param-identifier", Warn, true, "parameters that name an account have the format at-identifier"},
	{"ambiguous-field", Warn, false, "fields named uri, cid, id or type say in a description of what"},
	{"boolean-default-true", Warn, false, "optional booleans are phrased so that false is the default"},
	{"cid-link-in-record", Warn, false, "records hold CIDs as strings of format cid, not as links"},
	{"closed-enum", Warn, false, "knownValues can grow, an enum never can"},
	{"closed-union", Warn, false, "unions are open, since closed ones can't grow"},
	{"confusable-name", Warn, false, "no two names differ only in case or in letters that look alike"},
	{"contradictory-limits", Error, false, "a value can satisfy const, default, enum and limits together"},
	{"def-name-syntax", Error, false, "names of definitions are made of ASCII letters and digits and start with a letter"},
	{"defs-main-definition", Warn, false, "a schema named defs has no main definition"},
	{"dollar-field", Error, false, "no field starts with a dollar sign, which is reserved to the protocol"},
	{"endpoint-auth-undescribed", Info, false, "a method's description says whether it needs authentication"},
	{"endpoint-output-undefined", Warn, true, "queries and procedures declare an output"},
	{"error-name-case", Warn, false, "names of errors are UpperCamelCase"},
	{"experimental-marker", Warn, false, "experimental schemas have temp or unspecced in their NSID"},
	{"field-name-syntax", Warn, false, "names of fields are made of ASCII letters and digits and don't start with a digit"},
	{"file-path", Warn, false, "the path of the file is the NSID with slashes for dots"},
	{"format-and-length", Warn, true, "a string with a format needs no limits of length"},
	{"graphemes-ratio", Warn, false, "maxLength is 10 to 20 times maxGraphemes, or more if those are few"},
	{"graphemes-without-bytes", Warn, true, "a string with maxGraphemes has maxLength too"},
	{"invalid-nsid", Error, false, "id is an NSID"},
	{"known-string-local-ref", Warn, true, "tokens among known values are written with their NSID"},
	{"known-value-case", Warn, false, "known values are kebab-case"},
	{"large-bytes", Warn, false, "bytes of more than 20 KiB are a blob"},
	{"large-string", Warn, false, "texts of more than 20 KiB are a blob"},
	{"lexicon-schema", Error, false, "the document is a schema in every other respect"},
	{"lexicon-version", Error, false, "lexicon is 1"},
	{"lower-camel-case", Warn, false, "schemas, definitions and fields are lowerCamelCase"},
	{"many-required", Info, false, "few fields are required, since that can't be taken back"},
	{"missing-format", Warn, true, "strings whose name suggests a format have one"},
	{"missing-primary-description", Warn, false, "main definitions have a description"},
	{"name-group-conflict", Warn, false, "a schema's NSID isn't also a group of others, and isn't named main"},
	{"non-main-primary", Error, false, "records, methods and permission sets are named main"},
	{"nullable-and-optional", Warn, false, "a field is nullable or optional, not both"},
	{"paging", Warn, false, "a method that pages has optional limit and cursor, and answers with an optional cursor and a required array"},
	{"permission-ignored", Error, false, "permissions of a set are ones that servers grant: known fields, no wildcards, within the namespace"},
	{"permissionset-name", Info, false, "names of permission sets start with auth"},
	{"permissionset-no-permissions", Warn, false, "a permission set has permissions"},
	{"permissionset-no-title", Warn, false, "a permission set has a title"},
	{"procedure-verb", Info, false, "names of procedures start with create, update, delete, upsert or put"},
	{"query-verb", Info, false, "names of queries start with get, list, search or query"},
	{"record-handle", Warn, false, "records refer to accounts by DID"},
	{"record-name", Warn, false, "names of records are singular nouns"},
	{"ref-target", Error, false, "refs lead to data, and union members are objects or records"},
	{"ref-unchecked", Warn, false, "what is referred to could be looked up"},
	{"reserved-name", Warn, false, "names aren't words that programming languages reserve"},
	{"reuse-shared-def", Warn, false, "strong references and labels are the shared definitions"},
	{"scalar-array", Info, false, "arrays hold objects rather than plain values, so that they can grow"},
	{"schema-json-parse", Error, false, "the file is strict JSON of at most 1 MiB"},
	{"shared-def", Info, false, "what several schemas use is in a schema named defs"},
	{"subscription-cursor", Warn, false, "a subscription has an optional integer cursor, seq in its messages, and tells OutdatedCursor"},
	{"subscription-name", Warn, false, "names of subscriptions are subscribe and a plural noun"},
	{"subscription-no-messages", Warn, false, "a subscription has messages"},
	{"undefined-property", Warn, false, "required and nullable name properties of the object"},
	{"undescribed-token", Warn, false, "tokens have a description"},
	{"unexpected-field", Warn, true, "definitions have the fields of their type and no others"},
	{"unknown-in-record", Warn, false, "records avoid unknown"},
	{"unlimited-bytes", Warn, false, "bytes in records have maxLength"},
	{"unlimited-string", Warn, false, "strings in records have maxLength"},
	{"unresolved-ref", Error, false, "what is referred to exists"},
	{"unsafe-integer", Warn, false, "integers are within ±(2^53 - 1), which JavaScript can hold"},
	{"unspecified-encoding", Error, false, "bodies have an encoding"},
	{"version-suffix", Warn, false, "V2 follows on a V1"},
	{"view-without-record", Info, false, "a view of a record holds it as it is"},
	{"viewer-required", Warn, false, "data about the viewer is optional"},
}

// levels are those of the rules.
var levels = func() map[string]Level {
	m := make(map[string]Level, len(rules))
	for _, r := range rules {
		m[r.ID] = r.Level
	}
	return m
}()

// textOf writes a schema as the JSON of a file, without the `$type` that makes it a record when it is published.
func textOf(s *lexicon.Schema) ([]byte, error) {
	v, err := data.Decode(s.Raw)
	if err != nil {
		return nil, err
	}
	if m, ok := v.(map[string]any); ok {
		delete(m, "$type")
	}
	raw, err := data.Encode(v)
	if err != nil {
		return nil, err
	}
	return data.AppendJSON(nil, raw)
}
