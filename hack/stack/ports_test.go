package stack

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestAPortInUseIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if err := checkFree(port, "orders"); err == nil || !strings.Contains(err.Error(), strconv.Itoa(port)+", needed for orders") {
		t.Errorf("error %v, want one that names port and part", err)
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
