package lexlint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// Direction says between whom a change breaks.
type Direction string

// The directions. What is tightened breaks the first, what is loosened the second.
const (
	NewReader Direction = "new-reader-old-data" // who goes by the new schema refuses data made by the old one
	OldReader Direction = "old-reader-new-data" // who goes by the old schema refuses data made by the new one
	Both      Direction = "both"
)

// Role says what the changed data is for: in which way it goes decides who suffers.
type Role string

// The roles.
const (
	RoleData   Role = "data"   // records, and definitions that anybody may use
	RoleInput  Role = "input"  // parameters and bodies: from callers to servers
	RoleOutput Role = "output" // answers and messages: from servers to callers
)

// Change is one difference between two versions of a schema that somebody will notice.
type Change struct {
	Rule      string      `json:"rule"`
	Level     Level       `json:"level"`
	Direction Direction   `json:"direction"`
	Role      Role        `json:"role"`
	NSID      syntax.NSID `json:"nsid"`
	Path      string      `json:"path"`          // in the old schema, or in the new one if it isn't there
	Via       string      `json:"via,omitempty"` // the definition that it is in, if a reference led there
	Message   string      `json:"message"`
}

// String returns one line.
func (c Change) String() string {
	s := fmt.Sprintf("%s: %s %s (%s): %s: ", c.NSID, c.Level, c.Rule, c.Direction, c.Path)
	if c.Via != "" {
		s += "in " + c.Via + ": "
	}
	return s + c.Message
}

// BreakingOptions say what [Breaking] goes by.
type BreakingOptions struct {
	// Old and New have the schemas that the two versions refer to, as they were and as they will be. With nil in either, or
	// where they don't have one, references to other schemas are compared by name.
	Old, New lexicon.Source
	Ignore   []string // ids of rules to leave out
	Level    Level    // the least that is told; "" is Info: everything
}

// changeRules are the rules of Breaking. The level is that for data; see levelFor.
var changeRules = []Rule{
	{"array-items", Error, false, "the items of an array have another type"},
	{"array-length", Warn, false, "an array may have more or fewer items"},
	{"blob-accept", Warn, false, "a blob may have other MIME types"},
	{"blob-size", Warn, false, "a blob may be larger or smaller"},
	{"body-encoding", Error, false, "a body has another encoding"},
	{"body-removed", Error, false, "a method's input or output is gone"},
	{"bytes-length", Warn, false, "bytes may be longer or shorter"},
	{"const-value", Error, false, "a constant is new, gone or another"},
	{"def-removed", Error, false, "a definition is gone"},
	{"default-change", Warn, false, "what an absent field stands for has changed"},
	{"enum-values", Error, false, "a closed set has more or fewer values"},
	{"error-removed", Warn, false, "an error isn't declared any more"},
	{"field-removed", Warn, false, "an optional field is gone"},
	{"input-added", Error, false, "a procedure wants a body that it didn't want"},
	{"integer-range", Warn, false, "an integer may be larger or smaller"},
	{"known-values-removed", Warn, false, "known values are gone"},
	{"limit-added", Warn, false, "there is a limit where there was none"},
	{"object-nullable", Error, false, "a field may be null, or may not any more"},
	{"object-optional", Error, false, "a required field is optional, or gone"},
	{"object-required", Error, false, "an optional field is required"},
	{"params-optional", Info, false, "a required parameter is optional, or gone"},
	{"params-required", Error, false, "a parameter is required that was optional or absent"},
	{"permission-narrowed", Warn, false, "a permission set grants less"},
	{"permission-widened", Error, false, "a permission set grants more"},
	{"record-key-type", Error, false, "records have another type of key"},
	{"ref-change", Warn, false, "a reference leads to another definition"},
	{"required-field-added", Error, false, "a new field is required"},
	{"string-format", Error, false, "a string has another format"},
	{"string-length", Warn, false, "a string may be longer or shorter"},
	{"type-change", Error, false, "something has another type"},
	{"union-closed-refs", Error, false, "a closed union has more or fewer variants"},
	{"union-open-closed", Error, false, "a union was opened or closed"},
	{"union-ref-removed", Error, false, "an open union lists fewer variants"},
}

// ChangeRules returns the rules of [Breaking], sorted by id. Their level is that for records; for methods a change in the
// direction that only the other side could notice counts less.
func ChangeRules() []Rule { return slices.Clone(changeRules) }

