import { persisted } from './persisted.ts';

// The traces that answers named, by order: the way to an order's trace until
// its journey says it.

const kept = 50;

const traces = persisted('orderflow.traces', (stored) =>
  Array.isArray(stored) ? stored.filter((entry): entry is [string, string] => Array.isArray(entry) && typeof entry[1] === 'string') : [],
);

export function rememberTrace(orderId: string, traceId: string): void {
  traces.set([[orderId, traceId] as [string, string], ...traces.get()].slice(0, kept));
}

export function rememberedTrace(orderId: string): string | undefined {
  return traces.get().find(([id]) => id === orderId)?.[1];
}
