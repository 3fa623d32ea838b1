//go:build unix

package crashtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// catchUp is how long relay and index may take to be where the PDS is.
const catchUp = 30 * time.Second

// checker compares a network that came up again with what its users know.
type checker struct {
	o          *oracle
	rng        *rand.Rand
	pds, relay *follower
	keys       map[string]*keys.PublicKey
	logs       map[string][]string // of the PLC directory: what each DID's log held
	asked      map[link][]string   // pairs of source and target that the index was asked for, and its answers in their order
	marker     *account

	c    *client
	urls urls
}

func newChecker(o *oracle, rng *rand.Rand) *checker {
	k := &checker{o: o, rng: rng, keys: map[string]*keys.PublicKey{}, logs: map[string][]string{}, asked: map[link][]string{}}
	k.pds, k.relay = newFollower("PDS", k.key), newFollower("relay", k.key)
	k.pds.onCommit, k.pds.importOf, k.relay.importOf = o.commit, o.importOf, o.importOf
	return k
}

// key asks the PLC directory for an account's signing key.
func (k *checker) key(did string) (*keys.PublicKey, error) {
	if key := k.keys[did]; key != nil {
		return key, nil
	}
	a, err := k.c.call(context.Background(), http.MethodGet, k.urls.PLC+"/"+did+"/data", "", "", nil)
	if err != nil {
		return nil, err
	}
	methods, _ := a.json()["verificationMethods"].(object)
	s, _ := methods["atproto"].(string)
	key, err := keys.ParseDIDKey(s)
	if err != nil {
		return nil, fmt.Errorf("signing key of %s: %w: %s", did, err, a)
	}
	k.keys[did] = key
	return key, nil
}

// check compares everything that may have changed since the last check; if thorough, everything there is. Nothing else uses the
// network meanwhile.
func (k *checker) check(ctx context.Context, c *client, u urls, thorough bool) error {
	k.c, k.urls = c, u
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r := &round{&load{o: k.o}, c, u}
	if err := k.accounts(ctx, r); err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	dirty := k.o.takeDirty()
	if err := k.streams(ctx, r, thorough); err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	var errs []error
	for _, a := range k.o.all() {
		if !thorough && !dirty[a.did] {
			continue
		}
		if err := k.repository(ctx, a, thorough); err != nil {
			errs = append(errs, fmt.Errorf("repository of %s (%s): %w", a.did, a.handle, err))
		}
		if err := k.identity(ctx, r, a); err != nil {
			errs = append(errs, fmt.Errorf("identity of %s (%s): %w", a.did, a.handle, err))
		}
	}
	if err := k.lists(ctx); err != nil {
		errs = append(errs, fmt.Errorf("lists: %w", err))
	}
	if err := k.index(ctx); err != nil {
		errs = append(errs, fmt.Errorf("link index: %w", err))
	}
	return errors.Join(errs...)
}

