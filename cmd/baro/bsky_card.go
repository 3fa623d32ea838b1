package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"golang.org/x/net/html"

	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/internal/netguard"
)

// cardFlags say what the card of a link shows.
type cardFlags struct {
	link, title, description, thumb string
	fetch                           bool
}

func (f *cardFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.link, "link", "", "page of the web to show as a card")
	fl.StringVar(&f.title, "link-title", "", "title of the card (default: the host)")
	fl.StringVar(&f.description, "link-description", "", "text of the card")
	fl.StringVar(&f.thumb, "link-thumb", "", "picture of the card, a file")
	fl.BoolVar(&f.fetch, "link-fetch", false, "fetch the page, and take from it what the other flags leave open")
}

// card is the card that the flags ask for, nil if they don't.
func (e *env) card(ctx context.Context, f postFlags) (*bsky.Card, error) {
	c := f.card
	if c.link == "" {
		if c.title != "" || c.description != "" || c.thumb != "" || c.fetch {
			return nil, usagef("--link is missing: what does the card lead to?")
		}
		return nil, nil
	}
	u, err := url.Parse(c.link)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, usagef("--link %q is not the address of a page", c.link)
	}
	card := &bsky.Card{URI: c.link, Title: c.title, Description: c.description}
	if c.thumb != "" {
		if card.Thumb, err = e.readInput(ctx, c.thumb, 4*bsky.MaxThumb); err != nil {
			return nil, err
		}
	}
	if c.fetch {
		if err := e.fillCard(ctx, u, card); err != nil {
			return nil, withHint(fmt.Errorf("fetching %s: %w", c.link, err), "without --link-fetch only what the flags say is shown")
		}
	}
	if card.Title == "" {
		card.Title = u.Host
	}
	return card, nil
}

// maxPage is how much of a page is read for its title.
const maxPage = 1 << 20

// fillCard takes title, description and picture from a page. A picture that can't be had is left out.
func (e *env) fillCard(ctx context.Context, u *url.URL, card *bsky.Card) error {
	guard := netguard.NewDialer(netguard.Options{Resolver: e.world.Resolver})
	if isLoopback(u.Scheme + "://" + u.Host) {
		if err := guard.Allow(hostPort(u.Scheme + "://" + u.Host)); err != nil { // the user has named it
			return err
		}
	}
	web := netguard.Client(guard, netguard.ClientOptions{Timeout: 20 * time.Second, Redirects: 5, MaxBody: 4 * bsky.MaxThumb, UserAgent: userAgent})
	get := func(u *url.URL) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		resp, err := web.Do(req)
		if err == nil && resp.StatusCode != http.StatusOK {
			resp.Body.Close()
			err = fmt.Errorf("the answer is %s", resp.Status)
		}
		return resp, err
	}
	resp, err := get(u)
	if err != nil {
		return err
	}
	title, description, image, err := readPageCard(io.LimitReader(resp.Body, maxPage))
	resp.Body.Close()
	if err != nil {
		return err
	}
	if card.Title == "" {
		card.Title = title
	}
	if card.Description == "" {
		card.Description = description
	}
	if card.Thumb != nil || image == "" {
		return nil
	}
	at, err := resp.Request.URL.Parse(image)
	if err == nil && (at.Scheme == "https" || at.Scheme == "http") {
		if resp, err = get(at); err == nil {
			card.Thumb, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
	}
	if err == nil {
		_, err = bsky.ParseImage(card.Thumb)
	}
	if stripped, serr := bsky.StripMetadata(card.Thumb); err == nil && (serr != nil || len(stripped) > bsky.MaxThumb) {
		err = errors.New("it is too large")
	}
	if err != nil {
		card.Thumb = nil
		fmt.Fprintf(e.stderr, "the card has no picture: %s: %s\n", inert(image), inert(err.Error()))
	}
	return nil
}

// maxCardText is how many bytes of a page's title or description are shown.
const maxCardText = 300

// readPageCard finds what a page says of itself: by the names of Open Graph, or else by its title.
func readPageCard(r io.Reader) (title, description, image string, err error) {
	found := map[string]string{}
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxPage)
	inTitle := false
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); err != io.EOF {
				return "", "", "", err
			}
			pick := func(names ...string) string {
				for _, n := range names {
					if v := strings.Join(strings.Fields(found[n]), " "); v != "" {
						return cutText(v, maxCardText)
					}
				}
				return ""
			}
			return pick("og:title", "twitter:title", "title"), pick("og:description", "twitter:description", "description"), strings.TrimSpace(found["og:image"]), nil
		case html.TextToken:
			if inTitle && found["title"] == "" {
				found["title"] = string(z.Text())
			}
		case html.EndTagToken:
			inTitle = false
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			inTitle = t.Data == "title"
			if t.Data != "meta" {
				continue
			}
			name, content := "", ""
			for _, a := range t.Attr {
				switch a.Key {
				case "property", "name":
					name = strings.ToLower(a.Val)
				case "content":
					content = a.Val
				}
			}
			if found[name] == "" && name != "title" {
				found[name] = content
			}
		}
	}
}

// cutText cuts a text between characters.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.TrimSpace(s[:n]) + "…"
}
