package lexicon

// CountGraphemes is graphemes.
func CountGraphemes(b []byte, limit int64) (int64, bool) { return graphemes(b, limit) }
