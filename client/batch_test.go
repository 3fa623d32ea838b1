package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/xrpc"
)

func TestApplyWrites(t *testing.T) {
	one, oneJSON, oneID := record("one")
	two, _, twoID := record("two")
	var in string
	reply := `{}`
	p := pds{"com.atproto.repo.applyWrites": func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		in = string(b)
		answer(200, reply)(w, r)
	}}
	c := p.start(t, client.Options{DID: account, Auth: xrpc.Bearer("t")})
	at := "at://" + string(account) + "/" + note + "/"
	writes := []client.Write{client.CreateOf("", &one), client.UpdateOf("b", &two), client.DeleteOf(note, "c")}
	results := fmt.Sprintf(`"results":[{"$type":"com.atproto.repo.applyWrites#createResult","uri":"%sa","cid":%q},{"$type":"com.atproto.repo.applyWrites#updateResult","uri":"%sb","cid":%q},{"$type":"com.atproto.repo.applyWrites#deleteResult"}]`, at, oneID, at, twoID)
	reply = `{"commit":{"cid":"` + oneID + `","rev":"3lbhk2aaaaa2a"},` + results + `}`
	refs, err := c.ApplyWrites(t.Context(), writes, client.WriteOptions{Validate: new(false)})
	if err != nil || len(refs) != 3 || string(refs[0].URI) != at+"a" || refs[1].CID.String() != twoID || string(refs[2].URI) != at+"c" || refs[2].CID.Defined() || refs[2].Rev != "3lbhk2aaaaa2a" {
		t.Errorf("%+v, %v", refs, err)
	}
	var sent struct {
		Validate *bool
		Writes   []struct {
			Type       string `json:"$type"`
			Collection string
			Rkey       *string
			Value      json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(in), &sent); err != nil || len(sent.Writes) != 3 || *sent.Validate || sent.Writes[0].Rkey != nil || !sameText(sent.Writes[0].Value, oneJSON) ||
		sent.Writes[1].Type != "com.atproto.repo.applyWrites#update" || *sent.Writes[2].Rkey != "c" {
		t.Errorf("%s: %v", in, err)
	}

	// Older servers answer with nothing; that is enough if all keys are known.
	reply = `{}`
	if refs, err := c.ApplyWrites(t.Context(), writes[1:], client.WriteOptions{}); err != nil || refs[0].CID.String() != twoID || string(refs[1].URI) != at+"c" {
		t.Errorf("%+v, %v", refs, err)
	}
	for name, bad := range map[string]string{
		"no place":   `{}`,
		"fewer":      `{"results":[{"$type":"com.atproto.repo.applyWrites#deleteResult"}]}`,
		"bad commit": `{` + results + `,"commit":{"cid":"x","rev":"y"}}`,
		"swapped":    `{"results":[{"$type":"com.atproto.repo.applyWrites#createResult","uri":"` + at + `a","cid":"` + twoID + `"},{"$type":"com.atproto.repo.applyWrites#updateResult","uri":"` + at + `b","cid":"` + oneID + `"},{"$type":"com.atproto.repo.applyWrites#deleteResult"}]}`,
		"elsewhere":  `{"results":[{"$type":"com.atproto.repo.applyWrites#createResult","uri":"at://did:web:x.test/` + note + `/a","cid":"` + oneID + `"},{"$type":"com.atproto.repo.applyWrites#updateResult","uri":"` + at + `b","cid":"` + twoID + `"},{"$type":"com.atproto.repo.applyWrites#deleteResult"}]}`,
	} {
		reply = bad
		if refs, err := c.ApplyWrites(t.Context(), writes, client.WriteOptions{}); !errors.Is(err, client.ErrBadAnswer) && !isHash(err) {
			t.Errorf("%s: %+v, %v", name, refs, err)
		}
	}
	in = ""
	for name, w := range map[string][]client.Write{
		"none": nil, "zero": {{}}, "no key": {client.UpdateOf("", &one)}, "deletes nothing": {client.DeleteOf(note, "")},
		"no record": {client.CreateOf("a", &data.Raw{0x01})},
	} {
		if _, err := c.ApplyWrites(t.Context(), w, client.WriteOptions{}); err == nil || in != "" {
			t.Errorf("%s: %v, sent %q", name, err, in)
		}
	}
	if _, err := p.start(t, client.Options{}).ApplyWrites(t.Context(), writes, client.WriteOptions{}); !errors.Is(err, client.ErrNoAccount) {
		t.Error(err)
	}
}

func sameText(a json.RawMessage, b string) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal([]byte(b), &y) == nil && fmt.Sprint(x) == fmt.Sprint(y)
}
