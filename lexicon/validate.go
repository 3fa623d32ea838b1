package lexicon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/syntax"
)

const typeKey = "$type"

// maxLookups bounds how many schemas one validation asks the resolver for.
const maxLookups = 256

// ValidateRecord checks a record in DAG-CBOR against the record schema with that NSID, which must be its $type. The
// error is an [*Error] or, as [Options] may want, an [Errors]; or it wraps [ErrUnknownSchema].
func (c *Catalog) ValidateRecord(id syntax.NSID, raw []byte) error {
	if n := c.store.node(string(id)); n != nil && n.typeID != "" { // the usual case
		return c.run(string(id), n, raw)
	}
	if _, err := c.method(id, TypeRecord); err != nil {
		return err
	}
	return c.run(string(id), c.store.node(string(id)), raw)
}

// method returns the main definition of a schema if it is of one of the types wanted.
func (c *Catalog) method(id syntax.NSID, want ...Type) (*Def, error) {
	s, err := c.Lookup(id)
	if err != nil {
		return nil, err
	}
	if d := s.Main(); d != nil {
		for _, t := range want {
			if d.Type == t {
				return d, nil
			}
		}
		return nil, fmt.Errorf("%w: %s is a %s, not a %s", ErrUnknownSchema, id, d.Type, join(want))
	}
	return nil, fmt.Errorf("%w: %s defines no %s", ErrUnknownSchema, id, join(want))
}

func join(types []Type) string {
	var s []string
	for _, t := range types {
		s = append(s, string(t))
	}
	return strings.Join(s, " or ")
}

