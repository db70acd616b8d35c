package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/orders/internal/order"
)

// Placing is group-committed: the orders that arrive while a transaction runs
// form the next one, so that a commit is shared by as many as there are and
// nobody waits when there is only one.
//
// Under load a batch also waits for company, the longer the more company there
// was the last time. Here is the best place to wait in the whole saga: what is
// stored together is published together and arrives together, so that the
// consumers that follow have large batches without waiting themselves.
const (
	placementQueue    = 1024             // orders waiting to be stored; more are ErrBusy
	placementBatch    = 128              // orders in one transaction
	placementLinger   = time.Millisecond // for company, for each order in the last transaction
	placementLongest  = 24 * time.Millisecond
	placementTimeout  = 5 * time.Second // for one transaction
	placementPatience = 5 * time.Second // an order queued for longer is ErrBusy
)

// KeyLifetime is how long an idempotency key is kept.
const KeyLifetime = 24 * time.Hour

// Key makes a request idempotent. The zero Key makes none of it.
type Key struct {
	Text string
	Hash [sha256.Size]byte // of the canonical request
}

// placement is one order on its way into the database.
type placement struct {
	ctx    context.Context
	order  order.Order
	key    Key
	event  bus.Event
	queued time.Time

	owner uuid.UUID // the order that has the key; order.ID unless this is a replay
	err   error
	done  chan struct{}
}

// Place stores a new order with its OrderCreated, caused by the span in ctx.
// When key was used for the same request before, it stores nothing and returns
// that order as it is now, and replayed. An error means that nothing was
// stored, except that nobody can tell when the connection is lost during
// commit. ErrKeyReused and ErrBusy are told apart.
func (s *Store) Place(ctx context.Context, o order.Order, key Key) (placed order.Order, replayed bool, err error) {
	event, err := createdEvent(ctx, o)
	if err != nil {
		return order.Order{}, false, err
	}
	p := &placement{ctx: ctx, order: o, key: key, event: event, queued: time.Now(), done: make(chan struct{})}
	select {
	case s.placements <- p:
	default:
		return order.Order{}, false, ErrBusy
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return order.Order{}, false, ctx.Err()
	}
	switch {
	case p.err != nil:
		return order.Order{}, false, p.err
	case p.owner != o.ID:
		placed, err = s.Get(ctx, p.owner)
		return placed, true, err
	}
	return o, false, nil
}

// runPlacements stores what Place queues, until ctx is done; what is in hand
// then is still stored.
func (s *Store) runPlacements(ctx context.Context) {
	batch := make([]*placement, 0, placementBatch)
	for {
		batch = s.gather(ctx, batch)
		if len(batch) == 0 {
			return
		}
		s.placeBatch(context.WithoutCancel(ctx), batch)
		for _, p := range batch {
			close(p.done)
		}
	}
}

// gather waits for an order and takes what is there with it into batch, whose
// length tells how many there were the last time. It returns nothing when ctx
// is done and nothing is left.
func (s *Store) gather(ctx context.Context, batch []*placement) []*placement {
	company := len(batch)
	clear(batch)
	batch = batch[:0]
	select {
	case p := <-s.placements:
		batch = append(batch, p)
		if company > 1 && len(s.placements) < placementBatch {
			time.Sleep(min(time.Duration(company)*placementLinger, placementLongest))
		}
	case <-ctx.Done():
	}
	for len(batch) < placementBatch {
		select {
		case p := <-s.placements:
			batch = append(batch, p)
		default:
			return batch
		}
	}
	return batch
}

// placeBatch stores the orders whose requests are still there and sets each
// one's outcome.
func (s *Store) placeBatch(ctx context.Context, batch []*placement) {
	todo := make([]*placement, 0, len(batch))
	for _, p := range batch {
		switch {
		case p.ctx.Err() != nil:
			p.err = p.ctx.Err()
		case time.Since(p.queued) > placementPatience:
			p.err = ErrBusy
		default:
			todo = append(todo, p)
		}
	}
	err := s.place(ctx, todo)
	if err == nil {
		return
	}
	if postgres.Unavailable(err) || len(todo) == 1 {
		for _, p := range todo {
			p.err = err
		}
		return
	}
	// One order that the database refuses must not fail the others.
	for i, p := range todo {
		p.err = s.place(ctx, todo[i:i+1])
	}
}

