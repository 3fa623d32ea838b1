package pds

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// updateHandle is com.atproto.identity.updateHandle. The identity changes first and the account here second; what a crash in between leaves
// undone is done after the next start, see pending.go, or by the owner's next try.
func (s *Service) updateHandle(ctx context.Context, r *xrpc.Request, in *comatproto.IdentityUpdateHandle_Input) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	if err := s.limitBy(r, "updateHandle", string(info.DID)); err != nil {
		return nil, err
	}
	return nil, s.rename(ctx, info.Account, in.Handle, false)
}

// rename gives an account another handle. The operator may give out reserved ones.
func (s *Service) rename(ctx context.Context, a *account, text string, operator bool) error {
	h, own, err := s.checkHandle(text, operator)
	if err != nil {
		return err
	}
	release, ok := s.claim("handle:"+string(h), "rename:"+string(a.DID))
	if !ok {
		return refuse(http.StatusBadRequest, "HandleNotAvailable", "the handle %s is being taken", h)
	}
	defer release()
	if err := s.handleFree(h, a.DID); err != nil {
		return err
	}
	if !own {
		if err := s.confirmHandle(ctx, h, a.DID); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx)
	err = s.changeIdentity(ctx, a.DID, pendingChange{Handle: h}, func(d *plc.Data) error { d.SetHandle(h); return nil })
	if err != nil {
		return err
	}
	crashpoint.Hit("pds/handle/after-plc")
	return s.finishRename(ctx, a, h)
}

// finishRename does here what the identity says already. The caller holds the claim of the handle.
func (s *Service) finishRename(ctx context.Context, a *account, h syntax.Handle) error {
	err := s.changeAccount(ctx, a.DID, func(a *account) error { a.Handle = h; return nil }, accountChange{
		Identity: true, Handle: h, Ops: func(b kv.Batch) { b.Delete(pendingKey(a.DID)) },
	})
	if err == nil {
		s.dropPending(a.DID)
	}
	s.forgetIdentity(a.DID, a.Handle, h)
	return err
}

// resolveHandle is com.atproto.identity.resolveHandle.
func (s *Service) resolveHandle(ctx context.Context, _ *xrpc.Request, p *comatproto.IdentityResolveHandle_Params) (*comatproto.IdentityResolveHandle_Output, error) {
	h, err := syntax.ParseHandle(p.Handle)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "not a valid handle")
	}
	did, err := s.didOfHandle(ctx, h)
	if err != nil {
		return nil, err
	}
	return &comatproto.IdentityResolveHandle_Output{Did: string(did)}, nil
}

// didOfHandle resolves a handle: of accounts here from the accounts, others through the network.
func (s *Service) didOfHandle(ctx context.Context, h syntax.Handle) (syntax.DID, error) {
	h = h.Normalize()
	notFound := refuse(http.StatusBadRequest, "HandleNotFound", "the handle %s does not resolve", h)
	a, err := s.accountByHandle(h)
	if err == nil {
		return a.DID, nil
	}
	if !errors.Is(err, errNoAccount) {
		return "", err
	}
	if s.ownHandle(h) || h.Reserved() {
		return "", notFound // asking the network would come back to this server
	}
	did, err := s.resolveForeign(ctx, h, false)
	if err != nil {
		return "", notFound
	}
	return did, nil
}

// resolveDid is com.atproto.identity.resolveDid.
func (s *Service) resolveDid(ctx context.Context, _ *xrpc.Request, p *comatproto.IdentityResolveDid_Params) (*comatproto.IdentityResolveDid_Output, error) {
	did, err := syntax.ParseDID(p.Did)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "not a valid DID")
	}
	doc, err := s.resolveDocument(ctx, did, false)
	if err != nil {
		return nil, identityFailure(err)
	}
	return &comatproto.IdentityResolveDid_Output{DidDoc: rawDocument(doc.Raw)}, nil
}

