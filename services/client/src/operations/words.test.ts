import { expect, it } from 'vitest';
import type { LetterEntry } from '../api/deadletters.ts';
import { canaries, causeInWords, entryInWords, ordersInWords, resultInWords } from './words.ts';

const entry = (action: LetterEntry['action'], redriveId: string | null = 'a') => ({ action, redriveId });

it('knows a canary: the first letter that is sent after a start or a resume', () => {
  const newestFirst = [entry('sent'), entry('handled'), entry('sent'), entry('resumed'), entry('sent'), entry('sent', 'b'), entry('started', 'b'), entry('sent'), entry('started'), entry('noted', null)];
  expect([...canaries(newestFirst)].sort()).toEqual([2, 5, 7]);
});

it('calls a cause by its error, or by its reason', () => {
  expect(causeInWords({ error: 'no such order', reason: 'permanent-failure' })).toBe('no such order');
  expect(causeInWords({ error: '', reason: 'delivery-limit' })).toBe('Failed too often');
  expect(causeInWords({ error: '', reason: 'new-one' })).toBe('new-one');
});

it('tells what a redrive has come to', () => {
  expect(resultInWords({ handled: 0, sent: 0, died: 0, unknown: 0, skipped: 0, planned: 5 })).toBe('');
  expect(resultInWords({ handled: 4, sent: 0, died: 1, unknown: 0, skipped: 0, planned: 2 })).toBe('4 handled, 1 dead again, 2 to send');
});

it('tells how much of the orders it knows', () => {
  expect(ordersInWords({ total: 0, asked: 0, final: 0 })).toContain('no order');
  expect(ordersInWords({ total: 3, asked: 0, final: 0 })).toContain('nothing could be learned');
  expect(ordersInWords({ total: 3, asked: 3, final: 1 })).toBe('1 of 3 orders had ended when the plan was made, Confirmed or Cancelled.');
  expect(ordersInWords({ total: 3, asked: 2, final: 2 })).toMatch(/^2 of 2 orders had ended .* Of 1 more nothing could be learned\.$/);
});

it('says what was done', () => {
  expect(entryInWords({ action: 'sent', letters: 1 }, true)).toBe('Canary sent: 1 letter');
  expect(entryInWords({ action: 'cancelled', letters: 3 })).toBe('Cancelled, 3 letters not sent');
});
