package reposync

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

func rev(n int) syntax.TID { return syntax.NewTID(1_700_000_000_000_000+int64(n), 0) }
func tree(n int) cid.CID   { return cid.Sum(cid.DagCBOR, []byte{byte(n)}) }

// commitOf is a commit after revision n-1 to revision n.
func commitOf(n int) *verified {
	v := &verified{rev: rev(n), since: rev(n - 1), data: tree(n), prevData: tree(n - 1)}
	if n == 1 {
		v.since, v.prevData, v.whole = "", repo.EmptyRoot, true
	}
	return v
}

func TestCommitStep(t *testing.T) {
	at := func(s State, n int) Repo {
		r := Repo{State: s, Active: true}
		if n > 0 {
			r.Rev, r.Data = rev(n), tree(n)
		}
		return r
	}
	torn := at(Desynchronized, 3)
	torn.Torn = true
	away := at(Synchronized, 3)
	away.Active = false
	for _, c := range []struct {
		name  string
		r     Repo
		v     *verified
		want  verdict
		after State
		rev   int
		wants int
	}{
		{"next", at(Synchronized, 3), commitOf(4), take, Synchronized, 4, 0},
		{"again", at(Synchronized, 3), commitOf(3), ignore, Synchronized, 3, 0},
		{"older", at(Synchronized, 3), commitOf(2), ignore, Synchronized, 3, 0},
		{"gap", at(Synchronized, 3), commitOf(6), ignore, Desynchronized, 3, 6},
		{"first of a new repository", at(Pending, 0), commitOf(1), take, Synchronized, 1, 0},
		{"later of a new repository", at(Pending, 0), commitOf(5), ignore, Pending, 0, 5},
		{"while behind", at(Desynchronized, 3), commitOf(4), ignore, Desynchronized, 3, 4},
		{"while failed", at(Failed, 3), commitOf(4), ignore, Failed, 3, 4},
		{"while fetching", at(Resyncing, 3), commitOf(4), hold, Resyncing, 3, 4},
		{"first while torn", torn, commitOf(1), ignore, Desynchronized, 3, 1},
		{"inactive", away, commitOf(4), drop, Synchronized, 3, 0},
	} {
		r := c.r
		got := r.commit(c.v)
		want := Repo{State: c.after, Rev: c.r.Rev}
		if c.rev > 0 {
			want.Rev = rev(c.rev)
		}
		if c.wants > 0 {
			want.Want = rev(c.wants)
		}
		if got != c.want || r.State != want.State || r.Rev != want.Rev || r.Want != want.Want {
			t.Errorf("%s: verdict %d and %+v, want %d and %+v", c.name, got, r, c.want, want)
		}
	}
}

func TestAccountStep(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	r := Repo{State: Synchronized, Active: true, Rev: rev(3), Data: tree(3)}
	if r.account(false, "", now, time.Second) || r.Active || r.Status != stream.StatusDeactivated || r.Rev != rev(3) || r.wantsFetch() {
		t.Errorf("deactivated: %+v", r)
	}
	if r.account(true, "", now, time.Second) || !r.Active || r.State != Desynchronized || !r.Due.Equal(now.Add(time.Second)) {
		t.Errorf("reactivated: %+v", r)
	}
	if r.sync(rev(3), tree(3)) != take || r.State != Synchronized {
		t.Errorf("unchanged: %+v", r)
	}
	if !r.account(false, stream.StatusDeleted, now, 0) || r.Rev != "" || r.State != Pending {
		t.Errorf("deleted: %+v", r)
	}
	if r.account(false, stream.StatusDeleted, now, 0) {
		t.Error("purged twice")
	}
}

