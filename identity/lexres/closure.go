package lexres

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/barograph/baro/syntax"
)

// MaxClosure is how many schemas [Closure] reads unless it is told otherwise. The largest set in use has about 400.
const MaxClosure = 5000

// parallel is how many schemas are asked for at once.
const parallel = 8

// TooManyError says that schemas refer to more and more others.
type TooManyError struct{ Limit int }

// Error names the limit.
func (e *TooManyError) Error() string {
	return fmt.Sprintf("the schemas refer to more than %d others", e.Limit)
}

// Closure gets schemas and all that they depend on, each once, however they refer to each other: get returns what there is under a name
// and the names it depends on, and may be called from several goroutines at once. Names that get has an error for are in failed. A limit
// of 0 stands for [MaxClosure]; beyond it the error is a [*TooManyError].
func Closure[T any](ctx context.Context, ids []syntax.NSID, limit int, get func(context.Context, syntax.NSID) (T, []syntax.NSID, error)) (found map[syntax.NSID]T, failed map[syntax.NSID]error, err error) {
	if limit <= 0 {
		limit = MaxClosure
	}
	found, failed = map[syntax.NSID]T{}, map[syntax.NSID]error{}
	asked := map[syntax.NSID]bool{}
	for todo := ids; len(todo) > 0; {
		var level []syntax.NSID
		for _, id := range todo {
			if id = id.Normalize(); !asked[id] {
				asked[id] = true
				level = append(level, id)
			}
		}
		if len(asked) > limit {
			return found, failed, &TooManyError{limit}
		}
		slices.Sort(level)
		var mu sync.Mutex
		var next []syntax.NSID
		var wg sync.WaitGroup
		free := make(chan struct{}, parallel)
		for _, id := range level {
			free <- struct{}{}
			wg.Go(func() {
				defer func() { <-free }()
				v, deps, err := get(ctx, id)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed[id] = err
					return
				}
				found[id] = v
				next = append(next, deps...)
			})
		}
		wg.Wait()
		if err := ctx.Err(); err != nil {
			return found, failed, err
		}
		todo = next
	}
	return found, failed, nil
}

// ResolveAll resolves schemas and all that they depend on. Those that can't be resolved are in failed. A limit of 0 stands for
// [MaxClosure].
func (r *Resolver) ResolveAll(ctx context.Context, limit int, ids ...syntax.NSID) (found map[syntax.NSID]*Resolution, failed map[syntax.NSID]error, err error) {
	return Closure(ctx, ids, limit, func(ctx context.Context, id syntax.NSID) (*Resolution, []syntax.NSID, error) {
		x, err := r.Resolve(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		return x, x.Schema.Dependencies(), nil
	})
}
