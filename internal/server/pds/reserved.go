package pds

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// A signing key can be reserved for an account that is still to come, or for one that gets another key: its owner puts it into the identity
// first. Anybody can ask for one, so what nobody uses is forgotten after a while. An identity that has a key already must find it here
// whenever its account comes: the key of a DID that was named is kept for as long as the DID's document has it. Whose identity will have a
// key that was reserved without a DID is not known here, so there the time has to be enough.

const (
	// reservedLife is how long a reserved key is kept at least, from when it was asked for last.
	reservedLife = 30 * 24 * time.Hour
	// reservedAgain is how long the next look is put off when it can't be found out whether a key is used.
	reservedAgain = 24 * time.Hour
	// maxExpiring is how many keys are looked at in a row.
	maxExpiring = 16
	// maxReserved is how many keys one address may have reserved at a time.
	maxReserved = 50
)

// reservation is what is known of a reserved key beside the key.
type reservation struct {
	DID     syntax.DID `json:"did,omitempty"`
	From    string     `json:"from,omitempty"` // digest of the address that asked
	expires time.Time  // from the row's key
}

// reservations are all of them by did:key, which are few, and how many each address has.
type reservations struct {
	of   map[string]reservation // under accountState.mu
	from map[string]int
}

func (r *reservations) set(name string, v reservation) {
	r.drop(name)
	r.of[name] = v
	r.from[v.From]++
}

func (r *reservations) drop(name string) {
	v, ok := r.of[name]
	if !ok {
		return
	}
	delete(r.of, name)
	if r.from[v.From]--; r.from[v.From] <= 0 {
		delete(r.from, v.From)
	}
}

func expiryKey(at time.Time, name string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(rowExpiry), uint64(at.UnixMicro())), name...)
}

// openReserved reads the reservations. Those of a version that didn't note when keys were reserved begin to age now.
func (s *Service) openReserved() error {
	r := &s.accounts.reserved
	r.of, r.from = map[string]reservation{}, map[string]int{}
	lo := []byte(rowExpiry)
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		var v reservation
		if len(k) < len(lo)+8 || json.Unmarshal(it.Value(), &v) != nil {
			return errors.Join(fmt.Errorf("reserved key %q: %w", k, errCorrupt), it.Close())
		}
		v.expires = time.UnixMicro(int64(binary.BigEndian.Uint64(k[len(lo):])))
		r.set(string(k[len(lo)+8:]), v)
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return fmt.Errorf("reading reserved keys: %w", err)
	}
	old := map[string]syntax.DID{}
	for _, prefix := range []string{rowReserved, rowReserver} {
		it := s.store.Iter([]byte(prefix), kv.PrefixEnd([]byte(prefix)))
		for ok := it.First(); ok; ok = it.Next() {
			name, did := string(it.Key()[len(prefix):]), syntax.DID("")
			if prefix == rowReserver {
				name, did = string(it.Value()), syntax.DID(name)
			}
			if _, known := r.of[name]; !known {
				old[name] = did
			}
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return fmt.Errorf("reading reserved keys: %w", err)
		}
	}
	if len(old) == 0 {
		return nil
	}
	return s.write(s.running, func(b kv.Batch) {
		for name, did := range old {
			v := reservation{DID: did, expires: s.world.Clock.Now().Add(reservedLife)}
			v.put(b, name)
			r.set(name, v)
		}
	})
}

func (v *reservation) put(b kv.Batch, name string) {
	row, err := json.Marshal(v)
	if err != nil {
		panic("pds: a reservation that cannot be encoded: " + err.Error())
	}
	b.Set(expiryKey(v.expires, name), row)
}

// unreserve takes away a key that is no longer to come. It runs as a part of a batch.
func (s *Service) unreserve(b kv.Batch, name string) {
	s.accounts.mu.Lock()
	defer s.accounts.mu.Unlock()
	b.Delete([]byte(rowReserved + name))
	v, ok := s.accounts.reserved.of[name]
	if !ok {
		return
	}
	b.Delete(expiryKey(v.expires, name))
	if v.DID != "" {
		b.Delete([]byte(rowReserver + string(v.DID)))
	}
	s.accounts.reserved.drop(name)
}

// postpone gives a reservation another time to end.
func (s *Service) postpone(ctx context.Context, name string, at time.Time) error {
	s.accounts.mu.Lock()
	v, ok := s.accounts.reserved.of[name]
	old := v.expires
	if ok {
		v.expires = at
		s.accounts.reserved.set(name, v)
	}
	s.accounts.mu.Unlock()
	if !ok || old.Equal(at) {
		return nil
	}
	return s.write(ctx, func(b kv.Batch) {
		b.Delete(expiryKey(old, name))
		v.put(b, name)
	})
}