// ValidateRecordKey checks a record key against the key type of the record schema with that NSID.
// https://atproto.com/specs/record-key#record-key-types
func (c *Catalog) ValidateRecordKey(id syntax.NSID, key syntax.RecordKey) error {
	d, err := c.method(id, TypeRecord)
	if err != nil {
		return err
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
	if _, err := c.Lookup(refNSID(ref)); err != nil {
		return err
	}
	if why := RefProblem(c.Resolve(ref)); why != "" {
		return fmt.Errorf("%w: %s %s", ErrUnknownSchema, ref, why)
	}
	return c.run(ref, c.store.node(ref), raw)
}

// ValidateInput checks the body of a procedure in DAG-CBOR; nil stands for no body. Bodies without a schema pass.
func (c *Catalog) ValidateInput(id syntax.NSID, raw []byte) error {
	d, err := c.method(id, TypeProcedure, TypeQuery)
	if err != nil {
		return err
	}
	return c.body(string(id)+" input", d.Input, raw)
}

// ValidateOutput checks the answer of a query or procedure in DAG-CBOR; nil stands for none. Answers without a schema
// pass.
func (c *Catalog) ValidateOutput(id syntax.NSID, raw []byte) error {
	d, err := c.method(id, TypeProcedure, TypeQuery)
	if err != nil {
		return err
	}
	return c.body(string(id)+" output", d.Output, raw)
}

func (c *Catalog) body(name string, b *Body, raw []byte) error {
	switch {
	case b == nil && raw != nil:
		return c.only(&Error{Rule: RuleBody, Detail: "there should be none"})
	case b == nil || b.Schema == nil:
		return nil
	case raw == nil:
		return c.only(&Error{Rule: RuleBody, Detail: "missing"})
	}
	return c.run(name, c.store.part(name, b.Schema), raw)
}

// ValidateMessage checks the payload of a stream's message, which has no $type: t is that of the frame header, such as
// "#commit". A type that the schema doesn't know passes: consumers ignore it.
func (c *Catalog) ValidateMessage(id syntax.NSID, t string, raw []byte) error {
	d, err := c.method(id, TypeSubscription)
	if err != nil {
		return err
	}
	if strings.HasPrefix(t, "#") {
		t = string(id) + t
	}
	if !slices.Contains(d.Message.Refs, t) {
		if d.Message.Closed {
			return c.only(&Error{Rule: RuleUnion, Detail: fmt.Sprintf("%.320q isn't among the messages", t)})
		}
		return nil
	}
	return c.ValidateType(t, raw)
}

// anyMethodErrors are the names that every method may answer with: those that XRPC itself gives to HTTP statuses.
// https://atproto.com/specs/xrpc#summary-of-http-status-codes
var anyMethodErrors = []string{
	"InvalidRequest", "AuthenticationRequired", "AuthMissing", "InvalidToken", "ExpiredToken", "Forbidden", "XRPCNotSupported", "NotFound",
	"PayloadTooLarge", "UnsupportedMediaType", "RateLimitExceeded", "InternalServerError", "MethodNotImplemented", "UpstreamFailure",
	"NotEnoughResources", "UpstreamTimeout",
}

// ValidateError checks the name of an error that a method answered with: it must be one that the schema declares or one
// that every method may use, such as InvalidRequest. The finding has [RuleErrorName]; a client treats such a name as one
// that it doesn't know.
func (c *Catalog) ValidateError(id syntax.NSID, name string) error {
	d, err := c.method(id, TypeQuery, TypeProcedure, TypeSubscription)
	if err != nil {
		return err
	}
	for _, e := range d.Errors {
		if e.Name == name {
			return nil
		}
	}
	if slices.Contains(anyMethodErrors, name) {
		return nil
	}
	return c.only(&Error{Rule: RuleErrorName, Detail: fmt.Sprintf("%.80q isn't declared", name)})
}

// only is an error with one finding.
func (c *Catalog) only(e *Error) error {
	if c.opts.Findings > 1 {
		return Errors{e}
	}
	return e
}

// run validates raw against the node with that name. Where data reaches a reference whose schema is missing, the resolver
// is asked for it and validation starts again: only schemas that the data needs are fetched.
func (c *Catalog) run(name string, n *node, raw []byte) error {
	if n.pass(raw, 0, 0) == len(raw) {
		return nil
	}
	v := validator{r: cbor.NewReader(raw), raw: raw, store: c.store, opts: c.opts}
	err := v.top(n)
	if v.need == "" || c.store.resolve == nil {
		return err
	}
	return c.resolveAndRun(name, n, raw, v.need)
}

func (c *Catalog) resolveAndRun(name string, n *node, raw []byte, need syntax.NSID) error {
	failed := make(map[syntax.NSID]error)
	for range maxLookups {
		if _, err := c.Lookup(need); err != nil {
			failed[need] = err
		}
		if again := c.store.again(name); again != nil {
			n = again
		}
		v := validator{r: cbor.NewReader(raw), raw: raw, store: c.store, opts: c.opts, failed: failed}
		err := v.top(n)
		if v.need == "" {
			return err
		}
		need = v.need
	}
	return c.only(&Error{Rule: RuleUnresolved, Detail: fmt.Sprintf("more than %d schemas are missing", maxLookups)})
}

// validator reads a value once from front to back.
type validator struct {
	r     cbor.Reader
	raw   []byte // that r reads
	store *store
	opts  Options
	errs  Errors      // collected, if more than one is wanted
	need  syntax.NSID // a schema that is missing and hasn't been asked for

	failed map[syntax.NSID]error // what couldn't be resolved
}

// top validates the whole input.
func (v *validator) top(n *node) error {
	err := v.child(n, 0)
	if err == nil {
		if e := v.r.End(); e != nil {
			err = &Error{Rule: RuleEncoding, Err: e}
		}
	}
	switch {
	case v.opts.Findings <= 1:
		if err == nil {
			return nil
		}
		return err
	case err != nil:
		v.errs = append(v.errs, err)
	}
	if len(v.errs) == 0 {
		return nil
	}
	return v.errs
}

// child validates what a container holds. If more than one finding is wanted and there is room, it keeps the finding and
// goes on behind the value; nobody can go on behind a broken encoding.
func (v *validator) child(n *node, depth int) *Error {
	if v.opts.Findings <= 1 {
		return v.value(n, depth)
	}
	start := v.r
	err := v.value(n, depth)
	if err == nil || err.Rule == RuleEncoding {
		return err
	}
	if err = v.found(err); err != nil {
		return err
	}
	v.r = start
	return v.skip()
}

// found keeps a finding and returns nil, or returns it if it is the last one that is wanted.
func (v *validator) found(e *Error) *Error {
	if len(v.errs)+1 >= v.opts.Findings {
		return e
	}
	v.errs = append(v.errs, e)
	return nil
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
		return n.checkString(b, v.opts.LenientDatetimes)
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
	case kindTypeID:
		t, err := v.r.TextBytes()
		if err != nil {
			return v.mismatch(err, "text")
		}
		if string(t) != n.typeID {
			return &Error{Rule: RuleTypeField, Detail: fmt.Sprintf("%.320q where %s should be", string(t), n.typeID)}
		}
		return nil
	}
	return v.unresolved(n.need, n.why)
}

