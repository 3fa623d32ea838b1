package interop

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/interop/refpds"
	"github.com/barograph/baro/syntax"
)

// Accounts move from the reference PDS to ours, and from ours to the reference PDS, by 'baro account migrate'. Both know
// the same PLC directory.
func TestMigrate(t *testing.T) {
	n := start(t)
	pds := refpds.Start(t, refpds.Options{PLC: n.PLC})
	t.Run("to ours", func(t *testing.T) {
		testMigrate(t, pds, "leaver", pds.URL, n.PDS, func(email string) string { return pds.Code(t, email) })
	})
	t.Run("from ours", func(t *testing.T) {
		testMigrate(t, pds, "comer", n.PDS, pds.URL, func(email string) string { return n.code(t, email) })
	})
}

// mailed finds what the local network prints in place of a mail.
var mailed = regexp.MustCompile(`(?m)^mail to (\S+): .*: ([A-Z2-7]+-[A-Z2-7]+)$`)

// code returns the next code that our PDS has mailed to an address, and waits for it.
func (n *network) code(t *testing.T, email string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		all := mailed.FindAllStringSubmatch(n.log.String(), -1)
		for ; n.mails < len(all); n.mails++ {
			if m := all[n.mails]; m[1] == email {
				n.mails++
				return m[2]
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("our PDS has sent no code:\n%s", &n.log)
		}
	}
}

// contents is what an account has at a host.
type contents struct {
	records map[string]cid.CID
	blobs   map[cid.CID]string
	prefs   string
}

func (c contents) String() string {
	return fmt.Sprintf("%d records, %d blobs, preferences %s", len(c.records), len(c.blobs), c.prefs)
}

