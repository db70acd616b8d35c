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

-- The stock answer: its routing key, and when it was processed, with or without
-- effect. Null while there is none.
alter table orders
  add column answer text,
  add column answered_at timestamptz;
