package doctor_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/internal/doctor"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

var update = flag.Bool("update", false, "write the findings into docs/doctor.md")

// produced are the kinds that tests have seen.
var produced struct {
	sync.Mutex
	codes map[string]bool
}

func saw(found map[string]doctor.Finding) {
	produced.Lock()
	defer produced.Unlock()
	if produced.codes == nil {
		produced.codes = map[string]bool{}
	}
	for code := range found {
		produced.codes[code] = true
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && fullRun() {
		for _, k := range doctor.Kinds() {
			if !produced.codes[k.Code] {
				fmt.Printf("no test produces the finding %s\n", k.Code)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// fullRun says whether all tests were asked for.
func fullRun() bool {
	for _, a := range os.Args {
		if strings.HasPrefix(a, "-test.run") || strings.HasPrefix(a, "-test.fuzz=") || strings.HasPrefix(a, "-test.bench") || strings.HasPrefix(a, "-test.skip") || strings.HasPrefix(a, "-test.list") {
			return false
		}
	}
	return true
}

// bad are the findings that aren't ok.
func bad(found map[string]doctor.Finding) (codes []string) {
	for code, f := range found {
		if f.State != doctor.OK {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}

func TestHealthy(t *testing.T) {
	for _, target := range []string{handle, "@" + handle, "at://" + handle, "DID", "https://" + pdsHost, "wss://" + pdsHost + "/", pdsHost, "https://" + relay, "https://" + labels} {
		l := newLab(t)
		if target == "DID" {
			target = string(l.did)
		}
		found := l.examine(target)
		saw(found)
		if got := bad(found); len(got) > 0 {
			t.Errorf("%s: %v: %+v", target, got, found)
		}
		if len(found) < 4 {
			t.Errorf("%s: only %v", target, slices.Sorted(maps.Keys(found)))
		}
	}
}

// upgrade answers a WebSocket and lets say speak.
func upgrade(say func(*websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		say(c)
	}
}

func event(seq int64) []byte {
	return stream.AppendFrame(nil, &stream.Identity{Seq: seq, DID: "did:web:a.example.com", Time: "2026-01-01T00:00:00Z"})
}

const subscribe = "/xrpc/com.atproto.sync.subscribeRepos"

// cases break one thing each. They name all that is found besides what is ok.
var cases = map[string]struct {
	target string // default: the handle
	broken func(l *lab)
	want   string
	hint   string // part of the hint of the first one
}{
	// Handles.
	"reserved": {"alice.local.invalid", nil, "handle-reserved", "others can resolve"},
	"nothing":  {"at://bob.lab.example.com", nil, "handle-unresolved", `TXT "did=…" at _atproto.bob.lab.example.com`},
	"several DIDs": {"", func(l *lab) {
		l.txt["_atproto."+handle] = []string{"did=" + string(l.did), "other", "did=did:web:b.example.com"}
	}, "handle-dns-several handle-unresolved", ""},
	"no DID in TXT": {"at://" + handle, func(l *lab) { l.txt["_atproto."+handle] = []string{"did= " + string(l.did)} }, "handle-dns-content handle-unresolved", ""},
	"other TXT":     {"at://" + handle, func(l *lab) { l.txt["_atproto."+handle] = []string{string(l.did)} }, "handle-dns-content handle-unresolved", ""},
	"DNS fails": {"at://" + handle, func(l *lab) { l.txtErr = &net.DNSError{Err: "server misbehaving", Name: handle, IsTemporary: true} },
		"handle-dns-error handle-unresolved", "DNSSEC"},
	"web page":         {"at://" + handle, wellKnown(200, "<!doctype html><title>Welcome</title>"), "handle-http-content", "web page"},
	"long page":        {"at://" + handle, wellKnown(200, strings.Repeat("x", 5000)), "handle-http-content", ""},
	"well-known 500":   {"at://" + handle, wellKnown(500, "oops"), "handle-http-error", ""},
	"well-known 404":   {"at://" + handle, wellKnown(404, "oops"), "", ""},
	"conflict":         {"at://" + handle, wellKnown(200, "did:web:other.example.com"), "handle-conflict", "TXT record is the one"},
	"well-known slow":  {"at://" + handle, wellKnownDo(func(l *lab, w http.ResponseWriter) { l.pass(); fmt.Fprint(w, l.did) }), "handle-http-slow", ""},
	"well-known hangs": {"at://" + handle, func(l *lab) { l.dial[handle+":443"] = silent(l.t) }, "handle-http-error", ""},
	"redirect": {"at://" + handle, func(l *lab) {
		wellKnown(302, "")(l)
		l.serve("www.lab.example.com", "/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, l.did, "\n") })
	}, "handle-http-redirect", ""},
	"mismatch": {"", func(l *lab) { l.genesis(func(d *plc.Data) { d.SetHandle("bob.lab.example.com") }) }, "handle-mismatch", "update-handle " + handle},
	"second name": {"", func(l *lab) {
		l.genesis(func(d *plc.Data) { d.AlsoKnownAs = []string{"at://bob.lab.example.com", "at://" + handle} })
	}, "did-several-handles handle-not-first", ""},

	// DIDs.
	"unknown DID":    {"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", nil, "did-not-found", ""},
	"method":         {"did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", nil, "did-method", ""},
	"no such web":    {"did:web:nowhere.example.com", nil, "did-unreachable", "/.well-known/did.json"},
	"malformed":      {"DID", func(l *lab) { l.doc = `{"id":"did:web:other.example.com"}` }, "did-malformed", ""},
	"directory down": {"DID", func(l *lab) { l.dial[plcHost+":443"] = refused }, "did-unreachable", ""},
	"directory slow": {"DID", func(l *lab) {
		l.instead(plcHost, "/", slowly(l, func(w http.ResponseWriter, r *http.Request) { l.mux[plcHost].ServeHTTP(w, r) }))
	}, "did-slow", ""},
	"no key": {"DID", document(func(d string) string { return strings.Replace(d, "#atproto\"", "#other\"", 1) }), "did-no-key", "recommended"},
	"bad key": {"DID", document(func(d string) string {
		return strings.Replace(d, `"publicKeyMultibase":"z`, `"publicKeyMultibase":"y`, 1)
	}), "did-key-invalid", ""},
	"no PDS":     {"DID", document(func(d string) string { return strings.Replace(d, "#atproto_pds", "#other", 1) }), "did-no-pds", ""},
	"bad PDS":    {"DID", document(func(d string) string { return strings.Replace(d, "AtprotoPersonalDataServer", "Server", 1) }), "did-pds-invalid", ""},
	"no handle":  {"DID", func(l *lab) { l.genesis(func(d *plc.Data) { d.AlsoKnownAs = nil }) }, "did-no-handle", ""},
	"bad handle": {"DID", func(l *lab) { l.genesis(func(d *plc.Data) { d.AlsoKnownAs = []string{"at://not a handle"} }) }, "did-handle-invalid", ""},
	"elsewhere":  {"DID", func(l *lab) { l.txt["_atproto."+handle] = []string{"did=did:web:other.example.com"} }, "handle-elsewhere", ""},

	// Logs.
	"ended":      {"DID", func(l *lab) { l.operate(time.Hour, l.recovery, 0, nil) }, "did-tombstoned", ""},
	"forged log": {"DID", func(l *lab) { l.doc = stateOf(l); l.log[0].CreatedAt = l.now; l.log = append(l.log, l.log[0]) }, "plc-log-invalid", ""},
	"no log": {"DID", func(l *lab) {
		l.doc = stateOf(l)
		l.instead(plcHost, "/"+string(l.did)+"/log", status(500))
		l.log = nil
	}, "plc-log-unreachable", ""},
	"differs host": {"DID", document(func(d string) string { return d }, func(l *lab) {
		l.operate(100*time.Hour, l.rotation, 0, func(d *plc.Data) { d.SetPDS("https://old.example.com") })
	}), "plc-document-differs", ""},
	"differs key": {"DID", document(func(d string) string { return d }, func(l *lab) {
		l.operate(100*time.Hour, l.rotation, 0, func(d *plc.Data) { d.SetSigningKey(l.recovery.Public().DIDKey()) })
	}), "plc-document-differs", ""},
	"differs name": {"DID", document(func(d string) string { return d }, func(l *lab) {
		l.operate(100*time.Hour, l.rotation, 0, func(d *plc.Data) { d.SetHandle("bob.example.com") })
	}), "plc-document-differs", ""},
	"just changed": {"DID", func(l *lab) {
		l.operate(time.Hour, l.rotation, 0, func(d *plc.Data) { d.RotationKeys = append(d.RotationKeys, l.key.Public().DIDKey()) })
	}, "plc-recent", "baro plc recover did:plc:"},
	"recovered": {"DID", func(l *lab) {
		l.operate(101*time.Hour, l.rotation, 0, func(d *plc.Data) { d.SetHandle("evil.example.com") })
		l.operate(100*time.Hour, l.recovery, 0, func(d *plc.Data) { d.RotationKeys = append(d.RotationKeys, l.key.Public().DIDKey()) })
	}, "plc-nullified", ""},
	"one key": {"DID", func(l *lab) { l.genesis(func(d *plc.Data) { d.RotationKeys = d.RotationKeys[1:] }) }, "plc-one-rotation-key", "add-rotation-key"},
	"no keys": {"DID", func(l *lab) { l.operate(100*time.Hour, l.rotation, 0, func(d *plc.Data) { d.RotationKeys = nil }) }, "plc-no-rotation-keys", ""},

	// Hosts.
	"no such host": {"https://nowhere.example.com", nil, "host-dns", "A and AAAA"},
	"name servers": {"https://nowhere.example.com", func(l *lab) {
		l.dial["nowhere.example.com:443"] = fails(&net.DNSError{Err: "timeout", IsTimeout: true})
	}, "host-dns", ""},
	"private":  {"DID", func(l *lab) { l.dial[pdsHost+":443"] = fails(&netguard.BlockedError{Host: pdsHost, Reason: "private"}) }, "host-private", ""},
	"refused":  {"DID", func(l *lab) { l.dial[pdsHost+":443"] = refused }, "host-refused", ""},
	"silent":   {"DID", func(l *lab) { l.dial[pdsHost+":443"] = silent(l.t) }, "host-timeout", ""},
	"hangs up": {"DID", func(l *lab) { l.dial[pdsHost+":443"] = talking(l.t, func(net.Conn) {}) }, "host-broken", ""},
	"not HTTPS": {"DID", func(l *lab) {
		l.dial[pdsHost+":443"] = talking(l.t, func(c net.Conn) { c.Read(make([]byte, 1)); fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	}, "host-tls", ""},
	"cert expired":   {"DID", func(l *lab) { l.certs[pdsHost] = l.cert(l.now.Add(-time.Hour), pdsHost) }, "host-tls", "renew"},
	"cert for other": {"DID", func(l *lab) { l.certs[pdsHost] = l.cert(l.now.Add(1000*time.Hour), "other.example.com") }, "host-tls", ""},
	"cert expires":   {"DID", func(l *lab) { l.certs[pdsHost] = l.cert(l.now.Add(100*time.Hour), pdsHost) }, "host-tls-expiry", ""},
	"plain":          {"http://" + pdsHost, nil, "host-dns host-plain", ""},
	"unwell":         {"DID", func(l *lab) { l.instead(pdsHost, "/xrpc/_health", status(503)) }, "host-health", ""},
	"slow":           {"DID", func(l *lab) { l.instead(pdsHost, "/xrpc/_health", slowly(l, status(200))) }, "host-slow", ""},
	"drips": {"DID", func(l *lab) {
		l.instead(pdsHost, "/xrpc/_health", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte{' '}); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}, "host-timeout", ""},
	"clock wrong": {"DID", clockOff(-time.Hour), "host-clock", "NTP"},
	"clock ahead": {"DID", clockOff(2 * time.Minute), "host-clock-off", "NTP"},
	"unknown":     {"https://" + pdsHost, func(l *lab) { l.instead(pdsHost, "/xrpc/com.atproto", status(404)) }, "host-role", "pass all of /xrpc/"},

	// PDS.
	"describes not": {"DID", func(l *lab) { l.instead(pdsHost, "/xrpc/com.atproto.server.describeServer", status(502)) }, "pds-describe", ""},
	"other DID": {"DID", func(l *lab) {
		l.instead(pdsHost, "/xrpc/com.atproto.server.describeServer", func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, `{"did":"did:web:localhost","availableUserDomains":[]}`)
		})
	}, "pds-did", ""},
	"no CORS":        {"DID", cors(func(h http.Header) { h.Del("Access-Control-Allow-Origin") }), "pds-cors", ""},
	"double CORS":    {"DID", cors(func(h http.Header) { h.Add("Access-Control-Allow-Origin", "*") }), "pds-cors", ""},
	"CORS for other": {"DID", cors(func(h http.Header) { h.Set("Access-Control-Allow-Origin", "https://other.example.com") }), "pds-cors", ""},
	"CORS headers":   {"DID", cors(func(h http.Header) { h.Del("Access-Control-Allow-Headers") }), "pds-cors", ""},
	"body limit":     {"DID", func(l *lab) { l.instead(pdsHost, "/xrpc/com.atproto.repo.uploadBlob", status(413)) }, "pds-body-limit", "client_max_body_size"},

	// Streams, and what proxies make of them.
	"stream 404":  {"DID", func(l *lab) { l.instead(pdsHost, subscribe, status(404)) }, "stream-missing", "upgrade"},
	"stream 400":  {"DID", func(l *lab) { l.instead(pdsHost, subscribe, status(400)) }, "stream-no-upgrade", "proxy_set_header Upgrade"},
	"stream 200":  {"DID", func(l *lab) { l.instead(pdsHost, subscribe, status(200)) }, "stream-no-upgrade", ""},
	"stream 426":  {"DID", func(l *lab) { l.instead(pdsHost, subscribe, status(426)) }, "stream-no-upgrade", ""},
	"stream 501":  {"DID", func(l *lab) { l.instead(pdsHost, subscribe, status(501)) }, "stream-refused", "501"},
	"stream 502":  {"DID", func(l *lab) { l.instead(pdsHost, subscribe, status(502)) }, "stream-refused", ""},
	"stream ends": {"DID", func(l *lab) { l.instead(pdsHost, subscribe, upgrade(func(c *websocket.Conn) {})) }, "stream-broken", ""},
	"stream of text": {"DID", func(l *lab) {
		l.instead(pdsHost, subscribe, upgrade(func(c *websocket.Conn) { c.WriteMessage(websocket.TextMessage, []byte("hello")) }))
	}, "stream-broken", ""},
	"stream of rubbish": {"DID", func(l *lab) {
		l.instead(pdsHost, subscribe, upgrade(func(c *websocket.Conn) { c.WriteMessage(websocket.BinaryMessage, []byte{0xff}) }))
	}, "stream-broken", ""},
	"stream of a hole": {"DID", func(l *lab) {
		l.instead(pdsHost, subscribe, upgrade(func(c *websocket.Conn) {
			c.WriteMessage(websocket.BinaryMessage, append(stream.AppendHeader(nil, "#commit"), 0xa1, 0x63, 's', 'e', 'q', 1))
			c.ReadMessage()
		}))
	}, "stream-broken", ""},
	"stream quiet": {"DID", func(l *lab) {
		l.instead(pdsHost, subscribe, upgrade(func(c *websocket.Conn) { c.ReadMessage() }))
	}, "stream-quiet", "buffering"},
	"cursor ignored": {"DID", func(l *lab) {
		l.instead(pdsHost, subscribe, upgrade(func(c *websocket.Conn) {
			c.WriteMessage(websocket.BinaryMessage, event(time.Now().UnixMicro()))
			c.ReadMessage()
		}))
	}, "stream-cursor stream-future-cursor", ""},
	"only at first": {"DID", func(l *lab) {
		l.instead(pdsHost, subscribe, func(w http.ResponseWriter, r *http.Request) {
			upgrade(func(c *websocket.Conn) {
				if r.URL.Query().Get("cursor") == "0" {
					c.WriteMessage(websocket.BinaryMessage, event(7))
				}
				c.ReadMessage()
			})(w, r)
		})
	}, "stream-cursor stream-future-cursor", ""},

	// Repositories.
	"phantom account": {"DID", repoSays("getLatestCommit", 400, `{"error":"RepoNotFound","message":"Could not find repo"}`), "repo-not-found", "baro account migrate"},
	"could not find":  {"DID", repoSays("getLatestCommit", 400, `{"error":"InvalidRequest","message":"Could not find root"}`), "repo-not-found", ""},
	"deactivated":     {"DID", repoSays("getLatestCommit", 400, `{"error":"RepoDeactivated","message":"no"}`), "repo-inactive", "baro account activate"},
	"taken down":      {"DID", repoSays("getLatestCommit", 400, `{"error":"RepoTakendown","message":"no"}`), "repo-inactive", ""},
	"repo 500":        {"DID", repoSays("getLatestCommit", 500, `{"error":"InternalServerError"}`), "repo-error", ""},
	"no block":        {"DID", repoSays("getBlocks", 500, `{}`), "repo-error", ""},
	"foreign key":     {"DID", func(l *lab) { l.sig, _ = keys.Generate(keys.P256, rand.Reader); l.commit(time.Now()) }, "repo-signature", "recommended"},
	"foreign commit":  {"DID", func(l *lab) { did := l.did; l.did = "did:web:other.example.com"; l.commit(time.Now()); l.did = did }, "repo-commit-invalid", ""},
	"wrong rev": {"DID", func(l *lab) {
		l.repoSays["getLatestCommit"] = func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, fmt.Sprintf(`{"cid":%q,"rev":"3aaaaaaaaaa22"}`, l.head.CommitCID))
		}
		l.repoStatus = `{"did":"did:plc:x","active":true,"rev":"3aaaaaaaaaa22"}`
	}, "repo-commit-invalid", ""},
	"rev in the future": {"DID", func(l *lab) { l.commit(time.Now().Add(time.Hour)) }, "repo-future-rev", "clock"},

	// Relays.
	"host unknown":   {"DID", func(l *lab) { l.hostStatus = `{"error":"HostNotFound"}` }, "relay-host-unknown", "baro relay host request-crawl " + pdsHost + " --relay https://" + relay},
	"host idle":      {"DID", relayStatus("idle"), "relay-host-idle", "request-crawl"},
	"host offline":   {"DID", relayStatus("offline"), "relay-host-offline", "request-crawl"},
	"host throttled": {"DID", relayStatus("throttled"), "relay-host-throttled", ""},
	"host banned":    {"DID", relayStatus("banned"), "relay-host-banned", ""},
	"relay ahead":    {"DID", func(l *lab) { l.hostStatus = `{"hostname":"x","status":"active","seq":5000}` }, "relay-seq-ahead", "raise"},
	"relay behind": {"DID", func(l *lab) {
		for range 200 {
			l.source.add(l.did)
		}
	}, "relay-behind", ""},
	"relay down":      {"DID", func(l *lab) { l.dial[relay+":443"] = refused }, "relay-unreachable", ""},
	"relay silent":    {"DID", func(l *lab) { l.dial[relay+":443"] = silent(l.t) }, "relay-unreachable", ""},
	"account unknown": {"DID", func(l *lab) { l.repoStatus = `{"error":"RepoNotFound"}` }, "relay-account-unknown", ""},
	"account drifted": {"DID", func(l *lab) { l.repoStatus = `{"did":"did:plc:x","active":false,"status":"deactivated"}` }, "relay-account-inactive", "activate"},
	"account lost":    {"DID", func(l *lab) { l.repoStatus = `{"did":"did:plc:x","active":true,"status":"desynchronized"}` }, "relay-account-desynchronized", ""},
	"account behind":  {"DID", func(l *lab) { l.repoStatus = `{"did":"did:plc:x","active":true,"rev":"3aaaaaaaaaa22"}` }, "relay-account-behind", ""},
	"account ahead": {"DID", func(l *lab) {
		l.repoStatus = fmt.Sprintf(`{"did":"did:plc:x","active":true,"rev":%q}`, syntax.NewTID(time.Now().Add(time.Minute).UnixMicro(), 3))
	}, "relay-account-ahead", "import the repository"},

	// A host whose own accounts are not well.
	"sample elsewhere": {"https://" + pdsHost, func(l *lab) { l.genesis(func(d *plc.Data) { d.SetPDS("https://new.example.com") }) }, "host-dns repo-not-found", ""},
	"sample nameless":  {"https://" + pdsHost, func(l *lab) { delete(l.txt, "_atproto."+handle) }, "handle-unresolved", ""},

	// Labelers.
	"no label key": {"DID", func(l *lab) {
		l.genesis(func(d *plc.Data) {
			d.Services["atproto_labeler"] = plc.Service{Type: "AtprotoLabeler", Endpoint: "https://" + labels}
		})
	}, "labeler-no-key", "#atproto_label"},
	"no labels": {"DID", func(l *lab) {
		l.labeler(labels, l.key, l.key)
		l.instead(labels, "/xrpc/com.atproto.label.queryLabels", status(500))
	}, "labeler-query", ""},
	"labels":         {"DID", func(l *lab) { l.labeler(labels, l.key, l.key) }, "", ""},
	"labels of host": {"https://" + labels, func(l *lab) { l.labeler(labels, l.key, l.key) }, "", ""},
	"forged labels":  {"DID", func(l *lab) { l.labeler(labels, l.key, l.rotation) }, "labeler-signature", "#atproto_label"},
	"odd labels":     {"DID", func(l *lab) { l.labeler(labels, l.key, l.key); l.labels[0].Cts = "today" }, "labeler-signature", ""},
	"labels of none": {"https://" + labels, func(l *lab) { l.labeler(labels, l.key, l.key); l.labels[0].Src = "did:web:nowhere.example.com" }, "labeler-source", ""},
	"many labels": {"https://" + labels, func(l *lab) {
		l.labeler(labels, l.key, l.key)
		for i := range 20 {
			by := l.labels[0]
			if i >= 4 { // more than were asked for
				by.Src = fmt.Sprintf("did:web:nowhere%d.example.com", i)
			}
			l.labels = append(l.labels, by)
		}
	}, "", ""},
	"labels of other": {"https://" + labels, func(l *lab) { l.labeler("other.example.com", l.key, l.key) }, "labeler-source", "lead here"},
}

func wellKnownDo(f func(l *lab, w http.ResponseWriter)) func(*lab) {
	return func(l *lab) {
		l.serve(handle, "/.well-known/atproto-did", func(w http.ResponseWriter, _ *http.Request) { f(l, w) })
	}
}

func wellKnown(status int, body string) func(*lab) {
	return wellKnownDo(func(_ *lab, w http.ResponseWriter) {
		w.Header().Set("Location", "https://www.lab.example.com/")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		reply(w, code, `{"error":"Lab","message":"says the lab"}`)
	}
}

// slowly lets time pass before a handler.
func slowly(l *lab, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l.pass()
		h(w, r)
	}
}

func fails(err error) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) { return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err} }
}

func stateOf(l *lab) string {
	state, _, err := plc.Verify(l.did, l.log)
	check(l.t, err)
	return string(state.AppendDocument(nil, l.did))
}

// document has the directory tell another document than the log's, which may be changed afterwards.
func document(edit func(string) string, after ...func(*lab)) func(*lab) {
	return func(l *lab) {
		before := stateOf(l)
		if l.doc = edit(before); l.doc == before && len(after) == 0 {
			l.t.Fatalf("nothing was changed in %s", before)
		}
		for _, f := range after {
			f(l)
		}
	}
}

func clockOff(by time.Duration) func(*lab) {
	return func(l *lab) {
		l.instead(pdsHost, "/xrpc/_health", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
			reply(w, 200, `{}`)
		})
	}
}

func cors(edit func(http.Header)) func(*lab) {
	return func(l *lab) {
		l.wrap[pdsHost] = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				edit(w.Header())
				h.ServeHTTP(w, r)
			})
		}
	}
}

