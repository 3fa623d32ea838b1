package scope

import (
	"errors"
	"slices"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// Expand puts the permissions of the sets that are included in their place: those for record types and methods of the set's own
// group of names or of one below, that are fully understood. An rpc permission that inherits its audience gets that of the scope.
// The schema of a set comes from lookup, whose error ends it. The scopes of sets stay in the text of the result, so that it
// shows where a permission comes from; expanding it again changes nothing.
// https://atproto.com/specs/permission#permission-sets
func (s Set) Expand(lookup func(set syntax.NSID) (*lexicon.Schema, error)) (Set, error) {
	out := Set{perms: slices.Clone(s.perms), other: slices.Clone(s.other)}
	for _, include := range s.perms {
		if include.Resource != ResourceInclude {
			continue
		}
		id := syntax.NSID(include.Values[0])
		schema, err := lookup(id)
		if err != nil {
			return Set{}, &Error{Scope: include.text(), Kind: KindSet, Reason: "the permission set can't be had", Err: err}
		}
		perms, err := include.expand(id, schema)
		if err != nil {
			return Set{}, err
		}
		out.perms = append(out.perms, perms...)
	}
	return out.sorted(), nil
}

func (p Permission) expand(id syntax.NSID, schema *lexicon.Schema) ([]Permission, error) {
	if schema == nil || schema.ID.Normalize() != id.Normalize() {
		return nil, &Error{Scope: p.text(), Kind: KindSet, Reason: "the schema is another one's", Err: errors.New("its id is wrong")}
	}
	def := schema.Main()
	if def == nil || def.Type != lexicon.TypePermissionSet {
		return nil, &Error{Scope: p.text(), Kind: KindSet, Reason: "the schema is no permission set"}
	}
	var out []Permission
	for _, x := range def.Permissions {
		if x.Ignore != "" {
			continue
		}
		q := Permission{Resource: Resource(x.Resource), Values: x.Collection, Actions: x.Action}
		if q.Resource == ResourceRPC {
			q.Values, q.Audience = x.LXM, x.Aud
			if x.InheritAud {
				q.Audience = p.Audience
			}
		}
		if slices.ContainsFunc(q.Values, func(v string) bool { return !lexicon.InNamespace(id, syntax.NSID(v)) }) {
			continue
		}
		if n, err := q.normal(); err == nil { // not so if there is no audience to inherit
			out = append(out, n)
		}
	}
	return out, nil
}