// unresolved is the finding where a reference can't be followed.
func (v *validator) unresolved(need syntax.NSID, why string) *Error {
	e := &Error{Rule: RuleUnresolved, Detail: why}
	if need != "" {
		if err, asked := v.failed[need]; asked {
			e.Err = err
		} else if v.need == "" {
			v.need = need
		}
	}
	return e
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
		if v.opts.Findings <= 1 { // the usual case
			if err := v.value(n.items, depth+1); err != nil {
				return err.inItem(i)
			}
			continue
		}
		mark := len(v.errs)
		err := v.child(n.items, depth+1)
		for _, e := range v.errs[mark:] {
			e.inItem(i)
		}
		if err != nil {
			return err.inItem(i)
		}
	}
	return nil
}

// object reads a map. Its keys and the properties have the same order, in which encoded keys compare bytewise: so they are
// merged, and a key that is expected next needs only one comparison of the numbers that their first bytes are.
func (v *validator) object(n *node, depth int) *Error {
	start := v.r.Offset()
	count, err := v.r.Map()
	if err != nil {
		return v.mismatch(err, "an object")
	}
	props := n.props
	required := n.required
	var prev []byte
	for range count {
		rest := v.r.Rest()
		head := first8(rest)
		for steps := 0; len(props) > 0 && props[0].before(head, rest); steps++ {
			if steps == few {
				props = props[behind(props, head, rest):]
				break
			}
			props = props[1:]
		}
		if len(props) == 0 || props[0].head != head&props[0].mask || !v.r.Expect(props[0].encoded) {
			if prev, err = v.r.MapKey(prev); err != nil {
				return &Error{Rule: RuleEncoding, Err: err}
			}
			if err := v.skip(); err != nil {
				return err.inKey(prev)
			}
			continue
		}
		p := &props[0]
		props = props[1:]
		prev = rest[p.prefix:len(p.encoded)]
		if p.required {
			required--
		}
		if v.opts.Findings <= 1 && !v.r.IsNull() { // the usual case
			if err := v.value(p.node, depth+1); err != nil {
				return err.inKey(prev)
			}
			continue
		}
		mark := len(v.errs)
		var err *Error
		switch {
		case !v.r.IsNull():
			err = v.child(p.node, depth+1)
		case p.nullable || p.node.kind == kindAny:
			err = v.skip()
		default:
			err = v.null()
		}
		for _, e := range v.errs[mark:] {
			e.inKey(prev)
		}
		if err != nil {
			return err.inKey(prev)
		}
	}
	if required > 0 {
		return v.missing(n, cbor.NewReader(v.raw[start:]))
	}
	return nil
}

func (v *validator) null() *Error {
	if err := v.found(&Error{Rule: RuleNull}); err != nil {
		return err
	}
	return v.skip()
}

// first8 is the number that the first eight bytes are, with zeros behind a shorter text. Numbers are in the order of the
// bytes.
func first8(b []byte) uint64 {
	if len(b) >= 8 {
		return binary.BigEndian.Uint64(b)
	}
	var x uint64
	for i, c := range b {
		x |= uint64(c) << (56 - 8*i)
	}
	return x
}

// key fills in what a property is found by.
func (p *property) key() {
	p.encoded = string(cbor.AppendText(nil, p.name))
	p.prefix = len(p.encoded) - len(p.name)
	p.head = first8([]byte(p.encoded[:min(8, len(p.encoded))]))
	p.mask = ^uint64(0)
	if n := len(p.encoded); n < 8 {
		p.mask <<= 8 * (8 - n)
	}
}

