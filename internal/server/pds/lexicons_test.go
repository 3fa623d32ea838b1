package pds

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/syntax"
)

// lexiconNetwork has one account that is the authority of the schemas that are below com.example.
func lexiconNetwork(t *testing.T) (*network, map[string]any, string) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	n.dns.setTXT("_lexicon.example.com", "v=spf1", "did="+a.str("did"))
	return n, a.JSON, a.str("accessJwt")
}

func schemaOf(id string, properties map[string]any) map[string]any {
	return map[string]any{"$type": "com.atproto.lexicon.schema", "lexicon": 1, "id": id, "defs": map[string]any{
		"main": map[string]any{"type": "record", "key": "any", "record": map[string]any{"type": "object", "properties": properties}},
	}}
}

func (n *network) publish(token, id string, schema map[string]any) answerOf {
	n.t.Helper()
	session := n.query("com.atproto.server.getSession", token)
	return n.call("com.atproto.repo.putRecord", token, map[string]any{
		"repo": session.str("did"), "collection": "com.atproto.lexicon.schema", "rkey": id, "record": schema,
	})
}

func TestResolveLexicon(t *testing.T) {
	n, alice, token := lexiconNetwork(t)
	ask := func(id string) answerOf { return n.query("com.atproto.lexicon.resolveLexicon?nsid="+id, "") }

	want(t, ask("com.example.thing"), 400, "LexiconNotFound")
	want(t, ask("not-an-nsid"), 400, "InvalidRequest")
	want(t, ask("com.ex%D0%B0mple.thing"), 400, "InvalidRequest")
	want(t, ask("com.example.sub.thing"), 400, "LexiconNotFound")

	put := n.publish(token, "com.example.thing", schemaOf("com.example.thing", map[string]any{"text": map[string]any{"type": "string"}}))
	want(t, put, 200, "")
	// The absence that was remembered is forgotten with the write.
	got := ask("com.example.thing")
	want(t, got, 200, "")
	if got.str("uri") != fmt.Sprintf("at://%s/com.atproto.lexicon.schema/com.example.thing", alice["did"]) || got.str("cid") != put.str("cid") {
		t.Errorf("%s", got.Body)
	}
	if s, _ := got.JSON["schema"].(map[string]any); s["id"] != "com.example.thing" || s["$type"] != "com.atproto.lexicon.schema" || s["defs"] == nil {
		t.Errorf("the schema has not come whole: %s", got.Body)
	}
	again := n.publish(token, "com.example.thing", schemaOf("com.example.thing", map[string]any{}))
	want(t, again, 200, "")
	if got := ask("com.example.thing"); got.str("cid") != again.str("cid") {
		t.Errorf("the version before the last write: %s", got.Body)
	}
	// A record under another's name is no schema.
	want(t, n.publish(token, "com.example.liar", schemaOf("com.example.thing", map[string]any{})), 200, "")
	want(t, ask("com.example.liar"), 400, "LexiconNotFound")
	// A schema of an account elsewhere can't be had here, where nothing else answers.
	n.dns.setTXT("_lexicon.elsewhere.com", "did="+string(n.foreign("bob.elsewhere.com").did))
	want(t, ask("com.elsewhere.thing"), 502, "UpstreamFailure")
	// Two authorities are none.
	n.dns.setTXT("_lexicon.two.com", "did=did:web:a.example", "did=did:web:b.example")
	want(t, ask("com.two.thing"), 400, "LexiconNotFound")
	// An account that was deactivated has no schemas.
	want(t, n.call("com.atproto.server.deactivateAccount", token, map[string]any{}), 200, "")
	n.lexicons.Purge("com.example.thing")
	if got := ask("com.example.thing"); got.Name != "LexiconNotFound" || !strings.Contains(string(got.Body), string(lexres.KindInactive)) {
		t.Errorf("of an account that is not active: %s", got.Body)
	}

	var last answerOf
	for range 400 {
		if last = ask("com.example.thing"); last.Status != 400 {
			break
		}
	}
	want(t, last, 429, "RateLimitExceeded")
}

