package charts

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What charts/orderflow says of the services is said elsewhere only where nobody could read it from there, and is the
// same.
func TestServicesAreTheSameEverywhere(t *testing.T) {
	services, err := Services(root)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{}
	for _, s := range services {
		ports[s.Name] = fmt.Sprint(s.Port)
	}
	for _, s := range services {
		t.Run(s.Name, func(t *testing.T) {
			if s.Admin != s.Port+1000 {
				t.Errorf("values.yaml: the admin port of %d is %d", s.Port, s.Admin)
			}
			main := text(t, "services", s.Name, "main.go")
			for variable, port := range map[string]int{"HTTP_ADDR": s.Port, "ADMIN_ADDR": s.Admin} {
				if !strings.Contains(main, fmt.Sprintf(`"%s": ":%d"`, variable, port)) {
					t.Errorf("main.go: %s is not :%d, the port of values.yaml", variable, port)
				}
			}
			for name, port := range s.Calls {
				if fmt.Sprint(port) != ports[name] {
					t.Errorf("values.yaml: networkPolicy.calls has port %d for %s", port, name)
				}
			}
			for queue := range s.Queues {
				if !strings.HasPrefix(queue, s.Name+".") {
					t.Errorf("values.yaml: queue %s does not begin with its consumer's name", queue)
				}
			}
		})
	}
	var values struct {
		Postgres    struct{ Databases []string }
		Deadletters struct {
			Broker struct {
				DeadLettersOf []string `yaml:"deadLettersOf"`
			}
		}
	}
	if err := read(filepath.Join(root, "charts", "orderflow", "values.yaml"), &values); err != nil {
		t.Fatal(err)
	}
	var databases, queues []string
	for _, s := range services {
		if s.Database {
			databases = append(databases, s.Name)
		}
		queues = slices.AppendSeq(queues, maps.Keys(s.Queues))
	}
	sorted := cmpopts.SortSlices(strings.Compare)
	if diff := cmp.Diff(databases, values.Postgres.Databases, sorted); diff != "" {
		t.Errorf("postgres.databases (-services +list):\n%s", diff)
	}
	if diff := cmp.Diff(queues, values.Deadletters.Broker.DeadLettersOf, sorted); diff != "" {
		t.Errorf("deadletters.broker.deadLettersOf (-queues +list):\n%s", diff)
	}
	address := regexp.MustCompile(`http://\{\{ \.Release\.Name \}\}-(\w+):(\d+)`)
	for _, m := range address.FindAllStringSubmatch(text(t, "charts", "orderflow", "values.yaml"), -1) {
		if ports[m[1]] != m[2] {
			t.Errorf("values.yaml: %s is not the port of %s", m[0], m[1])
		}
	}
}

// Skaffold builds all images but the client's, whose pages have a server of their own in development, and the audit's.
func TestSkaffoldBuildsTheServices(t *testing.T) {
	services, err := Services(root)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Build struct {
			Artifacts []struct{ Image string }
		}
		Deploy struct {
			Helm struct {
				Releases []struct {
					Values map[string]string `yaml:"setValueTemplates"`
				}
			}
		}
	}
	if err := read(filepath.Join(root, "skaffold.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	var want, got []string
	values := map[string]string{}
	for _, s := range services {
		if slices.Contains([]string{"client", "audit", "idp"}, s.Name) {
			continue
		}
		want = append(want, "orderflow/"+s.Name)
		values[s.Name+".image.repository"] = "{{.IMAGE_REPO_orderflow_" + s.Name + "}}"
		values[s.Name+".image.tag"] = "{{.IMAGE_TAG_orderflow_" + s.Name + "}}"
	}
	for _, a := range file.Build.Artifacts {
		got = append(got, a.Image)
	}
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("artifacts (-chart +skaffold.yaml):\n%s", diff)
	}
	if diff := cmp.Diff(values, file.Deploy.Helm.Releases[0].Values); diff != "" {
		t.Errorf("setValueTemplates (-chart +skaffold.yaml):\n%s", diff)
	}
}

func text(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
