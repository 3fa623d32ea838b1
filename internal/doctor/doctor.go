// Package doctor examines a handle, a DID or a host of the network from the outside, and says what is wrong and what helps.
//
// Specifications: https://atproto.com/specs/handle, https://atproto.com/specs/did, https://atproto.com/specs/sync and
// https://atproto.com/specs/event-stream; docs/doctor.md tells what each finding means. It changes nothing, logs in nowhere, and
// believes nobody: commits, labels and logs of operations are verified.
//
//	healthy, err := doctor.Run(ctx, "alice.example.com", doctor.Options{Dialer: guard, Resolver: dns, Now: time.Now, Relays: relays},
//		func(f doctor.Finding) { fmt.Println(f.State, f.Text, f.Hint) })
//
// Limits: 45 s for a target and 8 s for a request, whatever the other side does; 1 MiB of an answer, 64 KiB of a document.
package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// State says how bad a finding is.
type State string

// States of a finding. A failure is something that keeps the target from working; a warning works, for now or for most.
const (
	OK   State = "ok"
	Warn State = "warn"
	Fail State = "fail"
)

// Kind is a sort of finding.
type Kind struct {
	Code    string // never changes
	State   State
	Meaning string // a sentence
	Hint    string // what helps; "" where nothing is wrong. {subject} and {relay} stand for those of the finding
}

// Finding is something that the doctor has found out.
type Finding struct {
	Target  string `json:"target"`          // as it was given to Run
	Code    string `json:"code"`            // of its Kind
	State   State  `json:"state"`           // of its Kind
	Subject string `json:"subject"`         // the handle, DID or host that it is about
	Relay   string `json:"relay,omitempty"` // host of the relay that says so
	Text    string `json:"text"`            // what was seen; may hold words of strangers
	Hint    string `json:"hint,omitempty"`
}

// Options of an examination. Dialer, Resolver and Now are required.
type Options struct {
	Dialer   netguard.ContextDialer // guarded: the names that are looked at come from strangers
	Resolver identity.Resolver
	Now      func() time.Time
	TLS      *tls.Config // for tests with their own authority

	PLC            string   // default identity.DefaultPLC
	Relays         []string // origins of the relays that are asked what they see
	AllowLocalhost bool     // plain HTTP and did:web:localhost are all right: the network is on this machine

	Timeout time.Duration // of the target; default 45 s
	Call    time.Duration // of a request; default 8 s
	Slow    time.Duration // an answer that takes longer deserves a warning; default 3 s
	Quiet   time.Duration // how long a stream may be silent before it counts as quiet; default 3 s
	Settle  time.Duration // and how long between two events of those that it has kept; default 1 s
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		p   *time.Duration
		def time.Duration
	}{{&o.Timeout, 45 * time.Second}, {&o.Call, 8 * time.Second}, {&o.Slow, 3 * time.Second}, {&o.Quiet, 3 * time.Second}, {&o.Settle, time.Second}} {
		if *d.p <= 0 {
			*d.p = d.def
		}
	}
	if o.PLC == "" {
		o.PLC = identity.DefaultPLC
	}
	return o
}

// ErrTarget is wrapped by the error about a target that is neither a handle, nor a DID, nor a host.
var ErrTarget = errors.New("neither a handle, a DID nor a host")

// Run examines one target: a handle or a DID, with an "@" or "at://" in front or not; a host, as an origin such as
// "https://pds.example.com"; or a server for mail, as "smtp://mail.example.com:587" or "smtps://…". A name without a scheme is a handle
// if one resolves, and a host otherwise.
//
// Each finding is reported as soon as there is one; report is never called twice at once. Run says whether nothing has failed. The only
// error is one of the target.
func Run(ctx context.Context, target string, o Options, report func(Finding)) (healthy bool, err error) {
	o = o.withDefaults()
	x := &exam{o: o, target: target, report: report, hosts: map[string]*visit{}}
	look, err := x.parse(target)
	if err != nil {
		return false, err
	}
	x.http = netguard.Client(o.Dialer, netguard.ClientOptions{Timeout: o.Call, HeaderTimeout: o.Call, Redirects: 3, TLS: o.TLS, UserAgent: userAgent})
	x.dir = identity.New(identity.Options{
		HTTP:     netguard.Client(o.Dialer, netguard.ClientOptions{Timeout: o.Call, Redirects: 3, MaxBody: identity.MaxDocument, TLS: o.TLS, UserAgent: userAgent}),
		Resolver: o.Resolver, Now: o.Now, PLC: o.PLC, AllowLocalhost: o.AllowLocalhost, Timeout: o.Call,
	})
	defer x.http.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	look(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		x.find(tookTooLong, target, "not done after %s", o.Timeout)
	}
	return !x.failed, nil
}

