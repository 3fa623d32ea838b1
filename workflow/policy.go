package workflow

import (
	"errors"
	"fmt"
	"strings"

	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// Policy says which actions an agent carries out. The zero value allows records of the service's own: those in collections
// whose NSID begins with the authority of the method that was called. Account and identity endpoints are never called,
// whatever a policy says: an agent writes records and does nothing else.
type Policy struct {
	// Allow are further collections that may be written: an NSID, an NSID and "#" and a verb, such as
	// "app.bsky.feed.like#create", or all below a prefix, such as "app.bsky.feed.*".
	Allow []string
	// OnlyAllow leaves out the service's own collections, so that Allow is all.
	OnlyAllow bool
	// Deny are collections that may not be written, in the same form. It comes before Allow. nil: [DefaultDeny].
	Deny []string
	// MaxWrites is how many actions one batch may have; 0: [MaxActions].
	MaxWrites int
	// Granted says whether the account's credentials cover an action. nil: the server is left to say so.
	Granted func(Verb, syntax.NSID) bool
	// Lexicons checks records against their schemas. What it doesn't know is let through, with a note in the plan, unless
	// KnownOnly is set.
	Lexicons  *lexicon.Catalog
	KnownOnly bool
}

// GrantedBy is a [Policy.Granted] for what a session of OAuth was granted.
func GrantedBy(s scope.Set) func(Verb, syntax.NSID) bool {
	return func(v Verb, collection syntax.NSID) bool { return s.AllowsRepo(string(v), collection) }
}

// DefaultDeny are the records that speak for an account, or decide what others think of it. A service that is to write
// them must be trusted with a Deny of its own.
var DefaultDeny = []string{
	"app.bsky.actor.profile#delete",
	"app.bsky.labeler.service", "*.labeler.service",
	"com.atproto.*", // schemas, and whatever else becomes part of the protocol itself
	"tools.ozone.*",
}

// CodePolicy is the code that tells a server that its actions were not carried out because of the policy.
const CodePolicy = "AgentPolicyDenied"

// PolicyError says that a batch was refused, and because of which action. Nothing of the batch was carried out.
type PolicyError struct {
	Verb   Verb
	Name   string // of the action
	Reason string
}

func (e *PolicyError) Error() string {
	if e.Name == "" {
		return "the policy refuses: " + e.Reason
	}
	return fmt.Sprintf("the policy refuses %s %q: %s", e.Verb, e.Name, e.Reason)
}

// check looks at a whole batch. Notes are what a person should know before agreeing to it, by index.
func (p *Policy) check(method syntax.NSID, account syntax.DID, actions []Action) (notes map[int]string, err error) {
	limit := p.MaxWrites
	if limit <= 0 || limit > MaxActions {
		limit = MaxActions
	}
	if len(actions) > limit {
		return nil, &PolicyError{Reason: fmt.Sprintf("%d actions, at most %d may be", len(actions), limit)}
	}
	notes = map[int]string{}
	for i, a := range actions {
		if a.Verb == Raise {
			continue
		}
		reason, note := p.look(method, account, a)
		if reason != "" {
			return nil, &PolicyError{Verb: a.Verb, Name: a.Name, Reason: reason}
		}
		if note != "" {
			notes[i] = note
		}
	}
	return notes, nil
}

// look says why an action is refused, if it is, and what is to be noted about it.
func (p *Policy) look(method syntax.NSID, account syntax.DID, a Action) (reason, note string) {
	deny := p.Deny
	if deny == nil {
		deny = DefaultDeny
	}
	switch {
	case a.Repo != account:
		return fmt.Sprintf("it is for the repository of %s, and this agent acts for %s", a.Repo, account), ""
	case matchesAny(deny, a.Verb, a.Collection):
		return fmt.Sprintf("%s of %s is on the list of what is denied", a.Verb, a.Collection), ""
	case !matchesAny(p.Allow, a.Verb, a.Collection) && (p.OnlyAllow || !below(authority(method), string(a.Collection))):
		return fmt.Sprintf("the collection %s is neither the service's own nor allowed", a.Collection), ""
	case p.Granted != nil && !p.Granted(a.Verb, a.Collection):
		return fmt.Sprintf("the session has no permission for %s of %s", a.Verb, a.Collection), ""
	}
	if p.Lexicons == nil || a.Record == nil {
		return "", ""
	}
	err := p.Lexicons.ValidateRecord(a.Collection, a.Record)
	if err == nil && a.RecordKey != "" {
		err = p.Lexicons.ValidateRecordKey(a.Collection, a.RecordKey)
	}
	switch {
	case errors.Is(err, lexicon.ErrUnknownSchema) && p.KnownOnly:
		return "the schema of " + string(a.Collection) + " is not known", ""
	case errors.Is(err, lexicon.ErrUnknownSchema):
		return "", "the schema of " + string(a.Collection) + " is not known, so the record was not checked"
	case err != nil:
		return err.Error(), ""
	}
	return "", ""
}

// authority is an NSID without its last segment.
func authority(id syntax.NSID) string {
	s := string(id)
	return s[:max(0, strings.LastIndexByte(s, '.'))]
}

func below(prefix, id string) bool { return prefix != "" && strings.HasPrefix(id, prefix+".") }

func matchesAny(patterns []string, v Verb, collection syntax.NSID) bool {
	for _, p := range patterns {
		name, verb, ok := strings.Cut(p, "#")
		if ok && verb != string(v) {
			continue
		}
		prefix, below1 := strings.CutSuffix(name, ".*")
		suffix, end := strings.CutPrefix(name, "*.")
		switch {
		case name == "*", name == string(collection),
			below1 && below(prefix, string(collection)),
			end && strings.HasSuffix(string(collection), "."+suffix):
			return true
		}
	}
	return false
}
