package pds

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
)

// hostile is a request that no method may stumble over.
type hostile struct {
	what    string
	method  string
	query   string
	header  http.Header
	body    []byte
	chunked bool
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

// hostileBodies are bodies that are never a valid input, each with its content type and encoding.
func hostileBodies() []hostile {
	deep := func(open, close string, n int) string { return strings.Repeat(open, n) + strings.Repeat(close, n) }
	bomb := gzipped(bytes.Repeat([]byte(" "), 16<<20)) // larger than any JSON body
	var out []hostile
	add := func(what, kind, encoding, body string) {
		h := http.Header{}
		if kind != "" {
			h.Set("Content-Type", kind)
		}
		if encoding != "" {
			h.Set("Content-Encoding", encoding)
		}
		out = append(out, hostile{what: what, method: http.MethodPost, header: h, body: []byte(body)})
	}
	js := "application/json"
	for what, body := range map[string]string{
		"nothing": "", "half an object": `{"repo":`, "null": "null", "array": "[]", "string": `"x"`, "number": "12", "two values": "{} {}",
		"deep array": deep("[", "]", 200_000), "deep object": `{"a":` + deep(`{"a":`, "}", 0) + strings.Repeat(`{"a":`, 100_000),
		"deep record":    `{"repo":"alice.test","collection":"com.example.x","record":{"a":` + deep("[", "]", 5000) + `}}`,
		"duplicate keys": `{"repo":"alice.test","repo":"alice.test","collection":"com.example.x","record":{},"record":{}}`,
		"lone surrogate": `{"repo":"\ud800","identifier":"\udfff","handle":"\ud800"}`, "invalid UTF-8": "{\"repo\":\"\xff\xfe\"}", "NUL": "{\"repo\":\"a\x00b\"}",
		"escaped NUL": `{"repo":"a\u0000b","did":"did:plc:\u0000","handle":"\u0000.test","identifier":"\u0000","password":"\u0000","token":"\u0000"}`,
		"wrong types": `{"repo":1,"collection":[],"rkey":{},"record":"x","writes":{},"identifier":5,"password":[],"handle":7,"did":8,"preferences":"x","useCount":"y","codeCount":1.5,"operation":3,"signingKey":1}`,
		"float":       `{"repo":"alice.test","collection":"com.example.x","record":{"x":1.5e300},"useCount":1e400}`,
		"big integer": `{"repo":"alice.test","collection":"com.example.x","record":{"x":99999999999999999999},"useCount":99999999999999999999,"codeCount":9223372036854775807}`,
		"bad link":    `{"repo":"alice.test","collection":"com.example.x","record":{"x":{"$link":"../../etc/passwd"}}}`,
		"bad bytes":   `{"repo":"alice.test","collection":"com.example.x","record":{"x":{"$bytes":"***"}}}`,
		"traversal":   `{"repo":"../..","collection":"../..","rkey":"..","did":"did:plc:../../..","handle":"../../x.test","identifier":"../..","record":{},"password":"x","token":"../.."}`,
		"long strings": `{"repo":"` + strings.Repeat("a", 100_000) + `","identifier":"` + strings.Repeat("a", 100_000) + `","handle":"` + strings.Repeat("a", 100_000) +
			`","password":"` + strings.Repeat("a", 100_000) + `","did":"did:plc:` + strings.Repeat("a", 100_000) + `","collection":"x","record":{},"token":"` + strings.Repeat("a", 100_000) + `"}`,
		"header injection": `{"repo":"a\r\nX-Evil: 1","handle":"a\r\nSet-Cookie: x","identifier":"a\r\nX: 1","password":"x","did":"did:web:a\r\nb","token":"x","deleteAfter":"\r\n"}`,
	} {
		add(what, js, "", body)
	}
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ";;;", "application/json;charset=utf-16", "a/b\x7f"} {
		add("content type "+kind, kind, "", `{"repo":"nobody.test"}`)
	}
	add("gzip that isn't", js, "gzip", "{}")
	add("gzip bomb", js, "gzip", string(bomb))
	add("gzip cut short", js, "gzip", string(gzipped([]byte(`{"a":1}`))[:12]))
	add("unknown encoding", js, "br", "{}")
	add("two encodings", js, "gzip, gzip", "{}")
	big := `{"repo":"` + strings.Repeat("x", 6<<20) + `"}`
	add("large body", js, "", big)
	out = append(out, hostile{what: "large body in chunks", method: http.MethodPost, header: http.Header{"Content-Type": {js}}, body: []byte(big), chunked: true})
	return out
}

