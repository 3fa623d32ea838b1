package identity

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// cache keeps answers and errors for a while, asks once for all who want the same, and falls back on an old answer when
// asking fails. It is bounded by the cost of its entries; the least recently used go first.
type cache[V any] struct {
	now      func() time.Time
	jitter   func(time.Duration) time.Duration
	ttl      time.Duration
	negative time.Duration
	stale    time.Duration
	max      int
	cost     func(V) int

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

// answer is what a lookup gives.
type answer[V any] struct {
	value V
	at    time.Time
	stale bool
	err   error
	asked bool // this answer was fetched for the caller, not kept from before
}

// flight is one running fetch and those who wait for it. It ends when the last of them has left.
type flight[V any] struct {
	done    chan struct{}
	answer  answer[V]
	cancel  context.CancelFunc
	waiters int
	purged  bool // the answer may be older than a purge: don't keep it
}

// entryOverhead is what an entry costs besides its value.
const entryOverhead = 512

// get returns the answer for key, from the cache if it is fresh enough. With minAge ≥ 0 an answer that is older is
// fetched again even if it is fresh, and so is an error.
func (c *cache[V]) get(ctx context.Context, key string, minAge time.Duration, fetch func(context.Context) (V, error)) answer[V] {
	c.mu.Lock()
	now := c.now()
	if el, ok := c.entries[key]; ok {
		e := el.Value.(*entry[V])
		fresh := now.Before(e.expires) && (minAge < 0 || now.Sub(e.at) < minAge)
		if fresh || now.Before(e.retry) {
			c.order.MoveToFront(el)
			a := answer[V]{e.value, e.at, !fresh, e.err, false}
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
	return answer[V]{err: ctx.Err()}
}

func (c *cache[V]) run(ctx context.Context, key string, f *flight[V], fetch func(context.Context) (V, error)) {
	defer close(f.done)
	defer f.cancel()
	v, err := fetch(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	f.answer = answer[V]{v, now, false, err, true}
	if c.flights[key] == f {
		delete(c.flights, key)
	}
	if f.purged || ctx.Err() != nil || KindOf(err) == KindLimited {
		return
	}
	ttl := c.ttl
	if err != nil {
		ttl = c.negative
		if el, ok := c.entries[key]; ok && KindOf(err) == KindUnreachable {
			e := el.Value.(*entry[V])
			if e.err == nil && now.Before(e.expires.Add(c.stale)) {
				e.retry = now.Add(c.jitter(c.negative))
				f.answer = answer[V]{e.value, e.at, true, nil, false}
				return
			}
		}
	}
	c.put(&entry[V]{key: key, value: v, err: err, at: now, expires: now.Add(c.jitter(ttl))})
}

func (c *cache[V]) put(e *entry[V]) {
	c.remove(e.key)
	e.cost = entryOverhead + 2*len(e.key)
	if e.err == nil {
		e.cost += c.cost(e.value)
	}
	c.entries[e.key] = c.order.PushFront(e)
	c.used += e.cost
	for c.used > c.max && c.order.Len() > 1 {
		c.remove(c.order.Back().Value.(*entry[V]).key)
	}
}

func (c *cache[V]) remove(key string) {
	if el, ok := c.entries[key]; ok {
		c.used -= c.order.Remove(el).(*entry[V]).cost
		delete(c.entries, key)
	}
}

// purge forgets an entry and returns its value. A fetch that is under way is not kept and gets no new waiters.
func (c *cache[V]) purge(key string) (v V, ok bool) {
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

func (c *cache[V]) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}
