package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// publicRelay is the relay that the public network is followed at, unless --relay says otherwise.
const publicRelay = "https://bsky.network"

// networkLocal and networkPublic are the values of --network that aren't folders.
const (
	networkLocal  = "local"
	networkPublic = "public"
)

const userAgent = "barograph (+https://github.com/barograph/baro)"

// networkFlags say where the servers are that a command asks.
type networkFlags struct {
	network, plc, pds, relay string
	zone                     string // file of TXT records; "": that of the data directory of the network
}

// addDirectory adds the flags that say which network it is to a command that names its hosts otherwise, or asks none.
func (f *networkFlags) addDirectory(fl *pflag.FlagSet) {
	fl.StringVar(&f.network, "network", "", "local, public, or the data directory of a network that runs (default: the local one of 'baro up' if it runs, and the public one)")
	fl.StringVar(&f.plc, "plc", "", "URL of the PLC directory (default: that of the network)")
	alsoNamed(fl, "plc", "plc-host")
	alsoVariable(fl, "plc", "ATP_PLC_HOST")
}

// add adds the flags to a command; relay only where it is of use.
func (f *networkFlags) add(fl *pflag.FlagSet, relay bool) {
	f.addDirectory(fl)
	fl.StringVar(&f.pds, "pds", "", "URL of the PDS to ask (default: that of the account)")
	alsoNamed(fl, "pds", "pds-host")
	if relay {
		fl.StringVar(&f.relay, "relay", "", "URL of the relay, or of any host with a stream (default: that of the network)")
		alsoNamed(fl, "relay", "relay-host")
		alsoVariable(fl, "relay", "ATP_RELAY_HOST", "RELAY_HOST")
	}
}

// network is a set of servers that know each other.
type network struct {
	name  string
	local bool   // handles under .test are those of its PDS
	zone  string // file of TXT records of a local network; may be empty
	plc   string // the PLC directory
	pds   string // the PDS of a local network, or the one that the user named; may be empty
	relay string

	guard *netguard.Dialer
	txt   *localResolver
	http  *http.Client // no time limit and no cap on bodies: packages client, auth and stream have their own
	dir   *identity.Directory
}

// networks are those that a command may ask, the first one first.
type networks struct {
	e    *env
	f    networkFlags
	list []*network
}

// testDomain is the top-level domain of local networks.
const testDomain = "test"

// networks finds out which networks there are.
func (e *env) networks(ctx context.Context, f networkFlags) (*networks, error) {
	ns := &networks{e: e, f: f}
	for _, u := range []struct {
		flag  string
		value *string
	}{{"plc", &f.plc}, {"pds", &f.pds}, {"relay", &f.relay}} {
		if *u.value == "" {
			continue
		}
		origin, err := serviceURL(*u.value)
		if err != nil {
			return nil, usagef("--%s: %w", u.flag, err)
		}
		*u.value = origin
	}
	ns.f = f
	if f.network != networkPublic {
		dir := f.network
		if dir == "" || dir == networkLocal {
			var err error
			if dir, err = dataDir(); err != nil && f.network != "" {
				return nil, err
			}
		}
		n, err := e.localNetwork(ctx, dir, f)
		if err != nil && (f.network != "" || ctx.Err() != nil) {
			return nil, err
		}
		if err == nil {
			ns.list = append(ns.list, n)
		} else {
			e.log.Debug("no local network", "err", err)
		}
	}
	if f.network == "" || f.network == networkPublic {
		ns.list = append(ns.list, e.publicNetwork(f))
	}
	return ns, nil
}

// localNetwork is the one of a data directory, if it runs.
func (e *env) localNetwork(ctx context.Context, dir string, f networkFlags) (*network, error) {
	p, ok, err := devnet.Remembered(dir)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, withHint(fmt.Errorf("there is no local network in %s", dir), "start one with 'baro up', or name another data directory with --network")
	}
	at := func(port int) string { return "http://localhost:" + strconv.Itoa(port) }
	zone := cmp.Or(f.zone, filepath.Join(dir, devnet.ZoneFile))
	n := e.newNetwork(networkLocal, zone, cmp.Or(f.plc, at(p.PLC)), cmp.Or(f.pds, at(p.PDS)), cmp.Or(f.relay, at(p.Relay)), true)
	probe, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := comatproto.ServerDescribeServer.Call(probe, n.xrpc(), nil); err != nil {
		return nil, withHint(fmt.Errorf("the local network in %s does not run: %w", dir, err), "start it with 'baro up'")
	}
	return n, nil
}

