package explorer

import (
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/barograph/baro/internal/foreign"
)

// What pages are made of. Everything else in a page came from the network and got through.
var (
	tags = set(`html head meta title link script noscript body a header div svg circle path span nav form label input kbd button main footer p
		section strong h1 h2 h3 dl dt dd ol ul li time bdi em b img figure figcaption g rect text table thead tbody tr th td details summary pre
		blockquote datalist option article wbr caption code`)
	attributes = set(`lang charset name content rel href type title defer src class id aria-label aria-current aria-hidden aria-labelledby viewbox width
		height cx cy r d action role for value placeholder autocomplete autocapitalize spellcheck maxlength tabindex datetime alt loading decoding
		x y text-anchor data-live data-max data-last data-rate data-state data-state-text data-pause data-chart data-line data-area data-half
		data-pen data-empty preserveaspectratio hidden scope open list http-equiv`)
	tagRE  = regexp.MustCompile(`<(/?)([^\s>/]*)([^>]*)>`)
	attrRE = regexp.MustCompile(`\s+([^\s=>/]+)(?:="([^"]*)")?`)
)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// checkHTML checks that a page holds nothing but our own markup: known tags and attributes, addresses of this site or http(s),
// no inline style or script, and no character that can't be seen.
func checkHTML(t *testing.T, name, page string) {
	t.Helper()
	rest := tagRE.ReplaceAllStringFunc(page, func(tag string) string {
		m := tagRE.FindStringSubmatch(tag)
		el := strings.ToLower(m[2])
		if el == "!doctype" {
			return ""
		}
		if !tags[el] {
			t.Errorf("%s: the tag %.200q is not ours", name, tag)
		}
		left := attrRE.ReplaceAllStringFunc(m[3], func(a string) string {
			at := attrRE.FindStringSubmatch(a)
			key, value := strings.ToLower(at[1]), html.UnescapeString(at[2])
			if !attributes[key] {
				t.Errorf("%s: the attribute %.200q of %.200q is not ours", name, key, tag)
			}
			switch key {
			case "href", "src", "action", "data-live":
				if !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "#") && !strings.HasPrefix(value, "https://") && !strings.HasPrefix(value, "http://") {
					t.Errorf("%s: the address %.200q", name, value)
				}
				if strings.HasPrefix(value, "//") || key != "href" && !strings.HasPrefix(value, "/") {
					t.Errorf("%s: %s=%.200q leads outside", name, key, value)
				}
				if strings.Contains(value, "ZgotmplZ") {
					t.Errorf("%s: an address that the template refused in %.200q", name, tag)
				}
			}
			if el == "a" && key == "href" && strings.HasPrefix(value, "http") && !strings.Contains(tag, `rel="noopener noreferrer nofollow ugc"`) {
				t.Errorf("%s: %.200q leads outside without a rel", name, tag)
			}
			return ""
		})
		if strings.Trim(left, " /\n") != "" {
			t.Errorf("%s: %.200q is left of the tag %.200q", name, left, tag)
		}
		return ""
	})
	if strings.ContainsAny(rest, "<>") {
		i := strings.IndexAny(rest, "<>")
		t.Errorf("%s: an unescaped %.100q", name, rest[i:])
	}
	if strings.Contains(page, "<script") && strings.Count(page, "<script") != strings.Count(page, `" defer></script>`) {
		t.Errorf("%s: an inline script", name)
	}
	var prev rune
	for i, r := range page {
		if foreign.Unseen(r) && !foreign.Joins(r, prev, page[i+len(string(r)):]) {
			t.Errorf("%s: the character %U as itself", name, r)
			break
		}
		prev = r
	}
}

func checkHeaders(t *testing.T, name string, h http.Header) {
	t.Helper()
	csp := h.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("%s: the policy %q lacks %q", name, csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "http") {
		t.Errorf("%s: the policy %q is loose", name, csp)
	}
	for key, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "X-Frame-Options": "DENY",
	} {
		if got := h.Get(key); got != want {
			t.Errorf("%s: %s is %q, want %q", name, key, got, want)
		}
	}
	if h.Get("Set-Cookie") != "" || h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%s: a cookie, or open to other origins", name)
	}
}
