package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
)

// accountFlags are those of commands that act for an account.
type accountFlags struct {
	networkFlags
	as string
}

func (f *accountFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.as, "as", "", "account to use, a handle or DID (default: the one used last)")
	f.networkFlags.add(fl, false)
}

// asAccount calls do with an account that is logged in.
func (e *env) asAccount(ctx context.Context, f accountFlags, do func(*sessions, *auth.Account) error) error {
	s, err := e.sessions(ctx, f.networkFlags)
	if err != nil {
		return advise(err)
	}
	defer s.close()
	a, err := s.account(ctx, f.as)
	if err != nil {
		return advise(err)
	}
	return advise(do(s, a))
}

// clientOf is a client of an account's PDS.
func (e *env) clientOf(a *auth.Account) *client.Client {
	return client.ForAccount(a, client.Options{Now: e.world.Clock.Now})
}

// readInput reads a file of at most max bytes, or standard input if its name is "-".
func (e *env) readInput(ctx context.Context, name string, max int64) ([]byte, error) {
	var in io.Reader = e.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("opening the input: %w", err)
		}
		defer file.Close()
		in = file
	}
	b, err := io.ReadAll(io.LimitReader(contextReader{ctx, in}, max+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if int64(len(b)) > max {
		return nil, fmt.Errorf("%s is larger than %s", name, bytesOf(max))
	}
	return b, nil
}

// printDocument prints JSON that came from elsewhere: in lines for people, in one line with --json.
func (e *env) printDocument(b []byte) error {
	var out bytes.Buffer
	var err error
	if e.json {
		err = json.Compact(&out, b)
	} else {
		err = json.Indent(&out, bytes.TrimSpace(b), "", "  ")
	}
	if err != nil {
		return fmt.Errorf("the answer is no JSON: %w", err)
	}
	out.WriteByte('\n')
	_, err = e.stdout.Write(inertJSON(out.Bytes()))
	return err
}
