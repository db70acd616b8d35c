-- +goose Up
-- A rough idea of the values is enough for the planner where rows are read by
-- key; an automatic ANALYZE with the default target samples 30,000 of them,
-- unpacking each one's JSON, again and again while many come in.
alter table reservations
  alter column order_id set statistics 10,
  alter column status set statistics 10,
  alter column items set statistics 0,
  alter column created_at set statistics 0,
  alter column updated_at set statistics 0,
  alter column order_created_at set statistics 0,
  alter column order_cancelled_at set statistics 0;
alter table products
  alter column product_id set statistics 10,
  alter column stock set statistics 10,
  alter column created_at set statistics 10,
  alter column deleted_at set statistics 10,
  alter column name set statistics 0,
  alter column price_cents set statistics 0,
  alter column currency set statistics 0,
  alter column reserved set statistics 0,
  alter column version set statistics 0,
  alter column updated_at set statistics 0;
alter table outbox
  alter column id set statistics 10,
  alter column created_at set statistics 10,
  alter column type set statistics 0,
  alter column source set statistics 0,
  alter column subject set statistics 0,
  alter column routing_key set statistics 0,
  alter column body set statistics 0,
  alter column trace set statistics 0;
alter table inbox
  alter column message_id set statistics 10,
  alter column queue set statistics 10,
  alter column processed_at set statistics 10;
alter table published
  alter column subject set statistics 10,
  alter column routing_key set statistics 0,
  alter column stored_at set statistics 0,
  alter column published_at set statistics 0;
