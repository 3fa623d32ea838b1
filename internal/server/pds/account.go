package pds

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// AccountConfig is what an operator decides about accounts and sign-in. The zero value is right for a server on the open internet.
type AccountConfig struct {
	// RelaxLoopback makes the sign-in and sign-up limits a hundred times larger for callers on this machine, and doesn't limit their other requests at
	// all: for a local network, where every client shares one address.
	RelaxLoopback bool
	// LogTokens writes the confirmation tokens that go out by e-mail to the log as well. Only for development.
	LogTokens bool
	// TrustedProxies are the networks whose X-Forwarded-For header is believed.
	TrustedProxies []netip.Prefix
	// RecoveryKey is an additional did:key of the operator that new identities list above the server's own rotation key.
	RecoveryKey string
	// PasswordMemory is the memory of one password hash, in KiB; 12,288 by default. It may be raised at any time: a hash records its own cost.
	PasswordMemory uint32
	// RefreshGrace is how long a refresh token that was already exchanged still gives the same successor; 2 minutes by default.
	RefreshGrace time.Duration
}

// account is one hosted account without its repository.
type account struct {
	DID    syntax.DID    `json:"did"`
	Handle syntax.Handle `json:"handle"`
	Email  string        `json:"email,omitempty"`
	// EmailConfirmed says that the owner has read a mail sent to Email, at the time EmailConfirmedAt.
	EmailConfirmed   bool      `json:"emailConfirmed,omitempty"`
	EmailConfirmedAt time.Time `json:"emailConfirmedAt,omitzero"`
	// EmailFactor is the owner's wish that the password alone doesn't open the account. See emailFactor.
	EmailFactor bool `json:"emailFactor,omitempty"`
	// Password is the encoded argon2id hash; empty when nobody can sign in with one.
	Password string `json:"password,omitempty"`
	// Epoch counts the changes of the password. Tokens of an earlier one are good for nothing.
	Epoch int `json:"epoch,omitempty"`
	// Key is the repository's private signing key, sealed; PublicKey is its did:key.
	Key       []byte    `json:"key"`
	PublicKey string    `json:"publicKey"`
	Created   time.Time `json:"created"`
	// Invite is the code the account was made with.
	Invite string `json:"invite,omitempty"`
	// Activated is false for an account that came by migration and was never active here.
	Activated bool `json:"activated,omitempty"`
	// Takedown is set while the operator keeps the account off the network.
	Takedown *accountTakedown `json:"takedown,omitempty"`
	// Deactivated is when the account was deactivated; zero while it is not.
	Deactivated time.Time `json:"deactivated,omitzero"`
	// NoInvites says that the account gets no invite codes; InviteNote is why it does, or doesn't.
	NoInvites  bool   `json:"noInvites,omitempty"`
	InviteNote string `json:"inviteNote,omitempty"`
	// DeleteAfter is the owner's wish, given at deactivation.
	DeleteAfter string `json:"deleteAfter,omitempty"`

	// Status is the hosting status. It is kept with the repository's head, because an event tells of both.
	Status hosting `json:"-"`
}

// active reports whether the account's content may be served and written.
func (a *account) active() bool { return a.Status == hostingActive }

// Rows of the accounts, all below the table byte 'a':
//
//	a/d/ did                 → account
//	a/h/ handle              → DID
//	a/e/ e-mail, lower case  → DID
//	a/k/ did:key             → sealed signing key that was reserved before its account exists
//	a/K/ did                 → did:key reserved for that DID
//	a/i/ code                → invite code
//	a/u/ code / did          → time of use
//	a/f/ did / code          → empty: codes that belong to an account
//	a/s/ did / session       → session
//	a/p/ did                 → preferences
//	a/w/ did / name          → app password
//	a/t/ did / purpose       → hash and expiry of a confirmation token
//	a/o/ did                 → change of the identity that may not have been done here yet (pending.go)
//	a/z/ time did            → empty: when a deactivated account is deleted (deadline.go)
//	a/x/ did / path or CID   → takedown of a record or a blob (takedown.go)
//	a/m/ did / purpose       → mail that is on its way, sealed (outbox.go)
//	a/y/ time did:key        → for whom, and by whom a key was reserved that is forgotten then (reserved.go)
//	a/bd/ did                → takedown of an account that is deleted (barred.go)
//	a/bh/ handle             → its DID
//	a/be/ digest             → its DID, by the digest of its e-mail address
const (
	rowAccount      = "a/d/"
	rowHandle       = "a/h/"
	rowEmail        = "a/e/"
	rowReserved     = "a/k/"
	rowReserver     = "a/K/"
	rowInvite       = "a/i/"
	rowUse          = "a/u/"
	rowOwnCodes     = "a/f/"
	rowSession      = "a/s/"
	rowPrefs        = "a/p/"
	rowAppPassword  = "a/w/"
	rowToken        = "a/t/"
	rowTakedown     = "a/x/"
	rowOutbox       = "a/m/"
	rowExpiry       = "a/y/"
	rowBarred       = "a/bd/"
	rowBarredHandle = "a/bh/"
	rowBarredEmail  = "a/be/"
	rowPending      = "a/o/"
	rowDeadline     = "a/z/"
)

