import { beforeEach, expect, it, vi } from 'vitest';
import { persisted } from './persisted.ts';

const parse = (stored: unknown) => (typeof stored === 'number' ? stored : 0);

beforeEach(() => {
  localStorage.clear();
});

it('outlives the page', () => {
  persisted('n', parse).set(7);
  expect(persisted('n', parse).get()).toBe(7);
});

it.each(['not JSON', '"text"', 'null'])('starts fresh with %s in the storage', (text) => {
  localStorage.setItem('n', text);
  expect(persisted('n', parse).get()).toBe(0);
});

it('follows the other tabs', () => {
  const store = persisted('n', parse);
  const changed = vi.fn();
  store.subscribe(changed);
  localStorage.setItem('n', '5');
  globalThis.dispatchEvent(new StorageEvent('storage', { key: 'n' }));
  globalThis.dispatchEvent(new StorageEvent('storage', { key: 'other' }));
  expect(store.get()).toBe(5);
  expect(changed).toHaveBeenCalledTimes(1);
});

it('works where nothing can be stored', () => {
  vi.spyOn(Storage.prototype, 'setItem').mockImplementation(() => {
    throw new DOMException('full', 'QuotaExceededError');
  });
  const store = persisted('n', parse);
  store.set(3);
  expect(store.get()).toBe(3);
});

it('tells nobody who has left', () => {
  const store = persisted('n', parse);
  const changed = vi.fn();
  store.subscribe(changed)();
  store.set(1);
  expect(changed).not.toHaveBeenCalled();
});