func TestFetchSteps(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	o := Options{RetryMin: time.Minute, RetryMax: time.Hour, Rand: func() float64 { return 0 }}
	r := NewRepo("did:web:example.com")
	for n := range 100 {
		r.State, r.Due = Failed, time.Time{}
		if !r.claim(now, 1000) || r.State != Resyncing {
			t.Fatalf("claim: %+v", r)
		}
		r.fail(errors.New("no"), now, 0, &o)
		want := time.Hour
		if n < 6 {
			want = time.Minute << n
		}
		if r.Due.Sub(now) != want || r.State != Failed {
			t.Fatalf("after %d failures due in %s, want %s", n+1, r.Due.Sub(now), want)
		}
	}
	if r.claim(now, 1000) {
		t.Error("claimed before it was due")
	}
	retries := r.Retries
	r.fail(errors.New("slow down"), now, time.Second, &o)
	if r.Retries != retries || r.Due.Sub(now) != time.Second {
		t.Errorf("being asked for patience counts: %+v", r)
	}
	r = NewRepo("did:web:example.com")
	for n := range 6 {
		r.State = Desynchronized
		if ok := r.claim(now, 5); ok != (n < 5) {
			t.Errorf("fetch %d in a minute: %v", n+1, ok)
		}
	}
	if r.Due.Sub(now) != time.Minute || !r.claim(now.Add(time.Minute), 5) {
		t.Errorf("%+v", r)
	}
	r.Want = rev(9)
	r.advance(rev(7), tree(7))
	if r.settle(); r.State != Desynchronized {
		t.Errorf("an old copy is %s", r.State)
	}
	r.advance(rev(9), tree(9))
	if r.settle(); r.State != Synchronized || r.Want != "" || r.Fetched == 0 {
		t.Errorf("%+v", r)
	}
}

// TestSteps lets random steps come and looks that none leads to a copy that is taken for what it isn't: the model is what
// the records would be.
func TestSteps(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.UnixMilli(1_700_000_000_000)
	o := Options{RetryMin: time.Second, RetryMax: time.Minute, Rand: rnd.Float64}
	for range 2000 {
		r := NewRepo("did:web:example.com")
		dead := false        // was deleted once
		head, copied := 1, 0 // revision of the host, and that of the records; -1: something in between
		for range 60 {
			now = now.Add(time.Second)
			switch rnd.IntN(9) {
			case 0, 1, 2:
				head++
				if r.commit(commitOf(head)) == take {
					if head != 1 && copied != head-1 {
						t.Fatalf("commit %d was taken on top of %d: %+v", head, copied, r)
					}
					copied = head
				}
			case 3:
				if n := 1 + rnd.IntN(head); r.commit(commitOf(n)) == take {
					if copied != n-1 || n == 1 && dead {
						t.Fatalf("commit %d was taken on top of %d: %+v", n, copied, r)
					}
					copied = n
				}
			case 4:
				head++ // nobody hears of it
			case 5:
				r.sync(rev(head), tree(head))
			case 6:
				active := rnd.IntN(2) == 0
				status := ""
				if !active && rnd.IntN(3) == 0 {
					status = stream.StatusDeleted
				}
				if r.account(active, status, now, time.Second); status != "" {
					dead, copied = dead || copied > 0, 0
				}
			default:
				if !r.claim(now, 100) {
					continue
				}
				switch rnd.IntN(4) {
				case 0:
					r.Torn, copied = true, -1
					r.fail(errors.New("cut off"), now, 0, &o)
				case 1:
					r.fail(errors.New("no answer"), now, 0, &o)
				default:
					r.advance(rev(head), tree(head))
					r.settle()
					copied = head
				}
			}
			if r.State == Synchronized && (r.Want != "" || copied < 1 || r.Rev != rev(copied) || r.Data != tree(copied)) {
				t.Fatalf("the records are of %d, and the state is %+v", copied, r)
			}
		}
	}
}

func FuzzDecodeRepo(f *testing.F) {
	full := Repo{DID: "did:web:example.com", State: Failed, Active: true, Status: "x", Rev: rev(1), Data: tree(1), Torn: true, Want: rev(2), Seq: 7,
		Due: time.UnixMilli(5), Retries: 3, Error: "why", Fetched: 2, FetchedSince: time.UnixMilli(9)}
	f.Add(full.Append(nil))
	f.Add((&Repo{State: Pending}).Append(nil))
	f.Add([]byte{0x8d})
	if got, err := DecodeRepo(full.DID, full.Append(nil)); err != nil || !reflect.DeepEqual(got, full) {
		f.Fatalf("%+v, %v", got, err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRepo("did:web:example.com", b)
		if err != nil {
			return
		}
		again, err := DecodeRepo(r.DID, r.Append(nil))
		if err != nil || r.State != Resyncing && !reflect.DeepEqual(again, r) {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
	})
}
