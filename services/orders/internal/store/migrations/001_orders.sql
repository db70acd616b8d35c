-- +goose Up
create table orders (
  order_id uuid primary key, -- UUIDv7: sorts by time of creation
  customer_id uuid not null,
  status text not null check (status in ('Pending', 'Confirmed', 'Cancelled')),
  reason text not null default '',
  items jsonb not null,
  shortages jsonb,
  total_cents bigint not null default 0,
  currency text not null default '', -- empty until the order is priced
  version integer not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  trace jsonb -- W3C trace context of the request that placed the order
);

create index orders_by_customer on orders (customer_id, order_id desc);
create index orders_by_status on orders (status, order_id desc);

create table idempotency_keys (
  key text primary key,
  request_hash bytea not null, -- SHA-256 of the canonical request
  order_id uuid not null,
  created_at timestamptz not null
);

create index idempotency_keys_created_at on idempotency_keys using brin (created_at);

create table outbox (
  id uuid primary key,
  type text not null,
  source text not null,
  subject text not null,
  routing_key text not null,
  body json not null,
  trace json not null,
  created_at timestamptz not null default now()
);

create table inbox (
  message_id uuid not null,
  queue text not null,
  processed_at timestamptz not null default now(),
  primary key (message_id, queue)
);

create index inbox_processed_at on inbox using brin (processed_at);
