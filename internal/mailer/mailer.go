// Package mailer sends the mails of a server to its users: by SMTP, into a folder, into memory or into a log.
//
// Specifications: https://www.rfc-editor.org/rfc/rfc5321 (SMTP), https://www.rfc-editor.org/rfc/rfc5322 (messages). Mails carry what the
// methods of https://atproto.com/specs/account want a user to confirm. It doesn't queue, doesn't try again and doesn't receive: whoever
// sends a mail is told whether the next server has taken it.
//
//	s, err := mailer.NewSMTP(mailer.SMTPConfig{URL: "smtps://pds@mail.example.com", Password: secret, From: "pds@example.com"}, w)
//	err = s.Send(ctx, &mailer.Message{To: "alice@example.com", Subject: "Your code", Text: "ABCD-EFGH\n"})
//
// Limits: one recipient, [MaxText] bytes of text, [Timeout] for a mail.
package mailer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxText is the size of the largest mail, before it is encoded.
	MaxText = 64 << 10
	// Timeout is how long delivering one mail may take.
	Timeout = 30 * time.Second

	maxAddress = 254
	maxSubject = 200
)

// Message is a mail to one person.
type Message struct {
	To      string // an address without a name, such as alice@example.com
	Subject string // one line
	Text    string // of the type text/plain, or text/html if HTML is set
	HTML    bool

	// Purpose and Code say what a mail confirms and the code in it, for senders that show mails to a developer. They are not sent.
	Purpose, Code string
}

// Sender delivers mails. A *[Error] says that a mail can't be delivered.
type Sender interface {
	Send(ctx context.Context, m *Message) error
	// Anyone says that mails arrive whatever the address is, even without one, because they stay on this machine.
	Anyone() bool
}

// Checker is a [Sender] that can tell whether it would get mails off.
type Checker interface {
	Check(ctx context.Context) error
}

// Error says that a mail was not delivered.
type Error struct {
	// Permanent is set when trying again makes no sense: the mail or its address was refused.
	Permanent bool
	Err       error
}

func (e *Error) Error() string { return "sending a mail: " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func refusedf(format string, args ...any) error {
	return &Error{Permanent: true, Err: fmt.Errorf(format, args...)}
}

// ValidAddress reports whether a mail can be addressed to an address: one of plain ASCII, without a name, that needs no quoting.
func ValidAddress(address string) bool {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" || len(local) > 64 || len(address) > maxAddress || strings.Contains(domain, "@") {
		return false
	}
	for _, c := range []byte(address) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`<>()[],;:\"`, c) >= 0 {
			return false
		}
	}
	if strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || !strings.Contains(domain, ".") || strings.Contains(domain, "..") {
		return false
	}
	_, err := mail.ParseAddress(address)
	return err == nil
}

// check refuses a mail that is not what it should be, before anybody sees it.
func (m *Message) check() error {
	switch {
	case m.Subject == "" || len(m.Subject) > maxSubject || !utf8.ValidString(m.Subject) || strings.ContainsFunc(m.Subject, unicode.IsControl), strings.Contains(m.Subject, "=?"):
		return refusedf("the subject is not one line of up to %d bytes", maxSubject)
	case m.Text == "" || len(m.Text) > MaxText || !utf8.ValidString(m.Text) || strings.ContainsRune(m.Text, 0), strings.Contains(strings.ReplaceAll(m.Text, "\r\n", ""), "\r"):
		return refusedf("the text is not one of up to %d bytes", MaxText)
	}
	return nil
}

// encode writes the mail as it travels. id is in no other mail.
func (m *Message) encode(from mail.Address, id string, at time.Time) []byte {
	var b bytes.Buffer
	kind := "text/plain"
	if m.HTML {
		kind = "text/html"
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	for _, h := range [][2]string{
		{"From", from.String()},
		{"To", m.To},
		{"Subject", mime.QEncoding.Encode("utf-8", m.Subject)},
		{"Date", at.Format(time.RFC1123Z)},
		{"Message-ID", "<" + id + "@" + domain + ">"},
		{"MIME-Version", "1.0"},
		{"Content-Type", kind + "; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
		{"Auto-Submitted", "auto-generated"},
	} {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	_, _ = io.WriteString(q, strings.ReplaceAll(strings.ReplaceAll(m.Text, "\r\n", "\n"), "\n", "\r\n")) // into memory
	_ = q.Close()
	return b.Bytes()
}

// parseFrom reads the address that mails come from, with a name or without.
func parseFrom(text string) (mail.Address, error) {
	a, err := mail.ParseAddress(text)
	if err != nil || !ValidAddress(a.Address) && !strings.HasSuffix(a.Address, "@localhost") || strings.ContainsFunc(a.Name, unicode.IsControl) {
		return mail.Address{}, fmt.Errorf("%q is no address that mails can come from, such as pds@example.com", text)
	}
	return *a, nil
}

// Log is a sender that writes the codes of mails to a log: for development only.
type Log struct{ Log *slog.Logger }

// Send writes one line.
func (l Log) Send(_ context.Context, m *Message) error {
	if err := m.check(); err != nil {
		return err
	}
	l.Log.Info("mail", "to", m.To, "purpose", m.Purpose, "code", m.Code)
	return nil
}

// Anyone is true.
func (Log) Anyone() bool { return true }

// Memory keeps the newest mails in memory. The zero value is ready.
type Memory struct {
	mu     sync.Mutex
	mails  []Message
	total  int
	change chan struct{}
	err    error
}

// maxMemory is how many mails are kept.
const maxMemory = 1000

// Send keeps a mail.
func (x *Memory) Send(_ context.Context, m *Message) error {
	if err := m.check(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if told := (*Error)(nil); errors.As(x.err, &told) {
		return told
	}
	if x.err != nil {
		return &Error{Err: x.err}
	}
	if len(x.mails) >= maxMemory {
		x.mails = x.mails[1:]
	}
	x.mails = append(x.mails, *m)
	x.total++
	if x.change != nil {
		close(x.change)
		x.change = nil
	}
	return nil
}

// Anyone is false: tests are about accounts without an address, too.
func (x *Memory) Anyone() bool { return false }

// Fail makes Send fail with err, until it is called with nil.
func (x *Memory) Fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.err = err
}

// Mails are the mails that are kept, the oldest first.
func (x *Memory) Mails() []Message {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]Message(nil), x.mails...)
}

// Await returns the nth mail ever sent, counted from one, when it is there.
func (x *Memory) Await(ctx context.Context, n int) (Message, error) {
	for {
		x.mu.Lock()
		if x.total >= n {
			i := len(x.mails) - 1 - (x.total - n)
			if i < 0 {
				x.mu.Unlock()
				return Message{}, errors.New("the mail is no longer kept")
			}
			m := x.mails[i]
			x.mu.Unlock()
			return m, nil
		}
		if x.change == nil {
			x.change = make(chan struct{})
		}
		wait := x.change
		x.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

var (
	_ Sender = Log{}
	_ Sender = (*Memory)(nil)
	_ Sender = (*Folder)(nil)
	_ Sender = (*SMTP)(nil)
)
