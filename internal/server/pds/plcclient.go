package pds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

const (
	plcTimeout = 10 * time.Second
	maxPLCBody = 64 << 10
)

// genesis makes and registers a new identity for an account hosted here. recovery, a did:key or empty, comes before the server's own keys.
func (s *Service) genesis(handle syntax.Handle, signingKey, recovery string) (*plc.Operation, error) {
	var rotation []string
	for _, k := range []string{recovery, s.cfg.Accounts.RecoveryKey, s.accounts.secrets.rotation.Public().DIDKey()} {
		if k != "" && (len(rotation) == 0 || rotation[len(rotation)-1] != k) {
			rotation = append(rotation, k)
		}
	}
	op := plc.NewOperation(plc.AtprotoData(signingKey, handle, s.cfg.PublicURL, rotation...), cid.CID{})
	if err := op.Sign(s.accounts.secrets.rotation); err != nil {
		return nil, fmt.Errorf("signing a PLC genesis: %w", err)
	}
	return op, nil
}

// changePLC signs and registers an operation that makes the given change to the state of did; nothing happens when the change changes nothing.
func (s *Service) changePLC(ctx context.Context, did syntax.DID, change func(*plc.Data) error) error {
	const tries = 3 // another operation may come between reading the log and adding to it
	for try := 1; ; try++ {
		op, err := s.nextOperation(ctx, did, change)
		if err != nil || op == nil {
			return err
		}
		err = s.accounts.plc.Submit(ctx, did, op)
		if plcdir.StatusOf(err) == http.StatusConflict && try < tries {
			continue
		}
		return err
	}
}

// nextOperation builds and signs the operation that changePLC registers; nil when there is nothing to do.
func (s *Service) nextOperation(ctx context.Context, did syntax.DID, change func(*plc.Data) error) (*plc.Operation, error) {
	last, err := s.accounts.plc.Last(ctx, did)
	if err != nil {
		return nil, err
	}
	state, ok := last.State()
	if !ok {
		return nil, refuse(http.StatusBadRequest, "DidDeactivated", "the identity %s has ended", did)
	}
	next := state.Clone()
	if err := change(&next); err != nil {
		return nil, err
	}
	op := plc.NewOperation(next, last.CID())
	before := plc.NewOperation(state, last.CID())
	if last.Type == plc.TypeOperation && bytes.Equal(op.Unsigned(), before.Unsigned()) {
		return nil, nil
	}
	own := s.accounts.secrets.rotation
	if !slices.Contains(state.RotationKeys, own.Public().DIDKey()) {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "this server holds no rotation key of %s", did)
	}
	if err := op.Sign(own); err != nil {
		return nil, fmt.Errorf("signing a PLC operation: %w", err)
	}
	if err := op.Check(); err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "%v", err)
	}
	return op, nil
}

// plcFailure turns an error of the directory into an answer: what it refused is the client's affair, what it didn't answer is not.
func plcFailure(err error) error {
	e, ok := errors.AsType[*plcdir.Error](err)
	if !ok {
		return err
	}
	if e.Status/100 == 4 {
		return refuse(http.StatusBadRequest, "InvalidRequest", "the PLC directory refused the operation: %s", e.Message)
	}
	return refuse(http.StatusBadGateway, "UpstreamFailure", "the PLC directory can't be reached now")
}

func trimURL(u string) string { return strings.TrimRight(u, "/") }
