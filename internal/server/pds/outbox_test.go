package pds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/barograph/baro/internal/figures"
	"github.com/barograph/baro/internal/mailer"
)

// retry lets time pass and sends what is due, like runOutbox; it returns how many mails had their turn.
func (n *mailNetwork) retry(d time.Duration) (turns int) {
	n.t.Helper()
	n.clock.Advance(d)
	for {
		name, w, _ := n.accounts.outbox.due(n.clock.Now())
		if w == nil {
			return turns
		}
		if err := n.sendWaiting(n.t.Context(), name, w); err != nil {
			n.t.Fatal(err)
		}
		turns++
	}
}

func (n *mailNetwork) outboxLeft() (rows, waiting int) {
	return n.rows(rowOutbox), len(n.accounts.outbox.of)
}

// A mail that doesn't get off waits, longer each time, also over a restart, and its code is good when it comes.
func TestOutbox(t *testing.T) {
	n := newMailNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	n.mails.Fail(errors.New("no route"))
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	if rows, waiting := n.outboxLeft(); rows != 1 || waiting != 1 {
		t.Fatalf("%d rows, %d wait", rows, waiting)
	}
	if got := n.retry(outboxPause - time.Second); got != 0 {
		t.Errorf("tried %d times before its turn", got)
	}
	if got := n.retry(time.Second); got != 1 {
		t.Errorf("tried %d times", got)
	}
	if got := n.retry(2*outboxPause - time.Second); got != 0 {
		t.Errorf("the second pause is not longer: %d tries", got)
	}
	it := n.store.Iter([]byte(rowOutbox), []byte(rowOutbox+"\xff"))
	for ok := it.First(); ok; ok = it.Next() {
		if strings.Contains(string(it.Value()), "alice") || strings.Contains(string(it.Value()), "code") {
			t.Errorf("the row can be read: %q", it.Value())
		}
	}
	it.Close()
	n.restart()
	n.mails.Fail(nil)
	if got := n.retry(0); got != 1 {
		t.Errorf("after the start %d mails were tried", got)
	}
	code := n.code(tokenConfirm, "alice@example.com")
	want(t, n.call("com.atproto.server.confirmEmail", tok, map[string]any{"email": "alice@example.com", "token": code}), 200, "")
	if rows, waiting := n.outboxLeft(); rows != 0 || waiting != 0 {
		t.Errorf("%d rows, %d wait", rows, waiting)
	}
	n.none()
}

// What nobody has use for any more is not sent, and what will never be taken is not tried again.
func TestOutboxDrops(t *testing.T) {
	n := newMailNetwork(t, Config{})
	for name, spoil := range map[string]func(tok, did string){
		"expired":         func(string, string) { n.clock.Advance(confirmationLife) },
		"account deleted": func(_, did string) { want(t, n.order("admin.deleteAccount", map[string]any{"did": did}), 200, "") },
		"address changed": func(_, did string) {
			want(t, n.order("admin.updateAccountEmail", map[string]any{"account": did, "email": "other@example.com"}), 200, "")
		},
		"password changed": func(_, did string) {
			want(t, n.order("admin.updateAccountPassword", map[string]any{"did": did, "password": "another password"}), 200, "")
		},
		"refused": func(string, string) { n.mails.Fail(&mailer.Error{Permanent: true, Err: errors.New("no such user")}) },
	} {
		t.Run(name, func(t *testing.T) {
			a := n.signedUp(strings.ReplaceAll(name, " ", "-"))
			n.mails.Fail(errors.New("no route"))
			want(t, n.call("com.atproto.server.requestEmailConfirmation", a.str("accessJwt"), nil), 200, "")
			n.mails.Fail(nil)
			spoil(a.str("accessJwt"), a.str("did"))
			if got := n.retry(outboxPause); got != 1 {
				t.Errorf("%d turns", got)
			}
			n.mails.Fail(nil)
			if rows, waiting := n.outboxLeft(); rows != 0 || waiting != 0 {
				t.Errorf("%d rows, %d wait", rows, waiting)
			}
			n.none()
		})
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(figures.New("pds", n.Metrics))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(families)
	for _, part := range []string{`"baro_pds_mails_waiting"`, `value:"expired"}  counter:{value:4}`, `value:"refused"}  counter:{value:1}`, `"baro_pds_mails_delayed_total"`} {
		if !strings.Contains(strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(part), " ")) {
			t.Errorf("the figures have no %s: %s", part, got)
		}
	}
}

