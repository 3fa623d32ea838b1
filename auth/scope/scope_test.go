package scope_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

func Example() {
	want := scope.Of(
		scope.Repo("app.bsky.feed.post").On(scope.Create),
		scope.Blob("image/*"),
		scope.RPC("did:web:api.bsky.app#bsky_appview", "*"),
	)
	fmt.Println(want)

	granted, err := scope.Read("atproto repo:app.bsky.feed.post?action=create") // the person has said no to the rest
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(granted.AllowsRepo(scope.Create, "app.bsky.feed.post"), granted.AllowsBlob("image/png"))
	// Output:
	// atproto blob:image/* repo:app.bsky.feed.post?action=create rpc:*?aud=did:web:api.bsky.app%23bsky_appview
	// true false
}

// Every way to write a scope, with its normal form.
func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"atproto":                  "atproto",
		"transition:generic":       "transition:generic",
		"repo:app.example.profile": "repo:app.example.profile",
		"repo:app.example.profile?action=create&action=update&action=delete": "repo:app.example.profile",
		"repo:app.example.profile?action=delete&action=create":               "repo:app.example.profile?action=create&action=delete",
		"repo?collection=app.example.profile&collection=app.example.post":    "repo?collection=app.example.post&collection=app.example.profile",
		"repo?collection=app.example.post&collection=app.example.post":       "repo:app.example.post",
		"repo?collection=app.example.post&collection=*":                      "repo:*",
		"repo:*":                    "repo:*",
		"repo:*?action=delete":      "repo:*?action=delete",
		"repo:app%2Eexample%2epost": "repo:app.example.post",
		"rpc:app.example.moderation.createReport?aud=*":       "rpc:app.example.moderation.createReport?aud=*",
		"rpc?lxm=*&aud=did:web:api.example.com%23svc_appview": "rpc:*?aud=did:web:api.example.com%23svc_appview",
		"rpc?aud=did:web:api.example.com#svc_appview&lxm=*":   "rpc:*?aud=did:web:api.example.com%23svc_appview",
		"rpc?lxm=a.b.d&lxm=a.b.c&aud=*":                       "rpc?lxm=a.b.c&lxm=a.b.d&aud=*",
		"blob:*/*":                                            "blob:*/*",
		"blob?accept=video/*&accept=text/html":                "blob?accept=text/html&accept=video/*",
		"blob?accept=image/svg+xml&accept=text/html":          "blob?accept=image/svg%2Bxml&accept=text/html",
		"blob:image/svg+xml":                                  "blob:image/svg%2Bxml",
		"blob:IMAGE/PNG":                                      "blob:image/png",
		"account:email":                                       "account:email",
		"account:email?action=read":                           "account:email",
		"account:repo?action=manage":                          "account:repo?action=manage",
		"account?action=manage&attr=repo":                     "account:repo?action=manage",
		"identity:handle":                                     "identity:handle",
		"identity:*":                                          "identity:*",
		"identity:*?":                                         "identity:*",
		"include:app.example.authFull":                        "include:app.example.authFull",
		"include:app.example.authFull?aud=did:web:api.example.com%23svc_chat": "include:app.example.authFull?aud=did:web:api.example.com%23svc_chat",
		"transition:generic repo:* atproto repo:*":                            "atproto transition:generic repo:*",
	} {
		s, err := scope.Parse(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if s.String() != want {
			t.Errorf("%q is %q, want %q", in, s, want)
		}
		if again, err := scope.Parse(want); err != nil || again.String() != want {
			t.Errorf("%q isn't normal: %q, %v", want, again, err)
		}
		if in != "" && !strings.Contains(in, " ") && !s.Has(in) {
			t.Errorf("%q isn't in itself", in)
		}
	}
}

