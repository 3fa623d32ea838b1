package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/barograph/baro/examples/internal/localtest"
)

// TestMain lets the test run the program: in a process of its own, as anybody does.
func TestMain(m *testing.M) {
	if os.Getenv("BARO_TEST_EXAMPLE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestBot(t *testing.T) {
	net, c := localtest.Start(t, "bot.test")
	post := func(password string) (string, error) {
		cmd := exec.Command(os.Args[0], "Pressure is rising #weather")
		cmd.Env = append(os.Environ(), "BARO_TEST_EXAMPLE=1", "BOT_HANDLE=bot.test", "BOT_PASSWORD="+password, "BOT_PDS="+net.URLs().PDS)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	uri, err := post(localtest.Password)
	if err != nil {
		t.Fatal(uri, err)
	}
	if ref, err := c[0].Ref(t.Context(), uri); err != nil || string(ref.URI) != uri {
		t.Errorf("%v, %v", ref, err)
	}
	if out, err := post("wrong"); err == nil {
		t.Errorf("posted with a wrong password: %s", out)
	}
}
