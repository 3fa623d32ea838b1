package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/internal/netguard"
)

// Variables of goat for the credentials of a relay's operator.
var relayPasswordVariables = []string{"RELAY_ADMIN_PASSWORD", "ATP_AUTH_ADMIN_PASSWORD"}

const relayTokenVariable = "RELAY_ADMIN_BEARER_TOKEN"

// relayAdmin is what commands of a relay's operator are given.
type relayAdmin struct {
	*networkFlags
	password, token         string
	passwordFile, tokenFile string
}

func newRelayAdmin(e *env, rf *networkFlags) *cobra.Command {
	f := &relayAdmin{networkFlags: rf}
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "Steer a relay, as its operator",
		Long: "Takes accounts down, shuts hosts out and changes limits at a relay. Credentials are never arguments, which\n" +
			"others on this machine could see: they come from BARO_ADMIN_PASSWORD or BARO_ADMIN_BEARER_TOKEN, the configuration, or a file; the\n" +
			"password of the network of 'baro up' is found by itself. What is decided holds at once, and after a restart of the relay too.",
		Example: "  export BARO_ADMIN_PASSWORD=…\n  baro relay admin account takedown spam.example.com\n  baro relay admin host list",
	}
	pf := cmd.PersistentFlags()
	pf.StringVar(&f.password, adminPasswordFlag, "", "password of the relay's user admin")
	neverOnCommandLine(pf, adminPasswordFlag)
	alsoVariable(pf, adminPasswordFlag, relayPasswordVariables...)
	pf.StringVar(&f.passwordFile, "admin-password-file", "", "file whose first line is the password of the relay's user admin")
	pf.StringVar(&f.token, "admin-bearer-token", "", "token of the relay's operator")
	neverOnCommandLine(pf, "admin-bearer-token")
	alsoVariable(pf, "admin-bearer-token", relayTokenVariable)
	pf.StringVar(&f.tokenFile, "admin-bearer-token-file", "", "file whose first line is the token of the relay's operator")

	accounts := &cobra.Command{Use: "account", Short: "Accounts that are taken down", Long: "Takes accounts down at the relay, and lists those that are.",
		Example: "  baro relay admin account takedown did:plc:ewvi7nxzyoun6zhxrhs64oiz\n  baro relay admin account list"}
	accounts.AddCommand(newRelayTakedown(e, f), relayRows(e, f, &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the accounts that are taken down", Long: "Lists the accounts whose events the relay keeps back.",
		Example: "  baro relay admin account list",
	}, func(ctx context.Context, c *adminClient) error { return e.relayTakedowns(ctx, c) }))

	hosts := &cobra.Command{Use: "host", Short: "Hosts that the relay follows, or not", Long: "Adds hosts, shuts them out, changes their limits, and lists them with what the operator may see.",
		Example: "  baro relay admin host list\n  baro relay admin host block pds.example.com\n  baro relay admin host config pds.example.com --account-limit 1000"}
	hosts.AddCommand(newRelayHostAdd(e, f), newRelayBlock(e, f), relayRows(e, f, &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the hosts of the relay, one JSON object in a line",
		Long:    "Lists the hosts with what only the operator is told: limits, connections, rates, who is shut out.",
		Example: "  baro relay admin host list | jq -r 'select(.Blocked) | .Host'",
	}, func(ctx context.Context, c *adminClient) error { return e.adminRows(ctx, c, "/admin/pds/list") }), newRelayConfig(e, f))

	domains := &cobra.Command{Use: "domain", Short: "Domains that are shut out", Long: "Shuts all hosts of a domain out, and lists the domains that are.",
		Example: "  baro relay admin domain ban spam.example\n  baro relay admin domain list"}
	domains.AddCommand(newRelayBan(e, f), relayRows(e, f, &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the domains that are shut out", Long: "Lists the domains of which the relay follows no host.",
		Example: "  baro relay admin domain list",
	}, func(ctx context.Context, c *adminClient) error { return e.relayBans(ctx, c) }))

	consumers := &cobra.Command{Use: "consumer", Short: "Who listens to the relay", Long: "Shows the connections that follow the relay's stream.", Example: "  baro relay admin consumer list"}
	consumers.AddCommand(relayRows(e, f, &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List who listens to the relay, one JSON object in a line", Long: "Lists the connections to the relay's stream: address, program, and how far each has come.",
		Example: "  baro relay admin consumer list | jq -r '[.remote_addr, .events_consumed] | @tsv'",
	}, func(ctx context.Context, c *adminClient) error { return e.adminRows(ctx, c, "/admin/consumers/list") }))

	cmd.AddCommand(accounts, hosts, domains, consumers)
	return cmd
}

