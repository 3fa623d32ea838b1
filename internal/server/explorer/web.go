package explorer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/internal/lexsite"
	"github.com/barograph/baro/syntax"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// policy is the content security policy of every page. There is no inline style or script anywhere.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// Notice says what is missing on a page, and why.
type Notice struct {
	About string `json:"about"` // "the relay"
	Text  string `json:"text"`
}

// View is what a handler makes: the data of a page. Its JSON twin is Data.
type View struct {
	Title  string
	Nav    string // which entry of the navigation this page belongs to
	Name   string // of the template
	Status int    // 0: 200
	Data   any

	Refresh int // seconds after which a browser without scripts loads the page again; 0: never
	Query   string
	URI     string // at-uri of what the page is about
}

// shell is what the layout is given.
type shell struct {
	View
	Twin    string // address of the JSON twin
	Here    string
	Version string
	Assets  map[string]string
}

// pageError is an answer that is no page of content.
type pageError struct {
	Status int
	Name   string // in JSON
	Title  string
	Text   string
	Hint   string
}

func (e *pageError) Error() string { return e.Text }

func notFound(title, text, hint string) *pageError {
	return &pageError{http.StatusNotFound, "NotFound", title, text, hint}
}

func badRequest(text, hint string) *pageError {
	return &pageError{http.StatusBadRequest, "InvalidRequest", "That is no address of anything here", text, hint}
}

// redirect is returned by a handler in place of a page.
type redirect struct{ to string }

func (r *redirect) Error() string { return "see " + r.to }

// pages holds the templates and assets.
type pages struct {
	byName map[string]*template.Template
	assets map[string]asset
	names  map[string]string // with the hash of their content, so that browsers may keep them
}

type asset struct {
	body []byte
	typ  string
	tag  string
}

func newPages(s *Service) (*pages, error) {
	p := &pages{byName: map[string]*template.Template{}, assets: map[string]asset{}, names: map[string]string{}}
	funcs := template.FuncMap{
		"hostile":    foreign.HTML,
		"plain":      foreign.Plain,
		"line":       func(max int, v string) string { return foreign.Line(v, max) },
		"short":      short,
		"bytes":      bytesText,
		"num":        func(v any) string { return thousands(asInt(v)) },
		"segments":   foreign.SegmentsHTML,
		"when":       s.when,
		"at":         accountHref,
		"lexicon":    lexiconHref,
		"bytes64":    func(n int) string { return bytesText(int64(n)) },
		"clock":      clockText,
		"collection": collectionHref,
		"after":      func(prefix, v string) string { return strings.TrimPrefix(strings.TrimPrefix(v, prefix), ".") },
		"host":       func(v string) string { return strings.TrimPrefix(strings.TrimPrefix(v, "https://"), "http://") },
		"chart":      func(class string, c Chart, span, from string) chartArgs { return chartArgs{class, c, span, from} },
		"refresh":    refreshHTML,
		"plural": func(v any, one, many string) string {
			if asInt(v) == 1 {
				return one
			}
			return many
		},
		"liveHref": liveHref,
	}
	base, err := template.New("layout.html").Funcs(funcs).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("reading the templates: %w", err)
	}
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("reading the templates: %w", err)
	}
	for _, name := range names {
		short := strings.TrimSuffix(path.Base(name), ".html")
		if short == "layout" || short == "parts" {
			continue
		}
		t, err := template.Must(base.Clone()).ParseFS(templateFiles, name)
		if err != nil {
			return nil, fmt.Errorf("reading the template %s: %w", short, err)
		}
		p.byName[short] = t
	}
	entries, err := assetFiles.ReadDir("assets")
	if err != nil {
		return nil, fmt.Errorf("reading the assets: %w", err)
	}
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	for _, e := range entries {
		b, err := assetFiles.ReadFile("assets/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading the assets: %w", err)
		}
		if e.Name() == "style.css" {
			b = slices.Concat([]byte(lexsite.Paper()), b, []byte(lexsite.Style()))
		}
		sum := sha256.Sum256(b)
		tag := hex.EncodeToString(sum[:6])
		p.assets[e.Name()] = asset{b, types[path.Ext(e.Name())], tag}
		p.names[strings.TrimSuffix(e.Name(), path.Ext(e.Name()))] = "/assets/" + e.Name() + "?v=" + tag
	}
	return p, nil
}

type chartArgs struct {
	Class string
	Chart Chart
	Span  string
	From  string
}

