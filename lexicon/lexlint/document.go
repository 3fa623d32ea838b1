package lexlint

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// value is a JSON value with its place in the text.
type value struct {
	start, end int // bytes of the text
	kind       json.Token
	members    []member       // of an object
	byKey      map[string]int // of members, if they are many
	items      []*value       // of an array
}

// member is an entry of an object.
type member struct {
	key      string
	keyStart int
	val      *value
}

// parseValue reads the text of one JSON value that is known to be well-formed, nil otherwise.
func parseValue(text []byte) *value {
	p := &positions{dec: json.NewDecoder(bytes.NewReader(text)), text: text}
	p.dec.UseNumber()
	v, ok := p.value()
	if !ok {
		return nil
	}
	return v
}

type positions struct {
	dec  *json.Decoder
	text []byte
}

// next reads a token and returns where it starts.
func (p *positions) next() (tok json.Token, start int, ok bool) {
	start = int(p.dec.InputOffset())
	for start < len(p.text) && strings.IndexByte(" \t\r\n,:", p.text[start]) >= 0 {
		start++
	}
	tok, err := p.dec.Token()
	return tok, start, err == nil
}

func (p *positions) value() (*value, bool) {
	tok, start, ok := p.next()
	if !ok {
		return nil, false
	}
	v := &value{start: start, kind: tok}
	switch tok {
	case json.Delim('{'):
		for p.dec.More() {
			key, keyStart, ok := p.next()
			if !ok {
				return nil, false
			}
			val, ok := p.value()
			if !ok {
				return nil, false
			}
			name, _ := key.(string)
			v.members = append(v.members, member{name, keyStart, val})
		}
	case json.Delim('['):
		for p.dec.More() {
			item, ok := p.value()
			if !ok {
				return nil, false
			}
			v.items = append(v.items, item)
		}
	}
	if _, isDelim := tok.(json.Delim); isDelim {
		if _, _, ok := p.next(); !ok {
			return nil, false
		}
	}
	v.end = int(p.dec.InputOffset())
	return v, true
}

// member returns the entry of an object with that key, nil if v is no object or has none.
func (v *value) member(key string) *member {
	if v == nil {
		return nil
	}
	if len(v.members) > 16 {
		if v.byKey == nil {
			v.byKey = make(map[string]int, len(v.members))
			for i, m := range v.members {
				v.byKey[m.key] = i
			}
		}
		if i, ok := v.byKey[key]; ok {
			return &v.members[i]
		}
		return nil
	}
	for i := range v.members {
		if v.members[i].key == key {
			return &v.members[i]
		}
	}
	return nil
}

// get returns the value under a key, nil if there is none.
func (v *value) get(key string) *value {
	if m := v.member(key); m != nil {
		return m.val
	}
	return nil
}

func (v *value) isObject() bool { return v != nil && v.kind == json.Delim('{') }

// at follows the steps of a path as far as it leads.
func (v *value) at(steps []string) *value {
	for _, s := range steps {
		next := v.get(s)
		if next == nil && v != nil && len(v.items) > 0 {
			if i, err := strconv.Atoi(s); err == nil && i >= 0 && i < len(v.items) {
				next = v.items[i]
			}
		}
		if next == nil {
			return v
		}
		v = next
	}
	return v
}

// steps splits a path as errors have it: "defs.main.errors[2]".
func steps(path string) []string {
	var out []string
	for s := range strings.SplitSeq(path, ".") {
		name, rest, _ := strings.Cut(s, "[")
		if name != "" {
			out = append(out, name)
		}
		for rest != "" {
			var index string
			index, rest, _ = strings.Cut(rest, "]")
			out = append(out, index)
			rest = strings.TrimPrefix(rest, "[")
		}
	}
	return out
}
