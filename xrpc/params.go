package xrpc

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/barograph/baro/syntax"
)

// Parameters are structs of strings, integers, booleans and slices of these, with pointers where a parameter may be
// absent; an absent slice is an empty one. The name is that of the field with a small first letter, or in the json tag. The
// lex tag has the limits of the lexicon: a format, min, max, minLength, maxLength, minItems, maxItems, enum (values with "|"
// between them) and default; and required, for a slice that may not be absent.

type param struct {
	index    int
	name     string
	kind     reflect.Kind // String, Int64 or Bool
	list     bool
	optional bool
	rules    rules
}

type rules struct {
	format             syntax.Kind
	min, max           *int64
	minLength          *int64
	maxLength          *int64
	minItems, maxItems *int64
	enum               []string
	def                string
	required           bool
}

var paramPlans sync.Map // reflect.Type → []param or error

func paramsOf(t reflect.Type) ([]param, error) {
	if v, ok := paramPlans.Load(t); ok {
		if p, ok := v.([]param); ok {
			return p, nil
		}
		return nil, v.(error)
	}
	p, err := buildParams(t)
	if err != nil {
		paramPlans.Store(t, err)
		return nil, err
	}
	paramPlans.Store(t, p)
	return p, nil
}

func buildParams(t reflect.Type) ([]param, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("xrpc: parameters must be a struct, not %v", t)
	}
	var list []param
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name[:1]) + f.Name[1:]
		}
		p := param{index: i, name: name}
		ft := f.Type
		switch ft.Kind() {
		case reflect.Pointer:
			p.optional = true
			ft = ft.Elem()
		case reflect.Slice:
			p.list = true
			ft = ft.Elem()
		}
		p.kind = ft.Kind()
		if p.kind != reflect.String && p.kind != reflect.Int64 && p.kind != reflect.Bool {
			return nil, fmt.Errorf("xrpc: parameter %v.%s can't be of type %v", t, f.Name, f.Type)
		}
		if err := p.rules.parse(f.Tag.Get("lex")); err != nil {
			return nil, fmt.Errorf("xrpc: parameter %v.%s: %w", t, f.Name, err)
		}
		p.optional = p.optional || p.list && !p.rules.required
		list = append(list, p)
	}
	return list, nil
}

func (r *rules) parse(tag string) error {
	if tag == "" {
		return nil
	}
	ints := map[string]**int64{
		"min": &r.min, "max": &r.max, "minLength": &r.minLength, "maxLength": &r.maxLength,
		"minItems": &r.minItems, "maxItems": &r.maxItems,
	}
	for rule := range strings.SplitSeq(tag, ",") {
		name, value, valued := strings.Cut(rule, "=")
		switch {
		case rule == "required":
			r.required = true
		case !valued:
			r.format = syntax.Kind(rule)
		case name == "enum":
			r.enum = strings.Split(value, "|")
		case name == "default":
			r.def = value
		default:
			n, err := strconv.ParseInt(value, 10, 64)
			if ints[name] == nil || err != nil {
				return fmt.Errorf("the rule %q isn't known", rule)
			}
			*ints[name] = &n
		}
	}
	return nil
}

// EncodeParams returns the query string for a struct of parameters, or a pointer to one. An absent parameter that has a
// default is sent with it, as the specification asks, so that caches see one form of a request.
func EncodeParams(params any) (string, error) {
	v := reflect.ValueOf(params)
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v = reflect.Zero(v.Type().Elem())
			continue
		}
		v = v.Elem()
	}
	if !v.IsValid() {
		return "", nil
	}
	plan, err := paramsOf(v.Type())
	if err != nil {
		return "", err
	}
	var b strings.Builder
	add := func(name, value string) {
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(name))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(value))
	}
	for _, p := range plan {
		f := v.Field(p.index)
		switch {
		case p.list:
			for i := range f.Len() {
				add(p.name, format(f.Index(i)))
			}
		case f.Kind() == reflect.Pointer:
			if !f.IsNil() {
				add(p.name, format(f.Elem()))
			} else if p.rules.def != "" {
				add(p.name, p.rules.def)
			}
		default:
			add(p.name, format(f))
		}
	}
	return b.String(), nil
}

func format(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	}
	return v.String()
}

// DecodeParams reads a query string into the struct that params points to, and checks it. Parameters that the struct
// doesn't have are passed over. The error is an [*Error] of the name InvalidRequest.
func DecodeParams(query string, params any) error {
	v := reflect.ValueOf(params).Elem()
	plan, err := paramsOf(v.Type())
	if err != nil {
		return err
	}
	if len(plan) == 0 {
		return nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return ErrInvalidRequest.With("the query string is malformed")
	}
	for i := range plan {
		if err := plan[i].decode(values, v.Field(plan[i].index)); err != nil {
			return err
		}
	}
	return nil
}

func (p *param) decode(values url.Values, f reflect.Value) error {
	given := values[p.name]
	bad := func(format string, args ...any) error {
		return ErrInvalidRequest.With("parameter %s: "+format, append([]any{p.name}, args...)...)
	}
	if len(given) == 0 {
		switch {
		case p.rules.def != "" && !p.list:
			given = []string{p.rules.def}
		case p.optional:
			f.SetZero()
			return nil
		default:
			return ErrInvalidRequest.With("parameter %s is required", p.name)
		}
	}
	if !p.list {
		if len(given) > 1 {
			return bad("given %d times", len(given))
		}
		if f.Kind() == reflect.Pointer {
			f.Set(reflect.New(f.Type().Elem()))
			f = f.Elem()
		}
		if err := p.set(f, given[0]); err != nil {
			return bad("%v", err)
		}
		return nil
	}
	n := int64(len(given))
	if r := &p.rules; r.minItems != nil && n < *r.minItems || r.maxItems != nil && n > *r.maxItems {
		return bad("%d values, %s", n, between(r.minItems, r.maxItems))
	}
	f.Set(reflect.MakeSlice(f.Type(), len(given), len(given)))
	for i, s := range given {
		if err := p.set(f.Index(i), s); err != nil {
			return bad("%v", err)
		}
	}
	return nil
}

func (p *param) set(f reflect.Value, s string) error {
	r := &p.rules
	switch p.kind {
	case reflect.Bool:
		if s != "true" && s != "false" {
			return fmt.Errorf("%s is neither true nor false", clip(s))
		}
		f.SetBool(s == "true")
	case reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%s isn't an integer", clip(s))
		}
		if r.min != nil && n < *r.min || r.max != nil && n > *r.max {
			return fmt.Errorf("%d, %s", n, between(r.min, r.max))
		}
		f.SetInt(n)
	default:
		if n := int64(len(s)); r.minLength != nil && n < *r.minLength || r.maxLength != nil && n > *r.maxLength {
			return fmt.Errorf("%d bytes, %s", n, between(r.minLength, r.maxLength))
		}
		if r.format != "" {
			if err := syntax.CheckFormat(r.format, s); err != nil {
				return err
			}
		}
		f.SetString(s)
	}
	if len(r.enum) > 0 && !slices.Contains(r.enum, s) {
		return fmt.Errorf("%s is none of %s", clip(s), strings.Join(r.enum, ", "))
	}
	return nil
}

func between(lo, hi *int64) string {
	switch {
	case lo != nil && hi != nil:
		return fmt.Sprintf("must be between %d and %d", *lo, *hi)
	case lo != nil:
		return fmt.Sprintf("must be at least %d", *lo)
	}
	return fmt.Sprintf("must be at most %d", *hi)
}

func clip(s string) string { return strconv.QuoteToASCII(s[:min(len(s), 64)]) }
