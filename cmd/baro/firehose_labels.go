package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/barograph/baro/label"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// labelLine is a line of --labels: the label as its labeler signed it, or why it isn't one.
type labelLine struct {
	Seq   int64        `json:"seq"`
	Kind  string       `json:"kind"`
	DID   string       `json:"did,omitempty"` // if there is no label to show
	Label *label.Label `json:"label,omitempty"`
	Name  string       `json:"name,omitempty"`
	verdict
}

// labeler finds the service whose labels are wanted.
func (ns *networks) labeler(ctx context.Context, name string) (*network, string, error) {
	if strings.Contains(name, "://") {
		u, err := serviceURL(name)
		if err != nil {
			return nil, "", usagef("--labels: %w", err)
		}
		n := ns.list[0]
		_ = n.guard.Allow(hostPort(u)) // it is an URL that serviceURL has made
		return n, u, nil
	}
	id, err := parseAccount(name)
	if err != nil {
		return nil, "", usagef("--labels: %w", err)
	}
	a, err := ns.identify(ctx, id)
	if err != nil {
		return nil, "", err
	}
	if a.Labeler == "" {
		return nil, "", withHint(fmt.Errorf("%s is no labeler: its DID document names no service of that kind", id), "'baro resolve' shows the document")
	}
	if a.net.local && isLoopback(a.Labeler) {
		_ = a.net.guard.Allow(hostPort(a.Labeler)) // a service of a network on this machine
	}
	return a.net, a.Labeler, nil
}

func (r *follower) followLabels(ctx context.Context, ns *networks, n *network, dids []syntax.DID, after *int64) error {
	verify := r.f.parts() > 0
	var bad error // the first label that failed, or a fault in printing one
	o := &stream.LabelOptions{
		Keys: networkKeys{ns}, Unverified: !verify, After: after, Sources: dids, OnCursor: r.saveCursor, CursorEvery: time.Second,
		Strict: r.f.strict, Connect: r.connect(n), Now: r.world.Clock.Now,
	}
	o.OnProblem = func(p *stream.Problem) {
		line := labelLine{Seq: p.Seq, Kind: "label", DID: string(p.DID), verdict: verdict{Error: p.Err.Error(), Reason: string(p.Kind)}}
		switch e, ok := errors.AsType[*label.Error](p.Err); {
		case p.Kind == stream.ProblemOutdated:
			line.Kind, line.Name, line.verdict = "info", stream.InfoOutdatedCursor, verdict{}
		case p.Seq == 0: // of the connection, and told elsewhere
			return
		case ok:
			line.Reason = string(e.Reason)
		}
		if line.Kind == "label" {
			line.Verified = new(false)
			r.failed++
		}
		if _, err := r.print(line); err != nil && bad == nil {
			bad = err
		}
	}
	for l, err := range stream.Labels(ctx, r.host, o) {
		switch p, ok := errors.AsType[*stream.Problem](err); {
		case ok:
			return errors.Join(r.w.Flush(), notVerified(p))
		case err != nil:
			return err
		case bad != nil:
			return bad
		case r.f.limit > 0 && r.lines >= r.f.limit: // the last line told of a problem
			return nil
		}
		line := labelLine{Seq: l.Seq, Kind: "label", Label: &l.Label}
		if verify {
			line.Verified = &l.Verified
		}
		r.meter.count(l.Cts)
		last, err := r.print(line)
		if err != nil {
			return err
		}
		if last {
			r.saveCursor(l.Cursor)
			return nil
		}
	}
	return bad
}
