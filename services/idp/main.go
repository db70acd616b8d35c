// Idp is an identity provider for development: OpenID Connect with a few demo
// users whose passwords everybody knows, so its issuer can only be a loopback URL.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"orderflow.internal/idp/internal/pages"
	"orderflow.internal/idp/internal/provider"
	"orderflow.internal/kit/run"
	"orderflow.internal/kit/web"
)

type config struct {
	Web            web.Config
	Issuer         url.URL       `env:"IDP_ISSUER" envDefault:"http://localhost:5180" help:"issuer of the tokens, and where browsers find it: a loopback address"`
	Audience       string        `env:"IDP_AUDIENCE" envDefault:"orderflow" help:"for whom access tokens are"`
	AccessTokenTTL time.Duration `env:"IDP_ACCESS_TOKEN_TTL" envDefault:"5m" help:"how long access tokens are valid"`
	MachineSecret  string        `env:"IDP_MACHINE_SECRET" secret:"true" help:"secret of the client orderflow-machine (default: it gets no tokens)"`
}

// Validate refuses to be anything but a provider for development.
func (c config) Validate() error {
	var errs []error
	if u := c.Issuer; u.Scheme != "http" || u.Hostname() == "" || u.Path != "" || !provider.Loopback(&u) {
		errs = append(errs, fmt.Errorf(
			"IDP_ISSUER=%q: must be http://localhost:port: everybody knows this provider's passwords", u.Redacted()))
	}
	if c.Audience == "" {
		errs = append(errs, errors.New("IDP_AUDIENCE: must not be empty"))
	}
	if c.AccessTokenTTL < time.Second || c.AccessTokenTTL > time.Hour {
		errs = append(errs, fmt.Errorf("IDP_ACCESS_TOKEN_TTL=%s: must be 1s to 1h", c.AccessTokenTTL))
	}
	return errors.Join(errs...)
}

func main() {
	run.Main(run.Program[config]{
		Name:     "idp",
		Summary:  "is an identity provider for development",
		Defaults: map[string]string{"HTTP_ADDR": ":5180", "ADMIN_ADDR": ":6180"},
		Serve:    serve,
	})
}

func serve(ctx context.Context, info run.Info, cfg config) error {
	storage, handler, err := newHandler(cfg)
	if err != nil {
		return err
	}
	server := web.NewServer(cfg.Web, handler, newAdmin(info.Metrics, storage))
	server.Limit(maxConns, maxHeaderBytes)
	var group run.Group
	group.Add("admin server", server.RunAdmin)
	group.Add("memory", func(ctx context.Context) error {
		return run.Every(ctx, run.Job{Name: "sweep", Interval: time.Minute, Timeout: time.Second, Do: storage.Sweep})
	})
	group.Add("public server", server.Run)
	return group.Run(ctx, cfg.Web.ShutdownTimeout)
}

const (
	maxConns       = 200
	maxHeaderBytes = 16 << 10
)

func newHandler(cfg config) (*provider.Storage, http.Handler, error) {
	storage, protocol, err := provider.New(provider.Config{
		Issuer:         strings.TrimSuffix(cfg.Issuer.String(), "/"),
		Audience:       cfg.Audience,
		AccessTokenTTL: cfg.AccessTokenTTL,
		MachineSecret:  cfg.MachineSecret,
	})
	if err != nil {
		return nil, nil, err
	}
	router := web.NewRouter()
	pages.Register(router, storage)
	router.Group(func(r chi.Router) {
		r.Use(storage.Sessions)
		for _, path := range provider.BrowserPaths {
			r.Handle(path, protocol)
		}
	})
	router.Handle("/*", protocol)
	return storage, router, nil
}

// newAdmin adds to the admin port what makes a new key sign from now on.
func newAdmin(metrics http.Handler, storage *provider.Storage) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", web.Admin(metrics, nil, nil))
	mux.Handle("POST /keys/rotate", web.Handle(func(w http.ResponseWriter, _ *http.Request) error {
		id, err := storage.Rotate()
		if err != nil {
			return err
		}
		return web.Write(w, http.StatusOK, map[string]string{"kid": id})
	}))
	return mux
}
