insert into products (product_id, name, price_cents, currency, stock, created_at, updated_at)
select pg_temp.id_at(@begin, 'product' || n || @seed), 'Product ' || n + 1 || ' of the past', pg_temp.cents(n), 'EUR',
  1000000000, @begin, @begin
from generate_series(0::bigint, @products - 1) as n
where @first = 0;

insert into reservations (order_id, status, items, created_at, updated_at, order_created_at, order_cancelled_at)
select order_id,
  case fate when 'confirmed' then 'Reserved' when 'refused' then 'Refused' when 'timed out' then 'Expired'
    else 'Released' end,
  items, taken, case when fate in ('cancelled later', 'cancelled first') then released else taken end, taken, released
from past;

update products
set stock = stock - units,
    reserved = reserved + units
from (
  select (item->>'productId')::uuid as id, sum((item->>'quantity')::int) as units
  from past, json_array_elements(items) as item
  where fate = 'confirmed'
  group by 1) as held
where product_id = id;

insert into outbox_events (id, type, source, subject, routing_key, time, body, trace, created_at, published_at)
select pg_temp.id_at(at, key || order_id), 'orderflow.' || key || '.v1', 'products', order_id, key, at,
  jsonb_build_object('orderId', order_id) || body, trace, at, at + interval '4 ms'
from past,
lateral (values
  ('stock.notavailable', case when fate = 'refused' then taken end, jsonb_build_object('items', shortages)),
  ('stock.reserved', case when fate not in ('refused', 'timed out') then taken end,
    jsonb_build_object('items', priced_items, 'currency', 'EUR', 'reservedAt', taken)),
  ('stock.released', case when fate in ('cancelled later', 'cancelled first') then released end,
    jsonb_build_object('items', items, 'releasedAt', released))
) as event (key, at, body)
where at >= @keep;
