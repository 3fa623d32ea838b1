package xrpc

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
)

// input is the body of a request as handlers read it: unpacked if it was compressed for the way, and with errors that say that
// the body is at fault and not the server.
type input struct {
	body io.ReadCloser
	gzip bool
	z    *gzip.Reader // made by the first read
	in   int64        // bytes read, compressed
	out  int64        // bytes given out
	err  error
}

// unpack puts an input in the place of the body.
func unpack(r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	b := &input{body: r.Body}
	switch enc := strings.ToLower(strings.Join(r.Header.Values("Content-Encoding"), ",")); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		b.gzip = true
		r.ContentLength = -1 // that of the compressed body says nothing
	default:
		return ErrUnsupportedMediaType.With("the content encoding %s isn't supported", clip(enc))
	}
	r.Body = b
	return nil
}

var errPadded = errors.New("it holds more compression than content")

// Read gives what the client meant to send.
func (b *input) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	switch {
	case !b.gzip:
		n, err = b.body.Read(p)
	case b.z == nil:
		if b.z, err = gzip.NewReader((*packed)(b)); err == io.EOF {
			err = io.ErrUnexpectedEOF // nothing is not a gzip file
		}
		if err == nil {
			n, err = b.z.Read(p)
		}
	default:
		n, err = b.z.Read(p)
	}
	b.out += int64(n)
	var large *http.MaxBytesError
	switch {
	case err == nil || err == io.EOF || errors.As(err, &large):
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrInvalidRequest.WithStatus(http.StatusRequestTimeout, "the body comes too slowly")
	default:
		err = ErrInvalidRequest.With("the body can't be read: %v", err)
	}
	b.err = err
	return n, err
}

// Close closes the body underneath.
func (b *input) Close() error { return b.body.Close() }

// packed is the compressed side of an input. What is given out is limited by the handler; this limits what doesn't lead to
// anything that is given out, such as empty gzip members without end.
type packed input

func (b *packed) Read(p []byte) (int, error) {
	if b.in > b.out+b.out/64+1<<20 {
		return 0, errPadded
	}
	n, err := b.body.Read(p)
	b.in += int64(n)
	return n, err
}