// reserveSigningKey is com.atproto.server.reserveSigningKey. A DID that was named before gets the same key, and more time.
func (s *Service) reserveSigningKey(ctx context.Context, r *xrpc.Request, in *comatproto.ServerReserveSigningKey_Input) (*comatproto.ServerReserveSigningKey_Output, error) {
	if err := s.limit(r, "createAccount", "key"); err != nil {
		return nil, err
	}
	did := value(in.Did)
	// In whole hours, so that asking again and again writes nothing.
	expires := s.world.Clock.Now().Add(reservedLife + time.Hour).UTC().Truncate(time.Hour)
	if did != "" {
		if _, err := syntax.ParseDID(did); err != nil {
			return nil, invalid("did: not a DID")
		}
		release, ok := s.claim("reserve:" + did)
		if !ok {
			return nil, refuse(http.StatusConflict, "InvalidRequest", "a key is being reserved for %s now", did)
		}
		defer release()
		v, err := s.store.Get([]byte(rowReserver + did))
		if err == nil {
			if err := s.postpone(ctx, string(v), expires); err != nil {
				return nil, err
			}
			return &comatproto.ServerReserveSigningKey_Output{SigningKey: string(v)}, nil
		}
		if !errors.Is(err, kv.ErrNotFound) {
			return nil, err
		}
	}
	n := newAccount{}
	if err := s.chooseKey(&n); err != nil {
		return nil, err
	}
	name := n.key.Public().DIDKey()
	addr := s.clientAddr(r.Request)
	v := reservation{DID: syntax.DID(did), From: s.digestOf("address", httpd.ClientKey(addr)), expires: expires}
	most := maxReserved
	if s.unlimited(addr) {
		most *= relaxed
	}
	s.accounts.mu.Lock()
	if s.accounts.reserved.from[v.From] >= most {
		s.accounts.mu.Unlock()
		return nil, refuse(http.StatusTooManyRequests, "RateLimitExceeded", "%d keys are reserved from here: make accounts with them, or wait until they expire", most)
	}
	s.accounts.reserved.set(name, v)
	s.accounts.mu.Unlock()
	sealed := s.accounts.secrets.seal([]byte(n.key.Multikey()), "reserved "+name)
	err := s.write(ctx, func(b kv.Batch) {
		b.Set([]byte(rowReserved+name), sealed)
		v.put(b, name)
		if did != "" {
			b.Set([]byte(rowReserver+did), []byte(name))
		}
	})
	s.wakeChores()
	return &comatproto.ServerReserveSigningKey_Output{SigningKey: name}, err
}

// reservedKey is a private key that was reserved here, by its did:key, and its text.
func (s *Service) reservedKey(name string) (*keys.PrivateKey, []byte, error) {
	sealed, err := s.store.Get([]byte(rowReserved + name))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil, refuse(http.StatusBadRequest, "IncompatibleDidDoc", "the signing key was not reserved here")
	}
	if err != nil {
		return nil, nil, err
	}
	text, err := s.accounts.secrets.open(sealed, "reserved "+name)
	if err != nil {
		return nil, nil, err
	}
	key, err := keys.ParsePrivate(string(text))
	return key, text, err
}

// expireReserved forgets the keys whose time has come and that nobody uses, and says when the next one's comes; zero if there is none.
func (s *Service) expireReserved(ctx context.Context) (next time.Time, err error) {
	now := s.world.Clock.Now()
	var due []string
	s.accounts.mu.Lock()
	for name, v := range s.accounts.reserved.of {
		if !v.expires.After(now) {
			due = append(due, name)
		}
	}
	s.accounts.mu.Unlock()
	// Asking about identities takes as long as strangers' hosts like, and other chores wait: the rest comes after those.
	due = due[:min(len(due), maxExpiring)]
	var errs []error
	for _, name := range due {
		if err := s.expireOne(ctx, name, now); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	s.accounts.mu.Lock()
	defer s.accounts.mu.Unlock()
	for _, v := range s.accounts.reserved.of {
		if next.IsZero() || v.expires.Before(next) {
			next = v.expires
		}
	}
	return next, errors.Join(errs...)
}

func (s *Service) expireOne(ctx context.Context, name string, now time.Time) error {
	// Whoever is about to make it an account's key holds one of these.
	s.accounts.mu.Lock()
	v, ok := s.accounts.reserved.of[name]
	s.accounts.mu.Unlock()
	if !ok {
		return nil
	}
	claims := []string{"key:" + name}
	if v.DID != "" {
		claims = append(claims, "reserve:"+string(v.DID), "did:"+string(v.DID))
	}
	release, free := s.claim(claims...)
	if !free {
		return s.postpone(ctx, name, now.Add(time.Hour))
	}
	defer release()
	s.accounts.mu.Lock()
	v, ok = s.accounts.reserved.of[name] // the row, which decides, is the claim's now
	awaited := false
	for _, p := range s.accounts.pending {
		awaited = awaited || p.Key == name
	}
	s.accounts.mu.Unlock()
	if !ok || v.expires.After(now) {
		return nil
	}
	if awaited {
		return s.postpone(ctx, name, now.Add(reservedAgain))
	}
	used, err := s.usesKey(ctx, v.DID, name)
	if err != nil {
		s.world.Log.Warn("a reserved key has expired, but may be used, and is kept", "did", string(v.DID), "err", err)
		return s.postpone(ctx, name, now.Add(reservedAgain))
	}
	if used {
		return s.postpone(ctx, name, now.Add(reservedLife))
	}
	return s.write(ctx, func(b kv.Batch) { s.unreserve(b, name) })
}

// usesKey reports whether the identity of a DID, which may be "", has a signing key. A DID that isn't there has none.
func (s *Service) usesKey(ctx context.Context, did syntax.DID, name string) (bool, error) {
	switch {
	case did == "":
		return false, nil
	case did.Method() == "plc":
		last, err := s.accounts.plc.Last(ctx, did)
		if plcdir.StatusOf(err) == http.StatusNotFound {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		state, ok := last.State()
		return ok && state.SigningKey() == name, nil
	}
	doc, err := s.resolveDocument(ctx, did, true)
	if err != nil {
		return false, err
	}
	return doc.SigningKey != nil && doc.SigningKey.DIDKey() == name, nil
}