// before reports whether the key of p is smaller than that at the start of rest, whose first bytes are head. If there is no
// well-formed key, the answer doesn't matter: reading it will say so.
func (p *property) before(head uint64, rest []byte) bool {
	if head &= p.mask; p.head != head {
		return p.head < head
	}
	return len(p.encoded) > 8 && p.encoded < string(rest[:min(len(p.encoded), len(rest))])
}

// behind is the number of properties that come before rest.
func behind(props []property, head uint64, rest []byte) int {
	lo, hi := 0, len(props)
	for lo < hi {
		if m := (lo + hi) / 2; props[m].before(head, rest) {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// missing finds out which required properties the map at r doesn't have, of which there is one. The map has been read
// before without an error.
func (v *validator) missing(n *node, r cbor.Reader) *Error {
	count, _ := r.Map()
	var key []byte
	have := make(map[string]bool, min(count, len(n.props)))
	for range count {
		key, _ = r.MapKey(key)
		_ = r.Skip()
		have[string(key)] = true
	}
	for i := range n.props {
		if p := &n.props[i]; p.required && !have[p.name] {
			if err := v.found(p.missing()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *property) missing() *Error {
	if p.node.kind == kindTypeID {
		return &Error{Path: typeKey, Rule: RuleTypeField, Detail: "missing"}
	}
	return (&Error{Rule: RuleRequired}).inKey([]byte(p.name))
}

func (v *validator) union(n *node, depth int) *Error {
	t, err := v.typeField()
	if err != nil {
		return err
	}
	if found := n.variant(t); found != nil {
		return v.value(found, depth)
	}
	if n.closed {
		return &Error{Path: typeKey, Rule: RuleUnion, Detail: fmt.Sprintf("%.320q isn't among the variants", string(t))}
	}
	if !v.opts.StrictUnions {
		return v.skip()
	}
	return v.unlisted(string(t), depth)
}

// unlisted validates a variant that an open union doesn't list, if its schema can be had.
func (v *validator) unlisted(t string, depth int) *Error {
	id := refNSID(t)
	if !syntax.ValidNSID(id) || strings.HasSuffix(t, "#"+mainName) {
		return &Error{Path: typeKey, Rule: RuleTypeField, Detail: fmt.Sprintf("%.320q is no reference", t)}
	}
	d, held := v.store.find(t)
	if why := VariantProblem(d); why != "" {
		if held {
			id = ""
		}
		return v.unresolved(id, fmt.Sprintf("%.320s %s", t, why))
	}
	return v.value(v.store.node(t), depth)
}

// typeProperty is $type.
var typeProperty = func() *property {
	p := &property{name: typeKey}
	p.key()
	return p
}()

// typeField looks ahead for the $type of the object that comes next.
func (v *validator) typeField() ([]byte, *Error) {
	ahead := v.r
	count, err := ahead.Map()
	if err != nil {
		return nil, v.mismatch(err, "an object")
	}
	var key []byte
	for range count {
		if ahead.Expect(typeProperty.encoded) {
			t, err := ahead.TextBytes()
			if err != nil {
				w := validator{r: ahead}
				return nil, w.mismatch(err, "text").inKey([]byte(typeKey))
			}
			if len(t) == 0 {
				return nil, &Error{Path: typeKey, Rule: RuleTypeField, Detail: "empty"}
			}
			return t, nil
		}
		if rest := ahead.Rest(); typeProperty.before(first8(rest), rest) {
			break
		}
		if key, err = ahead.MapKey(key); err != nil {
			return nil, &Error{Rule: RuleEncoding, Err: err}
		}
		if err := ahead.Skip(); err != nil {
			return nil, (&Error{Rule: RuleEncoding, Err: err}).inKey(key)
		}
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
	legacy := v.opts.AllowLegacyBlobs && typ == nil && oldCID && !ref && !sized && len(mime) > 0
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
	return n.checkMIME(mime)
}
