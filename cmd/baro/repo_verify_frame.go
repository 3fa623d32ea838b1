package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// repoVerifyFrame checks one message of a firehose.
func (e *env) repoVerifyFrame(ctx context.Context, arg string, f verifyFlags) error {
	key, err := f.common()
	if err != nil {
		return err
	}
	prev, err := f.state()
	if err != nil {
		return err
	}
	b, err := e.readFrame(arg)
	if err != nil {
		return err
	}
	m, size, err := parseFrame(b)
	if err != nil {
		v := &repo.VerifyError{Reason: repo.ReasonFrame, Err: err}
		if len(b) > repo.MaxFrame {
			v = &repo.VerifyError{Reason: repo.ReasonFrameTooBig, Detail: fmt.Sprintf("more than %d bytes", repo.MaxFrame)}
		}
		return e.verified(verifyOutput{Source: arg, Report: unread(v)}, v)
	}
	var verify func(*keys.PublicKey, repo.VerifyOptions) (repo.State, error)
	var report func(*keys.PublicKey, repo.VerifyOptions) *repo.Report
	out := verifyOutput{Source: arg}
	switch m := m.(type) {
	case *stream.Commit:
		out.Kind = verifiedCommit
		c := m.Verifiable(size)
		verify = func(k *keys.PublicKey, o repo.VerifyOptions) (repo.State, error) {
			return repo.VerifyCommit(c, k, prev, o)
		}
		report = func(k *keys.PublicKey, o repo.VerifyOptions) *repo.Report { return repo.ReportCommit(c, k, prev, o) }
	case *stream.Sync:
		out.Kind = verifiedSync
		s := m.Verifiable(size)
		verify = func(k *keys.PublicKey, o repo.VerifyOptions) (repo.State, error) {
			return repo.VerifySync(s, k, prev, o)
		}
		report = func(k *keys.PublicKey, o repo.VerifyOptions) *repo.Report { return repo.ReportSync(s, k, prev, o) }
	default:
		return fmt.Errorf("%s is a message of type %s: only #commit and #sync carry a commit to check", arg, m.FrameType())
	}
	did := m.Subject()
	// Of an account without a valid name there is no key to find: that is what will be told.
	o := repo.VerifyOptions{Now: e.world.Clock.Now(), Records: repo.RecordsStrict, SkipSignature: f.offline || key == nil && !syntax.ValidDID(did)}
	if f.lenient {
		o.Records = repo.RecordsReadable
	}
	if f.legacy {
		o.Legacy = repo.LegacyAccept
	}
	if key == nil && !o.SkipSignature {
		if key, err = e.keyOf(ctx, syntax.DID(did), f.networkFlags, func(k *keys.PublicKey) bool {
			_, err := verify(k, o)
			v, ok := errors.AsType[*repo.VerifyError](err)
			return !ok || v.Reason != repo.ReasonSignature
		}); err != nil {
			return err
		}
	}
	_, err = verify(key, o)
	out.Report = report(key, o)
	if f.did != "" && f.did != did {
		err = &repo.VerifyError{Reason: repo.ReasonCommitDID, Detail: fmt.Sprintf("the message is of %s, not of %s", did, f.did)}
		for i := range out.Checks {
			if c := &out.Checks[i]; c.Name == repo.ReasonCommitDID {
				c.Status, c.Detail = repo.StatusFailed, fmt.Sprintf("the message is of %s, not of %s", did, f.did)
			}
		}
	}
	if key != nil {
		out.Key = key.DIDKey()
	}
	return e.verified(out, err)
}

// state returns what the flags say is known of the repository, nil if nothing is.
func (f *verifyFlags) state() (*repo.State, error) {
	if f.prevRev == "" {
		return nil, nil
	}
	rev, err := syntax.ParseTID(f.prevRev)
	if err != nil {
		return nil, usagef("--prev-rev: %w", err)
	}
	root, err := cid.Parse(f.prevData)
	if err != nil {
		return nil, usagef("--prev-data: %w", err)
	}
	return &repo.State{Rev: rev, Data: root}, nil
}

// frameText is how long a message in JSON can be: base64 takes a third more than the bytes.
const frameText = 2 * repo.MaxFrame

// readFrame reads a file, or standard input, up to a byte more than any message has.
func (e *env) readFrame(name string) ([]byte, error) {
	in := e.stdin
	if name != "-" {
		h, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("opening the message: %w", err)
		}
		defer h.Close()
		in = h
	}
	b, err := io.ReadAll(io.LimitReader(in, frameText+1))
	if err != nil {
		return nil, fmt.Errorf("reading the message: %w", err)
	}
	return b, nil
}

// parseFrame reads a message from its frame, whose size it returns, or from its JSON.
func parseFrame(b []byte) (m stream.Message, size int, err error) {
	raw := b
	if text := bytes.TrimSpace(b); len(text) > 0 && text[0] == '{' {
		if len(text) > frameText {
			return nil, 0, fmt.Errorf("more than %d bytes of JSON", frameText)
		}
		payload, err := data.AppendCBOR(nil, text)
		if err != nil {
			return nil, 0, err
		}
		// A #commit has operations, which a #sync doesn't.
		t := stream.TypeSync
		if v, err := data.Decode(payload); err == nil {
			if o, ok := v.(map[string]any); ok && o["ops"] != nil {
				t = stream.TypeCommit
			}
		}
		raw = append(stream.AppendHeader(nil, t), payload...)
	} else if size = len(b); size > repo.MaxFrame {
		return nil, 0, fmt.Errorf("a frame of more than %d bytes", repo.MaxFrame)
	}
	f, err := stream.ParseFrame(raw)
	if err != nil {
		return nil, 0, err
	}
	if f.Op == stream.OpError {
		return nil, 0, f.Err()
	}
	if m, err = f.Message(); err == nil && m == nil {
		err = fmt.Errorf("a message of an unknown type %q", f.Type)
	}
	return m, size, err
}

// unread is the report on a frame that isn't one.
func unread(v *repo.VerifyError) *repo.Report {
	r := new(repo.Report)
	for _, name := range repo.Reasons {
		c := repo.Check{Name: name, Status: repo.StatusSkipped, Detail: "not reached"}
		if name == v.Reason {
			c.Status, c.Detail = repo.StatusFailed, v.Detail
			if v.Err != nil {
				c.Detail = v.Err.Error()
			}
		}
		r.Checks = append(r.Checks, c)
	}
	return r
}
