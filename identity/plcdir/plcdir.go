// Package plcdir is the client of a directory of did:plc identities: it reads their logs and adds operations.
//
// Specification: https://web.plc.directory/spec/v0.1/did-plc.
//
//	c := &plcdir.Client{URL: "https://plc.directory", HTTP: guarded}
//	log, err := c.Log(ctx, did)                 // as the directory tells it
//	state, active, err := plc.Verify(did, log)  // and whether that is so
//	err = c.Submit(ctx, did, signed)
//	for line, err := range c.Export(ctx, "0", 1000) { … }
//
// It makes, signs and verifies nothing: package plc does. It caches nothing either: for documents, which is what most programs
// want of an identity, there is package identity.
//
// Limits: 64 KiB for an operation and for the state of an identity, 16 MiB for a log or a page of the export, 64 KiB for a line of it.
// No call is repeated. The API is settling.
package plcdir

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// DefaultTimeout is how long a directory may take for an answer.
const DefaultTimeout = 10 * time.Second

// MaxPage is how many lines of the export a directory gives at once.
const MaxPage = 1000

const (
	maxSmall = 64 << 10 // bytes of an operation, of a state, of a line
	maxLarge = 16 << 20 // bytes of a log, of a page
)

// Client asks one directory. Its fields are set once; it is safe for concurrent use.
type Client struct {
	URL     string        // of the directory, such as identity.DefaultPLC
	HTTP    *http.Client  // nil: the standard transport
	Timeout time.Duration // of one call; 0: [DefaultTimeout]
}

// Error is a refusal by the directory, or the lack of an answer.
type Error struct {
	Status  int    // of HTTP; 0: it gave no usable answer
	Message string // what the directory said
	Err     error  // cause; nil for a refusal
}

