package doctor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/doctor"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/label"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// Names of the laboratory: an account, its host, a relay, a labeler and a directory, all of which are well until a test breaks them.
const (
	handle  = "alice.lab.example.com"
	pdsHost = "pds.lab.example.com"
	relay   = "relay.lab.example.com"
	labels  = "labels.lab.example.com"
	plcHost = "plc.lab.example.com"
)

// lab is a network on this machine whose names mean what a test says.
type lab struct {
	t      *testing.T
	now    time.Time
	passed atomic.Int64
	cert   func(notAfter time.Time, names ...string) tls.Certificate
	pool   *x509.CertPool

	txt    map[string][]string
	txtErr error
	mux    map[string]*http.ServeMux // by host
	wrap   map[string]func(http.Handler) http.Handler
	dial   map[string]func(context.Context) (net.Conn, error) // by host:port
	certs  map[string]tls.Certificate

	key, rotation, recovery *keys.PrivateKey
	did                     syntax.DID
	log                     []plc.Entry
	doc                     string // as the directory tells it; "" is that of the log

	head     *repo.Update
	sig      *keys.PrivateKey // that signs commits
	repoSays map[string]func(w http.ResponseWriter, r *http.Request)
	source   *eventSource

	hostStatus, repoStatus string // JSON of the relay
	labels                 []label.Label
}

// eventSource is a stream's log.
type eventSource struct {
	mu     sync.Mutex
	events []stream.Event
	head   int64
}

func (s *eventSource) Head() int64 { s.mu.Lock(); defer s.mu.Unlock(); return s.head }
func (s *eventSource) Floor() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == 0 {
		return s.head + 1
	}
	return s.events[0].Seq
}

func (s *eventSource) Read(ctx context.Context, from int64, max int, dst []stream.Event) ([]stream.Event, error) {
	s.mu.Lock()
	for _, e := range s.events {
		if e.Seq >= from && len(dst) < max {
			dst = append(dst, e)
		}
	}
	s.mu.Unlock()
	if len(dst) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return dst, nil
}

func (s *eventSource) add(did syntax.DID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head++
	s.events = append(s.events, stream.Event{Seq: s.head, Frame: stream.AppendFrame(nil, &stream.Identity{Seq: s.head, DID: string(did), Time: "2026-01-01T00:00:00Z"})})
}

