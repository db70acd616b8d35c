package check

import (
	"context"
	"errors"
	"path/filepath"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/console"
	"orderflow.internal/hack/docs"
	"orderflow.internal/hack/internal/tool"
	"orderflow.internal/hack/monitoring"
	"orderflow.internal/hack/topology"
)

// generators write the generated files.
var generators = []struct {
	name  string
	write func(ctx context.Context, root string) error
}{
	{"the broker's topology from the charts", func(_ context.Context, root string) error { return topology.Write(root) }},
	{"the objectives' rules", monitoring.Write},
	{"the charts' documentation", charts.Write},
	{"the services' openapi.yaml from the gateway's", func(ctx context.Context, root string) error {
		_, err := tool.Run(ctx, filepath.Join(root, "services"),
			"go", "test", "-count=1", "./gateway", "-run", "^TestServiceDocuments$", "-update")
		return err
	}},
	{"the reference in docs", docs.Write},
	{"the published API, unless openapi.yaml breaks it", publish},
}

// Generate is hack/generate.
func Generate(ctx context.Context, c *console.Console, root string) error {
	for _, g := range generators {
		if err := c.Step(ctx, g.name, func(ctx context.Context) error { return g.write(ctx, root) }); err != nil {
			return err
		}
	}
	return nil
}

// generated runs hack/generate and fails when that changes anything, which then is there to be committed.
func generated(ctx context.Context, r *run) error {
	before, err := r.changes(ctx)
	if err != nil {
		return err
	}
	r.check(ctx, "generated files", func(ctx context.Context) error {
		if err := Generate(ctx, r.Out, r.Root); err != nil {
			return err
		}
		after, err := r.changes(ctx)
		if err == nil && after != before {
			err = errors.New("hack/generate has changed files, commit them:\n" + after)
		}
		return err
	})
	for _, module := range modules {
		r.check(ctx, module+"/go.mod", func(ctx context.Context) error {
			_, err := tool.Run(ctx, r.dir(module), "go", "mod", "tidy", "-diff")
			return err
		})
	}
	return nil
}

// changes are all differences between the working tree and the last commit.
func (r *run) changes(ctx context.Context) (string, error) {
	diff, err := tool.Run(ctx, r.Root, "git", "diff", "HEAD")
	untracked, err2 := tool.Run(ctx, r.Root, "git", "ls-files", "--others", "--exclude-standard")
	return diff + untracked, errors.Join(err, err2)
}
