package pds

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// invite is a code that lets people sign up.
type invite struct {
	Code     string    `json:"code"`
	Uses     int       `json:"uses"` // how many accounts it is good for
	Disabled bool      `json:"disabled,omitempty"`
	For      string    `json:"for"` // the account it was given to, or "admin"
	By       string    `json:"by"`
	Created  time.Time `json:"created"`
}

// inviteUse counts the uses of a code while requests hold some of them: durable ones and held ones together.
type inviteUse struct{ used, holders int }

var errInvite = errors.New("invite code not usable")

func (i *invite) put(b kv.Batch) {
	v, err := json.Marshal(i)
	if err != nil {
		panic("pds: an invite code that cannot be encoded: " + err.Error())
	}
	b.Set([]byte(rowInvite+i.Code), v)
	if strings.HasPrefix(i.For, "did:") {
		b.Set([]byte(rowOwnCodes+i.For+"/"+i.Code), nil)
	}
}

func putInviteUse(b kv.Batch, code string, did syntax.DID, at time.Time) {
	b.Set([]byte(rowUse+code+"/"+string(did)), []byte(at.UTC().Format(time.RFC3339Nano)))
}

// newInvite makes a code; it can't be guessed (80 bits) and begins with the host it is for.
func (s *Service) newInvite(uses int, owner, by string) *invite {
	host := "baro"
	if u, err := url.Parse(s.cfg.PublicURL); err == nil {
		host = strings.ReplaceAll(u.Hostname(), ".", "-")
	}
	r := s.randomName(10)
	return &invite{Code: host + "-" + r[:4] + "-" + r[4:8] + "-" + r[8:12] + "-" + r[12:], Uses: uses, For: owner, By: by, Created: s.world.Clock.Now().UTC()}
}

func (s *Service) loadInvite(code string) (*invite, error) {
	if code == "" || len(code) > 256 || strings.Contains(code, "/") {
		return nil, errInvite
	}
	v, err := s.store.Get([]byte(rowInvite + code))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, errInvite
	}
	if err != nil {
		return nil, fmt.Errorf("reading an invite code: %w", err)
	}
	i := new(invite)
	if err := json.Unmarshal(v, i); err != nil {
		return nil, fmt.Errorf("invite code row: %w", errCorrupt)
	}
	return i, nil
}

type inviteUsed struct {
	by syntax.DID
	at string
}

func (s *Service) inviteUses(code string) ([]inviteUsed, error) {
	lo := []byte(rowUse + code + "/")
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	defer it.Close()
	var uses []inviteUsed
	for ok := it.First(); ok; ok = it.Next() {
		uses = append(uses, inviteUsed{syntax.DID(it.Key()[len(lo):]), string(it.Value())})
	}
	return uses, it.Err()
}

// holdInvite takes one use of a code for the caller, who says with done whether the use became durable. While a code is held, its count is
// kept in memory, so that racing sign-ups see each other and no use is counted twice. errInvite stands for unknown, disabled and used up
// alike: which of them is nobody's business.
func (s *Service) holdInvite(code string) (done func(used bool), err error) {
	a := &s.accounts
	a.mu.Lock()
	defer a.mu.Unlock()
	row, err := s.loadInvite(code)
	if err != nil {
		return nil, err
	}
	u := a.invites[code]
	if u == nil {
		uses, err := s.inviteUses(code)
		if err != nil {
			return nil, err
		}
		u = &inviteUse{used: len(uses)}
	}
	gone, err := s.inviterGone(row)
	if err != nil {
		return nil, err
	}
	if row.Disabled || gone || u.used >= row.Uses {
		return nil, errInvite
	}
	a.invites[code] = u
	u.used++
	u.holders++
	return func(used bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !used {
			u.used--
		}
		if u.holders--; u.holders == 0 {
			delete(a.invites, code)
		}
	}, nil
}

// ownInvites lists the codes that were given to an account.
func (s *Service) ownInvites(did syntax.DID) ([]*invite, error) {
	lo := []byte(rowOwnCodes + string(did) + "/")
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	defer it.Close()
	var codes []*invite
	for ok := it.First(); ok; ok = it.Next() {
		i, err := s.loadInvite(string(it.Key()[len(lo):]))
		if err != nil {
			return nil, err
		}
		codes = append(codes, i)
	}
	return codes, it.Err()
}
