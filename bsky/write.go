package bsky

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// maxTries is how often a write is sent whose outcome isn't known, each time after a look whether it is there.
const maxTries = 3

// datetime is the present as records tell it.
func (c *Client) datetime() string { return c.o.Now().UTC().Format("2006-01-02T15:04:05.000Z") }

// draft is a record that is to be written: its name, its bytes and what they hash to.
type draft struct {
	ref  Ref
	rkey syntax.RecordKey
	raw  data.Raw
}

// draft encodes a record under a key; an empty key stands for one of the present.
func (c *Client) draft(rkey syntax.RecordKey, value any) (draft, error) {
	if rkey == "" {
		rkey = c.nextKey()
	}
	raw, err := data.Marshal(value)
	if err != nil {
		return draft{}, err
	}
	uri := syntax.NewATURI(syntax.AtIdentifier(c.did), syntax.NSID(data.TypeOf(raw)), rkey)
	return draft{ref: Ref{URI: uri, CID: cid.Sum(cid.DagCBOR, raw)}, rkey: rkey, raw: raw}, nil
}

func (c *Client) nextKey() syntax.RecordKey { return syntax.RecordKey(c.tids.Next(c.o.Now())) }

// write writes one new record under a key of our own.
func write[T any](ctx context.Context, c *Client, rkey syntax.RecordKey, value *T) (Ref, error) {
	d, err := c.draft(rkey, value)
	if err != nil {
		return Ref{}, err
	}
	return d.ref, c.commit(ctx, d)
}

// commit writes new records in one commit, all or none. If an answer is lost, the first record is looked for before
// anything is sent again.
func (c *Client) commit(ctx context.Context, drafts ...draft) error {
	first := drafts[0].ref
	for try := 1; ; try++ {
		err := c.send(ctx, drafts)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || refused(err) {
			return fmt.Errorf("writing %s: %w", first.URI, err)
		}
		switch there, readErr := client.Get[data.Raw](ctx, c.pds, first.URI, client.GetOptions{}); {
		case readErr == nil && there.CID == first.CID:
			return nil
		case readErr == nil:
			return fmt.Errorf("writing %s: another record is there: %w", first.URI, err)
		case !errors.Is(readErr, client.ErrRecordNotFound):
			return fmt.Errorf("writing %s: %w, and whether it is there could not be found out: %w", first.URI, err, readErr)
		case try == maxTries:
			return fmt.Errorf("writing %s: %w", first.URI, err)
		}
	}
}

func (c *Client) send(ctx context.Context, drafts []draft) error {
	if len(drafts) == 1 {
		_, err := client.Create(ctx, c.pds, &drafts[0].raw, client.WriteOptions{RecordKey: drafts[0].rkey})
		return err
	}
	var writes []client.Write
	for _, d := range drafts {
		writes = append(writes, client.CreateOf(d.rkey, &d.raw))
	}
	_, err := c.pds.ApplyWrites(ctx, writes, client.WriteOptions{})
	return err
}

// refused says that a server took note of a request and did not do it.
func refused(err error) bool {
	var e *xrpc.Error
	return errors.As(err, &e) && e.Status < 500
}

// Like likes a post, feed or other record.
func (c *Client) Like(ctx context.Context, record string) (Ref, error) {
	ref, err := c.Ref(ctx, record)
	if err != nil {
		return Ref{}, fmt.Errorf("liking: %w", err)
	}
	return c.LikeRef(ctx, ref)
}

// LikeRef likes a version of a record that is known already; nothing needs to be asked.
func (c *Client) LikeRef(ctx context.Context, subject Ref) (Ref, error) {
	return write(ctx, c, "", &appbsky.FeedLike{Subject: strong(subject), CreatedAt: c.datetime()})
}

// Repost reposts a post.
func (c *Client) Repost(ctx context.Context, post string) (Ref, error) {
	ref, err := c.Ref(ctx, post)
	if err != nil {
		return Ref{}, fmt.Errorf("reposting: %w", err)
	}
	return c.RepostRef(ctx, ref)
}

// RepostRef reposts a version of a post that is known already.
func (c *Client) RepostRef(ctx context.Context, subject Ref) (Ref, error) {
	return write(ctx, c, "", &appbsky.FeedRepost{Subject: strong(subject), CreatedAt: c.datetime()})
}

// Follow follows an account, named by handle, DID or the address of its page.
func (c *Client) Follow(ctx context.Context, account string) (Ref, error) {
	did, err := c.resolve(ctx, account)
	if err != nil {
		return Ref{}, fmt.Errorf("following: %w", err)
	}
	return write(ctx, c, "", &appbsky.GraphFollow{Subject: string(did), CreatedAt: c.datetime()})
}

// Block blocks an account. Blocks are public.
func (c *Client) Block(ctx context.Context, account string) (Ref, error) {
	did, err := c.resolve(ctx, account)
	if err != nil {
		return Ref{}, fmt.Errorf("blocking: %w", err)
	}
	return write(ctx, c, "", &appbsky.GraphBlock{Subject: string(did), CreatedAt: c.datetime()})
}

// Delete deletes a record of the account: a post, or a like, repost, follow or block by the name that making it returned.
// It is no error if there is none.
func (c *Client) Delete(ctx context.Context, record string) error {
	uri, err := ParseURI(record)
	if err != nil {
		return err
	}
	if who := string(uri.Authority()); who != string(c.did) {
		did, err := c.resolve(ctx, who)
		if err != nil {
			return err
		}
		if did != c.did {
			return fmt.Errorf("deleting %s: %w", uri, ErrNotYours)
		}
		uri = uri.WithAuthority(syntax.AtIdentifier(did))
	}
	_, err = c.pds.Delete(ctx, uri, client.WriteOptions{})
	return err
}