var authority struct {
	once sync.Once
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, now: time.Now(), pool: x509.NewCertPool(), txt: map[string][]string{}, mux: map[string]*http.ServeMux{}, wrap: map[string]func(http.Handler) http.Handler{},
		dial: map[string]func(context.Context) (net.Conn, error){}, certs: map[string]tls.Certificate{}, source: &eventSource{}, repoSays: map[string]func(http.ResponseWriter, *http.Request){}}
	authority.once.Do(func() {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(t, err)
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotBefore: l.now.Add(-1000 * time.Hour), NotAfter: l.now.Add(10000 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		check(t, err)
		authority.cert, err = x509.ParseCertificate(der)
		check(t, err)
		authority.key = key
	})
	l.pool.AddCert(authority.cert)
	l.cert = func(notAfter time.Time, names ...string) tls.Certificate {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: l.now.Add(-500 * time.Hour), NotAfter: notAfter, DNSNames: names}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, authority.cert, authority.key.Public(), authority.key)
		check(t, err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: authority.key}
	}
	var err error
	for _, k := range []**keys.PrivateKey{&l.key, &l.rotation, &l.recovery} {
		*k, err = keys.Generate(keys.K256, rand.Reader)
		check(t, err)
	}
	l.sig = l.key
	l.genesis(func(*plc.Data) {})
	l.txt["_atproto."+handle] = []string{"did=" + string(l.did)}

	l.serve(plcHost, "/", func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/")
		did, what, _ := strings.Cut(path, "/")
		if did != string(l.did) {
			http.Error(w, `{"message":"DID not registered"}`, http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if what == "log/audit" {
			check(t, json.NewEncoder(w).Encode(l.log))
			return
		}
		doc := l.doc
		if state, active, err := plc.Verify(l.did, l.log); doc == "" && err == nil {
			if !active {
				http.Error(w, `{"message":"gone"}`, http.StatusGone)
				return
			}
			doc = string(state.AppendDocument(nil, l.did))
		}
		fmt.Fprint(w, doc)
	})
	l.commit(time.Now())
	l.source.add(l.did)
	l.source.add(l.did)
	l.source.add(l.did)

	ctx, cancel := context.WithCancel(context.Background())
	streams := stream.NewHandler(ctx, l.source, stream.ServeOptions{CloseGrace: 50 * time.Millisecond})
	t.Cleanup(func() { cancel(); streams.Wait() })
	l.xrpc(pdsHost, stream.SubscribeRepos, streams.ServeHTTP)
	l.says(pdsHost, "com.atproto.server.describeServer", 200, `{"did":"did:web:pds.lab.example.com","availableUserDomains":[".lab.example.com"]}`)
	l.xrpc(pdsHost, "com.atproto.sync.getLatestCommit", func(w http.ResponseWriter, r *http.Request) {
		if f := l.repoSays["getLatestCommit"]; f != nil {
			f(w, r)
			return
		}
		if r.URL.Query().Get("did") != string(l.did) {
			reply(w, 400, `{"error":"RepoNotFound","message":"no"}`)
			return
		}
		reply(w, 200, fmt.Sprintf(`{"cid":%q,"rev":%q}`, l.head.CommitCID, l.head.Commit.Rev))
	})
	l.says(pdsHost, "com.atproto.sync.getRepoStatus", 200, `{"did":"did:plc:x","active":true}`)
	l.xrpc(pdsHost, "com.atproto.sync.getBlocks", func(w http.ResponseWriter, r *http.Request) {
		if f := l.repoSays["getBlocks"]; f != nil {
			f(w, r)
			return
		}
		l.blocks(w)
	})
	l.xrpc(pdsHost, "com.atproto.sync.listRepos", func(w http.ResponseWriter, r *http.Request) {
		reply(w, 200, fmt.Sprintf(`{"repos":[{"did":%q,"head":%q,"rev":%q,"active":true}]}`, l.did, l.head.CommitCID, l.head.Commit.Rev))
	})
	l.xrpc(pdsHost, "com.atproto.repo.uploadBlob", func(w http.ResponseWriter, r *http.Request) { reply(w, 401, `{"error":"AuthMissing"}`) })
	l.hostStatus = `{"hostname":"pds.lab.example.com","status":"active","seq":3,"accountCount":1}`
	l.xrpc(relay, "com.atproto.sync.getHostStatus", func(w http.ResponseWriter, r *http.Request) { l.relaySays(w, l.hostStatus) })
	l.xrpc(relay, "com.atproto.sync.getRepoStatus", func(w http.ResponseWriter, r *http.Request) {
		status := l.repoStatus
		if status == "" {
			status = fmt.Sprintf(`{"did":%q,"active":true,"rev":%q}`, l.did, l.head.Commit.Rev)
		}
		l.relaySays(w, status)
	})
	l.says(relay, "com.atproto.sync.listHosts", 200, `{"hosts":[]}`)
	l.xrpc(relay, stream.SubscribeRepos, streams.ServeHTTP)
	l.xrpc(labels, "com.atproto.label.queryLabels", func(w http.ResponseWriter, r *http.Request) {
		out, err := json.Marshal(map[string]any{"labels": append([]label.Label{}, l.labels...)})
		check(t, err)
		reply(w, 200, string(out))
	})
	l.xrpc(labels, "com.atproto.label.subscribeLabels", streams.ServeHTTP)
	return l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func reply(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, body)
}

