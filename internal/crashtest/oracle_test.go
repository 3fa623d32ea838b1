//go:build unix

package crashtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/repo"
)

// oracle knows what was asked of the network and what the answers were. Writes have contents that come once, so that their CIDs say
// which of them a commit holds.
type oracle struct {
	mu       sync.Mutex
	accounts []*account
	pending  []*write              // sent, and neither refused nor found in the stream
	byCommit map[string]*write     // acknowledged, by commit
	records  map[cid.CID]*content  // everything that was ever sent
	imports  map[cid.CID]*imported // by tree
	dirty    map[string]bool       // accounts that something may have happened to since the last check

	acked, unknown, became int // writes: acknowledged; left without an answer; of these, those that happened
}

// operation is a record's change. An undefined CID is a deletion, an empty key one that the server chooses.
type operation struct {
	collection, rkey string
	cid              cid.CID
}

// write is a call that makes one commit, or none.
type write struct {
	did   string
	ops   []operation
	what  string
	found bool
}

// content is what the tests need to know of a record.
type content struct {
	links []link
	blobs []string
}

// link is a link in a record: where it is and what to.
type link struct{ source, target string }

// imported is a repository that was given to importRepo.
type imported struct {
	did     string
	records map[string]cid.CID
}

// account is an account of the PDS as its holder knows it.
type account struct {
	handle, password string // with which it was made
	sure             bool   // somebody said that it exists
	did, access      string

	mu      sync.Mutex
	refresh []string // tokens of which one has to work: the newest, and the one before while nobody said that it was taken
	handles []string // that it has: one, or two while a change is unsure
	uploads []object // blobs that are there and in no record
}

type object = map[string]any

func newOracle() *oracle {
	return &oracle{
		byCommit: map[string]*write{}, records: map[cid.CID]*content{}, imports: map[cid.CID]*imported{}, dirty: map[string]bool{},
	}
}

// record makes a record known and returns its CID.
func (o *oracle) record(collection string, rec object) cid.CID {
	b, err := json.Marshal(rec)
	if err != nil {
		panic(err)
	}
	b, err = data.AppendCBOR(nil, b)
	if err != nil {
		panic(err)
	}
	c := cid.Sum(cid.DagCBOR, b)
	k := &content{}
	k.walk(collection+":", "", rec)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.records[c] = k
	return c
}

// walk collects links and blobs in the plainest way.
func (k *content) walk(collection, path string, v any) {
	switch v := v.(type) {
	case object:
		if v["$type"] == "blob" {
			k.blobs = append(k.blobs, v["ref"].(object)["$link"].(string))
		}
		for name, e := range v {
			k.walk(collection, path+"."+name, e)
		}
	case []any:
		for _, e := range v {
			step := "[]"
			if m, ok := e.(object); ok && m["$type"] != nil {
				step = "[" + m["$type"].(string) + "]"
			}
			k.walk(collection, path+step, e)
		}
	case string:
		for _, scheme := range []string{"at://", "did:", "https://"} {
			if l := (link{collection + strings.TrimPrefix(path, "."), v}); strings.HasPrefix(v, scheme) && !slices.Contains(k.links, l) {
				k.links = append(k.links, l)
			}
		}
	}
}

// sending notes that a write is about to be sent.
func (o *oracle) sending(did, what string, ops ...operation) *write {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := &write{did: did, ops: ops, what: what}
	o.pending = append(o.pending, w)
	o.dirty[did] = true
	return w
}

func (o *oracle) touch(did string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dirty[did] = true
}

// answered notes that a write was acknowledged, with the commit that was named. The event of the commit may already be known.
func (o *oracle) answered(w *write, commit string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if commit == "" {
		return fmt.Errorf("%s: the answer names no commit", w.what)
	}
	if other := o.byCommit[commit]; other != nil {
		return fmt.Errorf("%s: the answer names the commit of %s", w.what, other.what)
	}
	o.acked++
	o.byCommit[commit] = w
	o.drop(w)
	return nil
}

// refused notes that a write did not happen.
func (o *oracle) refused(w *write) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(w)
}

func (o *oracle) drop(w *write) {
	if i := slices.Index(o.pending, w); i >= 0 {
		o.pending = slices.Delete(o.pending, i, i+1)
	}
}

// commit takes an event of the PDS's stream: it must be a write that was sent, whole, and that was not seen before.
func (o *oracle) commit(did, commit string, ops []repo.Op) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.byCommit[commit]
	if w == nil {
		for _, p := range o.pending {
			if p.matches(did, ops) == nil {
				w = p
				break
			}
		}
		if w == nil {
			return fmt.Errorf("a commit of %s that nobody asked for, or that is not whole: %v", did, ops)
		}
		o.became++
		o.drop(w)
	}
	if w.found {
		return fmt.Errorf("%s is in the stream twice", w.what)
	}
	w.found = true
	if err := w.matches(did, ops); err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	return nil
}

func (w *write) matches(did string, ops []repo.Op) error {
	if did != w.did || len(ops) != len(w.ops) {
		return fmt.Errorf("became %d operations of %s, not %d", len(ops), did, len(w.ops))
	}
	left := slices.Clone(w.ops)
	for _, op := range ops {
		i := slices.IndexFunc(left, func(l operation) bool {
			collection, rkey, _ := strings.Cut(op.Path, "/")
			return l.collection == collection && (l.rkey == rkey || l.rkey == "") && l.cid == op.CID
		})
		if i < 0 {
			return fmt.Errorf("%s %s (%s) was not asked for", op.Action, op.Path, op.CID)
		}
		left = slices.Delete(left, i, i+1)
	}
	return nil
}

// settle is called when the whole stream has been read after a crash: every acknowledged write was in it, and what was not and has no
// answer never happened.
func (o *oracle) settle() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for c, w := range o.byCommit {
		if !w.found {
			errs = append(errs, fmt.Errorf("lost: %s of %s was acknowledged with commit %s", w.what, w.did, c))
			delete(o.byCommit, c)
		}
	}
	o.unknown += len(o.pending)
	o.pending = nil
	return errors.Join(errs...)
}

// importing notes a repository that is about to be imported.
func (o *oracle) importing(did string, tree cid.CID, records map[string]cid.CID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.imports[tree] = &imported{did, records}
	o.dirty[did] = true
}

func (o *oracle) importOf(did string, tree cid.CID) map[string]cid.CID {
	o.mu.Lock()
	defer o.mu.Unlock()
	if im := o.imports[tree]; im != nil && im.did == did {
		return im.records
	}
	return nil
}

func (o *oracle) content(c cid.CID) *content {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.records[c]
}

func (o *oracle) add(a *account) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.accounts = append(o.accounts, a)
}

// all returns the accounts made so far.
func (o *oracle) all() []*account {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.accounts)
}

// takeDirty returns the accounts that a check has to look at.
func (o *oracle) takeDirty() map[string]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.dirty
	o.dirty = map[string]bool{}
	return d
}
