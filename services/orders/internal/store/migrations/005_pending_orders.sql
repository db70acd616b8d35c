-- +goose Up
-- The orders that wait for a stock answer, each until its due time. Looking for
-- the overdue ones and for the oldest one costs the same however many orders
-- there ever were: a row lives as long as its order is Pending, and vacuum comes
-- after every few thousand, not after a share of all orders.
create table pending_orders (
  order_id uuid primary key,
  due timestamptz not null,
  created_at timestamptz not null default now()
) with (
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_insert_scale_factor = 0,
  autovacuum_vacuum_insert_threshold = 10000,
  autovacuum_analyze_scale_factor = 0,
  autovacuum_analyze_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);

create index pending_orders_due on pending_orders (due);

-- For as long as a replica of the release before may run, which does not know
-- the table: during a rolling upgrade, and after a rollback. Of what this release
-- writes the triggers find everything done. The next release but one drops them.
create function keep_pending_orders() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    insert into pending_orders (order_id, due, created_at)
    select order_id, created_at + interval '15 minutes', created_at
    from written
    where status = 'Pending'
    on conflict do nothing;
  else
    delete from pending_orders
    where order_id = any(array(
      select order_id
      from written
      where status <> 'Pending'));
  end if;
  return null;
end $$;

create trigger keep_pending_orders_inserted after insert on orders
referencing new table as written
for each statement execute function keep_pending_orders();

create trigger keep_pending_orders_updated after update on orders
referencing new table as written
for each statement execute function keep_pending_orders();

-- After the triggers, whose lock has waited for all writers: nothing is missed.
insert into pending_orders (order_id, due, created_at)
select order_id, created_at + interval '15 minutes', created_at
from orders
where status = 'Pending'
on conflict do nothing;

-- What the inbox was for is decided by the orders' own rows. Replicas of the
-- release before still write to it; the next release but one drops the table.
comment on table inbox is 'not used any more';
