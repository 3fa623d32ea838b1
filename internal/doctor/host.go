package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/xrpc"
)

// Bounds of what is still all right.
const (
	clockWarn = 30 * time.Second
	clockFail = 5 * time.Minute // from which on relays refuse commits
	certWarn  = 14 * 24 * time.Hour
	bodyProbe = 5 << 20 // the smallest blob that every PDS takes
)

// visit is what was found out about a host, once.
type visit struct {
	once sync.Once
	up   bool
}

// host examines a host that is named as the target: whatever it is.
func (x *exam) host(ctx context.Context, origin string) {
	if !x.reach(ctx, origin) {
		return
	}
	var describe *comatproto.ServerDescribeServer_Output
	var relay, labeler bool
	together(
		func() { describe, _ = comatproto.ServerDescribeServer.Call(ctx, x.client(origin), nil) },
		func() {
			_, err := comatproto.SyncListHosts.Call(ctx, x.client(origin), &comatproto.SyncListHosts_Params{Limit: new(int64(1))})
			relay = err == nil
		},
		func() { labeler = x.answersLabels(ctx, origin) },
	)
	switch {
	case relay:
		x.find(relayServer, hostOf(origin), "%s is a relay", hostOf(origin))
		together(func() { x.stream(ctx, origin, stream.SubscribeRepos) }, func() { x.cors(ctx, origin) })
	case describe != nil:
		var sample string
		together(func() { x.pds(ctx, origin, describe) }, func() { sample = x.sample(ctx, origin) }, func() { x.seenByRelays(ctx, origin) })
		if sample != "" {
			x.sampled(ctx, origin, sample)
		}
	case labeler:
		x.labeler(ctx, origin, nil)
	default:
		x.find(hostUnknown, hostOf(origin), "%s answers neither as a PDS, nor as a relay, nor as a labeler", origin)
	}
}

// home examines the host of an account, and the account there.
func (x *exam) home(ctx context.Context, doc docOf) {
	origin := doc.PDS
	if !x.reach(ctx, origin) {
		return
	}
	together(
		func() {
			describe, err := comatproto.ServerDescribeServer.Call(ctx, x.client(origin), nil)
			if err != nil {
				x.find(pdsBroken, hostOf(origin), "%s: %v", origin, plain(err))
			} else {
				x.pds(ctx, origin, describe)
			}
		},
		func() { x.seenByRelays(ctx, origin) },
		func() { x.account(ctx, origin, doc) },
	)
}

// serves says whether a host is there, without a word.
func (x *exam) serves(ctx context.Context, origin string) bool {
	resp, err := x.get(ctx, origin+"/xrpc/_health")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK || resp.StatusCode >= 500
}

// reach examines what all hosts have in common, and says whether it makes sense to go on.
func (x *exam) reach(ctx context.Context, origin string) bool {
	x.hostsMu.Lock()
	v := x.hosts[origin]
	if v == nil {
		v = &visit{}
		x.hosts[origin] = v
	}
	x.hostsMu.Unlock()
	v.once.Do(func() { v.up = x.visit(ctx, origin) })
	return v.up
}

func (x *exam) visit(ctx context.Context, origin string) bool {
	host := hostOf(origin)
	if strings.HasPrefix(origin, "http://") && !(local(host) && x.o.AllowLocalhost) {
		x.find(hostPlain, host, "%s is plain HTTP", origin)
	}
	start := x.o.Now()
	resp, err := x.get(ctx, origin+"/xrpc/_health")
	if err != nil {
		k, text := x.unreachable(err)
		x.find(k, host, "%s: %s", origin, text)
		return false
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	resp.Body.Close()
	end := x.o.Now()
	if err != nil {
		k, text := x.unreachable(err)
		x.find(k, host, "%s begins to answer, and then: %s", origin, text)
		return false
	}
	x.find(hostUp, host, "%s answers %s", origin, resp.Status)
	if resp.StatusCode != http.StatusOK {
		x.find(hostHealth, host, "%s/xrpc/_health answers %s: %.100q", origin, resp.Status, strings.TrimSpace(string(body)))
	}
	if took := end.Sub(start); took > x.o.Slow {
		x.find(hostSlow, host, "it took %.1f s", took.Seconds())
	}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		until := resp.TLS.PeerCertificates[0].NotAfter
		if left := until.Sub(end); left < certWarn {
			x.find(hostTLSSoon, host, "its certificate expires on %s", until.UTC().Format(time.DateOnly))
		} else {
			x.find(hostTLSGood, host, "its certificate is valid until %s", until.UTC().Format(time.DateOnly))
		}
	}
	x.clock(host, resp.Header.Get("Date"), start, end)
	return true
}

// clock compares the time of a host with ours. The header has full seconds, and was written between the two times.
func (x *exam) clock(host, date string, start, end time.Time) {
	t, err := http.ParseTime(date)
	if err != nil {
		return // none is not wrong
	}
	off := time.Duration(0)
	switch {
	case t.Add(time.Second).Before(start):
		off = t.Add(time.Second).Sub(start)
	case t.After(end):
		off = t.Sub(end)
	}
	switch away := max(off, -off); {
	case away >= clockFail:
		x.find(hostClock, host, "its clock is %s %s", away.Round(time.Second), ahead(off))
	case away >= clockWarn:
		x.find(hostClockOff, host, "its clock is %s %s", away.Round(time.Second), ahead(off))
	default:
		x.find(hostClockOK, host, "its clock agrees with that of this machine")
	}
}

