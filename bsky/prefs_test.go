package bsky

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// settings is an AppView that keeps preferences, as a server does: in JSON.
type settings struct {
	json string
	puts int
}

func newSettings(t *testing.T, c *Client) *settings {
	t.Helper()
	p := &settings{json: `{"preferences":[{"$type":"com.example.pref","x":1},{"$type":"app.bsky.actor.defs#adultContentPref","enabled":true,"new":1}]}`}
	s := appview(t, c)
	xrpc.HandleRaw(s, "app.bsky.actor.getPreferences", http.MethodGet, func(w http.ResponseWriter, r *xrpc.Request) error {
		w.Header().Set("Content-Type", "application/json")
		_, err := w.Write([]byte(p.json))
		return err
	})
	xrpc.HandleProcedure(s, appbsky.ActorPutPreferences, func(_ context.Context, _ *xrpc.Request, in *appbsky.ActorPutPreferences_Input) (*xrpc.None, error) {
		b, err := data.MarshalJSON(in)
		p.json = string(b)
		p.puts++
		return nil, err
	})
	return p
}

func TestMutedWords(t *testing.T) {
	_, clients := network(t, "alice.test")
	c := clients[0]
	p := newSettings(t, c)
	until := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, w := range []MutedWord{{Value: " #spoil\u200bers\n", TagsOnly: true}, {Value: "crypto", Others: true, Until: until}, {Value: "#\ufe0f\u20e3"}} {
		if err := c.MuteWord(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	words, err := c.MutedWords(t.Context())
	want := []MutedWord{{Value: "spoilers", TagsOnly: true}, {Value: "crypto", Others: true, Until: until}, {Value: "#\ufe0f\u20e3"}}
	if err != nil || !slices.EqualFunc(words, want, func(a, b MutedWord) bool {
		return a.Until.Equal(b.Until) && fmt.Sprint(a.Value, a.TagsOnly, a.Others) == fmt.Sprint(b.Value, b.TagsOnly, b.Others)
	}) {
		t.Errorf("%+v, %v", words, err)
	}
	// Again, in another way: it is one word still, with the name that it had.
	id := p.json[strings.Index(p.json, `"id":`):][:20]
	if err := c.MuteWord(t.Context(), MutedWord{Value: "spoilers"}); err != nil || !strings.Contains(p.json, id) {
		t.Errorf("%v: %s", err, p.json)
	}
	if words, err = c.MutedWords(t.Context()); err != nil || len(words) != 3 || words[0].TagsOnly {
		t.Errorf("%+v, %v", words, err)
	}
	puts := p.puts
	if err := errors.Join(c.UnmuteWord(t.Context(), "#crypto"), c.UnmuteWord(t.Context(), "never muted")); err != nil || p.puts != puts+1 {
		t.Errorf("%v after %d writes", err, p.puts-puts)
	}
	if words, err = c.MutedWords(t.Context()); err != nil || len(words) != 2 {
		t.Errorf("%+v, %v", words, err)
	}
	if err := c.MuteWord(t.Context(), MutedWord{Value: "# \n"}); err == nil {
		t.Error("nothing was muted")
	}
	// The other settings are as they were, with what this module doesn't know.
	if !strings.Contains(p.json, `{"x":1,"$type":"com.example.pref"}`) || !strings.Contains(p.json, `"new":1`) {
		t.Error(p.json)
	}
}

func TestSavedFeeds(t *testing.T) {
	_, clients := network(t, "alice.test")
	c := clients[0]
	p := newSettings(t, c)
	p.json = `{"preferences":[{"$type":"app.bsky.actor.defs#savedFeedsPrefV2","items":[{"id":"3l","type":"timeline","value":"following","pinned":true}]}]}`
	feed := "at://" + string(c.DID()) + "/app.bsky.feed.generator/cats"
	list := "https://bsky.app/profile/alice.test/lists/friends"
	if err := errors.Join(c.SaveFeed(t.Context(), feed, false), c.SaveFeed(t.Context(), list, true), c.SaveFeed(t.Context(), feed, true), c.SaveFeed(t.Context(), feed, true)); err != nil || p.puts != 3 {
		t.Errorf("%v after %d writes", err, p.puts)
	}
	want := []SavedFeed{{"timeline", "following", true}, {"feed", feed, true}, {"list", "at://" + string(c.DID()) + "/app.bsky.graph.list/friends", true}}
	if got, err := c.SavedFeeds(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := errors.Join(c.UnsaveFeed(t.Context(), list), c.UnsaveFeed(t.Context(), list)); err != nil || p.puts != 4 {
		t.Errorf("%v after %d writes", err, p.puts)
	}
	if got, err := c.SavedFeeds(t.Context()); err != nil || !slices.Equal(got, want[:2]) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := c.SaveFeed(t.Context(), "at://alice.test/app.bsky.feed.post/x", true); err == nil {
		t.Error("a post was saved as a feed")
	}
}

func TestLabelers(t *testing.T) {
	_, clients := network(t, "alice.test", "labels.test")
	c, labeler := clients[0], clients[1].DID()
	p := newSettings(t, c)
	if err := errors.Join(c.SubscribeLabeler(t.Context(), "labels.test"), c.SubscribeLabeler(t.Context(), string(labeler))); err != nil || p.puts != 1 {
		t.Errorf("%v after %d writes", err, p.puts)
	}
	if got, err := c.Labelers(t.Context()); err != nil || !slices.Equal(got, []syntax.DID{labeler}) {
		t.Errorf("%v, %v", got, err)
	}
	own, err := c.WithOwnLabelers(t.Context())
	if err != nil || own.AppView().Header.Get("Atproto-Accept-Labelers") != ModerationLabeler+";redact, "+string(labeler) {
		t.Errorf("%v, %v", own.AppView().Header, err)
	}
	if len(c.AppView().Header) != 0 {
		t.Error("the client itself was changed")
	}
	if err := errors.Join(c.UnsubscribeLabeler(t.Context(), "labels.test"), c.UnsubscribeLabeler(t.Context(), "labels.test")); err != nil || p.puts != 2 {
		t.Errorf("%v after %d writes", err, p.puts)
	}
}

// TestChatAndServices looks at where the clones of a client send their questions, which leave the client as it was.
func TestChatAndServices(t *testing.T) {
	var got []string
	x := &xrpc.Client{Host: "https://pds.test", Auth: xrpc.Bearer("t"), HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		got = append(got, r.Header.Get("Atproto-Proxy")+" "+r.Header.Get("Atproto-Accept-Labelers"))
		return nil, errors.New("no network")
	})}}
	c := New(x, "did:web:a.test", Options{AppView: AppViewService, Retry: &xrpc.Retry{Attempts: 1}})
	for _, a := range []*xrpc.Client{c.AppView(), c.Chat(), c.WithAppView("did:web:other.test#view").AppView(), c.WithLabelers("did:web:l.test", "did:web:m.test;redact").AppView(), c.PDS().XRPC()} {
		_, _ = a.Do(t.Context(), http.MethodGet, "com.example.q", "", nil, "")
	}
	want := []string{AppViewService + " ", ChatService + " ", "did:web:other.test#view ", AppViewService + " did:web:l.test, did:web:m.test;redact", " "}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestUnreadablePreferences changes nothing when what is there can't be read in full: it would be written back without it.
func TestUnreadablePreferences(t *testing.T) {
	_, clients := network(t, "alice.test")
	c := clients[0]
	p := newSettings(t, c)
	for _, json := range []string{
		`{"preferences":[{"$type":"app.bsky.actor.defs#mutedWordsPref","items":[{"value":7,"targets":[]}]}]}`,
		`{"preferences":[{"$type":"com.example.pref","x":1.5}]}`,
	} {
		p.json = json
		if err := c.MuteWord(t.Context(), MutedWord{Value: "x"}); err == nil || p.puts != 0 {
			t.Errorf("%v after %d writes", err, p.puts)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