var changeLevels = func() map[string]Level {
	m := make(map[string]Level, len(changeRules))
	for _, r := range changeRules {
		m[r.ID] = r.Level
	}
	return m
}()

// levelFor is the level of a change. Records are written and read by everybody at all times, so both directions count. A
// server has to bear with the requests of callers that went before it, so tightened input is as bad, while a server older than
// its callers is seldom met: that is no more than Info. A server's answers are read by callers that went before it, so
// loosened output is as bad, while tightened output meets a caller that is newer than the server, which is worth a warning.
func levelFor(rule string, r Role, dir Direction) Level {
	l := changeLevels[rule]
	switch {
	case r == RoleInput && dir == OldReader:
		return Info
	case r == RoleOutput && dir == NewReader && l == Error:
		return Warn
	}
	return l
}

// maxPairs bounds how many pairs of definitions one comparison looks at. The largest schema in use has about 50.
const maxPairs = 20000

// Breaking compares two versions of a schema. References are followed into other schemas as far as those are known, so that
// a change behind them is told as well, with Via. Changes that nobody notices, such as an optional field more, aren't told.
// They are sorted by path.
func Breaking(before, after *lexicon.Schema, o BreakingOptions) []Change {
	c := &comparison{o: o, before: before, after: after, seen: map[pair]bool{}}
	roles := localRoles(before)
	for _, n := range before.Defs {
		at := place{path: []string{"defs", n.Name}, role: roles[before.Reference(n.Name)]}
		if d := after.Def(n.Name); d != nil {
			c.named(at, n.Def, d)
		} else {
			c.tell(at.as(RoleData), "def-removed", NewReader, "%s %s is gone", n.Def.Type, n.Name)
		}
	}
	out := slices.DeleteFunc(c.changes, func(x Change) bool {
		return !x.Level.AtLeast(cmp.Or(o.Level, Info)) || slices.Contains(o.Ignore, x.Rule)
	})
	slices.SortStableFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Via, b.Via), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(a.Message, b.Message), cmp.Compare(a.Role, b.Role))
	})
	return slices.Compact(out)
}

// localRoles tells what the definitions of a schema are for: those that only the input or only the output of its method uses
// have that role. Others may use the rest for anything.
func localRoles(s *lexicon.Schema) map[string]Role {
	uses := map[string][]lexicon.Link{}
	for _, l := range s.Links() {
		uses[l.From] = append(uses[l.From], l)
	}
	roles := map[string]Role{}
	for _, n := range s.Defs {
		roles[s.Reference(n.Name)] = RoleData
	}
	main := s.Main()
	if main == nil || main.Type == lexicon.TypeRecord {
		return roles
	}
	reach := func(part role) map[string]bool {
		seen := map[string]bool{}
		var visit func(l lexicon.Link)
		visit = func(l lexicon.Link) {
			if roles[l.To] == "" || seen[l.To] || l.To == string(s.ID) {
				return
			}
			seen[l.To] = true
			for _, next := range uses[l.To] {
				visit(next)
			}
		}
		for _, l := range uses[string(s.ID)] {
			if roleOf(main.Type, l.Path)&part != 0 {
				visit(l)
			}
		}
		return seen
	}
	in, out := reach(inInput), reach(inOutput|inMessage)
	for ref := range in {
		if !out[ref] {
			roles[ref] = RoleInput
		}
	}
	for ref := range out {
		if !in[ref] {
			roles[ref] = RoleOutput
		}
	}
	return roles
}

// place is where a comparison is.
type place struct {
	path []string // in the schemas compared
	via  string   // the foreign definition that references have led to, with the path in it
	role Role
}

func (p place) in(steps ...string) place {
	if p.via != "" {
		p.via += "." + strings.Join(steps, ".")
		return p
	}
	p.path = slices.Concat(p.path, steps)
	return p
}

func (p place) as(r Role) place { p.role = r; return p }

// pair is two definitions that have been compared.
type pair struct {
	before, after string
	role          Role
}

type comparison struct {
	o             BreakingOptions
	before, after *lexicon.Schema
	seen          map[pair]bool
	changes       []Change
}

func (c *comparison) tell(at place, rule string, dir Direction, format string, args ...any) {
	c.changes = append(c.changes, Change{Rule: rule, Level: levelFor(rule, at.role, dir), Direction: dir, Role: at.role, NSID: c.before.ID,
		Path: strings.Join(at.path, "."), Via: at.via, Message: fmt.Sprintf(format, args...)})
}

