package explorer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// imageType reports whether blobs that say they are of a type are shown as images.
func imageType(mime string) bool {
	switch mime {
	case "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/svg+xml":
		return true
	}
	return false
}

// sniffImage tells what an image is by its first bytes, "" if it is none that is shown. What anybody says of it doesn't count.
func sniffImage(b []byte) string {
	has := func(at int, magic string) bool {
		return len(b) >= at+len(magic) && string(b[at:at+len(magic)]) == magic
	}
	switch {
	case has(0, "\x89PNG\r\n\x1a\n"):
		return "image/png"
	case has(0, "\xff\xd8\xff"):
		return "image/jpeg"
	case has(0, "GIF87a"), has(0, "GIF89a"):
		return "image/gif"
	case has(0, "RIFF") && has(8, "WEBP"):
		return "image/webp"
	case has(4, "ftypavif"), has(4, "ftypavis"):
		return "image/avif"
	}
	head := b[:min(len(b), 1024)]
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	if bytes.HasPrefix(head, []byte("<svg")) || bytes.HasPrefix(head, []byte("<?xml")) && bytes.Contains(head, []byte("<svg")) {
		return "image/svg+xml"
	}
	return ""
}

// blob passes a blob on: whole, with its hash checked, under headers that leave it no power. Images are shown, everything else
// is a download.
func (s *Service) blob(w http.ResponseWriter, r *http.Request) {
	did, derr := syntax.ParseDID(r.PathValue("did"))
	c, cerr := cid.Parse(r.PathValue("cid"))
	if derr != nil || cerr != nil || !isBlobCID(c) {
		s.fail(w, r, badRequest("That is not the address of a blob.", "It has a DID and the CID of a blob, which begins with bafkrei."))
		return
	}
	select {
	case s.blobs <- struct{}{}:
		defer func() { <-s.blobs }()
	case <-r.Context().Done():
		return
	}
	h := w.Header()
	tag := `"` + c.String() + `"`
	if r.Header.Get("If-None-Match") == tag {
		secureBlob(h)
		h.Set("ETag", tag)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body, err := s.fetchBlob(r.Context(), did, c)
	if err != nil {
		e := &pageError{http.StatusBadGateway, "UpstreamFailure", "This blob can’t be shown", s.upstream(err), ""}
		var x *xrpc.Error
		var large *netguard.BodyTooLargeError
		switch {
		case errors.As(err, &large):
			e.Status, e.Name, e.Text = http.StatusRequestEntityTooLarge, "PayloadTooLarge", "It is larger than the "+bytesText(maxBlob)+" that are passed on here."
		case errors.As(err, &x) && x.Status < 500:
			e.Status, e.Name = http.StatusNotFound, "BlobNotFound"
		}
		s.fail(w, r, e)
		return
	}
	secureBlob(h)
	typ := sniffImage(body)
	// An SVG can hold scripts. As an image it can't run them; opened by itself it is a download.
	if typ == "" || typ == "image/svg+xml" && r.Header.Get("Sec-Fetch-Dest") != "image" {
		typ = "application/octet-stream"
		h.Set("Content-Disposition", `attachment; filename="`+c.String()+`"`)
	}
	h.Set("Content-Type", typ)
	h.Set("ETag", tag)
	h.Set("Cache-Control", "private, max-age=3600")
	h.Set("Vary", "Sec-Fetch-Dest")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func secureBlob(h http.Header) {
	secure(h)
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
}

var errHash = errors.New("what the PDS sent doesn’t hash to the CID")

func (s *Service) fetchBlob(ctx context.Context, did syntax.DID, c cid.CID) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*s.cfg.Timeout)
	defer cancel()
	doc, err := s.dir.ResolveDID(ctx, did)
	if err != nil {
		return nil, err
	}
	if doc.PDS == "" {
		return nil, errors.New("the account has no PDS")
	}
	client := s.client(doc.PDS)
	client.HTTP = s.files
	out, err := comatproto.SyncGetBlob.Call(ctx, client, &comatproto.SyncGetBlob_Params{Did: string(did), Cid: c.String()})
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	if out.Length > maxBlob {
		return nil, &netguard.BodyTooLargeError{Limit: maxBlob}
	}
	b, err := io.ReadAll(io.LimitReader(out.Body, maxBlob+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxBlob {
		return nil, &netguard.BodyTooLargeError{Limit: maxBlob}
	}
	if !c.Verify(b) {
		return nil, errHash
	}
	return b, nil
}
