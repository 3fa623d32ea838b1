package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/syntax"
)

// cutting lets so many bytes of a repository from a host pass, and counts what passes of repositories and of blocks.
type cutting struct {
	host          string
	room          atomic.Int64 // of each answer
	whole, blocks atomic.Int64
}

type cutBody struct {
	io.ReadCloser
	left  int64 // < 0: no end
	count *atomic.Int64
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.count.Add(int64(n))
	if b.left > 0 {
		b.left -= int64(n)
	}
	return n, err
}

func (c *cutting) answer(r *http.Request, resp *http.Response) *http.Response {
	if "http://"+r.URL.Host == c.host && strings.HasSuffix(r.URL.Path, "sync.getRepo") {
		resp.Body = &cutBody{resp.Body, c.room.Load(), &c.whole}
	} else if "http://"+r.URL.Host == c.host && strings.HasSuffix(r.URL.Path, "sync.getBlocks") {
		resp.Body = &cutBody{resp.Body, -1, &c.blocks}
	}
	return resp
}

// fixed is an account whose tree is the same in every run, so that the share of it that came is, too.
func (h *hosts) fixed(t *testing.T, records int) *mover {
	t.Helper()
	m := h.account(t, 0, 0)
	a, err := auth.New(auth.Options{HTTP: h.http, Store: m.store, Now: time.Now}).Account(context.Background(), m.did)
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		at := syntax.RecordKey(syntax.NewTID(1_750_000_000_000_000+int64(i)*1_000_000, 1))
		post := &appbsky.FeedPost{Text: fmt.Sprintf("post %d", i), CreatedAt: "2026-01-01T00:00:00Z"}
		if _, err := client.Put(context.Background(), client.ForAccount(a, client.Options{}), at, post, client.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	m.records = records
	return m
}

// size is how many bytes the repository at the old host takes.
func (m *mover) size() int64 {
	m.t.Helper()
	s, err := client.New(m.h.old, client.Options{HTTP: m.h.http}).RepoCAR(context.Background(), m.did, "")
	if err != nil {
		m.t.Fatal(err)
	}
	defer s.Body.Close()
	n, err := io.Copy(io.Discard, s.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// A repository whose transfer is cut off is gone on with by the next process, also when it has changed meanwhile.
func TestExportGoesOn(t *testing.T) {
	h := newHosts(t)
	m := h.fixed(t, 200)
	c := &cutting{host: h.old}
	c.room.Store(-1)
	m.wire.answer = c.answer
	total := m.size()
	cut := func(room int64) {
		t.Helper()
		c.room.Store(room)
		if err := m.try(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut off after %d of %d bytes: %v", room, total, err)
		}
		if info, err := m.dir.Stat(carPartial); err != nil || info.Size() != room {
			t.Fatalf("the part that came: %v, %v", info, err)
		}
		c.whole.Store(0)
		c.blocks.Store(0)
		c.room.Store(-1)
	}
	cut(total * 19 / 20)
	// It goes on with what came, and a post that was written meanwhile comes with it.
	a, err := auth.New(auth.Options{HTTP: h.http, Store: m.store, Now: time.Now}).Account(context.Background(), m.did)
	if err != nil {
		t.Fatal(err)
	}
	post := &appbsky.FeedPost{Text: "still here", CreatedAt: "2026-01-01T00:00:00Z"}
	if _, err := client.Create(context.Background(), client.ForAccount(a, client.Options{}), post, client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.records++
	// A process that died while it wrote the file in order is no harm.
	if err := m.dir.WriteFile(carOrdered, []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	if n := c.whole.Load(); n != 0 || c.blocks.Load() == 0 || c.blocks.Load() > total/2 {
		t.Errorf("%d bytes of whole repositories, %d of blocks, of %d: %v", n, c.blocks.Load(), total, m.events)
	}
	m.arrived()
}

// With less than half of what is no small repository the whole is fetched anew, once; after another cut whatever is there counts.
func TestExportGoesOnFromLittle(t *testing.T) {
	h := newHosts(t)
	m := h.fixed(t, 2500)
	c := &cutting{host: h.old}
	m.wire.answer = c.answer
	room := m.size() / 3
	for range 2 {
		c.whole.Store(0)
		c.room.Store(room)
		if err := m.try(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		if c.whole.Load() != room {
			t.Errorf("%d bytes came", c.whole.Load())
		}
	}
	c.whole.Store(0)
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	if c.whole.Load() != 0 || c.blocks.Load() == 0 {
		t.Errorf("%d bytes of whole repositories, %d of blocks", c.whole.Load(), c.blocks.Load())
	}
	m.arrived()
}

// What is in the file need not be right, and a host need not give single blocks: then all is fetched.
func TestExportGoesOnFromNothing(t *testing.T) {
	h := newHosts(t)
	for name, spoil := range map[string]func(*testing.T, *mover, *cutting){
		"zeros": func(t *testing.T, m *mover, _ *cutting) {
			if err := m.dir.WriteFile(carPartial, make([]byte, 9000), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"no file":   func(t *testing.T, m *mover, _ *cutting) { _ = m.dir.Remove(carPartial) },
		"an export": func(t *testing.T, m *mover, _ *cutting) { _ = m.dir.Rename(carPartial, carName) },
		"no blocks": func(t *testing.T, m *mover, c *cutting) {
			m.wire.answer = func(r *http.Request, resp *http.Response) *http.Response {
				if strings.HasSuffix(r.URL.Path, "sync.getBlocks") {
					return reply(resp, http.StatusNotImplemented, []byte(`{"error":"MethodNotImplemented"}`))
				}
				return c.answer(r, resp)
			}
		},
		"wrong blocks": func(t *testing.T, m *mover, c *cutting) {
			lies := 0
			m.wire.answer = func(r *http.Request, resp *http.Response) *http.Response {
				if strings.HasSuffix(r.URL.Path, "sync.getBlocks") && lies < 1 {
					lies++
					return answering(h.old, "sync.getBlocks", func(b []byte) []byte { b[len(b)-1]++; return b })(r, resp)
				}
				return c.answer(r, resp)
			}
			if err := m.try(); err == nil || !strings.Contains(fmt.Sprint(err), "hash") && !strings.Contains(fmt.Sprint(err), "is") {
				t.Errorf("a wrong block: %v", err)
			}
			if info, err := m.dir.Stat(carPartial); err == nil && info.Size() > 0 {
				t.Errorf("%d bytes are kept", info.Size())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := h.fixed(t, 60)
			m.t = t
			c := &cutting{host: h.old}
			c.room.Store(m.size() * 19 / 20)
			m.wire.answer = c.answer
			if err := m.try(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			c.room.Store(-1)
			spoil(t, m, c)
			if err := m.run(); err != nil {
				t.Fatal(err)
			}
			m.arrived()
		})
	}
}
