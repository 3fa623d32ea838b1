// Package lexicon reads schemas of the lexicon language and validates records, parameters and bodies against them.
//
// Specification: https://atproto.com/specs/lexicon and https://atproto.com/specs/permission (permission sets).
//
// [ParseSchema] reads one schema, strictly. A [Catalog] holds many and resolves references between them; it compiles a
// schema when it is first used, and validates DAG-CBOR bytes without decoding them into Go values: valid ones in one pass,
// without an allocation. [NewResolvingCatalog] asks for schemas when data needs them.
//
//	cat := lexicon.NewCatalog()
//	err := cat.AddFS(schemas)                                  // every .json file in an fs.FS
//	err = cat.ValidateRecord("app.bsky.feed.post", record)     // *lexicon.Error{Path, Rule}
//	err = cat.ValidateRecordKey("app.bsky.actor.profile", "self")
//	err = cat.ValidateParams("app.bsky.feed.getFeed", r.URL.Query())
//	err = cat.With(lexicon.Options{Findings: 20}).ValidateRecord(id, record) // all that is wrong, as lexicon.Errors
//
// [Schema.Links], [Graph], [Def.Fields] and [Def.Limits] are for documentation and tools; mistakes, style and breaking
// changes are the business of package lexlint below.
//
// Fields that a schema doesn't know are accepted, and so are unknown variants of open unions, knownValues and formats of
// a newer language. Whether a value obeys the data model where the schema says nothing (a malformed blob deep in an
// unknown field, the size of a record) is the business of data.CheckRecord, which a writer calls as well.
//
// The package has no network: schemas are given to it. It keeps descriptions, because tools show them.
//
// Limits: 1 MiB a schema, 32 levels in schemas and in data. Validation takes time linear in the size of the data.
package lexicon

import (
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/barograph/baro/syntax"
)

// MaxSchema is the largest schema in bytes.
const MaxSchema = 1 << 20

// maxDepth bounds the nesting of schemas and of data.
const maxDepth = 32

// ErrUnknownSchema is wrapped by the errors of validation against a schema that isn't in the catalog. A server that
// validates when it can, takes it for consent.
var ErrUnknownSchema = errors.New("unknown schema")

// Type is the type field of a definition.
type Type string

// The types of the language.
const (
	TypeBoolean       Type = "boolean"
	TypeInteger       Type = "integer"
	TypeString        Type = "string"
	TypeBytes         Type = "bytes"
	TypeCIDLink       Type = "cid-link"
	TypeBlob          Type = "blob"
	TypeArray         Type = "array"
	TypeObject        Type = "object"
	TypeParams        Type = "params"
	TypePermission    Type = "permission"
	TypeToken         Type = "token"
	TypeRef           Type = "ref"
	TypeUnion         Type = "union"
	TypeUnknown       Type = "unknown"
	TypeRecord        Type = "record"
	TypeQuery         Type = "query"
	TypeProcedure     Type = "procedure"
	TypeSubscription  Type = "subscription"
	TypePermissionSet Type = "permission-set"
)

// Primary reports whether t may only be the type of a definition named main.
func (t Type) Primary() bool {
	switch t {
	case TypeRecord, TypeQuery, TypeProcedure, TypeSubscription, TypePermissionSet:
		return true
	}
	return false
}

// Schema is one lexicon document.
type Schema struct {
	ID          syntax.NSID
	Description string
	Defs        []Named // sorted by name
	Raw         []byte  // the document in DAG-CBOR, with fields that this package doesn't know
}

// Def returns the definition with that name, nil if there is none.
func (s *Schema) Def(name string) *Def { return find(s.Defs, name) }

// find searches what is sorted by name.
func find(list []Named, name string) *Def {
	if i, ok := slices.BinarySearchFunc(list, name, func(n Named, name string) int { return strings.Compare(n.Name, name) }); ok {
		return list[i].Def
	}
	return nil
}

// Main returns the definition named main, nil if there is none.
func (s *Schema) Main() *Def { return s.Def(mainName) }

const mainName = "main"

// Named is a definition with its name in a schema or an object.
type Named struct {
	Name string
	Def  *Def
}

