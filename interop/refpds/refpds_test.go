package refpds

import (
	"net/http"
	"net/smtp"
	"strings"
	"testing"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
)

func TestStart(t *testing.T) {
	pds := Start(t, Options{})
	out, err := comatproto.ServerDescribeServer.Call(t.Context(), pds.Admin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if out.Did != string(pds.DID) || len(out.AvailableUserDomains) != 1 || out.AvailableUserDomains[0] != ".test" {
		t.Errorf("the server describes itself as %+v", out)
	}

	alice := pds.CreateAccount(t, "alice")
	resp, err := http.Get(pds.PLC + "/" + string(alice.DID))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := make([]byte, 64<<10)
	n, _ := resp.Body.Read(body)
	doc, err := identity.ParseDocument(alice.DID, body[:n])
	if err != nil {
		t.Fatal(err)
	}
	if got := doc.Service(identity.FragmentPDS, identity.TypePDS); got != pds.URL {
		t.Errorf("the account's document leads to %q, want %s", got, pds.URL)
	}

	// A code comes by mail, and is one that the server takes.
	account, err := auth.New(auth.Options{}).Login(t.Context(), pds.URL, auth.Credentials{Identifier: alice.Handle, Password: alice.Password})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := comatproto.ServerRequestEmailConfirmation.Call(t.Context(), account.Client(), nil); err != nil {
		t.Fatal(err)
	}
	in := &comatproto.ServerConfirmEmail_Input{Email: alice.Email, Token: pds.Code(t, alice.Email)}
	if _, err := comatproto.ServerConfirmEmail.Call(t.Context(), account.Client(), in); err != nil {
		t.Fatal(err)
	}
	session, err := comatproto.ServerGetSession.Call(t.Context(), account.Client(), nil)
	if err != nil || session.EmailConfirmed == nil || !*session.EmailConfirmed {
		t.Errorf("the address is not confirmed: %+v, %v", session, err)
	}
}

// Two servers share one directory, each with its own accounts.
func TestStartTwo(t *testing.T) {
	first := Start(t, Options{})
	second := Start(t, Options{PLC: first.PLC, Handles: ".second.test"})
	if second.PLC != first.PLC {
		t.Errorf("the second server's directory is %s, want %s", second.PLC, first.PLC)
	}
	seen := map[syntax.DID]bool{}
	for _, p := range []*PDS{first, second} {
		seen[p.CreateAccount(t, "carol").DID] = true
	}
	if len(seen) != 2 {
		t.Errorf("accounts of two servers: %v", seen)
	}
}

func TestMail(t *testing.T) {
	p := &PDS{mail: catchMail(t)}
	send := func(to, text string) {
		t.Helper()
		text = strings.ReplaceAll(text, "\n", "\r\n")
		if err := smtp.SendMail(p.mail.addr, nil, "pds@example.com", []string{to}, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	send("a@example.com", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nfirst =3D abcde-\n.. and a lone point\n")
	send("b@example.com", "Subject: other\nContent-Type: text/plain\n\nthe code is ABCDE-23456.\n")
	send("a@example.com", "Subject: parts\nContent-Type: multipart/alternative; boundary=x\n\n--x\nContent-Type: text/html\n\n<p>ZZZZZ-ZZZZZ\n--x\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nYYYYY-=\n22222\n--x--\n")

	if got := p.Mail(t, "A@example.com"); got.Subject != "Grüße" || got.Text != "first = abcde-\n.. and a lone point\n" {
		t.Errorf("the first mail is %+q", got)
	}
	if got := p.Code(t, "b@example.com"); got != "ABCDE-23456" {
		t.Errorf("the code is %q", got)
	}
	if got := p.Code(t, "a@example.com"); got != "YYYYY-22222" {
		t.Errorf("the code is %q", got)
	}
}
