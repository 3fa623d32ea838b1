package lexgen

import (
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/lexicon"
)

// method writes the descriptor of a query, procedure or subscription, and its structs.
func (s *section) method(name string, r ref, d *lexicon.Def) {
	params := s.params(free(s.p.taken, name+"_Params"), d.Parameters)
	in, accepts := s.body(name+"_Input", "Body", r, d.Input)
	out, returns := s.body(name+"_Output", "Stream", r, d.Output)
	x := s.use("xrpc")
	var t string
	switch {
	case d.Type == lexicon.TypeQuery:
		t = fmt.Sprintf("Query[%s, %s]", params, out)
	case d.Type == lexicon.TypeSubscription:
		m := free(s.p.taken, name+"_Message")
		s.union(m, d.Message)
		t = fmt.Sprintf("Subscription[%s, %s]", params, m)
	case d.Parameters != nil:
		t = fmt.Sprintf("ProcedureWithParams[%s, %s, %s]", params, in, out)
	default:
		t = fmt.Sprintf("Procedure[%s, %s]", in, out)
	}
	fields := "NSID: " + strconv.Quote(string(r))
	if accepts != "" {
		fields += ", Accepts: " + strconv.Quote(accepts)
	}
	if returns != "" {
		fields += ", Returns: " + strconv.Quote(returns)
	}
	s.vars.WriteString(s.comment(name, "the "+string(d.Type)+" "+string(r), d))
	var errs []string
	for _, e := range d.Errors {
		errs = append(errs, strings.TrimPrefix(s.p.errors[e.Name], "Err"))
	}
	if len(errs) > 0 {
		if s.g.Comments {
			s.vars.WriteString("//\n")
		}
		s.vars.WriteString("// Errors: " + strings.Join(errs, ", ") + ".\n")
	}
	fmt.Fprintf(&s.vars, "var %s = %s%s{%s}\n", name, x, t, fields)
}

// body returns the Go type of an input or output, and the encoding if it isn't JSON.
func (s *section) body(name, raw string, r ref, b *lexicon.Body) (goType, encoding string) {
	switch {
	case b == nil:
		return s.use("xrpc") + "None", ""
	case b.Schema == nil || !isJSON(b.Encoding):
		return s.use("xrpc") + raw, b.Encoding
	}
	switch t := free(s.p.taken, name); b.Schema.Type {
	case lexicon.TypeObject:
		s.object(t, s.comment(t, "", b.Schema), r, b.Schema, false)
		return t, ""
	case lexicon.TypeUnion:
		s.union(t, b.Schema)
		return t, ""
	default:
		at := s.place(t, "")
		s.types[at].line.cells = []string{t, "= " + s.goType(r, t, b.Schema, false)}
		return t, ""
	}
}

func isJSON(encoding string) bool {
	t, _, err := mime.ParseMediaType(encoding)
	return err == nil && t == "application/json"
}

// params writes the struct of a method's parameters and returns its type.
func (s *section) params(name string, d *lexicon.Def) string {
	var fields []line
	taken := map[string]bool{}
	at := s.place(name, "")
	if d != nil {
		for _, p := range d.Properties {
			if taggable(p.Name) {
				fields = append(fields, s.param(taken, name, p.Name, p.Def, d.IsRequired(p.Name)))
			}
		}
	}
	if len(fields) == 0 {
		s.types = s.types[:at]
		return s.use("xrpc") + "None"
	}
	s.types[at].fields = fields
	if !s.g.Comments {
		s.types[at].fields = together(fields)
	}
	s.alias(at, true)
	return name
}

// together writes fields of the same type and tag in one line.
func together(fields []line) []line {
	rest := func(l line) string { return strings.Join(l.cells[1:], " ") }
	slices.SortStableFunc(fields, func(a, b line) int { return strings.Compare(rest(a), rest(b)) })
	var out []line
	for _, l := range fields {
		if n := len(out) - 1; n >= 0 && rest(out[n]) == rest(l) {
			out[n].cells[0] += ", " + l.cells[0]
			continue
		}
		out = append(out, l)
	}
	return out
}

func (s *section) param(taken map[string]bool, of, key string, p *lexicon.Def, required bool) line {
	item, pre := p, ""
	switch {
	case p.Type == lexicon.TypeArray:
		item, pre = p.Items, "[]"
	case !required:
		pre = "*"
	}
	t := map[lexicon.Type]string{lexicon.TypeString: "string", lexicon.TypeInteger: "int64", lexicon.TypeBoolean: "bool"}[item.Type]
	field := free(taken, identifier(camel(key)))
	// Package xrpc takes the name from the field, and a pointer or slice for optional.
	var tags []string
	if strings.ToLower(field[:1])+field[1:] != key {
		tags = append(tags, fmt.Sprintf("json:%q", key))
	}
	rules := paramRules(p, item)
	if pre == "[]" && required {
		rules = append(rules, "required")
	}
	if len(rules) > 0 {
		tags = append(tags, fmt.Sprintf("lex:%q", strings.Join(rules, ",")))
	}
	s.constants(of+"_"+camel(key), item)
	l := line{text(s.g.Comments, p.Description), []string{field, pre + t}}
	if len(tags) > 0 {
		l.cells = append(l.cells, "`"+strings.Join(tags, " ")+"`")
	}
	return l
}

// paramRules returns the limits of a parameter in the form that package xrpc reads from the lex tag.
func paramRules(p, item *lexicon.Def) (rules []string) {
	add := func(name string, v *int64) {
		if v != nil {
			rules = append(rules, name+"="+strconv.FormatInt(*v, 10))
		}
	}
	if p != item {
		add("minItems", p.MinLength)
		add("maxItems", p.MaxLength)
	}
	if item.Format != "" && strings.Trim(string(item.Format), "abcdefghijklmnopqrstuvwxyz-") == "" && item.Format != "required" {
		rules = append(rules, string(item.Format))
	}
	add("min", item.Minimum)
	add("max", item.Maximum)
	add("minLength", item.MinLength)
	add("maxLength", item.MaxLength)
	var enum []any
	for _, v := range item.IntEnum {
		enum = append(enum, v)
	}
	for _, v := range item.Enum {
		enum = append(enum, v)
	}
	if item.Const != nil {
		enum = []any{item.Const}
	}
	if v, ok := constant(enum...); ok {
		rules = append(rules, "enum="+v)
	}
	if p.Default != nil {
		if v, ok := constant(p.Default); ok {
			rules = append(rules, "default="+v)
		}
	}
	return rules
}

// constant writes scalars with "|" between them, and reports whether they can be in a tag.
func constant(values ...any) (string, bool) {
	var list []string
	for _, v := range values {
		s := fmt.Sprint(v)
		if b, err := json.Marshal(s); err != nil || string(b) != `"`+s+`"` || strings.ContainsAny(s, "`,|") {
			return "", false
		}
		list = append(list, s)
	}
	return strings.Join(list, "|"), len(list) > 0
}
