package stack

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	OffsetSystem = 400
	OffsetHack   = 500
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

// PortInUse says who holds a port that a stack needs.
type PortInUse struct {
	Port   int
	For    string
	Holder string
}

func (e *PortInUse) Error() string {
	return fmt.Sprintf("port %d, needed for %s, is in use by %s: stop that, or choose other ports with --port-offset",
		e.Port, e.For, e.Holder)
}

// checkFree returns a *PortInUse unless the port can be listened on.
func checkFree(port int, what string) error {
	// A process that is forked meanwhile holds the port until it has become another program: no forks.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", address(port))
	if err == nil {
		return l.Close()
	}
	holder := portHolder(port)
	if holder == "" {
		holder = "a process that this user may not look at (" + err.Error() + ")"
	}
	return &PortInUse{Port: port, For: what, Holder: holder}
}

// portHolder names the process that listens on the port, or "".
func portHolder(port int) string {
	inodes := make(map[string]bool)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // no IPv6 here
		}
		for inode := range listeners(string(text), port) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		return fmt.Sprintf("process %s (%s)", pid, shorten(strings.ReplaceAll(string(command), "\x00", " "), 80))
	}
	return ""
}

// listeners returns the inodes of sockets that listen on the port, from the text of /proc/net/tcp.
func listeners(table string, port int) map[string]bool {
	const stateListen = "0A"
	found := make(map[string]bool)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		_, hexPort, _ := strings.Cut(f[1], ":")
		if n, err := strconv.ParseInt(hexPort, 16, 32); err == nil && int(n) == port {
			found[f[9]] = true
		}
	}
	return found
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

func shorten(s string, limit int) string {
	s = strings.TrimSpace(s)
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
