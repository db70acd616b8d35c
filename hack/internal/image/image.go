// Package image makes the services' container images: it compiles here, and services/Dockerfile packages what came out.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"orderflow.internal/hack/stack"
)

// Builder makes images of one version.
type Builder struct {
	Root     string
	Version  string // what --version says and the labels hold
	Revision string // the commit, for the labels; may be empty
}

// Compile builds a service's binary for Linux on an architecture (amd64, arm64) and returns its path.
func (b Builder) Compile(ctx context.Context, service, arch string) (string, error) {
	path := filepath.Join(b.context(), arch, service)
	args := append([]string{"build", "-o", path}, stack.BuildFlags()...)
	args = append(args, "-ldflags", "-s -w -X orderflow.internal/kit/run.version="+b.Version, "./"+service)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(b.Root, "services")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile %s for %s: %w\n%s", service, arch, err, out)
	}
	return path, nil
}

// ContentTag is a tag for the image of a compiled binary that changes whenever the image would.
func (b Builder) ContentTag(binary string) (string, error) {
	sum := sha256.New()
	for _, path := range []string{binary, b.dockerfile()} {
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, file)
		if closed := file.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return "", err
		}
	}
	return b.Version + "-" + hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// Package makes the local image ref of a binary that Compile built.
func (b Builder) Package(ctx context.Context, service, arch, ref string) error {
	return b.docker(ctx, append([]string{"build", "--build-arg", "TARGETARCH=" + arch}, b.arguments(service, ref)...))
}

// Push makes one image of all platforms (linux/amd64, …), with SBOM and provenance, and pushes it. It needs buildx and
// the binaries of Compile.
func (b Builder) Push(ctx context.Context, service string, platforms []string, ref string) error {
	return b.docker(ctx, append([]string{"buildx", "build", "--push", "--sbom=true", "--provenance=mode=max",
		"--platform", strings.Join(platforms, ",")}, b.arguments(service, ref)...))
}

func (b Builder) arguments(service, ref string) []string {
	return []string{
		"--tag", ref, "--file", b.dockerfile(),
		"--build-arg", "SERVICE=" + service, "--build-arg", "VERSION=" + b.Version, "--build-arg", "REVISION=" + b.Revision,
		b.context(),
	}
}

func (b Builder) dockerfile() string { return filepath.Join(b.Root, "services", "Dockerfile") }

// context is what the Dockerfile copies from: only binaries, so that sending it to the daemon costs little.
func (b Builder) context() string { return filepath.Join(b.Root, ".run", "images") }

func (b Builder) docker(ctx context.Context, args []string) error {
	if out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
