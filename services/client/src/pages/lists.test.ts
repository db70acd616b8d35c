import { describe, expect, it } from 'vitest';
import type { HistoryEntry } from '../api/customers.ts';
import type { Product } from '../api/products.ts';
import { initials } from '../format.ts';
import { byDay } from './history.tsx';
import { matching } from './use-catalog.ts';

describe('matching', () => {
  const named = (name: string) => ({ name }) as Product;
  const products = [named('Desk lamp'), named('Standing desk'), named('Espresso cup')];

  it('finds each word, in any order and case', () => {
    expect(matching(products, 'LAMP desk')).toEqual([products[0]]);
    expect(matching(products, 'desk')).toHaveLength(2);
    expect(matching(products, 'tea')).toEqual([]);
  });

  it('finds everything without words', () => {
    expect(matching(products, '  ')).toBe(products);
  });
});

describe('byDay', () => {
  const now = new Date(2026, 10, 5, 12);
  const entry = (orderId: string, createdAt: Date | null, updatedAt = now): HistoryEntry => ({
    orderId,
    status: 'Confirmed',
    reason: null,
    items: [],
    total: null,
    version: 2,
    createdAt: createdAt?.toISOString() ?? null,
    updatedAt: updatedAt.toISOString(),
  });

  it('puts orders under their days', () => {
    const days = byDay([entry('c', new Date(2026, 10, 5, 9)), entry('b', new Date(2026, 10, 5, 8)), entry('a', new Date(2026, 10, 4, 8))], now);
    expect(days.map(({ day, orders }) => [day, orders.map((order) => order.orderId)])).toEqual([
      ['Today', ['c', 'b']],
      ['Yesterday', ['a']],
    ]);
  });

  it('goes by the last change while it is not known when an order was placed', () => {
    expect(byDay([entry('a', null, new Date(2026, 10, 4, 8))], now)[0]?.day).toBe('Yesterday');
  });
});

it('shortens names', () => {
  expect(initials('Ada King Lovelace')).toBe('AL');
  expect(initials(' grace ')).toBe('G');
  expect(initials('Émile Zola')).toBe('ÉZ');
});
