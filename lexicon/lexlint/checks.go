package lexlint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// large is from how many bytes on a text or bytes should be a blob.
const large = 20 << 10

// many is from how many required fields on they are called many.
const many = 8

// checkSite checks one definition.
func (l *linter) checkSite(at *site) {
	if at.isNamed() {
		l.checkNamed(at)
	}
	if at.isField() {
		l.checkField(at)
	}
	switch at.d.Type {
	case lexicon.TypeBoolean:
		l.checkConstants(at)
	case lexicon.TypeInteger:
		l.checkInteger(at)
	case lexicon.TypeString:
		l.checkString(at)
	case lexicon.TypeBytes:
		l.checkBytes(at)
	case lexicon.TypeCIDLink:
		if at.role&inRecord != 0 {
			l.found(at, "cid-link-in-record", "in records a CID is a string of format cid")
		}
	case lexicon.TypeUnknown:
		if at.role&inRecord != 0 {
			l.found(at, "unknown-in-record", "a union can say what it holds; an unknown in a record can't be validated")
		}
	case lexicon.TypeArray:
		l.checkArray(at)
	case lexicon.TypeObject, lexicon.TypeParams:
		l.checkObject(at)
	case lexicon.TypeRef:
		l.checkReference(at, at.d.Ref, at.node.get("ref"), lexicon.RefProblem)
	case lexicon.TypeUnion:
		l.checkUnion(at)
	case lexicon.TypeQuery, lexicon.TypeProcedure, lexicon.TypeSubscription:
		l.checkMethod(at)
	case lexicon.TypePermissionSet:
		l.checkPermissionSet(at)
	}
}

// checkNamed checks what has a name in the schema.
func (l *linter) checkNamed(at *site) {
	d := at.d
	if !lowerCamel(at.name) {
		l.found(at, "lower-camel-case", "the name %s isn't lowerCamelCase", at.name)
	}
	if reserved[at.name] {
		l.found(at, "reserved-name", "%s is a reserved word", at.name)
	}
	if d.Type == lexicon.TypeToken && d.Description == "" {
		l.found(at, "undescribed-token", "nobody can know what the token means")
	}
	if base, v := version(at.name); v > 1 {
		before := base
		if v > 2 {
			before += "V" + strconv.Itoa(v-1)
		}
		if at.doc.schema.Def(before) == nil {
			l.found(at, "version-suffix", "there is no %s before it", before)
		}
	}
	if user := l.users[at.doc.schema.Reference(at.name)]; user != "" && at.name != "main" && at.doc.id.Name() != "defs" && d.Type != lexicon.TypeToken {
		l.found(at, "shared-def", "%s uses it as well, so it should be in a schema named defs", user)
	}
	if at.isMain() {
		l.checkMain(at)
	}
}

// checkMain checks what the schema is about.
func (l *linter) checkMain(at *site) {
	d := at.d
	name := at.doc.id.Name()
	if d.Description == "" && (d.Record == nil || d.Record.Description == "") && d.Detail == "" && d.Title == "" {
		l.found(at, "missing-primary-description", "say in a sentence or two what it is for")
	}
	verb := firstWord(name)
	switch d.Type {
	case lexicon.TypeRecord:
		if plural(name) {
			l.found(at, "record-name", "%s sounds like a plural; a record is one thing", name)
		}
	case lexicon.TypeQuery:
		if !slices.Contains([]string{"get", "list", "search", "query"}, verb) {
			l.found(at, "query-verb", "%s starts with none of get, list, search and query", name)
		}
	case lexicon.TypeProcedure:
		if !slices.Contains([]string{"create", "update", "delete", "upsert", "put"}, verb) {
			l.found(at, "procedure-verb", "%s starts with none of create, update, delete, upsert and put", name)
		}
	case lexicon.TypeSubscription:
		if rest, ok := strings.CutPrefix(name, "subscribe"); !ok || !plural(rest) {
			l.found(at, "subscription-name", "%s isn't subscribe and a plural", name)
		}
	case lexicon.TypePermissionSet:
		if verb != "auth" {
			l.found(at, "permissionset-name", "%s doesn't start with auth", name)
		}
	}
}

// checkField checks a property or parameter by its name.
func (l *linter) checkField(at *site) {
	name, d := at.name, at.d
	switch {
	case strings.HasPrefix(name, "$"):
		l.found(at, "dollar-field", "%.80q is reserved to the protocol", name)
	case !alnum(name) || isDigit(name[0]):
		l.found(at, "field-name-syntax", "%.80q isn't made of ASCII letters and digits, a letter first", name)
	case !lowerCamel(name):
		l.found(at, "lower-camel-case", "the name %s isn't lowerCamelCase", name)
	}
	if reservedField[name] {
		l.found(at, "reserved-name", "%s is a word that programming languages use for something else", name)
	}
	if d.Description == "" && slices.Contains([]string{"uri", "cid", "id", "type"}, name) && d.Const == nil {
		l.found(at, "ambiguous-field", "say in a description of what it is the %s", name)
	}
	if (name == "viewer" || strings.HasPrefix(name, "viewer") && lowerCamel(name)) && at.required && at.role&inOutput != 0 {
		l.found(at, "viewer-required", "without a login there is no viewer: the field should be optional")
	}
	if at.nullable && !at.required {
		l.found(at, "nullable-and-optional", "readers would have to tell null from absent; one of them is enough")
	}
}

