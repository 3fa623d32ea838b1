package main

import (
	"context"
	"embed"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/examples/notes/lex"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/reposync"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const collection = "com.example.notes.note"

//go:embed lexicons
var schemas embed.FS

// catalog has our schemas, and those of com.atproto that they refer to.
var catalog = sync.OnceValue(func() *lexicon.Catalog {
	cat := lexicon.NewCatalog()
	for _, err := range []error{cat.AddFS(schemas), cat.AddFS(lexicons.FS)} {
		if err != nil {
			panic(err) // they are compiled in
		}
	}
	return cat
})

// validate checks a note against its schema.
func validate(note *lex.Note) error {
	raw, err := data.Marshal(note)
	if err != nil {
		return err
	}
	return catalog().ValidateRecord(collection, raw)
}

// index holds the notes of a network in memory. It is what a reposync.Syncer stores into: what it is given was verified, and
// what a repository had before and has no more is told as deletions.
type index struct {
	mu     sync.Mutex
	cursor int64
	repos  map[syntax.DID]reposync.Repo
	notes  []stored      // in the order of arrival
	next   int           // number of the next note
	change chan struct{} // closed when notes have changed
}

type stored struct {
	number int
	did    syntax.DID
	entry  reposync.Entry
	note   lex.Note
}

var _ reposync.Sink = (*index)(nil)

func newIndex() *index {
	return &index{repos: map[syntax.DID]reposync.Repo{}, change: make(chan struct{})}
}

// Load tells where to go on. There is nothing to go on from after a start, because memory is all there is.
func (x *index) Load() (int64, iter.Seq2[reposync.Repo, error], error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := make([]reposync.Repo, 0, len(x.repos))
	for _, r := range x.repos {
		list = append(list, r)
	}
	return x.cursor, values(list), nil
}

// Repo returns what is known of one repository.
func (x *index) Repo(did syntax.DID) (reposync.Repo, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r, ok := x.repos[did]
	return r, ok, nil
}

// Records yields the notes of one repository by path.
func (x *index) Records(did syntax.DID) iter.Seq2[reposync.Entry, error] {
	x.mu.Lock()
	defer x.mu.Unlock()
	var list []reposync.Entry
	for _, n := range x.notes {
		if n.did == did {
			list = append(list, n.entry)
		}
	}
	slices.SortFunc(list, func(a, b reposync.Entry) int { return strings.Compare(a.Path, b.Path) })
	return values(list)
}

func values[T any](list []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range list {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// Apply takes in what has happened.
func (x *index) Apply(_ context.Context, b reposync.Batch) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b.Cursor > 0 {
		x.cursor = b.Cursor
	}
	for _, c := range b.Changes {
		x.repos[c.Repo.DID] = c.Repo
		if c.Purge {
			x.remove(c.Repo.DID, "")
		}
		for _, op := range c.Ops {
			if !strings.HasPrefix(op.Path, collection+"/") {
				continue
			}
			x.remove(c.Repo.DID, op.Path)
			if op.Action == repo.ActionDelete {
				continue
			}
			// A record that doesn't fit its schema is as good as none.
			s := stored{number: x.next, did: c.Repo.DID, entry: reposync.Entry{Path: op.Path, CID: op.CID}}
			if catalog().ValidateRecord(collection, op.Data) == nil && data.Unmarshal(op.Data, &s.note) == nil {
				x.notes = append(x.notes, s)
				x.next++
			}
		}
	}
	close(x.change)
	x.change = make(chan struct{})
	return nil
}

// remove drops a note, or all of an account.
func (x *index) remove(did syntax.DID, path string) {
	x.notes = slices.DeleteFunc(x.notes, func(n stored) bool { return n.did == did && (path == "" || n.entry.Path == path) })
}

// wait returns when there are n notes.
func (x *index) wait(ctx context.Context, n int) error {
	for {
		x.mu.Lock()
		have, change := len(x.notes), x.change
		x.mu.Unlock()
		if have == n {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("%d notes, want %d: %w", have, n, ctx.Err())
		}
	}
}

// handler serves listNotes. The descriptor that clients call with is what the server routes by.
func (x *index) handler() http.Handler {
	s := xrpc.NewServer(xrpc.ServerOptions{})
	xrpc.HandleQuery(s, lex.ListNotes, x.list)
	return s
}

func (x *index) list(_ context.Context, _ *xrpc.Request, p *lex.ListNotes_Params) (*lex.ListNotes_Output, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	before := x.next
	if p.Cursor != nil {
		n, err := strconv.Atoi(*p.Cursor)
		if err != nil {
			return nil, xrpc.ErrInvalidRequest.With("the cursor isn't one of ours")
		}
		before = n
	}
	out := &lex.ListNotes_Output{Notes: []lex.ListNotes_NoteView{}}
	known := false
	for _, n := range slices.Backward(x.notes) {
		if p.Author != nil && *p.Author != string(n.did) {
			continue
		}
		known = true
		if n.number >= before {
			continue
		}
		if len(out.Notes) == int(*p.Limit) { // its default is in the schema, and given
			out.Cursor = new(strconv.Itoa(before))
			break
		}
		before = n.number
		out.Notes = append(out.Notes, lex.ListNotes_NoteView{
			Uri: "at://" + string(n.did) + "/" + n.entry.Path, Cid: n.entry.CID.String(), Author: string(n.did), Note: n.note,
		})
	}
	if p.Author != nil && !known {
		return nil, lex.ErrUnknownAuthor.With("no note of %s has been seen", *p.Author)
	}
	return out, nil
}
