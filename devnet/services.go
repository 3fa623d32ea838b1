package devnet

import (
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/server/directory"
	"github.com/barograph/baro/internal/server/pds"
	"github.com/barograph/baro/internal/server/relay"
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
	dir := func(name string) string { return n.world.FS.PathJoin(n.o.Dir, name) }
	n.add(&service{name: "plc", stage: stagePLC, health: "/_health", make: func() (server, error) {
		return directory.New(directory.Config{
			Dir: dir("plc"), Memory: n.o.Memory, Version: n.o.Version, CacheBytes: plcCache, NoLimits: true,
		}, n.world)
	}})
	n.add(&service{name: "pds", stage: stagePDS, health: "/xrpc/_health", make: func() (server, error) {
		return pds.New(pds.Config{
			Dir: dir("pds"), Memory: n.o.Memory,
			PublicURL: n.urls.PDS, PLCURL: n.urls.PLC, HandleDomains: []string{HandleDomain},
			AdminPassword: n.o.AdminPassword, Relays: []string{n.urls.Relay},
			Accounts:   pds.AccountConfig{RelaxLoopback: true, LogTokens: true},
			CacheBytes: pdsCache,
		}, n.world)
	}})
	n.add(&service{name: "relay", stage: stageFollowers, health: "/_health", make: func() (server, error) {
		return relay.New(relay.Config{
			Dir: dir("relay"), Memory: n.o.Memory, Hosts: []string{n.urls.PDS}, Directory: directoryOf(), CacheBytes: relayCache,
		}, n.world)
	}})
}

func (n *Network) add(s *service) {
	n.services = append(n.services, s)
	n.byName[s.name] = s
}
