import { useSyncExternalStore } from 'react';
import { Problem } from '../api/problem.ts';
import { persisted } from '../persisted.ts';
import type { Accounts } from './accounts.ts';
import { loadSettings } from './settings.ts';

// Who is signed in, for the whole client. Where the gateway names no issuer the
// system is open, and nobody has to.

export interface Account {
  name: string;
  /** Absent for one who is no customer. */
  customerId?: string;
  /** May change the catalog. */
  stock: boolean;
  /** May see and do everything. */
  operations: boolean;
}

export type Session =
  | { kind: 'open' }
  | { kind: 'in'; account: Account }
  /** ended: there was a session until now. unreachable: nobody can sign in. refused: the issuer said no. */
  | { kind: 'out'; why?: 'ended' | 'unreachable' | 'refused' };

let session: Session = { kind: 'out' };
let accounts: Accounts | undefined;
const listeners = new Set<() => void>();

// Whether to ask the issuer at the next visit: no token, only that somebody has
// signed in. Signing out in one tab is signing out in all.
const remembered = persisted('orderflow.signed-in', (stored) => stored === true);
let leaving = false;
remembered.subscribe(() => {
  if (session.kind === 'in' && !remembered.get() && !leaving) leave();
});

function become(next: Session): void {
  session = next;
  for (const changed of listeners) changed();
}

function leave(why?: 'ended'): void {
  accounts?.forget();
  become(why ? { kind: 'out', why } : { kind: 'out' });
}

export function useSession(): Session {
  return useSyncExternalStore(
    (changed) => {
      listeners.add(changed);
      return () => listeners.delete(changed);
    },
    () => session,
  );
}

/** Whether the one who is here may do it, as far as the page knows: the services decide. */
export function useMay(what: 'stock' | 'operations'): boolean {
  const now = useSession();
  return now.kind === 'open' || (now.kind === 'in' && now.account[what]);
}

/** Finds out who is here, before the first page is shown. Never resolves when the browser leaves for the issuer. */
export async function startSession(): Promise<void> {
  try {
    const settings = await loadSettings();
    if (!settings) {
      become({ kind: 'open' });
      return;
    }
    accounts = new (await import('./accounts.ts')).Accounts(settings);
  } catch {
    become({ kind: 'out', why: 'unreachable' });
    return;
  }
  if (location.pathname === '/signed-in') {
    const { to, silently, account, error } = await accounts.finish();
    history.replaceState(null, '', to);
    if (silently && (error === 'consent_required' || error === 'interaction_required')) {
      // Who has signed in before is known there, but the issuer has to show a page, if only for a moment.
      await goToIssuer(accounts, false);
      return;
    }
    if (account) {
      become({ kind: 'in', account });
      remembered.set(true);
      return;
    }
    remembered.set(false);
    if (error === 'unreachable') become({ kind: 'out', why: 'unreachable' });
    else if (error !== 'login_required') become({ kind: 'out', why: 'refused' });
  } else if (remembered.get()) {
    await goToIssuer(accounts, true);
  }
}

async function goToIssuer(accounts: Accounts, silently: boolean): Promise<void> {
  try {
    await accounts.signIn(location.pathname + location.search, silently);
    await new Promise(() => undefined); // the page goes away
  } catch {
    become({ kind: 'out', why: 'unreachable' });
  }
}

/** Leaves for the issuer's page to sign in, and comes back to this one. */
export async function signIn(): Promise<void> {
  if (accounts) await goToIssuer(accounts, false);
  else location.reload(); // the settings could not be read
}

export async function signOut(): Promise<void> {
  leaving = true; // the issuer wants to see the ID token: this tab forgets it with the page
  try {
    remembered.set(false);
    await accounts?.signOut();
  } catch {
    leave(); // the issuer is out of reach, or has no page for it
  }
}

/** A token for the gateway; undefined where none is needed, or nobody is signed in. */
async function accessToken(refused?: string): Promise<string | undefined> {
  if (session.kind !== 'in' || !accounts) return undefined;
  try {
    return await accounts.token(refused);
  } catch (error) {
    const { SessionEnded } = await import('./accounts.ts');
    if (!(error instanceof SessionEnded)) throw new Problem({ type: '/problems/accounts-unreachable', title: 'You cannot be signed in', status: 0 });
    leave('ended');
    return undefined;
  }
}

/** fetch in the name of the one who is signed in. A token that is refused is renewed once: nothing was done yet. */
export async function authorizedFetch(request: Request): Promise<Response> {
  const token = await accessToken();
  if (token === undefined) return fetch(request);
  const again = request.clone();
  request.headers.set('Authorization', `Bearer ${token}`);
  const response = await fetch(request);
  if (response.status !== 401) return response;
  const renewed = await accessToken(token);
  if (renewed === undefined || renewed === token) return response;
  again.headers.set('Authorization', `Bearer ${renewed}`);
  return fetch(again);
}
