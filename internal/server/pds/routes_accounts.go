package pds

import (
	"net/http"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/xrpc"
)

// routesAccounts adds the methods about accounts, sessions, identities and actors, and the well-known documents.
func (s *Service) routesAccounts(x *xrpc.Server) {
	xrpc.HandleQuery(x, comatproto.ServerDescribeServer, s.describeServer)
	xrpc.HandleProcedure(x, comatproto.ServerCreateAccount, s.createAccount)
	xrpc.HandleProcedure(x, comatproto.ServerReserveSigningKey, s.reserveSigningKey)
	xrpc.HandleProcedure(x, comatproto.ServerCreateSession, s.createSession)
	xrpc.HandleQuery(x, comatproto.ServerGetSession, s.getSession)
	xrpc.HandleProcedure(x, comatproto.ServerRefreshSession, s.refreshSession)
	xrpc.HandleProcedure(x, comatproto.ServerDeleteSession, s.deleteSession)
	xrpc.HandleQuery(x, comatproto.ServerGetServiceAuth, s.getServiceAuth)
	xrpc.HandleProcedure(x, comatproto.ServerCreateAppPassword, s.createAppPassword)
	xrpc.HandleQuery(x, comatproto.ServerListAppPasswords, s.listAppPasswords)
	xrpc.HandleProcedure(x, comatproto.ServerRevokeAppPassword, s.revokeAppPassword)
	xrpc.HandleQuery(x, comatproto.ServerCheckAccountStatus, s.checkAccountStatus)
	xrpc.HandleProcedure(x, comatproto.ServerActivateAccount, s.activateAccount)
	xrpc.HandleProcedure(x, comatproto.ServerDeactivateAccount, s.deactivateAccount)
	xrpc.HandleProcedure(x, comatproto.ServerRequestAccountDelete, s.requestAccountDelete)
	xrpc.HandleProcedure(x, comatproto.ServerDeleteAccount, s.deleteAccount)
	xrpc.HandleProcedure(x, comatproto.ServerRequestEmailConfirmation, s.requestEmailConfirmation)
	xrpc.HandleProcedure(x, comatproto.ServerConfirmEmail, s.confirmEmail)
	xrpc.HandleProcedure(x, comatproto.ServerRequestEmailUpdate, s.requestEmailUpdate)
	xrpc.HandleProcedure(x, comatproto.ServerUpdateEmail, s.updateEmail)
	xrpc.HandleProcedure(x, comatproto.ServerRequestPasswordReset, s.requestPasswordReset)
	xrpc.HandleProcedure(x, comatproto.ServerResetPassword, s.resetPassword)
	xrpc.HandleProcedure(x, comatproto.ServerCreateInviteCode, s.createInviteCode)
	xrpc.HandleProcedure(x, comatproto.ServerCreateInviteCodes, s.createInviteCodes)
	xrpc.HandleQuery(x, comatproto.ServerGetAccountInviteCodes, s.getAccountInviteCodes)

	xrpc.HandleQuery(x, comatproto.IdentityResolveHandle, s.resolveHandle)
	xrpc.HandleQuery(x, comatproto.IdentityResolveDid, s.resolveDid)
	xrpc.HandleQuery(x, comatproto.IdentityResolveIdentity, s.resolveIdentity)
	xrpc.HandleProcedure(x, comatproto.IdentityRefreshIdentity, s.refreshIdentity)
	xrpc.HandleProcedure(x, comatproto.IdentityUpdateHandle, s.updateHandle)
	xrpc.HandleQuery(x, comatproto.IdentityGetRecommendedDidCredentials, s.getRecommendedDidCredentials)
	xrpc.HandleProcedure(x, comatproto.IdentityRequestPlcOperationSignature, s.requestPlcOperationSignature)
	xrpc.HandleProcedure(x, comatproto.IdentitySignPlcOperation, s.signPlcOperation)
	xrpc.HandleProcedure(x, comatproto.IdentitySubmitPlcOperation, s.submitPlcOperation)

	xrpc.HandleQuery(x, appbsky.ActorGetProfile, s.getProfile)
	xrpc.HandleQuery(x, appbsky.ActorGetProfiles, s.getProfiles)
	xrpc.HandleRaw(x, "app.bsky.actor.getPreferences", http.MethodGet, s.getPreferences)
	xrpc.HandleRaw(x, "app.bsky.actor.putPreferences", http.MethodPost, s.putPreferences)

	x.Handle("GET /.well-known/atproto-did", http.HandlerFunc(s.atprotoDID))
	x.Handle("GET /.well-known/did.json", http.HandlerFunc(s.didJSON))
}
