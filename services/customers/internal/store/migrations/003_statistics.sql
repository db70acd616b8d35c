-- +goose Up
-- A rough idea of the values is enough for the planner where rows are read by
-- key; an automatic ANALYZE with the default target samples 30,000 of them,
-- unpacking each one's JSON, again and again while many come in.
alter table orders
  alter column customer_id set statistics 10,
  alter column order_id set statistics 10,
  alter column status set statistics 0,
  alter column reason set statistics 0,
  alter column items set statistics 0,
  alter column total_cents set statistics 0,
  alter column currency set statistics 0,
  alter column version set statistics 0,
  alter column created_at set statistics 0,
  alter column updated_at set statistics 0,
  alter column order_created_at set statistics 0,
  alter column order_confirmed_at set statistics 0,
  alter column order_cancelled_at set statistics 0;
alter table customers
  alter column customer_id set statistics 10,
  alter column created_at set statistics 10,
  alter column name set statistics 0,
  alter column email set statistics 0,
  alter column version set statistics 0,
  alter column updated_at set statistics 0;
