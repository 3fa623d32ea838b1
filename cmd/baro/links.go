package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/server/links"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/xrpc"
)

// linksFlags are those of the link index and of its rebuild.
type linksFlags struct{ relay, plc string }

func (f *linksFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.relay, "relay", publicRelay, "URL of the relay to follow, or of a PDS")
	fl.StringVar(&f.plc, "plc", identity.DefaultPLC, "URL of the PLC directory")
}

func (f *linksFlags) check() error {
	if err := serviceURLs("relay", &f.relay); err != nil {
		return err
	}
	return serviceURLs("plc", &f.plc)
}

func newLinks(e *env) *cobra.Command {
	s := &single{name: "links"}
	var f linksFlags
	var publicURL string
	cmd := &cobra.Command{
		Use:     "links",
		Short:   "Run a link index",
		Long:    "Follows a relay, walks every record for links, and answers who links to what, until it is interrupted.",
		Example: "  baro links --relay http://localhost:2470 --plc http://localhost:2582 --allow localhost:2583",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return e.serve(cmd.Context(), s, []string{f.relay, f.plc}, func(url, dir string, w world.World) (server, error) {
				if publicURL == "" {
					publicURL = url
				}
				return links.New(links.Config{
					Dir: dir, Memory: s.memory, RelayURL: f.relay, Directory: identities(f.plc, w), PublicURL: publicURL, Version: version().Version,
				}, w)
			})
		},
	}
	s.flags(cmd, 6789)
	f.add(cmd)
	cmd.Flags().StringVar(&publicURL, "public-url", "", "URL that others reach this server at (default: where it listens)")
	cmd.AddCommand(newLinksRebuild(e))
	return cmd
}

func newLinksRebuild(e *env) *cobra.Command {
	s := &single{name: "links"}
	var f linksFlags
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Build the link index anew from the repositories",
		Long: "Drops the index and fetches every repository anew. The service must not be running.\n" +
			"In the data directory of a local network the other services are started for it, without --relay.",
		Example: "  baro links rebuild\n  baro links rebuild --data /var/lib/baro --relay https://relay.example.net",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			ctx, started := cmd.Context(), e.world.Clock.Now()
			dir, err := s.dir()
			if err != nil {
				return err
			}
			ports, local, err := devnet.Remembered(s.data)
			if err != nil {
				return err
			}
			if _, err := os.Stat(dir); err != nil && !local {
				return withHint(fmt.Errorf("there is no link index in %s: %w", s.data, err), "name its data directory with --data")
			}
			if local && !e.config.given(cmd, "relay") {
				err = devnet.RebuildLinks(ctx, devnet.Options{Dir: s.data, Ports: ports, Log: e.log, Version: version().Version})
			} else {
				w, guardErr := e.guarded(s.allow, []string{f.relay, f.plc})
				if guardErr != nil {
					return guardErr
				}
				var svc *links.Service
				if svc, err = links.New(links.Config{Dir: dir, RelayURL: f.relay, Directory: identities(f.plc, w)}, w); err != nil {
					return err
				}
				defer svc.Close()
				if err := answers(ctx, f.relay, w); err != nil {
					return advise(fmt.Errorf("the link index was left as it is: %w", err))
				}
				err = svc.Rebuild(ctx)
			}
			if err != nil {
				return fmt.Errorf("rebuilding the link index: %w", err)
			}
			fmt.Fprintf(e.stderr, "the link index is rebuilt (%.1f s)\n", e.world.Clock.Now().Sub(started).Seconds())
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&s.data, "data", "", "data directory, of which links uses the folder links (default: baro in the user's data folder)")
	fl.StringSliceVar(&s.allow, "allow", nil, "private host:port that may be connected to (repeat for more)")
	f.add(cmd)
	return cmd
}

// answers asks a relay for its first account, so that nothing is dropped for one that is not there.
func answers(ctx context.Context, relay string, w world.World) error {
	c := &xrpc.Client{Host: relay, HTTP: w.HTTPClient(netguard.ClientOptions{Timeout: 20 * time.Second, UserAgent: userAgent})}
	_, err := comatproto.SyncListRepos.Call(ctx, c, &comatproto.SyncListRepos_Params{Limit: new(int64(1))})
	return err
}
