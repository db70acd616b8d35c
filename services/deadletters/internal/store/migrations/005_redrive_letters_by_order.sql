-- +goose NO TRANSACTION
-- +goose Up
-- The orders of a plan are read in pages.
create index concurrently if not exists redrive_letters_by_order
  on redrive_letters (redrive_id, order_id) where order_id is not null;
