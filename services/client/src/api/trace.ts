import { randomHex } from '../random.ts';

// The gateway begins the traces, and each answer names its own (W3C Trace
// Context) in the Server-Timing header.

/** The trace that an answer was recorded in, 32 hexadecimal digits; undefined when it was not. */
export function recordedTrace(headers: Headers): string | undefined {
  const named = /\btraceparent;desc="?00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})\b/.exec(headers.get('Server-Timing') ?? '');
  return named && (Number.parseInt(named[2] ?? '', 16) & 1) === 1 ? named[1] : undefined;
}

/** Header of a request that asks not to be recorded: of those that keep a page fresh there are too many. */
export function unrecorded(): { traceparent: string } {
  return { traceparent: `00-${randomHex(16)}-${randomHex(8)}-00` };
}
