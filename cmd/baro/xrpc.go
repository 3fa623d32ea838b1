package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

type xrpcFlags struct {
	accountFlags
	admin string
}

func newXRPC(e *env) *cobra.Command {
	var f xrpcFlags
	cmd := &cobra.Command{
		Use:   "xrpc query|procedure SERVICE METHOD [ARGUMENT…]",
		Short: "Call any method of any server",
		Long: "Calls a method. SERVICE is the URL of a server, which is asked without credentials, or as its administrator if there is\n" +
			"a password; @pds is the server of the account that you are logged in to; DID#service has that server pass the call on.\n\n" +
			"  name==value   a parameter of the query\n" +
			"  name=value    a text in the body\n" +
			"  name:=JSON    any value in the body\n" +
			"  Name:value    a header\n" +
			"  @file         the file is the body, JSON unless a Content-Type is given\n" +
			"  -             standard input is the body\n\n" +
			"Credentials don't go into arguments, where others can see them: the header Authorization is refused.",
		Example: "  baro xrpc get https://pds.example com.atproto.server.describeServer\n" +
			"  baro xrpc get @pds com.atproto.repo.listRecords repo==alice.test collection==app.bsky.feed.post limit==5\n" +
			"  baro xrpc post @pds com.atproto.identity.updateHandle handle=alice.example.com\n" +
			"  baro xrpc get 'did:web:api.bsky.app#bsky_appview' app.bsky.actor.getProfile actor==alice.test",
		Args: cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.xrpcCall(cmd.Context(), args, f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.admin, "admin-password", "", "password of the server's administrator")
	neverOnCommandLine(fl, "admin-password")
	alsoVariable(fl, "admin-password", "ADMIN_PASSWORD", "ATP_AUTH_ADMIN_PASSWORD")
	f.add(fl)
	return cmd
}

// call is what the arguments of xrpc say.
type call struct {
	verb   string
	nsid   syntax.NSID
	params url.Values
	header http.Header
	body   []byte // nil: none
}

const maxXRPCBody = 100 << 20

func (e *env) readCall(ctx context.Context, args []string) (*call, error) {
	c := &call{params: url.Values{}, header: http.Header{}}
	switch args[0] {
	case "query", "get":
		c.verb = http.MethodGet
	case "procedure", "post":
		c.verb = http.MethodPost
	default:
		return nil, usagef("%q is no kind of method: want query (or get) or procedure (or post)", args[0])
	}
	var err error
	if c.nsid, err = parseNSID(args[2]); err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	source := ""
	for _, a := range args[3:] {
		if a == "-" || strings.HasPrefix(a, "@") {
			if source != "" {
				return nil, usagef("there are two bodies, %s and %s", source, a)
			}
			source = a
			continue
		}
		i := strings.IndexAny(a, "=:")
		if i <= 0 {
			return nil, usagef("%q is no argument of a call: want name==value, name=value, name:=JSON, Name:value, @file or -", a)
		}
		name, rest := a[:i], a[i:]
		switch {
		case strings.HasPrefix(rest, "=="):
			c.params.Add(name, rest[2:])
		case strings.HasPrefix(rest, ":="):
			if !json.Valid([]byte(rest[2:])) {
				return nil, usagef("%s:= wants JSON, and %q is none", name, rest[2:])
			}
			fields[name] = json.RawMessage(rest[2:])
		case rest[0] == '=':
			v, err := json.Marshal(rest[1:])
			if err != nil {
				return nil, err
			}
			fields[name] = v
		case strings.EqualFold(name, "Authorization"):
			return nil, usagef("others can see arguments, so the header Authorization doesn't go there: log in, or set ADMIN_PASSWORD")
		default:
			c.header.Add(name, strings.TrimSpace(rest[1:]))
		}
	}
	switch {
	case source != "" && len(fields) > 0:
		return nil, usagef("the body is either %s or made of fields, not both", source)
	case c.verb == http.MethodGet && (source != "" || len(fields) > 0):
		return nil, usagef("a query has no body: parameters are written name==value")
	case source != "":
		c.body, err = e.readInput(ctx, strings.TrimPrefix(source, "@"), maxXRPCBody)
	case len(fields) > 0:
		c.body, err = json.Marshal(fields)
	}
	return c, err
}

func (e *env) xrpcCall(ctx context.Context, args []string, f xrpcFlags) error {
	c, err := e.readCall(ctx, args)
	if err != nil {
		return err
	}
	service := args[1]
	if service != "@pds" && !strings.HasPrefix(service, "did:") {
		origin, err := serviceURL(service)
		if err != nil {
			return usagef("%w; @pds is your own server, DID#service one behind it", err)
		}
		f.pds = origin // whoever names a server may reach it
		ns, err := e.networks(ctx, f.networkFlags)
		if err != nil {
			return err
		}
		x := ns.list[0].xrpc()
		if f.admin != "" {
			x = x.WithAuth(xrpc.Basic{User: "admin", Password: f.admin})
		}
		return e.send(ctx, x, c)
	}
	if did, fragment, ok := strings.Cut(service, "#"); service != "@pds" && (!ok || fragment == "" || !syntax.ValidDID(did)) {
		return usagef("%q is no service: want a DID, # and its name, such as did:web:api.bsky.app#bsky_appview", service)
	}
	return e.asAccount(ctx, f.accountFlags, func(_ *sessions, a *auth.Account) error {
		x := a.Client()
		if service != "@pds" {
			x = x.WithProxy(service)
		}
		return e.send(ctx, x, c)
	})
}

// send makes the call and prints the answer.
func (e *env) send(ctx context.Context, x *xrpc.Client, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	typ := "application/json"
	for name, values := range c.header {
		if name == "Content-Type" {
			typ = values[0]
			continue
		}
		x = x.WithHeader(name, strings.Join(values, ", "))
	}
	var in *xrpc.Body
	if c.body != nil {
		in = &xrpc.Body{Reader: bytes.NewReader(c.body), Type: typ, Length: int64(len(c.body))}
	}
	out, err := x.Do(ctx, c.verb, string(c.nsid), c.params.Encode(), in, "*/*")
	if err != nil {
		return err
	}
	defer out.Body.Close()
	if isTerminal(e.stdout) {
		names := make([]string, 0, len(out.Header))
		for name := range out.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(e.stderr, "%s: %s\n", name, inert(strings.Join(out.Header[name], ", ")))
		}
		fmt.Fprintln(e.stderr)
	}
	if !strings.HasPrefix(out.Type, "application/json") {
		if isTerminal(e.stdout) {
			return withHint(fmt.Errorf("the answer is of the type %q, which a terminal doesn't show", out.Type), "send it to a file with >")
		}
		_, err = io.Copy(e.stdout, contextReader{ctx, out.Body})
		return err
	}
	b, err := io.ReadAll(io.LimitReader(contextReader{ctx, out.Body}, maxXRPCBody+1))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if len(b) > maxXRPCBody {
		return xrpc.ErrTooLarge
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	return e.printDocument(b)
}