// Error tells what the directory said.
func (e *Error) Error() string {
	if e.Status == 0 {
		return "PLC directory: " + e.Message
	}
	return fmt.Sprintf("PLC directory answered %d: %s", e.Status, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// StatusOf returns the status of the *[Error] in err; 0 if there is none, or no answer.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

func silent(err error) error { return &Error{Message: err.Error(), Err: err} }

// do makes one call and reads the answer, of at most max bytes.
func (c *Client) do(ctx context.Context, method, path string, body []byte, max int64) ([]byte, error) {
	if c.URL == "" {
		return nil, silent(errors.New("none is configured"))
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Timeout, DefaultTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, silent(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	h := c.HTTP
	if h == nil {
		h = &http.Client{}
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, silent(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		var said struct{ Message string }
		b, _ := io.ReadAll(io.LimitReader(resp.Body, maxSmall)) // what came of it serves
		if json.Unmarshal(b, &said) != nil || said.Message == "" {
			said.Message = http.StatusText(resp.StatusCode)
		}
		return nil, &Error{Status: resp.StatusCode, Message: said.Message}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, max+1))
	switch {
	case err != nil:
		return nil, silent(err)
	case int64(len(b)) > max:
		return nil, silent(fmt.Errorf("the answer has more than %d bytes", max))
	}
	return b, nil
}

func wrap(what string, did syntax.DID, err error) error {
	return fmt.Errorf("%s %s: %w", what, did, err)
}

func check(did syntax.DID) error {
	if did.Method() != "plc" || !syntax.ValidDID(did) {
		return errors.New("no did:plc identity")
	}
	return nil
}

// Submit adds a signed operation to the log of an identity. A directory that has another last operation than the one that op
// follows answers with the status 409, or 400.
func (c *Client) Submit(ctx context.Context, did syntax.DID, op *plc.Operation) error {
	if err := check(did); err != nil {
		return wrap("submitting an operation of", did, err)
	}
	if _, err := c.do(ctx, http.MethodPost, "/"+string(did), op.AppendJSON(nil), maxSmall); err != nil {
		return wrap("submitting an operation of", did, err)
	}
	return nil
}

// Last returns the operation that a next one has to follow. It has not been verified.
func (c *Client) Last(ctx context.Context, did syntax.DID) (*plc.Operation, error) {
	if err := check(did); err != nil {
		return nil, wrap("reading the last operation of", did, err)
	}
	b, err := c.do(ctx, http.MethodGet, "/"+string(did)+"/log/last", nil, maxSmall)
	if err != nil {
		return nil, wrap("reading the last operation of", did, err)
	}
	op, err := plc.ParseJSON(b)
	if err != nil {
		return nil, wrap("reading the last operation of", did, err)
	}
	return op, nil
}

// Log returns all operations of an identity, void ones included, in the order of their acceptance, as the directory tells them.
// [plc.Verify] says whether that can be so.
func (c *Client) Log(ctx context.Context, did syntax.DID) ([]plc.Entry, error) {
	if err := check(did); err != nil {
		return nil, wrap("reading the log of", did, err)
	}
	b, err := c.do(ctx, http.MethodGet, "/"+string(did)+"/log/audit", nil, maxLarge)
	if err != nil {
		return nil, wrap("reading the log of", did, err)
	}
	var log []plc.Entry
	if err := json.Unmarshal(b, &log); err != nil {
		return nil, wrap("reading the log of", did, err)
	}
	return log, nil
}

// Data returns the present state of an identity as JSON, as the directory computes it. The status of the error is 404 if there is
// none, or no more.
func (c *Client) Data(ctx context.Context, did syntax.DID) (json.RawMessage, error) {
	if err := check(did); err != nil {
		return nil, wrap("reading the state of", did, err)
	}
	b, err := c.do(ctx, http.MethodGet, "/"+string(did)+"/data", nil, maxSmall)
	if err != nil {
		return nil, wrap("reading the state of", did, err)
	}
	if !json.Valid(b) {
		return nil, wrap("reading the state of", did, silent(errors.New("the answer is no JSON")))
	}
	return b, nil
}

// Line is a line of the export. The operation in it has not been looked at.
type Line struct {
	Raw       json.RawMessage
	DID       string
	CID       string
	CreatedAt string
	Seq       int64 // 0 in an export by time
}

// Entry reads the line, strictly. In an export by sequence number no entry is said to be void.
func (l *Line) Entry() (plc.Entry, error) {
	var e plc.Entry
	err := json.Unmarshal(l.Raw, &e)
	return e, err
}

// ParseLine reads a line of an export of either form.
func ParseLine(b []byte) (*Line, error) {
	var v struct {
		DID, CID, CreatedAt string
		Seq                 int64
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("a line of the export: %w", err)
	}
	if v.DID == "" || v.CID == "" || v.CreatedAt == "" || v.Seq < 0 {
		return nil, errors.New("a line of the export names no identity, operation or time")
	}
	return &Line{Raw: bytes.Clone(b), DID: v.DID, CID: v.CID, CreatedAt: v.CreatedAt, Seq: v.Seq}, nil
}

// Page returns up to count lines of the export (0, or more than [MaxPage]: MaxPage) that come after a cursor: a sequence number, from "0"
// on, or a datetime, or "" for the beginning by time. Only an export by sequence number can be continued without a gap: several
// operations may have one time.
func (c *Client) Page(ctx context.Context, after string, count int) ([]*Line, error) {
	if count <= 0 || count > MaxPage {
		count = MaxPage
	}
	q := url.Values{"count": {strconv.Itoa(count)}}
	if after != "" {
		q.Set("after", after)
	}
	b, err := c.do(ctx, http.MethodGet, "/export?"+q.Encode(), nil, maxLarge)
	if err != nil {
		return nil, fmt.Errorf("reading the export after %q: %w", after, err)
	}
	var lines []*Line
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, maxSmall)
	for sc.Scan() {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		l, err := ParseLine(sc.Bytes())
		if err != nil {
			return nil, fmt.Errorf("reading the export after %q: %w", after, silent(err))
		}
		lines = append(lines, l)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading the export after %q: %w", after, silent(err))
	}
	return lines, nil
}

// Export returns the lines of the export after a cursor, see [Client.Page], until there are no more for now. Pages have the given number of
// lines. By time, the lines that have
// the time of the last one of a page are asked for again, because more may have it, and told once.
func (c *Client) Export(ctx context.Context, after string, page int) iter.Seq2[*Line, error] {
	return func(yield func(*Line, error) bool) {
		if page <= 0 || page > MaxPage {
			page = MaxPage
		}
		bySeq := after != "" && strings.Trim(after, "0123456789") == ""
		told := map[string]bool{} // identities and operations of the last time
		last := ""
		for {
			lines, err := c.Page(ctx, after, page)
			if err != nil {
				yield(nil, err)
				return
			}
			fresh := 0
			for _, l := range lines {
				if bySeq {
					n, err := strconv.ParseInt(after, 10, 64)
					if err != nil || l.Seq <= n {
						yield(nil, silent(fmt.Errorf("the export goes from %s to %d", after, l.Seq)))
						return
					}
					after = strconv.FormatInt(l.Seq, 10)
				} else {
					key := l.DID + " " + l.CID
					if told[key] {
						continue
					}
					if l.CreatedAt < last {
						yield(nil, silent(fmt.Errorf("the export goes from %s back to %s", last, l.CreatedAt)))
						return
					}
					if l.CreatedAt > last {
						last = l.CreatedAt
						clear(told)
					}
					told[key] = true
				}
				fresh++
				if !yield(l, nil) {
					return
				}
			}
			switch {
			case fresh == 0 && (bySeq || len(lines) == 0):
				return
			case bySeq:
			case fresh == 0 && len(lines) == page:
				yield(nil, fmt.Errorf("reading the export by time: %d operations or more are of %s, ask by sequence number", page, last))
				return
			case fresh == 0:
				after = last // the page had all of that time
			default:
				if after, err = justBefore(last); err != nil {
					yield(nil, silent(err))
					return
				}
			}
		}
	}
}

// justBefore is the latest time of the directory's, which have milliseconds, that is before t.
func justBefore(t string) (string, error) {
	d, err := syntax.ParseDatetime(t)
	if err != nil {
		return "", fmt.Errorf("the export has the time %q: %w", t, err)
	}
	return plc.FormatTime(d.Time().Add(-time.Millisecond)), nil
}
