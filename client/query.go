package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// Query calls a query that may have no generated types, such as one of an AppView's own lexicons, and decodes its answer.
// Out is [data.Raw] for the answer as it is.
func Query[Out any](ctx context.Context, c *Client, method syntax.NSID, params url.Values) (*Out, error) {
	raw, err := c.query(ctx, method, params)
	if err != nil {
		return nil, err
	}
	return decodeRaw[Out](method, raw)
}

func decodeRaw[T any](method syntax.NSID, raw data.Raw) (*T, error) {
	out := new(T)
	if r, ok := any(out).(*data.Raw); ok {
		*r = raw
		return out, nil
	}
	if err := data.Unmarshal(raw, out); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBadAnswer, method, err)
	}
	return out, nil
}

func (c *Client) query(ctx context.Context, method syntax.NSID, params url.Values) (data.Raw, error) {
	if !syntax.ValidNSID(string(method)) {
		return nil, fmt.Errorf("%.100q is no method", string(method))
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	s, err := c.x.Do(ctx, http.MethodGet, string(method), params.Encode(), nil, "")
	if err != nil {
		return nil, because(ctx, err)
	}
	b, err := readAll(string(method), s.Body, maxJSON)
	if err != nil {
		return nil, because(ctx, err)
	}
	raw, err := data.AppendCBOR(nil, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBadAnswer, method, err)
	}
	return raw, nil
}

// QueryList goes through what a query lists, page by page: the items of the array with the given key ("" for "records").
// Limit is the size of a page, 0 for the server's own. An item that isn't a T is a [*DecodeError] whose URI is that of its
// field "uri", as far as it has one, and doesn't end the loop; every other error does.
func QueryList[T any](ctx context.Context, c *Client, method syntax.NSID, params url.Values, key string, limit int) iter.Seq2[*T, error] {
	if key == "" {
		key = "records"
	}
	return mapped(ctx, func(ctx context.Context, cursor string) ([]data.Raw, string, error) {
		p := url.Values{}
		for k, v := range params {
			p[k] = v
		}
		if limit > 0 {
			p.Set("limit", strconv.Itoa(limit))
		}
		if cursor != "" {
			p.Set("cursor", cursor)
		}
		raw, err := c.query(ctx, method, p)
		if err != nil {
			return nil, "", err
		}
		var page struct {
			Cursor *string    `json:"cursor,omitzero"`
			Extra  data.Extra `json:"-"`
		}
		if err := data.Unmarshal(raw, &page); err != nil {
			return nil, "", fmt.Errorf("%w: %s: %w", ErrBadAnswer, method, err)
		}
		list, ok := page.Extra.Get(key)
		if !ok {
			return nil, "", fmt.Errorf("%w: %s: there is no %q in it", ErrBadAnswer, method, key)
		}
		var items []data.Raw
		if err := data.Unmarshal(list, &items); err != nil {
			return nil, "", fmt.Errorf("%w: %s: %s: %w", ErrBadAnswer, method, key, err)
		}
		return items, orEmpty(page.Cursor), nil
	}, func(raw data.Raw) (*T, error) {
		item, err := decodeRaw[T](method, raw)
		if err == nil {
			return item, nil
		}
		var named struct {
			URI   *string    `json:"uri,omitzero"`
			Extra data.Extra `json:"-"`
		}
		_ = data.Unmarshal(raw, &named) // an item without a name stays without
		return nil, &DecodeError{URI: orEmpty(named.URI), Err: err}
	})
}

// mapped is pages with a step that may fail for a single item.
func mapped[R, T any](ctx context.Context, fetch func(ctx context.Context, cursor string) ([]R, string, error), step func(R) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for r, err := range pages(ctx, fetch) {
			var item T
			if err == nil {
				item, err = step(r)
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

// GetBlob fetches a blob whole, of at most max bytes (0: 16 MiB), from a PDS given as a URL, and checks it against its CID.
func GetBlob(ctx context.Context, host string, did syntax.DID, id cid.CID, max int64, o Options) ([]byte, error) {
	if max <= 0 {
		max = maxJSON
	}
	r, err := New(host, o).Blob(ctx, did, id, max)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return b, r.Close()
}
