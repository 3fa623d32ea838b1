package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strconv"

	"github.com/gorilla/websocket"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// Kinds of a [JetstreamEvent].
const (
	JetstreamCommit   = "commit"
	JetstreamIdentity = "identity"
	JetstreamAccount  = "account"
)

// JetstreamEvent is an event of a Jetstream: a record that was written or deleted, or news of an account.
type JetstreamEvent struct {
	DID  syntax.DID
	Kind string // one of the kinds above; others may come
	Time int64  // when the server saw it, in µs of the epoch
	// Cursor is what JetstreamOptions.After takes to go on after this event: the server's number of it, or Time where servers
	// have none.
	Cursor int64

	// Of a commit.
	Rev        syntax.TID
	Action     string // ActionCreate, ActionUpdate or ActionDelete
	Collection syntax.NSID
	RecordKey  syntax.RecordKey
	CID        cid.CID  // undefined in a deletion
	Record     data.Raw // nil in a deletion
	// RecordErr says what is wrong with Record: a [*data.Error] if it breaks a rule of the data model, in which case only the
	// lenient functions of package data read it, or that it isn't what CID says. nil: it has that hash.
	RecordErr error

	Handle syntax.Handle // of an identity; may be empty
	Active bool          // of an account
	Status string        // of an account that isn't active
}

// URI returns the at:// URI of the record of a commit.
func (e *JetstreamEvent) URI() syntax.ATURI {
	return syntax.NewATURI(syntax.AtIdentifier(e.DID), e.Collection, e.RecordKey)
}

// JetstreamOptions tune [Jetstream]. Of the SubscribeOptions, After is a [JetstreamEvent.Cursor], or a time in µs of the epoch;
// NSID isn't used.
type JetstreamOptions struct {
	SubscribeOptions
	Collections []string     // NSIDs, or prefixes such as "app.bsky.feed.*"; at most 100. nil: all. The server filters
	DIDs        []syntax.DID // at most 10,000. nil: all
	// OnBad is told of messages that aren't events, which are passed over: one of them doesn't end a stream. The message is
	// valid until OnBad returns.
	OnBad func(message []byte, err error)
}

// Jetstream follows a Jetstream at host (see [URL]), the stream of events in JSON that some services make of a relay's, and
// connects again as [Subscribe] does. Events come at least once: after a new connection a few may come again.
//
// Nothing of it is signed: the server's word counts. What can be checked is, whether a record has the hash that the event
// says. [Records] reads a verified stream.
//
// The wire format is the one that all Jetstreams speak (https://github.com/bluesky-social/jetstream), uncompressed.
func Jetstream(ctx context.Context, host string, o JetstreamOptions) iter.Seq2[JetstreamEvent, error] {
	return func(yield func(JetstreamEvent, error) bool) {
		s := newSubscription(host, o.SubscribeOptions)
		var latest []byte // message
		once := func() error {
			q := url.Values{}
			for k, v := range o.Query {
				q[k] = v
			}
			for _, c := range o.Collections {
				q.Add("wantedCollections", c)
			}
			for _, d := range o.DIDs {
				q.Add("wantedDids", string(d))
			}
			if s.last >= 0 {
				q.Set("cursor", strconv.FormatInt(s.last, 10))
			}
			s.failures++
			addr, err := address(host, "/subscribe", q)
			if err != nil {
				return err
			}
			c, err := Dial(ctx, addr, o.DialOptions)
			if err != nil {
				return err
			}
			defer c.Close()
			if o.OnConnect != nil {
				o.OnConnect()
			}
			for {
				c.idle.Reset(c.o.IdleTimeout)
				kind, err := c.message()
				if err == nil && kind != websocket.TextMessage {
					err = frameErr("a binary message")
				}
				if err != nil {
					return c.fail(err)
				}
				c.idle.Stop()
				if bytes.Equal(c.buf, latest) { // the cursor is inclusive
					continue
				}
				e, err := ParseJetstreamEvent(c.buf)
				if err != nil {
					if o.OnBad != nil {
						o.OnBad(c.buf, err)
					}
					continue
				}
				latest = append(latest[:0], c.buf...)
				s.failures, s.last = 0, e.Cursor
				if !yield(*e, nil) {
					return errBreak
				}
			}
		}
		if err := s.run(ctx, once); err != nil {
			yield(JetstreamEvent{}, err)
		}
	}
}

