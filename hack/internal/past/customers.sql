insert into customers (customer_id, name, email, created_at, updated_at)
select pg_temp.id_at(@begin, 'customer' || n || @seed), 'Customer ' || n + 1, 'customer' || n + 1 || '@example.com',
  @begin, @begin
from generate_series(0::bigint, @customers - 1) as n
where @first = 0;

insert into orders (customer_id, order_id, status, reason, items, total_cents, currency, version, created_at,
  updated_at, order_created_at, order_confirmed_at, order_cancelled_at)
select customer_id, order_id, status, nullif(reason, ''), items, case when priced then total end,
  case when priced then 'EUR' end, version, created, updated, created + interval '20 ms',
  case when priced then answered + interval '20 ms' end, released
from past;
