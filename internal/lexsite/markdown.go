package lexsite

import (
	"fmt"
	"strings"

	"github.com/barograph/baro/internal/foreign"
)

// relink gives the references of the page other addresses.
func (p *Page) relink(href func(ref string) string) {
	set := func(refs []Ref) {
		for i := range refs {
			if refs[i].Href != "" && !strings.HasPrefix(refs[i].Href, "#") {
				refs[i].Href = href(refs[i].Ref)
			}
		}
	}
	typ := func(t *Type) { set(t.Refs); set(t.Values) }
	for _, d := range p.Defs {
		for i := range d.Parts {
			if t := d.Parts[i].Type; t != nil {
				typ(t)
			}
			for j := range d.Parts[i].Rows {
				typ(&d.Parts[i].Rows[j].Type)
			}
		}
		for i := range d.Permissions {
			set(d.Permissions[i].On)
		}
	}
	for _, list := range [][]Neighbour{p.In, p.Out} {
		for i := range list {
			if list[i].Href != "" {
				list[i].Href = href(list[i].NSID)
			}
		}
	}
}

var markdownEscape = strings.NewReplacer(`\`, `\\`, "`", "\\`", "<", "&lt;", ">", "&gt;", "[", `\[`, "]", `\]`, "*", `\*`, "_", `\_`, "|", `\|`, "#", `\#`, "~", `\~`, "!", `\!`, "&", "&amp;")

// md is a text of others as one line of Markdown that is nothing but text.
func md(s string) string {
	return markdownEscape.Replace(foreign.Plain(foreign.Line(s, maxDescription)))
}

// code is a text of others between backticks; what would end them is replaced.
func code(s string) string {
	return "`" + strings.ReplaceAll(foreign.Plain(foreign.Line(s, 1000)), "`", "ˋ") + "`"
}

// cell escapes what would end a cell of a table, in code too.
func cell(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, `\|`, "|"), "|", `\|`) }

func (r Ref) markdown() string {
	if r.Href == "" || strings.HasPrefix(r.Href, "#") {
		return code(r.Text)
	}
	return "[" + md(r.Text) + "](" + r.Href + ")"
}

func (t *Type) markdown() string {
	var parts []string
	if w := t.Prefix + t.Word; w != "" {
		if t.Format != "" {
			w += " (" + t.Format + ")"
		}
		parts = append(parts, md(w))
	}
	refs := make([]string, 0, len(t.Refs))
	for _, r := range t.Refs {
		refs = append(refs, r.markdown())
	}
	if len(refs) > 0 {
		parts = append(parts, strings.Join(refs, ", "))
	}
	out := strings.Join(parts, " ")
	for _, r := range t.Rules {
		out += "; " + md(r)
	}
	if len(t.Values) > 0 {
		word := "such as"
		if t.Closed {
			word = "one of"
		}
		values := make([]string, 0, len(t.Values))
		for _, v := range t.Values {
			values = append(values, code(v.Text))
		}
		out += "; " + word + " " + strings.Join(values, ", ")
	}
	if t.More > 0 {
		out += fmt.Sprintf(" and %d more", t.More)
	}
	return out
}

