import { infiniteQueryOptions, queryOptions, type QueryClient } from '@tanstack/react-query';
import { gateway, reading, take } from './client.ts';
import { Problem } from './problem.ts';
import type { components, operations } from './schema.ts';

type Schemas = components['schemas'];

export type Letter = Schemas['Letter'];
export type LetterSummary = Schemas['LetterSummary'];
export type LetterState = Schemas['LetterState'];
export type LetterGroup = Schemas['LetterGroup'];
export type LetterSelection = Schemas['LetterSelection'];
export type Redrive = Schemas['Redrive'];
export type RedriveState = Schemas['RedriveState'];
export type RedriveOutcome = Schemas['RedriveOutcome'];
export type RedriveLetter = Schemas['RedriveLetterPage']['letters'][number];
export type LetterEntry = Schemas['LetterHistoryEntry'];

/** What the list of letters is narrowed by; what is absent narrows nothing. */
export type LetterFilter = Omit<NonNullable<operations['listLetters']['parameters']['query']>, 'limit' | 'after'>;

const root = 'deadletters';
const following = { initialPageParam: '', getNextPageParam: (page: { next?: string }) => page.next };
const cursor = (after: string) => (after === '' ? {} : { after });
const fresh = { refetchInterval: 5000 };

/** The causes, those with the latest letter first. */
export const letterGroups = (queue?: string) =>
  infiniteQueryOptions({
    queryKey: [root, 'groups', queue],
    queryFn: (context) => {
      const query = { ...(queue !== undefined && { queue }), ...cursor(context.pageParam) };
      return take(gateway.GET('/deadletters/groups', { params: { query }, ...reading(context) }));
    },
    ...following,
    ...fresh,
    select: ({ pages }) => pages.flatMap((page) => page.groups),
  });

/** Letters without their bodies, newest first. */
export const letters = (filter: LetterFilter) =>
  infiniteQueryOptions({
    queryKey: [root, 'letters', filter],
    queryFn: (context) => {
      const query = { ...filter, ...cursor(context.pageParam) };
      return take(gateway.GET('/deadletters', { params: { query }, ...reading(context) }));
    },
    ...following,
    ...fresh,
    select: ({ pages }) => pages.flatMap((page) => page.letters),
  });

export const letter = (letterId: number) =>
  queryOptions({
    queryKey: [root, 'letter', letterId],
    queryFn: (context) =>
      take(gateway.GET('/deadletters/{letterId}', { params: { path: { letterId } }, ...reading(context) })),
    ...fresh,
  });

/** The bytes of a letter's body, as they came. */
export function letterBody(letterId: number): Promise<Blob> {
  return take(gateway.GET('/deadletters/bodies/{letterId}', { params: { path: { letterId } }, parseAs: 'blob' }));
}

/** Letters with their bodies as JSON lines. */
export function exportLetters(query: Omit<LetterFilter, 'redriveId'>): Promise<Blob> {
  return take(gateway.GET('/deadletters/export', { params: { query }, parseAs: 'blob' }));
}

/** Writes what is known of a cause, or removes it: the empty text is none. */
export async function noteGroup(groupId: number, text: string): Promise<void> {
  await take(gateway.PUT('/deadletters/groups/{groupId}/note', { params: { path: { groupId } }, body: { text } }));
}

/** What was done, newest first: all of it, or with one redrive. */
export const letterHistory = (redriveId?: string) =>
  infiniteQueryOptions({
    queryKey: [root, 'history', redriveId],
    queryFn: (context) => {
      const query = { ...(redriveId !== undefined && { redriveId }), ...cursor(context.pageParam) };
      return take(gateway.GET('/deadletters/history', { params: { query }, ...reading(context) }));
    },
    ...following,
    ...fresh,
    select: ({ pages }) => pages.flatMap((page) => page.entries),
  });

const ended: readonly RedriveState[] = ['done', 'cancelled'];

/** How long to wait before a redrive is read again, in ms; false when nothing will change it any more. */
export function redriveRefresh(redrive: Pick<Redrive, 'state' | 'sent'> | undefined): number | false {
  if (redrive === undefined || redrive.state === 'running') return 1000;
  // What is under way gets its outcome after a cancel, too.
  if (ended.includes(redrive.state)) return redrive.sent > 0 ? 2000 : false;
  return 5000;
}

