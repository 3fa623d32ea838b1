package main

import (
	"github.com/spf13/cobra"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/server/explorer"
	"github.com/barograph/baro/internal/world"
)

func newExplorer(e *env) *cobra.Command {
	s := &single{name: "explorer"}
	var c explorer.Config
	cmd := &cobra.Command{
		Use:     "explorer",
		Short:   "Run the pages that show a network",
		Long:    "Serves web pages that show accounts, repositories, records with their proofs, and what happens now, until it is interrupted.",
		Example: "  baro explorer\n  baro explorer --relay http://localhost:2470 --links http://localhost:6789 --plc http://localhost:2582 --allow localhost:2583",
		RunE: func(cmd *cobra.Command, _ []string) error {
			named := []string{}
			for flag, u := range map[string]*string{"relay": &c.RelayURL, "links": &c.LinksURL, "plc": &c.PLCURL} {
				if flag == "links" && *u == "" {
					continue
				}
				if err := serviceURLs(flag, u); err != nil {
					return err
				}
				named = append(named, *u)
			}
			return e.serve(cmd.Context(), s, named, func(_, _ string, w world.World) (server, error) {
				c := c
				c.Directory, c.AllowLocalhost, c.Version = identities(c.PLCURL, w), isLoopback(c.PLCURL), version().Version
				return explorer.New(c, w)
			})
		},
	}
	s.flags(cmd, 2500)
	fl := cmd.Flags()
	fl.StringVar(&c.RelayURL, "relay", publicRelay, "URL of the relay to watch")
	fl.StringVar(&c.LinksURL, "links", "", "URL of a link index (default: none, and no backlinks are shown)")
	fl.StringVar(&c.PLCURL, "plc", identity.DefaultPLC, "URL of the PLC directory")
	return cmd
}
