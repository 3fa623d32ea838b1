package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/examples/tipjar/lex"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/workflow"
	"github.com/barograph/baro/xrpc"
)

// coins are in everybody's jar at the start.
const coins = 20

// jar is the service: how many coins everybody has, in memory.
type jar struct {
	*xrpc.Server

	mu   sync.Mutex
	has  map[syntax.DID]int64 // those who gave or got
	paid map[string]bool      // flows whose coins were moved
}

// newJar makes the service at a URL. HTTP and directory are how it gets at the repositories of those who call.
func newJar(at string, secret []byte, directory *identity.Directory, hc *http.Client) (*jar, error) {
	audience, err := audienceOf(at)
	if err != nil {
		return nil, err
	}
	j := &jar{Server: xrpc.NewServer(xrpc.ServerOptions{}), has: map[syntax.DID]int64{}, paid: map[string]bool{}}
	callers := &auth.ServiceValidator{Audiences: []string{audience}, Keys: directory.Key, Now: time.Now}
	workflow.Serve(j.Server, lex.GiveTip, workflow.ServeOptions{
		Secret: secret, Store: new(workflow.MemoryStore), Rand: rand.Reader,
		Verifier: &workflow.Verifier{Directory: directory, HTTP: hc},
		Caller: func(r *xrpc.Request) (syntax.DID, error) {
			token, err := callers.Validate(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), syntax.NSID(lex.GiveTip.NSID))
			if err != nil {
				return "", err
			}
			return token.Issuer, nil
		},
	}, workflow.Handler[lex.GiveTip_Input, lex.GiveTip_Output]{
		Start: j.start,
		On: map[string]func(context.Context, *round) (*reply, error){
			"written": j.written,
		},
		OnError: j.failed,
	})
	return j, nil
}

type (
	round = workflow.Round[lex.GiveTip_Input]
	reply = workflow.Reply[lex.GiveTip_Output]
)

// start asks for the record of the tip. Nothing has happened yet: a call that gets no answer is made again.
func (j *jar) start(_ context.Context, c *round) (*reply, error) {
	if _, err := syntax.ParseDID(c.Input.To); err != nil || c.Input.To == string(c.Caller) {
		return nil, lex.ErrNoSuchAccount.With("%q can't get a tip from you", c.Input.To)
	}
	if c.Input.Amount < 1 || c.Input.Amount > 1000 {
		return nil, xrpc.ErrInvalidRequest.With("%d coins are no tip", c.Input.Amount)
	}
	tip, err := workflow.NewCreate(c.Caller, "tip", &lex.Tip{
		To: c.Input.To, Amount: c.Input.Amount, Message: c.Input.Message, CreatedAt: string(syntax.NewDatetime(time.Now())),
	})
	if err != nil {
		return nil, err
	}
	return workflow.Ask[lex.GiveTip_Output]("written", tip)
}

// written moves the coins, now that the record is proven to be there, or has it deleted again.
func (j *jar) written(_ context.Context, c *round) (*reply, error) {
	tip, ok := c.Result("tip")
	if !ok || tip.Proof == nil {
		return nil, errors.New("a report came through without a proof")
	}
	left, ok := j.move(c.Token, c.Caller, syntax.DID(c.Input.To), c.Input.Amount)
	if !ok {
		undo, _ := workflow.Compensate(c.Results, nil) // what was created can always be deleted
		return workflow.Fail[lex.GiveTip_Output](fmt.Sprintf("you have %d coins left", left), "NotEnough", undo...)
	}
	uri := string(tip.URI)
	return workflow.Final(&lex.GiveTip_Output{Tip: &uri, Left: left})
}

// failed ends the workflow: the record was not written, or could not be taken back.
func (j *jar) failed(_ context.Context, c *round) (*reply, error) {
	undo, _ := workflow.Compensate(c.Results, nil)
	return workflow.Fail[lex.GiveTip_Output]("no coins were moved: "+c.Failure.Message, "NotWritten", undo...)
}

// move moves coins once for each flow, however often its step runs.
func (j *jar) move(flow string, from, to syntax.DID, amount int64) (left int64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, did := range []syntax.DID{from, to} {
		if _, known := j.has[did]; !known {
			j.has[did] = coins
		}
	}
	if !j.paid[flow] {
		if j.has[from] < amount {
			return j.has[from], false
		}
		j.has[from] -= amount
		j.has[to] += amount
		j.paid[flow] = true
	}
	return j.has[from], true
}
