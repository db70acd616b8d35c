package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
	"orderflow.internal/events/books"
	"orderflow.internal/kit/audit"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
)

// outboxMigration made the outbox.
const outboxMigration = "4"

// Ledger is the service's side of the books: what became of each order. Events
// are kept for the retention.
func (s *Store) Ledger(retention time.Duration) audit.Ledger {
	return audit.Ledger{
		Pool: s.pool, Table: "reservations", ID: "order_id",
		Columns: `
  case status
    when 'Reserved' then 'held'
    when 'Released' then 'released'
    when 'Refused' then 'refused'
    else 'none' end as fate`,
		Parts: []audit.Part{{Name: books.PartReservation, Row: `row(order_id, fate, order_created_at is not null,
    order_cancelled_at is not null, case when fate <> 'none' then ` + books.ItemsHash + ` end)`}},
		Events: []audit.Owed{
			{RoutingKey: events.StockReservedKey, At: "created_at", If: "status in ('Reserved', 'Released')"},
			{RoutingKey: events.StockNotAvailableKey, At: "created_at", If: "status = 'Refused'"},
			{RoutingKey: events.StockReleasedKey, At: "updated_at", If: "status = 'Released'"},
		},
		Since: outbox.KeptSince("$3", outboxMigration), Args: []any{retention},
	}
}

// Entries returns what is known of the orders, those that came here.
func (s *Store) Entries(ctx context.Context, ids []uuid.UUID, retention time.Duration) ([]books.Reservation, error) {
	var entries []books.Reservation
	b := &pgx.Batch{}
	told := outbox.QueueTold(b, ids)
	b.Queue(`
with kept as materialized (`+outbox.KeptSince("$2", outboxMigration)+`)
select order_id, status, items, order_created_at is not null, order_cancelled_at is not null,
  created_at >= kept.since, updated_at >= kept.since
from reservations
cross join kept
where order_id = any($1::uuid[])
order by order_id`, ids, retention).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			e := books.Reservation{Events: []books.Event{}}
			var created, updated bool
			if err := rows.Scan(&e.OrderID, &e.Status, &e.Items, &e.Created, &e.Cancelled, &created, &updated); err != nil {
				return err
			}
			for _, event := range told[e.OrderID.String()] {
				e.Events = append(e.Events, books.Event{RoutingKey: event.RoutingKey, Published: event.Published})
			}
			e.Missing = missing(e, created, updated)
			entries = append(entries, e)
		}
		return rows.Err()
	})
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("entries of %d orders: %w", len(ids), err)
	}
	return entries, nil
}

// missing are the events that the outbox should have and has not. Created and
// updated tell whether it still has to have those of these times.
func missing(e books.Reservation, created, updated bool) []string {
	var keys []string
	lacks := func(key string) bool {
		return !slices.ContainsFunc(e.Events, func(event books.Event) bool { return event.RoutingKey == key })
	}
	want := func(expected bool, key string) {
		if expected && lacks(key) {
			keys = append(keys, key)
		}
	}
	reserved := e.Status == books.ReservationReserved || e.Status == books.ReservationReleased
	want(created && reserved, events.StockReservedKey)
	want(created && e.Status == books.ReservationRefused, events.StockNotAvailableKey)
	want(updated && e.Status == books.ReservationReleased, events.StockReleasedKey)
	return keys
}

// stockPage is how many reservations, or products, one statement reads at most: some
// milliseconds' worth, so that nobody waits long behind it.
const stockPage = 4_000

// stockSpare is what a check of the stock may take beyond the time that is meant for
// its reservations.
const stockSpare = 15 * time.Minute

// StockCheck is how far a check of the stock has come.
type StockCheck struct {
	Reservations int64 // read
	Products     int64 // compared, at the end
	Wrong        []books.Stock
}

