package devnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/xrpc"
)

// resolver is the DNS of a network: it knows the zone, the handles of the PDS and this machine, and asks nobody about anything else.
type resolver struct {
	zone     zoneReader
	pds      *xrpc.Client
	loopback netip.Addr // where localhost is
}

var _ world.Resolver = (*resolver)(nil)

func notFound(name string) error {
	return &net.DNSError{Err: "no such host in this network", Name: name, IsNotFound: true}
}

// LookupTXT answers by the zone, and by the handles of the PDS.
func (r *resolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	zone, err := r.zone.get()
	if err != nil {
		return nil, &net.DNSError{Err: err.Error(), UnwrapErr: err, Name: name, IsTemporary: true}
	}
	return LookupTXT(ctx, r.pds, zone, name)
}

// LookupNetIP answers for localhost, where all the services are.
func (r *resolver) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if !strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") || network == "ip6" && r.loopback.Is4() || network == "ip4" && r.loopback.Is6() {
		return nil, notFound(host)
	}
	return []netip.Addr{r.loopback}, nil
}

// CheckBind says whether a network can listen on an address. Its services name each other as localhost, in the DID documents of the
// accounts too, so it has to be an address that this name leads to: 127.0.0.1, ::1, or 0.0.0.0 or :: for all of the machine.
func CheckBind(address string) error {
	_, err := bindAddress(address)
	return err
}

// bindAddress returns the address of localhost for a network that listens on another.
func bindAddress(bind string) (netip.Addr, error) {
	switch bind {
	case "", "localhost", "127.0.0.1", "0.0.0.0":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	case "::1", "::":
		return netip.IPv6Loopback(), nil
	}
	return netip.Addr{}, fmt.Errorf("cannot listen on %q: want 127.0.0.1 or ::1, or 0.0.0.0 or :: for all addresses, since the services name each other as localhost", bind)
}
