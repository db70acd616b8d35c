import { expect, it } from 'vitest';
import { randomUUID } from '../random.ts';
import { recordedTrace, unrecorded } from './trace.ts';

const trace = '4bf92f3577b34da6a3ce929d0e0e4736';

it.each([
  [`traceparent;desc="00-${trace}-00f067aa0ba902b7-01"`, trace],
  [`db;dur=3, traceparent;desc="00-${trace}-00f067aa0ba902b7-03", cache`, trace],
  [`traceparent;desc="00-${trace}-00f067aa0ba902b7-00"`, undefined],
  [`traceparent;desc="00-${trace}-00f067aa0ba902b7"`, undefined],
  ['db;dur=3', undefined],
  [undefined, undefined],
])('reads the trace of an answer from %j', (timing, want) => {
  expect(recordedTrace(new Headers(timing === undefined ? {} : { 'Server-Timing': timing }))).toBe(want);
});

it('asks in W3C Trace Context not to be recorded', () => {
  expect(unrecorded().traceparent).toMatch(/^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00$/);
  expect(unrecorded()).not.toEqual(unrecorded());
});

it('makes UUIDs of version 4 that differ', () => {
  const ids = Array.from({ length: 100 }, randomUUID);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(new Set(ids).size).toBe(100);
});
