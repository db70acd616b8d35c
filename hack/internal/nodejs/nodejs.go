// Package nodejs brings Node.js and npm, and what a folder's package-lock.json names, where they are missing.
package nodejs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/tool"
	"orderflow.internal/hack/stack"
)

// The oldest Node.js that the client's tools run on; Debian 13 has one.
const oldestMajor, oldestMinor = 20, 19

// Check returns why Node.js and npm cannot be used, nil when they can.
func Check(ctx context.Context) error {
	if _, err := exec.LookPath("npm"); err != nil {
		return errors.New("npm is not installed")
	}
	version, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return errors.New("node is not installed")
	}
	return recent(string(version))
}

// recent returns an error unless the version, like v20.19.2, is new enough.
func recent(version string) error {
	var major, minor int
	if _, err := fmt.Sscanf(version, "v%d.%d.", &major, &minor); err != nil {
		return fmt.Errorf("node's version %q: %w", version, err)
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return fmt.Errorf("node is v%d.%d, older than v%d.%d", major, minor, oldestMajor, oldestMinor)
	}
	return nil
}

// Ensure installs Debian's packages if Node.js or npm is missing.
func Ensure(ctx context.Context, c *console.Console) error {
	for program, pkg := range map[string]string{"node": "nodejs", "npm": "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if err := stack.Install(ctx, c, pkg); err != nil {
				return err
			}
		}
	}
	if err := Check(ctx); err != nil {
		return fmt.Errorf("%w: install a newer Node.js from nodejs.org", err)
	}
	return nil
}

// Modules installs what the folder's package-lock.json names, unless it is there. No package runs a script meanwhile.
func Modules(ctx context.Context, c *console.Console, dir string) error {
	lock, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	done, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	if err == nil && !done.ModTime().Before(lock.ModTime()) {
		return nil
	}
	return c.Step(ctx, "npm ci", func(ctx context.Context) error {
		_, err := tool.Run(ctx, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
		return err
	})
}

// Run runs a script of the folder's package.json and returns what it prints, which the error holds as well.
func Run(ctx context.Context, dir, script string, env ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "npm", "run", "--silent", script)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "NO_COLOR=1", "FORCE_COLOR=0"), env...)
	return tool.Output(cmd)
}
