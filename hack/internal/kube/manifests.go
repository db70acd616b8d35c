package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Manifests are the resources of one folder of k8s, as they go to the cluster.
type Manifests struct {
	Text   []byte
	Images []string // that their pods run
}

// Collect reads what the kustomization in a folder lists. A URL is downloaded once and kept in .run; a file of its name
// in the folder local comes first (the version is not looked at), for machines that cannot download.
func Collect(ctx context.Context, root, folder, local string) (Manifests, error) {
	var m Manifests
	resources, err := resources(folder)
	if err != nil {
		return m, err
	}
	for _, resource := range resources {
		var part []byte
		if strings.Contains(resource, "://") {
			part, err = download(ctx, root, resource, local)
		} else {
			part, err = os.ReadFile(filepath.Join(folder, resource))
		}
		if err != nil {
			return m, err
		}
		m.Text = append(append(m.Text, "\n---\n"...), part...)
	}
	m.Images, err = images(m.Text)
	return m, err
}

// resources are what the kustomization in a folder lists.
func resources(folder string) ([]string, error) {
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
	return k.Resources, nil
}

// release finds repository and version in the URL of a file that belongs to a release on GitHub.
var release = regexp.MustCompile(`/([^/]+)/releases/download/v([^/]+)/`)

// Runs reports whether Deployments of the namespace run all the releases that the kustomization in a folder lists.
func (c *Cluster) Runs(ctx context.Context, namespace, folder string) (bool, error) {
	resources, err := resources(folder)
	if err != nil {
		return false, err
	}
	out, err := c.Kubectl(ctx, nil, "get", "deployments", "--namespace", namespace,
		"--output", "jsonpath={.items[*].spec.template.spec.containers[*].image}")
	if err != nil {
		return false, err
	}
	for _, resource := range resources {
		m := release.FindStringSubmatch(resource)
		if m == nil {
			return false, fmt.Errorf("%s: %s is no file of a release", folder, resource)
		}
		if !slices.ContainsFunc(strings.Fields(out), func(image string) bool {
			return strings.HasSuffix(image, "/"+m[1]+":"+m[2])
		}) {
			return false, nil
		}
	}
	return true, nil
}

func download(ctx context.Context, root, url, local string) ([]byte, error) {
	if local != "" {
		text, err := os.ReadFile(filepath.Join(local, path.Base(url)))
		if !errors.Is(err, os.ErrNotExist) {
			return text, err
		}
	}
	kept := filepath.Join(root, ".run", "kind", "manifests", fmt.Sprintf("%.4x-%s", sha256.Sum256([]byte(url)), path.Base(url)))
	if text, err := os.ReadFile(kept); err == nil {
		return text, nil
	}
	text, err := get(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("%w\nWhere it cannot be downloaded, put it into a folder as %s and name that with --manifests",
			err, path.Base(url))
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return nil, err
	}
	return text, os.WriteFile(kept, text, 0o644)
}

func get(ctx context.Context, url string) (text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("download %s: %s", url, res.Status)
	}
	return io.ReadAll(res.Body)
}

// images are the images of all containers in the manifests.
func images(manifests []byte) ([]string, error) {
	var all []string
	for dec := yaml.NewDecoder(bytes.NewReader(manifests)); ; {
		var o struct {
			Spec struct {
				// Of what runs pods; of a RabbitmqCluster the image itself.
				Image    any `yaml:"image"`
				Template struct {
					Spec struct {
						Containers     []struct{ Image string }
						InitContainers []struct{ Image string } `yaml:"initContainers"`
					} `yaml:"spec"`
				} `yaml:"template"`
			} `yaml:"spec"`
		}
		if err := dec.Decode(&o); errors.Is(err, io.EOF) {
			slices.Sort(all)
			return slices.Compact(all), nil
		} else if err != nil {
			return nil, err
		}
		if image, ok := o.Spec.Image.(string); ok {
			all = append(all, image)
		}
		for _, c := range slices.Concat(o.Spec.Template.Spec.InitContainers, o.Spec.Template.Spec.Containers) {
			all = append(all, c.Image)
		}
	}
}

// Apply gives manifests to the cluster, which keeps who set what: applying the same again changes nothing.
func (c *Cluster) Apply(ctx context.Context, m Manifests) error {
	_, err := c.Kubectl(ctx, bytes.NewReader(m.Text), "apply", "--server-side", "--force-conflicts", "--filename", "-")
	return err
}