// errNoAccount means that no account of that name is hosted here.
var errNoAccount = errors.New("no such account here")

// accountState is what the accounts part of the service keeps in memory.
type accountState struct {
	secrets   secrets
	passwords *passwords
	directory *identity.Directory
	plc       *plcdir.Client
	limits    limits
	traffic   limits // apart, because everybody's requests are counted in it
	services  *auth.ServiceValidator
	counts    countCache
	tokens    sessionCache
	admin     atomic.Pointer[[sha256.Size]byte] // digest of the operator's credentials, when they are configured as a slow hash

	sessions   stripedMutex // by session, over read-rotate-write
	changes    stripedMutex // by account, over read-edit-write
	confirming stripedMutex // by token, over read-count-write; nothing else is locked meanwhile
	randMu     sync.Mutex   // over the service's source of randomness, which need not be safe for concurrent use

	mu       sync.Mutex
	claimed  map[string]struct{}   // names that a request in progress is about to take
	invites  map[string]*inviteUse // codes that a request in progress is about to use
	pending  map[syntax.DID]pendingChange
	reserved reservations
	outbox   outbox
	knocks   map[knock]*answeredKnock // operator's credentials that are being looked at
}

// openAccounts gets secrets and clients ready. New calls it when the store and the log are open.
func (s *Service) openAccounts() error {
	a := &s.accounts
	a.claimed = map[string]struct{}{}
	a.invites = map[string]*inviteUse{}
	a.knocks = map[knock]*answeredKnock{}
	if err := s.openPending(); err != nil {
		return err
	}
	if err := s.openSecrets(); err != nil {
		return err
	}
	var err error
	if a.passwords, err = newPasswords(s.world.Rand, s.cfg.Accounts.PasswordMemory); err != nil {
		return err
	}
	s.openLimits()
	if err := s.openAdmin(); err != nil {
		return err
	}
	if err := s.openIdentity(); err != nil {
		return err
	}
	s.openServiceAuth()
	if err := s.openOutbox(); err != nil {
		return fmt.Errorf("reading the mails that wait: %w", err)
	}
	return s.openReserved()
}

// account reads the account of a DID: errNoAccount when it isn't hosted here.
func (s *Service) account(did syntax.DID) (*account, error) {
	v, err := s.store.Get([]byte(rowAccount + string(did)))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, errNoAccount
	}
	if err != nil {
		return nil, fmt.Errorf("reading account %s: %w", did, err)
	}
	a := new(account)
	if err := json.Unmarshal(v, a); err != nil {
		return nil, fmt.Errorf("account row of %s: %w: %w", did, errCorrupt, err)
	}
	head, err := loadHead(s.store, did)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, fmt.Errorf("account %s has no repository: %w", did, errCorrupt)
	}
	a.Status = head.Status
	return a, nil
}

// epochOf reads the epoch of an account, and no more of it: for every write.
func (s *Service) epochOf(did syntax.DID) (int, error) {
	v, err := s.store.Get([]byte(rowAccount + string(did)))
	if errors.Is(err, kv.ErrNotFound) {
		return 0, errNoAccount
	}
	if err != nil {
		return 0, fmt.Errorf("reading account %s: %w", did, err)
	}
	var a struct {
		Epoch int `json:"epoch"`
	}
	if err := json.Unmarshal(v, &a); err != nil {
		return 0, fmt.Errorf("account row of %s: %w: %w", did, errCorrupt, err)
	}
	return a.Epoch, nil
}

// accountByHandle reads the account that has a handle here.
func (s *Service) accountByHandle(h syntax.Handle) (*account, error) {
	return s.accountByIndex(rowHandle + string(h.Normalize()))
}

func (s *Service) accountByEmail(email string) (*account, error) {
	return s.accountByIndex(rowEmail + normalizeEmail(email))
}

func (s *Service) accountByIndex(key string) (*account, error) {
	v, err := s.store.Get([]byte(key))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, errNoAccount
	}
	if err != nil {
		return nil, fmt.Errorf("looking up an account: %w", err)
	}
	return s.account(syntax.DID(v))
}