// Def is one definition of any type. Only the fields of its type are set; optional numbers are nil when absent.
type Def struct {
	Type        Type
	Description string

	// boolean, integer, string
	Default any // bool, int64 or string, nil if absent
	Const   any // bool, int64 or string, nil if absent

	// integer
	Minimum, Maximum *int64
	IntEnum          []int64

	// string
	Format                     syntax.Kind
	MinGraphemes, MaxGraphemes *int64
	Enum                       []string // nil if absent: any value
	KnownValues                []string

	// string and bytes (in bytes), array (in items)
	MinLength, MaxLength *int64

	// blob
	Accept  []string
	MaxSize *int64 // bytes

	// array
	Items *Def

	// object, params
	Properties []Named // sorted by name
	Required   []string
	Nullable   []string

	// ref, union. References are absolute: "nsid" or "nsid#name", never "#name" or "nsid#main".
	Ref    string
	Refs   []string
	Closed bool

	// record
	Key    string // tid, nsid, any or literal:…
	Record *Def   // an object

	// query, procedure, subscription
	Parameters *Def // params, nil if absent
	Input      *Body
	Output     *Body
	Message    *Def // a union
	Errors     []ErrorName

	MessageDescription string // of subscriptions

	// permission-set
	Title, Detail         string
	TitleLang, DetailLang map[string]string // by language tag
	Permissions           []Permission
}

// Property returns the property with that name, nil if there is none.
func (d *Def) Property(name string) *Def { return find(d.Properties, name) }

// IsRequired reports whether the property with that name must be there.
func (d *Def) IsRequired(name string) bool { return slices.Contains(d.Required, name) }

// IsNullable reports whether the property with that name may be null.
func (d *Def) IsNullable(name string) bool { return slices.Contains(d.Nullable, name) }

// Body is the input or output of a method.
type Body struct {
	Description string
	Encoding    string // MIME type or pattern
	Schema      *Def   // object, ref or union; nil if there is none
}

// Accepts reports whether a body of the content type, such as "application/json; charset=utf-8", fits the encoding.
func (b *Body) Accepts(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil || !strings.Contains(t, "/") {
		return false
	}
	want, _, err := mime.ParseMediaType(b.Encoding)
	return err == nil && MatchMIME(want, t)
}

// MatchMIME reports whether a MIME type fits a pattern: a type, "major/*" or "*/*".
func MatchMIME[S string | []byte](pattern string, t S) bool {
	if pattern == "*/*" {
		return true
	}
	if n := len(pattern) - 1; n > 0 && pattern[n] == '*' {
		return len(t) > n && string(t[:n]) == pattern[:n]
	}
	return string(t) == pattern
}

// ErrorName is an error that a method may answer with.
type ErrorName struct {
	Name        string
	Description string
}

// Permission is a part of a permission set, https://atproto.com/specs/permission.
type Permission struct {
	Resource   string   // repo or rpc; others are never usable
	Collection []string // repo: NSIDs
	Action     []string // repo: create, update, delete; empty stands for all three
	LXM        []string // rpc: NSIDs of methods
	Aud        string   // rpc: "*" or ""
	InheritAud bool     // rpc: the audience is that of whoever includes the set
	// Ignore says why the permission must not be granted: an unknown resource or field may restrict it in a way that this
	// package doesn't know. "" if it may.
	Ignore string
}

// InNamespace reports whether a permission set may speak of a record type or method: one of the group that the set is in, or
// of a group below. https://atproto.com/specs/permission#namespace-authority
func InNamespace(set, id syntax.NSID) bool {
	group := strings.TrimSuffix(string(set.Normalize()), set.Name())
	return len(group) > 1 && strings.HasPrefix(string(id.Normalize()), group)
}

// SchemaError says what is wrong with a schema.
type SchemaError struct {
	ID     string // as far as it is known
	Path   string // such as "defs.main.record.properties.text"
	Rule   Problem
	Reason string
}

// Problem names the sort of a [SchemaError], by the ids that linters of the field use.
type Problem string

