/** What the pages must know about where they run: the server's config.json. */
export interface Config {
  /** Address of Jaeger's user interface; '' when there is none. */
  jaegerUrl: string;
}

const patience = 2000; // ms: the shop opens without it, only links to traces wait for the next visit

export const config: Config = { jaegerUrl: '' };

/** Reads config.json once, before the first page is shown. */
export async function loadConfig(): Promise<void> {
  try {
    const response = await fetch('/config.json', { signal: AbortSignal.timeout(patience) });
    if (response.ok) Object.assign(config, parseConfig(await response.json()));
  } catch {
    // Out of reach or not JSON: what is left is a client without links to traces.
  }
}

/** Takes from an answer what is of the right type and safe to link to. */
export function parseConfig(value: unknown): Partial<Config> {
  if (typeof value !== 'object' || value === null) return {};
  const { jaegerUrl } = value as Record<string, unknown>;
  return {
    ...(typeof jaegerUrl === 'string' && /^https?:\/\//.test(jaegerUrl) && { jaegerUrl: jaegerUrl.replace(/\/$/, '') }),
  };
}

/** Where the trace can be looked at; undefined without a Jaeger. */
export function traceUrl(traceId: string): string | undefined {
  return config.jaegerUrl === '' ? undefined : `${config.jaegerUrl}/trace/${traceId}`;
}
