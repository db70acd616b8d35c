-- +goose Up
-- Expired keys were forgotten in order_keys alone: their copies are still here. One
-- that a replica of the release before is claiming again right now is left alone.
delete from idempotency_keys
where key in (
  select key
  from idempotency_keys
  where created_at < now() - interval '24 hours'
  for update skip locked);
