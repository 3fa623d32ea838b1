package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// tokenLife is how long the code that a host mails is waited for before another one is asked for. Most hosts' codes live 15 minutes.
const tokenLife = 15 * time.Minute

// maxExports is how often a repository is fetched that changes while it is moved.
const maxExports = 4

// RehearsalError says that a signed operation is not the one that was asked for. It is not submitted.
type RehearsalError struct{ Differences []string }

// Error lists the differences.
func (e *RehearsalError) Error() string {
	return "the signed operation is not what was asked for: " + strings.Join(e.Differences, "; ")
}

// Credentials are what an identity has to say so that an account can live at a host: what getRecommendedDidCredentials answers.
func Credentials(out *comatproto.IdentityGetRecommendedDidCredentials_Output) (plc.Data, error) {
	d := plc.Data{RotationKeys: out.RotationKeys, AlsoKnownAs: out.AlsoKnownAs}
	if err := fromRaw(out.VerificationMethods, &d.VerificationMethods); err != nil {
		return plc.Data{}, fmt.Errorf("the recommended verification methods make no sense: %w", err)
	}
	var services map[string]struct {
		Type     string `json:"type"`
		Endpoint string `json:"endpoint"`
	}
	if err := fromRaw(out.Services, &services); err != nil {
		return plc.Data{}, fmt.Errorf("the recommended services make no sense: %w", err)
	}
	for id, s := range services {
		if d.Services == nil {
			d.Services = map[string]plc.Service{}
		}
		d.Services[id] = plc.Service(s)
	}
	return d, nil
}

