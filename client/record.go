package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Record is a record and where it is.
type Record[T any] struct {
	URI   syntax.ATURI
	CID   cid.CID
	Value T
	// Proof is what was verified, nil unless GetOptions.Key was given.
	Proof *repo.Proof
}

// Ref names one version of a record.
type Ref struct {
	URI syntax.ATURI
	CID cid.CID // undefined after a deletion
	// Commit and Rev are of the commit that a write made, if the server tells.
	Commit cid.CID
	Rev    syntax.TID
}

// DecodeError says that a record is there, but not of the type that was asked for, or not what its CID says.
type DecodeError struct {
	URI string
	CID string
	Err error
	// Raw is the record as it came, which may break the rules of the data model: it is read with [data.DecodeLenient] and
	// shown with [data.AppendJSONLenient], and can't be written. nil if nothing came.
	Raw []byte
}

// Error names the record.
func (e *DecodeError) Error() string { return fmt.Sprintf("reading %s: %v", e.URI, e.Err) }

// Unwrap returns the cause.
func (e *DecodeError) Unwrap() error { return e.Err }

// collection returns the collection of records of type T, "" if the type doesn't tell.
func collection[T any]() syntax.NSID {
	if t, ok := any((*T)(nil)).(data.Typed); ok {
		return syntax.NSID(t.LexType())
	}
	return ""
}

// Decode turns an untyped record into one of type T: a struct of the packages under api, any for a tree of Go values, or
// data.Raw.
func Decode[T any](r Record[data.Raw]) (Record[T], error) {
	out := Record[T]{URI: r.URI, CID: r.CID, Proof: r.Proof}
	var err error
	switch v := any(&out.Value).(type) {
	case *data.Raw:
		*v = r.Value
	case *any:
		*v, err = data.Decode(r.Value)
	default:
		err = data.Unmarshal(r.Value, v)
	}
	if err != nil {
		return out, &DecodeError{URI: string(r.URI), CID: r.CID.String(), Err: err, Raw: r.Value}
	}
	return out, nil
}

// Decoded reads a sequence as it goes, each record as one of type T. One that is none is a [*DecodeError] and doesn't end the
// loop; what ends the sequence ends it.
func Decoded[T any](seq iter.Seq2[Record[data.Raw], error]) iter.Seq2[Record[T], error] {
	return func(yield func(Record[T], error) bool) {
		for r, err := range seq {
			var t Record[T]
			if err == nil {
				t, err = Decode[T](r)
			}
			if !yield(t, err) {
				return
			}
		}
	}
}

// DecodeAll reads a sequence to its end and parts the records of type T from those that are none; [Decoded] does so one by
// one. The error is the one that ended the sequence.
func DecodeAll[T any](seq iter.Seq2[Record[data.Raw], error]) (good []Record[T], bad []*DecodeError, err error) {
	for r, err := range seq {
		if err != nil {
			return good, bad, err
		}
		t, err := Decode[T](r)
		if d, ok := errors.AsType[*DecodeError](err); ok {
			bad = append(bad, d)
			continue
		}
		good = append(good, t)
	}
	return good, bad, nil
}

// encode returns the bytes of a record and its `$type`.
func encode(v any) (data.Raw, syntax.NSID, error) {
	var raw data.Raw
	var err error
	switch v := v.(type) {
	case *data.Raw:
		raw = *v
	case *any:
		raw, err = data.Encode(*v)
	default:
		raw, err = data.Marshal(v)
	}
	if err == nil {
		err = data.CheckRecord(raw)
	}
	if err != nil {
		return nil, "", fmt.Errorf("encoding the record: %w", err)
	}
	return raw, syntax.NSID(raw.Type()), nil
}

// GetOptions adjust [Get].
type GetOptions struct {
	// CID asks for one version, if it is still there. A proof is of the present one.
	CID cid.CID
	// Key makes Get fetch the proof of the record and verify it: the commit is signed with this key, and the tree below it
	// has the record. The URI must then have a DID.
	Key *keys.PublicKey
	// SkipHash leaves out the comparison of record and CID. It is for old records that were not written in the one
	// encoding, whose CID their JSON can't tell.
	SkipHash bool
}

