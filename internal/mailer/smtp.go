package mailer

import (
	"context"
	"crypto/tls"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/barograph/baro/internal/world"
)

// maxReplies is how much a server may say while it takes one mail.
const maxReplies = 256 << 10

// SMTPConfig says which server takes the mails.
type SMTPConfig struct {
	// URL is smtps://user@host:465, which speaks TLS from the start, or smtp://user@host:587, which goes on to TLS before anything
	// else is said. The port may be left out, and the user too. A server on this machine may do without TLS.
	URL string
	// Password of the user. It isn't part of the URL, which people log and show.
	Password string
	// From is the address that mails come from, with a name or without: PDS <pds@example.com>.
	From string
	// TLS is the base configuration of TLS connections, for tests with their own authority.
	TLS *tls.Config
}

// SMTP sends mails through a server. Each mail is a connection of its own.
type SMTP struct {
	from           mail.Address
	host, port     string
	user, password string
	implicit       bool // TLS from the start
	loopback       bool // on this machine
	tls            *tls.Config
	w              world.World
}

// NewSMTP makes a sender. The world's dialer has to allow a server at a private address; HostPort says which.
func NewSMTP(c SMTPConfig, w world.World) (*SMTP, error) {
	bad := func(why string) (*SMTP, error) {
		return nil, fmt.Errorf("the mail server: %s: want smtps://user@host or smtp://user@host:587", why)
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return bad("not a URL") // the error would quote what may hold a password
	}
	s := &SMTP{host: strings.ToLower(u.Hostname()), port: u.Port(), w: w, password: c.Password}
	switch {
	case u.Scheme == "smtps":
		s.implicit = true
	case u.Scheme != "smtp":
		return bad("not a URL of SMTP")
	}
	if s.host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return bad("want a host and nothing after it")
	}
	if u.User != nil {
		if _, ok := u.User.Password(); ok {
			return bad("the password is a setting of its own")
		}
		s.user = u.User.Username()
	}
	if (s.user == "") != (c.Password == "") {
		return bad("a user and a password belong together")
	}
	if s.port == "" {
		if s.port = "587"; s.implicit {
			s.port = "465"
		}
	}
	ip, err := netip.ParseAddr(s.host)
	s.loopback = s.host == "localhost" || err == nil && ip.IsLoopback()
	if s.from, err = parseFrom(c.From); err != nil {
		return nil, err
	}
	s.tls = c.TLS.Clone()
	if s.tls == nil {
		s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	s.tls.ServerName = s.host
	return s, nil
}

// HostPort is where the server is.
func (s *SMTP) HostPort() string { return net.JoinHostPort(s.host, s.port) }

// Anyone is false.
func (s *SMTP) Anyone() bool { return false }

// Check connects and logs in, and sends nothing.
func (s *SMTP) Check(ctx context.Context) error {
	return s.session(ctx, func(c *smtp.Client) error { return c.Noop() })
}

// Send gives a mail to the server. It returns when the server has taken it.
func (s *SMTP) Send(ctx context.Context, m *Message) error {
	if err := m.check(); err != nil {
		return err
	}
	if !ValidAddress(m.To) {
		return refusedf("the address %q can't be mailed to", m.To)
	}
	var id [16]byte
	if _, err := io.ReadFull(s.w.Rand, id[:]); err != nil {
		return &Error{Err: err}
	}
	name := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(id[:]))
	text := m.encode(s.from, name, s.w.Clock.Now())
	return s.session(ctx, func(c *smtp.Client) error {
		if err := c.Mail(s.from.Address); err != nil {
			return err
		}
		if err := c.Rcpt(m.To); err != nil {
			return err
		}
		w, err := c.Data()
		if err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		return w.Close() // which waits for the server to take it
	})
}

// session connects, secures the connection, logs in and calls do.
func (s *SMTP) session(ctx context.Context, do func(*smtp.Client) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	defer func() {
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			err = ctx.Err() // what the connection says when it is cut is of no interest
		}
		var told *textproto.Error
		err = &Error{Permanent: errors.As(err, &told) && told.Code/100 == 5, Err: fmt.Errorf("%s: %w", s.HostPort(), err)}
	}()
	raw, err := s.w.Dialer.DialContext(ctx, "tcp", s.HostPort())
	if err != nil {
		return err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	var conn net.Conn = &talk{Conn: raw, left: maxReplies}
	if s.implicit {
		t := tls.Client(conn, s.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = t
	}
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		return err
	}
	if err := c.Hello(s.greeting()); err != nil {
		return err
	}
	if !s.implicit {
		switch ok, _ := c.Extension("STARTTLS"); {
		case ok:
			if err := c.StartTLS(s.tls); err != nil {
				return err
			}
		case !s.loopback:
			return errors.New("the server offers no TLS, and without it others could read the mails")
		}
	}
	if s.user != "" {
		if ok, _ := c.Extension("AUTH"); !ok {
			return errors.New("the server takes no password")
		}
		if err := c.Auth(smtp.PlainAuth("", s.user, s.password, s.host)); err != nil {
			return err
		}
	}
	if err := do(c); err != nil {
		return err
	}
	_ = c.Quit() // the mail is taken: how they part doesn't matter
	return nil
}

// greeting is the name that this side gives itself.
func (s *SMTP) greeting() string {
	_, domain, _ := strings.Cut(s.from.Address, "@")
	return domain
}

var errTalks = errors.New("the mail server talks without end")

// talk is a connection on which the other side may say only so much.
type talk struct {
	net.Conn
	left int
}

func (t *talk) Read(b []byte) (int, error) {
	if t.left <= 0 {
		return 0, errTalks
	}
	n, err := t.Conn.Read(b[:min(len(b), t.left)])
	t.left -= n
	return n, err
}
