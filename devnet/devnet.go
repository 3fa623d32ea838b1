// Package devnet runs a whole network in one process: PLC directory, PDS, relay, link index and explorer, on one data directory or in
// memory. It is to the protocol what httptest is to HTTP, and `baro up` is the same code.
//
// The protocol is described at https://atproto.com/specs/atp. Nothing outside is ever asked: handles end in .test and are answered by
// the PDS, and connections go to the servers that were started here and to no other address. It is made for development and tests, not
// for a server that others reach.
//
//	net, err := devnet.Start(ctx, devnet.Options{Memory: true})
//	defer net.Close()
//	c := net.PDS() // an *xrpc.Client
//	out, err := comatproto.ServerCreateAccount.Call(ctx, c, &comatproto.ServerCreateAccount_Input{Handle: "alice.test", …})
//
// The account alice.test is the authority of the lexicons test.alice.*; a zone file adds other TXT records, see [ReadZone].
//
// Identities hold the URL of their PDS, so a data directory remembers its ports, see [Ports]. [Network.PlantDemo] fills a network with
// a small world. Stability: the API is settling.
package devnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/figures"
	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/xrpc"
)

// HandleDomain is the domain that the handles of a network end in.
const HandleDomain = ".test"

// Options say where a network lives. The zero value is not enough: either Dir or Memory is needed.
type Options struct {
	Dir    string // each service has a folder in it
	Memory bool   // keep everything in memory, and nothing after Close

	Ports Ports  // 0: the port that Dir remembers, else a free one
	Bind  string // address to listen on, see CheckBind; default 127.0.0.1

	// Zone is a file of TXT records that the network's DNS has beside those of its handles, see [ReadZone]; it is read again when it
	// changes. Empty: [ZoneFile] in Dir.
	Zone string

	// Allow are other services on this machine, as host:port, that those of the network may reach: an AppView that the PDS passes
	// questions on to, or a feed generator. Their DIDs are such as did:web:localhost%3A3000.
	Allow []string

	Log     *slog.Logger // nil: nothing is logged
	Version string       // told by the services
	// AdminPassword of the PDS and of the relay; when empty, a network with a Dir makes one, in the file pds/secrets/admin.password.
	AdminPassword string
	// OnMail is called for each mail that the PDS sends, with the file that it is in, "" of a network in memory. See [Network.Mails].
	OnMail func(m Mail, file string)
	// Metrics is where the services register their figures, under names such as baro_relay_events_received_total; may be nil.
	Metrics prometheus.Registerer
}

// URLs are the base URLs of the services, without a slash at the end.
type URLs struct {
	PLC      string `json:"plc"`
	PDS      string `json:"pds"`
	Relay    string `json:"relay"`
	Links    string `json:"links"`
	Explorer string `json:"explorer"`
}

// Network is a running network.
type Network struct {
	o     Options
	world world.World
	http  *http.Client
	urls  URLs
	ports Ports
	fresh bool // the data directory was empty
	lock  io.Closer
	demo  *demoState // of a network in memory
	mails *mailer.Folder

	rebuilt chan<- error // gets the outcome when the link index is to be built anew

	services []*service // in the order they are started
	byName   map[string]*service

	failed chan struct{} // closed with err set
	fail   sync.Once
	err    error
	close  sync.Once
	closed error
}

// server is what all servers have in common.
type server interface {
	Handler() http.Handler
	Run(ctx context.Context) error
	Close() error
}