// resolveIdentity is com.atproto.identity.resolveIdentity.
func (s *Service) resolveIdentity(ctx context.Context, _ *xrpc.Request, p *comatproto.IdentityResolveIdentity_Params) (*comatproto.IdentityDefs_IdentityInfo, error) {
	return s.identityInfo(ctx, p.Identifier, false)
}

// refreshIdentity is com.atproto.identity.refreshIdentity: resolveIdentity past the caches, counted because each one asks others.
func (s *Service) refreshIdentity(ctx context.Context, r *xrpc.Request, in *comatproto.IdentityRefreshIdentity_Input) (*comatproto.IdentityDefs_IdentityInfo, error) {
	if err := s.limit(r, "refreshIdentity", ""); err != nil {
		return nil, err
	}
	return s.identityInfo(ctx, in.Identifier, true)
}

func (s *Service) identityInfo(ctx context.Context, identifier string, fresh bool) (*comatproto.IdentityDefs_IdentityInfo, error) {
	id, err := syntax.ParseAtIdentifier(identifier)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "want a DID or a handle")
	}
	var did syntax.DID
	if id.IsDID() {
		did = id.DID()
	} else if did, err = s.didOfHandle(ctx, id.Handle()); err != nil {
		return nil, err
	}
	doc, err := s.resolveDocument(ctx, did, fresh)
	if err != nil {
		return nil, identityFailure(err)
	}
	// The handle counts only when it leads back to the DID.
	handle := syntax.Handle(syntax.InvalidHandle)
	if h := doc.Claimed; h != "" {
		if back, err := s.didOfHandle(ctx, h); err == nil && back == did {
			handle = h.Normalize()
		}
	}
	return &comatproto.IdentityDefs_IdentityInfo{Did: string(did), Handle: string(handle), DidDoc: rawDocument(doc.Raw)}, nil
}

// getRecommendedDidCredentials is com.atproto.identity.getRecommendedDidCredentials: what an identity has to say so that its account can live here.
func (s *Service) getRecommendedDidCredentials(_ context.Context, r *xrpc.Request, _ *xrpc.None) (*comatproto.IdentityGetRecommendedDidCredentials_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	a := info.Account
	var rotation []string
	if k := s.cfg.Accounts.RecoveryKey; k != "" {
		rotation = append(rotation, k)
	}
	d := plc.AtprotoData(a.PublicKey, a.Handle, s.cfg.PublicURL, append(rotation, s.accounts.secrets.rotation.Public().DIDKey())...)
	methods, services, err := rawCredentials(d)
	if err != nil {
		return nil, err
	}
	out := &comatproto.IdentityGetRecommendedDidCredentials_Output{AlsoKnownAs: d.AlsoKnownAs, VerificationMethods: methods, Services: services}
	if a.DID.Method() == "plc" {
		out.RotationKeys = d.RotationKeys
	}
	return out, nil
}

// plcService is a service as PLC operations write it.
type plcService struct {
	Type     string `json:"type"`
	Endpoint string `json:"endpoint"`
}

func rawCredentials(d plc.Data) (methods, services data.Raw, err error) {
	m, err := json.Marshal(d.VerificationMethods)
	if err != nil {
		return nil, nil, err
	}
	named := map[string]plcService{}
	for name, sv := range d.Services {
		named[name] = plcService(sv)
	}
	v, err := json.Marshal(named)
	if err != nil {
		return nil, nil, err
	}
	if methods, err = data.AppendCBOR(nil, m); err != nil {
		return nil, nil, err
	}
	services, err = data.AppendCBOR(nil, v)
	return methods, services, err
}

// requestPlcOperationSignature is com.atproto.identity.requestPlcOperationSignature.
func (s *Service) requestPlcOperationSignature(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess, scopeTakendown)
	if err != nil {
		return nil, err
	}
	return nil, s.mailToken(ctx, r, info.Account, tokenPLC)
}

