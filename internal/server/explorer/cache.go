package explorer

import (
	"container/list"
	"sync"
	"time"
)

// cache keeps the entries that were used last, each for a while.
type cache[K comparable, V any] struct {
	max int
	ttl time.Duration
	now func() time.Time

	mu    sync.Mutex
	byKey map[K]*list.Element
	order list.List // the one used last in front
}

type cached[K comparable, V any] struct {
	key   K
	value V
	until time.Time
}

func newCache[K comparable, V any](max int, ttl time.Duration, now func() time.Time) *cache[K, V] {
	return &cache[K, V]{max: max, ttl: ttl, now: now, byKey: map[K]*list.Element{}}
}

func (c *cache[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[k]
	if e == nil {
		return v, false
	}
	held := e.Value.(*cached[K, V])
	if c.now().After(held.until) {
		c.order.Remove(e)
		delete(c.byKey, k)
		return v, false
	}
	c.order.MoveToFront(e)
	return held.value, true
}

func (c *cache[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	until := c.now().Add(c.ttl)
	if e := c.byKey[k]; e != nil {
		e.Value = &cached[K, V]{k, v, until}
		c.order.MoveToFront(e)
		return
	}
	c.byKey[k] = c.order.PushFront(&cached[K, V]{k, v, until})
	if c.order.Len() > c.max {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byKey, last.Value.(*cached[K, V]).key)
	}
}

func (c *cache[K, V]) drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[k]; e != nil {
		c.order.Remove(e)
		delete(c.byKey, k)
	}
}

func (c *cache[K, V]) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}