func TestRefused(t *testing.T) {
	for in, kind := range map[string]scope.Kind{
		" ":                                     scope.KindSyntax,
		"atproto  repo:*":                       scope.KindSyntax,
		"atproto ":                              scope.KindSyntax,
		":handle":                               scope.KindSyntax,
		"?attr=handle":                          scope.KindSyntax,
		"resource:positional?key=québec":        scope.KindSyntax,
		"emoji:☺️":                              scope.KindSyntax,
		"repo:a.b.c\"":                          scope.KindSyntax,
		"repo:a.b.c\\":                          scope.KindSyntax,
		"repo:a.b.c?action":                     scope.KindSyntax,
		"repo:a.b.c?=create":                    scope.KindSyntax,
		"repo:a.b.c?action=create&":             scope.KindSyntax,
		"repo:%zz":                              scope.KindSyntax,
		"repo:a.b.c%2":                          scope.KindSyntax,
		strings.Repeat("a", scope.MaxText+1):    scope.KindSyntax,
		strings.Repeat("a ", scope.MaxScopes+1): scope.KindSyntax,
		// The well-formed examples of the specification that mean nothing.
		"resource":                                 scope.KindUnknown,
		"resource:positional?key=val":              scope.KindUnknown,
		"resource:positional&thing?key=val":        scope.KindUnknown,
		"service:did:web:com.example#type?key=val": scope.KindUnknown,
		"resource:":                                scope.KindUnknown,
		"resource:?":                               scope.KindUnknown,
		"resource:&":                               scope.KindUnknown,
		"resource?":                                scope.KindUnknown,
		"transition:everything":                    scope.KindUnknown,
		"Repo:a.b.c":                               scope.KindUnknown,

		"repo":               scope.KindInvalid,
		"repo:":              scope.KindInvalid,
		"repo?action=create": scope.KindInvalid,
		"repo:com.example.*": scope.KindInvalid,
		"repo:com.example.record?collection=com.example.other": scope.KindInvalid,
		"repo:a.b.c?action=publish":                            scope.KindUnknown,
		"repo:a.b.c?action=":                                   scope.KindUnknown,
		"repo:a.b.c?only=sundays":                              scope.KindUnknown,
		"repo:a.b.c?aud=did:web:a.test%23b":                    scope.KindUnknown,
		"rpc:a.b.c":                                            scope.KindInvalid,
		"rpc:a.b.c?aud=":                                       scope.KindInvalid,
		"rpc:*?aud=*":                                          scope.KindInvalid,
		"rpc:a.b.*?aud=*":                                      scope.KindInvalid,
		"rpc:a.b.c?aud=did:web:a.test":                         scope.KindInvalid,
		"rpc:a.b.c?aud=did:web:a.test%23":                      scope.KindInvalid,
		"rpc:a.b.c?aud=*&aud=*":                                scope.KindInvalid,
		"rpc:a.b.c?aud=*&inheritAud=true":                      scope.KindUnknown,
		"rpc:a.b.c?aud=*&action=create":                        scope.KindUnknown,
		"blob":                                                 scope.KindInvalid,
		"blob:image":                                           scope.KindInvalid,
		"blob:*":                                               scope.KindInvalid,
		"blob:*/png":                                           scope.KindInvalid,
		"blob:image/png/x":                                     scope.KindInvalid,
		"account:*":                                            scope.KindUnknown,
		"account:email?action=delete":                          scope.KindUnknown,
		"account:email?action=read&action=manage":              scope.KindInvalid,
		"account?attr=email&attr=repo":                         scope.KindInvalid,
		"identity:did":                                         scope.KindUnknown,
		"identity:handle?action=manage":                        scope.KindUnknown,
		"include:*":                                            scope.KindInvalid,
		"include:a.b.c?aud=*":                                  scope.KindInvalid,
	} {
		s, err := scope.Parse(in)
		e, ok := errors.AsType[*scope.Error](err)
		if !ok || e.Kind != kind {
			t.Errorf("%.64q: %q, %v, want %s", in, s, err, kind)
		}
	}
}

// What a server of the future grants is kept, and allows nothing.
func TestRead(t *testing.T) {
	s, err := scope.Read("atproto repo:a.b.c?on=sundays teleport:home blob:image/png b\x00d")
	if err == nil || s.String() != "atproto repo:a.b.c?on=sundays teleport:home blob:image/png" {
		t.Fatalf("%q, %v", s, err)
	}
	if s.AllowsRepo(scope.Create, "a.b.c") || !s.AllowsBlob("image/png") {
		t.Fatalf("%q allows the wrong things", s)
	}
	if !s.Has("teleport:home") || s.Has("repo:a.b.c") {
		t.Fatal("what is in the set is told wrong")
	}
}

