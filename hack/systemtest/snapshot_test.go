package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"orderflow.internal/hack/internal/bench"
	"orderflow.internal/hack/stack"
)

// envSnapshot is how long the snapshots stay open instead: 6m takes six minutes.
const envSnapshot = "ORDERFLOW_TEST_SNAPSHOT"

// TestEnduringSnapshot keeps an old snapshot open in each database while orders come in, as a forgotten transaction
// does: vacuum removes nothing, and everything that is updated or deleted stays where searches have to step over it.
// Orders are placed as fast as before, memory stays flat, and a metric tells. hack/test endurance does that for an
// hour.
func TestEnduringSnapshot(t *testing.T) {
	s := start(t, variant{})
	lasts, rate, total := enduring(8*time.Second, 30*time.Second), enduring(40.0, 300.0),
		enduring(16*time.Second, time.Hour)
	if raw := os.Getenv(envSnapshot); raw != "" {
		var err error
		if total, err = time.ParseDuration(raw); err != nil {
			t.Fatal(err)
		}
	}
	parts := int(total / lasts)
	var snapshots []pgx.Tx
	for _, name := range withDatabase {
		snapshots = append(snapshots, oldSnapshot(t, s, name))
	}
	var first, last float64
	memories := make(map[string][]float64)
	for part := range parts {
		o := steady(s, rate, lasts)
		report, err := bench.Run(t.Context(), o)
		if err := errors.Join(err, report.Err()); err != nil {
			t.Fatal(err)
		}
		if last = report.Latency.P99; part < 2 {
			first = max(first, last)
		}
		for _, name := range all {
			memories[name] = append(memories[name], memory(t, s.Service(name)))
		}
		t.Logf("after %s: p50 %.1f ms, p99 %.1f ms, %d dead rows in pending_orders",
			time.Duration(part+1)*lasts, report.Latency.P50, last, deadRows(t, s, "pending_orders"))
	}
	if endures() {
		if last > 2*first {
			t.Errorf("p99 is %.1f ms in the end, %.1f in the first minute", last, first)
		}
		for _, name := range all {
			flat(t, name, memories[name])
		}
	}
	orders := parts * int(rate*lasts.Seconds())
	eventually(t, time.Minute, "the metric shows dead rows", func(context.Context) error {
		if n := deadRows(t, s, "pending_orders"); n < orders {
			return fmt.Errorf("%d of %d orders that are pending no more", n, orders)
		}
		return nil
	})
	for _, tx := range snapshots {
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := pgx.Connect(t.Context(), s.Postgres.ServiceURL("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), "vacuum pending_orders"); err != nil { // as the server does within a minute
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the metric tells that they are gone", func(context.Context) error {
		if n := deadRows(t, s, "pending_orders"); n > min(2000, orders/10) {
			return fmt.Errorf("%d dead rows", n)
		}
		return nil
	})
}

// oldSnapshot opens a transaction whose view of a database does not change any more.
func oldSnapshot(t *testing.T, s *stack.Stack, name string) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), administer(s, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err == nil {
		_, err = tx.Exec(t.Context(), "select")
	}
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// deadRows is the metric of a table of orders.
func deadRows(t *testing.T, s *stack.Stack, table string) int {
	t.Helper()
	m, err := readMetrics(t.Context(), s.Service("orders"))
	if err != nil {
		t.Fatal(err)
	}
	return m.sum("orderflow_db_dead_rows",
		func(labels string) bool { return strings.Contains(labels, `db_collection_name="`+table+`"`) })
}
