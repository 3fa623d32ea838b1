package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/syntax"
)

func newSyntax(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "syntax",
		Short: "Check identifiers, and make timestamps",
		Long: "Checks the spelling of one identifier, without asking anybody. What is well-formed is printed, what isn't ends with the\n" +
			"exit code 1 and the reason.",
		Example: "  baro syntax handle check alice.example.com\n  baro syntax tid now\n  baro syntax tid inspect 3l6oveex3ii2l",
	}
	for _, k := range []struct {
		name, arg, example string
		kind               syntax.Kind
	}{
		{"handle", "HANDLE", "alice.example.com", syntax.KindHandle},
		{"did", "DID", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", syntax.KindDID},
		{"cid", "CID", "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a", syntax.KindCID},
		{"rkey", "RECORD-KEY", "self", syntax.KindRecordKey},
		{"nsid", "NSID", "app.bsky.feed.post", syntax.KindNSID},
		{"at-uri", "AT-URI", "at://alice.example.com/app.bsky.actor.profile/self", syntax.KindATURI},
		{"language", "TAG", "pt-BR", syntax.KindLanguage},
		{"tid", "TID", "3l6oveex3ii2l", syntax.KindTID},
		{"datetime", "DATETIME", "2026-01-02T03:04:05.678Z", syntax.KindDatetime},
	} {
		sub := &cobra.Command{
			Use:     k.name,
			Short:   "Check a " + k.name,
			Example: "  baro syntax " + k.name + " check " + k.example,
		}
		sub.AddCommand(&cobra.Command{
			Use:     "check " + k.arg,
			Short:   "Check the spelling",
			Example: "  baro syntax " + k.name + " check " + k.example,
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				if err := syntax.CheckFormat(k.kind, args[0]); err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]any{"kind": k.kind, "value": args[0], "valid": true})
				}
				_, err := fmt.Fprintln(e.stdout, "valid")
				return err
			},
		})
		switch k.kind {
		case syntax.KindTID:
			sub.AddCommand(newTIDInspect(e), newTIDGenerate(e))
		case syntax.KindDatetime:
			sub.AddCommand(&cobra.Command{
				Use:     "now",
				Short:   "Print the present time",
				Example: "  baro syntax datetime now",
				RunE: func(*cobra.Command, []string) error {
					_, err := fmt.Fprintln(e.stdout, syntax.NewDatetime(e.world.Clock.Now()))
					return err
				},
			})
		}
		cmd.AddCommand(sub)
	}
	return cmd
}

func newTIDInspect(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect TID",
		Short:   "Tell the time and the clock of a TID",
		Example: "  baro syntax tid inspect 3l6oveex3ii2l",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := syntax.ParseTID(args[0])
			if err != nil {
				return err
			}
			at := t.Time().UTC().Format(time.RFC3339Nano)
			if e.json {
				return e.printJSON(map[string]any{"tid": t, "time": at, "micros": t.Micros(), "clockId": t.ClockID(), "integer": t.Integer()})
			}
			_, err = fmt.Fprintf(e.stdout, "time     %s\nmicros   %d\nclock    %d\ninteger  %d\n", at, t.Micros(), t.ClockID(), t.Integer())
			return err
		},
	}
}

func newTIDGenerate(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "generate",
		Aliases: []string{"now"},
		Short:   "Print a TID of the present time",
		Example: "  baro syntax tid generate",
		RunE: func(*cobra.Command, []string) error {
			var clock [2]byte
			if _, err := io.ReadFull(e.world.Rand, clock[:]); err != nil {
				return fmt.Errorf("choosing the number of a clock: %w", err)
			}
			id := uint(binary.LittleEndian.Uint16(clock[:])) % 1024
			_, err := fmt.Fprintln(e.stdout, syntax.NewTIDClock(id).Next(e.world.Clock.Now()))
			return err
		},
	}
}