// clockText is the time of day of an event.
func clockText(v string) string {
	if len(v) < 19 {
		return ""
	}
	return v[11:19]
}

// refreshHTML makes browsers without scripts load a page again.
func refreshHTML(seconds int) template.HTML {
	if seconds == 0 {
		return ""
	}
	return template.HTML(fmt.Sprintf("<noscript><meta http-equiv=\"refresh\" content=\"%d\"></noscript>\n", seconds))
}

func asInt(v any) int64 {
	switch v := v.(type) {
	case int:
		return int64(v)
	case int64:
		return v
	case uint64:
		return int64(v)
	case *int64:
		if v != nil {
			return *v
		}
	}
	return 0
}

// when shows a time, given as in a record or as a TID's.
func (s *Service) when(v any) template.HTML {
	var t time.Time
	switch v := v.(type) {
	case time.Time:
		t = v
	case string:
		var ok bool
		if t, ok = syntax.LenientTime(v); !ok {
			return foreign.HTML(foreign.Line(v, 40))
		}
	}
	if t.IsZero() {
		return ""
	}
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`,
		t.Format(time.RFC3339), t.Format("2 January 2006, 15:04:05 MST"), ago(s.w.Clock.Now(), t)))
}

func liveHref(collection, did string) string {
	q := url.Values{}
	if collection != "" {
		q.Set("collection", collection)
	}
	if did != "" {
		q.Set("did", did)
	}
	if len(q) == 0 {
		return "/live"
	}
	return "/live?" + q.Encode()
}

func queryEscape(s string) string { return url.QueryEscape(s) }

func secure(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Robots-Tag", "noindex")
}

// handler is what makes a page.
type handler func(ctx context.Context, r *http.Request) (*View, error)

// page makes an HTTP handler: limits, the choice between HTML and JSON, errors.
func (s *Service) page(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.RawQuery) > 8<<10 || len(r.URL.Path) > 4<<10 {
			s.fail(w, r, badRequest("The address is too long.", ""))
			return
		}
		select {
		case s.busy <- struct{}{}:
			defer func() { <-s.busy }()
		default:
			w.Header().Set("Retry-After", "2")
			s.fail(w, r, errBusy)
			return
		}
		s.served.Add(1)
		ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
		defer cancel()
		v, err := h(ctx, r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.write(w, r, v)
	}
}

// wantsJSON reports whether the JSON twin is asked for.
func wantsJSON(r *http.Request) bool {
	switch r.URL.Query().Get("format") {
	case "json":
		return true
	case "html":
		return false
	}
	if strings.HasSuffix(r.URL.Path, ".json") {
		return true
	}
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

// bare returns a segment of the path without the .json that asks for the twin.
func bare(r *http.Request, name string) string {
	v := r.PathValue(name)
	if r.URL.Query().Get("format") != "html" && strings.HasSuffix(r.URL.Path, v) {
		v = strings.TrimSuffix(v, ".json")
	}
	return v
}

func (s *Service) write(w http.ResponseWriter, r *http.Request, v *View) {
	status := v.Status
	if status == 0 {
		status = http.StatusOK
	}
	h := w.Header()
	secure(h)
	h.Set("Vary", "Accept")
	h.Set("Cache-Control", "no-cache")
	var b bytes.Buffer
	if wantsJSON(r) {
		enc := json.NewEncoder(&b)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v.Data); err != nil {
			s.log.Error("encoding a page", "page", v.Name, "err", err)
			http.Error(w, `{"error":"InternalServerError"}`, http.StatusInternalServerError)
			return
		}
		h.Set("Content-Type", "application/json; charset=utf-8")
	} else {
		q := r.URL.Query()
		q.Set("format", "json")
		here := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath}
		sh := shell{View: *v, Twin: here.EscapedPath() + "?" + q.Encode(), Here: here.EscapedPath(), Version: s.cfg.Version, Assets: s.pages.names}
		if sh.Query == "" {
			sh.Query = v.URI
		}
		if err := s.pages.byName[v.Name].Execute(&b, sh); err != nil {
			s.log.Error("making a page", "page", v.Name, "err", err)
			http.Error(w, "This page could not be made.", http.StatusInternalServerError)
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b.Bytes()) // the client may have gone
	}
}

// ErrorPage is the data of an error page.
type ErrorPage struct {
	Error   string `json:"error"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Status  int    `json:"status"`
	Title   string `json:"-"`
}

