package lexicon

import (
	"fmt"
	"strconv"

	"github.com/barograph/baro/syntax"
)

// ValidateParams checks the parameters of a query, procedure or subscription as they come in a URL: url.Values is such a
// map. Parameters that the schema doesn't know pass.
func (c *Catalog) ValidateParams(id syntax.NSID, params map[string][]string) error {
	d, err := c.method(id, TypeQuery, TypeProcedure, TypeSubscription)
	if err != nil {
		return err
	}
	if d.Parameters == nil {
		return nil
	}
	n := c.store.part(string(id)+" parameters", d.Parameters)
	var errs Errors
	for i := range n.props {
		p := &n.props[i]
		var err *Error
		if values := params[p.name]; len(values) > 0 {
			if err = p.node.checkParam(values, c.opts.LenientDatetimes); err != nil {
				err.inKey([]byte(p.name))
			}
		} else if p.required {
			err = p.missing()
		}
		if err == nil {
			continue
		}
		if c.opts.Findings <= 1 {
			return err
		}
		errs = append(errs, err)
		if len(errs) == c.opts.Findings {
			break
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}

func (n *node) checkParam(values []string, lenient bool) *Error {
	if n.kind == kindArray {
		if err := n.checkLength(len(values), "items"); err != nil {
			return err
		}
		for i, v := range values {
			if err := n.items.checkParamValue(v, lenient); err != nil {
				return err.inItem(i)
			}
		}
		return nil
	}
	if len(values) > 1 && n.kind != kindAny {
		return &Error{Rule: RuleRepeated}
	}
	return n.checkParamValue(values[0], lenient)
}

func (n *node) checkParamValue(s string, lenient bool) *Error {
	switch n.kind {
	case kindBoolean:
		if s != "true" && s != "false" {
			return &Error{Rule: RuleType, Detail: fmt.Sprintf("%.80q where true or false should be", s)}
		}
		return n.checkBool(s == "true")
	case kindInteger:
		i, err := strconv.ParseInt(s, 10, 64)
		if err != nil || s[0] == '+' {
			return &Error{Rule: RuleType, Detail: fmt.Sprintf("%.80q where an integer should be", s)}
		}
		return n.checkInt(i)
	case kindString:
		return n.checkString([]byte(s), lenient)
	}
	return nil // kindAny
}