// named compares definitions that have a name.
func (c *comparison) named(at place, a, b *lexicon.Def) {
	if a.Type != b.Type {
		c.typeChange(at, a, b)
		return
	}
	switch a.Type {
	case lexicon.TypeRecord:
		if a.Key != b.Key {
			c.tell(at.in("key"), "record-key-type", keyDirection(a.Key, b.Key), "%s became %s", a.Key, b.Key)
		}
		c.data(at.in("record"), a.Record, b.Record)
	case lexicon.TypeQuery, lexicon.TypeProcedure, lexicon.TypeSubscription:
		c.method(at, a, b)
	case lexicon.TypePermissionSet:
		c.permissions(at, a, b)
	default:
		c.data(at, a, b)
	}
}

func (c *comparison) typeChange(at place, a, b *lexicon.Def) {
	rule := "type-change"
	if len(at.path) > 0 && at.via == "" && at.path[len(at.path)-1] == "items" || strings.HasSuffix(at.via, ".items") {
		rule = "array-items"
	}
	c.tell(at, rule, Both, "%s became %s", a.TypeText(), b.TypeText())
}

// keyDirection tells whether keys were tightened: all types allow fewer than any.
func keyDirection(a, b string) Direction {
	switch {
	case a == "any" || a == "nsid" && strings.HasPrefix(b, "literal:") && syntax.ValidNSID(b[len("literal:"):]):
		return NewReader
	case b == "any":
		return OldReader
	}
	return Both
}

func (c *comparison) method(at place, a, b *lexicon.Def) {
	in, out := at.as(RoleInput), at.as(RoleOutput)
	c.params(in.in("parameters"), a.Parameters, b.Parameters)
	c.body(in.in("input"), a.Input, b.Input)
	c.body(out.in("output"), a.Output, b.Output)
	if a.Message != nil && b.Message != nil {
		c.data(out.in("message", "schema"), a.Message, b.Message)
	}
	have := map[string]bool{}
	for _, e := range b.Errors {
		have[e.Name] = true
	}
	for _, e := range a.Errors {
		if !have[e.Name] {
			c.tell(out.in("errors"), "error-removed", NewReader, "%s isn't declared any more", e.Name)
		}
	}
}

func (c *comparison) body(at place, a, b *lexicon.Body) {
	switch {
	case a == nil && b == nil:
	case a == nil:
		if at.role == RoleInput {
			c.tell(at, "input-added", NewReader, "callers send no body so far")
		}
	case b == nil:
		c.tell(at, "body-removed", Both, "there was one in %s", a.Encoding)
	default:
		if a.Encoding != b.Encoding {
			c.tell(at.in("encoding"), "body-encoding", encodingDirection(a, b), "%s became %s", a.Encoding, b.Encoding)
		}
		switch {
		case a.Schema != nil && b.Schema != nil:
			c.data(at.in("schema"), a.Schema, b.Schema)
		case a.Schema != nil:
			c.tell(at.in("schema"), "type-change", OldReader, "%s became anything", a.Schema.TypeText())
		case b.Schema != nil:
			c.tell(at.in("schema"), "type-change", NewReader, "anything became %s", b.Schema.TypeText())
		}
	}
}

// encodingDirection tells whether one encoding allows all that the other does.
func encodingDirection(a, b *lexicon.Body) Direction {
	switch {
	case b.Accepts(a.Encoding):
		return OldReader
	case a.Accepts(b.Encoding):
		return NewReader
	}
	return Both
}

func (c *comparison) params(at place, a, b *lexicon.Def) {
	none := &lexicon.Def{Type: lexicon.TypeParams}
	if a == nil {
		a = none
	}
	if b == nil {
		b = none
	}
	c.fields(at, a, b)
}

