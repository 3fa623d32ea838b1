package mailer_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
)

// postOffice is a mail server as a test wants it.
type postOffice struct {
	t         *testing.T
	l         net.Listener
	cert      tls.Certificate
	pool      *x509.CertPool
	implicit  bool
	noTLS     bool   // doesn't offer it
	noAuth    bool   // doesn't take a password
	refuse    string // verb that is answered with reply
	reply     string
	hang      string // verb that is not answered
	chatter   string // verb that is answered without end
	closing   chan struct{}
	mu        sync.Mutex
	lines     []string // what the clients said
	mails     []string
	encrypted []bool // whether each mail came over TLS
	wg        sync.WaitGroup
}

func newPostOffice(t *testing.T, edit func(*postOffice)) *postOffice {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "post"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	o := &postOffice{t: t, cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool: x509.NewCertPool(), closing: make(chan struct{})}
	o.pool.AddCert(leaf)
	if edit != nil {
		edit(o)
	}
	if o.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	o.wg.Go(func() {
		for {
			c, err := o.l.Accept()
			if err != nil {
				return
			}
			o.wg.Go(func() { defer c.Close(); o.serve(c) })
		}
	})
	t.Cleanup(func() { close(o.closing); o.l.Close(); o.wg.Wait() })
	return o
}

func (o *postOffice) serve(c net.Conn) {
	secure := false
	if o.implicit {
		c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{o.cert}})
		secure = true
	}
	r := bufio.NewReader(c)
	say := func(s string) { fmt.Fprintf(c, "%s\r\n", s) }
	if o.hang == "CONNECT" {
		<-o.closing
		return
	}
	say("220 post ESMTP")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		o.mu.Lock()
		o.lines = append(o.lines, line)
		o.mu.Unlock()
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case o.hang:
			<-o.closing
			return
		case o.refuse:
			say(o.reply)
			continue
		case o.chatter:
			for {
				if _, err := io.WriteString(c, "250-"+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}
		switch verb {
		case "EHLO":
			ext := "250-post\r\n250-8BITMIME"
			if !secure && !o.noTLS {
				ext += "\r\n250-STARTTLS"
			}
			if !o.noAuth {
				ext += "\r\n250-AUTH PLAIN"
			}
			say(ext + "\r\n250 SIZE 1000000")
		case "STARTTLS":
			say("220 go on")
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{o.cert}})
			r, secure = bufio.NewReader(c), true
		case "AUTH":
			_, cred, _ := strings.Cut(line, "PLAIN ")
			b, _ := base64.StdEncoding.DecodeString(cred)
			if string(b) == "\x00pds\x00s3cret" {
				say("235 welcome")
			} else {
				say("535 no")
			}
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for {
				l, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(l, "."))
			}
			o.mu.Lock()
			o.mails = append(o.mails, text.String())
			o.encrypted = append(o.encrypted, secure)
			o.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (o *postOffice) sender(t *testing.T, scheme, user, password string) *mailer.SMTP {
	t.Helper()
	w := world.Real(nil)
	d := netguard.NewDialer(netguard.Options{})
	if err := d.Allow(o.l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	w.Dialer = d
	s, err := mailer.NewSMTP(mailer.SMTPConfig{
		URL: scheme + "://" + user + o.l.Addr().String(), Password: password, From: "The PDS <pds@example.com>", TLS: &tls.Config{RootCAs: o.pool},
	}, w)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var letter = mailer.Message{
	To: "alice@example.com", Subject: "Grüße = 100 %", Text: "Hello,\n.\n.dot\nyour code: ABCD=EF\n\ttab and ünïcode " + strings.Repeat("long ", 40) + "\n",
	Purpose: "reset-password", Code: "ABCD=EF",
}

// checkLetter takes a mail apart with other code than wrote it.
func checkLetter(t *testing.T, raw string) {
	t.Helper()
	for _, line := range strings.Split(raw, "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("line %q", line)
		}
	}
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != letter.Subject || strings.ReplaceAll(string(text), "\r\n", "\n") != letter.Text {
		t.Errorf("subject %q, text %q, %v", subject, text, err)
	}
	from, err := mail.ParseAddress(m.Header.Get("From"))
	if err != nil || from.Address != "pds@example.com" || from.Name != "The PDS" || m.Header.Get("To") != "alice@example.com" {
		t.Errorf("header %v, %v", m.Header, err)
	}
	if _, err := m.Header.Date(); err != nil || m.Header.Get("Auto-Submitted") != "auto-generated" || !strings.HasSuffix(m.Header.Get("Message-ID"), "@example.com>") {
		t.Errorf("header %v, %v", m.Header, err)
	}
}

func TestSMTP(t *testing.T) {
	for _, c := range []struct {
		name, scheme, user, password string
		edit                         func(*postOffice)
		encrypted                    bool
	}{
		{"starttls", "smtp", "pds@", "s3cret", nil, true},
		{"implicit", "smtps", "pds@", "s3cret", func(o *postOffice) { o.implicit = true }, true},
		{"nobody", "smtp", "", "", nil, true},
		{"on this machine", "smtp", "", "", func(o *postOffice) { o.noTLS, o.noAuth = true, true }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newPostOffice(t, c.edit)
			s := o.sender(t, c.scheme, c.user, c.password)
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := s.Send(t.Context(), &letter); err != nil {
					t.Fatal(err)
				}
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if len(o.mails) != 2 || o.encrypted[0] != c.encrypted {
				t.Fatalf("%d mails, encrypted %v", len(o.mails), o.encrypted)
			}
			checkLetter(t, o.mails[0])
			if o.mails[0] == o.mails[1] {
				t.Error("two mails have one ID")
			}
			said := strings.Join(o.lines, "\n")
			if !strings.Contains(said, "MAIL FROM:<pds@example.com>") || !strings.Contains(said, "RCPT TO:<alice@example.com>") || !strings.HasPrefix(said, "EHLO example.com") {
				t.Errorf("said %q", said)
			}
			if strings.Contains(o.mails[0], "reset-password") {
				t.Error("what is for developers was sent")
			}
		})
	}
}

