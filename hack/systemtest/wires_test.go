package systemtest

import (
	"net/url"
	"testing"

	"orderflow.internal/hack/internal/proxy"
	"orderflow.internal/hack/stack"
)

// wires are the proxies between each service and its database and each service and the broker. All instances of a
// service share them.
type wires struct {
	database map[string]*proxy.Proxy
	broker   map[string]*proxy.Proxy
}

// wire puts proxies in front of the stack's servers for the rest of the test. The services go through them when they
// are started with what environment returns.
func wire(t testing.TB, s *stack.Stack) *wires {
	t.Helper()
	w := &wires{database: make(map[string]*proxy.Proxy), broker: make(map[string]*proxy.Proxy)}
	for _, name := range withDatabase {
		w.database[name] = proxyTo(t, s.Postgres.ServiceURL(name))
		w.broker[name] = proxyTo(t, s.Broker.ServiceURL(name))
	}
	return w
}

func proxyTo(t testing.TB, target string) *proxy.Proxy {
	t.Helper()
	p, err := proxy.New(mustParse(t, target).Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// environment is for variant.only.
func (w *wires) environment(t testing.TB, s *stack.Stack) map[string]map[string]string {
	t.Helper()
	only := make(map[string]map[string]string)
	for _, name := range withDatabase {
		only[name] = map[string]string{
			"DATABASE_URL": through(t, w.database[name], s.Postgres.ServiceURL(name)),
			"AMQP_URL":     through(t, w.broker[name], s.Broker.ServiceURL(name)),
		}
	}
	return only
}

// through is the URL of a server with the proxy in its place.
func through(t testing.TB, p *proxy.Proxy, target string) string {
	t.Helper()
	u := mustParse(t, target)
	u.Host = p.Addr()
	return u.String()
}

func mustParse(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
