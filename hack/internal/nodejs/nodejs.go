// Package nodejs brings Node.js and npm, and what a folder's package-lock.json names, where they are missing.
package nodejs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/stack"
)

// The oldest Node.js that the client's tools run on; Debian 13 has one.
const oldestMajor, oldestMinor = 20, 19

// pinned is what runs where the distribution's is too old. It is published to npm's registry, so that no other address
// is needed.
const pinned = "22.23.3"

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

// Ensure installs Debian's packages if Node.js or npm is missing, and makes this process and its children find a
// Node.js that is new enough: the machine's or, where that is too old, one in .run.
func Ensure(ctx context.Context, c *console.Console, root string) error {
	for _, program := range [][2]string{{"node", "nodejs"}, {"npm", "npm"}} {
		if _, err := exec.LookPath(program[0]); err != nil {
			if err := stack.Install(ctx, c, program[1]); err != nil {
				return err
			}
		}
	}
	why := Check(ctx)
	if why == nil {
		return nil
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("%w: install Node.js %d.%d or newer from nodejs.org", why, oldestMajor, oldestMinor)
	}
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	name := "node-linux-" + arch
	dir := filepath.Join(root, ".run", "nodejs-"+pinned)
	bin := filepath.Join(dir, "node_modules", name, "bin")
	if _, err := os.Stat(filepath.Join(bin, "node")); err != nil {
		c.Printf("On this machine, %s: fetching %s from npm's registry into .run.", why, pinned)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := c.Step(ctx, "fetch Node.js "+pinned, func(ctx context.Context) error {
			return npm(ctx, dir, "install", "--prefix", dir, "--ignore-scripts", name+"@"+pinned)
		}); err != nil {
			return fmt.Errorf("%w; or install a newer one from nodejs.org", err)
		}
	}
	return os.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
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
	return c.Step(ctx, "npm ci", func(ctx context.Context) error { return npm(ctx, dir, "ci", "--ignore-scripts") })
}

// Run runs a script of the folder's package.json and returns what it prints, which the error holds as well.
func Run(ctx context.Context, dir, script string, env ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "npm", "run", "--silent", script)
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "NO_COLOR=1", "FORCE_COLOR=0"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("npm run %s in %s: %w\n%s", script, dir, err, out)
	}
	return string(out), err
}

func npm(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "npm", append(args, "--no-audit", "--no-fund", "--loglevel=error")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm %s in %s: %w\n%s", args[0], dir, err, out)
	}
	return nil
}
