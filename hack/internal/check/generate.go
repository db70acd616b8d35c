package check

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/monitoring"
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
	{"the dashboards", monitoring.Write},
	{"the charts' documentation", charts.Write},
	{"the services' openapi.yaml from the gateway's", func(ctx context.Context, root string) error {
		_, err := command(ctx, filepath.Join(root, "services"),
			"go", "test", "-count=1", "./gateway", "-run", "^TestServiceDocuments$", "-update")
		return err
	}},
}

// generated runs every generator in a copy of the repository and compares, so that a check changes nothing.
func generated(ctx context.Context, r *run) (err error) {
	scratch := filepath.Join(r.Root, ".run", "generate")
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if err := copyTree(r.Root, scratch); err != nil {
		return fmt.Errorf("copy the repository: %w", err)
	}
	for _, g := range Generators {
		r.check(ctx, g.Name, func(ctx context.Context) error {
			before, err := digest(scratch)
			if err != nil {
				return err
			}
			if err := g.Write(ctx, scratch); err != nil {
				return err
			}
			return unchanged(scratch, before)
		})
	}
	for _, module := range modules {
		r.check(ctx, module+"/go.mod", func(ctx context.Context) error {
			_, err := command(ctx, r.dir(module), "go", "mod", "tidy", "-diff")
			return err
		})
	}
	return nil
}

// notCopied are folders at the root that no generator reads.
var notCopied = []string{".git", ".run"}

func copyTree(from, to string) error {
	return walkFiles(from, func(rel string, info fs.FileInfo) error {
		source, target := filepath.Join(from, rel), filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(source)
			if err != nil {
				return err
			}
			return os.Symlink(to, target)
		}
		text, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, info.Mode().Perm())
	})
}

// digest returns a checksum of each file by its path.
func digest(root string) (map[string][sha256.Size]byte, error) {
	sums := make(map[string][sha256.Size]byte)
	err := walkFiles(root, func(rel string, info fs.FileInfo) error {
		if !info.Mode().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, rel))
		sums[rel] = sha256.Sum256(text)
		return err
	})
	return sums, err
}

// unchanged returns an error that names the files that are new or differ from what they were.
func unchanged(root string, before map[string][sha256.Size]byte) error {
	now, err := digest(root)
	if err != nil {
		return err
	}
	var stale []string
	for rel, sum := range now {
		if before[rel] != sum {
			stale = append(stale, rel)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	slices.Sort(stale)
	return fmt.Errorf("not up to date (hack/generate mends it): %s", strings.Join(stale, ", "))
}

// walkFiles visits files and links.
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
		if err != nil {
			return err
		}
		return visit(rel, info)
	})
}
