import { useQuery } from '@tanstack/react-query';
import { customer } from './api/customers.ts';
import { persisted, usePersisted } from './persisted.ts';
import { randomUUID } from './random.ts';

// Who is ordering. There is no signing in: the shop takes anybody's word, and
// one who says nothing is a guest with an id of their own.

export interface Shopper {
  readonly customerId: string;
  /** Has no profile: the id was made up in this browser. */
  readonly guest: boolean;
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const store = persisted<Shopper | null>('orderflow.shopper', (stored) => {
  const { customerId, guest } = (stored ?? {}) as Partial<Shopper>;
  return typeof customerId === 'string' && uuid.test(customerId) ? { customerId, guest: guest === true } : null;
});
if (!store.get()) becomeGuest();

export function useShopper(): Shopper {
  return usePersisted(store) ?? becomeGuest();
}

export function becomeShopper(customerId: string): void {
  store.set({ customerId, guest: false });
}

export function becomeGuest(): Shopper {
  const guest = { customerId: randomUUID(), guest: true };
  store.set(guest);
  return guest;
}

/** The shopper's name; undefined for a guest, and until it is read. */
export function useShopperName(): string | undefined {
  const { customerId, guest } = useShopper();
  return useQuery({ ...customer(customerId), enabled: !guest }).data?.name;
}
