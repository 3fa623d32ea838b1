package lexicon

import (
	"fmt"
	"strconv"

	"github.com/barograph/baro/syntax"
)

// ValidateParams checks the parameters of a query, procedure or subscription as they come in a URL: url.Values is such a
// map. Parameters that the schema doesn't know pass.
func (c *Catalog) ValidateParams(id syntax.NSID, params map[string][]string) error {
	d := c.Resolve(string(id))
	if d == nil || d.Type != TypeQuery && d.Type != TypeProcedure && d.Type != TypeSubscription {
		return fmt.Errorf("%w: no method %s", ErrUnknownSchema, id)
	}
	if d.Parameters == nil {
		return nil
	}
	n := c.part(string(id)+" parameters", d.Parameters)
	for i := range n.props {
		p := &n.props[i]
		values, ok := params[p.name]
		if !ok || len(values) == 0 {
			if p.required {
				return missing(p.name)
			}
			continue
		}
		if err := p.node.checkParam(values); err != nil {
			return err.inKey([]byte(p.name))
		}
	}
	return nil
}

func (n *node) checkParam(values []string) *Error {
	if n.kind == kindArray {
		if err := n.checkLength(len(values), "items"); err != nil {
			return err
		}
		for i, v := range values {
			if err := n.items.checkParamValue(v); err != nil {
				return err.inItem(i)
			}
		}
		return nil
	}
	if len(values) > 1 && n.kind != kindAny {
		return &Error{Rule: RuleRepeated}
	}
	return n.checkParamValue(values[0])
}

func (n *node) checkParamValue(s string) *Error {
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
		return n.checkString([]byte(s))
	}
	return nil // kindAny
}