// relaySays answers with an error if there is one in the body.
func (l *lab) relaySays(w http.ResponseWriter, body string) {
	status := 200
	if strings.Contains(body, `"error"`) {
		status = 400
	}
	reply(w, status, body)
}

func (l *lab) serve(host, pattern string, f http.HandlerFunc) {
	if l.mux[host] == nil {
		l.mux[host] = http.NewServeMux()
		l.certs[host] = l.cert(l.now.Add(1000*time.Hour), host)
		if host != plcHost {
			l.mux[host].HandleFunc("/xrpc/_health", func(w http.ResponseWriter, r *http.Request) { reply(w, 200, `{"version":"lab"}`) })
		}
	}
	l.mux[host].HandleFunc(pattern, f)
}

func (l *lab) xrpc(host, nsid string, f http.HandlerFunc) { l.serve(host, "/xrpc/"+nsid, f) }

func (l *lab) says(host, nsid string, status int, body string) {
	l.xrpc(host, nsid, func(w http.ResponseWriter, r *http.Request) { reply(w, status, body) })
}

// instead has a host answer a path in another way.
func (l *lab) instead(host, path string, f http.HandlerFunc) {
	inner := l.wrap[host]
	l.wrap[host] = func(h http.Handler) http.Handler {
		if inner != nil {
			h = inner(h)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, path) {
				f(w, r)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

// start opens the hosts; nothing is changed after it.
func (l *lab) start() {
	for host, mux := range l.mux {
		if l.dial[host+":443"] != nil {
			continue
		}
		var h http.Handler = mux
		if wrap := l.wrap[host]; wrap != nil {
			h = wrap(h)
		}
		inner := h
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if w.Header().Set("Access-Control-Allow-Origin", "*"); r.Method == http.MethodOptions {
				w.Header().Set("Access-Control-Allow-Headers", "authorization, dpop")
				if l.wrap[host] == nil {
					return
				}
			}
			inner.ServeHTTP(w, r)
		})
		srv := httptest.NewUnstartedServer(h)
		srv.Config.ErrorLog = nil
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{l.certs[host]}, NextProtos: []string{"http/1.1"}}
		srv.StartTLS()
		l.t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
		addr := srv.Listener.Addr().String()
		l.dial[host+":443"] = func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", addr) }
	}
}

func (l *lab) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if f := l.dial[addr]; f != nil {
		return f(ctx)
	}
	host, _, _ := net.SplitHostPort(addr)
	return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
}

