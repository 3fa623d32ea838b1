package main

import (
	"cmp"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/server/relay"
	"github.com/barograph/baro/internal/world"
)

func newRelay(e *env) *cobra.Command {
	s := &single{name: "relay"}
	var c relay.Config
	var proxies []string
	var f networkFlags
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Run a relay, or ask one",
		Long: "Follows hosts, verifies every event and offers all of them as one stream, https://atproto.com/specs/sync, until it is interrupted.\n\n" +
			"The commands below it ask a relay that runs, here or elsewhere. Its operator steers it with 'baro relay admin', once the relay was\n" +
			"started with a password (BARO_ADMIN_PASSWORD) or a token (BARO_ADMIN_TOKEN).",
		Example: "  baro relay --follow pds.example.com\n  baro relay --follow http://localhost:2583 --plc http://localhost:2582\n" +
			"  baro relay host status pds.example.com\n  BARO_ADMIN_PASSWORD=… baro relay admin host block spam.example.com",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range []string{"network", "pds", "relay"} {
				if fl := cmd.Flags().Lookup(name); fl.Changed {
					return usagef("--%s is for the commands below 'baro relay', and this one runs a relay", name)
				}
			}
			var err error
			if c.TrustedProxies, err = prefixes(proxies); err != nil {
				return err
			}
			plc := cmp.Or(f.plc, identity.DefaultPLC)
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
	fl.DurationVar(&c.Retention, "event-retention", 72*time.Hour, "how long events can be replayed")
	fl.Int64Var(&c.MaxBytes, "event-bytes", 0, "bytes of events that are kept at most (0: no limit)")
	fl.IntVar(&c.NewHostsPerDay, "new-hosts-per-day", 50, "hosts that requestCrawl may add in a day (-1: none)")
	fl.Int64Var(&c.AccountLimit, "account-limit", 100, "accounts of a host that was not named here")
	fl.IntVar(&c.Workers, "workers", 4, "events that are verified at the same time")
	fl.StringVar(&c.AdminPassword, "admin-password", "", "password of the user admin")
	neverOnCommandLine(fl, "admin-password")
	alsoVariable(fl, "admin-password", relayPasswordVariables...)
	fl.StringVar(&c.AdminToken, "admin-token", "", "bearer token of the operator")
	neverOnCommandLine(fl, "admin-token")
	alsoVariable(fl, "admin-token", relayTokenVariable)
	fl.StringSliceVar(&proxies, "trusted-proxy", nil, "network whose X-Forwarded-For is believed, such as 10.0.0.0/8 (repeat for more)")
	f.add(cmd.PersistentFlags(), true)
	cmd.AddCommand(newRelayAccount(e, &f), newRelayHost(e, &f), newRelayAdmin(e, &f))
	return cmd
}
