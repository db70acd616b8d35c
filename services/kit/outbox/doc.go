// Package outbox publishes events that were stored in the same transaction as
// the change they announce (the transactional outbox of Richardson's
// microservices.io/patterns/data/transactional-outbox.html), and remembers
// them.
//
// The guarantee: an event whose transaction committed is published at least
// once, and counts as published only after every queue that its routing key
// leads to has confirmed it. Nothing is published for a transaction that rolled
// back. Consumers are idempotent.
//
// One table is the queue, the record behind an order's journey (History), and
// the source of what is published again:
//
//	  Insert
//	    |                    crash, or no room in memory
//	 stored ------------------------------------------------+
//	    | Committed                                         | sweep, 2 s later
//	    v                                                   v
//	handed over <---------------------------------------- claimed
//	    | lane of the routing key: batches form             ^
//	    v while the one before is under way                 |
//	on its way --- connection lost: once more from memory   |
//	    |     \                                             |
//	    |      +-- refused, or no confirm: owed ------------+
//	    |          (attempts, next_attempt_at, last_error,  retry, when it is due
//	    |          queues)
//	    v confirmed
//	published (published_at), until its day is dropped
//
// The process that committed publishes at once, from memory: that is the way of
// nearly all. Rows say what memory would forget: whatever is not published is
// in the table, and any replica can take it up.
//
// # Failure handling
//
//   - The broker is away, or an alarm blocks it, or it is slower than we are:
//     events wait in memory, at most handOver of them, of one routing key half as
//     many, and what a sweep has added, the others in the table. After the broker
//     came back each replica first publishes what it holds and what is owed;
//     sweeps begin a few seconds later.
//   - The connection is lost while events are on their way: their outcome is
//     unknown. They are published once more, and if it is unknown again they are
//     owed.
//   - The exchange refuses an event (no queue is bound, the user may not write
//     the routing key, it is too large): it is owed, and tried again after 1 s,
//     then twice as long each time up to half a minute. Each routing key has a lane
//     of its own: the others notice nothing.
//   - One of several queues refuses (it is full, or has no quorum): the broker
//     says no although the other queues have the event. From then on each queue
//     of that key gets its events by itself through the redelivery exchange,
//     which routes by the queue's name; a queue that refuses gets none at first
//     hand, only the retries of what it owes. The key returns to the exchange
//     once all its queues have taken everything for some seconds.
//   - A queue does not confirm in time: as if it refused. The only queue of a
//     key is no exception: if each event waited for its timeout in memory, there
//     would soon be no room for those of other keys.
//   - A queue is gone, or its binding to the redelivery exchange: what it owes
//     stays owed, under its name.
//   - A row cannot be read: it is owed, with the reason; its neighbors are
//     published.
//   - A process dies: what it had in memory is found by the sweep of another,
//     what it had claimed is due again after claimTime.
//   - The database is away: nothing is stored, so nothing is handed over. What is
//     confirmed meanwhile cannot be marked and is published twice.
//
// What cannot be published is reported in three places: by Status for readyz, by the
// metrics, and by one log line a minute, each with the routing key, the queue
// and the broker's own words.
//
// # Clocks
//
// An id is a UUIDv7, so it begins with the time of the host that made it. That
// only chooses the partition; every age and every time to come is the
// database's.
//
// # Cost
//
// Days are partitions, created ahead and dropped whole. Of 256 rows, storing
// and marking cost about twice the CPU of a table from which published rows are
// deleted, as marking one adds its second version to two indexes: the price of
// knowing what was published. Half of each page is left free for that version,
// which saves a third of the WAL. A search for unpublished rows costs the same
// however many rows there are: they have small indexes of their own, and it
// begins where the one before ended. What lies before that is surveyed every ten
// minutes, in slices if it is much. A measurement begins there as well, and does
// not count beyond measureFresh and measureOwed.
//
// # Tables
//
// In each publishing service's own database; days are partitions like the one
// by default:
//
//	create table outbox_events (
//	  id uuid primary key, -- UUIDv7; its time only chooses the partition
//	  type text not null,
//	  source text not null,
//	  subject text collate "C" not null,
//	  routing_key text not null,
//	  time timestamptz not null, -- when it happened, by the clock of the host that says so
//	  body json not null,
//	  trace json not null, -- traceparent, tracestate, baggage
//	  created_at timestamptz not null default now(), -- this and all that follow by the database's clock
//	  published_at timestamptz,
//	  attempts integer not null default 0, -- that failed
//	  next_attempt_at timestamptz, -- null: published, or on its way for the first time
//	  last_error text,
//	  queues text[] -- that owe a confirm; null: through the exchange, to all
//	) partition by range (id);
//
//	create table outbox_events_default partition of outbox_events default with (fillfactor = 50);
//
//	create index outbox_events_by_subject on outbox_events (subject);
//	create index outbox_events_told on outbox_events (subject, routing_key);
//	create index outbox_events_fresh on outbox_events (created_at, id)
//	where published_at is null and next_attempt_at is null;
//	create index outbox_events_owed on outbox_events (routing_key, next_attempt_at) where next_attempt_at is not null;
//	create index outbox_events_created_at on outbox_events using brin (created_at) with (autosummarize = on);
//	create index outbox_events_published on outbox_events (published_at, id) where published_at is not null;
//
//	create table outbox_republished (
//	  id uuid primary key default gen_random_uuid(),
//	  started_at timestamptz not null default now(),
//	  started_by text not null,
//	  selection jsonb not null,
//	  queue text, -- one or several; null: everybody's
//	  total bigint not null,
//	  published bigint not null default 0,
//	  refused bigint not null default 0,
//	  finished_at timestamptz,
//	  error text
//	);
package outbox