// Get returns a record.
func Get[T any](ctx context.Context, c *Client, uri syntax.ATURI, o GetOptions) (*Record[T], error) {
	if want := collection[T](); want != "" && want.Normalize() != uri.Collection().Normalize() {
		return nil, fmt.Errorf("getting %s: it is not of the collection %s", uri, want)
	}
	raw, err := c.get(ctx, uri, o)
	if err != nil {
		return nil, fmt.Errorf("getting %s: %w", uri, err)
	}
	r, err := Decode[T](*raw)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

func (c *Client) get(ctx context.Context, uri syntax.ATURI, o GetOptions) (*Record[data.Raw], error) {
	if uri.RecordKey() == "" {
		return nil, errors.New("the URI is not one of a record")
	}
	if o.Key != nil {
		return c.getVerified(ctx, uri, o)
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	p := &comatproto.RepoGetRecord_Params{Repo: string(uri.Authority()), Collection: string(uri.Collection()), Rkey: string(uri.RecordKey())}
	if o.CID.Defined() {
		p.Cid = orNil(o.CID.String())
	}
	out, dirty, err := lenient(ctx, c, comatproto.RepoGetRecord, p, "value")
	if err != nil {
		return nil, because(ctx, notFound(err))
	}
	if dirty {
		if err := checkValue(out.Uri, orEmpty(out.Cid), out.Value); err != nil {
			return nil, err
		}
	}
	return checkRecord(out.Uri, orEmpty(out.Cid), out.Value, uri, o.CID, o.SkipHash)
}

// lenient calls a query whose answer has records in one of its fields, "value" or "records[". They may be at fault in any way,
// the rest of the answer may not. Dirty says that something is.
func lenient[P, O any](ctx context.Context, c *Client, q xrpc.Query[P, O], p *P, field string) (out *O, dirty bool, err error) {
	query, err := xrpc.EncodeParams(p)
	if err != nil {
		return nil, false, err
	}
	err = c.x.DoAll(ctx, http.MethodGet, q.NSID, query, nil, "", maxJSON, func(b []byte) error {
		out = new(O)
		strict := data.UnmarshalJSON(b, out)
		if dirty = strict != nil; !dirty {
			return nil
		}
		*out = *new(O)
		l, err := data.UnmarshalJSONLenient(b, out)
		if err != nil {
			return err
		}
		for _, v := range l.Violations {
			rest, inside := strings.CutPrefix(v.Path, field)
			if !inside || field == "value" && rest != "" && rest[0] != '[' && rest[0] != '.' {
				return strict
			}
		}
		return nil
	})
	return out, dirty, err
}

// checkValue finds out whether a record of a dirty answer is at fault. It must be asked even if the record has the hash that it
// is said to have: who lies about one may lie about both.
func checkValue(uri, id string, value data.Raw) error {
	if err := data.Check(value); err != nil {
		return &DecodeError{URI: uri, CID: id, Err: err, Raw: value}
	}
	return nil
}

// because tells why a context ended, which is more than that it did.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}

// notFound recognises what servers say for want of a record.
func notFound(err error) error {
	e, ok := errors.AsType[*xrpc.Error](err)
	if ok && (e.Name == string(comatproto.ErrRecordNotFound) || e.Status == http.StatusBadRequest && strings.HasPrefix(e.Message, "Could not locate record")) {
		return fmt.Errorf("%w: %w", ErrRecordNotFound, err)
	}
	return err
}

// checkRecord holds an answer against the question. Want has no record key if any will do.
func checkRecord(uri, id string, value data.Raw, want syntax.ATURI, wantCID cid.CID, skipHash bool) (*Record[data.Raw], error) {
	got, err := syntax.ParseATURI(uri)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	if got.RecordKey() == "" || got.Collection().Normalize() != want.Collection().Normalize() || want.RecordKey() != "" && got.RecordKey() != want.RecordKey() ||
		want.Authority().IsDID() && got.Authority().IsDID() && got.Authority() != want.Authority() {
		return nil, fmt.Errorf("%w: the record is %s", ErrBadAnswer, got)
	}
	r := &Record[data.Raw]{URI: got, Value: value}
	if id != "" {
		if r.CID, err = cid.Parse(id); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
		}
	}
	if wantCID.Defined() && r.CID != wantCID {
		return nil, fmt.Errorf("%w: the version is %s", ErrBadAnswer, id)
	}
	sum := cid.Sum(cid.DagCBOR, value)
	switch {
	case skipHash:
	case !r.CID.Defined():
		r.CID = sum
	case r.CID != sum:
		return nil, &HashError{What: uri, Want: r.CID, Got: sum}
	}
	return r, nil
}

func (c *Client) getVerified(ctx context.Context, uri syntax.ATURI, o GetOptions) (*Record[data.Raw], error) {
	proof, err := c.Proof(ctx, uri, o.Key)
	if err != nil {
		return nil, err
	}
	if !proof.Found() {
		return nil, fmt.Errorf("%w: its absence is proven", ErrRecordNotFound)
	}
	if o.CID.Defined() && proof.CID != o.CID {
		return nil, fmt.Errorf("%w: the present version is %s", ErrRecordNotFound, proof.CID)
	}
	return &Record[data.Raw]{URI: uri, CID: proof.CID, Value: proof.Record, Proof: proof}, nil
}

// Proof fetches the proof of a record, or of its absence, and verifies it with the account's key; without a key everything
// but the signature is verified. The URI must have a DID. What is wrong with a proof is a [*repo.VerifyError]; the proof is
// then returned too, for its steps.
func (c *Client) Proof(ctx context.Context, uri syntax.ATURI, key *keys.PublicKey) (*repo.Proof, error) {
	did := uri.Authority().DID()
	if did == "" {
		return nil, fmt.Errorf("verifying %s takes a DID in place of the handle", uri)
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	q := comatproto.SyncGetRecord
	query, err := xrpc.EncodeParams(&comatproto.SyncGetRecord_Params{Did: string(did), Collection: string(uri.Collection()), Rkey: string(uri.RecordKey())})
	if err != nil {
		return nil, err
	}
	var b []byte
	err = c.x.DoAll(ctx, http.MethodGet, q.NSID, query, nil, q.Returns, maxProof, func(body []byte) error { b = body; return nil })
	if err != nil {
		return nil, because(ctx, notFound(err))
	}
	return repo.VerifyProof(b, did, uri.Path(), key)
}

// ListOptions adjust [List].
type ListOptions struct {
	Collection syntax.NSID // may be empty if the type tells
	Limit      int         // records of a page, at most 100; 0: 100
	Cursor     string      // where to begin, as a server gave it
	Reverse    bool        // oldest first, at most servers
	// OnBad is told of records that can't be read, which are then left out. Without it the first one ends the list with a
	// [*DecodeError].
	OnBad    func(*DecodeError)
	SkipHash bool // as in GetOptions
}

// List returns the records of a collection, newest first at most servers. Pages are fetched when the loop gets there.
func List[T any](ctx context.Context, c *Client, account syntax.AtIdentifier, o ListOptions) iter.Seq2[Record[T], error] {
	if o.Collection == "" {
		o.Collection = collection[T]()
	}
	if o.Limit <= 0 {
		o.Limit = xrpc.DefaultPageSize
	}
	type item struct {
		r   *Record[data.Raw]
		bad *DecodeError
	}
	want := syntax.NewATURI(account, o.Collection, "")
	fetch := func(ctx context.Context, cursor string) ([]item, string, error) {
		if cursor == "" {
			cursor = o.Cursor
		}
		limit := int64(o.Limit)
		p := &comatproto.RepoListRecords_Params{Repo: string(account), Collection: string(o.Collection), Limit: &limit, Cursor: orNil(cursor)}
		if o.Reverse {
			p.Reverse = &o.Reverse
		}
		ctx, cancel := c.limit(ctx)
		defer cancel()
		page, dirty, err := lenient(ctx, c, comatproto.RepoListRecords, p, "records[")
		if err != nil {
			return nil, "", because(ctx, err)
		}
		items := make([]item, len(page.Records))
		for i, e := range page.Records {
			var err error
			if dirty {
				err = checkValue(e.Uri, e.Cid, e.Value)
			}
			var r *Record[data.Raw]
			if err == nil {
				r, err = checkRecord(e.Uri, e.Cid, e.Value, want, cid.CID{}, o.SkipHash)
			}
			if err != nil {
				bad, ok := errors.AsType[*DecodeError](err)
				if !ok {
					bad = &DecodeError{URI: e.Uri, CID: e.Cid, Err: err, Raw: e.Value}
				}
				items[i].bad = bad
			}
			items[i].r = r
		}
		return items, orEmpty(page.Cursor), nil
	}
	return func(yield func(Record[T], error) bool) {
		if o.Collection == "" {
			yield(Record[T]{}, fmt.Errorf("listing records of %s: ListOptions.Collection must say of which collection, as the type doesn't", account))
			return
		}
		for it, err := range pages(ctx, fetch) {
			if err != nil {
				yield(Record[T]{}, fmt.Errorf("listing %s of %s: %w", o.Collection, account, err))
				return
			}
			var r Record[T]
			bad := it.bad
			if bad == nil {
				if r, err = Decode[T](*it.r); err != nil {
					bad, _ = errors.AsType[*DecodeError](err)
				}
			}
			switch {
			case bad == nil:
				if !yield(r, nil) {
					return
				}
			case o.OnBad != nil:
				o.OnBad(bad)
			default:
				yield(Record[T]{}, bad)
				return
			}
		}
	}
}

// WriteOptions adjust writes.
type WriteOptions struct {
	RecordKey syntax.RecordKey // of a new record; empty: the server chooses
	// Validate tells the server to insist on a schema (true), or to look at none (false); nil: to use those that it knows.
	Validate *bool
	// SwapCommit is the commit that the repository must be at, and SwapRecord the version that the record must have, or the
	// write is refused with comatproto.ErrInvalidSwap.
	SwapCommit cid.CID
	SwapRecord cid.CID
	// MustNotExist refuses to replace a record, in [Put].
	MustNotExist bool
}

func swap(c cid.CID) *string {
	if !c.Defined() {
		return nil
	}
	return orNil(c.String())
}

// Create writes a new record, in the collection that its `$type` names. It is sent once.
func Create[T any](ctx context.Context, c *Client, value *T, o WriteOptions) (*Ref, error) {
	raw, typ, err := encode(value)
	if err != nil {
		return nil, err
	}
	if c.o.DID == "" {
		return nil, ErrNoAccount
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	out, err := comatproto.RepoCreateRecord.Call(ctx, c.x, &comatproto.RepoCreateRecord_Input{
		Repo: string(c.o.DID), Collection: string(typ), Rkey: orNil(o.RecordKey), Record: raw, Validate: o.Validate, SwapCommit: swap(o.SwapCommit),
	})
	if err != nil {
		return nil, fmt.Errorf("creating a %s: %w", typ, because(ctx, err))
	}
	ref, err := c.ref(out.Uri, out.Cid, out.Commit, raw, syntax.NewATURI(syntax.AtIdentifier(c.o.DID), typ, o.RecordKey))
	if err != nil {
		return nil, fmt.Errorf("creating a %s: %w", typ, err)
	}
	return ref, nil
}

// Put writes a record under a key, new or in place of another.
func Put[T any](ctx context.Context, c *Client, rkey syntax.RecordKey, value *T, o WriteOptions) (*Ref, error) {
	raw, typ, err := encode(value)
	if err != nil {
		return nil, err
	}
	if c.o.DID == "" {
		return nil, ErrNoAccount
	}
	in := &comatproto.RepoPutRecord_Input{
		Repo: string(c.o.DID), Collection: string(typ), Rkey: string(rkey), Record: raw, Validate: o.Validate, SwapCommit: swap(o.SwapCommit),
	}
	switch {
	case o.MustNotExist:
		in.SwapRecord = data.Null[string]()
	case o.SwapRecord.Defined():
		in.SwapRecord = data.NotNull(o.SwapRecord.String())
	}
	uri := syntax.NewATURI(syntax.AtIdentifier(c.o.DID), typ, rkey)
	ctx, cancel := c.limit(ctx)
	defer cancel()
	out, err := comatproto.RepoPutRecord.Call(ctx, c.x, in)
	if err != nil {
		return nil, fmt.Errorf("putting %s: %w", uri, because(ctx, err))
	}
	ref, err := c.ref(out.Uri, out.Cid, out.Commit, raw, uri)
	if err != nil {
		return nil, fmt.Errorf("putting %s: %w", uri, err)
	}
	return ref, nil
}

// ref checks what a write answered. The server may not have kept another record than it was given.
func (c *Client) ref(uri, id string, commit *comatproto.RepoDefs_CommitMeta, raw data.Raw, want syntax.ATURI) (*Ref, error) {
	r, err := checkRecord(uri, id, raw, want, cid.CID{}, false)
	if err != nil {
		return nil, err
	}
	ref := &Ref{URI: r.URI, CID: r.CID}
	return ref, ref.setCommit(commit)
}

func (r *Ref) setCommit(m *comatproto.RepoDefs_CommitMeta) (err error) {
	if m == nil {
		return nil
	}
	if r.Commit, err = cid.Parse(m.Cid); err == nil {
		r.Rev, err = syntax.ParseTID(m.Rev)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	return nil
}

// Delete deletes a record of the account. It is no error if there is none.
func (c *Client) Delete(ctx context.Context, uri syntax.ATURI, o WriteOptions) (*Ref, error) {
	switch {
	case c.o.DID == "":
		return nil, ErrNoAccount
	case uri.RecordKey() == "":
		return nil, fmt.Errorf("deleting %s: it is not the URI of a record", uri)
	case uri.Authority().IsDID() && uri.Authority().DID() != c.o.DID:
		return nil, fmt.Errorf("deleting %s: it is not a record of %s", uri, c.o.DID)
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	out, err := comatproto.RepoDeleteRecord.Call(ctx, c.x, &comatproto.RepoDeleteRecord_Input{
		Repo: string(uri.Authority()), Collection: string(uri.Collection()), Rkey: string(uri.RecordKey()), SwapCommit: swap(o.SwapCommit), SwapRecord: swap(o.SwapRecord),
	})
	if err != nil {
		return nil, fmt.Errorf("deleting %s: %w", uri, because(ctx, err))
	}
	ref := &Ref{URI: uri}
	return ref, ref.setCommit(out.Commit)
}