// findAccount reads the account that a person means by a DID, a handle or an e-mail address.
func (s *Service) findAccount(identifier string) (*account, error) {
	identifier = strings.TrimSpace(identifier)
	if strings.HasPrefix(identifier, "did:") {
		did, err := syntax.ParseDID(identifier)
		if err != nil {
			return nil, errNoAccount
		}
		return s.account(did)
	}
	if strings.Contains(identifier, "@") && !strings.HasPrefix(identifier, "@") {
		return s.accountByEmail(identifier)
	}
	h, err := syntax.ParseHandle(strings.TrimPrefix(identifier, "@"))
	if err != nil {
		return nil, errNoAccount
	}
	return s.accountByHandle(h)
}

// signingKey gives the private key that signs the repository of did.
func (s *Service) signingKey(did syntax.DID) (*keys.PrivateKey, error) {
	a, err := s.account(did)
	if err != nil {
		return nil, err
	}
	return s.openKey(a)
}

func (s *Service) openKey(a *account) (*keys.PrivateKey, error) {
	text, err := s.accounts.secrets.open(a.Key, "signing key of "+string(a.DID))
	if err != nil {
		return nil, fmt.Errorf("opening the signing key of %s: %w", a.DID, err)
	}
	return keys.ParsePrivate(string(text))
}

// put writes the account's row and the rows that find it.
func (a *account) put(b kv.Batch) {
	row, err := json.Marshal(a)
	if err != nil {
		panic("pds: an account that cannot be encoded: " + err.Error())
	}
	b.Set([]byte(rowAccount+string(a.DID)), row)
	b.Set([]byte(rowHandle+string(a.Handle)), []byte(a.DID))
	if a.Email != "" {
		b.Set([]byte(rowEmail+normalizeEmail(a.Email)), []byte(a.DID))
	}
	if at, ok := a.deadline(); ok {
		b.Set(deadlineKey(at, a.DID), nil)
	}
}

// replace writes the account's row and takes away the rows that found it by what old said.
func (a *account) replace(b kv.Batch, old *account) {
	if old.Handle != a.Handle {
		b.Delete([]byte(rowHandle + string(old.Handle)))
	}
	if old.Email != "" && normalizeEmail(old.Email) != normalizeEmail(a.Email) {
		b.Delete([]byte(rowEmail + normalizeEmail(old.Email)))
	}
	if at, ok := old.deadline(); ok && old.DeleteAfter != a.DeleteAfter {
		b.Delete(deadlineKey(at, a.DID))
	}
	a.put(b)
}

// erase removes everything the accounts keep of a.
func (a *account) erase(b kv.Batch) {
	did := string(a.DID)
	b.Delete([]byte(rowAccount + did))
	b.Delete([]byte(rowHandle + string(a.Handle)))
	if a.Email != "" {
		b.Delete([]byte(rowEmail + normalizeEmail(a.Email)))
	}
	for _, prefix := range []string{rowSession, rowToken, rowPrefs, rowAppPassword, rowOutbox} {
		lo := []byte(prefix + did + "/")
		b.DeleteRange(lo, kv.PrefixEnd(lo))
	}
	b.Delete([]byte(rowPrefs + did))
	b.Delete(pendingKey(a.DID))
	if at, ok := a.deadline(); ok {
		b.Delete(deadlineKey(at, a.DID))
	}
}

// write makes rows durable that no event tells of.
func (s *Service) write(ctx context.Context, ops func(kv.Batch)) error {
	// The outcome counts, not the client's patience: what was submitted happens.
	_, err := s.log.Commit(context.WithoutCancel(ctx), eventlog.Tx{Ops: ops})
	if err != nil {
		return fmt.Errorf("writing account rows: %w", err)
	}
	return nil
}

// claim reserves names (handles, e-mail addresses, DIDs) until release, so that two requests that look for the same free name at once don't
// both find it. Whoever holds the claim then looks in the store, and lets go once its own rows are durable.
func (s *Service) claim(names ...string) (release func(), ok bool) {
	a := &s.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range names {
		if _, taken := a.claimed[n]; taken {
			return nil, false
		}
	}
	for _, n := range names {
		a.claimed[n] = struct{}{}
	}
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, n := range names {
			delete(a.claimed, n)
		}
	}), true
}

func normalizeEmail(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// stripedMutex is a fixed set of locks, chosen by a name.
type stripedMutex [64]sync.Mutex

func (m *stripedMutex) lock(name string) (unlock func()) {
	var h uint32 = 2166136261
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	l := &m[h%uint32(len(m))]
	l.Lock()
	return l.Unlock
}