// maxSafe is the largest integer that JavaScript tells from its neighbours.
const maxSafe = 1<<53 - 1

func (l *linter) checkInteger(at *site) {
	d := at.d
	numbers := map[string]*int64{"minimum": d.Minimum, "maximum": d.Maximum}
	for _, key := range []string{"const", "default"} {
		v := d.Const
		if key == "default" {
			v = d.Default
		}
		if i, ok := v.(int64); ok {
			numbers[key] = &i
		}
	}
	for _, key := range []string{"minimum", "maximum", "const", "default"} {
		if v := numbers[key]; v != nil && (*v > maxSafe || *v < -maxSafe) {
			l.foundIn(at, at.node.get(key), "unsafe-integer", "%s %d is beyond ±(2^53 - 1)", key, *v)
		}
	}
	for _, v := range d.IntEnum {
		if v > maxSafe || v < -maxSafe {
			l.foundIn(at, at.node.get("enum"), "unsafe-integer", "enum value %d is beyond ±(2^53 - 1)", v)
		}
	}
	if d.IntEnum != nil {
		l.foundIn(at, at.node.get("enum"), "closed-enum", "an enum can't grow without breaking its readers")
	}
	l.checkConstants(at)
}

// checkConstants looks for values that exclude each other.
func (l *linter) checkConstants(at *site) {
	d := at.d
	if d.Type == lexicon.TypeBoolean && d.Default == true {
		l.foundIn(at, at.node.get("default"), "boolean-default-true", "turn the name around, so that absent and false mean the same")
	}
	if d.Const != nil && d.Default != nil {
		l.foundIn(at, at.node.get("default"), "contradictory-limits", "const and default exclude each other")
	}
	limits := *d
	limits.Const = nil
	check := func(key string, v any) {
		if v == nil {
			return
		}
		if err := limits.Check(v); err != nil {
			l.foundIn(at, at.node.get(key), "contradictory-limits", "%s %.80s isn't allowed by the other limits: %v", key, fmt.Sprint(v), err)
		}
	}
	check("const", d.Const)
	check("default", d.Default)
	limits.Enum, limits.IntEnum = nil, nil
	for _, v := range d.Enum {
		check("enum", v)
	}
	for _, v := range d.IntEnum {
		check("enum", v)
	}
	for _, v := range d.KnownValues {
		check("knownValues", v)
	}
	if d.Enum != nil && len(d.Enum) == 0 || d.IntEnum != nil && len(d.IntEnum) == 0 {
		l.foundIn(at, at.node.get("enum"), "contradictory-limits", "an empty enum allows nothing")
	}
	if d.MinGraphemes != nil && d.MaxLength != nil && *d.MinGraphemes > *d.MaxLength {
		l.foundIn(at, at.node.get("minGraphemes"), "contradictory-limits", "%d graphemes need more than %d bytes", *d.MinGraphemes, *d.MaxLength)
	}
}

func (l *linter) checkString(at *site) {
	d := at.d
	l.checkConstants(at)
	l.checkLengths(at)
	if d.Enum != nil {
		l.foundIn(at, at.node.get("enum"), "closed-enum", "an enum can't grow without breaking its readers: use knownValues")
	}
	l.checkKnown(at, "knownValues", d.KnownValues)
	l.checkKnown(at, "enum", d.Enum)
	l.checkFormat(at)
}

// fixed reports whether a string has one of a few values.
func fixed(d *lexicon.Def) bool { return d.Const != nil || d.Enum != nil || d.KnownValues != nil }

