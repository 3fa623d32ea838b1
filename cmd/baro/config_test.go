package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestSecretArguments holds every flag that is named like a secret to be refused on the command line, without being repeated.
func TestSecretArguments(t *testing.T) {
	// The codes that a mail carries are good once, and only for somebody who is logged in.
	mailed := map[string]bool{"account migrate --plc-token": true, "account plc sign --token": true, "account plc add-rotation-key --token": true}
	refused := 0
	for _, shape := range tree(newRoot()) {
		path := commandPath(shape)
		var names []string
		eachSetting(shape, func(f *pflag.Flag) {
			if f.Value.Type() == "string" && secret(f) && !mailed[path+" --"+f.Name] {
				names = append(names, f.Name)
			}
		})
		for _, name := range names {
			cmd, _, err := newRoot().Find(strings.Fields(path))
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.ParseFlags([]string{"--" + name, "hunter2"}); err != nil {
				t.Errorf("%s --%s: %v", path, name, err)
				continue
			}
			c, err := loadConfig(cmd, "/dev/null", nil)
			if err != nil {
				t.Fatal(err)
			}
			err = c.noSecretArguments(cmd)
			if err == nil || !strings.Contains(err.Error(), envName(name)) || strings.Contains(err.Error(), "hunter2") || !isUsage(err) {
				t.Errorf("%s --%s hunter2: %v", path, name, err)
			}
			refused++

			cmd, _, _ = newRoot().Find(strings.Fields(path))
			if c, err = loadConfig(cmd, "/dev/null", []string{envName(name) + "=hunter2"}); err != nil {
				t.Fatal(err)
			}
			if err := c.noSecretArguments(cmd); err != nil {
				t.Errorf("%s refuses %s in a variable: %v", path, name, err)
			}
		}
	}
	if refused < 20 {
		t.Errorf("%d flags were tried", refused)
	}
}

func isUsage(err error) bool {
	x, ok := errors.AsType[*exitError](err)
	return ok && x.code == exitUsage
}
