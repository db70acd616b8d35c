package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"orderflow.internal/hack/topology"
)

// Generator writes some generated files anew.
type Generator struct {
	Name  string
	Write func(ctx context.Context, root string) error
}

// Generators are all of the repository's; hack/generate runs them.
var Generators = []Generator{
	{"the broker's topology from the charts", func(_ context.Context, root string) error { return topology.Write(root) }},
	{"the services' openapi.yaml from the gateway's", func(ctx context.Context, root string) error {
		_, err := command(ctx, filepath.Join(root, "services"), nil,
			"go", "test", "-count=1", "./gateway", "-run", "^TestServiceDocuments$", "-update")
		return err
	}},
}

// generated runs every generator in a copy of the repository and compares, so that a check changes nothing.
func generated(ctx context.Context, r *run) error {
	scratch := filepath.Join(r.Root, ".run", "generate")
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := copyTree(r.Root, scratch); err != nil {
		return fmt.Errorf("copy the repository: %w", err)
	}
	for _, g := range Generators {
		r.check(ctx, g.Name, func(ctx context.Context) error {
			if err := g.Write(ctx, scratch); err != nil {
				return err
			}
			return sameTree(r.Root, scratch)
		})
	}
	for _, module := range modules {
		r.check(ctx, module+"/go.mod", func(ctx context.Context) error {
			_, err := command(ctx, r.dir(module), nil, "go", "mod", "tidy", "-diff")
			return err
		})
	}
	return nil
}

// notCopied are folders at the root that no generator reads.
var notCopied = []string{".git", ".run"}

func copyTree(from, to string) error {
	return walkFiles(from, func(rel string, info fs.FileInfo) error {
		text, err := os.ReadFile(filepath.Join(from, rel))
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, text, info.Mode().Perm())
	})
}

// sameTree returns an error that names the files of the copy that differ from the repository's.
func sameTree(root, scratch string) error {
	var stale []string
	err := walkFiles(scratch, func(rel string, _ fs.FileInfo) error {
		want, err := os.ReadFile(filepath.Join(scratch, rel))
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(root, rel))
		if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(got, want) {
			stale = append(stale, rel)
			return nil
		}
		return err
	})
	if err == nil && len(stale) > 0 {
		err = fmt.Errorf("not up to date (hack/generate mends it): %s", strings.Join(stale, ", "))
	}
	return err
}

func walkFiles(root string, visit func(rel string, info fs.FileInfo) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains(notCopied, rel) || entry.Name() == "node_modules" {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		return visit(rel, info)
	})
}