func (l *linter) checkLengths(at *site) {
	d, text := at.d, at.doc.file.JSON
	switch {
	case d.Format != "" && (d.MaxLength != nil || d.MinLength != nil || d.MaxGraphemes != nil || d.MinGraphemes != nil):
		l.found(at, "format-and-length", "the format %s bounds the length already", d.Format).
			fix("leave out the limits of length", removeMembers(at.node, "maxLength", "minLength", "maxGraphemes", "minGraphemes")...)
	case d.Format == "" && d.MaxGraphemes != nil && d.MaxLength == nil:
		bytes := strconv.FormatInt(min(*d.MaxGraphemes, maxSafe/10)*10, 10)
		l.found(at, "graphemes-without-bytes", "a grapheme can have any number of bytes: set maxLength too").
			fix("set maxLength to ten times maxGraphemes", setMember(text, at.node, "maxGraphemes", "maxLength", bytes))
	case d.Format == "" && d.MaxGraphemes != nil && *d.MaxGraphemes > 0 && (*d.MaxLength / *d.MaxGraphemes < 10 || *d.MaxLength / *d.MaxGraphemes > 20 && *d.MaxGraphemes > 10): // one emoji may need 64 bytes
		l.found(at, "graphemes-ratio", "maxLength is %.1f times maxGraphemes; 10 to 20 is advised", float64(*d.MaxLength)/float64(*d.MaxGraphemes))
	}
	if d.MaxLength != nil && *d.MaxLength > large {
		l.foundIn(at, at.node.get("maxLength"), "large-string", "%d bytes: longer texts are blobs", *d.MaxLength)
	}
	if at.role&inRecord != 0 && d.MaxLength == nil && d.MaxGraphemes == nil && d.Format == "" && !fixed(d) {
		l.found(at, "unlimited-string", "no maxLength")
	}
}

func (l *linter) checkBytes(at *site) {
	switch d := at.d; {
	case d.MaxLength != nil && *d.MaxLength > large:
		l.foundIn(at, at.node.get("maxLength"), "large-bytes", "%d bytes: more are a blob", *d.MaxLength)
	case d.MaxLength == nil && at.role&inRecord != 0:
		l.found(at, "unlimited-bytes", "no maxLength")
	}
}

// checkKnown checks knownValues or an enum.
func (l *linter) checkKnown(at *site, key string, values []string) {
	list := at.node.get(key)
	for i, v := range values {
		var node *value
		if i < len(list.items) {
			node = list.items[i]
		}
		local, isLocal := strings.CutPrefix(v, "#")
		switch {
		case isLocal && at.doc.schema.Def(local) != nil:
			whole := at.doc.schema.Reference(local)
			l.foundIn(at, node, "known-string-local-ref", "%s means something else in other schemas: write %s", v, whole).
				fix("write "+whole, replaceText(node, whole))
		case isLocal:
			l.foundIn(at, node, "unresolved-ref", "%.320s isn't there", v)
		case !kebab(v) && !strings.ContainsAny(v, ".#/: ") && at.d.Format == "" && v != outdatedCursor:
			l.foundIn(at, node, "known-value-case", "%.80q isn't kebab-case", v)
		}
	}
	for _, link := range values {
		if id, name, ok := strings.Cut(link, "#"); ok && id != "" && syntax.ValidNSID(id) {
			if d, err := l.resolve(link); err == nil && d == nil {
				l.foundIn(at, list, "unresolved-ref", "%s has no %s", id, name)
			}
		}
	}
}

// outdatedCursor is the name that the protocol gives to the message of a stream that has lost events; see the rule
// subscription-cursor.
const outdatedCursor = "OutdatedCursor"

// formatNames are names that suggest a format, and those that suggest it at the end of longer ones.
var formatNames = map[string]syntax.Kind{
	"did": syntax.KindDID, "handle": syntax.KindHandle, "cid": syntax.KindCID, "nsid": syntax.KindNSID, "rkey": syntax.KindRecordKey,
	"tid": syntax.KindTID, "createdat": syntax.KindDatetime, "updatedat": syntax.KindDatetime, "indexedat": syntax.KindDatetime,
	"datetime": syntax.KindDatetime, "lang": syntax.KindLanguage, "language": syntax.KindLanguage, "collection": syntax.KindNSID,
}

func (l *linter) checkFormat(at *site) {
	d := at.d
	name := at.name
	if at.up != nil && at.up.d.Type == lexicon.TypeArray {
		name = strings.TrimSuffix(at.up.name, "s")
	}
	if at.role&inRecord != 0 && (d.Format == syntax.KindHandle || d.Format == syntax.KindAtIdentifier) {
		l.found(at, "record-handle", "handles change hands: a record refers to an account by its DID")
	}
	if name == "" || fixed(d) || !lowerCamel(name) {
		return
	}
	if at.role == inParams && (d.Format == "" || d.Format == syntax.KindHandle || d.Format == syntax.KindDID) &&
		slices.Contains([]string{"actor", "account", "user", "author", "repo"}, name) {
		l.found(at, "account-param-identifier", "with the format at-identifier, callers needn't resolve a handle first").
			fix("set the format at-identifier", setMember(at.doc.file.JSON, at.node, "type", "format", `"at-identifier"`))
		return
	}
	if d.Format != "" {
		return
	}
	f, exact := formatNames[strings.ToLower(name)]
	if !exact {
		switch w := lastWord(name); w {
		case "did", "cid", "nsid", "rkey", "tid":
			f = formatNames[w]
		case "at":
			f = syntax.KindDatetime
		case "uri", "url":
			l.found(at, "missing-format", "%s sounds like a URI: its format is at-uri or uri", name)
			return
		}
	}
	if f == "" || strings.EqualFold(name, "at") {
		return
	}
	x := l.found(at, "missing-format", "%s sounds like the format %s", name, f)
	if exact && d.MaxLength == nil && d.MaxGraphemes == nil {
		x.fix("set the format "+string(f), setMember(at.doc.file.JSON, at.node, "type", "format", strconv.Quote(string(f))))
	}
}

