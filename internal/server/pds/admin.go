package pds

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// The operator's methods, com.atproto.admin. All of them ask for the operator's password first, and say then what is there and what not.

const (
	maxAccountInfos = 100
	maxSubjectRef   = 2048
)

// routesAdmin adds the operator's methods.
func (s *Service) routesAdmin(x *xrpc.Server) {
	adminQuery(s, x, comatproto.AdminGetAccountInfo, s.getAccountInfo)
	adminQuery(s, x, comatproto.AdminGetAccountInfos, s.getAccountInfos)
	adminQuery(s, x, comatproto.AdminSearchAccounts, s.searchAccounts)
	adminQuery(s, x, comatproto.AdminGetSubjectStatus, s.getSubjectStatus)
	adminQuery(s, x, comatproto.AdminGetInviteCodes, s.getInviteCodes)
	adminProcedure(s, x, comatproto.AdminUpdateSubjectStatus, s.updateSubjectStatus)
	adminProcedure(s, x, comatproto.AdminDeleteAccount, s.adminDeleteAccount)
	adminProcedure(s, x, comatproto.AdminDisableAccountInvites, s.disableAccountInvites)
	adminProcedure(s, x, comatproto.AdminEnableAccountInvites, s.enableAccountInvites)
	adminProcedure(s, x, comatproto.AdminDisableInviteCodes, s.disableInviteCodes)
	adminProcedure(s, x, comatproto.AdminSendEmail, s.adminSendEmail)
	adminProcedure(s, x, comatproto.AdminUpdateAccountEmail, s.updateAccountEmail)
	adminProcedure(s, x, comatproto.AdminUpdateAccountHandle, s.updateAccountHandle)
	adminProcedure(s, x, comatproto.AdminUpdateAccountPassword, s.updateAccountPassword)
	adminProcedure(s, x, comatproto.AdminUpdateAccountSigningKey, s.updateAccountSigningKey)
}

func adminQuery[P, O any](s *Service, x *xrpc.Server, q xrpc.Query[P, O], f func(context.Context, *P) (*O, error)) {
	xrpc.HandleQuery(x, q, func(ctx context.Context, _ *xrpc.Request, p *P) (*O, error) { return f(ctx, p) }, xrpc.RouteOptions{Auth: s.authAdmin})
}

func adminProcedure[I, O any](s *Service, x *xrpc.Server, q xrpc.Procedure[I, O], f func(context.Context, *I) (*O, error)) {
	xrpc.HandleProcedure(x, q, func(ctx context.Context, _ *xrpc.Request, in *I) (*O, error) { return f(ctx, in) }, xrpc.RouteOptions{Auth: s.authAdmin})
}

// authAdmin lets the operator pass, before anything of a request is read.
func (s *Service) authAdmin(r *http.Request, _ string) (any, error) {
	return nil, s.requireAdmin(r)
}

// adminAccount is the account that the operator means by its DID.
func (s *Service) adminAccount(did string) (*account, error) {
	d, err := syntax.ParseDID(did)
	if err != nil {
		return nil, invalid("did: %v", err)
	}
	return s.namedAccount(string(d))
}

// namedAccount is the account that the operator means by a DID or a handle.
func (s *Service) namedAccount(name string) (*account, error) {
	id, err := syntax.ParseAtIdentifier(name)
	if err != nil {
		return nil, invalid("want a DID or a handle")
	}
	a, err := s.findAccount(string(id))
	if errors.Is(err, errNoAccount) {
		return nil, noAccountNamed(name)
	}
	return a, err
}

