import type { Order, PlaceOrder } from '../api/orders.ts';
import { Problem } from '../api/problem.ts';

/** What somebody means to order. A product is in it once, with 1 to maxQuantity units. */
export type Basket = readonly Line[];

export interface Line {
  readonly productId: string;
  readonly quantity: number;
}

// The contract's bounds of an order.
export const maxQuantity = 10_000;
export const maxLines = 100;

export type Action =
  | { do: 'add'; productId: string; quantity: number }
  | { do: 'set'; productId: string; quantity: number } // 0 takes it out
  | { do: 'takeOut'; lines: Basket } // as many of each as there are
  | { do: 'clear' };

/** Returns the basket after the action; what does not fit is cut to the bounds. */
export function reduce(basket: Basket, action: Action): Basket {
  switch (action.do) {
    case 'add':
      return put(basket, action.productId, quantityOf(basket, action.productId) + action.quantity);
    case 'set':
      return put(basket, action.productId, action.quantity);
    case 'takeOut':
      return action.lines.reduce((left, { productId, quantity }) => put(left, productId, quantityOf(left, productId) - quantity), basket);
    case 'clear':
      return [];
  }
}

function put(basket: Basket, productId: string, quantity: number): Basket {
  const line = { productId, quantity: Math.min(Math.trunc(quantity), maxQuantity) };
  const there = basket.some((l) => l.productId === productId);
  if (!(line.quantity > 0)) return there ? basket.filter((l) => l.productId !== productId) : basket;
  if (there) return basket.map((l) => (l.productId === productId ? line : l));
  return basket.length < maxLines ? [...basket, line] : basket;
}

export function quantityOf(basket: Basket, productId: string): number {
  return basket.find((line) => line.productId === productId)?.quantity ?? 0;
}

/** How many units there are in all. */
export function units(basket: Basket): number {
  return basket.reduce((sum, line) => sum + line.quantity, 0);
}

/** Reads a basket that was stored, without what is no line of one. */
export function parseBasket(stored: unknown): Basket {
  if (!Array.isArray(stored)) return [];
  return stored.reduce<Basket>((basket, value: unknown) => {
    const { productId, quantity } = (value ?? {}) as Partial<Line>;
    return typeof productId === 'string' && typeof quantity === 'number' ? reduce(basket, { do: 'set', productId, quantity }) : basket;
  }, []);
}

/** What is left of an order that was cancelled because stock was short: how much of each product there was. */
export function available(order: Order): Basket {
  const shortage = new Map(order.shortages?.map((s) => [s.productId, s.availableQuantity]));
  return parseBasket(
    order.items.map(({ productId, quantity }) => ({ productId, quantity: Math.min(quantity, shortage.get(productId) ?? quantity) })),
  );
}

/** One try to place an order: as long as the order is the same, so is its key. */
export interface Attempt {
  readonly key: string;
  readonly body: PlaceOrder;
}

/**
 * Returns the attempt to place this order: the last one while nobody knows what
 * became of it and nothing has changed since, else one with a new key. So no second
 * click, reload or lost answer can place an order twice.
 */
export function attempt(last: Attempt | null, body: PlaceOrder, newKey: () => string): Attempt {
  return last && JSON.stringify(last.body) === JSON.stringify(body) ? last : { key: newKey(), body };
}

/**
 * The order that a failed attempt may have placed all the same; undefined when it
 * is not known which. The server says so in its answer's Location.
 */
export function perhapsPlaced(error: unknown): string | undefined {
  if (!(error instanceof Problem) || !error.outcomeUnknown) return undefined;
  return /\/orders\/([0-9a-f-]{36})$/.exec(error.location ?? '')?.[1];
}

export function parseAttempt(stored: unknown): Attempt | null {
  const { key, body } = (stored ?? {}) as Partial<Attempt>;
  return typeof key === 'string' && typeof body === 'object' ? { key, body } : null;
}
