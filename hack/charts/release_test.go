package charts

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/internal/kube"
)

// What a release packages names its own images and version everywhere, and links to its own files.
func TestReleasedCharts(t *testing.T) {
	dir := t.TempDir()
	const version, registry, source = "1.2.3-rc.1", "ghcr.example.com/acme", "https://github.example.com/acme/orderflow"
	cmd := exec.CommandContext(t.Context(), filepath.Join(absolute(t), "hack/package-charts"), version, registry,
		source, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(packages) != 3 {
		t.Fatal(packages, err)
	}
	chart := filepath.Join(dir, "orderflow-"+version+".tgz")
	text, err := helm(t.Context(), root, "template", "orderflow", chart, "--set", "monitoring.rules.enabled=true")
	if err != nil {
		t.Fatal(err)
	}
	r := parse(t, text)
	for _, d := range r.kinds("Deployment") {
		image := d.objects("spec", "template", "spec", "containers")[0].text("image")
		if !strings.HasPrefix(image, registry+"/orderflow/") || !strings.HasSuffix(image, ":"+version) {
			t.Errorf("image %s", image)
		}
		if label := d.text("metadata", "labels", "helm.sh/chart"); !strings.HasSuffix(label, "-"+version) {
			t.Errorf("chart %s", label)
		}
	}
	// A mirror that holds what the list says has every image.
	images, err := os.ReadFile(filepath.Join(dir, "images.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kube.Images(text), strings.Fields(string(images))); diff != "" {
		t.Errorf("images.txt (-rendered +listed):\n%s", diff)
	}
	for _, g := range r.get(t, "PrometheusRule/orderflow").objects("spec", "groups") {
		for _, one := range g.objects("rules") {
			if link := one.text("annotations", "runbook_url"); link != "" &&
				!strings.HasPrefix(link, source+"/blob/v"+version+"/docs/runbooks/") {
				t.Errorf("runbook %s", link)
			}
		}
	}
	about, err := helm(t.Context(), root, "show", "chart", chart)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(about), "git.example.com") || !strings.Contains(string(about), "home: "+source+"\n") {
		t.Errorf("Chart.yaml\n%s", about)
	}
	// A mirror wins over the registry that is baked in.
	text, err = helm(t.Context(), root, "template", "orderflow", chart, "--set", "global.imageRegistry=mirror.example.com")
	if err != nil || strings.Contains(string(text), registry) {
		t.Errorf("with a mirror an image comes from %s (%v)", registry, err)
	}
}

// Nobody can change what a workflow runs, or leave credentials in its work tree.
func TestActionsArePinned(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(absolute(t), ".github/workflows/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	pinned := regexp.MustCompile(`^[a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		checkouts := 0
		for line := range strings.Lines(string(text)) {
			_, uses, found := strings.Cut(strings.TrimSpace(line), "uses: ")
			if !found || strings.HasPrefix(uses, "./.github/workflows/") {
				continue
			}
			if !pinned.MatchString(uses) {
				t.Errorf("%s: %s is not pinned to a commit", filepath.Base(file), uses)
			}
			if strings.HasPrefix(uses, "actions/checkout@") {
				checkouts++
			}
		}
		if kept := checkouts - strings.Count(string(text), "persist-credentials: false"); kept != 0 {
			t.Errorf("%s: %d checkouts keep their credentials", filepath.Base(file), kept)
		}
	}
}

// Git answers in a container as well, where root works in the folder of another user.
func TestContainersTrustTheirCheckout(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(absolute(t), ".github/workflows/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	containers := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var workflow map[string]any
		if err := yaml.Unmarshal(text, &workflow); err != nil {
			t.Fatal(err)
		}
		for name, job := range asMap(workflow["jobs"]) {
			if asMap(job)["container"] == nil {
				continue
			}
			containers++
			if !slices.ContainsFunc(object(asMap(job)).objects("steps"), func(step object) bool {
				return step.text("run") == `git config --global --add safe.directory "$GITHUB_WORKSPACE"`
			}) {
				t.Errorf("%s: %s cannot ask git anything", filepath.Base(file), name)
			}
		}
	}
	if containers == 0 {
		t.Error("no job runs in a container")
	}
}
