package pds

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/xrpc"
)

// invalid is the answer to a request that is wrong in itself.
func invalid(format string, args ...any) *xrpc.Error {
	return &xrpc.Error{Status: http.StatusBadRequest, Name: "InvalidRequest", Message: fmt.Sprintf(format, args...)}
}

func badRequest(name, message string) *xrpc.Error {
	return &xrpc.Error{Status: http.StatusBadRequest, Name: name, Message: message}
}

// answer turns an error of the engine into what a client gets. What it doesn't know stays as it is: an internal error.
func answer(err error) error {
	if err == nil {
		return nil
	}
	var (
		x        *xrpc.Error
		swap     *swapError
		conflict *conflictError
		commit   *repo.VerifyError
		inactive *inactiveError
		blob     *blobError
		imp      *importError
		lex      *lexicon.Error
		enc      *cbor.Error
		large    *http.MaxBytesError
		quota    *quotaError
	)
	switch {
	case errors.As(err, &x):
		return x
	case errors.As(err, &swap):
		return badRequest("InvalidSwap", swap.Error())
	case errors.As(err, &conflict):
		return invalid("%s", conflict.Error())
	case errors.As(err, &commit):
		return invalid("%s", commit.Error()) // too many or too large writes
	case errors.As(err, &inactive):
		return inactive.xrpc()
	case errors.As(err, &quota):
		return refuse(http.StatusForbidden, "QuotaExceeded", "%s", quota.Error())
	case errors.As(err, &blob):
		return badRequest(blob.name, blob.Error())
	case errors.As(err, &large):
		return &xrpc.Error{Status: http.StatusRequestEntityTooLarge, Name: "PayloadTooLarge",
			Message: fmt.Sprintf("the body is larger than %d bytes", large.Limit)}
	case errors.As(err, &imp):
		return invalid("%s", imp.Error())
	case errors.As(err, &lex):
		return invalid("%s", lex.Error())
	case errors.As(err, &enc):
		return invalid("%s", enc.Error())
	case errors.Is(err, errRepoNotFound):
		return badRequest("RepoNotFound", errRepoNotFound.Error())
	case errors.Is(err, errImportRaced):
		return &xrpc.Error{Status: http.StatusConflict, Name: "InvalidSwap", Message: errImportRaced.Error()}
	}
	return err
}

// xrpc is the answer to a write by an account that may not write.
func (e *inactiveError) xrpc() *xrpc.Error {
	switch e.status {
	case hostingDeactivated:
		return &xrpc.Error{Status: http.StatusUnauthorized, Name: "AccountDeactivated", Message: e.Error()}
	case hostingTakendown, hostingSuspended:
		return &xrpc.Error{Status: http.StatusUnauthorized, Name: "AccountTakedown", Message: e.Error()}
	}
	return badRequest("AccountInactive", e.Error())
}

// repoError is the answer to a read of a repository that is not served.
func repoError(status hosting) *xrpc.Error {
	switch status {
	case hostingTakendown:
		return badRequest("RepoTakendown", "this repository has been taken down")
	case hostingSuspended:
		return badRequest("RepoSuspended", "this repository is suspended")
	case hostingDeactivated:
		return badRequest("RepoDeactivated", "this repository is deactivated")
	}
	return badRequest("RepoNotFound", errRepoNotFound.Error())
}

// bodyError says whether reading an upload failed because of what it holds or of how it came.
func bodyError(err error, doing string) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return importErrorf("%s: %v", doing, err)
}
