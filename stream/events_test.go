package stream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

const (
	posts = "com.example.post"
	likes = "com.example.like"
	other = "org.example.thing"
)

// told is a record in a line, as the tests compare it.
func told(r stream.RecordEvent) string {
	return fmt.Sprintf("%d %s %s %s", r.Seq, r.Action, r.URI(), textOf(r.Record))
}

func textOf(b []byte) string {
	var v struct {
		Text string `json:"text"`
	}
	if b == nil || data.Unmarshal(b, &v) != nil {
		return "-"
	}
	return v.Text
}

// gather follows the frames of a world to the end.
func gather(t *testing.T, w *world, o *stream.Options) (lines, problems []string) {
	t.Helper()
	o.OnProblem = func(p *stream.Problem) {
		s := fmt.Sprintf("%d %s", p.Seq, p.Kind)
		if r := p.Reason(); r != "" {
			s += " " + string(r)
		}
		problems = append(problems, s)
	}
	for r, err := range stream.RecordsFrom(t.Context(), w.after(0), o) {
		if err != nil {
			if !errors.Is(err, errEnd) {
				t.Errorf("ended with %v", err)
			}
			continue
		}
		if r.Verified != (!o.Unverified && !o.SkipSignature) {
			t.Errorf("%s: verified is %v", told(r), r.Verified)
		}
		if r.CID.Defined() != (r.Record != nil) || r.Record != nil && !r.CID.Verify(r.Record) {
			t.Errorf("%s: the record is not what its CID says", told(r))
		}
		lines = append(lines, told(r))
	}
	slices.Sort(lines)
	return lines, problems
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// From a server, over a socket that breaks, with everything verified.
func TestRecords(t *testing.T) {
	w := newWorld(t)
	a, b := w.account("a"), w.account("b")
	a.write(note(posts, 1, "one"), note(likes, 1, "x"))
	b.write(note(posts, 1, "other"))
	w.send(&stream.Identity{DID: string(a.did), Time: string(w.time())})
	w.send(&stream.Account{DID: string(a.did), Time: string(w.time()), Active: true})
	a.write(note(posts, 1, "changed"))
	a.write(note(posts, 1, ""))
	url, conns := script(t, func(cursor string, ws *websocket.Conn) {
		n, _ := strconv.Atoi(cursor)
		from := max(n-1, 0) // inclusive
		for _, f := range w.frames[from:min(from+3, len(w.frames))] {
			_ = ws.WriteMessage(websocket.BinaryMessage, f.Raw)
		}
	})
	o := w.options()
	o.After = new(int64(0))
	o.Connect = fast()
	var got []string
	disconnected := 0
	o.OnProblem = func(p *stream.Problem) {
		if disconnected++; p.Kind != stream.ProblemDisconnected || p.Seq != 0 || p.Lost() {
			t.Errorf("problem %v", p)
		}
	}
	for r, err := range stream.Records(t.Context(), url, o) {
		if err != nil {
			t.Fatal(err)
		}
		if !r.Verified || r.Rev == "" || r.Time == "" || r.CID.Defined() != (r.Action != stream.ActionDelete) || r.Prev.Defined() != (r.Action != stream.ActionCreate) {
			t.Errorf("%+v", r)
		}
		got = append(got, told(r))
		if r.Action == stream.ActionDelete {
			if err := r.Decode(new(struct{})); err == nil {
				t.Error("a deletion was decoded")
			}
			break
		}
		type rec struct {
			Text string `json:"text"`
		}
		if v, err := stream.Decode[rec](&r); err != nil || v.Text != textOf(r.Record) {
			t.Errorf("decoded %v, %v", v, err)
		}
	}
	slices.Sort(got)
	equal(t, "records", got, []string{
		"1 create at://did:web:a.example.com/com.example.like/0001 x",
		"1 create at://did:web:a.example.com/com.example.post/0001 one",
		"2 create at://did:web:b.example.com/com.example.post/0001 other",
		"5 update at://did:web:a.example.com/com.example.post/0001 changed",
		"6 delete at://did:web:a.example.com/com.example.post/0001 -",
	})
	if conns.Load() < 3 || disconnected < 2 {
		t.Errorf("%d connections, told of %d ends", conns.Load(), disconnected)
	}
}

// What filters let pass is what a loop over all changes would.
func TestFiltersAgainstModel(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	var accounts []*writer
	for i := range 9 {
		accounts = append(accounts, w.account(fmt.Sprint("a", i)))
	}
	type change struct {
		line       string
		did        syntax.DID
		collection string
	}
	var all []change
	collections := []string{posts, likes, other, "com.examples.post"}
	have := map[string]bool{}
	for range 400 {
		a := accounts[rnd.IntN(len(accounts))]
		var writes []repo.Write
		seen := map[string]bool{}
		for range rnd.IntN(4) {
			c := collections[rnd.IntN(len(collections))]
			wr := note(c, rnd.IntN(6), fmt.Sprint(rnd.Uint64()))
			id := string(a.did) + "/" + wr.Path
			if seen[id] {
				continue
			}
			seen[id] = true
			action := stream.ActionCreate
			if have[id] {
				if action = stream.ActionUpdate; rnd.IntN(2) == 0 {
					action, wr.Record = stream.ActionDelete, nil
				}
			}
			have[id] = wr.Record != nil
			all = append(all, change{fmt.Sprintf("%d %s at://%s %s", len(w.frames)+1, action, id, textOf(wr.Record)), a.did, c})
			writes = append(writes, wr)
		}
		a.write(writes...)
	}
	for _, tt := range []struct {
		collections []string
		dids        []syntax.DID
	}{
		{nil, nil},
		{[]string{posts}, nil},
		{[]string{"com.example.*"}, nil},
		{[]string{"*"}, nil},
		{[]string{other, likes}, nil},
		{[]string{"net.example.*"}, nil},
		{nil, []syntax.DID{accounts[0].did, accounts[4].did}},
		{[]string{"com.*"}, []syntax.DID{accounts[0].did}},
		{nil, []syntax.DID{}},
	} {
		var want []string
		for _, c := range all {
			match := len(tt.collections) == 0
			for _, p := range tt.collections {
				prefix, isPrefix := strings.CutSuffix(p, "*")
				match = match || c.collection == p || isPrefix && strings.HasPrefix(c.collection, prefix)
			}
			if match && (tt.dids == nil || slices.Contains(tt.dids, c.did)) {
				want = append(want, c.line)
			}
		}
		slices.Sort(want)
		for _, how := range []stream.Options{{}, {VerifyAll: true}, {Unverified: true}, {SkipSignature: true}, {Workers: 1, MaxQueue: 1}, {Workers: 8, MaxQueue: 50, MaxAccounts: 3}} {
			o := how
			o.Keys, o.Now, o.Collections, o.DIDs = w.keys, func() time.Time { return w.now }, tt.collections, tt.dids
			got, problems := gather(t, w, &o)
			equal(t, fmt.Sprintf("%v %v %+v", tt.collections, tt.dids, how), got, want)
			if len(problems) > 0 {
				t.Errorf("%v %v: problems %v", tt.collections, tt.dids, problems)
			}
		}
	}
	for _, bad := range []*stream.Options{{Keys: w.keys, Collections: []string{"app.bsky*"}}, {Keys: w.keys, Collections: []string{"..*"}},
		{Keys: w.keys, DIDs: []syntax.DID{"alice.test"}}, {}, nil} {
		for _, err := range stream.Records(t.Context(), "http://localhost:1", bad) {
			if err == nil || bad != nil && bad.Keys == nil && !errors.Is(err, stream.ErrNoKeys) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	}
}

// Events of an account come in their order, however long the others take.
func TestOrderOfAccounts(t *testing.T) {
	w := newWorld(t)
	var accounts []*writer
	for i := range 6 {
		accounts = append(accounts, w.account(fmt.Sprint("a", i)))
	}
	for i := range 120 {
		a := accounts[i*i%len(accounts)]
		a.write(note(posts, i, fmt.Sprint(i)))
		if i%9 == 0 {
			w.send(&stream.Identity{DID: string(a.did), Time: string(w.time())}) // the next commit looks the key up again
		}
	}
	var calls atomic.Int64
	w.keys.wait = func(context.Context, syntax.DID) {
		for range calls.Add(1) * 7919 % 13 {
			runtime.Gosched()
		}
	}
	o := w.options()
	o.Workers, o.Lookups = 5, 3
	last := map[syntax.DID]int64{}
	n := 0
	var cursor int64
	for ev, err := range stream.ReposFrom(t.Context(), w.after(0), o) {
		if err != nil {
			break
		}
		if ev.Seq <= last[ev.DID] || ev.Problem != nil {
			t.Errorf("event %d of %s after %d: %v", ev.Seq, ev.DID, last[ev.DID], ev.Problem)
		}
		last[ev.DID] = ev.Seq
		if n++; ev.Cursor < cursor || ev.Cursor > int64(n) { // n events can't be more than the first n
			t.Errorf("cursor %d after %d, with %d events", ev.Cursor, cursor, n)
		}
		cursor = ev.Cursor
	}
	if n != len(w.frames) || cursor != int64(n) {
		t.Errorf("%d of %d events, cursor %d", n, len(w.frames), cursor)
	}
}

// Whoever goes on from the cursor misses nothing, wherever it ended and whatever was under way.
func TestResume(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	var accounts []*writer
	for i := range 8 {
		accounts = append(accounts, w.account(fmt.Sprint("a", i)))
	}
	want := map[string]bool{}
	for i := range 300 {
		a := accounts[rnd.IntN(len(accounts))]
		var writes []repo.Write
		for j := range rnd.IntN(3) {
			wr := note([]string{posts, likes}[j], i, fmt.Sprint(i))
			writes = append(writes, wr)
			want[string(a.did)+"/"+wr.Path] = true
		}
		a.write(writes...)
	}
	var mu sync.Mutex
	delays := rand.New(rand.NewPCG(5, 6))
	w.keys.wait = func(context.Context, syntax.DID) {
		mu.Lock()
		n := delays.IntN(300)
		mu.Unlock()
		for range n {
			runtime.Gosched()
		}
	}
	got := map[string]bool{}
	var saved int64
	rounds, again := 0, 0
	for ended := false; !ended; rounds++ {
		o := w.options()
		o.After, o.Workers, o.MaxQueue = &saved, 4, 40
		o.OnCursor = func(seq int64) {
			if seq > saved && rounds%2 == 0 {
				saved = seq
			}
		}
		stop := 1 + rnd.IntN(60)
		var cursor int64
		for r, err := range stream.RecordsFrom(t.Context(), w.after(saved), o) {
			if err != nil {
				ended = errors.Is(err, errEnd)
				break
			}
			if id := string(r.DID) + "/" + string(r.Collection) + "/" + string(r.RecordKey); got[id] {
				again++
			} else {
				got[id] = true
			}
			if cursor = r.Cursor; rounds%2 == 1 {
				saved = max(saved, cursor) // as somebody who saves it after each record
			}
			if stop--; stop == 0 {
				break
			}
		}
		if rounds > 2000 {
			t.Fatal("it doesn't come to an end")
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d of %d records after %d rounds", len(got), len(want), rounds)
	}
	if rounds < 5 {
		t.Errorf("only %d rounds", rounds)
	}
	t.Logf("%d rounds, %d records again", rounds, again)
}

// Who begins with what happens now has a cursor with the first record: not 0, which would ask for everything that the server keeps.
func TestCursorOfFirstRecord(t *testing.T) {
	w := newWorld(t)
	a := w.account("a")
	a.write(note(posts, 1, "before"))
	a.write(note(posts, 2, "one"), note(likes, 2, "two"), note(likes, 3, "three"))
	o := w.options()
	var told []int64
	o.OnCursor = func(seq int64) { told = append(told, seq) }
	for r, err := range stream.RecordsFrom(t.Context(), w.after(1), o) {
		if err != nil || r.Cursor != 1 {
			t.Errorf("%s: cursor %d, %v", r.URI(), r.Cursor, err)
		}
		break
	}
	if !slices.Equal(told, []int64{1}) {
		t.Errorf("told %v", told)
	}
}

// A cursor stays below an account whose key is slow, and the others don't wait for it.
func TestSlowKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		slow, quick := w.account("slow"), w.account("quick")
		slow.write(note(posts, 1, "s"))
		for i := range 5 {
			quick.write(note(posts, i, "q"))
		}
		w.keys.wait = func(ctx context.Context, did syntax.DID) {
			if did == slow.did {
				time.Sleep(10 * time.Second)
			}
		}
		o := w.options()
		var cursors []int64
		o.OnCursor = func(seq int64) { cursors = append(cursors, seq) }
		start := time.Now()
		var got []string
		for r, err := range stream.RecordsFrom(t.Context(), w.after(0), o) {
			if err != nil {
				break
			}
			got = append(got, fmt.Sprintf("%s at %s cursor %d", r.DID[8:9], time.Since(start), r.Cursor))
		}
		equal(t, "records", got, []string{"q at 0s cursor 0", "q at 0s cursor 0", "q at 0s cursor 0", "q at 0s cursor 0", "q at 0s cursor 0", "s at 10s cursor 6"})
		if !slices.Equal(cursors, []int64{6}) {
			t.Errorf("cursors %v", cursors)
		}
	})
}

