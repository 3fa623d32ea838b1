package client

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// RepoDescription is what a PDS says about an account and its repository. None of it is verified.
type RepoDescription struct {
	DID             syntax.DID
	Handle          syntax.Handle
	HandleIsCorrect bool
	Collections     []syntax.NSID // those that have records
	DIDDoc          data.Raw
}

// DescribeRepo returns what the PDS says about an account.
func (c *Client) DescribeRepo(ctx context.Context, account syntax.AtIdentifier) (*RepoDescription, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	out, err := comatproto.RepoDescribeRepo.Call(ctx, c.x, &comatproto.RepoDescribeRepo_Params{Repo: string(account)})
	if err != nil {
		return nil, fmt.Errorf("describing the repository of %s: %w", account, because(ctx, err))
	}
	d := &RepoDescription{DID: syntax.DID(out.Did), Handle: syntax.Handle(out.Handle), HandleIsCorrect: out.HandleIsCorrect, DIDDoc: out.DidDoc}
	if account.IsDID() && d.DID != account.DID() {
		return nil, fmt.Errorf("describing the repository of %s: %w: it is about %s", account, ErrBadAnswer, out.Did)
	}
	for _, s := range out.Collections {
		n, err := syntax.ParseNSID(s)
		if err != nil {
			return nil, fmt.Errorf("describing the repository of %s: %w: %w", account, ErrBadAnswer, err)
		}
		d.Collections = append(d.Collections, n)
	}
	return d, nil
}

// RepoInfo is one repository of a PDS.
type RepoInfo struct {
	DID    syntax.DID
	Head   string // CID of the commit
	Rev    string
	Active bool
	Status string // why it isn't active; may be empty
}

// ListRepos returns the repositories that a PDS, or a relay, hosts.
func (c *Client) ListRepos(ctx context.Context) iter.Seq2[RepoInfo, error] {
	return pages(ctx, func(ctx context.Context, cursor string) ([]RepoInfo, string, error) {
		ctx, cancel := c.limit(ctx)
		defer cancel()
		out, err := comatproto.SyncListRepos.Call(ctx, c.x, &comatproto.SyncListRepos_Params{Cursor: orNil(cursor), Limit: new(int64(1000))})
		if err != nil {
			return nil, "", fmt.Errorf("listing the repositories of %s: %w", c.x.Host, because(ctx, err))
		}
		var list []RepoInfo
		for _, r := range out.Repos {
			did, err := syntax.ParseDID(r.Did)
			if err != nil {
				return nil, "", fmt.Errorf("listing the repositories of %s: %w: %w", c.x.Host, ErrBadAnswer, err)
			}
			list = append(list, RepoInfo{DID: did, Head: r.Head, Rev: r.Rev, Active: r.Active == nil || *r.Active, Status: orEmpty(r.Status)})
		}
		return list, orEmpty(out.Cursor), nil
	})
}

// RepoCAR fetches a repository as a CAR file, as it comes: nothing is verified. With since, a revision, only what is newer
// is asked for. The caller closes the body.
func (c *Client) RepoCAR(ctx context.Context, did syntax.DID, since syntax.TID) (*xrpc.Stream, error) {
	s, err := open(ctx, c, comatproto.SyncGetRepo, &comatproto.SyncGetRepo_Params{Did: string(did), Since: orNil(since)})
	if err != nil {
		return nil, fmt.Errorf("fetching the repository of %s: %w", did, err)
	}
	return s, nil
}

// RepoOptions adjust [Client.Repo].
type RepoOptions struct {
	Key           *keys.PublicKey // the account's signing key
	SkipSignature bool            // verify everything else, when there is no key
	Now           time.Time       // against which the revision is held; zero: not at all
	Records       repo.RecordPolicy
	MaxBytes      int64 // 0: no bound
	// Tee gets the bytes of the CAR file as they come, before anything is known about them.
	Tee io.Writer
}

// RepoReader reads a repository while it comes.
type RepoReader struct {
	*repo.Reader
	Size int64 // bytes of the file if the server told, ≤ 0 otherwise
	body io.ReadCloser
}

// Close ends the transfer.
func (r *RepoReader) Close() error { return r.body.Close() }

// Repo fetches a whole repository and verifies it while it streams: see [repo.Open], and [repo.Reader.Records] for its
// records. Memory is constant if the server sends it in the order of the tree. The caller closes the reader. If the
// repository's head is wrong the reader is returned along with the error, for the sake of its report.
func (c *Client) Repo(ctx context.Context, did syntax.DID, o RepoOptions) (*RepoReader, error) {
	if o.Key == nil && !o.SkipSignature {
		return nil, fmt.Errorf("reading the repository of %s: %w", did, ErrNoKey)
	}
	s, err := c.RepoCAR(ctx, did, "")
	if err != nil {
		return nil, err
	}
	var in io.Reader = s.Body
	if o.Tee != nil {
		in = io.TeeReader(in, o.Tee)
	}
	key := o.Key
	if o.SkipSignature {
		key = nil
	}
	r, err := repo.Open(in, repo.ReadOptions{Key: key, DID: did, Now: o.Now, Records: o.Records, MaxBytes: o.MaxBytes})
	rr := &RepoReader{Reader: r, Size: s.Length, body: s.Body}
	if err != nil {
		rr.Close()
		return rr, fmt.Errorf("reading the repository of %s: %w", did, err)
	}
	return rr, nil
}

// ImportRepo sends a CAR file in place of the account's repository. If r can seek it may be sent twice, when a token has
// just expired. Size is in bytes, ≤ 0 if not known.
func (c *Client) ImportRepo(ctx context.Context, r io.Reader, size int64) error {
	if c.o.DID == "" {
		return ErrNoAccount
	}
	if _, err := comatproto.RepoImportRepo.Call(ctx, c.x, &xrpc.Body{Reader: r, Type: car.MediaType, Length: size}); err != nil {
		return fmt.Errorf("importing a repository into %s: %w", c.o.DID, err)
	}
	return nil
}

// MissingBlob is a blob that a record refers to and the PDS doesn't have.
type MissingBlob struct {
	CID    cid.CID
	Record syntax.ATURI
}

// MissingBlobs returns the blobs that the account's records refer to and its PDS doesn't have.
func (c *Client) MissingBlobs(ctx context.Context) iter.Seq2[MissingBlob, error] {
	return pages(ctx, func(ctx context.Context, cursor string) ([]MissingBlob, string, error) {
		ctx, cancel := c.limit(ctx)
		defer cancel()
		out, err := comatproto.RepoListMissingBlobs.Call(ctx, c.x, &comatproto.RepoListMissingBlobs_Params{Cursor: orNil(cursor)})
		if err != nil {
			return nil, "", fmt.Errorf("listing missing blobs: %w", because(ctx, err))
		}
		var list []MissingBlob
		for _, b := range out.Blobs {
			id, err := cid.Parse(b.Cid)
			if err != nil {
				return nil, "", fmt.Errorf("listing missing blobs: %w: %w", ErrBadAnswer, err)
			}
			list = append(list, MissingBlob{CID: id, Record: syntax.ATURI(b.RecordUri)})
		}
		return list, orEmpty(out.Cursor), nil
	})
}
