package pds

import (
	"context"
	"errors"
	"net/http"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const (
	maxInviteCodes = 1000 // per request
	maxInviteUses  = 1_000_000
	adminOwner     = "admin"
)

// createInviteCode is com.atproto.server.createInviteCode, for the operator.
func (s *Service) createInviteCode(ctx context.Context, r *xrpc.Request, in *comatproto.ServerCreateInviteCode_Input) (*comatproto.ServerCreateInviteCode_Output, error) {
	var owners []string
	if owner := value(in.ForAccount); owner != "" {
		owners = []string{owner}
	}
	made, err := s.makeInvites(ctx, r.Request, 1, in.UseCount, owners)
	if err != nil {
		return nil, err
	}
	return &comatproto.ServerCreateInviteCode_Output{Code: made[0].Code}, nil
}

// createInviteCodes is com.atproto.server.createInviteCodes, for the operator.
func (s *Service) createInviteCodes(ctx context.Context, r *xrpc.Request, in *comatproto.ServerCreateInviteCodes_Input) (*comatproto.ServerCreateInviteCodes_Output, error) {
	made, err := s.makeInvites(ctx, r.Request, in.CodeCount, in.UseCount, in.ForAccounts)
	if err != nil {
		return nil, err
	}
	out := &comatproto.ServerCreateInviteCodes_Output{}
	for _, i := range made {
		if n := len(out.Codes); n == 0 || out.Codes[n-1].Account != i.For {
			out.Codes = append(out.Codes, comatproto.ServerCreateInviteCodes_AccountCodes{Account: i.For})
		}
		last := &out.Codes[len(out.Codes)-1]
		last.Codes = append(last.Codes, i.Code)
	}
	return out, nil
}

// makeInvites makes count codes for each owner, those of one owner next to each other.
func (s *Service) makeInvites(ctx context.Context, r *http.Request, count, uses int64, owners []string) ([]*invite, error) {
	if err := s.requireAdmin(r); err != nil {
		return nil, err
	}
	if len(owners) == 0 {
		owners = []string{adminOwner}
	}
	for _, o := range owners {
		if _, err := syntax.ParseDID(o); err != nil && o != adminOwner {
			return nil, invalid("%q is not the DID of an account", o)
		}
		if a, err := s.account(syntax.DID(o)); err == nil && a.NoInvites {
			return nil, invalid("%s gets no invite codes", o)
		} else if err != nil && !errors.Is(err, errNoAccount) {
			return nil, err
		}
		if gone, err := s.inviterGone(&invite{For: o}); err != nil {
			return nil, err
		} else if gone {
			return nil, invalid("the account %s is taken down or deleted", o)
		}
	}
	if uses < 1 || uses > maxInviteUses {
		return nil, invalid("useCount: want 1 to %d", maxInviteUses)
	}
	if count < 1 || count > maxInviteCodes || count*int64(len(owners)) > maxInviteCodes {
		return nil, invalid("want 1 to %d codes", maxInviteCodes)
	}
	var made []*invite
	for _, o := range owners {
		for range count {
			made = append(made, s.newInvite(int(uses), o, adminOwner))
		}
	}
	return made, s.write(ctx, func(b kv.Batch) {
		for _, i := range made {
			i.put(b)
		}
	})
}

// getAccountInviteCodes is com.atproto.server.getAccountInviteCodes: the codes that the operator gave to the caller's account. No new ones are
// made here.
func (s *Service) getAccountInviteCodes(_ context.Context, r *xrpc.Request, p *comatproto.ServerGetAccountInviteCodes_Params) (*comatproto.ServerGetAccountInviteCodes_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	out := &comatproto.ServerGetAccountInviteCodes_Output{Codes: []comatproto.ServerDefs_InviteCode{}}
	codes, err := s.ownInvites(info.DID)
	if err != nil {
		return nil, err
	}
	for _, i := range codes {
		uses, err := s.inviteUses(i.Code)
		if err != nil {
			return nil, err
		}
		if p.IncludeUsed != nil && !*p.IncludeUsed && len(uses) >= i.Uses {
			continue
		}
		out.Codes = append(out.Codes, i.view(uses))
	}
	return out, nil
}

// view is what a code looks like from outside.
func (i *invite) view(uses []inviteUsed) comatproto.ServerDefs_InviteCode {
	v := comatproto.ServerDefs_InviteCode{
		Code: i.Code, Available: int64(i.Uses), Disabled: i.Disabled, ForAccount: i.For, CreatedBy: i.By,
		CreatedAt: datetime(i.Created), Uses: []comatproto.ServerDefs_InviteCodeUse{},
	}
	for _, u := range uses {
		v.Uses = append(v.Uses, comatproto.ServerDefs_InviteCodeUse{UsedBy: string(u.by), UsedAt: u.at})
	}
	return v
}
