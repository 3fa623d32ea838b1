package lexicon

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/syntax"
)

const typeKey = "$type"

// ValidateRecord checks a record in DAG-CBOR against the record schema with that NSID, which must be its $type. The
// error is an [*Error], or wraps [ErrUnknownSchema].
func (c *Catalog) ValidateRecord(id syntax.NSID, raw []byte) error {
	n := c.node(string(id))
	if n == nil || n.typeID == "" {
		return fmt.Errorf("%w: no record %s", ErrUnknownSchema, id)
	}
	return c.run(n, raw)
}

// ValidateRecordKey checks a record key against the key type of the record schema with that NSID.
// https://atproto.com/specs/record-key#record-key-types
func (c *Catalog) ValidateRecordKey(id syntax.NSID, key syntax.RecordKey) error {
	d := c.Resolve(string(id))
	if d == nil || d.Type != TypeRecord {
		return fmt.Errorf("%w: no record %s", ErrUnknownSchema, id)
	}
	ok := syntax.ValidRecordKey(key)
	switch d.Key {
	case "tid":
		ok = syntax.ValidTID(key)
	case "nsid":
		ok = syntax.ValidNSID(key)
	case "any":
	default:
		ok = "literal:"+string(key) == d.Key
	}
	if !ok {
		return &Error{Rule: RuleRecordKey, Detail: fmt.Sprintf("%.80q isn't of type %s", string(key), d.Key)}
	}
	return nil
}

// ValidateType checks a value in DAG-CBOR against any definition that is data: "nsid" or "nsid#name".
func (c *Catalog) ValidateType(ref string, raw []byte) error {
	if d := c.Resolve(ref); refProblem(d) != "" {
		return fmt.Errorf("%w: %s %s", ErrUnknownSchema, ref, refProblem(d))
	}
	return c.run(c.node(ref), raw)
}

// ValidateInput checks the body of a procedure in DAG-CBOR; nil stands for no body. Bodies without a schema pass.
func (c *Catalog) ValidateInput(id syntax.NSID, raw []byte) error {
	d := c.Resolve(string(id))
	if d == nil || d.Type != TypeProcedure && d.Type != TypeQuery {
		return fmt.Errorf("%w: no method %s", ErrUnknownSchema, id)
	}
	return c.body(string(id)+" input", d.Input, raw)
}

// ValidateOutput checks the answer of a query or procedure in DAG-CBOR; nil stands for none. Answers without a schema
// pass.
func (c *Catalog) ValidateOutput(id syntax.NSID, raw []byte) error {
	d := c.Resolve(string(id))
	if d == nil || d.Type != TypeProcedure && d.Type != TypeQuery {
		return fmt.Errorf("%w: no method %s", ErrUnknownSchema, id)
	}
	return c.body(string(id)+" output", d.Output, raw)
}

func (c *Catalog) body(name string, b *Body, raw []byte) error {
	switch {
	case b == nil && raw != nil:
		return &Error{Rule: RuleBody, Detail: "there should be none"}
	case b == nil || b.Schema == nil:
		return nil
	case raw == nil:
		return &Error{Rule: RuleBody, Detail: "missing"}
	}
	if b.Schema.Type == TypeRef {
		if d := c.Resolve(b.Schema.Ref); refProblem(d) == "" {
			return c.run(c.node(b.Schema.Ref), raw)
		}
		return &Error{Rule: RuleUnresolved, Detail: b.Schema.Ref}
	}
	return c.run(c.part(name, b.Schema), raw)
}

// ValidateMessage checks the payload of a stream's message, which has no $type: t is that of the frame header, such as
// "#commit". A type that the schema doesn't know passes: consumers ignore it.
func (c *Catalog) ValidateMessage(id syntax.NSID, t string, raw []byte) error {
	d := c.Resolve(string(id))
	if d == nil || d.Type != TypeSubscription {
		return fmt.Errorf("%w: no subscription %s", ErrUnknownSchema, id)
	}
	if strings.HasPrefix(t, "#") {
		t = string(id) + t
	}
	if !contains(d.Message.Refs, t) {
		return nil
	}
	return c.ValidateType(t, raw)
}

func (c *Catalog) run(n *node, raw []byte) error {
	r := cbor.NewReader(raw)
	v := validator{r: &r, legacyBlobs: c.AllowLegacyBlobs}
	if err := v.value(n, 0); err != nil {
		return err
	}
	if err := r.End(); err != nil {
		return &Error{Rule: RuleEncoding, Err: err}
	}
	return nil
}

// validator reads a value once from front to back.
type validator struct {
	r           *cbor.Reader
	legacyBlobs bool
}

// mismatch explains a failed read: a value of another kind, or bytes that aren't strict DAG-CBOR.
func (v *validator) mismatch(err error, want string) *Error {
	var e *cbor.Error
	if errors.As(err, &e) && e.Rule != cbor.RuleType {
		return &Error{Rule: RuleEncoding, Err: err}
	}
	k, kerr := v.r.Kind()
	if kerr != nil {
		return &Error{Rule: RuleEncoding, Err: kerr}
	}
	return &Error{Rule: RuleType, Detail: k.String() + " where " + want + " should be"}
}