func ahead(d time.Duration) string {
	if d > 0 {
		return "ahead of that of this machine"
	}
	return "behind that of this machine"
}

// unreachable finds out why there is no answer.
func (x *exam) unreachable(err error) (*Kind, string) {
	text := plain(err).Error()
	if _, ok := errors.AsType[*netguard.BlockedError](err); ok {
		return hostPrivate, text
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsTimeout {
			return hostDNS, "the name servers don't answer"
		}
		return hostDNS, text
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(text, "server gave HTTP response to HTTPS client") {
		return hostTLS, "it answers plain HTTP at the port for HTTPS"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return hostTLS, "its certificate expired on " + invalid.Cert.NotAfter.UTC().Format(time.DateOnly)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return hostTLS, text
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return hostTLS, text
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return hostRefused, "the connection is refused"
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return hostTimeout, "no answer within " + x.o.Call.String()
	}
	return hostBroken, text
}

// plain takes the address off an error of HTTP, which says it twice.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// pds examines what a PDS has to offer.
func (x *exam) pds(ctx context.Context, origin string, d *comatproto.ServerDescribeServer_Output) {
	host := hostOf(origin)
	text := "it is a PDS"
	if len(d.AvailableUserDomains) > 0 {
		text += " with handles below " + join(d.AvailableUserDomains)
	}
	x.find(pdsFound, host, "%.300s", text)
	if name, _, _ := strings.Cut(host, ":"); string(d.Did) != "did:web:"+strings.ReplaceAll(host, ":", "%3A") && string(d.Did) != "did:web:"+name {
		x.find(pdsDID, host, "it calls itself %.200s", d.Did)
	}
	together(
		func() { x.stream(ctx, origin, stream.SubscribeRepos) },
		func() { x.cors(ctx, origin) },
		func() { x.bodies(ctx, origin) },
	)
}

// cors looks whether pages of other origins may call a host, as apps in browsers do.
func (x *exam) cors(ctx context.Context, origin string) {
	host, path := hostOf(origin), xrpc.Path(comatproto.ServerDescribeServer.NSID)
	try := func(method string) (problem string, known bool) {
		req, err := http.NewRequestWithContext(ctx, method, origin+path, nil)
		if err != nil {
			return "", false
		}
		req.Header.Set("Origin", pageOrigin)
		if method == http.MethodOptions {
			req.Header.Set("Access-Control-Request-Method", http.MethodGet)
			req.Header.Set("Access-Control-Request-Headers", "authorization,dpop")
		}
		resp, err := x.http.Do(req)
		if err != nil {
			return "", false
		}
		resp.Body.Close()
		allowed := resp.Header.Values("Access-Control-Allow-Origin")
		headers := strings.ToLower(strings.Join(resp.Header.Values("Access-Control-Allow-Headers"), ","))
		switch {
		case len(allowed) == 0:
			return method + " is answered without Access-Control-Allow-Origin", true
		case len(allowed) > 1 || strings.Contains(allowed[0], ","):
			return method + " is answered with two Access-Control-Allow-Origin, which browsers refuse: both the proxy and the server add one", true
		case allowed[0] != "*" && allowed[0] != pageOrigin:
			return method + " is allowed for others only", true
		case method == http.MethodOptions && (resp.StatusCode < 200 || resp.StatusCode > 299):
			return "OPTIONS is answered with " + resp.Status, true
		case method == http.MethodOptions && !strings.Contains(headers, "authorization"):
			return "OPTIONS doesn't allow the header Authorization", true
		}
		return "", true
	}
	good := true
	for _, method := range []string{http.MethodGet, http.MethodOptions} {
		problem, known := try(method)
		if problem != "" {
			x.find(pdsCORS, host, "%s", problem)
		}
		good = good && known && problem == ""
	}
	if good {
		x.find(pdsCORSGood, host, "pages of all origins may call it")
	}
}

// bodies looks whether what is as large as a picture gets through to the server, which refuses it for want of a login.
func (x *exam) bodies(ctx context.Context, origin string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, origin+xrpc.Path(comatproto.RepoUploadBlob.NSID), bytes.NewReader(make([]byte, bodyProbe)))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Expect", "100-continue") // who refuses it by its length doesn't get it
	resp, err := x.http.Do(req)
	if err != nil {
		return // refused in the middle, or slow: neither tells of a limit
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusRequestEntityTooLarge:
		x.find(pdsBody, hostOf(origin), "a body of %d MiB is answered with %s", bodyProbe>>20, resp.Status)
	case http.StatusUnauthorized, http.StatusBadRequest, http.StatusForbidden:
		x.find(pdsBodyGood, hostOf(origin), "bodies of %d MiB get through", bodyProbe>>20)
	}
}
