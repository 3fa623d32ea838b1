package devnet_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/xrpc"
)

// An account without an address gets its codes too: mails stay on this machine.
func TestMails(t *testing.T) {
	for _, memory := range []bool{false, true} {
		var mu sync.Mutex
		var told []devnet.Mail
		var files []string
		o := devnet.Options{Memory: memory, OnMail: func(m devnet.Mail, file string) {
			mu.Lock()
			defer mu.Unlock()
			told, files = append(told, m), append(files, file)
		}}
		if !memory {
			o.Dir = t.TempDir()
		}
		n, err := devnet.Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		password := "correct horse"
		out, err := comatproto.ServerCreateAccount.Call(t.Context(), n.PDS(), &comatproto.ServerCreateAccount_Input{Handle: "alice.test", Password: &password})
		if err != nil {
			t.Fatal(err)
		}
		x := n.PDS().WithAuth(xrpc.Bearer(out.AccessJwt))
		if _, err := comatproto.IdentityRequestPlcOperationSignature.Call(t.Context(), x, nil); err != nil {
			t.Fatal(err)
		}
		mails, err := n.Mails()
		if err != nil || len(mails) != 1 || mails[0].To != "alice.test" || mails[0].Purpose != "plc" || !strings.Contains(mails[0].Text, mails[0].Code) || mails[0].Code == "" {
			t.Fatalf("mails %+v, %v", mails, err)
		}
		mu.Lock()
		if len(told) != 1 || told[0] != mails[0] || (files[0] == "") != memory {
			t.Errorf("told %+v of %q", told, files)
		}
		mu.Unlock()
		in := &comatproto.IdentitySignPlcOperation_Input{Token: &mails[0].Code, AlsoKnownAs: []string{"at://alice.test", "https://alice.example"}}
		if _, err := comatproto.IdentitySignPlcOperation.Call(t.Context(), x, in); err != nil {
			t.Error(err)
		}
	}
}
