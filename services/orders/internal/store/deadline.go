package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/orders/internal/order"
)

// overdueAtOnce bounds the orders that one transaction times out.
const overdueAtOnce = 500

// TimeOut cancels the orders that are due and got no stock answer, and returns
// how many those were. Replicas that do it at the same time share the work. Each
// cancellation belongs to the trace of the request that placed the order.
func (s *Store) TimeOut(ctx context.Context) (int, error) {
	for total := 0; ; {
		timedOut, more, err := s.timeOutSome(ctx)
		if err != nil {
			return total, fmt.Errorf("time out orders: %w", err)
		}
		total += timedOut
		if !more {
			return total, nil
		}
	}
}

// timeOutSome times out at most overdueAtOnce orders and forgets those among the
// overdue ones that are not Pending, which only a hand on the tables can cause.
// There may be more, unless other replicas have all that are due in hand.
func (s *Store) timeOutSome(ctx context.Context) (timedOut int, more bool, err error) {
	forgotten := 0
	first := &pgx.Batch{}
	from := s.overdue.start(s.limits.bound)
	if from.IsZero() { // two statements search, and the server is to end them before searchTimeout does
		first.Queue(fmt.Sprintf("set local statement_timeout = %d", (searchTimeout/2 - time.Second).Milliseconds()))
	}
	due := findDue(first, from)
	overdue := lockDue(first, from)
	took := readTook(first)
	var changes []change
	var spans []trace.Span
	defer func() {
		for _, span := range spans {
			span.End()
		}
	}()
	err = postgres.TxBatch(searching(ctx, from), s.pool, first, func() (*pgx.Batch, error) {
		for i := range overdue.orders {
			o := &overdue.orders[i].order
			if !o.TimeOut(overdue.at) {
				continue
			}
			cause, span := startTimeOut(ctx, overdue.orders[i].trace, o)
			spans = append(spans, span)
			var err error
			if changes, err = appendChange(changes, cause, o, nil); err != nil {
				return nil, err
			}
		}
		last := &pgx.Batch{}
		if len(changes) < len(due.ids) {
			forgetAnswered(last, due.ids, &forgotten)
		}
		return last, writeChanges(last, changes)
	})
	s.overdue.searched(from, s.clock.Now(), *took, err)
	if err != nil {
		return 0, false, err
	}
	s.tell(changes)
	for _, c := range changes {
		slog.DebugContext(c.cause, "order timed out", "order_id", c.order.ID)
	}
	if len(changes) > 0 { // one line: in an outage there are thousands
		slog.WarnContext(ctx, "orders timed out: no stock answer came", "orders", len(changes), "first_order_id",
			changes[0].order.ID)
	}
	return len(changes), len(due.ids) == overdueAtOnce && len(changes)+forgotten > 0, nil
}

// bound is when the first order becomes due, or somewhat earlier: a search that
// begins there does not walk through the index entries of orders that were
// pending once. Vacuum cannot remove those while a transaction is old, and then
// there are millions. Now and then a search begins before it: hands change due
// times, and other replicas may have a shorter deadline.
type bound struct {
	mu    sync.Mutex
	since time.Time
	all   time.Time // when one search is to begin before it
}

// boundMargin is more than any transaction takes that adds pending orders.
const boundMargin = time.Minute

// start returns where to begin: a time by the database's clock. What is known
// is believed for a while.
func (b *bound) start(believed time.Duration) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); believed == 0 || now.After(b.all) {
		b.all = now.Add(believed)
		return time.Time{}
	}
	return b.since
}

// now returns where others may begin who only look.
func (b *bound) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since
}

const (
	// searchShare: about a hundredth of the time goes into searches from the very
	// beginning, and not much more where one takes longer than longestBelief allows for.
	searchShare   = 100
	longestBelief = 10 * time.Minute
	// searchTimeout is what such a search may take, with all that vacuum cannot remove.
	searchTimeout = 20 * time.Second
)

// searching gives a search that begins at from the time that it may need.
func searching(ctx context.Context, from time.Time) context.Context {
	if !from.IsZero() {
		return ctx
	}
	return postgres.Patient(ctx)
}

