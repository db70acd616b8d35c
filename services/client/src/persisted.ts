import { useSyncExternalStore } from 'react';

/** A value that outlives the page and is the same in all its tabs. */
export interface Persisted<T> {
  get: () => T;
  set: (value: T) => void;
  subscribe: (changed: () => void) => () => void;
}

/**
 * Keeps a value in localStorage. parse makes a value of what was stored, which
 * may be of an older version, tampered with, or null. Where there is no storage
 * (private windows, full disks) the value lives as long as the page.
 */
export function persisted<T>(key: string, parse: (stored: unknown) => T): Persisted<T> {
  const listeners = new Set<() => void>();
  let value = parse(read(key));

  const tell = () => {
    for (const changed of listeners) changed();
  };
  globalThis.addEventListener('storage', (event) => {
    if (event.key !== key && event.key !== null) return;
    value = parse(read(key));
    tell();
  });

  return {
    get: () => value,
    set: (next) => {
      value = next;
      try {
        localStorage.setItem(key, JSON.stringify(next));
      } catch {
        // No storage: see above.
      }
      tell();
    },
    subscribe: (changed) => {
      listeners.add(changed);
      return () => listeners.delete(changed);
    },
  };
}

function read(key: string): unknown {
  try {
    return JSON.parse(localStorage.getItem(key) ?? 'null') as unknown;
  } catch {
    return null;
  }
}

export function usePersisted<T>(store: Persisted<T>): T {
  return useSyncExternalStore(store.subscribe, store.get);
}
