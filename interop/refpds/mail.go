package refpds

import (
	"bufio"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Mail is a message that the PDS sent.
type Mail struct {
	To      []string // as the envelope says, in lower case
	Subject string
	Text    string // the plain form
}

// mailbox is a mail server that keeps what it gets.
type mailbox struct {
	addr string

	mu    sync.Mutex
	mails []Mail
	seen  map[string]int // how many mails to an address were given out
	more  chan struct{}  // closed and replaced when there is a new one
}

// catchMail runs a mail server until the test ends.
func catchMail(t testing.TB) *mailbox {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mailbox{addr: ln.Addr().String(), seen: map[string]int{}, more: make(chan struct{})}
	var wg sync.WaitGroup
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			conns[c] = true
			m.mu.Unlock()
			wg.Go(func() {
				defer func() {
					c.Close()
					m.mu.Lock()
					delete(conns, c)
					m.mu.Unlock()
				}()
				if err := m.serve(c); err != nil {
					t.Errorf("receiving mail: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		m.mu.Lock()
		for c := range conns {
			c.Close()
		}
		m.mu.Unlock()
		wg.Wait()
	})
	return m
}

// serve speaks as much of SMTP (RFC 5321) as a client needs that wants neither encryption nor a login. The error is about a
// mail, not about a connection that ends, as it does when the PDS is stopped.
func (m *mailbox) serve(c net.Conn) error {
	r, w := textproto.NewReader(bufio.NewReader(c)), textproto.NewWriter(bufio.NewWriter(c))
	if err := w.PrintfLine("220 mail.invalid"); err != nil {
		return nil
	}
	var to []string
	for {
		line, err := r.ReadLine()
		if err != nil {
			return nil
		}
		verb, arg, _ := strings.Cut(line, " ")
		answer := "250 ok"
		switch strings.ToUpper(verb) {
		case "EHLO", "HELO", "NOOP":
		case "MAIL", "RSET":
			to = nil
		case "RCPT":
			_, addr, _ := strings.Cut(arg, "<")
			addr, _, ok := strings.Cut(addr, ">")
			if !ok {
				answer = "501 whom?"
				break
			}
			to = append(to, strings.ToLower(addr))
		case "DATA":
			if len(to) == 0 {
				answer = "503 to whom?"
				break
			}
			if err := w.PrintfLine("354 go on"); err != nil {
				return nil
			}
			got, err := parseMail(r.DotReader())
			if err != nil {
				return err
			}
			got.To, to = to, nil
			m.add(got)
		case "QUIT":
			w.PrintfLine("221 bye")
			return nil
		default:
			answer = "502 no"
		}
		if err := w.PrintfLine("%s", answer); err != nil {
			return nil
		}
	}
}

func (m *mailbox) add(got Mail) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, got)
	close(m.more)
	m.more = make(chan struct{})
}

// next returns the first mail to an address that was not given out yet, and a channel to wait at if there is none.
func (m *mailbox) next(to string) (Mail, bool, chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	to = strings.ToLower(to)
	n := 0
	for _, got := range m.mails {
		if !slices.Contains(got.To, to) {
			continue
		}
		if n == m.seen[to] {
			m.seen[to]++
			return got, true, nil
		}
		n++
	}
	return Mail{}, false, m.more
}

func parseMail(r io.Reader) (Mail, error) {
	msg, err := mail.ReadMessage(r)
	if err != nil {
		return Mail{}, fmt.Errorf("reading a mail: %w", err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	if err != nil {
		return Mail{}, fmt.Errorf("reading a mail's subject: %w", err)
	}
	text, err := plain(textproto.MIMEHeader(msg.Header), msg.Body)
	// Whatever is after the plain form is read too, so that the connection is at the end of the mail.
	if _, rest := io.Copy(io.Discard, msg.Body); err == nil {
		err = rest
	}
	if err != nil {
		return Mail{}, fmt.Errorf("reading the mail %q: %w", subject, err)
	}
	return Mail{Subject: subject, Text: text}, nil
}

// plain returns the first part that is plain text.
func plain(h textproto.MIMEHeader, body io.Reader) (string, error) {
	typ, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(typ, "multipart/") {
		for parts := multipart.NewReader(body, params["boundary"]); ; {
			part, err := parts.NextPart() // decodes quoted-printable
			if err != nil {
				return "", err
			}
			if typ, _, err := mime.ParseMediaType(part.Header.Get("Content-Type")); err == nil && typ == "text/plain" {
				b, err := io.ReadAll(part)
				return string(b), err
			}
		}
	}
	if strings.EqualFold(h.Get("Content-Transfer-Encoding"), "quoted-printable") {
		body = quotedprintable.NewReader(body)
	}
	b, err := io.ReadAll(body)
	return string(b), err
}

// mailTimeout is how long the PDS may take to send a mail.
const mailTimeout = 20 * time.Second

// Mail returns the next mail to an address, and waits for it.
func (p *PDS) Mail(t testing.TB, to string) Mail {
	t.Helper()
	timeout := time.NewTimer(mailTimeout)
	defer timeout.Stop()
	for {
		got, ok, more := p.mail.next(to)
		if ok {
			return got
		}
		select {
		case <-more:
		case <-timeout.C:
			t.Fatalf("the reference PDS sent no mail to %s in %s", to, mailTimeout)
		}
	}
}

// code is what the reference PDS puts into mails: ten characters of base32 with a hyphen in the middle.
var code = regexp.MustCompile(`\b[A-Za-z2-7]{5}-[A-Za-z2-7]{5}\b`)

// Code returns the code in the next mail to an address, and waits for it.
func (p *PDS) Code(t testing.TB, to string) string {
	t.Helper()
	got := p.Mail(t, to)
	c := code.FindString(got.Text)
	if c == "" {
		t.Fatalf("no code is in the mail %q to %s:\n%s", got.Subject, to, got.Text)
	}
	return c
}
