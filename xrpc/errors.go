package xrpc

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"syscall"
)

// Error is an answer that is no success: what a client got, or what a handler wants sent.
type Error struct {
	Status  int         // of HTTP
	Name    string      // as in the lexicon of the method; may be empty if the answer wasn't in the form of the protocol
	Message string      // for people
	Header  http.Header // of the response; a handler may set more

	NSID string // of the method that a client called; "" at a server
	// Body is the beginning of an answer that isn't in the form of the protocol, as of a proxy, at most [MaxErrorBody] bytes.
	// It is whatever came: don't show it to people as it is.
	Body []byte
}

// MaxErrorBody is how many bytes of an answer in another form an [Error] keeps.
const MaxErrorBody = 512

// Error returns one line, which names the method that was called.
func (e *Error) Error() string {
	s := "xrpc: "
	if e.NSID != "" {
		s = "calling " + e.NSID + ": "
	}
	s += strconv.Itoa(e.Status)
	if e.Name != "" {
		s += " " + e.Name
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is reports whether target is the [ErrorName] of e.
func (e *Error) Is(target error) bool {
	n, ok := target.(ErrorName)
	return ok && string(n) == e.Name
}

// ErrorName is the name of an error in the protocol. It is an error itself: as a target of errors.Is, and returned by a
// handler that has nothing to add.
type ErrorName string

// Names that any method may answer with, each with its usual status.
const (
	ErrInvalidRequest       ErrorName = "InvalidRequest"         // 400
	ErrExpiredToken         ErrorName = "ExpiredToken"           // 400
	ErrInvalidToken         ErrorName = "InvalidToken"           // 400
	ErrAuthRequired         ErrorName = "AuthenticationRequired" // 401
	ErrAuthMissing          ErrorName = "AuthMissing"            // 401
	ErrForbidden            ErrorName = "Forbidden"              // 403
	ErrPayloadTooLarge      ErrorName = "PayloadTooLarge"        // 413
	ErrUnsupportedMediaType ErrorName = "UnsupportedMediaType"   // 415
	ErrRateLimitExceeded    ErrorName = "RateLimitExceeded"      // 429
	ErrInternal             ErrorName = "InternalServerError"    // 500
	ErrNotImplemented       ErrorName = "MethodNotImplemented"   // 501
	ErrUpstreamFailure      ErrorName = "UpstreamFailure"        // 502
	ErrNotEnoughResources   ErrorName = "NotEnoughResources"     // 503
	ErrUpstreamTimeout      ErrorName = "UpstreamTimeout"        // 504
)

var statusOf = map[ErrorName]int{
	ErrAuthRequired: 401, ErrAuthMissing: 401, ErrForbidden: 403, ErrPayloadTooLarge: 413, ErrUnsupportedMediaType: 415,
	ErrRateLimitExceeded: 429, ErrInternal: 500, ErrNotImplemented: 501, ErrUpstreamFailure: 502,
	ErrNotEnoughResources: 503, ErrUpstreamTimeout: 504,
}

// Status returns the usual status of n: 400 for a name that isn't in the list above.
func (n ErrorName) Status() int {
	if s := statusOf[n]; s != 0 {
		return s
	}
	return http.StatusBadRequest
}

// Error returns the name.
func (n ErrorName) Error() string { return "xrpc: " + string(n) }

// With returns an [*Error] of the usual status with a message for people.
func (n ErrorName) With(format string, args ...any) *Error {
	return &Error{Status: n.Status(), Name: string(n), Message: fmt.Sprintf(format, args...)}
}

// WithStatus is [ErrorName.With] for another status.
func (n ErrorName) WithStatus(status int, format string, args ...any) *Error {
	return &Error{Status: status, Name: string(n), Message: fmt.Sprintf(format, args...)}
}

// asError returns what a client may see of an error, or false if it is the server's own business.
func asError(err error) (*Error, bool) {
	var e *Error
	if errors.As(err, &e) {
		return e, true
	}
	var n ErrorName
	if errors.As(err, &n) {
		return &Error{Status: n.Status(), Name: string(n)}, true
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return ErrPayloadTooLarge.With("the body is larger than %d bytes", tooLarge.Limit), true
	}
	if errors.Is(err, syscall.ENOSPC) { // whoever runs it may be the one who reads this
		return ErrNotEnoughResources.With("the server has no space left to write to"), false
	}
	return ErrInternal.With("internal server error"), false
}
