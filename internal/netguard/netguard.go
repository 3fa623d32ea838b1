// Package netguard holds the one dialer and the one HTTP client that outgoing connections of the servers go through, so
// that a name or URL taken from the network cannot make a server talk to itself, to its neighbours or to the metadata
// service of its host.
//
// The names come from many places of the protocol (https://atproto.com/specs/did, https://atproto.com/specs/handle,
// https://atproto.com/specs/oauth, https://atproto.com/specs/sync): DID documents, handles, client metadata, crawl
// requests. The guard decides on the address that is about to be connected to, after name resolution, and not on how
// the name was spelled. It does not limit rates and does not cache.
//
//	d := netguard.NewDialer(netguard.Options{})
//	d.Allow("127.0.0.1:2583") // a server that this program started
//	c := netguard.Client(d, netguard.ClientOptions{Timeout: 10 * time.Second, MaxBody: 64 << 10})
//	resp, err := c.Get("https://example.com/.well-known/did.json")
//
// Limits: resolution gives at most [MaxAddresses] addresses to try; proxies of the environment are never used.
package netguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MaxAddresses is how many addresses of one name are tried before the dial fails.
const MaxAddresses = 8

// Resolver finds the addresses of a host. A *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options say how a [Dialer] connects. The zero value uses the system resolver and refuses every non-public address.
type Options struct {
	Resolver Resolver      // nil: the system's
	Timeout  time.Duration // of resolution and connection together; 0: 10 s
	Allow    []string      // exact host:port pairs, see [Dialer.Allow]
}

// BlockedError says that a connection was refused before it was made.
type BlockedError struct {
	Host   string     // as asked for, host:port
	Addr   netip.Addr // what the name led to; zero when the name itself was refused
	Reason string
}

func (e *BlockedError) Error() string {
	if e.Addr.IsValid() && e.Addr.String() != hostOf(e.Host) {
		return fmt.Sprintf("refusing to connect to %q at %s: %s", e.Host, e.Addr, e.Reason)
	}
	return fmt.Sprintf("refusing to connect to %q: %s", e.Host, e.Reason)
}

func hostOf(hostport string) string {
	h, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport
	}
	return h
}

// Dialer connects to public addresses, and to exactly those other host:port pairs that were allowed. It is safe for
// concurrent use.
type Dialer struct {
	resolver Resolver
	timeout  time.Duration

	mu    sync.RWMutex
	allow map[string]int // normalised host:port → how often it was allowed
}

// NewDialer makes a guarded dialer. It panics on a pair in o.Allow that is not host:port: such a list is a constant of
// the program.
func NewDialer(o Options) *Dialer {
	d := &Dialer{resolver: o.Resolver, timeout: o.Timeout, allow: map[string]int{}}
	if d.resolver == nil {
		d.resolver = net.DefaultResolver
	}
	if d.timeout <= 0 {
		d.timeout = 10 * time.Second
	}
	for _, hp := range o.Allow {
		if err := d.Allow(hp); err != nil {
			panic(err)
		}
	}
	return d
}

// Allow lets one host:port pair be dialed whatever address it leads to. The pair must be asked for in just this host
// and port: allowing "127.0.0.1:2583" does not allow "localhost:2583", nor another name that resolves to it. Each Allow
// is taken back by one [Dialer.Disallow].
func (d *Dialer) Allow(hostport string) error {
	key, err := allowKey(hostport)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.allow[key]++
	d.mu.Unlock()
	return nil
}

// Disallow takes one Allow of the pair back.
func (d *Dialer) Disallow(hostport string) {
	key, err := allowKey(hostport)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.allow[key]--; d.allow[key] <= 0 {
		delete(d.allow, key)
	}
}

// Allowed says whether the pair was allowed.
func (d *Dialer) Allowed(hostport string) bool {
	key, err := allowKey(hostport)
	if err != nil {
		return false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.allow[key] > 0
}

func allowKey(hostport string) (string, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", fmt.Errorf("allowing a host: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if host == "" || err != nil || n == 0 {
		return "", fmt.Errorf("allowing %q: want host:port with a number from 1 to 65535", hostport)
	}
	// A literal is kept in its one canonical spelling; a name is folded. An IPv4-mapped IPv6 literal stays what it is, so
	// that allowing one spelling does not allow the other.
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.String()
	} else {
		host = strings.ToLower(host)
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

// DialContext connects to addr (host:port) over network ("tcp", "tcp4" or "tcp6"), after having checked each address
// that the host leads to. All addresses of a name must be public, so that a name that mixes public and private ones is
// refused instead of being tried.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ipNetwork := "ip"
	switch network {
	case "tcp":
	case "tcp4":
		ipNetwork = "ip4"
	case "tcp6":
		ipNetwork = "ip6"
	default:
		return nil, &BlockedError{Host: addr, Reason: "only TCP is allowed"}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dialing %q: %w", addr, err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()

	allowed := d.Allowed(addr)
	if !allowed {
		if reason := CheckHost(host); reason != "" {
			return nil, &BlockedError{Host: addr, Reason: reason}
		}
	}
	ips, err := d.lookup(ctx, ipNetwork, host)
	if err != nil {
		return nil, fmt.Errorf("resolving %q: %w", host, err)
	}
	if !allowed {
		for _, ip := range ips {
			if reason := CheckAddr(ip); reason != "" {
				return nil, &BlockedError{Host: addr, Addr: ip, Reason: reason}
			}
		}
	}
	if len(ips) > MaxAddresses {
		ips = ips[:MaxAddresses]
	}
	// The address that was checked is the address that is dialed: there is no second lookup that could answer otherwise.
	// Control looks once more at what the kernel is given.
	nd := net.Dialer{ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return &BlockedError{Host: addr, Reason: "the address to connect to cannot be read"}
		}
		if reason := CheckAddr(ap.Addr()); reason != "" && !allowed {
			return &BlockedError{Host: addr, Addr: ap.Addr(), Reason: reason}
		}
		return nil
	}}
	var errs []error
	for i, ip := range ips {
		// Each address gets its share of the time that is left, so that one that does not answer leaves some for the next.
		conn, err := dialShare(ctx, &nd, network, net.JoinHostPort(ip.String(), port), len(ips)-i)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("dialing %q: %w", addr, errors.Join(errs...))
}

func dialShare(ctx context.Context, nd *net.Dialer, network, address string, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		share := time.Until(deadline) / time.Duration(left)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(share, 200*time.Millisecond))
		defer cancel()
	}
	return nd.DialContext(ctx, network, address)
}

func (d *Dialer) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ips, err := d.resolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	return ips, nil
}
