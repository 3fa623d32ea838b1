package explorer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/internal/lexsite"
	"github.com/barograph/baro/internal/world"
)

// publish puts a schema into an account's repository.
func (n *network) publish(a *fakeAccount, id, fields string) {
	n.put(a, "com.atproto.lexicon.schema/"+id, `{"$type":"com.atproto.lexicon.schema","lexicon":1,"id":"`+id+`",`+fields+`}`)
}

func (n *network) zone(name, did string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.txt[name] = did
}

func jsonOf[T any](t *testing.T, s *Service, path string) T {
	t.Helper()
	var v T
	resp := get(t, s, path, "Accept", "application/json")
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

// TestPublishedSchema shows schemas that the explorer doesn't have, and holds records against them.
func TestPublishedSchema(t *testing.T) {
	n := newNetwork(t)
	alice, bob := n.account("alice.test"), n.account("bob.test")
	n.zone("_lexicon.example.com", alice.did)
	n.publish(alice, "com.example.note", `"description":"Notes, <b>short</b> ones.","defs":{"main":{"type":"record","key":"tid","record":{"type":"object","required":["text"],
		"properties":{"text":{"type":"string","maxLength":10},"title":{"type":"string"},"place":{"type":"ref","ref":"com.example.defs#place"}}}}}`)
	n.publish(alice, "com.example.defs", `"defs":{"place":{"type":"object","required":["name"],"properties":{"name":{"type":"string"}}}}`)
	n.put(bob, "com.example.note/3l6oveex3ii2l", `{"$type":"com.example.note","text":"short","place":{"name":"here"}}`)
	n.put(bob, "com.example.note/3l6oveex3ii2m", `{"$type":"com.example.note","text":"much too long","place":{}}`)
	n.put(bob, "com.example.gone/a", `{"$type":"com.example.gone"}`)
	n.put(bob, "org.example.nobody/a", `{"$type":"org.example.nobody"}`)
	s := n.explorer()

	html := page(t, s, "/lexicon/com.example.note", 200)
	contains(t, html, `<span class="tag good">verified</span>`, "_lexicon.example.com", alice.did, "&lt;b&gt;short", "at most 10 bytes", `href="/lexicon/com.example.defs#def-place"`,
		`href="/at/`+alice.did+`/com.atproto.lexicon.schema/com.example.note"`, `id="def-main.text"`, "Example", "This refers to (1)")
	p := jsonOf[LexiconPage](t, s, "/lexicon/com.example.note.json")
	if p.State != schemaVerified || p.Kind != "record" || p.Proof == nil || p.Proof.DID != alice.did || len(p.Schema) == 0 || len(p.Page.Defs) != 1 {
		t.Errorf("%+v", p)
	}
	if p := jsonOf[LexiconPage](t, s, "/lexicon/com.example.defs"); len(p.Page.Findings) != 0 {
		t.Errorf("findings of a schema without faults: %+v", p.Page.Findings)
	}
	if !slices.ContainsFunc(p.Page.Findings, func(f lexsite.Finding) bool {
		return f.Rule == "unlimited-string" && f.Path == "defs.main.record.properties.title"
	}) {
		t.Errorf("findings of a schema with a string without a limit: %+v", p.Page.Findings)
	}
	contains(t, page(t, s, "/lexicon/com.example.note", 200), "unlimited-string", "What a linter says")
	if p := jsonOf[LexiconPage](t, s, "/lexicon/app.bsky.feed.post"); p.State != schemaBuiltIn || p.Proof != nil || len(p.Page.In) == 0 {
		t.Errorf("%+v", p)
	}

	for path, want := range map[string]SchemaCheck{
		"com.example.note/3l6oveex3ii2l": {State: checkValid, Known: true, Valid: true, Source: schemaVerified},
		"com.example.note/3l6oveex3ii2m": {State: checkInvalid, Known: true, Source: schemaVerified},
		"com.example.gone/a":             {State: checkUnknown},
		"org.example.nobody/a":           {State: checkUnknown},
	} {
		got := jsonOf[RecordPage](t, s, "/at/bob.test/"+path).Schema
		if got.State != want.State || got.Known != want.Known || got.Valid != want.Valid || got.Source != want.Source {
			t.Errorf("%s: %+v", path, got)
		}
		if (got.Reason != "") != (want.State == checkUnknown) || (len(got.Findings) > 0) != (want.State == checkInvalid) {
			t.Errorf("%s: %+v", path, got)
		}
	}
	html = page(t, s, "/at/bob.test/com.example.note/3l6oveex3ii2m", 200)
	contains(t, html, "breaks its lexicon", "What breaks the schema", "maxLength", "required", `<td class="mono"><bdi>place`)
	contains(t, page(t, s, "/at/bob.test/com.example.gone/a", 200), "unknown schema", "That is proved.")
	contains(t, page(t, s, "/lexicon/org.example.nobody", 200), "unresolved", "DNS has no DID at _lexicon.example.org")

	// What isn't proved isn't used.
	n.publish(alice, "com.example.new", `"defs":{"x":{"type":"token"}}`)
	n.mu.Lock()
	n.mangle = func(car []byte) []byte { car[len(car)-3] ^= 1; return car }
	n.mu.Unlock()
	if p := jsonOf[LexiconPage](t, s, "/lexicon/com.example.new"); p.Known || p.State != schemaUnresolved || !strings.Contains(p.Reason, "not proved") {
		t.Errorf("%+v", p)
	}
}

// slowDNS answers never.
type slowDNS struct{ *network }

func (slowDNS) LookupTXT(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (slowDNS) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestSlowDNS shows a record though DNS doesn't say whose its schema is.
func TestSlowDNS(t *testing.T) {
	n := newNetwork(t)
	bob := n.account("bob.test")
	n.put(bob, "com.example.note/a", `{"$type":"com.example.note"}`)
	s := n.explorer(func(c *Config) { c.SchemaTimeout = 20 * time.Millisecond; c.Timeout = time.Minute }, func(*Config) {})
	s.resolver = newResolver(s, world.World{Clock: n.clock, Dialer: n.guard, Resolver: slowDNS{n}})
	got := jsonOf[RecordPage](t, s, "/at/"+bob.did+"/com.example.note/a")
	if got.Schema.State != checkNone || got.Schema.Reason == "" || !got.Proof.Verified || !got.Found {
		t.Errorf("%+v", got)
	}
	contains(t, page(t, s, "/at/"+bob.did+"/com.example.note/a", 200), "not checked", ">Verified<")
}

// TestHostileSchema puts the corpus into published schemas, and records that break them with it.
func TestHostileSchema(t *testing.T) {
	n := newNetwork(t)
	evil := n.account("evil.test")
	n.zone("_lexicon.example.com", evil.did)
	for i, c := range corpus {
		if testing.Short() && i%6 != 0 {
			continue
		}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("com.example.evil%d", i)
		n.publish(evil, id, strings.ReplaceAll(`"description":Q,"defs":{"main":{"type":"record","description":Q,"key":"any","record":{"type":"object","required":[Q],"properties":{
			Q:{"type":"string","description":Q,"enum":[Q],"default":Q},"o":{"type":"object","properties":{Q:{"type":"ref","ref":"com.example.gone","description":Q}}},
			"n":{"type":"array","items":{"type":"integer","minimum":5}}}}},"loop":{"type":"object","required":["loop"],"properties":{"loop":{"type":"ref","ref":"#loop"}}}}`, "Q", string(b)))
		n.put(evil, id+"/a", `{"$type":"`+id+`",`+string(b)+`:"no","o":{`+string(b)+`:1},"n":[1]}`)
	}
	s := n.explorer()
	for i := range corpus {
		if testing.Short() && i%6 != 0 {
			continue
		}
		for _, p := range []string{fmt.Sprintf("/lexicon/com.example.evil%d", i), fmt.Sprintf("/at/%s/com.example.evil%d/a", evil.did, i)} {
			resp := get(t, s, p)
			html := page(t, s, p, 200)
			checkHTML(t, p, html)
			checkHeaders(t, p, resp.Header)
		}
	}
	html := page(t, s, "/lexicon/com.example.evil0", 200)
	contains(t, html, "verified", "&lt;script&gt;alert(1)&lt;/script&gt;")
}