// inKey and inItem put a step before the path, while an error travels outwards.
func (e *Error) inKey(key []byte) *Error {
	return e.in(string(cbor.AppendPathKey(nil, key)))
}

func (e *Error) inItem(i int) *Error { return e.in("[" + strconv.Itoa(i) + "]") }

func (e *Error) in(step string) *Error {
	if e.Path != "" && e.Path[0] != '[' {
		step += "."
	}
	e.Path = step + e.Path
	return e
}

func (v *validator) value(n *node, depth int) *Error {
	if depth > maxDepth {
		return &Error{Rule: RuleDepth}
	}
	switch n.kind {
	case kindString:
		b, err := v.r.TextBytes()
		if err != nil {
			return v.mismatch(err, "text")
		}
		return n.checkString(b)
	case kindInteger:
		i, err := v.r.Int()
		if err != nil {
			return v.mismatch(err, "an integer")
		}
		return n.checkInt(i)
	case kindBoolean:
		b, err := v.r.Bool()
		if err != nil {
			return v.mismatch(err, "a boolean")
		}
		return n.checkBool(b)
	case kindBytes:
		b, err := v.r.Bytes()
		if err != nil {
			return v.mismatch(err, "bytes")
		}
		return n.checkLength(len(b), "bytes")
	case kindCIDLink:
		if _, err := v.r.Link(); err != nil {
			return v.mismatch(err, "a link")
		}
		return nil
	case kindObject:
		return v.object(n, depth)
	case kindArray:
		return v.array(n, depth)
	case kindUnion:
		return v.union(n, depth)
	case kindBlob:
		return v.blob(n)
	case kindUnknown:
		return v.unknown()
	case kindAny:
		return v.skip()
	}
	return &Error{Rule: RuleUnresolved, Detail: n.why}
}

func (v *validator) skip() *Error {
	if err := v.r.Skip(); err != nil {
		return &Error{Rule: RuleEncoding, Err: err}
	}
	return nil
}

func (v *validator) array(n *node, depth int) *Error {
	count, err := v.r.Array()
	if err != nil {
		return v.mismatch(err, "an array")
	}
	if err := n.checkLength(count, "items"); err != nil {
		return err
	}
	for i := range count {
		if err := v.value(n.items, depth+1); err != nil {
			return err.inItem(i)
		}
	}
	return nil
}

// object reads a map. Keys and properties have the same order, so they are merged without a lookup.
func (v *validator) object(n *node, depth int) *Error {
	count, err := v.r.Map()
	if err != nil {
		return v.mismatch(err, "an object")
	}
	props := n.props
	typed := n.typeID == ""
	var key []byte
	for range count {
		if key, err = v.r.MapKey(key); err != nil {
			return &Error{Rule: RuleEncoding, Err: err}
		}
		for len(props) > 0 && less(props[0].name, key) {
			if props[0].required {
				return missing(props[0].name)
			}
			props = props[1:]
		}
		if len(props) > 0 && props[0].name == string(key) {
			p := &props[0]
			props = props[1:]
			if !v.r.IsNull() {
				if err := v.value(p.node, depth+1); err != nil {
					return err.inKey(key)
				}
			} else if p.nullable || p.node.kind == kindAny {
				if err := v.r.Null(); err != nil {
					return &Error{Rule: RuleEncoding, Err: err}
				}
			} else {
				return (&Error{Rule: RuleNull}).inKey(key)
			}
			continue
		}
		if !typed && string(key) == typeKey {
			t, err := v.r.TextBytes()
			if err != nil {
				return v.mismatch(err, "text").inKey(key)
			}
			if string(t) != n.typeID {
				return &Error{Path: typeKey, Rule: RuleTypeField, Detail: fmt.Sprintf("%.320q where %s should be", string(t), n.typeID)}
			}
			typed = true
			continue
		}
		if err := v.skip(); err != nil {
			return err.inKey(key)
		}
	}
	for i := range props {
		if props[i].required {
			return missing(props[i].name)
		}
	}
	if !typed {
		return &Error{Path: typeKey, Rule: RuleTypeField, Detail: "missing"}
	}
	return nil
}

func missing(name string) *Error { return (&Error{Rule: RuleRequired}).inKey([]byte(name)) }

// less is the order of keys in DAG-CBOR.
func less(name string, key []byte) bool {
	if len(name) != len(key) {
		return len(name) < len(key)
	}
	return name < string(key)
}

func (v *validator) union(n *node, depth int) *Error {
	t, err := v.typeField()
	if err != nil {
		return err
	}
	for i := range n.variants {
		if n.variants[i].id == string(t) {
			return v.value(n.variants[i].node, depth)
		}
	}
	if n.closed {
		return &Error{Path: typeKey, Rule: RuleUnion, Detail: fmt.Sprintf("%.320q isn't among the variants", string(t))}
	}
	return v.skip()
}

