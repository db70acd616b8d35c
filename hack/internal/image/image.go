// Package image makes the services' container images: it compiles here, and services/Dockerfile packages what came out.
package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/dirhash"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/internal/pages"
	"orderflow.internal/hack/internal/tool"
	"orderflow.internal/hack/stack"
)

// Builder makes images of one version.
type Builder struct {
	Root     string
	Version  string // what --version says and the labels hold
	Revision string // the commit, for the labels; may be empty
	Created  string // when it was made, RFC 3339; may be empty
	Source   string // URL of the repository; may be empty
	Overlay  string // file for go build's -overlay: other sources than those in Root; may be empty
}

// Client is the service that ships the web client; its image also holds the pages.
const Client = "client"

// Names are the services that have an image: all.
func Names(root string) ([]string, error) {
	services, err := charts.Services(root)
	var names []string
	for _, s := range services {
		names = append(names, s.Name)
	}
	return names, err
}

// Compile builds a service's binary for Linux on an architecture (amd64, arm64) and puts it into a folder of its own,
// with all else that the image holds.
func (b Builder) Compile(ctx context.Context, service, arch string) (folder string, err error) {
	folder = filepath.Join(b.context(service), arch)
	if err := os.RemoveAll(folder); err != nil {
		return "", err
	}
	args := append([]string{"build", "-o", filepath.Join(folder, "service")}, stack.BuildFlags()...)
	args = append(args, "-ldflags", "-s -w -X orderflow.internal/kit/run.version="+b.Version)
	if b.Overlay != "" {
		args = append(args, "-overlay", b.Overlay)
	}
	args = append(args, "./"+service)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(b.Root, "services")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if _, err := tool.Output(cmd); err != nil {
		return "", fmt.Errorf("compile %s for %s: %w", service, arch, err)
	}
	if service != Client {
		return folder, nil
	}
	built := pages.Find(b.Root)
	if built == "" {
		return "", errors.New("the client's pages are not built: " +
			"npm --prefix services/client ci && npm --prefix services/client run build")
	}
	return folder, os.CopyFS(filepath.Join(folder, "client", "dist"), os.DirFS(built))
}

// ContentTag is a tag for the image of what Compile put into a folder; it changes whenever the image would.
func (b Builder) ContentTag(folder string) (string, error) {
	packaging, err := os.ReadFile(b.dockerfile())
	if err != nil {
		return "", err
	}
	content, err := dirhash.HashDir(folder, "", dirhash.Hash1)
	return fmt.Sprintf("%s-%.6x", b.Version, sha256.Sum256(append(packaging, content...))), err
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
		"--build-arg", "SOURCE=" + b.Source, "--build-arg", "CREATED=" + b.Created,
		b.context(service),
	}
}

func (b Builder) dockerfile() string { return filepath.Join(b.Root, "services", "Dockerfile") }

// context is what the Dockerfile copies a service from.
func (b Builder) context(service string) string {
	return filepath.Join(b.Root, ".run", "images", service)
}

func (b Builder) docker(ctx context.Context, args []string) error {
	_, err := tool.Run(ctx, "", "docker", args...)
	return err
}
