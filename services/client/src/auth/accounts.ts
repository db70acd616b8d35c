import { ErrorResponse, InMemoryWebStorage, UserManager, WebStorageStateStore, type User } from 'oidc-client-ts';
import type { Account } from './session.ts';
import type { Settings } from './settings.ts';

// Loaded only where there are accounts. The library does the protocol:
// authorization code with PKCE, and renewal by refresh tokens.

const margin = 5; // s before its end that a token is renewed

/** The issuer has refused to renew: the session is over. */
export class SessionEnded extends Error {}

/** Where a sign-in led back to: the page that it began on, and what the issuer said if it signed nobody in. */
export interface Return extends Begun {
  account?: Account;
  error?: string;
}

/** What a sign-in remembers of its beginning. */
interface Begun {
  to: string;
  /** The issuer was not to show a page. */
  silently: boolean;
}

export class Accounts {
  readonly #settings: Settings;
  readonly #manager: UserManager;
  readonly #resource: { resource?: string };
  #user: User | undefined;
  #renewal: Promise<string> | undefined;

  constructor(settings: Settings) {
    const { origin } = globalThis.location;
    this.#settings = settings;
    // Some issuers make tokens for whom they are asked to (RFC 8707 wants a URL).
    this.#resource = URL.canParse(settings.audience) ? { resource: settings.audience } : {};
    this.#manager = new UserManager({
      authority: settings.issuer,
      client_id: settings.clientId,
      redirect_uri: `${origin}/signed-in`,
      post_logout_redirect_uri: `${origin}/`,
      scope: settings.scopes.join(' '),
      ...this.#resource,
      // Tokens are in memory only: what is stored, a script that gets into any
      // page of this origin can take away, now or later. A reload asks the
      // issuer, who remembers the browser, without showing a page.
      userStore: new WebStorageStateStore({ store: new InMemoryWebStorage() }),
      // What must survive the way to the issuer and back: no token, and one tab's.
      stateStore: new WebStorageStateStore({ store: sessionStorage }),
      automaticSilentRenew: false, // see token: timers sleep with the machine
      revokeTokensOnSignout: true,
      revokeTokenTypes: ['refresh_token'],
    });
  }

  /** Leaves for the issuer's page. Silently means to come back at once, signed in or not. Rejects when it is out of reach. */
  async signIn(returnTo: string, silently: boolean): Promise<void> {
    await this.#manager.signinRedirect({ state: { to: returnTo, silently } satisfies Begun, ...(silently && { prompt: 'none' }) });
  }

  /** Takes what the issuer sent the browser back with. */
  async finish(): Promise<Return> {
    try {
      const user = await this.#manager.signinRedirectCallback();
      return { ...begun(user.state), account: this.#take(user) };
    } catch (error) {
      if (error instanceof ErrorResponse) return { ...begun(error.state), error: error.error ?? 'error' };
      return { ...begun(undefined), error: error instanceof TypeError ? 'unreachable' : 'error' };
    }
  }

  /**
   * An access token that is valid for a while; not the one that was refused.
   * Rejects with SessionEnded, or with another error when the issuer is out of
   * reach.
   */
  async token(refused?: string): Promise<string> {
    const user = this.#user;
    if (!user) throw new SessionEnded();
    if (user.access_token !== refused && (user.expires_in ?? Infinity) > margin) return user.access_token;
    this.#renewal ??= this.#renew().finally(() => {
      this.#renewal = undefined;
    });
    return this.#renewal;
  }

  async #renew(): Promise<string> {
    if (this.#user?.refresh_token === undefined) throw new SessionEnded();
    try {
      const user = await this.#manager.signinSilent(this.#resource);
      if (!user) throw new SessionEnded();
      this.#take(user);
      return user.access_token;
    } catch (error) {
      if (error instanceof ErrorResponse && error.error !== 'server_error' && error.error !== 'temporarily_unavailable') throw new SessionEnded();
      throw error;
    }
  }

  /** Forgets the tokens. */
  forget(): void {
    this.#user = undefined;
    void this.#manager.removeUser();
  }

  /** Leaves for the issuer, who signs out and sends the browser back. Rejects when that cannot be done. */
  async signOut(): Promise<void> {
    await this.#manager.signoutRedirect();
  }

  #take(user: User): Account {
    this.#user = user;
    return accountOf(user, this.#settings);
  }
}

/** What a signed-in user is called and may do. */
export function accountOf(user: Pick<User, 'profile' | 'scopes'>, settings: Settings): Account {
  const customerId = user.profile[settings.customerClaim];
  const operations = user.scopes.includes(settings.operationsScope);
  return {
    name: user.profile.name ?? user.profile.preferred_username ?? user.profile.sub,
    ...(typeof customerId === 'string' && { customerId }),
    stock: operations || user.scopes.includes(settings.stockScope),
    operations,
  };
}

/** How a sign-in began, as far as that came back; a page of ours in any case. */
export function begun(state: unknown): Begun {
  const { to, silently } = (typeof state === 'object' && state !== null ? state : {}) as Record<string, unknown>;
  return { to: typeof to === 'string' && /^\/(?![/\\])/.test(to) ? to : '/', silently: silently === true };
}
