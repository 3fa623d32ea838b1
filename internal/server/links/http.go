package links

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Limits of parameters.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
	MaxDIDs      = 100   // values of a filter
	maxParam     = 8192  // bytes of one
	maxQuery     = 64000 // bytes of all
)

func bad(format string, args ...any) error { return xrpc.ErrInvalidRequest.With(format, args...) }

const tooMany xrpc.ErrorName = "TooManyLinks"

// Handler returns the HTTP interface.
func (s *Service) Handler() http.Handler { return s.handler }

func (s *Service) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(r *http.Request, q params) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			out, err := s.answer(r, h)
			if err != nil {
				s.writeError(w, r, err)
				return
			}
			s.writeJSON(w, out)
		})
	}
	const ns = "GET /xrpc/blue.microcosm.links."
	handle(ns+"getBacklinks", s.getBacklinks)
	handle(ns+"getBacklinksCount", s.getBacklinksCount)
	handle(ns+"getBacklinkDids", s.getBacklinkDids)
	handle(ns+"getManyToMany", s.getManyToMany)
	handle(ns+"getManyToManyCounts", s.getManyToManyCounts)
	handle("GET /links", s.getLinks)
	handle("GET /links/count", s.getLinksCount)
	handle("GET /links/count/distinct-dids", s.getDistinctCount)
	handle("GET /links/distinct-dids", s.getDistinct)
	handle("GET /links/all", s.getAll)
	handle("GET /links/all/count", s.getAllCount)
	handle("GET /_health", func(*http.Request, params) (any, error) {
		if s.ctx.Err() != nil {
			return nil, xrpc.ErrNotEnoughResources.With("the link index is shutting down")
		}
		return struct {
			Version string `json:"version"`
		}{s.cfg.Version}, nil
	})
	handle("GET /_status", func(*http.Request, params) (any, error) { return s.status() })
	handle("GET /.well-known/did.json", s.getDID)
	mux.HandleFunc("GET /robots.txt", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("User-agent: *\nDisallow: /links\nDisallow: /xrpc\n")) // a client that went away is nobody's error
	})
	mux.HandleFunc("GET /{$}", s.getRoot)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD, OPTIONS")
			s.writeError(w, r, xrpc.ErrInvalidRequest.WithStatus(http.StatusMethodNotAllowed, "method not allowed"))
		case strings.HasPrefix(r.URL.Path, "/xrpc/"):
			s.writeError(w, r, xrpc.ErrNotImplemented.With("no such method"))
		default:
			s.writeError(w, r, xrpc.ErrorName("NotFound").WithStatus(http.StatusNotFound, "no such page"))
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("X-Content-Type-Options", "nosniff")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "*")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// answer parses the query and calls a handler while the store is open.
func (s *Service) answer(r *http.Request, h func(*http.Request, params) (any, error)) (any, error) {
	if len(r.URL.RawQuery) > maxQuery {
		return nil, bad("the query is longer than %d bytes", maxQuery)
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad("the query is malformed")
	}
	if !s.hold() {
		return nil, xrpc.ErrNotEnoughResources.With("the link index is shutting down")
	}
	defer s.release()
	return h(r, params(q))
}

func (s *Service) writeError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errCursor):
		err = bad("%s", err.Error())
	case errors.Is(err, errTooMany):
		err = tooMany.With("%s", err.Error())
	case errors.Is(err, context.Canceled):
		return // nobody listens
	}
	var e *xrpc.Error
	var n xrpc.ErrorName
	if !errors.As(err, &e) && !errors.As(err, &n) {
		s.w.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	xrpc.WriteError(w, r, err)
}

func (s *Service) writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // a client that went away is nobody's error
}

// params are those of a request.
type params url.Values

// required returns a parameter that must be there.
func (q params) required(name string) (string, error) {
	switch v := q[name]; {
	case len(v) == 0 || v[0] == "":
		return "", bad("the parameter %s is missing", name)
	case len(v) > 1:
		return "", bad("the parameter %s is there more than once", name)
	case len(v[0]) > maxParam:
		return "", bad("the parameter %s is longer than %d bytes", name, maxParam)
	default:
		return v[0], nil
	}
}

