package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// plcClient talks to the PLC directory, https://web.plc.directory/spec/v0.1/did-plc.
type plcClient struct {
	base string
	http *http.Client
}

const (
	plcTimeout = 10 * time.Second
	maxPLCBody = 64 << 10
)

// plcError is a refusal by the directory. Status 0 means that it gave no answer.
type plcError struct {
	Status  int
	Message string
}

func (e *plcError) Error() string {
	if e.Status == 0 {
		return "PLC directory: " + e.Message
	}
	return fmt.Sprintf("PLC directory answered %d: %s", e.Status, e.Message)
}

func (c *plcClient) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	if c.base == "" {
		return nil, &plcError{Message: "none is configured"}
	}
	ctx, cancel := context.WithTimeout(ctx, plcTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking the PLC directory: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &plcError{Message: err.Error()}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPLCBody))
	if err != nil {
		return nil, &plcError{Message: err.Error()}
	}
	if resp.StatusCode/100 != 2 {
		var said struct{ Message string }
		if json.Unmarshal(b, &said) != nil || said.Message == "" {
			said.Message = http.StatusText(resp.StatusCode)
		}
		return nil, &plcError{resp.StatusCode, said.Message}
	}
	return b, nil
}

// submit appends a signed operation to the log of did.
func (c *plcClient) submit(ctx context.Context, did syntax.DID, op *plc.Operation) error {
	_, err := c.do(ctx, http.MethodPost, "/"+string(did), op.AppendJSON(nil))
	return err
}

// last gives the operation that a next one has to follow.
func (c *plcClient) last(ctx context.Context, did syntax.DID) (*plc.Operation, error) {
	b, err := c.do(ctx, http.MethodGet, "/"+string(did)+"/log/last", nil)
	if err != nil {
		return nil, err
	}
	op, err := plc.ParseJSON(b)
	if err != nil {
		return nil, fmt.Errorf("last operation of %s: %w", did, err)
	}
	return op, nil
}

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
		err = s.accounts.plc.submit(ctx, did, op)
		var refused *plcError
		if errors.As(err, &refused) && refused.Status == http.StatusConflict && try < tries {
			continue
		}
		return err
	}
}

// nextOperation builds and signs the operation that changePLC registers; nil when there is nothing to do.
func (s *Service) nextOperation(ctx context.Context, did syntax.DID, change func(*plc.Data) error) (*plc.Operation, error) {
	last, err := s.accounts.plc.last(ctx, did)
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
	var e *plcError
	if !errors.As(err, &e) {
		return err
	}
	if e.Status/100 == 4 {
		return refuse(http.StatusBadRequest, "InvalidRequest", "the PLC directory refused the operation: %s", e.Message)
	}
	return refuse(http.StatusBadGateway, "UpstreamFailure", "the PLC directory can't be reached now")
}

func trimURL(u string) string { return strings.TrimRight(u, "/") }
