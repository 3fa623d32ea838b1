//go:build faulttest && unix

package pds

import (
	"bufio"
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// accountCrashPoints are the places between the steps of sign-up, sign-in, refreshing and renaming, with how often each is passed before
// the process dies there.
var accountCrashPoints = []struct {
	name string
	hits []int
}{
	{"pds/account/before-plc", []int{1}}, {"pds/account/after-plc", []int{1}}, {"pds/account/durable", []int{1}}, {"pds/handle/after-plc", []int{1}},
	{"pds/mail/written", []int{1}}, {"pds/mail/sent", []int{1}},
	{"eventlog/before-apply", []int{1, 2, 3, 4, 5, 6, 7, 8}}, {"eventlog/after-apply", []int{1, 2, 3, 4, 5, 6, 7, 8}},
}

// crashNetwork is a PDS on a real folder and a PLC directory that outlives it.
func crashNetwork(t *testing.T, dir, plcURL string) *network {
	t.Helper()
	n := &network{dns: &fakeDNS{txt: map[string][]string{}}}
	u, err := url.Parse(plcURL)
	if err != nil {
		t.Fatal(err)
	}
	d := netguard.NewDialer(netguard.Options{Resolver: n.dns})
	if err := d.Allow(u.Host); err != nil {
		t.Fatal(err)
	}
	n.world = world.Real(nil)
	n.world.FS, n.world.Dialer, n.world.Resolver = vfs.Default, d, n.dns
	mails, err := mailer.NewFolder(filepath.Join(dir, "mails"), "pds@example.com", n.world)
	if err != nil {
		t.Fatal(err)
	}
	n.cfg = Config{Mail: mails, Dir: dir, PLCURL: plcURL, AdminPassword: "operator", InviteRequired: true, Accounts: AccountConfig{PasswordMemory: 64}}
	n.testPDS = openPDS(t, n.world, n.cfg)
	return n
}

// TestAccountCrashPoints lets a child process die at each point and opens what it left: what was acknowledged is there, what wasn't can be
// done again, an invite code is used once at most, and the identity and the account agree in the end.
func TestAccountCrashPoints(t *testing.T) {
	if dir := os.Getenv("PDS_ACCOUNT_CRASH_DIR"); dir != "" {
		accountCrashChild(t, dir)
		return
	}
	for _, point := range accountCrashPoints {
		for _, hit := range point.hits {
			t.Run(fmt.Sprintf("%s:%d", point.name, hit), func(t *testing.T) {
				dir, directory := t.TempDir(), newFakePLC(t, world.System)
				cmd := exec.Command(os.Args[0], "-test.run=^TestAccountCrashPoints$", "-test.v")
				cmd.Env = append(os.Environ(), "PDS_ACCOUNT_CRASH_DIR="+dir, "PDS_ACCOUNT_CRASH_PLC="+directory.URL,
					fmt.Sprintf("BARO_CRASHPOINT=%s:%d", point.name, hit))
				var out, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &stderr
				if err := cmd.Run(); err == nil {
					t.Fatal("the child did not die: the point was never reached")
				}
				if !strings.Contains(stderr.String(), "crashpoint fired: "+point.name) {
					t.Fatalf("died of something else: %s %s", out.String(), stderr.String())
				}
				n := crashNetwork(t, dir, directory.URL)
				n.plc = directory
				t.Cleanup(func() { n.testPDS.stop() })
				afterAccountCrash(t, n, &out)
			})
		}
	}
}

func accountCrashChild(t *testing.T, dir string) {
	n := crashNetwork(t, dir, os.Getenv("PDS_ACCOUNT_CRASH_PLC"))
	say := func(words ...string) { fmt.Println("ack " + strings.Join(words, " ")) }
	made := n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 1}, "admin", "operator")
	want(t, made, 200, "")
	say("invite", made.str("code"))
	in := signUpInput("alice")
	in["inviteCode"] = made.str("code")
	a := n.call("com.atproto.server.createAccount", "", in)
	want(t, a, 200, "")
	say("account", a.str("did"))
	say("refresh", a.str("refreshJwt"))
	s := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice.test", "password": goodPassword})
	want(t, s, 200, "")
	say("refresh", s.str("refreshJwt"))
	s = n.call("com.atproto.server.refreshSession", s.str("refreshJwt"), nil)
	want(t, s, 200, "")
	say("refresh", s.str("refreshJwt"))
	want(t, n.call("com.atproto.identity.updateHandle", s.str("accessJwt"), map[string]any{"handle": "alicia.test"}), 200, "")
	say("handle", "alicia.test")
	say("mailing", "a-code")
	want(t, n.call("com.atproto.server.requestEmailConfirmation", s.str("accessJwt"), nil), 200, "")
	say("mailed", "a-code")
	p := n.call("com.atproto.server.createAppPassword", s.str("accessJwt"), map[string]any{"name": "bot"})
	want(t, p, 200, "")
	say("app", p.str("password"))
	app := n.signIn("alicia.test", p.str("password"))
	want(t, app, 200, "")
	say("appRefresh", app.str("refreshJwt"))
	say("revoking", "bot")
	want(t, n.call("com.atproto.server.revokeAppPassword", s.str("accessJwt"), map[string]any{"name": "bot"}), 200, "")
	say("revoked", "bot")
	n.testPDS.stop()
}