func (q params) optional(name string) (string, error) {
	if len(q[name]) == 0 || len(q[name]) == 1 && q[name][0] == "" {
		return "", nil
	}
	return q.required(name)
}

// source reads "collection:path".
func (q params) source() (collection, path string, err error) {
	s, err := q.required("source")
	if err != nil {
		return "", "", err
	}
	collection, path, ok := strings.Cut(s, ":")
	if !ok || path == "" || !syntax.ValidNSID(collection) {
		return "", "", bad("the source must be a collection, a colon and a path, such as app.bsky.feed.like:subject.uri")
	}
	return collection, strings.TrimPrefix(path, "."), nil
}

// legacy reads target, collection and path.
func (q params) legacy() (target, collection, path string, err error) {
	if target, err = q.required("target"); err != nil {
		return "", "", "", err
	}
	if collection, err = q.required("collection"); err != nil {
		return "", "", "", err
	}
	if !syntax.ValidNSID(collection) {
		return "", "", "", bad("the collection is no NSID")
	}
	if path, err = q.required("path"); err != nil {
		return "", "", "", err
	}
	path, ok := strings.CutPrefix(path, ".")
	if !ok {
		return "", "", "", bad("the path must begin with a dot, such as .subject.uri")
	}
	return target, collection, path, nil
}

func (q params) limit() (int, error) {
	s, err := q.optional("limit")
	if err != nil || s == "" {
		return DefaultLimit, err
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxLimit {
		return 0, bad("the limit must be a number from 1 to %d", MaxLimit)
	}
	return n, nil
}

func (q params) flag(name string) (bool, error) {
	s, err := q.optional(name)
	if err != nil || s == "" {
		return false, err
	}
	if s != "true" && s != "false" {
		return false, bad("the parameter %s must be true or false", name)
	}
	return s == "true", nil
}

// dids reads a filter of accounts: nil if there is none.
func dids(name string, values []string) ([]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > MaxDIDs {
		return nil, bad("the parameter %s is there more than %d times", name, MaxDIDs)
	}
	for _, v := range values {
		if !syntax.ValidDID(v) {
			return nil, bad("a value of the parameter %s is no DID", name)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(values))), nil
}

// others reads a filter of other subjects: nil if there is none.
func (q params) others() (map[string]bool, error) {
	values := q["otherSubject"]
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > MaxDIDs {
		return nil, bad("the parameter otherSubject is there more than %d times", MaxDIDs)
	}
	m := map[string]bool{}
	for _, v := range values {
		m[v] = true
	}
	return m, nil
}

// next is a cursor on the wire: null at the end.
type next string

// MarshalJSON implements json.Marshaler.
func (n next) MarshalJSON() ([]byte, error) {
	if n == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(n))
}

type (
	totalOnly struct {
		Total uint64 `json:"total"`
	}
	backlinks struct {
		Total   uint64   `json:"total"`
		Records []record `json:"records"`
		Cursor  next     `json:"cursor"`
	}
	legacyLinks struct {
		Total   uint64   `json:"total"`
		Records []record `json:"linking_records"`
		Cursor  next     `json:"cursor"`
	}
	linkingDIDs struct {
		Total  uint64   `json:"total"`
		DIDs   []string `json:"linking_dids"`
		Cursor next     `json:"cursor"`
	}
	items struct {
		Items  []item `json:"items"`
		Cursor next   `json:"cursor"`
	}
	otherCount struct {
		Subject  string `json:"subject"`
		Total    uint64 `json:"total"`
		Distinct uint64 `json:"distinct"`
	}
	otherCounts struct {
		Counts []otherCount `json:"counts_by_other_subject"`
		Cursor next         `json:"cursor"`
	}
	recordsAndDIDs struct {
		Records uint64 `json:"records"`
		DIDs    uint64 `json:"distinct_dids"`
	}
	allLinks[T any] struct {
		Links map[string]map[string]T `json:"links"`
	}
)

