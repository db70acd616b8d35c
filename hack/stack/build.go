package stack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"orderflow.internal/hack/internal/tool"
)

// Programs is the folder of the built services.
func (o Options) Programs() string {
	if o.Race {
		return filepath.Join(o.Root, ".run", "bin", "services-race")
	}
	return filepath.Join(o.Root, ".run", "bin", "services")
}

// BuildFlags are how the services are compiled, here and in their images. Without the state of version control, equal
// code gives equal binaries; grpcnotrace leaves gRPC's debug pages out: 4 MB less in each.
func BuildFlags() []string { return []string{"-buildvcs=false", "-trimpath", "-tags", "grpcnotrace"} }

// Build compiles services into Programs; what has not changed is left as it is, or taken from Go's cache. Commands that
// build at the same time do so one after another: the second must not replace what the first is about to start.
func (o Options) Build(ctx context.Context, services ...string) (err error) {
	if err := os.MkdirAll(o.Programs(), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(o.Programs()+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	var packages []string
	for _, name := range services {
		packages = append(packages, "./"+name)
	}
	return o.goBuild(ctx, o.Programs()+"/", packages...)
}

// Build compiles the stack's services.
func (s *Stack) Build(ctx context.Context) error {
	var names []string
	for _, spec := range s.specs {
		names = append(names, spec.name)
	}
	return s.Options.Build(ctx, names...)
}

// BuildEdited compiles one service with a go -overlay, for Service.Setprogram. Nobody debugs it: without symbols it is
// linked in two thirds of the time.
func (s *Stack) BuildEdited(ctx context.Context, service, overlay, program string) error {
	return s.Options.goBuild(ctx, program, "-ldflags=-s -w", "-overlay="+overlay, "./"+service)
}

func (o Options) goBuild(ctx context.Context, output string, args ...string) error {
	flags := append([]string{"build", "-o", output}, BuildFlags()...)
	if o.Race {
		flags = append(flags, "-race")
	}
	_, err := tool.Run(ctx, filepath.Join(o.Root, "services"), "go", append(flags, args...)...)
	return err
}
