// Package scope reads, writes and applies the scopes of OAuth in the AT Protocol: what a program may do for an account.
//
// Specification: https://atproto.com/specs/permission, and https://atproto.com/specs/oauth#authorization-scopes for
// atproto and the scopes of the transition.
//
//	s, err := scope.Parse("atproto repo:app.bsky.feed.post?action=create blob:image/*")
//	s.AllowsRepo("create", "app.bsky.feed.post") // true
//	s.AllowsBlob("video/mp4")                    // false
//
//	want := scope.Of(scope.Repo("app.bsky.feed.post"), scope.RPC("did:web:api.bsky.app#bsky_appview", "*"))
//
// [Parse] is strict, for what one asks for; [Read] takes what a server has granted, which may hold scopes of a future that
// this package doesn't know: those allow nothing. Permission sets ("include:") allow nothing either until [Set.Expand] has
// put in their place what they stand for.
//
// The package is pure. It doesn't fetch permission sets (identity/lexres does), and it doesn't enforce anything.
//
// Limits: a text of 64 KiB, 1,024 scopes.
package scope

import (
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// Bounds of what is read.
const (
	MaxText   = 64 << 10 // bytes
	MaxScopes = 1024
)

// Scopes that are no permissions with parameters.
const (
	Atproto           = "atproto" // part of every set that allows anything
	TransitionGeneric = "transition:generic"
	TransitionChat    = "transition:chat.bsky" // of no use without TransitionGeneric
	TransitionEmail   = "transition:email"
)

var plain = []string{Atproto, TransitionGeneric, TransitionChat, TransitionEmail}

// Resource is what a permission is about.
type Resource string

// The resources.
const (
	ResourceRepo     Resource = "repo"
	ResourceRPC      Resource = "rpc"
	ResourceBlob     Resource = "blob"
	ResourceAccount  Resource = "account"
	ResourceIdentity Resource = "identity"
	ResourceInclude  Resource = "include"
)

// Actions on records, and on parts of an account.
const (
	Create = "create"
	Update = "update"
	Delete = "delete"

	ActionRead   = "read"
	ActionManage = "manage" // read too
)

// Attributes of an account and of an identity.
const (
	AttrEmail  = "email"
	AttrRepo   = "repo"
	AttrHandle = "handle"
	Any        = "*"
)

// Kind says what is wrong with a scope.
type Kind string

// Kinds of [Error].
const (
	KindSyntax  Kind = "syntax"  // it doesn't follow the grammar, or is too large
	KindUnknown Kind = "unknown" // a resource, parameter or value that this package doesn't know
	KindInvalid Kind = "invalid" // known parts that don't go together
	KindSet     Kind = "set"     // a permission set that can't be had or is none
)

// Error says why a scope can't be used.
type Error struct {
	Scope  string // clipped
	Kind   Kind
	Reason string
	Err    error // may be nil
}

// Error names the scope and the reason.
func (e *Error) Error() string {
	s := fmt.Sprintf("scope %q: %s", e.Scope, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(text string, k Kind, format string, args ...any) error {
	if len(text) > 256 {
		text = text[:256]
	}
	return &Error{Scope: text, Kind: k, Reason: fmt.Sprintf(format, args...)}
}

// Permission is a scope that has parameters. Those that the resource doesn't have are zero.
type Permission struct {
	Resource Resource
	// Values are collections (repo), methods (rpc) or MIME types and patterns (blob), each perhaps [Any] or "*/*"; or one
	// attribute (account, identity), or the NSID of one permission set (include).
	Values   []string
	Actions  []string // repo: some of Create, Update and Delete, none for all; account: one, none for ActionRead
	Audience string   // rpc: a DID with the fragment of a service, or [Any]; include: the same without [Any], or ""
}

// Repo is the permission to write records of some collections, or of [Any].
func Repo(collections ...syntax.NSID) Permission {
	return Permission{Resource: ResourceRepo, Values: texts(collections)}
}

// RPC is the permission to call methods of a service, a DID with a fragment, through the PDS and with tokens of it. Either may
// be [Any], but not both.
func RPC(audience string, methods ...syntax.NSID) Permission {
	return Permission{Resource: ResourceRPC, Values: texts(methods), Audience: audience}
}

// Blob is the permission to upload files of some MIME types, or patterns such as "image/*".
func Blob(accept ...string) Permission { return Permission{Resource: ResourceBlob, Values: accept} }

// Account is the permission to see a part of the account; On([ActionManage]) makes it that to manage it.
func Account(attr string) Permission {
	return Permission{Resource: ResourceAccount, Values: []string{attr}}
}

// Identity is the permission to change the handle, or [Any] part of the identity.
func Identity(attr string) Permission {
	return Permission{Resource: ResourceIdentity, Values: []string{attr}}
}

// Include stands for what a permission set holds. Audience may be "".
func Include(set syntax.NSID, audience string) Permission {
	return Permission{Resource: ResourceInclude, Values: []string{string(set)}, Audience: audience}
}

// On returns the permission for only some actions.
func (p Permission) On(actions ...string) Permission {
	p.Actions = actions
	return p
}

func texts(ids []syntax.NSID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

// Check tells whether the permission is one that the specification knows, and what is wrong with it if it isn't.
func (p Permission) Check() error {
	_, err := p.normal()
	return err
}

// normal returns the permission in the one form that all that mean the same share.
func (p Permission) normal() (Permission, error) {
	text := p.text()
	bad := func(format string, args ...any) (Permission, error) {
		return Permission{}, fail(text, KindInvalid, format, args...)
	}
	unknown := func(format string, args ...any) (Permission, error) {
		return Permission{}, fail(text, KindUnknown, format, args...)
	}
	if len(p.Values) == 0 {
		return bad("%s needs a value", p.Resource)
	}
	values := slices.Clone(p.Values)
	if p.Resource == ResourceBlob {
		for i, v := range values {
			values[i] = strings.ToLower(v)
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	n := Permission{Resource: p.Resource, Values: values, Audience: p.Audience}
	if p.Audience != "" && p.Resource != ResourceRPC && p.Resource != ResourceInclude {
		return unknown("%s has no audience", p.Resource)
	}
	switch p.Resource {
	case ResourceRepo, ResourceRPC:
		if slices.Contains(values, Any) {
			n.Values = []string{Any}
		}
		for _, v := range values {
			if v != Any && !syntax.ValidNSID(v) {
				return bad("%.128q is neither an NSID nor *", v)
			}
		}
	case ResourceBlob:
		if slices.Contains(values, "*/*") {
			n.Values = []string{"*/*"}
		}
		for _, v := range values {
			if !validAccept(v) {
				return bad("%.128q is no MIME type, and no pattern of one", v)
			}
		}
	case ResourceAccount, ResourceIdentity, ResourceInclude:
		if len(values) > 1 {
			return bad("%s has one value", p.Resource)
		}
		known := map[Resource][]string{ResourceAccount: {AttrEmail, AttrRepo}, ResourceIdentity: {AttrHandle, Any}}[p.Resource]
		if known != nil && !slices.Contains(known, values[0]) {
			return unknown("%s has no %.128q", p.Resource, values[0])
		}
		if p.Resource == ResourceInclude && !syntax.ValidNSID(values[0]) {
			return bad("%.128q is no NSID", values[0])
		}
	default:
		return unknown("there is no such resource")
	}

	switch p.Resource {
	case ResourceRepo:
		for _, a := range []string{Create, Update, Delete} {
			if slices.Contains(p.Actions, a) {
				n.Actions = append(n.Actions, a)
			}
		}
		for _, a := range p.Actions {
			if !slices.Contains(n.Actions, a) {
				return unknown("there is no action %.128q on records", a)
			}
		}
		if len(n.Actions) == 3 {
			n.Actions = nil
		}
	case ResourceAccount:
		if len(p.Actions) > 1 {
			return bad("account has one action")
		}
		if len(p.Actions) == 1 && p.Actions[0] != ActionRead {
			if n.Actions = p.Actions; p.Actions[0] != ActionManage {
				return unknown("there is no action %.128q on an account", p.Actions[0])
			}
		}
	default:
		if len(p.Actions) > 0 {
			return unknown("%s has no action", p.Resource)
		}
	}
	switch {
	case p.Resource == ResourceRPC && p.Audience == "":
		return bad("rpc needs an audience")
	case p.Resource == ResourceRPC && p.Audience == Any && n.Values[0] == Any:
		return bad("any method of any service is more than one permission can be for")
	case p.Audience != "" && !(p.Resource == ResourceRPC && p.Audience == Any) && !validAudience(p.Audience):
		return bad("the audience %.128q is not a DID with the fragment of a service", p.Audience)
	}
	return n, nil
}

// String returns the scope in its normal form, or as it is if it isn't valid.
func (p Permission) String() string {
	if n, err := p.normal(); err == nil {
		p = n
	}
	return p.text()
}

func (p Permission) text() string {
	var b strings.Builder
	b.WriteString(string(p.Resource))
	sep := byte('?')
	param := func(name string, values ...string) {
		for _, v := range values {
			b.WriteByte(sep)
			b.WriteString(name)
			b.WriteByte('=')
			escape(&b, v)
			sep = '&'
		}
	}
	if len(p.Values) == 1 {
		b.WriteByte(':')
		escape(&b, p.Values[0])
	} else {
		param(positional[p.Resource], p.Values...)
	}
	param("action", p.Actions...)
	if p.Audience != "" {
		param("aud", p.Audience)
	}
	return b.String()
}

// positional names the parameter that may stand behind a colon.
var positional = map[Resource]string{
	ResourceRepo: "collection", ResourceRPC: "lxm", ResourceBlob: "accept", ResourceAccount: "attr", ResourceIdentity: "attr", ResourceInclude: "nsid",
}

// validAudience reports whether s is a DID with a fragment.
func validAudience(s string) bool {
	did, fragment, ok := strings.Cut(s, "#")
	return ok && fragment != "" && syntax.ValidDID(did) && !strings.ContainsFunc(fragment, func(r rune) bool {
		return !isAlnum(r) && !strings.ContainsRune("-._~:", r)
	})
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// validAccept reports whether s is "type/subtype", "type/*" or "*/*".
func validAccept(s string) bool {
	major, minor, ok := strings.Cut(s, "/")
	token := func(s string) bool {
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("!#$&-^_.+", r) })
	}
	return ok && (s == "*/*" || token(major) && (minor == "*" || token(minor)))
}

// Set is a set of scopes, which may do what any one of them may. The zero value is empty. Sets are immutable.
type Set struct {
	perms []Permission // normal, each once
	other []string     // plain ones, and those that aren't known
}

// Of returns a set of permissions, and of the scope atproto, which every set needs. A permission that isn't valid is left as it
// is, and allows nothing: [Permission.Check] tells.
func Of(perms ...Permission) Set {
	s := Set{other: []string{Atproto}}
	for _, p := range perms {
		s.add(p)
	}
	return s.sorted()
}

// With returns the set with more scopes that have no parameters, such as [TransitionGeneric].
func (s Set) With(scopes ...string) Set {
	out := Set{perms: slices.Clone(s.perms), other: slices.Concat(s.other, scopes)}
	return out.sorted()
}

func (s *Set) add(p Permission) {
	if n, err := p.normal(); err == nil {
		s.perms = append(s.perms, n)
	} else {
		s.other = append(s.other, p.text())
	}
}

func (s Set) sorted() Set {
	slices.SortFunc(s.perms, func(a, b Permission) int { return strings.Compare(a.text(), b.text()) })
	s.perms = slices.CompactFunc(s.perms, func(a, b Permission) bool { return a.text() == b.text() })
	slices.SortFunc(s.other, func(a, b string) int {
		if (a == Atproto) != (b == Atproto) {
			if a == Atproto {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	s.other = slices.Compact(s.other)
	return s
}

// String returns the scopes in their normal form, separated by spaces: atproto first, then the others that have no parameters,
// then the permissions.
func (s Set) String() string {
	words := slices.Clone(s.other)
	for _, p := range s.perms {
		words = append(words, p.text())
	}
	return strings.Join(words, " ")
}

// Permissions returns the scopes that have parameters, in their normal form.
func (s Set) Permissions() []Permission { return slices.Clone(s.perms) }

// Has reports whether a scope is in the set by itself, in whatever form it is written. It doesn't ask whether others allow as
// much.
func (s Set) Has(scope string) bool {
	if slices.Contains(s.other, scope) {
		return true
	}
	p, err := parsePermission(scope)
	return err == nil && slices.ContainsFunc(s.perms, func(q Permission) bool { return q.text() == p.text() })
}

func (s Set) any(r Resource, f func(Permission) bool) bool {
	return s.Has(Atproto) && slices.ContainsFunc(s.perms, func(p Permission) bool { return p.Resource == r && f(p) })
}

func (s Set) plain(scope string) bool {
	return slices.Contains(s.other, Atproto) && slices.Contains(s.other, scope)
}

// AllowsRepo reports whether an action, such as [Create], is allowed on records of a collection.
func (s Set) AllowsRepo(action string, collection syntax.NSID) bool {
	if !slices.Contains([]string{Create, Update, Delete}, action) || !syntax.ValidNSID(collection) {
		return false
	}
	return s.plain(TransitionGeneric) || s.any(ResourceRepo, func(p Permission) bool {
		return (p.Values[0] == Any || slices.Contains(p.Values, string(collection))) && (len(p.Actions) == 0 || slices.Contains(p.Actions, action))
	})
}

// chatMethods are those that the scopes of the transition treat apart.
const chatMethods = "chat.bsky."

// AllowsRPC reports whether a method of a service may be called. The audience is a DID with a fragment, as in the header
// Atproto-Proxy, or a bare DID, which only a permission for [Any] covers.
func (s Set) AllowsRPC(method syntax.NSID, audience string) bool {
	if !syntax.ValidNSID(method) {
		return false
	}
	if s.plain(TransitionGeneric) && (!strings.HasPrefix(string(method), chatMethods) || s.plain(TransitionChat)) {
		return true
	}
	return s.any(ResourceRPC, func(p Permission) bool {
		return (p.Values[0] == Any || slices.Contains(p.Values, string(method))) && (p.Audience == Any || p.Audience == audience)
	})
}

// AllowsBlob reports whether a file of a MIME type may be uploaded. Parameters of the type don't matter.
func (s Set) AllowsBlob(mimeType string) bool {
	t, _, err := mime.ParseMediaType(mimeType)
	if err != nil || !validAccept(t) || strings.HasSuffix(t, "*") {
		return false
	}
	return s.plain(TransitionGeneric) || s.any(ResourceBlob, func(p Permission) bool {
		return slices.ContainsFunc(p.Values, func(accept string) bool { return lexicon.MatchMIME(accept, t) })
	})
}

// AllowsAccount reports whether a part of the account, such as [AttrEmail], may be seen or managed.
func (s Set) AllowsAccount(attr, action string) bool {
	if action != ActionRead && action != ActionManage {
		return false
	}
	if attr == AttrEmail && action == ActionRead && s.plain(TransitionEmail) {
		return true
	}
	return s.any(ResourceAccount, func(p Permission) bool {
		return p.Values[0] == attr && (action == ActionRead || slices.Contains(p.Actions, ActionManage))
	})
}

// AllowsIdentity reports whether a part of the identity, [AttrHandle] or [Any] for all of it, may be changed.
func (s Set) AllowsIdentity(attr string) bool {
	return s.any(ResourceIdentity, func(p Permission) bool {
		return p.Values[0] == Any || p.Values[0] == attr && attr == AttrHandle
	})
}