// service is a server of the network and its listener.
type service struct {
	name   string
	stage  int // services of a lower stage outlive those of a higher one
	health string
	make   func() (server, error)

	srv  *httpd.Server
	host string // host:port that others dial
	server
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Times that are chosen for a network on one machine.
const (
	stopTime    = 500 * time.Millisecond // of one stage; there are three
	startTime   = 20 * time.Second
	negativeTTL = time.Second // names appear here at any moment
)

// Start starts a network and returns when every service answers. The context is for starting only; Close stops the network.
func Start(ctx context.Context, o Options) (*Network, error) { return start(ctx, o, nil) }

func start(ctx context.Context, o Options, rebuilt chan<- error) (*Network, error) {
	if o.Dir == "" && !o.Memory {
		return nil, errors.New("starting a network: neither a folder nor memory was asked for")
	}
	if o.Bind == "" {
		o.Bind = "127.0.0.1"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Zone == "" && o.Dir != "" {
		o.Zone = vfs.Default.PathJoin(o.Dir, ZoneFile)
	}
	n := &Network{o: o, rebuilt: rebuilt, byName: map[string]*service{}, failed: make(chan struct{})}
	n.world = world.Real(o.Log)
	if o.Memory {
		n.world.FS = vfs.NewMem()
	}
	n.world.Fatal = func(err error) { n.failWith(fmt.Errorf("the storage failed, nothing more is accepted: %w", err)) }
	if err := n.start(ctx); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Network) start(ctx context.Context) error {
	loopback, err := bindAddress(n.o.Bind)
	if err != nil {
		return err
	}
	if !n.o.Memory {
		if err := n.takeLock(); err != nil {
			return err
		}
	}
	res := &resolver{zone: zoneReader{fs: vfs.Default, path: n.o.Zone}, loopback: loopback}
	if _, err := res.zone.get(); err != nil {
		return err
	}
	guard := netguard.NewDialer(netguard.Options{Resolver: res})
	n.world.Resolver, n.world.Dialer = res, guard
	n.http = n.world.HTTPClient(netguard.ClientOptions{Timeout: time.Minute, MaxBody: -1, UserAgent: "barograph-devnet"})

	n.plan()
	if err := n.listen(); err != nil {
		return err
	}
	for _, s := range n.services {
		if err := guard.Allow(s.host); err != nil {
			return err
		}
	}
	for _, host := range n.o.Allow {
		if err := guard.Allow(host); err != nil {
			return err
		}
	}
	n.urls = URLs{PLC: n.url("plc"), PDS: n.url("pds"), Relay: n.url("relay"), Links: n.url("links"), Explorer: n.url("explorer")}
	res.pds = n.PDS()
	for _, s := range n.services {
		made, err := s.make()
		if err != nil { // made is not nil then but an interface that holds nil
			return fmt.Errorf("starting %s: %w", s.name, err)
		}
		s.server = made
		if reg := n.o.Metrics; reg != nil {
			list := []prometheus.Collector{figures.New(s.name, s.srv.Metrics)}
			if told, ok := made.(interface{ Metrics(*figures.Writer) }); ok {
				list = append(list, figures.New(s.name, told.Metrics))
			}
			for _, c := range list {
				if err := reg.Register(c); err != nil {
					return fmt.Errorf("registering the figures of %s: %w", s.name, err)
				}
			}
		}
		n.serve(s)
	}
	return n.awaitAnswers(ctx)
}

// takeLock makes the data directory and makes sure that no other process uses it.
func (n *Network) takeLock() error {
	fs := n.world.FS
	if err := world.MkdirAll(fs, n.o.Dir); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	lock, err := kv.Lock(fs, n.o.Dir, "network.lock")
	if err != nil {
		return err
	}
	n.lock = lock
	return nil
}

// listen binds the ports of all services, so that every URL is known before any of them starts. Connections wait until they do.
func (n *Network) listen() error {
	remembered, err := n.remembered()
	if err != nil {
		return err
	}
	n.fresh = remembered == nil
	if remembered != nil {
		n.ports = remembered.Ports // also of services that don't run now
	}
	want := n.o.Ports
	if remembered != nil {
		if want.PDS != 0 && want.PDS != remembered.Ports.PDS {
			return &PortChangedError{Dir: n.o.Dir, Port: remembered.Ports.PDS, Wanted: want.PDS}
		}
		want = want.or(remembered.Ports)
	}
	free := n.o.Ports == (Ports{}) && (remembered == nil || remembered.Free)
	for _, s := range n.services {
		port := *want.of(s.name)
		listen := func(port int) (err error) {
			s.srv, err = httpd.Listen(httpd.Options{
				Addr: net.JoinHostPort(n.o.Bind, strconv.Itoa(port)), Name: s.name, Log: n.o.Log, Shutdown: stopTime,
			})
			return err
		}
		err := listen(port)
		var le *httpd.ListenError
		if errors.As(err, &le) && le.InUse && remembered != nil && port == *remembered.Ports.of(s.name) {
			switch {
			case s.name == "pds":
				le.Hint = "the port is in use, and the accounts in " + n.o.Dir + " live at it: stop the program that has it, or choose another data directory"
			case free:
				err = listen(0) // nothing durable names the other services
			}
		}
		if err != nil {
			return err
		}
		*n.ports.of(s.name) = s.srv.Port()
		s.host = net.JoinHostPort("localhost", strconv.Itoa(s.srv.Port()))
	}
	if n.o.Memory || remembered != nil && remembered.Ports == n.ports {
		return nil
	}
	return n.remember(record{Version: recordVersion, Ports: n.ports, Free: free})
}

func (n *Network) url(name string) string {
	if s := n.byName[name]; s != nil {
		return "http://" + s.host
	}
	return ""
}

// serve runs a service until it is stopped or fails.
func (n *Network) serve(s *service) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	run := func(what string, f func() error) {
		s.wg.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				n.failWith(fmt.Errorf("%s: %s: %w", s.name, what, err))
			}
		})
	}
	run("serving", func() error { return s.srv.Run(ctx, s.Handler()) })
	run("running", func() error { return s.Run(ctx) })
}