func repoSays(method string, status int, body string) func(*lab) {
	return func(l *lab) {
		l.repoSays[method] = func(w http.ResponseWriter, _ *http.Request) { reply(w, status, body) }
	}
}

func relayStatus(status string) func(*lab) {
	return func(l *lab) {
		l.hostStatus = fmt.Sprintf(`{"hostname":"pds.lab.example.com","status":%q,"seq":3}`, status)
	}
}

// patience is what cases need in which somebody is waited for in vain, or in which waiting is the point.
var patience = map[string]func(*doctor.Options){
	"well-known hangs": func(o *doctor.Options) { o.Call = 3 * time.Second },
	"silent":           func(o *doctor.Options) { o.Call = 3 * time.Second },
	"drips":            func(o *doctor.Options) { o.Call = 3 * time.Second },
	"relay silent":     func(o *doctor.Options) { o.Call = 3 * time.Second },
	"stream quiet":     func(o *doctor.Options) { o.Quiet = 2 * time.Second },
	"cursor ignored":   func(o *doctor.Options) { o.Quiet = 2 * time.Second },
	"only at first":    func(o *doctor.Options) { o.Quiet = 2 * time.Second },
	"relay behind":     func(o *doctor.Options) { o.Settle = 2 * time.Second },
}

func TestFindings(t *testing.T) {
	var all errgroup.Group
	all.SetLimit(8) // most of the time is spent waiting
	for name := range cases {
		all.Go(func() error {
			t.Run(name, func(t *testing.T) { testFinding(t, name) })
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}

func testFinding(t *testing.T, name string) {
	c := cases[name]
	l := newLab(t)
	if c.broken != nil {
		c.broken(l)
	}
	target := c.target
	switch target {
	case "":
		target = handle
	case "DID":
		target = string(l.did)
	}
	var edit []func(*doctor.Options)
	if f := patience[name]; f != nil {
		edit = append(edit, f)
	}
	found := l.examine(target, edit...)
	saw(found)
	if got := strings.Join(bad(found), " "); got != c.want {
		t.Errorf("found %q, want %q: %+v", got, c.want, found)
	}
	if _, ok := found["labeler-labels"]; len(l.labels) > 0 && c.want == "" && !ok {
		t.Errorf("no label was verified: %v", found)
	}
	first, _, _ := strings.Cut(c.want, " ")
	if hint := found[first].Hint; !strings.Contains(hint, c.hint) {
		t.Errorf("hint %q, want %q in it", hint, c.hint)
	}
}

func TestSyntaxAndTargets(t *testing.T) {
	l := newLab(t)
	found := l.examine("alice..example.com")
	saw(found)
	if got := bad(found); !slices.Equal(got, []string{"handle-syntax"}) {
		t.Errorf("found %v", got)
	}
	for _, target := range []string{"", "x y", "did:", "did:plc", "alice", "ftp://x", "a/b", "https://user@host", "#"} {
		if _, err := doctor.Run(t.Context(), target, l.options(), func(doctor.Finding) {}); !errors.Is(err, doctor.ErrTarget) {
			t.Errorf("%q: %v", target, err)
		}
	}
}

// A slow resolver is told of, and whatever hangs ends with the time of the examination.
func TestTime(t *testing.T) {
	l := newLab(t)
	slow := slowResolver{l}
	found := l.examine("at://"+handle, func(o *doctor.Options) { o.Resolver = slow })
	saw(found)
	if got := bad(found); !slices.Equal(got, []string{"handle-dns-slow"}) {
		t.Errorf("found %v", got)
	}
	l = newLab(t)
	for _, host := range []string{pdsHost, relay, plcHost, handle} {
		l.dial[host+":443"] = silent(t)
	}
	begin := time.Now()
	found = l.examine(string(l.did), func(o *doctor.Options) { o.Call, o.Timeout = time.Hour, 500*time.Millisecond })
	saw(found)
	if _, ok := found["timeout"]; !ok || time.Since(begin) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), bad(found))
	}
}

