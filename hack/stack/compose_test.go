package stack

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/topology"
)

const (
	repository      = "../.."
	composePassword = "development"
)

// composition is compose.yaml, as far as it says what others say as well.
type composition struct {
	Services map[string]struct {
		Image       string                            `yaml:"image"`
		Entrypoint  []string                          `yaml:"entrypoint"`
		Environment map[string]string                 `yaml:"environment"`
		Ports       []string                          `yaml:"ports"`
		DependsOn   yaml.Node                         `yaml:"depends_on"`
		Configs     []struct{ Source, Target string } `yaml:"configs"`
	} `yaml:"services"`
	Configs map[string]struct {
		File    string `yaml:"file"`
		Content string `yaml:"content"`
	} `yaml:"configs"`
}

// readComposition reads compose.yaml with the values that variables have by default.
func readComposition(t *testing.T) (c composition) {
	t.Helper()
	text := strings.ReplaceAll(read(t, "compose.yaml"), "${ORDERFLOW_PASSWORD:-development}", composePassword)
	if _, variable, found := strings.Cut(text, "${"); found {
		t.Fatalf("compose.yaml has a variable that this test does not know: %.40s", variable)
	}
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// localStack is what hack/up runs, each password the one of compose.yaml.
func localStack(t *testing.T) *Stack {
	t.Helper()
	s, err := build(Options{Root: repository, Name: t.Name(), Pages: "/app/pages"})
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range s.specs {
		for _, server := range []string{"postgres-", "rabbitmq-"} {
			s.secrets[server+spec.name] = composePassword
		}
	}
	return s
}

// A system of containers has the services of the local stack, configured alike but for their addresses.
func TestComposeRunsWhatTheLocalStackRuns(t *testing.T) {
	c, s := readComposition(t), localStack(t)
	ports := PortsAt(0)
	hosts := []string{address(ports.Postgres), "postgres:5432", address(ports.AMQP), "rabbitmq:5672"}
	for _, spec := range s.specs {
		hosts = append(hosts, address(spec.port), fmt.Sprintf("%s:%d", spec.name, spec.port))
	}
	inside := strings.NewReplacer(hosts...)
	for _, service := range s.Services() {
		name := service.spec.name
		want := map[string]string{}
		for _, variable := range service.environment() {
			key, value, _ := strings.Cut(variable, "=")
			switch key {
			case "PATH", "TZ", "LOG_FORMAT": // of a container by default
			case "HTTP_ADDR", "ADMIN_ADDR": // every address of it, at the service's own port
			case "AUTH_CLIENT_ID", "AUTH_CLIENT_SECRET": // without an issuer nobody asks for them
			default:
				want[key] = inside.Replace(value)
			}
		}
		have := c.Services[name]
		if diff := cmp.Diff(want, have.Environment); diff != "" && len(want)+len(have.Environment) > 0 {
			t.Errorf("the environment of %s: %s", name, diff)
		}
		if diff := cmp.Diff([]string{"/app/" + name}, have.Entrypoint); diff != "" {
			t.Errorf("the program of %s: %s", name, diff)
		}
		if !service.spec.database {
			continue
		}
		migration := c.Services[name+"-migrate"]
		if diff := cmp.Diff([]string{"/app/" + name, "migrate"}, migration.Entrypoint); diff != "" {
			t.Errorf("the migration of %s: %s", name, diff)
		}
		if diff := cmp.Diff(want, migration.Environment); diff != "" {
			t.Errorf("the environment of the migration of %s: %s", name, diff)
		}
		var waits map[string]struct{ Condition string }
		if err := have.DependsOn.Decode(&waits); err != nil {
			t.Error(err)
		}
		if waits[name+"-migrate"].Condition != "service_completed_successfully" ||
			waits["rabbitmq"].Condition != "service_healthy" {
			t.Errorf("%s waits for %v, not for its migration and the broker", name, waits)
		}
	}
}

// Only this machine reaches the system, at the addresses that the documentation names.
func TestComposePublishesOnTheLoopbackInterface(t *testing.T) {
	var all []string
	for _, service := range readComposition(t).Services {
		all = append(all, service.Ports...)
	}
	slices.Sort(all)
	if diff := cmp.Diff([]string{"127.0.0.1:15672:15672", "127.0.0.1:5108:5108"}, all); diff != "" {
		t.Error(diff)
	}
}

// The servers are those of the charts, hold what the charts declare, and know each service by a user of its own.
func TestComposeServersHaveTheTopologyOfTheCharts(t *testing.T) {
	c, s := readComposition(t), localStack(t)
	images := strings.Fields(read(t, "charts/orderflow/images.txt"))
	for _, server := range []string{"postgres", "rabbitmq"} {
		if image := c.Services[server].Image; !slices.Contains(images, image) {
			t.Errorf("%s runs %s, which is none of the charts' images %q", server, image, images)
		}
	}
	if file := c.Configs["topology"].File; file != topology.Path {
		t.Errorf("the broker reads its topology from %q, not from %s", file, topology.Path)
	}
	// Whose user has no password takes it from the definitions that are read last.
	if mounts := c.Services["rabbitmq"].Configs; len(mounts) != 3 || mounts[1].Source != "topology" ||
		mounts[2].Source != "users" || mounts[1].Target >= mounts[2].Target {
		t.Errorf("the broker reads %v, not the users after the topology", mounts)
	}
	var users struct {
		Users []struct {
			Name, Password string
			Tags           []string
		}
		Vhosts      []topology.Vhost
		Permissions []topology.Permission
	}
	if err := json.Unmarshal([]byte(c.Configs["users"].Content), &users); err != nil {
		t.Fatal(err)
	}
	tags := map[string][]string{}
	for _, user := range users.Users {
		tags[user.Name] = user.Tags
		if user.Password != composePassword {
			t.Errorf("the broker's user %s has another password than the rest", user.Name)
		}
	}
	want := map[string][]string{adminUser: {"administrator"}}
	for _, user := range s.Broker.topology.Users {
		want[user.Name] = user.Tags
	}
	if diff := cmp.Diff(want, tags); diff != "" {
		t.Errorf("the broker's users: %s", diff)
	}
	if len(users.Permissions) != 1 || users.Permissions[0].User != adminUser {
		t.Errorf("permissions besides those of the charts: %v", users.Permissions)
	}
	var statements []string
	for _, spec := range s.specs {
		if spec.database {
			statements = append(statements, databaseStatements(spec.name, composePassword)...)
		}
	}
	have := strings.Split(strings.TrimSuffix(c.Configs["databases"].Content, ";\n"), ";\n")
	for i := range statements {
		statements[i] = strings.ReplaceAll(statements[i], `"`, "")
	}
	if diff := cmp.Diff(statements, have); diff != "" {
		t.Errorf("the databases: %s", diff)
	}
}

// The image is compiled like those that are released, with the same compiler, and holds every program that is run.
func TestComposeBuildsEveryProgramItRuns(t *testing.T) {
	text := read(t, "hack/compose.Dockerfile")
	programs := map[string]bool{}
	for _, service := range readComposition(t).Services {
		if len(service.Entrypoint) > 0 {
			programs[strings.TrimPrefix(service.Entrypoint[0], "/app/")] = true
		}
	}
	words := strings.Fields(text)
	for _, program := range slices.Sorted(maps.Keys(programs)) {
		if !slices.Contains(words, "./services/"+program) && !slices.Contains(words, "./hack/cmd/"+program) {
			t.Errorf("hack/compose.Dockerfile does not build %s", program)
		}
	}
	line := func(file, start string) string {
		_, rest, _ := strings.Cut(read(t, file), "\n"+start)
		rest, _, _ = strings.Cut(rest, "\n")
		return rest
	}
	for _, want := range []string{
		strings.Join(BuildFlags(), " "),
		"FROM golang:" + line("go.work", "toolchain go") + " AS",
		"FROM " + line("services/Dockerfile", "FROM "),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("hack/compose.Dockerfile has no %q", want)
		}
	}
}