// CheckStock compares what each product says with what all reservations say,
// both of one moment. It reads at most rate reservations a second, more only if it
// would not end within a time otherwise, and calls progress after each of its
// pages.
//
// All is read in one snapshot, in short statements: so long the tables keep what
// was deleted in them, which costs less than one statement that takes a whole
// processor for as long.
func (s *Store) CheckStock(ctx context.Context, rate int, within time.Duration,
	progress func(StockCheck) error) (check StockCheck, err error) {
	defer fault.Wrap(&err, "check the stock")
	ctx, cancel := context.WithTimeout(postgres.Patient(ctx), within+stockSpare)
	defer cancel()
	tx, err := s.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return check, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it has written nothing

	var reservations float64 // about; 0 or less before the first vacuum
	if err := tx.QueryRow(ctx, "select reltuples from pg_class where oid = 'reservations'::regclass").
		Scan(&reservations); err != nil {
		return check, err
	}
	rate = max(rate, int(reservations/within.Seconds()))
	held := map[uuid.UUID]int64{}
	page := min(int64(stockPage), int64(rate))
	started := time.Now()
	for after, more := uuid.Nil, true; more; {
		var n int64
		if after, n, err = addHeld(ctx, tx, after, page, held); err != nil {
			return check, err
		}
		more = n == page
		check.Reservations += n
		if err := progress(check); err != nil {
			return check, err
		}
		due := started.Add(time.Duration(check.Reservations) * time.Second / time.Duration(rate))
		if !run.Sleep(ctx, time.Until(due)) {
			return check, ctx.Err()
		}
	}
	err = compareStock(ctx, tx, held, &check, progress)
	return check, err
}

// addHeld adds up what the next reservations hold, up to limit of them, and
// returns the last and how many there were.
func addHeld(ctx context.Context, tx pgx.Tx, after uuid.UUID, limit int64,
	held map[uuid.UUID]int64) (last uuid.UUID, n int64, err error) {
	var end, product *uuid.UUID
	var quantity *int64
	err = postgres.Each(ctx, tx, []any{&end, &n, &product, &quantity}, func() error {
		if product != nil {
			held[*product] += *quantity
		}
		return nil
	}, `
with page as materialized (
  select order_id, status, items
  from reservations
  where order_id > $1
  order by order_id
  limit $2),
ends as (
  select count(*) as n, (select order_id from page order by order_id desc limit 1) as last
  from page)
select ends.last, ends.n, i.product::uuid, i.quantity
from ends
left join (
  select item->>'productId' as product, sum((item->'quantity')::bigint)::bigint as quantity
  from (
    select jsonb_path_query(items, '$[*]') as item
    from page
    where status = 'Reserved') as each
  group by 1) as i on true`, after, limit)
	if end != nil {
		last = *end
	}
	return last, n, err
}

// compareStock adds to check the products whose numbers do not add up, and how many
// products there are. It empties held.
func compareStock(ctx context.Context, tx pgx.Tx, held map[uuid.UUID]int64, check *StockCheck,
	progress func(StockCheck) error) error {
	for after, more := uuid.Nil, true; more; {
		var p books.Stock
		n := 0
		err := postgres.Each(ctx, tx, []any{&p.ProductID, &p.Stock, &p.Reserved, &p.Supplied}, func() error {
			n++
			p.Held = held[p.ProductID]
			delete(held, p.ProductID)
			if p.Reserved != p.Held || p.Stock+p.Reserved != p.Supplied {
				check.Wrong = append(check.Wrong, p)
			}
			return nil
		}, `
select product_id, stock, reserved, coalesce(supplied, stock + reserved)
from products
where product_id > $1
order by product_id
limit $2`, after, stockPage)
		if err != nil {
			return err
		}
		after, more = p.ProductID, n == stockPage
		check.Products += int64(n)
		if err := progress(*check); err != nil {
			return err
		}
	}
	for id, quantity := range held {
		check.Wrong = append(check.Wrong, books.Stock{ProductID: id, Held: quantity, Unknown: true})
	}
	slices.SortFunc(check.Wrong, func(a, b books.Stock) int { return bytes.Compare(a.ProductID[:], b.ProductID[:]) })
	return nil
}