// paged is what endpoints with pages of records have in common.
func (s *Service) paged(q params, subject, collection, path string, reverse bool, filter []string) (total uint64, recs []record, cursor next, err error) {
	limit, err := q.limit()
	if err != nil {
		return 0, nil, "", err
	}
	c, err := q.optional("cursor")
	if err != nil {
		return 0, nil, "", err
	}
	after, err := parseCursor(c)
	if err != nil {
		return 0, nil, "", err
	}
	r := s.ix.reader()
	defer r.Close()
	l, err := r.list(subject, collection, path)
	if err != nil {
		return 0, nil, "", err
	}
	total = l.links
	if filter != nil {
		if total, err = r.countOf(&l, filter); err != nil {
			return 0, nil, "", err
		}
	}
	recs, more, err := r.records(&l, after, reverse, filter, limit)
	return total, recs, next(more), err
}

func (s *Service) getBacklinks(_ *http.Request, q params) (any, error) {
	subject, err := q.required("subject")
	if err != nil {
		return nil, err
	}
	collection, path, err := q.source()
	if err != nil {
		return nil, err
	}
	reverse, err := q.flag("reverse")
	if err != nil {
		return nil, err
	}
	filter, err := dids("did", q["did"])
	if err != nil {
		return nil, err
	}
	var out backlinks
	out.Total, out.Records, out.Cursor, err = s.paged(q, subject, collection, path, reverse, filter)
	return out, err
}

func (s *Service) getLinks(_ *http.Request, q params) (any, error) {
	target, collection, path, err := q.legacy()
	if err != nil {
		return nil, err
	}
	values := q["did"]
	from, err := q.optional("from_dids")
	if err != nil {
		return nil, err
	}
	if from != "" {
		if len(values) > 0 {
			return nil, bad("did and from_dids exclude each other")
		}
		values = strings.Split(from, ",")
	}
	filter, err := dids("did", values)
	if err != nil {
		return nil, err
	}
	var out legacyLinks
	out.Total, out.Records, out.Cursor, err = s.paged(q, target, collection, path, false, filter)
	return out, err
}

func (s *Service) counted(subject, collection, path string) (list, error) {
	r := s.ix.reader()
	defer r.Close()
	return r.list(subject, collection, path)
}

func (s *Service) getBacklinksCount(_ *http.Request, q params) (any, error) {
	subject, err := q.required("subject")
	if err != nil {
		return nil, err
	}
	collection, path, err := q.source()
	if err != nil {
		return nil, err
	}
	l, err := s.counted(subject, collection, path)
	return totalOnly{l.links}, err
}

func (s *Service) getLinksCount(_ *http.Request, q params) (any, error) {
	target, collection, path, err := q.legacy()
	if err != nil {
		return nil, err
	}
	l, err := s.counted(target, collection, path)
	return totalOnly{l.links}, err
}

func (s *Service) getDistinctCount(_ *http.Request, q params) (any, error) {
	target, collection, path, err := q.legacy()
	if err != nil {
		return nil, err
	}
	l, err := s.counted(target, collection, path)
	return totalOnly{l.dids}, err
}

func (s *Service) pagedDIDs(q params, subject, collection, path string) (any, error) {
	limit, err := q.limit()
	if err != nil {
		return nil, err
	}
	c, err := q.optional("cursor")
	if err != nil {
		return nil, err
	}
	after, err := parseDIDCursor(c)
	if err != nil {
		return nil, err
	}
	r := s.ix.reader()
	defer r.Close()
	l, err := r.list(subject, collection, path)
	if err != nil {
		return nil, err
	}
	dids, more, err := r.distinct(&l, after, limit)
	return linkingDIDs{l.dids, dids, next(more)}, err
}

func (s *Service) getBacklinkDids(_ *http.Request, q params) (any, error) {
	subject, err := q.required("subject")
	if err != nil {
		return nil, err
	}
	collection, path, err := q.source()
	if err != nil {
		return nil, err
	}
	return s.pagedDIDs(q, subject, collection, path)
}

func (s *Service) getDistinct(_ *http.Request, q params) (any, error) {
	target, collection, path, err := q.legacy()
	if err != nil {
		return nil, err
	}
	return s.pagedDIDs(q, target, collection, path)
}

