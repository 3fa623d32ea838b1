package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/figures"
	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// What the runtime is asked to do in a process that is mostly idle: collect earlier than by default, so that what a burst took does
// not stay.
const (
	gcPercent   = 50
	memoryLimit = 1 << 30 // soft: only makes the collector work harder
)

func tuneRuntime() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// dataDir is where the data of this user is, by the XDG base directory rules.
func dataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "baro"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", withHint(fmt.Errorf("looking for the user's data folder: %w", err), "say which one with --data")
	}
	return filepath.Join(home, ".local", "share", "baro"), nil
}

// server is what all servers have in common.
type server interface {
	Handler() http.Handler
	Run(ctx context.Context) error
	Close() error
}

// single are the flags of a service that runs alone.
type single struct {
	name      string
	data      string
	memory    bool
	listen    string
	debugAddr string
	allow     []string
}

func (s *single) flags(cmd *cobra.Command, port int) {
	fl := cmd.Flags()
	if s.name != "explorer" {
		fl.StringVar(&s.data, "data", "", "data directory, of which "+s.name+" uses the folder "+s.name+" (default: baro in the user's data folder)")
		fl.BoolVar(&s.memory, "memory", false, "keep everything in memory, and nothing afterwards")
	}
	fl.StringVar(&s.listen, "listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "host:port to listen on; port 0 takes a free one")
	fl.StringVar(&s.debugAddr, "debug-addr", "", "host:port for profiles and metrics (default: none)")
	fl.StringSliceVar(&s.allow, "allow", nil, "private host:port that may be connected to (repeat for more)")
}

// dir is the folder of the service.
func (s *single) dir() (string, error) {
	if s.memory {
		return "", nil
	}
	if s.data == "" {
		dir, err := dataDir()
		if err != nil {
			return "", err
		}
		s.data = dir
	}
	return filepath.Join(s.data, s.name), nil
}

// serve runs one service until ctx ends. The servers in named are those of its configuration.
func (e *env) serve(ctx context.Context, s *single, named []string, start func(url, dir string, w world.World) (server, error)) error {
	tuneRuntime()
	dir, err := s.dir()
	if err != nil {
		return err
	}
	w, err := e.guarded(s.allow, named)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	w.Fatal = func(err error) {
		select {
		case failed <- fmt.Errorf("the storage failed, nothing more is accepted: %w", err):
		default:
		}
	}
	reg := processFigures()
	stopDebug, err := e.debugServer(ctx, s.debugAddr, reg)
	if err != nil {
		return err
	}
	defer stopDebug()
	srv, err := httpd.Listen(httpd.Options{Addr: s.listen, Name: s.name, Log: e.log})
	if err != nil {
		return err
	}
	defer srv.Close()
	at := srv.URL()
	if srv.Addr().Addr().IsLoopback() {
		at = "http://" + net.JoinHostPort("localhost", strconv.Itoa(srv.Port()))
	}
	svc, err := start(at, dir, w)
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	reg.MustRegister(figures.New(s.name, srv.Metrics))
	if told, ok := svc.(interface{ Metrics(*figures.Writer) }); ok {
		reg.MustRegister(figures.New(s.name, told.Metrics))
	}
	eg, run := errgroup.WithContext(ctx)
	eg.Go(func() error { return srv.Run(run, svc.Handler()) })
	eg.Go(func() error { return svc.Run(run) })
	eg.Go(func() error {
		select {
		case err := <-failed:
			return err
		case <-run.Done():
			return nil
		}
	})
	if e.json {
		err = json.NewEncoder(e.stdout).Encode(map[string]string{s.name: at})
	} else {
		_, err = fmt.Fprintf(e.stdout, "%s is up at %s\n", s.name, at)
	}
	eg.Go(func() error { return err })
	err = ignoreCanceled(eg.Wait())
	return first(err, svc.Close())
}

// guarded is the machine as a service sees it, whose connections go to public addresses, to what the operator allowed and to the servers
// that the operator named.
func (e *env) guarded(allow, named []string) (world.World, error) {
	here := &handlesHere{Resolver: e.world.Resolver}
	guard := netguard.NewDialer(netguard.Options{Resolver: here})
	here.http = netguard.Client(guard, netguard.ClientOptions{Timeout: 5 * time.Second})
	for _, hp := range allow {
		if err := guard.Allow(hp); err != nil {
			return world.World{}, usagef("--allow: %w", err)
		}
	}
	for _, n := range named {
		if err := guard.Allow(hostPort(n)); err != nil {
			return world.World{}, err
		}
	}
	w := e.world
	w.Dialer = guard
	for _, n := range named {
		if isLoopback(n) {
			here.hosts = append(here.hosts, n)
		}
	}
	for _, hp := range allow {
		if isLoopback("http://" + hp) {
			here.hosts = append(here.hosts, "http://"+hp)
		}
	}
	w.Resolver = here
	return w, nil
}

// handlesHere resolves handles and authorities under .test, which no DNS knows, by asking the servers on this machine that the operator
// named. Everything else goes to the resolver of the machine.
type handlesHere struct {
	world.Resolver
	hosts []string
	http  *http.Client
}

func (r *handlesHere) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if !strings.HasSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), devnet.HandleDomain) {
		return r.Resolver.LookupTXT(ctx, name)
	}
	for _, host := range r.hosts {
		if v, err := devnet.LookupTXT(ctx, &xrpc.Client{Host: host, HTTP: r.http}, nil, name); err == nil {
			return v, nil
		}
	}
	return nil, &net.DNSError{Err: "no such handle on this machine", Name: name, IsNotFound: true}
}

// LookupNetIP does not ask for names that exist only here.
func (r *handlesHere) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if syntax.Handle(strings.ToLower(strings.TrimSuffix(host, "."))).TLD() == testDomain {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return r.Resolver.LookupNetIP(ctx, network, host)
}

// serviceURLs reads what the operator typed for the servers that a service asks, in place.
func serviceURLs(flag string, urls ...*string) error {
	for _, u := range urls {
		origin, err := serviceURL(*u)
		if err != nil {
			return usagef("--%s: %w", flag, err)
		}
		*u = origin
	}
	return nil
}

// prefixes reads the networks of --trusted-proxy.
func prefixes(networks []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, n := range networks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, usagef("--trusted-proxy: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// identities makes the resolver of a service that runs alone.
func identities(plc string, w world.World) *identity.Directory {
	return identity.New(identity.Options{
		HTTP:           w.HTTPClient(netguard.ClientOptions{Redirects: 3, MaxBody: identity.MaxDocument, UserAgent: "barograph"}),
		Resolver:       w.Resolver,
		Now:            w.Clock.Now,
		PLC:            plc,
		AllowLocalhost: isLoopback(plc),
	})
}

// processFigures are those of the process itself, to which services add theirs.
func processFigures() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// debugServer serves profiles and metrics until the result is called.
func (e *env) debugServer(ctx context.Context, addr string, g prometheus.Gatherer) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	srv, err := httpd.Listen(httpd.Options{Addr: addr, Name: "debug", Log: e.log})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(e.stderr, "baro: profiles and metrics at %s\n", srv.URL())
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Run(ctx, httpd.Debug(g)); err != nil {
			e.log.Error("the debug port failed", "err", err)
		}
	})
	return func() { cancel(); wg.Wait() }, nil
}

// ignoreCanceled leaves out the error of what was told to end.
func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
