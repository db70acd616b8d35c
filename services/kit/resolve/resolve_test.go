package resolve_test

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"orderflow.internal/kit/kittest"
	"orderflow.internal/kit/resolve"
)

// A name server that says nothing any more, or an error, costs little time and
// no connection to a host that was found before.
func TestTheLastAnswerServesWhileThereIsNone(t *testing.T) {
	server := kittest.OnlyName(t, "db.test")
	var names resolve.Names
	want := []string{"127.0.0.1"}
	if got, err := names.LookupHost(t.Context(), "db.test."); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	server.Silent.Store(true)
	began := time.Now()
	got, err := names.LookupHost(t.Context(), "db.test.")
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if took := time.Since(began); took > 4*resolve.Patience {
		t.Errorf("it took %s", took)
	}
	if server.Asked() < 3 {
		t.Error("it did not ask again")
	}
}

func TestThatANameDoesNotExistIsAnAnswer(t *testing.T) {
	kittest.OnlyName(t, "db.test")
	var names resolve.Names
	if _, err := names.LookupHost(t.Context(), "db.test."); err != nil {
		t.Fatal(err)
	}
	kittest.OnlyName(t, "other.test")
	_, err := names.LookupHost(t.Context(), "db.test.")
	var dns *net.DNSError
	if !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("%v", err)
	}
}

func TestDialConnectsByNameWhileTheNameServerIsSilent(t *testing.T) {
	server := kittest.OnlyName(t, "db.test")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	var names resolve.Names
	for _, silent := range []bool{false, true} {
		server.Silent.Store(silent)
		conn, err := names.Dial(t.Context(), net.Dialer{Timeout: 5 * time.Second}, "tcp", net.JoinHostPort("db.test.", port))
		if err != nil {
			t.Fatalf("silent %t: %v", silent, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDialToAnUnknownNameFailsInTime(t *testing.T) {
	kittest.OnlyName(t, "db.test").Silent.Store(true)
	var names resolve.Names
	began := time.Now()
	conn, err := names.Dial(t.Context(), net.Dialer{Timeout: 200 * time.Millisecond}, "tcp", "db.test.:1")
	if err == nil {
		t.Fatal("connected", conn.Close())
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}
