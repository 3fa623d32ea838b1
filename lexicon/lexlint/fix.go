package lexlint

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// Fix is a change of the text of a schema that does away with a finding. It keeps the rest of the text as it is.
type Fix struct {
	Description string `json:"description"`
	Edits       []Edit `json:"edits"`
}

// Edit replaces the bytes from Start up to End of a text.
type Edit struct {
	Start int    `json:"start"`
	End   int    `json:"end"`
	New   string `json:"new"`
}

// Apply changes a text by fixes that were made for it, and says which of them it applied. Of those that get in each other's
// way it takes the first and leaves out the others, and so with those that lie outside of the text: the result can be
// linted again. [FixAll] does.
func Apply(text []byte, fixes ...*Fix) (out []byte, applied []bool) {
	var edits []Edit // sorted, apart from each other
	applied = make([]bool, len(fixes))
	for i, f := range fixes {
		if f == nil || slices.ContainsFunc(f.Edits, func(e Edit) bool { return e.Start < 0 || e.End < e.Start || e.End > len(text) }) {
			continue
		}
		with := edits
		fits := true
		for _, e := range f.Edits {
			at, _ := slices.BinarySearchFunc(with, e, func(a, b Edit) int { return cmp.Compare(a.Start, b.Start) })
			if at > 0 && with[at-1].End >= e.Start || at < len(with) && with[at].Start <= e.End {
				fits = false
				break
			}
			if len(f.Edits) > 1 && len(with) == len(edits) {
				with = slices.Clone(with)
			}
			with = slices.Insert(with, at, e)
		}
		if fits {
			edits, applied[i] = with, true
		}
	}
	pos := 0
	for _, e := range edits {
		out = append(out, text[pos:e.Start]...)
		out = append(out, e.New...)
		pos = e.End
	}
	return append(out, text[pos:]...), applied
}

// maxFixRounds bounds how often FixAll starts again. No fix undoes another; more than a few rounds are never needed.
const maxFixRounds = 20

// FixAll applies all that can be fixed in one file of a set, and returns its new text and the findings that are done away
// with. The other files, which its references may lead to, stay as they are.
func FixAll(files []File, i int, o Options) (text []byte, fixed []Finding) {
	files = slices.Clone(files)
	for range maxFixRounds {
		var fixes []*Fix
		var these []Finding
		for _, f := range Lint(files, o) {
			if f.file == i && f.Fix != nil {
				fixes = append(fixes, f.Fix)
				these = append(these, f)
			}
		}
		text, applied := Apply(files[i].JSON, fixes...)
		if !slices.Contains(applied, true) {
			break
		}
		for k, ok := range applied {
			if ok {
				fixed = append(fixed, these[k])
			}
		}
		files[i].JSON = text
	}
	return files[i].JSON, fixed
}

// setMember returns the edit that gives an object an entry: in place of the one that it has, else behind the one named
// after, else at its end. It is written in the manner of the entry before it.
func setMember(text []byte, obj *value, after, key, val string) Edit {
	name, _ := json.Marshal(key)
	if m := obj.member(key); m != nil {
		return Edit{m.val.start, m.val.end, val}
	}
	if len(obj.members) == 0 {
		return Edit{obj.start + 1, obj.start + 1, string(name) + ": " + val}
	}
	m := obj.member(after)
	if m == nil {
		m = &obj.members[len(obj.members)-1]
	}
	colon := ":"
	if bytes.Contains(text[m.keyStart:m.val.start], []byte(": ")) {
		colon = ": "
	}
	gap := gapBefore(text, m.keyStart)
	if !strings.Contains(gap, "\n") && colon == ": " {
		gap = " "
	}
	return Edit{m.val.end, m.val.end, "," + gap + string(name) + colon + val}
}

// gapBefore is the white space before a key.
func gapBefore(text []byte, at int) string {
	start := at
	for start > 0 && strings.IndexByte(" \t\r\n", text[start-1]) >= 0 {
		start--
	}
	return string(text[start:at])
}

// removeMembers returns the edits that take entries out of an object, with their commas.
func removeMembers(obj *value, keys ...string) []Edit {
	var edits []Edit
	for i := 0; i < len(obj.members); i++ {
		if !slices.Contains(keys, obj.members[i].key) {
			continue
		}
		first := i
		for i+1 < len(obj.members) && slices.Contains(keys, obj.members[i+1].key) {
			i++
		}
		switch {
		case first > 0:
			edits = append(edits, Edit{obj.members[first-1].val.end, obj.members[i].val.end, ""})
		case i+1 < len(obj.members):
			edits = append(edits, Edit{obj.members[0].keyStart, obj.members[i+1].keyStart, ""})
		default:
			edits = append(edits, Edit{obj.start + 1, obj.end - 1, ""})
		}
	}
	return edits
}

// replaceText returns the edit that puts another string in place of one.
func replaceText(v *value, s string) Edit {
	b, _ := json.Marshal(s)
	return Edit{v.start, v.end, string(b)}
}
