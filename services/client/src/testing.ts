import type { Order } from './api/orders.ts';

/** An order as the API has it, for tests. */
export function anOrder(part: Partial<Order> = {}): Order {
  return {
    orderId: '0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60',
    customerId: '550e8400-e29b-41d4-a716-446655440000',
    items: [{ productId: '550e8400-e29b-41d4-a716-446655440001', quantity: 2 }],
    status: 'Pending',
    reason: null,
    total: null,
    version: 1,
    createdAt: '2026-11-05T09:30:00.123456Z',
    updatedAt: '2026-11-05T09:30:00.123456Z',
    ...part,
  };
}