// look reads all that an account has, with the repository verified by the key in its document.
func look(t *testing.T, dir *identity.Directory, account *auth.Account) contents {
	t.Helper()
	ctx := t.Context()
	did := account.DID()
	o := client.FetchOptions{Options: client.Options{Identity: dir, HTTP: http.DefaultClient}}
	r, err := client.FetchRepo(ctx, string(did), o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := contents{records: map[string]cid.CID{}, blobs: map[cid.CID]string{}}
	for rec, err := range r.Records() {
		if err != nil {
			t.Fatal(err)
		}
		c.records[string(rec.Path)] = rec.CID
	}
	if rep := r.Report(); !rep.OK() {
		t.Errorf("the repository of %s: %+v", did, rep.Failed())
	}
	out, err := comatproto.SyncListBlobs.Call(ctx, account.Client(), &comatproto.SyncListBlobs_Params{Did: string(did)})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range out.Cids {
		id, err := cid.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		b, err := client.FetchBlob(ctx, string(did), id, 0, o)
		if err != nil {
			t.Fatal(err)
		}
		c.blobs[id] = b.Type + string(b.Data)
	}
	prefs, err := appbsky.ActorGetPreferences.Call(ctx, account.Client(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var sb strings.Builder
	for _, p := range prefs.Preferences {
		fmt.Fprintf(&sb, "%T%+v ", p.Value, p.Value)
	}
	c.prefs = sb.String()
	return c
}

func testMigrate(t *testing.T, pds *refpds.PDS, name, from, to string, code func(email string) string) {
	ctx := t.Context()
	email, password := name+"@example.com", "the old long password"
	account, err := auth.New(auth.Options{}).Create(ctx, from, &comatproto.ServerCreateAccount_Input{Handle: name + ".test", Email: &email, Password: &password})
	if err != nil {
		t.Fatal(err)
	}
	did := account.DID()
	dir := pds.Directory()

	// What there is to move: posts with pictures, a profile with one, records of an unknown kind, preferences.
	b := bsky.ForAccount(account, bsky.Options{Identity: dir})
	for i := range 3 {
		if _, err := b.Post(ctx, bsky.Post{Text: fmt.Sprintf("post %d", i), Images: []bsky.Image{{Data: picture(t, 40+i, 30), Alt: "Punkte"}}}); err != nil {
			t.Fatal(err)
		}
	}
	c := client.ForAccount(account, client.Options{})
	pic := picture(t, 200, 200)
	avatar, err := c.UploadBlob(ctx, bytes.NewReader(pic), "image/png", int64(len(pic)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, c, "self", &appbsky.ActorProfile{DisplayName: &name, Avatar: avatar}, client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		note, err := data.ParseRecord(fmt.Appendf(nil, `{"$type":"com.example.note","n":%d,"b":{"$bytes":"AQID"}}`, i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Create(ctx, c, &note, client.WriteOptions{RecordKey: syntax.RecordKey(fmt.Sprintf("note-%d", i))}); err != nil {
			t.Fatal(err)
		}
	}
	err = b.UpdatePreferences(ctx, func(p appbsky.ActorDefs_Preferences) (appbsky.ActorDefs_Preferences, error) {
		return append(p, appbsky.ActorDefs_Preferences_Elem{Value: &appbsky.ActorDefs_AdultContentPref{Enabled: true}},
			appbsky.ActorDefs_Preferences_Elem{Value: &appbsky.ActorDefs_InterestsPref{Tags: []string{"weather", "wind"}}}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before := look(t, dir, account)
	if len(before.records) != 44 || len(before.blobs) != 4 {
		t.Fatalf("the account has %v", before)
	}
	oldDoc, err := dir.ResolveDID(ctx, did)
	if err != nil {
		t.Fatal(err)
	}

	// The move: a look, a first part that ends when the old host has mailed a code, and the rest.
	user := newCLI(t, pds.PLC, from, password)
	user.env = append(user.env, "NEW_ACCOUNT_PASSWORD=the new long password")
	user.run(t, "account", "login", name+".test")
	user.run(t, "account", "migrate", "--pds-host", to, "--dry-run")
	user.fails(t, 1, "--plc-token", "account", "migrate", "--pds-host", to)
	if doc, err := pds.Directory().ResolveDID(ctx, did); err != nil || doc.PDS != from {
		t.Errorf("before the code was given the document leads to %+v, %v", doc, err)
	}
	// A wrong code changes nothing, and has another one mailed, which replaces the first.
	code(email)
	user.fails(t, 1, "--plc-token", "account", "migrate", "--plc-token", "AAAAA-AAAAA")
	var moved struct {
		DID            syntax.DID
		From, To       string
		Records, Blobs int
	}
	user.json(t, &moved, "account", "migrate", "--plc-token", code(email))
	if moved.DID != did || moved.From != from || moved.To != to || moved.Records != 44 || moved.Blobs != 4 {
		t.Errorf("the move is told as %+v", moved)
	}

	// The identity leads to the new host, with another key.
	dir = pds.Directory()
	doc, err := dir.ResolveDID(ctx, did)
	if err != nil {
		t.Fatal(err)
	}
	if doc.PDS != to || doc.SigningKey.Equal(oldDoc.SigningKey) || string(doc.Claimed) != name+".test" {
		t.Errorf("the document is now %s", doc.Raw)
	}
	// It goes on there, by the session that the move has left.
	account, err = auth.New(auth.Options{}).Login(ctx, to, auth.Credentials{Identifier: name + ".test", Password: "the new long password", DID: did})
	if err != nil {
		t.Fatal(err)
	}
	user.env[1] = "BARO_PDS=" + to
	if to != pds.URL {
		user.run(t, "repo", "verify", string(did)) // the reference PDS signs an imported repository at the first write only
	}
	var post struct{ URI syntax.ATURI }
	user.json(t, &post, "bsky", "post", "arrived")
	if p, err := client.Fetch[appbsky.FeedPost](ctx, string(post.URI), client.FetchOptions{Options: client.Options{Identity: dir, HTTP: http.DefaultClient}}); err != nil || p.Value.Text != "arrived" {
		t.Errorf("the first post at the new host: %+v, %v", p, err)
	}
	// The new host has all, byte for byte and under the new key, and the old one is deactivated.
	after := look(t, dir, account)
	delete(after.records, string(post.URI.Path()))
	if !maps.Equal(before.records, after.records) || !maps.Equal(before.blobs, after.blobs) || before.prefs != after.prefs {
		t.Errorf("the new host has %v, the old one had %v", after, before)
	}
	for host, active := range map[string]bool{from: false, to: true} {
		out, err := comatproto.SyncGetRepoStatus.Call(ctx, client.New(host, client.Options{}).XRPC(), &comatproto.SyncGetRepoStatus_Params{Did: string(did)})
		if err != nil {
			t.Fatal(err)
		}
		if out.Active != active || !active && (out.Status == nil || *out.Status != "deactivated") {
			t.Errorf("at %s the account has the state %+v", host, out)
		}
	}
	status, err := comatproto.ServerCheckAccountStatus.Call(ctx, account.Client(), nil)
	if err != nil || !status.Activated || !status.ValidDid || status.ExpectedBlobs != 4 || status.ImportedBlobs != 4 {
		t.Errorf("the new host says of the account %+v, %v", status, err)
	}
}