func TestValidateWithPublished(t *testing.T) {
	n, alice, token := lexiconNetwork(t)
	key := 0
	create := func(collection string, validate any, record map[string]any) answerOf {
		t.Helper()
		key++
		in := map[string]any{"repo": alice["did"], "collection": collection, "record": record, "rkey": fmt.Sprint(key)}
		if validate != nil {
			in["validate"] = validate
		}
		return n.call("com.atproto.repo.createRecord", token, in)
	}
	good := map[string]any{"text": "hello", "by": map[string]any{"name": "x"}, "at": map[string]any{"uri": "at://alice.test/com.example.x/1", "cid": "bafyreib2rxk3rybk3aobmv5cjuql3bm2twh4jo5uxgf5kpqcsgz7soitae"}}
	bad := map[string]any{"text": 1}

	// Nobody knows the schema: insisting fails, everything else goes through.
	want(t, create("com.example.thing", true, good), 400, "InvalidRequest")
	if a := create("com.example.thing", nil, bad); a.Status != 200 || a.str("validationStatus") != "unknown" {
		t.Errorf("%s", a.Body)
	}
	// Now it is published, with one that it refers to; strongRef this server knows by itself.
	thing := schemaOf("com.example.thing", map[string]any{
		"text": map[string]any{"type": "string", "maxLength": 10},
		"by":   map[string]any{"type": "ref", "ref": "com.example.defs#by"},
		"at":   map[string]any{"type": "ref", "ref": "com.atproto.repo.strongRef"},
	})
	want(t, n.publish(token, "com.example.thing", thing), 200, "")
	a := create("com.example.thing", true, good)
	want(t, a, 400, "InvalidRequest")
	if !strings.Contains(string(a.Body), "com.example.defs") {
		t.Errorf("what is missing isn't named: %s", a.Body)
	}
	want(t, n.publish(token, "com.example.defs", map[string]any{"$type": "com.atproto.lexicon.schema", "lexicon": 1, "id": "com.example.defs", "defs": map[string]any{
		"by": map[string]any{"type": "object", "required": []string{"name"}, "properties": map[string]any{
			"name": map[string]any{"type": "string"}, "again": map[string]any{"type": "ref", "ref": "com.example.thing"}, // in circles
		}},
	}}), 200, "")
	if a := create("com.example.thing", true, good); a.Status != 200 || a.str("validationStatus") != "valid" {
		t.Errorf("%s", a.Body)
	}
	for name, r := range map[string]map[string]any{
		"wrong type": bad, "too long": {"text": "hello, hello"}, "in another schema": {"by": map[string]any{}}, "in a known one": {"at": map[string]any{"uri": "x"}},
	} {
		if a := create("com.example.thing", true, r); a.Status != 400 {
			t.Errorf("%s: %s", name, a.Body)
		}
	}
	first := n.published.kept["com.example.thing"]
	create("com.example.thing", true, good)
	if n.published.kept["com.example.thing"] != first {
		t.Error("the catalog was made anew though nothing has changed")
	}
	// A new version counts from its write on.
	want(t, n.publish(token, "com.example.defs", map[string]any{"$type": "com.atproto.lexicon.schema", "lexicon": 1, "id": "com.example.defs", "defs": map[string]any{
		"by": map[string]any{"type": "object", "required": []string{"nickname"}, "properties": map[string]any{"nickname": map[string]any{"type": "string"}}},
	}}), 200, "")
	want(t, create("com.example.thing", true, good), 400, "InvalidRequest")
	// Whoever doesn't insist is neither helped nor hindered by what was looked up.
	if a := create("com.example.thing", nil, bad); a.Status != 200 || a.str("validationStatus") != "unknown" {
		t.Errorf("%s", a.Body)
	}
	want(t, create("com.example.defs", true, good), 400, "InvalidRequest") // is no collection

	// A schema that leads on and on.
	for i := range maxSchemaParts + 1 {
		want(t, n.publish(token, fmt.Sprintf("com.example.n%d", i), schemaOf(fmt.Sprintf("com.example.n%d", i), map[string]any{
			"next": map[string]any{"type": "ref", "ref": fmt.Sprintf("com.example.n%d", i+1)},
		})), 200, "")
	}
	if a := create("com.example.n0", true, map[string]any{}); a.Status != 400 || !strings.Contains(string(a.Body), "more than 64") {
		t.Errorf("%s", a.Body)
	}
}

// TestOldLexiconProof makes sure that caches don't outlive what they were made for.
func TestOldLexiconProof(t *testing.T) {
	n, alice, token := lexiconNetwork(t)
	want(t, n.publish(token, "com.example.thing", schemaOf("com.example.thing", map[string]any{})), 200, "")
	id := syntax.NSID("com.example.thing")
	want(t, n.query("com.atproto.lexicon.resolveLexicon?nsid="+string(id), ""), 200, "")
	want(t, n.call("com.atproto.repo.deleteRecord", token, map[string]any{"repo": alice["did"], "collection": "com.atproto.lexicon.schema", "rkey": id}), 200, "")
	want(t, n.query("com.atproto.lexicon.resolveLexicon?nsid="+string(id), ""), 400, "LexiconNotFound")
	// DNS that changes hands is noticed after minutes.
	n.dns.setTXT("_lexicon.example.com", "did="+n.signedUp("robert").str("did"))
	n.clock.Advance(6 * time.Minute)
	found, err := n.lexicons.Authority(t.Context(), id)
	if err != nil || string(found.DID) == alice["did"] {
		t.Errorf("%v, %v", found, err)
	}
}
