package doctor

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/barograph/baro/stream"
)

// listen opens a stream at a cursor. It ends with ctx.
func (x *exam) listen(ctx context.Context, origin, nsid string, cursor int64) (*stream.Conn, error) {
	at, err := stream.URL(origin, nsid, url.Values{"cursor": {strconv.FormatInt(cursor, 10)}})
	if err != nil {
		return nil, err
	}
	return stream.Dial(ctx, at, stream.DialOptions{
		NetDialContext: x.o.Dialer.DialContext, TLS: x.o.TLS, HandshakeTimeout: x.o.Call, Header: http.Header{"User-Agent": {userAgent}},
	})
}

// errQuiet says that nothing came.
var errQuiet = errors.New("nothing came")

// next is the next frame with an event, or errQuiet after a wait.
func (x *exam) next(ctx context.Context, c *stream.Conn, wait time.Duration) (stream.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for range 4 { // #info is no event
		f, err := c.Next()
		if err == nil {
			err = f.Err()
		}
		switch {
		case err == nil && f.Seq > 0:
			return f, nil
		case err != nil && ctx.Err() != nil:
			return f, errQuiet
		case err != nil:
			return f, err
		}
	}
	return stream.Frame{}, errors.New("frames without an event")
}

// stream examines the stream of a host.
func (x *exam) stream(ctx context.Context, origin, nsid string) {
	host := hostOf(origin)
	c, err := x.listen(ctx, origin, nsid, 0)
	if err != nil {
		x.noStream(origin, err)
		return
	}
	f, err := x.next(ctx, c, x.o.Quiet)
	c.Close()
	switch {
	case errors.Is(err, errQuiet) && nsid == stream.SubscribeRepos && x.empty(ctx, origin):
		x.find(streamOpen, host, "the stream opens, and there is no account that could have said anything")
		return
	case errors.Is(err, errQuiet):
		x.find(streamQuiet, host, "the stream of %s opens, and nothing comes within %s", host, x.o.Quiet)
		return
	case err != nil:
		x.find(streamBroken, host, "after opening: %v", err)
		return
	}
	if nsid == stream.SubscribeRepos {
		if _, err := f.Message(); err != nil {
			x.find(streamBroken, host, "its first event: %v", err)
			return
		}
	}
	x.find(streamOpen, host, "the stream begins with event %d", f.Seq)
	together(func() { x.resumes(ctx, origin, nsid, f.Seq) }, func() { x.knowsFuture(ctx, origin, nsid) })
}

// resumes looks whether a stream goes on where it is asked to.
func (x *exam) resumes(ctx context.Context, origin, nsid string, seq int64) {
	c, err := x.listen(ctx, origin, nsid, seq)
	if err != nil {
		x.find(streamCursor, hostOf(origin), "opening it a second time, at event %d: %v", seq, err)
		return
	}
	defer c.Close()
	switch f, err := x.next(ctx, c, x.o.Quiet); {
	case errors.Is(err, errQuiet):
		x.find(streamCursor, hostOf(origin), "at cursor %d nothing comes, although there is such an event", seq)
	case err != nil:
		x.find(streamCursor, hostOf(origin), "at cursor %d: %v", seq, err)
	case f.Seq < seq || f.Seq > seq+1: // a server may understand the cursor as the last event that is known
		x.find(streamCursor, hostOf(origin), "at cursor %d it goes on with %d", seq, f.Seq)
	}
}

// knowsFuture looks whether a stream says that a cursor is ahead of it.
func (x *exam) knowsFuture(ctx context.Context, origin, nsid string) {
	const far = stream.MaxSeq - 1
	c, err := x.listen(ctx, origin, nsid, far)
	if err != nil {
		return // an answer before the upgrade says it too
	}
	defer c.Close()
	f, err := x.next(ctx, c, x.o.Quiet)
	said, ok := errors.AsType[*stream.Error](err)
	switch {
	case ok && said.Name == stream.ErrorFutureCursor:
	case errors.Is(err, errQuiet):
		x.find(streamFuture, hostOf(origin), "at a cursor far ahead it is silent")
	case err != nil:
		x.find(streamFuture, hostOf(origin), "at a cursor far ahead: %v", err)
	default:
		x.find(streamFuture, hostOf(origin), "at a cursor far ahead it goes on with %d", f.Seq)
	}
}

// noStream says why a stream doesn't open.
func (x *exam) noStream(origin string, err error) {
	host := hostOf(origin)
	h, ok := errors.AsType[*stream.HandshakeError](err)
	if !ok {
		x.find(streamBroken, host, "opening it: %v", plain(err))
		return
	}
	kind := streamRefused
	switch h.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		kind = streamNone
	case http.StatusOK, http.StatusBadRequest, http.StatusUpgradeRequired, http.StatusMovedPermanently, http.StatusFound, http.StatusPermanentRedirect, http.StatusTemporaryRedirect:
		kind = streamPlain
	}
	x.find(kind, host, "the upgrade to a WebSocket is answered with %d %s %.100q", h.Status, h.Name, h.Message)
}