func TestSMTPFailures(t *testing.T) {
	for _, c := range []struct {
		name, scheme, user, password string
		edit                         func(*postOffice)
		permanent                    bool
		want                         string
	}{
		{"wrong password", "smtp", "pds@", "wrong", nil, true, "535"},
		{"takes no password", "smtp", "pds@", "s3cret", func(o *postOffice) { o.noAuth = true }, false, "takes no password"},
		{"unknown recipient", "smtp", "", "", func(o *postOffice) { o.refuse, o.reply = "RCPT", "550 who?" }, true, "550"},
		{"later", "smtp", "", "", func(o *postOffice) { o.refuse, o.reply = "RCPT", "451 later" }, false, "451"},
		{"refuses the text", "smtp", "", "", func(o *postOffice) { o.refuse, o.reply = "DATA", "552 too large" }, true, "552"},
		{"no SMTP", "smtp", "", "", func(o *postOffice) { o.refuse, o.reply = "MAIL", "HTTP/1.1 400 Bad Request" }, false, ""},
		{"talks without end", "smtp", "", "", func(o *postOffice) { o.chatter = "EHLO" }, false, "without end"},
		{"talks without end after login", "smtp", "", "", func(o *postOffice) { o.chatter = "MAIL" }, false, "without end"},
		{"TLS where there is none", "smtps", "", "", nil, false, ""},
		{"TLS is refused", "smtp", "", "", func(o *postOffice) { o.refuse, o.reply = "STARTTLS", "454 not now" }, false, "454"},
		{"another's certificate", "smtp", "", "", func(o *postOffice) { o.pool = x509.NewCertPool() }, false, "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newPostOffice(t, c.edit)
			if c.name == "another's certificate" {
				o.pool = x509.NewCertPool()
			}
			err := o.sender(t, c.scheme, c.user, c.password).Send(t.Context(), &letter)
			var e *mailer.Error
			if !errors.As(err, &e) || e.Permanent != c.permanent || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Error("the password is in the error")
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if len(o.mails) > 0 {
				t.Error("the mail was sent")
			}
		})
	}
	for _, verb := range []string{"CONNECT", "EHLO", "MAIL", "DATA"} {
		t.Run("hangs at "+verb, func(t *testing.T) {
			o := newPostOffice(t, func(o *postOffice) { o.hang = verb })
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			err := o.sender(t, "smtp", "", "").Send(ctx, &letter)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("elsewhere without TLS", func(t *testing.T) {
		o := newPostOffice(t, func(o *postOffice) { o.noTLS = true })
		w := world.Real(nil)
		w.Dialer = redirect{o.l.Addr().String()}
		s, err := mailer.NewSMTP(mailer.SMTPConfig{URL: "smtp://pds@mail.example.com", Password: "s3cret", From: "pds@example.com"}, w)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), &letter); err == nil || !strings.Contains(err.Error(), "TLS") || !strings.Contains(err.Error(), "mail.example.com:587") {
			t.Errorf("error %v", err)
		}
		if strings.Contains(strings.Join(o.lines, " "), "AUTH") {
			t.Error("the password was said")
		}
	})
	t.Run("a private address", func(t *testing.T) {
		o := newPostOffice(t, nil)
		s := o.sender(t, "smtp", "", "")
		w := world.Real(nil)
		s, err := mailer.NewSMTP(mailer.SMTPConfig{URL: "smtp://" + o.l.Addr().String(), From: "pds@example.com"}, w)
		if err != nil {
			t.Fatal(err)
		}
		var blocked *netguard.BlockedError
		if err := s.Send(t.Context(), &letter); !errors.As(err, &blocked) {
			t.Errorf("error %v", err)
		}
	})
}