// place stores orders in one transaction. With keys among them it takes two
// round trips, without one.
func (s *Store) place(ctx context.Context, batch []*placement) error {
	if len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, placementTimeout)
	defer cancel()
	claim, claimed := claimKeys(batch)
	var created []bus.Event
	err := postgres.TxBatch(ctx, s.pool, claim, func() (*pgx.Batch, error) {
		fresh := make([]*placement, 0, len(batch))
		for _, p := range batch {
			p.owner, p.err = p.order.ID, nil
			if p.key.Text != "" {
				owner, ok := claimed[p.key.Text]
				if !ok {
					return nil, fmt.Errorf("idempotency key of order %s went away", p.order.ID)
				}
				p.owner = owner.order
				if !bytes.Equal(owner.hash, p.key.Hash[:]) {
					p.err = ErrKeyReused
				}
			}
			if p.err == nil && p.owner == p.order.ID {
				fresh = append(fresh, p)
				created = append(created, p.event)
			}
		}
		if len(fresh) == 0 {
			return nil, nil
		}
		last := &pgx.Batch{}
		if err := insertOrders(last, fresh); err != nil {
			return nil, err
		}
		outbox.Insert(last, created)
		return last, nil
	})
	if err != nil {
		return fmt.Errorf("place %d orders: %w", len(batch), err)
	}
	s.committed(created)
	return nil
}

// keyOwner is what is stored for an idempotency key.
type keyOwner struct {
	order uuid.UUID
	hash  []byte
}

// claimKeys queues the storing of the batch's idempotency keys and the reading
// of who has them then; nil when there are none. A key that another
// transaction is just storing is waited for.
func claimKeys(batch []*placement) (*pgx.Batch, map[string]keyOwner) {
	owners := map[string]keyOwner{}
	var keyed []*placement
	for _, p := range batch {
		if p.key.Text == "" {
			continue
		}
		if _, twice := owners[p.key.Text]; !twice { // the first in the batch claims
			owners[p.key.Text] = keyOwner{}
			keyed = append(keyed, p)
		}
	}
	if len(keyed) == 0 {
		return nil, nil
	}
	clear(owners)
	// Sorted, so that two transactions with common keys cannot deadlock.
	slices.SortFunc(keyed, func(a, b *placement) int { return cmp.Compare(a.key.Text, b.key.Text) })
	keys := make([]string, len(keyed))
	hashes := make([][]byte, len(keyed))
	ids := make([][16]byte, len(keyed))
	for i, p := range keyed {
		keys[i], hashes[i], ids[i] = p.key.Text, p.key.Hash[:], p.order.ID
	}
	b := &pgx.Batch{}
	b.Queue(`
insert into idempotency_keys (key, request_hash, order_id, created_at)
select key, request_hash, order_id, now()
from unnest($1::text[], $2::bytea[], $3::uuid[]) with ordinality as k(key, request_hash, order_id, n)
order by n
on conflict (key) do update
set request_hash = excluded.request_hash, order_id = excluded.order_id, created_at = excluded.created_at
where idempotency_keys.created_at < now() - $4::interval`, keys, hashes, ids, KeyLifetime)
	b.Queue(`
select key, request_hash, order_id
from idempotency_keys
where key = any($1::text[])`, keys).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var key string
			var owner keyOwner
			if err := rows.Scan(&key, &owner.hash, (*[16]byte)(&owner.order)); err != nil {
				return err
			}
			owners[key] = owner
		}
		return rows.Err()
	})
	return b, owners
}

func insertOrders(b *pgx.Batch, batch []*placement) error {
	n := len(batch)
	ids := make([][16]byte, n)
	customers := make([][16]byte, n)
	items := make([]string, n)
	times := make([]time.Time, n)
	traces := make([]*string, n)
	for i, p := range batch {
		text, err := json.Marshal(p.order.Items)
		if err != nil {
			return fmt.Errorf("encode items of order %s: %w", p.order.ID, err)
		}
		ids[i], customers[i], items[i], times[i] = p.order.ID, p.order.CustomerID, string(text), p.order.CreatedAt
		if len(p.event.Trace) > 0 {
			text, err := json.Marshal(p.event.Trace)
			if err != nil {
				return fmt.Errorf("encode trace of order %s: %w", p.order.ID, err)
			}
			trace := string(text)
			traces[i] = &trace
		}
	}
	b.Queue(`
insert into orders (order_id, customer_id, status, items, version, created_at, updated_at, trace)
select order_id, customer_id, 'Pending', items::jsonb, 1, created_at, created_at, trace::jsonb
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[])
  as o(order_id, customer_id, items, created_at, trace)`, ids, customers, items, times, traces)
	return nil
}

func createdEvent(ctx context.Context, o order.Order) (bus.Event, error) {
	items := make([]events.Item, len(o.Items))
	for i, item := range o.Items {
		items[i] = events.Item{ProductID: item.ProductID, Quantity: item.Quantity}
	}
	return bus.NewEvent(ctx, source, events.OrderCreatedType, events.OrderCreatedKey, o.ID.String(), events.OrderCreated{
		OrderID:    o.ID,
		CustomerID: o.CustomerID,
		Items:      items,
		Version:    o.Version,
		CreatedAt:  o.CreatedAt,
	})
}