// Markdown is the page in Markdown, for those who read without a browser.
func (p *Page) Markdown() []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	para := func(text string) {
		if text != "" {
			line("%s\n", md(text))
		}
	}
	line("# %s\n", p.NSID)
	para(p.Description)
	for _, d := range p.Defs {
		line("## %s (%s)\n", md(d.Name), d.Kind)
		para(d.Description)
		for _, f := range d.Facts {
			line("- %s: %s", f.Name, md(f.Text))
		}
		if len(d.Facts) > 0 {
			line("")
		}
		for _, part := range d.Parts {
			part.markdown(line, para)
		}
		if len(d.Errors) > 0 {
			line("### Errors\n")
			for _, e := range d.Errors {
				line("- %s %s", code(e.Name), md(e.Text))
			}
			line("")
		}
		if len(d.Permissions) > 0 {
			line("### Permissions\n")
			for _, x := range d.Permissions {
				on := make([]string, 0, len(x.On))
				for _, r := range x.On {
					on = append(on, r.markdown())
				}
				text := md(x.Resource) + " " + strings.Join(on, ", ")
				if x.More > 0 {
					text += fmt.Sprintf(" and %d more", x.More)
				}
				if x.Terms != "" {
					text += " (" + md(x.Terms) + ")"
				}
				if x.Ignored != "" {
					text += "; ignored: " + md(x.Ignored)
				}
				line("- %s", text)
			}
			line("")
		}
	}
	if p.MoreDefs > 0 {
		line("%d more definitions are left out here; the source has them.\n", p.MoreDefs)
	}
	list := func(title string, of []Neighbour) {
		if len(of) == 0 {
			return
		}
		line("## %s\n", title)
		for _, n := range of[:min(len(of), maxMentions)] {
			line("- %s", Ref{Text: n.NSID, Href: n.Href}.markdown())
		}
		if len(of) > maxMentions {
			line("- and %d more", len(of)-maxMentions)
		}
		line("")
	}
	list("Refers to", p.Out)
	list("Referred to by", p.In)
	if len(p.Findings) > 0 {
		line("## What a linter says\n")
		for _, f := range p.Findings {
			at := ""
			if f.Path != "" {
				at = " at " + code(f.Path)
			}
			line("- %s %s%s: %s", md(f.Level), code(f.Rule), at, md(f.Message))
		}
		line("")
	}
	if p.Files != nil {
		line("[Source](%s)", p.Files.JSON)
	}
	return []byte(b.String())
}

func (p *Part) markdown(line func(string, ...any), para func(string)) {
	encoding := ""
	if p.Encoding != "" {
		encoding = " " + code(p.Encoding)
	}
	line("### %s%s\n", p.Title, encoding)
	para(p.Text)
	if p.Type != nil {
		line("%s\n", p.Type.markdown())
	}
	if len(p.Rows) > 0 {
		line("| name | type and rules | description |\n| --- | --- | --- |")
		for _, r := range p.Rows {
			typ := r.Type.markdown()
			if r.Required {
				typ += "; required"
			}
			if r.Nullable {
				typ += "; nullable"
			}
			if r.Default != "" {
				typ += "; default " + code(r.Default)
			}
			line("| %s | %s | %s |", cell(code(r.Path)), cell(typ), cell(md(r.Description)))
		}
		line("")
		if p.More > 0 {
			line("%d more fields are left out here; the source has them.\n", p.More)
		}
	}
	if p.Example != "" {
		fence := "json"
		if p.Lines {
			fence = "http"
		}
		line("Example:\n\n```%s\n%s\n```\n", fence, foreign.Plain(strings.ReplaceAll(p.Example, "```", "ˋˋˋ")))
	}
}

// llms is the index for language models, in the form of llmstxt.org.
func llms(o SiteOptions, groups []group) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", md(o.Title))
	total := 0
	for _, g := range groups {
		total += len(g.Items)
	}
	summary := o.Summary
	if summary == "" {
		summary = fmt.Sprintf("Documentation of %d lexicon schemas of the AT Protocol.", total)
	}
	fmt.Fprintf(&b, "> %s\n\nEach schema has a page in Markdown (linked here), in HTML (.html) and its source (.json).\n", md(summary))
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n", g.Name)
		for _, i := range g.Items {
			kind := i.Kind
			if kind == "" {
				kind = "definitions"
			}
			fmt.Fprintf(&b, "- [%s](%s.md): %s", i.NSID, path(i.NSID), kind)
			if i.Line != "" {
				fmt.Fprintf(&b, ". %s", md(i.Line))
			}
			b.WriteByte('\n')
		}
	}
	return []byte(b.String())
}