type redirect struct{ to string }

func (r redirect) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, r.to)
}

func TestSMTPConfig(t *testing.T) {
	for _, c := range []mailer.SMTPConfig{
		{URL: "", From: "a@example.com"}, {URL: "mail.example.com", From: "a@example.com"}, {URL: "http://mail.example.com", From: "a@example.com"},
		{URL: "smtp://", From: "a@example.com"}, {URL: "smtp://u:hunter2@mail.example.com", Password: "x", From: "a@example.com"},
		{URL: "smtp://mail.example.com/?x=hunter2", From: "a@example.com"}, {URL: "smtp://u@mail.example.com", From: "a@example.com"},
		{URL: "smtp://mail.example.com", Password: "hunter2", From: "a@example.com"}, {URL: "smtp://mail.example.com"},
		{URL: "smtp://mail.example.com", From: "a@example.com\r\nBcc: b@example.com"}, {URL: "smtp://mail.example.com:x", From: "a@example.com"},
		{URL: "smtp://u:hunter2@mail example.com", From: "a@example.com"},
	} {
		if _, err := mailer.NewSMTP(c, world.Real(nil)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for url, want := range map[string]string{"smtp://m.example.com": "m.example.com:587", "smtps://m.example.com": "m.example.com:465", "smtp://M.example.com:25": "m.example.com:25", "smtp://[::1]:25": "[::1]:25"} {
		s, err := mailer.NewSMTP(mailer.SMTPConfig{URL: url, From: "a@example.com"}, world.Real(nil))
		if err != nil || s.HostPort() != want {
			t.Errorf("%s: %v, %v", url, s, err)
		}
	}
}

func TestRefusedMails(t *testing.T) {
	w := world.Real(nil)
	w.FS = vfs.NewMem()
	folder, err := mailer.NewFolder("mail", "pds@localhost", w)
	if err != nil {
		t.Fatal(err)
	}
	o := newPostOffice(t, nil)
	senders := map[string]mailer.Sender{"folder": folder, "memory": &mailer.Memory{}, "smtp": o.sender(t, "smtp", "", ""), "log": mailer.Log{Log: w.Log}}
	for name, edit := range map[string]func(*mailer.Message){
		"no subject": func(m *mailer.Message) { m.Subject = "" }, "two lines": func(m *mailer.Message) { m.Subject = "a\r\nBcc: x@example.com" },
		"no text": func(m *mailer.Message) { m.Text = "" }, "zero": func(m *mailer.Message) { m.Text = "a\x00" }, "no UTF-8": func(m *mailer.Message) { m.Text = "\xff" },
		"too long": func(m *mailer.Message) { m.Text = strings.Repeat("x", mailer.MaxText+1) }, "long subject": func(m *mailer.Message) { m.Subject = strings.Repeat("x", 500) },
	} {
		for kind, s := range senders {
			m := letter
			edit(&m)
			var e *mailer.Error
			if err := s.Send(t.Context(), &m); !errors.As(err, &e) || !e.Permanent {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
		}
	}
	for _, to := range []string{"", "alice", "a@b", "a b@example.com", "a@example.com\r\nRCPT TO:<b@example.com>", "<a@example.com>", "ü@example.com", "a@example.com,b@example.com", "a@ex ample.com", "a@.example.com", strings.Repeat("a", 65) + "@example.com"} {
		m := letter
		m.To = to
		if err := senders["smtp"].Send(t.Context(), &m); err == nil {
			t.Errorf("a mail to %q was sent", to)
		}
		if mailer.ValidAddress(to) {
			t.Errorf("%q is valid", to)
		}
	}
}

func TestFolder(t *testing.T) {
	for _, real := range []bool{false, true} {
		w := world.Real(nil)
		clock := world.NewManual(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
		w.Clock = clock
		dir := "mail"
		if !real {
			w.FS = vfs.NewMem()
		} else {
			dir = t.TempDir() + "/mail"
		}
		var paths []string
		open := func() *mailer.Folder {
			f, err := mailer.NewFolder(dir, "The PDS <pds@example.com>", w)
			if err != nil {
				t.Fatal(err)
			}
			f.Sent = func(_ *mailer.Message, path string) { paths = append(paths, path) }
			return f
		}
		f := open()
		if mails, err := f.Mails(); err != nil || len(mails) != 0 {
			t.Fatalf("a folder that isn't there: %v, %v", mails, err)
		}
		const n = mailer.MaxFiles + 5
		total := 3
		if !real {
			total = n
		}
		for i := range total {
			m := letter
			m.Code = fmt.Sprint(i)
			if i == 2 {
				f = open() // another process
				clock.Set(clock.Now().Add(-time.Hour))
			}
			if err := f.Send(t.Context(), &m); err != nil {
				t.Fatal(err)
			}
		}
		mails, err := f.Mails()
		if err != nil || len(mails) != min(total, mailer.MaxFiles) {
			t.Fatalf("%d mails, %v", len(mails), err)
		}
		for i, m := range mails {
			want := letter
			want.Code = fmt.Sprint(total - len(mails) + i)
			if m != want {
				t.Fatalf("mail %d: %+v", i, m)
			}
		}
		if len(paths) != total {
			t.Errorf("told of %d files", len(paths))
		}
		if real {
			info, err := os.Stat(paths[0])
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			raw, err := os.ReadFile(paths[0])
			if err != nil {
				t.Fatal(err)
			}
			checkLetter(t, string(raw))
		}
		m := letter
		m.To = "x\r\ny"
		if err := f.Send(t.Context(), &m); err == nil {
			t.Error("a mail with two lines in its address")
		}
	}
}

func TestMemory(t *testing.T) {
	var x mailer.Memory
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for i := range 3 {
			m := letter
			m.Code = fmt.Sprint(i)
			_ = x.Send(ctx, &m)
		}
	}()
	for i := range 3 {
		if m, err := x.Await(ctx, i+1); err != nil || m.Code != fmt.Sprint(i) {
			t.Errorf("%+v, %v", m, err)
		}
	}
	cancel()
	if _, err := x.Await(ctx, 4); err == nil {
		t.Error("a mail that wasn't sent")
	}
	x.Fail(io.ErrUnexpectedEOF)
	if err := x.Send(ctx, &letter); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// FuzzMessage writes mails and reads them again with other code.
func FuzzMessage(f *testing.F) {
	f.Add("subject", "text\n")
	f.Add("Grüße", ".\n..\r\n=\n \t\nFrom x\n")
	f.Add("=?utf-8?q?x?=", strings.Repeat("x", 2000))
	f.Add("a\r\nb", "\xff")
	f.Fuzz(func(t *testing.T, subject, text string) {
		w := world.Real(nil)
		w.FS = vfs.NewMem()
		dir, err := mailer.NewFolder("mail", "pds@localhost", w)
		if err != nil {
			t.Fatal(err)
		}
		if dir.Send(t.Context(), &mailer.Message{To: "a@example.com", Subject: subject, Text: text}) != nil {
			return
		}
		mails, err := dir.Mails()
		if err != nil || len(mails) != 1 {
			t.Fatalf("%v, %v", mails, err)
		}
		lines := func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }
		if got := mails[0]; strings.TrimSpace(got.Subject) != strings.TrimSpace(subject) || !bytes.Equal([]byte(lines(got.Text)), []byte(lines(text))) {
			t.Errorf("%.200q %.200q became %.200q %.200q", subject, text, got.Subject, got.Text)
		}
	})
}
