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
		name, arg, example, what string
		kind                     syntax.Kind
	}{
		{"handle", "HANDLE", "alice.example.com", "A handle is a domain name that leads to a DID.", syntax.KindHandle},
		{"did", "DID", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "A DID names an account for good, whatever its handle.", syntax.KindDID},
		{"cid", "CID", "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a", "A CID names bytes by their hash.", syntax.KindCID},
		{"rkey", "RECORD-KEY", "self", "A record key names a record within its collection.", syntax.KindRecordKey},
		{"nsid", "NSID", "app.bsky.feed.post", "An NSID names a schema: a domain name turned round, and a name.", syntax.KindNSID},
		{"at-uri", "AT-URI", "at://alice.example.com/app.bsky.actor.profile/self", "An AT-URI names an account, a collection or a record.", syntax.KindATURI},
		{"language", "TAG", "pt-BR", "A language tag is one of BCP 47, such as pt-BR.", syntax.KindLanguage},
		{"tid", "TID", "3l6oveex3ii2l", "A TID is a time in microseconds and the number of a clock, in 13 characters.", syntax.KindTID},
		{"datetime", "DATETIME", "2026-01-02T03:04:05.678Z", "A datetime is one that records may hold: a part of RFC 3339 and ISO 8601.", syntax.KindDatetime},
	} {
		sub := &cobra.Command{
			Use:     k.name,
			Short:   "Check a " + k.name,
			Long:    k.what + " Nobody is asked: this is about the spelling alone.",
			Example: "  baro syntax " + k.name + " check " + k.example,
		}
		sub.AddCommand(&cobra.Command{
			Use:     "check " + k.arg,
			Short:   "Check the spelling",
			Long:    k.what + "\n\nPrints \"valid\", or ends with the exit code 1 and the reason.",
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
				Long:    "Prints the time as records write it, in UTC.",
				Example: "  baro syntax datetime now",
				RunE: func(*cobra.Command, []string) error {
					now := syntax.NewDatetime(e.world.Clock.Now())
					if e.json {
						return e.printJSON(map[string]any{"datetime": now})
					}
					_, err := fmt.Fprintln(e.stdout, now)
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
		Long:    "Prints the time, its microseconds since 1970, the number of the clock, and the 64-bit integer that the TID spells.",
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
		Long:    "Prints a TID of now and of a clock whose number is chosen at random, so that two machines don't choose the same.",
		Example: "  baro syntax tid generate",
		RunE: func(*cobra.Command, []string) error {
			var clock [2]byte
			if _, err := io.ReadFull(e.world.Rand, clock[:]); err != nil {
				return fmt.Errorf("choosing the number of a clock: %w", err)
			}
			id := uint(binary.LittleEndian.Uint16(clock[:])) % 1024
			tid := syntax.NewTIDClock(id).Next(e.world.Clock.Now())
			if e.json {
				return e.printJSON(map[string]any{"tid": tid})
			}
			_, err := fmt.Fprintln(e.stdout, tid)
			return err
		},
	}
}
