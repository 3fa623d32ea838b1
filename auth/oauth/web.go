package oauth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/syntax"
)

// Web are the handlers of a program on the web. All fields are required but Failed.
//
//	mux.Handle("GET /client-metadata.json", app.MetadataHandler())
//	mux.Handle("POST /login", web.Start())       // a form with the field account, and perhaps next
//	mux.Handle("GET /callback", web.Callback())  // the path of the redirect URI
//	mux.Handle("POST /logout", web.Logout())
//
// Who is logged in in a browser is the program's own business, and its cookie: Done sets it, Who reads it. A login is bound to
// the browser that began it by a cookie of this package, so that nobody can be made to log in as somebody else.
type Web struct {
	Client   *Client
	Accounts *auth.Manager // with Client as its scheme
	// Done answers a login that worked: it sets the program's cookie and sends the browser to next, a path on this host that the
	// form named, or "/".
	Done func(w http.ResponseWriter, r *http.Request, a *auth.Account, next string)
	// Who is logged in in the browser of a request; "" for nobody.
	Who func(r *http.Request) syntax.DID
	// Out answers a logout: it removes the program's cookie and sends the browser on. The error says that the server could not be
	// told; the session is gone nevertheless.
	Out func(w http.ResponseWriter, r *http.Request, err error)
	// Failed answers a login that didn't work; nil: with a plain page, which tells what helps and no more.
	Failed func(w http.ResponseWriter, r *http.Request, err error)
}

const cookiePrefix = "oauth-"

// cookie is the one that binds a login to a browser. Its name is of the login, so that there may be several; its value is a hash,
// so that the state isn't where other programs on the host may see it.
func cookie(state, redirectURI string) *http.Cookie {
	name, value := sha256.Sum256([]byte("name "+state)), sha256.Sum256([]byte("value "+state))
	path := "/"
	if u, err := url.Parse(redirectURI); err == nil && u.Path != "" {
		path = u.Path
	}
	return &http.Cookie{
		Name: cookiePrefix + base64url.EncodeToString(name[:9]), Value: base64url.EncodeToString(value[:]), Path: path,
		HttpOnly: true, Secure: isHTTPS(redirectURI), SameSite: http.SameSiteLaxMode,
	}
}

// own refuses requests that another site made a browser send.
func own(h http.Handler) http.Handler { return new(http.CrossOriginProtection).Handler(h) }

// maxForm bounds the forms that are read, in bytes.
const maxForm = 16 << 10

// Start begins a login for the account that a form names, and sends the browser to its server.
func (x *Web) Start() http.Handler {
	return own(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "a login begins with a form that is posted", http.StatusMethodNotAllowed)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		login, err := x.Client.Start(r.Context(), Request{Account: r.PostFormValue("account"), Data: ownPath(r.PostFormValue("next"))})
		if err != nil {
			x.failed(w, r, err)
			return
		}
		k := cookie(login.State, x.Client.o.RedirectURIs[0])
		k.MaxAge = int(x.Client.o.Life.Seconds())
		http.SetCookie(w, k)
		w.Header().Set("Cache-Control", "no-store")
		http.Redirect(w, r, login.URL, http.StatusSeeOther)
	}))
}

// ownPath returns a path on this host, so that a login can't be made to end elsewhere.
func ownPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

var errOtherBrowser = errors.New("the login was begun in another browser")

// Callback finishes the login of a browser that comes back.
func (x *Web) Callback() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer") // the address has the code in it
		q := r.URL.Query()
		k := cookie(q.Get("state"), x.Client.o.RedirectURIs[0])
		if got, err := r.Cookie(k.Name); err != nil || got.Value != k.Value {
			x.failed(w, r, &Error{Op: "finishing a login", Kind: KindState, Err: errOtherBrowser})
			return
		}
		k.MaxAge = -1
		http.SetCookie(w, k)
		s, next, err := x.Client.Finish(r.Context(), q)
		if err != nil {
			x.failed(w, r, err)
			return
		}
		a, err := x.Accounts.Add(r.Context(), s)
		if err != nil {
			x.failed(w, r, fmt.Errorf("keeping the session: %w", err))
			return
		}
		x.Done(w, r, a, ownPath(next))
	})
}

// Logout ends the session of whoever is logged in, at the server and here.
func (x *Web) Logout() http.Handler {
	return own(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "a logout is a form that is posted", http.StatusMethodNotAllowed)
			return
		}
		var err error
		if did := x.Who(r); did != "" {
			var a *auth.Account
			if a, err = x.Accounts.Account(r.Context(), did); err == nil {
				err = a.Logout(r.Context())
			}
			if errors.Is(err, auth.ErrLoginRequired) {
				err = nil // over already
			}
		}
		x.Out(w, r, err)
	}))
}

func (x *Web) failed(w http.ResponseWriter, r *http.Request, err error) {
	if x.Failed != nil {
		x.Failed(w, r, err)
		return
	}
	status, text := http.StatusBadGateway, "The server of the account could not be talked to. Try again later."
	switch KindOf(err) {
	case KindClient, KindIdentity:
		status, text = http.StatusBadRequest, "There is no such account, or it can't be logged in to. Check the spelling."
	case KindState:
		status, text = http.StatusBadRequest, "This login is over, or was begun elsewhere. Start again."
	case KindDenied:
		status, text = http.StatusForbidden, "The login was refused."
	case "":
		status, text = http.StatusInternalServerError, "Something went wrong here. Try again later."
	}
	page(w, status, "The login did not work", text)
}
