import type { LetterFilter, LetterSelection, LetterState, LetterSummary } from '../api/deadletters.ts';
import { count, counted, fullTime } from '../format.ts';

export const states: readonly LetterState[] = ['waiting', 'redriving', 'handled', 'unknown', 'discarded'];
export const maxSelected = 1000;

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function isUuid(text: string): boolean {
  return uuid.test(text);
}

/** Reads a filter from an address. What the service would refuse narrows nothing. */
export function parseFilter(parameters: URLSearchParams): LetterFilter {
  const get = (name: string) => parameters.get(name) ?? '';
  const state = states.find((known) => known === get('state'));
  const groupId = Number(get('groupId'));
  const time = (name: string) => (Number.isNaN(Date.parse(get(name))) ? '' : new Date(get(name)).toISOString());
  return {
    ...(get('queue') !== '' && { queue: get('queue') }),
    ...(Number.isSafeInteger(groupId) && groupId > 0 && { groupId }),
    ...(isUuid(get('orderId')) && { orderId: get('orderId') }),
    ...(isUuid(get('redriveId')) && { redriveId: get('redriveId') }),
    ...(state && { state }),
    ...(get('text') !== '' && { text: get('text').slice(0, 200) }),
    ...(time('since') !== '' && { since: time('since') }),
    ...(time('until') !== '' && { until: time('until') }),
  };
}

/** The address of the letters that a filter leaves. */
export function lettersHref(filter: LetterFilter): string {
  const query = new URLSearchParams(Object.entries(filter).map(([name, value]) => [name, String(value)])).toString();
  return query === '' ? '/operations/letters' : `/operations/letters?${query}`;
}

/** Whether something can still be done about a letter. */
export function isOpen({ state }: Pick<LetterSummary, 'state'>): boolean {
  return state === 'waiting' || state === 'unknown';
}

/** The letters that are ticked. */
export function selectionOf(letters: readonly LetterSummary[]): LetterSelection {
  return {
    letterIds: letters.map(({ letterId }) => letterId),
    ...(letters.some(({ state }) => state === 'unknown') && { unknown: true }),
  };
}

/**
 * All letters that a filter leaves, in as far as something can be done about
 * them. A sentence where that cannot be said to the service, or means everything.
 */
export function selectionAll(filter: LetterFilter): LetterSelection | string {
  const { state, redriveId, ...selection } = filter;
  if (redriveId !== undefined) return 'Letters of a redrive are selected one by one.';
  if (state !== undefined && state !== 'waiting') return 'Only letters that wait are selected all at once.';
  if (Object.keys(selection).length === 0) return 'Narrow the list first, or select letters.';
  return selection;
}

/** A selection in words, as in "Redrive …". */
export function selectionInWords(selection: LetterSelection): string {
  if (selection.letterIds) return counted(selection.letterIds.length, 'letter');
  const { queue, groupId, orderId, text, since, until } = selection;
  const parts = [
    groupId !== undefined && `of cause ${count(groupId)}`,
    queue !== undefined && `in ${queue}`,
    orderId !== undefined && `about order ${orderId}`,
    text !== undefined && `with “${text}”`,
    since !== undefined && `since ${fullTime(since)}`,
    until !== undefined && `before ${fullTime(until)}`,
  ].filter((part) => part !== false);
  return ['all waiting letters', ...parts].join(' ');
}

/** A time as the field for it has it, in the browser's time zone, to the minute; '' for none. */
export function toLocalTime(at: string | undefined): string {
  if (at === undefined) return '';
  const date = new Date(at);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
