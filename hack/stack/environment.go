package stack

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"orderflow.internal/hack/internal/api"
)

// environment is all the service sees: what the stack knows, then what the options and Setenv add.
func (s *Service) environment() []string {
	o := s.stack.Options
	values := map[string]string{
		"PATH":       os.Getenv("PATH"),
		"TZ":         "UTC",
		"HTTP_ADDR":  address(s.port),
		"ADMIN_ADDR": address(s.admin),
		"LOG_FORMAT": "json",
	}
	switch {
	case s.spec.database:
		values["DATABASE_URL"] = s.stack.Postgres.ServiceURL(s.spec.name)
		values["AMQP_URL"] = s.stack.Broker.ServiceURL(s.spec.name)
	case s.spec.name == clientName:
		values["CLIENT_DIR"] = o.Pages
	case s.spec.name == "audit":
		values["AUTH_CLIENT_ID"], values["AUTH_CLIENT_SECRET"] = "orderflow-machine", api.MachineSecret
	case s.spec.name == idpName:
		values["IDP_ISSUER"], values["IDP_MACHINE_SECRET"] = s.stack.IssuerURL(), api.MachineSecret
	default:
		values["TRUST_TRACE_CONTEXT"] = "true" // nobody but the machine's user sends requests
	}
	for _, spec := range s.stack.specs {
		if slices.Contains(s.spec.calls, spec.name) {
			values[strings.ToUpper(spec.name)+"_URL"] = strings.Join(s.stack.upstreams(spec, s.spec), ",")
		}
	}
	if o.Auth {
		values["AUTH_ISSUER"] = s.stack.IssuerURL()
	}
	if s.stack.Jaeger != nil {
		values["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://" + o.ports().OTLPAddress()
		if s.spec.name == clientName {
			values["JAEGER_URL"] = s.stack.Jaeger.URL()
		}
	}
	for _, more := range []map[string]string{o.Env, o.ServiceEnv[s.spec.name], s.env} {
		maps.Copy(values, more)
	}
	env := make([]string, 0, len(values))
	for key, value := range values {
		env = append(env, key+"="+value)
	}
	slices.Sort(env)
	return env
}

// upstreams are the addresses of a service's instances: the gateway spreads its calls over all, the others call one.
func (s *Stack) upstreams(spec, caller serviceSpec) []string {
	instances := 1
	if caller.name == "gateway" {
		instances = s.Options.instances(spec.name)
	}
	var urls []string
	for i := 1; i <= instances; i++ {
		port, _ := s.Options.ports().portsOf(spec, i)
		urls = append(urls, "http://"+address(port))
	}
	return urls
}

// EnvironmentDir holds a file per service with the environment it runs in, for one that is started from an editor.
func (s *Stack) EnvironmentDir() string { return filepath.Join(s.Dir, "env") }

// WriteEnvironments writes the files of EnvironmentDir; passwords are in them, so only this user may read them.
func (s *Stack) WriteEnvironments() error {
	if err := os.MkdirAll(s.EnvironmentDir(), 0o700); err != nil {
		return err
	}
	for _, service := range s.services {
		text := strings.Join(service.environment(), "\n") + "\n"
		if err := os.WriteFile(filepath.Join(s.EnvironmentDir(), service.Name()+".env"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