type passing struct{ error }

func (passing) Temporary() bool { return true }

// A key that can't be had at the moment is asked for until there is no patience left.
func TestKeyErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b, c := w.account("a"), w.account("b"), w.account("c")
		for _, x := range []*writer{a, b, c} {
			x.write(note(posts, 1, "1"))
			x.write(note(posts, 2, "2"))
		}
		down := passing{errors.New("down")}
		w.keys.errs = map[syntax.DID][]error{
			a.did: {fmt.Errorf("asking: %w", down), down, down},
			b.did: {errors.New("no such account")},
			c.did: slices.Repeat([]error{down}, 8), // 250 ms and twice that each time: more than 30 s
		}
		o := w.options()
		start := time.Now()
		got, problems := gather(t, w, o)
		var short []string
		for _, l := range got {
			short = append(short, l[:1])
		}
		// What follows an event that wasn't handed out is the start of a chain, because nothing was known before.
		equal(t, "records", short, []string{"1", "2", "4", "6"})
		equal(t, "problems", problems, []string{"3 identity", "5 identity"})
		if d := time.Since(start); d < 30*time.Second || d > 90*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

func TestKeyRotation(t *testing.T) {
	w := newWorld(t)
	a := w.account("a")
	a.write(note(posts, 1, "old key"))
	a.key = newKey(t, "second")
	w.keys.cached = map[syntax.DID]*keys.PublicKey{a.did: w.keys.keys[a.did]}
	w.keys.set(a.did, a.key.Public())
	a.write(note(posts, 2, "new key"))
	a.write(note(posts, 3, "new key"))
	stranger := newKey(t, "stranger")
	real := a.key
	before := *a
	a.key = stranger
	a.write(note(posts, 4, "forged"))
	a.tree, a.last, a.key = before.tree, before.last, real
	a.write(note(posts, 5, "real"))
	got, problems := gather(t, w, w.options())
	equal(t, "records", got, []string{
		"1 create at://did:web:a.example.com/com.example.post/0001 old key",
		"2 create at://did:web:a.example.com/com.example.post/0002 new key",
		"3 create at://did:web:a.example.com/com.example.post/0003 new key",
		"5 create at://did:web:a.example.com/com.example.post/0005 real",
	})
	equal(t, "problems", problems, []string{"4 rejected signature"})
	equal(t, "asked", w.keys.take(), []string{"did:web:a.example.com#atproto false", "did:web:a.example.com#atproto true", "did:web:a.example.com#atproto true"})

	// An #identity says that the key may be another one.
	w.frames = nil
	b := w.account("b")
	b.write(note(posts, 1, "old key"))
	w.send(&stream.Identity{DID: string(b.did), Time: string(w.time())})
	b.key = newKey(t, "third")
	b.write(note(posts, 2, "new key"))
	w.keys.cached = map[syntax.DID]*keys.PublicKey{b.did: w.keys.keys[b.did]}
	w.keys.set(b.did, b.key.Public())
	if got, problems = gather(t, w, w.options()); len(got) != 2 || len(problems) > 0 {
		t.Errorf("got %v, %v", got, problems)
	}
	equal(t, "asked", w.keys.take(), []string{"did:web:b.example.com#atproto false", "did:web:b.example.com purged", "did:web:b.example.com#atproto false"})

	// An account without a key.
	w.frames = nil
	c := w.account("c")
	w.keys.set(c.did, nil)
	c.write(note(posts, 1, "?"))
	got, problems = gather(t, w, w.options())
	equal(t, "records without a key", got, nil)
	equal(t, "problems without a key", problems, []string{"1 rejected no-signing-key"})
}