// accountView is what the operator sees of an account.
func (s *Service) accountView(a *account) (*comatproto.AdminDefs_AccountView, error) {
	v := &comatproto.AdminDefs_AccountView{
		Did: string(a.DID), Handle: string(a.Handle), IndexedAt: datetime(a.Created), Email: optional(a.Email),
		InvitesDisabled: new(a.NoInvites), InviteNote: optional(a.InviteNote),
	}
	if a.EmailConfirmed {
		v.EmailConfirmedAt = optional(datetime(a.EmailConfirmedAt))
	}
	if !a.Deactivated.IsZero() {
		v.DeactivatedAt = optional(datetime(a.Deactivated))
	}
	if a.Invite != "" {
		i, err := s.loadInvite(a.Invite)
		if err != nil && !errors.Is(err, errInvite) {
			return nil, err
		}
		if i != nil {
			by, err := s.inviteView(i)
			if err != nil {
				return nil, err
			}
			v.InvitedBy = &by
		}
	}
	own, err := s.ownInvites(a.DID)
	if err != nil {
		return nil, err
	}
	for _, i := range own {
		one, err := s.inviteView(i)
		if err != nil {
			return nil, err
		}
		v.Invites = append(v.Invites, one)
	}
	return v, nil
}

func (s *Service) inviteView(i *invite) (comatproto.ServerDefs_InviteCode, error) {
	uses, err := s.inviteUses(i.Code)
	if err != nil {
		return comatproto.ServerDefs_InviteCode{}, err
	}
	gone, err := s.inviterGone(i)
	v := i.view(uses)
	v.Disabled = v.Disabled || gone
	return v, err
}

// getAccountInfo is com.atproto.admin.getAccountInfo.
func (s *Service) getAccountInfo(_ context.Context, p *comatproto.AdminGetAccountInfo_Params) (*comatproto.AdminGetAccountInfo_Output, error) {
	a, err := s.adminAccount(p.Did)
	if err != nil {
		return nil, err
	}
	return s.accountView(a)
}

// getAccountInfos is com.atproto.admin.getAccountInfos. Accounts that are not here are left out.
func (s *Service) getAccountInfos(_ context.Context, p *comatproto.AdminGetAccountInfos_Params) (*comatproto.AdminGetAccountInfos_Output, error) {
	if len(p.Dids) > maxAccountInfos {
		return nil, invalid("dids: want at most %d", maxAccountInfos)
	}
	out := &comatproto.AdminGetAccountInfos_Output{Infos: []comatproto.AdminDefs_AccountView{}}
	for _, did := range p.Dids {
		a, err := s.account(syntax.DID(did))
		if errors.Is(err, errNoAccount) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v, err := s.accountView(a)
		if err != nil {
			return nil, err
		}
		out.Infos = append(out.Infos, *v)
	}
	return out, nil
}

// searchAccounts is com.atproto.admin.searchAccounts: accounts whose address has a text in it, or all, in the order of their DIDs.
func (s *Service) searchAccounts(ctx context.Context, p *comatproto.AdminSearchAccounts_Params) (*comatproto.AdminSearchAccounts_Output, error) {
	limit, part := pageLimit(p.Limit, 50, 100), normalizeEmail(value(p.Email))
	lo, hi := []byte(rowAccount), kv.PrefixEnd([]byte(rowAccount))
	if c := value(p.Cursor); c != "" {
		did, err := syntax.ParseDID(c)
		if err != nil {
			return nil, invalid("cursor: not one that this method gave")
		}
		lo = append([]byte(rowAccount+string(did)), 0)
	}
	it := s.store.Iter(lo, hi)
	defer it.Close()
	out := &comatproto.AdminSearchAccounts_Output{Accounts: []comatproto.AdminDefs_AccountView{}}
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a, err := s.account(syntax.DID(it.Key()[len(rowAccount):]))
		if errors.Is(err, errNoAccount) {
			continue // deleted just now
		}
		if err != nil {
			return nil, err
		}
		if !strings.Contains(normalizeEmail(a.Email), part) {
			continue
		}
		if len(out.Accounts) == limit {
			out.Cursor = &out.Accounts[limit-1].Did
			break
		}
		v, err := s.accountView(a)
		if err != nil {
			return nil, err
		}
		out.Accounts = append(out.Accounts, *v)
	}
	return out, it.Err()
}

