package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
)

func TestBlocks(t *testing.T) {
	const did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	var want []cid.CID
	data := map[cid.CID][]byte{}
	for i := range 5 {
		b := fmt.Appendf(nil, "block %d", i)
		want = append(want, cid.Sum(cid.DagCBOR, b))
		data[want[i]] = b
	}
	file := func(ids ...cid.CID) []byte {
		b := car.AppendHeader(nil)
		for _, id := range ids {
			b = car.AppendBlock(b, id, data[id])
		}
		return b
	}
	all := file(want...)
	flipped := slices.Clone(all)
	flipped[len(flipped)-1] ^= 1
	strange := cid.Sum(cid.DagCBOR, nil)
	data[strange] = nil
	wrongHash := func(err error) bool { _, ok := errors.AsType[*client.HashError](err); return ok }
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	for name, tt := range map[string]struct {
		status int
		body   []byte
		n      int // blocks that come
		fails  func(error) bool
	}{
		"all":             {200, all, 5, nil},
		"another order":   {200, file(want[4], want[2], want[0], want[1], want[3]), 5, nil},
		"with a root":     {200, append(car.AppendHeader(nil, want[0]), all[len(car.AppendHeader(nil)):]...), 5, nil},
		"one left out":    {200, file(want[:4]...), 4, is(client.ErrBlockNotFound)},
		"none":            {200, file(), 0, is(client.ErrBlockNotFound)},
		"not found":       {400, []byte(`{"error":"BlockNotFound","message":"no"}`), 0, is(client.ErrBlockNotFound)},
		"a changed byte":  {200, flipped, 4, wrongHash},
		"one twice":       {200, file(want[0], want[1], want[1], want[2], want[3]), 2, is(client.ErrBadAnswer)},
		"not asked for":   {200, file(want[0], strange), 1, is(client.ErrBadAnswer)},
		"one too many":    {200, append(slices.Clone(all), file(want[0])[len(car.AppendHeader(nil)):]...), 5, is(client.ErrBadAnswer)},
		"cut off":         {200, all[:len(all)-1], 4, is(io.ErrUnexpectedEOF)},
		"nothing":         {200, nil, 0, is(io.ErrUnexpectedEOF)},
		"no CAR file":     {200, []byte("\x05hello"), 0, is(client.ErrBadAnswer)},
		"a block's claim": {200, append(file(want[0]), 0xff, 0xff, 0xff, 0xff, 0x7f), 1, is(client.ErrBadAnswer)},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.Query()["cids"]; len(got) != len(want) || got[0] != want[0].String() || r.URL.Query().Get("did") != did {
				t.Errorf("%s: asked for %s", name, r.URL)
			}
			if w.Header().Set("Content-Type", car.MediaType); tt.status != 200 {
				w.Header().Set("Content-Type", "application/json")
			}
			w.WriteHeader(tt.status)
			_, _ = w.Write(tt.body)
		}))
		n, last := 0, error(nil)
		for b, err := range client.New(srv.URL, client.Options{}).Blocks(t.Context(), did, want) {
			if last != nil {
				t.Errorf("%s: goes on after an error", name)
			}
			if last = err; err != nil {
				continue
			}
			if n++; string(b.Data) != string(data[b.CID]) {
				t.Errorf("%s: %s has %q", name, b.CID, b.Data)
			}
		}
		if n != tt.n || (tt.fails == nil) != (last == nil) || tt.fails != nil && !tt.fails(last) {
			t.Errorf("%s: %d blocks, want %d; %v", name, n, tt.n, last)
		}
		for range client.New(srv.URL, client.Options{}).Blocks(t.Context(), did, want) {
			break // leaks nothing
		}
		srv.Close()
	}
}

func TestLatestCommit(t *testing.T) {
	id := cid.Sum(cid.DagCBOR, nil)
	for body, ok := range map[string]bool{
		fmt.Sprintf(`{"cid":%q,"rev":"3lscuqc52or2x"}`, id): true,
		fmt.Sprintf(`{"cid":%q,"rev":"x"}`, id):             false,
		`{"cid":"x","rev":"3lscuqc52or2x"}`:                 false,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
		}))
		got, rev, err := client.New(srv.URL, client.Options{}).LatestCommit(t.Context(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
		if ok && (got != id || rev != "3lscuqc52or2x" || err != nil) || !ok && !errors.Is(err, client.ErrBadAnswer) {
			t.Errorf("%s: %s, %s, %v", body, got, rev, err)
		}
		srv.Close()
	}
}
