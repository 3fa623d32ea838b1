package lexlint

import (
	"slices"
	"strings"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// checkSchema checks a schema as a whole, and among the others.
func (l *linter) checkSchema(d *doc) {
	id := string(d.id)
	idNode := d.tree.get("id")
	if p := d.file.Path; p != "" {
		if want := strings.ReplaceAll(id, ".", "/") + ".json"; p != want && !strings.HasSuffix(p, "/"+want) {
			l.report(d, "file-path", idNode, "id", "the file of %s should be %s", id, want)
		}
	}
	name := d.id.Name()
	if !lowerCamel(name) {
		l.report(d, "lower-camel-case", idNode, "id", "the name %s isn't lowerCamelCase", name)
	}
	if reserved[name] {
		l.report(d, "reserved-name", idNode, "id", "%s is a reserved word", name)
	}
	if name == "main" {
		l.report(d, "name-group-conflict", idNode, "id", "a schema named main is confused with the main definition of %s", strings.TrimSuffix(id, ".main"))
	}
	for i := strings.LastIndexByte(id, '.'); i > 0; i = strings.LastIndexByte(id[:i], '.') {
		if other := l.byID[syntax.NSID(id[:i])]; other != nil {
			l.report(d, "name-group-conflict", idNode, "id", "%s is a schema, and here a group too", other.id)
		}
	}
	if other := l.byID[d.id]; other != d {
		l.report(d, "confusable-name", idNode, "id", "%s has the same id", other.file.Path)
	}
	if twin := l.twins()[d.id]; twin != "" {
		l.report(d, "confusable-name", idNode, "id", "%s is easily confused with %s", id, twin)
	}
	if base, v := version(name); v > 1 {
		l.checkVersion(d, base, v)
	}
	l.confusable(d, idNode, "defs", len(d.schema.Defs), func(i int) string { return d.schema.Defs[i].Name })

	main := d.schema.Main()
	if main != nil && name == "defs" {
		l.report(d, "defs-main-definition", d.tree.get("defs").get("main"), "defs.main", "schemas named defs hold definitions for others, and none named main")
	}
	if l.soundsExperimental(d, main) {
		l.report(d, "experimental-marker", idNode, "id", "the description calls it experimental, but the NSID has neither temp nor unspecced")
	}
}

// checkVersion looks for the version before.
func (l *linter) checkVersion(d *doc, base string, v int) {
	before := []string{base}
	if v > 2 {
		before = []string{base + "V" + string(rune('0'+(v-1)%10))}
		if v > 10 {
			return // nobody checks those by hand
		}
	}
	for _, b := range before {
		id := syntax.NSID(strings.TrimSuffix(string(d.id), d.id.Name()) + b)
		if _, err := l.lookup(id); err != nil && unknown(err) {
			l.report(d, "version-suffix", d.tree.get("id"), "id", "there is no %s before it", id)
		}
	}
}

// soundsExperimental reports whether a schema says of itself that it isn't final.
func (l *linter) soundsExperimental(d *doc, main *lexicon.Def) bool {
	segments := strings.Split(string(d.id), ".")
	if slices.Contains(segments, "temp") || slices.Contains(segments, "unspecced") {
		return false
	}
	text := d.schema.Description
	if main != nil {
		text += " " + main.Description
	}
	text = strings.ToLower(text)
	for _, w := range []string{"experimental", "unstable", "work in progress", "not final", "subject to change"} {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// twins are the schemas of the set whose names are easily confused, each with one other.
func (l *linter) twins() map[syntax.NSID]syntax.NSID {
	if l.twinsOf != nil {
		return l.twinsOf
	}
	l.twinsOf = map[syntax.NSID]syntax.NSID{}
	first := map[string]syntax.NSID{}
	for _, d := range l.docs {
		if d.schema == nil {
			continue
		}
		k := skeleton(string(d.id))
		switch other, ok := first[k]; {
		case !ok:
			first[k] = d.id
		case other != d.id:
			l.twinsOf[d.id], l.twinsOf[other] = other, d.id
		}
	}
	return l.twinsOf
}

// confusable compares names of one place with each other.
func (l *linter) confusable(d *doc, node *value, where string, n int, name func(int) string) {
	first := make(map[string]string, n)
	for i := range n {
		k := skeleton(name(i))
		if other, ok := first[k]; ok {
			l.report(d, "confusable-name", node, where, "%s is easily confused with %s", name(i), other)
		} else {
			first[k] = name(i)
		}
	}
}

// similar returns a schema of the set that a mistyped NSID may have meant, "" if there is none.
func (l *linter) similar(id syntax.NSID) syntax.NSID {
	if l.skeletons == nil {
		l.skeletons = map[string]syntax.NSID{}
		for _, d := range l.docs {
			if d.schema != nil {
				l.skeletons[skeleton(string(d.id))] = d.id
			}
		}
	}
	return l.skeletons[skeleton(string(id))]
}
