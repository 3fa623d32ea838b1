package pds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Preferences are kept here. Without an AppView, clients also get their own profile here: they ask for them at sign-in. Profiles are those of the
// accounts on this server, made from their records.

// getProfile is app.bsky.actor.getProfile.
func (s *Service) getProfile(_ context.Context, r *xrpc.Request, p *appbsky.ActorGetProfile_Params) (*appbsky.ActorDefs_ProfileViewDetailed, error) {
	if _, err := s.optionalAuth(r.Request); err != nil {
		return nil, err
	}
	return s.profile(p.Actor)
}

// getProfiles is app.bsky.actor.getProfiles. Actors that are not here are left out.
func (s *Service) getProfiles(_ context.Context, r *xrpc.Request, p *appbsky.ActorGetProfiles_Params) (*appbsky.ActorGetProfiles_Output, error) {
	if _, err := s.optionalAuth(r.Request); err != nil {
		return nil, err
	}
	const most = 25
	if len(p.Actors) > most {
		return nil, invalid("actors: want at most %d", most)
	}
	out := &appbsky.ActorGetProfiles_Output{Profiles: []appbsky.ActorDefs_ProfileViewDetailed{}}
	for _, actor := range p.Actors {
		v, err := s.profile(actor)
		var refused *xrpc.Error
		switch {
		case err == nil:
			out.Profiles = append(out.Profiles, *v)
		case !errors.As(err, &refused):
			return nil, err
		}
	}
	return out, nil
}

// profileRecord is what a view takes from app.bsky.actor.profile. It is read leniently: a record of another shape gives an empty profile.
type profileRecord struct {
	DisplayName string          `json:"displayName"`
	Description string          `json:"description"`
	Pronouns    string          `json:"pronouns"`
	Website     string          `json:"website"`
	Avatar      *profilePicture `json:"avatar"`
	Banner      *profilePicture `json:"banner"`
	CreatedAt   string          `json:"createdAt"`
}

type profilePicture struct {
	Ref struct {
		Link string `json:"$link"`
	} `json:"ref"`
}

func (s *Service) profile(actor string) (*appbsky.ActorDefs_ProfileViewDetailed, error) {
	a, err := s.findActor(actor)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	defer snap.Close()
	head, err := loadHead(snap, a.DID)
	if err != nil {
		return nil, err
	}
	if head == nil || head.Status != hostingActive {
		return nil, invalid("the account %s is not active", actor)
	}
	v := &appbsky.ActorDefs_ProfileViewDetailed{Did: string(a.DID), Handle: string(a.Handle), CreatedAt: optional(datetime(a.Created))}
	rec, err := getStored(snap, head.Gen, "app.bsky.actor.profile/self")
	if err != nil {
		return nil, err
	}
	if rec != nil && !s.taken.hidden(a.DID, rec.Path) {
		var p profileRecord
		if text, err := data.AppendJSON(nil, rec.Record); err == nil && json.Unmarshal(text, &p) == nil {
			v.DisplayName, v.Description = optional(p.DisplayName), optional(p.Description)
			v.Pronouns, v.Website = optional(p.Pronouns), optional(p.Website)
			v.Avatar, v.Banner = s.pictureURL(a.DID, p.Avatar), s.pictureURL(a.DID, p.Banner)
			v.IndexedAt = optional(p.CreatedAt)
			if _, err := syntax.ParseDatetime(p.CreatedAt); err != nil {
				v.IndexedAt = nil
			}
		}
	}
	n, err := s.profileCounts(snap, head)
	if err != nil {
		return nil, err
	}
	v.PostsCount, v.FollowsCount = new(n.posts), new(n.follows)
	return v, nil
}

// findActor finds an account by what app.bsky methods call it.
func (s *Service) findActor(actor string) (*account, error) {
	id, err := syntax.ParseAtIdentifier(actor)
	if err != nil {
		return nil, invalid("actor: want a DID or a handle")
	}
	var a *account
	if id.IsDID() {
		a, err = s.account(id.DID())
	} else {
		a, err = s.accountByHandle(id.Handle())
	}
	if errors.Is(err, errNoAccount) {
		return nil, invalid("the profile of %s is not here", actor)
	}
	return a, err
}

// pictureURL is where a picture of a profile can be had from this server.
func (s *Service) pictureURL(did syntax.DID, p *profilePicture) *string {
	if p == nil {
		return nil
	}
	c, err := cid.Parse(p.Ref.Link)
	if err != nil {
		return nil
	}
	q := url.Values{"did": {string(did)}, "cid": {c.String()}}
	return new(s.cfg.PublicURL + "/xrpc/com.atproto.sync.getBlob?" + q.Encode())
}

// counts of records that a profile shows.
type profileCounts struct {
	rev            syntax.TID
	posts, follows int64
}

// countCache keeps the counts of a repository for as long as its revision stays the same.
type countCache struct {
	mu sync.Mutex
	of map[syntax.DID]profileCounts
}

const maxCounts = 4096

