package stack

import (
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
)

// Offsets of the stacks that may run side by side. All ports stay below 32768, where the kernel hands out
// ports of its own: a restarted server must find its port free.
const (
	OffsetUp     = 0
	OffsetTest   = 100
	OffsetClient = 150
	OffsetBench  = 250
	OffsetLab    = 350
	OffsetHack   = 500
	OffsetSystem = 1600

	// SystemDistance is between the stacks of system tests that run at the same time.
	SystemDistance = 150
)

// Ports of one stack; all on the loopback interface.
type Ports struct {
	Postgres     int
	AMQP         int
	Management   int
	Metrics      int // RabbitMQ's, for Prometheus
	Distribution int // Erlang distribution, for rabbitmqctl
	Epmd         int // Erlang port mapper
	Jaeger       int // its pages
	JaegerGRPC   int // its gRPC API, which it cannot do without
	OTLP         int // where Jaeger, or a test, listens for telemetry
	offset       int
}

// PortsAt returns the ports of the stack at the offset.
func PortsAt(offset int) Ports {
	return Ports{
		Postgres:     5442 + offset,
		AMQP:         5682 + offset,
		Management:   15682 + offset,
		Metrics:      15702 + offset,
		Distribution: 25682 + offset,
		Epmd:         4379 + offset,
		Jaeger:       16686 + offset,
		JaegerGRPC:   16685 + offset,
		OTLP:         4319 + offset,
		offset:       offset,
	}
}

// portsOf returns the public and the admin port of a service's instance, counted from 1.
func (p Ports) portsOf(spec serviceSpec, instance int) (public, admin int) {
	public = spec.port + p.offset + 10*(instance-1)
	return public, public + 1000
}

// OTLPAddress is host and port of OTLP.
func (p Ports) OTLPAddress() string { return address(p.OTLP) }

// address is the loopback address of a port.
func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// checkFree returns an error unless the port can be listened on.
func checkFree(port int, what string) error {
	// A process that is forked meanwhile holds the port until it has become another program: no forks.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", address(port))
	if err != nil {
		return fmt.Errorf("port %d, needed for %s: %w (ss -ltnp shows who uses it): stop that, "+
			"or choose other ports with --port-offset", port, what, err)
	}
	return l.Close()
}

// waitFree waits until a port that a stopped or killed process held can be used again.
func waitFree(port int, what string) error {
	const patience = 3 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := checkFree(port, what)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
