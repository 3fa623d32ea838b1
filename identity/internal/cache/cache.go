// Package cache keeps what resolvers have learned, for a while.
//
// It has no specification; https://atproto.com/specs/handle and https://atproto.com/specs/lexicon say only that answers may be
// kept, and for how long at most. A [Cache] asks once for all who want the same at the same time, remembers errors too, and falls
// back on an old answer when asking fails. It doesn't know what it keeps, and does nothing by itself.
//
//	c := cache.New(cache.Options[string]{Now: clock.Now, TTL: time.Hour, MaxCost: 1 << 20, Cost: func(s string) int { return len(s) }})
//	a := c.Get(ctx, "key", -1, func(ctx context.Context) (string, error) { … })
//
// Limits: the cost of its entries; the least recently used go first.
package cache

import (
	"container/list"
	"context"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"time"
)

// Options tune a [Cache]. Now, Cost and MaxCost must be set.
type Options[V any] struct {
	Now      func() time.Time
	TTL      time.Duration // an answer is good for this long, give or take a tenth
	Negative time.Duration // an error is remembered for this long
	Stale    time.Duration // an old answer serves so much longer when asking fails; ≤ 0: never
	MaxCost  int           // bytes, about
	Cost     func(V) int   // bytes of a value
	// Transient says whether an error may be gone soon, so that an old answer serves in its place; nil: none is.
	Transient func(error) bool
	// Forget says whether an error is not to be remembered; nil: all are.
	Forget func(error) bool
}

// Cache keeps answers and errors. It is safe for concurrent use.
type Cache[V any] struct {
	o Options[V]

	random *rand.Rand // under mu

	mu      sync.Mutex
	used    int
	order   list.List // of *entry[V], most recently used first
	entries map[string]*list.Element
	flights map[string]*flight[V]
}

type entry[V any] struct {
	key     string
	cost    int
	value   V
	err     error
	at      time.Time // when it was fetched
	expires time.Time
	retry   time.Time // after a failure to renew: not before this
}

// New returns an empty cache.
func New[V any](o Options[V]) *Cache[V] {
	seed := maphash.String(maphash.MakeSeed(), "jitter")
	return &Cache[V]{
		o: o, random: rand.New(rand.NewPCG(seed, seed>>5)),
		entries: make(map[string]*list.Element), flights: make(map[string]*flight[V]),
	}
}

// jitter changes a duration by up to a tenth, because entries that were made together shouldn't end together. The lock is held.
func (c *Cache[V]) jitter(d time.Duration) time.Duration {
	return d - d/10 + time.Duration(c.random.Int64N(int64(d/5)+1))
}

// Answer is what a lookup gives.
type Answer[V any] struct {
	Value V
	At    time.Time // when it was fetched
	Stale bool      // it should have been fetched again, but that failed
	Err   error
	Asked bool // this answer was fetched for the caller, not kept from before
}

// flight is one running fetch and those who wait for it. It ends when the last of them has left.
type flight[V any] struct {
	done    chan struct{}
	answer  Answer[V]
	cancel  context.CancelFunc
	waiters int
	purged  bool // the answer may be older than a purge: don't keep it
}

// entryOverhead is what an entry costs besides its value.
const entryOverhead = 512

// Get returns the answer for key, from the cache if it is fresh enough. With minAge ≥ 0 an answer that is older is
// fetched again even if it is fresh, and so is an error.
func (c *Cache[V]) Get(ctx context.Context, key string, minAge time.Duration, fetch func(context.Context) (V, error)) Answer[V] {
	c.mu.Lock()
	now := c.o.Now()
	if el, ok := c.entries[key]; ok {
		e := el.Value.(*entry[V])
		fresh := now.Before(e.expires) && (minAge < 0 || now.Sub(e.at) < minAge)
		if fresh || now.Before(e.retry) {
			c.order.MoveToFront(el)
			a := Answer[V]{e.value, e.at, !fresh, e.err, false}
			c.mu.Unlock()
			return a
		}
	}
	f := c.flights[key]
	if f == nil {
		fctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight[V]{done: make(chan struct{}), cancel: cancel}
		c.flights[key] = f
		go c.run(fctx, key, f, fetch)
	}
	f.waiters++
	c.mu.Unlock()

	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
	}
	c.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last && c.flights[key] == f {
		delete(c.flights, key) // who comes now starts anew
	}
	c.mu.Unlock()
	if last {
		f.cancel()
		<-f.done // whoever was last sees the goroutine off
	}
	return Answer[V]{Err: ctx.Err()}
}

func (c *Cache[V]) run(ctx context.Context, key string, f *flight[V], fetch func(context.Context) (V, error)) {
	defer close(f.done)
	defer f.cancel()
	v, err := fetch(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Now()
	f.answer = Answer[V]{v, now, false, err, true}
	if c.flights[key] == f {
		delete(c.flights, key)
	}
	if f.purged || ctx.Err() != nil || err != nil && c.o.Forget != nil && c.o.Forget(err) {
		return
	}
	ttl := c.o.TTL
	if err != nil {
		ttl = c.o.Negative
		if el, ok := c.entries[key]; ok && c.o.Stale > 0 && c.o.Transient != nil && c.o.Transient(err) {
			e := el.Value.(*entry[V])
			if e.err == nil && now.Before(e.expires.Add(c.o.Stale)) {
				e.retry = now.Add(c.jitter(c.o.Negative))
				f.answer = Answer[V]{e.value, e.at, true, nil, false}
				return
			}
		}
	}
	c.put(&entry[V]{key: key, value: v, err: err, at: now, expires: now.Add(c.jitter(ttl))})
}

func (c *Cache[V]) put(e *entry[V]) {
	c.remove(e.key)
	e.cost = entryOverhead + 2*len(e.key)
	if e.err == nil {
		e.cost += c.o.Cost(e.value)
	}
	c.entries[e.key] = c.order.PushFront(e)
	c.used += e.cost
	for c.used > c.o.MaxCost && c.order.Len() > 1 {
		c.remove(c.order.Back().Value.(*entry[V]).key)
	}
}

func (c *Cache[V]) remove(key string) {
	if el, ok := c.entries[key]; ok {
		c.used -= c.order.Remove(el).(*entry[V]).cost
		delete(c.entries, key)
	}
}

// Purge forgets an entry and returns its value. A fetch that is under way is not kept and gets no new waiters.
func (c *Cache[V]) Purge(key string) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, found := c.entries[key]; found {
		e := el.Value.(*entry[V])
		v, ok = e.value, e.err == nil
		c.remove(key)
	}
	if f := c.flights[key]; f != nil {
		f.purged = true
		delete(c.flights, key)
	}
	return v, ok
}

// Len returns the number of entries.
func (c *Cache[V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}
