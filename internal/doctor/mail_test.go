package doctor_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/internal/doctor"
)

// mailServer speaks as much SMTP as a client needs to say hello.
func mailServer(config *tls.Config, extensions string) func(net.Conn) {
	var talk func(c net.Conn, greet bool)
	talk = func(c net.Conn, greet bool) {
		if greet {
			fmt.Fprint(c, "220 mail.example.com ESMTP\r\n")
		}
		in := bufio.NewScanner(c)
		for in.Scan() {
			switch verb, _, _ := strings.Cut(strings.ToUpper(in.Text()), " "); verb {
			case "EHLO":
				words := append([]string{"mail.example.com"}, strings.Fields(extensions)...)
				for i, w := range words {
					sep := "-"
					if i == len(words)-1 {
						sep = " "
					}
					fmt.Fprintf(c, "250%s%s\r\n", sep, strings.ReplaceAll(w, "_", " "))
				}
			case "STARTTLS":
				fmt.Fprint(c, "220 go on\r\n")
				talk(tls.Server(c, config), false)
				return
			default:
				fmt.Fprint(c, "221 bye\r\n")
				return
			}
		}
	}
	return func(c net.Conn) { talk(c, true) }
}

func TestMail(t *testing.T) {
	const host = "mail.lab.example.com"
	for name, c := range map[string]struct {
		target string
		dial   func(l *lab, config *tls.Config) // nil: nobody has the name
		want   string
	}{
		"STARTTLS": {"smtp://" + host, func(l *lab, c *tls.Config) { l.dial[host+":587"] = talking(l.t, mailServer(c, "STARTTLS AUTH_PLAIN")) }, "mail-up"},
		"encrypted": {"smtps://" + host, func(l *lab, c *tls.Config) {
			l.dial[host+":465"] = talking(l.t, encrypted(c, mailServer(c, "AUTH_PLAIN")))
		}, "mail-up"},
		"no password":   {"smtp://" + host + ":2525", func(l *lab, c *tls.Config) { l.dial[host+":2525"] = talking(l.t, mailServer(c, "STARTTLS")) }, "mail-no-login"},
		"no encryption": {"smtp://" + host, func(l *lab, c *tls.Config) { l.dial[host+":587"] = talking(l.t, mailServer(c, "AUTH_PLAIN")) }, "mail-tls"},
		"other name": {"smtps://" + host, func(l *lab, _ *tls.Config) {
			other := &tls.Config{Certificates: []tls.Certificate{l.cert(l.now.Add(time.Hour), "other.example.com")}}
			l.dial[host+":465"] = talking(l.t, encrypted(other, mailServer(nil, "")))
		}, "mail-tls"},
		"wrong port": {"smtps://" + host, func(l *lab, c *tls.Config) { l.dial[host+":465"] = talking(l.t, mailServer(c, "STARTTLS")) }, "mail-broken"},
		"no mail": {"smtp://" + host, func(l *lab, _ *tls.Config) {
			l.dial[host+":587"] = talking(l.t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 no\r\n\r\n") })
		}, "mail-broken"},
		"silent":      {"smtp://" + host, func(l *lab, _ *tls.Config) { l.dial[host+":587"] = silent(l.t) }, "mail-broken"},
		"blocked":     {"smtp://" + host, func(l *lab, _ *tls.Config) { l.dial[host+":587"] = refused }, "mail-blocked"},
		"no such one": {"smtp://" + host, nil, "host-dns"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			if c.dial != nil {
				c.dial(l, &tls.Config{Certificates: []tls.Certificate{l.cert(l.now.Add(time.Hour), host)}})
			}
			found := l.examine(c.target, func(o *doctor.Options) {
				if name == "silent" {
					o.Call = time.Second
				}
			})
			saw(found)
			if _, ok := found[c.want]; !ok || len(found) != 1 {
				t.Errorf("found %v, want %s", found, c.want)
			}
		})
	}
}

// A server that doesn't come to an end is not kept in memory until the time is up.
func TestEndlessMailServer(t *testing.T) {
	l := newLab(t)
	var sent atomic.Int64
	l.dial["mail.lab.example.com:587"] = talking(t, func(c net.Conn) {
		line := strings.Repeat("220-welcome\r\n", 4096)
		for n, err := 0, error(nil); err == nil; sent.Add(int64(n)) {
			n, err = fmt.Fprint(c, line)
		}
	})
	found := l.examine("smtp://mail.lab.example.com")
	if _, ok := found["mail-broken"]; !ok || sent.Load() > 32<<20 { // what the buffers of the connection hold, and more
		t.Errorf("found %v after %d bytes", found, sent.Load())
	}
}

func encrypted(config *tls.Config, say func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) { say(tls.Server(c, config)) }
}
