package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/internal/api"
)

// Collect reads what the kustomization in a folder lists, folders with one of their own included, and leaves its
// patches out. A URL is downloaded once and kept in .run; a file of its name
// in the folder local comes first (the version is not looked at), for machines that cannot download.
func Collect(ctx context.Context, root, folder, local string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(folder, "kustomization.yaml"))
	if err != nil {
		return nil, err
	}
	var k struct {
		Resources []string `yaml:"resources"`
	}
	if err := yaml.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	var all []byte
	for _, resource := range k.Resources {
		file := filepath.Join(folder, resource)
		if strings.Contains(resource, "://") {
			if file, err = fetch(ctx, root, resource, local); err != nil {
				return nil, err
			}
		}
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			part, err := Collect(ctx, root, file, local)
			if err != nil {
				return nil, err
			}
			all = append(all, part...)
			continue
		}
		part, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		all = append(append(all, "\n---\n"...), part...)
	}
	return all, nil
}

// fetch returns the file with what is at a URL.
func fetch(ctx context.Context, root, url, local string) (string, error) {
	if file := filepath.Join(local, path.Base(url)); local != "" {
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	kept := filepath.Join(root, ".run", "kind", "manifests",
		fmt.Sprintf("%.4x-%s", sha256.Sum256([]byte(url)), path.Base(url)))
	if _, err := os.Stat(kept); err == nil {
		return kept, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var text bytes.Buffer
	if err := api.Get(ctx, url, &text); err != nil {
		return "", fmt.Errorf("download %s: %w\nWhere it cannot be downloaded, put it into a folder as %s and name that "+
			"with --manifests", url, err, path.Base(url))
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return "", err
	}
	return kept, os.WriteFile(kept, text.Bytes(), 0o644)
}

var imageLine = regexp.MustCompile(`\bimage:[ \t]+["']?([^\s"'}]+)`)

// Images are the images that manifests name, of containers and of a RabbitmqCluster.
func Images(manifests []byte) []string {
	var all []string
	for _, m := range imageLine.FindAllSubmatch(manifests, -1) {
		all = append(all, string(m[1]))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Apply gives manifests to the cluster, which keeps who set what: applying the same again changes nothing.
func (c *Cluster) Apply(ctx context.Context, manifests []byte) error {
	_, err := c.Kubectl(ctx, bytes.NewReader(manifests), "apply", "--server-side", "--force-conflicts", "--filename", "-")
	return err
}
