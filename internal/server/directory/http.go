package directory

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

const (
	maxBody   = 64 << 10
	maxExport = 1000
)

// Handler returns the HTTP interface.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				s.writeError(w, r, err)
			}
		})
	}
	handle("GET /{$}", s.getRoot)
	handle("GET /_health", s.getHealth)
	handle("GET /export", s.getExport)
	handle("GET /export/stream", s.getStream)
	handle("GET /{did}", s.getDocument)
	handle("GET /{did}/data", s.getData)
	handle("GET /{did}/log", s.getLog)
	handle("GET /{did}/log/audit", s.getAudit)
	handle("GET /{did}/log/last", s.getLast)
	handle("POST /{did}", s.postOperation)
	handle("/", func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost {
			w.Header().Set("Allow", "GET, HEAD, POST, OPTIONS")
			return &refusal{status: 405, name: "MethodNotAllowed", message: "method not allowed"}
		}
		return &refusal{status: 404, name: "NotFound", message: "no such page"}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("X-Content-Type-Options", "nosniff")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "*")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Service) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var bad *plc.Error
	var ref *refusal
	switch {
	case errors.As(err, &ref):
	case errors.As(err, &bad):
		ref = &refusal{status: 400, name: "InvalidOperation", message: bad.Error()}
	default:
		s.w.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		ref = &refusal{status: 500, name: "InternalServerError", message: "internal server error"}
	}
	if ref.after > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(ref.after.Seconds())), 10))
	}
	body, err := json.Marshal(map[string]string{"error": ref.name, "message": ref.message})
	if err != nil {
		return // two strings always marshal
	}
	writeBytes(w, "application/json; charset=utf-8", ref.status, body)
}

func writeBytes(w http.ResponseWriter, contentType string, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away is nobody's error
}

func writeJSON(w http.ResponseWriter, body []byte) error {
	writeBytes(w, "application/json; charset=utf-8", 200, body)
	return nil
}

func (s *Service) getRoot(w http.ResponseWriter, _ *http.Request) error {
	writeBytes(w, "text/plain; charset=utf-8", 200, []byte("This is a did:plc directory.\n\n"+
		"GET  /:did, /:did/data, /:did/log, /:did/log/audit, /:did/log/last\nPOST /:did\n"+
		"GET  /export?after=0&count=1000\nWS   /export/stream?cursor=0\n"))
	return nil
}

func (s *Service) getHealth(w http.ResponseWriter, _ *http.Request) error {
	if s.ctx.Err() != nil {
		return &refusal{status: 503, name: "ServiceUnavailable", message: "the directory is not accepting operations"}
	}
	b, err := json.Marshal(map[string]string{"version": s.cfg.Version})
	if err != nil {
		return err
	}
	return writeJSON(w, b)
}

func notRegistered(did string) error {
	if len(did) > 64 {
		did = did[:64]
	}
	return &refusal{status: 404, name: "NotFound", message: "DID not registered: " + did}
}

// state returns the present state of the identity in the path; 404 if there is none or it was ended.
func (s *Service) state(r *http.Request) (did syntax.DID, d plc.Data, err error) {
	did = syntax.DID(r.PathValue("did"))
	e, ok, err := s.last(did)
	if err != nil {
		return did, d, err
	}
	if !ok {
		return did, d, notRegistered(string(did))
	}
	if d, ok = e.Operation.State(); !ok {
		return did, d, &refusal{status: 404, name: "NotFound", message: "DID not available: " + string(did)}
	}
	return did, d, nil
}

func (s *Service) getDocument(w http.ResponseWriter, r *http.Request) error {
	did, d, err := s.state(r)
	if err != nil {
		return err
	}
	writeBytes(w, "application/did+ld+json; charset=utf-8", 200, d.AppendDocument(nil, did))
	return nil
}

func (s *Service) getData(w http.ResponseWriter, r *http.Request) error {
	did, d, err := s.state(r)
	if err != nil {
		return err
	}
	return writeJSON(w, d.AppendJSON(nil, did))
}

// logOf returns the log of the identity in the path; 404 if there is none.
func (s *Service) logOf(r *http.Request) ([]plc.Entry, error) {
	did := r.PathValue("did")
	log, err := s.entries(s.store, syntax.DID(did))
	if err == nil && len(log) == 0 {
		err = notRegistered(did)
	}
	return log, err
}

func (s *Service) getLog(w http.ResponseWriter, r *http.Request) error {
	log, err := s.logOf(r)
	if err != nil {
		return err
	}
	b := []byte{'['}
	for i := range log {
		if log[i].Nullified {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = log[i].Operation.AppendJSON(b)
	}
	return writeJSON(w, append(b, ']'))
}

func (s *Service) getAudit(w http.ResponseWriter, r *http.Request) error {
	log, err := s.logOf(r)
	if err != nil {
		return err
	}
	b := []byte{'['}
	for i := range log {
		if i > 0 {
			b = append(b, ',')
		}
		b = log[i].AppendJSON(b)
	}
	return writeJSON(w, append(b, ']'))
}

func (s *Service) getLast(w http.ResponseWriter, r *http.Request) error {
	did := r.PathValue("did")
	e, ok, err := s.last(syntax.DID(did))
	if err != nil {
		return err
	}
	if !ok {
		return notRegistered(did)
	}
	return writeJSON(w, e.Operation.AppendJSON(nil))
}

func (s *Service) postOperation(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return &refusal{status: 413, name: "PayloadTooLarge", message: "body is larger than 64 KiB"}
		}
		return &refusal{status: 400, name: "InvalidRequest", message: "body could not be read"}
	}
	op, err := plc.ParseJSON(body)
	if err != nil {
		return err
	}
	if err := s.Submit(syntax.DID(r.PathValue("did")), op); err != nil {
		return err
	}
	writeBytes(w, "text/plain; charset=utf-8", 200, []byte("OK"))
	return nil
}

func invalid(what string) error {
	return &refusal{status: 400, name: "InvalidRequest", message: "invalid " + what + " parameter"}
}

// digits reports whether v is a number without sign, point or space.
func digits(v string) bool {
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' {
			return false
		}
	}
	return v != ""
}

func (s *Service) getExport(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	count := maxExport
	if v := q.Get("count"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil && digits(v) {
			n, err = maxExport, nil // a number beyond all bounds is only too large
		}
		if err != nil || n < 1 {
			return invalid("count")
		}
		count = min(n, maxExport)
	}
	var lines [][]byte
	var err error
	if v := q.Get("after"); digits(v) {
		after, perr := strconv.ParseInt(v, 10, 64)
		if perr != nil {
			return invalid("after")
		}
		lines, err = s.exportBySeq(r.Context(), after, count)
	} else {
		var after time.Time
		if v != "" {
			if len(v) == len("2006-01-02") {
				v += "T00:00:00Z"
			}
			t, ok := syntax.LenientTime(v)
			if !ok {
				return invalid("after")
			}
			after = t
		}
		lines, err = s.exportByTime(after, count)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jsonlines")
	for i, l := range lines {
		// Lines are separated, not ended: clients split the body at line ends and parse every part.
		if i > 0 {
			if _, err := w.Write([]byte{'\n'}); err != nil {
				return nil
			}
		}
		if _, err := w.Write(l); err != nil {
			return nil
		}
	}
	return nil
}
