//go:build faulttest && unix

package pds

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/internal/world"
)

// migrationCrashPoints are the places between the steps of a move, in both servers.
var migrationCrashPoints = []struct {
	name string
	hits []int
}{
	{"pds/account/durable", []int{2}}, {"pds/import/started", []int{1, 2}}, {"pds/import/batch", []int{1}}, {"pds/import/loaded", []int{1, 2}},
	{"pds/import/done", []int{1}}, {"pds/blob/intent", []int{4, 6}}, {"pds/blob/renamed", []int{4, 5}}, {"pds/blob/row", []int{4, 6}},
	{"pds/identity/after-plc", []int{1}},
	{"eventlog/before-apply", []int{21, 22, 24, 26, 28, 30, 32, 34, 36, 37, 38, 39, 40, 41}},
	{"eventlog/after-apply", []int{21, 22, 24, 26, 28, 30, 32, 34, 36, 37, 38, 39, 40, 41}},
}

const crashRecords = 6

// moveHouse opens both servers on folders that outlive them.
func moveHouse(t *testing.T, dir, plcURL string) (from, to *network, mails *mailer.Memory) {
	t.Helper()
	mails = &mailer.Memory{}
	from = crashNetwork(t, filepath.Join(dir, "old"), plcURL)
	from.testPDS.stop()
	from.t, from.cfg.Mail, from.cfg.InviteRequired = t, mails, false
	from.testPDS = openPDS(t, from.world, from.cfg)
	to = crashNetwork(t, filepath.Join(dir, "new"), plcURL)
	to.testPDS.stop()
	to.cfg.PublicURL, to.cfg.InviteRequired = "http://localhost:2584", false
	to.testPDS = openPDS(t, to.world, to.cfg)
	return from, to, mails
}

// TestMigrationCrashPoints lets a child process, which runs both servers and the client that moves an account, die at each point. Another
// client that knows nothing of the first then does the whole move, and finds one active host that has everything.
func TestMigrationCrashPoints(t *testing.T) {
	if dir := os.Getenv("PDS_MOVE_CRASH_DIR"); dir != "" {
		from, to, mails := moveHouse(t, dir, os.Getenv("PDS_MOVE_CRASH_PLC"))
		a := from.signedUp("alice")
		furnish(from, a.str("did"), a.str("accessJwt"), crashRecords)
		m := newMove(from, to, mails, a.str("did"))
		m.login()
		for _, step := range m.steps {
			step()
			m.login()
		}
		fmt.Println("moved")
		return
	}
	for _, point := range migrationCrashPoints {
		for _, hit := range point.hits {
			t.Run(fmt.Sprintf("%s:%d", point.name, hit), func(t *testing.T) {
				dir, directory := t.TempDir(), newFakePLC(t, world.System)
				cmd := exec.Command(os.Args[0], "-test.run=^TestMigrationCrashPoints$", "-test.v")
				cmd.Env = append(os.Environ(), "PDS_MOVE_CRASH_DIR="+dir, "PDS_MOVE_CRASH_PLC="+directory.URL, fmt.Sprintf("BARO_CRASHPOINT=%s:%d", point.name, hit))
				var out, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &stderr
				if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "crashpoint fired: "+point.name) {
					t.Fatalf("the child did not die there: %v %s %s", err, out.String(), stderr.String())
				}
				from, to, mails := moveHouse(t, dir, directory.URL)
				from.plc, to.plc = directory, directory
				t.Cleanup(func() { from.testPDS.stop(); to.testPDS.stop() })
				from.run()
				to.run()
				until(t, "finishing", func() bool {
					to.accounts.mu.Lock()
					defer to.accounts.mu.Unlock()
					return len(to.accounts.pending) == 0
				})
				m := newMove(from, to, mails, string(from.didOfName("alice.test")))
				m.t, m.cut = t, true
				m.login()
				for _, step := range m.steps {
					step()
					m.login()
				}
				m.check(crashRecords, 3)
			})
		}
	}
}
