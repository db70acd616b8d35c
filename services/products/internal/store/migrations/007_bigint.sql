-- +goose Up
-- What confirmed orders hold is theirs for good, so reserved counts everything
-- a product has ever sold: at 1,000 units a day four bytes last for years, of a
-- bestseller for months. This writes the table again, whose size is that of the
-- catalog, not of the orders. The bound on the sum is the largest integer that
-- every JSON reader gets right.
alter table products
  drop constraint products_check,
  alter column stock type bigint,
  alter column reserved type bigint,
  add constraint products_check check (stock + reserved <= 9007199254740991);
