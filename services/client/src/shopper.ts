import { persisted, usePersisted } from './persisted.ts';
import { randomUUID } from './random.ts';

// Who is ordering. There is no signing in: the shop takes anybody's word, and
// one who says nothing is a guest with an id of their own.

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const store = persisted('orderflow.customer', (stored) => (typeof stored === 'string' && uuid.test(stored) ? stored : ''));
if (store.get() === '') store.set(randomUUID());

export function useShopper(): string {
  return usePersisted(store);
}

export function becomeShopper(customerId: string): void {
  store.set(customerId);
}
