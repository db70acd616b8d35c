import { expect, it } from 'vitest';
import { randomUUID } from '../random.ts';
import { newTrace, traceparent } from './trace.ts';

it('writes a traceparent of W3C Trace Context', () => {
  const trace = newTrace(1);
  expect(traceparent(trace)).toMatch(new RegExp(`^00-${trace.traceId}-[0-9a-f]{16}-01$`));
  expect(trace.traceId).toMatch(/^(?!0{32})[0-9a-f]{32}$/);
});

it('gives each request of a trace a span of its own', () => {
  const trace = newTrace(1);
  expect(traceparent(trace)).not.toBe(traceparent(trace));
});

it('asks for recording with the probability given', () => {
  const recorded = (ratio: number) => Array.from({ length: 1000 }, () => newTrace(ratio)).filter(({ sampled }) => sampled).length;
  expect(recorded(0)).toBe(0);
  expect(recorded(1)).toBe(1000);
  expect(recorded(0.5)).toBeGreaterThan(350);
  expect(recorded(0.5)).toBeLessThan(650);
  expect(traceparent(newTrace(0))).toMatch(/-00$/);
});

it('makes UUIDs of version 4 that differ', () => {
  const ids = Array.from({ length: 100 }, randomUUID);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(new Set(ids).size).toBe(100);
});
