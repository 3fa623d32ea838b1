// Package world is what a service is given instead of the machine it runs on: a clock, a filesystem, a dialer, a name
// resolver, a source of randomness and a logger.
//
// It has no specification page; it exists so that a test can bend time, lose unsynced writes, answer DNS questions and
// count connections, and so that the local network can serve names that exist nowhere else. It does not hold service
// configuration, and it opens nothing by itself.
//
//	w := world.Real(slog.Default())
//	clock := world.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
//	w.Clock = clock
//	svc, err := pds.New(cfg, w)
//	clock.Advance(72 * time.Hour)
//
// The dialer of [Real] refuses private addresses; see package netguard for how a program allows the ones it started.
package world

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/netguard"
)

// ExitStorage is the exit code of a process that stopped because its own storage can no longer be trusted.
const ExitStorage = 4

// FS is the filesystem seam that kv and blob write through. vfs.Default is the real one; vfs.NewMem and
// vfs.NewCrashableMem are the ones for tests.
type FS = vfs.FS

// Dialer opens outgoing connections. A *netguard.Dialer is one.
type Dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Resolver answers the two DNS questions that the protocol asks: TXT records for handles, and addresses for hosts.
// A *net.Resolver is one.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// World is the surroundings of a service. All fields are set by [Real]; a test replaces those it wants to control.
type World struct {
	Clock    Clock
	FS       FS
	Dialer   Dialer
	Resolver Resolver
	Rand     io.Reader
	Log      *slog.Logger

	// Fatal is called when the process must stop because its own storage failed: an fsync error, a failed write to the
	// write-ahead log. Nothing is acked after it. Real's logs one line and exits with [ExitStorage].
	Fatal func(error)
}

// Real is the machine: the system clock, the disk, a guarded dialer that allows no private address, the system
// resolver, the system's randomness and the given logger (nil discards).
func Real(log *slog.Logger) World {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return World{
		Clock:    System,
		FS:       vfs.Default,
		Dialer:   netguard.NewDialer(netguard.Options{}),
		Resolver: net.DefaultResolver,
		Rand:     rand.Reader,
		Log:      log,
		Fatal: func(err error) {
			log.Error("storage failed, stopping before anything unsafe is acked", "err", err)
			os.Exit(ExitStorage)
		},
	}
}

// HTTPClient makes the guarded HTTP client that all outgoing requests of a service go through.
func (w World) HTTPClient(o netguard.ClientOptions) *http.Client {
	return netguard.Client(w.Dialer, o)
}

var (
	_ Resolver = (*net.Resolver)(nil)
	_ Dialer   = (*netguard.Dialer)(nil)
)
