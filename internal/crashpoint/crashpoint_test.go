//go:build faulttest && unix

package crashpoint

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

func TestHitKills(t *testing.T) {
	if os.Getenv("CRASHPOINT_CHILD") != "" {
		for range 5 {
			Hit("other")
			os.Stdout.WriteString("x")
			Hit("here")
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestHitKills")
	cmd.Env = append(os.Environ(), "CRASHPOINT_CHILD=1", "BARO_CRASHPOINT=here:3")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err == nil {
		t.Fatal("the child survived its crash point")
	}
	if out.String() != "xxx" {
		t.Fatalf("child got to %q before it died, want 3 rounds", out.String())
	}
	if !bytes.Contains(stderr.Bytes(), []byte("crashpoint fired: here")) {
		t.Fatalf("no proof that the fault fired: %s", stderr.String())
	}
}
