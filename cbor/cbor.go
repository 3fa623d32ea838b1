// Package cbor reads and writes the strict, deterministic CBOR of the protocol (DAG-CBOR, also called DRISL).
//
// Specification: https://atproto.com/specs/data-model and https://dasl.ing/drisl.html.
//
// Every value has exactly one encoding, and nothing else is accepted: shortest heads, definite lengths, text keys in
// order (shorter first, then bytewise) without duplicates, valid UTF-8, integers within int64, no floating point, no tag
// but 42 around a CID of package cid. The package knows nothing of JSON, `$type` or Go structs: that is package data.
//
// [Valid] and [Scan] check without decoding and without allocating. A [Reader] pulls values out of a byte slice, checks
// as strictly, and returns views of the slice where it can. The Append functions write.
//
//	b := cbor.AppendMap(nil, 1)
//	b = cbor.AppendText(b, "text")
//	b = cbor.AppendText(b, "hello")
//
//	r := cbor.NewReader(b)
//	n, err := r.Map()
//	var key []byte
//	for range n {
//		key, err = r.MapKey(key)
//		// r.Text(), r.Int(), r.Skip(), … according to key
//	}
//	err = r.End()
//
// Data in the wild breaks the rules now and then. [NewLenientReader] runs the same code in a mode that reports a broken
// rule and goes on, and [Violations] lists them; what is passed over is not valid and must not be written again as if it
// were. A lenient reading ends at what can't be made out ([Rule.Hard]). It takes as long as a strict one, but for the
// paths of what it reports: the first 64 of a Reader have one, the list is as long as its caller wants.
//
// Limits: 32 nested containers ([ScanWithin] and [Reader.RawWithin] count those around a value too), 131,072 elements in
// one, keys of 8 KiB, inputs below 4 GiB; a declared length is believed only as far as there are bytes for it, and nothing
// is allocated for it. The sizes of records and frames are for the caller to check before, since the input is already in
// memory here. A Reader allocates for [Reader.Text] and errors only. Errors are of type [*Error]. The API is stable.
package cbor

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits of the data model (https://atproto.com/guides/data-validation). The reader enforces the first three by itself;
// the sizes are for callers, who know what the bytes are.
const (
	MaxDepth    = 32      // containers within each other
	MaxElements = 131072  // items of an array, entries of a map
	MaxKey      = 8192    // bytes of a map key
	MaxRecord   = 1 << 20 // bytes of one record or tree node
	MaxFrame    = 5 << 20 // bytes of one event-stream frame that are read; repo.MaxFrame is what may be sent
)

// Kind is the sort of a value.
type Kind uint8

// The kinds. The last two never come out of a strict reader.
const (
	KindInvalid Kind = iota
	KindInt          // an integer of either sign
	KindBytes
	KindText
	KindArray
	KindMap
	KindLink
	KindBool
	KindNull
	KindFloat // lenient only: a floating-point number of any width
	KindOther // lenient only: undefined, another simple value, or a tag other than that of a link
)

var kindNames = [...]string{"nothing", "an integer", "bytes", "text", "an array", "a map", "a link", "a boolean", "null", "a float", "a tag or simple value"}

// String names the kind with its article, for messages.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Rule names the rule that an input breaks.
type Rule string

// The rules. Those marked (hard) end a lenient reading too, because what follows can't be made out or must not be tried.
const (
	RuleTruncated    Rule = "truncated"     // (hard) the input ends within a value, or a length exceeds what is left
	RuleTrailing     Rule = "trailing"      // bytes after the value
	RuleMinimal      Rule = "not-minimal"   // a head is longer than needed
	RuleIndefinite   Rule = "indefinite"    // indefinite length
	RuleReserved     Rule = "reserved"      // (hard) additional information 28–30, or a break outside an indefinite value
	RuleIntRange     Rule = "int-range"     // integer outside int64
	RuleFloat        Rule = "float"         // floating point of any width and value
	RuleSimple       Rule = "simple"        // a simple value other than false, true and null
	RuleTag          Rule = "tag"           // a tag other than 42
	RuleCID          Rule = "cid"           // tag 42 around anything but 0x00 and a CID of package cid
	RuleUTF8         Rule = "utf8"          // text that isn't UTF-8
	RuleKeyType      Rule = "key-type"      // a map key that isn't text
	RuleKeyEmpty     Rule = "key-empty"     // an empty map key
	RuleKeySize      Rule = "key-size"      // a map key over MaxKey bytes
	RuleKeyOrder     Rule = "key-order"     // a map key smaller than the one before
	RuleKeyDuplicate Rule = "key-duplicate" // a map key equal to the one before
	RuleDepth        Rule = "depth"         // (hard) more than MaxDepth containers within each other
	RuleElements     Rule = "elements"      // (hard) more than MaxElements in one container
	RuleType         Rule = "type"          // (hard) a Reader was asked for another kind than is there
)

// Hard reports whether a lenient reading ends at this rule too.
func (r Rule) Hard() bool {
	switch r {
	case RuleTruncated, RuleReserved, RuleDepth, RuleElements, RuleType:
		return true
	}
	return false
}

// Error says which rule is broken and where.
type Error struct {
	Offset int    // of the first byte of the offending value or key, from the start of the input
	Path   string // of the offending value, such as "facets[0].index"; that of the map if a key offends; "" at the top
	Rule   Rule
	Detail string // what was found, for people; may be empty
}

// Error returns one line that says everything.
func (e *Error) Error() string {
	var s strings.Builder
	s.WriteString("cbor: ")
	s.WriteString(string(e.Rule))
	if e.Detail != "" {
		s.WriteString(": ")
		s.WriteString(e.Detail)
	}
	if e.Path != "" {
		s.WriteString(" in ")
		s.WriteString(e.Path)
	}
	fmt.Fprintf(&s, " (byte %d)", e.Offset)
	return s.String()
}
