package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func (s *Stack) binDir() string {
	if s.Options.Race {
		return filepath.Join(s.Options.Root, ".run", "bin", "services-race")
	}
	return filepath.Join(s.Options.Root, ".run", "bin", "services")
}

// Build compiles the services; what has not changed is taken from Go's cache.
func (s *Stack) Build(ctx context.Context) error {
	args := []string{"build", "-buildvcs=false", "-trimpath", "-o", s.binDir() + "/"}
	if s.Options.Race {
		args = append(args, "-race")
	}
	for _, spec := range serviceSpecs {
		args = append(args, "./"+spec.name)
	}
	if err := os.MkdirAll(s.binDir(), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(s.Options.Root, "services")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}