// searched notes how long a search that began at from took the server, which
// says so itself: an answer that was long on its way, or that never came, cost it
// nothing. One that the server has ended leaves a bound if there was none, or each
// of the next would be ended as well: what became due before now, by the
// database's clock, waits for a search that is not.
func (b *bound) searched(from, now time.Time, took time.Duration, err error) {
	if !from.IsZero() {
		return
	}
	rest := min(searchShare*took, longestBelief)
	var pg *pgconn.PgError
	limited := errors.As(err, &pg) && pg.Code == "57014" // by the server's statement_timeout
	if limited {
		rest = longestBelief
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if again := time.Now().Add(rest); again.After(b.all) {
		b.all = again
	}
	if limited && b.since.IsZero() {
		b.since = now.Add(-boundMargin)
	}
}

// readTook queues the reading of how long the transaction has taken, which is 0 where it fails.
func readTook(b *pgx.Batch) *time.Duration {
	took := new(time.Duration)
	b.Queue("select clock_timestamp() - now()").QueryRow(func(row pgx.Row) error { return row.Scan(took) })
	return took
}

// first notes when the first order becomes due.
func (b *bound) first(due time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = due.Add(-boundMargin)
}

type dueOrders struct{ ids []uuid.UUID }

// findDue queues the reading of which orders are due; before from there are none.
func findDue(b *pgx.Batch, from time.Time) *dueOrders {
	due := &dueOrders{}
	b.Queue(`
select order_id
from pending_orders
where due >= $1
  and due <= now()
order by due
limit $2`, from, overdueAtOnce).Query(func(rows pgx.Rows) (err error) {
		due.ids, err = pgx.AppendRows(due.ids, rows, pgx.RowTo[uuid.UUID])
		return err
	})
	return due
}

type overdueOrders struct {
	orders []overdueOrder
	at     time.Time // the transaction's, by the database's clock
}

type overdueOrder struct {
	order order.Order
	trace []byte
}

// lockDue queues the locking and reading of the orders that are due, except for
// those that someone else is changing.
func lockDue(b *pgx.Batch, from time.Time) *overdueOrders {
	overdue := &overdueOrders{}
	b.Queue(`
select `+columns+`, trace, now()
from orders
where order_id = any(array(
  select order_id
  from pending_orders
  where due >= $1
    and due <= now()
  order by due
  limit $2))
order by order_id
for update skip locked`, from, overdueAtOnce).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var o overdueOrder
			if err := scanInto(rows, &o.order, &o.trace, &overdue.at); err != nil {
				return err
			}
			overdue.orders = append(overdue.orders, o)
		}
		return rows.Err()
	})
	return overdue
}

// forgetAnswered queues the removal of those among the orders that are not
// Pending, or not there at all.
func forgetAnswered(b *pgx.Batch, ids []uuid.UUID, forgotten *int) {
	byIndex(b)
	b.Queue(`
delete from pending_orders p
where p.order_id = any($1)
  and not exists (
    select from orders o
    where o.order_id = p.order_id
      and o.status = 'Pending')`, ids).Exec(func(tag pgconn.CommandTag) error {
		*forgotten = int(tag.RowsAffected())
		return nil
	})
}

// startTimeOut starts the span of one timed out order within the trace that
// placed it.
func startTimeOut(ctx context.Context, stored []byte, o *order.Order) (context.Context, trace.Span) {
	if stored != nil {
		var err error
		if ctx, err = withTrace(ctx, stored); err != nil {
			slog.ErrorContext(ctx, "the stored trace context of an order cannot be read", "order_id", o.ID, "error", err)
		}
	}
	return otel.Tracer(scope).Start(ctx, "time out order", trace.WithAttributes(
		attribute.String("orderflow.order.id", o.ID.String())))
}

// runTimeOuts times orders out, about every second or, with a short deadline,
// more often.
func (s *Store) runTimeOuts(ctx context.Context) {
	_ = run.Every(ctx, run.Job{
		Name:     "time out orders",
		Interval: max(min(time.Second, s.deadline/4), 10*time.Millisecond),
		Timeout:  searchTimeout,
		Do: func(ctx context.Context) error {
			_, err := s.TimeOut(ctx)
			return err
		},
	})
}