func TestAllows(t *testing.T) {
	const appview, chat = "did:web:api.example.com#appview", "did:web:chat.example.com#chat"
	tests := map[string]func(scope.Set) bool{
		"create post":   func(s scope.Set) bool { return s.AllowsRepo(scope.Create, "app.example.post") },
		"delete post":   func(s scope.Set) bool { return s.AllowsRepo(scope.Delete, "app.example.post") },
		"create like":   func(s scope.Set) bool { return s.AllowsRepo(scope.Create, "app.example.like") },
		"publish post":  func(s scope.Set) bool { return s.AllowsRepo("publish", "app.example.post") },
		"create *":      func(s scope.Set) bool { return s.AllowsRepo(scope.Create, "*") },
		"get feed":      func(s scope.Set) bool { return s.AllowsRPC("app.example.getFeed", appview) },
		"get feed else": func(s scope.Set) bool { return s.AllowsRPC("app.example.getFeed", chat) },
		"bare audience": func(s scope.Set) bool { return s.AllowsRPC("app.example.getFeed", "did:web:api.example.com") },
		"send message":  func(s scope.Set) bool { return s.AllowsRPC("chat.bsky.convo.sendMessage", chat) },
		"call *":        func(s scope.Set) bool { return s.AllowsRPC("*", appview) },
		"png":           func(s scope.Set) bool { return s.AllowsBlob("image/PNG; q=1") },
		"mp4":           func(s scope.Set) bool { return s.AllowsBlob("video/mp4") },
		"any blob":      func(s scope.Set) bool { return s.AllowsBlob("*/*") },
		"see mail":      func(s scope.Set) bool { return s.AllowsAccount(scope.AttrEmail, scope.ActionRead) },
		"change mail":   func(s scope.Set) bool { return s.AllowsAccount(scope.AttrEmail, scope.ActionManage) },
		"lose mail":     func(s scope.Set) bool { return s.AllowsAccount(scope.AttrEmail, "lose") },
		"import":        func(s scope.Set) bool { return s.AllowsAccount(scope.AttrRepo, scope.ActionManage) },
		"handle":        func(s scope.Set) bool { return s.AllowsIdentity(scope.AttrHandle) },
		"identity":      func(s scope.Set) bool { return s.AllowsIdentity(scope.Any) },
	}
	all := []string{"create post", "delete post", "create like", "get feed", "get feed else", "bare audience", "png", "mp4"}
	for in, allowed := range map[string][]string{
		"":        nil,
		"atproto": nil,
		"repo:* blob:*/* identity:* transition:generic": nil, // without atproto nothing is granted
		"atproto repo:app.example.post":                 {"create post", "delete post"},
		"atproto repo:app.example.post?action=create":   {"create post"},
		"atproto repo:*?action=delete":                  {"delete post"},
		"atproto repo:*":                                {"create post", "delete post", "create like"},
		"atproto rpc:app.example.getFeed?aud=" + strings.ReplaceAll(appview, "#", "%23"): {"get feed"},
		"atproto rpc:*?aud=" + strings.ReplaceAll(appview, "#", "%23"):                   {"get feed"},
		"atproto rpc:app.example.getFeed?aud=*":                                          {"get feed", "get feed else", "bare audience"},
		"atproto rpc:chat.bsky.convo.sendMessage?aud=*":                                  {"send message"},
		"atproto blob:image/*":                                                           {"png"},
		"atproto blob:*/*":                                                               {"png", "mp4"},
		"atproto blob:image/png":                                                         {"png"},
		"atproto account:email":                                                          {"see mail"},
		"atproto account:email?action=manage":                                            {"see mail", "change mail"},
		"atproto account:repo":                                                           nil,
		"atproto account:repo?action=manage":                                             {"import"},
		"atproto identity:handle":                                                        {"handle"},
		"atproto identity:*":                                                             {"handle", "identity"},
		"atproto include:app.example.authFull":                                           nil,
		"atproto transition:generic":                                                     all,
		"atproto transition:chat.bsky":                                                   nil, // does nothing by itself
		"atproto transition:generic transition:chat.bsky":                                append([]string{"send message"}, all...),
		"atproto transition:email":                                                       {"see mail"},
	} {
		s, err := scope.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		for name, ask := range tests {
			want := false
			for _, a := range allowed {
				want = want || a == name
			}
			if got := ask(s); got != want {
				t.Errorf("%q: %s is %v, want %v", in, name, got, want)
			}
		}
	}
}