// fields compares the properties of objects, and parameters.
func (c *comparison) fields(at place, a, b *lexicon.Def) {
	params := a.Type == lexicon.TypeParams
	required, optional, added := "object-required", "object-optional", "required-field-added"
	if params {
		required, optional, added = "params-required", "params-optional", "params-required"
	}
	newDefs := make(map[string]*lexicon.Def, len(b.Properties))
	for _, p := range b.Properties {
		newDefs[p.Name] = p.Def
	}
	oldDefs := make(map[string]*lexicon.Def, len(a.Properties))
	wasRequired, isRequired := set(a.Required), set(b.Required)
	wasNullable, isNullable := set(a.Nullable), set(b.Nullable)
	for _, p := range a.Properties {
		oldDefs[p.Name] = p.Def
		sub := at.in("properties", p.Name)
		d := newDefs[p.Name]
		if d == nil {
			if wasRequired[p.Name] && !isRequired[p.Name] {
				c.tell(sub, optional, OldReader, "the required %s is gone", p.Name)
			} else {
				c.tell(sub, "field-removed", OldReader, "%s is gone: what it held is lost on new readers", p.Name)
			}
			continue
		}
		switch {
		case isRequired[p.Name] && !wasRequired[p.Name]:
			c.tell(sub, required, NewReader, "%s was optional and is required", p.Name)
		case wasRequired[p.Name] && !isRequired[p.Name]:
			c.tell(sub, optional, OldReader, "%s was required and is optional", p.Name)
		}
		switch {
		case isNullable[p.Name] && !wasNullable[p.Name]:
			c.tell(sub, "object-nullable", OldReader, "%s may be null", p.Name)
		case wasNullable[p.Name] && !isNullable[p.Name]:
			c.tell(sub, "object-nullable", NewReader, "%s may not be null any more", p.Name)
		}
		c.data(sub, p.Def, d)
	}
	for _, name := range b.Required {
		if oldDefs[name] == nil && !wasRequired[name] {
			c.tell(at.in("properties", name), added, NewReader, "%s is new and required", name)
		}
	}
}

// data compares definitions of data. References that lead to the same are the same, whatever they are called.
func (c *comparison) data(at place, a, b *lexicon.Def) {
	if a.Type == lexicon.TypeRef || b.Type == lexicon.TypeRef {
		c.reference(at, a, b)
		return
	}
	if a.Type != b.Type {
		c.typeChange(at, a, b)
		return
	}
	switch a.Type {
	case lexicon.TypeBoolean:
		c.constants(at, a, b)
	case lexicon.TypeInteger:
		c.constants(at, a, b)
		limits{c, at, "integer-range"}.compare("minimum", "maximum", a.Minimum, b.Minimum, a.Maximum, b.Maximum)
		c.enum(at, texts(a.IntEnum), texts(b.IntEnum))
	case lexicon.TypeString:
		c.constants(at, a, b)
		c.strings(at, a, b)
	case lexicon.TypeBytes:
		limits{c, at, "bytes-length"}.compare("minLength", "maxLength", a.MinLength, b.MinLength, a.MaxLength, b.MaxLength)
	case lexicon.TypeArray:
		limits{c, at, "array-length"}.compare("minLength", "maxLength", a.MinLength, b.MinLength, a.MaxLength, b.MaxLength)
		c.data(at.in("items"), a.Items, b.Items)
	case lexicon.TypeBlob:
		limits{c, at, "blob-size"}.compare("", "maxSize", nil, nil, a.MaxSize, b.MaxSize)
		c.accept(at, a.Accept, b.Accept)
	case lexicon.TypeObject:
		c.fields(at, a, b)
	case lexicon.TypeUnion:
		c.union(at, a, b)
	case lexicon.TypeRecord:
		c.data(at.in("record"), a.Record, b.Record)
	}
}

// reference compares where at least one side is a ref.
func (c *comparison) reference(at place, a, b *lexicon.Def) {
	from, to := a, b
	fromName, toName := "", ""
	if a.Type == lexicon.TypeRef {
		fromName = a.Ref
		from = c.resolve(c.before, c.o.Old, a.Ref)
	}
	if b.Type == lexicon.TypeRef {
		toName = b.Ref
		to = c.resolve(c.after, c.o.New, b.Ref)
	}
	if fromName == toName && c.isLocal(fromName) {
		return // named compares it
	}
	if from == nil || to == nil {
		if fromName != toName {
			c.tell(at, "ref-change", Both, "%s became %s, and one of them couldn't be looked up", a.TypeText(), b.TypeText())
		}
		return
	}
	if fromName != toName {
		c.tell(at, "ref-change", Both, "%s became %s", a.TypeText(), b.TypeText())
	}
	key := pair{cmp.Or(fromName, strings.Join(at.path, ".")+at.via), cmp.Or(toName, strings.Join(at.path, ".")+at.via), at.role}
	if c.seen[key] || len(c.seen) >= maxPairs {
		return
	}
	c.seen[key] = true
	at.via = cmp.Or(fromName, toName)
	c.data(at, from, to)
}