// accounts finds out what became of sign-ups, and that sessions hold.
func (k *checker) accounts(ctx context.Context, r *round) error {
	for _, a := range k.o.all() {
		if !a.sure {
			got, err := k.c.post(ctx, k.urls.PDS, "com.atproto.server.createSession", "", object{"identifier": a.handle, "password": a.password})
			switch {
			case err != nil:
				return err
			case got.ok(): // it was made, and the answer was lost
				a.session(got)
				k.o.touch(a.did)
			default:
				if err := signUp(ctx, r, a); err != nil {
					return fmt.Errorf("trying again to sign up: %w", err)
				}
			}
		}
		got, err := k.c.call(ctx, http.MethodGet, k.urls.PDS+"/xrpc/com.atproto.server.getSession", a.access, "", nil)
		if err != nil {
			return err
		}
		if !got.ok() || got.json()["did"] != a.did {
			return fmt.Errorf("getSession of %s: %s", a.did, got)
		}
		if len(a.refresh) > 1 || a == k.marker {
			if err := (&refresher{a: a}).step(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// streams reads both streams to their ends, which are known by a write of our own.
func (k *checker) streams(ctx context.Context, r *round, thorough bool) error {
	rec := object{"$type": noteNSID, "text": "marker", "n": k.rng.Int64N(1 << 50)}
	w := writer{a: k.marker}
	rkey := fmt.Sprintf("marker-%d", rec["n"])
	op := operation{noteNSID, rkey, k.o.record(noteNSID, rec)}
	got, err := r.write(ctx, w.a, "com.atproto.repo.createRecord", object{"collection": noteNSID, "rkey": rkey, "record": rec}, op)
	if err != nil {
		return fmt.Errorf("marker: %w", err)
	}
	from := func(f *follower) int64 {
		if thorough {
			return 0
		}
		return max(0, f.last-50)
	}
	end := func(f *follower) func() bool {
		return func() bool { return f.live(k.marker.did).commit.String() == got.commit() }
	}
	if err := k.pds.fold(ctx, k.urls.PDS, from(k.pds), end(k.pds)); err != nil {
		return err
	}
	if err := k.o.settle(); err != nil {
		return err
	}
	// The relay deals with different accounts at once: it is at the end when it is for each of them.
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	// Where a change of a handle was cut short, the directory and the PDS may disagree until it is made again, and the relay says so.
	unsure := map[string]bool{}
	for _, a := range k.o.all() {
		unsure[a.did] = len(a.handles) > 1
	}
	behind := func() (out []string) {
		for did, r := range k.pds.repos {
			p := k.relay.live(did)
			named := p.handle == r.handle || unsure[did] && p.handle == stream.HandleInvalid
			if p.commit != r.commit || p.status != r.status || !named {
				out = append(out, fmt.Sprintf("%s: rev %s status %q handle %q, and at the PDS rev %s status %q handle %q",
					did, k.relay.rev(did), p.status, p.handle, k.pds.rev(did), r.status, r.handle))
			}
		}
		return out
	}
	if err := k.relay.fold(ctx, k.urls.Relay, from(k.relay), func() bool { return len(behind()) == 0 }); err != nil {
		return fmt.Errorf("%w; the relay differs in %d accounts: %s", err, len(behind()), strings.Join(behind(), "; "))
	}
	for did, r := range k.pds.repos {
		p := k.relay.repos[did]
		if !slices.Equal(p.commits, r.commits) {
			return fmt.Errorf("%s: %d commits at the relay, %d at the PDS", did, len(p.commits), len(r.commits))
		}
		if !maps.Equal(p.records, r.records) {
			return fmt.Errorf("%s: the fold of the relay's stream has %d records, that of the PDS %d", did, len(p.records), len(r.records))
		}
	}
	return nil
}

// repository compares an account's repository, in all the ways in which it can be read, with the fold of the stream.
func (k *checker) repository(ctx context.Context, a *account, thorough bool) error {
	want := k.pds.live(a.did)
	status, err := k.c.get(ctx, k.urls.PDS, "com.atproto.sync.getRepoStatus", "did", a.did)
	if err != nil {
		return err
	}
	if active, _ := status.json()["active"].(bool); !status.ok() || active != (want.status == "") {
		return fmt.Errorf("getRepoStatus: %s, and the stream says %q", status, want.status)
	}
	export, err := k.c.get(ctx, k.urls.PDS, "com.atproto.sync.getRepo", "did", a.did)
	if err != nil {
		return err
	}
	if want.status != "" {
		k.o.touch(a.did) // later
		if export.name() != "RepoDeactivated" {
			return fmt.Errorf("getRepo of a deactivated account: %.200s", export)
		}
		return nil
	}
	if !export.ok() {
		return fmt.Errorf("getRepo: %s", export)
	}
	key, err := k.key(a.did)
	if err != nil {
		return err
	}
	rd, err := repo.Open(bytes.NewReader(export.body), repo.ReadOptions{Key: key, DID: syntax.DID(a.did), Now: time.Now(), Records: repo.RecordsStrict})
	if err != nil {
		return fmt.Errorf("getRepo: %w", err)
	}
	have := map[string]cid.CID{}
	for rec, err := range rd.Records() {
		if err != nil {
			return fmt.Errorf("getRepo: %w", err)
		}
		have[string(rec.Path)] = rec.CID
	}
	if rep := rd.Report(); !rep.OK() || rep.Unlinked > 0 {
		return fmt.Errorf("getRepo: %+v, %d blocks that nothing links to", rep.Failed(), rep.Unlinked)
	}
	if err := differ("getRepo", have, want.records); err != nil {
		return err
	}
	latest, err := k.c.get(ctx, k.urls.PDS, "com.atproto.sync.getLatestCommit", "did", a.did)
	if err != nil {
		return err
	}
	if v := latest.json(); v["cid"] != rd.CommitCID().String() || v["rev"] != string(rd.Commit().Rev) || rd.CommitCID() != want.commit {
		return fmt.Errorf("getLatestCommit is %s, getRepo gives %s, and the stream ends at %s", latest, rd.CommitCID(), want.commit)
	}
	if err := k.listed(ctx, a, want); err != nil {
		return err
	}
	if err := k.blobs(ctx, a, want, thorough); err != nil {
		return err
	}
	return k.sample(ctx, a, want, key)
}

func differ(what string, have, want map[string]cid.CID) error {
	if maps.Equal(have, want) {
		return nil
	}
	var out []string
	for path, c := range want {
		if have[path] != c {
			out = append(out, fmt.Sprintf("%s is %s, want %s", path, have[path], c))
		}
	}
	for path, c := range have {
		if _, ok := want[path]; !ok {
			out = append(out, fmt.Sprintf("%s (%s) should not be there", path, c))
		}
	}
	slices.Sort(out)
	return fmt.Errorf("%s has %d records, the stream's fold %d: %s", what, len(have), len(want), strings.Join(out[:min(10, len(out))], "; "))
}

// listed compares listRecords.
func (k *checker) listed(ctx context.Context, a *account, want *hosted) error {
	described, err := k.c.get(ctx, k.urls.PDS, "com.atproto.repo.describeRepo", "repo", a.did)
	if err != nil {
		return err
	}
	collections, _ := described.json()["collections"].([]any)
	have := map[string]cid.CID{}
	for _, c := range collections {
		items, err := k.c.pages(ctx, k.urls.PDS, "com.atproto.repo.listRecords", "records", "repo", a.did, "collection", c.(string), "limit", "100")
		if err != nil {
			return err
		}
		for _, it := range items {
			uri, _ := it.(object)["uri"].(string)
			text, _ := it.(object)["cid"].(string)
			c, err := cid.Parse(text)
			if err != nil {
				return fmt.Errorf("listRecords: %v", it)
			}
			have[strings.TrimPrefix(uri, "at://"+a.did+"/")] = c
		}
	}
	return differ("listRecords", have, want.records)
}

// blobs compares listBlobs and the blobs themselves with what the records reference.
func (k *checker) blobs(ctx context.Context, a *account, want *hosted, thorough bool) error {
	refs := map[string]bool{}
	for _, c := range want.records {
		if r := k.o.content(c); r != nil {
			for _, b := range r.blobs {
				refs[b] = true
			}
		}
	}
	items, err := k.c.pages(ctx, k.urls.PDS, "com.atproto.sync.listBlobs", "cids", "did", a.did, "limit", "500")
	if err != nil {
		return err
	}
	for i, it := range items {
		b, _ := it.(string)
		if !refs[b] {
			return fmt.Errorf("listBlobs has %s, which no record references", b)
		}
		delete(refs, b)
		if !thorough && k.rng.IntN(len(items)) > 10 && i < len(items)-5 {
			continue
		}
		got, err := k.c.get(ctx, k.urls.PDS, "com.atproto.sync.getBlob", "did", a.did, "cid", b)
		if err != nil {
			return err
		}
		if !got.ok() || cid.Sum(cid.Raw, got.body).String() != b {
			return fmt.Errorf("getBlob of %s: %.200s", b, got)
		}
	}
	if len(refs) > 0 {
		return fmt.Errorf("listBlobs lacks %v", slices.Collect(maps.Keys(refs)))
	}
	return nil
}

// sample reads a few records by themselves, with and without proof, and a deleted one.
func (k *checker) sample(ctx context.Context, a *account, want *hosted, key *keys.PublicKey) error {
	paths := []string{"com.example.crash.none/self"}
	for path := range want.records { // maps begin anywhere
		if paths = append(paths, path); len(paths) == 6 {
			break
		}
	}
	for path := range want.gone {
		paths = append(paths, path)
		break
	}
	for _, path := range paths {
		c := want.records[path]
		collection, rkey, _ := strings.Cut(path, "/")
		got, err := k.c.get(ctx, k.urls.PDS, "com.atproto.repo.getRecord", "repo", a.did, "collection", collection, "rkey", rkey)
		if err != nil {
			return err
		}
		if c.Defined() && got.json()["cid"] != c.String() || !c.Defined() && got.name() != "RecordNotFound" {
			return fmt.Errorf("getRecord of %s: %s, want %s", path, got, c)
		}
		proof, err := k.c.get(ctx, k.urls.PDS, "com.atproto.sync.getRecord", "did", a.did, "collection", collection, "rkey", rkey)
		if err != nil {
			return err
		}
		p, err := repo.VerifyProof(proof.body, syntax.DID(a.did), path, key)
		if err != nil {
			return fmt.Errorf("proof of %s: %w", path, err)
		}
		if p.CID != c {
			return fmt.Errorf("proof of %s: it is %s, want %s", path, p.CID, c)
		}
	}
	return nil
}

// identity checks an account's log in the PLC directory, and its handle everywhere.
func (k *checker) identity(ctx context.Context, r *round, a *account) error {
	audit, err := k.c.call(ctx, http.MethodGet, k.urls.PLC+"/"+a.did+"/log/audit", "", "", nil)
	if err != nil {
		return err
	}
	var raw []json.RawMessage
	var entries []plc.Entry
	if err := errors.Join(json.Unmarshal(audit.body, &raw), json.Unmarshal(audit.body, &entries)); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	was := k.logs[a.did]
	if len(raw) < len(was) {
		return fmt.Errorf("the audit log had %d entries, and has %d", len(was), len(raw))
	}
	var now []string
	for i, e := range raw {
		if i < len(was) && was[i] != string(e) {
			return fmt.Errorf("entry %d of the audit log was %s, and is %s", i, was[i], e)
		}
		now = append(now, string(e))
	}
	k.logs[a.did] = now
	if _, active, err := plc.Verify(syntax.DID(a.did), entries); err != nil || !active {
		return fmt.Errorf("audit log: active is %v: %w", active, err)
	}

	// A change of handle without an answer can be made again, and is then made whole.
	a.mu.Lock()
	handles := slices.Clone(a.handles)
	a.mu.Unlock()
	has := func() (string, error) {
		got, err := k.c.get(ctx, k.urls.PDS, "com.atproto.repo.describeRepo", "repo", a.did)
		if err != nil {
			return "", err
		}
		h, _ := got.json()["handle"].(string)
		if got.name() == "RepoDeactivated" {
			h = handles[0]
		}
		return h, nil
	}
	h, err := has()
	if err != nil {
		return err
	}
	if !slices.Contains(handles, h) {
		return fmt.Errorf("its handle is %q, want one of %v", h, handles)
	}
	if len(handles) > 1 {
		last := handles[len(handles)-1]
		got, err := r.ask(ctx, a, "com.atproto.identity.updateHandle", object{"handle": last})
		if err != nil {
			return err
		}
		if !got.ok() {
			return fmt.Errorf("changing the handle again: %s", got)
		}
		k.o.touch(a.did)
		if h, err = has(); err != nil || h != last {
			return errors.Join(err, fmt.Errorf("its handle is %q after it was changed again to %q", h, last))
		}
		a.mu.Lock()
		a.handles = []string{last}
		a.mu.Unlock()
	}
	state, err := k.c.call(ctx, http.MethodGet, k.urls.PLC+"/"+a.did+"/data", "", "", nil)
	if err != nil {
		return err
	}
	if names, _ := state.json()["alsoKnownAs"].([]any); len(names) != 1 || names[0] != "at://"+h {
		return fmt.Errorf("it is known as %v, and its handle is %s", names, h)
	}
	got, err := k.c.get(ctx, k.urls.PDS, "com.atproto.identity.resolveHandle", "handle", h)
	if err != nil {
		return err
	}
	if got.json()["did"] != a.did {
		return fmt.Errorf("resolveHandle of %s: %s", h, got)
	}
	return nil
}

// lists compares the lists of repositories of PDS and relay with the streams.
func (k *checker) lists(ctx context.Context) error {
	for base, f := range map[string]*follower{k.urls.PDS: k.pds, k.urls.Relay: k.relay} {
		deadline := time.Now().Add(catchUp) // what identity did is still under way
		for {
			items, err := k.c.pages(ctx, base, "com.atproto.sync.listRepos", "repos", "limit", "500")
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			err = f.listed(items)
			if err == nil {
				break
			}
			if f == k.pds || time.Now().After(deadline) {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
}

func (f *follower) listed(items []any) error {
	if len(items) != len(f.repos) {
		return fmt.Errorf("listRepos has %d repositories, the stream %d", len(items), len(f.repos))
	}
	for _, it := range items {
		it, _ := it.(object)
		did, _ := it["did"].(string)
		want := f.live(did)
		if want.state == nil || it["head"] != want.commit.String() || it["rev"] != string(want.state.Rev) || it["active"] != (want.status == "") {
			return fmt.Errorf("listRepos says %v, the stream %s %q", it, want.commit, want.status)
		}
	}
	return nil
}

// index compares the link index with the links of all records in active repositories.
func (k *checker) index(ctx context.Context) error {
	if k.urls.Links == "" {
		return nil
	}
	want := map[link][]string{} // who links, as did/collection/rkey
	var figures struct{ Records, Links, Targets, DIDs int }
	for did, r := range k.pds.repos {
		if r.status != "" {
			continue
		}
		before := figures.Records
		for path, c := range r.records {
			if content := k.o.content(c); content != nil && len(content.links) > 0 {
				figures.Records++
				figures.Links += len(content.links)
				for _, l := range content.links {
					want[l] = append(want[l], did+"/"+path)
				}
			}
		}
		if figures.Records > before {
			figures.DIDs++
		}
	}
	figures.Targets = len(want)
	for l := range want {
		k.asked[l] = nil // those that are no more are asked for as well
	}
	deadline := time.Now().Add(catchUp)
	for l := range k.asked {
		slices.Sort(want[l])
		for {
			err := k.backlinks(ctx, l, want[l])
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return err
			}
			time.Sleep(50 * time.Millisecond) // the index is behind
		}
	}
	got, err := k.c.call(ctx, http.MethodGet, k.urls.Links+"/_status", "", "", nil)
	if err != nil {
		return err
	}
	have := figures
	if err := json.Unmarshal(got.body, &have); err != nil || have != figures {
		return fmt.Errorf("its figures are %+v, want %+v: %v", have, figures, err)
	}
	return nil
}

func (k *checker) backlinks(ctx context.Context, l link, want []string) error {
	params := []string{"subject", l.target, "source", l.source}
	got, err := k.c.get(ctx, k.urls.Links, "blue.microcosm.links.getBacklinksCount", params...)
	if err != nil {
		return err
	}
	if total, ok := got.json()["total"].(float64); !ok || int(total) != len(want) {
		return fmt.Errorf("%v: count is %s, want %d", l, got, len(want))
	}
	items, err := k.c.pages(ctx, k.urls.Links, "blue.microcosm.links.getBacklinks", "records", append(params, "limit", "1000")...)
	if err != nil {
		return err
	}
	var have []string
	for _, it := range items {
		it, _ := it.(object)
		have = append(have, fmt.Sprintf("%s/%s/%s", it["did"], it["collection"], it["rkey"]))
	}
	k.asked[l] = slices.Clone(have)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		return fmt.Errorf("%v: the index has %d links, the repositories %d: %v, want %v", l, len(have), len(want), have[:min(5, len(have))], want[:min(5, len(want))])
	}
	dids, err := k.c.pages(ctx, k.urls.Links, "blue.microcosm.links.getBacklinkDids", "linking_dids", append(params, "limit", "1000")...)
	if err != nil {
		return err
	}
	who := map[any]bool{}
	for _, s := range want {
		did, _, _ := strings.Cut(s, "/")
		who[did] = true
	}
	for _, did := range dids {
		if !who[did] {
			return fmt.Errorf("%v: account %v is not among those that link", l, did)
		}
		delete(who, did)
	}
	if len(who) > 0 {
		return fmt.Errorf("%v: %d accounts that link are not told", l, len(who))
	}
	return nil
}
