package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/events"
	"orderflow.internal/products/internal/product"
	"orderflow.internal/products/internal/store"
)

var ignoreTimes = cmpopts.IgnoreTypes(time.Time{})

func expect(t testing.TB, f *fixture, want ...any) {
	t.Helper()
	if diff := cmp.Diff(want, f.told(t), ignoreTimes); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func stockReserved(orderID uuid.UUID, items ...product.Item) events.StockReserved {
	e := events.StockReserved{OrderID: orderID, Currency: "EUR"}
	for _, i := range items {
		e.Items = append(e.Items, events.PricedItem{ProductID: i.ProductID, Quantity: i.Quantity, UnitPriceCents: 2499})
	}
	return e
}

func notAvailable(orderID, productID uuid.UUID, requested, available int) events.StockNotAvailable {
	return events.StockNotAvailable{OrderID: orderID, Items: []events.Shortage{
		{ProductID: productID, RequestedQuantity: requested, AvailableQuantity: available},
	}}
}

func TestReserve(t *testing.T) {
	t.Parallel()

	t.Run("a batch is served in its order of arrival", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		f.create(t, plate, 10)
		a, b, c, d := uuid.New(), uuid.New(), uuid.New(), uuid.New()
		f.reserve(t,
			created(t, a, item(plate, 1), item(cup, 6)),
			created(t, b, item(cup, 6), item(plate, 1)),
			created(t, c, item(cup, 4)),
			created(t, d, item(ghost, 1)))
		expect(t, f,
			stockReserved(a, item(plate, 1), item(cup, 6)),
			notAvailable(b, cup, 6, 4),
			stockReserved(c, item(cup, 4)),
			notAvailable(d, ghost, 1, 0))
		f.stock(t, cup, 0, 10)
		f.stock(t, plate, 9, 1)
		for id, want := range map[uuid.UUID]string{a: "Reserved", b: "Refused", c: "Reserved", d: "Refused"} {
			if got := f.status(t, id); got != want {
				t.Errorf("order %s is %s, want %s", id, got, want)
			}
		}
	})

	t.Run("a message that comes again changes nothing", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		reserved, refused := created(t, uuid.New(), item(cup, 6)), created(t, uuid.New(), item(cup, 5))
		f.reserve(t, reserved, refused)
		f.told(t)
		// By now the refused one would fit.
		if _, err := f.Restock(t.Context(), cup, nil, 100); err != nil {
			t.Fatal(err)
		}
		f.reserve(t, refused, reserved)
		f.reserve(t, refused)
		expect(t, f)
		f.stock(t, cup, 104, 6)
	})

	t.Run("an order that is in a batch twice is served once", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		order := created(t, uuid.New(), item(cup, 2))
		again := created(t, order.ID, item(cup, 2))
		f.reserve(t, order, again)
		f.reserve(t, created(t, order.ID, item(cup, 2)))
		expect(t, f, stockReserved(order.ID, item(cup, 2)))
		f.stock(t, cup, 8, 2)
	})

	t.Run("an order that has expired is marked, and holds up nobody", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		f.create(t, plate, 10)
		at := now(t, f)
		expired, inTime, lately, old := uuid.New(), uuid.New(), uuid.New(), uuid.New()
		until := func(o store.Order, at time.Time) store.Order { o.ExpiresAt = at; return o }
		// Somebody has the product of the expired order locked.
		tx, err := f.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := tx.Exec(t.Context(), "select from products where product_id = $1 for update", plate); err != nil {
			t.Fatal(err)
		}
		f.reserve(t,
			until(created(t, expired, item(plate, 1), item(cup, 1)), at.Add(-time.Minute)),
			until(created(t, inTime, item(cup, 2)), at.Add(time.Minute)),
			until(created(t, lately, item(cup, 3)), at.Add(-time.Second)), // within the margin
			created(t, old, item(cup, 4)))                                 // from before there were expiries
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, f, stockReserved(inTime, item(cup, 2)), stockReserved(lately, item(cup, 3)),
			stockReserved(old, item(cup, 4)))
		f.stock(t, cup, 1, 9)
		f.stock(t, plate, 10, 0)

		f.reserve(t, created(t, expired, item(plate, 1)))
		f.release(t, cancelled(t, expired))
		f.reserve(t, created(t, expired, item(plate, 1)))
		f.release(t, cancelled(t, expired))
		expect(t, f)
		f.stock(t, plate, 10, 0)
		if got := f.status(t, expired); got != "Expired" {
			t.Errorf("the order is %s", got)
		}
	})

	t.Run("a deleted product is unknown", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		if err := f.Delete(t.Context(), cup, nil); err != nil {
			t.Fatal(err)
		}
		id := uuid.New()
		f.reserve(t, created(t, id, item(cup, 2)))
		expect(t, f, notAvailable(id, cup, 2, 0))
	})

	t.Run("an event belongs to the trace of its own message", func(t *testing.T) {
		t.Parallel()
		otel.SetTextMapPropagator(propagation.TraceContext{})
		f := setup(t)
		f.create(t, cup, 10)
		span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2},
			TraceFlags: trace.FlagsSampled})
		order := created(t, uuid.New(), item(cup, 2))
		order.Context = trace.ContextWithSpanContext(t.Context(), span)
		f.reserve(t, created(t, uuid.New(), item(cup, 1)), order)
		want := "00-01000000000000000000000000000000-0200000000000000-01"
		if got := f.committed[1].Trace["traceparent"]; got != want {
			t.Errorf("traceparent %q, want %q", got, want)
		}
		if got := f.committed[0].Trace["traceparent"]; got != "" {
			t.Errorf("its batch mate has traceparent %q", got)
		}
	})

	t.Run("a batch that fails leaves nothing", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		order := created(t, uuid.New(), item(cup, 2))
		// The second round trip fails: somebody else's event has the outbox.
		if _, err := f.pool.Exec(t.Context(),
			"alter table outbox_events add constraint never check (subject = '')"); err != nil {
			t.Fatal(err)
		}
		if err := f.Reserve(t.Context(), one(order)); err == nil {
			t.Fatal("no error")
		}
		if got := f.status(t, order.ID); got != "" {
			t.Errorf("the order is %s", got)
		}
		expect(t, f)
		if _, err := f.pool.Exec(t.Context(), "alter table outbox_events drop constraint never"); err != nil {
			t.Fatal(err)
		}
		f.reserve(t, order)
		f.stock(t, cup, 8, 2)
	})

	t.Run("nothing after the caller has given up", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.Reserve(ctx, one(created(t, uuid.New(), item(cup, 2)))); err == nil {
			t.Fatal("no error")
		}
		expect(t, f)
		f.stock(t, cup, 10, 0)
	})
}