// isLocal reports whether a reference leads to a definition that both versions have.
func (c *comparison) isLocal(ref string) bool {
	id, name, ok := strings.Cut(ref, "#")
	if !ok {
		name = "main"
	}
	return syntax.NSID(id) == c.before.ID && c.before.ID == c.after.ID && c.before.Def(name) != nil && c.after.Def(name) != nil
}

// resolve returns what a reference leads to, nil if that isn't known or isn't data.
func (c *comparison) resolve(s *lexicon.Schema, source lexicon.Source, ref string) *lexicon.Def {
	id, name, ok := strings.Cut(ref, "#")
	if !ok {
		name = "main"
	}
	if syntax.NSID(id) != s.ID {
		if source == nil {
			return nil
		}
		var err error
		if s, err = source.Lookup(syntax.NSID(id)); err != nil {
			return nil
		}
	}
	d := s.Def(name)
	if lexicon.RefProblem(d) != "" {
		return nil
	}
	return d
}

func (c *comparison) constants(at place, a, b *lexicon.Def) {
	switch {
	case a.Const == b.Const:
	case a.Const == nil:
		c.tell(at.in("const"), "const-value", NewReader, "anything became always %v", b.Const)
	case b.Const == nil:
		c.tell(at.in("const"), "const-value", OldReader, "always %v became anything", a.Const)
	default:
		c.tell(at.in("const"), "const-value", Both, "%v became %v", a.Const, b.Const)
	}
	if a.Default != b.Default {
		c.tell(at.in("default"), "default-change", Both, "an absent field stood for %v and stands for %v", orNothing(a.Default), orNothing(b.Default))
	}
}

func orNothing(v any) any {
	if v == nil {
		return "nothing"
	}
	return v
}

func (c *comparison) strings(at place, a, b *lexicon.Def) {
	limits{c, at, "string-length"}.compare("minLength", "maxLength", a.MinLength, b.MinLength, a.MaxLength, b.MaxLength)
	limits{c, at, "string-length"}.compare("minGraphemes", "maxGraphemes", a.MinGraphemes, b.MinGraphemes, a.MaxGraphemes, b.MaxGraphemes)
	c.enum(at, a.Enum, b.Enum)
	if gone := without(a.KnownValues, b.KnownValues); len(gone) > 0 && b.Enum == nil {
		c.tell(at.in("knownValues"), "known-values-removed", OldReader, "gone: %s", list(gone))
	}
	if a.Format == b.Format {
		return
	}
	dir := Both
	switch {
	case b.Format == "" || within(a.Format, b.Format):
		dir = OldReader
	case a.Format == "" || within(b.Format, a.Format):
		dir = NewReader
	}
	c.tell(at.in("format"), "string-format", dir, "%s became %s", cmp.Or(string(a.Format), "any text"), cmp.Or(string(b.Format), "any text"))
}

// within reports whether every string of format a is one of format b.
func within(a, b syntax.Kind) bool {
	switch b {
	case syntax.KindAtIdentifier:
		return a == syntax.KindDID || a == syntax.KindHandle
	case syntax.KindURI:
		return a == syntax.KindDID || a == syntax.KindATURI
	case syntax.KindRecordKey:
		return a == syntax.KindTID || a == syntax.KindNSID
	}
	return false
}

func (c *comparison) enum(at place, a, b []string) {
	at = at.in("enum")
	switch {
	case a == nil && b == nil:
	case a == nil:
		c.tell(at, "enum-values", NewReader, "anything became one of %d values", len(b))
	case b == nil:
		c.tell(at, "enum-values", OldReader, "one of %d values became anything", len(a))
	default:
		if gone := without(a, b); len(gone) > 0 {
			c.tell(at, "enum-values", NewReader, "gone: %s", list(gone))
		}
		if more := without(b, a); len(more) > 0 {
			c.tell(at, "enum-values", OldReader, "new: %s", list(more))
		}
	}
}

func texts(ints []int64) []string {
	if ints == nil {
		return nil
	}
	out := make([]string, 0, len(ints))
	for _, i := range ints {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

// without returns what is in a and not in b, in the order of a.
func without(a, b []string) []string {
	have := set(b)
	var out []string
	for _, s := range a {
		if !have[s] {
			out = append(out, s)
		}
	}
	return out
}

// list writes names, not too many of them.
func list(names []string) string {
	if len(names) > 10 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:10], ", "), len(names)-10)
	}
	return strings.Join(names, ", ")
}

