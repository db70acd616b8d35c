import { describe, expect, it } from 'vitest';
import { ago, bytes, count, counted, dayName, elapsed, money, shortId } from './format.ts';

describe('money', () => {
  it.each([
    [12_900, 'EUR', '€129.00'],
    [5, 'EUR', '€0.05'],
    [123_456_789, 'USD', '1,234,567.89'],
    [0, 'EUR', '€0.00'],
  ])('%d %s', (cents, currency, text) => {
    expect(money(cents, currency)).toContain(text);
  });
});

it('counts', () => {
  expect(count(12_345)).toBe('12,345');
  expect(counted(1, 'item')).toBe('1 item');
  expect(counted(0, 'item')).toBe('0 items');
  expect(counted(2000, 'item')).toBe('2,000 items');
});

describe('elapsed', () => {
  const start = '2026-11-05T09:30:00.123456Z';
  it.each([
    ['2026-11-05T09:30:00.123876Z', '420 µs'],
    ['2026-11-05T09:30:00.127102Z', '3.6 ms'],
    ['2026-11-05T09:30:00.141Z', '18 ms'],
    ['2026-11-05T09:30:01.363456Z', '1.24 s'],
    ['2026-11-05T09:32:05.5Z', '2 min 5 s'],
    ['2026-11-05T09:30:00.123456Z', '0 µs'],
    ['2026-11-05T09:30:00.103456Z', '-20 ms'],
  ])('to %s is %s', (end, text) => {
    expect(elapsed(start, end)).toBe(text);
  });
});

describe('dayName', () => {
  const now = new Date(2026, 10, 5, 0, 30);
  it.each([
    [new Date(2026, 10, 5, 0, 1), 'Today'],
    [new Date(2026, 10, 4, 23, 59), 'Yesterday'],
  ])('%s is %s', (at, name) => {
    expect(dayName(at.toISOString(), now)).toBe(name);
  });

  it('names the year only of another one', () => {
    expect(dayName(new Date(2026, 10, 2).toISOString(), now)).not.toContain('2026');
    expect(dayName(new Date(2025, 10, 2).toISOString(), now)).toContain('2025');
  });
});

it('shortens ids to the part in which they differ', () => {
  expect(shortId('0198e1b2-7c3d-7a10-9f00-3c5f1d2b4a60')).toBe('1D2B4A60');
});

it('says how long ago a time was, whatever the clocks say', () => {
  const now = new Date('2026-11-05T12:00:00Z');
  expect(['2026-11-05T12:00:30Z', '2026-11-05T11:59:30Z', '2026-11-05T11:55:00Z', '2026-10-20T12:00:00Z'].map((at) => ago(at, now))).toEqual([
    'just now',
    'just now',
    '5 minutes ago',
    '16 days ago',
  ]);
});

it('says sizes', () => {
  expect([1, 640, 1500, 10_000_000].map(bytes)).toEqual(['1 byte', '640 bytes', '1.5 kB', '10 MB']);
});
