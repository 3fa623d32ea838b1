// Package lexsite makes documentation of lexicon schemas: pages in HTML and Markdown, and whole static sites.
//
// A page shows what https://atproto.com/specs/lexicon lets a schema say: definitions, fields with their types and constraints in
// words, parameters, errors, permissions, who refers to whom, examples, and the source. [NewPage] makes it once, for all forms;
// the explorer shows [Page.Body] inside a page of its own, and [Site] makes the files of a site that works from any folder, with
// relative links, without a server and without JavaScript.
//
//	page := lexsite.NewPage(lexsite.Entry{Schema: s}, lexsite.Options{Catalog: catalog, Graph: graph, Href: href})
//	body, err := page.Body()
//
//	files, err := lexsite.Site(entries, lexsite.SiteOptions{Title: "Example", Summary: "The schemas of example.com."})
//
// Examples are made from the schema and shown only after they were validated against it. The package fetches nothing, writes
// nothing and lints nothing: its callers hand over schemas and findings, and write the files.
//
// Limits: descriptions are others' texts and shown as such, see package foreign; a page shows at most 500 definitions, 500 fields
// of a table, 40 values of a list and 64 KiB of source, and says what it leaves out. The same input gives the same bytes.
package lexsite
