package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"orderflow.internal/hack/internal/image"
	"orderflow.internal/hack/internal/pages"
	"orderflow.internal/hack/internal/tool"
)

func (p program) images() *cobra.Command {
	f := imagesFlags{program: p}
	cmd := &cobra.Command{
		Use:   "images [service...]",
		Short: "Build the services' container images",
		Long: `Compiles the services and packages each into an image with services/Dockerfile: all of them, or those named.
With --push the images of all platforms go to the registry, with SBOM and provenance (needs docker buildx).`,
		Example: `  hack/images                                                      orderflow/orders:dev and so on, locally
  hack/images orders --version 1.2.0                               orderflow/orders:1.2.0
  hack/images --registry ghcr.io/acme --version 1.2.0 --push --platform linux/amd64,linux/arm64`,
		RunE: func(cmd *cobra.Command, services []string) error {
			all, err := image.Names(p.root)
			if err != nil {
				return err
			}
			for _, service := range services {
				if !slices.Contains(all, service) {
					return fmt.Errorf("there is no service %q: %s", service, strings.Join(all, ", "))
				}
			}
			if len(services) == 0 {
				services = all
			}
			if f.list {
				fmt.Println(strings.Join(services, "\n"))
				return nil
			}
			return f.run(cmd.Context(), services)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.version, "version", "dev", "what --version says, the image's tag and label")
	flags.StringVar(&f.registry, "registry", "", "`name` to put before orderflow/<service>")
	flags.StringVar(&f.source, "source", "", "the repository's `URL`, for the labels")
	flags.StringVar(&f.ref, "ref", "", "the whole name of the `image` instead, for a single service")
	flags.StringSliceVar(&f.platforms, "platform", []string{"linux/" + runtime.GOARCH},
		"`os/architecture` to build for; several only with --push")
	flags.BoolVar(&f.push, "push", false, "push to the registry")
	flags.BoolVar(&f.list, "list", false, "print the services' names and build nothing")
	return cmd
}

type imagesFlags struct {
	program
	version, registry, ref, source string
	platforms                      []string
	push, list                     bool
}

func (f imagesFlags) run(ctx context.Context, services []string) error {
	if f.ref != "" && len(services) != 1 {
		return errors.New("--ref names the image of one service: say which")
	}
	if !f.push && len(f.platforms) != 1 {
		return errors.New("without --push there can be one platform: Docker holds local images for one")
	}
	if slices.Contains(services, image.Client) {
		if _, err := pages.Built(ctx, f.Console, f.root, false); err != nil {
			return err
		}
	}
	b := image.Builder{
		Root: f.root, Version: f.version, Source: f.source,
		Revision: lastCommit(ctx, f.root, "%H"), Created: lastCommit(ctx, f.root, "%cI"),
	}
	for _, service := range services {
		ref := f.ref
		if ref == "" {
			ref = strings.TrimPrefix(f.registry+"/orderflow/", "/") + service + ":" + f.version
		}
		if err := f.Step(ctx, ref, func(ctx context.Context) error { return f.build(ctx, b, service, ref) }); err != nil {
			return err
		}
	}
	return nil
}

func (f imagesFlags) build(ctx context.Context, b image.Builder, service, ref string) error {
	var arch string
	for _, platform := range f.platforms {
		var ok bool
		if arch, ok = strings.CutPrefix(platform, "linux/"); !ok {
			return fmt.Errorf("platform %q: want linux/<architecture>", platform)
		}
		if _, err := b.Compile(ctx, service, arch); err != nil {
			return err
		}
	}
	if f.push {
		return b.Push(ctx, service, f.platforms, ref)
	}
	return b.Package(ctx, service, arch, ref)
}

// lastCommit is something about the commit that is checked out, in git's format; empty outside of version control.
func lastCommit(ctx context.Context, root, format string) string {
	out, _ := tool.Run(ctx, root, "git", "log", "-1", "--format="+format)
	return strings.TrimSpace(out)
}
