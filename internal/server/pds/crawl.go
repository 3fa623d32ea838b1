package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// crawler asks relays to subscribe to this server: at start, and when a commit finds no subscriber. A request that fails is repeated
// until it succeeds, because a server that no relay follows is invisible and nobody tells it so.
type crawler struct {
	s    *Service
	wake []chan struct{} // one per relay
}

func newCrawler(s *Service) *crawler {
	c := &crawler{s: s}
	for range s.cfg.Relays {
		c.wake = append(c.wake, make(chan struct{}, 1))
	}
	return c
}

// nudge tells the crawler that there is something to see. It is cheap and never waits.
func (c *crawler) nudge() {
	if len(c.wake) == 0 || c.s.subscribers() > 0 {
		return
	}
	for _, w := range c.wake {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

const (
	crawlFirstRetry = time.Second
	crawlLastRetry  = 5 * time.Minute
	crawlTimeout    = 10 * time.Second
)

// run asks until ctx is done.
func (c *crawler) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i, relay := range c.s.cfg.Relays {
		wg.Go(func() { c.follow(ctx, relay, c.wake[i]) })
	}
	wg.Wait()
}

func (c *crawler) follow(ctx context.Context, relay string, wake <-chan struct{}) {
	clock := c.s.world.Clock
	retry := crawlFirstRetry
	sleep := func(d time.Duration) bool {
		t := clock.NewTimer(d)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-t.C():
			return true
		}
	}
	for {
		if err := c.ask(ctx, relay); err != nil {
			if ctx.Err() != nil {
				return
			}
			c.s.world.Log.Warn("asking a relay to crawl failed; trying again", "relay", relay, "in", retry, "err", err)
			if !sleep(retry) {
				return
			}
			retry = min(2*retry, crawlLastRetry)
			continue
		}
		retry = crawlFirstRetry
		c.s.world.Log.Info("asked a relay to crawl", "relay", relay)
		if !sleep(c.s.cfg.CrawlInterval) {
			return
		}
		for asleep := true; asleep; {
			select {
			case <-ctx.Done():
				return
			case <-wake: // perhaps from long ago
				asleep = c.s.subscribers() > 0
			}
		}
	}
}

func (c *crawler) ask(ctx context.Context, relay string) error {
	ctx, cancel := context.WithTimeout(ctx, crawlTimeout)
	defer cancel()
	u, err := url.Parse(c.s.cfg.PublicURL)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"hostname": u.Host})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, relay+"/xrpc/com.atproto.sync.requestCrawl", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	if resp.StatusCode/100 != 2 {
		var said struct{ Error, Message string }
		if json.Unmarshal(text, &said) == nil && said.Message != "" {
			text = []byte(said.Message)
		}
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return nil
}
