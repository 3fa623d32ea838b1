// Package richtext makes, finds, edits and cuts up text with facets: mentions, links and tags, as posts of app.bsky have
// them (https://atproto.com/lexicons/app-bsky-richtext and https://docs.bsky.app/docs/advanced-guides/post-richtext).
//
// A [Text] is a string and the facets over it. A facet covers a range of bytes of the UTF-8 text, end exclusive; facets are
// sorted and don't overlap. There are three ways to make one:
//
//	var b richtext.Builder                                        // say what is what
//	b.Text("hello ").Mention("@alice.test", did).Text("!")
//	text := b.Build()
//
//	text, err := richtext.Resolve(ctx, "hi @alice.test", resolve) // find what is there, as posting apps do
//
//	text := richtext.Markdown("see [the site](https://a.test/)")  // links with a label
//
// The package asks no network: who wants mentions found gives a function that resolves handles. It renders nothing either:
// [Text.Segments] is what a renderer walks.
//
// Which domains count as links without a scheme, and which names as mentions, is decided by the top-level domains in
// golang.org/x/net/publicsuffix; a newer version of that module knows newer domains.
//
// Limits: texts of any length, in time that grows with it; a tag of [MaxTagGraphemes]; whether a text fits a post says
// [Text.FitsPost]. The API is settling.
package richtext