func TestGaps(t *testing.T) {
	build := func() (*world, *writer) {
		w := newWorld(t)
		a := w.account("a")
		a.write(note(posts, 1, "1")) // 1
		a.commit(note(posts, 2, "lost"))
		a.write(note(posts, 3, "3")) // 2
		a.write(note(posts, 4, "4")) // 3
		w.send(a.sync())             // 4
		a.write(note(posts, 5, "5")) // 5
		a.commit(note(posts, 6, "lost"))
		w.send(a.sync())             // 6
		a.write(note(posts, 7, "7")) // 7
		return w, a
	}
	seqs := func(lines []string) (s string) {
		for _, l := range lines {
			s += l[:1]
		}
		return s
	}
	w, _ := build()
	got, problems := gather(t, w, w.options())
	if seqs(got) != "12357" {
		t.Errorf("going on: %v", got)
	}
	equal(t, "problems", problems, []string{"2 gap prev-data", "6 gap"})

	o := w.options()
	o.Gaps = stream.GapDrop
	got, problems = gather(t, w, o)
	if seqs(got) != "157" {
		t.Errorf("dropping: %v", got)
	}
	equal(t, "problems", problems, []string{"2 gap prev-data", "3 gap", "4 gap", "6 gap"})

	o = w.options()
	o.Strict = true
	n := 0
	for _, err := range stream.RecordsFrom(t.Context(), w.after(0), o) {
		if p, ok := errors.AsType[*stream.Problem](err); err != nil && (!ok || p.Kind != stream.ProblemGap || p.Seq != 2 || !p.Lost() || p.DID == "" || p.Error() == "") {
			t.Errorf("strict: %v", err)
		}
		n++
	}
	if n != 3 { // the record before, that of the event, which is authentic, and the error
		t.Errorf("strict: %d", n)
	}
}

