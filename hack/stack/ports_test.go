package stack

import (
	"net"
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
	if err := checkFree(port, "orders"); err == nil ||
		!strings.Contains(err.Error(), strconv.Itoa(port)+", needed for orders") {
		t.Errorf("error %v, want one that names port and part", err)
	}
}

// Every port of every stack that may run alongside another is its own and below those the kernel hands out.
func TestPortsDoNotMeet(t *testing.T) {
	all, err := allServices("../..")
	if err != nil {
		t.Fatal(err)
	}
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
	instances := map[int]int{OffsetUp: 2, OffsetTest: 2, OffsetClient: 2, OffsetBench: 2, OffsetHack: 2} // by offset
	for i := range 3 {
		instances[OffsetSystem+i*SystemDistance] = 4
	}
	for offset, instances := range instances {
		p := PortsAt(offset)
		for name, port := range map[string]int{
			"postgres": p.Postgres, "amqp": p.AMQP, "management": p.Management, "metrics": p.Metrics,
			"distribution": p.Distribution, "epmd": p.Epmd, "otlp": p.OTLP,
			"jaeger": p.Jaeger, "jaeger gRPC": p.JaegerGRPC,
		} {
			use(port, name+"+"+strconv.Itoa(offset))
		}
		options := Options{Auth: true, Pages: "pages"}
		if offset >= OffsetSystem { // they have no client
			options = Options{}
		}
		for _, spec := range options.choose(all) {
			for instance := 1; instance <= instances; instance++ {
				public, admin := p.portsOf(spec, instance)
				use(public, spec.name+"+"+strconv.Itoa(offset))
				use(admin, spec.name+" admin+"+strconv.Itoa(offset))
			}
		}
	}
}
