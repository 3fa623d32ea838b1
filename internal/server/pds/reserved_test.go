package pds

import (
	"fmt"
	"testing"
	"time"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

func (n *network) reserve(addr string, did syntax.DID) answerOf {
	n.t.Helper()
	in := map[string]any{}
	if did != "" {
		in["did"] = did
	}
	return n.at(addr, "com.atproto.server.reserveSigningKey", in)
}

// expire lets time pass, and the chores look at what is reserved.
func (n *network) expire(d time.Duration) {
	n.t.Helper()
	n.clock.Advance(d)
	if _, err := n.expireReserved(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) reserved() (keys, rows int) {
	return n.rows(rowReserved), n.rows(rowReserved) + n.rows(rowReserver) + n.rows(rowExpiry)
}

// A key that nobody uses is forgotten; one that an identity has already is there when its account comes.
func TestReservedKeysExpire(t *testing.T) {
	n := newNetwork(t, Config{})
	f, g := n.foreign("carol.example.com"), n.foreign("dave.example.com")
	const addr = "192.0.2.1:1"
	want(t, n.reserve(addr, ""), 200, "")
	key := n.reserve(addr, f.did)
	want(t, key, 200, "")
	want(t, n.reserve(addr, g.did), 200, "")
	if again := n.reserve("192.0.2.2:1", f.did); again.str("signingKey") != key.str("signingKey") {
		t.Errorf("another key: %s", again.Body)
	}
	if keys, rows := n.reserved(); keys != 3 || rows != 3+2+3 {
		t.Fatalf("%d keys in %d rows", keys, rows)
	}
	// Carol's identity gets the key, and takes its time.
	d := plc.AtprotoData(key.str("signingKey"), "carol.example.com", "http://localhost:2583", f.rotation.Public().DIDKey(), n.accounts.secrets.rotation.Public().DIDKey())
	op := plc.NewOperation(d, n.plc.logs[f.did][0].Operation.CID())
	if err := op.Sign(f.rotation); err != nil {
		t.Fatal(err)
	}
	if err := n.accounts.plc.Submit(t.Context(), f.did, op); err != nil {
		t.Fatal(err)
	}
	n.expire(reservedLife)
	if keys, _ := n.reserved(); keys != 3 {
		t.Fatalf("%d keys are left after the time that they are kept at least", keys)
	}
	n.plc.down = true // nobody knows who uses what
	n.expire(2 * time.Hour)
	if keys, rows := n.reserved(); keys != 2 || rows != 2+2+2 {
		t.Fatalf("without the directory: %d keys in %d rows", keys, rows)
	}
	n.plc.down = false
	n.restart()
	n.expire(reservedAgain + time.Hour)
	if keys, rows := n.reserved(); keys != 1 || rows != 3 {
		t.Fatalf("%d keys in %d rows", keys, rows)
	}
	for range 3 {
		n.expire(reservedLife + time.Hour)
	}
	if again := n.reserve(addr, f.did); again.str("signingKey") != key.str("signingKey") {
		t.Errorf("the key of an identity is gone: %s", again.Body)
	}
	in := map[string]any{"handle": "carol.example.com", "did": f.did, "password": goodPassword}
	old := f
	a := n.call("com.atproto.server.createAccount", old.token(n, nil), in)
	if a.Status != 200 { // the identity's new key signs now, which only this server has
		signer, _, err := n.reservedKey(key.str("signingKey"))
		if err != nil {
			t.Fatal(err)
		}
		old.key = signer
		n.forgetIdentity(f.did)
		a = n.call("com.atproto.server.createAccount", old.token(n, nil), in)
	}
	want(t, a, 200, "")
	row, err := n.Service.account(f.did)
	if err != nil || row.PublicKey != key.str("signingKey") {
		t.Errorf("the account's key: %v, %v", row, err)
	}
	if keys, rows := n.reserved(); keys != 0 || rows != 0 || len(n.accounts.reserved.of) != 0 || len(n.accounts.reserved.from) != 0 {
		t.Errorf("%d rows are left, %v", rows, n.accounts.reserved)
	}
}

// Rows of a version that didn't note the time begin to age when this one starts.
func TestReservedKeysOfBefore(t *testing.T) {
	n := newNetwork(t, Config{})
	f := n.foreign("carol.example.com")
	key := n.reserve("192.0.2.1:1", f.did)
	want(t, n.reserve("192.0.2.1:1", ""), 200, "")
	if err := n.write(t.Context(), func(b kv.Batch) { b.DeleteRange([]byte(rowExpiry), kv.PrefixEnd([]byte(rowExpiry))) }); err != nil {
		t.Fatal(err)
	}
	n.restart()
	n.restart()
	if keys, rows := n.reserved(); keys != 2 || rows != 5 || n.accounts.reserved.of[key.str("signingKey")].DID != f.did {
		t.Fatalf("%d keys in %d rows", keys, rows)
	}
	n.expire(reservedLife - time.Hour)
	if keys, _ := n.reserved(); keys != 2 {
		t.Fatalf("%d keys are left", keys)
	}
	n.expire(2 * time.Hour)
	if keys, rows := n.reserved(); keys != 0 || rows != 0 {
		t.Fatalf("%d rows are left", rows)
	}
}

func TestReservedKeysOfOneAddress(t *testing.T) {
	n := newNetwork(t, Config{})
	f := n.foreign("carol.example.com")
	want(t, n.reserve("[2001:db8::1]:1", f.did), 200, "")
	for i := 1; i < maxReserved; i++ {
		want(t, n.reserve(fmt.Sprintf("[2001:db8::%d]:1", i+1), ""), 200, "")
	}
	want(t, n.reserve("[2001:db8::1]:1", ""), 429, "RateLimitExceeded")
	want(t, n.reserve("[2001:db8::1]:1", f.did), 200, "") // which it has
	want(t, n.reserve("192.0.2.1:1", ""), 200, "")
	n.restart()
	n.clock.Advance(time.Hour)
	want(t, n.reserve("[2001:db8::1]:1", ""), 429, "RateLimitExceeded")
	n.expire(reservedLife + time.Hour)
	if keys, _ := n.reserved(); keys != maxReserved+1-maxExpiring {
		t.Errorf("%d keys are left after the first look", keys)
	}
	for range 3 {
		n.expire(0)
	}
	if keys, rows := n.reserved(); keys != 0 || rows != 0 {
		t.Errorf("%d rows are left", rows)
	}
	want(t, n.reserve("[2001:db8::1]:1", ""), 200, "")
}

// The chores do it by themselves.
func TestReservedKeysAreAChore(t *testing.T) {
	n := newNetwork(t, Config{})
	defer n.run()()
	want(t, n.reserve("192.0.2.1:1", ""), 200, "")
	until(t, "the key is forgotten", func() bool {
		n.clock.Advance(24 * time.Hour)
		return n.rows(rowReserved) == 0
	})
}
