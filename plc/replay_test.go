package plc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// TestRecoveries drives random logs and holds what is said to be possible against what Next allows.
func TestRecoveries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	ks := []*keys.PrivateKey{key(t, keys.K256, 1), key(t, keys.P256, 2), key(t, keys.K256, 3)}
	byName := map[string]*keys.PrivateKey{}
	for _, k := range ks {
		byName[k.Public().DIDKey()] = k
	}
	possible := 0
	for range 40 {
		d := AtprotoData(ks[0].Public().DIDKey(), "alice.test", "https://pds.test", ks[0].Public().DIDKey(), ks[1].Public().DIDKey(), ks[2].Public().DIDKey())
		op := sign(t, NewOperation(d, cid.CID{}), ks[2])
		h := &history{t: t, did: op.DID(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		h.must(op)
		for i := range 6 {
			h.now = h.now.Add(time.Duration(rnd.IntN(40)) * time.Hour)
			next := d.Clone()
			next.SetHandle(syntax.Handle(fmt.Sprintf("alice%d.test", i)))
			rnd.Shuffle(len(next.RotationKeys), func(a, b int) {
				next.RotationKeys[a], next.RotationKeys[b] = next.RotationKeys[b], next.RotationKeys[a]
			})
			base := LastOf(h.log)
			h.must(sign(t, NewOperation(next, base), ks[rnd.IntN(len(ks))]))
		}
		got := Recoveries(h.log, h.now)
		allowed := func(to cid.CID, k *keys.PrivateKey, at time.Time) ([]int, bool) {
			void, err := Next(h.did, h.log, sign(t, NewOperation(d, to), k), at)
			return void, err == nil && len(void) > 0
		}
		for _, e := range h.log[:len(h.log)-1] {
			i := slices.IndexFunc(got, func(r Recovery) bool { return r.To.CID == e.CID })
			for name, k := range byName {
				void, ok := allowed(e.CID, k, h.now)
				said := i >= 0 && slices.Contains(got[i].Keys, name)
				if ok != said {
					t.Fatalf("going back to %s with %s: %v, said was %v", e.CID, name, ok, said)
				}
				if !ok {
					continue
				}
				possible++
				if len(void) != len(got[i].Void) || h.log[void[0]].CID != got[i].Void[0].CID {
					t.Errorf("void would be %v, said were %d", void, len(got[i].Void))
				}
				if _, ok := allowed(e.CID, k, got[i].Deadline); !ok {
					t.Error("refused at the deadline")
				}
				if _, ok := allowed(e.CID, k, got[i].Deadline.Add(time.Millisecond)); ok {
					t.Error("allowed after the deadline")
				}
			}
		}
	}
	if possible < 50 {
		t.Errorf("only %d recoveries were possible", possible)
	}
}

// TestForget replays random logs with and without forgetting: the verdicts and the state are the same.
func TestForget(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	ks := []*keys.PrivateKey{key(t, keys.K256, 1), key(t, keys.P256, 2), key(t, keys.K256, 3)}
	forgot := 0
	for range 60 {
		d := AtprotoData(ks[0].Public().DIDKey(), "alice.test", "https://pds.test", ks[0].Public().DIDKey(), ks[1].Public().DIDKey(), ks[2].Public().DIDKey())
		genesis := sign(t, NewOperation(d, cid.CID{}), ks[2])
		did, now := genesis.DID(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var whole, short Replay
		add := func(op *Operation) {
			e := Entry{DID: did, Operation: op, CID: op.CID(), CreatedAt: now}
			short.Forget(now)
			v1, err1 := whole.Add(did, e)
			v2, err2 := short.Add(did, e)
			if (err1 == nil) != (err2 == nil) || len(v1) != len(v2) {
				t.Fatalf("whole: %d void, %v; short: %d void, %v", len(v1), err1, len(v2), err2)
			}
		}
		add(genesis)
		for i := range 10 {
			now = now.Add(time.Minute + time.Duration(rnd.IntN(30))*time.Hour)
			next := d.Clone()
			next.SetHandle(syntax.Handle(fmt.Sprintf("alice%d.test", i)))
			all := whole.Entries()
			prev := all[len(all)-1-rnd.IntN(min(3, len(all)))].CID
			add(sign(t, NewOperation(next, prev), ks[rnd.IntN(len(ks))]))
		}
		a, _ := whole.State()
		b, _ := short.State()
		if a.Handle() != b.Handle() {
			t.Errorf("the states are %s and %s", a.Handle(), b.Handle())
		}
		forgot += len(whole.Entries()) - len(short.Entries())
	}
	if forgot < 60 {
		t.Errorf("only %d entries were forgotten", forgot)
	}
}
