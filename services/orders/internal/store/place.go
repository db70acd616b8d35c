package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"orderflow.internal/events"
	"orderflow.internal/kit/bus"
	"orderflow.internal/kit/fault"
	"orderflow.internal/kit/identity"
	"orderflow.internal/kit/outbox"
	"orderflow.internal/kit/postgres"
	"orderflow.internal/kit/run"
	"orderflow.internal/orders/internal/order"
)

// Placing is group-committed: the orders that arrive while a transaction runs
// form the next one, so that a commit is shared by as many as there are and
// nobody waits when there is only one.
//
// Under load a batch also waits for more orders, the longer the more there were
// in the last one. Here is the best place to wait in the whole saga: what is
// stored together is published together and arrives together, so that the
// consumers that follow have large batches without waiting themselves.
const (
	placementQueue   = 1024             // orders waiting to be stored; more are refused
	placementBatch   = 128              // orders in one transaction
	placementLinger  = time.Millisecond // for each order in the last transaction
	placementLongest = 24 * time.Millisecond
	placementPatient = 100 * time.Millisecond // instead in an overload, when orders wait for seconds anyway
	maxQueueWait     = 5 * time.Second        // an order queued for longer is refused
)

// limits bound the placing of a batch, and how long a bound is believed.
type limits struct {
	transaction time.Duration // one transaction
	hiccup      time.Duration // from the database's first refusal on, while orders wait for it
	resolve     time.Duration // finding out whether it was stored
	bound       time.Duration
}

var defaultLimits = limits{transaction: 4 * time.Second, hiccup: 4 * time.Second, resolve: 8 * time.Second,
	bound: 5 * time.Second}

// KeyLifetime is how long an idempotency key is kept.
const KeyLifetime = 24 * time.Hour

