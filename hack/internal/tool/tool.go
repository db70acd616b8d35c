// Package tool builds the tools pinned in hack/tools and fetches Go modules for what is in them. Each tool is a
// module of its own, outside the workspace, so that its dependencies are not ours.
package tool

import (
	"bytes"
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
	path := strings.TrimSpace(string(out))
	built.Store(dir, path)
	return path, nil
}

// Module downloads a Go module (path@version), which Go verifies, and returns its folder.
func Module(ctx context.Context, module string) (string, error) {
	out, runErr := run(ctx, os.TempDir(), "mod", "download", "-json", module)
	var answer struct{ Dir, Error string }
	if err := json.Unmarshal(out, &answer); err != nil || answer.Dir == "" {
		return "", fmt.Errorf("download %s: %w %s", module, errors.Join(runErr, err), answer.Error)
	}
	return answer.Dir, nil
}

// run runs go outside the workspace and returns its output.
func run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, err
}
