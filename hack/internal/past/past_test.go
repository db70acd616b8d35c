package past

import (
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What an order lived through is in sequence, ended before now, and every fate is met; the same seed makes it again.
func TestOrdersOfThePastHaveEnded(t *testing.T) {
	t.Parallel()
	url := os.Getenv("ORDERFLOW_TEST_DATABASE_URL")
	if url == "" {
		t.Fatal("ORDERFLOW_TEST_DATABASE_URL is required: run hack/test hack")
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	o := Options{Orders: 20_000, Days: 2, Customers: 50, Products: 10, Retention: 24 * time.Hour, Seed: 7}
	args := o.arguments(time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC))
	args["first"], args["last"] = 0, o.Orders-1
	var digests []string
	for range 2 {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), pastSQL, pgx.QueryExecModeSimpleProtocol, args); err != nil {
			t.Fatal(err)
		}
		for question, want := range map[string]int{
			"select count(distinct order_id) from past": o.Orders,
			"select count(distinct fate) from past":     5,
			`select count(*) from past where customer_id is null or taken < created or answered < taken or cancelled < created
  or released < greatest(taken, cancelled) or greatest(updated, taken, released) >= @now`: 0,
			"select count(*) from past where (fate = 'timed out') <> (answered is null)":                                 0,
			"select count(*) from past where (fate = 'confirmed') <> (cancelled is null and released is null)":           0,
			"select count(*) from past where json_array_length(items) not between 1 and 3":                               0,
			"select count(*) from past, json_array_elements(items) as i where (i->>'quantity')::int not between 1 and 5": 0,
			`select count(*) from (select from past, json_array_elements(items) as i
  group by order_id, i->>'productId' having count(*) > 1) as twice`: 0,
			"select (select count(distinct i->>'productId') from past, json_array_elements(items) as i)": o.Products,
		} {
			var got int
			err := tx.QueryRow(t.Context(), question, pgx.QueryExecModeSimpleProtocol, args).Scan(&got)
			if err != nil || got != want {
				t.Errorf("%s: %d, want %d, %v", question, got, want, err)
			}
		}
		var digest string
		if err := tx.QueryRow(t.Context(), "select md5(string_agg(p::text, '' order by order_id)) from past as p").
			Scan(&digest); err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if digests[0] != digests[1] {
		t.Error("equal seeds made other orders")
	}
}
