-- +goose Up
-- When each event was processed; null while it was not.
alter table orders
  add column order_created_at timestamptz,
  add column order_confirmed_at timestamptz,
  add column order_cancelled_at timestamptz;

-- To follow an order without knowing whose it is. No update touches it.
create index orders_by_order on orders (order_id);
