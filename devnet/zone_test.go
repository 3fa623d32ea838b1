package devnet_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/identity/lexres"
)

func TestParseZone(t *testing.T) {
	z, err := devnet.ParseZone([]byte("# comment\n; another\n\n_lexicon.A.alice.test. IN TXT \"did=did:web:a.test\"\n_lexicon.a.alice.test\tTXT  did=did:web:b.test\nx.test txt v=spf1 -all\n"))
	want := devnet.Zone{"_lexicon.a.alice.test": {"did=did:web:a.test", "did=did:web:b.test"}, "x.test": {"v=spf1 -all"}}
	if err != nil || !reflect.DeepEqual(z, want) {
		t.Errorf("%v, %v", z, err)
	}
	for _, bad := range []string{"x", "x.test TXT", "x.test A 127.0.0.1", `x.test TXT "did=`, `x.test TXT "a" "b"`, "x.test IN", strings.Repeat("#", 1<<20+1)} {
		if z, err := devnet.ParseZone([]byte(bad)); err == nil {
			t.Errorf("%.40q: %v", bad, z)
		}
	}
}

func FuzzParseZone(f *testing.F) {
	f.Add([]byte("a.test TXT \"v\"\nb.test IN TXT v\n"))
	f.Add([]byte("\"\" TXT \""))
	f.Fuzz(func(t *testing.T, b []byte) {
		z, err := devnet.ParseZone(b)
		for name, values := range z {
			if err != nil || name != strings.ToLower(name) || len(values) == 0 {
				t.Errorf("%q: %q, %v", name, values, err)
			}
		}
	})
}

// TestLexiconAuthority publishes a schema in a network and has its PDS find it by the network's DNS.
func TestLexiconAuthority(t *testing.T) {
	dir := t.TempDir()
	n := start(t, devnet.Options{Dir: dir})
	ctx := t.Context()
	password := "correct horse"
	alice, err := comatproto.ServerCreateAccount.Call(ctx, n.PDS(), &comatproto.ServerCreateAccount_Input{Handle: "alice.test", Password: &password})
	if err != nil {
		t.Fatal(err)
	}
	txt := func(name string) []string {
		v, err := devnet.LookupTXT(ctx, n.PDS(), nil, name)
		if dns := (*net.DNSError)(nil); err != nil && (!errors.As(err, &dns) || !dns.IsNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		return v
	}
	for name, want := range map[string]bool{
		"_lexicon.alice.test": true, "_LEXICON.Alice.Test.": true, "_atproto.alice.test": true,
		"_lexicon.bob.test": false, "_lexicon.notes.alice.test": false, "_lexicon.alice.example": false, "alice.test": false, "_lexicon.test": false, "_lexicon.": false,
	} {
		if v := txt(name); (len(v) == 1 && v[0] == "did="+alice.Did) != want {
			t.Errorf("%s: %q", name, v)
		}
	}

	ask := func(id string) error {
		_, err := comatproto.LexiconResolveLexicon.Call(ctx, n.PDS(), &comatproto.LexiconResolveLexicon_Params{Nsid: id})
		return err
	}
	if err := ask("test.alice.notes.thing"); !errors.Is(err, comatproto.ErrLexiconNotFound) || !strings.Contains(err.Error(), string(lexres.KindNoAuthority)) {
		t.Error(err)
	}
	// A record of the zone counts from when it is written on.
	zone := filepath.Join(dir, devnet.ZoneFile)
	if err := os.WriteFile(zone, []byte("_lexicon.other.alice.test TXT did="+alice.Did+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask("test.alice.other.thing"); !errors.Is(err, comatproto.ErrLexiconNotFound) || !strings.Contains(err.Error(), string(lexres.KindNotFound)) {
		t.Error(err)
	}
	// A zone that makes no sense is told of when the network starts.
	if err := os.WriteFile(zone, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if n, err := devnet.Start(context.Background(), devnet.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "zone.txt:1:") {
		t.Error(err)
		if n != nil {
			n.Close()
		}
	}
}
