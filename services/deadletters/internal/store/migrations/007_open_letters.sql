-- +goose NO TRANSACTION
-- +goose Up
-- Open letters are what is looked at, and a few among all that are kept.
create index concurrently if not exists letters_open
  on letters (last_died_at desc, letter_id desc) where state in ('waiting', 'unknown');
