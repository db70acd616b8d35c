package stack

import (
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestListeners(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1542 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:1542 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:1543 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
`
	got := listeners(table, 0x1542)
	if len(got) != 1 || !got["111"] {
		t.Errorf("got %v, want the listening socket alone", got)
	}
}

func TestPortInUseNamesTheHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = checkFree(l.Addr().(*net.TCPAddr).Port, "orders")
	var inUse *PortInUse
	if !errors.As(err, &inUse) || !strings.Contains(inUse.Holder, "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("error %v, want one that names this process", err)
	}
}

// Every port of every stack that may run beside another is its own and below those the kernel hands out.
func TestPortsDoNotMeet(t *testing.T) {
	seen := make(map[int]string)
	use := func(port int, what string) {
		if port >= 32768 {
			t.Errorf("%s: port %d is not below 32768", what, port)
		}
		if other, taken := seen[port]; taken {
			t.Errorf("port %d is for %s and %s", port, other, what)
		}
		seen[port] = what
	}
	for _, offset := range []int{OffsetUp, OffsetTest, OffsetClient, OffsetBench, OffsetSystem, OffsetHack} {
		p := PortsAt(offset)
		for name, port := range map[string]int{
			"postgres": p.Postgres, "amqp": p.AMQP, "management": p.Management, "metrics": p.Metrics,
			"distribution": p.Distribution, "epmd": p.Epmd, "otlp": p.OTLP,
			"jaeger": p.Jaeger, "jaeger gRPC": p.JaegerGRPC,
		} {
			use(port, name+"+"+strconv.Itoa(offset))
		}
		for _, spec := range append(slices.Clone(serviceSpecs), clientSpec) {
			for instance := 1; instance <= 2; instance++ {
				public, admin := p.portsOf(spec, instance)
				use(public, spec.name+"+"+strconv.Itoa(offset))
				use(admin, spec.name+" admin+"+strconv.Itoa(offset))
			}
		}
	}
}
