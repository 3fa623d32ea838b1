package main

import (
	"cmp"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/internal/world"
)

// mailFlags say how a PDS sends mails.
type mailFlags struct {
	smtp, password, from, dir string
}

func (f *mailFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.smtp, "mail-smtp", "", "mail server, smtps://user@host or smtp://user@host:587; no mails without one")
	fl.StringVar(&f.password, "mail-password", "", "password of the user of the mail server")
	neverOnCommandLine(fl, "mail-password")
	fl.StringVar(&f.from, "mail-from", "", "address that mails come from (default: no-reply at the host of the public URL)")
	fl.StringVar(&f.dir, "mail-dir", "", "folder that mails are written to instead, for development")
}

func (f *mailFlags) check() error {
	switch {
	case f.smtp != "" && f.dir != "":
		return usagef("--mail-smtp and --mail-dir are opposites: choose one")
	case f.password != "" && f.smtp == "":
		return usagef("there is a mail-password, and no --mail-smtp that it is for")
	}
	return nil
}

// sender makes what sends the mails of a PDS; nil if it sends none.
func (f *mailFlags) sender(public string, w world.World) (mailer.Sender, error) {
	u, err := url.Parse(public)
	if err != nil {
		return nil, err
	}
	from := cmp.Or(f.from, "no-reply@"+u.Hostname())
	switch {
	case f.dir != "":
		dir, err := filepath.Abs(f.dir)
		if err != nil {
			return nil, fmt.Errorf("--mail-dir: %w", err)
		}
		s, err := mailer.NewFolder(dir, from, w)
		if err != nil {
			return nil, fmt.Errorf("--mail-from: %w", err)
		}
		return s, nil
	case f.smtp != "":
		s, err := mailer.NewSMTP(mailer.SMTPConfig{URL: f.smtp, Password: f.password, From: from}, w)
		if err != nil {
			return nil, err
		}
		// The operator has named it, so it may be at a private address.
		if guard, ok := w.Dialer.(interface{ Allow(string) error }); ok {
			if err := guard.Allow(s.HostPort()); err != nil {
				return nil, fmt.Errorf("--mail-smtp: %w", err)
			}
		}
		return s, nil
	}
	return nil, nil
}
