package relay

import (
	"testing"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
)

// The accounts of a host are limited however they come to it.
func TestAccountLimitCountsMoves(t *testing.T) {
	const origin = "https://pds.example.com"
	w := newWorker(&Service{cfg: Config{AccountLimit: 1}})
	full := &host{name: "pds.example.com", row: hostRow{Origin: origin, Accounts: 1}}
	trusted := &host{name: "pds.example.com", row: hostRow{Origin: origin, Accounts: 1, Configured: true}}
	fresh := &cached{}
	here := &cached{known: true, account: account{host: "pds.example.com"}}
	moved := &cached{known: true, account: account{host: "old.example.com"}}
	for _, tt := range []struct {
		name string
		host *host
		a    *cached
		want string
	}{
		{"new", full, fresh, dropAccountLimit},
		{"of this host", full, here, ""},
		{"moved", full, moved, dropAccountLimit},
		{"moved to a trusted host", trusted, moved, ""},
	} {
		_, reason, err := w.authorize(task{host: tt.host, did: "did:plc:x", doc: &identity.Document{PDS: origin}}, tt.a)
		if reason != tt.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", tt.name, reason, err, tt.want)
		}
	}
}

// Adding a host waits for the disk, and nobody else waits for that.
func TestAddHostHoldsNothing(t *testing.T) {
	s, err := New(Config{Memory: true, Directory: new(identity.Directory)}, world.Real(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	busy, hold := make(chan struct{}), make(chan struct{})
	go s.log.Submit(eventlog.Tx{Ops: func(kv.Batch) { close(busy); <-hold }})
	<-busy
	added := make(chan error, 1)
	go func() {
		_, err := s.addHost("pds.example.com", byStranger)
		added <- err
	}()
	known := make(chan struct{})
	go func() {
		for len(s.hostList()) == 0 {
			time.Sleep(time.Millisecond)
		}
		close(known)
	}()
	select {
	case <-known:
	case <-time.After(5 * time.Second):
		t.Error("the list of hosts is locked while the disk is busy")
	}
	select {
	case err := <-added:
		t.Errorf("added before it was on disk: %v", err)
	default:
	}
	close(hold)
	if err := <-added; err != nil {
		t.Error(err)
	}
}

// A ban is for a domain and everything below it, and for nothing that only looks alike.
func TestBannedBy(t *testing.T) {
	s := &Service{bans: map[string]bool{"evil.example": true, "bad.test": true, "127.0.0.1": true}}
	for name, want := range map[string]string{
		"evil.example": "evil.example", "pds.evil.example": "evil.example", "a.b.evil.example:8080": "evil.example", "127.0.0.1:2583": "127.0.0.1",
		"notevil.example": "", "example": "", "evil.example.com": "", "": "", "localhost:2583": "",
	} {
		if got := s.bannedBy(name); got != want {
			t.Errorf("%q is banned by %q, want %q", name, got, want)
		}
	}
}