// relayRows completes a command that lists something.
func relayRows(e *env, f *relayAdmin, cmd *cobra.Command, list func(context.Context, *adminClient) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := e.adminClient(cmd.Context(), f)
		if err == nil {
			err = list(cmd.Context(), c)
		}
		return advise(err)
	}
	return cmd
}

func newRelayTakedown(e *env, f *relayAdmin) *cobra.Command {
	var reverse bool
	cmd := &cobra.Command{
		Use:   "takedown ACCOUNT",
		Short: "Stop passing on what an account says",
		Long: "Takes an account down at the relay: what it said is no longer replayed, what it says is not passed on, and all consumers are told so.\n" +
			"With --reverse it may speak again, and consumers are told to look at its repository anew.",
		Example: "  baro relay admin account takedown spam.example.com\n  baro relay admin account takedown --reverse did:plc:ewvi7nxzyoun6zhxrhs64oiz",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseAccount(args[0])
			if err != nil {
				return err
			}
			did, err := e.relaySubject(cmd.Context(), f.networkFlags, id)
			if err != nil {
				return advise(err)
			}
			path := "/admin/repo/takeDown"
			if reverse {
				path = "/admin/repo/reverseTakedown"
			}
			return e.adminChange(cmd.Context(), f, path, nil, map[string]any{"did": did}, "did", string(did))
		},
	}
	cmd.Flags().BoolVarP(&reverse, "reverse", "r", false, "end the takedown")
	return cmd
}

func newRelayHostAdd(e *env, f *relayAdmin) *cobra.Command {
	return &cobra.Command{
		Use:   "add HOST",
		Short: "Follow a host",
		Long: "Has the relay follow a host, whatever its limits on new hosts say. The host has to be there. A URL is for a host that isn't reached by\n" +
			"https at the usual port; one at a private address also has to be allowed when the relay is started (--allow).",
		Example: "  baro relay admin host add pds.example.com\n  baro relay admin host add http://localhost:2583",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			origin, err := serviceURL(args[0])
			if err != nil {
				return usagef("%q is not the name of a host, such as pds.example.com", args[0])
			}
			host := strings.TrimPrefix(origin, "https://")
			return e.adminChange(cmd.Context(), f, "/admin/pds/requestCrawl", nil, map[string]any{"hostname": host}, "hostname", host)
		},
	}
}

func newRelayBlock(e *env, f *relayAdmin) *cobra.Command {
	var reverse bool
	cmd := &cobra.Command{
		Use:     "block HOST",
		Short:   "Stop following a host",
		Long:    "Ends the connection to a host and makes none again. With --reverse the host is followed again, from where its stream was left.",
		Example: "  baro relay admin host block pds.example.com\n  baro relay admin host block -r pds.example.com",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := hostArgument(args[0])
			if err != nil {
				return err
			}
			path := "/admin/pds/block"
			if reverse {
				path = "/admin/pds/unblock"
			}
			return e.adminChange(cmd.Context(), f, path, url.Values{"host": {host}}, nil, "hostname", host)
		},
	}
	cmd.Flags().BoolVarP(&reverse, "reverse", "r", false, "follow it again")
	return cmd
}

