package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

func newPLCVerify(e *env) *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:   "verify ACCOUNT|FILE|-",
		Short: "Check a log, or a dump of a whole directory, against all rules",
		Long: "Checks the log of an account that a directory gives, or a file: lines of 'baro plc dump' or 'baro plc history --json', or the array that a\n" +
			"directory answers /log/audit with. A file is read as a stream, and may hold the logs of any number of identities, each in the\n" +
			"order of acceptance; a few hundred bytes are kept in memory for each.\n\n" +
			"For every operation the form, hash, DID, place, signature and time are checked, and what it makes void is held against what the file\n" +
			"says. What breaks a rule is told with its name, and the rest of that identity is left out; then the exit code is 3. The rules are:\n" +
			"format, order, tombstone, signature, late, genesis and audit.",
		Example: "  baro plc verify alice.test\n  baro plc dump | baro plc verify -\n  baro plc verify plc.jsonl --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			var in io.Reader = e.stdin
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err == nil {
					defer file.Close()
					in = file
				} else if _, perr := parseAccount(args[0]); perr != nil {
					return fmt.Errorf("opening the log: %w", err)
				} else {
					_, _, log, lerr := e.plcLog(ctx, args[0], f)
					if len(log) == 0 {
						return advise(lerr)
					}
					v := &logVerifier{e: e, ids: map[syntax.DID]*verifiedLog{}}
					for i := range log {
						if err := v.entry(log[i], i+1); err != nil {
							return err
						}
					}
					// Every entry was held against the identity that it names. That it is the one that was asked for,
					// plcLog has looked: a directory may answer with a good log of somebody else.
					if err := v.end(); err != nil {
						return err
					}
					return lerr
				}
			}
			return e.plcVerify(ctx, in)
		},
	}
	f.addDirectory(cmd.Flags())
	return cmd
}

func (e *env) plcVerify(ctx context.Context, in io.Reader) error {
	t := e.transfer("verifying", 0)
	defer t.done()
	r := bufio.NewReaderSize(io.TeeReader(contextReader{ctx, in}, t), 256<<10)
	v := &logVerifier{e: e, ids: map[syntax.DID]*verifiedLog{}}
	if isArray(r) {
		dec := json.NewDecoder(r)
		if _, err := dec.Token(); err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		for n := 1; dec.More(); n++ {
			var raw json.RawMessage
			if err := dec.Decode(&raw); err != nil {
				return fmt.Errorf("reading the log: entry %d: %w", n, err)
			}
			if err := v.line(raw, n); err != nil {
				return err
			}
		}
		if _, err := dec.Token(); err != nil {
			return fmt.Errorf("reading the log: it ends too early: %w", err)
		}
		return v.end()
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxDumpLine)
	for n := 1; sc.Scan(); n++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		if err := v.line(sc.Bytes(), n); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	return v.end()
}

// isArray looks whether JSON begins with an array.
func isArray(r *bufio.Reader) bool {
	for {
		b, err := r.Peek(1)
		if err != nil || !bytes.ContainsAny(b, " \t\r\n") {
			return len(b) == 1 && b[0] == '['
		}
		_, _ = r.Discard(1) // it is there
	}
}

// verifiedLog is the log of one identity as far as it was read.
type verifiedLog struct {
	replay plc.Replay
	claim  map[cid.CID]bool // entries that are said to be void, and not yet are by the rules
	lost   bool             // a rule was broken
}

// logVerifier checks entries of any number of identities.
type logVerifier struct {
	e    *env
	ids  map[syntax.DID]*verifiedLog
	n    int
	void int
	bad  int
	seq  int64
	time string
}

// tell reports what breaks a rule.
func (v *logVerifier) tell(n int, did syntax.DID, rule plc.Rule, detail string) error {
	v.bad++
	if v.e.json {
		return v.e.printJSON(map[string]any{"ok": false, "entry": n, "did": did, "rule": rule, "detail": detail})
	}
	_, err := fmt.Fprintf(v.e.stdout, "entry %d: %s: %s: %s\n", n, inert(string(did)), rule, inert(detail))
	return err
}

func (v *logVerifier) broken(n int, did syntax.DID, err error) error {
	if bad, ok := errors.AsType[*plc.Error](err); ok {
		return v.tell(n, did, bad.Rule, bad.Detail)
	}
	return v.tell(n, did, plc.RuleFormat, err.Error())
}

func (v *logVerifier) line(b []byte, n int) error {
	l, err := plcdir.ParseLine(b)
	if err != nil {
		v.n++
		return v.broken(n, "", err)
	}
	if l.Seq > 0 {
		if l.Seq <= v.seq {
			if err := v.tell(n, syntax.DID(l.DID), plc.RuleAudit, fmt.Sprintf("sequence number %d after %d", l.Seq, v.seq)); err != nil {
				return err
			}
		}
		v.seq = l.Seq
	}
	x, err := l.Entry()
	if err != nil {
		v.n++
		v.of(syntax.DID(l.DID)).lost = true
		return v.broken(n, syntax.DID(l.DID), err)
	}
	return v.entry(x, n)
}

func (v *logVerifier) of(did syntax.DID) *verifiedLog {
	s := v.ids[did]
	if s == nil {
		s = &verifiedLog{}
		v.ids[did] = s
	}
	return s
}

func (v *logVerifier) entry(x plc.Entry, n int) error {
	v.n++
	s := v.of(x.DID)
	if s.lost {
		return nil
	}
	void, err := s.replay.Add(x.DID, x)
	if err != nil {
		s.lost = true
		return v.broken(n, x.DID, err)
	}
	v.void += len(void)
	if x.Nullified {
		if s.claim == nil {
			s.claim = map[cid.CID]bool{}
		}
		s.claim[x.CID] = true
	}
	if v.seq == 0 { // the form with numbers doesn't tell what is void
		for _, o := range void {
			if !s.claim[o.CID] {
				s.lost = true
				return v.tell(n, x.DID, plc.RuleAudit, fmt.Sprintf("%s makes %s void, which is not said to be", x.CID, o.CID))
			}
			delete(s.claim, o.CID)
		}
	}
	s.replay.Forget(x.CreatedAt)
	return nil
}

// end reports the whole.
func (v *logVerifier) end() error {
	for did, s := range v.ids {
		if s.lost {
			continue
		}
		for id := range s.claim {
			if err := v.tell(v.n, did, plc.RuleAudit, fmt.Sprintf("%s is said to be void, but nothing makes it so", id)); err != nil {
				return err
			}
		}
	}
	if v.e.json {
		if err := v.e.printJSON(map[string]any{"ok": v.bad == 0, "entries": v.n, "identities": len(v.ids), "void": v.void, "broken": v.bad}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(v.e.stderr, "%d operations of %d identities, %d void; rules broken: %d\n", v.n, len(v.ids), v.void, v.bad)
	}
	if v.n == 0 {
		return errors.New("there is no operation in it")
	}
	if v.bad > 0 {
		return notVerified(fmt.Errorf("rules are broken: %d", v.bad))
	}
	if !v.e.json {
		_, err := fmt.Fprintln(v.e.stdout, "ok")
		return err
	}
	return nil
}
