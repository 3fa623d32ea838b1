package lexlint

import (
	"strings"

	"github.com/barograph/baro/lexicon"
)

func (l *linter) checkMethod(at *site) {
	d := at.d
	for i, e := range d.Errors {
		if !upperCamel(e.Name) {
			l.foundIn(at, at.node.get("errors").items[i], "error-name-case", "the error %.80s isn't UpperCamelCase", e.Name)
		}
	}
	if d.Description != "" && !speaksOfAuth(d.Description) {
		l.found(at, "endpoint-auth-undescribed", "say whether callers must be authenticated, and whether it makes a difference")
	}
	switch {
	case d.Type == lexicon.TypeSubscription:
		l.checkSubscription(at)
	case d.Output == nil:
		l.found(at, "endpoint-output-undefined", "a method without an answer can't get one later").
			fix("answer with an empty object", setMember(at.doc.file.JSON, at.node, lastBefore(at.node), "output", emptyOutput(at)))
	}
	if d.Type == lexicon.TypeQuery {
		l.checkPaging(at)
	}
}

// lastBefore is the entry of a method behind which its output fits in best.
func lastBefore(v *value) string {
	for _, key := range []string{"input", "parameters", "description", "type"} {
		if v.member(key) != nil {
			return key
		}
	}
	return ""
}

// emptyOutput is an output without content, in the manner of the text around it.
func emptyOutput(at *site) string {
	m := &at.node.members[0]
	gap := gapBefore(at.doc.file.JSON, m.keyStart)
	if !strings.Contains(gap, "\n") {
		return `{"encoding":"application/json","schema":{"type":"object","properties":{}}}`
	}
	unit := "  "
	if strings.Contains(gap, "\t") {
		unit = "\t"
	}
	return "{" + gap + unit + `"encoding": "application/json",` + gap + unit + `"schema": {` + gap + unit + unit + `"type": "object",` + gap + unit + unit + `"properties": {}` + gap + unit + "}" + gap + "}"
}

func speaksOfAuth(text string) bool {
	text = strings.ToLower(text)
	for _, w := range []string{"auth", "login", "log in", "logged", "sign in", "signed in", "session", "public", "permission", "admin", "anyone", "account owner"} {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// checkPaging checks a query that has a cursor on either side.
func (l *linter) checkPaging(at *site) {
	d := at.d
	var cursor, limit *lexicon.Def
	if p := d.Parameters; p != nil {
		cursor, limit = p.Property("cursor"), p.Property("limit")
		if cursor != nil && p.IsRequired("cursor") || limit != nil && p.IsRequired("limit") {
			l.found(at, "paging", "limit and cursor are optional, since the first call has none")
		}
	}
	out := l.outputObject(d)
	var back *lexicon.Def
	if out != nil {
		back = out.Property("cursor")
	}
	if cursor == nil && back == nil {
		return
	}
	switch {
	case cursor == nil:
		l.found(at, "paging", "the answer has a cursor, but there is no parameter for it")
	case cursor.Type != lexicon.TypeString:
		l.found(at, "paging", "the parameter cursor is a string")
	}
	if limit == nil {
		l.found(at, "paging", "there is no parameter limit")
	} else if limit.Type != lexicon.TypeInteger {
		l.found(at, "paging", "the parameter limit is an integer")
	}
	if out == nil {
		return
	}
	switch {
	case back == nil:
		l.found(at, "paging", "the answer has no cursor")
	case back.Type != lexicon.TypeString || out.IsRequired("cursor"):
		l.found(at, "paging", "the cursor of the answer is an optional string: its absence ends the list")
	}
	for _, p := range out.Properties {
		if p.Def.Type == lexicon.TypeArray && out.IsRequired(p.Name) {
			return
		}
	}
	l.found(at, "paging", "the answer has no required array")
}

// outputObject is the object that a method answers with, nil if there is none.
func (l *linter) outputObject(d *lexicon.Def) *lexicon.Def {
	if d.Output == nil || d.Output.Schema == nil {
		return nil
	}
	s := d.Output.Schema
	if s.Type == lexicon.TypeRef {
		s, _ = l.resolve(s.Ref)
	}
	if s == nil || s.Type != lexicon.TypeObject {
		return nil
	}
	return s
}

func (l *linter) checkSubscription(at *site) {
	d := at.d
	if len(d.Message.Refs) == 0 {
		l.found(at, "subscription-no-messages", "the union of messages is empty")
		return
	}
	var cursor *lexicon.Def
	if d.Parameters != nil {
		cursor = d.Parameters.Property("cursor")
	}
	if cursor == nil || cursor.Type != lexicon.TypeInteger || d.Parameters.IsRequired("cursor") {
		l.found(at, "subscription-cursor", "there is no optional integer parameter cursor to go on from")
	}
	outdated := false
	for i, ref := range d.Message.Refs {
		m, _ := l.resolve(ref)
		if m == nil || m.Type != lexicon.TypeObject {
			continue
		}
		if name := m.Property("name"); name != nil && strings.HasSuffix(ref, "#info") {
			for _, v := range append(append([]string(nil), name.KnownValues...), name.Enum...) {
				outdated = outdated || v == outdatedCursor
			}
			continue
		}
		if seq := m.Property("seq"); seq == nil || seq.Type != lexicon.TypeInteger {
			l.foundIn(at, at.node.get("message").get("schema").get("refs").items[i], "subscription-cursor", "the message %s has no integer seq", ref)
		}
	}
	if !outdated {
		l.found(at, "subscription-cursor", "there is no message #info with the known name OutdatedCursor")
	}
}
