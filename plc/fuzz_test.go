package plc

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/barograph/baro/internal/fixtures"
)

// FuzzLog replays audit logs in two ways: as a whole, and one by one as the directory that accepted them. An untrue claim
// must be found, and what is valid stays valid through JSON.
func FuzzLog(f *testing.F) {
	logs, err := filepath.Glob(filepath.Join(fixtures.Path(f, "plc/audit_log"), "*", "*.json"))
	if err != nil || len(logs) != 20 {
		f.Fatal(len(logs), err)
	}
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var log []Entry
		if json.Unmarshal(b, &log) != nil || len(log) == 0 {
			return
		}
		did := log[0].DID
		state, active, err := Verify(did, log)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Rule == "" {
				t.Fatalf("error without a rule: %v", err)
			}
			return
		}
		var replayed []Entry
		for i, e := range log {
			void, err := Next(did, replayed, e.Operation, e.CreatedAt)
			if err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
			for _, v := range void {
				replayed[v].Nullified = true
			}
			e.Nullified = false
			replayed = append(replayed, e)
		}
		var last *Operation
		for i, e := range replayed {
			if e.Nullified != log[i].Nullified || e.CID != e.Operation.CID() || e.DID != did {
				t.Fatalf("entry %d: %+v, replayed %+v", i, log[i], e)
			}
			if !e.Nullified {
				last = e.Operation
			}
		}
		want, ok := last.State()
		if ok != active || ok && !bytes.Equal(want.AppendJSON(nil, did), state.AppendJSON(nil, did)) {
			t.Fatalf("state %+v, %v, want %+v, %v", state, active, want, ok)
		}
		out, err := json.Marshal(log)
		if err != nil {
			t.Fatal(err)
		}
		var again []Entry
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Verify(did, again); err != nil {
			t.Fatalf("not valid any more: %v", err)
		}
		lie := slices.Clone(log)
		lie[len(lie)-1].Nullified = !lie[len(lie)-1].Nullified
		if _, _, err := Verify(did, lie); err == nil {
			t.Fatal("a false claim is accepted")
		}
	})
}
