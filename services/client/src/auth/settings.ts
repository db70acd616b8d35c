/** What is needed to sign in: the gateway's /auth/config. */
export interface Settings {
  issuer: string;
  clientId: string;
  /** For whom access tokens are. */
  audience: string;
  /** What to ask for; what is granted depends on who signs in. */
  scopes: readonly string[];
  /** Claim of the ID token with the customer's id. */
  customerClaim: string;
  /** The scope that maintains the catalog. */
  stockScope: string;
  /** The scope that does everything. */
  operationsScope: string;
}

const patience = 3000; // ms

/** Reads the settings. Undefined means that the system is open and knows no accounts. Rejects when it is out of reach. */
export async function loadSettings(): Promise<Settings | undefined> {
  const response = await fetch('/auth/config', { signal: AbortSignal.timeout(patience) });
  if (response.status === 404) return undefined;
  if (!response.ok) throw new Error(`/auth/config answers ${response.status}`);
  return parseSettings(await response.json());
}

export function parseSettings(value: unknown): Settings | undefined {
  const given = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const text = (name: string, fallback: string) => {
    const found = given[name];
    return typeof found === 'string' && found !== '' ? found : fallback;
  };
  const issuer = text('issuer', '');
  if (issuer === '') return undefined;
  const scopes = Array.isArray(given['scopes']) ? given['scopes'].filter((scope) => typeof scope === 'string') : [];
  return {
    issuer,
    clientId: text('clientId', 'orderflow-web'),
    audience: text('audience', 'orderflow'),
    scopes: [...new Set(['openid', 'profile', ...scopes])],
    customerClaim: text('customerClaim', 'customer_id'),
    stockScope: text('stockScope', 'stock'),
    operationsScope: text('operationsScope', 'operations'),
  };
}
