package lexlint

import (
	"slices"
	"strings"

	"github.com/barograph/baro/lexicon"
)

// schemaFields are the fields of a document. A published one is a record and has a type besides.
var schemaFields = []string{"lexicon", "id", "description", "defs"}

// fieldsOf are the fields of a definition besides type and description.
var fieldsOf = map[lexicon.Type][]string{
	lexicon.TypeBoolean:       {"default", "const"},
	lexicon.TypeInteger:       {"minimum", "maximum", "enum", "default", "const"},
	lexicon.TypeString:        {"format", "maxLength", "minLength", "maxGraphemes", "minGraphemes", "knownValues", "enum", "default", "const"},
	lexicon.TypeBytes:         {"minLength", "maxLength"},
	lexicon.TypeArray:         {"items", "minLength", "maxLength"},
	lexicon.TypeObject:        {"properties", "required", "nullable"},
	lexicon.TypeParams:        {"properties", "required"},
	lexicon.TypeBlob:          {"accept", "maxSize"},
	lexicon.TypeRef:           {"ref"},
	lexicon.TypeUnion:         {"refs", "closed"},
	lexicon.TypeRecord:        {"key", "record"},
	lexicon.TypeQuery:         {"parameters", "output", "errors"},
	lexicon.TypeProcedure:     {"parameters", "input", "output", "errors"},
	lexicon.TypeSubscription:  {"parameters", "message", "errors"},
	lexicon.TypePermissionSet: {"title", "title:lang", "detail", "detail:lang", "permissions"},
}

// checkFields looks for fields that a document doesn't have.
func (l *linter) checkFields(d *doc) {
	for _, m := range d.tree.members {
		switch {
		case slices.Contains(schemaFields, m.key):
		case m.key == "$type":
			l.report(d, "unexpected-field", m.val, m.key, "$type belongs to the published record, not to the file")
			l.findings[len(l.findings)-1].fix("leave out $type", removeMembers(d.tree, m.key)...)
		default:
			l.report(d, "unexpected-field", m.val, m.key, "a schema has no field %.80q", m.key)
		}
	}
}

// checkFieldsOf looks for fields that a definition doesn't have.
func (l *linter) checkFieldsOf(at *site) {
	extra := func(of *value, where string, known ...string) {
		if !of.isObject() {
			return
		}
		for _, m := range of.members {
			if !slices.Contains(known, m.key) {
				l.foundIn(at, m.val, "unexpected-field", "%s has no field %.80q%s", where, m.key, misplaced(m))
			}
		}
	}
	d := at.d
	extra(at.node, "a definition of type "+string(d.Type), append([]string{"type", "description"}, fieldsOf[d.Type]...)...)
	if d.Input != nil {
		extra(at.node.get("input"), "input", "description", "encoding", "schema")
	}
	if d.Output != nil {
		extra(at.node.get("output"), "output", "description", "encoding", "schema")
	}
	if d.Message != nil {
		extra(at.node.get("message"), "message", "description", "schema")
	}
	if e := at.node.get("errors"); e != nil && len(d.Errors) > 0 {
		for _, item := range e.items {
			extra(item, "an error", "name", "description")
		}
	}
}

// misplaced says where a field that is known from elsewhere should be.
func misplaced(m member) string {
	switch m.key {
	case "required", "nullable":
		return ": it is a list of names beside the properties of an object"
	case "optional":
		return ": every field is optional that isn't in the list required"
	case "pattern", "oneOf", "anyOf", "allOf", "additionalProperties", "$ref":
		return ": that is JSON Schema"
	}
	if strings.HasPrefix(m.key, "x-") {
		return ": extensions aren't foreseen"
	}
	return ""
}
