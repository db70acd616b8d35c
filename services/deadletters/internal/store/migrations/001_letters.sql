-- +goose Up
create table letter_groups (
  group_id bigint generated always as identity primary key,
  queue text not null,
  reason text not null,
  error text not null, -- normalized
  note text,
  note_by text,
  note_at timestamptz,
  unique (queue, reason, error)
);

-- The ids are in the order in which a queue's letters came out of its
-- dead-letter queue: the order in which they go back. Headers and properties
-- are arrays of typed fields, so that they can be published again as they were.
create table letters (
  letter_id bigint generated always as identity primary key,
  fingerprint bytea not null unique,
  group_id bigint not null references letter_groups,
  queue text not null,
  reason text not null,
  error text not null,
  state text not null default 'waiting' check (state in ('waiting', 'redriving', 'handled', 'unknown', 'discarded')),
  message_id text not null,
  type text not null,
  order_id uuid,
  trace_id text not null,
  headers jsonb not null,
  properties jsonb not null,
  body bytea not null,
  attempts int,
  deaths int not null default 1,
  first_died_at timestamptz not null,
  last_died_at timestamptz not null,
  stored_at timestamptz not null default now(),
  settled_at timestamptz, -- handled or discarded
  redrive_id uuid,        -- the last one that sent it
  attempt uuid            -- the last time
);
create index letters_by_death on letters (last_died_at desc, letter_id desc);
create index letters_by_group on letters (group_id, last_died_at desc, letter_id desc);
create index letters_by_order on letters (order_id) where order_id is not null;
create index letters_settled on letters (settled_at) where settled_at is not null;

create table redrives (
  redrive_id uuid primary key,
  state text not null check (state in ('draft', 'running', 'paused', 'stopped', 'done', 'cancelled')),
  why text not null,
  planned_by text not null,
  rate int not null,
  total int not null,
  orders int not null default 0,
  orders_asked int not null default 0,
  orders_final int not null default 0,
  oldest_died_at timestamptz,
  newest_died_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  ended_at timestamptz,
  batches int not null default 0, -- since it was started or resumed
  trusted_since timestamptz,      -- a cause is, with a letter handled since then
  next_batch_at timestamptz,
  stopped_because text,
  stopped_letter_id bigint
);
create index redrives_by_creation on redrives (created_at desc, redrive_id desc);
create index redrives_running on redrives (redrive_id) where state = 'running';

-- Which letters a redrive is about, and what became of each. Letters go when
-- their retention is over; this stays as long as the redrive.
create table redrive_letters (
  redrive_id uuid not null references redrives on delete cascade,
  letter_id bigint not null,
  queue text not null,
  group_id bigint not null,
  order_id uuid,
  outcome text not null default 'planned' check (outcome in ('planned', 'sent', 'handled', 'died', 'unknown', 'skipped')),
  active boolean not null default false, -- from the start until the outcome is known
  attempt uuid,
  sent_at timestamptz,      -- decided, before it is published
  confirmed_at timestamptz, -- by the broker
  ended_at timestamptz,
  primary key (redrive_id, letter_id)
);
-- A letter belongs to at most one running redrive, whoever starts them when.
create unique index redrive_letters_active on redrive_letters (letter_id) where active;
create unique index redrive_letters_attempt on redrive_letters (attempt) where attempt is not null;
create index redrive_letters_by_outcome on redrive_letters (redrive_id, outcome, letter_id);
create index redrive_letters_by_letter on redrive_letters (letter_id);
create index redrive_letters_sent on redrive_letters (sent_at) where outcome = 'sent';

-- Who did what, when and why. Nothing is ever changed in it.
create table letter_history (
  entry_id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  by text not null,
  action text not null,
  why text not null default '',
  detail text not null default '',
  redrive_id uuid,
  letter_id bigint,
  group_id bigint,
  letters int not null default 0
);
create index letter_history_by_redrive on letter_history (redrive_id, entry_id desc) where redrive_id is not null;
create index letter_history_by_letter on letter_history (letter_id, entry_id desc) where letter_id is not null;
create index letter_history_by_time on letter_history (at);
