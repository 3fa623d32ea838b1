package lexlint

import (
	"strings"
)

// lowerCamel reports whether a name is lowerCamelCase: ASCII letters and digits, the first a small letter.
func lowerCamel(s string) bool { return s != "" && s[0] >= 'a' && s[0] <= 'z' && alnum(s) }

// upperCamel reports whether a name is UpperCamelCase, and not all capitals.
func upperCamel(s string) bool {
	return s != "" && s[0] >= 'A' && s[0] <= 'Z' && alnum(s) && (len(s) < 4 || strings.ToUpper(s) != s)
}

func alnum(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// kebab reports whether a value is kebab-case. Global labels have an exclamation mark in front.
func kebab(s string) bool {
	s = strings.TrimPrefix(s, "!")
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' || strings.Contains(s, "--") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && !isDigit(c) && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// firstWord is the part of a lowerCamelCase name before its second word.
func firstWord(name string) string {
	for i := range len(name) {
		if name[i] >= 'A' && name[i] <= 'Z' {
			return name[:i]
		}
	}
	return name
}

// lastWord is the last word of a lowerCamelCase name, in small letters.
func lastWord(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] >= 'A' && name[i] <= 'Z' {
			return strings.ToLower(name[i:])
		}
	}
	return name
}

// singularS are endings of words in s that are no plurals.
var singularS = []string{"ss", "us", "is", "canvas", "atlas", "alias", "chaos", "news", "series", "species", "settings", "preferences", "lens", "gps", "dns", "tls", "css"}

// plural guesses whether a name ends in a plural.
func plural(name string) bool {
	w := lastWord(name)
	if !strings.HasSuffix(w, "s") || len(w) < 3 {
		return w == "people" || w == "children" || w == "media"
	}
	for _, end := range singularS {
		if strings.HasSuffix(w, end) {
			return false
		}
	}
	return true
}

// skeleton is what is left of a name if one looks at it carelessly: names with the same one are easily confused.
func skeleton(name string) string {
	return strings.ToLower(strings.NewReplacer("0", "o", "O", "o", "1", "l", "I", "l").Replace(name))
}

// reserved are words that Go, TypeScript, Python, Rust, Swift or Kotlin reserve, and names that objects in JavaScript have
// already.
var reserved = set(strings.Fields(`
	break case chan const continue default defer else fallthrough for func go goto if import interface map package range return
	select struct switch type var
	abstract any arguments as async await boolean catch class debugger delete do enum eval export extends false finally function
	implements in instanceof let never new null number of private protected public static super this throw throws true try
	typeof undefined void while with yield
	and assert def del elif except from global is lambda nonlocal not or pass raise None True False
	crate dyn extern fn impl loop match mod move mut pub ref self trait unsafe use where
	deinit fileprivate guard init inout internal open operator repeat rethrows subscript
	fun object val when
	constructor length prototype toString valueOf hasOwnProperty name`))

// reservedField are those that make trouble as the name of a field: a field is named within an object, so most don't.
var reservedField = set(strings.Fields(`default length constructor prototype toString valueOf hasOwnProperty this self None True False`))

// digits are the version at the end of a name such as "getPostV2"; base is what is before it.
func version(name string) (base string, v int) {
	i := len(name)
	for i > 0 && isDigit(name[i-1]) && len(name)-i < 3 {
		i--
	}
	if i < 2 || i == len(name) || name[i-1] != 'V' || name[i] == '0' {
		return name, 0
	}
	for _, c := range []byte(name[i:]) {
		v = v*10 + int(c-'0')
	}
	return name[:i-1], v
}