// publicNetwork is the Internet's, with what the user has named in place of its parts.
func (e *env) publicNetwork(f networkFlags) *network {
	// Whoever names a PLC directory on this machine has a network here, and handles that only its PDS knows.
	local := f.pds != "" && (isLoopback(f.plc) || isLoopback(f.pds))
	return e.newNetwork(networkPublic, f.zone, cmp.Or(f.plc, identity.DefaultPLC), f.pds, cmp.Or(f.relay, publicRelay), local)
}

func (e *env) newNetwork(name, zone, plc, pds, relay string, local bool) *network {
	n := &network{name: name, local: local, zone: zone, plc: plc, pds: pds, relay: relay}
	res := &localResolver{e: e, n: n}
	n.txt = res
	n.guard = netguard.NewDialer(netguard.Options{Resolver: res})
	for _, u := range []string{plc, pds, relay} {
		if u != "" {
			_ = n.guard.Allow(hostPort(u)) // it is an URL that serviceURL has made
		}
	}
	n.http = netguard.Client(n.guard, netguard.ClientOptions{Timeout: -1, HeaderTimeout: time.Minute, Redirects: 3, MaxBody: -1, UserAgent: userAgent})
	n.dir = identity.New(identity.Options{
		HTTP:           netguard.Client(n.guard, netguard.ClientOptions{Redirects: 3, MaxBody: identity.MaxDocument, UserAgent: userAgent}),
		Resolver:       res,
		Now:            e.world.Clock.Now,
		PLC:            plc,
		AllowLocalhost: local,
	})
	return n
}

// localResolver asks the zone and the PDS of a local network for names under .test and those of the zone, and the system for everything
// else.
type localResolver struct {
	e *env
	n *network
}