func afterAccountCrash(t *testing.T, n *network, out *bytes.Buffer) {
	t.Helper()
	acked := map[string][]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "ack" {
			acked[f[1]] = append(acked[f[1]], f[2])
		}
	}
	if acked["invite"] == nil {
		return
	}
	for _, token := range acked["refresh"] {
		want(t, n.call("com.atproto.server.refreshSession", token, nil), 200, "")
	}
	// Trying again does it, or finds it done. The code is good for one account in any case.
	in := signUpInput("alice")
	in["inviteCode"] = acked["invite"][0]
	again := n.call("com.atproto.server.createAccount", "", in)
	if again.Status == 200 && acked["account"] != nil {
		t.Fatal("signed up twice")
	}
	in = signUpInput("bob")
	in["inviteCode"] = acked["invite"][0]
	want(t, n.call("com.atproto.server.createAccount", "", in), 400, "InvalidInviteCode")
	s := n.call("com.atproto.server.createSession", "", map[string]any{"identifier": "alice@example.com", "password": goodPassword})
	want(t, s, 200, "")
	did := syntax.DID(s.str("did"))
	if acked["account"] != nil && acked["account"][0] != string(did) {
		t.Fatal("another account than the one acknowledged")
	}
	if acked["handle"] != nil && s.str("handle") != "alicia.test" {
		t.Fatalf("acknowledged handle is lost: %s", s.str("handle"))
	}
	// A mail that was written down goes out, and what was acknowledged has gone out: its code is good.
	waiting := n.rows(rowOutbox)
	if acked["mailed"] != nil && waiting != 0 {
		t.Errorf("%d mails wait that were sent", waiting)
	}
	if acked["mailing"] != nil {
		for range waiting {
			name, w, _ := n.accounts.outbox.due(n.world.Clock.Now())
			if err := n.sendWaiting(t.Context(), name, w); err != nil {
				t.Fatal(err)
			}
		}
		sent, err := n.cfg.Mail.(*mailer.Folder).Mails()
		if err != nil || acked["mailed"] != nil && len(sent) == 0 || waiting > 0 && len(sent) == 0 || len(sent) > 2 {
			t.Errorf("%d mails: %v", len(sent), err)
		}
		for _, m := range sent {
			n.call("com.atproto.server.confirmEmail", s.str("accessJwt"), map[string]any{"email": "alice@example.com", "token": m.Code})
		}
		if a, err := n.Service.account(did); err != nil || a.EmailConfirmed != (len(sent) > 0) {
			t.Errorf("the code of %d mails is not good: %v", len(sent), err)
		}
	}
	// An app password and its session are there together or gone together.
	if acked["app"] != nil && acked["appRefresh"] != nil {
		in := n.signIn(string(did), acked["app"][0])
		refreshed := n.call("com.atproto.server.refreshSession", acked["appRefresh"][0], nil)
		there := in.Status == 200
		if there != (refreshed.Status == 200) || (acked["revoking"] == nil && !there) || (acked["revoked"] != nil && there) {
			t.Errorf("app password: %s, its session: %s", in.Body, refreshed.Body)
		}
	} else if acked["app"] != nil {
		want(t, n.signIn(string(did), acked["app"][0]), 200, "")
	}
	want(t, n.call("com.atproto.identity.updateHandle", s.str("accessJwt"), map[string]any{"handle": "alicia.test"}), 200, "")
	if got := n.plc.state(t, did).Handle(); got != "alicia.test" {
		t.Errorf("identity has handle %s", got)
	}
	if st := n.query("com.atproto.server.checkAccountStatus", s.str("accessJwt")); st.JSON["validDid"] != true || st.JSON["activated"] != true {
		t.Errorf("status: %s", st.Body)
	}
	key, err := keys.ParseDIDKey(n.plc.state(t, did).SigningKey())
	if err != nil {
		t.Fatal(err)
	}
	n.checkRepo(did, key)
}
