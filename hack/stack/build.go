package stack

import (
	"context"
	"os"
	"path/filepath"

	"orderflow.internal/hack/internal/tool"
)

func (s *Stack) binDir() string {
	if s.Options.Race {
		return filepath.Join(s.Options.Root, ".run", "bin", "services-race")
	}
	return filepath.Join(s.Options.Root, ".run", "bin", "services")
}

// BuildFlags are how the services are compiled, here and in their images. Without the state of version control, equal
// code gives equal binaries; grpcnotrace leaves gRPC's debug pages out: 4 MB less in each.
func BuildFlags() []string { return []string{"-buildvcs=false", "-trimpath", "-tags", "grpcnotrace"} }

// Build compiles the services; what has not changed is taken from Go's cache.
func (s *Stack) Build(ctx context.Context) error {
	if err := os.MkdirAll(s.binDir(), 0o755); err != nil {
		return err
	}
	var packages []string
	for _, spec := range s.specs {
		packages = append(packages, "./"+spec.name)
	}
	return s.goBuild(ctx, s.binDir()+"/", packages...)
}

// BuildEdited compiles one service with a go -overlay, for Service.Setprogram. Nobody debugs it: without symbols it is
// linked in two thirds of the time.
func (s *Stack) BuildEdited(ctx context.Context, service, overlay, program string) error {
	return s.goBuild(ctx, program, "-ldflags=-s -w", "-overlay="+overlay, "./"+service)
}

func (s *Stack) goBuild(ctx context.Context, output string, args ...string) error {
	flags := append([]string{"build", "-o", output}, BuildFlags()...)
	if s.Options.Race {
		flags = append(flags, "-race")
	}
	_, err := tool.Run(ctx, filepath.Join(s.Options.Root, "services"), "go", append(flags, args...)...)
	return err
}