// The sorts of problems.
const (
	ProblemJSON     Problem = "schema-json-parse"        // not strict JSON, not CBOR, too large
	ProblemVersion  Problem = "lexicon-version"          // lexicon isn't 1
	ProblemID       Problem = "invalid-nsid"             // id isn't an NSID
	ProblemDefName  Problem = "def-name-syntax"          // a definition whose name can't be the fragment of a reference
	ProblemPrimary  Problem = "non-main-primary"         // a primary type that isn't named main
	ProblemEncoding Problem = "unspecified-encoding"     // a body without a well-formed encoding
	ProblemMessages Problem = "subscription-no-messages" // a subscription without a union of messages
	ProblemAccept   Problem = "accept-syntax"            // a blob's accept that is no MIME type or pattern
	ProblemLimits   Problem = "contradictory-limits"     // bounds that exclude each other
	ProblemSchema   Problem = "lexicon-schema"           // anything else
)

// maxProblems is how many problems of one document are told.
const maxProblems = 100

// Error returns one line that says everything.
func (e *SchemaError) Error() string {
	s := "lexicon"
	if e.ID != "" {
		s += fmt.Sprintf(" %.320s", e.ID)
	}
	if e.Path != "" {
		s += ": " + e.Path
	}
	return s + ": " + e.Reason
}

// Rule names the rule of a schema that a value breaks.
type Rule string

// The rules.
const (
	RuleEncoding     Rule = "encoding"     // the bytes aren't strict DAG-CBOR: Error.Err says why
	RuleType         Rule = "type"         // a value of another kind than the schema's
	RuleTypeField    Rule = "$type"        // a `$type` that is missing or another than wanted
	RuleRequired     Rule = "required"     // a required field is missing
	RuleNull         Rule = "null"         // null where it isn't allowed
	RuleMinimum      Rule = "minimum"      // a smaller integer
	RuleMaximum      Rule = "maximum"      // a larger integer
	RuleMinLength    Rule = "minLength"    // fewer bytes or items
	RuleMaxLength    Rule = "maxLength"    // more bytes or items
	RuleMinGraphemes Rule = "minGraphemes" // fewer grapheme clusters
	RuleMaxGraphemes Rule = "maxGraphemes" // more grapheme clusters
	RuleEnum         Rule = "enum"         // a value outside a closed set
	RuleConst        Rule = "const"        // another value than the one allowed
	RuleFormat       Rule = "format"       // a string that isn't of the format
	RuleAccept       Rule = "accept"       // a blob of another MIME type
	RuleMaxSize      Rule = "maxSize"      // a larger blob
	RuleBlob         Rule = "blob"         // a map that isn't a blob, or a blob where one can't be
	RuleUnion        Rule = "union"        // a variant that a closed union doesn't have
	RuleUnresolved   Rule = "unresolved"   // the schema refers to one that isn't there or can't be used so
	RuleDepth        Rule = "depth"        // too deep
	RuleRecordKey    Rule = "key"          // a record key of another type than the schema's
	RuleRepeated     Rule = "repeated"     // a parameter that is no array is there more than once
	RuleErrorName    Rule = "error"        // an error's name that the method doesn't declare
	RuleBody         Rule = "body"         // a body where the method has none, or none where it has one
)

// Error says which rule a value breaks and where.
type Error struct {
	Path   string // of the offending value, such as "facets[0].index.byteStart"; "" at the top
	Rule   Rule
	Detail string
	Err    error // cause, such as a *cbor.Error; may be nil
}

// Error returns one line that says everything.
func (e *Error) Error() string {
	var s strings.Builder
	if e.Path != "" {
		s.WriteString(e.Path)
		s.WriteString(": ")
	}
	s.WriteString(string(e.Rule))
	if e.Detail != "" {
		s.WriteString(": ")
		s.WriteString(e.Detail)
	}
	if e.Err != nil {
		s.WriteString(": ")
		s.WriteString(e.Err.Error())
	}
	return s.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errors are the findings of one validation, in the order of the data. There is at least one.
type Errors []*Error

// Error returns one line with the first finding and the number of the others.
func (l Errors) Error() string {
	if len(l) == 1 {
		return l[0].Error()
	}
	return fmt.Sprintf("%v (and %d more)", l[0], len(l)-1)
}

// Unwrap returns the findings, so that errors.As finds the first.
func (l Errors) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// Findings returns the findings in the error of a validation, nil if it has none, such as when a schema is unknown.
func Findings(err error) []*Error {
	var l Errors
	if errors.As(err, &l) {
		return l
	}
	var e *Error
	if errors.As(err, &e) {
		return []*Error{e}
	}
	return nil
}