// The chain is followed through commits that a filter leaves out, without verifying them, and what they say is not
// believed further than that.
func TestChainThroughFilter(t *testing.T) {
	for _, tt := range []struct {
		name     string
		all      bool
		between  func(w *world, a *writer)
		problems []string
	}{
		{"nothing", false, func(*world, *writer) {}, nil},
		{"commits without a wanted change", false, func(w *world, a *writer) { a.write(note(other, 1, "1")); a.write(note(other, 2, "2")) }, nil},
		{"a lost one", false, func(w *world, a *writer) { a.write(note(other, 1, "1")); a.commit(note(other, 2, "2")) }, []string{"3 gap prev-data"}},
		{"a lost one before", false, func(w *world, a *writer) { a.commit(note(other, 1, "1")); a.write(note(other, 2, "2")) }, []string{"3 gap prev-data"}},
		{"one that isn't signed", false, func(w *world, a *writer) {
			key := a.key
			a.key = newKey(t, "stranger")
			before := *a
			a.write(note(other, 1, "forged"))
			a.tree, a.last, a.key = before.tree, before.last, key
		}, []string{"3 gap prev-data"}},
		{"one from the future that isn't signed", false, func(w *world, a *writer) {
			before := *a
			now := w.now
			w.now = now.Add(time.Minute)
			w.clock = syntax.NewTIDClock(3)
			a.key = newKey(t, "stranger")
			a.write(note(other, 1, "forged"))
			w.now, w.clock = now, syntax.NewTIDClock(3)
			a.tree, a.last, a.key = before.tree, before.last, before.key
		}, []string{"3 gap stale-rev"}},
		{"one that hides a wanted change", false, func(w *world, a *writer) {
			c := a.commit(note(other, 1, "1"), note(posts, 9, "hidden"))
			c.Ops = slices.DeleteFunc(c.Ops, func(o stream.Op) bool { return strings.HasPrefix(o.Path, posts) })
			w.send(c)
		}, nil},
		{"one that hides a wanted change, looked for", true, func(w *world, a *writer) {
			c := a.commit(note(other, 1, "1"), note(posts, 9, "hidden"))
			c.Ops = slices.DeleteFunc(c.Ops, func(o stream.Op) bool { return strings.HasPrefix(o.Path, posts) })
			w.send(c)
		}, []string{"2 rejected inversion", "3 gap prev-data"}},
	} {
		w := newWorld(t)
		a := w.account("a")
		a.write(note(posts, 1, "1"))
		tt.between(w, a)
		a.write(note(posts, 2, "2"))
		last := fmt.Sprint(len(w.frames))
		for i, p := range tt.problems {
			if _, rest, _ := strings.Cut(p, " "); i == len(tt.problems)-1 {
				tt.problems[i] = last + " " + rest
			}
		}
		o := w.options()
		o.Collections, o.VerifyAll = []string{posts}, tt.all
		got, problems := gather(t, w, o)
		if len(got) != 2 {
			t.Errorf("%s: records %v", tt.name, got)
		}
		equal(t, tt.name, problems, tt.problems)
	}
}

