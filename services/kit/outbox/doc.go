// Package outbox publishes events that were stored in the same transaction as
// the change they tell of (the transactional outbox of Richardson's
// microservices.io/patterns/data/transactional-outbox.html).
//
// The guarantee: an event whose transaction committed is published at least
// once, and its row goes away only after the broker has routed and confirmed
// it. Nothing is published for a transaction that rolled back.
//
// Two ways lead to the broker. The process that committed hands its events to
// the relay in memory (Committed), which publishes them at once, many in one
// go: that is the way of nearly all. What a crash, a full hand-over queue or
// an unroutable event left behind is found by a sweep of the table, which all
// replicas do and SKIP LOCKED divides among them. The two can overlap and
// publish an event twice; its consumers are idempotent.
//
// What was published leaves a short row behind, so that the way of each event
// can be told later (History).
//
// Its tables, in each publishing service's own database:
//
//	create table outbox (
//	    id          uuid primary key, -- UUIDv7, thus in order of time
//	    type        text not null,
//	    source      text not null,
//	    subject     text not null,
//	    routing_key text not null,
//	    body        json not null,
//	    trace       json not null,    -- traceparent, tracestate, baggage
//	    created_at  timestamptz not null default now()
//	);
//	create table published (
//	    subject      text collate "C" not null,
//	    routing_key  text not null,
//	    stored_at    timestamptz not null, -- the outbox row's created_at
//	    published_at timestamptz not null
//	);
//	create index published_by_subject on published (subject);
package outbox