func TestRelease(t *testing.T) {
	t.Parallel()

	t.Run("gives back once", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		f.create(t, plate, 10)
		a, b := uuid.New(), uuid.New()
		f.reserve(t, created(t, a, item(cup, 6), item(plate, 1)), created(t, b, item(cup, 3)))
		f.told(t)

		message := cancelled(t, a)
		f.release(t, message, cancelled(t, a))
		f.release(t, message)
		f.release(t, cancelled(t, a))
		expect(t, f,
			events.StockReleased{OrderID: a, Items: []events.Item{events.Item(item(cup, 6)), events.Item(item(plate, 1))}})
		f.stock(t, cup, 7, 3)
		f.stock(t, plate, 10, 0)
		if got := f.status(t, a); got != "Released" {
			t.Errorf("the order is %s", got)
		}
	})

	t.Run("several orders of one product", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		a, b, c := uuid.New(), uuid.New(), uuid.New()
		f.reserve(t, created(t, a, item(cup, 1)), created(t, b, item(cup, 2)), created(t, c, item(cup, 4)))
		f.release(t, cancelled(t, c), cancelled(t, a))
		f.stock(t, cup, 8, 2)
	})

	t.Run("a refused order has nothing to give back", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 1)
		id := uuid.New()
		f.reserve(t, created(t, id, item(cup, 2)))
		f.told(t)
		f.release(t, cancelled(t, id))
		expect(t, f)
		f.stock(t, cup, 1, 0)
		if got := f.status(t, id); got != "Refused" {
			t.Errorf("the order is %s", got)
		}
	})

	t.Run("before its order it leaves a mark", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		id := uuid.New()
		f.release(t, cancelled(t, id))
		f.reserve(t, created(t, id, item(cup, 2)))
		f.release(t, cancelled(t, id))
		f.reserve(t, created(t, id, item(cup, 2)))
		expect(t, f)
		f.stock(t, cup, 10, 0)
		if got := f.status(t, id); got != "Cancelled" {
			t.Errorf("the order is %s", got)
		}
	})

	t.Run("a product deleted meanwhile takes its units back", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 10)
		id := uuid.New()
		f.reserve(t, created(t, id, item(cup, 4)))
		if err := f.Delete(t.Context(), cup, nil); err != nil {
			t.Fatal(err)
		}
		f.release(t, cancelled(t, id))
		f.stock(t, cup, 10, 0)
	})

	t.Run("fits even when the stock was filled up meanwhile", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.create(t, cup, 1_000_000_000)
		id := uuid.New()
		f.reserve(t, created(t, id, item(cup, 10_000)))
		fillUp(t, f, cup)
		f.release(t, cancelled(t, id))
		f.stock(t, cup, product.MaxStock, 0)
	})
}

func one[T any](v T) []T { return []T{v} }
