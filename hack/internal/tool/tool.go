// Package tool builds the tools pinned in hack/tools and fetches Go modules for what is in them. Each tool is a
// module of its own, outside the workspace, so that its dependencies are not ours.
package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

var built sync.Map // folder of a tool -> its executable

// Path builds a tool, unless Go's cache has it, and returns its executable: `go tool` itself costs half a second at
// each call.
func Path(ctx context.Context, root, name string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(root, "hack", "tools", name))
	if err != nil {
		return "", err
	}
	if path, ok := built.Load(dir); ok {
		return path.(string), nil
	}
	out, err := run(ctx, dir, "tool", "-n", name)
	if err != nil {
		return "", err
	}
	path := strings.TrimSpace(out)
	built.Store(dir, path)
	return path, nil
}

// Module downloads a Go module (path@version), which Go verifies, and returns its folder.
func Module(ctx context.Context, module string) (string, error) {
	out, runErr := run(ctx, os.TempDir(), "mod", "download", "-json", module)
	var answer struct{ Dir, Error string }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Dir == "" {
		return "", fmt.Errorf("download %s: %w %s", module, errors.Join(runErr, err), answer.Error)
	}
	return answer.Dir, nil
}

// run runs go outside the workspace and returns its output.
func run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	return Output(cmd)
}

// Run runs a program in a folder, "" for this one, and returns its output.
func Run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	return Output(cmd)
}

// Output runs a command to its end and returns what it prints; the error holds that too, and what it complains of.
func Output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err,
			strings.TrimSpace(stderr.String()+stdout.String()))
	}
	return stdout.String(), err
}
