// Package pages shows people the provider's pages: to sign in, to allow a
// device, to sign out. They are forms without a script.
package pages

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	"orderflow.internal/client/src/styles"
	"orderflow.internal/idp/internal/provider"
)

//go:embed *.html
var templates embed.FS

//go:embed pages.css mark.svg
var files embed.FS

var layout = template.Must(template.ParseFS(templates, "*.html"))

// maxForm is far more than names, passwords and codes need.
const maxForm = 4 << 10

type pages struct{ provider *provider.Storage }

// Register adds the pages to a router, in front of the provider's protocol.
func Register(router chi.Router, storage *provider.Storage) {
	p := pages{storage}
	router.Group(func(r chi.Router) {
		r.Use(bounded, http.NewCrossOriginProtection().Handler, storage.Sessions)
		r.Get("/", p.home)
		r.Get("/login", p.login)
		r.Post("/login", p.signIn)
		r.Get(provider.DevicePath, p.device)
		r.Post(provider.DevicePath, p.decide)
		r.Get(provider.SignOutPath, p.askToSignOut)
		r.Post(provider.SignOutPath, p.signOut)
	})
	router.Handle("/styles/*", cached(http.StripPrefix("/styles", http.FileServerFS(styles.Files))))
	router.Handle("/pages/*", cached(http.StripPrefix("/pages", http.FileServerFS(files))))
}

func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		next.ServeHTTP(w, r)
	})
}

func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=300")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// page is what the templates show.
type page struct {
	Title   string
	Request string // id of a request to sign in
	Code    string // of a device that waits
	Client  string // that waits
	Name    string // that was typed
	Wrong   string // what to do better
	Who     *provider.Person
	People  []provider.Person
	Done    string // what was decided
}

// show writes a page. Forms may lead to the origins given, beside this one:
// browsers look at the whole way of redirects.
func show(w http.ResponseWriter, status int, name string, p page, origins ...string) {
	var body bytes.Buffer
	if err := layout.ExecuteTemplate(&body, name, p); err != nil {
		http.Error(w, "The page cannot be shown.", http.StatusInternalServerError)
		return
	}
	leadsTo := "'self'"
	for _, origin := range origins {
		leadsTo += " " + origin
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; font-src 'self'; img-src 'self'; "+
		"base-uri 'none'; frame-ancestors 'none'; form-action "+leadsTo)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a browser that is gone needs no page
}

func (p pages) home(w http.ResponseWriter, r *http.Request) {
	show(w, http.StatusOK, "home.html", page{Title: "Orderflow accounts", Who: p.provider.Who(r.Context())})
}

func (p pages) login(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	request, err := p.provider.AuthRequestByID(r.Context(), id)
	if err != nil {
		lost(w, err)
		return
	}
	if request.Done() {
		http.Redirect(w, r, provider.CallbackPath(id), http.StatusFound) //nolint:gosec // a path of ours, the id escaped
		return
	}
	form := page{Title: "Sign in", Request: id, People: provider.People}
	show(w, http.StatusOK, "login.html", form, origin(request.GetRedirectURI()))
}

func lost(w http.ResponseWriter, err error) {
	show(w, http.StatusBadRequest, "lost.html", page{Title: "Please begin again", Wrong: err.Error()})
}

// origin of a URL, for a content security policy; "" when there is none.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// signIn is for a request to sign in and for a device's page.
func (p pages) signIn(w http.ResponseWriter, r *http.Request) {
	form := page{
		Title: "Sign in", People: provider.People,
		Request: r.PostFormValue("id"), Code: r.PostFormValue("user_code"), Name: r.PostFormValue("name"),
	}
	var back string // where the form leads to in the end
	if form.Request != "" {
		request, err := p.provider.AuthRequestByID(r.Context(), form.Request)
		if err != nil {
			lost(w, err)
			return
		}
		back = origin(request.GetRedirectURI())
	}
	switch err := p.provider.SignIn(w, r, form.Name, r.PostFormValue("password")); {
	case errors.Is(err, provider.ErrPassword):
		form.Wrong = "Name and password do not belong together."
		show(w, http.StatusUnauthorized, "login.html", form, back)
		return
	case err != nil:
		lost(w, err)
		return
	}
	if form.Request == "" {
		http.Redirect(w, r, provider.DevicePath+"?user_code="+url.QueryEscape(form.Code), http.StatusSeeOther)
		return
	}
	if err := p.provider.Finish(r.Context(), form.Request); err != nil {
		lost(w, err)
		return
	}
	http.Redirect(w, r, provider.CallbackPath(form.Request), http.StatusSeeOther)
}

// device requests a code, then who it is, then whether to allow it.
func (p pages) device(w http.ResponseWriter, r *http.Request) {
	form := page{
		Title: "Sign in on a device", People: provider.People,
		Code: r.FormValue("user_code"), Who: p.provider.Who(r.Context()),
	}
	if form.Code == "" {
		show(w, http.StatusOK, "code.html", form)
		return
	}
	client, code, err := p.provider.Device(form.Code)
	if err != nil {
		form.Wrong = "No device waits with this code. It may have expired, or there is a letter wrong."
		show(w, http.StatusNotFound, "code.html", form)
		return
	}
	form.Client, form.Code = client, code
	if form.Who == nil {
		form.Title = "Sign in"
		show(w, http.StatusOK, "login.html", form)
		return
	}
	show(w, http.StatusOK, "device.html", form)
}

func (p pages) decide(w http.ResponseWriter, r *http.Request) {
	allow := r.PostFormValue("decision") == "allow"
	if err := p.provider.Decide(r.Context(), r.PostFormValue("user_code"), allow); err != nil {
		lost(w, err)
		return
	}
	done := page{Title: "Not allowed", Done: "The device gets nothing."}
	if allow {
		done = page{Title: "Signed in", Done: "The device continues by itself. You can close this window."}
	}
	show(w, http.StatusOK, "done.html", done)
}

func (p pages) askToSignOut(w http.ResponseWriter, r *http.Request) {
	who := p.provider.Who(r.Context())
	if who == nil {
		show(w, http.StatusOK, "done.html", page{Title: "Signed out", Done: "Nobody is signed in here."})
		return
	}
	show(w, http.StatusOK, "sign-out.html", page{Title: "Sign out?", Who: who})
}

func (p pages) signOut(w http.ResponseWriter, r *http.Request) {
	p.provider.SignOut(r.Context())
	show(w, http.StatusOK, "done.html", page{Title: "Signed out", Done: "Nobody is signed in here."})
}