// typeField looks ahead for the $type of the object that comes next.
func (v *validator) typeField() ([]byte, *Error) {
	ahead := *v.r
	count, err := ahead.Map()
	if err != nil {
		return nil, v.mismatch(err, "an object")
	}
	var key []byte
	for range count {
		if key, err = ahead.MapKey(key); err != nil {
			return nil, &Error{Rule: RuleEncoding, Err: err}
		}
		if string(key) == typeKey {
			t, err := ahead.TextBytes()
			if err != nil {
				w := validator{r: &ahead}
				return nil, w.mismatch(err, "text").inKey(key)
			}
			return t, nil
		}
		if !less(typeKey, key) {
			if err := ahead.Skip(); err != nil {
				return nil, (&Error{Rule: RuleEncoding, Err: err}).inKey(key)
			}
			continue
		}
		break
	}
	return nil, &Error{Path: typeKey, Rule: RuleTypeField, Detail: "missing"}
}

// unknown reads an object that doesn't stand for something else.
func (v *validator) unknown() *Error {
	count, err := v.r.Map()
	if err != nil {
		return v.mismatch(err, "an object")
	}
	var key []byte
	for range count {
		if key, err = v.r.MapKey(key); err != nil {
			return &Error{Rule: RuleEncoding, Err: err}
		}
		switch string(key) {
		case "$link", "$bytes":
			return &Error{Rule: RuleType, Detail: "an object with " + string(key)}
		case typeKey:
			t, err := v.r.TextBytes()
			if err != nil {
				return v.mismatch(err, "text").inKey(key)
			}
			if string(t) == string(TypeBlob) {
				return &Error{Rule: RuleBlob, Detail: "a blob where an object should be"}
			}
		default:
			if err := v.skip(); err != nil {
				return err.inKey(key)
			}
		}
	}
	return nil
}

// blob reads a blob. Fields it doesn't know are passed over, as in any object.
func (v *validator) blob(n *node) *Error {
	count, err := v.r.Map()
	if err != nil {
		return v.mismatch(err, "a blob")
	}
	var key, mime, typ []byte
	var size int64
	var ref, sized, oldCID bool
	for range count {
		if key, err = v.r.MapKey(key); err != nil {
			return &Error{Rule: RuleEncoding, Err: err}
		}
		want := ""
		switch string(key) {
		case "ref":
			want, ref = "a link", true
			_, err = v.r.Link()
		case "size":
			want, sized = "an integer", true
			size, err = v.r.Int()
		case typeKey:
			want = "text"
			typ, err = v.r.TextBytes()
		case "mimeType":
			want = "text"
			mime, err = v.r.TextBytes()
		case "cid":
			k, _ := v.r.Kind() // if there is none, Skip will say why
			oldCID = k == cbor.KindText
			err = v.r.Skip()
		default:
			err = v.r.Skip()
		}
		if err != nil {
			return v.mismatch(err, want).inKey(key)
		}
	}
	legacy := v.legacyBlobs && typ == nil && oldCID && !ref && !sized && len(mime) > 0
	switch {
	case legacy:
	case string(typ) != string(TypeBlob):
		return &Error{Rule: RuleBlob, Detail: `no $type "blob"`}
	case !ref || !sized || len(mime) == 0:
		return &Error{Rule: RuleBlob, Detail: "ref, size or mimeType is missing"}
	case size < 0:
		return &Error{Path: "size", Rule: RuleBlob, Detail: "negative"}
	case size > n.max:
		return &Error{Path: "size", Rule: RuleMaxSize, Detail: fmt.Sprintf("%d bytes, at most %d", size, n.max)}
	}
	if len(n.accept) == 0 {
		return nil
	}
	if i := bytes.IndexByte(mime, ';'); i >= 0 {
		mime = bytes.TrimSpace(mime[:i])
	}
	for _, a := range n.accept {
		if matchMIME(a, mime) {
			return nil
		}
	}
	return &Error{Path: "mimeType", Rule: RuleAccept, Detail: fmt.Sprintf("%.80q isn't among %s", mime, strings.Join(n.accept, ", "))}
}

func (n *node) checkBool(b bool) *Error {
	if n.hasConst && b != n.constBool {
		return &Error{Rule: RuleConst, Detail: strconv.FormatBool(b)}
	}
	return nil
}

func (n *node) checkInt(i int64) *Error {
	if n.ints != nil && !slices.Contains(n.ints, i) {
		return &Error{Rule: n.setRule(), Detail: strconv.FormatInt(i, 10)}
	}
	if i < n.min {
		return &Error{Rule: RuleMinimum, Detail: fmt.Sprintf("%d is less than %d", i, n.min)}
	}
	if i > n.max {
		return &Error{Rule: RuleMaximum, Detail: fmt.Sprintf("%d is more than %d", i, n.max)}
	}
	return nil
}

func (n *node) setRule() Rule {
	if n.hasConst {
		return RuleConst
	}
	return RuleEnum
}

func (n *node) checkLength(l int, unit string) *Error {
	if int64(l) < n.min {
		return &Error{Rule: RuleMinLength, Detail: fmt.Sprintf("%d %s, at least %d", l, unit, n.min)}
	}
	if int64(l) > n.max {
		return &Error{Rule: RuleMaxLength, Detail: fmt.Sprintf("%d %s, at most %d", l, unit, n.max)}
	}
	return nil
}
