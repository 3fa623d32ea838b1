package lexicon

import "github.com/barograph/baro/cbor"

// CountGraphemes is graphemes.
func CountGraphemes(b []byte, limit int64) (int64, bool) { return graphemes(b, limit) }

// Pass reports whether the fast way passes a value for a definition that has been compiled.
func (c *Catalog) Pass(ref string, raw []byte) bool {
	return c.store.node(ref).pass(raw, 0, 0) == len(raw)
}

// Refuse validates without the fast way.
func (c *Catalog) Refuse(ref string, raw []byte) error {
	v := validator{r: cbor.NewReader(raw), raw: raw, store: c.store, opts: c.opts}
	return v.top(c.store.node(ref))
}
