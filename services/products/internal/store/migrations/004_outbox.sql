-- +goose Up
-- One table for what is to be published and what was: package outbox says how
-- it is used. It takes the place of outbox and published, which stay for a
-- release: processes of the one before still write them during the upgrade. A
-- later release drops both, and the function.
create table outbox_events (
  id uuid primary key, -- UUIDv7; its time only chooses the partition
  type text not null,
  source text not null,
  subject text collate "C" not null,
  routing_key text not null,
  time timestamptz not null, -- when it happened, by the clock of the host that says so
  body json not null,
  trace json not null, -- traceparent, tracestate, baggage
  created_at timestamptz not null default now(), -- this and all that follow by the database's clock
  published_at timestamptz,
  attempts integer not null default 0, -- that failed
  next_attempt_at timestamptz, -- null: published, or on its way for the first time
  last_error text,
  queues text[] -- that owe a confirm; null: through the exchange, to all
) partition by range (id);

-- Days are created by the service. This partition is for ids of wrong clocks.
create table outbox_events_default partition of outbox_events default with (fillfactor = 50);

create index outbox_events_by_subject on outbox_events (subject);
create index outbox_events_fresh on outbox_events (created_at, id) where published_at is null and next_attempt_at is null;
create index outbox_events_owed on outbox_events (routing_key, next_attempt_at) where next_attempt_at is not null;
create index outbox_events_created_at on outbox_events using brin (created_at) with (autosummarize = on);

alter table outbox_events_default
  alter column id set statistics 10,
  alter column subject set statistics 10,
  alter column routing_key set statistics 10,
  alter column created_at set statistics 10,
  alter column published_at set statistics 10,
  alter column next_attempt_at set statistics 10,
  alter column type set statistics 0,
  alter column source set statistics 0,
  alter column time set statistics 0,
  alter column body set statistics 0,
  alter column trace set statistics 0,
  alter column attempts set statistics 0,
  alter column last_error set statistics 0,
  alter column queues set statistics 0;

-- Who published what again, and what came of it.
create table outbox_republished (
  id uuid primary key default gen_random_uuid(),
  started_at timestamptz not null default now(),
  started_by text not null,
  selection jsonb not null,
  queue text, -- null: everybody's
  total bigint not null,
  published bigint not null default 0,
  refused bigint not null default 0,
  finished_at timestamptz,
  error text
);

-- What processes of the release before store goes to the new table. They still
-- publish it themselves; then it is published twice, which is allowed. After a
-- rollback to that release they publish from their memory alone: what a crash
-- leaves waits here for the next upgrade.
lock table outbox in exclusive mode;

create function outbox_forward() returns trigger language plpgsql as $$
begin
  insert into outbox_events (id, type, source, subject, routing_key, time, body, trace)
  values (new.id, new.type, new.source, new.subject, new.routing_key, new.created_at, new.body, new.trace)
  on conflict do nothing;
  return null;
end
$$;

create trigger forward before insert on outbox for each row execute function outbox_forward();

insert into outbox_events (id, type, source, subject, routing_key, time, body, trace)
select id, type, source, subject, routing_key, created_at, body, trace
from outbox;

delete from outbox;
