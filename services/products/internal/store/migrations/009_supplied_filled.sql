-- +goose Up
-- By itself, so that nobody waits for the whole table: orders wait for the
-- products that they name, about a second for 100,000 products. The rows are
-- locked in the order in which everybody locks them.
with locked as materialized (
  select product_id
  from products
  where supplied is null
  order by product_id
  for no key update)
update products as p
set supplied = p.stock + p.reserved
from locked
where p.product_id = locked.product_id
  and p.supplied is null;