// subject is what a takedown is about: an account, one of its records by path, or one of its blobs by CID.
type subject struct {
	did  syntax.DID
	name string // path or CID; "" for the account
	cid  string // of a record, as the caller named it
}

// parseSubject reads a subject as methods write it.
func parseSubject(u comatproto.AdminGetSubjectStatus_Output_Subject) (subject, error) {
	var did string
	x := subject{}
	switch v := u.Value.(type) {
	case *comatproto.AdminDefs_RepoRef:
		did = v.Did
	case *comatproto.RepoStrongRef:
		uri, err := syntax.ParseATURI(v.Uri)
		if err != nil || uri.RecordKey() == "" {
			return x, invalid("subject: want the URI of a record")
		}
		if _, err := cid.Parse(v.Cid); v.Cid != "" && err != nil {
			return x, invalid("subject: %v", err)
		}
		did, x.cid, x.name = string(uri.Authority()), v.Cid, string(uri.Collection())+"/"+string(uri.RecordKey())
	case *comatproto.AdminDefs_RepoBlobRef:
		c, err := cid.Parse(v.Cid)
		if err != nil {
			return x, invalid("subject: %v", err)
		}
		did, x.name = v.Did, c.String()
	default:
		return x, invalid("subject: want an account, a record or a blob")
	}
	d, err := syntax.ParseDID(did)
	if err != nil {
		return x, invalid("subject: %v", err)
	}
	x.did = d
	return x, nil
}

func status(applied bool, ref string) *comatproto.AdminDefs_StatusAttr {
	return &comatproto.AdminDefs_StatusAttr{Applied: applied, Ref: optional(ref)}
}

// getSubjectStatus is com.atproto.admin.getSubjectStatus.
func (s *Service) getSubjectStatus(_ context.Context, p *comatproto.AdminGetSubjectStatus_Params) (*comatproto.AdminGetSubjectStatus_Output, error) {
	out := &comatproto.AdminGetSubjectStatus_Output{}
	did, uri, blob := value(p.Did), value(p.Uri), value(p.Blob)
	switch {
	case blob != "" && did == "":
		return nil, invalid("the blob of which account? did is missing")
	case blob != "":
		out.Subject.Value = &comatproto.AdminDefs_RepoBlobRef{Did: did, Cid: blob}
	case uri != "":
		out.Subject.Value = &comatproto.RepoStrongRef{Uri: uri}
	case did != "":
		out.Subject.Value = &comatproto.AdminDefs_RepoRef{Did: did}
	default:
		return nil, invalid("want did, uri, or did and blob")
	}
	x, err := parseSubject(out.Subject)
	if err != nil {
		return nil, err
	}
	a, err := s.account(x.did)
	if errors.Is(err, errNoAccount) {
		return s.deletedStatus(x, out)
	}
	if err != nil {
		return nil, err
	}
	if x.name == "" {
		out.Takedown, out.Deactivated = status(a.Takedown != nil, ""), status(!a.Deactivated.IsZero(), "")
		if a.Takedown != nil {
			out.Takedown.Ref = optional(a.Takedown.Ref)
		}
		return out, nil
	}
	t, ok := s.taken.get(x.did, x.name)
	out.Takedown = status(ok, t.Ref)
	head, err := loadHead(s.store, x.did)
	if err != nil || head == nil {
		return nil, err
	}
	if ref, isRecord := out.Subject.Value.(*comatproto.RepoStrongRef); isRecord {
		rec, err := getStored(s.store, head.Gen, x.name)
		if err != nil {
			return nil, err
		}
		if rec == nil && !ok {
			return nil, badRequest("RecordNotFound", "there is no record "+uri+" here")
		}
		ref.Cid = t.CID
		if rec != nil {
			ref.Cid = rec.CID.String()
		}
		return out, nil
	}
	c, err := cid.Parse(x.name)
	if err != nil {
		return nil, err
	}
	row, err := s.blobRow(s.store, head.account, c)
	if err == nil && !row.exists && !ok {
		err = badRequest("BlobNotFound", "there is no blob "+x.name+" of this account")
	}
	return out, err
}