func TestExpand(t *testing.T) {
	schemas := map[syntax.NSID]string{
		"app.example.authFull": `{"lexicon":1,"id":"app.example.authFull","defs":{"main":{"type":"permission-set","permissions":[
			{"type":"permission","resource":"repo","collection":["app.example.post","app.example.feed.like"]},
			{"type":"permission","resource":"repo","collection":["app.example.block"],"action":["delete"]},
			{"type":"permission","resource":"repo","collection":["app.example.fine","com.other.record"]},
			{"type":"permission","resource":"repo","collection":["*"]},
			{"type":"permission","resource":"repo","collection":["app.example.odd"],"onlyOn":"sundays"},
			{"type":"permission","resource":"rpc","lxm":["app.example.getFeed"],"inheritAud":true},
			{"type":"permission","resource":"rpc","lxm":["app.example.getSkeleton"],"aud":"*"},
			{"type":"permission","resource":"rpc","lxm":["app.example.getOdd"],"aud":"did:web:evil.example#x"},
			{"type":"permission","resource":"blob","accept":["*/*"]},
			{"type":"permission","resource":"identity","attr":"*"}]}}}`,
		"app.example.getFeed": `{"lexicon":1,"id":"app.example.getFeed","defs":{"main":{"type":"query"}}}`,
		"app.example.lie":     `{"lexicon":1,"id":"app.example.truth","defs":{"main":{"type":"permission-set","permissions":[]}}}`,
	}
	gone := errors.New("gone")
	lookup := func(id syntax.NSID) (*lexicon.Schema, error) {
		text, ok := schemas[id]
		if !ok {
			return nil, gone
		}
		return lexicon.ParseSchema([]byte(text))
	}
	for in, want := range map[string]string{
		"atproto": "atproto",
		"atproto include:app.example.authFull": "atproto include:app.example.authFull repo:app.example.block?action=delete " +
			"repo?collection=app.example.feed.like&collection=app.example.post rpc:app.example.getSkeleton?aud=*",
		"atproto include:app.example.authFull?aud=did:web:a.test%23b": "atproto include:app.example.authFull?aud=did:web:a.test%23b " +
			"repo:app.example.block?action=delete repo?collection=app.example.feed.like&collection=app.example.post " +
			"rpc:app.example.getFeed?aud=did:web:a.test%23b rpc:app.example.getSkeleton?aud=*",
	} {
		s, err := scope.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // twice is the same
			if s, err = s.Expand(lookup); err != nil || s.String() != want {
				t.Errorf("%q expands to\n%q, want\n%q, %v", in, s, want, err)
			}
		}
	}
	for _, in := range []string{"include:app.example.unknown", "include:app.example.getFeed", "include:app.example.lie"} {
		s, err := scope.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Expand(lookup)
		if e, ok := errors.AsType[*scope.Error](err); !ok || e.Kind != scope.KindSet {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// Builders give what Parse reads.
func TestBuilders(t *testing.T) {
	for want, p := range map[string]scope.Permission{
		"repo:*":                     scope.Repo("*"),
		"repo:a.b.c?action=create":   scope.Repo("a.b.c").On(scope.Create),
		"account:email":              scope.Account(scope.AttrEmail),
		"account:repo?action=manage": scope.Account(scope.AttrRepo).On(scope.ActionManage),
		"identity:handle":            scope.Identity(scope.AttrHandle),
		"include:a.b.c":              scope.Include("a.b.c", ""),
	} {
		if err := p.Check(); err != nil || p.String() != want {
			t.Errorf("%s, %v, want %s", p, err, want)
		}
	}
	bad := scope.Of(scope.Repo("nonsense"))
	if scope.Repo("nonsense").Check() == nil || bad.AllowsRepo(scope.Create, "a.b.c") || len(bad.Permissions()) != 0 {
		t.Error("nonsense is allowed")
	}
	a := scope.Of(scope.Repo("*"))
	if b := a.With(scope.TransitionEmail); a.Has(scope.TransitionEmail) || !b.Has(scope.TransitionEmail) || !b.Has("repo:*") {
		t.Errorf("%q, %q", a, b)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"atproto repo:*", "rpc?lxm=*&aud=did:web:api.example.com%23svc_appview", "blob?accept=image/svg+xml&accept=text/html",
		"account:repo?action=manage", "include:a.b.c?aud=did:plc:x%23y", "repo:%2a?action=create&action=create", "a:b?c=d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := scope.Parse(in)
		if err != nil {
			if _, ok := errors.AsType[*scope.Error](err); !ok {
				t.Fatalf("%T", err)
			}
			if s, err = scope.Read(in); s.Has(scope.TransitionGeneric) && !strings.Contains(in, scope.TransitionGeneric) {
				t.Fatalf("%q has grown: %v", in, err)
			}
			return
		}
		again, err := scope.Parse(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q is %q is %q: %v", in, s, again, err)
		}
		for _, p := range s.Permissions() {
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
		}
		if !s.Has(scope.Atproto) && (s.AllowsRepo(scope.Create, "a.b.c") || s.AllowsBlob("a/b") || s.AllowsIdentity(scope.Any)) {
			t.Fatalf("%q allows something", in)
		}
	})
}
