package lexsite

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/lexicon"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets/paper.css
var paper string

//go:embed assets/schema.css
var schemaCSS string

//go:embed assets/site.css
var siteCSS string

//go:embed assets/filter.js
var filterJS []byte

// Paper is the style sheet that all pages start from: colours, light and dark, type, cards, tables, focus.
func Paper() string { return paper }

// Style is the style sheet of what [Page.Body] makes. It stands on [Paper].
func Style() string { return schemaCSS }

// wireStep is the height of a line of the graph in rem, as the style sheet has it.
const wireStep = 1.75

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"html":       foreign.HTML,
	"plain":      foreign.Plain,
	"name":       name,
	"size":       size,
	"kindClass":  kindClass,
	"levelClass": levelClass,
	"cut":        func(l []Neighbour) []Neighbour { return l[:min(len(l), maxNeighbours)] },
	"left":       func(l []Neighbour) int { return max(0, len(l)-maxNeighbours) },
	"wires":      wires,
}).ParseFS(templateFiles, "templates/*.html"))

// Body is the page as the inside of an HTML main element, with a heading of the first level.
func (p *Page) Body() (template.HTML, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, "schema", p); err != nil {
		return "", fmt.Errorf("making the page of %s: %w", p.NSID, err)
	}
	return template.HTML(b.String()), nil // of html/template
}

func size(n int) string {
	if n < 1000 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1000)
}

// kindClass is the class of a kind of schema: of our own words only.
func kindClass(kind string) string {
	switch lexicon.Type(kind) {
	case lexicon.TypeRecord, lexicon.TypeQuery, lexicon.TypeProcedure, lexicon.TypeSubscription, lexicon.TypePermissionSet:
		return kind
	}
	return "def"
}

func levelClass(level string) string {
	switch level {
	case "error":
		return "bad"
	case "warn":
		return "warn"
	}
	return "note"
}

