package richtext

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/barograph/baro/api/appbsky"
)

// Limits of the text of an app.bsky.feed.post.
const (
	MaxPostGraphemes = 300
	MaxPostBytes     = 3000
)

// MaxTagGraphemes is how long a tag may be; longer ones aren't found.
const MaxTagGraphemes = 64

// ErrFacet is what all errors about facets wrap.
var ErrFacet = errors.New("invalid facet")

// ErrRange is what an edit outside of the text, or in the middle of a character, wraps.
var ErrRange = errors.New("range is not in the text")

// Text is a string with facets, in the form in which records hold them. Build it as a literal from a record that was read:
//
//	t := richtext.Text{Text: post.Text, Facets: post.Facets}
//
// Facets of others may be wrong in any way: [Text.Check] tells, [Text.Segments] passes over what is wrong.
type Text struct {
	Text   string
	Facets []appbsky.RichtextFacet
}

// Graphemes is the length of the text as a reader counts it, in grapheme clusters; posts have at most [MaxPostGraphemes].
func (t Text) Graphemes() int { return uniseg.GraphemeClusterCount(t.Text) }

// Len is the length of the text in bytes of UTF-8; posts have at most [MaxPostBytes].
func (t Text) Len() int { return len(t.Text) }

// FitsPost says whether the text is short enough for a post.
func (t Text) FitsPost() bool {
	return len(t.Text) <= MaxPostBytes && (len(t.Text) <= MaxPostGraphemes || t.Graphemes() <= MaxPostGraphemes)
}

// Clone returns a copy that shares nothing which an edit changes.
func (t Text) Clone() Text {
	t.Facets = slices.Clone(t.Facets)
	return t
}

// Check reports the first facet that is not well placed: an empty or reversed range, one outside of the text or not on the
// edges of characters, one that overlaps or precedes the facet before it, or one without features. Errors wrap [ErrFacet].
func (t Text) Check() error {
	last := 0
	for i := range t.Facets {
		f := &t.Facets[i]
		start, end, ok := t.bounds(f)
		switch {
		case !ok:
			return fmt.Errorf("%w %d: bytes %d to %d of %d", ErrFacet, i, f.Index.ByteStart, f.Index.ByteEnd, len(t.Text))
		case start < last:
			return fmt.Errorf("%w %d: starts at byte %d, before the end of the one before it, %d", ErrFacet, i, start, last)
		case len(f.Features) == 0:
			return fmt.Errorf("%w %d: no features", ErrFacet, i)
		}
		last = end
	}
	return nil
}

// bounds are the range of a facet, if it is not empty and cuts no character in two.
func (t Text) bounds(f *appbsky.RichtextFacet) (start, end int, ok bool) {
	s, e := f.Index.ByteStart, f.Index.ByteEnd
	if s < 0 || s >= e || e > int64(len(t.Text)) || !edge(t.Text, int(s)) || !edge(t.Text, int(e)) {
		return 0, 0, false
	}
	return int(s), int(e), true
}

// edge says whether a character starts or the text ends at an offset.
func edge(s string, at int) bool { return at == len(s) || utf8.RuneStart(s[at]) }

// Insert puts s at a byte offset. Facets after it move, a facet around it grows; a facet that ends or starts just there
// stays as long as it was. An offset outside of the text or inside of a character is [ErrRange].
func (t *Text) Insert(at int, s string) error {
	if at < 0 || at > len(t.Text) || !edge(t.Text, at) {
		return fmt.Errorf("inserting at byte %d of %d: %w", at, len(t.Text), ErrRange)
	}
	t.Text = t.Text[:at] + s + t.Text[at:]
	n := int64(len(s))
	for i := range t.Facets {
		ix := &t.Facets[i].Index
		if ix.ByteStart >= int64(at) {
			ix.ByteStart += n
			ix.ByteEnd += n
		} else if ix.ByteEnd > int64(at) {
			ix.ByteEnd += n
		}
	}
	return nil
}

// Delete takes the bytes from start up to end away. Facets after them move, facets over an edge shrink, and those of which
// nothing is left are dropped. A range outside of the text or that cuts a character is [ErrRange].
func (t *Text) Delete(start, end int) error {
	if start < 0 || start > end || end > len(t.Text) || !edge(t.Text, start) || !edge(t.Text, end) {
		return fmt.Errorf("deleting bytes %d to %d of %d: %w", start, end, len(t.Text), ErrRange)
	}
	t.Text = t.Text[:start] + t.Text[end:]
	moved := func(p int64) int64 { return p - max(0, min(p, int64(end))-int64(start)) }
	t.Facets = slices.DeleteFunc(t.Facets, func(f appbsky.RichtextFacet) bool { return moved(f.Index.ByteStart) >= moved(f.Index.ByteEnd) })
	for i := range t.Facets {
		ix := &t.Facets[i].Index
		ix.ByteStart, ix.ByteEnd = moved(ix.ByteStart), moved(ix.ByteEnd)
	}
	return nil
}