func (l *lab) LookupTXT(_ context.Context, name string) ([]string, error) {
	if l.txtErr != nil {
		return nil, l.txtErr
	}
	if v := l.txt[name]; v != nil {
		return v, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// genesis begins the account's identity anew, of two weeks ago.
func (l *lab) genesis(edit func(*plc.Data)) {
	d := plc.AtprotoData(l.key.Public().DIDKey(), handle, "https://"+pdsHost, l.recovery.Public().DIDKey(), l.rotation.Public().DIDKey())
	edit(&d)
	op := plc.NewOperation(d, cid.CID{})
	check(l.t, op.Sign(l.rotation))
	l.did = op.DID()
	l.log = []plc.Entry{{DID: l.did, Operation: op, CID: op.CID(), CreatedAt: l.now.Add(-14 * 24 * time.Hour).UTC().Truncate(time.Millisecond)}}
	l.txt["_atproto."+handle] = []string{"did=" + string(l.did)}
	if l.head != nil {
		l.commit(time.Now())
	}
}

// operate adds an operation of some time ago.
func (l *lab) operate(ago time.Duration, key *keys.PrivateKey, prev int, edit func(*plc.Data)) {
	state, _ := l.log[prev].Operation.State()
	d := state.Clone()
	op := plc.NewTombstone(l.log[prev].CID)
	if edit != nil {
		edit(&d)
		op = plc.NewOperation(d, l.log[prev].CID)
	}
	check(l.t, op.Sign(key))
	at := l.now.Add(-ago).UTC().Truncate(time.Millisecond)
	void, err := plc.Next(l.did, l.log, op, at)
	check(l.t, err)
	for _, i := range void {
		l.log[i].Nullified = true
	}
	l.log = append(l.log, plc.Entry{DID: l.did, Operation: op, CID: op.CID(), CreatedAt: at})
}

// commit makes the account's newest commit.
func (l *lab) commit(at time.Time) {
	rec := cbor.AppendText(cbor.AppendText(cbor.AppendMap(nil, 1), "$type"), "com.example.thing")
	u, _, err := repo.Apply(mst.New(), []repo.Write{{Path: "com.example.thing/a", Record: rec}}, l.did, syntax.NewTID(at.UnixMicro(), 1), l.sig)
	check(l.t, err)
	l.head = u
}

func (l *lab) blocks(w http.ResponseWriter) {
	w.Header().Set("Content-Type", car.MediaType)
	w.Write(car.AppendBlock(car.AppendHeader(nil, l.head.CommitCID), l.head.CommitCID, l.head.Block))
}

func (l *lab) options() doctor.Options {
	return doctor.Options{
		Dialer: l, Resolver: l, Now: l.clock, TLS: &tls.Config{RootCAs: l.pool}, PLC: "https://" + plcHost, Relays: []string{"https://" + relay},
		Timeout: 40 * time.Second, Call: 20 * time.Second, Slow: 15 * time.Second, Quiet: 10 * time.Second, Settle: 50 * time.Millisecond,
	}
}

// clock is the time of the examination, which a host can let pass.
func (l *lab) clock() time.Time { return time.Now().Add(time.Duration(l.passed.Load())) }

// pass is what a slow host does: everybody believes that it took long.
func (l *lab) pass() { l.passed.Store(int64(20 * time.Second)) }

// examine returns the findings about a target.
func (l *lab) examine(target string, edit ...func(*doctor.Options)) map[string]doctor.Finding {
	l.t.Helper()
	l.start()
	o := l.options()
	for _, f := range edit {
		f(&o)
	}
	found := map[string]doctor.Finding{}
	failed := false
	begin := time.Now()
	healthy, err := doctor.Run(l.t.Context(), target, o, func(f doctor.Finding) {
		found[f.Code] = f
		failed = failed || f.State == doctor.Fail
		if f.Target != target || f.Subject == "" || f.Text == "" || (f.State == doctor.OK) != (f.Hint == "") || strings.Contains(f.Hint+f.Text, "{subject}") || strings.Contains(f.Text, "%!") {
			l.t.Errorf("finding %+v", f)
		}
	})
	check(l.t, err)
	if healthy == failed {
		l.t.Errorf("healthy is %v, and something failed: %v", healthy, failed)
	}
	if took := time.Since(begin); took > o.Timeout+2*time.Second {
		l.t.Errorf("the examination took %v", took)
	}
	return found
}

// labeler makes the account a labeler, with a label that somebody has signed.
func (l *lab) labeler(at string, key, signer *keys.PrivateKey) {
	l.genesis(func(d *plc.Data) {
		d.Services["atproto_labeler"] = plc.Service{Type: "AtprotoLabeler", Endpoint: "https://" + at}
		d.VerificationMethods["atproto_label"] = key.Public().DIDKey()
	})
	by := label.Label{Src: string(l.did), URI: "did:web:spam.example.com", Val: "spam", Cts: "2026-01-01T00:00:00Z"}
	check(l.t, by.Sign(signer))
	l.labels = []label.Label{by}
}

func refused(context.Context) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

// silent takes connections and says nothing.
func silent(t *testing.T) func(context.Context) (net.Conn, error) {
	return talking(t, func(c net.Conn) {
		buf := make([]byte, 1024)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	})
}

// talking is a server that speaks no HTTP.
func talking(t *testing.T, say func(net.Conn)) func(context.Context) (net.Conn, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); say(c) }()
		}
	}()
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	}
}
