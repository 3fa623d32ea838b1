package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/smtp"
	"net/url"
)

// mail examines a server that a PDS may send mail through. It logs in nowhere and sends nothing.
func (x *exam) mail(ctx context.Context, u *url.URL) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"smtp": "587", "smtps": "465"}[u.Scheme]
	}
	at := net.JoinHostPort(u.Hostname(), port)
	ctx, cancel := context.WithTimeout(ctx, x.o.Call)
	defer cancel()
	raw, err := x.o.Dialer.DialContext(ctx, "tcp", at)
	if err != nil {
		kind, text := x.unreachable(err)
		if kind != hostDNS && kind != hostPrivate {
			kind = mailBlocked
		}
		x.find(kind, at, "%s: %s", at, text)
		return
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	config := &tls.Config{}
	if x.o.TLS != nil {
		config = x.o.TLS.Clone()
	}
	config.ServerName = u.Hostname()
	var conn net.Conn = &brief{raw, io.LimitReader(raw, maxSMTP)}
	if u.Scheme == "smtps" {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			kind, text := x.unreachable(err)
			if kind != hostTLS || notTLS(err) {
				x.find(mailBroken, at, "%s: %s", at, text)
			} else {
				x.find(mailTLS, at, "%s: %s", at, text)
			}
			return
		}
		conn = secure
	}
	c, err := smtp.NewClient(conn, u.Hostname())
	if err != nil {
		x.find(mailBroken, at, "its greeting: %v", err)
		return
	}
	defer c.Close()
	if err := c.Hello("localhost"); err != nil {
		x.find(mailBroken, at, "its greeting: %v", err)
		return
	}
	if u.Scheme == "smtp" {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			x.find(mailTLS, at, "it doesn't offer STARTTLS")
			return
		}
		if err := c.StartTLS(config); err != nil {
			x.find(mailTLS, at, "STARTTLS: %v", err)
			return
		}
	}
	if ok, _ := c.Extension("AUTH"); !ok {
		x.find(mailNoLogin, at, "it doesn't offer AUTH")
		return
	}
	x.find(mailUp, at, "it takes connections, encrypts them and offers AUTH")
	_ = c.Quit() // it was asked what there was to ask
}

// maxSMTP is how much a mail server may say, certificates included.
const maxSMTP = 256 << 10

// brief is a connection that ends when the other side has said so much.
type brief struct {
	net.Conn
	r io.Reader
}

func (b *brief) Read(p []byte) (int, error) { return b.r.Read(p) }

// notTLS says whether the other side doesn't speak TLS at all.
func notTLS(err error) bool {
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}