// all collects what links to a target, by collection and path.
func all[T any](s *Service, q params, of func(sourceCount) T) (any, error) {
	target, err := q.required("target")
	if err != nil {
		return nil, err
	}
	r := s.ix.reader()
	defer r.Close()
	sources, err := r.sources(target)
	if err != nil {
		return nil, err
	}
	out := allLinks[T]{map[string]map[string]T{}}
	for _, c := range sources {
		if out.Links[c.collection] == nil {
			out.Links[c.collection] = map[string]T{}
		}
		out.Links[c.collection]["."+c.path] = of(c)
	}
	return out, nil
}

func (s *Service) getAll(_ *http.Request, q params) (any, error) {
	return all(s, q, func(c sourceCount) recordsAndDIDs { return recordsAndDIDs{c.links, c.dids} })
}

func (s *Service) getAllCount(_ *http.Request, q params) (any, error) {
	return all(s, q, func(c sourceCount) uint64 { return c.links })
}

// manyParams are those of both many-to-many endpoints.
func (q params) many(didParam string) (subject, collection, path, other string, filter []string, others map[string]bool, err error) {
	if subject, err = q.required("subject"); err != nil {
		return
	}
	if collection, path, err = q.source(); err != nil {
		return
	}
	if other, err = q.required("pathToOther"); err != nil {
		return
	}
	other = strings.TrimPrefix(other, ".")
	if filter, err = dids(didParam, q[didParam]); err != nil {
		return
	}
	others, err = q.others()
	return
}

func (s *Service) getManyToMany(hr *http.Request, q params) (any, error) {
	subject, collection, path, other, filter, others, err := q.many("linkDid")
	if err != nil {
		return nil, err
	}
	limit, err := q.limit()
	if err != nil {
		return nil, err
	}
	cursor, err := q.optional("cursor")
	if err != nil {
		return nil, err
	}
	// The cursor is the place of the last record that is done, and how much of the next one is.
	at, part, _ := strings.Cut(cursor, ",")
	after, err := parseCursor(at)
	if err != nil {
		return nil, err
	}
	skip := 0
	if part != "" {
		if skip, err = strconv.Atoi(part); err != nil || skip < 0 {
			return nil, errCursor
		}
	}
	r := s.ix.reader()
	defer r.Close()
	l, err := r.list(subject, collection, path)
	if err != nil {
		return nil, err
	}
	out := items{Items: []item{}}
	last := after
	end, err := r.manyToMany(hr.Context(), &l, other, after, filter, maxScan, func(place []byte, rec record, subjects []string) (bool, error) {
		for i, s := range subjects {
			if i < skip || others != nil && !others[s] {
				continue
			}
			if len(out.Items) == limit {
				out.Cursor = next(hex.EncodeToString(last) + "," + strconv.Itoa(i))
				return false, nil
			}
			out.Items = append(out.Items, item{rec, s})
		}
		skip = 0
		last = slices.Clone(place)
		return true, nil
	})
	if end != nil {
		out.Cursor = next(hex.EncodeToString(end))
	}
	return out, err
}

// maxCounted bounds the linking records whose other subjects are counted.
const maxCounted = 100_000

