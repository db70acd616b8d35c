import { expect, it } from 'vitest';
import { merge } from './merge.ts';

const base = { name: 'Cup', priceCents: 2499 };

it('takes over what only the other has changed', () => {
  const merged = merge(base, { ...base, priceCents: 1999 }, { ...base, name: 'Espresso cup' });
  expect(merged).toEqual({ draft: { name: 'Espresso cup', priceCents: 1999 }, taken: ['priceCents'], disputed: [] });
});

it('keeps its own where both have changed', () => {
  const merged = merge(base, { name: 'Mug', priceCents: 1999 }, { name: 'Espresso cup', priceCents: 2499 });
  expect(merged).toEqual({ draft: { name: 'Espresso cup', priceCents: 1999 }, taken: ['priceCents'], disputed: ['name'] });
});

it('sees no dispute when both want the same', () => {
  const both = { name: 'Espresso cup', priceCents: 1999 };
  expect(merge(base, both, { ...both })).toEqual({ draft: both, taken: [], disputed: [] });
});

it('changes nothing when only stock came in', () => {
  const draft = { ...base, name: 'Espresso cup' };
  expect(merge(base, { ...base }, draft)).toEqual({ draft, taken: [], disputed: [] });
});
