package migrate

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
)

const journalText = `{"at":"2026-01-01T00:00:00Z","kind":"plan","plan":{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","from":"https://a.example","to":"https://b.example","handle":"a.b.example"}}
{"at":"2026-01-01T00:00:01Z","kind":"done","step":"check","facts":{"newHost":"did:web:b.example"}}
{"at":"2026-01-01T00:00:02Z","kind":"begin","step":"account"}
`

func FuzzJournal(f *testing.F) {
	f.Add([]byte(journalText))
	f.Add([]byte(journalText[:len(journalText)-7]))
	f.Add([]byte(`{"kind":"done"}` + "\n"))
	f.Add([]byte("\n"))
	f.Add([]byte(journalText + "{\"at\":\x00\x00\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, whole, err := parseJournal(b)
		if err != nil {
			return
		}
		torn := b[whole:]
		if bytes.IndexByte(torn, 0) >= 0 {
			torn = bytes.TrimSuffix(torn, []byte("\n"))
		}
		if whole > len(b) || whole > 0 && b[whole-1] != '\n' || bytes.IndexByte(torn, '\n') >= 0 || bytes.Count(b[:whole], []byte("\n")) != len(lines) {
			t.Fatalf("%q: %d lines in %d bytes", b, len(lines), whole)
		}
		again, n, err := parseJournal(b[:whole])
		if err != nil || n != whole || !reflect.DeepEqual(again, lines) {
			t.Fatalf("%q read once more: %d lines, %v", b, len(again), err)
		}
	})
}

// TestTornJournal opens a journal that ends at each of its bytes.
func TestTornJournal(t *testing.T) {
	m := &mover{t: t, h: &hosts{}}
	for n := range len(journalText) + 1 {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(JournalName, []byte(journalText[:n]), 0o600); err != nil {
			t.Fatal(err)
		}
		m.dir = root
		j := m.open()
		want := strings.Count(journalText[:n], "\n")
		if _, ok := j.Plan(); ok != (want > 0) || j.Done(StepCheck) != (want > 1) || j.begun[StepAccount] != (want > 2) {
			t.Errorf("after %d bytes: %+v", n, j)
		}
		if want > 0 {
			if err := j.write(lineFacts, StepExport, map[string]any{"records": 7}); err != nil {
				t.Fatal(err)
			}
		}
		j.Close()
		j = m.open()
		if got := j.Facts().Records; (got == 7) != (want > 0) {
			t.Errorf("after %d bytes, and one line more: %d", n, got)
		}
		j.Close()
		root.Close()
	}
	for _, bad := range []string{`{"kind":"done"}` + "\n", journalText + journalText, journalText + "x\n", journalText + `{"kind":"what"}` + "\n",
		journalText + `{"kind":"again","step":"what"}` + "\n", strings.Replace(journalText, "https://b.example", "nowhere", 1)} {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(JournalName, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err := Open(Options{Dir: root, Identity: m.directory(), Now: nil}); err == nil {
			t.Errorf("%v was opened without a clock", j)
		}
		m.dir = root
		if err := m.tryOpen(); err == nil {
			t.Errorf("%q was opened", bad)
		}
		root.Close()
	}
}

// TestTornWrite goes on after a line of which only a part could be written, in the same process and in another.
func TestTornWrite(t *testing.T) {
	for _, torn := range []string{`{"at":"2026-`, `{"at":"2026-` + "\x00\x00\x00" + `"}` + "\n", "\x00\x00\n", "\x00\x00"} {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := root.WriteFile(JournalName, []byte(journalText), 0o600); err != nil {
			t.Fatal(err)
		}
		m := &mover{t: t, h: &hosts{}, dir: root}
		tear := func(j *Job) {
			if _, err := j.journal.file.WriteString(torn); err != nil {
				t.Fatal(err)
			}
		}
		j := m.open()
		tear(j)
		if err := j.write(lineFacts, StepExport, map[string]any{"records": 7}); err != nil {
			t.Fatal(err)
		}
		tear(j)
		j.Close()
		j = m.open()
		if f := j.Facts(); f.Records != 7 || !j.begun[StepAccount] {
			t.Errorf("%q: %+v", torn, f)
		}
		j.Close()
	}
}
