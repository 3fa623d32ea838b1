package bsky

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Preferences are the account's settings: muted words, saved feeds and the like. Settings that this module doesn't know
// stay in the list as they are.
func (c *Client) Preferences(ctx context.Context) (appbsky.ActorDefs_Preferences, error) {
	// Strictly, because what is read is written again: a setting that could be read in part would lose the rest.
	out, err := appbsky.ActorGetPreferences.Call(ctx, c.appview.WithStrict(true), &xrpc.None{})
	if err != nil {
		return nil, fmt.Errorf("reading the preferences: %w", err)
	}
	return out.Preferences, nil
}

// UpdatePreferences changes the account's settings: change is given all of them and returns all of them. The server has no
// way to tell that somebody else changed them meanwhile.
func (c *Client) UpdatePreferences(ctx context.Context, change func(appbsky.ActorDefs_Preferences) (appbsky.ActorDefs_Preferences, error)) error {
	prefs, err := c.Preferences(ctx)
	if err != nil {
		return err
	}
	if prefs, err = change(prefs); err != nil {
		return err
	}
	if _, err = appbsky.ActorPutPreferences.Call(ctx, c.appview, &appbsky.ActorPutPreferences_Input{Preferences: prefs}); err != nil {
		return fmt.Errorf("writing the preferences: %w", err)
	}
	return nil
}

// Preference returns the setting of type T among all, nil if it isn't there. T is a struct of the union
// app.bsky.actor.defs#preferences, such as [appbsky.ActorDefs_AdultContentPref].
func Preference[T any, P interface {
	*T
	data.Typed
}](prefs appbsky.ActorDefs_Preferences) *T {
	for _, p := range prefs {
		if v, ok := p.Value.(P); ok {
			return v
		}
	}
	return nil
}

// errSame ends a change that would change nothing.
var errSame = errors.New("nothing to change")

// updatePreference changes one setting, which is made if it isn't there, and leaves the others as they are. A change that
// returns false writes nothing.
func updatePreference[T any, P interface {
	*T
	data.Typed
}](ctx context.Context, c *Client, change func(*T) bool) error {
	err := c.UpdatePreferences(ctx, func(prefs appbsky.ActorDefs_Preferences) (appbsky.ActorDefs_Preferences, error) {
		v := Preference[T, P](prefs)
		if v == nil {
			v = new(T)
			prefs = append(prefs, appbsky.ActorDefs_Preferences_Elem{Value: P(v)})
		}
		if !change(v) {
			return nil, errSame
		}
		return prefs, nil
	})
	if errors.Is(err, errSame) {
		return nil
	}
	return err
}

// MutedWord is a word, or several in a row, whose posts the account doesn't want to see.
type MutedWord struct {
	Value string // without "#"
	// TagsOnly mutes the tag and not the word in texts.
	TagsOnly bool
	// Others mutes posts of accounts only that this one doesn't follow.
	Others bool
	Until  time.Time // zero: for good
}

// MutedWords returns the words that the account muted, those included whose time is over: who shows posts passes over them.
func (c *Client) MutedWords(ctx context.Context) ([]MutedWord, error) {
	prefs, err := c.Preferences(ctx)
	if err != nil {
		return nil, err
	}
	pref := Preference[appbsky.ActorDefs_MutedWordsPref](prefs)
	if pref == nil {
		return nil, nil
	}
	var words []MutedWord
	for _, w := range pref.Items {
		words = append(words, MutedWord{
			Value: w.Value, TagsOnly: !slices.Contains(w.Targets, "content"), Others: text(w.ActorTarget) == "exclude-following", Until: parseTime(text(w.ExpiresAt)),
		})
	}
	return words, nil
}

// cleanWord is a muted word as apps keep it: without the sign of a tag, and without what can't be seen.
func cleanWord(s string) string {
	s = strings.TrimSpace(s)
	if rest, ok := strings.CutPrefix(s, "#"); ok && !strings.HasPrefix(rest, "\ufe0f") { // else it is a key cap
		s = rest
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch r {
		case '\r', '\n', '\u00ad', '\u2060', '\u200c', '\u200b':
			return -1
		}
		return r
	}, s))
}

// MuteWord mutes a word, or changes how it is muted.
func (c *Client) MuteWord(ctx context.Context, w MutedWord) error {
	w.Value = cleanWord(w.Value)
	if w.Value == "" {
		return errors.New("muting a word: there is none")
	}
	item := appbsky.ActorDefs_MutedWord{Value: w.Value, Targets: []string{"content", "tag"}, ActorTarget: new("all")}
	if w.TagsOnly {
		item.Targets = []string{"tag"}
	}
	if w.Others {
		item.ActorTarget = new("exclude-following")
	}
	if !w.Until.IsZero() {
		item.ExpiresAt = new(string(syntax.NewDatetime(w.Until)))
	}
	return updatePreference(ctx, c, func(p *appbsky.ActorDefs_MutedWordsPref) bool {
		i := slices.IndexFunc(p.Items, func(m appbsky.ActorDefs_MutedWord) bool { return cleanWord(m.Value) == w.Value })
		if i < 0 {
			item.Id = new(string(c.nextKey()))
			p.Items = append(p.Items, item)
			return true
		}
		item.Id, item.Extra = p.Items[i].Id, p.Items[i].Extra
		p.Items[i] = item
		return true
	})
}

// UnmuteWord ends the mute of a word. It is no error if there is none.
func (c *Client) UnmuteWord(ctx context.Context, word string) error {
	word = cleanWord(word)
	return updatePreference(ctx, c, func(p *appbsky.ActorDefs_MutedWordsPref) bool {
		n := len(p.Items)
		p.Items = slices.DeleteFunc(p.Items, func(m appbsky.ActorDefs_MutedWord) bool { return cleanWord(m.Value) == word })
		return len(p.Items) < n
	})
}

