-- +goose Up
-- What operators' commands changed in the books by hand.
create table repairs (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  by text not null,
  command text not null,
  subject uuid not null, -- an order or a product
  before jsonb,
  after jsonb
);
