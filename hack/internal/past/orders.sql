insert into orders (order_id, customer_id, status, reason, items, shortages, total_cents, currency, version, created_at,
  updated_at, trace, answer, answered_at)
select order_id, customer_id, status, reason, case when priced then priced_items else items end,
  case when fate = 'refused' then shortages end, case when priced then total else 0 end,
  case when priced then 'EUR' else '' end, version, created, updated, trace,
  case when fate = 'refused' then 'stock.notavailable' when answered is not null then 'stock.reserved' end, answered
from past;

insert into order_keys (customer_id, key, request_hash, order_id, created_at)
select customer_id, keyed, sha256(keyed::bytea), order_id, created
from past
where keyed is not null;

insert into outbox_events (id, type, source, subject, routing_key, time, body, trace, created_at, published_at)
select pg_temp.id_at(at, key || order_id), 'orderflow.' || key || '.v1', 'orders', order_id, key, at,
  json_build_object('orderId', order_id, 'customerId', customer_id, 'version', number)::jsonb || body, trace, at,
  at + interval '4 ms'
from past,
lateral (values
  ('order.created', created, 1, jsonb_build_object('items', items, 'createdAt', created,
    'expiresAt', created + interval '15 minutes')),
  ('order.confirmed', case when priced then answered end, 2, jsonb_build_object('totalCents', total, 'currency', 'EUR',
    'confirmedAt', answered)),
  ('order.cancelled', cancelled, version, jsonb_build_object('reason', reason, 'cancelledAt', cancelled))
) as event (key, at, number, body)
where at >= @keep; -- when there was such an event, and the outbox keeps its day
