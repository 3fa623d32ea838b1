package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
)

func TestQueryList(t *testing.T) {
	type item struct {
		URI   string     `json:"uri"`
		Size  int64      `json:"size"`
		Extra data.Extra `json:"-"`
	}
	c := pds{"com.example.list": func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("who") != "alice" || q.Get("limit") != "2" {
			t.Errorf("asked %v", q)
		}
		body := map[string]string{
			"":  `{"cursor":"1","things":[{"uri":"at://a/b.c.d/1","size":1},{"uri":"at://a/b.c.d/2"}]}`,
			"1": `{"cursor":"2","things":[]}`,
			"2": `{"things":[{"uri":"at://a/b.c.d/3","size":3,"more":true}]}`,
		}[q.Get("cursor")]
		answer(200, body)(w, r)
	}, "com.example.circle": answer(200, `{"cursor":"x","records":[1]}`)}.start(t, client.Options{})
	params := url.Values{"who": {"alice"}}
	got := ""
	for x, err := range client.QueryList[item](t.Context(), c, "com.example.list", params, "things", 2) {
		if e, ok := errors.AsType[*client.DecodeError](err); ok {
			got += fmt.Sprintf("(%s) ", e.URI)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprint(x.Size, " ")
	}
	if want := "1 (at://a/b.c.d/2) 3 "; got != want || len(params) != 1 {
		t.Errorf("%q, want %q; the parameters are %v", got, want, params)
	}
	n := 0
	var err error
	for _, err = range client.QueryList[data.Raw](t.Context(), c, "com.example.circle", nil, "", 0) {
		n++
	}
	if !errors.Is(err, client.ErrPaging) || n != 3 {
		t.Errorf("a circle: %d, %v", n, err)
	}
	for _, err = range client.QueryList[data.Raw](t.Context(), c, "com.example.circle", nil, "other", 0) {
	}
	if !errors.Is(err, client.ErrBadAnswer) {
		t.Errorf("another key: %v", err)
	}
	raw, err := client.Query[data.Raw](t.Context(), c, "com.example.circle", nil)
	if err != nil || data.TypeOf(*raw) != "" {
		t.Errorf("%x %v", raw, err)
	}
	if _, err := client.Query[item](t.Context(), c, "com.example.circle", nil); !errors.Is(err, client.ErrBadAnswer) {
		t.Error(err)
	}
	if _, err := client.Query[item](t.Context(), c, "../admin", nil); err == nil {
		t.Error("a path for a method")
	}
}