func hostileQueries() []hostile {
	names := []string{"repo", "collection", "rkey", "cid", "did", "cids", "handle", "actor", "actors", "identifier", "since", "cursor", "limit", "reverse",
		"aud", "lxm", "exp", "includeUsed", "createAvailable", "uri"}
	values := map[string]string{
		"empty": "", "NUL": "%00", "traversal": "../../../etc/passwd", "encoded traversal": "did:plc:..%2f..%2f..%2f", "encoded web": "did:web:..%252f..",
		"long": strings.Repeat("a", 6000), "minus one": "-1", "zero": "0", "overflow": "99999999999999999999", "max": "9223372036854775807", "float": "1e309",
		"newline": "a%0d%0aX-Evil:%201", "unicode": "%E2%80%AE%F0%9F%92%A9", "invalid UTF-8": "%ff%fe", "uri": "at://did:plc:x/../..", "wildcard": "%25%25s%25n",
		"did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "web": "did:web:127.0.0.1%253A22", "tid": "2222222222222", "last tid": "jzzzzzzzzzzzz",
		"cid": "bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy",
	}
	var out []hostile
	for what, v := range values {
		q := make([]string, len(names))
		for i, n := range names {
			q[i] = n + "=" + v
		}
		out = append(out, hostile{what: "parameters: " + what, method: http.MethodGet, query: strings.Join(q, "&")})
	}
	good := "repo=alice.test&did=ALICE&collection=app.bsky.feed.post&rkey=self&actor=alice.test&actors=alice.test&handle=alice.test&identifier=alice.test&aud=did:web:x.test"
	for _, tail := range []string{"&limit=0", "&limit=-5", "&limit=1000000000000", "&limit=x", "&limit=1&limit=2", "&cursor=%00", "&cursor=" + strings.Repeat("9", 5000),
		"&cursor=..", "&since=jzzzzzzzzzzzz", "&since=x", "&reverse=maybe", "&cid=x", "&cids=x", "&repo=bob.test", "&did=x", "&%zz=1", "&a=%", "&exp=-1", "&exp=9223372036854775807",
		"&lxm=../x", strings.Repeat("&cids=bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy", 100), strings.Repeat("&actors=alice.test", 200)} {
		out = append(out, hostile{what: "tail " + tail[:min(len(tail), 30)], method: http.MethodGet, query: good + tail})
	}
	return append(out, hostile{what: "no parameters", method: http.MethodGet}, hostile{what: "bad escape", method: http.MethodGet, query: "did=%zz;a=b"})
}

// digest is a digest of all that the service keeps.
func (p *testPDS) digest() string {
	p.t.Helper()
	h := sha256.New()
	it := p.store.Iter(nil, nil)
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(h, "%d %d ", len(it.Key()), len(it.Value()))
		h.Write(it.Key())
		h.Write(it.Value())
	}
	if err := it.Err(); err != nil {
		p.t.Fatal(err)
	}
	return string(h.Sum(nil))
}

