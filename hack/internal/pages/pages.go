// Package pages builds the web client's pages, which the services' images and hack/up hand to its server.
package pages

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"orderflow.internal/hack/console"
	"orderflow.internal/hack/internal/nodejs"
)

// Sources is the folder that the pages are built from.
func Sources(root string) string { return filepath.Join(root, "services", "client") }

// Find returns the folder of the built pages, "" when they are not built.
func Find(root string) string {
	dir := filepath.Join(Sources(root), "dist")
	if _, err := os.Stat(filepath.Join(dir, "index.html")); err != nil {
		return ""
	}
	return dir
}

// made are the sources of what a browser gets; the rest is for development.
var made = []string{"index.html", "package-lock.json", "package.json", "public", "src", "vite.config.ts"}

// stale reports whether the pages are not built or older than their sources.
func stale(root string) (bool, error) {
	dir := Find(root)
	if dir == "" {
		return true, nil
	}
	built, err := os.Stat(filepath.Join(dir, "index.html"))
	if err != nil {
		return false, err
	}
	var newest time.Time
	for _, name := range made {
		// Folders as well: theirs is the time when a file was removed.
		err := filepath.WalkDir(filepath.Join(Sources(root), name), func(_ string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err == nil && info.ModTime().After(newest) {
				newest = info.ModTime()
			}
			return err
		})
		if err != nil {
			return false, err
		}
	}
	return newest.After(built.ModTime()), nil
}

// Built returns the folder of the pages, built if they are older than their sources. With install, Node.js is brought
// if it is missing, and a failure is an error. Otherwise it says why and is content with an older build or, returning
// "", with none: the rest of the system is worth having without.
func Built(ctx context.Context, c *console.Console, root string, install bool) (string, error) {
	old, err := stale(root)
	if err != nil || !old {
		return Find(root), err
	}
	if install {
		err = nodejs.Ensure(ctx, c)
	} else {
		err = nodejs.Check(ctx)
	}
	if err == nil {
		err = Build(ctx, c, root)
	}
	if err != nil && (install || ctx.Err() != nil) {
		return "", err
	}
	if err != nil {
		c.Printf("The web client is missing or an older build: %v", err)
	}
	return Find(root), nil
}

// Build builds the pages; Node.js must be there.
func Build(ctx context.Context, c *console.Console, root string) error {
	if err := nodejs.Modules(ctx, c, Sources(root)); err != nil {
		return err
	}
	return c.Step(ctx, "build the web client", func(ctx context.Context) error {
		_, err := nodejs.Run(ctx, Sources(root), "bundle")
		if err == nil && Find(root) == "" {
			err = errors.New("npm run bundle has made no pages")
		}
		return err
	})
}