func TestInactive(t *testing.T) {
	w := newWorld(t)
	a := w.account("a")
	say := func(active bool, status string) {
		w.send(&stream.Account{DID: string(a.did), Time: string(w.time()), Active: active, Status: status})
	}
	a.write(note(posts, 1, "1"))
	say(false, stream.StatusTakendown)
	a.write(note(posts, 2, "2"))
	w.send(a.sync())
	say(true, "")
	w.send(a.sync())
	a.write(note(posts, 3, "3"))
	got, problems := gather(t, w, w.options())
	if len(got) != 2 {
		t.Errorf("records %v", got)
	}
	equal(t, "problems", problems, []string{"3 inactive", "4 inactive", "6 gap"})
}

// None of the messages that package repo knows to be hostile is handed out, and each that is good beside it is.
func TestHostileMessages(t *testing.T) {
	for _, c := range repotest.HostileMessages() {
		for _, good := range []bool{false, true} {
			m := c.Bad
			if good {
				m = c.Good
			}
			var msg stream.Message
			if m.Sync != nil {
				msg = &stream.Sync{DID: m.Sync.DID, Rev: m.Sync.Rev, Time: m.Sync.Time, Blocks: m.Sync.Blocks}
				m.Sync.FrameSize = 0
			} else {
				msg = stream.NewCommit(&m.Commit)
				m.Commit.FrameSize = 0
			}
			m.Prev = nil                                           // nothing is known of the account here
			if m.Options.RefuseFlags || m.Options.MaxFuture != 0 { // which this package doesn't have
				continue
			}
			w := newWorld(t)
			msg.SetSequence(1)
			f, err := stream.ParseFrame(stream.AppendFrame(nil, msg))
			if err != nil {
				continue // it doesn't come through
			}
			w.frames = append(w.frames, f)
			w.keys.set(syntax.DID(msg.Subject()), m.Key)
			_, want := m.Verify()
			o := w.options()
			o.Now = func() time.Time { return m.Options.Now }
			o.Legacy, o.Content, o.SkipSignature = m.Options.Legacy, m.Options.Records, m.Options.SkipSignature
			for ev, err := range stream.ReposFrom(t.Context(), w.after(0), o) {
				if err != nil {
					break
				}
				var gap bool
				if ev.Problem != nil {
					gap = ev.Problem.Kind == stream.ProblemGap && m.Sync != nil
				}
				if (want != nil) != (ev.Problem != nil && !gap) || want != nil && (len(ev.Records) > 0 || ev.Verified) {
					t.Errorf("%s (good %v): %v, want %v", c.Name, good, ev.Problem, want)
				}
				if v, ok := errors.AsType[*repo.VerifyError](want); ok && ev.Problem != nil && ev.Problem.Reason() != v.Reason {
					t.Errorf("%s (good %v): %v, want %v", c.Name, good, ev.Problem, want)
				}
			}
		}
	}
}