const userAgent = "barograph-doctor (+https://github.com/barograph/baro)"

// exam is the examination of one target.
type exam struct {
	o      Options
	target string
	http   *http.Client
	dir    *identity.Directory

	mu     sync.Mutex // held while reporting
	report func(Finding)
	failed bool
	said   []Finding

	hostsMu sync.Mutex
	hosts   map[string]*visit // by origin: each is visited once
}

// parse finds out what a target is.
func (x *exam) parse(target string) (func(context.Context), error) {
	t := strings.TrimSuffix(strings.TrimSpace(target), "/")
	if u, err := url.Parse(t); err == nil && u.Host != "" && u.User == nil && (u.Path == "" || u.Path == "/") && u.RawQuery == "" {
		switch u.Scheme {
		case "http", "https", "ws", "wss":
			origin := map[string]string{"http": "http", "ws": "http", "https": "https", "wss": "https"}[u.Scheme] + "://" + strings.ToLower(u.Host)
			return func(ctx context.Context) { x.host(ctx, origin) }, nil
		case "smtp", "smtps":
			return func(ctx context.Context) { x.mail(ctx, u) }, nil
		}
	}
	name := strings.TrimPrefix(strings.TrimPrefix(t, "at://"), "@")
	if did, err := syntax.ParseDID(name); err == nil {
		return func(ctx context.Context) { x.did(ctx, did, "") }, nil
	}
	if strings.HasPrefix(strings.ToLower(name), "did:") || strings.ContainsAny(name, " /?#") || name == "" || !strings.ContainsAny(name, ".:") && name != "localhost" {
		return nil, fmt.Errorf("%w: %.100q", ErrTarget, target)
	}
	if h, err := syntax.ParseHandle(name); err == nil {
		if name != t { // an "@" or "at://": surely a handle
			return func(ctx context.Context) { x.handle(ctx, h.Normalize()) }, nil
		}
		return func(ctx context.Context) { x.handleOrHost(ctx, h.Normalize()) }, nil
	}
	host := strings.ToLower(name)
	if u, err := url.Parse("https://" + host); err != nil || u.Host != host || u.Hostname() == "" {
		return func(context.Context) { x.find(handleSyntax, name, "%q breaks the rules of handles", name) }, nil
	}
	if strings.Contains(host, ":") || host == "localhost" || strings.Trim(host, "0123456789.") == "" {
		origin := "https://" + host
		if local(host) {
			origin = "http://" + host
		}
		return func(ctx context.Context) { x.host(ctx, origin) }, nil
	}
	return func(context.Context) { x.find(handleSyntax, name, "%q breaks the rules of handles", name) }, nil
}

// find reports a finding.
func (x *exam) find(k *Kind, subject, format string, args ...any) {
	x.findAt(k, subject, "", format, args...)
}

func (x *exam) findAt(k *Kind, subject, relay, format string, args ...any) {
	f := Finding{Target: x.target, Code: k.Code, State: k.State, Subject: subject, Relay: relay, Text: fmt.Sprintf(format, args...)}
	f.Hint = strings.NewReplacer("{subject}", subject, "{relay}", relay).Replace(k.Hint)
	x.mu.Lock()
	defer x.mu.Unlock()
	if slices.Contains(x.said, f) {
		return
	}
	x.said = append(x.said, f)
	x.failed = x.failed || k.State == Fail
	x.report(f)
}

// together runs the parts of an examination at once, and waits for all of them.
func together(parts ...func()) {
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(p)
	}
	wg.Wait()
}

// client calls the methods of a host.
func (x *exam) client(origin string) *xrpc.Client { return &xrpc.Client{Host: origin, HTTP: x.http} }

// hostOf is an origin without its scheme: what relays call a host.
func hostOf(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

// local says whether a host, with a port or not, is this machine by its name.
func local(host string) bool {
	u, err := url.Parse("http://" + host)
	return err == nil && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
}
