package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/server/pds"
	"github.com/barograph/baro/internal/world"
)

func newPDS(e *env) *cobra.Command {
	s := &single{name: "pds"}
	var c pds.Config
	var proxies []string
	var mail mailFlags
	cmd := &cobra.Command{
		Use:   "pds",
		Short: "Run a personal data server, or ask one",
		Long: "Runs a host of accounts, their repositories and blobs, https://atproto.com/specs/atp, until it is interrupted.\n\n" +
			"The commands below it ask a PDS that runs, here or elsewhere. Its operator looks after it with 'baro pds admin'; the first start\n" +
			"without a password in its configuration makes one and says where it is.",
		Example: "  baro pds --public-url https://pds.example.com --handle-domain .example.com --relay https://relay.example.net\n" +
			"  baro pds --plc http://localhost:2582 --handle-domain .test",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.Accounts.TrustedProxies, err = prefixes(proxies); err != nil {
				return err
			}
			if err := serviceURLs("plc", &c.PLCURL); err != nil {
				return err
			}
			for i := range c.Relays {
				if err := serviceURLs("relay", &c.Relays[i]); err != nil {
					return err
				}
			}
			if c.AppViewURL != "" {
				if c.AppView == "" {
					return usagef("--appview is missing: which service, did#service, is at %s?", c.AppViewURL)
				}
				if err := serviceURLs("appview-url", &c.AppViewURL); err != nil {
					return err
				}
			}
			if c.PublicURL == "" && !isLoopback("http://"+s.listen) {
				return usagef("--public-url is missing: how do others reach a server that listens on %s?", s.listen)
			}
			if (c.PublicURL == "" || isLoopback(c.PublicURL)) && !e.config.given(cmd, "plc") {
				return usagef("--plc is missing: accounts that only this machine can reach do not belong into the public directory ('baro plc' runs one; --public-url is for a server that others reach)")
			}
			named := append([]string{c.PLCURL}, c.Relays...)
			if c.AppViewURL != "" {
				named = append(named, c.AppViewURL)
			}
			if err := mail.check(); err != nil {
				return err
			}
			return e.serve(cmd.Context(), s, named, func(url, dir string, w world.World) (server, error) {
				c := c
				c.Dir, c.Memory, c.Version = dir, s.memory, version().Version
				if c.PublicURL == "" {
					c.PublicURL = url
				}
				if len(c.HandleDomains) == 0 {
					if !isLoopback(c.PublicURL) {
						return nil, fmt.Errorf("--handle-domain is missing: under which domain do accounts get handles?")
					}
					c.HandleDomains = []string{".test"}
				}
				c.Accounts.RelaxLoopback = isLoopback(c.PublicURL)
				var err error
				if c.Mail, err = mail.sender(c.PublicURL, w); err != nil {
					return nil, err
				}
				svc, err := pds.New(c, w)
				if err == nil && svc.MadeAdminPassword() != "" {
					fmt.Fprintf(e.stderr, "baro: the administrator's password is in %s\n", svc.MadeAdminPassword())
				}
				if err != nil {
					return nil, err
				}
				return svc, nil
			})
		},
	}
	s.flags(cmd, 2583)
	fl := cmd.Flags()
	fl.StringVar(&c.PublicURL, "public-url", "", "URL that others reach this server at (default: where it listens)")
	fl.StringSliceVar(&c.HandleDomains, "handle-domain", nil, "domain below which accounts get handles (repeat for more; default on localhost: .test)")
	fl.StringVar(&c.PLCURL, "plc", identity.DefaultPLC, "PLC directory")
	fl.StringSliceVar(&c.Relays, "relay", nil, "URL of a relay that is asked to crawl this server (repeat for more)")
	fl.StringVar(&c.AppView, "appview", "", "service, did#service, that methods of app.bsky go to; refused without one")
	fl.StringVar(&c.AppViewURL, "appview-url", "", "URL of the AppView (default: what its DID document says)")
	fl.BoolVar(&c.BareAudience, "bare-audience", false, "name only the DID in tokens for services that requests are passed on to, as services before 2026 want it")
	fl.BoolVar(&c.InviteRequired, "invite-required", false, "make accounts only with an invite code")
	fl.StringVar(&c.AdminPassword, "admin-password", "", "password of the user admin")
	neverOnCommandLine(fl, "admin-password")
	fl.StringVar(&c.ContactEmail, "contact-email", "", "told by describeServer")
	fl.StringVar(&c.PrivacyPolicyURL, "privacy-policy-url", "", "told by describeServer")
	fl.StringVar(&c.TermsURL, "terms-url", "", "told by describeServer")
	fl.StringSliceVar(&proxies, "trusted-proxy", nil, "network whose X-Forwarded-For is believed, such as 10.0.0.0/8 (repeat for more)")
	fl.StringVar(&c.Accounts.RecoveryKey, "recovery-key", "", "did:key that new identities list above the server's own")
	fl.BoolVar(&c.Accounts.LogTokens, "log-tokens", false, "write the codes that mails carry to the log, for development")
	mail.add(fl)
	cmd.AddCommand(newPDSDescribe(e), newPDSAccount(e), newPDSAdmin(e))
	fl.Int64Var(&c.MaxBlobBytes, "max-blob-bytes", 100<<20, "size of the largest blob")
	fl.Int64Var(&c.AccountBytes, "account-bytes", 50<<30, "bytes that the records and blobs of one account may take")
	fl.Int64Var(&c.MaxImportBytes, "max-import-bytes", 2<<30, "size of the largest repository that can be imported")
	fl.DurationVar(&c.TempBlobAge, "temp-blob-age", 6*time.Hour, "how long an uploaded blob may stay unreferenced, one hour at least")
	fl.DurationVar(&c.EventRetention, "event-retention", 72*time.Hour, "how long events can be replayed")
	fl.Int64Var(&c.EventBytes, "event-bytes", 4<<30, "bytes of events that are kept at most")
	return cmd
}