// A reader doesn't run ahead of the loop further than it may, and nothing stays behind when the loop is left.
func TestBackPressure(t *testing.T) {
	w := newWorld(t)
	a, b := w.account("a"), w.account("b")
	for i := range 300 {
		[]*writer{a, b}[i%2].write(note(posts, i, strings.Repeat("x", 1000)))
	}
	for _, tt := range []struct {
		name          string
		queue, bytes  int
		unverified    bool
		atMost, least int
	}{
		{"events", 20, 1 << 30, false, 21, 20},
		{"bytes", 1 << 20, 40 << 10, false, 40, 10},
		{"one at a time", 1 << 20, 1, false, 2, 1},
		{"unverified", 20, 1 << 30, true, 22, 20},
	} {
		synctest.Test(t, func(t *testing.T) {
			var read atomic.Int64
			source := func(yield func(stream.Frame, error) bool) {
				for _, f := range w.frames {
					read.Add(1)
					if !yield(f, nil) {
						return
					}
				}
			}
			o := w.options()
			o.MaxQueue, o.MaxBytes, o.Unverified = tt.queue, tt.bytes, tt.unverified
			n := 0
			for _, err := range stream.RecordsFrom(t.Context(), source, o) {
				if err != nil {
					t.Error(err)
				}
				synctest.Wait() // all others wait for this loop
				n++
				if ahead := int(read.Load()) - n; ahead > tt.atMost || n == 1 && ahead < tt.least-1 {
					t.Errorf("%s: %d read, %d handed out", tt.name, read.Load(), n)
				}
				if n == 50 {
					break // the test fails if a goroutine stays
				}
			}
		})
	}
}

