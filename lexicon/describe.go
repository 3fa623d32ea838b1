package lexicon

import (
	"fmt"
	"strings"
)

// Field is a property of an object or a parameter, as documentation shows it.
type Field struct {
	Name               string
	Def                *Def
	Required, Nullable bool
}

// Fields returns the properties of an object, of the object of a record, or of parameters: the required ones first, else in
// the order of their names. It is nil for other types.
func (d *Def) Fields() []Field {
	if d.Type == TypeRecord {
		d = d.Record
	}
	required, nullable := set(d.Required), set(d.Nullable)
	var first, rest []Field
	for _, p := range d.Properties {
		f := Field{p.Name, p.Def, required[p.Name], nullable[p.Name]}
		if f.Required {
			first = append(first, f)
		} else {
			rest = append(rest, f)
		}
	}
	return append(first, rest...)
}

// TypeText describes the type in a few words: "string (datetime)", "array of ref to app.bsky.embed.images#image",
// "open union of 3".
func (d *Def) TypeText() string {
	switch d.Type {
	case TypeString:
		if d.Format != "" {
			return fmt.Sprintf("string (%s)", d.Format)
		}
	case TypeArray:
		return "array of " + d.Items.TypeText()
	case TypeRef:
		return "ref to " + d.Ref
	case TypeUnion:
		if d.Closed {
			return fmt.Sprintf("closed union of %d", len(d.Refs))
		}
		return fmt.Sprintf("open union of %d", len(d.Refs))
	}
	return string(d.Type)
}

// Limits lists the constraints of a definition that isn't made of others, each in a few words: "at most 3000 bytes",
// "default 50", "one of: a, b".
func (d *Def) Limits() []string {
	var out []string
	number := func(format string, v *int64) {
		if v != nil {
			out = append(out, fmt.Sprintf(format, *v))
		}
	}
	unit := "bytes"
	if d.Type == TypeArray {
		unit = "items"
	}
	number("at least %d", d.Minimum)
	number("at most %d", d.Maximum)
	number("at least %d "+unit, d.MinLength)
	number("at most %d "+unit, d.MaxLength)
	number("at least %d graphemes", d.MinGraphemes)
	number("at most %d graphemes", d.MaxGraphemes)
	number("at most %d bytes", d.MaxSize)
	if len(d.Accept) > 0 {
		out = append(out, "accepts "+strings.Join(d.Accept, ", "))
	}
	if d.Enum != nil {
		out = append(out, "one of: "+strings.Join(d.Enum, ", "))
	}
	if d.IntEnum != nil {
		out = append(out, "one of: "+strings.Trim(strings.ReplaceAll(fmt.Sprint(d.IntEnum), " ", ", "), "[]"))
	}
	if len(d.KnownValues) > 0 {
		out = append(out, "such as: "+strings.Join(d.KnownValues, ", "))
	}
	if d.Const != nil {
		out = append(out, fmt.Sprintf("always %v", d.Const))
	}
	if d.Default != nil {
		out = append(out, fmt.Sprintf("default %v", d.Default))
	}
	return out
}