func fromRaw(raw data.Raw, v any) error {
	if raw == nil {
		return nil
	}
	text, err := data.AppendJSON(nil, raw)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// SignInput is the request to sign an operation that sets the whole state of an identity.
func SignInput(d plc.Data, token string) (*comatproto.IdentitySignPlcOperation_Input, error) {
	in := &comatproto.IdentitySignPlcOperation_Input{RotationKeys: d.RotationKeys, AlsoKnownAs: d.AlsoKnownAs}
	if token != "" {
		in.Token = &token
	}
	var state struct {
		VerificationMethods, Services json.RawMessage
	}
	err := json.Unmarshal(d.AppendJSON(nil, ""), &state)
	if err == nil {
		in.VerificationMethods, err = data.AppendCBOR(nil, state.VerificationMethods)
	}
	if err == nil {
		in.Services, err = data.AppendCBOR(nil, state.Services)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding the state of an identity: %w", err)
	}
	return in, nil
}

// Wanted is the state that an identity gets: what it says now, with the signing key, the PDS and the name that the new host recommends.
// The rotation keys are first the user's own, then those of the new host; those of the old host and those to drop go away. First may be
// empty.
func Wanted(now, recommended plc.Data, first string, oldHosts, drop []string) plc.Data {
	want := now.Clone()
	want.SetSigningKey(recommended.SigningKey())
	want.SetPDS(recommended.PDS())
	want.SetHandle(recommended.Handle())
	want.AlsoKnownAs = unique(want.AlsoKnownAs)
	var own []string
	for _, k := range now.RotationKeys {
		if !slices.Contains(oldHosts, k) && !slices.Contains(drop, k) {
			own = append(own, k)
		}
	}
	if first != "" {
		own = append([]string{first}, own...)
	}
	want.RotationKeys = unique(append(own, recommended.RotationKeys...))
	return want
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// Differences are how two states of an identity differ, for people; none if they don't.
func Differences(got, want plc.Data) []string {
	return differ(got, want, func(got, want string) string { return got + ", not " + want })
}

// Changes are what an operation changes from one state to the next, for people.
func Changes(from, to plc.Data) []string {
	return differ(from, to, func(from, to string) string {
		if from == none {
			return to
		}
		return from + " → " + to
	})
}

const none = "none"

func differ(a, b plc.Data, put func(a, b string) string) []string {
	var out []string
	add := func(what, a, b string) {
		if a == "" {
			a = none
		}
		if b == "" {
			b = none
		}
		if a != b {
			out = append(out, what+": "+put(a, b))
		}
	}
	add("rotation keys", strings.Join(a.RotationKeys, " "), strings.Join(b.RotationKeys, " "))
	add("names", strings.Join(a.AlsoKnownAs, " "), strings.Join(b.AlsoKnownAs, " "))
	for _, id := range slices.Sorted(maps.Keys(union(a.VerificationMethods, b.VerificationMethods))) {
		add("key "+id, a.VerificationMethods[id], b.VerificationMethods[id])
	}
	for _, id := range slices.Sorted(maps.Keys(union(a.Services, b.Services))) {
		x, y := a.Services[id], b.Services[id]
		add("service "+id, strings.TrimSpace(x.Type+" "+x.Endpoint), strings.TrimSpace(y.Type+" "+y.Endpoint))
	}
	return out
}

func union[V any](a, b map[string]V) map[string]bool {
	out := map[string]bool{}
	for k := range a {
		out[k] = true
	}
	for k := range b {
		out[k] = true
	}
	return out
}

// Rehearse checks a signed operation before it is submitted: it sets the state that is wanted and no other, and the rules of package plc
// let it follow the log now, with nothing made void. The error is a *[RehearsalError], or the *[plc.Error].
func Rehearse(did syntax.DID, log []plc.Entry, op *plc.Operation, want plc.Data, now time.Time) error {
	if op.Type != plc.TypeOperation {
		return &RehearsalError{[]string{"it is a " + string(op.Type)}}
	}
	if d := Differences(op.Data, want); len(d) > 0 {
		return &RehearsalError{d}
	}
	if err := op.Check(); err != nil {
		return err
	}
	void, err := plc.Next(did, log, op, now)
	if err != nil {
		return err
	}
	if len(void) > 0 {
		return &RehearsalError{[]string{fmt.Sprintf("it would make %d operations void", len(void))}}
	}
	return nil
}

// recommended asks the new host what the identity has to say, and checks that it makes sense.
func (j *Job) recommended(ctx context.Context, in Input) (plc.Data, error) {
	c, err := j.new(ctx, in)
	if err != nil {
		return plc.Data{}, err
	}
	out, err := comatproto.IdentityGetRecommendedDidCredentials.Call(ctx, c.XRPC(), nil)
	if err != nil {
		return plc.Data{}, err
	}
	d, err := Credentials(out)
	if err != nil {
		return plc.Data{}, err
	}
	bad := func(format string, args ...any) (plc.Data, error) {
		return plc.Data{}, fmt.Errorf("%s recommends %w", j.plan.To, fmt.Errorf(format, args...))
	}
	if _, err := keys.ParseDIDKey(d.SigningKey()); err != nil {
		return bad("the signing key %q: %w", d.SigningKey(), err)
	}
	switch {
	case strings.TrimRight(d.PDS(), "/") != j.plan.To || d.Services[plc.AtprotoPDS].Type != plc.AtprotoPDSType:
		return bad("the PDS %q", d.PDS())
	case d.Handle().Normalize() != j.plan.Handle.Normalize():
		return bad("the handle %q, not %s", d.Handle(), j.plan.Handle)
	case j.plan.DID.Method() == "plc" && len(d.RotationKeys) == 0:
		return bad("no rotation keys")
	}
	return d, nil
}

// doSign has the change of the identity signed, and checks what was signed. A did:web has nothing to sign.
func (j *Job) doSign(ctx context.Context, in Input) (map[string]any, error) {
	rec, err := j.recommended(ctx, in)
	if err != nil {
		return nil, err
	}
	facts := map[string]any{"recommended": json.RawMessage(rec.AppendJSON(nil, j.plan.DID))}
	if j.plan.DID.Method() == "web" {
		return facts, nil
	}
	if again, err := j.unchanged(ctx, in); again != nil || err != nil {
		return again, err
	}
	state, log, err := j.audit(ctx)
	if err != nil {
		return nil, err
	}
	oldHosts, err := j.oldKeys(ctx, in)
	if err != nil {
		return nil, err
	}
	want := Wanted(state, rec, j.plan.RotationKey, notOwn(in, oldHosts), j.plan.DropKeys)
	prev := plc.LastOf(log)
	var op *plc.Operation
	if in.SigningKey != nil {
		op = plc.NewOperation(want, prev)
		if err := op.Sign(in.SigningKey); err != nil {
			return nil, err
		}
	} else if op, err = j.signAtOldHost(ctx, in, want); err != nil {
		return nil, err
	}
	if op.Prev != prev {
		return nil, &RehearsalError{[]string{fmt.Sprintf("it follows %s, not %s", op.Prev, prev)}}
	}
	if err := Rehearse(j.plan.DID, log, op, want, j.o.Now()); err != nil {
		return nil, err
	}
	j.note(StepSign, "the operation was checked: %s", strings.Join(Changes(state, want), "; "))
	facts["operation"], facts["operationID"] = json.RawMessage(op.AppendJSON(nil)), op.CID()
	return facts, nil
}

// oldKeys are the rotation keys of the old host.
func (j *Job) oldKeys(ctx context.Context, in Input) ([]string, error) {
	if in.Old == nil {
		return nil, &NeedError{What: NeedLogin}
	}
	out, err := comatproto.IdentityGetRecommendedDidCredentials.Call(ctx, j.old(in).XRPC(), nil)
	if refused(err) && in.SigningKey != nil {
		j.note(StepSign, "the old host doesn't tell which rotation keys are its own: %v", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return out.RotationKeys, nil
}

// notOwn leaves the key that the user signs with out of those that are said to be the old host's: a host that claims it would have it
// dropped, and the user without a key.
func notOwn(in Input, keys []string) []string {
	if in.SigningKey == nil {
		return keys
	}
	own := in.SigningKey.Public().DIDKey()
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return k == own })
}

// signAtOldHost has the old host sign, with the code that it has mailed.
func (j *Job) signAtOldHost(ctx context.Context, in Input, want plc.Data) (*plc.Operation, error) {
	x := j.old(in).XRPC()
	if in.Token == "" {
		if j.facts.TokenAsked.IsZero() || j.o.Now().Sub(j.facts.TokenAsked) > tokenLife {
			if err := j.askForToken(ctx, x); err != nil {
				return nil, err
			}
		}
		return nil, &NeedError{What: NeedToken}
	}
	req, err := SignInput(want, strings.TrimSpace(in.Token))
	if err != nil {
		return nil, err
	}
	out, err := comatproto.IdentitySignPlcOperation.Call(ctx, x, req)
	_, renewal := errors.AsType[*auth.RenewalError](err) // then it is the session that is over, not the code
	if !renewal && (errors.Is(err, xrpc.ErrInvalidToken) || errors.Is(err, xrpc.ErrExpiredToken)) {
		// A code is good once, and not for long.
		return nil, errors.Join(&NeedError{What: NeedToken, Because: err}, j.askForToken(ctx, x))
	}
	if err != nil {
		return nil, fmt.Errorf("having the old host sign: %w", err)
	}
	text, err := data.AppendJSON(nil, out.Operation)
	if err != nil {
		return nil, err
	}
	op, err := plc.ParseJSON(text)
	if err != nil {
		return nil, &RehearsalError{[]string{err.Error()}}
	}
	return op, nil
}

// askForToken has the old host mail a code.
func (j *Job) askForToken(ctx context.Context, x *xrpc.Client) error {
	if _, err := comatproto.IdentityRequestPlcOperationSignature.Call(ctx, x, nil); err != nil {
		return fmt.Errorf("asking the old host for a code: %w", err)
	}
	j.note(StepSign, "the old host was asked to mail a code")
	return j.write(lineFacts, StepSign, map[string]any{"tokenAsked": j.o.Now().UTC()})
}

// unchanged looks whether the account at the old host is still what was fetched, and has it fetched again if it isn't.
func (j *Job) unchanged(ctx context.Context, in Input) (again map[string]any, err error) {
	head, err := comatproto.SyncGetLatestCommit.Call(ctx, j.old(in).XRPC(), &comatproto.SyncGetLatestCommit_Params{Did: string(j.plan.DID)})
	if err != nil {
		return nil, fmt.Errorf("asking the old host for the revision: %w", err)
	}
	if head.Rev == string(j.facts.Rev) {
		return nil, nil
	}
	if j.facts.Exports >= maxExports {
		return nil, errors.Join(fmt.Errorf("%w: it has been fetched %d times, stop the programs that write to it and run the migration again", ErrBusyAccount, j.facts.Exports),
			j.write(lineAgain, StepExport, map[string]any{"exports": 0}))
	}
	j.note(StepExport, "the account has been written to since: the rest is fetched")
	return j.repeat(StepExport, nil)
}

// doIdentity changes the identity.
func (j *Job) doIdentity(ctx context.Context, in Input) (map[string]any, error) {
	if j.plan.DID.Method() == "web" {
		return nil, j.awaitDocument(ctx)
	}
	op, err := plc.ParseJSON(j.facts.Operation)
	if err != nil {
		return nil, err
	}
	last, err := j.o.PLC.Last(ctx, j.plan.DID)
	if err != nil {
		return nil, err
	}
	switch last.CID() {
	case j.facts.OperationID:
		return nil, nil // it was submitted, and the answer was lost
	case op.Prev:
	default:
		j.note(StepIdentity, "the identity has been changed by somebody else since: another operation is needed")
		return j.repeat(StepSign, nil)
	}
	if again, err := j.unchanged(ctx, in); again != nil || err != nil {
		return again, err
	}
	c, err := j.new(ctx, in)
	if err != nil {
		return nil, err
	}
	raw, err := data.AppendCBOR(nil, j.facts.Operation)
	if err != nil {
		return nil, err
	}
	if err := j.begin(StepIdentity); err != nil {
		return nil, err
	}
	_, err = comatproto.IdentitySubmitPlcOperation.Call(ctx, c.XRPC(), &comatproto.IdentitySubmitPlcOperation_Input{Operation: raw})
	// What counts is what the directory has.
	last, lerr := j.o.PLC.Last(ctx, j.plan.DID)
	switch {
	case lerr == nil && last.CID() == j.facts.OperationID:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("submitting the operation through %s: %w", j.plan.To, err)
	case lerr != nil:
		return nil, lerr
	}
	return nil, fmt.Errorf("%s says that it has submitted the operation, but the directory doesn't have it", j.plan.To)
}

// awaitDocument looks whether the document of a did:web says what it has to.
func (j *Job) awaitDocument(ctx context.Context) error {
	var rec plc.Data
	if err := readData(j.facts.Recommended, &rec); err != nil {
		return err
	}
	doc, err := j.fresh(ctx)
	if err == nil {
		if err = j.fits(doc.PDS, keyOf(doc.SigningKey), doc.Claimed, rec); err == nil {
			return nil
		}
	}
	return &NeedError{What: NeedDocument, Document: rec.AppendDocument(nil, j.plan.DID), Because: err}
}

// fits compares what a document says with what it has to.
func (j *Job) fits(pds, key string, name syntax.Handle, rec plc.Data) error {
	switch {
	case pds != j.plan.To:
		return fmt.Errorf("the document names the PDS %q, not %s", pds, j.plan.To)
	case key != rec.SigningKey():
		return fmt.Errorf("the document has the signing key %q, not %s", key, rec.SigningKey())
	case name.Normalize() != j.plan.Handle.Normalize():
		return fmt.Errorf("the document has the name %q, not %s", name, j.plan.Handle)
	}
	return nil
}

func keyOf(k *keys.PublicKey) string {
	if k == nil {
		return ""
	}
	return k.DIDKey()
}

// readData reads the state of an identity in the form of [plc.Data.AppendJSON].
func readData(b []byte, d *plc.Data) error {
	var v struct {
		RotationKeys, AlsoKnownAs []string
		VerificationMethods       map[string]string
		Services                  map[string]struct{ Type, Endpoint string }
	}
	if err := json.Unmarshal(bytes.TrimSpace(b), &v); err != nil {
		return fmt.Errorf("reading the state of an identity: %w", err)
	}
	*d = plc.Data{RotationKeys: v.RotationKeys, AlsoKnownAs: v.AlsoKnownAs, VerificationMethods: v.VerificationMethods, Services: map[string]plc.Service{}}
	for id, s := range v.Services {
		d.Services[id] = plc.Service(s)
	}
	return nil
}