// signPlcOperation is com.atproto.identity.signPlcOperation: signs a change of the identity that the owner confirmed with a token. What the
// request leaves out stays as it is.
func (s *Service) signPlcOperation(ctx context.Context, r *xrpc.Request, in *comatproto.IdentitySignPlcOperation_Input) (*comatproto.IdentitySignPlcOperation_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess, scopeTakendown)
	if err != nil {
		return nil, err
	}
	if info.DID.Method() != "plc" {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "only did:plc identities have operations")
	}
	if value(in.Token) == "" {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "a confirmation token is needed")
	}
	release, err := s.useToken(ctx, info.Account, tokenPLC, *in.Token)
	if err != nil {
		return nil, err
	}
	defer release()
	op, err := s.nextOperation(ctx, info.DID, func(d *plc.Data) error { return editData(d, in) })
	if err != nil {
		return nil, plcFailure(err)
	}
	if op == nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "the operation would change nothing")
	}
	if err := s.write(ctx, func(b kv.Batch) { b.Delete(tokenKey(info.DID, tokenPLC)) }); err != nil {
		return nil, err
	}
	raw, err := data.AppendCBOR(nil, op.AppendJSON(nil))
	return &comatproto.IdentitySignPlcOperation_Output{Operation: raw}, err
}

func editData(d *plc.Data, in *comatproto.IdentitySignPlcOperation_Input) error {
	bad := func(what string) error {
		return refuse(http.StatusBadRequest, "InvalidRequest", "%s is malformed", what)
	}
	if in.RotationKeys != nil {
		d.RotationKeys = in.RotationKeys
	}
	if in.AlsoKnownAs != nil {
		d.AlsoKnownAs = in.AlsoKnownAs
	}
	if in.VerificationMethods != nil {
		var m map[string]string
		if text, err := data.AppendJSON(nil, in.VerificationMethods); err != nil || json.Unmarshal(text, &m) != nil {
			return bad("verificationMethods")
		}
		d.VerificationMethods = m
	}
	if in.Services != nil {
		var m map[string]plcService
		if text, err := data.AppendJSON(nil, in.Services); err != nil || json.Unmarshal(text, &m) != nil {
			return bad("services")
		}
		d.Services = map[string]plc.Service{}
		for name, sv := range m {
			d.Services[name] = plc.Service(sv)
		}
	}
	return nil
}

// submitPlcOperation is com.atproto.identity.submitPlcOperation: registers an operation that leaves the account able to live here, and no other.
func (s *Service) submitPlcOperation(ctx context.Context, r *xrpc.Request, in *comatproto.IdentitySubmitPlcOperation_Input) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	if info.DID.Method() != "plc" {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "only did:plc identities have operations")
	}
	op, err := parseOperation(in.Operation)
	if err != nil || op.Type != plc.TypeOperation {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "not a PLC operation")
	}
	if err := op.Check(); err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "%v", err)
	}
	if err := s.fitsHere(&op.Data, info.Account.Handle, info.Account.PublicKey, "InvalidRequest"); err != nil {
		return nil, err
	}
	release, ok := s.claim("rename:" + string(info.DID))
	if !ok {
		return nil, refuse(http.StatusConflict, "InvalidRequest", "the identity is being changed: try again")
	}
	defer release()
	ctx = context.WithoutCancel(ctx)
	if err := s.intend(ctx, info.DID, pendingChange{Op: op.CID().String()}); err != nil {
		return nil, err
	}
	if err := s.settled(ctx, info.DID, s.accounts.plc.Submit(ctx, info.DID, op)); err != nil {
		return nil, err
	}
	crashpoint.Hit("pds/identity/after-plc")
	return nil, s.announce(ctx, info.Account)
}

// announce tells the network that an identity changed in a way that changes nothing here.
func (s *Service) announce(ctx context.Context, a *account) error {
	s.forgetIdentity(a.DID, a.Handle)
	err := s.changeAccount(ctx, a.DID, func(*account) error { return nil }, accountChange{
		Identity: true, Handle: a.Handle, Ops: func(b kv.Batch) { b.Delete(pendingKey(a.DID)) },
	})
	if err == nil {
		s.dropPending(a.DID)
	}
	return err
}
