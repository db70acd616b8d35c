import { describe, expect, it } from 'vitest';
import type { LetterSummary } from '../api/deadletters.ts';
import { isOpen, lettersHref, parseFilter, selectionAll, selectionOf, toLocalTime } from './selection.ts';

const order = '0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60';
const aLetter = (letterId: number, state: LetterSummary['state']) => ({ letterId, state }) as LetterSummary;

describe('the filter in an address', () => {
  it('comes back as it was', () => {
    const filter = { queue: 'a b&c', groupId: 3, orderId: order, redriveId: order, state: 'waiting', text: '50 %', since: '2026-11-05T09:30:00.000Z' } as const;
    expect(parseFilter(new URLSearchParams(lettersHref(filter).split('?')[1]))).toEqual(filter);
    expect(lettersHref({})).toBe('/operations/letters');
  });

  it.each(['groupId=0', 'groupId=x', 'groupId=1.5', 'orderId=17', 'state=odd', 'since=yesterday', 'text=', 'what=1'])('ignores %s, which the service would refuse', (query) => {
    expect(parseFilter(new URLSearchParams(query))).toEqual({});
  });

  it('has times as their fields have them', () => {
    expect(toLocalTime(undefined)).toBe('');
    expect(new Date(toLocalTime('2026-11-05T09:30:59Z')).toISOString()).toBe('2026-11-05T09:30:00.000Z');
  });
});

describe('what is selected', () => {
  it('is the letters that are ticked, unknown ones only where there are', () => {
    expect(selectionOf([aLetter(1, 'waiting')])).toEqual({ letterIds: [1] });
    expect(selectionOf([aLetter(1, 'waiting'), aLetter(2, 'unknown')])).toEqual({ letterIds: [1, 2], unknown: true });
    expect(['waiting', 'unknown', 'redriving', 'handled', 'discarded'].map((state) => isOpen(aLetter(1, state as LetterSummary['state'])))).toEqual([true, true, false, false, false]);
  });

  it('is never more than the list shows', () => {
    expect(selectionAll({ queue: 'q', state: 'waiting' })).toEqual({ queue: 'q' });
    for (const filter of [{}, { state: 'waiting' }, { queue: 'q', state: 'unknown' }, { queue: 'q', state: 'handled' }, { queue: 'q', redriveId: order }] as const) {
      expect(selectionAll(filter)).toEqual(expect.any(String));
    }
  });
});
