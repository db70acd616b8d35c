// Gateway is the public door: it maps the public paths to the services, spreads
// requests over their instances, and hides an instance that stops or dies where
// that is safe. It has no state but what it knows of the instances.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/go-chi/chi/v5"

	"orderflow.internal/gateway/internal/journey"
	"orderflow.internal/gateway/internal/limit"
	"orderflow.internal/gateway/internal/proxy"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
)

//go:embed openapi.yaml
var contract []byte

// apiPrefix is what the services have before the public paths.
const apiPrefix = "/api"

type config struct {
	Web         web.Config
	Auth        identity.Config
	Limits      limit.Config
	Orders      []url.URL `env:"ORDERS_URL" envDefault:"http://127.0.0.1:5003" help:"base URLs of the orders instances, separated by commas"`
	Products    []url.URL `env:"PRODUCTS_URL" envDefault:"http://127.0.0.1:5232" help:"likewise of products"`
	Customers   []url.URL `env:"CUSTOMERS_URL" envDefault:"http://127.0.0.1:5002" help:"likewise of customers"`
	Deadletters []url.URL `env:"DEADLETTERS_URL" envDefault:"http://127.0.0.1:5004" help:"likewise of deadletters"`
	Client      []url.URL `env:"CLIENT_URL" help:"likewise of the client, which gets every path that is not the API's (default: none)"`
	TrustTraces bool      `env:"TRUST_TRACE_CONTEXT" help:"make requests part of the trace that they name in traceparent; only where all senders are trusted; else their traces link to it (default false)"`
	WebClient   string    `env:"AUTH_WEB_CLIENT_ID" envDefault:"orderflow-web" help:"what the web client is called at the issuer"`
	WebScopes   []string  `env:"AUTH_WEB_SCOPES" help:"scopes, separated by commas, that the web client requests besides openid, offline_access and those of AUTH_SCOPE_*"`
}

// Validate checks the base URLs.
func (c config) Validate() error {
	var errs []error
	for _, list := range []struct {
		variable string
		urls     []url.URL
	}{
		{"ORDERS_URL", c.Orders}, {"PRODUCTS_URL", c.Products}, {"CUSTOMERS_URL", c.Customers},
		{"DEADLETTERS_URL", c.Deadletters}, {"CLIENT_URL", c.Client},
	} {
		for _, u := range list.urls {
			plain := url.URL{Scheme: u.Scheme, Host: u.Host}
			if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" ||
				strings.TrimSuffix(u.String(), "/") != plain.String() {
				errs = append(errs, fmt.Errorf("%s=%q: must be http://host:port or https://host:port without a path",
					list.variable, u.Redacted()))
			}
		}
	}
	return errors.Join(errs...)
}

func main() {
	run.Main(run.Program[config]{
		Name:     "gateway",
		Summary:  "is the public door to orders, products, customers and deadletters",
		Defaults: map[string]string{"HTTP_ADDR": ":5108", "ADMIN_ADDR": ":6108"},
		Serve:    serve,
	})
}

func serve(ctx context.Context, info run.Info, cfg config) error {
	// Ready as soon as it serves: with the services down it still answers 503,
	// which tells a client more than a refused connection.
	debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), memoryLimit))
	auth := identity.New(cfg.Auth)
	notes := web.Checks{}
	if !auth.Open() {
		notes["issuer"] = auth.Ready
	}
	server := web.NewServer(cfg.Web, newHandler(cfg, proxy.NewTransport(proxy.AnswerTimeout), auth),
		web.Admin(info.Metrics, nil, notes))
	server.Limit(maxConns, maxHeaderBytes)
	var group run.Group
	group.Add("admin server", server.RunAdmin)
	group.Add("issuer", auth.Run)
	group.Add("public server", server.Run)
	return group.Run(ctx, cfg.Web.ShutdownTimeout)
}