// awaitAnswers returns when every service answers.
func (n *Network) awaitAnswers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for _, s := range n.services {
		for {
			err := n.ask(ctx, "http://"+s.host+s.health)
			if err == nil {
				break
			}
			select {
			case <-n.failed:
				return n.err
			case <-ctx.Done():
				return fmt.Errorf("starting %s: it does not answer: %w", s.name, err)
			case <-n.world.Clock.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

func (n *Network) ask(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := n.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

func (n *Network) failWith(err error) {
	n.fail.Do(func() {
		n.err = err
		close(n.failed)
	})
}

// Failed is closed when a service stopped by itself; Err tells why.
func (n *Network) Failed() <-chan struct{} { return n.failed }

// Err is why the network failed, nil while it has not.
func (n *Network) Err() error {
	select {
	case <-n.failed:
		return n.err
	default:
		return nil
	}
}

// URLs are where the services answer.
func (n *Network) URLs() URLs { return n.urls }

// PDS is a client of the PDS, without credentials.
func (n *Network) PDS() *xrpc.Client { return &xrpc.Client{Host: n.urls.PDS, HTTP: n.http} }

// HTTP is a client that reaches the services of the network, and nothing else that is private.
func (n *Network) HTTP() *http.Client { return n.http }

// Directory returns a new resolver of the identities of this network.
func (n *Network) Directory() *identity.Directory {
	return identity.New(identity.Options{
		HTTP:           n.world.HTTPClient(netguard.ClientOptions{Redirects: 3, MaxBody: identity.MaxDocument, UserAgent: "barograph-devnet"}),
		Resolver:       n.world.Resolver,
		Now:            n.world.Clock.Now,
		PLC:            n.urls.PLC,
		AllowLocalhost: true,
		TTL:            10 * time.Minute,
		NegativeTTL:    negativeTTL,
		CacheBytes:     8 << 20,
		PLCRate:        10_000,
		HostRate:       10_000,
	})
}

// Close stops the network within two seconds: first the services that others don't need, the PLC directory last. A second call
// returns what the first did.
func (n *Network) Close() error {
	n.close.Do(func() {
		for stage := lastStage; stage >= 0; stage-- {
			for _, s := range n.services {
				if s.stage == stage && s.stop != nil {
					s.stop()
				}
			}
			for _, s := range n.services {
				if s.stage == stage {
					s.wg.Wait()
				}
			}
		}
		var errs []error
		for i := len(n.services) - 1; i >= 0; i-- {
			s := n.services[i]
			if s.srv != nil {
				errs = append(errs, s.srv.Close())
			}
			if s.server != nil {
				if err := s.server.Close(); err != nil {
					errs = append(errs, fmt.Errorf("closing %s: %w", s.name, err))
				}
			}
		}
		if n.http != nil {
			n.http.CloseIdleConnections()
		}
		if n.lock != nil {
			errs = append(errs, n.lock.Close())
		}
		n.closed = errors.Join(errs...)
	})
	return n.closed
}
