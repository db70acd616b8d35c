-- +goose NO TRANSACTION
-- +goose Up
-- Counting the letters of each group and state reads this index, not the letters.
create index concurrently if not exists letters_by_group_and_death
  on letters (group_id, last_died_at desc, letter_id desc) include (state, first_died_at);
