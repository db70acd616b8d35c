package bench

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func testStack(t *testing.T) *Stack {
	t.Helper()
	variable := func(name string) string {
		value := os.Getenv(name)
		if value == "" {
			t.Fatalf("%s is not set: run the tests with hack/test, or point it at a server of your own", name)
		}
		return value
	}
	return &Stack{
		DatabaseURL:   variable("ORDERFLOW_TEST_DATABASE_URL"),
		AMQPURL:       variable("ORDERFLOW_TEST_AMQP_URL"),
		ManagementURL: variable("ORDERFLOW_TEST_MANAGEMENT_URL"),
	}
}

func TestRawLimits(t *testing.T) {
	stack := testStack(t)
	for _, concurrency := range []int{1, 8} {
		r, err := measureRaw(t.Context(), stack, concurrency, 300*time.Millisecond, 100)
		if err != nil {
			t.Fatal(err)
		}
		if r.CommitsPerSecond < 10 || r.MessagesPerSecond < 10 || r.Connections < 1 || r.Connections > concurrency {
			t.Errorf("%+v", r)
		}
		if r.OrdersPerCommit != 100/r.CommitsPerSecond || r.OrdersPerMessage != 100/r.MessagesPerSecond {
			t.Errorf("ratios in %+v", r)
		}
	}
	nothingIsLeft(t, stack)
}

func TestRawLimitsInterrupted(t *testing.T) {
	stack := testStack(t)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if _, err := measureRaw(ctx, stack, 8, time.Minute, 100); err == nil {
		t.Error("no error")
	}
	nothingIsLeft(t, stack)
}

// A concurrency above the server's connections is met with the connections there are.
func TestRawLimitsOfAFullServer(t *testing.T) {
	stack := testStack(t)
	_, conns, err := commitsPerSecond(t.Context(), stack.DatabaseURL, "orderflow_bench_full", 5000, 50*time.Millisecond)
	if err != nil || conns >= 5000 {
		t.Errorf("%d connections, error %v", conns, err)
	}
	nothingIsLeft(t, stack)
}

func TestErrorsDoNotTellPasswords(t *testing.T) {
	t.Parallel()
	bad := Stack{DatabaseURL: "postgres://u:secret@127.0.0.1:1/x", AMQPURL: "amqp://u:secret@127.0.0.1:x", ManagementURL: "http://u:secret@127.0.0.1:1"}
	_, _, dbErr := commitsPerSecond(t.Context(), bad.DatabaseURL, "x", 1, time.Second)
	_, urlErr := messagesPerSecond(t.Context(), &bad, "x", 1, time.Second)
	for _, err := range []error{dbErr, urlErr, manage(t.Context(), bad.ManagementURL, http.MethodGet, "x", ""), manage(t.Context(), "http://u:secret@:x", http.MethodGet, "x", "")} {
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v", err)
		}
	}
}

func nothingIsLeft(t *testing.T, stack *Stack) {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, stack.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var databases int
	if err := conn.QueryRow(ctx, `select count(*) from pg_database where datname like 'orderflow\_bench\_%'`).Scan(&databases); err != nil || databases != 0 {
		t.Errorf("%d databases are left, error %v", databases, err)
	}
	resp, err := http.Get(strings.TrimSuffix(stack.ManagementURL, "/") + "/api/vhosts")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var vhosts []struct{ Name string }
	if err := json.NewDecoder(resp.Body).Decode(&vhosts); err != nil {
		t.Fatal(err)
	}
	for _, v := range vhosts {
		if strings.HasPrefix(v.Name, "orderflow_bench_") {
			t.Errorf("vhost %s is left", v.Name)
		}
	}
}