// deletedStatus completes the answer about an account that is deleted, or something of it: what was taken down stays so.
func (s *Service) deletedStatus(x subject, out *comatproto.AdminGetSubjectStatus_Output) (*comatproto.AdminGetSubjectStatus_Output, error) {
	if t, ok := s.taken.get(x.did, x.name); ok {
		out.Takedown = status(true, t.Ref)
		if ref, isRecord := out.Subject.Value.(*comatproto.RepoStrongRef); isRecord {
			ref.Cid = t.CID
		}
		return out, nil
	}
	if x.name == "" {
		v, err := s.loadBarred(x.did)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out.Takedown = status(true, v.Ref)
			return out, nil
		}
	}
	return nil, noAccountNamed(string(x.did))
}

func noAccountNamed(name string) error {
	return badRequest("AccountNotFound", "there is no account "+name+" here")
}

// updateSubjectStatus is com.atproto.admin.updateSubjectStatus. Of a deleted account, takedowns can be ended, and the account itself be taken
// down still.
func (s *Service) updateSubjectStatus(ctx context.Context, in *comatproto.AdminUpdateSubjectStatus_Input) (*comatproto.AdminUpdateSubjectStatus_Output, error) {
	x, err := parseSubject(in.Subject)
	if err != nil {
		return nil, err
	}
	a, err := s.account(x.did)
	gone := errors.Is(err, errNoAccount)
	if err != nil && !gone {
		return nil, err
	}
	ref := ""
	if in.Takedown != nil {
		if ref = value(in.Takedown.Ref); len(ref) > maxSubjectRef {
			return nil, invalid("takedown: the reference is too long")
		}
	}
	if in.Deactivated != nil && x.name != "" {
		return nil, invalid("only an account can be deactivated")
	}
	switch {
	case gone && (in.Takedown == nil || in.Deactivated != nil):
		err = noAccountNamed(string(x.did))
	case gone && x.name == "":
		var known bool
		if known, err = s.barDeleted(ctx, x.did, in.Takedown.Applied, ref); err == nil && !known {
			err = noAccountNamed(string(x.did))
		}
	case gone && (in.Takedown.Applied || !s.taken.hidden(x.did, x.name)):
		err = noAccountNamed(string(x.did))
	case gone:
		err = s.takeDown(ctx, x.did, x.name, nil)
	case in.Takedown == nil:
	case x.name == "":
		err = s.takeDownAccount(ctx, x.did, in.Takedown.Applied, ref)
	case in.Takedown.Applied:
		err = s.takeDown(ctx, x.did, x.name, &takedown{Ref: ref, CID: x.cid, At: s.world.Clock.Now().UTC()})
	default:
		err = s.takeDown(ctx, x.did, x.name, nil)
	}
	if err != nil {
		return nil, err
	}
	if in.Deactivated != nil {
		if in.Deactivated.Applied {
			err = s.deactivate(ctx, x.did, nil)
		} else if a, err = s.account(x.did); err == nil {
			err = s.activate(ctx, a)
		}
		if err != nil {
			return nil, err
		}
	}
	return &comatproto.AdminUpdateSubjectStatus_Output{Subject: in.Subject, Takedown: in.Takedown}, nil
}

// adminDeleteAccount is com.atproto.admin.deleteAccount.
func (s *Service) adminDeleteAccount(ctx context.Context, in *comatproto.AdminDeleteAccount_Input) (*xrpc.None, error) {
	a, err := s.adminAccount(in.Did)
	if err != nil {
		return nil, err
	}
	return nil, s.removeAccount(ctx, a)
}

