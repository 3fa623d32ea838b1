package client

import (
	"context"
	"fmt"
	"iter"
)

// maxEmpty is how many pages without an item, but with a cursor, may follow each other.
const maxEmpty = 100

// pages turns a method that pages into a sequence of items. Fetch gets the cursor, "" for the first page.
func pages[T any](ctx context.Context, fetch func(ctx context.Context, cursor string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		// A circle of cursors is found by comparing each with one from before, which is replaced at growing distances
		// (Brent's algorithm): it takes no memory, and less than three rounds.
		cursor, mark, steps, power, empty := "", "", 0, 1, 0
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
			if next == "" {
				return
			}
			if empty++; len(items) > 0 {
				empty = 0
			}
			switch {
			case next == cursor || next == mark:
				yield(none, fmt.Errorf("%w: the cursor %.100q came again", ErrPaging, next))
				return
			case empty >= maxEmpty:
				yield(none, fmt.Errorf("%w: %d empty pages", ErrPaging, empty))
				return
			}
			if steps++; steps == power {
				mark, steps, power = next, 0, power*2
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