type slowResolver struct{ *lab }

func (r slowResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	r.pass()
	return r.lab.LookupTXT(ctx, name)
}

// A change can be voided only by a stronger key than the one that has signed it, and only if there is one.
func TestWhoCanVoid(t *testing.T) {
	for _, c := range []struct {
		key  func(*lab) *keys.PrivateKey
		want string
	}{
		{func(l *lab) *keys.PrivateKey { return l.rotation }, "a stronger key can void it until "},
		{func(l *lab) *keys.PrivateKey { return l.recovery }, "nobody can void it"},
	} {
		l := newLab(t)
		l.operate(time.Hour, c.key(l), 0, func(d *plc.Data) { d.RotationKeys = append(d.RotationKeys, l.key.Public().DIDKey()) })
		if got := l.examine(string(l.did))["plc-recent"].Text; !strings.Contains(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// docs/doctor.md tells of every finding, in the words of the program.
func TestDocs(t *testing.T) {
	name := filepath.Join(fixtures.Root(), "docs", "doctor.md")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		const begin, end = "<!-- findings -->\n", "<!-- end of findings -->\n"
		head, rest, _ := strings.Cut(string(b), begin)
		_, tail, ok := strings.Cut(rest, end)
		if !ok {
			t.Fatal("docs/doctor.md has no place for the findings")
		}
		out := head + begin + "| finding | state | what it means | what helps |\n|---|---|---|---|\n"
		for _, k := range doctor.Kinds() {
			out += strings.TrimSuffix(fmt.Sprintf("| `%s` | %s | %s | %s", k.Code, k.State, k.Meaning, k.Hint), " ") + " |\n"
		}
		b = []byte(out + end + tail)
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (ok|warn|fail) \\| (.*?) \\| (.*?) ?\\|$")
	var got, want []string
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		got = append(got, strings.Join(m[1:], "|"))
	}
	for _, k := range doctor.Kinds() {
		want = append(want, strings.Join([]string{k.Code, string(k.State), k.Meaning, k.Hint}, "|"))
		if (k.State == doctor.OK) != (k.Hint == "") || !strings.HasSuffix(k.Meaning, ".") || strings.ContainsAny(k.Meaning+k.Hint, "|\n") {
			t.Errorf("kind %+v", k)
		}
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("docs/doctor.md doesn't tell of %s", want[i])
		case i >= len(want):
			t.Fatalf("docs/doctor.md tells of %s, which is no finding", got[i])
		case got[i] != want[i]:
			t.Fatalf("docs/doctor.md says\n%s\nwant\n%s", got[i], want[i])
		}
	}
}

func ExampleRun() {
	o := doctor.Options{
		Dialer: netguard.NewDialer(netguard.Options{}), Resolver: nowhere{}, Now: time.Now,
	}
	healthy, err := doctor.Run(context.Background(), "@alice.invalid", o, func(f doctor.Finding) { fmt.Println(f.State, f.Code, f.Text) })
	fmt.Println(healthy, err)
	// Output:
	// fail handle-reserved alice.invalid is below .invalid
	// false <nil>
}

type nowhere struct{}

func (nowhere) LookupTXT(context.Context, string) ([]string, error) {
	return nil, errors.New("offline")
}
