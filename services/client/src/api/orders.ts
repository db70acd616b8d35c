import { queryOptions, type QueryClient } from '@tanstack/react-query';
import { gateway, reading, take, takeWhole } from './client.ts';
import type { components } from './schema.ts';
import { recordedTrace } from './trace.ts';

export type Order = components['schemas']['Order'];
export type OrderStatus = Order['status'];
export type Shortage = components['schemas']['Shortage'];
export type PlaceOrder = components['schemas']['PlaceOrder'];

/** What the services recorded about an order's way. */
export type Journey = components['schemas']['Journey'];
export type JourneyStep = components['schemas']['JourneyStep'];

export const orderKey = (orderId: string) => ['order', orderId] as const;

/** An order. It changes by the events of its stream as well: see useLiveOrder. */
export const order = (orderId: string) =>
  queryOptions({
    queryKey: orderKey(orderId),
    queryFn: async (context) => {
      const read = await take(gateway.GET('/orders/{orderId}', { params: { path: { orderId } }, ...reading(context) }));
      return newer(context.client.getQueryData<Order>(orderKey(orderId)), read);
    },
  });

/** Keeps what is newer: answers and events can overtake each other. */
export function newer(known: Order | undefined, read: Order): Order {
  return known && known.version > read.version ? known : read;
}

/** Takes a state of an order that came by another way than its query. */
export function learn(client: QueryClient, read: Order): void {
  client.setQueryData<Order>(orderKey(read.orderId), (known) => newer(known, read));
}

/**
 * Places an order and returns it as stored, without waiting for stock, and the
 * trace it was recorded in. The key makes it safe to send again: the same key
 * and body is the same order.
 */
export async function placeOrder(body: PlaceOrder, idempotencyKey: string): Promise<{ order: Order; traceId: string | undefined }> {
  const { data, headers } = await takeWhole(
    gateway.POST('/orders', { params: { header: { 'Idempotency-Key': idempotencyKey, Prefer: 'respond-async' } }, body }),
  );
  return { order: data, traceId: recordedTrace(headers) };
}

/** Cancels an order; one that is cancelled already stays as it is. */
export function cancelOrder(orderId: string): Promise<Order> {
  return take(gateway.POST('/orders/{orderId}/cancel', { params: { path: { orderId } } }));
}

/** An order's way through the services, as far as it got. */
export const journey = (orderId: string) =>
  queryOptions({
    queryKey: ['journey', orderId],
    queryFn: (context) => take(gateway.GET('/orders/{orderId}/journey', { params: { path: { orderId } }, ...reading(context) })),
  });
