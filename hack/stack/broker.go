package stack

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"orderflow.internal/hack/topology"
)

// Broker is the stack's RabbitMQ: the distribution's package, or an image run by Docker.
type Broker struct {
	*process
	opts     Options
	dir      string // of the stack
	secrets  secrets
	topology *topology.Definitions
	driver   brokerDriver
}

// brokerDriver is one way to run RabbitMQ.
type brokerDriver interface {
	// prepare makes what a start needs; the definitions carry password hashes.
	prepare(ctx context.Context, b *Broker, definitions []byte) error
	// start begins to run it; stop and kill return when it has ended.
	start(ctx context.Context, b *Broker) error
	stop(ctx context.Context, b *Broker) error
	kill(ctx context.Context, b *Broker) error
	// ctl runs rabbitmqctl at the node.
	ctl(ctx context.Context, b *Broker, args ...string) (string, error)
	// pid is the process whose tree is the broker.
	pid(ctx context.Context, b *Broker) (int, error)
	purge(ctx context.Context, b *Broker) error
}

// Start runs the broker, with the topology of the charts in it, and waits until it takes connections.
func (b *Broker) Start(ctx context.Context) error {
	password := func(user string) string { return b.secrets["rabbitmq-"+user] }
	definitions, err := WithPasswords(*b.topology, password, adminUser)
	if err != nil {
		return err
	}
	if err := b.driver.prepare(ctx, b, definitions); err != nil {
		return err
	}
	if err := b.driver.start(ctx, b); err != nil {
		return err
	}
	return b.WaitReady(ctx)
}

// WaitReady returns when the broker takes AMQP connections and its management API answers.
func (b *Broker) WaitReady(ctx context.Context) error {
	return b.poll(ctx, 100*time.Millisecond, b.Ready)
}

// Ready reports whether the broker serves HTTP, AMQP and each of its queues now: after a start it takes connections
// before its quorum queues have elected their leaders, and a node that is stopped in between may not get them back.
func (b *Broker) Ready(ctx context.Context) error {
	if err := b.API(ctx, http.MethodGet, "/api/whoami", nil, nil); err != nil {
		return err
	}
	config := amqp.Config{Dial: amqp.DefaultDial(3 * time.Second)}
	conn, err := amqp.DialConfig(b.AdminURL(), config)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends a call that hangs
	defer stop()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	for _, queue := range b.topology.Queues {
		if _, err := ch.QueueDeclarePassive(queue.Name, true, false, false, false, nil); err != nil {
			return fmt.Errorf("queue %s: %w", queue.Name, err)
		}
	}
	return nil
}

// Stop shuts the broker down cleanly.
func (b *Broker) Stop(ctx context.Context) error { return b.driver.stop(ctx, b) }

// Kill ends the broker with SIGKILL.
func (b *Broker) Kill(ctx context.Context) error { return b.driver.kill(ctx, b) }

// Ctl runs rabbitmqctl with the arguments at the broker's node and returns its output.
func (b *Broker) Ctl(ctx context.Context, args ...string) (string, error) {
	return b.driver.ctl(ctx, b, args...)
}

// Port takes AMQP connections.
func (b *Broker) Port() int { return b.opts.ports().AMQP }

// PublicURL is the address of the management pages, without a password.
func (b *Broker) PublicURL() string { return "http://" + address(b.opts.ports().Management) }

// Usage returns what the broker's processes have used.
func (b *Broker) Usage() (Usage, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	pid, err := b.driver.pid(ctx, b)
	if err != nil {
		return Usage{}, err
	}
	return usageOf(pid)
}

// Vhost is the virtual host that holds the topology.
func (b *Broker) Vhost() string { return b.topology.Vhosts[0].Name }

// Users are the broker users that the topology names: the services.
func (b *Broker) Users() []string {
	var names []string
	for _, u := range b.topology.Users {
		names = append(names, u.Name)
	}
	return names
}

// AdminURL is the AMQP URL of a user who may do everything.
func (b *Broker) AdminURL() string { return b.ServiceURL(adminUser) }

// ServiceURL is the AMQP URL of a service's own user.
func (b *Broker) ServiceURL(service string) string {
	user := url.UserPassword(service, b.secrets["rabbitmq-"+service])
	u := url.URL{Scheme: "amqp", User: user, Host: address(b.opts.ports().AMQP)}
	// In AMQP URLs the vhost "/" is written %2F, an empty path means no vhost is named.
	return strings.TrimSuffix(u.String(), "/") + "/" + url.PathEscape(b.Vhost())
}

// ManagementURL is the base URL of the management API, administrator's name and password included.
func (b *Broker) ManagementURL() string {
	u := url.URL{
		Scheme: "http", Host: address(b.opts.ports().Management),
		User: url.UserPassword(adminUser, b.secrets["rabbitmq-"+adminUser]),
	}
	return u.String()
}

// MetricsURL is the base URL of /metrics and /metrics/detailed.
func (b *Broker) MetricsURL() string { return "http://" + address(b.opts.ports().Metrics) }

// waitPorts waits until all ports of the broker are free.
func (b *Broker) waitPorts() error {
	p := b.opts.ports()
	for what, port := range map[string]int{
		"RabbitMQ (AMQP)": p.AMQP, "RabbitMQ (management)": p.Management, "RabbitMQ (metrics)": p.Metrics,
		"RabbitMQ (Erlang)": p.Distribution, "RabbitMQ's port mapper": p.Epmd,
	} {
		if err := waitFree(port, what); err != nil {
			return err
		}
	}
	return nil
}

// nodeEnv is the environment of the node and of rabbitmqctl: nothing in it points at an instance of the machine's own.
func (b *Broker) nodeEnv() []string {
	p := b.opts.ports()
	return []string{
		"LANG=C.UTF-8", "TZ=UTC",
		"RABBITMQ_NODENAME=orderflow@localhost",
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", p.Distribution),
		fmt.Sprintf("ERL_EPMD_PORT=%d", p.Epmd),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_LOGS=-",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
	}
}

// config is rabbitmq.conf; the definitions lie at the path given.
func (b *Broker) config(definitions string) string {
	p := b.opts.ports()
	return strings.Join([]string{
		"listeners.tcp.1 = " + address(p.AMQP),
		"management.tcp.ip = 127.0.0.1",
		fmt.Sprintf("management.tcp.port = %d", p.Management),
		"prometheus.tcp.ip = 127.0.0.1",
		fmt.Sprintf("prometheus.tcp.port = %d", p.Metrics),
		"load_definitions = " + definitions,
		"log.console = true",
		"log.console.level = info",
		"log.file = false",
		// A developer's machine has other things to do: half a gigabyte of write-ahead log in memory is for servers.
		"raft.wal_max_size_bytes = 64000000",
		"vm_memory_high_watermark.absolute = 2GB",
		"disk_free_limit.absolute = 500MB",
		"",
	}, "\n")
}

const enabledPlugins = "[rabbitmq_management,rabbitmq_prometheus].\n"

// writeFiles writes the broker's configuration files into a folder. They may be read by others, as the user inside a
// container is: passwords are in them only as salted hashes of random text.
func writeFiles(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
