package lexicon

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Check validates a bool, int64 or string, such as a default, against a definition of type boolean, integer or string. The
// error is an [*Error].
func (d *Def) Check(v any) error {
	n := new(node)
	(&store{}).compile(n, "", d)
	err := &Error{Rule: RuleType, Detail: fmt.Sprintf("a %T where a %s should be", v, d.Type)}
	switch v := v.(type) {
	case bool:
		if n.kind == kindBoolean {
			err = n.checkBool(v)
		}
	case int64:
		if n.kind == kindInteger {
			err = n.checkInt(v)
		}
	case string:
		if n.kind == kindString {
			err = n.checkString([]byte(v), false)
		}
	}
	if err != nil {
		return err
	}
	return nil
}

func (n *node) checkBool(b bool) *Error {
	if n.hasConst && b != n.constBool {
		return &Error{Rule: RuleConst, Detail: strconv.FormatBool(b)}
	}
	return nil
}

func (n *node) checkInt(i int64) *Error {
	if n.ints != nil && !containsInt(n.ints, i) {
		return &Error{Rule: n.setRule(), Detail: strconv.FormatInt(i, 10)}
	}
	if i < n.min {
		return &Error{Rule: RuleMinimum, Detail: fmt.Sprintf("%d is less than %d", i, n.min)}
	}
	if i > n.max {
		return &Error{Rule: RuleMaximum, Detail: fmt.Sprintf("%d is more than %d", i, n.max)}
	}
	return nil
}

// containsInt searches a list that is sorted if it is long, as containsText does.
func containsInt(list []int64, i int64) bool {
	if len(list) <= few {
		return slices.Contains(list, i)
	}
	_, ok := slices.BinarySearch(list, i)
	return ok
}

func containsText(list []string, b []byte) bool {
	if len(list) <= few {
		for _, s := range list {
			if s == string(b) {
				return true
			}
		}
		return false
	}
	lo, hi := 0, len(list)
	for lo < hi {
		if m := (lo + hi) / 2; list[m] < string(b) {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo < len(list) && list[lo] == string(b)
}

func (n *node) setRule() Rule {
	if n.hasConst {
		return RuleConst
	}
	return RuleEnum
}

func (n *node) checkLength(l int, unit string) *Error {
	if int64(l) < n.min {
		return &Error{Rule: RuleMinLength, Detail: fmt.Sprintf("%d %s, at least %d", l, unit, n.min)}
	}
	if int64(l) > n.max {
		return &Error{Rule: RuleMaxLength, Detail: fmt.Sprintf("%d %s, at most %d", l, unit, n.max)}
	}
	return nil
}

// checkMIME checks the type of a blob, whose parameters don't matter.
func (n *node) checkMIME(mime []byte) *Error {
	if len(n.accept) == 0 {
		return nil
	}
	if i := bytes.IndexByte(mime, ';'); i >= 0 {
		mime = bytes.TrimSpace(mime[:i])
	}
	if n.acceptSet != nil {
		major, _, _ := bytes.Cut(mime, []byte{'/'})
		if n.acceptSet[string(mime)] || n.acceptSet["*/*"] || n.acceptSet[string(major)+"/*"] {
			return nil
		}
	} else {
		for _, a := range n.accept {
			if MatchMIME(a, mime) {
				return nil
			}
		}
	}
	return &Error{Path: "mimeType", Rule: RuleAccept, Detail: fmt.Sprintf("%.80q isn't among %.200s", mime, strings.Join(n.accept[:min(len(n.accept), 20)], ", "))}
}