// Key makes a request of its caller idempotent. The zero Key does not.
type Key struct {
	Text   string
	Caller uuid.UUID         // whose key it is; nil: the customer's
	Hash   [sha256.Size]byte // of the canonical request
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

// UnknownError is a placement of which nobody can tell yet whether it took
// effect. If it did, or comes to, it is OrderID.
type UnknownError struct {
	OrderID uuid.UUID
	Err     error // the database's
}

func (e *UnknownError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *UnknownError) Unwrap() error { return e.Err }

// Place stores a new order with its OrderCreated, caused by the span in ctx.
// When its caller used the key for the same request before, it stores nothing
// and returns that order as it is now, and replayed. Any error but an
// *UnknownError means that nothing was stored: a *RefusedError when the service
// takes no more orders for now, ErrAway, ErrKeyReused, or the database's.
func (s *Store) Place(ctx context.Context, o order.Order, key Key) (placed order.Order, replayed bool, err error) {
	if ctx.Value(admittedKey{}) == nil {
		if err := s.admit(1); err != nil {
			return s.replay(ctx, key.owner(o), key, err)
		}
	}
	event, err := createdEvent(ctx, o, o.CreatedAt.Add(s.deadline))
	if err != nil {
		return order.Order{}, false, err
	}
	p := &placement{ctx: ctx, order: o, key: key, event: event, queued: time.Now(), done: make(chan struct{})}
	select {
	case s.placements <- p:
	default:
		return order.Order{}, false, s.busy.refuse(ErrBusy)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return order.Order{}, false, ctx.Err()
	}
	switch {
	case postgres.Classify(p.err) == fault.Unknown:
		return order.Order{}, false, &UnknownError{OrderID: p.owner, Err: p.err}
	case p.err != nil:
		return order.Order{}, false, p.err
	case p.owner != o.ID:
		placed, err = s.Get(ctx, identity.Everyone(), p.owner) // the key is the caller's
		return placed, true, err
	}
	return o, false, nil
}

// owner is whose key it is in the database. A caller's id is never a customer's:
// it is a UUID of another kind (version 5).
func (k Key) owner(o order.Order) uuid.UUID {
	if k.Caller != uuid.Nil {
		return k.Caller
	}
	return o.CustomerID
}

// replay returns the order that the owner placed with the key, or otherwise
// when there is none: who asks again what came of an order is not refused.
func (s *Store) replay(ctx context.Context, whose uuid.UUID, key Key, otherwise error) (order.Order, bool, error) {
	if key.Text == "" {
		return order.Order{}, false, otherwise
	}
	var owner keyOwner
	err := s.pool.QueryRow(ctx, `
select request_hash, order_id
from order_keys
where customer_id = $1
  and key = $2
  and created_at >= now() - $3::interval`, whose, key.Text, KeyLifetime).Scan(&owner.hash, &owner.order)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return order.Order{}, false, otherwise
	case err != nil:
		return order.Order{}, false, fmt.Errorf("look up an idempotency key: %w", err)
	case !bytes.Equal(owner.hash, key.Hash[:]):
		return order.Order{}, false, ErrKeyReused
	}
	placed, err := s.Get(ctx, identity.Everyone(), owner.order) // the key is the caller's
	return placed, true, err
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
	last := len(batch)
	clear(batch)
	batch = batch[:0]
	select {
	case p := <-s.placements:
		batch = append(batch, p)
		if last > 1 && len(s.placements) < placementBatch {
			longest := placementLongest
			if s.admission.share() < 1 {
				longest = placementPatient
			}
			time.Sleep(min(time.Duration(last)*placementLinger, longest))
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
//
// A restart of the database, or a planned switchover, costs time and no order: in
// the first seconds of an outage orders wait for its end. Later ones are refused
// at once.
func (s *Store) placeBatch(ctx context.Context, batch []*placement) {
	for batch = s.wanted(batch); len(batch) > 0; batch = s.wanted(batch) {
		err := s.place(ctx, batch)
		if postgres.Classify(err) == fault.Conflict {
			err = s.place(ctx, batch) // nothing was stored, and the others are done
		}
		if !s.hiccup(err) {
			s.settle(ctx, batch, err)
			return
		}
		time.Sleep(jitter(100 * time.Millisecond))
	}
}

// wanted sets the outcome of orders that nobody waits for any more, or that
// have waited for too long, and returns the others.
func (s *Store) wanted(batch []*placement) []*placement {
	wanted := make([]*placement, 0, len(batch))
	for _, p := range batch {
		switch {
		case p.ctx.Err() != nil:
			p.err = p.ctx.Err()
		case time.Since(p.queued) > maxQueueWait && !s.refusing.IsZero():
			p.err = ErrAway
		case time.Since(p.queued) > maxQueueWait:
			p.err = s.busy.refuse(ErrBusy)
		default:
			wanted = append(wanted, p)
		}
	}
	return wanted
}

// hiccup reports whether nothing was stored because the database has gone away
// a moment ago.
func (s *Store) hiccup(err error) bool {
	kind := postgres.Classify(err)
	if kind == fault.Other || kind == fault.Conflict { // the database answered
		s.refusing = time.Time{}
		return false
	}
	if s.refusing.IsZero() {
		s.refusing = time.Now()
	}
	return kind == fault.Unavailable && time.Since(s.refusing) < s.limits.hiccup
}

// settle sets the outcome of orders after the last try to store them.
func (s *Store) settle(ctx context.Context, batch []*placement, err error) {
	switch kind := postgres.Classify(err); {
	case err == nil:
	case kind == fault.Unknown:
		slog.WarnContext(ctx, "unknown whether orders were stored, storing them again to find out",
			"orders", len(batch), "error", err)
		s.resolve(ctx, batch, err)
	case kind == fault.Other && len(batch) > 1:
		// One order that the database refuses must not fail the others.
		for i := range batch {
			s.placeBatch(ctx, batch[i:i+1])
		}
	default:
		fail(batch, err)
	}
}

func jitter(pause time.Duration) time.Duration { return pause/2 + rand.N(pause) } //nolint:gosec // no secret

func fail(batch []*placement, err error) {
	for _, p := range batch {
		p.err = err
	}
}

// resolve finds out whether the batch was stored whose COMMIT was not answered,
// and sets each order's outcome. It does so by storing the same orders again:
// the key of a row that a transaction still commits is waited for, so that this
// tells the truth, which looking for the rows would not. What is not known in
// time stays an error of unknown outcome.
func (s *Store) resolve(ctx context.Context, batch []*placement, unknown error) {
	ctx, cancel := context.WithTimeout(ctx, s.limits.resolve)
	defer cancel()
	for pause := 20 * time.Millisecond; run.Sleep(ctx, jitter(pause)); pause = min(2*pause, time.Second) {
		err := s.place(ctx, batch)
		switch {
		case err == nil:
			return
		case postgres.Classify(err) != fault.Other:
			continue
		case len(batch) == 1:
			fail(batch, fmt.Errorf("%w; then: %w", unknown, err))
			return
		}
		// The database refuses one of them, now at least: each for itself.
		var each sync.WaitGroup
		for i := range batch {
			each.Go(func() { s.resolve(ctx, batch[i:i+1], unknown) })
		}
		each.Wait()
		return
	}
	fail(batch, unknown)
}

// place stores orders in one transaction; one that is stored already stays as
// it is. With keys among them it takes two round trips, without one.
func (s *Store) place(ctx context.Context, batch []*placement) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.transaction)
	defer cancel()
	claim, claimed := claimKeys(batch)
	begun := s.clock.Now()
	var created []bus.Event
	err := postgres.TxBatch(ctx, s.pool, claim, func() (*pgx.Batch, error) {
		fresh := make([]*placement, 0, len(batch))
		for _, p := range batch {
			p.owner, p.err = p.order.ID, nil
			if p.key.Text != "" {
				owner, ok := claimed[p.scopedKey()]
				if !ok {
					return nil, fmt.Errorf("idempotency key of order %s has disappeared", p.order.ID)
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
		if err := s.insertOrders(last, fresh); err != nil {
			return nil, err
		}
		outbox.Insert(last, created)
		return last, nil
	})
	if err != nil {
		return fmt.Errorf("place %d orders: %w", len(batch), err)
	}
	s.admission.backlog.add(begun, len(created))
	s.committed(created)
	return nil
}

// scopedKey is a key of one caller or customer.
type scopedKey struct {
	owner uuid.UUID
	key   string
}

func (k scopedKey) compare(other scopedKey) int {
	return cmp.Or(bytes.Compare(k.owner[:], other.owner[:]), cmp.Compare(k.key, other.key))
}

func (p *placement) scopedKey() scopedKey { return scopedKey{p.key.owner(p.order), p.key.Text} }

// keyOwner is what is stored for an idempotency key.
type keyOwner struct {
	order uuid.UUID
	hash  []byte
}

// claimKeys queues the storing of the batch's idempotency keys and the reading
// of who has them then; nil when there are none. A key that another
// transaction is just storing is waited for.
func claimKeys(batch []*placement) (*pgx.Batch, map[scopedKey]keyOwner) {
	owners := map[scopedKey]keyOwner{}
	var keyed []*placement
	for _, p := range batch {
		if p.key.Text == "" {
			continue
		}
		if _, twice := owners[p.scopedKey()]; !twice { // the first in the batch claims
			owners[p.scopedKey()] = keyOwner{}
			keyed = append(keyed, p)
		}
	}
	if len(keyed) == 0 {
		return nil, nil
	}
	clear(owners)
	// Sorted, so that two transactions with common keys cannot deadlock.
	slices.SortFunc(keyed, func(a, b *placement) int { return a.scopedKey().compare(b.scopedKey()) })
	whose := make([][16]byte, len(keyed)) // customer_id in the table, see its comment
	keys := make([]string, len(keyed))
	hashes := make([][]byte, len(keyed))
	ids := make([][16]byte, len(keyed))
	for i, p := range keyed {
		whose[i] = p.key.owner(p.order)
		keys[i] = p.key.Text
		hashes[i] = p.key.Hash[:]
		ids[i] = p.order.ID
	}
	b := &pgx.Batch{}
	b.Queue(`
insert into order_keys (customer_id, key, request_hash, order_id)
select customer_id, key, request_hash, order_id
from unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[])
  with ordinality as k(customer_id, key, request_hash, order_id, n)
order by n
on conflict (customer_id, key) do update
set request_hash = excluded.request_hash, order_id = excluded.order_id, created_at = excluded.created_at
where order_keys.created_at < now() - $5::interval`, whose, keys, hashes, ids, KeyLifetime)
	b.Queue(`
select k.customer_id, k.key, k.request_hash, k.order_id
from unnest($1::uuid[], $2::text[]) as claimed(customer_id, key)
join order_keys k using (customer_id, key)`, whose, keys).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var key scopedKey
			var owner keyOwner
			if err := rows.Scan((*[16]byte)(&key.owner), &key.key, &owner.hash, (*[16]byte)(&owner.order)); err != nil {
				return err
			}
			owners[key] = owner
		}
		return rows.Err()
	})
	return b, owners
}

// insertOrders queues the storing of orders that are not stored yet, each
// Pending until it is due by the database's clock.
func (s *Store) insertOrders(b *pgx.Batch, batch []*placement) error {
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
		if len(p.event.Trace) > 0 {
			text, err := json.Marshal(p.event.Trace)
			if err != nil {
				return fmt.Errorf("encode trace of order %s: %w", p.order.ID, err)
			}
			traces[i] = new(string(text))
		}
		ids[i] = p.order.ID
		customers[i] = p.order.CustomerID
		items[i] = string(text)
		times[i] = p.order.CreatedAt
	}
	b.Queue(`
with stored as (
  insert into orders (order_id, customer_id, status, items, version, created_at, updated_at, trace)
  select order_id, customer_id, 'Pending', items::jsonb, 1, created_at, created_at, trace::jsonb
  from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[])
    as o(order_id, customer_id, items, created_at, trace)
  on conflict (order_id) do nothing
  returning order_id)
insert into pending_orders (order_id, due)
select order_id, now() + $6::interval
from stored`, ids, customers, items, times, traces, s.deadline)
	return nil
}

func createdEvent(ctx context.Context, o order.Order, expiresAt time.Time) (bus.Event, error) {
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
		ExpiresAt:  expiresAt,
	})
}