// ParseJetstreamEvent reads one message of a Jetstream. Nothing in the event shares memory with b.
func ParseJetstreamEvent(b []byte) (*JetstreamEvent, error) {
	var x struct {
		DID    string `json:"did"`
		Kind   string `json:"kind"`
		TimeUS int64  `json:"time_us"`
		Cursor int64  `json:"cursor"`
		Commit *struct {
			Rev        string          `json:"rev"`
			Operation  string          `json:"operation"`
			Collection string          `json:"collection"`
			RecordKey  string          `json:"rkey"`
			CID        string          `json:"cid"`
			Record     json.RawMessage `json:"record"`
		} `json:"commit"`
		Identity *struct {
			Handle string `json:"handle"`
		} `json:"identity"`
		Account *struct {
			Active bool   `json:"active"`
			Status string `json:"status"`
		} `json:"account"`
	}
	fail := func(err error) (*JetstreamEvent, error) {
		return nil, fmt.Errorf("an event of the Jetstream: %w", err)
	}
	if err := json.Unmarshal(b, &x); err != nil {
		return fail(err)
	}
	e := &JetstreamEvent{Kind: x.Kind, Time: x.TimeUS, Cursor: x.Cursor}
	if e.Cursor == 0 {
		e.Cursor = e.Time
	}
	var err error
	switch e.DID, err = syntax.ParseDID(x.DID); {
	case err != nil:
		return fail(err)
	case e.Cursor <= 0 || e.Time < 0 || e.Kind == "":
		return fail(errors.New("without a kind or a time"))
	case e.Kind == JetstreamIdentity && x.Identity != nil:
		// A handle that is none is as good as none: its document decides.
		if h, err := syntax.ParseHandle(x.Identity.Handle); err == nil {
			e.Handle = h
		}
	case e.Kind == JetstreamAccount && x.Account != nil:
		e.Active, e.Status = x.Account.Active, x.Account.Status
	case e.Kind == JetstreamCommit && x.Commit != nil:
		c := x.Commit
		e.Action = c.Operation
		if e.Rev, err = syntax.ParseTID(c.Rev); err != nil {
			return fail(err)
		}
		if e.Collection, err = syntax.ParseNSID(c.Collection); err != nil {
			return fail(err)
		}
		if e.RecordKey, err = syntax.ParseRecordKey(c.RecordKey); err != nil {
			return fail(err)
		}
		if !slices.Contains([]string{ActionCreate, ActionUpdate, ActionDelete}, e.Action) {
			return fail(fmt.Errorf("the operation %.40q", e.Action))
		}
		if e.Action == ActionDelete {
			break
		}
		if e.CID, err = cid.Parse(c.CID); err != nil {
			return fail(err)
		}
		var l *data.Lenient
		if e.Record, l, err = data.AppendCBORLenient(nil, c.Record); err != nil {
			return fail(err)
		}
		if sum := cid.Sum(cid.DagCBOR, e.Record); len(l.Violations) > 0 {
			e.RecordErr = l.Violations[0]
		} else if sum != e.CID {
			e.RecordErr = fmt.Errorf("the record has the CID %s, the event says %s", sum, e.CID)
		}
	case e.Kind == JetstreamIdentity || e.Kind == JetstreamAccount || e.Kind == JetstreamCommit:
		return fail(fmt.Errorf("a %s without its content", e.Kind))
	}
	return e, nil
}