// ErrNotYours says that a record is another account's.
var ErrNotYours = errors.New("the record is another account's")

// ErrNotFound says that there is no like, repost, follow or block to undo.
var ErrNotFound = errors.New("there is nothing to undo")

// Unlike takes back all likes of a record. Who kept what [Client.Like] returned passes that to [Client.Delete] instead,
// which reads no list.
func (c *Client) Unlike(ctx context.Context, record string) error {
	uri, err := c.uri(ctx, record)
	if err != nil {
		return err
	}
	return undo(ctx, c, uri, func(l *appbsky.FeedLike) bool { return l.Subject.Uri == string(uri) })
}

// Unrepost takes back all reposts of a post.
func (c *Client) Unrepost(ctx context.Context, post string) error {
	uri, err := c.uri(ctx, post)
	if err != nil {
		return err
	}
	return undo(ctx, c, uri, func(r *appbsky.FeedRepost) bool { return r.Subject.Uri == string(uri) })
}

// Unfollow stops following an account.
func (c *Client) Unfollow(ctx context.Context, account string) error {
	did, err := c.resolve(ctx, account)
	if err != nil {
		return err
	}
	return undo(ctx, c, did, func(f *appbsky.GraphFollow) bool { return f.Subject == string(did) })
}

// Unblock stops blocking an account.
func (c *Client) Unblock(ctx context.Context, account string) error {
	did, err := c.resolve(ctx, account)
	if err != nil {
		return err
	}
	return undo(ctx, c, did, func(b *appbsky.GraphBlock) bool { return b.Subject == string(did) })
}

// uri is the name of a record with a DID in it.
func (c *Client) uri(ctx context.Context, record string) (syntax.ATURI, error) {
	uri, err := ParseURI(record)
	if err != nil {
		return "", err
	}
	did, err := c.resolve(ctx, string(uri.Authority()))
	return uri.WithAuthority(syntax.AtIdentifier(did)), err
}

// undo deletes the account's records of type T that match. The repository is asked and not the AppView: it knows at once.
func undo[T any, S ~string](ctx context.Context, c *Client, subject S, match func(*T) bool) error {
	var found []syntax.ATURI
	skip := func(*client.DecodeError) {}
	for r, err := range client.List[T](ctx, c.pds, syntax.AtIdentifier(c.did), client.ListOptions{OnBad: skip}) {
		if err != nil {
			return fmt.Errorf("looking for what points at %s: %w", subject, err)
		}
		if match(&r.Value) {
			found = append(found, r.URI)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%s: %w", subject, ErrNotFound)
	}
	for _, uri := range found {
		if _, err := c.pds.Delete(ctx, uri, client.WriteOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// Mute hides an account from what the account reads. Mutes are private to the AppView.
func (c *Client) Mute(ctx context.Context, account string) error {
	at, err := ParseAccount(account)
	if err == nil {
		_, err = appbsky.GraphMuteActor.Call(ctx, c.appview, &appbsky.GraphMuteActor_Input{Actor: string(at)})
	}
	return err
}

// Unmute ends a mute.
func (c *Client) Unmute(ctx context.Context, account string) error {
	at, err := ParseAccount(account)
	if err == nil {
		_, err = appbsky.GraphUnmuteActor.Call(ctx, c.appview, &appbsky.GraphUnmuteActor_Input{Actor: string(at)})
	}
	return err
}

// profileKey is the one record key of app.bsky.actor.profile.
const profileKey = "self"

func (c *Client) profileURI() syntax.ATURI {
	return syntax.NewATURI(syntax.AtIdentifier(c.did), "app.bsky.actor.profile", profileKey)
}

// maxConflicts is how often a change is begun anew because somebody else changed the same thing meanwhile.
const maxConflicts = 5

// UpdateProfile changes the account's profile: change is given the present one, or an empty one, and alters it. Fields that
// this package doesn't know stay. If the profile is changed by somebody else meanwhile, change is called again with what it
// then is. A change that returns an error leaves everything as it was.
func (c *Client) UpdateProfile(ctx context.Context, change func(*appbsky.ActorProfile) error) (Ref, error) {
	uri := c.profileURI()
	for try := 1; ; try++ {
		o := client.WriteOptions{MustNotExist: true}
		profile := &appbsky.ActorProfile{CreatedAt: new(c.datetime())}
		there, err := client.Get[appbsky.ActorProfile](ctx, c.pds, uri, client.GetOptions{SkipHash: true})
		switch {
		case err == nil:
			profile, o = &there.Value, client.WriteOptions{SwapRecord: there.CID}
		case !errors.Is(err, client.ErrRecordNotFound):
			return Ref{}, err
		}
		if err := change(profile); err != nil {
			return Ref{}, err
		}
		ref, err := client.Put(ctx, c.pds, profileKey, profile, o)
		if err == nil {
			return *ref, nil
		}
		if !errors.Is(err, comatproto.ErrInvalidSwap) || try == maxConflicts {
			return Ref{}, fmt.Errorf("changing the profile: %w", err)
		}
	}
}

// Profile returns the account's own profile record, as its PDS has it; [Client.Me] returns it as others see it.
func (c *Client) Profile(ctx context.Context) (*appbsky.ActorProfile, error) {
	r, err := client.Get[appbsky.ActorProfile](ctx, c.pds, c.profileURI(), client.GetOptions{})
	if err != nil {
		return nil, err
	}
	return &r.Value, nil
}

// parseTime is the time of a datetime in a record, or zero.
func parseTime(s string) time.Time {
	d, err := syntax.ParseDatetime(s)
	if err != nil {
		return time.Time{}
	}
	return d.Time()
}
