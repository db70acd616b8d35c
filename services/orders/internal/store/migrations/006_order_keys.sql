-- +goose Up
-- Idempotency keys belong to their customer: two customers may use the same one.
create table order_keys (
  customer_id uuid not null,
  key text not null,
  request_hash bytea not null, -- SHA-256 of the canonical request
  order_id uuid not null,
  created_at timestamptz not null default now(),
  primary key (customer_id, key)
);

-- A B-tree: keys are deleted a few at a time from its old end, which stays cheap.
create index order_keys_created_at on order_keys (created_at);

alter table order_keys
  alter column customer_id set statistics 10,
  alter column key set statistics 10,
  alter column created_at set statistics 10,
  alter column request_hash set statistics 0,
  alter column order_id set statistics 0;

-- For as long as a replica of the release before may run, whose keys are those of
-- everybody, each key is in both tables. The next release but one drops the
-- triggers and idempotency_keys.
create function order_keys_from_idempotency_keys() returns trigger language plpgsql as $$
begin
  insert into order_keys (customer_id, key, request_hash, order_id, created_at)
  select customer_id, new.key, new.request_hash, new.order_id, new.created_at
  from orders
  where order_id = new.order_id
  on conflict (customer_id, key) do update
  set request_hash = excluded.request_hash, order_id = excluded.order_id, created_at = excluded.created_at
  where order_keys.created_at < excluded.created_at;
  return null;
end $$;

-- At the end of the transaction, for the key is stored before its order.
create constraint trigger order_keys_from_idempotency_keys after insert or update on idempotency_keys
deferrable initially deferred
for each row when (pg_trigger_depth() = 0)
execute function order_keys_from_idempotency_keys();

create function idempotency_keys_from_order_keys() returns trigger language plpgsql as $$
begin
  insert into idempotency_keys (key, request_hash, order_id, created_at)
  select distinct on (key) key, request_hash, order_id, created_at
  from written
  order by key
  on conflict (key) do nothing;
  return null;
end $$;

insert into order_keys (customer_id, key, request_hash, order_id, created_at)
select o.customer_id, k.key, k.request_hash, k.order_id, k.created_at
from idempotency_keys k
join orders o using (order_id)
where k.created_at > now() - interval '24 hours'
on conflict do nothing;

create trigger idempotency_keys_from_order_keys after insert on order_keys
referencing new table as written
for each statement when (pg_trigger_depth() = 0)
execute function idempotency_keys_from_order_keys();