// Clean tidies what people paste: white space at both ends goes, and where three or more line breaks follow each other with
// nothing visible between them, two stay.
func (t *Text) Clean() {
	for i := 0; i < len(t.Text); {
		if t.Text[i] != '\n' && t.Text[i] != '\r' {
			i++
			continue
		}
		breaks, keep, end := 0, 0, i // keep: where the second break ends; end: where the last one does
		for j := i; j < len(t.Text); {
			r, size := utf8.DecodeRuneInString(t.Text[j:])
			if r == '\r' && strings.HasPrefix(t.Text[j:], "\r\n") {
				r, size = '\n', 2
			}
			if r == '\n' || r == '\r' {
				breaks++
				end = j + size
				if breaks == 2 {
					keep = end
				}
			} else if !blank(r) {
				break
			}
			j += size
		}
		if breaks > 2 {
			t.cut(keep, end)
			end = keep
		}
		i = end
	}
	t.cut(len(strings.TrimRightFunc(t.Text, blank)), len(t.Text))
	t.cut(0, len(t.Text)-len(strings.TrimLeftFunc(t.Text, blank)))
}

// cut deletes a range that is known to be right.
func (t *Text) cut(start, end int) {
	if start == end {
		return
	}
	if err := t.Delete(start, end); err != nil {
		panic(err)
	}
}

// Add puts facets for spans over the text, in their places among those that are there; a span that overlaps one is left
// out. A mention needs the DID of who is mentioned: did returns it, or "" to leave the mention out. A nil did leaves all
// mentions out.
func (t *Text) Add(spans []Span, did func(handle string) string) {
	for _, s := range spans {
		var feature appbsky.RichtextFacet_Features_Elem
		switch s.Kind {
		case Mention:
			var who string
			if did != nil {
				who = did(s.Value)
			}
			if who == "" {
				continue
			}
			feature.Value = &appbsky.RichtextFacet_Mention{Did: who}
		case Link:
			feature.Value = &appbsky.RichtextFacet_Link{Uri: s.Value}
		case Tag:
			feature.Value = &appbsky.RichtextFacet_Tag{Tag: s.Value}
		default:
			continue
		}
		at, _ := slices.BinarySearchFunc(t.Facets, int64(s.Start), func(f appbsky.RichtextFacet, start int64) int { return int(f.Index.ByteStart - start) })
		if at > 0 && t.Facets[at-1].Index.ByteEnd > int64(s.Start) || at < len(t.Facets) && t.Facets[at].Index.ByteStart < int64(s.End) {
			continue
		}
		t.Facets = slices.Insert(t.Facets, at, facet(s.Start, s.End, feature))
	}
}

func facet(start, end int, features ...appbsky.RichtextFacet_Features_Elem) appbsky.RichtextFacet {
	return appbsky.RichtextFacet{
		Index:    appbsky.RichtextFacet_ByteSlice{ByteStart: int64(start), ByteEnd: int64(end)},
		Features: features,
	}
}

// Segment is a run of text, with the features of the facet over it if there is one.
type Segment struct {
	Text     string
	Features []appbsky.RichtextFacet_Features_Elem
}

// Mention is the DID that the segment mentions, or "".
func (s Segment) Mention() string {
	for _, f := range s.Features {
		if m, ok := f.Value.(*appbsky.RichtextFacet_Mention); ok {
			return m.Did
		}
	}
	return ""
}

// Link is the address that the segment leads to, or "". It is whatever the author put there: check the scheme before it
// becomes a link on a page.
func (s Segment) Link() string {
	for _, f := range s.Features {
		if l, ok := f.Value.(*appbsky.RichtextFacet_Link); ok {
			return l.Uri
		}
	}
	return ""
}

// Tag is the tag that the segment is, without its "#", or "".
func (s Segment) Tag() string {
	for _, f := range s.Features {
		if g, ok := f.Value.(*appbsky.RichtextFacet_Tag); ok {
			return g.Tag
		}
	}
	return ""
}

// Segments cuts the text at the edges of its facets. Together the segments are the text. Facets may come in any order;
// those that [Text.Check] would refuse, and those that overlap one that starts before them, are passed over.
func (t Text) Segments() iter.Seq[Segment] {
	return func(yield func(Segment) bool) {
		facets := t.Facets
		byStart := func(a, b appbsky.RichtextFacet) int { return int(a.Index.ByteStart - b.Index.ByteStart) }
		if !slices.IsSortedFunc(facets, byStart) {
			facets = slices.Clone(facets)
			slices.SortStableFunc(facets, byStart)
		}
		last := 0
		for i := range facets {
			start, end, ok := t.bounds(&facets[i])
			if !ok || start < last || len(facets[i].Features) == 0 {
				continue
			}
			if start > last && !yield(Segment{Text: t.Text[last:start]}) {
				return
			}
			if !yield(Segment{Text: t.Text[start:end], Features: facets[i].Features}) {
				return
			}
			last = end
		}
		if last < len(t.Text) {
			yield(Segment{Text: t.Text[last:]})
		}
	}
}