// No request, whatever it holds, gets an answer of another shape than the protocol's, makes the server fail, or leaves anything behind
// when it was refused.
func TestHostileRequests(t *testing.T) {
	n := newNetwork(t, Config{Memory: true, InviteRequired: false})
	session := n.signedUp("alice")
	n.signedUp("bob")
	token, refresh, did := session.str("accessJwt"), session.str("refreshJwt"), session.str("did")
	methods := n.mux.Methods()
	slices.Sort(methods)
	if len(methods) < 40 {
		t.Fatalf("only %d methods", len(methods))
	}
	var requests []hostile
	requests = append(requests, hostileBodies()...)
	requests = append(requests, hostileQueries()...)
	for _, verb := range []string{"PUT", "DELETE", "PATCH", "HEAD", "TRACE", "BREW"} {
		requests = append(requests, hostile{what: "verb " + verb, method: verb})
	}
	tokens := map[string][]string{
		"no token": nil, "access token": {"Bearer " + token},
	}
	badTokens := map[string][]string{
		"empty": {"Bearer "}, "junk": {"Bearer junk"}, "three parts": {"Bearer a.b.c"}, "none": {"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJkaWQ6cGxjOngifQ."},
		"basic": {"Basic YWRtaW46d3Jvbmc="}, "bad basic": {"Basic %%%"}, "two": {"Bearer " + token, "Bearer " + token}, "long": {"Bearer " + strings.Repeat("a.", 8000)},
		"dpop": {"DPoP " + token}, "spaces": {"   "}, "refresh": {"Bearer " + refresh},
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4, DisableCompression: true}}
	defer client.CloseIdleConnections()
	before := n.digest()
	var slowest time.Duration
	ask := func(t *testing.T, method string, h hostile, auth []string) int {
		t.Helper()
		var body io.Reader
		if h.body != nil {
			body = bytes.NewReader(h.body)
			if h.chunked {
				body = struct{ io.Reader }{body}
			}
		}
		req, err := http.NewRequest(h.method, n.URL+"/xrpc/"+method, body)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.RawQuery = strings.ReplaceAll(h.query, "ALICE", url.QueryEscape(did))
		for k, v := range h.header {
			if !strings.Contains(v[0], "\x7f") {
				req.Header[k] = v
			}
		}
		req.Header["Authorization"] = auth
		start := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			// A server may answer and hang up before it has read a body that is too large.
			if len(h.body) > 1<<20 {
				return 0
			}
			t.Fatalf("%s: %v", method, err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
		if err != nil && len(h.body) < 1<<20 {
			t.Errorf("%s: reading the answer: %v", method, err)
		}
		if took := time.Since(start); took > slowest {
			slowest = took
			if took > 20*time.Second { // far beyond what any takes, also with the race detector on a busy machine
				t.Errorf("%s %s took %v", h.what, method, took)
			}
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: no CORS header", method)
		}
		if resp.Header.Get("X-Evil") != "" || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: a header was injected", method)
		}
		if resp.StatusCode/100 == 2 {
			return resp.StatusCode
		}
		if resp.StatusCode >= 500 || resp.StatusCode < 400 {
			t.Errorf("%s: status %d: %.200s", method, resp.StatusCode, answer)
		}
		if h.method == http.MethodHead {
			return resp.StatusCode
		}
		var envelope struct{ Error, Message *string }
		if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
			t.Errorf("%s: %d with content type %q: %.200s", method, resp.StatusCode, kind, answer)
		} else if err := json.Unmarshal(answer, &envelope); err != nil || envelope.Error == nil || *envelope.Error == "" || strings.ContainsAny(*envelope.Error, " \n") {
			t.Errorf("%s: %d with %.200q", method, resp.StatusCode, answer)
		}
		if len(answer) > 16<<10 {
			t.Errorf("%s: an error of %d bytes", method, len(answer))
		}
		return resp.StatusCode
	}
	// What has no input at all, or wishes that need none, may succeed whatever the body; they come last.
	free := map[string]bool{
		"com.atproto.server.deactivateAccount": true, "com.atproto.server.activateAccount": true, "com.atproto.server.reserveSigningKey": true,
		"com.atproto.repo.uploadBlob": true,
	}
	for _, method := range methods {
		t.Run(method, func(t *testing.T) {
			n.t = t
			for who, auth := range tokens {
				for _, h := range requests {
					status := ask(t, method, h, auth)
					if now := n.digest(); now != before {
						if status/100 != 2 || !free[method] {
							t.Errorf("%s, %s: status %d, and something was written", h.what, who, status)
						}
						before = now
					}
				}
			}
			for what, auth := range badTokens {
				for _, verb := range []string{http.MethodGet, http.MethodPost} {
					h := hostile{what: "token " + what, method: verb, query: "repo=alice.test&did=ALICE&collection=app.bsky.feed.post&rkey=self"}
					if verb == http.MethodPost {
						h.header, h.body = http.Header{"Content-Type": {"application/json"}}, []byte("{}")
					}
					if method == "com.atproto.server.refreshSession" || method == "com.atproto.server.deleteSession" {
						if what == "refresh" {
							continue
						}
					}
					status := ask(t, method, h, auth)
					if now := n.digest(); now != before {
						if status/100 != 2 || !free[method] {
							t.Errorf("%s: status %d, and something was written", h.what, status)
						}
						before = now
					}
				}
			}
		})
	}
	n.t = t
	t.Logf("%d methods, slowest answer %v", len(methods), slowest)
}

// A body that breaks off, is not what its encoding says, or comes compressed where nobody unpacks it, is the client's fault.
func TestHostileUploads(t *testing.T) {
	n := newNetwork(t, Config{Memory: true})
	token := n.signedUp("alice").str("accessJwt")
	before := n.digest()
	for _, method := range []string{"com.atproto.repo.uploadBlob", "com.atproto.repo.importRepo", "app.bsky.actor.putPreferences", "com.atproto.repo.createRecord"} {
		for what, rest := range map[string]string{
			"bad chunk":        "Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n0\r\n\r\n",
			"chunk cut short":  "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
			"gzip that isn't":  "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
			"unknown encoding": "Content-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
			"a gzip file":      "Content-Encoding: gzip\r\nContent-Length: " + fmt.Sprint(len(gzipped([]byte("hello")))) + "\r\n\r\n" + string(gzipped([]byte("hello"))),
		} {
			if what == "a gzip file" && method == "com.atproto.repo.uploadBlob" {
				continue // see below
			}
			conn, err := net.Dial("tcp", n.http.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			kind := "application/json"
			if method == "com.atproto.repo.uploadBlob" {
				kind = "image/png"
			}
			fmt.Fprintf(conn, "POST /xrpc/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\n%s", method, token, kind, rest)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Errorf("%s, %s: %v", method, what, err)
				conn.Close()
				continue
			}
			body, _ := io.ReadAll(resp.Body)
			conn.Close()
			if resp.StatusCode/100 != 4 || !strings.Contains(string(body), `"error"`) {
				t.Errorf("%s, %s: %d %s", method, what, resp.StatusCode, body)
			}
		}
	}
	if n.digest() != before {
		t.Error("something was written")
	}
	// A blob that comes compressed for the way is kept unpacked: its CID is that of the blob.
	req, err := http.NewRequest(http.MethodPost, n.URL+"/xrpc/com.atproto.repo.uploadBlob", bytes.NewReader(gzipped([]byte("hello, world"))))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "text/plain")
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if c := cid.Sum(cid.Raw, []byte("hello, world")).String(); resp.StatusCode != 200 || !strings.Contains(string(body), c) {
		t.Errorf("compressed blob: %d %s, want %s", resp.StatusCode, body, c)
	}
}