func newRelayConfig(e *env, f *relayAdmin) *cobra.Command {
	var limit int64
	cmd := &cobra.Command{
		Use:     "config HOST",
		Short:   "Change the limits of a host",
		Long:    "Changes how many accounts of a host the relay follows.",
		Example: "  baro relay admin host config pds.example.com --account-limit 1000",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := hostArgument(args[0])
			if err != nil {
				return err
			}
			if !e.config.given(cmd, "account-limit") || limit < 0 {
				return usagef("--account-limit is missing or negative: how many accounts may the host have?")
			}
			return e.adminChange(cmd.Context(), f, "/admin/pds/changeLimits", nil, map[string]any{"host": host, "repo_limit": limit}, "hostname", host)
		},
	}
	cmd.Flags().Int64Var(&limit, "account-limit", 0, "accounts that the host may have")
	return cmd
}

func newRelayBan(e *env, f *relayAdmin) *cobra.Command {
	var reverse bool
	cmd := &cobra.Command{
		Use:     "ban DOMAIN",
		Short:   "Stop following all hosts of a domain",
		Long:    "Shuts out the host of that name and all below it, those that the relay doesn't know yet included. --reverse lets them in again.",
		Example: "  baro relay admin domain ban spam.example\n  baro relay admin domain ban --reverse spam.example",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/admin/subs/banDomain"
			if reverse {
				path = "/admin/subs/unbanDomain"
			}
			return e.adminChange(cmd.Context(), f, path, nil, map[string]any{"domain": args[0]}, "domain", args[0])
		},
	}
	cmd.Flags().BoolVarP(&reverse, "reverse", "r", false, "end the ban")
	return cmd
}

// adminClient calls the administration of a relay.
type adminClient struct {
	relay     string
	http      *http.Client
	authorize func(*http.Request)
}

func (e *env) adminClient(ctx context.Context, f *relayAdmin) (*adminClient, error) {
	password, token := f.password, f.token
	for _, s := range []struct {
		file  string
		value *string
	}{{f.passwordFile, &password}, {f.tokenFile, &token}} {
		if s.file != "" {
			var err error
			if *s.value, err = firstLine(s.file); err != nil {
				return nil, err
			}
		}
	}
	n, _, err := e.relay(ctx, f.networkFlags)
	if err != nil {
		return nil, err
	}
	if password == "" && token == "" && f.relay == "" {
		if password, err = f.localAdminPassword(n.relay); err != nil {
			return nil, err
		}
	}
	if password == "" && token == "" {
		return nil, usagef("no credentials of the relay's operator: set BARO_ADMIN_PASSWORD or BARO_ADMIN_BEARER_TOKEN, or name a file with --admin-password-file")
	}
	if !strings.HasPrefix(n.relay, "https://") && !isLoopback(n.relay) {
		return nil, usagef("%s is not reached by https: anybody on the way would learn the operator's credentials", n.relay)
	}
	c := &adminClient{relay: n.relay, http: netguard.Client(n.guard, netguard.ClientOptions{Timeout: time.Minute, MaxBody: 256 << 20, UserAgent: userAgent})}
	c.authorize = func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	if password != "" {
		c.authorize = func(r *http.Request) { r.SetBasicAuth("admin", password) }
	}
	return c, nil
}

// call returns the body of a good answer, which the caller closes.
func (c *adminClient) call(ctx context.Context, method, path string, query url.Values, body any) (io.ReadCloser, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	target := c.relay + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, in)
	if err != nil {
		return nil, err
	}
	c.authorize(req)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, adminRefusal(resp)
}

