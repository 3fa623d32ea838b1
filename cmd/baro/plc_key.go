package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/barograph/baro/keys"
)

// plcKeyVariable holds a secret rotation key.
const plcKeyVariable = "PLC_SIGNING_KEY"

// addSigningKey adds the flag that says where a rotation key is. It takes no key: others can see arguments.
func addSigningKey(fl *pflag.FlagSet, file *string) {
	fl.StringVar(file, "plc-signing-key", "", "file with a secret rotation key, - for standard input (default: the variable "+plcKeyVariable+", which holds the key itself)")
}

// signingKey reads a secret rotation key from a file, standard input or the variable; nil if there is none and it isn't a must.
func (e *env) signingKey(file string, must bool) (*keys.PrivateKey, error) {
	return e.secretKey(file, "--plc-signing-key", plcKeyVariable, must)
}

// secretKey reads a secret key from a file, standard input or a variable.
func (e *env) secretKey(file, flag, variable string, must bool) (*keys.PrivateKey, error) {
	text, from := os.Getenv(variable), variable
	switch {
	case file == "-":
		line, err := bufio.NewReader(io.LimitReader(e.stdin, 4096)).ReadString('\n')
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("reading the key: %w", err)
		}
		text, from = line, "standard input"
	case file != "":
		if _, err := keys.ParsePrivate(strings.TrimSpace(file)); err == nil {
			return nil, usagef("%s takes a file: this is a secret key, and others can see arguments. Set %s instead", flag, variable)
		}
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("opening the key: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 4096))
		if err != nil {
			return nil, fmt.Errorf("reading the key: %w", err)
		}
		text, from = string(b), file
	}
	if text = strings.TrimSpace(text); text == "" {
		if !must {
			return nil, nil
		}
		return nil, usagef("a secret key is needed: %s names a file, or %s holds it", flag, variable)
	}
	k, err := keys.ParsePrivate(text)
	if err != nil {
		return nil, errors.New(from + " holds no secret key, such as 'baro key generate --terse' prints") // the cause may repeat the text
	}
	return k, nil
}