// A newer code takes the place of one that waits, and the outbox has an end.
func TestOutboxBound(t *testing.T) {
	n := newMailNetwork(t, Config{})
	tok := n.signedUp("alice").str("accessJwt")
	n.mails.Fail(errors.New("no route"))
	for range 3 {
		want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	}
	if rows, waiting := n.outboxLeft(); rows != 1 || waiting != 1 {
		t.Errorf("%d rows, %d wait", rows, waiting)
	}
	for i := range maxOutbox - 1 {
		n.accounts.outbox.of[fmt.Sprint("did:plc:x/", i)] = &waiting{next: n.clock.Now().Add(time.Hour)}
	}
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "") // has its place
	want(t, n.call("com.atproto.server.requestAccountDelete", tok, nil), 502, "UpstreamFailure")
	n.mails.Fail(nil)
	want(t, n.call("com.atproto.server.requestAccountDelete", tok, nil), 200, "") // needs none
	n.code(tokenDelete, "alice@example.com")
	if got := n.retry(outboxPause); got != 1 {
		t.Errorf("%d turns", got)
	}
	want(t, n.call("com.atproto.server.confirmEmail", tok, map[string]any{"email": "alice@example.com", "token": n.code(tokenConfirm, "alice@example.com")}), 200, "")
	n.none()

	// The operator learns that a mail is not sent yet.
	n.accounts.outbox.of = map[string]*waiting{}
	notice := map[string]any{"recipientDid": n.didOfName("alice.test"), "senderDid": "did:web:localhost", "content": "hello"}
	n.mails.Fail(errors.New("no route"))
	if a := n.order("admin.sendEmail", notice); a.Status != 200 || a.JSON["sent"] != false {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	n.mails.Fail(nil)
	if got := n.retry(time.Hour); got != 1 || n.next().Text != "hello" {
		t.Errorf("%d turns", got)
	}
	if a := n.order("admin.sendEmail", notice); a.Status != 200 || a.JSON["sent"] != true {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	n.next()
}

// A machine that stops while a mail is being sent sends it when it is back.
func TestOutboxPowerLoss(t *testing.T) {
	mem := vfs.NewCrashableMem()
	n := newMailNetwork(t, Config{})
	n.testPDS.stop()
	n.world.FS = mem
	n.testPDS = openPDS(t, n.world, n.cfg)
	tok := n.signedUp("alice").str("accessJwt")
	cut := &cutSender{Memory: n.mails, during: func() { n.world.FS = mem.CrashClone(vfs.CrashCloneCfg{}) }}
	n.Service.cfg.Mail = cut
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	n.testPDS.stop()
	n.testPDS = openPDS(t, n.world, n.cfg)
	if got := n.retry(0); got != 1 {
		t.Fatalf("%d mails were sent after the start", got)
	}
	want(t, n.call("com.atproto.server.confirmEmail", tok, map[string]any{"email": "alice@example.com", "token": n.code(tokenConfirm, "alice@example.com")}), 200, "")
}

// The server does it by itself.
func TestOutboxRuns(t *testing.T) {
	n := newMailNetwork(t, Config{})
	defer n.run()()
	tok := n.signedUp("alice").str("accessJwt")
	n.mails.Fail(errors.New("no route"))
	want(t, n.call("com.atproto.server.requestEmailConfirmation", tok, nil), 200, "")
	n.mails.Fail(nil)
	until(t, "the mail is sent", func() bool {
		n.clock.Advance(time.Second)
		return len(n.mails.Mails()) == 1
	})
	n.code(tokenConfirm, "alice@example.com")
}

// cutSender fails, and something happens meanwhile.
type cutSender struct {
	*mailer.Memory
	during func()
}

func (c *cutSender) Send(context.Context, *mailer.Message) error {
	c.during()
	return errors.New("cut")
}
