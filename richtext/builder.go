package richtext

import (
	"strings"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/syntax"
)

// Builder puts a text together piece by piece; the facets come out sorted and right. The zero value is ready.
type Builder struct {
	text   strings.Builder
	facets []appbsky.RichtextFacet
}

// Text adds plain text.
func (b *Builder) Text(s string) *Builder {
	b.text.WriteString(s)
	return b
}

// Mention adds a text that mentions an account, usually "@" and its handle.
func (b *Builder) Mention(s string, did syntax.DID) *Builder {
	return b.Facet(s, &appbsky.RichtextFacet_Mention{Did: string(did)})
}

// Link adds a text that leads to an address.
func (b *Builder) Link(s, uri string) *Builder {
	return b.Facet(s, &appbsky.RichtextFacet_Link{Uri: uri})
}

// Tag adds a text that is a tag: s is what is shown, usually "#" and the tag.
func (b *Builder) Tag(s, tag string) *Builder {
	return b.Facet(s, &appbsky.RichtextFacet_Tag{Tag: tag})
}

// Facet adds a text with any features: those of app.bsky.richtext.facet or an app's own. An empty text adds nothing.
func (b *Builder) Facet(s string, features ...interface{ LexType() string }) *Builder {
	if s == "" {
		return b
	}
	start := b.text.Len()
	b.text.WriteString(s)
	f := facet(start, b.text.Len())
	for _, v := range features {
		f.Features = append(f.Features, appbsky.RichtextFacet_Features_Elem{Value: v})
	}
	b.facets = append(b.facets, f)
	return b
}

// Len is the number of bytes added so far.
func (b *Builder) Len() int { return b.text.Len() }

// Build returns what was added.
func (b *Builder) Build() Text {
	return Text{Text: b.text.String(), Facets: append([]appbsky.RichtextFacet(nil), b.facets...)}
}
