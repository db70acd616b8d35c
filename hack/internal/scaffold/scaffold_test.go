package scaffold

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"orderflow.internal/hack/charts"
	"orderflow.internal/hack/topology"
)

const root = "../../.."

// What is made builds, passes its own tests and those that compare the places where services are listed, and leaves
// nothing behind. Its tests need the servers of hack/test.
func TestAServiceIsMadeAndTakenAway(t *testing.T) {
	copied := t.TempDir()
	names := command(t, root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "go.work",
		"skaffold.yaml", "compose.yaml", "charts", "hack", "services", ":!services/client/src", ":!services/client/e2e")
	for name := range strings.SplitSeq(strings.TrimSuffix(names, "\x00"), "\x00") {
		copyFile(t, filepath.Join(root, name), filepath.Join(copied, name))
	}
	before := tree(t, copied)
	s, err := New(copied, "notifications", []string{"stock.released", "order.confirmed"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Add(), topology.Write(copied)); err != nil {
		t.Fatal(err)
	}
	made := tree(t, copied)
	if err := s.Add(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, tree(t, copied)); diff != "" {
		t.Errorf("twice is not once:\n%s", diff)
	}
	if _, err := New(copied, "notifications", []string{"order.created"}); err == nil {
		t.Error("it is made again")
	}
	services, err := charts.Services(copied)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range services {
		if other.Name != s.Name && other.Port == s.Port {
			t.Errorf("%s has port %d as well", other.Name, s.Port)
		}
	}
	command(t, filepath.Join(copied, "services"), "go", "vet", "./notifications/...")
	command(t, filepath.Join(copied, "services"), "go", "test", "./notifications/...", "./events")
	command(t, filepath.Join(copied, "hack"), "go", "test", "./charts", "./stack", "./topology", "-run",
		"^(TestServicesAreTheSame|TestSkaffold|TestNetworkPolicies|TestCompose|TestPorts|TestTopology|TestValuesChange)")

	// What somebody has changed goes as well, but code only by force.
	values := filepath.Join(copied, "charts", "orderflow", "values.yaml")
	edited := strings.Replace(made["charts/orderflow/values.yaml"], "\n    admin: 6006\n",
		"\n    admin: 6006\n  env:\n    SMTP_ADDR: mail:25\n", 1)
	if edited == made["charts/orderflow/values.yaml"] {
		t.Fatal("the values have another port")
	}
	code := filepath.Join(copied, "services", "notifications", "more.go")
	if err := errors.Join(os.WriteFile(values, []byte(edited), 0o600),
		os.WriteFile(code, []byte("package main\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Remove(copied, "notifications", false); err == nil || !strings.Contains(err.Error(), "more.go") {
		t.Errorf("code goes without a word: %v", err)
	}
	if err := errors.Join(Remove(copied, "notifications", true), topology.Write(copied)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, copied)); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for name, test := range map[string]struct {
		keys []string
		want string
	}{
		"orders":   {[]string{"order.created"}, "taken by the system"},
		"Mail":     {[]string{"order.created"}, "lower-case"},
		"mail-out": {[]string{"order.created"}, "lower-case"},
		"mail":     {nil, "at least one of order.cancelled"},
		"mails":    {[]string{"order.made"}, `no event has the routing key "order.made": there are order.cancelled`},
	} {
		if _, err := New(root, name, test.keys); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %v: %v, want %q", name, test.keys, err, test.want)
		}
	}
	for _, name := range []string{"orders", "nobody", "../orders"} {
		if err := Remove(root, name, true); err == nil {
			t.Errorf("%s is removed", name)
		}
	}
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		t.Fatal(err)
	}
	if link, err := os.Readlink(from); err == nil { // to a chart
		if err := os.Symlink(link, to); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) { // deleted, but not committed
		return
	}
	if err := errors.Join(err, os.WriteFile(to, text, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// tree is all files below a folder, by path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path) // it is below
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
