package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/server/relay"
	"github.com/barograph/baro/internal/world"
)

func newRelay(e *env) *cobra.Command {
	s := &single{name: "relay"}
	var c relay.Config
	var plc string
	cmd := &cobra.Command{
		Use:     "relay",
		Short:   "Run a relay",
		Long:    "Follows hosts, verifies every event and offers all of them as one stream, https://atproto.com/specs/sync, until it is interrupted.",
		Example: "  baro relay --follow pds.example.com\n  baro relay --follow http://localhost:2583 --plc http://localhost:2582",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := serviceURLs("plc", &plc); err != nil {
				return err
			}
			for i := range c.Hosts {
				if err := serviceURLs("follow", &c.Hosts[i]); err != nil {
					return err
				}
			}
			named := append([]string{plc}, c.Hosts...)
			return e.serve(cmd.Context(), s, named, func(_, dir string, w world.World) (server, error) {
				c := c
				c.Dir, c.Memory, c.Directory = dir, s.memory, identities(plc, w)
				return relay.New(c, w)
			})
		},
	}
	s.flags(cmd, 2470)
	fl := cmd.Flags()
	fl.StringSliceVar(&c.Hosts, "follow", nil, "host to follow from the start, a name or a URL (repeat for more)")
	fl.StringVar(&plc, "plc", identity.DefaultPLC, "PLC directory")
	fl.DurationVar(&c.Retention, "event-retention", 72*time.Hour, "how long events can be replayed")
	fl.Int64Var(&c.MaxBytes, "event-bytes", 0, "bytes of events that are kept at most (0: no limit)")
	fl.IntVar(&c.NewHostsPerDay, "new-hosts-per-day", 50, "hosts that requestCrawl may add in a day (-1: none)")
	fl.Int64Var(&c.AccountLimit, "account-limit", 100, "accounts of a host that was not named here")
	fl.IntVar(&c.Workers, "workers", 4, "events that are verified at the same time")
	return cmd
}
