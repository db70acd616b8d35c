package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Up is the name of the stack that hack/up runs.
const Up = "up"

// Options say what a stack is made of. The zero value of everything but Root and Name is useful.
type Options struct {
	Root   string // of the repository
	Name   string // the stack's folder is <Root>/.run/<Name>
	Offset int    // added to every port

	RabbitMQImage string // run the broker from this image with Docker
	Definitions   string // topology file; default the one in services/events/topology

	Auth   bool   // with an identity provider: everybody must say who they are
	Jaeger bool   // with a Jaeger, run by Docker
	Pages  string // folder of the web client's built pages; without it there is no client

	Race       bool                         // services with the race detector
	Instances  map[string]int               // of a service, counted by name; default 1
	Env        map[string]string            // for every service
	ServiceEnv map[string]map[string]string // for one service, by name

	Detach bool `json:"-"` // processes outlive this program
	// Output gets what the services log, besides their files; nil for nothing more. Not with Detach.
	Output io.Writer `json:"-"`
	// Step runs a part of starting or stopping and may tell about it; nil just runs it.
	Step func(ctx context.Context, what string, part func(context.Context) error) error `json:"-"`
}

func (o Options) ports() Ports { return PortsAt(o.Offset) }
func (o Options) dir() string  { return filepath.Join(o.Root, ".run", o.Name) }

func (o Options) instances(service string) int { return max(1, o.Instances[service]) }

func (o Options) validate() error {
	if p := o.ports(); o.Offset < 0 || p.Distribution >= 32768 {
		return fmt.Errorf("--port-offset %d: must be 0 to %d", o.Offset, 32767-PortsAt(0).Distribution)
	}
	return nil
}

// Stack is one private system: broker, database server and services.
type Stack struct {
	Options  Options
	Dir      string
	Postgres *Postgres
	Broker   *Broker
	Jaeger   *Jaeger // nil when there is none
	secrets  secrets
	specs    []serviceSpec // of the services
	services []*Service
	lock     *os.File
}

// New prepares a stack; nothing runs yet except what an earlier run left, and Open reads that one's options until
// StartServers. New fails with an *InUseError while another program holds the stack.
func New(o Options) (*Stack, error) {
	if err := errors.Join(supported(), o.validate()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.dir(), 0o755); err != nil {
		return nil, err
	}
	lock, err := hold(o.dir())
	if err != nil {
		return nil, err
	}
	s, err := build(o)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	return s, nil
}

// Open looks at a stack that some run has started, without taking hold of it; os.ErrNotExist means there is none.
func Open(root, name string) (*Stack, error) {
	o := Options{Root: root, Name: name}
	text, err := os.ReadFile(filepath.Join(o.dir(), "stack.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, fmt.Errorf("%s: %w", o.dir(), err)
	}
	o.Root, o.Name = root, name // the folder may have been moved
	return build(o)
}

// ErrNotRunning means that hack/up runs nothing.
var ErrNotRunning = errors.New("nothing is running: hack/up starts it")

// Running is what hack/up runs, or an error with ErrNotRunning.
func Running(root string) (*Stack, error) {
	s, err := Open(root, Up)
	if errors.Is(err, os.ErrNotExist) || err == nil && !s.Running() {
		return nil, ErrNotRunning
	}
	return s, err
}

func build(o Options) (*Stack, error) {
	dir := o.dir()
	passwords, err := o.readSecrets()
	if err != nil {
		return nil, err
	}
	topology, err := o.topology()
	if err != nil {
		return nil, err
	}
	all, err := allServices(o.Root)
	if err != nil {
		return nil, err
	}
	s := &Stack{Options: o, Dir: dir, Jaeger: newJaeger(o), specs: o.choose(all), secrets: passwords}
	s.Postgres = &Postgres{
		process: newProcess(dir, "postgres"), port: o.ports().Postgres, secrets: passwords, dir: dir, detach: o.Detach,
		specs: s.specs,
	}
	s.Broker = &Broker{process: newProcess(dir, "rabbitmq"), opts: o, dir: dir, secrets: passwords, topology: topology}
	s.Broker.driver = packageBroker{epmd: newProcess(dir, "epmd")}
	if o.RabbitMQImage != "" {
		s.Broker.driver = imageBroker{newContainer("rabbitmq", dir, o.RabbitMQImage)}
	}
	for _, spec := range s.specs {
		for i := 1; i <= o.instances(spec.name); i++ {
			s.services = append(s.services, newService(s, spec, i))
		}
	}
	return s, nil
}

// saveOptions keeps for Open what the stack is started with.
func (s *Stack) saveOptions() error {
	text, err := json.MarshalIndent(s.Options, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(s.Dir, "stack.json"), text)
}

// Close lets go of the stack's folder; what is running keeps running.
func (s *Stack) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Service returns the first instance of a service.
func (s *Stack) Service(name string) *Service { return s.Instance(name, 1) }

// Instance returns an instance of a service, counted from 1.
func (s *Stack) Instance(name string, number int) *Service {
	for _, service := range s.services {
		if service.spec.name == name && service.number == number {
			return service
		}
	}
	panic(fmt.Sprintf("stack: no instance %d of %q", number, name)) // a mistake of the caller, like an index out of range
}

// Services returns all instances of all services.
func (s *Stack) Services() []*Service { return slices.Clone(s.services) }

// Unit is a part of a stack that runs by itself.
type Unit interface {
	Name() string
	Start(ctx context.Context) error     // returns when ready
	Stop(ctx context.Context) error      // cleanly
	Kill(ctx context.Context) error      // with SIGKILL
	Ready(ctx context.Context) error     // nil when it is ready now
	WaitReady(ctx context.Context) error // returns when it is ready
	Usage() (Usage, error)
	PID() int  // 0 when it does not run
	Port() int // the main one
	Log() string
	Started() time.Time
	Done() <-chan struct{}
}

// Units returns every part, in the order of starting.
func (s *Stack) Units() []Unit {
	units := []Unit{s.Postgres, s.Broker}
	if s.Jaeger != nil {
		units = append(units, s.Jaeger)
	}
	for _, service := range s.services {
		units = append(units, service)
	}
	return units
}

// Running reports whether any process of the stack runs.
func (s *Stack) Running() bool {
	return slices.ContainsFunc(s.Units(), func(u Unit) bool { return u.PID() != 0 })
}

// BaseURL is the gateway's address.
func (s *Stack) BaseURL() string { return s.Service("gateway").URL() }

// IssuerURL is the identity provider's address, which is its name as well.
func (s *Stack) IssuerURL() string {
	return fmt.Sprintf("http://localhost:%d", s.Service(idpName).Port())
}

func (s *Stack) step(ctx context.Context, what string, part func(context.Context) error) error {
	if s.Options.Step == nil {
		return part(ctx)
	}
	return s.Options.Step(ctx, what, part)
}
