-- +goose Up
-- stock is what can still be ordered, reserved what orders hold. The sum is
-- bounded so that giving a reservation back can never overflow.
-- A product is deleted by marking it: orders may still give stock back to it.
-- The fill factor leaves room on each page for the updates of hot products,
-- which then touch no index.
create table products (
  product_id uuid primary key,
  name text not null,
  price_cents bigint not null check (price_cents >= 0),
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  stock int not null check (stock >= 0),
  reserved int not null default 0 check (reserved >= 0),
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  check (stock::bigint + reserved <= 2147483647)
) with (fillfactor = 70);

create index products_created_at on products (created_at, product_id) where deleted_at is null;

-- What became of each order here. Reserved holds its items; Refused and
-- Released hold nothing any more; Cancelled is the mark of a cancellation that
-- came before its order, so that nothing is reserved later.
create table reservations (
  order_id uuid primary key,
  status text not null check (status in ('Reserved', 'Refused', 'Released', 'Cancelled')),
  items jsonb not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

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
