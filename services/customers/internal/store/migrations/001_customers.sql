-- +goose Up
create table customers (
  customer_id uuid primary key,
  name text not null,
  email text not null,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index customers_created_at on customers (created_at, customer_id);

-- One row for each order, merged from its events by version whatever the order
-- they arrive in; what no event has told yet is null. There is no reference to
-- customers: orders come from customers without a profile too.
-- Order ids are UUIDv7, in order of time, so the key also serves "newest
-- first". The status is not in it and the fill factor leaves room on each page:
-- the second event of an order then touches no index.
create table orders (
  customer_id uuid not null,
  order_id uuid not null,
  status text not null check (status in ('Pending', 'Confirmed', 'Cancelled')),
  reason text,
  items jsonb,
  total_cents bigint,
  currency text,
  version int not null,
  created_at timestamptz,
  updated_at timestamptz not null,
  primary key (customer_id, order_id)
) with (fillfactor = 70);
