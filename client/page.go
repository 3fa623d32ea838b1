package client

import (
	"context"
	"iter"

	"github.com/barograph/baro/xrpc"
)

// pages turns a method that pages into a sequence of items. Fetch gets the cursor, "" for the first page.
func pages[T any](ctx context.Context, fetch func(ctx context.Context, cursor string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		cursor := ""
		var guard xrpc.PageGuard
		for {
			items, next, err := fetch(ctx, cursor)
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			more, err := guard.Next(len(items), next)
			if err != nil {
				yield(none, err)
			}
			if !more {
				return
			}
			cursor = next
		}
	}
}

// orNil returns nil for "", the form of an absent parameter.
func orNil[S ~string](s S) *string {
	if s == "" {
		return nil
	}
	t := string(s)
	return &t
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
