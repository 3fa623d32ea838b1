package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// Open returns a client of a PDS that is named by its URL, or by an account on it: a handle, a DID or an at-uri. Without
// Options.HTTP, a PDS that an identity names is reached through [identity.Guarded], and so on a public address only.
func Open(ctx context.Context, where string, o Options) (*Client, error) {
	if strings.HasPrefix(where, "https://") || strings.HasPrefix(where, "http://") {
		return New(where, o), nil
	}
	id, err := o.lookup(ctx, where)
	if err != nil {
		return nil, fmt.Errorf("finding the PDS of %s: %w", where, err)
	}
	return o.open(id)
}

// Identity returns what the account that [Open] was given looks like; nil if it was given a URL.
func (c *Client) Identity() *identity.Identity { return c.id }

// lookup finds an account by its name, an at-uri of it included.
func (o *Options) lookup(ctx context.Context, account string) (*identity.Identity, error) {
	account = strings.TrimPrefix(strings.TrimPrefix(account, "at://"), "@")
	account, _, _ = strings.Cut(account, "/")
	at, err := syntax.ParseAtIdentifier(account)
	if err != nil {
		return nil, err
	}
	return o.directory().Lookup(ctx, at)
}

func (o *Options) directory() *identity.Directory {
	if o.Identity != nil {
		return o.Identity
	}
	return identity.Default()
}

func (o Options) open(id *identity.Identity) (*Client, error) {
	if id.PDS == "" {
		return nil, fmt.Errorf("the identity of %s names no PDS", id.DID)
	}
	if o.HTTP == nil {
		o.HTTP = identity.Guarded()
	}
	c := New(id.PDS, o)
	c.id = id
	return c, nil
}

// FetchOptions adjust [Fetch] and its like.
type FetchOptions struct {
	Options
	// Host is the URL of the server that is asked, one that may have a copy; empty: the account's PDS.
	Host string
	// Unverified leaves signatures and proofs out: the server's word counts. With a Host, the identity isn't asked either.
	Unverified bool
}

// source finds who is asked about an account, and with which key what they say is verified.
func (o FetchOptions) source(ctx context.Context, account string) (c *Client, who syntax.AtIdentifier, key *keys.PublicKey, err error) {
	if o.Host != "" && o.Unverified {
		account, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimPrefix(account, "at://"), "@"), "/")
		who, err = syntax.ParseAtIdentifier(account)
		return New(o.Host, o.Options), who, nil, err
	}
	id, err := o.lookup(ctx, account)
	if err != nil {
		return nil, "", nil, err
	}
	if o.Host != "" {
		c = New(o.Host, o.Options)
	} else if c, err = o.open(id); err != nil {
		return nil, "", nil, err
	}
	if key = id.SigningKey; key == nil && !o.Unverified {
		return nil, "", nil, fmt.Errorf("the identity of %s: %w", id.DID, ErrNoKey)
	}
	return c, syntax.AtIdentifier(id.DID), key, nil
}

// Fetch returns a record, named by an at-uri with a DID or a handle, from the PDS of its account. The proof that it is in the
// account's signed repository is fetched with it and verified, see [GetOptions.Key].
func Fetch[T any](ctx context.Context, uri string, o FetchOptions) (*Record[T], error) {
	at, err := syntax.ParseATURI(uri)
	if err != nil {
		return nil, fmt.Errorf("fetching a record: %w", err)
	}
	c, who, key, err := o.source(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", uri, err)
	}
	at = at.WithAuthority(who)
	if o.Unverified {
		return Get[T](ctx, c, at, GetOptions{})
	}
	r, err := Get[T](ctx, c, at, GetOptions{Key: key})
	if fresh := o.otherKey(ctx, who, key, err); fresh != nil {
		r, err = Get[T](ctx, c, at, GetOptions{Key: fresh})
	}
	return r, err
}

// otherKey returns the key that an account has now, if a signature didn't verify with the one that was known; else nil.
func (o FetchOptions) otherKey(ctx context.Context, who syntax.AtIdentifier, known *keys.PublicKey, err error) *keys.PublicKey {
	if e, ok := errors.AsType[*repo.VerifyError](err); !ok || e.Reason != repo.ReasonSignature {
		return nil
	}
	doc, _, err := o.directory().Refresh(ctx, who.DID())
	if err != nil || doc.SigningKey == nil || doc.SigningKey.DIDKey() == known.DIDKey() {
		return nil
	}
	return doc.SigningKey
}

// FetchList is [List] of an account, which is named by handle or DID, at its PDS. Records are held against their CIDs; that all
// of a collection is there, and nothing else, only [FetchRepo] can tell.
func FetchList[T any](ctx context.Context, account string, l ListOptions, o FetchOptions) iter.Seq2[Record[T], error] {
	return func(yield func(Record[T], error) bool) {
		o := o
		o.Unverified = true // a page has no proof
		c, who, _, err := o.source(ctx, account)
		if err != nil {
			yield(Record[T]{}, fmt.Errorf("listing records of %s: %w", account, err))
			return
		}
		List[T](ctx, c, who, l)(yield)
	}
}

// FetchRepo is [Client.Repo] of an account, which is named by handle or DID, at its PDS: all of its repository, verified with its
// key. The caller closes the reader.
func FetchRepo(ctx context.Context, account string, o FetchOptions) (*RepoReader, error) {
	c, who, key, err := o.source(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("fetching the repository of %s: %w", account, err)
	}
	if !who.IsDID() {
		return nil, fmt.Errorf("fetching the repository of %s: without asking for the identity it takes a DID", account)
	}
	r, err := c.Repo(ctx, who.DID(), RepoOptions{Key: key, SkipSignature: o.Unverified})
	if fresh := o.otherKey(ctx, who, key, err); fresh != nil && !o.Unverified {
		r, err = c.Repo(ctx, who.DID(), RepoOptions{Key: fresh})
	}
	return r, err
}

// FetchDescription is [Client.DescribeRepo] of an account, which is named by handle or DID, at its PDS.
func FetchDescription(ctx context.Context, account string, o FetchOptions) (*RepoDescription, error) {
	o.Unverified = true // nothing of it can be verified
	c, who, _, err := o.source(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("describing the repository of %s: %w", account, err)
	}
	return c.DescribeRepo(ctx, who)
}

// Blob is a blob that was read whole.
type Blob struct {
	DID  syntax.DID
	CID  cid.CID
	Type string // MIME type as the server says: what the record says counts more
	Data []byte
}

// FetchBlob fetches a blob of at most max bytes (0: 16 MiB) of an account, which is named by handle or DID, from its PDS, and
// checks it against its CID.
func FetchBlob(ctx context.Context, account string, id cid.CID, max int64, o FetchOptions) (*Blob, error) {
	if max <= 0 {
		max = maxJSON
	}
	o.Unverified = true // its hash is all there is to verify
	c, who, _, err := o.source(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("fetching a blob of %s: %w", account, err)
	}
	if !who.IsDID() {
		return nil, fmt.Errorf("fetching a blob of %s: without asking for the identity it takes a DID", account)
	}
	r, err := c.Blob(ctx, who.DID(), id, max)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &Blob{DID: who.DID(), CID: id, Type: r.Type, Data: b}, r.Close()
}