func (s *Service) profileCounts(from kv.Reader, h *headRow) (profileCounts, error) {
	c := &s.accounts.counts
	c.mu.Lock()
	n, ok := c.of[h.DID]
	c.mu.Unlock()
	if ok && n.rev == h.Rev {
		return n, nil
	}
	n = profileCounts{rev: h.Rev}
	var err error
	if n.posts, err = countRecords(from, h.Gen, "app.bsky.feed.post"); err != nil {
		return n, err
	}
	if n.follows, err = countRecords(from, h.Gen, "app.bsky.graph.follow"); err != nil {
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil || len(c.of) >= maxCounts {
		c.of = map[syntax.DID]profileCounts{}
	}
	c.of[h.DID] = n
	return n, nil
}

// countRecords counts the records of a collection.
func countRecords(from kv.Reader, gen uint64, collection string) (n int64, err error) {
	lo := append(append(idKey(tableBlock, gen), collection...), '/')
	it := from.Iter(lo, kv.PrefixEnd(lo))
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		_, layer, err := splitBlockKey(it.Key())
		if err != nil {
			return 0, err
		}
		if layer < 0 {
			n++
		}
	}
	return n, it.Err()
}

const (
	maxPreferences     = 1000
	maxPreferenceBytes = 512 << 10
)

// preferences reads the preferences of an account, each one a JSON object with its type, byte for byte as it came.
func (s *Service) preferences(did syntax.DID) ([]json.RawMessage, error) {
	v, err := s.store.Get([]byte(rowPrefs + string(did)))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading preferences of %s: %w", did, err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(v, &list); err != nil {
		return nil, fmt.Errorf("preferences of %s: %w", did, errCorrupt)
	}
	return list, nil
}

// fullAccessPreference is a preference that an app password neither sees nor changes.
const fullAccessPreference = "app.bsky.actor.defs#personalDetailsPref"

// preferenceType is the type of a preference, "" if it has none. Names are compared exactly, so that there are no two opinions on it.
func preferenceType(p json.RawMessage) (typ string) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(p, &fields) != nil || json.Unmarshal(fields["$type"], &typ) != nil {
		return ""
	}
	return typ
}

// joinPreferences makes a JSON array. Package json would spell the values anew.
func joinPreferences(list []json.RawMessage) []byte {
	out := []byte{'['}
	for i, p := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, p...)
	}
	return append(out, ']')
}

// getPreferences is app.bsky.actor.getPreferences.
func (s *Service) getPreferences(w http.ResponseWriter, r *xrpc.Request) error {
	info, err := s.requireAuth(r.Request)
	if err != nil {
		return err
	}
	list, err := s.preferences(info.DID)
	if err != nil {
		return err
	}
	if info.Scope != scopeAccess {
		list = slices.DeleteFunc(list, func(p json.RawMessage) bool { return preferenceType(p) == fullAccessPreference })
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = fmt.Fprintf(w, `{"preferences":%s}`, joinPreferences(list))
	return err
}

// putPreferences is app.bsky.actor.putPreferences. Preferences are kept as they come, known or not.
func (s *Service) putPreferences(w http.ResponseWriter, r *xrpc.Request) error {
	info, err := s.requireAuth(r.Request)
	if err != nil {
		return err
	}
	var in struct {
		Preferences *[]json.RawMessage `json:"preferences"`
	}
	body := http.MaxBytesReader(w, r.Body, maxPreferenceBytes)
	b, err := io.ReadAll(body)
	if err == nil {
		err = json.Unmarshal(b, &in)
	}
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return refuse(http.StatusRequestEntityTooLarge, "PayloadTooLarge", "the preferences are larger than %d bytes", large.Limit)
		}
		return invalid("the body is not valid: %v", err)
	}
	if !utf8.Valid(b) {
		return invalid("the body is not valid UTF-8")
	}
	if in.Preferences == nil {
		return invalid("preferences are missing")
	}
	if len(*in.Preferences) > maxPreferences {
		return invalid("want at most %d preferences", maxPreferences)
	}
	for _, p := range *in.Preferences {
		switch typ := preferenceType(p); {
		case typ == "":
			return invalid("every preference needs a $type")
		case !strings.HasPrefix(typ, "app.bsky."):
			return invalid("%s: only preferences of app.bsky are kept here", typ)
		case typ == fullAccessPreference && info.Scope != scopeAccess:
			return invalid("an app password can't change %s", typ)
		}
	}
	defer s.accounts.changes.lock("preferences " + string(info.DID))()
	list := *in.Preferences
	if info.Scope != scopeAccess {
		old, err := s.preferences(info.DID)
		if err != nil {
			return err
		}
		for _, p := range old {
			if preferenceType(p) == fullAccessPreference {
				list = append(list, p)
			}
		}
	}
	row := joinPreferences(list)
	if err := s.write(r.Context(), func(b kv.Batch) { b.Set([]byte(rowPrefs+string(info.DID)), row) }); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func datetime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
