package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// DefaultMaxBlob is the size in bytes up to which a blob is read, unless a caller says otherwise.
const DefaultMaxBlob = 512 << 20

// BlobReader is a blob while it comes. Its bytes are hashed on the way, and only when Read has returned [io.EOF] are they
// known to be the blob's; a mismatch is a [*HashError] in place of io.EOF.
type BlobReader struct {
	CID  cid.CID
	Type string // MIME type as the server says
	Size int64  // bytes as the server says; ≤ 0 if it doesn't

	body io.ReadCloser
	sum  hash.Hash
	left int64
	err  error
}

// Blob fetches a blob of an account, of at most max bytes (0: [DefaultMaxBlob]). The caller closes the reader.
func (c *Client) Blob(ctx context.Context, did syntax.DID, id cid.CID, max int64) (*BlobReader, error) {
	if max <= 0 {
		max = DefaultMaxBlob
	}
	if id.Codec() != cid.Raw {
		return nil, fmt.Errorf("fetching the blob %s: the CID is not one of a blob", id)
	}
	s, err := open(ctx, c, comatproto.SyncGetBlob, &comatproto.SyncGetBlob_Params{Did: string(did), Cid: id.String()})
	if err != nil {
		return nil, fmt.Errorf("fetching the blob %s: %w", id, err)
	}
	if s.Length > max {
		s.Body.Close()
		return nil, fmt.Errorf("fetching the blob %s: %w: %d bytes, allowed are %d", id, ErrTooLarge, s.Length, max)
	}
	return &BlobReader{CID: id, Type: s.Type, Size: s.Length, body: s.Body, sum: sha256.New(), left: max}, nil
}

// Read implements [io.Reader].
func (b *BlobReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.body.Read(p)
	if int64(n) > b.left {
		n = int(b.left)
		err = fmt.Errorf("fetching the blob %s: %w", b.CID, ErrTooLarge)
	}
	b.sum.Write(p[:n])
	b.left -= int64(n)
	if err == io.EOF {
		if got := cid.FromDigest(cid.Raw, [32]byte(b.sum.Sum(nil))); got != b.CID {
			err = &HashError{What: "blob", Want: b.CID, Got: got}
		}
	} else if err != nil && !errors.Is(err, ErrTooLarge) {
		err = fmt.Errorf("fetching the blob %s: %w", b.CID, err)
	}
	b.err = err
	return n, err
}

// Close ends the transfer.
func (b *BlobReader) Close() error { return b.body.Close() }

// UploadBlob sends a blob, which the PDS keeps for a while until a record refers to it. Typ is its MIME type, and size its
// bytes if known, ≤ 0 otherwise. The blob that the server answers with is checked against what was sent. If r can seek it
// may be sent twice, when a token has just expired.
func (c *Client) UploadBlob(ctx context.Context, r io.Reader, typ string, size int64) (*data.Blob, error) {
	h := &hashed{r: r, sum: sha256.New()}
	var in io.Reader = h
	if s, ok := r.(io.Seeker); ok {
		start, err := s.Seek(0, io.SeekCurrent)
		if err == nil {
			in = &hashedSeeker{hashed: h, s: s, start: start}
		}
	}
	out, err := comatproto.RepoUploadBlob.Call(ctx, c.x, &xrpc.Body{Reader: in, Type: typ, Length: size})
	if err != nil {
		return nil, fmt.Errorf("uploading a blob: %w", err)
	}
	if sent, n := h.total(); out.Blob.Ref != sent {
		return nil, fmt.Errorf("uploading a blob: %w", &HashError{What: "blob", Want: sent, Got: out.Blob.Ref})
	} else if out.Blob.Size != n {
		return nil, fmt.Errorf("uploading a blob: %w: it has %d bytes, %d were sent", ErrBadAnswer, out.Blob.Size, n)
	}
	return &out.Blob, nil
}

// hashed hashes what is read. A transport may go on reading when a server has answered too early, hence the lock.
type hashed struct {
	mu  sync.Mutex
	r   io.Reader
	sum hash.Hash
	n   int64
}

func (h *hashed) total() (cid.CID, int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return cid.FromDigest(cid.Raw, [32]byte(h.sum.Sum(nil))), h.n
}

func (h *hashed) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.r.Read(p)
	h.sum.Write(p[:n])
	h.n += int64(n)
	return n, err
}

// hashedSeeker can go back to where it began, and nowhere else.
type hashedSeeker struct {
	*hashed
	s     io.Seeker
	start int64
}

func (h *hashedSeeker) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekStart {
		return 0, errors.New("can only go back to the start")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.s.Seek(h.start, io.SeekStart); err != nil {
		return 0, err
	}
	h.sum.Reset()
	h.n = 0
	return 0, nil
}