// Leaving the loop, or its context, ends everything that it has begun, whatever it is waiting for.
func TestNothingStays(t *testing.T) {
	w := newWorld(t)
	a := w.account("a")
	for i := range 50 {
		a.write(note(posts, i, "1"))
	}
	url, _ := script(t, func(_ string, ws *websocket.Conn) {
		for _, f := range w.frames {
			_ = ws.WriteMessage(websocket.BinaryMessage, f.Raw)
		}
		_, _, _ = ws.ReadMessage()
	})
	before := runtime.NumGoroutine()
	for i := range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		o := w.options()
		o.After, o.MaxQueue = new(int64(0)), 5
		w.keys.wait = nil
		if i%3 == 0 {
			w.keys.wait = func(ctx context.Context, _ syntax.DID) { cancel(); <-ctx.Done() }
		}
		n := 0
		for _, err := range stream.Records(ctx, url, o) {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				break
			}
			if n++; n == i {
				break
			}
			if n == 20 {
				cancel()
			}
		}
		cancel()
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+3; runtime.Gosched() { // those of the server end a little later
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// The cursor moves on when filters leave everything out, once a second and no more often.
func TestSparseCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.account("a")
		for i := range 40 {
			a.write(note(other, i, "x"))
		}
		source := func(yield func(stream.Frame, error) bool) {
			for _, f := range w.frames {
				time.Sleep(100 * time.Millisecond)
				if !yield(f, nil) {
					return
				}
			}
			yield(stream.Frame{}, errEnd)
		}
		o := w.options()
		o.Collections = []string{posts}
		var cursors []int64
		o.OnCursor = func(seq int64) { cursors = append(cursors, seq) }
		for r, err := range stream.RecordsFrom(t.Context(), source, o) {
			if !errors.Is(err, errEnd) {
				t.Errorf("%v, %v", r, err)
			}
		}
		if len(cursors) < 4 || len(cursors) > 5 || cursors[0] < 9 || cursors[0] > 10 || cursors[len(cursors)-1] != 40 {
			t.Errorf("cursors %v", cursors)
		}
	})
}

// What servers say about cursors and slowness has types.
func TestWordsOfTheServer(t *testing.T) {
	w := newWorld(t)
	a := w.account("a")
	a.write(note(posts, 1, "1"))
	url, _ := script(t,
		func(_ string, ws *websocket.Conn) {
			_ = ws.WriteMessage(websocket.BinaryMessage, stream.AppendFrame(nil, &stream.Info{Name: stream.InfoOutdatedCursor}))
			_ = ws.WriteMessage(websocket.BinaryMessage, stream.AppendFrame(nil, &stream.Info{Name: "Weather"}))
			_ = ws.WriteMessage(websocket.BinaryMessage, w.frames[0].Raw)
			_ = ws.WriteMessage(websocket.BinaryMessage, stream.AppendErrorFrame(nil, stream.ErrorConsumerTooSlow, "hurry"))
		},
		func(_ string, ws *websocket.Conn) {
			_ = ws.WriteMessage(websocket.BinaryMessage, stream.AppendErrorFrame(nil, stream.ErrorFutureCursor, ""))
		})
	o := w.options()
	o.Connect = fast()
	var kinds []string
	var last error
	for ev, err := range stream.Repos(t.Context(), url, o) {
		switch {
		case err != nil:
			last = err
		case ev.Problem != nil:
			kinds = append(kinds, string(ev.Problem.Kind))
			if ev.Problem.Lost() != (ev.Problem.Kind == stream.ProblemOutdated) || ev.Problem.Error() == "" {
				t.Errorf("%v", ev.Problem)
			}
			if ev.Problem.Kind == stream.ProblemTooSlow && !errors.Is(ev.Problem, stream.ErrTooSlow) {
				t.Errorf("%v", ev.Problem)
			}
		default:
			kinds = append(kinds, ev.Message.FrameType())
		}
	}
	slices.Sort(kinds)
	equal(t, "events", kinds, []string{"#commit", "#info", "outdated-cursor", "too-slow"})
	if !errors.Is(last, stream.ErrFutureCursor) || errors.Is(last, stream.ErrTooSlow) {
		t.Errorf("ended with %v", last)
	}
}

// A frame that breaks the framing again and again is no reason to ask for it without a pause.
func TestPoisonedFrame(t *testing.T) {
	w := newWorld(t)
	a := w.account("a")
	a.write(note(posts, 1, "1"))
	url, conns := script(t, func(_ string, ws *websocket.Conn) {
		_ = ws.WriteMessage(websocket.BinaryMessage, w.frames[0].Raw)
		_ = ws.WriteMessage(websocket.BinaryMessage, []byte{0xa0})
	})
	o := fast()
	o.MaxAttempts = 4
	o.After = new(int64(0))
	if got, err := follow(t, url, o, -1); got != "1" || err == nil || conns.Load() != 5 {
		t.Errorf("%q, %v after %d connections", got, err, conns.Load())
	}
}

