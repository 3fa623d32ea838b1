package lexicon

import (
	"fmt"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/barograph/baro/syntax"
)

func (n *node) checkString(b []byte, lenientDatetimes bool) *Error {
	if err := n.checkLength(len(b), "bytes"); err != nil {
		return err
	}
	if n.strings != nil && !containsText(n.strings, b) {
		return &Error{Rule: n.setRule(), Detail: fmt.Sprintf("%.80q", b)}
	}
	if n.valid != nil && !n.valid(b) && !(lenientDatetimes && n.format == syntax.KindDatetime && readable(b)) {
		return &Error{Rule: RuleFormat, Err: syntax.CheckFormat(n.format, string(b))}
	}
	// A grapheme has at least one byte, so most texts needn't be counted.
	if int64(len(b)) <= n.maxGraphemes && n.minGraphemes == 0 {
		return nil
	}
	return n.checkGraphemes(b)
}

func (n *node) checkGraphemes(b []byte) *Error {
	if int64(len(b)) < n.minGraphemes {
		return &Error{Rule: RuleMinGraphemes, Detail: fmt.Sprintf("less than %d", n.minGraphemes)}
	}
	count, more := graphemes(b, n.maxGraphemes)
	if more {
		return &Error{Rule: RuleMaxGraphemes, Detail: fmt.Sprintf("more than %d", n.maxGraphemes)}
	}
	if count < n.minGraphemes {
		return &Error{Rule: RuleMinGraphemes, Detail: fmt.Sprintf("%d, at least %d", count, n.minGraphemes)}
	}
	return nil
}

// readable reports whether a datetime can be made out, though it breaks the rules.
func readable(b []byte) bool {
	_, ok := syntax.LenientTime(string(b))
	return ok
}

// Graphemes returns the number of grapheme clusters in a text: what the limits minGraphemes and maxGraphemes count.
func Graphemes(s string) int { return uniseg.GraphemeClusterCount(s) }

// graphemes counts grapheme clusters up to a limit and says whether there are more.
func graphemes(b []byte, limit int64) (count int64, more bool) {
	state := -1
	for len(b) > 0 {
		if count == limit {
			return count, true
		}
		// ASCII but for CR LF is one cluster a byte, unless something follows that joins it.
		if c := b[0]; state == -1 && c != '\r' && c < utf8.RuneSelf && (len(b) == 1 || b[1] < utf8.RuneSelf) {
			b = b[1:]
			count++
			continue
		}
		_, b, _, state = uniseg.FirstGraphemeCluster(b, state)
		count++
		if len(b) > 0 && b[0] < utf8.RuneSelf {
			state = -1 // a cluster has ended before an ASCII character: nothing before it matters any more
		}
	}
	return count, false
}

// formats are the checks of string formats, on bytes where that saves a string. A format of a newer language has none.
var formats = map[syntax.Kind]func([]byte) bool{
	syntax.KindDatetime:     syntax.ValidDatetime[[]byte],
	syntax.KindATURI:        syntax.ValidATURI[[]byte],
	syntax.KindDID:          syntax.ValidDID[[]byte],
	syntax.KindHandle:       syntax.ValidHandle[[]byte],
	syntax.KindNSID:         syntax.ValidNSID[[]byte],
	syntax.KindTID:          syntax.ValidTID[[]byte],
	syntax.KindRecordKey:    syntax.ValidRecordKey[[]byte],
	syntax.KindAtIdentifier: func(b []byte) bool { return syntax.ValidHandle(b) || syntax.ValidDID(b) },
	syntax.KindLanguage:     func(b []byte) bool { return syntax.WellFormedLanguage(string(b)) },
	syntax.KindCID:          syntax.ValidCID[[]byte],
	syntax.KindURI:          syntax.ValidURI[[]byte],
}