// wires draws the lines between a list of neighbours and the schema in the middle. The lists are lines of equal height, so that
// their places are known here.
func wires(list []Neighbour, in bool) template.HTML {
	n := min(len(list), maxNeighbours)
	if n == 0 {
		return `<svg class="wires none" aria-hidden="true"></svg>`
	}
	lines := n
	if len(list) > n {
		lines++
	}
	h := float64(lines) * 100
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="wires" viewBox="0 0 100 %g" height="%grem" preserveAspectRatio="none" aria-hidden="true">`, h, float64(lines)*wireStep)
	for i := range lines {
		from, to := float64(i)*100+50, h/2
		if !in {
			from, to = to, from
		}
		fmt.Fprintf(&b, `<path d="M0 %gC50 %g 50 %g 100 %g"/>`, from, from, to, to)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) // numbers only
}

// File is a file of a site: a path with slashes, and what it holds.
type File struct {
	Path    string
	Content []byte
}

// SiteOptions say what a site is called.
type SiteOptions struct {
	Title   string // default "Lexicons"
	Summary string // one sentence
	// Catalog finds the schemas that those of the site refer to, for examples; nil: only those of the site are known.
	Catalog *lexicon.Catalog
}

// CollisionError says that two schemas would have the same file where upper and lower case are the same.
type CollisionError struct{ A, B string }

// Error names both.
func (e *CollisionError) Error() string {
	return fmt.Sprintf("%s and %s differ only in case, so they can't have files of their own everywhere", e.A, e.B)
}

// item is a line of the index.
type item struct{ NSID, Name, Kind, Line, Href string }

// group is a part of the index.
type group struct {
	Name, Anchor string
	Items        []item
}

// sitePage is what the layout is given.
type sitePage struct {
	Title, Summary string
	Root           string // "../" for every folder that the page is below
	Count          int
	Page           *Page
	GroupAnchor    string
	Groups         []group
}

// Site makes all files of a static site, sorted by path: index.html, llms.txt, assets, and for each schema a page, the page in
// Markdown and its source. Links are relative. The same schemas give the same bytes.
func Site(entries []Entry, o SiteOptions) ([]File, error) {
	o.Title = cmp.Or(o.Title, "Lexicons")
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Schema.ID, b.Schema.ID) })
	here, folded := map[string]*lexicon.Schema{}, map[string]string{}
	var all []*lexicon.Schema
	for _, e := range entries {
		id := string(e.Schema.ID)
		if other, ok := folded[strings.ToLower(id)]; ok {
			return nil, &CollisionError{other, id}
		}
		here[id], folded[strings.ToLower(id)] = e.Schema, id
		all = append(all, e.Schema)
	}
	if o.Catalog == nil {
		o.Catalog = lexicon.NewCatalog()
		for _, s := range all {
			o.Catalog.Add(s)
		}
	}
	graph := lexicon.NewGraph(all...)
	hrefs := func(root, ext string) func(string) string {
		return func(ref string) string {
			id, def, ok := strings.Cut(ref, "#")
			s := here[id]
			if s == nil {
				return ""
			}
			href := root + path(id) + ext
			if ok && ext == ".html" && Shown(s, def) {
				href += "#" + Anchor(def)
			}
			return href
		}
	}
	files := []File{
		{"assets/style.css", []byte(paper + schemaCSS + siteCSS)},
		{"assets/filter.js", filterJS},
	}
	var groups []group
	for _, e := range entries {
		id := string(e.Schema.ID)
		root := strings.Repeat("../", strings.Count(id, "."))
		last := path(id)[strings.LastIndexByte(path(id), '/')+1:]
		opt := Options{Catalog: o.Catalog, Graph: graph, Href: hrefs(root, ".html"), Files: &Files{last + ".json", last + ".md"}}
		page := NewPage(e, opt)
		sp := sitePage{Title: o.Title, Summary: foreign.Line(page.Description, 200), Root: root, Count: len(entries), Page: page, GroupAnchor: "group-" + page.Group}
		html, err := execute(sp)
		if err != nil {
			return nil, err
		}
		source := e.JSON
		if source == nil {
			if source, err = indented(e.Schema.Raw); err != nil {
				return nil, fmt.Errorf("writing the schema %s: %w", id, err)
			}
			source = append(source, '\n')
		}
		page.relink(hrefs(root, ".md"))
		files = append(files, File{path(id) + ".html", html}, File{path(id) + ".md", page.Markdown()}, File{path(id) + ".json", source})
		if n := len(groups); n == 0 || groups[n-1].Name != page.Group {
			groups = append(groups, group{Name: page.Group, Anchor: "group-" + page.Group})
		}
		g := &groups[len(groups)-1]
		line := page.Description
		if line == "" && len(page.Defs) > 0 {
			line = page.Defs[0].Description
			if d := e.Schema.Main(); line == "" && d != nil {
				line = d.Title
			}
		}
		g.Items = append(g.Items, item{id, page.Name, page.Kind, foreign.Line(line, 200), path(id) + ".html"})
	}
	// Groups can be apart in the order of the names: com.example.a, com.example.a.b, com.example.c.
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(a.Name, b.Name) })
	merged := groups[:0]
	for _, g := range groups {
		if n := len(merged); n > 0 && merged[n-1].Name == g.Name {
			merged[n-1].Items = append(merged[n-1].Items, g.Items...)
			continue
		}
		merged = append(merged, g)
	}
	html, err := execute(sitePage{Title: o.Title, Summary: o.Summary, Count: len(entries), Groups: merged})
	if err != nil {
		return nil, err
	}
	files = append(files, File{"index.html", html}, File{"llms.txt", llms(o, merged)})
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

func execute(p sitePage) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, "page", p); err != nil {
		return nil, fmt.Errorf("making a page of the site: %w", err)
	}
	return b.Bytes(), nil
}

// path is where the files of a schema are, without their ending. NSIDs hold nothing but letters, digits, hyphens and dots.
func path(id string) string { return strings.ReplaceAll(id, ".", "/") }