// disableAccountInvites is com.atproto.admin.disableAccountInvites.
func (s *Service) disableAccountInvites(ctx context.Context, in *comatproto.AdminDisableAccountInvites_Input) (*xrpc.None, error) {
	return nil, s.allowInvites(ctx, in, false)
}

// enableAccountInvites is com.atproto.admin.enableAccountInvites.
func (s *Service) enableAccountInvites(ctx context.Context, in *comatproto.AdminEnableAccountInvites_Input) (*xrpc.None, error) {
	return nil, s.allowInvites(ctx, in, true)
}

func (s *Service) allowInvites(ctx context.Context, in *comatproto.AdminDisableAccountInvites_Input, allow bool) error {
	a, err := s.adminAccount(in.Account)
	if err != nil {
		return err
	}
	if len(value(in.Note)) > maxSubjectRef {
		return invalid("note: too long")
	}
	return s.changeAccount(ctx, a.DID, func(a *account) error {
		a.NoInvites, a.InviteNote = !allow, value(in.Note)
		return nil
	}, accountChange{})
}

// disableInviteCodes is com.atproto.admin.disableInviteCodes. Accounts that were made with a code stay.
func (s *Service) disableInviteCodes(ctx context.Context, in *comatproto.AdminDisableInviteCodes_Input) (*xrpc.None, error) {
	var rows []*invite
	for _, code := range in.Codes {
		i, err := s.loadInvite(code)
		if errors.Is(err, errInvite) {
			return nil, invalid("there is no invite code %q", code)
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, i)
	}
	for _, owner := range in.Accounts {
		if owner == adminOwner {
			return nil, invalid("the operator's own codes are disabled one by one")
		}
		a, err := s.adminAccount(owner)
		if err != nil {
			return nil, err
		}
		own, err := s.ownInvites(a.DID)
		if err != nil {
			return nil, err
		}
		rows = append(rows, own...)
	}
	return nil, s.write(ctx, func(b kv.Batch) {
		for _, i := range rows {
			i.Disabled = true
			i.put(b)
		}
	})
}

// getInviteCodes is com.atproto.admin.getInviteCodes: the newest first, or the most used.
func (s *Service) getInviteCodes(ctx context.Context, p *comatproto.AdminGetInviteCodes_Params) (*comatproto.AdminGetInviteCodes_Output, error) {
	byUse := value(p.Sort) == "usage"
	if v := value(p.Sort); v != "" && v != "recent" && !byUse {
		return nil, invalid("sort: want recent or usage")
	}
	// What a code is sorted by, so that greater comes first: a number, and its name.
	type place struct {
		n    int64
		code string
	}
	before := func(a, b place) int {
		switch {
		case a.n != b.n:
			return int(max(-1, min(1, b.n-a.n)))
		default:
			return strings.Compare(a.code, b.code)
		}
	}
	var after *place
	if c := value(p.Cursor); c != "" {
		n, code, ok := strings.Cut(c, "::")
		v, err := strconv.ParseInt(n, 10, 64)
		if err != nil || !ok {
			return nil, invalid("cursor: not one that this method gave")
		}
		after = &place{v, code}
	}
	limit := pageLimit(p.Limit, 100, 500)
	it := s.store.Iter([]byte(rowInvite), kv.PrefixEnd([]byte(rowInvite)))
	defer it.Close()
	var top []place // the first limit+1 after the cursor, sorted
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		i, err := s.loadInvite(string(it.Key()[len(rowInvite):]))
		if err != nil {
			return nil, err
		}
		at := place{i.Created.UnixMicro(), i.Code}
		if byUse {
			uses, err := s.inviteUses(i.Code)
			if err != nil {
				return nil, err
			}
			at.n = int64(len(uses))
		}
		if after != nil && before(*after, at) >= 0 {
			continue
		}
		if n, _ := slices.BinarySearchFunc(top, at, before); n <= limit {
			if top = slices.Insert(top, n, at); len(top) > limit+1 {
				top = top[:limit+1]
			}
		}
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	out := &comatproto.AdminGetInviteCodes_Output{Codes: []comatproto.ServerDefs_InviteCode{}}
	if len(top) > limit {
		top = top[:limit]
		out.Cursor = optional(strconv.FormatInt(top[limit-1].n, 10) + "::" + top[limit-1].code)
	}
	for _, t := range top {
		i, err := s.loadInvite(t.code)
		if err != nil {
			return nil, err
		}
		v, err := s.inviteView(i)
		if err != nil {
			return nil, err
		}
		out.Codes = append(out.Codes, v)
	}
	return out, nil
}

