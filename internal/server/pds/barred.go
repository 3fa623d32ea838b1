package pds

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// An owner may delete an account that is taken down, like any other, but doesn't undo the operator's decision that way: the account's DID,
// handle and e-mail address stay barred from this server until the operator ends the takedown. Of the address only a keyed digest is kept.
// Takedowns of records and blobs stay as well, and hold again should the account come back.

// barred is what is kept of an account that was taken down when it was deleted, or that was taken down afterwards.
type barred struct {
	accountTakedown
	Handle syntax.Handle `json:"handle,omitempty"`
	Email  string        `json:"email,omitempty"` // digest
}

// digestOf stands for a value that this server doesn't keep, of some kind.
func (s *Service) digestOf(kind, value string) string {
	h := hmac.New(sha256.New, s.accounts.secrets.digest)
	h.Write([]byte(kind + "\x00" + value))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (s *Service) emailDigest(email string) string { return s.digestOf("email", normalizeEmail(email)) }

// bar makes what is kept of a taken-down account that is about to be deleted.
func (s *Service) bar(a *account) *barred {
	v := &barred{Handle: a.Handle}
	if a.Takedown != nil {
		v.accountTakedown = *a.Takedown
	} else {
		v.At = s.world.Clock.Now().UTC()
	}
	if a.Email != "" {
		v.Email = s.emailDigest(a.Email)
	}
	return v
}

func (v *barred) put(b kv.Batch, did syntax.DID) {
	row, err := json.Marshal(v)
	if err != nil {
		panic("pds: a takedown that cannot be encoded: " + err.Error())
	}
	b.Set([]byte(rowBarred+string(did)), row)
	if v.Handle != "" {
		b.Set([]byte(rowBarredHandle+string(v.Handle)), []byte(did))
	}
	if v.Email != "" {
		b.Set([]byte(rowBarredEmail+v.Email), []byte(did))
	}
}

func (v *barred) erase(b kv.Batch, did syntax.DID) {
	b.Delete([]byte(rowBarred + string(did)))
	if v.Handle != "" {
		b.Delete([]byte(rowBarredHandle + string(v.Handle)))
	}
	if v.Email != "" {
		b.Delete([]byte(rowBarredEmail + v.Email))
	}
}

// loadBarred reads what is kept of a deleted account; nil when it was not taken down.
func (s *Service) loadBarred(did syntax.DID) (*barred, error) {
	row, err := s.store.Get([]byte(rowBarred + string(did)))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the takedown of %s: %w", did, err)
	}
	v := new(barred)
	if err := json.Unmarshal(row, v); err != nil {
		return nil, fmt.Errorf("takedown of %s: %w", did, errCorrupt)
	}
	return v, nil
}

// barDeleted takes down an account that is deleted already, or ends that. known says whether this server has had the account at all.
func (s *Service) barDeleted(ctx context.Context, did syntax.DID, applied bool, ref string) (known bool, err error) {
	defer s.accounts.changes.lock(string(did))()
	head, err := loadHead(s.store, did)
	if err != nil || head == nil || head.Status != hostingDeleted {
		return false, err
	}
	v, err := s.loadBarred(did)
	if err != nil {
		return true, err
	}
	if v == nil {
		if !applied {
			return true, nil
		}
		v = &barred{}
	}
	v.Ref, v.At = ref, s.world.Clock.Now().UTC()
	return true, s.write(ctx, func(b kv.Batch) {
		if applied {
			v.put(b, did)
		} else {
			v.erase(b, did)
		}
	})
}

// checkBarred refuses an account that was taken down before it was deleted. It comes after the look for the account itself, since a deletion
// turns the one into the other.
func (s *Service) checkBarred(did syntax.DID) error {
	if v, err := s.loadBarred(did); err != nil || v == nil {
		return err
	}
	return refuse(http.StatusBadRequest, "AccountTakedown", "the account %s has been taken down", did)
}

// emailFree refuses an address that an account other than did has, or had when it was taken down.
func (s *Service) emailFree(email string, did syntax.DID) error {
	taken := invalid("the e-mail address is taken")
	v, err := s.store.Get([]byte(rowEmail + normalizeEmail(email)))
	if err == nil && syntax.DID(v) != did {
		return taken
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	if held, err := exists(s.store, rowBarredEmail+s.emailDigest(email)); err != nil || !held {
		return err
	}
	return taken
}

// inviterGone reports whether the account that a code was given to is taken down or deleted. Codes may be for accounts that are not here yet.
func (s *Service) inviterGone(i *invite) (bool, error) {
	did, err := syntax.ParseDID(i.For)
	if err != nil {
		return false, nil // the operator
	}
	head, err := loadHead(s.store, did)
	if err != nil || head == nil {
		return false, err
	}
	return head.Status == hostingTakendown || head.Status == hostingSuspended || head.Status == hostingDeleted, nil
}

// takenAt is a time for people.
func (v *barred) takenAt() string { return v.At.UTC().Format(time.RFC3339) }