func (l *linter) checkArray(at *site) {
	switch at.d.Items.Type {
	case lexicon.TypeBoolean, lexicon.TypeInteger, lexicon.TypeString, lexicon.TypeBytes, lexicon.TypeCIDLink:
		if at.role&(inRecord|inOutput|inMessage) != 0 {
			l.found(at, "scalar-array", "an array of objects with one field can get more of them later")
		}
	}
}

func (l *linter) checkObject(at *site) {
	d := at.d
	props := make(map[string]*lexicon.Def, len(d.Properties))
	for _, p := range d.Properties {
		props[p.Name] = p.Def
	}
	for key, names := range map[string][]string{"required": d.Required, "nullable": d.Nullable} {
		for _, name := range names {
			if props[name] == nil {
				l.foundIn(at, at.node.get(key), "undefined-property", "%s names %.80q, which isn't among the properties", key, name)
			}
		}
	}
	path := at.path() + ".properties"
	l.confusable(at.doc, at.node.get("properties"), path, len(d.Properties), func(i int) string { return d.Properties[i].Name })
	if d.Type == lexicon.TypeParams {
		return
	}
	if len(d.Required) >= many {
		l.foundIn(at, at.node.get("required"), "many-required", "%d fields are required: none of them can ever be left out", len(d.Required))
	}
	isString := func(name string) bool { return props[name] != nil && props[name].Type == lexicon.TypeString }
	const strongRef, label = "com.atproto.repo.strongRef", "com.atproto.label.defs#label"
	self := at.doc.schema.Reference(at.named().name)
	switch {
	case len(props) == 2 && isString("uri") && isString("cid") && self != strongRef:
		l.found(at, "reuse-shared-def", "a URI with a CID is %s", strongRef)
	case isString("src") && isString("uri") && isString("val") && isString("cts") && self != label:
		l.found(at, "reuse-shared-def", "a label is %s", label)
	}
	if at.isNamed() && strings.HasSuffix(at.name, "View") && isString("uri") && isString("cid") && props["record"] == nil && props["value"] == nil {
		l.found(at, "view-without-record", "the record itself, as it is, saves keeping the view up to date with it")
	}
}

// checkReference checks where a reference leads.
func (l *linter) checkReference(at *site, ref string, node *value, problem func(*lexicon.Def) string) {
	d, err := l.resolve(ref)
	switch {
	case err != nil && unknown(err):
		id, _, _ := strings.Cut(ref, "#")
		hint := ""
		if s := l.similar(syntax.NSID(id)); s != "" {
			hint = fmt.Sprintf(": did you mean %s?", s)
		}
		l.foundIn(at, node, "unresolved-ref", "there is no schema %s%s", id, hint)
	case err != nil:
		l.foundIn(at, node, "ref-unchecked", "%s couldn't be looked up: %v", ref, err)
	case d == nil:
		l.foundIn(at, node, "unresolved-ref", "%s isn't there", ref)
	default:
		if why := problem(d); why != "" {
			l.foundIn(at, node, "ref-target", "%s %s", ref, why)
		}
	}
}

func (l *linter) checkUnion(at *site) {
	list := at.node.get("refs")
	for i, ref := range at.d.Refs {
		l.checkReference(at, ref, list.items[i], lexicon.VariantProblem)
	}
	if at.d.Closed {
		l.foundIn(at, at.node.get("closed"), "closed-union", "a closed union can't grow without breaking its readers")
	}
}

func (l *linter) checkPermissionSet(at *site) {
	d := at.d
	if d.Title == "" {
		l.found(at, "permissionset-no-title", "people are asked to agree to it by its title")
	}
	if len(d.Permissions) == 0 {
		l.found(at, "permissionset-no-permissions", "it grants nothing")
	}
	list := at.node.get("permissions")
	for i, p := range d.Permissions {
		node := list.items[i]
		if p.Ignore != "" {
			l.foundIn(at, node, "permission-ignored", "servers ignore permissions[%d]: %s", i, p.Ignore)
			continue
		}
		for _, id := range slices.Concat(p.Collection, p.LXM) {
			if !lexicon.InNamespace(at.doc.id, syntax.NSID(id)) {
				l.foundIn(at, node, "permission-ignored", "permissions[%d]: %s is outside of the set's namespace", i, id)
			}
		}
	}
}
