//go:build unix

package crashtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
)

// client calls services in the plainest way: no code of the module's own client decides what was acknowledged.
type client struct {
	http *http.Client
}

func newClient() *client {
	return &client{&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// answer is what came back. Only a status says that a call was answered.
type answer struct {
	status int
	body   []byte
}

func (a answer) ok() bool { return a.status == http.StatusOK }

// name is the name of the error.
func (a answer) name() string { s, _ := a.json()["error"].(string); return s }

func (a answer) json() object {
	var v object
	_ = json.Unmarshal(a.body, &v) // what is missing is found missing
	return v
}

// commit is the CID in the commit of an answer.
func (a answer) commit() string {
	m, _ := a.json()["commit"].(object)
	s, _ := m["cid"].(string)
	return s
}

func (a answer) String() string { return fmt.Sprintf("%d %.300s", a.status, a.body) }

// call does one request. The error is that of the transport: whether the call was done is unknown then, and so it is if the answer is
// one of a server that stops (5xx).
func (c *client) call(ctx context.Context, method, address, token, contentType string, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{resp.StatusCode, b}, nil
}

// post calls a procedure.
func (c *client) post(ctx context.Context, base, nsid, token string, in any) (answer, error) {
	if in == nil {
		return c.call(ctx, http.MethodPost, base+"/xrpc/"+nsid, token, "", nil)
	}
	b, err := json.Marshal(in)
	if err != nil {
		return answer{}, err
	}
	return c.call(ctx, http.MethodPost, base+"/xrpc/"+nsid, token, "application/json", b)
}

// get calls a query with pairs of name and value.
func (c *client) get(ctx context.Context, base, nsid string, params ...string) (answer, error) {
	return c.call(ctx, http.MethodGet, base+"/xrpc/"+nsid+query(params), "", "", nil)
}

func query(params []string) string {
	q := url.Values{}
	for i := 0; i < len(params); i += 2 {
		q.Add(params[i], params[i+1])
	}
	return "?" + q.Encode()
}

// pages collects a list over all pages.
func (c *client) pages(ctx context.Context, base, nsid, list string, params ...string) ([]any, error) {
	var out []any
	for cursor := ""; ; {
		p := params
		if cursor != "" {
			p = append(append([]string(nil), params...), "cursor", cursor)
		}
		a, err := c.get(ctx, base, nsid, p...)
		if err != nil {
			return nil, err
		}
		if !a.ok() {
			return nil, fmt.Errorf("%s %s: %s", nsid, strings.Join(params, " "), a)
		}
		v := a.json()
		items, _ := v[list].([]any)
		out = append(out, items...)
		if cursor, _ = v["cursor"].(string); cursor == "" {
			return out, nil
		}
	}
}

// rootOf is the root of a CAR file.
func rootOf(b []byte) (cid.CID, error) {
	roots, _, err := car.Parse(b, car.Options{})
	if err != nil || len(roots) != 1 {
		return cid.CID{}, fmt.Errorf("a CAR file with roots %v: %w", roots, err)
	}
	return roots[0], nil
}
