// Client ships the web client: the built pages, compressed ahead of time, and
// what they must know about where they run. It talks to no other service; the
// browser does that through the gateway.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
)

type config struct {
	Web    web.Config
	Dir    string  `env:"CLIENT_DIR" envDefault:"client/dist" help:"folder of the built pages (npm run build)"`
	Issuer url.URL `env:"AUTH_ISSUER" help:"issuer of accounts, with which the pages are allowed to talk"`
	Jaeger url.URL `env:"JAEGER_URL" help:"address of Jaeger's user interface as browsers reach it; with it, orders link to their traces"`
}

// Validate checks the addresses.
func (c config) Validate() error {
	var errs []error
	for variable, u := range map[string]url.URL{"JAEGER_URL": c.Jaeger, "AUTH_ISSUER": c.Issuer} {
		if u != (url.URL{}) && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
			errs = append(errs, fmt.Errorf("%s=%q: must be an http or https URL", variable, u.Redacted()))
		}
	}
	return errors.Join(errs...)
}

func main() {
	run.Main(run.Program[config]{
		Name:     "client",
		Summary:  "ships the web client",
		Defaults: map[string]string{"HTTP_ADDR": ":5173", "ADMIN_ADDR": ":6173"},
		Serve:    serve,
	})
}

func serve(ctx context.Context, info run.Info, cfg config) error {
	pages, err := load(cfg.Dir)
	if err != nil {
		return err
	}
	server := web.NewServer(cfg.Web, newHandler(cfg, pages), web.Admin(info.Metrics, nil, nil))
	var group run.Group
	group.Add("admin server", server.RunAdmin)
	group.Add("public server", server.Run)
	return group.Run(ctx, cfg.Web.ShutdownTimeout)
}

// views are the addresses that the client's own router knows (src/app.tsx).
// They must not begin like a path of the API: the gateway would not send them
// here.
var views = []string{
	"/", "/basket", "/order/{orderId}", "/history", "/history/{customerId}", "/stock", "/signed-in",
	"/operations", "/operations/letters", "/operations/letters/{letterId}",
	"/operations/redrives", "/operations/redrives/{redriveId}", "/operations/history",
}

func newHandler(cfg config, pages site) http.Handler {
	router := web.NewRouter()
	router.Use(secure(cfg.Issuer))
	router.Get("/config.json", web.Handle(func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Cache-Control", "no-cache")
		return web.Write(w, http.StatusOK, runtimeConfig{JaegerURL: strings.TrimSuffix(cfg.Jaeger.String(), "/")})
	}))
	for _, view := range views {
		router.Get(view, pages.index(http.StatusOK))
	}
	router.Get("/assets/*", pages.file)
	for name := range pages {
		if !strings.HasPrefix(name, assets) && name != indexName {
			router.Get(name, pages.file)
		}
	}
	router.NotFound(notFound(pages))
	return router
}

// notFound shows people the client's own page for it and tells programs so.
func notFound(pages site) http.HandlerFunc {
	index := pages.index(http.StatusNotFound)
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			index(w, r)
			return
		}
		web.NotFound("There is nothing at " + r.URL.Path + ".").Write(w)
	}
}

// runtimeConfig is config.json (src/config.ts).
type runtimeConfig struct {
	JaegerURL string `json:"jaegerUrl"` // "" when there is none
}

// policy lets a page load and connect to what comes from here, and to the
// issuer of accounts. No inline script or style, and no text becomes markup or script but as
// the client's own rule has it (src/main.tsx).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; " +
	"connect-src 'self'%s; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types default"

func secure(issuer url.URL) func(http.Handler) http.Handler {
	var connect string
	if issuer.Host != "" {
		connect = " " + issuer.Scheme + "://" + issuer.Host
	}
	return func(next http.Handler) http.Handler { return withHeaders(next, fmt.Sprintf(policy, connect)) }
}

func withHeaders(next http.Handler, policy string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}
