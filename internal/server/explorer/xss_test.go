package explorer

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

func newKey(t *testing.T) *keys.PrivateKey {
	t.Helper()
	k, err := keys.Generate(keys.P256, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rotate adds an operation that names another signing key.
func (a *fakeAccount) rotate(t *testing.T, signing string) {
	t.Helper()
	d := a.data.Clone()
	d.SetSigningKey(signing)
	op := plc.NewOperation(d, a.entries[len(a.entries)-1].CID)
	if err := op.Sign(a.key); err != nil {
		t.Fatal(err)
	}
	e := plc.Entry{DID: a.entries[0].DID, Operation: op, CID: op.CID(), CreatedAt: a.entries[0].CreatedAt.Add(time.Minute)}
	a.entries, a.data = append(a.entries, e), d
}

// corpus is what records and servers say to make a page do something.
var corpus = []string{
	`<script>alert(1)</script>`, `</script><script>alert(1)</script>`, `<img src=x onerror=alert(1)>`, `"><svg/onload=alert(1)>`, `'"><iframe src="javascript:alert(1)">`,
	`" onmouseover="alert(1)" x="`, `' onfocus='alert(1)' autofocus='`, "`onclick=alert(1)`", `javascript:alert(1)`, `JaVaScRiPt:alert(1)`, " javascript:alert(1)",
	"java\tscript:alert(1)", "\x01javascript:alert(1)", `data:text/html,<script>alert(1)</script>`, `vbscript:msgbox(1)`, `https://x.example/"onmouseover="alert(1)`,
	`https://user:pass@evil.example/`, "https://evil.example/\u202egpj.exe", `https://evil.example\@good.example/`, `http://[::1`, `//evil.example/x`, `https:evil.example`,
	`at://javascript:alert(1)`, `at://did:plc:x/<script>/y`, `did:plc:"><script>`, `{{.}}`, `{{define "main"}}x{{end}}`, `<!--`, `-->`, `]]>`, `&lt;script&gt;`, `&#x3c;script>`,
	"\u202eevil\u202c", "a\u200bb", "\u2066x\u2069", "zero\u200dwidth", "\ufeffbom", "soft\u00adhyphen", "line\u2028sep", "nul\x00byte", "esc\x1b[31m", "tag\U000e0041s", "fill\u3164er",
	"z" + strings.Repeat("\u0301", 50), `<style>*{display:none}</style>`, `<base href="https://evil.example/">`, `<meta http-equiv=refresh content=0;url=//evil>`, `<form action=//evil>`,
	`<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>`, `</title><script>alert(1)</script>`, `</textarea><script>`, `<a href="javascript:alert(1)">x</a>`, `%3Cscript%3E`,
	`x" style="background:url(//evil)`, `<bdi>`, `</bdi></span></p></section><script>`, `<xss id=x tabindex=1 onfocus=alert(1)>`, `\u003cscript\u003e`, `+ADw-script+AD4-`,
}

// TestHostile puts the corpus everywhere that others can write, and holds every page against the list of what pages are made of.
func TestHostile(t *testing.T) {
	n := newNetwork(t)
	alice := n.account("alice.test", "https://x.example/<script>", `at://"><script>alert(1)</script>`)
	evil := n.account("evil.test")
	q := func(s string) string { b, _ := json.Marshal(s); return string(b) }

	var fields, items, blobs []string
	for i, c := range corpus {
		fields = append(fields, q(fmt.Sprintf("k%d ", i)+c)+":"+q(c))
		items = append(items, `{"$type":`+q(c)+`,"uri":`+q(c)+`,"cid":`+q(c)+`,"alt":`+q(c)+`}`)
		if i%8 == 0 {
			blobs = append(blobs, fmt.Sprintf(`{"alt":%s,"image":{"$type":"blob","ref":{"$link":%q},"mimeType":%s,"size":12}}`, q(c), n.blob(evil, []byte(c)), q("image/svg+xml"+c)))
			blobs = append(blobs, fmt.Sprintf(`{"alt":%s,"image":{"$type":"blob","ref":{"$link":%q},"mimeType":"image/svg+xml","size":12}}`, q(c), n.blob(evil, []byte("<svg>"+c))))
		}
	}
	n.put(evil, "com.example.evil/all", `{"$type":"com.example.evil",`+strings.Join(fields, ",")+`,"items":[`+strings.Join(items, ",")+`],"blobs":[`+strings.Join(blobs, ",")+`]}`)
	for i, c := range corpus {
		n.put(evil, fmt.Sprintf("app.bsky.feed.post/p%d", i), note(c))
		n.link("at://"+evil.did+"/com.example.evil/all", "com.example.evil", c, c)
		n.link(evil.did, c, c, c)
		n.drops[c] = uint64(i)
	}
	n.put(alice, post, note("hello"))
	s := n.explorer()
	n.run(s)
	await(t, func() bool { return s.tail.status().Seq == n.log.Head() })

	avatar := n.blob(evil, png)
	for i, c := range corpus {
		if testing.Short() && i%6 != 0 {
			continue
		}
		n.mu.Lock()
		n.host, n.errText = c, c
		n.accounts[evil.did].data.AlsoKnownAs = []string{"at://" + c}
		evil.records[profilePath] = cborOf([]byte(`{"$type":"app.bsky.actor.profile","displayName":` + q(c) + `,"description":` + q(c) + `,"avatar":{"$type":"blob","ref":{"$link":"` + avatar + `"},"mimeType":"image/png","size":3}}`))
		n.mu.Unlock()
		s.profiles.drop(evil.did)
		s.names.drop(evil.did)
		s.dir.Purge(syntax.DID(evil.did))
		paths := []string{
			"/", "/accounts", "/?x=" + url.QueryEscape(c), "/search?q=" + url.QueryEscape(c), "/live?collection=" + url.QueryEscape(c), "/live?did=" + url.QueryEscape(c),
			"/accounts?cursor=" + url.QueryEscape(c), "/links?subject=" + url.QueryEscape(c) + "&source=" + url.QueryEscape("com.example.evil:"+c),
			"/lexicon/" + url.PathEscape(c), "/at/" + url.PathEscape(c), "/at/evil.test/" + url.PathEscape(c), "/at/" + evil.did + "/app.bsky.feed.post/" + url.PathEscape(c),
			"/blob/" + url.PathEscape(c) + "/" + url.PathEscape(c), "/" + url.PathEscape(c), fmt.Sprintf("/at/%s/app.bsky.feed.post/p%d", evil.did, i),
			"/at/" + evil.did + "/com.example.none/x", "/at/" + evil.did + "?x=" + url.QueryEscape(c),
		}
		for _, p := range paths {
			resp := get(t, s, p)
			b, _ := io.ReadAll(resp.Body)
			if loc := resp.Header.Get("Location"); loc != "" && (!strings.HasPrefix(loc, "/") || strings.HasPrefix(loc, "//") || strings.HasPrefix(loc, `/\`)) {
				t.Errorf("%q leads to %q", p, loc)
			}
			if resp.StatusCode == 500 {
				t.Errorf("%q: %s", p, b)
			}
			if resp.StatusCode/100 != 3 {
				checkHTML(t, p, string(b))
				checkHeaders(t, p, resp.Header)
			}
			resp = get(t, s, p, "Accept", "application/json")
			if b, _ = io.ReadAll(resp.Body); resp.StatusCode/100 != 3 && !json.Valid(b) {
				t.Errorf("%q: no JSON: %s", p, b)
			}
		}
	}
	for _, p := range []string{"/", "/live", "/accounts", "/at/" + evil.did, "/at/" + evil.did + "/com.example.evil", "/at/" + evil.did + "/app.bsky.feed.post", "/at/" + alice.did} {
		page(t, s, p, 200)
	}
	html := page(t, s, "/at/"+evil.did+"/com.example.evil/all", 200)
	contains(t, html, "&lt;script&gt;alert(1)&lt;/script&gt;", `<span class="ctl" title="a character that can’t be seen">U+202E</span>`, "U+200B", ">Verified<")
	if strings.Contains(html, `href="https://user:pass@evil.example`) || strings.Contains(html, `href="https://evil.example`) {
		t.Error("an address that looks like another is a link")
	}
}

func TestTextHref(t *testing.T) {
	did := "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	for in, want := range map[string]string{
		"at://" + did + "/" + post:                   "/at/" + did + "/" + post,
		"at://" + did + "/app.bsky.feed.post/a.json": "/at/" + did + "/app.bsky.feed.post/a.json?format=html",
		did:                           "/at/" + did,
		"https://example.com/a?b=c#d": "https://example.com/a?b=c#d",
		"http://example.com":          "http://example.com",
		"https://example.com/ü":       "https://example.com/%C3%BC",
		"https://a b":                 "",
		"javascript:alert(1)":         "",
		"https://u@example.com":       "",
		"https://":                    "",
		"https:///x":                  "",
		"HTTPS://example.com":         "",
		"at://x":                      "",
		"https://" + strings.Repeat("a", 3000) + ".com": "",
	} {
		if got, _ := textHref(in); got != want {
			t.Errorf("%.100q leads to %q, want %q", in, got, want)
		}
	}
}

func FuzzHostile(f *testing.F) {
	for _, c := range corpus {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkHTML(t, "text", string(foreign.HTML(s)))
		checkHTML(t, "line", string(foreign.HTML(foreign.Line(s, 40))))
		checkHTML(t, "segments", string(foreign.SegmentsHTML(foreign.Segments(s))))
		if href, outside := textHref(s); href != "" && strings.HasPrefix(href, "/") == outside {
			t.Errorf("%q leads to %q", s, href)
		}
	})
}

func FuzzTree(f *testing.F) {
	n := `{"$type":"com.example.evil","uri":"https://x.example","list":[1,true,null,{"$bytes":"AAA"}]}`
	f.Add([]byte(n))
	f.Add([]byte(`{"$type":"blob","ref":{"$link":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},"mimeType":"image/png","size":3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, raw := range [][]byte{b, cborOf(b)} {
			if node, err := tree(raw, "did:plc:x"); err == nil {
				countNodes(t, node, 0)
			}
			preview(raw)
			lede(raw)
			rawJSON(raw)
			blobViews(raw, "did:plc:x")
		}
	})
}

func countNodes(t *testing.T, n *Node, depth int) int {
	total := 1
	for _, c := range n.Children {
		total += countNodes(t, c, depth+1)
	}
	if total > maxNodes+64 {
		t.Errorf("a tree of %d nodes", total)
	}
	return total
}

func FuzzTarget(f *testing.F) {
	for _, c := range corpus {
		f.Add(c)
	}
	f.Add("https://bsky.app/profile/alice.test/post/3l6oveex3ii2l")
	f.Add("at://alice.test/app.bsky.feed.post/3l6oveex3ii2l")
	s := &Service{tail: newTail(time.Now), catalog: emptyCatalog}
	f.Fuzz(func(t *testing.T, q string) {
		if to := s.target(q); to != "" {
			u, err := url.Parse(to)
			if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(to, "/at/") && !strings.HasPrefix(to, "/lexicon/") {
				t.Errorf("%q leads to %q", q, to)
			}
		}
	})
}

func cborOf(json []byte) []byte {
	b, err := data.AppendCBOR(nil, json)
	if err != nil {
		return nil
	}
	return b
}

var emptyCatalog = sync.OnceValue(lexicon.NewCatalog)
