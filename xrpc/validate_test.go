package xrpc_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/barograph/baro/xrpc"
)

func TestValidate(t *testing.T) {
	asked := []string{}
	c, _ := newServer(t, xrpc.ServerOptions{Validate: func(nsid string, in any) error {
		p, ok := in.(*putInput)
		if !ok {
			t.Errorf("%s: asked about %T", nsid, in)
			return nil
		}
		asked = append(asked, nsid+" "+p.Text)
		switch p.Text {
		case "bad":
			return errors.New("text: maxLength: 3 bytes, at most 2")
		case "named":
			return errTooLong
		}
		return nil
	}})
	ctx := t.Context()
	if _, err := put.Call(ctx, c, &putInput{Text: "ok"}); err != nil {
		t.Error(err)
	}
	if _, err := put.Call(ctx, c, &putInput{Text: "bad"}); !errors.Is(err, xrpc.ErrInvalidRequest) || !strings.Contains(err.Error(), "text: maxLength: 3 bytes") {
		t.Error(err)
	}
	if _, err := put.Call(ctx, c, &putInput{Text: "named"}); !errors.Is(err, errTooLong) {
		t.Error(err)
	}
	if _, err := upload.Call(ctx, c, &xrpc.Body{Reader: strings.NewReader("x"), Type: "image/png"}); err != nil {
		t.Error(err)
	}
	if got := strings.Join(asked, ","); got != "com.example.put ok,com.example.put bad,com.example.put named" {
		t.Error(got)
	}
	// The same on the side of the client, about answers.
	no := errors.New("no")
	c.Validate = func(nsid string, out any) error {
		if o, ok := out.(*listOutput); !ok || nsid != "com.example.put" || len(o.Items) == 0 {
			t.Errorf("%s: asked about %T", nsid, out)
		}
		return no
	}
	if _, err := put.Call(ctx, c, &putInput{Text: "ok"}); !errors.Is(err, no) {
		t.Error(err)
	}
	if _, err := reset.Call(ctx, c, nil); err != nil {
		t.Errorf("an answer without a body: %v", err)
	}
}

func TestItems(t *testing.T) {
	s := xrpc.NewServer(xrpc.ServerOptions{})
	calls := 0
	xrpc.HandleQuery(s, list, func(_ context.Context, _ *xrpc.Request, p *listParams) (*listOutput, error) {
		calls++
		switch {
		case p.Cursor == nil:
			return &listOutput{Items: []string{"a", "b"}, Cursor: new("1")}, nil
		case *p.Cursor == "1":
			return &listOutput{Cursor: new("2")}, nil
		case *p.Cursor == "2":
			return &listOutput{Items: []string{"c"}, Cursor: new("3")}, nil
		}
		return nil, errTooLong
	})
	h := httptest.NewServer(s)
	defer h.Close()
	c := &xrpc.Client{Host: h.URL, HTTP: h.Client()}
	pages := list.Pages(t.Context(), c, listParams{Did: "did:web:a.b", Uris: []string{"at://a.b"}})
	items := xrpc.Items(pages, func(o *listOutput) []string { return o.Items })
	got := ""
	for s, err := range items {
		if err != nil {
			if !errors.Is(err, errTooLong) {
				t.Error(err)
			}
			got += "!"
			continue
		}
		got += *s
	}
	if got != "abc!" {
		t.Error(got)
	}
	calls = 0
	for s, err := range items {
		if err != nil || *s == "b" {
			break
		}
	}
	if calls != 1 {
		t.Errorf("%d calls for the first page", calls)
	}
}
