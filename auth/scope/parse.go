package scope

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Parse reads scopes that are separated by single spaces. Every one must be known and valid: an [*Error] names the first that
// isn't. Whether atproto is among them is not asked, [Set.Has] tells.
func Parse(text string) (Set, error) {
	s, errs, err := read(text)
	if err == nil && len(errs) > 0 {
		err = errs[0]
	}
	if err != nil {
		return Set{}, err
	}
	return s, nil
}

// Read reads scopes that a server has granted. What isn't known or valid stays in the set's text and allows nothing; the
// errors about it are joined, and the set is of use nevertheless.
func Read(text string) (Set, error) {
	s, errs, err := read(text)
	if err != nil {
		return Set{}, err
	}
	return s, errors.Join(errs...)
}

func read(text string) (s Set, errs []error, err error) {
	if len(text) > MaxText {
		return Set{}, nil, fail(text, KindSyntax, "more than %d bytes of scopes", MaxText)
	}
	if text == "" {
		return Set{}, nil, nil
	}
	words := strings.Split(text, " ")
	if len(words) > MaxScopes {
		return Set{}, nil, fail(text, KindSyntax, "more than %d scopes", MaxScopes)
	}
	for _, w := range words {
		if slices.Contains(plain, w) {
			s.other = append(s.other, w)
			continue
		}
		p, err := parsePermission(w)
		if err == nil {
			s.perms = append(s.perms, p)
			continue
		}
		errs = append(errs, err)
		if e, ok := errors.AsType[*Error](err); ok && e.Kind != KindSyntax {
			s.other = append(s.other, w)
		}
	}
	return s.sorted(), errs, nil
}

// parsePermission reads one scope by https://atproto.com/specs/permission#scope-string-syntax.
func parsePermission(text string) (Permission, error) {
	if text == "" {
		return Permission{}, fail(text, KindSyntax, "it is empty")
	}
	for i := range len(text) {
		// Those of RFC 6749, section 3.3.
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return Permission{}, fail(text, KindSyntax, "the character %q may not be in a scope", rune(c))
		}
	}
	head, query, _ := strings.Cut(text, "?")
	name, value, hasValue := strings.Cut(head, ":")
	r := Resource(name)
	if name == "" {
		return Permission{}, fail(text, KindSyntax, "it has no resource")
	}
	params := map[string][]string{}
	if hasValue {
		v, err := unescape(value)
		if err != nil {
			return Permission{}, fail(text, KindSyntax, "%v", err)
		}
		params[positional[r]] = []string{v}
	}
	if query != "" {
		for param := range strings.SplitSeq(query, "&") {
			k, v, ok := strings.Cut(param, "=")
			key, err := unescape(k)
			if err == nil {
				v, err = unescape(v)
			}
			switch {
			case err != nil:
				return Permission{}, fail(text, KindSyntax, "%v", err)
			case !ok || key == "":
				return Permission{}, fail(text, KindSyntax, "the parameter %.64q has no name or no value", param)
			case hasValue && key == positional[r]:
				return Permission{}, fail(text, KindInvalid, "%s is there by its name and by its place", key)
			}
			params[key] = append(params[key], v)
		}
	}
	main, ok := positional[r]
	if !ok {
		return Permission{}, fail(text, KindUnknown, "there is no such resource")
	}
	p := Permission{Resource: r, Values: params[main], Actions: params["action"]}
	if aud := params["aud"]; len(aud) > 1 {
		return Permission{}, fail(text, KindInvalid, "several audiences")
	} else if len(aud) == 1 {
		if p.Audience = aud[0]; p.Audience == "" {
			return Permission{}, fail(text, KindInvalid, "an empty audience")
		}
	}
	for k := range params {
		if k != main && k != "action" && k != "aud" {
			return Permission{}, fail(text, KindUnknown, "there is no parameter %.64q", k)
		}
	}
	n, err := p.normal()
	if e, ok := errors.AsType[*Error](err); ok {
		e.Scope = text[:min(len(text), 256)] // as it was written
	}
	return n, err
}

var errEscape = errors.New("a % that two hexadecimal digits don't follow")

// unescape decodes %XX, and nothing else: a plus is a plus, as in image/svg+xml.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		c, err := hex.DecodeString(s[i+1 : min(i+3, len(s))])
		if err != nil || len(c) != 1 {
			return "", errEscape
		}
		b.WriteByte(c[0])
		i += 2
	}
	return b.String(), nil
}

// escape writes a value such that neither a scope nor the query of a URL takes any of it for its own.
func escape(b *strings.Builder, v string) {
	for i := range len(v) {
		if c := v[i]; isAlnum(rune(c)) && c < 0x80 || strings.IndexByte("-._~:/*@,!$^", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, "%%%02X", c)
		}
	}
}
