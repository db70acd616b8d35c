// A stranger's client: the gateway at ORDERFLOW_BASE_URL, as @hey-api/openapi-ts knows it.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { client } from './gen/heyapi/client.gen.js';
import { addProduct, cancelOrder, followOrder, getOrder, placeOrder, type Order } from './gen/heyapi/index.js';

client.setConfig({ baseUrl: process.env['ORDERFLOW_BASE_URL'] ?? 'http://localhost:5108' });

const { data: product } = await addProduct({ body: { name: 'Hey API', priceCents: 250, stock: 5 }, throwOnError: true });

const one = { customerId: randomUUID(), productId: product.productId, quantity: 2 };
const { data: placed, response } = await placeOrder({ body: one, headers: { Prefer: 'respond-async' }, throwOnError: true });
assert.equal(response.status, 202);
const path = { orderId: placed.orderId };

let last: Order | undefined;
const { stream } = await followOrder({ path });
for await (const order of stream) if (order) last = order;
assert.equal(last?.status, 'Confirmed');
assert.equal(last.total?.amountCents, 500);

const { data: read } = await getOrder({ path, throwOnError: true });
assert.equal(read.status, 'Confirmed');
const { data: cancelled } = await cancelOrder({ path, throwOnError: true });
assert.equal(cancelled.reason, 'CustomerRequest');

const items = { customerId: randomUUID(), items: [{ productId: product.productId, quantity: 6 }] };
const { data: short } = await placeOrder({ body: items, headers: { Prefer: 'wait=30' }, throwOnError: true });
assert.equal(short.reason, 'StockNotAvailable');
assert.equal(short.shortages?.[0]?.requestedQuantity, 6);

const { error } = await getOrder({ path: { orderId: randomUUID() } });
assert.equal(error?.type, '/problems/not-found');