// A message that can't be read is told of, and an account's name that is none.
func TestMalformed(t *testing.T) {
	w := newWorld(t)
	a := w.account("a")
	c := a.commit(note(posts, 1, "1"))
	c.Repo = "nobody"
	w.send(c)
	bad, err := stream.ParseFrame(append(stream.AppendHeader(nil, stream.TypeCommit), 0xa1, 0x63, 's', 'e', 'q', 2))
	if err != nil {
		t.Fatal(err)
	}
	w.frames = append(w.frames, bad)
	for _, unverified := range []bool{false, true} {
		o := w.options()
		o.Unverified = unverified
		got, problems := gather(t, w, o)
		equal(t, "records", got, nil)
		equal(t, "problems", problems, []string{"1 rejected did-syntax", "2 malformed"})
	}
	// Unverified, the record still has to be the one that the operation names.
	w = newWorld(t)
	a = w.account("a")
	c = a.commit(note(posts, 1, "1"), note(likes, 1, "2"))
	c.Ops = slices.Clone(c.Ops)
	c.Ops[0].CID = cid.Sum(cid.DagCBOR, []byte("other"))
	w.send(c)
	c = a.commit(note(posts, 2, "1"), note(likes, 2, "2"))
	c.Ops = slices.Clone(c.Ops)
	c.Ops[0].Path = "no path"
	w.send(c)
	got, problems := gather(t, w, &stream.Options{Unverified: true})
	equal(t, "problems", problems, []string{"1 rejected missing-record", "2 rejected path-syntax"})
	if len(got) != 1 {
		t.Errorf("records %v", got)
	}
}

// Real messages, which are from before sync 1.1.
func TestRealMessages(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"4621317030", "4621317332", "4621332152", "4623075231"} {
		f, err := stream.ParseFrame(fixtureFrame(t, n))
		if err != nil {
			t.Fatal(err)
		}
		w.frames = append(w.frames, f)
	}
	unverified, problems := gather(t, w, &stream.Options{Unverified: true})
	if len(problems) > 0 || len(unverified) < 4 {
		t.Errorf("records %v, problems %v", unverified, problems)
	}
	got, problems := gather(t, w, &stream.Options{SkipSignature: true, Legacy: repo.LegacyAccept})
	equal(t, "records", got, unverified)
	equal(t, "problems", problems, nil)
	if got, problems = gather(t, w, &stream.Options{SkipSignature: true}); len(got) == 4 || len(problems) == 0 {
		t.Errorf("records %v, problems %v", got, problems)
	}
}

func fixtureFrame(t testing.TB, n string) []byte {
	payload, err := data.AppendCBOR(nil, fixtures.Read(t, "firehose/firehose_commit_"+n+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return append(stream.AppendHeader(nil, stream.TypeCommit), payload...)
}

// FuzzRepos holds what comes out of any frame against what it may be.
func FuzzRepos(f *testing.F) {
	w := newWorld(f)
	a := w.account("a")
	a.write(note(posts, 1, "one"), note(likes, 1, "x"))
	a.write(note(posts, 1, ""), note(likes, 1, "y"))
	w.send(a.sync())
	for _, fr := range w.frames {
		f.Add(fr.Raw)
	}
	for _, m := range samples() {
		f.Add(stream.AppendFrame(nil, m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := stream.ParseFrame(b)
		if err != nil || fr.Op != stream.OpMessage {
			return
		}
		frames := func(yield func(stream.Frame, error) bool) {
			_ = yield(w.frames[0], nil) && yield(fr, nil)
		}
		for _, o := range []*stream.Options{{Unverified: true}, {SkipSignature: true, Now: w.options().Now}, {SkipSignature: true, Collections: []string{likes}, Now: w.options().Now}} {
			for ev, err := range stream.ReposFrom(t.Context(), frames, o) {
				if err != nil {
					t.Fatal(err)
				}
				if ev.Verified {
					t.Error("verified without a signature")
				}
				for _, r := range ev.Records {
					if r.CID.Defined() && !r.CID.Verify(r.Record) || !syntax.ValidNSID(r.Collection) || !syntax.ValidRecordKey(r.RecordKey) {
						t.Errorf("%+v", r)
					}
				}
			}
		}
	})
}
