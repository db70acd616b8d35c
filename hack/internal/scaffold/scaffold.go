// Package scaffold makes a service that consumes events, and takes it away again: its folder in services, from the
// templates in service, and its entries in files that list services, from edits.tmpl.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"orderflow.internal/hack/charts"
)

//go:embed edits.tmpl all:service
var templates embed.FS

// Service is what the templates are filled in with.
type Service struct {
	Name   string
	Port   int // of its HTTP server
	Events []Event
	root   string
}

// Event is one that the service consumes.
type Event struct {
	Name  string // OrderConfirmed
	Key   string // order.confirmed
	Queue string // notifications.order.confirmed
}

// Admin is the port of probes and metrics.
func (s Service) Admin() int { return s.Port + 1000 }

var (
	validName = regexp.MustCompile(`^[a-z][a-z0-9]{1,29}$`)
	// own are names of the system's services, which stay, and of other folders, charts and values that are there.
	own = []string{"orders", "products", "customers", "deadletters", "gateway", "audit", "client", "idp", "kit", "events",
		"e2e",
		"messaging", "postgres", "rabbitmq", "service", "global", "monitoring", "test", "main", "internal", "vendor"}
)

func valid(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q is no name for a service: 2 to 30 lower-case letters and digits, a letter first, "+
			"such as notifications", name)
	}
	if slices.Contains(own, name) {
		return fmt.Errorf("%s is taken by the system itself", name)
	}
	return nil
}

// New returns a service that is not there yet and consumes the events with the routing keys.
func New(root, name string, keys []string) (Service, error) {
	s := Service{Name: name, root: root}
	if err := valid(name); err != nil {
		return s, err
	}
	all, err := charts.Services(root)
	if err != nil {
		return s, err
	}
	if slices.ContainsFunc(all, func(other charts.Service) bool { return other.Name == name }) {
		return s, fmt.Errorf("there is a service %s in charts/orderflow: hack/new service %[1]s --remove takes it away", name)
	}
	if _, err := os.Stat(s.folder()); err == nil {
		return s, fmt.Errorf("services/%s is there already", name)
	}
	s.Port = freePort(all)
	return s, s.consume(keys)
}

// consume finds the events of the routing keys in asyncapi.yaml.
func (s *Service) consume(keys []string) error {
	text, err := os.ReadFile(filepath.Join(s.root, "services", "events", "asyncapi.yaml"))
	if err != nil {
		return err
	}
	var doc struct {
		Channels map[string]struct {
			Address  string
			Messages map[string]any
			Bindings struct{ AMQP struct{ Is string } }
		}
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("asyncapi.yaml: %w", err)
	}
	known := map[string]string{} // events by routing key
	for _, c := range doc.Channels {
		if c.Bindings.AMQP.Is == "routingKey" {
			known[c.Address] = slices.Collect(maps.Keys(c.Messages))[0]
		}
	}
	all := strings.Join(slices.Sorted(maps.Keys(known)), ", ")
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	if len(keys) == 0 {
		return fmt.Errorf("--consumes: name at least one of %s", all)
	}
	for _, key := range keys {
		name, ok := known[key]
		if !ok {
			return fmt.Errorf("--consumes: no event has the routing key %q: there are %s", key, all)
		}
		s.Events = append(s.Events, Event{name, key, s.Name + "." + key})
	}
	return nil
}

// freePort is one that no service has, nor its second to fourth instance.
func freePort(all []charts.Service) int {
	for port := 5006; ; port++ {
		if !slices.ContainsFunc(all, func(s charts.Service) bool {
			return (port-s.Port)%10 == 0 && max(port-s.Port, s.Port-port) < 40
		}) {
			return port
		}
	}
}

func (s Service) folder() string { return filepath.Join(s.root, "services", s.Name) }

// Add writes the service's files, and its entries into others.
func (s Service) Add() error {
	edits, err := s.edits()
	if err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	changed, err := s.edit(edits, edit.insert)
	if err != nil {
		return err
	}
	maps.Copy(changed, files)
	return write(changed)
}

// Remove takes a service away. Its entries go even if somebody has changed them; its folder only goes while it is as
// Add has made it, or by force.
func Remove(root, name string, force bool) error {
	if err := valid(name); err != nil {
		return err
	}
	all, err := charts.Services(root)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(s charts.Service) bool { return s.Name == name })
	if i < 0 {
		return fmt.Errorf("there is no service %s in charts/orderflow", name)
	}
	s := Service{Name: name, Port: all[i].Port, root: root}
	var keys []string
	for _, bound := range all[i].Queues {
		keys = append(keys, bound...)
	}
	if err := s.consume(keys); err != nil {
		return err
	}
	edits, err := s.edits()
	if err != nil {
		return err
	}
	changed, err := s.edit(edits, edit.remove)
	if err != nil {
		return err
	}
	if written, err := s.written(); err != nil || written != "" && !force {
		return errors.Join(err, fmt.Errorf("%s is not as hack/new has made it: --force deletes it", written))
	}
	return errors.Join(write(changed), os.RemoveAll(s.folder()))
}

// written is a file of the service's folder that Add has not made so, if there is one.
func (s Service) written() (path string, err error) {
	made, err := s.files()
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(s.folder(), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		if !bytes.Equal(text, made[file]) {
			path, _ = filepath.Rel(s.root, file)
		}
		return err
	})
	return path, err
}

// files are the service's own, by path.
func (s Service) files() (map[string][]byte, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(templates, "service", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := s.fill(path)
		to := filepath.Join(s.folder(), strings.TrimSuffix(strings.TrimPrefix(path, "service/"), ".tmpl"))
		if err == nil && strings.HasSuffix(to, ".go") {
			text, err = format.Source(text)
		}
		files[to] = text
		return err
	})
	return files, err
}

func (s Service) fill(path string) ([]byte, error) {
	t, err := template.New(filepath.Base(path)).Delims("[[", "]]").ParseFS(templates, path)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, s)
	return out.Bytes(), err
}

func write(files map[string][]byte) error {
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