// limits compares a lower and an upper bound.
type limits struct {
	c    *comparison
	at   place
	rule string
}

func (l limits) compare(low, high string, oldLow, newLow, oldHigh, newHigh *int64) {
	l.one(low, oldLow, newLow, 1)
	l.one(high, oldHigh, newHigh, -1)
}

// one compares one bound; tighter is 1 if a larger one is tighter, -1 if a smaller one is.
func (l limits) one(name string, a, b *int64, tighter int) {
	switch {
	case a == nil && b == nil:
	case a == nil:
		l.c.tell(l.at.in(name), "limit-added", NewReader, "%s %d is new", name, *b)
	case b == nil:
		l.c.tell(l.at.in(name), l.rule, OldReader, "%s %d is gone", name, *a)
	case *a != *b:
		dir := OldReader
		if cmp.Compare(*b, *a) == tighter {
			dir = NewReader
		}
		l.c.tell(l.at.in(name), l.rule, dir, "%s %d became %d", name, *a, *b)
	}
}

func (c *comparison) accept(at place, a, b []string) {
	at = at.in("accept")
	covered := func(list []string, pattern string) bool {
		if len(list) == 0 {
			return true
		}
		major, _, _ := strings.Cut(pattern, "/")
		return slices.Contains(list, pattern) || slices.Contains(list, "*/*") || slices.Contains(list, major+"/*")
	}
	missing := func(from, in []string) (out []string) {
		if len(from) == 0 && len(in) > 0 && !slices.Contains(in, "*/*") {
			return []string{"*/*"}
		}
		for _, p := range from {
			if !covered(in, p) {
				out = append(out, p)
			}
		}
		return out
	}
	if gone := missing(a, b); len(gone) > 0 {
		c.tell(at, "blob-accept", NewReader, "not accepted any more: %s", list(gone))
	}
	if more := missing(b, a); len(more) > 0 {
		c.tell(at, "blob-accept", OldReader, "newly accepted: %s", list(more))
	}
}

func (c *comparison) union(at place, a, b *lexicon.Def) {
	switch {
	case a.Closed && !b.Closed:
		c.tell(at.in("closed"), "union-open-closed", OldReader, "the union was closed and is open")
	case b.Closed && !a.Closed:
		c.tell(at.in("closed"), "union-open-closed", NewReader, "the union was open and is closed")
	}
	gone, more := without(a.Refs, b.Refs), without(b.Refs, a.Refs)
	if len(gone) > 0 {
		rule := "union-ref-removed"
		if a.Closed && b.Closed {
			rule = "union-closed-refs"
		}
		c.tell(at.in("refs"), rule, NewReader, "gone: %s", list(gone))
	}
	if len(more) > 0 && a.Closed {
		c.tell(at.in("refs"), "union-closed-refs", OldReader, "new: %s", list(more))
	}
	still := set(b.Refs)
	for _, r := range a.Refs {
		if still[r] {
			ref := &lexicon.Def{Type: lexicon.TypeRef, Ref: r}
			c.reference(at.in("refs"), ref, ref)
		}
	}
}

// permissions compares what sets grant: each pair of resource and target, with the actions or the audience.
func (c *comparison) permissions(at place, a, b *lexicon.Def) {
	at = at.in("permissions")
	had, has := grants(a), grants(b)
	if more := without(has, had); len(more) > 0 {
		c.tell(at, "permission-widened", NewReader, "newly granted: %s", list(more))
	}
	if gone := without(had, has); len(gone) > 0 {
		c.tell(at, "permission-narrowed", OldReader, "not granted any more: %s", list(gone))
	}
}

func grants(d *lexicon.Def) []string {
	var out []string
	for _, p := range d.Permissions {
		if p.Ignore != "" {
			continue
		}
		for _, id := range p.Collection {
			actions := p.Action
			if len(actions) == 0 {
				actions = []string{"create", "update", "delete"}
			}
			for _, action := range actions {
				out = append(out, "repo "+id+" "+action)
			}
		}
		for _, id := range p.LXM {
			aud := "any audience"
			if p.InheritAud {
				aud = "the audience of the request"
			}
			out = append(out, "rpc "+id+" for "+aud)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
