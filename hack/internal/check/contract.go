package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"orderflow.internal/hack/internal/nodejs"
	"orderflow.internal/hack/internal/tool"
)

// installing is held while node_modules of hack/contract, which two parts use, are brought.
var installing sync.Mutex

// contractTools is the folder that has the linters of the contracts, and the generators that strangers use.
func (r *run) contractTools(ctx context.Context) (string, error) {
	installing.Lock()
	defer installing.Unlock()
	dir := filepath.Join(r.Root, "hack", "contract")
	return dir, nodejs.Modules(ctx, r.Out, dir)
}

func contracts(ctx context.Context, r *run) error {
	dir, err := r.contractTools(ctx)
	if err != nil {
		return err
	}
	for _, linter := range []string{"redocly", "spectral", "asyncapi"} {
		r.check(ctx, linter, func(ctx context.Context) error {
			_, err := nodejs.Run(ctx, dir, linter)
			return err
		})
	}
	return nil
}

// generatedClients makes clients of openapi.yaml and has them order something from the gateway at url.
func (r *run) generatedClients(ctx context.Context, url string) error {
	dir, err := r.contractTools(ctx)
	if err != nil {
		return err
	}
	env := []string{"GOWORK=off", "ORDERFLOW_BASE_URL=" + url}
	err = r.Out.Step(ctx, "generate clients with oapi-codegen and ogen", func(ctx context.Context) error {
		_, err := tool.Run(ctx, dir, "env", "GOWORK=off", "go", "generate", ".")
		return err
	})
	if err != nil {
		return err
	}
	if err := r.goTest(ctx, "hack/contract", env, r.Race, "."); err != nil {
		return err
	}
	r.check(ctx, "a client of hey-api", func(ctx context.Context) error {
		_, err := nodejs.Run(ctx, dir, "client", env...)
		return err
	})
	return nil
}

// published is the API that clients rely on: openapi.yaml may add to it, and what it adds is published from then on.
const published = "services/gateway/testdata/published.yaml"

// publish replaces the published API by the current one unless that would break a client.
func publish(ctx context.Context, root string) error {
	old, current := filepath.Join(root, published), filepath.Join(root, "services", "gateway", "openapi.yaml")
	if err := unbroken(ctx, root, old, current); err != nil {
		return fmt.Errorf("%w\nopenapi.yaml breaks clients of what is published: add to it instead. Where that is intended,"+
			" copy openapi.yaml to %s and say why in the commit", err, published)
	}
	now, err := os.ReadFile(current)
	if err != nil {
		return err
	}
	return os.WriteFile(old, now, 0o644)
}

// unbroken returns an error with what a client of the old document could stumble over in the new one. That a call can
// need a token breaks nobody (severity.txt): whoever runs the system decides whether it does.
func unbroken(ctx context.Context, root, old, current string) error {
	oasdiff, err := tool.Path(ctx, root, "oasdiff")
	if err != nil {
		return err
	}
	severity := filepath.Join(root, "hack", "tools", "oasdiff", "severity.txt")
	_, err = tool.Run(ctx, root, oasdiff, "breaking", "--fail-on", "WARN", "--severity-levels", severity, old, current)
	return err
}
