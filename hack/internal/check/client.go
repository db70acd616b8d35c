package check

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sync/errgroup"

	"orderflow.internal/hack/internal/nodejs"
	"orderflow.internal/hack/internal/pages"
	"orderflow.internal/hack/stack"
)

// webClient checks the pages, builds them, and has a browser use them in front of a system of their own.
func webClient(ctx context.Context, r *run) (err error) {
	dir := pages.Sources(r.Root)
	if err := nodejs.Modules(ctx, r.Out, dir); err != nil {
		return err
	}
	script := func(what, name string, env ...string) {
		r.check(ctx, what, func(ctx context.Context) error {
			_, err := nodejs.Run(ctx, dir, name, env...)
			return err
		})
	}
	script("the API's types are up to date", "check:generated")
	script("tsc", "check:types")
	script("eslint", "check:lint")
	script("the pages' own tests", "check:tests")
	if err := pages.Build(ctx, r.Out, r.Root); err != nil {
		return err
	}
	script("at most 120 kB for a first visit", "size")
	// Without the race detector: what a browser waits for should come as fast as it does for people.
	s, err := r.fresh(ctx, stack.Options{Name: "client", Offset: stack.OffsetClient, Pages: pages.Find(r.Root), Auth: true,
		ServiceEnv: map[string]map[string]string{"idp": {"IDP_ACCESS_TOKEN_TTL": "8s"}}}) // see e2e/accounts.spec.ts
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopStack(ctx, s)) }()
	for _, service := range s.Services() {
		service.Setenv("AUTH_ISSUER", "") // open at first
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	// localhost is a secure context to browsers: they take Brotli and lend the clipboard there as on https.
	base := strings.Replace(s.BaseURL(), "127.0.0.1", "localhost", 1)
	script("a browser on the running system", "e2e", "BASE_URL="+base, "CHROMIUM="+browser(),
		"ORDERS_DATABASE_URL="+s.Postgres.ServiceURL("orders")) // see e2e/operations.spec.ts
	if err := restartWithAccounts(ctx, s); err != nil {
		return err
	}
	script("a browser on a system with accounts", "e2e", "BASE_URL="+base, "CHROMIUM="+browser(), "ACCOUNTS=yes")
	return nil
}

// restartWithAccounts starts the services again, so that they ask who people are.
func restartWithAccounts(ctx context.Context, s *stack.Stack) error {
	var stopping errgroup.Group
	for _, service := range s.Services() {
		stopping.Go(func() error {
			defer service.Clearenv()
			return service.Stop(ctx)
		})
	}
	if err := stopping.Wait(); err != nil {
		return err
	}
	return s.StartServices(ctx)
}