// What a gateway may hold at a time, whatever clients do. It is measured out for
// the 192 MiB that the charts give it (see TestMemory): an event stream costs
// some 30 kB, another request in flight 50 kB with both its connections, and a
// connection whose request is not there yet up to 30 kB.
const (
	memoryLimit = 160 << 20 // of Go's runtime; the rest is for code and what it cannot hold to

	maxConns       = 1800     // not counting event streams
	maxHeaderBytes = 8 << 10  // net/http reads up to 4 KiB more
	maxOrderBody   = 64 << 10 // far more than the largest order needs
	maxBody        = 16 << 10
	allBodies      = 4 << 20 // besides the first 4 KiB of each

	maxStreams  = 2000
	maxWaiting  = 1000 // POST /orders
	maxRequests = 256  // to each service, besides these
)

// routes are the public paths by service. A path that is not listed, but lies
// under a listed one, goes to the same service: the list gives spans and
// metrics their names.
var routes = map[string][]string{
	"orders": {"/orders", "/orders/{orderId}", "/orders/{orderId}/cancel",
		"/orders/audit/events", "/orders/audit/handled",
		"/orders/audit/digest", "/orders/audit/prints", "/orders/audit/entries", "/orders/*"},
	"products": {"/products", "/products/{productId}", "/products/{productId}/restock",
		"/products/audit/events", "/products/audit/handled",
		"/products/audit/digest", "/products/audit/prints", "/products/audit/entries", "/products/audit/stock",
		"/products/*"},
	"customers": {"/customers", "/customers/{customerId}", "/customers/{customerId}/orders",
		"/customers/audit/handled",
		"/customers/audit/digest", "/customers/audit/prints", "/customers/audit/entries", "/customers/*"},
	"deadletters": {"/deadletters", "/deadletters/export", "/deadletters/discard", "/deadletters/groups",
		"/deadletters/groups/{groupId}/note", "/deadletters/history", "/deadletters/redrives",
		"/deadletters/redrives/{redriveId}", "/deadletters/redrives/{redriveId}/letters",
		"/deadletters/redrives/{redriveId}/start", "/deadletters/redrives/{redriveId}/pause",
		"/deadletters/redrives/{redriveId}/resume", "/deadletters/redrives/{redriveId}/cancel",
		"/deadletters/{letterId}", "/deadletters/bodies/{letterId}", "/deadletters/*"},
}

// newHandler returns the handler of the public port.
func newHandler(cfg config, transport http.RoundTripper, auth *identity.Verifier) http.Handler {
	return dropBaggage(newRouter(cfg, transport, auth))
}

// dropBaggage keeps out what strangers want to be passed on with each of an
// order's events (W3C Baggage, section 4): it would be stored with them.
func dropBaggage(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Baggage")
		next.ServeHTTP(w, r)
	})
}