func (s *Service) getManyToManyCounts(hr *http.Request, q params) (any, error) {
	subject, collection, path, other, filter, others, err := q.many("did")
	if err != nil {
		return nil, err
	}
	limit, err := q.limit()
	if err != nil {
		return nil, err
	}
	cursor, err := q.optional("cursor")
	if err != nil {
		return nil, err
	}
	after, err := hex.DecodeString(cursor)
	if err != nil {
		return nil, errCursor
	}
	r := s.ix.reader()
	defer r.Close()
	l, err := r.list(subject, collection, path)
	if err != nil {
		return nil, err
	}
	type tally struct {
		total uint64
		dids  map[string]struct{}
	}
	by := map[string]*tally{}
	end, err := r.manyToMany(hr.Context(), &l, other, nil, filter, maxCounted, func(_ []byte, rec record, subjects []string) (bool, error) {
		for _, s := range subjects {
			if others != nil && !others[s] {
				continue
			}
			t := by[s]
			if t == nil {
				t = &tally{dids: map[string]struct{}{}}
				by[s] = t
			}
			t.total++
			t.dids[rec.DID] = struct{}{}
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if end != nil {
		return nil, errTooMany
	}
	out := otherCounts{Counts: []otherCount{}}
	subjects := make([]string, 0, len(by))
	for s := range by {
		if cursor == "" || s > string(after) {
			subjects = append(subjects, s)
		}
	}
	slices.Sort(subjects)
	for i, s := range subjects {
		if i == limit {
			out.Cursor = next(hex.EncodeToString([]byte(subjects[i-1])))
			break
		}
		out.Counts = append(out.Counts, otherCount{s, by[s].total, uint64(len(by[s].dids))})
	}
	return out, nil
}

func (s *Service) getDID(*http.Request, params) (any, error) {
	if s.cfg.PublicURL == "" {
		return nil, xrpc.ErrorName("NotFound").WithStatus(http.StatusNotFound, "this service has no DID")
	}
	u, err := url.Parse(s.cfg.PublicURL)
	if err != nil {
		return nil, err
	}
	type service struct {
		ID       string `json:"id"`
		Type     string `json:"type"`
		Endpoint string `json:"serviceEndpoint"`
	}
	did := "did:web:" + strings.ReplaceAll(u.Host, ":", "%3A")
	return struct {
		Context  []string  `json:"@context"`
		ID       string    `json:"id"`
		Services []service `json:"service"`
	}{
		[]string{"https://www.w3.org/ns/did/v1"}, did,
		[]service{{"#constellation", "ConstellationGraphService", strings.TrimRight(s.cfg.PublicURL, "/")}},
	}, nil
}

const help = "an index of the links between records of the AT Protocol: see /xrpc/blue.microcosm.links.getBacklinks"

type rootStats struct {
	DIDs      uint64            `json:"dids"`
	Targets   uint64            `json:"targetables"`
	Records   uint64            `json:"linking_records"`
	StartedAt uint64            `json:"started_at"` // µs since 1970
	Other     map[string]uint64 `json:"other_data"`
}

type root struct {
	Help        string    `json:"help"`
	DaysIndexed int64     `json:"days_indexed"`
	Stats       rootStats `json:"stats"`
}

var rootPage = template.Must(template.New("root").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Link index</title>
<h1>Link index</h1>
<p>{{.Help}}</p>
<ul>
<li>{{.Stats.Records}} linking records</li>
<li>{{.Stats.Targets}} targets</li>
<li>{{.Stats.DIDs}} accounts</li>
<li>{{.DaysIndexed}} days</li>
</ul>
<h2>Methods</h2>
<ul>
<li><code>/xrpc/blue.microcosm.links.getBacklinks?subject=at://…&amp;source=app.bsky.feed.like:subject.uri</code></li>
<li><code>/xrpc/blue.microcosm.links.getBacklinksCount?subject=…&amp;source=…</code></li>
<li><code>/xrpc/blue.microcosm.links.getBacklinkDids?subject=…&amp;source=…</code></li>
<li><code>/xrpc/blue.microcosm.links.getManyToMany?subject=…&amp;source=…&amp;pathToOther=…</code></li>
<li><code>/xrpc/blue.microcosm.links.getManyToManyCounts?subject=…&amp;source=…&amp;pathToOther=…</code></li>
<li><code>/links/all?target=…</code></li>
<li><a href="/_status">state of the index</a></li>
</ul>
</html>
`))

func (s *Service) getRoot(w http.ResponseWriter, r *http.Request) {
	out, err := s.answer(r, func(*http.Request, params) (any, error) {
		f, err := readFigures(s.ix.store)
		days := (s.w.Clock.Now().UnixMicro() - int64(f.Started)) / (24 * 3600 * 1e6)
		return root{help, days, rootStats{f.DIDs, f.Targets, f.Records, f.Started, map[string]uint64{"links": f.Links}}}, err
	})
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	w.Header().Set("Vary", "Accept")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		s.writeJSON(w, out)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	_ = rootPage.Execute(w, out) // a client that went away is nobody's error
}