func (r *localResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	zone, err := r.n.readZone()
	if err != nil {
		return nil, err
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, ok := zone[name]; !ok && syntax.Handle(name[strings.IndexByte(name, '.')+1:]).TLD() != testDomain {
		return r.e.world.Resolver.LookupTXT(ctx, name)
	}
	if !r.n.local {
		return nil, &net.DNSError{Err: "it would be in a local network, and none runs", Name: name, IsNotFound: true}
	}
	return devnet.LookupTXT(ctx, r.n.xrpc(), zone, name)
}

// readZone reads the zone file of a local network, which may have changed since.
func (n *network) readZone() (devnet.Zone, error) {
	if n.zone == "" || !n.local {
		return nil, nil
	}
	return devnet.ReadZone(n.zone)
}

func (r *localResolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if syntax.Handle(strings.TrimSuffix(host, ".")).TLD() == testDomain {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return r.e.world.Resolver.LookupNetIP(ctx, network, host)
}

// serviceURL reads what a user typed for a service: an http or https URL, or a bare host.
func serviceURL(s string) (string, error) {
	t := strings.TrimRight(strings.TrimSpace(s), "/")
	switch scheme, rest, ok := strings.Cut(t, "://"); {
	case !ok && isLoopback("http://"+t):
		t = "http://" + t
	case !ok:
		t = "https://" + t
	case scheme == "wss":
		t = "https://" + rest
	case scheme == "ws":
		t = "http://" + rest
	}
	u, err := url.Parse(t)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.HasSuffix(u.Host, ":") || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not the URL of a service, such as https://pds.example or http://localhost:2583", s)
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

func hostPort(service string) string {
	u, err := url.Parse(service)
	if err != nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		if port = "443"; u.Scheme == "http" {
			port = "80"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func isLoopback(service string) bool {
	u, err := url.Parse(service)
	if err != nil {
		return false
	}
	if strings.EqualFold(u.Hostname(), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback()
}

// account is who a command is about, and where.
type account struct {
	*identity.Identity
	net *network
	pds string // the PDS to ask: the one of the document, or the user's choice
}

// lookup finds an account that has a PDS.
func (ns *networks) lookup(ctx context.Context, id syntax.AtIdentifier) (*account, error) {
	a, err := ns.identify(ctx, id)
	if err == nil && a.pds == "" {
		return nil, fmt.Errorf("%s has no PDS in its DID document: it may have been deleted", id)
	}
	return a, err
}

// lookup finds an account that has a PDS, in the networks that the flags name.
func (e *env) lookup(ctx context.Context, id syntax.AtIdentifier, f networkFlags) (*account, error) {
	ns, err := e.networks(ctx, f)
	if err != nil {
		return nil, err
	}
	return ns.lookup(ctx, id)
}

// identify finds an account: a handle under .test in the local network, another one in the public one, and a DID in either.
func (ns *networks) identify(ctx context.Context, id syntax.AtIdentifier) (*account, error) {
	test := id.Handle().TLD() == testDomain && !id.IsDID()
	var last error
	for _, n := range ns.list {
		if !id.IsDID() && test != n.local && (len(ns.list) > 1 || test) {
			continue
		}
		found, err := n.dir.Lookup(ctx, id)
		if err == nil {
			return &account{Identity: found, net: n, pds: cmp.Or(ns.f.pds, found.PDS)}, nil
		}
		if last = err; identity.KindOf(err) != identity.KindNotFound {
			if dns, ok := errors.AsType[*net.DNSError](err); ok && test && dns.UnwrapErr != nil {
				last = fmt.Errorf("resolving %s: %w", id, dns.UnwrapErr) // nobody else knows it
			}
			break
		}
		if test {
			last = withHint(fmt.Errorf("there is no account %s at %s", id, n.pds), "check the spelling; 'baro account create %s' makes one", id)
		}
	}
	if last == nil {
		return nil, withHint(fmt.Errorf("%s is a handle of a local network, and none runs", id), "start one with 'baro up', or say where it is with --network DIR")
	}
	return nil, last
}

// client returns a client of the account's PDS, without credentials.
func (a *account) client(e *env) *client.Client {
	return client.New(a.pds, client.Options{HTTP: a.net.http, Now: e.world.Clock.Now})
}

// who names an account for people.
func (a *account) who() string {
	if a.Handle == "" || a.Handle == syntax.InvalidHandle {
		return string(a.DID)
	}
	return fmt.Sprintf("%s (%s)", a.Handle, a.DID)
}

// advise adds a hint to errors of the network, and marks failed checks.
func advise(err error) error {
	if err == nil {
		return nil
	}
	var hinted *hintError
	if errors.As(err, &hinted) {
		return err
	}
	var coded *exitError
	if errors.As(err, &coded) {
		return err
	}
	_, verify := errors.AsType[*repo.VerifyError](err)
	_, check := errors.AsType[*partial.CheckError](err)
	if verify || check {
		if broken, ok := errors.AsType[*car.Error](err); ok && broken.Block < 0 {
			err = withHint(err, "is it a CAR file?")
		}
		return notVerified(err)
	}
	if _, ok := errors.AsType[*client.HashError](err); ok {
		return notVerified(err)
	}
	if blocked, ok := errors.AsType[*netguard.BlockedError](err); ok {
		return withHint(err, "if %s is yours, name it with --pds, --plc or --relay", blocked.Host)
	}
	if errors.Is(err, auth.ErrLoginRequired) {
		return withHint(err, "log in with 'baro account login HANDLE'")
	}
	if x, ok := errors.AsType[*xrpc.Error](err); ok {
		switch {
		case x.Name == scopeMissing && x.Status == http.StatusForbidden:
			return withHint(err, "this session may not do that: log in with 'baro account login --oauth', and with more in --scope")
		case x.Status == http.StatusTooManyRequests:
			if d, ok := x.RetryAfter(); ok {
				return withHint(err, "the server limits requests: try again in %s", d)
			}
			return withHint(err, "the server limits requests: try again later")
		case errors.Is(err, comatproto.ErrRepoDeactivated), errors.Is(err, comatproto.ErrRepoTakendown), errors.Is(err, comatproto.ErrRepoSuspended):
			return withHint(err, "the account is not active")
		case x.Name == "DidNotFound":
			return withHint(err, "check the spelling of the DID")
		case x.Status == http.StatusNotImplemented && x.Name == "MethodNotImplemented" && strings.Contains(x.Message, "AppView"):
			return withHint(err, "--appview names one")
		case x.Status == http.StatusNotImplemented:
			return withHint(err, "that server doesn't have the method")
		case x.Status == http.StatusBadGateway, x.Status == http.StatusServiceUnavailable, x.Status == http.StatusGatewayTimeout:
			return withHint(err, "the server, or one behind it, is down or busy: try again later")
		}
	}
	if h, ok := errors.AsType[*stream.HandshakeError](err); ok && h.Status == http.StatusNotFound {
		return withHint(err, "that host has no stream of repositories: name a relay or a PDS with --relay")
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return withHint(err, "nothing listens there: is the server running?")
	}
	switch identity.KindOf(err) {
	case identity.KindNotFound:
		return withHint(err, "check the spelling; an account of a local network needs that network to run")
	case identity.KindUnreachable:
		return withHint(err, "is this machine online? A local network is started with 'baro up'")
	case identity.KindHandleMismatch:
		return withHint(err, "the DID's document names another handle, so the handle can't be believed; use the DID if you are sure of it")
	}
	return err
}

// xrpc returns a client of the network's PDS.
func (n *network) xrpc() *xrpc.Client { return &xrpc.Client{Host: n.pds, HTTP: n.http} }
