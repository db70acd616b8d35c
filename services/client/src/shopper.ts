import { useQuery } from '@tanstack/react-query';
import { customer } from './api/customers.ts';
import { useSession } from './auth/session.ts';
import { persisted, usePersisted } from './persisted.ts';
import { randomUUID } from './random.ts';

// Who is ordering: the customer who is signed in. Where the system is open, the
// shop takes anybody's word, and one who says nothing is a guest with an id of
// their own.

export interface Shopper {
  /** '' for one who is signed in and no customer. */
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
  const session = useSession();
  const chosen = usePersisted(store);
  if (session.kind === 'in') return { customerId: session.account.customerId ?? '', guest: false };
  return chosen ?? becomeGuest();
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
  const session = useSession();
  const { customerId, guest } = useShopper();
  const profile = useQuery({ ...customer(customerId), enabled: session.kind === 'open' && !guest });
  return session.kind === 'in' ? session.account.name : profile.data?.name;
}