func newRouter(cfg config, transport http.RoundTripper, auth *identity.Verifier) *chi.Mux {
	door := newDoor(cfg, auth)
	router := web.NewPublicRouter()
	if cfg.TrustTraces {
		router = web.NewRouter()
	}
	router.Use(nosniff, endHop, refuseDotSegments)
	upstream := proxy.Config{
		Prefix:     apiPrefix,
		Transport:  transport,
		Brief:      proxy.BriefTimeout,
		Replayable: replayable,
		Modify:     lockDown,
		Requests:   maxRequests,
		Bodies:     proxy.NewBudget(allBodies),
	}
	services := make(map[string]*proxy.Service)
	compressing := make(chan struct{}, maxCompressing)
	for name, urls := range map[string][]url.URL{
		"orders": cfg.Orders, "products": cfg.Products, "customers": cfg.Customers,
		"deadletters": cfg.Deadletters,
	} {
		upstream.Name, upstream.Instances = name, urls
		services[name] = proxy.New(upstream)
		for _, pattern := range routes[name] {
			router.Handle(pattern, door.wrap(compress(services[name].Handler(proxy.Route{
				Body: maxBody, Patient: name == "deadletters" || pattern == "/products/audit/stock",
			}), compressing)))
		}
	}
	router.Method(http.MethodPost, "/orders", door.enter(door.held(services["orders"].Handler(proxy.Route{
		Body: maxOrderBody,
		Held: proxy.NewSlots(maxWaiting), Patient: true,
		// An order is worth more than waiting for its end.
		Hurry: func(h http.Header) { h.Set("Prefer", "respond-async") },
		// Who asks again what came of an order is never refused.
		Sheddable: func(r *http.Request) bool { return r.Header["Idempotency-Key"] == nil },
	}), true)))
	router.Method(http.MethodGet, "/orders/{orderId}/events",
		door.enter(services["orders"].Stream(proxy.NewSlots(maxStreams), door.holdStream)))
	router.Method(http.MethodGet, "/orders/{orderId}/journey", door.wrap(locked(auth.Only(identity.Customers)(
		journey.Handler(services["orders"], map[string]*proxy.Service{
			"products": services["products"], "customers": services["customers"],
		})))))
	router.Method(http.MethodGet, "/auth/config", door.held(locked(web.Handle(
		func(w http.ResponseWriter, _ *http.Request) error { return web.Write(w, http.StatusOK, newSignIn(cfg)) })), false))
	router.Method(http.MethodGet, "/openapi.yaml", door.held(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/yaml")
			_, _ = w.Write(contract) // a client that is gone needs no answer
		}), false))
	if len(cfg.Client) > 0 {
		upstream.Name, upstream.Instances, upstream.Prefix, upstream.Modify = "client", cfg.Client, "", nil
		router.Handle("/*", withoutToken(door.held(proxy.New(upstream).Handler(proxy.Route{Body: maxBody}), false)))
	} else {
		router.Get("/", web.Handle(func(w http.ResponseWriter, _ *http.Request) error {
			return web.Write(w, http.StatusOK, map[string]string{"name": "Orderflow", "contract": "/openapi.yaml"})
		}))
	}
	return router
}

// replayable tells whether a request may be sent a second time when it is
// unknown what became of the first. An If-Match would no longer hold after a
// change that took effect, and a deleted product could not be found.
func replayable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	case http.MethodPut:
		return r.Header.Get("If-Match") == ""
	case http.MethodPost:
		keyed := r.URL.Path == apiPrefix+"/orders" && r.Header.Get("Idempotency-Key") != ""
		cancel := strings.HasPrefix(r.URL.Path, apiPrefix+"/orders/") && strings.HasSuffix(r.URL.Path, "/cancel")
		return keyed || cancel
	}
	return false
}

// lockDown makes an answer of the API data and nothing else: no page, no
// frame, nothing to keep.
func lockDown(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	// The services name their own paths.
	if location := h.Get("Location"); strings.HasPrefix(location, apiPrefix+"/") {
		h.Set("Location", strings.TrimPrefix(location, apiPrefix))
	}
}

// locked is lockDown for an answer of the gateway's own.
func locked(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		lockDown(w.Header())
		next.ServeHTTP(w, r)
	}
}

func nosniff(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// endHop takes away what was meant for this hop only (RFC 9110, section 7.6.1), before anything is read from or added
// to a request's header: a name in Connection would make the proxy drop what was added.
func endHop(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, list := range r.Header["Connection"] {
			for name := range strings.SplitSeq(list, ",") {
				r.Header.Del(strings.TrimSpace(name))
			}
		}
		r.Header.Del("Connection")
		r.Header.Del("Upgrade") // no route has another protocol
		next.ServeHTTP(w, r)
	})
}

// refuseDotSegments keeps a path from meaning one thing here and another
// behind: dot segments, empty ones and backslashes, encoded or not, have no
// place in our paths. Nor has CONNECT, which means something to proxies alone.
func refuseDotSegments(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !plainPath(r.URL.Path) || r.Method == http.MethodConnect {
			web.NotFound("There is nothing at this path.").Write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// plainPath looks at the decoded path.
func plainPath(path string) bool {
	if !strings.HasPrefix(path, "/") {
		return false
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "." || segment == ".." || strings.ContainsAny(segment, "\\\x00") {
			return false
		}
	}
	return !strings.Contains(path, "//")
}