// SavedFeed is a feed, a list or the timeline among those that the account has at hand.
type SavedFeed struct {
	Type   string // "feed", "list" or "timeline"
	Value  string // at-uri of the feed generator or list; "following" for the timeline
	Pinned bool   // shown in the first row
}

// SavedFeeds returns the feeds that the account has at hand, in their order.
func (c *Client) SavedFeeds(ctx context.Context) ([]SavedFeed, error) {
	prefs, err := c.Preferences(ctx)
	if err != nil {
		return nil, err
	}
	pref := Preference[appbsky.ActorDefs_SavedFeedsPrefV2](prefs)
	if pref == nil {
		return nil, nil
	}
	var feeds []SavedFeed
	for _, f := range pref.Items {
		feeds = append(feeds, SavedFeed{Type: f.Type, Value: f.Value, Pinned: f.Pinned})
	}
	return feeds, nil
}

// SaveFeed puts a feed generator or a list among the saved feeds, or changes whether it is pinned. It is named by at-uri or by
// the address of its page.
func (c *Client) SaveFeed(ctx context.Context, feed string, pinned bool) error {
	uri, err := c.uri(ctx, feed)
	if err != nil {
		return fmt.Errorf("saving a feed: %w", err)
	}
	var kind string
	switch uri.Collection() {
	case "app.bsky.feed.generator":
		kind = "feed"
	case "app.bsky.graph.list":
		kind = "list"
	default:
		return fmt.Errorf("saving a feed: %s is none", uri)
	}
	return updatePreference(ctx, c, func(p *appbsky.ActorDefs_SavedFeedsPrefV2) bool {
		i := slices.IndexFunc(p.Items, func(f appbsky.ActorDefs_SavedFeed) bool { return f.Value == string(uri) })
		if i < 0 {
			p.Items = append(p.Items, appbsky.ActorDefs_SavedFeed{Id: string(c.nextKey()), Type: kind, Value: string(uri), Pinned: pinned})
			return true
		}
		was := p.Items[i].Pinned
		p.Items[i].Pinned = pinned
		return was != pinned
	})
}

// UnsaveFeed takes a feed away from the saved ones. It is no error if it isn't among them.
func (c *Client) UnsaveFeed(ctx context.Context, feed string) error {
	uri, err := c.uri(ctx, feed)
	if err != nil {
		return fmt.Errorf("taking a feed away: %w", err)
	}
	return updatePreference(ctx, c, func(p *appbsky.ActorDefs_SavedFeedsPrefV2) bool {
		n := len(p.Items)
		p.Items = slices.DeleteFunc(p.Items, func(f appbsky.ActorDefs_SavedFeed) bool { return f.Value == string(uri) })
		return len(p.Items) < n
	})
}

// ModerationLabeler is the labeler of Bluesky's own moderators, for [Client.WithLabelers].
const ModerationLabeler = "did:plc:ar7c4by46qjdydhdevvrndac"

// Labelers returns the labelers that the account subscribes to, besides those that its apps add.
func (c *Client) Labelers(ctx context.Context) ([]syntax.DID, error) {
	prefs, err := c.Preferences(ctx)
	if err != nil {
		return nil, err
	}
	pref := Preference[appbsky.ActorDefs_LabelersPref](prefs)
	if pref == nil {
		return nil, nil
	}
	var dids []syntax.DID
	for _, l := range pref.Labelers {
		dids = append(dids, syntax.DID(l.Did))
	}
	return dids, nil
}

// WithOwnLabelers is [Client.WithLabelers] for the labelers that the account subscribes to, and that of Bluesky with takedowns.
func (c *Client) WithOwnLabelers(ctx context.Context) (*Client, error) {
	dids, err := c.Labelers(ctx)
	if err != nil {
		return nil, err
	}
	names := []string{ModerationLabeler + ";redact"}
	for _, d := range dids {
		if d != ModerationLabeler {
			names = append(names, string(d))
		}
	}
	return c.WithLabelers(names...), nil
}

// SubscribeLabeler has the account subscribe to a labeler, which is named by handle, DID or the address of its page.
func (c *Client) SubscribeLabeler(ctx context.Context, labeler string) error {
	did, err := c.resolve(ctx, labeler)
	if err != nil {
		return fmt.Errorf("subscribing to a labeler: %w", err)
	}
	return updatePreference(ctx, c, func(p *appbsky.ActorDefs_LabelersPref) bool {
		if slices.ContainsFunc(p.Labelers, func(l appbsky.ActorDefs_LabelerPrefItem) bool { return l.Did == string(did) }) {
			return false
		}
		p.Labelers = append(p.Labelers, appbsky.ActorDefs_LabelerPrefItem{Did: string(did)})
		return true
	})
}

// UnsubscribeLabeler ends the subscription to a labeler. It is no error if there is none.
func (c *Client) UnsubscribeLabeler(ctx context.Context, labeler string) error {
	did, err := c.resolve(ctx, labeler)
	if err != nil {
		return fmt.Errorf("leaving a labeler: %w", err)
	}
	return updatePreference(ctx, c, func(p *appbsky.ActorDefs_LabelersPref) bool {
		n := len(p.Labelers)
		p.Labelers = slices.DeleteFunc(p.Labelers, func(l appbsky.ActorDefs_LabelerPrefItem) bool { return l.Did == string(did) })
		return len(p.Labelers) < n
	})
}
