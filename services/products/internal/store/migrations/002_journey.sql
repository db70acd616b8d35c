-- +goose Up
-- Outbox rows in short, once they were published: who follows an order later
-- sees when its events were stored and sent.
create table published (
  subject text collate "C" not null,
  routing_key text not null,
  stored_at timestamptz not null,
  published_at timestamptz not null
);

create index published_by_subject on published (subject);

-- When OrderCreated and OrderCancelled were processed; null while they were not.
alter table reservations
  add column order_created_at timestamptz,
  add column order_cancelled_at timestamptz;
