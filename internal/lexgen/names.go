package lexgen

import "strings"

// Names. A definition is named after its NSID without the first two segments, which are the package, in camel case;
// another definition than main adds its own name behind an underscore: app.bsky.feed.defs#postView is
// appbsky.FeedDefs_PostView. What is defined in place adds the name of its field: FeedPost_Embed, and Elem for the items
// of an array: RepoApplyWrites_Input_Writes_Elem. A name that is taken gets an underscore at its end; names are given in
// the order of the NSIDs, of the definitions and of the fields.

// packageOf returns the name of the package of an NSID.
func packageOf(id string) string {
	s := strings.SplitN(id, ".", 3)
	return exportable(s[0]) + exportable(s[1])
}

// groupOf returns the name of the file that the types of an NSID go to.
func groupOf(id string) string {
	s := strings.Split(id, ".")
	if len(s) == 3 {
		return exportable(s[1])
	}
	return exportable(strings.ToLower(s[2]))
}

// exportable drops what no Go identifier may have.
func exportable(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
}

// camel makes an exported identifier of a name: its parts begin with upper-case letters.
func camel(s string) string {
	var b strings.Builder
	up := true
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z' && up:
			b.WriteRune(r - 'a' + 'A')
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		default:
			up = true
			continue
		}
		up = false
	}
	return b.String()
}

// typeName returns the name of a definition without its package.
func typeName(r Ref) string {
	var b strings.Builder
	for _, part := range strings.Split(r.ID, ".")[2:] {
		b.WriteString(camel(part))
	}
	if r.Name != "main" {
		b.WriteByte('_')
		b.WriteString(camel(r.Name))
	}
	return b.String()
}