func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	var to *redirect
	if errors.As(err, &to) {
		secure(w.Header())
		target := to.to
		if wantsJSON(r) && r.URL.Query().Get("format") == "json" {
			sep := "?"
			if strings.Contains(target, "?") {
				sep = "&"
			}
			target += sep + "format=json"
		}
		http.Redirect(w, r, target, http.StatusSeeOther)
		return
	}
	var e *pageError
	switch {
	case errors.As(err, &e):
	case errors.Is(err, errBusy):
		e = &pageError{http.StatusServiceUnavailable, "NotEnoughResources", "Too many visitors at once", "The explorer is making as many pages as it can.", "Try again in a moment."}
	default:
		s.log.Error("making a page", "path", foreign.Line(r.URL.Path, 200), "err", err)
		e = &pageError{http.StatusInternalServerError, "InternalServerError", "Something went wrong here", "The explorer made a mistake. It is written down in its log.", ""}
	}
	s.write(w, r, &View{
		Title: e.Title, Name: "error", Status: e.Status, Query: r.URL.Query().Get("q"),
		Data: &ErrorPage{e.Name, e.Text, e.Hint, e.Status, e.Title},
	})
}

func (s *Service) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := s.pages.assets[r.PathValue("name")]
	if !ok {
		s.fail(w, r, notFound("Nothing is here", "There is no such file.", ""))
		return
	}
	h := w.Header()
	secure(h)
	h.Set("Content-Type", a.typ)
	h.Set("ETag", `"`+a.tag+`"`)
	h.Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == a.tag {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
}

// Handler serves the pages.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	get := func(pattern string, h handler) { mux.HandleFunc("GET "+pattern, s.page(h)) }
	get("/{$}", s.home)
	get("/index.json", s.home)
	get("/live", s.live)
	get("/live.json", s.live)
	get("/accounts", s.accounts)
	get("/accounts.json", s.accounts)
	get("/links", s.links)
	get("/links.json", s.links)
	get("/search", s.search)
	get("/lexicon/{nsid}", s.lexicon)
	get("/at/{id}", s.account)
	get("/at/{id}/{collection}", s.collection)
	get("/at/{id}/{collection}/{rkey}", s.record)
	mux.HandleFunc("GET /live/events", s.liveEvents)
	mux.HandleFunc("GET /blob/{did}/{cid}", s.blob)
	mux.HandleFunc("GET /assets/{name}", s.asset)
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		http.Redirect(w, r, s.pages.names["mark"], http.StatusMovedPermanently)
	})
	mux.HandleFunc("GET /robots.txt", func(w http.ResponseWriter, _ *http.Request) {
		secure(w.Header())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("User-agent: *\nDisallow: /\n"))
	})
	mux.HandleFunc("GET /_health", s.health)
	mux.HandleFunc("GET /xrpc/_health", s.health)
	mux.HandleFunc("GET /_status", s.status)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			s.fail(w, r, &pageError{http.StatusMethodNotAllowed, "InvalidRequest", "This site is for reading", "The explorer changes nothing, and takes no " + foreign.Line(foreign.Plain(r.Method), 20) + " requests.", ""})
			return
		}
		// https://explorer/at://did/collection/rkey is how people paste addresses.
		if i := strings.Index(r.URL.Path, "at:/"); i >= 0 {
			rest := "at://" + strings.TrimLeft(r.URL.Path[i+len("at:"):], "/")
			if to := atHref(rest); to != "" {
				s.fail(w, r, &redirect{to})
				return
			}
		}
		s.fail(w, r, notFound("Nothing is here", "No page has this address.", "Search for a handle, a DID or an at-uri, or start at the overview."))
	})
	return mux
}

func (s *Service) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"status": "ok", "version": s.cfg.Version})
}

// Status is what the explorer tells of itself.
type Status struct {
	Version  string     `json:"version"`
	Uptime   int64      `json:"uptimeSeconds"`
	Pages    int64      `json:"pages"`
	Tail     TailStatus `json:"tail"`
	Names    int        `json:"cachedNames"`
	Profiles int        `json:"cachedProfiles"`
}

func (s *Service) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, Status{s.cfg.Version, int64(s.w.Clock.Now().Sub(s.started).Seconds()), s.served.Load(), s.tail.status(), s.names.len(), s.profiles.len()})
}

func writeJSON(w http.ResponseWriter, v any) {
	secure(w.Header())
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}
