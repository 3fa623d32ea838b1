//go:build faulttest && unix

package pds

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/internal/world"
)

// secretCrashPoints are where a process dies while a password changes, and while an account is deleted whose time has come.
var secretCrashPoints = []struct {
	name string
	hits []int
}{
	{"pds/password/changed", []int{1}}, {"pds/deadline/before-delete", []int{1}},
	{"eventlog/before-apply", []int{1, 2, 3, 4, 5}}, {"eventlog/after-apply", []int{1, 2, 3, 4, 5}},
}

const otherPassword = "another quiet barometer"

// TestSecretCrashPoints: whenever a process dies, the password is the old one with its sessions or the new one without them, never a
// mixture and never the old one after the answer; and an account that was to be deleted is.
func TestSecretCrashPoints(t *testing.T) {
	if dir := os.Getenv("PDS_SECRET_CRASH_DIR"); dir != "" {
		n := crashNetwork(t, dir, os.Getenv("PDS_SECRET_CRASH_PLC"))
		n.cfg.InviteRequired = false
		n.restart()
		n.run()
		say := func(words ...string) { fmt.Println("ack " + strings.Join(words, " ")) }
		a, b := n.signedUp("alice"), n.signedUp("bob")
		say("alice", a.str("did"), a.str("refreshJwt"))
		say("bob", b.str("did"))
		want(t, n.order("admin.updateAccountPassword", map[string]any{"did": a.str("did"), "password": otherPassword}), 200, "")
		say("changed")
		want(t, n.call("com.atproto.server.deactivateAccount", b.str("accessJwt"), map[string]any{"deleteAfter": datetime(time.Now().Add(50 * time.Millisecond))}), 200, "")
		say("leaving")
		until(t, "deleting bob", func() bool { return n.statusOf(b.str("did")) == "deleted" })
		fmt.Println("nothing is left to do")
		return
	}
	for _, point := range secretCrashPoints {
		for _, hit := range point.hits {
			t.Run(fmt.Sprintf("%s:%d", point.name, hit), func(t *testing.T) {
				dir, directory := t.TempDir(), newFakePLC(t, world.System)
				cmd := exec.Command(os.Args[0], "-test.run=^TestSecretCrashPoints$", "-test.v")
				cmd.Env = append(os.Environ(), "PDS_SECRET_CRASH_DIR="+dir, "PDS_SECRET_CRASH_PLC="+directory.URL, fmt.Sprintf("BARO_CRASHPOINT=%s:%d", point.name, hit))
				var out, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &stderr
				if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "crashpoint fired: "+point.name) {
					t.Fatalf("the child did not die there: %v %s %s", err, out.String(), stderr.String())
				}
				acked := map[string][]string{}
				for line := range strings.Lines(out.String()) {
					if f := strings.Fields(line); len(f) >= 2 && f[0] == "ack" {
						acked[f[1]] = f[2:]
					}
				}
				n := crashNetwork(t, dir, directory.URL)
				n.plc = directory
				t.Cleanup(func() { n.testPDS.stop() })
				n.run()
				if alice := acked["alice"]; alice != nil {
					before, after := n.signIn(alice[0], goodPassword).Status == 200, n.signIn(alice[0], otherPassword).Status == 200
					session := n.call("com.atproto.server.refreshSession", alice[1], nil).Status == 200
					if before == after || session != before || acked["changed"] != nil && before {
						t.Errorf("the old password is good: %v, the new one: %v, the old session: %v, answered: %v", before, after, session, acked["changed"] != nil)
					}
				}
				if acked["leaving"] != nil {
					until(t, "deleting bob", func() bool { return n.statusOf(acked["bob"][0]) == "deleted" })
				}
			})
		}
	}
}
