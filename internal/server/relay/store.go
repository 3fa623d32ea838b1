package relay

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// Keys of the store:
//
//	'a' did              → account
//	'b' domain           → nothing: all its hosts are shut out
//	'c' host             → number of the host's last event that was dealt with, 8 bytes
//	'd' did 0 collection → nothing: the account wrote to it
//	'h' host             → hostRow, JSON
//	'l' …                → the log
//	'n' collection 0 did → nothing: the same, the other way round
//	's'                  → settings, JSON
//	't' did              → nothing: the account is taken down here
const (
	prefixAccount     = 'a'
	prefixBan         = 'b'
	prefixCursor      = 'c'
	prefixCollections = 'd'
	prefixHost        = 'h'
	prefixLog         = 'l'
	prefixCollection  = 'n'
	prefixSettings    = 's'
	prefixTakedown    = 't'
)

func key(prefix byte, name string) []byte { return append([]byte{prefix}, name...) }

// hostRow is what is kept of a host besides its cursor.
type hostRow struct {
	Origin     string `json:"origin"`               // such as https://pds.example
	Configured bool   `json:"configured,omitempty"` // by the operator: trusted
	Accounts   int64  `json:"accounts"`
	Problem    string `json:"problem,omitempty"` // why it is not followed, for the operator

	// Decisions of the operator while the relay runs.
	Admitted bool   `json:"admitted,omitempty"` // may have a name that strangers can't ask for
	Blocked  bool   `json:"blocked,omitempty"`  // is not followed
	Limit    *int64 `json:"limit,omitempty"`    // of accounts, in place of the usual one

	Since time.Time `json:"since,omitzero"` // when it was added
}

// account is what the relay knows of an account. A zero rev means that no commit was seen.
type account struct {
	rev    syntax.TID
	data   cid.CID // tree root
	commit cid.CID
	host   string // that the account was last seen at
	status string // as its host says: "" is active
	desync bool   // the chain is broken; commits are dropped until a #sync

	takedown bool // by the operator of this relay: nothing of it is passed on
}

// shown is the account's status as others are told.
func (a *account) shown() string {
	if a.takedown {
		return stream.StatusTakendown
	}
	return a.status
}

const (
	flagDesync = 1 << iota
	flagState
	flagTakedown
)

// append writes an account: flags, revision, tree and commit (if there are), then status and host as strings.
func (a *account) append(b []byte) []byte {
	var flags byte
	if a.desync {
		flags |= flagDesync
	}
	if a.rev != "" {
		flags |= flagState
	}
	if a.takedown {
		flags |= flagTakedown
	}
	b = append(b, flags)
	if a.rev != "" {
		b = binary.BigEndian.AppendUint64(b, a.rev.Integer())
		b = append(b, a.data[:]...)
		b = append(b, a.commit[:]...)
	}
	b = kv.AppendString(b, a.status)
	return append(b, a.host...)
}

func decodeAccount(b []byte) (*account, error) {
	bad := func() (*account, error) { return nil, fmt.Errorf("a stored account of %d bytes is damaged", len(b)) }
	if len(b) < 1 {
		return bad()
	}
	flags, rest := b[0], b[1:]
	a := &account{desync: flags&flagDesync != 0, takedown: flags&flagTakedown != 0}
	if flags&flagState != 0 {
		if len(rest) < 8+2*cid.Size {
			return bad()
		}
		a.rev = syntax.TIDFromInteger(binary.BigEndian.Uint64(rest))
		copy(a.data[:], rest[8:])
		copy(a.commit[:], rest[8+cid.Size:])
		rest = rest[8+2*cid.Size:]
	}
	var ok bool
	if a.status, rest, ok = kv.CutString(rest); !ok {
		return bad()
	}
	a.host = string(rest)
	return a, nil
}

// stored reads an account as it is on disk, nil if there is none.
func (s *Service) stored(did string) (*account, error) {
	v, err := s.store.Get(key(prefixAccount, did))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decodeAccount(v)
}

// listAccounts calls f for the accounts after the given DID, in order, until f returns false.
func (s *Service) listAccounts(after string, f func(did string, a *account) bool) (err error) {
	lo := []byte{prefixAccount}
	if after != "" {
		lo = append(key(prefixAccount, after), 0)
	}
	it := s.store.Iter(lo, []byte{prefixAccount + 1})
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		a, err := decodeAccount(it.Value())
		if err != nil {
			return err
		}
		if !f(string(it.Key()[1:]), a) {
			return nil
		}
	}
	return it.Err()
}

// loadHosts reads the known hosts and where their subscriptions stand.
func (s *Service) loadHosts() (err error) {
	it := s.store.Iter([]byte{prefixHost}, []byte{prefixHost + 1})
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		name := string(it.Key()[1:])
		h := &host{name: name}
		if err := json.Unmarshal(it.Value(), &h.row); err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
		// Whether a host may be private is said by the configuration of this run, not by that of an earlier one.
		h.row.Configured = false
		switch v, err := s.store.Get(key(prefixCursor, name)); {
		case err == nil && len(v) == 8:
			h.cursor = int64(binary.BigEndian.Uint64(v))
		case err == nil:
			return fmt.Errorf("host %s: damaged cursor", name)
		case !errors.Is(err, kv.ErrNotFound):
			return err
		}
		h.done, h.saved = h.cursor, h.cursor
		h.stopped = h.row.Blocked || s.bannedBy(name) != ""
		s.hosts[name] = h
	}
	return it.Err()
}

func (h *host) put(b kv.Batch) {
	row, err := json.Marshal(h.row)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	b.Set(key(prefixHost, h.name), row)
}

// saveCursors writes the cursors that moved since they were last written along with an event. They go through the log, so
// that they can't overtake the events they stand for.
func (s *Service) saveCursors() {
	var moved []*host
	for _, h := range s.hostList() {
		h.mu.Lock()
		if h.done > h.saved {
			moved = append(moved, h)
		}
		h.mu.Unlock()
	}
	if len(moved) == 0 {
		return
	}
	_, err := s.log.Commit(context.Background(), eventlog.Tx{Ops: func(b kv.Batch) {
		for _, h := range moved {
			h.mu.Lock()
			h.putCursor(b)
			h.mu.Unlock()
		}
	}})
	if err != nil && !errors.Is(err, eventlog.ErrClosed) {
		s.w.Log.Error("saving the cursors of the relay's hosts", "err", err)
	}
}

// putCursor adds the host's cursor to b if it has moved. The caller holds h.mu.
func (h *host) putCursor(b kv.Batch) {
	if h.done > h.saved {
		b.Set(key(prefixCursor, h.name), kv.AppendUint64(nil, uint64(h.done)))
		h.saved = h.done
	}
}

func (s *Service) hostList() []*host {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*host, 0, len(s.hosts))
	for _, h := range s.hosts {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b *host) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return list
}
