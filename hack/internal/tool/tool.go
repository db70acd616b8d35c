// Package tool builds the tools pinned in hack/tools. Each is a module of its own, outside the workspace, so that its
// dependencies are not ours.
package tool

import (
	"bytes"
	"context"
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
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", name)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, stderr.Bytes())
	}
	path := strings.TrimSpace(string(out))
	built.Store(dir, path)
	return path, nil
}
