package xrpc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
)

// DefaultPageSize is how many items to ask for where a lexicon allows it: the most that most of them do.
const DefaultPageSize = 100

// MaxEmptyPages is how many pages without an item, but with a cursor, may follow each other.
const MaxEmptyPages = 100

// ErrPaging says that a list would never end: its cursors go in circles or its pages stay empty.
var ErrPaging = errors.New("the list does not end")

// PageGuard finds out that a list would never end. The zero value is at the beginning of one.
//
// A circle of cursors is found by comparing each with one from before, which is replaced at growing distances (Brent's
// algorithm): it takes no memory, and less than three rounds.
type PageGuard struct {
	cursor, mark        string
	steps, power, empty int
}

// Next takes the number of items on a page and the cursor of the page after it, and returns whether to go on: not if the
// cursor is "". The error is an [ErrPaging].
func (g *PageGuard) Next(items int, cursor string) (bool, error) {
	if cursor == "" {
		return false, nil
	}
	if g.empty++; items > 0 {
		g.empty = 0
	}
	switch {
	case cursor == g.cursor || cursor == g.mark:
		return false, fmt.Errorf("%w: the cursor %.100q came again", ErrPaging, cursor)
	case g.empty >= MaxEmptyPages:
		return false, fmt.Errorf("%w: %d empty pages", ErrPaging, g.empty)
	}
	if g.steps++; g.steps >= g.power {
		g.mark, g.steps, g.power = cursor, 0, max(1, g.power*2)
	}
	g.cursor = cursor
	return true, nil
}

// Pages calls a query that pages again and again, until there is no cursor. Parameters and output must have a field Cursor
// of type *string, or there is one page. The error, which may be [ErrPaging], ends the loop; pages before it are given.
func (q Query[P, O]) Pages(ctx context.Context, c *Client, p P) iter.Seq2[*O, error] {
	return func(yield func(*O, error) bool) {
		p := p // each loop over the sequence begins anew
		pages(q.NSID, &p, func() (any, error) { return q.Call(ctx, c, &p) }, func(out any, err error) bool {
			page, _ := out.(*O)
			return yield(page, err)
		})
	}
}

// pages is what Pages does, for all types.
func pages(nsid string, params any, call func() (any, error), yield func(any, error) bool) {
	var guard PageGuard
	for {
		out, err := call()
		if err != nil {
			yield(nil, err)
			return
		}
		if !yield(out, nil) {
			return
		}
		next, ok := cursor(out)
		last, ok2 := cursor(params)
		if !ok || !ok2 || next.IsNil() {
			return
		}
		more, err := guard.Next(items(out), next.Elem().String())
		if err != nil {
			yield(nil, fmt.Errorf("paging %s: %w", nsid, err))
		}
		if !more {
			return
		}
		last.Set(next)
	}
}

// Items returns what pages list, one by one: the items of the array that list picks.
//
//	pages := appbsky.FeedGetTimeline.Pages(ctx, c, appbsky.FeedGetTimeline_Params{})
//	posts := xrpc.Items(pages, func(p *appbsky.FeedGetTimeline_Output) []appbsky.FeedDefs_FeedViewPost { return p.Feed })
//	for post, err := range posts { … }
//
// The pointers point into the pages. The error ends the loop.
func Items[O, T any](pages iter.Seq2[*O, error], list func(*O) []T) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for page, err := range pages {
			if err != nil {
				yield(nil, err)
				return
			}
			items := list(page)
			for i := range items {
				if !yield(&items[i], nil) {
					return
				}
			}
		}
	}
}

func cursor(v any) (reflect.Value, bool) {
	s := reflect.ValueOf(v).Elem()
	if s.Kind() != reflect.Struct {
		return reflect.Value{}, false
	}
	f := s.FieldByName("Cursor")
	return f, f.IsValid() && f.Type() == reflect.TypeFor[*string]()
}

// items counts what is in the lists of an output. One without a list is never empty.
func items(v any) int {
	s := reflect.ValueOf(v).Elem()
	n, lists := 0, 0
	for i := range s.NumField() {
		if f := s.Field(i); f.Kind() == reflect.Slice {
			n += f.Len()
			lists++
		}
	}
	if lists == 0 {
		return 1
	}
	return n
}
