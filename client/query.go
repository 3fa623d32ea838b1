package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/barograph/baro/cbor"
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
	err := data.Check(raw)
	if r, ok := any(out).(*data.Raw); ok {
		*r = raw
	} else if err == nil {
		err = data.Unmarshal(raw, out)
	}
	if err != nil {
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
	var raw data.Raw
	err := c.x.DoAll(ctx, http.MethodGet, string(method), params.Encode(), nil, "", maxJSON, func(b []byte) (err error) {
		if raw, _, err = data.AppendCBORLenient(nil, b); err != nil {
			return fmt.Errorf("%w: %w", ErrBadAnswer, err)
		}
		return nil
	})
	if err != nil {
		return nil, because(ctx, err)
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
		// An item that breaks the rules of the data model is that item's fault, and not the page's.
		if _, err := data.UnmarshalLenient(raw, &page); err != nil {
			return nil, "", fmt.Errorf("%w: %s: %w", ErrBadAnswer, method, err)
		}
		list, ok := page.Extra.Get(key)
		if err := data.Check(raw); !ok && err != nil {
			return nil, "", fmt.Errorf("%w: %s: %w", ErrBadAnswer, method, err)
		} else if !ok {
			return nil, "", fmt.Errorf("%w: %s: there is no %q in it", ErrBadAnswer, method, key)
		}
		if r := cbor.NewReader(list); !isArray(&r) {
			return nil, "", fmt.Errorf("%w: %s: %s is not a list", ErrBadAnswer, method, key)
		}
		var items []data.Raw
		if _, err := data.UnmarshalLenient(list, &items); err != nil {
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
		_, _ = data.UnmarshalLenient(raw, &named) // an item without a name stays without
		return nil, &DecodeError{URI: orEmpty(named.URI), Err: err, Raw: raw}
	})
}

func isArray(r *cbor.Reader) bool {
	k, err := r.Kind()
	return err == nil && k == cbor.KindArray
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
