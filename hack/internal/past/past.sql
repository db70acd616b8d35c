-- The orders from @first to @last with all that happened to them, the same whatever database computes them: chance is a
-- hash of an order's number, and the names of products and customers are hashes of theirs.
create or replace function pg_temp.id_at(at timestamptz, what text) returns uuid language sql immutable as $$
select overlay(overlay(lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || left(md5(what), 20)
  placing '7' from 13) placing '8' from 17)::uuid -- of version 7
$$;

create or replace function pg_temp.cents(product bigint) returns bigint language sql immutable as $$
select 100 + (hashint8(product) & 32767)
$$;

create temporary table past on commit drop as
with
-- Numbers below 2^31, as many as an order needs. Materialized, lest PostgreSQL computes them again at each use.
chance as materialized (
  select i, array(select hashint8extended(i, @seed::bigint + n) & 2147483647 from generate_series(1, 12) as n) as r
  from generate_series(@first::bigint, @last::bigint) as i
),
placed as materialized (
  select i, r,
    date_trunc('milliseconds', @begin::timestamptz
      + @span::interval * ((i + r[1] / 2147483648.0) / @orders)::float8) as created,
    1 + r[2] % least(3, @products) as lines,
    r[3] % 1000 as lot,
    -- Handling something takes 8 to 40 ms.
    array(select interval '1 ms' * (8 + r[n] % 32) from generate_series(4, 6) as n) as took,
    case when r[12] % 2 = 0 then gen end as keyed
  from chance, lateral (select md5('key' || i || @seed) as gen) as key
),
-- What became of it. A cancellation that would lie in the future does not come.
fates as materialized (
  select *, created + took[1] as heard,
    case
      when lot < 50 and created + took[1] + took[2] + later + took[3] < @now::timestamptz then 'cancelled later'
      when lot between 50 and 89 then 'refused'
      when lot between 90 and 99 then 'cancelled first'
      when lot between 100 and 104 then 'timed out'
      else 'confirmed'
    end as fate
  from placed, lateral (select interval '1 second' + interval '1 second' * (r[7] % 172800) as later) as l
),
ended as materialized (
  select *,
    case when fate = 'timed out' then created + interval '15 minutes' + interval '1 ms' * (r[7] % 1000) + took[3]
      else heard end as taken, -- when products handled OrderCreated
    case when fate <> 'timed out' then heard + took[2] end as answered, -- when orders handled the stock answer
    case fate
      when 'cancelled later' then heard + took[2] + later
      when 'refused' then heard + took[2]
      when 'cancelled first' then created + interval '1 ms'
      when 'timed out' then created + interval '15 minutes' + interval '1 ms' * (r[7] % 1000)
    end as cancelled
  from fates
)
select
  pg_temp.id_at(created, 'order' || i || @seed) as order_id,
  pg_temp.id_at(@begin, 'customer' || r[8] % @customers || @seed) as customer_id,
  fate, created, taken, answered, cancelled,
  greatest(taken, cancelled) + case when cancelled is not null then took[3] end as released, -- handled OrderCancelled
  fate in ('confirmed', 'cancelled later') as priced, -- it has ever been Confirmed
  case when fate = 'confirmed' then 'Confirmed' else 'Cancelled' end as status,
  case fate when 'confirmed' then '' when 'refused' then 'StockNotAvailable' when 'timed out' then 'TimedOut'
    else 'CustomerRequest' end as reason,
  case fate when 'cancelled later' then 3 else 2 end as version,
  coalesce(cancelled, answered) as updated,
  items, priced_items, total, shortages,
  jsonb_build_object('traceparent',
    '00-' || md5('trace' || i || @seed) || '-' || left(md5('span' || i || @seed), 16) || '-00') as trace,
  case when created > @now::timestamptz - interval '24 hours' then keyed end as keyed
from ended,
lateral (
  select
    json_agg(json_build_object('productId', product, 'quantity', quantity)) as items,
    json_agg(json_build_object('productId', product, 'quantity', quantity, 'unitPriceCents', cents)) as priced_items,
    sum(quantity * cents)::bigint as total,
    json_agg(json_build_object('productId', product, 'requestedQuantity', quantity,
      'availableQuantity', r[11] % quantity)) filter (where line = 0) as shortages
  from (
    -- Different products: two steps of at most half the catalog do not come back.
    select line, pg_temp.id_at(@begin, 'product' || n || @seed) as product,
      pg_temp.cents(n) as cents, 1 + (r[10] >> (line * 8)::int) % 5 as quantity
    from generate_series(0, lines - 1) as line,
    lateral (select (r[9] + line * (1 + r[11] % greatest(1, (@products - 1) / 2))) % @products as n) as chosen
  ) as ordered
) as content;