// adminSendEmail is com.atproto.admin.sendEmail. A mail that waits for its next try is not sent yet.
func (s *Service) adminSendEmail(ctx context.Context, in *comatproto.AdminSendEmail_Input) (*comatproto.AdminSendEmail_Output, error) {
	a, err := s.adminAccount(in.RecipientDid)
	if err != nil {
		return nil, err
	}
	if _, err := syntax.ParseDID(in.SenderDid); err != nil {
		return nil, invalid("senderDid: %v", err)
	}
	if s.cfg.Mail == nil || a.Email == "" && !s.cfg.Mail.Anyone() {
		return nil, invalid("the mail can't be sent: there is no mail server, or the account has no e-mail address")
	}
	subject := value(in.Subject)
	if subject == "" {
		subject = "Message from " + s.hostname()
	}
	m := &mailer.Message{Subject: subject, Text: in.Content, HTML: strings.HasPrefix(strings.TrimSpace(in.Content), "<")}
	sent, err := s.send(ctx, a, "notice "+s.randomName(5), m, noticeLife, nil)
	if err != nil {
		return nil, err
	}
	return &comatproto.AdminSendEmail_Output{Sent: sent}, nil
}

// updateAccountEmail is com.atproto.admin.updateAccountEmail. The owner has to confirm the address.
func (s *Service) updateAccountEmail(ctx context.Context, in *comatproto.AdminUpdateAccountEmail_Input) (*xrpc.None, error) {
	a, err := s.namedAccount(in.Account)
	if err != nil {
		return nil, err
	}
	email := strings.TrimSpace(in.Email)
	if !mailer.ValidAddress(email) {
		return nil, invalid("the e-mail address is not valid")
	}
	return nil, s.setEmail(ctx, a.DID, email, func(*account) error { return nil }, nil)
}

// updateAccountHandle is com.atproto.admin.updateAccountHandle.
func (s *Service) updateAccountHandle(ctx context.Context, in *comatproto.AdminUpdateAccountHandle_Input) (*xrpc.None, error) {
	a, err := s.adminAccount(in.Did)
	if err != nil {
		return nil, err
	}
	return nil, s.rename(ctx, a, in.Handle, true)
}

// updateAccountPassword is com.atproto.admin.updateAccountPassword. All sessions of the account end.
func (s *Service) updateAccountPassword(ctx context.Context, in *comatproto.AdminUpdateAccountPassword_Input) (*xrpc.None, error) {
	a, err := s.adminAccount(in.Did)
	if err != nil {
		return nil, err
	}
	if err := checkPassword(in.Password); err != nil {
		return nil, err
	}
	return nil, s.setPassword(ctx, a.DID, in.Password, func(*account) error { return nil })
}

// updateAccountSigningKey is com.atproto.admin.updateAccountSigningKey. The key is one that was reserved here before, with
// com.atproto.server.reserveSigningKey: others can't sign for the account.
func (s *Service) updateAccountSigningKey(ctx context.Context, in *comatproto.AdminUpdateAccountSigningKey_Input) (*xrpc.None, error) {
	a, err := s.adminAccount(in.Did)
	if err != nil {
		return nil, err
	}
	return nil, s.changeKey(ctx, a, in.SigningKey)
}