/** Redrives and plans, newest first. */
export const redrives = () =>
  infiniteQueryOptions({
    queryKey: [root, 'redrives'],
    queryFn: (context) =>
      take(gateway.GET('/deadletters/redrives', { params: { query: cursor(context.pageParam) }, ...reading(context) })),
    ...following,
    ...fresh,
    select: ({ pages }) => pages.flatMap((page) => page.redrives),
  });

/** The letters of a redrive in the order in which they are sent. */
export const redriveLetters = (redriveId: string, outcome?: RedriveOutcome) =>
  infiniteQueryOptions({
    queryKey: [root, 'redrive', redriveId, 'letters', outcome],
    queryFn: (context) => {
      const params = { path: { redriveId }, query: { ...(outcome !== undefined && { outcome }), ...cursor(context.pageParam) } };
      return take(gateway.GET('/deadletters/redrives/{redriveId}/letters', { params, ...reading(context) }));
    },
    ...following,
    select: ({ pages }) => pages.flatMap((page) => page.letters),
  });

export const redrive = (redriveId: string) =>
  queryOptions({
    queryKey: [root, 'redrive', redriveId],
    queryFn: (context) =>
      take(gateway.GET('/deadletters/redrives/{redriveId}', { params: { path: { redriveId } }, ...reading(context) })),
    refetchInterval: ({ state }) => redriveRefresh(state.data),
  });

/** Freezes the letters; nothing is sent before it is started. */
export function planRedrive(selection: LetterSelection, why: string, rate: number): Promise<Redrive> {
  return take(gateway.POST('/deadletters/redrives', { body: { selection, why, rate } }));
}

/** Rejects with a Problem of status 409 that names letters of other running redrives, unless they are skipped. */
export function startRedrive(redriveId: string, why: string, skipTaken: boolean): Promise<Redrive> {
  const params = { path: { redriveId } };
  return take(gateway.POST('/deadletters/redrives/{redriveId}/start', { params, body: { why, skipTaken } }));
}

/** The letters that other running redrives have, as far as a refused start names them. */
export function takenLetters(error: unknown): { letterId: number; redriveId: string }[] {
  if (!(error instanceof Problem) || error.status !== 409) return [];
  return Object.entries(error.fields).flatMap(([field, detail]) => {
    const letterId = /^letters\[(\d+)\]$/.exec(field)?.[1];
    const redriveId = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/.exec(detail)?.[0];
    return letterId !== undefined && redriveId !== undefined ? [{ letterId: Number(letterId), redriveId }] : [];
  });
}

export type RedriveStep = 'pause' | 'resume' | 'cancel';

export function stepRedrive(redriveId: string, step: RedriveStep, why: string): Promise<Redrive> {
  const options = { params: { path: { redriveId } }, body: { why } };
  switch (step) {
    case 'pause':
      return take(gateway.POST('/deadletters/redrives/{redriveId}/pause', options));
    case 'resume':
      return take(gateway.POST('/deadletters/redrives/{redriveId}/resume', options));
    case 'cancel':
      return take(gateway.POST('/deadletters/redrives/{redriveId}/cancel', options));
  }
}

/** Gives letters up and returns how many; those of a running redrive are left out. */
export async function discardLetters(selection: LetterSelection, why: string): Promise<number> {
  return (await take(gateway.POST('/deadletters/discard', { body: { selection, why } }))).discarded;
}

/** Has every view of the dead letters read again. */
export async function refreshLetters(client: QueryClient): Promise<void> {
  await client.invalidateQueries({ queryKey: [root] });
}

/** Has what a redrive's letters have come to, and its steps, read again. */
export async function refreshRedrive(client: QueryClient, redriveId: string): Promise<void> {
  await Promise.all([
    client.invalidateQueries({ queryKey: [root, 'redrive', redriveId, 'letters'] }),
    client.invalidateQueries({ queryKey: [root, 'history', redriveId] }),
  ]);
}