// adminRefusal words an answer that isn't the one that was hoped for.
func adminRefusal(resp *http.Response) error {
	var said struct{ Error, Message string }
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what there is of it
	if json.Unmarshal(b, &said) != nil {
		said.Message = strings.TrimSpace(string(b))
	}
	err := fmt.Errorf("the relay answers %s", resp.Status)
	if said.Message != "" {
		err = fmt.Errorf("%w: %s", err, inert(said.Message))
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		err = withHint(err, "is it the password of this relay's operator?")
	case resp.StatusCode == http.StatusTooManyRequests:
		err = withHint(err, "try again in %s s", resp.Header.Get("Retry-After"))
	case strings.Contains(said.Message, "refusing to connect to"):
		err = withHint(err, "a relay, or the network of 'baro up', goes to private addresses that it was started with --allow for")
	case said.Error == "AdminDisabled":
		err = withHint(err, "start the relay with BARO_ADMIN_PASSWORD")
	case resp.StatusCode == http.StatusNotFound && said.Error == "":
		err = withHint(err, "is it a relay with an administration over HTTP?")
	}
	return err
}

// adminChange makes a change, and says what was changed.
func (e *env) adminChange(ctx context.Context, f *relayAdmin, path string, query url.Values, body any, key, subject string) error {
	c, err := e.adminClient(ctx, f)
	if err != nil {
		return advise(err)
	}
	answer, err := c.call(ctx, http.MethodPost, path, query, body)
	if err != nil {
		return advise(err)
	}
	if err := answer.Close(); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]string{key: subject, "relay": c.relay})
	}
	return nil
}

// adminRows prints an array of objects, one in a line, as it comes.
func (e *env) adminRows(ctx context.Context, c *adminClient, path string) error {
	body, err := c.call(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	odd := func(err error) error { return fmt.Errorf("the answer of %s%s is no list: %w", c.relay, path, err) }
	dec := json.NewDecoder(body)
	if t, err := dec.Token(); err != nil {
		return odd(err)
	} else if t != json.Delim('[') {
		return odd(errors.New("want an array"))
	}
	for dec.More() {
		var row json.RawMessage
		if err := dec.Decode(&row); err != nil {
			return odd(err)
		}
		var line bytes.Buffer
		if err := json.Compact(&line, row); err != nil {
			return odd(err)
		}
		line.WriteByte('\n')
		if _, err := e.stdout.Write(inertJSON(line.Bytes())); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	if err != nil {
		return odd(err)
	}
	return nil
}

func (c *adminClient) get(ctx context.Context, path string, query url.Values, into any) error {
	body, err := c.call(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, 16<<20)).Decode(into); err != nil {
		return fmt.Errorf("reading the answer of %s%s: %w", c.relay, path, err)
	}
	return nil
}

// relayTakedowns lists accounts. The cursor is a string at our relay, and a number at another.
func (e *env) relayTakedowns(ctx context.Context, c *adminClient) error {
	query := url.Values{"size": {"500"}, "cursor": {""}}
	for seen := map[string]bool{}; ; {
		var page struct {
			DIDs   []string        `json:"dids"`
			Cursor json.RawMessage `json:"cursor"`
		}
		if err := c.get(ctx, "/admin/repo/takedowns", query, &page); err != nil {
			return err
		}
		for _, did := range page.DIDs {
			if err := e.printWord("did", did); err != nil {
				return err
			}
		}
		cursor := strings.Trim(string(page.Cursor), `"`)
		if cursor == "" || cursor == "0" || cursor == "null" {
			return nil
		}
		if seen[cursor] || len(page.DIDs) == 0 {
			return fmt.Errorf("the pages of %s lead nowhere: cursor %.100q", c.relay, cursor)
		}
		seen[cursor] = true
		query.Set("cursor", cursor)
	}
}

func (e *env) relayBans(ctx context.Context, c *adminClient) error {
	var list struct {
		Domains []string `json:"banned_domains"`
	}
	if err := c.get(ctx, "/admin/subs/listDomainBans", nil, &list); err != nil {
		return err
	}
	for _, d := range list.Domains {
		if err := e.printWord("domain", d); err != nil {
			return err
		}
	}
	return nil
}

// printWord prints a line of one word.
func (e *env) printWord(key, word string) error {
	if e.json {
		return e.printJSON(map[string]string{key: word})
	}
	return e.printRow(word)
}
