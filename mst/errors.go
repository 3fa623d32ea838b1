package mst

import (
	"errors"
	"fmt"

	"github.com/barograph/baro/cid"
)

// Rule names a rule of the tree that a node breaks.
type Rule string

// The rules that every node from an untrusted source has to keep.
const (
	RuleHash     Rule = "hash"     // the bytes of a node hash to its CID
	RuleEncoding Rule = "encoding" // a node is canonical DAG-CBOR of exactly the node's shape
	RuleLink     Rule = "link"     // links to nodes have the DAG-CBOR codec
	RulePrefix   Rule = "prefix"   // prefix compression is used, and as far as it goes
	RuleOrder    Rule = "order"    // keys of a node are sorted, without duplicates
	RuleKey      Rule = "key"      // keys are not empty, not too long, and of valid syntax
	RuleEntries  Rule = "entries"  // a node has no more than MaxEntries entries
	RuleLayer    Rule = "layer"    // every key of a node lies on the node's layer
	RuleDepth    Rule = "depth"    // a child lies exactly one layer below its parent
	RuleBounds   Rule = "bounds"   // keys of a subtree lie between the parent's keys around its link
	RuleEmpty    Rule = "empty"    // a node without entries has a child
	RuleTop      Rule = "top"      // the top node has entries, unless the whole tree is empty
	RuleHeight   Rule = "height"   // the top node lies no higher than MaxLayer
)

// Rules lists all rules, for reports that name those that were kept too.
var Rules = []Rule{RuleHash, RuleEncoding, RuleLink, RulePrefix, RuleOrder, RuleKey, RuleEntries, RuleLayer, RuleDepth,
	RuleBounds, RuleEmpty, RuleTop, RuleHeight}

// Error says which rule a node breaks.
type Error struct {
	Rule   Rule
	CID    cid.CID // of the node, undefined where the node was decoded on its own
	Key    string  // the key at fault, if it is one key
	Detail string
}

func (e *Error) Error() string {
	s := "tree node"
	if e.CID.Defined() {
		s += " " + e.CID.String()
	}
	s += ": " + string(e.Rule) + ": " + e.Detail
	if e.Key != "" {
		s += fmt.Sprintf(" (key %q)", e.Key)
	}
	return s
}

// ErrNotFound is what a [Source] returns, possibly wrapped, for a node that it doesn't have.
var ErrNotFound = errors.New("not found")

// MissingError tells of a node that an operation needed and the source doesn't have. It wraps [ErrNotFound].
type MissingError struct {
	CID   cid.CID
	Layer int // -1 for a top node
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("tree node %s on layer %d is missing", e.CID, e.Layer)
}

// Unwrap returns [ErrNotFound].
func (e *MissingError) Unwrap() error { return ErrNotFound }

// OpError tells of an operation that doesn't fit the tree, such as the inversion of a creation of a record that isn't
// there.
type OpError struct {
	Key    string
	Detail string
}

func (e *OpError) Error() string { return fmt.Sprintf("operation on %q: %s", e.Key, e.Detail) }
