import { describe, expect, it } from 'vitest';
import { noAnswer, Problem } from '../api/problem.ts';
import { anOrder } from '../testing.ts';
import { attempt, available, maxLines, maxQuantity, parseAttempt, parseBasket, perhapsPlaced, quantityOf, reduce, units, type Basket } from './basket.ts';

const cup = { productId: 'cup', quantity: 2 };
const desk = { productId: 'desk', quantity: 1 };

describe('reduce', () => {
  it('adds to what is there', () => {
    expect(reduce([cup, desk], { do: 'add', productId: 'cup', quantity: 3 })).toEqual([{ productId: 'cup', quantity: 5 }, desk]);
    expect(reduce([cup], { do: 'add', productId: 'desk', quantity: 1 })).toEqual([cup, desk]);
  });

  it('takes out at zero', () => {
    expect(reduce([cup, desk], { do: 'set', productId: 'cup', quantity: 0 })).toEqual([desk]);
    expect(reduce([cup], { do: 'add', productId: 'cup', quantity: -2 })).toEqual([]);
  });

  it('stays the same when there is nothing to take out', () => {
    const basket: Basket = [cup];
    expect(reduce(basket, { do: 'set', productId: 'desk', quantity: 0 })).toBe(basket);
  });

  it.each([
    [maxQuantity + 1, maxQuantity],
    [2.7, 2],
    [Number.NaN, 0],
    [-1, 0],
  ])('cuts a quantity of %d to %d', (quantity, cut) => {
    expect(quantityOf(reduce([], { do: 'set', productId: 'cup', quantity }), 'cup')).toBe(cut);
  });

  it('keeps to the number of lines that an order may have', () => {
    const full = Array.from({ length: maxLines }, (_, i) => ({ productId: String(i), quantity: 1 }));
    expect(reduce(full, { do: 'add', productId: 'one more', quantity: 1 })).toBe(full);
    expect(units(reduce(full, { do: 'add', productId: '0', quantity: 1 }))).toBe(maxLines + 1);
  });

  it('takes out no more than is meant', () => {
    const lamp = { productId: 'lamp', quantity: 1 };
    expect(reduce([{ ...cup, quantity: 5 }, desk], { do: 'takeOut', lines: [cup, desk, lamp] })).toEqual([{ ...cup, quantity: 3 }]);
    expect(reduce([{ ...cup, quantity: 1 }, lamp], { do: 'takeOut', lines: [cup] })).toEqual([lamp]);
  });

  it('clears', () => {
    expect(reduce([cup], { do: 'clear' })).toEqual([]);
  });
});

describe('parseBasket', () => {
  it('returns what was stored', () => {
    expect(parseBasket(JSON.parse(JSON.stringify([cup, desk])))).toEqual([cup, desk]);
  });

  it.each([null, 'text', {}, [null], [7], [{ productId: 7, quantity: 1 }], [{ productId: 'cup' }], [{ productId: 'cup', quantity: -4 }]])(
    'takes nothing from %j',
    (stored) => {
      expect(parseBasket(stored)).toEqual([]);
    },
  );
});

describe('available', () => {
  it('leaves what there was of each product', () => {
    const order = anOrder({
      items: [
        { productId: 'cup', quantity: 10 },
        { productId: 'desk', quantity: 1 },
        { productId: 'gone', quantity: 4 },
      ],
      shortages: [
        { productId: 'cup', requestedQuantity: 10, availableQuantity: 3 },
        { productId: 'gone', requestedQuantity: 4, availableQuantity: 0 },
      ],
    });
    expect(available(order)).toEqual([
      { productId: 'cup', quantity: 3 },
      { productId: 'desk', quantity: 1 },
    ]);
  });
});

describe('attempt', () => {
  const body = { customerId: 'ada', items: [cup] };
  const begin = (key: string) => () => key;

  it('keeps its key while the order is the same, also over a reload', () => {
    const first = attempt(null, body, begin('one'));
    const stored = parseAttempt(JSON.parse(JSON.stringify(first)));
    expect(attempt(stored, structuredClone(body), begin('two'))).toEqual(first);
  });

  it.each([
    ['the customer', { ...body, customerId: 'grace' }],
    ['a quantity', { ...body, items: [{ ...cup, quantity: 3 }] }],
    ['the products', { ...body, items: [cup, desk] }],
  ])('takes a new key for a change of %s', (_, changed) => {
    const first = attempt(null, body, begin('one'));
    expect(attempt(first, changed, begin('two')).key).toBe('two');
  });

  it.each([null, 'text', {}, { key: 'one' }, { key: 1, body }])('is none in %j', (stored) => {
    expect(parseAttempt(stored)).toBeNull();
  });
});

describe('perhapsPlaced', () => {
  const id = '0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60';
  const unknown = (location?: string) => new Problem({ type: '/problems/outcome-unknown', title: 'Unknown', status: 504 }, undefined, location);

  it('is the order that the answer names', () => {
    expect(perhapsPlaced(unknown(`/orders/${id}`))).toBe(id);
    expect(perhapsPlaced(unknown(`https://shop.example/orders/${id}`))).toBe(id);
  });

  it.each([
    ['no place', unknown()],
    ['another place', unknown('/customers/7')],
    ['a refusal', new Problem({ type: '/problems/unavailable', title: 'Busy', status: 503 }, 1000, `/orders/${id}`)],
    ['no answer', noAnswer()],
    ['a fault of ours', new TypeError('x')],
  ])('is none for %s', (_, error) => {
    expect(perhapsPlaced(error)).toBeUndefined();
  });
});
