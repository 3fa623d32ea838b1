package devnet

import (
	"context"
	"errors"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/internal/server/directory"
	"github.com/barograph/baro/internal/server/explorer"
	"github.com/barograph/baro/internal/server/links"
	"github.com/barograph/baro/internal/server/pds"
	"github.com/barograph/baro/internal/server/relay"
	"github.com/barograph/baro/reposync"
)

// The stages in which services stop: the last one first. Within a stage they stop together.
const (
	stagePLC = iota
	stagePDS
	stageFollowers
	lastStage = stageFollowers
)

// Caches are small: five services share a process, and people leave it running.
const (
	plcCache   = 2 << 20
	pdsCache   = 8 << 20
	relayCache = 4 << 20
	linksCache = 4 << 20
)

// plan lists the services in the order they are started, each with what it needs to know of the others.
func (n *Network) plan() {
	var ids *identity.Directory // one cache for those who look up identities
	directoryOf := func() *identity.Directory {
		if ids == nil {
			ids = n.Directory()
		}
		return ids
	}
	operator := "" // the password of who looks after the network, once the PDS has it
	dir := func(name string) string { return n.world.FS.PathJoin(n.o.Dir, name) }
	n.add(&service{name: "plc", stage: stagePLC, health: "/_health", make: func() (server, error) {
		return directory.New(directory.Config{
			Dir: dir("plc"), Memory: n.o.Memory, Version: n.o.Version, CacheBytes: plcCache, NoLimits: true,
		}, n.world)
	}})
	n.add(&service{name: "pds", stage: stagePDS, health: "/xrpc/_health", make: func() (server, error) {
		mails, err := mailer.NewFolder(dir("mail"), "pds@localhost", n.world)
		if err != nil {
			return nil, err
		}
		if told := n.o.OnMail; told != nil {
			mails.Sent = func(m *mailer.Message, path string) {
				if n.o.Memory {
					path = ""
				}
				told(mailOf(m), path)
			}
		}
		n.mails = mails
		s, err := pds.New(pds.Config{
			Mail: mails,
			Dir:  dir("pds"), Memory: n.o.Memory,
			PublicURL: n.urls.PDS, PLCURL: n.urls.PLC, HandleDomains: []string{HandleDomain},
			Version: n.o.Version, AdminPassword: n.o.AdminPassword, Relays: []string{n.urls.Relay},
			Accounts:   pds.AccountConfig{RelaxLoopback: true, LogTokens: true},
			CacheBytes: pdsCache,
		}, n.world)
		if err == nil {
			operator = s.AdminPassword()
		}
		return s, err
	}})
	n.add(&service{name: "relay", stage: stageFollowers, health: "/_health", make: func() (server, error) {
		return relay.New(relay.Config{
			Dir: dir("relay"), Memory: n.o.Memory, Hosts: []string{n.urls.PDS}, Directory: directoryOf(), CacheBytes: relayCache,
			AdminPassword: operator,
		}, n.world)
	}})
	n.add(&service{name: "links", stage: stageFollowers, health: "/_health", make: func() (server, error) {
		s, err := links.New(links.Config{
			Dir: dir("links"), Memory: n.o.Memory, RelayURL: n.urls.Relay, Directory: directoryOf(), PublicURL: n.urls.Links,
			Version: n.o.Version, CacheBytes: linksCache,
			// Everything is near, and somebody waits to see it.
			Sync: reposync.Options{RetryMin: 200 * time.Millisecond, RetryMax: time.Minute, Settle: 100 * time.Millisecond, FetchRate: 120},
		}, n.world)
		if err == nil && n.rebuilt != nil {
			return &rebuilding{s, n.rebuilt}, nil
		}
		return s, err
	}})
	if n.rebuilt != nil {
		return // nobody looks
	}
	n.add(&service{name: "explorer", stage: stageFollowers, health: "/_health", make: func() (server, error) {
		return explorer.New(explorer.Config{
			RelayURL: n.urls.Relay, LinksURL: n.urls.Links, PLCURL: n.urls.PLC, Directory: directoryOf(), AllowLocalhost: true, Version: n.o.Version,
		}, n.world)
	}})
}

func (n *Network) add(s *service) {
	n.services = append(n.services, s)
	n.byName[s.name] = s
}

// rebuilding is a link index that is built anew instead of going on.
type rebuilding struct {
	*links.Service
	done chan<- error
}

func (r *rebuilding) Run(ctx context.Context) error {
	err := r.Rebuild(ctx)
	r.done <- err
	<-ctx.Done()
	return nil
}

// RebuildLinks drops the link index of a network that does not run now and builds it anew from the repositories.
func RebuildLinks(ctx context.Context, o Options) error {
	done := make(chan error, 1)
	n, err := start(ctx, o, done)
	if err != nil {
		return err
	}
	select {
	case err = <-done:
	case <-n.Failed():
		err = n.Err()
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, n.Close())
}
