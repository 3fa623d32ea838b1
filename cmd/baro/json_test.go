package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/devnet"
)

// reads are commands that print data, with arguments that a local network answers: $HANDLE, $DID and $POST are of its demo world, $CAR is a
// repository of it, $PDS where it is.
var reads = []string{
	"get $POST", "get $POST --verify", "ls $HANDLE", "ls $HANDLE app.bsky.feed.post", "ls $HANDLE --verify", "record get $POST", "record ls $HANDLE",
	"resolve $HANDLE", "resolve $HANDLE --did", "xrpc get @pds com.atproto.server.getSession", "firehose --cursor 0 --limit 3",
	"repo verify $HANDLE", "repo inspect $CAR", "repo ls $CAR", "repo mst $CAR", "repo diff $CAR $HANDLE", "repo unpack $CAR out", "repo export $HANDLE -o again.car",
	"repo order $CAR ordered.car",
	"blob ls $HANDLE", "blob compute $CAR", "blob export $HANDLE -o blobs",
	"account ls", "account status $HANDLE", "account check-auth", "account missing-blobs", "account service-auth --aud did:web:example.com",
	"account plc recommended", "account plc current", "plc history $HANDLE", "plc data $HANDLE", "plc dump", "plc verify $HANDLE",
	"pds describe $PDS", "pds account list --pds-host $PDS", "pds account status $DID --pds-host $PDS",
	"bsky prefs export", "bsky post x --dry-run",
	"syntax handle check alice.example.com", "syntax did check $DID", "syntax cid check bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a",
	"syntax rkey check self", "syntax nsid check app.bsky.feed.post", "syntax at-uri check $POST", "syntax language check pt-BR", "syntax tid check 3l6oveex3ii2l",
	"syntax tid inspect 3l6oveex3ii2l", "syntax tid generate", "syntax datetime check 2026-01-02T03:04:05.678Z", "syntax datetime now",
	"key generate", "key inspect did:key:zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo", "config", "version",
	"relay account list", "relay account status $DID", "relay host list",
	"lex new --list-templates",
}

// notRead are the other commands: those that change something and are run by scripts, servers, and those whose data another script reads.
var notRead = []string{
	"up", "links", "explorer", "bench", "man", "doctor",
	"record create", "record update", "record delete", "repo import", "blob upload", "blob download",
	"bsky like", "bsky unlike", "bsky repost", "bsky unrepost", "bsky follow", "bsky unfollow", "bsky block", "bsky unblock", "bsky mute", "bsky unmute", "bsky delete",
	"bsky prefs import",
	"bsky timeline", "bsky feed", "bsky search", "bsky thread", "bsky profile", "bsky notifications", // bsky.txtar
	"relay host status", "relay host request-crawl", "relay host diff", "relay admin", // relay.txtar
	"lex", "workflow", // their scripts
	"account create", "account login", "account logout", "account use", "account update-handle", "account activate", "account deactivate", "account migrate",
	"account plc request-token", "account plc sign", "account plc submit", "account plc add-rotation-key", "account session", "account service-auth-offline",
	"plc genesis", "plc calc-did", "plc sign", "plc submit", "plc update", "plc recover", "pds admin",
}

// TestJSON has every command that prints data print lines of JSON with --json, and nothing else.
func TestJSON(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole network")
	}
	home := ownHome(t)
	n, err := devnet.Start(context.Background(), devnet.Options{Dir: filepath.Join(home, "data", "baro")})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	d, err := n.PlantDemo(context.Background(), devnet.DemoOptions{Accounts: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	t.Setenv("BARO_PASSWORD", d.Password)
	for _, line := range []string{"account login " + d.Handle, "repo export " + d.Handle + " -o demo.car", "bsky post 'so that there is a change'"} {
		if code, _, errs := baro(t, shellWords(line)...); code != exitOK {
			t.Fatal(errs)
		}
	}
	t.Setenv("BARO_PASSWORD", "")
	words := strings.NewReplacer("$HANDLE", d.Handle, "$DID", d.DID, "$POST", d.Post, "$CAR", "demo.car", "$PDS", n.URLs().PDS)
	var done []string
	for _, line := range reads {
		cmd, _, err := newRoot().Find(strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		done = append(done, commandPath(cmd))
		args := append(strings.Fields(words.Replace(line)), "--json")
		code, out, errs := baro(t, args...)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", line, code, errs)
			continue
		}
		for s := range strings.Lines(out) {
			if !json.Valid([]byte(s)) || s[0] != '{' {
				t.Errorf("%s: this is no line with an object: %.200s", line, s)
				break
			}
		}
		if empty := strings.HasPrefix(line, "account missing-blobs") || strings.HasPrefix(line, "blob"); out == "" && !empty {
			t.Errorf("%s: nothing was printed", line)
		}
	}
	for _, c := range ownCommands() {
		p := commandPath(c)
		other := slices.ContainsFunc(notRead, func(n string) bool { return p == n || strings.HasPrefix(p, n+" ") })
		if !c.HasSubCommands() && !slices.Contains(done, p) && !other {
			t.Errorf("%s is among neither those that print data nor the others", p)
		}
	}
}
